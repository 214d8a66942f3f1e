//! Layers that go through the graph together, as [`Stages`].

use burn::tensor::Tensor;

use super::Dense;
use super::activation::{elementwise, flat_parts};
use super::layer::Shaping;
use super::norm::Norm;
use super::pass::{BatchMoments, Pass, Watched};
use crate::config::{ActivationFunction, Kernels};
use crate::kernel::{
    self, DenseParameters, Elementwise, FlatParts, MOST_PARAMETERS, MOST_UNITS, Shortcut, StageLeft, Stages,
    StagesLeft, Watch,
};

/// Weights, bias, slope, gamma and beta.
const MOST_OF_A_LAYER: usize = 5;

/// Layers for which a node of the graph has room.
pub(super) const MOST_LAYERS: usize = MOST_PARAMETERS / MOST_OF_A_LAYER;

/// Layers one after the other, on their way through the graph.
#[derive(Debug)]
pub(super) struct Together<'a> {
    pass: &'a mut Pass,
    /// What the first stage gets.
    x: Tensor<2>,
    stages: Stages,
    /// Those that leave a trace.
    layers: Vec<Traced>,
    /// The number of dense stages.
    dense: usize,
    seeds: usize,
    /// The activation function of the network.
    function: ActivationFunction,
}

/// A layer of which the probe wants something.
#[derive(Debug)]
struct Traced {
    path: String,
    /// Its place among the dense stages.
    dense: usize,
    /// The stage whose output are its activations.
    activation: Option<usize>,
}

impl<'a> Together<'a> {
    /// Begins with the input of the first layer; `None` where layers are better off by themselves. They keep what the backward pass
    /// needs of all of them, so that an evaluation, of many more examples, goes layer by layer.
    pub(super) fn begin(pass: &'a mut Pass, x: &Tensor<2>, seeds: usize, shaping: Shaping) -> Option<Self> {
        let is_wanted = shaping.kernels == Kernels::Fused && pass.trains() && pass.lets_layers_together();
        (is_wanted && kernel::has_fused_forms(x)).then(|| Self {
            pass,
            x: x.clone(),
            stages: Stages::default(),
            layers: Vec::new(),
            dense: 0,
            seeds,
            function: shaping.function,
        })
    }

    /// A layer begins that leaves a trace.
    pub(super) fn enter(&mut self, path: impl FnOnce() -> String) {
        if self.pass.is_traced() {
            self.layers.push(Traced { path: path(), dense: self.dense, activation: None });
        }
    }

    /// `phi(x W + b)`
    pub(super) fn dense(&mut self, parameters: DenseParameters, function: Elementwise) {
        self.dense += 1;
        self.stages.dense(parameters, function);
    }

    /// A normalization without an activation function.
    pub(super) fn normalize(&mut self, norm: &Norm) {
        norm.join(&mut self.stages, None);
    }

    /// A normalization, if there is one, and the activation function behind it, which has no learned slope.
    pub(super) fn normalize_and_activate(&mut self, norm: Option<&Norm>, function: ActivationFunction) {
        let function = elementwise(function).unwrap_or(Elementwise::Identity);
        match (norm, function.activated()) {
            (Some(norm), Some(function)) => return norm.join(&mut self.stages, Some(function)),
            (Some(norm), None) => self.normalize(norm),
            (None, _) => {}
        }
        self.stages.sum(Shortcut::None, 1.0, function);
    }

    /// `phi(shortcut + scale x)`
    pub(super) fn add(&mut self, shortcut: Shortcut, scale: f64, function: Elementwise) {
        self.stages.sum(shortcut, scale, function);
    }

    /// What has just come out are the activations of the layer that began last.
    pub(super) fn keep_activation(&mut self) {
        if let Some(layer) = self.layers.last_mut() {
            layer.activation = self.stages.last();
        }
    }

    /// A shortcut that begins here, at the beginning of a block whose layers are so many.
    pub(super) fn begin_block(&mut self, layers: usize) -> Shortcut {
        self.make_room(layers);
        self.stages.here()
    }

    /// So many layers come that must be in one node of the graph.
    pub(super) fn make_room(&mut self, layers: usize) {
        if self.stages.parameters() + MOST_OF_A_LAYER * layers > MOST_PARAMETERS {
            self.go();
        }
    }

    /// What the output layer hands on, or the last hidden layer if there is none.
    pub(super) fn end_with(mut self, output: Option<&Dense>) -> Tensor<2> {
        match output {
            Some(output) if output.weight.shape()[1] <= MOST_UNITS => {
                self.make_room(1);
                output.join(&mut self);
                self.go();
                self.x
            }
            Some(output) => {
                self.go();
                output.forward(self.x)
            }
            None => {
                self.go();
                self.x
            }
        }
    }

    /// Sends the layers up to here through the graph.
    fn go(&mut self) {
        if self.stages.is_empty() {
            return;
        }
        let layers = std::mem::take(&mut self.layers);
        let watch = self.pass.is_traced().then(|| Watch {
            activations: layers.iter().filter_map(|layer| layer.activation).collect(),
            flat: flat_parts(self.function).unwrap_or(FlatParts::NOWHERE),
        });
        let rows = self.x.dims()[0];
        let stages = std::mem::take(&mut self.stages);
        self.dense = 0;
        let StagesLeft { stages: mut left, deltas } = stages.run(&self.x, watch.as_ref(), self.seeds, Kernels::Fused);
        for Traced { path, dense, activation } in layers {
            let activation = activation.and_then(|stage| left[stage].activation.take());
            self.pass.leave(path, Watched { delta: (deltas.clone(), dense), activation });
        }
        for moments in left.iter().filter_map(|left| left.moments.clone()) {
            self.pass.keep_moments(BatchMoments::new(moments, rows / self.seeds));
        }
        if let Some(StageLeft { output, .. }) = left.into_iter().next_back() {
            self.x = output;
        }
    }
}
