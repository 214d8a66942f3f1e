//! Two sides, a baseline and a candidate: which configurations belong together, and what has changed from one to the
//! other.

use super::layers::gradient_profile;
use super::quantity::{Change, QUANTITIES};
use super::statistics::{Estimate, bootstrap, bootstrap_both, median};
use super::summary::RunSummary;
use crate::schema::{GradientRow, RunStatus};

/// The level of each factor of a configuration; `None` where nothing tells it.
pub type Levels = Vec<Option<String>>;

/// Which configurations belong together, by their places.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Matching {
    /// Places of the baseline and of the candidate.
    pub pairs: Vec<(usize, usize)>,
    /// Configurations of the baseline without a partner.
    pub baseline_only: Vec<usize>,
    /// Configurations of the candidate without a partner.
    pub candidate_only: Vec<usize>,
}

/// Matches configurations of two sides by their levels, whose factors are the same on both. A level that is not known
/// fits every one; a configuration that fits several has no partner. If both sides have one configuration, they belong
/// together, whatever they are.
pub fn match_configurations(baseline: &[Levels], candidate: &[Levels]) -> Matching {
    if let ([_], [_]) = (baseline, candidate) {
        return Matching { pairs: vec![(0, 0)], ..Matching::default() };
    }
    let partner = |levels: &Levels, others: &[Levels]| {
        let same = others.iter().position(|other| other == levels);
        let mut fitting = (0..others.len()).filter(|place| fits(levels, &others[*place]));
        same.or_else(|| match (fitting.next(), fitting.next()) {
            (Some(only), None) => Some(only),
            _ => None,
        })
    };
    let pairs: Vec<(usize, usize)> = (0..baseline.len())
        .filter_map(|place| Some((place, partner(&baseline[place], candidate)?)))
        .filter(|(place, other)| partner(&candidate[*other], baseline) == Some(*place))
        .collect();
    let without = |count: usize, taken: Vec<usize>| (0..count).filter(|place| !taken.contains(place)).collect();
    Matching {
        baseline_only: without(baseline.len(), pairs.iter().map(|(place, _)| *place).collect()),
        candidate_only: without(candidate.len(), pairs.iter().map(|(_, place)| *place).collect()),
        pairs,
    }
}

fn fits(a: &Levels, b: &Levels) -> bool {
    a.iter().zip(b).all(|levels| match levels {
        (Some(a), Some(b)) => a == b,
        _ => true,
    })
}

/// The levels of two configurations that are compared as one: the level that both have or that one alone is known to
/// have, and `relu -> tanh` where they differ.
pub fn differing_levels(baseline: &Levels, candidate: &Levels) -> Vec<String> {
    let one = |(a, b): (&Option<String>, &Option<String>)| match (a, b) {
        (Some(a), Some(b)) if a != b => format!("{a} -> {b}"),
        _ => a.clone().or_else(|| b.clone()).unwrap_or_default(),
    };
    baseline.iter().zip(candidate).map(one).collect()
}

/// A quantity on two sides.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Comparison {
    /// The median of the baseline, over the runs that are compared; `None` if none is.
    pub baseline: Option<f64>,
    /// The median of the candidate, likewise.
    pub candidate: Option<f64>,
    /// The geometric mean of the ratios, or the mean of the differences, with its interval.
    pub change: Option<Estimate>,
    /// Whether runs of the same seed were compared with each other.
    pub paired: bool,
    /// The pairs; 0 if it is not paired.
    pub pairs: usize,
    /// Runs of the baseline that are compared.
    pub baseline_runs: usize,
    /// Runs of the candidate that are compared.
    pub candidate_runs: usize,
    /// Runs whose value has no place in the statistic: not finite, or for a ratio not above 0.
    pub left_out: usize,
}

/// Compares the values of two sides, each with the seed of its run; a value that is `None` is not finite.
///
/// Runs of a seed that both sides have are paired, and pairs are resampled: what a seed makes larger or smaller on both
/// sides leaves the interval alone. Without pairs, or with one where both sides have several runs, the sides are
/// resampled independently. One pair, or one run on a side that is not paired, has no interval.
pub fn compare(
    change: Change,
    baseline: &[(u64, Option<f64>)],
    candidate: &[(u64, Option<f64>)],
) -> Option<Comparison> {
    if baseline.is_empty() || candidate.is_empty() {
        return None;
    }
    let mut left_out = 0;
    let mut placed = |values: &[(u64, Option<f64>)]| -> Vec<(u64, f64)> {
        let has_place = |value: f64| value.is_finite() && (change == Change::Difference || value > 0.0);
        let placed: Vec<(u64, f64)> =
            values.iter().filter_map(|(seed, value)| Some((*seed, value.filter(|value| has_place(*value))?))).collect();
        left_out += values.len() - placed.len();
        placed
    };
    let (baseline, candidate) = (placed(baseline), placed(candidate));
    let partner = |seed: u64| candidate.iter().find(|(other, _)| *other == seed).map(|(_, value)| *value);
    let pairs: Vec<(f64, f64)> = baseline.iter().filter_map(|(seed, value)| Some((*value, partner(*seed)?))).collect();
    let are_several = baseline.len() > 1 && candidate.len() > 1;
    let paired = pairs.len() > 1 || (pairs.len() == 1 && !are_several);
    let (baseline, candidate): (Vec<f64>, Vec<f64>) = if paired {
        pairs.iter().copied().unzip()
    } else {
        (baseline.iter().map(|(_, value)| *value).collect(), candidate.iter().map(|(_, value)| *value).collect())
    };
    Some(Comparison {
        baseline: median(&baseline),
        candidate: median(&candidate),
        change: if paired { of_pairs(change, &pairs) } else { of_sides(change, &baseline, &candidate) },
        paired,
        pairs: if paired { pairs.len() } else { 0 },
        baseline_runs: baseline.len(),
        candidate_runs: candidate.len(),
        left_out,
    })
}

/// A value on the scale on which a change is a difference.
fn to_scale(change: Change, value: f64) -> f64 {
    match change {
        Change::Ratio => value.ln(),
        Change::Difference => value,
    }
}

/// The change that is this difference on the scale.
fn from_scale(change: Change, difference: f64) -> f64 {
    match change {
        Change::Ratio => difference.exp(),
        Change::Difference => difference,
    }
}

fn mean_of(values: impl ExactSizeIterator<Item = f64>) -> f64 {
    let count = values.len() as f64;
    values.sum::<f64>() / count
}

fn of_pairs(change: Change, pairs: &[(f64, f64)]) -> Option<Estimate> {
    let difference = |(a, b): &(f64, f64)| to_scale(change, *b) - to_scale(change, *a);
    let mean_difference = |pairs: &mut [(f64, f64)]| mean_of(pairs.iter().map(difference));
    bootstrap(pairs, mean_difference).map(|estimate| estimate.map(|value| from_scale(change, value)))
}

fn of_sides(change: Change, baseline: &[f64], candidate: &[f64]) -> Option<Estimate> {
    let mean = |values: &[f64]| mean_of(values.iter().map(|value| to_scale(change, *value)));
    let difference = |a: &mut [f64], b: &mut [f64]| mean(b) - mean(a);
    bootstrap_both(baseline, candidate, difference).map(|estimate| estimate.map(|value| from_scale(change, value)))
}

/// What is compared of a run.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// Its summary.
    pub summary: RunSummary,
    /// The norm of each hidden layer's weight gradient at the first measured step, the layer nearest to the input
    /// first.
    first: Vec<Option<f64>>,
    /// The same at the last measured step; empty if that is the first, or if the run diverged.
    last: Vec<Option<f64>>,
}

impl Outcome {
    /// From the summary of a run and its rows.
    pub fn new(summary: RunSummary, gradients: &[GradientRow]) -> Self {
        let step = |row: Option<&GradientRow>| row.map(|row| row.step);
        let (first, last) = (step(gradients.first()), step(gradients.last()));
        let last = last.filter(|last| Some(*last) > first && summary.status == RunStatus::Complete);
        let profile = |step: Option<usize>| step.map(|step| gradient_profile(gradients, step)).unwrap_or_default();
        Self { first: profile(first), last: profile(last), summary }
    }
}

/// A quantity of a configuration, compared.
#[derive(Clone, Debug, PartialEq)]
pub struct Compared {
    /// The quantity: `gradient_l2_first` or `gradient_l2_last`, or the name of one of [`QUANTITIES`].
    pub quantity: &'static str,
    /// The hidden layer, from 1 at the input; `None` for the whole network.
    pub layer: Option<usize>,
    /// How it is compared.
    pub change: Change,
    /// The values and what has changed.
    pub comparison: Comparison,
}

/// The norm of a layer's weight gradient at the first measured step.
pub const GRADIENT_FIRST: &str = "gradient_l2_first";
/// The norm of a layer's weight gradient at the last measured step.
pub const GRADIENT_LAST: &str = "gradient_l2_last";

/// The quantities that are compared of a whole network.
const COMPARED: [&str; 11] = [
    "decades_lost_per_layer_first",
    "decades_lost_per_layer_last",
    "decades_lost_per_time_step_first",
    "decades_lost_per_time_step_last",
    "train_loss",
    "test_loss",
    "train_accuracy",
    "test_accuracy",
    "test_reconstruction_error",
    "step_time_ms",
    "examples_per_second",
];

/// Compares the runs of a configuration on both sides: the gradients of the layers that both have, then what
/// [`QUANTITIES`] both have.
pub fn compare_runs(baseline: &[Outcome], candidate: &[Outcome]) -> Vec<Compared> {
    let mut found = Vec::new();
    for quantity in [GRADIENT_FIRST, GRADIENT_LAST] {
        let values = |runs: &[Outcome], layer: usize| -> Vec<(u64, Option<f64>)> {
            let value = |run: &Outcome| {
                let profile = if quantity == GRADIENT_FIRST { &run.first } else { &run.last };
                Some((run.summary.seed, profile.get(layer).copied()?))
            };
            runs.iter().filter_map(value).collect()
        };
        let layers = (0..).map_while(|layer| {
            let comparison = compare(Change::Ratio, &values(baseline, layer), &values(candidate, layer))?;
            Some(Compared { quantity, layer: Some(layer + 1), change: Change::Ratio, comparison })
        });
        found.extend(layers);
    }
    for quantity in COMPARED.iter().filter_map(|name| QUANTITIES.iter().find(|quantity| quantity.name == *name)) {
        let values = |runs: &[Outcome]| -> Vec<(u64, Option<f64>)> {
            let value = |run: &Outcome| Some((run.summary.seed, Some(quantity.of(&run.summary)?)));
            runs.iter().filter_map(value).collect()
        };
        if let Some(comparison) = compare(quantity.change, &values(baseline), &values(candidate)) {
            found.push(Compared { quantity: quantity.name, layer: None, change: quantity.change, comparison });
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use rand_distr::{Distribution, Normal};

    use super::*;
    use crate::analysis::summarize;
    use crate::schema::RunRows;
    use crate::seed;

    fn seeded(values: &[f64]) -> Vec<(u64, Option<f64>)> {
        values.iter().enumerate().map(|(seed, value)| (seed as u64 + 1, Some(*value))).collect()
    }

    #[test]
    fn ratios_have_a_geometric_mean_and_differences_a_mean() {
        let ratio = compare(Change::Ratio, &seeded(&[1.0, 10.0]), &seeded(&[2.0, 80.0])).expect("two pairs");
        // The geometric mean of 2 and 8.
        let Estimate { value, interval: Some((low, high)) } = ratio.change.expect("pairs") else { panic!("two pairs") };
        assert!((value - 4.0).abs() < 1e-12 && (low - 2.0).abs() < 1e-12 && (high - 8.0).abs() < 1e-12);
        assert_eq!((ratio.baseline, ratio.candidate, ratio.pairs, ratio.paired), (Some(5.5), Some(41.0), 2, true));
        let difference = compare(Change::Difference, &seeded(&[0.0, -1.0]), &seeded(&[1.0, 2.0])).expect("two pairs");
        assert_eq!(difference.change, Some(Estimate { value: 2.0, interval: Some((1.0, 3.0)) }));
    }

    #[test]
    fn one_pair_has_a_value_and_no_interval() {
        let one = compare(Change::Ratio, &seeded(&[2.0]), &seeded(&[3.0])).expect("a pair");
        let change = one.change.expect("a pair");
        assert!((change.value - 1.5).abs() < 1e-12 && change.interval.is_none() && one.pairs == 1, "{one:?}");
        let one_to_several = compare(Change::Difference, &seeded(&[2.0]), &seeded(&[3.0, 9.0])).expect("a pair");
        assert_eq!(one_to_several.change, Some(Estimate { value: 1.0, interval: None }));
        let strangers = compare(Change::Difference, &[(8, Some(2.0))], &[(9, Some(3.0))]).expect("one on each side");
        assert_eq!((strangers.paired, strangers.pairs), (false, 0));
        assert_eq!(strangers.change, Some(Estimate { value: 1.0, interval: None }));
    }

    #[test]
    fn runs_are_paired_by_seed_in_whatever_order_and_others_are_left_alone() {
        let baseline = [(1, Some(1.0)), (2, Some(20.0)), (3, Some(300.0))];
        let candidate = [(3, Some(301.0)), (7, Some(0.0)), (2, Some(21.0))];
        let found = compare(Change::Difference, &baseline, &candidate).expect("two pairs");
        assert_eq!(found.change, Some(Estimate { value: 1.0, interval: Some((1.0, 1.0)) }));
        assert_eq!((found.pairs, found.baseline, found.candidate), (2, Some(160.0), Some(161.0)));
    }

    #[test]
    fn several_runs_with_one_seed_in_common_are_compared_as_sides() {
        let candidate = [(2, Some(5.0)), (8, Some(6.0)), (9, Some(7.0))];
        let found = compare(Change::Difference, &seeded(&[1.0, 2.0, 3.0]), &candidate).expect("two sides");
        assert!(!found.paired && found.pairs == 0 && (found.baseline_runs, found.candidate_runs) == (3, 3));
        let change = found.change.expect("sides");
        let (low, high) = change.interval.expect("three runs on each side");
        assert!((change.value - 4.0).abs() < 1e-12 && low < 4.0 && high > 4.0 && low >= 2.0 && high <= 6.0);
    }

    #[test]
    fn pairing_takes_out_what_seeds_have_in_common() {
        // Seeds differ by decades, the sides by a factor of 2.
        let baseline = [1e-6, 1e-3, 1.0, 1e3, 1e6];
        let candidate = baseline.map(|value| 2.0 * value);
        let width = |found: Comparison| {
            let (low, high) = found.change.and_then(|change| change.interval).expect("five runs");
            (high / low).ln()
        };
        let paired = compare(Change::Ratio, &seeded(&baseline), &seeded(&candidate)).expect("pairs");
        let strangers: Vec<_> = seeded(&candidate).into_iter().map(|(seed, value)| (seed + 100, value)).collect();
        let unpaired = compare(Change::Ratio, &seeded(&baseline), &strangers).expect("sides");
        assert!(paired.paired && !unpaired.paired);
        assert!((paired.change.expect("pairs").value / unpaired.change.expect("sides").value - 1.0).abs() < 1e-9);
        assert!(width(paired) < 1e-9 && width(unpaired) > 5.0);
    }

    /// In how many of 300 experiments with so many runs a side the interval covers the true ratio.
    fn covered(runs: usize, are_pairs: bool) -> usize {
        let noise = Normal::new(0.0, 0.3).expect("a deviation");
        let mut random = seed::stream(11, "coverage");
        let covers = |_: &i32| {
            let mut side = |factor: f64| -> Vec<(u64, Option<f64>)> {
                seeded(&(0..runs).map(|_| factor * f64::exp(noise.sample(&mut random))).collect::<Vec<f64>>())
            };
            let (baseline, mut candidate) = (side(1.0), side(1.7));
            if !are_pairs {
                candidate.iter_mut().for_each(|(seed, _)| *seed += 100);
            }
            let found = compare(Change::Ratio, &baseline, &candidate).expect("both sides");
            let (low, high) = found.change.and_then(|change| change.interval).expect("several runs");
            low <= 1.7 && 1.7 <= high
        };
        (0..300).filter(covers).count()
    }

    #[test]
    fn the_interval_covers_the_true_ratio_in_about_95_of_100_experiments_paired_or_not() {
        for are_pairs in [true, false] {
            let covered = covered(25, are_pairs);
            // 95 % of 300 is 285 with a standard error of 3.8; percentile intervals are a little narrow.
            assert!((265..=297).contains(&covered), "{covered} of 300");
        }
    }

    #[test]
    fn of_five_pairs_the_interval_covers_the_true_ratio_in_about_83_of_100_experiments() {
        // What an independent program finds for means of five normal numbers; the standard error is 6.5 of 300.
        let covered = covered(5, true);
        assert!((230..=268).contains(&covered), "{covered} of 300");
    }

    #[test]
    fn what_a_ratio_cannot_have_is_counted_and_left_out_and_a_difference_takes_zeros() {
        let baseline = [(1, Some(0.0)), (2, Some(1.0)), (3, None)];
        let candidate = [(1, Some(1.0)), (2, Some(2.0)), (3, Some(3.0))];
        let ratio = compare(Change::Ratio, &baseline, &candidate).expect("values");
        assert_eq!((ratio.left_out, ratio.pairs), (2, 1));
        let change = ratio.change.expect("a pair");
        assert!((change.value - 2.0).abs() < 1e-12 && change.interval.is_none(), "{change:?}");
        let difference = compare(Change::Difference, &baseline, &candidate).expect("values");
        assert_eq!((difference.left_out, difference.pairs), (1, 2));
        let zeros = compare(Change::Ratio, &[(1, Some(0.0))], &[(1, Some(0.0))]).expect("values");
        assert_eq!((zeros.left_out, zeros.change, zeros.baseline), (2, None, None));
        assert_eq!(compare(Change::Ratio, &[], &candidate), None);
    }

    fn levels(names: &[&str]) -> Levels {
        names.iter().map(|name| (*name != "?").then(|| (*name).to_owned())).collect()
    }

    #[test]
    fn configurations_belong_together_by_their_levels_and_not_by_their_order() {
        let baseline = [levels(&["relu", "2"]), levels(&["relu", "4"]), levels(&["tanh", "2"])];
        let candidate = [levels(&["tanh", "2"]), levels(&["relu", "8"]), levels(&["relu", "2"])];
        let expected = Matching { pairs: vec![(0, 2), (2, 0)], baseline_only: vec![1], candidate_only: vec![1] };
        assert_eq!(match_configurations(&baseline, &candidate), expected);
    }

    #[test]
    fn a_level_that_one_side_does_not_have_fits_if_only_one_configuration_does() {
        let baseline = [levels(&["a", "2"]), levels(&["b", "4"]), levels(&["c", "4"])];
        let candidate = [levels(&["?", "2"]), levels(&["?", "4"])];
        let expected = Matching { pairs: vec![(0, 0)], baseline_only: vec![1, 2], candidate_only: vec![1] };
        assert_eq!(match_configurations(&baseline, &candidate), expected);
        assert_eq!(differing_levels(&baseline[0], &candidate[0]), ["a", "2"]);
    }

    #[test]
    fn two_single_configurations_are_compared_whatever_they_are_and_others_are_not() {
        let (relu, tanh) = (levels(&["relu"]), levels(&["tanh"]));
        let matching = match_configurations(std::slice::from_ref(&relu), std::slice::from_ref(&tanh));
        assert_eq!(matching.pairs, [(0, 0)]);
        assert_eq!(differing_levels(&relu, &tanh), ["relu -> tanh"]);
        let elu = levels(&["elu"]);
        let matching = match_configurations(&[relu, tanh], &[elu]);
        assert_eq!((matching.pairs.len(), matching.baseline_only.len(), matching.candidate_only.len()), (0, 2, 1));
    }

    /// A run whose layers have these gradients at step 0 and ten times as large ones at step 5.
    fn outcome(seed: u64, status: RunStatus, gradients: &[f64], train_loss: Option<f64>) -> Outcome {
        let row = |step: usize, layer: usize, grad_l2: f64| GradientRow {
            step,
            layer: format!("hidden.{layer}"),
            parameter: format!("hidden.{layer}.weight"),
            grad_l2: Some(grad_l2),
            ..GradientRow::default()
        };
        let at = |step: usize, factor: f64| {
            gradients.iter().enumerate().map(move |(layer, norm)| row(step, layer, norm * factor)).collect::<Vec<_>>()
        };
        let rows = RunRows { gradients: [at(0, 1.0), at(5, 10.0)].concat(), ..RunRows::default() };
        let summary = summarize("r", vec![], seed, status, &rows);
        let summary = RunSummary { train_loss, is_trained: true, ..summary };
        Outcome::new(summary, &rows.gradients)
    }

    #[test]
    fn every_layer_that_both_sides_have_is_compared_at_the_start_and_at_the_end() {
        let baseline = [outcome(1, RunStatus::Complete, &[1.0, 10.0, 100.0], Some(0.5))];
        let candidate = [outcome(1, RunStatus::Complete, &[3.0, 5.0], Some(0.25))];
        let found = compare_runs(&baseline, &candidate);
        let names: Vec<(&str, Option<usize>)> = found.iter().map(|one| (one.quantity, one.layer)).collect();
        assert_eq!(
            names,
            [
                (GRADIENT_FIRST, Some(1)),
                (GRADIENT_FIRST, Some(2)),
                (GRADIENT_LAST, Some(1)),
                (GRADIENT_LAST, Some(2)),
                ("decades_lost_per_layer_first", None),
                ("decades_lost_per_layer_last", None),
                ("train_loss", None),
            ]
        );
        let values: Vec<f64> = found.iter().map(|one| one.comparison.change.expect("a pair").value).collect();
        let expected = [3.0, 0.5, 3.0, 0.5, (5.0_f64 / 3.0).log10() - 1.0, (5.0_f64 / 3.0).log10() - 1.0, -0.25];
        assert!(values.iter().zip(expected).all(|(value, expected)| (value - expected).abs() < 1e-9), "{values:?}");
    }

    #[test]
    fn a_diverged_run_is_compared_at_its_start_and_not_at_its_end() {
        let diverged = RunStatus::Diverged { diverged_at_step: 6 };
        let baseline = [1, 2].map(|seed| outcome(seed, RunStatus::Complete, &[1.0, 2.0], Some(0.5)));
        let candidate =
            [outcome(1, RunStatus::Complete, &[2.0, 2.0], Some(0.1)), outcome(2, diverged, &[2.0, 2.0], None)];
        let found = compare_runs(&baseline, &candidate);
        let pairs = |quantity: &str| {
            found.iter().find(|one| one.quantity == quantity).map(|one| (one.comparison.pairs, one.comparison.left_out))
        };
        assert_eq!(pairs(GRADIENT_FIRST), Some((2, 0)));
        assert_eq!(pairs(GRADIENT_LAST), Some((1, 0)));
        assert_eq!(pairs("train_loss"), Some((1, 0)));
    }
}
