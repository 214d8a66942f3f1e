//! Data sets, from embedded bytes or a seed to tensors that stay on the device.

mod batches;
mod device_split;
mod digits;
mod points;
mod split;
mod synthetic;
mod tasks;
mod text;

pub use batches::Batches;
pub use device_split::{Batch, DeviceSplit, Targets};
pub use digits::SHA256 as DIGITS_SHA256;
pub use split::{Answers, Split};
pub use tasks::Task;
pub use text::SHA256 as TEXT_SHA256;

use crate::config::{DataSet, Normalization, RunConfig};

/// A data set on the host, split and normalised.
#[derive(Clone, Debug)]
pub struct Dataset {
    /// The SHA-256 of the bytes it was made from, in hexadecimal; none where it is drawn from the seed or stands in the
    /// config.
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

/// Loads the data set of a config. The seed matters only to sets that are drawn from it.
pub fn load(config: &RunConfig, seed: u64) -> Dataset {
    if let Some(task) = Task::of(config) {
        return task.dataset(seed);
    }
    match config.data.set {
        DataSet::Gaussian => synthetic::gaussian(config.data.features(), config.batch_size(), seed),
        DataSet::Single => synthetic::single(config.data.value.unwrap_or(0.0)),
        DataSet::Text => {
            let answers_every_step = config.sequence().is_some_and(|sequence| sequence.answers_every_step);
            let mut dataset = text::load(config.data.time_steps(), answers_every_step);
            dataset.train.truncate(config.training_examples(), dataset.features);
            dataset
        }
        _ => normalized_digits(config),
    }
}

fn normalized_digits(config: &RunConfig) -> Dataset {
    let mut dataset = digits::load();
    // What is left out does not count in the standardization either.
    dataset.train.truncate(config.training_examples(), dataset.features);
    match config.data.normalization() {
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
    use crate::config::{
        Activation, DataConfig, Loss, NetworkConfig, NetworkKind, OutputSteps, ProbeConfig, ThroughputConfig,
        TrainingConfig, TrainingLength, WeightInit,
    };

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
