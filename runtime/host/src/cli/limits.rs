//! `reipaz limits`: how many runs and attempts there may be, how many there are, and how many wait.

use super::{client::Connection, exit::Done, output, runs::short_time};
use crate::facade::{LimitView, LimitsView};

/// Lists the limits that somebody uses: those of workflows (`concurrency` in the document) and of plugins (in the host's
/// configuration).
///
/// Each is counted in one place. Where several hosts share the work, a host lists those that it counts: ask each of them.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
Example:
  reipaz limits")]
pub(crate) struct Args {
    /// JSON, even on a terminal
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connection: Connection,
}

/// See [`Args`].
pub(crate) async fn run(args: Args) -> Done {
    let limits: LimitsView = args.connection.client()?.get("/v1/limits").await?;
    if args.json || !output::is_terminal() {
        output::json(&limits);
        return Ok(());
    }
    if limits.limits.is_empty() {
        output::note("no limits: nothing that has one is going on");
        return Ok(());
    }
    let heading =
        ["KIND", "NAME", "KEY", "GOING ON", "WAITING", "SINCE (UTC)"].map(ToOwned::to_owned).to_vec();
    let rows = limits.limits.iter().map(row);
    output::columns(&std::iter::once(heading).chain(rows).collect::<Vec<_>>());
    if limits.total > limits.limits.len() {
        output::note(&format!("and {} more", limits.total - limits.limits.len()));
    }
    Ok(())
}

fn row(limit: &LimitView) -> Vec<String> {
    let mut going = limit.held.to_string();
    if let Some(most) = limit.limit {
        going.push_str(&format!(" of {most}"));
    }
    if let Some(rate) = limit.rate {
        let per = reipaz_core::time::format_duration(std::time::Duration::from_millis(rate.per_ms));
        going.push_str(&format!(", {} starts in {per}", rate.starts));
    }
    vec![
        limit.kind.as_str().to_owned(),
        limit.name.to_string(),
        limit.key.as_deref().unwrap_or("").to_owned(),
        going,
        limit.queued.to_string(),
        limit.waiting_since.map(short_time).unwrap_or_default(),
    ]
}
