//! Plain multilayer perceptrons; chains of single neurons, which are perceptrons of width 1; and deep autoencoders, which
//! are perceptrons with a linear layer in their middle and as many outputs as inputs.

use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor, TensorData};

use super::activation::{activate_with_slope, has_curvature};
use super::layer::{Layer, Shaped, Size};
use super::norm::Norm;
use super::pass::Pass;
use super::together::Together;
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
        if let Some(outputs) = self.forward_together(&inputs, pass) {
            return outputs;
        }
        let x = block::chain(self.hidden.iter().enumerate(), inputs, pass);
        let x = pass.enter_output(x);
        match &self.output {
            Some(output) => output.forward(x),
            None => x,
        }
    }

    /// The same with all layers in few nodes of the graph, where they are better off so.
    fn forward_together(&self, inputs: &Tensor<2>, pass: &mut Pass) -> Option<Tensor<2>> {
        let shaping = self.hidden.first()?.shaping();
        if !self.hidden.iter().all(|layer| layer.joins(false)) {
            return None;
        }
        let mut together = Together::begin(pass, inputs, self.seeds(), shaping)?;
        for (index, layer) in self.hidden.iter().enumerate() {
            together.make_room(1);
            together.enter(|| block::path(index));
            layer.join(&mut together);
        }
        Some(together.end_with(self.output.as_ref()))
    }

    /// The gradient of each output, summed, with respect to its input, written as a forward computation: with the
    /// pre-activations z of every layer, `g = w_out` and from the last layer to the first `g <- (g phi'(z)) W^T`. The backward
    /// pass goes through it as through any other computation; Burn's graph has no second derivatives.
    ///
    /// None without an output layer, with normalization, or with an activation function whose slope is not written so.
    ///
    /// # Shapes
    ///
    /// - inputs: `[batch, features]`
    /// - returns: the same
    pub fn input_gradient(&self, inputs: Tensor<2>) -> Option<Tensor<2>> {
        let [batch, _] = inputs.dims();
        let mut slopes = Vec::with_capacity(self.hidden.len());
        let mut x = inputs;
        for layer in &self.hidden {
            if layer.norm.is_some() {
                return None;
            }
            let (a, slope) = activate_with_slope(layer.shaping().function, layer.slope(), &layer.affine(x))?;
            slopes.push(slope);
            x = a;
        }
        // A critic has one output.
        let of_outputs = self.output.as_ref()?.weight.val().transpose();
        let width = of_outputs.dims()[1];
        let layers = self.hidden.iter().zip(slopes).rev();
        Some(layers.fold(of_outputs.expand([batch, width]), |gradient, (layer, slope)| {
            (gradient * slope).matmul(layer.weight.val().transpose())
        }))
    }

    /// Floating-point operations of the matrix products of [`Plain::input_gradient`] and of its backward pass.
    pub fn input_gradient_flops(&self, batch_size: usize) -> f64 {
        let products = self.hidden.iter().enumerate().map(|(index, layer)| {
            let [inputs, units] = layer.weight.shape().dims();
            // The pass to the slopes and the way back to the input; backward two for the latter, and where the slope
            // depends on z two for the former, but for the gradient of the inputs.
            let passes = match (has_curvature(layer.shaping().function), index) {
                (false, _) => 4.0,
                (true, 0) => 5.0,
                (true, _) => 6.0,
            };
            passes * (inputs * units) as f64
        });
        2.0 * batch_size as f64 * products.sum::<f64>()
    }

    pub(super) fn seeds(&self) -> usize {
        self.hidden.first().map_or(1, DenseLayer::seeds)
    }

    pub(super) fn set_seeds(&mut self, seeds: usize) {
        self.hidden.iter_mut().for_each(|layer| layer.set_seeds(seeds));
        self.output.iter_mut().for_each(|output| output.set_seeds(seeds));
    }

    pub(super) fn norms(&mut self) -> impl Iterator<Item = &mut Norm> {
        self.hidden.iter_mut().filter_map(|layer| layer.norm.as_mut())
    }
}
