//! Initial weights and biases, drawn on the host.

use burn::tensor::TensorData;
use nalgebra::DMatrix;
use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};

use crate::config::{BiasInit, NetworkConfig, RecurrentInit, WeightInit};
use crate::fault::{self, Fault};
use crate::seed;

/// What an initializer must know of a layer.
#[derive(Clone, Copy, Debug)]
pub struct Fan {
    /// Inputs of a unit.
    pub inputs: usize,
    /// Units. The pieces of maxout count one by one, those of the first piece first.
    pub units: usize,
    /// The pieces of maxout; 1 for other functions.
    pub pieces: usize,
    /// The number of the layer among the hidden ones; nothing for others.
    pub hidden: Option<usize>,
}

/// Weights, `inputs` x `units`, row by row.
pub fn weight(config: &NetworkConfig, fan: Fan, seed: u64, path: &str) -> Vec<f32> {
    let (inputs, outputs) = (fan.inputs as f64, (fan.units / fan.pieces) as f64);
    let scale = config.weight_scale() * fault::factor(Fault::InitializerScale);
    let count = fan.inputs * fan.units;
    let gaussian = |std: f64| normal(scale * std, count, seed, path);
    match config.weight_init {
        WeightInit::Normal => gaussian(config.weight_std.unwrap_or(1.0)),
        WeightInit::Lecun => gaussian((1.0 / inputs).sqrt()),
        WeightInit::Xavier => gaussian((2.0 / (inputs + outputs)).sqrt()),
        WeightInit::He => gaussian((2.0 / inputs).sqrt()),
        WeightInit::Burn => uniform(scale / inputs.sqrt(), count, seed, path),
        WeightInit::Uniform => uniform(scale, count, seed, path),
        WeightInit::Orthogonal => orthogonal(scale, fan, seed, path),
        WeightInit::RandomSign => {
            let mut stream = seed::stream(seed, path);
            (0..count).map(|_| if stream.random::<bool>() { scale as f32 } else { -scale as f32 }).collect()
        }
        WeightInit::Constant => vec![scale as f32; count],
        WeightInit::Zero => vec![0.0; count],
        WeightInit::Given => vec![(scale * given(config.weights.as_ref(), fan)) as f32; count],
    }
}

/// The weights from a hidden state of so many units to itself, `units` x `gates * units`, row by row. Each gate's are drawn by
/// themselves.
pub fn recurrent_weight(config: &NetworkConfig, units: usize, gates: usize, seed: u64, path: &str) -> Vec<f32> {
    let scale = config.recurrent_scale();
    let count = units * units * gates;
    let root = (units as f64).sqrt();
    match config.recurrent_init() {
        RecurrentInit::Orthogonal => {
            let fan = Fan { inputs: units, units: gates * units, pieces: gates, hidden: None };
            orthogonal(scale, fan, seed, path)
        }
        RecurrentInit::Identity => {
            let is_diagonal = |place: usize| place / (gates * units) == place % units;
            (0..count).map(|place| if is_diagonal(place) { scale as f32 } else { 0.0 }).collect()
        }
        RecurrentInit::Lecun => normal(scale / root, count, seed, path),
        RecurrentInit::Burn => uniform(scale / root, count, seed, path),
        RecurrentInit::Zero => vec![0.0; count],
    }
}

/// Biases, one a unit, unless they are off.
pub fn bias(config: &NetworkConfig, fan: Fan, seed: u64, path: &str) -> Option<TensorData> {
    let count = fan.units;
    let values = match config.bias_init {
        BiasInit::Off => return None,
        // `Network::center` follows when the input is known.
        BiasInit::Zero | BiasInit::Centered => vec![0.0; count],
        BiasInit::Normal => normal(config.bias_std.unwrap_or(1.0), count, seed, path),
        BiasInit::Burn => uniform(1.0 / (fan.inputs as f64).sqrt(), count, seed, path),
        BiasInit::Constant => vec![config.bias_value.unwrap_or(0.0) as f32; count],
        BiasInit::Given => vec![given(config.biases.as_ref(), fan) as f32; count],
    };
    Some(TensorData::new(values, [count]))
}

fn given(values: Option<&Vec<f64>>, fan: Fan) -> f64 {
    fan.hidden.zip(values).and_then(|(layer, values)| values.get(layer).copied()).unwrap_or(0.0)
}

fn normal(std: f64, count: usize, seed: u64, path: &str) -> Vec<f32> {
    let mut stream = seed::stream(seed, path);
    let draw = |_| {
        let x: f64 = StandardNormal.sample(&mut stream);
        (std * x) as f32
    };
    (0..count).map(draw).collect()
}

fn uniform(limit: f64, count: usize, seed: u64, path: &str) -> Vec<f32> {
    let mut stream = seed::stream(seed, path);
    (0..count).map(|_| (limit * (2.0 * stream.random::<f64>() - 1.0)) as f32).collect()
}

/// The Q of the QR decomposition of a matrix of N(0, 1) numbers, with the signs of R's diagonal, which makes it uniformly
/// distributed (Mezzadri 2007, "How to generate random matrices from the classical compact groups"). Of a matrix that is not
/// square, the columns or rows are orthonormal, whichever are fewer. Each piece of maxout has a matrix of its own.
fn orthogonal(scale: f64, fan: Fan, seed: u64, path: &str) -> Vec<f32> {
    let mut stream = seed::stream(seed, path);
    let outputs = fan.units / fan.pieces;
    let pieces: Vec<Vec<f32>> =
        (0..fan.pieces).map(|_| orthogonal_matrix(scale, fan.inputs, outputs, &mut stream)).collect();
    let row = |input: usize| pieces.iter().flat_map(move |piece| &piece[input * outputs..(input + 1) * outputs]);
    (0..fan.inputs).flat_map(row).copied().collect()
}

/// `inputs` x `outputs`, row by row.
fn orthogonal_matrix(scale: f64, inputs: usize, outputs: usize, stream: &mut ChaCha8Rng) -> Vec<f32> {
    let (long, short) = (inputs.max(outputs), inputs.min(outputs));
    let gaussian = DMatrix::<f64>::from_fn(long, short, |_, _| StandardNormal.sample(stream));
    let (mut q, r) = gaussian.qr().unpack();
    for (column, diagonal) in r.diagonal().iter().enumerate() {
        q.column_mut(column).scale_mut(diagonal.signum() * scale);
    }
    // nalgebra stores columns one after the other: a tall Q, read as it lies, is its transpose row by row.
    let by_rows = if inputs > outputs { q.transpose() } else { q };
    by_rows.as_slice().iter().map(|x| *x as f32).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Activation;

    fn config(weight_init: WeightInit) -> NetworkConfig {
        NetworkConfig {
            weight_std: (weight_init == WeightInit::Normal).then_some(0.7),
            bias_init: BiasInit::Normal,
            bias_std: Some(0.3),
            ..NetworkConfig::plain(1, 1, Activation::Tanh, weight_init)
        }
    }

    fn fan(inputs: usize, units: usize) -> Fan {
        Fan { inputs, units, pieces: 1, hidden: Some(0) }
    }

    fn moments(values: &[f32]) -> (f64, f64) {
        let values: Vec<f64> = values.iter().map(|x| f64::from(*x)).collect();
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        let variance = values.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / values.len() as f64;
        (mean, variance)
    }

    fn bias_moments(config: &NetworkConfig, inputs: usize, count: usize) -> (f64, f64) {
        let data = bias(config, fan(inputs, count), 5, "b").expect("on");
        moments(&data.iter::<f32>().collect::<Vec<f32>>())
    }

    #[test]
    fn every_initializer_has_the_variance_that_its_paper_gives() {
        let (inputs, units) = (300, 500);
        for (init, scale, variance) in [
            (WeightInit::Normal, None, 0.49),
            (WeightInit::Lecun, None, 1.0 / 300.0),
            (WeightInit::Xavier, None, 2.0 / 800.0),
            (WeightInit::He, None, 2.0 / 300.0),
            (WeightInit::He, Some(1.5), 4.5 / 300.0),
            (WeightInit::Burn, None, 1.0 / 900.0),
            (WeightInit::Uniform, Some(0.2), 0.04 / 3.0),
            (WeightInit::RandomSign, Some(0.1), 0.01),
            // 300 orthonormal rows of 500 numbers: the squares of all sum up to 300.
            (WeightInit::Orthogonal, None, 1.0 / 500.0),
            (WeightInit::Orthogonal, Some(2.0), 4.0 / 500.0),
        ] {
            let config = NetworkConfig { weight_scale: scale, ..config(init) };
            // 150,000 draws: the standard error of the variance is .37 %.
            let (mean, found) = moments(&weight(&config, fan(inputs, units), 5, "w"));
            assert!((found / variance - 1.0).abs() < 0.015, "{init:?}: {found}, expected {variance}");
            assert!(mean.abs() < 4.0 * (variance / 150_000.0).sqrt(), "{init:?}: mean {mean}");
        }
    }

    #[test]
    fn uniform_and_random_sign_stay_within_their_limits_and_constants_are_constant() {
        let drawn = |init, scale| weight(&NetworkConfig { weight_scale: scale, ..config(init) }, fan(40, 30), 5, "w");
        let limit = (1.0_f32 / 40.0).sqrt();
        assert!(drawn(WeightInit::Burn, None).iter().all(|w| w.abs() <= limit));
        assert!(drawn(WeightInit::Burn, None).iter().any(|w| w.abs() > 0.95 * limit));
        assert!(drawn(WeightInit::RandomSign, Some(0.5)).iter().all(|w| w.abs() == 0.5));
        assert!(drawn(WeightInit::Constant, Some(-3.0)).iter().all(|w| *w == -3.0));
        assert!(drawn(WeightInit::Zero, None).iter().all(|w| *w == 0.0));
    }

    #[test]
    fn orthogonal_weights_have_orthonormal_rows_or_columns_whichever_are_fewer() {
        for (inputs, units) in [(40, 40), (40, 25), (25, 40)] {
            let values = weight(&config(WeightInit::Orthogonal), fan(inputs, units), 5, "w");
            let entry = |row: usize, column: usize| f64::from(values[row * units + column]);
            let short = inputs.min(units);
            for i in 0..short {
                for j in 0..short {
                    let product: f64 = if inputs <= units {
                        (0..units).map(|k| entry(i, k) * entry(j, k)).sum()
                    } else {
                        (0..inputs).map(|k| entry(k, i) * entry(k, j)).sum()
                    };
                    let expected = f64::from(u8::from(i == j));
                    assert!((product - expected).abs() < 1e-6, "{inputs} x {units}: {i} {j} {product}");
                }
            }
        }
    }

    #[test]
    fn every_piece_of_maxout_has_the_variance_of_a_layer_of_its_own() {
        let fan = Fan { inputs: 40, units: 3 * 40, pieces: 3, hidden: Some(0) };
        for (init, variance) in [(WeightInit::Orthogonal, 1.0 / 40.0), (WeightInit::Xavier, 2.0 / 80.0)] {
            let values = weight(&config(init), fan, 5, "w");
            assert!((moments(&values).1 / variance - 1.0).abs() < 0.06, "{init:?}: {}", moments(&values).1);
        }
        let values = weight(&config(WeightInit::Orthogonal), fan, 5, "w");
        let entry = |piece: usize, row: usize, column: usize| f64::from(values[row * 120 + piece * 40 + column]);
        for piece in 0..3 {
            let product = |i: usize, j: usize| (0..40).map(|k| entry(piece, i, k) * entry(piece, j, k)).sum::<f64>();
            assert!((product(7, 7) - 1.0).abs() < 1e-6 && product(7, 8).abs() < 1e-6, "piece {piece}");
        }
        assert!((entry(0, 0, 0) - entry(1, 0, 0)).abs() > 1e-6, "the pieces are equal");
    }

    /// A uniformly distributed orthogonal matrix has no preferred sign; without the correction the diagonal of Q does.
    #[test]
    fn orthogonal_weights_prefer_no_sign() {
        let positive =
            (0..400).filter(|seed| weight(&config(WeightInit::Orthogonal), fan(3, 3), *seed, "w")[0] > 0.0).count();
        // 200 of 400 with a standard deviation of 10.
        assert!((150..=250).contains(&positive), "{positive} of 400");
    }

    #[test]
    fn biases_are_off_zero_or_of_the_given_deviation() {
        let mut config = config(WeightInit::He);
        let (mean, variance) = bias_moments(&config, 10, 100_000);
        assert!((variance / 0.09 - 1.0).abs() < 0.02 && mean.abs() < 0.004);
        config.bias_init = BiasInit::Burn;
        let (mean, variance) = bias_moments(&config, 10, 100_000);
        assert!((variance * 30.0 - 1.0).abs() < 0.02 && mean.abs() < 0.003);
        config.bias_init = BiasInit::Zero;
        assert_eq!(bias_moments(&config, 10, 10), (0.0, 0.0));
        (config.bias_init, config.bias_value) = (BiasInit::Constant, Some(0.5));
        assert_eq!(bias_moments(&config, 10, 10), (0.5, 0.0));
        config.bias_init = BiasInit::Off;
        assert!(bias(&config, fan(10, 10), 5, "b").is_none());
    }
}
