//! Attempt after attempt, until it is clear of every configuration whether its speed changed.

use crate::analysis::{
    Attempt, Decision, TimeRatio, decide, level, median, noise_floor, ratio_of_rounds, ratio_of_sessions,
};
use crate::record::{BaselineConfiguration, Session};
use crate::schema::{Against, Verdict};

use super::quiet::{Undisturbed, undisturbed};
use super::{PairLevels, QuietLimit};

/// One configuration beside one baseline.
#[derive(Clone, Debug, PartialEq)]
pub struct Trial {
    /// The place of the configuration.
    pub place: usize,
    /// What it is compared with.
    pub against: Against,
    /// The attempts so far.
    pub attempts: Vec<Attempt>,
}

impl Trial {
    /// One without attempts.
    pub fn new(place: usize, against: Against) -> Self {
        Self { place, against, attempts: Vec::new() }
    }

    /// What the attempts say.
    pub fn verdict(&self, threshold: f64) -> Verdict {
        match decide(&self.attempts, threshold) {
            Decision::Regression => Verdict::Regression,
            Decision::Improvement => Verdict::Improvement,
            Decision::NoChange => Verdict::Pass,
            Decision::Open => Verdict::Unconfirmed,
        }
    }

    fn is_open(&self, threshold: f64) -> bool {
        decide(&self.attempts, threshold) == Decision::Open
    }
}

/// Measures until every trial is decided. `measure` gets the number of the attempt, from 0, and the trials that are open, and adds an
/// attempt to each; it returns false if nothing can be measured again.
///
/// # Errors
///
/// Those of `measure`.
pub fn decide_all<E>(
    trials: &mut [Trial],
    threshold: f64,
    mut measure: impl FnMut(usize, &mut [&mut Trial]) -> Result<bool, E>,
) -> Result<(), E> {
    for attempt in 0.. {
        let mut open: Vec<&mut Trial> = trials.iter_mut().filter(|trial| trial.is_open(threshold)).collect();
        if open.is_empty() || !measure(attempt, &mut open)? {
            break;
        }
    }
    Ok(())
}

/// What too few samples make impossible: the sessions or rounds that count, and how many are needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{found} of its {what} can be used, and at least {needed} are needed")]
pub struct TooFew {
    /// Sessions or rounds.
    pub what: &'static str,
    /// Those that have enough samples.
    pub found: usize,
    /// Those that are needed.
    pub needed: usize,
}

/// Sessions beside those of a baseline, of which the samples count that nothing disturbed. With `is_same_work` the fixed pieces of work
/// are those of the baseline, and tell what the machine itself did meanwhile; else they only tell what is usual.
///
/// # Errors
///
/// If fewer than [`crate::analysis::MINIMUM_SESSIONS`] sessions of the baseline have enough samples that count, or none now.
pub fn attempt_of_sessions(
    baseline: &BaselineConfiguration,
    now: &[Session],
    (limit, is_same_work): (Option<QuietLimit>, bool),
) -> Result<Attempt, TooFew> {
    let needed = crate::analysis::MINIMUM_SESSIONS;
    let limit_now = if is_same_work { limit } else { QuietLimit::of(now) };
    let (before, after) = (Levels::of(&baseline.sessions, limit), Levels::of(now, limit_now));
    if before.count() < needed {
        return Err(TooFew { what: "sessions in the baseline", found: before.count(), needed });
    }
    // Of criterion there is one session, which has no pieces of work.
    let too_few =
        TooFew { what: "sessions", found: after.count(), needed: if limit_now.is_some() { needed } else { 1 } };
    if after.count() < too_few.needed {
        return Err(too_few);
    }
    let ratio = ratio_of_sessions(&before.measured, &after.measured).ok_or(too_few)?;
    let both = before.corrected.as_ref().zip(after.corrected.as_ref()).filter(|_| is_same_work);
    let corrected = both.and_then(|([alone, together], [alone_now, together_now])| {
        Some([ratio_of_sessions(alone, alone_now)?, ratio_of_sessions(together, together_now)?])
    });
    let noise_floor = baseline.noise_floor.ok_or(too_few)?;
    Ok(Attempt { ratio, corrected, noise_floor })
}

/// The levels of the sessions that have enough samples which count.
struct Levels {
    measured: Vec<f64>,
    /// After division by the times of the fixed pieces of work on one core and on all, if they were done.
    corrected: Option<[Vec<f64>; 2]>,
}

impl Levels {
    fn of(sessions: &[Session], limit: Option<QuietLimit>) -> Self {
        let all: Vec<Undisturbed> = sessions.iter().map(|session| undisturbed(session, limit)).collect();
        let levels = |of: &dyn Fn(&Undisturbed) -> Vec<f64>| all.iter().filter_map(|one| level(&of(one))).collect();
        let by = |kind: usize| {
            levels(&|one| one.step_ms.iter().zip(&one.yardsticks_ms).map(|(ms, work)| ms / work[kind]).collect())
        };
        let measured: Vec<f64> = levels(&|one| one.step_ms.clone());
        let corrected = [by(0), by(1)];
        let is_corrected = corrected.iter().all(|levels| levels.len() == measured.len());
        Self { measured, corrected: is_corrected.then_some(corrected) }
    }

    fn count(&self) -> usize {
        self.measured.len()
    }
}

/// How many sessions have enough samples that count.
pub fn usable_sessions(sessions: &[Session], limit: Option<QuietLimit>) -> usize {
    Levels::of(sessions, limit).count()
}

/// Rounds of pairs: the noise floor is what a second process of the base shows in place of the candidate.
///
/// # Errors
///
/// If fewer than [`crate::analysis::MINIMUM_SESSIONS`] rounds have enough pairs.
pub fn attempt_of_rounds(rounds: &[PairLevels]) -> Result<Attempt, TooFew> {
    let needed = crate::analysis::MINIMUM_SESSIONS;
    let of = |level: fn(&PairLevels) -> Option<f64>| -> Result<TimeRatio, TooFew> {
        let levels: Vec<f64> = rounds.iter().filter_map(level).collect();
        let too_few = TooFew { what: "rounds", found: levels.len(), needed };
        ratio_of_rounds(&levels).filter(|_| levels.len() >= needed).ok_or(too_few)
    };
    let control = of(|round| round.control)?;
    Ok(Attempt { ratio: of(|round| round.candidate)?, corrected: None, noise_floor: control.farthest_change() })
}

/// What gates of `block` sessions would have seen within sessions of one program; with `is_corrected` by the fixed pieces of work as well,
/// where there are any.
pub fn noise_floor_of(
    sessions: &[Session],
    block: usize,
    limit: Option<QuietLimit>,
    is_corrected: bool,
) -> Option<f64> {
    let Levels { measured, corrected } = Levels::of(sessions, limit);
    let corrected = corrected.filter(|_| is_corrected).into_iter().flatten();
    noise_floor(&std::iter::once(measured).chain(corrected).collect::<Vec<_>>(), block)
}

/// The median time of a step over all samples that count, in milliseconds.
pub fn median_step_ms(sessions: &[Session], limit: Option<QuietLimit>) -> Option<f64> {
    median(&sessions.iter().flat_map(|one| undisturbed(one, limit).step_ms).collect::<Vec<f64>>())
}

/// The slowest session by the fastest one, less 1, of those that count.
pub fn spread(sessions: &[Session], limit: Option<QuietLimit>) -> Option<f64> {
    let levels = Levels::of(sessions, limit).measured;
    let largest = levels.iter().copied().reduce(f64::max)?;
    let smallest = levels.iter().copied().reduce(f64::min)?;
    Some((largest - smallest).exp() - 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analysis::{ATTEMPTS, MINIMUM_SAMPLES, MINIMUM_SESSIONS};

    /// Sessions around so many milliseconds, 1 % apart.
    fn sessions(count: usize, step_ms: f64, yardstick_ms: f64) -> Vec<Session> {
        let session = |place: usize| {
            let factor = 1.0 + 0.01 * (place % 3) as f64;
            Session {
                step_ms: vec![step_ms * factor; MINIMUM_SAMPLES],
                yardsticks_ms: vec![[yardstick_ms * factor, 2.0 * yardstick_ms * factor]; MINIMUM_SAMPLES + 1],
                waited: vec![0.0; MINIMUM_SAMPLES],
            }
        };
        (0..count).map(session).collect()
    }

    fn baseline(sessions: Vec<Session>) -> BaselineConfiguration {
        let noise_floor = noise_floor_of(&sessions, 3, None, true);
        BaselineConfiguration { noise_floor, ..BaselineConfiguration::new("one".to_owned(), None, None, sessions) }
    }

    #[test]
    fn a_regression_needs_three_attempts_and_a_pass_one() {
        let baseline = baseline(sessions(9, 10.0, 1.0));
        let run = |step_ms: f64| {
            let mut trials = [Trial::new(0, Against::Pinned)];
            decide_all(&mut trials, 0.05, |_, open| {
                for trial in open {
                    trial.attempts.push(attempt_of_sessions(&baseline, &sessions(5, step_ms, 1.0), (None, true))?);
                }
                Ok::<bool, TooFew>(true)
            })
            .expect("enough");
            (trials[0].verdict(0.05), trials[0].attempts.len())
        };
        assert_eq!(run(11.0), (Verdict::Regression, ATTEMPTS));
        assert_eq!(run(9.0), (Verdict::Improvement, ATTEMPTS));
        assert_eq!(run(10.2), (Verdict::Pass, 1));
    }

    #[test]
    fn what_cannot_be_measured_again_is_neither_passed_nor_a_regression() {
        let baseline = baseline(sessions(9, 10.0, 1.0));
        let mut trials = [Trial::new(0, Against::Pinned)];
        let measure = |attempt: usize, open: &mut [&mut Trial]| {
            for trial in open.iter_mut().filter(|_| attempt == 0) {
                let without_work = Session { yardsticks_ms: vec![], ..sessions(1, 11.5, 1.0).remove(0) };
                trial.attempts.push(attempt_of_sessions(&baseline, &[without_work], (None, false))?);
            }
            Ok::<bool, TooFew>(attempt == 0)
        };
        decide_all(&mut trials, 0.05, measure).expect("enough");
        assert_eq!(trials[0].verdict(0.05), Verdict::Unconfirmed);
    }

    #[test]
    fn a_machine_that_became_slower_as_a_whole_is_no_regression() {
        let baseline = baseline(sessions(9, 10.0, 1.0));
        let slower = sessions(5, 12.0, 1.2);
        let attempt = attempt_of_sessions(&baseline, &slower, (None, true)).expect("enough");
        assert!((attempt.ratio.ratio - 1.2).abs() < 0.01 && attempt.ratio.low > 1.1, "{attempt:?}");
        assert!((attempt.least_corrected().expect("yardsticks").ratio - 1.0).abs() < 0.01, "{attempt:?}");
        assert_eq!(decide(&[attempt; ATTEMPTS], 0.05), Decision::NoChange);
        let uncorrected = attempt_of_sessions(&baseline, &slower, (None, false)).expect("enough");
        assert_eq!(decide(&[uncorrected; ATTEMPTS], 0.05), Decision::Regression);
    }

    #[test]
    fn a_machine_that_becomes_half_as_fast_within_a_session_is_corrected() {
        let work = [3.0, 3.0, 3.0, 3.0, 6.0, 6.0].map(|ms| [ms, 2.0 * ms]);
        let session = Session {
            step_ms: vec![1.0, 1.0, 1.0, 2.0, 2.0],
            yardsticks_ms: work.to_vec(),
            waited: vec![0.0; MINIMUM_SAMPLES],
        };
        let [alone, together] = Levels::of(std::slice::from_ref(&session), None).corrected.expect("pieces of work");
        assert!((alone[0] - (1.0f64 / 3.0).ln()).abs() < 1e-12, "{alone:?}");
        assert!((together[0] - (1.0f64 / 6.0).ln()).abs() < 1e-12, "{together:?}");
        let one_is_lost = Session { yardsticks_ms: work[1..].to_vec(), ..session };
        assert_eq!(Levels::of(&[one_is_lost], None).corrected, None);
    }

    #[test]
    fn what_disturbs_some_samples_moves_nothing_and_what_disturbs_all_is_no_pass() {
        let baseline = baseline(sessions(9, 10.0, 1.0));
        let limit = QuietLimit::of(&baseline.sessions);
        // Another process takes a core for a while: steps take longer, and so does what needs all cores.
        let mut disturbed = sessions(5, 10.0, 1.0);
        for session in &mut disturbed {
            session.step_ms.extend([17.0; MINIMUM_SAMPLES]);
            session.yardsticks_ms.extend([[1.0, 9.0]; MINIMUM_SAMPLES]);
            session.waited.extend([0.0; MINIMUM_SAMPLES]);
        }
        let attempt = attempt_of_sessions(&baseline, &disturbed, (limit, true)).expect("enough");
        assert!((attempt.ratio.ratio - 1.0).abs() < 0.01, "{attempt:?}");
        assert!(attempt_of_sessions(&baseline, &disturbed, (None, true)).expect("all").ratio.ratio > 1.2);
        for session in &mut disturbed {
            session.yardsticks_ms.fill([1.0, 9.0]);
        }
        assert_eq!(attempt_of_sessions(&baseline, &disturbed, (limit, true)).expect_err("busy").found, 0);
    }

    #[test]
    fn too_few_sessions_or_samples_are_an_error_and_no_pass() {
        let few = baseline(sessions(MINIMUM_SESSIONS - 1, 10.0, 1.0));
        let enough = sessions(5, 10.0, 1.0);
        assert_eq!(attempt_of_sessions(&few, &enough, (None, true)).expect_err("few").found, MINIMUM_SESSIONS - 1);
        let baseline = baseline(sessions(9, 10.0, 1.0));
        assert_eq!(attempt_of_sessions(&baseline, &[], (None, true)).expect_err("none").found, 0);
        let short = vec![Session { step_ms: vec![10.0; MINIMUM_SAMPLES - 1], ..Session::default() }];
        assert_eq!(attempt_of_sessions(&baseline, &short, (None, true)).expect_err("short").found, 0);
        let round = PairLevels { candidate: Some(0.1), control: Some(0.0), base_ms: vec![], candidate_ms: vec![] };
        assert_eq!(attempt_of_rounds(&[round.clone(), round.clone()]).expect_err("few").found, 2);
        let shortened = PairLevels { control: None, ..round.clone() };
        assert_eq!(attempt_of_rounds(&[round.clone(), round, shortened]).expect_err("few").found, 2);
    }

    #[test]
    fn pairs_are_judged_by_what_a_second_process_of_the_base_shows() {
        let rounds = |control: f64| -> Vec<PairLevels> {
            let level = |place: f64, center: f64| Some(center + 0.001 * place);
            let round = |place| PairLevels {
                candidate: level(place, 0.1),
                control: level(place, control),
                base_ms: vec![],
                candidate_ms: vec![],
            };
            [-1.0, 0.0, 1.0].map(round).to_vec()
        };
        let quiet = attempt_of_rounds(&rounds(0.0)).expect("enough");
        assert_eq!(decide(&[quiet; ATTEMPTS], 0.05), Decision::Regression);
        let noisy = attempt_of_rounds(&rounds(0.12)).expect("enough");
        assert!(noisy.noise_floor > 0.12, "{noisy:?}");
        assert_eq!(decide(&[noisy; ATTEMPTS], 0.05), Decision::NoChange);
    }
}
