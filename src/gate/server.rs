//! The side of the protocol that measures: it draws networks and times their steps, as it is asked to.

use std::io::{self, BufRead, Write};
use std::sync::atomic::AtomicBool;
use std::thread;

use serde::Serialize;

use super::cores::Cores;
use super::protocol::{Configuration, Hello, PROTOCOL_VERSION, Request, Response};
use super::waiting::waited_ms;
use super::yardstick::{Yardstick, work_together};
use crate::config::{ProbeConfig, read_start};
use crate::data::{Batches, DataError, Sources};
use crate::device::Device;
use crate::plan::{Plan, RunSpec};
use crate::record::Environment;
use crate::train::{Clock, StartError, TrainError, Workload};

/// Steps that are timed after the cold ones to tell how many fit into a sample.
const TRIED_STEPS: usize = 3;

/// Why a process cannot measure.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The gate does not listen any more.
    #[error("the process that asked for measurements has ended: {0}")]
    Pipe(#[from] io::Error),
    /// What was asked for is no request.
    #[error("`{line}` is no request of a gate: {reason}; `gradmark measure` is run by `gradmark gate`, not by hand")]
    Request {
        /// What was asked for.
        line: String,
        /// What is wrong with it.
        reason: String,
    },
}

/// Why a request has no measurement; told to the gate.
#[derive(Debug, thiserror::Error)]
enum MeasureError {
    #[error(transparent)]
    Data(#[from] DataError),
    #[error("the network in `training.start_from` cannot be read: {0}")]
    Read(#[from] io::Error),
    #[error(transparent)]
    Start(#[from] StartError),
    #[error(transparent)]
    Train(#[from] TrainError),
    #[error("there is no configuration {0}")]
    NoConfiguration(usize),
    #[error("nothing is prepared")]
    NotPrepared,
}

/// The configurations of a plan, in its order, each with its first run.
pub fn configurations(plan: &Plan) -> Vec<(Configuration, &RunSpec)> {
    plan.runs
        .chunk_by(|a, b| a.config == b.config)
        .map(|runs| (Configuration { name: name(plan, &runs[0]), config: runs[0].config.clone() }, &runs[0]))
        .collect()
}

/// `network.depth=4 case=relu`
pub(super) fn name(plan: &Plan, run: &RunSpec) -> String {
    if plan.factors.is_empty() {
        return plan.experiment.clone();
    }
    let factor = |(factor, level): (&String, &String)| format!("{factor}={level}");
    plan.factors.iter().zip(&run.levels).map(factor).collect::<Vec<_>>().join(" ")
}

/// Says what there is to measure, and answers requests until the gate closes the pipe.
///
/// # Errors
///
/// If the pipe breaks, or if what comes is no request.
pub fn serve(
    plan: &Plan,
    sources: &Sources,
    device: &Device,
    environment: Environment,
    input: impl BufRead,
    mut output: impl Write,
) -> Result<(), ServeError> {
    let configurations = configurations(plan);
    let hello = Hello {
        protocol_version: PROTOCOL_VERSION,
        environment,
        configurations: configurations.iter().map(|(configuration, _)| configuration.clone()).collect(),
    };
    say(&mut output, &hello)?;
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let mut bench = Bench {
        sources,
        device,
        threads: rayon::current_num_threads().min(cores),
        cores: Cores::of_this_thread(),
        core: 0,
        prepared: None,
        yardstick: Yardstick::new(),
    };
    for line in input.lines() {
        let line = line?;
        let request = match serde_json::from_str(&line) {
            Ok(request) => request,
            Err(error) => return Err(ServeError::Request { line, reason: error.to_string() }),
        };
        let answer = match request {
            Request::Prepare { configuration, core } => match configurations.get(configuration) {
                Some((_, spec)) => bench.prepare(spec, core),
                None => Err(MeasureError::NoConfiguration(configuration)),
            },
            Request::Sample { steps } => bench.sample(steps),
            Request::Yardstick => bench.time_yardstick(),
            Request::YardstickTogether => bench.time_yardstick_together(),
            Request::Waited => Ok(waited_ms()),
        };
        let response = answer.map_or_else(|error| Response::Failed(error.to_string()), Response::ElapsedMs);
        say(&mut output, &response)?;
    }
    Ok(())
}

fn say(output: &mut impl Write, value: &impl Serialize) -> Result<(), ServeError> {
    let text = serde_json::to_string(value).map_err(io::Error::from)?;
    writeln!(output, "{text}")?;
    Ok(output.flush()?)
}

/// What is measured, one configuration at a time.
struct Bench<'a> {
    sources: &'a Sources,
    device: &'a Device,
    /// Those of a step.
    threads: usize,
    cores: Cores,
    /// The one to stay on.
    core: usize,
    prepared: Option<(Workload, Batches)>,
    yardstick: Yardstick,
}

impl Bench<'_> {
    /// Draws the network and takes the cold steps, in which kernels are compiled and tuned; then times a step.
    fn prepare(&mut self, spec: &RunSpec, core: usize) -> Result<f64, MeasureError> {
        // Threads that start now may go where they like.
        self.cores.leave();
        // The memory of the last one is there for the next.
        self.prepared = None;
        let dataset = self.sources.load(&spec.config, spec.seed)?;
        let mut workload = Workload::new(&spec.config, spec.seed, &dataset, self.device);
        if let Some(saved) = read_start(&spec.config)? {
            workload = workload.starting_from(&saved)?;
        }
        let batches = workload.batches();
        self.prepared = Some((workload, batches));
        self.sample(spec.config.throughput.cold_steps)?;
        self.core = core;
        self.cores.stay_on(core);
        Ok(self.sample(TRIED_STEPS)? / TRIED_STEPS as f64)
    }

    fn sample(&mut self, steps: usize) -> Result<f64, MeasureError> {
        let (workload, batches) = self.prepared.as_mut().ok_or(MeasureError::NotPrepared)?;
        let never = AtomicBool::new(false);
        Ok(workload.time_steps(batches, 0..steps, |_| false, &ProbeConfig::default(), &never)?)
    }

    fn time_yardstick(&mut self) -> Result<f64, MeasureError> {
        let clock = Clock::start(self.device).map_err(TrainError::from)?;
        self.yardstick.work();
        Ok(clock.stop_ms(self.device).map_err(TrainError::from)?)
    }

    fn time_yardstick_together(&mut self) -> Result<f64, MeasureError> {
        work_together(self.threads, &self.cores, self.core, |work| {
            let clock = Clock::start(self.device).map_err(TrainError::from)?;
            work();
            Ok(clock.stop_ms(self.device).map_err(TrainError::from)?)
        })
    }
}
