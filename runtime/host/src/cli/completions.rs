//! `reipaz completions`: what a shell needs to complete the command line.

use clap::CommandFactory;
use clap_complete::Shell;

use super::{Cli, exit::Done, output};

/// Prints a completion script for a shell.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
Example:
  reipaz completions bash > ~/.local/share/bash-completion/completions/reipaz")]
pub(crate) struct Args {
    /// The shell
    shell: Shell,
}

/// See [`Args`].
pub(crate) fn run(args: &Args) -> Done {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "reipaz", &mut script);
    output::raw(&script);
    Ok(())
}
