//! One request over bare `wasi:http`.

use serde_json::{Value, json};
use wasip2::http::outgoing_handler::handle;
use wasip2::http::types::{Fields, Method, OutgoingBody, OutgoingRequest, RequestOptions, Scheme};
use wasip2::io::streams::StreamError;

/// Follows one redirect if `follow` says so, as a library in a guest would.
pub fn request(input: &Value) -> Result<Value, String> {
    let answer = one_request(input)?;
    let to = answer["headers"].as_array().into_iter().flatten().find(|header| header[0] == "location");
    let (Some(true), Some(to)) = (input["follow"].as_bool(), to) else { return Ok(answer) };
    let to = to[1].as_str().and_then(|to| to.strip_prefix("http://")).ok_or("where to?")?;
    let (authority, path) = to.split_once('/').unwrap_or((to, ""));
    one_request(&json!({ "authority": authority, "path": format!("/{path}") }))
}

/// `{"method", "scheme", "authority", "path", "headers", "body"}` to `{"status", "headers", "body"}`; `first_byte_ms` and
/// `between_bytes_ms` are asked of the host, and `hold_ms` lies between the response's head and the first look at its body.
fn one_request(input: &Value) -> Result<Value, String> {
    let text = |name: &str, default: &str| input[name].as_str().unwrap_or(default).to_owned();
    let headers = Fields::new();
    for (name, value) in input["headers"].as_object().into_iter().flatten() {
        headers.append(name, value.as_str().unwrap_or("").as_bytes()).map_err(|e| format!("{e:?}"))?;
    }
    let request = OutgoingRequest::new(headers);
    let method = match text("method", "GET").as_str() {
        "GET" => Method::Get,
        "POST" => Method::Post,
        other => Method::Other(other.to_owned()),
    };
    request.set_method(&method).map_err(|()| "method")?;
    let scheme = if text("scheme", "http") == "https" { Scheme::Https } else { Scheme::Http };
    request.set_scheme(Some(&scheme)).map_err(|()| "scheme")?;
    request.set_authority(Some(&text("authority", ""))).map_err(|()| "authority")?;
    request.set_path_with_query(Some(&text("path", "/"))).map_err(|()| "path")?;
    let options = RequestOptions::new();
    if let Some(ms) = input["first_byte_ms"].as_u64() {
        options.set_first_byte_timeout(Some(ms * 1_000_000)).map_err(|()| "timeout")?;
    }
    if let Some(ms) = input["between_bytes_ms"].as_u64() {
        options.set_between_bytes_timeout(Some(ms * 1_000_000)).map_err(|()| "timeout")?;
    }
    let sending = request.body().map_err(|()| "body")?;
    let response = handle(request, Some(options)).map_err(|e| format!("{e:?}"))?;
    write_body(sending, input)?;
    response.subscribe().block();
    let response = response.get().ok_or("not ready")?.map_err(|()| "taken")?.map_err(|e| format!("{e:?}"))?;
    let status = response.status();
    let headers: Vec<(String, String)> = response
        .headers()
        .entries()
        .into_iter()
        .map(|(name, value)| (name, String::from_utf8_lossy(&value).into_owned()))
        .collect();
    let body = response.consume().map_err(|()| "consumed")?;
    let stream = body.stream().map_err(|()| "stream")?;
    if let Some(ms) = input["hold_ms"].as_u64() {
        std::thread::sleep(std::time::Duration::from_millis(ms));
    }
    let mut bytes = Vec::new();
    loop {
        match stream.blocking_read(64 << 10) {
            Ok(chunk) => bytes.extend_from_slice(&chunk),
            Err(StreamError::Closed) => break,
            Err(StreamError::LastOperationFailed(error)) => {
                return Err(wasip2::http::types::http_error_code(&error)
                    .map_or_else(|| error.to_debug_string(), |code| format!("{code:?}")));
            }
        }
    }
    if let Some(true) = input["length_only"].as_bool() {
        return Ok(json!({ "status": status, "bytes": bytes.len() }));
    }
    Ok(json!({ "status": status, "headers": headers, "body": String::from_utf8_lossy(&bytes) }))
}

/// `body`, or `body_bytes` of nothing in particular; `unfinished_ms` lie between that and its end.
fn write_body(body: OutgoingBody, input: &Value) -> Result<(), String> {
    {
        let stream = body.write().map_err(|()| "write")?;
        let text = input["body"].as_str().unwrap_or("");
        for chunk in text.as_bytes().chunks(4_096) {
            stream.blocking_write_and_flush(chunk).map_err(|e| format!("{e:?}"))?;
        }
        for _ in 0..input["body_bytes"].as_u64().unwrap_or(0) / 4_096 {
            stream.blocking_write_and_flush(&[b'x'; 4_096]).map_err(|e| format!("{e:?}"))?;
        }
    }
    if let Some(ms) = input["unfinished_ms"].as_u64() {
        std::thread::sleep(std::time::Duration::from_millis(ms));
    }
    OutgoingBody::finish(body, None).map_err(|e| format!("{e:?}"))
}
