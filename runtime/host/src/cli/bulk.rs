//! `reipaz bulk`: one change for many runs, at a rate that the host and what the steps call can bear. The runs are found
//! first, so that one that fails again is not taken twice.

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use http::StatusCode;
use serde_json::json;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use super::{
    client::{Answer, Client, Connection},
    exit::{Code, Done, Failure},
    list::{Filter, find},
    output,
};
use crate::facade::RunSummary;

/// How long a host that is busy, or whose partition is moving, is asked again for one run.
const ASK_FOR: Duration = Duration::from_secs(60);
const ASK_AGAIN_AFTER: Duration = Duration::from_millis(500);

/// Cancels, pauses, resumes or retries all runs that fit, a few a second.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
Example:
  reipaz bulk retry --workflow orders --error http_503 --rate 5
  reipaz bulk cancel --workflow orders --before 2026-01-31T12:00:00Z --dry-run")]
pub(crate) struct Args {
    /// What to do
    change: Change,
    #[command(flatten)]
    filter: Filter,
    /// Only runs that failed with this code
    #[arg(long, value_name = "CODE")]
    error: Option<String>,
    /// How many a second at most
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    rate: u32,
    /// How many in all; the newest
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    limit: u32,
    /// Why, for whoever reads the runs' events (not for `retry`)
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// Only says which runs it would be
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    connection: Connection,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Change {
    Retry,
    Cancel,
    Pause,
    Resume,
}

impl Change {
    fn as_str(self) -> &'static str {
        match self {
            Self::Retry => "retry",
            Self::Cancel => "cancel",
            Self::Pause => "pause",
            Self::Resume => "resume",
        }
    }

    /// The runs that it is for, unless somebody says otherwise.
    fn statuses(self) -> &'static str {
        match self {
            Self::Retry => "failed",
            Self::Cancel => "pending,running,waiting,paused",
            Self::Pause => "pending,running,waiting",
            Self::Resume => "paused",
        }
    }
}

/// See [`Args`].
pub(crate) async fn run(args: Args) -> Done {
    if args.filter.is_empty() && args.error.is_none() {
        return Err(Failure::usage("this would be for every run of every workflow")
            .hint("say which: --workflow, --status, --from, --before or --error"));
    }
    if args.change == Change::Retry && args.reason.is_some() {
        return Err(Failure::usage("a retry takes no --reason"));
    }
    let client = args.connection.client()?;
    let mut filter = args.filter.clone();
    filter.status.get_or_insert_with(|| args.change.statuses().to_owned());
    let wanted = args
        .error
        .as_ref()
        .map(|code| move |run: &RunSummary| run.error.as_ref().is_some_and(|error| &*error.code == code));
    let wanted = wanted.as_ref().map(|wanted| wanted as &dyn Fn(&RunSummary) -> bool);
    let found = find(&client, &filter, usize::try_from(args.limit).unwrap_or(usize::MAX), wanted).await?;
    if found.partial {
        output::note("ended runs may be missing: ClickHouse cannot be asked now");
    }
    if args.dry_run {
        found.runs.iter().for_each(|run| output::line(&run.id.to_string()));
        output::note(&format!("{} runs would be asked to {}", found.runs.len(), args.change.as_str()));
        return Ok(());
    }

    let body = args.reason.as_ref().map_or_else(|| json!({}), |reason| json!({"reason": reason}));
    let mut turns = interval(Duration::from_secs(1) / args.rate);
    turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut done, mut refused) = (0_usize, BTreeMap::<String, usize>::new());
    // The oldest first, as they came.
    for run in found.runs.iter().rev() {
        turns.tick().await;
        let path = format!("/v1/runs/{}/{}", run.id, args.change.as_str());
        let answer = ask(&client, &path, Bytes::from(body.to_string())).await?;
        if answer.status.is_success() {
            done += 1;
            continue;
        }
        let problem = answer.problem();
        let first_of_its_kind = !refused.contains_key(&problem.title);
        *refused.entry(problem.title.clone()).or_default() += 1;
        if first_of_its_kind {
            output::note(&format!("{}: {}", run.id, problem.detail));
        }
    }
    output::line(&format!("{}: {done} of {} runs", args.change.as_str(), found.runs.len()));
    for (title, count) in &refused {
        output::note(&format!("{count} refused: {title}"));
    }
    if refused.is_empty() { Ok(()) } else { Err(Failure::silent(Code::Refused)) }
}

/// Asks until there is an answer about the run itself.
async fn ask(client: &Client, path: &str, body: Bytes) -> Result<Answer, Failure> {
    let deadline = Instant::now() + ASK_FOR;
    loop {
        let asked = client.post_bytes(path, "application/json", body.clone()).await;
        let passing = match &asked {
            Ok(answer) => matches!(
                answer.status,
                StatusCode::TOO_MANY_REQUESTS
                    | StatusCode::SERVICE_UNAVAILABLE
                    | StatusCode::MISDIRECTED_REQUEST
            ),
            Err(failure) => failure.code() == Code::Unreachable,
        };
        if !passing || Instant::now() >= deadline {
            return asked;
        }
        sleep(ASK_AGAIN_AFTER).await;
    }
}
