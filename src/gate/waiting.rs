//! How long threads of this process wait for a core that something else is at work on. Linux alone tells.

/// The milliseconds that all threads of this process have waited for a core in their lives; 0 where the system does not tell.
#[cfg(target_os = "linux")]
pub(super) fn waited_ms() -> f64 {
    // The time on a core, the time of waiting for one, both in nanoseconds, and how often it got one.
    let waited_ns = |text: String| text.split_whitespace().nth(1).and_then(|waited| waited.parse::<u64>().ok());
    let threads = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let texts = threads.filter_map(|thread| std::fs::read_to_string(thread.path().join("schedstat")).ok());
    texts.filter_map(waited_ns).sum::<u64>() as f64 / 1e6
}

/// The same of other systems.
#[cfg(not(target_os = "linux"))]
pub(super) fn waited_ms() -> f64 {
    0.0
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::hint::spin_loop;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::thread;
    use std::time::Duration;

    use super::super::cores::Cores;
    use super::*;

    #[test]
    fn threads_that_share_a_core_wait_for_it() {
        let (cores, is_over) = (Cores::of_this_thread(), AtomicBool::new(false));
        let work = || {
            cores.stay_on(0);
            while !is_over.load(Ordering::Relaxed) {
                spin_loop();
            }
        };
        let before = waited_ms();
        let after = thread::scope(|scope| {
            scope.spawn(work);
            scope.spawn(work);
            thread::sleep(Duration::from_millis(60));
            let now = waited_ms();
            is_over.store(true, Ordering::Relaxed);
            now
        });
        // Kernels without this statistic say nothing.
        let is_told = std::path::Path::new("/proc/self/schedstat").exists();
        assert!(!is_told || after - before > 10.0, "{} ms", after - before);
    }
}
