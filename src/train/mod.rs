//! Training: the loop, its step, its loss, and the measurement of its speed.

mod chain;
mod clip;
mod clock;
mod descent;
mod gradient_penalty;
mod loss;
mod optimizer;
mod parameter;
mod prediction;
mod pretrain;
mod regularize;
mod saved;
mod step;
mod throughput;
mod weight_clipping;
mod workload;

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

use burn::tensor::Device;

pub use clock::{Clock, Stopwatch};
pub use descent::descend_on_fourth_power;
pub use gradient_penalty::gradient_penalty;
pub use loss::{evaluate, mean_loss};
pub use optimizer::{MeasuredUpdates, Optimizer};
pub use saved::{StartError, serialized, start_from, to_safetensors};
pub use step::make_step;
pub use workload::Workload;

use crate::config::{NetworkKind, RunConfig};
use crate::data::{Dataset, DeviceSplit, principal_components};
use crate::network::Network;
use crate::plan::RunSpec;
use crate::probe::{Judgement, NamedTensor, Probe, ReadError, Rows};
use crate::schema::{PhaseRow, RowSink, RunPhase, RunStatus, StepPhase, StepRow};
use crate::theory::prediction::Prediction;

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
    /// The network cannot start from the saved one.
    #[error(transparent)]
    Start(#[from] StartError),
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

/// Whether training can start from a saved network, as safetensors.
///
/// # Errors
///
/// If it does not fit the network of the config.
pub fn check_start(spec: &RunSpec, dataset: &Dataset, saved: &[u8], device: &Device) -> Result<(), StartError> {
    let network = workload::initial_network(&spec.config, spec.seed, dataset, device);
    start_from(network, saved, spec.config.training.start_layers.unwrap_or_default()).map(drop)
}

/// Runs one configuration with one seed and hands its rows to `sink`. With a saved network, as safetensors, training starts
/// from it.
///
/// # Errors
///
/// If the saved network does not fit, the run is interrupted, the device fails or the rows cannot be written. A network that diverges is no error.
pub fn run(
    spec: &RunSpec,
    dataset: &Dataset,
    start: Option<&[u8]>,
    device: &Device,
    sink: &mut dyn RowSink,
    control: &Control<'_>,
) -> Result<RunStatus, TrainError> {
    let mut workload = Workload::new(&spec.config, spec.seed, dataset, device);
    if let Some(saved) = start {
        workload = workload.starting_from(saved)?;
    }
    sink.throughput(throughput::measure(&spec.run_id, &workload, control.stop)?)?;

    sink.steps(baseline(spec, dataset).into_iter().collect())?;

    let config = &spec.config;
    let prediction = prediction::predict(&workload)?;
    if let Some(reason) = &prediction.reason {
        sink.no_prediction(reason.clone());
    }
    let mut stopwatch = Stopwatch::new(device);
    let (mut network, is_finite) =
        pretrain::pretrain(spec, &workload, workload.network(), &mut stopwatch, sink, control)?;
    if !is_finite {
        return Ok(RunStatus::Diverged { diverged_at_step: 0 });
    }
    let pretraining_steps = pretrain::step_count(&workload);
    let steps = workload.step_count();
    let mut probe = Probe::new(&spec.run_id, &config.probe, config.network.function()).of_training(steps);
    let mut optimizer = workload.optimizer();
    let mut batches = workload.batches();
    let steps_per_epoch = batches.steps_per_epoch();

    stopwatch.start()?;
    for step in 0..steps {
        let epoch = step / steps_per_epoch;
        if step.is_multiple_of(steps_per_epoch) && config.is_evaluated() {
            if step > 0 {
                sink.phases(vec![end_of_epoch(spec, epoch - 1, step, &mut stopwatch)?])?;
            }
            keep_evaluation(&mut probe, (step, epoch), StepPhase::TestSplit, &network, workload.test_split(), config);
            stopwatch.start()?;
        }
        // Forward, backward, probe, clip, step: nothing in it waits for the device.
        let (batch, observed) = (batches.next_batch(), Some((&mut probe, step)));
        let loss;
        (network, loss) = make_step(network, batch, &config.training, Some(&mut optimizer), observed);
        probe.keep_loss(step, epoch, config.training.learning_rate, loss);
        (control.progress)(pretraining_steps + step + 1, pretraining_steps + steps);
        if control.stop.load(Ordering::Relaxed) {
            return Err(TrainError::Interrupted);
        }
        // A dump waits for the device as a reading does. One of the step that diverges may tell why; behind it there is none.
        let dump = probe.take_tensors();
        if dump.is_some() || (step + 1).is_multiple_of(STEPS_PER_READING) {
            let diverged = record(probe.read()?, &prediction, sink)?;
            if diverged.is_none_or(|diverged_at_step| diverged_at_step == step) {
                write_tensors(step, dump, sink)?;
            }
            if let Some(diverged_at_step) = diverged {
                return Ok(RunStatus::Diverged { diverged_at_step });
            }
        }
    }
    if steps == 0 {
        measure_at_initialization(&workload, network.clone(), &mut probe);
        write_tensors(0, probe.take_tensors(), sink)?;
    } else {
        sink.phases(vec![end_of_epoch(spec, (steps - 1) / steps_per_epoch, steps, &mut stopwatch)?])?;
    }
    if config.network.kind == NetworkKind::Chain {
        sink.links(chain::measure(&spec.run_id, &workload)?)?;
    }
    let epoch = steps / steps_per_epoch;
    let splits = [(StepPhase::TrainSplit, workload.train_split()), (StepPhase::TestSplit, workload.test_split())];
    for (phase, split) in splits.into_iter().filter(|_| config.is_evaluated()) {
        keep_evaluation(&mut probe, (steps, epoch), phase, &network, split, config);
    }
    if let Some(diverged_at_step) = record(probe.read()?, &prediction, sink)? {
        return Ok(RunStatus::Diverged { diverged_at_step });
    }
    if config.training.save {
        sink.network(to_safetensors(&mut network)?)?;
    }
    Ok(RunStatus::Complete)
}

/// Evaluates a split and keeps what comes out.
fn keep_evaluation(
    probe: &mut Probe,
    (step, epoch): (usize, usize),
    phase: StepPhase,
    network: &Network,
    split: &DeviceSplit,
    config: &RunConfig,
) {
    let judgement = if split.is_unlabelled() { Judgement::ReconstructionError } else { Judgement::Accuracy };
    probe.keep_evaluation(step, epoch, phase, evaluate(network, split, config.training.loss), judgement);
}

/// Ends an epoch of the training, after which so many updates have been made.
fn end_of_epoch(spec: &RunSpec, epoch: usize, step: usize, stopwatch: &mut Stopwatch) -> Result<PhaseRow, ReadError> {
    let elapsed_ms = stopwatch.stop_ms()?;
    let total_ms = stopwatch.total_ms();
    let run_id = spec.run_id.clone();
    Ok(PhaseRow { run_id, phase: RunPhase::Training, layer: None, epoch, step, elapsed_ms, total_ms })
}

/// What an autoencoder is held against: the same test split by as many principal components as its code has units.
fn baseline(spec: &RunSpec, dataset: &Dataset) -> Option<StepRow> {
    let code = spec.config.network.code_layer()?;
    let components = spec.config.network.layer_widths()[code];
    let error = principal_components::reconstruction_error(&dataset.train, &dataset.test, dataset.features, components);
    Some(StepRow {
        run_id: spec.run_id.clone(),
        phase: StepPhase::PrincipalComponents,
        reconstruction_error: Some(error),
        ..StepRow::default()
    })
}

/// `training.steps = 0`: a forward and a backward pass, and no update.
fn measure_at_initialization(workload: &Workload, network: Network, probe: &mut Probe) {
    let batch = workload.batches().next_batch();
    let (_, loss) = make_step(network, batch, &workload.config().training, None, Some((&mut *probe, 0)));
    probe.keep_loss(0, 0, None, loss);
}

/// Hands on the tensors of a step, if it is dumped. Waits for the device.
fn write_tensors(step: usize, tensors: Option<Vec<NamedTensor>>, sink: &mut dyn RowSink) -> Result<(), TrainError> {
    match tensors {
        Some(tensors) => Ok(sink.tensors(step, serialized(tensors)?)?),
        None => Ok(()),
    }
}

/// Hands rows on, with what was predicted of them, up to the first step whose loss or gradient is not finite, and returns that
/// step.
fn record(mut rows: Rows, prediction: &Prediction, sink: &mut dyn RowSink) -> io::Result<Option<usize>> {
    if let Some(last) = rows.first_nonfinite_step {
        rows.steps.retain(|row| row.step <= last);
        rows.gradients.retain(|row| row.step <= last);
        rows.activations.retain(|row| row.step <= last);
        rows.units.retain(|row| row.step <= last);
        rows.gates.retain(|row| row.step <= last);
    }
    prediction::fill(prediction, &mut rows.activations);
    if let Some(coverage) = rows.coverage {
        sink.coverage(coverage);
    }
    sink.steps(rows.steps)?;
    sink.gradients(rows.gradients)?;
    sink.activations(rows.activations)?;
    sink.units(rows.units)?;
    sink.gates(rows.gates)?;
    Ok(rows.first_nonfinite_step)
}
