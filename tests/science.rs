//! Known results, reproduced.

#![cfg(feature = "flex")]

mod experiment;

use experiment::{load, run_all};
use gradmark::plan::Plan;

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
    let gradmark::schema::RunStatus::Diverged { diverged_at_step } = summary.status else {
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
