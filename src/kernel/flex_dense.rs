//! A dense layer on the CPU: bias and function on rows of the product that are still in the cache, and the products of the backward
//! pass side by side.

use std::ops::Range;

use burn::backend::tensor::FloatTensor;
use burn::backend::{Flex, TensorMetadata};
use burn::tensor::DType;

use super::dense::{DenseForm, Elementwise, WantedOfDense};
use super::elementwise::{Vectorized, activate, differentiate};
use super::flex_layer::{contiguous, owned, tensor};
use super::matrix::{Panels, Rows, multiply, multiply_transposed, pack, pack_transposed};
use super::{pool, team};
use crate::config::Kernels;

type Primitive = FloatTensor<Flex>;

/// Rows whose sums are taken together. It decides in which order bias gradients are added up, and not the number of threads.
const ROWS: usize = 32;

/// Below so many multiplications a product is not worth a second thread: another core has to fetch what this one has in its cache.
const SMALL: usize = 200_000;

/// `phi(x W + b)` and what is kept; `None` where the stock form must do it.
pub fn dense(
    x: &Primitive,
    weight: &Primitive,
    bias: Option<&Primitive>,
    slope: Option<&Primitive>,
    form: DenseForm,
) -> Option<(Primitive, Primitive)> {
    match x.dtype() {
        _ if form.kernels == Kernels::Stock => None,
        DType::F32 => forward::<f32>(x, weight, bias, slope, form),
        DType::F64 => forward::<f64>(x, weight, bias, slope, form),
        _ => None,
    }
}

/// The gradients that are wanted; `Err` gives the gradient back where the stock form must do it.
pub fn dense_backward(
    x: &Primitive,
    weight: &Primitive,
    slope: Option<&Primitive>,
    kept: &Primitive,
    gradient: Primitive,
    form: DenseForm,
    wanted: WantedOfDense,
) -> Result<Vec<Primitive>, Primitive> {
    match x.dtype() {
        _ if form.kernels == Kernels::Stock => Err(gradient),
        DType::F32 => backward::<f32>(x, weight, slope, kept, gradient, form, wanted),
        DType::F64 => backward::<f64>(x, weight, slope, kept, gradient, form, wanted),
        _ => Err(gradient),
    }
}

/// Keeps what a forward pass left for the next one, if nobody else looks at it.
pub fn recycle(kept: Primitive) {
    match kept.dtype() {
        DType::F32 => pool::recycle::<f32>(kept),
        DType::F64 => pool::recycle::<f64>(kept),
        _ => {}
    }
}

fn matrix<T: Vectorized>(elements: &[T], columns: usize) -> Rows<'_, T> {
    Rows { elements, columns }
}

/// So many rows of a seed, of a matrix that has as many of each.
fn block<T: Vectorized>(elements: &[T], seed: usize, rows: usize, columns: usize) -> Rows<'_, T> {
    matrix(&elements[seed * rows * columns..][..rows * columns], columns)
}

/// The slope below 0 of each block: a number of the function, or learned.
fn slopes<T: Vectorized>(slope: Option<&Primitive>, form: DenseForm) -> Option<Vec<T>> {
    match (form.function, slope) {
        (Elementwise::Prelu, slope) => slope?.as_slice::<T>().map(<[T]>::to_vec),
        (Elementwise::LeakyRelu { slope }, _) => Some(vec![T::from_f64(slope); form.seeds]),
        _ => Some(vec![T::default(); form.seeds]),
    }
}

/// One block of a forward pass.
struct Forward<'a, T> {
    x: Rows<'a, T>,
    weight: Rows<'a, T>,
    bias: Option<&'a [T]>,
    function: (Elementwise, T),
    y: &'a mut [T],
    /// Empty where the value is kept.
    kept: &'a mut [T],
}

fn forward<T: Vectorized>(
    x: &Primitive,
    weight: &Primitive,
    bias: Option<&Primitive>,
    slope: Option<&Primitive>,
    form: DenseForm,
) -> Option<(Primitive, Primitive)> {
    let (x, weight) = (contiguous(x), contiguous(weight));
    let (rows, inputs, units) = (x.shape()[0], x.shape()[1], weight.shape()[1]);
    let (batch, seeds) = (rows / form.seeds, form.seeds);
    let (x, weight) = (x.as_slice::<T>()?, weight.as_slice::<T>()?);
    let bias = match bias {
        Some(bias) => Some(bias.as_slice::<T>()?),
        None => None,
    };
    if inputs == 0 || units == 0 || batch == 0 {
        return None;
    }
    let slopes = slopes::<T>(slope, form)?;
    let mut y = pool::take::<T>(rows * units);
    let mut kept = pool::take::<T>(if form.function.keeps_value() { 0 } else { y.len() });
    let mut rest = &mut kept[..];
    let mut blocks = Vec::with_capacity(seeds);
    for (seed, y) in y.chunks_exact_mut(batch * units).enumerate() {
        let (kept, after) = rest.split_at_mut(if rest.is_empty() { 0 } else { y.len() });
        rest = after;
        blocks.push(Forward {
            x: block(x, seed, batch, inputs),
            weight: block(weight, seed, inputs, units),
            bias: bias.map(|bias| &bias[seed * units..][..units]),
            function: (form.function, slopes[seed]),
            y,
            kept,
        });
    }
    team::each(blocks, forward_block);
    let y = tensor(y, [rows, units]);
    let kept = if form.function.keeps_value() { y.clone() } else { tensor(kept, [rows, units]) };
    Some((y, kept))
}

fn forward_block<T: Vectorized>(block: Forward<'_, T>) {
    let Forward { x, weight, bias, function, y, kept } = block;
    let (inputs, units) = (x.columns, weight.columns);
    let is_small = x.elements.len() * units < SMALL;
    let mut panels = Panels::new(inputs, units);
    team::each_unless(is_small, panels.parts().collect(), |(columns, panel)| pack(weight, &columns, panel));
    let size = rows_each(x.elements.len() / inputs, is_small) * units;
    let mut kept = kept.chunks_mut(size);
    let pieces = y.chunks_mut(size).zip(x.elements.chunks(size / units * inputs));
    let pieces = pieces.map(|(y, x)| (y, x, kept.next())).collect();
    team::each_unless(is_small, pieces, |(y, x, kept): (&mut [T], &[T], Option<&mut [T]>)| {
        multiply(matrix(x, inputs), &panels, y);
        activate(function, bias, y, units, kept);
    });
}

/// Rows of a product that a thread takes at a time: as many as are its share, so that it goes through the panels once. Every row is
/// computed by itself, so that their number decides nothing.
fn rows_each(rows: usize, is_small: bool) -> usize {
    if is_small { rows } else { rows.div_ceil(team::threads()).next_multiple_of(8) }
}

/// One block of a backward pass; what is not wanted is empty.
struct Backward<'a, T> {
    x: Rows<'a, T>,
    weight: Rows<'a, T>,
    function: (Elementwise, T),
    kept: &'a [T],
    /// With respect to the value, and then to z.
    gradient: &'a mut [T],
    of_x: &'a mut [T],
    of_weight: &'a mut [T],
    of_bias: &'a mut [T],
    of_slope: &'a mut [T],
}

fn backward<T: Vectorized>(
    x: &Primitive,
    weight: &Primitive,
    slope: Option<&Primitive>,
    kept: &Primitive,
    gradient: Primitive,
    form: DenseForm,
    wanted: WantedOfDense,
) -> Result<Vec<Primitive>, Primitive> {
    let (x, weight) = (contiguous(x), contiguous(weight));
    let (rows, inputs, units) = (x.shape()[0], x.shape()[1], weight.shape()[1]);
    let (batch, seeds) = (rows / form.seeds, form.seeds);
    let elements = (x.as_slice::<T>(), weight.as_slice::<T>(), kept.as_slice::<T>(), slopes::<T>(slope, form));
    let (Some(x), Some(weight), Some(kept), Some(slopes)) = elements else {
        return Err(gradient);
    };
    if inputs == 0 || units == 0 || batch == 0 {
        return Err(gradient);
    }
    // In place where nobody else looks at the gradient.
    let mut gradient = owned::<T>(gradient);
    let mut of_x = pool::take::<T>(if wanted.of_x { rows * inputs } else { 0 });
    let mut of_weight = pool::take::<T>(if wanted.of_weight { seeds * inputs * units } else { 0 });
    let mut of_bias = vec![T::default(); seeds * units];
    let mut of_slope = vec![T::default(); seeds];
    let mut of_x_parts = of_x.chunks_exact_mut(batch * inputs);
    let mut of_weight_parts = of_weight.chunks_exact_mut(inputs * units);
    let parts = gradient.storage_mut::<T>().chunks_exact_mut(batch * units);
    let parts = parts.zip(of_bias.chunks_exact_mut(units).zip(of_slope.chunks_exact_mut(1))).enumerate();
    let blocks = parts.map(|(seed, (gradient, (of_bias, of_slope)))| Backward {
        x: block(x, seed, batch, inputs),
        weight: block(weight, seed, inputs, units),
        function: (form.function, slopes[seed]),
        kept: block(kept, seed, batch, units).elements,
        gradient,
        of_x: of_x_parts.next().unwrap_or_default(),
        of_weight: of_weight_parts.next().unwrap_or_default(),
        of_bias,
        of_slope,
    });
    team::each(blocks.collect(), backward_block);
    let of_z = if wanted.of_z {
        Some(gradient)
    } else {
        pool::recycle::<T>(gradient);
        None
    };
    let found = [
        of_z,
        wanted.of_x.then(|| tensor(of_x, [rows, inputs])),
        wanted.of_weight.then(|| tensor(of_weight, [seeds * inputs, units])),
        wanted.of_bias.then(|| tensor(of_bias, [seeds * units])),
        wanted.of_slope.then(|| tensor(of_slope, [seeds])),
    ];
    Ok(found.into_iter().flatten().collect())
}

/// Both kinds of pieces in turn, so that every thread begins with as many of each.
fn shared<T>(first: Vec<T>, second: Vec<T>) -> Vec<T> {
    let threads = team::threads();
    let (of_first, of_second) = (first.len().div_ceil(threads), second.len().div_ceil(threads));
    let (mut first, mut second) = (first.into_iter(), second.into_iter());
    let share = |_| first.by_ref().take(of_first).chain(second.by_ref().take(of_second)).collect::<Vec<T>>();
    (0..threads).flat_map(share).collect()
}

/// A piece of work of the first half of a backward pass.
enum First<'a, T> {
    /// The derivative of some rows, and where their sums go.
    Derivative { kept: &'a [T], gradient: &'a mut [T], sums: &'a mut [T] },
    /// The panel of some rows of the weights, which are columns of the transpose.
    Pack { columns: Range<usize>, panel: &'a mut [T] },
}

/// A piece of work of the second half.
enum Second<'a, T> {
    /// Some rows of the gradient with respect to the weights.
    OfWeight { inputs: Range<usize>, out: &'a mut [T] },
    /// Some rows of the gradient with respect to x.
    OfX { gradient: &'a [T], out: &'a mut [T] },
}

fn backward_block<T: Vectorized>(block: Backward<'_, T>) {
    let Backward { x, weight, function, kept, gradient, of_x, of_weight, of_bias, of_slope } = block;
    let (inputs, units) = (x.columns, weight.columns);
    let is_small = x.elements.len() * units < SMALL;
    let wants_x = !of_x.is_empty();

    // The last two numbers of a piece are its largest gradient and its part of the slope's gradient.
    let pieces = gradient.len().div_ceil(ROWS * units);
    let mut sums = vec![T::default(); pieces * (units + 2)];
    let mut panels = Panels::new(if wants_x { units } else { 0 }, if wants_x { inputs } else { 0 });
    let packing = panels.parts().map(|(columns, panel)| First::Pack { columns, panel });
    let rows = kept.chunks(ROWS * units).zip(gradient.chunks_mut(ROWS * units)).zip(sums.chunks_exact_mut(units + 2));
    let rows = rows.map(|((kept, gradient), sums)| First::Derivative { kept, gradient, sums });
    team::each_unless(is_small, rows.chain(packing).collect(), |work| match work {
        First::Derivative { kept, gradient, sums } => {
            let totals = differentiate(function, kept, gradient, &mut sums[..units]);
            (sums[units], sums[units + 1]) = (totals.largest, totals.of_slope);
        }
        First::Pack { columns, panel } => pack_transposed(weight, &columns, panel),
    });
    for sums in sums.chunks_exact(units + 2) {
        T::add_to(&sums[..units], of_bias);
        of_slope[0] += sums[units + 1];
    }
    let largest =
        sums.chunks_exact(units + 2).map(|sums| sums[units]).fold(T::default(), |a, b| if b > a { b } else { a });

    let (limit, factor) = T::TINY;
    let is_tiny = largest > T::default() && largest < limit;
    let mut scaled = pool::take::<T>(if is_tiny { gradient.len() } else { 0 });
    if is_tiny {
        scaled.copy_from_slice(gradient);
        T::scale(factor, &mut scaled);
    }
    let gradient: &[T] = if is_tiny { &scaled } else { gradient };
    let settle = |out: &mut [T]| {
        if is_tiny {
            T::scale(T::from_f64(1.0) / factor, out);
        }
    };
    let share = inputs.div_ceil(if is_small { 1 } else { 2 * team::threads() }).next_multiple_of(8);
    let of_weight = of_weight.chunks_mut(share * units).enumerate().map(|(number, out)| {
        let first = number * share;
        Second::OfWeight { inputs: first..first + out.len() / units, out }
    });
    let size = rows_each(gradient.len() / units, is_small);
    let of_x = gradient.chunks(size * units).zip(of_x.chunks_mut(size * inputs));
    let of_x = of_x.map(|(gradient, out)| Second::OfX { gradient, out });
    team::each_unless(is_small, shared(of_weight.collect(), of_x.collect()), |work| match work {
        Second::OfWeight { inputs, out } => {
            multiply_transposed(x, inputs, matrix(gradient, units), out);
            settle(out);
        }
        Second::OfX { gradient, out } => {
            multiply(matrix(gradient, units), &panels, out);
            settle(out);
        }
    });
    pool::give(scaled);
}
