//! Training: the loop, its step, its loss, and the measurement of its speed.

mod chain;
mod clip;
mod clock;
mod gradient_penalty;
mod loss;
mod optimizer;
mod regularize;
mod step;
mod throughput;
mod weight_clipping;
mod workload;

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

use burn::tensor::Device;

pub use clock::Clock;
pub use gradient_penalty::gradient_penalty;
pub use loss::{evaluate, mean_loss};
pub use step::make_step;
pub use workload::Workload;

use crate::config::{NetworkKind, TrainingLength};
use crate::data::Dataset;
use crate::plan::RunSpec;
use crate::probe::{Probe, ReadError, Rows, Schedule};
use crate::schema::{RowSink, RunStatus, StepPhase};

/// Steps between two readings of the device. A divergence is noticed at the next reading.
const STEPS_PER_READING: usize = 64;

/// Why a run has no result.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// It was asked to stop.
    #[error("stopped")]
    Interrupted,
    /// The device failed.
    #[error(transparent)]
    Device(#[from] ReadError),
    /// The rows could not be written.
    #[error(transparent)]
    Write(#[from] io::Error),
}

/// What a run obeys and reports to.
pub struct Control<'a> {
    /// Becomes true when the run is to stop after its current step.
    pub stop: &'a AtomicBool,
    /// Called with the steps that are done and the steps in all.
    pub progress: &'a dyn Fn(usize, usize),
}

/// Runs one configuration with one seed and hands its rows to `sink`.
///
/// # Errors
///
/// If the run is interrupted, the device fails or the rows cannot be written. A network that diverges is no error.
pub fn run(
    spec: &RunSpec,
    dataset: &Dataset,
    device: &Device,
    sink: &mut dyn RowSink,
    control: &Control<'_>,
) -> Result<RunStatus, TrainError> {
    let workload = Workload::new(&spec.config, spec.seed, dataset, device);
    sink.throughput(throughput::measure(&spec.run_id, &workload, control.stop)?)?;

    let config = &spec.config;
    let mut probe = Probe::new(&spec.run_id, &config.probe, config.network.function());
    let mut network = workload.network();
    let mut optimizer = workload.optimizer();
    let mut batches = workload.batches();
    let steps_per_epoch = batches.steps_per_epoch();
    let steps = match config.training.length() {
        TrainingLength::Epochs(epochs) => epochs * steps_per_epoch,
        TrainingLength::Steps(steps) => steps,
    };
    let schedule = Schedule::new(&config.probe, steps);

    for step in 0..steps {
        let epoch = step / steps_per_epoch;
        if step.is_multiple_of(steps_per_epoch) && config.is_evaluated() {
            let result = evaluate(&network, workload.test_split(), config.training.loss);
            probe.keep_evaluation(step, epoch, StepPhase::TestSplit, result);
        }
        let measured = schedule.measures(step).then_some((&mut probe, step));
        // Forward, backward, probe, clip, step: nothing in it waits for the device.
        let loss;
        (network, loss) = make_step(network, batches.next_batch(), &config.training, Some(&mut optimizer), measured);
        probe.keep_loss(step, epoch, config.training.learning_rate, loss);
        (control.progress)(step + 1, steps);
        if control.stop.load(Ordering::Relaxed) {
            return Err(TrainError::Interrupted);
        }
        if (step + 1).is_multiple_of(STEPS_PER_READING)
            && let Some(diverged_at_step) = record(probe.read()?, sink)?
        {
            return Ok(RunStatus::Diverged { diverged_at_step });
        }
    }
    if steps == 0 {
        measure_at_initialization(&workload, &mut probe);
    }
    if config.network.kind == NetworkKind::Chain {
        sink.links(chain::measure(&spec.run_id, &workload)?)?;
    }
    let epoch = steps / steps_per_epoch;
    let splits = [(StepPhase::TrainSplit, workload.train_split()), (StepPhase::TestSplit, workload.test_split())];
    for (phase, split) in splits.into_iter().filter(|_| config.is_evaluated()) {
        let result = evaluate(&network, split, config.training.loss);
        probe.keep_evaluation(steps, epoch, phase, result);
    }
    Ok(match record(probe.read()?, sink)? {
        Some(diverged_at_step) => RunStatus::Diverged { diverged_at_step },
        None => RunStatus::Complete,
    })
}

/// `training.steps = 0`: a forward and a backward pass, and no update.
fn measure_at_initialization(workload: &Workload, probe: &mut Probe) {
    let measured = (probe.wants_parameters() || probe.wants_layers()).then_some((&mut *probe, 0));
    let batch = workload.batches().next_batch();
    let (_, loss) = make_step(workload.network(), batch, &workload.config().training, None, measured);
    probe.keep_loss(0, 0, None, loss);
}

/// Hands rows on up to the first step whose loss or gradient is not finite, and returns that step.
fn record(mut rows: Rows, sink: &mut dyn RowSink) -> io::Result<Option<usize>> {
    if let Some(last) = rows.first_nonfinite_step {
        rows.steps.retain(|row| row.step <= last);
        rows.gradients.retain(|row| row.step <= last);
        rows.activations.retain(|row| row.step <= last);
        rows.units.retain(|row| row.step <= last);
        rows.gates.retain(|row| row.step <= last);
    }
    sink.steps(rows.steps)?;
    sink.gradients(rows.gradients)?;
    sink.activations(rows.activations)?;
    sink.units(rows.units)?;
    sink.gates(rows.gates)?;
    Ok(rows.first_nonfinite_step)
}
