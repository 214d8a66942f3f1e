//! Gradients through batch norm and layer norm in wide networks with random weights.
//!
//! Batch norm: Yang et al. 2019, "A Mean Field Theory of Batch Normalization". The pre-activations of a unit over the batch are Gaussian,
//! and in a deep network all pairs of examples come to have the same correlation (their BSB1 fixed point). Then what a unit's
//! pre-activations have beside their mean points in all directions of B - 1 dimensions alike, and normalized they are uniform on a
//! sphere of radius sqrt(B). Every rate follows from means over that sphere.

use super::activation::value_and_derivative;
use super::mean_field::{Moments, moments};
use super::quadrature::{Radius, pair_means};
use crate::config::{Activation, ActivationFunction};

/// The fewest examples for which [`BatchNorm`] has means: the sphere must have four dimensions.
pub const LEAST_BATCH: usize = 5;

/// Means over the batch of a unit behind batch norm, whose normalized pre-activations are z, with u = z / sqrt(B), and whose
/// activations are phi(z).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BatchNorm {
    /// B
    examples: usize,
    /// The mean of phi(z).
    pub mean: f64,
    /// The mean of phi(z)^2.
    pub square: f64,
    /// V / (B - 1): the mean square of phi(z) about its mean over the batch, by its B - 1 degrees of freedom.
    pub centered_square: f64,
    /// The share of what sets examples apart that is a linear function of the layer before: `E[phi']^2 / Var[phi]`, for a large
    /// batch. The rest has the same correlation for all pairs, so that in L layers the share of the data is its L-th power.
    pub linear_share: f64,
    /// E tr(P D G D), where D has phi'(z) on its diagonal, G takes the mean out, and P takes out mean and z.
    trace: f64,
    /// E[phi'(z)^T P phi'(z)].
    common: f64,
}

impl BatchNorm {
    /// The means for a batch of B examples. None for maxout, for which they are not known here, and for fewer than
    /// [`LEAST_BATCH`] examples.
    pub fn new(function: ActivationFunction, examples: usize) -> Option<Self> {
        if function.kind == Activation::Maxout || examples < LEAST_BATCH {
            return None;
        }
        let b = examples as f64;
        // Two coordinates of a point of the sphere in the plane that is orthogonal to (1, .., 1).
        let radius = Radius::Sphere { dimensions: examples - 1 };
        let [phi, phi_square, phi_pair, slope_square, slope_pair, z_slope_square, z_slope_pair] =
            pair_means(radius, -1.0 / (b - 1.0), 1.0, |x, y| {
                let ((phi_x, slope_x), (phi_y, slope_y)) =
                    (value_and_derivative(function, x), value_and_derivative(function, y));
                [
                    phi_x,
                    phi_x * phi_x,
                    phi_x * phi_y,
                    slope_x * slope_x,
                    slope_x * slope_y,
                    (x * slope_x).powi(2) / b,
                    x * slope_x * y * slope_y / b,
                ]
            });
        let Moments { mean, square, derivative_mean, .. } = moments(function, 1.0);
        let pairs = b * (b - 1.0);
        // The sum of phi'^2, the square of the sum of phi', the sum of (u phi')^2 and the square of the sum of u phi'.
        let squares = b * slope_square;
        let square_of_sum = squares + pairs * slope_pair;
        let weighted = b * z_slope_square;
        let square_of_weighted = weighted + pairs * z_slope_pair;
        Some(Self {
            examples,
            mean: phi,
            square: phi_square,
            centered_square: phi_square - phi_pair,
            linear_share: derivative_mean * derivative_mean / (square - mean * mean),
            trace: (1.0 - 2.0 / b) * squares + square_of_sum / (b * b) - weighted + square_of_weighted / b,
            common: (squares - square_of_sum / b - square_of_weighted).max(0.0),
        })
    }

    /// The gradient before batch norm from that behind the activation function, for pre-activations whose mean square about the
    /// mean over the batch, by degree of freedom, is `spread`.
    pub fn backward(&self, gradient: Gradient, spread: f64) -> Gradient {
        let b = self.examples as f64;
        // The mean of 1 / |y|^2 for y of N(0, 1) in B - 1 dimensions is 1 / (B - 3).
        let scale = b / (spread * (b - 3.0));
        let centered = scale * (self.trace * gradient.centered / (b - 1.0) + self.common * gradient.common / b);
        Gradient { centered, common: 0.0 }
    }

    /// Whether a gradient that is the same for all examples leaves next to nothing: a linear unit with batch norm, whose outputs
    /// have the same mean whatever the weights are.
    pub fn swallows_common_gradients(&self) -> bool {
        self.common < 1e-3 * self.trace
    }

    /// The factor by which the mean square of the gradient changes from a layer to the one before it, in a deep network of
    /// layers z = BN(W phi(z')): whatever the variance of the weights, which batch norm takes out.
    ///
    /// # Source
    ///
    /// Yang et al. 2019, theorem 3.10 and table 1; for linear layers (B - 2) / (B - 3), for ReLU and B to infinity
    /// pi / (pi - 1). It holds for widths far above B.
    pub fn gradient_factor(&self) -> f64 {
        let one = Gradient { centered: 1.0, common: 0.0 };
        self.backward(one, self.centered_square).centered
    }
}

/// The limit of [`BatchNorm::gradient_factor`] for a large batch: `E[phi'^2] / Var[phi]` (Yang et al. 2019, section 3.2). Not for
/// maxout.
pub fn large_batch_gradient_factor(function: ActivationFunction) -> f64 {
    let Moments { mean, square, derivative_square, .. } = moments(function, 1.0);
    derivative_square / (square - mean * mean)
}

/// The factor by which the mean square of the gradient changes from a layer to the one before it with layer norm before the
/// activation function: the variance of the pre-activations, `weight_variance` E[phi^2] + `bias_variance`, is brought to 1, and
/// the gradient is divided by it. Exact for wide layers. Not for maxout.
///
/// # Source
///
/// Schoenholz et al. 2017, equation 9, at q = 1, divided by the variance that layer norm (Ba et al. 2016, equation 3) takes out.
pub fn layer_norm_gradient_factor(function: ActivationFunction, weight_variance: f64, bias_variance: f64) -> f64 {
    let Moments { square, derivative_square, .. } = moments(function, 1.0);
    weight_variance * derivative_square / (weight_variance * square + bias_variance)
}

/// The square of a gradient, summed over the examples of a batch and the units of a layer.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Gradient {
    /// Of what is left without the mean over the batch.
    pub centered: f64,
    /// Of the mean over the batch.
    pub common: f64,
}

impl Gradient {
    /// Both.
    pub fn square(self) -> f64 {
        self.centered + self.common
    }
}

impl std::ops::Mul<f64> for Gradient {
    type Output = Self;
    fn mul(self, factor: f64) -> Self {
        Self { centered: self.centered * factor, common: self.common * factor }
    }
}

impl std::ops::Add for Gradient {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self { centered: self.centered + other.centered, common: self.common + other.common }
    }
}

#[cfg(test)]
mod tests {
    use rand_distr::{Distribution, StandardNormal};

    use super::*;
    use crate::seed;

    fn function(kind: Activation) -> ActivationFunction {
        ActivationFunction { kind, slope: if kind == Activation::Prelu { 0.25 } else { 0.0 }, pieces: 1 }
    }

    fn rate(kind: Activation, examples: usize) -> f64 {
        BatchNorm::new(function(kind), examples).expect("known").gradient_factor().sqrt()
    }

    #[test]
    fn gradients_explode_at_the_rates_of_a_large_batch() {
        for (kind, expected) in [
            (Activation::Relu, 1.211_17),
            (Activation::Tanh, 1.085_27),
            (Activation::Sigmoid, 1.016_66),
            (Activation::Elu, 1.038_76),
            (Activation::Prelu, 1.096_66),
            (Activation::Identity, 1.0),
        ] {
            let limit = large_batch_gradient_factor(function(kind)).sqrt();
            assert!((limit - expected).abs() < 1e-5, "{kind:?}: {limit}, expected {expected}");
            assert!((rate(kind, 200_000) - limit).abs() < 1e-4, "{kind:?}: {}", rate(kind, 200_000));
        }
        assert!(
            (large_batch_gradient_factor(function(Activation::Relu)) - 1.0 / (1.0 - 1.0 / std::f64::consts::PI)).abs()
                < 1e-12
        );
    }

    #[test]
    fn small_batches_explode_faster() {
        for examples in [8, 16, 100] {
            let b = examples as f64;
            let found = rate(Activation::Identity, examples).powi(2);
            assert!((found - (b - 2.0) / (b - 3.0)).abs() < 1e-9, "{examples}: {found}");
        }
        // Measured in an independent program, with a standard error of a few thousandths.
        for (examples, measured) in [(16, 1.263), (32, 1.234), (64, 1.222), (128, 1.214)] {
            let found = rate(Activation::Relu, examples);
            assert!((found - measured).abs() < 0.006, "{examples}: {found}, measured {measured}");
        }
        assert_eq!(BatchNorm::new(function(Activation::Relu), 4), None);
        assert_eq!(BatchNorm::new(function(Activation::Maxout), 32), None);
    }

    /// Every mean against its definition, by drawing pre-activations and multiplying out the Jacobian of a unit.
    #[test]
    fn the_means_over_the_sphere_are_those_of_drawn_batches() {
        let (examples, draws) = (7, 60_000);
        let b = examples as f64;
        for kind in [Activation::Relu, Activation::Tanh] {
            let expected = BatchNorm::new(function(kind), examples).expect("known");
            let mut random = seed::stream(3, "batches");
            let (mut mean, mut centered_square, mut of_centered, mut of_common) = (0.0, 0.0, 0.0, 0.0);
            for _ in 0..draws {
                let drawn: Vec<f64> = (0..examples).map(|_| StandardNormal.sample(&mut random)).collect();
                let center = drawn.iter().sum::<f64>() / b;
                let y: Vec<f64> = drawn.iter().map(|x| x - center).collect();
                let length = y.iter().map(|x| x * x).sum::<f64>().sqrt();
                let pairs: Vec<(f64, f64)> =
                    y.iter().map(|y| value_and_derivative(function(kind), b.sqrt() * y / length)).collect();
                let average = pairs.iter().map(|(phi, _)| phi).sum::<f64>() / b;
                mean += average;
                centered_square += pairs.iter().map(|(phi, _)| (phi - average).powi(2)).sum::<f64>() / (b - 1.0);
                // A gradient g behind the function becomes sqrt(B) / |y| (I - 1 1^T / B - u u^T) D g, and y is divided by its
                // spread of 1.
                let back = |g: &[f64]| {
                    let slopes: Vec<f64> = pairs.iter().zip(g).map(|((_, slope), g)| slope * g).collect();
                    let average = slopes.iter().sum::<f64>() / b;
                    let along: f64 = slopes.iter().zip(&y).map(|(slope, y)| slope * y / length).sum();
                    let rest = slopes.iter().zip(&y).map(|(slope, y)| (slope - average - along * y / length).powi(2));
                    b / (length * length) * rest.sum::<f64>()
                };
                for example in 0..examples {
                    let g: Vec<f64> = (0..examples).map(|k| f64::from(k == example) - 1.0 / b).collect();
                    of_centered += back(&g) / (b - 1.0);
                }
                of_common += back(&vec![1.0 / b.sqrt(); examples]);
            }
            let [mean, centered_square, of_centered, of_common] =
                [mean, centered_square, of_centered, of_common].map(|sum| sum / f64::from(draws));
            let backward = |centered, common| expected.backward(Gradient { centered, common }, 1.0).square();
            for (found, expected) in [
                (mean, expected.mean),
                (centered_square, expected.centered_square),
                (of_centered, backward(1.0, 0.0)),
                (of_common, backward(0.0, 1.0)),
            ] {
                assert!(
                    (found - expected).abs() < 0.01 * expected.abs().max(0.3),
                    "{kind:?}: {found}, by theory {expected}"
                );
            }
        }
    }

    #[test]
    fn layer_norm_of_relu_gives_he_gradients_at_any_variance_of_the_weights() {
        for variance in [0.1, 2.0, 50.0] {
            let factor = layer_norm_gradient_factor(function(Activation::Relu), variance, 0.0);
            assert!((factor - 1.0).abs() < 1e-12, "{factor}");
        }
        assert!(layer_norm_gradient_factor(function(Activation::Relu), 2.0, 1.0) < 1.0);
    }
}
