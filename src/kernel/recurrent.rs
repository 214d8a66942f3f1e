//! A recurrent layer over a whole sequence, as one node of Burn's graph with a backward pass through time by hand.
//!
//! Written with Burn's differentiable operations, a time step has a dozen nodes, and cutting gates out of one product costs a
//! tensor of zeros for each of them in the backward pass. Here the gates of all time steps stand in one buffer, over
//! which the backward pass may write their gradients, and the gradients of the weights are products over all time steps.
//!
//! Rows stand in the order of time: row `t * batch + b` is example b at time step t.

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, AutodiffBackend, Backend, Dispatch, TensorMetadata, backend_extension};
use burn::tensor::{Shape, Slice, Tensor};

use super::Activated;
#[cfg(any(feature = "wgpu", feature = "cuda"))]
use super::cube;
use super::layer::{by_unit, minus_from_one, stock_activated, stock_activated_backward, sum_by_unit};
#[cfg(feature = "flex")]
use super::{flex_recurrent, pool};
use crate::config::Kernels;

/// The cells. s is the sigmoid; x stands for `x W + b`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Recurrence {
    /// h = phi(x + h' U), phi the identity if there is none
    Rnn(Option<Activated>),
    /// i, f, o = s(x + h' U), g = tanh(x + h' U), c = f c' + i g, h = o tanh(c); in the order i, f, g, o
    Lstm,
    /// r, z = s(x + h' U), n = tanh(x + r q), q = h' U + d, h = (1 - z) n + z h'; in the order r, z, n
    Gru,
}

impl Recurrence {
    /// Pre-activations a unit: columns of the weights.
    pub fn gates(self) -> usize {
        self.input_gates().iter().flatten().count()
    }

    /// Sums a unit: the pre-activations, but of a GRU's candidate the two parts x and q.
    pub fn blocks(self) -> usize {
        self.input_gates().len()
    }

    /// Numbers a unit that the backward pass needs beside the states: the gates, the candidate, and of a GRU also q.
    pub fn kept(self) -> usize {
        match self {
            Self::Rnn(_) => 0,
            Self::Lstm | Self::Gru => 4,
        }
    }

    /// The gate whose weights from the input a block has.
    pub(super) fn input_gates(self) -> &'static [Option<usize>] {
        match self {
            Self::Rnn(_) => &[Some(0)],
            Self::Lstm => &[Some(0), Some(1), Some(2), Some(3)],
            Self::Gru => &[Some(0), Some(1), Some(2), None],
        }
    }

    /// The gate whose weights from the hidden state a block has.
    pub(super) fn state_gates(self) -> &'static [Option<usize>] {
        match self {
            Self::Gru => &[Some(0), Some(1), None, Some(2)],
            Self::Rnn(_) | Self::Lstm => self.input_gates(),
        }
    }
}

/// How a layer goes over a sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Form {
    /// The cell.
    pub recurrence: Recurrence,
    /// Time steps.
    pub steps: usize,
    /// The gradient stops wherever a piece of so many time steps begins, but for the first one, which begins with the initial
    /// state.
    pub truncation: Option<usize>,
    /// Whether the layer hands on the hidden state after every time step, or after the last one.
    pub answers_every_step: bool,
    /// Whether the fused form is taken where the backend has one.
    pub kernels: Kernels,
}

impl Form {
    /// Whether the state before a time step is handed on as a constant.
    pub fn cuts_before(self, step: usize) -> bool {
        step > 0 && self.truncation.is_some_and(|length| step.is_multiple_of(length))
    }
}

/// The parameters of a layer.
#[derive(Clone, Debug)]
pub struct Weights<B: Backend> {
    /// `[inputs, gates x units]`
    pub input: FloatTensor<B>,
    /// `[gates x units]`
    pub bias: FloatTensor<B>,
    /// `[units, gates x units]`
    pub recurrent: FloatTensor<B>,
    /// `[units]`: d of a GRU; not looked at in other cells.
    pub inner_bias: FloatTensor<B>,
}

/// The gradients with respect to them, of the same shapes.
pub type WeightGradients<B> = Weights<B>;

/// What a forward pass leaves behind.
#[derive(Clone, Debug)]
pub struct States<B: Backend> {
    /// The hidden states, `[steps x batch, units]`.
    pub hidden: FloatTensor<B>,
    /// What is kept of the gates, `[steps x batch, kept x units]`, in the order of the cell; `[1, 1]` of a cell without.
    pub gates: FloatTensor<B>,
    /// The cell states of an LSTM, `[steps x batch, units]`; `[1, 1]` of others.
    pub cells: FloatTensor<B>,
}

/// Recurrent layers on a backend. The default bodies run on every backend.
#[backend_extension(
    Autodiff,
    Flex: cfg(feature = "flex"),
    NdArray: cfg(feature = "ndarray"),
    Cube: cfg(any(feature = "wgpu", feature = "cuda"))
)]
#[allow(clippy::too_many_arguments)] // The macro takes tensors one by one.
pub trait RecurrentOps: Backend {
    /// The hidden state after every time step or after the last one, and `States`. The initial states are 0. The gradients of
    /// the offsets are those of the pre-activations `x W + b` (`[steps x batch, gates x units]`) and of the states, the initial
    /// one first (`[(steps + 1) x batch, units]`); their values are not looked at.
    fn recurrent(
        x: FloatTensor<Self>,
        input: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        recurrent: FloatTensor<Self>,
        inner_bias: FloatTensor<Self>,
        sum_offset: FloatTensor<Self>,
        hidden_offset: FloatTensor<Self>,
        cell_offset: FloatTensor<Self>,
        form: Form,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        let _ = (sum_offset, hidden_offset, cell_offset);
        with_output::<Self>(stock_recurrent::<Self>(x, Weights { input, bias, recurrent, inner_bias }, form), form)
    }

    /// The gradients with respect to the sums, `[steps x batch, blocks x units]`, and, if they are wanted, with respect to the
    /// hidden states and the cell states of an LSTM, the initial ones first, `[(steps + 1) x batch, units]`.
    fn recurrent_backward(
        gradient: FloatTensor<Self>,
        recurrent: FloatTensor<Self>,
        hidden: FloatTensor<Self>,
        gates: FloatTensor<Self>,
        cells: FloatTensor<Self>,
        form: Form,
        wants_states: bool,
    ) -> Vec<FloatTensor<Self>> {
        stock_recurrent_backward::<Self>(&gradient, recurrent, &States { hidden, gates, cells }, form, wants_states)
    }

    /// The gradients with respect to the parameters, in the order of `Weights`.
    fn recurrent_weight_gradients(
        x: FloatTensor<Self>,
        hidden: FloatTensor<Self>,
        of_sums: FloatTensor<Self>,
        form: Form,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        in_order::<Self>(stock_weight_gradients::<Self>(x, hidden, &of_sums, form))
    }
}

fn with_output<B: Backend>(
    states: States<B>,
    form: Form,
) -> (FloatTensor<B>, FloatTensor<B>, FloatTensor<B>, FloatTensor<B>) {
    let States { hidden, gates, cells } = states;
    let output =
        if form.answers_every_step { hidden.clone() } else { at::<B>(hidden.clone(), form.steps - 1, form.steps) };
    (output, hidden, gates, cells)
}

fn in_order<B: Backend>(
    gradients: WeightGradients<B>,
) -> (FloatTensor<B>, FloatTensor<B>, FloatTensor<B>, FloatTensor<B>) {
    (gradients.input, gradients.bias, gradients.recurrent, gradients.inner_bias)
}

/// The rows of a time step.
fn at<B: Backend>(x: FloatTensor<B>, step: usize, steps: usize) -> FloatTensor<B> {
    let batch = x.shape()[0] / steps;
    rows::<B>(x, step * batch, (step + 1) * batch)
}

fn rows<B: Backend>(x: FloatTensor<B>, first: usize, end: usize) -> FloatTensor<B> {
    let columns = x.shape()[1];
    B::float_slice(x, &[Slice::from(first..end), Slice::from(0..columns)])
}

/// The columns of a gate.
fn gate<B: Backend>(x: &FloatTensor<B>, place: usize, units: usize) -> FloatTensor<B> {
    let rows = x.shape()[0];
    B::float_slice(x.clone(), &[Slice::from(0..rows), Slice::from(place * units..(place + 1) * units)])
}

/// Not a product with 0, which leaves a NaN where x is not finite.
fn zeros<B: Backend>(shape: Shape, like: &FloatTensor<B>) -> FloatTensor<B> {
    B::float_zeros(shape, &like.device(), like.dtype().into())
}

/// `x W + b` of all time steps.
fn projected<B: Backend>(x: FloatTensor<B>, weights: &Weights<B>) -> FloatTensor<B> {
    B::float_add(B::float_matmul(x, weights.input.clone()), by_unit::<B>(weights.bias.clone(), 2))
}

#[cfg(any(feature = "wgpu", feature = "cuda"))]
fn transposed<B: Backend>(weight: FloatTensor<B>) -> FloatTensor<B> {
    B::float_transpose(weight)
}

fn stock_recurrent<B: Backend>(x: FloatTensor<B>, weights: Weights<B>, form: Form) -> States<B> {
    stock_states::<B>(&projected::<B>(x, &weights), weights, form)
}

fn stock_states<B: Backend>(projected: &FloatTensor<B>, weights: Weights<B>, form: Form) -> States<B> {
    let Weights { bias, recurrent: weight, inner_bias: bias_in_candidate, .. } = weights;
    let units = weight.shape()[0];
    let placeholder = B::float_slice(bias, &[Slice::from(0..1)]);
    let placeholder = by_unit::<B>(placeholder, 2);
    let (mut all_hidden, mut all_gates, mut all_cells) = (Vec::new(), Vec::new(), Vec::new());
    let mut before: Option<(FloatTensor<B>, FloatTensor<B>)> = None;
    for step in 0..form.steps {
        let x = at::<B>(projected.clone(), step, form.steps);
        let product = before.as_ref().map(|(hidden, _)| B::float_matmul(hidden.clone(), weight.clone()));
        let sum = |x: FloatTensor<B>, product: Option<FloatTensor<B>>| match product {
            Some(product) => B::float_add(x, product),
            None => x,
        };
        match form.recurrence {
            Recurrence::Rnn(function) => {
                let z = sum(x, product);
                let hidden = match function {
                    Some(function) => stock_activated::<B>(z, function),
                    None => z,
                };
                all_hidden.push(hidden.clone());
                before = Some((hidden.clone(), hidden));
            }
            Recurrence::Lstm => {
                let z = sum(x, product);
                let input = B::sigmoid(gate::<B>(&z, 0, units));
                let forget = B::sigmoid(gate::<B>(&z, 1, units));
                let candidate = B::float_tanh(gate::<B>(&z, 2, units));
                let output = B::sigmoid(gate::<B>(&z, 3, units));
                let new = B::float_mul(input.clone(), candidate.clone());
                let cell = match before {
                    Some((_, cell)) => B::float_add(B::float_mul(forget.clone(), cell), new),
                    None => new,
                };
                let hidden = B::float_mul(output.clone(), B::float_tanh(cell.clone()));
                all_gates.push(B::float_cat(vec![input, forget, candidate, output], 1));
                all_cells.push(cell.clone());
                all_hidden.push(hidden.clone());
                before = Some((hidden, cell));
            }
            Recurrence::Gru => {
                let part = |place| {
                    let product = product.as_ref().map(|product| gate::<B>(product, place, units));
                    sum(gate::<B>(&x, place, units), product)
                };
                let reset = B::sigmoid(part(0));
                let update = B::sigmoid(part(1));
                let bias = by_unit::<B>(bias_in_candidate.clone(), 2);
                let inner = match &product {
                    Some(product) => B::float_add(gate::<B>(product, 2, units), bias),
                    None => B::float_add(zeros::<B>(reset.shape(), &reset), bias),
                };
                let candidate =
                    B::float_tanh(B::float_add(gate::<B>(&x, 2, units), B::float_mul(reset.clone(), inner.clone())));
                let new = B::float_mul(minus_from_one::<B>(update.clone()), candidate.clone());
                let hidden = match before {
                    Some((hidden, _)) => B::float_add(new, B::float_mul(update.clone(), hidden)),
                    None => new,
                };
                all_gates.push(B::float_cat(vec![reset, update, candidate, inner], 1));
                all_hidden.push(hidden.clone());
                before = Some((hidden.clone(), hidden));
            }
        }
    }
    let join = |all: Vec<FloatTensor<B>>| if all.is_empty() { placeholder.clone() } else { B::float_cat(all, 0) };
    States { hidden: join(all_hidden), gates: join(all_gates), cells: join(all_cells) }
}

fn stock_recurrent_backward<B: Backend>(
    gradient: &FloatTensor<B>,
    weight: FloatTensor<B>,
    states: &States<B>,
    form: Form,
    wants_states: bool,
) -> Vec<FloatTensor<B>> {
    let units = weight.shape()[0];
    let steps = form.steps;
    let transposed = B::float_transpose(weight);
    let nothing = zeros::<B>(Shape::new([states.hidden.shape()[0] / steps, units]), &states.hidden);
    let (mut of_hidden, mut of_cell) = (nothing.clone(), nothing.clone());
    let (mut sums, mut hidden_gradients, mut cell_gradients) = (Vec::new(), Vec::new(), Vec::new());
    for step in (0..steps).rev() {
        let hidden_at = |step| at::<B>(states.hidden.clone(), step, steps);
        if form.answers_every_step {
            of_hidden = B::float_add(of_hidden, at::<B>(gradient.clone(), step, steps));
        } else if step + 1 == steps {
            of_hidden = B::float_add(of_hidden, gradient.clone());
        }
        if wants_states {
            hidden_gradients.push(of_hidden.clone());
        }
        match form.recurrence {
            Recurrence::Rnn(function) => {
                let of_z = match function {
                    Some(function) => stock_activated_backward::<B>(hidden_at(step), of_hidden, function),
                    None => of_hidden,
                };
                of_hidden = B::float_matmul(of_z.clone(), transposed.clone());
                sums.push(of_z);
            }
            Recurrence::Lstm => {
                let gates = at::<B>(states.gates.clone(), step, steps);
                let [input, forget, candidate, output] = [0, 1, 2, 3].map(|place| gate::<B>(&gates, place, units));
                let squashed = B::float_tanh(at::<B>(states.cells.clone(), step, steps));
                let through_output = B::float_mul(of_hidden.clone(), output.clone());
                of_cell = B::float_add(
                    of_cell,
                    stock_activated_backward::<B>(squashed.clone(), through_output, Activated::Tanh),
                );
                if wants_states {
                    cell_gradients.push(of_cell.clone());
                }
                let before = if step > 0 { at::<B>(states.cells.clone(), step - 1, steps) } else { nothing.clone() };
                let times = |factor| B::float_mul(of_cell.clone(), factor);
                let of_gates = vec![
                    stock_activated_backward::<B>(input.clone(), times(candidate.clone()), Activated::Sigmoid),
                    stock_activated_backward::<B>(forget.clone(), times(before), Activated::Sigmoid),
                    stock_activated_backward::<B>(candidate, times(input), Activated::Tanh),
                    stock_activated_backward::<B>(output, B::float_mul(of_hidden, squashed), Activated::Sigmoid),
                ];
                let of_z = B::float_cat(of_gates, 1);
                of_cell = B::float_mul(of_cell, forget);
                of_hidden = B::float_matmul(of_z.clone(), transposed.clone());
                sums.push(of_z);
            }
            Recurrence::Gru => {
                let gates = at::<B>(states.gates.clone(), step, steps);
                let [reset, update, candidate, inner] = [0, 1, 2, 3].map(|place| gate::<B>(&gates, place, units));
                let before = if step > 0 { hidden_at(step - 1) } else { nothing.clone() };
                let through_new = B::float_mul(of_hidden.clone(), minus_from_one::<B>(update.clone()));
                let of_candidate = stock_activated_backward::<B>(candidate.clone(), through_new, Activated::Tanh);
                let of_reset = B::float_mul(of_candidate.clone(), inner);
                let of_reset = stock_activated_backward::<B>(reset.clone(), of_reset, Activated::Sigmoid);
                let of_update = B::float_mul(of_hidden.clone(), B::float_sub(before, candidate));
                let of_update = stock_activated_backward::<B>(update.clone(), of_update, Activated::Sigmoid);
                let of_inner = B::float_mul(of_candidate.clone(), reset);
                let of_product = B::float_cat(vec![of_reset.clone(), of_update.clone(), of_inner.clone()], 1);
                sums.push(B::float_cat(vec![of_reset, of_update, of_candidate, of_inner], 1));
                let direct = B::float_mul(of_hidden, update);
                of_hidden = B::float_add(direct, B::float_matmul(of_product, transposed.clone()));
            }
        }
        if form.cuts_before(step) {
            (of_hidden, of_cell) = (nothing.clone(), nothing.clone());
        }
    }
    if wants_states {
        hidden_gradients.push(of_hidden);
        if form.recurrence == Recurrence::Lstm {
            cell_gradients.push(of_cell);
        }
    }
    let join = |mut all: Vec<FloatTensor<B>>| {
        all.reverse();
        (!all.is_empty()).then(|| B::float_cat(all, 0))
    };
    [join(sums), join(hidden_gradients), join(cell_gradients)].into_iter().flatten().collect()
}

fn stock_weight_gradients<B: Backend>(
    x: FloatTensor<B>,
    hidden: FloatTensor<B>,
    of_sums: &FloatTensor<B>,
    form: Form,
) -> WeightGradients<B> {
    let units = hidden.shape()[1];
    let count = hidden.shape()[0];
    let batch = count / form.steps;
    let recurrence = form.recurrence;
    let columns = recurrence.gates() * units;
    let of_input = of_gates::<B>(of_sums, recurrence.input_gates(), units);
    let of_state = of_gates::<B>(of_sums, recurrence.state_gates(), units);
    let last = recurrence.blocks() - 1;
    WeightGradients {
        bias: sum_by_unit::<B>(of_input.clone()),
        inner_bias: sum_by_unit::<B>(gate::<B>(of_sums, last, units)),
        input: B::float_matmul(B::float_transpose(x), of_input),
        // The initial state is 0.
        recurrent: if form.steps == 1 {
            zeros::<B>(Shape::new([units, columns]), &hidden)
        } else {
            let before = rows::<B>(hidden, 0, count - batch);
            debug_assert_eq!(of_state.shape()[1], columns);
            B::float_matmul(B::float_transpose(before), rows::<B>(of_state, batch, count))
        },
    }
}

/// The columns of the blocks that have a gate.
fn of_gates<B: Backend>(of_sums: &FloatTensor<B>, gates: &[Option<usize>], units: usize) -> FloatTensor<B> {
    if gates.iter().all(Option::is_some) {
        return of_sums.clone();
    }
    let blocks = gates.iter().enumerate().filter(|(_, gate)| gate.is_some());
    B::float_cat(blocks.map(|(block, _)| gate::<B>(of_sums, block, units)).collect(), 1)
}

#[cfg(feature = "flex")]
#[allow(clippy::too_many_arguments)] // As in the trait.
impl RecurrentOps for burn::backend::Flex {
    fn recurrent(
        x: FloatTensor<Self>,
        input: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        recurrent: FloatTensor<Self>,
        inner_bias: FloatTensor<Self>,
        _sum_offset: FloatTensor<Self>,
        _hidden_offset: FloatTensor<Self>,
        _cell_offset: FloatTensor<Self>,
        form: Form,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        let weights = Weights { input, bias, recurrent, inner_bias };
        let states =
            flex_recurrent::recurrent(&x, &weights, form).unwrap_or_else(|| stock_recurrent::<Self>(x, weights, form));
        with_output::<Self>(states, form)
    }

    fn recurrent_backward(
        gradient: FloatTensor<Self>,
        recurrent: FloatTensor<Self>,
        hidden: FloatTensor<Self>,
        gates: FloatTensor<Self>,
        cells: FloatTensor<Self>,
        form: Form,
        wants_states: bool,
    ) -> Vec<FloatTensor<Self>> {
        let states = States { hidden, gates, cells };
        flex_recurrent::recurrent_backward(&gradient, &recurrent, states, form, wants_states).unwrap_or_else(|states| {
            stock_recurrent_backward::<Self>(&gradient, recurrent, &states, form, wants_states)
        })
    }

    fn recurrent_weight_gradients(
        x: FloatTensor<Self>,
        hidden: FloatTensor<Self>,
        of_sums: FloatTensor<Self>,
        form: Form,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        let gradients = match flex_recurrent::weight_gradients(&x, &hidden, &of_sums, form) {
            Some(gradients) => {
                [hidden, of_sums].into_iter().for_each(pool::recycle_any);
                gradients
            }
            None => stock_weight_gradients::<Self>(x, hidden, &of_sums, form),
        };
        in_order::<Self>(gradients)
    }
}

#[cfg(feature = "ndarray")]
impl RecurrentOps for burn::backend::NdArray {}

#[cfg(any(feature = "wgpu", feature = "cuda"))]
#[allow(clippy::too_many_arguments)] // As in the trait.
impl RecurrentOps for cube::Fused {
    fn recurrent(
        x: FloatTensor<Self>,
        input: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        recurrent: FloatTensor<Self>,
        inner_bias: FloatTensor<Self>,
        _sum_offset: FloatTensor<Self>,
        _hidden_offset: FloatTensor<Self>,
        _cell_offset: FloatTensor<Self>,
        form: Form,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        let weights = Weights { input, bias, recurrent, inner_bias };
        let projected = projected::<Self>(x, &weights);
        let fused = match form.kernels {
            Kernels::Fused => cube::recurrent(&projected, &weights.recurrent, &weights.inner_bias, form),
            Kernels::Stock => None,
        };
        let states = fused.unwrap_or_else(|| stock_states::<Self>(&projected, weights, form));
        with_output::<Self>(states, form)
    }

    fn recurrent_backward(
        gradient: FloatTensor<Self>,
        recurrent: FloatTensor<Self>,
        hidden: FloatTensor<Self>,
        gates: FloatTensor<Self>,
        cells: FloatTensor<Self>,
        form: Form,
        wants_states: bool,
    ) -> Vec<FloatTensor<Self>> {
        let states = States { hidden, gates, cells };
        let fused = match form.kernels {
            Kernels::Fused => {
                let transposed = transposed::<Self>(recurrent.clone());
                cube::recurrent_backward(&gradient, &transposed, &states, form, wants_states)
            }
            Kernels::Stock => None,
        };
        fused.unwrap_or_else(|| stock_recurrent_backward::<Self>(&gradient, recurrent, &states, form, wants_states))
    }
}

#[derive(Debug)]
struct Recurrent;

/// What a backward pass needs.
#[derive(Clone, Debug)]
struct Saved<B: Backend> {
    x: FloatTensor<B>,
    input: FloatTensor<B>,
    recurrent: FloatTensor<B>,
    states: States<B>,
    form: Form,
}

/// The parents: x, the four parameters, the offsets of the sums, of the hidden states and of the cell states.
impl<B: RecurrentOps> Backward<B, 8> for Recurrent {
    type State = Saved<B>;

    fn backward(self, ops: Ops<Self::State, 8>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let gradient = gradients.consume::<B>(&ops.node);
        let Saved { x, input, recurrent, states: States { hidden, gates, cells }, form } = ops.state;
        let [of_x, of_input, of_bias, of_recurrent, of_inner_bias, of_sum, of_hidden, of_cells] =
            [0, 1, 2, 3, 4, 5, 6, 7].map(|place: usize| ops.parents[place].as_ref().map(|node| node.id));
        let units = recurrent.shape()[0];
        let wants_states = of_hidden.is_some() || of_cells.is_some();
        let mut found =
            B::recurrent_backward(gradient, recurrent, hidden.clone(), gates, cells, form, wants_states).into_iter();
        let Some(of_sums) = found.next() else {
            return;
        };
        for (node, gradient) in [of_hidden, of_cells].into_iter().zip(found) {
            if let Some(node) = node {
                gradients.register::<B>(node, gradient);
            }
        }
        if of_x.is_some() || of_sum.is_some() {
            let of_pre_activations = of_gates::<B>(&of_sums, form.recurrence.input_gates(), units);
            if let Some(node) = of_x {
                let transposed = B::float_transpose(input);
                gradients.register::<B>(node, B::float_matmul(of_pre_activations.clone(), transposed));
            }
            if let Some(node) = of_sum {
                gradients.register::<B>(node, of_pre_activations);
            }
        }
        let parameters = [of_input, of_bias, of_recurrent, of_inner_bias];
        if parameters.iter().any(Option::is_some) {
            let (input, bias, recurrent, inner_bias) = B::recurrent_weight_gradients(x, hidden, of_sums, form);
            for (node, gradient) in parameters.into_iter().zip([input, bias, recurrent, inner_bias]) {
                if let Some(node) = node {
                    gradients.register::<B>(node, gradient);
                }
            }
        }
    }
}

#[allow(clippy::too_many_arguments)] // As in the trait.
impl<B: RecurrentOps, C: CheckpointStrategy> RecurrentOps for Autodiff<B, C> {
    fn recurrent(
        x: FloatTensor<Self>,
        input: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        recurrent: FloatTensor<Self>,
        inner_bias: FloatTensor<Self>,
        sum_offset: FloatTensor<Self>,
        hidden_offset: FloatTensor<Self>,
        cell_offset: FloatTensor<Self>,
        form: Form,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        let tensors = [x, input, bias, recurrent, inner_bias, sum_offset, hidden_offset, cell_offset];
        let nodes = tensors.each_ref().map(FloatTensor::<Self>::node);
        let prepared = Recurrent.prepare::<C>(nodes).compute_bound().stateful();
        let [x, input, bias, recurrent, inner_bias, sum_offset, hidden_offset, cell_offset] =
            tensors.map(FloatTensor::<Self>::into_primitive);
        let (saved_x, saved_input, saved_recurrent) = (x.clone(), input.clone(), recurrent.clone());
        let (output, hidden, gates, cells) =
            B::recurrent(x, input, bias, recurrent, inner_bias, sum_offset, hidden_offset, cell_offset, form);
        let output = match prepared {
            OpsKind::Tracked(prepared) => {
                let states = States { hidden: hidden.clone(), gates: gates.clone(), cells: cells.clone() };
                let saved = Saved { x: saved_x, input: saved_input, recurrent: saved_recurrent, states, form };
                prepared.finish(saved, output)
            }
            OpsKind::UnTracked(prepared) => prepared.finish(output),
        };
        (output, Self::from_inner(hidden), Self::from_inner(gates), Self::from_inner(cells))
    }
}

/// The parameters of a layer.
#[derive(Clone, Debug)]
pub struct RecurrentParameters {
    /// `[inputs, gates x units]`
    pub input: Tensor<2>,
    /// `[gates x units]`
    pub bias: Option<Tensor<1>>,
    /// `[units, gates x units]`
    pub recurrent: Tensor<2>,
    /// `[units]`, that of a GRU's candidate within the reset gate; other cells have none.
    pub inner_bias: Option<Tensor<1>>,
}

/// What the probe wants of a recurrent layer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WantedGradients {
    /// The gradient with respect to the pre-activations.
    pub pre_activations: bool,
    /// The gradients with respect to the states.
    pub states: bool,
}

/// What a recurrent layer hands on and leaves behind.
#[derive(Clone, Debug)]
pub struct Recurred {
    /// The hidden state after every time step, `[steps x batch, units]`, or after the last one, `[batch, units]`.
    pub output: Tensor<2>,
    /// The hidden states `[steps x batch, units]`, outside the graph.
    pub hidden: Tensor<2>,
    /// What is kept of the gates, `[steps x batch, kept x units]`, outside the graph: see [`Recurrence::kept`].
    pub gates: Tensor<2>,
    /// A leaf `[steps x batch, gates x units]` whose gradient is that of the pre-activations, if it was wanted.
    pub pre_activation_offset: Option<Tensor<2>>,
    /// Leaves `[(steps + 1) x batch, units]` whose gradients are those of the hidden states and of the cell states of an LSTM,
    /// the initial ones first, if they were wanted.
    pub state_offsets: Vec<Tensor<2>>,
}

/// Takes a layer through a whole sequence, from states of 0.
///
/// # Shapes
///
/// - x: `[steps x batch, inputs]`, in the order of time
pub fn recurrent(x: Tensor<2>, parameters: RecurrentParameters, form: Form, wanted: WantedGradients) -> Recurred {
    let device = x.device();
    let of_x = (&device, x.dtype());
    let [rows, _] = x.dims();
    let [units, columns] = parameters.recurrent.dims();
    let is_tracked = parameters.recurrent.is_autodiff();
    let leaf = |shape: [usize; 2]| Tensor::<2>::zeros(shape, of_x).require_grad();
    let pre_activation_offset = wanted.pre_activations.then(|| leaf([rows, columns]));
    let states = match form.recurrence {
        _ if !wanted.states => 0,
        Recurrence::Lstm => 2,
        Recurrence::Rnn(_) | Recurrence::Gru => 1,
    };
    let state_offsets: Vec<Tensor<2>> = (0..states).map(|_| leaf([rows + rows / form.steps, units])).collect();
    let or_nothing = |offset: Option<&Tensor<2>>| {
        offset.cloned().unwrap_or_else(|| Tensor::<2>::zeros([1, 1], of_x)).into_dispatch()
    };
    let or_zeros =
        |bias: Option<Tensor<1>>, count| bias.unwrap_or_else(|| Tensor::<1>::zeros([count], of_x)).into_dispatch();
    let (output, hidden, gates, _) = Dispatch::recurrent(
        x.into_dispatch(),
        parameters.input.into_dispatch(),
        or_zeros(parameters.bias, columns),
        parameters.recurrent.into_dispatch(),
        or_zeros(parameters.inner_bias, units),
        or_nothing(pre_activation_offset.as_ref()),
        or_nothing(state_offsets.first()),
        or_nothing(state_offsets.get(1)),
        form,
    );
    let outside = |tensor: Tensor<2>| if is_tracked { tensor.inner() } else { tensor };
    Recurred {
        output: Tensor::from_dispatch(output),
        hidden: outside(Tensor::from_dispatch(hidden)),
        gates: outside(Tensor::from_dispatch(gates)),
        pre_activation_offset,
        state_offsets,
    }
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use burn::backend::Flex;
    use burn::tensor::{DType, TensorData};

    use super::*;

    type Primitive = FloatTensor<Flex>;

    const UNITS: usize = 19;
    const BATCH: usize = 37;
    const STEPS: usize = 5;

    /// Numbers without a pattern.
    fn primitive(seed: usize, rows: usize, columns: usize, scale: f32) -> Primitive {
        let number = |i: usize| (((i + seed) * 7919 + seed * seed) % 1013) as f32 / 500.0 - 1.0;
        let values: Vec<f32> = (0..rows * columns).map(|i| scale * number(i)).collect();
        Primitive::from_data(TensorData::new(values, [rows, columns]))
    }

    fn forms() -> Vec<Form> {
        let functions = [Some(Activated::Tanh), Some(Activated::Sigmoid), Some(Activated::Relu), None];
        let cells = functions.map(Recurrence::Rnn).into_iter().chain([Recurrence::Lstm, Recurrence::Gru]);
        let form = |recurrence| {
            [(None, true), (None, false), (Some(2), true), (Some(1), false)].map(|(truncation, answers_every_step)| {
                Form { recurrence, steps: STEPS, truncation, answers_every_step, kernels: Kernels::Fused }
            })
        };
        cells.flat_map(form).collect()
    }

    /// The largest difference between the forms, of the largest element.
    #[track_caller]
    fn assert_close(fused: &Primitive, stock: &Primitive, what: &str) {
        let tolerance = if stock.dtype() == DType::F64 { 1e-13 } else { 3e-6 };
        let (fused, stock) = (fused.clone().into_data(), stock.clone().into_data());
        assert_eq!(fused.shape(), stock.shape(), "{what}");
        let scale = stock.iter::<f64>().fold(0.0, |largest: f64, x| largest.max(x.abs()));
        for (a, b) in fused.iter::<f64>().zip(stock.iter::<f64>()) {
            assert!((a - b).abs() <= tolerance * scale, "{what}: {a} and {b} of {scale}");
        }
    }

    fn weights(inputs: usize, recurrence: Recurrence) -> Weights<Flex> {
        let columns = UNITS * recurrence.gates();
        let vector = |seed, count| primitive(seed, 1, count, 1.0).reshape(Shape::new([count]));
        Weights {
            input: primitive(3, inputs, columns, 0.7),
            bias: vector(4, columns),
            recurrent: primitive(5, UNITS, columns, 0.4),
            inner_bias: vector(7, UNITS),
        }
    }

    const INPUTS: usize = 7;

    fn in_f64(x: Primitive) -> Primitive {
        Primitive::from_data(x.into_data().convert::<f64>())
    }

    #[test]
    fn fused_and_stock_recurrences_agree() {
        compare_forms(|x| x);
    }

    #[test]
    fn fused_and_stock_recurrences_agree_in_f64() {
        compare_forms(in_f64);
    }

    fn compare_forms(cast: fn(Primitive) -> Primitive) {
        for form in forms() {
            let what = format!("{form:?}");
            let x = cast(primitive(2, STEPS * BATCH, INPUTS, 1.5));
            let Weights { input, bias, recurrent, inner_bias } = weights(INPUTS, form.recurrence);
            let [input, bias, recurrent, inner_bias] = [input, bias, recurrent, inner_bias].map(cast);
            let weights = Weights { input, bias, recurrent, inner_bias };
            let fused = flex_recurrent::recurrent(&x, &weights, form).expect("floats");
            let left = fused.clone();
            let stock = stock_recurrent::<Flex>(x.clone(), weights.clone(), form);
            assert_close(&fused.hidden, &stock.hidden, &what);
            if form.recurrence.kept() > 0 {
                assert_close(&fused.gates, &stock.gates, &what);
            }
            if form.recurrence == Recurrence::Lstm {
                assert_close(&fused.cells, &stock.cells, &what);
            }
            let answers = if form.answers_every_step { STEPS * BATCH } else { BATCH };
            let gradient = cast(primitive(11, answers, UNITS, 1.0));
            let back = flex_recurrent::recurrent_backward(&gradient, &weights.recurrent, left, form, false);
            assert!(back.is_ok(), "{what}: the backward pass takes what the forward pass leaves");
            let fused = flex_recurrent::recurrent_backward(&gradient, &weights.recurrent, stock.clone(), form, true);
            let fused = fused.expect("floats");
            let found = stock_recurrent_backward::<Flex>(&gradient, weights.recurrent, &stock, form, true);
            assert_eq!(fused.len(), found.len(), "{what}");
            for (fused, found) in fused.iter().zip(&found) {
                assert_close(fused, found, &what);
            }
            let fused = flex_recurrent::weight_gradients(&x, &stock.hidden, &found[0], form).expect("floats");
            let stock = stock_weight_gradients::<Flex>(x, stock.hidden, &found[0], form);
            assert_close(&fused.input, &stock.input, &what);
            assert_close(&fused.bias, &stock.bias, &what);
            assert_close(&fused.recurrent, &stock.recurrent, &what);
            if form.recurrence == Recurrence::Gru {
                assert_close(&fused.inner_bias, &stock.inner_bias, &what);
            }
        }
    }

    #[test]
    fn every_number_of_threads_gives_the_same_bits() {
        let form = Form {
            recurrence: Recurrence::Lstm,
            steps: 2,
            truncation: None,
            answers_every_step: true,
            kernels: Kernels::Fused,
        };
        let (x, weights) = (primitive(3, 2 * BATCH, INPUTS, 1.5), weights(INPUTS, form.recurrence));
        let bits = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads");
            pool.install(|| {
                let states = flex_recurrent::recurrent(&x, &weights, form).expect("f32");
                let (gradient, hidden) = (states.hidden.clone(), states.hidden.clone());
                let found = flex_recurrent::recurrent_backward(&gradient, &weights.recurrent, states, form, false);
                let of_sums = found.expect("f32").remove(0);
                let gradients = flex_recurrent::weight_gradients(&x, &hidden, &of_sums, form).expect("f32");
                let all = [hidden, of_sums, gradients.input, gradients.bias, gradients.recurrent];
                all.map(|tensor| tensor.into_data().iter::<f32>().collect::<Vec<f32>>())
            })
        };
        assert_eq!(bits(1), bits(3));
    }
}

#[cfg(all(test, feature = "wgpu"))]
mod gpu_tests {
    use burn::backend::ops::FloatTensorOps;

    use super::*;
    use crate::kernel::cube::{Fused, adapter_for_tests, assert_close, primitive, values};

    /// Every cell, with widths that are no multiple of a group of threads, and batches that are none of a workgroup's examples.
    #[test]
    fn one_launch_and_the_single_operations_agree_on_states_and_gradients() {
        let Some(device) = adapter_for_tests() else { return };
        let activations = [None, Some(Activated::Sigmoid), Some(Activated::Tanh), Some(Activated::Relu)];
        let recurrences = activations.map(Recurrence::Rnn).into_iter().chain([Recurrence::Lstm, Recurrence::Gru]);
        for recurrence in recurrences {
            for (steps, batch, units, truncation, answers_every_step) in [
                (1, 3, 5, None, true),
                (5, 7, 33, Some(2), true),
                (4, 65, 8, None, false),
                (3, 258, 40, Some(1), false),
            ] {
                let form = Form { recurrence, steps, truncation, answers_every_step, kernels: Kernels::Fused };
                let what = format!("{form:?}, batch {batch}, {units} units");
                let columns = units * recurrence.gates();
                let weights = Weights::<Fused> {
                    input: primitive(3, [4, columns], 0.7, &device),
                    bias: primitive(4, [1, columns], 1.0, &device),
                    recurrent: primitive(5, [units, columns], 0.9 / (units as f32).sqrt(), &device),
                    inner_bias: primitive(7, [1, units], 1.0, &device),
                };
                let projected = primitive(2, [steps * batch, columns], 1.5, &device);
                let fused = cube::recurrent(&projected, &weights.recurrent, &weights.inner_bias, form).expect("room");
                let recurrent = weights.recurrent.clone();
                let stock = stock_states::<Fused>(&projected, weights, form);
                assert_close(fused.hidden, stock.hidden.clone(), &what);
                if recurrence.kept() > 0 {
                    assert_close(fused.gates, stock.gates.clone(), &what);
                }
                if recurrence == Recurrence::Lstm {
                    assert_close(fused.cells, stock.cells.clone(), &what);
                }
                let answers = if answers_every_step { steps * batch } else { batch };
                let gradient = primitive(11, [answers, units], 1.0, &device);
                for wants_states in [false, true] {
                    let transposed = transposed::<Fused>(recurrent.clone());
                    let fused =
                        cube::recurrent_backward(&gradient, &transposed, &stock, form, wants_states).expect("room");
                    let stock =
                        stock_recurrent_backward::<Fused>(&gradient, recurrent.clone(), &stock, form, wants_states);
                    assert_eq!(fused.len(), stock.len(), "{what}");
                    for (fused, stock) in fused.into_iter().zip(stock) {
                        assert_close(fused, stock, &what);
                    }
                }
            }
        }
    }

    #[test]
    fn a_state_that_is_not_a_number_stays_so_and_gradients_behind_a_dead_unit_are_0() {
        let Some(device) = adapter_for_tests() else { return };
        let recurrence = Recurrence::Rnn(Some(Activated::Relu));
        let form = Form { recurrence, steps: 1, truncation: None, answers_every_step: true, kernels: Kernels::Fused };
        let row = |values: [f32; 4]| {
            Tensor::<2>::from_data([values], &device).try_into_primitive::<Fused>().expect("on a GPU")
        };
        let weights = Fused::float_reshape(primitive(1, [4, 4], 0.0, &device), Shape::new([4, 4]));
        let projected = row([f32::NAN, f32::INFINITY, -1.0, 2.0]);
        let states = cube::recurrent(&projected, &weights, &row([0.0; 4]), form).expect("room");
        let hidden = values(states.hidden.clone());
        assert!(hidden[0].is_nan() && hidden[1..] == [f32::INFINITY, 0.0, 2.0], "{hidden:?}");
        let gradient = row([1.0, 1.0, f32::INFINITY, f32::NAN]);
        let found = cube::recurrent_backward(&gradient, &weights, &states, form, false).expect("room");
        let found = values(found[0].clone());
        assert!(found[..3] == [1.0, 1.0, 0.0] && found[3].is_nan(), "{found:?}");
    }

    #[test]
    fn a_layer_that_is_too_wide_or_too_long_takes_the_single_operations() {
        let Some(device) = adapter_for_tests() else { return };
        let units = 600;
        let form = Form {
            recurrence: Recurrence::Rnn(Some(Activated::Tanh)),
            steps: 2,
            truncation: None,
            answers_every_step: true,
            kernels: Kernels::Fused,
        };
        let x = primitive(2, [4, 3], 1.0, &device);
        let [input, recurrent] = [(3, 3), (5, units)].map(|(seed, rows)| primitive(seed, [rows, units], 0.1, &device));
        let [bias, inner_bias] = [4, 7].map(|seed| primitive(seed, [1, units], 1.0, &device));
        assert!(cube::recurrent(&primitive(2, [4, units], 1.0, &device), &recurrent, &inner_bias, form).is_none());
        let (long, one) = (Form { steps: 5000, ..form }, primitive(5, [1, 1], 0.1, &device));
        assert!(cube::recurrent(&primitive(2, [5000, 1], 1.0, &device), &one, &one, long).is_none(), "too long");
        let nothing = || primitive(0, [1, 1], 0.0, &device);
        let (output, ..) =
            Fused::recurrent(x, input, bias, recurrent, inner_bias, nothing(), nothing(), nothing(), form);
        assert_eq!(output.shape(), Shape::new([4, units]));
        assert!(values(output).iter().all(|x| x.is_finite()));
    }
}
