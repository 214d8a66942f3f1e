//! Which runs can train together as one network.

use super::network::NetworkKind;
use super::schema::RunConfig;
use super::training::Loss;

/// The most seeds that train together: what one seed gains by more is little, and an interrupted group is lost as a whole.
const MAX_SEEDS: usize = 64;
/// The most numbers that the networks of seeds that train together take: 1 GB in f32.
const MAX_NUMBERS: usize = 250_000_000;
/// The numbers that a weight takes: beside its own its gradient, two that an optimizer remembers, and two copies in passing.
const NUMBERS_PER_WEIGHT: usize = 6;
/// The numbers that a unit takes for an example: before and after normalization and activation function, with their gradients.
const NUMBERS_PER_UNIT: usize = 6;

impl RunConfig {
    /// Whether runs of this config that differ in their seed alone can train together as one network: the examples must not depend
    /// on the seed, and the family and the cost must be written for several seeds.
    pub fn can_train_together(&self) -> bool {
        let training = &self.training;
        matches!(self.network.kind, NetworkKind::Plain | NetworkKind::Residual | NetworkKind::Autoencoder)
            && self.data.set.is_image()
            && !matches!(training.loss, Loss::LinearProbe | Loss::Wasserstein)
            && training.gradient_penalty.is_none()
            && training.start_from.is_none()
            && training.pretraining.is_none()
    }

    /// How many seeds train together at most: 1 where none can, or where one network takes all the memory that is meant for a group.
    pub fn seeds_together(&self) -> usize {
        if self.can_train_together() { (MAX_NUMBERS / self.numbers_per_seed()).clamp(1, MAX_SEEDS) } else { 1 }
    }

    /// The numbers that a network and a step of it take, at least 1.
    fn numbers_per_seed(&self) -> usize {
        let features = self.data.features();
        let units: usize = self.network.layer_widths().iter().map(|width| width * self.network.function().pieces).sum();
        let of_weights = self.network.hidden_weights(features).saturating_mul(NUMBERS_PER_WEIGHT);
        let of_example = units.saturating_mul(NUMBERS_PER_UNIT).saturating_add(features);
        of_weights.saturating_add(of_example.saturating_mul(self.batch_size())).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{
        Activation, BatchSize, DataConfig, DataSet, NetworkConfig, ProbeConfig, ThroughputConfig, TrainingConfig,
        TrainingLength, WeightInit,
    };

    fn config(width: usize) -> RunConfig {
        RunConfig {
            data: DataConfig::default(),
            network: NetworkConfig::plain(8, width, Activation::Tanh, WeightInit::Lecun),
            training: TrainingConfig::sgd(0.1, TrainingLength::Steps(10)),
            probe: ProbeConfig::default(),
            throughput: ThroughputConfig::default(),
        }
    }

    #[test]
    fn the_seeds_of_a_small_network_train_together_and_those_of_a_large_one_in_smaller_groups() {
        assert_eq!(config(64).seeds_together(), 64);
        let middle = config(1000).seeds_together();
        assert!((2..64).contains(&middle), "{middle}");
        assert_eq!(config(20_000).seeds_together(), 1);
        let full = TrainingConfig { batch_size: Some(BatchSize::Full), ..config(256).training };
        assert!(RunConfig { training: full, ..config(256) }.seeds_together() < config(256).seeds_together());
    }

    #[test]
    fn runs_whose_examples_or_costs_depend_on_the_seed_train_alone() {
        let drawn = DataConfig { set: DataSet::Gaussian, features: Some(8), ..DataConfig::default() };
        assert_eq!(RunConfig { data: drawn, ..config(8) }.seeds_together(), 1);
        let probed = TrainingConfig { loss: Loss::LinearProbe, ..config(8).training };
        assert_eq!(RunConfig { training: probed, ..config(8) }.seeds_together(), 1);
        let started = TrainingConfig { start_from: Some("network".into()), ..config(8).training };
        assert_eq!(RunConfig { training: started, ..config(8) }.seeds_together(), 1);
        let recurrent = NetworkConfig { kind: NetworkKind::Recurrent, ..config(8).network };
        assert_eq!(RunConfig { network: recurrent, ..config(8) }.seeds_together(), 1);
    }
}
