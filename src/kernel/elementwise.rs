//! Activation functions on the CPU, a bias and a function in one pass, and their derivatives.

// A function that is not inlined into one with a target feature does without it.
#![allow(clippy::inline_always)]

use multiversion::multiversion;

use super::Elementwise;
use super::matrix::add_up;
use super::number::Number;

/// Adds the bias, if there is one, to every row and applies the function. `kept` takes the sums before the function, if its derivative
/// needs them.
pub fn activate<T: Vectorized>(
    (function, slope): (Elementwise, T),
    bias: Option<&[T]>,
    rows: &mut [T],
    columns: usize,
    mut kept: Option<&mut [T]>,
) {
    for (number, row) in rows.chunks_exact_mut(columns).enumerate() {
        if let Some(bias) = bias {
            T::add_to(bias, row);
        }
        if let Some(kept) = &mut kept {
            kept[number * columns..][..columns].copy_from_slice(row);
        }
        T::apply(function, slope, row);
    }
}

/// The slope below 0, if it is not learned.
pub fn fixed_slope<T: Number>(function: Elementwise) -> T {
    match function {
        Elementwise::LeakyRelu { slope } => T::from_f64(slope),
        _ => T::default(),
    }
}

/// What the gradients of some rows are beside their derivative.
pub struct Totals<T> {
    /// The largest absolute gradient with respect to a pre-activation.
    pub largest: T,
    /// Of PReLU, the gradient with respect to its slope.
    pub of_slope: T,
}

/// Multiplies gradients by the derivative of the function, from what was kept of it, and adds them to the sums by column.
pub fn differentiate<T: Vectorized>(
    (function, slope): (Elementwise, T),
    kept: &[T],
    gradients: &mut [T],
    sums: &mut [T],
) -> Totals<T> {
    let mut of_slope = T::default();
    if function == Elementwise::Prelu {
        of_slope = T::gradient_of_slope(kept, gradients);
    }
    T::derive(function, slope, kept, gradients);
    Totals { largest: add_up(gradients, sums), of_slope }
}

/// A number with loops in vector instructions.
pub trait Vectorized: Number {
    /// row += bias
    fn add_to(bias: &[Self], row: &mut [Self]);
    /// row *= factor
    fn scale(factor: Self, row: &mut [Self]);
    /// x -> phi(x)
    fn apply(function: Elementwise, slope: Self, row: &mut [Self]);
    /// g -> g phi'(z)
    fn derive(function: Elementwise, slope: Self, kept: &[Self], gradients: &mut [Self]);
    /// The sum of g z over the negative z.
    fn gradient_of_slope(kept: &[Self], gradients: &[Self]) -> Self;
}

macro_rules! vectorized {
    ($number:ty, $add:ident, $scale:ident, $apply:ident, $derive:ident, $gradient_of_slope:ident) => {
        impl Vectorized for $number {
            fn add_to(bias: &[Self], row: &mut [Self]) {
                $add(bias, row);
            }

            fn scale(factor: Self, row: &mut [Self]) {
                $scale(factor, row);
            }

            fn apply(function: Elementwise, slope: Self, row: &mut [Self]) {
                $apply(function, slope, row);
            }

            fn derive(function: Elementwise, slope: Self, kept: &[Self], gradients: &mut [Self]) {
                $derive(function, slope, kept, gradients);
            }

            fn gradient_of_slope(kept: &[Self], gradients: &[Self]) -> Self {
                $gradient_of_slope(kept, gradients)
            }
        }

        #[multiversion(targets("x86_64+avx512f+avx512vl+avx2+fma", "x86_64+avx2+fma"))]
        fn $add(bias: &[$number], row: &mut [$number]) {
            row.iter_mut().zip(bias).for_each(|(x, bias)| *x += bias);
        }

        #[multiversion(targets("x86_64+avx512f+avx512vl+avx2+fma", "x86_64+avx2+fma"))]
        fn $scale(factor: $number, row: &mut [$number]) {
            row.iter_mut().for_each(|x| *x *= factor);
        }

        #[multiversion(targets("x86_64+avx512f+avx512vl+avx2+fma", "x86_64+avx2+fma"))]
        fn $apply(function: Elementwise, slope: $number, row: &mut [$number]) {
            apply(function, slope, row);
        }

        #[multiversion(targets("x86_64+avx512f+avx512vl+avx2+fma", "x86_64+avx2+fma"))]
        fn $derive(function: Elementwise, slope: $number, kept: &[$number], gradients: &mut [$number]) {
            derive(function, slope, kept, gradients);
        }

        #[multiversion(targets("x86_64+avx512f+avx512vl+avx2+fma", "x86_64+avx2+fma"))]
        fn $gradient_of_slope(kept: &[$number], gradients: &[$number]) -> $number {
            gradient_of_slope(kept, gradients)
        }
    };
}

vectorized!(f32, add_f32, scale_f32, apply_f32, derive_f32, gradient_of_slope_f32);
vectorized!(f64, add_f64, scale_f64, apply_f64, derive_f64, gradient_of_slope_f64);

/// Comparisons are such that what is not a number stays so.
#[inline(always)]
fn apply<T: Number>(function: Elementwise, slope: T, row: &mut [T]) {
    let number = T::from_f64;
    let (zero, one) = (T::default(), number(1.0));
    match function {
        Elementwise::Identity => {}
        Elementwise::Sigmoid => row.iter_mut().for_each(|x| *x = x.sigmoid()),
        Elementwise::Tanh => row.iter_mut().for_each(|x| *x = x.tanh()),
        Elementwise::Relu => row.iter_mut().for_each(|x| *x = if *x <= zero { zero } else { *x }),
        Elementwise::LeakyRelu { .. } | Elementwise::Prelu => {
            row.iter_mut().for_each(|x| *x = if *x < zero { *x * slope } else { *x });
        }
        Elementwise::Exponential { alpha, scale } => {
            let (scale, limit) = (number(scale), number(alpha * scale));
            row.iter_mut().for_each(|x| {
                let below = if *x < zero { *x } else { zero };
                let (above, below) = (*x * scale, (below.exp() - one) * limit);
                *x = if *x <= zero { below } else { above };
            });
        }
        Elementwise::Gelu => {
            let half = number(0.5);
            row.iter_mut().for_each(|x| {
                *x = *x * half * (one + (*x * number(std::f64::consts::FRAC_1_SQRT_2)).erf());
            });
        }
        Elementwise::Softplus => row.iter_mut().for_each(|x| {
            let above = if *x < zero { zero } else { *x };
            *x = above + (-x.magnitude()).exp().ln_1p();
        }),
    }
}

/// `kept` is the value, or z where [`Elementwise::keeps_value`] is false.
#[inline(always)]
fn derive<T: Number>(function: Elementwise, slope: T, kept: &[T], gradients: &mut [T]) {
    let number = T::from_f64;
    let (zero, one) = (T::default(), number(1.0));
    let pairs = gradients.iter_mut().zip(kept);
    match function {
        Elementwise::Identity => {}
        Elementwise::Sigmoid => pairs.for_each(|(g, y)| *g = *g * (*y * (one - *y))),
        Elementwise::Tanh => pairs.for_each(|(g, y)| *g = *g * (one - *y * *y)),
        Elementwise::Relu => pairs.for_each(|(g, y)| *g = if *y <= zero { zero } else { *g }),
        Elementwise::LeakyRelu { .. } | Elementwise::Prelu => {
            pairs.for_each(|(g, z)| *g = if *z < zero { *g * slope } else { *g });
        }
        Elementwise::Exponential { alpha, scale } => {
            let (scale, limit) = (number(scale), number(alpha * scale));
            // Below 0 the derivative of scale alpha (exp(z) - 1) is the value and scale alpha.
            pairs.for_each(|(g, y)| *g = *g * if *y <= zero { *y + limit } else { scale });
        }
        Elementwise::Gelu => {
            let density = number(0.5 * std::f64::consts::FRAC_2_SQRT_PI * std::f64::consts::FRAC_1_SQRT_2);
            let half = number(0.5);
            pairs.for_each(|(g, z)| {
                let below = half * (one + (*z * number(std::f64::consts::FRAC_1_SQRT_2)).erf());
                *g = *g * (below + *z * density * (-(*z * *z * half)).exp());
            });
        }
        Elementwise::Softplus => pairs.for_each(|(g, z)| *g = *g * z.sigmoid()),
    }
}

/// Sums that run side by side.
const LANES: usize = 16;

#[inline(always)]
fn gradient_of_slope<T: Number>(kept: &[T], gradients: &[T]) -> T {
    let term = |z: T, g: T| if z < T::default() { z * g } else { T::default() };
    let mut sums = [T::default(); LANES];
    let ((kept, rest), (gradients, others)) = (kept.as_chunks::<LANES>(), gradients.as_chunks::<LANES>());
    for (kept, gradients) in kept.iter().zip(gradients) {
        for lane in 0..LANES {
            sums[lane] += term(kept[lane], gradients[lane]);
        }
    }
    for (lane, (z, g)) in rest.iter().zip(others).enumerate() {
        sums[lane] += term(*z, *g);
    }
    sums.into_iter().fold(T::default(), |sum, x| sum + x)
}
