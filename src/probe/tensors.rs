//! Tensors as they are, under their names: what is dumped and what is saved.

use burn::module::{Module, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::tensor::Tensor;

use super::Path;
use super::gradient::follow_path;
use crate::network::{BatchStatistics, Network, RunningStatistics, Stacked};

/// A tensor with its name: a handle to the device's tensor, no copy.
///
/// While one lives, nobody can write that tensor in place.
#[derive(Clone, Debug)]
pub struct NamedTensor {
    /// `hidden.3.weight`
    pub name: String,
    /// Its sizes.
    pub shape: Vec<usize>,
    /// Its elements, the last index first, outside the graph.
    pub values: Tensor<1>,
}

impl NamedTensor {
    fn new<const D: usize>(name: String, tensor: Tensor<D>) -> Self {
        Self { name, shape: tensor.dims().to_vec(), values: tensor.reshape([-1]) }
    }
}

impl Stacked for NamedTensor {
    fn part(&self, seeds: usize, place: usize) -> Self {
        let mut shape = self.shape.clone();
        shape[0] /= seeds;
        Self { name: self.name.clone(), shape, values: self.values.part(seeds, place) }
    }
}

/// Every parameter of a network under its path, and the running statistics of batch norm beside them.
pub fn parameters(network: &mut Network) -> Vec<NamedTensor> {
    let mut visitor = ParameterVisitor::default();
    network.visit(&mut visitor);
    let mut found = visitor.found;
    for RunningStatistics { norm, statistics, .. } in network.running_statistics() {
        if let Some(BatchStatistics { mean, variance }) = statistics {
            found.push(NamedTensor::new(running_name(&norm, "mean"), mean));
            found.push(NamedTensor::new(running_name(&norm, "variance"), variance));
        }
    }
    found
}

/// The gradient of every parameter that has one: `hidden.3.weight.grad`.
pub fn gradients(network: &Network, gradients: &GradientsParams) -> Vec<NamedTensor> {
    let mut visitor = GradientVisitor { gradients, path: Path::default(), found: Vec::new() };
    network.visit(&mut visitor);
    visitor.found
}

/// `hidden.3.norm.running_mean`
pub fn running_name(norm: &str, what: &str) -> String {
    format!("{norm}.running_{what}")
}

#[derive(Default)]
struct ParameterVisitor {
    path: Path,
    found: Vec<NamedTensor>,
}

impl ModuleVisitor for ParameterVisitor {
    follow_path!();

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let value = param.val();
        let value = if value.is_autodiff() { value.inner() } else { value };
        self.found.push(NamedTensor::new(self.path.to_string(), value));
    }
}

struct GradientVisitor<'a> {
    gradients: &'a GradientsParams,
    path: Path,
    found: Vec<NamedTensor>,
}

impl ModuleVisitor for GradientVisitor<'_> {
    follow_path!();

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(gradient) = self.gradients.get::<D>(param.id) {
            self.found.push(NamedTensor::new(format!("{}.grad", self.path), gradient));
        }
    }
}
