//! Penalties and decay of weights that have no gradient of data.

use super::{Case, Finding, Findings, Laboratory, level, runs_of};
use crate::verify::Expected;

pub(super) const CASE: Case = Case {
    name: "regularization",
    about: "without a gradient of data L2 and decay leave w (1 - rate x lambda)^k after k steps, L1 leaves |w| - rate x lambda k",
    source: "closed form",
    is_long: false,
    run: weights,
};

const STEPS: [usize; 5] = [0, 50, 100, 150, 200];

/// The units of a ReLU network with biases of -1000 are dead, so that its weights move by the penalty alone. All are +-.5, and the
/// rate times the factor is .001.
fn weights(laboratory: &Laboratory<'_>) -> Findings {
    let levels = [
        level("L2 penalty", &[("training.l2", "0.01")]),
        level("weight decay", &[("training.weight_decay", "0.01")]),
        level("L1 penalty", &[("training.l1", "0.01")]),
    ];
    let runs = laboratory.run(&format!(
        "[network]\ndepth = 3\nwidth = 16\nactivation = \"relu\"\nweight_init = \"random_sign\"\nweight_scale = 0.5\n\
         bias_init = \"constant\"\nbias_value = -1000.0\n[training]\nlearning_rate = 0.1\nsteps = 201\n[probe]\n\
         every = 50\nper_decade = 0\nactivations = false\n[throughput]\nsamples = 0\n{}",
        levels.concat()
    ))?;
    let size = |name: &str, parameter: &str, step: usize| {
        let rows = &runs_of(&runs, name).next()?.rows.gradients;
        let row = rows.iter().find(|row| row.step == step && row.parameter == parameter)?;
        Some(row.weight_l2? / (row.element_count as f64).sqrt())
    };
    let geometric: fn(usize) -> f64 = |step| 0.5 * 0.999_f64.powi(step as i32);
    let arithmetic: fn(usize) -> f64 = |step| 0.5 - 0.001 * step as f64;
    let mut findings = Vec::new();
    for (name, expected) in [("L2 penalty", geometric), ("weight decay", geometric), ("L1 penalty", arithmetic)] {
        let values = (0..3).flat_map(|layer| STEPS.map(|step| (layer, step))).map(|(layer, step)| {
            let measured = size(name, &format!("hidden.{layer}.weight"), step);
            (format!("layer {}, step {step}", layer + 1), Expected::relative(expected(step), 1e-4), measured)
        });
        findings.push(Finding::worst(&format!("{name}: size of the weights"), values));
        findings.push(Finding::new(
            format!("{name}: size of the biases, untouched"),
            Expected::relative(1000.0, 1e-6),
            size(name, "hidden.0.bias", 200),
        ));
    }
    Ok(findings)
}
