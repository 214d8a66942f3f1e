//! Several layers on the CPU. Each thread takes some examples through all stages between two batch norms, whose moments are
//! those of all examples; nobody waits for others in between, and rows stay in the cache of their core. The gradients of the weights,
//! sums over the examples, come last, when the gradients of all layers are there.
//!
//! Bias gradients and moments are added up in pieces of so many rows, which decide in which order, and not the number of threads.

mod backward;
mod forward;
mod plan;

use burn::backend::Flex;
use burn::backend::tensor::FloatTensor;
use burn::tensor::DType;

use super::flex_layer::Columns;
use super::stages::{Stage, Watch};

type Primitive = FloatTensor<Flex>;

/// What stages are.
#[derive(Clone, Debug, PartialEq)]
pub struct StagesForm {
    /// One after the other.
    pub stages: Vec<Stage>,
    /// The networks that stand below each other.
    pub seeds: usize,
}

/// What is asked for beside the gradients of the parameters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WantedOfStages {
    /// The gradient with respect to the input.
    pub of_x: bool,
    /// The summaries of the deltas of dense stages.
    pub deltas: bool,
}

/// What a stage leaves.
#[derive(Clone, Debug)]
pub struct Left {
    /// Its output, `[seeds x batch, units]`.
    pub output: Primitive,
    /// What its function was applied to, if the derivative needs it.
    pub argument: Option<Primitive>,
    /// Of batch norm, the mean and the variance of the batch, `[seeds, units]`.
    pub moments: Option<[Primitive; 2]>,
    /// Of layer norm, the mean and the variance of each row, `[seeds x batch, 2]`.
    pub row_moments: Option<Primitive>,
    /// If it is watched, the summary of its output, of each seed.
    pub activation: Option<Vec<f64>>,
}

impl Left {
    /// All tensors.
    pub fn tensors(self) -> impl Iterator<Item = Primitive> {
        let of_norms = self.moments.into_iter().flatten().chain(self.row_moments);
        [self.output].into_iter().chain(self.argument).chain(of_norms)
    }
}

/// What a backward pass finds.
#[derive(Debug)]
pub struct Found {
    /// With respect to the input, if it is wanted.
    pub of_x: Option<Primitive>,
    /// With respect to all parameters, in their order.
    pub of_parameters: Vec<Primitive>,
    /// The summaries of the deltas of each dense stage and each seed, if they are wanted.
    pub deltas: Option<Vec<f64>>,
}

/// What goes through stages, all of it row by row.
#[derive(Clone, Debug)]
pub struct Passed {
    /// The input, `[seeds x batch, inputs]`.
    pub x: Primitive,
    /// The parameters of all stages, one after the other.
    pub parameters: Vec<Primitive>,
    /// The stages.
    pub form: StagesForm,
}

/// What every stage leaves; `None` where the stock form must do it. Only f32 is watched.
pub fn stages(passed: &Passed, watch: Option<&Watch>) -> Option<Vec<Left>> {
    match passed.x.dtype() {
        DType::F32 => forward::forward::<f32>(passed, watch),
        DType::F64 if watch.is_none() => forward::forward::<f64>(passed, None),
        _ => None,
    }
}

/// The way back through what the stages have left; `None` where the stock form must do it.
pub fn stages_backward(passed: &Passed, left: &[Left], gradient: &Primitive, wanted: WantedOfStages) -> Option<Found> {
    match passed.x.dtype() {
        DType::F32 => backward::backward::<f32>(passed, left, gradient, wanted),
        DType::F64 => backward::backward::<f64>(passed, left, gradient, wanted),
        _ => None,
    }
}

/// Numbers of f32 as such, and none of others.
fn as_f32<T: Columns>(numbers: &[T]) -> &[f32] {
    if T::dtype() == DType::F32 { bytemuck::cast_slice(numbers) } else { &[] }
}

/// The numbers of the units of a seed.
fn of_seed<T>(numbers: &[T], seed: usize, units: usize) -> &[T] {
    &numbers[seed * units..][..units]
}
