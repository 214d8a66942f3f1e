//! Means, medians and their intervals.

use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use crate::seed;

/// A median with its 95 % interval.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Interval {
    /// The median of the samples.
    pub median: f64,
    /// The lower end of the interval.
    pub low: f64,
    /// The upper end of the interval.
    pub high: f64,
}

/// A statistic with its 95 % interval.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Estimate {
    /// The statistic of the samples.
    pub value: f64,
    /// The lower and the upper end of the interval; `None` where there are too few samples to tell their spread.
    pub interval: Option<(f64, f64)>,
}

impl Estimate {
    /// The same in another unit, by an increasing function.
    #[must_use]
    pub fn map(self, unit: impl Fn(f64) -> f64) -> Self {
        Self { value: unit(self.value), interval: self.interval.map(|(low, high)| (unit(low), unit(high))) }
    }
}

/// Resamples of a bootstrap.
const RESAMPLES: usize = 2000;

/// A statistic of the samples and its 95 % interval by the percentile bootstrap (Efron and Tibshirani 1993, chapter
/// 13), with a fixed seed. Samples may be pairs, which are then drawn as pairs. The statistic may reorder what it is
/// given. `None` without samples; one sample has no interval.
pub fn bootstrap<T: Copy>(samples: &[T], statistic: impl Fn(&mut [T]) -> f64) -> Option<Estimate> {
    if samples.is_empty() {
        return None;
    }
    let mut drawn = samples.to_vec();
    let value = statistic(&mut drawn);
    let interval = (samples.len() > 1).then(|| {
        percentiles(|random| {
            draw(samples, &mut drawn, random);
            statistic(&mut drawn)
        })
    });
    Some(Estimate { value, interval })
}

/// The same of two independent sets of samples, each of which is drawn by itself. `None` if one is empty; there is an
/// interval only if both have several samples.
pub fn bootstrap_both<T: Copy>(a: &[T], b: &[T], statistic: impl Fn(&mut [T], &mut [T]) -> f64) -> Option<Estimate> {
    if a.is_empty() || b.is_empty() {
        return None;
    }
    let (mut drawn_a, mut drawn_b) = (a.to_vec(), b.to_vec());
    let value = statistic(&mut drawn_a, &mut drawn_b);
    let interval = (a.len() > 1 && b.len() > 1).then(|| {
        percentiles(|random| {
            draw(a, &mut drawn_a, random);
            draw(b, &mut drawn_b, random);
            statistic(&mut drawn_a, &mut drawn_b)
        })
    });
    Some(Estimate { value, interval })
}

/// Draws with replacement.
fn draw<T: Copy>(samples: &[T], drawn: &mut [T], random: &mut ChaCha8Rng) {
    for place in drawn {
        *place = samples[random.random_range(0..samples.len())];
    }
}

/// The ends of the 95 % interval of a statistic that is drawn again and again.
fn percentiles(mut resample: impl FnMut(&mut ChaCha8Rng) -> f64) -> (f64, f64) {
    let mut random = seed::stream(0, "bootstrap");
    let mut values: Vec<f64> = (0..RESAMPLES).map(|_| resample(&mut random)).collect();
    values.sort_by(f64::total_cmp);
    let quantile = |q: f64| values[((RESAMPLES - 1) as f64 * q).round() as usize];
    (quantile(0.025), quantile(0.975))
}

/// The median of the samples and its 95 % interval by [`bootstrap`]; that of one sample has no width. `None` without
/// samples.
pub fn bootstrap_median(samples: &[f64]) -> Option<Interval> {
    let Estimate { value, interval } = bootstrap(samples, median_in_place)?;
    let (low, high) = interval.unwrap_or((value, value));
    Some(Interval { median: value, low, high })
}

/// The median; `None` without samples.
pub fn median(samples: &[f64]) -> Option<f64> {
    (!samples.is_empty()).then(|| median_in_place(&mut samples.to_vec()))
}

/// The median of samples that it sorts; there is at least one.
pub(super) fn median_in_place(samples: &mut [f64]) -> f64 {
    samples.sort_by(f64::total_cmp);
    let middle = samples.len() / 2;
    if samples.len() % 2 == 1 { samples[middle] } else { f64::midpoint(samples[middle - 1], samples[middle]) }
}

/// The mean; `None` without samples.
pub fn mean(samples: &[f64]) -> Option<f64> {
    (!samples.is_empty()).then(|| samples.iter().sum::<f64>() / samples.len() as f64)
}

/// The standard deviation of a sample (n - 1 in the denominator); `None` for fewer than two.
pub fn standard_deviation(samples: &[f64]) -> Option<f64> {
    let center = mean(samples)?;
    (samples.len() > 1).then(|| {
        let square_sum: f64 = samples.iter().map(|x| (x - center).powi(2)).sum();
        (square_sum / (samples.len() - 1) as f64).sqrt()
    })
}

/// The geometric mean; 0 if a sample is 0, `None` without samples or with a negative one.
pub fn geometric_mean(samples: &[f64]) -> Option<f64> {
    if samples.is_empty() || samples.iter().any(|x| *x < 0.0) {
        return None;
    }
    let logs: f64 = samples.iter().map(|x| x.ln()).sum();
    Some((logs / samples.len() as f64).exp())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_means_and_deviations_of_a_small_sample() {
        let samples = [4.0, 1.0, 3.0, 2.0];
        assert_eq!(median(&samples), Some(2.5));
        assert_eq!(median(&[3.0, 1.0, 9.0]), Some(3.0));
        assert_eq!(mean(&samples), Some(2.5));
        assert!((standard_deviation(&samples).expect("four") - (5.0_f64 / 3.0).sqrt()).abs() < 1e-12);
        assert!((geometric_mean(&[1e-300, 1e-100]).expect("two") / 1e-200 - 1.0).abs() < 1e-9);
        assert_eq!(geometric_mean(&[0.0, 5.0]), Some(0.0));
    }

    #[test]
    fn too_few_samples_have_no_statistic_instead_of_0() {
        assert_eq!((median(&[]), mean(&[]), bootstrap_median(&[])), (None, None, None));
        assert_eq!(standard_deviation(&[1.0]), None);
    }

    #[test]
    fn one_sample_has_a_statistic_and_no_interval_and_pairs_are_drawn_as_pairs() {
        assert_eq!(bootstrap(&[3.0], median_in_place), Some(Estimate { value: 3.0, interval: None }));
        assert_eq!(bootstrap(&[], median_in_place), None);
        assert_eq!(bootstrap_both(&[1.0, 2.0], &[5.0], |a, b| b[0] - a[0]).map(|one| one.interval), Some(None));
        assert_eq!(bootstrap_both(&[], &[5.0], |_, b| b[0]), None);
        // The difference within every pair is 1, whichever pairs are drawn.
        let pairs = [(1.0, 2.0), (10.0, 11.0), (100.0, 101.0)];
        let mean_difference = |drawn: &mut [(f64, f64)]| drawn.iter().map(|(a, b)| b - a).sum::<f64>() / 3.0;
        let expected = Estimate { value: 1.0, interval: Some((1.0, 1.0)) };
        assert_eq!(bootstrap(&pairs, mean_difference), Some(expected));
    }

    #[test]
    fn the_interval_of_a_median_covers_it_in_about_95_of_100_samples() {
        use rand_distr::{Distribution, StandardNormal};
        let mut random = seed::stream(7, "coverage");
        let covered = (0..300)
            .filter(|_| {
                let samples: Vec<f64> = (0..25).map(|_| StandardNormal.sample(&mut random)).collect();
                let interval = bootstrap_median(&samples).expect("25 samples");
                interval.low <= 0.0 && 0.0 <= interval.high
            })
            .count();
        // 95 % of 300 is 285; the standard error is 3.8.
        assert!((268..=297).contains(&covered), "{covered} of 300");
    }
}
