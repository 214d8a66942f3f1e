//! What `gradmark baseline` and `gradmark gate` have in common: whose speed is measured, and how much.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::Args;

use super::DataArgs;
use super::guard::stop_on_ctrl_c;
use super::progress::{Progress, SESSIONS};
use crate::analysis::{MINIMUM_SAMPLES, MINIMUM_SESSIONS};
use crate::config::Source;
use crate::data::Sources;
use crate::device::{self, AdapterKind};
use crate::gate::{self, Configuration, Effort, MeasurerError, PairLevels, QuietLimit};
use crate::plan;
use crate::record::{Environment, Session};

/// Sessions of a baseline.
pub(super) const BASELINE_SESSIONS: usize = 20;
/// Sessions, or rounds of pairs, of an attempt of a gate.
pub(super) const GATE_SESSIONS: usize = 10;

/// How many sessions are tried for one that can be used, on a machine that something else disturbs.
const MOST_SESSIONS: usize = 3;

/// How much is measured, and on which device.
#[derive(Debug, Args)]
pub(super) struct SpeedArgs {
    /// Override a key of the config, such as network.depth=8; replaces a swept list; may be repeated
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub overrides: Vec<String>,
    /// auto, flex, ndarray, wgpu, vulkan or cuda; :INDEX picks one of several adapters. auto takes the first hardware
    /// GPU, else the CPU
    #[arg(long, default_value = "auto", value_name = "NAME[:INDEX]")]
    pub device: String,
    /// Samples of a session for each configuration, at least 5
    #[arg(long, default_value_t = 6, value_name = "N", value_parser = at_least(MINIMUM_SAMPLES))]
    pub samples: usize,
    /// The least length of a sample in milliseconds; it holds as many whole steps as that takes
    #[arg(long, default_value_t = 25.0, value_name = "MS", value_parser = milliseconds)]
    pub sample_ms: f64,
    #[command(flatten)]
    pub data: DataArgs,
    /// The directory of all baselines
    #[arg(long, default_value = "results/baselines", value_name = "DIR")]
    pub baselines: PathBuf,
    /// Show no progress
    #[arg(long, short)]
    pub quiet: bool,
}

/// At least so many sessions.
pub(super) fn sessions(text: &str) -> Result<usize, String> {
    at_least(MINIMUM_SESSIONS)(text)
}

fn at_least(least: usize) -> impl Fn(&str) -> Result<usize, String> + Clone {
    move |text| match text.parse() {
        Ok(count) if (least..=100_000).contains(&count) => Ok(count),
        _ => Err(format!("must be a whole number from {least} to 100000")),
    }
}

fn milliseconds(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(ms) if ms > 0.0 && ms <= 60_000.0 => Ok(ms),
        _ => Err("must be a number of milliseconds above 0 and at most 60000".to_owned()),
    }
}

/// It was stopped by Ctrl-C, and has written nothing.
#[derive(Debug, thiserror::Error)]
#[error("stopped; nothing was written")]
pub(super) struct Interrupted;

/// A config whose speed is measured.
pub(super) struct Measured<'a> {
    args: &'a SpeedArgs,
    arguments: Vec<OsString>,
    /// What is measured, in the order of the plan.
    pub configurations: Vec<Configuration>,
    /// The machine and this build.
    pub environment: Environment,
    has_yardstick: bool,
    stop: Arc<AtomicBool>,
}

impl<'a> Measured<'a> {
    /// Reads the config and finds the device, which `--device` does not name again, and the data. Nothing is measured.
    pub(super) fn new(config: &Path, overrides: &[String], device: &str, args: &'a SpeedArgs) -> anyhow::Result<Self> {
        let source = Source::load(config, overrides)?;
        let adapter = device::find(device.parse()?)?;
        let plan = plan::plan(&source, &adapter.label())?;
        let sources = Sources::new(args.data.data_dir.as_deref());
        for run in &plan.runs {
            sources.require(&run.config)?;
        }
        let mut arguments: Vec<OsString> = vec![config.into(), "--device".into(), device.into()];
        for argument in overrides {
            arguments.extend(["--set".into(), argument.into()]);
        }
        if let Some(dir) = &args.data.data_dir {
            arguments.extend(["--data-dir".into(), dir.into()]);
        }
        Ok(Self {
            args,
            arguments,
            configurations: gate::configurations(&plan).into_iter().map(|(configuration, _)| configuration).collect(),
            environment: Environment::new(&adapter),
            has_yardstick: adapter.kind == AdapterKind::Cpu,
            stop: stop_on_ctrl_c()?,
        })
    }

    /// The arguments of the processes that measure.
    pub(super) fn arguments(&self) -> &[OsString] {
        &self.arguments
    }

    /// Whether Ctrl-C was pressed. The processes that measure get it too, and fail of it.
    pub(super) fn check_stop(&self) -> Result<(), Interrupted> {
        if self.stop.load(Ordering::Relaxed) { Err(Interrupted) } else { Ok(()) }
    }

    fn effort(&self) -> Effort {
        Effort { samples: self.args.samples, sample_ms: self.args.sample_ms }
    }

    /// So many sessions of this program that can be used, each in a process of its own; those of the first configuration that `places`
    /// names come first. `limits` tells of each, if that is known, what the fixed pieces of work take while nothing disturbs; else
    /// that follows from the sessions so far. On a machine that is too busy there are fewer that can be used.
    pub(super) fn sessions(
        &self,
        count: usize,
        places: &[usize],
        limits: &[Option<QuietLimit>],
        what: &str,
    ) -> anyhow::Result<Vec<Vec<Session>>> {
        let binary = std::env::current_exe()?;
        let mut sessions: Vec<Vec<Session>> = vec![Vec::new(); places.len()];
        let limit = |place: usize, sessions: &[Session]| limits[place].or_else(|| QuietLimit::of(sessions));
        self.rounds(count * MOST_SESSIONS, count, what, |round| {
            let limits: Vec<Option<QuietLimit>> =
                sessions.iter().enumerate().map(|(place, sessions)| limit(place, sessions)).collect();
            let is_lacking = |place: &usize| gate::usable_sessions(&sessions[*place], limits[*place]) < count;
            let lacking: Vec<usize> = (0..places.len()).filter(is_lacking).collect();
            if lacking.is_empty() {
                return Ok(false);
            }
            let wanted: Vec<(usize, Option<QuietLimit>)> =
                lacking.iter().map(|place| (places[*place], limits[*place])).collect();
            let found = gate::measure_session(
                &binary,
                &self.arguments,
                (&self.configurations, &wanted),
                self.effort(),
                round,
                self.has_yardstick,
            )?;
            lacking.into_iter().zip(found).for_each(|(place, session)| sessions[place].push(session));
            Ok(true)
        })?;
        Ok(sessions)
    }

    /// So many rounds of pairs of another program and this one, each in new processes.
    pub(super) fn pairs(
        &self,
        (base, of_base): (&Path, &[Configuration]),
        count: usize,
        places: &[(usize, usize)],
        what: &str,
    ) -> anyhow::Result<Vec<Vec<PairLevels>>> {
        let binary = std::env::current_exe()?;
        let mut rounds = vec![Vec::new(); places.len()];
        self.rounds(count, count, what, |round| {
            let found = gate::measure_pairs(
                [(base, of_base), (&binary, &self.configurations)],
                &self.arguments,
                places,
                self.effort(),
                round,
            )?;
            rounds.iter_mut().zip(found).for_each(|(rounds, round)| rounds.push(round));
            Ok(true)
        })?;
        Ok(rounds)
    }

    /// Measures at most so many times, until nothing is left to measure, and shows how far it is on the way to `count`.
    fn rounds(
        &self,
        most: usize,
        count: usize,
        what: &str,
        mut measure: impl FnMut(usize) -> Result<bool, MeasurerError>,
    ) -> anyhow::Result<()> {
        let progress = Progress::new(count, &SESSIONS, self.args.quiet);
        for round in 1..=most {
            let measured = measure(round);
            self.check_stop().inspect_err(|_| progress.end())?;
            if !measured.inspect_err(|_| progress.end())? {
                break;
            }
            progress.finish(round.min(count), what, super::progress::COMPLETE);
        }
        progress.end();
        Ok(())
    }
}
