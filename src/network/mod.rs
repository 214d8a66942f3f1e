//! The networks, one file a family.

mod activation;
mod dense;
mod initializer;
mod plain;

use burn::module::Module;
use burn::tensor::{Device, Tensor};

pub use activation::{activate, flat_parts, has_dead_units};
pub use dense::Dense;
pub use plain::Plain;

use crate::config::{NetworkConfig, NetworkKind};

/// A network of any family.
#[derive(Module, Debug)]
pub enum Network {
    /// A multilayer perceptron.
    Plain(Plain),
}

/// What a forward pass leaves behind of one hidden layer, for the probe.
#[derive(Clone, Debug)]
pub struct LayerTrace {
    /// The layer, from 0 at the input.
    pub layer_index: usize,
    /// Its path: `hidden.3`.
    pub layer: String,
    /// Zeros that were added to the pre-activations `[batch, units]`: their gradient is the layer's delta.
    pub offset: Tensor<2>,
    /// The activations `[batch, units]`, outside the graph.
    pub activation: Tensor<2>,
}

impl Network {
    /// Draws a network from a seed. The numbers are drawn on the host: they are the same on every device.
    pub fn init(config: &NetworkConfig, features: usize, classes: usize, seed: u64, device: &Device) -> Self {
        match config.kind {
            NetworkKind::Plain => Self::Plain(Plain::init(config, features, classes, seed, device)),
        }
    }

    /// The outputs before softmax or sigmoid.
    ///
    /// # Shapes
    ///
    /// - inputs: `[batch, features]`
    /// - returns: `[batch, classes]`
    pub fn forward(&self, inputs: Tensor<2>) -> Tensor<2> {
        match self {
            Self::Plain(network) => network.forward(inputs, None),
        }
    }

    /// Like [`Network::forward`], and adds what the probe needs of every hidden layer to `trace`.
    pub fn forward_traced(&self, inputs: Tensor<2>, trace: &mut Vec<LayerTrace>) -> Tensor<2> {
        match self {
            Self::Plain(network) => network.forward(inputs, Some(trace)),
        }
    }

    /// Floating-point operations of the matrix products of one step: two an element of each product, in the forward
    /// pass, in the gradient of the weights and, from the second layer on, in the gradient of the inputs.
    /// Elementwise work is not counted.
    pub fn flops_per_step(&self, batch_size: usize) -> f64 {
        match self {
            Self::Plain(network) => network.flops_per_step(batch_size),
        }
    }
}
