//! Products of a few rows with one matrix, again and again, on one thread.
//!
//! A recurrent layer multiplies its input and its hidden state by the same weights at every time step. The weights are packed
//! once, and no time goes into starting threads: each has its own examples for the whole sequence.

// A function that is not inlined into one with a target feature does without it.
#![allow(clippy::inline_always)]

use multiversion::{multiversion, target::match_target};

/// Columns in a panel: a vector register of AVX-512, two of AVX2, four of NEON.
const PANEL: usize = 16;

/// A matrix in panels of [`PANEL`] columns, each panel row by row; the last one is filled up with zeros.
#[derive(Debug)]
pub struct Packed {
    rows: usize,
    columns: usize,
    panels: Vec<f32>,
}

impl Packed {
    /// A matrix of zeros.
    pub fn zeros(rows: usize, columns: usize) -> Self {
        Self { rows, columns, panels: vec![0.0; columns.div_ceil(PANEL) * rows * PANEL] }
    }

    /// Sets part of a row from its column `first` on.
    pub fn set(&mut self, row: usize, first: usize, values: &[f32]) {
        let mut column = first;
        let mut rest = values;
        while !rest.is_empty() {
            let place = column % PANEL;
            let (now, later) = rest.split_at(rest.len().min(PANEL - place));
            let start = (column / PANEL * self.rows + row) * PANEL + place;
            self.panels[start..start + now.len()].copy_from_slice(now);
            column += now.len();
            rest = later;
        }
    }
}

/// `out = [parts] matrix`: every row of the factor is put together from the rows of several matrices. Only as many rows of the
/// matrix are used as the parts have columns. Every element is summed in the same order whatever the number of rows.
///
/// # Shapes
///
/// - parts: `[rows, some columns]`, with the number of columns
/// - out: `[rows, matrix columns]`
#[multiversion(targets("x86_64+avx512f+avx512vl+avx2+fma", "x86_64+avx2+fma"))]
pub fn product(parts: &[(&[f32], usize)], matrix: &Packed, out: &mut [f32]) {
    // The numbers were measured: with others the compiler keeps the sums in memory.
    match_target! {
        "x86_64+avx512f" => by_rows::<10, true>(parts, matrix, out),
        "x86_64+avx2+fma" => by_rows::<6, true>(parts, matrix, out),
        "aarch64+neon" => by_rows::<6, true>(parts, matrix, out),
        _ => by_rows::<4, false>(parts, matrix, out),
    }
}

#[inline(always)]
fn by_rows<const ROWS: usize, const FMA: bool>(parts: &[(&[f32], usize)], matrix: &Packed, out: &mut [f32]) {
    let inner: usize = parts.iter().map(|(_, columns)| columns).sum();
    let rows = out.len() / matrix.columns;
    let mut scratch = vec![0.0; inner * ROWS];
    let mut first = 0;
    while first < rows {
        let left = rows - first;
        let out = &mut out[first * matrix.columns..];
        if left > 4 {
            few_rows::<ROWS, FMA>(parts, first, ROWS.min(left), matrix, out, &mut scratch[..inner * ROWS]);
            first += ROWS;
        } else {
            few_rows::<4, FMA>(parts, first, left, matrix, out, &mut scratch[..inner * 4]);
            first += 4;
        }
    }
}

/// `count` rows from `first` on, at most `ROWS`; `out` begins with the first of them.
#[inline(always)]
fn few_rows<const ROWS: usize, const FMA: bool>(
    parts: &[(&[f32], usize)],
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
        let row = |row: usize| &part[(first + row.min(count - 1)) * columns..][..*columns];
        let rows: [&[f32]; ROWS] = std::array::from_fn(row);
        for (column, group) in rest.by_ref().take(*columns).enumerate() {
            for (value, row) in group.iter_mut().zip(&rows) {
                *value = row[column];
            }
        }
    }
    let scratch = &*scratch;
    for (number, panel) in matrix.panels.chunks_exact(matrix.rows * PANEL).enumerate() {
        let sums = tile::<ROWS, FMA>(scratch.chunks_exact(ROWS), panel.chunks_exact(PANEL));
        let column = number * PANEL;
        let width = PANEL.min(matrix.columns - column);
        for (row, sums) in sums.iter().enumerate().take(count) {
            copy_panel(sums, &mut out[row * matrix.columns + column..], width);
        }
    }
}

/// Copies the first `count` numbers, which are almost always all.
#[inline(always)]
fn copy_panel(from: &[f32], to: &mut [f32], count: usize) {
    if count == PANEL {
        to[..PANEL].copy_from_slice(&from[..PANEL]);
    } else {
        to[..count].copy_from_slice(&from[..count]);
    }
}

/// The sum over all pairs of the product of a column of `ROWS` numbers and a row of [`PANEL`] numbers.
#[inline(always)]
fn tile<'a, const ROWS: usize, const FMA: bool>(
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

/// A matrix as it lies in memory: `[rows, columns]`, row by row.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    /// The elements.
    pub elements: &'a [f32],
    /// Numbers in a row.
    pub columns: usize,
}

/// A matrix in groups of as many columns as have their sums in registers, each group row by row; the last one is filled up
/// with zeros.
#[derive(Debug)]
pub struct Grouped {
    rows: usize,
    columns: usize,
    groups: Vec<f32>,
}

impl Grouped {
    /// Copies a matrix.
    pub fn new(matrix: View<'_>) -> Self {
        let View { elements, columns } = matrix;
        let rows = elements.len() / columns;
        let size = group_size();
        let mut groups = vec![0.0; columns.div_ceil(size) * rows * size];
        for (group, first) in groups.chunks_exact_mut((rows * size).max(1)).zip((0..columns).step_by(size)) {
            let count = size.min(columns - first);
            for (values, row) in group.chunks_exact_mut(size).zip(elements.chunks_exact(columns)) {
                for (value, x) in values.iter_mut().zip(&row[first..first + count]) {
                    *value = *x;
                }
            }
        }
        Self { rows, columns, groups }
    }
}

#[multiversion(targets("x86_64+avx512f+avx512vl+avx2+fma", "x86_64+avx2+fma"))]
fn group_size() -> usize {
    match_target! {
        "x86_64+avx512f" => 10,
        "x86_64+avx2+fma" => 6,
        "aarch64+neon" => 6,
        _ => 4,
    }
}

/// `out += x^T gradient`, for the columns of `gradient` from `first` on, `width` of them.
///
/// # Shapes
///
/// - x: `[rows, inputs]`, gradient: `[rows, outputs]`
/// - out: `[inputs, width]`
#[multiversion(targets("x86_64+avx512f+avx512vl+avx2+fma", "x86_64+avx2+fma"))]
pub fn add_transposed_product(x: &Grouped, gradient: View<'_>, first: usize, width: usize, out: &mut [f32]) {
    match_target! {
        "x86_64+avx512f" => by_inputs::<10, true>(x, gradient, first, width, out),
        "x86_64+avx2+fma" => by_inputs::<6, true>(x, gradient, first, width, out),
        "aarch64+neon" => by_inputs::<6, true>(x, gradient, first, width, out),
        _ => by_inputs::<4, false>(x, gradient, first, width, out),
    }
}

/// Rows that are taken at a time, so that their gradients stay in the cache.
const BLOCK: usize = 128;

#[inline(always)]
fn by_inputs<const ROWS: usize, const FMA: bool>(
    x: &Grouped,
    gradient: View<'_>,
    first: usize,
    width: usize,
    out: &mut [f32],
) {
    let mut columns = vec![0.0; BLOCK * PANEL];
    for (block, gradient_block) in gradient.elements.chunks(BLOCK * gradient.columns).enumerate() {
        let rows = gradient_block.len() / gradient.columns;
        let part = block * BLOCK * ROWS..(block * BLOCK + rows) * ROWS;
        for panel in (0..width).step_by(PANEL) {
            let count = PANEL.min(width - panel);
            for (values, row) in columns.chunks_exact_mut(PANEL).zip(gradient_block.chunks_exact(gradient.columns)) {
                copy_panel(&row[first + panel..], values, count);
            }
            for (group, start) in x.groups.chunks_exact(x.rows * ROWS).zip((0..x.columns).step_by(ROWS)) {
                let sums = tile::<ROWS, FMA>(group[part.clone()].chunks_exact(ROWS), columns.chunks_exact(PANEL));
                let inputs = ROWS.min(x.columns - start);
                add_panels(&sums[..inputs], &mut out[start * width + panel..], width, count);
            }
        }
    }
}

/// Adds the first `count` numbers of each sum to the rows of a matrix of so many columns, which are almost always all.
#[inline(always)]
fn add_panels(sums: &[[f32; PANEL]], out: &mut [f32], columns: usize, count: usize) {
    for (row, sums) in sums.iter().enumerate() {
        let out = &mut out[row * columns..];
        if count == PANEL {
            let out = &mut out[..PANEL];
            (0..PANEL).for_each(|column| out[column] += sums[column]);
        } else {
            out[..count].iter_mut().zip(sums).for_each(|(out, sum)| *out += sum);
        }
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
            let (x, h) = (numbers(rows * left, 1), numbers(rows * right, 2));
            let weight = numbers((left + right) * columns, 3);
            let mut packed = Packed::zeros(left + right, columns);
            for (row, values) in weight.chunks_exact(columns).enumerate() {
                packed.set(row, 0, values);
            }
            let mut out = vec![7.0; rows * columns];
            product(&[(&x, left), (&h, right)], &packed, &mut out);
            let factor = |row: usize, k: usize| if k < left { x[row * left + k] } else { h[row * right + k - left] };
            let element = |place: usize| {
                let (row, column) = (place / columns, place % columns);
                let term = |k: usize| f64::from(factor(row, k)) * f64::from(weight[k * columns + column]);
                (0..left + right).map(term).sum()
            };
            assert_close(&out, &(0..rows * columns).map(element).collect::<Vec<f64>>());
        }
    }

    #[test]
    fn transposed_products_are_those_of_the_definition_for_some_columns() {
        for (rows, inputs, outputs, first, width) in [(1, 1, 3, 1, 1), (300, 23, 40, 7, 33), (129, 10, 16, 0, 16)] {
            let (x, gradient) = (numbers(rows * inputs, 1), numbers(rows * outputs, 2));
            let mut out = vec![0.5; inputs * width];
            let grouped = Grouped::new(View { elements: &x, columns: inputs });
            let gradient_view = View { elements: &gradient, columns: outputs };
            add_transposed_product(&grouped, gradient_view, first, width, &mut out);
            let element = |place: usize| {
                let (input, column) = (place / width, first + place % width);
                let term =
                    |row: usize| f64::from(x[row * inputs + input]) * f64::from(gradient[row * outputs + column]);
                0.5 + (0..rows).map(term).sum::<f64>()
            };
            assert_close(&out, &(0..inputs * width).map(element).collect::<Vec<f64>>());
        }
    }
}
