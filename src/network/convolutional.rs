//! The convolutional network of He et al. 2016a, section 4.2, with shortcuts or without.

use burn::module::Module;
use burn::tensor::{Device, Tensor, s};

use super::block::BlockForm;
use super::layer::{ConvLayer, Layer, Shaped, Size};
use super::norm::Norm;
use super::pass::Pass;
use super::residual::End;
use super::{Dense, Interface, block};
use crate::config::{BlockOrder, NetworkConfig};

/// A first layer, three stages of n blocks of two 3 x 3 convolutions, the mean over all pixels, and a linear output layer:
/// 6n + 2 layers with weights. The second and the third stage halve the image and double the channels.
#[derive(Module, Debug)]
pub struct Convolutional {
    /// The first layer, then those of the blocks.
    pub hidden: Vec<ConvLayer>,
    /// Of pre-activation blocks: normalization and activation of what the last block hands on.
    pub end: Option<End>,
    /// The output layer; none where the loss is taken of the means over the pixels.
    pub output: Option<Dense>,
    #[module(skip)]
    form: BlockForm,
    #[module(skip)]
    has_shortcuts: bool,
    #[module(skip)]
    image: [usize; 3],
}

/// Layers in a block.
const BLOCK_LAYERS: usize = 2;
/// Stages of equal images.
const STAGES: usize = 3;

impl Convolutional {
    pub(super) fn init(config: &NetworkConfig, interface: Interface, seed: u64, device: &Device) -> Self {
        let image = interface.image.unwrap_or([1, 1, interface.features]);
        let blocks = (config.depth - 2) / BLOCK_LAYERS;
        let channels = |stage: usize| config.width() << stage;
        let order = config.block_order();
        let has_shortcuts = config.has_shortcuts();
        let has_pre_activation = has_shortcuts && order == BlockOrder::PreActivation;
        let layer = |index: usize, inputs: usize, outputs: usize, stride: usize| {
            let shaped = match (has_pre_activation, index) {
                (false, _) => Shaped::Output,
                // The first block normalizes and activates what this layer hands on.
                (true, 0) => Shaped::Nothing,
                (true, _) => Shaped::Input,
            };
            let size = Size { inputs, outputs, index, shaped };
            ConvLayer::init(config, size, stride, seed, &block::path(index), device)
        };
        let mut hidden = vec![layer(0, image[0], channels(0), 1)];
        for index in 1..=blocks * BLOCK_LAYERS {
            let stage = (index - 1) * STAGES / (blocks * BLOCK_LAYERS);
            let opens_stage = stage > 0 && ((index - 1) * STAGES).is_multiple_of(blocks * BLOCK_LAYERS);
            let inputs = if opens_stage { channels(stage - 1) } else { channels(stage) };
            hidden.push(layer(index, inputs, channels(stage), if opens_stage { 2 } else { 1 }));
        }
        let last = channels(STAGES - 1);
        Self {
            hidden,
            end: if has_shortcuts { End::init(config, interface, last, device) } else { None },
            output: interface.outputs.map(|outputs| Dense::init(config, last, outputs, seed, "output", device)),
            form: BlockForm { order, branch_scale: config.branch_scale(blocks) },
            has_shortcuts,
            image,
        }
    }

    pub(super) fn forward(&self, inputs: Tensor<2>, pass: &mut Pass) -> Tensor<2> {
        let [channels, height, width] = self.image;
        let batch = inputs.dims()[0];
        let mut x = inputs.reshape([batch, channels, height, width]);
        if self.has_shortcuts {
            let (first, rest) = self.hidden.split_at(1);
            x = match self.form.order {
                BlockOrder::PreActivation => {
                    // The first block normalizes and activates by itself.
                    let x = pass.enter(|| block::path(0), x);
                    first[0].linear(x, pass)
                }
                _ => block::chain(first.iter().enumerate(), x, pass),
            };
            for (number, layers) in rest.chunks(BLOCK_LAYERS).enumerate() {
                let [units, ..] = layers[0].weight.shape().dims::<4>();
                let channels = units / layers[0].shaping().function.pieces;
                let stride = layers[0].stride();
                let shortcut = |x: Tensor<4>| subsample(x, channels, stride);
                x = block::residual(self.form, 1 + number * BLOCK_LAYERS, layers, x, shortcut, pass);
            }
        } else {
            x = block::chain(self.hidden.iter().enumerate(), x, pass);
        }
        x = pass.enter_output(x);
        if let Some(end) = &self.end {
            x = end.forward(x, pass);
        }
        let [batch, channels, height, width] = x.dims();
        let means = x.reshape([batch, channels, height * width]).mean_dim(2).reshape([batch, channels]);
        match &self.output {
            Some(output) => output.forward(means),
            None => means,
        }
    }

    pub(super) fn norms(&mut self) -> impl Iterator<Item = &mut Norm> {
        let hidden = self.hidden.iter_mut().filter_map(|layer| layer.norm.as_mut());
        hidden.chain(self.end.as_mut().and_then(|end| end.norm.as_mut()))
    }

    /// The pixels that each hidden layer puts out.
    pub(super) fn output_pixels(&self) -> Vec<usize> {
        let [_, mut height, mut width] = self.image;
        let pixels = |layer: &ConvLayer| {
            (height, width) = (height.div_ceil(layer.stride()), width.div_ceil(layer.stride()));
            height * width
        };
        self.hidden.iter().map(pixels).collect()
    }
}

/// The shortcut into a stage of other images: every second pixel, and zeros for the channels that are new (He et al. 2016a,
/// section 4.2, option A). It has no weights.
fn subsample(x: Tensor<4>, channels: usize, stride: usize) -> Tensor<4> {
    let [batch, before, ..] = x.dims();
    if stride == 1 && before == channels {
        return x;
    }
    let x = x.slice(s![.., .., ..;stride, ..;stride]);
    let [_, _, height, width] = x.dims();
    let zeros = Tensor::zeros([batch, channels - before, height, width], &x.device());
    Tensor::cat(vec![x, zeros], 1)
}
