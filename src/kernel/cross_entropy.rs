//! The softmax cross-entropy of a batch as one node of Burn's graph.

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, AutodiffBackend, Backend, Dispatch, TensorMetadata, backend_extension};
use burn::tensor::{Shape, Tensor};

#[cfg(any(feature = "wgpu", feature = "cuda"))]
use super::cube;
use super::layer::{by_seed, joined};
#[cfg(feature = "flex")]
use super::{flex_cross_entropy, pool};
use crate::config::Kernels;

/// How a cost is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CostForm {
    /// The networks whose rows stand below each other; each has a cost of its own.
    pub seeds: usize,
    /// Whether the fused form is taken where the backend has one.
    pub kernels: Kernels,
}

/// Costs on a backend. The default bodies run on every backend.
#[backend_extension(
    Autodiff,
    Flex: cfg(feature = "flex"),
    NdArray: cfg(feature = "ndarray"),
    Cube: cfg(any(feature = "wgpu", feature = "cuda"))
)]
pub trait CostOps: Backend {
    /// The mean over the rows of each seed of `-sum t ln softmax(o)`, `[seeds]`, and the softmax.
    fn softmax_cross_entropy(
        outputs: FloatTensor<Self>,
        targets: FloatTensor<Self>,
        form: CostForm,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        stock_softmax_cross_entropy::<Self>(outputs, targets, form)
    }

    /// The gradient with respect to the outputs, from the softmax and the gradient with respect to each cost:
    /// `(softmax(o) sum t - t) gradient / rows`.
    fn softmax_cross_entropy_backward(
        softmax: FloatTensor<Self>,
        targets: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        form: CostForm,
    ) -> FloatTensor<Self> {
        stock_softmax_cross_entropy_backward::<Self>(softmax, targets, gradient, form)
    }
}

pub(super) fn stock_softmax_cross_entropy<B: Backend>(
    outputs: FloatTensor<B>,
    targets: FloatTensor<B>,
    form: CostForm,
) -> (FloatTensor<B>, FloatTensor<B>) {
    let rows = outputs.shape()[0] / form.seeds;
    let shifted = B::float_sub(outputs.clone(), B::float_max_dim(outputs, 1));
    let sums = B::float_sum_dim(B::float_exp(shifted.clone()), 1);
    let logarithms = B::float_sub(shifted, B::float_log(sums));
    let products = B::float_mul(logarithms.clone(), targets);
    (sums_of_seeds::<B>(products, form.seeds, -1.0 / rows as f64), B::float_exp(logarithms))
}

/// The sum of what each seed has, times a factor, `[seeds]`.
fn sums_of_seeds<B: Backend>(x: FloatTensor<B>, seeds: usize, factor: f64) -> FloatTensor<B> {
    let count = x.shape().num_elements() / seeds;
    let sums = B::float_sum_dim(B::float_reshape(x, Shape::new([seeds, count])), 1);
    B::float_mul_scalar(B::float_reshape(sums, Shape::new([seeds])), factor.into())
}

pub(super) fn stock_softmax_cross_entropy_backward<B: Backend>(
    softmax: FloatTensor<B>,
    targets: FloatTensor<B>,
    gradient: FloatTensor<B>,
    form: CostForm,
) -> FloatTensor<B> {
    let rows = softmax.shape()[0] / form.seeds;
    let sums = B::float_sum_dim(targets.clone(), 1);
    let difference = by_seed::<B>(B::float_sub(B::float_mul(softmax, sums), targets), form.seeds);
    let mut dims = vec![1; difference.rank()];
    dims[0] = form.seeds;
    let gradient = B::float_reshape(B::float_mul_scalar(gradient, (1.0 / rows as f64).into()), Shape::from(dims));
    joined::<B>(B::float_mul(difference, gradient), form.seeds)
}

#[cfg(feature = "flex")]
impl CostOps for burn::backend::Flex {
    fn softmax_cross_entropy(
        outputs: FloatTensor<Self>,
        targets: FloatTensor<Self>,
        form: CostForm,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        flex_cross_entropy::forward(&outputs, &targets, form)
            .unwrap_or_else(|| stock_softmax_cross_entropy::<Self>(outputs, targets, form))
    }

    fn softmax_cross_entropy_backward(
        softmax: FloatTensor<Self>,
        targets: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        form: CostForm,
    ) -> FloatTensor<Self> {
        match flex_cross_entropy::backward(&softmax, &targets, &gradient, form) {
            Some(found) => {
                // Nobody looks at it any more.
                pool::recycle_any(softmax);
                found
            }
            None => stock_softmax_cross_entropy_backward::<Self>(softmax, targets, gradient, form),
        }
    }
}

#[cfg(feature = "ndarray")]
impl CostOps for burn::backend::NdArray {}

#[cfg(any(feature = "wgpu", feature = "cuda"))]
impl CostOps for cube::Fused {
    fn softmax_cross_entropy(
        outputs: FloatTensor<Self>,
        targets: FloatTensor<Self>,
        form: CostForm,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        let fused = match form.kernels {
            Kernels::Fused => cube::cross_entropy(&outputs, &targets),
            Kernels::Stock => None,
        };
        match fused {
            Some((costs, softmax)) => {
                let rows = outputs.shape()[0] / form.seeds;
                (sums_of_seeds::<Self>(costs, form.seeds, 1.0 / rows as f64), softmax)
            }
            None => stock_softmax_cross_entropy::<Self>(outputs, targets, form),
        }
    }

    fn softmax_cross_entropy_backward(
        softmax: FloatTensor<Self>,
        targets: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        form: CostForm,
    ) -> FloatTensor<Self> {
        let fused = match form.kernels {
            Kernels::Fused => cube::cross_entropy_backward(&softmax, &targets, &gradient, form),
            Kernels::Stock => None,
        };
        fused.unwrap_or_else(|| stock_softmax_cross_entropy_backward::<Self>(softmax, targets, gradient, form))
    }
}

#[derive(Debug)]
struct SoftmaxCrossEntropy;

impl<B: CostOps> Backward<B, 1> for SoftmaxCrossEntropy {
    type State = (FloatTensor<B>, FloatTensor<B>, CostForm);

    fn backward(self, ops: Ops<Self::State, 1>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let gradient = gradients.consume::<B>(&ops.node);
        let (softmax, targets, form) = ops.state;
        if let Some(node) = &ops.parents[0] {
            let gradient = B::softmax_cross_entropy_backward(softmax, targets, gradient, form);
            gradients.register::<B>(node.id, gradient);
        }
    }
}

impl<B: CostOps, C: CheckpointStrategy> CostOps for Autodiff<B, C> {
    fn softmax_cross_entropy(
        outputs: FloatTensor<Self>,
        targets: FloatTensor<Self>,
        form: CostForm,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        let constant = |tensor: FloatTensor<B>| <Self as AutodiffBackend>::from_inner(tensor);
        let prepared = SoftmaxCrossEntropy.prepare::<C>([outputs.node()]).compute_bound().stateful();
        let targets = targets.into_primitive();
        let (costs, softmax) = B::softmax_cross_entropy(outputs.into_primitive(), targets.clone(), form);
        match prepared {
            OpsKind::Tracked(prepared) => (prepared.finish((softmax.clone(), targets, form), costs), constant(softmax)),
            OpsKind::UnTracked(prepared) => (prepared.finish(costs), constant(softmax)),
        }
    }
}

/// Whether [`softmax_cross_entropy`] has a fused form where the outputs are.
pub fn has_fused_cost(outputs: &Tensor<2>) -> bool {
    #[cfg(any(feature = "wgpu", feature = "cuda"))]
    if super::cube::is_ours(outputs) {
        return true;
    }
    super::has_fused_forms(outputs)
}

/// The mean over the rows of each seed of `-sum t ln softmax(o)`. The targets are constants.
///
/// # Shapes
///
/// - outputs, targets: `[seeds x rows, classes]`
/// - returns: `[seeds]`
pub fn softmax_cross_entropy(outputs: Tensor<2>, targets: Tensor<2>, form: CostForm) -> Tensor<1> {
    let (costs, _) = Dispatch::softmax_cross_entropy(outputs.into_dispatch(), targets.into_dispatch(), form);
    Tensor::from_dispatch(costs)
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use burn::backend::Flex;
    use burn::tensor::{Element, ElementConversion, TensorData};

    use super::*;

    type Primitive = FloatTensor<Flex>;

    fn tensor<E: Element>(seed: usize, rows: usize, columns: usize, scale: f64) -> Primitive {
        let number = |i: usize| (((i + seed) * 7919 + seed * seed) % 1013) as f64 / 500.0 - 1.0;
        let values: Vec<E> = (0..rows * columns).map(|i| (scale * number(i)).elem()).collect();
        Primitive::from_data(TensorData::new(values, [rows, columns]))
    }

    fn numbers(tensor: &Primitive) -> Vec<f64> {
        tensor.clone().into_data().iter::<f64>().collect()
    }

    #[track_caller]
    fn assert_close(fused: &Primitive, stock: &Primitive, tolerance: f64) {
        assert_eq!(fused.shape(), stock.shape());
        for (a, b) in numbers(fused).iter().zip(numbers(stock)) {
            assert!((a - b).abs() <= tolerance * b.abs().max(1e-2), "{a} and {b}");
        }
    }

    fn compare<E: Element>(tolerance: f64) {
        for (seeds, rows, classes) in [(1, 1, 2), (1, 128, 10), (3, 17, 7), (2, 64, 100)] {
            let form = CostForm { seeds, kernels: Kernels::Fused };
            let outputs = tensor::<E>(1, seeds * rows, classes, 9.0);
            let targets = tensor::<E>(2, seeds * rows, classes, 0.5);
            let gradient = tensor::<E>(3, 1, seeds, 1.0).reshape(Shape::new([seeds]));
            let fused = flex_cross_entropy::forward(&outputs, &targets, form).expect("has a fused form");
            let stock = stock_softmax_cross_entropy::<Flex>(outputs, targets.clone(), form);
            assert_close(&fused.0, &stock.0, tolerance);
            assert_close(&fused.1, &stock.1, tolerance);
            let fused = flex_cross_entropy::backward(&stock.1, &targets, &gradient, form).expect("has a fused form");
            let stock = stock_softmax_cross_entropy_backward::<Flex>(stock.1, targets, gradient, form);
            assert_close(&fused, &stock, tolerance);
        }
    }

    #[test]
    fn fused_and_stock_costs_agree_in_both_precisions() {
        compare::<f32>(1e-5);
        compare::<f64>(1e-12);
    }

    #[test]
    fn the_backward_pass_is_that_of_finite_differences() {
        const STEP: f64 = 1e-6;
        let form = CostForm { seeds: 2, kernels: Kernels::Fused };
        let (outputs, targets) = (tensor::<f64>(1, 6, 4, 2.0), tensor::<f64>(2, 6, 4, 1.0));
        let gradient = tensor::<f64>(5, 1, 2, 1.0).reshape(Shape::new([2]));
        let weights = numbers(&gradient);
        let cost = |place: usize, by: f64| -> f64 {
            let mut values = numbers(&outputs);
            values[place] += by;
            let moved = Primitive::from_data(TensorData::new(values, [6, 4]));
            let (costs, _) = flex_cross_entropy::forward(&moved, &targets, form).expect("fused");
            numbers(&costs).iter().zip(&weights).map(|(cost, weight)| cost * weight).sum()
        };
        let (_, softmax) = flex_cross_entropy::forward(&outputs, &targets, form).expect("fused");
        let found = flex_cross_entropy::backward(&softmax, &targets, &gradient, form).expect("fused");
        for (place, found) in numbers(&found).into_iter().enumerate() {
            let expected = (cost(place, STEP) - cost(place, -STEP)) / (2.0 * STEP);
            assert!((found - expected).abs() < 1e-8, "{place}: {found}, expected {expected}");
        }
    }

    #[test]
    fn an_output_that_is_not_finite_makes_the_cost_so() {
        let form = CostForm { seeds: 1, kernels: Kernels::Fused };
        let targets = Primitive::from_data(TensorData::new(vec![1.0_f32, 0.0], [1, 2]));
        for (outputs, is_finite) in [([f32::NAN, 0.0], false), ([f32::INFINITY, 0.0], false), ([1e30, 0.0], true)] {
            let outputs = Primitive::from_data(TensorData::new(outputs.to_vec(), [1, 2]));
            let (cost, _) = flex_cross_entropy::forward(&outputs, &targets, form).expect("fused");
            assert_eq!(numbers(&cost)[0].is_finite(), is_finite);
        }
    }
}

#[cfg(all(test, feature = "wgpu"))]
mod gpu_tests {
    use burn::backend::ops::FloatTensorOps;

    use super::*;
    use crate::kernel::cube::{Fused, adapter_for_tests, assert_close, primitive};

    #[test]
    fn one_launch_and_the_single_operations_agree_on_costs_and_gradients() {
        let Some(device) = adapter_for_tests() else { return };
        for (rows, classes, seeds, size) in [(1, 1, 1, 1.0), (67, 10, 1, 5.0), (24, 3, 4, 300.0), (130, 256, 2, 1.0)] {
            let what = format!("{rows} x {classes}, {seeds} seeds");
            let form = CostForm { seeds, kernels: Kernels::Fused };
            let outputs = primitive(1, [seeds * rows, classes], size, &device);
            // No distribution: what is known of targets is that they are not negative.
            let targets = Fused::float_abs(primitive(2, [seeds * rows, classes], 1.0, &device));
            let (costs, softmax) = Fused::softmax_cross_entropy(outputs.clone(), targets.clone(), form);
            let (stock_costs, stock) = stock_softmax_cross_entropy::<Fused>(outputs, targets.clone(), form);
            assert_close(costs, stock_costs, &what);
            assert_close(softmax, stock.clone(), &what);
            let gradient = Fused::float_reshape(primitive(3, [1, seeds], 1.0, &device), Shape::new([seeds]));
            let fused = cube::cross_entropy_backward(&stock, &targets, &gradient, form).expect("few classes");
            let stock = stock_softmax_cross_entropy_backward::<Fused>(stock, targets, gradient, form);
            assert_close(fused, stock, &what);
        }
        let many = primitive(1, [2, 300], 1.0, &device);
        assert!(cube::cross_entropy(&many, &many).is_none(), "too many for a thread");
    }
}
