//! Requests to the outside, as far as the operator granted them.
//!
//! ```no_run
//! use reipaz_sdk::http;
//! # fn step() -> Result<(), reipaz_sdk::StepError> {
//! let rates: serde_json::Value =
//!     http::get("https://api.example.com/rates").query("base", "EUR").send()?.error_for_status()?.json()?;
//! # Ok(())
//! # }
//! ```
//!
//! Small and blocking: a step is one attempt and has nothing else to do while it waits; [`send_all`] waits for several at once.
//! It follows no redirect (each hop is another host, and grants name hosts) and keeps no state. Which failures are retried
//! is the host's business: errors and statuses only get their class here ([`status`]).
//!
//! It knows nothing of wasi:http beyond the file `wasi.rs`; natively [`testing`] answers instead of a network.

mod error;
mod request;
mod response;
pub mod status;
pub mod testing;
mod url;
#[cfg(target_family = "wasm")]
mod wasi;

pub use error::{Error, ErrorKind};
pub use request::{MAX_BODY_BYTES, Request};
pub use response::{Headers, Response};

/// A GET request to that URL.
pub fn get(url: impl Into<String>) -> Request {
    Request::new("GET", url)
}

/// A HEAD request to that URL.
pub fn head(url: impl Into<String>) -> Request {
    Request::new("HEAD", url)
}

/// A POST request to that URL.
pub fn post(url: impl Into<String>) -> Request {
    Request::new("POST", url)
}

/// A PUT request to that URL.
pub fn put(url: impl Into<String>) -> Request {
    Request::new("PUT", url)
}

/// A PATCH request to that URL.
pub fn patch(url: impl Into<String>) -> Request {
    Request::new("PATCH", url)
}

/// A DELETE request to that URL.
pub fn delete(url: impl Into<String>) -> Request {
    Request::new("DELETE", url)
}

/// Sends all requests at once, waits for all answers, and gives them in the requests' order.
pub fn send_all(requests: impl IntoIterator<Item = Request>) -> Vec<Result<Response, Error>> {
    #[cfg(target_family = "wasm")]
    {
        let pending: Vec<_> = requests.into_iter().map(|request| wasi::start(&request)).collect();
        pending.into_iter().map(|started| started.and_then(wasi::Pending::finish)).collect()
    }
    #[cfg(not(target_family = "wasm"))]
    {
        requests.into_iter().map(Request::send).collect()
    }
}
