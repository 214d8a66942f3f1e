//! What can be said of a run in one number: the names, units and directions of what is exported and compared.

use super::statistics::{Estimate, Interval, bootstrap, median_in_place};
use super::summary::{Configuration, RunSummary};
use crate::schema::RunStatus;

/// The direction that is an improvement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Better {
    /// Such as an accuracy.
    Bigger,
    /// Such as a time.
    Smaller,
}

/// How two values of a quantity are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Candidate by baseline, for positive values.
    Ratio,
    /// Candidate minus baseline, for values that may be 0 or negative.
    Difference,
}

impl Change {
    /// Its name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ratio => "ratio",
            Self::Difference => "difference",
        }
    }
}

/// A number that a run has.
#[derive(Clone, Copy, Debug)]
pub struct Quantity {
    /// Its name, with its unit; that of `summary.csv` without the statistic.
    pub name: &'static str,
    /// What people call it.
    pub title: &'static str,
    /// The unit; empty for a pure number.
    pub unit: &'static str,
    /// The direction that is an improvement; `None` where both too small and too large are bad.
    pub better: Option<Better>,
    /// How two of its values are compared.
    pub change: Change,
    value: fn(&RunSummary) -> Option<f64>,
    /// The interval over the samples of a single run, if it has samples.
    samples: fn(&RunSummary) -> Option<Interval>,
}

/// Every quantity.
pub const QUANTITIES: &[Quantity] = &[
    outcome("train_loss", "train loss", Some(Better::Smaller), |run| run.train_loss),
    outcome("train_accuracy", "train accuracy", Some(Better::Bigger), |run| run.train_accuracy),
    outcome("test_loss", "test loss", Some(Better::Smaller), |run| run.test_loss),
    outcome("test_accuracy", "test accuracy", Some(Better::Bigger), |run| run.test_accuracy),
    outcome("test_reconstruction_error", "reconstruction error", Some(Better::Smaller), |run| {
        run.test_reconstruction_error
    }),
    ratio("gradient_ratio_first", "first by last gradient, start", |run| run.gradient_ratio_first),
    ratio("gradient_ratio_last", "first by last gradient, end", |run| at_end(run, run.gradient_ratio_last)),
    outcome("decades_lost_per_layer_first", "decades a layer, start", None, |run| run.decades_lost_per_layer_first),
    outcome("decades_lost_per_layer_last", "decades a layer, end", None, |run| {
        at_end(run, run.decades_lost_per_layer_last)
    }),
    ratio("delta_ratio_per_layer_first", "delta a layer, start", |run| {
        Some(run.delta_ratio_first?.powf(1.0 / run.delta_ratio_layers? as f64))
    }),
    ratio("delta_by_prediction", "delta by prediction", |run| run.delta_by_prediction),
    ratio("input_gradient_ratio_first", "input gradient, start", |run| run.input_gradient_ratio_first),
    ratio("input_gradient_ratio_last", "input gradient, end", |run| at_end(run, run.input_gradient_ratio_last)),
    ratio("hidden_grad_ratio_first", "state gradient, start", |run| run.hidden_grad_ratio_first),
    ratio("hidden_grad_ratio_last", "state gradient, end", |run| at_end(run, run.hidden_grad_ratio_last)),
    ratio("cell_grad_ratio_first", "cell gradient, start", |run| run.cell_grad_ratio_first),
    ratio("cell_grad_ratio_last", "cell gradient, end", |run| at_end(run, run.cell_grad_ratio_last)),
    outcome("decades_lost_per_time_step_first", "decades a time step, start", None, |run| {
        run.decades_lost_per_time_step_first
    }),
    outcome("decades_lost_per_time_step_last", "decades a time step, end", None, |run| {
        at_end(run, run.decades_lost_per_time_step_last)
    }),
    cost("pretraining_ms", "pretraining", "ms", Better::Smaller, |run| run.pretraining_ms, |_| None),
    cost("total_ms", "training", "ms", Better::Smaller, |run| run.total_ms, |_| None),
    cost("step_time_ms", "step time", "ms", Better::Smaller, |run| middle(run.step_time_ms), |run| run.step_time_ms),
    cost(
        "examples_per_second",
        "throughput",
        "examples/s",
        Better::Bigger,
        |run| middle(run.examples_per_second),
        |run| run.examples_per_second,
    ),
    cost(
        "flops_per_second",
        "operations",
        "FLOP/s",
        Better::Bigger,
        |run| middle(run.flops_per_second),
        |run| run.flops_per_second,
    ),
    cost("probe_ratio", "probe cost", "", Better::Smaller, |run| middle(run.probe_ratio), |run| run.probe_ratio),
];

/// The quantity of that name.
pub fn quantity(name: &str) -> Option<&'static Quantity> {
    QUANTITIES.iter().find(|quantity| quantity.name == name)
}

impl Quantity {
    /// The value of a run, if it has one. What is of the end of the training is missing where the run diverged, and
    /// where nothing was trained.
    pub fn of(&self, run: &RunSummary) -> Option<f64> {
        (self.value)(run).filter(|value| value.is_finite())
    }

    /// The median over the seeds that have a value, with its interval: over the seeds, or of a single run over its
    /// samples.
    pub fn over_seeds(&self, configuration: &Configuration<'_>) -> Option<Estimate> {
        let values = configuration.values(|run| self.of(run));
        let estimate = bootstrap(&values, median_in_place)?;
        let own = configuration.runs.iter().find_map(|run| (self.samples)(run));
        // A single timing sample tells nothing of the spread.
        let own = own.filter(|own| values.len() == 1 && own.low < own.high).map(|own| (own.low, own.high));
        Some(Estimate { interval: estimate.interval.or(own), ..estimate })
    }
}

const fn outcome(
    name: &'static str,
    title: &'static str,
    better: Option<Better>,
    value: fn(&RunSummary) -> Option<f64>,
) -> Quantity {
    Quantity { name, title, unit: "", better, change: Change::Difference, value, samples: |_| None }
}

const fn ratio(name: &'static str, title: &'static str, value: fn(&RunSummary) -> Option<f64>) -> Quantity {
    Quantity { name, title, unit: "", better: None, change: Change::Ratio, value, samples: |_| None }
}

const fn cost(
    name: &'static str,
    title: &'static str,
    unit: &'static str,
    better: Better,
    value: fn(&RunSummary) -> Option<f64>,
    samples: fn(&RunSummary) -> Option<Interval>,
) -> Quantity {
    Quantity { name, title, unit, better: Some(better), change: Change::Ratio, value, samples }
}

/// A value of the last measured step. A diverged run stops anywhere, and without training the end is the start.
fn at_end(run: &RunSummary, value: Option<f64>) -> Option<f64> {
    value.filter(|_| run.is_trained && run.status == RunStatus::Complete)
}

fn middle(interval: Option<Interval>) -> Option<f64> {
    interval.map(|interval| interval.median)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analysis::{configurations, summarize};
    use crate::schema::RunRows;

    fn run(train_loss: f64, step_time_ms: Interval) -> RunSummary {
        let empty = summarize("r", vec![], 1, RunStatus::Complete, &RunRows::default());
        RunSummary { train_loss: Some(train_loss), step_time_ms: Some(step_time_ms), ..empty }
    }

    const SAMPLES: Interval = Interval { median: 2.0, low: 1.5, high: 3.0 };

    #[test]
    fn quantities_have_names_of_their_own() {
        for (place, known) in QUANTITIES.iter().enumerate() {
            assert!(QUANTITIES[..place].iter().all(|other| other.name != known.name), "{}", known.name);
            assert_eq!(quantity(known.name).map(|found| found.title), Some(known.title));
        }
        assert!(quantity("absent").is_none());
    }

    #[test]
    fn a_single_run_has_the_interval_of_its_samples_and_no_other() {
        let one = [run(0.5, SAMPLES)];
        let of = |name: &str, runs: &[RunSummary]| {
            quantity(name).expect("known").over_seeds(&configurations(runs)[0]).expect("a value")
        };
        assert_eq!(of("train_loss", &one), Estimate { value: 0.5, interval: None });
        assert_eq!(of("step_time_ms", &one), Estimate { value: 2.0, interval: Some((1.5, 3.0)) });
        let sample = Interval { median: 2.0, low: 2.0, high: 2.0 };
        assert_eq!(of("step_time_ms", &[run(0.5, sample)]).interval, None);
        // Samples of one run are alike: several runs are resampled as runs.
        let slow = Interval { median: 9.0, low: 8.9, high: 9.1 };
        assert_eq!(of("step_time_ms", &[run(0.5, SAMPLES), run(0.7, slow)]).interval, Some((2.0, 9.0)));
    }

    #[test]
    fn a_diverged_run_has_the_values_of_its_start_and_none_of_its_end() {
        let gradients = RunSummary {
            gradient_ratio_first: Some(0.1),
            gradient_ratio_last: Some(0.2),
            is_trained: true,
            ..run(0.5, SAMPLES)
        };
        let diverged = RunSummary { status: RunStatus::Diverged { diverged_at_step: 7 }, ..gradients.clone() };
        let of = |name: &str, run: &RunSummary| quantity(name).expect("known").of(run);
        assert_eq!(of("gradient_ratio_last", &gradients), Some(0.2));
        assert_eq!((of("gradient_ratio_first", &diverged), of("gradient_ratio_last", &diverged)), (Some(0.1), None));
    }
}
