//! Products of a few rows with one matrix, again and again, on one thread.
//!
//! A recurrent layer multiplies its input and its hidden state by the same weights at every time step. The weights are packed
//! once, and no time goes into starting threads: each has its own examples for the whole sequence.

// A function that is not inlined into one with a target feature does without it.
#![allow(clippy::inline_always)]

use std::ops::Range;

use multiversion::{multiversion, target::match_target};
use rayon::prelude::*;

/// A matrix as it lies in memory: `[rows, columns]`, row by row.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    /// The elements.
    pub elements: &'a [f32],
    /// Numbers in a row.
    pub columns: usize,
}

impl<'a> View<'a> {
    /// Some of the columns of some of the numbers of a row.
    fn row(&self, row: usize, columns: &Range<usize>) -> &'a [f32] {
        &self.elements[row * self.columns..][columns.clone()]
    }
}

/// The sums of a product that stand in registers at a time: rows of the one factor, columns of the other, a panel. They were
/// measured: with others the compiler keeps the sums in memory.
#[multiversion(targets("x86_64+avx512f+avx512vl+avx2+fma", "x86_64+avx2+fma"))]
fn tile_size() -> (usize, usize) {
    match_target! {
        "x86_64+avx512f" => (10, 32),
        "x86_64+avx2+fma" => (6, 16),
        "aarch64+neon" => (6, 16),
        _ => (4, 16),
    }
}

/// A matrix in panels of so many columns as a tile has, each panel row by row; the last one is filled up with zeros.
#[derive(Debug)]
pub struct Packed {
    panel: usize,
    rows: usize,
    columns: usize,
    panels: Vec<f32>,
    /// From the first to the last row of each panel that has been set: the others are left out of products.
    set_rows: Vec<Range<usize>>,
}

impl Packed {
    /// A matrix of zeros.
    pub fn zeros(rows: usize, columns: usize) -> Self {
        let (_, panel) = tile_size();
        let count = columns.div_ceil(panel);
        Self { panel, rows, columns, panels: vec![0.0; count * rows * panel], set_rows: vec![0..0; count] }
    }

    /// Sets part of a row from its column `first` on.
    pub fn set(&mut self, row: usize, first: usize, values: &[f32]) {
        let mut column = first;
        let mut rest = values;
        while !rest.is_empty() {
            let (panel, place) = (column / self.panel, column % self.panel);
            let (now, later) = rest.split_at(rest.len().min(self.panel - place));
            let start = (panel * self.rows + row) * self.panel + place;
            self.panels[start..start + now.len()].copy_from_slice(now);
            let rows = &mut self.set_rows[panel];
            *rows = if Range::is_empty(rows) { row..row + 1 } else { rows.start.min(row)..rows.end.max(row + 1) };
            column += now.len();
            rest = later;
        }
    }
}

/// Some columns of a matrix.
pub type Part<'a> = (View<'a>, Range<usize>);

/// `out = [parts] matrix`: every row of the factor is put together from the rows of several matrices. Only as many rows of the
/// matrix are used as the parts have columns. Every element is summed in the same order whatever the number of rows.
///
/// # Shapes
///
/// - parts: `[rows, some columns]`
/// - out: `[rows, matrix columns]`
#[multiversion(targets("x86_64+avx512f+avx512vl+avx2+fma", "x86_64+avx2+fma"))]
pub fn product(parts: &[Part<'_>], matrix: &Packed, out: &mut [f32]) {
    match_target! {
        "x86_64+avx512f" => by_rows::<10, 32, true>(parts, matrix, out),
        "x86_64+avx2+fma" => by_rows::<6, 16, true>(parts, matrix, out),
        "aarch64+neon" => by_rows::<6, 16, true>(parts, matrix, out),
        _ => by_rows::<4, 16, false>(parts, matrix, out),
    }
}

#[inline(always)]
fn by_rows<const ROWS: usize, const PANEL: usize, const FMA: bool>(
    parts: &[Part<'_>],
    matrix: &Packed,
    out: &mut [f32],
) {
    let inner: usize = parts.iter().map(|(_, columns)| columns.len()).sum();
    let rows = out.len() / matrix.columns;
    let mut scratch = vec![0.0; inner * ROWS];
    let mut first = 0;
    while first < rows {
        let left = rows - first;
        let out = &mut out[first * matrix.columns..];
        if left > 4 {
            few_rows::<ROWS, PANEL, FMA>(parts, first, ROWS.min(left), matrix, out, &mut scratch[..inner * ROWS]);
            first += ROWS;
        } else {
            few_rows::<4, PANEL, FMA>(parts, first, left, matrix, out, &mut scratch[..inner * 4]);
            first += 4;
        }
    }
}

/// `count` rows from `first` on, at most `ROWS`; `out` begins with the first of them.
#[inline(always)]
fn few_rows<const ROWS: usize, const PANEL: usize, const FMA: bool>(
    parts: &[Part<'_>],
    first: usize,
    count: usize,
    matrix: &Packed,
    out: &mut [f32],
    scratch: &mut [f32],
) {
    // The rows side by side, so that the inner loop reads one number after the other.
    let mut rest = scratch.chunks_exact_mut(ROWS);
    for (part, columns) in parts {
        // Rows that are not there repeat the last one; what becomes of them is not looked at.
        let rows: [&[f32]; ROWS] = std::array::from_fn(|row| part.row(first + row.min(count - 1), columns));
        for (column, group) in rest.by_ref().take(columns.len()).enumerate() {
            for (value, row) in group.iter_mut().zip(&rows) {
                *value = row[column];
            }
        }
    }
    let inner = scratch.len() / ROWS;
    for (number, panel) in matrix.panels.chunks_exact(matrix.rows * PANEL).enumerate() {
        let set_rows = &matrix.set_rows[number];
        let (start, end) = (set_rows.start.min(inner), set_rows.end.min(inner));
        let (factor, panel) = (&scratch[start * ROWS..end * ROWS], &panel[start * PANEL..end * PANEL]);
        let sums = tile::<ROWS, PANEL, FMA>(factor.chunks_exact(ROWS), panel.chunks_exact(PANEL));
        let column = number * PANEL;
        let width = PANEL.min(matrix.columns - column);
        for (row, sums) in sums.iter().enumerate().take(count) {
            copy_panel::<PANEL>(sums, &mut out[row * matrix.columns + column..], width);
        }
    }
}

/// Copies the first `count` numbers, which are almost always all.
#[inline(always)]
fn copy_panel<const PANEL: usize>(from: &[f32], to: &mut [f32], count: usize) {
    if count == PANEL {
        to[..PANEL].copy_from_slice(&from[..PANEL]);
    } else {
        to[..count].copy_from_slice(&from[..count]);
    }
}

/// The sum over all pairs of the product of a column of `ROWS` numbers and a row of `PANEL` numbers.
#[inline(always)]
fn tile<'a, const ROWS: usize, const PANEL: usize, const FMA: bool>(
    columns: impl Iterator<Item = &'a [f32]>,
    rows: impl Iterator<Item = &'a [f32]>,
) -> [[f32; PANEL]; ROWS] {
    let mut sums = [[0.0_f32; PANEL]; ROWS];
    for (x, weights) in columns.zip(rows) {
        let (Ok(x), Ok(weights)) = (<&[f32; ROWS]>::try_from(x), <&[f32; PANEL]>::try_from(weights)) else {
            break;
        };
        for row in 0..ROWS {
            for column in 0..PANEL {
                sums[row][column] = multiply_add::<FMA>(x[row], weights[column], sums[row][column]);
            }
        }
    }
    sums
}

/// `a b + c`, in one rounding where the machine has an instruction for it.
#[inline(always)]
fn multiply_add<const FMA: bool>(a: f32, b: f32, c: f32) -> f32 {
    if FMA { a.mul_add(b, c) } else { a * b + c }
}

/// A matrix in blocks of [`BLOCK`] rows, each in groups of as many columns as a tile has rows, each group row by row; the last
/// block and the last groups are filled up with zeros.
#[derive(Debug)]
pub struct Grouped {
    blocks: Vec<Vec<f32>>,
}

/// Rows that are taken at a time, so that they stay in the cache.
const BLOCK: usize = 128;

impl Grouped {
    /// A matrix whose rows `fill` writes over zeros.
    pub fn new(rows: usize, columns: usize, fill: impl Fn(usize, &mut [f32]) + Sync) -> Self {
        let (size, _) = tile_size();
        let block = |first: usize| {
            let mut block = vec![0.0; columns.div_ceil(size) * BLOCK * size];
            let mut values = vec![0.0; columns];
            for (place, row) in (first..rows.min(first + BLOCK)).enumerate() {
                values.fill(0.0);
                fill(row, &mut values);
                for (group, values) in block.chunks_exact_mut(BLOCK * size).zip(values.chunks(size)) {
                    group[place * size..][..values.len()].copy_from_slice(values);
                }
            }
            block
        };
        Self { blocks: (0..rows).into_par_iter().step_by(BLOCK).map(block).collect() }
    }
}

/// `x^T gradient`, for the first `inputs` columns of x and some columns of the gradient.
///
/// # Shapes
///
/// - x: `[rows, inputs or more]`, gradient: `[rows, outputs]`
/// - returns: `[inputs, some outputs]`
#[multiversion(targets("x86_64+avx512f+avx512vl+avx2+fma", "x86_64+avx2+fma"))]
pub fn transposed_product(x: &Grouped, inputs: usize, gradient: View<'_>, outputs: &Range<usize>) -> Vec<f32> {
    match_target! {
        "x86_64+avx512f" => by_inputs::<10, 32, true>(x, inputs, gradient, outputs),
        "x86_64+avx2+fma" => by_inputs::<6, 16, true>(x, inputs, gradient, outputs),
        "aarch64+neon" => by_inputs::<6, 16, true>(x, inputs, gradient, outputs),
        _ => by_inputs::<4, 16, false>(x, inputs, gradient, outputs),
    }
}

#[inline(always)]
fn by_inputs<const ROWS: usize, const PANEL: usize, const FMA: bool>(
    x: &Grouped,
    inputs: usize,
    gradient: View<'_>,
    outputs: &Range<usize>,
) -> Vec<f32> {
    let width = outputs.len();
    let mut out = vec![0.0; inputs * width];
    let mut columns = vec![0.0; BLOCK * PANEL];
    for (block, gradient_block) in x.blocks.iter().zip(gradient.elements.chunks(BLOCK * gradient.columns)) {
        let rows = gradient_block.len() / gradient.columns;
        for panel in (0..width).step_by(PANEL) {
            let count = PANEL.min(width - panel);
            for (values, row) in columns.chunks_exact_mut(PANEL).zip(gradient_block.chunks_exact(gradient.columns)) {
                copy_panel::<PANEL>(&row[outputs.start + panel..], values, count);
            }
            for (group, start) in block.chunks_exact(BLOCK * ROWS).zip((0..inputs).step_by(ROWS)) {
                let sums =
                    tile::<ROWS, PANEL, FMA>(group[..rows * ROWS].chunks_exact(ROWS), columns.chunks_exact(PANEL));
                let inputs = ROWS.min(inputs - start);
                add_panels(&sums[..inputs], &mut out[start * width + panel..], width, count);
            }
        }
    }
    out
}

/// Adds the first `count` numbers of each sum to the rows of a matrix of so many columns, which are almost always all.
#[inline(always)]
fn add_panels<const PANEL: usize>(sums: &[[f32; PANEL]], out: &mut [f32], columns: usize, count: usize) {
    for (row, sums) in sums.iter().enumerate() {
        let out = &mut out[row * columns..];
        // In a place of its own, so that the compiler sees that nothing overlaps.
        let mut new = [0.0; PANEL];
        copy_panel::<PANEL>(out, &mut new, count);
        (0..PANEL).for_each(|column| new[column] += sums[column]);
        copy_panel::<PANEL>(&new, out, count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(count: usize, seed: usize) -> Vec<f32> {
        (0..count).map(|i| (((i + seed) * 7919 + seed) % 1013) as f32 / 500.0 - 1.0).collect()
    }

    #[track_caller]
    fn assert_close(found: &[f32], expected: &[f64]) {
        assert_eq!(found.len(), expected.len());
        for (found, expected) in found.iter().zip(expected) {
            assert!((f64::from(*found) - expected).abs() < 2e-5, "{found}, expected {expected}");
        }
    }

    #[test]
    fn products_are_those_of_the_definition_for_sizes_that_fit_no_tile() {
        for (rows, left, right, columns) in [(1, 1, 0, 1), (4, 3, 2, 17), (13, 5, 8, 33), (64, 28, 19, 50)] {
            // Of h only some columns are used.
            let (x, h) = (numbers(rows * left, 1), numbers(rows * (right + 3), 2));
            let weight = numbers((left + right) * columns, 3);
            let mut packed = Packed::zeros(left + right, columns);
            for (row, values) in weight.chunks_exact(columns).enumerate() {
                packed.set(row, 0, values);
            }
            let mut out = vec![7.0; rows * columns];
            let view = |elements, columns| View { elements, columns };
            product(&[(view(&x, left), 0..left), (view(&h, right + 3), 2..right + 2)], &packed, &mut out);
            let factor =
                |row: usize, k: usize| if k < left { x[row * left + k] } else { h[row * (right + 3) + 2 + k - left] };
            let element = |place: usize| {
                let (row, column) = (place / columns, place % columns);
                let term = |k: usize| f64::from(factor(row, k)) * f64::from(weight[k * columns + column]);
                (0..left + right).map(term).sum()
            };
            assert_close(&out, &(0..rows * columns).map(element).collect::<Vec<f64>>());
        }
    }

    #[test]
    fn rows_that_were_not_set_are_zeros_in_a_product() {
        let (rows, inner, columns) = (11, 9, 50);
        let x = numbers(rows * inner, 1);
        let mut packed = Packed::zeros(inner, columns);
        let mut weight = vec![0.0; inner * columns];
        // Some panels have none, some the first rows, some the last and some rows on both sides of a gap.
        for (row, range) in [(0, 0..20), (1, 3..17), (4, 17..33), (6, 20..35), (8, 30..35)] {
            let values = numbers(range.len(), row);
            weight[row * columns..][range.clone()].copy_from_slice(&values);
            packed.set(row, range.start, &values);
        }
        let found = |used: usize| {
            let mut out = vec![7.0; rows * columns];
            product(&[(View { elements: &x, columns: inner }, 0..used)], &packed, &mut out);
            out
        };
        for used in [1, 5, inner] {
            let element = |place: usize| {
                let (row, column) = (place / columns, place % columns);
                (0..used).map(|k| f64::from(x[row * inner + k]) * f64::from(weight[k * columns + column])).sum()
            };
            assert_close(&found(used), &(0..rows * columns).map(element).collect::<Vec<f64>>());
        }
    }

    #[test]
    fn transposed_products_are_those_of_the_definition_for_some_columns() {
        for (rows, inputs, used, outputs, range) in
            [(1, 1, 1, 3, 1..2), (300, 23, 23, 40, 7..40), (300, 23, 12, 40, 7..40), (129, 10, 10, 16, 0..16)]
        {
            let (x, gradient) = (numbers(rows * inputs, 1), numbers(rows * outputs, 2));
            let grouped = Grouped::new(rows, inputs, |row, values| {
                values.copy_from_slice(&x[row * inputs..(row + 1) * inputs]);
            });
            let view = View { elements: &gradient, columns: outputs };
            let found = transposed_product(&grouped, used, view, &range);
            let element = |place: usize| {
                let (input, column) = (place / range.len(), range.start + place % range.len());
                let term =
                    |row: usize| f64::from(x[row * inputs + input]) * f64::from(gradient[row * outputs + column]);
                (0..rows).map(term).sum::<f64>()
            };
            assert_close(&found, &(0..used * range.len()).map(element).collect::<Vec<f64>>());
        }
    }
}
