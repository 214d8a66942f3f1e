//! One step: forward, backward, probe, clip, update.

use burn::optim::GradientsParams;
use burn::tensor::Tensor;

use super::clip;
use super::gradient_penalty::gradient_penalty;
use super::loss::mean_loss;
use super::optimizer::Optimizer;
use super::regularize;
use super::weight_clipping;
use crate::config::TrainingConfig;
use crate::data::Batch;
use crate::kernel::Reading;
use crate::network::{Network, Pass};
use crate::probe::{LossMeasurement, PendingStep, Probe, coverage, gradient, layer, tensors, update};

/// Makes one step and returns the network after it and the mean loss before it. Without an optimizer nothing is updated:
/// the network is only measured.
///
/// With a probe and the number of the step, the step is measured, its gradients checked and its tensors kept if the probe
/// measures, checks or dumps it. Nothing waits for the device.
pub fn make_step(
    mut network: Network,
    batch: Batch,
    training: &TrainingConfig,
    optimizer: Option<&mut Optimizer>,
    observed: Option<(&mut Probe, usize)>,
) -> (Network, LossMeasurement) {
    let measured = observed.as_ref().filter(|(probe, step)| probe.measures(*step));
    let mut pass = match measured {
        Some((probe, _)) if probe.wants_layers() => Pass::traced(probe.wanted()),
        _ => Pass::training(),
    };
    let critic_penalty = gradient_penalty(&network, &batch, training);
    let outputs = network.forward(batch.inputs, &mut pass);
    let loss = mean_loss(training.loss, outputs, batch.targets);
    let (trace, statistics) = pass.finish();

    // The penalty comes of a pass of its own over other points: deltas are those of the loss.
    let gradients = match &critic_penalty {
        Some(penalty) => (loss.clone() + penalty.clone()).backward(),
        None => loss.backward(),
    };

    let mut pending = PendingStep::default();
    if let Some((probe, step)) = measured {
        pending.step = *step;
        pending.layers = layer::measure(trace, &gradients, probe.function(), probe.wants_units());
    }
    let gradients = GradientsParams::from_grads(gradients, &network);
    let mut of_loss = None;
    if observed.as_ref().is_some_and(|(probe, step)| probe.checks_coverage(*step)) {
        // The penalties would hide a gradient of the loss that is absent or 0. Without them both are read once.
        let found = gradient::measure(&network, &gradients);
        pending.coverage = Some(coverage::measure(&network, &found));
        of_loss = Some(found).filter(|_| !regularize::has_penalties(training));
    }
    let gradients = regularize::add_penalty_gradients(&network, gradients, training);
    let mut penalty = None;
    let mut before = None;
    if let Some((probe, _)) = measured {
        let penalties = [regularize::penalty(&network, training), critic_penalty.map(Tensor::inner)];
        penalty = penalties.into_iter().flatten().reduce(Tensor::add).map(Reading::Device);
        if probe.wants_parameters() {
            pending.gradients = of_loss.unwrap_or_else(|| gradient::measure(&network, &gradients));
            before = Some(update::snapshot(&network));
        }
    }
    if observed.as_ref().is_some_and(|(probe, step)| probe.dumps(*step)) {
        let parameters = tensors::parameters(&mut network);
        pending.tensors = Some([parameters, tensors::gradients(&network, &gradients)].concat());
    }

    let (gradients, clip) =
        clip::clip(&network, gradients, training.clipping, training.clip_threshold(), measured.is_some());

    pending.is_updated = optimizer.is_some();
    if let Some(optimizer) = optimizer {
        network = regularize::decay(network, training);
        network = optimizer.step(training.learning_rate(), network, gradients);
        network = weight_clipping::clip(network, training);
        network.absorb(statistics);
    }
    if let Some(before) = before {
        pending.updates = update::measure(&pending.gradients, before, update::snapshot(&network));
    }

    if let Some((probe, _)) = observed {
        probe.keep_step(pending);
    }
    (network, LossMeasurement { loss: Reading::Device(loss.inner()), penalty, clip })
}
