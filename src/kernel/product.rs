//! Products of a few rows with one matrix, again and again, on one thread.
//!
//! A recurrent layer multiplies its input and its hidden state by the same weights at every time step. The weights are packed
//! once, and no time goes into starting threads: each has its own examples for the whole sequence.

// A function that is not inlined into one with a target feature does without it.
#![allow(clippy::inline_always)]

use std::ops::Range;

use pulp::{Arch, Simd, WithSimd};

use super::matrix::{
    NARROW, Real, Rows, Tile, WIDEST, has_many_registers, pack, pack_transposed, panel_width, put, rows_of_tile, tile,
    tile_width, transposed_tile,
};
use super::pool;

/// A matrix in panels of so many columns as a tile has, each panel row by row; the last one is filled up with zeros.
#[derive(Debug)]
pub struct Packed<T> {
    panel: usize,
    rows: usize,
    columns: usize,
    panels: Vec<T>,
    /// What the sums of each column begin with.
    start: Vec<T>,
    /// From the first to the last row of each panel that has been set: the others are left out of products.
    set_rows: Vec<Range<usize>>,
}

impl<T: Real> Packed<T> {
    /// A matrix of zeros.
    pub fn zeros(rows: usize, columns: usize) -> Self {
        let panel = panel_width::<T>();
        let count = columns.div_ceil(panel);
        let zeros = |count| vec![T::default(); count];
        let (panels, start) = (zeros(count * rows * panel), zeros(count * panel));
        Self { panel, rows, columns, panels, start, set_rows: vec![0..0; count] }
    }

    /// The transpose of a matrix.
    pub fn transposed(matrix: Rows<'_, T>) -> Self {
        let mut packed = Self::zeros(matrix.columns, matrix.count());
        pack_transposed(matrix, &(0..packed.columns), packed.panel, &mut packed.panels);
        packed.set_rows.fill(0..packed.rows);
        packed
    }

    /// Sets part of a row from its column `first` on.
    pub fn set(&mut self, row: usize, first: usize, values: &[T]) {
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

    /// Sets what the sums begin with from column `first` on.
    pub fn start_with(&mut self, first: usize, values: &[T]) {
        self.start[first..first + values.len()].copy_from_slice(values);
    }
}

/// Some columns of a matrix, which are multiplied by as many rows of another one.
#[derive(Clone, Debug)]
pub struct Part<'a, T> {
    /// The matrix.
    pub factor: Rows<'a, T>,
    /// Its columns.
    pub columns: Range<usize>,
    /// The first row of the other matrix.
    pub first: usize,
}

/// The start of every column and `[parts] matrix`: every row of the factor is put together from the rows of several matrices.
/// Every element is summed in the same order whatever the number of rows.
///
/// # Shapes
///
/// - parts: `[rows, some columns]`
/// - out: `[rows, matrix columns]`
pub fn product<T: Real>(parts: &[Part<'_, T>], matrix: &Packed<T>, out: &mut [T]) {
    struct Product<'a, T> {
        parts: &'a [Part<'a, T>],
        matrix: &'a Packed<T>,
        out: &'a mut [T],
    }
    impl<T: Real> WithSimd for Product<'_, T> {
        type Output = ();

        #[inline(always)]
        fn with_simd<S: Simd>(self, simd: S) {
            let Self { parts, matrix, out } = self;
            if has_many_registers::<S>() {
                by_panels::<S, T, WIDEST>(simd, parts, matrix, out);
            } else {
                by_panels::<S, T, NARROW>(simd, parts, matrix, out);
            }
        }
    }
    Arch::new().dispatch(Product { parts, matrix, out });
}

/// All rows by a panel before the next one, which stays in the cache meanwhile.
#[inline(always)]
fn by_panels<S: Simd, T: Real, const ROWS: usize>(simd: S, parts: &[Part<'_, T>], matrix: &Packed<T>, out: &mut [T]) {
    let rows = out.len() / matrix.columns;
    for panel in 0..matrix.set_rows.len() {
        let mut first = 0;
        while first < rows {
            let count = rows_of_tile::<ROWS>(rows - first);
            let place = Place { panel, rows: first..first + count };
            match count {
                0..=2 => few_rows::<S, T, 2>(simd, parts, matrix, &place, out),
                3..=4 => few_rows::<S, T, 4>(simd, parts, matrix, &place, out),
                5..=8 if ROWS > 8 => few_rows::<S, T, 8>(simd, parts, matrix, &place, out),
                _ => few_rows::<S, T, ROWS>(simd, parts, matrix, &place, out),
            }
            first += count;
        }
    }
}

/// Rows of a product by the columns of a panel.
struct Place {
    panel: usize,
    rows: Range<usize>,
}

/// At most `ROWS` rows by one panel.
#[inline(always)]
fn few_rows<S: Simd, T: Real, const ROWS: usize>(
    simd: S,
    parts: &[Part<'_, T>],
    matrix: &Packed<T>,
    place: &Place,
    out: &mut [T],
) {
    let width = tile_width::<S, T>();
    let column = place.panel * width;
    let start = T::vectors::<S>(&matrix.start[column..column + width]);
    let mut sums: Tile<S, T, ROWS> = [[start[0], start[1]]; ROWS];
    let panel = &matrix.panels[place.panel * matrix.rows * width..][..matrix.rows * width];
    let set_rows = &matrix.set_rows[place.panel];
    for Part { factor, columns, first } in parts {
        let (from, to) = (set_rows.start.max(*first), set_rows.end.min(first + columns.len()));
        if from < to {
            // Rows that are not there repeat the last one; what becomes of them is not looked at.
            let row = |number: usize| (place.rows.start + number).min(place.rows.end - 1);
            let used = columns.start + from - first..columns.start + to - first;
            let factors = std::array::from_fn(|number| &factor.row(row(number))[used.clone()]);
            sums = tile::<S, T, ROWS>(simd, sums, factors, T::vectors::<S>(&panel[from * width..to * width]));
        }
    }
    let end = matrix.columns.min(column + width);
    for (sums, row) in sums.iter().zip(place.rows.clone()) {
        put::<S, T>(simd, sums, &mut out[row * matrix.columns..][column..end], |_, new, _| new);
    }
}

/// Rows that are taken at a time, so that they stay in the cache.
const BLOCK: usize = 128;

/// A matrix whose transpose is multiplied by the rows of a gradient.
#[derive(Clone, Copy, Debug)]
pub struct Factor<'a, T> {
    /// The matrix.
    pub rows: Rows<'a, T>,
    /// Rows of the gradient before the one that belongs to its first row.
    pub skipped: usize,
}

/// Some panels of the columns of a product, and the rows that are used of each.
#[derive(Clone, Debug)]
pub struct Panels {
    /// The number of the first one.
    pub first: usize,
    /// The rows that are used of each.
    pub used: Vec<Range<usize>>,
}

/// `out += [factors]^T gradient`, for some panels of the columns of the gradient. The columns of all factors stand side by side.
/// What is not used of a panel is left as it was.
///
/// # Shapes
///
/// - factors: `[rows, some inputs]`, gradient: `[rows, outputs]`
/// - out: `[all inputs, columns of the panels]`, row by row
pub fn add_transposed_product<T: Real>(
    factors: &[Factor<'_, T>],
    gradient: Rows<'_, T>,
    panels: &Panels,
    out: &mut [&mut [T]],
) {
    struct TransposedProduct<'a, 'b, T> {
        factors: &'a [Factor<'a, T>],
        gradient: Rows<'a, T>,
        panels: &'a Panels,
        out: &'a mut [&'b mut [T]],
    }
    impl<T: Real> WithSimd for TransposedProduct<'_, '_, T> {
        type Output = ();

        #[inline(always)]
        fn with_simd<S: Simd>(self, simd: S) {
            let Self { factors, gradient, panels, out } = self;
            if has_many_registers::<S>() {
                by_blocks::<S, T, WIDEST>(simd, factors, gradient, panels, out);
            } else {
                by_blocks::<S, T, NARROW>(simd, factors, gradient, panels, out);
            }
        }
    }
    Arch::new().dispatch(TransposedProduct { factors, gradient, panels, out });
}

#[inline(always)]
fn by_blocks<S: Simd, T: Real, const ROWS: usize>(
    simd: S,
    factors: &[Factor<'_, T>],
    gradient: Rows<'_, T>,
    panels: &Panels,
    out: &mut [&mut [T]],
) {
    let width = tile_width::<S, T>();
    let mut panel = pool::take::<T>(BLOCK * width);
    for first in (0..gradient.count()).step_by(BLOCK) {
        let rows = first..gradient.count().min(first + BLOCK);
        for (number, used) in panels.used.iter().enumerate() {
            let column = (panels.first + number) * width;
            let columns = column..gradient.columns.min(column + width);
            pack::<S, T>(gradient.some(&rows), &columns, &mut panel);
            let columns = number * width..number * width + columns.len();
            let mut before = 0;
            for factor in factors {
                let inputs = used.start.max(before)..used.end.min(before + factor.rows.columns);
                let start = rows.start.max(factor.skipped);
                if start < rows.end {
                    let panel = T::vectors::<S>(&panel[(start - rows.start) * width..rows.len() * width]);
                    let x = factor.rows.some(&(start - factor.skipped..rows.end - factor.skipped));
                    let mut input = inputs.start;
                    while input < inputs.end {
                        let (x, out) = ((x, input - before), &mut out[input..inputs.end]);
                        input += match out.len() {
                            count if count >= ROWS => few_inputs::<S, T, ROWS>(simd, x, panel, out, &columns),
                            8.. => few_inputs::<S, T, 8>(simd, x, panel, out, &columns),
                            4.. => few_inputs::<S, T, 4>(simd, x, panel, out, &columns),
                            2.. => few_inputs::<S, T, 2>(simd, x, panel, out, &columns),
                            _ => few_inputs::<S, T, 1>(simd, x, panel, out, &columns),
                        };
                    }
                }
                before += factor.rows.columns;
            }
        }
    }
    pool::give(panel);
}

/// Adds `ROWS` rows of the product, from a column of x on, by one panel of the gradient. Returns their number.
#[inline(always)]
fn few_inputs<S: Simd, T: Real, const ROWS: usize>(
    simd: S,
    (x, first): (Rows<'_, T>, usize),
    panel: &[T::Vector<S>],
    out: &mut [&mut [T]],
    columns: &Range<usize>,
) -> usize {
    let sums: Tile<S, T, ROWS> = transposed_tile(simd, &x.elements[first..], x.columns, panel);
    for (sums, row) in sums.iter().zip(out) {
        put::<S, T>(simd, sums, &mut row[columns.clone()], |simd, new, before| T::add(simd, new, before));
    }
    ROWS
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

    fn rows(elements: &[f32], columns: usize) -> Rows<'_, f32> {
        Rows { elements, columns }
    }

    #[test]
    fn products_are_those_of_the_definition_for_sizes_that_fit_no_tile() {
        for (rows_of_x, left, right, columns) in [(1, 1, 0, 1), (4, 3, 2, 17), (13, 5, 8, 33), (64, 28, 19, 50)] {
            // Of h only some columns are used.
            let (x, h) = (numbers(rows_of_x * left, 1), numbers(rows_of_x * (right + 3), 2));
            let (weight, bias) = (numbers((left + right) * columns, 3), numbers(columns, 4));
            let mut packed = Packed::zeros(left + right, columns);
            packed.start_with(0, &bias);
            for (row, values) in weight.chunks_exact(columns).enumerate() {
                packed.set(row, 0, values);
            }
            let mut out = vec![7.0; rows_of_x * columns];
            let of_x = Part { factor: rows(&x, left), columns: 0..left, first: 0 };
            let of_h = Part { factor: rows(&h, right + 3), columns: 2..right + 2, first: left };
            product(&[of_x, of_h], &packed, &mut out);
            let factor =
                |row: usize, k: usize| if k < left { x[row * left + k] } else { h[row * (right + 3) + 2 + k - left] };
            let element = |place: usize| {
                let (row, column) = (place / columns, place % columns);
                let term = |k: usize| f64::from(factor(row, k)) * f64::from(weight[k * columns + column]);
                f64::from(bias[column]) + (0..left + right).map(term).sum::<f64>()
            };
            assert_close(&out, &(0..rows_of_x * columns).map(element).collect::<Vec<f64>>());
        }
    }

    #[test]
    fn a_product_with_the_transpose_is_that_of_the_definition() {
        for (count, inner, columns) in [(1, 1, 1), (13, 21, 35), (30, 40, 70)] {
            let (x, weight) = (numbers(count * inner, 1), numbers(columns * inner, 2));
            let mut out = vec![7.0; count * columns];
            let part = Part { factor: rows(&x, inner), columns: 0..inner, first: 0 };
            product(&[part], &Packed::transposed(rows(&weight, inner)), &mut out);
            let element = |place: usize| {
                let (row, column) = (place / columns, place % columns);
                (0..inner).map(|k| f64::from(x[row * inner + k]) * f64::from(weight[column * inner + k])).sum()
            };
            assert_close(&out, &(0..count * columns).map(element).collect::<Vec<f64>>());
        }
    }

    #[test]
    fn rows_that_were_not_set_are_zeros_in_a_product() {
        let (count, inner, columns) = (11, 9, 50);
        let x = numbers(count * inner, 1);
        let mut packed = Packed::zeros(inner, columns);
        let mut weight = vec![0.0; inner * columns];
        // Some panels have none, some the first rows, some the last and some rows on both sides of a gap.
        for (row, range) in [(0, 0..20), (1, 3..17), (4, 17..33), (6, 20..35), (8, 30..35)] {
            let values = numbers(range.len(), row);
            weight[row * columns..][range.clone()].copy_from_slice(&values);
            packed.set(row, range.start, &values);
        }
        for used in [1, 5, inner] {
            let mut found = vec![7.0; count * columns];
            product(&[Part { factor: rows(&x, inner), columns: 0..used, first: 0 }], &packed, &mut found);
            let element = |place: usize| {
                let (row, column) = (place / columns, place % columns);
                (0..used).map(|k| f64::from(x[row * inner + k]) * f64::from(weight[k * columns + column])).sum()
            };
            assert_close(&found, &(0..count * columns).map(element).collect::<Vec<f64>>());
        }
    }

    #[test]
    fn transposed_products_are_those_of_the_definition_where_they_are_used() {
        let width = panel_width::<f32>();
        // The rows that are used of each panel, from its first to behind its last.
        for (count, skipped, [left, right], outputs, first, used) in [
            (1, 0, [1, 1], 3, 0, &[(0, 2)][..]),
            (300, 0, [20, 3], 3 * width - 5, 1, &[(0, 23), (4, 23)]),
            (300, 140, [17, 29], 3 * width - 5, 0, &[(0, 46), (3, 20)]),
            (129, 5, [1, 40], width, 0, &[(1, 41)]),
        ] {
            let used: Vec<Range<usize>> = used.iter().map(|(start, end)| *start..*end).collect();
            let (x, h) = (numbers(count * left, 1), numbers((count - skipped) * right, 2));
            let gradient = numbers(count * outputs, 3);
            let columns = first * width..outputs.min((first + used.len()) * width);
            let mut found = vec![7.0; (left + right) * columns.len()];
            let mut out: Vec<&mut [f32]> = found.chunks_exact_mut(columns.len()).collect();
            let panels = Panels { first, used };
            let factors = [Factor { rows: rows(&x, left), skipped: 0 }, Factor { rows: rows(&h, right), skipped }];
            add_transposed_product(&factors, rows(&gradient, outputs), &panels, &mut out);
            let factor = |row: usize, input: usize| match input.checked_sub(left) {
                None => x[row * left + input],
                Some(_) if row < skipped => 0.0,
                Some(input) => h[(row - skipped) * right + input],
            };
            for (input, found) in found.chunks_exact(columns.len()).enumerate() {
                for (place, found) in found.iter().enumerate() {
                    let column = columns.start + place;
                    let term = |row| f64::from(factor(row, input)) * f64::from(gradient[row * outputs + column]);
                    let is_used = panels.used[place / width].contains(&input);
                    assert_close(&[*found], &[7.0 + if is_used { (0..count).map(term).sum() } else { 0.0 }]);
                }
            }
        }
    }
}
