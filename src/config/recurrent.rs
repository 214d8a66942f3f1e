//! The keys that only recurrent networks have.

use serde::{Deserialize, Serialize};

use super::network::{Activation, BiasInit, NetworkConfig, NetworkKind, Norm, positive};
use super::schema::{Violation, only_with, violation};

/// The cells of recurrent networks. s is the sigmoid, phi `network.activation`, * the product element by element.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cell {
    /// h = phi(W x + U h' + b) (Elman 1990)
    Rnn,
    /// i, f, o = s(W x + U h' + b), g = tanh(W x + U h' + b), c = f * c' + i * g, h = o * tanh(c) (Gers et al. 2000)
    Lstm,
    /// r, z = s(W x + U h' + b), n = tanh(W x + b + r * (U h' + d)), h = (1 - z) * n + z * h' (Cho et al. 2014, in the
    /// form of version 1, which is also that of cuDNN and `PyTorch`)
    Gru,
}

impl Cell {
    /// Pre-activations a unit: those of its gates and of its candidate.
    pub fn gates(self) -> usize {
        match self {
            Self::Rnn => 1,
            Self::Lstm => 4,
            Self::Gru => 3,
        }
    }
}

/// The distributions of the initial weights from the hidden state to itself, n x n numbers a gate. All are multiplied by
/// `recurrent_scale`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RecurrentInit {
    /// Uniformly distributed orthogonal matrices (Saxe et al. 2014)
    #[default]
    Orthogonal,
    /// The identity (Le et al. 2015)
    Identity,
    /// N(0, 1 / n), whose eigenvalues fill the unit circle
    Lecun,
    /// U(-1 / sqrt(n), 1 / sqrt(n)): the default of `PyTorch`
    Burn,
    /// All 0
    Zero,
}

/// The time steps after which a recurrent network has outputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OutputSteps {
    /// The last one alone.
    Last,
    /// Every one.
    Every,
}

/// Whose recurrent layers are run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Implementation {
    /// gradmark's, one operation for the whole sequence.
    #[default]
    Own,
    /// Burn's `Rnn`, `Lstm` and `Gru`, with the same weights.
    Stock,
}

/// The most layers of a recurrent network.
const MAX_RECURRENT_LAYERS: usize = 16;

impl NetworkConfig {
    /// The cell of a recurrent network.
    pub fn cell(&self) -> Cell {
        self.cell.unwrap_or(Cell::Rnn)
    }

    /// The initial weights from the hidden state to itself.
    pub fn recurrent_init(&self) -> RecurrentInit {
        self.recurrent_init.unwrap_or_default()
    }

    /// The factor on them.
    pub fn recurrent_scale(&self) -> f64 {
        self.recurrent_scale.unwrap_or(1.0)
    }

    /// The initial bias of an LSTM's forget gate.
    pub fn forget_bias(&self) -> f64 {
        self.forget_bias.unwrap_or(1.0)
    }

    /// Whose recurrent layers are run.
    pub fn implementation(&self) -> Implementation {
        self.implementation.unwrap_or_default()
    }

    pub(super) fn recurrent_violation(&self) -> Option<Violation> {
        if self.kind == NetworkKind::Recurrent {
            self.missing_or_wrong()
        } else {
            let present = [
                ("network.cell", self.cell.is_some()),
                ("network.recurrent_init", self.recurrent_init.is_some()),
                ("network.recurrent_scale", self.recurrent_scale.is_some()),
                ("network.forget_bias", self.forget_bias.is_some()),
                ("network.update_bias", self.update_bias.is_some()),
                ("network.output_steps", self.output_steps.is_some()),
                ("network.implementation", self.implementation.is_some()),
            ];
            let (key, _) = present.into_iter().find(|(_, is_present)| *is_present)?;
            Some(only_with(key, "network.kind", &["recurrent"]))
        }
    }

    fn missing_or_wrong(&self) -> Option<Violation> {
        let Some(cell) = self.cell else {
            return Some(violation(
                "network.cell",
                "must name the cell of a recurrent network",
                "add `cell = \"lstm\"` under [network], for example",
            ));
        };
        if self.depth > MAX_RECURRENT_LAYERS {
            return Some(violation(
                "network.depth",
                "of a recurrent network must be from 1 to 16 layers",
                "set `network.depth = 1`, for example",
            ));
        }
        let possible: &[Activation] = match cell {
            Cell::Rnn => &[Activation::Tanh, Activation::Relu, Activation::Sigmoid, Activation::Identity],
            Cell::Lstm | Cell::Gru => &[Activation::Tanh],
        };
        if !possible.contains(&self.activation) {
            let problem = match cell {
                Cell::Rnn => "of a vanilla RNN must be \"tanh\", \"relu\", \"sigmoid\" or \"identity\"",
                Cell::Lstm | Cell::Gru => "of an LSTM or a GRU must be \"tanh\"",
            };
            return Some(violation("network.activation", problem, "set `network.activation = \"tanh\"`"));
        }
        if self.norm != Norm::None {
            return Some(violation(
                "network.norm",
                "must be \"none\" in a recurrent network",
                "remove it, or set another `network.kind`",
            ));
        }
        self.wrong_state()
    }

    /// What is wrong with the initial weights and biases of the hidden state.
    fn wrong_state(&self) -> Option<Violation> {
        if self.recurrent_scale.is_some() && self.recurrent_init() == RecurrentInit::Zero {
            return Some(violation(
                "network.recurrent_scale",
                "has no meaning with `network.recurrent_init = \"zero\"`",
                "remove it",
            ));
        }
        if let Some(violation) = positive("network.recurrent_scale", self.recurrent_scale, "1.0") {
            return Some(violation);
        }
        let biases = [
            ("network.forget_bias", self.forget_bias, Cell::Lstm, "lstm"),
            ("network.update_bias", self.update_bias, Cell::Gru, "gru"),
        ];
        for (key, value, cell, name) in biases {
            let Some(value) = value else {
                continue;
            };
            if self.cell() != cell {
                return Some(only_with(key, "network.cell", &[name]));
            }
            if self.bias_init == BiasInit::Off {
                return Some(violation(
                    key,
                    "has no meaning with `network.bias_init = \"off\"`",
                    "remove it, or set `network.bias_init = \"zero\"`",
                ));
            }
            if !value.is_finite() {
                return Some(Violation {
                    key,
                    problem: "must be a finite number".to_owned(),
                    mend: format!("set `{key} = 1.0`, for example"),
                });
            }
        }
        None
    }
}
