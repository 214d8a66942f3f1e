//! The cases of `gradmark verify` on the CPU: results that are known from mathematics or from the literature.

#![cfg(feature = "flex")]

use std::sync::atomic::AtomicBool;

use gradmark::data::Sources;
use gradmark::device;
use gradmark::verify::agreement::{FAMILIES, compare};
use gradmark::verify::{self, CASES, Case, Expected, Finding, Laboratory, Verdict};

/// What is found on the CPU, with files from a directory and with somebody who may stop it.
fn on_the_cpu<T>(sources: &Sources, stop: bool, work: impl FnOnce(&Laboratory<'_>) -> T) -> T {
    let adapter = device::find("flex".parse().expect("a name")).expect("compiled in");
    work(&Laboratory {
        adapter: &adapter,
        device: &device::open(&adapter).expect("opens"),
        sources,
        stop: &AtomicBool::new(stop),
        progress: &|_, _| {},
    })
}

fn findings(case: &Case) -> Vec<Finding> {
    on_the_cpu(&Sources::default(), false, |cpu| verify::examine(case, cpu)).expect("nobody stops it")
}

#[track_caller]
fn assert_reproduced(name: &str) {
    let findings = findings(verify::find(name).unwrap_or_else(|error| panic!("{error}")));
    let failed: Vec<&Finding> = findings.iter().filter(|finding| finding.verdict != Verdict::Pass).collect();
    assert!(!findings.is_empty() && failed.is_empty(), "{failed:#?}");
}

/// A test a case, so that a failing one is named.
macro_rules! reproduced {
    ($($case:ident)*) => {
        $(
            #[test]
            fn $case() {
                assert_reproduced(stringify!($case));
            }
        )*
        const TESTED: &[&str] = &[$(stringify!($case)),*];
    };
}

reproduced! {
    theory
    initial_weights
    activation_functions
    selu_fixed_point
    single_neuron_chain
    non_shrinking_interval
    mean_field
    fifty_layers
    random_sign_weights
    isometry
    normalization
    running_statistics
    one_hidden_layer
    batch_norm_gradients
    residual_relu
    residual_tanh
    predicted_deltas
    rnn_through_time
    lstm_through_time
    gru_through_time
    cells_in_motion
    clipping
    clipped_descent
    regularization
    gradient_penalty
    memory_baselines
    learning_speeds
    remedies
}

#[test]
fn every_case_that_takes_seconds_is_tested_here() {
    let quick: Vec<&str> = CASES.iter().filter(|case| !case.is_long).map(|case| case.name).collect();
    assert_eq!(quick, TESTED);
}

/// The case's findings, each against an expectation that is off by twice what is tolerated.
#[test]
fn a_wrong_expectation_fails() {
    for name in ["single_neuron_chain", "normalization", "rnn_through_time", "clipping", "regularization"] {
        for finding in findings(verify::find(name).expect("a case")) {
            let (Some(value), Some(low), Some(high)) =
                (finding.expected.value, finding.expected.low, finding.expected.high)
            else {
                continue;
            };
            let shift = 2.0 * (high - low);
            let wrong = Expected {
                value: Some(value + shift),
                low: Some(low + shift),
                high: Some(high + shift),
                ..finding.expected
            };
            let wrong = Finding::new(finding.quantity, wrong, finding.measured);
            assert_eq!(wrong.verdict, Verdict::Fail, "{name}: {wrong:?}");
        }
    }
}

/// Cases measure what the network does: another network is found out.
#[test]
fn a_network_with_a_wrong_constant_fails() {
    let wrong = Case {
        name: "wrong",
        about: "a chain of sigmoid neurons with weights that are 5 % too large",
        source: "nothing",
        is_long: false,
        run: |laboratory| {
            let config =
                include_str!("../configs/single_neuron_chain.toml").replace("weight_scale = 4", "weight_scale = 4.2");
            let runs = laboratory.run_config(&config, &[])?;
            let factor = runs
                .iter()
                .find(|run| run.name().starts_with("w = 4"))
                .and_then(|run| run.rows.links[0].factor_on_device);
            Ok(vec![Finding::new("factor", Expected::relative(1.0, 1e-4), factor)])
        },
    };
    let found = findings(&wrong);
    assert_eq!((found.len(), found[0].verdict), (1, Verdict::Fail), "{found:?}");
    assert!((found[0].measured.expect("measured") - 1.05).abs() < 1e-3, "{found:?}");
}

#[test]
fn files_that_are_absent_skip_a_case_and_pass_nothing() {
    let nowhere = tempfile::tempdir().expect("a temporary directory");
    let case = verify::find("nielsen_accuracy").expect("a case");
    let sources = Sources::new(Some(nowhere.path()));
    let found = on_the_cpu(&sources, false, |cpu| verify::examine(case, cpu)).expect("nobody stops it");
    assert_eq!((found.len(), found[0].verdict), (1, Verdict::Skipped), "{found:?}");
    assert!(found[0].reason.as_deref().is_some_and(|reason| reason.contains("gradmark fetch mnist")), "{found:?}");
}

/// What needs files is skipped, and whatever trains is stopped before its first update: no config of theirs is at fault.
#[test]
fn long_cases_can_begin_and_one_that_is_stopped_has_no_findings() {
    let nowhere = tempfile::tempdir().expect("a temporary directory");
    let sources = Sources::new(Some(nowhere.path()));
    for case in CASES.iter().filter(|case| case.is_long) {
        let found = on_the_cpu(&sources, true, |cpu| verify::examine(case, cpu));
        let is_skipped = |found: &Vec<Finding>| found.iter().all(|finding| finding.verdict == Verdict::Skipped);
        assert!(found.as_ref().is_none_or(is_skipped), "{}: {found:?}", case.name);
    }
}

/// Runs that are made side by side leave the same bits as those that are not.
#[test]
fn a_device_agrees_with_itself_in_every_bit_in_every_family() {
    for family in FAMILIES {
        let found = on_the_cpu(&Sources::default(), false, |cpu| compare(family, cpu, cpu)).expect("nobody stops it");
        assert!(found.len() >= 2, "{}: {found:?}", family.name);
        for finding in found {
            assert_eq!((finding.measured, finding.verdict), (Some(0.0), Verdict::Pass), "{}: {finding:?}", family.name);
        }
    }
}
