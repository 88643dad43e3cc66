//! What a guest may take of memory and tables, and what it took.
//!
//! A guest that gets no more memory usually traps with `unreachable`, which says nothing; that is why the refusal is
//! remembered here, and why the verdict asks here first.

use wasmtime::ResourceLimiter;

use crate::limits;

/// Which limit a guest ran into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    Memory,
    Table,
}

/// Counts over all memories and tables of one attempt.
#[derive(Debug)]
pub(crate) struct Limiter {
    memory_limit_bytes: usize,
    memory_bytes: usize,
    memory_peak_bytes: usize,
    table_elements: usize,
    refused: Option<Refused>,
}

impl Limiter {
    pub(crate) fn new(memory_limit_bytes: usize) -> Self {
        Self { memory_limit_bytes, memory_bytes: 0, memory_peak_bytes: 0, table_elements: 0, refused: None }
    }

    pub(crate) fn refused(&self) -> Option<Refused> {
        self.refused
    }

    pub(crate) fn peak_bytes(&self) -> u64 {
        (self.memory_peak_bytes + self.table_elements * size_of::<usize>()) as u64
    }
}

impl ResourceLimiter for Limiter {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let grown = self.memory_bytes + desired.saturating_sub(current);
        if grown > self.memory_limit_bytes || desired > limits::MEMORY_BYTES {
            self.refused = Some(Refused::Memory);
            return Ok(false);
        }
        self.memory_bytes = grown;
        self.memory_peak_bytes = self.memory_peak_bytes.max(grown);
        Ok(true)
    }

    fn table_growing(
        &mut self,
        current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        if desired > limits::TABLE_ELEMENTS {
            self.refused = Some(Refused::Table);
            return Ok(false);
        }
        self.table_elements += desired.saturating_sub(current);
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memories_count_together_and_a_refusal_is_remembered() {
        let mut limiter = Limiter::new(100);
        assert!(limiter.memory_growing(0, 60, None).expect("an answer"));
        assert!(limiter.memory_growing(0, 40, None).expect("an answer"));
        assert_eq!(limiter.refused(), None);
        assert!(!limiter.memory_growing(40, 41, None).expect("an answer"));
        assert_eq!(limiter.refused(), Some(Refused::Memory));
        assert_eq!(limiter.peak_bytes(), 100);
    }
}
