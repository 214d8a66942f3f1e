//! The change that an update makes to every parameter.

use burn::module::{Module, ModuleVisitor, Param, ParamId};
use burn::tensor::Tensor;

use super::gradient;
use crate::kernel::{self, Reading};
use crate::network::Network;

/// Every parameter of a network at a moment, as vectors: handles to the device's tensors, no copies.
///
/// While a snapshot lives, the optimizer cannot write a parameter in place and makes a new tensor of it.
#[derive(Debug, Default)]
pub struct Snapshot(Vec<(ParamId, Tensor<1>)>);

/// Takes hold of every parameter.
pub fn snapshot(network: &Network) -> Snapshot {
    let mut snapshot = Snapshot::default();
    network.visit(&mut snapshot);
    snapshot
}

/// Summarizes every parameter that has a gradient before an update and its change, in the order of the gradients, each to be
/// read as [`kernel::UpdateSummary`] of each seed. Without an update, the change is 0.
pub fn measure(gradients: &gradient::Measurement, before: Snapshot, after: Snapshot, seeds: usize) -> Reading {
    let mut wanted = gradients.ids.iter().peekable();
    // All three are in the order of the network; a parameter without a gradient is passed over.
    let pairs = before.0.into_iter().zip(after.0).filter(|((id, _), _)| wanted.next_if_eq(&id).is_some());
    let pairs = pairs.map(|((_, before), (_, after))| (before, after)).collect();
    kernel::update_summaries(pairs, seeds)
}

impl ModuleVisitor for Snapshot {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        self.0.push((param.id, param.val().inner().reshape([-1])));
    }
}
