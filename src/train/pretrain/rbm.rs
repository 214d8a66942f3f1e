//! A hidden layer as a restricted Boltzmann machine, trained by contrastive divergence (Hinton 2002; Hinton 2010, "A Practical
//! Guide to Training Restricted Boltzmann Machines", whose choices of what is drawn are kept).
//!
//! The energy of binary units is -v W h - a v - b h; of Gaussian ones with variance 1 on either side |v - a|^2 / 2 or
//! |h - b|^2 / 2 takes the place of the linear term (Hinton and Salakhutdinov 2006).

use burn::module::Param;
use burn::tensor::{Device, Tensor, TensorData};
use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};

use super::{Decoder, Place, Trainee, replaced};
use crate::config::Visible;
use crate::kernel::{Activated, activated, affine};
use crate::network::DenseLayer;
use crate::seed;

/// A restricted Boltzmann machine while it is trained. Nothing of it is in the graph.
pub(super) struct Rbm {
    layer: DenseLayer,
    parameters: Parameters,
    velocity: Parameters,
    visible: Units,
    hidden: Units,
    settings: Settings,
    stream: ChaCha8Rng,
}

#[derive(Clone)]
struct Parameters {
    /// `[inputs, units]`
    weight: Tensor<2>,
    /// `[inputs]`
    visible_bias: Tensor<1>,
    /// `[units]`
    hidden_bias: Tensor<1>,
}

/// The units of one side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Units {
    /// 0 or 1
    Binary,
    /// N(mean, 1)
    Gaussian,
}

struct Settings {
    learning_rate: f64,
    momentum: f64,
    l2: f64,
    cd_steps: usize,
}

impl Units {
    /// The mean of the units, from what reaches them.
    fn mean(self, z: Tensor<2>) -> Tensor<2> {
        match self {
            Self::Binary => activated(z, Activated::Sigmoid),
            Self::Gaussian => z,
        }
    }

    /// Units drawn with these means. The numbers are drawn on the host: they are the same on every device.
    fn draw(self, mean: Tensor<2>, stream: &mut ChaCha8Rng) -> Tensor<2> {
        let shape = mean.dims();
        let device = mean.device();
        let count = shape[0] * shape[1];
        let drawn = |values: Vec<f32>| Tensor::from_data(TensorData::new(values, shape), &device);
        match self {
            Self::Binary => mean.greater(drawn((0..count).map(|_| stream.random()).collect())).float(),
            Self::Gaussian => mean + drawn((0..count).map(|_| StandardNormal.sample(stream)).collect()),
        }
    }
}

impl Rbm {
    /// Small weights and no biases take the place of the layer's.
    pub(super) fn new(layer: DenseLayer, place: &Place<'_>) -> Self {
        let Place { workload, pretraining, seed, .. } = place;
        let [inputs, units] = layer.weight.shape().dims();
        let device = workload.train_split().inputs.device();
        let mut stream = seed::stream(*seed, &place.purpose("weight"));
        let draw = |_| {
            let x: f64 = StandardNormal.sample(&mut stream);
            (pretraining.weight_std() * x) as f32
        };
        let weight: Vec<f32> = (0..inputs * units).map(draw).collect();
        let weight = Tensor::from_data(TensorData::new(weight, [inputs, units]), &device);
        let is_first_of_numbers = place.index == 0 && workload.config().visible(pretraining) == Visible::Gaussian;
        Self {
            parameters: Parameters { weight, ..Parameters::zero(inputs, units, &device) },
            velocity: Parameters::zero(inputs, units, &device),
            visible: if is_first_of_numbers { Units::Gaussian } else { Units::Binary },
            hidden: if layer.is_linear() { Units::Gaussian } else { Units::Binary },
            settings: Settings {
                learning_rate: pretraining.learning_rate(layer.is_linear()),
                momentum: pretraining.momentum,
                l2: pretraining.l2,
                cd_steps: pretraining.cd_steps(),
            },
            stream: seed::stream(*seed, &place.purpose("units")),
            layer,
        }
    }

    fn hidden_mean(&self, visible: Tensor<2>) -> Tensor<2> {
        let Parameters { weight, hidden_bias, .. } = self.parameters.clone();
        self.hidden.mean(affine(visible, weight, Some(hidden_bias)))
    }

    fn visible_mean(&self, hidden: Tensor<2>) -> Tensor<2> {
        let Parameters { weight, visible_bias, .. } = self.parameters.clone();
        self.visible.mean(affine(hidden, weight.transpose(), Some(visible_bias)))
    }

    /// The direction in which contrastive divergence moves the parameters: the difference of two statistics, of the data and of
    /// what the machine makes of them. Hidden units are drawn; the last ones, and the visible ones, keep their means
    /// (Hinton 2010, section 3).
    fn direction(&mut self, data: Tensor<2>) -> Parameters {
        let examples = data.dims()[0] as f64;
        let of_data = self.hidden_mean(data.clone());
        let mut hidden = of_data.clone();
        let mut visible = data.clone();
        for _ in 0..self.settings.cd_steps {
            let drawn = self.hidden.draw(hidden, &mut self.stream);
            visible = self.visible_mean(drawn);
            hidden = self.hidden_mean(visible.clone());
        }
        let correlation = |visible: Tensor<2>, hidden: Tensor<2>| visible.transpose().matmul(hidden) / examples;
        let mean = |difference: Tensor<2>| {
            let units = difference.dims()[1];
            difference.mean_dim(0).reshape([units])
        };
        Parameters {
            weight: correlation(data.clone(), of_data.clone()) - correlation(visible.clone(), hidden.clone()),
            visible_bias: mean(data - visible),
            hidden_bias: mean(of_data - hidden),
        }
    }
}

impl Parameters {
    fn zero(inputs: usize, units: usize, device: &Device) -> Self {
        Self {
            weight: Tensor::zeros([inputs, units], device),
            visible_bias: Tensor::zeros([inputs], device),
            hidden_bias: Tensor::zeros([units], device),
        }
    }
}

/// v <- m v + d, w <- w + rate v
fn moved<const D: usize>(
    value: Tensor<D>,
    velocity: Tensor<D>,
    direction: Tensor<D>,
    settings: &Settings,
) -> (Tensor<D>, Tensor<D>) {
    let velocity = if settings.momentum == 0.0 { direction } else { velocity * settings.momentum + direction };
    (value + velocity.clone() * settings.learning_rate, velocity)
}

impl Trainee for Rbm {
    /// The likelihood, which the machine climbs, is not known.
    fn step(&mut self, batch: Tensor<2>) -> Option<Tensor<1>> {
        let mut direction = self.direction(batch);
        let Parameters { weight, visible_bias, hidden_bias } = self.parameters.clone();
        if self.settings.l2 > 0.0 {
            direction.weight = direction.weight - weight.clone() * self.settings.l2;
        }
        let velocity = self.velocity.clone();
        let (weight, of_weight) = moved(weight, velocity.weight, direction.weight, &self.settings);
        let (visible_bias, of_visible) =
            moved(visible_bias, velocity.visible_bias, direction.visible_bias, &self.settings);
        let (hidden_bias, of_hidden) = moved(hidden_bias, velocity.hidden_bias, direction.hidden_bias, &self.settings);
        self.parameters = Parameters { weight, visible_bias, hidden_bias };
        self.velocity = Parameters { weight: of_weight, visible_bias: of_visible, hidden_bias: of_hidden };
        None
    }

    fn reconstruct(&self, inputs: Tensor<2>) -> Tensor<2> {
        self.visible_mean(self.hidden_mean(inputs))
    }

    fn finish(self: Box<Self>) -> (DenseLayer, Decoder) {
        let Self { mut layer, parameters: Parameters { weight, visible_bias, hidden_bias }, .. } = *self;
        layer.weight = replaced(layer.weight, weight.clone());
        layer.bias = layer.bias.map(|bias: Param<Tensor<1>>| replaced(bias, hidden_bias));
        (layer, Decoder { weight: weight.transpose(), bias: Some(visible_bias) })
    }
}
