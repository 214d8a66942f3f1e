//! A fully connected layer without normalization and activation function: the output layer, and the stem.

use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor, TensorData};

use super::initializer::{self, Fan};
use super::pass::Pass;
use super::together::Together;
use crate::config::{Kernels, NetworkConfig};
use crate::kernel::{self, DenseForm, DenseParameters, Elementwise};

/// `z = x W + b`
#[derive(Module, Debug)]
pub struct Dense {
    /// `[inputs, outputs]`
    pub weight: Param<Tensor<2>>,
    /// `[outputs]`, or none.
    pub bias: Option<Param<Tensor<1>>>,
    /// The networks of different seeds that lie one below the other: see [`kernel::LayerOps`].
    #[module(skip)]
    seeds: usize,
    #[module(skip)]
    kernels: Kernels,
}

impl Dense {
    /// Draws a layer; `path` names its streams of random numbers, such as `output`.
    pub fn init(config: &NetworkConfig, inputs: usize, outputs: usize, seed: u64, path: &str, device: &Device) -> Self {
        let fan = Fan { inputs, units: outputs, pieces: 1, hidden: None };
        let weight = initializer::weight(config, fan, seed, &format!("{path}.weight"));
        let bias = initializer::bias(config, fan, seed, &format!("{path}.bias"));
        Self::from_data(TensorData::new(weight, [inputs, outputs]), bias, config.kernels(), device)
    }

    pub(super) fn from_data(weight: TensorData, bias: Option<TensorData>, kernels: Kernels, device: &Device) -> Self {
        let bias = bias.map(|bias| Param::from_data(bias, device));
        Self { weight: Param::from_data(weight, device), bias, seeds: 1, kernels }
    }

    pub(super) fn set_seeds(&mut self, seeds: usize) {
        self.seeds = seeds;
    }

    /// # Shapes
    ///
    /// - x: `[batch, inputs]`
    /// - returns: `[batch, outputs]`
    pub fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        self.forward_with(x, None)
    }

    /// The same as a layer whose delta the pass may want.
    pub(super) fn forward_traced(&self, x: Tensor<2>, pass: &mut Pass) -> Tensor<2> {
        let offset = pass.delta_leaf(&x);
        self.forward_with(x, offset)
    }

    fn forward_with(&self, x: Tensor<2>, offset: Option<Tensor<2>>) -> Tensor<2> {
        let form = DenseForm { function: Elementwise::Identity, seeds: self.seeds, kernels: self.kernels };
        kernel::dense(x, self.parameters(), offset, form)
    }

    /// The layer as a stage.
    pub(super) fn join(&self, together: &mut Together<'_>) {
        together.dense(self.parameters(), Elementwise::Identity);
    }

    fn parameters(&self) -> DenseParameters {
        DenseParameters { weight: self.weight.val(), bias: self.bias.as_ref().map(Param::val), slope: None }
    }
}
