//! The owner's port to what executes attempts, so that the owner knows neither the engine nor its threads.

use std::future::Future;

use reipaz_core::ids::AttemptId;
use reipaz_core::partition::{EvaluateOutput, Input, StartAttempt};
use tokio::task::JoinHandle;

/// Executes attempts beside the owner. Outcomes and reports arrive as inputs in the owner's queue of outcomes.
pub(crate) trait Executor: Send + Sync {
    /// Whether nobody outside can see that this attempt ran until its outcome is told.
    fn is_silent(&self, start: &StartAttempt) -> bool;

    /// Executes it beside everything else; its outcome arrives as an input.
    fn start(&self, start: StartAttempt);

    /// Interrupts it; its outcome is dropped.
    fn cancel(&self, id: &AttemptId);

    /// Interrupts all.
    fn cancel_all(&self);

    /// From now on nothing starts.
    fn stop_starting(&self);

    /// How many have not told their outcome yet.
    fn running(&self) -> usize;

    /// Until one has told its outcome, or was interrupted, since this was last asked.
    fn one_ended(&self) -> impl Future<Output = ()> + Send;

    /// Evaluates a run's output. What can be told at once comes back; anything else arrives as an input.
    fn evaluate_output(&self, ask: EvaluateOutput) -> Option<Input>;

    /// Does work that would hold up the owner.
    fn aside<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T>;
}
