//! Outgoing HTTP: what a guest's `wasi:http` request goes through before it reaches a network, and what comes back.
//!
//! In order: the grant (method, host, port), the name's addresses, the filter over each address ([`address`]), a connection
//! to a checked address under the original name ([`connect`]), kept and reused with its address ([`pool`]), secrets put
//! into header values, bodies counted and timed ([`body`]). Nothing follows a redirect: the guest sees it, and a request to
//! the new place starts here again.
//!
//! A denial is told to the guest as an HTTP error and remembered by the host, so that whatever the guest makes of it, the
//! attempt's failure has the class `denied`.

mod address;
mod body;
mod connect;
mod pool;
mod resolve;
mod tls;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use http::uri::Scheme;
use http::{HeaderValue, Method, Request, Response, Uri, header};
use http_body::Body as _;
use http_body_util::BodyExt;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use wasmtime_wasi_http::{Error, RequestOptions, Result, WasiBody, WasiHttpHooks};

use crate::attempt::Secrets;
use crate::breaker::{BreakerId, BreakerKind, Breakers, STALLED_AFTER, Told};
use crate::config::{EngineConfig, HttpLimits};
use crate::grants::{Grants, Host};
use crate::guest::state::Denials;
use crate::http::address::Gate;
use crate::http::pool::{Key, Pool};
pub use crate::http::resolve::{Resolver, SystemResolver};

/// What all attempts share: idle connections, names, certificates, limits.
pub(crate) struct Client {
    pool: Pool,
    resolver: Arc<dyn Resolver>,
    tls: tls::Tls,
    limits: HttpLimits,
    pub(crate) breakers: Breakers,
}

impl Client {
    pub(crate) fn new(config: &EngineConfig) -> Arc<Self> {
        Arc::new(Self {
            pool: Pool::default(),
            resolver: config.resolver.clone(),
            tls: tls::Tls::default(),
            limits: config.http,
            breakers: Breakers::new(config.breakers),
        })
    }
}

/// The way out for one attempt.
pub(crate) struct Outbound {
    client: Arc<Client>,
    grants: Arc<Grants>,
    secrets: Arc<dyn Secrets>,
    denials: Denials,
    /// The attempt's.
    cancel: CancellationToken,
}

impl Outbound {
    pub(crate) fn new(
        client: Arc<Client>,
        grants: Arc<Grants>,
        secrets: Arc<dyn Secrets>,
        denials: Denials,
        cancel: CancellationToken,
    ) -> Self {
        Self { client, grants, secrets, denials, cancel }
    }

    /// Where a request wants to go, if it may.
    fn check(&self, request: &Request<WasiBody>) -> Result<(Key, Gate)> {
        let uri = request.uri();
        let https = uri.scheme() == Some(&Scheme::HTTPS);
        let default_port = if https { 443 } else { 80 };
        let authority = uri.authority().ok_or(Error::HttpRequestUriInvalid)?;
        if authority.as_str().contains('@') || authority.host().is_empty() {
            return Err(Error::HttpRequestUriInvalid);
        }
        let host = Host::parse(authority.host());
        let port = authority.port_u16().unwrap_or(default_port);
        let method = request.method().as_str();
        let matching: Vec<_> = self.grants.matching(method, &host, port, default_port).cloned().collect();
        if matching.is_empty() || method == "CONNECT" {
            let port = if port == default_port { String::new() } else { format!(":{port}") };
            self.denials.add(
                "http_denied",
                format!("No grant allows {method} {host}{port}. The plugin's grants and the step's must both list it."),
            );
            return Err(Error::HttpRequestDenied);
        }
        let gate = Gate { granted: matching, networks: self.grants.private_networks.clone() };
        Ok((Key { https, host, port }, gate))
    }

    /// Puts secrets where their placeholders stand.
    fn substitute(&self, request: &mut Request<WasiBody>, host: &str) -> Result<()> {
        for (name, value) in request.headers_mut() {
            let Ok(text) = value.to_str() else { continue };
            if let Some(secret) = self.secrets.substitute(text, host) {
                let mut with_secret = HeaderValue::from_str(&secret).map_err(|_| {
                    Error::InternalError(Some(format!(
                        "the secret for the header {name} has characters that no header may have"
                    )))
                })?;
                with_secret.set_sensitive(true);
                *value = with_secret;
            }
        }
        Ok(())
    }

    /// Checks and prepares the request; the rest needs no attempt.
    fn prepare(&self, request: &mut Request<WasiBody>) -> Result<(Key, Gate)> {
        let (key, gate) = self.check(request)?;
        self.substitute(request, &key.host.to_string())?;
        let path = request.uri().path_and_query().map_or("/", |p| p.as_str());
        // An origin server wants the path alone; the name is in the Host header.
        *request.uri_mut() =
            Uri::builder().path_and_query(path).build().map_err(|_| Error::HttpRequestUriInvalid)?;
        if !request.headers().contains_key(header::USER_AGENT) {
            request.headers_mut().insert(header::USER_AGENT, HeaderValue::from_static("reipaz"));
        }
        Ok((key, gate))
    }
}

/// Ends when the request's transport does; ours is kept by the pool.
type Transport = Box<dyn Future<Output = Result<()>> + Send>;

impl WasiHttpHooks for Outbound {
    fn send_request(
        &mut self,
        mut request: Request<WasiBody>,
        options: Option<RequestOptions>,
        _processed: Box<dyn Future<Output = Result<()>> + Send>,
    ) -> Box<dyn Future<Output = Result<(Response<WasiBody>, Transport)>> + Send> {
        let prepared = self.prepare(&mut request);
        let client = self.client.clone();
        let (denials, cancel) = (self.denials.clone(), self.cancel.clone());
        Box::new(async move {
            let (key, gate) = prepared?;
            let breaker = BreakerId { kind: BreakerKind::Authority, name: key.to_string().into() };
            let ticket = client.breakers.ask(breaker).map_err(|parked| {
                let message = format!("the circuit breaker of {} is open", parked.breaker.name);
                denials.park(parked);
                Error::InternalError(Some(message))
            })?;
            denials.call();
            let ticket = ticket.unless_cancelled(cancel);
            let response = client.send(key, &gate, request, options.unwrap_or_default(), &denials).await;
            let told = verdict(&response, ticket.elapsed(), &denials);
            ticket.tell(told);
            Ok((response?, Box::new(async { Ok(()) }) as Transport))
        })
    }
}

/// What an answer says about the other side. A denial and a mistake of the guest say nothing.
fn verdict(response: &Result<Response<WasiBody>>, after: Duration, denials: &Denials) -> Told {
    match response {
        Ok(response) => match response.status().as_u16() {
            500 | 502 | 503 | 504 => Told::Failed,
            _ => Told::Passed,
        },
        Err(_) if denials.failure().is_some() => Told::Nothing,
        Err(
            Error::HttpRequestDenied
            | Error::HttpRequestBodySize(_)
            | Error::HttpRequestUriInvalid
            | Error::HttpRequestMethodInvalid
            | Error::HttpResponseBodySize(_),
        ) => Told::Nothing,
        // The guest says how long it waits; less than a moment says nothing.
        Err(Error::ConnectionTimeout | Error::ConnectionReadTimeout | Error::HttpResponseTimeout)
            if after < STALLED_AFTER =>
        {
            Told::Nothing
        }
        Err(_) => Told::Failed,
    }
}

/// The head of a request that may be sent again when a connection that lay idle ends under it: the server may have
/// closed it before it saw the request, or after, and a GET or HEAD may reach it twice (RFC 9110, section 9.2.2).
fn repeatable(request: &Request<WasiBody>) -> Option<Request<()>> {
    let has_body = request.headers().get(header::CONTENT_LENGTH).is_some_and(|length| length != "0");
    if has_body || !(request.method() == Method::GET || request.method() == Method::HEAD) {
        return None;
    }
    let mut head = Request::new(());
    head.method_mut().clone_from(request.method());
    head.uri_mut().clone_from(request.uri());
    head.headers_mut().clone_from(request.headers());
    Some(head)
}

fn empty() -> WasiBody {
    http_body_util::Empty::new().map_err(|never| match never {}).boxed_unsync()
}

impl Client {
    async fn send(
        &self,
        key: Key,
        gate: &Gate,
        request: Request<WasiBody>,
        options: RequestOptions,
        denials: &Denials,
    ) -> Result<Response<WasiBody>> {
        let again = repeatable(&request);
        let capped = |request: Request<WasiBody>| {
            request.map(|body| body::capped_request(body, self.limits.request_bytes, denials.clone()))
        };
        let mut request = capped(request);
        while let Some(mut idle) = self.pool.take(&key, gate) {
            match body::first_byte(options.first_byte_timeout, idle.sender.try_send_request(request)).await? {
                Ok(response) => return Ok(self.finish(response, key, idle, options)),
                // The server closed it while it lay idle and nothing was sent: the next one, or a new one.
                Err(mut refused) => match (refused.take_message(), &again) {
                    (Some(unsent), _) => request = unsent,
                    (None, Some(head)) if refused.error().is_incomplete_message() => {
                        request = capped(head.clone().map(|()| empty()));
                    }
                    (None, _) => return Err(body::from_hyper(&refused.into_error())),
                },
            }
        }
        let wait = options.connect_timeout.unwrap_or(self.limits.connect_timeout);
        let connecting = connect::connect(&key, gate, &*self.resolver, &self.tls, denials);
        let mut fresh =
            tokio::time::timeout(wait, connecting).await.map_err(|_| Error::ConnectionTimeout)??;
        let sent = body::first_byte(options.first_byte_timeout, fresh.sender.send_request(request)).await?;
        let response = sent.map_err(|error| body::from_hyper(&error))?;
        Ok(self.finish(response, key, fresh, options))
    }

    fn finish(
        &self,
        response: Response<hyper::body::Incoming>,
        key: Key,
        connection: pool::Connection,
        options: RequestOptions,
    ) -> Response<WasiBody> {
        let (over, told) = oneshot::channel();
        self.pool.give_back(key, connection, told);
        let between = options.between_bytes_timeout.unwrap_or(Duration::MAX);
        response.map(|incoming| {
            let over = (!incoming.is_end_stream()).then_some(over);
            let body = body::capped_response(incoming, self.limits.response_bytes, between);
            body::Watched { body, over }.boxed_unsync()
        })
    }
}
