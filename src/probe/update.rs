//! The change that an update makes to every parameter.

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::Tensor;

use crate::kernel::{self, Reading};
use crate::network::Network;

/// Every parameter of a network at a moment, as vectors: handles to the device's tensors, no copies.
///
/// While a snapshot lives, the optimizer cannot write a parameter in place and makes a new tensor of it.
#[derive(Debug, Default)]
pub struct Snapshot(Vec<Tensor<1>>);

/// Takes hold of every parameter.
pub fn snapshot(network: &Network) -> Snapshot {
    let mut snapshot = Snapshot::default();
    network.visit(&mut snapshot);
    snapshot
}

/// Summarizes every parameter before an update and its change, in the order of the network, each to be read as
/// [`kernel::UpdateSummary`]. Without an update, the change is 0.
pub fn measure(before: Snapshot, after: Snapshot) -> Vec<Reading> {
    kernel::update_summaries(before.0.into_iter().zip(after.0).collect())
}

impl ModuleVisitor for Snapshot {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        self.0.push(param.val().inner().reshape([-1]));
    }
}
