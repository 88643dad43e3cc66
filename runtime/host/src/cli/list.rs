//! `reipaz list`: runs, newest first.

use serde::{Deserialize, Serialize};

use super::{
    client::{Client, Connection, escape},
    exit::{Done, Failure},
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
    #[command(flatten)]
    filter: Filter,
    /// How many
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    limit: u32,
    /// JSON, even on a terminal
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connection: Connection,
}

/// Which runs.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct Filter {
    /// Only runs of this workflow
    #[arg(long, value_name = "NAME")]
    workflow: Option<String>,
    /// Only runs with one of these (comma-separated): pending, running, waiting, paused, completed, failed, cancelled
    #[arg(long, value_name = "STATUS")]
    pub(crate) status: Option<String>,
    /// Only runs created at or after this time (RFC 3339)
    #[arg(long, value_name = "TIME")]
    from: Option<String>,
    /// Only runs created before this time (RFC 3339)
    #[arg(long, value_name = "TIME")]
    before: Option<String>,
}

impl Filter {
    /// Whether all runs pass.
    pub(crate) fn is_empty(&self) -> bool {
        [&self.workflow, &self.status, &self.from, &self.before].into_iter().all(Option::is_none)
    }

    /// As the host takes it, after other parameters.
    fn query(&self) -> String {
        let parameters = [
            ("workflow", &self.workflow),
            ("status", &self.status),
            ("created_from", &self.from),
            ("created_before", &self.before),
        ];
        let given = parameters.into_iter().filter_map(|(name, value)| Some((name, value.as_deref()?)));
        given.map(|(name, value)| format!("&{name}={}", escape(value))).collect()
    }
}

/// Runs, as the host lists them.
#[derive(Serialize, Deserialize)]
pub(crate) struct Page {
    pub(crate) runs: Vec<RunSummary>,
    next: Option<String>,
    pub(crate) partial: bool,
}

/// The newest runs that fit, at most `limit`.
pub(crate) async fn find(
    client: &Client,
    filter: &Filter,
    limit: usize,
    wanted: Option<&dyn Fn(&RunSummary) -> bool>,
) -> Result<Page, Failure> {
    let filter = filter.query();
    let mut all = Page { runs: Vec::new(), next: None, partial: false };
    loop {
        let cursor = all.next.take().map(|next| format!("&cursor={next}")).unwrap_or_default();
        let room = limit - all.runs.len();
        // Where few of them are wanted, whole pages find those sooner.
        let ask = if wanted.is_some() { PAGE } else { room.min(PAGE) };
        let page: Page = client.get(&format!("/v1/runs?limit={ask}{filter}{cursor}")).await?;
        let fits = |run: &RunSummary| wanted.is_none_or(|wanted| wanted(run));
        all.runs.extend(page.runs.into_iter().filter(fits).take(room));
        all.partial |= page.partial;
        all.next = page.next;
        if all.next.is_none() || all.runs.len() >= limit {
            return Ok(all);
        }
    }
}

/// See [`Args`].
pub(crate) async fn run(args: Args) -> Done {
    let client = args.connection.client()?;
    let limit = usize::try_from(args.limit).unwrap_or(PAGE);
    let all = find(&client, &args.filter, limit, None).await?;
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
