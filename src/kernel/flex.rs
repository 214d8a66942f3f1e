//! The summaries in one pass on the CPU.
//!
//! Sums run over a fixed number of lanes and a fixed length of chunk, so that the result depends neither on the
//! number of threads nor on the length of the machine's vectors. Squares are summed up in f64, or a block at a time in f32, which is
//! several times as fast (`squares`); sums in f32 are rounded differently where the machine has fused multiplications.
//!
//! A loop leaves its lanes in memory, and another function adds them up: where a loop adds up its lanes itself, the compiler puts
//! different sums of a lane into one vector instead of the lanes of a sum, which takes four times as long.

// A function that is not inlined into one with a target feature does without it.
#![allow(clippy::inline_always)]
// Loops over lanes, which the compiler turns into vectors; with iterators it puts the parts of several arrays together instead.
#![allow(clippy::needless_range_loop)]

use std::ops::{AddAssign, Sub};

use burn::backend::Flex;
use burn::tensor::Tensor;
use multiversion::multiversion;
use multiversion::target::target_cfg_f;

use super::squares::{Scale, has_room, quick_square_sum};
use super::{FlatParts, Norm, pool, team};

/// Independent partial sums: a vector register of f32 and two of f64.
pub(super) const LANES: usize = 16;

/// Elements that are summed up in several ways one after the other.
const IN_CACHE: usize = 4096;

/// The most rows whose activations are added up in f32.
const MOST_ROWS: usize = 64;

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
    pub(super) max_abs: f32,
    pub(super) square_sum: f64,
    pub(super) zeros: u64,
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

/// What f32 are added up in: f64, or f32 for a few numbers of a known size.
pub(super) trait Accumulator: Copy + Default + From<f32> + Into<f64> + AddAssign + Sub<Output = Self> {
    /// The sum and a square. The square of an f32 is exact in f64, where both ways round once: a fused multiplication, where there is
    /// one, saves an instruction, and in f32 a rounding.
    fn with_square(self, x: Self, has_fused: bool) -> Self;
}

macro_rules! accumulator {
    ($number:ty) => {
        impl Accumulator for $number {
            #[inline(always)]
            fn with_square(self, x: Self, has_fused: bool) -> Self {
                if has_fused { x.mul_add(x, self) } else { self + x * x }
            }
        }
    };
}

accumulator!(f32);
accumulator!(f64);

/// Adds squares by lanes.
#[inline(always)]
pub(super) fn add_squares_to<A: Accumulator>(sums: &mut [A; LANES], x: &[f32; LANES], has_fused: bool) {
    for lane in 0..LANES {
        sums[lane] = sums[lane].with_square(x[lane].into(), has_fused);
    }
}

/// Largest absolute element, squares and zeros by lanes.
#[derive(Clone, Copy, Debug, Default)]
struct Lanes {
    max_abs: [f32; LANES],
    square_sum: [f64; LANES],
    zeros: [u32; LANES],
}

impl Lanes {
    #[inline(always)]
    fn add(&mut self, x: &[f32; LANES], has_fused: bool) {
        for lane in 0..LANES {
            self.max_abs[lane] = if x[lane].abs() > self.max_abs[lane] { x[lane].abs() } else { self.max_abs[lane] };
        }
        add_squares_to(&mut self.square_sum, x, has_fused);
        for lane in 0..LANES {
            self.zeros[lane] += u32::from(x[lane] == 0.0);
        }
    }

    /// Adds fewer numbers than there are lanes.
    #[inline(always)]
    fn add_rest(&mut self, rest: &[f32], has_fused: bool) {
        for (lane, x) in rest.iter().enumerate() {
            self.max_abs[lane] = self.max_abs[lane].max(x.abs());
            self.square_sum[lane] = self.square_sum[lane].with_square(f64::from(*x), has_fused);
            self.zeros[lane] += u32::from(*x == 0.0);
        }
    }

    /// The sums over the finite ones of the elements that were added, and the number of the others.
    fn total(&self, elements: &[f32]) -> Sums {
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
        *sum = sum.with_square(f64::from(*x), has_fused);
    }
    *lanes = sums;
}

/// The sum of the squares, which is not finite where an element is not.
pub(super) fn square_sum(elements: &[f32]) -> f64 {
    let mut lanes = [0.0; LANES];
    add_squares(elements, &mut lanes);
    lanes.iter().sum()
}

/// The sums over the finite elements, and the number of the others.
pub(super) fn finite_sums(elements: &[f32]) -> Sums {
    let mut lanes = Lanes::default();
    add_elements(elements, &mut lanes);
    lanes.total(elements)
}

/// Adds the sums of the columns. Columns are taken as many at a time as there are lanes, whose sums stay in registers.
#[multiversion(targets("x86_64+avx512f+avx512vl+avx2+fma", "x86_64+avx2+fma"))]
fn add_columns(rows: &[f32], column_sums: &mut [f64]) {
    let columns = column_sums.len();
    let (panels, rest) = column_sums.as_chunks_mut::<LANES>();
    let first_of_rest = panels.len() * LANES;
    for (panel, column_sums) in panels.iter_mut().enumerate() {
        let mut sums = *column_sums;
        for row in rows.chunks_exact(columns) {
            let Some(x) = row[panel * LANES..].first_chunk::<LANES>() else { break };
            for lane in 0..LANES {
                sums[lane] += f64::from(x[lane]);
            }
        }
        *column_sums = sums;
    }
    if !rest.is_empty() {
        for row in rows.chunks_exact(columns) {
            for (x, sum) in row[first_of_rest..].iter().zip(rest.iter_mut()) {
                *sum += f64::from(*x);
            }
        }
    }
}

/// Sum, squares and the number of activations between the flat parts by lanes.
#[derive(Clone, Debug, Default)]
struct ActivationLanes {
    sum: [f64; LANES],
    square_sum: [f64; LANES],
    between: [u32; LANES],
}

impl ActivationLanes {
    /// Whether so many activations, whose distances were squared and added up to `distances` in f32, have lost nothing by that: no square
    /// left the range of f32, where a distance is no less than 2^-24 of its activation, and what they were taken from was not so far
    /// from most of them that the digits of their deviation are gone.
    fn are_right(&self, distances: f64, count: usize) -> bool {
        let (sum, square_sum): (f64, f64) = (self.sum.iter().sum(), self.square_sum.iter().sum());
        has_room(square_sum / (1_u64 << 48) as f64) && distances <= 10.0 * (square_sum - sum * sum / count as f64)
    }
}

/// Whether an activation is in no flat part, as what is not a number.
#[allow(clippy::neg_cmp_op_on_partial_ord)]
#[allow(clippy::needless_bitwise_bool)] // A branch would keep the compiler from using vector instructions.
#[inline(always)]
fn is_between(x: f32, flat: FlatParts) -> bool {
    !(x <= flat.low) & !(x >= flat.high)
}

/// What is summed up of as many units as there are lanes.
#[derive(Clone, Copy)]
struct Panel<A> {
    /// The sums of the distances from an activation of the same unit, and of their squares.
    sums: [A; LANES],
    squares: [A; LANES],
    /// The bits of all activations but their signs.
    bits: [u32; LANES],
    /// How many are between the flat parts.
    between: [u32; LANES],
}

impl<A: Accumulator> Panel<A> {
    #[inline(always)]
    fn add(&mut self, x: &[f32; LANES], origin: &[f32; LANES], flat: FlatParts, has_fused: bool) {
        let x = *x;
        for lane in 0..LANES {
            self.bits[lane] |= x[lane].abs().to_bits();
            self.between[lane] += u32::from(is_between(x[lane], flat));
        }
        for lane in 0..LANES {
            let distance = A::from(x[lane]) - A::from(origin[lane]);
            self.sums[lane] += distance;
            self.squares[lane] = self.squares[lane].with_square(distance, has_fused);
        }
    }
}

/// The sums of all activations by lanes, and of each unit the bits that are set in one of them. Units are taken as the columns in
/// [`sum_delta`], and what is added up are distances from an activation of the same unit: where all examples are alike, little of their
/// differences is lost. Every other row has sums of its own, because the next addition to a sum must wait for the last one. Returns the
/// sum of the squares of all distances.
#[inline(always)]
fn sum_activation<A: Accumulator>(
    rows: &[f32],
    flat: FlatParts,
    bits: &mut [u32],
    lanes: &mut ActivationLanes,
    has_fused: bool,
) -> f64 {
    let mut all = ActivationLanes::default();
    let mut distances = [0.0; LANES];
    let units = bits.len();
    debug_assert!(rows.len().is_multiple_of(units));
    let count = (rows.len() / units) as f64;
    let last = rows.len() - units;
    let (panels, rest) = bits.as_chunks_mut::<LANES>();
    let first_of_rest = panels.len() * LANES;
    for (panel, bits) in panels.iter_mut().enumerate() {
        let column = panel * LANES;
        let first = rows[column..].first_chunk::<LANES>();
        let (Some(first), Some(last)) = (first, rows[last + column..].first_chunk::<LANES>()) else { break };
        let mut origin = *first;
        for lane in 0..LANES {
            origin[lane] = if first[lane].abs() <= last[lane].abs() { first[lane] } else { last[lane] };
        }
        let zero = [A::default(); LANES];
        let mut even = Panel { sums: zero, squares: zero, bits: *bits, between: [0; LANES] };
        let mut odd = even;
        for pair in rows.chunks(2 * units) {
            if let Some(x) = pair[column..].first_chunk() {
                even.add(x, &origin, flat, has_fused);
            }
            if let Some(y) = pair.get(units + column..).and_then(<[f32]>::first_chunk) {
                odd.add(y, &origin, flat, has_fused);
            }
        }
        for lane in 0..LANES {
            bits[lane] = even.bits[lane] | odd.bits[lane];
            all.between[lane] += even.between[lane] + odd.between[lane];
            let origin = f64::from(origin[lane]);
            let sum = even.sums[lane].into() + odd.sums[lane].into();
            let square = even.squares[lane].into() + odd.squares[lane].into();
            all.sum[lane] += count * origin + sum;
            all.square_sum[lane] += square + origin * (2.0 * sum + count * origin);
            distances[lane] += square;
        }
    }
    if !rest.is_empty() {
        for row in rows.chunks_exact(units) {
            for (lane, (x, bits)) in row[first_of_rest..].iter().zip(rest.iter_mut()).enumerate() {
                *bits |= x.abs().to_bits();
                all.sum[lane] += f64::from(*x);
                all.square_sum[lane] = all.square_sum[lane].with_square(f64::from(*x), has_fused);
                all.between[lane] += u32::from(is_between(*x, flat));
            }
        }
    }
    *lanes = all;
    distances.iter().sum()
}

#[multiversion(targets("x86_64+avx512f+avx512vl+avx2+fma", "x86_64+avx2+fma"))]
fn sum_activation_f32(rows: &[f32], flat: FlatParts, bits: &mut [u32], lanes: &mut ActivationLanes) -> f64 {
    sum_activation::<f32>(rows, flat, bits, lanes, target_cfg_f!(target_feature = "fma"))
}

#[multiversion(targets("x86_64+avx512f+avx512vl+avx2+fma", "x86_64+avx2+fma"))]
fn sum_activation_f64(rows: &[f32], flat: FlatParts, bits: &mut [u32], lanes: &mut ActivationLanes) -> f64 {
    sum_activation::<f64>(rows, flat, bits, lanes, target_cfg_f!(target_feature = "fma"))
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

/// after - before, where the numbers before were.
#[multiversion(targets("x86_64+avx512f+avx512vl+avx2+fma", "x86_64+avx2+fma"))]
pub(super) fn turn_into_change(before: &mut [f32], after: &[f32]) {
    before.iter_mut().zip(after).for_each(|(before, after)| *before = after - *before);
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
pub(super) fn update_sums(before: &[f32], after: &[f32]) -> [f64; 2] {
    let mut difference = [0.0; IN_CACHE];
    let mut sums = [0.0; 2];
    for (before, after) in before.chunks(IN_CACHE).zip(after.chunks(IN_CACHE)) {
        let difference = &mut difference[..before.len()];
        difference.copy_from_slice(before);
        turn_into_change(difference, after);
        sums = [sums[0] + square_sum(before), sums[1] + square_sum(difference)];
    }
    sums
}

/// Rows that are summed up while they are in the cache.
fn row_blocks(elements: &[f32], columns: usize) -> impl Iterator<Item = &[f32]> {
    elements.chunks((IN_CACHE / columns.max(1)).clamp(1, MOST_ROWS) * columns.max(1))
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
    square_sum: f64,
    scale: Scale,
}

impl DeltaSums {
    pub(super) fn new(units: usize) -> Self {
        Self { batch_sum: vec![0.0; units], square_sum: 0.0, scale: Scale::default() }
    }

    /// Adds the rows of more examples.
    fn add(&mut self, rows: &[f32]) {
        add_columns(rows, &mut self.batch_sum);
        let square_sum = quick_square_sum(rows, self.scale);
        self.scale = self.scale.following(square_sum);
        self.square_sum += square_sum;
    }

    /// The same of rows whose columns are summed up and whose largest absolute element is known.
    pub(super) fn add_summed(&mut self, rows: &[f32], columns: &[f32], largest: f32) {
        // The sum of a column of larger ones may have left the range of f32.
        if largest > 1e36 {
            return self.add(rows);
        }
        self.batch_sum.iter_mut().zip(columns).for_each(|(sum, x)| *sum += f64::from(*x));
        self.square_sum += quick_square_sum(rows, Scale::of_largest(largest));
    }

    pub(super) fn merge(&mut self, other: &Self) {
        add_up(&mut self.batch_sum, &other.batch_sum);
        self.square_sum += other.square_sum;
    }

    /// The numbers of a [`DeltaSummary`](super::DeltaSummary).
    pub(super) fn summary(&self) -> [f64; 4] {
        let [max_abs, relative] = Norm::of_squares(self.square_sum);
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
    /// Of each unit, the bits that are set in one of its activations, but for the sign: 0 if it is dead.
    bits: Vec<u32>,
    lanes: ActivationLanes,
    count: usize,
}

impl ActivationSums {
    pub(super) fn new(units: usize) -> Self {
        Self { bits: vec![0; units], lanes: ActivationLanes::default(), count: 0 }
    }

    /// Adds the rows of more examples.
    pub(super) fn add(&mut self, rows: &[f32], flat: FlatParts) {
        if rows.is_empty() {
            return;
        }
        let mut lanes = ActivationLanes::default();
        let distances = sum_activation_f32(rows, flat, &mut self.bits, &mut lanes);
        if !lanes.are_right(distances, rows.len()) {
            sum_activation_f64(rows, flat, &mut self.bits, &mut lanes);
        }
        self.add_lanes(&lanes);
        self.count += rows.len();
    }

    fn add_lanes(&mut self, lanes: &ActivationLanes) {
        add_up(&mut self.lanes.sum, &lanes.sum);
        add_up(&mut self.lanes.square_sum, &lanes.square_sum);
        self.lanes.between.iter_mut().zip(&lanes.between).for_each(|(count, other)| *count += other);
    }

    pub(super) fn merge(&mut self, other: &Self) {
        self.bits.iter_mut().zip(&other.bits).for_each(|(bits, others)| *bits |= others);
        self.add_lanes(&other.lanes);
        self.count += other.count;
    }

    /// The numbers of an [`ActivationSummary`](super::ActivationSummary).
    pub(super) fn summary(&self) -> [f64; 4] {
        let Self { bits, lanes, count } = self;
        let count = *count as f64;
        let mean = lanes.sum.iter().sum::<f64>() / count;
        let variance = lanes.square_sum.iter().sum::<f64>() / count - mean * mean;
        // Written so that NaN stays.
        let variance = if variance < 0.0 { 0.0 } else { variance };
        let between: u64 = lanes.between.iter().map(|count| u64::from(*count)).sum();
        let dead = bits.iter().filter(|bits| **bits == 0).count();
        [mean, variance.sqrt(), (count - between as f64) / count, dead as f64 / bits.len() as f64]
    }
}

/// Keeps the memory of tensors that nobody else holds for the next step.
pub fn recycle<const D: usize>(tensors: Vec<Tensor<D>>) {
    for primitive in tensors.into_iter().filter_map(|tensor| tensor.try_into_primitive::<Flex>().ok()) {
        pool::recycle::<f32>(primitive);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deltas_whose_sums_are_known_have_the_norms_of_the_others_even_where_a_sum_has_left_the_range() {
        const UNITS: usize = 2;
        for size in [1e-38_f32, 1e-20, 1.0, 2e37] {
            let rows: Vec<f32> = (0..32 * UNITS).map(|i| size * (1.0 + (i % 5) as f32 / 8.0)).collect();
            let columns = rows.chunks(UNITS).fold([0.0_f32; UNITS], |sums, row| [sums[0] + row[0], sums[1] + row[1]]);
            let (mut summed, mut added) = (DeltaSums::new(UNITS), DeltaSums::new(UNITS));
            summed.add_summed(&rows, &columns, 1.5 * size);
            added.add(&rows);
            for (summed, added) in summed.summary().into_iter().zip(added.summary()) {
                assert!((summed / added - 1.0).abs() < 1e-6, "{size:e}: {summed:e} and {added:e}");
            }
        }
    }
}
