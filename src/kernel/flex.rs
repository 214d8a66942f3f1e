//! The summaries in one pass on the CPU.
//!
//! Sums run over a fixed number of lanes and a fixed length of chunk, so that the result depends neither on the
//! number of threads nor on the vector instructions of the machine.

use burn::backend::Flex;
use burn::tensor::Tensor;
use multiversion::multiversion;

use super::{FlatParts, Norm, team};

/// Independent partial sums: a vector register of f32 and two of f64, so that none has to be put aside.
const LANES: usize = 8;

/// Elements that are summed up in several ways one after the other, of whole rows.
const BLOCK: usize = 4096;

/// Elements that one task takes; a shorter tensor is summed by one thread.
const CHUNK: usize = 1 << 15;

/// Calls `reader` with the elements of a tensor of the flex backend, row by row; `None` for other backends and for
/// elements that are not f32.
fn with_elements<const D: usize, R>(tensor: &Tensor<D>, reader: impl FnOnce(&[f32]) -> R) -> Option<R> {
    let primitive = tensor.clone().try_into_primitive::<Flex>().ok()?;
    match primitive.as_slice::<f32>() {
        Some(elements) => Some(reader(elements)),
        None => primitive.to_contiguous().as_slice::<f32>().map(reader),
    }
}

/// What is summed up of a piece of a tensor.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sums {
    max_abs: f32,
    square_sum: f64,
    zeros: u64,
    nonfinite: u64,
}

impl Sums {
    /// Those of two pieces together.
    pub(super) fn merge(self, other: Self) -> Self {
        Self {
            max_abs: self.max_abs.max(other.max_abs),
            square_sum: self.square_sum + other.square_sum,
            zeros: self.zeros + other.zeros,
            nonfinite: self.nonfinite + other.nonfinite,
        }
    }

    /// To be read as a [`Norm`].
    pub(super) fn norm(&self) -> [f64; 2] {
        Norm::from_square_sum(self.max_abs, self.square_sum)
    }

    /// To be read as a [`GradientSummary`](super::GradientSummary).
    pub(super) fn gradient_summary(&self) -> [f64; 6] {
        let [max_abs, relative] = self.norm();
        [max_abs, relative, 0.0, self.zeros as f64, 0.0, self.nonfinite as f64]
    }
}

/// Adds up chunks in their order, on all threads if there are several.
fn in_chunks<S: Copy + Send>(
    length: usize,
    sum: impl Fn(std::ops::Range<usize>) -> S + Sync,
    merge: impl Fn(S, S) -> S,
) -> S {
    if length <= CHUNK {
        return sum(0..length);
    }
    let mut parts: Vec<Option<S>> = vec![None; length.div_ceil(CHUNK)];
    team::each(parts.iter_mut().enumerate().collect(), |(chunk, part): (usize, &mut Option<S>)| {
        *part = Some(sum(chunk * CHUNK..length.min((chunk + 1) * CHUNK)));
    });
    let sums = parts.into_iter().flatten();
    sums.reduce(merge).unwrap_or_else(|| sum(0..0))
}

/// The sums over all elements; that of the squares is not finite where one of them is not.
#[multiversion(targets("x86_64+avx512f+avx512vl+avx2+fma", "x86_64+avx2+fma"))]
pub(super) fn fast_sums(elements: &[f32]) -> Sums {
    let mut max_abs = [0.0_f32; LANES];
    let mut square_sum = [0.0_f64; LANES];
    let mut zeros = [0_u32; LANES];
    let (chunks, rest) = elements.as_chunks::<LANES>();
    for chunk in chunks {
        for lane in 0..LANES {
            let magnitude = chunk[lane].abs();
            max_abs[lane] = if magnitude > max_abs[lane] { magnitude } else { max_abs[lane] };
            square_sum[lane] += f64::from(magnitude) * f64::from(magnitude);
            zeros[lane] += u32::from(magnitude == 0.0);
        }
    }
    for (lane, x) in rest.iter().enumerate() {
        max_abs[lane] = max_abs[lane].max(x.abs());
        square_sum[lane] += f64::from(*x) * f64::from(*x);
        zeros[lane] += u32::from(*x == 0.0);
    }
    Sums {
        max_abs: max_abs.into_iter().fold(0.0, f32::max),
        square_sum: square_sum.iter().sum(),
        zeros: zeros.iter().map(|count| u64::from(*count)).sum(),
        nonfinite: 0,
    }
}

/// The sums over the finite elements, and the number of the others.
pub(super) fn finite_sums(elements: &[f32]) -> Sums {
    let sums = fast_sums(elements);
    // Squares of finite f32 cannot overflow an f64, so that the sum tells whether all are finite.
    if sums.square_sum.is_finite() {
        return sums;
    }
    let finite: Vec<f32> = elements.iter().copied().filter(|x| x.is_finite()).collect();
    Sums { nonfinite: (elements.len() - finite.len()) as u64, ..fast_sums(&finite) }
}

/// The norms of `before` and of `after - before`, each as largest element and sum of squares.
#[multiversion(targets("x86_64+avx512f+avx512vl+avx2+fma", "x86_64+avx2+fma"))]
fn update_sums(before: &[f32], after: &[f32]) -> [(f32, f64); 2] {
    let mut weight_max = [0.0_f32; LANES];
    let mut weight_sum = [0.0_f64; LANES];
    let mut update_max = [0.0_f32; LANES];
    let mut update_sum = [0.0_f64; LANES];
    let (chunks_before, rest_before) = before.as_chunks::<LANES>();
    let (chunks_after, rest_after) = after.as_chunks::<LANES>();
    for (before, after) in chunks_before.iter().zip(chunks_after) {
        for lane in 0..LANES {
            let weight = before[lane].abs();
            let update = (after[lane] - before[lane]).abs();
            weight_max[lane] = if weight > weight_max[lane] { weight } else { weight_max[lane] };
            weight_sum[lane] += f64::from(weight) * f64::from(weight);
            update_max[lane] = if update > update_max[lane] { update } else { update_max[lane] };
            update_sum[lane] += f64::from(update) * f64::from(update);
        }
    }
    for (lane, (before, after)) in rest_before.iter().zip(rest_after).enumerate() {
        let update = after - before;
        weight_max[lane] = weight_max[lane].max(before.abs());
        weight_sum[lane] += f64::from(*before) * f64::from(*before);
        update_max[lane] = update_max[lane].max(update.abs());
        update_sum[lane] += f64::from(update) * f64::from(update);
    }
    let largest = |lanes: [f32; LANES]| lanes.into_iter().fold(0.0, f32::max);
    [(largest(weight_max), weight_sum.iter().sum()), (largest(update_max), update_sum.iter().sum())]
}

#[multiversion(targets("x86_64+avx512f+avx512vl+avx2+fma", "x86_64+avx2+fma"))]
fn add_rows(elements: &[f32], columns: usize, sums: &mut [f64]) {
    for row in elements.chunks_exact(columns) {
        for (sum, x) in sums.iter_mut().zip(row) {
            *sum += f64::from(*x);
        }
    }
}

/// Sum, sum of squares, saturated count; and for each unit the largest absolute activation.
#[allow(clippy::needless_bitwise_bool)] // A branch would keep the compiler from using vector instructions.
#[multiversion(targets("x86_64+avx512f+avx512vl+avx2+fma", "x86_64+avx2+fma"))]
fn activation_sums(elements: &[f32], flat: FlatParts, largest: &mut [f32]) -> (f64, f64, u64) {
    let mut sum = [0.0_f64; LANES];
    let mut square_sum = [0.0_f64; LANES];
    let mut saturated = [0_u32; LANES];
    for row in elements.chunks_exact(largest.len()) {
        for (largest, x) in largest.iter_mut().zip(row) {
            // Written so that NaN counts as alive.
            *largest = if x.abs() <= *largest { *largest } else { x.abs() };
        }
    }
    let (chunks, rest) = elements.as_chunks::<LANES>();
    for chunk in chunks {
        for lane in 0..LANES {
            let x = chunk[lane];
            sum[lane] += f64::from(x);
            square_sum[lane] += f64::from(x) * f64::from(x);
            saturated[lane] += u32::from((x <= flat.low) | (x >= flat.high));
        }
    }
    for (lane, x) in rest.iter().enumerate() {
        sum[lane] += f64::from(*x);
        square_sum[lane] += f64::from(*x) * f64::from(*x);
        saturated[lane] += u32::from((*x <= flat.low) | (*x >= flat.high));
    }
    (sum.iter().sum(), square_sum.iter().sum(), saturated.iter().map(|count| u64::from(*count)).sum())
}

pub fn gradient_summary(gradient: &Tensor<1>) -> Option<Vec<f64>> {
    with_elements(gradient, |elements| {
        let sums = in_chunks(elements.len(), |range| finite_sums(&elements[range]), Sums::merge);
        sums.gradient_summary().to_vec()
    })
}

pub fn block_norms(x: &Tensor<2>, blocks: usize) -> Option<Vec<f64>> {
    with_elements(x, |elements| {
        let norm = |block: &[f32]| {
            let sums = finite_sums(block);
            let not_finite = if sums.nonfinite > 0 { f64::NAN } else { 0.0 };
            let [max_abs, relative] = sums.norm();
            [max_abs, relative + not_finite]
        };
        elements.chunks_exact(elements.len() / blocks).flat_map(norm).collect()
    })
}

pub fn update_summary((before, after): &(Tensor<1>, Tensor<1>)) -> Option<Vec<f64>> {
    with_elements(before, |before| {
        with_elements(after, |after| {
            let sums = in_chunks(
                before.len(),
                |range| update_sums(&before[range.clone()], &after[range]),
                |a, b| [0, 1].map(|kind: usize| (a[kind].0.max(b[kind].0), a[kind].1 + b[kind].1)),
            );
            sums.iter().flat_map(|(max_abs, square_sum)| Norm::from_square_sum(*max_abs, *square_sum)).collect()
        })
    })?
}

pub fn delta_summary(delta: &Tensor<2>) -> Option<Vec<f64>> {
    let [_, units] = delta.dims();
    with_elements(delta, |elements| {
        let mut batch_sum = vec![0.0_f64; units];
        let mut sums = Sums::default();
        // Both sums of some rows, while they are in the cache.
        for rows in elements.chunks((BLOCK / units.max(1)).max(1) * units.max(1)) {
            add_rows(rows, units, &mut batch_sum);
            sums = sums.merge(finite_sums(rows));
        }
        let not_finite = if sums.nonfinite > 0 { f64::NAN } else { 0.0 };
        let [max_abs, relative] = sums.norm();
        let largest = batch_sum.iter().fold(0.0_f64, |largest, x| largest.max(x.abs()));
        let divisor = if largest > 0.0 { largest } else { 1.0 };
        let batch_relative: f64 = batch_sum.iter().map(|x| (x / divisor).powi(2)).sum();
        vec![max_abs, relative + not_finite, largest, batch_relative]
    })
}

pub fn activation_summary(activation: &Tensor<2>, flat: FlatParts) -> Option<Vec<f64>> {
    let [_, units] = activation.dims();
    with_elements(activation, |elements| {
        let mut largest = vec![0.0_f32; units];
        let (mut sum, mut square_sum, mut saturated) = (0.0, 0.0, 0);
        for rows in elements.chunks((BLOCK / units.max(1)).max(1) * units.max(1)) {
            let part = activation_sums(rows, flat, &mut largest);
            (sum, square_sum, saturated) = (sum + part.0, square_sum + part.1, saturated + part.2);
        }
        let count = elements.len() as f64;
        let mean = sum / count;
        let variance = (square_sum / count - mean * mean).max(0.0);
        let dead = largest.iter().filter(|x| **x == 0.0).count();
        vec![mean, variance.sqrt(), saturated as f64 / count, dead as f64 / units as f64]
    })
}
