//! Batch and layer normalization.

use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor, TensorData};

use super::activation::{activate, elementwise};
use super::pass::{BatchMoments, BatchStatistics, Pass};
use crate::config::{self, ActivationFunction, Kernels, NetworkConfig};
use crate::kernel::{self, Activated, Elementwise, NormAxis, NormForm, Stages};

/// `gamma (x - mean) / sqrt(variance + epsilon) + beta`
#[derive(Module, Debug)]
pub struct Norm {
    /// `[units]`, ones at first.
    pub gamma: Param<Tensor<1>>,
    /// `[units]`, zeros at first.
    pub beta: Param<Tensor<1>>,
    #[module(skip)]
    kind: config::Norm,
    #[module(skip)]
    epsilon: f64,
    #[module(skip)]
    momentum: f64,
    /// Outside the graph, and no parameters: they are not trained, measured or decayed. None before the first step.
    #[module(skip)]
    running: Option<BatchStatistics>,
    /// The networks of different seeds that lie one below the other: see [`kernel::LayerOps`].
    #[module(skip)]
    seeds: usize,
    #[module(skip)]
    kernels: Kernels,
}

impl Norm {
    /// The normalization of a layer, if the config has one. `units` counts the channels of an image.
    pub(super) fn init(config: &NetworkConfig, units: usize, device: &Device) -> Option<Self> {
        let filled = |value: f32| TensorData::new(vec![value; units], [units]);
        (config.norm != config::Norm::None).then(|| Self {
            gamma: Param::from_data(filled(1.0), device),
            beta: Param::from_data(filled(0.0), device),
            kind: config.norm,
            epsilon: config.norm_epsilon(),
            momentum: config.norm_momentum(),
            running: None,
            seeds: 1,
            kernels: config.kernels(),
        })
    }

    pub(super) fn units(&self) -> usize {
        self.gamma.shape().num_elements()
    }

    pub(super) fn set_seeds(&mut self, seeds: usize) {
        self.seeds = seeds;
    }

    pub(super) fn running(&self) -> Option<&BatchStatistics> {
        self.running.as_ref()
    }

    pub(super) fn set_running(&mut self, running: Option<BatchStatistics>) {
        self.running = running;
    }

    /// # Shapes
    ///
    /// - x: `[batch, units, ..]`
    /// - returns: the same
    pub(super) fn forward<const D: usize>(&self, x: Tensor<D>, pass: &mut Pass) -> Tensor<D> {
        self.forward_activated(x, None, pass)
    }

    /// The same with an activation function behind it, in one operation if there is one; `slope` is as in [`activate`].
    pub(super) fn forward_and_activate<const D: usize>(
        &self,
        x: Tensor<D>,
        function: ActivationFunction,
        slope: Option<Tensor<1>>,
        pass: &mut Pass,
    ) -> Tensor<D> {
        match elementwise(function).and_then(Elementwise::activated) {
            Some(function) => self.forward_activated(x, Some(function), pass),
            None => activate(function, slope, self.forward(x, pass), self.kernels),
        }
    }

    fn forward_activated<const D: usize>(
        &self,
        x: Tensor<D>,
        function: Option<Activated>,
        pass: &mut Pass,
    ) -> Tensor<D> {
        let is_batch_norm = self.is_batch_norm();
        if let Some(running) = self.running.as_ref().filter(|_| !pass.trains()) {
            let z = self.forward_with(running, x);
            return match function {
                Some(function) => kernel::activated(z, function, self.kernels),
                None => z,
            };
        }
        let dims = x.dims();
        let stays = usize::from(is_batch_norm);
        let form = NormForm { epsilon: self.epsilon, function, seeds: self.seeds, kernels: self.kernels };
        let axes = (0..D).filter(|axis| *axis != stays).collect();
        let normalized = kernel::normalize(x, self.gamma.val(), self.beta.val(), axes, form);
        if is_batch_norm {
            let count = dims.iter().product::<usize>() / (self.seeds * dims[1]);
            pass.keep_moments(BatchMoments::new([normalized.mean, normalized.variance], count));
        }
        normalized.output
    }

    /// The normalization of a batch or of each example, with a function behind it, as a stage.
    pub(super) fn join(&self, stages: &mut Stages, function: Option<Activated>) {
        let axis = if self.is_batch_norm() { NormAxis::Batch } else { NormAxis::Units };
        stages.norm(axis, (self.gamma.val(), self.beta.val()), self.epsilon, function);
    }

    /// Networks are evaluated one by one, so that there is one seed here.
    fn forward_with<const D: usize>(&self, running: &BatchStatistics, x: Tensor<D>) -> Tensor<D> {
        let mut shape = [1; D];
        shape[1] = x.dims()[1];
        let deviation = (running.variance.clone() + self.epsilon).sqrt();
        let standard = (x - running.mean.clone().reshape(shape)) / deviation.reshape(shape);
        standard * self.gamma.val().reshape(shape) + self.beta.val().reshape(shape)
    }

    /// Takes the statistics of a batch into the running ones. Those of the first batch are taken whole: mixed into a mean of 0
    /// and a variance of 1, as is the custom, a thousand layers would let the first evaluations overflow.
    pub(super) fn absorb(&mut self, batch: BatchStatistics) {
        let share = self.momentum;
        let mix = |running: Tensor<1>, new: Tensor<1>| running * (1.0 - share) + new * share;
        self.running = Some(match self.running.take() {
            None => batch,
            Some(running) => {
                BatchStatistics { mean: mix(running.mean, batch.mean), variance: mix(running.variance, batch.variance) }
            }
        });
    }

    /// Whether it keeps running statistics.
    pub(super) fn is_batch_norm(&self) -> bool {
        self.kind == config::Norm::Batch
    }
}
