//! Weight regularization: of weights, and not of biases, normalization and learned slopes.

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::tensor::Tensor;

use super::loss::sums;
use super::parameter::changed;
use crate::config::TrainingConfig;
use crate::probe::{Path, follow_path};

/// Adds the gradients of the penalties `l1 sum |w| + l2 sum w^2 / 2` to those of the loss. At w = 0, where |w| has no
/// derivative, 0 is taken.
pub fn add_penalty_gradients<M: Module>(
    module: &M,
    gradients: GradientsParams,
    training: &TrainingConfig,
) -> GradientsParams {
    if !has_penalties(training) {
        return gradients;
    }
    let mut visitor = AddPenalties { gradients, l1: training.l1, l2: training.l2, path: Path::default() };
    module.visit(&mut visitor);
    visitor.gradients
}

/// The penalties of each seed, `[seeds]`; none without regularization by penalties.
pub fn penalty<M: Module>(module: &M, training: &TrainingConfig, seeds: usize) -> Option<Tensor<1>> {
    if !has_penalties(training) {
        return None;
    }
    let (l1, l2) = (training.l1, training.l2);
    let mut visitor = SumPenalties { l1, l2, seeds, path: Path::default(), terms: Vec::new() };
    module.visit(&mut visitor);
    visitor.terms.into_iter().reduce(|sum, term| sum + term)
}

/// Whether penalties add to the gradients of the loss.
pub fn has_penalties(training: &TrainingConfig) -> bool {
    training.l1 > 0.0 || training.l2 > 0.0
}

/// Whether weights shrink by themselves.
pub fn decays(training: &TrainingConfig) -> bool {
    training.weight_decay != 0.0
}

/// Shrinks the weights by decoupled weight decay: w <- (1 - rate x decay) w (Loshchilov and Hutter 2019, algorithm 2).
pub fn decay<M: Module>(module: M, training: &TrainingConfig) -> M {
    if !decays(training) {
        return module;
    }
    let factor = 1.0 - training.learning_rate() * training.weight_decay;
    module.map(&mut Decay { factor, path: Path::default() })
}

struct AddPenalties {
    gradients: GradientsParams,
    l1: f64,
    l2: f64,
    path: Path,
}

impl ModuleVisitor for AddPenalties {
    follow_path!();

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if !self.path.is_weight() {
            return;
        }
        if let Some(mut gradient) = self.gradients.remove::<D>(param.id) {
            let weight = param.val().inner();
            if self.l2 > 0.0 {
                gradient = gradient + weight.clone() * self.l2;
            }
            if self.l1 > 0.0 {
                gradient = gradient + weight.sign() * self.l1;
            }
            self.gradients.register::<D>(param.id, gradient);
        }
    }
}

struct SumPenalties {
    l1: f64,
    l2: f64,
    seeds: usize,
    path: Path,
    terms: Vec<Tensor<1>>,
}

impl ModuleVisitor for SumPenalties {
    follow_path!();

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if !self.path.is_weight() {
            return;
        }
        let weight = param.val().inner();
        if self.l2 > 0.0 {
            self.terms.push(sums(weight.clone().square(), self.seeds) * (self.l2 / 2.0));
        }
        if self.l1 > 0.0 {
            self.terms.push(sums(weight.abs(), self.seeds) * self.l1);
        }
    }
}

struct Decay {
    factor: f64,
    path: Path,
}

impl ModuleMapper for Decay {
    follow_path!();

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        if !self.path.is_weight() {
            return param;
        }
        changed(param, |weight| weight * self.factor)
    }
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use burn::optim::SgdConfig;
    use burn::tensor::{Device, TensorData};

    use super::*;
    use crate::config::TrainingLength;

    #[derive(Module, Debug)]
    struct Layer {
        weight: Param<Tensor<1>>,
        bias: Param<Tensor<1>>,
    }

    fn layer(values: &[f32]) -> Layer {
        let tracked = Device::flex().autodiff();
        let param = || Param::from_data(TensorData::new(values.to_vec(), [values.len()]), &tracked);
        Layer { weight: param(), bias: param() }
    }

    fn numbers(param: &Param<Tensor<1>>) -> Vec<f64> {
        param.val().into_data().iter::<f64>().collect()
    }

    /// Descends on the penalties alone: the gradient of the data is 0.
    fn descend(training: &TrainingConfig, steps: usize) -> Layer {
        let mut layer = layer(&[2.0, -1.5, 0.8]);
        let mut optimizer = SgdConfig::new().init();
        for _ in 0..steps {
            let mut gradients = GradientsParams::new();
            gradients.register::<1>(layer.weight.id, Tensor::zeros([3], &Device::flex()));
            gradients.register::<1>(layer.bias.id, Tensor::zeros([3], &Device::flex()));
            let gradients = add_penalty_gradients(&layer, gradients, training);
            layer = decay(layer, training);
            layer = optimizer.step(training.learning_rate(), layer, gradients);
        }
        layer
    }

    fn training() -> TrainingConfig {
        TrainingConfig::sgd(0.1, TrainingLength::Steps(1))
    }

    /// With rate x lambda = .001 and no gradient of the data: L2 `w_k = .999^k w_0`, and L1 `|w_k| = |w_0| - .001 k`.
    #[test]
    fn l2_shrinks_weights_by_a_factor_and_l1_by_a_step_and_neither_touches_biases() {
        let l2 = descend(&TrainingConfig { l2: 0.01, ..training() }, 300);
        let l1 = descend(&TrainingConfig { l1: 0.01, ..training() }, 300);
        let decayed = descend(&TrainingConfig { weight_decay: 0.01, ..training() }, 300);
        for (place, start) in [2.0_f64, -1.5, 0.8].into_iter().enumerate() {
            let expected = start * 0.999_f64.powi(300);
            for layer in [&l2, &decayed] {
                let found = numbers(&layer.weight)[place];
                assert!((found / expected - 1.0).abs() < 1e-4, "{found}, expected {expected}");
            }
            let expected = start.signum() * (start.abs() - 0.3);
            let found = numbers(&l1.weight)[place];
            assert!((found / expected - 1.0).abs() < 1e-4, "{found}, expected {expected}");
        }
        for layer in [l1, l2, decayed] {
            assert_eq!(numbers(&layer.bias), [2.0_f32, -1.5, 0.8].map(f64::from));
        }
    }

    #[test]
    fn the_penalty_is_that_of_the_weights() {
        let found = penalty(&layer(&[2.0, -1.0]), &TrainingConfig { l1: 0.1, l2: 0.01, ..training() }, 1);
        let expected = 0.1 * 3.0 + 0.01 * 5.0 / 2.0;
        assert!((f64::from(found.expect("penalties").into_scalar::<f32>()) - expected).abs() < 1e-6);
        assert!(penalty(&layer(&[2.0]), &training(), 1).is_none());
    }
}
