//! A dense layer on the CPU: bias and function on rows of the product that are still in the cache, and the products of the backward
//! pass side by side.

use std::ops::Range;

use burn::backend::tensor::FloatTensor;
use burn::backend::{Flex, TensorMetadata};
use burn::tensor::DType;

use super::dense::{DenseForm, Elementwise, WantedOfDense};
use super::digits::WithDigits;
use super::elementwise::{Vectorized, activate, differentiate, fixed_slope};
use super::flex_layer::{contiguous, owned, tensor};
use super::matrix::{Rows, multiply, multiply_by_transpose, multiply_transposed, panel_width};
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

fn matrix<T: Vectorized>(elements: &[T], columns: usize) -> Rows<'_, T> {
    Rows { elements, columns }
}

/// So many rows of a seed, of a matrix that has as many of each.
fn block<T: Vectorized>(elements: &[T], seed: usize, rows: usize, columns: usize) -> Rows<'_, T> {
    matrix(&elements[seed * rows * columns..][..rows * columns], columns)
}

/// The slope below 0 of each block: a number of the function, or learned.
fn slopes<T: Vectorized>(slope: Option<&Primitive>, form: DenseForm) -> Option<Vec<T>> {
    match form.function {
        Elementwise::Prelu => slope?.as_slice::<T>().map(<[T]>::to_vec),
        function => Some(vec![fixed_slope(function); form.seeds]),
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
    let units = weight.columns;
    let is_small = x.elements.len() * units < SMALL;
    let shares = shares::<T>(x.count(), units, is_small);
    let mut kept = cut(kept, units, &shares).into_iter();
    let pieces =
        shares.iter().zip(cut(y, units, &shares)).map(|(share, y)| (share, y, kept.next().unwrap_or_default()));
    team::each_unless(is_small, pieces.collect(), |(share, mut y, kept): (&Share, Vec<&mut [T]>, Vec<&mut [T]>)| {
        multiply(x.some(&share.rows), weight, &share.columns, &mut y);
        let bias = bias.map(|bias| &bias[share.columns.clone()]);
        let mut kept = kept.into_iter();
        y.into_iter().for_each(|row| activate(function, bias, row, share.columns.len(), kept.next()));
    });
}

/// What a thread takes of a product.
struct Share {
    rows: Range<usize>,
    columns: Range<usize>,
}

/// Some columns for each thread, whole panels, so that everybody packs other weights; of a narrow product some rows, because to pack
/// twice costs less there than rows in pieces. Every element is computed by itself, so that it decides nothing.
fn shares<T: Vectorized>(rows: usize, columns: usize, is_small: bool) -> Vec<Share> {
    let threads = if is_small { 1 } else { team::threads() };
    let width = panel_width::<T>();
    if columns < 2 * width * threads {
        let size = rows.div_ceil(threads).next_multiple_of(8);
        let first = (0..rows).step_by(size);
        first.map(|first| Share { rows: first..rows.min(first + size), columns: 0..columns }).collect()
    } else {
        let size = columns.div_ceil(threads).next_multiple_of(width);
        let first = (0..columns).step_by(size);
        first.map(|first| Share { rows: 0..rows, columns: first..columns.min(first + size) }).collect()
    }
}

/// Cuts a matrix into the rows of each share; nothing of an empty matrix.
fn cut<'a, T>(matrix: &'a mut [T], columns: usize, shares: &[Share]) -> Vec<Vec<&'a mut [T]>> {
    if matrix.is_empty() {
        return Vec::new();
    }
    let mut parts: Vec<Vec<&'a mut [T]>> = shares.iter().map(|share| Vec::with_capacity(share.rows.len())).collect();
    for (number, mut row) in matrix.chunks_exact_mut(columns).enumerate() {
        for (part, share) in parts.iter_mut().zip(shares) {
            if share.rows.contains(&number) {
                let (now, rest) = row.split_at_mut(share.columns.len());
                part.push(now);
                row = rest;
            }
        }
    }
    parts
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
    // The update gives it back as it does the others.
    let mut of_bias = pool::zeros::<T>(seeds * units);
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

/// A piece of work of the second half of a backward pass.
enum Second<'a, T> {
    /// Some rows of the gradient with respect to the weights.
    OfWeight { inputs: Range<usize>, out: &'a mut [T] },
    /// A part of the gradient with respect to x.
    OfX { share: &'a Share, out: Vec<&'a mut [T]> },
}

fn backward_block<T: Vectorized>(block: Backward<'_, T>) {
    let Backward { x, weight, function, kept, gradient, of_x, of_weight, of_bias, of_slope } = block;
    let (inputs, units) = (x.columns, weight.columns);
    let is_small = x.elements.len() * units < SMALL;

    // The last two numbers of a piece are its largest gradient and its part of the slope's gradient.
    let pieces = gradient.len().div_ceil(ROWS * units);
    let mut sums = vec![T::default(); pieces * (units + 2)];
    let rows = kept.chunks(ROWS * units).zip(gradient.chunks_mut(ROWS * units)).zip(sums.chunks_exact_mut(units + 2));
    team::each_unless(is_small, rows.collect(), |((kept, gradient), sums): ((&[T], &mut [T]), &mut [T])| {
        let totals = differentiate(function, kept, gradient, &mut sums[..units]);
        (sums[units], sums[units + 1]) = (totals.largest, totals.of_slope);
    });
    for sums in sums.chunks_exact(units + 2) {
        T::add_to(&sums[..units], of_bias);
        of_slope[0] += sums[units + 1];
    }
    let largest =
        sums.chunks_exact(units + 2).map(|sums| sums[units]).fold(T::default(), |a, b| if b > a { b } else { a });

    let digits = WithDigits::new(largest, gradient);
    let gradient = digits.numbers();
    let share = inputs.div_ceil(if is_small { 1 } else { team::threads() }).next_multiple_of(8);
    let of_weight = of_weight.chunks_mut(share * units).enumerate().map(|(number, out)| {
        let first = number * share;
        Second::OfWeight { inputs: first..first + out.len() / units, out }
    });
    let shares = shares::<T>(x.count(), inputs, is_small);
    let of_x = shares.iter().zip(cut(of_x, inputs, &shares)).map(|(share, out)| Second::OfX { share, out });
    team::each_unless(is_small, shared(of_weight.collect(), of_x.collect()), |work| match work {
        Second::OfWeight { inputs, out } => {
            multiply_transposed(x, inputs, matrix(gradient, units), out);
            digits.settle(out);
        }
        Second::OfX { share, mut out } => {
            multiply_by_transpose(matrix(gradient, units).some(&share.rows), weight, &share.columns, &mut out);
            out.into_iter().for_each(|out| digits.settle(out));
        }
    });
}
