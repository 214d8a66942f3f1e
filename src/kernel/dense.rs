//! A dense layer, `phi(x W + b)`, as one node of Burn's graph.
//!
//! The stock form is made of the backend's own operations. The fused form for flex (`flex_dense`) adds the bias and applies the function
//! while the product is in the cache; its backward pass takes the derivative from what the forward pass left, and the two products
//! side by side.
//!
//! Several networks that differ in their seeds can stand below each other, in blocks of rows: their products are those of the blocks.

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, AutodiffBackend, Backend, Dispatch, TensorMetadata, backend_extension};
use burn::tensor::{Shape, Tensor};

#[cfg(any(feature = "wgpu", feature = "cuda"))]
use super::cube;
use super::layer::{
    Activated, by_seed, by_seed_and_unit, joined, minus_from_one, stock_activated, stock_activated_backward,
    sum_by_seed_and_unit,
};
#[cfg(feature = "flex")]
use super::{flex_dense, pool};
use crate::config::Kernels;

/// A function that is applied to each element.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Elementwise {
    /// z
    Identity,
    /// 1 / (1 + exp(-z))
    Sigmoid,
    /// tanh(z)
    Tanh,
    /// max(z, 0)
    Relu,
    /// z, below 0 times a slope.
    LeakyRelu {
        /// The slope.
        slope: f64,
    },
    /// z, below 0 times a slope that is learned.
    Prelu,
    /// scale z, below 0 scale alpha (exp(z) - 1): ELU and SELU.
    Exponential {
        /// Where it ends, before it is scaled.
        alpha: f64,
        /// The slope above 0.
        scale: f64,
    },
    /// z P(x <= z) for x of N(0, 1)
    Gelu,
    /// ln(1 + exp(z))
    Softplus,
}

impl From<Activated> for Elementwise {
    fn from(function: Activated) -> Self {
        match function {
            Activated::Sigmoid => Self::Sigmoid,
            Activated::Tanh => Self::Tanh,
            Activated::Relu => Self::Relu,
        }
    }
}

impl Elementwise {
    /// Whether the derivative follows from the value alone, so that z need not be kept.
    pub fn keeps_value(self) -> bool {
        match self {
            Self::Identity | Self::Sigmoid | Self::Tanh | Self::Relu => true,
            Self::LeakyRelu { slope } => slope > 0.0,
            Self::Exponential { alpha, scale } => alpha * scale > 0.0,
            Self::Prelu | Self::Gelu | Self::Softplus => false,
        }
    }

    /// The function among those whose derivative follows from their value.
    pub fn activated(self) -> Option<Activated> {
        match self {
            Self::Sigmoid => Some(Activated::Sigmoid),
            Self::Tanh => Some(Activated::Tanh),
            Self::Relu => Some(Activated::Relu),
            _ => None,
        }
    }
}

/// What a dense layer is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DenseForm {
    /// What is applied to `x W + b`.
    pub function: Elementwise,
    /// The networks that stand below each other.
    pub seeds: usize,
    /// Whether the fused form is taken where the backend has one.
    pub kernels: Kernels,
}

/// What is called: the backend extension takes tensors that are there, so that others stand for what is not.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DenseCall {
    /// The layer.
    pub form: DenseForm,
    /// Whether there is a bias.
    pub has_bias: bool,
    /// Whether there is a learned slope.
    pub has_slope: bool,
    /// Whether the gradient with respect to z is wanted.
    pub has_offset: bool,
}

/// The gradients that are asked for, in the order in which they come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WantedOfDense {
    /// With respect to z, `[batch, units]`.
    pub of_z: bool,
    /// With respect to x, `[batch, inputs]`.
    pub of_x: bool,
    /// With respect to the weights, `[inputs, units]`.
    pub of_weight: bool,
    /// With respect to the bias, `[units]`.
    pub of_bias: bool,
    /// With respect to the slope of PReLU, `[1]`.
    pub of_slope: bool,
}

/// Dense layers on a backend. The default bodies run on every backend.
#[backend_extension(
    Autodiff,
    Flex: cfg(feature = "flex"),
    NdArray: cfg(feature = "ndarray"),
    Cube: cfg(any(feature = "wgpu", feature = "cuda"))
)]
pub trait DenseOps: Backend {
    /// `phi(x W + b)` and what the backward pass needs of it: the same or, where [`Elementwise::keeps_value`] is false, `x W + b`.
    /// The gradient of the offset is that with respect to z; its value is not looked at.
    fn dense(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        slope: FloatTensor<Self>,
        offset: FloatTensor<Self>,
        call: DenseCall,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        let _ = offset;
        stock_dense::<Self>(x, weight, call.has_bias.then_some(bias), call.has_slope.then_some(slope), call.form)
    }

    /// The gradients that are wanted, in the order of [`WantedOfDense`].
    fn dense_backward(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        slope: FloatTensor<Self>,
        kept: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        call: DenseCall,
        wanted: WantedOfDense,
    ) -> Vec<FloatTensor<Self>> {
        let slope = call.has_slope.then_some(slope);
        stock_dense_backward::<Self>(x, weight, slope, kept, gradient, call.form, wanted)
    }
}

/// The product of each block of x and that of the other factor.
fn block_products<B: Backend>(x: FloatTensor<B>, y: FloatTensor<B>, seeds: usize) -> FloatTensor<B> {
    joined::<B>(B::float_matmul(by_seed::<B>(x, seeds), by_seed::<B>(y, seeds)), seeds)
}

/// Each block transposed.
fn block_transposes<B: Backend>(x: FloatTensor<B>, seeds: usize) -> FloatTensor<B> {
    if seeds == 1 {
        return B::float_transpose(x);
    }
    joined::<B>(B::float_swap_dims(by_seed::<B>(x, seeds), 1, 2), seeds)
}

/// `x` with the vector of each block combined with its rows, `[seeds x columns]` or `[seeds]` numbers.
fn with_vector<B: Backend>(
    x: FloatTensor<B>,
    vector: FloatTensor<B>,
    seeds: usize,
    combine: impl Fn(FloatTensor<B>, FloatTensor<B>) -> FloatTensor<B>,
) -> FloatTensor<B> {
    joined::<B>(combine(by_seed::<B>(x, seeds), by_seed_and_unit::<B>(vector, 2, seeds)), seeds)
}

pub(super) fn stock_dense<B: Backend>(
    x: FloatTensor<B>,
    weight: FloatTensor<B>,
    bias: Option<FloatTensor<B>>,
    slope: Option<FloatTensor<B>>,
    form: DenseForm,
) -> (FloatTensor<B>, FloatTensor<B>) {
    let product = block_products::<B>(x, weight, form.seeds);
    let z = match bias {
        Some(bias) => with_vector::<B>(product, bias, form.seeds, B::float_add),
        None => product,
    };
    let y = stock_elementwise::<B>(z.clone(), slope, form);
    (y.clone(), if form.function.keeps_value() { y } else { z })
}

/// x where it is above 0, else 0; what is not a number stays so.
fn above<B: Backend>(x: FloatTensor<B>) -> FloatTensor<B> {
    B::relu(x)
}

pub(super) fn stock_elementwise<B: Backend>(
    z: FloatTensor<B>,
    slope: Option<FloatTensor<B>>,
    form: DenseForm,
) -> FloatTensor<B> {
    if let Some(function) = form.function.activated() {
        return stock_activated::<B>(z, function);
    }
    match form.function {
        Elementwise::Identity | Elementwise::Sigmoid | Elementwise::Tanh | Elementwise::Relu => z,
        Elementwise::LeakyRelu { slope } => {
            let below = B::float_mul_scalar(above::<B>(B::float_neg(z.clone())), slope.into());
            B::float_sub(above::<B>(z), below)
        }
        Elementwise::Prelu => match slope {
            Some(slope) => {
                let below = above::<B>(B::float_neg(z.clone()));
                B::float_sub(above::<B>(z), with_vector::<B>(below, slope, form.seeds, B::float_mul))
            }
            None => z,
        },
        Elementwise::Exponential { alpha, scale } => {
            // The exponential never sees a positive number, for which it could overflow.
            let below = B::float_neg(above::<B>(B::float_neg(z.clone())));
            let below = B::float_add_scalar(B::float_exp(below), (-1.0).into());
            let above = B::float_mul_scalar(above::<B>(z), scale.into());
            B::float_add(above, B::float_mul_scalar(below, (alpha * scale).into()))
        }
        Elementwise::Gelu => B::float_mul(z.clone(), normal_probability::<B>(z)),
        Elementwise::Softplus => {
            let small = B::float_exp(B::float_neg(B::float_abs(z.clone())));
            B::float_add(above::<B>(z), B::float_log1p(small))
        }
    }
}

/// P(x <= z) for x of N(0, 1).
fn normal_probability<B: Backend>(z: FloatTensor<B>) -> FloatTensor<B> {
    let erf = B::float_erf(B::float_mul_scalar(z, std::f64::consts::FRAC_1_SQRT_2.into()));
    B::float_mul_scalar(B::float_add_scalar(erf, 1.0.into()), 0.5.into())
}

/// 1 where x is above 0, else 0.
fn is_above<B: Backend>(x: FloatTensor<B>) -> FloatTensor<B> {
    B::float_sign(above::<B>(x))
}

/// The gradient with respect to z.
fn stock_derivative<B: Backend>(
    kept: FloatTensor<B>,
    gradient: FloatTensor<B>,
    slope: Option<FloatTensor<B>>,
    form: DenseForm,
) -> FloatTensor<B> {
    if let Some(function) = form.function.activated() {
        return stock_activated_backward::<B>(kept, gradient, function);
    }
    let derivative = match form.function {
        Elementwise::Identity | Elementwise::Sigmoid | Elementwise::Tanh | Elementwise::Relu => return gradient,
        // The same at 0 as above it.
        Elementwise::LeakyRelu { slope } => {
            let below = is_above::<B>(B::float_neg(kept));
            minus_from_one::<B>(B::float_mul_scalar(below, (1.0 - slope).into()))
        }
        Elementwise::Prelu => match slope {
            Some(slope) => {
                let below = is_above::<B>(B::float_neg(kept));
                let elsewhere = minus_from_one::<B>(below.clone());
                B::float_add(elsewhere, with_vector::<B>(below, slope, form.seeds, B::float_mul))
            }
            None => return gradient,
        },
        Elementwise::Exponential { alpha, scale } => {
            // Below 0 the derivative of scale alpha (exp(z) - 1) is the value and scale alpha.
            let is_positive = is_above::<B>(kept.clone());
            let below = B::float_mul(
                B::float_add_scalar(kept, (alpha * scale).into()),
                minus_from_one::<B>(is_positive.clone()),
            );
            B::float_add(B::float_mul_scalar(is_positive, scale.into()), below)
        }
        Elementwise::Gelu => {
            let square = B::float_mul_scalar(B::float_mul(kept.clone(), kept.clone()), (-0.5).into());
            let factor = 0.5 * std::f64::consts::FRAC_2_SQRT_PI * std::f64::consts::FRAC_1_SQRT_2;
            let density = B::float_mul_scalar(B::float_exp(square), factor.into());
            B::float_add(normal_probability::<B>(kept.clone()), B::float_mul(kept, density))
        }
        Elementwise::Softplus => B::sigmoid(kept),
    };
    B::float_mul(gradient, derivative)
}

pub(super) fn stock_dense_backward<B: Backend>(
    x: FloatTensor<B>,
    weight: FloatTensor<B>,
    slope: Option<FloatTensor<B>>,
    kept: FloatTensor<B>,
    gradient: FloatTensor<B>,
    form: DenseForm,
    wanted: WantedOfDense,
) -> Vec<FloatTensor<B>> {
    let seeds = form.seeds;
    let of_slope = wanted.of_slope.then(|| {
        let below = B::float_neg(above::<B>(B::float_neg(kept.clone())));
        let by_unit = sum_by_seed_and_unit::<B>(by_seed::<B>(B::float_mul(below, gradient.clone()), seeds), seeds);
        let units = by_unit.shape().num_elements() / seeds;
        let sums = B::float_sum_dim(B::float_reshape(by_unit, Shape::new([seeds, units])), 1);
        B::float_reshape(sums, Shape::new([seeds]))
    });
    let of_z = stock_derivative::<B>(kept, gradient, slope, form);
    let of_bias = wanted.of_bias.then(|| sum_by_seed_and_unit::<B>(by_seed::<B>(of_z.clone(), seeds), seeds));
    with_products::<B>(x, weight, of_z, [of_bias, of_slope], seeds, wanted)
}

/// The gradients that are wanted, from that with respect to z and those with respect to bias and slope.
fn with_products<B: Backend>(
    x: FloatTensor<B>,
    weight: FloatTensor<B>,
    of_z: FloatTensor<B>,
    [of_bias, of_slope]: [Option<FloatTensor<B>>; 2],
    seeds: usize,
    wanted: WantedOfDense,
) -> Vec<FloatTensor<B>> {
    let of_x = wanted.of_x.then(|| block_products::<B>(of_z.clone(), block_transposes::<B>(weight, seeds), seeds));
    let of_weight = wanted.of_weight.then(|| block_products::<B>(block_transposes::<B>(x, seeds), of_z.clone(), seeds));
    [wanted.of_z.then_some(of_z), of_x, of_weight, of_bias, of_slope].into_iter().flatten().collect()
}

#[cfg(feature = "flex")]
impl DenseOps for burn::backend::Flex {
    fn dense(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        slope: FloatTensor<Self>,
        _: FloatTensor<Self>,
        call: DenseCall,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        let (bias, slope) = (call.has_bias.then_some(bias), call.has_slope.then_some(slope));
        let fused = flex_dense::dense(&x, &weight, bias.as_ref(), slope.as_ref(), call.form);
        fused.unwrap_or_else(|| stock_dense::<Self>(x, weight, bias, slope, call.form))
    }

    fn dense_backward(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        slope: FloatTensor<Self>,
        kept: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        call: DenseCall,
        wanted: WantedOfDense,
    ) -> Vec<FloatTensor<Self>> {
        let slope = call.has_slope.then_some(slope);
        match flex_dense::dense_backward(&x, &weight, slope.as_ref(), &kept, gradient, call.form, wanted) {
            Ok(gradients) => {
                // The layer above is done with it.
                pool::recycle_any(kept);
                gradients
            }
            Err(gradient) => stock_dense_backward::<Self>(x, weight, slope, kept, gradient, call.form, wanted),
        }
    }
}

#[cfg(feature = "ndarray")]
impl DenseOps for burn::backend::NdArray {}

#[cfg(any(feature = "wgpu", feature = "cuda"))]
impl DenseOps for cube::Fused {
    fn dense_backward(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        slope: FloatTensor<Self>,
        kept: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        call: DenseCall,
        wanted: WantedOfDense,
    ) -> Vec<FloatTensor<Self>> {
        let form = call.form;
        let function = form.function.activated().filter(|_| form.kernels == Kernels::Fused && wanted.of_bias);
        let fused = function.and_then(|function| cube::derivative_and_sums(&kept, &gradient, function, form.seeds));
        if let Some((of_z, of_bias)) = fused {
            return with_products::<Self>(x, weight, of_z, [Some(of_bias), None], form.seeds, wanted);
        }
        let slope = call.has_slope.then_some(slope);
        stock_dense_backward::<Self>(x, weight, slope, kept, gradient, form, wanted)
    }
}

#[derive(Debug)]
struct Dense;

/// What the backward pass needs.
#[derive(Clone, Debug)]
struct DenseState<B: Backend> {
    x: FloatTensor<B>,
    weight: FloatTensor<B>,
    slope: FloatTensor<B>,
    kept: FloatTensor<B>,
    call: DenseCall,
}

impl<B: DenseOps> Backward<B, 5> for Dense {
    type State = DenseState<B>;

    fn backward(self, ops: Ops<Self::State, 5>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let gradient = gradients.consume::<B>(&ops.node);
        let [of_z, of_x, of_weight, of_bias, of_slope] =
            [0, 1, 2, 3, 4].map(|place: usize| ops.parents[place].is_some());
        let wanted = WantedOfDense { of_z, of_x, of_weight, of_bias, of_slope };
        let DenseState { x, weight, slope, kept, call } = ops.state;
        let found = B::dense_backward(x, weight, slope, kept, gradient, call, wanted);
        for (node, gradient) in ops.parents.iter().flatten().zip(found) {
            gradients.register::<B>(node.id, gradient);
        }
    }
}

impl<B: DenseOps, C: CheckpointStrategy> DenseOps for Autodiff<B, C> {
    fn dense(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        slope: FloatTensor<Self>,
        offset: FloatTensor<Self>,
        call: DenseCall,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        let constant = |tensor: FloatTensor<B>| <Self as AutodiffBackend>::from_inner(tensor);
        // What is not there is a constant, of which no gradient is asked.
        let node = |tensor: &FloatTensor<Self>, is_there: bool| {
            if is_there { tensor.node() } else { constant(tensor.primitive().clone()).node() }
        };
        let nodes = [
            node(&offset, call.has_offset),
            x.node(),
            weight.node(),
            node(&bias, call.has_bias),
            node(&slope, call.has_slope),
        ];
        let prepared = Dense.prepare::<C>(nodes).compute_bound().stateful();
        let (x, weight) = (x.into_primitive(), weight.into_primitive());
        let (bias, slope, offset) = (bias.into_primitive(), slope.into_primitive(), offset.into_primitive());
        let (y, kept) = B::dense(x.clone(), weight.clone(), bias, slope.clone(), offset, call);
        match prepared {
            OpsKind::Tracked(prepared) => {
                let state = DenseState { x, weight, slope, kept: kept.clone(), call };
                (prepared.finish(state, y), constant(kept))
            }
            OpsKind::UnTracked(prepared) => (prepared.finish(y), constant(kept)),
        }
    }
}

/// The parameters of a dense layer.
#[derive(Clone, Debug)]
pub struct DenseParameters {
    /// `[seeds x inputs, units]`
    pub weight: Tensor<2>,
    /// `[seeds x units]`
    pub bias: Option<Tensor<1>>,
    /// `[seeds]`, the slope of PReLU.
    pub slope: Option<Tensor<1>>,
}

/// `x W + b`, for as many networks below each other as there are seeds.
///
/// # Shapes
///
/// - x: `[seeds x batch, inputs]`
/// - weight: `[seeds x inputs, units]`
/// - bias: `[seeds x units]`
/// - returns: `[seeds x batch, units]`
pub fn affine(x: Tensor<2>, weight: Tensor<2>, bias: Option<Tensor<1>>, seeds: usize, kernels: Kernels) -> Tensor<2> {
    let form = DenseForm { function: Elementwise::Identity, seeds, kernels };
    dense(x, DenseParameters { weight, bias, slope: None }, None, form)
}

/// `phi(x W + b)`
///
/// The gradient of `offset`, a leaf whose value is not looked at, is that with respect to `x W + b`.
///
/// # Shapes
///
/// - x: `[seeds x batch, inputs]`
/// - returns: `[seeds x batch, units]`
pub fn dense(x: Tensor<2>, parameters: DenseParameters, offset: Option<Tensor<2>>, form: DenseForm) -> Tensor<2> {
    let DenseParameters { weight, bias, slope } = parameters;
    let call = DenseCall { form, has_bias: bias.is_some(), has_slope: slope.is_some(), has_offset: offset.is_some() };
    let weight = weight.into_dispatch();
    let or_weight = |tensor: Option<Tensor<1>>| tensor.map_or_else(|| weight.clone(), Tensor::into_dispatch);
    let (bias, slope) = (or_weight(bias), or_weight(slope));
    let offset = offset.map_or_else(|| weight.clone(), Tensor::into_dispatch);
    let (y, _) = Dispatch::dense(x.into_dispatch(), weight, bias, slope, offset, call);
    Tensor::from_dispatch(y)
}

#[cfg(all(test, feature = "flex"))]
pub(super) mod tests {
    use burn::backend::Flex;
    use burn::tensor::{Element, ElementConversion, TensorData};

    use super::*;

    type Primitive = FloatTensor<Flex>;

    pub(in super::super) const FUNCTIONS: [Elementwise; 10] = [
        Elementwise::Identity,
        Elementwise::Sigmoid,
        Elementwise::Tanh,
        Elementwise::Relu,
        Elementwise::LeakyRelu { slope: 0.1 },
        Elementwise::LeakyRelu { slope: -0.2 },
        Elementwise::Prelu,
        Elementwise::Exponential { alpha: 1.67, scale: 1.05 },
        Elementwise::Gelu,
        Elementwise::Softplus,
    ];

    const EVERYTHING: WantedOfDense =
        WantedOfDense { of_z: true, of_x: true, of_weight: true, of_bias: true, of_slope: true };

    /// Numbers without a pattern.
    fn numbers(seed: usize, count: usize) -> impl Iterator<Item = f64> {
        (0..count).map(move |i| (((i + seed) * 7919 + seed * seed) % 1013) as f64 / 500.0 - 1.0)
    }

    fn tensor<E: Element>(seed: usize, shape: &[usize], scale: f64) -> Primitive {
        let values: Vec<E> = numbers(seed, shape.iter().product()).map(|x| (scale * x).elem()).collect();
        Primitive::from_data(TensorData::new(values, shape.to_vec()))
    }

    /// A layer and a gradient of what it hands on.
    struct Layer {
        x: Primitive,
        weight: Primitive,
        bias: Primitive,
        slope: Primitive,
        gradient: Primitive,
    }

    fn layer<E: Element>(seeds: usize, [batch, inputs, units]: [usize; 3]) -> Layer {
        Layer {
            x: tensor::<E>(1, &[seeds * batch, inputs], 1.0),
            weight: tensor::<E>(2, &[seeds * inputs, units], 2.0 / (inputs as f64).sqrt()),
            bias: tensor::<E>(3, &[seeds * units], 0.5),
            slope: tensor::<E>(4, &[seeds], 0.3),
            gradient: tensor::<E>(5, &[seeds * batch, units], 1.0),
        }
    }

    #[track_caller]
    fn assert_close(fused: &Primitive, stock: &Primitive, tolerance: f64, what: &str) {
        let (fused, stock) = (fused.clone().into_data(), stock.clone().into_data());
        assert_eq!(fused.shape(), stock.shape(), "{what}");
        let scale = stock.iter::<f64>().fold(0.0, |largest: f64, x| largest.max(x.abs()));
        for (a, b) in fused.iter::<f64>().zip(stock.iter::<f64>()) {
            assert!((a - b).abs() <= tolerance * scale, "{what}: {a} and {b} of {scale}");
        }
    }

    /// Fused against stock: forward, and every gradient.
    fn compare<E: Element>(tolerance: f64) {
        let shapes = [[1, 1, 1], [13, 37, 29], [128, 64, 10], [70, 33, 65], [32, 100, 128], [300, 17, 48]];
        for shape in shapes {
            for (seeds, function) in [1, 3].into_iter().flat_map(|seeds| FUNCTIONS.map(|function| (seeds, function))) {
                let what = format!("{function:?}, {seeds} x {shape:?}, {}", std::any::type_name::<E>());
                let form = DenseForm { function, seeds, kernels: Kernels::Fused };
                let Layer { x, weight, bias, slope, gradient } = layer::<E>(seeds, shape);
                let slope = (function == Elementwise::Prelu).then_some(slope);
                let wanted = WantedOfDense { of_slope: slope.is_some(), ..EVERYTHING };
                for bias in [Some(&bias), None] {
                    let fused = flex_dense::dense(&x, &weight, bias, slope.as_ref(), form).expect("has a fused form");
                    let stock = stock_dense::<Flex>(x.clone(), weight.clone(), bias.cloned(), slope.clone(), form);
                    assert_close(&fused.0, &stock.0, tolerance, &what);
                    assert_close(&fused.1, &stock.1, tolerance, &what);
                }
                let (_, kept) = stock_dense::<Flex>(x.clone(), weight.clone(), Some(bias.clone()), slope.clone(), form);
                let fused =
                    flex_dense::dense_backward(&x, &weight, slope.as_ref(), &kept, gradient.clone(), form, wanted);
                let fused = fused.expect("has a fused form");
                let stock = stock_dense_backward::<Flex>(x, weight, slope, kept, gradient, form, wanted);
                assert_eq!(fused.len(), stock.len());
                for (place, (fused, stock)) in fused.iter().zip(&stock).enumerate() {
                    assert_close(fused, stock, tolerance, &format!("gradient {place}, {what}"));
                }
            }
        }
    }

    #[test]
    fn fused_and_stock_layers_agree_in_both_precisions() {
        compare::<f32>(1e-5);
        compare::<f64>(1e-12);
    }

    #[test]
    fn only_the_gradients_that_are_wanted_come_and_in_their_order() {
        let form = DenseForm { function: Elementwise::Tanh, seeds: 1, kernels: Kernels::Fused };
        let Layer { x, weight, bias, gradient, .. } = layer::<f32>(1, [40, 30, 20]);
        let (_, kept) = stock_dense::<Flex>(x.clone(), weight.clone(), Some(bias), None, form);
        let found = |wanted: WantedOfDense| {
            flex_dense::dense_backward(&x, &weight, None, &kept, gradient.clone(), form, wanted).expect("fused")
        };
        let all = found(WantedOfDense { of_slope: false, ..EVERYTHING });
        assert_eq!(all.len(), 4);
        let none = WantedOfDense { of_z: false, of_x: false, of_weight: false, of_bias: false, of_slope: false };
        assert!(found(none).is_empty());
        let some = found(WantedOfDense { of_weight: true, of_bias: true, ..none });
        assert_close(&some[0], &all[2], 0.0, "weights");
        assert_close(&some[1], &all[3], 0.0, "bias");
    }

    /// The sum of the products of the layer's values and the gradient, in f64.
    fn cost(layer: &Layer, form: DenseForm) -> f64 {
        let Layer { x, weight, bias, slope, gradient } = layer;
        let (y, _) = flex_dense::dense(x, weight, Some(bias), Some(slope), form).expect("has a fused form");
        y.into_data().iter::<f64>().zip(gradient.clone().into_data().iter::<f64>()).map(|(y, g)| y * g).sum()
    }

    /// A tensor with one number moved.
    fn moved(tensor: &Primitive, place: usize, by: f64) -> Primitive {
        let data = tensor.clone().into_data();
        let mut values: Vec<f64> = data.iter::<f64>().collect();
        values[place] += by;
        Primitive::from_data(TensorData::new(values, data.shape().clone()))
    }

    #[test]
    fn every_backward_pass_is_that_of_finite_differences() {
        const STEP: f64 = 1e-6;
        for (seeds, function) in [1, 2].into_iter().flat_map(|seeds| FUNCTIONS.map(|function| (seeds, function))) {
            let form = DenseForm { function, seeds, kernels: Kernels::Fused };
            let layer = layer::<f64>(seeds, [5, 4, 3]);
            let wanted = WantedOfDense { of_slope: function == Elementwise::Prelu, ..EVERYTHING };
            let (_, kept) =
                flex_dense::dense(&layer.x, &layer.weight, Some(&layer.bias), Some(&layer.slope), form).expect("fused");
            let (x, weight, gradient) = (&layer.x, &layer.weight, layer.gradient.clone());
            let found = flex_dense::dense_backward(x, weight, Some(&layer.slope), &kept, gradient, form, wanted);
            let found = found.expect("has a fused form");
            let change = |place: usize, kind: usize, by: f64| {
                let Layer { x, weight, bias, slope, gradient } = &layer;
                let pick = |this: usize, tensor: &Primitive| {
                    if this == kind { moved(tensor, place, by) } else { tensor.clone() }
                };
                let (x, weight) = (pick(1, x), pick(2, weight));
                let (bias, slope, gradient) = (pick(3, bias), pick(4, slope), gradient.clone());
                cost(&Layer { x, weight, bias, slope, gradient }, form)
            };
            for (kind, gradient) in found.iter().enumerate().skip(1) {
                for (place, found) in gradient.clone().into_data().iter::<f64>().enumerate() {
                    let expected = (change(place, kind, STEP) - change(place, kind, -STEP)) / (2.0 * STEP);
                    assert!((found - expected).abs() < 1e-7, "{function:?}, {kind}, {place}: {found}, {expected}");
                }
            }
        }
    }

    #[test]
    fn gradients_at_the_end_of_the_range_keep_their_digits() {
        let form = DenseForm { function: Elementwise::Sigmoid, seeds: 1, kernels: Kernels::Fused };
        let Layer { x, weight, bias, gradient, .. } = layer::<f32>(1, [64, 48, 32]);
        let (_, kept) = stock_dense::<Flex>(x.clone(), weight.clone(), Some(bias), None, form);
        let wanted = WantedOfDense { of_z: false, of_slope: false, ..EVERYTHING };
        let found = |scale: f32| {
            let scaled: Vec<f32> = gradient.clone().into_data().iter::<f32>().map(|x| x * scale).collect();
            let scaled = Primitive::from_data(TensorData::new(scaled, [64, 32]));
            flex_dense::dense_backward(&x, &weight, None, &kept, scaled, form, wanted).expect("fused")
        };
        // The smallest number is 2^-149, half of which is the error of rounding.
        let (ordinary, tiny) = (found(1.0), found(2.0_f32.powi(-120)));
        for (ordinary, tiny) in ordinary.into_iter().zip(tiny) {
            for (a, b) in ordinary.into_data().iter::<f64>().zip(tiny.into_data().iter::<f64>()) {
                let error = (b * 2.0_f64.powi(120) - a).abs();
                assert!(error <= 1e-6 * a.abs() + 64.0 * 2.0_f64.powi(-29), "{a} and {b:e}");
            }
        }
    }

    #[test]
    fn a_number_that_is_not_finite_stays_so() {
        for function in FUNCTIONS {
            let form = DenseForm { function, seeds: 1, kernels: Kernels::Fused };
            let Layer { weight, bias, slope, .. } = layer::<f32>(1, [1, 2, 3]);
            let x = Primitive::from_data(TensorData::new(vec![f32::NAN, 1.0], [1, 2]));
            let (y, _) = flex_dense::dense(&x, &weight, Some(&bias), Some(&slope), form).expect("fused");
            assert!(y.into_data().iter::<f32>().all(f32::is_nan), "{function:?}");
        }
    }
}

#[cfg(all(test, feature = "wgpu"))]
mod gpu_tests {
    use super::*;
    use crate::kernel::cube::{Fused, adapter_for_tests, assert_close, primitive, values};

    #[test]
    fn one_launch_and_the_single_operations_agree_on_the_gradients_of_z_and_bias() {
        let Some(device) = adapter_for_tests() else { return };
        for (rows, units, seeds) in [(1, 1, 1), (67, 33, 1), (5, 64, 3), (300, 7, 2)] {
            for function in [Activated::Relu, Activated::Tanh, Activated::Sigmoid] {
                let what = format!("{rows} x {units}, {seeds} seeds, {function:?}");
                let form = DenseForm { function: function.into(), seeds, kernels: Kernels::Stock };
                let kept = primitive(1, [seeds * rows, units], 0.9, &device);
                let gradient = primitive(2, [seeds * rows, units], 1.0, &device);
                let (of_z, of_bias) =
                    cube::derivative_and_sums(&kept, &gradient, function, seeds).expect("room for few rows");
                let stock = stock_derivative::<Fused>(kept, gradient, None, form);
                assert_close(of_z, stock.clone(), &what);
                let sums = sum_by_seed_and_unit::<Fused>(by_seed::<Fused>(stock, seeds), seeds);
                assert_close(of_bias, sums, &what);
            }
        }
        let row = |values: [f32; 3]| {
            Tensor::<2>::from_data([values], &device).try_into_primitive::<Fused>().expect("on a GPU")
        };
        let (kept, gradient) = (row([0.0, f32::NAN, 2.0]), row([f32::INFINITY, 1.0, f32::NAN]));
        let (of_z, of_bias) = cube::derivative_and_sums(&kept, &gradient, Activated::Relu, 1).expect("room");
        for found in [of_z, of_bias].map(values) {
            assert!(found[..2] == [0.0, 1.0] && found[2].is_nan(), "{found:?}");
        }
        let many = primitive(1, [5000, 1], 1.0, &device);
        assert!(cube::derivative_and_sums(&many, &many, Activated::Relu, 1).is_none(), "too many for eight threads");
    }
}
