//! The live view of a run on a terminal: a progress bar and a table of steps, drawn over itself.

use std::time::Duration;

use reipaz_core::{
    partition::{RunStatus, StepStatus},
    time::{Timestamp, format_duration},
};

use super::output;
use crate::facade::{RunView, StepView, WaitingFor};

const SPINNER: [&str; 4] = ["◐", "◓", "◑", "◒"];
const BAR_CELLS: usize = 24;
/// Lines that stay free for what is not a step: bar, heading of the rest, the prompt.
const OTHER_LINES: usize = 4;

/// See the module.
pub(crate) struct Live {
    lines_drawn: usize,
    frame: usize,
    colour: bool,
    size: (usize, usize),
}

impl Live {
    /// For the terminal on standard output; `None` if there is none.
    pub(crate) fn on_terminal() -> Option<Self> {
        if !output::is_terminal() || std::env::var_os("TERM").is_some_and(|term| term == "dumb") {
            return None;
        }
        let size = terminal_size();
        let colour = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Some(Self { lines_drawn: 0, frame: 0, colour, size })
    }

    /// Draws the run as it stands now.
    pub(crate) fn show(&mut self, run: &RunView) {
        self.size = terminal_size();
        self.frame += 1;
        let lines = self.lines(run, now());
        let mut text = String::new();
        if self.lines_drawn > 0 {
            text.push_str(&format!("\x1b[{}A", self.lines_drawn));
        }
        for line in &lines {
            text.push_str(&format!("\r\x1b[2K{line}\n"));
        }
        text.push_str("\x1b[J");
        self.lines_drawn = lines.len();
        output::raw(text.as_bytes());
    }

    fn lines(&self, run: &RunView, now: Timestamp) -> Vec<String> {
        let steps = in_order(run);
        let ended = steps.iter().filter(|(_, step)| is_over(step.status)).count();
        let took = run.finished_at.unwrap_or(now).since(run.created_at);
        let (columns, rows) = self.size;
        let fit = |line: String| -> String { line.chars().take(columns.saturating_sub(3)).collect() };
        let progress =
            format!("{}  {ended}/{} steps  {}", bar(ended, steps.len()), steps.len(), readable(took));
        let heading = fit(format!("{progress}  {} version {}", run.workflow, run.version));
        let mut lines = vec![format!("{} {heading}", self.run_mark(run.status))];
        let room = rows.saturating_sub(OTHER_LINES).max(1);
        // Where not all fit, the ones that are doing something do.
        let all_fit = steps.len() <= room;
        let mut chosen: Vec<_> = steps.iter().collect();
        if !all_fit {
            chosen.sort_by_key(|(_, step)| rank(step.status));
            chosen.truncate(room.saturating_sub(1).max(1));
        }
        let width = chosen.iter().map(|(path, _)| path.chars().count()).max().unwrap_or(0).min(40);
        for (path, step) in &chosen {
            let line = format!("  {:<width$}  {:<9}  {}", path, step_word(step.status), about(step, now));
            lines.push(format!("{} {}", self.step_mark(step.status), fit(line)));
        }
        if !all_fit {
            lines.push(format!("    and {} more steps", steps.len() - chosen.len()));
        }
        lines
    }

    fn paint(&self, code: u8, text: &str) -> String {
        if self.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    fn run_mark(&self, status: RunStatus) -> String {
        match status {
            RunStatus::Completed => self.paint(32, "✔"),
            RunStatus::Failed => self.paint(31, "✘"),
            RunStatus::Cancelled => self.paint(33, "■"),
            RunStatus::Paused => self.paint(33, "‖"),
            _ => self.paint(36, SPINNER[self.frame % SPINNER.len()]),
        }
    }

    fn step_mark(&self, status: StepStatus) -> String {
        match status {
            StepStatus::Completed => self.paint(32, "✔"),
            StepStatus::Failed => self.paint(31, "✘"),
            StepStatus::Cancelled => self.paint(33, "■"),
            StepStatus::Skipped => self.paint(2, "-"),
            StepStatus::Running => self.paint(36, SPINNER[self.frame % SPINNER.len()]),
            StepStatus::Retrying => self.paint(33, "↻"),
            StepStatus::Waiting => self.paint(2, "·"),
        }
    }
}

/// A run as lines without movement, for `status` on a terminal.
pub(crate) fn still(run: &RunView) -> Vec<String> {
    let colour = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let (columns, _) = terminal_size();
    Live { lines_drawn: 0, frame: 0, colour, size: (columns, usize::MAX) }.lines(run, now())
}

fn in_order(run: &RunView) -> Vec<(String, &StepView)> {
    let mut steps: Vec<_> = run.steps.iter().map(|(path, step)| (path.to_string(), step)).collect();
    steps.sort_by_key(|(path, step)| (step.started_at.is_none(), step.started_at, path.clone()));
    steps
}

fn is_over(status: StepStatus) -> bool {
    matches!(status, StepStatus::Completed | StepStatus::Failed | StepStatus::Skipped | StepStatus::Cancelled)
}

fn rank(status: StepStatus) -> u8 {
    match status {
        StepStatus::Running => 0,
        StepStatus::Failed => 1,
        StepStatus::Retrying => 2,
        StepStatus::Waiting => 3,
        StepStatus::Completed | StepStatus::Skipped | StepStatus::Cancelled => 4,
    }
}

fn step_word(status: StepStatus) -> &'static str {
    match status {
        StepStatus::Waiting => "waiting",
        StepStatus::Running => "running",
        StepStatus::Retrying => "retrying",
        StepStatus::Completed => "completed",
        StepStatus::Failed => "failed",
        StepStatus::Skipped => "skipped",
        StepStatus::Cancelled => "cancelled",
    }
}

fn about(step: &StepView, now: Timestamp) -> String {
    let mut parts = Vec::new();
    if let Some(started) = step.started_at.filter(|_| step.status != StepStatus::Waiting) {
        parts.push(readable(step.finished_at.unwrap_or(now).since(started)));
    }
    if step.attempts > 1 {
        parts.push(format!("attempt {}", step.attempts));
    }
    if let Some(progress) = step.progress.as_ref().filter(|_| step.status == StepStatus::Running) {
        let total = progress.total.map(|total| format!("/{total}")).unwrap_or_default();
        parts.push(format!("{}{total} {}", progress.done, progress.note).trim().to_owned());
    }
    match &step.waiting_for {
        Some(WaitingFor::Steps { steps }) => {
            let names: Vec<&str> = steps.iter().map(|path| path.as_str().trim_start_matches('/')).collect();
            parts.push(format!("for {}", names.join(", ")));
        }
        Some(WaitingFor::Retry { due }) => {
            parts.push(format!("next attempt in {}", readable(due.since(now))))
        }
        Some(WaitingFor::Breaker { breaker, due }) => {
            parts.push(format!("for the breaker of {breaker}, looks again in {}", readable(due.since(now))))
        }
        Some(WaitingFor::Limit { limit, since }) => parts
            .push(format!("for a place under the limit of {limit}, since {}", readable(now.since(*since)))),
        Some(WaitingFor::Resume) => parts.push("for somebody to resume the run".to_owned()),
        None => {}
    }
    if let Some(error) = step.error.as_ref().filter(|_| step.status != StepStatus::Completed) {
        parts.push(format!("{}: {}", error.code, error.message));
    }
    output::harmless(&parts.join("  ")).replace(['\n', '\t'], " ")
}

fn bar(done: usize, all: usize) -> String {
    let filled = (done * BAR_CELLS).checked_div(all).unwrap_or(BAR_CELLS);
    format!("{}{}", "█".repeat(filled), "░".repeat(BAR_CELLS - filled))
}

/// `0.42 s`, `12.3 s`, then as documents write it.
fn readable(duration: Duration) -> String {
    match duration.as_millis() {
        0 => "0 ms".to_owned(),
        millis @ 1..100 => format!("{millis} ms"),
        100..10_000 => format!("{:.2} s", duration.as_secs_f64()),
        10_000..60_000 => format!("{:.1} s", duration.as_secs_f64()),
        _ => format_duration(Duration::from_secs(duration.as_secs())),
    }
}

fn now() -> Timestamp {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Timestamp(u64::try_from(since.as_micros()).unwrap_or(u64::MAX))
}

/// Columns and rows.
fn terminal_size() -> (usize, usize) {
    match rustix::termios::tcgetwinsize(std::io::stdout()) {
        Ok(size) if size.ws_col > 0 => (usize::from(size.ws_col), usize::from(size.ws_row)),
        _ => (80, 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_fills() {
        assert_eq!(bar(0, 4).chars().filter(|&cell| cell == '█').count(), 0);
        assert_eq!(bar(2, 4).chars().filter(|&cell| cell == '█').count(), BAR_CELLS / 2);
        assert_eq!(bar(4, 4).chars().filter(|&cell| cell == '█').count(), BAR_CELLS);
        assert_eq!(bar(0, 0).chars().count(), BAR_CELLS);
    }

    #[test]
    fn durations_read_well() {
        let shown: Vec<String> = [0, 42, 420, 12_345, 61_000, 7_200_000]
            .map(|millis| readable(Duration::from_millis(millis)))
            .into();
        assert_eq!(shown, ["0 ms", "42 ms", "0.42 s", "12.3 s", "61s", "2h"]);
    }

    #[test]
    fn a_run_fits_the_terminal() {
        // Given a run of thirty steps and a terminal of ten lines of fifty columns.
        let step = serde_json::json!({"status": "running", "attempts": 2, "output": null, "waiting_for": null,
            "error": null, "started_at": "2026-01-01T00:00:01Z", "finished_at": null,
            "progress": {"done": 3, "total": 10, "note": "a note that is far too long for a line"}});
        let steps: serde_json::Map<_, _> = (0..30).map(|n| (format!("/step_{n}"), step.clone())).collect();
        let run = serde_json::json!({"id": "0190d5a0-0000-7000-8000-000000000000", "workflow": "w", "version": 1,
            "status": "running", "seq": 3, "input": {}, "output": null, "error": null, "steps": steps,
            "created_at": "2026-01-01T00:00:00Z", "started_at": null, "finished_at": null});
        let run: RunView = serde_json::from_str(&run.to_string()).expect("a run");
        let live = Live { lines_drawn: 0, frame: 0, colour: false, size: (50, 10) };

        // When it is drawn.
        let lines = live.lines(&run, run.created_at.plus(Duration::from_secs(3)));

        // Then no line and no column is too many, and it says what is missing.
        assert!(lines.len() <= 8, "{lines:#?}");
        assert!(lines.iter().all(|line| line.chars().count() <= 50), "{lines:#?}");
        assert!(lines[1].contains("2.00 s  attempt 2"), "{lines:#?}");
        assert_eq!(lines.last().map(String::as_str), Some("    and 25 more steps"));
    }
}
