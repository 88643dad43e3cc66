//! Answers for steps that do requests, in native tests: outside of a host there is no network.
//!
//! ```
//! use reipaz_sdk::http::{self, Response};
//!
//! let served = http::testing::serve(|request| match request.url_str() {
//!     "http://shop.example/orders/7" => Response::new(200).with_body("seven"),
//!     _ => Response::new(404),
//! });
//! assert_eq!(http::get("http://shop.example/orders/7").send()?.text(), "seven");
//! assert_eq!(served.requests().len(), 1);
//! # Ok::<(), http::Error>(())
//! ```

use std::cell::RefCell;
use std::rc::Rc;

use super::{Error, ErrorKind, Request, Response};

type Answer = Rc<dyn Fn(&Request) -> Result<Response, Error>>;
type Seen = Rc<RefCell<Vec<Request>>>;

thread_local! {
    static SERVER: RefCell<Option<(Answer, Seen)>> = const { RefCell::new(None) };
}

/// While it lives, requests of this thread are answered by the function that was given.
#[must_use = "it answers only while it lives"]
pub struct Served {
    requests: Seen,
}

impl Served {
    /// What was asked so far.
    pub fn requests(&self) -> Vec<Request> {
        self.requests.borrow().clone()
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        SERVER.with_borrow_mut(|server| *server = None);
    }
}

/// Answers each request of this thread by a function.
pub fn serve(answer: impl Fn(&Request) -> Response + 'static) -> Served {
    serve_results(move |request| Ok(answer(request)))
}

/// Lets each request of this thread fail in that way.
pub fn fail(kind: ErrorKind) -> Served {
    serve_results(move |_| Err(Error::new(kind, "failed by the test")))
}

fn serve_results(answer: impl Fn(&Request) -> Result<Response, Error> + 'static) -> Served {
    let requests = Rc::new(RefCell::new(Vec::new()));
    SERVER.with_borrow_mut(|server| *server = Some((Rc::new(answer), requests.clone())));
    Served { requests }
}

#[cfg(not(target_family = "wasm"))]
pub(super) fn answer(request: &Request) -> Result<Response, Error> {
    let Some((answer, requests)) = SERVER.with_borrow(Clone::clone) else {
        return Err(Error::new(
            ErrorKind::Network,
            "there is no network outside of a Reipaz host; in a test, answer with http::testing::serve",
        ));
    };
    requests.borrow_mut().push(request.clone());
    let response = answer(request)?;
    if response.bytes().len() > request.body_limit() {
        return Err(too_large(request.body_limit()));
    }
    Ok(response)
}

#[cfg(not(target_family = "wasm"))]
fn too_large(limit: usize) -> Error {
    Error::new(ErrorKind::TooLarge, format!("the response's body is longer than {limit} bytes"))
}
