//! The delta of every layer of a network at initialization, before anything is measured.
//!
//! A prediction is the root of the mean square over seeds. It follows the variance of the pre-activations from the inputs to the
//! outputs, takes the gradient of the cost there, and follows its square back. Where theory does not hold there is no number, but
//! a reason.

use super::cost::{Outputs, output_gradient};
use super::initial_weights::{bias_variance, weight_variance, weights_are_gaussian};
use super::mean_field::{Moments, moments};
use super::normalization::{BatchNorm, Gradient};
use crate::config::{
    Activation, ActivationFunction, BlockOrder, Loss, NetworkConfig, NetworkKind, Norm, NormPlace, RunConfig,
};

/// The narrowest layers that are predicted.
pub const LEAST_WIDTH: usize = 64;
/// The smallest batch that is predicted with batch norm.
pub const LEAST_NORMALIZED_BATCH: usize = 16;
/// With batch norm the units of a layer are at least so many times the examples of a batch.
pub const LEAST_UNITS_AN_EXAMPLE: usize = 2;
/// The largest part of |delta|^2 that effects may have which are left out, as they are estimated.
pub const LARGEST_LEFT_OUT: f64 = 0.25;
/// The estimate of what the data's correlations make is too small by about this factor.
const CORRELATIONS_BY_ESTIMATE: f64 = 2.5;
/// The largest variance over seeds of ln |delta|^2: a factor of e^(sqrt(2) / 2), about 2, in |delta|.
pub const LARGEST_SPREAD: f64 = 2.0;
/// The largest one with normalization, whose own variance over seeds is left out.
pub const LARGEST_NORMALIZED_SPREAD: f64 = 0.7;
/// The largest variance of outputs whose quadratic cost is predicted: beyond, the gradient is that of the few that are not saturated.
const LARGEST_QUADRATIC_OUTPUT: f64 = 300.0;
/// The norms that gradients of f32 have with all their digits.
const NORMS_OF_F32: std::ops::RangeInclusive<f64> = 1e-35..=1e37;
/// By how much the variance must exceed what normalization adds to it.
const LEAST_VARIANCE_BY_EPSILON: f64 = 100.0;
/// No pre-activation of this variance is finite in f32 throughout.
const LARGEST_VARIANCE: f64 = 1e70;
/// Pre-activations of this variance are 0 in f32, or those of inputs that are.
const LEAST_VARIANCE: f64 = 1e-70;
/// A relative step in q, for differences.
const STEP: f64 = 1e-3;
/// Inputs are sorted by their norm into so many groups.
const GROUPS: usize = 256;

/// What a prediction must know of the examples of a step.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Examples {
    /// Numbers in an input.
    pub features: usize,
    /// |x|^2 of each input.
    pub squares: Vec<f64>,
    /// The sum over the inputs of |x - mean x|^2.
    pub centered_square: f64,
    /// How far the centered inputs are from lying in all directions of the batch alike: (B - 1) |K|^2 / tr(K)^2 - 1, K being the
    /// matrix of their scalar products; 0 where they are, B - 2 where all lie on a line.
    pub anisotropy: f64,
    /// Outputs of the network; none where the loss is taken of the last hidden layer.
    pub outputs: Option<usize>,
}

/// Predicted deltas.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Prediction {
    /// The path of each predicted layer (`hidden.3`, `stem`) with its `delta_l2`.
    pub deltas: Vec<(String, f64)>,
    /// Why layers, or all of them, are not predicted.
    pub reason: Option<String>,
}

impl Prediction {
    fn none(reason: impl Into<String>) -> Self {
        Self { deltas: Vec::new(), reason: Some(reason.into()) }
    }
}

/// Predicts the deltas of a network as it is drawn, on the examples of its first step: `delta_l2` of activations.csv at step 0.
///
/// # Source
///
/// Plain networks: Schoenholz et al. 2017, equation 9, with the variances of each layer rather than their fixed point. Residual
/// networks: Yang and Schoenholz 2017. Batch norm: Yang et al. 2019.
pub fn predict(config: &RunConfig, examples: &Examples) -> Prediction {
    let unit = match unit(config) {
        Ok(unit) => unit,
        Err(reason) => return Prediction::none(reason),
    };
    let network = &config.network;
    let batch = examples.squares.len();
    let groups = if network.norm == Norm::Batch { 1 } else { GROUPS };
    let mut walk =
        Walk { network, unit, examples, batch, spread: 0.0, problem: None, first_tie: first_tie(config.training.loss) };
    let mut squares = examples.squares.clone();
    squares.sort_by(f64::total_cmp);
    let mut deltas: Vec<Delta> = Vec::new();
    let groups: Vec<&[f64]> = squares.chunks(squares.len().div_ceil(groups).max(1)).collect();
    // The gradient of the cost changes little from group to group and takes the longest: it is taken at the mean.
    let (ways, outputs): (Vec<Way>, Vec<Signal>) = groups.iter().map(|group| walk.forward(mean(group))).unzip();
    let shares = groups.iter().map(|group| group.len() as f64 / batch as f64);
    let variance: f64 = shares.clone().zip(&outputs).map(|(share, signal)| share * signal.square).sum();
    // Only batch norm asks how much of the gradient is common to all examples; there is one group then.
    let spread = outputs.first().map_or(0.0, |signal| signal.spread) * (batch as f64 - 1.0) / batch as f64;
    let correlation = if variance > 0.0 { (1.0 - spread / variance).clamp(0.0, 1.0) } else { 0.0 };
    if config.training.loss == Loss::Quadratic && variance > LARGEST_QUADRATIC_OUTPUT {
        return Prediction::none("quadratic costs of outputs that are nearly all saturated are not predicted");
    }
    let start = walk.start(config.training.loss, variance, correlation);
    for (way, share) in ways.iter().zip(shares) {
        for (place, delta) in walk.backward(way, start * share).into_iter().enumerate() {
            match deltas.get_mut(place) {
                Some(sum) => {
                    sum.square += delta.square;
                    sum.left_out = sum.left_out.max(delta.left_out);
                }
                None => deltas.push(delta),
            }
        }
    }
    if let Some(reason) = walk.problem {
        return Prediction::none(reason);
    }
    let largest = if network.norm == Norm::None { LARGEST_SPREAD } else { LARGEST_NORMALIZED_SPREAD };
    if walk.spread > largest {
        return Prediction::none(format!(
            "the layers are so many and so narrow that ln |delta|^2 differs from seed to seed by {:.1} (variance; at most \
             {largest} is predicted)",
            walk.spread
        ));
    }
    // What is left out adds up on the way back: before a doubtful layer there is no other.
    let doubtful = deltas.iter().rposition(|delta| delta.doubt().is_some()).map_or(0, |place| place + 1);
    let doubt = deltas.drain(..doubtful).next_back().and_then(|delta| delta.doubt());
    let reason = doubt.map(|doubt| match deltas.first() {
        Some(first) => format!("layers before {} are not predicted: {}", first.layer, doubt),
        None => format!("no layer is predicted: {doubt}"),
    });
    let deltas = deltas.into_iter().map(|delta| (delta.layer, delta.square.sqrt())).collect();
    Prediction { deltas, reason }
}

/// The predicted delta of a layer.
struct Delta {
    layer: String,
    square: f64,
    left_out: LeftOut,
}

impl Delta {
    /// What makes the prediction doubtful, if it is.
    fn doubt(&self) -> Option<&'static str> {
        let is_held = NORMS_OF_F32.contains(&self.square.sqrt());
        self.left_out.doubt().or((!is_held).then_some("their deltas leave f32"))
    }
}

/// The parts of |delta|^2 that are left out, as they are estimated.
#[derive(Clone, Copy, Debug, Default)]
struct LeftOut {
    /// With batch norm, of the data's correlations.
    correlations: f64,
    /// Of weights that are the same on the way forth and back, along which activations and gradient meet again.
    ties: f64,
    /// Of variances that differ from seed to seed.
    fluctuations: f64,
}

impl LeftOut {
    /// The larger of each part.
    fn max(self, other: Self) -> Self {
        Self {
            correlations: self.correlations.max(other.correlations),
            ties: self.ties.max(other.ties),
            fluctuations: self.fluctuations.max(other.fluctuations),
        }
    }

    fn doubt(self) -> Option<&'static str> {
        let parts = [
            (
                CORRELATIONS_BY_ESTIMATE * self.correlations,
                "with batch norm, the correlations of their examples are still those of the data",
            ),
            (
                self.ties,
                "in layers of this width the gradient turns towards the activations, through weights that both have met",
            ),
            (
                self.fluctuations,
                "in layers of this width variances differ from seed to seed, and the slopes of the activation function with them",
            ),
        ];
        let sum: f64 = parts.iter().map(|(part, _)| part).sum();
        let largest = parts.into_iter().max_by(|a, b| a.0.total_cmp(&b.0));
        // What is no number is no small part.
        let is_small = sum <= LARGEST_LEFT_OUT;
        largest.filter(|_| !is_small).map(|(_, reason)| reason)
    }
}

/// The square of the cosine of gradient and activations behind the last layer, by that of a random direction: the gradient of a cost
/// with classes is partly along the outputs, and they are along the activations.
fn first_tie(loss: Loss) -> f64 {
    match loss {
        Loss::SoftmaxCrossEntropy => 2.0,
        Loss::SigmoidCrossEntropy | Loss::Quadratic => 3.0,
        Loss::SquaredError | Loss::Wasserstein | Loss::LinearProbe => 1.0,
    }
}

/// Why a network is not predicted, as far as its config tells.
pub fn obstacle(config: &RunConfig) -> Option<String> {
    unit(config).err()
}

fn family_obstacle(config: &RunConfig) -> Option<String> {
    let (network, training) = (&config.network, &config.training);
    let not = |what: &str| Some(format!("{what} are not predicted"));
    match network.kind {
        NetworkKind::Plain | NetworkKind::Residual => {}
        NetworkKind::Chain => return not("chains, which have one unit a layer,"),
        NetworkKind::Autoencoder => return not("autoencoders"),
        NetworkKind::Convolutional => return not("convolutional networks"),
        NetworkKind::Recurrent => return not("recurrent networks"),
    }
    if training.start_from.is_some() || training.pretraining.is_some() {
        return not("networks that have been trained before");
    }
    let narrowest = network.layer_widths().into_iter().min().unwrap_or(0);
    if narrowest < LEAST_WIDTH {
        return Some(format!("layers of fewer than {LEAST_WIDTH} units are not predicted"));
    }
    if weight_variance(network, 1, 1).is_none() {
        return not("weights that are not drawn");
    }
    if bias_variance(network, 1).is_none() {
        return not("biases that are not drawn");
    }
    if config.data.features() < LEAST_WIDTH && !weights_are_gaussian(network) {
        return Some(format!(
            "sums of fewer than {LEAST_WIDTH} inputs are not Gaussian unless the weights are, and are not predicted"
        ));
    }
    if network.kind == NetworkKind::Residual {
        if network.block_order() == BlockOrder::PostActivation {
            return not("blocks with the activation function after the addition");
        }
        let has_gaussian_inputs = config.data.set == crate::config::DataSet::Gaussian;
        if !network.has_stem() && !has_gaussian_inputs {
            return not("residual networks without a stem, whose inputs are not Gaussian,");
        }
    }
    None
}

/// What a layer makes of its pre-activations, if that is predicted.
fn unit(config: &RunConfig) -> Result<Unit, String> {
    if let Some(reason) = family_obstacle(config) {
        return Err(reason);
    }
    let (network, batch) = (&config.network, config.batch_size());
    let function = network.function();
    if network.norm == Norm::None {
        return Ok(Unit::Free);
    }
    if network.norm_place() == NormPlace::AfterActivation {
        return Err("layers with normalization after the activation function are not predicted".to_owned());
    }
    if function.kind == Activation::Maxout {
        return Err("maxout with normalization is not predicted".to_owned());
    }
    if network.norm == Norm::Layer {
        return Ok(Unit::Layer);
    }
    let too_small = format!("batch norm is predicted for batches of at least {LEAST_NORMALIZED_BATCH} examples");
    let width = network.layer_widths().into_iter().min().unwrap_or(0);
    if batch < LEAST_NORMALIZED_BATCH {
        return Err(too_small);
    }
    if width < LEAST_UNITS_AN_EXAMPLE * batch {
        return Err(format!(
            "batch norm is predicted for layers of at least {LEAST_UNITS_AN_EXAMPLE} units an example of the batch"
        ));
    }
    let norm = BatchNorm::new(function, batch).ok_or(too_small)?;
    if config.training.loss == Loss::LinearProbe && norm.swallows_common_gradients() {
        return Err(
            "linear layers with batch norm, which swallow the gradient of a linear probe, are not predicted".to_owned()
        );
    }
    Ok(Unit::Batch(norm))
}

/// What is known of the numbers that go from layer to layer.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Signal {
    /// Their mean square.
    square: f64,
    /// Their mean square about their mean over the batch, by degree of freedom.
    spread: f64,
    /// Their mean over the units.
    mean: f64,
    /// The share of the data in what sets examples apart, with batch norm.
    of_the_data: f64,
}

impl Signal {
    /// Behind weights of this variance from `inputs` numbers, and biases.
    fn affine(self, inputs: usize, weights: f64, biases: f64) -> Self {
        let gain = inputs as f64 * weights;
        Self { square: gain * self.square + biases, spread: gain * self.spread, mean: 0.0, ..self }
    }
}

/// Normalization and activation function of a layer.
#[derive(Clone, Copy, Debug)]
enum Unit {
    Free,
    Layer,
    Batch(BatchNorm),
}

impl Unit {
    /// The moments of the activation function, whose input has the variance 1 behind normalization.
    fn moments(self, function: ActivationFunction, z: Signal) -> Moments {
        moments(function, if matches!(self, Self::Free) { z.square } else { 1.0 })
    }

    fn forward(self, Passed { z, moments: Moments { mean, square, .. } }: Passed) -> Signal {
        match self {
            // Without batch norm nobody asks for the others.
            Self::Free | Self::Layer => Signal { square, spread: 0.0, mean, of_the_data: 0.0 },
            Self::Batch(norm) => Signal {
                square: norm.square,
                spread: norm.centered_square,
                mean: norm.mean,
                of_the_data: z.of_the_data * norm.linear_share,
            },
        }
    }

    fn backward(self, gradient: Gradient, Passed { z, moments }: Passed) -> Gradient {
        match self {
            Self::Free => gradient * moments.derivative_square,
            Self::Layer => gradient * (moments.derivative_square / z.square),
            Self::Batch(norm) => norm.backward(gradient, z.spread),
        }
    }

    /// The variance that normalization divides by.
    fn normalized_variance(self, z: Signal) -> Option<f64> {
        match self {
            Self::Free => None,
            Self::Layer => Some(z.square),
            Self::Batch(_) => Some(z.spread),
        }
    }
}

/// What a layer normalizes and activates.
#[derive(Clone, Copy, Debug)]
struct Passed {
    z: Signal,
    moments: Moments,
}

impl Passed {
    /// The variance over seeds that a layer of one unit adds to ln |delta|^2: the mean square over units of the products of a
    /// Gaussian number and the slope spreads by 3 E[phi'^4] / E[phi'^2]^2 - 1 (for ReLU 5: Hanin and Nica 2019, theorem 1).
    fn spread(&self) -> f64 {
        3.0 * self.moments.derivative_kurtosis - 1.0
    }
}

/// What inputs leave on their way to the outputs.
#[derive(Default)]
struct Way {
    /// Of each layer, in the order of the pass; of residual networks the end among them.
    layers: Vec<Passed>,
    /// What each block of a residual network begins with, and what the last one hands on.
    blocks: Vec<Signal>,
}

/// Goes to the outputs and back.
struct Walk<'a> {
    network: &'a NetworkConfig,
    unit: Unit,
    examples: &'a Examples,
    batch: usize,
    /// The variance over seeds of ln |delta|^2 of the first layer.
    spread: f64,
    problem: Option<String>,
    /// As [`first_tie`].
    first_tie: f64,
}

impl Walk<'_> {
    fn weights(&self, inputs: usize, units: usize) -> f64 {
        weight_variance(self.network, inputs, units).unwrap_or(0.0)
    }

    fn biases(&self, inputs: usize) -> f64 {
        bias_variance(self.network, inputs).unwrap_or(0.0)
    }

    /// Behind a layer of weights.
    fn affine(&self, x: Signal, inputs: usize, units: usize) -> Signal {
        x.affine(inputs, self.weights(inputs, units), self.biases(inputs))
    }

    /// What a layer makes of its pre-activations, which are kept for the way back.
    fn activate(&mut self, z: Signal, way: &mut Way) -> Signal {
        if !(LEAST_VARIANCE..=LARGEST_VARIANCE).contains(&z.square) {
            self.problem = Some("pre-activations leave f32, or are 0".to_owned());
        }
        let epsilon = self.network.norm_epsilon();
        if self.unit.normalized_variance(z).is_some_and(|variance| variance < LEAST_VARIANCE_BY_EPSILON * epsilon) {
            self.problem = Some(
                "pre-activations whose variance is not far above `network.norm_epsilon` are not predicted".to_owned(),
            );
        }
        let passed = Passed { z, moments: self.unit.moments(self.network.function(), z) };
        way.layers.push(passed);
        self.unit.forward(passed)
    }

    /// From inputs of this squared norm to the outputs, or to what the last hidden layer hands on.
    fn forward(&mut self, input_square: f64) -> (Way, Signal) {
        let mut way = Way::default();
        let features = self.examples.features as f64;
        let freedom = (self.batch as f64 - 1.0).max(1.0);
        let inputs = Signal {
            square: input_square / features,
            spread: self.examples.centered_square / (freedom * features),
            mean: 0.0,
            of_the_data: 1.0,
        };
        let last = match self.network.kind {
            NetworkKind::Residual => self.forward_blocks(inputs, &mut way),
            _ => self.forward_layers(inputs, &mut way),
        };
        let outputs = match self.examples.outputs {
            Some(outputs) => self.affine(last, self.network.last_width(), outputs),
            None => last,
        };
        (way, outputs)
    }

    fn forward_layers(&mut self, inputs: Signal, way: &mut Way) -> Signal {
        let mut count = self.examples.features;
        self.network.layer_widths().into_iter().fold(inputs, |x, units| {
            let z = self.affine(x, count, units);
            count = units;
            self.activate(z, way)
        })
    }

    fn forward_blocks(&mut self, inputs: Signal, way: &mut Way) -> Signal {
        let width = self.network.width();
        let mut x = inputs;
        if self.network.has_stem() {
            x = self.affine(inputs, self.examples.features, width);
        }
        let scale = self.scale();
        for _ in 0..self.block_count() {
            let mut branch = x;
            for _ in 0..self.network.block_layers() {
                branch = if self.is_pre_activation() {
                    let a = self.activate(branch, way);
                    self.affine(a, width, width)
                } else {
                    let z = self.affine(branch, width, width);
                    self.activate(z, way)
                };
            }
            way.blocks.push(x);
            let spread = x.spread + scale * scale * branch.spread;
            let of_the_data = x.spread * x.of_the_data + scale * scale * branch.spread * branch.of_the_data;
            x = Signal {
                square: x.square + 2.0 * scale * x.mean * branch.mean + scale * scale * branch.square,
                spread,
                mean: x.mean + scale * branch.mean,
                of_the_data: if spread > 0.0 { of_the_data / spread } else { 0.0 },
            };
        }
        way.blocks.push(x);
        if self.has_end() { self.activate(x, way) } else { x }
    }

    /// The gradient with respect to what the last hidden layer hands on; the outputs have this variance.
    fn start(&self, loss: Loss, variance: f64, correlation: f64) -> Gradient {
        let last = self.network.last_width();
        let count = self.examples.outputs.unwrap_or(0);
        let outputs = Outputs { variance, correlation, count, examples: self.batch };
        match output_gradient(loss, outputs) {
            Some(gradient) => gradient * (self.weights(last, count) * last as f64),
            // The direction of a linear probe has the squared norm of the width, and is the same for all examples.
            None => Gradient { centered: 0.0, common: last as f64 / self.batch as f64 },
        }
    }

    /// The square of the delta of each layer, the one nearest to the input first.
    fn backward(&mut self, way: &Way, start: Gradient) -> Vec<Delta> {
        let mut deltas = match self.network.kind {
            NetworkKind::Residual => self.backward_blocks(way, start),
            _ => self.backward_layers(way, start),
        };
        deltas.reverse();
        deltas
    }

    fn backward_layers(&mut self, way: &Way, start: Gradient) -> Vec<Delta> {
        let widths = self.network.layer_widths();
        let mut gradient = start;
        let mut deltas = Vec::with_capacity(widths.len());
        let mut spread = 0.0;
        let mut correlations = 0.0;
        let fluctuations = self.fluctuations(&way.layers, &widths);
        // The square of the scalar product of activations and gradient.
        let mut product = None;
        let mut ties = 0.0;
        for (index, units) in widths.iter().enumerate().rev() {
            let passed = way.layers[index];
            let Passed { z, moments: Moments { square, alignment, tie, .. } } = passed;
            let delta = self.unit.backward(gradient, passed);
            correlations += self.correlations(z);
            let inputs = index.checked_sub(1).map_or(self.examples.features, |below| widths[below]);
            let mut left_out = LeftOut { correlations, ..LeftOut::default() };
            if matches!(self.unit, Unit::Free) {
                let of_both = square * *units as f64 * gradient.square();
                let along = *product.get_or_insert(self.first_tie * of_both / *units as f64);
                // A random direction has one part of n; what goes beyond comes back with this weight.
                ties += (along / of_both - 1.0 / *units as f64).max(0.0) * tie;
                // Biases have no part in the product with what the layer was given.
                let of_weights = (z.square - self.biases(inputs)) / z.square;
                product = Some(along * (alignment * of_weights).powi(2));
                left_out.ties = ties;
                left_out.fluctuations = fluctuations.get(index).copied().unwrap_or(0.0);
            }
            deltas.push(Delta { layer: format!("hidden.{index}"), square: delta.square(), left_out });
            spread += passed.spread() / *units as f64;
            gradient = delta * (self.weights(inputs, *units) * inputs as f64);
        }
        self.spread = self.spread.max(spread);
        deltas
    }

    /// By how much E|delta|^2 of each layer of a plain network exceeds its prediction, because ln q of each layer varies over seeds
    /// and chi with it: half the variance of the sum of d ln(chi) / d ln(q), by linear propagation. None where chi is the same for
    /// all q.
    fn fluctuations(&self, passed: &[Passed], widths: &[usize]) -> Vec<f64> {
        let function = self.network.function();
        let is_homogeneous = matches!(
            function.kind,
            Activation::Relu | Activation::LeakyRelu | Activation::Prelu | Activation::Maxout | Activation::Identity
        );
        if is_homogeneous || !matches!(self.unit, Unit::Free) {
            return Vec::new();
        }
        // Of each layer: the slope of ln(chi), that of ln(q) of the next layer, and the variance that it adds to that.
        let layers: Vec<(f64, f64, f64)> = passed
            .iter()
            .zip(widths)
            .enumerate()
            .map(|(index, (Passed { z, moments: low }, units))| {
                let high = moments(function, z.square * (1.0 + STEP));
                let next = widths.get(index + 1).map_or(0.0, |next| self.weights(*units, *next) * *units as f64);
                // Without biases the whole variance of the next layer is that of the weights.
                let share = passed.get(index + 1).map_or(0.0, |after| next * low.square / after.z.square);
                let slope_of_chi = (high.derivative_square / low.derivative_square).ln() / STEP;
                let slope_of_q = share * (high.square / low.square).ln() / STEP;
                (slope_of_chi, slope_of_q, share * share * (low.kurtosis - 1.0) / *units as f64)
            })
            .collect();
        let mut variances = vec![0.0; layers.len()];
        for place in 1..layers.len() {
            let (_, slope, added) = layers[place - 1];
            variances[place] = added + slope * slope * variances[place - 1];
        }
        let (mut effect, mut behind) = (0.0, 0.0);
        let mut parts = vec![0.0; layers.len()];
        for (place, (of_chi, of_q, added)) in layers.iter().enumerate().rev() {
            behind += added * effect * effect;
            effect = of_chi + of_q * effect;
            parts[place] = 0.5 * (variances[place] * effect * effect + behind);
        }
        parts
    }

    fn backward_blocks(&mut self, way: &Way, start: Gradient) -> Vec<Delta> {
        let width = self.network.width();
        let gain = self.weights(width, width) * width as f64;
        let (scale, block_layers) = (self.scale(), self.network.block_layers());
        let layers = &way.layers;
        let mut gradient = start;
        if self.has_end()
            && let Some(end) = layers.last()
        {
            gradient = self.unit.backward(gradient, *end);
        }
        let mut deltas = Vec::new();
        let (mut whole_spread, mut correlations, mut ties) = (0.0, 0.0, 0.0);
        let of_last = way.blocks.last().map_or(0.0, |x| x.square) * gradient.square();
        for block in (0..self.block_count()).rev() {
            let mut branch = gradient * (scale * scale);
            let (mut spread, mut of_branch) = (0.0, 0.0);
            // Of the squares of x and of the gradient the product falls towards the input, and that of x and the gradient itself
            // does not, where x and the branch are homogeneous: x . g is the same before and behind a block.
            let of_block = way.blocks[block].square * gradient.square() * width as f64;
            let beyond = (self.first_tie * of_last / of_block - 1.0 / width as f64).max(0.0);
            for index in (block * block_layers..(block + 1) * block_layers).rev() {
                let passed = layers[index];
                spread += passed.spread() / width as f64;
                of_branch += self.correlations(passed.z);
                let delta;
                if self.is_pre_activation() {
                    delta = branch;
                    branch = self.unit.backward(delta * gain, passed);
                } else {
                    delta = self.unit.backward(branch, passed);
                    branch = delta * gain;
                }
                let left_out = LeftOut { correlations: correlations + of_branch, ties, fluctuations: 0.0 };
                deltas.push(Delta { layer: format!("hidden.{index}"), square: delta.square(), left_out });
            }
            // The part of the gradient that went through the branch has its spread.
            let share = branch.square() / (gradient.square() + branch.square());
            whole_spread += share * share * spread;
            correlations += share * of_branch;
            ties += share * beyond * layers[block * block_layers].moments.tie;
            gradient = gradient + branch;
        }
        self.spread = self.spread.max(whole_spread);
        if self.network.has_stem() {
            let left_out = LeftOut { correlations, ties, fluctuations: 0.0 };
            deltas.push(Delta { layer: "stem".to_owned(), square: gradient.square(), left_out });
        }
        deltas
    }

    /// How much the correlations of the data change |delta|^2 on its way through a layer with batch norm: the inverse of the
    /// variance of few directions is larger, on average, than that of many.
    fn correlations(&self, z: Signal) -> f64 {
        match self.unit {
            Unit::Batch(_) => z.of_the_data.powi(2) * self.examples.anisotropy / (self.batch as f64 - 1.0),
            _ => 0.0,
        }
    }

    fn block_count(&self) -> usize {
        self.network.depth / self.network.block_layers()
    }

    fn scale(&self) -> f64 {
        self.network.branch_scale(self.block_count())
    }

    fn is_pre_activation(&self) -> bool {
        self.network.block_order() == BlockOrder::PreActivation
    }

    fn has_end(&self) -> bool {
        self.is_pre_activation() && self.examples.outputs.is_some()
    }
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{
        BatchSize, BiasInit, DataConfig, DataSet, PretrainingConfig, ProbeConfig, ThroughputConfig, TrainingConfig,
        TrainingLength, WeightInit,
    };

    /// Plain networks of He's ReLU, whose gradients keep their norm.
    fn config(depth: usize, width: usize) -> RunConfig {
        RunConfig {
            data: DataConfig::default(),
            network: NetworkConfig::plain(depth, width, Activation::Relu, WeightInit::He),
            training: TrainingConfig { loss: Loss::LinearProbe, ..TrainingConfig::sgd(0.1, TrainingLength::Steps(1)) },
            probe: ProbeConfig::default(),
            throughput: ThroughputConfig::default(),
        }
    }

    fn examples(count: usize) -> Examples {
        Examples {
            features: 100,
            squares: vec![100.0; count],
            centered_square: 100.0 * count as f64,
            ..Examples::default()
        }
    }

    fn predicted(config: &RunConfig, examples: &Examples) -> Vec<f64> {
        let prediction = predict(config, examples);
        assert_eq!(prediction.reason, None);
        prediction.deltas.into_iter().map(|(_, delta)| delta).collect()
    }

    #[track_caller]
    fn assert_reason(config: &RunConfig, examples: &Examples, reason: &str) {
        let prediction = predict(config, examples);
        assert!(prediction.deltas.is_empty(), "{:?}", prediction.deltas);
        assert!(prediction.reason.as_deref().is_some_and(|found| found.contains(reason)), "{:?}", prediction.reason);
    }

    /// Half of the units pass the direction of the probe on, of which each has the square 1, and the loss is a mean over B examples.
    #[test]
    fn a_linear_probe_of_he_relu_leaves_half_the_width_in_every_layer() {
        let deltas = predicted(&config(5, 128), &examples(4));
        assert_eq!(deltas.len(), 5);
        for delta in deltas {
            assert!((delta - (128.0_f64 / 2.0 / 4.0).sqrt()).abs() < 1e-9, "{delta}");
        }
    }

    #[test]
    fn every_layer_multiplies_by_the_root_of_its_own_chi() {
        let mut tanh = config(8, 100);
        tanh.network.activation = Activation::Tanh;
        tanh.network.weight_init = WeightInit::Lecun;
        let deltas = predicted(&tanh, &examples(1));
        let mut q = 1.0;
        let chis: Vec<f64> = (0..8)
            .map(|_| {
                let found = moments(tanh.network.function(), q);
                q = found.square;
                found.derivative_square
            })
            .collect();
        assert!((deltas[7] - (100.0 * chis[7]).sqrt()).abs() < 1e-9);
        for (layer, pair) in deltas.windows(2).enumerate() {
            assert!((pair[0] / pair[1] - chis[layer].sqrt()).abs() < 1e-9, "layer {layer}");
        }
    }

    #[test]
    fn inputs_of_different_norms_are_predicted_each_by_itself() {
        let mut tanh = config(2, 100);
        tanh.network.activation = Activation::Tanh;
        let of = |squares: &[f64]| predicted(&tanh, &Examples { squares: squares.to_vec(), ..examples(1) })[0].powi(2);
        let (small, large) = (of(&[10.0, 10.0]), of(&[400.0, 400.0]));
        assert!((of(&[10.0, 400.0]) - f64::midpoint(small, large)).abs() < 1e-9 * small);
        assert!(small > 1.2 * large);
    }

    /// x + W relu(x), He: the square of the gradient doubles a block; the delta is the gradient behind the block.
    #[test]
    fn residual_gradients_double_in_every_block_and_reach_the_stem() {
        let mut residual = config(6, 128);
        residual.network.kind = NetworkKind::Residual;
        let deltas = predicted(&residual, &examples(1));
        assert_eq!(deltas.len(), 7);
        assert!((deltas[6] - 128.0_f64.sqrt()).abs() < 1e-9);
        for pair in deltas.windows(2).skip(1) {
            assert!((pair[0] / pair[1] - 2.0_f64.sqrt()).abs() < 1e-9);
        }
        let layers: Vec<String> = predict(&residual, &examples(1)).deltas.into_iter().map(|(layer, _)| layer).collect();
        assert_eq!(layers[..2], ["stem", "hidden.0"]);
    }

    #[test]
    fn batch_norm_multiplies_by_its_rate_and_the_layers_of_the_data_are_left_out() {
        let mut normalized = config(12, 256);
        normalized.network.norm = Norm::Batch;
        normalized.training.batch_size = Some(BatchSize::Examples(64));
        let rate = BatchNorm::new(normalized.network.function(), 64).expect("known").gradient_factor().sqrt();
        let deltas = predicted(&normalized, &examples(64));
        for pair in deltas.windows(2).take(10).skip(1) {
            assert!((pair[0] / pair[1] / rate - 1.0).abs() < 1e-9);
        }
        let on_a_line = Examples { anisotropy: 30.0, ..examples(64) };
        let prediction = predict(&normalized, &on_a_line);
        assert!(!prediction.deltas.is_empty() && prediction.deltas.len() < 12);
        let reason = prediction.reason.expect("some are left out");
        assert!(reason.starts_with(&format!("layers before {}", prediction.deltas[0].0)), "{reason}");
    }

    #[test]
    fn where_theory_does_not_hold_there_is_a_reason_and_no_number() {
        let plain = config(5, 128);
        let with = |change: &dyn Fn(&mut RunConfig)| {
            let mut config = plain.clone();
            change(&mut config);
            config
        };
        let network = |change: &dyn Fn(&mut NetworkConfig)| with(&|config: &mut RunConfig| change(&mut config.network));
        let batch = examples(32);
        assert_reason(&config(5, 63), &batch, "fewer than 64 units");
        assert_reason(&config(60, 64), &batch, "so many and so narrow");
        assert_reason(&network(&|network| network.kind = NetworkKind::Recurrent), &batch, "recurrent");
        assert_reason(&network(&|network| network.kind = NetworkKind::Convolutional), &batch, "convolutional");
        assert_reason(
            &network(&|network| network.weight_init = WeightInit::Zero),
            &batch,
            "weights that are not drawn",
        );
        assert_reason(&network(&|network| network.bias_init = BiasInit::Constant), &batch, "biases");
        assert_reason(&network(&|network| network.weight_scale = Some(1e20)), &batch, "leave f32");
        let on_points = |weight_init: WeightInit| {
            with(&|config: &mut RunConfig| {
                (config.data.set, config.data.features) = (DataSet::Gaussian, Some(2));
                config.network.weight_init = weight_init;
            })
        };
        let few_features = Examples { features: 2, ..batch.clone() };
        assert_reason(&on_points(WeightInit::Burn), &few_features, "not Gaussian");
        assert_eq!(predict(&on_points(WeightInit::He), &few_features).reason, None);
        let normalized = |norm, change: &dyn Fn(&mut NetworkConfig)| {
            network(&|network: &mut NetworkConfig| {
                network.norm = norm;
                change(network);
            })
        };
        let of_batch = |count: usize| {
            let mut config = normalized(Norm::Batch, &|_| {});
            config.training.batch_size = Some(BatchSize::Examples(count));
            config
        };
        assert_reason(&of_batch(15), &examples(15), "at least 16 examples");
        assert_reason(&of_batch(65), &examples(65), "2 units an example");
        assert_reason(&normalized(Norm::Layer, &|network| network.depth = 20), &batch, "so many and so narrow");
        let saturated = with(&|config: &mut RunConfig| {
            config.training.loss = Loss::Quadratic;
            config.network.weight_scale = Some(4.0);
        });
        assert_reason(&saturated, &Examples { outputs: Some(10), ..batch.clone() }, "saturated");
        let nothing = Examples { squares: vec![0.0; 4], ..batch.clone() };
        assert_reason(&plain, &nothing, "or are 0");
        let vanishing = network(&|network| network.weight_scale = Some(1e-9));
        let reason = predict(&vanishing, &batch).reason.expect("a reason");
        assert!(reason.contains("leave f32"), "{reason}");
        let after = normalized(Norm::Layer, &|network| network.norm_place = Some(NormPlace::AfterActivation));
        assert_reason(&after, &batch, "after the activation function");
        assert_reason(&normalized(Norm::Layer, &|network| network.activation = Activation::Maxout), &batch, "maxout");
        assert_reason(&normalized(Norm::Layer, &|network| network.weight_scale = Some(1e-3)), &batch, "norm_epsilon");
        assert_reason(
            &normalized(Norm::Batch, &|network| network.activation = Activation::Identity),
            &batch,
            "swallow",
        );
        let trained =
            |change: &dyn Fn(&mut TrainingConfig)| with(&|config: &mut RunConfig| change(&mut config.training));
        assert_reason(&trained(&|training| training.start_from = Some("a".into())), &batch, "trained before");
        let pretraining = |training: &mut TrainingConfig| {
            training.pretraining = Some(toml::from_str::<PretrainingConfig>(PRETRAINING).expect("valid"));
        };
        assert_reason(&trained(&pretraining), &batch, "trained before");
        let residual = |change: &dyn Fn(&mut RunConfig)| {
            with(&|config: &mut RunConfig| {
                config.network.kind = NetworkKind::Residual;
                change(config);
            })
        };
        let post = residual(&|config| config.network.block_order = Some(BlockOrder::PostActivation));
        assert_reason(&post, &batch, "after the addition");
        let without_stem = residual(&|config| config.network.stem = Some(false));
        assert_reason(&without_stem, &batch, "without a stem");
        let gaussian = residual(&|config| {
            config.network.stem = Some(false);
            config.data.set = DataSet::Gaussian;
        });
        assert_eq!(predict(&gaussian, &batch).reason, None);
    }

    const PRETRAINING: &str = "method = \"autoencoder\"\nlearning_rate = 0.1\nepochs = 1";

    /// Every layer of x + relu(W x) hands on more than three times the variance and twice the gradient: the gradient turns.
    #[test]
    fn blocks_whose_outputs_grow_faster_than_gradients_are_predicted_near_the_output_alone() {
        let mut residual = config(12, 128);
        residual.network.kind = NetworkKind::Residual;
        residual.network.block_order = Some(BlockOrder::ActivationBeforeAddition);
        let prediction = predict(&residual, &examples(32));
        let layers = prediction.deltas.len();
        assert!(layers > 0 && layers < 8, "{layers}");
        assert!(prediction.reason.is_some_and(|reason| reason.contains("turns towards")));
    }
}
