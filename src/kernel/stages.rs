//! Several layers at once.
//!
//! Of small layers a node each of Burn's graph costs more than what they compute, and whoever computes them in pieces waits for the
//! others after every piece. Between two normalizations no example depends on another one: the fused form for flex (`flex_stages`)
//! takes some rows through all of these layers on one thread, forward and backward, and is one node of the graph (`flex_node`).
//!
//! The stock form is one operation a stage.

use burn::backend::Dispatch;
use burn::backend::tensor::FloatTensor;
use burn::tensor::Tensor;

use super::dense::{DenseForm, DenseParameters, Elementwise, dense, stock_elementwise};
#[cfg(feature = "flex")]
use super::flex_node;
use super::layer::{Activated, NormForm, Normalized, normalize};
use crate::config::Kernels;

/// The most parameters that the stages of one node have: Burn's graph keeps the parents of a node in an array.
pub const MOST_PARAMETERS: usize = 254;

/// Layers of more units are better off by themselves, where each thread computes some columns for all examples.
pub const MOST_UNITS: usize = 256;

/// What happens to the output of the stage before.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Stage {
    /// `phi(x W + b)`. The parameters are the weights, and the bias and the slope if there are any.
    Dense {
        /// phi
        function: Elementwise,
        /// Whether there is a bias.
        has_bias: bool,
        /// Whether there is a learned slope.
        has_slope: bool,
    },
    /// `phi(gamma (x - mean) / sqrt(variance + epsilon) + beta)` with the moments of the batch. The parameters are gamma and beta.
    Norm {
        /// What is added to the variance.
        epsilon: f64,
        /// phi
        function: Option<Activated>,
    },
    /// `phi(shortcut + scale x)`, without parameters.
    Sum {
        /// What is added.
        shortcut: Shortcut,
        /// The factor.
        scale: f64,
        /// phi, which has no learned slope.
        function: Elementwise,
    },
}

/// Where a shortcut begins. Shortcuts do not overlap: it is not before the sum of the last one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shortcut {
    /// There is none.
    None,
    /// At the input of the first stage.
    Input,
    /// At the output of a stage, by its number.
    Output(usize),
}

impl Stage {
    /// The number of its parameters.
    pub fn parameters(self) -> usize {
        match self {
            Self::Dense { has_bias, has_slope, .. } => 1 + usize::from(has_bias) + usize::from(has_slope),
            Self::Norm { .. } => 2,
            Self::Sum { .. } => 0,
        }
    }
}

/// What a stage leaves.
#[derive(Clone, Debug)]
pub struct StageLeft {
    /// Its output, `[seeds x batch, units]`. In the graph is that of the last stage, and none of the others in the fused form.
    pub output: Tensor<2>,
    /// Of a normalization, the mean and the variance of the batch, `[seeds, units]`, outside the graph.
    pub moments: Option<[Tensor<2>; 2]>,
}

/// Stages and their parameters, one after the other.
#[derive(Clone, Debug, Default)]
pub struct Stages {
    stages: Vec<Stage>,
    parameters: Vec<FloatTensor<Dispatch>>,
}

impl Stages {
    /// Adds [`Stage::Dense`].
    ///
    /// # Shapes
    ///
    /// - weight: `[seeds x inputs, units]`, bias: `[seeds x units]`, slope: `[seeds]`
    pub fn dense(&mut self, parameters: DenseParameters, function: Elementwise) {
        let DenseParameters { weight, bias, slope } = parameters;
        self.stages.push(Stage::Dense { function, has_bias: bias.is_some(), has_slope: slope.is_some() });
        self.parameters.push(weight.into_dispatch());
        self.parameters.extend([bias, slope].into_iter().flatten().map(Tensor::into_dispatch));
    }

    /// Adds [`Stage::Norm`].
    ///
    /// # Shapes
    ///
    /// - gamma, beta: `[seeds x units]`
    pub fn norm(&mut self, gamma: Tensor<1>, beta: Tensor<1>, epsilon: f64, function: Option<Activated>) {
        self.stages.push(Stage::Norm { epsilon, function });
        self.parameters.extend([gamma.into_dispatch(), beta.into_dispatch()]);
    }

    /// Adds [`Stage::Sum`].
    pub fn sum(&mut self, shortcut: Shortcut, scale: f64, function: Elementwise) {
        self.stages.push(Stage::Sum { shortcut, scale, function });
    }

    /// The number of stages.
    pub fn len(&self) -> usize {
        self.stages.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.stages.is_empty()
    }

    /// The number of parameters, at most [`MOST_PARAMETERS`].
    pub fn parameters(&self) -> usize {
        self.parameters.len()
    }

    /// What every stage leaves. In the fused form the gradient of `offset`, a leaf whose value is not looked at, is that with respect to
    /// `x W + b` of all dense stages, one after the other, `[1, their numbers]`; the stock form leaves it alone.
    ///
    /// # Shapes
    ///
    /// - x: `[seeds x batch, inputs]`
    ///
    /// # Panics
    ///
    /// If there are more than [`MOST_PARAMETERS`] parameters.
    pub fn run(self, x: Tensor<2>, offset: Option<Tensor<2>>, seeds: usize, kernels: Kernels) -> Vec<StageLeft> {
        #[cfg(feature = "flex")]
        if kernels == Kernels::Fused {
            let form = super::flex_stages::StagesForm { stages: self.stages.clone(), seeds };
            if let Some(left) = flex_node::run(x.clone(), &self.parameters, offset.clone(), form) {
                return left;
            }
        }
        let _ = (offset, kernels);
        self.stock(x, seeds)
    }

    fn stock(self, x: Tensor<2>, seeds: usize) -> Vec<StageLeft> {
        let kernels = Kernels::Stock;
        let mut parameters = self.parameters.into_iter();
        let mut outputs: Vec<Tensor<2>> = Vec::with_capacity(self.stages.len());
        let mut left = Vec::with_capacity(self.stages.len());
        for stage in self.stages {
            let input = outputs.last().unwrap_or(&x).clone();
            let mut vector =
                |is_there: bool| if is_there { parameters.next().map(Tensor::<1>::from_dispatch) } else { None };
            let mut moments = None;
            let output = match stage {
                Stage::Dense { function, has_bias, has_slope } => {
                    let weight = vector(true).map(|weight| Tensor::<2>::from_dispatch(weight.into_dispatch()));
                    let (bias, slope) = (vector(has_bias), vector(has_slope));
                    let Some(weight) = weight else {
                        break;
                    };
                    let form = DenseForm { function, seeds, kernels };
                    dense(input, DenseParameters { weight, bias, slope }, None, form)
                }
                Stage::Norm { epsilon, function } => {
                    let Some((gamma, beta)) = vector(true).zip(vector(true)) else {
                        break;
                    };
                    let form = NormForm { function, seeds, kernels };
                    let Normalized { output, mean, variance } = normalize(input, gamma, beta, epsilon, vec![0], form);
                    moments = Some([mean, variance]);
                    output
                }
                Stage::Sum { shortcut, scale, function } => {
                    let scaled = if scale == 1.0 { input } else { input * scale };
                    let z = match shortcut {
                        Shortcut::None => scaled,
                        Shortcut::Input => x.clone() + scaled,
                        Shortcut::Output(from) => outputs[from].clone() + scaled,
                    };
                    let form = DenseForm { function, seeds, kernels };
                    Tensor::from_dispatch(stock_elementwise::<Dispatch>(z.into_dispatch(), None, form))
                }
            };
            left.push(StageLeft { output: output.clone(), moments });
            outputs.push(output);
        }
        left
    }
}
