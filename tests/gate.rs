//! `gradmark baseline` and `gradmark gate` as a user meets them. Speeds are not compared with the clock of a busy machine here: the
//! times in a baseline are made so different that no noise can hide it.

#![cfg(feature = "flex")]

mod common;

use std::fs;
use std::path::Path;
use std::process::Output;
use std::sync::{Mutex, PoisonError};

use common::{gradmark, run, stderr, stdout};
use serde_json::{Value, json};

/// One small configuration, so that a session takes milliseconds.
const CONFIG: &str = "\
[experiment]
name = \"gate\"
seeds = 1
[network]
depth = 2
width = 8
activation = \"tanh\"
weight_init = \"lecun\"
[training]
learning_rate = 0.1
batch_size = 32
steps = 20
[throughput]
samples = 0
";

/// As little as counts.
const LITTLE: &str = "--device flex --sessions 3 --samples 5 --sample-ms 1 --quiet --baselines baselines";

/// One at a time: what else is at work here would disturb the samples.
fn at(dir: &Path, arguments: &str) -> Output {
    static ALONE: Mutex<()> = Mutex::new(());
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    run(dir, CONFIG, arguments)
}

#[track_caller]
fn ends_with(dir: &Path, arguments: &str, code: i32) -> Output {
    let output = at(dir, arguments);
    assert_eq!(output.status.code(), Some(code), "{arguments}: {}{}", stdout(&output), stderr(&output));
    output
}

/// Refused with one line that says all of this.
#[track_caller]
fn refused(dir: &Path, arguments: &str, code: i32, parts: &[&str]) {
    let text = stderr(&ends_with(dir, arguments, code));
    assert_eq!(text.trim_end().lines().count(), 1, "{text}");
    for part in parts {
        assert!(text.contains(part), "{text}\n  lacks: {part}");
    }
}

/// A saved baseline of [`CONFIG`] with the name `main`.
fn saved() -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let output = ends_with(dir.path(), &format!("baseline save main config.toml {LITTLE}"), 0);
    assert!(stdout(&output).contains("saved in baselines"), "{}", stdout(&output));
    dir
}

fn read(dir: &Path, file: &str) -> Value {
    let text = fs::read_to_string(dir.join("baselines/main").join(file)).expect("a baseline");
    serde_json::from_str(&text).expect("JSON")
}

/// Changes a file of the baseline.
fn change(dir: &Path, file: &str, change: impl FnOnce(&mut Value)) {
    let mut baseline = read(dir, file);
    change(&mut baseline);
    fs::write(dir.join("baselines/main").join(file), baseline.to_string()).expect("writable");
}

/// Makes all times of a step in a baseline so much longer. The machine's noise counts for nothing.
fn stretch(dir: &Path, file: &str, factor: f64) {
    change(dir, file, |baseline| {
        for configuration in baseline["configurations"].as_array_mut().expect("configurations") {
            configuration["noise_floor"] = json!(0.01);
            let sessions = configuration["sessions"].as_array_mut().expect("sessions");
            // All alike and undisturbed: the interval is that of the sessions now.
            let mut first = sessions[0].clone();
            let mut yardsticks: Vec<Value> = first["yardsticks_ms"].as_array().expect("times").clone();
            yardsticks.sort_by(|a, b| a[1].as_f64().expect("a number").total_cmp(&b[1].as_f64().expect("a number")));
            first["yardsticks_ms"] = json!(vec![yardsticks[yardsticks.len() / 2].clone(); yardsticks.len()]);
            first["waited"] = json!(vec![0.0; first["waited"].as_array().map_or(0, Vec::len)]);
            for session in sessions.iter_mut() {
                *session = first.clone();
                for time in session["step_ms"].as_array_mut().expect("times") {
                    *time = json!(time.as_f64().expect("a number") * factor);
                }
            }
        }
    });
}

fn history(dir: &Path) -> Vec<csv::StringRecord> {
    let mut reader = csv::Reader::from_path(dir.join("baselines/main/history.csv")).expect("a history");
    reader.records().collect::<Result<_, _>>().expect("rows")
}

/// The verdict is the last column, what it is compared with the eighth.
fn verdicts(dir: &Path) -> Vec<(String, String)> {
    history(dir).iter().map(|row| (row[7].to_owned(), row[row.len() - 1].to_owned())).collect()
}

#[test]
fn a_program_is_not_slower_than_itself_and_its_history_grows() {
    let dir = saved();
    let gate = format!("gate --baseline main --threshold 1000 {LITTLE}");
    let output = ends_with(dir.path(), &gate, 0);
    assert!(stdout(&output).contains("passed: no regression in 1"), "{}", stdout(&output));
    assert_eq!(verdicts(dir.path()), [("pinned".to_owned(), "pass".to_owned())]);
    // What passed is the rolling baseline now, beside the pinned one.
    let sessions = read(dir.path(), "rolling.json")["configurations"][0]["sessions"].as_array().map_or(0, Vec::len);
    // As many as are asked for, and one more for each that something disturbed.
    assert!((3..=9).contains(&sessions), "{sessions}");
    let pinned = read(dir.path(), "pinned.json");
    assert_eq!(pinned["baseline_version"], 2);
    // The first session does not know yet what disturbs it: it has just as many samples as are asked for.
    assert_eq!(pinned["configurations"][0]["sessions"][0]["step_ms"].as_array().map(Vec::len), Some(5));
    assert_eq!(pinned["configurations"][0]["sessions"][0]["yardsticks_ms"].as_array().map(Vec::len), Some(6));
    let before = fs::read_to_string(dir.path().join("baselines/main/history.csv")).expect("a history");
    ends_with(dir.path(), &format!("{gate} config.toml --csv table.csv"), 0);
    let after = fs::read_to_string(dir.path().join("baselines/main/history.csv")).expect("a history");
    assert!(after.starts_with(&before) && after.lines().count() == before.lines().count() + 2, "{after}");
    assert_eq!(fs::read_to_string(dir.path().join("table.csv")).expect("a table").lines().count(), 3);
    let listed = stdout(&ends_with(dir.path(), "baseline list --baselines baselines", 0));
    assert!(listed.contains("main, saved ") && listed.contains("noise floor"), "{listed}");
}

#[test]
fn steps_that_take_twenty_times_as_long_are_a_regression_after_three_attempts() {
    let dir = saved();
    stretch(dir.path(), "pinned.json", 1.0 / 20.0);
    stretch(dir.path(), "rolling.json", 1.0 / 20.0);
    let output = ends_with(dir.path(), &format!("gate --baseline main --pause 0 {LITTLE}"), 3);
    assert!(
        stdout(&output).contains("REGRESSION") && stdout(&output).contains("1 regression of 1"),
        "{}",
        stdout(&output)
    );
    let row = &history(dir.path())[0];
    assert_eq!((&row[16], &row[17]), ("3", "regression"));
    // What is slower is not what later gates compare with.
    assert_eq!(read(dir.path(), "rolling.json"), {
        let mut rolling = read(dir.path(), "rolling.json");
        rolling["configurations"] = read(dir.path(), "pinned.json")["configurations"].clone();
        rolling
    });
}

#[test]
fn slow_drift_is_found_against_the_pinned_baseline_though_each_step_of_it_passes() {
    let dir = saved();
    stretch(dir.path(), "pinned.json", 1.0 / 20.0);
    let output = ends_with(dir.path(), &format!("gate --baseline main --threshold 400 --pause 0 {LITTLE}"), 3);
    assert!(stdout(&output).contains("REGRESSION"), "{}", stdout(&output));
    let found = verdicts(dir.path());
    let expected = [("pinned", "regression"), ("rolling", "pass")];
    assert_eq!(found, expected.map(|(against, verdict)| (against.to_owned(), verdict.to_owned())));
}

#[test]
fn an_improvement_is_reported_and_becomes_the_baseline_only_if_that_is_asked_for() {
    let dir = saved();
    stretch(dir.path(), "pinned.json", 20.0);
    stretch(dir.path(), "rolling.json", 20.0);
    let slow = read(dir.path(), "pinned.json");
    let loud = LITTLE.replace(" --quiet", "");
    let output = ends_with(dir.path(), &format!("gate --baseline main --pause 0.1 {loud}"), 0);
    assert!(stdout(&output).contains("improvement"), "{}", stdout(&output));
    assert!(stderr(&output).contains("1 configuration changed: measuring again in 0.1 s"), "{}", stderr(&output));
    assert!(stderr(&output).contains("--update-on-improvement makes it the baseline"), "{}", stderr(&output));
    assert_eq!(read(dir.path(), "pinned.json"), slow);
    ends_with(dir.path(), &format!("gate --baseline main --pause 0 --update-on-improvement {LITTLE}"), 0);
    let fast = read(dir.path(), "pinned.json");
    let first = |baseline: &Value| baseline["configurations"][0]["sessions"][0]["step_ms"][0].as_f64().expect("a time");
    assert!(first(&fast) < 0.5 * first(&slow), "{} {}", first(&fast), first(&slow));
    // The noise of this machine is not forgotten.
    assert!(fast["configurations"][0]["noise_floor"].as_f64().expect("a floor") >= 0.01);
}

#[test]
fn another_machine_is_refused_until_the_difference_is_allowed_by_name() {
    let dir = saved();
    for file in ["pinned.json", "rolling.json"] {
        change(dir.path(), file, |baseline| {
            baseline["environment"]["cpu"] = json!("another CPU");
            baseline["environment"]["features"] = json!(["another"]);
        });
    }
    let gate = format!("gate --baseline main --threshold 1000 {LITTLE}");
    refused(
        dir.path(),
        &gate,
        4,
        &["cpu was another CPU", "features was another, is flex", "--allow cpu", "--allow features"],
    );
    refused(dir.path(), &format!("{gate} --allow cpu"), 4, &["features was another"]);
    let before = read(dir.path(), "rolling.json");
    let output = ends_with(dir.path(), &format!("{gate} --allow cpu --allow features"), 0);
    assert!(stderr(&output).contains("rolling baseline stays"), "{}", stderr(&output));
    assert_eq!(read(dir.path(), "rolling.json"), before, "what was allowed to differ is no baseline");
    let clap = stderr(&ends_with(dir.path(), &format!("{gate} --allow everything"), 2));
    assert!(clap.contains("everything") && clap.contains("cpu"), "{clap}");
    change(dir.path(), "pinned.json", |baseline| baseline["environment"]["software_adapter"] = json!(true));
    refused(dir.path(), &format!("{gate} --allow cpu --allow features"), 4, &["software_adapter was yes, is no"]);
    assert_eq!(history(dir.path()).len(), 1, "a gate that was refused is no history");
}

#[test]
fn another_config_is_not_comparable() {
    let dir = saved();
    let gate = format!("gate --baseline main config.toml {LITTLE}");
    refused(dir.path(), &format!("{gate} --set network.depth=3"), 4, &["`gate` has other keys", "name the config"]);
    refused(dir.path(), &format!("{gate} --set experiment.name=other"), 4, &["has no configuration `other`"]);
    let wider = format!("baseline save main config.toml {LITTLE} --append --set network.width=16");
    refused(dir.path(), &wider, 4, &["other keys"]);
    // Sessions of another build would hide what they are to be compared with.
    change(dir.path(), "pinned.json", |baseline| baseline["environment"]["burn_version"] = json!("0.1.0"));
    let append = format!("baseline save main config.toml {LITTLE} --append");
    refused(dir.path(), &append, 4, &["is of another build: burn_version was 0.1.0"]);
}

#[test]
fn a_baseline_that_is_absent_damaged_or_of_another_version_is_refused_by_name() {
    let dir = saved();
    let gate = format!("gate --baseline main {LITTLE}");
    refused(
        dir.path(),
        &gate.replace("main", "other"),
        2,
        &["baselines/other", "no baseline of this name", "name one of main"],
    );
    refused(dir.path(), &gate.replace("main", "../main"), 2, &["`../main` is no name of a baseline"]);
    let again = format!("baseline save main config.toml {LITTLE}");
    refused(dir.path(), &again, 2, &["already", "--append", "--force"]);
    let path = dir.path().join("baselines/main/pinned.json");
    let whole = fs::read_to_string(&path).expect("a baseline");
    fs::write(&path, &whole[..whole.len() / 2]).expect("writable");
    refused(dir.path(), &gate, 2, &["pinned.json: is cut off", "save the baseline anew"]);
    fs::write(&path, whole.replace("\"baseline_version\": 2", "\"baseline_version\": 99")).expect("writable");
    refused(dir.path(), &gate, 2, &["has version 99", "version 2"]);
    change(dir.path(), "rolling.json", |baseline| baseline["configurations"] = json!([]));
    fs::copy(dir.path().join("baselines/main/rolling.json"), &path).expect("writable");
    refused(dir.path(), &gate, 2, &["pinned.json: has no configuration"]);
    fs::write(&path, "[]").expect("writable");
    refused(dir.path(), &gate, 2, &["is not a baseline"]);
    ends_with(dir.path(), &format!("{again} --force"), 0);
    let history = dir.path().join("baselines/main/history.csv");
    fs::write(&history, "other,columns\n").expect("writable");
    refused(dir.path(), &format!("{gate} --threshold 1000"), 2, &["history.csv: has other columns"]);
    assert_eq!(fs::read_to_string(&history).expect("kept"), "other,columns\n");
}

#[test]
fn too_few_sessions_are_no_pass() {
    let dir = saved();
    stretch(dir.path(), "pinned.json", 1.0);
    change(dir.path(), "pinned.json", |baseline| {
        baseline["configurations"][0]["sessions"].as_array_mut().expect("sessions").truncate(2);
    });
    refused(dir.path(), &format!("gate --baseline main {LITTLE}"), 4, &["2 of its sessions", "at least 3", "--append"]);
    change(dir.path(), "pinned.json", |baseline| {
        baseline["configurations"][0]["sessions"][0]["step_ms"] = json!([1.0, 1.0, 1.0, 1.0, 0.0]);
    });
    refused(dir.path(), &format!("gate --baseline main {LITTLE}"), 4, &["1 of its sessions"]);
}

#[test]
fn thresholds_and_counts_that_make_no_sense_are_refused() {
    let dir = saved();
    for threshold in ["NaN", "inf", "0", "-5", "five", "1001"] {
        let text = stderr(&ends_with(dir.path(), &format!("gate --baseline main --threshold={threshold} {LITTLE}"), 2));
        assert!(text.contains("--threshold") && text.contains("above 0 and at most 1000"), "{threshold}: {text}");
    }
    for (wrong, said) in [
        ("--sessions 2", "whole number from 3"),
        ("--samples 4", "whole number from 5"),
        ("--sample-ms 0", "above 0 and at most 60000"),
        ("--sample-ms NaN", "above 0 and at most 60000"),
        ("--pause=-1", "seconds from 0 to 86400"),
        ("--pause inf", "seconds from 0 to 86400"),
    ] {
        let text = stderr(&ends_with(dir.path(), &format!("gate --baseline main {wrong}"), 2));
        assert!(text.contains(said), "{wrong}: {text}");
    }
    for kinds in ["gate", "gate --science --baseline main", "gate config.toml", "gate --criterion x --science"] {
        assert_eq!(at(dir.path(), kinds).status.code(), Some(2), "{kinds}");
    }
}

#[test]
fn pairs_are_measured_in_turn_and_what_is_no_gradmark_is_refused() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let this = env!("CARGO_BIN_EXE_gradmark");
    let output =
        ends_with(dir.path(), &format!("gate --pair {this} config.toml --threshold 1000 --csv table.csv {LITTLE}"), 0);
    assert!(stdout(&output).contains("passed: no regression in 1"), "{}", stdout(&output));
    let table = fs::read_to_string(dir.path().join("table.csv")).expect("a table");
    assert!(table.lines().nth(1).is_some_and(|row| row.contains(",gate,base,") && row.ends_with(",pass")), "{table}");
    refused(dir.path(), &format!("gate --pair {this} {LITTLE}"), 2, &["the config is missing"]);
    refused(dir.path(), &format!("gate --pair absent config.toml {LITTLE}"), 2, &["absent: cannot be started"]);
    if cfg!(unix) {
        refused(dir.path(), &format!("gate --pair /bin/cat config.toml {LITTLE}"), 4, &["/bin/cat: does not measure"]);
    }
}

#[test]
fn a_reference_holds_the_numbers_of_a_build() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let gate = "gate --science config.toml --reference reference/numbers.csv --quiet";
    refused(dir.path(), gate, 2, &["reference/numbers.csv: cannot be read", "--update"]);
    ends_with(dir.path(), &format!("{gate} --update"), 0);
    let output = ends_with(dir.path(), gate, 0);
    assert!(stdout(&output).contains("passed: "), "{}", stdout(&output));
    let path = dir.path().join("reference/numbers.csv");
    let whole = fs::read_to_string(&path).expect("a reference");
    let line = whole.lines().find(|line| line.contains("decades_lost_per_layer_first")).expect("a quantity");
    let (front, value) = line.rsplit_once(',').expect("a value");
    let value: f64 = value.parse().expect("a number");
    fs::write(&path, whole.replace(line, &format!("{front},{}", value + 0.002))).expect("writable");
    let output = ends_with(dir.path(), gate, 3);
    let text = stdout(&output);
    assert!(text.contains("decades_lost_per_layer_first") && text.contains("1 of "), "{text}");
    fs::write(&path, whole.trim_end()).expect("writable");
    refused(dir.path(), gate, 2, &["last line is cut off"]);
    fs::write(&path, &whole).expect("writable");
    refused(dir.path(), &format!("{gate} --set experiment.seeds=2"), 4, &["`gate` seed 2"]);
    refused(dir.path(), &format!("{gate} --set experiment.name=other"), 4, &["`other` seed 1"]);
}

/// One benchmark as criterion leaves it, with so many milliseconds an iteration.
fn leave_results(dir: &Path, step_ms: f64) {
    let results = dir.join("criterion/step/new");
    fs::create_dir_all(&results).expect("writable");
    let estimate = json!({
        "confidence_interval": {"confidence_level": 0.95, "lower_bound": step_ms * 1e6, "upper_bound": step_ms * 1e6},
        "point_estimate": step_ms * 1e6,
        "standard_error": 0.0,
    });
    let estimates =
        json!({"mean": estimate, "median": estimate, "median_abs_dev": estimate, "slope": null, "std_dev": estimate});
    let benchmark = json!({
        "group_id": "step", "function_id": null, "value_str": null, "throughput": null, "full_id": "step",
        "directory_name": "step", "title": "step",
    });
    let sample = json!({"sampling_mode": "Flat", "iters": vec![2.0; 10], "times": vec![step_ms * 2e6; 10]});
    for (file, value) in [("estimates", estimates), ("benchmark", benchmark), ("sample", sample)] {
        fs::write(results.join(format!("{file}.json")), value.to_string()).expect("writable");
    }
}

#[test]
fn criterions_results_are_gated_and_a_change_needs_benches_that_can_be_repeated() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let common = "--device flex --quiet --baselines baselines";
    for (turn, step_ms) in [1.0, 1.01, 0.99, 1.002].into_iter().enumerate() {
        leave_results(dir.path(), step_ms);
        let append = if turn == 0 { "" } else { "--append" };
        let output = ends_with(dir.path(), &format!("baseline save main --criterion criterion {append} {common}"), 0);
        assert_eq!(stderr(&output).contains("a gate needs"), turn < 2, "{}", stderr(&output));
    }
    let append = format!("baseline save main --criterion criterion --append {common}");
    refused(dir.path(), &append, 4, &["has these results of `step` already", "run the benches again"]);
    let gate = format!("gate --baseline main --criterion criterion {common}");
    refused(dir.path(), &gate, 4, &["`step` was not measured anew"]);
    leave_results(dir.path(), 1.001);
    ends_with(dir.path(), &gate, 0);
    leave_results(dir.path(), 1.2);
    let output = ends_with(dir.path(), &gate, 4);
    assert!(stdout(&output).contains("not confirmed: too few samples"), "{}", stdout(&output));
    let with_benches = |command: &str| {
        let mut gradmark = gradmark(dir.path());
        gradmark.args(gate.split_whitespace()).args(["--bench", command]).output().expect("runs")
    };
    // Benches that measure nothing are no second attempt.
    let output = with_benches("echo repeated");
    assert_eq!(output.status.code(), Some(4), "{}{}", stdout(&output), stderr(&output));
    assert!(stderr(&output).contains("was not measured anew"), "{}", stderr(&output));
    assert_eq!(with_benches("exit 7").status.code(), Some(1));
    if cfg!(unix) {
        // Each time they come to another sample, as slow as the first.
        for (turn, step_ms) in [1.21, 1.19].into_iter().enumerate() {
            leave_results(dir.path(), step_ms);
            let sample = dir.path().join("criterion/step/new/sample.json");
            fs::copy(sample, dir.path().join(format!("sample{turn}"))).expect("writable");
        }
        leave_results(dir.path(), 1.2);
        let next = "for n in 0 1; do [ -f sample$n ] && mv sample$n criterion/step/new/sample.json && break; done";
        let output = with_benches(&format!("echo repeated; {next}"));
        assert_eq!(output.status.code(), Some(3), "{}{}", stdout(&output), stderr(&output));
        assert_eq!(stderr(&output).matches("repeated").count(), 2, "{}", stderr(&output));
    }
    refused(
        dir.path(),
        &format!("gate --baseline main {common}"),
        4,
        &["baseline of criterion's results in criterion"],
    );
    let of_config = saved();
    refused(of_config.path(), &gate, 4, &["not of criterion's results"]);
}

#[test]
fn the_rule_in_the_documentation_is_that_of_the_code() {
    use gradmark::analysis::{ATTEMPTS, CONFIDENCE, DEFAULT_THRESHOLD, MINIMUM_SAMPLES, MINIMUM_SESSIONS};
    use gradmark::gate::science::{QUANTITIES, Tolerance};
    use gradmark::gate::{USUAL_TIMES, WAITED};

    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/regression_gate.md");
    let text = fs::read_to_string(path).expect("the documentation").split_whitespace().collect::<Vec<_>>().join(" ");
    let mut sentences = vec![
        format!("{ATTEMPTS} attempts"),
        format!("{} % interval", CONFIDENCE * 100.0),
        format!("{} % unless", DEFAULT_THRESHOLD * 100.0),
        format!("at least {MINIMUM_SESSIONS} sessions"),
        format!("at least {MINIMUM_SAMPLES} samples"),
        format!("more than {USUAL_TIMES} times as long as usual"),
        format!("for more than {WAITED} of its time"),
        format!("sessions with fewer than {MINIMUM_SAMPLES} that count"),
        format!("fewer than {MINIMUM_SESSIONS} sessions count"),
    ];
    for (quantity, tolerance) in QUANTITIES {
        sentences.push(match tolerance {
            Tolerance::Absolute(limit) => format!("| `{quantity}` | {limit} |"),
            Tolerance::Relative(limit) => format!("| `{quantity}` | {} % |", limit * 100.0),
        });
    }
    for sentence in sentences {
        assert!(text.contains(&sentence), "docs/regression_gate.md lacks: {sentence}");
    }
    let help = |arguments: &[&str]| {
        let text = stdout(&gradmark(Path::new(".")).args(arguments).arg("--help").output().expect("runs"));
        text.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    let (gate, save) = (help(&["gate"]), help(&["baseline", "save"]));
    assert_eq!(ATTEMPTS, 3);
    for part in [
        "three attempts".to_owned(),
        format!("{} % interval", CONFIDENCE * 100.0),
        format!("[default: {}]", DEFAULT_THRESHOLD * 100.0),
        format!("at least {MINIMUM_SESSIONS} "),
        format!("at least {MINIMUM_SAMPLES} "),
    ] {
        assert!(gate.contains(&part), "{part}: {gate}");
    }
    // What is said of defaults is what the help says of them.
    let default = |help: &str, option: &str| {
        let (_, rest) = help.split_once(&format!("{option} <")).expect("the option");
        let (_, rest) = rest.split_once("[default: ").expect("a default");
        rest.split(']').next().expect("a bracket").to_owned()
    };
    let sentences = [
        format!("by default {} and {}", default(&save, "--sessions"), default(&gate, "--sessions")),
        format!("by default {} of {} ms", default(&gate, "--samples"), default(&gate, "--sample-ms")),
        format!("{} s apart (`--pause`)", default(&gate, "--pause")),
    ];
    for sentence in sentences {
        assert!(text.contains(&sentence), "docs/regression_gate.md lacks: {sentence}");
    }
}
