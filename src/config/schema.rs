//! The keys of a config, their defaults and their limits.

use std::fmt;

use serde::de::{self, Deserializer, Visitor};
use serde::{Deserialize, Serialize, Serializer};

/// What is run: name, question and seeds of an experiment (`[experiment]`).
#[derive(Clone, Debug, PartialEq)]
pub struct ExperimentConfig {
    /// Names the directory of the results: letters, digits, `-`, `_` and `.`.
    pub name: String,
    /// The question that the experiment answers, in one sentence. Default: empty.
    pub question: String,
    /// Every configuration is run once with each seed. A number n stands for 1 to n. Default: 1.
    pub seeds: Vec<u64>,
}

/// Everything that determines the numbers of one run, apart from its seed and device.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunConfig {
    /// `[data]`
    #[serde(default)]
    pub data: DataConfig,
    /// `[network]`
    pub network: NetworkConfig,
    /// `[training]`
    pub training: TrainingConfig,
    /// `[probe]`
    #[serde(default)]
    pub probe: ProbeConfig,
    /// `[throughput]`
    #[serde(default)]
    pub throughput: ThroughputConfig,
}

/// The examples (`[data]`).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataConfig {
    /// Which data set. Default: `digits`.
    #[serde(default)]
    pub set: DataSet,
    /// How inputs are scaled. Default: `unit`.
    #[serde(default)]
    pub normalization: Normalization,
}

/// The data sets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DataSet {
    /// 1797 handwritten digits of 8 x 8 pixels, embedded in the program.
    #[default]
    Digits,
}

impl DataSet {
    /// The number of examples that are trained on.
    pub fn training_examples(self) -> usize {
        match self {
            Self::Digits => 1437,
        }
    }
}

/// How the inputs are scaled before training.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Normalization {
    /// As they are in the data set: 0 to 16 for the digits.
    None,
    /// Divided by the largest possible value: 0 to 1.
    #[default]
    Unit,
    /// Each pixel to mean 0 and variance 1 over the training split; constant pixels become 0.
    Standard,
}

/// The network (`[network]`).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetworkConfig {
    /// Which family. Default: `plain`.
    #[serde(default)]
    pub kind: NetworkKind,
    /// Hidden layers, 1 to 1000.
    pub depth: usize,
    /// Units in each hidden layer, 1 to 65536.
    pub width: usize,
    /// The activation function of the hidden layers.
    pub activation: Activation,
    /// The distribution of the initial weights, in the hidden layers and the output layer.
    pub weight_init: WeightInit,
    /// The standard deviation of the weights for `weight_init = "normal"`, and only there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight_std: Option<f64>,
    /// The initial biases. Default: `zero`.
    #[serde(default)]
    pub bias_init: BiasInit,
    /// The standard deviation of the biases for `bias_init = "normal"`, and only there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bias_std: Option<f64>,
}

/// The network families.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NetworkKind {
    /// A multilayer perceptron: every hidden layer is `activation(x W + b)`.
    #[default]
    Plain,
}

/// The activation functions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Activation {
    /// 1 / (1 + exp(-z))
    Sigmoid,
    /// tanh(z)
    Tanh,
    /// max(z, 0)
    Relu,
}

/// The distributions of initial weights. All have mean 0; `n_in` and `n_out` are the layer's inputs and outputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WeightInit {
    /// N(0, `weight_std`^2)
    Normal,
    /// N(0, 1 / `n_in`) (LeCun et al. 1998, "Efficient Backprop", section 4.6)
    Lecun,
    /// N(0, 2 / (`n_in` + `n_out`)) (Glorot and Bengio 2010, equation 12)
    Xavier,
    /// N(0, 2 / `n_in`) (He et al. 2015, equation 10)
    He,
}

/// The initial biases.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BiasInit {
    /// The layers have no bias.
    Off,
    /// All biases start at 0.
    #[default]
    Zero,
    /// N(0, `bias_std`^2)
    Normal,
}

/// How the network is trained (`[training]`).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainingConfig {
    /// The cost. Default: `softmax_cross_entropy`.
    #[serde(default)]
    pub loss: Loss,
    /// The learning rate of gradient descent, above 0.
    pub learning_rate: f64,
    /// The momentum m in v <- m v + g, w <- w - rate v; 0 to below 1. Default: 0.
    #[serde(default)]
    pub momentum: f64,
    /// Examples a step, or `full` for the whole training split. Default: 32.
    #[serde(default)]
    pub batch_size: BatchSize,
    /// Passes over the training split. Either this or `steps`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epochs: Option<usize>,
    /// Updates. Either this or `epochs`; 0 measures the network at initialization and trains nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub steps: Option<usize>,
}

/// The costs. Each is a mean over the examples of a batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Loss {
    /// -ln softmax(z)_y
    #[default]
    SoftmaxCrossEntropy,
    /// |sigmoid(z) - onehot(y)|^2 / 2 (Nielsen, Neural Networks and Deep Learning, equation 6)
    Quadratic,
}

/// How long training lasts, from `training.epochs` or `training.steps`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TrainingLength {
    /// Passes over the training split.
    Epochs(usize),
    /// Updates.
    Steps(usize),
}

/// The number of examples in a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BatchSize {
    /// The whole training split.
    Full,
    /// This many.
    Examples(usize),
}

impl Default for BatchSize {
    fn default() -> Self {
        Self::Examples(32)
    }
}

impl BatchSize {
    /// The number of examples in a batch out of `examples`.
    pub fn of(self, examples: usize) -> usize {
        match self {
            Self::Full => examples,
            Self::Examples(count) => count,
        }
    }
}

impl Serialize for BatchSize {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Full => serializer.serialize_str("full"),
            Self::Examples(count) => serializer.serialize_u64(*count as u64),
        }
    }
}

impl<'de> Deserialize<'de> for BatchSize {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct BatchSizeVisitor;
        impl Visitor<'_> for BatchSizeVisitor {
            type Value = BatchSize;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a whole number of examples, or \"full\"")
            }
            fn visit_i64<E: de::Error>(self, value: i64) -> Result<BatchSize, E> {
                usize::try_from(value)
                    .map(BatchSize::Examples)
                    .map_err(|_| E::invalid_value(de::Unexpected::Signed(value), &self))
            }
            fn visit_u64<E: de::Error>(self, value: u64) -> Result<BatchSize, E> {
                Ok(BatchSize::Examples(value as usize))
            }
            fn visit_str<E: de::Error>(self, value: &str) -> Result<BatchSize, E> {
                match value {
                    "full" => Ok(BatchSize::Full),
                    _ => Err(E::invalid_value(de::Unexpected::Str(value), &self)),
                }
            }
        }
        deserializer.deserialize_any(BatchSizeVisitor)
    }
}

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
}

fn yes() -> bool {
    true
}

fn four() -> usize {
    4
}

impl Default for ProbeConfig {
    fn default() -> Self {
        Self { initialization: yes(), last: yes(), every: 0, per_decade: four(), parameters: yes(), activations: yes() }
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

/// A value that parses but is not allowed.
pub(super) struct Violation {
    pub key: &'static str,
    pub problem: String,
    pub mend: String,
}

fn violation(key: &'static str, problem: &str, mend: &str) -> Violation {
    Violation { key, problem: problem.to_owned(), mend: mend.to_owned() }
}

/// The most hidden layers.
pub const MAX_DEPTH: usize = 1000;
/// The most units in a layer.
pub const MAX_WIDTH: usize = 65536;
/// The most weights between hidden layers: 8 GB in f32, and as much again for their gradients.
const MAX_HIDDEN_WEIGHTS: usize = 2_000_000_000;
/// The most passes over the data.
const MAX_EPOCHS: usize = 1_000_000;
/// The most updates.
const MAX_STEPS: usize = 1_000_000_000;

impl RunConfig {
    /// How long training lasts.
    pub fn length(&self) -> TrainingLength {
        match (self.training.epochs, self.training.steps) {
            (Some(epochs), _) => TrainingLength::Epochs(epochs),
            (None, steps) => TrainingLength::Steps(steps.unwrap_or(0)),
        }
    }

    /// The first value that is not allowed, in the order of the sections.
    pub(super) fn violation(&self) -> Option<Violation> {
        self.network
            .violation()
            .or_else(|| self.training.violation(self.data.set.training_examples()))
            .or_else(|| self.probe.violation())
            .or_else(|| self.throughput.violation())
    }
}

impl NetworkConfig {
    fn violation(&self) -> Option<Violation> {
        if !(1..=MAX_DEPTH).contains(&self.depth) {
            return Some(violation(
                "network.depth",
                "must be a number of hidden layers from 1 to 1000",
                "set `network.depth = 8`, for example",
            ));
        }
        if !(1..=MAX_WIDTH).contains(&self.width) {
            return Some(violation(
                "network.width",
                "must be a number of units from 1 to 65536",
                "set `network.width = 64`, for example",
            ));
        }
        if (self.depth - 1) * self.width * self.width > MAX_HIDDEN_WEIGHTS {
            return Some(violation(
                "network.width",
                "makes, with this depth, a network of more than 2000000000 weights",
                "set a smaller width or depth",
            ));
        }
        scale("network.weight_std", self.weight_std, self.weight_init == WeightInit::Normal, "network.weight_init")
            .or_else(|| {
                scale("network.bias_std", self.bias_std, self.bias_init == BiasInit::Normal, "network.bias_init")
            })
    }
}

/// A standard deviation stands where a normal distribution is asked for, and nowhere else.
fn scale(key: &'static str, value: Option<f64>, normal: bool, init_key: &str) -> Option<Violation> {
    match value {
        None if normal => Some(Violation {
            key,
            problem: format!("must be given with `{init_key} = \"normal\"`"),
            mend: format!("add `{key} = 1.0`, for example"),
        }),
        Some(_) if !normal => Some(Violation {
            key,
            problem: format!("has a meaning only with `{init_key} = \"normal\"`"),
            mend: format!("remove it, or set `{init_key} = \"normal\"`"),
        }),
        Some(std) if !(std.is_finite() && std > 0.0) => {
            Some(violation(key, "must be a finite number above 0", "set a standard deviation such as 1.0"))
        }
        _ => None,
    }
}

impl TrainingConfig {
    fn violation(&self, examples: usize) -> Option<Violation> {
        if !(self.learning_rate.is_finite() && self.learning_rate > 0.0) {
            return Some(violation(
                "training.learning_rate",
                "must be a finite number above 0",
                "set `training.learning_rate = 0.1`, for example",
            ));
        }
        if !(0.0..1.0).contains(&self.momentum) {
            return Some(violation(
                "training.momentum",
                "must be at least 0 and below 1",
                "set `training.momentum = 0.9`, for example, or leave it out",
            ));
        }
        if !(1..=examples).contains(&self.batch_size.of(examples)) {
            return Some(Violation {
                key: "training.batch_size",
                problem: format!("must be from 1 to the {examples} examples of the training split, or \"full\""),
                mend: "set `training.batch_size = 32`, for example".to_owned(),
            });
        }
        match (self.epochs, self.steps) {
            (Some(_), Some(_)) => Some(violation(
                "training.steps",
                "stands beside `training.epochs`, and only one of them can be the length",
                "remove one of the two",
            )),
            (None, None) => Some(violation(
                "training.epochs",
                "or `training.steps` must say how long to train",
                "add `epochs = 20` under [training], for example",
            )),
            (Some(0), None) => Some(violation(
                "training.epochs",
                "must be at least 1",
                "set `training.epochs = 20`, for example, or `training.steps = 0` to measure at initialization only",
            )),
            (Some(epochs), None) if epochs > MAX_EPOCHS => {
                Some(violation("training.epochs", "must be at most 1000000", "set `training.epochs = 20`, for example"))
            }
            (None, Some(steps)) if steps > MAX_STEPS => Some(violation(
                "training.steps",
                "must be at most 1000000000",
                "set `training.steps = 1000`, for example",
            )),
            _ => None,
        }
    }
}

impl ProbeConfig {
    fn violation(&self) -> Option<Violation> {
        (self.per_decade > 1000).then(|| {
            violation(
                "probe.per_decade",
                "must be from 0 to 1000",
                "set `probe.per_decade = 4`, for example, or `probe.every = 1` for every step",
            )
        })
    }
}

impl ThroughputConfig {
    fn violation(&self) -> Option<Violation> {
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
