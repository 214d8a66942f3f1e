//! Residual multilayer perceptrons.

use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor};

use super::block::BlockForm;
use super::layer::{Layer, Shaped, Shaping, Size, learned_slope};
use super::norm::Norm;
use super::pass::Pass;
use super::together::{MOST_LAYERS, Together};
use super::{Dense, DenseLayer, Interface, activate, block};
use crate::config::{BlockOrder, NetworkConfig, NormPlace};

/// Blocks of hidden layers of equal width with identity shortcuts.
#[derive(Module, Debug)]
pub struct Residual {
    /// A linear layer from the inputs to the width; none where the inputs have the width.
    pub stem: Option<Dense>,
    /// The hidden layers, the one nearest to the input first.
    pub hidden: Vec<DenseLayer>,
    /// Of pre-activation blocks: normalization and activation of what the last block hands on.
    pub end: Option<End>,
    /// The output layer; none where the loss is taken of what the last block hands on.
    pub output: Option<Dense>,
    #[module(skip)]
    form: BlockForm,
    #[module(skip)]
    block_layers: usize,
}

/// Normalization and activation function behind the last pre-activation block (He et al. 2016b, section 4.1). Where the
/// loss is a linear probe there is none, so that the probe looks at the sum of all branches itself.
#[derive(Module, Debug)]
pub struct End {
    /// The normalization, if there is one.
    pub norm: Option<Norm>,
    /// `[1]`, the learned slope of PReLU.
    pub slope: Option<Param<Tensor<1>>>,
    #[module(skip)]
    shaping: Shaping,
}

impl End {
    /// The end of a network whose last block hands on so many units or channels.
    pub(super) fn init(config: &NetworkConfig, interface: Interface, units: usize, device: &Device) -> Option<Self> {
        let is_wanted = config.block_order() == BlockOrder::PreActivation && interface.outputs.is_some();
        let shaping = Shaping::new(config);
        is_wanted.then(|| Self {
            norm: Norm::init(config, units, device),
            slope: learned_slope(shaping.function, device),
            shaping,
        })
    }

    pub(super) fn forward<const D: usize>(&self, x: Tensor<D>, pass: &mut Pass) -> Tensor<D> {
        let Shaping { function, norm_place, kernels, .. } = self.shaping;
        let slope = self.slope.as_ref().map(Param::val);
        let Some(norm) = &self.norm else {
            return activate(function, slope, x, kernels);
        };
        match norm_place {
            NormPlace::BeforeActivation => norm.forward_and_activate(x, function, slope, pass),
            NormPlace::AfterActivation => norm.forward(activate(function, slope, x, kernels), pass),
        }
    }

    /// [`End::forward`] as stages.
    fn join(&self, together: &mut Together<'_>) {
        together.make_room(1);
        self.shaping.join(self.norm.as_ref(), together, |_| {});
    }
}

impl Residual {
    pub(super) fn init(config: &NetworkConfig, interface: Interface, seed: u64, device: &Device) -> Self {
        let width = config.width();
        let order = config.block_order();
        let hidden = |index: usize| {
            let shaped = if order == BlockOrder::PreActivation { Shaped::Input } else { Shaped::Output };
            let size = Size { inputs: width, outputs: width, index, shaped };
            DenseLayer::init(config, size, seed, &block::path(index), device)
        };
        let blocks = config.depth / config.block_layers();
        let outputs = interface.outputs;
        Self {
            stem: config.has_stem().then(|| Dense::init(config, interface.features, width, seed, "stem", device)),
            hidden: (0..config.depth).map(hidden).collect(),
            end: End::init(config, interface, width, device),
            output: outputs.map(|outputs| Dense::init(config, width, outputs, seed, "output", device)),
            form: BlockForm { order, branch_scale: config.branch_scale(blocks) },
            block_layers: config.block_layers(),
        }
    }

    pub(super) fn forward(&self, inputs: Tensor<2>, pass: &mut Pass) -> Tensor<2> {
        if let Some(outputs) = self.forward_together(&inputs, pass) {
            return outputs;
        }
        let mut x = inputs;
        if let Some(stem) = &self.stem {
            x = pass.enter(|| "stem".to_owned(), x);
            x = stem.forward_traced(x, pass);
        }
        for (number, layers) in self.hidden.chunks(self.block_layers).enumerate() {
            x = block::residual(self.form, number * self.block_layers, layers, x, |x| x, pass);
        }
        x = pass.enter_output(x);
        if let Some(end) = &self.end {
            x = end.forward(x, pass);
        }
        match &self.output {
            Some(output) => output.forward(x),
            None => x,
        }
    }

    /// The same with all blocks in few nodes of the graph, where they are better off so.
    fn forward_together(&self, inputs: &Tensor<2>, pass: &mut Pass) -> Option<Tensor<2>> {
        let shaping = self.hidden.first()?.shaping();
        let is_apart = self.form.order != BlockOrder::ActivationBeforeAddition;
        if self.block_layers > MOST_LAYERS || !self.hidden.iter().all(|layer| layer.joins(is_apart)) {
            return None;
        }
        let mut together = Together::begin(pass, inputs, self.seeds(), shaping)?;
        if let Some(stem) = &self.stem {
            together.enter(|| "stem".to_owned());
            stem.join(&mut together);
        }
        for (number, layers) in self.hidden.chunks(self.block_layers).enumerate() {
            block::join(self.form, number * self.block_layers, layers, &mut together);
        }
        if let Some(end) = &self.end {
            end.join(&mut together);
        }
        Some(together.end_with(self.output.as_ref()))
    }

    pub(super) fn seeds(&self) -> usize {
        self.hidden.first().map_or(1, DenseLayer::seeds)
    }

    pub(super) fn set_seeds(&mut self, seeds: usize) {
        self.stem.iter_mut().chain(&mut self.output).for_each(|dense| dense.set_seeds(seeds));
        self.hidden.iter_mut().for_each(|layer| layer.set_seeds(seeds));
        self.end.iter_mut().filter_map(|end| end.norm.as_mut()).for_each(|norm| norm.set_seeds(seeds));
    }

    pub(super) fn norms(&mut self) -> impl Iterator<Item = &mut Norm> {
        let hidden = self.hidden.iter_mut().filter_map(|layer| layer.norm.as_mut());
        hidden.chain(self.end.as_mut().and_then(|end| end.norm.as_mut()))
    }
}
