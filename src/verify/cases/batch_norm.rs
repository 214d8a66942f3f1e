//! Batch norm makes gradients explode (Yang et al. 2019).

use super::{Case, Finding, Findings, Laboratory, delta_rate, level, mean_field, quoted};
use crate::verify::Expected;

pub(super) const CASE: Case = Case {
    name: "batch_norm_gradients",
    about: "batch norm multiplies the gradient at every layer, with ReLU by sqrt(pi / (pi - 1)) for large batches",
    source: "Yang et al. 2019",
    is_long: false,
    run: rates,
};

/// Activation function, batch, factor. Those of batches of 256 are the limits of large ones; of the identity the factor is
/// sqrt((B - 2) / (B - 3)).
const RATES: [(&str, usize, f64); 10] = [
    ("relu", 16, 1.263),
    ("relu", 32, 1.234),
    ("relu", 64, 1.222),
    ("relu", 128, 1.214),
    ("tanh", 256, 1.08527),
    ("sigmoid", 256, 1.01666),
    ("elu", 256, 1.03876),
    ("prelu", 256, 1.09666),
    ("identity", 16, 1.037_749),
    ("identity", 8, 1.095_445),
];

fn rates(laboratory: &Laboratory<'_>) -> Findings {
    let name = |function: &str, batch: usize| format!("{function}, batches of {batch}");
    let mut levels = String::new();
    for (function, batch, _) in RATES {
        let keys = [("network.activation", quoted(function)), ("training.batch_size", batch.to_string())];
        let keys: Vec<(&str, &str)> = keys.iter().map(|(key, value)| (*key, value.as_str())).collect();
        levels += &level(&name(function, batch), &keys);
    }
    let network = "weight_init = \"lecun\"\nbias_init = \"off\"\nnorm = \"batch\"";
    let runs = laboratory.run(&mean_field(6, 512, 20, network, &levels))?;
    let finding = |(function, batch, rate): &(&str, usize, f64)| {
        let name = name(function, *batch);
        let measured = delta_rate(&runs, &name);
        Finding::new(name, Expected::absolute(*rate, 0.015), measured)
    };
    Ok(RATES.iter().map(finding).collect())
}
