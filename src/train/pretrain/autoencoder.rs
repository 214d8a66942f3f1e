//! A hidden layer as the encoder of an autoencoder (Bengio et al. 2007), of a denoising one with noise (Vincent et al. 2008).

use burn::module::{Module, Param};
use burn::optim::{GradientsParams, ModuleOptimizer};
use burn::tensor::{Tensor, TensorData};
use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use super::{Decoder, Place, Trainee};
use crate::config::{Loss, Reconstruction, TrainingConfig, TrainingLength};
use crate::kernel;
use crate::network::{Dense, DenseLayer, Pass};
use crate::seed;
use crate::train::loss::{mean_loss, reconstructions};
use crate::train::optimizer::optimizer;
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
        kernel::affine(code, weight, self.tied_bias.as_ref().map(Param::val))
    }
}

/// An autoencoder of one hidden layer while it is trained.
pub(super) struct Autoencoder {
    coder: Coder,
    reconstruction: Reconstruction,
    optimizer: ModuleOptimizer,
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
            optimizer: optimizer(&training),
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
            Some(Dense { weight, bias }) => (weight.val(), bias),
            None => (encoder.weight.val().transpose(), tied_bias),
        };
        let decoder = Decoder { weight: weight.inner(), bias: bias.map(|bias| bias.val().inner()) };
        (encoder, decoder)
    }
}
