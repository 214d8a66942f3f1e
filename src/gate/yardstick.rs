//! A fixed piece of work on the core that makes the steps, with nothing of gradmark's in it: where it became slower as well, the machine
//! did.

use std::hint::black_box;

/// Numbers of the part that stays in the core's own cache.
const IN_CACHE: usize = 2048;
/// Rounds over them.
const ROUNDS: usize = 6000;
/// Multiplications and additions of which each waits for the one before it.
const CHAIN: usize = 500_000;
/// Numbers that have to come from the cache that cores share, or from memory.
const STREAMED: usize = 1 << 20;

/// What is worked on.
#[derive(Debug)]
pub(super) struct Yardstick {
    in_cache: Vec<f32>,
    streamed: Vec<f32>,
}

impl Yardstick {
    pub(super) fn new() -> Self {
        Self { in_cache: vec![1.0; IN_CACHE], streamed: vec![1.0; STREAMED] }
    }

    /// Does the work once: multiplications and additions in the cache, which a neighbour on the same core slows down most, one pass over
    /// memory, and a chain of operations, which only the clock slows down.
    pub(super) fn work(&mut self) {
        for round in 0..ROUNDS {
            let shift = black_box(1e-6 * round as f32);
            for value in &mut self.in_cache {
                *value = *value * 0.999 + shift;
            }
        }
        let scale = black_box(0.999);
        for value in &mut self.streamed {
            *value = *value * scale + 1e-3;
        }
        let mut chain = black_box(1.0_f32);
        for _ in 0..CHAIN {
            chain = chain * 0.999 + 1e-3;
        }
        black_box(chain);
        black_box(&mut self.in_cache);
        black_box(&mut self.streamed);
    }
}
