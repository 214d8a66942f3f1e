//! The networks, one file a family.

mod activation;
mod block;
mod convolutional;
mod dense;
mod initializer;
mod layer;
mod norm;
mod pass;
mod plain;
mod recurrent;
mod residual;
mod seeds;
mod stock;
mod together;

use burn::module::Module;
use burn::tensor::{Device, Tensor};

pub use activation::{activate, flat_parts, has_dead_units};
pub use convolutional::Convolutional;
pub use dense::Dense;
pub use layer::{ConvLayer, DenseLayer, Layer, Shaping};
pub use norm::Norm;
pub use pass::{
    BatchMoments, BatchStatistics, LayerTrace, Pass, RecurrenceTrace, Traced, TracedTensors, Wanted, Watched,
};
pub use plain::Plain;
pub use recurrent::{OwnLayer, Recurrent, RecurrentLayer, RecurrentWeights};
pub use residual::{End, Residual};
pub use seeds::Stacked;
pub use stock::{StockCell, StockLayer};

use crate::config::{Kernels, NetworkConfig, NetworkKind, Sequence};

/// A network of any family.
#[derive(Module, Debug)]
pub enum Network {
    /// A multilayer perceptron.
    Plain(Plain),
    /// A multilayer perceptron with shortcuts.
    Residual(Residual),
    /// A convolutional network.
    Convolutional(Convolutional),
    /// A recurrent network.
    Recurrent(Recurrent),
}

/// What the data and the loss want of a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Numbers in an input.
    pub features: usize,
    /// Channels, height and width of an input that is an image.
    pub image: Option<[usize; 3]>,
    /// What a recurrent network reads and answers.
    pub sequence: Option<Sequence>,
    /// Outputs; none where the loss is taken of what the last hidden layer hands on.
    pub outputs: Option<usize>,
}

/// The running statistics of one batch norm.
#[derive(Clone, Debug)]
pub struct RunningStatistics {
    /// The path of the normalization: `hidden.3.norm`.
    pub norm: String,
    /// Its units.
    pub units: usize,
    /// The statistics; none before the first step.
    pub statistics: Option<BatchStatistics>,
}

impl Network {
    /// Draws a network from a seed. The numbers are drawn on the host: they are the same on every device.
    pub fn init(config: &NetworkConfig, interface: Interface, seed: u64, device: &Device) -> Self {
        match config.kind {
            NetworkKind::Plain | NetworkKind::Chain | NetworkKind::Autoencoder => {
                Self::Plain(Plain::init(config, interface, seed, device))
            }
            NetworkKind::Residual => Self::Residual(Residual::init(config, interface, seed, device)),
            NetworkKind::Convolutional => Self::Convolutional(Convolutional::init(config, interface, seed, device)),
            NetworkKind::Recurrent => Self::Recurrent(Recurrent::init(config, interface, seed, device)),
        }
    }

    /// The outputs before softmax or sigmoid, or what the last hidden layer hands on.
    ///
    /// # Shapes
    ///
    /// - inputs: `[batch, features]`
    /// - returns: `[batch, outputs]`; of a recurrent network with an answer after every time step
    ///   `[steps x batch, outputs]`, all examples of the first time step first
    pub fn forward(&self, inputs: Tensor<2>, pass: &mut Pass) -> Tensor<2> {
        match self {
            Self::Plain(network) => network.forward(inputs, pass),
            Self::Residual(network) => network.forward(inputs, pass),
            Self::Convolutional(network) => network.forward(inputs, pass),
            Self::Recurrent(network) => network.forward(inputs, pass),
        }
    }

    /// Which form the operations take.
    pub fn kernels(&self) -> Kernels {
        let kernels = match self {
            Self::Plain(network) => network.hidden.first().map(|layer| layer.shaping().kernels),
            Self::Residual(network) => network.hidden.first().map(|layer| layer.shaping().kernels),
            Self::Convolutional(network) => network.hidden.first().map(|layer| layer.shaping().kernels),
            Self::Recurrent(network) => network.kernels(),
        };
        kernels.unwrap_or_default()
    }

    /// Of a chain whose config asks for it: sets the biases so that every pre-activation is 0 for this input.
    pub fn center(&mut self, config: &NetworkConfig, input: f64) {
        if let Self::Plain(network) = self {
            network.center(config, input);
        }
    }

    /// Takes the moments of a training pass, in its order, into the running statistics of batch norm.
    pub fn absorb(&mut self, moments: Vec<BatchMoments>) {
        if moments.is_empty() {
            return;
        }
        for (norm, moments) in self.batch_norms().zip(moments) {
            norm.absorb(moments.into_statistics());
        }
    }

    /// The running statistics of each batch norm, in the order of the pass.
    pub fn running_statistics(&mut self) -> Vec<RunningStatistics> {
        let names = self.norm_names();
        let statistics = |(norm, name): (&mut Norm, String)| RunningStatistics {
            norm: name,
            units: norm.units(),
            statistics: norm.running().cloned(),
        };
        self.batch_norms().zip(names).map(statistics).collect()
    }

    /// Sets the running statistics of each batch norm, in the same order.
    pub fn set_running_statistics(&mut self, statistics: Vec<Option<BatchStatistics>>) {
        for (norm, statistics) in self.batch_norms().zip(statistics) {
            norm.set_running(statistics);
        }
    }

    /// The paths of the normalizations, in the order of the pass.
    fn norm_names(&self) -> Vec<String> {
        let (hidden, end) = match self {
            Self::Plain(network) => (have_norms(&network.hidden), None),
            Self::Residual(network) => (have_norms(&network.hidden), network.end.as_ref()),
            Self::Convolutional(network) => (have_norms(&network.hidden), network.end.as_ref()),
            Self::Recurrent(_) => (Vec::new(), None),
        };
        let has_end = end.is_some_and(|end| end.norm.is_some());
        let normalized = hidden.into_iter().enumerate().filter(|(_, has_norm)| *has_norm);
        let hidden = normalized.map(|(index, _)| format!("hidden.{index}.norm"));
        hidden.chain(has_end.then(|| "end.norm".to_owned())).collect()
    }

    fn batch_norms(&mut self) -> impl Iterator<Item = &mut Norm> {
        let norms: Box<dyn Iterator<Item = &mut Norm>> = match self {
            Self::Plain(network) => Box::new(network.norms()),
            Self::Residual(network) => Box::new(network.norms()),
            Self::Convolutional(network) => Box::new(network.norms()),
            Self::Recurrent(_) => Box::new(std::iter::empty()),
        };
        norms.filter(|norm| norm.is_batch_norm())
    }

    /// Floating-point operations of the matrix products of one step: two an element of each product, in the forward
    /// pass, in the gradient of the weights and, from the second layer on, in the gradient of the inputs.
    /// Elementwise work is not counted.
    pub fn flops_per_step(&self, batch_size: usize) -> f64 {
        let dense = |weight: [usize; 2]| (weight[0] * weight[1]) as f64;
        let hidden = |layers: &[DenseLayer]| -> Vec<f64> {
            layers.iter().map(|layer| dense(layer.weight.shape().dims())).collect()
        };
        let mut products: Vec<f64>;
        let output = match self {
            Self::Recurrent(network) => return network.flops_per_step(batch_size),
            Self::Plain(network) => {
                products = hidden(&network.hidden);
                &network.output
            }
            Self::Residual(network) => {
                products = network.stem.iter().map(|stem| dense(stem.weight.shape().dims())).collect();
                products.extend(hidden(&network.hidden));
                &network.output
            }
            Self::Convolutional(network) => {
                let pixels = network.output_pixels();
                let product = |(layer, pixels): (&ConvLayer, usize)| {
                    let elements: usize = layer.weight.shape().dims::<4>().iter().product();
                    (elements * pixels) as f64
                };
                products = network.hidden.iter().zip(pixels).map(product).collect();
                &network.output
            }
        };
        products.extend(output.iter().map(|output| dense(output.weight.shape().dims())));
        let passes = |index: usize| if index == 0 { 2.0 } else { 3.0 };
        2.0 * batch_size as f64 * products.iter().enumerate().map(|(index, one)| passes(index) * one).sum::<f64>()
    }
}

fn have_norms<const D: usize, L: Layer<D>>(layers: &[L]) -> Vec<bool> {
    layers.iter().map(|layer| layer.norm().is_some()).collect()
}
