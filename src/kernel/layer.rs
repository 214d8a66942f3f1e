//! The operations of a layer, each as one node of Burn's graph with a backward pass by hand.
//!
//! Written with Burn's differentiable operations, a normalized layer has some fifteen nodes. Burn's backward pass looks
//! up, in one list, every tensor that an operation has left for it, which takes a time that grows with the square of the depth:
//! at 1000 layers a seventh of the step. These operations keep what they need in their own node. The stock forms of
//! the forward and the backward pass are the backend's own operations.

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, AutodiffBackend, Backend, Dispatch, TensorMetadata, backend_extension};
use burn::tensor::{Shape, Tensor};

#[cfg(any(feature = "wgpu", feature = "cuda"))]
use super::cube;
#[cfg(feature = "flex")]
use super::flex_layer;
use crate::config::Kernels;

/// Activation functions whose derivative is a function of their value, so that only the value is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Activated {
    /// 1 / (1 + exp(-z)), with the derivative y (1 - y)
    Sigmoid,
    /// tanh(z), with the derivative 1 - y^2
    Tanh,
    /// max(z, 0), with the derivative 1 for y > 0
    Relu,
}

/// What the moments of a normalization are taken over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NormAxis {
    /// The examples, for each unit: batch norm.
    Batch,
    /// The units, for each example: layer norm.
    Units,
}

impl NormAxis {
    /// The place of the axis in a matrix.
    pub(super) fn place(self) -> usize {
        match self {
            Self::Batch => 0,
            Self::Units => 1,
        }
    }

    /// The only one of the axes of a matrix.
    pub(super) fn of_matrix(axes: &[usize]) -> Option<Self> {
        [Self::Batch, Self::Units].into_iter().find(|axis| axes == [axis.place()])
    }
}

/// How a tensor is normalized.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NormForm {
    /// What is added to the variance.
    pub epsilon: f64,
    /// What is applied to the normalized tensor.
    pub function: Option<Activated>,
    /// The networks that lie one below the other.
    pub seeds: usize,
    /// Whether the fused form is taken where the backend has one.
    pub kernels: Kernels,
}

/// Operations of a layer on a backend. The default bodies run on every backend. Parameters have the shape `[units]`,
/// inputs and outputs `[batch, units, ..]`.
///
/// Networks of several seeds that train together lie one below the other, the first seed's rows first: parameters have the
/// shape `[seeds x units]`, weights `[seeds x inputs, units]`, inputs and outputs `[seeds x batch, units, ..]`. Each block of
/// rows meets the parameters of its own seed.
#[backend_extension(
    Autodiff,
    Flex: cfg(feature = "flex"),
    NdArray: cfg(feature = "ndarray"),
    Cube: cfg(any(feature = "wgpu", feature = "cuda"))
)]
#[allow(clippy::too_many_arguments)] // The macro takes tensors one by one.
pub trait LayerOps: Backend {
    /// `phi(z)`
    fn activated(z: FloatTensor<Self>, function: Activated, kernels: Kernels) -> FloatTensor<Self> {
        let _ = kernels;
        stock_activated::<Self>(z, function)
    }

    /// `gradient x phi'(z)`, from `y = phi(z)`
    fn activated_backward(
        y: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        function: Activated,
        kernels: Kernels,
    ) -> FloatTensor<Self> {
        let _ = kernels;
        stock_activated_backward::<Self>(y, gradient, function)
    }

    /// `phi(gamma (x - mean) / sqrt(variance + epsilon) + beta)`, and the mean and the variance of x over the axes, which keep the length 1;
    /// that of the rows keeps one for each seed. The backward pass knows that they depend on x.
    fn normalized(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        axes: Vec<usize>,
        form: NormForm,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        stock_normalized::<Self>(x, gamma, beta, &axes, form)
    }

    /// The gradients of [`LayerOps::normalized`], whose value is y, with respect to x, gamma and beta (Ioffe and Szegedy 2015,
    /// section 3).
    fn normalized_backward(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        mean: FloatTensor<Self>,
        variance: FloatTensor<Self>,
        y: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        axes: Vec<usize>,
        form: NormForm,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        stock_normalized_backward::<Self>([x, gamma, mean, variance, y], gradient, &axes, form)
    }
}

/// `phi(z)`
pub(super) fn stock_activated<B: Backend>(z: FloatTensor<B>, function: Activated) -> FloatTensor<B> {
    match function {
        Activated::Sigmoid => B::sigmoid(z),
        Activated::Tanh => B::float_tanh(z),
        Activated::Relu => B::relu(z),
    }
}

/// `gradient x phi'(z)`, from `y = phi(z)`, in any precision.
pub(super) fn stock_activated_backward<B: Backend>(
    y: FloatTensor<B>,
    gradient: FloatTensor<B>,
    function: Activated,
) -> FloatTensor<B> {
    match function {
        Activated::Sigmoid => B::sigmoid_backward(y, gradient),
        Activated::Tanh => B::float_mul(minus_from_one::<B>(B::float_mul(y.clone(), y)), gradient),
        Activated::Relu => B::relu_backward(y, gradient),
    }
}

/// `1 - x`
pub(super) fn minus_from_one<B: Backend>(x: FloatTensor<B>) -> FloatTensor<B> {
    B::float_add_scalar(B::float_neg(x), 1.0.into())
}

fn stock_moments<B: Backend>(x: FloatTensor<B>, axes: &[usize], seeds: usize) -> (FloatTensor<B>, FloatTensor<B>) {
    let (x, axes) = (by_seed::<B>(x, seeds), behind_seeds(axes, seeds));
    let mean = mean_over::<B>(x.clone(), &axes);
    let centered = B::float_sub(x, mean.clone());
    let variance = mean_over::<B>(B::float_mul(centered.clone(), centered), &axes);
    (joined::<B>(mean, seeds), joined::<B>(variance, seeds))
}

fn stock_normalized<B: Backend>(
    x: FloatTensor<B>,
    gamma: FloatTensor<B>,
    beta: FloatTensor<B>,
    axes: &[usize],
    form: NormForm,
) -> (FloatTensor<B>, FloatTensor<B>, FloatTensor<B>) {
    let (rank, seeds) = (x.rank(), form.seeds);
    let (mean, variance) = stock_moments::<B>(x.clone(), axes, seeds);
    let [gamma, beta] = [gamma, beta].map(|vector| by_seed_and_unit::<B>(vector, rank, seeds));
    let [x, of_x, around] = [x, mean.clone(), variance.clone()].map(|tensor| by_seed::<B>(tensor, seeds));
    let standard = standardized::<B>(x, of_x, deviation::<B>(around, form.epsilon));
    let z = joined::<B>(B::float_add(B::float_mul(standard, gamma), beta), seeds);
    let y = match form.function {
        Some(function) => stock_activated::<B>(z, function),
        None => z,
    };
    (y, mean, variance)
}

fn deviation<B: Backend>(variance: FloatTensor<B>, epsilon: f64) -> FloatTensor<B> {
    B::float_sqrt(B::float_add_scalar(variance, epsilon.into()))
}

fn stock_normalized_backward<B: Backend>(
    [x, gamma, mean, variance, y]: [FloatTensor<B>; 5],
    gradient: FloatTensor<B>,
    axes: &[usize],
    form: NormForm,
) -> (FloatTensor<B>, FloatTensor<B>, FloatTensor<B>) {
    let seeds = form.seeds;
    let gradient = match form.function {
        Some(function) => stock_activated_backward::<B>(y, gradient, function),
        None => gradient,
    };
    let gamma = by_seed_and_unit::<B>(gamma, x.rank(), seeds);
    let [x, mean, variance, gradient] = [x, mean, variance, gradient].map(|tensor| by_seed::<B>(tensor, seeds));
    let (axes, deviation) = (behind_seeds(axes, seeds), deviation::<B>(variance, form.epsilon));
    let standard = standardized::<B>(x, mean, deviation.clone());
    let of_gamma = sum_by_seed_and_unit::<B>(B::float_mul(gradient.clone(), standard.clone()), seeds);
    let of_beta = sum_by_seed_and_unit::<B>(gradient.clone(), seeds);
    let outer = B::float_mul(gradient, gamma);
    let along = mean_over::<B>(B::float_mul(outer.clone(), standard.clone()), &axes);
    let offset = mean_over::<B>(outer.clone(), &axes);
    let inner = B::float_sub(B::float_sub(outer, offset), B::float_mul(standard, along));
    (joined::<B>(B::float_div(inner, deviation), seeds), of_gamma, of_beta)
}

fn mean_over<B: Backend>(x: FloatTensor<B>, axes: &[usize]) -> FloatTensor<B> {
    axes.iter().fold(x, |x, axis| B::float_mean_dim(x, *axis))
}

fn standardized<B: Backend>(x: FloatTensor<B>, mean: FloatTensor<B>, deviation: FloatTensor<B>) -> FloatTensor<B> {
    B::float_div(B::float_sub(x, mean), deviation)
}

/// `[seeds x rows, ..]` as `[seeds, rows, ..]`. That of a single seed stays as it is, here and below.
pub(super) fn by_seed<B: Backend>(x: FloatTensor<B>, seeds: usize) -> FloatTensor<B> {
    if seeds == 1 {
        return x;
    }
    let shape = x.shape();
    let dims: Vec<usize> =
        [seeds, shape[0] / seeds].into_iter().chain((1..shape.num_dims()).map(|axis| shape[axis])).collect();
    B::float_reshape(x, Shape::from(dims))
}

/// `[seeds, rows, ..]` as `[seeds x rows, ..]`.
pub(super) fn joined<B: Backend>(x: FloatTensor<B>, seeds: usize) -> FloatTensor<B> {
    if seeds == 1 {
        return x;
    }
    let shape = x.shape();
    let dims: Vec<usize> =
        [shape[0] * shape[1]].into_iter().chain((2..shape.num_dims()).map(|axis| shape[axis])).collect();
    B::float_reshape(x, Shape::from(dims))
}

/// The axes of a tensor that [`by_seed`] has given one more in front.
fn behind_seeds(axes: &[usize], seeds: usize) -> Vec<usize> {
    axes.iter().map(|axis| axis + usize::from(seeds > 1)).collect()
}

/// `[units]` as `[1, units, 1, ..]`.
pub(super) fn by_unit<B: Backend>(vector: FloatTensor<B>, rank: usize) -> FloatTensor<B> {
    let mut dims = vec![1; rank];
    dims[1] = vector.shape().num_elements();
    B::float_reshape(vector, Shape::from(dims))
}

/// `[seeds x units]` as `[seeds, 1, units, 1, ..]`, beside a tensor whose rank is `rank` without the seeds.
pub(super) fn by_seed_and_unit<B: Backend>(vector: FloatTensor<B>, rank: usize, seeds: usize) -> FloatTensor<B> {
    if seeds == 1 {
        return by_unit::<B>(vector, rank);
    }
    let mut dims = vec![1; rank + 1];
    dims[0] = seeds;
    dims[2] = vector.shape().num_elements() / seeds;
    B::float_reshape(vector, Shape::from(dims))
}

/// The sums `[units]` over all but the units.
pub(super) fn sum_by_unit<B: Backend>(x: FloatTensor<B>) -> FloatTensor<B> {
    sum_to_vector::<B>(x, &[1])
}

/// The sums `[seeds x units]` over all but seeds and units of what [`by_seed`] makes.
pub(super) fn sum_by_seed_and_unit<B: Backend>(x: FloatTensor<B>, seeds: usize) -> FloatTensor<B> {
    if seeds == 1 { sum_by_unit::<B>(x) } else { sum_to_vector::<B>(x, &[0, 2]) }
}

fn sum_to_vector<B: Backend>(x: FloatTensor<B>, kept: &[usize]) -> FloatTensor<B> {
    let axes = (0..x.rank()).filter(|axis| !kept.contains(axis));
    let sums = axes.fold(x, |x, axis| B::float_sum_dim(x, axis));
    let count = sums.shape().num_elements();
    B::float_reshape(sums, Shape::new([count]))
}

#[cfg(feature = "flex")]
impl LayerOps for burn::backend::Flex {
    fn activated(z: FloatTensor<Self>, function: Activated, kernels: Kernels) -> FloatTensor<Self> {
        flex_layer::activated(z, function, kernels).unwrap_or_else(|z| stock_activated::<Self>(z, function))
    }

    fn activated_backward(
        y: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        function: Activated,
        kernels: Kernels,
    ) -> FloatTensor<Self> {
        flex_layer::activated_backward(&y, gradient, function, kernels)
            .unwrap_or_else(|gradient| stock_activated_backward::<Self>(y, gradient, function))
    }

    fn normalized(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        axes: Vec<usize>,
        form: NormForm,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        flex_layer::normalized([&x, &gamma, &beta], &axes, form)
            .unwrap_or_else(|| stock_normalized::<Self>(x, gamma, beta, &axes, form))
    }

    fn normalized_backward(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        mean: FloatTensor<Self>,
        variance: FloatTensor<Self>,
        y: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        axes: Vec<usize>,
        form: NormForm,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        match flex_layer::normalized_backward([&x, &gamma, &mean, &variance, &y], gradient, &axes, form) {
            Ok(gradients) => gradients,
            Err(gradient) => stock_normalized_backward::<Self>([x, gamma, mean, variance, y], gradient, &axes, form),
        }
    }
}

#[cfg(feature = "ndarray")]
impl LayerOps for burn::backend::NdArray {}

#[cfg(any(feature = "wgpu", feature = "cuda"))]
#[allow(clippy::too_many_arguments)] // As in the trait.
impl LayerOps for cube::Fused {
    fn normalized(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        axes: Vec<usize>,
        form: NormForm,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        cube::normalized([&x, &gamma, &beta], &axes, form)
            .unwrap_or_else(|| stock_normalized::<Self>(x, gamma, beta, &axes, form))
    }

    fn normalized_backward(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        mean: FloatTensor<Self>,
        variance: FloatTensor<Self>,
        y: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        axes: Vec<usize>,
        form: NormForm,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        let saved = [x, gamma, mean, variance, y];
        cube::normalized_backward(&saved, &gradient, &axes, form)
            .unwrap_or_else(|| stock_normalized_backward::<Self>(saved, gradient, &axes, form))
    }
}

#[derive(Debug)]
struct Activation;

impl<B: LayerOps> Backward<B, 1> for Activation {
    type State = (FloatTensor<B>, Activated, Kernels);

    fn backward(self, ops: Ops<Self::State, 1>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let gradient = gradients.consume::<B>(&ops.node);
        let (y, function, kernels) = ops.state;
        if let Some(node) = &ops.parents[0] {
            gradients.register::<B>(node.id, B::activated_backward(y, gradient, function, kernels));
        }
    }
}

#[derive(Debug)]
struct Normalization;

impl<B: LayerOps> Backward<B, 3> for Normalization {
    type State = ([FloatTensor<B>; 5], Vec<usize>, NormForm);

    fn backward(self, ops: Ops<Self::State, 3>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let gradient = gradients.consume::<B>(&ops.node);
        let ([x, gamma, mean, variance, y], axes, form) = ops.state;
        let (of_x, of_gamma, of_beta) = B::normalized_backward(x, gamma, mean, variance, y, gradient, axes, form);
        for (node, gradient) in ops.parents.iter().zip([of_x, of_gamma, of_beta]) {
            if let Some(node) = node {
                gradients.register::<B>(node.id, gradient);
            }
        }
    }
}

impl<B: LayerOps, C: CheckpointStrategy> LayerOps for Autodiff<B, C> {
    fn activated(z: FloatTensor<Self>, function: Activated, kernels: Kernels) -> FloatTensor<Self> {
        let prepared = Activation.prepare::<C>([z.node()]).compute_bound().stateful();
        let y = B::activated(z.into_primitive(), function, kernels);
        match prepared {
            OpsKind::Tracked(prepared) => prepared.finish((y.clone(), function, kernels), y),
            OpsKind::UnTracked(prepared) => prepared.finish(y),
        }
    }

    fn normalized(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        axes: Vec<usize>,
        form: NormForm,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        let prepared = Normalization.prepare::<C>([x.node(), gamma.node(), beta.node()]).compute_bound().stateful();
        let (x, gamma, beta) = (x.into_primitive(), gamma.into_primitive(), beta.into_primitive());
        let (y, mean, variance) = B::normalized(x.clone(), gamma.clone(), beta, axes.clone(), form);
        let moments = [&mean, &variance].map(|moment| Self::from_inner(moment.clone()));
        let y = match prepared {
            OpsKind::Tracked(prepared) => prepared.finish(([x, gamma, mean, variance, y.clone()], axes, form), y),
            OpsKind::UnTracked(prepared) => prepared.finish(y),
        };
        let [mean, variance] = moments;
        (y, mean, variance)
    }
}

/// `phi(z)`, element by element.
pub fn activated<const D: usize>(z: Tensor<D>, function: Activated, kernels: Kernels) -> Tensor<D> {
    Tensor::from_dispatch(Dispatch::activated(z.into_dispatch(), function, kernels))
}

/// A normalized tensor, and the statistics it was normalized with.
#[derive(Clone, Debug)]
pub struct Normalized<const D: usize> {
    /// `gamma (x - mean) / sqrt(variance + epsilon) + beta`
    pub output: Tensor<D>,
    /// Outside the graph; the axes have the length 1, that of the rows one for each seed.
    pub mean: Tensor<D>,
    /// Likewise.
    pub variance: Tensor<D>,
}

/// Normalizes x over some axes, all but the units for batch norm, all but the batch for layer norm, and applies a function.
///
/// # Shapes
///
/// With several seeds all rows as many times, as in [`LayerOps`]:
///
/// - x: `[batch, units, ..]`
/// - gamma, beta: `[units]`
pub fn normalize<const D: usize>(
    x: Tensor<D>,
    gamma: Tensor<1>,
    beta: Tensor<1>,
    axes: Vec<usize>,
    form: NormForm,
) -> Normalized<D> {
    let (output, mean, variance) =
        Dispatch::normalized(x.into_dispatch(), gamma.into_dispatch(), beta.into_dispatch(), axes, form);
    let constant = |moment| {
        let moment = Tensor::<D>::from_dispatch(moment);
        if moment.is_autodiff() { moment.inner() } else { moment }
    };
    Normalized { output: Tensor::from_dispatch(output), mean: constant(mean), variance: constant(variance) }
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use burn::backend::Flex;
    use burn::tensor::{DType, Device, TensorData, s};

    use super::super::affine;
    use super::*;

    type Primitive = FloatTensor<Flex>;

    /// Numbers without a pattern: 13 rows and 37 columns, no multiple of any vector length.
    fn primitive(seed: usize, rows: usize, columns: usize) -> Primitive {
        let values: Vec<f32> =
            (0..rows * columns).map(|i| (((i + seed) * 7919 + seed * seed) % 1013) as f32 / 300.0 - 1.7).collect();
        Primitive::from_data(TensorData::new(values, [rows, columns]))
    }

    #[track_caller]
    fn assert_close(fused: Primitive, stock: Primitive) {
        let (fused, stock) = (fused.into_data(), stock.into_data());
        assert_eq!((fused.shape(), fused.dtype()), (stock.shape(), stock.dtype()));
        let tolerance = if stock.dtype() == DType::F64 { 1e-12 } else { 1e-5 };
        for (a, b) in fused.iter::<f64>().zip(stock.iter::<f64>()) {
            assert!((a - b).abs() <= tolerance * b.abs().max(1.0), "{a} and {b}");
        }
    }

    #[test]
    fn fused_and_stock_normalizations_agree_in_both_precisions() {
        let sizes = [(1, 13, 37), (1, 64, 16), (3, 33, 5), (2, 70, 130)];
        let cases = [([0], DType::F32), ([0], DType::F64), ([1], DType::F32), ([1], DType::F64)];
        for ((axes, dtype), (seeds, rows, units)) in cases.into_iter().flat_map(|case| sizes.map(|size| (case, size))) {
            let primitive = |seed, rows, columns| {
                let numbers = Tensor::<2>::from_primitive::<Flex>(primitive(seed, rows, columns));
                numbers.cast(dtype).try_into_primitive::<Flex>().expect("of flex")
            };
            for function in [None, Some(Activated::Sigmoid), Some(Activated::Tanh), Some(Activated::Relu)] {
                let form = NormForm { epsilon: 1e-3, function, seeds, kernels: Kernels::Fused };
                let (x, gradient) = (primitive(3, seeds * rows, units), primitive(8, seeds * rows, units));
                let vector = |seed| as_vector(&primitive(seed, seeds, units));
                let (gamma, beta) = (vector(5), vector(6));
                let fused = flex_layer::normalized([&x, &gamma, &beta], &axes, form).expect("a matrix");
                let (y, mean, variance) = stock_normalized::<Flex>(x.clone(), gamma.clone(), beta, &axes, form);
                assert_close(fused.0, y.clone());
                assert_close(fused.1, mean.clone());
                assert_close(fused.2, variance.clone());
                let tensors = [&x, &gamma, &mean, &variance, &y];
                let fused = flex_layer::normalized_backward(tensors, gradient.clone(), &axes, form).expect("a matrix");
                let stock = stock_normalized_backward::<Flex>(tensors.map(Clone::clone), gradient, &axes, form);
                assert_close(fused.0, stock.0);
                assert_close(fused.1, stock.1);
                assert_close(fused.2, stock.2);
            }
        }
    }

    /// Rows 9 to 21 of a tensor, which share its buffer.
    fn view(seed: usize) -> Tensor<2> {
        Tensor::<2>::from_data(primitive(seed, 40, 6).into_data(), &Device::flex()).slice(s![9..22, ..])
    }

    #[test]
    fn parts_of_tensors_are_read_and_nothing_beside_them() {
        let whole = |tensor: Tensor<2>| Tensor::<2>::from_data(tensor.into_data(), &Device::flex());
        let vector = |seed| Tensor::<1>::from_data(as_vector(&primitive(seed, 1, 6)).into_data(), &Device::flex());
        for axis in [0, 1] {
            let of = |x: Tensor<2>| normalize(x, vector(1), vector(2), vec![axis], form(1));
            let (part, copy) = (of(view(3)), of(whole(view(3))));
            assert_equal(part.output, copy.output);
            assert_equal(part.mean, copy.mean);
            assert_equal(part.variance, copy.variance);
        }
        let act = |x: Tensor<2>| activated(x, Activated::Tanh, Kernels::Fused);
        assert_equal(act(view(3)), act(whole(view(3))));
        let weight = || Tensor::<2>::from_data(primitive(4, 40, 7).into_data(), &Device::flex()).slice(s![5..11, ..]);
        let product = |x: Tensor<2>, weight: Tensor<2>| affine(x, weight, None, 1, Kernels::Fused);
        assert_equal(product(view(3), weight()), product(whole(view(3)), whole(weight())));
        // The gradient that comes back is a part too, and so is what was kept.
        let flex = |tensor: Tensor<2>| tensor.try_into_primitive::<Flex>().expect("of flex");
        let back = |y: Tensor<2>, gradient: Tensor<2>| {
            let found = Flex::activated_backward(flex(y), flex(gradient), Activated::Sigmoid, Kernels::Fused);
            Tensor::<2>::from_data(found.into_data(), &Device::flex())
        };
        assert_equal(back(view(5), view(6)), back(whole(view(5)), whole(view(6))));
    }

    fn form(seeds: usize) -> NormForm {
        NormForm { epsilon: 1e-3, function: None, seeds, kernels: Kernels::Fused }
    }

    fn as_vector(row: &Primitive) -> Primitive {
        let units = row.shape().num_elements();
        row.reshape(Shape::new([units]))
    }

    /// Against Burn's own graph of the same formulas.
    #[test]
    fn the_backward_passes_by_hand_are_those_of_burns_graph() {
        let device = Device::flex().autodiff();
        let leaf = |seed, rows, columns| {
            let data = primitive(seed, rows, columns).into_data();
            Tensor::<2>::from_data(data, &device).require_grad()
        };
        for axes in [vec![0], vec![1]] {
            let leaves = [leaf(1, 9, 6), leaf(2, 6, 7), leaf(3, 1, 7), leaf(4, 1, 7), leaf(5, 1, 7)];
            let [input, weight, bias, gamma, beta] = leaves.clone();
            let sum = affine(input, weight, Some(bias.reshape([7])), 1, Kernels::Fused);
            let y = normalize(sum, gamma.reshape([7]), beta.reshape([7]), axes.clone(), form(1)).output;
            let y = activated(y, Activated::Tanh, Kernels::Fused)
                + activated(leaves[0].clone(), Activated::Sigmoid, Kernels::Fused).sum().unsqueeze();
            let fused = (y.clone() * y).sum();

            let [input, weight, bias, gamma, beta] = leaves.clone();
            let sum = input.matmul(weight) + bias;
            let mean = sum.clone().mean_dim(axes[0]);
            let variance = (sum.clone() - mean.clone()).square().mean_dim(axes[0]);
            let y = ((sum - mean) / (variance + 1e-3).sqrt() * gamma + beta).tanh()
                + burn::tensor::activation::sigmoid(leaves[0].clone()).sum().unsqueeze();
            let stock = (y.clone() * y).sum();

            let (of_fused, of_stock) = (fused.backward(), stock.backward());
            for leaf in &leaves {
                let numbers = |gradient: Option<Tensor<2>>| gradient.expect("a gradient").into_data();
                let (a, b) = (numbers(leaf.grad(&of_fused)), numbers(leaf.grad(&of_stock)));
                let scale = b.iter::<f64>().fold(0.0, |largest: f64, x| largest.max(x.abs()));
                for (a, b) in a.iter::<f64>().zip(b.iter::<f64>()) {
                    // The gradient of a bias before batch norm is 0 but for rounding.
                    assert!((a - b).abs() <= 1e-5 * scale + 1e-4, "{axes:?}: {a} and {b}");
                }
            }
        }
    }

    /// Three networks of 9 rows, 6 inputs and 7 units each, side by side and one by one.
    #[test]
    fn the_blocks_of_several_seeds_are_the_layers_of_each_forward_and_backward() {
        const SEEDS: usize = 3;
        let device = Device::flex().autodiff();
        let leaf = |seed, rows, columns| Tensor::<2>::from_data(primitive(seed, rows, columns).into_data(), &device);
        let leaves = [leaf(1, 27, 6), leaf(2, 18, 7), leaf(3, 3, 7), leaf(4, 3, 7), leaf(5, 3, 7)];
        let weights = leaf(6, 27, 7);
        let layer = |leaves: [Tensor<2>; 5], has_bias: bool, axes: Vec<usize>, seeds: usize| {
            let [x, weight, bias, gamma, beta] = leaves;
            let bias = has_bias.then(|| bias.reshape([-1]));
            let z = affine(x, weight, bias, seeds, Kernels::Fused);
            normalize(z, gamma.reshape([-1]), beta.reshape([-1]), axes, form(seeds))
        };
        for (has_bias, axes) in [(true, vec![0]), (true, vec![1]), (false, vec![1])] {
            let together = leaves.clone().map(Tensor::require_grad);
            let of_all = layer(together.clone(), has_bias, axes.clone(), SEEDS);
            let gradients = (of_all.output.clone() * weights.clone()).sum().backward();
            for seed in 0..SEEDS {
                let block = |tensor: Tensor<2>| tensor.chunk(SEEDS, 0).remove(seed);
                let single = leaves.clone().map(|leaf| block(leaf).detach().require_grad());
                let of_one = layer(single.clone(), has_bias, axes.clone(), 1);
                let expected = (of_one.output.clone() * block(weights.clone())).sum().backward();
                assert_equal(block(of_all.output.clone()), of_one.output);
                assert_equal(block(of_all.mean.clone()), of_one.mean);
                assert_equal(block(of_all.variance.clone()), of_one.variance);
                for (all, one) in together.iter().zip(&single) {
                    let (all, one) = (all.grad(&gradients), one.grad(&expected));
                    assert_eq!(all.is_some(), one.is_some());
                    if let Some((all, one)) = all.zip(one) {
                        assert_equal(block(all), one);
                    }
                }
            }
        }
    }

    #[track_caller]
    fn assert_equal(block: Tensor<2>, single: Tensor<2>) {
        assert_eq!(block.dims(), single.dims());
        for (a, b) in block.into_data().iter::<f64>().zip(single.into_data().iter::<f64>()) {
            assert!((a - b).abs() <= 1e-5 * b.abs().max(1.0), "{a} and {b}");
        }
    }
}

#[cfg(all(test, feature = "wgpu"))]
mod gpu_tests {
    use burn::backend::ops::FloatTensorOps;

    use super::*;
    use crate::kernel::cube::{Fused, adapter_for_tests, assert_close, primitive, values};

    /// With widths that are no multiple of a workgroup's, more rows than it has threads for and fewer.
    #[test]
    fn one_launch_and_the_single_operations_agree_on_normalizations_and_their_gradients() {
        let Some(device) = adapter_for_tests() else { return };
        let functions = [None, Some(Activated::Relu), Some(Activated::Tanh), Some(Activated::Sigmoid)];
        let sizes = [(9, 1, 1), (67, 33, 1), (5, 64, 3), (300, 7, 2), (3, 2048, 1), (1100, 3, 1)];
        let cases = sizes.into_iter().flat_map(|size| [(size, [0]), (size, [1])]);
        for ((rows, units, seeds), axes) in cases {
            for function in functions {
                let what = format!("{rows} x {units}, {seeds} seeds, over {axes:?}, {function:?}");
                let form = NormForm { epsilon: 1e-5, function, seeds, kernels: Kernels::Fused };
                let vector = |seed| {
                    Fused::float_reshape(primitive(seed, [1, seeds * units], 1.0, &device), Shape::new([seeds * units]))
                };
                let x = primitive(1, [seeds * rows, units], 1.0, &device);
                let (gamma, beta) = (vector(2), vector(3));
                // Far from 0 a mean of squares would lose the variance; the mean has fewer digits there itself.
                let far = Fused::float_add_scalar(x.clone(), 20.0.into());
                let fused = cube::normalized([&far, &gamma, &beta], &axes, form).expect("a matrix");
                let stock = stock_normalized::<Fused>(far, gamma.clone(), beta.clone(), &axes, form);
                assert_close(fused.1, stock.1, &what);
                assert_close(fused.2, stock.2, &what);
                let fused = cube::normalized([&x, &gamma, &beta], &axes, form).expect("a matrix");
                let (y, mean, variance) = stock_normalized::<Fused>(x.clone(), gamma.clone(), beta, &axes, form);
                assert_close(fused.0, y.clone(), &what);
                assert_close(fused.2, variance.clone(), &what);
                let saved = [x, gamma, mean, variance, y];
                let gradient = primitive(4, [seeds * rows, units], 1.0, &device);
                let fused = cube::normalized_backward(&saved, &gradient, &axes, form).expect("a matrix");
                let stock = stock_normalized_backward::<Fused>(saved, gradient, &axes, form);
                assert_close(fused.0, stock.0, &what);
                assert_close(fused.1, stock.1, &what);
                assert_close(fused.2, stock.2, &what);
            }
        }
    }

    #[test]
    fn a_long_sum_of_equal_numbers_keeps_its_digits() {
        let Some(device) = adapter_for_tests() else { return };
        let form = NormForm { epsilon: 1e-5, function: None, seeds: 1, kernels: Kernels::Fused };
        for (dims, units, axes) in [([4096, 2], 2, [0]), ([2, 2048], 2048, [1])] {
            let equal = Fused::float_add_scalar(primitive(1, dims, 0.0, &device), 0.1.into());
            let vector = Fused::float_reshape(primitive(2, [1, units], 1.0, &device), Shape::new([units]));
            let (_, mean, variance) = cube::normalized([&equal, &vector, &vector], &axes, form).expect("a matrix");
            assert!(values(mean).iter().all(|mean| (mean / 0.1 - 1.0).abs() < 2e-6), "{dims:?}");
            assert!(values(variance).iter().all(|variance| *variance < 1e-12), "{dims:?}");
        }
    }

    /// What the kernels are not for.
    #[test]
    fn images_long_batches_wide_layers_and_stock_kernels_take_the_single_operations() {
        let Some(device) = adapter_for_tests() else { return };
        let form = NormForm { epsilon: 1e-5, function: None, seeds: 1, kernels: Kernels::Fused };
        let has_kernels = |shape: &[usize], axes: &[usize], form: NormForm| {
            let (rows, units) = (shape[0], shape.iter().skip(1).product::<usize>());
            let of_shape = |seed| Fused::float_reshape(primitive(seed, [rows, units], 1.0, &device), shape.into());
            let vector = || Fused::float_reshape(primitive(2, [1, shape[1]], 1.0, &device), Shape::new([shape[1]]));
            let forward = cube::normalized([&of_shape(1), &vector(), &vector()], axes, form).is_some();
            // Neither reads the moments before it has decided.
            let saved = [of_shape(1), vector(), vector(), vector(), of_shape(2)];
            [forward, cube::normalized_backward(&saved, &of_shape(3), axes, form).is_some()]
        };
        assert_eq!(has_kernels(&[4096, 2], &[0], form), [true, true]);
        assert_eq!(has_kernels(&[4097, 2], &[0], form), [false, false]);
        assert_eq!(has_kernels(&[4097, 2], &[1], form), [true, false], "the sums over its rows are long");
        assert_eq!(has_kernels(&[2, 2048], &[1], form), [true, true]);
        assert_eq!(has_kernels(&[2, 2049], &[1], form), [false, false]);
        assert_eq!(has_kernels(&[2, 2049], &[0], form), [true, true]);
        assert_eq!(has_kernels(&[4, 2, 2], &[0, 2], form), [false, false]);
        assert_eq!(has_kernels(&[8, 2], &[0], NormForm { kernels: Kernels::Stock, ..form }), [false, false]);
    }

    /// A forward pass by its kernel whose backward pass takes the single operations.
    #[test]
    fn a_long_batch_of_layer_norm_has_the_gradients_of_the_stock_form() {
        let Some(device) = adapter_for_tests() else { return };
        let leaf = |seed, rows| {
            let tensor = Tensor::<2>::from_primitive::<Fused>(primitive(seed, [rows, 5], 1.0, &device));
            Tensor::<2>::from_data(tensor.into_data(), &device.clone().autodiff()).require_grad()
        };
        let gradients = |kernels| {
            let leaves = [leaf(1, 4100), leaf(2, 1), leaf(3, 1)];
            let [x, gamma, beta] = leaves.clone();
            let form = NormForm { epsilon: 1e-5, function: Some(Activated::Tanh), seeds: 1, kernels };
            let y = normalize(x, gamma.reshape([5]), beta.reshape([5]), vec![1], form).output;
            let found = (y * leaf(4, 4100).detach()).sum().backward();
            leaves.map(|leaf| {
                let gradient = leaf.grad(&found).expect("a gradient");
                gradient.try_into_primitive::<Fused>().expect("on a GPU")
            })
        };
        let pairs = gradients(Kernels::Fused).into_iter().zip(gradients(Kernels::Stock));
        pairs.for_each(|(fused, stock)| assert_close(fused, stock, "4100 x 5"));
    }
}
