//! A critic's gradient penalty (Gulrajani et al. 2017, algorithm 1 and equation 3).

use burn::tensor::{Tensor, s};

use crate::config::TrainingConfig;
use crate::data::Batch;
use crate::network::Network;

/// Below this a squared norm counts as constant: at 0 the root has no finite derivative, and the gradient of the penalty
/// would not be a number. The norm itself has 0 among its slopes there.
const LEAST_SQUARE: f64 = 1e-30;

/// lambda E[(|grad D(x)| - 1)^2] as a node of the graph, over a point x of each pair: on the way from the generated point to
/// the real one, at the share that came with the pair. None without `training.gradient_penalty`, or where the network has no
/// gradient with respect to its input that can be differentiated again.
///
/// # Shapes
///
/// - returns: `[1]`
pub fn gradient_penalty(network: &Network, batch: &Batch, training: &TrainingConfig) -> Option<Tensor<1>> {
    let (lambda, Network::Plain(critic)) = (training.gradient_penalty?, network) else {
        return None;
    };
    let gradient = critic.input_gradient(between(batch))?;
    let [pairs, features] = gradient.dims();
    // Sums as products: Burn's fused reductions of rows this short fail to compile on wgpu.
    let ones = Tensor::ones([features, 1], &gradient.device());
    let excess = gradient.square().matmul(ones).clamp_min(LEAST_SQUARE).sqrt() - 1.0;
    Some(excess.clone().transpose().matmul(excess).reshape([1]) * (lambda / pairs as f64))
}

/// The points `[batch / 2, features]` between the two of each pair.
fn between(batch: &Batch) -> Tensor<2> {
    let [points, features] = batch.inputs.dims();
    // Real and generated points stand in turn, and both have the share of their pair.
    let pairs = batch.inputs.clone().reshape([points / 2, 2 * features]);
    let shares = batch.targets.clone().reshape([points / 2, 4]).slice(s![.., 1..2]);
    let real = pairs.clone().slice(s![.., 0..features]);
    let generated = pairs.slice(s![.., features..2 * features]);
    real * shares.clone() + generated * (1.0 - shares)
}

/// Floating-point operations of the matrix products that the penalty adds to a step.
pub fn flops(network: &Network, batch_size: usize, training: &TrainingConfig) -> f64 {
    match (training.gradient_penalty, network) {
        (Some(_), Network::Plain(critic)) => critic.input_gradient_flops(batch_size / 2),
        _ => 0.0,
    }
}
