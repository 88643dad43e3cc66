//! What is run: three steps in a chain, either silent or each with an effect outside; or one step that is put off.

use std::net::SocketAddr;

use crate::upstream::LATER;

/// An input of a sleeping run is so long, about: bytes.
const SLEEPING_INPUT_BYTES: usize = 200;

/// A workflow of the bench.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Workload {
    /// Each step runs a jq filter and can neither change nor reveal anything outside.
    Silent,
    /// Each step posts to a local server.
    Effect,
    /// Its step is told to come again hours later, so the run sleeps in a retry delay.
    Sleeping,
}

impl Workload {
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Silent => "3 silent steps",
            Self::Effect => "3 steps with an outside effect",
            Self::Sleeping => "1 step in a retry delay",
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Silent => "bench_silent",
            Self::Effect => "bench_effect",
            Self::Sleeping => "bench_sleeping",
        }
    }

    pub(crate) fn document(self) -> &'static str {
        match self {
            Self::Silent => {
                "reipaz: 1
name: bench_silent
steps:
  first: {uses: transform@1, with: {data: '${ $input.n }', filter: '. + 1'}}
  second: {uses: transform@1, with: {data: '${ $steps.first.output }', filter: '. + 1'}}
  third: {uses: transform@1, with: {data: '${ $steps.second.output }', filter: '. + 1'}}
output: '${ $steps.third.output }'
"
            }
            Self::Effect => {
                "reipaz: 1
name: bench_effect
steps:
  first: {uses: http_request@1, with: {method: POST, url: '${ $input.url }', body: '${ $input }'}}
  second: {uses: http_request@1, with: {method: POST, url: '${ $input.url }', body: '${ $steps.first.output.body }'}}
  third: {uses: http_request@1, with: {method: POST, url: '${ $input.url }', body: '${ $steps.second.output.body }'}}
output: '${ $steps.third.output.body.done }'
"
            }
            Self::Sleeping => {
                "reipaz: 1
name: bench_sleeping
timeout: 48h
defaults: {retry: {within: 48h}}
steps:
  call: {uses: http_request@1, with: {method: POST, url: '${ $input.url }', body: '${ $input.n }'}}
output: '${ $steps.call.output.body.done }'
"
            }
        }
    }

    /// A run's input, JSON.
    pub(crate) fn input(self, n: u64, upstream: SocketAddr) -> String {
        match self {
            Self::Silent => format!(r#"{{"n":{n}}}"#),
            Self::Effect => format!(r#"{{"n":{n},"url":"http://{upstream}/"}}"#),
            Self::Sleeping => {
                let start = format!(r#"{{"n":{n},"url":"http://{upstream}{LATER}","rest":"#);
                let rest = SLEEPING_INPUT_BYTES.saturating_sub(start.len());
                format!(r#"{start}"{:x<rest$}"}}"#, "")
            }
        }
    }

    /// A submission's body.
    pub(crate) fn submission(self, n: u64, upstream: SocketAddr) -> String {
        format!(r#"{{"input":{}}}"#, self.input(n, upstream))
    }

    /// The same as a message for the tasks topic.
    pub(crate) fn task(self, n: u64, upstream: SocketAddr) -> String {
        format!(r#"{{"reipaz":1,"workflow":"{}","input":{}}}"#, self.name(), self.input(n, upstream))
    }

    /// The terminal run's output as it stands in its JSON.
    pub(crate) fn output(self, n: u64) -> String {
        match self {
            Self::Silent => format!("\"output\":{},", n + 3),
            Self::Effect | Self::Sleeping => "\"output\":true,".to_owned(),
        }
    }
}
