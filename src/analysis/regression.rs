//! When a change of speed is a regression: the rule, and the statistics behind it. `docs/regression_gate.md` states both in
//! words; a test holds its numbers to the constants here.
//!
//! What is compared is the *level* of sessions. A session is a process that measures samples of whole steps one after the other; its
//! level is the logarithm of the median sample. Samples of one process have its memory layout and its minute of the machine in common,
//! so that it is processes that have to be repeated, and their levels that are independent (Kalibera and Jones 2013, "Rigorous
//! benchmarking in reasonable time", section 6).

use statrs::distribution::{ContinuousCDF, StudentsT};

use super::statistics::{mean, median, standard_deviation};

/// The confidence of every interval.
pub const CONFIDENCE: f64 = 0.95;
/// The relative change of the step time below which nothing is called, unless another threshold is asked for.
pub const DEFAULT_THRESHOLD: f64 = 0.05;
/// The attempts that must agree before a change is called.
pub const ATTEMPTS: usize = 3;
/// The fewest sessions of a baseline, and the fewest rounds of pairs.
pub const MINIMUM_SESSIONS: usize = 3;
/// The fewest samples of a session.
pub const MINIMUM_SAMPLES: usize = 5;

/// The time of a step on the candidate's side by that on the baseline's, with its interval: 1.1 means that a step takes 10 %
/// longer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TimeRatio {
    /// The ratio.
    pub ratio: f64,
    /// The lower end of its 95 % interval.
    pub low: f64,
    /// The upper end.
    pub high: f64,
}

impl TimeRatio {
    fn from_logarithm(center: f64, half_width: f64) -> Self {
        Self { ratio: center.exp(), low: (center - half_width).exp(), high: (center + half_width).exp() }
    }

    /// The relative change from 1 to the end of the interval that is farther from it.
    pub fn farthest_change(&self) -> f64 {
        (self.high - 1.0).max(1.0 / self.low - 1.0)
    }

    /// The change that it shows, if it is larger than a limit and the interval excludes 1.
    fn change(&self, limit: f64) -> SpeedChange {
        if self.low > 1.0 && self.ratio - 1.0 > limit {
            SpeedChange::Slower
        } else if self.high < 1.0 && 1.0 / self.ratio - 1.0 > limit {
            SpeedChange::Faster
        } else {
            SpeedChange::None
        }
    }
}

/// What an attempt shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpeedChange {
    /// A step takes longer, beyond threshold and noise floor.
    Slower,
    /// A step takes less time, beyond threshold and noise floor.
    Faster,
    /// Neither.
    None,
}

/// One measurement of the candidate beside the baseline.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Attempt {
    /// The ratio of the times as they were measured.
    pub ratio: TimeRatio,
    /// The ratio after division by what fixed pieces of work took in the same sessions, on one core and on all; `None` where there
    /// are none.
    pub corrected: Option<[TimeRatio; 2]>,
    /// The relative change that two measurements of the same program show on this machine.
    pub noise_floor: f64,
}

impl Attempt {
    /// What it shows: a change larger than threshold and noise floor, whose interval excludes 1. Where the machine's own speed is
    /// known, the measured and the corrected ratios have to show it all.
    pub fn change(&self, threshold: f64) -> SpeedChange {
        let limit = threshold.max(self.noise_floor);
        let change = self.ratio.change(limit);
        let is_confirmed = self.corrected.iter().flatten().all(|corrected| corrected.change(limit) == change);
        if is_confirmed { change } else { SpeedChange::None }
    }

    /// The corrected ratio that shows least of what was measured.
    pub fn least_corrected(&self) -> Option<TimeRatio> {
        let sign = self.ratio.ratio.ln().signum();
        let shown = |ratio: &TimeRatio| sign * ratio.ratio.ln();
        self.corrected.into_iter().flatten().min_by(|a, b| shown(a).total_cmp(&shown(b)))
    }
}

/// What becomes of a configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// [`ATTEMPTS`] attempts agree that it became slower.
    Regression,
    /// [`ATTEMPTS`] attempts agree that it became faster.
    Improvement,
    /// An attempt shows no change, or attempts disagree.
    NoChange,
    /// All attempts so far show the same change, and there are too few of them.
    Open,
}

/// Decides after the attempts so far.
pub fn decide(attempts: &[Attempt], threshold: f64) -> Decision {
    let mut changes = attempts.iter().map(|attempt| attempt.change(threshold));
    let Some(first) = changes.next() else {
        return Decision::Open;
    };
    if first == SpeedChange::None || changes.any(|change| change != first) {
        Decision::NoChange
    } else if attempts.len() < ATTEMPTS {
        Decision::Open
    } else if first == SpeedChange::Slower {
        Decision::Regression
    } else {
        Decision::Improvement
    }
}

/// The level of a session: the logarithm of its median sample. `None` with fewer than [`MINIMUM_SAMPLES`] samples or if one is not a
/// positive number.
pub fn level(samples: &[f64]) -> Option<f64> {
    let is_time = |sample: &f64| sample.is_finite() && *sample > 0.0;
    if samples.len() < MINIMUM_SAMPLES || !samples.iter().all(is_time) {
        return None;
    }
    median(samples).map(f64::ln)
}

/// The logarithm of the ratio within a round of pairs: the median over its pairs. `None` with fewer than [`MINIMUM_SAMPLES`] pairs or if a
/// time is not a positive number.
pub fn paired_level(pairs: &[(f64, f64)]) -> Option<f64> {
    let is_time = |time: f64| time.is_finite() && time > 0.0;
    if pairs.len() < MINIMUM_SAMPLES
        || !pairs.iter().all(|(baseline, candidate)| is_time(*baseline) && is_time(*candidate))
    {
        return None;
    }
    median(&pairs.iter().map(|(baseline, candidate)| (candidate / baseline).ln()).collect::<Vec<f64>>())
}

/// The ratio of independent sessions: the difference of the mean levels, with Student's interval of two samples of one variance. A
/// single session of one side is enough if the other has at least three. `None` if the variance cannot be told.
pub fn ratio_of_sessions(baseline: &[f64], candidate: &[f64]) -> Option<TimeRatio> {
    let (n, m) = (baseline.len() as f64, candidate.len() as f64);
    let center = mean(candidate)? - mean(baseline)?;
    let freedom = n + m - 2.0;
    let square_sum = |levels: &[f64]| standard_deviation(levels).map_or(0.0, |s| s * s * (levels.len() - 1) as f64);
    let variance = (square_sum(baseline) + square_sum(candidate)) / freedom;
    Some(TimeRatio::from_logarithm(center, student(freedom)? * (variance * (1.0 / n + 1.0 / m)).sqrt()))
}

/// The share of the rounds that is left out at either end.
const TRIMMED: f64 = 0.2;

/// The ratio of rounds of pairs: their trimmed mean, without the lowest and the highest fifth, with the interval of Yuen (1974, "The
/// two-sample trimmed t for unequal population variances", of one sample). A round in which something else disturbed one side, and not
/// the other, neither moves it nor widens its interval. `None` for fewer than two rounds.
pub fn ratio_of_rounds(rounds: &[f64]) -> Option<TimeRatio> {
    let mut sorted = rounds.to_vec();
    sorted.sort_by(f64::total_cmp);
    let n = sorted.len();
    let trimmed = (n as f64 * TRIMMED) as usize;
    let kept = sorted.get(trimmed..n - trimmed)?;
    let (lowest, highest) = (*kept.first()?, *kept.last()?);
    let winsorized: Vec<f64> = sorted.iter().map(|level| level.clamp(lowest, highest)).collect();
    let error = standard_deviation(&winsorized)? * (n as f64).sqrt() / kept.len() as f64;
    Some(TimeRatio::from_logarithm(mean(kept)?, student(kept.len() as f64 - 1.0)? * error))
}

/// The largest relative change that a gate of `block` sessions would have seen within a baseline, where nothing changes: every block
/// of consecutive sessions against all others. Each of `kinds` has a level for every session, as measured and as corrected in several
/// ways: a change is what all of them show. `None` for fewer than two sessions.
pub fn noise_floor(kinds: &[Vec<f64>], block: usize) -> Option<f64> {
    let sessions = kinds.first()?.len();
    let block = block.min(sessions / 2).max(1);
    let change = |levels: &Vec<f64>, start: usize| {
        let others = [&levels[..start], &levels[start + block..]].concat();
        Some(mean(&levels[start..start + block])? - mean(&others)?)
    };
    let replayed = |start: usize| {
        let changes = kinds.iter().map(|levels| change(levels, start)).collect::<Option<Vec<f64>>>()?;
        Some(shown_by_all(&changes).exp() - 1.0)
    };
    (0..=sessions.checked_sub(block)?).filter_map(replayed).reduce(f64::max)
}

/// The size of the change that all of these show: the smallest, and none if they are of two signs.
fn shown_by_all(changes: &[f64]) -> f64 {
    let in_direction = |sign: f64| changes.iter().map(|change| sign * change).fold(f64::INFINITY, f64::min);
    in_direction(1.0).max(in_direction(-1.0)).max(0.0)
}

/// The two-sided quantile of Student's t at [`CONFIDENCE`]; `None` without a degree of freedom.
fn student(freedom: f64) -> Option<f64> {
    let distribution = StudentsT::new(0.0, 1.0, freedom).ok().filter(|_| freedom >= 1.0)?;
    Some(distribution.inverse_cdf(f64::midpoint(1.0, CONFIDENCE)))
}

#[cfg(test)]
mod tests {
    use rand_distr::{Distribution, StandardNormal};

    use super::*;
    use crate::seed;

    fn attempt(ratio: f64, low: f64, high: f64) -> Attempt {
        Attempt { ratio: TimeRatio { ratio, low, high }, corrected: None, noise_floor: 0.01 }
    }

    #[test]
    fn students_quantiles_are_those_of_the_tables() {
        for (freedom, quantile) in [(1.0, 12.706), (4.0, 2.776), (18.0, 2.101)] {
            assert!((student(freedom).expect("free") - quantile).abs() < 5e-4, "{freedom}");
        }
        assert_eq!(student(0.0), None);
    }

    #[test]
    fn three_attempts_have_to_agree_and_one_that_does_not_ends_the_matter() {
        let (slow, same, fast) = (attempt(1.1, 1.08, 1.12), attempt(1.0, 0.98, 1.02), attempt(0.8, 0.7, 0.9));
        assert_eq!(decide(&[], 0.05), Decision::Open);
        assert_eq!(decide(&[slow], 0.05), Decision::Open);
        assert_eq!(decide(&[slow, slow], 0.05), Decision::Open);
        assert_eq!(decide(&[slow, slow, slow], 0.05), Decision::Regression);
        assert_eq!(decide(&[fast, fast, fast], 0.05), Decision::Improvement);
        assert_eq!(decide(&[slow, same], 0.05), Decision::NoChange);
        assert_eq!(decide(&[slow, slow, fast], 0.05), Decision::NoChange);
    }

    #[test]
    fn a_change_must_exceed_the_threshold_and_the_noise_floor_and_exclude_1() {
        let slow = attempt(1.08, 1.06, 1.10);
        assert_eq!(slow.change(0.05), SpeedChange::Slower);
        assert_eq!(slow.change(0.09), SpeedChange::None);
        assert_eq!(Attempt { noise_floor: 0.1, ..slow }.change(0.05), SpeedChange::None);
        assert_eq!(attempt(1.2, 0.99, 1.4).change(0.05), SpeedChange::None);
        // The machine became slower, and so did a fixed piece of work.
        let (same, slower) = (attempt(1.01, 1.0, 1.02).ratio, attempt(1.07, 1.05, 1.09).ratio);
        let corrected = |alone, together| Attempt { corrected: Some([alone, together]), ..slow };
        assert_eq!(corrected(same, slower).change(0.05), SpeedChange::None);
        assert_eq!(corrected(slower, same).change(0.05), SpeedChange::None);
        assert_eq!(corrected(slower, slow.ratio).change(0.05), SpeedChange::Slower);
        assert_eq!(corrected(slower, same).least_corrected(), Some(same));
        assert_eq!(slow.least_corrected(), None);
        // A fixed piece of work became faster and the network did not: no change was measured.
        assert_eq!(
            Attempt { ratio: attempt(1.0, 0.99, 1.01).ratio, ..corrected(slower, slower) }.change(0.05),
            SpeedChange::None
        );
    }

    #[test]
    fn samples_that_are_too_few_or_no_times_have_no_level() {
        assert_eq!(level(&[1.0; MINIMUM_SAMPLES - 1]), None);
        assert_eq!(level(&[1.0, 1.0, 0.0, 1.0, 1.0]), None);
        assert_eq!(level(&[1.0, 1.0, f64::NAN, 1.0, 1.0]), None);
        assert_eq!(level(&[3.0, 1.0, 2.0, 9.0, 1.0]), Some(2f64.ln()));
        assert_eq!(paired_level(&[(1.0, 1.1); 4]), None);
        assert!((paired_level(&[(2.0, 2.2); 5]).expect("five") - 1.1f64.ln()).abs() < 1e-12);
    }

    #[test]
    fn intervals_of_both_kinds_cover_the_true_ratio_in_95_of_100_measurements() {
        let mut random = seed::stream(3, "regression");
        let mut levels = |count: usize, center: f64| -> Vec<f64> {
            (0..count).map(|_| center + 0.02 * Distribution::<f64>::sample(&StandardNormal, &mut random)).collect()
        };
        let truth = 1.1f64;
        let covers = |found: Option<TimeRatio>| found.is_some_and(|found| found.low <= truth && truth <= found.high);
        let (mut sessions, mut single, mut rounds) = (0, 0, 0);
        for _ in 0..1000 {
            let baseline = levels(15, 0.0);
            sessions += usize::from(covers(ratio_of_sessions(&baseline, &levels(5, truth.ln()))));
            single += usize::from(covers(ratio_of_sessions(&baseline, &levels(1, truth.ln()))));
            rounds += usize::from(covers(ratio_of_rounds(&levels(10, truth.ln()))));
        }
        // The standard error of 950 of 1000 is 7.
        for covered in [sessions, single, rounds] {
            assert!((925..=975).contains(&covered), "{covered} of 1000");
        }
    }

    #[test]
    fn disturbed_rounds_neither_move_a_ratio_nor_widen_its_interval() {
        let quiet = [0.09, 0.095, 0.1, 0.1, 0.105, 0.1, 0.1, 0.11, 0.098, 0.102];
        let mut disturbed = quiet;
        (disturbed[3], disturbed[7]) = (-0.7, 0.9);
        let [before, after] = [quiet, disturbed].map(|rounds| ratio_of_rounds(&rounds).expect("ten"));
        assert!((after.ratio / before.ratio - 1.0).abs() < 2e-3, "{before:?} {after:?}");
        assert!(after.low > 1.09 && after.high < 1.12, "{after:?}");
        // Three rounds are too few to leave one out.
        let few = ratio_of_rounds(&[0.1, 0.11, 0.12]).expect("three");
        assert!((few.ratio.ln() - 0.11).abs() < 1e-12, "{few:?}");
        assert!((few.high.ln() - 0.11 - 4.303 * 0.01 / 3f64.sqrt()).abs() < 1e-5, "{few:?}");
        assert_eq!(ratio_of_rounds(&[0.1]), None);
        assert_eq!(ratio_of_rounds(&[]), None);
    }

    #[test]
    fn the_noise_floor_is_the_largest_change_between_blocks_of_a_baseline() {
        // The last two sessions were made while the machine was 10 % slower.
        let slow = 1.1f64.ln();
        let levels = [0.0, 0.0, 0.0, 0.0, slow, slow];
        let levels = levels.to_vec();
        assert!((noise_floor(std::slice::from_ref(&levels), 2).expect("six") - 0.1).abs() < 1e-12);
        // A fixed piece of work shows half of it, or that nothing was slower.
        let half: Vec<f64> = levels.iter().map(|level| 0.5 * level).collect();
        assert!((noise_floor(&[levels.clone(), half], 2).expect("six") - (0.5 * slow).exp() + 1.0).abs() < 1e-12);
        let opposite: Vec<f64> = levels.iter().map(|level| -level).collect();
        assert_eq!(noise_floor(&[levels, opposite], 2), Some(0.0));
        assert_eq!(noise_floor(&[vec![0.5; 6]], 5), Some(0.0));
        assert_eq!(noise_floor(&[vec![0.5]], 5), None);
        assert_eq!(noise_floor(&[vec![]], 5), None);
        assert_eq!(noise_floor(&[], 5), None);
    }
}
