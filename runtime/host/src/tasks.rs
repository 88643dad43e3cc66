//! Tasks: what any program may write to the tasks topic, what becomes of one that is wrong, and what is told of a run that has
//! ended. `docs/task.schema.json` is the format for producers; this is what reads it.
//!
//! A task asks for a run, or for a change of one:
//!
//! ```json
//! {"reipaz": 1, "workflow": "orders", "input": {"n": 1}, "idempotency_key": "order-17"}
//! {"reipaz": 1, "command": "cancel", "run": "0198c5a4-...", "reason": "the customer changed their mind"}
//! ```
//!
//! Everything in one can be wrong. Then it goes to the rejected topic with its original bytes, headers and key, and with three
//! headers more: `reipaz-reason` (stable), `reipaz-message` and `reipaz-source` (topic/partition/offset).

mod forwarded;
mod result;

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use reipaz_core::{
    event::RunError,
    failure::ErrorClass,
    ids::RunId,
    json::{self, Json},
    partition::{Again, Refusal, StartFrom},
    time::Timestamp,
};
use reipaz_journal::{NewTask, Outlet, Published, Source, Task};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

pub(crate) use self::{
    forwarded::{forward, forwarded},
    result::result,
};
use crate::{
    api::limits,
    facade::{Change, FacadeError},
    json_text,
    submission::{self, Submission},
};

/// The version of the format.
const VERSION: u32 = 1;

/// Headers of ours begin so; a producer's own are echoed in the result.
const OWN_HEADERS: &str = "reipaz-";

/// Marks a task that the API wrote for somebody.
const ORIGIN: &str = "reipaz-origin";

/// What a task asks for.
#[derive(Debug)]
pub(crate) enum Asked {
    /// A run.
    Start(Box<Submission>),
    /// A change of one.
    Change(RunId, Change),
}

impl Asked {
    /// The run that it is about: whose partition decides.
    pub(crate) fn run(&self) -> RunId {
        match self {
            Self::Start(submission) => submission.run(),
            Self::Change(run, _) => *run,
        }
    }
}

/// Why a task was not accepted.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Rejection {
    /// Stable, snake_case.
    pub(crate) code: &'static str,
    /// What is wrong, and where.
    pub(crate) message: String,
}

impl Rejection {
    fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    /// The same as the error of a run that was promised.
    pub(crate) fn as_error(&self) -> RunError {
        let (code, message) = (Arc::from(self.code), Arc::from(self.message.as_str()));
        RunError { class: ErrorClass::Permanent, code, message, step: None, attempt: None }
    }
}

#[derive(Deserialize)]
struct Versioned<'a> {
    #[serde(borrow)]
    reipaz: Option<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wire<'a> {
    #[allow(dead_code, reason = "looked at before, in `Versioned`")]
    reipaz: u32,
    workflow: Option<String>,
    version: Option<u32>,
    #[serde(borrow)]
    input: Option<&'a RawValue>,
    idempotency_key: Option<Arc<str>>,
    run: Option<RunId>,
    #[serde(default)]
    metadata: BTreeMap<Arc<str>, Arc<str>>,
    command: Option<CommandName>,
    reason: Option<Arc<str>>,
    step: Option<Arc<str>>,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
enum CommandName {
    Cancel,
    Pause,
    Resume,
    Retry,
}

/// Reads a task. Whether its workflow exists and takes its input is not looked at.
pub(crate) fn read(task: &Task, partitions: u32) -> Result<Asked, Rejection> {
    let body = task.body.as_deref().unwrap_or_default();
    if body.is_empty() {
        return Err(Rejection::new("no_body", "the message has no body; a task is a JSON object"));
    }
    let malformed = |error: serde_json::Error| Rejection::new("malformed", error.to_string());
    let versioned: Versioned<'_> = serde_json::from_slice(body).map_err(malformed)?;
    match versioned.reipaz.map(RawValue::get) {
        Some("1") => {}
        None => {
            return Err(Rejection::new(
                "no_version",
                "`reipaz` is missing: the format's version, which is 1",
            ));
        }
        Some(other) => {
            let shown: String = other.chars().take(40).collect();
            return Err(Rejection::new(
                "unknown_version",
                format!("`reipaz` is {shown}; this host knows version {VERSION}"),
            ));
        }
    }
    let wire: Wire<'_> = serde_json::from_slice(body).map_err(malformed)?;
    match wire.command {
        Some(command) => change(command, wire),
        None => start(wire, task, partitions),
    }
}

fn change(command: CommandName, wire: Wire<'_>) -> Result<Asked, Rejection> {
    let refuse = |message: &str| Err(Rejection::new("malformed", message));
    let Some(run) = wire.run else { return refuse("a command needs `run`, the run that it is about") };
    if wire.workflow.is_some() || wire.input.is_some() || wire.idempotency_key.is_some() {
        return refuse("a command has no `workflow`, `input` or `idempotency_key`");
    }
    if wire.step.is_some() && command != CommandName::Retry {
        return refuse("`step` goes with the command `retry` only");
    }
    if wire.reason.as_ref().is_some_and(|reason| reason.len() > limits::REASON_BYTES) {
        return refuse(&format!("`reason`: at most {} bytes", limits::REASON_BYTES));
    }
    let reason = wire.reason;
    Ok(Asked::Change(
        run,
        match command {
            CommandName::Cancel => Change::Cancel { reason },
            CommandName::Pause => Change::Pause { reason },
            CommandName::Resume => Change::Resume { reason },
            CommandName::Retry => Change::Retry(Again {
                from: wire.step.map_or(StartFrom::Failed, StartFrom::Step),
                input: None,
            }),
        },
    ))
}

fn start(wire: Wire<'_>, task: &Task, partitions: u32) -> Result<Asked, Rejection> {
    let refuse = |message: String| Err(Rejection::new("malformed", message));
    let Some(workflow) = wire.workflow else {
        return refuse("a task names a `workflow`, or a `command`".to_owned());
    };
    if wire.reason.is_some() || wire.step.is_some() {
        return refuse("`reason` and `step` go with a `command` only".to_owned());
    }
    if wire.run.is_some() && wire.idempotency_key.is_some() {
        return refuse("give `run` or `idempotency_key`, not both: a key chooses the run's id".to_owned());
    }
    if let Some(key) = &wire.idempotency_key
        && !(1..=limits::KEY_BYTES).contains(&key.len())
    {
        return refuse(format!("`idempotency_key` has {} bytes; take 1 to {}", key.len(), limits::KEY_BYTES));
    }
    if let Err(why) = submission::check_metadata(&wire.metadata) {
        return refuse(why);
    }
    let input = match wire.input {
        None => json::null(),
        Some(input) => json_text::payload(input.get())
            .map_err(|error| Rejection::new("malformed", format!("`input`: {error}")))?,
    };
    let Source { topic, partition, offset } = &task.source;
    let run = wire.run.unwrap_or_else(|| RunId::from_source(topic, *partition, *offset, partitions));
    Ok(Asked::Start(Box::new(Submission {
        workflow,
        version: wire.version,
        input,
        idempotency_key: wire.idempotency_key,
        run,
        metadata: wire.metadata.into_iter().collect(),
        trigger: trigger(task),
    })))
}

#[derive(Serialize)]
struct Trigger<'a> {
    kafka: Origin<'a>,
}

/// Where a run came from, for `$trigger`.
#[derive(Serialize)]
struct Origin<'a> {
    topic: &'a str,
    partition: u32,
    offset: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<&'a str>,
    headers: BTreeMap<&'a str, &'a str>,
    at: Timestamp,
}

/// Whether the API wrote it, which has told somebody that the run is accepted.
pub(crate) fn is_promised(task: &Task) -> bool {
    task.headers.iter().any(|(name, value)| name == ORIGIN && &value[..] == b"api")
}

fn trigger(task: &Task) -> Option<Json> {
    if is_promised(task) {
        return None;
    }
    let text = |bytes: &'_ Bytes| -> bool { bytes.len() <= limits::METADATA_BYTES };
    let headers = task
        .headers
        .iter()
        .filter(|(name, value)| {
            !name.starts_with(OWN_HEADERS) && name.len() <= limits::METADATA_BYTES && text(value)
        })
        .filter_map(|(name, value)| Some((name.as_str(), std::str::from_utf8(value).ok()?)))
        .take(limits::METADATA_ENTRIES)
        .collect();
    let kafka = Origin {
        topic: &task.source.topic,
        partition: task.source.partition,
        offset: task.source.offset,
        key: task.key.as_ref().filter(|key| text(key)).and_then(|key| std::str::from_utf8(key).ok()),
        headers,
        at: Timestamp(u64::try_from(task.at_ms).unwrap_or(0).saturating_mul(1_000)),
    };
    serde_json::to_string(&Trigger { kafka }).ok().map(Json::from)
}

/// A submission as the API writes it for whoever owns its partition.
pub(crate) fn write(submission: &Submission, version: u32) -> NewTask {
    #[derive(Serialize)]
    struct Written<'a> {
        reipaz: u32,
        workflow: &'a str,
        version: u32,
        #[serde(with = "reipaz_core::json::raw")]
        input: Json,
        #[serde(skip_serializing_if = "Option::is_none")]
        idempotency_key: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        run: Option<RunId>,
        #[serde(skip_serializing_if = "BTreeMap::is_empty")]
        metadata: BTreeMap<&'a str, &'a str>,
    }
    let written = Written {
        reipaz: VERSION,
        workflow: &submission.workflow,
        version,
        input: Arc::clone(&submission.input),
        idempotency_key: submission.idempotency_key.as_deref(),
        run: submission.idempotency_key.is_none().then_some(submission.run),
        metadata: submission.metadata.iter().map(|(name, value)| (&**name, &**value)).collect(),
    };
    NewTask {
        key: Some(Bytes::from(submission.run().to_string())),
        headers: vec![(ORIGIN.to_owned(), Bytes::from_static(b"api"))],
        // Its input was checked to be JSON, and nothing else in it can fail.
        body: Bytes::from(serde_json::to_vec(&written).unwrap_or_default()),
    }
}

/// Why what was asked for was refused, once it was read.
pub(crate) fn rejection_of(error: &FacadeError) -> Rejection {
    let code = match error {
        FacadeError::UnknownWorkflow { .. } => "unknown_workflow",
        FacadeError::UnknownVersion { .. } => "unknown_workflow_version",
        FacadeError::Input(_) => "invalid_input",
        FacadeError::TooLarge { .. } => "too_large",
        _ => "refused",
    };
    let mut message = error.to_string();
    if let FacadeError::Input(mistakes) = error {
        for mistake in mistakes.iter().take(5) {
            message.push_str(&format!("; at {:?}: {}", mistake.pointer, mistake.message));
        }
    }
    Rejection::new(code, message)
}

/// Why the partition refused it.
pub(crate) fn rejection_by(refusal: &Refusal) -> Rejection {
    let code = match refusal {
        Refusal::KeyReused(_) => "key_reused",
        Refusal::RunExists(_) => "run_exists",
        Refusal::UnknownRun(_) => "unknown_run",
        Refusal::WrongStatus(_) => "wrong_status",
        Refusal::NeverStarted(_) => "never_started",
        Refusal::StepRunning(_) => "step_running",
        Refusal::BadInput(_) => "invalid_input",
        Refusal::UnknownStep(_) => "unknown_step",
        Refusal::TooManyRuns { .. } => "too_many_runs",
    };
    Rejection::new(code, refusal.to_string())
}

/// A task for the rejected topic.
pub(crate) fn rejected(task: &Task, rejection: &Rejection) -> Published {
    let Source { topic, partition, offset } = &task.source;
    let mut headers = task.headers.clone();
    let mut add =
        |name: &str, value: String| headers.push((format!("{OWN_HEADERS}{name}"), Bytes::from(value)));
    add("reason", rejection.code.to_owned());
    add("message", rejection.message.clone());
    add("source", format!("{topic}/{partition}/{offset}"));
    Published {
        to: Outlet::Rejected,
        key: task.key.clone().unwrap_or_default(),
        headers,
        body: task.body.clone().unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(body: &str) -> Task {
        Task {
            source: Source { topic: "reipaz.tasks".into(), partition: 2, offset: 41 },
            key: Some(Bytes::from_static(b"k")),
            headers: vec![("trace".to_owned(), Bytes::from_static(b"t-1"))],
            body: Some(Bytes::from(body.to_owned())),
            at_ms: 1_700_000_000_000,
        }
    }

    fn code(body: &str) -> &'static str {
        match read(&task(body), 4) {
            Ok(asked) => panic!("{body} was read as {asked:?}"),
            Err(rejection) => rejection.code,
        }
    }

    #[test]
    fn a_task_asks_for_a_run() {
        let asked = read(&task(r#"{"reipaz": 1, "workflow": "orders", "input": {"n": 1.50}}"#), 4);
        let Ok(Asked::Start(submission)) = asked else { panic!("{asked:?}") };
        assert_eq!(submission.workflow, "orders");
        assert_eq!(&*submission.input, r#"{"n":1.50}"#);
        assert_eq!(submission.run().partition(4), 2, "a task without a key is at home where it stands");
        let trigger = submission.trigger.expect("a trigger");
        assert!(trigger.contains(r#""headers":{"trace":"t-1"}"#), "{trigger}");
        let again = read(&task(r#"{"reipaz": 1, "workflow": "orders"}"#), 4).expect("a task");
        assert_eq!(again.run(), submission.run, "the same place is the same run");
    }

    #[test]
    fn a_key_stands_for_the_run_that_the_api_would_give() {
        let asked = read(&task(r#"{"reipaz":1,"workflow":"orders","idempotency_key":"o-17"}"#), 4);
        assert_eq!(asked.expect("a task").run(), RunId::from_key("", "orders", "o-17"));
    }

    #[test]
    fn a_task_asks_for_a_change() {
        let run = "0198c5a4-0000-7000-8000-000000000001";
        let asked =
            read(&task(&format!(r#"{{"reipaz":1,"command":"cancel","run":"{run}","reason":"no"}}"#)), 4);
        let Ok(Asked::Change(id, Change::Cancel { reason })) = asked else { panic!("{asked:?}") };
        assert_eq!((id.to_string().as_str(), reason.as_deref()), (run, Some("no")));
    }

    #[test]
    fn whatever_is_wrong_has_a_reason() {
        assert_eq!(read(&Task { body: None, ..task("") }, 4).expect_err("no body").code, "no_body");
        for (body, expected) in [
            ("", "no_body"),
            ("{", "malformed"),
            ("[1]", "malformed"),
            ("\u{0}\u{1}", "malformed"),
            (r#"{"workflow":"orders"}"#, "no_version"),
            (r#"{"reipaz":2,"workflow":"orders"}"#, "unknown_version"),
            (r#"{"reipaz":"1","workflow":"orders"}"#, "unknown_version"),
            (r#"{"reipaz":1}"#, "malformed"),
            (r#"{"reipaz":1,"workflow":7}"#, "malformed"),
            (r#"{"reipaz":1,"workflow":"orders","inptu":1}"#, "malformed"),
            (r#"{"reipaz":1,"workflow":"orders","idempotency_key":""}"#, "malformed"),
            (r#"{"reipaz":1,"workflow":"orders","run":"17"}"#, "malformed"),
            (r#"{"reipaz":1,"command":"cancel"}"#, "malformed"),
            (r#"{"reipaz":1,"command":"explode","run":"0198c5a4-0000-7000-8000-000000000001"}"#, "malformed"),
            (r#"{"reipaz":1,"workflow":"orders","input":"\ud800"}"#, "malformed"),
        ] {
            assert_eq!(code(body), expected, "{body}");
        }
    }

    #[test]
    fn the_schema_for_producers_says_the_same() {
        let schema = serde_json::from_str(include_str!("../../../docs/task.schema.json")).expect("JSON");
        let schema = jsonschema::draft202012::new(&schema).expect("a schema");
        let run = "0198c5a4-0000-7000-8000-000000000001";
        for body in [
            r#"{"reipaz":1,"workflow":"orders"}"#.to_owned(),
            r#"{"reipaz":1,"workflow":"orders","version":2,"input":[1],"metadata":{"a":"b"}}"#.to_owned(),
            r#"{"reipaz":1,"workflow":"orders","idempotency_key":"k"}"#.to_owned(),
            format!(r#"{{"reipaz":1,"workflow":"orders","run":"{run}"}}"#),
            format!(r#"{{"reipaz":1,"workflow":"orders","run":"{run}","idempotency_key":"k"}}"#),
            format!(r#"{{"reipaz":1,"command":"retry","run":"{run}","step":"/fetch"}}"#),
            format!(r#"{{"reipaz":1,"command":"stop","run":"{run}"}}"#),
            r#"{"reipaz":1}"#.to_owned(),
            r#"{"reipaz":2,"workflow":"orders"}"#.to_owned(),
            r#"{"reipaz":1,"workflow":"orders","more":1}"#.to_owned(),
            r#"{"reipaz":1,"workflow":"orders","idempotency_key":""}"#.to_owned(),
        ] {
            let value = serde_json::from_str(&body).expect("JSON");
            assert_eq!(schema.is_valid(&value), read(&task(&body), 4).is_ok(), "{body}");
        }
    }

    #[test]
    fn a_rejected_task_keeps_its_bytes_and_says_why() {
        let task = task("not json");
        let rejection = read(&task, 4).expect_err("no JSON");
        let published = rejected(&task, &rejection);
        assert_eq!(published.body, task.body.clone().unwrap_or_default());
        let header =
            |name: &str| published.headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.clone());
        assert_eq!(header("reipaz-reason").as_deref(), Some(&b"malformed"[..]));
        assert_eq!(header("reipaz-source").as_deref(), Some(&b"reipaz.tasks/2/41"[..]));
        assert_eq!(header("trace").as_deref(), Some(&b"t-1"[..]));
    }

    #[test]
    fn what_the_api_writes_is_read_as_it_was_meant() {
        let meant = Submission {
            workflow: "orders".into(),
            version: None,
            input: Json::from(r#"{"n":1}"#),
            idempotency_key: Some("o-17".into()),
            run: RunId(uuid::Uuid::nil()),
            metadata: vec![("a".into(), "b".into())],
            trigger: None,
        };
        let NewTask { key, headers, body } = write(&meant, 3);
        let source = Source { topic: "t".into(), partition: 0, offset: 0 };
        let task = Task { source, key, headers, body: Some(body), at_ms: 0 };
        let Ok(Asked::Start(read)) = read(&task, 4) else { panic!("not read") };
        assert_eq!((read.run(), read.version, &*read.input), (meant.run(), Some(3), r#"{"n":1}"#));
        assert_eq!((read.trigger, read.metadata), (None, meant.metadata));
    }
}
