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
use crate::config::{Kernels, Visible};
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
            Self::Binary => activated(z, Activated::Sigmoid, Kernels::default()),
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
        self.hidden.mean(affine(visible, weight, Some(hidden_bias), 1, Kernels::default()))
    }

    fn visible_mean(&self, hidden: Tensor<2>) -> Tensor<2> {
        let Parameters { weight, visible_bias, .. } = self.parameters.clone();
        self.visible.mean(affine(hidden, weight.transpose(), Some(visible_bias), 1, Kernels::default()))
    }

    /// The direction in which contrastive divergence moves the parameters: the difference of two statistics, of the data and of
    /// what the machine makes of them in some steps of Gibbs sampling. Units are drawn, but for those of the last step, which
    /// keep their means (Hinton 2010, section 3): drawn ones have so much noise that the upper layers of a deep stack of small
    /// layers learn nothing, and what the means leave out of the correlation is small.
    fn direction(&mut self, data: Tensor<2>) -> Parameters {
        let examples = data.dims()[0] as f64;
        let of_data = self.hidden_mean(data.clone());
        let mut hidden = of_data.clone();
        let mut visible = data.clone();
        for step in 0..self.settings.cd_steps {
            if step > 0 {
                let drawn = self.visible.draw(visible, &mut self.stream);
                hidden = self.hidden_mean(drawn);
            }
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

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;
    use crate::config::{Activation, NetworkConfig, WeightInit};
    use crate::network::{Interface, Network};

    fn machine(inputs: usize, units: usize, visible: Units, hidden: Units, settings: Settings) -> Rbm {
        let config = NetworkConfig::plain(1, units, Activation::Sigmoid, WeightInit::Lecun);
        let interface = Interface { features: inputs, image: None, sequence: None, outputs: None };
        let Network::Plain(mut network) = Network::init(&config, interface, 1, &Device::flex().autodiff()) else {
            panic!("a plain network")
        };
        let layer = network.hidden.remove(0);
        let mut parameters = Parameters::zero(inputs, units, &Device::flex());
        parameters.weight = layer.weight.val().inner();
        let velocity = Parameters::zero(inputs, units, &Device::flex());
        Rbm { layer, parameters, velocity, visible, hidden, settings, stream: seed::stream(1, "units") }
    }

    fn settings(cd_steps: usize) -> Settings {
        Settings { learning_rate: 0.1, momentum: 0.5, l2: 0.0, cd_steps }
    }

    fn numbers<const D: usize>(tensor: &Tensor<D>) -> Vec<f64> {
        tensor.clone().into_data().iter::<f64>().collect()
    }

    /// All rows of so many bits.
    fn bit_rows(bits: usize) -> Vec<Vec<f64>> {
        (0..1_usize << bits).map(|row| (0..bits).map(|bit| (row >> bit & 1) as f64).collect()).collect()
    }

    /// ln p(v) of each row of bits in plain f64: the hidden units are summed over by hand, the normalization over all rows.
    fn log_probabilities(machine: &Rbm) -> Vec<f64> {
        let Parameters { weight, visible_bias, hidden_bias } = &machine.parameters;
        let (weight, a, b) = (numbers(weight), numbers(visible_bias), numbers(hidden_bias));
        let units = b.len();
        let unnormalized = |v: &Vec<f64>| -> f64 {
            let linear: f64 = v.iter().zip(&a).map(|(v, a)| v * a).sum();
            let hidden = |j: usize| b[j] + v.iter().enumerate().map(|(i, v)| v * weight[i * units + j]).sum::<f64>();
            linear + (0..units).map(|j| hidden(j).exp().ln_1p()).sum::<f64>()
        };
        let rows: Vec<f64> = bit_rows(a.len()).iter().map(unnormalized).collect();
        let all = rows.iter().map(|row| row.exp()).sum::<f64>().ln();
        rows.iter().map(|row| row - all).collect()
    }

    fn data(rows: &[Vec<f64>], copies: usize) -> Tensor<2> {
        let columns = rows[0].len();
        let values: Vec<f32> = rows.iter().cycle().take(rows.len() * copies).flatten().map(|x| *x as f32).collect();
        Tensor::from_data(TensorData::new(values, [rows.len() * copies, columns]), &Device::flex())
    }

    /// With many Gibbs steps the hidden units have the distribution of the machine, over which is summed here in plain f64.
    #[test]
    fn long_chains_compare_the_data_with_what_the_machine_believes() {
        let mut machine = machine(4, 3, Units::Binary, Units::Binary, settings(20));
        machine.parameters.weight = machine.parameters.weight * 2.0;
        machine.parameters.visible_bias = Tensor::from_floats([0.3, -0.5, 0.2, 0.0], &Device::flex());
        machine.parameters.hidden_bias = Tensor::from_floats([-0.2, 0.4, 0.1], &Device::flex());
        let Parameters { weight, visible_bias, hidden_bias } = machine.parameters.clone();
        let (weight, of_visible, of_hidden) = (numbers(&weight), numbers(&visible_bias), numbers(&hidden_bias));
        let sigmoid = |z: f64| 1.0 / (1.0 + (-z).exp());
        let input_of_visible = |state: &[f64], input: usize| {
            of_visible[input] + (0..3).map(|unit| weight[input * 3 + unit] * state[unit]).sum::<f64>()
        };
        let hidden = |visible: &[f64], unit: usize| {
            sigmoid(of_hidden[unit] + (0..4).map(|input| visible[input] * weight[input * 3 + unit]).sum::<f64>())
        };
        // p(h) is as exp(b h) prod_i (1 + exp(what reaches visible unit i)).
        let believed = |state: &Vec<f64>| -> f64 {
            let linear: f64 = state.iter().zip(&of_hidden).map(|(unit, bias)| unit * bias).sum();
            (linear + (0..4).map(|input| input_of_visible(state, input).exp().ln_1p()).sum::<f64>()).exp()
        };
        let states = bit_rows(3);
        let all: f64 = states.iter().map(believed).sum();
        let rows = [vec![1.0, 1.0, 0.0, 0.0], vec![0.0, 0.0, 1.0, 1.0], vec![1.0, 0.0, 0.0, 1.0]];
        let direction = machine.direction(data(&rows, 20_000));
        let mut largest: f64 = 0.0;
        for (place, found) in numbers(&direction.weight).iter().enumerate() {
            let (input, unit) = (place / 3, place % 3);
            let of_data = rows.iter().map(|row| row[input] * hidden(row, unit)).sum::<f64>() / 3.0;
            let of_state = |state: &Vec<f64>| {
                let visible: Vec<f64> = (0..4).map(|input| sigmoid(input_of_visible(state, input))).collect();
                believed(state) / all * visible[input] * hidden(&visible, unit)
            };
            let expected = of_data - states.iter().map(of_state).sum::<f64>();
            // The statistical error of 60000 chains is .0008.
            assert!((found - expected).abs() < 4e-3, "{place}: {found}, expected {expected}");
            largest = largest.max(expected.abs());
        }
        assert!(largest > 0.1, "{largest}");
    }

    #[test]
    fn a_trained_machine_gives_its_data_nearly_all_the_probability() {
        let mut machine = machine(4, 6, Units::Binary, Units::Binary, settings(5));
        let rows = [vec![1.0, 1.0, 0.0, 0.0], vec![0.0, 0.0, 1.0, 1.0]];
        let of_data = |machine: &Rbm| {
            let all = log_probabilities(machine);
            all[0b0011].exp() + all[0b1100].exp()
        };
        assert!(of_data(&machine) < 0.3, "{}", of_data(&machine));
        for _ in 0..2000 {
            assert!(machine.step(data(&rows, 20)).is_none());
        }
        assert!(of_data(&machine) > 0.85, "{}", of_data(&machine));
    }

    /// v ~ N(a + W h, 1): the machine learns the mean of its data, and a direction in which they lie.
    #[test]
    fn gaussian_visible_units_learn_where_numbers_lie() {
        let mut machine =
            machine(2, 4, Units::Gaussian, Units::Binary, Settings { learning_rate: 0.02, ..settings(1) });
        let rows = [vec![4.0, -1.0], vec![0.0, -1.0]];
        let error = |machine: &Rbm| {
            let data = data(&rows, 1);
            numbers(&(machine.reconstruct(data.clone()) - data).square().sum())[0]
        };
        let before = error(&machine);
        for _ in 0..2000 {
            machine.step(data(&rows, 10));
        }
        assert!(before > 5.0 && error(&machine) < 0.5, "{before} {}", error(&machine));
    }

    #[test]
    fn gaussian_hidden_units_hand_on_what_reaches_them_and_are_drawn_around_it() {
        let machine = machine(3, 2, Units::Binary, Units::Gaussian, settings(1));
        let inputs = data(&[vec![1.0, 0.0, 1.0]], 5000);
        let mean = machine.hidden_mean(inputs.clone());
        let weight = numbers(&machine.parameters.weight);
        for (unit, found) in numbers(&mean)[..2].iter().enumerate() {
            assert!((found - weight[unit] - weight[4 + unit]).abs() < 1e-6, "{unit}: {found}");
        }
        let drawn = Units::Gaussian.draw(mean.clone(), &mut seed::stream(3, "draw")) - mean;
        let variance = numbers(&drawn.clone().square().mean())[0];
        assert!((variance - 1.0).abs() < 0.06 && numbers(&drawn.mean())[0].abs() < 0.05, "{variance}");
    }

    #[test]
    fn momentum_and_weight_decay_are_the_textbooks() {
        // With the penalty's factor so large that what the data say does not count beside it.
        let settings = Settings { momentum: 0.9, l2: 1e6, ..settings(1) };
        let (rate, l2) = (settings.learning_rate, settings.l2);
        let mut machine = machine(2, 1, Units::Binary, Units::Binary, settings);
        let start = numbers(&machine.parameters.weight);
        for _ in 0..2 {
            machine.step(data(&[vec![1.0, 0.0]], 4));
        }
        for (found, start) in numbers(&machine.parameters.weight).iter().zip(start) {
            let first = -l2 * start;
            let after_first = start + rate * first;
            let expected = after_first + rate * (0.9 * first - l2 * after_first);
            assert!((found / expected - 1.0).abs() < 1e-4, "{found}, expected {expected}");
        }
    }
}
