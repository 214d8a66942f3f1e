//! Chains of single neurons (Nielsen, Neural Networks and Deep Learning, chapter 5, "What's causing the vanishing
//! gradient problem?").

use super::activation::value_and_derivative;
use crate::config::ActivationFunction;

/// One neuron of a chain: a = phi(z), z = w a' + b.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Link {
    /// z
    pub pre_activation: f64,
    /// w phi'(z): the gradient of a with respect to a'.
    pub factor: f64,
    /// The product of the factors from this link to the last one.
    pub product: f64,
}

/// The links of a chain with these weights and biases, its input being `input`.
pub fn links(function: ActivationFunction, input: f64, weights: &[f64], biases: &[f64]) -> Vec<Link> {
    let mut activation = input;
    let mut links: Vec<Link> = Vec::with_capacity(weights.len());
    for (weight, bias) in weights.iter().zip(biases) {
        let pre_activation = weight * activation + bias;
        let (value, derivative) = value_and_derivative(function, pre_activation);
        activation = value;
        links.push(Link { pre_activation, factor: weight * derivative, product: 1.0 });
    }
    let mut product = 1.0;
    for link in links.iter_mut().rev() {
        product *= link.factor;
        link.product = product;
    }
    links
}

/// The biases for which every z of a chain is 0.
pub fn centering_biases(function: ActivationFunction, input: f64, weights: &[f64]) -> Vec<f64> {
    let at_zero = value_and_derivative(function, 0.0).0;
    let activations = std::iter::once(input).chain(std::iter::repeat(at_zero));
    weights.iter().zip(activations).map(|(weight, activation)| -weight * activation).collect()
}

/// The width of the interval of inputs a for which |w sigmoid'(w a + b)| >= 1, so that a link does not shrink the
/// gradient; 0 for |w| <= 4. Nielsen, chapter 5, problems: (2 / |w|) ln(|w| (1 + sqrt(1 - 4 / |w|)) / 2 - 1).
pub fn width_without_shrinking(weight: f64) -> f64 {
    let weight = weight.abs();
    if weight <= 4.0 {
        return 0.0;
    }
    2.0 / weight * (weight * (1.0 + (1.0 - 4.0 / weight).sqrt()) / 2.0 - 1.0).ln()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Activation;

    const SIGMOID: ActivationFunction = ActivationFunction { kind: Activation::Sigmoid, slope: 0.0, pieces: 1 };

    #[track_caller]
    fn assert_factors(weight: f64, bias: f64, expected: &[f64]) {
        let count = expected.len();
        let links = links(SIGMOID, 0.5, &vec![weight; count], &vec![bias; count]);
        for (link, expected) in links.iter().zip(expected) {
            assert!((link.factor / expected - 1.0).abs() < 1e-5, "{}, expected {expected}", link.factor);
        }
        let product: f64 = expected.iter().product();
        assert!((links[0].product / product - 1.0).abs() < 1e-4);
    }

    #[test]
    fn a_chain_of_weights_1_shrinks_the_gradient_by_at_least_a_quarter_a_link() {
        assert_factors(1.0, 0.0, &[0.235_004, 0.227_266, 0.225_293, 0.224_837, 0.224_734]);
        assert_factors(1.0, -0.5, &[0.25; 4]);
    }

    #[test]
    fn the_exploding_construction_grows_the_gradient_25_fold_a_link() {
        assert_factors(100.0, -50.0, &[25.0; 5]);
        let biases = centering_biases(SIGMOID, 0.2, &[100.0; 4]);
        assert_eq!(biases, [-20.0, -50.0, -50.0, -50.0]);
        for link in links(SIGMOID, 0.2, &[100.0; 4], &biases) {
            assert_eq!((link.pre_activation, link.factor), (0.0, 25.0));
        }
    }

    #[test]
    fn inputs_that_do_not_shrink_the_gradient_fill_less_than_half_a_unit() {
        assert!((width_without_shrinking(10.0) - 0.412_687).abs() < 1e-6);
        assert_eq!(width_without_shrinking(-4.0), 0.0);
        let (mut largest, mut at) = (0.0, 0.0);
        for step in 0..600_000 {
            let weight = 4.0 + f64::from(step) * 1e-5;
            if width_without_shrinking(weight) > largest {
                (largest, at) = (width_without_shrinking(weight), weight);
            }
        }
        assert!((largest - 0.447_743).abs() < 1e-6 && (at - 6.894_15).abs() < 1e-3, "{largest} at {at}");
        // The ends of the interval are where the factor is 1: found here by its definition.
        let shrinks = |a: f64| 10.0 * value_and_derivative(SIGMOID, 10.0 * a).1 < 1.0;
        let counted = (-100_000..100_000).filter(|step| !shrinks(f64::from(*step) * 1e-5)).count();
        assert!((counted as f64 * 1e-5 - width_without_shrinking(10.0)).abs() < 2e-5);
    }
}
