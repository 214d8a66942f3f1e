//! Data sets, from embedded bytes, files or a seed to tensors that stay on the device.

mod batches;
mod device_split;
mod digits;
mod download;
mod error;
mod idx;
mod image_files;
mod image_set;
mod points;
pub mod principal_components;
mod sources;
mod split;
mod synthetic;
mod tasks;
mod text;

pub use batches::Batches;
pub use device_split::{Batch, DeviceSplit, Targets};
pub use digits::SHA256 as DIGITS_SHA256;
pub use download::{Download, FetchError, FetchEvent, fetch};
pub use error::{DataError, FileFault};
pub use image_set::{FASHION_MNIST, FileSpec, ImageSet, MNIST};
pub use sources::{Sources, data_dir};
pub use split::{Answers, Split};
pub use tasks::Task;
pub use text::SHA256 as TEXT_SHA256;

use crate::config::Normalization;

/// A data set on the host, split and normalised.
#[derive(Clone, Debug)]
pub struct Dataset {
    /// The SHA-256 of the bytes it was made from, in hexadecimal; of a set in several files that of their SHA-256, each on a
    /// line of its own; none where it is drawn from the seed or stands in the config.
    pub sha256: Option<&'static str>,
    /// Numbers in an input.
    pub features: usize,
    /// Channels, height and width of an input that is an image.
    pub image: Option<[usize; 3]>,
    /// Classes; 0 where the examples have none.
    pub classes: usize,
    /// How many answers to an example, from its end, accuracy looks at.
    pub judged_answers: usize,
    /// The examples that are trained on; of a task the first ones of the first epoch.
    pub train: Split,
    /// The examples that are held out.
    pub test: Split,
    /// What is drawn anew in every epoch, instead of `train`.
    pub task: Option<Task>,
}

impl Dataset {
    /// The outputs that a network needs for the answers: one for each class, or one for a number.
    pub fn outputs(&self) -> usize {
        match self.train.answers {
            Answers::None(_) => 0,
            Answers::Classes { .. } => self.classes,
            Answers::Numbers(_) | Answers::Pairs { .. } => 1,
        }
    }
}

/// Scales the inputs; `largest` is the largest possible value.
fn normalize(mut dataset: Dataset, normalization: Normalization, largest: f32) -> Dataset {
    match normalization {
        Normalization::None => {}
        Normalization::Unit => scale(&mut dataset, largest),
        Normalization::Standard => standardize(&mut dataset),
    }
    dataset
}

fn scale(dataset: &mut Dataset, largest: f32) {
    for input in dataset.train.inputs.iter_mut().chain(&mut dataset.test.inputs) {
        *input /= largest;
    }
}

/// Gives every feature mean 0 and variance 1 over the training split; a constant feature becomes 0. The examples are read
/// one after the other, as they lie in memory.
fn standardize(dataset: &mut Dataset) {
    let features = dataset.features;
    let means = feature_means(&dataset.train, features, |_, x| x);
    let variances = feature_means(&dataset.train, features, |feature, x| (x - means[feature]).powi(2));
    let factor = |variance: f64| if variance > 0.0 { variance.sqrt().recip() } else { 0.0 };
    let factors: Vec<f64> = variances.into_iter().map(factor).collect();
    for inputs in [&mut dataset.train.inputs, &mut dataset.test.inputs] {
        for example in inputs.chunks_exact_mut(features) {
            for ((x, mean), factor) in example.iter_mut().zip(&means).zip(&factors) {
                *x = ((f64::from(*x) - mean) * factor) as f32;
            }
        }
    }
}

/// The mean over the examples of a term of every feature, which it is given with its number.
fn feature_means(split: &Split, features: usize, term: impl Fn(usize, f64) -> f64) -> Vec<f64> {
    let mut sums = vec![0.0; features];
    for example in split.inputs.chunks_exact(features) {
        for (feature, (sum, x)) in sums.iter_mut().zip(example).enumerate() {
            *sum += term(feature, f64::from(*x));
        }
    }
    sums.into_iter().map(|sum| sum / split.len() as f64).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{
        Activation, DataConfig, DataSet, Loss, NetworkConfig, NetworkKind, OutputSteps, ProbeConfig, RunConfig,
        ThroughputConfig, TrainingConfig, TrainingLength, WeightInit,
    };

    /// Of a config that needs no files.
    pub(super) fn load(config: &RunConfig, seed: u64) -> Dataset {
        Sources::default().load(config, seed).expect("it needs no files")
    }

    pub(super) fn config(data: DataConfig) -> RunConfig {
        RunConfig {
            data,
            network: NetworkConfig::plain(1, 1, Activation::Tanh, WeightInit::Lecun),
            training: TrainingConfig::sgd(0.1, TrainingLength::Steps(1)),
            probe: ProbeConfig::default(),
            throughput: ThroughputConfig::default(),
        }
    }

    /// A config of a recurrent network.
    pub(super) fn sequences(set: DataSet, sequence_length: usize, output_steps: Option<OutputSteps>) -> RunConfig {
        let data = DataConfig { set, sequence_length: Some(sequence_length), ..DataConfig::default() };
        let mut config = config(data);
        config.network.kind = NetworkKind::Recurrent;
        config.network.output_steps = output_steps;
        config
    }

    #[test]
    fn standardized_features_have_mean_0_and_variance_1_or_are_constant() {
        let normalization = Some(Normalization::Standard);
        let data = load(&config(DataConfig { normalization, ..DataConfig::default() }), 1);
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
        let data = load(&config(DataConfig::default()), 1);
        let inputs = || data.train.inputs.iter().chain(&data.test.inputs).copied();
        assert_eq!(inputs().fold(f32::INFINITY, f32::min), 0.0);
        assert_eq!(inputs().fold(f32::NEG_INFINITY, f32::max), 1.0);
    }

    fn labels(split: &Split) -> &[u8] {
        match &split.answers {
            Answers::Classes { codes, each: 1 } => codes,
            other => panic!("one class an example, not {other:?}"),
        }
    }

    #[test]
    fn the_first_examples_are_those_of_the_whole_split() {
        let all = load(&config(DataConfig::default()), 1).train;
        let first = load(&config(DataConfig { examples: Some(100), ..DataConfig::default() }), 1).train;
        assert_eq!((first.len(), &first.inputs[..], labels(&first)), (100, &all.inputs[..6400], &labels(&all)[..100]));
    }

    #[test]
    fn gaussian_inputs_have_mean_0_and_variance_1_and_belong_to_the_seed() {
        let data = DataConfig { set: DataSet::Gaussian, features: Some(2000), ..DataConfig::default() };
        let drawn = |seed| load(&config(data.clone()), seed).train;
        let inputs = drawn(1).inputs;
        assert_eq!((inputs.len(), drawn(1).len()), (32 * 2000, 32));
        let mean = inputs.iter().map(|x| f64::from(*x)).sum::<f64>() / 64_000.0;
        let square = inputs.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>() / 64_000.0;
        // Standard errors: .004 and .0056.
        assert!(mean.abs() < 0.016 && (square - 1.0).abs() < 0.023, "{mean} {square}");
        assert!(inputs == drawn(1).inputs && inputs != drawn(2).inputs);
    }

    #[test]
    fn gaussian_sequences_have_numbers_for_every_time_step() {
        let mut config = sequences(DataSet::Gaussian, 7, None);
        config.data.features = Some(3);
        let data = load(&config, 1);
        assert_eq!((data.features, data.train.len(), data.train.inputs.len()), (21, 32, 32 * 21));
    }

    #[test]
    fn every_data_set_has_the_sequences_and_the_answers_that_the_config_says() {
        let (last, every) = (Some(OutputSteps::Last), Some(OutputSteps::Every));
        for (set, output_steps, numbers, kinds, outputs, answers) in [
            (DataSet::Adding, None, 2, None, 1, 1),
            (DataSet::Copying, None, 1, Some(10), 9, 40),
            (DataSet::TemporalOrder, None, 1, Some(6), 4, 1),
            (DataSet::Parity, None, 1, None, 2, 1),
            (DataSet::Parity, every, 1, None, 2, 20),
            (DataSet::Text, None, 1, Some(60), 60, 20),
            (DataSet::Text, last, 1, Some(60), 60, 1),
        ] {
            let config = sequences(set, 20, output_steps);
            let data = load(&config, 1);
            let sequence = config.sequence().expect("it is recurrent");
            assert_eq!((sequence.numbers, sequence.symbols, sequence.answers()), (numbers, kinds, answers), "{set:?}");
            assert_eq!((data.features, data.outputs()), (sequence.steps * numbers, outputs), "{set:?}");
            assert_eq!(data.train.inputs.len(), data.train.len() * data.features, "{set:?}");
            let each = if let Answers::Classes { codes, each } = &data.train.answers {
                assert_eq!(codes.iter().max().map(|code| usize::from(*code) < outputs), Some(true), "{set:?}");
                *each
            } else {
                1
            };
            assert_eq!(each, answers, "{set:?}");
            let largest = data.train.inputs.iter().fold(0.0_f32, |largest, x| largest.max(*x));
            assert_eq!(kinds.map(|kinds| kinds as f32 - 1.0), kinds.map(|_| largest), "{set:?}");
        }
    }

    #[test]
    fn a_linear_probe_of_sequences_looks_at_the_last_time_step_alone() {
        for set in [DataSet::Copying, DataSet::Text] {
            let mut config = sequences(set, 20, None);
            config.training.loss = Loss::LinearProbe;
            assert_eq!(config.sequence().map(crate::config::Sequence::answers), Some(1), "{set:?}");
        }
    }
}
