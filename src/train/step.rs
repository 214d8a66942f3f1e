//! One step: forward, backward, probe, update.

use burn::optim::{GradientsParams, ModuleOptimizer};
use burn::tensor::Tensor;

use super::loss::mean_loss;
use crate::config::Loss;
use crate::data::Batch;
use crate::network::Network;
use crate::probe::{PendingStep, Probe, gradient, layer, update};

/// What a step does with its gradients.
pub enum Update<'a> {
    /// The optimizer changes the parameters.
    Apply {
        /// The optimizer, with its momentum.
        optimizer: &'a mut ModuleOptimizer,
        /// The learning rate.
        learning_rate: f64,
    },
    /// Nothing: the network is only measured.
    None,
}

/// Makes one step and returns the network after it and the mean loss `[1]` before it.
///
/// With a probe and the number of the step, the step is measured. Nothing waits for the device.
pub fn make_step(
    mut network: Network,
    batch: Batch,
    loss: Loss,
    update: Update<'_>,
    mut measured: Option<(&mut Probe, usize)>,
) -> (Network, Tensor<1>) {
    let mut trace = Vec::new();
    let outputs = match &measured {
        Some((probe, _)) if probe.wants_layers() => network.forward_traced(batch.inputs, &mut trace),
        _ => network.forward(batch.inputs),
    };
    let loss = mean_loss(loss, outputs, batch.targets);

    let gradients = loss.backward();

    let mut pending = PendingStep::default();
    if let Some((probe, step)) = &mut measured {
        pending.step = *step;
        pending.layers = layer::measure(trace, &gradients, probe.activation());
    }
    let gradients = GradientsParams::from_grads(gradients, &network);
    let mut before = None;
    if let Some((probe, _)) = &measured
        && probe.wants_parameters()
    {
        pending.gradients = gradient::measure(&network, &gradients);
        before = Some(update::snapshot(&network));
    }

    pending.is_updated = matches!(update, Update::Apply { .. });
    if let Update::Apply { optimizer, learning_rate } = update {
        network = optimizer.step(learning_rate, network, gradients);
    }
    if let Some(before) = before {
        pending.updates = update::measure(before, update::snapshot(&network));
    }

    if let Some((probe, _)) = measured {
        probe.keep_step(pending);
    }
    (network, loss)
}
