//! One stream of random numbers for each purpose of a seed, so that drawing more for one purpose changes no
//! other. The numbers are drawn on the host and are the same on every device and machine.

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use sha2::{Digest, Sha256};

/// The stream of a seed for a purpose such as `batches.3` or `hidden.0.weight`.
pub fn stream(seed: u64, purpose: &str) -> ChaCha8Rng {
    let mut hash = Sha256::new();
    hash.update(seed.to_le_bytes());
    hash.update(purpose.as_bytes());
    ChaCha8Rng::from_seed(hash.finalize().into())
}

#[cfg(test)]
mod tests {
    use rand::Rng;

    use super::*;

    #[test]
    fn seeds_and_purposes_give_different_streams_and_the_same_ones_the_same() {
        let first = |seed, purpose: &str| stream(seed, purpose).next_u64();
        assert_eq!(first(1, "a"), first(1, "a"));
        assert_ne!(first(1, "a"), first(2, "a"));
        assert_ne!(first(1, "a"), first(1, "b"));
    }
}
