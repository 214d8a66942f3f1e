//! The optimizers, which are Burn's.

use burn::optim::momentum::MomentumConfig;
use burn::optim::{AdamConfig, ModuleOptimizer, RmsPropConfig, SgdConfig};

use crate::config::{Optimizer, TrainingConfig};

/// A new optimizer. Weight decay is not its affair: [`super::regularize`] decays weights alone, and Burn's `AdamW` would
/// decay biases too.
pub fn optimizer(training: &TrainingConfig) -> ModuleOptimizer {
    match training.optimizer {
        Optimizer::Sgd => {
            let momentum = (training.momentum > 0.0).then(|| {
                // Burn's default dampens the gradient by a tenth; the textbook's momentum does not.
                MomentumConfig::new().with_momentum(training.momentum).with_dampening(0.0)
            });
            SgdConfig::new().with_momentum(momentum).init()
        }
        Optimizer::Adam | Optimizer::Adamw => AdamConfig::new()
            .with_beta_1(training.beta_1() as f32)
            .with_beta_2(training.beta_2() as f32)
            .with_epsilon(training.epsilon() as f32)
            .init(),
        // Burn's default has a momentum of .9.
        Optimizer::Rmsprop => RmsPropConfig::new()
            .with_alpha(training.smoothing() as f32)
            .with_momentum(training.momentum as f32)
            .with_epsilon(training.epsilon() as f32)
            .init(),
    }
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use burn::module::{Module, Param};
    use burn::optim::GradientsParams;
    use burn::tensor::{Device, Tensor, TensorData};

    use super::*;
    use crate::config::TrainingLength;

    #[derive(Module, Debug)]
    struct Single {
        weight: Param<Tensor<1>>,
    }

    const GRADIENTS: [f64; 4] = [0.5, -2.0, 1.0, 0.25];

    fn descend(training: &TrainingConfig) -> f64 {
        let start = TensorData::new(vec![1.0_f32], [1]);
        let mut module = Single { weight: Param::from_data(start, &Device::flex().autodiff()) };
        let mut optimizer = optimizer(training);
        for gradient in GRADIENTS {
            let mut gradients = GradientsParams::new();
            gradients.register::<1>(module.weight.id, Tensor::from_floats([gradient as f32], &Device::flex()));
            module = optimizer.step(training.learning_rate(), module, gradients);
        }
        module.weight.val().into_scalar::<f32>().into()
    }

    #[track_caller]
    fn assert_close(found: f64, expected: f64) {
        assert!((found - expected).abs() < 1e-6, "{found}, expected {expected}");
    }

    #[test]
    fn sgd_and_momentum_are_the_textbooks() {
        let training = TrainingConfig::sgd(0.1, TrainingLength::Steps(1));
        assert_close(descend(&training), 1.0 - 0.1 * GRADIENTS.iter().sum::<f64>());
        let (mut w, mut v) = (1.0, 0.0);
        for gradient in GRADIENTS {
            v = 0.9 * v + gradient;
            w -= 0.1 * v;
        }
        assert_close(descend(&TrainingConfig { momentum: 0.9, ..training }), w);
    }

    /// Kingma and Ba 2015, algorithm 1.
    #[test]
    fn adam_is_that_of_the_paper() {
        let sgd = TrainingConfig::sgd(0.1, TrainingLength::Steps(1));
        let training = TrainingConfig { optimizer: Optimizer::Adam, ..sgd };
        let (mut w, mut m, mut v) = (1.0, 0.0, 0.0);
        for (step, gradient) in (1_i32..).zip(GRADIENTS) {
            m = 0.9 * m + 0.1 * gradient;
            v = 0.999 * v + 0.001 * gradient * gradient;
            let (m_hat, v_hat): (f64, f64) = (m / (1.0 - 0.9_f64.powi(step)), v / (1.0 - 0.999_f64.powi(step)));
            w -= 0.1 * m_hat / (v_hat.sqrt() + 1e-8);
        }
        assert_close(descend(&training), w);
    }

    #[test]
    fn rmsprop_divides_by_the_root_of_the_mean_square() {
        let sgd = TrainingConfig::sgd(0.1, TrainingLength::Steps(1));
        let training = TrainingConfig { optimizer: Optimizer::Rmsprop, smoothing: Some(0.9), ..sgd };
        let (mut w, mut square) = (1.0, 0.0_f64);
        for gradient in GRADIENTS {
            square = 0.9 * square + 0.1 * gradient * gradient;
            w -= 0.1 * gradient / (square.sqrt() + 1e-8);
        }
        assert_close(descend(&training), w);
    }
}
