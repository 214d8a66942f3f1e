//! Residual networks without normalization, whose blocks are x + a W phi(x).

use super::{Case, Finding, Findings, Laboratory, Run, VerifyError, level, mean_field, runs_of};
use crate::analysis::mean;
use crate::schema::RunStatus;
use crate::verify::Expected;

pub(super) const CASE: Case = Case {
    name: "residual_relu",
    about: "x + a W relu(x) multiplies the square of the gradient by 1 + a^2 a block, and leaves f32 at 1000 blocks",
    source: "closed form",
    is_long: false,
    run: relu,
};

pub(super) const TANH: Case = Case {
    name: "residual_tanh",
    about: "x + W tanh(x) grows the gradient like a power of the depth, not exponentially",
    source: "Yang and Schoenholz 2017",
    is_long: false,
    run: tanh,
};

fn run(
    laboratory: &Laboratory<'_>,
    seeds: usize,
    width: usize,
    network: &str,
    levels: &str,
) -> Result<Vec<Run>, VerifyError> {
    let network = format!("kind = \"residual\"\nstem = false\nbias_init = \"off\"\n{network}");
    let text = mean_field(seeds, width, 10, &network, levels);
    laboratory.run(&text.replace("parameters = false", "parameters = false\ninputs = true"))
}

/// The logarithm of the squared gradient with respect to the input by that with respect to the last block's output, over the
/// seeds of a level.
fn growth(runs: &[Run], name: &str) -> Option<f64> {
    let squares: Option<Vec<f64>> =
        runs_of(runs, name).map(|run| run.summary.input_gradient_ratio_first.map(|ratio| ratio.powi(2))).collect();
    mean(&squares?).map(f64::ln)
}

fn relu(laboratory: &Laboratory<'_>) -> Findings {
    let levels = [
        level("a = 1, 100 blocks", &[("network.depth", "100")]),
        level(
            "a = 1/sqrt(1000), 1000 blocks",
            &[("network.depth", "1000"), ("network.branch_scale", "\"inverse_sqrt_blocks\"")],
        ),
        level("a = 1, 1000 blocks", &[("network.depth", "1000")]),
    ];
    let seeds = 16;
    let runs = run(laboratory, seeds, 128, "activation = \"relu\"\nweight_init = \"he\"", &levels.concat())?;
    let diverged = runs_of(&runs, "a = 1, 1000 blocks").filter(|run| {
        let is_reported = run.summary.status == RunStatus::Diverged { diverged_at_step: 0 };
        is_reported
            && run.summary.input_gradient_ratio_first.is_none()
            && run.rows.steps.iter().all(|row| row.loss.is_none())
    });
    // The tolerances are about three standard errors.
    let scaled = "a = 1/sqrt(1000), 1000 blocks";
    Ok(vec![
        Finding::new(
            "ln of |gradient|^2, a = 1, 100 blocks",
            Expected::absolute(69.31, 2.5),
            growth(&runs, "a = 1, 100 blocks"),
        ),
        Finding::new(format!("the same, {scaled}"), Expected::absolute(0.9995, 0.2), growth(&runs, scaled)),
        Finding::new(
            "a = 1, 1000 blocks: runs reported as diverged",
            Expected::exactly(seeds as f64),
            Some(diverged.count() as f64),
        ),
        scaled_blocks(laboratory, "0.25", 2.441_406_25)?,
        scaled_blocks(laboratory, "\"inverse_sqrt_blocks\"", 5.0625)?,
    ])
}

/// Four blocks x + a x of one linear unit with the weight 1 multiply the gradient by (1 + a)^4: 1.25^4, and 1.5^4 for a = 1/sqrt(4).
fn scaled_blocks(laboratory: &Laboratory<'_>, scale: &str, expected: f64) -> Result<Finding, VerifyError> {
    let network = "activation = \"identity\"\nweight_init = \"constant\"\nweight_scale = 1.0";
    let levels = level("blocks", &[("network.depth", "4"), ("network.branch_scale", scale)]);
    let runs = run(laboratory, 1, 1, network, &levels)?;
    let measured = runs.first().and_then(|run| run.summary.input_gradient_ratio_first);
    let name = format!("four linear blocks, a = {}: growth", scale.trim_matches('"'));
    Ok(Finding::new(name, Expected::relative(expected, 1e-4), measured))
}

fn tanh(laboratory: &Laboratory<'_>) -> Findings {
    let depths = [("10", 2.643, 0.3), ("100", 10.55, 1.0), ("1000", 34.27, 3.5)];
    let levels: String = depths.iter().map(|(depth, ..)| level(depth, &[("network.depth", depth)])).collect();
    let runs = run(laboratory, 10, 256, "activation = \"tanh\"\nweight_init = \"lecun\"", &levels)?;
    let finding = |(depth, expected, margin): &(&str, f64, f64)| {
        let quantity = format!("ln of |gradient|^2, {depth} blocks");
        Finding::new(quantity, Expected::absolute(*expected, *margin), growth(&runs, depth))
    };
    Ok(depths.iter().map(finding).collect())
}
