//! Initial weights and biases, drawn on the host.

use burn::tensor::TensorData;
use rand_distr::{Distribution, StandardNormal};

use crate::config::{BiasInit, NetworkConfig, WeightInit};
use crate::seed;

/// The standard deviation of the initial weights of a layer.
pub fn weight_std(config: &NetworkConfig, inputs: usize, outputs: usize) -> f64 {
    let (inputs, outputs) = (inputs as f64, outputs as f64);
    match config.weight_init {
        WeightInit::Normal => config.weight_std.unwrap_or(1.0),
        WeightInit::Lecun => (1.0 / inputs).sqrt(),
        WeightInit::Xavier => (2.0 / (inputs + outputs)).sqrt(),
        WeightInit::He => (2.0 / inputs).sqrt(),
    }
}

/// Weights `[inputs, outputs]`.
pub fn weight(config: &NetworkConfig, inputs: usize, outputs: usize, seed: u64, path: &str) -> TensorData {
    let values = normal(weight_std(config, inputs, outputs), inputs * outputs, seed, path);
    TensorData::new(values, [inputs, outputs])
}

/// Biases `[outputs]`, unless they are off.
pub fn bias(config: &NetworkConfig, outputs: usize, seed: u64, path: &str) -> Option<TensorData> {
    let values = match config.bias_init {
        BiasInit::Off => return None,
        BiasInit::Zero => vec![0.0; outputs],
        BiasInit::Normal => normal(config.bias_std.unwrap_or(1.0), outputs, seed, path),
    };
    Some(TensorData::new(values, [outputs]))
}

fn normal(std: f64, count: usize, seed: u64, path: &str) -> Vec<f32> {
    let mut stream = seed::stream(seed, path);
    let draw = |_| {
        let x: f64 = StandardNormal.sample(&mut stream);
        (std * x) as f32
    };
    (0..count).map(draw).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Activation, NetworkKind};

    fn config(weight_init: WeightInit) -> NetworkConfig {
        NetworkConfig {
            kind: NetworkKind::Plain,
            depth: 1,
            width: 1,
            activation: Activation::Tanh,
            weight_init,
            weight_std: (weight_init == WeightInit::Normal).then_some(0.7),
            bias_init: BiasInit::Normal,
            bias_std: Some(0.3),
        }
    }

    fn moments(data: &TensorData) -> (f64, f64) {
        let values: Vec<f64> = data.iter::<f64>().collect();
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        let variance = values.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / values.len() as f64;
        (mean, variance)
    }

    #[test]
    fn every_initializer_has_the_variance_that_its_paper_gives() {
        let (inputs, outputs) = (300, 500);
        for (init, variance) in [
            (WeightInit::Normal, 0.49),
            (WeightInit::Lecun, 1.0 / 300.0),
            (WeightInit::Xavier, 2.0 / 800.0),
            (WeightInit::He, 2.0 / 300.0),
        ] {
            // 150,000 draws: the standard error of the variance is .37 %.
            let (mean, found) = moments(&weight(&config(init), inputs, outputs, 5, "w"));
            assert!((found / variance - 1.0).abs() < 0.015, "{init:?}: {found}, expected {variance}");
            assert!(mean.abs() < 4.0 * (variance / 150_000.0).sqrt(), "{init:?}: mean {mean}");
        }
    }

    #[test]
    fn biases_are_off_zero_or_of_the_given_deviation() {
        let mut config = config(WeightInit::He);
        let (mean, variance) = moments(&bias(&config, 100_000, 5, "b").expect("on"));
        assert!((variance / 0.09 - 1.0).abs() < 0.02 && mean.abs() < 0.004);
        config.bias_init = BiasInit::Zero;
        assert_eq!(moments(&bias(&config, 10, 5, "b").expect("on")), (0.0, 0.0));
        config.bias_init = BiasInit::Off;
        assert!(bias(&config, 10, 5, "b").is_none());
    }
}
