//! A step as its author writes it and as a host sees it.

use std::io;
use std::time::Duration;

use reipaz_sdk::http::{self, ErrorKind, Response};
use reipaz_sdk::prelude::*;
use reipaz_sdk::{ErrorClass, testing};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

#[derive(Deserialize, JsonSchema)]
struct Order {
    /// In cents.
    total: u64,
    #[serde(default)]
    note: Option<String>,
}

#[derive(Serialize, JsonSchema)]
struct Score {
    risk: f64,
    attempt: u32,
}

/// Scores an order.
///
/// By its total.
#[reipaz_sdk::step(
    name = "score",
    version = "1.2.0",
    grants(http("GET api.example.com", why = "fetches rates"))
)]
fn score(order: Order, context: &Context) -> Result<Score, StepError> {
    info!("scoring", total = order.total, note = order.note.as_deref().unwrap_or("none"));
    warn!("attempt {}", context.attempt);
    assert!(progress::report(1, Some(2), "half"));
    if order.total == 0 {
        return Err(StepError::permanent("empty_order", "an order needs a total"));
    }
    Ok(Score { risk: order.total as f64 / 100.0, attempt: context.attempt })
}

#[test]
fn the_manifest_comes_from_the_attribute_and_the_types() {
    let manifest = testing::describe::<ReipazStep>();

    assert_eq!((manifest.name.as_str(), manifest.version.as_str()), ("score", "1.2.0"));
    assert_eq!(manifest.summary, "Scores an order.");
    let [grant] = &manifest.grants[..] else { panic!("one grant") };
    assert_eq!((grant.kind.as_str(), grant.value.as_str()), ("http", "GET api.example.com"));
    assert_eq!(manifest.input_schema["properties"]["total"]["description"], "In cents.");
    assert_eq!(manifest.input_schema["required"], json!(["total"]));
    assert_eq!(manifest.output_schema["required"], json!(["risk", "attempt"]));
}

#[test]
fn a_run_is_json_in_and_json_out() {
    let context = Context { attempt: 3, ..Context::default() };
    let output = testing::run::<ReipazStep>(context, r#"{"total": 250}"#).expect("a score");
    assert_eq!(serde_json::from_str::<Value>(&output).expect("JSON"), json!({"risk": 2.5, "attempt": 3}));
}

#[test]
fn an_input_of_another_shape_is_the_callers_mistake() {
    let error =
        testing::run::<ReipazStep>(Context::default(), r#"{"total": "much"}"#).expect_err("no number");
    assert_eq!((error.class, error.code.as_str()), (ErrorClass::Permanent, "bad_input"));
    assert!(error.message.contains("total") || error.message.contains("u64"), "{error}");
}

mod without_name {
    use super::*;

    #[reipaz_sdk::step]
    fn anything(_: ()) -> Result<(), StepError> {
        Ok(())
    }

    #[test]
    fn name_version_and_summary_come_from_the_package() {
        let manifest = testing::describe::<ReipazStep>();
        assert_eq!(
            (manifest.name.as_str(), manifest.version.as_str()),
            ("reipaz_sdk", env!("CARGO_PKG_VERSION"))
        );
        assert_eq!(manifest.summary, env!("CARGO_PKG_DESCRIPTION"));
        assert_eq!(testing::run::<ReipazStep>(Context::default(), "null").expect("runs"), "null");
    }
}

/// What `?` makes of an error.
fn class_of<E>(error: E) -> (ErrorClass, String)
where
    StepError: From<E>,
{
    let error = StepError::from(error);
    (error.class, error.code)
}

#[test]
fn the_question_mark_classes_errors() {
    let io = |kind| io::Error::new(kind, "injected");
    let json = |text: &str| serde_json::from_str::<u8>(text).expect_err("no u8");
    for (actual, class, code) in [
        (class_of(io(io::ErrorKind::ConnectionReset)), ErrorClass::Network, "io_connection_reset"),
        (class_of(io(io::ErrorKind::TimedOut)), ErrorClass::Timeout, "io_timed_out"),
        (class_of(io(io::ErrorKind::NotFound)), ErrorClass::Permanent, "io_not_found"),
        (class_of(io(io::ErrorKind::Interrupted)), ErrorClass::Transient, "io_interrupted"),
        (class_of(json("")), ErrorClass::Permanent, "invalid_json"),
        (class_of(json("\"x\"")), ErrorClass::Permanent, "unexpected_json"),
        (class_of("x".parse::<u8>().expect_err("no number")), ErrorClass::Permanent, "parse_int_error"),
    ] {
        assert_eq!(actual, (class, code.to_owned()));
    }
}

#[test]
fn a_cause_tells_the_class_and_its_words() {
    #[derive(Debug)]
    struct Wrapped(io::Error);
    impl std::fmt::Display for Wrapped {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("reading the feed")
        }
    }
    impl std::error::Error for Wrapped {
        fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
            Some(&self.0)
        }
    }
    let error = StepError::from(Wrapped(io::Error::new(io::ErrorKind::ConnectionRefused, "nobody listens")));
    assert_eq!(error.class, ErrorClass::Network);
    assert_eq!(error.message, "reading the feed: nobody listens");
}

#[test]
fn a_step_may_know_better() {
    let error = "x".parse::<u8>().or_permanent("bad_amount").expect_err("no number");
    assert_eq!(error.code, "bad_amount");
    let error = None::<u8>.or_transient("not_ready_yet").expect_err("nothing");
    assert_eq!((error.class, error.message.as_str()), (ErrorClass::Transient, "not ready yet"));
    let error =
        StepError::rate_limited("busy", "later", Duration::from_secs(3)).with_details(json!({"queue": 7}));
    assert_eq!((error.retry_after, error.details), (Some(Duration::from_secs(3)), Some(json!({"queue": 7}))));
}

#[test]
fn requests_are_answered_by_the_test() {
    let served = http::testing::serve(|request| match request.url_str() {
        "http://shop.example/orders?id=7" => Response::new(200).with_json(&json!({"total": 5})),
        _ => Response::new(503).with_header("retry-after", 2).with_body("down"),
    });

    let order: Value = http::get("http://shop.example/orders")
        .query("id", 7)
        .header("accept", "application/json")
        .send()
        .and_then(|response| response.json())
        .expect("an order");
    assert_eq!(order, json!({"total": 5}));

    let response = http::post("http://shop.example/").json(&order).send().expect("an answer");
    let error = response.error_for_status().expect_err("503");
    assert_eq!((error.class, error.code.as_str()), (ErrorClass::Transient, "http_503"));
    assert_eq!(error.retry_after, Some(Duration::from_secs(2)));
    assert_eq!(error.details, Some(json!({"status": 503, "body": "down"})));

    let requests = served.requests();
    assert_eq!((requests[1].method_str(), requests[1].body_bytes()), ("POST", &br#"{"total":5}"#[..]));
    assert_eq!(requests[1].header_str("Content-Type"), Some("application/json"));
}

#[test]
fn requests_that_cannot_be_have_their_class() {
    let failed = |kind| {
        let _served = http::testing::fail(kind);
        StepError::from(http::get("http://shop.example/").send().expect_err("failed")).class
    };
    assert_eq!(failed(ErrorKind::Network), ErrorClass::Network);
    assert_eq!(failed(ErrorKind::Timeout), ErrorClass::Timeout);
    assert_eq!(failed(ErrorKind::Denied), ErrorClass::Permanent);

    let error = http::get("http://shop.example/").send().expect_err("no network");
    assert!(error.to_string().contains("http::testing::serve"), "{error}");
    assert_eq!(http::get("shop.example").send().expect_err("no URL").kind(), ErrorKind::BadRequest);

    let _served = http::testing::serve(|_| Response::new(200).with_body(vec![b'x'; 100]));
    let error = http::get("http://shop.example/").max_body_bytes(99).send().expect_err("too long");
    assert_eq!(error.kind(), ErrorKind::TooLarge);
    let both = http::send_all([http::get("http://shop.example/a"), http::get("nonsense")]);
    assert!(both[0].is_ok() && both[1].is_err());
}
