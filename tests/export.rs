//! `gradmark export` and `gradmark compare` as a user meets them, on small real runs and on what criterion really
//! writes.

#![cfg(feature = "flex")]

mod common;

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use common::{SMALL, run, stderr, stdout};
use criterion::{BenchmarkId, Criterion, Throughput};
use serde_json::Value;

fn temporary() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary directory")
}

/// Runs a command line that must succeed.
#[track_caller]
fn succeed(dir: &Path, arguments: &str) -> std::process::Output {
    let output = run(dir, SMALL, arguments);
    assert_eq!(output.status.code(), Some(0), "{arguments}: {}", stderr(&output));
    output
}

/// Two configurations with two seeds each, in `results/small`.
fn two_seeds() -> tempfile::TempDir {
    let dir = temporary();
    succeed(dir.path(), "run config.toml --device flex --quiet --set experiment.seeds=2");
    dir
}

/// Runs a faulty command and checks for its exit code and one line of error.
#[track_caller]
fn refused(dir: &Path, arguments: &str, code: i32, expected: &[&str]) {
    let output = run(dir, SMALL, arguments);
    let text = stderr(&output);
    assert_eq!(output.status.code(), Some(code), "{arguments}: {text}");
    assert_eq!(text.lines().count(), 1, "{text}");
    for part in expected {
        assert!(text.contains(part), "{text}\n  lacks: {part}");
    }
}

/// The rows of a table by the names of its columns.
fn table(text: &str) -> Vec<HashMap<String, String>> {
    let mut reader = csv::Reader::from_reader(text.as_bytes());
    reader.deserialize().collect::<Result<_, _>>().expect("a table")
}

fn read_table(path: &Path) -> Vec<HashMap<String, String>> {
    table(&fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display())))
}

fn number(row: &HashMap<String, String>, column: &str) -> f64 {
    row[column].parse().unwrap_or_else(|_| panic!("{column} is {:?}", row[column]))
}

fn run_directories(experiment: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(experiment).expect("an experiment").map(|entry| entry.expect("an entry").path());
    let mut found: Vec<PathBuf> = entries.filter(|path| path.join("manifest.json").exists()).collect();
    found.sort();
    found
}

fn manifest(run: &Path) -> Value {
    serde_json::from_str(&fs::read_to_string(run.join("manifest.json")).expect("reads")).expect("JSON")
}

#[test]
fn csv_has_the_medians_of_the_summary_for_every_configuration() {
    let dir = two_seeds();
    let rows = table(&stdout(&succeed(dir.path(), "export results/small --format csv")));
    let summary = read_table(&dir.path().join("results/small/summary.csv"));
    assert_eq!(rows.len(), 2);
    for row in &rows {
        assert_eq!((row["seeds"].as_str(), row["diverged"].as_str()), ("2", "0"));
        for (column, name) in [
            ("test_accuracy", "test-accuracy"),
            ("gradient_ratio_first", "gradient-ratio-first"),
            ("step_time_ms_p50", "step-time-ms"),
        ] {
            let values: Vec<f64> = summary
                .iter()
                .filter(|run| run["network.activation"] == row["activation"])
                .map(|run| number(run, column))
                .collect();
            let [a, b] = values[..] else { panic!("two seeds") };
            let statistic = |statistic: &str| number(row, &format!("{name}-{statistic}"));
            assert!((statistic("median") / f64::midpoint(a, b) - 1.0).abs() < 1e-12, "{column}");
            // Two seeds are the ends of what can be drawn from them.
            assert_eq!((statistic("low"), statistic("high")), (a.min(b), a.max(b)), "{column}");
        }
    }
    // One seed has no interval, but for the times, of which it has several samples.
    succeed(dir.path(), "run config.toml --device flex --quiet --out single");
    let rows = table(&stdout(&succeed(dir.path(), "export single/small --format csv")));
    for row in &rows {
        assert!(row["test-accuracy-low"].is_empty() && !row["test-accuracy-median"].is_empty(), "{row:?}");
        assert!(number(row, "step-time-ms-low") < number(row, "step-time-ms-high"), "{row:?}");
    }
}

#[test]
fn latex_is_written_to_a_file_and_every_line_has_as_many_cells() {
    let dir = two_seeds();
    let output = succeed(dir.path(), "export results/small --format latex --out paper/table.tex");
    assert_eq!(stdout(&output), "");
    let text = fs::read_to_string(dir.path().join("paper/table.tex")).expect("written");
    let lines: Vec<&str> = text.lines().filter(|line| line.ends_with("\\\\")).collect();
    assert_eq!(lines.len(), 3);
    assert!(lines[0].starts_with("activation & seeds & train loss & test accuracy (\\%) &"), "{}", lines[0]);
    let cells = lines[0].matches(" & ").count();
    assert!(lines.iter().all(|line| line.matches(" & ").count() == cells), "{text}");
    assert!(text.contains(&format!("\\begin{{tabular}}{{l{}}}", "r".repeat(cells))), "{text}");
    assert!(lines[1].starts_with("sigmoid & 2 & $") && lines[2].starts_with("relu & 2 & $"), "{text}");
}

#[test]
fn json_formats_name_configurations_by_their_factors_and_parse() {
    let dir = two_seeds();
    let bmf = succeed(dir.path(), "export results/small --format bmf");
    let found: Value = serde_json::from_slice(&bmf.stdout).expect("JSON");
    let measures = &found["small/activation=relu"];
    for measure in ["latency", "throughput", "test-accuracy", "train-loss", "gradient-ratio-first"] {
        let value = |key: &str| measures[measure][key].as_f64().unwrap_or_else(|| panic!("{measure} {key}"));
        assert!(value("lower_value") <= value("value") && value("value") <= value("upper_value"), "{measure}");
    }
    let github = succeed(dir.path(), "export results/small --format github");
    assert!(stderr(&github).contains("`tool: customSmallerIsBetter`"), "{}", stderr(&github));
    let entries: Value = serde_json::from_slice(&github.stdout).expect("JSON");
    assert_eq!(entries.as_array().map(Vec::len), Some(2));
    assert_eq!(entries[1]["name"], "small/activation=relu step_time_ms");
    assert_eq!(entries[1]["unit"], "ms");
    // The same time in milliseconds and in nanoseconds.
    let (ms, ns) = (entries[1]["value"].as_f64(), measures["latency"]["value"].as_f64());
    assert!((ms.expect("a number") * 1e6 / ns.expect("a number") - 1.0).abs() < 1e-9);
    let bigger = succeed(dir.path(), "export results/small --format github --quantity examples_per_second");
    assert!(stderr(&bigger).contains("`tool: customBiggerIsBetter`"), "{}", stderr(&bigger));
}

#[test]
fn criterion_table_has_a_message_a_configuration_with_all_samples() {
    let dir = two_seeds();
    let text = stdout(&succeed(dir.path(), "export results/small --format criterion-table"));
    let messages: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let ids: Vec<&str> = messages.iter().filter_map(|message| message["id"].as_str()).collect();
    assert_eq!(ids, ["small/sigmoid/", "small/relu/"]);
    for message in &messages {
        assert_eq!(message["reason"], "benchmark-complete");
        // Two samples of each of the two seeds.
        assert_eq!(message["measured_values"].as_array().map(Vec::len), Some(4));
        assert_eq!(message["iteration_count"].as_array().map(Vec::len), Some(4));
        assert_eq!(message["throughput"][0]["per_iteration"], 64);
    }
}

/// What criterion itself leaves of three benchmarks, in `criterion`.
fn criterion_results(dir: &Path) {
    let mut criterion = Criterion::default()
        .output_directory(&dir.join("criterion"))
        .without_plots()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(5))
        .measurement_time(Duration::from_millis(20));
    let mut group = criterion.benchmark_group("sum/test");
    group.throughput(Throughput::Elements(100));
    let sum = |count: u64| (0..count).fold(0, |sum: u64, number| std::hint::black_box(sum + number));
    group.bench_function("plain/100", |bencher| bencher.iter(|| sum(100)));
    group.bench_with_input(BenchmarkId::new("given", 20), &20, |bencher, count| bencher.iter(|| sum(*count)));
    group.finish();
    criterion.bench_function("alone", |bencher| bencher.iter(|| sum(10)));
}

#[test]
fn what_criterion_wrote_is_exported_in_every_format() {
    let dir = temporary();
    criterion_results(dir.path());
    let export =
        |format: &str| stdout(&succeed(dir.path(), &format!("export criterion --criterion --format {format}")));

    let estimates: Value = serde_json::from_str(
        &fs::read_to_string(dir.path().join("criterion/sum_test/plain_100/new/estimates.json")).expect("written"),
    )
    .expect("JSON");
    let median = |key: &str| estimates["median"][key].as_f64();
    let bound = |key: &str| estimates["median"]["confidence_interval"][key].as_f64();

    let rows = table(&export("csv"));
    let functions: Vec<&str> = rows.iter().map(|row| row["function"].as_str()).collect();
    assert_eq!(functions, ["", "given", "plain/100"]);
    assert_eq!((rows[1]["group"].as_str(), rows[1]["value"].as_str()), ("sum/test", "20"));
    assert_eq!(Some(number(&rows[2], "time-ns-median")), median("point_estimate"));
    assert_eq!(Some(number(&rows[2], "time-ns-low")), bound("lower_bound"));
    assert_eq!(Some(number(&rows[2], "time-ns-high")), bound("upper_bound"));
    assert_eq!(rows[2]["samples"], "10");

    let bmf: Value = serde_json::from_str(&export("bmf")).expect("JSON");
    assert_eq!(bmf["sum/test/plain/100"]["latency"]["value"].as_f64(), median("point_estimate"));
    let speed = bmf["sum/test/plain/100"]["throughput"]["value"].as_f64().expect("elements were given");
    assert!((speed * median("point_estimate").expect("a time") / 1e9 - 100.0).abs() < 1e-6);
    assert!(bmf["alone"]["throughput"].is_null());

    let entries: Value = serde_json::from_str(&export("github")).expect("JSON");
    assert_eq!(entries[2]["name"], "sum/test/plain/100 time_ns");
    assert_eq!(entries[2]["unit"], "ns");

    let latex = export("latex");
    assert!(latex.contains("sum/test & plain/100 &  & 10 & $"), "{latex}");

    let text = export("criterion-table");
    let ids: Vec<Value> =
        text.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON")["id"].take()).collect();
    assert_eq!(ids, ["benchmarks/time/alone", "sum_test/given/20", "sum_test/plain/100"]);
}

#[test]
fn export_refuses_bad_input_with_one_line_that_says_what_to_do() {
    let dir = temporary();
    let at = dir.path();
    refused(at, "export absent --format csv", 2, &["absent: cannot be read", "name the directory of an experiment"]);
    refused(at, "export . --format csv", 2, &["there is no complete run in it", "name the directory of an experiment"]);
    refused(at, "export absent --format xml", 2, &["--format xml", "use csv, latex, bmf, github or criterion-table"]);
    refused(at, "export . --criterion --format csv", 2, &["new/benchmark.json", "name a directory of criterion"]);
    refused(
        at,
        "export absent --criterion --format csv",
        2,
        &["absent: cannot be read", "name a directory of criterion"],
    );

    succeed(at, "run config.toml --device flex --quiet");
    let export = "export results/small --format";
    refused(
        at,
        &format!("{export} csv --quantity acuracy"),
        2,
        &["--quantity acuracy: it is not measured there; use train_loss"],
    );
    refused(
        at,
        &format!("{export} github --quantity gradient_ratio_first"),
        2,
        &["--quantity gradient_ratio_first", "use --format bmf"],
    );
    let both = "github --quantity step_time_ms --quantity test_accuracy";
    refused(at, &format!("{export} {both}"), 2, &["a file has one direction; write a file for each"]);
    refused(at, &format!("{export} criterion-table --quantity test_accuracy"), 2, &["criterion-table has times only"]);
    refused(at, &format!("{export} csv --out config.toml/table.csv"), 2, &["cannot be written", "--out"]);

    let steps = run_directories(&at.join("results/small"))[0].join("steps.csv");
    let text = fs::read_to_string(&steps).expect("reads");
    fs::write(&steps, &text[..text.len() / 2]).expect("writes");
    refused(at, &format!("{export} csv"), 2, &["steps.csv", "remove the directory"]);
}

#[test]
fn a_damaged_result_of_criterion_is_named_with_its_file() {
    let dir = temporary();
    criterion_results(dir.path());
    let sample = dir.path().join("criterion/sum_test/given/20/new/sample.json");
    let text = fs::read_to_string(&sample).expect("written");
    fs::write(&sample, &text[..text.len() / 2]).expect("writes");
    let expected = ["sample.json: is not what criterion writes", "run the benchmark again"];
    refused(dir.path(), "export criterion --criterion --format bmf", 2, &expected);
}

/// The only row of a quantity and layer of a configuration.
#[track_caller]
fn compared<'a>(
    rows: &'a [HashMap<String, String>],
    configuration: &str,
    quantity: &str,
    layer: &str,
) -> &'a HashMap<String, String> {
    let is_it = |row: &&HashMap<String, String>| {
        row["configuration"] == configuration && row["quantity"] == quantity && row["layer"] == layer
    };
    let found: Vec<_> = rows.iter().filter(is_it).collect();
    assert_eq!(found.len(), 1, "{configuration} {quantity} {layer}");
    found[0]
}

/// The norm of the first layer's weight gradient at step 0 of the run of a seed, read from its files.
fn first_gradient(experiment: &Path, activation: &str, seed: u64) -> f64 {
    let is_it = |run: &&PathBuf| {
        let manifest = manifest(run);
        manifest["config"]["network"]["activation"] == activation && manifest["seed"] == seed
    };
    let found = run_directories(experiment);
    let rows = read_table(&found.iter().find(is_it).expect("the run").join("gradients.csv"));
    let row = rows.iter().find(|row| row["step"] == "0" && row["parameter"] == "hidden.0.weight");
    number(row.expect("measured"), "grad_l2")
}

#[test]
fn a_default_that_is_written_out_is_no_difference_and_the_level_of_a_factor_that_the_other_side_sweeps() {
    let dir = temporary();
    let at = dir.path();
    let run = |out: &str, set: &str| {
        let common = "run config.toml --device flex --quiet --set experiment.seeds=1 --set network.activation=relu";
        succeed(at, &format!("{common} --out {out} {set}"));
    };
    run("left_out", "");
    run("written", "--set data.normalization=unit");
    run("other", "--set data.normalization=none");
    let compared = |candidate: &str| stdout(&succeed(at, &format!("compare left_out/small {candidate}/small")));
    assert!(!compared("written").contains("differs:"), "{}", compared("written"));
    assert!(compared("other").contains("differs: data.normalization: unit -> none"), "{}", compared("other"));
    run("swept", "--set sweep.data.normalization=[\"none\",\"unit\"]");
    let text = compared("swept");
    assert!(text.contains("1 configuration on both sides") && !text.contains("differs:"), "{text}");
}

#[test]
fn two_sides_are_compared_pair_by_pair_and_the_key_that_differs_is_named() {
    let dir = temporary();
    let at = dir.path();
    succeed(at, "run config.toml --device flex --quiet --out before --set experiment.seeds=3");
    succeed(
        at,
        "run config.toml --device flex --quiet --out after --set experiment.seeds=3 --set network.weight_scale=2",
    );
    let output = succeed(at, "compare before/small after/small");
    let text = stdout(&output);
    for part in [
        "baseline  before/small: 2 configurations, 6 runs",
        "differs: network.weight_scale: 1.0 -> 2.0",
        "2 configurations on both sides, runs of the same seed paired",
        "3 paired",
        "after/small/compared_with_small/comparison.csv",
    ] {
        assert!(text.contains(part), "{text}\n  lacks: {part}");
    }
    let out = at.join("after/small/compared_with_small");
    let rows = read_table(&out.join("comparison.csv"));
    for activation in ["sigmoid", "relu"] {
        let row = compared(&rows, &format!("activation={activation}"), "gradient_l2_first", "1");
        let gradient = |side: &str, seed| first_gradient(&at.join(side).join("small"), activation, seed);
        let logs = (1..=3).map(|seed| (gradient("after", seed) / gradient("before", seed)).ln());
        let expected = (logs.sum::<f64>() / 3.0).exp();
        assert!((number(row, "value") / expected - 1.0).abs() < 1e-9, "{row:?}, expected {expected}");
        assert!(number(row, "low") <= expected && expected <= number(row, "high"), "{row:?}");
        assert_eq!((row["pairs"].as_str(), row["paired"].as_str(), row["change"].as_str()), ("3", "true", "ratio"));
        assert_eq!(row["network.activation"], activation);
        for quantity in
            ["train_loss", "test_accuracy", "decades_lost_per_layer_first", "step_time_ms", "examples_per_second"]
        {
            assert!(number(compared(&rows, &format!("activation={activation}"), quantity, ""), "value").is_finite());
        }
        // Three layers, at the start and at the end.
        let gradients = rows.iter().filter(|row| row["network.activation"] == activation && !row["layer"].is_empty());
        assert_eq!(gradients.count(), 6);
    }
    let svg = fs::read_to_string(out.join("gradient_ratio_by_layer.svg")).expect("the figure");
    assert!(
        svg.contains("activation=relu") && svg.contains("last measured step") && svg.trim_end().ends_with("</svg>")
    );
    // A report of the candidate does not take the comparison for a run.
    assert!(stdout(&succeed(at, "report after/small")).contains("6 runs in after/small"));
}

#[test]
fn the_same_runs_made_twice_have_ratios_of_1_and_differences_of_0() {
    let dir = temporary();
    for out in ["a", "b"] {
        succeed(dir.path(), &format!("run config.toml --device flex --quiet --out {out}"));
    }
    let text = stdout(&succeed(dir.path(), "compare a/small b/small --out compared"));
    assert!(!text.contains("differs:") && text.contains("one pair has no interval"), "{text}");
    let rows = read_table(&dir.path().join("compared/comparison.csv"));
    let mut checked = 0;
    for row in rows.iter().filter(|row| !["step_time_ms", "examples_per_second"].contains(&row["quantity"].as_str())) {
        assert_eq!(number(row, "value"), if row["change"] == "ratio" { 1.0 } else { 0.0 }, "{row:?}");
        // One pair: no interval, and none of width 0.
        assert_eq!((row["pairs"].as_str(), row["low"].as_str(), row["high"].as_str()), ("1", "", ""));
        checked += 1;
    }
    assert!(checked >= 2 * (6 + 6), "{checked}");
}

#[test]
fn other_seeds_are_compared_unpaired_and_it_is_said() {
    let dir = temporary();
    succeed(dir.path(), "run config.toml --device flex --quiet --out a --set experiment.seeds=[1,2,3]");
    succeed(dir.path(), "run config.toml --device flex --quiet --out b --set experiment.seeds=[4,5]");
    let text = stdout(&succeed(dir.path(), "compare a/small b/small --out compared"));
    assert!(text.contains("unpaired: too few seeds are on both sides") && text.contains("3 and 2"), "{text}");
    let rows = read_table(&dir.path().join("compared/comparison.csv"));
    let row = compared(&rows, "activation=relu", "gradient_l2_first", "1");
    assert_eq!((row["paired"].as_str(), row["pairs"].as_str()), ("false", "0"));
    assert!(number(row, "low") < number(row, "high"));
}

#[test]
fn configurations_without_a_partner_are_listed_and_a_factor_of_one_side_is_found_in_the_config_of_the_other() {
    let dir = temporary();
    let at = dir.path();
    succeed(at, "run config.toml --device flex --quiet --out a");
    succeed(
        at,
        "run config.toml --device flex --quiet --out b --set network.activation=relu --set sweep.training.l2=[0.0,0.1]",
    );
    let text = stdout(&succeed(at, "compare a/small b/small --out compared"));
    assert!(text.contains("only in the baseline: activation=sigmoid"), "{text}");
    assert!(text.contains("only in the candidate: activation=relu l2=0.1"), "{text}");
    let rows = read_table(&at.join("compared/comparison.csv"));
    assert!(rows.iter().all(|row| row["network.activation"] == "relu" && row["training.l2"] == "0.0"), "{rows:?}");
    assert_eq!(number(compared(&rows, "activation=relu, l2=0.0", "train_loss", ""), "value"), 0.0);
}

#[test]
fn single_configurations_are_compared_whatever_they_are() {
    let dir = temporary();
    let at = dir.path();
    succeed(at, "run config.toml --device flex --quiet --out a --set network.activation=sigmoid");
    succeed(
        at,
        "run config.toml --device flex --quiet --out b --set network.activation=relu --set experiment.name=\"other\"",
    );
    let text = stdout(&succeed(at, "compare a/small b/other"));
    assert!(text.contains("differs: network.activation: sigmoid -> relu"), "{text}");
    let rows = read_table(&at.join("b/other/compared_with_small/comparison.csv"));
    assert!(number(compared(&rows, "other", "gradient_l2_first", "1"), "value") > 1.0);
    assert!(number(compared(&rows, "other", "decades_lost_per_layer_first", ""), "value") < 0.0);
}

#[test]
fn diverged_runs_are_counted_and_left_out_of_what_they_do_not_have() {
    let dir = temporary();
    let at = dir.path();
    let only_relu = "--device flex --quiet --set network.activation=relu --set experiment.seeds=2";
    succeed(at, &format!("run config.toml {only_relu} --out a"));
    succeed(at, &format!("run config.toml {only_relu} --out b --set training.learning_rate=1e30"));
    let output = succeed(at, "compare a/small b/small --out compared");
    let text = stdout(&output);
    assert!(text.contains("candidate b/small: 1 configuration, 2 runs, 2 of them diverged"), "{text}");
    assert!(text.contains("diverged runs") && text.contains("0 of 2") && text.contains("2 of 2"), "{text}");
    let rows = read_table(&at.join("compared/comparison.csv"));
    let has = |quantity: &str| rows.iter().any(|row| row["quantity"] == quantity);
    // The gradients before the first update are there and are the same.
    assert_eq!(number(compared(&rows, "small", "gradient_l2_first", "1"), "value"), 1.0);
    assert!(has("step_time_ms") && !has("gradient_l2_last") && !has("train_loss") && !has("test_accuracy"));
    let exported = table(&stdout(&succeed(at, "export b/small --format csv")));
    assert_eq!((exported[0]["seeds"].as_str(), exported[0]["diverged"].as_str()), ("2", "2"));
    assert!(!exported[0].contains_key("train-loss-median") && number(&exported[0], "step-time-ms-median") > 0.0);
}

#[test]
fn another_machine_or_build_is_a_warning_and_no_error() {
    let dir = temporary();
    for out in ["a", "b"] {
        succeed(dir.path(), &format!("run config.toml --device flex --quiet --out {out}"));
    }
    let quiet = succeed(dir.path(), "compare a/small b/small");
    assert_eq!(stderr(&quiet), "");
    for run in run_directories(&dir.path().join("b/small")) {
        let mut other = manifest(&run);
        other["environment"]["cpu"] = "Abacus 3000".into();
        other["environment"]["profile"] = "debug".into();
        other["environment"]["software_adapter"] = true.into();
        fs::write(run.join("manifest.json"), other.to_string()).expect("writes");
    }
    let output = succeed(dir.path(), "compare a/small b/small");
    let text = stderr(&output);
    for part in [
        "warning: CPU: ",
        "Abacus 3000 in the candidate: step times and throughput are not comparable",
        "warning: Cargo profile: release in the baseline, debug in the candidate",
        "warning: the candidate ran on a software adapter",
    ] {
        assert!(text.contains(part), "{text}\n  lacks: {part}");
    }
    assert_eq!(text.lines().count(), 3, "{text}");
}

#[test]
fn compare_refuses_what_cannot_be_compared() {
    let dir = temporary();
    let at = dir.path();
    refused(at, "compare absent other", 2, &["absent: cannot be read", "name the directory of an experiment"]);
    succeed(at, "run config.toml --device flex --quiet --out a");
    refused(
        at,
        "compare a/small a/small",
        2,
        &["a/small: it is the baseline and the candidate", "name two directories"],
    );
    refused(at, "compare a/small a/../a/small", 2, &["name two directories"]);
    refused(at, "compare a/small a", 2, &["a: there is no complete run in it"]);
    succeed(at, "run config.toml --device flex --quiet --out b --set sweep.network.activation=[\"tanh\",\"elu\"]");
    let expected = [
        "a/small and b/small have no configuration in common",
        "activation=sigmoid, activation=relu; activation=tanh, activation=elu",
        "compare experiments with the same levels",
    ];
    refused(at, "compare a/small b/small", 4, &expected);
    assert!(!at.join("b/small/compared_with_small").exists());
    let help = stdout(&succeed(at, "--help"));
    let words = help.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(words.contains("4 two sides cannot be compared"), "{help}");
}
