//! On which core the thread stays that makes the steps. Cores are not alike: on one of them a neighbour is at work, and a process
//! that happens to be there is slower, from its beginning to its end. Processes that are compared measure on the same core.

/// The cores that this thread may use.
#[derive(Debug)]
pub(super) struct Cores {
    #[cfg(target_os = "linux")]
    all: Option<rustix::thread::CpuSet>,
}

#[cfg(target_os = "linux")]
impl Cores {
    pub(super) fn of_this_thread() -> Self {
        Self { all: rustix::thread::sched_getaffinity(None).ok() }
    }

    /// Keeps this thread on one core, and not those that it has started. Where that is not possible it goes on as before.
    pub(super) fn stay_on(&self, core: usize) {
        use rustix::thread::CpuSet;

        let Some(all) = &self.all else {
            return;
        };
        let usable: Vec<usize> = (0..CpuSet::MAX_CPU).filter(|core| all.is_set(*core)).collect();
        if let Some(chosen) = usable.get(core % usable.len().max(1)) {
            let mut only = CpuSet::new();
            only.set(*chosen);
            let _ = rustix::thread::sched_setaffinity(None, &only);
        }
    }

    /// Lets this thread, and those that it starts, use all of them again.
    pub(super) fn leave(&self) {
        if let Some(all) = &self.all {
            let _ = rustix::thread::sched_setaffinity(None, all);
        }
    }
}

/// Other systems choose by themselves.
#[cfg(not(target_os = "linux"))]
#[allow(clippy::unused_self)]
impl Cores {
    pub(super) fn of_this_thread() -> Self {
        Self {}
    }

    pub(super) fn stay_on(&self, _core: usize) {}

    pub(super) fn leave(&self) {}
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn a_thread_stays_on_one_core_until_it_leaves_it() {
        let count = || rustix::thread::sched_getaffinity(None).expect("a mask").count();
        let (cores, before) = (Cores::of_this_thread(), count());
        cores.stay_on(before as usize + 3);
        let during = count();
        cores.leave();
        assert_eq!((during, count()), (1, before));
    }
}
