//! The words for damage: what is wrong, where, and what an operator can do about it.

use std::path::{Path, PathBuf};

use crate::error::JournalError;

/// Something that was durable is lost or changed.
pub(crate) fn durable(file: &Path, offset: u64, why: &str) -> JournalError {
    JournalError::Damaged {
        file: file.to_owned(),
        offset,
        why: why.into(),
        remedy: format!(
            "Nothing was changed. Check the disk and restore the data directory from a backup; or, to go on without \
             everything after this place, cut the file (truncate -s {offset} {file}), and remove the later segments and \
             the file `mark`",
            file = file.display()
        ),
    }
}

/// Something whole stands where it cannot belong.
pub(crate) fn nonsense(file: &Path, offset: u64, why: &str) -> JournalError {
    JournalError::Damaged {
        file: file.to_owned(),
        offset,
        why: why.into(),
        remedy: "Nothing was changed. Files of this data directory are missing or mixed with others: restore it whole from \
                 a backup"
            .into(),
    }
}

/// A segment is not there.
pub(crate) fn missing(file: PathBuf) -> JournalError {
    JournalError::Damaged {
        file,
        offset: 0,
        why: "this segment of the log is missing".into(),
        remedy: "Nothing was changed. Put it back, or restore the data directory whole from a backup".into(),
    }
}
