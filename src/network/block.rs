//! Residual blocks (He et al. 2016a, 2016b).

use burn::tensor::Tensor;

use super::activation::elementwise;
use super::layer::{DenseLayer, Layer};
use super::pass::Pass;
use super::together::Together;
use crate::config::BlockOrder;
use crate::kernel::Elementwise;

/// What the blocks of a network have in common.
#[derive(Clone, Copy, Debug)]
pub(super) struct BlockForm {
    /// Where the activation function stands.
    pub order: BlockOrder,
    /// The factor on the branch.
    pub branch_scale: f64,
}

/// Hidden layers one after the other, without a shortcut.
pub(super) fn chain<'a, const D: usize, L: Layer<D> + 'a>(
    layers: impl Iterator<Item = (usize, &'a L)>,
    mut x: Tensor<D>,
    pass: &mut Pass,
) -> Tensor<D> {
    for (index, layer) in layers {
        x = pass.enter(|| path(index), x);
        x = layer.forward(x, pass);
    }
    x
}

/// One block: its layers, each with its number among the hidden ones, and a shortcut around them.
pub(super) fn residual<const D: usize, L: Layer<D>>(
    form: BlockForm,
    first: usize,
    layers: &[L],
    x: Tensor<D>,
    shortcut: impl FnOnce(Tensor<D>) -> Tensor<D>,
    pass: &mut Pass,
) -> Tensor<D> {
    let scaled = |branch: Tensor<D>| if form.branch_scale == 1.0 { branch } else { branch * form.branch_scale };
    // The first layer begins where the block does: the gradient with respect to its input is that of both ways.
    let x = pass.enter(|| path(first), x);
    let mut branch = x.clone();
    for (place, layer) in layers.iter().enumerate() {
        if place > 0 {
            branch = pass.enter(|| path(first + place), branch);
        }
        match form.order {
            BlockOrder::PreActivation => {
                let a = layer.shape(branch, pass);
                branch = layer.linear(a, pass);
            }
            BlockOrder::PostActivation if place + 1 == layers.len() => {
                let z = layer.linear(branch, pass);
                let branch = layer.normalize(z, pass);
                return layer.activate(shortcut(x) + scaled(branch), pass);
            }
            BlockOrder::PostActivation | BlockOrder::ActivationBeforeAddition => {
                branch = layer.forward(branch, pass);
            }
        }
    }
    shortcut(x) + scaled(branch)
}

/// [`residual`] as stages, with an identity shortcut.
pub(super) fn join(form: BlockForm, first: usize, layers: &[DenseLayer], together: &mut Together<'_>) {
    let shortcut = together.begin_block(layers.len());
    let mut function = Elementwise::Identity;
    for (place, layer) in layers.iter().enumerate() {
        together.enter(|| path(first + place));
        match form.order {
            BlockOrder::PreActivation => {
                layer.join_shape(together);
                layer.join_linear(together);
            }
            BlockOrder::PostActivation if place + 1 == layers.len() => {
                layer.join_linear(together);
                layer.norm.iter().for_each(|norm| together.normalize(norm));
                function = elementwise(layer.shaping().function).unwrap_or(function);
            }
            BlockOrder::PostActivation | BlockOrder::ActivationBeforeAddition => layer.join(together),
        }
    }
    together.add(shortcut, form.branch_scale, function);
    if form.order == BlockOrder::PostActivation {
        together.keep_activation();
    }
}

/// The path of a hidden layer.
pub(super) fn path(index: usize) -> String {
    format!("hidden.{index}")
}
