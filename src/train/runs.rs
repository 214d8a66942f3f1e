//! The runs of a training: one, or several that differ in their seed alone and train together.

use std::io;
use std::sync::atomic::AtomicBool;

use super::clock::Stopwatch;
use super::{TrainError, Workload, prediction, serialized, throughput, to_safetensors};
use crate::config::RunConfig;
use crate::data::{Dataset, principal_components};
use crate::network::{Network, Stacked};
use crate::plan::RunSpec;
use crate::probe::{NamedTensor, Rows};
use crate::schema::{PhaseRow, RowSink, RunPhase, RunStatus, StepPhase, StepRow};
use crate::theory::prediction::Prediction;

/// The runs, in the order of the seeds in their network. What a run has diverged at ends it; the others go on.
pub(super) struct Runs<'a>(Vec<Run<'a>>);

struct Run<'a> {
    spec: &'a RunSpec,
    sink: &'a mut dyn RowSink,
    prediction: Prediction,
    diverged_at_step: Option<usize>,
}

impl<'a> Runs<'a> {
    pub(super) fn new(runs: Vec<(&'a RunSpec, &'a mut dyn RowSink)>) -> Self {
        let run = |(spec, sink)| Run { spec, sink, prediction: Prediction::default(), diverged_at_step: None };
        Self(runs.into_iter().map(run).collect())
    }

    /// What the runs have in common.
    pub(super) fn config(&self) -> &'a RunConfig {
        &self.0[0].spec.config
    }

    pub(super) fn seeds(&self) -> Vec<u64> {
        self.0.iter().map(|run| run.spec.seed).collect()
    }

    pub(super) fn ids(&self) -> Vec<String> {
        self.0.iter().map(|run| run.spec.run_id.clone()).collect()
    }

    /// The only run, of a training that no second one can be part of.
    pub(super) fn single(&mut self) -> (&'a RunSpec, &mut dyn RowSink) {
        let run = &mut self.0[0];
        (run.spec, &mut *run.sink)
    }

    /// What is known of each run before its network is trained: the speed of a step, by itself; what it is held against; what theory
    /// says. `workloads` has that of each run.
    pub(super) fn begin(
        &mut self,
        workloads: &[Workload],
        dataset: &Dataset,
        stop: &AtomicBool,
    ) -> Result<(), TrainError> {
        for (run, workload) in self.0.iter_mut().zip(workloads) {
            run.sink.throughput(throughput::measure(&run.spec.run_id, workload, stop)?)?;
            run.sink.steps(baseline(run.spec, dataset).into_iter().collect())?;
            run.prediction = prediction::predict(workload)?;
            if let Some(reason) = &run.prediction.reason {
                run.sink.no_prediction(reason.clone());
            }
        }
        Ok(())
    }

    /// Those that have not diverged, each with its place.
    fn going(&mut self) -> impl Iterator<Item = (usize, &mut Run<'a>)> {
        self.0.iter_mut().enumerate().filter(|(_, run)| run.diverged_at_step.is_none())
    }

    pub(super) fn have_all_diverged(&self) -> bool {
        self.0.iter().all(|run| run.diverged_at_step.is_some())
    }

    /// Hands on the rows of each run that has not diverged before.
    pub(super) fn record(&mut self, rows: impl Iterator<Item = Rows>) -> io::Result<()> {
        for (run, rows) in self.0.iter_mut().zip(rows) {
            if run.diverged_at_step.is_none() {
                run.diverged_at_step = record(rows, &run.prediction, run.sink)?;
            }
        }
        Ok(())
    }

    /// Ends an epoch of the training, after which so many updates have been made. Runs that train together have equal shares
    /// of the time.
    pub(super) fn end_epoch(&mut self, epoch: usize, step: usize, stopwatch: &mut Stopwatch) -> Result<(), TrainError> {
        let share = 1.0 / self.0.len() as f64;
        let (elapsed_ms, total_ms) = (stopwatch.stop_ms()? * share, stopwatch.total_ms() * share);
        for (_, run) in self.going() {
            let run_id = run.spec.run_id.clone();
            let phase = RunPhase::Training;
            run.sink.phases(vec![PhaseRow { run_id, phase, layer: None, epoch, step, elapsed_ms, total_ms }])?;
        }
        Ok(())
    }

    /// Hands on the tensors of a step, if it is dumped. Those of the step that diverges may tell why; behind it there are none.
    /// Waits for the device.
    pub(super) fn write_tensors(&mut self, step: usize, tensors: Option<Vec<NamedTensor>>) -> Result<(), TrainError> {
        let (Some(tensors), seeds) = (tensors, self.0.len()) else {
            return Ok(());
        };
        for (place, run) in self.0.iter_mut().enumerate() {
            if run.diverged_at_step.is_none_or(|diverged_at_step| diverged_at_step == step) {
                let of_seed = tensors.iter().map(|tensor| tensor.part(seeds, place)).collect();
                run.sink.tensors(step, serialized(of_seed)?)?;
            }
        }
        Ok(())
    }

    /// Hands on the networks after training. Waits for the device.
    pub(super) fn save(&mut self, network: &Network) -> Result<(), TrainError> {
        for (place, run) in self.going() {
            run.sink.network(to_safetensors(&mut network.of_seed(place))?)?;
        }
        Ok(())
    }

    /// How the runs ended.
    pub(super) fn statuses(self) -> Vec<RunStatus> {
        let status = |run: Run<'_>| match run.diverged_at_step {
            None => RunStatus::Complete,
            Some(diverged_at_step) => RunStatus::Diverged { diverged_at_step },
        };
        self.0.into_iter().map(status).collect()
    }
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
