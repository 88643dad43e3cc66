//! What each kind of alert says: its labels, a sentence, what to do. Pure.

use std::{sync::Arc, time::Duration};

use reipaz_core::{
    failure::ErrorClass,
    ids::RunId,
    time::{Timestamp, format_duration},
};

use super::board::Condition;
use crate::facade::{AlertKind, Severity};

/// One way to fail.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct FailureKey {
    pub(super) class: ErrorClass,
    pub(super) code: Arc<str>,
    /// `http_request@1.0.0`
    pub(super) plugin: String,
    /// `api.example.com:443`, where the failure tells.
    pub(super) authority: Option<String>,
}

/// One way to be late.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct OverdueKey {
    pub(super) workflow: Arc<str>,
    pub(super) late: Late,
}

/// What has not ended in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Late {
    /// The run; the host ended it.
    Run,
    /// A step; the host ended it.
    Step,
    /// The run, and nothing has ended it.
    NotEnded,
}

/// Labels of an alert.
pub(super) type Labels = Vec<(&'static str, String)>;

impl FailureKey {
    pub(super) fn labels(&self) -> Labels {
        let mut labels = vec![
            ("class", self.class.as_str().to_owned()),
            ("code", self.code.to_string()),
            ("plugin", self.plugin.clone()),
        ];
        labels.extend(self.authority.clone().map(|authority| ("authority", authority)));
        labels
    }
}

impl OverdueKey {
    pub(super) fn labels(&self) -> Labels {
        let code = match self.late {
            Late::Run => "run_timeout",
            Late::Step => "step_timeout",
            Late::NotEnded => "not_ended",
        };
        vec![("workflow", self.workflow.to_string()), ("code", code.to_owned())]
    }
}

/// A case of a failure or a late run.
pub(super) struct Case {
    pub(super) run: RunId,
    pub(super) workflow: Arc<str>,
    pub(super) partition: u32,
    pub(super) message: Arc<str>,
}

/// Attempts fail in one way too often.
pub(super) fn failing(
    key: &FailureKey,
    count: u64,
    threshold: u32,
    window: Duration,
    case: &Case,
) -> Condition {
    let FailureKey { class, code, plugin, authority } = key;
    let at = authority.as_ref().map(|authority| format!(" at {authority}")).unwrap_or_default();
    let window = format_duration(window);
    Condition {
        kind: AlertKind::ErrorPattern,
        severity: if *class == ErrorClass::Host { Severity::Critical } else { Severity::Warning },
        labels: key.labels(),
        count,
        summary: format!(
            "Attempts of {plugin} fail with {code} ({}){at}: at least {threshold} within {window}, {count} so far",
            class.as_str()
        ),
        what_to_do: format!("{} `reipaz status {}` shows a run that failed so.", advice(*class), case.run),
        annotations: vec![
            ("workflow", case.workflow.to_string()),
            ("partition", case.partition.to_string()),
            ("message", case.message.to_string()),
        ],
        sample_run: Some(case.run),
    }
}

fn advice(class: ErrorClass) -> &'static str {
    match class {
        ErrorClass::Permanent => {
            "Trying again gives the same: look at what the step sends and what it gets back; `reipaz bulk retry` takes the runs up again once it is mended."
        }
        ErrorClass::Transient => {
            "The other side answers with errors: ask who runs it; attempts are repeated meanwhile."
        }
        ErrorClass::Network => {
            "The other side cannot be reached: look at its name, the network and the firewall between."
        }
        ErrorClass::Timeout => {
            "The other side, or the step, is too slow for the timeout: look at which of both."
        }
        ErrorClass::RateLimited => {
            "The other side asks for fewer requests: submit runs more slowly, or ask for a higher quota."
        }
        ErrorClass::Resource => {
            "The step needs more memory, output or stack than it may have: look at its input, or raise the limit."
        }
        ErrorClass::Trap => "The plugin crashes: its logs say where; the version before may not.",
        ErrorClass::Denied => {
            "The step asks for what it was not granted: compare the grants of plugin and step with what it calls."
        }
        ErrorClass::Cancelled => "Somebody cancels attempts.",
        ErrorClass::Host => {
            "Hosts die under this step: look at the host's log and at the machine's memory, and stop the workflow."
        }
    }
}

/// Runs or steps of a workflow do not end in time.
pub(super) fn overdue(key: &OverdueKey, count: u64, case: &Case) -> Condition {
    let OverdueKey { workflow, late } = key;
    let (severity, summary, what_to_do) = match late {
        Late::Run => (
            Severity::Warning,
            format!("{count} runs of {workflow} have not ended within their timeout and have failed"),
            "Look at what the run waited for; raise the workflow's `timeout` if that is in order.",
        ),
        Late::Step => (
            Severity::Warning,
            format!("Steps of {workflow} have not ended within their total_timeout, {count} times"),
            "Look at the step's attempts; raise its `total_timeout` if they are in order.",
        ),
        Late::NotEnded => (
            Severity::Critical,
            format!("{count} runs of {workflow} are past their deadline and have not been ended"),
            "The host should have ended them: look at its log and its disk, and restart it; nothing is lost by that.",
        ),
    };
    Condition {
        kind: AlertKind::RunOverdue,
        severity,
        labels: key.labels(),
        count,
        summary,
        what_to_do: format!("{what_to_do} `reipaz status {}` shows one of them.", case.run),
        annotations: vec![("partition", case.partition.to_string()), ("message", case.message.to_string())],
        sample_run: Some(case.run),
    }
}

/// Labels of [`silent_owner`].
pub(super) fn silent_owner_labels(partition: u32) -> Labels {
    vec![("partition", partition.to_string()), ("code", "owner_silent".to_owned())]
}

/// An owner does not answer, so nobody ends its runs in time.
pub(super) fn silent_owner(partition: u32, within: Duration) -> Condition {
    Condition {
        kind: AlertKind::RunOverdue,
        severity: Severity::Critical,
        labels: silent_owner_labels(partition),
        count: 1,
        summary: format!(
            "Partition {partition} has not answered within {}: its runs may be past their deadlines",
            format_duration(within)
        ),
        what_to_do: "Look at the host's log and its disk (or Kafka); a restart loses nothing.".to_owned(),
        annotations: Vec::new(),
        sample_run: None,
    }
}

/// Labels of [`breaker`].
pub(super) fn breaker_labels(kind: &str, name: &str) -> Labels {
    vec![("breaker_kind", kind.to_owned()), ("breaker", name.to_owned())]
}

/// A breaker lets nothing through, or one try at a time.
pub(super) fn breaker(kind: &str, name: &str, state: &str, why: &str) -> Condition {
    Condition {
        kind: AlertKind::Breaker,
        severity: Severity::Warning,
        labels: breaker_labels(kind, name),
        count: 1,
        summary: format!("The breaker for the {kind} {name} is {state}: attempts wait until it closes"),
        what_to_do: "See why below; it closes by itself once a try succeeds, unless a hand holds it."
            .to_owned(),
        annotations: vec![("state", state.to_owned()), ("message", why.to_owned())],
        sample_run: None,
    }
}

/// What [`sink_lag`] tells.
pub(super) struct Lagging {
    /// The partition that is behind the most.
    pub(super) partition: u32,
    /// Of all partitions.
    pub(super) records: u64,
    pub(super) since: Duration,
    /// Why ClickHouse cannot be used, if it cannot.
    pub(super) unreachable: Option<(String, Duration)>,
}

/// Rows are missing.
pub(super) fn sink_lag(lagging: &Lagging) -> Condition {
    let Lagging { partition, records, since, unreachable } = lagging;
    let seconds = |duration: &Duration| format_duration(Duration::from_secs(duration.as_secs().max(1)));
    let missing =
        format!("{records} journal records are not in ClickHouse, the oldest for {}", seconds(since));
    let (summary, what_to_do, message) = match unreachable {
        Some((why, for_so_long)) => (
            format!("ClickHouse cannot be reached for {}; {missing}", seconds(for_so_long)),
            "Bring ClickHouse back: runs go on meanwhile, rows follow, and the journal grows until then. `reipaz doctor` looks at it.",
            why.clone(),
        ),
        None => (
            missing,
            "ClickHouse takes rows too slowly, or refuses them: look at the host's log and at ClickHouse's disk and merges.",
            String::new(),
        ),
    };
    Condition {
        kind: AlertKind::SinkLag,
        severity: Severity::Warning,
        labels: Vec::new(),
        count: *records,
        summary,
        what_to_do: what_to_do.to_owned(),
        annotations: vec![("partition", partition.to_string()), ("message", message)],
        sample_run: None,
    }
}

/// Nothing is wrong.
pub(super) fn test(now: Timestamp) -> Condition {
    Condition {
        kind: AlertKind::Test,
        severity: Severity::Info,
        labels: vec![("sent_at", now.to_string())],
        count: 1,
        summary: "Somebody tries whether alerts arrive".to_owned(),
        what_to_do: "Nothing: this is a test.".to_owned(),
        annotations: Vec::new(),
        sample_run: None,
    }
}
