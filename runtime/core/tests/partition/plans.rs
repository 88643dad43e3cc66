//! Plans built by hand: the partition is tested without documents.

use std::{sync::Arc, time::Duration};

use reipaz_core::{
    expression::{Expression, Piece, Template},
    ids::{Digest, StepPath},
    limit::LimitRule,
    plan::{Concurrency, Condition, Handles, OnFailure, Plan, PluginPin, RunFailure, StepIndex, StepPlan},
    retry::{Jitter, RetryRule},
};

/// Builds a [`Plan`] step by step.
pub(crate) struct Planner {
    name: String,
    steps: Vec<StepPlan>,
    timeout: Option<Duration>,
    output: Option<Template>,
    on_failure: Option<RunFailure>,
    concurrency: Option<Concurrency>,
}

/// A plan under construction.
pub(crate) fn workflow(name: &str) -> Planner {
    let (timeout, output, on_failure, concurrency) = (None, None, None, None);
    Planner { name: name.into(), steps: Vec::new(), timeout, output, on_failure, concurrency }
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
            handles: None,
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

    /// Adds a step for the failure of this one (none: of the run), after the named ones. All other steps come first.
    pub(crate) fn handler(self, of: Option<&str>, name: &str, after: &[&str]) -> Self {
        let index = self.steps.len();
        let failed = of.map(|of| self.steps.iter().position(|step| &*step.name == of).unwrap());
        let mut this = self.step(name, after).with(|step| {
            step.path = StepPath(
                format!("{}/on_failure/{name}", of.map(|of| format!("/{of}")).unwrap_or_default()).into(),
            );
            step.reads.extend(failed);
            step.handles = Some(failed.map_or(Handles::Run, Handles::Step));
        });
        match failed {
            Some(failed) => match &mut this.steps[failed].on_failure {
                OnFailure::Steps { steps, .. } => steps.push(index),
                other => *other = OnFailure::Steps { steps: vec![index], output: None },
            },
            None => {
                let timeout = Duration::from_secs(15 * 60);
                let none = || RunFailure { steps: Vec::new(), timeout };
                this.on_failure.get_or_insert_with(none).steps.push(index);
            }
        }
        this
    }

    /// What this step's `on_failure` gives, when its steps are over.
    pub(crate) fn handled_output(mut self, of: &str, given: Template) -> Self {
        let all = (0..self.steps.len()).collect();
        let step = self.steps.iter_mut().find(|step| &*step.name == of).unwrap();
        let OnFailure::Steps { output, .. } = &mut step.on_failure else { panic!("it has no steps") };
        *output = Some((given, all));
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

    /// How many of its runs there may be, with the same value of an expression.
    pub(crate) fn limited(mut self, key: Option<&str>, rule: LimitRule) -> Self {
        let key = key.map(|source| Template::Whole(expression(source)));
        self.concurrency = Some(Concurrency { key, rule });
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
            on_failure: self.on_failure,
            concurrency: self.concurrency,
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
