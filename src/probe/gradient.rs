//! The gradient of every parameter.

use burn::module::{Module, ModuleVisitor, Param, ParamId};
use burn::optim::GradientsParams;
use burn::tensor::Tensor;

use crate::kernel::{self, Reading};

/// Implements the ways into and out of a module for whoever has a `path`.
macro_rules! follow_path {
    () => {
        fn enter_module(&mut self, name: &str, container: &str) {
            self.path.enter(name, container);
        }

        fn exit_module(&mut self, _name: &str, container: &str) {
            self.path.exit(container);
        }
    };
}

pub(crate) use follow_path;

/// The gradients of a step, not yet read.
#[derive(Clone, Debug, Default)]
pub struct Measurement {
    /// The parameters that have one, in the order of the module.
    pub ids: Vec<ParamId>,
    /// Of each, read as [`kernel::GradientSummary`] of each seed.
    pub reading: Reading,
}

/// What a parameter is called.
#[derive(Clone, Debug)]
pub struct Parameter {
    /// The parameter, as Burn knows it.
    pub id: ParamId,
    /// Its path: `hidden.3.weight`.
    pub name: String,
    /// Its number of elements, in the network of one seed.
    pub element_count: usize,
}

/// Summarizes the gradient of every parameter that took part in the loss, in the order of the module, for each seed.
pub fn measure<M: Module>(module: &M, gradients: &GradientsParams, seeds: usize) -> Measurement {
    let mut visitor = Visitor { gradients, ids: Vec::new(), found: Vec::new() };
    module.visit(&mut visitor);
    Measurement { ids: visitor.ids, reading: kernel::gradient_summaries(visitor.found, seeds) }
}

struct Visitor<'a> {
    gradients: &'a GradientsParams,
    ids: Vec<ParamId>,
    found: Vec<Tensor<1>>,
}

impl ModuleVisitor for Visitor<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(gradient) = self.gradients.get::<D>(param.id) {
            self.ids.push(param.id);
            self.found.push(gradient.reshape([-1]));
        }
    }
}

/// All parameters of a module, in its order.
pub fn parameters<M: Module>(module: &M, seeds: usize) -> Vec<Parameter> {
    let mut names = Names { seeds, path: Path::default(), found: Vec::new() };
    module.visit(&mut names);
    names.found
}

struct Names {
    seeds: usize,
    path: Path,
    found: Vec<Parameter>,
}

impl ModuleVisitor for Names {
    follow_path!();

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let element_count = param.val().shape().num_elements() / self.seeds;
        self.found.push(Parameter { id: param.id, name: self.path.to_string(), element_count });
    }
}

/// The path of the parameter that a visitor is at: the fields and indices that lead to it. The variant of
/// [`Network`](crate::network::Network) is not part of it.
#[derive(Debug, Default)]
pub struct Path {
    text: String,
    /// Where the text ended before each module was entered.
    ends: Vec<usize>,
}

impl Path {
    /// Goes into a module.
    pub fn enter(&mut self, name: &str, container: &str) {
        if !container.starts_with("Enum:") {
            self.ends.push(self.text.len());
            if !self.text.is_empty() {
                self.text.push('.');
            }
            self.text.push_str(name);
        }
    }

    /// Leaves a module.
    pub fn exit(&mut self, container: &str) {
        if !container.starts_with("Enum:")
            && let Some(end) = self.ends.pop()
        {
            self.text.truncate(end);
        }
    }

    /// Whether the parameter is a matrix or kernel of weights, and not a bias, a normalization or a slope.
    pub fn is_weight(&self) -> bool {
        self.text.rsplit('.').next() == Some("weight")
    }
}

impl std::fmt::Display for Path {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}
