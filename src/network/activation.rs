//! The activation functions, and where they are flat.

use burn::tensor::{Tensor, activation};

use crate::config::Activation;
use crate::kernel::FlatParts;

/// Applies an activation function to each element.
pub fn activate<const D: usize>(function: Activation, z: Tensor<D>) -> Tensor<D> {
    match function {
        Activation::Sigmoid => activation::sigmoid(z),
        Activation::Tanh => activation::tanh(z),
        Activation::Relu => activation::relu(z),
    }
}

/// The activations that count as saturated: the outer twentieths of a sigmoid's and a tanh's range (Glorot and
/// Bengio 2010, section 3, look at the same quantity), and the zeros of a ReLU.
pub fn flat_parts(function: Activation) -> FlatParts {
    match function {
        Activation::Sigmoid => FlatParts { low: 0.05, high: 0.95 },
        Activation::Tanh => FlatParts { low: -0.9, high: 0.9 },
        Activation::Relu => FlatParts { low: 0.0, high: f32::INFINITY },
    }
}

/// Whether a unit of this function can be 0 for a whole batch and then learn nothing from it.
pub fn has_dead_units(function: Activation) -> bool {
    match function {
        Activation::Sigmoid | Activation::Tanh => false,
        Activation::Relu => true,
    }
}
