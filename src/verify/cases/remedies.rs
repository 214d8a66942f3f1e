//! Eight sigmoid layers that do not train, and what makes them.

use super::{Case, Finding, Findings, Laboratory, Run, mean_of, runs_of};
use crate::verify::Expected;

const SOURCE: &str = "an independent program";

pub(super) const CASE: Case = Case {
    name: "remedies",
    about: "eight sigmoid layers learn with remedies that reach the gradient and not without (one seed)",
    source: SOURCE,
    is_long: false,
    run: one_seed,
};

pub(super) const FIVE_SEEDS: Case = Case {
    name: "remedies_five_seeds",
    about: "the same over five seeds",
    source: SOURCE,
    is_long: true,
    run: five_seeds,
};

pub(super) const PRETRAINING: Case = Case {
    name: "pretraining",
    about: "eight sigmoid layers learn after pretraining as autoencoders and as restricted Boltzmann machines",
    source: SOURCE,
    is_long: true,
    run: pretraining,
};

/// What is left of the gradient of the first layer without a remedy, by that of the last one.
const VANISHED: (f64, f64) = (1e-5, 1e-4);

fn one_seed(laboratory: &Laboratory<'_>) -> Findings {
    of_seeds(laboratory, "experiment.seeds=1")
}

fn five_seeds(laboratory: &Laboratory<'_>) -> Findings {
    of_seeds(laboratory, "experiment.seeds=5")
}

fn of_seeds(laboratory: &Laboratory<'_>, seeds: &str) -> Findings {
    let config = include_str!("../../../configs/remedies.toml");
    let runs = laboratory.run_config(config, &[seeds, "throughput.samples=0", "probe.activations=false"])?;
    let mut findings = vec![gradient_ratio(&runs, "none", Expected::between(VANISHED.0, VANISHED.1))];
    for name in ["none", "clipping", "L2 penalty"] {
        findings.push(Finding::new(
            format!("{name}: training loss"),
            Expected::above(2.25),
            training_loss(&runs, name),
        ));
        findings.push(Finding::new(format!("{name}: accuracy in %"), Expected::below(20.0), accuracy(&runs, name)));
    }
    for (name, least) in [("batch norm", 94.0), ("tanh", 94.0), ("ReLU", 94.0), ("ELU", 94.0), ("shortcuts", 88.0)] {
        findings.push(Finding::new(format!("{name}: accuracy in %"), Expected::above(least), accuracy(&runs, name)));
    }
    Ok(findings)
}

fn pretraining(laboratory: &Laboratory<'_>) -> Findings {
    let config = include_str!("../../../configs/pretraining.toml");
    let overrides = ["experiment.seeds=3", "throughput.samples=0", "probe.activations=false"];
    let runs = laboratory.run_config(config, &overrides)?;
    Ok(vec![
        Finding::new("none: accuracy in %", Expected::below(20.0), accuracy(&runs, "none")),
        Finding::new("autoencoders: accuracy in %", Expected::above(95.0), accuracy(&runs, "autoencoders")),
        Finding::new("RBMs: accuracy in %", Expected::above(85.0), accuracy(&runs, "RBMs")),
        gradient_ratio(&runs, "none", Expected::between(VANISHED.0, VANISHED.1)),
        // Before fine-tuning. Of the same size as in the independent program, whose draws are others.
        gradient_ratio(&runs, "autoencoders", Expected::logarithm(0.56, 0.0, 1.5_f64.ln())),
        gradient_ratio(&runs, "RBMs", Expected::logarithm(0.08, 0.0, 1.5_f64.ln())),
    ])
}

fn training_loss(runs: &[Run], name: &str) -> Option<f64> {
    mean_of(runs_of(runs, name), |run| run.summary.train_loss)
}

fn accuracy(runs: &[Run], name: &str) -> Option<f64> {
    mean_of(runs_of(runs, name), |run| run.summary.test_accuracy.map(|share| share * 100.0))
}

fn gradient_ratio(runs: &[Run], name: &str, expected: Expected) -> Finding {
    let measured = mean_of(runs_of(runs, name), |run| run.summary.gradient_ratio_first);
    Finding::new(format!("{name}: first gradient by last, at the start"), expected, measured)
}
