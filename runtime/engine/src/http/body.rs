//! Bodies, counted and timed, and hyper's errors in WASI's words.

use std::convert::Infallible;
use std::error::Error as _;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::sync::oneshot;
use tokio::time::{Instant, Sleep};
use wasmtime_wasi_http::{Error, Result, WasiBody};

use crate::guest::state::Denials;

/// Ends with an error once a body is over its bound.
struct Capped<B> {
    body: B,
    left_bytes: u64,
    over: fn() -> Error,
}

impl<B: Body<Data = Bytes, Error = Error> + Unpin> Body for Capped<B> {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>>>> {
        let Some(frame) = ready!(Pin::new(&mut self.body).poll_frame(cx)) else { return Poll::Ready(None) };
        let frame = frame?;
        let bytes = frame.data_ref().map_or(0, |data| data.len() as u64);
        match self.left_bytes.checked_sub(bytes) {
            Some(left) => {
                self.left_bytes = left;
                Poll::Ready(Some(Ok(frame)))
            }
            None => Poll::Ready(Some(Err((self.over)()))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Ends with an error if the guest was cut: what has an end looks whole to the other side.
struct Whole {
    body: WasiBody,
    denials: Denials,
}

impl Body for Whole {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        if frame.is_none() && self.denials.is_cut() {
            return Poll::Ready(Some(Err(Error::HttpProtocolError)));
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A request's body of at most so many bytes, which has an end only if the guest gave it one.
pub(crate) fn capped_request(body: WasiBody, max_bytes: u64, denials: Denials) -> WasiBody {
    let body = Whole { body, denials };
    Capped { body, left_bytes: max_bytes, over: || Error::HttpRequestBodySize(None) }.boxed_unsync()
}

/// A response's body of at most so many bytes, with at most so much time between two pieces of it.
pub(crate) fn capped_response(
    body: Incoming,
    max_bytes: u64,
    between: Duration,
) -> impl Body<Data = Bytes, Error = Error> + Send + 'static {
    let timed = Timed { body, between, timer: None };
    Capped { body: timed, left_bytes: max_bytes, over: || Error::HttpResponseBodySize(None) }
}

/// Drops `over` as soon as the body is: read to its end, failed or dropped.
pub(crate) struct Watched<B> {
    pub(crate) body: B,
    pub(crate) over: Option<oneshot::Sender<Infallible>>,
}

impl<B: Body<Data = Bytes, Error = Error> + Unpin> Body for Watched<B> {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        if !matches!(frame, Some(Ok(_))) || self.body.is_end_stream() {
            self.over = None;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Ends with an error when the next piece takes too long.
struct Timed {
    body: Incoming,
    between: Duration,
    /// Made at the first wait: most bodies are there at once.
    timer: Option<Pin<Box<Sleep>>>,
}

impl Body for Timed {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) {
            self.timer = None;
            return Poll::Ready(frame.map(|frame| frame.map_err(|error| from_hyper(&error))));
        }
        let Some(deadline) = Instant::now().checked_add(self.between) else { return Poll::Pending };
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        ready!(timer.as_mut().poll(cx));
        Poll::Ready(Some(Err(Error::ConnectionReadTimeout)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Waits for a response's head as long as the guest wants; the attempt's own deadline holds anyway.
pub(crate) async fn first_byte<T>(timeout: Option<Duration>, sending: impl Future<Output = T>) -> Result<T> {
    match timeout {
        Some(timeout) => {
            tokio::time::timeout(timeout, sending).await.map_err(|_| Error::ConnectionReadTimeout)
        }
        None => Ok(sending.await),
    }
}

/// What went wrong on a connection.
pub(crate) fn from_hyper(error: &hyper::Error) -> Error {
    if error.is_parse_too_large() {
        Error::HttpResponseHeaderSectionSize(None)
    } else if error.is_parse() || error.is_parse_status() {
        Error::HttpProtocolError
    } else if error.is_timeout() {
        Error::HttpResponseTimeout
    } else if error.is_incomplete_message() || ends_early(error) {
        Error::HttpResponseIncomplete
    } else if let Some(Error::HttpRequestBodySize(size)) =
        error.source().and_then(|e| e.downcast_ref::<Error>())
    {
        Error::HttpRequestBodySize(*size)
    } else {
        Error::ConnectionTerminated
    }
}

/// Whether a body ended before its length said so.
fn ends_early(error: &hyper::Error) -> bool {
    let io = error.source().and_then(|source| source.downcast_ref::<std::io::Error>());
    io.is_some_and(|io| io.kind() == std::io::ErrorKind::UnexpectedEof)
}
