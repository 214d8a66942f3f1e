//! Weight clipping (Arjovsky et al. 2017, algorithm 1). It bounds parameters, not gradients, which `clip` bounds.

use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::Tensor;

use super::clip::bounded;
use super::parameter::changed;
use crate::config::TrainingConfig;

/// Whether parameters are bounded.
pub fn bounds(training: &TrainingConfig) -> bool {
    training.weight_clipping.is_some()
}

/// Bounds every element of every parameter by `training.weight_clipping`, on the device and without waiting for it: the
/// algorithm takes all of w, so that biases, normalization and learned slopes are bounded too.
pub fn clip<M: Module>(module: M, training: &TrainingConfig) -> M {
    match training.weight_clipping {
        Some(bound) => module.map(&mut Bound(bound)),
        None => module,
    }
}

struct Bound(f64);

impl ModuleMapper for Bound {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        changed(param, |values| bounded(values, self.0))
    }
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use burn::tensor::{Device, TensorData};

    use super::*;
    use crate::config::TrainingLength;

    #[derive(Module, Debug)]
    struct Layer {
        weight: Param<Tensor<2>>,
        bias: Param<Tensor<1>>,
    }

    #[test]
    fn no_element_is_beyond_the_bound_and_those_within_are_as_they_were() {
        let tracked = Device::flex().autodiff();
        let values = [0.3_f32, -0.011, 0.01, 0.009_999, -1e-30, f32::NAN];
        let expected = [0.01_f32, -0.01, 0.01, 0.009_999, -1e-30];
        let layer = Layer {
            weight: Param::from_data(TensorData::new(values.to_vec(), [2, 3]), &tracked),
            bias: Param::from_data(TensorData::new(values.to_vec(), [6]), &tracked),
        };
        let sgd = TrainingConfig::sgd(0.1, TrainingLength::Steps(1));
        let numbers = |data: TensorData| -> Vec<f32> { data.iter::<f32>().collect() };
        let free = clip(layer.clone(), &sgd);
        assert_eq!(numbers(free.bias.val().into_data())[..5], values[..5]);
        let bounded = clip(layer, &TrainingConfig { weight_clipping: Some(0.01), ..sgd });
        assert!(bounded.weight.val().is_require_grad() && bounded.bias.val().is_require_grad());
        for found in [numbers(bounded.weight.val().into_data()), numbers(bounded.bias.val().into_data())] {
            assert_eq!(found[..5], expected);
            assert!(found[5].is_nan(), "a divergence is not hidden");
        }
    }
}
