//! Fixed pieces of work, on the core that makes the steps and on as many as the steps use, with nothing of gradmark's in them: where they
//! became slower as well, the machine did.

use std::hint::{black_box, spin_loop};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use super::cores::Cores;

/// Numbers of the part that stays in the core's own cache.
const IN_CACHE: usize = 2048;
/// Rounds over them.
const ROUNDS: usize = 6000;
/// Multiplications and additions of which each waits for the one before it.
const CHAIN: usize = 500_000;
/// Numbers that have to come from the cache that cores share, or from memory.
const STREAMED: usize = 1 << 20;
/// How often threads wait for each other, each time after [`ROUNDS_TO_A_MEETING`] rounds, some 10 microseconds.
const MEETINGS: usize = 400;
/// Rounds over a thread's own numbers from one meeting to the next.
const ROUNDS_TO_A_MEETING: usize = 30;
/// Looks for the others before a thread offers its core to them.
const LOOKS: usize = 1000;

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
        arithmetic(&mut self.in_cache, ROUNDS);
        let scale = black_box(0.999);
        for value in &mut self.streamed {
            *value = *value * scale + 1e-3;
        }
        let mut chain = black_box(1.0_f32);
        for _ in 0..CHAIN {
            chain = chain * 0.999 + 1e-3;
        }
        black_box(chain);
        black_box(&mut self.streamed);
    }
}

/// Multiplications and additions in a core's own cache.
fn arithmetic(numbers: &mut [f32], rounds: usize) {
    for round in 0..rounds {
        let shift = black_box(1e-6 * round as f32);
        for number in &mut *numbers {
            *number = *number * 0.999 + shift;
        }
    }
    black_box(numbers);
}

/// Work in which so many threads wait for each other again and again, as those of a step do: it is as slow as the slowest of their cores.
/// This thread is on `core`, and the others on those that follow. `time` does what it is given and times it.
pub(super) fn work_together<R>(threads: usize, cores: &Cores, core: usize, time: impl FnOnce(&dyn Fn()) -> R) -> R {
    let arrived = AtomicUsize::new(0);
    let meet = &|meeting: usize| {
        arrived.fetch_add(1, Ordering::AcqRel);
        let mut looks = 0;
        while arrived.load(Ordering::Acquire) < meeting * threads {
            looks += 1;
            if looks < LOOKS { spin_loop() } else { thread::yield_now() }
        }
    };
    let work = &|| {
        let mut numbers = vec![1.0; IN_CACHE];
        for meeting in 2..2 + MEETINGS {
            arithmetic(&mut numbers, ROUNDS_TO_A_MEETING);
            meet(meeting);
        }
    };
    thread::scope(|scope| {
        for number in 1..threads {
            scope.spawn(move || {
                // Two on one core would take turns there.
                cores.stay_on(core + number);
                meet(1);
                work();
            });
        }
        // All are there before the time begins.
        meet(1);
        time(work)
    })
}
