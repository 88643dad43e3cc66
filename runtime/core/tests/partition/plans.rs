//! Plans built by hand: the partition is tested without documents.

use std::{sync::Arc, time::Duration};

use reipaz_core::{
    expression::{Expression, Piece, Template},
    ids::{Digest, StepPath},
    plan::{Condition, OnFailure, Plan, PluginPin, StepIndex, StepPlan},
    retry::{Jitter, RetryRule},
};

/// Builds a [`Plan`] step by step.
pub(crate) struct Planner {
    name: String,
    steps: Vec<StepPlan>,
    timeout: Option<Duration>,
    output: Option<Template>,
}

/// A plan under construction.
pub(crate) fn workflow(name: &str) -> Planner {
    Planner { name: name.into(), steps: Vec::new(), timeout: None, output: None }
}

impl Planner {
    /// Adds a step after the named ones.
    pub(crate) fn step(mut self, name: &str, after: &[&str]) -> Self {
        let index = self.steps.len();
        let upstream: Vec<StepIndex> = after
            .iter()
            .map(|name| self.steps.iter().position(|step| &*step.name == *name).unwrap())
            .collect();
        upstream.iter().for_each(|&before| self.steps[before].downstream.push(index));
        self.steps.push(StepPlan {
            path: StepPath::top(name),
            name: name.into(),
            plugin: PluginPin {
                name: "test".into(),
                version: "1.0.0".into(),
                digest: Digest::of(b"test"),
                retry: None,
            },
            with: Template::Literal(serde_json::json!({})),
            condition: Condition::Succeeded,
            reads: upstream.clone(),
            upstream,
            downstream: Vec::new(),
            secrets: Vec::new(),
            timeout: Duration::from_secs(30),
            total_timeout: None,
            queue_timeout: None,
            heartbeat_timeout: None,
            on_failure: OnFailure::Fail,
            retry: RetryRule { jitter: Jitter::None, ..RetryRule::default() },
            grants: None,
        });
        self
    }

    /// Changes the newest step.
    pub(crate) fn with(mut self, change: impl FnOnce(&mut StepPlan)) -> Self {
        change(self.steps.last_mut().unwrap());
        self
    }

    /// The newest step's condition.
    pub(crate) fn when(self, condition: Condition) -> Self {
        self.with(|step| step.condition = condition)
    }

    /// The run's timeout.
    pub(crate) fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// The run's output.
    pub(crate) fn output(mut self, output: Template) -> Self {
        self.output = Some(output);
        self
    }

    pub(crate) fn build(self) -> Arc<Plan> {
        Arc::new(Plan {
            digest: Digest::of(self.name.as_bytes()),
            name: self.name.into(),
            input_schema: None,
            timeout: self.timeout,
            secrets: Vec::new(),
            output_reads: (0..self.steps.len()).collect(),
            steps: self.steps.into_iter().map(Arc::new).collect(),
            output: self.output,
            input_check: Default::default(),
        })
    }
}

/// `${ $steps.NAME.output }`.
pub(crate) fn output_of(step: &str) -> Template {
    Template::Whole(expression(&format!("$steps.{step}.output")))
}

/// `${ $input }`.
pub(crate) fn whole_input() -> Template {
    Template::Whole(expression("$input"))
}

/// A text that has to be evaluated.
pub(crate) fn evaluated() -> Template {
    Template::Text(vec![Piece::Text("length: ".into()), Piece::Expression(expression("$input | length"))])
}

pub(crate) fn expression(source: &str) -> Expression {
    Expression::parse(source).unwrap()
}
