//! Why a journal cannot be replayed, and what to do about it.

use crate::{
    ids::{Digest, RunId, StepPath},
    limit::LimitId,
};

/// Why an event does not follow from those before it: the journal is incomplete, or an incompatible release wrote it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReplayError {
    /// A fact about a run that was never accepted.
    #[error("event {seq} of run {run} stands before the run was accepted: {ADVICE}")]
    UnknownRun {
        /// Which run.
        run: RunId,
        /// Which of its events.
        seq: u32,
    },
    /// A run's events are not without gaps.
    #[error("run {run} continues with event {found} where {expected} is due: {ADVICE}")]
    Sequence {
        /// Which run.
        run: RunId,
        /// The number due.
        expected: u32,
        /// The number found.
        found: u32,
    },
    /// A run of a workflow version that was not pinned.
    #[error("run {run} uses the workflow {plan}, which no event before it pinned: {ADVICE}")]
    UnknownPlan {
        /// Which run.
        run: RunId,
        /// Digest of the pinned workflow.
        plan: Digest,
    },
    /// A pinned workflow that this release cannot read.
    #[error("the pinned workflow {plan} cannot be compiled ({reason}): start the release that wrote it")]
    Plan {
        /// Its digest.
        plan: Digest,
        /// Why.
        reason: String,
    },
    /// A step that the workflow does not have.
    #[error("event {seq} of run {run} names the step {step}, which its workflow does not have: {ADVICE}")]
    UnknownStep {
        /// Which run.
        run: RunId,
        /// Which of its events.
        seq: u32,
        /// The step.
        step: StepPath,
    },
    /// A fact that cannot follow from the run's state.
    #[error("event {seq} of run {run} cannot follow from those before it ({reason}): {ADVICE}")]
    Impossible {
        /// Which run.
        run: RunId,
        /// Which of its events.
        seq: u32,
        /// What does not fit.
        reason: &'static str,
    },
    /// A fact that cannot follow from a limit's state.
    #[error("an event about the limit of {limit} cannot follow from those before it ({reason}): {ADVICE}")]
    Limit {
        /// Which limit.
        limit: LimitId,
        /// What does not fit.
        reason: &'static str,
    },
}

const ADVICE: &str = "events before it are missing, or another release wrote it; start the release that wrote to this \
                      journal last, or restore the journal's files from a copy";
