//! `gradmark gate`

mod baseline;
mod pair;
mod science;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::SystemTime;

use clap::{ArgGroup, Args};

use super::speed::{GATE_SESSIONS, SpeedArgs, sessions};
use super::{INCOMPARABLE, print, say};
use crate::analysis::{Attempt, DEFAULT_THRESHOLD};
use crate::device;
use crate::gate::{ALLOWABLE, Configuration, Difference, Trial, differences, refused};
use crate::record::{self, Baseline, BaselineSource, BaselineStore, Environment, Session, write_verdicts};
use crate::report;
use crate::schema::{Verdict, VerdictRow};

pub(super) use pair::NoConfig;

/// The exit code of a regression.
const REGRESSION: u8 = 3;

/// The seconds from an attempt to the next: three attempts span longer than the spells of a minute and a half in which a machine that
/// others use too was disturbed.
const DEFAULT_PAUSE: f64 = 45.0;

/// clap's ids of what a gate can be.
const KINDS: [&str; 3] = ["baseline", "pair", "science"];

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("kind").required(true).args(KINDS), after_help = "\
A change of speed is called only if all of this holds in three attempts, one after the other: the 95 % interval of the ratio of step \
times excludes 1, and the change is larger than the threshold and than the noise floor, which measurements of one program against itself \
show. On the CPU the ratio has to show it as well after division by those of fixed pieces of work.

Exit codes: 0 passed, 1 a process that measures failed, 2 wrong usage, 3 regression, 4 not comparable or too few samples.")]
pub(super) struct GateArgs {
    /// Compare the speed with the baseline of this name, which `gradmark baseline save` has left, and with what passed last
    #[arg(long, value_name = "NAME")]
    baseline: Option<String>,
    /// Compare the speed with that of another gradmark, which is measured in turn with this one: the strongest form
    #[arg(long, value_name = "BINARY")]
    pair: Option<PathBuf>,
    /// Compare losses, accuracies and gradients with a reference
    #[arg(long)]
    science: bool,
    /// The config, a TOML file [default: with --baseline the one that it was saved with, with --science configs/science.toml]
    config: Option<PathBuf>,
    /// The relative change of the time of a step, in percent, up to which nothing is called
    #[arg(long, default_value_t = DEFAULT_THRESHOLD * 100.0, value_name = "PERCENT", value_parser = percent, conflicts_with = "science")]
    threshold: f64,
    /// Sessions, or rounds of pairs, of an attempt, each in new processes, at least 3
    #[arg(long, default_value_t = GATE_SESSIONS, value_name = "N", value_parser = sessions, conflicts_with = "science")]
    sessions: usize,
    /// The seconds before a change beside a baseline is measured again, so that what disturbs the machine for a while does not meet every
    /// attempt
    #[arg(long, default_value_t = DEFAULT_PAUSE, value_name = "SECONDS", value_parser = seconds, conflicts_with_all = ["science", "pair", "criterion"])]
    pause: f64,
    /// Compare in spite of a difference of machine or build that is named: adapter, arch, backend, cores, cpu, driver, features,
    /// profile or threads; may be repeated
    #[arg(long, value_name = "DIFFERENCE", value_parser = clap::builder::PossibleValuesParser::new(ALLOWABLE), conflicts_with = "science")]
    allow: Vec<String>,
    /// Compare criterion's results in this directory, such as target/criterion, with a baseline of such results
    #[arg(long, value_name = "DIR", requires = "baseline", conflicts_with_all = ["config", "overrides", "sessions", "samples", "sample_ms"])]
    criterion: Option<PathBuf>,
    /// What measures criterion's results anew for another attempt, such as `cargo bench --bench training_step`
    #[arg(long, value_name = "COMMAND", requires = "criterion")]
    bench: Option<String>,
    /// Where a configuration became faster, make its speed the baseline
    #[arg(long, requires = "baseline")]
    update_on_improvement: bool,
    /// Write the table as CSV to this file
    #[arg(long, value_name = "FILE", conflicts_with = "science")]
    csv: Option<PathBuf>,
    /// The reference of the science gate
    #[arg(long, default_value = "results/reference/science/reference.csv", value_name = "FILE", requires = "science")]
    reference: PathBuf,
    /// Write the reference anew, after a change that is meant
    #[arg(long, requires = "science")]
    update: bool,
    #[command(flatten)]
    speed: SpeedArgs,
}

pub(super) fn execute(args: &GateArgs) -> anyhow::Result<ExitCode> {
    if let Some(name) = &args.baseline {
        baseline::execute(name, args)
    } else if let Some(base) = &args.pair {
        pair::execute(base, args)
    } else {
        science::execute(args)
    }
}

impl GateArgs {
    /// As a fraction.
    fn threshold(&self) -> f64 {
        self.threshold / 100.0
    }
}

fn percent(text: &str) -> Result<f64, String> {
    match text.trim_end_matches('%').trim_end().parse() {
        Ok(percent) if percent > 0.0 && percent <= 1000.0 => Ok(percent),
        _ => Err("must be a number of percent above 0 and at most 1000, such as 5".to_owned()),
    }
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(seconds) if (0.0..=86_400.0).contains(&seconds) => Ok(seconds),
        _ => Err("must be a number of seconds from 0 to 86400".to_owned()),
    }
}

/// Two sides that cannot be compared, or too few samples of one.
#[derive(Debug, thiserror::Error)]
#[error("{}: {problem}; {mend}", path.display())]
pub(super) struct Incomparable {
    path: PathBuf,
    problem: String,
    mend: String,
}

impl Incomparable {
    pub(super) fn new(path: &Path, problem: impl Into<String>, mend: impl Into<String>) -> Self {
        Self { path: path.to_owned(), problem: problem.into(), mend: mend.into() }
    }
}

/// Refuses another machine or another build, unless the difference is allowed.
pub(super) fn check_environment(
    baseline: &Baseline,
    now: &Environment,
    allowed: &[String],
    store: &BaselineStore,
) -> Result<Vec<Difference>, Incomparable> {
    check_differences(store.dir(), differences(&baseline.environment, now), allowed)
}

fn check_differences(path: &Path, found: Vec<Difference>, allowed: &[String]) -> Result<Vec<Difference>, Incomparable> {
    let in_the_way = refused(&found, allowed);
    if in_the_way.is_empty() {
        return Ok(found);
    }
    let told: Vec<String> = in_the_way.iter().map(|difference| described(difference)).collect();
    let allowable: Vec<String> = in_the_way
        .iter()
        .filter(|difference| ALLOWABLE.contains(&difference.name))
        .map(|difference| format!("--allow {}", difference.name))
        .collect();
    let mend = if allowable.len() == in_the_way.len() {
        format!("measure on the same machine with the same build, or pass {}", allowable.join(" "))
    } else {
        "measure on the same machine with the same build: a software adapter is no measure of hardware".to_owned()
    };
    Err(Incomparable::new(path, format!("cannot be compared: {}", told.join("; ")), mend))
}

/// `cpu was A, is B`
pub(super) fn described(difference: &Difference) -> String {
    format!("{} was {}, is {}", difference.name, difference.baseline, difference.now)
}

/// Refuses a config whose configurations are not those of the baseline.
pub(super) fn check_configurations(
    baseline: &Baseline,
    now: &[Configuration],
    store: &BaselineStore,
) -> Result<(), Incomparable> {
    let mend = "name the config that the baseline was saved with, or save a baseline of this one";
    let refuse = |problem: String| Err(Incomparable::new(store.dir(), problem, mend));
    for one in now {
        match baseline.configurations.iter().find(|kept| kept.name == one.name) {
            None => return refuse(format!("has no configuration `{}`, and the config has one", one.name)),
            Some(kept) if !kept.config.as_ref().is_some_and(|config| one.is_of(config)) => {
                return refuse(format!("its configuration `{}` has other keys than that of the config", one.name));
            }
            Some(_) => {}
        }
    }
    let absent = |kept: &&record::BaselineConfiguration| !now.iter().any(|one| one.name == kept.name);
    match baseline.configurations.iter().find(absent) {
        Some(kept) => refuse(format!("has a configuration `{}`, and the config has none", kept.name)),
        None => Ok(()),
    }
}

/// Refuses criterion's results beside a baseline of a config.
pub(super) fn check_is_of_criterion(baseline: &Baseline, store: &BaselineStore) -> Result<(), Incomparable> {
    match &baseline.source {
        BaselineSource::Criterion { .. } => Ok(()),
        BaselineSource::Config { path, .. } => {
            let problem = format!("is a baseline of {}, and not of criterion's results", path.display());
            Err(Incomparable::new(store.dir(), problem, "name another baseline, or leave --criterion out"))
        }
    }
}

/// The machine that the benches ran on: their device is that of `GRADMARK_DEVICE`, unless another one is named.
pub(super) fn criterion_environment(device: &str) -> anyhow::Result<Environment> {
    let of_benches = std::env::var("GRADMARK_DEVICE").ok().filter(|_| device == "auto");
    Ok(Environment::new(&device::find(of_benches.as_deref().unwrap_or(device).parse()?)?))
}

/// Criterion's latest results, each a session.
pub(super) fn criterion_sessions(dir: &Path) -> anyhow::Result<Vec<(String, Session)>> {
    let session = |benchmark: record::CriterionBenchmark| {
        let step_ms = benchmark.iteration_times_ns().into_iter().map(|ns| ns / 1e6).collect();
        (benchmark.id, Session { step_ms, ..Session::default() })
    };
    Ok(record::load_criterion(dir)?.into_iter().map(session).collect())
}

/// Says that another attempt begins, after so many seconds.
fn announce(args: &GateArgs, attempt: usize, open: usize, pause: f64) {
    if attempt > 0 && !args.speed.quiet {
        let plural = if open == 1 { "" } else { "s" };
        let when = if pause > 0.0 { format!(" in {pause} s") } else { String::new() };
        say(&format!("{open} configuration{plural} changed: measuring again{when}"));
    }
}

/// What all rows of a gate have in common.
fn row_of(
    environment: &Environment,
    configuration: &str,
    trial: &Trial,
    threshold: f64,
    step_ms: [f64; 2],
) -> VerdictRow {
    let last = trial.attempts.last();
    let ratio = |part: fn(&crate::analysis::TimeRatio) -> f64| last.map_or(f64::NAN, |attempt| part(&attempt.ratio));
    VerdictRow {
        measured_at: humantime::format_rfc3339_millis(SystemTime::now()).to_string(),
        gradmark_version: environment.gradmark_version.clone(),
        commit: environment.commit.clone(),
        dirty: environment.dirty,
        burn_version: environment.burn_version.clone(),
        device: environment.adapter.label(),
        configuration: configuration.to_owned(),
        against: trial.against,
        baseline_step_ms: step_ms[0],
        step_ms: step_ms[1],
        ratio: ratio(|ratio| ratio.ratio),
        ratio_low: ratio(|ratio| ratio.low),
        ratio_high: ratio(|ratio| ratio.high),
        corrected_ratio: last.and_then(Attempt::least_corrected).map(|ratio| ratio.ratio),
        noise_floor: last.map_or(f64::NAN, |attempt| attempt.noise_floor),
        threshold,
        attempts: trial.attempts.len(),
        verdict: trial.verdict(threshold),
    }
}

/// Prints the rows, writes them if that is asked for, and says what the gate says.
fn conclude(args: &GateArgs, rows: &[VerdictRow]) -> anyhow::Result<ExitCode> {
    print(&report::verdict_table(rows))?;
    if let Some(path) = &args.csv {
        write_verdicts(path, rows)?;
    }
    let count = |verdict: Verdict| rows.iter().filter(|row| row.verdict == verdict).count();
    let (regressions, unconfirmed) = (count(Verdict::Regression), count(Verdict::Unconfirmed));
    let plural = |count: usize| if count == 1 { "" } else { "s" };
    if regressions > 0 {
        print(&format!("{regressions} regression{} of {}", plural(regressions), rows.len()))?;
        return Ok(ExitCode::from(REGRESSION));
    }
    if unconfirmed > 0 {
        print(&format!(
            "{unconfirmed} change{} of {} not confirmed: too few samples; let the benches be repeated with --bench \
             \"cargo bench\", for example",
            plural(unconfirmed),
            rows.len()
        ))?;
        return Ok(ExitCode::from(INCOMPARABLE));
    }
    print(&format!("passed: no regression in {} comparison{}", rows.len(), plural(rows.len())))?;
    Ok(ExitCode::SUCCESS)
}
