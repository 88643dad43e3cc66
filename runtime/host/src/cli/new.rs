//! `reipaz new`: something to start from.

use super::exit::Done;

/// Makes something to start from.
#[derive(Clone, Debug, clap::Subcommand)]
pub(crate) enum Command {
    Step(StepArgs),
}

/// d
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct StepArgs {
    name: String,
}

/// d
pub(crate) fn run(_: Command) -> Done {
    Ok(())
}
