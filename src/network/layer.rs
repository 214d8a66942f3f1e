//! A hidden layer: weights, normalization and activation function, in the order that the family wants.

use burn::module::{Module, Param};
use burn::tensor::module::conv2d;
use burn::tensor::ops::ConvOptions;
use burn::tensor::{Device, Tensor, TensorData};

use super::activation::{activate, elementwise};
use super::initializer::{self, Fan};
use super::norm::Norm;
use super::pass::Pass;
use super::together::Together;
use crate::config::{Activation, ActivationFunction, Kernels, NetworkConfig, NormPlace};
use crate::kernel::{self, DenseForm, DenseParameters, Elementwise, MOST_UNITS};

/// What all kinds of hidden layers have in common. `D` is the rank of their inputs.
pub trait Layer<const D: usize> {
    /// `x W + b`
    fn affine(&self, x: Tensor<D>) -> Tensor<D>;
    /// The normalization.
    fn norm(&self) -> Option<&Norm>;
    /// The learned slope of the activation function.
    fn slope(&self) -> Option<Tensor<1>>;
    /// The activation function, and whether normalization comes after it.
    fn shaping(&self) -> Shaping;

    /// `x W + b`, whose gradient the pass may want.
    fn linear(&self, x: Tensor<D>, pass: &mut Pass) -> Tensor<D> {
        pass.pre_activation(self.affine(x))
    }

    /// The whole layer: `x W + b`, normalization and activation function.
    fn forward(&self, x: Tensor<D>, pass: &mut Pass) -> Tensor<D> {
        let z = self.linear(x, pass);
        self.shape(z, pass)
    }

    /// Normalization without the activation function.
    fn normalize(&self, z: Tensor<D>, pass: &mut Pass) -> Tensor<D> {
        match self.norm() {
            Some(norm) => norm.forward(z, pass),
            None => z,
        }
    }

    /// The activation function without normalization; what comes out of it is what the probe sees.
    fn activate(&self, z: Tensor<D>, pass: &mut Pass) -> Tensor<D> {
        let shaping = self.shaping();
        let a = activate(shaping.function, self.slope(), z, shaping.kernels);
        pass.activation(&a);
        a
    }

    /// Normalization and activation function, or the other way round; neither in a linear layer.
    fn shape(&self, z: Tensor<D>, pass: &mut Pass) -> Tensor<D> {
        if self.shaping().is_linear {
            return z;
        }
        match self.shaping().norm_place {
            NormPlace::BeforeActivation => match self.norm() {
                Some(norm) => {
                    let a = norm.forward_and_activate(z, self.shaping().function, self.slope(), pass);
                    pass.activation(&a);
                    a
                }
                None => self.activate(z, pass),
            },
            NormPlace::AfterActivation => {
                let a = self.activate(z, pass);
                self.normalize(a, pass)
            }
        }
    }
}

/// The activation function, and where normalization stands.
#[derive(Clone, Copy, Debug)]
pub struct Shaping {
    /// The activation function.
    pub function: ActivationFunction,
    /// Where normalization stands.
    pub norm_place: NormPlace,
    /// Whether the layer has neither.
    pub is_linear: bool,
    /// Which form operations take.
    pub kernels: Kernels,
}

impl Shaping {
    pub(super) fn new(config: &NetworkConfig) -> Self {
        Self {
            function: config.function(),
            norm_place: config.norm_place(),
            is_linear: false,
            kernels: config.kernels(),
        }
    }

    /// Function and normalization in their order, as stages; `activated` is called between a function and what comes behind it.
    pub(super) fn join<'a>(
        self,
        norm: Option<&Norm>,
        together: &mut Together<'a>,
        activated: impl FnOnce(&mut Together<'a>),
    ) {
        let (before, behind) = match self.norm_place {
            NormPlace::BeforeActivation => (norm, None),
            NormPlace::AfterActivation => (None, norm),
        };
        together.normalize_and_activate(before, self.function);
        activated(together);
        behind.into_iter().for_each(|norm| together.normalize(norm));
    }
}

/// Sizes of a layer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Size {
    /// Numbers in an input; channels of an image.
    pub inputs: usize,
    /// Numbers that the layer hands on; channels of an image.
    pub outputs: usize,
    /// The number of the layer among the hidden ones.
    pub index: usize,
    /// What the layer normalizes and activates.
    pub shaped: Shaped,
}

/// What a layer normalizes and activates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shaped {
    /// Its pre-activations.
    Output,
    /// Its input, in pre-activation blocks.
    Input,
    /// Nothing: the layer is linear, or the next one does it. Parameters that no pass reaches would get no gradient, and a normalization that no
    /// pass reaches would take the statistics of the next one.
    Nothing,
}

impl Size {
    /// Units of the pre-activations: those of maxout count piece by piece.
    fn units(self, function: ActivationFunction) -> usize {
        self.outputs * function.pieces
    }

    fn normalized(self, config: &NetworkConfig) -> usize {
        match (self.shaped, config.norm_place()) {
            (Shaped::Input, _) => self.inputs,
            (_, NormPlace::BeforeActivation) => self.units(config.function()),
            (_, NormPlace::AfterActivation) => self.outputs,
        }
    }

    fn norm(self, config: &NetworkConfig, device: &Device) -> Option<Norm> {
        if self.shaped == Shaped::Nothing { None } else { Norm::init(config, self.normalized(config), device) }
    }

    fn slope(self, function: ActivationFunction, device: &Device) -> Option<Param<Tensor<1>>> {
        if self.shaped == Shaped::Nothing { None } else { learned_slope(function, device) }
    }
}

/// The learned slope of PReLU: one number a layer, for which He et al. 2015 found no loss against one a channel.
pub(super) fn learned_slope(function: ActivationFunction, device: &Device) -> Option<Param<Tensor<1>>> {
    let start = TensorData::new(vec![function.slope as f32], [1]);
    (function.kind == Activation::Prelu).then(|| Param::from_data(start, device))
}

/// What every kind of hidden layer starts from.
struct Drawn {
    /// Units of the pre-activations.
    units: usize,
    /// `[inputs of a unit, units]`, row by row.
    weight: Vec<f32>,
    bias: Option<Param<Tensor<1>>>,
    norm: Option<Norm>,
    slope: Option<Param<Tensor<1>>>,
    shaping: Shaping,
}

impl Drawn {
    /// Draws a layer whose units see so many pixels of each input.
    fn new(config: &NetworkConfig, size: Size, pixels: usize, seed: u64, path: &str, device: &Device) -> Self {
        let shaping = Shaping { is_linear: size.shaped == Shaped::Nothing, ..Shaping::new(config) };
        let function = shaping.function;
        let units = size.units(function);
        let fan = Fan { inputs: size.inputs * pixels, units, pieces: function.pieces, hidden: Some(size.index) };
        let bias = initializer::bias(config, fan, seed, &format!("{path}.bias"));
        Self {
            units,
            weight: initializer::weight(config, fan, seed, &format!("{path}.weight")),
            bias: bias.map(|bias| Param::from_data(bias, device)),
            norm: size.norm(config, device),
            slope: size.slope(function, device),
            shaping,
        }
    }
}

/// A fully connected layer.
#[derive(Module, Debug)]
pub struct DenseLayer {
    /// `[inputs, units]`
    pub weight: Param<Tensor<2>>,
    /// `[units]`, or none.
    pub bias: Option<Param<Tensor<1>>>,
    /// The normalization, if there is one.
    pub norm: Option<Norm>,
    /// `[1]`, the learned slope of PReLU.
    pub slope: Option<Param<Tensor<1>>>,
    #[module(skip)]
    shaping: Shaping,
    /// The networks of different seeds that lie one below the other: see [`kernel::LayerOps`].
    #[module(skip)]
    seeds: usize,
}

impl DenseLayer {
    /// Draws a layer; `path` names its streams of random numbers, such as `hidden.3`.
    pub(super) fn init(config: &NetworkConfig, size: Size, seed: u64, path: &str, device: &Device) -> Self {
        let drawn = Drawn::new(config, size, 1, seed, path, device);
        Self {
            weight: Param::from_data(TensorData::new(drawn.weight, [size.inputs, drawn.units]), device),
            bias: drawn.bias,
            norm: drawn.norm,
            slope: drawn.slope,
            shaping: drawn.shaping,
            seeds: 1,
        }
    }
}

impl DenseLayer {
    /// `phi(x W + b)`
    fn dense(&self, x: Tensor<2>, function: Elementwise, pass: &mut Pass) -> Tensor<2> {
        let offset = pass.delta_leaf(&x);
        let parameters = self.parameters(function);
        kernel::dense(x, parameters, offset, DenseForm { function, seeds: self.seeds, kernels: self.shaping.kernels })
    }

    fn parameters(&self, function: Elementwise) -> DenseParameters {
        let slope = self.slope().filter(|_| function == Elementwise::Prelu);
        DenseParameters { weight: self.weight.val(), bias: self.bias.as_ref().map(Param::val), slope }
    }

    /// The activation function, if it directly follows `x W + b`.
    fn function(&self) -> Option<Elementwise> {
        let is_normalized_first = self.norm.is_some() && self.shaping.norm_place == NormPlace::BeforeActivation;
        elementwise(self.shaping.function).filter(|_| !self.shaping.is_linear && !is_normalized_first)
    }

    /// Whether the layer can go through the graph together with others; `is_apart` says that its activation function does
    /// not directly follow its own pre-activations.
    pub(super) fn joins(&self, is_apart: bool) -> bool {
        let is_narrow = self.weight.shape()[1] <= MOST_UNITS;
        let function = elementwise(self.shaping.function);
        let has_form = match function {
            // A slope is learned with the weights before it.
            Some(Elementwise::Prelu) => self.shaping.is_linear || (!is_apart && self.function() == function),
            function => function.is_some(),
        };
        is_narrow && has_form
    }

    /// [`Layer::linear`] as a stage.
    pub(super) fn join_linear(&self, together: &mut Together<'_>) {
        together.dense(self.parameters(Elementwise::Identity), Elementwise::Identity);
    }

    /// [`Layer::shape`] as stages.
    pub(super) fn join_shape(&self, together: &mut Together<'_>) {
        if !self.shaping.is_linear {
            self.shaping.join(self.norm.as_ref(), together, Together::keep_activation);
        }
    }

    /// [`Layer::forward`] as stages.
    pub(super) fn join(&self, together: &mut Together<'_>) {
        let Some(function) = self.function() else {
            self.join_linear(together);
            return self.join_shape(together);
        };
        together.dense(self.parameters(function), function);
        together.keep_activation();
        if let Some(norm) = &self.norm {
            together.normalize(norm);
        }
    }

    pub(super) fn seeds(&self) -> usize {
        self.seeds
    }

    pub(super) fn set_seeds(&mut self, seeds: usize) {
        self.seeds = seeds;
        self.norm.iter_mut().for_each(|norm| norm.set_seeds(seeds));
    }

    /// Whether the layer has neither normalization nor activation function.
    pub fn is_linear(&self) -> bool {
        self.shaping.is_linear
    }
}

impl Layer<2> for DenseLayer {
    /// # Shapes
    ///
    /// - x: `[batch, inputs]`
    /// - returns: `[batch, units]`
    fn affine(&self, x: Tensor<2>) -> Tensor<2> {
        let bias = self.bias.as_ref().map(Param::val);
        kernel::affine(x, self.weight.val(), bias, self.seeds, self.shaping.kernels)
    }

    fn linear(&self, x: Tensor<2>, pass: &mut Pass) -> Tensor<2> {
        self.dense(x, Elementwise::Identity, pass)
    }

    /// What the layer hands on.
    ///
    /// # Shapes
    ///
    /// - x: `[batch, inputs]`
    /// - returns: `[batch, units]`
    fn forward(&self, x: Tensor<2>, pass: &mut Pass) -> Tensor<2> {
        let Some(function) = self.function() else {
            let z = self.linear(x, pass);
            return self.shape(z, pass);
        };
        let a = self.dense(x, function, pass);
        pass.activation(&a);
        if self.norm.is_some() { self.normalize(a, pass) } else { a }
    }

    fn norm(&self) -> Option<&Norm> {
        self.norm.as_ref()
    }

    fn slope(&self) -> Option<Tensor<1>> {
        self.slope.as_ref().map(Param::val)
    }

    fn shaping(&self) -> Shaping {
        self.shaping
    }
}

/// A 3 x 3 convolution with a border of zeros.
#[derive(Module, Debug)]
pub struct ConvLayer {
    /// `[channels out, channels in, 3, 3]`
    pub weight: Param<Tensor<4>>,
    /// `[channels out]`, or none.
    pub bias: Option<Param<Tensor<1>>>,
    /// The normalization, if there is one.
    pub norm: Option<Norm>,
    /// `[1]`, the learned slope of PReLU.
    pub slope: Option<Param<Tensor<1>>>,
    #[module(skip)]
    shaping: Shaping,
    #[module(skip)]
    stride: usize,
}

/// Pixels in a 3 x 3 kernel.
const KERNEL_PIXELS: usize = 9;

impl ConvLayer {
    /// Draws a layer; its initializer sees nine inputs a channel.
    pub(super) fn init(
        config: &NetworkConfig,
        size: Size,
        stride: usize,
        seed: u64,
        path: &str,
        device: &Device,
    ) -> Self {
        let drawn = Drawn::new(config, size, KERNEL_PIXELS, seed, path, device);
        let units = drawn.units;
        // Drawn as [inputs x 9, units]; a kernel holds the numbers of one unit one after the other.
        let by_unit = (0..units).flat_map(|unit| drawn.weight.iter().skip(unit).step_by(units).copied());
        let by_unit: Vec<f32> = by_unit.collect();
        Self {
            weight: Param::from_data(TensorData::new(by_unit, [units, size.inputs, 3, 3]), device),
            bias: drawn.bias,
            norm: drawn.norm,
            slope: drawn.slope,
            shaping: drawn.shaping,
            stride,
        }
    }

    /// Pixels of the input a pixel of the output, in each direction.
    pub(super) fn stride(&self) -> usize {
        self.stride
    }
}

impl Layer<4> for ConvLayer {
    /// # Shapes
    ///
    /// - x: `[batch, channels in, height, width]`
    /// - returns: `[batch, channels out, height / stride, width / stride]`
    fn affine(&self, x: Tensor<4>) -> Tensor<4> {
        let stride = [self.stride; 2];
        let options = ConvOptions::new(stride, [1, 1], [1, 1], 1);
        conv2d(x, self.weight.val(), self.bias.as_ref().map(Param::val), options)
    }

    fn norm(&self) -> Option<&Norm> {
        self.norm.as_ref()
    }

    fn slope(&self) -> Option<Tensor<1>> {
        self.slope.as_ref().map(Param::val)
    }

    fn shaping(&self) -> Shaping {
        self.shaping
    }
}
