//! Numbers that only look random: splitmix64 (Steele, Lea, Flood 2014).

use reipaz_core::failure::ErrorClass;

/// A stream of them.
pub struct Random(u64);

impl Random {
    /// The same stream for the same seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    #[allow(clippy::should_implement_trait, reason = "it has no end")]
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// Below `bound`; 0 if that is 0.
    pub fn below(&mut self, bound: usize) -> usize {
        if bound == 0 { 0 } else { (self.next() % bound as u64) as usize }
    }

    /// So many times in a hundred.
    pub fn percent(&mut self, chance: usize) -> bool {
        self.below(100) < chance
    }

    /// Any of them; there must be one.
    pub fn one_of<T: Clone>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())].clone()
    }

    /// How an attempt may fail: mostly so that it is tried again.
    pub fn class(&mut self) -> ErrorClass {
        use ErrorClass::{
            Cancelled, Denied, Network, Permanent, RateLimited, Resource, Timeout, Transient, Trap,
        };
        if self.percent(70) {
            self.one_of(&[Network, Timeout, Transient, RateLimited])
        } else {
            self.one_of(&[Permanent, Resource, Trap, Denied, Cancelled])
        }
    }
}
