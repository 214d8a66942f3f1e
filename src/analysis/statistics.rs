//! Means, medians and their intervals.

use rand::RngExt;

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

/// Resamples of a bootstrap.
const RESAMPLES: usize = 2000;

/// The median of the samples and its 95 % interval by the percentile bootstrap (Efron and Tibshirani 1993,
/// chapter 13), with a fixed seed. `None` without samples.
pub fn bootstrap_median(samples: &[f64]) -> Option<Interval> {
    let center = median(samples)?;
    let mut random = seed::stream(0, "bootstrap");
    let mut resample = vec![0.0; samples.len()];
    let mut medians: Vec<f64> = (0..RESAMPLES)
        .map(|_| {
            for place in &mut resample {
                *place = samples[random.random_range(0..samples.len())];
            }
            median_in_place(&mut resample)
        })
        .collect();
    medians.sort_by(f64::total_cmp);
    let quantile = |q: f64| medians[((RESAMPLES - 1) as f64 * q).round() as usize];
    Some(Interval { median: center, low: quantile(0.025), high: quantile(0.975) })
}

/// The median; `None` without samples.
pub fn median(samples: &[f64]) -> Option<f64> {
    (!samples.is_empty()).then(|| median_in_place(&mut samples.to_vec()))
}

fn median_in_place(samples: &mut [f64]) -> f64 {
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
