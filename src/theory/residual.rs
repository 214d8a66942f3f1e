//! Gradients through residual networks (Yang and Schoenholz 2017, "Mean Field Residual Networks"; with batch norm Yang et al. 2019,
//! section 4): closed forms of blocks x + a W phi(x). [`super::prediction`] has the general case, block by block.

use super::mean_field::{MeanField, moments};
use super::normalization::large_batch_gradient_factor;
use crate::config::ActivationFunction;

/// The logarithm of the squared norm of the gradient with respect to the input by that with respect to the last block's output, for
/// blocks x + `scale` W phi(x), W of variance `weight_variance` / n, and inputs of variance `input_variance`.
///
/// The variance grows by q -> q + `scale`^2 `weight_variance` E[phi(sqrt(q) z)^2] and the square of the gradient by
/// 1 + `scale`^2 `weight_variance` E[phi'(sqrt(q) z)^2] a block: for He's ReLU by 1 + `scale`^2, exponentially; for tanh the slopes
/// become smaller as q grows, and the gradient grows like a power of the depth.
///
/// # Source
///
/// Yang and Schoenholz 2017, theorems 3.2 and 3.5.
pub fn log_growth(
    function: ActivationFunction,
    weight_variance: f64,
    scale: f64,
    input_variance: f64,
    blocks: usize,
) -> f64 {
    let field = MeanField { function, weight_variance: scale * scale * weight_variance, bias_variance: 0.0 };
    let mut q = input_variance;
    let mut logarithm = 0.0;
    for _ in 0..blocks {
        logarithm += field.chi_at(q).ln_1p();
        q += field.weight_variance * moments(function, q).square;
    }
    logarithm
}

/// The factor by which the mean square of the gradient changes at block number `block`, from 1, of blocks
/// x + W phi(BN(x)) without a stem and with a large batch: the branch has as much variance as all before it, so that the
/// gradient grows by 1 + factor / `block`, and a network of L blocks multiplies it by about L^factor, not exponentially. `factor`
/// is [`large_batch_gradient_factor`].
///
/// # Source
///
/// Yang et al. 2019, section 4; De and Smith 2020, "Batch normalization biases residual blocks towards the identity function".
pub fn batch_norm_block_factor(function: ActivationFunction, block: usize) -> f64 {
    1.0 + large_batch_gradient_factor(function) / block as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Activation;

    fn function(kind: Activation) -> ActivationFunction {
        ActivationFunction { kind, slope: 0.0, pieces: 1 }
    }

    #[test]
    fn relu_blocks_grow_the_gradient_exponentially_unless_the_branch_is_scaled() {
        let relu = function(Activation::Relu);
        assert!((log_growth(relu, 2.0, 1.0, 1.0, 100) - 69.31).abs() < 0.005);
        let scaled = log_growth(relu, 2.0, 1.0 / 1000.0_f64.sqrt(), 1.0, 1000);
        assert!((scaled - 0.9995).abs() < 5e-5, "{scaled}");
    }

    #[test]
    fn tanh_blocks_grow_it_like_a_power_of_the_depth() {
        for (blocks, expected) in [(10, 2.643), (100, 10.55), (1000, 34.27)] {
            let found = log_growth(function(Activation::Tanh), 1.0, 1.0, 1.0, blocks);
            assert!((found / expected - 1.0).abs() < 1e-3, "{blocks}: {found}, expected {expected}");
        }
    }

    #[test]
    fn batch_norm_on_the_branch_makes_the_growth_a_power_of_the_depth() {
        let product: f64 =
            (2..=1000).map(|block| batch_norm_block_factor(function(Activation::Relu), block).ln()).sum();
        let power = large_batch_gradient_factor(function(Activation::Relu));
        assert!((product / (power * 1000.0_f64.ln()) - 1.0).abs() < 0.15, "{product}");
    }
}
