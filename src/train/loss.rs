//! The costs, and the evaluation of a whole split.

use burn::module::Module;
use burn::tensor::{Tensor, activation};

use crate::config::Loss;
use crate::data::{Batch, DeviceSplit};
use crate::network::{Network, Pass};

/// The mean cost over the rows: over the examples of a batch, and over the time steps that have an answer.
///
/// # Shapes
///
/// - outputs: `[rows, classes]`, before softmax or sigmoid; `[rows, 1]` where the answer is a number. A row is an example or,
///   with an answer after every time step, an example at a time step
/// - targets: the same, as in [`Batch`]: one-hot classes, numbers, or of a linear probe the direction in which it looks
/// - returns: `[1]`
pub fn mean_loss(loss: Loss, outputs: Tensor<2>, targets: Tensor<2>) -> Tensor<1> {
    let rows = outputs.dims()[0] as f64;
    match loss {
        Loss::SoftmaxCrossEntropy => (activation::log_softmax(outputs, 1) * targets).sum() / -rows,
        // -t ln s(z) - (1 - t) ln(1 - s(z)) = ln(1 + exp(z)) - t z
        Loss::SigmoidCrossEntropy => (activation::softplus(outputs.clone(), 1.0) - outputs * targets).sum() / rows,
        Loss::LinearProbe => (outputs * targets).sum() / rows,
        Loss::Quadratic => (activation::sigmoid(outputs) - targets).square().sum() / (2.0 * rows),
        Loss::SquaredError => (outputs - targets).square().sum() / rows,
    }
}

/// The mean cost and the fraction of right answers, over a whole split, without a graph.
///
/// A class is right if its output is the largest, a number if it is closer than .04 to the answer (Hochreiter and Schmidhuber
/// 1997, section 5.4). Of `copying` only the answers that are symbols count: the blanks before them need no memory.
/// Sequences are evaluated piece by piece, which the device adds up; other splits at once, because batch norm takes the
/// statistics of the whole split before the first step.
///
/// # Shapes
///
/// - returns: `[2]`, cost and accuracy
pub fn evaluate(network: &Network, split: &DeviceSplit, loss: Loss) -> Tensor<1> {
    let network = network.valid();
    let judge = |batch: Batch| {
        let examples = batch.inputs.dims()[0];
        let outputs = network.forward(batch.inputs, &mut Pass::evaluation());
        let cost = mean_loss(loss, outputs.clone(), batch.targets.clone());
        // Rows stand in the order of time: those of the last answers are the last ones.
        let judged = outputs.dims()[0] - split.judged_answers() * examples..outputs.dims()[0];
        let accuracy = accuracy(loss, outputs.slice([judged.clone()]), batch.targets.slice([judged]));
        Tensor::cat(vec![cost, accuracy], 0) * (examples as f64 / split.len() as f64)
    };
    split.pieces().map(judge).fold(Tensor::zeros([2], &split.inputs.device()), Tensor::add)
}

/// How close to its answer a number must be.
const CLOSE: f64 = 0.04;

fn accuracy(loss: Loss, outputs: Tensor<2>, targets: Tensor<2>) -> Tensor<1> {
    let is_right = match loss {
        Loss::SquaredError => (outputs - targets).abs().lower_elem(CLOSE),
        _ => outputs.argmax(1).equal(targets.argmax(1)),
    };
    is_right.float().mean()
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
