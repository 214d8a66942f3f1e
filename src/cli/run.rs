//! `gradmark run`

use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use anyhow::Context;
use clap::Args;

use super::guard::{quietly_catch_unwind, stop_on_ctrl_c};
use super::progress::{COMPLETE, Progress, RUNS};
use super::report::write_report;
use super::{DataArgs, ExperimentArgs, INTERRUPTED, say};
use crate::config::{RunConfig, Source, read_start};
use crate::data::{Dataset, Sources};
use crate::device::{self, Device};
use crate::plan::{self, Plan, RunSpec};
use crate::record::{self, Environment, ExperimentStore, Manifest, PendingRun, StoreError};
use crate::schema::{GradientCoverage, RowSink, RunStatus, SCHEMA_VERSION};
use crate::train::{self, Control, TrainError};

#[derive(Debug, Args)]
pub(super) struct RunArgs {
    #[command(flatten)]
    experiment: ExperimentArgs,
    #[command(flatten)]
    data: DataArgs,
    /// The directory of all results; the experiment's name is added
    #[arg(long, default_value = "results", value_name = "DIR")]
    out: PathBuf,
    /// Run what is there already once more and replace it
    #[arg(long)]
    force: bool,
    /// Show no progress
    #[arg(long, short)]
    quiet: bool,
}

pub(super) fn execute(args: &RunArgs) -> anyhow::Result<ExitCode> {
    let source = Source::load(&args.experiment.config, &args.experiment.overrides)?;
    let adapter = device::find(args.experiment.device.parse()?)?;
    let plan = plan::plan(&source, &adapter.label())?;
    let sources = Sources::new(args.data.data_dir.as_deref());
    // What is wrong with the data is known before anything is written. Complete runs do not need them.
    for spec in &plan.runs {
        if args.force || !record::has_run(&args.out, &plan.experiment, &spec.run_id) {
            sources.require(&spec.config)?;
        }
    }
    let device = device::open(&adapter)?;
    check_starts(&source, &plan, &sources, &device, |spec| {
        args.force || !record::has_run(&args.out, &plan.experiment, &spec.run_id)
    })?;
    let store = ExperimentStore::open(&args.out, &plan.experiment)?;
    let stop = stop_on_ctrl_c()?;

    let (kept, due): (Vec<&RunSpec>, Vec<&RunSpec>) =
        plan.runs.iter().partition(|spec| !args.force && store.has(&spec.run_id));
    let progress = Progress::new(due.len(), &RUNS, args.quiet);
    progress.remark(&format!(
        "{}: {} runs on {}{}",
        plan.experiment,
        due.len(),
        adapter.label(),
        if adapter.is_software() { ", a software adapter: no measure of a GPU" } else { "" },
    ));
    if !kept.is_empty() {
        progress.remark(&format!("{} complete runs are kept and skipped; --force repeats them", kept.len()));
    }

    let runner = Runner {
        plan: &plan,
        sources: &sources,
        store: &store,
        device: &device,
        environment: Environment::new(&adapter),
        stop: &stop,
        progress: &progress,
    };
    let mut interrupted = false;
    // The configuration whose gradients were remarked on last: seeds of one configuration follow each other.
    let mut remarked: Option<&RunConfig> = None;
    let mut done = 0;
    for group in plan::groups(&due, !args.experiment.no_batch_seeds) {
        if stop.load(Ordering::Relaxed) {
            interrupted = true;
            break;
        }
        let ended = match runner.run(&group) {
            Ok(ended) => ended,
            Err(error) if is_interruption(&error) => {
                interrupted = true;
                break;
            }
            Err(error) => {
                progress.end();
                return Err(error.context(format!("run {} ({})", group[0].run_id, group_name(&plan, &group))));
            }
        };
        for (spec, Ended { status, coverage }) in group.iter().zip(ended) {
            done += 1;
            let name = run_name(&plan, spec);
            progress.finish(done, &name, &outcome(&status));
            if remarked != Some(&spec.config)
                && let Some(gaps) = coverage.as_ref().and_then(gaps)
            {
                progress.remark(&format!("{name}: at the first step {gaps}"));
                remarked = Some(&spec.config);
            }
        }
    }
    progress.end();

    let mut found = record::load_experiment(store.dir())?;
    let mut runs = Vec::new();
    for spec in &plan.runs {
        if let Some(place) = found.iter().position(|run| run.manifest.run_id == spec.run_id) {
            let mut run = found.swap_remove(place);
            // A run that was kept may have been made for another sweep.
            run.manifest.factors = factors_of(&plan, spec);
            runs.push(run);
        }
    }
    let (shown, others) = (runs.len(), found.len());
    if !runs.is_empty() {
        write_report(store.dir(), &runs)?;
    }
    if others > 0 && !args.quiet {
        say(&format!("{others} runs of other configs or devices in {} are left out", store.dir().display()));
    }
    if interrupted {
        say(&format!("stopped: {shown} of {} runs are complete; the same command continues", plan.runs.len()));
        return Ok(ExitCode::from(INTERRUPTED));
    }
    Ok(ExitCode::SUCCESS)
}

/// What all runs of a command share.
struct Runner<'a> {
    plan: &'a Plan,
    sources: &'a Sources,
    store: &'a ExperimentStore,
    device: &'a Device,
    environment: Environment,
    stop: &'a AtomicBool,
    progress: &'a Progress,
}

/// How a run ended, and which parameters had a gradient at its first step.
struct Ended {
    status: RunStatus,
    coverage: Option<GradientCoverage>,
}

impl Runner<'_> {
    /// Makes one run, or a group whose networks train together, and the files of each.
    fn run(&self, group: &[&RunSpec]) -> anyhow::Result<Vec<Ended>> {
        let (first, name) = (group[0], group_name(self.plan, group));
        let dataset: Dataset = self.sources.load(&first.config, first.seed)?;
        let start = read_start(&first.config).context("the network in `training.start_from` cannot be read")?;
        let mut files = group.iter().map(|spec| self.store.begin(&spec.run_id)).collect::<Result<Vec<_>, _>>()?;
        let started = SystemTime::now();
        self.progress.start(&format!("{name}: measuring throughput"));
        let control = Control { stop: self.stop, progress: &|done, total| self.progress.step(&name, done, total) };
        let sinks = files.iter_mut().map(|files| files as &mut dyn RowSink);
        let runs = group.iter().copied().zip(sinks).collect();
        // Burn panics where a device is lost in the middle of an operation.
        let training =
            AssertUnwindSafe(|| train::run_together(runs, &dataset, start.as_deref(), self.device, &control));
        let statuses = match quietly_catch_unwind(training) {
            Ok(Ok(statuses)) => statuses,
            Ok(Err(TrainError::Write(cause))) => {
                let path = files[0].temporary_dir().to_owned();
                return Err(StoreError::Write { path, cause }.into());
            }
            Ok(Err(error)) => return Err(error.into()),
            Err(message) => anyhow::bail!("the device, its driver or gradmark failed: {message}"),
        };
        let mut ended = Vec::new();
        for ((spec, files), status) in group.iter().zip(files).zip(statuses) {
            let manifest = self.manifest(spec, &files, status, &dataset, group.len(), started);
            files.commit(&manifest)?;
            ended.push(Ended { status: manifest.status, coverage: manifest.gradient_coverage });
        }
        Ok(ended)
    }

    fn manifest(
        &self,
        spec: &RunSpec,
        files: &PendingRun,
        status: RunStatus,
        dataset: &Dataset,
        trained_together: usize,
        started: SystemTime,
    ) -> Manifest {
        Manifest {
            schema_version: SCHEMA_VERSION,
            run_id: spec.run_id.clone(),
            experiment: self.plan.experiment.clone(),
            question: self.plan.question.clone(),
            status,
            factors: factors_of(self.plan, spec),
            seed: spec.seed,
            data_sha256: dataset.sha256.map(str::to_owned),
            no_prediction: files.no_prediction().map(str::to_owned),
            rows: files.row_counts(),
            gradient_coverage: files.gradient_coverage().cloned(),
            trained_together,
            config: spec.config.clone(),
            environment: self.environment.clone(),
            started_at: humantime::format_rfc3339_millis(started).to_string(),
            finished_at: humantime::format_rfc3339_millis(SystemTime::now()).to_string(),
        }
    }
}

/// Finds out before anything is written whether saved networks fit those that are to start from them: once for each
/// configuration, in which seeds differ in nothing that matters here.
fn check_starts(
    source: &Source,
    plan: &Plan,
    sources: &Sources,
    device: &Device,
    is_due: impl Fn(&RunSpec) -> bool,
) -> anyhow::Result<()> {
    for specs in plan.runs.chunk_by(|a, b| a.config == b.config) {
        let Some(spec) = specs.iter().find(|spec| is_due(spec)) else {
            continue;
        };
        let Some(saved) = read_start(&spec.config)? else {
            continue;
        };
        let dataset = sources.load(&spec.config, spec.seed)?;
        train::check_start(spec, &dataset, &saved, device)
            .map_err(|error| source.refuse_start(&spec.levels, &error.to_string()))?;
    }
    Ok(())
}

/// Each swept factor with its level in a run.
fn factors_of(plan: &Plan, spec: &RunSpec) -> Vec<(String, String)> {
    plan.factors.iter().cloned().zip(spec.levels.iter().cloned()).collect()
}

/// `depth=4 case=relu seed=3`
fn run_name(plan: &Plan, spec: &RunSpec) -> String {
    format!("{}seed={}", factor_names(plan, spec), spec.seed)
}

/// `depth=4 case=relu `
fn factor_names(plan: &Plan, spec: &RunSpec) -> String {
    let factor = |(factor, level): (&String, &String)| format!("{}={level} ", crate::report::short_name(factor));
    plan.factors.iter().zip(&spec.levels).map(factor).collect()
}

/// The name of its only run, or `depth=4 case=relu 64 seeds`.
fn group_name(plan: &Plan, group: &[&RunSpec]) -> String {
    match group {
        [spec] => run_name(plan, spec),
        _ => format!("{}{} seeds", factor_names(plan, group[0]), group.len()),
    }
}

fn outcome(status: &RunStatus) -> String {
    match status {
        RunStatus::Complete => COMPLETE.to_owned(),
        RunStatus::Diverged { diverged_at_step } => format!("diverged at step {diverged_at_step}"),
    }
}

/// `12 of 101 parameters have a gradient of exactly 0: hidden.0.weight, hidden.0.bias and 10 more`; nothing if every parameter
/// has a finite gradient other than 0.
fn gaps(coverage: &GradientCoverage) -> Option<String> {
    let GradientCoverage { parameters, without_gradient, zero, nonfinite } = coverage;
    let lists = [
        (without_gradient, "no gradient"),
        (zero, "a gradient of exactly 0"),
        (nonfinite, "a gradient that is not finite"),
    ];
    let gap = |(names, what): (&Vec<String>, &str)| {
        let have = if names.len() == 1 { "has" } else { "have" };
        format!("{} of {parameters} parameters {have} {what}: {}", names.len(), shortened(names))
    };
    let gaps: Vec<String> = lists.into_iter().filter(|(names, _)| !names.is_empty()).map(gap).collect();
    (!gaps.is_empty()).then(|| gaps.join("; "))
}

/// All of a few names, else the first two and how many more there are.
fn shortened(names: &[String]) -> String {
    match names {
        [first, second, _, _, ..] => format!("{first}, {second} and {} more", names.len() - 2),
        _ => names.join(", "),
    }
}

fn is_interruption(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref::<TrainError>(), Some(TrainError::Interrupted))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(count: usize) -> Vec<String> {
        (0..count).map(|layer| format!("hidden.{layer}.weight")).collect()
    }

    #[test]
    fn a_remark_counts_the_parameters_and_names_the_first() {
        let coverage = |zero| GradientCoverage { parameters: 101, zero, ..GradientCoverage::default() };
        assert_eq!(gaps(&coverage(names(0))), None);
        let remark = |count| gaps(&coverage(names(count))).expect("a remark");
        assert_eq!(remark(1), "1 of 101 parameters has a gradient of exactly 0: hidden.0.weight");
        assert!(remark(3).ends_with("0: hidden.0.weight, hidden.1.weight, hidden.2.weight"), "{}", remark(3));
        let expected =
            "12 of 101 parameters have a gradient of exactly 0: hidden.0.weight, hidden.1.weight and 10 more";
        assert_eq!(remark(12), expected);
    }

    #[test]
    fn parameters_without_a_gradient_are_told_from_those_whose_gradient_is_not_finite() {
        let coverage = GradientCoverage {
            parameters: 3,
            without_gradient: vec!["output.bias".to_owned()],
            zero: Vec::new(),
            nonfinite: names(2),
        };
        let expected = "1 of 3 parameters has no gradient: output.bias; 2 of 3 parameters have a gradient that is not \
                        finite: hidden.0.weight, hidden.1.weight";
        assert_eq!(gaps(&coverage).as_deref(), Some(expected));
    }
}
