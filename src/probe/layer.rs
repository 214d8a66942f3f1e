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
    /// Read as [`kernel::DeltaSummary`]; `None` if no gradient reached the layer.
    pub delta: Option<Reading>,
    /// Read as [`kernel::ActivationSummary`].
    pub activation: Reading,
}

/// Summarizes every traced layer after the backward pass.
pub fn measure(trace: Vec<LayerTrace>, gradients: &Gradients, function: Activation) -> Vec<Measurement> {
    let layer = |layer: LayerTrace| {
        let delta: Option<Tensor<2>> = layer.offset.grad(gradients);
        Measurement {
            layer_index: layer.layer_index,
            layer: layer.layer,
            delta: delta.map(kernel::delta_summary),
            activation: kernel::activation_summary(layer.activation, flat_parts(function)),
        }
    };
    trace.into_iter().map(layer).collect()
}
