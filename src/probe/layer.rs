//! The delta and the activations of every hidden layer.

use burn::tensor::{Gradients, Tensor};

use super::seeds::Numbers;
use super::{Rows, finite, recurrence};
use crate::config::ActivationFunction;
use crate::kernel::{self, ActivationSummary, DeltaSummary, FlatParts, Reading};
use crate::network::{LayerTrace, Traced, Watched, flat_parts, has_dead_units};
use crate::schema::{ActivationRow, UnitRow};

/// What was measured of the layers of a step, not yet read.
#[derive(Debug, Default)]
pub struct Measurement {
    layers: Vec<Layer>,
    /// Of the layers that have a delta, read as [`kernel::DeltaSummary`].
    deltas: Reading,
    /// The gradients with respect to the inputs of the layers of which they are known, read as [`kernel::DeltaSummary`].
    inputs: Reading,
    /// Of the layers that have activations, read as [`kernel::ActivationSummary`].
    activations: Reading,
    /// The sums over the batch of the deltas of every unit, of the layers of which they are wanted.
    units: Vec<Reading>,
    /// Of the recurrent layers: what they left of their time steps.
    recurrences: Vec<recurrence::Measurement>,
}

/// A layer, and what it has.
#[derive(Debug, Default)]
struct Layer {
    /// From 0 at the input.
    index: usize,
    /// Its path: `hidden.3`.
    path: String,
    has_delta: bool,
    has_input: bool,
    has_activation: bool,
    has_units: bool,
    is_recurrent: bool,
    /// Whether the activations are gated, so that the activation function does not tell where they are flat.
    is_gated: bool,
}

/// What is kept of a measurement while its readings are on the way.
#[derive(Debug)]
pub(super) struct Header {
    layers: Vec<Layer>,
    recurrences: Vec<recurrence::Header>,
}

/// Summarizes every traced layer after the backward pass, whose gradients it takes, and the time steps of recurrent layers that are in
/// the trace; `wants_units` adds the units one by one. Of several seeds, each by itself.
pub fn measure(
    trace: Vec<LayerTrace>,
    gradients: &mut Gradients,
    function: ActivationFunction,
    wants_units: bool,
    seeds: usize,
) -> Measurement {
    let mut measurement = Measurement::default();
    let (mut deltas, mut inputs, mut activations) = (Vec::new(), Vec::new(), Vec::new());
    // Of the layers that were measured on the way, which are all or none.
    let (mut of_deltas, mut of_activations) = (Vec::new(), Vec::new());
    for trace in trace {
        let mut layer = Layer { index: trace.layer_index, path: trace.layer, ..Layer::default() };
        match trace.traced {
            Traced::Tensors(traced) => {
                if let Some(recurrence) = traced.recurrence {
                    layer.is_recurrent = true;
                    layer.is_gated = recurrence.form.recurrence.kept() > 0;
                    measurement.recurrences.push(recurrence::measure(recurrence, gradients));
                }
                if let Some(delta) = traced.offset.and_then(|offset| offset.grad_remove(gradients)) {
                    layer.has_delta = true;
                    layer.has_units = wants_units;
                    measurement.units.extend(wants_units.then(|| unit_sums(delta.clone(), seeds)));
                    deltas.push(delta);
                }
                if let Some(gradient) = traced.input_offset.and_then(|offset| offset.grad_remove(gradients)) {
                    layer.has_input = true;
                    inputs.push(gradient);
                }
                layer.has_activation = traced.activation.is_some();
                activations.extend(traced.activation);
            }
            Traced::Watched(Watched { delta: (found, number), activation }) => {
                let delta = found.of(number, seeds);
                layer.has_delta = delta.is_some();
                layer.has_activation = activation.is_some();
                of_deltas.extend(delta.unwrap_or_default());
                of_activations.extend(activation.unwrap_or_default());
            }
        }
        measurement.layers.push(layer);
    }
    measurement.deltas =
        if deltas.is_empty() { Reading::Host(of_deltas) } else { kernel::delta_summaries(deltas, seeds) };
    measurement.inputs = kernel::delta_summaries(inputs, seeds);
    measurement.activations = if activations.is_empty() {
        Reading::Host(of_activations)
    } else {
        let flat = flat_parts(function).unwrap_or(FlatParts::NOWHERE);
        kernel::activation_summaries(activations, seeds, flat)
    };
    measurement
}

/// The sums over the batch, unit by unit.
fn unit_sums(delta: Tensor<2>, seeds: usize) -> Reading {
    let [rows, units] = delta.dims();
    let sums: Tensor<1> = match seeds {
        1 => delta.sum_dim(0).reshape([-1]),
        _ => delta.reshape([seeds, rows / seeds, units]).sum_dim(1).reshape([-1]),
    };
    sums.into()
}

impl Measurement {
    /// Moves the readings behind the others.
    pub(super) fn take(self, readings: &mut Vec<Reading>) -> Header {
        let Self { layers, deltas, inputs, activations, units, recurrences } = self;
        readings.extend([deltas, inputs, activations]);
        readings.extend(units);
        Header { layers, recurrences: recurrences.into_iter().map(|recurrence| recurrence.take(readings)).collect() }
    }
}

impl Header {
    /// Their number.
    pub(super) fn count(&self) -> usize {
        self.layers.len()
    }

    /// Adds the rows of the layers from their readings.
    pub(super) fn fill(&self, step: usize, numbers: &mut Numbers<'_>, function: ActivationFunction, rows: &mut Rows) {
        let mut next_of =
            |has: fn(&Layer) -> bool| numbers.next_of(self.layers.iter().filter(|layer| has(layer)).count());
        let mut deltas = next_of(|layer| layer.has_delta);
        let mut inputs = next_of(|layer| layer.has_input);
        let mut activations = next_of(|layer| layer.has_activation);
        for layer in self.layers.iter().filter(|layer| layer.has_units) {
            let unit_row = |(unit, mean_delta): (usize, &f64)| UnitRow {
                step,
                layer_index: layer.index,
                layer: layer.path.clone(),
                unit,
                mean_delta: finite(Some(mean_delta)),
                ..UnitRow::default()
            };
            rows.units.extend(numbers.next().iter().enumerate().map(unit_row));
        }
        let mut recurrences = self.recurrences.iter();
        for layer in &self.layers {
            let mut row =
                ActivationRow { step, layer_index: layer.index, layer: layer.path.clone(), ..ActivationRow::default() };
            if let Some(read) = layer.has_delta.then(|| deltas.next()).flatten() {
                let delta = DeltaSummary::from_reading(read);
                row.delta_l2 = delta.delta.l2();
                // The loss is a mean over the batch, so that the sum over the batch of its deltas is the mean of each
                // example's.
                row.mean_delta_l2 = delta.batch_sum.l2();
            }
            if let Some(read) = layer.has_input.then(|| inputs.next()).flatten() {
                row.input_grad_l2 = DeltaSummary::from_reading(read).delta.l2();
            }
            if let Some(read) = layer.has_activation.then(|| activations.next()).flatten() {
                let activation = ActivationSummary::from_reading(read);
                row.activation_mean = finite(Some(&activation.mean));
                row.activation_std = finite(Some(&activation.std));
                if row.activation_mean.is_some() && !layer.is_gated {
                    row.saturated_fraction = flat_parts(function).map(|_| activation.saturated_fraction);
                    row.dead_fraction = has_dead_units(function).then_some(activation.dead_fraction);
                }
            }
            let recurrence = layer.is_recurrent.then(|| recurrences.next()).flatten();
            let (states, gates) = recurrence.map(|header| header.fill(numbers, &row)).unwrap_or_default();
            rows.activations.push(row);
            rows.activations.extend(states);
            rows.gates.extend(gates);
        }
    }
}
