//! Plain multilayer perceptrons.

use burn::module::Module;
use burn::tensor::{Device, Tensor};

use super::{Dense, LayerTrace, activate};
use crate::config::{Activation, NetworkConfig};

/// `depth` hidden layers of equal width, each `activation(x W + b)`, and a linear output layer.
#[derive(Module, Debug)]
pub struct Plain {
    /// The hidden layers, the one nearest to the input first.
    pub hidden: Vec<Dense>,
    /// The output layer.
    pub output: Dense,
    #[module(skip)]
    activation: Activation,
}

impl Plain {
    pub(super) fn init(config: &NetworkConfig, features: usize, classes: usize, seed: u64, device: &Device) -> Self {
        let hidden = |index: usize| {
            let inputs = if index == 0 { features } else { config.width };
            Dense::init(config, inputs, config.width, seed, &format!("hidden.{index}"), device)
        };
        Self {
            hidden: (0..config.depth).map(hidden).collect(),
            output: Dense::init(config, config.width, classes, seed, "output", device),
            activation: config.activation,
        }
    }

    pub(super) fn forward(&self, inputs: Tensor<2>, mut trace: Option<&mut Vec<LayerTrace>>) -> Tensor<2> {
        let mut x = inputs;
        for (layer_index, layer) in self.hidden.iter().enumerate() {
            let mut z = layer.forward(x);
            match trace.as_deref_mut() {
                None => x = activate(self.activation, z),
                Some(trace) => {
                    let offset = Tensor::zeros(z.dims(), &z.device()).require_grad();
                    z = z + offset.clone();
                    x = activate(self.activation, z);
                    trace.push(LayerTrace {
                        layer_index,
                        layer: format!("hidden.{layer_index}"),
                        offset,
                        activation: x.clone().inner(),
                    });
                }
            }
        }
        self.output.forward(x)
    }

    pub(super) fn flops_per_step(&self, batch_size: usize) -> f64 {
        let layers = self.hidden.iter().chain([&self.output]);
        let products = layers.enumerate().map(|(index, layer)| {
            let [inputs, outputs] = layer.weight.shape().dims::<2>();
            let passes = if index == 0 { 2.0 } else { 3.0 };
            passes * inputs as f64 * outputs as f64
        });
        2.0 * batch_size as f64 * products.sum::<f64>()
    }
}
