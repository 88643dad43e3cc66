//! `reipaz sql`: one read-only statement, answered by ClickHouse.

use bytes::Bytes;

use super::{
    client::{Connection, escape},
    exit::{Done, Failure},
    output,
};

/// Asks ClickHouse, where outputs, attempts, logs and events of all runs stand.
///
/// Tables: workflows, plugins, runs, attempts, logs, events. Statements that write are refused.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
Example:
  reipaz sql \"SELECT workflow, status, count() FROM runs GROUP BY ALL\"
  reipaz sql \"SELECT run, output FROM runs\" --format JSONEachRow | jq .output")]
pub(crate) struct Args {
    /// The statement, or - for standard input
    statement: String,
    /// ClickHouse's name of the format [default: PrettyCompact on a terminal, else JSONEachRow]
    #[arg(long, short, value_name = "FORMAT")]
    format: Option<String>,
    #[command(flatten)]
    connection: Connection,
}

/// See [`Args`].
pub(crate) async fn run(args: Args) -> Done {
    let statement = match args.statement.as_str() {
        "-" => std::io::read_to_string(std::io::stdin()).map_err(|error| {
            Failure::usage(format!("cannot read the statement from standard input: {error}"))
        })?,
        statement => statement.to_owned(),
    };
    let usual = if output::is_terminal() { "PrettyCompactMonoBlock" } else { "JSONEachRow" };
    let format = args.format.as_deref().unwrap_or(usual);
    let client = args.connection.client()?;
    let path = format!("/v1/sql?format={}", escape(format));
    let answer = client.post_bytes(&path, "application/sql", Bytes::from(statement)).await?.accepted()?;
    output::raw(&answer.body);
    if answer.body.last().is_some_and(|&byte| byte != b'\n') && output::is_terminal() {
        output::raw(b"\n");
    }
    Ok(())
}
