//! The delta and the activations of every hidden layer.

use burn::tensor::{Gradients, Tensor};

use super::recurrence;
use super::seeds::summarize;
use crate::config::ActivationFunction;
use crate::kernel::{self, FlatParts, Reading};
use crate::network::{LayerTrace, flat_parts};

/// What was measured of one layer, not yet read. Readings that the layer does not have are `None`.
#[derive(Debug, Default)]
pub struct Measurement {
    /// The layer, from 0 at the input.
    pub layer_index: usize,
    /// Its path: `hidden.3`.
    pub layer: String,
    /// Read as [`kernel::DeltaSummary`].
    pub delta: Option<Reading>,
    /// The gradient with respect to the layer's input, read as [`kernel::DeltaSummary`].
    pub input: Option<Reading>,
    /// Read as [`kernel::ActivationSummary`].
    pub activation: Option<Reading>,
    /// The sum over the batch of every unit's delta.
    pub units: Option<Reading>,
    /// Of a recurrent layer: what it left of its time steps.
    pub recurrence: Option<recurrence::Measurement>,
    /// Whether the activations are gated, so that the activation function does not tell where they are flat.
    pub is_gated: bool,
}

/// Where no activation is flat.
const NOWHERE_FLAT: FlatParts = FlatParts { low: f32::NEG_INFINITY, high: f32::INFINITY };

/// Summarizes every traced layer after the backward pass, and the time steps of recurrent layers that are in the trace;
/// `wants_units` adds the units one by one. Of several seeds, each by itself.
pub fn measure(
    trace: Vec<LayerTrace>,
    gradients: &Gradients,
    function: ActivationFunction,
    wants_units: bool,
    seeds: usize,
) -> Vec<Measurement> {
    let mut measurements = Vec::new();
    let (mut deltas, mut inputs, mut activations) = (Places::default(), Places::default(), Places::default());
    for (place, layer) in trace.into_iter().enumerate() {
        let mut measurement =
            Measurement { layer_index: layer.layer_index, layer: layer.layer, ..Measurement::default() };
        if let Some(delta) = layer.offset.and_then(|offset| offset.grad(gradients)) {
            measurement.units = wants_units.then(|| unit_sums(delta.clone(), seeds));
            deltas.push(place, delta);
        }
        if let Some(gradient) = layer.input_offset.and_then(|offset| offset.grad(gradients)) {
            inputs.push(place, gradient);
        }
        if let Some(activation) = layer.activation {
            activations.push(place, activation);
        }
        measurement.is_gated = layer.recurrence.as_ref().is_some_and(|trace| trace.form.recurrence.kept() > 0);
        measurement.recurrence = layer.recurrence.map(|trace| recurrence::measure(trace, gradients));
        measurements.push(measurement);
    }
    for (place, reading) in deltas.summarize(seeds, kernel::delta_summaries) {
        measurements[place].delta = Some(reading);
    }
    for (place, reading) in inputs.summarize(seeds, kernel::delta_summaries) {
        measurements[place].input = Some(reading);
    }
    let flat = flat_parts(function).unwrap_or(NOWHERE_FLAT);
    for (place, reading) in activations.summarize(seeds, |activations| kernel::activation_summaries(activations, flat))
    {
        measurements[place].activation = Some(reading);
    }
    measurements
}

/// The sums over the batch, unit by unit.
fn unit_sums(delta: Tensor<2>, seeds: usize) -> Reading {
    let [rows, units] = delta.dims();
    Reading::Device(match seeds {
        1 => delta.sum_dim(0).reshape([-1]),
        _ => delta.reshape([seeds, rows / seeds, units]).sum_dim(1).reshape([-1]),
    })
}

/// Tensors and the layers that they belong to.
#[derive(Default)]
struct Places {
    places: Vec<usize>,
    tensors: Vec<Tensor<2>>,
}

impl Places {
    fn push(&mut self, place: usize, tensor: Tensor<2>) {
        self.places.push(place);
        self.tensors.push(tensor);
    }

    fn summarize(
        self,
        seeds: usize,
        summary: impl FnOnce(Vec<Tensor<2>>) -> Vec<Reading>,
    ) -> impl Iterator<Item = (usize, Reading)> {
        self.places.into_iter().zip(summarize(self.tensors, seeds, summary))
    }
}
