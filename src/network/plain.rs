//! Plain multilayer perceptrons; chains of single neurons, which are perceptrons of width 1; and deep autoencoders, which
//! are perceptrons with a linear layer in their middle and as many outputs as inputs.

use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor, TensorData};

use super::layer::{Shaped, Size};
use super::norm::Norm;
use super::pass::Pass;
use super::{Dense, DenseLayer, Interface, block};
use crate::config::{BiasInit, NetworkConfig};
use crate::theory::chain;

/// `depth` hidden layers, each `activation(x W + b)` but for the linear code layer of an autoencoder, and a linear output layer.
#[derive(Module, Debug)]
pub struct Plain {
    /// The hidden layers, the one nearest to the input first.
    pub hidden: Vec<DenseLayer>,
    /// The output layer; none where the loss is taken of the last hidden layer.
    pub output: Option<Dense>,
}

impl Plain {
    pub(super) fn init(config: &NetworkConfig, interface: Interface, seed: u64, device: &Device) -> Self {
        let mut inputs = interface.features;
        let layer = |(index, outputs): (usize, usize)| {
            let shaped = if config.code_layer() == Some(index) { Shaped::Nothing } else { Shaped::Output };
            let size = Size { inputs: std::mem::replace(&mut inputs, outputs), outputs, index, shaped };
            DenseLayer::init(config, size, seed, &block::path(index), device)
        };
        let hidden = config.layer_widths().into_iter().enumerate().map(layer).collect();
        let output = |outputs| Dense::init(config, inputs, outputs, seed, "output", device);
        Self { hidden, output: interface.outputs.map(output) }
    }

    /// Sets the biases of a chain so that every pre-activation is 0 for this input, if the config asks for it.
    pub(super) fn center(&mut self, config: &NetworkConfig, input: f64) {
        if config.bias_init != BiasInit::Centered {
            return;
        }
        let weight = |layer: &DenseLayer| f64::from(layer.weight.val().into_scalar::<f32>());
        let weights: Vec<f64> = self.hidden.iter().map(weight).collect();
        let biases = chain::centering_biases(config.function(), input, &weights);
        for (layer, bias) in self.hidden.iter_mut().zip(biases) {
            let device = layer.weight.val().device();
            layer.bias = Some(Param::from_data(TensorData::new(vec![bias as f32], [1]), &device));
        }
    }

    pub(super) fn forward(&self, inputs: Tensor<2>, pass: &mut Pass) -> Tensor<2> {
        let x = block::chain(self.hidden.iter().enumerate(), inputs, pass);
        let x = pass.enter_output(x);
        match &self.output {
            Some(output) => output.forward(x),
            None => x,
        }
    }

    pub(super) fn norms(&mut self) -> impl Iterator<Item = &mut Norm> {
        self.hidden.iter_mut().filter_map(|layer| layer.norm.as_mut())
    }
}
