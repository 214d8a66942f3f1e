//! The costs, and the evaluation of a whole split.

use burn::module::Module;
use burn::tensor::{Tensor, activation, s};

use crate::config::{Kernels, Loss};
use crate::data::{Batch, DeviceSplit};
use crate::kernel::{self, CostForm};
use crate::network::{Network, Pass};

/// The mean cost over the rows: over the examples of a batch, and over the time steps that have an answer.
///
/// # Shapes
///
/// - outputs: `[rows, classes]`, before softmax or sigmoid; `[rows, 1]` where the answer is a number. A row is an example or,
///   with an answer after every time step, an example at a time step
/// - targets: the same, as in [`Batch`]: one-hot classes, numbers, or of a linear probe the direction in which it looks; of
///   real and generated points `[rows, 2]`, whose first column is their side
/// - returns: `[1]`
pub fn mean_loss(loss: Loss, outputs: Tensor<2>, targets: Tensor<2>) -> Tensor<1> {
    mean_losses(loss, outputs, targets, 1, Kernels::default())
}

/// The mean cost of each of several seeds, whose rows come one after the other. The gradients of their sum are, for each seed, those
/// of its own mean. A critic's rows are of one seed.
///
/// # Shapes
///
/// - outputs, targets: as in [`mean_loss`], `seeds` times as many rows
/// - returns: `[seeds]`
pub fn mean_losses(loss: Loss, outputs: Tensor<2>, targets: Tensor<2>, seeds: usize, kernels: Kernels) -> Tensor<1> {
    let rows = (outputs.dims()[0] / seeds) as f64;
    let sum = |costs| sums(costs, seeds);
    match loss {
        Loss::SoftmaxCrossEntropy if kernels == Kernels::Fused && kernel::has_fused_cost(&outputs) => {
            kernel::softmax_cross_entropy(outputs, targets, CostForm { seeds, kernels })
        }
        Loss::SoftmaxCrossEntropy => sum(activation::log_softmax(outputs, 1) * targets) / -rows,
        // -t ln s(z) - (1 - t) ln(1 - s(z)) = ln(1 + exp(z)) - t z
        Loss::SigmoidCrossEntropy => sum(activation::softplus(outputs.clone(), 1.0) - outputs * targets) / rows,
        Loss::LinearProbe => sum(outputs * targets) / rows,
        Loss::Quadratic => sum((activation::sigmoid(outputs) - targets).square()) / (2.0 * rows),
        Loss::SquaredError => sum((outputs - targets).square()) / rows,
        // Half of the rows are of each side. The sum is a product because Burn's fused reduction of a slice fails to compile on
        // wgpu.
        Loss::Wasserstein => outputs.transpose().matmul(targets).slice(s![.., 0..1]).reshape([1]) / (rows / 2.0),
    }
}

/// The sums over the elements of each seed, `[seeds]`.
pub(super) fn sums<const D: usize>(x: Tensor<D>, seeds: usize) -> Tensor<1> {
    if seeds == 1 {
        return x.sum();
    }
    let x: Tensor<2> = x.reshape([seeds as i64, -1]);
    x.sum_dim(1).reshape([seeds])
}

/// The mean cost and the fraction of right answers, over a whole split, without a graph; of an autoencoder, in place of the
/// latter, the mean over the examples of the squared distance |x - r|^2 between an input and its reconstruction. A critic has
/// no right answers.
///
/// A class is right if its output is the largest, a number if it is closer than .04 to the answer (Hochreiter and Schmidhuber
/// 1997, section 5.4). Of `copying` only the answers that are symbols count: the blanks before them need no memory.
/// A split that is too large is evaluated piece by piece, which the device adds up. Before the first step batch norm takes
/// the statistics of what is evaluated at once: of all test splits but images of 28 x 28 in a convolutional network, the whole
/// split.
///
/// # Shapes
///
/// - returns: `[2]`, cost and accuracy or squared distance; of a critic `[1]`, the cost
pub fn evaluate(network: &Network, split: &DeviceSplit, loss: Loss) -> Tensor<1> {
    let network = network.valid();
    let examples = split.len() as f64;
    let judge_piece = |batch: Batch| {
        let share = batch.inputs.dims()[0] as f64 / examples;
        let judged_rows = split.judged_answers() * batch.inputs.dims()[0];
        let outputs = network.forward(batch.inputs, &mut Pass::evaluation());
        let result = if split.is_unlabelled() {
            let distance = squared_distance(batch.targets.clone(), reconstructions(loss, outputs.clone()));
            Tensor::cat(vec![mean_loss(loss, outputs, batch.targets), distance], 0)
        } else {
            judge(loss, outputs, batch.targets, judged_rows)
        };
        result * share
    };
    let sum = split.pieces().map(judge_piece).reduce(Tensor::add);
    sum.unwrap_or_else(|| Tensor::zeros([2], &split.inputs.device()))
}

/// The mean cost of all rows and the fraction that is right of the last ones, which are those of the last answers: rows
/// stand in the order of time.
fn judge(loss: Loss, outputs: Tensor<2>, targets: Tensor<2>, judged_rows: usize) -> Tensor<1> {
    let rows = outputs.dims()[0];
    let judged = rows - judged_rows..rows;
    let cost = mean_loss(loss, outputs.clone(), targets.clone());
    if loss == Loss::Wasserstein {
        return cost;
    }
    let accuracy = accuracy(loss, outputs.slice([judged.clone()]), targets.slice([judged]));
    Tensor::cat(vec![cost, accuracy], 0)
}

/// What an autoencoder puts out, from what comes before a sigmoid if the cost has one.
pub(super) fn reconstructions(loss: Loss, outputs: Tensor<2>) -> Tensor<2> {
    match loss {
        Loss::SigmoidCrossEntropy | Loss::Quadratic => activation::sigmoid(outputs),
        _ => outputs,
    }
}

/// The mean over the examples of |x - r|^2, `[1]`, of inputs x and reconstructions r `[examples, features]`.
pub fn squared_distance(inputs: Tensor<2>, reconstructions: Tensor<2>) -> Tensor<1> {
    let examples = inputs.dims()[0] as f64;
    (inputs - reconstructions).square().sum() / examples
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
    use rand::RngExt;

    use super::*;
    use crate::config::{Activation, NetworkConfig, WeightInit};
    use crate::data::{Answers, Split, Targets};
    use crate::network::Interface;

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

    #[test]
    fn a_critic_costs_its_mean_on_generated_points_minus_that_on_real_ones_and_is_never_right() {
        let device = Device::flex();
        let outputs = Tensor::from_floats([[3.0], [1.0], [-0.5], [4.0]], &device);
        let targets = Tensor::from_floats([[-1.0, 0.3], [1.0, 0.3], [-1.0, 0.9], [1.0, 0.9]], &device);
        assert_eq!(judged(Loss::Wasserstein, outputs, targets, 4), [2.5 - 1.25]);
    }

    fn judged(loss: Loss, outputs: Tensor<2>, targets: Tensor<2>, judged_rows: usize) -> Vec<f32> {
        judge(loss, outputs, targets, judged_rows).into_data().convert::<f32>().try_to_vec().expect("numbers")
    }

    #[test]
    fn numbers_cost_the_mean_of_their_squared_distances_and_are_right_closer_than_4_hundredths() {
        let device = Device::flex();
        let outputs = Tensor::from_floats([[1.0], [0.5], [0.53], [f32::NAN]], &device);
        let targets = Tensor::from_floats([[1.03], [0.55], [0.5], [0.5]], &device);
        let result = judged(Loss::SquaredError, outputs.clone().slice(s![0..3]), targets.clone().slice(s![0..3]), 3);
        let expected = (0.03_f32.powi(2) + 0.05_f32.powi(2) + 0.03_f32.powi(2)) / 3.0;
        assert!((result[0] - expected).abs() < 1e-8, "{result:?}");
        assert!((result[1] - 2.0 / 3.0).abs() < 1e-6, "{result:?}");
        assert_eq!(judged(Loss::SquaredError, outputs, targets, 4)[1], 0.5);
    }

    #[test]
    fn accuracy_looks_at_the_last_answers_alone_and_the_cost_at_all() {
        let device = Device::flex();
        // Two examples at three time steps: right, wrong; right, right; wrong, right.
        let outputs =
            Tensor::from_floats([[2.0, 0.0], [0.0, 2.0], [0.0, 2.0], [2.0, 0.0], [0.0, 2.0], [2.0, 0.0]], &device);
        let targets =
            Tensor::from_floats([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 0.0], [1.0, 0.0]], &device);
        let accuracy = |rows| judged(Loss::SoftmaxCrossEntropy, outputs.clone(), targets.clone(), rows)[1];
        assert_eq!((accuracy(2), accuracy(4)), (0.5, 0.75));
        assert!((accuracy(6) - 4.0 / 6.0).abs() < 1e-6);
        let right = (1.0_f64 + (-2.0_f64).exp()).ln();
        let expected = (4.0 * right + 2.0 * (2.0 + right)) / 6.0;
        let cost = judged(Loss::SoftmaxCrossEntropy, outputs, targets, 2)[0];
        assert!((f64::from(cost) - expected).abs() < 1e-6, "{cost}, expected {expected}");
    }

    #[test]
    fn an_evaluation_in_pieces_is_that_of_the_whole_split() {
        let device = Device::flex();
        let config = NetworkConfig::plain(2, 8, Activation::Tanh, WeightInit::Lecun);
        let interface = Interface { features: 3, image: None, sequence: None, outputs: Some(2) };
        let network = Network::init(&config, interface, 1, &device.clone().autodiff());
        let mut stream = crate::seed::stream(1, "test");
        let inputs = (0..300).map(|_| stream.random()).collect();
        let codes = (0..100).map(|_| stream.random_range(0..2)).collect();
        let split = Split { inputs, answers: Answers::Classes { codes, each: 1 } };
        let split = DeviceSplit::new(&split, 3, &Targets::Answers { classes: 2, judged: 1 }, &device);
        let result = |split: &DeviceSplit| -> Vec<f32> {
            let result = evaluate(&network, split, Loss::SoftmaxCrossEntropy);
            result.into_data().convert::<f32>().try_to_vec().expect("numbers")
        };
        let (whole, pieces) = (result(&split), result(&split.clone().in_pieces_of(32)));
        assert!(whole.iter().zip(&pieces).all(|(a, b)| (a - b).abs() < 1e-6), "{whole:?} {pieces:?}");
    }
}
