//! The retry rule against real servers that fail in every way that it tells apart: what each failure counts as, when it is
//! tried again, and what the server saw of it.

use std::{
    net::SocketAddr,
    time::{Duration, SystemTime},
};

use axum::{
    body::{Body, Bytes},
    http::{StatusCode, header},
    response::IntoResponse,
};
use futures_util::{StreamExt, future, stream};
use reipaz_tests::{
    client::of_type,
    host::{Host, Settings},
    upstream::{Call, Upstream},
};
use serde_json::json;
use tokio::{io::AsyncReadExt, net::TcpListener};

/// Three attempts, 100 ms and 200 ms apart where they back off.
const CALLS: &str = "
reipaz: 1
name: calls
steps:
  call:
    uses: http_request@1
    with: {url: '${ $input.url }'}
    timeout: 400ms
    retry: {attempts: 3, base: 100ms, jitter: none}
";

/// Long enough for a step's timeout to come first.
const TOO_LONG: Duration = Duration::from_secs(20);

/// A failure, and what must follow from it.
struct Case {
    url: String,
    class: &'static str,
    code: String,
    /// Reason of each retry, and its delay in milliseconds, from and to.
    retries: Vec<(&'static str, u64, u64)>,
}

fn case(url: String, class: &'static str, code: &str, retries: &[(&'static str, u64, u64)]) -> Case {
    Case { url, class, code: code.to_owned(), retries: retries.to_vec() }
}

/// Fails as its path says.
async fn server() -> Upstream {
    Upstream::start(|call: Call| async move {
        let status = |code: &str| code.parse().ok().and_then(|code| StatusCode::from_u16(code).ok());
        let parts: Vec<&str> = call.path.split('/').skip(1).collect();
        match parts[..] {
            ["status", code] => status(code).unwrap_or(StatusCode::OK).into_response(),
            ["after", code, "seconds", seconds] => {
                let headers = [(header::RETRY_AFTER, seconds.to_owned())];
                (status(code).unwrap_or(StatusCode::OK), headers).into_response()
            }
            ["after", code, "date"] => {
                let date = httpdate::fmt_http_date(SystemTime::now() + Duration::from_secs(2));
                (status(code).unwrap_or(StatusCode::OK), [(header::RETRY_AFTER, date)]).into_response()
            }
            ["stall"] => {
                tokio::time::sleep(TOO_LONG).await;
                StatusCode::OK.into_response()
            }
            ["trickle"] => {
                let bytes = stream::repeat(()).then(|()| async {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    Ok::<_, std::convert::Infallible>(Bytes::from_static(b" "))
                });
                Body::from_stream(bytes).into_response()
            }
            _ => StatusCode::IM_A_TEAPOT.into_response(),
        }
    })
    .await
}

/// Reads a request and resets the connection.
async fn resetting() -> SocketAddr {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port on loopback");
    let address = listener.local_addr().expect("a bound listener has an address");
    tokio::spawn(async move {
        while let Ok((mut connection, _)) = listener.accept().await {
            let mut request = [0; 16];
            let _ = connection.read(&mut request).await;
            // What is left unread when it is closed makes the kernel send a reset.
            drop(connection);
        }
    });
    address
}

#[tokio::test(flavor = "multi_thread")]
async fn each_failure_is_tried_again_by_the_rule() {
    let upstream = server().await;
    let reset = resetting().await;
    let nobody = reipaz_tests::host::free_address();
    let host = Host::start(Settings::new()).await;
    host.client().must_publish(CALLS).await;

    let backs_off = [("backoff", 100, 100), ("backoff", 200, 200)];
    let at_once = [("immediate", 0, 0), ("immediate", 0, 0)];
    let mut cases = Vec::new();
    for code in [408, 425, 500, 502, 503, 504] {
        let url = upstream.url(&format!("/status/{code}"));
        cases.push(case(url, "transient", &format!("http_{code}"), &backs_off));
    }
    for code in [400, 401, 403, 404, 405, 409, 410, 418, 422, 501, 505, 507] {
        cases.push(case(upstream.url(&format!("/status/{code}")), "permanent", &format!("http_{code}"), &[]));
    }
    cases.push(case(upstream.url("/status/429"), "rate_limited", "http_429", &backs_off));
    let a_second = [("retry_after", 1_000, 1_000); 2];
    cases.push(case(upstream.url("/after/429/seconds/1"), "rate_limited", "http_429", &a_second));
    cases.push(case(upstream.url("/after/503/seconds/1"), "transient", "http_503", &a_second));
    // The date has whole seconds.
    let a_date = [("retry_after", 1, 2_000); 2];
    cases.push(case(upstream.url("/after/503/date"), "transient", "http_503", &a_date));
    // Longer than the step may be tried: it fails at once, and nobody is asked too soon.
    cases.push(case(upstream.url("/after/429/seconds/901"), "rate_limited", "http_429", &[]));
    // It means nothing where the failure is permanent.
    cases.push(case(upstream.url("/after/404/seconds/1"), "permanent", "http_404", &[]));
    cases.push(case(upstream.url("/stall"), "timeout", "attempt_timeout", &at_once));
    cases.push(case(upstream.url("/trickle"), "timeout", "attempt_timeout", &at_once));
    cases.push(case(format!("http://{reset}/"), "network", "", &at_once));
    cases.push(case(format!("http://{nobody}/"), "network", "", &at_once));

    let client = host.client();
    let judged = cases.iter().map(|case| async move {
        let run = client.run("calls", &json!({"url": case.url})).await;
        let id = run["id"].as_str().expect("an id");
        let events = client.events(id).await;
        let told: Vec<(String, String, u64)> = of_type(&events, "retry_scheduled")
            .into_iter()
            .map(|event| {
                let text = |name: &str| event[name].as_str().unwrap_or_default().to_owned();
                (text("class"), text("reason"), event["delay_ms"].as_u64().expect("a delay"))
            })
            .collect();
        let Case { url, class, code, retries } = case;
        assert_eq!(run["error"]["class"], *class, "{url}: {run}");
        assert!(code.is_empty() || run["error"]["code"] == *code, "{url}: {run}");
        assert_eq!(told.len(), retries.len(), "{url}: {told:?}");
        for (told, (reason, least, most)) in told.iter().zip(retries) {
            assert_eq!((&*told.0, &*told.1), (*class, *reason), "{url}");
            assert!((*least..=*most).contains(&told.2), "{url}: {told:?}");
        }
        assert_eq!(run["error"]["attempt"], retries.len() + 1, "{url}: {run}");
    });
    future::join_all(judged).await;

    // No server was asked sooner than it had said.
    for path in ["/after/429/seconds/1", "/after/503/seconds/1"] {
        let calls: Vec<Call> = upstream.calls().into_iter().filter(|call| call.path == path).collect();
        assert_eq!(calls.len(), 3, "{path}");
        for pair in calls.windows(2) {
            assert!(pair[1].at - pair[0].at >= Duration::from_secs(1), "{path}");
        }
    }
}
