//! One step: forward, backward, probe, clip, update.

use burn::optim::GradientsParams;
use burn::tensor::Tensor;

use super::clip::{self, Limit};
use super::gradient_penalty::gradient_penalty;
use super::loss::mean_losses;
use super::optimizer::Optimizer;
use super::regularize;
use super::weight_clipping;
use crate::config::TrainingConfig;
use crate::data::Batch;
use crate::fault::{self, Fault};
use crate::kernel::Reading;
use crate::network::{Network, Pass};
use crate::probe::{LossMeasurement, PendingStep, Probe, coverage, gradient, layer, tensors, update};

/// Makes one step and returns the network after it and the mean loss before it, of each seed. Without an optimizer nothing is
/// updated: the network is only measured.
///
/// With a probe and the number of the step, the step is measured, its gradients checked and its tensors kept if the probe
/// measures, checks or dumps it. Nothing waits for the device.
pub fn make_step(
    mut network: Network,
    batch: Batch,
    training: &TrainingConfig,
    mut optimizer: Option<&mut Optimizer>,
    mut observed: Option<(&mut Probe, usize)>,
) -> (Network, LossMeasurement) {
    if let Some((probe, step)) = &mut observed
        && probe.measures(*step)
        && probe.wants_parameters()
    {
        probe.name_parameters(&network);
    }
    let measured = observed.as_ref().filter(|(probe, step)| probe.measures(*step));
    let seeds = network.seeds();
    let mut pass = match measured {
        Some((probe, _)) if probe.wants_layers() => Pass::traced(probe.wanted()),
        _ => Pass::training(),
    };
    let critic_penalty = gradient_penalty(&network, &batch, training);
    let outputs = network.forward(batch.inputs, &mut pass);
    let examples = outputs.dims()[0] / seeds;
    let mut loss = mean_losses(training.loss, outputs, batch.targets, seeds, network.kernels());
    if fault::factor(Fault::LossSum) > 1.0 {
        loss = loss * examples as f64;
    }
    let (trace, moments) = pass.finish();

    // The penalty comes of a pass of its own over other points: deltas are those of the loss.
    let mut gradients = match &critic_penalty {
        Some(penalty) => (loss.clone() + penalty.clone()).backward(),
        None if seeds > 1 => loss.clone().sum().backward(),
        None => loss.backward(),
    };

    let threshold = training.clip_threshold() * fault::factor(Fault::ClipThreshold);
    let limit = Limit { clipping: training.clipping, threshold, seeds };
    let is_alone = !regularize::decays(training) && !weight_clipping::bounds(training);
    let in_one_pass = is_alone && optimizer.as_mut().is_some_and(|optimizer| optimizer.has_one_pass(&network));
    let mut pending = PendingStep::default();
    if let Some((probe, step)) = measured {
        (pending.step, pending.is_measured) = (*step, true);
        pending.layers = layer::measure(trace, &mut gradients, probe.function(), probe.wants_units(), seeds);
    }
    let gradients = GradientsParams::from_grads(gradients, &network);
    let mut of_loss = None;
    if observed.as_ref().is_some_and(|(probe, step)| probe.checks_coverage(*step)) {
        // The penalties would hide a gradient of the loss that is absent or 0. Without them both are read once.
        let found = gradient::measure(&network, &gradients, seeds);
        pending.coverage = Some(coverage::measure(&network, &found, seeds));
        of_loss = Some(found).filter(|_| !regularize::has_penalties(training));
    }
    let gradients = regularize::add_penalty_gradients(&network, gradients, training);
    let mut penalty = None;
    let mut before = None;
    if let Some((probe, _)) = measured {
        let penalties = [regularize::penalty(&network, training, seeds), critic_penalty.map(Tensor::inner)];
        penalty = penalties.into_iter().flatten().reduce(Tensor::add).map(Reading::from);
        if probe.wants_parameters() {
            // What one pass clips and updates, it also measures.
            let is_measured_later = in_one_pass && !limit.changes_elements();
            pending.gradients = match of_loss {
                Some(found) => found,
                None if is_measured_later => gradient::Measurement::default(),
                None => gradient::measure(&network, &gradients, seeds),
            };
            before = (!in_one_pass).then(|| update::snapshot(&network));
        }
    }
    if observed.as_ref().is_some_and(|(probe, step)| probe.dumps(*step)) {
        let parameters = tensors::parameters(&mut network);
        pending.tensors = Some([parameters, tensors::gradients(&network, &gradients)].concat());
    }

    pending.is_updated = optimizer.is_some();
    let rate = training.learning_rate();
    let clip;
    match optimizer {
        Some(optimizer) if in_one_pass => {
            let clipped = clip::clip_later(&network, gradients, limit, measured.is_some());
            let is_measured = measured.is_some_and(|(probe, _)| probe.wants_parameters());
            let found;
            (network, found) = optimizer.pass(rate, network, clipped.gradients, &clipped.factors, is_measured);
            if pending.gradients.ids.is_empty() {
                pending.gradients = found.gradients;
            }
            pending.updates = found.updates;
            clip = clipped.measurement;
            network.absorb(moments);
        }
        Some(optimizer) => {
            let clipped;
            (clipped, clip) = clip::clip(&network, gradients, limit, measured.is_some());
            network = regularize::decay(network, training);
            network = optimizer.step(rate, network, clipped);
            network = weight_clipping::clip(network, training);
            network.absorb(moments);
        }
        None => (_, clip) = clip::clip(&network, gradients, limit, measured.is_some()),
    }
    if let Some(before) = before {
        pending.updates = update::measure(&pending.gradients, before, update::snapshot(&network), seeds);
    }

    if let Some((probe, _)) = observed {
        probe.keep_step(pending);
    }
    (network, LossMeasurement { loss: loss.inner().into(), penalty, clip })
}
