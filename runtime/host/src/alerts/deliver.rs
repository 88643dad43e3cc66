//! Takes alerts to webhooks. Each webhook has a bounded queue and one request in flight, so alerts come in order, and a
//! webhook that stands still holds up nobody: not another webhook, not whoever found the alert. What its queue does not take
//! is dropped and counted; an alert that goes on is told again anyway.
//!
//! A request that was not taken is sent again, under the same idempotency key, with exponential backoff and full jitter; for
//! as long as the configuration says. What a webhook refuses for good (a 4xx) is not repeated.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use rand::RngExt;
use reqwest::{Client, redirect::Policy};
use tokio::sync::mpsc;
use url::Url;

use super::{
    config::{AlertsConfig, WebhookConfig},
    message::{ALERTS_PER_POST, Post, post},
};
use crate::{
    clock::wall,
    config::ConfigError,
    facade::{AlertView, Severity, WebhookTest},
    secrets::SecretStore,
};

/// Alerts that wait for one webhook.
const QUEUED: usize = 256;

/// The backoff before the second try, on average half of it; it doubles.
const BACKOFF_BASE: Duration = Duration::from_secs(1);

/// The longest backoff.
const BACKOFF_MAX: Duration = Duration::from_secs(60);

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// What became of deliveries.
#[derive(Debug, Default)]
pub(super) struct Outcomes {
    /// Requests that were taken.
    pub(super) delivered: AtomicU64,
    /// Requests that a webhook refused for good.
    pub(super) refused: AtomicU64,
    /// Requests that were not taken in time.
    pub(super) gave_up: AtomicU64,
    /// Tries that failed and were, or will be, repeated.
    pub(super) retried: AtomicU64,
    /// Alerts that a full queue did not take.
    pub(super) dropped: AtomicU64,
}

/// The ways out.
pub(super) struct Outbox {
    webhooks: Vec<Arc<Webhook>>,
    queues: Vec<mpsc::Sender<Arc<AlertView>>>,
    outcomes: Arc<Outcomes>,
}

/// What waits in one queue, and where it goes.
pub(super) struct Lane {
    webhook: Arc<Webhook>,
    queue: mpsc::Receiver<Arc<AlertView>>,
    give_up_after: Duration,
    outcomes: Arc<Outcomes>,
}

struct Webhook {
    /// Counts from 1.
    number: usize,
    url: Url,
    headers: HeaderMap,
    min_severity: Severity,
    client: Client,
}

/// Why a request was not taken.
#[derive(Debug)]
struct NotTaken {
    why: String,
    status: Option<StatusCode>,
    /// Trying again may help.
    again: bool,
    /// What the webhook asked for.
    retry_after: Option<Duration>,
}

impl Outbox {
    /// One way for each webhook; its lane is to be run.
    pub(super) fn new(
        config: &AlertsConfig,
        secrets: &SecretStore,
    ) -> Result<(Self, Vec<Lane>), ConfigError> {
        let outcomes = Arc::<Outcomes>::default();
        let mut outbox = Self { webhooks: Vec::new(), queues: Vec::new(), outcomes };
        let mut lanes = Vec::new();
        for (number, webhook) in (1..).zip(&config.webhooks) {
            let webhook = Webhook::new(number, webhook, secrets).map_err(|why| {
                ConfigError::Invalid(format!("alerts.webhooks, the entry number {number}: {why}"))
            })?;
            let webhook = Arc::new(webhook);
            let (sender, queue) = mpsc::channel(QUEUED);
            let outcomes = Arc::clone(&outbox.outcomes);
            let give_up_after = config.give_up_after;
            lanes.push(Lane { webhook: Arc::clone(&webhook), queue, give_up_after, outcomes });
            outbox.webhooks.push(webhook);
            outbox.queues.push(sender);
        }
        Ok((outbox, lanes))
    }

    /// Puts an alert on its ways, without waiting.
    pub(super) fn offer(&self, alert: &Arc<AlertView>) {
        for (webhook, queue) in self.webhooks.iter().zip(&self.queues) {
            if alert.severity < webhook.min_severity {
                continue;
            }
            if queue.try_send(Arc::clone(alert)).is_err() {
                self.outcomes.dropped.fetch_add(1, Ordering::Relaxed);
                tracing::warn!(
                    webhook = webhook.number,
                    fingerprint = alert.fingerprint,
                    "the webhook's queue is full: an alert is not told"
                );
            }
        }
    }

    pub(super) fn webhooks(&self) -> usize {
        self.webhooks.len()
    }

    pub(super) fn outcomes(&self) -> &Outcomes {
        &self.outcomes
    }

    /// Sends one alert to all webhooks at once, each one time, whatever its severity, past the queues.
    pub(super) async fn test(&self, alert: &Arc<AlertView>, host_url: &str) -> Vec<WebhookTest> {
        let post = post(std::slice::from_ref(alert), host_url, wall());
        let tests = self.webhooks.iter().map(|webhook| async {
            let began = Instant::now();
            let sent = webhook.send(&post).await;
            WebhookTest {
                webhook: webhook.number,
                origin: webhook.url.origin().ascii_serialization(),
                taken: sent.is_ok(),
                status: sent
                    .as_ref()
                    .map_or_else(|not| not.status, |status| Some(*status))
                    .map(|s| s.as_u16()),
                error: sent.err().map(|not| not.why),
                elapsed_ms: began.elapsed().as_millis() as u64,
            }
        });
        futures_util::future::join_all(tests).await
    }
}

impl Lane {
    /// Takes alerts out for ever.
    pub(super) async fn run(mut self, host_url: Arc<str>) {
        while let Some(first) = self.queue.recv().await {
            let mut alerts = vec![first];
            while alerts.len() < ALERTS_PER_POST
                && let Ok(next) = self.queue.try_recv()
            {
                alerts.push(next);
            }
            self.deliver(&post(&alerts, &host_url, wall()), alerts.len()).await;
        }
    }

    async fn deliver(&self, post: &Post, alerts: usize) {
        let (began, webhook) = (Instant::now(), self.webhook.number);
        let count = |outcome: &AtomicU64| outcome.fetch_add(1, Ordering::Relaxed);
        for tries in 1.. {
            let not = match self.webhook.send(post).await {
                Ok(_) => {
                    count(&self.outcomes.delivered);
                    tracing::debug!(webhook, alerts, tries, "alerts are delivered");
                    return;
                }
                Err(not) => not,
            };
            if !not.again {
                count(&self.outcomes.refused);
                tracing::warn!(webhook, alerts, why = not.why, "the webhook refuses alerts for good");
                return;
            }
            let pause = pause(tries, not.retry_after, rand::rng().random());
            if began.elapsed() + pause > self.give_up_after {
                count(&self.outcomes.gave_up);
                tracing::warn!(
                    webhook,
                    alerts,
                    tries,
                    why = not.why,
                    "the webhook has not taken alerts in time"
                );
                return;
            }
            count(&self.outcomes.retried);
            tracing::debug!(webhook, alerts, tries, why = not.why, "the webhook has not taken alerts");
            tokio::time::sleep(pause).await;
        }
    }
}

impl Webhook {
    fn new(number: usize, config: &WebhookConfig, secrets: &SecretStore) -> Result<Self, String> {
        let url = config.target()?;
        let host = url.host_str().unwrap_or_default();
        let mut headers = HeaderMap::new();
        for (name, value) in &config.headers {
            let name = HeaderName::try_from(name).map_err(|_| format!("{name:?} is no name of a header"))?;
            let value = secrets.fill(value, host).map_err(|why| format!("the header {name}: {why}"))?;
            let mut value = HeaderValue::try_from(value)
                .map_err(|_| format!("the header {name} has characters that no header may have"))?;
            value.set_sensitive(true);
            headers.insert(name, value);
        }
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let client = Client::builder()
            .user_agent(concat!("reipaz/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(config.timeout)
            // A redirect would take secrets to where the operator did not send them.
            .redirect(Policy::none())
            .build()
            .map_err(|error| format!("there is no HTTP client: {error}"))?;
        Ok(Self { number, url, headers, min_severity: config.min_severity, client })
    }

    async fn send(&self, post: &Post) -> Result<StatusCode, NotTaken> {
        let request = self
            .client
            .post(self.url.clone())
            .headers(self.headers.clone())
            .header(IDEMPOTENCY_KEY, &post.idempotency_key)
            .body(post.body.clone());
        let response = request.send().await.map_err(unreachable)?;
        let status = response.status();
        if status.is_success() {
            return Ok(status);
        }
        Err(NotTaken {
            why: format!("it answered {status}"),
            status: Some(status),
            again: status.is_server_error() || matches!(status.as_u16(), 408 | 425 | 429),
            retry_after: retry_after(response.headers(), SystemTime::now()),
        })
    }
}

/// The deepest reason, without the URL.
fn unreachable(error: reqwest::Error) -> NotTaken {
    let timed_out = error.is_timeout();
    let error = error.without_url();
    let mut deepest: &dyn std::error::Error = &error;
    while let Some(source) = deepest.source() {
        deepest = source;
    }
    let why = if timed_out { "it does not answer in time".to_owned() } else { deepest.to_string() };
    NotTaken { why, status: None, again: true, retry_after: None }
}

/// The pause after so many tries: what the webhook asked for, else exponential with full jitter (`drawn` from [0, 1)).
fn pause(tries: u32, retry_after: Option<Duration>, drawn: f64) -> Duration {
    let doubled = 2_u32.saturating_pow(tries.saturating_sub(1));
    let backoff = BACKOFF_BASE.saturating_mul(doubled).min(BACKOFF_MAX).mul_f64(drawn);
    retry_after.map_or(backoff, |asked| asked.max(backoff))
}

/// Seconds, or a date (RFC 9110, section 10.2.3).
fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let value = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = value.parse::<u32>() {
        return Some(Duration::from_secs(seconds.into()));
    }
    let until = httpdate::parse_http_date(value).ok()?;
    Some(until.duration_since(now).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_a_minute_with_full_jitter() {
        let longest: Vec<u64> = (1..9).map(|tries| pause(tries, None, 1.0).as_secs()).collect();
        assert_eq!(longest, [1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(pause(5, None, 0.0), Duration::ZERO);
        assert_eq!(pause(u32::MAX, None, 0.5), Duration::from_secs(30));
        let asked = Some(Duration::from_secs(7));
        assert_eq!(pause(1, asked, 1.0), Duration::from_secs(7), "never earlier than asked");
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let read = |text: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static(text));
            retry_after(&headers, SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_770))
        };
        assert_eq!(read("120"), Some(Duration::from_secs(120)));
        assert_eq!(read("Sun, 06 Nov 1994 08:49:37 GMT"), Some(Duration::from_secs(7)));
        assert_eq!(read("Sun, 06 Nov 1983 08:49:37 GMT"), Some(Duration::ZERO));
        assert_eq!(read("soon"), None);
    }
}
