//! How an event stands in the journal: one format byte, then CBOR with numbered fields.
//!
//! The format byte changes only when old code could misread new events; a field or fact added under a new number does
//! not change it, and old code skips a field it does not know but refuses a fact it does not know. Rolling upgrades
//! therefore write new facts only once every host reads them.

use crate::event::{Event, FORMAT};

/// Why bytes are no event.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Nothing at all.
    #[error("an empty record is no event: the journal is damaged here; restore its files from a copy")]
    Empty,
    /// A format that this program does not know.
    #[error(
        "the event has format {found} and this program reads format {FORMAT}: start a release that reads it, usually \
         the newest one that wrote to this journal"
    )]
    Format {
        /// The record's first byte.
        found: u8,
    },
    /// Right format, unreadable content.
    #[error(
        "the event cannot be read ({0}): if a newer release wrote to this journal, start that one; otherwise the record \
         was damaged before it was written, and its files must be restored from a copy"
    )]
    Content(String),
}

/// An event as a journal record.
pub fn encode(event: &Event) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(192);
    bytes.push(FORMAT);
    minicbor::encode(event, &mut bytes).expect("writing to a Vec cannot fail");
    bytes
}

/// A journal record as an event.
pub fn decode(bytes: &[u8]) -> Result<Event, DecodeError> {
    let (&format, content) = bytes.split_first().ok_or(DecodeError::Empty)?;
    if format != FORMAT {
        return Err(DecodeError::Format { found: format });
    }
    let mut decoder = minicbor::Decoder::new(content);
    let event = decoder.decode().map_err(|error| DecodeError::Content(error.to_string()))?;
    match content.len() - decoder.position() {
        0 => Ok(event),
        rest => Err(DecodeError::Content(format!("{rest} bytes follow its end"))),
    }
}
