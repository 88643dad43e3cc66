//! `reipaz validate` and `reipaz publish`: workflow documents, and where in them the mistakes are.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use bytes::Bytes;
use http::StatusCode;
use reipaz_core::{retry::GiveUp, time::format_duration};
use serde::Deserialize;

use crate::facade::{RetryView, StepSchedule};

use super::{
    client::{Client, Connection, Mistake},
    diagnostics,
    exit::{Code, Done, Failure},
    output,
    session::Session,
};

/// Checks workflow documents and shows every mistake.
///
/// Asks the host, if one is named or answers, so that its plugins are known; else knows the standard plugins.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
Example:
  reipaz validate workflows/*.yaml
  reipaz validate --explain orders.yaml")]
pub(crate) struct ValidateArgs {
    /// The documents (YAML or JSON)
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Shows when each step would be tried again, by what failed
    #[arg(long)]
    explain: bool,
    #[command(flatten)]
    connection: Connection,
}

/// Publishes workflow documents on a host. Identical content keeps its version.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
Example:
  reipaz publish orders.yaml")]
pub(crate) struct PublishArgs {
    /// The documents (YAML or JSON)
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// JSON, even on a terminal
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connection: Connection,
}

/// The answer to a publication.
#[derive(Debug, Deserialize)]
pub(crate) struct Published {
    pub(crate) name: String,
    pub(crate) version: u32,
    pub(crate) created: bool,
    #[serde(default)]
    warnings: Vec<Mistake>,
}

#[derive(Debug, Deserialize)]
struct Validated {
    name: String,
    steps: Vec<String>,
    #[serde(default)]
    warnings: Vec<Mistake>,
    #[serde(default)]
    schedules: Vec<StepSchedule>,
}

/// See [`ValidateArgs`].
pub(crate) async fn validate(args: ValidateArgs) -> Done {
    let documents = args.files.iter().map(|file| Document::read(file)).collect::<Result<Vec<_>, _>>()?;
    let session = Session::open(&args.connection, None).await?;
    let mut wrong = 0;
    for document in &documents {
        let path =
            if args.explain { "/v1/workflows/validate?explain=true" } else { "/v1/workflows/validate" };
        match document.send(session.client(), path).await {
            Ok(answer) => {
                let validated: Validated = answer.json()?;
                document.show_warnings(&validated.warnings);
                let steps = match validated.steps.len() {
                    1 => "1 step".to_owned(),
                    count => format!("{count} steps"),
                };
                output::line(&format!("{}: workflow {} is sound ({steps})", document.name(), validated.name));
                validated.schedules.iter().flat_map(told).for_each(|line| output::line(&line));
            }
            Err(failure) if failure.code() == Code::Document => {
                failure.report();
                wrong += 1;
            }
            Err(failure) => return Err(failure),
        }
    }
    session.close().await?;
    if wrong == 0 { Ok(()) } else { Err(Failure::silent(Code::Document)) }
}

/// Retries that are told one by one; of more, these and the last.
const RETRIES_TOLD: usize = 10;

/// A step's schedule in lines.
fn told(step: &StepSchedule) -> Vec<String> {
    let duration = |millis| format_duration(Duration::from_millis(millis));
    let total = step.total_timeout_ms.map(|total| format!(", all attempts {}", duration(total)));
    let mut lines = vec![format!(
        "  {}: each attempt may take {}{}",
        step.step,
        duration(step.timeout_ms),
        total.unwrap_or_default()
    )];
    for group in &step.failures {
        let retry = |retry: &RetryView| match (retry.least_ms, retry.most_ms) {
            (_, 0) => format!("{} at once", retry.attempt),
            (least, most) if least == most => format!("{} after {}", retry.attempt, duration(most)),
            (least, most) => format!("{} after {} to {}", retry.attempt, duration(least), duration(most)),
        };
        let mut told: Vec<String> = group.retries.iter().take(RETRIES_TOLD).map(retry).collect();
        if let Some(last) = group.retries.get(RETRIES_TOLD..).and_then(<[_]>::last) {
            told.push(format!("... {}", retry(last)));
        }
        let end = match group.gives_up {
            GiveUp::Class => "would only repeat: not tried again",
            GiveUp::Never => "never tried again, says its rule",
            GiveUp::Attempts if told.is_empty() => "one attempt only",
            GiveUp::Window if told.is_empty() => "no time for another attempt",
            GiveUp::Attempts => "then its attempts are used up",
            GiveUp::Window => "then its time is over",
        };
        let last = group.retries.last().map(|last| last.latest_ms).filter(|latest| *latest > 0);
        let last =
            last.map(|latest| format!(", the last {} after the first at the latest", duration(latest)));
        told.push(format!("{end}{}", last.unwrap_or_default()));
        lines.push(format!("    {}: {}", group.failures.join(", "), told.join("; ")));
    }
    lines
}

/// See [`PublishArgs`].
pub(crate) async fn publish(args: PublishArgs) -> Done {
    let client = args.connection.client()?;
    let documents = args.files.iter().map(|file| Document::read(file)).collect::<Result<Vec<_>, _>>()?;
    for document in &documents {
        let answer = document.send(&client, "/v1/workflows").await?;
        if output::is_terminal() && !args.json {
            let published = document.published(answer)?;
            let state = if published.created { "published as" } else { "is unchanged since" };
            output::line(&format!(
                "{}: {} {state} version {}",
                document.name(),
                published.name,
                published.version
            ));
        } else {
            output::raw(&answer.body);
            output::raw(b"\n");
        }
    }
    Ok(())
}

/// A document and where it came from.
pub(crate) struct Document {
    path: PathBuf,
    text: String,
}

impl Document {
    /// Reads a file.
    pub(crate) fn read(path: &Path) -> Result<Self, Failure> {
        let bytes = std::fs::read(path)
            .map_err(|error| Failure::usage(format!("cannot read {}: {error}", path.display())))?;
        let text = String::from_utf8(bytes).map_err(|error| {
            let byte = error.utf8_error().valid_up_to();
            Failure::new(Code::Document, format!("{} is not UTF-8: byte {byte} does not fit", path.display()))
        })?;
        Ok(Self { path: path.to_owned(), text })
    }

    /// As messages call it.
    pub(crate) fn name(&self) -> String {
        self.path.display().to_string()
    }

    /// Publishes it.
    pub(crate) async fn publish(&self, client: &Client) -> Result<Published, Failure> {
        self.published(self.send(client, "/v1/workflows").await?)
    }

    fn published(&self, answer: super::client::Answer) -> Result<Published, Failure> {
        let published: Published = answer.json()?;
        self.show_warnings(&published.warnings);
        Ok(published)
    }

    fn show_warnings(&self, warnings: &[Mistake]) {
        if !warnings.is_empty() {
            output::complain(&diagnostics::render(
                &self.name(),
                &self.text,
                warnings,
                diagnostics::Gravity::Warning,
            ));
        }
    }

    /// Sends it; mistakes come back as a failure that points into the file.
    async fn send(&self, client: &Client, path: &str) -> Result<super::client::Answer, Failure> {
        let is_json = self.path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("json"));
        let content_type = if is_json { "application/json" } else { "application/yaml" };
        let answer = client.post_bytes(path, content_type, Bytes::from(self.text.clone())).await?;
        let refused = matches!(answer.status, StatusCode::BAD_REQUEST | StatusCode::UNPROCESSABLE_ENTITY);
        let problem = answer.problem();
        if refused && !problem.diagnostics.is_empty() {
            let shown = diagnostics::render(
                &self.name(),
                &self.text,
                &problem.diagnostics,
                diagnostics::Gravity::Error,
            );
            let count = match problem.diagnostics.len() {
                1 => "1 mistake".to_owned(),
                count => format!("{count} mistakes"),
            };
            output::complain(&shown);
            return Err(Failure::new(Code::Document, format!("{} has {count}", self.name())));
        }
        answer.accepted()
    }
}
