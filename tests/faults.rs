//! Faults on purpose, each of which a gate must notice: `cargo test --release --features faults --test faults`.

#![cfg(feature = "flex")]

mod common;

use std::path::{Path, PathBuf};
use std::process::Output;

use common::{gradmark, stderr, stdout};

/// The directory of the configs and references.
fn project() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn gate(faults: &str, arguments: &str) -> Output {
    let mut command = gradmark(&project());
    command.env("GRADMARK_FAULTS", faults).arg("gate").args(arguments.split_whitespace());
    command.output().expect("the binary starts")
}

#[track_caller]
fn science_notices(faults: &str, quantity: &str) {
    let output = gate(faults, "--science --quiet");
    let text = stdout(&output);
    assert_eq!(output.status.code(), Some(3), "{faults}: {text}{}", stderr(&output));
    assert!(text.contains(quantity), "{faults}: {text}");
}

#[test]
fn the_science_gate_passes_a_build_without_a_fault() {
    let output = gate("", "--science --quiet");
    assert_eq!(output.status.code(), Some(0), "{}{}", stdout(&output), stderr(&output));
}

#[test]
fn weights_that_are_5_percent_too_large_or_too_small_are_noticed_in_every_case() {
    for scale in ["1.05", "0.95"] {
        let output = gate(&format!("initializer_scale={scale}"), "--science --quiet");
        assert_eq!(output.status.code(), Some(3), "{}", stderr(&output));
        let config = std::fs::read_to_string(project().join("configs/science.toml")).expect("the config");
        for name in
            config.lines().filter_map(|line| line.strip_prefix("name = \"").filter(|_| line != "name = \"science\""))
        {
            let case = format!("case={}", name.trim_end_matches('"'));
            assert!(stdout(&output).contains(&case), "{scale}: {case} did not notice");
        }
    }
}

#[test]
fn a_missing_division_by_the_batch_size_is_noticed() {
    science_notices("loss_sum=2", "weight_grad_l2_first");
}

#[test]
fn a_clipping_threshold_that_is_ignored_or_5_percent_too_large_is_noticed() {
    science_notices("clip_threshold=inf", "grad_l2_after_clip_first");
    science_notices("clip_threshold=1.05", "grad_l2_after_clip_first");
}

/// A base of pairs: this binary without a fault, whatever the environment says.
#[cfg(unix)]
fn sound_binary(dir: &Path) -> PathBuf {
    use std::os::unix::fs::PermissionsExt;

    let base = dir.join("base");
    let script = format!("#!/bin/sh\nGRADMARK_FAULTS= exec '{}' \"$@\"\n", env!("CARGO_BIN_EXE_gradmark"));
    std::fs::write(&base, script).expect("writable");
    std::fs::set_permissions(&base, PermissionsExt::from_mode(0o755)).expect("a file");
    base
}

/// What is gated where speed is: a step of half a millisecond.
#[cfg(unix)]
const SHORT: &str = "configs/smoke.toml --set network.activation=relu --device flex --quiet";

/// So slow that no other test beside it can hide it.
#[cfg(unix)]
#[test]
fn steps_that_take_twenty_times_as_long_are_found_between_two_binaries() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let base = sound_binary(dir.path());
    let arguments = format!("--pair {} {SHORT} --sessions 5 --samples 5 --sample-ms 10", base.display());
    let output = gate("step_time=20", &arguments);
    assert_eq!(output.status.code(), Some(3), "{}{}", stdout(&output), stderr(&output));
}

/// How many of so many gates call a regression. Each is told of as it ends.
#[cfg(unix)]
fn regressions(faults: &str, trials: usize, arguments: &str) -> usize {
    let mut found = 0;
    for trial in 1..=trials {
        let output = gate(faults, arguments);
        let code = output.status.code();
        assert!(matches!(code, Some(0 | 3)), "{}{}", stdout(&output), stderr(&output));
        found += usize::from(code == Some(3));
        let row = stdout(&output).lines().rev().nth(1).unwrap_or_default().to_owned();
        println!("`{faults}`: {found} of {trial}; {row}");
    }
    found
}

/// How many gates are tried, for the rates of errors: `GRADMARK_TRIALS`, or what is written here.
#[cfg(unix)]
fn trials(usual: usize) -> usize {
    std::env::var("GRADMARK_TRIALS").map_or(usual, |count| count.parse().expect("GRADMARK_TRIALS is a number"))
}

#[cfg(unix)]
#[test]
#[ignore = "takes half an hour of a machine that does nothing else"]
fn error_rates_of_pairs() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let base = sound_binary(dir.path());
    let arguments = format!("--pair {} {SHORT} --samples 5 --sample-ms 10", base.display());
    let of_itself = trials(200);
    let false_alarms = regressions("", of_itself, &arguments);
    let slower = trials(100);
    let [found, _] = ["step_time=1.1", "step_time=1.05"].map(|faults| regressions(faults, slower, &arguments));
    assert!(100 * false_alarms <= of_itself, "{false_alarms} false alarms of {of_itself}");
    assert!(100 * found >= 95 * slower, "{found} of {slower} that were 10 % slower");
}

#[cfg(unix)]
#[test]
#[ignore = "takes an hour of a machine that does nothing else"]
fn error_rates_of_a_baseline() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let baselines = dir.path().join("baselines");
    let mut save = gradmark(&project());
    save.env("GRADMARK_FAULTS", "").args(["baseline", "save", "main"]).args(SHORT.split_whitespace());
    let saved = save.arg("--baselines").arg(&baselines).output().expect("the binary starts");
    assert!(saved.status.success(), "{}", stderr(&saved));
    println!("{}", stdout(&saved));
    let arguments = format!("--baseline main {SHORT} --baselines {}", baselines.display());
    let of_itself = trials(200);
    let false_alarms = regressions("", of_itself, &arguments);
    // What is slower does not become the rolling baseline, and a pause would only take time.
    let slower = trials(50);
    regressions("step_time=1.1", slower, &format!("{arguments} --pause 0"));
    assert!(100 * false_alarms <= of_itself, "{false_alarms} false alarms of {of_itself}");
}
