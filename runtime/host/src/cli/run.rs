//! `reipaz run FILE`: publish a document, start a run of it, watch it to its end.

use std::{path::PathBuf, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, Method};
use reipaz_core::time::{format_duration, parse_duration};
use serde_json::value::RawValue;
use tokio::time::Instant;

use super::{
    client::{Client, Connection, insert},
    document::Document,
    exit::{Code, Done, Failure},
    follow::{self, Fetched},
    input::InputArgs,
    live::{self, Live},
    output, serve,
    session::Session,
};
use reipaz_core::partition::RunStatus;

/// Publishes a workflow, starts a run of it and shows the run until its end.
///
/// On the host at --url or REIPAZ_URL; without one, on the host at http://127.0.0.1:7878 if it answers, else on a host of
/// its own that goes when the command ends. Says which. Exits with 1 if the run fails.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
Example:
  reipaz run hello.yaml --input '{\"name\": \"Ana\"}'
  reipaz run hello.yaml --input @input.json --set name=Ana --timeout 1m
  reipaz run hello.yaml | jq .output")]
pub(crate) struct Args {
    /// The workflow document (YAML or JSON)
    file: PathBuf,
    #[command(flatten)]
    input: InputArgs,
    /// How long to wait for the end (`30s`, `5m`); the run itself goes on
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    timeout: Option<Duration>,
    /// One run per key and workflow
    #[arg(long, value_name = "KEY")]
    key: Option<String>,
    /// The configuration of a host of its own
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// JSON, even on a terminal
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connection: Connection,
}

/// Reads a duration off the command line.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    parse_duration(text).map_err(|error| error.to_string())
}

/// See [`Args`].
pub(crate) async fn run(args: Args) -> Done {
    let document = Document::read(&args.file)?;
    let input = args.input.read()?;
    let mut signals = serve::Signals::new()?;
    let session = Session::open(&args.connection, args.config.as_deref()).await?;
    let done = tokio::select! {
        done = on_host(session.client(), &args, &document, &input, session.is_own()) => done,
        () = signals.next() => {
            let what = if session.is_own() { "and its host go" } else { "goes on" };
            output::note(&format!("interrupted; the run {what}"));
            Err(Failure::silent(Code::Failed))
        }
    };
    let closed = session.close().await;
    done.and(closed)
}

async fn on_host(client: &Client, args: &Args, document: &Document, input: &RawValue, own: bool) -> Done {
    let mut live = if args.json { None } else { Live::on_terminal() };
    let published = document.publish(client).await?;
    if live.is_some() && published.created {
        output::note(&format!("published {} version {}", published.name, published.version));
    }
    let submission =
        Submission { version: Some(published.version), input, key: args.key.as_deref(), wait: None };
    let started = submission.send(client, &published.name).await?;
    if live.is_some() {
        output::note(&format!("run {}", started.run.id));
    }
    let deadline = args.timeout.map(|timeout| Instant::now() + timeout);
    let ended = follow::until_end(client, started, deadline, live.as_mut()).await?;
    show(&ended, live.is_some());
    conclude(&ended, args.timeout, own)
}

/// A task for `POST /v1/workflows/{name}/runs`.
pub(crate) struct Submission<'a> {
    pub(crate) version: Option<u32>,
    pub(crate) input: &'a RawValue,
    pub(crate) key: Option<&'a str>,
    pub(crate) wait: Option<Duration>,
}

impl Submission<'_> {
    /// Submits it.
    pub(crate) async fn send(&self, client: &Client, workflow: &str) -> Result<Fetched, Failure> {
        let mut headers = HeaderMap::new();
        insert(&mut headers, "content-type", "application/json")?;
        if let Some(key) = self.key {
            insert(&mut headers, "idempotency-key", key)?;
        }
        if let Some(wait) = self.wait {
            insert(&mut headers, "prefer", &format!("wait={}", wait.as_secs().max(1)))?;
        }
        let version = self.version.map(|version| format!(r#","version":{version}"#)).unwrap_or_default();
        let body = format!(r#"{{"input":{}{version}}}"#, self.input.get());
        let path = format!("/v1/workflows/{}/runs", super::client::escape(workflow));
        let answer = client.send(Method::POST, &path, headers, Bytes::from(body)).await?;
        Fetched::new(answer.json()?)
    }
}

/// Prints a run: after its live view only what that does not show, else the host's JSON.
pub(crate) fn show(fetched: &Fetched, after_live: bool) {
    if !after_live {
        output::line(fetched.text.get());
        return;
    }
    if let Some(text) = &fetched.run.output {
        let pretty = serde_json::from_str::<serde_json::Value>(text);
        output::line("");
        match pretty {
            Ok(value) => output::json(&value),
            Err(_) => output::line(text),
        }
    }
}

/// The exit code of a run that was watched.
pub(crate) fn conclude(ended: &Fetched, timeout: Option<Duration>, own: bool) -> Done {
    let run = &ended.run;
    match run.status {
        RunStatus::Completed => Ok(()),
        RunStatus::Failed => {
            let Some(error) = &run.error else { return Err(Failure::silent(Code::Failed)) };
            let at = error.step.as_ref().map(|step| format!(" in step {step}")).unwrap_or_default();
            let attempt = error.attempt.map(|attempt| format!(", attempt {attempt}")).unwrap_or_default();
            let (class, code) = (error.class.as_str(), &error.code);
            let failure = format!("the run failed{at}{attempt}: {} [{class}, {code}]", error.message);
            let failure = Failure::new(Code::Failed, failure);
            Err(if own {
                failure
            } else {
                failure.hint(format!("reipaz logs {0}; reipaz retry {0}", run.id))
            })
        }
        RunStatus::Cancelled => Err(Failure::new(Code::Failed, "the run was cancelled")),
        status => {
            let after = timeout.map(format_duration).unwrap_or_default();
            let failure = Failure::new(Code::Failed, format!("after {after} the run is still {status}"));
            Err(if own {
                failure
            } else {
                failure.hint(format!("it goes on: reipaz status {} --watch", run.id))
            })
        }
    }
}

/// Prints a run that is not followed.
pub(crate) fn show_still(fetched: &Fetched, json: bool) {
    if json || !output::is_terminal() {
        output::line(fetched.text.get());
        return;
    }
    let run = &fetched.run;
    output::line(&format!("run {}  {}", run.id, run.status));
    for line in live::still(run) {
        output::line(&line);
    }
    if let Some(error) = &run.error {
        output::line(&format!("error: {} [{}, {}]", error.message, error.class.as_str(), error.code));
    }
    show(fetched, true);
}
