//! Which samples count: those that nothing else on the machine disturbed, as far as the fixed pieces of work and the system tell.

use crate::record::Session;

/// By how much longer than usual a fixed piece of work may take. Cores that a neighbour slows down take 1.4 to 1.6 times as long, which is
/// corrected; a core that another process is at work on, several times.
pub const USUAL_TIMES: f64 = 2.0;

/// The time more than usual that threads may wait for a core, by the time of the sample.
pub const WAITED: f64 = 0.1;

/// The share of the pieces of work that were faster than the usual one: while something disturbs the machine, most are slower.
const FASTEST: f64 = 0.1;

/// Above which a sample does not count.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct QuietLimit {
    /// The times of the fixed pieces of work beside it, on one core and on all, in milliseconds.
    yardsticks_ms: [f64; 2],
    /// The time that threads waited for a core, by its own.
    waited: f64,
}

impl QuietLimit {
    /// That of sessions in which fixed pieces of work were done; `None` where there are none.
    pub fn of(sessions: &[Session]) -> Option<Self> {
        let usual = |numbers: &mut dyn Iterator<Item = f64>| {
            let mut numbers: Vec<f64> = numbers.collect();
            numbers.sort_by(f64::total_cmp);
            numbers.get((FASTEST * numbers.len() as f64) as usize).copied()
        };
        let yardsticks = || sessions.iter().flat_map(|session| &session.yardsticks_ms);
        let yardsticks_ms =
            [usual(&mut yardsticks().map(|times| times[0]))?, usual(&mut yardsticks().map(|times| times[1]))?];
        let waited = usual(&mut sessions.iter().flat_map(|session| &session.waited).copied())?;
        Some(Self { yardsticks_ms: yardsticks_ms.map(|ms| ms * USUAL_TIMES), waited: waited + WAITED })
    }

    fn admits(&self, sides: &[[f64; 2]], waited: f64) -> bool {
        let is_fast = |kind: usize| sides.iter().all(|side| side[kind] <= self.yardsticks_ms[kind]);
        is_fast(0) && is_fast(1) && waited <= self.waited
    }
}

/// What counts of a session.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Undisturbed {
    /// The time of a step in each sample, in milliseconds.
    pub step_ms: Vec<f64>,
    /// The mean time of the fixed pieces of work on both of its sides, on one core and on all; empty where there are none.
    pub yardsticks_ms: Vec<[f64; 2]>,
}

/// The samples of a session that nothing disturbed; all without a limit.
pub(super) fn undisturbed(session: &Session, limit: Option<QuietLimit>) -> Undisturbed {
    let count = session.step_ms.len();
    if session.yardsticks_ms.len() != count + 1 || session.waited.len() != count {
        return Undisturbed { step_ms: session.step_ms.clone(), yardsticks_ms: Vec::new() };
    }
    let mut found = Undisturbed::default();
    let sides = session.yardsticks_ms.windows(2);
    for ((step_ms, waited), sides) in session.step_ms.iter().zip(&session.waited).zip(sides) {
        if limit.is_none_or(|limit| limit.admits(sides, *waited)) {
            found.step_ms.push(*step_ms);
            found.yardsticks_ms.push([0, 1].map(|kind| f64::midpoint(sides[0][kind], sides[1][kind])));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session(step_ms: &[f64], yardsticks_ms: &[[f64; 2]]) -> Session {
        Session { step_ms: step_ms.to_vec(), yardsticks_ms: yardsticks_ms.to_vec(), waited: vec![0.01; step_ms.len()] }
    }

    #[test]
    fn a_sample_beside_work_that_took_several_times_as_long_does_not_count() {
        let quiet = session(&[10.0; 9], &[[3.0, 2.0]; 10]);
        let limit = QuietLimit::of(std::slice::from_ref(&quiet)).expect("pieces of work");
        // The third piece waited for a core, the last one found a slower one.
        let busy = session(
            &[1.0, 2.0, 3.0, 4.0, 5.0],
            &[[3.0, 2.0], [3.0, 2.0], [3.0, 9.0], [3.0, 2.0], [3.0, 2.0], [4.2, 2.8]],
        );
        let found = undisturbed(&busy, Some(limit));
        assert_eq!(found.step_ms, [1.0, 4.0, 5.0]);
        assert_eq!(found.yardsticks_ms, [[3.0, 2.0], [3.0, 2.0], [3.6, 2.4]]);
        assert_eq!(undisturbed(&busy, None).step_ms, busy.step_ms);
        // Threads waited for a core, though the pieces of work found it free.
        let waiting = Session { waited: vec![0.01, 0.3, 0.1], ..session(&[1.0, 2.0, 3.0], &[[3.0, 2.0]; 4]) };
        assert_eq!(undisturbed(&waiting, Some(limit)).step_ms, [1.0, 3.0]);
    }

    #[test]
    fn what_is_usual_is_that_of_the_quiet_moments() {
        let mut times = [[9.0, 9.0]; 20];
        times[..4].fill([3.0, 2.0]);
        let limit = QuietLimit::of(&[session(&[1.0; 19], &times)]);
        assert_eq!(limit, Some(QuietLimit { yardsticks_ms: [6.0, 4.0], waited: 0.01 + WAITED }));
    }

    #[test]
    fn without_pieces_of_work_every_sample_counts() {
        let on_a_gpu = session(&[1.0, 2.0], &[]);
        assert_eq!(QuietLimit::of(std::slice::from_ref(&on_a_gpu)), None);
        assert_eq!(undisturbed(&on_a_gpu, None), Undisturbed { step_ms: vec![1.0, 2.0], yardsticks_ms: vec![] });
    }
}
