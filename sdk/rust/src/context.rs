//! What a step may know about the attempt that it is. Plain data: the host fills it in, tests make their own.

use std::time::{Duration, SystemTime};

/// The attempt that is running.
///
/// In a native test: `Context { attempt: 2, ..Context::default() }`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Context {
    /// The run's id.
    pub run: String,
    /// The workflow's name.
    pub workflow: String,
    /// The step's path within the run: `/fetch`, `/each[3]/parse`.
    pub step: String,
    /// Which attempt this is; the first is 1.
    pub attempt: u32,
    /// The same for every attempt of this step of this run, and for no other: give it to whatever the step changes outside,
    /// so that a repeated attempt does not repeat the change.
    pub idempotency_key: String,
    /// When the attempt began, in milliseconds since 1970-01-01T00:00:00Z.
    pub now_ms: u64,
    /// When the host ends the attempt as timed out, on the same scale.
    pub deadline_ms: u64,
    /// What came with the run's submission, name and value, in its order.
    pub metadata: Vec<(String, String)>,
}

impl Context {
    /// When the attempt began. The same if the attempt is executed again after a crash.
    pub fn now(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_millis(self.now_ms)
    }

    /// When the host ends the attempt as timed out.
    pub fn deadline(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_millis(self.deadline_ms)
    }

    /// How long the whole attempt may take.
    pub fn time_limit(&self) -> Duration {
        Duration::from_millis(self.deadline_ms.saturating_sub(self.now_ms))
    }

    /// The first metadata value of that name.
    pub fn metadata(&self, name: &str) -> Option<&str> {
        self.metadata.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

impl Default for Context {
    /// A first attempt of nowhere in particular that began at 2026-01-01T00:00:00Z and may take 30 s: for tests.
    fn default() -> Self {
        const TEST_NOW_MS: u64 = 1_767_225_600_000;
        Self {
            run: "test".to_owned(),
            workflow: "test".to_owned(),
            step: "/test".to_owned(),
            attempt: 1,
            idempotency_key: "test:/test".to_owned(),
            now_ms: TEST_NOW_MS,
            deadline_ms: TEST_NOW_MS + 30_000,
            metadata: Vec::new(),
        }
    }
}
