//! What is run: three steps in a chain, either silent or each with an effect outside.

use std::net::SocketAddr;

/// A workflow of the bench.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Workload {
    /// Each step runs a jq filter and can neither change nor reveal anything outside.
    Silent,
    /// Each step posts to a local server.
    Effect,
}

impl Workload {
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Silent => "3 silent steps",
            Self::Effect => "3 steps with an outside effect",
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Silent => "bench_silent",
            Self::Effect => "bench_effect",
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
        }
    }

    /// A submission's body.
    pub(crate) fn submission(self, n: u64, upstream: SocketAddr) -> String {
        match self {
            Self::Silent => format!(r#"{{"input":{{"n":{n}}}}}"#),
            Self::Effect => format!(r#"{{"input":{{"n":{n},"url":"http://{upstream}/"}}}}"#),
        }
    }

    /// The terminal run's output as it stands in its JSON.
    pub(crate) fn output(self, n: u64) -> String {
        match self {
            Self::Silent => format!("\"output\":{},", n + 3),
            Self::Effect => "\"output\":true,".to_owned(),
        }
    }
}
