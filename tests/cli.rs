//! The command line as a user meets it.

#![cfg(feature = "flex")]

mod common;

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use common::{SMALL, gradmark, run, stderr, stdout};

fn temporary() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary directory")
}

/// The directories of runs, without what is hidden.
fn runs(out: &Path) -> Vec<PathBuf> {
    let mut runs: Vec<PathBuf> = fs::read_dir(out.join("small"))
        .map(|entries| entries.map(|entry| entry.expect("an entry").path()).collect())
        .unwrap_or_default();
    runs.retain(|path| path.join("manifest.json").exists());
    runs.sort();
    runs
}

/// The names of everything in the experiment's directory that begins with `.tmp-`.
fn leftovers(out: &Path) -> Vec<String> {
    let entries = fs::read_dir(out.join("small")).expect("the experiment's directory");
    let mut names: Vec<String> =
        entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into()).collect();
    names.retain(|name| name.starts_with(".tmp-"));
    names
}

#[test]
fn a_run_writes_every_file_and_prints_a_table() {
    let dir = temporary();
    let output = run(dir.path(), SMALL, "run config.toml --device flex");
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let out = dir.path().join("results");
    let found = runs(&out);
    assert_eq!(found.len(), 2);
    for run in &found {
        for file in ["gradients.csv", "activations.csv", "steps.csv", "phases.csv", "throughput.csv", "manifest.json"] {
            assert!(run.join(file).metadata().is_ok_and(|file| file.len() > 100), "{}", run.join(file).display());
        }
        let manifest: serde_json::Value =
            serde_json::from_str(&fs::read_to_string(run.join("manifest.json")).expect("reads")).expect("JSON");
        assert_eq!(manifest["status"], "complete");
        assert_eq!(manifest["schema_version"], 5);
        assert_eq!(manifest["environment"]["adapter"]["backend"], "flex");
        assert_eq!(manifest["environment"]["burn_version"].as_str().map(|version| &version[..4]), Some("0.22"));
    }
    let experiment = out.join("small");
    let summary = fs::read_to_string(experiment.join("summary.csv")).expect("summary.csv");
    assert!(summary.starts_with("run_id,seed,network.activation,status,"), "{summary}");
    assert_eq!(summary.lines().count(), 3);
    for figure in [
        "gradient_by_layer",
        "delta_by_layer",
        "gradient_over_steps",
        "gradient_heat_map",
        "activation_functions",
        "learning_curves",
        "accuracy_over_time",
        "training_loss",
        "throughput",
    ] {
        let svg = fs::read_to_string(experiment.join(format!("figures/{figure}.svg"))).expect(figure);
        assert!(svg.contains("sigmoid") && svg.contains("relu") && svg.trim_end().ends_with("</svg>"), "{figure}");
    }
    let table = stdout(&output);
    assert!(table.contains("Does it work?") && table.contains("sigmoid") && table.contains("examples/s"), "{table}");
    // Not a terminal: plain lines, one a run.
    let lines = stderr(&output);
    assert!(lines.contains("[2/2] activation=relu seed=1: complete") && !lines.contains('\u{1b}'), "{lines}");
}

#[test]
fn complete_runs_are_skipped_and_repeated_by_force() {
    let dir = temporary();
    run(dir.path(), SMALL, "run config.toml --device flex");
    let file = runs(&dir.path().join("results"))[0].join("throughput.csv");
    let first = fs::read(&file).expect("reads");
    let again = run(dir.path(), SMALL, "run config.toml --device flex");
    assert!(stderr(&again).contains("2 complete runs are kept and skipped"), "{}", stderr(&again));
    assert!(stdout(&again).contains("sigmoid"));
    assert_eq!(fs::read(&file).expect("reads"), first);
    let forced = run(dir.path(), SMALL, "run config.toml --device flex --force");
    assert!(stderr(&forced).contains("[2/2]"), "{}", stderr(&forced));
    // Times are never the same twice.
    assert_ne!(fs::read(&file).expect("reads"), first);
    assert!(leftovers(&dir.path().join("results")).is_empty());
}

#[test]
fn quiet_prints_no_progress() {
    let dir = temporary();
    let output = run(dir.path(), SMALL, "run config.toml --device flex --quiet");
    assert_eq!((output.status.code(), stderr(&output).as_str()), (Some(0), ""));
}

#[test]
fn the_same_seed_gives_the_same_bytes_whatever_the_number_of_threads() {
    // Wide enough for products and sums that are shared out to threads.
    let config = SMALL.replace("width = 16", "width = 300").replace("batch_size = 64", "batch_size = 256");
    let dirs = [temporary(), temporary(), temporary()];
    for (dir, threads) in dirs.iter().zip(["1", "2", "5"]) {
        fs::write(dir.path().join("config.toml"), &config).expect("writes");
        let mut command = gradmark(dir.path());
        command.args(["run", "config.toml", "--device", "flex"]).env("RAYON_NUM_THREADS", threads);
        let output = command.output().expect("the binary starts");
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    }
    let first = runs(&dirs[0].path().join("results"));
    for other in &dirs[1..] {
        for (a, b) in first.iter().zip(runs(&other.path().join("results"))) {
            for file in ["gradients.csv", "activations.csv", "steps.csv"] {
                let (a, b) = (a.join(file), b.join(file));
                assert!(fs::read(&a).expect("reads") == fs::read(&b).expect("reads"), "{} differs", b.display());
            }
        }
    }
}

#[test]
fn plan_lists_the_runs_and_starts_nothing() {
    let dir = temporary();
    let table = run(dir.path(), SMALL, "plan config.toml --device flex --set experiment.seeds=3");
    assert!(stdout(&table).contains("6 runs on flex"), "{}", stdout(&table));
    let json = run(dir.path(), SMALL, "plan config.toml --device flex --json");
    let plan: serde_json::Value = serde_json::from_slice(&json.stdout).expect("JSON");
    assert_eq!(plan["factors"], serde_json::json!(["network.activation"]));
    assert_eq!(plan["runs"][1]["config"]["network"]["activation"], "relu");
    assert_eq!(plan["runs"][1]["run_id"].as_str().map(str::len), Some(16));
    assert!(!dir.path().join("results").exists());
}

#[test]
fn devices_lists_the_cpu_and_names_what_is_not_compiled_in() {
    let dir = temporary();
    let table = stdout(&run(dir.path(), SMALL, "devices"));
    assert!(table.contains("flex:0"), "{table}");
    let json = run(dir.path(), SMALL, "devices --json");
    let devices: serde_json::Value = serde_json::from_slice(&json.stdout).expect("JSON");
    assert_eq!(devices[0]["kind"], "cpu");
}

#[test]
fn report_makes_table_summary_and_figures_again_from_the_csv_files() {
    let dir = temporary();
    let first = run(dir.path(), SMALL, "run config.toml --device flex");
    let experiment = dir.path().join("results/small");
    let summary = fs::read(experiment.join("summary.csv")).expect("reads");
    fs::remove_file(experiment.join("summary.csv")).expect("removes");
    fs::remove_dir_all(experiment.join("figures")).expect("removes");
    let report = run(dir.path(), SMALL, "report results/small");
    assert_eq!(report.status.code(), Some(0), "{}", stderr(&report));
    assert_eq!(stdout(&report), stdout(&first));
    assert_eq!(fs::read(experiment.join("summary.csv")).expect("reads"), summary);
    assert!(experiment.join("figures/throughput.svg").exists());
}

/// Runs a faulty command and checks for exit code 2, one line of error, and that nothing was made.
#[track_caller]
fn refused(config: &str, arguments: &str, expected: &[&str]) {
    let dir = temporary();
    let output = run(dir.path(), config, arguments);
    let text = stderr(&output);
    assert_eq!(output.status.code(), Some(2), "{arguments}: {text}");
    assert_eq!(text.lines().count(), 1, "{text}");
    for part in expected {
        assert!(text.contains(part), "{text}\n  lacks: {part}");
    }
    assert!(!dir.path().join("results").exists(), "{arguments} made results");
}

#[test]
fn faulty_configs_are_refused_with_file_line_key_value_and_mend() {
    let run = "run config.toml --device flex";
    let with = |line: &str, other: &str| SMALL.replace(line, other);
    refused(
        &with("depth = 3", "dept = 3"),
        run,
        &["config.toml:6: `network.dept` is not a key", "did you mean `network.depth`?"],
    );
    refused(
        &with("depth = 3", "depth = \"deep\""),
        run,
        &["config.toml:6: `network.depth` must be a whole number", "got \"deep\"", "write"],
    );
    refused(
        &with("depth = 3", "depth = 0"),
        run,
        &["config.toml:6: `network.depth` must be", "1 to 1000, got 0", "set"],
    );
    refused(&with("depth = 3", "depth = 1001"), run, &["`network.depth`", "got 1001"]);
    refused(&with("width = 16", "width = 0"), run, &["config.toml:7: `network.width`", "got 0", "set"]);
    refused(
        &with("learning_rate = 0.1", "learning_rate = -0.1"),
        run,
        &["config.toml:10: `training.learning_rate`", "above 0, got -0.1", "set"],
    );
    refused(&with("learning_rate = 0.1", "learning_rate = nan"), run, &["`training.learning_rate`", "got nan"]);
    refused(
        &with("batch_size = 64", "batch_size = 2000"),
        run,
        &["config.toml:11: `training.batch_size`", "1437", "got 2000"],
    );
    refused(
        &with("[\"sigmoid\", \"relu\"]", "[]"),
        run,
        &["config.toml:17: `sweep.network.activation`", "at least one value, got []"],
    );
    refused(
        &with("question = \"Does it work?\"", "seeds = [1, 1]"),
        run,
        &["config.toml:4: `experiment.seeds`", "twice, got [1, 1]"],
    );
    refused(&with("name = \"small\"", "name = \"../up\""), run, &["config.toml:3: `experiment.name`", "got \"../up\""]);
    refused(&with("[network]", "[network"), run, &["config.toml:5: not valid TOML"]);
    refused(SMALL, "run config.toml --device flex --set network.depth", &["--set network.depth: there is no `=`"]);
    refused(SMALL, "run config.toml --device flex --set network.depth=0", &["--set network.depth=0: `network.depth`"]);
    refused(SMALL, "run absent.toml", &["absent.toml: the config cannot be read", "name a TOML file"]);
    refused(SMALL, "run .", &["it is a directory", "name a TOML file in it"]);
}

/// A small config, one key a line.
const KEYS: [&str; 7] = [
    "experiment.name = \"small\"",
    "network.depth = 4",
    "network.width = 8",
    "network.activation = \"relu\"",
    "network.weight_init = \"he\"",
    "training.learning_rate = 0.1",
    "training.epochs = 1",
];
/// Measures the network at initialization, without training.
const UNTRAINED: [&str; 4] = ["-training.learning_rate", "-training.epochs", "training.steps = 0", LINEAR_PROBE];
const LINEAR_PROBE: &str = "training.loss = \"linear_probe\"";
const RESIDUAL: &str = "network.kind = \"residual\"";
const CONVOLUTIONAL: &str = "network.kind = \"convolutional\"";
const GAUSSIAN: &str = "data.set = \"gaussian\"";

/// Replaces or adds lines of a config, or takes a key out of it (`-network.width`), and checks that one error blames `key`
/// at its line, with its value, and says `expected`.
#[track_caller]
fn refused_for(changes: &[&str], key: &str, expected: &[&str]) {
    let key_of = |line: &str| line.split(" = ").next().unwrap_or(line).to_owned();
    let mut lines: Vec<&str> = KEYS.to_vec();
    for change in changes {
        if let Some(key) = change.strip_prefix('-') {
            lines.retain(|line| key_of(line) != key);
        } else if let Some(line) = lines.iter_mut().find(|line| key_of(line) == key_of(change)) {
            *line = change;
        } else {
            lines.push(change);
        }
    }
    let blamed = lines.iter().position(|line| key_of(line) == key);
    let (place, value) = match blamed {
        Some(place) => (format!("config.toml:{}", place + 1), lines[place].split_once(" = ").expect("a value").1),
        None => ("config.toml".to_owned(), "nothing"),
    };
    let (place, value) = (format!("{place}: `{key}` "), format!(", got {value}; "));
    refused(&lines.join("\n"), "run config.toml --device flex", &[&[&*place, &*value], expected].concat());
}

/// The same for a network that is only measured.
#[track_caller]
fn refused_untrained(changes: &[&str], key: &str, expected: &[&str]) {
    refused_for(&[&UNTRAINED[..], changes].concat(), key, expected);
}

#[test]
fn activation_functions_whose_keys_make_no_sense_are_refused() {
    let maxout = "network.activation = \"maxout\"";
    let pieces = "network.pieces";
    refused_for(&[maxout, "network.pieces = 1"], pieces, &["from 2 to 16", "set `network.pieces = 2`"]);
    refused_for(&[maxout, "network.pieces = 17"], pieces, &["from 2 to 16", "set `network.pieces = 2`"]);
    refused_for(&["network.pieces = 2"], pieces, &["only with `network.activation = \"maxout\"`", "remove it"]);
    let equal = ["makes the pieces of maxout equal", "set `network.weight_init = \"lecun\"`"];
    refused_for(&[maxout, "network.weight_init = \"zero\""], "network.weight_init", &equal);
    let constant = ["network.weight_init = \"constant\"", "network.weight_scale = 0.1"];
    refused_for(&[maxout, constant[0], constant[1]], "network.weight_init", &equal);
    let order = "set `network.block_order = \"activation_before_addition\"`";
    refused_for(&[maxout, RESIDUAL], "network.block_order", &["another size", order]);
    refused_for(&[maxout, CONVOLUTIONAL, "network.depth = 8"], "network.block_order", &["another size", order]);
    refused_for(
        &["network.slope = 0.1"],
        "network.slope",
        &["`network.activation = \"leaky_relu\"` or \"prelu\"", "remove"],
    );
    let leaky = "network.activation = \"leaky_relu\"";
    refused_for(&[leaky, "network.slope = 2"], "network.slope", &["from -1 to 1", "set `network.slope = 0.01`"]);
}

#[test]
fn initial_weights_without_their_size_or_with_an_impossible_one_are_refused() {
    let scale = "network.weight_scale";
    for init in ["uniform", "random_sign", "constant"] {
        let init = format!("network.weight_init = \"{init}\"");
        refused_for(&[&init], scale, &["must give the size", "add `weight_scale = 0.1` under [network]"]);
    }
    let zero = "network.weight_init = \"zero\"";
    refused_for(&[zero, "network.weight_scale = 2.0"], scale, &["no meaning with `network.weight_init = \"zero\"`"]);
    refused_for(&["network.weight_scale = 0"], scale, &["above 0", "set `network.weight_scale = 1.0`"]);
    refused_for(&["network.weight_scale = -1.5"], scale, &["above 0", "set `network.weight_scale = 1.0`"]);
    let constant = "network.weight_init = \"constant\"";
    refused_for(&[constant, "network.weight_scale = 0"], scale, &["other than 0", "`network.weight_init = \"zero\"`"]);
    let given = ["network.weight_init = \"given\"", "network.weights = [1.0, 2.0, 3.0, 4.0]"];
    refused_for(&given, "network.weight_init", &["only for a chain", "set `network.kind = \"chain\"`"]);
    let centered = ["network.bias_init = \"centered\""];
    refused_for(&centered, "network.bias_init", &["for the neurons of a chain", "set `network.kind = \"chain\"`"]);
    let constant = ["network.bias_init = \"constant\""];
    refused_for(&constant, "network.bias_value", &["must be given", "add `bias_value = 1.0` under [network]"]);
}

#[test]
fn chains_that_are_no_chains_of_single_neurons_are_refused() {
    let chain = ["-network.width", "network.kind = \"chain\"", "data.set = \"single\"", "data.value = 0.5"];
    let refused_chain = |changes: &[&str], key: &str, expected: &[&str]| {
        refused_untrained(&[&chain[..], changes].concat(), key, expected);
    };
    refused_chain(&["network.width = 8"], "network.width", &["one neuron a layer", "remove it"]);
    let (given, weights) = ("network.weight_init = \"given\"", "network.weights");
    refused_chain(&[given], weights, &["one number a neuron", "add `weights = [...]` with 4 numbers under [network]"]);
    let length = ["must list 4 numbers", "list 4 numbers, or set `network.depth = 2`"];
    refused_chain(&[given, "network.weights = [1.0, 2.0]"], weights, &length);
    refused_chain(&[given, "network.weights = []"], weights, &["must list 4 numbers", "; list 4 numbers\n"]);
    let infinite = ["must list finite numbers", "write finite numbers"];
    refused_chain(&[given, "network.weights = [1.0, nan, 2.0, 3.0]"], weights, &infinite);
    refused_chain(
        &[given, "network.weights = 3"],
        weights,
        &["must be a list of numbers", "write a value such as [0.5"],
    );
    refused_chain(&["network.weights = [1.0]"], weights, &["only with `network.weight_init = \"given\"`", "remove it"]);
    let biases = ["network.bias_init = \"given\"", "network.biases = [1.0, 2.0, 3.0]"];
    refused_chain(&biases, "network.biases", &["must list 4 numbers", "set `network.depth = 3`"]);
    refused_chain(&["network.norm = \"layer\""], "network.norm", &["the single neuron", "remove it"]);
    refused_chain(&["-data.value"], "data.value", &["must be given", "add `value = 0.5` under [data]"]);
    refused_chain(&["-data.set", "-data.value"], "data.set", &["must be \"single\"", "set `data.set = \"single\"`"]);
    refused_chain(
        &["-training.loss"],
        "training.loss",
        &["must be \"linear_probe\" for a chain", "`training.steps = 0`"],
    );
    refused_chain(
        &["training.batch_size = 2"],
        "training.batch_size",
        &["must be 1 for the one input", "set `training.batch_size = 1`"],
    );
}

#[test]
fn an_item_of_a_list_that_is_no_number_is_named_by_its_place() {
    let config = format!("{}\nnetwork.weights = [1.0, \"a\"]\n", KEYS.join("\n"));
    let expected = ["config.toml:8: `network.weights[1]` must be a number, got \"a\"; write"];
    refused(&config, "run config.toml --device flex", &expected);
}

#[test]
fn normalizations_that_would_leave_nothing_or_do_nothing_are_refused() {
    let batch = "network.norm = \"batch\"";
    let size = "training.batch_size";
    let mend = "set `training.batch_size = 32`, for example, or `network.norm = \"layer\"`";
    refused_for(&[batch, "training.batch_size = 1"], size, &["at least 2 with batch norm", mend]);
    let single = ["data.set = \"single\"", "data.value = 0.5", batch];
    refused_untrained(&single, size, &["at least 2 with batch norm", "; set `network.norm = \"layer\"`"]);
    let after = "network.norm_place = \"after_activation\"";
    let none = ["no meaning with `network.norm = \"none\"`", "remove it, or set `network.norm = \"batch\"`"];
    refused_for(&[after], "network.norm_place", &none);
    refused_for(&["network.norm_momentum = 0.1"], "network.norm_momentum", &none);
    refused_for(&["network.norm_epsilon = 0.1"], "network.norm_epsilon", &none);
    let layer = "network.norm = \"layer\"";
    let running = ["layer norm has no running statistics", "remove it"];
    refused_for(&[layer, "network.norm_momentum = 0.1"], "network.norm_momentum", &running);
    refused_for(&[layer, "network.width = 1"], "network.norm", &["of one unit", "set `network.width = 64`"]);
    refused_for(&[batch, "network.norm_momentum = 0"], "network.norm_momentum", &["above 0 and at most 1", "set"]);
    refused_for(&[batch, "network.norm_epsilon = 0"], "network.norm_epsilon", &["above 0", "set"]);
    let shortcut = ["on the shortcut of a post-activation block", "set another `network.block_order`"];
    let post = "network.block_order = \"post_activation\"";
    refused_for(&[RESIDUAL, batch, after, post], "network.norm_place", &shortcut);
    refused_for(&[CONVOLUTIONAL, "network.depth = 8", batch, after], "network.norm_place", &shortcut);
}

#[test]
fn shortcuts_and_blocks_that_do_not_fit_the_network_are_refused() {
    let scale = "network.branch_scale";
    let mend = ["or \"inverse_sqrt_blocks\"", "set `network.branch_scale = 1.0`"];
    refused_for(&[RESIDUAL, "network.branch_scale = 0"], scale, &mend);
    refused_for(&[RESIDUAL, "network.branch_scale = \"sqrt\""], scale, &["or \"inverse_sqrt_blocks\"", "such as 1.0"]);
    let kinds = "only with `network.kind = \"residual\"` or \"convolutional\"";
    refused_for(&["network.branch_scale = 0.5"], scale, &[kinds, "remove it, or set `network.kind = \"residual\"`"]);
    let width = ["which is 64", "set `network.width = 64`, or remove `network.stem`"];
    refused_for(&[RESIDUAL, "network.stem = false"], "network.stem", &width);
    let five = [RESIDUAL, "network.stem = false", "network.width = 5", GAUSSIAN, "data.features = 9"];
    refused_untrained(&five, "network.stem", &["which is 9", "set `network.width = 9`"]);
    let odd = ["must be even", "add one layer, or set `network.block_layers = 1`"];
    refused_for(&[RESIDUAL, "network.block_layers = 2", "network.depth = 5"], "network.depth", &odd);
    refused_for(&[RESIDUAL, "network.block_layers = 0"], "network.block_layers", &["must be 1 or 2", "set"]);
    for depth in ["network.depth = 2", "network.depth = 9"] {
        refused_for(&[CONVOLUTIONAL, depth], "network.depth", &["must be 6n + 2", "set 8, 14, 20"]);
    }
    let plain_twin = [CONVOLUTIONAL, "network.depth = 8", "network.shortcut = \"none\""];
    for key in ["network.branch_scale = 0.5", "network.block_order = \"pre_activation\""] {
        let what = key.split(" = ").next().expect("a key");
        let expected = ["no meaning with `network.shortcut = \"none\"`", "set `network.shortcut = \"identity\"`"];
        refused_for(&[&plain_twin[..], &[key]].concat(), what, &expected);
    }
    let convolutional = "only with `network.kind = \"convolutional\"`";
    refused_for(&[RESIDUAL, "network.shortcut = \"none\""], "network.shortcut", &[convolutional, "remove it"]);
    refused_for(&["-network.width"], "network.width", &["how many units", "add `width = 64` under [network]"]);
}

#[test]
fn data_that_do_not_fit_the_network_or_the_loss_are_refused() {
    let features = [GAUSSIAN, "data.features = 64"];
    let images = [features[0], features[1], CONVOLUTIONAL, "network.depth = 8"];
    refused_untrained(&images, "data.set", &["must hold images", "set `data.set = \"digits\"`"]);
    refused_untrained(&[GAUSSIAN], "data.features", &["must be given", "add `features = 64` under [data]"]);
    refused_for(&["data.features = 64"], "data.features", &["only with `data.set = \"gaussian\"`", "remove it"]);
    let classes =
        ["must be \"linear_probe\"", "set `training.loss = \"linear_probe\"` and `training.steps = 0`, or `data"];
    refused_for(&features, "training.loss", &classes);
    refused_for(&[&features[..], &["training.loss = \"quadratic\""]].concat(), "training.loss", &classes);
    let steps = ["no minimum", "set `training.steps = 0`, without `training.epochs`"];
    refused_for(&[LINEAR_PROBE], "training.loss", &steps);
    refused_for(&[LINEAR_PROBE, "-training.epochs", "training.steps = 3"], "training.loss", &steps);
    for quantity in ["units", "inputs"] {
        let key = format!("probe.{quantity}");
        let wanted = format!("{key} = true");
        refused_for(&["probe.activations = false", &wanted], &key, &["leaves out", "set `probe.activations = true`"]);
    }
}

#[test]
fn steps_that_cannot_be_dumped_are_refused() {
    let dump = "probe.dump";
    // 44 steps of 32 of the 1437 digits; 29 are left over.
    let steps = ["names step 44, and the training has the steps 0 to 43", "set `probe.dump = [0, 43]`"];
    refused_for(&["probe.dump = [3, 500, 44]"], dump, &steps);
    refused_for(&["training.epochs = 2", "probe.dump = [88]"], dump, &["names step 88", "the steps 0 to 87"]);
    refused_for(
        &["-training.epochs", "training.steps = 450", "probe.dump = [500]"],
        dump,
        &["names step 500, and the training has the steps 0 to 449"],
    );
    let one = ["the steps 0 to 0", "set `probe.dump = [0]`, for example, or train longer"];
    refused_for(&["-training.epochs", "training.steps = 1", "probe.dump = [1]"], dump, &one);
    let untrained = ["names step 1, and a network that is only measured has step 0 alone", "set `probe.dump = [0]`"];
    refused_for(&["-training.epochs", "training.steps = 0", "probe.dump = [0, 1]"], dump, &untrained);
    refused_for(&["probe.dump = [1, 2, 1]"], dump, &["must not name step 1 twice", "name it once"]);
    let many = format!("probe.dump = {:?}", (0..1001).collect::<Vec<usize>>());
    refused_for(&[&many], dump, &["must name at most 1000 steps, and names 1001", "name fewer steps"]);
    refused_for(&["probe.dump = 3"], dump, &["must be a list of numbers", "write a value such as [0, 10]"]);
    let config = format!("{}\nprobe.dump = [1, -2]\n", KEYS.join("\n"));
    let expected = ["config.toml:8: `probe.dump[1]` must be a whole number of 0 or more, got -2; write"];
    refused(&config, "run config.toml --device flex", &expected);
}

/// Changes of [`KEYS`] for a recurrent network, without the data set.
const RECURRENT: [&str; 4] =
    ["network.kind = \"recurrent\"", "network.cell = \"lstm\"", "network.activation = \"tanh\"", LENGTH];
#[test]
fn keys_of_images_are_refused_where_they_have_no_meaning() {
    let (mnist, validation) = ("data.set = \"mnist\"", "data.evaluation = \"validation\"");
    let only = ["only with `data.set = \"mnist\"` or \"fashion_mnist\"", "remove it"];
    refused_for(&[validation], "data.evaluation", &only);
    let one = ["must be one of test, validation", "got \"train\""];
    refused_for(&[mnist, "data.evaluation = \"train\""], "data.evaluation", &one);
    let all = ["from 1 to the 60000 examples of the training split", "set `data.examples = 1000`"];
    refused_for(&[mnist, "data.examples = 60001"], "data.examples", &all);
    let kept = ["from 1 to the 50000 examples of the training split"];
    refused_for(&["data.set = \"fashion_mnist\"", validation, "data.examples = 50001"], "data.examples", &kept);
    refused_for(&[mnist, "data.reading = \"rows\""], "data.reading", &["only with `network.kind = \"recurrent\"`"]);
    let images = [GAUSSIAN, "data.features = 3", "data.normalization = \"unit\""];
    let sets = ["only with `data.set = \"digits\"` or \"mnist\" or \"fashion_mnist\""];
    refused_untrained(&images, "data.normalization", &sets);
}

#[test]
fn files_of_a_data_set_that_are_not_there_are_told_before_anything_is_written() {
    let config = format!("{SMALL}\n[data]\nset = \"mnist\"\n");
    let places =
        ["MNIST: its files are in none of nowhere/mnist, nowhere;", "`gradmark fetch mnist --data-dir nowhere`"];
    refused(&config, "run config.toml --device flex --data-dir nowhere", &places);
    let dir = temporary();
    fs::write(dir.path().join("train-images-idx3-ubyte"), b"").expect("writes");
    let here = dir.path().display();
    let missing = ["it lacks train-labels-idx1-ubyte and t10k-images-idx3-ubyte and t10k-labels-idx1-ubyte of MNIST"];
    refused(&config, &format!("run config.toml --device flex --data-dir {here}"), &missing);
    let output = run(dir.path(), &config, "plan config.toml --device flex --data-dir nowhere");
    assert!(stderr(&output).contains("unexpected argument '--data-dir'"), "{}", stderr(&output));
    let output = run(dir.path(), &config, "plan config.toml --device flex");
    assert_eq!(output.status.code(), Some(0), "a plan needs no data: {}", stderr(&output));
}

#[test]
fn a_download_that_fails_says_so_and_leaves_nothing() {
    let dir = temporary();
    let output = run(dir.path(), SMALL, "fetch mnist --data-dir data --mirror http://127.0.0.1:1/");
    let text = stderr(&output);
    assert_eq!((output.status.code(), text.lines().count()), (Some(1), 1), "{text}");
    assert!(text.contains("http://127.0.0.1:1/train-images-idx3-ubyte.gz: "), "{text}");
    assert!(!dir.path().join("data").exists());
    for mirror in ["mirror", "http://", "https:///mnist", "http://host/?file="] {
        let expected = format!("--mirror {mirror}: it must be a URL");
        refused(SMALL, &format!("fetch mnist --data-dir data --mirror {mirror}"), &[&expected, "http://"]);
    }
    fs::write(dir.path().join("file"), b"").expect("writes");
    let output = run(dir.path(), SMALL, "fetch mnist --data-dir file --mirror http://127.0.0.1:1/");
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("file/mnist: the files cannot be written there"), "{}", stderr(&output));
    fs::create_dir_all(dir.path().join("data/mnist")).expect("makes");
    fs::write(dir.path().join("data/mnist/t10k-labels-idx1-ubyte"), b"mine").expect("writes");
    let output = run(dir.path(), SMALL, "fetch mnist --data-dir data --mirror http://127.0.0.1:1/");
    let text = stderr(&output);
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert!(text.contains("data/mnist/t10k-labels-idx1-ubyte: it ") && text.contains("--force"), "{text}");
}

const LENGTH: &str = "data.sequence_length = 20";
const PARITY: &str = "data.set = \"parity\"";
const TEXT: &str = "data.set = \"text\"";
const COPYING: &str = "data.set = \"copying\"";
const ADDING: [&str; 2] = ["data.set = \"adding\"", "training.loss = \"squared_error\""];

#[track_caller]
fn refused_recurrent(changes: &[&str], key: &str, expected: &[&str]) {
    refused_for(&[&RECURRENT[..], changes].concat(), key, expected);
}

#[test]
fn sequences_of_an_impossible_length_or_number_are_refused() {
    let length = "data.sequence_length";
    for set in [PARITY, TEXT, COPYING, "data.set = \"temporal_order\""] {
        let missing = ["must say how many time steps", "add `sequence_length = 100` under [data]"];
        refused_recurrent(&[set, "-data.sequence_length"], length, &missing);
        let mend = "set `data.sequence_length = 100`";
        refused_recurrent(&[set, "data.sequence_length = 0"], length, &["time steps", mend]);
        refused_recurrent(&[set, "data.sequence_length = 65537"], length, &["time steps", mend]);
    }
    refused_recurrent(&[ADDING[0], ADDING[1], "data.sequence_length = 1"], length, &["from 2 to 65536"]);
    let order = "data.set = \"temporal_order\"";
    refused_recurrent(&[order, "data.sequence_length = 9"], length, &["from 10 to 65536"]);
    refused_recurrent(&[TEXT, "data.sequence_length = 25353"], length, &["from 1 to 25352"]);
    let missing = ["how many time steps a recurrent network reads", "add `sequence_length = 100` under [data]"];
    let gaussian = [&RECURRENT[..], &[GAUSSIAN, "data.features = 65536", "-data.sequence_length"]].concat();
    refused_untrained(&gaussian, length, &missing);
    let long = [&gaussian[..], &["data.sequence_length = 500"]].concat();
    refused_untrained(
        &long,
        length,
        &["times `data.features` must be at most 31250000", "`data.sequence_length = 100`"],
    );

    let examples = "data.examples";
    let first = ["from 1 to the 11249 examples of the training split", "set `data.examples = 1000`"];
    refused_recurrent(&[TEXT, "data.examples = 11250"], examples, &first);
    let drawn = ["from 1 to 1000000 examples in an epoch", "set `data.examples = 1000`"];
    refused_recurrent(&[PARITY, "data.examples = 0"], examples, &drawn);
    let large = ["times the 65536 numbers in an input must be at most 1000000000", "set `data.examples = 1000`"];
    let parity = [PARITY, "data.sequence_length = 65536", "data.examples = 20000"];
    refused_recurrent(&parity, examples, &large);
}

#[test]
fn sequences_that_do_not_fit_the_network_or_the_loss_are_refused() {
    let kind = ["must be \"recurrent\"", "set `network.kind = \"recurrent\"` and `network.cell = \"lstm\"`"];
    refused_for(&[PARITY, LENGTH], "network.kind", &kind);
    refused_for(&[TEXT, LENGTH, RESIDUAL], "network.kind", &kind);
    let only = ["only with `network.kind = \"recurrent\"`", "remove it, or set `network.kind = \"recurrent\"`"];
    refused_for(&["data.reading = \"pixels\""], "data.reading", &only);
    refused_for(&["training.truncation = 5"], "training.truncation", &only);
    refused_untrained(&[GAUSSIAN, "data.features = 3", LENGTH], "data.sequence_length", &only);
    let single = ["data.set = \"single\"", "data.value = 0.5", "-data.sequence_length"];
    let sequences = ["must hold sequences", "set `data.set = \"adding\"` and `data.sequence_length = 100`"];
    refused_untrained(&[&RECURRENT[..], &single].concat(), "data.set", &sequences);
    let sets = "only with `data.set = \"text\"` or \"adding\" or \"copying\" or \"temporal_order\" or \"parity\"";
    refused_recurrent(&[], "data.sequence_length", &[sets, "remove it"]);
    refused_recurrent(&[PARITY, "data.reading = \"rows\""], "data.reading", &["only with `data.set = \"digits\"`"]);
    refused_recurrent(
        &[PARITY, "data.reading = \"columns\""],
        "data.reading",
        &["must be one of rows, pixels", "write"],
    );

    let loss = "training.loss";
    let number = ["must be \"squared_error\"", "add `loss = \"squared_error\"` under [training]"];
    refused_recurrent(&[ADDING[0]], loss, &number);
    refused_recurrent(&[ADDING[0], "training.loss = \"quadratic\""], loss, &number);
    let classes = ["must suit answers that are classes", "set `training.loss = \"softmax_cross_entropy\"`"];
    refused_recurrent(&[PARITY, ADDING[1]], loss, &classes);
    refused_for(&[ADDING[1]], loss, &classes);

    let (output, last, every) =
        ("network.output_steps", "network.output_steps = \"last\"", "network.output_steps = \"every\"");
    refused_recurrent(&[COPYING, last], output, &["must be \"every\"", "after every time step", "remove it"]);
    refused_recurrent(&[ADDING[0], ADDING[1], every], output, &["must be \"last\"", "after the last time step"]);
    let probe = [&RECURRENT[..], &[PARITY, every]].concat();
    refused_untrained(&probe, output, &["must be \"last\"", "a linear probe looks at it alone", "remove it"]);
    let truncation = ["must be at least 1 time step", "set `training.truncation = 20`"];
    refused_recurrent(&[PARITY, "training.truncation = 0"], "training.truncation", &truncation);
}

#[test]
fn recurrent_networks_whose_keys_make_no_sense_are_refused() {
    let refused = |changes: &[&str], key: &str, expected: &[&str]| {
        refused_recurrent(&[&[PARITY], changes].concat(), key, expected);
    };
    let only = ["only with `network.kind = \"recurrent\"`", "remove it"];
    for line in [
        "network.cell = \"rnn\"",
        "network.recurrent_init = \"identity\"",
        "network.recurrent_scale = 0.5",
        "network.forget_bias = 1.0",
        "network.update_bias = 1.0",
        "network.output_steps = \"last\"",
        "network.implementation = \"own\"",
    ] {
        refused_for(&[line], line.split(" = ").next().expect("a key"), &only);
    }
    let missing = ["must name the cell", "add `cell = \"lstm\"` under [network]"];
    refused(&["-network.cell"], "network.cell", &missing);
    refused(&["-network.width"], "network.width", &["how many units", "add `width = 64` under [network]"]);
    refused(&["network.depth = 17"], "network.depth", &["from 1 to 16 layers", "set `network.depth = 1`"]);
    let activation = "network.activation";
    refused(&["network.activation = \"relu\""], activation, &["LSTM or a GRU must be \"tanh\"", "set"]);
    let vanilla = ["vanilla RNN must be", "set `network.activation = \"tanh\"`"];
    refused(&["network.cell = \"rnn\"", "network.activation = \"gelu\""], activation, &vanilla);
    refused(&["network.norm = \"layer\""], "network.norm", &["must be \"none\"", "remove it"]);
    let (scale, zero) = ("network.recurrent_scale", "network.recurrent_init = \"zero\"");
    refused(&[zero, "network.recurrent_scale = 2.0"], scale, &["no meaning with `network.recurrent_init = \"zero\"`"]);
    refused(&["network.recurrent_scale = 0"], scale, &["finite number above 0", "set `network.recurrent_scale = 1.0`"]);
    let (forget, update) = ("network.forget_bias", "network.update_bias");
    refused(&["network.update_bias = 1.0"], update, &["only with `network.cell = \"gru\"`", "remove it"]);
    let gru = "network.cell = \"gru\"";
    refused(&[gru, "network.forget_bias = 1.0"], forget, &["only with `network.cell = \"lstm\"`", "remove it"]);
    let off = ["no meaning with `network.bias_init = \"off\"`", "set `network.bias_init = \"zero\"`"];
    refused(&["network.forget_bias = 1.0", "network.bias_init = \"off\""], forget, &off);
    refused(&["network.forget_bias = nan"], forget, &["must be a finite number", "set `network.forget_bias = 1.0`"]);
    refused(
        &["network.width = 65536"],
        "network.width",
        &["more than 2000000000 weights", "set a smaller width or depth"],
    );
}

#[test]
fn clipping_optimizers_and_penalties_with_missing_or_impossible_values_are_refused() {
    let (threshold, by_value) = ("training.clip_threshold", "training.clipping = \"value\"");
    for value in ["0", "-1.0", "nan", "inf"] {
        let line = format!("{threshold} = {value}");
        refused_for(&[by_value, &line], threshold, &["finite number above 0", "set `training.clip_threshold = 1.0`"]);
    }
    let mend = "add `clip_threshold = 1.0` under [training]";
    refused_for(&[by_value], threshold, &["must say where clipping starts", mend]);
    let without = ["no meaning with `training.clipping = \"none\"`", "set `training.clipping = \"global_norm\"`"];
    refused_for(&["training.clip_threshold = 1.0"], threshold, &without);
    let rate = ["must be given", "add `learning_rate = 0.1` under [training]"];
    refused_for(&["-training.learning_rate"], "training.learning_rate", &rate);
    let steps = ["-training.learning_rate", "-training.epochs", "training.steps = 5"];
    refused_for(&steps, "training.learning_rate", &rate);
    let (adam, adamw) = ("training.optimizer = \"adam\"", "training.optimizer = \"adamw\"");
    let decay = ["must be given", "add `weight_decay = 0.01` under [training]", "`training.optimizer = \"adam\"`"];
    refused_for(&[adamw], "training.weight_decay", &decay);
    let momentum = ["whose momentum is `training.beta_1`", "remove it"];
    refused_for(&[adam, "training.momentum = 0.9"], "training.momentum", &momentum);
    let beta = ["only with `training.optimizer = \"adam\"` or \"adamw\"", "remove it"];
    refused_for(&["training.beta_1 = 0.9"], "training.beta_1", &beta);
    for key in ["training.l1", "training.l2", "training.weight_decay"] {
        for value in ["-0.1", "nan"] {
            let line = format!("{key} = {value}");
            refused_for(&[&line], key, &["finite number of at least 0", &format!("set `{key} = 1e-4`")]);
        }
    }
}

#[test]
fn critics_whose_data_loss_or_constraint_do_not_go_together_are_refused() {
    const SPIRAL: &str = "data.set = \"swiss_roll\"";
    const CRITIC: [&str; 2] = [SPIRAL, "training.loss = \"wasserstein\""];
    let refused = |changes: &[&str], key, expected: &[&str]| refused_for(&[&CRITIC, changes].concat(), key, expected);
    let loss = ["must be \"wasserstein\" with real and generated points", "add `loss = \"wasserstein\"`"];
    refused_for(&[SPIRAL], "training.loss", &loss);
    refused_for(&["data.set = \"eight_gaussians\"", "training.loss = \"squared_error\""], "training.loss", &loss);
    let digits = ["no generated points", "set `data.set = \"swiss_roll\"`"];
    refused_for(&CRITIC[1..], "training.loss", &digits);
    refused_untrained(&[GAUSSIAN, "data.features = 4", CRITIC[1]], "training.loss", &digits);
    let even = ["must be even: half", "set `training.batch_size = 32`"];
    refused(&["training.batch_size = 33"], "training.batch_size", &even);
    refused(&["data.examples = 99"], "data.examples", &["must be even: half", "set `data.examples = 10000`"]);
    refused(&["data.sequence_length = 9"], "data.sequence_length", &["only with `data.set = "]);
    let recurrent = ["network.kind = \"recurrent\"", "network.cell = \"rnn\"", "network.depth = 1"];
    refused(&recurrent, "data.set", &["must hold sequences"]);
    refused(&[CONVOLUTIONAL, "network.depth = 8"], "data.set", &["must hold images"]);
    for value in ["0", "-0.1", "nan", "inf"] {
        for (key, example) in [("training.weight_clipping", "0.01"), ("training.gradient_penalty", "0.1")] {
            let line = format!("{key} = {value}");
            refused(&[&line], key, &["finite number above 0", &format!("set `{key} = {example}`")]);
        }
    }
    let penalty = "training.gradient_penalty = 0.1";
    let key = "training.gradient_penalty";
    refused_for(&[penalty], key, &["only with `training.loss = \"wasserstein\"`", "remove it"]);
    refused(&[penalty, RESIDUAL], key, &["only with `network.kind = \"plain\"`", "remove it"]);
    let norm = ["must be \"none\"", "set `training.weight_clipping = 0.01` in place"];
    refused(&[penalty, "network.norm = \"layer\""], "network.norm", &norm);
    for activation in ["gelu", "maxout"] {
        let line = format!("network.activation = \"{activation}\"");
        let expected = ["no derivative here that can be differentiated", "set `network.activation = \"relu\"`"];
        refused(&[penalty, &line], "network.activation", &expected);
    }
}

#[test]
fn what_does_not_go_together_on_the_command_line_is_blamed_on_it() {
    let config = KEYS.join("\n");
    let run = "run config.toml --device flex";
    let expected = ["--set network.pieces=1: `network.pieces` must be from 2 to 16", "got 1; set"];
    refused(&config, &format!("{run} --set network.activation=maxout --set network.pieces=1"), &expected);
    let expected = ["--set training.clip_threshold=-2: `training.clip_threshold`", "got -2; set"];
    refused(&config, &format!("{run} --set training.clipping=value --set training.clip_threshold=-2"), &expected);
}

/// What `plan` prints.
fn planned(config: &str, arguments: &str) -> String {
    let output = run(temporary().path(), config, arguments);
    assert_eq!(output.status.code(), Some(0), "{arguments}: {}", stderr(&output));
    stdout(&output)
}

#[test]
fn sweeps_that_contradict_themselves_are_refused() {
    let run = "run config.toml --device flex";
    let with = |cases: &str| format!("{SMALL}{cases}");
    let case = "[[sweep.cases]]\nname = \"a\"\nnetwork.activation = \"tanh\"\n";
    refused(&with(case), run, &["config.toml:17: `sweep.network.activation` is swept and set by the case `a` too"]);
    let twins = "[[sweep.cases]]\nname = \"a\"\nnetwork.width = 9\n[[sweep.cases]]\nname = \"b\"\nnetwork.width = 9\n";
    refused(&with(twins), run, &["a, sigmoid and b, sigmoid are the same run"]);
    refused(&with("[[sweep.cases]]\n"), run, &["config.toml:18: `sweep.cases` must be tables with a `name`"]);
    // A key of a case is the case's; the mend that the error names replaces all cases.
    let cases = with("[[sweep.cases]]\nname = \"a\"\nnetwork.width = 9\n");
    let expected =
        ["--set network.width=4: the key is set by [[sweep.cases]]", "edit the cases, or replace all of them"];
    refused(&cases, &format!("{run} --set network.width=4"), &expected);
    let replaced = "plan config.toml --device flex --set sweep.cases=[{name=\"b\",network.width=4}]";
    let output = planned(&cases, replaced);
    assert!(output.contains(" b ") && !output.contains(" a "), "{output}");
    refused(&format!("\"network.depth\" = 4\n{SMALL}"), run, &["`network.depth` is written twice"]);
    refused(SMALL, "run config.toml --device flex --set network={depth=4}", &["the value is a section"]);
    refused(
        SMALL,
        "run config.toml --device flex --set network=3",
        &["--set network=3: `network` must be a section, got 3"],
    );
    refused(
        SMALL,
        "run config.toml --device flex --set network.depth.x=3",
        &["--set network.depth.x=3: `network.depth.x`", "has no keys"],
    );
    refused(
        SMALL,
        "run config.toml --device flex --set training.epochs=4611686018427387904",
        &["`training.epochs` must be at most"],
    );
    refused(
        SMALL,
        "run config.toml --device flex --set network.depth=1000 --set network.width=65536",
        &["more than 2000000000 weights"],
    );
}

#[test]
fn a_config_that_is_not_utf8_is_refused() {
    let dir = temporary();
    fs::write(dir.path().join("latin1.toml"), b"[experiment]\nname = \"caf\xe9\"\n").expect("writes");
    let output = gradmark(dir.path()).args(["run", "latin1.toml"]).output().expect("the binary starts");
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("not UTF-8 from byte 24 on; save it as UTF-8"), "{}", stderr(&output));
}

#[test]
fn devices_that_are_unknown_absent_or_not_compiled_in_are_refused() {
    refused(SMALL, "run config.toml --device gpu", &["--device gpu: no such device; write auto"]);
    refused(SMALL, "run config.toml --device flex:1", &["--device flex:1: there is no such adapter", "0 to 0"]);
    if !cfg!(feature = "cuda") {
        refused(SMALL, "run config.toml --device cuda", &["this build has no cuda backend", "--features cuda"]);
    }
}

#[test]
fn directories_that_cannot_be_written_are_refused() {
    refused(
        SMALL,
        "run config.toml --device flex --out config.toml/results",
        &["config.toml/results/small: cannot be made", "--out"],
    );
    let dir = temporary();
    let output = run(dir.path(), SMALL, "report nowhere");
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("nowhere: cannot be read"), "{}", stderr(&output));
    let output = run(dir.path(), SMALL, "report .");
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("there is no complete run in it"), "{}", stderr(&output));
}

#[test]
fn results_of_another_schema_version_are_refused_and_left_as_they_are() {
    let dir = temporary();
    run(dir.path(), SMALL, "run config.toml --device flex");
    let manifest = runs(&dir.path().join("results"))[0].join("manifest.json");
    let text = fs::read_to_string(&manifest).expect("reads").replace("\"schema_version\": 5", "\"schema_version\": 99");
    fs::write(&manifest, &text).expect("writes");
    for command in ["run config.toml --device flex --force", "report results/small"] {
        let output = run(dir.path(), SMALL, command);
        assert_eq!(output.status.code(), Some(2), "{command}");
        let error = stderr(&output);
        assert!(error.contains("manifest.json: has schema version 99") && error.contains("version 5"), "{error}");
    }
    assert_eq!(fs::read_to_string(&manifest).expect("reads"), text);
    assert_eq!(runs(&dir.path().join("results")).len(), 2);
}

#[test]
fn a_damaged_table_is_named_and_refused() {
    let dir = temporary();
    run(dir.path(), SMALL, "run config.toml --device flex");
    let table = runs(&dir.path().join("results"))[0].join("steps.csv");
    let text = fs::read_to_string(&table).expect("reads");
    fs::write(&table, &text[..text.len() - 30]).expect("writes");
    let output = run(dir.path(), SMALL, "report results/small");
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("steps.csv: is not a table that gradmark wrote"), "{}", stderr(&output));
    for (damaged, expected) in [
        (text.replacen(",loss,", ",cost,", 1), "steps.csv: has other columns"),
        (text.lines().take(5).map(|line| format!("{line}\n")).collect(), "steps.csv: has 4 rows, and"),
    ] {
        fs::write(&table, damaged).expect("writes");
        let error = stderr(&run(dir.path(), SMALL, "report results/small"));
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn runs_of_different_configs_are_not_taken_for_seeds_of_one() {
    let dir = temporary();
    run(dir.path(), SMALL, "run config.toml --device flex");
    let other = run(dir.path(), SMALL, "run config.toml --device flex --set training.learning_rate=0.2");
    assert!(stderr(&other).contains("2 runs of other configs or devices"), "{}", stderr(&other));
    let report = stdout(&run(dir.path(), SMALL, "report results/small"));
    assert!(report.contains("learning_rate") && report.contains("0.2") && report.contains("4 runs"), "{report}");
}

#[test]
fn what_a_killed_report_left_does_not_stop_the_next_run() {
    let dir = temporary();
    run(dir.path(), SMALL, "run config.toml --device flex");
    let left = dir.path().join("results/small/.tmp-summary.csv");
    fs::write(&left, "run_id").expect("writes");
    let output = run(dir.path(), SMALL, "run config.toml --device flex");
    assert_eq!((output.status.code(), left.exists()), (Some(0), false), "{}", stderr(&output));
}

/// A limit on the size of files stands for the full disk: both make a write fail half-way.
#[cfg(unix)]
#[test]
fn a_full_disk_is_exit_code_1_and_loses_no_complete_run() {
    let dir = temporary();
    let first = run(dir.path(), SMALL, "run config.toml --device flex --set network.activation=relu");
    assert_eq!(first.status.code(), Some(0));
    let before = runs(&dir.path().join("results"));
    let binary = env!("CARGO_BIN_EXE_gradmark");
    let command = format!("trap '' XFSZ; ulimit -f 4; exec '{binary}' run config.toml --device flex");
    let output = std::process::Command::new("sh").args(["-c", &command]).current_dir(dir.path()).output().expect("sh");
    let error = stderr(&output);
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(error.contains("cannot be written: File too large") && error.contains("complete runs are kept"), "{error}");
    assert_eq!(runs(&dir.path().join("results")), before);
    assert!(leftovers(&dir.path().join("results")).is_empty());
    let again = run(dir.path(), SMALL, "run config.toml --device flex");
    assert_eq!((again.status.code(), runs(&dir.path().join("results")).len()), (Some(0), 2));
}

#[test]
fn a_run_that_was_made_before_the_sweep_grew_keeps_its_place_in_the_table() {
    let dir = temporary();
    run(dir.path(), SMALL, "run config.toml --device flex --set network.activation=relu");
    for command in ["run config.toml --device flex", "report results/small"] {
        let output = run(dir.path(), SMALL, command);
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        let summary = fs::read_to_string(dir.path().join("results/small/summary.csv")).expect("reads");
        let mut levels: Vec<&str> = summary.lines().skip(1).filter_map(|line| line.split(',').nth(2)).collect();
        levels.sort_unstable();
        assert_eq!(levels, ["relu", "sigmoid"], "{command}");
    }
}

/// Two runs of which the second takes minutes: started, waited for until the first is complete, then ended by `signal`.
#[cfg(unix)]
fn end_in_the_second_run(signal: &str) -> (tempfile::TempDir, std::process::ExitStatus, String) {
    let dir = temporary();
    let config = SMALL
        .replace("epochs = 2", "steps = 20")
        .replace("network.activation = [\"sigmoid\", \"relu\"]", "training.steps = [20, 10000000]")
        .replace("steps = 20\n[thr", "momentum = 0.5\n[thr")
        .replace("[network]", "[network]\nactivation = \"relu\"");
    fs::write(dir.path().join("config.toml"), config).expect("writes");
    let mut child = gradmark(dir.path())
        .args(["run", "config.toml", "--device", "flex"])
        .stderr(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .expect("the binary starts");
    let mut lines = BufReader::new(child.stderr.take().expect("piped")).lines();
    let mut said = String::new();
    for line in lines.by_ref() {
        let line = line.expect("text");
        said.push_str(&line);
        if line.contains("[1/2]") {
            break;
        }
    }
    assert!(said.contains("[1/2]"), "{said}");
    // The second run is at its files as soon as its temporary directory is there.
    let experiment = dir.path().join("results");
    for _ in 0..500 {
        if !leftovers(&experiment).is_empty() {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    assert!(!leftovers(&experiment).is_empty());
    let kill = std::process::Command::new("kill").args([signal, &child.id().to_string()]).status().expect("kill");
    assert!(kill.success());
    for line in lines {
        said.push_str(&line.expect("text"));
    }
    let status = child.wait().expect("ends");
    (dir, status, said)
}

#[cfg(unix)]
#[test]
fn ctrl_c_stops_after_the_step_and_keeps_complete_runs() {
    let (dir, status, said) = end_in_the_second_run("-INT");
    assert_eq!(status.code(), Some(130), "{said}");
    assert!(said.contains("stopped: 1 of 2 runs are complete; the same command continues"), "{said}");
    let out = dir.path().join("results");
    assert_eq!((runs(&out).len(), leftovers(&out).len()), (1, 0));
    assert!(out.join("small/summary.csv").exists());
}

#[cfg(unix)]
#[test]
fn a_killed_run_leaves_nothing_under_its_final_name_and_the_next_command_tidies_up() {
    let (dir, _, _) = end_in_the_second_run("-KILL");
    let out = dir.path().join("results");
    assert_eq!((runs(&out).len(), leftovers(&out).len()), (1, 1));
    let again = gradmark(dir.path())
        .args(["run", "config.toml", "--device", "flex", "--set", "training.steps=20"])
        .output()
        .expect("the binary starts");
    assert_eq!(again.status.code(), Some(0), "{}", stderr(&again));
    assert!(leftovers(&out).is_empty());
}

#[test]
fn a_pipe_that_closes_early_is_no_error() {
    let dir = temporary();
    let mut child = gradmark(dir.path()).arg("devices").stdout(Stdio::piped()).spawn().expect("the binary starts");
    drop(child.stdout.take());
    assert_eq!(child.wait().expect("ends").code(), Some(0));

    fs::write(dir.path().join("config.toml"), SMALL).expect("writes");
    let mut command = gradmark(dir.path());
    let mut child = command
        .args(["run", "config.toml", "--device", "flex"])
        .stderr(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .expect("starts");
    drop(child.stderr.take());
    assert_eq!(child.wait().expect("ends").code(), Some(0));
}

#[test]
fn pretraining_that_does_not_fit_the_network_or_the_data_is_refused() {
    const METHOD: &str = "training.pretraining.method = \"autoencoder\"";
    const RBM: &str = "training.pretraining.method = \"rbm\"";
    const REST: [&str; 2] = ["training.pretraining.epochs = 2", "training.pretraining.learning_rate = 0.1"];
    let sigmoid = "network.activation = \"sigmoid\"";
    let refused = |changes: &[&str], key: &str, expected: &[&str]| {
        let given =
            |name: &str| changes.iter().any(|change| change.starts_with(&format!("training.pretraining.{name} ")));
        let mut all = changes.to_vec();
        all.extend(
            REST.iter().filter(|line| !given(line["training.pretraining.".len()..].split(' ').next().unwrap_or(""))),
        );
        refused_for(&all, key, expected);
    };
    let key = |name: &str| format!("training.pretraining.{name}");
    refused(
        &[METHOD, RESIDUAL],
        &key("method"),
        &["only with `network.kind = \"plain\"` or \"autoencoder\"", "remove"],
    );
    refused(&[METHOD, "network.norm = \"batch\""], "network.norm", &["must be \"none\" with", "remove"]);
    refused(&[METHOD, "network.activation = \"maxout\""], "network.activation", &["no decoder", "set"]);
    refused(&[RBM], "network.activation", &["must be \"sigmoid\" with", "set"]);
    refused(&[RBM, sigmoid, "network.bias_init = \"off\""], "network.bias_init", &["learns biases", "remove"]);
    refused(&[METHOD, "training.pretraining.cd_steps = 2"], &key("cd_steps"), &["only with", "\"rbm\"", "remove"]);
    refused(&[RBM, sigmoid, "training.pretraining.noise = 0.1"], &key("noise"), &["only with", "\"autoencoder\""]);
    refused(&[METHOD, "training.pretraining.noise = 1.0"], &key("noise"), &["below 1", "set"]);
    refused(&[RBM, sigmoid, "training.pretraining.cd_steps = 0"], &key("cd_steps"), &["from 1 to 1000", "set"]);
    refused(&[METHOD, "training.pretraining.epochs = 1000001"], &key("epochs"), &["at most 1000000", "set"]);
    refused(&[METHOD, "training.pretraining.learning_rate = 0"], &key("learning_rate"), &["above 0", "set"]);
    refused(&[METHOD, "training.pretraining.momentum = 1"], &key("momentum"), &["below 1", "set"]);
    refused(&[METHOD, "training.pretraining.l2 = -1"], &key("l2"), &["at least 0", "set"]);
    refused(&[METHOD, "training.pretraining.batch_size = 2000"], &key("batch_size"), &["1437", "set"]);
    refused(&[METHOD, "training.pretraining.code_learning_rate = 0.1"], &key("code_learning_rate"), &["autoencoder"]);
    let crossed = "training.pretraining.reconstruction = \"cross_entropy\"";
    refused(&[METHOD, crossed], &key("reconstruction"), &["inputs between 0 and 1", "squared_error"]);
    let standard = "data.normalization = \"standard\"";
    refused(&[METHOD, sigmoid, crossed, standard], &key("reconstruction"), &["inputs between 0 and 1", "unit"]);
    let binary = "training.pretraining.visible = \"binary\"";
    refused(&[RBM, sigmoid, binary, standard], &key("visible"), &["inputs between 0 and 1", "gaussian"]);
    refused(&[METHOD, "training.start_from = \"x\""], "training.start_from", &["stands beside", "remove one"]);
}

#[test]
fn autoencoders_whose_layers_or_costs_do_not_fit_are_refused() {
    const AUTOENCODER: &str = "network.kind = \"autoencoder\"";
    const CROSS_ENTROPY: &str = "training.loss = \"sigmoid_cross_entropy\"";
    let base = [AUTOENCODER, CROSS_ENTROPY, "-network.width"];
    let refused = |changes: &[&str], key: &str, expected: &[&str]| {
        refused_for(&[&base[..], changes].concat(), key, expected);
    };
    refused(&["network.width = 8"], "network.depth", &["must be odd", "set"]);
    refused(&["network.depth = 3", "network.widths = [8]"], "network.widths", &["2 numbers", "network.depth = 1"]);
    refused(&["network.depth = 3", "network.widths = [8, 0]"], "network.widths", &["from 1 to 65536", "set"]);
    refused(
        &["network.depth = 3", "network.widths = [8, 4]", "network.width = 3"],
        "network.widths",
        &["stands beside"],
    );
    let good = ["network.depth = 3", "network.widths = [8, 4]"];
    refused(
        &[&good[..], &["training.loss = \"softmax_cross_entropy\""]].concat(),
        "training.loss",
        &["autoencoder", "set"],
    );
    refused(&[&good[..], &["data.normalization = \"standard\""]].concat(), "training.loss", &["squared_error"]);
    refused(&[&good[..], &[GAUSSIAN, "data.features = 8"]].concat(), "data.set", &["images", "digits"]);
    refused(&[&good[..], &["network.activation = \"maxout\""]].concat(), "network.activation", &["code layer"]);
    let method = "training.pretraining.method = \"autoencoder\"";
    let pretrained = [method, "training.pretraining.epochs = 2", "training.pretraining.learning_rate = 0.1"];
    let pretrained = [&good[..], &pretrained].concat();
    refused(&pretrained, "network.activation", &["must be \"sigmoid\" in an autoencoder that is pretrained"]);
    let pretrained = [&pretrained[..], &["network.activation = \"sigmoid\""]].concat();
    refused(
        &[&pretrained[..], &["training.loss = \"squared_error\""]].concat(),
        "training.loss",
        &["sigmoids for outputs"],
    );
    let linear = "training.pretraining.reconstruction = \"squared_error\"";
    refused(
        &[&pretrained[..], &[linear]].concat(),
        "training.pretraining.reconstruction",
        &["must be \"cross_entropy\""],
    );
    refused_for(
        &[RESIDUAL, "network.widths = [8, 4, 2, 1]", "-network.width"],
        "network.widths",
        &["only with", "plain"],
    );
}

#[test]
fn verify_lists_its_cases_with_what_they_show() {
    let dir = temporary();
    let output = run(dir.path(), "", "verify --list");
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let list = stdout(&output);
    for case in gradmark::verify::CASES {
        assert!(list.contains(case.name) && list.contains(case.about), "{}: {list}", case.name);
    }
}

#[test]
fn a_case_that_verify_does_not_know_is_met_with_the_one_that_was_meant() {
    let dir = temporary();
    let output = run(dir.path(), "", "verify --device flex --case mean_feild");
    assert_eq!(output.status.code(), Some(2));
    let error = stderr(&output);
    for text in ["--case mean_feild", "did you mean `mean_field`?", "`gradmark verify --list`"] {
        assert!(error.contains(text), "{text}: {error}");
    }
    assert_eq!(stdout(&output), "");
}

#[test]
fn verify_prints_findings_as_a_table_and_as_json() {
    let dir = temporary();
    let output = run(dir.path(), "", "verify --device flex --case gru_through_time --case clipping");
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let table = stdout(&output);
    // In the order of the list, whatever that of the arguments.
    let places = ["clipping", "gru_through_time"].map(|case| table.find(case));
    assert!(places[1] < places[0], "{table}");
    for text in ["expected", "tolerance", "0.001753", "pass", "flex: 8 pass"] {
        assert!(table.contains(text), "{text}: {table}");
    }
    assert!(stderr(&output).contains("[2/2] clipping: 6 pass"), "{}", stderr(&output));

    let output = run(dir.path(), "", "verify --device flex --case gru_through_time --json --quiet");
    assert_eq!((output.status.code(), stderr(&output).as_str()), (Some(0), ""));
    let findings: serde_json::Value = serde_json::from_str(&stdout(&output)).expect("JSON");
    let findings = findings.as_array().expect("an array");
    assert_eq!(findings.len(), 2);
    let first = &findings[0];
    let field = |name: &str| first[name].as_str().unwrap_or_default().to_owned();
    assert_eq!(
        (field("case"), field("verdict"), field("device")),
        ("gru_through_time".into(), "pass".into(), "flex".into())
    );
    assert!(
        field("quantity").contains("update bias 2") && !field("source").is_empty() && !field("tolerance").is_empty()
    );
    assert_eq!(
        (&first["is_software_adapter"], &first["reason"], &first["against"]),
        (&false.into(), &().into(), &().into())
    );
    let number = |name: &str| first[name].as_f64().expect(name);
    assert_eq!(number("expected"), 1.7530e-3);
    assert!(number("low") < number("measured") && number("measured") < number("high"), "{first}");
}

#[test]
fn a_case_without_its_files_is_skipped_and_alone_it_verifies_nothing() {
    let dir = temporary();
    let output = run(dir.path(), "", "verify --device flex --case nielsen_accuracy --data-dir .");
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
    let table = stdout(&output);
    assert!(table.contains("skipped: MNIST") && table.contains("gradmark fetch mnist"), "{table}");
    assert!(table.contains("flex: 1 skipped"), "{table}");
}

#[test]
fn a_device_is_compared_with_one_that_is_in_the_build() {
    let dir = temporary();
    let absent = ["cuda", "ndarray", "wgpu"].into_iter().find(|name| !gradmark::device::compiled_in().contains(name));
    if let Some(absent) = absent {
        let output = run(dir.path(), "", &format!("verify --device flex --against {absent}"));
        assert_eq!(output.status.code(), Some(2));
        assert!(stderr(&output).contains(&format!("--against {absent}: this build has no")), "{}", stderr(&output));
    }
    // Where no hardware GPU is at hand --device takes the CPU, and a comparison with it could not fail.
    if gradmark::device::find("auto".parse().expect("a name")).expect("the CPU").label() == "flex" {
        let output = run(dir.path(), "", "verify --against flex");
        assert_eq!(output.status.code(), Some(2));
        assert!(stderr(&output).contains("--against flex: --device auto takes flex too"), "{}", stderr(&output));
    }
    let output = run(dir.path(), "", "verify --device flex --against flex --json");
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let findings: serde_json::Value = serde_json::from_str(&stdout(&output)).expect("JSON");
    for finding in findings.as_array().expect("an array") {
        assert_eq!((&finding["against"], &finding["measured"]), (&"flex".into(), &0.0.into()), "{finding}");
    }
}
