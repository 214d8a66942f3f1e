//! One summary a run, and one a configuration over its seeds.

use super::layers::{first_states, gradient_profile, hidden_number, whole_layers};
use super::statistics::{Interval, bootstrap_median, mean};
use crate::schema::{
    ActivationRow, GradientRow, ProbeLoad, RunPhase, RunRows, RunStatus, StepPhase, ThroughputPhase, ThroughputRow,
};

/// The outcome of a run.
#[derive(Clone, Debug, PartialEq)]
pub struct RunSummary {
    /// The run.
    pub run_id: String,
    /// The level of each factor.
    pub levels: Vec<String>,
    /// The seed.
    pub seed: u64,
    /// How it ended.
    pub status: RunStatus,
    /// Whether it made any update.
    pub is_trained: bool,
    /// Loss on the training split after training; empty if the run diverged.
    pub train_loss: Option<f64>,
    /// Accuracy on the training split after training.
    pub train_accuracy: Option<f64>,
    /// Loss on the test split after training.
    pub test_loss: Option<f64>,
    /// Accuracy on the test split after training.
    pub test_accuracy: Option<f64>,
    /// Mean squared distance between an input of the test split and its reconstruction after training, of an autoencoder.
    pub test_reconstruction_error: Option<f64>,
    /// The same of as many principal components as the code has units.
    pub principal_components_error: Option<f64>,
    /// The time of pretraining in milliseconds; empty without it.
    pub pretraining_ms: Option<f64>,
    /// The time of all training in milliseconds, pretraining included and evaluations left out; empty if nothing was trained, not
    /// even a layer, or if the run diverged.
    pub total_ms: Option<f64>,
    /// Norm of the weight gradient of the first hidden layer by that of the last, at the first measured step.
    pub gradient_ratio_first: Option<f64>,
    /// The same at the last measured step.
    pub gradient_ratio_last: Option<f64>,
    /// Decades that the norm of the weight gradient loses from one hidden layer to the one before it, by least
    /// squares, at the first measured step; empty where a gradient is 0 or not finite.
    pub decades_lost_per_layer_first: Option<f64>,
    /// The same at the last measured step.
    pub decades_lost_per_layer_last: Option<f64>,
    /// Norm of the delta of an early hidden layer by that of a late one at the first measured step: of the fifth by the last
    /// but two where there are at least ten, which keeps clear of both ends, else of the first by the last.
    pub delta_ratio_first: Option<f64>,
    /// The layers from the one to the other.
    pub delta_ratio_layers: Option<usize>,
    /// Norm of the delta at step 0 by what theory predicts of it, of the first layer that it predicts: the errors of all layers
    /// behind it add up there.
    pub delta_by_prediction: Option<f64>,
    /// Norm of the gradient with respect to the network's input by that with respect to what the last hidden layer hands on,
    /// at the first measured step.
    pub input_gradient_ratio_first: Option<f64>,
    /// The same at the last measured step.
    pub input_gradient_ratio_last: Option<f64>,
    /// Whether gradients with respect to the states of a recurrent network were measured.
    pub has_states: bool,
    /// Norm of the gradient with respect to the initial hidden state of the first recurrent layer by that with respect to
    /// the one after the last time step, at the first measured step.
    pub hidden_grad_ratio_first: Option<f64>,
    /// The same at the last measured step.
    pub hidden_grad_ratio_last: Option<f64>,
    /// The same of the cell state of an LSTM, at the first measured step.
    pub cell_grad_ratio_first: Option<f64>,
    /// The same at the last measured step.
    pub cell_grad_ratio_last: Option<f64>,
    /// Decades that the norm of the gradient with respect to the hidden state of the first recurrent layer loses from one
    /// time step to the one before it, by least squares over the time steps after it has vanished from f32, at the first
    /// measured step; empty where a gradient is not finite.
    pub decades_lost_per_time_step_first: Option<f64>,
    /// The same at the last measured step.
    pub decades_lost_per_time_step_last: Option<f64>,
    /// Time of a steady step without the probe, in milliseconds.
    pub step_time_ms: Option<Interval>,
    /// Examples a second, steady, without the probe.
    pub examples_per_second: Option<Interval>,
    /// Floating-point operations a second, likewise.
    pub flops_per_second: Option<Interval>,
    /// Time of a step whose parameters are measured by that of one that is not.
    pub probe_parameters_ratio: Option<Interval>,
    /// Time of a step with everything measured that the config asks for by that of one without.
    pub probe_ratio: Option<Interval>,
}

impl RunSummary {
    /// The columns of `summary.csv` after run id, seed and factors.
    pub const COLUMNS: &'static [&'static str] = &[
        "status",
        "diverged_at_step",
        "train_loss",
        "train_accuracy",
        "test_loss",
        "test_accuracy",
        "test_reconstruction_error",
        "principal_components_error",
        "pretraining_ms",
        "total_ms",
        "gradient_ratio_first",
        "gradient_ratio_last",
        "decades_lost_per_layer_first",
        "decades_lost_per_layer_last",
        "delta_ratio_first",
        "delta_ratio_layers",
        "delta_by_prediction",
        "input_gradient_ratio_first",
        "input_gradient_ratio_last",
        "hidden_grad_ratio_first",
        "hidden_grad_ratio_last",
        "cell_grad_ratio_first",
        "cell_grad_ratio_last",
        "decades_lost_per_time_step_first",
        "decades_lost_per_time_step_last",
        "step_time_ms_p50",
        "step_time_ms_p50_low",
        "step_time_ms_p50_high",
        "examples_per_second_p50",
        "examples_per_second_p50_low",
        "examples_per_second_p50_high",
        "flops_per_second_p50",
        "probe_parameters_ratio_p50",
        "probe_ratio_p50",
        "probe_ratio_p50_low",
        "probe_ratio_p50_high",
    ];

    /// The values of [`RunSummary::COLUMNS`]; a missing one is empty.
    pub fn fields(&self) -> Vec<String> {
        let (status, diverged_at_step) = match &self.status {
            RunStatus::Complete => ("complete", String::new()),
            RunStatus::Diverged { diverged_at_step } => ("diverged", diverged_at_step.to_string()),
        };
        let number = |value: Option<f64>| value.map_or_else(String::new, |value| value.to_string());
        let part = |interval: Option<Interval>, part: fn(&Interval) -> f64| number(interval.as_ref().map(part));
        let mut fields = vec![status.to_owned(), diverged_at_step];
        fields.extend(
            [
                self.train_loss,
                self.train_accuracy,
                self.test_loss,
                self.test_accuracy,
                self.test_reconstruction_error,
                self.principal_components_error,
                self.pretraining_ms,
                self.total_ms,
                self.gradient_ratio_first,
                self.gradient_ratio_last,
                self.decades_lost_per_layer_first,
                self.decades_lost_per_layer_last,
                self.delta_ratio_first,
            ]
            .map(number),
        );
        fields.push(self.delta_ratio_layers.map_or_else(String::new, |layers| layers.to_string()));
        fields.extend(
            [
                self.delta_by_prediction,
                self.input_gradient_ratio_first,
                self.input_gradient_ratio_last,
                self.hidden_grad_ratio_first,
                self.hidden_grad_ratio_last,
                self.cell_grad_ratio_first,
                self.cell_grad_ratio_last,
                self.decades_lost_per_time_step_first,
                self.decades_lost_per_time_step_last,
            ]
            .map(number),
        );
        for interval in [self.step_time_ms, self.examples_per_second] {
            fields.push(part(interval, |interval| interval.median));
            fields.push(part(interval, |interval| interval.low));
            fields.push(part(interval, |interval| interval.high));
        }
        fields.push(part(self.flops_per_second, |interval| interval.median));
        fields.push(part(self.probe_parameters_ratio, |interval| interval.median));
        fields.push(part(self.probe_ratio, |interval| interval.median));
        fields.push(part(self.probe_ratio, |interval| interval.low));
        fields.push(part(self.probe_ratio, |interval| interval.high));
        fields
    }
}

/// Summarizes the rows of a run.
pub fn summarize(run_id: &str, levels: Vec<String>, seed: u64, status: RunStatus, rows: &RunRows) -> RunSummary {
    let evaluation = |phase: StepPhase| {
        let last = rows.steps.iter().rfind(|row| row.phase == phase);
        // A diverged run has no network after training.
        last.filter(|_| status == RunStatus::Complete)
    };
    let train = evaluation(StepPhase::TrainSplit);
    let test = evaluation(StepPhase::TestSplit);
    let baseline = rows.steps.iter().find(|row| row.phase == StepPhase::PrincipalComponents);
    let pretraining = rows.phases.iter().rfind(|row| row.phase == RunPhase::Pretraining);
    let training = rows.phases.last().filter(|_| status == RunStatus::Complete);
    let measured = |row: Option<&GradientRow>| row.map(|row| row.step);
    let first = measured(rows.gradients.first()).map(|step| gradient_profile(&rows.gradients, step));
    let last = measured(rows.gradients.last()).map(|step| gradient_profile(&rows.gradients, step));
    let states = first_states(&rows.activations);
    let (first_states, last_states) =
        (StateProfile::new(&states, states.first()), StateProfile::new(&states, states.last()));
    let delta = delta_ratio(&rows.activations);
    let steady = |load: ProbeLoad| -> Vec<&ThroughputRow> {
        let is_steady = |row: &&ThroughputRow| row.phase == ThroughputPhase::Steady && row.probe == load;
        rows.throughput.iter().filter(is_steady).collect()
    };
    let off = steady(ProbeLoad::Off);
    let of_off =
        |value: fn(&ThroughputRow) -> f64| bootstrap_median(&off.iter().map(|row| value(row)).collect::<Vec<f64>>());
    let everything = [ProbeLoad::ParametersAndActivations, ProbeLoad::Parameters, ProbeLoad::Activations]
        .into_iter()
        .map(&steady)
        .find(|rows| !rows.is_empty());
    RunSummary {
        run_id: run_id.to_owned(),
        levels,
        seed,
        is_trained: rows.steps.iter().any(|row| row.learning_rate.is_some()),
        train_loss: train.and_then(|row| row.loss),
        train_accuracy: train.and_then(|row| row.accuracy),
        test_loss: test.and_then(|row| row.loss),
        test_accuracy: test.and_then(|row| row.accuracy),
        test_reconstruction_error: test.and_then(|row| row.reconstruction_error),
        principal_components_error: baseline.and_then(|row| row.reconstruction_error),
        pretraining_ms: pretraining.map(|row| row.total_ms),
        total_ms: training.map(|row| row.total_ms),
        gradient_ratio_first: first.as_ref().and_then(|profile| first_to_last(profile)),
        gradient_ratio_last: last.as_ref().and_then(|profile| first_to_last(profile)),
        decades_lost_per_layer_first: first.as_ref().and_then(|profile| decades_lost(profile)),
        decades_lost_per_layer_last: last.as_ref().and_then(|profile| decades_lost(profile)),
        delta_ratio_first: delta.map(|(ratio, _)| ratio),
        delta_ratio_layers: delta.map(|(_, layers)| layers),
        delta_by_prediction: delta_by_prediction(&rows.activations),
        input_gradient_ratio_first: input_gradient_ratio(&rows.activations, rows.activations.first()),
        input_gradient_ratio_last: input_gradient_ratio(&rows.activations, rows.activations.last()),
        has_states: !states.is_empty(),
        hidden_grad_ratio_first: first_to_last(&first_states.hidden),
        hidden_grad_ratio_last: first_to_last(&last_states.hidden),
        cell_grad_ratio_first: first_to_last(&first_states.cell),
        cell_grad_ratio_last: first_to_last(&last_states.cell),
        decades_lost_per_time_step_first: decades_lost_over_time(&first_states.hidden),
        decades_lost_per_time_step_last: decades_lost_over_time(&last_states.hidden),
        step_time_ms: of_off(|row| row.elapsed_ms / row.steps as f64),
        examples_per_second: of_off(|row| row.examples_per_second),
        flops_per_second: of_off(|row| row.flops_per_second),
        probe_parameters_ratio: paired_ratio(&off, &steady(ProbeLoad::Parameters)),
        probe_ratio: everything.and_then(|probed| paired_ratio(&off, &probed)),
        status,
    }
}

/// The median over samples of the time with the probe by the time without it, each pair taken one after the other.
fn paired_ratio(off: &[&ThroughputRow], probed: &[&ThroughputRow]) -> Option<Interval> {
    let ms = |row: &ThroughputRow| row.elapsed_ms / row.steps as f64;
    let ratios: Vec<f64> = off.iter().zip(probed).map(|(off, probed)| ms(probed) / ms(off)).collect();
    bootstrap_median(&ratios)
}

/// The gradients with respect to the states of a recurrent layer at a step, the initial state first; `None` where one is
/// not finite, or where the layer has no such state.
struct StateProfile {
    hidden: Vec<Option<f64>>,
    cell: Vec<Option<f64>>,
}

impl StateProfile {
    /// The profile at the step of a row; empty without one.
    fn new(states: &[&ActivationRow], at: Option<&&ActivationRow>) -> Self {
        let rows: Vec<_> = states.iter().filter(|row| at.is_some_and(|at| at.step == row.step)).collect();
        Self {
            hidden: rows.iter().map(|row| row.hidden_grad_l2).collect(),
            cell: rows.iter().map(|row| row.cell_grad_l2).collect(),
        }
    }
}

fn first_to_last(profile: &[Option<f64>]) -> Option<f64> {
    match profile {
        [Some(first), .., Some(last)] if *last > 0.0 => Some(first / last).filter(|ratio| ratio.is_finite()),
        _ => None,
    }
}

/// The slope of log10 of the norm over layers or time steps, by least squares: positive if it shrinks towards the first one.
fn decades_lost(profile: &[Option<f64>]) -> Option<f64> {
    let logs: Vec<f64> = profile
        .iter()
        .map(|norm| norm.filter(|norm| *norm > 0.0 && norm.is_finite()).map(f64::log10))
        .collect::<Option<_>>()?;
    if logs.len() < 2 {
        return None;
    }
    let center = (logs.len() - 1) as f64 / 2.0;
    let mean = logs.iter().sum::<f64>() / logs.len() as f64;
    let deviations = || logs.iter().enumerate().map(|(place, log)| (place as f64 - center, log - mean));
    let covariance: f64 = deviations().map(|(x, y)| x * y).sum();
    let variance: f64 = deviations().map(|(x, _)| x * x).sum();
    Some(covariance / variance)
}

/// Below this the elements of a gradient in f32 lose their digits, and then vanish.
const LEAST_NORM: f64 = 1e-36;

/// [`decades_lost`] over the time steps after the last one at which the gradient has vanished from f32.
fn decades_lost_over_time(profile: &[Option<f64>]) -> Option<f64> {
    let has_vanished = |norm: &Option<f64>| norm.is_some_and(|norm| norm < LEAST_NORM);
    decades_lost(profile.rsplit(has_vanished).next()?)
}

/// The fewest layers of which the first four and the last two can be left out.
const LAYERS_WITH_ENDS: usize = 10;

/// The norms of the deltas of an early layer by those of a late one at the first measured step, and the layers between.
fn delta_ratio(activations: &[ActivationRow]) -> Option<(f64, usize)> {
    let first = activations.first()?.step;
    let is_hidden = |row: &&ActivationRow| row.step == first && hidden_number(&row.layer).is_some();
    let deltas: Vec<Option<f64>> = whole_layers(activations).filter(is_hidden).map(|row| row.delta_l2).collect();
    let count = deltas.len();
    let (early, late) = if count >= LAYERS_WITH_ENDS { (4, count - 3) } else { (0, count.checked_sub(1)?) };
    if early == late {
        return None;
    }
    let (early_delta, late_delta) = (deltas[early]?, deltas[late]?);
    (late_delta > 0.0).then(|| (early_delta / late_delta, late - early))
}

/// The first layer's measured delta by the predicted one, where both are numbers that f32 holds with all digits.
fn delta_by_prediction(activations: &[ActivationRow]) -> Option<f64> {
    let row = whole_layers(activations).find(|row| row.delta_l2_predicted.is_some())?;
    let (measured, predicted) = (row.delta_l2?, row.delta_l2_predicted?);
    (measured > LEAST_NORM && predicted > LEAST_NORM).then(|| measured / predicted)
}

fn input_gradient_ratio(activations: &[ActivationRow], at: Option<&ActivationRow>) -> Option<f64> {
    let step = at?.step;
    let rows: Vec<&ActivationRow> = whole_layers(activations).filter(|row| row.step == step).collect();
    match rows[..] {
        [input, .., output] => {
            let (input, output) = (input.input_grad_l2?, output.input_grad_l2?);
            (output > 0.0).then(|| input / output)
        }
        _ => None,
    }
}

/// The runs of one configuration: equal levels, different seeds.
#[derive(Clone, Debug)]
pub struct Configuration<'a> {
    /// The level of each factor.
    pub levels: &'a [String],
    /// One summary a seed.
    pub runs: Vec<&'a RunSummary>,
}

impl Configuration<'_> {
    /// The values of a quantity over the seeds that have it.
    pub fn values(&self, quantity: impl Fn(&RunSummary) -> Option<f64>) -> Vec<f64> {
        self.runs.iter().filter_map(|run| quantity(run)).collect()
    }

    /// The factor by which the delta changes from a layer to the one before it, at the first measured step: the root of the
    /// mean square over seeds. Mean field theory gives it as sqrt(chi) (Schoenholz et al. 2017, equation 9); a mean of
    /// logarithms would be too low.
    pub fn delta_rate(&self) -> Option<f64> {
        let squares = self.values(|run| run.delta_ratio_first.map(|ratio| ratio * ratio));
        let layers = self.runs.iter().find_map(|run| run.delta_ratio_layers)?;
        Some(mean(&squares)?.powf(1.0 / (2.0 * layers as f64)))
    }

    /// The measured delta by the predicted one: the root of the mean square over seeds, which is what is predicted.
    pub fn delta_by_prediction(&self) -> Option<f64> {
        mean(&self.values(|run| run.delta_by_prediction.map(|ratio| ratio * ratio))).map(f64::sqrt)
    }

    /// The runs that diverged.
    pub fn diverged(&self) -> usize {
        let is_diverged = |run: &&&RunSummary| matches!(run.status, RunStatus::Diverged { .. });
        self.runs.iter().filter(is_diverged).count()
    }
}

/// Groups runs by configuration, in the order of the first run of each.
pub fn configurations(runs: &[RunSummary]) -> Vec<Configuration<'_>> {
    let mut configurations: Vec<Configuration<'_>> = Vec::new();
    for run in runs {
        match configurations.iter_mut().find(|known| known.levels == run.levels) {
            Some(known) => known.runs.push(run),
            None => configurations.push(Configuration { levels: &run.levels, runs: vec![run] }),
        }
    }
    configurations
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gradient_that_shrinks_tenfold_a_layer_loses_one_decade_a_layer() {
        let profile = [Some(1e-5), Some(1e-4), Some(1e-3), Some(1e-2)];
        assert!((decades_lost(&profile).expect("four layers") - 1.0).abs() < 1e-12);
        assert!((first_to_last(&profile).expect("four layers") - 1e-3).abs() < 1e-15);
    }

    #[test]
    fn a_gradient_that_is_0_has_a_ratio_of_0_and_no_slope() {
        let profile = [Some(0.0), Some(1e-3)];
        assert_eq!((first_to_last(&profile), decades_lost(&profile)), (Some(0.0), None));
        assert_eq!((first_to_last(&[None, Some(1.0)]), decades_lost(&[Some(1.0)])), (None, None));
    }

    #[test]
    fn the_probe_ratio_pairs_samples_that_were_taken_together() {
        let row = |sample, elapsed_ms, probe| ThroughputRow {
            run_id: "r".to_owned(),
            phase: ThroughputPhase::Steady,
            sample,
            steps: 2,
            elapsed_ms,
            steps_per_second: 2e3 / elapsed_ms,
            examples_per_second: 64e3 / elapsed_ms,
            flops_per_second: 0.0,
            probe,
        };
        // The machine slows down fivefold; the probe costs a tenth throughout.
        let rows = RunRows {
            throughput: (0..10)
                .flat_map(|sample| {
                    let ms = 10.0 * (1.0 + sample as f64 * 0.5);
                    [row(sample, ms, ProbeLoad::Off), row(sample, ms * 1.1, ProbeLoad::Parameters)]
                })
                .collect(),
            ..RunRows::default()
        };
        let summary = summarize("r", vec![], 1, RunStatus::Complete, &rows);
        let ratio = summary.probe_ratio.expect("ten pairs");
        assert!((ratio.median - 1.1).abs() < 1e-9 && (ratio.high - ratio.low).abs() < 1e-9, "{ratio:?}");
        assert_eq!(summary.probe_parameters_ratio, summary.probe_ratio);
        assert!((summary.step_time_ms.expect("ten").median - 16.25).abs() < 1e-9);
    }

    fn activation(step: usize, layer: usize, delta: f64) -> ActivationRow {
        ActivationRow {
            run_id: "r".to_owned(),
            step,
            layer_index: layer,
            layer: format!("hidden.{layer}"),
            delta_l2: Some(delta),
            input_grad_l2: Some(delta * 3.0),
            ..ActivationRow::default()
        }
    }

    #[test]
    fn the_rate_of_deltas_leaves_out_the_ends_of_deep_networks_and_is_a_root_mean_square() {
        // A factor of .5 a layer, but for the ends; later steps do not count.
        let profile = |layer: usize| if (4..=17).contains(&layer) { 0.5_f64.powi(17 - layer as i32) } else { 7.0 };
        let mut rows: Vec<ActivationRow> = (0..20).map(|layer| activation(0, layer, profile(layer))).collect();
        rows.push(activation(1, 0, 1e9));
        let (ratio, layers) = delta_ratio(&rows).expect("20 layers");
        assert_eq!(layers, 13);
        assert!((ratio / 0.5_f64.powi(13) - 1.0).abs() < 1e-12);
        assert_eq!(input_gradient_ratio(&rows, rows.first()), Some(1.0));
        let summary = |ratio: f64| RunSummary {
            delta_ratio_first: Some(ratio),
            delta_ratio_layers: Some(2),
            ..summarize("r", vec![], 1, RunStatus::Complete, &RunRows::default())
        };
        let (low, high) = (summary(0.0), summary(2.0_f64.sqrt()));
        let configuration = Configuration { levels: &[], runs: vec![&low, &high] };
        assert!((configuration.delta_rate().expect("two seeds") - 1.0).abs() < 1e-12);
    }

    /// The state of a recurrent layer at every time step, the gradient shrinking by a factor a time step on its way back.
    fn states(step: usize, layer: usize, hidden: f64, cell: Option<f64>) -> Vec<ActivationRow> {
        let shrunk = |factor: f64, time_step: usize| 7.0 * factor.powi(10 - time_step as i32);
        let row = |time_step| ActivationRow {
            time_step: Some(time_step),
            delta_l2: None,
            input_grad_l2: None,
            hidden_grad_l2: Some(shrunk(hidden, time_step)),
            cell_grad_l2: cell.map(|cell| shrunk(cell, time_step)),
            ..activation(step, layer, 0.0)
        };
        (0..=10).map(row).collect()
    }

    fn summary_of(activations: Vec<ActivationRow>) -> RunSummary {
        summarize("r", vec![], 1, RunStatus::Complete, &RunRows { activations, ..RunRows::default() })
    }

    #[test]
    fn a_state_gradient_that_halves_a_time_step_loses_log10_of_2_decades_and_1024_times_in_10_steps() {
        let step = |step, hidden, cell| [states(step, 0, hidden, cell), states(step, 1, 0.9, None)].concat();
        let summary = summary_of([step(0, 0.5, Some(0.1)), step(3, 0.7, None), step(9, 2.0, Some(1.0))].concat());
        let close = |found: Option<f64>, expected: f64| {
            let found = found.expect("finite");
            assert!((found - expected).abs() < 1e-9 * expected.abs(), "{found}, expected {expected}");
        };
        close(summary.decades_lost_per_time_step_first, 2.0_f64.log10());
        close(summary.decades_lost_per_time_step_last, -(2.0_f64.log10()));
        close(summary.hidden_grad_ratio_first, 1.0 / 1024.0);
        close(summary.hidden_grad_ratio_last, 1024.0);
        close(summary.cell_grad_ratio_first, 1e-10);
        close(summary.cell_grad_ratio_last, 1.0);
    }

    #[test]
    fn a_state_gradient_that_has_vanished_does_not_enter_the_slope_and_none_at_the_end_has_no_ratio() {
        let mut rows = states(0, 0, 0.5, None);
        rows[0].hidden_grad_l2 = Some(0.0);
        rows[1].hidden_grad_l2 = Some(1e-40);
        let summary = summary_of(rows.clone());
        assert_eq!(summary.hidden_grad_ratio_first, Some(0.0));
        let slope = summary.decades_lost_per_time_step_first.expect("of the others");
        assert!((slope - 2.0_f64.log10()).abs() < 1e-9, "{slope}");
        assert_eq!(summary.cell_grad_ratio_first, None);
        rows[10].hidden_grad_l2 = Some(0.0);
        assert_eq!(summary_of(rows.clone()).hidden_grad_ratio_first, None);
        rows[10].hidden_grad_l2 = None;
        assert_eq!(summary_of(rows).hidden_grad_ratio_first, None);
        let summary = summary_of((0..3).map(|layer| activation(0, layer, 1.0)).collect());
        assert_eq!((summary.has_states, summary.hidden_grad_ratio_last), (false, None));
    }

    #[test]
    fn rows_of_time_steps_are_no_layers() {
        let layers = |with_states: bool| -> Vec<ActivationRow> {
            let rows =
                |layer| [vec![activation(0, layer, 0.25_f64.powi(2 - layer as i32))], states(0, layer, 0.5, None)];
            (0..3).flat_map(|layer| rows(layer).into_iter().take(if with_states { 2 } else { 1 }).flatten()).collect()
        };
        let (with, without) = (summary_of(layers(true)), summary_of(layers(false)));
        assert_eq!((with.delta_ratio_first, with.delta_ratio_layers), (Some(0.0625), Some(2)));
        assert_eq!(with.delta_ratio_first, without.delta_ratio_first);
        assert_eq!(with.input_gradient_ratio_first, Some(0.0625));
    }

    #[test]
    fn the_columns_of_the_summary_are_in_the_order_of_its_fields() {
        let summary = RunSummary {
            delta_by_prediction: Some(0.5),
            input_gradient_ratio_first: Some(1.0),
            input_gradient_ratio_last: Some(1.5),
            hidden_grad_ratio_first: Some(2.0),
            hidden_grad_ratio_last: Some(3.0),
            cell_grad_ratio_first: Some(4.0),
            cell_grad_ratio_last: Some(5.0),
            decades_lost_per_time_step_first: Some(6.0),
            decades_lost_per_time_step_last: Some(7.0),
            ..summary_of(Vec::new())
        };
        let fields = summary.fields();
        let named: Vec<(&str, &str)> =
            RunSummary::COLUMNS.iter().copied().zip(fields.iter().map(String::as_str)).skip(16).take(9).collect();
        assert_eq!(
            named,
            [
                ("delta_by_prediction", "0.5"),
                ("input_gradient_ratio_first", "1"),
                ("input_gradient_ratio_last", "1.5"),
                ("hidden_grad_ratio_first", "2"),
                ("hidden_grad_ratio_last", "3"),
                ("cell_grad_ratio_first", "4"),
                ("cell_grad_ratio_last", "5"),
                ("decades_lost_per_time_step_first", "6"),
                ("decades_lost_per_time_step_last", "7"),
            ]
        );
    }

    #[test]
    fn the_first_predicted_layer_is_compared_and_what_has_left_f32_is_not() {
        let row = |layer: usize, delta_l2, delta_l2_predicted| ActivationRow {
            layer_index: layer,
            layer: format!("hidden.{layer}"),
            delta_l2: Some(delta_l2),
            delta_l2_predicted,
            ..ActivationRow::default()
        };
        let rows = [row(0, 9.0, None), row(1, 3.0, Some(2.0)), row(2, 5.0, Some(1.0))];
        assert_eq!(delta_by_prediction(&rows), Some(1.5));
        assert_eq!(delta_by_prediction(&[row(0, 1e-40, Some(2e-40)), row(1, 3.0, Some(2.0))]), None);
        assert_eq!(delta_by_prediction(&[row(0, 9.0, None)]), None);
        // The root of the mean square over seeds.
        let runs = [3.0, 4.0].map(|ratio| RunSummary { delta_by_prediction: Some(ratio), ..summary_of(Vec::new()) });
        assert_eq!(configurations(&runs)[0].delta_by_prediction(), Some(12.5_f64.sqrt()));
    }

    #[test]
    fn fields_and_columns_are_equally_many() {
        let summary = summarize("r", vec![], 1, RunStatus::Diverged { diverged_at_step: 3 }, &RunRows::default());
        assert_eq!(summary.fields().len(), RunSummary::COLUMNS.len());
        assert_eq!(summary.fields()[..3], ["diverged", "3", ""]);
    }
}
