//! What those who go through the parameters of a network have in common.

use burn::module::Param;
use burn::tensor::Tensor;

/// A parameter with another value, which is computed outside the graph.
pub(super) fn changed<const D: usize>(
    param: Param<Tensor<D>>,
    change: impl FnOnce(Tensor<D>) -> Tensor<D>,
) -> Param<Tensor<D>> {
    param.map(|value| {
        let is_tracked = value.is_autodiff();
        let changed = change(value.inner());
        if is_tracked { Tensor::from_inner(changed).require_grad() } else { changed }
    })
}
