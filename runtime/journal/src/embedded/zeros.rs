//! Telling what was never written from what was. By whole pages, because most of a segment is zeros.

use std::ops::Range;

const PAGE_BYTES: usize = 4096;
static ZEROS: [u8; PAGE_BYTES] = [0; PAGE_BYTES];

fn is_zero(page: &[u8]) -> bool {
    page == &ZEROS[..page.len()]
}

/// How many bytes there are up to the last one that is not zero.
pub(super) fn used(bytes: &[u8]) -> usize {
    let used_pages = bytes.chunks(PAGE_BYTES).rposition(|page| !is_zero(page));
    let Some(last) = used_pages else { return 0 };
    let start = last * PAGE_BYTES;
    let page = &bytes[start..bytes.len().min(start + PAGE_BYTES)];
    page.iter().rposition(|byte| *byte != 0).map_or(start, |last| start + last + 1)
}

/// The pages (the first one perhaps in part) from `from` on that are not all zeros, as ranges of `bytes`. They start at
/// multiples of 8 if `from` is one.
pub(super) fn pages_in_use(bytes: &[u8], from: usize) -> impl Iterator<Item = Range<usize>> {
    let from = from.min(bytes.len());
    let pages = bytes[from..].chunks(PAGE_BYTES).enumerate();
    pages.filter(|(_, page)| !is_zero(page)).map(move |(number, page)| {
        let start = from + number * PAGE_BYTES;
        start..start + page.len()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_used_byte_is_found_wherever_it_is() {
        let mut bytes = vec![0; 3 * PAGE_BYTES + 100];
        assert_eq!(used(&bytes), 0);
        for at in [0, 1, PAGE_BYTES - 1, PAGE_BYTES, 2 * PAGE_BYTES + 7, bytes.len() - 1] {
            bytes[at] = 1;
            assert_eq!(used(&bytes), at + 1);
        }
        assert_eq!(used(&[]), 0);
    }

    #[test]
    fn pages_in_use_are_those_that_hold_something() {
        let mut bytes = vec![0; 4 * PAGE_BYTES];
        bytes[8] = 1;
        bytes[2 * PAGE_BYTES] = 1;
        let all: Vec<_> = pages_in_use(&bytes, 0).collect();
        assert_eq!(all, [0..PAGE_BYTES, 2 * PAGE_BYTES..3 * PAGE_BYTES]);
        let later: Vec<_> = pages_in_use(&bytes, 16).collect();
        assert_eq!(later.len(), 1);
        assert_eq!(later[0], PAGE_BYTES + 16..2 * PAGE_BYTES + 16);
    }
}
