//! Pretraining with fine-tuning, deep autoencoders, and networks that start from saved ones.

#![cfg(feature = "flex")]

mod common;
mod experiment;

use std::fs;
use std::path::{Path, PathBuf};

use common::gradmark;
use experiment::{load, parse, run_all};
use gradmark::schema::{RunPhase, RunRows, StepPhase};

/// Depth 8 on the digits: an independent program in numpy found, over three seeds, losses of .072 to .078 after autoencoders and
/// .31 to .33 after restricted Boltzmann machines, accuracies of 97 and 89 to 90 %, and gradient ratios of .56 and .08 before
/// fine-tuning.
#[test]
fn pretraining_lets_eight_sigmoid_layers_train_that_do_not_train_without() {
    let runs = run_all(&load("pretraining.toml", &["experiment.seeds=1", "throughput.samples=0"]));
    let outcome = |case: &str| {
        let (summary, _) = runs.iter().find(|(summary, _)| summary.levels == [case]).expect("a case");
        let ratio = summary.gradient_ratio_first.expect("measured");
        (summary.test_accuracy.expect("measured"), summary.train_loss.expect("measured"), ratio)
    };
    let (accuracy, loss, ratio) = outcome("none");
    assert!(accuracy < 0.2 && loss > 2.25 && ratio < 1e-4, "{accuracy} {loss} {ratio}");
    let (accuracy, loss, ratio) = outcome("autoencoders");
    assert!(accuracy > 0.95 && loss < 0.12 && (0.3..1.1).contains(&ratio), "{accuracy} {loss} {ratio}");
    let (accuracy, _, ratio) = outcome("denoising");
    assert!(accuracy > 0.92 && ratio > 0.1, "{accuracy} {ratio}");
    let (accuracy, loss, ratio) = outcome("RBMs");
    assert!(accuracy > 0.85 && loss < 0.5 && (0.03..0.2).contains(&ratio), "{accuracy} {loss} {ratio}");
}

#[test]
fn every_layer_learns_to_reconstruct_its_input_and_its_time_is_recorded_before_that_of_the_training() {
    let runs = run_all(&load("pretraining.toml", &["experiment.seeds=1", "throughput.samples=0", "training.epochs=2"]));
    for (summary, RunRows { pretraining, phases, .. }) in runs.iter().skip(1) {
        let case = &summary.levels[0];
        assert_eq!((pretraining.len(), phases.len()), (8 * 31, 8 * 30 + 2), "{case}");
        for rows in pretraining.chunk_by(|a, b| a.layer_index == b.layer_index) {
            let error = |row: usize| rows[row].reconstruction_error.expect("finite");
            let name = &rows[0].layer;
            assert!(error(30) < 0.35 * error(0), "{case} {name}: {} after {}", error(30), error(0));
            let is_rbm = case == "RBMs";
            assert!(rows[0].loss.is_none() && rows[1..].iter().all(|row| row.loss.is_some() != is_rbm), "{case}");
        }
        assert!(phases[..240].iter().all(|row| row.phase == RunPhase::Pretraining && row.layer.is_some()), "{case}");
        assert!(phases[240..].iter().all(|row| row.phase == RunPhase::Training && row.layer.is_none()), "{case}");
        assert_eq!((phases[240].step, phases[241].step), (44, 88), "{case}");
        let mut total = 0.0;
        for row in phases {
            total += row.elapsed_ms;
            assert!(row.elapsed_ms > 0.0 && (row.total_ms / total - 1.0).abs() < 1e-9, "{case}");
        }
        assert_eq!(summary.pretraining_ms, Some(phases[239].total_ms), "{case}");
        assert!((summary.total_ms.expect("trained") / total - 1.0).abs() < 1e-9, "{case}");
    }
    assert!(runs[0].1.pretraining.is_empty() && runs[0].0.pretraining_ms.is_none());
}

/// Hinton and Salakhutdinov 2006: without pretraining a deep autoencoder finds the mean of the data and no more; with it, better
/// codes than principal components.
#[test]
fn a_pretrained_deep_autoencoder_beats_principal_components_and_one_that_is_not_does_not() {
    let runs =
        run_all(&load("deep_autoencoder.toml", &["experiment.seeds=1", "throughput.samples=0", "training.epochs=40"]));
    for (summary, rows) in &runs {
        let case = &summary.levels[0];
        let error = summary.test_reconstruction_error.expect("an autoencoder");
        let components = summary.principal_components_error.expect("an autoencoder");
        let start = rows.steps.iter().find(|row| row.phase == StepPhase::TestSplit).expect("an evaluation");
        if case == "none" {
            assert!(error > 2.0 * components, "{error} {components}");
        } else {
            assert!(error < 0.8 * components, "{case}: {error} {components}");
            // The layers behind the code are those that led back from the layers before it.
            assert!(start.reconstruction_error.expect("finite") < 2.5 * components, "{case}: {start:?}");
        }
        assert!(rows.steps.iter().all(|row| row.accuracy.is_none()), "{case}");
        // The code is linear: it has a delta and no activations.
        let code = rows.activations.iter().find(|row| row.layer == "hidden.3").expect("measured");
        assert!(code.delta_l2.is_some() && code.activation_mean.is_none() && code.saturated_fraction.is_none());
    }
}

/// Every method, with what can be chosen, on an untypical network: widths that differ, tanh, tied weights, standardized inputs.
#[test]
fn every_choice_of_the_pretraining_learns() {
    for (network, pretraining) in [
        ("activation = \"tanh\"", "method = \"autoencoder\"\nlearning_rate = 0.01\ntied_weights = true"),
        ("activation = \"relu\"", "method = \"autoencoder\"\nlearning_rate = 0.005\nnoise = 0.2\nmomentum = 0.5"),
        ("activation = \"sigmoid\"", "method = \"autoencoder\"\nlearning_rate = 0.01\nbatch_size = 8\nl2 = 1e-4"),
        (
            "activation = \"sigmoid\"",
            "method = \"rbm\"\nlearning_rate = 0.03\nmomentum = 0.5\nl2 = 2e-4\nweight_std = 0.05",
        ),
    ] {
        let plan = parse(&format!(
            "[data]\nnormalization = \"standard\"\nexamples = 400\n[network]\ndepth = 3\nwidths = [40, 30, 20]\n{network}\n\
             weight_init = \"lecun\"\n[training]\nlearning_rate = 0.05\nepochs = 1\n\
             [training.pretraining]\n{pretraining}\nepochs = 30\n[throughput]\nsamples = 0\n"
        ));
        let (summary, rows) = run_all(&plan).remove(0);
        assert_eq!(rows.pretraining.len(), 3 * 31, "{pretraining}");
        for layer in rows.pretraining.chunk_by(|a, b| a.layer_index == b.layer_index) {
            let error = |row: usize| layer[row].reconstruction_error.expect("finite");
            assert!(error(30) < 0.9 * error(0), "{pretraining} {}: {} after {}", layer[0].layer, error(30), error(0));
        }
        assert!(summary.test_accuracy.is_some(), "{pretraining}");
    }
}

#[test]
fn a_pretraining_that_diverges_is_a_network_that_diverges_at_its_first_step() {
    let plan = parse(
        "[network]\ndepth = 3\nwidth = 20\nactivation = \"relu\"\nweight_init = \"he\"\n[training]\n\
         learning_rate = 0.1\nepochs = 1\n[training.pretraining]\nmethod = \"autoencoder\"\nlearning_rate = 100\nepochs = 3\n\
         [throughput]\nsamples = 0\n",
    );
    let (summary, rows) = run_all(&plan).remove(0);
    assert_eq!(summary.fields()[..2], ["diverged", "0"]);
    let last = rows.pretraining.last().expect("rows");
    assert!(last.layer_index == 0 && last.reconstruction_error.is_none());
}

/// `<out>/small/<run id>` of the only run.
fn run_dir(out: &Path) -> PathBuf {
    let entries = fs::read_dir(out.join("small")).expect("results");
    let mut runs =
        entries.map(|entry| entry.expect("an entry").path()).filter(|path| path.join("manifest.json").exists());
    let run = runs.next().expect("a run");
    assert!(runs.next().is_none(), "several runs");
    run
}

const SMALL: &str = "[experiment]\nname = \"small\"\n[network]\ndepth = 2\nwidth = 16\nactivation = \"relu\"\n\
                     weight_init = \"he\"\nnorm = \"batch\"\n[training]\nlearning_rate = 0.1\nepochs = 2\nsave = true\n[throughput]\n\
                     samples = 0\n";

fn run(dir: &Path, arguments: &[&str]) -> (Option<i32>, String) {
    let always = ["run", "small.toml", "--device", "flex", "--quiet"];
    let output = gradmark(dir).args(always).args(arguments).output().expect("the binary starts");
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

/// The loss and the accuracy on the test split at the first or last evaluation.
fn evaluation(run: &Path, is_last: bool) -> (String, String) {
    let text = fs::read_to_string(run.join("steps.csv")).expect("a table");
    let rows: Vec<Vec<&str>> =
        text.lines().map(|line| line.split(',').collect()).filter(|row: &Vec<&str>| row[3] == "test_split").collect();
    let row = if is_last { rows.last() } else { rows.first() }.expect("an evaluation");
    (row[4].to_owned(), row[6].to_owned())
}

#[test]
fn a_run_that_starts_from_a_saved_network_begins_where_it_ended() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    fs::write(dir.path().join("small.toml"), SMALL).expect("written");
    assert_eq!(run(dir.path(), &["--out", "first"]).0, Some(0));
    let first = run_dir(&dir.path().join("first"));
    let from = format!("training.start_from={}", first.display());
    let (code, error) = run(dir.path(), &["--out", "second", "--set", &from, "--set", "experiment.seeds=[7]"]);
    assert_eq!(code, Some(0), "{error}");
    let second = run_dir(&dir.path().join("second"));
    assert_eq!(evaluation(&first, true), evaluation(&second, false));
    assert_ne!(evaluation(&first, true), evaluation(&second, true));
    let manifest = fs::read_to_string(second.join("manifest.json")).expect("a manifest");
    assert!(manifest.contains("\"start_sha256\": \""), "{manifest}");

    // Another network under the same name is another run.
    let file = dir.path().join("network.safetensors");
    let place = format!("training.start_from={}", file.display());
    let arguments = ["--out", "third", "--set", &place];
    fs::copy(first.join("network.safetensors"), &file).expect("copied");
    assert_eq!(run(dir.path(), &arguments).0, Some(0));
    fs::copy(second.join("network.safetensors"), &file).expect("copied");
    assert_eq!(run(dir.path(), &arguments).0, Some(0));
    let runs = fs::read_dir(dir.path().join("third/small")).expect("results");
    assert_eq!(runs.filter(|entry| entry.as_ref().expect("an entry").path().join("manifest.json").exists()).count(), 2);
}

#[test]
fn saved_networks_that_are_absent_damaged_or_do_not_fit_are_refused_and_leave_nothing() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    fs::write(dir.path().join("small.toml"), SMALL).expect("written");
    assert_eq!(run(dir.path(), &["--out", "first"]).0, Some(0));
    let first = run_dir(&dir.path().join("first"));
    let bytes = fs::read(first.join("network.safetensors")).expect("saved");
    fs::write(dir.path().join("cut"), &bytes[..bytes.len() / 2]).expect("written");
    fs::write(dir.path().join("empty"), "").expect("written");
    let from_first = format!("training.start_from={}", first.display());
    for (arguments, expected) in [
        (
            vec!["training.start_from=absent"],
            vec![
                "`training.start_from` must name a saved network",
                "got \"absent\"",
                "training.save",
                "working directory",
            ],
        ),
        (vec!["training.start_from=."], vec!["network.safetensors: No such file", "training.save"]),
        (vec!["training.start_from=/dev/null"], vec!["/dev/null is no file", "training.save"]),
        (
            vec!["training.start_from=cut"],
            vec!["got \"cut\"", "not a network that gradmark has saved", "name one of equal"],
        ),
        (vec!["training.start_from=empty"], vec!["got \"empty\"", "not a network that gradmark has saved"]),
        (vec![&from_first, "network.depth=3"], vec!["fits: it has no `hidden.2.", "start_layers"]),
        (vec![&from_first, "network.width=8"], vec!["`hidden.0.", "has the shape", "start_layers"]),
        (
            vec![&from_first, "training.start_sha256=00"],
            vec!["`training.start_sha256` must be the SHA-256", "got \"00\""],
        ),
        (
            vec!["training.start_sha256=00"],
            vec!["`training.start_sha256` has a meaning only with `training.start_from`"],
        ),
        (vec!["training.start_layers=hidden"], vec!["`training.start_layers` has a meaning only with"]),
    ] {
        let sets: Vec<&str> = arguments.iter().flat_map(|argument| ["--set", argument]).collect();
        let (code, error) = run(dir.path(), &[&["--out", "other"], &sets[..]].concat());
        assert_eq!(code, Some(2), "{arguments:?}: {error}");
        for part in expected {
            assert!(error.contains(part), "{arguments:?}: {error}\n  lacks: {part}");
        }
        assert!(!dir.path().join("other").exists(), "{arguments:?}");
    }
}

/// The encoder of an autoencoder becomes the hidden layers of a classifier.
#[test]
fn hidden_layers_may_start_from_those_of_another_network() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let network = "[experiment]\nname = \"small\"\n[network]\nactivation = \"sigmoid\"\nweight_init = \"lecun\"\n[throughput]\n\
                   samples = 0\n[training]\nlearning_rate = 0.1\nepochs = 1\n";
    let autoencoder = [
        "network.kind=autoencoder",
        "network.depth=3",
        "network.widths=[24, 24]",
        "training.save=true",
        "training.loss=sigmoid_cross_entropy",
    ];
    let classifier = ["network.depth=1", "network.width=24", "training.start_layers=hidden"];
    fs::write(dir.path().join("small.toml"), network).expect("written");
    let sets = |keys: &[&str]| -> Vec<String> {
        keys.iter().flat_map(|key| ["--set".to_owned(), (*key).to_owned()]).collect()
    };
    let with = |out: &str, keys: Vec<String>| {
        let arguments: Vec<&str> = ["--out", out].into_iter().chain(keys.iter().map(String::as_str)).collect();
        let (code, error) = run(dir.path(), &arguments);
        assert_eq!(code, Some(0), "{error}");
        run_dir(&dir.path().join(out))
    };
    let first = with("first", sets(&autoencoder));
    let from = format!("training.start_from={}", first.join("network.safetensors").display());
    let second = with("second", [sets(&classifier), sets(&[&from])].concat());
    let third = with("third", sets(&classifier[..2]));
    // The norm of a parameter before the first update, and after the last one that was measured.
    let norm = |run: &Path, step: &str, parameter: &str| -> f64 {
        let text = fs::read_to_string(run.join("gradients.csv")).expect("a table");
        let mut rows = text.lines().map(|line| line.split(',').collect::<Vec<&str>>());
        let row = rows.find(|row| row[1] == step && row[4] == parameter).expect("a row");
        row[12].parse().expect("a norm")
    };
    let saved = fs::read(first.join("network.safetensors")).expect("saved");
    let file = safetensors::SafeTensors::deserialize(&saved).expect("safetensors");
    let numbers = file.tensor("hidden.0.weight").expect("a weight").data().chunks_exact(4);
    let square: f64 = numbers.map(|x| f64::from(f32::from_le_bytes([x[0], x[1], x[2], x[3]])).powi(2)).sum();
    let hidden = norm(&second, "0", "hidden.0.weight");
    assert!((hidden / square.sqrt() - 1.0).abs() < 1e-6, "{hidden}, saved {}", square.sqrt());
    assert!((hidden / norm(&third, "0", "hidden.0.weight") - 1.0).abs() > 1e-3);
    assert_eq!(norm(&second, "0", "output.weight"), norm(&third, "0", "output.weight"));
}

/// What is drawn for noise and units does not depend on how the work is shared out.
#[test]
fn pretraining_gives_the_same_bytes_whatever_the_number_of_threads() {
    let config = "[experiment]\nname = \"small\"\n[network]\ndepth = 2\nwidth = 40\nactivation = \"sigmoid\"\nweight_init = \"lecun\"\n\
                  [training]\nlearning_rate = 0.1\nsteps = 2\n[throughput]\nsamples = 0\n\
                  [training.pretraining]\nepochs = 2\nlearning_rate = 0.1\n";
    let dir = tempfile::tempdir().expect("a temporary directory");
    fs::write(dir.path().join("small.toml"), config).expect("written");
    for method in ["method=autoencoder", "method=rbm"] {
        let mut found = Vec::new();
        for threads in ["1", "4"] {
            let out = format!("{method}-{threads}");
            let set = format!("training.pretraining.{method}");
            let arguments = ["run", "small.toml", "--device", "flex", "--quiet", "--out", &out, "--set", &set];
            let status = gradmark(dir.path()).args(arguments).env("RAYON_NUM_THREADS", threads).output();
            assert_eq!(status.expect("the binary starts").status.code(), Some(0));
            let run = run_dir(&dir.path().join(&out));
            let read = |table: &str| fs::read(run.join(table)).expect("a table");
            found.push(["pretraining.csv", "gradients.csv", "steps.csv"].map(read));
        }
        assert!(found[0] == found[1], "{method}");
    }
}

/// A reconstruction that leaves f32 says nothing of the network itself, which has not been pretrained all the same.
#[test]
fn a_pretraining_that_breaks_off_is_no_complete_run() {
    let plan = parse(
        "[data]\nnormalization = \"standard\"\n[network]\ndepth = 2\nwidth = 20\nactivation = \"sigmoid\"\nweight_init = \"lecun\"\n\
         [training]\nlearning_rate = 0.1\nepochs = 1\n[training.pretraining]\nmethod = \"rbm\"\nlearning_rate = 1e-30\n\
         weight_std = 1e19\nepochs = 2\n[throughput]\nsamples = 0\n",
    );
    let (summary, rows) = run_all(&plan).remove(0);
    assert_eq!(summary.fields()[..2], ["diverged", "0"]);
    assert_eq!((rows.pretraining.len(), rows.steps.len()), (2, 0));
}

#[test]
fn no_epoch_of_pretraining_is_no_pretraining() {
    let text = "[network]\ndepth = 2\nwidth = 20\nactivation = \"sigmoid\"\nweight_init = \"lecun\"\n[training]\nlearning_rate = 0.1\n\
                epochs = 1\n[throughput]\nsamples = 0\n";
    let none = "[training.pretraining]\nmethod = \"rbm\"\nlearning_rate = 0.1\nepochs = 0\n";
    let outcome = |text: &str| {
        let (summary, rows) = run_all(&parse(text)).remove(0);
        assert!(rows.pretraining.is_empty() && summary.pretraining_ms.is_none());
        (summary.train_loss, summary.test_accuracy, summary.gradient_ratio_first)
    };
    assert_eq!(outcome(&format!("{text}{none}")), outcome(text));
}
