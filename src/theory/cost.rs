//! The gradient of the cost with respect to the outputs of a network at initialization.

use super::activation::sigmoid;
use super::normalization::Gradient;
use super::quadrature::{gaussian_means, integral};
use crate::config::Loss;

/// The outputs of a network for a batch, and the answers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Outputs {
    /// The variance of each output over seeds.
    pub variance: f64,
    /// The correlation over seeds of an output for two examples.
    pub correlation: f64,
    /// Outputs of an example.
    pub count: usize,
    /// Examples in the batch.
    pub examples: usize,
}

/// E|dL/do|^2 over the outputs of a batch, where the outputs o of an example are independent and Gaussian, and independent of the
/// answers; L is the mean over the examples of their costs. None for a linear probe, which has
/// no outputs, and for squared errors, which only networks have that are not predicted.
///
/// How much of it is common to all examples is linear in the correlation of their outputs, which is exact for small outputs.
pub fn output_gradient(loss: Loss, outputs: Outputs) -> Option<Gradient> {
    let Outputs { variance, correlation, count, examples } = outputs;
    let (classes, batch) = (count as f64, examples as f64);
    // Of an output: the mean square of its gradient, and the mean and the mean square of what is left of it when the mean over
    // the answers is taken.
    let [square, mean, mean_square] = match loss {
        // softmax(o) - onehot(y): the softmax of a class is 1 / K on average.
        Loss::SoftmaxCrossEntropy => {
            let of_softmax = softmax_square(variance, count);
            let uniform = 1.0 / classes;
            [of_softmax - 2.0 * uniform * uniform + uniform, 0.0, of_softmax - uniform * uniform]
        }
        Loss::SigmoidCrossEntropy => sigmoid_moments(variance, classes, |_| 1.0),
        Loss::Quadratic => sigmoid_moments(variance, classes, |o| sigmoid(o) * sigmoid(-o)),
        // Half of a batch has 2 / B, half -2 / B: their mean is 0.
        Loss::Wasserstein => return Some(Gradient { centered: 4.0 / batch, common: 0.0 }),
        Loss::LinearProbe | Loss::SquaredError => return None,
    };
    let pair = mean * mean + correlation * (mean_square - mean * mean);
    let common = classes * (square + (batch - 1.0) * pair) / (batch * batch);
    Some(Gradient { centered: classes * square / batch - common, common })
}

/// The three moments of (sigmoid(o) - t) slope(o), the target t being 1 for one of the classes and 0 for the others.
fn sigmoid_moments(variance: f64, classes: f64, slope: impl Fn(f64) -> f64) -> [f64; 3] {
    let share = 1.0 / classes;
    gaussian_means(variance, |o| {
        let slope = slope(o);
        let (right, wrong, mean) = (-sigmoid(-o) * slope, sigmoid(o) * slope, (sigmoid(o) - share) * slope);
        [share * right * right + (1.0 - share) * wrong * wrong, mean, mean * mean]
    })
}

/// Above this deviation of the outputs exp(-exp(o)) is a step beside their density.
const STEEP: f64 = 3.0;

/// E[p^2] for one of the classes' softmax p, the outputs being independent of N(0, `variance`).
///
/// With 1 / S^2 = int t exp(-t S) dt and t = exp(s) it is the integral over s of E[x^2 exp(-x)] E[exp(-x)]^(K - 1) for
/// x = exp(o + s).
fn softmax_square(variance: f64, classes: usize) -> f64 {
    let deviation = variance.sqrt();
    let inner = |s: f64| {
        let [one, others] = if deviation < STEEP {
            gaussian_means(variance, |o| exponentials(o + s))
        } else {
            steep_means(deviation, s)
        };
        one * others.powi(classes as i32 - 1)
    };
    let (low, high) = (-9.0 * deviation - 18.0 - 2.0 * (classes as f64).ln(), 9.0 * deviation + 5.0);
    // In s the integrand is as smooth as the density, and no smoother than the exponentials.
    let panels = ((high - low) / deviation.max(3.0)).ceil() as usize;
    integral(low, high, panels, inner)
}

/// x^2 exp(-x) and exp(-x) for x = exp(u).
fn exponentials(u: f64) -> [f64; 2] {
    let x = u.exp();
    let rest = (-x).exp();
    [if rest > 0.0 { x * x * rest } else { 0.0 }, rest]
}

/// The means of [`exponentials`] for u of N(s, deviation^2): where they change the density is smooth, and below there the
/// second one is 1.
fn steep_means(deviation: f64, s: f64) -> [f64; 2] {
    const LOW: f64 = -24.0;
    const HIGH: f64 = 6.0;
    let density = |u: f64| {
        let z = (u - s) / deviation;
        (-z * z / 2.0).exp() / (deviation * std::f64::consts::TAU.sqrt())
    };
    let of = |place: usize| integral(LOW, HIGH, 10, |u| density(u) * exponentials(u)[place]);
    let below = libm::erfc((s - LOW) / deviation * std::f64::consts::FRAC_1_SQRT_2) / 2.0;
    [of(0), below + of(1)]
}

#[cfg(test)]
mod tests {
    use rand::RngExt;
    use rand_distr::{Distribution, StandardNormal};

    use super::*;
    use crate::seed;

    #[test]
    fn equal_outputs_have_equal_classes_and_large_ones_have_one_winner() {
        for classes in [2, 10, 100] {
            let k = classes as f64;
            assert!((softmax_square(1e-12, classes) * k * k - 1.0).abs() < 1e-5, "{}", softmax_square(1e-12, classes));
            assert!((softmax_square(1e8, classes) * k - 1.0).abs() < 2e-3, "{}", softmax_square(1e8, classes));
            // Both ways to the same means.
            let (below, above) = (softmax_square(8.999, classes), softmax_square(9.001, classes));
            assert!((above / below - 1.0).abs() < 2e-4, "{below} {above}");
        }
    }

    /// Against the same costs of drawn outputs and answers, of two examples whose outputs are correlated.
    #[test]
    fn gradients_of_costs_are_those_of_drawn_outputs() {
        let (count, examples, draws, variance) = (10, 2, 40_000, 0.6_f64);
        let mut random = seed::stream(5, "outputs");
        for (loss, correlation) in [
            (Loss::SoftmaxCrossEntropy, 0.0_f64),
            (Loss::SoftmaxCrossEntropy, 0.8),
            (Loss::SigmoidCrossEntropy, 0.5),
            (Loss::Quadratic, 0.8),
        ] {
            let (mut square, mut common) = (0.0, 0.0);
            for _ in 0..draws {
                let mut normal = |deviation: f64| -> Vec<f64> {
                    let mut draw = || StandardNormal.sample(&mut random);
                    (0..count)
                        .map(|_| {
                            deviation * {
                                let x: f64 = draw();
                                x
                            }
                        })
                        .collect()
                };
                let shared = normal((variance * correlation).sqrt());
                let own = [0; 2].map(|_| normal((variance * (1.0 - correlation)).sqrt()));
                let gradients = own.map(|own| {
                    let o: Vec<f64> = shared.iter().zip(own).map(|(shared, own)| shared + own).collect();
                    let right = random.random_range(0..count);
                    let total: f64 = o.iter().map(|o| o.exp()).sum();
                    let gradient = |(output, o): (usize, &f64)| {
                        let (s, target) = (sigmoid(*o), f64::from(output == right));
                        match loss {
                            Loss::SoftmaxCrossEntropy => o.exp() / total - target,
                            Loss::SigmoidCrossEntropy => s - target,
                            _ => (s - target) * s * (1.0 - s),
                        }
                    };
                    o.iter().enumerate().map(gradient).collect::<Vec<f64>>()
                });
                for (a, b) in gradients[0].iter().zip(&gradients[1]) {
                    square += (a * a + b * b) / 4.0;
                    common += (a + b).powi(2) / 8.0;
                }
            }
            let outputs = Outputs { variance, correlation, count, examples };
            let expected = output_gradient(loss, outputs).expect("has outputs");
            let (square, common) = (square / f64::from(draws), common / f64::from(draws));
            assert!((square / expected.square() - 1.0).abs() < 0.02, "{loss:?}: {square}, by theory {expected:?}");
            assert!((common / expected.common - 1.0).abs() < 0.05, "{loss:?}: {common}, by theory {expected:?}");
        }
    }

    /// Eight points with a gradient of 2 / 8 each, half of them with another sign.
    #[test]
    fn a_critic_has_a_closed_form() {
        let outputs = Outputs { variance: 2.0, correlation: 0.25, count: 1, examples: 8 };
        let critic = output_gradient(Loss::Wasserstein, outputs).expect("has outputs");
        assert!((critic.centered - 8.0 / 16.0).abs() < 1e-12 && critic.common == 0.0);
        assert_eq!(output_gradient(Loss::LinearProbe, outputs), None);
    }
}
