//! Two devices, the same numbers: flex against the others of this build.

#![cfg(all(feature = "flex", any(feature = "wgpu", feature = "ndarray")))]

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use common::{gradmark, stderr};

/// The tables, and what is compared of them.
const TABLES: [(&str, &[&str]); 5] = [
    ("gradients.csv", &["grad_l2", "grad_max_abs", "weight_l2", "update_l2"]),
    (
        "activations.csv",
        &[
            "delta_l2",
            "mean_delta_l2",
            "input_grad_l2",
            "activation_mean",
            "activation_std",
            "hidden_grad_l2",
            "cell_grad_l2",
        ],
    ),
    ("gates.csv", &["mean", "low_fraction", "high_fraction"]),
    ("pretraining.csv", &["loss", "reconstruction_error"]),
    (
        "steps.csv",
        &["loss", "penalty", "reconstruction_error", "grad_l2_before_clip", "grad_l2_after_clip", "clipped_fraction"],
    ),
];

/// Two networks with most of the remedies, and a convolutional one, for a few steps.
const REMEDIES: &str = r#"
[experiment]
name = "remedies"
[network]
depth = 4
width = 16
activation = "elu"
weight_init = "he"
[training]
learning_rate = 0.02
batch_size = 64
steps = 4
[probe]
inputs = true
[throughput]
samples = 0
[[sweep.cases]]
name = "residual"
network.kind = "residual"
network.norm = "batch"
training.clipping = "global_norm"
training.clip_threshold = 0.5
training.l2 = 0.01
[[sweep.cases]]
name = "plain"
network.activation = "maxout"
network.norm = "layer"
training.optimizer = "adam"
training.clipping = "tensor_norm"
training.clip_threshold = 0.2
training.weight_decay = 0.01
[[sweep.cases]]
name = "convolutional"
network.kind = "convolutional"
network.depth = 8
network.width = 4
network.activation = "prelu"
network.norm = "batch"
training.clipping = "value"
training.clip_threshold = 0.01
"#;

/// Two layers of each cell, with an answer after every time step, truncated in one of them.
const RECURRENT: &str = r#"
[experiment]
name = "recurrent"
[data]
set = "parity"
sequence_length = 5
examples = 16
[network]
kind = "recurrent"
depth = 2
width = 8
activation = "tanh"
weight_init = "lecun"
output_steps = "every"
[training]
learning_rate = 0.1
batch_size = 4
steps = 3
[probe]
inputs = true
[throughput]
samples = 0
[[sweep.cases]]
name = "rnn"
network.cell = "rnn"
[[sweep.cases]]
name = "lstm"
network.cell = "lstm"
training.clipping = "global_norm"
training.clip_threshold = 0.1
[[sweep.cases]]
name = "gru"
network.cell = "gru"
training.truncation = 2
"#;

/// Both kinds of pretraining, one of them of an autoencoder, and a critic with a gradient penalty.
const PRETRAINED: &str = r#"
[experiment]
name = "pretrained"
[network]
depth = 3
widths = [12, 8, 6]
activation = "sigmoid"
weight_init = "lecun"
[training]
learning_rate = 0.1
batch_size = 64
steps = 3
[throughput]
samples = 0
[[sweep.cases]]
name = "autoencoder"
data.examples = 256
network.kind = "autoencoder"
network.widths = [12, 6]
training.loss = "sigmoid_cross_entropy"
training.pretraining = { method = "autoencoder", learning_rate = 0.1, epochs = 2, noise = 0.2 }
[[sweep.cases]]
name = "machines"
data.examples = 256
training.pretraining = { method = "rbm", learning_rate = 0.1, epochs = 2, momentum = 0.5, cd_steps = 2 }
[[sweep.cases]]
name = "critic"
data.set = "swiss_roll"
network.activation = "tanh"
training.loss = "wasserstein"
training.gradient_penalty = 1.0
training.weight_clipping = 0.5
"#;

type Row = std::collections::HashMap<String, String>;

/// A config and the number of its runs.
struct Experiment {
    config: PathBuf,
    runs: usize,
    _dir: tempfile::TempDir,
}

fn smoke() -> Experiment {
    let config = Path::new(env!("CARGO_MANIFEST_DIR")).join("configs/smoke.toml");
    Experiment { config, runs: 2, _dir: tempfile::tempdir().expect("a temporary directory") }
}

fn written(text: &str) -> Experiment {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let config = dir.path().join("written.toml");
    fs::write(&config, text).expect("the config can be written");
    Experiment { config, runs: 3, _dir: dir }
}

/// The rows of a table of every run, each as column -> text, in the order of the factors' levels.
fn rows(dir: &Path, table: &str, count: usize) -> Vec<Row> {
    let experiments = fs::read_dir(dir.join("results")).expect("results").map(|entry| entry.expect("an entry").path());
    let mut runs: Vec<_> = experiments
        .flat_map(|experiment| fs::read_dir(experiment).expect("runs"))
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.join("manifest.json").exists())
        .map(|path| {
            let text = fs::read_to_string(path.join("manifest.json")).expect("reads");
            let manifest: serde_json::Value = serde_json::from_str(&text).expect("JSON");
            (manifest["factors"].to_string(), path)
        })
        .collect();
    runs.sort();
    assert_eq!(runs.len(), count);
    runs.iter()
        // Not every network has gates or is pretrained.
        .filter(|(_, path)| !["gates.csv", "pretraining.csv"].contains(&table) || path.join(table).exists())
        .flat_map(|(_, path)| csv::Reader::from_path(path.join(table)).expect(table).into_deserialize())
        .map(|row| row.expect("a row"))
        .collect()
}

fn run_on(device: &str, experiment: &Experiment) -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let output = gradmark(dir.path())
        .arg("run")
        .arg(&experiment.config)
        .args(["--device", device, "--set", "throughput.samples=0"])
        // Tuning takes a minute on a software adapter and changes no number that this test looks at.
        .env("CUBECL_AUTOTUNE_LEVEL", "minimal")
        .output()
        .expect("the binary starts");
    assert_eq!(output.status.code(), Some(0), "{device}: {}", stderr(&output));
    dir
}

/// Every number within a thousandth, and within `floor` of the largest one of its column: what is 0 but for rounding, as the
/// gradient of a bias before batch norm, has no digits to compare.
fn assert_agreement(device: &str, experiment: &Experiment, floor: f64) {
    let (expected, found) = (run_on("flex", experiment), run_on(device, experiment));
    let mut largest = 0.0_f64;
    for (table, quantities) in TABLES {
        let rows = |dir: &tempfile::TempDir| rows(dir.path(), table, experiment.runs);
        let (expected, found) = (rows(&expected), rows(&found));
        assert_eq!(expected.len(), found.len(), "{table}");
        for quantity in quantities {
            let number = |row: &Row| (!row[*quantity].is_empty()).then(|| row[*quantity].parse().expect(quantity));
            let scale = expected.iter().filter_map(number).fold(0.0, |scale: f64, value: f64| scale.max(value.abs()));
            for (a, b) in expected.iter().zip(&found) {
                let place = |row: &Row| ["step", "layer", "time_step", "gate"].map(|column| row.get(column).cloned());
                assert_eq!(place(a), place(b), "{table}");
                let place = || format!("{device} {table} {:?} {quantity}", place(a));
                let (Some(a), Some(b)) = (number(a), number(b)) else {
                    assert_eq!(number(a), number(b), "{}", place());
                    continue;
                };
                let difference = (a - b).abs();
                assert!(difference <= 1e-3 * a.abs() + floor * scale + 1e-15, "{}: {b}, on flex {a}", place());
                largest = largest.max(difference / (a.abs() + 1e3 * floor * scale).max(1e-12));
            }
        }
    }
    eprintln!("{device} against flex: largest relative difference {largest:.1e}");
}

fn assert_agreement_on_everything(device: &str) {
    assert_agreement(device, &smoke(), 0.0);
    assert_agreement(device, &written(REMEDIES), 1e-5);
    assert_agreement(device, &written(RECURRENT), 1e-5);
    assert_agreement(device, &written(PRETRAINED), 1e-5);
}

/// On a machine without any adapter there is nothing to compare; the test says so.
#[cfg(feature = "wgpu")]
#[test]
fn wgpu_agrees_with_flex_on_every_norm_of_plain_networks_of_remedies_through_time_and_after_pretraining() {
    let request = "wgpu".parse().expect("a name");
    match gradmark::device::find(request) {
        Ok(adapter) => {
            eprintln!("adapter: {} ({})", adapter.name, adapter.kind);
            assert_agreement_on_everything("wgpu");
        }
        Err(error) if std::env::var_os("GRADMARK_REQUIRE_ADAPTER").is_none() => eprintln!("not compared: {error}"),
        Err(error) => panic!("GRADMARK_REQUIRE_ADAPTER is set, and {error}"),
    }
}

#[cfg(feature = "ndarray")]
#[test]
fn ndarray_agrees_with_flex_on_every_norm_of_plain_networks_of_remedies_through_time_and_after_pretraining() {
    assert_agreement_on_everything("ndarray");
}
