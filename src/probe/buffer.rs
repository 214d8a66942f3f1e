//! Readings that wait on the device, and the rows that they become.

use burn::module::ParamId;
use burn::tensor::{Tensor, Transaction};

use super::seeds::Numbers;
use super::{NamedTensor, Schedule, clip, coverage, finite, gradient, layer};
use crate::config::{ActivationFunction, ProbeConfig};
use crate::kernel::{GradientSummary, Pieces, Reading, UpdateSummary, values_of};
use crate::network::{Network, Wanted};
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
    /// What the parameters are called, known from the first measured step on.
    parameters: Vec<gradient::Parameter>,
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
    /// Whether it is measured, and not only checked or dumped.
    pub is_measured: bool,
    /// The gradients of the parameters.
    pub gradients: gradient::Measurement,
    /// The weights and the updates of the same parameters, in the same order, read as [`UpdateSummary`].
    pub updates: Reading,
    /// Whether the step changed the parameters.
    pub is_updated: bool,
    /// The layers.
    pub layers: layer::Measurement,
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
            parameters: Vec::new(),
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
        Wanted { inputs: self.config.inputs, deltas: self.config.units, time_steps: self.config.time_steps }
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

    /// Learns what the parameters of the network are called that it measures, once.
    pub fn name_parameters(&mut self, network: &Network) {
        if self.parameters.is_empty() {
            self.parameters = gradient::parameters(network, self.run_ids.len());
        }
    }

    /// Keeps the measurements of a step.
    pub fn keep_step(&mut self, mut step: PendingStep) {
        self.tensors = step.tensors.take();
        self.coverage = step.coverage.take().or(self.coverage.take());
        if step.is_measured {
            self.steps.push(step);
        }
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
        let measurement = LossMeasurement { loss: result.into(), penalty: None, clip: None };
        self.losses.push(PendingLoss { row, measurement, judgement });
    }

    /// Reads everything that is pending of a single run. Waits for the device.
    ///
    /// # Errors
    ///
    /// If the device cannot be read.
    pub fn read(&mut self) -> Result<Rows, ReadError> {
        Ok(self.read_each()?.next().unwrap_or_default())
    }

    /// Reads everything that is pending; returns the rows of one run after the other, so that those of many runs do not take memory at
    /// the same time. Waits for the device.
    ///
    /// # Errors
    ///
    /// If the device cannot be read.
    pub fn read_each(&mut self) -> Result<impl Iterator<Item = Rows>, ReadError> {
        let mut readings = Vec::new();
        let headers = self.take(&mut readings);
        let numbers = fetch(readings)?;
        let runs = self.run_ids.len();
        let this = &*self;
        let rows_of = move |(run, run_id): (usize, &String)| {
            let mut rows = headers.fill(&mut Numbers::of_run(&numbers, run, runs), &this.parameters, this.function);
            rows.set_run_id(run_id);
            rows
        };
        Ok(this.run_ids.iter().enumerate().map(rows_of))
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
struct Headers {
    losses: Vec<LossHeader>,
    steps: Vec<StepHeader>,
    coverage: Option<coverage::Header>,
}

impl Headers {
    /// The rows of a run from its readings, which are in the order in which they were taken.
    fn fill(
        &self,
        numbers: &mut Numbers<'_>,
        parameters: &[gradient::Parameter],
        function: ActivationFunction,
    ) -> Rows {
        let mut rows = Rows {
            gradients: Vec::with_capacity(self.steps.iter().map(|step| step.gradients.len()).sum()),
            activations: Vec::with_capacity(self.steps.iter().map(|step| step.layers.count()).sum()),
            steps: Vec::with_capacity(self.losses.len()),
            ..Rows::default()
        };
        let mut nonfinite = Vec::new();
        for header in &self.losses {
            let (row, is_finite) = header.fill(numbers);
            nonfinite.extend((!is_finite).then_some(row.step));
            rows.steps.push(row);
        }
        for header in &self.steps {
            let start = rows.gradients.len();
            header.fill(numbers, parameters, &mut rows.gradients);
            let filled = &rows.gradients[start..];
            set_global_norm(&mut rows.steps, filled);
            nonfinite.extend(filled.iter().find(|row| row.nonfinite_count > 0).map(|row| row.step));
            header.layers.fill(header.step, numbers, function, &mut rows);
        }
        rows.coverage = self.coverage.as_ref().map(|header| header.fill(numbers));
        rows.first_nonfinite_step = nonfinite.into_iter().min();
        rows
    }
}

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
    fn fill(&self, numbers: &mut Numbers<'_>) -> (StepRow, bool) {
        let mut row = self.row.clone();
        let read = numbers.next();
        row.loss = finite(read.first());
        // Which output of a network without finite outputs is the largest says nothing.
        let judged = row.loss.and(read.get(1).copied());
        match self.judgement {
            Judgement::Accuracy => row.accuracy = judged,
            Judgement::ReconstructionError => row.reconstruction_error = finite(judged.as_ref()),
        }
        if self.has_penalty {
            row.penalty = finite(numbers.next().first());
        }
        let clip = self.clip.as_ref().map(|header| header.fill(numbers));
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

/// What is kept of a step while its readings are on the way.
struct StepHeader {
    step: usize,
    /// The parameters that have a gradient.
    gradients: Vec<ParamId>,
    is_updated: bool,
    layers: layer::Header,
}

impl PendingStep {
    fn take(self, readings: &mut Vec<Reading>) -> StepHeader {
        let Self { step, gradients, updates, is_updated, layers, .. } = self;
        readings.extend([gradients.reading, updates]);
        StepHeader { step, gradients: gradients.ids, is_updated, layers: layers.take(readings) }
    }
}

impl StepHeader {
    /// Adds the rows of the parameters.
    fn fill(&self, numbers: &mut Numbers<'_>, parameters: &[gradient::Parameter], rows: &mut Vec<GradientRow>) {
        let gradients = numbers.next_of(self.gradients.len());
        let updates = numbers.next_of(self.gradients.len());
        // Both are in the order of the network.
        let mut wanted = self.gradients.iter().peekable();
        let parameters = parameters.iter().filter(|parameter| wanted.next_if_eq(&&parameter.id).is_some());
        let mut layer_index = 0;
        let mut layer_before = None;
        for ((parameter, gradient), update) in parameters.zip(gradients).zip(updates) {
            let layer = layer_of(&parameter.name);
            // Layers are numbered in the order in which the network names them. What ends a network of pre-activation blocks counts
            // with the output layer, so that layers have the same numbers in every file.
            layer_index += usize::from(layer_before.is_some_and(|before| before != layer && before != "end"));
            layer_before = Some(layer);
            let mut row = GradientRow {
                step: self.step,
                layer_index,
                layer: layer.to_owned(),
                parameter: parameter.name.clone(),
                element_count: parameter.element_count,
                ..GradientRow::default()
            };
            set_gradient(&mut row, &GradientSummary::from_reading(gradient));
            set_update(&mut row, &UpdateSummary::from_reading(update), self.is_updated);
            rows.push(row);
        }
    }
}

/// The layer of a parameter: `hidden.3` of `hidden.3.norm.gamma`, `output` of `output.weight`.
fn layer_of(parameter: &str) -> &str {
    let parts = if parameter.starts_with("hidden.") { 2 } else { 1 };
    parameter.match_indices('.').nth(parts - 1).map_or(parameter, |(end, _)| &parameter[..end])
}

fn set_gradient(row: &mut GradientRow, gradient: &GradientSummary) {
    row.zero_count = gradient.zeros;
    row.nonfinite_count = gradient.nonfinite;
    if gradient.nonfinite == 0 {
        row.grad_l2 = gradient.norm.l2();
        row.grad_rms = gradient.norm.rms(row.element_count);
        row.grad_max_abs = Some(gradient.norm.max_abs);
    }
}

fn set_update(row: &mut GradientRow, update: &UpdateSummary, is_updated: bool) {
    row.weight_l2 = update.weight.l2();
    if is_updated {
        row.update_l2 = update.update.l2();
        row.update_ratio = match (row.weight_l2, row.update_l2) {
            (Some(weight), Some(update)) if weight > 0.0 => finite(Some(&(update / weight))),
            _ => None,
        };
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

/// Brings the readings to the host, in their order, in one transfer. Waits for the device.
///
/// # Errors
///
/// If the device cannot be read.
pub fn fetch(readings: Vec<Reading>) -> Result<Vec<Vec<f64>>, ReadError> {
    let mut transaction = Transaction::default();
    let mut slots = Vec::with_capacity(readings.len());
    for reading in readings {
        let slot = match reading {
            Reading::Host(values) => Slot::Here(values),
            Reading::Device(tensors) => {
                let count = tensors.len();
                transaction = tensors.into_iter().fold(transaction, Transaction::register);
                Slot::Vectors(count)
            }
            Reading::Pieces(kind, tensor) => {
                transaction = transaction.register(tensor);
                Slot::Pieces(kind)
            }
        };
        slots.push(slot);
    }
    let waits = slots.iter().any(|slot| !matches!(slot, Slot::Here(_) | Slot::Vectors(0)));
    let read =
        if waits { transaction.try_execute().map_err(|error| ReadError(error.to_string()))? } else { Vec::new() };
    let mut read = read.iter();
    let fill = |slot: Slot| match slot {
        Slot::Here(values) => values,
        Slot::Vectors(count) => read.by_ref().take(count).flat_map(values_of).collect(),
        Slot::Pieces(kind) => read.next().map_or_else(Vec::new, |data| kind.merged(data)),
    };
    Ok(slots.into_iter().map(fill).collect())
}

/// Where the numbers of a reading come from.
enum Slot {
    /// They are here.
    Here(Vec<f64>),
    /// So many vectors of the transfer.
    Vectors(usize),
    /// One tensor of it.
    Pieces(Pieces),
}
