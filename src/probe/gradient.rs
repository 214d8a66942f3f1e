//! The gradient of every parameter.

use burn::module::{Module, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::tensor::Tensor;

use crate::kernel::{self, Reading};
use crate::network::Network;

/// The gradient of one parameter, not yet read.
#[derive(Debug)]
pub struct Measurement {
    /// The parameter's path: `hidden.3.weight`.
    pub parameter: String,
    /// Its number of elements.
    pub element_count: usize,
    /// Read as [`kernel::GradientSummary`]; `None` if the parameter took no part in the loss.
    pub reading: Option<Reading>,
}

/// Summarizes the gradient of every parameter, in the order of the network.
pub fn measure(network: &Network, gradients: &GradientsParams) -> Vec<Measurement> {
    let mut visitor = Visitor { gradients, path: Path::default(), found: Vec::new() };
    network.visit(&mut visitor);
    visitor.found
}

struct Visitor<'a> {
    gradients: &'a GradientsParams,
    path: Path,
    found: Vec<Measurement>,
}

impl ModuleVisitor for Visitor<'_> {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.path.enter(name, container);
    }

    fn exit_module(&mut self, _name: &str, container: &str) {
        self.path.exit(container);
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        self.found.push(Measurement {
            parameter: self.path.to_string(),
            element_count: param.shape().num_elements(),
            reading: self.gradients.get::<D>(param.id).map(kernel::gradient_summary),
        });
    }
}

/// The path of the parameter that a visitor is at: the fields and indices that lead to it. The variant of
/// [`Network`] is not part of it.
#[derive(Debug, Default)]
pub struct Path(Vec<String>);

impl Path {
    /// Goes into a module.
    pub fn enter(&mut self, name: &str, container: &str) {
        if !container.starts_with("Enum:") {
            self.0.push(name.to_owned());
        }
    }

    /// Leaves a module.
    pub fn exit(&mut self, container: &str) {
        if !container.starts_with("Enum:") {
            self.0.pop();
        }
    }
}

impl std::fmt::Display for Path {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0.join("."))
    }
}
