//! `reipaz breakers`: the circuit breakers of a host, and a hand on one of them.

use reipaz_engine::{BreakerKind, BreakerState};
use serde_json::json;

use super::{client::Connection, exit::Done, output, runs::short_time};
use crate::facade::{BreakerView, BreakersView};

/// Lists the circuit breakers of a host: one for each plugin, and for each authority that plugins call.
///
/// While one is open, steps that need the other side wait for it (`waiting_for` in the run says so) instead of failing one
/// after the other. Breakers are the host's own: where several share the work, ask each of them.
#[derive(Clone, Debug, clap::Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "\
Example:
  reipaz breakers
  reipaz breakers open authority https://shop.example
  reipaz breakers close plugin acme/score@1.2.0"
)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    /// JSON, even on a terminal
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connection: Connection,
}

#[derive(Clone, Debug, clap::Subcommand)]
enum Command {
    /// Opens one, until it is closed by hand: before maintenance, say
    #[command(after_help = "\
Example:
  reipaz breakers open authority https://shop.example")]
    Open(HandArgs),
    /// Closes one; from there it goes on by itself
    #[command(after_help = "\
Example:
  reipaz breakers close authority https://shop.example")]
    Close(HandArgs),
}

#[derive(Clone, Debug, clap::Args)]
struct HandArgs {
    /// What it is for
    kind: Kind,
    /// `acme/score@1.2.0`, or `https://shop.example:443`
    name: String,
    /// JSON, even on a terminal
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connection: Connection,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Kind {
    Plugin,
    Authority,
}

/// See [`Args`].
pub(crate) async fn run(args: Args) -> Done {
    match args.command {
        Some(Command::Open(hand)) => by_hand(hand, "open").await,
        Some(Command::Close(hand)) => by_hand(hand, "close").await,
        None => {
            let breakers: BreakersView = args.connection.client()?.get("/v1/breakers").await?;
            show(&breakers, args.json);
            Ok(())
        }
    }
}

async fn by_hand(args: HandArgs, hand: &str) -> Done {
    let kind = match args.kind {
        Kind::Plugin => BreakerKind::Plugin,
        Kind::Authority => BreakerKind::Authority,
    };
    let which = json!({ "kind": kind, "name": args.name });
    let breakers: BreakersView =
        args.connection.client()?.post(&format!("/v1/breakers/{hand}"), &which).await?;
    show(&breakers, args.json);
    Ok(())
}

fn show(breakers: &BreakersView, json: bool) {
    if json || !output::is_terminal() {
        return output::json(breakers);
    }
    if breakers.breakers.is_empty() {
        return output::note("no breakers: nothing has been called yet");
    }
    let heading = ["KIND", "NAME", "STATE", "SINCE (UTC)", "FAILED"].map(ToOwned::to_owned).to_vec();
    let rows = breakers.breakers.iter().map(row);
    output::columns(&std::iter::once(heading).chain(rows).collect::<Vec<_>>());
}

fn row(breaker: &BreakerView) -> Vec<String> {
    let state = match (breaker.state, breaker.held, breaker.opens_in_ms) {
        (BreakerState::Open, true, _) => "open (by hand)".to_owned(),
        (BreakerState::Open, false, Some(millis)) => format!("open, probes in {} s", millis.div_ceil(1_000)),
        (state, ..) => state.as_str().replace('_', " "),
    };
    vec![
        breaker.kind.as_str().to_owned(),
        breaker.name.to_string(),
        state,
        short_time(breaker.since),
        format!("{} of {}", breaker.failures, breaker.calls),
    ]
}
