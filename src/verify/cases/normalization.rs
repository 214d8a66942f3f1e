//! What batch and layer norm make of a layer: mean 0 and standard deviation 1, but for epsilon; and running statistics.

use std::f64::consts::FRAC_1_SQRT_2;

use super::{Case, Finding, Findings, Laboratory, VerifyError, level, runs_of, saved};
use crate::schema::ActivationRow;
use crate::verify::Expected;
use crate::verify::tensors::Tensors;

pub(super) const CASE: Case = Case {
    name: "normalization",
    about: "batch and layer norm bring variance v to v / (v + epsilon), epsilon 1e-5, and the mean to 0",
    source: "Ioffe and Szegedy 2015, Ba 2016",
    is_long: false,
    run: moments,
};

pub(super) const RUNNING: Case = Case {
    name: "running_statistics",
    about: "batch norm takes a tenth of a new batch's mean and unbiased variance into its running statistics",
    source: "Ioffe and Szegedy 2015",
    is_long: false,
    run: running,
};

fn moments(laboratory: &Laboratory<'_>) -> Findings {
    let (batch, layer) = (("network.norm", "\"batch\""), ("network.norm", "\"layer\""));
    // Orthogonal matrices times this give pre-activations of variance 1e-5: as much as epsilon.
    let small = ("network.weight_scale", "0.0031622777");
    let levels = [
        level("batch norm, variance 1", &[batch]),
        level("layer norm, variance 1", &[layer]),
        level("batch norm, variance 1e-5", &[batch, small]),
        level("layer norm, variance 1e-5", &[layer, small]),
    ];
    let runs = laboratory.run(&format!(
        "[data]\nset = \"gaussian\"\nfeatures = 256\n[network]\ndepth = 1\nwidth = 256\nactivation = \"identity\"\n\
         weight_init = \"orthogonal\"\n[training]\nloss = \"linear_probe\"\nbatch_size = 1024\nsteps = 0\n[probe]\n\
         parameters = false\n[throughput]\nsamples = 0\n{}",
        levels.concat()
    ))?;
    let of = |name: &str, value: fn(&ActivationRow) -> Option<f64>| {
        runs_of(&runs, name).next().and_then(|run| run.rows.activations.first()).and_then(value)
    };
    let mut findings = Vec::new();
    for (name, deviation) in [
        ("batch norm, variance 1", Expected::absolute(1.0, 1e-3)),
        ("layer norm, variance 1", Expected::absolute(1.0, 1e-3)),
        // sqrt(1 / 2). An epsilon that is off by 5 % moves it by 1.2 %.
        ("batch norm, variance 1e-5", Expected::relative(FRAC_1_SQRT_2, 0.006)),
        ("layer norm, variance 1e-5", Expected::relative(FRAC_1_SQRT_2, 0.006)),
    ] {
        findings.push(Finding::new(
            format!("{name}: mean"),
            Expected::absolute(0.0, 1e-3),
            of(name, |row| row.activation_mean),
        ));
        findings.push(Finding::new(
            format!("{name}: standard deviation"),
            deviation,
            of(name, |row| row.activation_std),
        ));
    }
    Ok(findings)
}

/// The examples, two batches of which are all.
const EXAMPLES: usize = 64;
const BATCH: usize = EXAMPLES / 2;
const UNITS: usize = 16;

/// The running statistics after one step on all examples, and after one and two steps on halves of them. The network stays the
/// same: its learning rate is too small to change an f32.
fn running(laboratory: &Laboratory<'_>) -> Findings {
    let levels = [
        level("all", &[("training.batch_size", "\"full\""), ("training.steps", "1")]),
        level("one", &[("training.steps", "1")]),
        level("two", &[("training.steps", "2")]),
    ];
    let config = format!(
        "[data]\nexamples = {EXAMPLES}\n[network]\ndepth = 1\nwidth = {UNITS}\nactivation = \"identity\"\nnorm = \"batch\"\n\
         weight_init = \"lecun\"\nbias_init = \"normal\"\nbias_std = 1.0\n[training]\nlearning_rate = 1e-30\n\
         batch_size = {BATCH}\nsave = true\n[probe]\nactivations = false\nparameters = false\n[throughput]\nsamples = 0\n{}",
        levels.concat()
    );
    let runs = laboratory.run(&config)?;
    let [all, one, two] = [saved(&runs, "all")?, saved(&runs, "one")?, saved(&runs, "two")?];
    let (mean, squares) = pre_activations(laboratory, &config, &all)?;

    let unbiased: Vec<f64> = squares.iter().map(|sum| sum / (EXAMPLES - 1) as f64).collect();
    let found = Statistics::of(&all)?;
    let (first, mixed) = (Statistics::of(&one)?, Statistics::of(&two)?);
    // The second batch is what the first one has left of all examples.
    let second_mean: Vec<f64> = mean.iter().zip(first.mean).map(|(all, first)| 2.0 * all - first).collect();
    let second_variance: Vec<f64> = (0..UNITS)
        .map(|unit| {
            let between =
                BATCH as f64 * ((first.mean[unit] - mean[unit]).powi(2) + (second_mean[unit] - mean[unit]).powi(2));
            (squares[unit] - between) / (BATCH - 1) as f64 - first.variance[unit]
        })
        .collect();
    let by_unit = |expected: &[f64], measured: &[f64], margin: f64| {
        let values = expected.iter().zip(measured).enumerate();
        let value = |(unit, (expected, measured)): (usize, (&f64, &f64))| {
            (format!("unit {unit}"), Expected::absolute(*expected, margin), Some(*measured))
        };
        values.map(value).collect::<Vec<_>>()
    };
    let relative = |expected: &[f64], measured: &[f64]| {
        let total = |values: &[f64]| values.iter().sum::<f64>();
        Some(total(measured) / total(expected))
    };
    Ok(vec![
        Finding::worst("mean of the first batch", by_unit(&mean, found.mean, 1e-4)),
        // The biased variance is 1.6 % smaller.
        Finding::new(
            "variance of the first batch by the unbiased one",
            Expected::relative(1.0, 1e-3),
            relative(&unbiased, found.variance),
        ),
        Finding::new(
            "share of a new batch in the running mean",
            Expected::relative(0.1, 0.02),
            share(first.mean, mixed.mean, &second_mean),
        ),
        Finding::new(
            "share of a new batch in the running variance",
            Expected::relative(0.1, 0.02),
            share(first.variance, mixed.variance, &second_variance),
        ),
    ])
}

/// By least squares the s for which `mixed = old + s (new - old)`.
fn share(old: &[f64], mixed: &[f64], new: &[f64]) -> Option<f64> {
    let changes = || old.iter().zip(mixed).zip(new).map(|((old, mixed), new)| (mixed - old, new - old));
    let product: f64 = changes().map(|(change, whole)| change * whole).sum();
    let square: f64 = changes().map(|(_, whole)| whole * whole).sum();
    (square > 0.0).then(|| product / square)
}

/// The running statistics of the hidden layer.
struct Statistics<'a> {
    mean: &'a [f64],
    variance: &'a [f64],
}

impl<'a> Statistics<'a> {
    fn of(saved: &'a Tensors) -> Result<Self, VerifyError> {
        let statistics = Self {
            mean: saved.get("hidden.0.norm.running_mean")?,
            variance: saved.get("hidden.0.norm.running_variance")?,
        };
        match (statistics.mean.len(), statistics.variance.len()) {
            (UNITS, UNITS) => Ok(statistics),
            _ => Err(VerifyError::Unreadable("there are not as many running statistics as units".to_owned())),
        }
    }
}

/// The mean over all examples of each unit's pre-activation, and the sum of the squares of what deviates from it, in f64.
fn pre_activations(
    laboratory: &Laboratory<'_>,
    config: &str,
    saved: &Tensors,
) -> Result<(Vec<f64>, Vec<f64>), VerifyError> {
    let datasets = laboratory.datasets(config)?;
    let dataset = datasets.first().ok_or_else(|| VerifyError::Unreadable("there are no data".to_owned()))?;
    let (weights, biases) = (saved.get("hidden.0.weight")?, saved.get("hidden.0.bias")?);
    let of_unit = |unit: usize| {
        let values: Vec<f64> = dataset
            .train
            .inputs
            .chunks_exact(dataset.features)
            .map(|inputs| {
                let products = inputs.iter().zip(weights[unit..].iter().step_by(UNITS));
                biases[unit] + products.map(|(x, weight)| f64::from(*x) * weight).sum::<f64>()
            })
            .collect();
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        (mean, values.iter().map(|z| (z - mean).powi(2)).sum::<f64>())
    };
    Ok((0..UNITS).map(of_unit).unzip())
}
