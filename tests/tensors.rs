//! The tensors that a run writes whole: what they are, and that nothing else changes by them.

#![cfg(feature = "flex")]

mod common;
mod experiment;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use common::{run, stderr, stdout};
use gradmark::data::Sources;
use gradmark::schema::{GradientRow, RunRows};
use gradmark::train::Workload;
use safetensors::SafeTensors;

/// The numbers of every tensor of a dump, with its shape.
fn numbers(dump: &[u8]) -> BTreeMap<String, (Vec<usize>, Vec<f64>)> {
    let file = SafeTensors::deserialize(dump).expect("safetensors");
    let of = |bytes: &[u8]| f64::from(f32::from_le_bytes(bytes.try_into().expect("four bytes")));
    file.iter()
        .map(|(name, view)| {
            (name.to_owned(), (view.shape().to_vec(), view.data().chunks_exact(4).map(of).collect::<Vec<f64>>()))
        })
        .collect()
}

fn l2(values: &[f64]) -> f64 {
    values.iter().map(|x| x * x).sum::<f64>().sqrt()
}

/// The rows of the one run of a config, under the same name for every config.
fn rows_of(config: &str) -> RunRows {
    let mut plan = experiment::parse(config);
    assert_eq!(plan.runs.len(), 1);
    "run".clone_into(&mut plan.runs[0].run_id);
    experiment::run_all(&plan).remove(0).1
}

fn is_gradient(name: &str) -> bool {
    name.rsplit('.').next() == Some("grad")
}

#[track_caller]
fn assert_close(what: &str, found: f64, expected: f64) {
    assert!((found - expected).abs() <= 1e-6 * expected.abs(), "{what}: {found:e}, expected {expected:e}");
}

/// Checks that a dump has every parameter of the rows of its step with its gradient, of the norms that are in the rows, and
/// returns its tensors.
#[track_caller]
fn check_norms(rows: &RunRows, step: usize) -> BTreeMap<String, (Vec<usize>, Vec<f64>)> {
    let (_, dump) = rows.tensors.iter().find(|(of, _)| *of == step).expect("the step is dumped");
    let tensors = numbers(dump);
    let measured: Vec<&GradientRow> = rows.gradients.iter().filter(|row| row.step == step).collect();
    assert!(!measured.is_empty());
    for row in &measured {
        let (shape, weights) = &tensors[&row.parameter];
        let (gradient_shape, gradient) = &tensors[&format!("{}.grad", row.parameter)];
        assert_eq!((shape, shape.iter().product()), (gradient_shape, row.element_count), "{}", row.parameter);
        assert_close(&format!("{} gradient", row.parameter), l2(gradient), row.grad_l2.expect("finite"));
        assert_close(&format!("{} weights", row.parameter), l2(weights), row.weight_l2.expect("finite"));
    }
    let gradients = tensors.keys().filter(|name| is_gradient(name)).count();
    assert_eq!(gradients, measured.len());
    tensors
}

const PLAIN: &str = r#"
[network]
depth = 3
width = 12
activation = "tanh"
weight_init = "lecun"
[training]
learning_rate = 0.5
steps = 6
[throughput]
samples = 0
"#;

#[test]
fn weights_less_rate_times_gradient_are_the_weights_of_the_next_step() {
    let rows = rows_of(&format!("{PLAIN}[probe]\nevery = 1\ndump = [4, 0, 5]\n"));
    assert_eq!(rows.tensors.iter().map(|(step, _)| *step).collect::<Vec<_>>(), [0, 4, 5]);
    check_norms(&rows, 0);
    let (before, after) = (check_norms(&rows, 4), check_norms(&rows, 5));
    assert_eq!(before.len(), 2 * 8);
    for (name, (_, weights)) in before.iter().filter(|(name, _)| !is_gradient(name)) {
        let gradient = &before[&format!("{name}.grad")].1;
        for ((weight, slope), next) in weights.iter().zip(gradient).zip(&after[name].1) {
            assert!((weight - 0.5 * slope - next).abs() <= 1e-7 * (1.0 + weight.abs()), "{name}: {weight} to {next}");
        }
    }
}

#[test]
fn a_dumped_gradient_contains_the_penalties_and_is_not_clipped() {
    let penalties = "l1 = 0.01\nl2 = 0.1\nclipping = \"global_norm\"\nclip_threshold = 1e-3\nsteps = 6";
    let rows = rows_of(&format!("{}[probe]\nevery = 1\ndump = [3]\n", PLAIN.replace("steps = 6", penalties)));
    check_norms(&rows, 3);
}

/// Momentum keeps gradients, and the update of a step is made in place where nobody holds the tensor.
#[test]
fn a_dump_at_a_step_that_is_not_measured_changes_no_number_of_the_run() {
    for training in ["momentum = 0.9", "optimizer = \"adam\"", "weight_clipping = 0.1\nl2 = 0.1"] {
        let config = PLAIN.replace("learning_rate = 0.5", &format!("learning_rate = 0.05\n{training}"));
        let config = config.replace("steps = 6", "steps = 150\nsave = true");
        let probe = "[probe]\ninitialization = false\nlast = false\nper_decade = 0\nevery = 7\n";
        let without = rows_of(&format!("{config}{probe}"));
        let with = rows_of(&format!("{config}{probe}dump = [0, 1, 66, 149]\n"));
        assert_eq!(with.tensors.len(), 4);
        assert!(with.gradients == without.gradients && with.activations == without.activations, "{training}");
        assert!(with.steps == without.steps && with.network == without.network, "{training}");
    }
}

#[test]
fn a_probe_of_no_quantity_leaves_the_tensors_that_are_asked_for() {
    let off = "parameters = false\nactivations = false\n";
    let rows = rows_of(&format!("{PLAIN}[probe]\n{off}dump = [2]\n"));
    let all = rows_of(&format!("{PLAIN}[probe]\nevery = 1\ndump = [2]\n"));
    assert!(rows.gradients.is_empty() && rows.activations.is_empty());
    assert!(rows.steps.iter().all(|row| row.grad_l2_before_clip.is_none()));
    assert!(rows.tensors == all.tensors);
    let untrained = PLAIN.replace("steps = 6", "steps = 0");
    let rows = rows_of(&format!("{untrained}[probe]\n{off}dump = [0]\n"));
    assert!(rows.gradients.is_empty() && rows.tensors.len() == 1);
}

#[test]
fn a_network_that_is_only_measured_leaves_its_tensors() {
    let rows = rows_of(&format!("{}[probe]\ndump = [0]\n", PLAIN.replace("steps = 6", "steps = 0")));
    check_norms(&rows, 0);
    let chain = "[data]\nset = \"single\"\nvalue = 0.5\n[network]\nkind = \"chain\"\ndepth = 4\nactivation = \"sigmoid\"\nweight_init = \"normal\"\nweight_std = 1.0\n[training]\nloss = \"linear_probe\"\nsteps = 0\n[throughput]\nsamples = 0\n[probe]\ndump = [0]\n";
    let rows = rows_of(chain);
    assert_eq!(check_norms(&rows, 0).len(), 2 * 8);
}

#[test]
fn running_statistics_are_those_before_the_step() {
    let residual = PLAIN.replace("depth = 3", "depth = 2\nkind = \"residual\"\nnorm = \"batch\"\nnorm_momentum = 1.0");
    let rows = rows_of(&format!("{residual}[probe]\nevery = 1\ndump = [0, 1, 2]\n"));
    let steps: Vec<_> = (0..3).map(|step| check_norms(&rows, step)).collect();
    let running =
        |step: usize| -> Vec<&String> { steps[step].keys().filter(|name| name.contains(".running_")).collect() };
    assert!(running(0).is_empty(), "there are none before the first batch");
    let norms = ["end.norm", "hidden.0.norm", "hidden.1.norm"];
    let names = norms.iter().flat_map(|norm| ["mean", "variance"].map(|what| format!("{norm}.running_{what}")));
    assert_eq!(running(1), names.collect::<Vec<String>>().iter().collect::<Vec<_>>());
    // With a momentum of 1 they are those of the last batch alone.
    assert_ne!(steps[1]["hidden.1.norm.running_mean"], steps[2]["hidden.1.norm.running_mean"]);
    assert_eq!(steps[1]["hidden.1.norm.running_variance"].0, [12]);
    // Stem, two layers and output with weight and bias; three normalizations with gamma and beta.
    assert_eq!(steps[0].len(), 2 * (2 * 4 + 2 * 3));
}

#[test]
fn every_family_leaves_the_gradient_of_every_parameter() {
    let adding = "[data]\nset = \"adding\"\nsequence_length = 5\nexamples = 64\n[network]\nkind = \"recurrent\"\nactivation = \"tanh\"\nweight_init = \"xavier\"\ndepth = 2\nwidth = 4\n";
    let training = "[training]\nloss = \"squared_error\"\nlearning_rate = 0.1\nsteps = 3\n";
    let rest = "[throughput]\nsamples = 0\n[probe]\nevery = 1\ndump = [1]\n";
    for implementation in ["own", "stock"] {
        for cell in ["rnn", "lstm", "gru"] {
            let cell = format!("cell = \"{cell}\"\nimplementation = \"{implementation}\"\n");
            check_norms(&rows_of(&format!("{adding}{cell}{training}{rest}")), 1);
        }
    }
    let critic = "[data]\nset = \"swiss_roll\"\nexamples = 64\n[network]\ndepth = 2\nwidth = 8\nactivation = \"relu\"\nweight_init = \"he\"\n[training]\nloss = \"wasserstein\"\ngradient_penalty = 10.0\nlearning_rate = 0.01\nsteps = 3\n";
    check_norms(&rows_of(&format!("{critic}{rest}")), 1);
    let images = "[data]\nexamples = 64\n[network]\nactivation = \"sigmoid\"\nweight_init = \"xavier\"\n";
    let convolutional = format!(
        "{images}kind = \"convolutional\"\ndepth = 8\nwidth = 2\nnorm = \"batch\"\n[training]\nlearning_rate = 0.1\nsteps = 2\n"
    );
    check_norms(&rows_of(&format!("{convolutional}{rest}")), 1);
    let autoencoder = format!("{images}kind = \"autoencoder\"\ndepth = 3\nwidths = [8, 3]\n");
    let pretrained = "[training]\nloss = \"sigmoid_cross_entropy\"\nlearning_rate = 0.1\nsteps = 2\n[training.pretraining]\nmethod = \"autoencoder\"\nepochs = 1\nlearning_rate = 0.1\n";
    let (drawn, _) = pretrained.split_once("[training.pretraining]").expect("a section");
    let rest = rest.replace("[1]", "[0, 1]");
    let first = |training: &str| check_norms(&rows_of(&format!("{autoencoder}{training}{rest}")), 0);
    let (pretrained, drawn) = (first(pretrained), first(drawn));
    assert_eq!(pretrained.keys().collect::<Vec<_>>(), drawn.keys().collect::<Vec<_>>());
    // Step 0 is the step after pretraining.
    assert_ne!(pretrained["hidden.0.weight"], drawn["hidden.0.weight"]);
}

#[test]
fn nothing_is_dumped_beyond_a_divergence_and_the_step_that_diverges_is() {
    let overflowing = PLAIN.replace("learning_rate = 0.5", "learning_rate = 1e38").replace("steps = 6", "steps = 60");
    let config = |dump: &str| overflowing.replace("activation = \"tanh\"", "activation = \"relu\"") + dump;
    let diverged_at = |rows: &RunRows| rows.steps.iter().filter(|row| row.loss.is_none()).map(|row| row.step).min();
    let rows = rows_of(&config(""));
    let step = diverged_at(&rows).expect("it diverges");
    let dumped = rows_of(&config(&format!("[probe]\ndump = [0, {step}, {}, 50]\n", step + 1)));
    assert_eq!(dumped.tensors.iter().map(|(step, _)| *step).collect::<Vec<_>>(), [0, step]);
    assert!(dumped.gradients == rows.gradients && dumped.steps == rows.steps);
    let before = rows_of(&config(&format!("[probe]\ndump = [{}, 50]\n", step + 1)));
    assert!(before.tensors.is_empty());
    assert!(before.gradients == rows.gradients && before.steps == rows.steps);
}

/// The directory of the one run of an experiment.
fn only_run(out: &Path) -> PathBuf {
    let entries = fs::read_dir(out.join("test")).expect("the experiment's directory");
    let mut runs: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    runs.retain(|path| path.join("manifest.json").exists());
    assert_eq!(runs.len(), 1);
    runs.remove(0)
}

#[test]
fn tables_are_the_same_bytes_with_a_dump_and_the_report_does_not_mind_it() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let config = format!("[experiment]\nname = \"test\"\n{PLAIN}");
    let command = |out: &str, extra: &str| {
        let output = run(dir.path(), &config, &format!("run config.toml --device flex --out {out} {extra}"));
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        stdout(&output)
    };
    command("without", "");
    command("with", "--set probe.dump=[0,3]");
    let (without, with) = (only_run(&dir.path().join("without")), only_run(&dir.path().join("with")));
    let table = |run: &Path, file: &str| {
        let text = fs::read_to_string(run.join(file)).expect("reads");
        let id = run.file_name().expect("a name").to_string_lossy().into_owned();
        text.replace(&id, "run")
    };
    for file in ["gradients.csv", "activations.csv", "steps.csv"] {
        assert_eq!(table(&with, file), table(&without, file), "{file}");
    }
    for step in [0, 3] {
        let dump = fs::read(with.join(format!("tensors_step_{step}.safetensors"))).expect("written");
        assert_eq!(numbers(&dump).len(), 16);
    }
    assert!(!with.join("tensors_step_1.safetensors").exists());
    let manifest = |run: &Path| fs::read_to_string(run.join("manifest.json")).expect("reads");
    assert!(manifest(&with).contains("\"dump\"") && !manifest(&without).contains("\"dump\""));
    let report = run(dir.path(), &config, "report with/test");
    assert_eq!(report.status.code(), Some(0), "{}", stderr(&report));
    assert!(stdout(&report).contains("test accuracy"), "{}", stdout(&report));
}

/// The last step that a config lets be dumped is the last one that there is.
#[test]
fn the_steps_of_a_config_are_those_of_its_training() {
    let adapter = gradmark::device::find("flex".parse().expect("a name")).expect("compiled in");
    let device = gradmark::device::open(&adapter).expect("opens");
    let network = "\n[network]\nwidth = 4\ndepth = 1\nactivation = \"tanh\"\nweight_init = \"lecun\"\n";
    let cell = format!("{network}kind = \"recurrent\"\ncell = \"lstm\"\n");
    for config in [
        format!("{network}[training]\nlearning_rate = 0.1\nepochs = 3\n"),
        format!("{network}[training]\nlearning_rate = 0.1\nepochs = 2\nbatch_size = \"full\"\n"),
        format!("[data]\nexamples = 100{network}[training]\nlearning_rate = 0.1\nepochs = 3\nbatch_size = 33\n"),
        format!("{network}[training]\nlearning_rate = 0.1\nsteps = 7\n"),
        format!(
            "[data]\nset = \"text\"\nsequence_length = 700{cell}[training]\nlearning_rate = 0.1\nepochs = 2\nbatch_size = 50\n"
        ),
        format!("[data]\nset = \"parity\"\nsequence_length = 3{cell}[training]\nlearning_rate = 0.1\nepochs = 2\n"),
    ] {
        let plan = experiment::parse(&config);
        let spec = &plan.runs[0];
        let dataset = Sources::default().load(&spec.config, 1).expect("at hand");
        let workload = Workload::new(&spec.config, 1, &dataset, &device);
        assert_eq!(spec.config.step_count(), workload.step_count(), "{config}");
    }
}
