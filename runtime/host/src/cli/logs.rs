//! `reipaz logs` and `reipaz events`: what a run's steps said, and what happened to it.

use std::time::Duration;

use reipaz_core::{ids::RunId, partition::RunStatus};
use serde::Deserialize;
use serde_json::{Value, value::RawValue};
use tokio::time::{Instant, sleep};

use super::{
    client::{Client, Connection, POLL, escape},
    exit::{Code, Done, Failure},
    output,
};
use crate::facade::LogView;

/// Shows what a run's steps logged.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
Example:
  reipaz logs 01932b7e-8f64-7c3e-9d55-0a1b2c3d4e5f --follow
  reipaz logs 01932b7e-8f64-7c3e-9d55-0a1b2c3d4e5f --step /fetch --level warn")]
pub(crate) struct LogsArgs {
    /// The run's id
    id: RunId,
    /// Go on until the run ends
    #[arg(long, short)]
    follow: bool,
    /// Only of this step
    #[arg(long, value_name = "PATH")]
    step: Option<String>,
    /// Only lines this grave or graver: trace, debug, info, warn, error
    #[arg(long, value_name = "LEVEL")]
    level: Option<String>,
    /// JSON lines, even on a terminal
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connection: Connection,
}

#[derive(Deserialize)]
struct LogPage {
    logs: Vec<LogView>,
    next_after: Option<String>,
    status: RunStatus,
}

/// See [`LogsArgs`].
pub(crate) async fn logs(args: LogsArgs) -> Done {
    let client = args.connection.client()?;
    let json = args.json || !output::is_terminal();
    let mut filter = String::new();
    for (name, value) in [("step", &args.step), ("level", &args.level)] {
        if let Some(value) = value {
            filter.push_str(&format!("&{name}={}", escape(value)));
        }
    }
    let mut after: Option<String> = None;
    let mut patience = Patience::new();
    loop {
        let from = after.as_ref().map(|after| format!("&after={after}")).unwrap_or_default();
        let path = format!("/v1/runs/{}/logs?limit=1000{from}{filter}", args.id);
        let Some(page) = patience.ask::<LogPage>(&client, &path, args.follow).await? else { continue };
        for log in &page.logs {
            if json { output::json_line(log) } else { output::line(&shown(log)) }
        }
        after = page.next_after;
        let over = !args.follow || page.status.is_terminal();
        if page.logs.is_empty() && over {
            return Ok(());
        }
    }
}

fn shown(log: &LogView) -> String {
    let time = log.at.to_string();
    let level = serde_json::to_value(log.level).ok().and_then(|level| level.as_str().map(str::to_uppercase));
    let fields: String = log.fields.iter().map(|(name, value)| format!("  {name}={value}")).collect();
    let step = if log.attempt > 1 { format!("{}#{}", log.step, log.attempt) } else { log.step.to_string() };
    format!("{time} {:<5} {step}  {}{fields}", level.unwrap_or_default(), log.message)
}

/// Shows what happened to a run, one event a line.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
Example:
  reipaz events 01932b7e-8f64-7c3e-9d55-0a1b2c3d4e5f
  reipaz events 01932b7e-8f64-7c3e-9d55-0a1b2c3d4e5f --follow | jq .type")]
pub(crate) struct EventsArgs {
    /// The run's id
    id: RunId,
    /// Go on until the run ends
    #[arg(long, short)]
    follow: bool,
    /// Only events after this one
    #[arg(long, value_name = "SEQ", default_value_t = 0)]
    after: u32,
    /// JSON lines, even on a terminal
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connection: Connection,
}

#[derive(Deserialize)]
struct EventPage {
    events: Vec<Box<RawValue>>,
    next_after: u32,
    seq: u32,
    status: RunStatus,
}

/// See [`EventsArgs`].
pub(crate) async fn events(args: EventsArgs) -> Done {
    let client = args.connection.client()?;
    let json = args.json || !output::is_terminal();
    let mut after = args.after;
    let mut patience = Patience::new();
    loop {
        let path = format!("/v1/runs/{}/events?after={after}", args.id);
        let Some(page) = patience.ask::<EventPage>(&client, &path, args.follow).await? else { continue };
        for event in &page.events {
            output::line(&if json { event.get().to_owned() } else { event_line(event) });
        }
        after = page.next_after;
        let over = !args.follow || page.status.is_terminal();
        if over && page.seq <= after {
            return Ok(());
        }
    }
}

/// `  3  2026-01-01T...  attempt_started   step=/fetch attempt=1`.
fn event_line(event: &RawValue) -> String {
    let Ok(Value::Object(mut members)) = serde_json::from_str(event.get()) else {
        return event.get().to_owned();
    };
    let mut take = |name: &str| match members.remove(name) {
        Some(Value::String(text)) => text,
        Some(value) => value.to_string(),
        None => String::new(),
    };
    let (seq, at, kind) = (take("seq"), take("at"), take("type"));
    take("run");
    let rest: Vec<String> = members.iter().map(|(name, value)| member(name, value)).collect();
    format!("{seq:>4}  {at}  {kind:<19}  {}", rest.join(" ")).trim_end().to_owned()
}

fn member(name: &str, value: &Value) -> String {
    const SHOWN_CHARS: usize = 80;
    let text = match value {
        Value::String(text) => text.clone(),
        value => value.to_string(),
    };
    let cut: String = text.chars().take(SHOWN_CHARS).collect();
    let dots = if cut.len() < text.len() { "..." } else { "" };
    format!("{name}={cut}{dots}")
}

/// Outlasts a restart of the host while following.
struct Patience {
    answered: Instant,
}

impl Patience {
    const AWAY: Duration = Duration::from_secs(60);
    const PAUSE: Duration = Duration::from_millis(500);

    fn new() -> Self {
        Self { answered: Instant::now() }
    }

    /// Asks, with a long poll if `follow`; `None`: ask again.
    async fn ask<T: serde::de::DeserializeOwned>(
        &mut self,
        client: &Client,
        path: &str,
        follow: bool,
    ) -> Result<Option<T>, Failure> {
        if !follow {
            return client.get(path).await.map(Some);
        }
        match client.poll(path, POLL).await {
            Ok(page) => {
                self.answered = Instant::now();
                Ok(Some(page))
            }
            Err(failure) if failure.code() == Code::Unreachable && self.answered.elapsed() < Self::AWAY => {
                sleep(Self::PAUSE).await;
                Ok(None)
            }
            Err(failure) => Err(failure),
        }
    }
}
