//! `reipaz list`: runs, newest first.

use serde::{Deserialize, Serialize};

use super::{
    client::{Connection, escape},
    exit::Done,
    output,
    runs::short_time,
};
use crate::facade::RunSummary;

/// The most that one page gives.
const PAGE: usize = 1_000;

/// Lists runs, newest first.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
Example:
  reipaz list --workflow orders --status failed,cancelled
  reipaz list --limit 500 --json | jq '.runs[].id'")]
pub(crate) struct Args {
    /// Only runs of this workflow
    #[arg(long, value_name = "NAME")]
    workflow: Option<String>,
    /// Only runs with one of these (comma-separated): pending, running, waiting, paused, completed, failed, cancelled
    #[arg(long, value_name = "STATUS")]
    status: Option<String>,
    /// Only runs created at or after this time (RFC 3339)
    #[arg(long, value_name = "TIME")]
    from: Option<String>,
    /// Only runs created before this time (RFC 3339)
    #[arg(long, value_name = "TIME")]
    before: Option<String>,
    /// How many
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    limit: u32,
    /// JSON, even on a terminal
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connection: Connection,
}

#[derive(Serialize, Deserialize)]
struct Page {
    runs: Vec<RunSummary>,
    next: Option<String>,
    partial: bool,
}

/// See [`Args`].
pub(crate) async fn run(args: Args) -> Done {
    let client = args.connection.client()?;
    let limit = usize::try_from(args.limit).unwrap_or(PAGE);
    let mut filter = String::new();
    for (name, value) in [
        ("workflow", &args.workflow),
        ("status", &args.status),
        ("created_from", &args.from),
        ("created_before", &args.before),
    ] {
        if let Some(value) = value {
            filter.push_str(&format!("&{name}={}", escape(value)));
        }
    }
    let mut all = Page { runs: Vec::new(), next: None, partial: false };
    loop {
        let cursor = all.next.take().map(|next| format!("&cursor={next}")).unwrap_or_default();
        let ask = (limit - all.runs.len()).min(PAGE);
        let page: Page = client.get(&format!("/v1/runs?limit={ask}{filter}{cursor}")).await?;
        all.runs.extend(page.runs);
        all.partial |= page.partial;
        all.next = page.next;
        if all.next.is_none() || all.runs.len() >= limit {
            break;
        }
    }
    if args.json || !output::is_terminal() {
        output::json(&all);
    } else {
        table(&all);
    }
    if all.partial {
        output::note("ended runs may be missing: ClickHouse cannot be asked now");
    }
    Ok(())
}

fn table(page: &Page) {
    if page.runs.is_empty() {
        output::note("no runs");
        return;
    }
    let mut rows =
        vec![["ID", "WORKFLOW", "STATUS", "CREATED (UTC)", "ERROR"].map(ToOwned::to_owned).to_vec()];
    rows.extend(page.runs.iter().map(|run| {
        vec![
            run.id.to_string(),
            format!("{}@{}", run.workflow, run.version),
            run.status.to_string(),
            short_time(run.created_at),
            run.error.as_ref().map(|error| error.code.to_string()).unwrap_or_default(),
        ]
    }));
    output::columns(&rows);
    if page.next.is_some() {
        output::note("there are more; ask for them with --limit");
    }
}
