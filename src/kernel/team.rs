//! A team of threads for pieces of work of a few microseconds.
//!
//! A layer of 128 units has products of 20 to 40 microseconds, and five pieces of work a step. A pool whose threads go to sleep in
//! between spends as much time on waking them. Here they watch for the next piece for a while before they sleep, and a piece
//! that they come too late for is done without them.
//!
//! There is one team in a process. Whoever finds it at work does the work alone: runs that are made side by side have a core each
//! anyway. What is computed never depends on who computes it.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, TryLockError};
use std::thread::{self, Thread};

/// Looks for new work before a thread goes to sleep: about half a millisecond.
const LOOKS: usize = 10_000;

/// Looks for the end of the others' work before the thread offers its core to others.
const LOOKS_AT_THE_END: usize = 1000;

/// Does `work` on every item, on as many threads as there are, and returns when all is done.
///
/// Each thread begins with a share of its own, the same whenever there are as many items, and then takes what is left of the others':
/// what it has written is in its core's cache when it reads it in the next piece of work.
pub fn each<T: Send>(items: Vec<T>, work: impl Fn(T) + Sync) {
    let count = items.len();
    let threads = threads();
    if count < 2 || threads < 2 {
        items.into_iter().for_each(work);
        return;
    }
    let slots: Vec<Mutex<Option<T>>> = items.into_iter().map(|item| Mutex::new(Some(item))).collect();
    team().run(&|thread| {
        let first = count * thread / threads;
        for slot in slots.iter().cycle().skip(first).take(count) {
            let item = slot.lock().unwrap_or_else(PoisonError::into_inner).take();
            if let Some(item) = item {
                work(item);
            }
        }
    });
}

/// The same on this thread alone, where there is too little to do for several.
pub fn each_unless<T: Send>(is_little: bool, items: Vec<T>, work: impl Fn(T) + Sync) {
    if is_little { items.into_iter().for_each(work) } else { each(items, work) }
}

/// The threads of the team, with the one that calls it: as many as rayon has, and not more than there are cores.
pub fn threads() -> usize {
    static THREADS: OnceLock<usize> = OnceLock::new();
    *THREADS.get_or_init(|| {
        let cores = thread::available_parallelism().map_or(1, usize::from);
        rayon::current_num_threads().min(cores)
    })
}

fn team() -> &'static Team {
    static TEAM: OnceLock<Team> = OnceLock::new();
    TEAM.get_or_init(|| Team::new(threads() - 1))
}

struct Team {
    /// Held by whoever the team works for.
    leader: Mutex<()>,
    board: Arc<Board>,
    helpers: Vec<Helper>,
}

struct Helper {
    thread: Thread,
    sleeps: Arc<AtomicBool>,
}

/// What leader and helpers see of each other.
struct Board {
    /// The number of the piece of work, whether it is open, and how many helpers have entered it.
    state: AtomicU64,
    /// Helpers that have left it.
    left: AtomicUsize,
    work: Mutex<Option<Work>>,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

/// The last bits of [`Board::state`] count helpers.
const OPEN: u64 = 1 << 16;
const NEXT: u64 = 1 << 17;
const ENTERED: u64 = OPEN - 1;

/// A piece of work that lives for as long as the leader waits for it.
#[derive(Clone, Copy)]
struct Work(&'static (dyn Fn(usize) + Sync));

impl Team {
    fn new(helpers: usize) -> Self {
        let board = Arc::new(Board {
            state: AtomicU64::new(0),
            left: AtomicUsize::new(0),
            work: Mutex::new(None),
            panic: Mutex::new(None),
        });
        let helper = |number| {
            let sleeps = Arc::new(AtomicBool::new(false));
            let (board, flag) = (board.clone(), sleeps.clone());
            let started =
                thread::Builder::new().name(format!("team {number}")).spawn(move || help(number, &board, &flag));
            // A machine that has no more threads to give works with those there are.
            started.ok().map(|handle| Helper { thread: handle.thread().clone(), sleeps })
        };
        let helpers = (1..=helpers).filter_map(helper).collect();
        Self { leader: Mutex::new(()), board, helpers }
    }

    /// Calls `work` with the number 0 on this thread, and with theirs on all helpers that come before it is done.
    fn run(&self, work: &(dyn Fn(usize) + Sync)) {
        let _leads = match self.leader.try_lock() {
            Ok(guard) => guard,
            Err(TryLockError::Poisoned(guard)) => guard.into_inner(),
            Err(TryLockError::WouldBlock) => return work(0),
        };
        let board = &*self.board;
        // SAFETY: only the lifetime is changed. The reference is used by helpers that have entered this piece of work, and
        // `Closing` lets nobody enter any more and waits for those who have, also when `work` panics, before this function returns.
        #[allow(unsafe_code)]
        let lasting: &'static (dyn Fn(usize) + Sync) = unsafe { std::mem::transmute(work) };
        *board.work.lock().unwrap_or_else(PoisonError::into_inner) = Some(Work(lasting));
        // A panic of a helper is lost where the leader had one of its own.
        *board.panic.lock().unwrap_or_else(PoisonError::into_inner) = None;
        board.left.store(0, Ordering::Relaxed);
        let number = board.state.load(Ordering::Relaxed) & !(NEXT - 1);
        board.state.store(number + NEXT + OPEN, Ordering::SeqCst);
        let closing = Closing(board);
        for helper in &self.helpers {
            if helper.sleeps.load(Ordering::SeqCst) {
                helper.thread.unpark();
            }
        }
        work(0);
        drop(closing);
        let panic = board.panic.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(panic) = panic {
            resume_unwind(panic);
        }
    }
}

/// Closes a piece of work and waits for the helpers that are in it.
struct Closing<'a>(&'a Board);

impl Drop for Closing<'_> {
    fn drop(&mut self) {
        let entered = (self.0.state.fetch_and(!OPEN, Ordering::AcqRel) & ENTERED) as usize;
        let mut looks = 0;
        while self.0.left.load(Ordering::Acquire) < entered {
            looks += 1;
            if looks < LOOKS_AT_THE_END { std::hint::spin_loop() } else { thread::yield_now() }
        }
    }
}

/// What a helper does all its life.
fn help(thread: usize, board: &Board, sleeps: &AtomicBool) {
    let mut done = 0;
    loop {
        let number = wait_for_work(board, done, sleeps);
        // Entered, unless it has been closed in the meantime.
        let enter = |state: u64| (state & OPEN != 0 && state / NEXT == number).then_some(state + 1);
        if board.state.fetch_update(Ordering::AcqRel, Ordering::Relaxed, enter).is_ok() {
            let work = *board.work.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(Work(work)) = work
                && let Err(panic) = catch_unwind(AssertUnwindSafe(|| work(thread)))
            {
                *board.panic.lock().unwrap_or_else(PoisonError::into_inner) = Some(panic);
            }
            board.left.fetch_add(1, Ordering::Release);
        }
        done = number;
    }
}

/// Waits until there is other work than the last, and returns its number.
fn wait_for_work(board: &Board, done: u64, sleeps: &AtomicBool) -> u64 {
    let new_work = || {
        let state = board.state.load(Ordering::SeqCst);
        (state & OPEN != 0 && state / NEXT != done).then_some(state / NEXT)
    };
    loop {
        for _ in 0..LOOKS {
            if let Some(number) = new_work() {
                return number;
            }
            std::hint::spin_loop();
        }
        sleeps.store(true, Ordering::SeqCst);
        // Once more: the leader may have looked before it could see who sleeps.
        if new_work().is_none() {
            thread::park();
        }
        sleeps.store(false, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_item_is_done_once_however_often_the_team_is_called() {
        for round in 0..3000 {
            let count = round % 17;
            let done: Vec<AtomicUsize> = (0..count).map(|_| AtomicUsize::new(0)).collect();
            each((0..count).collect(), |item: usize| {
                done[item].fetch_add(1, Ordering::Relaxed);
            });
            assert!(done.iter().all(|count| count.load(Ordering::Relaxed) == 1));
        }
    }

    #[test]
    fn items_may_borrow_what_they_write_to() {
        let mut numbers = vec![0_usize; 1000];
        each(numbers.chunks_mut(7).enumerate().collect(), |(piece, numbers)| {
            numbers.iter_mut().enumerate().for_each(|(place, number)| *number = 7 * piece + place);
        });
        assert_eq!(numbers, (0..1000).collect::<Vec<_>>());
    }

    #[test]
    fn leaders_that_come_at_once_and_leaders_within_a_piece_of_work_are_served() {
        let total = AtomicUsize::new(0);
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..200 {
                        each(vec![1, 2, 3], |outer| {
                            each(vec![outer; 3], |inner| {
                                total.fetch_add(inner, Ordering::Relaxed);
                            });
                        });
                    }
                });
            }
        });
        assert_eq!(total.into_inner(), 4 * 200 * 18);
    }

    #[test]
    fn a_panic_of_any_thread_reaches_the_leader_and_the_team_works_on() {
        for _ in 0..50 {
            let outcome = catch_unwind(|| each((0..8).collect(), |item: usize| assert!(item < 7, "the last one")));
            assert!(outcome.is_err());
            let count = AtomicUsize::new(0);
            each(vec![1, 2, 3], |number| {
                count.fetch_add(number, Ordering::Relaxed);
            });
            assert_eq!(count.into_inner(), 6);
        }
    }
}
