//! A recurrent layer on the CPU. Every thread has some of the examples, and takes them through the whole sequence.

use std::ops::Range;

use burn::backend::tensor::FloatTensor;
use burn::backend::{Flex, TensorMetadata};
use burn::tensor::{DType, TensorData};
use multiversion::multiversion;
use rayon::prelude::*;

use super::elementary::{sigmoid, tanh};
use super::product::{Packed, add_product};
use super::recurrent::{Backwards, Form, Recurrence, States};
use super::Activated;

type Primitive = FloatTensor<Flex>;

/// The elements of a contiguous tensor of f32.
fn elements(x: &Primitive) -> Option<&[f32]> {
    if x.dtype() == DType::F32 { x.as_slice::<f32>() } else { None }
}

fn tensor(values: Vec<f32>, columns: usize) -> Primitive {
    let rows = values.len() / columns;
    Primitive::from_data(TensorData::new(values, [rows, columns]))
}

/// The examples of each thread. Their number decides nothing: every example is computed by itself.
fn shares(batch: usize) -> Vec<Range<usize>> {
    let share = batch.div_ceil(rayon::current_num_threads()).max(1);
    (0..batch).step_by(share).map(|first| first..batch.min(first + share)).collect()
}

/// Cuts a buffer `[blocks x batch, columns]` into the rows of each share in each block.
fn cut<'a>(buffer: &'a mut [f32], batch: usize, columns: usize, shares: &[Range<usize>]) -> Vec<Vec<&'a mut [f32]>> {
    let mut parts: Vec<Vec<&'a mut [f32]>> = shares.iter().map(|_| Vec::new()).collect();
    if columns == 0 {
        return parts;
    }
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

/// What one thread reads and writes in a forward pass.
struct Forward<'a> {
    form: Form,
    units: usize,
    batch: usize,
    share: Range<usize>,
    projected: &'a [f32],
    weight: &'a Packed,
    bias: &'a [f32],
    /// By time step, as the following.
    hidden: Vec<&'a mut [f32]>,
    gates: Vec<&'a mut [f32]>,
    cells: Vec<&'a mut [f32]>,
}

/// The forward pass; `None` where the stock form must do it.
pub fn recurrent(projected: &Primitive, weight: &Primitive, bias: &Primitive, form: Form) -> Option<States<Flex>> {
    let units = weight.shape()[0];
    let batch = projected.shape()[0] / form.steps;
    let (projected, weight, bias) = (elements(projected)?, elements(weight)?, elements(bias)?);
    let kept = form.recurrence.kept();
    let count = form.steps * batch * units;
    let mut hidden = vec![0.0; count];
    let mut gates = vec![0.0; count * kept];
    let mut cells = vec![0.0; if form.recurrence == Recurrence::Lstm { count } else { 0 }];
    let packed = Packed::new(weight, units, units * form.recurrence.gates());
    let shares = shares(batch);
    let parts = cut(&mut hidden, batch, units, &shares)
        .into_iter()
        .zip(cut(&mut gates, batch, units * kept, &shares))
        .zip(if cells.is_empty() { cut(&mut [], batch, 0, &shares) } else { cut(&mut cells, batch, units, &shares) })
        .zip(shares.iter().cloned());
    let parts = parts.map(|(((hidden, gates), cells), share)| Forward {
        form,
        units,
        batch,
        share,
        projected,
        weight: &packed,
        bias,
        hidden,
        gates,
        cells,
    });
    let mut parts: Vec<Forward> = parts.collect();
    parts.par_iter_mut().for_each(forward);
    drop(parts);
    let of = |values: Vec<f32>, columns: usize| if values.is_empty() { tensor(vec![0.0], 1) } else { tensor(values, columns) };
    Some(States { hidden: of(hidden, units), gates: of(gates, units * kept.max(1)), cells: of(cells, units) })
}

fn forward(part: &mut Forward<'_>) {
    let Forward { form, units, batch, share, projected, weight, bias, hidden, gates, cells } = part;
    let units = *units;
    let columns = units * form.recurrence.gates();
    let mut product = vec![0.0; if form.recurrence == Recurrence::Gru { share.len() * columns } else { 0 }];
    let none = vec![0.0; share.len() * units];
    for step in 0..form.steps {
        let projected = rows(projected, *batch, columns, step, share);
        let (before, now) = hidden.split_at_mut(step);
        let before: &[f32] = before.last().map_or(&none, |rows| rows);
        let hidden = &mut *now[0];
        match form.recurrence {
            Recurrence::Rnn(function) => {
                add_product(before, weight, Some(projected), hidden);
                rnn_forward(function, hidden);
            }
            Recurrence::Lstm => {
                let gates = &mut *gates[step];
                add_product(before, weight, Some(projected), gates);
                let (before, now) = cells.split_at_mut(step);
                let before: &[f32] = before.last().map_or(&none, |rows| rows);
                lstm_forward(units, gates, before, now[0], hidden);
            }
            Recurrence::Gru => {
                product.fill(0.0);
                add_product(before, weight, None, &mut product);
                gru_forward(units, projected, &product, bias, before, gates[step], hidden);
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
fn parts_mut(row: &mut [f32], units: usize) -> [&mut [f32]; 4] {
    let (a, rest) = row.split_at_mut(units);
    let (b, rest) = rest.split_at_mut(units);
    let (c, d) = rest.split_at_mut(units);
    [a, b, c, &mut d[..units]]
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

#[multiversion(targets("x86_64+avx512f+avx512vl+avx2+fma", "x86_64+avx2+fma"))]
fn lstm_forward(units: usize, gates: &mut [f32], before: &[f32], cells: &mut [f32], hidden: &mut [f32]) {
    let rows = gates.chunks_exact_mut(4 * units).zip(before.chunks_exact(units));
    for (((gates, before), cells), hidden) in
        rows.zip(cells.chunks_exact_mut(units)).zip(hidden.chunks_exact_mut(units))
    {
        let [input, forget, candidate, output] = parts_mut(gates, units);
        for unit in 0..units {
            let i = sigmoid(input[unit]);
            let f = sigmoid(forget[unit]);
            let g = tanh(candidate[unit]);
            let o = sigmoid(output[unit]);
            let c = f * before[unit] + i * g;
            (input[unit], forget[unit], candidate[unit], output[unit]) = (i, f, g, o);
            cells[unit] = c;
            hidden[unit] = o * tanh(c);
        }
    }
}

#[multiversion(targets("x86_64+avx512f+avx512vl+avx2+fma", "x86_64+avx2+fma"))]
fn gru_forward(
    units: usize,
    projected: &[f32],
    product: &[f32],
    bias: &[f32],
    before: &[f32],
    gates: &mut [f32],
    hidden: &mut [f32],
) {
    let rows = projected.chunks_exact(3 * units).zip(product.chunks_exact(3 * units));
    let states = before.chunks_exact(units).zip(hidden.chunks_exact_mut(units));
    for (((projected, product), (before, hidden)), gates) in rows.zip(states).zip(gates.chunks_exact_mut(4 * units)) {
        let [reset_in, update_in, candidate_in] = parts::<3>(projected, units);
        let [reset_state, update_state, candidate_state] = parts::<3>(product, units);
        let [reset, update, candidate, inner] = parts_mut(gates, units);
        let bias = &bias[..units];
        for unit in 0..units {
            let r = sigmoid(reset_in[unit] + reset_state[unit]);
            let z = sigmoid(update_in[unit] + update_state[unit]);
            let q = candidate_state[unit] + bias[unit];
            let n = tanh(candidate_in[unit] + r * q);
            (reset[unit], update[unit], candidate[unit], inner[unit]) = (r, z, n, q);
            hidden[unit] = (1.0 - z) * n + z * before[unit];
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
    gates: &'a [f32],
    cells: &'a [f32],
    /// With respect to what was projected from the input, by time step.
    of_projected: Vec<&'a mut [f32]>,
    /// With respect to the product of the hidden state and the weights, where it is another one.
    of_product: Vec<&'a mut [f32]>,
    /// With respect to the states, from the initial one on, if they are wanted.
    of_hidden: Vec<&'a mut [f32]>,
    of_cells: Vec<&'a mut [f32]>,
}

/// The backward pass; `None` where the stock form must do it.
pub fn recurrent_backward(
    gradient: &Primitive,
    weight: &Primitive,
    states: &States<Flex>,
    form: Form,
    wants_states: bool,
) -> Option<Backwards<Flex>> {
    let units = weight.shape()[0];
    let batch = states.hidden.shape()[0] / form.steps;
    let gradient = if gradient.is_contiguous() { gradient.clone() } else { gradient.to_contiguous() };
    let (gradient, weight) = (elements(&gradient)?, elements(weight)?);
    let (hidden, gates, cells) = (elements(&states.hidden)?, elements(&states.gates)?, elements(&states.cells)?);
    let columns = units * form.recurrence.gates();
    let (is_lstm, is_gru) = (form.recurrence == Recurrence::Lstm, form.recurrence == Recurrence::Gru);
    let count = form.steps * batch;
    let state_count = |is_wanted: bool| if is_wanted && wants_states { (count + batch) * units } else { 0 };
    let mut of_projected = vec![0.0; count * columns];
    let mut of_product = vec![0.0; if is_gru { count * columns } else { 0 }];
    let mut of_hidden = vec![0.0; state_count(true)];
    let mut of_cells = vec![0.0; state_count(is_lstm)];
    let packed = Packed::transposed(weight, units, columns);
    let shares = shares(batch);
    let cut = |buffer, columns| cut(buffer, batch, columns, &shares);
    let buffers = cut(&mut of_projected, columns)
        .into_iter()
        .zip(cut(&mut of_product, columns))
        .zip(cut(&mut of_hidden, units).into_iter().zip(cut(&mut of_cells, units)));
    let parts = buffers.zip(&shares).map(|(((of_projected, of_product), (of_hidden, of_cells)), share)| Backward {
        form,
        units,
        batch,
        share: share.clone(),
        gradient,
        weight: &packed,
        hidden,
        gates,
        cells,
        of_projected,
        of_product,
        of_hidden,
        of_cells,
    });
    let mut parts: Vec<Backward> = parts.collect();
    parts.par_iter_mut().for_each(backward);
    drop(parts);
    let of_projected = tensor(of_projected, columns);
    let of_product = if is_gru { tensor(of_product, columns) } else { of_projected.clone() };
    let states = |values: Vec<f32>| (!values.is_empty()).then(|| tensor(values, units));
    Some(Backwards { of_projected, of_product, of_hidden: states(of_hidden), of_cells: states(of_cells) })
}

fn backward(part: &mut Backward<'_>) {
    let Backward { form, units, batch, share, gradient, weight, hidden, gates, cells, .. } = part;
    let (form, units, batch) = (*form, *units, *batch);
    let columns = units * form.recurrence.gates();
    let none = vec![0.0; share.len() * units];
    // The gradients with respect to the states before the step that comes next in this loop.
    let mut of_hidden = vec![0.0; share.len() * units];
    let mut of_cells = vec![0.0; share.len() * units];
    let wants_states = !part.of_hidden.is_empty();
    for step in (0..form.steps).rev() {
        let outputs = match form.answers_every_step {
            true => Some(rows(gradient, batch, units, step, share)),
            false => (step + 1 == form.steps).then(|| rows(gradient, batch, units, 0, share)),
        };
        if let Some(outputs) = outputs {
            of_hidden.iter_mut().zip(outputs).for_each(|(sum, gradient)| *sum += gradient);
        }
        if wants_states {
            part.of_hidden[step + 1].copy_from_slice(&of_hidden);
        }
        let at = |buffer, columns, step| rows(buffer, batch, columns, step, share);
        let of_projected = &mut *part.of_projected[step];
        match form.recurrence {
            Recurrence::Rnn(function) => {
                rnn_backward(function, at(hidden, units, step), &of_hidden, of_projected);
                of_hidden.fill(0.0);
                add_product(of_projected, weight, None, &mut of_hidden);
            }
            Recurrence::Lstm => {
                let before = if step > 0 { at(cells, units, step - 1) } else { &none };
                let gates = at(gates, 4 * units, step);
                let recorded = part.of_cells.get_mut(step + 1).map(|rows| &mut **rows);
                lstm_backward(units, gates, [before, at(cells, units, step)], &of_hidden, &mut of_cells, of_projected, recorded);
                of_hidden.fill(0.0);
                add_product(of_projected, weight, None, &mut of_hidden);
            }
            Recurrence::Gru => {
                let before = if step > 0 { at(hidden, units, step - 1) } else { &none };
                let of_product = &mut *part.of_product[step];
                gru_backward(units, at(gates, 4 * units, step), before, &mut of_hidden, of_projected, of_product);
                add_product(of_product, weight, None, &mut of_hidden);
            }
        }
        if form.truncation.is_some_and(|length| step.is_multiple_of(length)) {
            of_hidden.fill(0.0);
            of_cells.fill(0.0);
        }
    }
    if wants_states {
        part.of_hidden[0].copy_from_slice(&of_hidden);
    }
    if let Some(initial) = part.of_cells.first_mut() {
        initial.copy_from_slice(&of_cells);
    }
}

#[multiversion(targets("x86_64+avx512f+avx512vl+avx2+fma", "x86_64+avx2+fma"))]
fn rnn_backward(function: Option<Activated>, hidden: &[f32], of_hidden: &[f32], of_projected: &mut [f32]) {
    let all = of_projected.iter_mut().zip(hidden).zip(of_hidden);
    match function {
        Some(Activated::Tanh) => all.for_each(|((out, h), gradient)| *out = gradient * (1.0 - h * h)),
        Some(Activated::Sigmoid) => all.for_each(|((out, h), gradient)| *out = gradient * (h * (1.0 - h))),
        Some(Activated::Relu) => all.for_each(|((out, h), gradient)| *out = if *h > 0.0 { *gradient } else { 0.0 }),
        None => of_projected.copy_from_slice(of_hidden),
    }
}

/// `of_cells` comes in as the gradient that later time steps give to the cell state, and leaves as that of the cell state
/// before.
#[multiversion(targets("x86_64+avx512f+avx512vl+avx2+fma", "x86_64+avx2+fma"))]
fn lstm_backward(
    units: usize,
    gates: &[f32],
    [cells_before, cells]: [&[f32]; 2],
    of_hidden: &[f32],
    of_cells: &mut [f32],
    of_projected: &mut [f32],
    mut recorded: Option<&mut [f32]>,
) {
    for row in 0..gates.len() / (4 * units) {
        let [input, forget, candidate, output] = parts::<4>(&gates[row * 4 * units..(row + 1) * 4 * units], units);
        let out = &mut of_projected[row * 4 * units..(row + 1) * 4 * units];
        let [of_input, of_forget, of_candidate, of_output] = parts_mut(out, units);
        let place = row * units..(row + 1) * units;
        let (before, cells) = (&cells_before[place.clone()], &cells[place.clone()]);
        let of_hidden = &of_hidden[place.clone()];
        let of_cells = &mut of_cells[place.clone()];
        for unit in 0..units {
            let (i, f, g, o) = (input[unit], forget[unit], candidate[unit], output[unit]);
            let squashed = tanh(cells[unit]);
            let of_cell = of_cells[unit] + of_hidden[unit] * o * (1.0 - squashed * squashed);
            of_input[unit] = of_cell * g * (i * (1.0 - i));
            of_forget[unit] = of_cell * before[unit] * (f * (1.0 - f));
            of_candidate[unit] = of_cell * i * (1.0 - g * g);
            of_output[unit] = of_hidden[unit] * squashed * (o * (1.0 - o));
            of_cells[unit] = of_cell;
        }
        if let Some(recorded) = &mut recorded {
            recorded[place].copy_from_slice(of_cells);
        }
        for unit in 0..units {
            of_cells[unit] *= forget[unit];
        }
    }
}

/// `of_hidden` comes in as the gradient with respect to the state after the step and leaves as the part of that before it
/// that does not go through the weights.
#[multiversion(targets("x86_64+avx512f+avx512vl+avx2+fma", "x86_64+avx2+fma"))]
fn gru_backward(
    units: usize,
    gates: &[f32],
    before: &[f32],
    of_hidden: &mut [f32],
    of_projected: &mut [f32],
    of_product: &mut [f32],
) {
    for row in 0..gates.len() / (4 * units) {
        let [reset, update, candidate, inner] = parts::<4>(&gates[row * 4 * units..(row + 1) * 4 * units], units);
        let place = row * 3 * units..(row + 1) * 3 * units;
        let (of_projected, of_product) = (&mut of_projected[place.clone()], &mut of_product[place]);
        let before = &before[row * units..(row + 1) * units];
        let of_hidden = &mut of_hidden[row * units..(row + 1) * units];
        for unit in 0..units {
            let (r, z, n, q) = (reset[unit], update[unit], candidate[unit], inner[unit]);
            let gradient = of_hidden[unit];
            let of_candidate = gradient * (1.0 - z) * (1.0 - n * n);
            let of_reset = of_candidate * q * (r * (1.0 - r));
            let of_update = gradient * (before[unit] - n) * (z * (1.0 - z));
            of_projected[unit] = of_reset;
            of_projected[units + unit] = of_update;
            of_projected[2 * units + unit] = of_candidate;
            of_product[unit] = of_reset;
            of_product[units + unit] = of_update;
            of_product[2 * units + unit] = of_candidate * r;
            of_hidden[unit] = gradient * z;
        }
    }
}
