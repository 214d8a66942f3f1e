//! `gradmark verify`

use std::panic::AssertUnwindSafe;
use std::process::ExitCode;

use clap::Args;
use serde::Serialize;

use super::guard::{quietly_catch_unwind, stop_on_ctrl_c};
use super::progress::{CASES, Progress};
use super::{DataArgs, INTERRUPTED, print, say};
use crate::data::Sources;
use crate::device::{self, Adapter, DeviceError};
use crate::report;
use crate::verify::agreement::{self, FAMILIES, Family};
use crate::verify::{self, Case, Finding, Laboratory, Outcome, Verdict};

#[derive(Debug, Args)]
pub(super) struct VerifyArgs {
    /// The device to verify: auto, flex, ndarray, wgpu, vulkan or cuda; :INDEX picks one of several adapters. auto takes the
    /// first hardware GPU, else the CPU
    #[arg(long, default_value = AUTO, value_name = "NAME[:INDEX]")]
    device: String,
    /// Compare with this device instead: the weights and gradients of every family of networks, element by element
    #[arg(long, value_name = "NAME[:INDEX]", conflicts_with_all = ["full", "list"])]
    against: Option<String>,
    /// Verify only this case, however long it takes, or with --against compare only this family; may be repeated
    #[arg(long = "case", value_name = "NAME")]
    cases: Vec<String>,
    /// Verify the cases that take minutes too; those that need files of a data set are skipped where there are none
    #[arg(long, conflicts_with = "cases")]
    full: bool,
    /// List the cases and verify nothing
    #[arg(long)]
    list: bool,
    /// Print JSON: an array of findings
    #[arg(long, conflicts_with = "list")]
    json: bool,
    /// Show no progress
    #[arg(long, short)]
    quiet: bool,
    #[command(flatten)]
    data: DataArgs,
}

pub(super) fn execute(args: &VerifyArgs) -> anyhow::Result<ExitCode> {
    let (cases, families) =
        if args.against.is_some() { (Vec::new(), families(args)?) } else { (chosen(args)?, Vec::new()) };
    if args.list {
        print(&report::case_table(verify::CASES))?;
        return Ok(ExitCode::SUCCESS);
    }
    let adapter = device::find(args.device.parse()?)?;
    let against = args.against.as_deref().map(|request| find_against(request, &args.device, &adapter)).transpose()?;
    let sources = Sources::new(args.data.data_dir.as_deref());
    let stop = stop_on_ctrl_c()?;
    let count = families.len() + cases.len();
    let progress = Progress::new(count, &CASES, args.quiet);
    let advance = |done, total| progress.advance(done, total);
    let laboratory =
        |adapter, device| Laboratory { adapter, device, sources: &sources, stop: &stop, progress: &advance };

    let device = device::open(&adapter)?;
    let measured = laboratory(&adapter, &device);
    let outcomes = if let Some(against) = &against {
        let device = device::open(against)?;
        let expected = laboratory(against, &device);
        progress.remark(&format!("comparing {} with {}", described(&adapter), described(against)));
        let source = format!("the same on {}", against.label());
        let compare = |family| move || agreement::compare(family, &expected, &measured);
        examine_all(families.iter().map(|family| (family.name, source.clone(), compare(*family))), &progress)
    } else {
        progress.remark(&format!("verifying {}", described(&adapter)));
        let examine = |case| move || verify::examine(case, &measured);
        examine_all(cases.iter().map(|case| (case.name, case.source.to_owned(), examine(*case))), &progress)
    };
    progress.end();

    print_outcomes(&outcomes, &adapter, against.as_ref(), args.json)?;
    if outcomes.len() < count {
        say(&format!("stopped: {} of {count} cases are done", outcomes.len()));
        return Ok(ExitCode::from(INTERRUPTED));
    }
    Ok(ExitCode::from(code(&outcomes)))
}

/// The outcomes of cases, each with its name, the source of what it expects and what measures it, up to the one at which it was
/// asked to stop.
fn examine_all<F: FnOnce() -> Option<Vec<Finding>>>(
    cases: impl Iterator<Item = (&'static str, String, F)>,
    progress: &Progress,
) -> Vec<Outcome> {
    let mut outcomes = Vec::new();
    for (case, source, examine) in cases {
        progress.start(case);
        let Some(findings) = guarded(examine) else {
            break;
        };
        let outcome = Outcome { case, source, findings };
        progress.finish(outcomes.len() + 1, case, &tally(std::slice::from_ref(&outcome)));
        outcomes.push(outcome);
    }
    outcomes
}

/// The cases that are asked for, in the order of the list.
fn chosen(args: &VerifyArgs) -> anyhow::Result<Vec<&'static Case>> {
    if args.cases.is_empty() {
        return Ok(verify::CASES.iter().filter(|case| args.full || !case.is_long).collect());
    }
    let named = args.cases.iter().map(|name| verify::find(name)).collect::<Result<Vec<_>, _>>()?;
    Ok(verify::CASES.iter().filter(|case| named.iter().any(|named| named.name == case.name)).collect())
}

/// The device to compare with.
fn find_against(request: &str, device: &str, adapter: &Adapter) -> Result<Adapter, AgainstError> {
    let found = device::find(request.parse().map_err(AgainstError::Device)?).map_err(AgainstError::Device)?;
    let is_same = found.backend == adapter.backend && found.index == adapter.index;
    if is_same && device == AUTO {
        return Err(AgainstError::Same(request.to_owned(), adapter.label()));
    }
    Ok(found)
}

/// The default of `--device`.
const AUTO: &str = "auto";

/// A device that nothing can be compared with.
#[derive(Debug, thiserror::Error)]
pub(super) enum AgainstError {
    #[error("{}", .0.to_string().replacen("--device", "--against", 1))]
    Device(DeviceError),
    #[error(
        "--against {0}: --device auto takes {1} too, and a device agrees with itself; name another one with --device"
    )]
    Same(String, String),
}

/// The families that are asked for, in their order; all if none is named.
fn families(args: &VerifyArgs) -> anyhow::Result<Vec<&'static Family>> {
    let named = args.cases.iter().map(|name| verify::find_family(name)).collect::<Result<Vec<_>, _>>()?;
    let is_chosen = |family: &&Family| named.is_empty() || named.iter().any(|named| named.name == family.name);
    Ok(FAMILIES.iter().filter(is_chosen).collect())
}

/// Measures; `None` if it was asked to stop. Burn panics where a device is lost or lacks something: that is a failure.
fn guarded(examine: impl FnOnce() -> Option<Vec<Finding>>) -> Option<Vec<Finding>> {
    quietly_catch_unwind(AssertUnwindSafe(examine)).unwrap_or_else(|message| {
        let reason = format!("the device, its driver or gradmark failed: {message}");
        Some(vec![Finding::failed("everything", reason)])
    })
}

/// The label of an adapter, with a warning where it only imitates a GPU.
fn described(adapter: &Adapter) -> String {
    let remark = if adapter.is_software() { " (a software adapter: no GPU)" } else { "" };
    format!("{}{remark}", adapter.label())
}

/// `12 pass, 1 fails`
fn tally(outcomes: &[Outcome]) -> String {
    let findings = || outcomes.iter().flat_map(|outcome| &outcome.findings);
    let count = |verdict| findings().filter(|finding| finding.verdict == verdict).count();
    let counts = [(Verdict::Pass, "pass"), (Verdict::Fail, "fail"), (Verdict::Skipped, "skipped")];
    let counts = counts.map(|(verdict, name)| (count(verdict), name));
    let present: Vec<String> =
        counts.iter().filter(|(count, _)| *count > 0).map(|(count, name)| format!("{count} {name}")).collect();
    present.join(", ")
}

/// A finding with the device that it was made on.
#[derive(Serialize)]
struct Printed<'a> {
    case: &'a str,
    source: &'a str,
    #[serde(flatten)]
    finding: &'a Finding,
    device: &'a str,
    is_software_adapter: bool,
    against: Option<&'a str>,
}

fn print_outcomes(
    outcomes: &[Outcome],
    adapter: &Adapter,
    against: Option<&Adapter>,
    as_json: bool,
) -> anyhow::Result<()> {
    if !as_json {
        print(&report::verify_table(outcomes))?;
        let other = against.map(|against| format!(" against {}", described(against))).unwrap_or_default();
        return print(&format!("{}{other}: {}", described(adapter), tally(outcomes)));
    }
    let (device, against) = (adapter.label(), against.map(Adapter::label));
    let printed = outcomes.iter().flat_map(|outcome| {
        outcome.findings.iter().map(|finding| Printed {
            case: outcome.case,
            source: &outcome.source,
            finding,
            device: &device,
            is_software_adapter: adapter.is_software(),
            against: against.as_deref(),
        })
    });
    print(&serde_json::to_string_pretty(&printed.collect::<Vec<_>>())?)
}

/// The exit code: 1 if a finding fails. What was skipped has not failed, but if nothing else was asked for, it is as with any
/// other command that lacks its data: 2.
fn code(outcomes: &[Outcome]) -> u8 {
    let mut findings = outcomes.iter().flat_map(|outcome| &outcome.findings);
    let any = |verdict| outcomes.iter().flat_map(|outcome| &outcome.findings).any(|finding| finding.verdict == verdict);
    if any(Verdict::Fail) {
        1
    } else if findings.all(|finding| finding.verdict == Verdict::Skipped) {
        2
    } else {
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verify::Expected;

    fn outcome(findings: Vec<Finding>) -> Outcome {
        Outcome { case: "c", source: "s".to_owned(), findings }
    }

    #[test]
    fn one_finding_that_fails_makes_the_exit_code_1_and_what_is_skipped_does_not() {
        let passed = || Finding::new("q", Expected::above(0.0), Some(1.0));
        let failed = || Finding::new("q", Expected::above(0.0), Some(-1.0));
        let skipped = || Finding::skipped("q", "no files");
        assert_eq!(code(&[outcome(vec![passed(), passed()]), outcome(vec![passed()])]), 0);
        assert_eq!(code(&[outcome(vec![passed()]), outcome(vec![passed(), failed()])]), 1);
        assert_eq!(code(&[outcome(vec![passed()]), outcome(vec![skipped()])]), 0);
        assert_eq!(code(&[outcome(vec![skipped()]), outcome(vec![failed()])]), 1);
        assert_eq!(code(&[outcome(vec![skipped()])]), 2);
        assert_eq!(tally(&[outcome(vec![passed(), failed(), skipped()])]), "1 pass, 1 fail, 1 skipped");
    }

    #[test]
    fn a_device_that_panics_fails_the_case() {
        let found = guarded(|| panic!("the device is lost")).expect("not stopped");
        let reason = found[0].reason.clone().unwrap_or_default();
        assert!(reason.contains("the device is lost"), "{reason}");
        assert_eq!(code(&[outcome(found)]), 1);
    }

    #[test]
    fn after_a_case_that_fails_come_the_others_and_after_one_that_is_stopped_none() {
        let examine = |name| {
            move || match name {
                "lost" => panic!("the device is lost"),
                "stopped" => None,
                _ => Some(vec![Finding::new("q", Expected::above(0.0), Some(1.0))]),
            }
        };
        let cases = ["lost", "next", "stopped", "last"].into_iter().map(|name| (name, String::new(), examine(name)));
        let outcomes = examine_all(cases, &Progress::new(4, &CASES, true));
        let names: Vec<&str> = outcomes.iter().map(|outcome| outcome.case).collect();
        assert_eq!((names, code(&outcomes)), (vec!["lost", "next"], 1));
    }
}
