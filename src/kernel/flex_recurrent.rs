//! A recurrent layer on the CPU. Every thread has some of the examples, and takes them through the whole sequence.
//!
//! Input and hidden state are one factor `[x, h]`, and the weights of both one matrix, so that a time step is one product into the
//! buffer that keeps the gates, whose sums begin with the bias. Of a GRU the buffer has four blocks a unit, the candidate's two parts
//! side by side: the one has only x, the other only h. The backward pass writes the gradients of the sums over the gates.

// A function that is not inlined into one with a target feature does without it.
#![allow(clippy::inline_always)]

use std::ops::Range;

use burn::backend::tensor::FloatTensor;
use burn::backend::{Flex, TensorMetadata};
use burn::tensor::DType;
use pulp::{Arch, Simd, WithSimd};

use super::cell::{accumulate, gru_backward, gru_forward, lstm_backward, lstm_forward, rnn_backward, rnn_forward};
use super::flex_layer::{contiguous, tensor};
use super::matrix::{Rows, panel_width};
use super::product::{Factor, Packed, Panels, Part, add_transposed_product, product};
use super::recurrent::{Form, Recurrence, States, WeightGradients, Weights};
use super::vector::Function;
use super::{pool, team};
use crate::config::Kernels;

type Primitive = FloatTensor<Flex>;

/// What stands for a tensor that a cell does not have.
fn nothing<T: Function>() -> Primitive {
    tensor(vec![T::default()], [1, 1])
}

/// The examples of each thread. Their number decides nothing: every example is computed by itself.
fn shares(batch: usize) -> Vec<Range<usize>> {
    let share = batch.div_ceil(rayon::current_num_threads()).max(1);
    (0..batch).step_by(share).map(|first| first..batch.min(first + share)).collect()
}

/// Cuts a buffer `[blocks x batch, columns]` into the rows of each share in each block; of an empty buffer, nothing.
fn cut<'a, T>(buffer: &'a mut [T], batch: usize, columns: usize, shares: &[Range<usize>]) -> Vec<Vec<&'a mut [T]>> {
    let mut parts: Vec<Vec<&'a mut [T]>> = shares.iter().map(|_| Vec::new()).collect();
    for mut block in buffer.chunks_exact_mut(batch * columns) {
        for (part, share) in parts.iter_mut().zip(shares) {
            let (rows, rest) = block.split_at_mut(share.len() * columns);
            part.push(rows);
            block = rest;
        }
    }
    parts
}

/// The rows of a share at a time step, of a buffer `[steps x batch, columns]`.
fn rows<'a, T>(buffer: &'a [T], batch: usize, columns: usize, step: usize, share: &Range<usize>) -> &'a [T] {
    &buffer[(step * batch + share.start) * columns..(step * batch + share.end) * columns]
}

/// Puts the gates' rows of a matrix into their blocks of a packed one.
fn set_blocks<T: Function>(packed: &mut Packed<T>, first: usize, matrix: &[T], units: usize, blocks: &[Option<usize>]) {
    let gates = blocks.iter().flatten().count();
    for (number, row) in matrix.chunks_exact(gates * units).enumerate() {
        for (block, gate) in blocks.iter().enumerate() {
            if let Some(gate) = gate {
                packed.set(first + number, block * units, &row[gate * units..(gate + 1) * units]);
            }
        }
    }
}

/// The weights of `[x, h]`, block by block.
fn pack<T: Function>(weights: &Weights<Flex>, form: Form, inputs: usize, units: usize) -> Option<Packed<T>> {
    let recurrence = form.recurrence;
    let (input, bias) = (weights.input.as_slice::<T>()?, weights.bias.as_slice::<T>()?);
    let mut packed = Packed::zeros(inputs + units, recurrence.blocks() * units);
    // The gates of a cell with an input stand in the order of their blocks, and before all others.
    packed.start_with(0, bias);
    set_blocks(&mut packed, 0, input, units, recurrence.input_gates());
    set_blocks(&mut packed, inputs, weights.recurrent.as_slice::<T>()?, units, recurrence.state_gates());
    if recurrence == Recurrence::Gru {
        packed.start_with(3 * units, weights.inner_bias.as_slice::<T>()?);
    }
    Some(packed)
}

/// What one thread reads and writes in a forward pass.
struct Forward<'a, T> {
    form: Form,
    inputs: usize,
    units: usize,
    batch: usize,
    share: Range<usize>,
    x: &'a [T],
    weight: &'a Packed<T>,
    /// By time step, as the following. A cell without gates has none, and one without a cell state no such.
    hidden: Vec<&'a mut [T]>,
    gates: Vec<&'a mut [T]>,
    cells: Vec<&'a mut [T]>,
}

/// The forward pass; `None` where the stock form must do it.
pub fn recurrent(x: &Primitive, weights: &Weights<Flex>, form: Form) -> Option<States<Flex>> {
    match x.dtype() {
        _ if form.kernels == Kernels::Stock => None,
        DType::F32 => forward::<f32>(x, weights, form),
        DType::F64 => forward::<f64>(x, weights, form),
        _ => None,
    }
}

fn forward<T: Function>(x: &Primitive, weights: &Weights<Flex>, form: Form) -> Option<States<Flex>> {
    let recurrence = form.recurrence;
    let x = contiguous(x);
    let (inputs, units) = (x.shape()[1], weights.recurrent.shape()[0]);
    let count = x.shape()[0];
    let batch = count / form.steps;
    let x = x.as_slice::<T>()?;
    let packed = pack(weights, form, inputs, units)?;
    let kept = recurrence.kept() * units;
    let has_cells = recurrence == Recurrence::Lstm;
    let mut hidden = pool::take::<T>(count * units);
    let mut gates = pool::take::<T>(count * kept);
    let mut cells = pool::take::<T>(if has_cells { count * units } else { 0 });
    let shares = shares(batch);
    let buffers = cut(&mut hidden, batch, units, &shares)
        .into_iter()
        .zip(cut(&mut gates, batch, kept.max(1), &shares))
        .zip(cut(&mut cells, batch, units, &shares));
    let parts = buffers.zip(&shares).map(|(((hidden, gates), cells), share)| Forward {
        form,
        inputs,
        units,
        batch,
        share: share.clone(),
        x,
        weight: &packed,
        hidden,
        gates,
        cells,
    });
    team::each(parts.collect(), |part: Forward<'_, T>| Arch::new().dispatch(part));
    Some(States {
        hidden: tensor(hidden, [count, units]),
        gates: if kept > 0 { tensor(gates, [count, kept]) } else { nothing::<T>() },
        cells: if has_cells { tensor(cells, [count, units]) } else { nothing::<T>() },
    })
}

fn whole<T>(elements: &[T], columns: usize, first: usize) -> Part<'_, T> {
    Part { factor: Rows { elements, columns }, columns: 0..columns, first }
}

impl<T: Function> WithSimd for Forward<'_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { form, inputs, units, batch, share, x, weight, mut hidden, mut gates, mut cells } = self;
        let none = vec![T::default(); share.len() * units];
        for step in 0..form.steps {
            let x = rows(x, batch, inputs, step, &share);
            let (before, now) = hidden.split_at_mut(step);
            let hidden = &mut *now[0];
            // The initial state is 0: its part of the product is left out.
            let before: &[T] = before.last().map_or(&none, |rows| rows);
            let factor = [whole(x, inputs, 0), whole(before, units, inputs)];
            let factor = if step == 0 { &factor[..1] } else { &factor };
            match form.recurrence {
                Recurrence::Rnn(function) => {
                    product(factor, weight, hidden);
                    rnn_forward(simd, function, hidden);
                }
                Recurrence::Lstm => {
                    let gates = &mut *gates[step];
                    product(factor, weight, gates);
                    let (before, now) = cells.split_at_mut(step);
                    let before = before.last().map_or(&none[..], |rows| rows);
                    lstm_forward(simd, units, gates, before, now[0], hidden);
                }
                Recurrence::Gru => {
                    let gates = &mut *gates[step];
                    product(factor, weight, gates);
                    gru_forward(simd, units, gates, before, hidden);
                }
            }
        }
    }
}

/// What one thread reads and writes in a backward pass.
struct Backward<'a, T> {
    form: Form,
    units: usize,
    batch: usize,
    share: Range<usize>,
    gradient: &'a [T],
    weight: &'a Packed<T>,
    hidden: &'a [T],
    cells: &'a [T],
    /// The gates, by time step, and then the gradients of the sums; of a cell without gates only these.
    gates: Vec<&'a mut [T]>,
    /// With respect to the states, from the initial one on, if they are wanted.
    of_hidden: Vec<&'a mut [T]>,
    of_cells: Vec<&'a mut [T]>,
}

/// The gradients with respect to the sums, block by block, and to the states if they are wanted; `Err` gives the states back
/// where the stock form must do it.
pub fn recurrent_backward(
    gradient: &Primitive,
    weight: &Primitive,
    states: States<Flex>,
    form: Form,
    wants_states: bool,
) -> Result<Vec<Primitive>, States<Flex>> {
    match gradient.dtype() {
        _ if form.kernels == Kernels::Stock => Err(states),
        DType::F32 => backward::<f32>(gradient, weight, states, form, wants_states),
        DType::F64 => backward::<f64>(gradient, weight, states, form, wants_states),
        _ => Err(states),
    }
}

fn backward<T: Function>(
    gradient: &Primitive,
    weight: &Primitive,
    states: States<Flex>,
    form: Form,
    wants_states: bool,
) -> Result<Vec<Primitive>, States<Flex>> {
    let gradient = contiguous(gradient);
    let (Some(gradient), Some(weight)) = (gradient.as_slice::<T>(), weight.as_slice::<T>()) else {
        return Err(states);
    };
    let recurrence = form.recurrence;
    let units = states.hidden.shape()[1];
    let count = states.hidden.shape()[0];
    let batch = count / form.steps;
    let columns = recurrence.blocks() * units;
    let States { hidden, gates, cells: cell_states } = states;
    let (Some(hidden), Some(cells)) = (hidden.as_slice::<T>(), cell_states.as_slice::<T>()) else {
        return Err(States { hidden, gates, cells: cell_states });
    };
    // In place where nobody else looks at the gates.
    let mut of_sums =
        if recurrence.kept() > 0 { gates } else { tensor(pool::take::<T>(count * columns), [count, columns]) };
    let state_count = if wants_states { (count + batch) * units } else { 0 };
    let mut of_hidden = vec![T::default(); state_count];
    let mut of_cells = vec![T::default(); if recurrence == Recurrence::Lstm { state_count } else { 0 }];
    let packed = Packed::transposed(Rows { elements: weight, columns: recurrence.gates() * units });
    let shares = shares(batch);
    let cut = |buffer, columns| cut(buffer, batch, columns, &shares);
    let buffers = cut(of_sums.storage_mut::<T>(), columns)
        .into_iter()
        .zip(cut(&mut of_hidden, units).into_iter().zip(cut(&mut of_cells, units)));
    let parts = buffers.zip(&shares).map(|((gates, (of_hidden, of_cells)), share)| Backward {
        form,
        units,
        batch,
        share: share.clone(),
        gradient,
        weight: &packed,
        hidden,
        cells,
        gates,
        of_hidden,
        of_cells,
    });
    team::each(parts.collect(), |part: Backward<'_, T>| Arch::new().dispatch(part));
    pool::recycle::<T>(cell_states);
    let mut found = vec![of_sums];
    let states = [of_hidden, of_cells].into_iter().filter(|values| !values.is_empty());
    found.extend(states.map(|values| tensor(values, [count + batch, units])));
    Ok(found)
}

impl<T: Function> WithSimd for Backward<'_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { form, units, batch, share, gradient, weight, hidden, cells, .. } = self;
        let Self { mut gates, mut of_hidden, mut of_cells, .. } = self;
        let share = &share;
        let columns = form.recurrence.blocks() * units;
        let none = vec![T::default(); share.len() * units];
        // The gradients with respect to the states before the step that comes next in this loop.
        let mut of_state = none.clone();
        let mut of_cell = none.clone();
        let mut through_weights = none.clone();
        for step in (0..form.steps).rev() {
            if form.answers_every_step {
                accumulate(simd, &mut of_state, rows(gradient, batch, units, step, share));
            } else if step + 1 == form.steps {
                of_state.copy_from_slice(rows(gradient, batch, units, 0, share));
            }
            if let Some(wanted) = of_hidden.get_mut(step + 1) {
                wanted.copy_from_slice(&of_state);
            }
            let at = |buffer, step| rows(buffer, batch, units, step, share);
            let gates = &mut *gates[step];
            match form.recurrence {
                Recurrence::Rnn(function) => rnn_backward(simd, function, at(hidden, step), &mut of_state, gates),
                Recurrence::Lstm => {
                    let before = if step > 0 { at(cells, step - 1) } else { &none };
                    let wanted = of_cells.get_mut(step + 1).map(|rows| &mut **rows).unwrap_or_default();
                    let states = [before, at(cells, step)];
                    lstm_backward(simd, units, gates, states, &mut of_state, &mut of_cell, wanted);
                }
                Recurrence::Gru => {
                    let before = if step > 0 { at(hidden, step - 1) } else { &none };
                    gru_backward(simd, units, gates, before, &mut of_state);
                }
            }
            // Nobody asks for the initial state but the probe.
            if step > 0 || !of_hidden.is_empty() {
                let factor = Rows { elements: &*gates, columns };
                product(&through_gates(factor, form.recurrence, units), weight, &mut through_weights);
                accumulate(simd, &mut of_state, &through_weights);
            }
            if form.cuts_before(step) {
                of_state.fill(T::default());
                of_cell.fill(T::default());
            }
        }
        if let Some(initial) = of_hidden.first_mut() {
            initial.copy_from_slice(&of_state);
        }
        if let Some(initial) = of_cells.first_mut() {
            initial.copy_from_slice(&of_cell);
        }
    }
}

/// The blocks that have weights from the hidden state.
fn through_gates<T: Function>(of_sums: Rows<'_, T>, recurrence: Recurrence, units: usize) -> Vec<Part<'_, T>> {
    let blocks = recurrence.state_gates().iter().enumerate();
    let part = |(block, gate): (usize, &Option<usize>)| {
        let columns = block * units..(block + 1) * units;
        gate.map(|gate| Part { factor: of_sums, columns, first: gate * units })
    };
    blocks.filter_map(part).collect()
}

/// The gradients with respect to the weights; `None` where the stock form must do it.
pub fn weight_gradients(
    x: &Primitive,
    hidden: &Primitive,
    of_sums: &Primitive,
    form: Form,
) -> Option<WeightGradients<Flex>> {
    match x.dtype() {
        DType::F32 => of_weights::<f32>(x, hidden, of_sums, form),
        DType::F64 => of_weights::<f64>(x, hidden, of_sums, form),
        _ => None,
    }
}

/// Of all weights, the products with `[x, 1, h]` over all time steps.
fn of_weights<T: Function>(
    x: &Primitive,
    hidden: &Primitive,
    of_sums: &Primitive,
    form: Form,
) -> Option<WeightGradients<Flex>> {
    let recurrence = form.recurrence;
    let (inputs, units) = (x.shape()[1], hidden.shape()[1]);
    let columns = recurrence.blocks() * units;
    let x = contiguous(x);
    let (x, hidden, of_sums) = (x.as_slice::<T>()?, hidden.as_slice::<T>()?, of_sums.as_slice::<T>()?);
    let count = x.len() / inputs;
    let batch = count / form.steps;
    let (bias, end) = (inputs, inputs + 1 + units);
    let ones = vec![T::from_f64(1.0); count];
    // The state before the first time step is 0.
    let before = &hidden[..(count - batch) * units];
    let factors = [(x, inputs, 0), (&ones, 1, 0), (before, units, batch)];
    let factors = factors.map(|(elements, columns, skipped)| Factor { rows: Rows { elements, columns }, skipped });
    let gradient = Rows { elements: of_sums, columns };
    // Of a block that has no weights from x or from h, only the bias and the rows of the other one.
    let used = |block: usize| {
        let first = if recurrence.input_gates()[block].is_some() { 0 } else { bias };
        first..if recurrence.state_gates()[block].is_some() { end } else { bias + 1 }
    };
    let width = panel_width::<T>();
    let of_panel = |first: usize| {
        let (first, last) = (used(first / units), used((columns.min(first + width) - 1) / units));
        first.start.min(last.start)..first.end.max(last.end)
    };
    let shares = shared_panels((0..columns).step_by(width).map(of_panel).collect());
    let mut products = pool::take::<T>(end * columns);
    let mut parts: Vec<(&Panels, Vec<&mut [T]>)> = shares.iter().map(|share| (share, Vec::new())).collect();
    for mut row in products.chunks_exact_mut(columns) {
        for (share, part) in &mut parts {
            let (now, rest) = row.split_at_mut(row.len().min(share.used.len() * width));
            part.push(now);
            row = rest;
        }
    }
    team::each(parts, |(share, mut out): (&Panels, Vec<&mut [T]>)| {
        out.iter_mut().for_each(|row| row.fill(T::default()));
        add_transposed_product(&factors, gradient, share, &mut out);
    });
    // Some rows of the blocks that have a gate. The gates of a cell stand in the order of their blocks.
    let gate_columns = recurrence.gates() * units;
    let joined = |rows: Range<usize>, gates: &[Option<usize>]| {
        let mut joined = pool::take::<T>(rows.len() * gates.iter().flatten().count() * units);
        let mut places = joined.chunks_exact_mut(units);
        for row in products.chunks_exact(columns).take(rows.end).skip(rows.start) {
            let with_gate = row.chunks_exact(units).zip(gates).filter(|(_, gate)| gate.is_some());
            with_gate.zip(&mut places).for_each(|((from, _), place)| place.copy_from_slice(from));
        }
        joined
    };
    let (input_gates, state_gates) = (recurrence.input_gates(), recurrence.state_gates());
    let inner_bias = match recurrence {
        Recurrence::Gru => joined(bias..bias + 1, &[None, None, None, Some(0)]),
        Recurrence::Rnn(_) | Recurrence::Lstm => vec![T::default(); units],
    };
    let found = WeightGradients {
        input: tensor(joined(0..inputs, input_gates), [inputs, gate_columns]),
        bias: tensor(joined(bias..bias + 1, input_gates), [gate_columns]),
        recurrent: tensor(joined(bias + 1..end, state_gates), [units, gate_columns]),
        inner_bias: tensor(inner_bias, [units]),
    };
    pool::give(products);
    Some(found)
}

/// Some panels for each thread, of which about as many rows are used.
fn shared_panels(used: Vec<Range<usize>>) -> Vec<Panels> {
    let total: usize = used.iter().map(Range::len).sum();
    let mut shares: Vec<Panels> = Vec::new();
    let mut before = 0;
    for (number, used) in used.into_iter().enumerate() {
        // By its middle, a panel is in the share of one thread.
        let thread = (2 * before + used.len()) * team::threads() / (2 * total);
        before += used.len();
        if shares.len() <= thread {
            shares.push(Panels { first: number, used: Vec::new() });
        }
        if let Some(share) = shares.last_mut() {
            share.used.push(used);
        }
    }
    shares
}
