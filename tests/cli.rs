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
        for file in ["gradients.csv", "activations.csv", "steps.csv", "throughput.csv", "manifest.json"] {
            assert!(run.join(file).metadata().is_ok_and(|file| file.len() > 100), "{}", run.join(file).display());
        }
        let manifest: serde_json::Value =
            serde_json::from_str(&fs::read_to_string(run.join("manifest.json")).expect("reads")).expect("JSON");
        assert_eq!(manifest["status"], "complete");
        assert_eq!(manifest["schema_version"], 2);
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

#[test]
fn sweeps_that_contradict_themselves_are_refused() {
    let run = "run config.toml --device flex";
    let with = |cases: &str| format!("{SMALL}{cases}");
    let case = "[[sweep.cases]]\nname = \"a\"\nnetwork.activation = \"tanh\"\n";
    refused(&with(case), run, &["config.toml:17: `sweep.network.activation` is swept and set by the case `a` too"]);
    let twins = "[[sweep.cases]]\nname = \"a\"\nnetwork.width = 9\n[[sweep.cases]]\nname = \"b\"\nnetwork.width = 9\n";
    refused(&with(twins), run, &["a, sigmoid and b, sigmoid are the same run"]);
    refused(&with("[[sweep.cases]]\n"), run, &["config.toml:18: `sweep.cases` must be tables with a `name`"]);
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
    let text = fs::read_to_string(&manifest).expect("reads").replace("\"schema_version\": 2", "\"schema_version\": 99");
    fs::write(&manifest, &text).expect("writes");
    for command in ["run config.toml --device flex --force", "report results/small"] {
        let output = run(dir.path(), SMALL, command);
        assert_eq!(output.status.code(), Some(2), "{command}");
        let error = stderr(&output);
        assert!(error.contains("manifest.json: has schema version 99") && error.contains("version 2"), "{error}");
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
        .replace("epochs = 1", "steps = 20")
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
