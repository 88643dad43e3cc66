//! `submit`, `status`, `cancel`, `pause`, `resume`, `retry`: one run at a time.

use std::time::Duration;

use bytes::Bytes;
use reipaz_core::{ids::RunId, time::Timestamp};
use serde::Serialize;
use serde_json::{json, value::RawValue};
use tokio::time::Instant;

use super::{
    client::Connection,
    exit::{Done, Failure},
    follow::{self, Fetched},
    input::InputArgs,
    live::Live,
    run::{Submission, conclude, duration, show, show_still},
};

/// Starts a run of a published workflow.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
Example:
  reipaz submit orders --input '{\"id\": 7}' --key order-7
  reipaz submit orders --input @order.json --wait 10s")]
pub(crate) struct SubmitArgs {
    /// The workflow's name
    workflow: String,
    #[command(flatten)]
    input: InputArgs,
    /// The workflow's version [default: the newest]
    #[arg(long, value_name = "N")]
    workflow_version: Option<u32>,
    /// One run per key and workflow: the same key gives the same run
    #[arg(long, value_name = "KEY")]
    key: Option<String>,
    /// How long to wait for the end; then exits with 1 if the run failed
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    wait: Option<Duration>,
    /// JSON, even on a terminal
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connection: Connection,
}

/// See [`SubmitArgs`].
pub(crate) async fn submit(args: SubmitArgs) -> Done {
    let input = args.input.read()?;
    let client = args.connection.client()?;
    let deadline = args.wait.map(|wait| Instant::now() + wait);
    let submission = Submission {
        version: args.workflow_version,
        input: &input,
        key: args.key.as_deref(),
        wait: args.wait.map(|wait| wait.min(super::client::POLL)),
    };
    let started = submission.send(&client, &args.workflow).await?;
    if deadline.is_none() {
        show_still(&started, args.json);
        return Ok(());
    }
    let ended = follow::until_end(&client, started, deadline, None).await?;
    show_still(&ended, args.json);
    conclude(&ended, args.wait, false)
}

/// Shows a run.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
Example:
  reipaz status 01932b7e-8f64-7c3e-9d55-0a1b2c3d4e5f
  reipaz status 01932b7e-8f64-7c3e-9d55-0a1b2c3d4e5f --watch")]
pub(crate) struct StatusArgs {
    /// The run's id
    id: RunId,
    /// Follow it to its end; then exits with 1 if it failed
    #[arg(long, short)]
    watch: bool,
    /// JSON, even on a terminal
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connection: Connection,
}

/// See [`StatusArgs`].
pub(crate) async fn status(args: StatusArgs) -> Done {
    let client = args.connection.client()?;
    let fetched = Fetched::get(&client, args.id).await?;
    if !args.watch {
        show_still(&fetched, args.json);
        return Ok(());
    }
    let mut live = if args.json { None } else { Live::on_terminal() };
    let ended = follow::until_end(&client, fetched, None, live.as_mut()).await?;
    show(&ended, live.is_some());
    conclude(&ended, None, false)
}

/// What a change needs.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct ChangeArgs {
    /// The run's id
    id: RunId,
    /// Why, for whoever reads the run's events
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// JSON, even on a terminal
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connection: Connection,
}

/// Ends a run; its running attempts are interrupted.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
Example:
  reipaz cancel 01932b7e-8f64-7c3e-9d55-0a1b2c3d4e5f --reason 'wrong customer'")]
pub(crate) struct CancelArgs {
    #[command(flatten)]
    change: ChangeArgs,
}

/// Starts no further attempts of a run until it is resumed.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
Example:
  reipaz pause 01932b7e-8f64-7c3e-9d55-0a1b2c3d4e5f")]
pub(crate) struct PauseArgs {
    #[command(flatten)]
    change: ChangeArgs,
}

/// Lets a paused run go on.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
Example:
  reipaz resume 01932b7e-8f64-7c3e-9d55-0a1b2c3d4e5f")]
pub(crate) struct ResumeArgs {
    #[command(flatten)]
    change: ChangeArgs,
}

/// See [`CancelArgs`].
pub(crate) async fn cancel(args: CancelArgs) -> Done {
    change("cancel", args.change).await
}

/// See [`PauseArgs`].
pub(crate) async fn pause(args: PauseArgs) -> Done {
    change("pause", args.change).await
}

/// See [`ResumeArgs`].
pub(crate) async fn resume(args: ResumeArgs) -> Done {
    change("resume", args.change).await
}

async fn change(what: &str, args: ChangeArgs) -> Done {
    let client = args.connection.client()?;
    let body = args.reason.map_or_else(|| json!({}), |reason| json!({"reason": reason}));
    let changed = Fetched::new(client.post(&format!("/v1/runs/{}/{what}", args.id), &body).await?)?;
    show_still(&changed, args.json);
    Ok(())
}

/// Goes on with a failed or cancelled run, or with one that paused after a failure: from the steps that failed.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
Example:
  reipaz retry 01932b7e-8f64-7c3e-9d55-0a1b2c3d4e5f
  reipaz retry 01932b7e-8f64-7c3e-9d55-0a1b2c3d4e5f --step /fetch
  reipaz retry 01932b7e-8f64-7c3e-9d55-0a1b2c3d4e5f --from-start --input @order.json")]
pub(crate) struct RetryArgs {
    /// The run's id
    id: RunId,
    /// From this step on, though it did not fail
    #[arg(long, value_name = "PATH", conflicts_with = "from_start")]
    step: Option<String>,
    /// All steps again
    #[arg(long)]
    from_start: bool,
    /// Another input from here on: JSON, or @FILE, or - for standard input [default: the one that it has]
    #[arg(long, short, value_name = "JSON|@FILE|-")]
    input: Option<String>,
    /// JSON, even on a terminal
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connection: Connection,
}

/// What the host is asked for. The input is as it was written: numbers keep all their digits.
#[derive(Serialize)]
struct Again {
    #[serde(skip_serializing_if = "Option::is_none")]
    step: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    input: Option<Box<RawValue>>,
}

/// See [`RetryArgs`].
pub(crate) async fn retry(args: RetryArgs) -> Done {
    let client = args.connection.client()?;
    let input = args.input.map(|input| InputArgs { input: Some(input), set: Vec::new() }.read());
    let again =
        Again { step: args.step, from: args.from_start.then_some("start"), input: input.transpose()? };
    let body = serde_json::to_vec(&again).map_err(|error| Failure::usage(error.to_string()))?;
    let path = format!("/v1/runs/{}/retry", args.id);
    let answer = client.post_bytes(&path, "application/json", Bytes::from(body)).await?;
    let retried = Fetched::new(answer.json()?)?;
    show_still(&retried, args.json);
    Ok(())
}

/// A time as tables show it: to the second, UTC.
pub(crate) fn short_time(time: Timestamp) -> String {
    let text = time.to_string();
    let seconds = text.split('.').next().unwrap_or(&text);
    seconds.replace('T', " ")
}
