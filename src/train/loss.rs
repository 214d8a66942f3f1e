//! The costs, and the evaluation of a whole split.

use burn::module::Module;
use burn::tensor::{Tensor, activation};

use crate::config::Loss;
use crate::data::DeviceSplit;
use crate::network::{Network, Pass};

/// The mean cost over the examples of a batch.
///
/// # Shapes
///
/// - outputs: `[batch, classes]`, before softmax or sigmoid
/// - targets: `[batch, classes]`, one-hot; of a linear probe the direction in which it looks
/// - returns: `[1]`
pub fn mean_loss(loss: Loss, outputs: Tensor<2>, targets: Tensor<2>) -> Tensor<1> {
    let batch = outputs.dims()[0] as f64;
    match loss {
        Loss::SoftmaxCrossEntropy => (activation::log_softmax(outputs, 1) * targets).sum() / -batch,
        // -t ln s(z) - (1 - t) ln(1 - s(z)) = ln(1 + exp(z)) - t z
        Loss::SigmoidCrossEntropy => (activation::softplus(outputs.clone(), 1.0) - outputs * targets).sum() / batch,
        Loss::LinearProbe => (outputs * targets).sum() / batch,
        Loss::Quadratic => (activation::sigmoid(outputs) - targets).square().sum() / (2.0 * batch),
    }
}

/// The mean cost and the fraction of the examples that is classified correctly, over a whole split, without a graph.
///
/// # Shapes
///
/// - returns: `[2]`, cost and accuracy
pub fn evaluate(network: &Network, split: &DeviceSplit, loss: Loss) -> Tensor<1> {
    let outputs = network.valid().forward(split.inputs.clone(), &mut Pass::evaluation());
    let correct = outputs.clone().argmax(1).equal(split.targets.clone().argmax(1));
    let accuracy = correct.float().mean();
    Tensor::cat(vec![mean_loss(loss, outputs, split.targets.clone()), accuracy], 0)
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use burn::tensor::Device;

    use super::*;

    fn value(loss: Loss) -> f32 {
        let device = Device::flex();
        let outputs = Tensor::from_floats([[1.0, -2.0, 0.5], [0.0, 3.0, -1.0]], &device);
        let targets = Tensor::from_floats([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]], &device);
        mean_loss(loss, outputs, targets).into_scalar::<f32>()
    }

    #[test]
    fn softmax_cross_entropy_is_the_mean_of_minus_ln_of_the_right_softmax() {
        let softmax = |z: [f64; 3], right: usize| z[right].exp() / z.map(f64::exp).iter().sum::<f64>();
        let expected = -(softmax([1.0, -2.0, 0.5], 0).ln() + softmax([0.0, 3.0, -1.0], 2).ln()) / 2.0;
        assert!((f64::from(value(Loss::SoftmaxCrossEntropy)) - expected).abs() < 1e-6);
    }

    #[test]
    fn sigmoid_cross_entropy_is_the_sum_over_all_outputs_and_the_mean_over_examples() {
        let s = |z: f64| 1.0 / (1.0 + (-z).exp());
        let term = |z: f64, t: f64| -t * s(z).ln() - (1.0 - t) * (1.0 - s(z)).ln();
        let terms = [term(1.0, 1.0), term(-2.0, 0.0), term(0.5, 0.0), term(0.0, 0.0), term(3.0, 0.0), term(-1.0, 1.0)];
        let expected = terms.iter().sum::<f64>() / 2.0;
        assert!((f64::from(value(Loss::SigmoidCrossEntropy)) - expected).abs() < 1e-6);
    }

    #[test]
    fn a_linear_probe_is_the_mean_of_the_products() {
        assert!((f64::from(value(Loss::LinearProbe)) - (1.0 - 1.0) / 2.0).abs() < 1e-6);
    }

    #[test]
    fn the_quadratic_cost_is_half_the_squared_distance_of_sigmoid_outputs() {
        let s = |z: f64| 1.0 / (1.0 + (-z).exp());
        let terms = [s(1.0) - 1.0, s(-2.0), s(0.5), s(0.0), s(3.0), s(-1.0) - 1.0];
        let expected = terms.iter().map(|x| x * x).sum::<f64>() / 4.0;
        assert!((f64::from(value(Loss::Quadratic)) - expected).abs() < 1e-6);
    }
}
