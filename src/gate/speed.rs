//! Sessions and pairs: which process measures when.

use std::ffi::OsString;
use std::path::Path;

use super::quiet::undisturbed;
use super::{Configuration, Measurer, MeasurerError, QuietLimit};
use crate::analysis::paired_level;
use crate::record::Session;

/// How much is measured.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Effort {
    /// Samples of a session, or pairs of a round.
    pub samples: usize,
    /// The least length of a sample in milliseconds; it holds as many whole steps as that takes.
    pub sample_ms: f64,
}

impl Effort {
    fn steps(&self, step_ms: f64) -> usize {
        (self.sample_ms / step_ms).ceil().clamp(1.0, 1e6) as usize
    }
}

/// How often a session tries for a sample that nothing disturbed, for each that it is to have.
const TRIES: usize = 4;

/// Measures every configuration of those that are expected that `places` names in one new process, a session each, on one of the cores; before each sample and
/// after the last the fixed pieces of work if `has_yardstick`. Where there is a limit for their times, samples that something disturbed are
/// measured again, for a while.
///
/// # Errors
///
/// If the process cannot be started or fails.
pub fn measure_session(
    binary: &Path,
    arguments: &[OsString],
    (expected, places): (&[Configuration], &[(usize, Option<QuietLimit>)]),
    effort: Effort,
    core: usize,
    has_yardstick: bool,
) -> Result<Vec<Session>, MeasurerError> {
    let mut measurer = Measurer::start_own(binary, arguments)?;
    measurer.expect(expected)?;
    let mut sessions = Vec::new();
    for (place, limit) in places {
        let steps = effort.steps(measurer.prepare(*place, core)?);
        measurer.step_ms(steps)?;
        let mut session = Session::default();
        if has_yardstick {
            session.yardsticks_ms.push(measurer.yardsticks_ms()?);
        }
        let is_enough = |session: &Session| {
            let count = undisturbed(session, *limit).step_ms.len();
            count >= effort.samples || session.step_ms.len() >= TRIES * effort.samples
        };
        while !is_enough(&session) {
            let before_ms = if has_yardstick { measurer.waited_ms()? } else { 0.0 };
            let step_ms = measurer.step_ms(steps)?;
            session.step_ms.push(step_ms);
            if has_yardstick {
                session.waited.push((measurer.waited_ms()? - before_ms).max(0.0) / (step_ms * steps as f64));
                session.yardsticks_ms.push(measurer.yardsticks_ms()?);
            }
        }
        sessions.push(session);
    }
    Ok(sessions)
}

/// A round of pairs of one configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct PairLevels {
    /// Logarithm of the candidate's time of a step by the base's; `None` if there are too few pairs.
    pub candidate: Option<f64>,
    /// The same of a second process of the base, in place of the candidate.
    pub control: Option<f64>,
    /// The times of a step of the base, in milliseconds.
    pub base_ms: Vec<f64>,
    /// The times of a step of the candidate, in milliseconds.
    pub candidate_ms: Vec<f64>,
}

/// Measures every configuration that `places` names in three new processes that take turns: the base, the candidate, and the base
/// once more, which shows what a difference is worth. The first place goes round, and every other turn is backwards, so that none
/// always follows the same one. All three stay on the same core.
///
/// # Errors
///
/// If a process cannot be started or fails.
pub fn measure_pairs(
    [(base, of_base), (candidate, of_candidate)]: [(&Path, &[Configuration]); 2],
    arguments: &[OsString],
    places: &[(usize, usize)],
    effort: Effort,
    core: usize,
) -> Result<Vec<PairLevels>, MeasurerError> {
    let mut sides = [
        Measurer::start(base, arguments)?,
        Measurer::start_own(candidate, arguments)?,
        Measurer::start(base, arguments)?,
    ];
    for (side, expected) in sides.iter().zip([of_base, of_candidate, of_base]) {
        side.expect(expected)?;
    }
    let mut rounds = Vec::new();
    for (of_base, of_candidate) in places {
        let mut steps = 1;
        for (side, place) in sides.iter_mut().zip([of_base, of_candidate, of_base]) {
            steps = effort.steps(side.prepare(*place, core)?).max(steps);
        }
        let mut times: [Vec<f64>; 3] = Default::default();
        for turn in 0..=effort.samples {
            for place in 0..3 {
                let forward = (turn + place) % 3;
                let side = if turn.is_multiple_of(2) { forward } else { 2 - forward };
                let step_ms = sides[side].step_ms(steps)?;
                // The first turn warms up.
                if turn > 0 {
                    times[side].push(step_ms);
                }
            }
        }
        let [base_ms, candidate_ms, control_ms] = times;
        let of =
            |others: &[f64]| paired_level(&base_ms.iter().copied().zip(others.iter().copied()).collect::<Vec<_>>());
        rounds.push(PairLevels { candidate: of(&candidate_ms), control: of(&control_ms), base_ms, candidate_ms });
    }
    Ok(rounds)
}
