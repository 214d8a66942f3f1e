//! What the steps of a run work on.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};

use burn::tensor::Device;
use rand_distr::{Distribution, StandardNormal};

use super::optimizer::Optimizer;
use super::{Clock, STEPS_PER_READING, StartError, TrainError, gradient_penalty, make_step, start_from};
use crate::config::{Loss, NetworkKind, ProbeConfig, RunConfig, TrainingLength};
use crate::data::{Batches, Dataset, DeviceSplit, Targets};
use crate::fault::{self, Fault};
use crate::network::{Interface, Network};
use crate::probe::Probe;
use crate::seed;

/// The sequences that are evaluated at a time: a recurrent network keeps the states of all their time steps.
const EVALUATED_SEQUENCES: usize = 256;
/// The pixels that a convolutional network is evaluated on at a time: each has all channels of two layers, in nine copies.
const EVALUATED_PIXELS: usize = 400_000;
/// The examples that other networks are evaluated on at a time.
const EVALUATED_EXAMPLES: usize = 10_000;

/// A network at initialization, or one of several seeds, and its data, on a device. Every training starts from copies of it.
#[derive(Clone, Debug)]
pub struct Workload {
    config: RunConfig,
    device: Device,
    network: Network,
    batches: Batches,
    train: DeviceSplit,
    test: DeviceSplit,
}

impl Workload {
    /// Draws the network and copies the data to the device.
    pub fn new(config: &RunConfig, seed: u64, dataset: &Dataset, device: &Device) -> Self {
        let tracked = device.clone().autodiff();
        let is_probed = config.training.loss == Loss::LinearProbe;
        let network = initial_network(config, seed, dataset, device);
        let targets = if is_probed {
            Targets::Direction(probe_direction(config, seed))
        } else if config.network.kind == NetworkKind::Autoencoder {
            Targets::Inputs
        } else {
            Targets::Answers { classes: dataset.classes, judged: dataset.judged_answers }
        };
        let piece = match config.network.kind {
            NetworkKind::Recurrent => EVALUATED_SEQUENCES,
            NetworkKind::Convolutional => EVALUATED_PIXELS / dataset.features.max(1),
            _ => EVALUATED_EXAMPLES,
        };
        let split = |split| DeviceSplit::new(split, dataset.features, &targets, device).in_pieces_of(piece);
        let (train, test) = (split(&dataset.train), split(&dataset.test));
        let batches = match dataset.task {
            Some(task) => Batches::drawn(task, targets.clone(), config.batch_size(), seed, &tracked),
            None => Batches::new(train.tracked(), config.batch_size(), seed),
        };
        Self { config: config.clone(), device: device.clone(), network, batches, train, test }
    }

    /// One for each of several seeds, which share the data.
    pub(super) fn of_seeds(config: &RunConfig, seeds: &[u64], dataset: &Dataset, device: &Device) -> Vec<Self> {
        let Some((first, others)) = seeds.split_first() else {
            return Vec::new();
        };
        let first = Self::new(config, *first, dataset, device);
        let of_seed = |seed: &u64| Self {
            network: initial_network(config, *seed, dataset, device),
            batches: Batches::new(first.train.tracked(), config.batch_size(), *seed),
            ..first.clone()
        };
        let others: Vec<Self> = others.iter().map(of_seed).collect();
        std::iter::once(first).chain(others).collect()
    }

    /// One out of those of several seeds, in their order, which share the data. `None` if their networks cannot be put together.
    pub(super) fn together(mut workloads: Vec<Self>, seeds: &[u64]) -> Option<Self> {
        if workloads.len() == 1 {
            return workloads.pop();
        }
        let networks = workloads.iter().map(Self::network).collect();
        let first = workloads.into_iter().next()?;
        let batches = Batches::of_seeds(first.train.tracked(), first.batch_size(), seeds.to_vec());
        Some(Self { network: Network::together(networks)?, batches, ..first })
    }

    /// The same with a saved network, as safetensors, in place of the drawn one or of its hidden layers.
    ///
    /// # Errors
    ///
    /// If it does not fit.
    pub fn starting_from(self, saved: &[u8]) -> Result<Self, StartError> {
        let layers = self.config.training.start_layers.unwrap_or_default();
        Ok(Self { network: start_from(self.network, saved, layers)?, ..self })
    }

    /// The network at initialization. The copy shares its memory until a step changes it.
    pub fn network(&self) -> Network {
        self.network.clone()
    }

    /// A new optimizer.
    pub fn optimizer(&self) -> Optimizer {
        Optimizer::new(&self.config.training, self.config.network.kernels())
    }

    /// The mini-batches from the first on.
    pub fn batches(&self) -> Batches {
        self.batches.clone()
    }

    /// The steps of the training.
    pub fn step_count(&self) -> usize {
        match self.config.training.length() {
            TrainingLength::Epochs(epochs) => epochs * self.batches.steps_per_epoch(),
            TrainingLength::Steps(steps) => steps,
        }
    }

    /// The training split, outside the graph; of a task the first examples of the first epoch.
    pub fn train_split(&self) -> &DeviceSplit {
        &self.train
    }

    /// The test split, outside the graph.
    pub fn test_split(&self) -> &DeviceSplit {
        &self.test
    }

    /// The config.
    pub fn config(&self) -> &RunConfig {
        &self.config
    }

    /// Times whole steps from initialization, in milliseconds, the device synchronised on both sides: the batches, forward,
    /// backward, update and, where `measures` is true of the number of a step, the probe of `quantities` with its transfer.
    ///
    /// # Errors
    ///
    /// If the device fails, or if `stop` becomes true.
    pub fn time_steps(
        &self,
        batches: &mut Batches,
        steps: Range<usize>,
        measures: impl Fn(usize) -> bool,
        quantities: &ProbeConfig,
        stop: &AtomicBool,
    ) -> Result<f64, TrainError> {
        let mut probe = Probe::new("", quantities, self.config.network.function());
        let mut network = self.network();
        let mut optimizer = self.optimizer();
        let clock = Clock::start(&self.device)?;
        for step in steps {
            let measured = measures(step).then_some((&mut probe, step));
            let batch = batches.next_batch();
            (network, _) = make_step(network, batch, &self.config.training, Some(&mut optimizer), measured);
            if (step + 1).is_multiple_of(STEPS_PER_READING) {
                probe.read()?;
            }
            if stop.load(Ordering::Relaxed) {
                return Err(TrainError::Interrupted);
            }
        }
        probe.read()?;
        clock.stretch(fault::factor(Fault::StepTime), &self.device)?;
        Ok(clock.stop_ms(&self.device)?)
    }

    /// Floating-point operations of a step, by [`Network::flops_per_step`], with those of the gradient penalty.
    pub fn flops_per_step(&self) -> f64 {
        let penalty = gradient_penalty::flops(&self.network, self.batch_size(), &self.config.training);
        self.network.flops_per_step(self.batch_size()) + penalty
    }

    /// Examples in a step of one seed.
    pub fn batch_size(&self) -> usize {
        self.config.batch_size()
    }
}

/// The network of a config for the examples of a data set, as it is drawn.
pub(super) fn initial_network(config: &RunConfig, seed: u64, dataset: &Dataset, device: &Device) -> Network {
    let outputs = match config.network.kind {
        NetworkKind::Autoencoder => dataset.features,
        _ => dataset.outputs(),
    };
    let interface = Interface {
        features: dataset.features,
        image: dataset.image,
        sequence: config.sequence(),
        outputs: (config.training.loss != Loss::LinearProbe).then_some(outputs),
    };
    let mut network = Network::init(&config.network, interface, seed, &device.clone().autodiff());
    network.center(&config.network, config.data.value.unwrap_or(0.0));
    network
}

/// The direction in which a linear probe looks: N(0, 1) in every unit, and the neuron itself at the end of a chain.
fn probe_direction(config: &RunConfig, seed: u64) -> Vec<f32> {
    if config.network.kind == NetworkKind::Chain {
        return vec![1.0];
    }
    let mut stream = seed::stream(seed, "linear_probe");
    (0..config.network.last_width()).map(|_| StandardNormal.sample(&mut stream)).collect()
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;
    use crate::config::{
        Activation, DataConfig, DataSet, NetworkConfig, ThroughputConfig, TrainingConfig, TrainingLength, WeightInit,
    };
    use crate::data::Sources;
    use crate::train::evaluate;

    #[test]
    fn two_numbers_are_added_by_a_network_that_sees_examples_of_every_epoch() {
        let data =
            DataConfig { set: DataSet::Adding, sequence_length: Some(2), examples: Some(96), ..DataConfig::default() };
        let training =
            TrainingConfig { loss: Loss::SquaredError, ..TrainingConfig::sgd(0.1, TrainingLength::Steps(300)) };
        // Both numbers are always marked: a network that reads them at once need not remember anything.
        let network = NetworkConfig::plain(1, 16, Activation::Tanh, WeightInit::Lecun);
        let (probe, throughput) = (ProbeConfig::default(), ThroughputConfig::default());
        let config = RunConfig { data, network, training, probe, throughput };
        let workload = Workload::new(&config, 1, &Sources::default().load(&config, 1).expect("drawn"), &Device::flex());
        assert_eq!((workload.train_split().len(), workload.test_split().len()), (96, 1000));
        let (mut network, mut optimizer, mut batches) = (workload.network(), workload.optimizer(), workload.batches());
        assert_eq!(batches.steps_per_epoch(), 3);
        for _ in 0..300 {
            network = make_step(network, batches.next_batch(), &config.training, Some(&mut optimizer), None).0;
        }
        let result = evaluate(&network, workload.test_split(), Loss::SquaredError).into_data().convert::<f32>();
        let result: Vec<f32> = result.try_to_vec().expect("numbers");
        assert!(result[0] < 0.01 && result[1] > 0.4, "{result:?}");
    }
}
