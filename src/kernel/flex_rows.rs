//! Layer norm on the CPU: each row, the units of an example, by itself.
//!
//! Sums run over a fixed number of lanes, whatever instructions there are.

// A function that is not inlined into one with a target feature does without it.
#![allow(clippy::inline_always)]

use multiversion::multiversion;

use super::Activated;
use super::elementwise::Vectorized;
use super::flex_layer::ROWS;
use super::number::Number;

/// Numbers of a row that are taken at a time.
const LANES: usize = 16;

/// What a row is normalized with: its mean, and 1 / deviation.
type Standard<T> = [T; 2];

/// Those of rows with these means and variances, at most [`ROWS`].
fn standards<T: Number>(moments: &[[T; 2]], epsilon: T) -> [Standard<T>; ROWS] {
    let mut standards = [[T::default(); 2]; ROWS];
    for (standard, [mean, variance]) in standards.iter_mut().zip(moments) {
        *standard = [*mean, T::from_f64(1.0) / (*variance + epsilon).sqrt()];
    }
    standards
}

/// The form of layer norm: what is added to the variance, and what is applied to the normalized rows.
pub(super) type RowForm<T> = (T, Option<Activated>);

/// `phi(gamma (x - mean) / deviation + beta)` of a piece of rows, gamma and beta, whose means and variances are left in `moments`.
pub(super) fn normalize_rows<T: Rows>(
    rows: &[T],
    vectors: [&[T]; 2],
    (epsilon, function): RowForm<T>,
    moments: &mut [[T; 2]],
    output: &mut [T],
) {
    T::row_moments(rows, vectors[0].len(), moments);
    T::standardize(rows, &standards(moments, epsilon), vectors, output);
    if let Some(function) = function {
        T::apply(function.into(), T::default(), output);
    }
}

/// Turns the gradient with respect to what [`normalize_rows`] has made of x, y, into that with respect to x; adds those with respect to
/// gamma and beta to `sums`, one behind the other.
pub(super) fn normalize_rows_backward<T: Rows>(
    [x, y]: [&[T]; 2],
    gamma: &[T],
    (epsilon, function): RowForm<T>,
    moments: &[[T; 2]],
    gradient: &mut [T],
    sums: &mut [T],
) {
    if let Some(function) = function {
        T::derive(function.into(), T::default(), y, gradient);
    }
    let of_vectors = sums.split_at_mut(gamma.len()).into();
    T::standardize_backward(x, &standards(moments, epsilon), gamma, gradient, of_vectors);
}

/// A number with loops over single rows in vector instructions.
pub(super) trait Rows: Vectorized {
    /// The mean and the variance of each row of so many units.
    fn row_moments(rows: &[Self], units: usize, moments: &mut [[Self; 2]]);
    /// gamma (x - mean) / deviation + beta
    fn standardize(rows: &[Self], standards: &[Standard<Self>], vectors: [&[Self]; 2], output: &mut [Self]);
    /// Turns the gradient with respect to what [`Rows::standardize`] makes into that with respect to x (Ba, Kiros and Hinton 2016), and
    /// adds the gradients with respect to gamma and beta to theirs.
    fn standardize_backward(
        rows: &[Self],
        standards: &[Standard<Self>],
        gamma: &[Self],
        gradient: &mut [Self],
        of_vectors: [&mut [Self]; 2],
    );
}

#[inline(always)]
fn total<T: Number>(mut lanes: [T; LANES]) -> T {
    let mut half = LANES / 2;
    while half > 0 {
        for lane in 0..half {
            lanes[lane] += lanes[lane + half];
        }
        half /= 2;
    }
    lanes[0]
}

macro_rules! rows {
    ($number:ty, $moments:ident, $standardize:ident, $backward:ident) => {
        impl Rows for $number {
            fn row_moments(rows: &[Self], units: usize, moments: &mut [[Self; 2]]) {
                $moments(rows, units, moments);
            }

            fn standardize(rows: &[Self], standards: &[Standard<Self>], vectors: [&[Self]; 2], output: &mut [Self]) {
                $standardize(rows, standards, vectors, output);
            }

            fn standardize_backward(
                rows: &[Self],
                standards: &[Standard<Self>],
                gamma: &[Self],
                gradient: &mut [Self],
                of_vectors: [&mut [Self]; 2],
            ) {
                $backward(rows, standards, gamma, gradient, of_vectors);
            }
        }

        #[multiversion(targets("x86_64+avx512f+avx512vl+avx2+fma", "x86_64+avx2+fma"))]
        fn $moments(rows: &[$number], units: usize, moments: &mut [[$number; 2]]) {
            let count = units as $number;
            for (row, moments) in rows.chunks_exact(units).zip(moments) {
                let (vectors, rest) = row.as_chunks::<LANES>();
                let mut sums = [0.0; LANES];
                for x in vectors {
                    let x = *x;
                    for lane in 0..LANES {
                        sums[lane] += x[lane];
                    }
                }
                sums.iter_mut().zip(rest).for_each(|(sum, x)| *sum += x);
                let mean = total(sums) / count;
                let mut squares = [0.0; LANES];
                for x in vectors {
                    let x = *x;
                    for lane in 0..LANES {
                        squares[lane] += (x[lane] - mean) * (x[lane] - mean);
                    }
                }
                squares.iter_mut().zip(rest).for_each(|(sum, x)| *sum += (x - mean) * (x - mean));
                *moments = [mean, total(squares) / count];
            }
        }

        #[multiversion(targets("x86_64+avx512f+avx512vl+avx2+fma", "x86_64+avx2+fma"))]
        fn $standardize(
            rows: &[$number],
            standards: &[Standard<$number>],
            [gamma, beta]: [&[$number]; 2],
            output: &mut [$number],
        ) {
            let units = gamma.len();
            let rows = rows.chunks_exact(units).zip(output.chunks_exact_mut(units));
            for ((row, output), [mean, inverse]) in rows.zip(standards) {
                for ((output, x), (gamma, beta)) in output.iter_mut().zip(row).zip(gamma.iter().zip(beta)) {
                    *output = (x - mean) * inverse * gamma + beta;
                }
            }
        }

        #[multiversion(targets("x86_64+avx512f+avx512vl+avx2+fma", "x86_64+avx2+fma"))]
        fn $backward(
            rows: &[$number],
            standards: &[Standard<$number>],
            gamma: &[$number],
            gradient: &mut [$number],
            [of_gamma, of_beta]: [&mut [$number]; 2],
        ) {
            let units = gamma.len();
            let rows = rows.chunks_exact(units).zip(gradient.chunks_exact_mut(units));
            for ((row, gradient), [mean, inverse]) in rows.zip(standards) {
                let of_vectors = of_gamma.iter_mut().zip(of_beta.iter_mut());
                for (((of_gamma, of_beta), x), gradient) in of_vectors.zip(row).zip(gradient.iter()) {
                    *of_gamma += gradient * ((x - mean) * inverse);
                    *of_beta += gradient;
                }
                // The sums over the row of the gradient with respect to what gamma multiplies, and of its products with that.
                let (mut sums, mut products) = ([0.0; LANES], [0.0; LANES]);
                let (vectors, rest) = row.as_chunks::<LANES>();
                let (gradients, rest_of_gradient) = gradient.as_chunks::<LANES>();
                let (gammas, rest_of_gamma) = gamma.as_chunks::<LANES>();
                for ((x, gradient), gamma) in vectors.iter().zip(gradients).zip(gammas) {
                    let (x, gradient, gamma) = (*x, *gradient, *gamma);
                    for lane in 0..LANES {
                        let outer = gradient[lane] * gamma[lane];
                        sums[lane] += outer;
                        products[lane] += outer * ((x[lane] - mean) * inverse);
                    }
                }
                let rest = rest.iter().zip(rest_of_gradient).zip(rest_of_gamma);
                for ((sum, product), ((x, gradient), gamma)) in sums.iter_mut().zip(&mut products).zip(rest) {
                    let outer = gradient * gamma;
                    *sum += outer;
                    *product += outer * ((x - mean) * inverse);
                }
                let (offset, along) = (total(sums) / units as $number, total(products) / units as $number);
                for ((gradient, x), gamma) in gradient.iter_mut().zip(row).zip(gamma) {
                    *gradient = (*gradient * gamma - offset - (x - mean) * inverse * along) * inverse;
                }
            }
        }
    };
}

rows!(f32, row_moments_f32, standardize_f32, standardize_backward_f32);
rows!(f64, row_moments_f64, standardize_f64, standardize_backward_f64);
