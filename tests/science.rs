//! Known results, reproduced.

#![cfg(feature = "flex")]

use std::path::Path;
use std::sync::atomic::AtomicBool;

use gradmark::analysis::{RunSummary, geometric_mean, summarize};
use gradmark::config::Source;
use gradmark::plan::{Plan, plan};
use gradmark::schema::RunRows;
use gradmark::{data, device, train};

fn load(config: &str, overrides: &[&str]) -> Plan {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("configs").join(config);
    let overrides: Vec<String> = overrides.iter().map(|text| (*text).to_owned()).collect();
    plan(&Source::load(&path, &overrides).expect("a valid config"), "flex").expect("a valid config")
}

fn run_all(plan: &Plan) -> Vec<(RunSummary, RunRows)> {
    let adapter = device::find("flex".parse().expect("a name")).expect("compiled in");
    let device = device::open(&adapter).expect("opens");
    let stop = AtomicBool::new(false);
    let control = train::Control { stop: &stop, progress: &|_, _| {} };
    let run = |spec: &gradmark::plan::RunSpec| {
        let mut rows = RunRows::default();
        let dataset = data::load(&spec.config, spec.seed);
        let status = train::run(spec, &dataset, &device, &mut rows, &control).expect("runs");
        (summarize(&spec.run_id, spec.levels.clone(), spec.seed, status, &rows), rows)
    };
    plan.runs.iter().map(run).collect()
}

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

/// Nielsen, Neural Networks and Deep Learning, chapter 5: at initialization with weights from N(0, 1/n) and biases from
/// N(0, 1), the norms of the mean deltas of neighbouring layers differ by a factor of .213; mean field theory says .2048.
#[test]
fn neighbouring_sigmoid_layers_learn_at_speeds_that_differ_by_a_factor_of_a_fifth() {
    let plan = load(
        "sigmoid_vs_relu.toml",
        &[
            "sweep.cases=[{name = \"nielsen\", network.activation = \"sigmoid\", network.weight_init = \"lecun\"}]",
            "network.depth=4",
            "network.width=30",
            "network.bias_init=normal",
            "network.bias_std=1.0",
            "training.batch_size=1000",
            "training.epochs=1",
            "experiment.seeds=20",
            "throughput.samples=0",
        ],
    );
    let ratios: Vec<f64> = run_all(&plan)
        .iter()
        .flat_map(|(_, rows)| {
            let speeds: Vec<f64> =
                rows.activations.iter().filter(|row| row.step == 0).filter_map(|row| row.mean_delta_l2).collect();
            assert_eq!(speeds.len(), 4);
            speeds.windows(2).map(|pair| pair[0] / pair[1]).collect::<Vec<f64>>()
        })
        .collect();
    let ratio = geometric_mean(&ratios).expect("60 ratios");
    assert!((0.17..=0.25).contains(&ratio), "{ratio}");
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
