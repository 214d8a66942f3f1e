//! Products of matrices on the CPU, as a dense layer needs them.
//!
//! A tile of the result stands in vector registers while the sums over the inner dimension run. The second factor is read from
//! panels of as many columns as a tile has, which are packed first; the first factor is read where it lies. Every element is summed in
//! the same order, whatever the number of threads and whoever takes which rows.

// A function that is not inlined into one with a target feature does without it.
#![allow(clippy::inline_always)]

use std::ops::Range;

use pulp::{Arch, Simd, WithSimd};

use super::pool::{self, Pooled};

/// The numbers of a matrix, f32 or f64, and the vectors of them that a processor calculates with.
pub trait Real: Pooled + Send + Sync + PartialOrd + std::fmt::Debug + 'static {
    /// A vector register.
    type Vector<S: Simd>: Copy;

    /// The same number everywhere.
    fn splat<S: Simd>(simd: S, x: Self) -> Self::Vector<S>;
    /// `a b + c`, in one rounding where the processor has an instruction for it.
    fn multiply_add<S: Simd>(simd: S, a: Self::Vector<S>, b: Self::Vector<S>, c: Self::Vector<S>) -> Self::Vector<S>;
    /// `a + b`
    fn add<S: Simd>(simd: S, a: Self::Vector<S>, b: Self::Vector<S>) -> Self::Vector<S>;
    /// The larger one of a and |b|.
    fn larger<S: Simd>(simd: S, a: Self::Vector<S>, b: Self::Vector<S>) -> Self::Vector<S>;
    /// As many whole vectors as the numbers have.
    fn vectors<S: Simd>(numbers: &[Self]) -> &[Self::Vector<S>];
    /// The same to be written.
    fn vectors_mut<S: Simd>(numbers: &mut [Self]) -> &mut [Self::Vector<S>];
}

macro_rules! real {
    ($number:ty, $vector:ident, $splat:ident, $multiply_add:ident, $add:ident, $abs:ident, $max:ident, $as:ident, $as_mut:ident) => {
        impl Real for $number {
            type Vector<S: Simd> = S::$vector;

            #[inline(always)]
            fn splat<S: Simd>(simd: S, x: Self) -> S::$vector {
                simd.$splat(x)
            }

            #[inline(always)]
            fn multiply_add<S: Simd>(simd: S, a: S::$vector, b: S::$vector, c: S::$vector) -> S::$vector {
                simd.$multiply_add(a, b, c)
            }

            #[inline(always)]
            fn add<S: Simd>(simd: S, a: S::$vector, b: S::$vector) -> S::$vector {
                simd.$add(a, b)
            }

            #[inline(always)]
            fn larger<S: Simd>(simd: S, a: S::$vector, b: S::$vector) -> S::$vector {
                simd.$max(a, simd.$abs(b))
            }

            #[inline(always)]
            fn vectors<S: Simd>(numbers: &[Self]) -> &[S::$vector] {
                S::$as(numbers).0
            }

            #[inline(always)]
            fn vectors_mut<S: Simd>(numbers: &mut [Self]) -> &mut [S::$vector] {
                S::$as_mut(numbers).0
            }
        }
    };
}

real!(f32, f32s, splat_f32s, mul_add_e_f32s, add_f32s, abs_f32s, max_f32s, as_simd_f32s, as_mut_simd_f32s);
real!(f64, f64s, splat_f64s, mul_add_e_f64s, add_f64s, abs_f64s, max_f64s, as_simd_f64s, as_mut_simd_f64s);

/// Vectors side by side in a tile.
const SIDE_BY_SIDE: usize = 2;

/// Rows of a tile on machines with more than 16 vector registers, and on others.
pub(super) const WIDE: usize = 8;
/// See [`WIDE`].
pub(super) const NARROW: usize = 4;

/// Numbers in a vector.
#[inline(always)]
fn lanes<S: Simd, T: Real>() -> usize {
    size_of::<T::Vector<S>>() / size_of::<T>()
}

/// Whether there are registers for the sums of a large tile.
#[inline(always)]
pub(super) fn has_many_registers<S: Simd>() -> bool {
    S::REGISTER_COUNT > 16
}

/// Columns of a panel and of a tile on this machine.
pub(super) fn panel_width<T: Real>() -> usize {
    struct Width<T>(std::marker::PhantomData<T>);
    impl<T: Real> WithSimd for Width<T> {
        type Output = usize;

        fn with_simd<S: Simd>(self, _: S) -> usize {
            SIDE_BY_SIDE * lanes::<S, T>()
        }
    }
    Arch::new().dispatch(Width::<T>(std::marker::PhantomData))
}

/// Rows of a matrix, one after the other.
#[derive(Clone, Copy, Debug)]
pub struct Rows<'a, T> {
    /// The numbers.
    pub elements: &'a [T],
    /// Numbers in a row.
    pub columns: usize,
}

impl<'a, T> Rows<'a, T> {
    fn count(&self) -> usize {
        self.elements.len() / self.columns
    }

    fn row(&self, row: usize) -> &'a [T] {
        &self.elements[row * self.columns..][..self.columns]
    }
}

/// A matrix in panels of columns, each panel row by row; the last one is filled up with zeros.
#[derive(Debug)]
pub struct Panels<T: Real> {
    rows: usize,
    columns: usize,
    width: usize,
    elements: Vec<T>,
}

impl<T: Real> Panels<T> {
    /// A place for a matrix.
    pub fn new(rows: usize, columns: usize) -> Self {
        let width = panel_width::<T>();
        let mut elements = pool::take::<T>(columns.div_ceil(width) * width * rows);
        if !columns.is_multiple_of(width) {
            // Columns that are not there are zeros.
            let last = elements.len() - rows * width;
            elements[last..].fill(T::default());
        }
        Self { rows, columns, width, elements }
    }

    /// The panels one by one, each with its columns, to be filled by [`pack`] or [`pack_transposed`].
    pub fn parts(&mut self) -> impl Iterator<Item = (Range<usize>, &mut [T])> {
        let (columns, width) = (self.columns, self.width);
        let panels = self.elements.chunks_exact_mut((self.rows * width).max(1));
        panels.enumerate().map(move |(number, panel)| (number * width..columns.min((number + 1) * width), panel))
    }
}

impl<T: Real> Drop for Panels<T> {
    fn drop(&mut self) {
        pool::give(std::mem::take(&mut self.elements));
    }
}

/// Fills the panel of some columns of a matrix.
pub fn pack<T: Real>(matrix: Rows<'_, T>, columns: &Range<usize>, panel: &mut [T]) {
    struct Pack<'a, T: Real> {
        matrix: Rows<'a, T>,
        columns: &'a Range<usize>,
        panel: &'a mut [T],
    }
    impl<T: Real> WithSimd for Pack<'_, T> {
        type Output = ();

        #[inline(always)]
        fn with_simd<S: Simd>(self, _: S) {
            let width = SIDE_BY_SIDE * lanes::<S, T>();
            let rows = self.matrix.elements.chunks_exact(self.matrix.columns);
            for (place, row) in self.panel.chunks_exact_mut(width).zip(rows) {
                copy::<S, T>(&row[self.columns.clone()], place);
            }
        }
    }
    Arch::new().dispatch(Pack { matrix, columns, panel });
}

/// Adds rows to the sums of their columns; returns the largest absolute number.
pub fn add_up<T: Real>(rows: &[T], sums: &mut [T]) -> T {
    struct AddUp<'a, T> {
        rows: &'a [T],
        sums: &'a mut [T],
    }
    impl<T: Real> WithSimd for AddUp<'_, T> {
        type Output = T;

        #[inline(always)]
        fn with_simd<S: Simd>(self, simd: S) -> T {
            let mut largest = T::splat(simd, T::default());
            let lanes = lanes::<S, T>();
            for row in self.rows.chunks_exact(self.sums.len()) {
                for (sums, row) in self.sums.chunks_mut(lanes).zip(row.chunks(lanes)) {
                    let row = load::<S, T>(row);
                    largest = T::larger(simd, largest, row);
                    put::<S, T>(simd, &[row], sums, T::add::<S>);
                }
            }
            let mut lanes = [T::default(); LARGEST_VECTOR];
            T::vectors_mut::<S>(&mut lanes)[0] = largest;
            lanes.into_iter().fold(T::default(), |largest, x| if x > largest { x } else { largest })
        }
    }
    Arch::new().dispatch(AddUp { rows, sums })
}

/// Fills the panel of some columns of a matrix whose transpose is given: they are rows of it.
pub fn pack_transposed<T: Real>(transpose: Rows<'_, T>, columns: &Range<usize>, panel: &mut [T]) {
    /// Rows of the panel that are written at a time, so that they stay in the cache.
    const BLOCK: usize = 16;
    let width = panel_width::<T>();
    for (block, place) in panel.chunks_mut(BLOCK * width).enumerate() {
        for (column, source) in columns.clone().enumerate() {
            let source = &transpose.row(source)[block * BLOCK..];
            for (row, value) in place.chunks_exact_mut(width).zip(source) {
                row[column] = *value;
            }
        }
    }
}

/// `out = x matrix`, rows of it.
///
/// # Shapes
///
/// - x: `[rows, inner]`, panels: `[inner, columns]`
/// - out: `[rows, columns]`
pub fn multiply<T: Real>(x: Rows<'_, T>, panels: &Panels<T>, out: &mut [T]) {
    struct Multiply<'a, T: Real> {
        x: Rows<'a, T>,
        panels: &'a Panels<T>,
        out: &'a mut [T],
    }
    impl<T: Real> WithSimd for Multiply<'_, T> {
        type Output = ();

        #[inline(always)]
        fn with_simd<S: Simd>(self, simd: S) {
            let Self { x, panels, out } = self;
            if has_many_registers::<S>() {
                by_rows::<S, T, WIDE>(simd, x, panels, out);
            } else {
                by_rows::<S, T, NARROW>(simd, x, panels, out);
            }
        }
    }
    Arch::new().dispatch(Multiply { x, panels, out });
}

/// `out = x^T gradient`, for some columns of x, which are rows of the result.
///
/// # Shapes
///
/// - x: `[rows, inputs]`, gradient: `[rows, outputs]`
/// - out: `[some inputs, outputs]`
pub fn multiply_transposed<T: Real>(x: Rows<'_, T>, inputs: Range<usize>, gradient: Rows<'_, T>, out: &mut [T]) {
    struct MultiplyTransposed<'a, T> {
        x: Rows<'a, T>,
        inputs: Range<usize>,
        gradient: Rows<'a, T>,
        out: &'a mut [T],
    }
    impl<T: Real> WithSimd for MultiplyTransposed<'_, T> {
        type Output = ();

        #[inline(always)]
        fn with_simd<S: Simd>(self, simd: S) {
            let Self { x, inputs, gradient, out } = self;
            if has_many_registers::<S>() {
                by_inputs::<S, T, WIDE>(simd, x, &inputs, gradient, out);
            } else {
                by_inputs::<S, T, NARROW>(simd, x, &inputs, gradient, out);
            }
        }
    }
    Arch::new().dispatch(MultiplyTransposed { x, inputs, gradient, out });
}

/// A tile of a result, in registers.
pub(super) type Tile<S, T, const ROWS: usize> = [[<T as Real>::Vector<S>; SIDE_BY_SIDE]; ROWS];

#[inline(always)]
fn by_rows<S: Simd, T: Real, const ROWS: usize>(simd: S, x: Rows<'_, T>, panels: &Panels<T>, out: &mut [T]) {
    let Panels { rows: inner, columns, width, .. } = *panels;
    let rows = out.len() / columns;
    for (number, panel) in panels.elements.chunks_exact((inner * width).max(1)).enumerate() {
        let first = number * width;
        let width = width.min(columns - first);
        let panel = T::vectors::<S>(panel);
        for row in (0..rows).step_by(ROWS) {
            let count = ROWS.min(rows - row);
            let out = &mut out[row * columns + first..];
            // Rows that are not there repeat the last one; what becomes of them is not looked at.
            if count > ROWS / 2 {
                let factors: [&[T]; ROWS] = std::array::from_fn(|place| x.row(row + place.min(count - 1)));
                store(simd, &tile(simd, factors, panel)[..count], out, columns, width);
            } else if count > 2 {
                let factors: [&[T]; 4] = std::array::from_fn(|place| x.row(row + place.min(count - 1)));
                store(simd, &tile(simd, factors, panel)[..count], out, columns, width);
            } else {
                let factors: [&[T]; 2] = std::array::from_fn(|place| x.row(row + place.min(count - 1)));
                store(simd, &tile(simd, factors, panel)[..count], out, columns, width);
            }
        }
    }
}

/// The sums over a panel's rows of the products with the numbers of as many rows of the first factor.
#[inline(always)]
fn tile<S: Simd, T: Real, const ROWS: usize>(
    simd: S,
    factors: [&[T]; ROWS],
    panel: &[T::Vector<S>],
) -> Tile<S, T, ROWS> {
    let (panel, _) = panel.as_chunks::<SIDE_BY_SIDE>();
    assert!(factors.iter().all(|factor| factor.len() >= panel.len()));
    let mut sums = [[T::splat(simd, T::default()); SIDE_BY_SIDE]; ROWS];
    for (k, weights) in panel.iter().enumerate() {
        for row in 0..ROWS {
            // SAFETY: k is below the length of the panel, and every factor has at least so many numbers, as is asserted above.
            // The compiler does not see it through the array of slices, and a check for each number takes as long as the sums.
            #[allow(unsafe_code)]
            let x = T::splat(simd, unsafe { *factors[row].get_unchecked(k) });
            for place in 0..SIDE_BY_SIDE {
                sums[row][place] = T::multiply_add(simd, x, weights[place], sums[row][place]);
            }
        }
    }
    sums
}

/// Writes the first `width` numbers of each row of a tile, which are almost always all.
#[inline(always)]
pub(super) fn store<S: Simd, T: Real>(
    simd: S,
    sums: &[[T::Vector<S>; SIDE_BY_SIDE]],
    out: &mut [T],
    columns: usize,
    width: usize,
) {
    for (row, sums) in sums.iter().enumerate() {
        put::<S, T>(simd, sums, &mut out[row * columns..][..width], |_, new, _| new);
    }
}

/// Adds them instead.
#[inline(always)]
pub(super) fn add<S: Simd, T: Real>(
    simd: S,
    sums: &[[T::Vector<S>; SIDE_BY_SIDE]],
    out: &mut [T],
    columns: usize,
    width: usize,
) {
    for (row, sums) in sums.iter().enumerate() {
        put::<S, T>(simd, sums, &mut out[row * columns..][..width], T::add::<S>);
    }
}

/// Puts a row of a tile where there may be less room than it takes.
#[inline(always)]
fn put<S: Simd, T: Real>(
    simd: S,
    sums: &[T::Vector<S>],
    out: &mut [T],
    combine: impl Fn(S, T::Vector<S>, T::Vector<S>) -> T::Vector<S>,
) {
    let lanes = lanes::<S, T>();
    for (sum, out) in sums.iter().zip(out.chunks_mut(lanes)) {
        let new = combine(simd, *sum, load::<S, T>(out));
        if let [whole] = T::vectors_mut::<S>(out) {
            *whole = new;
        } else {
            let mut place = [T::default(); LARGEST_VECTOR];
            T::vectors_mut::<S>(&mut place)[0] = new;
            out.copy_from_slice(&place[..out.len()]);
        }
    }
}

/// A vector, filled up with zeros where there are fewer numbers.
#[inline(always)]
fn load<S: Simd, T: Real>(numbers: &[T]) -> T::Vector<S> {
    if let [whole] = T::vectors::<S>(numbers) {
        return *whole;
    }
    let mut place = [T::default(); LARGEST_VECTOR];
    place[..numbers.len()].copy_from_slice(numbers);
    T::vectors::<S>(&place)[0]
}

/// Numbers in the largest vector.
const LARGEST_VECTOR: usize = 16;

/// Rows of the gradient that are taken at a time, so that a panel of them stays in the cache.
const BLOCK: usize = 256;

#[inline(always)]
fn by_inputs<S: Simd, T: Real, const ROWS: usize>(
    simd: S,
    x: Rows<'_, T>,
    inputs: &Range<usize>,
    gradient: Rows<'_, T>,
    out: &mut [T],
) {
    let (rows, outputs) = (gradient.count(), gradient.columns);
    let panel_width = SIDE_BY_SIDE * lanes::<S, T>();
    let mut panel = vec![T::default(); BLOCK.min(rows) * panel_width];
    let mut tail = vec![[T::default(); ROWS]; if inputs.len().is_multiple_of(ROWS) { 0 } else { BLOCK.min(rows) }];
    for start in (0..rows).step_by(BLOCK) {
        let end = rows.min(start + BLOCK);
        for first in (0..outputs).step_by(panel_width) {
            let width = panel_width.min(outputs - first);
            for (place, row) in panel.chunks_exact_mut(panel_width).zip(start..end) {
                copy::<S, T>(&gradient.elements[row * outputs + first..][..width], place);
            }
            let panel = T::vectors::<S>(&panel[..(end - start) * panel_width]);
            for input in inputs.clone().step_by(ROWS) {
                let count = ROWS.min(inputs.end - input);
                let out = &mut out[(input - inputs.start) * outputs + first..];
                let sums: Tile<S, T, ROWS> = if count == ROWS {
                    transposed_tile(simd, &x.elements[start * x.columns + input..], x.columns, panel)
                } else {
                    for (place, row) in tail.iter_mut().zip(start..end) {
                        place[..count].copy_from_slice(&x.elements[row * x.columns + input..][..count]);
                    }
                    transposed_tile(simd, tail.as_flattened(), ROWS, panel)
                };
                if start == 0 {
                    store(simd, &sums[..count], out, outputs, width);
                } else {
                    add(simd, &sums[..count], out, outputs, width);
                }
            }
        }
    }
}

/// Copies numbers to the beginning of a place, vector by vector where there are whole ones.
#[inline(always)]
pub(super) fn copy<S: Simd, T: Real>(from: &[T], to: &mut [T]) {
    let lanes = lanes::<S, T>();
    for (from, to) in from.chunks(lanes).zip(to.chunks_mut(lanes)) {
        match (T::vectors::<S>(from), T::vectors_mut::<S>(to)) {
            ([from], [to]) => *to = *from,
            _ => to[..from.len()].copy_from_slice(from),
        }
    }
}

/// The sums over a panel's rows of the products with `ROWS` numbers of each row of the first factor, whose rows have so many
/// columns.
#[inline(always)]
pub(super) fn transposed_tile<S: Simd, T: Real, const ROWS: usize>(
    simd: S,
    factor: &[T],
    columns: usize,
    panel: &[T::Vector<S>],
) -> Tile<S, T, ROWS> {
    let (panel, _) = panel.as_chunks::<SIDE_BY_SIDE>();
    let mut sums = [[T::splat(simd, T::default()); SIDE_BY_SIDE]; ROWS];
    for (weights, x) in panel.iter().zip(factor.chunks(columns)) {
        let Some(x) = x.first_chunk::<ROWS>() else {
            break;
        };
        for row in 0..ROWS {
            let x = T::splat(simd, x[row]);
            for place in 0..SIDE_BY_SIDE {
                sums[row][place] = T::multiply_add(simd, x, weights[place], sums[row][place]);
            }
        }
    }
    sums
}
