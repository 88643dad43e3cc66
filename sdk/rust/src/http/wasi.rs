//! Requests through wasi:http 0.2: the only file that knows of it, and only components contain it.
//!
//! Starting and finishing are apart, so that several requests can be under way at once. Times are bounded by the request's
//! options, which the host keeps, and never by a clock of the guest's: that clock is virtual.

use wasip2::http::outgoing_handler;
use wasip2::http::types::{
    ErrorCode, Fields, FutureIncomingResponse, IncomingBody, IncomingResponse, Method, OutgoingBody,
    OutgoingRequest, RequestOptions, Scheme,
};
use wasip2::io::streams::{InputStream, StreamError};

use super::request::Request;
use super::{Error, ErrorKind, Headers, Response};

/// The most that wasi:io takes in one blocking write.
const WRITE_BYTES: usize = 4096;
/// How much is asked for in one read.
const READ_BYTES: u64 = 64 << 10;

/// A request that is under way.
pub(super) struct Pending {
    response: FutureIncomingResponse,
    body_limit: usize,
}

/// Sends the request, whole, and does not wait for the answer.
pub(super) fn start(request: &Request) -> Result<Pending, Error> {
    let url = request.check()?;
    let bad = |what: &str| Error::new(ErrorKind::BadRequest, what.to_owned());

    let headers: Vec<_> =
        request.headers().iter().map(|(name, value)| (name.clone(), value.clone().into_bytes())).collect();
    let headers = Fields::from_list(&headers)
        .map_err(|error| bad(&format!("the headers are not acceptable: {error:?}")))?;
    let outgoing = OutgoingRequest::new(headers);
    outgoing.set_method(&method(request.method_str())).map_err(|()| bad("the method is not acceptable"))?;
    let scheme = if url.secure { Scheme::Https } else { Scheme::Http };
    outgoing.set_scheme(Some(&scheme)).map_err(|()| bad("the scheme is not acceptable"))?;
    outgoing.set_authority(Some(url.authority)).map_err(|()| bad("the URL's host is not acceptable"))?;
    outgoing
        .set_path_with_query(Some(&url.path_with_query))
        .map_err(|()| bad("the URL's path is not acceptable"))?;

    let body = outgoing.body().map_err(|()| bad("the request has no place for a body"))?;
    let response = outgoing_handler::handle(outgoing, options(request)).map_err(|code| from_code(&code))?;
    send_body(body, request.body_bytes());
    Ok(Pending { response, body_limit: request.body_limit() })
}

/// Writes the body. A peer that answers before it read everything is in its right, so a failed write is not yet a failure:
/// what came of the request is what its response says.
fn send_body(body: OutgoingBody, bytes: &[u8]) {
    if !bytes.is_empty()
        && let Ok(stream) = body.write()
    {
        for chunk in bytes.chunks(WRITE_BYTES) {
            if stream.blocking_write_and_flush(chunk).is_err() {
                break;
            }
        }
    }
    let _ = OutgoingBody::finish(body, None);
}

impl Pending {
    /// Waits for the whole answer.
    pub(super) fn finish(self) -> Result<Response, Error> {
        self.response.subscribe().block();
        let response = match self.response.get() {
            Some(Ok(result)) => result.map_err(|code| from_code(&code))?,
            _ => return Err(Error::new(ErrorKind::Protocol, "the response was lost")),
        };
        let status = response.status();
        let headers: Headers = response
            .headers()
            .entries()
            .into_iter()
            .map(|(name, value)| (name, String::from_utf8_lossy(&value).into_owned()))
            .collect();
        let body = read_body(&response, self.body_limit)?;
        Ok(Response::from_parts(status, headers, body))
    }
}

fn read_body(response: &IncomingResponse, limit: usize) -> Result<Vec<u8>, Error> {
    let lost = |()| Error::new(ErrorKind::Protocol, "the response's body was lost");
    let body: IncomingBody = response.consume().map_err(lost)?;
    let stream: InputStream = body.stream().map_err(lost)?;
    let mut bytes = Vec::new();
    loop {
        match stream.blocking_read(READ_BYTES) {
            Ok(chunk) => bytes.extend_from_slice(&chunk),
            Err(StreamError::Closed) => return Ok(bytes),
            Err(StreamError::LastOperationFailed(error)) => {
                return Err(match wasip2::http::types::http_error_code(&error) {
                    Some(code) => from_code(&code),
                    None => Error::new(
                        ErrorKind::Network,
                        format!("the body broke off: {}", error.to_debug_string()),
                    ),
                });
            }
        }
        if bytes.len() > limit {
            return Err(Error::new(
                ErrorKind::TooLarge,
                format!("the response's body is longer than {limit} bytes"),
            ));
        }
    }
}

fn method(name: &str) -> Method {
    match name {
        "GET" => Method::Get,
        "HEAD" => Method::Head,
        "POST" => Method::Post,
        "PUT" => Method::Put,
        "DELETE" => Method::Delete,
        "CONNECT" => Method::Connect,
        "OPTIONS" => Method::Options,
        "TRACE" => Method::Trace,
        "PATCH" => Method::Patch,
        other => Method::Other(other.to_owned()),
    }
}

fn options(request: &Request) -> Option<RequestOptions> {
    let timeout = u64::try_from(request.timeout_option()?.as_nanos()).unwrap_or(u64::MAX);
    let options = RequestOptions::new();
    // A host that has no such option says so; the attempt's deadline still holds.
    let _ = options.set_connect_timeout(Some(timeout));
    let _ = options.set_first_byte_timeout(Some(timeout));
    let _ = options.set_between_bytes_timeout(Some(timeout));
    Some(options)
}

fn from_code(code: &ErrorCode) -> Error {
    let kind = match code {
        ErrorCode::DnsTimeout
        | ErrorCode::ConnectionTimeout
        | ErrorCode::ConnectionReadTimeout
        | ErrorCode::ConnectionWriteTimeout
        | ErrorCode::HttpResponseTimeout => ErrorKind::Timeout,
        ErrorCode::DnsError(_)
        | ErrorCode::DestinationNotFound
        | ErrorCode::DestinationUnavailable
        | ErrorCode::DestinationIpUnroutable
        | ErrorCode::ConnectionRefused
        | ErrorCode::ConnectionTerminated
        | ErrorCode::ConnectionLimitReached
        | ErrorCode::TlsProtocolError
        | ErrorCode::TlsAlertReceived(_)
        | ErrorCode::HttpResponseIncomplete => ErrorKind::Network,
        ErrorCode::HttpRequestDenied | ErrorCode::DestinationIpProhibited => ErrorKind::Denied,
        ErrorCode::TlsCertificateError => ErrorKind::Tls,
        ErrorCode::HttpResponseBodySize(_) => ErrorKind::TooLarge,
        ErrorCode::HttpRequestLengthRequired
        | ErrorCode::HttpRequestBodySize(_)
        | ErrorCode::HttpRequestMethodInvalid
        | ErrorCode::HttpRequestUriInvalid
        | ErrorCode::HttpRequestUriTooLong
        | ErrorCode::HttpRequestHeaderSectionSize(_)
        | ErrorCode::HttpRequestHeaderSize(_)
        | ErrorCode::HttpRequestTrailerSectionSize(_)
        | ErrorCode::HttpRequestTrailerSize(_) => ErrorKind::BadRequest,
        _ => ErrorKind::Protocol,
    };
    Error::new(kind, describe(code))
}

fn describe(code: &ErrorCode) -> String {
    match code {
        ErrorCode::HttpRequestDenied => "no grant allows this request".to_owned(),
        ErrorCode::DestinationIpProhibited => "the host's address is not allowed".to_owned(),
        ErrorCode::DestinationNotFound | ErrorCode::DnsError(_) => {
            "the host's name does not resolve".to_owned()
        }
        ErrorCode::DnsTimeout => "resolving the host's name took too long".to_owned(),
        ErrorCode::ConnectionRefused => "the connection was refused".to_owned(),
        ErrorCode::ConnectionTerminated => "the connection was closed by the other side".to_owned(),
        ErrorCode::ConnectionTimeout => "connecting took too long".to_owned(),
        ErrorCode::ConnectionReadTimeout | ErrorCode::HttpResponseTimeout => {
            "the answer took too long".to_owned()
        }
        ErrorCode::InternalError(Some(message)) => message.clone(),
        other => format!("the request failed: {other:?}"),
    }
}
