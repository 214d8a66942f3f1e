//! What the steps of a run work on.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};

use burn::optim::momentum::MomentumConfig;
use burn::optim::{ModuleOptimizer, SgdConfig};
use burn::tensor::Device;

use super::{Clock, STEPS_PER_READING, TrainError, Update, make_step};
use crate::config::{Loss, ProbeConfig, RunConfig};
use crate::data::{Batches, Dataset, DeviceSplit};
use crate::network::Network;
use crate::probe::Probe;

/// A network at initialization and its data, on a device. Every training starts from copies of it.
#[derive(Debug)]
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
        let split = |split, device| DeviceSplit::new(split, dataset.features, dataset.classes, device);
        let batch_size = config.training.batch_size.of(dataset.train.len());
        Self {
            config: config.clone(),
            device: device.clone(),
            network: Network::init(&config.network, dataset.features, dataset.classes, seed, &tracked),
            batches: Batches::new(split(&dataset.train, &tracked), batch_size, seed),
            train: split(&dataset.train, device),
            test: split(&dataset.test, device),
        }
    }

    /// The network at initialization. The copy shares its memory until a step changes it.
    pub fn network(&self) -> Network {
        self.network.clone()
    }

    /// A new optimizer.
    pub fn optimizer(&self) -> ModuleOptimizer {
        let momentum = self.config.training.momentum;
        let momentum = (momentum > 0.0).then(|| {
            // Burn's default dampens the gradient by a tenth; the textbook's momentum does not.
            MomentumConfig::new().with_momentum(momentum).with_dampening(0.0)
        });
        SgdConfig::new().with_momentum(momentum).init()
    }

    /// The mini-batches from the first on.
    pub fn batches(&self) -> Batches {
        self.batches.clone()
    }

    /// The training split, outside the graph.
    pub fn train_split(&self) -> &DeviceSplit {
        &self.train
    }

    /// The test split, outside the graph.
    pub fn test_split(&self) -> &DeviceSplit {
        &self.test
    }

    /// The cost.
    pub fn loss(&self) -> Loss {
        self.config.training.loss
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
        let mut probe = Probe::new("", quantities, self.config.network.activation);
        let mut network = self.network();
        let mut optimizer = self.optimizer();
        let clock = Clock::start(&self.device)?;
        for step in steps {
            let update = Update::Apply { optimizer: &mut optimizer, learning_rate: self.config.training.learning_rate };
            let measured = measures(step).then_some((&mut probe, step));
            (network, _) = make_step(network, batches.next_batch(), self.loss(), update, measured);
            if (step + 1).is_multiple_of(STEPS_PER_READING) {
                probe.read()?;
            }
            if stop.load(Ordering::Relaxed) {
                return Err(TrainError::Interrupted);
            }
        }
        probe.read()?;
        Ok(clock.stop_ms(&self.device)?)
    }

    /// Floating-point operations of a step, by [`Network::flops_per_step`].
    pub fn flops_per_step(&self) -> f64 {
        self.network.flops_per_step(self.batch_size())
    }

    /// Examples in a step.
    pub fn batch_size(&self) -> usize {
        self.config.training.batch_size.of(self.train.len())
    }
}
