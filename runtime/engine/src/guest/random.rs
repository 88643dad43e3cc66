//! A guest's randomness: one ChaCha20 stream from the attempt's seed. Unpredictable to whoever does not hold the run's secret
//! seed, and the same again for the same attempt. All three of WASI's interfaces draw from it.

use chacha20::ChaCha20Rng;
use chacha20::rand_core::{Rng, SeedableRng};
use wasmtime::component::HasData;
use wasmtime_wasi::p2::bindings::random::{insecure, insecure_seed, random};

use crate::limits;

/// See the module. The generator is made at the first draw; most guests draw nothing.
#[derive(Debug)]
pub(crate) struct Randomness {
    seed: [u8; 32],
    generator: Option<Box<ChaCha20Rng>>,
}

/// Says to the linker where the randomness is.
pub(crate) struct HasRandomness;

impl HasData for HasRandomness {
    type Data<'a> = &'a mut Randomness;
}

impl Randomness {
    pub(crate) fn new(seed: [u8; 32]) -> Self {
        Self { seed, generator: None }
    }

    fn generator(&mut self) -> &mut ChaCha20Rng {
        self.generator.get_or_insert_with(|| Box::new(ChaCha20Rng::from_seed(self.seed)))
    }

    fn bytes(&mut self, len: u64) -> wasmtime::Result<Vec<u8>> {
        if len > limits::RANDOM_BYTES {
            return Err(wasmtime::format_err!(
                "{len} random bytes at once; {} are allowed",
                limits::RANDOM_BYTES
            ));
        }
        let mut bytes = vec![0; usize::try_from(len)?];
        self.generator().fill_bytes(&mut bytes);
        Ok(bytes)
    }
}

impl random::Host for Randomness {
    fn get_random_bytes(&mut self, len: u64) -> wasmtime::Result<Vec<u8>> {
        self.bytes(len)
    }

    fn get_random_u64(&mut self) -> wasmtime::Result<u64> {
        Ok(self.generator().next_u64())
    }
}

impl insecure::Host for Randomness {
    fn get_insecure_random_bytes(&mut self, len: u64) -> wasmtime::Result<Vec<u8>> {
        self.bytes(len)
    }

    fn get_insecure_random_u64(&mut self) -> wasmtime::Result<u64> {
        Ok(self.generator().next_u64())
    }
}

impl insecure_seed::Host for Randomness {
    fn insecure_seed(&mut self) -> wasmtime::Result<(u64, u64)> {
        Ok((self.generator().next_u64(), self.generator().next_u64()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stream_is_chacha20_and_stays_so() {
        // The key stream of RFC 8439's algorithm for the zero key and nonce; it must never change, or replayed attempts
        // would differ.
        let bytes = Randomness::new([0; 32]).bytes(8).expect("bytes");
        assert_eq!(bytes, [0x76, 0xb8, 0xe0, 0xad, 0xa0, 0xf1, 0x3d, 0x90]);
    }

    #[test]
    fn too_much_at_once_is_refused() {
        assert!(Randomness::new([0; 32]).bytes(limits::RANDOM_BYTES + 1).is_err());
    }
}
