//! The examples: `[data]`.

use serde::{Deserialize, Serialize};

use super::schema::{Violation, violation};

/// The examples (`[data]`).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataConfig {
    /// Which data set. Default: `digits`.
    #[serde(default)]
    pub set: DataSet,
    /// How the inputs of `digits` are scaled. Default: `unit`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub normalization: Option<Normalization>,
    /// Trains on only so many examples of `digits`, the first ones. Default: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub examples: Option<usize>,
    /// Numbers in an input of `gaussian`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub features: Option<usize>,
    /// The input of `single`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<f64>,
}

/// The data sets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DataSet {
    /// 1797 handwritten digits of 8 x 8 pixels, embedded in the program.
    #[default]
    Digits,
    /// Inputs of `features` independent N(0, 1) numbers, drawn from the seed, as many as a batch has. They have no class.
    Gaussian,
    /// One input of one number, `value`. It has no class.
    Single,
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

/// The examples of the digits' training split.
pub(super) const DIGITS_TRAINING_EXAMPLES: usize = 1437;
/// The numbers in a digit.
const DIGITS_FEATURES: usize = 64;
/// The most numbers in an input.
const MAX_FEATURES: usize = 65536;

impl DataConfig {
    /// How inputs are scaled.
    pub fn normalization(&self) -> Normalization {
        self.normalization.unwrap_or_default()
    }

    /// Numbers in an input.
    pub fn features(&self) -> usize {
        match self.set {
            DataSet::Digits => DIGITS_FEATURES,
            DataSet::Gaussian => self.features.unwrap_or(1),
            DataSet::Single => 1,
        }
    }

    /// Whether the examples have classes to learn.
    pub fn has_classes(&self) -> bool {
        self.set == DataSet::Digits
    }

    pub(super) fn violation(&self) -> Option<Violation> {
        let only = |key, set: DataSet, name: &str| {
            (self.set != set).then(|| Violation {
                key,
                problem: format!("has a meaning only with `data.set = \"{name}\"`"),
                mend: format!("remove it, or set `data.set = \"{name}\"`"),
            })
        };
        if self.normalization.is_some()
            && let Some(violation) = only("data.normalization", DataSet::Digits, "digits")
        {
            return Some(violation);
        }
        if let Some(examples) = self.examples {
            if let Some(violation) = only("data.examples", DataSet::Digits, "digits") {
                return Some(violation);
            }
            if !(1..=DIGITS_TRAINING_EXAMPLES).contains(&examples) {
                return Some(violation(
                    "data.examples",
                    "must be from 1 to the 1437 examples of the training split",
                    "set `data.examples = 1000`, for example, or leave it out",
                ));
            }
        }
        match (self.features, self.set) {
            (None, DataSet::Gaussian) => {
                return Some(violation(
                    "data.features",
                    "must be given with `data.set = \"gaussian\"`",
                    "add `features = 64` under [data], for example",
                ));
            }
            (Some(features), DataSet::Gaussian) if !(1..=MAX_FEATURES).contains(&features) => {
                return Some(violation(
                    "data.features",
                    "must be from 1 to 65536 numbers in an input",
                    "set `data.features = 64`, for example",
                ));
            }
            (Some(_), DataSet::Digits | DataSet::Single) => {
                return only("data.features", DataSet::Gaussian, "gaussian");
            }
            _ => {}
        }
        match (self.value, self.set) {
            (None, DataSet::Single) => Some(violation(
                "data.value",
                "must be given with `data.set = \"single\"`",
                "add `value = 0.5` under [data], for example",
            )),
            (Some(value), DataSet::Single) if !value.is_finite() => {
                Some(violation("data.value", "must be a finite number", "set `data.value = 0.5`, for example"))
            }
            (Some(_), DataSet::Digits | DataSet::Gaussian) => only("data.value", DataSet::Single, "single"),
            _ => None,
        }
    }
}
