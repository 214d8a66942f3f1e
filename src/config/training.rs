//! How the network is trained: `[training]`.

use std::fmt;
use std::path::PathBuf;

use serde::de::{self, Deserializer, Visitor};
use serde::{Deserialize, Serialize, Serializer};

use super::network::positive;
use super::pretraining::PretrainingConfig;
use super::schema::{Violation, only_with, violation};

/// How the network is trained (`[training]`).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainingConfig {
    /// The cost. Default: `softmax_cross_entropy`.
    #[serde(default)]
    pub loss: Loss,
    /// What turns gradients into updates. Default: `sgd`.
    #[serde(default)]
    pub optimizer: Optimizer,
    /// The learning rate, above 0. Not needed where nothing is updated (`steps = 0`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub learning_rate: Option<f64>,
    /// The momentum m in v <- m v + g, w <- w - rate v of `sgd`, and likewise of `rmsprop`; 0 to below 1. Default: 0.
    #[serde(default)]
    pub momentum: f64,
    /// How slowly `adam` and `adamw` forget gradients. Default: .9.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub beta_1: Option<f64>,
    /// How slowly `adam` and `adamw` forget squared gradients. Default: .999.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub beta_2: Option<f64>,
    /// How slowly `rmsprop` forgets squared gradients. Default: .99.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub smoothing: Option<f64>,
    /// What `adam`, `adamw` and `rmsprop` add to the root of the mean squared gradient. Default: 1e-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epsilon: Option<f64>,
    /// How gradients are clipped. Default: `none`.
    #[serde(default)]
    pub clipping: Clipping,
    /// The largest element or norm that clipping lets pass.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clip_threshold: Option<f64>,
    /// The factor of the penalty sum |w| over all weights, but not over biases and normalization. Default: 0.
    #[serde(default)]
    pub l1: f64,
    /// The factor of the penalty sum w^2 / 2 over the same. Default: 0.
    #[serde(default)]
    pub l2: f64,
    /// The factor of a critic's gradient penalty, the mean of (|gradient with respect to the input| - 1)^2 at points between
    /// the real and the generated ones (Gulrajani et al. 2017, equation 3). Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gradient_penalty: Option<f64>,
    /// The largest absolute value that an update leaves to a parameter, weights and biases alike (Arjovsky et al. 2017,
    /// algorithm 1). It bounds parameters; `clipping` bounds gradients. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight_clipping: Option<f64>,
    /// Decoupled weight decay: w <- w - rate x decay x w before every update, for the same (Loshchilov and Hutter 2019).
    /// Default: 0.
    #[serde(default)]
    pub weight_decay: f64,
    /// Gradients flow back through at most so many time steps: the sequence is cut into pieces of that length, and the
    /// hidden state is handed from one to the next without its gradient. Default: through all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub truncation: Option<usize>,
    /// Examples a step, or `full` for the whole training split, which `gaussian` does not have: there it is the default.
    /// Default: 32, or the one example of `single`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batch_size: Option<BatchSize>,
    /// Passes over the training split. Either this or `steps`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epochs: Option<usize>,
    /// Updates. Either this or `epochs`; 0 measures the network at initialization and trains nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub steps: Option<usize>,
    /// A saved network to start from instead of a drawn one: a file of safetensors, or the directory of a run that has saved one.
    /// Relative to the working directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_from: Option<PathBuf>,
    /// The SHA-256 of that file, in hexadecimal, which the resolved config always has: another network is another run. Default:
    /// that of the file as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_sha256: Option<String>,
    /// Which layers start from it. Default: `all`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_layers: Option<StartLayers>,
    /// Whether the network after training is saved, as `network.safetensors` beside the tables of the run. Default: false.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub save: bool,
    /// How the hidden layers are pretrained one by one, before the network is trained as a whole. Default: not at all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pretraining: Option<PretrainingConfig>,
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
    /// The sum over outputs of -t ln sigmoid(z) - (1 - t) ln(1 - sigmoid(z)), t = onehot(y) (Nielsen, Neural Networks and
    /// Deep Learning, equation 63)
    SigmoidCrossEntropy,
    /// |z - t|^2, for answers that are numbers, and for autoencoders
    SquaredError,
    /// The mean output on generated points minus that on real ones, of which a batch has as many (Arjovsky et al. 2017,
    /// algorithm 1). Its negative is the critic's estimate of the distance between the two.
    Wasserstein,
    /// v . h, where h is what the last hidden layer hands on and v is drawn once of N(0, 1), or is 1 for a chain. There is no
    /// output layer, and nothing to learn.
    LinearProbe,
}

/// What turns gradients into updates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Optimizer {
    /// Gradient descent, with momentum if `momentum` is above 0.
    #[default]
    Sgd,
    /// Kingma and Ba 2015
    Adam,
    /// Adam with decoupled weight decay (Loshchilov and Hutter 2019)
    Adamw,
    /// Hinton 2012, Neural Networks for Machine Learning, lecture 6e
    Rmsprop,
}

/// The layers that start from a saved network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StartLayers {
    /// All: the two networks are equal.
    #[default]
    All,
    /// The hidden layers, of which the saved network may have more; the others are drawn.
    Hidden,
}

/// How gradients are clipped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Clipping {
    /// Not at all.
    #[default]
    None,
    /// Every element to at most `clip_threshold` (Mikolov 2012).
    Value,
    /// The gradient of every parameter to a norm of at most `clip_threshold`.
    TensorNorm,
    /// All gradients, as one vector, to a norm of at most `clip_threshold` (Pascanu et al. 2013, algorithm 1).
    GlobalNorm,
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

/// The most passes over the data.
const MAX_EPOCHS: usize = 1_000_000;
/// The most updates.
const MAX_STEPS: usize = 1_000_000_000;
/// The most examples of `gaussian`.
pub(super) const MAX_EXAMPLES: usize = 1_000_000;

impl TrainingConfig {
    /// Gradient descent on softmax cross-entropy; every other key has its default.
    pub fn sgd(learning_rate: f64, length: TrainingLength) -> Self {
        let (epochs, steps) = match length {
            TrainingLength::Epochs(epochs) => (Some(epochs), None),
            TrainingLength::Steps(steps) => (None, Some(steps)),
        };
        Self {
            loss: Loss::default(),
            optimizer: Optimizer::default(),
            learning_rate: Some(learning_rate),
            momentum: 0.0,
            beta_1: None,
            beta_2: None,
            smoothing: None,
            epsilon: None,
            clipping: Clipping::default(),
            clip_threshold: None,
            l1: 0.0,
            l2: 0.0,
            gradient_penalty: None,
            weight_clipping: None,
            weight_decay: 0.0,
            truncation: None,
            batch_size: None,
            epochs,
            steps,
            start_from: None,
            start_sha256: None,
            start_layers: None,
            save: false,
            pretraining: None,
        }
    }

    /// How long training lasts.
    pub fn length(&self) -> TrainingLength {
        match (self.epochs, self.steps) {
            (Some(epochs), _) => TrainingLength::Epochs(epochs),
            (None, steps) => TrainingLength::Steps(steps.unwrap_or(0)),
        }
    }

    /// The learning rate; 0 where nothing is updated and none is given.
    pub fn learning_rate(&self) -> f64 {
        self.learning_rate.unwrap_or(0.0)
    }

    /// How slowly Adam forgets gradients.
    pub fn beta_1(&self) -> f64 {
        self.beta_1.unwrap_or(0.9)
    }

    /// How slowly Adam forgets squared gradients.
    pub fn beta_2(&self) -> f64 {
        self.beta_2.unwrap_or(0.999)
    }

    /// How slowly `RMSProp` forgets squared gradients.
    pub fn smoothing(&self) -> f64 {
        self.smoothing.unwrap_or(0.99)
    }

    /// What keeps the adaptive optimizers from dividing by 0.
    pub fn epsilon(&self) -> f64 {
        self.epsilon.unwrap_or(1e-8)
    }

    /// The largest element or norm that clipping lets pass; infinite without clipping.
    pub fn clip_threshold(&self) -> f64 {
        self.clip_threshold.unwrap_or(f64::INFINITY)
    }

    pub(super) fn violation(&self) -> Option<Violation> {
        self.optimizer_violation()
            .or_else(|| self.clipping_violation())
            .or_else(|| self.penalty_violation())
            .or_else(|| self.length_violation())
            .or_else(|| self.start_violation())
    }

    fn start_violation(&self) -> Option<Violation> {
        let present = [
            ("training.start_sha256", self.start_sha256.is_some()),
            ("training.start_layers", self.start_layers.is_some()),
        ];
        let misplaced = present.into_iter().find(|(_, is_present)| *is_present && self.start_from.is_none());
        if let Some((key, _)) = misplaced {
            return Some(violation(
                key,
                "has a meaning only with `training.start_from`",
                "remove it, or set `training.start_from` to a saved network",
            ));
        }
        (self.start_from.is_some() && self.pretraining.is_some()).then(|| {
            violation(
                "training.start_from",
                "stands beside [training.pretraining], and only one of them can say where training starts",
                "remove one of the two",
            )
        })
    }

    fn optimizer_violation(&self) -> Option<Violation> {
        match self.learning_rate {
            None if self.length() != TrainingLength::Steps(0) => {
                return Some(violation(
                    "training.learning_rate",
                    "must be given where the network is trained",
                    "add `learning_rate = 0.1` under [training], for example",
                ));
            }
            Some(rate) if !(rate.is_finite() && rate > 0.0) => {
                return Some(violation(
                    "training.learning_rate",
                    "must be a finite number above 0",
                    "set `training.learning_rate = 0.1`, for example",
                ));
            }
            _ => {}
        }
        if !(0.0..1.0).contains(&self.momentum) {
            return Some(violation(
                "training.momentum",
                "must be at least 0 and below 1",
                "set `training.momentum = 0.9`, for example, or leave it out",
            ));
        }
        let is_adam = matches!(self.optimizer, Optimizer::Adam | Optimizer::Adamw);
        let is_rmsprop = self.optimizer == Optimizer::Rmsprop;
        if self.momentum > 0.0 && is_adam {
            return Some(violation(
                "training.momentum",
                "has no meaning for Adam, whose momentum is `training.beta_1`",
                "remove it, or set `training.optimizer = \"sgd\"`",
            ));
        }
        for (key, value, has_meaning, whose) in [
            ("training.beta_1", self.beta_1, is_adam, &["adam", "adamw"][..]),
            ("training.beta_2", self.beta_2, is_adam, &["adam", "adamw"]),
            ("training.smoothing", self.smoothing, is_rmsprop, &["rmsprop"]),
            ("training.epsilon", self.epsilon, is_adam || is_rmsprop, &["adam", "adamw", "rmsprop"]),
        ] {
            if value.is_some() && !has_meaning {
                return Some(only_with(key, "training.optimizer", whose));
            }
            if key != "training.epsilon" && value.is_some_and(|value| !(0.0..1.0).contains(&value)) {
                return Some(Violation {
                    key,
                    problem: "must be at least 0 and below 1".to_owned(),
                    mend: format!("set `{key} = 0.9`, for example, or leave it out"),
                });
            }
        }
        if self.optimizer == Optimizer::Adamw && self.weight_decay == 0.0 {
            return Some(violation(
                "training.weight_decay",
                "must be given with `training.optimizer = \"adamw\"`, which is Adam without it",
                "add `weight_decay = 0.01` under [training], for example, or set `training.optimizer = \"adam\"`",
            ));
        }
        positive("training.epsilon", self.epsilon, "1e-8")
    }

    fn clipping_violation(&self) -> Option<Violation> {
        match self.clip_threshold {
            None if self.clipping != Clipping::None => Some(violation(
                "training.clip_threshold",
                "must say where clipping starts",
                "add `clip_threshold = 1.0` under [training], for example",
            )),
            Some(_) if self.clipping == Clipping::None => Some(violation(
                "training.clip_threshold",
                "has no meaning with `training.clipping = \"none\"`",
                "remove it, or set `training.clipping = \"global_norm\"`",
            )),
            threshold => positive("training.clip_threshold", threshold, "1.0")
                .or_else(|| positive("training.weight_clipping", self.weight_clipping, "0.01")),
        }
    }

    fn penalty_violation(&self) -> Option<Violation> {
        let penalties =
            [("training.l1", self.l1), ("training.l2", self.l2), ("training.weight_decay", self.weight_decay)];
        let wrong = penalties.into_iter().find(|(_, factor)| !(factor.is_finite() && *factor >= 0.0));
        let Some((key, _)) = wrong else {
            let flips = self.learning_rate() * self.weight_decay >= 1.0;
            return flips.then(|| {
                violation(
                    "training.weight_decay",
                    "times the learning rate must be below 1: every update would turn the weights' signs",
                    "set `training.weight_decay = 0.01`, for example",
                )
            });
        };
        Some(Violation {
            key,
            problem: "must be a finite number of at least 0".to_owned(),
            mend: format!("set `{key} = 1e-4`, for example"),
        })
    }

    fn length_violation(&self) -> Option<Violation> {
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
