//! Known results, reproduced.

#![cfg(feature = "flex")]

mod experiment;

use std::fs;
use std::path::Path;

use experiment::{load, parse, run_all};
use gradmark::plan::Plan;
use gradmark::schema::{GradientRow, RunRows, RunStatus, StepPhase, StepRow};

/// The main job at its depths 8 and 16, one seed.
#[test]
fn deep_sigmoid_networks_stay_at_chance_and_relu_networks_train() {
    let plan =
        load("sigmoid_vs_relu.toml", &["sweep.network.depth=[8, 16]", "experiment.seeds=1", "throughput.samples=0"]);
    assert_eq!(plan.factors, ["case", "network.depth"]);
    for (summary, _) in run_all(&plan) {
        let name = summary.levels.join(" ");
        let accuracy = summary.test_accuracy.expect("measured");
        let first = summary.gradient_ratio_first.expect("measured");
        if summary.levels[0] == "sigmoid" {
            assert!(accuracy < 0.2, "{name}: accuracy {accuracy}");
            assert!(first < 1e-3, "{name}: first by last gradient {first}");
            assert!(summary.train_loss.expect("measured") > 2.25, "{name}");
        } else {
            assert!(accuracy > 0.94, "{name}: accuracy {accuracy}");
            assert!((0.1..10.0).contains(&first), "{name}: first by last gradient {first}");
        }
    }
}

/// A plain sigmoid network of 1000 layers has no gradient that f32 can hold: it is recorded as zeros, not hidden.
#[test]
fn a_gradient_that_vanishes_from_f32_is_recorded_as_zero() {
    let plan = load(
        "smoke.toml",
        &["network.depth=120", "network.activation=sigmoid", "training.epochs=1", "throughput.samples=0"],
    );
    let (summary, rows) = run_all(&plan).remove(0);
    let first = rows.gradients.iter().find(|row| row.parameter == "hidden.0.weight").expect("measured");
    assert_eq!((first.zero_count, first.grad_l2), (first.element_count as u64, Some(0.0)));
    assert_eq!((summary.gradient_ratio_first, summary.decades_lost_per_layer_first), (Some(0.0), None));
}

/// Weights of variance 4/n double the gradient's norm at every linear layer: a deep ReLU network diverges, and what was
/// measured before is kept.
#[test]
fn a_network_that_diverges_is_a_result_with_everything_before_it() {
    let plan = load(
        "smoke.toml",
        &[
            "network.activation=relu",
            "network.depth=20",
            "network.weight_init=normal",
            "network.weight_std=0.4",
            "throughput.samples=0",
        ],
    );
    let (summary, rows) = run_all(&plan).remove(0);
    let RunStatus::Diverged { diverged_at_step } = summary.status else {
        panic!("it did not diverge");
    };
    assert_eq!((summary.train_loss, summary.test_accuracy), (None, None));
    assert!(rows.gradients.iter().any(|row| row.step == 0 && row.grad_l2.is_some_and(f64::is_finite)));
    assert_eq!(rows.steps.iter().map(|row| row.step).max(), Some(diverged_at_step));
    assert!(rows.gradients.iter().all(|row| row.step <= diverged_at_step));
}

/// `training.steps = 0` measures the network at initialization, and nothing is updated.
#[test]
fn a_training_of_no_steps_measures_at_initialization_only() {
    let plan = load("sigmoid_vs_relu.toml", &["sweep.network.depth=[2]", "experiment.seeds=1", "throughput.samples=0"]);
    let mut untrained = plan.clone();
    untrained.runs.truncate(1);
    untrained.runs[0].config.training.epochs = None;
    untrained.runs[0].config.training.steps = Some(0);
    let (summary, rows) = run_all(&untrained).remove(0);
    assert!(
        rows.gradients
            .iter()
            .all(|row| row.step == 0 && row.update_l2.is_none() && row.grad_l2.is_some() && row.weight_l2.is_some())
    );
    assert!(summary.test_accuracy.expect("evaluated") < 0.3);
    let trained = run_all(&Plan { runs: vec![plan.runs[0].clone()], ..plan }).remove(0);
    assert_eq!(summary.gradient_ratio_first, trained.0.gradient_ratio_first);
}

/// The rows of a short training with a kind of clipping, and its learning rate.
fn clipped_training(clipping: &str, threshold: f64) -> (RunRows, f64) {
    let plan = parse(&format!(
        "[network]\ndepth = 4\nwidth = 16\nactivation = \"tanh\"\nweight_init = \"lecun\"\nweight_scale = 2.0\n[training]\n\
         learning_rate = 0.05\nsteps = 6\nclipping = \"{clipping}\"\nclip_threshold = {threshold}\n[probe]\nevery = 2\n\
         per_decade = 0\nlast = false\n[throughput]\nsamples = 0\n"
    ));
    let (_, rows) = run_all(&plan).remove(0);
    (rows, 0.05)
}

fn train_rows(rows: &RunRows) -> Vec<&StepRow> {
    rows.steps.iter().filter(|row| row.phase == StepPhase::Train).collect()
}

#[track_caller]
fn assert_close(found: f64, expected: f64) {
    assert!((found / expected - 1.0).abs() < 1e-3, "{found}, expected {expected}");
}

/// By global norm every update is the same fraction of its gradient, and the norm after is the threshold at most. The norm is
/// recorded at every step, because clipping needs it.
#[test]
fn clipping_by_global_norm_is_recorded_as_it_acts_on_the_updates() {
    let (rows, rate) = clipped_training("global_norm", 0.5);
    let steps = train_rows(&rows);
    assert_eq!(steps.len(), 6);
    for step in &steps {
        let (before, after) =
            (step.grad_l2_before_clip.expect("every step"), step.grad_l2_after_clip.expect("every step"));
        assert_close(after, before.min(0.5));
        assert_close(step.clip_coefficient.expect("global"), after / before);
        assert_eq!(step.clipped_fraction, Some(f64::from(u8::from(before > 0.5))));
    }
    assert!(steps.iter().any(|step| step.clipped_fraction == Some(1.0)), "nothing was clipped");
    for row in &rows.gradients {
        let coefficient = steps[row.step].clip_coefficient.expect("global");
        assert_close(row.update_l2.expect("updated"), rate * coefficient * row.grad_l2.expect("finite"));
    }
}

/// By tensor norm each update is bounded by itself; by value each element is.
#[test]
fn clipping_by_tensor_norm_and_by_value_is_recorded_as_it_acts_on_the_updates() {
    let (rows, rate) = clipped_training("tensor_norm", 0.4);
    for row in &rows.gradients {
        assert_close(row.update_l2.expect("updated"), rate * row.grad_l2.expect("finite").min(0.4));
    }
    let (by_value, _) = clipped_training("value", 0.01);
    for (rows, tensor_threshold) in [(&rows, Some(0.4)), (&by_value, None)] {
        for step in train_rows(rows) {
            assert_eq!(step.grad_l2_after_clip.is_some(), step.step.is_multiple_of(2), "step {}", step.step);
            let of_step = || rows.gradients.iter().filter(|row| row.step == step.step);
            let total = |value: fn(&GradientRow) -> Option<f64>| {
                of_step().map(|row| value(row).expect("finite")).fold(0.0, f64::hypot)
            };
            let (Some(before), Some(after)) = (step.grad_l2_before_clip, step.grad_l2_after_clip) else {
                continue;
            };
            assert_close(before, total(|row| row.grad_l2));
            assert_close(after, total(|row| row.update_l2) / rate);
            assert!(after < before && step.clip_coefficient.is_none());
            let fraction = step.clipped_fraction.expect("measured");
            let count = |keep: &dyn Fn(&GradientRow) -> bool| -> usize {
                of_step().filter(|row| keep(row)).map(|row| row.element_count).sum()
            };
            match tensor_threshold {
                Some(threshold) => {
                    let clipped = count(&|row| row.grad_l2.is_some_and(|norm| norm > threshold));
                    assert_close(fraction, clipped as f64 / count(&|_| true) as f64);
                }
                None => assert!(fraction > 0.0 && fraction < 1.0, "{fraction}"),
            }
        }
    }
}

/// Batch norm in a thousand residual blocks: evaluated before the first step, trained a little, and evaluated again.
#[test]
fn a_residual_network_of_1000_layers_with_batch_norm_learns() {
    let plan = load(
        "residual_depth.toml",
        &[
            "network.depth=1000",
            "sweep.cases=[{name = \"residual\", network.kind = \"residual\", network.stem = false, network.norm = \"batch\"}]",
            "experiment.seeds=1",
            "training.epochs=2",
            "throughput.samples=0",
            "probe.per_decade=0",
        ],
    );
    let (summary, rows) = run_all(&plan).remove(0);
    assert_eq!(summary.status, RunStatus::Complete);
    assert!(summary.test_accuracy.expect("evaluated") > 0.6, "{:?}", summary.test_accuracy);
    assert!(rows.gradients.iter().all(|row| row.nonfinite_count == 0 && row.grad_l2.is_some_and(|norm| norm > 0.0)));
}

/// Every config opens with the question that it answers, and results/README.md has the answer.
#[test]
fn every_config_is_valid_opens_with_its_question_and_has_an_answer() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let answers = fs::read_to_string(root.join("results/README.md")).expect("readable");
    let mut count = 0;
    for entry in fs::read_dir(root.join("configs")).expect("a folder of configs") {
        let path = entry.expect("an entry").path();
        let file = path.file_name().expect("a name").to_string_lossy().into_owned();
        let plan = load(&file, &[]);
        assert!(!plan.runs.is_empty(), "{file}");
        assert_eq!(format!("{}.toml", plan.experiment), file);
        let text = fs::read_to_string(&path).expect("readable");
        let opening: String =
            text.lines().take_while(|line| *line != "#").collect::<Vec<_>>().join(" ").replace('#', "");
        let words = |text: &str| text.split_whitespace().take(4).map(str::to_owned).collect::<Vec<String>>();
        assert_eq!(words(&opening), words(&plan.question), "{file}");
        if file != "smoke.toml" {
            assert!(
                answers.contains(&format!("| `{}` | {} |", plan.experiment, plan.question)),
                "{file} has no answer"
            );
        }
        count += 1;
    }
    assert!(count >= 13, "the configs were not found");
}
