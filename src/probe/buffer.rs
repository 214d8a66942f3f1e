//! Readings that wait on the device, and the rows that they become.

use burn::tensor::{Tensor, Transaction};

use super::{NamedTensor, Schedule, clip, coverage, gradient, layer, recurrence, seeds};
use crate::config::{ActivationFunction, ProbeConfig};
use crate::kernel::{ActivationSummary, DeltaSummary, GradientSummary, Reading, UpdateSummary, values_of};
use crate::network::{Wanted, flat_parts, has_dead_units};
use crate::schema::{ActivationRow, GateRow, GradientCoverage, GradientRow, StepPhase, StepRow, UnitRow};

/// The device could not be read: it was lost, or ran out of memory.
#[derive(Debug, thiserror::Error)]
#[error("the device cannot be read: {0}")]
pub struct ReadError(pub String);

/// What a run, or several that train together, have measured and not yet read, for one transfer every so many steps.
///
/// Every reading holds as many numbers of each run, those of the first run first.
#[derive(Debug)]
pub struct Probe {
    run_ids: Vec<String>,
    config: ProbeConfig,
    function: ActivationFunction,
    /// Of a training; without one every step that the probe is handed is measured.
    schedule: Option<Schedule>,
    losses: Vec<PendingLoss>,
    steps: Vec<PendingStep>,
    coverage: Option<coverage::Measurement>,
    tensors: Option<Vec<NamedTensor>>,
}

#[derive(Debug)]
struct PendingLoss {
    row: StepRow,
    measurement: LossMeasurement,
    judgement: Judgement,
}

/// What the second number of an evaluation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Judgement {
    /// The fraction of right answers.
    Accuracy,
    /// The mean squared distance between inputs and their reconstructions.
    ReconstructionError,
}

/// The loss of a step and what belongs to the step as a whole.
#[derive(Debug)]
pub struct LossMeasurement {
    /// The loss `[1]`, or the loss and what judges it `[2]`, where something does; of each seed.
    pub loss: Reading,
    /// The penalties `[1]`; of each seed.
    pub penalty: Option<Reading>,
    /// What clipping did.
    pub clip: Option<clip::Measurement>,
}

/// One measured step.
#[derive(Debug, Default)]
pub struct PendingStep {
    /// The step, from 0.
    pub step: usize,
    /// The gradient of every parameter.
    pub gradients: Vec<gradient::Measurement>,
    /// The weight and the update of every parameter, in the same order.
    pub updates: Vec<Reading>,
    /// Whether the step changed the parameters.
    pub is_updated: bool,
    /// The layers.
    pub layers: Vec<layer::Measurement>,
    /// Whether every parameter has a gradient.
    pub coverage: Option<coverage::Measurement>,
    /// What is to be dumped.
    pub tensors: Option<Vec<NamedTensor>>,
}

/// Rows that were read.
#[derive(Debug, Default)]
pub struct Rows {
    /// For `gradients.csv`.
    pub gradients: Vec<GradientRow>,
    /// For `activations.csv`.
    pub activations: Vec<ActivationRow>,
    /// For `units.csv`.
    pub units: Vec<UnitRow>,
    /// For `gates.csv`.
    pub gates: Vec<GateRow>,
    /// For `steps.csv`.
    pub steps: Vec<StepRow>,
    /// Whether every parameter had a gradient at the first step, if that step is among those that were read.
    pub coverage: Option<GradientCoverage>,
    /// The first step whose loss or gradient is not finite.
    pub first_nonfinite_step: Option<usize>,
}

impl Probe {
    /// A probe of the quantities of a config, which measures every step that it is handed.
    pub fn new(run_id: &str, config: &ProbeConfig, function: ActivationFunction) -> Self {
        Self::of_runs(vec![run_id.to_owned()], config, function)
    }

    /// The same of runs that train together, in the order of their seeds.
    pub fn of_runs(run_ids: Vec<String>, config: &ProbeConfig, function: ActivationFunction) -> Self {
        Self {
            run_ids,
            config: config.clone(),
            function,
            schedule: None,
            losses: Vec::new(),
            steps: Vec::new(),
            coverage: None,
            tensors: None,
        }
    }

    /// The same for a training of so many steps: it measures those that the config schedules, takes hold of the tensors of
    /// those that the config dumps, and checks at the first one whether every parameter has a gradient.
    #[must_use]
    pub fn of_training(self, steps: usize) -> Self {
        Self { schedule: Some(Schedule::new(&self.config, steps)), ..self }
    }

    /// Whether a step is measured.
    pub fn measures(&self, step: usize) -> bool {
        self.schedule.as_ref().is_none_or(|schedule| schedule.measures(step))
    }

    /// Whether it is checked at a step that every parameter has a gradient.
    pub fn checks_coverage(&self, step: usize) -> bool {
        self.schedule.is_some() && step == 0
    }

    /// Whether the tensors of a step are dumped.
    pub fn dumps(&self, step: usize) -> bool {
        self.schedule.is_some() && self.config.dump.contains(&step)
    }

    /// Whether hidden layers are measured.
    pub fn wants_layers(&self) -> bool {
        self.config.activations
    }

    /// What a traced pass must leave behind.
    pub fn wanted(&self) -> Wanted {
        Wanted { inputs: self.config.inputs, time_steps: self.config.time_steps }
    }

    /// Whether units are measured one by one.
    pub fn wants_units(&self) -> bool {
        self.config.units
    }

    /// Whether parameters are measured.
    pub fn wants_parameters(&self) -> bool {
        self.config.parameters
    }

    /// The activation function of the hidden layers.
    pub fn function(&self) -> ActivationFunction {
        self.function
    }

    /// Keeps the measurements of a step.
    pub fn keep_step(&mut self, mut step: PendingStep) {
        self.tensors = step.tensors.take();
        self.coverage = step.coverage.take().or(self.coverage.take());
        self.steps.push(step);
    }

    /// The tensors of the last step, if it is to be dumped.
    pub fn take_tensors(&mut self) -> Option<Vec<NamedTensor>> {
        self.tensors.take()
    }

    /// Keeps the loss of a step's mini-batch.
    pub fn keep_loss(&mut self, step: usize, epoch: usize, learning_rate: Option<f64>, loss: LossMeasurement) {
        let row = StepRow { step, epoch, phase: StepPhase::Train, learning_rate, ..StepRow::default() };
        self.losses.push(PendingLoss { row, measurement: loss, judgement: Judgement::Accuracy });
    }

    /// Keeps the loss of a whole split and what judges it, `[2]`, or the loss alone `[1]`; of each seed.
    pub fn keep_evaluation(
        &mut self,
        step: usize,
        epoch: usize,
        phase: StepPhase,
        result: Tensor<1>,
        judgement: Judgement,
    ) {
        let row = StepRow { step, epoch, phase, ..StepRow::default() };
        let measurement = LossMeasurement { loss: Reading::Device(result), penalty: None, clip: None };
        self.losses.push(PendingLoss { row, measurement, judgement });
    }

    /// Reads everything that is pending of a single run. Waits for the device.
    ///
    /// # Errors
    ///
    /// If the device cannot be read.
    pub fn read(&mut self) -> Result<Rows, ReadError> {
        Ok(self.read_each()?.pop().unwrap_or_default())
    }

    /// Reads everything that is pending; returns the rows of each run. Waits for the device.
    ///
    /// # Errors
    ///
    /// If the device cannot be read.
    pub fn read_each(&mut self) -> Result<Vec<Rows>, ReadError> {
        let mut readings = Vec::new();
        let headers = self.take(&mut readings);
        let values = fetch(readings)?;
        let runs = self.run_ids.len();
        if let [run_id] = &self.run_ids[..] {
            let mut rows = headers.fill(&mut values.into_iter(), self.function);
            rows.set_run_id(run_id);
            return Ok(vec![rows]);
        }
        let rows_of = |(place, run_id): (usize, &String)| {
            let mut of_run = values.iter().map(|numbers| seeds::part(numbers, runs, place));
            let mut rows = headers.clone().fill(&mut of_run, self.function);
            rows.set_run_id(run_id);
            rows
        };
        Ok(self.run_ids.iter().enumerate().map(rows_of).collect())
    }

    /// Moves all readings behind the others and keeps what the rows need beside them.
    fn take(&mut self, readings: &mut Vec<Reading>) -> Headers {
        let losses = std::mem::take(&mut self.losses).into_iter().map(|loss| loss.take(readings)).collect();
        let steps = std::mem::take(&mut self.steps).into_iter().map(|step| step.take(readings)).collect();
        let coverage = self.coverage.take().map(|coverage| coverage.take(readings));
        Headers { losses, steps, coverage }
    }
}

impl Rows {
    fn set_run_id(&mut self, run_id: &str) {
        let Self { gradients, activations, units, gates, steps, .. } = self;
        let ids = gradients.iter_mut().map(|row| &mut row.run_id);
        let ids = ids.chain(activations.iter_mut().map(|row| &mut row.run_id));
        let ids = ids.chain(units.iter_mut().map(|row| &mut row.run_id));
        let ids = ids.chain(gates.iter_mut().map(|row| &mut row.run_id));
        for id in ids.chain(steps.iter_mut().map(|row| &mut row.run_id)) {
            run_id.clone_into(id);
        }
    }
}

/// What the rows of a run need beside their readings; all runs that train together have the same. Rows get the id of their run
/// when they are filled.
#[derive(Clone)]
struct Headers {
    losses: Vec<LossHeader>,
    steps: Vec<(Vec<GradientHeader>, Vec<LayerHeader>)>,
    coverage: Option<coverage::Header>,
}

impl Headers {
    /// The rows of a run from its readings, which are in the order in which they were taken.
    fn fill(self, values: &mut impl Iterator<Item = Vec<f64>>, function: ActivationFunction) -> Rows {
        let mut rows = Rows::default();
        let mut nonfinite = Vec::new();
        for header in self.losses {
            let (row, is_finite) = header.fill(values);
            nonfinite.extend((!is_finite).then_some(row.step));
            rows.steps.push(row);
        }
        for (gradients, layers) in self.steps {
            let start = rows.gradients.len();
            for header in gradients {
                rows.gradients.push(header.fill(values));
            }
            let filled = &rows.gradients[start..];
            set_global_norm(&mut rows.steps, filled);
            nonfinite.extend(filled.iter().find(|row| row.nonfinite_count > 0).map(|row| row.step));
            for header in layers {
                header.fill(values, function, &mut rows);
            }
        }
        rows.coverage = self.coverage.map(|header| header.fill(values));
        rows.first_nonfinite_step = nonfinite.into_iter().min();
        rows
    }
}

#[derive(Clone)]
struct LossHeader {
    row: StepRow,
    judgement: Judgement,
    has_penalty: bool,
    clip: Option<clip::Header>,
}

impl PendingLoss {
    fn take(self, readings: &mut Vec<Reading>) -> LossHeader {
        let Self { row, measurement, judgement } = self;
        readings.push(measurement.loss);
        let has_penalty = measurement.penalty.is_some();
        readings.extend(measurement.penalty);
        LossHeader { row, judgement, has_penalty, clip: measurement.clip.map(|clip| clip.take(readings)) }
    }
}

impl LossHeader {
    /// The row of a step, and whether its loss and the norm of its gradients are finite.
    fn fill(self, values: &mut impl Iterator<Item = Vec<f64>>) -> (StepRow, bool) {
        let mut row = self.row;
        let read = values.next().unwrap_or_default();
        row.loss = finite(read.first());
        // Which output of a network without finite outputs is the largest says nothing.
        let judged = row.loss.and(read.get(1).copied());
        match self.judgement {
            Judgement::Accuracy => row.accuracy = judged,
            Judgement::ReconstructionError => row.reconstruction_error = finite(judged.as_ref()),
        }
        if self.has_penalty {
            row.penalty = finite(values.next().unwrap_or_default().first());
        }
        let clip = self.clip.map(|header| header.fill(values));
        if let Some(clip) = clip {
            row.grad_l2_before_clip = clip.l2_before;
            row.grad_l2_after_clip = clip.l2_after;
            row.clip_coefficient = clip.coefficient;
            row.clipped_fraction = clip.clipped_fraction;
        }
        let is_finite = row.loss.is_some() && clip.is_none_or(|clip| clip.l2_before.is_some());
        (row, is_finite)
    }
}

impl PendingStep {
    fn take(self, readings: &mut Vec<Reading>) -> (Vec<GradientHeader>, Vec<LayerHeader>) {
        let mut updates = self.updates.into_iter();
        let mut gradients = Vec::new();
        for measurement in self.gradients {
            let row = gradient_row(self.step, measurement.parameter, measurement.element_count);
            gradients.push(GradientHeader { row, is_updated: self.is_updated });
            readings.push(measurement.reading);
            readings.extend(updates.next());
        }
        number_layers(&mut gradients);
        let layers = self.layers.into_iter().map(|layer| LayerHeader::take(self.step, layer, readings)).collect();
        (gradients, layers)
    }
}

fn gradient_row(step: usize, parameter: String, element_count: usize) -> GradientRow {
    let layer = layer_of(&parameter).to_owned();
    GradientRow { step, layer, parameter, element_count, ..GradientRow::default() }
}

/// The layer of a parameter: `hidden.3` of `hidden.3.norm.gamma`, `output` of `output.weight`.
fn layer_of(parameter: &str) -> &str {
    let parts = if parameter.starts_with("hidden.") { 2 } else { 1 };
    parameter.match_indices('.').nth(parts - 1).map_or(parameter, |(end, _)| &parameter[..end])
}

/// Gives the layers their numbers in the order in which the network names them. What ends a network of pre-activation blocks
/// counts with the output layer, so that layers have the same numbers in every file.
fn number_layers(gradients: &mut [GradientHeader]) {
    let mut index = 0;
    for place in 1..gradients.len() {
        let before = &gradients[place - 1].row.layer;
        if gradients[place].row.layer != *before && before != "end" {
            index += 1;
        }
        gradients[place].row.layer_index = index;
    }
}

#[derive(Clone)]
struct GradientHeader {
    row: GradientRow,
    is_updated: bool,
}

impl GradientHeader {
    fn fill(self, values: &mut impl Iterator<Item = Vec<f64>>) -> GradientRow {
        let mut row = self.row;
        let gradient = GradientSummary::from_reading(&values.next().unwrap_or_default());
        row.zero_count = gradient.zeros;
        row.nonfinite_count = gradient.nonfinite;
        if gradient.nonfinite == 0 {
            row.grad_l2 = gradient.norm.l2();
            row.grad_rms = gradient.norm.rms(row.element_count);
            row.grad_max_abs = Some(gradient.norm.max_abs);
        }
        let update = UpdateSummary::from_reading(&values.next().unwrap_or_default());
        row.weight_l2 = update.weight.l2();
        if self.is_updated {
            row.update_l2 = update.update.l2();
            row.update_ratio = match (row.weight_l2, row.update_l2) {
                (Some(weight), Some(update)) if weight > 0.0 => finite(Some(&(update / weight))),
                _ => None,
            };
        }
        row
    }
}

#[derive(Clone)]
struct LayerHeader {
    row: ActivationRow,
    has_delta: bool,
    has_input: bool,
    has_activation: bool,
    has_units: bool,
    is_gated: bool,
    recurrence: Option<recurrence::Header>,
}

impl LayerHeader {
    /// Moves the readings of a layer behind the others.
    fn take(step: usize, measurement: layer::Measurement, readings: &mut Vec<Reading>) -> Self {
        let layer::Measurement { layer_index, layer, delta, input, activation, units, recurrence, is_gated } =
            measurement;
        let mut header = Self {
            row: ActivationRow { step, layer_index, layer, ..ActivationRow::default() },
            has_delta: delta.is_some(),
            has_input: input.is_some(),
            has_activation: activation.is_some(),
            has_units: units.is_some(),
            is_gated,
            recurrence: None,
        };
        readings.extend([delta, input, activation, units].into_iter().flatten());
        header.recurrence = recurrence.map(|recurrence| recurrence.take(readings));
        header
    }

    /// Adds the rows of a layer from its readings.
    fn fill(self, values: &mut impl Iterator<Item = Vec<f64>>, function: ActivationFunction, rows: &mut Rows) {
        let mut row = self.row;
        let mut next = || values.next().unwrap_or_default();
        if self.has_delta {
            let delta = DeltaSummary::from_reading(&next());
            row.delta_l2 = delta.delta.l2();
            // The loss is a mean over the batch, so that the sum over the batch of its deltas is the mean of each
            // example's.
            row.mean_delta_l2 = delta.batch_sum.l2();
        }
        if self.has_input {
            row.input_grad_l2 = DeltaSummary::from_reading(&next()).delta.l2();
        }
        if self.has_activation {
            let activation = ActivationSummary::from_reading(&next());
            row.activation_mean = finite(Some(&activation.mean));
            row.activation_std = finite(Some(&activation.std));
            if row.activation_mean.is_some() && !self.is_gated {
                row.saturated_fraction = flat_parts(function).map(|_| activation.saturated_fraction);
                row.dead_fraction = has_dead_units(function).then_some(activation.dead_fraction);
            }
        }
        if self.has_units {
            rows.units.extend(next().into_iter().enumerate().map(|(unit, mean_delta)| UnitRow {
                run_id: row.run_id.clone(),
                step: row.step,
                layer_index: row.layer_index,
                layer: row.layer.clone(),
                unit,
                mean_delta: finite(Some(&mean_delta)),
            }));
        }
        let (states, gates) = self.recurrence.map(|header| header.fill(values, &row)).unwrap_or_default();
        rows.activations.push(row);
        rows.activations.extend(states);
        rows.gates.extend(gates);
    }
}

/// The norm of all gradients of a step as one vector, in the step's row.
fn set_global_norm(steps: &mut [StepRow], gradients: &[GradientRow]) {
    let Some(first) = gradients.first() else {
        return;
    };
    let norms: Option<Vec<f64>> = gradients.iter().map(|row| row.grad_l2).collect();
    // hypot neither overflows nor vanishes on the way.
    let total = norms.map(|norms| norms.into_iter().fold(0.0, f64::hypot));
    if let Some(row) = steps.iter_mut().find(|row| row.phase == StepPhase::Train && row.step == first.step) {
        row.grad_l2_before_clip = total;
    }
}

fn finite(value: Option<&f64>) -> Option<f64> {
    value.copied().filter(|value| value.is_finite())
}

/// Brings the readings to the host, in their order, in one transfer. Waits for the device.
///
/// # Errors
///
/// If the device cannot be read.
pub fn fetch(readings: Vec<Reading>) -> Result<Vec<Vec<f64>>, ReadError> {
    let mut transaction = Transaction::default();
    let mut waiting = 0;
    let mut slots = Vec::with_capacity(readings.len());
    for reading in readings {
        match reading {
            Reading::Host(values) => slots.push(Some(values)),
            Reading::Device(tensor) => {
                transaction = transaction.register(tensor);
                slots.push(None);
                waiting += 1;
            }
        }
    }
    let mut read =
        if waiting > 0 { transaction.try_execute().map_err(|error| ReadError(error.to_string()))? } else { Vec::new() }
            .into_iter();
    let fill = |slot: Option<Vec<f64>>| slot.or_else(|| read.next().map(|data| values_of(&data))).unwrap_or_default();
    Ok(slots.into_iter().map(fill).collect())
}
