//! The delta and the activations of every hidden layer.

use burn::tensor::{Gradients, Tensor};

use crate::config::Activation;
use crate::kernel::{self, Reading};
use crate::network::{LayerTrace, flat_parts};

/// What was measured of one hidden layer, not yet read.
#[derive(Debug)]
pub struct Measurement {
    /// The layer, from 0 at the input.
    pub layer_index: usize,
    /// Its path: `hidden.3`.
    pub layer: String,
    /// Read as [`kernel::DeltaSummary`].
    pub delta: Reading,
    /// Read as [`kernel::ActivationSummary`].
    pub activation: Reading,
}

/// Summarizes every traced layer after the backward pass.
pub fn measure(trace: Vec<LayerTrace>, gradients: &Gradients, function: Activation) -> Vec<Measurement> {
    let mut names = Vec::new();
    let (mut deltas, mut activations): (Vec<Tensor<2>>, Vec<Tensor<2>>) = (Vec::new(), Vec::new());
    for layer in trace {
        // Every hidden layer leads to the loss, so that each has a delta.
        if let Some(delta) = layer.offset.grad(gradients) {
            names.push((layer.layer_index, layer.layer));
            deltas.push(delta);
            activations.push(layer.activation);
        }
    }
    let deltas = kernel::delta_summaries(deltas);
    let activations = kernel::activation_summaries(activations, flat_parts(function));
    let readings = deltas.into_iter().zip(activations);
    let measurement =
        |((layer_index, layer), (delta, activation))| Measurement { layer_index, layer, delta, activation };
    names.into_iter().zip(readings).map(measurement).collect()
}
