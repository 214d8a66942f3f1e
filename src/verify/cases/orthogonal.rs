//! Layers that keep the gradient: orthogonal ones exactly, maxout on average.

use nalgebra::DMatrix;

use super::{Case, Finding, Findings, Laboratory, VerifyError, delta_rate, level, mean_field, saved};
use crate::verify::Expected;

pub(super) const CASE: Case = Case {
    name: "isometry",
    about: "orthogonal layers keep every gradient, and maxout of two pieces with variance 1/n keeps it on average",
    source: "Saxe 2014",
    is_long: false,
    run: rates,
};

fn rates(laboratory: &Laboratory<'_>) -> Findings {
    let levels = [
        level("orthogonal", &[("network.activation", "\"identity\""), ("network.weight_init", "\"orthogonal\"")]),
        level("maxout", &[("network.activation", "\"maxout\""), ("network.weight_init", "\"lecun\"")]),
    ];
    let runs = laboratory.run(&mean_field(10, 256, 30, "bias_init = \"off\"", &levels.concat()))?;
    Ok(vec![
        Finding::new(
            "orthogonal: factor of the delta a layer",
            Expected::relative(1.0, 1e-4),
            delta_rate(&runs, "orthogonal"),
        ),
        Finding::new("maxout, two pieces: the same", Expected::relative(1.0, 0.02), delta_rate(&runs, "maxout")),
        product(laboratory)?,
    ])
}

const LAYERS: usize = 10;
const WIDTH: usize = 64;

/// The singular values of the product of the weights of all layers, as the device has them.
fn product(laboratory: &Laboratory<'_>) -> Result<Finding, VerifyError> {
    let runs = laboratory.run(&format!(
        "[network]\ndepth = {LAYERS}\nwidth = {WIDTH}\nactivation = \"identity\"\nweight_init = \"orthogonal\"\n\
         [training]\nsteps = 0\nsave = true\n[probe]\nparameters = false\nactivations = false\n[throughput]\nsamples = 0\n"
    ))?;
    let saved = saved(&runs, "")?;
    let mut product = DMatrix::<f64>::identity(WIDTH, WIDTH);
    for layer in 0..LAYERS {
        let weight = saved.get(&format!("hidden.{layer}.weight"))?;
        if weight.len() != WIDTH * WIDTH {
            return Err(VerifyError::Unreadable(format!("layer {layer} has {} weights", weight.len())));
        }
        product *= DMatrix::from_row_slice(WIDTH, WIDTH, weight);
    }
    let values = product.singular_values();
    let value =
        |(place, value): (usize, &f64)| (format!("number {}", place + 1), Expected::absolute(1.0, 1e-3), Some(*value));
    Ok(Finding::worst("singular values of the product of ten layers", values.iter().enumerate().map(value)))
}
