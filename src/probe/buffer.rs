//! Readings that wait on the device, and the rows that they become.

use burn::tensor::{Tensor, Transaction};

use super::{gradient, layer};
use crate::config::{Activation, ProbeConfig};
use crate::kernel::{ActivationSummary, DeltaSummary, GradientSummary, Reading, UpdateSummary, values_of};
use crate::network::has_dead_units;
use crate::schema::{ActivationRow, GradientRow, StepPhase, StepRow};

/// The device could not be read: it was lost, or ran out of memory.
#[derive(Debug, thiserror::Error)]
#[error("the device cannot be read: {0}")]
pub struct ReadError(pub String);

/// What a run has measured and not yet read, for one transfer every so many steps.
#[derive(Debug)]
pub struct Probe {
    run_id: String,
    config: ProbeConfig,
    activation: Activation,
    losses: Vec<PendingLoss>,
    steps: Vec<PendingStep>,
}

#[derive(Debug)]
struct PendingLoss {
    row: StepRow,
    reading: Reading,
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
    /// The hidden layers.
    pub layers: Vec<layer::Measurement>,
}

/// Rows that were read.
#[derive(Debug, Default)]
pub struct Rows {
    /// For `gradients.csv`.
    pub gradients: Vec<GradientRow>,
    /// For `activations.csv`.
    pub activations: Vec<ActivationRow>,
    /// For `steps.csv`.
    pub steps: Vec<StepRow>,
}

impl Probe {
    /// A probe of the quantities of a config.
    pub fn new(run_id: &str, config: &ProbeConfig, activation: Activation) -> Self {
        Self { run_id: run_id.to_owned(), config: config.clone(), activation, losses: Vec::new(), steps: Vec::new() }
    }

    /// Whether hidden layers are measured.
    pub fn wants_layers(&self) -> bool {
        self.config.activations
    }

    /// Whether parameters are measured.
    pub fn wants_parameters(&self) -> bool {
        self.config.parameters
    }

    /// The activation function of the hidden layers.
    pub fn activation(&self) -> Activation {
        self.activation
    }

    /// Keeps the measurements of a step.
    pub fn keep_step(&mut self, step: PendingStep) {
        self.steps.push(step);
    }

    /// Keeps the loss `[1]` of a step's mini-batch.
    pub fn keep_loss(&mut self, step: usize, epoch: usize, learning_rate: Option<f64>, loss: Tensor<1>) {
        self.losses.push(PendingLoss {
            row: self.step_row(step, epoch, StepPhase::Train, learning_rate),
            reading: Reading::Device(loss.inner()),
        });
    }

    /// Keeps the loss and the accuracy `[2]` of a whole split.
    pub fn keep_evaluation(&mut self, step: usize, epoch: usize, phase: StepPhase, result: Tensor<1>) {
        self.losses
            .push(PendingLoss { row: self.step_row(step, epoch, phase, None), reading: Reading::Device(result) });
    }

    fn step_row(&self, step: usize, epoch: usize, phase: StepPhase, learning_rate: Option<f64>) -> StepRow {
        StepRow {
            run_id: self.run_id.clone(),
            step,
            epoch,
            phase,
            loss: None,
            accuracy: None,
            learning_rate,
            grad_l2_before_clip: None,
            grad_l2_after_clip: None,
            clip_coefficient: None,
            clipped_fraction: None,
        }
    }

    /// Reads everything that is pending. Waits for the device.
    ///
    /// # Errors
    ///
    /// If the device cannot be read.
    pub fn read(&mut self) -> Result<Rows, ReadError> {
        let losses = std::mem::take(&mut self.losses);
        let steps = std::mem::take(&mut self.steps);
        let (losses, loss_readings): (Vec<StepRow>, Vec<Reading>) =
            losses.into_iter().map(|loss| (loss.row, loss.reading)).unzip();
        let mut readings = loss_readings;
        let mut headers = Vec::new();
        for step in steps {
            headers.push(self.take_step(step, &mut readings));
        }
        let mut values = fetch(readings)?.into_iter();
        let mut rows = Rows::default();
        for mut row in losses {
            let read = values.next().unwrap_or_default();
            row.loss = finite(read.first());
            // Which output of a network without finite outputs is the largest says nothing.
            row.accuracy = row.loss.and(read.get(1).copied());
            rows.steps.push(row);
        }
        for (gradients, layers) in headers {
            let start = rows.gradients.len();
            for header in gradients {
                rows.gradients.push(header.fill(&mut values));
            }
            set_global_norm(&mut rows.steps, &rows.gradients[start..]);
            for row in layers {
                rows.activations.push(fill_layer(row, &mut values, self.activation));
            }
        }
        Ok(rows)
    }

    /// Moves the readings of a step behind the others and keeps what their rows need beside them.
    fn take_step(&self, step: PendingStep, readings: &mut Vec<Reading>) -> (Vec<GradientHeader>, Vec<ActivationRow>) {
        let mut updates = step.updates.into_iter();
        let mut gradients = Vec::new();
        for measurement in step.gradients {
            gradients.push(GradientHeader {
                row: self.gradient_row(step.step, measurement.parameter, measurement.element_count),
                is_updated: step.is_updated,
            });
            readings.push(measurement.reading);
            readings.extend(updates.next());
        }
        let mut layers = Vec::new();
        for measurement in step.layers {
            layers.push(ActivationRow {
                run_id: self.run_id.clone(),
                step: step.step,
                layer_index: measurement.layer_index,
                layer: measurement.layer,
                time_step: None,
                delta_l2: None,
                mean_delta_l2: None,
                activation_mean: None,
                activation_std: None,
                saturated_fraction: None,
                dead_fraction: None,
            });
            readings.extend([measurement.delta, measurement.activation]);
        }
        number_layers(&mut gradients);
        (gradients, layers)
    }

    fn gradient_row(&self, step: usize, parameter: String, element_count: usize) -> GradientRow {
        let layer = parameter.rsplit_once('.').map_or("", |(layer, _)| layer).to_owned();
        GradientRow {
            run_id: self.run_id.clone(),
            step,
            layer_index: 0,
            layer,
            parameter,
            time_step: None,
            element_count,
            grad_l2: None,
            grad_rms: None,
            grad_max_abs: None,
            zero_count: 0,
            nonfinite_count: 0,
            weight_l2: None,
            update_l2: None,
            update_ratio: None,
        }
    }
}

/// Gives the layers their numbers in the order in which the network names them.
fn number_layers(gradients: &mut [GradientHeader]) {
    let mut index = 0;
    for place in 1..gradients.len() {
        if gradients[place].row.layer != gradients[place - 1].row.layer {
            index += 1;
        }
        gradients[place].row.layer_index = index;
    }
}

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

/// Fills the row of a hidden layer from its two readings.
fn fill_layer(
    mut row: ActivationRow,
    values: &mut impl Iterator<Item = Vec<f64>>,
    function: Activation,
) -> ActivationRow {
    let delta = DeltaSummary::from_reading(&values.next().unwrap_or_default());
    row.delta_l2 = delta.delta.l2();
    // The loss is a mean over the batch, so that the sum over the batch of its deltas is the mean of each example's.
    row.mean_delta_l2 = delta.batch_sum.l2();
    let activation = ActivationSummary::from_reading(&values.next().unwrap_or_default());
    row.activation_mean = finite(Some(&activation.mean));
    row.activation_std = finite(Some(&activation.std));
    if row.activation_mean.is_some() {
        row.saturated_fraction = Some(activation.saturated_fraction);
        row.dead_fraction = has_dead_units(function).then_some(activation.dead_fraction);
    }
    row
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
fn fetch(readings: Vec<Reading>) -> Result<Vec<Vec<f64>>, ReadError> {
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
