//! A recurrent layer on the CPU. Every thread has some of the examples, and takes them through the whole sequence.
//!
//! Input, bias and hidden state are one factor `[x, 1, h]`, and the weights of all three one matrix, so that a time step is one
//! product into the buffer that keeps the gates. Of a GRU the buffer has four blocks a unit, the candidate's two parts side by
//! side: the one has only `[x, 1]`, the other `[1, h]`. The backward pass writes the gradients of the sums over the gates.

// A function that is not inlined into one with a target feature does without it.
#![allow(clippy::inline_always)]

use std::ops::Range;

use burn::backend::tensor::FloatTensor;
use burn::backend::{Flex, TensorMetadata};
use burn::tensor::DType;
use multiversion::multiversion;

use super::Activated;
use super::elementary::{settled, sigmoid, tanh};
use super::flex_layer::{contiguous, tensor};
use super::product::{Grouped, Packed, Part, View, product, transposed_product};
use super::recurrent::{Form, Recurrence, States, WeightGradients, Weights};
use super::team;
use crate::config::Kernels;

type Primitive = FloatTensor<Flex>;

/// The elements of a contiguous tensor of f32.
fn elements(x: &Primitive) -> Option<&[f32]> {
    if x.dtype() == DType::F32 { x.as_slice::<f32>() } else { None }
}

/// What stands for a tensor that a cell does not have.
fn nothing() -> Primitive {
    tensor(vec![0.0_f32], [1, 1])
}

/// The examples of each thread. Their number decides nothing: every example is computed by itself.
fn shares(batch: usize) -> Vec<Range<usize>> {
    let share = batch.div_ceil(rayon::current_num_threads()).max(1);
    (0..batch).step_by(share).map(|first| first..batch.min(first + share)).collect()
}

/// Cuts a buffer `[blocks x batch, columns]` into the rows of each share in each block; of an empty buffer, nothing.
fn cut<'a>(buffer: &'a mut [f32], batch: usize, columns: usize, shares: &[Range<usize>]) -> Vec<Vec<&'a mut [f32]>> {
    let mut parts: Vec<Vec<&'a mut [f32]>> = shares.iter().map(|_| Vec::new()).collect();
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
fn rows<'a>(buffer: &'a [f32], batch: usize, columns: usize, step: usize, share: &Range<usize>) -> &'a [f32] {
    &buffer[(step * batch + share.start) * columns..(step * batch + share.end) * columns]
}

/// Puts the gates' rows of a matrix into their blocks of a packed one.
fn set_blocks(packed: &mut Packed, first: usize, matrix: &[f32], units: usize, blocks: &[Option<usize>]) {
    let gates = blocks.iter().flatten().count();
    for (number, row) in matrix.chunks_exact(gates * units).enumerate() {
        for (block, gate) in blocks.iter().enumerate() {
            if let Some(gate) = gate {
                packed.set(first + number, block * units, &row[gate * units..(gate + 1) * units]);
            }
        }
    }
}

/// The weights of `[x, 1, h]`, block by block.
fn pack(weights: &Weights<Flex>, recurrence: Recurrence, inputs: usize, units: usize) -> Option<Packed> {
    let blocks = recurrence.blocks();
    let mut packed = Packed::zeros(inputs + 1 + units, blocks * units);
    set_blocks(&mut packed, 0, elements(&weights.input)?, units, recurrence.input_gates());
    set_blocks(&mut packed, inputs, elements(&weights.bias)?, units, recurrence.input_gates());
    set_blocks(&mut packed, inputs + 1, elements(&weights.recurrent)?, units, recurrence.state_gates());
    if recurrence == Recurrence::Gru {
        packed.set(inputs, 3 * units, elements(&weights.inner_bias)?);
    }
    Some(packed)
}

/// The transposed weights of h.
fn pack_transposed(weight: &[f32], recurrence: Recurrence, units: usize) -> Packed {
    let columns = recurrence.gates() * units;
    let mut packed = Packed::zeros(columns, units);
    let mut row = vec![0.0; units];
    for column in 0..columns {
        for (value, row) in row.iter_mut().zip(weight.chunks_exact(columns)) {
            *value = row[column];
        }
        packed.set(column, 0, &row);
    }
    packed
}

/// What one thread reads and writes in a forward pass.
struct Forward<'a> {
    form: Form,
    inputs: usize,
    units: usize,
    batch: usize,
    share: Range<usize>,
    x: &'a [f32],
    weight: &'a Packed,
    /// By time step, as the following. A cell without gates has none, and one without a cell state no such.
    hidden: Vec<&'a mut [f32]>,
    gates: Vec<&'a mut [f32]>,
    cells: Vec<&'a mut [f32]>,
}

/// The forward pass; `None` where the stock form must do it.
pub fn recurrent(x: &Primitive, weights: &Weights<Flex>, form: Form) -> Option<States<Flex>> {
    if form.kernels == Kernels::Stock {
        return None;
    }
    let recurrence = form.recurrence;
    let x = contiguous(x);
    let (inputs, units) = (x.shape()[1], weights.recurrent.shape()[0]);
    let count = x.shape()[0];
    let batch = count / form.steps;
    let x = elements(&x)?;
    let packed = pack(weights, recurrence, inputs, units)?;
    let kept = recurrence.kept() * units;
    let has_cells = recurrence == Recurrence::Lstm;
    let mut hidden = vec![0.0; count * units];
    let mut gates = vec![0.0; count * kept];
    let mut cells = vec![0.0; if has_cells { count * units } else { 0 }];
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
    team::each(parts.collect(), forward);
    Some(States {
        hidden: tensor(hidden, [count, units]),
        gates: if kept > 0 { tensor(gates, [count, kept]) } else { nothing() },
        cells: if has_cells { tensor(cells, [count, units]) } else { nothing() },
    })
}

fn whole(elements: &[f32], columns: usize) -> Part<'_> {
    (View { elements, columns }, 0..columns)
}

fn forward(part: Forward<'_>) {
    let Forward { form, inputs, units, batch, share, x, weight, mut hidden, mut gates, mut cells } = part;
    let ones = vec![1.0; share.len()];
    let none = vec![0.0; share.len() * units];
    for step in 0..form.steps {
        let x = rows(x, batch, inputs, step, &share);
        let (before, now) = hidden.split_at_mut(step);
        let hidden = &mut *now[0];
        // The initial state is 0: its part of the product is left out.
        let before: &[f32] = before.last().map_or(&none, |rows| rows);
        let factor = [whole(x, inputs), whole(&ones, 1), whole(before, units)];
        let factor = if step == 0 { &factor[..2] } else { &factor };
        match form.recurrence {
            Recurrence::Rnn(function) => {
                product(factor, weight, hidden);
                rnn_forward(function, hidden);
            }
            Recurrence::Lstm => {
                let gates = &mut *gates[step];
                product(factor, weight, gates);
                let (before, now) = cells.split_at_mut(step);
                lstm_forward(units, gates, before.last().map_or(&none, |rows| rows), now[0], hidden);
            }
            Recurrence::Gru => {
                let gates = &mut *gates[step];
                product(factor, weight, gates);
                gru_forward(units, gates, before, hidden);
            }
        }
    }
}

/// Splits a row into parts of `units`.
#[inline(always)]
fn parts<const N: usize>(row: &[f32], units: usize) -> [&[f32]; N] {
    std::array::from_fn(|part| &row[part * units..(part + 1) * units])
}

/// Splits a row into parts of `units`.
#[inline(always)]
fn parts_mut<const N: usize>(row: &mut [f32], units: usize) -> [&mut [f32]; N] {
    let mut rest = row;
    std::array::from_fn(|_| {
        let (part, after) = std::mem::take(&mut rest).split_at_mut(units);
        rest = after;
        // A length that the compiler sees saves the checks in the loops.
        &mut part[..units]
    })
}

#[multiversion(targets("x86_64+avx512f+avx512vl+avx2+fma", "x86_64+avx2+fma"))]
fn rnn_forward(function: Option<Activated>, hidden: &mut [f32]) {
    match function {
        Some(Activated::Tanh) => hidden.iter_mut().for_each(|h| *h = tanh(*h)),
        Some(Activated::Sigmoid) => hidden.iter_mut().for_each(|h| *h = sigmoid(*h)),
        // A NaN stays one: `max` would hide it.
        Some(Activated::Relu) => hidden.iter_mut().for_each(|h| *h = if *h < 0.0 { 0.0 } else { *h }),
        None => {}
    }
}

/// Short loops, here and below: in one that reads and writes many buffers, which could overlap for all the compiler knows, it
/// uses no vector instructions.
#[multiversion(targets("x86_64+avx512f+avx512vl+avx2+fma", "x86_64+avx2+fma"))]
fn lstm_forward(units: usize, gates: &mut [f32], before: &[f32], cells: &mut [f32], hidden: &mut [f32]) {
    let rows = gates.chunks_exact_mut(4 * units).zip(before.chunks_exact(units));
    let states = cells.chunks_exact_mut(units).zip(hidden.chunks_exact_mut(units));
    for ((gates, before), (cells, hidden)) in rows.zip(states) {
        gates[..2 * units].iter_mut().for_each(|x| *x = sigmoid(*x));
        gates[2 * units..3 * units].iter_mut().for_each(|x| *x = tanh(*x));
        gates[3 * units..].iter_mut().for_each(|x| *x = sigmoid(*x));
        let [input, forget, candidate, output] = parts::<4>(gates, units);
        let (before, cells, hidden) = (&before[..units], &mut cells[..units], &mut hidden[..units]);
        for unit in 0..units {
            cells[unit] = forget[unit] * before[unit] + input[unit] * candidate[unit];
        }
        for unit in 0..units {
            hidden[unit] = output[unit] * tanh(cells[unit]);
        }
    }
}

#[multiversion(targets("x86_64+avx512f+avx512vl+avx2+fma", "x86_64+avx2+fma"))]
fn gru_forward(units: usize, gates: &mut [f32], before: &[f32], hidden: &mut [f32]) {
    let states = before.chunks_exact(units).zip(hidden.chunks_exact_mut(units));
    for (gates, (before, hidden)) in gates.chunks_exact_mut(4 * units).zip(states) {
        gates[..2 * units].iter_mut().for_each(|x| *x = sigmoid(*x));
        let [reset, update, candidate, inner] = parts_mut::<4>(gates, units);
        let (before, hidden) = (&before[..units], &mut hidden[..units]);
        for unit in 0..units {
            candidate[unit] += reset[unit] * inner[unit];
        }
        for x in candidate.iter_mut() {
            *x = tanh(*x);
        }
        for unit in 0..units {
            hidden[unit] = (1.0 - update[unit]) * candidate[unit] + update[unit] * before[unit];
        }
    }
}

/// What one thread reads and writes in a backward pass.
struct Backward<'a> {
    form: Form,
    units: usize,
    batch: usize,
    share: Range<usize>,
    gradient: &'a [f32],
    weight: &'a Packed,
    hidden: &'a [f32],
    cells: &'a [f32],
    /// The gates, by time step, and then the gradients of the sums; of a cell without gates only these.
    gates: Vec<&'a mut [f32]>,
    /// With respect to the states, from the initial one on, if they are wanted.
    of_hidden: Vec<&'a mut [f32]>,
    of_cells: Vec<&'a mut [f32]>,
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
    if form.kernels == Kernels::Stock {
        return Err(states);
    }
    let gradient = contiguous(gradient);
    let (Some(gradient), Some(weight)) = (elements(&gradient), elements(weight)) else {
        return Err(states);
    };
    let recurrence = form.recurrence;
    let units = states.hidden.shape()[1];
    let count = states.hidden.shape()[0];
    let batch = count / form.steps;
    let columns = recurrence.blocks() * units;
    let States { hidden, gates, cells } = states;
    let (Some(hidden), Some(cells)) = (elements(&hidden), elements(&cells)) else {
        return Err(States { hidden, gates, cells });
    };
    // In place where nobody else looks at the gates.
    let mut of_sums =
        if recurrence.kept() > 0 { gates } else { tensor(vec![0.0_f32; count * columns], [count, columns]) };
    let state_count = if wants_states { (count + batch) * units } else { 0 };
    let mut of_hidden = vec![0.0; state_count];
    let mut of_cells = vec![0.0; if recurrence == Recurrence::Lstm { state_count } else { 0 }];
    let packed = pack_transposed(weight, recurrence, units);
    let shares = shares(batch);
    let cut = |buffer, columns| cut(buffer, batch, columns, &shares);
    let buffers = cut(of_sums.storage_mut::<f32>(), columns)
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
    team::each(parts.collect(), backward);
    let mut found = vec![of_sums];
    let states = [of_hidden, of_cells].into_iter().filter(|values| !values.is_empty());
    found.extend(states.map(|values| tensor(values, [count + batch, units])));
    Ok(found)
}

fn backward(part: Backward<'_>) {
    let Backward { form, units, batch, share, gradient, weight, hidden, cells, .. } = part;
    let Backward { mut gates, mut of_hidden, mut of_cells, .. } = part;
    let share = &share;
    let columns = form.recurrence.blocks() * units;
    let state_gates = form.recurrence.state_gates().iter().enumerate();
    let blocks = state_gates.filter(|(_, gate)| gate.is_some()).map(|(block, _)| block);
    let none = vec![0.0; share.len() * units];
    // The gradients with respect to the states before the step that comes next in this loop.
    let mut of_state = vec![0.0; share.len() * units];
    let mut of_cell = vec![0.0; share.len() * units];
    let mut through_weights = vec![0.0; share.len() * units];
    for step in (0..form.steps).rev() {
        let outputs = if form.answers_every_step {
            Some(rows(gradient, batch, units, step, share))
        } else {
            (step + 1 == form.steps).then(|| rows(gradient, batch, units, 0, share))
        };
        if let Some(outputs) = outputs {
            of_state.iter_mut().zip(outputs).for_each(|(sum, gradient)| *sum += gradient);
        }
        if let Some(wanted) = of_hidden.get_mut(step + 1) {
            wanted.copy_from_slice(&of_state);
        }
        let at = |buffer, step| rows(buffer, batch, units, step, share);
        let gates = &mut *gates[step];
        match form.recurrence {
            Recurrence::Rnn(function) => rnn_backward(function, at(hidden, step), &mut of_state, gates),
            Recurrence::Lstm => {
                let before = if step > 0 { at(cells, step - 1) } else { &none };
                let wanted = of_cells.get_mut(step + 1).map(|rows| &mut **rows);
                lstm_backward(units, gates, [before, at(cells, step)], &mut of_state, &mut of_cell, wanted);
            }
            Recurrence::Gru => {
                let before = if step > 0 { at(hidden, step - 1) } else { &none };
                gru_backward(units, gates, before, &mut of_state);
            }
        }
        // Nobody asks for the initial state but the probe.
        if step > 0 || !of_hidden.is_empty() {
            let of_sums = View { elements: gates, columns };
            let parts: Vec<Part> = blocks.clone().map(|block| (of_sums, block * units..(block + 1) * units)).collect();
            product(&parts, weight, &mut through_weights);
            of_state.iter_mut().zip(&through_weights).for_each(|(sum, gradient)| *sum = settled(*sum + gradient));
        }
        if form.cuts_before(step) {
            of_state.fill(0.0);
            of_cell.fill(0.0);
        }
    }
    if let Some(initial) = of_hidden.first_mut() {
        initial.copy_from_slice(&of_state);
    }
    if let Some(initial) = of_cells.first_mut() {
        initial.copy_from_slice(&of_cell);
    }
}

/// In all three, `of_state` comes in as the gradient with respect to the state after the step, and leaves as the part of that
/// before it that does not go through the weights.
#[multiversion(targets("x86_64+avx512f+avx512vl+avx2+fma", "x86_64+avx2+fma"))]
fn rnn_backward(function: Option<Activated>, hidden: &[f32], of_state: &mut [f32], of_sums: &mut [f32]) {
    let all = of_sums.iter_mut().zip(hidden).zip(&*of_state);
    match function {
        Some(Activated::Tanh) => all.for_each(|((out, h), gradient)| *out = settled(gradient * (1.0 - h * h))),
        Some(Activated::Sigmoid) => all.for_each(|((out, h), gradient)| *out = settled(gradient * (h * (1.0 - h)))),
        Some(Activated::Relu) => all.for_each(|((out, h), gradient)| *out = if *h > 0.0 { *gradient } else { 0.0 }),
        None => of_sums.copy_from_slice(of_state),
    }
    of_state.fill(0.0);
}

/// `of_cell` comes in as the gradient that later time steps give to the cell state, and leaves as that of the cell state before.
#[multiversion(targets("x86_64+avx512f+avx512vl+avx2+fma", "x86_64+avx2+fma"))]
fn lstm_backward(
    units: usize,
    gates: &mut [f32],
    [before, cells]: [&[f32]; 2],
    of_state: &mut [f32],
    of_cell: &mut [f32],
    mut wanted: Option<&mut [f32]>,
) {
    let mut scratch = vec![0.0; 2 * units];
    let [squashed, kept] = parts_mut::<2>(&mut scratch, units);
    let states = before.chunks_exact(units).zip(cells.chunks_exact(units));
    let gradients = of_state.chunks_exact_mut(units).zip(of_cell.chunks_exact_mut(units));
    let rows = gates.chunks_exact_mut(4 * units).zip(states).zip(gradients).enumerate();
    for (row, ((gates, (before, cells)), (of_state, of_cell))) in rows {
        let [input, forget, candidate, output] = parts_mut::<4>(gates, units);
        let (before, cells) = (&before[..units], &cells[..units]);
        let (of_state, of_cell) = (&mut of_state[..units], &mut of_cell[..units]);
        for unit in 0..units {
            squashed[unit] = tanh(cells[unit]);
        }
        for unit in 0..units {
            of_cell[unit] += of_state[unit] * output[unit] * (1.0 - squashed[unit] * squashed[unit]);
        }
        if let Some(wanted) = &mut wanted {
            wanted[row * units..(row + 1) * units].copy_from_slice(of_cell);
        }
        for unit in 0..units {
            output[unit] = settled(of_state[unit] * squashed[unit] * (output[unit] * (1.0 - output[unit])));
        }
        for unit in 0..units {
            kept[unit] = settled(of_cell[unit] * forget[unit]);
        }
        for unit in 0..units {
            forget[unit] = settled(kept[unit] * before[unit] * (1.0 - forget[unit]));
        }
        let of_input = &mut *squashed;
        for unit in 0..units {
            of_input[unit] = settled(of_cell[unit] * candidate[unit] * (input[unit] * (1.0 - input[unit])));
        }
        for unit in 0..units {
            candidate[unit] = settled(of_cell[unit] * input[unit] * (1.0 - candidate[unit] * candidate[unit]));
        }
        input.copy_from_slice(of_input);
        of_cell.copy_from_slice(kept);
        of_state.fill(0.0);
    }
}

#[multiversion(targets("x86_64+avx512f+avx512vl+avx2+fma", "x86_64+avx2+fma"))]
fn gru_backward(units: usize, gates: &mut [f32], before: &[f32], of_state: &mut [f32]) {
    let mut of_update = vec![0.0; units];
    let of_update = &mut of_update[..units];
    let states = before.chunks_exact(units).zip(of_state.chunks_exact_mut(units));
    for (gates, (before, of_state)) in gates.chunks_exact_mut(4 * units).zip(states) {
        let [reset, update, candidate, inner] = parts_mut::<4>(gates, units);
        let (before, of_state) = (&before[..units], &mut of_state[..units]);
        for unit in 0..units {
            let slope = update[unit] * (1.0 - update[unit]);
            of_update[unit] = settled(of_state[unit] * (before[unit] - candidate[unit]) * slope);
        }
        for unit in 0..units {
            let slope = 1.0 - candidate[unit] * candidate[unit];
            candidate[unit] = settled(of_state[unit] * (1.0 - update[unit]) * slope);
        }
        for unit in 0..units {
            of_state[unit] *= update[unit];
        }
        update.copy_from_slice(of_update);
        let of_reset = &mut *of_update;
        for unit in 0..units {
            of_reset[unit] = settled(candidate[unit] * inner[unit] * (reset[unit] * (1.0 - reset[unit])));
        }
        for unit in 0..units {
            inner[unit] = settled(candidate[unit] * reset[unit]);
        }
        reset.copy_from_slice(of_reset);
    }
}

/// Columns that a thread takes at a time.
const STRIP: usize = 64;

/// The gradients with respect to the weights; `None` where the stock form must do it.
pub fn weight_gradients(
    x: &Primitive,
    hidden: &Primitive,
    of_sums: &Primitive,
    form: Form,
) -> Option<WeightGradients<Flex>> {
    let recurrence = form.recurrence;
    let (inputs, units) = (x.shape()[1], hidden.shape()[1]);
    let columns = recurrence.blocks() * units;
    let x = contiguous(x);
    let (x, hidden, of_sums) = (elements(&x)?, elements(hidden)?, elements(of_sums)?);
    let count = x.len() / inputs;
    let batch = count / form.steps;
    let (bias, end) = (inputs, inputs + 1 + units);
    let factor = Grouped::new(count, end, |row, values| {
        values[..inputs].copy_from_slice(&x[row * inputs..(row + 1) * inputs]);
        values[bias] = 1.0;
        // The state before the first time step is 0.
        if row >= batch {
            values[bias + 1..].copy_from_slice(&hidden[(row - batch) * units..(row - batch + 1) * units]);
        }
    });
    let gradient = View { elements: of_sums, columns };
    let strips = strips(recurrence.blocks(), units);
    let product = |(block, columns): &(usize, Range<usize>)| {
        let used = if recurrence.state_gates()[*block].is_some() { end } else { bias + 1 };
        transposed_product(&factor, used, gradient, columns)
    };
    let mut products = vec![Vec::new(); strips.len()];
    team::each(
        strips.iter().zip(&mut products).collect(),
        |(strip, place): (&(usize, Range<usize>), &mut Vec<f32>)| {
            *place = product(strip);
        },
    );
    // Some rows of the blocks that have a gate. The gates of a cell stand in the order of their blocks.
    let joined = |rows: Range<usize>, gates: &[Option<usize>]| {
        let mut joined = Vec::with_capacity(rows.len() * recurrence.gates() * units);
        for row in rows {
            let with_gate = strips.iter().zip(&products).filter(|((block, _), _)| gates[*block].is_some());
            for ((_, columns), product) in with_gate {
                joined.extend_from_slice(&product[row * columns.len()..(row + 1) * columns.len()]);
            }
        }
        joined
    };
    let (input_gates, state_gates) = (recurrence.input_gates(), recurrence.state_gates());
    let gate_columns = recurrence.gates() * units;
    let inner_bias = match recurrence {
        Recurrence::Gru => joined(bias..bias + 1, &[None, None, None, Some(0)]),
        Recurrence::Rnn(_) | Recurrence::Lstm => vec![0.0; units],
    };
    Some(WeightGradients {
        input: tensor(joined(0..inputs, input_gates), [inputs, gate_columns]),
        bias: tensor(joined(bias..bias + 1, input_gates), [gate_columns]),
        recurrent: tensor(joined(bias + 1..end, state_gates), [units, gate_columns]),
        inner_bias: tensor(inner_bias, [units]),
    })
}

/// The columns of every block in pieces, each with the number of its block.
fn strips(blocks: usize, units: usize) -> Vec<(usize, Range<usize>)> {
    let pieces = |block: usize| {
        let end = (block + 1) * units;
        (block * units..end).step_by(STRIP).map(move |first| (block, first..end.min(first + STRIP)))
    };
    (0..blocks).flat_map(pieces).collect()
}
