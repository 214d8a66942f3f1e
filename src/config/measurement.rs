//! What is measured and how speed is: `[probe]` and `[throughput]`.

use serde::{Deserialize, Serialize};

use super::schema::{Violation, violation};

/// What is measured, and at which steps (`[probe]`). A step is measured if any of the schedules names it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProbeConfig {
    /// Measure step 0, before any update. Default: true.
    #[serde(default = "yes")]
    pub initialization: bool,
    /// Measure the last step. Default: true.
    #[serde(default = "yes")]
    pub last: bool,
    /// Measure every k-th step: 0, k, 2k and so on. Default: 0, which is never.
    #[serde(default)]
    pub every: usize,
    /// Measure this many steps a decade, logarithmically spaced. Default: 4; 0 is none.
    #[serde(default = "four")]
    pub per_decade: usize,
    /// Gradients, weights and updates of every parameter (`gradients.csv`). Default: true.
    #[serde(default = "yes")]
    pub parameters: bool,
    /// Deltas and activations of every hidden layer (`activations.csv`). Default: true.
    #[serde(default = "yes")]
    pub activations: bool,
    /// Also the gradient with respect to the input of every layer, the network's own input first. Default: false.
    #[serde(default)]
    pub inputs: bool,
    /// Also the delta of every single unit, averaged over the batch (`units.csv`). Default: false.
    #[serde(default)]
    pub units: bool,
    /// Of a recurrent network, also the gradient with respect to the state of every layer at every time step, and how far the
    /// gates are open (`gates.csv`). Default: true.
    #[serde(default = "yes")]
    pub time_steps: bool,
}

fn yes() -> bool {
    true
}

fn four() -> usize {
    4
}

impl Default for ProbeConfig {
    fn default() -> Self {
        Self {
            initialization: yes(),
            last: yes(),
            every: 0,
            per_decade: four(),
            parameters: yes(),
            activations: yes(),
            inputs: false,
            units: false,
            time_steps: yes(),
        }
    }
}

/// How the speed of a step is measured (`[throughput]`), before training and on copies of the network.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ThroughputConfig {
    /// Steady samples with the probe off, and as many with it on; 0 measures no throughput. Default: 12.
    #[serde(default = "ThroughputConfig::default_samples")]
    pub samples: usize,
    /// The least length of a sample in milliseconds; it holds as many whole steps as that takes. Default: 10.
    #[serde(default = "ThroughputConfig::default_sample_ms")]
    pub sample_ms: f64,
    /// First steps that are timed one by one as the cold phase. Default: 3.
    #[serde(default = "ThroughputConfig::default_cold_steps")]
    pub cold_steps: usize,
}

impl ThroughputConfig {
    fn default_samples() -> usize {
        12
    }
    fn default_sample_ms() -> f64 {
        10.0
    }
    fn default_cold_steps() -> usize {
        3
    }
}

impl Default for ThroughputConfig {
    fn default() -> Self {
        Self {
            samples: Self::default_samples(),
            sample_ms: Self::default_sample_ms(),
            cold_steps: Self::default_cold_steps(),
        }
    }
}

impl ProbeConfig {
    pub(super) fn violation(&self) -> Option<Violation> {
        if self.per_decade > 1000 {
            return Some(violation(
                "probe.per_decade",
                "must be from 0 to 1000",
                "set `probe.per_decade = 4`, for example, or `probe.every = 1` for every step",
            ));
        }
        for (key, wanted) in [("probe.inputs", self.inputs), ("probe.units", self.units)] {
            if wanted && !self.activations {
                return Some(violation(
                    key,
                    "belongs to the layers, which `probe.activations = false` leaves out",
                    "set `probe.activations = true`",
                ));
            }
        }
        None
    }
}

impl ThroughputConfig {
    pub(super) fn violation(&self) -> Option<Violation> {
        if self.samples > 100_000 {
            return Some(violation(
                "throughput.samples",
                "must be from 0 to 100000",
                "set `throughput.samples = 12`, for example",
            ));
        }
        if !(self.sample_ms.is_finite() && self.sample_ms > 0.0 && self.sample_ms <= 60_000.0) {
            return Some(violation(
                "throughput.sample_ms",
                "must be above 0 and at most 60000 milliseconds",
                "set `throughput.sample_ms = 10`, for example",
            ));
        }
        if !(1..=10_000).contains(&self.cold_steps) {
            return Some(violation(
                "throughput.cold_steps",
                "must be from 1 to 10000",
                "set `throughput.cold_steps = 3`, for example",
            ));
        }
        None
    }
}
