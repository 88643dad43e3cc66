//! Looks at Kafka as an operator's doctor does: can brokers, topics, the group and transactions be used as hosts use
//! them? Nothing is changed: no topic is made, no group joined, no owner fenced.
//!
//! Each question has its own bound ([`WITHIN`]), and independent ones are asked at once; one that fails hides no other,
//! save that nothing can be asked while no broker answers.

mod rights;
mod topic;

use std::{sync::Arc, time::Duration};

use futures_util::future::join_all;
use rdkafka::{
    admin::{AdminClient, AdminOptions, ResourceSpecifier},
    consumer::{BaseConsumer, Consumer},
    error::{KafkaError, RDKafkaErrorCode},
};
use tokio::net::TcpStream;

use super::{Retired, complaints::Complaints, config::KafkaConfig, failed};
use crate::{error::JournalError, unblock::unblock};

/// How long one question may take.
const WITHIN: Duration = Duration::from_secs(5);
/// How long a connection may take to open.
const CONNECT_WITHIN: Duration = Duration::from_secs(3);
/// Where librdkafka connects when an address names no port.
const PORT: u16 = 9092;

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What.
    pub what: String,
    /// How it is.
    pub grade: Grade,
    /// In a sentence.
    pub detail: String,
    /// What mends it: sentences and commands.
    pub mend: Vec<String>,
}

/// How something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grade {
    /// As it must be.
    Fine,
    /// It works, and should be otherwise.
    Warning,
    /// A host does not work with it, or what was accepted can be lost.
    Failure,
}

impl Finding {
    fn fine(what: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { what: what.into(), grade: Grade::Fine, detail: detail.into(), mend: Vec::new() }
    }

    fn warning(what: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { grade: Grade::Warning, ..Self::fine(what, detail) }
    }

    fn failure(what: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { grade: Grade::Failure, ..Self::fine(what, detail) }
    }

    fn mend(mut self, how: impl Into<String>) -> Self {
        self.mend.push(how.into());
        self
    }
}

/// What every question is asked with.
struct Asker {
    config: KafkaConfig,
    admin: Retired<AdminClient<Complaints>>,
    consumer: Retired<BaseConsumer<Complaints>>,
    complaints: Complaints,
}

/// Which brokers there are.
struct Cluster {
    id: Option<String>,
    brokers: Vec<(i32, String)>,
}

/// See the module.
pub(crate) async fn examine(config: KafkaConfig) -> Vec<Finding> {
    if let Err(error) = config.check() {
        let finding = Finding::failure("Kafka configuration", error.to_string());
        return vec![finding.mend("correct the [kafka] part of the configuration")];
    }
    let (mut findings, reached) = addresses(&config).await;
    if !reached {
        return findings;
    }
    let asker = match Asker::new(config) {
        Ok(asker) => Arc::new(asker),
        Err(error) => {
            let finding = Finding::failure("Kafka client", error.to_string());
            findings
                .push(finding.mend("correct kafka.tls, kafka.sasl or kafka.properties in the configuration"));
            return findings;
        }
    };
    let cluster = match asker.cluster().await {
        Ok(cluster) => cluster,
        Err(error) => {
            tracing::debug!(%error, "no broker answers");
            let silence = format!("no broker answers us within {} s", WITHIN.as_secs());
            let finding = Finding::failure("Kafka cluster", asker.complaints.last().unwrap_or(silence));
            findings.push(finding.mend(
                "the addresses accept connections, but not ours: compare kafka.tls, kafka.sasl and \
                 REIPAZ_KAFKA_PASSWORD with the brokers' listeners",
            ));
            return findings;
        }
    };
    let id = cluster.id.as_deref().unwrap_or("unknown");
    findings
        .push(Finding::fine("Kafka cluster", format!("{id}, {}", counted(cluster.brokers.len(), "broker"))));
    let (brokers, topics, group, transactions) = tokio::join!(
        join_all(cluster.brokers.iter().map(|(id, address)| broker(&asker, *id, address))),
        topic::examine(&asker, cluster.brokers.len()),
        rights::group(&asker),
        rights::transactions(&asker),
    );
    findings.extend(brokers.into_iter().flatten().chain(topics).chain([group, transactions]));
    findings
}

impl Asker {
    fn new(config: KafkaConfig) -> Result<Self, JournalError> {
        let complaints = Complaints::default();
        let admin = config.admin().create_with_context(complaints.clone());
        let consumer = config.examiner().create_with_context(complaints.clone());
        Ok(Self {
            admin: Retired::new(admin.map_err(failed("make a client"))?),
            consumer: Retired::new(consumer.map_err(failed("make a client"))?),
            complaints,
            config,
        })
    }

    /// Asks something that blocks.
    async fn ask<T: Send + 'static>(
        self: &Arc<Self>,
        what: &'static str,
        question: impl FnOnce(&Self) -> Result<T, KafkaError> + Send + 'static,
    ) -> Result<T, JournalError> {
        let asker = self.clone();
        unblock(move || question(&asker).map_err(failed(what))).await
    }

    async fn cluster(self: &Arc<Self>) -> Result<Cluster, JournalError> {
        self.ask("ask the brokers", |asker| {
            // Of one topic: the list of all can be long.
            let journal = asker.config.topics().journal.clone();
            let asked = asker.consumer.fetch_metadata(Some(&journal), WITHIN);
            if asked.is_err() {
                Complaints::hear(&asker.consumer);
            }
            let metadata = asked?;
            let broker = |broker: &rdkafka::metadata::MetadataBroker| {
                (broker.id(), format!("{}:{}", broker.host(), broker.port()))
            };
            Ok(Cluster {
                id: asker.consumer.client().fetch_cluster_id(WITHIN),
                brokers: metadata.brokers().iter().map(broker).collect(),
            })
        })
        .await
    }

    fn options(&self) -> AdminOptions {
        AdminOptions::new().request_timeout(Some(WITHIN)).operation_timeout(Some(WITHIN))
    }
}

/// The addresses that are configured: whether they accept connections. The second value says whether one does.
async fn addresses(config: &KafkaConfig) -> (Vec<Finding>, bool) {
    let addresses: Vec<String> = config.brokers.split(',').map(address).collect();
    let refused: Vec<Option<String>> = join_all(addresses.iter().map(|address| refusal(address))).await;
    let reached = refused.iter().filter(|refused| refused.is_none()).count();
    let mut findings = Vec::new();
    for (address, why) in addresses.iter().zip(refused) {
        let Some(why) = why else { continue };
        let what = format!("Kafka at {address}");
        let finding = if reached > 0 { Finding::warning(what, why) } else { Finding::failure(what, why) };
        findings.push(finding.mend(format!(
            "start the broker at {address}, open the way to it, or correct kafka.brokers (--kafka)"
        )));
    }
    if reached > 0 {
        let all = addresses.len();
        findings.push(Finding::fine("Kafka addresses", format!("{reached} of {all} accept connections")));
    }
    (findings, reached > 0)
}

/// `host:port` of what an operator wrote for librdkafka.
fn address(written: &str) -> String {
    let written = written.trim();
    let bare = written.split_once("://").map_or(written, |(_, bare)| bare);
    let has_port = bare.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    if has_port { bare.to_owned() } else { format!("{bare}:{PORT}") }
}

/// Why an address accepts no connection.
async fn refusal(address: &str) -> Option<String> {
    match tokio::time::timeout(CONNECT_WITHIN, TcpStream::connect(address)).await {
        Ok(Ok(_)) => None,
        Ok(Err(error)) => Some(format!("accepts no connection: {error}")),
        Err(_) => Some(format!("accepts no connection within {} s", CONNECT_WITHIN.as_secs())),
    }
}

/// One broker: it answers itself, and lets hosts have the times that they are configured with.
async fn broker(asker: &Arc<Asker>, id: i32, address: &str) -> Vec<Finding> {
    let what = format!("Kafka broker {id}");
    let resource = [ResourceSpecifier::Broker(id)];
    let options = asker.options();
    let asked = tokio::time::timeout(WITHIN, asker.admin.describe_configs(&resource, &options)).await;
    let answer = asked.map(|answer| answer.map(|mut all| all.pop()));
    let settings = match answer {
        Ok(Ok(Some(Ok(settings)))) => settings,
        Ok(Ok(Some(Err(code)))) if is_denied(code) => {
            let detail = format!(
                "{address} answers; this principal may not read its settings, so they are not checked"
            );
            return vec![Finding::fine(what, detail)];
        }
        other => {
            let why = match other {
                Ok(Ok(Some(Err(code)))) => code.to_string(),
                Ok(Err(error)) => asker.complaints.explain(&error),
                _ => format!("no answer within {} s", WITHIN.as_secs()),
            };
            let mend = format!(
                "start it, or correct its advertised.listeners: hosts reach it under {address}, which is what it tells \
                 them"
            );
            return vec![Finding::failure(what, format!("{address} does not answer: {why}")).mend(mend)];
        }
    };
    let number = |name| settings.get(name)?.value.as_deref()?.parse::<u128>().ok();
    let config = &asker.config;
    let (session, transaction) = (config.session_timeout.as_millis(), config.transaction_timeout.as_millis());
    let mut findings = Vec::new();
    let low = number("group.min.session.timeout.ms").filter(|low| session < *low);
    let high = number("group.max.session.timeout.ms").filter(|high| session > *high);
    if let Some(bound) = low.or(high) {
        let detail = format!("it refuses kafka.session_timeout = {session} ms: its bound is {bound} ms");
        let mend = format!("set kafka.session_timeout = \"{bound}ms\" in the configuration of all hosts");
        findings.push(Finding::failure(what.clone(), detail).mend(mend));
    }
    if let Some(bound) = number("transaction.max.timeout.ms").filter(|bound| transaction > *bound) {
        let detail = format!("it refuses transactions of {transaction} ms: its bound is {bound} ms");
        let mend = format!("set transaction.max.timeout.ms to {transaction} or more on all brokers");
        findings.push(Finding::failure(what.clone(), detail).mend(mend));
    }
    if findings.is_empty() {
        findings.push(Finding::fine(what, format!("{address} answers")));
    }
    findings
}

/// Whether the brokers know who we are and do not let us.
fn is_denied(code: RDKafkaErrorCode) -> bool {
    matches!(
        code,
        RDKafkaErrorCode::TopicAuthorizationFailed
            | RDKafkaErrorCode::GroupAuthorizationFailed
            | RDKafkaErrorCode::ClusterAuthorizationFailed
            | RDKafkaErrorCode::TransactionalIdAuthorizationFailed
    )
}

/// `1 broker`, `3 brokers`.
fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_read_as_librdkafka_reads_it() {
        assert_eq!(address(" 10.0.0.1:9093"), "10.0.0.1:9093");
        assert_eq!(address("SASL_SSL://kafka.example:9094"), "kafka.example:9094");
        assert_eq!(address("kafka.example"), "kafka.example:9092");
        assert_eq!(address("[::1]:9092"), "[::1]:9092");
    }
}
