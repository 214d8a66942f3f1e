//! A config as a whole, and the values of it that do not go together.

use serde::{Deserialize, Serialize};

use super::data::{DataConfig, DataSet};
use super::measurement::{ProbeConfig, ThroughputConfig};
use super::network::{Activation, NetworkConfig, NetworkKind, Norm, positive};
use super::recurrent::OutputSteps;
use super::training::{BatchSize, Loss, MAX_EXAMPLES, TrainingConfig, TrainingLength};

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

/// The sequences that a recurrent network reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sequence {
    /// Time steps.
    pub steps: usize,
    /// Numbers in the input of a time step.
    pub numbers: usize,
    /// Kinds of symbols, if the one number of a time step is the number of a symbol.
    pub symbols: Option<usize>,
    /// Whether there is an answer after every time step, or only after the last.
    pub answers_every_step: bool,
    /// The time steps through which gradients flow back, if not through all.
    pub truncation: Option<usize>,
}

impl Sequence {
    /// Inputs of the first layer at a time step: one for each kind of symbol.
    pub fn inputs(self) -> usize {
        self.symbols.unwrap_or(self.numbers)
    }

    /// Answers to a sequence.
    pub fn answers(self) -> usize {
        if self.answers_every_step { self.steps } else { 1 }
    }
}

/// A value that parses but is not allowed.
pub(super) struct Violation {
    pub key: &'static str,
    pub problem: String,
    pub mend: String,
}

pub(super) fn violation(key: &'static str, problem: &str, mend: &str) -> Violation {
    Violation { key, problem: problem.to_owned(), mend: mend.to_owned() }
}

/// A key that has a meaning only with some values of another one, and stands beside none of them.
pub(super) fn only_with(key: &'static str, other: &str, values: &[&str]) -> Violation {
    let first = values.first().copied().unwrap_or_default();
    let rest: String = values.iter().skip(1).map(|value| format!(" or \"{value}\"")).collect();
    Violation {
        key,
        problem: format!("has a meaning only with `{other} = \"{first}\"`{rest}"),
        mend: format!("remove it, or set `{other} = \"{first}\"`"),
    }
}

/// The most numbers in a batch, and in an epoch that is drawn: 4 GB in f32.
pub(super) const MAX_INPUT_NUMBERS: usize = 1_000_000_000;
/// The examples of a batch where the config does not say.
pub(super) const DEFAULT_BATCH_SIZE: usize = 32;

impl RunConfig {
    /// The examples that are trained on.
    pub fn training_examples(&self) -> usize {
        match (self.data.set, self.training.batch_size) {
            (DataSet::Gaussian, Some(BatchSize::Examples(count))) => count,
            (DataSet::Gaussian, _) => DEFAULT_BATCH_SIZE,
            _ => self.data.examples.unwrap_or(self.data.all_examples()),
        }
    }

    /// The examples in a step.
    pub fn batch_size(&self) -> usize {
        match self.training.batch_size {
            Some(BatchSize::Examples(count)) => count,
            None if self.data.has_answers() => DEFAULT_BATCH_SIZE,
            Some(BatchSize::Full) | None => self.training_examples(),
        }
    }

    /// The steps of the training. What is left over at the end of an epoch makes no step.
    pub fn step_count(&self) -> usize {
        match self.training.length() {
            TrainingLength::Epochs(epochs) => epochs.saturating_mul(self.training_examples() / self.batch_size()),
            TrainingLength::Steps(steps) => steps,
        }
    }

    /// Whether there is a split to evaluate the network on: a linear probe has no right and wrong.
    pub fn is_evaluated(&self) -> bool {
        self.data.has_answers() && self.training.loss != Loss::LinearProbe
    }

    /// What a recurrent network reads and answers; nothing for other networks.
    pub fn sequence(&self) -> Option<Sequence> {
        (self.network.kind == NetworkKind::Recurrent).then(|| Sequence {
            steps: self.data.time_steps(),
            numbers: self.data.numbers_per_step(),
            symbols: self.data.symbols(),
            answers_every_step: self.network.output_steps.unwrap_or(self.usual_output_steps()) == OutputSteps::Every,
            truncation: self.training.truncation,
        })
    }

    fn usual_output_steps(&self) -> OutputSteps {
        match self.data.set {
            _ if self.training.loss == Loss::LinearProbe => OutputSteps::Last,
            DataSet::Copying | DataSet::Text => OutputSteps::Every,
            _ => OutputSteps::Last,
        }
    }

    /// The first value that is not allowed, in the order of the sections.
    pub(super) fn violation(&self) -> Option<Violation> {
        self.data
            .violation()
            .or_else(|| self.network.violation(self.first_inputs()))
            .or_else(|| self.training.violation())
            .or_else(|| self.family_violation())
            .or_else(|| self.loss_violation())
            .or_else(|| self.critic_violation())
            .or_else(|| self.epoch_violation())
            .or_else(|| self.batch_violation())
            .or_else(|| self.pretraining_violation())
            .or_else(|| self.probe.violation())
            .or_else(|| self.probe.dump_violation(self.training.length(), self.step_count()))
            .or_else(|| self.throughput.violation())
    }

    /// Inputs of the first layer.
    fn first_inputs(&self) -> usize {
        self.sequence().map_or(self.data.features(), Sequence::inputs)
    }

    fn loss_violation(&self) -> Option<Violation> {
        if self.network.kind == NetworkKind::Autoencoder {
            return self.autoencoder_violation();
        }
        let is_probe = self.training.loss == Loss::LinearProbe;
        let is_critic = self.training.loss == Loss::Wasserstein;
        if is_critic != self.data.set.has_generated_points() && !is_probe {
            return Some(if is_critic {
                violation(
                    "training.loss",
                    "must be another with a data set that has no generated points beside real ones",
                    "set `data.set = \"swiss_roll\"`, for example, or `training.loss = \"softmax_cross_entropy\"`",
                )
            } else {
                violation(
                    "training.loss",
                    "must be \"wasserstein\" with real and generated points, which have no classes",
                    "add `loss = \"wasserstein\"` under [training]",
                )
            });
        }
        let is_squared = self.training.loss == Loss::SquaredError;
        if is_squared != (self.data.set == DataSet::Adding) && !is_probe && self.data.has_answers() {
            return Some(if is_squared {
                violation(
                    "training.loss",
                    "must suit answers that are classes: only those of `data.set = \"adding\"` are numbers",
                    "set `training.loss = \"softmax_cross_entropy\"`, for example",
                )
            } else {
                violation(
                    "training.loss",
                    "must be \"squared_error\" with `data.set = \"adding\"`, whose answer is a number",
                    "add `loss = \"squared_error\"` under [training]",
                )
            });
        }
        if !is_probe && !self.data.has_answers() {
            return Some(violation(
                "training.loss",
                "must be \"linear_probe\" with a data set without answers",
                "set `training.loss = \"linear_probe\"` and `training.steps = 0`, or `data.set = \"digits\"`",
            ));
        }
        (is_probe && self.training.length() != TrainingLength::Steps(0)).then(|| {
            violation(
                "training.loss",
                "has no minimum to train towards",
                "set `training.steps = 0`, without `training.epochs`, to measure at initialization, or another loss",
            )
        })
    }

    /// The answers of an autoencoder are its inputs.
    fn autoencoder_violation(&self) -> Option<Violation> {
        if !self.data.set.is_image() {
            return Some(violation(
                "data.set",
                "must hold images for an autoencoder, which puts them out again",
                "set `data.set = \"digits\"`",
            ));
        }
        let mend = "set `training.loss = \"squared_error\"`, whose outputs are linear";
        match self.training.loss {
            Loss::SquaredError => None,
            Loss::Quadratic | Loss::SigmoidCrossEntropy if self.has_unit_inputs() => None,
            Loss::Quadratic | Loss::SigmoidCrossEntropy => Some(violation(
                "training.loss",
                "has outputs between 0 and 1, and the inputs that an autoencoder puts out lie elsewhere",
                mend,
            )),
            _ => Some(violation(
                "training.loss",
                "must be \"sigmoid_cross_entropy\", \"quadratic\" or \"squared_error\" for an autoencoder",
                "set `training.loss = \"sigmoid_cross_entropy\"`",
            )),
        }
    }

    /// What a critic asks for.
    fn critic_violation(&self) -> Option<Violation> {
        if self.data.set.has_generated_points() && self.batch_size() % 2 == 1 {
            return Some(violation(
                "training.batch_size",
                "must be even: half of a batch are real points, and half are generated",
                "set `training.batch_size = 32`, for example",
            ));
        }
        self.training.gradient_penalty?;
        if self.training.loss != Loss::Wasserstein {
            return Some(only_with("training.gradient_penalty", "training.loss", &["wasserstein"]));
        }
        if self.network.kind != NetworkKind::Plain {
            return Some(only_with("training.gradient_penalty", "network.kind", &["plain"]));
        }
        if self.network.norm != Norm::None {
            return Some(violation(
                "network.norm",
                "must be \"none\" with `training.gradient_penalty`, which asks for the gradient of each example by itself",
                "remove it, or set `training.weight_clipping = 0.01` in place of the penalty",
            ));
        }
        if matches!(self.network.activation, Activation::Gelu | Activation::Maxout) {
            return Some(violation(
                "network.activation",
                "has no derivative here that can be differentiated again, for `training.gradient_penalty`",
                "set `network.activation = \"relu\"`, for example",
            ));
        }
        positive("training.gradient_penalty", self.training.gradient_penalty, "0.1")
    }

    /// The examples of an epoch of a task are on the device at one time.
    fn epoch_violation(&self) -> Option<Violation> {
        let most = MAX_INPUT_NUMBERS / self.data.features().max(1);
        (self.data.set.is_drawn() && self.training_examples() > most).then(|| Violation {
            key: "data.examples",
            problem: format!(
                "times the {} numbers in an input must be at most {MAX_INPUT_NUMBERS}",
                self.data.features()
            ),
            mend: format!("set `data.examples = {}`, for example, or a smaller `data.sequence_length`", most.min(1000)),
        })
    }

    fn batch_violation(&self) -> Option<Violation> {
        let examples = self.training_examples();
        let batch_size = self.batch_size();
        let possible = if self.data.set == DataSet::Gaussian { MAX_EXAMPLES } else { examples };
        let mend = || format!("set `training.batch_size = {}`, for example", possible.min(DEFAULT_BATCH_SIZE));
        if self.data.set == DataSet::Gaussian && self.training.batch_size == Some(BatchSize::Full) {
            let problem =
                "must be a number with `data.set = \"gaussian\"`, which draws as many examples as a batch has";
            return Some(Violation { key: "training.batch_size", problem: problem.to_owned(), mend: mend() });
        }
        if self.data.set == DataSet::Gaussian && !(1..=MAX_EXAMPLES).contains(&batch_size) {
            let problem = format!("must be from 1 to {MAX_EXAMPLES} examples");
            return Some(Violation { key: "training.batch_size", problem, mend: mend() });
        }
        if self.data.features().saturating_mul(batch_size) > MAX_INPUT_NUMBERS {
            let features = self.data.features();
            let problem = format!("times the {features} numbers in an input must be at most {MAX_INPUT_NUMBERS}");
            return Some(Violation { key: "training.batch_size", problem, mend: mend() });
        }
        if self.data.set == DataSet::Single && batch_size != 1 {
            let problem = "must be 1 for the one input of `data.set = \"single\"`".to_owned();
            return Some(Violation {
                key: "training.batch_size",
                problem,
                mend: "set `training.batch_size = 1`, or remove it".to_owned(),
            });
        }
        if !(1..=examples).contains(&batch_size) {
            let problem = format!("must be from 1 to the {examples} examples that are trained on, or \"full\"");
            return Some(Violation { key: "training.batch_size", problem, mend: mend() });
        }
        // The pixels of a convolutional network are a batch by themselves.
        let has_one_value = batch_size == 1 && self.network.kind != NetworkKind::Convolutional;
        (has_one_value && self.network.norm == Norm::Batch).then(|| {
            let problem = "must be at least 2 with batch norm, which would make 0 of a single example";
            let other = "`network.norm = \"layer\"`";
            let mend = if possible == 1 { format!("set {other}") } else { format!("{}, or {other}", mend()) };
            Violation { key: "training.batch_size", problem: problem.to_owned(), mend }
        })
    }

    fn family_violation(&self) -> Option<Violation> {
        match self.network.kind {
            NetworkKind::Chain if self.data.set != DataSet::Single => Some(violation(
                "data.set",
                "must be \"single\" for a chain, whose input is one number",
                "set `data.set = \"single\"` and `data.value = 0.5`, for example",
            )),
            NetworkKind::Chain if self.training.loss != Loss::LinearProbe => Some(violation(
                "training.loss",
                "must be \"linear_probe\" for a chain, whose cost is its last activation",
                "set `training.loss = \"linear_probe\"` and `training.steps = 0`",
            )),
            NetworkKind::Convolutional if !self.data.set.is_image() => Some(violation(
                "data.set",
                "must hold images for a convolutional network",
                "set `data.set = \"digits\"`",
            )),
            NetworkKind::Recurrent => self.sequence_violation(),
            _ if self.data.set.is_sequential() => Some(violation(
                "network.kind",
                "must be \"recurrent\" with a data set of sequences",
                "set `network.kind = \"recurrent\"` and `network.cell = \"lstm\"`, for example",
            )),
            _ => self.unread_violation(),
        }
    }

    fn sequence_violation(&self) -> Option<Violation> {
        if self.data.set == DataSet::Single || self.data.set.has_generated_points() {
            return Some(violation(
                "data.set",
                "must hold sequences for a recurrent network",
                "set `data.set = \"adding\"` and `data.sequence_length = 100`, for example",
            ));
        }
        if self.data.set == DataSet::Gaussian && self.data.sequence_length.is_none() {
            return Some(violation(
                "data.sequence_length",
                "must say how many time steps a recurrent network reads",
                "add `sequence_length = 100` under [data], for example",
            ));
        }
        self.output_steps_violation().or_else(|| {
            (self.training.truncation == Some(0)).then(|| {
                violation(
                    "training.truncation",
                    "must be at least 1 time step",
                    "set `training.truncation = 20`, for example, or leave it out",
                )
            })
        })
    }

    fn output_steps_violation(&self) -> Option<Violation> {
        let (possible, name, when) = match self.data.set {
            _ if self.training.loss == Loss::LinearProbe => {
                (OutputSteps::Last, "last", "a linear probe looks at it alone")
            }
            DataSet::Text | DataSet::Parity => return None,
            DataSet::Copying => (OutputSteps::Every, "every", "this data set has an answer after every time step"),
            _ => (OutputSteps::Last, "last", "this data set has its answer after the last time step"),
        };
        self.network.output_steps.is_some_and(|steps| steps != possible).then(|| Violation {
            key: "network.output_steps",
            problem: format!("must be \"{name}\": {when}"),
            mend: "remove it".to_owned(),
        })
    }

    /// Keys that only recurrent networks look at.
    fn unread_violation(&self) -> Option<Violation> {
        let present = [
            ("data.reading", self.data.reading.is_some()),
            ("data.sequence_length", self.data.sequence_length.is_some()),
            ("training.truncation", self.training.truncation.is_some()),
        ];
        let (key, _) = present.into_iter().find(|(_, is_present)| *is_present)?;
        Some(only_with(key, "network.kind", &["recurrent"]))
    }
}
