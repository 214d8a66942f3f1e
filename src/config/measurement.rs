//! What is measured and how speed is: `[probe]` and `[throughput]`.

use serde::{Deserialize, Serialize};

use super::schema::{Violation, violation};
use super::training::TrainingLength;

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
    /// The steps whose weights and gradients are written whole, as `tensors_step_10.safetensors` beside the tables of the run,
    /// whatever is measured of them: eight bytes a parameter and step. Each waits for the device. Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dump: Vec<usize>,
}

/// The most steps that are written whole.
const MAX_DUMPS: usize = 1000;

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
            dump: Vec::new(),
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

    /// What is wrong with the steps that are dumped, of a training of so many steps.
    pub(super) fn dump_violation(&self, length: TrainingLength, steps: usize) -> Option<Violation> {
        let refused = |problem: String, mend: String| Some(Violation { key: "probe.dump", problem, mend });
        if self.dump.len() > MAX_DUMPS {
            let problem = format!("must name at most {MAX_DUMPS} steps, and names {}", self.dump.len());
            return refused(problem, "name fewer steps".to_owned());
        }
        let mut sorted = self.dump.clone();
        sorted.sort_unstable();
        if let Some((step, _)) = sorted.iter().zip(sorted.iter().skip(1)).find(|(step, next)| step == next) {
            return refused(format!("must not name step {step} twice"), "name it once".to_owned());
        }
        let beyond = sorted.into_iter().find(|step| *step >= steps.max(1))?;
        if length == TrainingLength::Steps(0) {
            let problem = format!("names step {beyond}, and a network that is only measured has step 0 alone");
            return refused(problem, "set `probe.dump = [0]`, or leave it out".to_owned());
        }
        let last = steps.saturating_sub(1);
        let problem = format!("names step {beyond}, and the training has the steps 0 to {last}");
        let example = if last == 0 { "[0]".to_owned() } else { format!("[0, {last}]") };
        refused(problem, format!("set `probe.dump = {example}`, for example, or train longer"))
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
