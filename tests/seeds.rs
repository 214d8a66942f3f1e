//! Seeds that train together as one network, held to the same seeds by themselves.

#![cfg(feature = "flex")]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use common::{SMALL, gradmark, run, stderr, stdout};
use gradmark::config::{Norm, Source};
use gradmark::data::Sources;
use gradmark::plan::{Plan, RunSpec, groups};
use gradmark::schema::{RowSink, RunRows, RunStatus};
use gradmark::{device, train};
use safetensors::SafeTensors;
use serde::Serialize;
use serde_json::Value;

/// How far apart two numbers may be, relative to the larger one. Sums run in another order where several networks are one.
const TOLERANCE: f64 = 1e-4;
/// The same relative to the largest number of the column at that step: a gradient that is 0 but for rounding has no digits of its
/// own.
const FLOOR: f64 = 1e-5;

/// Three networks of sizes that are no multiple of any vector length, with everything measured that can be.
const BASE: &str = r#"seeds = [3, 8, 5]
[data]
examples = 150
[network]
depth = 4
width = 13
weight_init = "he"
activation = "tanh"
bias_init = "normal"
bias_std = 0.1
[training]
learning_rate = 0.05
batch_size = 7
steps = 9
save = true
[probe]
every = 3
inputs = true
units = true
dump = [0, 5]
[throughput]
samples = 0
"#;

/// The base with some of its keys replaced or added; a value of a key that stands in the base takes its place.
fn plan_of(changes: &[&str]) -> Plan {
    let overrides: Vec<String> = changes.iter().map(|change| (*change).to_owned()).collect();
    let text = format!("[experiment]\nname = \"test\"\n{BASE}");
    let source = Source::parse(Path::new("test.toml"), &text, &overrides);
    let source = source.unwrap_or_else(|error| panic!("{changes:?}: {error}"));
    gradmark::plan::plan(&source, "flex").unwrap_or_else(|error| panic!("{changes:?}: {error}"))
}

/// Every run of a plan, in its order.
fn run_groups(plan: &Plan, batches_seeds: bool) -> Vec<(RunStatus, RunRows)> {
    let device = device::open(&device::find("flex".parse().expect("a name")).expect("compiled in")).expect("opens");
    let stop = AtomicBool::new(false);
    let control = train::Control { stop: &stop, progress: &|_, _| {} };
    let runs: Vec<&RunSpec> = plan.runs.iter().collect();
    let run = |group: &Vec<&RunSpec>| {
        let mut rows = vec![RunRows::default(); group.len()];
        let dataset = Sources::default().load(&group[0].config, group[0].seed).expect("the data set is at hand");
        let sinks = rows.iter_mut().map(|rows| rows as &mut dyn RowSink);
        let runs = group.iter().copied().zip(sinks).collect();
        let statuses = train::run_together(runs, &dataset, None, &device, &control).expect("runs");
        statuses.into_iter().zip(rows).collect::<Vec<_>>()
    };
    groups(&runs, batches_seeds).iter().flat_map(run).collect()
}

/// The rows of a table as columns of numbers and of everything else.
fn fields<R: Serialize>(rows: &[R]) -> Vec<BTreeMap<String, Value>> {
    let fields = |row| match serde_json::to_value(row).expect("serializes") {
        Value::Object(fields) => fields.into_iter().collect(),
        other => panic!("{other} is no row"),
    };
    rows.iter().map(fields).collect()
}

/// Holds the rows of a run in a group to those of the run by itself. The mean delta of a layer is 0 but for rounding before batch
/// norm: `deltas` is what it is the mean of.
#[track_caller]
fn assert_same_rows<R: Serialize>(what: &str, together: &[R], alone: &[R], deltas: f64) {
    let (together, alone) = (fields(together), fields(alone));
    assert_eq!(together.len(), alone.len(), "{what}: rows");
    let mut largest: BTreeMap<(String, String), f64> = BTreeMap::new();
    for row in &alone {
        for (column, number) in row.iter().filter_map(|(column, value)| Some((column, value.as_f64()?))) {
            let entry = largest.entry((column.clone(), row["step"].to_string())).or_default();
            *entry = entry.max(number.abs());
        }
    }
    for (found, expected) in together.iter().zip(&alone) {
        for (column, value) in expected {
            let what = || format!("{what}: {column} of {found:?}, alone {value}");
            match (value, &found[column]) {
                (Value::Number(a), Value::Number(b)) if a.is_f64() => {
                    let (a, b) = (a.as_f64().expect("a number"), b.as_f64().expect("a number"));
                    let scale = largest[&(column.clone(), expected["step"].to_string())];
                    let scale = if column.starts_with("mean_delta") { scale.max(deltas) } else { scale };
                    assert!((a - b).abs() <= TOLERANCE * a.abs().max(b.abs()) + FLOOR * scale, "{}", what());
                }
                // Compared where it is not chance which elements of a gradient that is 0 but for rounding are exactly 0.
                _ if column == "zero_count" => {}
                (a, b) => assert_eq!(a, b, "{}", what()),
            }
        }
    }
}

/// Holds the tensors of a file to those of the run by itself.
#[track_caller]
fn assert_same_tensors(what: &str, together: &[u8], alone: &[u8]) {
    let numbers = |bytes: &[u8]| -> BTreeMap<String, (Vec<usize>, Vec<f64>)> {
        let number = |bytes: &[u8]| f64::from(f32::from_le_bytes(bytes.try_into().expect("four bytes")));
        let file = SafeTensors::deserialize(bytes).expect("safetensors");
        let tensors = file.iter();
        tensors.map(|(n, v)| (n.to_owned(), (v.shape().to_vec(), v.data().chunks(4).map(number).collect()))).collect()
    };
    let (together, alone) = (numbers(together), numbers(alone));
    assert_eq!(together.keys().collect::<Vec<_>>(), alone.keys().collect::<Vec<_>>(), "{what}");
    let all = alone.values().flat_map(|(_, values)| values);
    let scale = all.fold(0.0, |largest: f64, x| largest.max(x.abs()));
    for (name, (shape, values)) in &alone {
        let (found_shape, found) = &together[name];
        assert_eq!(found_shape, shape, "{what}: {name}");
        for (a, b) in found.iter().zip(values) {
            assert!((a - b).abs() <= TOLERANCE * b.abs() + FLOOR * scale, "{what}: {name}: {a}, alone {b}");
        }
    }
}

#[track_caller]
fn assert_same(what: &str, (status, together): &(RunStatus, RunRows), (expected, alone): &(RunStatus, RunRows)) {
    assert_eq!(status, expected, "{what}");
    let deltas = alone.activations.iter().filter_map(|row| row.delta_l2).fold(0.0, f64::max);
    assert_same_rows(&format!("{what}, steps"), &together.steps, &alone.steps, deltas);
    assert_same_rows(&format!("{what}, gradients"), &together.gradients, &alone.gradients, deltas);
    assert_same_rows(&format!("{what}, activations"), &together.activations, &alone.activations, deltas);
    assert_same_rows(&format!("{what}, units"), &together.units, &alone.units, deltas);
    assert_eq!(together.no_prediction, alone.no_prediction, "{what}");
    assert_eq!(together.coverage, alone.coverage, "{what}");
    let epochs = |rows: &RunRows| rows.phases.iter().map(|row| (row.epoch, row.step)).collect::<Vec<_>>();
    assert_eq!(epochs(together), epochs(alone), "{what}");
    assert_eq!(together.network.is_some(), alone.network.is_some(), "{what}");
    if let (Some(together), Some(alone)) = (&together.network, &alone.network) {
        assert_same_tensors(&format!("{what}, network"), together, alone);
    }
    assert_eq!(together.tensors.len(), alone.tensors.len(), "{what}");
    for ((step, together), (expected, alone)) in together.tensors.iter().zip(&alone.tensors) {
        assert_eq!(step, expected, "{what}");
        assert_same_tensors(&format!("{what}, tensors of step {step}"), together, alone);
    }
}

/// Holds all seeds of a config, together, to the same by themselves.
#[track_caller]
fn check(changes: &[&str]) {
    let plan = plan_of(changes);
    assert!(plan.runs.len() > 1 && plan.runs[0].config.can_train_together(), "{changes:?}");
    let (together, alone) = (run_groups(&plan, true), run_groups(&plan, false));
    for ((together, alone), spec) in together.iter().zip(&alone).zip(&plan.runs) {
        assert!(!together.1.steps.is_empty() && together.1.steps.iter().all(|row| row.run_id == spec.run_id));
        assert_same(&format!("{changes:?}, seed {}", spec.seed), together, alone);
    }
    if plan.runs[0].config.network.norm == Norm::None {
        let zeros = |(_, rows): &(RunStatus, RunRows)| rows.gradients.iter().map(|row| row.zero_count).collect();
        let zeros = |runs: &[(RunStatus, RunRows)]| runs.iter().map(zeros).collect::<Vec<Vec<u64>>>();
        assert_eq!(zeros(&together), zeros(&alone), "{changes:?}");
    }
    let losses: Vec<_> = together.iter().map(|(_, rows)| rows.steps[1].loss).collect();
    assert!(losses[0] != losses[1], "{changes:?}: seeds are different networks");
}

#[test]
fn seeds_together_are_seeds_alone_with_every_activation_function() {
    for activation in
        ["sigmoid", "tanh", "relu", "leaky_relu", "prelu", "elu", "selu", "gelu", "softplus", "maxout", "identity"]
    {
        check(&[&format!("network.activation={activation}")]);
    }
}

#[test]
fn seeds_together_are_seeds_alone_with_normalization() {
    for norm in ["batch", "layer"] {
        // Behind a ReLU a unit that few examples reach has a small variance, and rounding is large beside it.
        for (place, activation) in [("before_activation", "relu"), ("after_activation", "tanh")] {
            let changes = [("norm", norm), ("norm_place", place), ("activation", activation)];
            let changes = changes.map(|(key, value)| format!("network.{key}={value}"));
            check(&changes.each_ref().map(String::as_str));
        }
    }
}

#[test]
fn seeds_together_are_seeds_alone_in_residual_networks() {
    for order in ["pre_activation", "post_activation", "activation_before_addition"] {
        let order = format!("network.block_order={order}");
        for norm in ["none", "batch", "layer"] {
            let changes =
                ["network.kind=residual", &order, &format!("network.norm={norm}"), "network.activation=prelu"];
            check(&[&changes[..], &["network.block_layers=2", "network.branch_scale=0.5"]].concat());
        }
    }
}

/// What the base measures besides keeps layers apart.
#[test]
fn seeds_together_are_seeds_alone_where_layers_go_through_the_graph_together() {
    let narrow = ["probe.inputs=false", "probe.units=false"];
    check(&narrow);
    for norm in ["none", "batch", "layer"] {
        let norm = format!("network.norm={norm}");
        check(&[&narrow[..], &[&norm, "network.activation=gelu"]].concat());
        for order in ["pre_activation", "post_activation", "activation_before_addition"] {
            let order = format!("network.block_order={order}");
            check(&[&narrow[..], &[&norm, "network.kind=residual", &order, "network.block_layers=2"]].concat());
        }
    }
}

#[test]
fn seeds_together_are_seeds_alone_in_autoencoders_and_networks_without_biases() {
    check(&["network.kind=autoencoder", "network.depth=5", "training.loss=squared_error"]);
    check(&[
        "network.weight_init=lecun",
        "network.norm=layer",
        "network.kind=autoencoder",
        "network.depth=3",
        "training.loss=quadratic",
    ]);
}

#[test]
fn seeds_together_are_seeds_alone_with_every_cost_and_optimizer() {
    for loss in ["quadratic", "sigmoid_cross_entropy"] {
        check(&[&format!("training.loss={loss}")]);
    }
    check(&["training.momentum=0.9"]);
    for optimizer in ["adam", "adamw", "rmsprop"] {
        let decay = if optimizer == "adamw" { "training.weight_decay=0.01" } else { "training.l2=0.0" };
        check(&[&format!("training.optimizer={optimizer}"), "training.learning_rate=0.002", decay]);
    }
}

#[test]
fn seeds_together_are_seeds_alone_with_clipping_and_penalties() {
    for (clipping, threshold) in [("value", 0.01), ("tensor_norm", 0.2), ("global_norm", 1.0)] {
        check(&[&format!("training.clipping={clipping}"), &format!("training.clip_threshold={threshold}")]);
    }
    check(&["training.l1=0.001", "training.l2=0.01", "training.weight_decay=0.1", "training.weight_clipping=0.4"]);
}

#[test]
fn seeds_together_are_seeds_alone_in_other_lengths_and_batches() {
    check(&["training.batch_size=full", "training.steps=6"]);
    check(&["training.steps=0", "probe.dump=[0]"]);
    check(&["training.batch_size=150", "training.steps=6"]);
    check(&["training.batch_size=1", "training.steps=9"]);
    check(&["experiment.seeds=2"]);
}

/// Steps so long that some networks leave f32 and others do not. The dump of step 5 waits for the device: what has diverged by
/// then is noticed there.
#[test]
fn a_seed_that_diverges_ends_there_and_the_others_go_on() {
    let changes = ["experiment.seeds=8", "network.activation=relu", "training.learning_rate=30.0", "probe.every=1"];
    let plan = plan_of(&changes);
    let (together, alone) = (run_groups(&plan, true), run_groups(&plan, false));
    let statuses = |runs: &[(RunStatus, RunRows)]| runs.iter().map(|(status, _)| status.clone()).collect::<Vec<_>>();
    assert_eq!(statuses(&together), statuses(&alone));
    assert!(statuses(&alone).contains(&RunStatus::Complete));
    assert!(statuses(&alone).contains(&RunStatus::Diverged { diverged_at_step: 4 }), "{:?}", statuses(&alone));
    for ((_, together), (_, alone)) in together.iter().zip(&alone) {
        assert_eq!(together.steps.len(), alone.steps.len());
        assert_same_rows("the first steps", &together.steps[..3], &alone.steps[..3], 0.0);
        assert_eq!(together.gradients.len(), alone.gradients.len());
        assert_eq!(together.tensors.len(), alone.tensors.len());
        assert_eq!((together.network.is_some(), together.coverage.is_some()), (alone.network.is_some(), true));
    }
}

fn manifests(experiment: &Path) -> Vec<Value> {
    let entries = fs::read_dir(experiment).expect("the experiment's directory");
    let paths = entries.map(|entry| entry.expect("an entry").path().join("manifest.json"));
    let mut manifests: Vec<Value> = paths
        .filter_map(|path| fs::read_to_string(path).ok())
        .map(|text| serde_json::from_str(&text).expect("JSON"))
        .collect();
    manifests.sort_by_key(|manifest| manifest["run_id"].to_string());
    manifests
}

fn of_all(manifests: &[Value], key: &str) -> Vec<Value> {
    manifests.iter().map(|manifest| manifest[key].clone()).collect()
}

#[test]
fn a_group_is_recorded_as_the_runs_that_its_seeds_would_be_alone() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let command = "run config.toml --device flex --set experiment.seeds=3";
    let together = run(dir.path(), SMALL, command);
    assert_eq!(together.status.code(), Some(0), "{}", stderr(&together));
    assert!(stderr(&together).contains("[5/6] activation=relu seed=2: complete"), "{}", stderr(&together));
    let alone = run(dir.path(), SMALL, &format!("{command} --no-batch-seeds --out alone"));
    assert_eq!(alone.status.code(), Some(0), "{}", stderr(&alone));
    let together = manifests(&dir.path().join("results/small"));
    let alone = manifests(&dir.path().join("alone/small"));
    assert_eq!(of_all(&together, "trained_together"), [3; 6]);
    assert_eq!(of_all(&alone, "trained_together"), [1; 6]);
    for key in ["run_id", "seed", "factors", "rows", "config", "gradient_coverage", "no_prediction", "data_sha256"] {
        assert_eq!(of_all(&together, key), of_all(&alone, key), "{key}");
    }
    for manifest in &together {
        let run = dir.path().join("results/small").join(manifest["run_id"].as_str().expect("an id"));
        for file in ["gradients.csv", "activations.csv", "steps.csv", "phases.csv", "throughput.csv"] {
            let text = fs::read_to_string(run.join(file)).expect("reads");
            assert_eq!(text.matches("run_id").count(), 1, "{file}");
            assert!(text.lines().skip(1).all(|line| line.starts_with(manifest["run_id"].as_str().expect("an id"))));
        }
    }
}

#[test]
fn only_runs_that_are_due_are_grouped() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let command = "run config.toml --device flex --set experiment.seeds=4 --set network.activation=relu";
    run(dir.path(), SMALL, command);
    let experiment = dir.path().join("results/small");
    let ids = of_all(&manifests(&experiment), "run_id");
    for id in &ids[..2] {
        fs::remove_dir_all(experiment.join(id.as_str().expect("an id"))).expect("removes");
    }
    let again = run(dir.path(), SMALL, command);
    assert!(stderr(&again).contains("2 complete runs are kept and skipped"), "{}", stderr(&again));
    let manifests = manifests(&experiment);
    assert_eq!(of_all(&manifests, "run_id"), ids);
    assert_eq!(of_all(&manifests, "trained_together"), [2, 2, 4, 4]);
}

#[test]
fn plan_shows_the_groups() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let command = "plan config.toml --device flex --set experiment.seeds=3";
    let table = stdout(&run(dir.path(), SMALL, command));
    assert!(table.contains("group") && table.contains("6 runs on flex, 6 of them in 2 groups that train together"));
    let table = stdout(&run(dir.path(), SMALL, &format!("{command} --no-batch-seeds")));
    assert!(!table.contains("group") && table.trim_end().ends_with("6 runs on flex"), "{table}");
    let json = run(dir.path(), SMALL, &format!("{command} --json"));
    let plan: Value = serde_json::from_slice(&json.stdout).expect("JSON");
    assert_eq!(plan["groups"][1][2], plan["runs"][5]["run_id"]);
    assert_eq!(plan["groups"].as_array().map(Vec::len), Some(2));
}

#[test]
#[cfg(unix)]
fn an_interrupted_group_leaves_no_run() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let config = SMALL.replace("epochs = 2", "steps = 100000000").replace("samples = 2", "samples = 0");
    fs::write(dir.path().join("config.toml"), config).expect("writes");
    let mut command = gradmark(dir.path());
    command.args(["run", "config.toml", "--device", "flex", "--quiet", "--set", "experiment.seeds=3"]);
    let mut child = command.spawn().expect("the binary starts");
    let experiment = dir.path().join("results/small");
    let is_training = || {
        let entries = fs::read_dir(&experiment).into_iter().flatten().flatten();
        entries.filter(|entry| entry.path().join("steps.csv").exists()).count() == 3
    };
    while !is_training() {
        assert!(child.try_wait().expect("is watched").is_none(), "it ended by itself");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    let id = child.id().to_string();
    assert!(std::process::Command::new("kill").args(["-INT", &id]).status().expect("kill").success());
    assert_eq!(child.wait().expect("ends").code(), Some(130));
    let left: Vec<_> = fs::read_dir(&experiment).expect("is there").flatten().map(|entry| entry.file_name()).collect();
    assert!(left.iter().all(|name| name == ".lock"), "{left:?}");
}
