//! The summaries in one pass on the CPU.
//!
//! Sums run over a fixed number of lanes and a fixed length of chunk, so that the result depends neither on the
//! number of threads nor on the vector instructions of the machine.
//!
//! A loop leaves its lanes in memory, and another function adds them up: where a loop adds up its lanes itself, the compiler puts
//! different sums of a lane into one vector instead of the lanes of a sum, which takes four times as long.

// A function that is not inlined into one with a target feature does without it.
#![allow(clippy::inline_always)]

use burn::backend::Flex;
use burn::tensor::Tensor;
use multiversion::multiversion;
use multiversion::target::target_cfg_f;

use super::{FlatParts, Norm, pool, team};

/// Independent partial sums: a vector register of f32 and two of f64.
pub(super) const LANES: usize = 16;

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

    /// To be read as a [`GradientSummary`](super::GradientSummary).
    pub(super) fn gradient_summary(&self) -> [f64; 6] {
        let [max_abs, relative] = Norm::relative_to_largest(self.max_abs, self.square_sum);
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

/// The sum and a square. That of an f32 is exact in f64, so that both ways round once: a fused multiplication saves an instruction where
/// there is one.
#[inline(always)]
fn with_square(sum: f64, x: f32, has_fused: bool) -> f64 {
    let x = f64::from(x);
    if has_fused { x.mul_add(x, sum) } else { sum + x * x }
}

/// Adds squares by lanes.
#[inline(always)]
pub(super) fn add_squares_to(sums: &mut [f64; LANES], x: &[f32; LANES], has_fused: bool) {
    for lane in 0..LANES {
        sums[lane] = with_square(sums[lane], x[lane], has_fused);
    }
}

/// Largest absolute element, squares and zeros by lanes.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Lanes {
    max_abs: [f32; LANES],
    square_sum: [f64; LANES],
    zeros: [u32; LANES],
}

impl Lanes {
    #[inline(always)]
    pub(super) fn add(&mut self, x: &[f32; LANES], has_fused: bool) {
        for (largest, x) in self.max_abs.iter_mut().zip(x) {
            *largest = if x.abs() > *largest { x.abs() } else { *largest };
        }
        add_squares_to(&mut self.square_sum, x, has_fused);
        for (zeros, x) in self.zeros.iter_mut().zip(x) {
            *zeros += u32::from(*x == 0.0);
        }
    }

    /// Adds fewer numbers than there are lanes.
    #[inline(always)]
    pub(super) fn add_rest(&mut self, rest: &[f32], has_fused: bool) {
        for (lane, x) in rest.iter().enumerate() {
            self.max_abs[lane] = self.max_abs[lane].max(x.abs());
            self.square_sum[lane] = with_square(self.square_sum[lane], *x, has_fused);
            self.zeros[lane] += u32::from(*x == 0.0);
        }
    }

    /// The sums over the finite ones of the elements that were added, and the number of the others.
    pub(super) fn total(&self, elements: &[f32]) -> Sums {
        let square_sum: f64 = self.square_sum.iter().sum();
        // Squares of finite f32 cannot overflow an f64, so that the sum tells whether all are finite.
        if !square_sum.is_finite() {
            let finite: Vec<f32> = elements.iter().copied().filter(|x| x.is_finite()).collect();
            return Sums { nonfinite: (elements.len() - finite.len()) as u64, ..finite_sums(&finite) };
        }
        Sums {
            max_abs: self.max_abs.into_iter().fold(0.0, f32::max),
            square_sum,
            zeros: self.zeros.iter().map(|count| u64::from(*count)).sum(),
            nonfinite: 0,
        }
    }
}

#[multiversion(targets("x86_64+avx512f+avx512vl+avx2+fma", "x86_64+avx2+fma"))]
fn add_elements(elements: &[f32], lanes: &mut Lanes) {
    let has_fused = target_cfg_f!(target_feature = "fma");
    let mut sums = *lanes;
    let (chunks, rest) = elements.as_chunks::<LANES>();
    chunks.iter().for_each(|chunk| sums.add(chunk, has_fused));
    sums.add_rest(rest, has_fused);
    *lanes = sums;
}

#[multiversion(targets("x86_64+avx512f+avx512vl+avx2+fma", "x86_64+avx2+fma"))]
fn add_squares(elements: &[f32], lanes: &mut [f64; LANES]) {
    let has_fused = target_cfg_f!(target_feature = "fma");
    let mut sums = *lanes;
    let (chunks, rest) = elements.as_chunks::<LANES>();
    chunks.iter().for_each(|chunk| add_squares_to(&mut sums, chunk, has_fused));
    for (sum, x) in sums.iter_mut().zip(rest) {
        *sum = with_square(*sum, *x, has_fused);
    }
    *lanes = sums;
}

/// The sum of the squares, which is not finite where an element is not.
fn square_sum(elements: &[f32]) -> f64 {
    let mut lanes = [0.0; LANES];
    add_squares(elements, &mut lanes);
    lanes.iter().sum()
}

/// The sums over the finite elements, and the number of the others.
fn finite_sums(elements: &[f32]) -> Sums {
    let mut lanes = Lanes::default();
    add_elements(elements, &mut lanes);
    lanes.total(elements)
}

/// The squares of all elements by lanes, and the sums of the columns. Columns are taken as many at a time as there are lanes, whose sums
/// stay in registers.
#[multiversion(targets("x86_64+avx512f+avx512vl+avx2+fma", "x86_64+avx2+fma"))]
fn add_delta(rows: &[f32], column_sums: &mut [f64], lanes: &mut [f64; LANES]) {
    let has_fused = target_cfg_f!(target_feature = "fma");
    let mut square_sum = *lanes;
    let columns = column_sums.len();
    let (panels, rest) = column_sums.as_chunks_mut::<LANES>();
    let first_of_rest = panels.len() * LANES;
    for (panel, column_sums) in panels.iter_mut().enumerate() {
        let mut sums = *column_sums;
        for row in rows.chunks_exact(columns) {
            let Some(x) = row[panel * LANES..].first_chunk::<LANES>() else { break };
            add_squares_to(&mut square_sum, x, has_fused);
            for lane in 0..LANES {
                sums[lane] += f64::from(x[lane]);
            }
        }
        *column_sums = sums;
    }
    if !rest.is_empty() {
        for row in rows.chunks_exact(columns) {
            for ((x, sum), square_sum) in row[first_of_rest..].iter().zip(rest.iter_mut()).zip(&mut square_sum) {
                *sum += f64::from(*x);
                *square_sum = with_square(*square_sum, *x, has_fused);
            }
        }
    }
    *lanes = square_sum;
}

/// Sum, squares and saturated activations by lanes.
#[derive(Clone, Debug, Default)]
struct ActivationLanes {
    sum: [f64; LANES],
    square_sum: [f64; LANES],
    saturated: [u32; LANES],
}

/// The sums of all activations by lanes, and for each unit the largest absolute one. Units are taken as the columns in [`add_delta`].
#[allow(clippy::needless_bitwise_bool)] // A branch would keep the compiler from using vector instructions.
#[multiversion(targets("x86_64+avx512f+avx512vl+avx2+fma", "x86_64+avx2+fma"))]
fn add_activation(rows: &[f32], flat: FlatParts, largest: &mut [f32], lanes: &mut ActivationLanes) {
    let has_fused = target_cfg_f!(target_feature = "fma");
    let ActivationLanes { mut sum, mut square_sum, mut saturated } = *lanes;
    let units = largest.len();
    let (panels, rest) = largest.as_chunks_mut::<LANES>();
    let first_of_rest = panels.len() * LANES;
    for (panel, largest_of_panel) in panels.iter_mut().enumerate() {
        let mut largest = *largest_of_panel;
        for row in rows.chunks_exact(units) {
            let Some(x) = row[panel * LANES..].first_chunk::<LANES>() else { break };
            for lane in 0..LANES {
                // Written so that NaN counts as alive.
                largest[lane] = if x[lane].abs() <= largest[lane] { largest[lane] } else { x[lane].abs() };
            }
            for lane in 0..LANES {
                sum[lane] += f64::from(x[lane]);
            }
            add_squares_to(&mut square_sum, x, has_fused);
            for lane in 0..LANES {
                saturated[lane] += u32::from((x[lane] <= flat.low) | (x[lane] >= flat.high));
            }
        }
        *largest_of_panel = largest;
    }
    if !rest.is_empty() {
        for row in rows.chunks_exact(units) {
            for (lane, (x, largest)) in row[first_of_rest..].iter().zip(rest.iter_mut()).enumerate() {
                *largest = if x.abs() <= *largest { *largest } else { x.abs() };
                sum[lane] += f64::from(*x);
                square_sum[lane] = with_square(square_sum[lane], *x, has_fused);
                saturated[lane] += u32::from((*x <= flat.low) | (*x >= flat.high));
            }
        }
    }
    *lanes = ActivationLanes { sum, square_sum, saturated };
}

/// The elements of each of as many equal blocks, with the place for its summary.
fn blocks<'a, const N: usize>(
    elements: &'a [f32],
    out: &'a mut [f64],
) -> impl Iterator<Item = (&'a [f32], &'a mut [f64; N])> {
    let (out, _) = out.as_chunks_mut::<N>();
    let length = elements.len() / out.len().max(1);
    elements.chunks_exact(length.max(1)).zip(out)
}

/// Writes the summary of a gradient, of each block of it; `None` if it is of another backend. The same below.
pub fn gradient_summary(gradient: &Tensor<1>, out: &mut [f64]) -> Option<()> {
    with_elements(gradient, |elements| {
        for (elements, out) in blocks(elements, out) {
            let sums = in_chunks(elements.len(), |range| finite_sums(&elements[range]), Sums::merge);
            *out = sums.gradient_summary();
        }
    })
}

pub fn block_norms(x: &Tensor<2>, blocks: usize) -> Option<Vec<f64>> {
    with_elements(x, |elements| {
        let norm = |block: &[f32]| {
            let sum = square_sum(block);
            Norm::of_squares(if sum.is_finite() { sum } else { f64::NAN })
        };
        elements.chunks_exact(elements.len() / blocks).flat_map(norm).collect()
    })
}

#[multiversion(targets("x86_64+avx512f+avx512vl+avx2+fma", "x86_64+avx2+fma"))]
fn subtract(before: &[f32], after: &[f32], difference: &mut [f32]) {
    for ((difference, before), after) in difference.iter_mut().zip(before).zip(after) {
        *difference = after - before;
    }
}

pub fn update_summary((before, after): &(Tensor<1>, Tensor<1>), out: &mut [f64]) -> Option<()> {
    with_elements(before, |before| {
        with_elements(after, |after| {
            let (out, _) = out.as_chunks_mut::<4>();
            let length = (before.len() / out.len().max(1)).max(1);
            let pairs = before.chunks_exact(length).zip(after.chunks_exact(length));
            for ((before, after), out) in pairs.zip(out) {
                let sums = in_chunks(
                    length,
                    |range| update_sums(&before[range.clone()], &after[range]),
                    |a, b| [a[0] + b[0], a[1] + b[1]],
                );
                [out[0], out[1]] = Norm::of_squares(sums[0]);
                [out[2], out[3]] = Norm::of_squares(sums[1]);
            }
        })
    })?
}

/// The squares of `before` and of `after - before`.
fn update_sums(before: &[f32], after: &[f32]) -> [f64; 2] {
    let mut difference = [0.0; BLOCK];
    let mut sums = [0.0; 2];
    for (before, after) in before.chunks(BLOCK).zip(after.chunks(BLOCK)) {
        let difference = &mut difference[..before.len()];
        subtract(before, after, difference);
        sums = [sums[0] + square_sum(before), sums[1] + square_sum(difference)];
    }
    sums
}

/// Rows that are summed up while they are in the cache.
fn row_blocks(elements: &[f32], columns: usize) -> impl Iterator<Item = &[f32]> {
    elements.chunks((BLOCK / columns.max(1)).max(1) * columns.max(1))
}

pub fn delta_summary(delta: &Tensor<2>, out: &mut [f64]) -> Option<()> {
    let [_, units] = delta.dims();
    with_elements(delta, |elements| {
        for (elements, out) in blocks::<4>(elements, out) {
            let mut sums = DeltaSums::new(units);
            row_blocks(elements, units).for_each(|rows| sums.add(rows));
            *out = sums.summary();
        }
    })
}

/// What is summed up of the deltas of some examples.
#[derive(Clone, Debug)]
pub(super) struct DeltaSums {
    /// Of each unit.
    batch_sum: Vec<f64>,
    square_sum: [f64; LANES],
}

impl DeltaSums {
    pub(super) fn new(units: usize) -> Self {
        Self { batch_sum: vec![0.0; units], square_sum: [0.0; LANES] }
    }

    /// Adds the rows of more examples.
    pub(super) fn add(&mut self, rows: &[f32]) {
        add_delta(rows, &mut self.batch_sum, &mut self.square_sum);
    }

    pub(super) fn merge(&mut self, other: &Self) {
        add_up(&mut self.batch_sum, &other.batch_sum);
        add_up(&mut self.square_sum, &other.square_sum);
    }

    /// The numbers of a [`DeltaSummary`](super::DeltaSummary).
    pub(super) fn summary(&self) -> [f64; 4] {
        let [max_abs, relative] = Norm::of_squares(self.square_sum.iter().sum());
        let [max_of_sum, relative_of_sum] = Norm::of_squares(self.batch_sum.iter().map(|x| x * x).sum());
        [max_abs, relative, max_of_sum, relative_of_sum]
    }
}

fn add_up(sums: &mut [f64], others: &[f64]) {
    sums.iter_mut().zip(others).for_each(|(sum, other)| *sum += other);
}

pub fn activation_summary(activation: &Tensor<2>, flat: FlatParts, out: &mut [f64]) -> Option<()> {
    let [_, units] = activation.dims();
    with_elements(activation, |elements| {
        for (elements, out) in blocks(elements, out) {
            let mut sums = ActivationSums::new(units);
            row_blocks(elements, units).for_each(|rows| sums.add(rows, flat));
            *out = sums.summary();
        }
    })
}

/// What is summed up of the activations of some examples.
#[derive(Clone, Debug)]
pub(super) struct ActivationSums {
    /// Of each unit, the largest absolute one.
    largest: Vec<f32>,
    lanes: ActivationLanes,
    count: usize,
}

impl ActivationSums {
    pub(super) fn new(units: usize) -> Self {
        Self { largest: vec![0.0; units], lanes: ActivationLanes::default(), count: 0 }
    }

    /// Adds the rows of more examples.
    pub(super) fn add(&mut self, rows: &[f32], flat: FlatParts) {
        add_activation(rows, flat, &mut self.largest, &mut self.lanes);
        self.count += rows.len();
    }

    pub(super) fn merge(&mut self, other: &Self) {
        for (largest, x) in self.largest.iter_mut().zip(&other.largest) {
            *largest = if *x <= *largest { *largest } else { *x };
        }
        add_up(&mut self.lanes.sum, &other.lanes.sum);
        add_up(&mut self.lanes.square_sum, &other.lanes.square_sum);
        self.lanes.saturated.iter_mut().zip(&other.lanes.saturated).for_each(|(count, other)| *count += other);
        self.count += other.count;
    }

    /// The numbers of an [`ActivationSummary`](super::ActivationSummary).
    pub(super) fn summary(&self) -> [f64; 4] {
        let Self { largest, lanes, count } = self;
        let count = *count as f64;
        let mean = lanes.sum.iter().sum::<f64>() / count;
        let variance = (lanes.square_sum.iter().sum::<f64>() / count - mean * mean).max(0.0);
        let saturated: u64 = lanes.saturated.iter().map(|count| u64::from(*count)).sum();
        let dead = largest.iter().filter(|x| **x == 0.0).count();
        [mean, variance.sqrt(), saturated as f64 / count, dead as f64 / largest.len() as f64]
    }
}

/// Keeps the memory of tensors that nobody else holds for the next step.
pub fn recycle<const D: usize>(tensors: Vec<Tensor<D>>) {
    for primitive in tensors.into_iter().filter_map(|tensor| tensor.try_into_primitive::<Flex>().ok()) {
        pool::recycle::<f32>(primitive);
    }
}
