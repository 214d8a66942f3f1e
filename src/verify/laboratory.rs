//! Runs experiments in memory, on the device that is verified.

use std::num::NonZero;
use std::panic::resume_unwind;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use super::VerifyError;
use crate::analysis::{RunSummary, summarize};
use crate::config::{Source, read_start};
use crate::data::{Dataset, Sources};
use crate::device::{Adapter, AdapterKind, Device};
use crate::plan::{self, Plan, RunSpec};
use crate::schema::RunRows;
use crate::train::{self, Control};

/// A device, and what cases need beside it.
#[derive(Clone, Copy)]
pub struct Laboratory<'a> {
    /// The adapter that the device was opened from.
    pub adapter: &'a Adapter,
    /// What is verified.
    pub device: &'a Device,
    /// Where data sets come from.
    pub sources: &'a Sources,
    /// Becomes true when the work is to stop.
    pub stop: &'a AtomicBool,
    /// Called with the runs of an experiment that are done and those in all.
    pub progress: &'a (dyn Fn(usize, usize) + Sync),
}

/// A run, in memory.
#[derive(Debug)]
pub struct Run {
    /// What was run.
    pub spec: RunSpec,
    /// Its summary.
    pub summary: RunSummary,
    /// Its rows.
    pub rows: RunRows,
}

impl Run {
    /// The levels of the swept factors, as text: the name of the case where cases are swept.
    pub fn name(&self) -> String {
        self.spec.levels.join(" ")
    }
}

impl Laboratory<'_> {
    /// Runs the experiment of a config without the heading `[experiment]`: a text that begins with `seeds` or with a section.
    ///
    /// # Errors
    ///
    /// If it is asked to stop, the device fails, data are absent, or the config is not valid.
    pub fn run(&self, config: &str) -> Result<Vec<Run>, VerifyError> {
        self.run_config(&format!("[experiment]\nname = \"verify\"\n{config}"), &[])
    }

    /// Runs the experiment of a whole config, some of whose keys are overridden, as by `--set`.
    ///
    /// # Errors
    ///
    /// As [`Laboratory::run`].
    pub fn run_config(&self, config: &str, overrides: &[&str]) -> Result<Vec<Run>, VerifyError> {
        self.run_plan(&self.plan(config, overrides)?)
    }

    /// The data sets of the runs of a config without heading, one a run.
    ///
    /// # Errors
    ///
    /// As [`Laboratory::run`], of which nothing is run.
    pub fn datasets(&self, config: &str) -> Result<Vec<Dataset>, VerifyError> {
        let plan = self.plan(&format!("[experiment]\nname = \"verify\"\n{config}"), &[])?;
        plan.runs.iter().map(|spec| Ok(self.sources.load(&spec.config, spec.seed)?)).collect()
    }

    fn plan(&self, config: &str, overrides: &[&str]) -> Result<Plan, VerifyError> {
        let overrides: Vec<String> = overrides.iter().map(|text| (*text).to_owned()).collect();
        let source = Source::parse(Path::new("verify"), config, &overrides)?;
        Ok(plan::plan(&source, &self.adapter.label())?)
    }

    /// Every run, in the order of the plan. On the CPU several at a time: the networks are too small to fill it, and the numbers of
    /// a run do not depend on what else the machine does.
    fn run_plan(&self, plan: &Plan) -> Result<Vec<Run>, VerifyError> {
        let (next, done) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let total = plan.runs.len();
        let work = || {
            let mut made = Vec::new();
            loop {
                let place = next.fetch_add(1, Ordering::Relaxed);
                let Some(spec) = plan.runs.get(place) else {
                    return made;
                };
                let run = self.run_one(spec);
                if run.is_err() {
                    next.store(total, Ordering::Relaxed);
                }
                made.push((place, run));
                (self.progress)(done.fetch_add(1, Ordering::Relaxed) + 1, total);
            }
        };
        let mut made = thread::scope(|scope| {
            let others: Vec<_> = (1..self.threads().min(total)).map(|_| scope.spawn(work)).collect();
            let mut made = work();
            for other in others {
                // A panic goes on where it would have happened without threads.
                made.extend(other.join().unwrap_or_else(|panic| resume_unwind(panic)));
            }
            made
        });
        made.sort_by_key(|(place, _)| *place);
        made.into_iter().map(|(_, run)| run).collect()
    }

    fn threads(&self) -> usize {
        match self.adapter.kind {
            AdapterKind::Cpu => thread::available_parallelism().map_or(1, NonZero::get),
            _ => 1,
        }
    }

    /// One run.
    ///
    /// # Errors
    ///
    /// If it is asked to stop, the device fails, or data or the network that it starts from are absent.
    pub fn run_one(&self, spec: &RunSpec) -> Result<Run, VerifyError> {
        let start = read_start(&spec.config).map_err(VerifyError::Start)?;
        let dataset = self.sources.load(&spec.config, spec.seed)?;
        let control = Control { stop: self.stop, progress: &|_, _| {} };
        let mut rows = RunRows::default();
        let status = train::run(spec, &dataset, start.as_deref(), self.device, &mut rows, &control)?;
        let summary = summarize(&spec.run_id, spec.levels.clone(), spec.seed, status, &rows);
        Ok(Run { spec: spec.clone(), summary, rows })
    }
}
