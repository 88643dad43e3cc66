//! Page cursors: opaque outside, a position in the order of the list inside. The text is hexadecimal, so that it needs
//! no escaping in a URL, and starts with a format digit, so that its content may change.

use reipaz_core::{ids::RunId, time::Timestamp};

use crate::facade::{LogPosition, RunPosition};

/// The cursor that continues after a run.
pub(super) fn of_run(position: RunPosition) -> String {
    format!("1{:016x}{:032x}", position.created_at.0, position.id.0.as_u128())
}

/// Reads what [`of_run`] wrote.
pub(super) fn run(text: &str) -> Option<RunPosition> {
    let text = text.strip_prefix('1').filter(|text| text.len() == 48 && text.is_ascii())?;
    let (time, id) = text.split_at(16);
    Some(RunPosition {
        created_at: Timestamp(u64::from_str_radix(time, 16).ok()?),
        id: RunId(uuid::Uuid::from_u128(u128::from_str_radix(id, 16).ok()?)),
    })
}

/// `SEQ.INDEX`, the place of a log line.
pub(super) fn of_log(position: LogPosition) -> String {
    format!("{}.{}", position.seq, position.index)
}

/// Reads what [`of_log`] wrote.
pub(super) fn log(text: &str) -> Option<LogPosition> {
    let (seq, index) = text.split_once('.')?;
    Some(LogPosition { seq: seq.parse().ok()?, index: index.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_comes_back_as_it_went() {
        let position = RunPosition {
            created_at: Timestamp(1_700_000_000_123_456),
            id: RunId::from_key("", "orders", "k"),
        };
        assert_eq!(run(&of_run(position)), Some(position));
        let position = LogPosition { seq: 17, index: 3 };
        assert_eq!(log(&of_log(position)), Some(position));
    }

    #[test]
    fn anything_else_is_refused() {
        for text in
            ["", "1", "2", "1zz", &"1".repeat(48), &"1".repeat(50), "1ééééééééééééééééééééééééééééééé"]
        {
            assert_eq!(run(text), None, "{text:?}");
        }
        for text in ["", "1", ".", "1.", ".1", "-1.2", "1.2.3"] {
            assert_eq!(log(text), None, "{text:?}");
        }
    }
}
