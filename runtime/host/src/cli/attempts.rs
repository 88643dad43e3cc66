//! `reipaz attempts`: all that is known about a run's attempts, above all about those that failed.

use reipaz_core::{ids::RunId, time::format_duration};
use serde_json::Value;

use super::{
    client::{Connection, escape},
    exit::Done,
    output,
    runs::short_time,
};
use crate::facade::{AttemptStatus, AttemptView, AttemptsPage};

/// Shows every attempt of a run: what was executed, how it ended, why, what it logged last, when the next follows.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
Example:
  reipaz attempts 01932b7e-8f64-7c3e-9d55-0a1b2c3d4e5f
  reipaz attempts 01932b7e-8f64-7c3e-9d55-0a1b2c3d4e5f --failed --step /fetch")]
pub(crate) struct Args {
    /// The run's id
    id: RunId,
    /// Only those that failed
    #[arg(long)]
    failed: bool,
    /// Only of this step
    #[arg(long, value_name = "PATH")]
    step: Option<String>,
    /// JSON lines, even on a terminal
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connection: Connection,
}

/// See [`Args`].
pub(crate) async fn run(args: Args) -> Done {
    let client = args.connection.client()?;
    let json = args.json || !output::is_terminal();
    let mut filter = String::new();
    if args.failed {
        filter.push_str("&status=failed");
    }
    if let Some(step) = &args.step {
        filter.push_str(&format!("&step={}", escape(step)));
    }
    let mut after = 0;
    loop {
        let path = format!("/v1/runs/{}/attempts?limit=1000&after={after}{filter}", args.id);
        let page: AttemptsPage = client.get(&path).await?;
        for attempt in &page.attempts {
            if json { output::json_line(attempt) } else { output::line(&shown(attempt)) }
        }
        match page.next_after {
            Some(next) => after = next,
            None => return Ok(()),
        }
    }
}

/// In a few lines.
fn shown(attempt: &AttemptView) -> String {
    let mut text = format!("{} attempt {}  {}", attempt.step, attempt.attempt, word(attempt.status));
    if let Some(plugin) = &attempt.plugin {
        text.push_str(&format!("  {}@{}", plugin.name, plugin.version));
    }
    text.push_str(&format!("  {}", short_time(attempt.started_at)));
    if let Some(ended) = attempt.ended_at {
        text.push_str(&format!("  took {}", format_duration(ended.since(attempt.started_at))));
    }
    if let Some(error) = &attempt.error {
        text.push_str(&format!("\n    {} ({}): {}", error.code, error.class.as_str(), error.message));
    }
    if let Some(plugin) = attempt.plugin.as_ref().filter(|_| attempt.error.is_some()) {
        text.push_str(&format!("\n    component {}", plugin.digest));
        if let Some(digest) = &attempt.input_digest {
            text.push_str(&format!("\n    input     {digest}"));
        }
    }
    for line in &attempt.last_logs {
        text.push_str(&format!("\n    | {}", line.message));
    }
    if let Some(next) = &attempt.next {
        let delay = format_duration(std::time::Duration::from_millis(next.delay_ms));
        text.push_str(&format!("\n    again after {delay} ({}), {}", next.reason, short_time(next.due)));
    }
    text
}

/// As in JSON.
fn word(status: AttemptStatus) -> String {
    match serde_json::to_value(status) {
        Ok(Value::String(word)) => word,
        _ => String::new(),
    }
}
