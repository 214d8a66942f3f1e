//! Data sets, from embedded bytes to tensors that stay on the device.

mod batches;
mod digits;

pub use batches::{Batch, Batches, DeviceSplit};
pub use digits::SHA256 as DIGITS_SHA256;

use crate::config::{DataConfig, DataSet, Normalization};

/// A data set on the host, split and normalised.
#[derive(Clone, Debug)]
pub struct Dataset {
    /// The SHA-256 of the bytes it was made from, in hexadecimal.
    pub sha256: &'static str,
    /// Numbers in an input.
    pub features: usize,
    /// Classes.
    pub classes: usize,
    /// The examples that are trained on.
    pub train: Split,
    /// The examples that are held out.
    pub test: Split,
}

/// One part of a data set.
#[derive(Clone, Debug, Default)]
pub struct Split {
    /// The inputs, one after the other: `[examples, features]`.
    pub inputs: Vec<f32>,
    /// The class of each example.
    pub labels: Vec<u8>,
}

impl Split {
    /// The number of examples.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Whether there is no example.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }
}

/// Loads the data set of a config.
pub fn load(config: &DataConfig) -> Dataset {
    let mut dataset = match config.set {
        DataSet::Digits => digits::load(),
    };
    match config.normalization {
        Normalization::None => {}
        Normalization::Unit => scale(&mut dataset, digits::LARGEST_PIXEL),
        Normalization::Standard => standardize(&mut dataset),
    }
    dataset
}

fn scale(dataset: &mut Dataset, largest: f32) {
    for input in dataset.train.inputs.iter_mut().chain(&mut dataset.test.inputs) {
        *input /= largest;
    }
}

/// Gives every feature mean 0 and variance 1 over the training split; a constant feature becomes 0.
fn standardize(dataset: &mut Dataset) {
    let features = dataset.features;
    let count = dataset.train.len() as f64;
    for feature in 0..features {
        let column = || {
            let inputs = &dataset.train.inputs;
            inputs.iter().skip(feature).step_by(features).map(|x| f64::from(*x))
        };
        let mean = column().sum::<f64>() / count;
        let variance = column().map(|x| (x - mean).powi(2)).sum::<f64>() / count;
        let factor = if variance > 0.0 { variance.sqrt().recip() } else { 0.0 };
        for inputs in [&mut dataset.train.inputs, &mut dataset.test.inputs] {
            for x in inputs.iter_mut().skip(feature).step_by(features) {
                *x = ((f64::from(*x) - mean) * factor) as f32;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn standardized_features_have_mean_0_and_variance_1_or_are_constant() {
        let data = load(&DataConfig { set: DataSet::Digits, normalization: Normalization::Standard });
        for feature in 0..64 {
            let column: Vec<f64> = data.train.inputs[feature..].iter().step_by(64).map(|x| f64::from(*x)).collect();
            let mean = column.iter().sum::<f64>() / column.len() as f64;
            let variance = column.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / column.len() as f64;
            assert!(mean.abs() < 1e-6, "feature {feature}: mean {mean}");
            assert!(
                (variance - 1.0).abs() < 1e-5 || column.iter().all(|x| *x == 0.0),
                "feature {feature}: variance {variance}"
            );
        }
    }

    #[test]
    fn unit_inputs_lie_between_0_and_1_and_reach_both() {
        let data = load(&DataConfig::default());
        let inputs = || data.train.inputs.iter().chain(&data.test.inputs).copied();
        assert_eq!(inputs().fold(f32::INFINITY, f32::min), 0.0);
        assert_eq!(inputs().fold(f32::NEG_INFINITY, f32::max), 1.0);
    }
}
