//! Expressions: jq is untrusted code like a step, so it runs in a component, in a fresh instance, under limits of its own.
//! What it cannot do there it can do nowhere: the host has no jq.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use sha2::{Digest, Sha256};

use crate::attempt::{Class, Evaluated, Evaluation, Failure};
use crate::bindings::jq::JqPre;
use crate::bindings::jq::exports::reipaz::jq::evaluate::{ErrorKind, EvalError};
use crate::driver::{self, Bounds};
use crate::engine::{Engine, Inner, lost};
use crate::guest::notebook::cut;
use crate::guest::state::{self, State};
use crate::{limits, output};

/// The jq component, ready.
pub(crate) struct Jq {
    pre: JqPre<State>,
}

impl Engine {
    /// Makes the jq component ready, which the first evaluation would do otherwise, in its own time.
    pub async fn prepare(&self) -> Result<(), Failure> {
        let inner = self.inner.clone();
        let work = async move { inner.jq().await.map(drop) };
        self.inner.threads.run_fast(work).await.unwrap_or_else(|| Err(lost()))
    }

    /// Evaluates all expressions of one step, within the limits of the configuration. A runaway fails with the class
    /// `resource`, an expression that fails on this data with `permanent`.
    pub async fn evaluate(&self, evaluation: Evaluation) -> Result<Evaluated, Failure> {
        let inner = self.inner.clone();
        let work = inner.evaluate(evaluation);
        self.inner.threads.run(work).await.unwrap_or_else(|| Err(lost()))
    }
}

impl Inner {
    async fn jq(self: &Arc<Self>) -> Result<&Arc<Jq>, Failure> {
        self.jq
            .get_or_try_init(|| async {
                let unavailable = |why: String| {
                    Failure::new(Class::Transient, "expressions_unavailable", format!("jq cannot run: {why}"))
                };
                let wasm = self
                    .config
                    .jq
                    .clone()
                    .ok_or_else(|| unavailable("this host has no jq component".into()))?;
                let digest: [u8; 32] = Sha256::digest(&wasm).into();
                let component =
                    self.component(&digest, &wasm).await.map_err(|error| unavailable(error.to_string()))?;
                let pre = state::wasi_linker(&self.machine)
                    .and_then(|linker| linker.instantiate_pre(&component))
                    .and_then(JqPre::new)
                    .map_err(|error| unavailable(format!("{error:#}")))?;
                Ok(Arc::new(Jq { pre }))
            })
            .await
    }

    async fn evaluate(self: Arc<Self>, evaluation: Evaluation) -> Result<Evaluated, Failure> {
        let jq = self.jq().await?.clone();
        let Evaluation { scope, condition, filters, seed, start_by, cancel } = evaluation;
        let scope = String::from(&*scope);
        let filters: Vec<String> = filters.iter().map(|filter| filter.to_string()).collect();
        let _permit = self.permit(start_by, &cancel).await?;
        let bounds = Bounds {
            timeout: self.config.expression_timeout,
            heartbeat: None,
            memory_bytes: self.config.expression_memory_bytes,
            log_bytes: limits::MESSAGE_BYTES,
            cancel,
        };
        let given = self.nothing_given(seed);
        let no_way_out = |denials| self.no_way_out(denials);
        let ended = driver::drive(&self, bounds, given, no_way_out, async |store| {
            let jq = jq.pre.instantiate_async(&mut *store).await?;
            jq.reipaz_jq_evaluate().call_eval(&mut *store, &scope, condition.as_deref(), &filters).await
        })
        .await;
        self.counters.evaluations.fetch_add(1, Ordering::Relaxed);
        self.counters.cpu_us.fetch_add(ended.usage.cpu_us, Ordering::Relaxed);
        let evaluated = match ended.returned {
            Ok(Ok(evaluated)) => evaluated,
            Ok(Err(error)) => return Err(failed(error, condition.as_deref(), &filters)),
            Err(failure) => {
                let used = Duration::from_micros(ended.usage.cpu_us);
                return Err(runaway(failure, used, self.config.expression_timeout));
            }
        };
        let values = evaluated.values.into_iter().map(|value| output::check(value, self.config.output_bytes));
        Ok(Evaluated { condition: evaluated.condition, values: values.collect::<Result<_, _>>()? })
    }
}

/// An expression that was stopped. The component is ours, so whatever it died of was asked of it by the expression.
/// One that had little of the processor in its time is not to blame for its end.
fn runaway(failure: Failure, used: Duration, timeout: Duration) -> Failure {
    let timeout_ms = timeout.as_millis();
    match failure.class {
        Class::Cancelled => failure,
        Class::Timeout if used < timeout / 2 => Failure::new(
            Class::Timeout,
            "expression_timeout",
            format!(
                "The step's expressions did not end within {timeout_ms} ms, of which they had the processor for {} ms: the \
                 host is busy.",
                used.as_millis()
            ),
        ),
        Class::Timeout => Failure::new(
            Class::Resource,
            "expression_timeout",
            format!("The step's expressions did not end within {timeout_ms} ms."),
        ),
        Class::Resource => {
            Failure { message: failure.message.replace("The step", "The step's expression"), ..failure }
        }
        _ => Failure::new(
            Class::Resource,
            "expression_runaway",
            "The step's expression used up its stack; it probably recurses without end.",
        ),
    }
}

/// An expression that ended with an error of its own.
fn failed(error: EvalError, condition: Option<&str>, filters: &[String]) -> Failure {
    let code = match error.kind {
        ErrorKind::Parse => "expression_invalid",
        ErrorKind::Scope => "expression_scope",
        ErrorKind::Runtime | ErrorKind::NoResult | ErrorKind::ManyResults | ErrorKind::NotJson => {
            "expression_failed"
        }
    };
    let expression = match error.filter_index {
        Some(i) => filters.get(i as usize).map(String::as_str),
        None => condition,
    };
    let message = match expression {
        Some(expression) => format!("${{ {} }}: {}", cut(expression.to_owned(), 200), error.message),
        None => error.message,
    };
    Failure::new(Class::Permanent, code, cut(message, limits::MESSAGE_BYTES))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expression_is_to_blame_only_for_the_time_that_it_had() {
        let timed_out = || Failure::new(Class::Timeout, "attempt_timeout", "too late");
        let (second, moment) = (Duration::from_secs(1), Duration::from_millis(1));
        let class = |used| runaway(timed_out(), used, second).class;
        assert_eq!(class(second), Class::Resource);
        assert_eq!(class(second / 2), Class::Resource);
        assert_eq!(class(second / 2 - moment), Class::Timeout);
    }
}
