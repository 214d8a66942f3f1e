//! The activation functions, and where they are flat.

use burn::tensor::{Tensor, activation};

use crate::config::{Activation, ActivationFunction, Kernels};
use crate::kernel::{Activated, Elementwise, FlatParts, activated};
use crate::theory::activation::{SELU_ALPHA, SELU_SCALE};

/// Applies an activation function to each element. `slope` is the learned slope of `prelu` and is looked at by no other: `[1]`, or
/// one for each of the blocks of rows that belong to different seeds.
///
/// # Shapes
///
/// - z: `[batch, units, ..]`; of `maxout` `pieces` times as many units, those of the first piece first
/// - returns: `[batch, units, ..]`
pub fn activate<const D: usize>(
    function: ActivationFunction,
    slope: Option<Tensor<1>>,
    z: Tensor<D>,
    kernels: Kernels,
) -> Tensor<D> {
    match function.kind {
        Activation::Sigmoid => activated(z, Activated::Sigmoid, kernels),
        Activation::Tanh => activated(z, Activated::Tanh, kernels),
        Activation::Relu => activated(z, Activated::Relu, kernels),
        Activation::LeakyRelu => activation::leaky_relu(z, function.slope),
        Activation::Prelu => match slope {
            Some(slope) => prelu(z, slope),
            None => activation::leaky_relu(z, function.slope),
        },
        Activation::Elu => exponential_unit(z, 1.0, 1.0, kernels),
        Activation::Selu => exponential_unit(z, SELU_ALPHA, SELU_SCALE, kernels),
        Activation::Gelu => gelu(z),
        Activation::Softplus => activation::softplus(z, 1.0),
        Activation::Maxout => maxout(z, function.pieces),
        Activation::Identity => z,
    }
}

/// The function as an operation of a dense layer; maxout is none, which takes several numbers at a time.
pub(super) fn elementwise(function: ActivationFunction) -> Option<Elementwise> {
    Some(match function.kind {
        Activation::Sigmoid => Elementwise::Sigmoid,
        Activation::Tanh => Elementwise::Tanh,
        Activation::Relu => Elementwise::Relu,
        Activation::LeakyRelu => Elementwise::LeakyRelu { slope: function.slope },
        Activation::Prelu => Elementwise::Prelu,
        Activation::Elu => Elementwise::Exponential { alpha: 1.0, scale: 1.0 },
        Activation::Selu => Elementwise::Exponential { alpha: SELU_ALPHA, scale: SELU_SCALE },
        Activation::Gelu => Elementwise::Gelu,
        Activation::Softplus => Elementwise::Softplus,
        Activation::Identity => Elementwise::Identity,
        Activation::Maxout => return None,
    })
}

/// The activation and the slope phi'(z) at each element, from tracked tensors, so that the slope can be differentiated too;
/// where it is piecewise constant it is a constant. `slope` is as in [`activate`]. None for GELU and maxout, for which it is
/// not written.
///
/// # Shapes
///
/// - z: `[batch, units]`
/// - returns: the same, twice
pub(super) fn activate_with_slope(
    function: ActivationFunction,
    slope: Option<Tensor<1>>,
    z: &Tensor<2>,
) -> Option<(Tensor<2>, Tensor<2>)> {
    let a = activate(function, slope.clone(), z.clone(), Kernels::default());
    let above = || z.clone().greater_elem(0.0).float();
    let below = || z.clone().lower_equal_elem(0.0).float();
    let slope = match function.kind {
        Activation::Sigmoid => a.clone() * (1.0 - a.clone()),
        Activation::Tanh => 1.0 - a.clone().square(),
        Activation::Relu => above(),
        Activation::LeakyRelu => above() + below() * function.slope,
        Activation::Prelu => match slope {
            Some(slope) => above() + below() * slope.unsqueeze(),
            None => above() + below() * function.slope,
        },
        // Below 0 the derivative of scale alpha (exp(z) - 1) is the value and scale alpha.
        Activation::Elu => above() + below() * (a.clone() + 1.0),
        Activation::Selu => above() * SELU_SCALE + below() * (a.clone() + SELU_SCALE * SELU_ALPHA),
        Activation::Softplus => activated(z.clone(), Activated::Sigmoid, Kernels::default()),
        Activation::Identity => z.ones_like(),
        Activation::Gelu | Activation::Maxout => return None,
    };
    Some((a, slope))
}

/// Whether the slope of a function changes between its kinks, so that it has a derivative.
pub(super) fn has_curvature(function: ActivationFunction) -> bool {
    !matches!(
        function.kind,
        Activation::Relu | Activation::LeakyRelu | Activation::Prelu | Activation::Maxout | Activation::Identity
    )
}

/// Burn's own ELU and SELU evaluate the exponential of large positive z too, and their gradients become NaN from z = 89
/// on; here it never sees a positive number.
fn exponential_unit<const D: usize>(z: Tensor<D>, alpha: f64, scale: f64, kernels: Kernels) -> Tensor<D> {
    let below = (z.clone().clamp_max(0.0).exp() - 1.0) * (alpha * scale);
    activated(z, Activated::Relu, kernels) * scale + below
}

/// z P(x <= z) for x of N(0, 1), by the error function. Burn's own GELU has that too, but on all backends except flex its gradient is
/// that of the approximation by tanh, which is off by up to 9e-4, which is percents where the slope is small.
fn gelu<const D: usize>(z: Tensor<D>) -> Tensor<D> {
    let below = (z.clone() * std::f64::consts::FRAC_1_SQRT_2).erf() + 1.0;
    z * below * 0.5
}

/// Burn's takes a slope for each channel, which the seeds are here.
fn prelu<const D: usize>(z: Tensor<D>, slope: Tensor<1>) -> Tensor<D> {
    let (seeds, dims) = (slope.dims()[0], z.dims());
    if seeds == 1 {
        return activation::prelu(z, slope);
    }
    let z: Tensor<3> = z.reshape([1, seeds as i64, -1]);
    activation::prelu(z, slope).reshape(dims)
}

/// The largest of the pieces.
fn maxout<const D: usize>(z: Tensor<D>, pieces: usize) -> Tensor<D> {
    let mut dims = z.dims();
    let rest: usize = dims[1..].iter().product::<usize>() / pieces;
    let largest = z.reshape([dims[0], pieces, rest]).max_dim(1);
    dims[1] /= pieces;
    largest.reshape(dims)
}

/// The activations that count as saturated: the outer twentieths of a sigmoid's and a tanh's range (Glorot and
/// Bengio 2010, section 3, look at the same quantity), the zeros of a ReLU, and the last twentieth before the lower
/// limit of ELU, SELU and softplus, for which that of a sigmoid's derivative counts.
pub fn flat_parts(function: ActivationFunction) -> Option<FlatParts> {
    let below = |low: f64| Some(FlatParts { low: low as f32, high: f32::INFINITY });
    match function.kind {
        Activation::Sigmoid => Some(FlatParts { low: 0.05, high: 0.95 }),
        Activation::Tanh => Some(FlatParts { low: -0.9, high: 0.9 }),
        Activation::Relu => below(0.0),
        Activation::Elu => below(-0.95),
        Activation::Selu => below(-0.95 * SELU_ALPHA * SELU_SCALE),
        // softplus'(z) = sigmoid(z) = .05
        Activation::Softplus => below(-(0.95_f64.ln())),
        Activation::LeakyRelu | Activation::Prelu | Activation::Gelu | Activation::Maxout | Activation::Identity => {
            None
        }
    }
}

/// Whether a unit's being 0 for a whole batch is looked for: in ReLU, which then learns nothing from it, and in the
/// functions that are put in its place.
pub fn has_dead_units(function: ActivationFunction) -> bool {
    match function.kind {
        Activation::Relu
        | Activation::LeakyRelu
        | Activation::Prelu
        | Activation::Elu
        | Activation::Selu
        | Activation::Gelu => true,
        Activation::Sigmoid | Activation::Tanh | Activation::Softplus | Activation::Maxout | Activation::Identity => {
            false
        }
    }
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use burn::tensor::Device;

    use super::*;
    use crate::theory::activation::value_and_derivative;

    /// All but maxout, whose units have several pieces.
    const KINDS: [Activation; 10] = [
        Activation::Sigmoid,
        Activation::Tanh,
        Activation::Relu,
        Activation::LeakyRelu,
        Activation::Prelu,
        Activation::Elu,
        Activation::Selu,
        Activation::Gelu,
        Activation::Softplus,
        Activation::Identity,
    ];

    fn function(kind: Activation) -> ActivationFunction {
        let has_slope = matches!(kind, Activation::LeakyRelu | Activation::Prelu);
        ActivationFunction { kind, slope: if has_slope { 0.1 } else { 0.0 }, pieces: 1 }
    }

    /// Values and derivatives at the given points.
    fn on_device(function: ActivationFunction, points: &[f32]) -> (Vec<f64>, Vec<f64>) {
        let device = Device::flex().autodiff();
        let z = Tensor::<1>::from_floats(points, &device).reshape([1, points.len()]).require_grad();
        let slope = Tensor::<1>::from_floats([function.slope as f32], &device);
        let value: Tensor<2> = activate(function, Some(slope), z.clone(), Kernels::default());
        let gradients = value.clone().sum().backward();
        let derivative = z.grad(&gradients).expect("z leads to the sum");
        let numbers = |tensor: Tensor<2>| tensor.into_data().iter::<f64>().collect();
        (numbers(value.inner()), numbers(derivative))
    }

    #[test]
    fn every_function_and_its_derivative_agree_with_f64() {
        let points = [-200.0_f32, -20.0, -3.0, -0.5, -1e-3, 1e-3, 0.3, 2.0, 20.0, 200.0];
        for kind in KINDS {
            let (values, derivatives) = on_device(function(kind), &points);
            for (place, z) in points.iter().enumerate() {
                let (value, derivative) = value_and_derivative(function(kind), f64::from(*z));
                let close = |a: f64, b: f64| (a - b).abs() <= 2e-6 * b.abs().max(1.0);
                assert!(close(values[place], value), "{kind:?}({z}) = {}, expected {value}", values[place]);
                let found = derivatives[place];
                assert!(close(found, derivative), "{kind:?}'({z}) = {found}, expected {derivative}");
            }
        }
    }

    #[test]
    fn the_slope_beside_an_activation_is_the_derivative_in_f64_and_has_the_second_one_for_its_gradient() {
        let points = [-3.0_f32, -0.5, 0.3, 2.0];
        let device = Device::flex().autodiff();
        for kind in KINDS.into_iter().filter(|kind| *kind != Activation::Gelu) {
            let z = Tensor::<1>::from_floats(points, &device).reshape([1, 4]).require_grad();
            let learned = Tensor::<1>::from_floats([0.1], &device).require_grad();
            let (_, slope) = activate_with_slope(function(kind), Some(learned.clone()), &z).expect("written");
            // With the constants the sum leads to z and to the learned slope, whatever the function.
            let sum = slope.clone().sum() + z.clone().sum() + learned.clone().sum();
            let gradients = sum.backward();
            let second: Vec<f64> = z.grad(&gradients).expect("leads there").into_data().iter::<f64>().collect();
            let of_learned = f64::from(learned.grad(&gradients).expect("leads there").into_scalar::<f32>());
            let below = points.iter().filter(|z| **z < 0.0).count() as f64;
            assert_eq!(of_learned, 1.0 + if kind == Activation::Prelu { below } else { 0.0 }, "{kind:?}");
            for ((z, found), second) in points.iter().zip(slope.into_data().iter::<f64>()).zip(second) {
                let derivative = |by: f64| value_and_derivative(function(kind), f64::from(*z) + by).1;
                assert!((found - derivative(0.0)).abs() < 1e-6, "{kind:?}'({z}) = {found}");
                let expected = (derivative(1e-5) - derivative(-1e-5)) / 2e-5;
                assert!(
                    (second - 1.0 - expected).abs() < 1e-5,
                    "{kind:?}''({z}) = {}, expected {expected}",
                    second - 1.0
                );
                assert!(has_curvature(function(kind)) || second == 1.0, "{kind:?}''({z})");
            }
        }
    }

    #[test]
    fn maxout_takes_the_largest_piece_and_its_gradient_goes_there_alone() {
        let function = ActivationFunction { kind: Activation::Maxout, slope: 0.0, pieces: 3 };
        // Three pieces of two units.
        let (values, derivatives) = on_device(function, &[1.0, 8.0, 3.0, 7.0, 2.0, 9.0]);
        assert_eq!(values, [3.0, 9.0]);
        assert_eq!(derivatives, [0.0, 0.0, 1.0, 0.0, 0.0, 1.0]);
    }

    #[test]
    fn the_flat_part_of_softplus_starts_where_its_slope_is_a_twentieth() {
        let low = f64::from(flat_parts(function(Activation::Softplus)).expect("has one").low);
        let z = (low.exp() - 1.0).ln();
        assert!((value_and_derivative(function(Activation::Softplus), z).1 - 0.05).abs() < 1e-7);
    }
}
