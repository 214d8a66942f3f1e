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

/// A pair of this binary with a fault and without: the base unsets the variable. So slow that no other test beside it can hide it.
#[cfg(unix)]
#[test]
fn steps_that_take_twenty_times_as_long_are_found_between_two_binaries() {
    use std::os::unix::fs::PermissionsExt;

    let dir = tempfile::tempdir().expect("a temporary directory");
    let base = dir.path().join("base");
    let script = format!("#!/bin/sh\nGRADMARK_FAULTS= exec '{}' \"$@\"\n", env!("CARGO_BIN_EXE_gradmark"));
    std::fs::write(&base, script).expect("writable");
    std::fs::set_permissions(&base, PermissionsExt::from_mode(0o755)).expect("a file");
    let config = Path::new("configs/smoke.toml").display();
    let arguments = format!(
        "--pair {} {config} --set network.activation=relu --device flex --sessions 5 --samples 5 --sample-ms 10 --quiet",
        base.display()
    );
    let output = gate("step_time=20", &arguments);
    assert_eq!(output.status.code(), Some(3), "{}{}", stdout(&output), stderr(&output));
}
