//! A hidden layer as the encoder of an autoencoder (Bengio et al. 2007), of a denoising one with noise (Vincent et al. 2008).

use burn::module::{Module, Param};
use burn::optim::GradientsParams;
use burn::tensor::{Tensor, TensorData};
use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use super::{Decoder, Place, Trainee};
use crate::config::{Kernels, Loss, Reconstruction, TrainingConfig, TrainingLength};
use crate::kernel;
use crate::network::{Dense, DenseLayer, Layer, Pass};
use crate::seed;
use crate::train::loss::{mean_loss, reconstructions};
use crate::train::optimizer::Optimizer;
use crate::train::regularize::add_penalty_gradients;

/// The layer and what decodes it.
#[derive(Module, Debug)]
struct Coder {
    encoder: DenseLayer,
    /// None where the weights are tied.
    decoder: Option<Dense>,
    /// `[inputs]`, the bias of tied weights.
    tied_bias: Option<Param<Tensor<1>>>,
}

impl Coder {
    /// What the decoder makes of inputs, before a sigmoid.
    fn forward(&self, inputs: Tensor<2>, pass: &mut Pass) -> Tensor<2> {
        let code = self.encoder.forward(inputs, pass);
        if let Some(decoder) = &self.decoder {
            return decoder.forward(code);
        }
        let weight = self.encoder.weight.val().transpose();
        kernel::affine(code, weight, self.tied_bias.as_ref().map(Param::val), 1, Kernels::default())
    }
}

/// An autoencoder of one hidden layer while it is trained.
pub(super) struct Autoencoder {
    coder: Coder,
    reconstruction: Reconstruction,
    optimizer: Optimizer,
    training: TrainingConfig,
    noise: Noise,
}

/// What sets inputs to 0.
struct Noise {
    fraction: f64,
    stream: ChaCha8Rng,
}

impl Noise {
    fn corrupt(&mut self, inputs: Tensor<2>) -> Tensor<2> {
        if self.fraction == 0.0 {
            return inputs;
        }
        let shape = inputs.dims();
        let draw = |_| f32::from(u8::from(self.stream.random::<f64>() >= self.fraction));
        let mask: Vec<f32> = (0..shape[0] * shape[1]).map(draw).collect();
        let mask = Tensor::from_data(TensorData::new(mask, shape), &inputs.device());
        inputs * mask
    }
}

impl Autoencoder {
    /// The encoder starts from the layer, and a decoder of its own is drawn as the network's layers are.
    pub(super) fn new(layer: DenseLayer, place: &Place<'_>) -> Self {
        let Place { workload, pretraining, seed, .. } = place;
        let config = workload.config();
        let [inputs, units] = layer.weight.shape().dims();
        let device = layer.weight.val().device();
        let drawn = Dense::init(&config.network, units, inputs, *seed, &place.purpose("decoder"), &device);
        let is_linear_code = layer.is_linear();
        let (decoder, tied_bias) = if pretraining.tied_weights() { (None, drawn.bias) } else { (Some(drawn), None) };
        let training = TrainingConfig {
            momentum: pretraining.momentum,
            l2: pretraining.l2,
            ..TrainingConfig::sgd(pretraining.learning_rate(is_linear_code), TrainingLength::Steps(0))
        };
        Self {
            coder: Coder { encoder: layer, decoder, tied_bias },
            reconstruction: config.reconstruction(pretraining),
            optimizer: Optimizer::new(&training, Kernels::default()),
            training,
            noise: Noise { fraction: pretraining.noise(), stream: seed::stream(*seed, &place.purpose("noise")) },
        }
    }

    /// The network's cost that the reconstruction has: both are means over the examples and sums over the units.
    fn loss(&self) -> Loss {
        match self.reconstruction {
            Reconstruction::CrossEntropy => Loss::SigmoidCrossEntropy,
            Reconstruction::SquaredError => Loss::SquaredError,
        }
    }
}

impl Trainee for Autoencoder {
    fn step(&mut self, batch: Tensor<2>) -> Option<Tensor<1>> {
        let coder = self.coder.clone();
        let corrupted = Tensor::from_inner(self.noise.corrupt(batch.clone()));
        let outputs = coder.forward(corrupted, &mut Pass::training());
        let cost = mean_loss(self.loss(), outputs, Tensor::from_inner(batch));
        let gradients = GradientsParams::from_grads(cost.backward(), &coder);
        let gradients = add_penalty_gradients(&coder, gradients, &self.training);
        self.coder = self.optimizer.step(self.training.learning_rate(), coder, gradients);
        Some(cost.inner())
    }

    fn reconstruct(&self, inputs: Tensor<2>) -> Tensor<2> {
        reconstructions(self.loss(), self.coder.valid().forward(inputs, &mut Pass::evaluation()))
    }

    fn finish(self: Box<Self>) -> (DenseLayer, Decoder) {
        let Coder { encoder, decoder, tied_bias } = self.coder;
        let (weight, bias) = match decoder {
            Some(Dense { weight, bias, .. }) => (weight.val(), bias),
            None => (encoder.weight.val().transpose(), tied_bias),
        };
        let decoder = Decoder { weight: weight.inner(), bias: bias.map(|bias| bias.val().inner()) };
        (encoder, decoder)
    }
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use burn::tensor::Device;

    use super::*;
    use crate::config::{Activation, NetworkConfig, WeightInit};
    use crate::network::{Interface, Network};

    const INPUTS: [[f64; 3]; 4] = [[0.1, 0.9, 0.4], [0.8, 0.2, 0.7], [0.0, 1.0, 0.5], [0.6, 0.3, 0.9]];
    const RATE: f64 = 1e-2;

    fn autoencoder(is_tied: bool, reconstruction: Reconstruction) -> Autoencoder {
        let device = Device::flex().autodiff();
        let config = NetworkConfig::plain(1, 2, Activation::Tanh, WeightInit::Lecun);
        let interface = Interface { features: 3, image: None, sequence: None, outputs: None };
        let Network::Plain(mut network) = Network::init(&config, interface, 1, &device) else {
            panic!("a plain network")
        };
        let drawn = Dense::init(&config, 2, 3, 1, "decoder", &device);
        let (decoder, tied_bias) = if is_tied { (None, drawn.bias) } else { (Some(drawn), None) };
        let training = TrainingConfig::sgd(RATE, TrainingLength::Steps(0));
        Autoencoder {
            coder: Coder { encoder: network.hidden.remove(0), decoder, tied_bias },
            reconstruction,
            optimizer: Optimizer::new(&training, Kernels::default()),
            training,
            noise: Noise { fraction: 0.0, stream: seed::stream(1, "noise") },
        }
    }

    fn numbers<const D: usize>(tensor: Tensor<D>) -> Vec<f64> {
        tensor.into_data().iter::<f64>().collect()
    }

    /// Weight and bias of the encoder, then of the decoder, of which tied weights have the bias alone.
    fn parameters(coder: &Coder) -> Vec<Vec<f64>> {
        let bias = |bias: &Option<Param<Tensor<1>>>| numbers(bias.as_ref().expect("a bias").val());
        let mut all = vec![numbers(coder.encoder.weight.val()), bias(&coder.encoder.bias)];
        match &coder.decoder {
            Some(decoder) => all.extend([numbers(decoder.weight.val()), bias(&decoder.bias)]),
            None => all.push(bias(&coder.tied_bias)),
        }
        all
    }

    /// The mean cost in plain f64, from the same list.
    fn cost(parameters: &[Vec<f64>], reconstruction: Reconstruction) -> f64 {
        let (encoder, decoder_bias) = (&parameters[0], parameters.last().expect("a bias"));
        let back = |unit: usize, input: usize| match parameters {
            [_, _, decoder, _] => decoder[unit * 3 + input],
            _ => encoder[input * 2 + unit],
        };
        let of_example = |x: &[f64; 3]| -> f64 {
            let reach = |unit: usize| parameters[1][unit] + (0..3).map(|i| x[i] * encoder[i * 2 + unit]).sum::<f64>();
            let code = [reach(0).tanh(), reach(1).tanh()];
            let of_input = |input: usize| {
                let z = decoder_bias[input] + (0..2).map(|unit| code[unit] * back(unit, input)).sum::<f64>();
                match reconstruction {
                    Reconstruction::CrossEntropy => z.exp().ln_1p() - x[input] * z,
                    Reconstruction::SquaredError => (z - x[input]).powi(2),
                }
            };
            (0..3).map(of_input).sum()
        };
        INPUTS.iter().map(of_example).sum::<f64>() / INPUTS.len() as f64
    }

    /// A step of gradient descent moves every parameter by the rate times the derivative that differences in f64 give.
    #[test]
    fn a_step_goes_down_the_gradient_of_the_reconstruction_with_tied_weights_and_with_two_sets() {
        let flat: Vec<f32> = INPUTS.iter().flatten().map(|x| *x as f32).collect();
        let batch = Tensor::from_data(TensorData::new(flat, [4, 3]), &Device::flex());
        for is_tied in [true, false] {
            for reconstruction in [Reconstruction::CrossEntropy, Reconstruction::SquaredError] {
                let mut trainee = autoencoder(is_tied, reconstruction);
                let before = parameters(&trainee.coder);
                let found = trainee.step(batch.clone()).map(numbers).expect("a cost")[0];
                let expected = cost(&before, reconstruction);
                assert!((found / expected - 1.0).abs() < 1e-6, "{found}, expected {expected}");
                for (place, after) in parameters(&trainee.coder).iter().enumerate() {
                    for (element, after) in after.iter().enumerate() {
                        let nudged = |by: f64| {
                            let mut all = before.clone();
                            all[place][element] += by;
                            cost(&all, reconstruction)
                        };
                        let derivative = (nudged(1e-5) - nudged(-1e-5)) / 2e-5;
                        let moved = (before[place][element] - after) / RATE;
                        let name = format!("tied {is_tied} {reconstruction:?} {place} {element}");
                        assert!((moved - derivative).abs() < 3e-5, "{name}: {moved}, expected {derivative}");
                    }
                }
            }
        }
    }

    #[test]
    fn noise_takes_away_its_share_of_the_inputs_and_leaves_the_others() {
        let mut noise = Noise { fraction: 0.3, stream: seed::stream(1, "noise") };
        let corrupted = numbers(noise.corrupt(Tensor::full([100, 200], 0.5, &Device::flex())));
        let lost = corrupted.iter().filter(|x| **x == 0.0).count();
        // A standard deviation of 65.
        assert!((5700..6300).contains(&lost), "{lost} of 20000");
        assert!(corrupted.iter().all(|x| *x == 0.0 || *x == 0.5));
    }
}
