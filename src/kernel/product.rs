//! Products of a few rows with one matrix, again and again, on one thread.
//!
//! A recurrent layer multiplies its input and its hidden state by the same weights at every time step. The weights are packed
//! once, and no time goes into starting threads: each has its own examples for the whole sequence.

// A function that is not inlined into one with a target feature does without it.
#![allow(clippy::inline_always)]

use std::ops::Range;

use pulp::{Arch, Simd, WithSimd};

use super::matrix::{NARROW, Real, Tile, WIDE, add, copy, has_many_registers, panel_width, store, transposed_tile};
use super::team;

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

/// The rows of the one factor whose sums stand in registers at a time.
fn tile_rows() -> usize {
    struct TileRows;
    impl WithSimd for TileRows {
        type Output = usize;

        fn with_simd<S: Simd>(self, _: S) -> usize {
            if has_many_registers::<S>() { WIDE } else { NARROW }
        }
    }
    Arch::new().dispatch(TileRows)
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
        let panel = panel_width::<f32>();
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
pub fn product(parts: &[Part<'_>], matrix: &Packed, out: &mut [f32]) {
    struct Product<'a> {
        parts: &'a [Part<'a>],
        matrix: &'a Packed,
        out: &'a mut [f32],
    }
    impl WithSimd for Product<'_> {
        type Output = ();

        #[inline(always)]
        fn with_simd<S: Simd>(self, simd: S) {
            let Self { parts, matrix, out } = self;
            if has_many_registers::<S>() {
                by_rows::<S, WIDE>(simd, parts, matrix, out);
            } else {
                by_rows::<S, NARROW>(simd, parts, matrix, out);
            }
        }
    }
    Arch::new().dispatch(Product { parts, matrix, out });
}

#[inline(always)]
fn by_rows<S: Simd, const ROWS: usize>(simd: S, parts: &[Part<'_>], matrix: &Packed, out: &mut [f32]) {
    let inner: usize = parts.iter().map(|(_, columns)| columns.len()).sum();
    let rows = out.len() / matrix.columns;
    let mut scratch = vec![0.0; inner * ROWS];
    for first in (0..rows).step_by(ROWS) {
        let out = &mut out[first * matrix.columns..];
        few_rows::<S, ROWS>(simd, parts, (first, ROWS.min(rows - first)), matrix, out, &mut scratch);
    }
}

/// `count` rows from `first` on, at most `ROWS`; `out` begins with the first of them.
#[inline(always)]
fn few_rows<S: Simd, const ROWS: usize>(
    simd: S,
    parts: &[Part<'_>],
    (first, count): (usize, usize),
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
    let width = matrix.panel;
    for (number, panel) in matrix.panels.chunks_exact(matrix.rows * width).enumerate() {
        let set_rows = &matrix.set_rows[number];
        let (start, end) = (set_rows.start.min(inner), set_rows.end.min(inner));
        let (factor, panel) = (&scratch[start * ROWS..end * ROWS], &panel[start * width..end * width]);
        let sums: Tile<S, f32, ROWS> = transposed_tile(simd, factor, ROWS, f32::vectors::<S>(panel));
        let column = number * width;
        store(simd, &sums[..count], &mut out[column..], matrix.columns, width.min(matrix.columns - column));
    }
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
        let size = tile_rows();
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
        let mut blocks = vec![Vec::new(); rows.div_ceil(BLOCK)];
        team::each(blocks.iter_mut().enumerate().collect(), |(number, place): (usize, &mut Vec<f32>)| {
            *place = block(number * BLOCK);
        });
        Self { blocks }
    }
}

/// `x^T gradient`, for the first `inputs` columns of x and some columns of the gradient.
///
/// # Shapes
///
/// - x: `[rows, inputs or more]`, gradient: `[rows, outputs]`
/// - returns: `[inputs, some outputs]`
pub fn transposed_product(x: &Grouped, inputs: usize, gradient: View<'_>, outputs: &Range<usize>) -> Vec<f32> {
    struct TransposedProduct<'a> {
        x: &'a Grouped,
        inputs: usize,
        gradient: View<'a>,
        outputs: &'a Range<usize>,
    }
    impl WithSimd for TransposedProduct<'_> {
        type Output = Vec<f32>;

        #[inline(always)]
        fn with_simd<S: Simd>(self, simd: S) -> Vec<f32> {
            let Self { x, inputs, gradient, outputs } = self;
            if has_many_registers::<S>() {
                by_inputs::<S, WIDE>(simd, x, inputs, gradient, outputs)
            } else {
                by_inputs::<S, NARROW>(simd, x, inputs, gradient, outputs)
            }
        }
    }
    Arch::new().dispatch(TransposedProduct { x, inputs, gradient, outputs })
}

#[inline(always)]
fn by_inputs<S: Simd, const ROWS: usize>(
    simd: S,
    x: &Grouped,
    inputs: usize,
    gradient: View<'_>,
    outputs: &Range<usize>,
) -> Vec<f32> {
    let (width, panel_width) = (outputs.len(), panel_width::<f32>());
    let mut out = vec![0.0; inputs * width];
    let mut columns = vec![0.0; BLOCK * panel_width];
    for (block, gradient_block) in x.blocks.iter().zip(gradient.elements.chunks(BLOCK * gradient.columns)) {
        let rows = gradient_block.len() / gradient.columns;
        for panel in (0..width).step_by(panel_width) {
            let count = panel_width.min(width - panel);
            let places = columns.chunks_exact_mut(panel_width);
            for (values, row) in places.zip(gradient_block.chunks_exact(gradient.columns)) {
                copy::<S, f32>(&row[outputs.start + panel..][..count], values);
            }
            let columns = f32::vectors::<S>(&columns[..rows * panel_width]);
            for (group, start) in block.chunks_exact(BLOCK * ROWS).zip((0..inputs).step_by(ROWS)) {
                let sums: Tile<S, f32, ROWS> = transposed_tile(simd, &group[..rows * ROWS], ROWS, columns);
                let inputs = ROWS.min(inputs - start);
                add(simd, &sums[..inputs], &mut out[start * width + panel..], width, count);
            }
        }
    }
    out
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
