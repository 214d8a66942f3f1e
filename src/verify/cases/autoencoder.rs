//! Deep autoencoders beside principal components (Hinton and Salakhutdinov 2006).

use super::{Case, Finding, Findings, Laboratory, Run, mean_of, runs_of};
use crate::verify::Expected;

const SOURCE: &str = "Hinton and Salakhutdinov 2006";

pub(super) const CASE: Case = Case {
    name: "deep_autoencoder",
    about: "a deep autoencoder of the digits beats principal components if it is pretrained, and not otherwise",
    source: SOURCE,
    is_long: true,
    run: digits,
};

pub(super) const MNIST: Case = Case {
    name: "deep_autoencoder_mnist",
    about: "the same on MNIST, 784-1000-500-250-30",
    source: SOURCE,
    is_long: true,
    run: mnist,
};

fn digits(laboratory: &Laboratory<'_>) -> Findings {
    let config = include_str!("../../../configs/deep_autoencoder.toml");
    let runs = laboratory.run_config(config, &OVERRIDES)?;
    Ok(vec![
        by_components(&runs, "none", false),
        by_components(&runs, "autoencoders", true),
        by_components(&runs, "RBMs", true),
    ])
}

fn mnist(laboratory: &Laboratory<'_>) -> Findings {
    let config = include_str!("../../../configs/deep_autoencoder_mnist.toml");
    let runs = laboratory.run_config(config, &OVERRIDES)?;
    let components = mean_of(runs.iter(), |run| run.summary.principal_components_error);
    Ok(vec![
        Finding::new(
            "squared error an image from 30 principal components",
            Expected::absolute(13.87, 0.01),
            components,
        ),
        by_components(&runs, "none", false),
        by_components(&runs, "RBMs", true),
    ])
}

const OVERRIDES: [&str; 4] =
    ["experiment.seeds=1", "throughput.samples=0", "probe.parameters=false", "probe.activations=false"];

/// The squared error of the test split by that of as many principal components as the code has units.
fn by_components(runs: &[Run], name: &str, is_pretrained: bool) -> Finding {
    let measured = mean_of(runs_of(runs, name), |run| {
        Some(run.summary.test_reconstruction_error? / run.summary.principal_components_error?)
    });
    let expected = if is_pretrained { Expected::below(1.0) } else { Expected::above(1.0) };
    Finding::new(format!("pretraining {name}: error by that of components"), expected, measured)
}
