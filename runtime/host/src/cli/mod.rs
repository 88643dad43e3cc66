//! The command line. Each command is a file: its arguments, its help, what it does. All but `serve`, `dev`, `doctor`
//! and what builds plugins are clients of the HTTP API and know the host by nothing else.
//!
//! For a person there are tables and a live view; for a pipe (or with `--json`) JSON on standard output and words on
//! standard error. (`doctor` prints its table into a pipe too: it is read in logs.) `exit` lists the exit codes.

mod alerts;
mod attempts;
mod breakers;
mod build;
mod bulk;
mod client;
mod completions;
mod dev;
mod diagnostics;
mod doctor;
mod document;
mod exit;
mod follow;
mod input;
mod limits;
mod list;
mod live;
mod logs;
mod new;
mod output;
mod plugin;
mod run;
mod runs;
mod serve;
mod session;
mod sql;
#[cfg(test)]
mod tests;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use self::exit::{Done, Failure};

/// Durable workflows whose every step is a sandboxed WebAssembly component.
#[derive(Debug, Parser)]
#[command(
    name = "reipaz",
    version,
    propagate_version = true,
    max_term_width = 110,
    after_help = help_end()
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

fn help_end() -> String {
    let example = "\
Example:
  reipaz serve &                                   a host, on 127.0.0.1:7878
  reipaz run hello.yaml --set name=Ana             publish, run, watch
  reipaz sql \"SELECT run, status, output FROM runs\"";
    format!("{example}\n\n{}", exit::TABLE)
}

#[derive(Debug, Subcommand)]
enum Command {
    Serve(serve::Args),
    Dev(dev::Args),
    Doctor(doctor::Args),
    Run(run::Args),
    Validate(document::ValidateArgs),
    Publish(document::PublishArgs),
    Submit(runs::SubmitArgs),
    Status(runs::StatusArgs),
    List(list::Args),
    Cancel(runs::CancelArgs),
    Pause(runs::PauseArgs),
    Resume(runs::ResumeArgs),
    Retry(runs::RetryArgs),
    Bulk(bulk::Args),
    Attempts(attempts::Args),
    Logs(logs::LogsArgs),
    Events(logs::EventsArgs),
    Alerts(alerts::Args),
    Breakers(breakers::Args),
    Limits(limits::Args),
    Sql(sql::Args),
    #[command(subcommand)]
    Plugin(plugin::Command),
    #[command(subcommand)]
    New(new::Command),
    Completions(completions::Args),
}

/// Runs the command line of this process to its end.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    match dispatch(cli.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

fn dispatch(command: Command) -> Done {
    match command {
        Command::Serve(args) => carry(serve::run(args)),
        Command::Dev(args) => carry(dev::run(args)),
        Command::Doctor(args) => carry(doctor::run(args)),
        Command::Run(args) => carry(run::run(args)),
        Command::Validate(args) => carry(document::validate(args)),
        Command::Publish(args) => caller()?.block_on(document::publish(args)),
        Command::Submit(args) => caller()?.block_on(runs::submit(args)),
        Command::Status(args) => caller()?.block_on(runs::status(args)),
        Command::List(args) => caller()?.block_on(list::run(args)),
        Command::Cancel(args) => caller()?.block_on(runs::cancel(args)),
        Command::Pause(args) => caller()?.block_on(runs::pause(args)),
        Command::Resume(args) => caller()?.block_on(runs::resume(args)),
        Command::Retry(args) => caller()?.block_on(runs::retry(args)),
        Command::Bulk(args) => caller()?.block_on(bulk::run(args)),
        Command::Attempts(args) => caller()?.block_on(attempts::run(args)),
        Command::Logs(args) => caller()?.block_on(logs::logs(args)),
        Command::Events(args) => caller()?.block_on(logs::events(args)),
        Command::Alerts(args) => caller()?.block_on(alerts::run(args)),
        Command::Breakers(args) => caller()?.block_on(breakers::run(args)),
        Command::Limits(args) => caller()?.block_on(limits::run(args)),
        Command::Sql(args) => caller()?.block_on(sql::run(args)),
        Command::Plugin(command) => caller()?.block_on(plugin::run(command)),
        Command::New(command) => new::run(command),
        Command::Completions(args) => completions::run(&args),
    }
}

/// Runs a command that carries a host. When it is done everything durable is closed: a call that still blocks (a broker that
/// does not answer) keeps nobody.
fn carry(command: impl Future<Output = Done>) -> Done {
    let runtime = started(tokio::runtime::Builder::new_multi_thread().enable_all().build())?;
    let done = runtime.block_on(command);
    runtime.shutdown_background();
    done
}

/// The runtime of a process that only asks one.
fn caller() -> Result<tokio::runtime::Runtime, Failure> {
    started(tokio::runtime::Builder::new_current_thread().enable_all().build())
}

fn started(built: std::io::Result<tokio::runtime::Runtime>) -> Result<tokio::runtime::Runtime, Failure> {
    built.map_err(|error| Failure::new(exit::Code::Host, format!("this machine gives no threads: {error}")))
}
