//! The variances of initial weights and biases.

use crate::config::{BiasInit, NetworkConfig, WeightInit};

/// The variance of the weights of a layer, whose mean is 0; None for weights that are not random.
///
/// # Source
///
/// As for [`WeightInit`]. The rows or the columns of a matrix with orthogonal ones, whichever are fewer, have the norm 1.
pub fn weight_variance(config: &NetworkConfig, inputs: usize, units: usize) -> Option<f64> {
    let (n_in, n_out) = (inputs as f64, units as f64);
    let variance = match config.weight_init {
        WeightInit::Normal => config.weight_std.unwrap_or(1.0).powi(2),
        WeightInit::Lecun => 1.0 / n_in,
        WeightInit::Xavier => 2.0 / (n_in + n_out),
        WeightInit::He => 2.0 / n_in,
        WeightInit::Burn => 1.0 / (3.0 * n_in),
        WeightInit::Uniform => 1.0 / 3.0,
        WeightInit::RandomSign => 1.0,
        WeightInit::Orthogonal => 1.0 / n_in.max(n_out),
        WeightInit::Constant | WeightInit::Zero | WeightInit::Given => return None,
    };
    Some(config.weight_scale().powi(2) * variance)
}

/// The variance of the biases of a layer with so many inputs, whose mean is 0; None for biases that are not random.
pub fn bias_variance(config: &NetworkConfig, inputs: usize) -> Option<f64> {
    match config.bias_init {
        BiasInit::Off | BiasInit::Zero => Some(0.0),
        BiasInit::Normal => Some(config.bias_std.unwrap_or(1.0).powi(2)),
        BiasInit::Burn => Some(1.0 / (3.0 * inputs as f64)),
        BiasInit::Constant | BiasInit::Centered | BiasInit::Given => None,
    }
}

/// Whether every weight is of a normal distribution, so that sums of few of them are too.
pub fn weights_are_gaussian(config: &NetworkConfig) -> bool {
    matches!(config.weight_init, WeightInit::Normal | WeightInit::Lecun | WeightInit::Xavier | WeightInit::He)
}
