//! The network: `[network]`.

use std::fmt;

use serde::de::{self, Deserializer, Visitor};
use serde::{Deserialize, Serialize, Serializer};

use super::recurrent::{Cell, Implementation, OutputSteps, RecurrentInit};
use super::schema::{Violation, only_with, violation};

/// The network (`[network]`). Keys that only some networks have are `None` where they are left out; the functions of
/// this type give their defaults.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetworkConfig {
    /// Which family. Default: `plain`.
    #[serde(default)]
    pub kind: NetworkKind,
    /// Hidden layers, 1 to 1000; an odd number in an autoencoder, whose code is the one in the middle. Of a convolutional network all layers with weights, 6n + 2; of a recurrent network 1 to 16.
    pub depth: usize,
    /// Units in each hidden layer, 1 to 65536; of a convolutional network the channels of its first third. A chain has
    /// none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub width: Option<usize>,
    /// The units of each hidden layer of a plain network, in place of `width`; of an autoencoder those up to the code, which
    /// the layers behind it mirror: `[1000, 500, 250, 30]` has the hidden layers 1000, 500, 250, 30, 250, 500, 1000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub widths: Option<Vec<usize>>,
    /// The activation function of the hidden layers; `tanh` in an LSTM and a GRU.
    pub activation: Activation,
    /// The slope of `leaky_relu` below 0 (default .01), or where the slope of `prelu` starts (default .25).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slope: Option<f64>,
    /// The linear pieces of `maxout`, 2 to 16. Default: 2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pieces: Option<usize>,
    /// The distribution of the initial weights, in the hidden layers and the output layer. In a recurrent layer it is that
    /// of the weights from its input, each gate's drawn by itself.
    pub weight_init: WeightInit,
    /// The standard deviation of the weights for `weight_init = "normal"`, and only there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight_std: Option<f64>,
    /// A factor on all initial weights. Default: 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight_scale: Option<f64>,
    /// The weights of a chain for `weight_init = "given"`, the first neuron's first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weights: Option<Vec<f64>>,
    /// The initial biases. Default: `zero`.
    #[serde(default)]
    pub bias_init: BiasInit,
    /// The standard deviation of the biases for `bias_init = "normal"`, and only there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bias_std: Option<f64>,
    /// The bias for `bias_init = "constant"`, and only there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bias_value: Option<f64>,
    /// The biases of a chain for `bias_init = "given"`, the first neuron's first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub biases: Option<Vec<f64>>,
    /// Normalization of every hidden layer. Default: `none`.
    #[serde(default)]
    pub norm: Norm,
    /// Whether a layer normalizes before its activation function or after it. Default: `before_activation`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub norm_place: Option<NormPlace>,
    /// The share of a new batch in batch norm's running statistics. Default: .1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub norm_momentum: Option<f64>,
    /// What normalization adds to the variance. Default: 1e-5.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub norm_epsilon: Option<f64>,
    /// Hidden layers in a residual block, 1 or 2. Default: 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub block_layers: Option<usize>,
    /// Where the activation function stands in a residual block. Default: `pre_activation`, of a convolutional network
    /// `post_activation`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub block_order: Option<BlockOrder>,
    /// A factor on the branch of a residual block. Default: 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub branch_scale: Option<BranchScale>,
    /// Whether a linear layer before the blocks of a residual network brings the inputs to the width. Default: true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stem: Option<bool>,
    /// Whether the blocks of a convolutional network have shortcuts. Default: `identity`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shortcut: Option<Shortcut>,
    /// Whether operations take their fused form where the backend has one, or that of Burn's operations. Default: `fused`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kernels: Option<Kernels>,
    /// The cell of a recurrent network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cell: Option<Cell>,
    /// The initial weights from the hidden state to itself, each gate's drawn by itself. Default: `orthogonal`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recurrent_init: Option<RecurrentInit>,
    /// A factor on them. Default: 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recurrent_scale: Option<f64>,
    /// The initial bias of an LSTM's forget gate. Default: 1 (Gers et al. 2000, Jozefowicz et al. 2015).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forget_bias: Option<f64>,
    /// The initial bias of a GRU's update gate, which keeps the old state where it is open. Default: that of the others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub update_bias: Option<f64>,
    /// After which time steps a recurrent network has outputs. Default: what the data set asks for, and the last one with
    /// a linear probe.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_steps: Option<OutputSteps>,
    /// Whose recurrent layers are run. Default: `own`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub implementation: Option<Implementation>,
}

/// The network families.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NetworkKind {
    /// A multilayer perceptron: every hidden layer is `activation(x W + b)`.
    #[default]
    Plain,
    /// A multilayer perceptron with identity shortcuts around blocks of its hidden layers (He et al. 2016).
    Residual,
    /// The network of He et al. 2016a, section 4.2: 3 x 3 convolutions in three stages, with or without shortcuts.
    Convolutional,
    /// Neurons in a row, one a layer (Nielsen, Neural Networks and Deep Learning, chapter 5).
    Chain,
    /// A multilayer perceptron that puts out its input again, through a linear code layer in its middle and layers that
    /// mirror those before it (Hinton and Salakhutdinov 2006).
    Autoencoder,
    /// Layers of recurrent cells over a sequence, with equal weights at every time step.
    Recurrent,
}

/// The activation functions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Activation {
    /// 1 / (1 + exp(-z))
    Sigmoid,
    /// tanh(z)
    Tanh,
    /// max(z, 0)
    Relu,
    /// z above 0, `slope` z below (Maas et al. 2013)
    LeakyRelu,
    /// z above 0, a z below, where a is learned, one a layer (He et al. 2015)
    Prelu,
    /// z above 0, exp(z) - 1 below (Clevert et al. 2016)
    Elu,
    /// 1.0507 z above 0, 1.7581 (exp(z) - 1) below (Klambauer et al. 2017)
    Selu,
    /// z P(x <= z) for x of N(0, 1) (Hendrycks and Gimpel 2016)
    Gelu,
    /// ln(1 + exp(z))
    Softplus,
    /// The largest of `pieces` linear functions of the input (Goodfellow et al. 2013)
    Maxout,
    /// z
    Identity,
}

/// An activation function with its parameters.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ActivationFunction {
    /// Which one.
    pub kind: Activation,
    /// The slope below 0 of `leaky_relu`, the first slope of `prelu`; 0 for others.
    pub slope: f64,
    /// The linear pieces of `maxout`; 1 for others.
    pub pieces: usize,
}

/// The distributions of initial weights. All but `constant`, `given` and `zero` have mean 0; `n_in` and `n_out` are the
/// layer's inputs and outputs. All are multiplied by `weight_scale`.
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
    /// U(-1 / sqrt(`n_in`), 1 / sqrt(`n_in`)), variance 1 / (3 `n_in`): the default of Burn and PyTorch, and what Glorot
    /// and Bengio 2010 call the commonly used heuristic
    Burn,
    /// Uniformly distributed orthogonal matrices, or the rows or columns of one (Saxe et al. 2014)
    Orthogonal,
    /// U(-`weight_scale`, `weight_scale`)
    Uniform,
    /// `weight_scale` or its negative, equally often
    RandomSign,
    /// All equal to `weight_scale`
    Constant,
    /// All 0
    Zero,
    /// The list `weights`, one number a neuron of a chain
    Given,
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
    /// U(-1 / sqrt(`n_in`), 1 / sqrt(`n_in`)): the default of Burn and PyTorch
    Burn,
    /// All start at `bias_value`.
    Constant,
    /// Of a chain: chosen so that every pre-activation is 0.
    Centered,
    /// The list `biases`, one number a neuron of a chain
    Given,
}

/// The normalizations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Norm {
    /// None.
    #[default]
    None,
    /// Each unit over the batch (Ioffe and Szegedy 2015); running statistics in evaluation.
    Batch,
    /// Each example over its units (Ba et al. 2016).
    Layer,
}

/// Where normalization stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NormPlace {
    /// activation(norm(z))
    #[default]
    BeforeActivation,
    /// norm(activation(z))
    AfterActivation,
}

/// Where the activation function stands in a residual block.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BlockOrder {
    /// x + W activation(norm(x)) + b (He et al. 2016b, figure 4e)
    #[default]
    PreActivation,
    /// activation(x + norm(W x + b)) (He et al. 2016a; 2016b, figure 4a)
    PostActivation,
    /// x + activation(norm(W x + b)) (He et al. 2016b, figure 4c)
    ActivationBeforeAddition,
}

/// Whether a convolutional network has shortcuts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Shortcut {
    /// The identity; where a stage halves the image, every second pixel, and zeros for the new channels (He et al.
    /// 2016a, option A).
    #[default]
    Identity,
    /// None: the plain twin, of equal layers and weights.
    None,
}

/// A factor on the branch of a residual block.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum BranchScale {
    /// This factor.
    Factor(f64),
    /// 1 / sqrt(blocks), under which the variance stays bounded at any depth.
    InverseSqrtBlocks,
}

impl Default for BranchScale {
    fn default() -> Self {
        Self::Factor(1.0)
    }
}

const INVERSE_SQRT_BLOCKS: &str = "inverse_sqrt_blocks";

impl Serialize for BranchScale {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Factor(factor) => serializer.serialize_f64(*factor),
            Self::InverseSqrtBlocks => serializer.serialize_str(INVERSE_SQRT_BLOCKS),
        }
    }
}

impl<'de> Deserialize<'de> for BranchScale {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ScaleVisitor;
        impl Visitor<'_> for ScaleVisitor {
            type Value = BranchScale;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "a number, or \"{INVERSE_SQRT_BLOCKS}\"")
            }
            fn visit_f64<E: de::Error>(self, value: f64) -> Result<BranchScale, E> {
                Ok(BranchScale::Factor(value))
            }
            fn visit_i64<E: de::Error>(self, value: i64) -> Result<BranchScale, E> {
                Ok(BranchScale::Factor(value as f64))
            }
            fn visit_u64<E: de::Error>(self, value: u64) -> Result<BranchScale, E> {
                Ok(BranchScale::Factor(value as f64))
            }
            fn visit_str<E: de::Error>(self, value: &str) -> Result<BranchScale, E> {
                if value == INVERSE_SQRT_BLOCKS {
                    Ok(BranchScale::InverseSqrtBlocks)
                } else {
                    Err(E::invalid_value(de::Unexpected::Str(value), &self))
                }
            }
        }
        deserializer.deserialize_any(ScaleVisitor)
    }
}

/// The most hidden layers.
pub const MAX_DEPTH: usize = 1000;
/// The most units in a layer.
pub const MAX_WIDTH: usize = 65536;
/// The most weights between hidden layers: 8 GB in f32, and as much again for their gradients.
const MAX_HIDDEN_WEIGHTS: usize = 2_000_000_000;
/// The most linear pieces of maxout.
const MAX_PIECES: usize = 16;

/// Which form operations take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kernels {
    /// Fused where the backend has such a form.
    #[default]
    Fused,
    /// That of Burn's operations.
    Stock,
}

impl NetworkConfig {
    /// A plain network; every other key has its default.
    pub fn plain(depth: usize, width: usize, activation: Activation, weight_init: WeightInit) -> Self {
        Self {
            kind: NetworkKind::Plain,
            depth,
            width: Some(width),
            widths: None,
            activation,
            slope: None,
            pieces: None,
            weight_init,
            weight_std: None,
            weight_scale: None,
            weights: None,
            bias_init: BiasInit::default(),
            bias_std: None,
            bias_value: None,
            biases: None,
            norm: Norm::default(),
            norm_place: None,
            norm_momentum: None,
            norm_epsilon: None,
            block_layers: None,
            block_order: None,
            branch_scale: None,
            stem: None,
            shortcut: None,
            cell: None,
            recurrent_init: None,
            recurrent_scale: None,
            forget_bias: None,
            update_bias: None,
            output_steps: None,
            implementation: None,
            kernels: None,
        }
    }

    /// Units in a hidden layer: 1 in a chain.
    pub fn width(&self) -> usize {
        self.width.unwrap_or(1)
    }

    /// Units in each hidden layer, the one nearest to the input first.
    pub fn layer_widths(&self) -> Vec<usize> {
        let Some(widths) = &self.widths else {
            return vec![self.width(); self.depth];
        };
        let mirrored = widths.iter().rev().skip(1).filter(|_| self.kind == NetworkKind::Autoencoder);
        widths.iter().chain(mirrored).copied().collect()
    }

    /// The number of an autoencoder's code layer among the hidden layers; none of other networks.
    pub fn code_layer(&self) -> Option<usize> {
        (self.kind == NetworkKind::Autoencoder).then_some(self.depth / 2)
    }

    /// The hidden layers that pretraining trains one by one: all, or those of an autoencoder up to its code.
    pub fn pretrained_layers(&self) -> usize {
        self.code_layer().map_or(self.depth, |code| code + 1)
    }

    /// Numbers that the last hidden layer hands on: the channels of the last stage of a convolutional network.
    pub fn last_width(&self) -> usize {
        match self.kind {
            NetworkKind::Convolutional => 4 * self.width(),
            _ => self.layer_widths().last().copied().unwrap_or(1),
        }
    }

    /// The activation function with its parameters.
    pub fn function(&self) -> ActivationFunction {
        ActivationFunction {
            kind: self.activation,
            slope: match self.activation {
                Activation::LeakyRelu => self.slope.unwrap_or(0.01),
                Activation::Prelu => self.slope.unwrap_or(0.25),
                _ => 0.0,
            },
            pieces: if self.activation == Activation::Maxout { self.pieces.unwrap_or(2) } else { 1 },
        }
    }

    /// The factor on the initial weights.
    pub fn weight_scale(&self) -> f64 {
        self.weight_scale.unwrap_or(1.0)
    }

    /// Where a layer normalizes.
    pub fn norm_place(&self) -> NormPlace {
        self.norm_place.unwrap_or_default()
    }

    /// The share of a new batch in running statistics.
    pub fn norm_momentum(&self) -> f64 {
        self.norm_momentum.unwrap_or(0.1)
    }

    /// Which form operations take.
    pub fn kernels(&self) -> Kernels {
        self.kernels.unwrap_or_default()
    }

    /// What normalization adds to the variance.
    pub fn norm_epsilon(&self) -> f64 {
        self.norm_epsilon.unwrap_or(1e-5)
    }

    /// Hidden layers in a residual block.
    pub fn block_layers(&self) -> usize {
        match self.kind {
            NetworkKind::Convolutional => 2,
            _ => self.block_layers.unwrap_or(1),
        }
    }

    /// Where the activation function stands in a block. The convolutional network is He's first one unless the config
    /// says otherwise.
    pub fn block_order(&self) -> BlockOrder {
        self.block_order.unwrap_or(match self.kind {
            NetworkKind::Convolutional => BlockOrder::PostActivation,
            _ => BlockOrder::PreActivation,
        })
    }

    /// The factor on the branch of each of `blocks` blocks.
    pub fn branch_scale(&self, blocks: usize) -> f64 {
        match self.branch_scale.unwrap_or_default() {
            BranchScale::Factor(factor) => factor,
            BranchScale::InverseSqrtBlocks => 1.0 / (blocks as f64).sqrt(),
        }
    }

    /// Whether a residual network has a stem.
    pub fn has_stem(&self) -> bool {
        self.kind == NetworkKind::Residual && self.stem()
    }

    /// Whether it has one if it is residual.
    pub(super) fn stem(&self) -> bool {
        self.stem.unwrap_or(true)
    }

    /// Whether blocks have shortcuts.
    pub fn has_shortcuts(&self) -> bool {
        match self.kind {
            NetworkKind::Residual => true,
            NetworkKind::Convolutional => self.shortcut.unwrap_or_default() == Shortcut::Identity,
            NetworkKind::Plain | NetworkKind::Chain | NetworkKind::Autoencoder | NetworkKind::Recurrent => false,
        }
    }

    pub(super) fn violation(&self, features: usize) -> Option<Violation> {
        self.size_violation(features)
            .or_else(|| self.activation_violation())
            .or_else(|| self.weight_violation())
            .or_else(|| self.bias_violation())
            .or_else(|| self.norm_violation())
            .or_else(|| self.block_violation())
            .or_else(|| self.recurrent_violation())
    }

    fn size_violation(&self, features: usize) -> Option<Violation> {
        if !(1..=MAX_DEPTH).contains(&self.depth) {
            return Some(violation(
                "network.depth",
                "must be a number of hidden layers from 1 to 1000",
                "set `network.depth = 8`, for example",
            ));
        }
        if self.kind == NetworkKind::Convolutional && (self.depth < 8 || !(self.depth - 2).is_multiple_of(6)) {
            return Some(violation(
                "network.depth",
                "of a convolutional network must be 6n + 2: three stages of n blocks of two layers, the first layer and the output layer",
                "set 8, 14, 20, 32, 56 or 110, for example",
            ));
        }
        if let Some(violation) = self.widths_violation() {
            return Some(violation);
        }
        match self.width {
            Some(_) if self.kind == NetworkKind::Chain => {
                return Some(violation(
                    "network.width",
                    "has no meaning in a chain, which has one neuron a layer",
                    "remove it, or set `network.kind = \"plain\"`",
                ));
            }
            None if self.kind != NetworkKind::Chain && self.widths.is_none() => {
                return Some(violation(
                    "network.width",
                    "must say how many units a hidden layer has",
                    "add `width = 64` under [network], for example",
                ));
            }
            Some(width) if !(1..=MAX_WIDTH).contains(&width) => {
                return Some(violation(
                    "network.width",
                    "must be a number of units from 1 to 65536",
                    "set `network.width = 64`, for example",
                ));
            }
            _ => {}
        }
        if self.hidden_weights(features) > MAX_HIDDEN_WEIGHTS {
            return Some(violation(
                "network.width",
                "makes, with this depth, a network of more than 2000000000 weights",
                "set a smaller width or depth",
            ));
        }
        if self.kind == NetworkKind::Residual && !self.has_stem() && self.width() != features {
            return Some(Violation {
                key: "network.stem",
                problem: format!("can be left out only if the width is that of the inputs, which is {features}"),
                mend: format!("set `network.width = {features}`, or remove `network.stem`"),
            });
        }
        None
    }

    fn widths_violation(&self) -> Option<Violation> {
        let is_autoencoder = self.kind == NetworkKind::Autoencoder;
        if is_autoencoder && self.depth.is_multiple_of(2) {
            return Some(violation(
                "network.depth",
                "of an autoencoder must be odd: the layer in the middle is the code",
                "add one layer: set `network.depth = 7`, for example",
            ));
        }
        let Some(widths) = &self.widths else {
            return None;
        };
        if !is_autoencoder && self.kind != NetworkKind::Plain {
            return Some(only_with("network.widths", "network.kind", &["plain", "autoencoder"]));
        }
        if self.width.is_some() {
            return Some(violation(
                "network.widths",
                "stands beside `network.width`, and only one of them can say how many units a layer has",
                "remove one of the two",
            ));
        }
        let (count, which) = if is_autoencoder { (self.depth / 2 + 1, " up to the code") } else { (self.depth, "") };
        if widths.len() != count {
            let depth = if is_autoencoder { (2 * widths.len()).saturating_sub(1) } else { widths.len() };
            let other = if depth == 0 { String::new() } else { format!(", or set `network.depth = {depth}`") };
            return Some(Violation {
                key: "network.widths",
                problem: format!("must list {count} numbers, one a hidden layer{which}"),
                mend: format!("list {count} numbers{other}"),
            });
        }
        widths.iter().any(|width| !(1..=MAX_WIDTH).contains(width)).then(|| {
            violation(
                "network.widths",
                "must list numbers of units from 1 to 65536",
                "set `network.widths = [64, 32]`, for example",
            )
        })
    }

    /// Weights up to the last hidden layer, of a convolutional network not more than this.
    pub(super) fn hidden_weights(&self, features: usize) -> usize {
        let width = self.width();
        let pieces = self.pieces.unwrap_or(1);
        if self.widths.is_some() {
            let sizes: Vec<usize> = std::iter::once(features).chain(self.layer_widths()).collect();
            let weights = sizes.windows(2).map(|pair| pair[0].saturating_mul(pair[1]).saturating_mul(pieces));
            return weights.fold(0, usize::saturating_add);
        }
        let layer = match self.kind {
            NetworkKind::Convolutional => width.saturating_mul(width).saturating_mul(9 * 16),
            // Those from the hidden state to itself, and those from the layer below; the first layer sees one time step.
            NetworkKind::Recurrent => {
                let inputs = features.saturating_add(width.saturating_mul(2 * self.depth - 1));
                return width.saturating_mul(inputs).saturating_mul(self.cell().gates());
            }
            _ => width.saturating_mul(width),
        };
        let first = width.saturating_mul(features);
        layer.saturating_mul(self.depth - 1).saturating_add(first).saturating_mul(pieces)
    }

    fn activation_violation(&self) -> Option<Violation> {
        let has_slope = matches!(self.activation, Activation::LeakyRelu | Activation::Prelu);
        match self.slope {
            Some(_) if !has_slope => {
                return Some(violation(
                    "network.slope",
                    "has a meaning only with `network.activation = \"leaky_relu\"` or \"prelu\"",
                    "remove it, or set `network.activation = \"leaky_relu\"`",
                ));
            }
            Some(slope) if !(slope.is_finite() && slope.abs() <= 1.0) => {
                return Some(violation(
                    "network.slope",
                    "must be from -1 to 1",
                    "set `network.slope = 0.01`, for example",
                ));
            }
            _ => {}
        }
        match self.pieces {
            Some(_) if self.activation != Activation::Maxout => {
                return Some(violation(
                    "network.pieces",
                    "has a meaning only with `network.activation = \"maxout\"`",
                    "remove it, or set `network.activation = \"maxout\"`",
                ));
            }
            Some(pieces) if !(2..=MAX_PIECES).contains(&pieces) => {
                return Some(violation(
                    "network.pieces",
                    "must be from 2 to 16: the maximum of one piece is the piece itself",
                    "set `network.pieces = 2`, or `network.activation = \"identity\"` for one piece",
                ));
            }
            _ => {}
        }
        if self.activation == Activation::Maxout {
            if self.kind == NetworkKind::Autoencoder {
                return Some(violation(
                    "network.activation",
                    "must not be maxout in an autoencoder, whose code layer is linear and has one piece",
                    "set `network.activation = \"sigmoid\"`, for example",
                ));
            }
            if self.kind == NetworkKind::Chain {
                return Some(violation(
                    "network.activation",
                    "maxout has several weights a neuron, and a chain has one",
                    "set `network.activation = \"sigmoid\"`, for example",
                ));
            }
            if matches!(self.weight_init, WeightInit::Zero | WeightInit::Constant | WeightInit::Given) {
                return Some(violation(
                    "network.weight_init",
                    "makes the pieces of maxout equal, so that it is linear",
                    "set `network.weight_init = \"lecun\"`, for example",
                ));
            }
            if self.has_shortcuts() && self.block_order() != BlockOrder::ActivationBeforeAddition {
                return Some(violation(
                    "network.block_order",
                    "must be \"activation_before_addition\" with maxout, whose input has another size than its output",
                    "set `network.block_order = \"activation_before_addition\"`",
                ));
            }
        }
        None
    }

    fn weight_violation(&self) -> Option<Violation> {
        let init = self.weight_init;
        if init == WeightInit::Given && self.kind != NetworkKind::Chain {
            return Some(violation(
                "network.weight_init",
                "can be given one by one only for a chain",
                "set `network.kind = \"chain\"`, or `network.weight_init = \"he\"`, for example",
            ));
        }
        let scale_is_size = matches!(init, WeightInit::Uniform | WeightInit::RandomSign | WeightInit::Constant);
        match self.weight_scale {
            None if scale_is_size => {
                return Some(violation(
                    "network.weight_scale",
                    "must give the size of the weights with this `network.weight_init`",
                    "add `weight_scale = 0.1` under [network], for example",
                ));
            }
            Some(_) if init == WeightInit::Zero => {
                return Some(violation(
                    "network.weight_scale",
                    "has no meaning with `network.weight_init = \"zero\"`",
                    "remove it",
                ));
            }
            Some(scale) if init == WeightInit::Constant && !(scale.is_finite() && scale != 0.0) => {
                return Some(violation(
                    "network.weight_scale",
                    "must be a finite number other than 0 with `network.weight_init = \"constant\"`",
                    "set `network.weight_scale = 0.1`, for example, or `network.weight_init = \"zero\"`",
                ));
            }
            Some(scale) if init != WeightInit::Constant && !(scale.is_finite() && scale > 0.0) => {
                return Some(violation(
                    "network.weight_scale",
                    "must be a finite number above 0",
                    "set `network.weight_scale = 1.0`, for example",
                ));
            }
            _ => {}
        }
        parameter("network.weight_std", self.weight_std, init == WeightInit::Normal, "network.weight_init", "normal")
            .or_else(|| positive("network.weight_std", self.weight_std, "1.0"))
            .or_else(|| {
                let is_given = init == WeightInit::Given;
                list("network.weights", self.weights.as_ref(), is_given, "network.weight_init", self.depth)
            })
    }

    fn bias_violation(&self) -> Option<Violation> {
        let init = self.bias_init;
        if matches!(init, BiasInit::Given | BiasInit::Centered) && self.kind != NetworkKind::Chain {
            return Some(violation(
                "network.bias_init",
                "\"given\" and \"centered\" are for the neurons of a chain",
                "set `network.kind = \"chain\"`, or `network.bias_init = \"zero\"`, for example",
            ));
        }
        parameter("network.bias_std", self.bias_std, init == BiasInit::Normal, "network.bias_init", "normal")
            .or_else(|| positive("network.bias_std", self.bias_std, "1.0"))
            .or_else(|| {
                let is_constant = init == BiasInit::Constant;
                parameter("network.bias_value", self.bias_value, is_constant, "network.bias_init", "constant")
            })
            .or_else(|| {
                let is_wrong = self.bias_value.is_some_and(|value| !value.is_finite());
                is_wrong.then(|| {
                    violation(
                        "network.bias_value",
                        "must be a finite number",
                        "set `network.bias_value = 0.1`, for example",
                    )
                })
            })
            .or_else(|| {
                let is_given = init == BiasInit::Given;
                list("network.biases", self.biases.as_ref(), is_given, "network.bias_init", self.depth)
            })
    }

    fn norm_violation(&self) -> Option<Violation> {
        if self.norm == Norm::None {
            let present = [
                ("network.norm_place", self.norm_place.is_some()),
                ("network.norm_momentum", self.norm_momentum.is_some()),
                ("network.norm_epsilon", self.norm_epsilon.is_some()),
            ];
            let (key, _) = present.into_iter().find(|(_, is_present)| *is_present)?;
            return Some(violation(
                key,
                "has no meaning with `network.norm = \"none\"`",
                "remove it, or set `network.norm = \"batch\"`",
            ));
        }
        if self.kind == NetworkKind::Chain {
            return Some(violation(
                "network.norm",
                "would make 0 of the single neuron of a chain's layer",
                "remove it, or set `network.kind = \"plain\"`",
            ));
        }
        if self.norm == Norm::Layer && self.layer_widths().contains(&1) && self.kind != NetworkKind::Convolutional {
            return Some(violation(
                "network.norm",
                "makes 0 of every layer of one unit",
                "set `network.width = 64`, for example, or `network.norm = \"batch\"`",
            ));
        }
        if self.norm == Norm::Layer && self.norm_momentum.is_some() {
            return Some(violation(
                "network.norm_momentum",
                "has a meaning only with `network.norm = \"batch\"`: layer norm has no running statistics",
                "remove it, or set `network.norm = \"batch\"`",
            ));
        }
        if self.norm_momentum.is_some_and(|share| !(share > 0.0 && share <= 1.0)) {
            return Some(violation(
                "network.norm_momentum",
                "must be above 0 and at most 1",
                "set `network.norm_momentum = 0.1`, for example",
            ));
        }
        if let Some(violation) = positive("network.norm_epsilon", self.norm_epsilon, "1e-5") {
            return Some(violation);
        }
        let is_after = self.norm_place() == NormPlace::AfterActivation;
        if is_after && self.has_shortcuts() && self.block_order() == BlockOrder::PostActivation {
            return Some(violation(
                "network.norm_place",
                "would put the normalization on the shortcut of a post-activation block",
                "remove it, or set another `network.block_order`",
            ));
        }
        None
    }

    fn block_violation(&self) -> Option<Violation> {
        let is_residual = self.kind == NetworkKind::Residual;
        let is_convolutional = self.kind == NetworkKind::Convolutional;
        let has_blocks = is_residual || is_convolutional;
        let with_blocks = &["residual", "convolutional"][..];
        let present = [
            ("network.block_layers", self.block_layers.is_some(), is_residual, &with_blocks[..1]),
            ("network.block_order", self.block_order.is_some(), has_blocks, with_blocks),
            ("network.branch_scale", self.branch_scale.is_some(), has_blocks, with_blocks),
            ("network.stem", self.stem.is_some(), is_residual, &with_blocks[..1]),
            ("network.shortcut", self.shortcut.is_some(), is_convolutional, &with_blocks[1..]),
        ];
        let misplaced = present.into_iter().find(|(_, is_present, has_meaning, _)| *is_present && !has_meaning);
        if let Some((key, _, _, kinds)) = misplaced {
            return Some(only_with(key, "network.kind", kinds));
        }
        let of_branches = [
            ("network.block_order", self.block_order.is_some()),
            ("network.branch_scale", self.branch_scale.is_some()),
        ];
        if let Some((key, _)) = of_branches.into_iter().find(|(_, is_present)| *is_present && !self.has_shortcuts()) {
            return Some(violation(
                key,
                "has no meaning with `network.shortcut = \"none\"`",
                "remove it, or set `network.shortcut = \"identity\"`",
            ));
        }
        if let Some(BranchScale::Factor(factor)) = self.branch_scale
            && !(factor.is_finite() && factor > 0.0)
        {
            return Some(violation(
                "network.branch_scale",
                "must be a finite number above 0, or \"inverse_sqrt_blocks\"",
                "set `network.branch_scale = 1.0`, for example",
            ));
        }
        if is_residual && !(1..=2).contains(&self.block_layers()) {
            return Some(violation("network.block_layers", "must be 1 or 2", "set `network.block_layers = 2`"));
        }
        if is_residual && !self.depth.is_multiple_of(self.block_layers()) {
            return Some(violation(
                "network.depth",
                "must be even: blocks of two layers are asked for",
                "add one layer, or set `network.block_layers = 1`",
            ));
        }
        None
    }
}

/// The name of a key in its section.
fn last_part(key: &str) -> &str {
    key.rsplit_once('.').map_or(key, |(_, name)| name)
}

/// A value stands where its initializer is asked for, and nowhere else.
fn parameter(key: &'static str, value: Option<f64>, is_meant: bool, init_key: &str, init: &str) -> Option<Violation> {
    match value {
        None if is_meant => Some(Violation {
            key,
            problem: format!("must be given with `{init_key} = \"{init}\"`"),
            mend: format!("add `{} = 1.0` under [network], for example", last_part(key)),
        }),
        Some(_) if !is_meant => Some(Violation {
            key,
            problem: format!("has a meaning only with `{init_key} = \"{init}\"`"),
            mend: format!("remove it, or set `{init_key} = \"{init}\"`"),
        }),
        _ => None,
    }
}

pub(super) fn positive(key: &'static str, value: Option<f64>, example: &str) -> Option<Violation> {
    let is_wrong = value.is_some_and(|value| !(value.is_finite() && value > 0.0));
    is_wrong.then(|| Violation {
        key,
        problem: "must be a finite number above 0".to_owned(),
        mend: format!("set `{key} = {example}`, for example"),
    })
}

/// A list of a chain has one finite number a neuron.
fn list(
    key: &'static str,
    values: Option<&Vec<f64>>,
    is_meant: bool,
    init_key: &str,
    depth: usize,
) -> Option<Violation> {
    match values {
        None if is_meant => Some(Violation {
            key,
            problem: format!("must list one number a neuron with `{init_key} = \"given\"`"),
            mend: format!("add `{} = [...]` with {depth} numbers under [network]", last_part(key)),
        }),
        Some(_) if !is_meant => Some(Violation {
            key,
            problem: format!("has a meaning only with `{init_key} = \"given\"`"),
            mend: format!("remove it, or set `{init_key} = \"given\"`"),
        }),
        Some(values) if values.len() != depth => Some(Violation {
            key,
            problem: format!("must list {depth} numbers, one a neuron"),
            mend: match values.len() {
                0 => format!("list {depth} numbers"),
                count => format!("list {depth} numbers, or set `network.depth = {count}`"),
            },
        }),
        Some(values) if values.iter().any(|value| !value.is_finite()) => Some(Violation {
            key,
            problem: "must list finite numbers".to_owned(),
            mend: "write finite numbers such as 1.0 in place of the others".to_owned(),
        }),
        _ => None,
    }
}
