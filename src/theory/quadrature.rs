//! Means of functions of Gaussian numbers.
//!
//! The integrands of mean field theory are smooth but for a kink at 0 (ReLU and its relatives), and steep there where the
//! pre-activations are large (tanh of 100 z). Gauss-Hermite quadrature is exact for polynomials, and its error falls only like
//! 1 / n at a kink; here each side of 0 is cut into panels that become narrower towards 0, with twenty Gauss-Legendre points
//! each and the density as a factor. Tests hold it to Gauss-Hermite quadrature, where that converges, and to closed forms.

use std::f64::consts::{PI, TAU};
use std::sync::LazyLock;

/// Points a panel.
const POINTS: usize = 20;
/// The density of N(0, 1) is below 1e-39 from here on.
const FAR: f64 = 13.5;
/// The next panel is narrower by this factor.
const GRADING: f64 = 3.0;
/// In the narrowest panel a function changes over this distance or a longer one.
const NARROWEST: f64 = 1.5;

/// Points and weights on -1 to 1, by Newton's method on the Legendre polynomial (Golub and Welsch 1969 give another way).
static LEGENDRE: LazyLock<[(f64, f64); POINTS]> = LazyLock::new(|| {
    std::array::from_fn(|index| {
        let mut x = (PI * (index as f64 + 0.75) / (POINTS as f64 + 0.5)).cos();
        let mut slope = 1.0;
        for _ in 0..50 {
            let (mut before, mut value) = (1.0, x);
            for degree in 2..=POINTS {
                let degree = degree as f64;
                (before, value) = (value, ((2.0 * degree - 1.0) * x * value - (degree - 1.0) * before) / degree);
            }
            slope = POINTS as f64 * (x * value - before) / (x * x - 1.0);
            x -= value / slope;
        }
        (x, 2.0 / ((1.0 - x * x) * slope * slope))
    })
});

/// Calls `visit` with the points and weights of an integral from `low` to `high`.
fn panel(low: f64, high: f64, mut visit: impl FnMut(f64, f64)) {
    let (center, half) = (f64::midpoint(low, high), (high - low) / 2.0);
    for (x, weight) in LEGENDRE.iter() {
        visit(center + half * x, half * weight);
    }
}

/// The ends of panels from 0 to `far` for a function that changes over a distance of `1 / steepness` near 0.
fn graded(far: f64, steepness: f64) -> Vec<f64> {
    let mut ends = vec![far];
    let mut end = far;
    while end * steepness.max(1.0) > NARROWEST && ends.len() < 40 {
        end /= GRADING;
        ends.push(end);
    }
    ends.push(0.0);
    ends.reverse();
    ends
}

/// E[f(u)] of several functions at once for u of N(0, variance).
///
/// # Source
///
/// The Gaussian integrals of Poole et al. 2016, equation 3.
pub fn gaussian_means<const N: usize>(variance: f64, f: impl Fn(f64) -> [f64; N]) -> [f64; N] {
    let deviation = variance.sqrt();
    let mut sums = [0.0; N];
    for ends in graded(FAR, deviation).windows(2) {
        panel(ends[0], ends[1], |z, weight| {
            let weight = weight * (-z * z / 2.0).exp() / TAU.sqrt();
            for sign in [-1.0, 1.0] {
                for (sum, value) in sums.iter_mut().zip(f(sign * deviation * z)) {
                    *sum += weight * value;
                }
            }
        });
    }
    sums
}

/// E[f(u)] for u of N(0, variance).
pub fn gaussian_mean(variance: f64, f: impl Fn(f64) -> f64) -> f64 {
    let [mean] = gaussian_means(variance, |u| [f(u)]);
    mean
}

/// The length of a pair of numbers whose directions are all alike.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Radius {
    /// Of two independent numbers of N(0, 1).
    Gaussian,
    /// Of two coordinates of a point that is uniform on the sphere of `dimensions` dimensions with the radius
    /// sqrt(`dimensions`), at least 4: for many dimensions the same.
    Sphere {
        /// The dimensions of the space.
        dimensions: usize,
    },
}

impl Radius {
    /// The length at a place of the integral and the density there. On the sphere the place is an angle: the density over the
    /// length has the power (n - 4) / 2 of 1 - r^2 / n, which is not smooth at its end for odd n.
    fn at(self, place: f64) -> (f64, f64) {
        match self {
            Self::Gaussian => (place, place * (-place * place / 2.0).exp()),
            Self::Sphere { dimensions } => {
                let n = dimensions as f64;
                let angle = place / n.sqrt();
                (n.sqrt() * angle.sin(), (n - 2.0) / n.sqrt() * angle.sin() * angle.cos().powi(dimensions as i32 - 3))
            }
        }
    }

    /// The place where the integral ends.
    fn end(self) -> f64 {
        match self {
            Self::Gaussian => FAR,
            Self::Sphere { dimensions } => (PI / 2.0 * (dimensions as f64).sqrt()).min(FAR),
        }
    }
}

/// E[f(x, y)] of several functions at once for x and y of the same distribution with this correlation, from -1 to 1. `steepness`
/// is that of f near x = 0 and y = 0, as the deviation of a pre-activation.
///
/// In polar coordinates x = r cos(t) and y = r cos(t - a), cos(a) being the correlation: the kinks lie at four angles.
pub fn pair_means<const N: usize>(
    radius: Radius,
    correlation: f64,
    steepness: f64,
    f: impl Fn(f64, f64) -> [f64; N],
) -> [f64; N] {
    let between = correlation.clamp(-1.0, 1.0).acos();
    let mut kinks = [PI / 2.0, 3.0 * PI / 2.0, between + PI / 2.0, between + 3.0 * PI / 2.0].map(|t| t.rem_euclid(TAU));
    kinks.sort_by(f64::total_cmp);
    let mut arcs: Vec<(f64, f64)> = kinks.windows(2).map(|pair| (pair[0], pair[1])).collect();
    arcs.push((kinks[3], kinks[0] + TAU));
    // The point, the directions of both numbers and the weight of each angle.
    let mut angles = Vec::new();
    for (start, end) in arcs {
        let half = (end - start) / 2.0;
        for ends in graded(half, 3.0 * steepness.max(1.0)).windows(2) {
            panel(ends[0], ends[1], |t, weight| {
                for angle in [start + t, end - t] {
                    angles.push((angle.cos(), (angle - between).cos(), weight));
                }
            });
        }
    }
    let mut sums = [0.0; N];
    for ends in graded(radius.end(), steepness).windows(2) {
        panel(ends[0], ends[1], |place, weight| {
            let (r, density) = radius.at(place);
            let weight = weight * density / TAU;
            for (x, y, share) in &angles {
                for (sum, value) in sums.iter_mut().zip(f(r * x, r * y)) {
                    *sum += weight * share * value;
                }
            }
        });
    }
    sums
}

/// The integral of a smooth function over a whole range, in equal panels.
pub fn integral(low: f64, high: f64, panels: usize, f: impl Fn(f64) -> f64) -> f64 {
    let width = (high - low) / panels as f64;
    let mut sum = 0.0;
    for index in 0..panels {
        let start = low + width * index as f64;
        panel(start, start + width, |x, weight| sum += weight * f(x));
    }
    sum
}

#[cfg(test)]
mod tests {
    use nalgebra::{DMatrix, SymmetricEigen};

    use super::*;

    /// Points and weights of Gauss-Hermite quadrature for N(0, 1): the eigenvalues of the Jacobi matrix of Hermite's
    /// polynomials, and the squares of the first components of its eigenvectors (Golub and Welsch 1969).
    fn hermite(points: usize) -> Vec<(f64, f64)> {
        let jacobi = DMatrix::from_fn(points, points, |row, column| {
            if row.abs_diff(column) == 1 { (row.max(column) as f64).sqrt() } else { 0.0 }
        });
        let eigen = SymmetricEigen::new(jacobi);
        let first = eigen.eigenvectors.row(0).iter().map(|x| x * x).collect::<Vec<f64>>();
        eigen.eigenvalues.iter().copied().zip(first).collect()
    }

    #[test]
    fn it_agrees_with_gauss_hermite_quadrature_where_that_converges() {
        let functions: [fn(f64) -> f64; 4] =
            [|u| u.tanh().powi(2), |u| u.cosh().powi(-4), |u| 1.0 / (1.0 + (-u).exp()), |u| u.powi(8)];
        for f in functions {
            let expected: f64 = hermite(180).iter().map(|(z, weight)| weight * f(0.7_f64.sqrt() * z)).sum();
            let found = gaussian_mean(0.7, f);
            assert!((found / expected - 1.0).abs() < 1e-9, "{found}, expected {expected}");
        }
    }

    #[test]
    fn moments_and_functions_with_a_kink_or_a_step_have_their_closed_forms() {
        let double_factorials = [1.0, 1.0, 3.0, 15.0, 105.0];
        for (half, expected) in double_factorials.into_iter().enumerate() {
            let found = gaussian_mean(1.0, |u| u.powi(2 * half as i32));
            assert!((found / expected - 1.0).abs() < 1e-13, "{found}, expected {expected}");
        }
        assert!((gaussian_mean(4.0, |u| u.max(0.0)) - 2.0 / TAU.sqrt()).abs() < 1e-13);
        assert!((gaussian_mean(1e12, |u| f64::from(u > 0.0)) - 0.5).abs() < 1e-13);
        // |tanh(s z)| for large s: 1 - E[1 - |tanh|] = 1 - 2 ln 2 / (s sqrt(2 pi)).
        let found = 1.0 - gaussian_mean(1e10, |u| u.tanh().abs());
        let expected = 2.0 * 2.0_f64.ln() / (1e5 * TAU.sqrt());
        assert!((found / expected - 1.0).abs() < 1e-4, "{found:e}, expected {expected:e}");
    }

    /// The arc-cosine kernels of Cho and Saul 2009, equations 3 and 4.
    #[test]
    fn pairs_of_relus_have_the_arc_cosine_kernel() {
        for correlation in [-1.0_f64, -0.9, -0.2, 0.0, 0.5, 0.999, 1.0] {
            let angle = correlation.acos();
            let [steps, products] = pair_means(Radius::Gaussian, correlation, 1.0, |x, y| {
                [f64::from(x > 0.0 && y > 0.0), x.max(0.0) * y.max(0.0)]
            });
            assert!((steps - (PI - angle) / TAU).abs() < 1e-12, "{correlation}: {steps}");
            let expected = (angle.sin() + (PI - angle) * correlation) / TAU;
            assert!((products - expected).abs() < 1e-12, "{correlation}: {products}, expected {expected}");
        }
    }

    #[test]
    fn coordinates_of_a_sphere_have_its_moments() {
        for dimensions in [4, 7, 15, 300] {
            let n = dimensions as f64;
            let radius = Radius::Sphere { dimensions };
            let [one, square, fourth, product] = pair_means(radius, 0.3, 1.0, |x, y| [1.0, x * x, x.powi(4), x * y]);
            assert!((one - 1.0).abs() < 1e-10 && (square - 1.0).abs() < 1e-10, "{dimensions}: {one}, {square}");
            assert!((product - 0.3).abs() < 1e-10 && (fourth - 3.0 * n / (n + 2.0)).abs() < 1e-9, "{dimensions}");
        }
    }

    #[test]
    fn the_integral_of_a_polynomial_is_exact() {
        assert!((integral(-1.0, 3.0, 2, |x| x.powi(3)) - 20.0).abs() < 1e-12);
    }
}
