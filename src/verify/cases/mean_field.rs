//! How the delta changes a layer at initialization, by mean field theory.

use super::{Case, Finding, Findings, Laboratory, delta_rate, level, mean_field, quoted, runs_of};
use crate::analysis::mean;
use crate::verify::Expected;

pub(super) const CASE: Case = Case {
    name: "mean_field",
    about: "deltas change a layer by sqrt(chi), chi = sigma_w^2 E[phi'(sqrt(q*) z)^2]",
    source: "Poole 2016, Schoenholz 2017",
    is_long: false,
    run: rates,
};

pub(super) const FIFTY_LAYERS: Case = Case {
    name: "fifty_layers",
    about: "fifty layers lose or gain the gradient that initializer and activation function foretell",
    source: "mean field theory",
    is_long: false,
    run: fifty_layers,
};

pub(super) const RANDOM_SIGN: Case = Case {
    name: "random_sign_weights",
    about: "weights of +-c, to which clipping drives a critic, multiply the gradient by c sqrt(n / 2) a ReLU layer",
    source: "Gulrajani 2017, figure 1b",
    is_long: false,
    run: random_sign,
};

/// Activation function, `sigma_w^2`, `sigma_b^2`, sqrt(chi). Of ReLU chi is `sigma_w^2 / 2`, with a slope a below 0
/// `sigma_w^2 (1 + a^2) / 2`.
const RATES: [(&str, f64, f64, f64); 13] = [
    ("tanh", 1.0, 0.05, 0.8712),
    ("tanh", 1.5, 0.05, 0.9688),
    ("tanh", 4.0, 0.05, 1.1586),
    ("tanh", 25.0 / 9.0, 0.0, 1.0999),
    // The edge of chaos.
    ("tanh", 1.42421, 0.01, 1.0),
    ("tanh", 1.76095, 0.05, 1.0),
    ("tanh", 2.50513, 0.3, 1.0),
    ("sigmoid", 1.0, 0.0, 0.2361),
    ("sigmoid", 1.0, 1.0, 0.2048),
    ("relu", 2.0, 0.0, 1.0),
    ("leaky_relu", 1.5, 0.0, 0.904_157),
    ("prelu", 1.5, 0.0, 0.892_679),
    ("elu", 1.55052, 0.0, 1.0178),
];

/// The slope of `leaky_relu` above: sqrt(1.5 x 1.09 / 2) = .904157. That of `prelu` is its default, .25:
/// sqrt(1.5 x 1.0625 / 2) = .892679.
const SLOPE: &str = "0.3";

fn rates(laboratory: &Laboratory<'_>) -> Findings {
    let name = |(function, weights, biases, _): (&str, f64, f64, f64)| format!("{function} {weights:.5}, {biases}");
    let mut levels = String::new();
    for row @ (function, weights, biases, _) in RATES {
        let (function, scale, std) = (quoted(function), weights.sqrt().to_string(), biases.sqrt().to_string());
        let mut keys = vec![("network.activation", function.as_str()), ("network.weight_scale", &scale)];
        if biases > 0.0 {
            keys.extend([("network.bias_init", "\"normal\""), ("network.bias_std", &std)]);
        }
        if row.0 == "leaky_relu" {
            keys.push(("network.slope", SLOPE));
        }
        levels += &level(&name(row), &keys);
    }
    let network = "weight_init = \"lecun\"\nbias_init = \"off\"";
    let runs = laboratory.run(&mean_field(32, 300, 30, network, &levels))?;
    let finding = |row: &(&str, f64, f64, f64)| {
        let tolerance = if row.0 == "sigmoid" { 0.06 } else { 0.02 };
        Finding::new(name(*row), Expected::relative(row.3, tolerance), delta_rate(&runs, &name(*row)))
    };
    Ok(RATES.iter().map(finding).collect())
}

/// |`delta_1`| / |`delta_50`| of sigmoid, tanh, ReLU and ELU.
const RATIOS: [(&str, &str, [f64; 4]); 3] = [
    ("burn", "1/(3n)", [2.3e-42, 1.53e-12, 8.6e-20, 1.4e-12]),
    ("lecun", "1/n", [1.7e-31, 0.121, 4.21e-8, 0.059]),
    ("he", "2/n", [3.4e-25, 7.66, 1.00, 13.8]),
];

fn fifty_layers(laboratory: &Laboratory<'_>) -> Findings {
    let functions = ["sigmoid", "tanh", "relu", "elu"];
    let sweep = "[sweep]\nnetwork.weight_init = [\"burn\", \"lecun\", \"he\"]\n\
                 network.activation = [\"sigmoid\", \"tanh\", \"relu\", \"elu\"]\n";
    let runs = laboratory.run(&mean_field(16, 256, 50, "bias_init = \"off\"", sweep))?;
    let mut findings = Vec::new();
    for (init, variance, ratios) in RATIOS {
        for (function, expected) in functions.into_iter().zip(ratios) {
            let level = format!("{function} {init}");
            let square = |run: &super::Run| {
                let delta = |layer: usize| run.rows.activations.get(layer).and_then(|row| row.delta_l2);
                Some((delta(0)? / delta(49)?).powi(2))
            };
            let squares: Option<Vec<f64>> = runs_of(&runs, &level).map(square).collect();
            let measured = squares.and_then(|squares| mean(&squares)).map(f64::sqrt);
            // A ratio of 1 has the logarithm 0: there a factor of 2 is allowed, which is a logarithm of .7 in 49 layers.
            let expected = Expected::logarithm(expected, 0.2, 2.0_f64.ln());
            findings.push(Finding::new(
                format!("{function}, variance {variance}: delta 1 by delta 50"),
                expected,
                measured,
            ));
        }
    }
    Ok(findings)
}

fn random_sign(laboratory: &Laboratory<'_>) -> Findings {
    let network = "activation = \"relu\"\nweight_init = \"random_sign\"\nbias_init = \"off\"";
    let sizes = [("0.1", 1.6), ("0.01", 0.16), ("0.001", 0.016)];
    let levels: String = sizes.iter().map(|(size, _)| level(size, &[("network.weight_scale", size)])).collect();
    let runs = laboratory.run(&mean_field(8, 512, 12, network, &levels))?;
    let finding = |(size, rate): &(&str, f64)| {
        Finding::new(format!("c = {size}, n = 512"), Expected::relative(*rate, 0.03), delta_rate(&runs, size))
    };
    Ok(sizes.iter().map(finding).collect())
}
