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
use crate::config::{Source, read_start};
use crate::data::{Dataset, Sources};
use crate::device::{self, Device};
use crate::plan::{self, Plan, RunSpec};
use crate::record::{self, Environment, ExperimentStore, Manifest, StoreError};
use crate::schema::{RunStatus, SCHEMA_VERSION};
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
    for (done, spec) in due.iter().enumerate() {
        if stop.load(Ordering::Relaxed) {
            interrupted = true;
            break;
        }
        let name = run_name(&plan, spec);
        match runner.run(spec, &name) {
            Ok(status) => progress.finish(done + 1, &name, &outcome(&status)),
            Err(error) if is_interruption(&error) => {
                interrupted = true;
                break;
            }
            Err(error) => {
                progress.end();
                return Err(error.context(format!("run {} ({name})", spec.run_id)));
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

impl Runner<'_> {
    /// Makes one run and its files.
    fn run(&self, spec: &RunSpec, name: &str) -> anyhow::Result<RunStatus> {
        let dataset: Dataset = self.sources.load(&spec.config, spec.seed)?;
        let start = read_start(&spec.config).context("the network in `training.start_from` cannot be read")?;
        let mut files = self.store.begin(&spec.run_id)?;
        let started = SystemTime::now();
        self.progress.start(&format!("{name}: measuring throughput"));
        let control = Control { stop: self.stop, progress: &|done, total| self.progress.step(name, done, total) };
        // Burn panics where a device is lost in the middle of an operation.
        let training =
            AssertUnwindSafe(|| train::run(spec, &dataset, start.as_deref(), self.device, &mut files, &control));
        let status = match quietly_catch_unwind(training) {
            Ok(Ok(status)) => status,
            Ok(Err(TrainError::Write(source))) => {
                let path = files.temporary_dir().to_owned();
                return Err(StoreError::Write { path, source }.into());
            }
            Ok(Err(error)) => return Err(error.into()),
            Err(message) => anyhow::bail!("the device, its driver or gradmark failed: {message}"),
        };
        let manifest = Manifest {
            schema_version: SCHEMA_VERSION,
            run_id: spec.run_id.clone(),
            experiment: self.plan.experiment.clone(),
            question: self.plan.question.clone(),
            status: status.clone(),
            factors: factors_of(self.plan, spec),
            seed: spec.seed,
            data_sha256: dataset.sha256.map(str::to_owned),
            rows: files.row_counts(),
            config: spec.config.clone(),
            environment: self.environment.clone(),
            started_at: humantime::format_rfc3339_millis(started).to_string(),
            finished_at: humantime::format_rfc3339_millis(SystemTime::now()).to_string(),
        };
        files.commit(&manifest)?;
        Ok(status)
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
    let factor = |(factor, level): (&String, &String)| format!("{}={level} ", crate::report::short_name(factor));
    let factors: String = plan.factors.iter().zip(&spec.levels).map(factor).collect();
    format!("{factors}seed={}", spec.seed)
}

fn outcome(status: &RunStatus) -> String {
    match status {
        RunStatus::Complete => COMPLETE.to_owned(),
        RunStatus::Diverged { diverged_at_step } => format!("diverged at step {diverged_at_step}"),
    }
}

fn is_interruption(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref::<TrainError>(), Some(TrainError::Interrupted))
}
