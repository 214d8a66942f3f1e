//! Residual blocks (He et al. 2016a, 2016b).

use burn::tensor::Tensor;

use super::layer::Layer;
use super::pass::Pass;
use crate::config::BlockOrder;

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

/// The path of a hidden layer.
pub(super) fn path(index: usize) -> String {
    format!("hidden.{index}")
}
