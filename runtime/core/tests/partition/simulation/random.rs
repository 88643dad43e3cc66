//! Numbers that only look random: splitmix64 (Steele, Lea, Flood 2014).

use std::{sync::Arc, time::Duration};

use reipaz_core::{
    expression::Template,
    failure::ErrorClass,
    plan::{Condition, OnFailure, Plan},
    retry::{Jitter, RetryRule},
};

use crate::plans::{evaluated, expression, output_of, whole_input, workflow};

pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// Below `bound`; 0 if that is 0.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        if bound == 0 { 0 } else { (self.next() % bound as u64) as usize }
    }

    /// So many times in a hundred.
    pub(crate) fn percent(&mut self, chance: usize) -> bool {
        self.below(100) < chance
    }

    pub(crate) fn one_of<T: Clone>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())].clone()
    }

    pub(crate) fn class(&mut self) -> ErrorClass {
        use ErrorClass::{
            Cancelled, Denied, Network, Permanent, RateLimited, Resource, Timeout, Transient, Trap,
        };
        if self.percent(70) {
            self.one_of(&[Network, Timeout, Transient, RateLimited])
        } else {
            self.one_of(&[Permanent, Resource, Trap, Denied, Cancelled])
        }
    }

    /// Any DAG of up to seven steps.
    pub(crate) fn plan(&mut self, number: usize) -> Arc<Plan> {
        let mut planner = workflow(&format!("workflow_{number}"));
        let names: Vec<String> = (0..self.below(8)).map(|index| format!("s{index}")).collect();
        for (index, name) in names.iter().enumerate() {
            let upstream: Vec<&str> =
                names[..index].iter().filter(|_| self.percent(40)).map(String::as_str).collect();
            let condition = match self.below(100) {
                0..60 => Condition::Succeeded,
                60..75 => Condition::Holds(expression("$input | length > 0")),
                75..88 => Condition::Always,
                _ => Condition::Failed,
            };
            let retry = RetryRule {
                attempts: 1 + self.below(5) as u32,
                base: Duration::from_millis(self.below(3000) as u64),
                within: Duration::from_secs(self.one_of(&[5, 900])),
                jitter: self.one_of(&[Jitter::Full, Jitter::None]),
                ..RetryRule::default()
            };
            let total_timeout = self.percent(20).then(|| Duration::from_secs(self.one_of(&[1, 30])));
            let on_failure = match self.below(100) {
                0..60 => OnFailure::Fail,
                60..80 => OnFailure::Pause,
                80..90 => OnFailure::ContinueWith(Template::Literal(serde_json::json!(0))),
                _ => OnFailure::ContinueWith(whole_input()),
            };
            planner = planner.step(name, &upstream).when(condition).with(|step| {
                (step.retry, step.total_timeout, step.on_failure) = (retry, total_timeout, on_failure);
            });
        }
        if self.percent(30) {
            planner = planner.timeout(Duration::from_secs(self.one_of(&[1, 60, 172_800])));
        }
        let output = match self.below(5) {
            0 => None,
            1 => Some(Template::Literal(serde_json::json!({"fixed": true}))),
            2 => Some(whole_input()),
            3 if !names.is_empty() => Some(output_of(&self.one_of(&names))),
            _ => Some(evaluated()),
        };
        if let Some(output) = output {
            planner = planner.output(output);
        }
        planner.build()
    }
}
