//! Products of a few rows with one matrix, again and again, on one thread.
//!
//! A recurrent layer multiplies its hidden state by the same weights at every time step. The weights are packed once, and
//! no time goes into starting threads: each has its own examples for the whole sequence.

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
    /// Packs a matrix of `rows` x `columns`.
    pub fn new(matrix: &[f32], rows: usize, columns: usize) -> Self {
        Self::pack(rows, columns, |row, column| matrix[row * columns + column])
    }

    /// Packs the transpose of a matrix of `rows` x `columns`.
    pub fn transposed(matrix: &[f32], rows: usize, columns: usize) -> Self {
        Self::pack(columns, rows, |row, column| matrix[column * columns + row])
    }

    fn pack(rows: usize, columns: usize, element: impl Fn(usize, usize) -> f32) -> Self {
        let mut panels = vec![0.0; columns.div_ceil(PANEL) * rows * PANEL];
        for (number, panel) in panels.chunks_exact_mut(rows.max(1) * PANEL).enumerate() {
            let first = number * PANEL;
            let width = PANEL.min(columns - first);
            for (row, values) in panel.chunks_exact_mut(PANEL).enumerate() {
                for (place, value) in values[..width].iter_mut().enumerate() {
                    *value = element(row, first + place);
                }
            }
        }
        Self { rows, columns, panels }
    }
}

/// `a b + c`, in one rounding where the machine has an instruction for it.
#[inline(always)]
fn multiply_add<const FMA: bool>(a: f32, b: f32, c: f32) -> f32 {
    if FMA { a.mul_add(b, c) } else { a * b + c }
}

/// `out = start + x matrix`, or `out += x matrix` without a start. Every element is summed in the same order whatever the
/// number of rows.
///
/// # Shapes
///
/// - x: `[rows, matrix.rows]`
/// - start, out: `[rows, matrix.columns]`
#[multiversion(targets("x86_64+avx512f+avx512vl+avx2+fma", "x86_64+avx2+fma"))]
pub fn add_product(x: &[f32], matrix: &Packed, start: Option<&[f32]>, out: &mut [f32]) {
    // The rows whose sums stay in registers. The numbers were measured: beside them the compiler uses memory.
    match_target! {
        "x86_64+avx512f" => by_rows::<10, true>(x, matrix, start, out),
        "x86_64+avx2+fma" => by_rows::<6, true>(x, matrix, start, out),
        "aarch64+neon" => by_rows::<6, true>(x, matrix, start, out),
        _ => by_rows::<4, false>(x, matrix, start, out),
    }
}

#[inline(always)]
fn by_rows<const ROWS: usize, const FMA: bool>(x: &[f32], matrix: &Packed, start: Option<&[f32]>, out: &mut [f32]) {
    let Packed { rows: inner, columns, panels } = matrix;
    let (inner, columns) = (*inner, *columns);
    let rows = out.len() / columns;
    let mut scratch = vec![0.0; inner * ROWS];
    let mut first = 0;
    while first < rows {
        let count = ROWS.min(rows - first);
        // The rows side by side, so that the inner loop reads one after the other.
        for row in 0..count {
            let values = &x[(first + row) * inner..(first + row + 1) * inner];
            for (group, value) in scratch.chunks_exact_mut(ROWS).zip(values) {
                group[row] = *value;
            }
        }
        let out = &mut out[first * columns..(first + count) * columns];
        let start = start.map(|start| &start[first * columns..(first + count) * columns]);
        for (number, panel) in panels.chunks_exact(inner * PANEL).enumerate() {
            let sums = tile::<ROWS, FMA>(&scratch, panel);
            let column = number * PANEL;
            let width = PANEL.min(columns - column);
            for (row, sums) in sums.iter().enumerate().take(count) {
                let place = row * columns + column;
                let out = &mut out[place..place + width];
                match start {
                    Some(start) => {
                        let start = &start[place..place + width];
                        for ((out, start), sum) in out.iter_mut().zip(start).zip(sums) {
                            *out = start + sum;
                        }
                    }
                    None => {
                        for (out, sum) in out.iter_mut().zip(sums) {
                            *out += sum;
                        }
                    }
                }
            }
        }
        first += count;
    }
}

/// The product of `ROWS` rows, side by side, with a panel.
#[inline(always)]
fn tile<const ROWS: usize, const FMA: bool>(x: &[f32], panel: &[f32]) -> [[f32; PANEL]; ROWS] {
    let mut sums = [[0.0_f32; PANEL]; ROWS];
    for (x, weights) in x.chunks_exact(ROWS).zip(panel.chunks_exact(PANEL)) {
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
