//! The activation functions and their derivatives in f64.

use crate::config::{Activation, ActivationFunction};

/// The limit of SELU below 0 is `-SELU_SCALE * SELU_ALPHA` (Klambauer et al. 2017, appendix A3).
pub const SELU_ALPHA: f64 = 1.673_263_242_354_377_2;
/// The slope of SELU above 0.
pub const SELU_SCALE: f64 = 1.050_700_987_355_480_5;

/// phi(z) and phi'(z). At a kink the derivative is that from below. Maxout, which is a function of several numbers, is
/// taken as the identity: the derivative of the piece that wins.
pub fn value_and_derivative(function: ActivationFunction, z: f64) -> (f64, f64) {
    match function.kind {
        Activation::Sigmoid => {
            let s = sigmoid(z);
            // 1 - s would be rounded to 0 for large z.
            (s, s * sigmoid(-z))
        }
        Activation::Tanh => (z.tanh(), z.cosh().powi(-2)),
        Activation::Relu | Activation::LeakyRelu | Activation::Prelu => {
            let slope = if z > 0.0 { 1.0 } else { function.slope };
            (slope * z, slope)
        }
        Activation::Elu => exponential_unit(z, 1.0, 1.0),
        Activation::Selu => exponential_unit(z, SELU_ALPHA, SELU_SCALE),
        Activation::Gelu => {
            let density = (-z * z / 2.0).exp() / std::f64::consts::TAU.sqrt();
            let below = normal_below(z);
            (z * below, below + z * density)
        }
        Activation::Softplus => (z.max(0.0) + (-z.abs()).exp().ln_1p(), sigmoid(z)),
        Activation::Maxout | Activation::Identity => (z, 1.0),
    }
}

/// 1 / (1 + exp(-z))
pub fn sigmoid(z: f64) -> f64 {
    1.0 / (1.0 + (-z).exp())
}

fn exponential_unit(z: f64, alpha: f64, scale: f64) -> (f64, f64) {
    if z > 0.0 { (scale * z, scale) } else { (scale * alpha * z.exp_m1(), scale * alpha * z.exp()) }
}

/// The probability that x of N(0, 1) is at most z.
fn normal_below(z: f64) -> f64 {
    libm::erfc(-z * std::f64::consts::FRAC_1_SQRT_2) / 2.0
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Activation; 11] = [
        Activation::Sigmoid,
        Activation::Tanh,
        Activation::Relu,
        Activation::LeakyRelu,
        Activation::Prelu,
        Activation::Elu,
        Activation::Selu,
        Activation::Gelu,
        Activation::Softplus,
        Activation::Maxout,
        Activation::Identity,
    ];

    #[test]
    fn derivatives_agree_with_central_differences() {
        for kind in ALL {
            let function = ActivationFunction { kind, slope: 0.1, pieces: 1 };
            for z in [-30.0, -3.1, -0.7, -1e-3, 1e-3, 0.4, 2.2, 30.0] {
                let value = |z| value_and_derivative(function, z).0;
                let h = 1e-5;
                let difference = (value(z + h) - value(z - h)) / (2.0 * h);
                let derivative = value_and_derivative(function, z).1;
                assert!(
                    (derivative - difference).abs() < 1e-8,
                    "{kind:?} at {z}: {derivative}, difference {difference}"
                );
            }
        }
    }

    #[test]
    fn values_are_those_of_the_papers() {
        let value = |kind, z| value_and_derivative(ActivationFunction { kind, slope: 0.01, pieces: 1 }, z).0;
        assert!((value(Activation::Gelu, 1.0) - 0.841_344_746_068_543).abs() < 1e-12);
        assert!((value(Activation::Softplus, 0.0) - std::f64::consts::LN_2).abs() < 1e-15);
        assert!((value(Activation::Selu, -1e3) + 1.758_099_340_847_376_6).abs() < 1e-12);
        assert!((value(Activation::Elu, -1.0) - (std::f64::consts::E.recip() - 1.0)).abs() < 1e-15);
        assert_eq!(value(Activation::LeakyRelu, -2.0), -0.02);
    }

    /// The fixed point of SELU: mean 0 and variance 1 stay so (Klambauer et al. 2017, equation 3).
    #[test]
    fn selu_keeps_mean_0_and_variance_1() {
        let function = ActivationFunction { kind: Activation::Selu, slope: 0.0, pieces: 1 };
        let (mut mean, mut square, steps) = (0.0, 0.0, 200_000);
        for step in 0..steps {
            let z = -10.0 + 20.0 * (f64::from(step) + 0.5) / f64::from(steps);
            let weight = (-z * z / 2.0).exp() / std::f64::consts::TAU.sqrt() * 20.0 / f64::from(steps);
            let value = value_and_derivative(function, z).0;
            mean += weight * value;
            square += weight * value * value;
        }
        assert!(mean.abs() < 1e-6 && (square - 1.0).abs() < 1e-6, "{mean} {square}");
    }
}
