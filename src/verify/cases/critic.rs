//! The gradient penalty of a critic (Gulrajani et al. 2017, equation 3), for which the slopes of activation functions are written out.

use super::{Case, Finding, Findings, Laboratory, level, quoted, runs_of};
use crate::verify::Expected;

pub(super) const CASE: Case = Case {
    name: "gradient_penalty",
    about: "the gradient penalty of a critic of equal units is (sqrt(2) n c^2 phi'(b) - 1)^2",
    source: "closed form; Gulrajani 2017, equation 3",
    is_long: false,
    run: penalties,
};

/// Function, bias and penalty. With n = 20000 units of the weights c = .001 from both inputs and to the output, the gradient of the output with
/// respect to each input is n c^2 phi'(b), as the inputs move z by a thousandth only.
const PENALTIES: [(&str, f64, f64); 10] = [
    ("sigmoid", 0.5, 0.986_750_4),
    ("tanh", 0.5, 0.956_006_6),
    ("relu", 0.5, 0.944_231_5),
    ("identity", 0.5, 0.944_231_5),
    ("softplus", 0.5, 0.965_098_3),
    ("selu", 0.5, 0.941_446_6),
    ("selu", -0.5, 0.940_588_3),
    ("elu", -0.5, 0.965_983_7),
    ("prelu", -0.5, 0.985_907_9),
    // With a slope of .5.
    ("leaky_relu", -0.5, 0.971_915_7),
];

fn penalties(laboratory: &Laboratory<'_>) -> Findings {
    let name = |function: &str, bias: f64| format!("{function} at {bias}");
    let levels: String = PENALTIES
        .iter()
        .map(|(function, bias, _)| {
            let (activation, bias_value) = (quoted(function), format!("{bias:?}"));
            let mut keys =
                vec![("network.activation", activation.as_str()), ("network.bias_value", bias_value.as_str())];
            if *function == "leaky_relu" {
                keys.push(("network.slope", "0.5"));
            }
            level(&name(function, *bias), &keys)
        })
        .collect();
    let runs = laboratory.run(&format!(
        "[data]\nset = \"swiss_roll\"\nexamples = 128\n[network]\ndepth = 1\nwidth = 20000\nweight_init = \"constant\"\n\
         weight_scale = 0.001\nbias_init = \"constant\"\n[training]\nloss = \"wasserstein\"\ngradient_penalty = 1.0\n\
         batch_size = 64\nsteps = 1\nlearning_rate = 1e-30\n[probe]\nactivations = false\n[throughput]\nsamples = 0\n{levels}"
    ))?;
    let finding = |(function, bias, expected): &(&str, f64, f64)| {
        let name = name(function, *bias);
        let penalty = runs_of(&runs, &name).next().and_then(|run| run.rows.steps.iter().find_map(|row| row.penalty));
        Finding::new(format!("{name}: penalty"), Expected::relative(*expected, 1e-5), penalty)
    };
    Ok(PENALTIES.iter().map(finding).collect())
}
