//! Activation functions, batch norm and layer norm on the CPU, without tensors in between.
//!
//! Rows are examples, so that the inner loops run over units, which lie side by side. What is summed up over rows is taken of pieces of so
//! many of them and put together in their order: it does not depend on the number of threads.

// A function that is not inlined into one with a target feature does without it.
#![allow(clippy::inline_always)]

use burn::backend::tensor::FloatTensor;
use burn::backend::{Flex, TensorMetadata};
use burn::tensor::{DType, TensorData};
use multiversion::multiversion;

use super::Activated;
use super::elementwise::Vectorized;
use super::flex_rows::{Rows, normalize_rows, normalize_rows_backward};
use super::layer::{NormAxis, NormForm};
use super::number::Number;
use super::{pool, team};
use crate::config::Kernels;

type Primitive = FloatTensor<Flex>;

/// Rows that are taken at a time.
pub(super) const ROWS: usize = 32;

/// Numbers that are taken at a time where rows do not matter.
const PIECE: usize = 8192;

/// The same tensor, row by row.
pub(super) fn contiguous(x: &Primitive) -> Primitive {
    if x.is_contiguous() { x.clone() } else { x.to_contiguous() }
}

/// The same numbers row by row in a buffer that holds nothing else, to be written to. A view of a part of a tensor is contiguous too, but
/// its buffer is that of the whole.
pub(super) fn owned<T: Number>(x: Primitive) -> Primitive {
    let is_whole = x.is_contiguous()
        && x.layout().start_offset() == 0
        && x.bytes().len() == x.shape().num_elements() * size_of::<T>();
    if is_whole {
        return x;
    }
    let x = x.to_contiguous();
    let numbers = x.as_slice::<T>().map(<[T]>::to_vec);
    numbers.map_or_else(|| x.clone(), |numbers| Primitive::from_data(TensorData::new(numbers, x.shape())))
}

/// A tensor of numbers that stand row by row.
pub(super) fn tensor<T: Number, const D: usize>(values: Vec<T>, shape: [usize; D]) -> Primitive {
    Primitive::from_data(TensorData::new(values, shape))
}

/// Does `work` on pieces of so many numbers, on all threads if there are several.
fn in_pieces<T: Send>(numbers: &mut [T], size: usize, work: impl Fn(usize, &mut [T]) + Sync) {
    team::each(numbers.chunks_mut(size).enumerate().collect(), |(piece, numbers)| work(piece, numbers));
}

/// `phi(z)`, in place where nobody else looks at z; `Err` gives it back where the stock form must do it. The same below.
pub fn activated(z: Primitive, function: Activated, kernels: Kernels) -> Result<Primitive, Primitive> {
    match z.dtype() {
        _ if kernels == Kernels::Stock => Err(z),
        DType::F32 => Ok(apply::<f32>(z, function)),
        DType::F64 => Ok(apply::<f64>(z, function)),
        _ => Err(z),
    }
}

fn apply<T: Vectorized>(z: Primitive, function: Activated) -> Primitive {
    let mut z = owned::<T>(z);
    let work = |_, numbers: &mut [T]| T::apply(function.into(), T::default(), numbers);
    in_pieces(z.storage_mut::<T>(), PIECE, work);
    z
}

/// `gradient x phi'(z)`, from `y = phi(z)`.
pub fn activated_backward(
    y: &Primitive,
    gradient: Primitive,
    function: Activated,
    kernels: Kernels,
) -> Result<Primitive, Primitive> {
    match gradient.dtype() {
        _ if kernels == Kernels::Stock => Err(gradient),
        DType::F32 => Ok(derive::<f32>(y, gradient, function)),
        DType::F64 => Ok(derive::<f64>(y, gradient, function)),
        _ => Err(gradient),
    }
}

fn derive<T: Vectorized>(y: &Primitive, gradient: Primitive, function: Activated) -> Primitive {
    let y = owned::<T>(y.clone());
    let y: &[T] = y.storage();
    let mut gradient = owned::<T>(gradient);
    in_pieces(gradient.storage_mut::<T>(), PIECE, |piece, gradients| {
        T::derive(function.into(), T::default(), &y[piece * PIECE..][..gradients.len()], gradients);
    });
    gradient
}

/// A normalization of a matrix, for which there is a fused form.
struct Shape {
    axis: NormAxis,
    seeds: usize,
    /// Rows of each seed.
    rows: usize,
    units: usize,
}

impl Shape {
    fn of(x: &Primitive, axes: &[usize], form: NormForm) -> Option<Self> {
        let shape = x.shape();
        let axis = NormAxis::of_matrix(axes)?;
        let is_fused = form.kernels == Kernels::Fused && shape.num_dims() == 2;
        let dims = is_fused.then(|| [shape[0], shape[1]]).filter(|dims| !dims.contains(&0));
        dims.map(|[rows, units]| Self { axis, seeds: form.seeds, rows: rows / form.seeds, units })
    }

    /// Pieces of the rows of a seed.
    fn pieces(&self) -> usize {
        self.rows.div_ceil(ROWS)
    }

    /// The rows of each piece of each seed, as numbers, with the number of its seed.
    fn cut<'a, T>(&self, numbers: &'a [T]) -> impl Iterator<Item = (usize, &'a [T])> {
        let size = ROWS * self.units;
        let blocks = numbers.chunks_exact(self.rows * self.units).enumerate();
        blocks.flat_map(move |(seed, block)| block.chunks(size).map(move |piece| (seed, piece)))
    }

    /// The same to be written.
    fn cut_mut<'a, T>(&self, numbers: &'a mut [T]) -> impl Iterator<Item = (usize, &'a mut [T])> {
        let size = ROWS * self.units;
        let blocks = numbers.chunks_exact_mut(self.rows * self.units).enumerate();
        blocks.flat_map(move |(seed, block)| block.chunks_mut(size).map(move |piece| (seed, piece)))
    }

    /// The numbers of the units of a seed.
    fn of_seed<'a, T>(&self, numbers: &'a [T], seed: usize) -> &'a [T] {
        &numbers[seed * self.units..][..self.units]
    }

    /// Does `work` on pieces, on this thread alone if there is little to do.
    fn each<I: Send>(&self, items: Vec<I>, work: impl Fn(I) + Sync) {
        team::each_unless(self.seeds * self.rows * self.units < PIECE, items, work);
    }
}

/// Mean and variance of every column.
fn column_moments<T: Columns>(x: &[T], shape: &Shape) -> [Vec<T>; 2] {
    let Shape { seeds, rows, units, .. } = *shape;
    // Mean and sum of squared distances from it, of every piece.
    let mut parts = vec![T::default(); seeds * shape.pieces() * 2 * units];
    let work = shape.cut(x).zip(parts.chunks_exact_mut(2 * units));
    shape.each(work.collect(), |((_, piece), part)| {
        let (mean, squares) = part.split_at_mut(units);
        T::moments(piece, mean, squares);
    });
    let (mut mean, mut variance) = (vec![T::default(); seeds * units], vec![T::default(); seeds * units]);
    let outputs = mean.chunks_exact_mut(units).zip(variance.chunks_exact_mut(units));
    for (parts, (mean, variance)) in parts.chunks_exact(shape.pieces() * 2 * units).zip(outputs) {
        merge_moments(parts.chunks_exact(2 * units), rows, mean, variance);
    }
    [mean, variance]
}

/// The moments of so many rows from those of pieces, [`ROWS`] of them each but the last one, in their order.
pub(super) fn merge_moments<'a, T: Columns>(
    parts: impl Iterator<Item = &'a [T]>,
    rows: usize,
    mean: &mut [T],
    variance: &mut [T],
) {
    let mut before = 0;
    for part in parts {
        let count = ROWS.min(rows - before);
        T::merge(part, mean, variance, (before, count));
        before += count;
    }
    variance.iter_mut().for_each(|sum| *sum = *sum / T::from_f64(rows as f64));
}

/// `phi(gamma (x - mean) / deviation + beta)` of x, gamma and beta, the mean and the variance; `None` where the stock form must do it.
pub fn normalized(
    tensors: [&Primitive; 3],
    axes: &[usize],
    form: NormForm,
) -> Option<(Primitive, Primitive, Primitive)> {
    let shape = Shape::of(tensors[0], axes, form)?;
    match tensors[0].dtype() {
        DType::F32 => normalize::<f32>(tensors, &shape, form),
        DType::F64 => normalize::<f64>(tensors, &shape, form),
        _ => None,
    }
}

fn normalize<T: Columns>(
    [x, gamma, beta]: [&Primitive; 3],
    shape: &Shape,
    form: NormForm,
) -> Option<(Primitive, Primitive, Primitive)> {
    let x = contiguous(x);
    let x = x.as_slice::<T>()?;
    let [gamma, beta] = [gamma.as_slice::<T>()?, beta.as_slice::<T>()?];
    let epsilon = T::from_f64(form.epsilon);
    let mut output = pool::take::<T>(x.len());
    let work = shape.cut(x).zip(shape.cut_mut(&mut output));
    let ([mean, variance], dims) = match shape.axis {
        NormAxis::Batch => {
            let [mean, variance] = column_moments(x, shape);
            let deviation = |variance: &T| (*variance + epsilon).sqrt();
            let factor = gamma.iter().zip(&variance).map(|(gamma, variance)| *gamma / deviation(variance));
            let factor: Vec<T> = factor.collect();
            shape.each(work.collect(), |((seed, rows), (_, output))| {
                let [mean, factor, beta] = [&mean, &factor, beta].map(|numbers| shape.of_seed(numbers, seed));
                T::scale_rows(rows, [mean, factor, beta], output);
                if let Some(function) = form.function {
                    T::apply(function.into(), T::default(), output);
                }
            });
            ([mean, variance], [shape.seeds, shape.units])
        }
        NormAxis::Units => {
            let mut moments = vec![[T::default(); 2]; shape.seeds * shape.rows];
            let of_pieces = moments.chunks_exact_mut(shape.rows).flat_map(|moments| moments.chunks_mut(ROWS));
            shape.each(work.zip(of_pieces).collect(), |(((seed, rows), (_, output)), moments)| {
                let vectors = [gamma, beta].map(|numbers| shape.of_seed(numbers, seed));
                normalize_rows(rows, vectors, (epsilon, form.function), moments, output);
            });
            let moment = |place: usize| moments.iter().map(|moments| moments[place]).collect();
            ([moment(0), moment(1)], [shape.seeds * shape.rows, 1])
        }
    };
    Some((tensor(output, [shape.seeds * shape.rows, shape.units]), tensor(mean, dims), tensor(variance, dims)))
}

/// The gradients with respect to x, gamma and beta; `Err` gives the gradient back where the stock form must do it.
pub fn normalized_backward(
    tensors: [&Primitive; 5],
    gradient: Primitive,
    axes: &[usize],
    form: NormForm,
) -> Result<(Primitive, Primitive, Primitive), Primitive> {
    match (Shape::of(tensors[0], axes, form), gradient.dtype()) {
        (Some(shape), DType::F32) => input_gradients::<f32>(tensors, gradient, &shape, form),
        (Some(shape), DType::F64) => input_gradients::<f64>(tensors, gradient, &shape, form),
        _ => Err(gradient),
    }
}

fn input_gradients<T: Columns>(
    [x, gamma, mean, variance, y]: [&Primitive; 5],
    gradient: Primitive,
    shape: &Shape,
    form: NormForm,
) -> Result<(Primitive, Primitive, Primitive), Primitive> {
    let (x, y) = (contiguous(x), contiguous(y));
    let numbers = [&x, &y, gamma, mean, variance].map(|tensor| tensor.as_slice::<T>());
    let [Some(x), Some(y), Some(gamma), Some(mean), Some(variance)] = numbers else {
        return Err(gradient);
    };
    let Shape { axis, seeds, rows, units } = *shape;
    let mut gradient = owned::<T>(gradient);
    let epsilon = T::from_f64(form.epsilon);
    // The gradients with respect to gamma and beta, of every piece.
    let mut parts = vec![T::default(); seeds * shape.pieces() * 2 * units];
    let elements: &mut [T] = gradient.storage_mut();
    let pieces = shape.cut(x).zip(shape.cut(y)).zip(shape.cut_mut(elements)).zip(parts.chunks_exact_mut(2 * units));
    let mut inverse = Vec::new();
    match axis {
        NormAxis::Batch => {
            inverse.extend(variance.iter().map(|variance| T::from_f64(1.0) / (*variance + epsilon).sqrt()));
            shape.each(pieces.collect(), |((((seed, x), (_, y)), (_, gradient)), part)| {
                if let Some(function) = form.function {
                    T::derive(function.into(), T::default(), y, gradient);
                }
                let [mean, inverse] = [mean, &inverse].map(|numbers| shape.of_seed(numbers, seed));
                let (of_gamma, of_beta) = part.split_at_mut(units);
                T::sum_gradients([x, gradient], [mean, inverse], of_gamma, of_beta);
            });
        }
        NormAxis::Units => {
            let moments: Vec<[T; 2]> = mean.iter().zip(variance).map(|(mean, variance)| [*mean, *variance]).collect();
            let of_pieces = moments.chunks_exact(rows).flat_map(|moments| moments.chunks(ROWS));
            let work = pieces.zip(of_pieces);
            shape.each(work.collect(), |(((((seed, x), (_, y)), (_, gradient)), part), moments)| {
                let gamma = shape.of_seed(gamma, seed);
                normalize_rows_backward([x, y], gamma, (epsilon, form.function), moments, gradient, part);
            });
        }
    }
    let (mut of_gamma, mut of_beta) = (pool::zeros::<T>(seeds * units), pool::zeros::<T>(seeds * units));
    let sums = of_gamma.chunks_exact_mut(units).zip(of_beta.chunks_exact_mut(units));
    for (parts, (of_gamma, of_beta)) in parts.chunks_exact(shape.pieces() * 2 * units).zip(sums) {
        merge_gradients(parts, of_gamma, of_beta);
    }
    if axis == NormAxis::Batch {
        let [factor, offset, slope] = derivative(rows, [gamma, &inverse, &of_gamma, &of_beta]);
        let work = shape.cut(x).zip(shape.cut_mut(gradient.storage_mut::<T>()));
        shape.each(work.collect(), |((seed, x), (_, gradient))| {
            let columns = [mean, &factor, &offset, &slope].map(|numbers| shape.of_seed(numbers, seed));
            T::differentiate_rows(x, columns, gradient);
        });
    }
    Ok((gradient, tensor(of_gamma, [seeds * units]), tensor(of_beta, [seeds * units])))
}

/// Adds up the gradients with respect to gamma and beta of all pieces, in their order.
pub(super) fn merge_gradients<T: Columns>(parts: &[T], of_gamma: &mut [T], of_beta: &mut [T]) {
    for part in parts.chunks_exact(2 * of_gamma.len()) {
        let (gamma, beta) = part.split_at(of_gamma.len());
        T::add_to(gamma, of_gamma);
        T::add_to(beta, of_beta);
    }
}

/// The gradient with respect to the input of batch norm over so many rows is `gradient x factor - offset - (x - mean) x slope`: these
/// three, from gamma, the inverse of the deviation and the gradients with respect to gamma and beta.
pub(super) fn derivative<T: Columns>(rows: usize, [gamma, inverse, of_gamma, of_beta]: [&[T]; 4]) -> [Vec<T>; 3] {
    let share = T::from_f64(1.0 / rows as f64);
    let factor: Vec<T> = gamma.iter().zip(inverse).map(|(gamma, inverse)| *gamma * *inverse).collect();
    let offset = factor.iter().zip(of_beta).map(|(factor, sum)| *factor * *sum * share).collect();
    let slope = |(place, factor): (usize, &T)| *factor * of_gamma[place] * share * inverse[place];
    let slope = factor.iter().enumerate().map(slope).collect();
    [factor, offset, slope]
}

/// A number with loops over rows in vector instructions.
pub(super) trait Columns: Rows {
    /// The mean of each column and the sum of squared distances from it.
    fn moments(rows: &[Self], mean: &mut [Self], squares: &mut [Self]);
    /// Takes the moments of `count` more rows into those of so many before (Chan, Golub and `LeVeque` 1979).
    fn merge(part: &[Self], mean: &mut [Self], squares: &mut [Self], rows: (usize, usize));
    /// (x - mean) factor + beta
    fn scale_rows(rows: &[Self], columns: [&[Self]; 3], output: &mut [Self]);
    /// Adds the gradients with respect to gamma and beta.
    fn sum_gradients(rows: [&[Self]; 2], columns: [&[Self]; 2], of_gamma: &mut [Self], of_beta: &mut [Self]);
    /// gradient factor - offset - (x - mean) slope
    fn differentiate_rows(rows: &[Self], columns: [&[Self]; 4], gradient: &mut [Self]);
    /// shortcut + scale x
    fn add_scaled(shortcut: &[Self], x: &[Self], scale: Self, output: &mut [Self]);
}

macro_rules! columns {
    ($number:ty, $moments:ident, $merge:ident, $scale:ident, $sum:ident, $differentiate:ident, $add_scaled:ident) => {
        impl Columns for $number {
            fn moments(rows: &[Self], mean: &mut [Self], squares: &mut [Self]) {
                $moments(rows, mean, squares);
            }

            fn merge(part: &[Self], mean: &mut [Self], squares: &mut [Self], rows: (usize, usize)) {
                $merge(part, mean, squares, rows);
            }

            fn scale_rows(rows: &[Self], columns: [&[Self]; 3], output: &mut [Self]) {
                $scale(rows, columns, output);
            }

            fn sum_gradients(rows: [&[Self]; 2], columns: [&[Self]; 2], of_gamma: &mut [Self], of_beta: &mut [Self]) {
                $sum(rows, columns, of_gamma, of_beta);
            }

            fn differentiate_rows(rows: &[Self], columns: [&[Self]; 4], gradient: &mut [Self]) {
                $differentiate(rows, columns, gradient);
            }

            fn add_scaled(shortcut: &[Self], x: &[Self], scale: Self, output: &mut [Self]) {
                $add_scaled(shortcut, x, scale, output);
            }
        }

        #[multiversion(targets("x86_64+avx512f+avx512vl+avx2+fma", "x86_64+avx2+fma"))]
        fn $add_scaled(shortcut: &[$number], x: &[$number], scale: $number, output: &mut [$number]) {
            for ((output, shortcut), x) in output.iter_mut().zip(shortcut).zip(x) {
                *output = shortcut + x * scale;
            }
        }

        #[multiversion(targets("x86_64+avx512f+avx512vl+avx2+fma", "x86_64+avx2+fma"))]
        fn $moments(rows: &[$number], mean: &mut [$number], squares: &mut [$number]) {
            let share = (rows.len() / mean.len()) as $number;
            for row in rows.chunks_exact(mean.len()) {
                mean.iter_mut().zip(row).for_each(|(sum, x)| *sum += x);
            }
            mean.iter_mut().for_each(|sum| *sum /= share);
            for row in rows.chunks_exact(mean.len()) {
                for ((sum, mean), x) in squares.iter_mut().zip(mean.iter()).zip(row) {
                    *sum += (x - mean) * (x - mean);
                }
            }
        }

        #[multiversion(targets("x86_64+avx512f+avx512vl+avx2+fma", "x86_64+avx2+fma"))]
        fn $merge(part: &[$number], mean: &mut [$number], squares: &mut [$number], (before, count): (usize, usize)) {
            let (new, of_new) = part.split_at(mean.len());
            let share = count as $number / (before + count) as $number;
            let weight = before as $number * share;
            for (((mean, squares), new), of_new) in mean.iter_mut().zip(squares).zip(new).zip(of_new) {
                let distance = new - *mean;
                *mean += distance * share;
                *squares += of_new + distance * distance * weight;
            }
        }

        #[multiversion(targets("x86_64+avx512f+avx512vl+avx2+fma", "x86_64+avx2+fma"))]
        fn $scale(rows: &[$number], [mean, factor, beta]: [&[$number]; 3], output: &mut [$number]) {
            let columns = mean.len();
            for (row, output) in rows.chunks_exact(columns).zip(output.chunks_exact_mut(columns)) {
                let of_units = mean.iter().zip(factor).zip(beta);
                for ((output, x), ((mean, factor), beta)) in output.iter_mut().zip(row).zip(of_units) {
                    *output = (x - mean) * factor + beta;
                }
            }
        }

        #[multiversion(targets("x86_64+avx512f+avx512vl+avx2+fma", "x86_64+avx2+fma"))]
        fn $sum(
            [rows, gradient]: [&[$number]; 2],
            [mean, inverse]: [&[$number]; 2],
            of_gamma: &mut [$number],
            of_beta: &mut [$number],
        ) {
            let columns = mean.len();
            for (row, gradient) in rows.chunks_exact(columns).zip(gradient.chunks_exact(columns)) {
                let sums = of_gamma.iter_mut().zip(of_beta.iter_mut());
                let of_units = mean.iter().zip(inverse);
                for (((of_gamma, of_beta), (x, gradient)), (mean, inverse)) in
                    sums.zip(row.iter().zip(gradient)).zip(of_units)
                {
                    *of_gamma += gradient * ((x - mean) * inverse);
                    *of_beta += gradient;
                }
            }
        }

        #[multiversion(targets("x86_64+avx512f+avx512vl+avx2+fma", "x86_64+avx2+fma"))]
        fn $differentiate(rows: &[$number], [mean, factor, offset, slope]: [&[$number]; 4], gradient: &mut [$number]) {
            let columns = mean.len();
            for (row, gradient) in rows.chunks_exact(columns).zip(gradient.chunks_exact_mut(columns)) {
                let of_units = mean.iter().zip(factor).zip(offset.iter().zip(slope));
                for ((gradient, x), ((mean, factor), (offset, slope))) in gradient.iter_mut().zip(row).zip(of_units) {
                    *gradient = *gradient * factor - offset - (x - mean) * slope;
                }
            }
        }
    };
}

columns!(f32, moments_f32, merge_f32, scale_rows_f32, sum_gradients_f32, differentiate_rows_f32, add_scaled_f32);
columns!(f64, moments_f64, merge_f64, scale_rows_f64, sum_gradients_f64, differentiate_rows_f64, add_scaled_f64);
