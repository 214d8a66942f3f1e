//! Which parameters have a gradient at the first step of a run.

#![cfg(feature = "flex")]

mod common;
mod experiment;

use std::fs;
use std::path::Path;

use common::{run, stderr};
use gradmark::schema::{GradientCoverage, RunRows};

const NETWORK: &str = "[network]\ndepth = 3\nwidth = 8\nactivation = \"relu\"\nweight_init = \"he\"\n";
const TRAINING: &str = "[training]\nlearning_rate = 0.1\nsteps = 2\n";
const REST: &str = "[throughput]\nsamples = 0\n";

fn rows_of(config: &str) -> RunRows {
    let plan = experiment::parse(&format!("{config}{REST}"));
    assert_eq!(plan.runs.len(), 1);
    experiment::run_all(&plan).remove(0).1
}

fn coverage_of(config: &str) -> GradientCoverage {
    rows_of(config).coverage.expect("a first step")
}

fn all_of(parameters: usize) -> GradientCoverage {
    GradientCoverage { parameters, ..GradientCoverage::default() }
}

/// Pre-activations far below 0 let nothing through.
fn dead() -> String {
    format!("{NETWORK}bias_init = \"constant\"\nbias_value = -1000.0\n")
}

const HIDDEN: [&str; 6] =
    ["hidden.0.weight", "hidden.0.bias", "hidden.1.weight", "hidden.1.bias", "hidden.2.weight", "hidden.2.bias"];

#[test]
fn every_parameter_of_a_healthy_network_has_a_gradient() {
    for kind in [
        "",
        "kind = \"residual\"\nnorm = \"batch\"\n",
        "kind = \"convolutional\"\nwidth = 2\ndepth = 8\n",
        "activation = \"prelu\"\n",
    ] {
        let key = |line: &str| line.split(" = ").next().unwrap_or_default().to_owned();
        let replaced = |line: &&str| !kind.lines().any(|other| key(other) == key(line));
        let network: Vec<&str> = NETWORK.lines().filter(replaced).chain(kind.lines()).collect();
        let rows = rows_of(&format!("{}\n{TRAINING}", network.join("\n")));
        let parameters = rows.gradients.iter().filter(|row| row.step == 0).count();
        assert!(parameters >= 8);
        assert_eq!(rows.coverage, Some(all_of(parameters)), "{kind}");
    }
    let adding = "[data]\nset = \"adding\"\nsequence_length = 5\nexamples = 64\n[network]\nkind = \"recurrent\"\nactivation = \"tanh\"\nweight_init = \"xavier\"\ndepth = 2\nwidth = 4\n";
    let squared = "[training]\nloss = \"squared_error\"\nlearning_rate = 0.1\nsteps = 2\n";
    for implementation in ["own", "stock"] {
        for cell in ["rnn", "lstm", "gru"] {
            let cell = format!("cell = \"{cell}\"\nimplementation = \"{implementation}\"\n");
            let rows = rows_of(&format!("{adding}{cell}{squared}"));
            let parameters = rows.gradients.iter().filter(|row| row.step == 0).count();
            assert_eq!(rows.coverage, Some(all_of(parameters)), "{cell}");
        }
    }
}

#[test]
fn the_weights_of_a_dead_network_have_gradients_of_zero() {
    let coverage = coverage_of(&format!("{}{TRAINING}", dead()));
    // The output layer sees nothing but its bias.
    assert_eq!(coverage.zero, [&HIDDEN[..], &["output.weight"]].concat());
    assert_eq!((coverage.parameters, coverage.without_gradient.len(), coverage.nonfinite.len()), (8, 0, 0));
}

#[test]
fn penalties_do_not_stand_in_for_a_gradient_that_is_zero() {
    let without = coverage_of(&format!("{}{TRAINING}", dead()));
    for penalty in ["l1 = 0.1\n", "l2 = 0.1\n"] {
        let rows = rows_of(&format!("{}{TRAINING}{penalty}", dead()));
        assert_eq!(rows.coverage.as_ref(), Some(&without), "{penalty}");
        // In the table they are part of the gradient.
        assert!(rows.gradients[0].grad_l2.expect("finite") > 0.0);
    }
}

#[test]
fn what_the_probe_measures_makes_no_difference() {
    let config = format!("{}{TRAINING}", dead());
    let expected = coverage_of(&config);
    for probe in ["parameters = false\n", "parameters = false\nactivations = false\n", "initialization = false\n"] {
        assert_eq!(coverage_of(&format!("{config}[probe]\n{probe}")), expected, "{probe}");
        let untrained = config.replace("steps = 2", "steps = 0");
        assert_eq!(coverage_of(&format!("{untrained}[probe]\n{probe}")), expected, "{probe}");
    }
}

#[test]
fn a_network_that_overflows_at_its_first_step_names_the_gradients_that_are_not_finite() {
    let huge = NETWORK.replace("\"he\"", "\"normal\"\nweight_std = 1e30");
    for probe in ["", "[probe]\nparameters = false\nactivations = false\n"] {
        let rows = rows_of(&format!("{huge}{TRAINING}{probe}"));
        assert_eq!(rows.steps.last().map(|row| (row.step, row.loss)), Some((0, None)), "it diverges at once");
        let coverage = rows.coverage.expect("a first step");
        assert!(coverage.nonfinite.contains(&"hidden.0.weight".to_owned()), "{coverage:?}");
        assert_eq!(coverage.without_gradient.len(), 0);
    }
}

/// The mean output on generated points minus that on real ones does not depend on the bias of the output.
#[test]
fn the_output_bias_of_a_critic_has_a_gradient_of_zero() {
    let data = "[data]\nset = \"swiss_roll\"\nexamples = 64\n";
    let network = format!("{data}{NETWORK}{TRAINING}loss = \"wasserstein\"\n");
    assert_eq!(coverage_of(&network).zero, ["output.bias"]);
    assert_eq!(coverage_of(&format!("{network}gradient_penalty = 10.0\n")).zero, ["output.bias"]);
}

#[test]
fn a_pretraining_that_diverges_has_no_first_step() {
    let network = NETWORK.replace("\"relu\"", "\"sigmoid\"").replace("\"he\"", "\"lecun\"");
    let pretraining = |rate: &str| {
        format!(
            "[data]\nnormalization = \"standard\"\n{network}{TRAINING}[training.pretraining]\nmethod = \"autoencoder\"\nepochs = 2\nlearning_rate = {rate}\n"
        )
    };
    assert_eq!(rows_of(&pretraining("1e38")).coverage, None);
    assert_eq!(rows_of(&pretraining("0.01")).coverage, Some(all_of(8)));
}

/// Makes the runs of a config and returns what was printed beside the table and the manifests, in the order of their seeds.
fn command(config: &str, arguments: &str) -> (String, Vec<serde_json::Value>) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let config = format!("[experiment]\nname = \"test\"\nseeds = 2\n{config}{REST}");
    let output = run(dir.path(), &config, &format!("run config.toml --device flex {arguments}"));
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let mut manifests = manifests(&dir.path().join("results/test"));
    manifests.sort_by_key(|manifest| manifest["seed"].as_u64());
    (stderr(&output), manifests)
}

fn manifests(experiment: &Path) -> Vec<serde_json::Value> {
    let entries = fs::read_dir(experiment).expect("the experiment's directory");
    let texts =
        entries.filter_map(|entry| fs::read_to_string(entry.expect("an entry").path().join("manifest.json")).ok());
    texts.map(|text| serde_json::from_str(&text).expect("JSON")).collect()
}

#[test]
fn gaps_are_remarked_on_once_a_configuration_and_stand_in_every_manifest() {
    let config = format!("{}{TRAINING}[sweep]\nnetwork.depth = [1, 3]\n", dead().replace("depth = 3\n", ""));
    let (text, manifests) = command(&config, "");
    let remarks: Vec<&str> = text.lines().filter(|line| line.contains("at the first step")).collect();
    let expected = [
        "depth=1 seed=1: at the first step 3 of 4 parameters have a gradient of exactly 0: hidden.0.weight, hidden.0.bias, \
         output.weight",
        "depth=3 seed=1: at the first step 7 of 8 parameters have a gradient of exactly 0: hidden.0.weight, hidden.0.bias \
         and 5 more",
    ];
    assert_eq!(remarks, expected, "{text}");
    assert_eq!(manifests.len(), 4);
    for manifest in &manifests {
        let coverage = &manifest["gradient_coverage"];
        let parameters = coverage["parameters"].as_u64().expect("a number");
        assert_eq!(coverage["zero"].as_array().map(|zero| zero.len() as u64), Some(parameters - 1));
    }
    assert_eq!(command(&config, "--quiet").0, "");
}

#[test]
fn the_manifest_of_a_healthy_run_has_empty_lists_and_nothing_is_remarked() {
    let (text, manifests) = command(&format!("{NETWORK}{TRAINING}"), "");
    assert!(!text.contains("at the first step"), "{text}");
    let expected = serde_json::json!({ "parameters": 8, "without_gradient": [], "zero": [], "nonfinite": [] });
    assert_eq!(manifests[0]["gradient_coverage"], expected);
    let mut keys: Vec<&String> = manifests[0].as_object().expect("a table").keys().collect();
    keys.sort();
    let expected = [
        "config",
        "data_sha256",
        "environment",
        "experiment",
        "factors",
        "finished_at",
        "gradient_coverage",
        "no_prediction",
        "question",
        "rows",
        "run_id",
        "schema_version",
        "seed",
        "started_at",
        "status",
        "trained_together",
    ];
    assert_eq!(keys, expected);
}

#[test]
fn the_manifest_of_a_run_without_a_first_step_has_no_coverage() {
    let network = NETWORK.replace("\"relu\"", "\"sigmoid\"").replace("\"he\"", "\"lecun\"");
    let pretraining = "[training.pretraining]\nmethod = \"autoencoder\"\nepochs = 2\nlearning_rate = 1e38\n";
    let config = format!("[data]\nnormalization = \"standard\"\n{network}{TRAINING}{pretraining}");
    let (text, manifests) = command(&config, "");
    assert_eq!(manifests[0]["status"], "diverged", "{text}");
    assert!(manifests[0]["gradient_coverage"].is_null());
}
