//! Mean field theory of wide networks with random weights (Poole et al. 2016, Schoenholz et al. 2017): how the variance of the
//! pre-activations, the correlation of two inputs and the gradient go from layer to layer.
//!
//! It holds at initialization for weights that are independent, of mean 0 and of one variance, in the limit of wide layers; gradients
//! as if the weights on the way back were others than those on the way forth, which Yang 2020 ("Tensor programs II") proves for
//! that limit. A network of width n and depth L differs from it by terms of the order L / n (Hanin and Nica 2019).

use super::activation::value_and_derivative;
use super::quadrature::{Radius, gaussian_means, integral, pair_means};
use crate::config::{Activation, ActivationFunction};

/// Means over pre-activations of N(0, q).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Moments {
    /// `E[phi]`
    pub mean: f64,
    /// E[phi^2]
    pub square: f64,
    /// E[phi^4] / E[phi^2]^2, of which the spread of variances over seeds depends; 0 of maxout, where it is not known.
    pub kurtosis: f64,
    /// E[z phi phi'] / E[phi^2]: what is left of the scalar product of activations and gradient a layer before; 1 of homogeneous
    /// functions, for which z phi'(z) = phi(z).
    pub alignment: f64,
    /// E[phi^2 phi'^2] / (E[phi^2] E[phi'^2]): how much of a gradient along the activations comes back more than of others.
    pub tie: f64,
    /// E[phi']: of maxout the mean over its pieces of the share that wins, times their number.
    pub derivative_mean: f64,
    /// E[phi'^2]: of maxout the share of a gradient that a unit passes on, which goes whole to the piece that wins.
    pub derivative_square: f64,
    /// E[phi'^4] / E[phi'^2]^2, of which the spread over seeds depends.
    pub derivative_kurtosis: f64,
}

/// The moments of a function of pre-activations of variance q; of maxout, of the largest of its pieces.
pub fn moments(function: ActivationFunction, q: f64) -> Moments {
    let slope = function.slope;
    match function.kind {
        Activation::Identity => Moments {
            mean: 0.0,
            square: q,
            kurtosis: 3.0,
            alignment: 1.0,
            tie: 1.0,
            derivative_mean: 1.0,
            derivative_square: 1.0,
            derivative_kurtosis: 1.0,
        },
        // The halves of N(0, q) on both sides of 0.
        Activation::Relu | Activation::LeakyRelu | Activation::Prelu => {
            let derivative_square = f64::midpoint(1.0, slope * slope);
            let mean = (1.0 - slope) * (q / std::f64::consts::TAU).sqrt();
            let derivative_kurtosis = f64::midpoint(1.0, slope.powi(4)) / (derivative_square * derivative_square);
            let derivative_mean = f64::midpoint(1.0, slope);
            Moments {
                mean,
                square: q * derivative_square,
                kurtosis: 3.0 * derivative_kurtosis,
                alignment: 1.0,
                tie: derivative_kurtosis,
                derivative_mean,
                derivative_square,
                derivative_kurtosis,
            }
        }
        Activation::Maxout => {
            let [mean, square] = largest_of(function.pieces);
            Moments {
                mean: mean * q.sqrt(),
                square: square * q,
                kurtosis: 0.0,
                alignment: 1.0,
                tie: 1.0,
                derivative_mean: 1.0,
                derivative_square: 1.0,
                derivative_kurtosis: 1.0,
            }
        }
        _ => {
            let [mean, square, power, product, both, derivative_mean, derivative_square, fourth] =
                gaussian_means(q, |u| {
                    let (value, derivative) = value_and_derivative(function, u);
                    [
                        value,
                        value * value,
                        value.powi(4),
                        u * value * derivative,
                        (value * derivative).powi(2),
                        derivative,
                        derivative * derivative,
                        derivative.powi(4),
                    ]
                });
            let (kurtosis, alignment) = (power / (square * square), product / square);
            let tie = both / (square * derivative_square);
            let derivative_kurtosis = fourth / (derivative_square * derivative_square);
            Moments { mean, square, kurtosis, alignment, tie, derivative_mean, derivative_square, derivative_kurtosis }
        }
    }
}

/// Mean and mean square of the largest of several independent N(0, 1), whose density is k p(z) P(z)^(k - 1).
fn largest_of(pieces: usize) -> [f64; 2] {
    let share = |z: f64| libm::erfc(-z * std::f64::consts::FRAC_1_SQRT_2) / 2.0;
    let density = |z: f64| (-z * z / 2.0).exp() / std::f64::consts::TAU.sqrt();
    let weight = |z: f64| pieces as f64 * density(z) * share(z).powi(pieces as i32 - 1);
    [1, 2].map(|power| integral(-12.0, 12.0, 24, |z| weight(z) * z.powi(power)))
}

/// What becomes of the variance of the pre-activations in a deep network.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum FixedPoint {
    /// It comes to this value from wherever it starts.
    At(f64),
    /// It stays where it is, whatever that is: ReLU at `weight_variance` = 2, for example.
    Anywhere,
    /// It grows without bound.
    Infinity,
}

/// Hidden layers z = W phi(z') + b with weights of variance `weight_variance` / n and biases of variance `bias_variance`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MeanField {
    /// phi
    pub function: ActivationFunction,
    /// `sigma_w`^2: the variance of a weight times the number of inputs of its unit.
    pub weight_variance: f64,
    /// `sigma_b`^2
    pub bias_variance: f64,
}

/// Steps of the iteration to a fixed point. At the edge of chaos the distance to it falls only like 1 / steps.
const ITERATIONS: usize = 200_000;
/// An iteration ends when a step changes less than this part.
const CONVERGED: f64 = 1e-14;
/// A variance beyond this counts as infinite.
const INFINITE: f64 = 1e12;
/// A variance below this counts as 0.
const NOTHING: f64 = 1e-100;

impl MeanField {
    /// The variance of the next layer's pre-activations (Poole et al. 2016, equation 3):
    /// q -> `sigma_w`^2 E[phi(sqrt(q) z)^2] + `sigma_b`^2.
    pub fn variance_map(&self, q: f64) -> f64 {
        self.weight_variance * moments(self.function, q).square + self.bias_variance
    }

    /// The stable fixed point of the variance map, q*, by iteration from q = 1.
    pub fn fixed_point(&self) -> FixedPoint {
        let mut q = 1.0;
        for _ in 0..ITERATIONS {
            let mut next = self.variance_map(q);
            if next > INFINITE {
                return FixedPoint::Infinity;
            }
            // Aitken's step takes a slow approach to its end at once. It is taken only from an approach, and if it lands closer:
            // what moves away from a fixed point must not be taken back to it.
            let after = self.variance_map(next);
            let (step, second) = (next - q, after - next);
            let leap = q - step * step / (second - step);
            let approaches = second.abs() < step.abs() && leap.is_finite() && leap > 0.0;
            if approaches && (self.variance_map(leap) - leap).abs() < second.abs() {
                next = leap;
            } else if step > 0.0 && second >= step * (1.0 - 1e-12) {
                // Growth that does not slow down; a fixed point that is leapt over draws the variance back.
                next = 2.0 * q;
            }
            if next < NOTHING {
                return FixedPoint::At(0.0);
            }
            if (next - q).abs() <= CONVERGED * q {
                let is_anywhere = [0.5, 2.0].iter().all(|q| (self.variance_map(*q) / q - 1.0).abs() < 1e-12);
                return if is_anywhere { FixedPoint::Anywhere } else { FixedPoint::At(next) };
            }
            q = next;
        }
        FixedPoint::At(q)
    }

    /// The fixed point, or 1 where every variance is one or none is: functions without a fixed point, such as ReLU, have the
    /// same slopes at all variances.
    fn typical_variance(&self) -> f64 {
        match self.fixed_point() {
            FixedPoint::At(q) => q,
            FixedPoint::Anywhere | FixedPoint::Infinity => 1.0,
        }
    }

    /// The factor by which the mean square of the gradient changes from a layer to the one before it (Schoenholz et al. 2017,
    /// equation 9) where the pre-activations have the variance q: `sigma_w`^2 E[phi'(sqrt(q) z)^2]. Norms change by its square
    /// root.
    pub fn chi_at(&self, q: f64) -> f64 {
        self.weight_variance * moments(self.function, q).derivative_square
    }

    /// chi at the fixed point: above 1 gradients explode and inputs are torn apart, below 1 gradients vanish.
    pub fn chi(&self) -> f64 {
        self.chi_at(self.typical_variance())
    }

    /// The layers over which the mean square of the gradient changes by a factor of e (Schoenholz et al. 2017, after equation 9):
    /// 1 / |ln chi|; infinite at the edge of chaos.
    pub fn gradient_depth_scale(&self) -> f64 {
        1.0 / self.chi().ln().abs()
    }

    /// The correlation of the next layer's pre-activations for two inputs (Poole et al. 2016, equation 4), at the fixed point q*.
    /// Not for maxout.
    pub fn correlation_map(&self, correlation: f64) -> f64 {
        let q = self.typical_variance();
        let deviation = q.sqrt();
        let phi = |z: f64| value_and_derivative(self.function, deviation * z).0;
        let [product] = pair_means(Radius::Gaussian, correlation, deviation, |x, y| [phi(x) * phi(y)]);
        (self.weight_variance * product + self.bias_variance) / self.variance_map(q)
    }

    /// The slope of the correlation map: `sigma_w`^2 E[phi'(u1) phi'(u2)]; at a correlation of 1 it is chi (Schoenholz et al.
    /// 2017, equation 5). Not for maxout.
    pub fn correlation_slope(&self, correlation: f64) -> f64 {
        let q = self.typical_variance();
        let deviation = q.sqrt();
        let slope = |z: f64| value_and_derivative(self.function, deviation * z).1;
        let [product] = pair_means(Radius::Gaussian, correlation, deviation, |x, y| [slope(x) * slope(y)]);
        self.weight_variance * product * q / self.variance_map(q)
    }

    /// The correlation that two inputs come to in a deep network, c*: 1 where chi is at most 1 (the ordered phase), below 1
    /// where it is above (the chaotic one). Not for maxout.
    pub fn correlation_fixed_point(&self) -> f64 {
        if self.chi() <= 1.0 {
            return 1.0;
        }
        // The map is convex and lies above the diagonal to the left of c*, below it between c* and 1.
        let (mut low, mut high) = (-1.0, 1.0 - 1e-9);
        if self.correlation_map(high) >= high {
            return 1.0;
        }
        for _ in 0..60 {
            let middle = f64::midpoint(low, high);
            if self.correlation_map(middle) > middle {
                low = middle;
            } else {
                high = middle;
            }
        }
        f64::midpoint(low, high)
    }

    /// The layers over which the distance of the correlation to its fixed point falls by a factor of e (Schoenholz et al. 2017,
    /// equation 7): how deep a network may be for its outputs to tell inputs apart. Not for maxout.
    pub fn correlation_depth_scale(&self) -> f64 {
        -1.0 / self.correlation_slope(self.correlation_fixed_point()).ln()
    }
}

/// The `sigma_w`^2 at which chi is 1 for this `sigma_b`^2, between `low` and `high` (Schoenholz et al. 2017, figure 1): on one side of
/// it gradients vanish, on the other they explode. None if chi does not pass 1 there.
pub fn edge_of_chaos(function: ActivationFunction, bias_variance: f64, low: f64, high: f64) -> Option<f64> {
    let excess = |weight_variance: f64| MeanField { function, weight_variance, bias_variance }.chi() - 1.0;
    let (mut low, mut high) = (low, high);
    let start = excess(low);
    if start * excess(high) > 0.0 {
        return None;
    }
    for _ in 0..50 {
        let middle = f64::midpoint(low, high);
        if excess(middle) * start > 0.0 {
            low = middle;
        } else {
            high = middle;
        }
    }
    Some(f64::midpoint(low, high))
}

/// The factor by which the norm of the gradient changes a layer of ReLU units whose weights are c or -c, equally often:
/// c sqrt(n / 2). Weight clipping in a Wasserstein critic drives weights there (Gulrajani et al. 2017, section 3).
pub fn random_sign_rate(width: usize, weight: f64) -> f64 {
    weight * (width as f64 / 2.0).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn function(kind: Activation) -> ActivationFunction {
        ActivationFunction { kind, slope: 0.0, pieces: 1 }
    }

    fn field(kind: Activation, weight_variance: f64, bias_variance: f64) -> MeanField {
        MeanField { function: function(kind), weight_variance, bias_variance }
    }

    /// Values of an independent program.
    #[test]
    fn fixed_points_and_chi_are_those_of_an_independent_program_to_five_digits() {
        for (kind, weights, biases, q, chi) in [
            (Activation::Tanh, 1.0, 0.05, 0.193_593, 0.759_032),
            (Activation::Tanh, 1.5, 0.05, 0.418_037, 0.938_636),
            (Activation::Tanh, 4.0, 0.05, 2.195_494, 1.342_402),
            (Activation::Tanh, 25.0 / 9.0, 0.0, 1.178_480, 1.209_831),
            (Activation::Sigmoid, 1.0, 0.0, 0.264_687, 0.055_721),
            (Activation::Sigmoid, 1.0, 1.0, 1.302_134, 0.041_960),
            (Activation::Elu, 1.550_52, 0.0, 1.0, 1.035_905),
        ] {
            let field = field(kind, weights, biases);
            let FixedPoint::At(found) = field.fixed_point() else { panic!("{kind:?} has a fixed point") };
            assert!((found / q - 1.0).abs() < 1e-5, "{kind:?} {weights} {biases}: q* = {found}, expected {q}");
            assert!((field.chi() / chi - 1.0).abs() < 2e-5, "{kind:?}: chi = {}, expected {chi}", field.chi());
        }
    }

    #[test]
    fn the_edge_of_chaos_of_tanh_is_that_of_an_independent_program() {
        for (biases, expected) in [(0.05, 1.760_95), (0.01, 1.424_21), (0.3, 2.505_13)] {
            let found = edge_of_chaos(function(Activation::Tanh), biases, 1.0, 4.0).expect("within");
            assert!((found / expected - 1.0).abs() < 5e-6, "{biases}: {found}, expected {expected}");
        }
        assert_eq!(edge_of_chaos(function(Activation::Sigmoid), 0.05, 1.0, 4.0), None);
        let relu = edge_of_chaos(function(Activation::Relu), 0.0, 1.0, 4.0).expect("within");
        assert!((relu - 2.0).abs() < 1e-12);
    }

    #[test]
    fn variances_of_relu_stay_grow_or_shrink_with_the_variance_of_the_weights() {
        assert_eq!(field(Activation::Relu, 2.0, 0.0).fixed_point(), FixedPoint::Anywhere);
        assert_eq!(field(Activation::Relu, 2.1, 0.0).fixed_point(), FixedPoint::Infinity);
        assert_eq!(field(Activation::Relu, 2.0, 0.1).fixed_point(), FixedPoint::Infinity);
        assert_eq!(field(Activation::Relu, 1.0, 0.0).fixed_point(), FixedPoint::At(0.0));
        let FixedPoint::At(q) = field(Activation::Relu, 1.0, 0.5).fixed_point() else { panic!("q = q / 2 + .5") };
        assert!((q - 1.0).abs() < 1e-9, "{q}");
    }

    /// The closed forms of the piecewise linear functions, which take a shortcut, against the quadrature of all functions.
    #[test]
    fn closed_forms_of_moments_are_what_quadrature_finds() {
        for (kind, slope) in [(Activation::Relu, 0.0), (Activation::LeakyRelu, 0.3), (Activation::Identity, 0.0)] {
            let function = ActivationFunction { kind, slope, pieces: 1 };
            let [mean, square, power, slope_mean, slopes, fourth] = gaussian_means(2.7, |u| {
                let (value, derivative) = value_and_derivative(function, u);
                [value, value * value, value.powi(4), derivative, derivative * derivative, derivative.powi(4)]
            });
            let found = moments(function, 2.7);
            for (found, expected) in [
                (found.mean, mean),
                (found.square, square),
                (found.kurtosis, power / (square * square)),
                (found.derivative_mean, slope_mean),
                (found.derivative_square, slopes),
                (found.derivative_kurtosis, fourth / (slopes * slopes)),
            ] {
                assert!((found - expected).abs() < 1e-12, "{kind:?}: {found}, expected {expected}");
            }
        }
    }

    #[test]
    fn maxout_of_two_pieces_keeps_the_variance_and_more_pieces_raise_it() {
        let square = |pieces| moments(ActivationFunction { pieces, ..function(Activation::Maxout) }, 1.0).square;
        assert!((square(1) - 1.0).abs() < 1e-12 && (square(2) - 1.0).abs() < 1e-12);
        // E[max^2] of three N(0, 1) is 1 + sqrt(3) / (2 pi).
        assert!((square(3) - 1.0 - 3.0_f64.sqrt() / std::f64::consts::TAU).abs() < 1e-12, "{}", square(3));
        let mean = moments(ActivationFunction { pieces: 2, ..function(Activation::Maxout) }, 4.0).mean;
        assert!((mean - 2.0 / std::f64::consts::PI.sqrt()).abs() < 1e-12, "{mean}");
    }

    #[test]
    fn two_inputs_meet_in_the_ordered_phase_and_stay_apart_in_the_chaotic_one() {
        let ordered = field(Activation::Tanh, 1.0, 0.05);
        assert_eq!(ordered.correlation_fixed_point(), 1.0);
        assert!((ordered.correlation_depth_scale() + 1.0 / ordered.chi().ln()).abs() < 1e-9);
        let chaotic = field(Activation::Tanh, 4.0, 0.05);
        let correlation = chaotic.correlation_fixed_point();
        assert!(correlation > 0.0 && correlation < 0.9, "{correlation}");
        assert!((chaotic.correlation_map(correlation) - correlation).abs() < 1e-9);
        assert!(chaotic.correlation_slope(correlation) < 1.0 && chaotic.correlation_depth_scale() > 0.0);
    }

    #[test]
    fn the_slope_of_the_correlation_map_is_its_derivative_and_chi_at_1() {
        for field in [field(Activation::Tanh, 4.0, 0.05), field(Activation::Elu, 1.2, 0.1)] {
            let h = 1e-5;
            let difference = (field.correlation_map(0.4 + h) - field.correlation_map(0.4 - h)) / (2.0 * h);
            // The map is that of correlations of sums with a bias, whose variance is q*.
            assert!((field.correlation_slope(0.4) / difference - 1.0).abs() < 1e-6, "{difference}");
            assert!((field.correlation_slope(1.0) / field.chi() - 1.0).abs() < 1e-9);
            assert!((field.correlation_map(1.0) - 1.0).abs() < 1e-9);
        }
    }

    #[test]
    fn random_signs_are_relu_mean_field_theory_with_the_variance_of_the_signs() {
        let (width, c) = (512, 0.1);
        let relu = field(Activation::Relu, width as f64 * c * c, 0.0);
        assert!((random_sign_rate(width, c) - relu.chi().sqrt()).abs() < 1e-12);
        assert!((random_sign_rate(width, c) - 1.6).abs() < 1e-12);
    }
}
