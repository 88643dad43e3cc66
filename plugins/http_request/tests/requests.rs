//! What is sent, and what becomes of each kind of answer.

use std::time::Duration;

use reipaz_plugin_http_request::ReipazStep;
use reipaz_sdk::http::testing::{Served, serve};
use reipaz_sdk::http::{self, ErrorKind, Request, Response};
use reipaz_sdk::{Context, ErrorClass, StepError, testing};
use serde_json::{Value, json};

fn run(input: Value) -> Result<Value, StepError> {
    let context = Context { idempotency_key: "run-1:/pay".to_owned(), ..Context::default() };
    let output = testing::run::<ReipazStep>(context, &input.to_string())?;
    Ok(serde_json::from_str(&output)?)
}

fn answers(response: Response) -> Served {
    serve(move |_| response.clone())
}

/// The one request that an input makes.
fn sent(input: Value) -> Request {
    let served = answers(Response::new(200));
    run(input).expect("an answer");
    served.requests().remove(0)
}

#[test]
fn a_url_is_enough() {
    let request = sent(json!({"url": "http://shop.example/orders"}));
    assert_eq!((request.method_str(), request.url_str()), ("GET", "http://shop.example/orders"));
    assert!(request.body_bytes().is_empty());
    assert!(request.header_str("user-agent").is_some_and(|agent| agent.starts_with("reipaz-http-request/")));
}

#[test]
fn query_and_headers_are_added() {
    let request = sent(json!({
        "url": "http://shop.example/?a=1",
        "query": {"q": "x y", "n": 5, "tag": ["a", "b"], "none": null, "yes": true},
        "headers": {"X-Count": 3, "accept": "text/csv", "user-agent": "me"},
    }));
    assert_eq!(request.url_str(), "http://shop.example/?a=1&n=5&q=x%20y&tag=a&tag=b&yes=true");
    assert_eq!(request.header_str("x-count"), Some("3"));
    assert_eq!(request.header_str("user-agent"), Some("me"));
}

#[test]
fn a_string_is_sent_as_it_is_and_anything_else_as_json() {
    let text = sent(json!({"url": "http://h/", "method": "PUT", "body": "a,b\n"}));
    assert_eq!(text.body_bytes(), b"a,b\n");
    assert_eq!(text.header_str("content-type"), Some("text/plain; charset=utf-8"));
    let json = sent(json!({"url": "http://h/", "method": "PUT", "body": {"a": [1]}}));
    assert_eq!(json.body_bytes(), br#"{"a":[1]}"#);
    assert_eq!(json.header_str("content-type"), Some("application/json"));
    let own = sent(
        json!({"url": "http://h/", "method": "PUT", "body": "<a/>", "headers": {"Content-Type": "text/xml"}}),
    );
    assert_eq!(own.header_str("content-type"), Some("text/xml"));
}

#[test]
fn post_and_patch_carry_the_steps_key_and_no_other_method_does() {
    for (method, carried) in
        [("POST", true), ("PATCH", true), ("GET", false), ("PUT", false), ("DELETE", false)]
    {
        let request = sent(json!({"url": "http://h/", "method": method}));
        assert_eq!(request.header_str("idempotency-key"), carried.then_some("run-1:/pay"), "{method}");
    }
    let own = sent(json!({"url": "http://h/", "method": "POST", "headers": {"idempotency-key": "mine"}}));
    assert_eq!(own.header_str("idempotency-key"), Some("mine"));
}

#[test]
fn json_is_parsed_and_keeps_its_digits() {
    let response = Response::new(200)
        .with_header("Content-Type", "application/problem+json; charset=utf-8")
        .with_header("Vary", "a")
        .with_header("vary", "b")
        .with_body("{\"n\": 12345678901234567890.10}");
    let _served = answers(response);
    let output =
        testing::run::<ReipazStep>(Context::default(), r#"{"url": "http://h/"}"#).expect("an answer");
    assert!(output.contains("12345678901234567890.10"), "{output}");
    let output: Value = serde_json::from_str(&output).expect("JSON");
    assert_eq!((&output["status"], &output["encoding"]), (&json!(200), &json!("json")));
    assert_eq!(output["headers"]["vary"], "a, b");
}

#[test]
fn text_bytes_and_nothing_are_told_apart() {
    for (content_type, body, encoding, expected) in [
        ("text/csv", b"a,b".as_slice(), "text", json!("a,b")),
        ("", b"plain".as_slice(), "text", json!("plain")),
        ("text/plain; charset=ISO-8859-1", b"ma\xf1ana".as_slice(), "text", json!("ma\u{f1}ana")),
        ("image/png", b"\x89PNG\xff".as_slice(), "base64", json!("iVBOR/8=")),
        ("application/json", b"".as_slice(), "none", Value::Null),
    ] {
        let _served = answers(Response::new(200).with_header("content-type", content_type).with_body(body));
        let output = run(json!({"url": "http://h/"})).expect("an answer");
        assert_eq!((&output["encoding"], &output["body"]), (&json!(encoding), &expected), "{content_type}");
    }
}

#[test]
fn a_body_that_is_not_the_json_it_promises_is_a_failure() {
    let _served =
        answers(Response::new(200).with_header("content-type", "application/json").with_body("<html>"));
    let error = run(json!({"url": "http://h/"})).expect_err("no JSON");
    assert_eq!((error.class, error.code.as_str()), (ErrorClass::Permanent, "http_invalid_json"));
}

#[test]
fn statuses_become_failures_by_the_retry_rule() {
    for (status, class) in [
        (404, ErrorClass::Permanent),
        (408, ErrorClass::Transient),
        (425, ErrorClass::Transient),
        (429, ErrorClass::RateLimited),
        (500, ErrorClass::Transient),
        (501, ErrorClass::Permanent),
        (503, ErrorClass::Transient),
        (302, ErrorClass::Permanent),
    ] {
        let _served = answers(Response::new(status).with_header("retry-after", 7).with_body("why"));
        let error = run(json!({"url": "http://h/"})).expect_err("a failure");
        assert_eq!((error.class, error.code.as_str()), (class, format!("http_{status}").as_str()));
        assert_eq!(error.retry_after, Some(Duration::from_secs(7)));
        assert_eq!(error.details, Some(json!({"status": status, "body": "why"})));
    }
}

#[test]
fn a_workflow_may_expect_other_statuses() {
    let input = json!({"url": "http://h/", "expected_statuses": [200, 404]});
    let _served = answers(Response::new(404).with_body("nobody"));
    assert_eq!(run(input.clone()).expect("expected")["status"], 404);
    let _served = answers(Response::new(204));
    let error = run(input).expect_err("not expected");
    assert!(error.message.contains("expected was 200 or 404"), "{error}");
}

#[test]
fn no_answer_has_its_class() {
    for (kind, class, code) in [
        (ErrorKind::Network, ErrorClass::Network, "http_network"),
        (ErrorKind::Timeout, ErrorClass::Timeout, "http_timeout"),
        (ErrorKind::Denied, ErrorClass::Permanent, "http_denied"),
    ] {
        let _served = http::testing::fail(kind);
        let error = run(json!({"url": "http://h/"})).expect_err("no answer");
        assert_eq!((error.class, error.code.as_str()), (class, code));
    }
}

#[test]
fn a_body_over_its_bound_is_refused() {
    let _served = answers(Response::new(200).with_body(vec![b'x'; (1 << 20) + 1]));
    assert_eq!(run(json!({"url": "http://h/"})).expect_err("too long").code, "http_body_too_large");
    assert!(run(json!({"url": "http://h/", "max_body_bytes": 2 << 20})).is_ok());
    assert_eq!(
        run(json!({"url": "http://h/", "max_body_bytes": 1u64 << 40})).expect_err("too much").code,
        "bad_input"
    );
}

#[test]
fn what_makes_no_sense_is_refused_before_it_is_sent() {
    let served = answers(Response::new(200));
    for input in [
        json!({"url": "http://h/", "timeout": "soon"}),
        json!({"url": "http://h/", "timeout": "0s"}),
        json!({"url": "http://h/", "timeout": "99999999999999999999h"}),
        json!({"url": "http://h/", "method": "post"}),
        json!({"url": "http://h/", "methd": "POST"}),
        json!({"url": "h"}),
        json!({}),
    ] {
        assert_eq!(run(input.clone()).expect_err("refused").class, ErrorClass::Permanent, "{input}");
    }
    assert!(served.requests().is_empty());
    assert!(run(json!({"url": "http://h/", "timeout": "1500ms"})).is_ok());
}

#[test]
fn the_manifest_says_what_can_be_asked() {
    let manifest = testing::describe::<ReipazStep>();
    assert_eq!((manifest.name.as_str(), manifest.version.as_str()), ("http_request", "1.0.0"));
    assert_eq!(manifest.input_schema["required"], json!(["url"]));
    assert_eq!(manifest.input_schema["additionalProperties"], json!(false));
    assert_eq!(manifest.grants.len(), 1);
}
