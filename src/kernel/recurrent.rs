//! A recurrent layer over a whole sequence, as one node of Burn's graph with a backward pass through time by hand.
//!
//! Written with Burn's differentiable operations, a time step has a dozen nodes, and cutting gates out of one product costs a
//! tensor of zeros for each of them in the backward pass. Here the gates of all time steps stand in one buffer, the backward
//! pass writes their gradients into another, and the gradient of the weights is one product over all time steps.
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
#[cfg(feature = "flex")]
use super::flex_recurrent;

/// The cells. s is the sigmoid; x stands for what is projected from the input, with the bias.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recurrence {
    /// h = phi(x + h' U), phi the identity if there is none
    Rnn(Option<Activated>),
    /// i, f, o = s(x + h' U), g = tanh(x + h' U), c = f c' + i g, h = o tanh(c); in the order i, f, g, o
    Lstm,
    /// r, z = s(x + h' U), n = tanh(x + r (h' U + d)), h = (1 - z) n + z h'; in the order r, z, n
    Gru,
}

impl Recurrence {
    /// Pre-activations a unit.
    pub fn gates(self) -> usize {
        match self {
            Self::Rnn(_) => 1,
            Self::Lstm => 4,
            Self::Gru => 3,
        }
    }

    /// Numbers a unit that the backward pass needs beside the states: the gates, and of a GRU also h' U + d of the candidate.
    pub fn kept(self) -> usize {
        match self {
            Self::Rnn(_) => 0,
            Self::Lstm | Self::Gru => 4,
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
    /// The gradient stops wherever a piece of so many time steps begins.
    pub truncation: Option<usize>,
    /// Whether the layer hands on the hidden state after every time step, or after the last one.
    pub answers_every_step: bool,
}

/// What a forward pass leaves behind.
#[derive(Clone, Debug)]
pub struct States<B: Backend> {
    /// The hidden states, `[steps x batch, units]`.
    pub hidden: FloatTensor<B>,
    /// The gates, `[steps x batch, kept x units]`, in the order of the cell; `[1, 1]` of a cell without.
    pub gates: FloatTensor<B>,
    /// The cell states of an LSTM, `[steps x batch, units]`; `[1, 1]` of others.
    pub cells: FloatTensor<B>,
}

/// The gradients of a backward pass.
#[derive(Clone, Debug)]
pub struct Backwards<B: Backend> {
    /// With respect to what was projected, `[steps x batch, gates x units]`.
    pub of_projected: FloatTensor<B>,
    /// With respect to h' U, of the same shape; another one only in a GRU.
    pub of_product: FloatTensor<B>,
    /// With respect to the hidden states, the initial one first, `[(steps + 1) x batch, units]`, if they are wanted.
    pub of_hidden: Option<FloatTensor<B>>,
    /// Likewise of the cell states of an LSTM.
    pub of_cells: Option<FloatTensor<B>>,
}

/// Recurrent layers on a backend. The default bodies run on every backend.
#[backend_extension(
    Autodiff,
    Flex: cfg(feature = "flex"),
    NdArray: cfg(feature = "ndarray"),
    Cube: cfg(any(feature = "wgpu", feature = "cuda")),
    Fusion: cfg(any(feature = "wgpu", feature = "cuda"))
)]
pub trait RecurrentOps: Backend {
    /// The hidden state after every time step or after the last one, all hidden states, the gates and the cell states, as in
    /// [`States`]. The initial states are 0. The gradients of the offsets are those of the states, the initial one first; their
    /// values are not looked at.
    #[fusion(default)]
    fn recurrent(
        projected: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        hidden_offset: FloatTensor<Self>,
        cell_offset: FloatTensor<Self>,
        form: Form,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        let _ = (hidden_offset, cell_offset);
        with_output::<Self>(stock_recurrent::<Self>(projected, weight, bias, form), form)
    }

    /// The gradients of [`Backwards`]; those that are not wanted or do not exist are left out.
    #[fusion(default)]
    fn recurrent_backward(
        gradient: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        hidden: FloatTensor<Self>,
        gates: FloatTensor<Self>,
        cells: FloatTensor<Self>,
        form: Form,
        wants_states: bool,
    ) -> Vec<FloatTensor<Self>> {
        let states = States { hidden, gates, cells };
        in_order::<Self>(stock_recurrent_backward::<Self>(gradient, weight, &states, form, wants_states))
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

fn in_order<B: Backend>(gradients: Backwards<B>) -> Vec<FloatTensor<B>> {
    let states = gradients.of_hidden.into_iter().chain(gradients.of_cells);
    [gradients.of_projected, gradients.of_product].into_iter().chain(states).collect()
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

fn minus_from_one<B: Backend>(x: FloatTensor<B>) -> FloatTensor<B> {
    B::float_add_scalar(B::float_neg(x), 1.0.into())
}

fn zeros_like<B: Backend>(x: &FloatTensor<B>) -> FloatTensor<B> {
    B::float_mul_scalar(x.clone(), 0.0.into())
}

fn stock_recurrent<B: Backend>(
    projected: FloatTensor<B>,
    weight: FloatTensor<B>,
    bias: FloatTensor<B>,
    form: Form,
) -> States<B> {
    let units = weight.shape()[0];
    let placeholder = B::float_slice(bias.clone(), &[Slice::from(0..1)]);
    let placeholder = B::float_reshape(placeholder, Shape::new([1, 1]));
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
                    Some(Activated::Tanh) => B::float_tanh(z),
                    Some(Activated::Sigmoid) => B::sigmoid(z),
                    Some(Activated::Relu) => B::relu(z),
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
                let bias = B::float_reshape(bias.clone(), Shape::new([1, units]));
                let inner = match &product {
                    Some(product) => B::float_add(gate::<B>(product, 2, units), bias),
                    None => B::float_add(zeros_like::<B>(&reset), bias),
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
    gradient: FloatTensor<B>,
    weight: FloatTensor<B>,
    states: &States<B>,
    form: Form,
    wants_states: bool,
) -> Backwards<B> {
    let units = weight.shape()[0];
    let steps = form.steps;
    let transposed = B::float_transpose(weight);
    let nothing = zeros_like::<B>(&at::<B>(states.hidden.clone(), 0, steps));
    let (mut of_hidden, mut of_cell) = (nothing.clone(), nothing.clone());
    let (mut projected, mut product, mut hidden_gradients, mut cell_gradients) =
        (Vec::new(), Vec::new(), Vec::new(), Vec::new());
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
                    Some(function) => through::<B>(hidden_at(step), of_hidden, function),
                    None => of_hidden,
                };
                of_hidden = B::float_matmul(of_z.clone(), transposed.clone());
                projected.push(of_z);
            }
            Recurrence::Lstm => {
                let gates = at::<B>(states.gates.clone(), step, steps);
                let [input, forget, candidate, output] = [0, 1, 2, 3].map(|place| gate::<B>(&gates, place, units));
                let squashed = B::float_tanh(at::<B>(states.cells.clone(), step, steps));
                let through_output = B::float_mul(of_hidden.clone(), output.clone());
                of_cell = B::float_add(of_cell, through::<B>(squashed.clone(), through_output, Activated::Tanh));
                if wants_states {
                    cell_gradients.push(of_cell.clone());
                }
                let before =
                    if step > 0 { at::<B>(states.cells.clone(), step - 1, steps) } else { nothing.clone() };
                let times = |factor| B::float_mul(of_cell.clone(), factor);
                let of_gates = vec![
                    through::<B>(input.clone(), times(candidate.clone()), Activated::Sigmoid),
                    through::<B>(forget.clone(), times(before), Activated::Sigmoid),
                    through::<B>(candidate, times(input), Activated::Tanh),
                    through::<B>(output, B::float_mul(of_hidden, squashed), Activated::Sigmoid),
                ];
                let of_z = B::float_cat(of_gates, 1);
                of_cell = B::float_mul(of_cell, forget);
                of_hidden = B::float_matmul(of_z.clone(), transposed.clone());
                projected.push(of_z);
            }
            Recurrence::Gru => {
                let gates = at::<B>(states.gates.clone(), step, steps);
                let [reset, update, candidate, inner] = [0, 1, 2, 3].map(|place| gate::<B>(&gates, place, units));
                let before = if step > 0 { hidden_at(step - 1) } else { nothing.clone() };
                let through_new = B::float_mul(of_hidden.clone(), minus_from_one::<B>(update.clone()));
                let of_candidate = through::<B>(candidate.clone(), through_new, Activated::Tanh);
                let of_reset = B::float_mul(of_candidate.clone(), inner);
                let of_reset = through::<B>(reset.clone(), of_reset, Activated::Sigmoid);
                let of_update = B::float_mul(of_hidden.clone(), B::float_sub(before, candidate));
                let of_update = through::<B>(update.clone(), of_update, Activated::Sigmoid);
                let of_inner = B::float_mul(of_candidate.clone(), reset);
                let of_product = B::float_cat(vec![of_reset.clone(), of_update.clone(), of_inner], 1);
                projected.push(B::float_cat(vec![of_reset, of_update, of_candidate], 1));
                let direct = B::float_mul(of_hidden, update);
                of_hidden = B::float_add(direct, B::float_matmul(of_product.clone(), transposed.clone()));
                product.push(of_product);
            }
        }
        if form.truncation.is_some_and(|length| step.is_multiple_of(length)) {
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
    let of_projected = join(projected).unwrap_or(nothing);
    Backwards {
        of_product: join(product).unwrap_or_else(|| of_projected.clone()),
        of_projected,
        of_hidden: join(hidden_gradients),
        of_cells: join(cell_gradients),
    }
}

/// `gradient x phi'(z)`, from `y = phi(z)`, in any precision.
fn through<B: Backend>(y: FloatTensor<B>, gradient: FloatTensor<B>, function: Activated) -> FloatTensor<B> {
    match function {
        Activated::Sigmoid => {
            let slope = B::float_mul(y.clone(), minus_from_one::<B>(y));
            B::float_mul(slope, gradient)
        }
        Activated::Tanh => B::float_mul(minus_from_one::<B>(B::float_mul(y.clone(), y)), gradient),
        Activated::Relu => B::relu_backward(y, gradient),
    }
}

#[cfg(feature = "flex")]
impl RecurrentOps for burn::backend::Flex {
    fn recurrent(
        projected: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        _hidden_offset: FloatTensor<Self>,
        _cell_offset: FloatTensor<Self>,
        form: Form,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        let states = flex_recurrent::recurrent(&projected, &weight, &bias, form)
            .unwrap_or_else(|| stock_recurrent::<Self>(projected, weight, bias, form));
        with_output::<Self>(states, form)
    }

    fn recurrent_backward(
        gradient: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        hidden: FloatTensor<Self>,
        gates: FloatTensor<Self>,
        cells: FloatTensor<Self>,
        form: Form,
        wants_states: bool,
    ) -> Vec<FloatTensor<Self>> {
        let states = States { hidden, gates, cells };
        let gradients = flex_recurrent::recurrent_backward(&gradient, &weight, &states, form, wants_states)
            .unwrap_or_else(|| stock_recurrent_backward::<Self>(gradient, weight, &states, form, wants_states));
        in_order::<Self>(gradients)
    }
}

#[cfg(feature = "ndarray")]
impl RecurrentOps for burn::backend::NdArray {}

#[cfg(any(feature = "wgpu", feature = "cuda"))]
impl RecurrentOps for burn_cubecl::CubeBackend {}

#[derive(Debug)]
struct Recurrent;

/// What a backward pass needs.
#[derive(Clone, Debug)]
struct Saved<B: Backend> {
    weight: FloatTensor<B>,
    states: States<B>,
    form: Form,
}

/// The parents: what was projected, the weights, the bias, the offsets of the hidden states and of the cell states.
impl<B: RecurrentOps> Backward<B, 5> for Recurrent {
    type State = Saved<B>;

    fn backward(self, ops: Ops<Self::State, 5>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let gradient = gradients.consume::<B>(&ops.node);
        let Saved { weight, states, form } = ops.state;
        let [of_projected, of_weight, of_bias, of_hidden, of_cells] =
            [0, 1, 2, 3, 4].map(|place: usize| ops.parents[place].as_ref().map(|node| node.id));
        let States { hidden, gates, cells } = states;
        let units = weight.shape()[0];
        let wants_states = of_hidden.is_some() || of_cells.is_some();
        let mut found =
            B::recurrent_backward(gradient, weight.clone(), hidden.clone(), gates, cells, form, wants_states).into_iter();
        let (Some(projected), Some(product)) = (found.next(), found.next()) else {
            return;
        };
        if let Some(node) = of_weight {
            gradients.register::<B>(node, weight_gradient::<B>(&weight, hidden, product.clone(), form.steps));
        }
        if let Some(node) = of_bias {
            let sums = B::float_sum_dim(gate::<B>(&product, 2, units), 0);
            gradients.register::<B>(node, B::float_reshape(sums, Shape::new([units])));
        }
        if let Some(node) = of_projected {
            gradients.register::<B>(node, projected);
        }
        for (node, gradient) in [of_hidden, of_cells].into_iter().zip(found) {
            if let Some(node) = node {
                gradients.register::<B>(node, gradient);
            }
        }
    }
}

/// The sum over time of the products of the state before a step and the gradient at the step; the initial state is 0.
fn weight_gradient<B: Backend>(
    weight: &FloatTensor<B>,
    hidden: FloatTensor<B>,
    product: FloatTensor<B>,
    steps: usize,
) -> FloatTensor<B> {
    let count = hidden.shape()[0];
    let batch = count / steps;
    if steps == 1 {
        return zeros_like::<B>(weight);
    }
    let before = rows::<B>(hidden, 0, count - batch);
    B::float_matmul(B::float_transpose(before), rows::<B>(product, batch, count))
}

impl<B: RecurrentOps, C: CheckpointStrategy> RecurrentOps for Autodiff<B, C> {
    fn recurrent(
        projected: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        hidden_offset: FloatTensor<Self>,
        cell_offset: FloatTensor<Self>,
        form: Form,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        let parents = [projected.node(), weight.node(), bias.node(), hidden_offset.node(), cell_offset.node()];
        let prepared = Recurrent.prepare::<C>(parents).compute_bound().stateful();
        let (projected, weight, bias) = (projected.into_primitive(), weight.into_primitive(), bias.into_primitive());
        let (hidden_offset, cell_offset) = (hidden_offset.into_primitive(), cell_offset.into_primitive());
        let (output, hidden, gates, cells) =
            B::recurrent(projected, weight.clone(), bias, hidden_offset, cell_offset, form);
        let output = match prepared {
            OpsKind::Tracked(prepared) => {
                let states = States { hidden: hidden.clone(), gates: gates.clone(), cells: cells.clone() };
                prepared.finish(Saved { weight, states, form }, output)
            }
            OpsKind::UnTracked(prepared) => prepared.finish(output),
        };
        (output, Self::from_inner(hidden), Self::from_inner(gates), Self::from_inner(cells))
    }
}

/// What a recurrent layer hands on and leaves behind.
#[derive(Clone, Debug)]
pub struct Recurred {
    /// The hidden state after every time step, `[steps x batch, units]`, or after the last one, `[batch, units]`.
    pub output: Tensor<2>,
    /// The hidden states `[steps x batch, units]`, outside the graph.
    pub hidden: Tensor<2>,
    /// The gates `[steps x batch, kept x units]`, outside the graph: see [`Recurrence::kept`].
    pub gates: Tensor<2>,
    /// Leaves `[(steps + 1) x batch, units]` whose gradients are those of the hidden states and of the cell states of an LSTM,
    /// the initial ones first, if they were wanted.
    pub offsets: Vec<Tensor<2>>,
}

/// Takes a layer through a whole sequence, from states of 0.
///
/// # Shapes
///
/// - projected: `[steps x batch, gates x units]`: the input times its weights and the bias, in the order of time
/// - weight: `[units, gates x units]`
/// - bias: `[units]`, that of a GRU's candidate within the reset gate; other cells have none
pub fn recurrent(
    projected: Tensor<2>,
    weight: Tensor<2>,
    bias: Option<Tensor<1>>,
    form: Form,
    wants_states: bool,
) -> Recurred {
    let device = projected.device();
    let [rows, columns] = projected.dims();
    let units = columns / form.recurrence.gates();
    let is_tracked = projected.is_autodiff();
    let shape = [rows + rows / form.steps, units];
    let wanted = match form.recurrence {
        _ if !wants_states => 0,
        Recurrence::Lstm => 2,
        Recurrence::Rnn(_) | Recurrence::Gru => 1,
    };
    let offsets: Vec<Tensor<2>> = (0..wanted).map(|_| Tensor::zeros(shape, &device).require_grad()).collect();
    let offset = |place: usize| offsets.get(place).cloned().unwrap_or_else(|| Tensor::zeros([1, 1], &device));
    let bias = bias.unwrap_or_else(|| Tensor::zeros([units], &device));
    let (output, hidden, gates, _) = Dispatch::recurrent(
        projected.into_dispatch(),
        weight.into_dispatch(),
        bias.into_dispatch(),
        offset(0).into_dispatch(),
        offset(1).into_dispatch(),
        form,
    );
    let outside = |tensor: Tensor<2>| if is_tracked { tensor.inner() } else { tensor };
    Recurred {
        output: Tensor::from_dispatch(output),
        hidden: outside(Tensor::from_dispatch(hidden)),
        gates: outside(Tensor::from_dispatch(gates)),
        offsets,
    }
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use burn::backend::Flex;
    use burn::tensor::TensorData;

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
            [(None, true), (None, false), (Some(2), true), (Some(1), false)].map(|(truncation, answers_every_step)| Form {
                recurrence,
                steps: STEPS,
                truncation,
                answers_every_step,
            })
        };
        cells.flat_map(form).collect()
    }

    #[track_caller]
    fn assert_close(fused: &Primitive, stock: &Primitive, what: &str) {
        let (fused, stock) = (fused.clone().into_data(), stock.clone().into_data());
        assert_eq!(fused.shape(), stock.shape(), "{what}");
        let scale = stock.iter::<f64>().fold(0.0, |largest: f64, x| largest.max(x.abs()));
        for (a, b) in fused.iter::<f64>().zip(stock.iter::<f64>()) {
            assert!((a - b).abs() <= 3e-6 * scale, "{what}: {a} and {b} of {scale}");
        }
    }

    #[test]
    fn fused_and_stock_recurrences_agree() {
        for form in forms() {
            let columns = UNITS * form.recurrence.gates();
            let projected = primitive(3, STEPS * BATCH, columns, 1.5);
            let weight = primitive(5, UNITS, columns, 0.4);
            let bias = primitive(7, 1, UNITS, 1.0).reshape(Shape::new([UNITS]));
            let fused = flex_recurrent::recurrent(&projected, &weight, &bias, form).expect("f32");
            let stock = stock_recurrent::<Flex>(projected, weight.clone(), bias, form);
            let what = format!("{form:?}");
            assert_close(&fused.hidden, &stock.hidden, &what);
            if form.recurrence.kept() > 0 {
                assert_close(&fused.gates, &stock.gates, &what);
            }
            if form.recurrence == Recurrence::Lstm {
                assert_close(&fused.cells, &stock.cells, &what);
            }
            let answers = if form.answers_every_step { STEPS * BATCH } else { BATCH };
            let gradient = primitive(11, answers, UNITS, 1.0);
            let fused = flex_recurrent::recurrent_backward(&gradient, &weight, &stock, form, true).expect("f32");
            let stock = stock_recurrent_backward::<Flex>(gradient, weight, &stock, form, true);
            assert_close(&fused.of_projected, &stock.of_projected, &what);
            assert_close(&fused.of_product, &stock.of_product, &what);
            for (fused, stock) in [(fused.of_hidden, stock.of_hidden), (fused.of_cells, stock.of_cells)] {
                assert_eq!(fused.is_some(), stock.is_some(), "{what}");
                if let (Some(fused), Some(stock)) = (fused, stock) {
                    assert_close(&fused, &stock, &what);
                }
            }
        }
    }

    #[test]
    fn every_thread_and_the_rows_left_over_give_the_same_bits() {
        let form = Form { recurrence: Recurrence::Lstm, steps: 2, truncation: None, answers_every_step: true };
        let hidden = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads");
            let (projected, weight) = (primitive(3, 2 * BATCH, 4 * UNITS, 1.5), primitive(5, UNITS, 4 * UNITS, 0.4));
            let bias = primitive(7, 1, UNITS, 1.0);
            let run = || flex_recurrent::recurrent(&projected, &weight, &bias, form).expect("f32").hidden.into_data();
            pool.install(run).iter::<f32>().collect::<Vec<f32>>()
        };
        assert_eq!(hidden(1), hidden(3));
    }

    #[test]
    fn timing() {
        use std::time::Instant;
        use burn::tensor::{Device, Distribution};
        let device = Device::flex().autodiff();
        for (name, recurrence) in [("lstm", Recurrence::Lstm), ("gru", Recurrence::Gru), ("rnn", Recurrence::Rnn(Some(Activated::Tanh)))] {
            let (steps, batch, units, inputs) = (28, 128, 128, 28);
            let form = Form { recurrence, steps, truncation: None, answers_every_step: true };
            let columns = units * recurrence.gates();
            let x = Tensor::<2>::random([steps * batch, inputs], Distribution::Normal(0.0, 1.0), &device);
            let w = Tensor::<2>::random([inputs, columns], Distribution::Normal(0.0, 0.1), &device).require_grad();
            let u = Tensor::<2>::random([units, columns], Distribution::Normal(0.0, 0.1), &device).require_grad();
            let b = Tensor::<1>::zeros([columns], &device).require_grad();
            let mut times = [Vec::new(), Vec::new(), Vec::new()];
            for _ in 0..60 {
                let t = Instant::now();
                let projected = crate::kernel::affine(x.clone(), w.clone(), Some(b.clone()));
                times[0].push(t.elapsed().as_secs_f64() * 1e3);
                let t = Instant::now();
                let out = recurrent(projected, u.clone(), None, form, false).output;
                times[1].push(t.elapsed().as_secs_f64() * 1e3);
                let loss = out.sum();
                let t = Instant::now();
                let g = loss.backward();
                times[2].push(t.elapsed().as_secs_f64() * 1e3);
                std::hint::black_box(u.grad(&g));
            }
            for t in &mut times { t.sort_by(f64::total_cmp); }
            println!("{name}: {:?} {:?}", times.iter().map(|t| t[30]).collect::<Vec<f64>>(), times.iter().map(|t| t[3]).collect::<Vec<f64>>());
        }
    }
}
