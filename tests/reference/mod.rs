//! The forward pass of every family in f64 and in plain loops: no Burn, no tensors, no backward pass.
//!
//! It is written from what the config's keys say of themselves and from their papers, and shares no code with
//! `src/network`. Derivatives are differences of it: what is looked for is moved by a little, wherever it stands.

use std::collections::BTreeMap;

use gradmark::config::{Activation, BlockOrder, Loss, NetworkKind, Norm};

/// What a config says of a network.
#[derive(Clone, Debug)]
pub struct Form {
    pub kind: NetworkKind,
    pub depth: usize,
    pub width: usize,
    pub activation: Activation,
    /// The slope below 0 of leaky ReLU.
    pub slope: f64,
    pub pieces: usize,
    pub norm: Norm,
    pub norms_after_activation: bool,
    pub norm_epsilon: f64,
    pub norm_momentum: f64,
    pub block_order: BlockOrder,
    pub block_layers: usize,
    pub branch_scale: f64,
    pub has_stem: bool,
    pub has_shortcuts: bool,
    pub loss: Loss,
}

/// Numbers of every example, channel and pixel, in this order. A fully connected layer's units are channels of one pixel.
#[derive(Clone, Debug)]
pub struct Signal {
    pub batch: usize,
    pub channels: usize,
    pub side: usize,
    pub values: Vec<f64>,
}

impl Signal {
    /// One row an example.
    pub fn rows(batch: usize, values: Vec<f64>) -> Self {
        Self { batch, channels: values.len() / batch, side: 1, values }
    }

    fn zeros(batch: usize, channels: usize, side: usize) -> Self {
        Self { batch, channels, side, values: vec![0.0; batch * channels * side * side] }
    }

    fn pixels(&self) -> usize {
        self.side * self.side
    }

    fn place(&self, example: usize, channel: usize, pixel: usize) -> usize {
        (example * self.channels + channel) * self.pixels() + pixel
    }

    fn at(&self, example: usize, channel: usize, pixel: usize) -> f64 {
        self.values[self.place(example, channel, pixel)]
    }

    /// The numbers at which `f` of example, channel and pixel stands.
    fn filled(batch: usize, channels: usize, side: usize, f: impl Fn(usize, usize, usize) -> f64) -> Self {
        let mut signal = Self::zeros(batch, channels, side);
        for example in 0..batch {
            for channel in 0..channels {
                for pixel in 0..side * side {
                    let place = signal.place(example, channel, pixel);
                    signal.values[place] = f(example, channel, pixel);
                }
            }
        }
        signal
    }
}

/// A parameter: its shape and its numbers, row by row.
#[derive(Clone, Debug)]
pub struct Parameter {
    pub shape: Vec<usize>,
    pub values: Vec<f64>,
}

/// The parameters by their paths.
pub type Parameters = BTreeMap<String, Parameter>;

/// Mean and variance of every channel, by the path of the normalization.
pub type Statistics = BTreeMap<String, (Vec<f64>, Vec<f64>)>;

/// Where numbers can be moved besides parameters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Site {
    /// `W x + b` of a layer: the derivative is its delta.
    PreActivation,
    /// What a layer gets.
    Input,
}

/// A number that is moved.
#[derive(Clone, Debug)]
pub struct Nudge<'a> {
    pub site: Site,
    pub layer: &'a str,
    pub element: usize,
    pub by: f64,
}

/// What a forward pass leaves behind.
#[derive(Debug)]
pub struct Outcome {
    pub outputs: Signal,
    /// How many numbers can be moved, by site and layer.
    pub sites: BTreeMap<(Site, String), usize>,
    /// The side of its kink on which each number lies, or the piece of maxout that wins.
    pub sides: Vec<u8>,
    /// Of batch norm: the mean and the unbiased variance.
    pub statistics: Statistics,
}

/// A network in the middle of a forward pass.
struct Forward<'a> {
    form: &'a Form,
    parameters: &'a Parameters,
    /// The running statistics, in evaluation.
    running: Option<&'a Statistics>,
    nudge: Option<&'a Nudge<'a>>,
    sites: BTreeMap<(Site, String), usize>,
    sides: Vec<u8>,
    statistics: Statistics,
}

/// The outputs for inputs, in training or, with `running` statistics, in evaluation.
pub fn forward(
    form: &Form,
    parameters: &Parameters,
    inputs: &Signal,
    running: Option<&Statistics>,
    nudge: Option<&Nudge<'_>>,
) -> Outcome {
    let mut pass = Forward {
        form,
        parameters,
        running,
        nudge,
        sites: BTreeMap::new(),
        sides: Vec::new(),
        statistics: Statistics::new(),
    };
    let outputs = match form.kind {
        NetworkKind::Residual => pass.residual(inputs.clone()),
        NetworkKind::Convolutional => pass.convolutional(inputs),
        NetworkKind::Plain | NetworkKind::Chain | NetworkKind::Autoencoder => pass.plain(inputs.clone()),
        NetworkKind::Recurrent => panic!("it reads sequences, not signals"),
    };
    Outcome { outputs, sites: pass.sites, sides: pass.sides, statistics: pass.statistics }
}

fn hidden(index: usize) -> String {
    format!("hidden.{index}")
}

impl Forward<'_> {
    fn plain(&mut self, inputs: Signal) -> Signal {
        // The code of an autoencoder, in its middle, is linear.
        let code = (self.form.kind == NetworkKind::Autoencoder).then_some(self.form.depth / 2);
        let x = (0..self.form.depth).fold(inputs, |x, index| {
            if code != Some(index) {
                return self.layer(&hidden(index), x, 1);
            }
            let x = self.site(Site::Input, &hidden(index), x);
            self.affine(&hidden(index), &x, 1)
        });
        let x = self.site(Site::Input, "output", x);
        self.output(x)
    }

    /// He et al. 2016a and 2016b.
    fn residual(&mut self, inputs: Signal) -> Signal {
        let mut x = inputs;
        if self.form.has_stem {
            x = self.site(Site::Input, "stem", x);
            x = self.affine("stem", &x, 1);
        }
        for first in (0..self.form.depth).step_by(self.form.block_layers) {
            x = self.block(first, self.form.block_layers, x, 1);
        }
        let x = self.site(Site::Input, "output", x);
        let x = self.end(x);
        self.output(x)
    }

    /// He et al. 2016a, section 4.2.
    fn convolutional(&mut self, inputs: &Signal) -> Signal {
        let mut x = Signal { batch: inputs.batch, channels: 1, side: 8, values: inputs.values.clone() };
        let is_pre_activation = self.form.has_shortcuts && self.form.block_order == BlockOrder::PreActivation;
        if is_pre_activation {
            x = self.site(Site::Input, "hidden.0", x);
            x = self.affine("hidden.0", &x, 1);
        } else {
            x = self.layer("hidden.0", x, 1);
        }
        let blocks_a_stage = (self.form.depth - 2) / 6;
        for block in 0..3 * blocks_a_stage {
            let first = 1 + 2 * block;
            let stride = if block > 0 && block % blocks_a_stage == 0 { 2 } else { 1 };
            if self.form.has_shortcuts {
                x = self.block(first, 2, x, stride);
            } else {
                x = self.layer(&hidden(first), x, stride);
                x = self.layer(&hidden(first + 1), x, 1);
            }
        }
        let x = self.site(Site::Input, "output", x);
        let x = if is_pre_activation { self.end(x) } else { x };
        let pixels = x.pixels();
        let mean = |example, channel, _| (0..pixels).map(|p| x.at(example, channel, p)).sum::<f64>() / pixels as f64;
        self.output(Signal::filled(x.batch, x.channels, 1, mean))
    }

    /// A hidden layer outside of blocks.
    fn layer(&mut self, path: &str, x: Signal, stride: usize) -> Signal {
        let x = self.site(Site::Input, path, x);
        let z = self.affine(path, &x, stride);
        self.shape(path, z)
    }

    /// The layers from `first` on and a shortcut around them; `stride` is that of the first one.
    fn block(&mut self, first: usize, layers: usize, x: Signal, stride: usize) -> Signal {
        let x = self.site(Site::Input, &hidden(first), x);
        let mut branch = x.clone();
        for index in first..first + layers {
            let (path, is_last) = (hidden(index), index + 1 == first + layers);
            let stride = if index == first { stride } else { 1 };
            if index > first {
                branch = self.site(Site::Input, &path, branch);
            }
            if self.form.block_order == BlockOrder::PreActivation {
                branch = self.shape(&path, branch);
            }
            branch = self.affine(&path, &branch, stride);
            match self.form.block_order {
                BlockOrder::PreActivation => {}
                BlockOrder::PostActivation if is_last => {
                    branch = self.normalize(&path, branch);
                    let sum = self.add_shortcut(&x, &branch);
                    return self.activate(&path, &sum);
                }
                BlockOrder::PostActivation | BlockOrder::ActivationBeforeAddition => {
                    branch = self.shape(&path, branch);
                }
            }
        }
        self.add_shortcut(&x, &branch)
    }

    /// The identity, or where the branch has another shape, every second pixel and no new channels (option A).
    fn add_shortcut(&self, x: &Signal, branch: &Signal) -> Signal {
        let step = x.side / branch.side;
        Signal::filled(branch.batch, branch.channels, branch.side, |example, channel, pixel| {
            let (row, column) = (pixel / branch.side, pixel % branch.side);
            let kept =
                if channel < x.channels { x.at(example, channel, row * step * x.side + column * step) } else { 0.0 };
            kept + self.form.branch_scale * branch.at(example, channel, pixel)
        })
    }

    /// Behind pre-activation blocks, but not before a linear probe (He et al. 2016b, section 4.1).
    fn end(&mut self, x: Signal) -> Signal {
        let is_wanted = self.form.block_order == BlockOrder::PreActivation && self.form.loss != Loss::LinearProbe;
        if is_wanted { self.shape("end", x) } else { x }
    }

    fn output(&mut self, x: Signal) -> Signal {
        if self.form.loss == Loss::LinearProbe { x } else { self.product("output", &x, 1) }
    }

    /// Notes a place where numbers can be moved, and moves one.
    fn site(&mut self, site: Site, layer: &str, mut x: Signal) -> Signal {
        self.sites.insert((site, layer.to_owned()), x.values.len());
        if let Some(nudge) = self.nudge
            && (nudge.site, nudge.layer) == (site, layer)
        {
            x.values[nudge.element] += nudge.by;
        }
        x
    }

    fn affine(&mut self, path: &str, x: &Signal, stride: usize) -> Signal {
        let z = self.product(path, x, stride);
        self.site(Site::PreActivation, path, z)
    }

    /// `W x + b`, a full connection or a 3 x 3 convolution with a border of zeros.
    fn product(&self, path: &str, x: &Signal, stride: usize) -> Signal {
        let weight = &self.parameters[&format!("{path}.weight")];
        let bias = self.parameters.get(&format!("{path}.bias")).map(|bias| &bias.values);
        let bias = |unit: usize| bias.map_or(0.0, |bias| bias[unit]);
        if let [inputs, units] = weight.shape[..] {
            assert_eq!((x.channels, x.side), (inputs, 1), "{path}");
            return Signal::filled(x.batch, units, 1, |example, unit, _| {
                let terms = (0..inputs).map(|i| x.at(example, i, 0) * weight.values[i * units + unit]);
                bias(unit) + terms.sum::<f64>()
            });
        }
        assert_eq!(weight.shape[1..], [x.channels, 3, 3], "{path}");
        let side = x.side.div_ceil(stride);
        Signal::filled(x.batch, weight.shape[0], side, |example, unit, pixel| {
            let (row, column) = (pixel / side * stride, pixel % side * stride);
            let mut sum = bias(unit);
            for channel in 0..x.channels {
                for (tap, weight) in weight.values[(unit * x.channels + channel) * 9..][..9].iter().enumerate() {
                    // The tap in the middle looks at the pixel itself.
                    let (row, column) = (row + tap / 3, column + tap % 3);
                    if (1..=x.side).contains(&row) && (1..=x.side).contains(&column) {
                        sum += weight * x.at(example, channel, (row - 1) * x.side + column - 1);
                    }
                }
            }
            sum
        })
    }

    fn shape(&mut self, path: &str, x: Signal) -> Signal {
        if self.form.norms_after_activation {
            let a = self.activate(path, &x);
            self.normalize(path, a)
        } else {
            let z = self.normalize(path, x);
            self.activate(path, &z)
        }
    }

    fn normalize(&mut self, path: &str, x: Signal) -> Signal {
        if self.form.norm == Norm::None {
            return x;
        }
        let path = format!("{path}.norm");
        let gamma = &self.parameters[&format!("{path}.gamma")].values;
        let beta = &self.parameters[&format!("{path}.beta")].values;
        assert_eq!((gamma.len(), beta.len()), (x.channels, x.channels), "{path}");
        let moments = match (self.form.norm, self.running) {
            (Norm::Batch, Some(running)) => Moments::OfChannels(running[&path].clone()),
            (Norm::Batch, None) => {
                let (moments, unbiased) = batch_moments(&x);
                self.statistics.insert(path, (moments.0.clone(), unbiased));
                Moments::OfChannels(moments)
            }
            _ => Moments::OfExamples(example_moments(&x)),
        };
        let epsilon = self.form.norm_epsilon;
        Signal::filled(x.batch, x.channels, x.side, |example, channel, pixel| {
            let (mean, variance) = match &moments {
                Moments::OfChannels((mean, variance)) => (mean[channel], variance[channel]),
                Moments::OfExamples((mean, variance)) => (mean[example], variance[example]),
            };
            gamma[channel] * (x.at(example, channel, pixel) - mean) / (variance + epsilon).sqrt() + beta[channel]
        })
    }

    fn activate(&mut self, path: &str, z: &Signal) -> Signal {
        if self.form.activation == Activation::Maxout {
            return self.maxout(z);
        }
        let slope = match self.form.activation {
            Activation::Prelu => self.parameters[&format!("{path}.slope")].values[0],
            _ => self.form.slope,
        };
        let has_kink = matches!(
            self.form.activation,
            // SELU bends at 0; ELU does not, but its second derivative jumps, which differences feel too.
            Activation::Relu | Activation::LeakyRelu | Activation::Prelu | Activation::Selu | Activation::Elu
        );
        if has_kink {
            self.sides.extend(z.values.iter().map(|z| u8::from(*z > 0.0)));
        }
        let values = z.values.iter().map(|z| function(self.form.activation, slope, *z)).collect();
        Signal { values, ..z.clone() }
    }

    /// Goodfellow et al. 2013: unit u has the pieces u, u + units, u + 2 units, ...
    fn maxout(&mut self, z: &Signal) -> Signal {
        let pieces = self.form.pieces;
        let units = z.channels / pieces;
        let mut largest = Signal::zeros(z.batch, units, z.side);
        for example in 0..z.batch {
            for unit in 0..units {
                for pixel in 0..z.pixels() {
                    let of = |piece: usize| z.at(example, piece * units + unit, pixel);
                    let wins = (1..pieces).fold(0, |wins, piece| if of(piece) > of(wins) { piece } else { wins });
                    self.sides.push(wins as u8);
                    let place = largest.place(example, unit, pixel);
                    largest.values[place] = of(wins);
                }
            }
        }
        largest
    }
}

/// Means and variances, the latter with n in the denominator.
enum Moments {
    OfChannels((Vec<f64>, Vec<f64>)),
    OfExamples((Vec<f64>, Vec<f64>)),
}

fn moments(values: &[f64]) -> (f64, f64) {
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    (mean, values.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / count)
}

/// Of every channel over the batch and the pixels (Ioffe and Szegedy 2015, algorithms 1 and 2): the moments, and the
/// unbiased variances.
fn batch_moments(x: &Signal) -> ((Vec<f64>, Vec<f64>), Vec<f64>) {
    let count = (x.batch * x.pixels()) as f64;
    let of_channel = |channel: usize| {
        let values: Vec<f64> =
            (0..x.batch).flat_map(|example| (0..x.pixels()).map(move |pixel| x.at(example, channel, pixel))).collect();
        moments(&values)
    };
    let (means, variances): (Vec<f64>, Vec<f64>) = (0..x.channels).map(of_channel).unzip();
    let unbiased = variances.iter().map(|variance| variance * count / (count - 1.0)).collect();
    ((means, variances), unbiased)
}

/// Of every example over all its numbers (Ba et al. 2016, equation 3).
fn example_moments(x: &Signal) -> (Vec<f64>, Vec<f64>) {
    x.values.chunks(x.channels * x.pixels()).map(moments).unzip()
}

/// The functions as the config describes them.
pub fn function(activation: Activation, slope: f64, z: f64) -> f64 {
    match activation {
        Activation::Sigmoid => 1.0 / (1.0 + (-z).exp()),
        Activation::Tanh => 2.0 / (1.0 + (-2.0 * z).exp()) - 1.0,
        Activation::Relu => z.max(0.0),
        Activation::LeakyRelu | Activation::Prelu => z.max(0.0) + slope * z.min(0.0),
        Activation::Elu => z.max(0.0) + z.min(0.0).exp() - 1.0,
        Activation::Selu => 1.050_700_987_355_480_5 * (z.max(0.0) + 1.673_263_242_354_377_3 * (z.min(0.0).exp() - 1.0)),
        Activation::Gelu => z * (1.0 + libm::erf(z / 2.0_f64.sqrt())) / 2.0,
        Activation::Softplus => (1.0 + z.exp()).ln(),
        Activation::Identity | Activation::Maxout => z,
    }
}

/// The mean of the costs of all examples; of a critic the mean over generated points minus that over real ones, which are told
/// apart by the first of two targets.
pub fn cost(loss: Loss, outputs: &Signal, targets: &[f64]) -> f64 {
    if loss == Loss::Wasserstein {
        let mean_of = |side: f64| {
            let sides = outputs.values.iter().zip(targets.chunks(2));
            let on_side: Vec<f64> = sides.filter(|(_, target)| target[0] == side).map(|(output, _)| *output).collect();
            on_side.iter().sum::<f64>() / on_side.len() as f64
        };
        return mean_of(1.0) - mean_of(-1.0);
    }
    let sigmoid = |z: f64| 1.0 / (1.0 + (-z).exp());
    let example = |(z, t): (&[f64], &[f64])| -> f64 {
        let pairs = z.iter().zip(t);
        match loss {
            Loss::SoftmaxCrossEntropy => {
                let all: f64 = z.iter().map(|z| z.exp()).sum();
                pairs.map(|(z, t)| -t * (z.exp() / all).ln()).sum()
            }
            Loss::SigmoidCrossEntropy => pairs.map(|(z, t)| -t * sigmoid(*z).ln() - (1.0 - t) * sigmoid(-z).ln()).sum(),
            Loss::Quadratic => pairs.map(|(z, t)| (sigmoid(*z) - t).powi(2) / 2.0).sum(),
            Loss::SquaredError => pairs.map(|(z, t)| (z - t).powi(2)).sum(),
            Loss::LinearProbe => pairs.map(|(z, t)| z * t).sum(),
            Loss::Wasserstein => unreachable!("it has no cost of one example"),
        }
    };
    let examples = outputs.values.chunks(outputs.channels).zip(targets.chunks(outputs.channels));
    examples.map(example).sum::<f64>() / outputs.batch as f64
}
