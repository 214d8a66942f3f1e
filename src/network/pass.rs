//! One forward pass: whether it trains, and what it leaves behind.

use burn::tensor::Tensor;

use crate::kernel::{Form, FoundDeltas, WantedGradients};

/// A forward pass through a network.
#[derive(Debug, Default)]
pub struct Pass {
    trains: bool,
    trace: Option<Trace>,
    moments: Vec<BatchMoments>,
}

/// The mean and the variance of every unit over a batch, outside the graph.
#[derive(Clone, Debug)]
pub struct BatchStatistics {
    /// `[units]`
    pub mean: Tensor<1>,
    /// `[units]`, with n - 1 in the denominator: an estimate of the variance beyond the batch.
    pub variance: Tensor<1>,
}

/// What a training pass has normalized with.
#[derive(Clone, Debug)]
pub struct BatchMoments {
    /// `[units]`
    pub mean: Tensor<1>,
    /// `[units]`, with n in the denominator.
    pub variance: Tensor<1>,
    /// The numbers n of a unit.
    pub count: usize,
}

impl BatchMoments {
    /// Those of a batch of which so many numbers belong to each unit, of one or several seeds.
    pub(super) fn new<const D: usize>([mean, variance]: [Tensor<D>; 2], count: usize) -> Self {
        Self { mean: mean.reshape([-1]), variance: variance.reshape([-1]), count }
    }

    /// The statistics of all layers are made after the pass, so that a device makes them in few launches.
    pub(super) fn into_statistics(self) -> BatchStatistics {
        let count = self.count as f64;
        BatchStatistics { mean: self.mean, variance: self.variance * (count / (count - 1.0)) }
    }
}

#[derive(Debug)]
struct Trace {
    layers: Vec<LayerTrace>,
    wants: Wanted,
    /// The value of all leaves that nobody looks at, `[1, 1]`.
    leaf: Option<Tensor<2>>,
}

impl Trace {
    /// The tensors of the layer that began last.
    fn last(&mut self) -> Option<&mut TracedTensors> {
        match &mut self.layers.last_mut()?.traced {
            Traced::Tensors(tensors) => Some(tensors),
            Traced::Watched(_) => None,
        }
    }
}

/// What a traced pass leaves behind beside deltas and activations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// The gradients with respect to the inputs of layers.
    pub inputs: bool,
    /// Deltas as tensors, not only what is summed up of them.
    pub deltas: bool,
    /// Of recurrent layers, the gradients with respect to the states, and the gates.
    pub time_steps: bool,
}

/// What a forward pass leaves behind of one layer, for the probe.
#[derive(Clone, Debug)]
pub struct LayerTrace {
    /// The layer, from 0 at the input.
    pub layer_index: usize,
    /// Its path: `hidden.3`.
    pub layer: String,
    /// What can be measured of it.
    pub traced: Traced,
}

impl LayerTrace {
    /// The tensors of a layer that has not been measured yet.
    pub fn tensors(&self) -> Option<&TracedTensors> {
        match &self.traced {
            Traced::Tensors(tensors) => Some(tensors),
            Traced::Watched(_) => None,
        }
    }
}

/// What can be measured of a layer.
#[derive(Clone, Debug)]
pub enum Traced {
    /// Nothing yet: these tensors are there to be measured.
    Tensors(Box<TracedTensors>),
    /// It was measured on its way through the graph.
    Watched(Watched),
}

/// The tensors of a layer that are to be measured.
#[derive(Clone, Debug, Default)]
pub struct TracedTensors {
    /// A leaf whose gradient is the layer's delta, `[batch, units]`. None for the output layer.
    pub offset: Option<Tensor<2>>,
    /// Zeros that were added to the layer's input, `[batch, inputs]`, if they are wanted: their gradient is that of the
    /// input.
    pub input_offset: Option<Tensor<2>>,
    /// The activations `[batch, units]`, outside the graph. None for the output layer and for linear layers.
    pub activation: Option<Tensor<2>>,
    /// Of a recurrent layer.
    pub recurrence: Option<RecurrenceTrace>,
}

/// What was measured of a layer on its way through the graph, together with others.
#[derive(Clone, Debug)]
pub struct Watched {
    /// The deltas of all of them, once the backward pass has been there, and the number of the layer among them.
    pub delta: (FoundDeltas, usize),
    /// Of its activations, if it has any: the four numbers of an [`ActivationSummary`](crate::kernel::ActivationSummary) for each seed.
    pub activation: Option<Vec<f64>>,
}

/// What a recurrent layer leaves behind, for the probe.
#[derive(Clone, Debug)]
pub struct RecurrenceTrace {
    /// How it went over the sequence.
    pub form: Form,
    /// The hidden states `[steps x batch, units]`, outside the graph.
    pub hidden: Tensor<2>,
    /// A leaf whose gradient is that of the pre-activations, if it is known.
    pub pre_activation_offset: Option<Tensor<2>>,
    /// Leaves `[(steps + 1) x batch, units]` whose gradients are those of the hidden states and of the cell states, the initial
    /// ones first, if they are wanted and known.
    pub state_offsets: Vec<Tensor<2>>,
    /// What the cell keeps, `[steps x batch, kept x units]`, outside the graph, if the time steps are wanted; none of a cell
    /// without gates.
    pub gates: Option<Tensor<2>>,
}

impl Pass {
    /// Training: batch norm takes the statistics of the batch.
    pub fn training() -> Self {
        Self { trains: true, ..Self::default() }
    }

    /// Training, and every layer leaves a trace.
    pub fn traced(wants: Wanted) -> Self {
        Self { trace: Some(Trace { layers: Vec::new(), wants, leaf: None }), ..Self::training() }
    }

    /// Evaluation: batch norm takes its running statistics, or, before the first step, those of the split.
    pub fn evaluation() -> Self {
        Self::default()
    }

    /// Whether batch norm takes the statistics of the batch.
    pub fn trains(&self) -> bool {
        self.trains
    }

    /// The traces of the layers and the moments of the normalizations, in the order of the pass.
    pub fn finish(self) -> (Vec<LayerTrace>, Vec<BatchMoments>) {
        (self.trace.map_or_else(Vec::new, |trace| trace.layers), self.moments)
    }

    pub(super) fn keep_moments(&mut self, moments: BatchMoments) {
        self.moments.push(moments);
    }

    /// A layer begins: returns its input, to which zeros may have been added.
    pub(super) fn enter<const D: usize>(&mut self, layer: impl FnOnce() -> String, input: Tensor<D>) -> Tensor<D> {
        let Some(trace) = &mut self.trace else {
            return input;
        };
        let (input, input_offset) = if trace.wants.inputs {
            let (input, offset) = with_offset(input);
            (input, Some(offset))
        } else {
            (input, None)
        };
        let layer_index = trace.layers.len();
        let tensors = TracedTensors { input_offset, ..TracedTensors::default() };
        trace.layers.push(LayerTrace { layer_index, layer: layer(), traced: Traced::Tensors(Box::new(tensors)) });
        input
    }

    /// The output layer begins; it is traced only for its input.
    pub(super) fn enter_output<const D: usize>(&mut self, input: Tensor<D>) -> Tensor<D> {
        match &self.trace {
            Some(Trace { wants: Wanted { inputs: true, .. }, .. }) => self.enter(|| "output".to_owned(), input),
            _ => input,
        }
    }

    /// The pre-activations of the layer that began last.
    pub(super) fn pre_activation<const D: usize>(&mut self, z: Tensor<D>) -> Tensor<D> {
        let Some(layer) = self.trace.as_mut().and_then(Trace::last) else {
            return z;
        };
        let (z, offset) = with_offset(z);
        layer.offset = Some(offset);
        z
    }

    /// Of the layer that began last: a leaf whose gradient becomes that with respect to its pre-activations, if they are wanted. The
    /// value is not looked at.
    pub(super) fn delta_leaf(&mut self, x: &Tensor<2>) -> Option<Tensor<2>> {
        let trace = self.trace.as_mut()?;
        let zero = || Tensor::<2>::zeros([1, 1], (&x.device(), x.dtype())).inner();
        let leaf = Tensor::from_inner(trace.leaf.get_or_insert_with(zero).clone()).require_grad();
        trace.last()?.offset = Some(leaf.clone());
        Some(leaf)
    }

    /// Whether layers leave a trace.
    pub(super) fn is_traced(&self) -> bool {
        self.trace.is_some()
    }

    /// Whether layers can go through the graph together: nothing is wanted of them but what can be measured on the way.
    pub(super) fn lets_layers_together(&self) -> bool {
        self.trace.as_ref().is_none_or(|trace| !trace.wants.inputs && !trace.wants.deltas)
    }

    /// What one of several layers leaves that went through the graph together.
    pub(super) fn leave(&mut self, layer: String, watched: Watched) {
        if let Some(trace) = &mut self.trace {
            let layer_index = trace.layers.len();
            trace.layers.push(LayerTrace { layer_index, layer, traced: Traced::Watched(watched) });
        }
    }

    /// The activations of the layer that began last.
    pub(super) fn activation<const D: usize>(&mut self, activation: &Tensor<D>) {
        if let Some(layer) = self.trace.as_mut().and_then(Trace::last) {
            layer.activation = Some(flatten_units(activation.clone().inner()));
        }
    }

    /// The gradients that recurrent layers must make accessible.
    pub(super) fn wanted_of_recurrence(&self) -> WantedGradients {
        let wants = self.trace.as_ref().map(|trace| trace.wants);
        WantedGradients { pre_activations: wants.is_some(), states: wants.is_some_and(|wants| wants.time_steps) }
    }

    /// What the recurrent layer that began last leaves.
    pub(super) fn recurrence(&mut self, trace: RecurrenceTrace) {
        if let Some(layer) = self.trace.as_mut().and_then(Trace::last) {
            layer.offset.clone_from(&trace.pre_activation_offset);
            layer.activation = Some(trace.hidden.clone());
            layer.recurrence = Some(trace);
        }
    }
}

/// Adds zeros that are a leaf of the graph.
fn with_offset<const D: usize>(x: Tensor<D>) -> (Tensor<D>, Tensor<2>) {
    let dims = x.dims();
    let offset = Tensor::zeros(matrix_shape(dims), &x.device()).require_grad();
    (x + offset.clone().reshape(dims), offset)
}

/// `[batch, ..]` as `[batch, units]`.
fn flatten_units<const D: usize>(x: Tensor<D>) -> Tensor<2> {
    let shape = matrix_shape(x.dims());
    x.reshape(shape)
}

fn matrix_shape<const D: usize>(dims: [usize; D]) -> [usize; 2] {
    [dims[0], dims[1..].iter().product()]
}
