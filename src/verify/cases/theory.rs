//! The formulas of `theory` against values of an independent program, and against what networks do.

use super::{Case, Finding, Findings, Laboratory, level, runs_of};
use crate::analysis::{Configuration, RunSummary, configurations};
use crate::config::{Activation, ActivationFunction};
use crate::theory::mean_field::{FixedPoint, MeanField, edge_of_chaos, moments, random_sign_rate};
use crate::theory::normalization::{BatchNorm, large_batch_gradient_factor};
use crate::theory::{recurrence, residual};
use crate::verify::Expected;

pub(super) const CONSTANTS: Case = Case {
    name: "theory",
    about: "the program's own formulas and integrals have the values of an independent program",
    source: "Poole 2016, Schoenholz 2017, Yang 2017 and 2019, Hanin 2019",
    is_long: false,
    run: constants,
};

pub(super) const PREDICTIONS: Case = Case {
    name: "predicted_deltas",
    about: "the first layer of each network has the delta that theory predicts from its inputs and its outputs",
    source: "Schoenholz 2017; Yang 2017, 2019",
    is_long: false,
    run: predictions,
};

/// Five digits.
const DIGITS: f64 = 1e-5;

fn function(kind: Activation, slope: f64, pieces: usize) -> ActivationFunction {
    ActivationFunction { kind, slope, pieces }
}

fn plain(kind: Activation) -> ActivationFunction {
    function(kind, 0.0, 1)
}

/// Values that are computed, each with its name.
type Values = Vec<(String, Expected, Option<f64>)>;

#[allow(clippy::unnecessary_wraps)] // As all cases.
fn constants(_: &Laboratory<'_>) -> Findings {
    let subjects: [(&str, Values); 8] = [
        ("fixed point of the variance", fixed_points()),
        ("chi", chis()),
        ("edge of chaos", edges()),
        ("rate of batch norm, large batch", large_batches()),
        ("rate of batch norm, finite batch", finite_batches()),
        ("logarithm of residual growth", residual_growth()),
        ("gradient through time", through_time()),
        ("rate of maxout and of random signs", others()),
    ];
    Ok(subjects.into_iter().map(|(subject, values)| Finding::worst(subject, values)).collect())
}

fn value(name: impl Into<String>, expected: f64, tolerance: f64, found: f64) -> (String, Expected, Option<f64>) {
    (name.into(), Expected::relative(expected, tolerance), Some(found))
}

const FIELDS: [(Activation, f64, f64, f64, f64); 7] = [
    (Activation::Tanh, 1.0, 0.05, 0.193_593, 0.759_032),
    (Activation::Tanh, 1.5, 0.05, 0.418_037, 0.938_636),
    (Activation::Tanh, 4.0, 0.05, 2.195_494, 1.342_402),
    (Activation::Tanh, 25.0 / 9.0, 0.0, 1.178_480, 1.209_831),
    (Activation::Sigmoid, 1.0, 0.0, 0.264_687, 0.055_721),
    (Activation::Sigmoid, 1.0, 1.0, 1.302_134, 0.041_960),
    (Activation::Elu, 1.550_52, 0.0, 1.0, 1.035_905),
];

fn field(kind: Activation, weight_variance: f64, bias_variance: f64) -> MeanField {
    MeanField { function: plain(kind), weight_variance, bias_variance }
}

fn fixed_points() -> Values {
    let of = |(kind, weights, biases, expected, _): (Activation, f64, f64, f64, f64)| {
        let found = match field(kind, weights, biases).fixed_point() {
            FixedPoint::At(q) => Some(q),
            FixedPoint::Anywhere | FixedPoint::Infinity => None,
        };
        (format!("{kind:?} {weights:.3}, {biases}"), Expected::relative(expected, DIGITS), found)
    };
    FIELDS.into_iter().map(of).collect()
}

fn chis() -> Values {
    // The listed values have five digits or fewer.
    let of = |(kind, weights, biases, _, expected): (Activation, f64, f64, f64, f64)| {
        value(format!("{kind:?} {weights:.3}, {biases}"), expected, 2e-5, field(kind, weights, biases).chi())
    };
    let mut values: Values = FIELDS.into_iter().map(of).collect();
    values.push(value("Relu 2", 1.0, DIGITS, field(Activation::Relu, 2.0, 0.0).chi()));
    let leaky =
        MeanField { function: function(Activation::LeakyRelu, 0.3, 1), weight_variance: 1.5, bias_variance: 0.0 };
    values.push(value("LeakyRelu .3, 1.5", 1.5 * 1.09 / 2.0, DIGITS, leaky.chi()));
    values
}

fn edges() -> Values {
    let of = |(biases, expected): (f64, f64)| {
        let found = edge_of_chaos(plain(Activation::Tanh), biases, 1.0, 4.0);
        (format!("Tanh, {biases}"), Expected::relative(expected, DIGITS), found)
    };
    [(0.05, 1.760_95), (0.01, 1.424_21), (0.3, 2.505_13)].into_iter().map(of).collect()
}

fn large_batches() -> Values {
    let of = |(kind, slope, expected): (Activation, f64, f64)| {
        let found = large_batch_gradient_factor(function(kind, slope, 1)).sqrt();
        value(format!("{kind:?}"), expected, DIGITS, found)
    };
    let rates = [
        (Activation::Relu, 0.0, 1.211_17),
        (Activation::Tanh, 0.0, 1.085_27),
        (Activation::Sigmoid, 0.0, 1.016_66),
        (Activation::Elu, 0.0, 1.038_76),
        (Activation::Prelu, 0.25, 1.096_66),
        (Activation::Identity, 0.0, 1.0),
    ];
    rates.into_iter().map(of).collect()
}

/// Of linear layers (B - 2) / (B - 3); of ReLU as an independent program measured it.
fn finite_batches() -> Values {
    let rate = |kind, examples| BatchNorm::new(plain(kind), examples).map(|norm| norm.gradient_factor().sqrt());
    let linear = [8, 16, 32].map(|examples: usize| {
        let b = examples as f64;
        let expected = ((b - 2.0) / (b - 3.0)).sqrt();
        (format!("Identity, {examples}"), Expected::relative(expected, DIGITS), rate(Activation::Identity, examples))
    });
    let relu = [(16, 1.263), (32, 1.234), (64, 1.222), (128, 1.214)].map(|(examples, measured)| {
        (format!("Relu, {examples}"), Expected::absolute(measured, 0.015), rate(Activation::Relu, examples))
    });
    linear.into_iter().chain(relu).collect()
}

fn residual_growth() -> Values {
    let (relu, tanh) = (plain(Activation::Relu), plain(Activation::Tanh));
    let of_tanh = |blocks: usize| residual::log_growth(tanh, 1.0, 1.0, 1.0, blocks);
    vec![
        value("Relu, 100 blocks", 69.3147, DIGITS, residual::log_growth(relu, 2.0, 1.0, 1.0, 100)),
        value(
            "Relu / sqrt(L), 1000",
            0.9995,
            5e-5,
            residual::log_growth(relu, 2.0, 1.0 / 1000.0_f64.sqrt(), 1.0, 1000),
        ),
        value("Tanh, 10", 2.643, 5e-4, of_tanh(10)),
        value("Tanh, 100", 10.55, 5e-4, of_tanh(100)),
        value("Tanh, 1000", 34.27, 5e-4, of_tanh(1000)),
    ]
}

fn through_time() -> Values {
    let mut values = vec![
        value("RNN .9, 100", 2.6561e-5, 2e-5, recurrence::vanilla_rnn(0.9, 1.0, 100)),
        value("RNN 1.1, 100", 13780.6, 2e-5, recurrence::vanilla_rnn(1.1, 1.0, 100)),
        value("GRU 2, 50", 1.7530e-3, 5e-5, recurrence::gru(2.0, 50)),
    ];
    for (bias, expected) in [(0.0, 7.889e-31), (1.0, 2.484e-14), (2.0, 3.073e-6), (3.0, 7.760e-3)] {
        values.push(value(format!("LSTM {bias}, 100"), expected, 2e-4, recurrence::lstm_cell(bias, 100)));
    }
    values
}

fn others() -> Values {
    let maxout = moments(function(Activation::Maxout, 0.0, 2), 1.0);
    let mut values = vec![
        value("maxout of two, square of the largest", 1.0, DIGITS, maxout.square),
        value("maxout of two, slopes", 1.0, DIGITS, maxout.derivative_square),
    ];
    for (weight, expected) in [(0.1, 1.6), (0.01, 0.16), (0.001, 0.016)] {
        values.push(value(format!("signs of {weight}"), expected, DIGITS, random_sign_rate(512, weight)));
    }
    values
}

/// A mean square over this many seeds and twelve layers of 512 units is known to about a tenth.
const SEEDS: usize = 16;
const TOLERANCE: f64 = 0.15;

fn predictions(laboratory: &Laboratory<'_>) -> Findings {
    let activation = |name: &'static str| [("network.activation", name)];
    let networks: [(&str, Vec<(&str, &str)>); 8] = [
        ("sigmoid", activation("\"sigmoid\"").to_vec()),
        ("tanh", activation("\"tanh\"").to_vec()),
        ("relu, he", vec![("network.weight_init", "\"he\"")]),
        (
            "elu, biases",
            vec![("network.activation", "\"elu\""), ("network.bias_std", "0.3"), ("network.bias_init", "\"normal\"")],
        ),
        ("layer norm, tanh", vec![("network.norm", "\"layer\""), ("network.activation", "\"tanh\"")]),
        ("batch norm, relu, batch 64", vec![("network.norm", "\"batch\""), ("training.batch_size", "64")]),
        ("residual, relu", vec![("network.kind", "\"residual\""), ("network.weight_init", "\"he\"")]),
        (
            "residual, batch norm, batch 64",
            vec![("network.kind", "\"residual\""), ("network.norm", "\"batch\""), ("training.batch_size", "64")],
        ),
    ];
    let sweep: String = networks.iter().map(|(name, keys)| level(name, keys)).collect();
    let network = "activation = \"relu\"\nweight_init = \"lecun\"";
    let runs = laboratory.run(&super::mean_field(SEEDS, 512, 12, network, &sweep))?;
    let finding = |(name, _): &(&str, Vec<(&str, &str)>)| {
        let summaries: Vec<RunSummary> = runs_of(&runs, name).map(|run| run.summary.clone()).collect();
        // A seed without a prediction would make the mean that of the others.
        let is_whole = summaries.iter().all(|summary| summary.delta_by_prediction.is_some());
        let ratio = configurations(&summaries).first().and_then(Configuration::delta_by_prediction);
        let quantity = format!("{name}: delta by its prediction");
        Finding::new(quantity, Expected::relative(1.0, TOLERANCE), ratio.filter(|_| is_whole))
    };
    Ok(networks.iter().map(finding).collect())
}
