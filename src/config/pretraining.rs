//! Layer-wise pretraining before the network is trained as a whole: `[training.pretraining]`.

use serde::{Deserialize, Serialize};

use super::data::Normalization;
use super::network::{Activation, BiasInit, NetworkKind, Norm, positive};
use super::schema::{RunConfig, Violation, only_with, violation};
use super::training::Loss;

/// How the hidden layers are pretrained, one after the other, each on what the one before it hands on
/// (`[training.pretraining]`; Hinton et al. 2006, Bengio et al. 2007). Of an autoencoder the layers up to the code are, and
/// those behind it are unrolled from them. Keys that only one method has are `None` where they are left out; the functions
/// of this type give their defaults.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PretrainingConfig {
    /// What each layer is trained as.
    pub method: PretrainingMethod,
    /// Passes over the training split for each layer; 0 is no pretraining, and the network stays as it is drawn.
    pub epochs: usize,
    /// The learning rate of gradient descent on the cost of an autoencoder, which is a mean over the examples and a sum over
    /// the units, or on the gradient that contrastive divergence estimates.
    pub learning_rate: f64,
    /// The learning rate of the linear code layer of an autoencoder network. Default: `learning_rate`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code_learning_rate: Option<f64>,
    /// The momentum, 0 to below 1. Default: 0.
    #[serde(default)]
    pub momentum: f64,
    /// The factor of the penalty sum w^2 / 2 over the weights. Default: 0.
    #[serde(default)]
    pub l2: f64,
    /// Examples a step. Default: that of the training.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batch_size: Option<usize>,
    /// Whether an autoencoder decodes with the transposed weights of its encoder. Default: false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tied_weights: Option<bool>,
    /// The fraction of the inputs of an autoencoder that are set to 0, drawn anew for every step: above 0 it is a denoising
    /// autoencoder (Vincent et al. 2008). Default: 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub noise: Option<f64>,
    /// What the reconstruction of an autoencoder costs. Default: `cross_entropy` where the inputs of every layer lie between 0
    /// and 1, else `squared_error`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reconstruction: Option<Reconstruction>,
    /// The Gibbs steps of contrastive divergence, the k of CD-k. Default: 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cd_steps: Option<usize>,
    /// The units that stand for the inputs in the first restricted Boltzmann machine. Default: `binary` for inputs between 0
    /// and 1, else `gaussian`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub visible: Option<Visible>,
    /// The standard deviation of the initial weights of a restricted Boltzmann machine, whose biases start at 0. Default: .01
    /// (Hinton 2010, section 8).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight_std: Option<f64>,
}

/// What a layer is pretrained as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PretrainingMethod {
    /// The encoder of an autoencoder of one hidden layer (Bengio et al. 2007)
    Autoencoder,
    /// A restricted Boltzmann machine, trained by contrastive divergence (Hinton 2002, Hinton et al. 2006)
    Rbm,
}

/// What the reconstruction r of an input x costs, as a sum over the units.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reconstruction {
    /// -x ln r - (1 - x) ln(1 - r), where r is a sigmoid
    CrossEntropy,
    /// |x - r|^2, where r is linear
    SquaredError,
}

/// The units of a restricted Boltzmann machine that stand for the inputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Visible {
    /// 0 or 1, with the inputs as probabilities
    Binary,
    /// Numbers with variance 1 (Hinton and Salakhutdinov 2006)
    Gaussian,
}

/// The most Gibbs steps.
const MAX_CD_STEPS: usize = 1000;
/// The most passes over the data for a layer.
const MAX_EPOCHS: usize = 1_000_000;

impl PretrainingConfig {
    /// The learning rate of a layer.
    pub fn learning_rate(&self, is_linear_code: bool) -> f64 {
        self.code_learning_rate.filter(|_| is_linear_code).unwrap_or(self.learning_rate)
    }

    /// Whether an autoencoder decodes with the weights of its encoder.
    pub fn tied_weights(&self) -> bool {
        self.tied_weights.unwrap_or(false)
    }

    /// The fraction of the inputs that are set to 0.
    pub fn noise(&self) -> f64 {
        self.noise.unwrap_or(0.0)
    }

    /// The Gibbs steps of contrastive divergence.
    pub fn cd_steps(&self) -> usize {
        self.cd_steps.unwrap_or(1)
    }

    /// The standard deviation of the initial weights of a restricted Boltzmann machine.
    pub fn weight_std(&self) -> f64 {
        self.weight_std.unwrap_or(0.01)
    }

    fn violation(&self) -> Option<Violation> {
        self.method_violation().or_else(|| self.size_violation())
    }

    fn method_violation(&self) -> Option<Violation> {
        let is_rbm = self.method == PretrainingMethod::Rbm;
        [
            ("training.pretraining.tied_weights", self.tied_weights.is_some(), !is_rbm, "autoencoder"),
            ("training.pretraining.noise", self.noise.is_some(), !is_rbm, "autoencoder"),
            ("training.pretraining.reconstruction", self.reconstruction.is_some(), !is_rbm, "autoencoder"),
            ("training.pretraining.cd_steps", self.cd_steps.is_some(), is_rbm, "rbm"),
            ("training.pretraining.visible", self.visible.is_some(), is_rbm, "rbm"),
            ("training.pretraining.weight_std", self.weight_std.is_some(), is_rbm, "rbm"),
        ]
        .into_iter()
        .find(|(_, is_present, has_meaning, _)| *is_present && !has_meaning)
        .map(|(key, _, _, method)| only_with(key, "training.pretraining.method", &[method]))
    }

    fn size_violation(&self) -> Option<Violation> {
        if self.epochs > MAX_EPOCHS {
            return Some(violation(
                "training.pretraining.epochs",
                "must be at most 1000000 passes over the training split for each layer",
                "set `training.pretraining.epochs = 30`, for example, or 0 for no pretraining",
            ));
        }
        if !(0.0..1.0).contains(&self.momentum) {
            return Some(violation(
                "training.pretraining.momentum",
                "must be at least 0 and below 1",
                "set `training.pretraining.momentum = 0.9`, for example, or leave it out",
            ));
        }
        if !(self.l2.is_finite() && self.l2 >= 0.0) {
            return Some(violation(
                "training.pretraining.l2",
                "must be a finite number of at least 0",
                "set `training.pretraining.l2 = 2e-4`, for example, or leave it out",
            ));
        }
        if self.noise.is_some_and(|noise| !(0.0..1.0).contains(&noise)) {
            return Some(violation(
                "training.pretraining.noise",
                "must be a fraction of at least 0 and below 1",
                "set `training.pretraining.noise = 0.25`, for example, or leave it out",
            ));
        }
        if self.cd_steps.is_some_and(|steps| !(1..=MAX_CD_STEPS).contains(&steps)) {
            return Some(violation(
                "training.pretraining.cd_steps",
                "must be from 1 to 1000 Gibbs steps",
                "set `training.pretraining.cd_steps = 1`, for example, or leave it out",
            ));
        }
        positive("training.pretraining.learning_rate", Some(self.learning_rate), "0.1")
            .or_else(|| positive("training.pretraining.code_learning_rate", self.code_learning_rate, "0.001"))
            .or_else(|| positive("training.pretraining.weight_std", self.weight_std, "0.01"))
    }
}

impl RunConfig {
    /// How the hidden layers are pretrained, if they are.
    pub fn pretraining(&self) -> Option<&PretrainingConfig> {
        self.training.pretraining.as_ref().filter(|pretraining| pretraining.epochs > 0)
    }

    /// Whether the inputs lie between 0 and 1.
    pub fn has_unit_inputs(&self) -> bool {
        self.data.set.is_image() && self.data.normalization() == Normalization::Unit
    }

    /// What the reconstructions of a pretrained layer cost.
    pub fn reconstruction(&self, pretraining: &PretrainingConfig) -> Reconstruction {
        let has_units = self.has_unit_inputs() && self.network.activation == Activation::Sigmoid;
        let default = if has_units { Reconstruction::CrossEntropy } else { Reconstruction::SquaredError };
        pretraining.reconstruction.unwrap_or(default)
    }

    /// The units that stand for the inputs in the first restricted Boltzmann machine.
    pub fn visible(&self, pretraining: &PretrainingConfig) -> Visible {
        let default = if self.has_unit_inputs() { Visible::Binary } else { Visible::Gaussian };
        pretraining.visible.unwrap_or(default)
    }

    /// The examples in a step of the pretraining.
    pub fn pretraining_batch_size(&self, pretraining: &PretrainingConfig) -> usize {
        pretraining.batch_size.unwrap_or(self.batch_size())
    }

    pub(super) fn pretraining_violation(&self) -> Option<Violation> {
        let pretraining = self.training.pretraining.as_ref()?;
        self.pretrained_network_violation(pretraining)
            .or_else(|| self.unrolled_violation(pretraining))
            .or_else(|| pretraining.violation())
            .or_else(|| self.reconstruction_violation(pretraining))
            .or_else(|| self.pretraining_size_violation(pretraining))
    }

    fn pretrained_network_violation(&self, pretraining: &PretrainingConfig) -> Option<Violation> {
        let method = "training.pretraining.method";
        if !matches!(self.network.kind, NetworkKind::Plain | NetworkKind::Autoencoder) {
            return Some(violation(
                method,
                "has a meaning only with `network.kind = \"plain\"` or \"autoencoder\"",
                "remove [training.pretraining], or set `network.kind = \"plain\"`",
            ));
        }
        if !self.data.set.is_image() || self.training.loss == Loss::LinearProbe {
            return Some(violation(
                method,
                "has a meaning only with a data set of images, and not with a linear probe",
                "remove [training.pretraining], or set `data.set = \"digits\"`",
            ));
        }
        if self.network.norm != Norm::None {
            return Some(violation(
                "network.norm",
                "must be \"none\" with [training.pretraining], whose layers are trained without normalization",
                "remove `network.norm`, or [training.pretraining]",
            ));
        }
        if self.network.activation == Activation::Maxout {
            return Some(violation(
                "network.activation",
                "must not be \"maxout\" with [training.pretraining]: its pieces have no decoder",
                "set `network.activation = \"sigmoid\"`, for example",
            ));
        }
        let is_rbm = pretraining.method == PretrainingMethod::Rbm;
        if is_rbm && self.network.activation != Activation::Sigmoid {
            return Some(violation(
                "network.activation",
                "must be \"sigmoid\" with `training.pretraining.method = \"rbm\"`, whose hidden units are 0 or 1",
                "set `network.activation = \"sigmoid\"`, or `training.pretraining.method = \"autoencoder\"`",
            ));
        }
        (is_rbm && self.network.bias_init == BiasInit::Off).then(|| {
            violation(
                "network.bias_init",
                "must not be \"off\" with `training.pretraining.method = \"rbm\"`, which learns biases",
                "remove it, or set `training.pretraining.method = \"autoencoder\"`",
            )
        })
    }

    /// What leads back from a layer becomes a layer behind the code: both must be sigmoids.
    fn unrolled_violation(&self, pretraining: &PretrainingConfig) -> Option<Violation> {
        if self.network.kind != NetworkKind::Autoencoder {
            return None;
        }
        if self.network.activation != Activation::Sigmoid {
            return Some(violation(
                "network.activation",
                "must be \"sigmoid\" in an autoencoder that is pretrained, whose layers are unrolled with sigmoids",
                "set `network.activation = \"sigmoid\"`, or remove [training.pretraining]",
            ));
        }
        if self.training.loss == Loss::SquaredError {
            return Some(violation(
                "training.loss",
                "must have sigmoids for outputs in an autoencoder that is pretrained",
                "set `training.loss = \"sigmoid_cross_entropy\"`, or remove [training.pretraining]",
            ));
        }
        [
            (
                "training.pretraining.reconstruction",
                pretraining.reconstruction == Some(Reconstruction::SquaredError),
                "cross_entropy",
            ),
            ("training.pretraining.visible", pretraining.visible == Some(Visible::Gaussian), "binary"),
        ]
        .into_iter()
        .find(|(_, is_linear, _)| *is_linear)
        .map(|(key, _, value)| Violation {
            key,
            problem: format!("must be \"{value}\" in an autoencoder, whose outputs are sigmoids"),
            mend: "remove it".to_owned(),
        })
    }

    fn reconstruction_violation(&self, pretraining: &PretrainingConfig) -> Option<Violation> {
        let needs_units = |key, value: &str, mend: &str| {
            Some(Violation {
                key,
                problem: format!("can be \"{value}\" only for inputs between 0 and 1"),
                mend: mend.to_owned(),
            })
        };
        if pretraining.reconstruction == Some(Reconstruction::CrossEntropy) {
            let key = "training.pretraining.reconstruction";
            if !self.has_unit_inputs() {
                return needs_units(key, "cross_entropy", "set `data.normalization = \"unit\"`, or \"squared_error\"");
            }
            if self.network.activation != Activation::Sigmoid && self.network.pretrained_layers() > 1 {
                let mend = "set `network.activation = \"sigmoid\"`, or \"squared_error\"";
                return needs_units(key, "cross_entropy", mend);
            }
        }
        if pretraining.visible == Some(Visible::Binary) && !self.has_unit_inputs() {
            let mend = "set `data.normalization = \"unit\"`, or \"gaussian\"";
            return needs_units("training.pretraining.visible", "binary", mend);
        }
        (pretraining.code_learning_rate.is_some() && self.network.kind != NetworkKind::Autoencoder)
            .then(|| only_with("training.pretraining.code_learning_rate", "network.kind", &["autoencoder"]))
    }

    fn pretraining_size_violation(&self, pretraining: &PretrainingConfig) -> Option<Violation> {
        let examples = self.training_examples();
        let is_wrong = pretraining.batch_size.is_some_and(|size| !(1..=examples).contains(&size));
        is_wrong.then(|| Violation {
            key: "training.pretraining.batch_size",
            problem: format!("must be from 1 to the {examples} examples that are trained on"),
            mend: "set `training.pretraining.batch_size = 32`, for example, or leave it out".to_owned(),
        })
    }
}
