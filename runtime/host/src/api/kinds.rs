//! The closed set of problem types: what can be wrong with a request, each with its own path, status and advice.
//!
//! The path (`/problems/run-not-found`) is the `type` of the problem document and is served as a page, so that whoever
//! meets one can look it up on the very host that sent it. A path, once published, keeps its meaning.

use http::StatusCode;

/// A type of problem.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kind {
    /// The last part of its path.
    pub slug: &'static str,
    /// Its HTTP status.
    pub status: u16,
    /// The same for every occurrence.
    pub title: &'static str,
    /// What it means and how to mend it.
    pub advice: &'static str,
}

impl Kind {
    /// Its `type`.
    pub fn path(&self) -> String {
        format!("/problems/{}", self.slug)
    }

    /// Its HTTP status.
    pub fn status(&self) -> StatusCode {
        StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    /// The type of that slug.
    pub fn find(slug: &str) -> Option<&'static Self> {
        ALL.iter().copied().find(|kind| kind.slug == slug)
    }
}

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident = $status:literal $slug:literal $title:literal : $advice:literal;)*) => {
        $($(#[$doc])* #[doc = $advice]
        pub const $name: Kind = Kind { slug: $slug, status: $status, title: $title, advice: $advice };)*
        /// All of them.
        pub const ALL: &[&Kind] = &[$(&$name),*];
    };
}

kinds! {
    MALFORMED_BODY = 400 "malformed-body" "The body is malformed":
        "The body is not what its Content-Type says, or has a key that the route does not know. `detail` says where.";
    MALFORMED_DOCUMENT = 400 "malformed-document" "The workflow document is neither YAML nor JSON":
        "The document cannot be read at all. `diagnostics` holds the line and column.";
    INVALID_QUERY = 400 "invalid-query" "A query parameter is wrong":
        "A parameter is unknown to the route, or its value does not fit. `detail` names it.";
    INVALID_HEADER = 400 "invalid-header" "A header is wrong":
        "A header's value does not fit. `detail` names it.";
    UNAUTHORIZED = 401 "unauthorized" "A token is needed":
        "Send `Authorization: Bearer TOKEN` with one of the tokens that the host's operator configured.";
    ORIGIN_REFUSED = 403 "origin-refused" "This web origin may not change anything here":
        "A web page of another origin sent the request. The operator lists allowed origins in `cors_origins`.";
    PATH_NOT_FOUND = 404 "path-not-found" "There is nothing at this path":
        "Look the paths up in /openapi.json.";
    RUN_NOT_FOUND = 404 "run-not-found" "There is no such run":
        "The id is wrong, or the run is older than what the host keeps.";
    WORKFLOW_NOT_FOUND = 404 "workflow-not-found" "There is no such workflow":
        "Publish it first; `near` holds names that come near.";
    VERSION_NOT_FOUND = 404 "version-not-found" "The workflow has no such version":
        "`newest` holds its newest version; versions count from 1.";
    PLUGIN_NOT_FOUND = 404 "plugin-not-found" "There is no such plugin":
        "Install it first; `near` holds names or versions that come near.";
    METHOD_NOT_ALLOWED = 405 "method-not-allowed" "The path does not take this method":
        "The `Allow` header says which it takes.";
    BODY_TIMEOUT = 408 "body-timeout" "The body did not arrive in time":
        "Send the body without a pause, or over a faster connection.";
    WRONG_STATUS = 409 "wrong-status" "The run's status does not allow it":
        "`status` holds where the run stands. Only failed and cancelled runs, and those that paused after a failure, can be retried; only runs that are not over can be cancelled, paused or resumed.";
    NEVER_STARTED = 409 "never-started" "The run never started":
        "It was accepted before anybody saw that it cannot start; its `error` says why. Submit it again as a new run.";
    RUN_FORGOTTEN = 409 "run-forgotten" "The run ended too long ago to be retried":
        "What it did can still be read. Submit its input as a new run; `failed_retention` and `limits.failed_runs` say how long runs can be retried.";
    STEP_RUNNING = 409 "step-running" "A step that would start afresh is still being executed":
        "`step` names it. Wait for its end, or cancel the run first.";
    RUN_EXISTS = 409 "run-exists" "The chosen run id is taken":
        "Choose another id, or use an Idempotency-Key instead of an id.";
    PLUGIN_EXISTS = 409 "plugin-exists" "That plugin version is installed with other content":
        "Raise the version in the plugin's manifest and install it again: a version never changes its content.";
    TOO_LARGE = 413 "too-large" "The body is over its limit":
        "`limit_bytes` holds the limit. Pass large data by reference: store it elsewhere and send its URL.";
    TARGET_TOO_LONG = 414 "target-too-long" "The path and query are over their limit":
        "`limit_bytes` holds the limit.";
    WRONG_CONTENT_TYPE = 415 "wrong-content-type" "The route does not take this Content-Type":
        "`accepts` holds the types that the route takes.";
    HOST_REFUSED = 421 "host-refused" "The Host header does not name this machine":
        "Without tokens the host answers only to localhost and loopback addresses, so that a web page cannot reach it by a DNS name of its own. Call it as 127.0.0.1 or localhost, or configure tokens.";
    NOT_OWNER = 421 "not-owner" "Another host decides for that run":
        "Hosts pass requests on to one another; this one found the owner gone. Ask again.";
    INVALID_DOCUMENT = 422 "invalid-document" "The workflow document has mistakes":
        "`diagnostics` holds every mistake with its line, column, pointer, step, code and hint.";
    INVALID_INPUT = 422 "invalid-input" "The input does not fit the workflow's schema":
        "`mistakes` holds every mistake with its pointer into the input.";
    UNKNOWN_STEP = 422 "unknown-step" "The run's workflow has no such step":
        "Name a step by its path as it stands in the run's `steps`, such as /fetch.";
    KEY_REUSED = 422 "key-reused" "The idempotency key was used with another input":
        "`run` holds the run that the key stands for. Use a new key for another input.";
    PLUGIN_REFUSED = 422 "plugin-refused" "The component was refused":
        "It is not a Reipaz step, or lacks what it needs: `code` says what is wrong, `hint` how to mend it.";
    INVALID_GRANT = 422 "invalid-grant" "A grant does not parse":
        "Write a grant as kind=value, such as http=GET api.example.com. `grant` holds the one that does not parse.";
    SQL_REFUSED = 422 "sql-refused" "ClickHouse refused the statement":
        "`detail` holds ClickHouse's own words. Only statements that read are taken.";
    OVERLOADED = 429 "overloaded" "The host has more work than it takes":
        "Nothing was accepted. Come back after the seconds in `Retry-After`.";
    INTERNAL = 500 "internal" "The host made a mistake":
        "The host's log says more under the request id. What was accepted before is not lost.";
    NOT_READY = 503 "not-ready" "The host does not take requests now":
        "It is starting or stopping. Come back after the seconds in `Retry-After`; /readyz says what is missing.";
    STORE_UNAVAILABLE = 503 "store-unavailable" "ClickHouse cannot be asked now":
        "Runs go on without it. `detail` says what is missing; come back after the seconds in `Retry-After`.";
    ANSWER_TIMEOUT = 503 "answer-timeout" "The host did not answer in time":
        "What was asked for may still happen. Ask again; with an Idempotency-Key a repeated submission starts nothing new.";
    STORAGE_FULL = 507 "storage-full" "The journal's disk is full":
        "Nothing was accepted. The operator has to make room; accepted runs are kept and go on then.";
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_slug_is_used_once_and_every_status_is_an_error() {
        let slugs: BTreeSet<_> = ALL.iter().map(|kind| kind.slug).collect();
        assert_eq!(slugs.len(), ALL.len());
        assert!(ALL.iter().all(|kind| (400..600).contains(&kind.status)));
    }
}
