//! Every activation function: its value and its derivative, and the fixed point of SELU.

use super::{Case, Finding, Findings, Laboratory, level, mean_field, mean_of, quoted};
use crate::verify::Expected;

pub(super) const CASE: Case = Case {
    name: "activation_functions",
    about: "links of chains of neurons with every activation function have the factors w phi'(w a + b)",
    source: "the papers' formulas, 40 digits",
    is_long: false,
    run: factors,
};

pub(super) const SELU: Case = Case {
    name: "selu_fixed_point",
    about: "SELU keeps mean 0 and variance 1 through thirty layers",
    source: "Klambauer et al. 2017, equation 3",
    is_long: false,
    run: fixed_point,
};

/// Weights and biases of six links, under which every function below has negative and positive pre-activations.
const WEIGHTS: &str = "[1.5, -2.0, 1.5, -1.25, 2.5, -0.75]";
const BIASES: &str = "[0.25, 0.5, -0.5, 0.5, -2.0, 0.125]";

/// The factors of the links for the input .5, computed with 40 digits by mpmath from z = w a + b, a = phi(z), factor w phi'(z),
/// where phi(z) is
///
/// - sigmoid: 1 / (1 + e^-z),
/// - leaky ReLU and PReLU: z above 0, .01 z and .25 z below,
/// - ELU: z above 0, e^z - 1 below,
/// - SELU: 1.0507009873554805 z above 0, 1.0507009873554805 x 1.6732632423543772 (e^z - 1) below,
/// - GELU: z erfc(-z / sqrt(2)) / 2,
/// - softplus: ln(1 + e^z).
///
/// Every value of a link is the input of the next one, so that the factors tell the values too.
const FACTORS: [(&str, [f64; 6]); 9] = [
    ("sigmoid", [0.294_917_90, -0.400_054_82, 0.374_318_40, -0.311_745_47, 0.532_443_66, -0.186_977_36]),
    ("tanh", [0.629_961_51, -0.810_618_44, 0.203_271_70, -0.167_675_47, 2.251_649_6, -0.740_771_12]),
    ("leaky_relu", [1.5, -0.02, 0.015, -1.25, 0.025, -0.75]),
    ("prelu", [1.5, -0.5, 0.375, -1.25, 2.5, -0.75]),
    ("elu", [1.5, -0.446_260_32, 0.283_699_51, -1.25, 2.5, -0.222_984_82]),
    ("selu", [1.576_051_5, -0.708_913_69, 0.194_803_23, -1.313_376_2, 2.626_752_5, -0.037_994_52]),
    ("gelu", [1.624_973_2, 0.231_962_26, 0.027_950_549, -1.227_762_4, 0.127_345_07, -0.521_800_20]),
    ("softplus", [1.096_587_9, -0.213_090_98, 0.626_992_27, -0.569_957_05, 0.956_726_91, -0.330_808_37]),
    ("identity", [1.5, -2.0, 1.5, -1.25, 2.5, -0.75]),
];

/// Below 0 ReLU stops the gradient, so that only the first link may be there.
const RELU_WEIGHTS: &str = "[-1.5, 2.0, 0.75, 1.25, 2.5, 0.5]";
const RELU_BIASES: &str = "[0.25, 0.5, -0.25, 0.5, -1.0, 0.125]";
const RELU_FACTORS: [f64; 6] = [0.0, 2.0, 0.75, 1.25, 2.5, 0.5];

fn factors(laboratory: &Laboratory<'_>) -> Findings {
    let relu = [("network.weights", RELU_WEIGHTS), ("network.biases", RELU_BIASES)];
    let mut levels = level("relu", &[("network.activation", "\"relu\""), relu[0], relu[1]]);
    for (name, _) in FACTORS {
        levels += &level(
            name,
            &[("network.activation", &quoted(name)), ("network.weights", WEIGHTS), ("network.biases", BIASES)],
        );
    }
    let runs = laboratory.run(&format!(
        "[data]\nset = \"single\"\nvalue = 0.5\n[network]\nkind = \"chain\"\ndepth = 6\nweight_init = \"given\"\n\
         bias_init = \"given\"\n[training]\nloss = \"linear_probe\"\nsteps = 0\n[probe]\nparameters = false\n\
         activations = false\n[throughput]\nsamples = 0\n{levels}"
    ))?;
    let finding = |(name, factors): (&str, [f64; 6])| {
        let links = runs.iter().find(|run| run.name() == name).map(|run| run.rows.links.as_slice()).unwrap_or_default();
        let values = factors.iter().enumerate().map(|(link, factor)| {
            let measured = links.get(link).and_then(|row| row.factor_on_device);
            (format!("link {}", link + 1), Expected::relative(*factor, 1e-4), measured)
        });
        Finding::worst(&format!("{name}: factor"), values)
    };
    Ok([("relu", RELU_FACTORS)].into_iter().chain(FACTORS).map(finding).collect())
}

fn fixed_point(laboratory: &Laboratory<'_>) -> Findings {
    let network = "activation = \"selu\"\nweight_init = \"lecun\"\nbias_init = \"off\"";
    let runs = laboratory.run(&mean_field(16, 512, 30, network, ""))?;
    let last = |value: fn(&crate::schema::ActivationRow) -> Option<f64>| {
        mean_of(runs.iter(), |run| run.rows.activations.iter().find(|row| row.layer_index == 29).and_then(value))
    };
    Ok(vec![
        Finding::new("mean of the 30th layer", Expected::absolute(0.0, 0.05), last(|row| row.activation_mean)),
        Finding::new(
            "standard deviation of the 30th layer",
            Expected::absolute(1.0, 0.05),
            last(|row| row.activation_std),
        ),
    ])
}
