//! Nielsen, Neural Networks and Deep Learning, chapter 5: how fast the layers of sigmoid networks learn.

use super::{Case, Finding, Findings, Laboratory, Run, mean_of};
use crate::analysis::geometric_mean;
use crate::verify::Expected;

pub(super) const CASE: Case = Case {
    name: "learning_speeds",
    about: "the layers of Nielsen's sigmoid networks learn at speeds that differ by a fifth, on the digits before training",
    source: "Nielsen, chapter 5",
    is_long: false,
    run: before_training,
};

pub(super) const MNIST: Case = Case {
    name: "learning_speeds_mnist",
    about: "the same on MNIST, before training and after 100 and 499 epochs",
    source: "Nielsen, chapter 5",
    is_long: true,
    run: on_mnist,
};

pub(super) const ACCURACY: Case = Case {
    name: "nielsen_accuracy",
    about: "more hidden layers make Nielsen's networks no better on MNIST",
    source: "Nielsen, chapter 5",
    is_long: true,
    run: accuracies,
};

/// Where the speeds of 20 seeds lie on MNIST before training, layer by layer, with two, three and four hidden layers.
const BANDS: [&[(f64, f64)]; 3] = [
    &[(0.037, 0.082), (0.19, 0.40)],
    &[(0.0079, 0.019), (0.039, 0.089), (0.21, 0.41)],
    &[(0.0013, 0.0040), (0.0067, 0.018), (0.034, 0.092), (0.20, 0.41)],
];

/// The speeds of his figures, after so many epochs.
const PUBLISHED: [(usize, [&[f64]; 3]); 2] = [
    (100, [&[0.00149, 0.00186], &[8.1e-5, 2.8e-4, 1.39e-3], &[1.8e-5, 4.2e-5, 2.2e-4, 9.6e-4]]),
    (499, [&[0.00344, 0.00963], &[8.6e-5, 2.2e-4, 1.26e-3], &[8e-6, 2.6e-5, 1.8e-4, 9.3e-4]]),
];

fn before_training(laboratory: &Laboratory<'_>) -> Findings {
    let config = include_str!("../../../configs/nielsen.toml");
    let overrides = ["training.epochs=1", "probe.units=false", "probe.parameters=false", "probe.every=0"];
    Ok(at_initialization(&laboratory.run_config(config, &overrides)?))
}

fn on_mnist(laboratory: &Laboratory<'_>) -> Findings {
    let config = include_str!("../../../configs/nielsen_mnist.toml");
    // The last step, of 500, is number 499.
    let overrides = ["probe.every=100", "probe.per_decade=0", "probe.parameters=false"];
    let runs = laboratory.run_config(config, &overrides)?;
    let mut findings = at_initialization(&runs);
    for (epoch, depths) in PUBLISHED {
        for (depth, speeds) in (2..).zip(depths) {
            let measured = speeds_at(&runs, depth, epoch, speeds.len());
            for (layer, (published, measured)) in speeds.iter().zip(measured).enumerate() {
                // One run is published, and here is the mean of twenty: seeds differ by a factor of up to 2.
                let expected = Expected::logarithm(*published, 0.0, 2.0_f64.ln());
                findings.push(Finding::new(
                    format!("{depth} hidden layers, layer {}, epoch {epoch}", layer + 1),
                    expected,
                    measured,
                ));
            }
        }
    }
    Ok(findings)
}

fn at_initialization(runs: &[Run]) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut ratios = Vec::new();
    for (depth, bands) in (2..).zip(BANDS) {
        let speeds = speeds_at(runs, depth, 0, bands.len());
        for (layer, ((low, high), speed)) in bands.iter().zip(&speeds).enumerate() {
            let quantity = format!("{depth} hidden layers, speed of layer {}", layer + 1);
            findings.push(Finding::new(quantity, Expected::between(*low, *high), *speed));
        }
        // The logarithm of a mean of ratios over layers and seeds is that of means over seeds.
        ratios.extend(speeds.windows(2).map(|pair| Some(pair[0]? / pair[1]?)));
    }
    let ratio = ratios.into_iter().collect::<Option<Vec<f64>>>().and_then(|ratios| geometric_mean(&ratios));
    findings.push(Finding::new("speed of a layer by that of the next one", Expected::between(0.17, 0.25), ratio));
    findings
}

/// The speed of each hidden layer at a step, which is an epoch of one batch: the geometric mean over seeds.
fn speeds_at(runs: &[Run], depth: usize, step: usize, layers: usize) -> Vec<Option<f64>> {
    let of_layer = |layer: usize| {
        let of_run = |run: &Run| {
            let rows = &run.rows.activations;
            rows.iter().find(|row| row.step == step && row.layer_index == layer).and_then(|row| row.mean_delta_l2)
        };
        let of_depth = runs.iter().filter(|run| run.spec.config.network.depth == depth);
        of_depth.map(of_run).collect::<Option<Vec<f64>>>().and_then(|speeds| geometric_mean(&speeds))
    };
    (0..layers).map(of_layer).collect()
}

fn accuracies(laboratory: &Laboratory<'_>) -> Findings {
    let config = include_str!("../../../configs/nielsen_accuracy.toml");
    let overrides = ["throughput.samples=0", "probe.parameters=false", "probe.activations=false"];
    let runs = laboratory.run_config(config, &overrides)?;
    let published = [(2, 96.90), (3, 96.57), (4, 96.53)];
    let finding = |(depth, accuracy): (usize, f64)| {
        let of_depth = runs.iter().filter(|run| run.spec.config.network.depth == depth);
        let measured = mean_of(of_depth, |run| run.summary.test_accuracy.map(|share| share * 100.0));
        Finding::new(format!("{depth} hidden layers, accuracy in %"), Expected::absolute(accuracy, 0.4), measured)
    };
    Ok(published.into_iter().map(finding).collect())
}
