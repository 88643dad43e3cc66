//! What a guest says while it runs: log lines, captured standard output and error, progress. Bounded; shared by the guest's
//! store, which writes, and the attempt's driver, which reports and closes.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;

use crate::attempt::{Level, LogLine, Progress, Report};
use crate::guest::clock::Clock;
use crate::limits;

/// What a line takes beside its text, so that empty lines are bounded as well.
const LINE_OVERHEAD_BYTES: usize = 16;

/// What a line of captured output takes beside its text: its own overhead and that of the field that names its stream.
const OUTPUT_OVERHEAD_BYTES: usize = 2 * LINE_OVERHEAD_BYTES + "stream".len() + "stdout".len();

/// A stream of bytes that becomes lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stream {
    Out,
    Err,
}

impl Stream {
    fn level(self) -> Level {
        match self {
            Self::Out => Level::Info,
            Self::Err => Level::Warn,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Out => "stdout",
            Self::Err => "stderr",
        }
    }
}

/// See the module.
#[derive(Clone, Debug)]
pub(crate) struct Notebook {
    pages: Arc<Mutex<Pages>>,
    clock: Clock,
}

#[derive(Debug)]
struct Pages {
    lines: Vec<LogLine>,
    progress: Option<Progress>,
    /// When progress was last told; the beginning, if never.
    beat: Instant,
    left_bytes: usize,
    dropped_bytes: u64,
    /// What has come of a line that has not ended, for each stream.
    begun: [Vec<u8>; 2],
}

impl Notebook {
    pub(crate) fn new(log_bytes: usize, clock: Clock) -> Self {
        let pages = Pages {
            lines: Vec::new(),
            progress: None,
            beat: Instant::now(),
            left_bytes: log_bytes,
            dropped_bytes: 0,
            begun: [Vec::new(), Vec::new()],
        };
        Self { pages: Arc::new(Mutex::new(pages)), clock }
    }

    /// Writes a line, if there is room for it.
    pub(crate) fn log(&self, level: Level, message: String, fields: Vec<(String, String)>) {
        self.pages().write(&self.clock, level, message, fields);
    }

    /// Takes output; each line of it becomes a line of the log.
    pub(crate) fn print(&self, stream: Stream, bytes: &[u8]) {
        let mut pages = self.pages();
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            pages.print(&self.clock, stream, piece);
        }
    }

    /// Remembers the latest progress.
    pub(crate) fn progress(&self, progress: Progress) {
        let mut pages = self.pages();
        (pages.progress, pages.beat) = (Some(progress), Instant::now());
    }

    /// When progress was last told; when this was opened, if never.
    pub(crate) fn last_beat(&self) -> Instant {
        self.pages().beat
    }

    /// What is new since the last report, if anything.
    pub(crate) fn report(&self) -> Option<Report> {
        let mut pages = self.pages();
        if pages.progress.is_none() && pages.lines.is_empty() {
            return None;
        }
        Some(Report { progress: pages.progress.take(), logs: std::mem::take(&mut pages.lines) })
    }

    /// Puts back what could not be delivered.
    pub(crate) fn put_back(&self, report: Report) {
        let mut pages = self.pages();
        let newer = std::mem::replace(&mut pages.lines, report.logs);
        pages.lines.extend(newer);
        pages.progress = pages.progress.take().or(report.progress);
    }

    /// The lines that nobody has got yet, begun ones ended, and how many bytes were dropped.
    pub(crate) fn close(&self) -> (Vec<LogLine>, u64) {
        let mut pages = self.pages();
        for stream in [Stream::Out, Stream::Err] {
            if !pages.begun[stream as usize].is_empty() {
                pages.end_line(&self.clock, stream);
            }
        }
        (std::mem::take(&mut pages.lines), pages.dropped_bytes)
    }

    fn pages(&self) -> MutexGuard<'_, Pages> {
        self.pages.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pages {
    fn write(&mut self, clock: &Clock, level: Level, message: String, fields: Vec<(String, String)>) {
        let text = message.len() + fields.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>();
        let cost = text + LINE_OVERHEAD_BYTES * (1 + fields.len());
        if cost > self.left_bytes {
            // Nothing shorter gets in after this either: a log with holes in it misleads.
            self.left_bytes = 0;
            self.dropped_bytes += text as u64;
            return;
        }
        self.left_bytes -= cost;
        self.lines.push(LogLine { at_us: clock.real_us(), level, message, fields });
    }

    fn print(&mut self, clock: &Clock, stream: Stream, piece: &[u8]) {
        let begun = self.begun[stream as usize].len();
        let room = self.left_bytes.saturating_sub(begun + OUTPUT_OVERHEAD_BYTES);
        let kept = piece.len().min(room);
        self.dropped_bytes += (piece.len() - kept) as u64;
        self.begun[stream as usize].extend_from_slice(&piece[..kept]);
        if piece.ends_with(b"\n") && !self.begun[stream as usize].is_empty() {
            self.end_line(clock, stream);
        }
    }

    fn end_line(&mut self, clock: &Clock, stream: Stream) {
        let bytes = std::mem::take(&mut self.begun[stream as usize]);
        let text = String::from_utf8_lossy(&bytes);
        let text = text.trim_end_matches(['\n', '\r']);
        let fields = vec![("stream".to_owned(), stream.name().to_owned())];
        self.write(clock, stream.level(), text.to_owned(), fields);
    }
}

/// Cuts a text at a character's boundary.
pub(crate) fn cut(mut text: String, max_bytes: usize) -> String {
    if text.len() > max_bytes {
        text.truncate(text.floor_char_boundary(max_bytes));
    }
    text
}

/// A progress note within its bound.
pub(crate) fn note(text: String) -> String {
    cut(text, limits::NOTE_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn messages(lines: &[LogLine]) -> Vec<&str> {
        lines.iter().map(|line| line.message.as_str()).collect()
    }

    #[test]
    fn output_becomes_lines_however_it_is_cut() {
        let notebook = Notebook::new(1_000, Clock::new(0));
        notebook.print(Stream::Out, b"one\ntw");
        notebook.print(Stream::Err, b"oops\n");
        notebook.print(Stream::Out, b"o\nthr");
        notebook.print(Stream::Out, b"ee");
        let (lines, dropped) = notebook.close();
        assert_eq!(messages(&lines), ["one", "oops", "two", "three"]);
        assert_eq!(lines[1].level, Level::Warn);
        assert_eq!(dropped, 0);
    }

    #[test]
    fn a_flood_is_cut_and_counted() {
        let notebook = Notebook::new(1_000, Clock::new(0));
        for _ in 0..1_000 {
            notebook.log(Level::Info, "x".repeat(84), Vec::new());
        }
        for _ in 0..1_000 {
            notebook.print(Stream::Out, &[b'y'; 1_000]);
        }
        let (lines, dropped) = notebook.close();
        assert_eq!(lines.len(), 10);
        assert_eq!(dropped, 990 * 84 + 1_000_000);
    }

    #[test]
    fn a_line_that_is_too_long_is_cut() {
        let notebook = Notebook::new(1_000, Clock::new(0));
        notebook.print(Stream::Err, &[b'z'; 5_000]);
        let (lines, dropped) = notebook.close();
        assert_eq!(lines[0].message.len(), 1_000 - OUTPUT_OVERHEAD_BYTES);
        assert_eq!(dropped, 4_000 + OUTPUT_OVERHEAD_BYTES as u64);
    }

    #[test]
    fn a_report_takes_what_is_new_and_can_be_put_back() {
        let notebook = Notebook::new(1_000, Clock::new(0));
        assert_eq!(notebook.report(), None);
        notebook.log(Level::Info, "a".into(), Vec::new());
        notebook.progress(Progress { done: 1, total: None, note: String::new() });
        let report = notebook.report().expect("something new");
        assert_eq!(notebook.report(), None);
        notebook.log(Level::Info, "b".into(), Vec::new());
        notebook.put_back(report);
        let report = notebook.report().expect("both");
        assert_eq!(messages(&report.logs), ["a", "b"]);
        assert!(report.progress.is_some());
    }

    #[test]
    fn text_is_cut_between_characters() {
        assert_eq!(cut("añb".into(), 2), "a");
        assert_eq!(cut("añb".into(), 3), "añ");
    }
}
