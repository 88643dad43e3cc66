//! `reipaz alerts`: what a host alerts of, and whether its webhooks can be reached.

use super::{
    client::Connection,
    exit::{Code, Done, Failure},
    output,
    runs::short_time,
};
use crate::facade::{AlertStatus, AlertView, AlertsTest, AlertsView};

/// Lists what a host alerts of: what fires, then what is over.
///
/// Alerts are the host's own: where several share the work, ask each of them.
#[derive(Clone, Debug, clap::Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "\
Example:
  reipaz alerts
  reipaz alerts --json | jq '.firing[].summary'
  reipaz alerts test"
)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    look: LookArgs,
}

#[derive(Clone, Debug, clap::Args)]
struct LookArgs {
    /// JSON, even on a terminal
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connection: Connection,
}

#[derive(Clone, Debug, clap::Subcommand)]
enum Command {
    /// Sends a test alert to each webhook of the host's configuration and says what came of it.
    ///
    /// The exit code is 1 if one was not taken, or if there is no webhook.
    #[command(after_help = "\
Example:
  reipaz alerts test
  reipaz alerts test --url http://10.0.0.5:7878 --json")]
    Test(LookArgs),
}

/// See [`Args`].
pub(crate) async fn run(args: Args) -> Done {
    match args.command {
        Some(Command::Test(look)) => test(look).await,
        None => list(args.look).await,
    }
}

async fn list(args: LookArgs) -> Done {
    let alerts: AlertsView = args.connection.client()?.get("/v1/alerts").await?;
    if args.json || !output::is_terminal() {
        output::json(&alerts);
        return Ok(());
    }
    if alerts.firing.is_empty() && alerts.recent.is_empty() {
        output::note("no alerts");
    } else {
        let heading =
            ["STATUS", "SEVERITY", "KIND", "SINCE (UTC)", "SUMMARY"].map(ToOwned::to_owned).to_vec();
        let rows = alerts.firing.iter().chain(&alerts.recent).map(row);
        output::columns(&std::iter::once(heading).chain(rows).collect::<Vec<_>>());
    }
    if alerts.webhooks == 0 {
        output::note("nobody is told: no webhooks are configured ([[alerts.webhooks]])");
    }
    Ok(())
}

fn row(alert: &AlertView) -> Vec<String> {
    let status = match alert.status {
        AlertStatus::Firing => "firing",
        AlertStatus::Resolved => "resolved",
    };
    vec![
        status.to_owned(),
        alert.severity.as_str().to_owned(),
        alert.kind.as_str().to_owned(),
        short_time(alert.started_at),
        alert.summary.clone(),
    ]
}

async fn test(args: LookArgs) -> Done {
    let client = args.connection.client()?;
    let test: AlertsTest = client.post("/v1/alerts/test", &serde_json::Value::Null).await?;
    if args.json || !output::is_terminal() {
        output::json(&test);
    } else {
        for webhook in &test.webhooks {
            let said = webhook.error.clone().unwrap_or_else(|| format!("taken in {} ms", webhook.elapsed_ms));
            let word = if webhook.taken { "ok" } else { "fail" };
            output::line(&format!("{word:<4}  webhook {}  {}  {said}", webhook.webhook, webhook.origin));
        }
    }
    if test.webhooks.is_empty() {
        let message = format!("the host at {} has no webhooks", client.url());
        return Err(
            Failure::new(Code::Failed, message).hint("list them in its configuration: [[alerts.webhooks]]")
        );
    }
    let missed = test.webhooks.iter().filter(|webhook| !webhook.taken).count();
    if missed > 0 {
        let message = format!("{missed} of {} webhooks did not take the test alert", test.webhooks.len());
        return Err(Failure::new(Code::Failed, message));
    }
    Ok(())
}
