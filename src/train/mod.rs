//! Training: the loop, its step, its loss, and the measurement of its speed.

mod chain;
mod clip;
mod clock;
mod descent;
mod gradient_penalty;
mod loss;
mod norms;
mod optimizer;
mod parameter;
mod prediction;
mod pretrain;
mod regularize;
mod runs;
mod saved;
mod step;
mod throughput;
mod weight_clipping;
mod workload;

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

use burn::tensor::{Device, Tensor};

pub use clock::{Clock, Stopwatch};
pub use descent::descend_on_fourth_power;
pub use gradient_penalty::gradient_penalty;
pub use loss::{evaluate, mean_loss, mean_losses};
pub use optimizer::{MeasuredUpdates, Optimizer};
pub use saved::{StartError, serialized, start_from, to_safetensors};
pub use step::make_step;
pub use workload::Workload;

use self::runs::Runs;
use crate::config::{NetworkKind, RunConfig};
use crate::data::{Dataset, DeviceSplit};
use crate::network::Network;
use crate::plan::RunSpec;
use crate::probe::{Judgement, Probe, ReadError};
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
    /// The network cannot start from the saved one.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The networks of several seeds cannot be one.
    #[error("networks of this kind cannot train together")]
    Apart,
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
    let statuses = run_together(vec![(spec, sink)], dataset, start, device, control)?;
    Ok(statuses.into_iter().next().unwrap_or(RunStatus::Complete))
}

/// Runs one configuration with several seeds, which must share the data set, and hands the rows of each to its sink. Their networks
/// train together as one, and a run's numbers differ by rounding alone from those that it has by itself. A run that diverges ends
/// there; the others go on.
///
/// # Errors
///
/// As [`run`], and if the networks cannot be put together: those of [`RunConfig::can_train_together`] can.
pub fn run_together<'a>(
    runs: Vec<(&'a RunSpec, &'a mut dyn RowSink)>,
    dataset: &Dataset,
    start: Option<&[u8]>,
    device: &Device,
    control: &Control<'_>,
) -> Result<Vec<RunStatus>, TrainError> {
    let mut runs = Runs::new(runs);
    let config = runs.config();
    let mut workloads = Workload::of_seeds(config, &runs.seeds(), dataset, device);
    if let Some(saved) = start {
        workloads = workloads.into_iter().map(|workload| workload.starting_from(saved)).collect::<Result<_, _>>()?;
    }
    runs.begin(&workloads, dataset, control.stop)?;
    let workload = Workload::together(workloads, &runs.seeds()).ok_or(TrainError::Apart)?;

    let mut stopwatch = Stopwatch::new(device);
    let (spec, sink) = runs.single();
    let (mut network, is_finite) =
        pretrain::pretrain(spec, &workload, workload.network(), &mut stopwatch, sink, control)?;
    if !is_finite {
        return Ok(vec![RunStatus::Diverged { diverged_at_step: 0 }]);
    }
    let pretraining_steps = pretrain::step_count(&workload);
    let steps = workload.step_count();
    let mut probe = Probe::of_runs(runs.ids(), &config.probe, config.network.function()).of_training(steps);
    let mut optimizer = workload.optimizer();
    let mut batches = workload.batches();
    let steps_per_epoch = batches.steps_per_epoch();

    stopwatch.start()?;
    for step in 0..steps {
        let epoch = step / steps_per_epoch;
        if step.is_multiple_of(steps_per_epoch) && config.is_evaluated() {
            if step > 0 {
                runs.end_epoch(epoch - 1, step, &mut stopwatch)?;
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
        // A dump waits for the device as a reading does.
        let dump = probe.take_tensors();
        if dump.is_some() || (step + 1).is_multiple_of(STEPS_PER_READING) {
            runs.record(probe.read_each()?)?;
            runs.write_tensors(step, dump)?;
            if runs.have_all_diverged() {
                return Ok(runs.statuses());
            }
        }
    }
    if steps == 0 {
        measure_at_initialization(&workload, network.clone(), &mut probe);
        runs.write_tensors(0, probe.take_tensors())?;
    } else {
        runs.end_epoch((steps - 1) / steps_per_epoch, steps, &mut stopwatch)?;
    }
    if config.network.kind == NetworkKind::Chain {
        let (spec, sink) = runs.single();
        sink.links(chain::measure(&spec.run_id, &workload)?)?;
    }
    let epoch = steps / steps_per_epoch;
    let splits = [(StepPhase::TrainSplit, workload.train_split()), (StepPhase::TestSplit, workload.test_split())];
    for (phase, split) in splits.into_iter().filter(|_| config.is_evaluated()) {
        keep_evaluation(&mut probe, (steps, epoch), phase, &network, split, config);
    }
    runs.record(probe.read_each()?)?;
    if config.training.save {
        runs.save(&network)?;
    }
    Ok(runs.statuses())
}

/// Evaluates a split, with the network of each seed, and keeps what comes out.
fn keep_evaluation(
    probe: &mut Probe,
    (step, epoch): (usize, usize),
    phase: StepPhase,
    network: &Network,
    split: &DeviceSplit,
    config: &RunConfig,
) {
    let judgement = if split.is_unlabelled() { Judgement::ReconstructionError } else { Judgement::Accuracy };
    let of_seed = |place: usize| evaluate(&network.of_seed(place), split, config.training.loss);
    let results = Tensor::cat((0..network.seeds()).map(of_seed).collect(), 0);
    probe.keep_evaluation(step, epoch, phase, results, judgement);
}

/// `training.steps = 0`: a forward and a backward pass, and no update.
fn measure_at_initialization(workload: &Workload, network: Network, probe: &mut Probe) {
    let batch = workload.batches().next_batch();
    let (_, loss) = make_step(network, batch, &workload.config().training, None, Some((&mut *probe, 0)));
    probe.keep_loss(0, 0, None, loss);
}
