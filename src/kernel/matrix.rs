//! Products of matrices on the CPU, as a dense layer needs them.
//!
//! A tile of the result stands in vector registers while the sums over the inner dimension run. The second factor is read from
//! panels of as many columns as a tile has, which are packed first, as many as stay in the cache; the first factor is read where it
//! lies. Who takes some columns of the result packs what is needed for them and no more: nobody waits for others, and weights come
//! from memory once. Every element is summed in the same order, whatever the number of threads and whoever takes which part.

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
const WIDE: usize = 8;
/// The same of a first factor that is read row by row, or that stands side by side.
pub(super) const WIDEST: usize = 12;
/// See [`WIDE`].
pub(super) const NARROW: usize = 4;

/// Numbers in a vector.
#[inline(always)]
pub(super) fn lanes<S: Simd, T: Real>() -> usize {
    size_of::<T::Vector<S>>() / size_of::<T>()
}

/// Whether there are registers for the sums of a large tile.
#[inline(always)]
pub(super) fn has_many_registers<S: Simd>() -> bool {
    S::REGISTER_COUNT > 16
}

/// Columns of a panel and of a tile.
#[inline(always)]
pub(super) fn tile_width<S: Simd, T: Real>() -> usize {
    SIDE_BY_SIDE * lanes::<S, T>()
}

/// The same on this machine.
pub(super) fn panel_width<T: Real>() -> usize {
    struct Width<T>(std::marker::PhantomData<T>);
    impl<T: Real> WithSimd for Width<T> {
        type Output = usize;

        fn with_simd<S: Simd>(self, _: S) -> usize {
            tile_width::<S, T>()
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
    /// Their number.
    pub fn count(&self) -> usize {
        self.elements.len() / self.columns
    }

    /// Some of them.
    pub fn some(&self, rows: &Range<usize>) -> Self {
        Self { elements: &self.elements[rows.start * self.columns..rows.end * self.columns], columns: self.columns }
    }

    /// One of them.
    pub fn row(&self, row: usize) -> &'a [T] {
        &self.elements[row * self.columns..][..self.columns]
    }
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

/// `out = x weight`, some columns of it.
///
/// # Shapes
///
/// - x: `[rows, inner]`, weight: `[inner, columns]`
/// - out: `[rows, some columns]`, row by row
pub fn multiply<T: Real>(x: Rows<'_, T>, weight: Rows<'_, T>, columns: &Range<usize>, out: &mut [&mut [T]]) {
    by_columns(x, Factor::Plain(weight), columns, out);
}

/// `out = gradient weight^T`, some columns of it, which come from rows of the weight.
///
/// # Shapes
///
/// - gradient: `[rows, units]`, weight: `[inputs, units]`
/// - out: `[rows, some inputs]`, row by row
pub fn multiply_by_transpose<T: Real>(
    gradient: Rows<'_, T>,
    weight: Rows<'_, T>,
    inputs: &Range<usize>,
    out: &mut [&mut [T]],
) {
    by_columns(gradient, Factor::Transposed(weight), inputs, out);
}

fn by_columns<T: Real>(x: Rows<'_, T>, second: Factor<'_, T>, columns: &Range<usize>, out: &mut [&mut [T]]) {
    struct ByColumns<'a, 'b, T> {
        x: Rows<'a, T>,
        second: Factor<'a, T>,
        columns: &'a Range<usize>,
        out: &'a mut [&'b mut [T]],
    }
    impl<T: Real> WithSimd for ByColumns<'_, '_, T> {
        type Output = ();

        #[inline(always)]
        fn with_simd<S: Simd>(self, simd: S) {
            let Self { x, second, columns, out } = self;
            if has_many_registers::<S>() {
                by_panels::<S, T, WIDEST>(simd, x, second, columns, out);
            } else {
                by_panels::<S, T, NARROW>(simd, x, second, columns, out);
            }
        }
    }
    Arch::new().dispatch(ByColumns { x, second, columns, out });
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
            if has_many_registers::<S>() && x.columns >= FAR_APART {
                by_grouped_inputs::<S, T, WIDE>(simd, x, &inputs, gradient, out);
            } else if has_many_registers::<S>() {
                by_inputs::<S, T, WIDE>(simd, x, &inputs, gradient, out);
            } else {
                by_inputs::<S, T, NARROW>(simd, x, &inputs, gradient, out);
            }
        }
    }
    Arch::new().dispatch(MultiplyTransposed { x, inputs, gradient, out });
}

/// The numbers that panels of so many rows and columns take.
pub fn panels_length<T: Real>(rows: usize, columns: usize) -> usize {
    rows * columns.next_multiple_of(panel_width::<T>())
}

/// The matrix whose panels are packed.
#[derive(Clone, Copy, Debug)]
pub enum Factor<'a, T> {
    /// This one.
    Plain(Rows<'a, T>),
    /// The transpose of this one.
    Transposed(Rows<'a, T>),
}

/// Packs some columns of a matrix in panels for [`multiply_panels`].
pub fn pack_panels<T: Real>(matrix: Factor<'_, T>, columns: &Range<usize>, panels: &mut [T]) {
    struct Pack<'a, T> {
        matrix: Factor<'a, T>,
        columns: &'a Range<usize>,
        panels: &'a mut [T],
    }
    impl<T: Real> WithSimd for Pack<'_, T> {
        type Output = ();

        #[inline(always)]
        fn with_simd<S: Simd>(self, _: S) {
            pack_factor::<S, T>(self.matrix, self.columns, self.panels);
        }
    }
    Arch::new().dispatch(Pack { matrix, columns, panels });
}

#[inline(always)]
fn pack_factor<S: Simd, T: Real>(matrix: Factor<'_, T>, columns: &Range<usize>, panels: &mut [T]) {
    match matrix {
        Factor::Plain(matrix) => pack::<S, T>(matrix, columns, panels),
        Factor::Transposed(matrix) => pack_transposed(matrix, columns, tile_width::<S, T>(), panels),
    }
}

/// `out = x matrix + bias`, from the panels of all columns of the matrix. Every element is the one that [`multiply`] finds.
///
/// # Shapes
///
/// - x: `[rows, inner]`, bias: `[columns]`
/// - out: `[rows, columns]`
pub fn multiply_panels<T: Real>(x: Rows<'_, T>, panels: &[T], bias: Option<&[T]>, columns: usize, out: &mut [T]) {
    struct OverPanels<'a, T> {
        x: Rows<'a, T>,
        panels: &'a [T],
        bias: Option<&'a [T]>,
        columns: usize,
        out: &'a mut [T],
    }
    impl<T: Real> WithSimd for OverPanels<'_, T> {
        type Output = ();

        #[inline(always)]
        fn with_simd<S: Simd>(self, simd: S) {
            let Self { x, panels, bias, columns, out } = self;
            if has_many_registers::<S>() {
                over_panels::<S, T, WIDEST>(simd, x, panels, bias, columns, out);
            } else {
                over_panels::<S, T, NARROW>(simd, x, panels, bias, columns, out);
            }
        }
    }
    Arch::new().dispatch(OverPanels { x, panels, bias, columns, out });
}

#[inline(always)]
fn over_panels<S: Simd, T: Real, const ROWS: usize>(
    simd: S,
    x: Rows<'_, T>,
    panels: &[T],
    bias: Option<&[T]>,
    columns: usize,
    out: &mut [T],
) {
    let (rows, width) = (out.len() / columns, tile_width::<S, T>());
    for (first, panel) in (0..columns).step_by(width).zip(panels.chunks_exact(x.columns * width)) {
        let (panel, end) = (T::vectors::<S>(panel), columns.min(first + width));
        let bias = bias.map(|bias| &bias[first..end]);
        let mut row = 0;
        while row < rows {
            let count = rows_of_tile::<ROWS>(rows - row);
            let at = |place: usize| x.row(row + place.min(count - 1));
            let out = &mut out[row * columns + first..];
            let place = (columns, end - first);
            // A closure that all four share is not inlined, and then without vector instructions.
            match count {
                0..=2 => {
                    let sums = tile::<S, T, 2>(simd, zeros::<S, T, 2>(simd), std::array::from_fn(at), panel);
                    finish(simd, &sums[..count], bias, out, place);
                }
                3..=4 => {
                    let sums = tile::<S, T, 4>(simd, zeros::<S, T, 4>(simd), std::array::from_fn(at), panel);
                    finish(simd, &sums[..count], bias, out, place);
                }
                5..=8 if ROWS > 8 => {
                    let sums = tile::<S, T, 8>(simd, zeros::<S, T, 8>(simd), std::array::from_fn(at), panel);
                    finish(simd, &sums[..count], bias, out, place);
                }
                _ => {
                    let sums = tile::<S, T, ROWS>(simd, zeros::<S, T, ROWS>(simd), std::array::from_fn(at), panel);
                    finish(simd, &sums[..count], bias, out, place);
                }
            }
            row += count;
        }
    }
}

/// Writes a tile to places of rows that do not follow each other.
#[inline(always)]
fn spread<S: Simd, T: Real>(
    simd: S,
    sums: &[[T::Vector<S>; SIDE_BY_SIDE]],
    out: &mut [&mut [T]],
    place: &Range<usize>,
) {
    for (sums, out) in sums.iter().zip(out) {
        put::<S, T>(simd, sums, &mut out[place.clone()], |_, new, _| new);
    }
}

/// Of so many rows, those that the next tile takes.
#[inline(always)]
pub(super) fn rows_of_tile<const ROWS: usize>(rest: usize) -> usize {
    match rest {
        // Two tiles of 8: the sums of one of 4 wait for each other.
        13..=16 if ROWS > 8 => 8,
        rest => ROWS.min(rest),
    }
}

/// Writes a tile with the bias added.
#[inline(always)]
fn finish<S: Simd, T: Real>(
    simd: S,
    sums: &[[T::Vector<S>; SIDE_BY_SIDE]],
    bias: Option<&[T]>,
    out: &mut [T],
    (columns, width): (usize, usize),
) {
    let Some(bias) = bias else {
        return store(simd, sums, out, columns, width);
    };
    let mut start = [T::splat(simd, T::default()); SIDE_BY_SIDE];
    for (start, bias) in start.iter_mut().zip(bias.chunks(lanes::<S, T>())) {
        *start = load::<S, T>(bias);
    }
    for (row, sums) in sums.iter().enumerate() {
        let sums = [T::add(simd, sums[0], start[0]), T::add(simd, sums[1], start[1])];
        put::<S, T>(simd, &sums, &mut out[row * columns..][..width], |_, new, _| new);
    }
}

/// A tile of a result, in registers.
pub(super) type Tile<S, T, const ROWS: usize> = [[<T as Real>::Vector<S>; SIDE_BY_SIDE]; ROWS];

/// Sums that nothing has been added to.
#[inline(always)]
fn zeros<S: Simd, T: Real, const ROWS: usize>(simd: S) -> Tile<S, T, ROWS> {
    [[T::splat(simd, T::default()); SIDE_BY_SIDE]; ROWS]
}

/// Packed numbers that stay in the second cache, beside the rows that they are multiplied by.
const PACKED: usize = 1 << 15;

#[inline(always)]
fn by_panels<S: Simd, T: Real, const ROWS: usize>(
    simd: S,
    x: Rows<'_, T>,
    second: Factor<'_, T>,
    columns: &Range<usize>,
    out: &mut [&mut [T]],
) {
    let (inner, width) = (x.columns, tile_width::<S, T>());
    let panels = columns.len().div_ceil(width).min((PACKED / (inner * width)).max(1));
    let mut packed = pool::take::<T>(panels * inner * width);
    for first in columns.clone().step_by(panels * width) {
        let now = first..columns.end.min(first + panels * width);
        pack_factor::<S, T>(second, &now, &mut packed);
        for (first, panel) in now.step_by(width).zip(packed.chunks_exact(inner * width)) {
            let place = first - columns.start..columns.end.min(first + width) - columns.start;
            let panel = T::vectors::<S>(panel);
            for row in (0..out.len()).step_by(ROWS) {
                let count = ROWS.min(out.len() - row);
                // Rows that are not there repeat the last one; what becomes of them is not looked at.
                let at = |place: usize| x.row(row + place.min(count - 1));
                let out = &mut out[row..row + count];
                match count {
                    0..=2 => {
                        let sums = tile::<S, T, 2>(simd, zeros::<S, T, 2>(simd), std::array::from_fn(at), panel);
                        spread(simd, &sums, out, &place);
                    }
                    3..=4 => {
                        let sums = tile::<S, T, 4>(simd, zeros::<S, T, 4>(simd), std::array::from_fn(at), panel);
                        spread(simd, &sums, out, &place);
                    }
                    5..=8 if ROWS > 8 => {
                        let sums = tile::<S, T, 8>(simd, zeros::<S, T, 8>(simd), std::array::from_fn(at), panel);
                        spread(simd, &sums, out, &place);
                    }
                    _ => {
                        let sums = tile::<S, T, ROWS>(simd, zeros::<S, T, ROWS>(simd), std::array::from_fn(at), panel);
                        spread(simd, &sums, out, &place);
                    }
                }
            }
        }
    }
    pool::give(packed);
}

/// Fills panels with some columns of a matrix, and the last one up with zeros.
#[inline(always)]
pub(super) fn pack<S: Simd, T: Real>(matrix: Rows<'_, T>, columns: &Range<usize>, panels: &mut [T]) {
    let (inner, width) = (matrix.count(), tile_width::<S, T>());
    // All panels of a row before the next one: the processor fetches what follows in memory.
    for (k, row) in matrix.elements.chunks_exact(matrix.columns).enumerate() {
        let (whole, _) = T::vectors::<S>(&row[columns.clone()]).as_chunks::<SIDE_BY_SIDE>();
        let places = T::vectors_mut::<S>(panels).as_chunks_mut::<SIDE_BY_SIDE>().0;
        for (number, from) in whole.iter().enumerate() {
            places[number * inner + k] = *from;
        }
        let used = whole.len() * width;
        if used < columns.len() {
            let (from, place) =
                (&row[columns.start + used..columns.end], &mut panels[(whole.len() * inner + k) * width..]);
            place[..from.len()].copy_from_slice(from);
            place[from.len()..width].fill(T::default());
        }
    }
}

/// Fills panels with some rows of a matrix, which are columns of the transpose. Columns that are not there repeat the last one.
pub(super) fn pack_transposed<T: Real>(matrix: Rows<'_, T>, rows: &Range<usize>, width: usize, panels: &mut [T]) {
    match width {
        32 => transpose::<T, 32>(matrix, rows, panels),
        16 => transpose::<T, 16>(matrix, rows, panels),
        8 => transpose::<T, 8>(matrix, rows, panels),
        4 => transpose::<T, 4>(matrix, rows, panels),
        _ => transpose::<T, 2>(matrix, rows, panels),
    }
}

/// The same for panels of so many columns, which the compiler has to know: dividing takes as long as copying.
///
/// Not within loops for particular instructions: with those that scatter numbers all over memory it is slower.
#[inline(never)]
fn transpose<T: Real, const WIDTH: usize>(matrix: Rows<'_, T>, rows: &Range<usize>, panels: &mut [T]) {
    /// Rows of the panel that are written at a time, so that they stay in the cache.
    const BLOCK: usize = 16;
    /// Columns that are written at a time.
    const TOGETHER: usize = 4;
    for (first, panel) in rows.clone().step_by(WIDTH).zip(panels.chunks_exact_mut(matrix.columns * WIDTH)) {
        for (block, place) in panel.as_chunks_mut::<WIDTH>().0.chunks_mut(BLOCK).enumerate() {
            for column in (0..WIDTH).step_by(TOGETHER) {
                let source: [&[T]; TOGETHER] = std::array::from_fn(|next| {
                    let row = matrix.row((first + column + next).min(rows.end - 1));
                    &row[block * BLOCK..][..place.len()]
                });
                for (k, row) in place.iter_mut().enumerate() {
                    for next in 0..TOGETHER.min(WIDTH) {
                        row[column + next] = source[next][k];
                    }
                }
            }
        }
    }
}

/// Adds to the sums, over a panel's rows, the products with the numbers of as many rows of the first factor.
#[inline(always)]
pub(super) fn tile<S: Simd, T: Real, const ROWS: usize>(
    simd: S,
    mut sums: Tile<S, T, ROWS>,
    factors: [&[T]; ROWS],
    panel: &[T::Vector<S>],
) -> Tile<S, T, ROWS> {
    let (panel, _) = panel.as_chunks::<SIDE_BY_SIDE>();
    assert!(factors.iter().all(|factor| factor.len() >= panel.len()));
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
fn store<S: Simd, T: Real>(
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
fn add<S: Simd, T: Real>(simd: S, sums: &[[T::Vector<S>; SIDE_BY_SIDE]], out: &mut [T], columns: usize, width: usize) {
    for (row, sums) in sums.iter().enumerate() {
        put::<S, T>(simd, sums, &mut out[row * columns..][..width], T::add::<S>);
    }
}

/// Puts a row of a tile where there may be less room than it takes.
#[inline(always)]
pub(super) fn put<S: Simd, T: Real>(
    simd: S,
    sums: &[T::Vector<S>],
    out: &mut [T],
    combine: impl Fn(S, T::Vector<S>, T::Vector<S>) -> T::Vector<S>,
) {
    let whole = T::vectors_mut::<S>(out);
    if whole.len() == sums.len() {
        whole.iter_mut().zip(sums).for_each(|(place, sum)| *place = combine(simd, *sum, *place));
        return;
    }
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
pub(super) fn load<S: Simd, T: Real>(numbers: &[T]) -> T::Vector<S> {
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
    let panel_width = tile_width::<S, T>();
    let mut panel = pool::take::<T>(BLOCK.min(rows) * panel_width);
    let mut tail = vec![[T::default(); ROWS]; if inputs.len().is_multiple_of(ROWS) { 0 } else { BLOCK.min(rows) }];
    for start in (0..rows).step_by(BLOCK) {
        let end = rows.min(start + BLOCK);
        for first in (0..outputs).step_by(panel_width) {
            let width = panel_width.min(outputs - first);
            pack::<S, T>(gradient.some(&(start..end)), &(first..first + width), &mut panel);
            let rows_of_panel = T::vectors::<S>(&panel[..(end - start) * panel_width]);
            for input in inputs.clone().step_by(ROWS) {
                let count = ROWS.min(inputs.end - input);
                let out = &mut out[(input - inputs.start) * outputs + first..];
                let sums: Tile<S, T, ROWS> = if count == ROWS {
                    transposed_tile(simd, &x.elements[start * x.columns + input..], x.columns, rows_of_panel)
                } else {
                    group(x, start..end, input..inputs.end, &mut tail);
                    grouped_tile(simd, &tail, rows_of_panel)
                };
                settle(simd, start == 0, &sums[..count], out, outputs, width);
            }
        }
    }
    pool::give(panel);
}

/// From so many columns on the numbers that a tile takes of the rows of x want the same few places of the nearest cache: they are put
/// side by side first, and multiplied by all panels before the next ones.
const FAR_APART: usize = 256;

#[inline(always)]
fn by_grouped_inputs<S: Simd, T: Real, const ROWS: usize>(
    simd: S,
    x: Rows<'_, T>,
    inputs: &Range<usize>,
    gradient: Rows<'_, T>,
    out: &mut [T],
) {
    let (rows, outputs, width) = (gradient.count(), gradient.columns, tile_width::<S, T>());
    let at_a_time = BLOCK.min(rows);
    let panels = outputs.div_ceil(width).min((PACKED / (at_a_time * width)).max(1));
    let mut packed = pool::take::<T>(panels * at_a_time * width);
    let mut grouped = vec![[T::default(); ROWS]; at_a_time];
    for start in (0..rows).step_by(BLOCK) {
        let end = rows.min(start + BLOCK);
        for first in (0..outputs).step_by(panels * width) {
            let now = first..outputs.min(first + panels * width);
            pack::<S, T>(gradient.some(&(start..end)), &now, &mut packed);
            for input in inputs.clone().step_by(ROWS) {
                let count = ROWS.min(inputs.end - input);
                group(x, start..end, input..input + count, &mut grouped);
                let out = &mut out[(input - inputs.start) * outputs..];
                for (first, panel) in now.clone().step_by(width).zip(packed.chunks_exact((end - start) * width)) {
                    let (width, out) = (width.min(outputs - first), &mut out[first..]);
                    let sums: Tile<S, T, ROWS> = grouped_tile(simd, &grouped, T::vectors::<S>(panel));
                    settle(simd, start == 0, &sums[..count], out, outputs, width);
                }
            }
        }
    }
    pool::give(packed);
}

/// Puts some columns of some rows side by side, at most `ROWS` of them.
#[inline(always)]
fn group<T: Real, const ROWS: usize>(
    x: Rows<'_, T>,
    rows: Range<usize>,
    columns: Range<usize>,
    places: &mut [[T; ROWS]],
) {
    for (place, row) in places.iter_mut().zip(rows) {
        let numbers = &x.row(row)[columns.clone()];
        match numbers.first_chunk::<ROWS>() {
            Some(whole) => *place = *whole,
            None => place[..numbers.len()].copy_from_slice(numbers),
        }
    }
}

/// Writes a tile of the first rows that are taken at a time, and adds those of the others.
#[inline(always)]
fn settle<S: Simd, T: Real>(
    simd: S,
    is_first: bool,
    sums: &[[T::Vector<S>; SIDE_BY_SIDE]],
    out: &mut [T],
    columns: usize,
    width: usize,
) {
    if is_first {
        store(simd, sums, out, columns, width);
    } else {
        add(simd, sums, out, columns, width);
    }
}

/// The sums over a panel's rows of the products with `ROWS` numbers for each of them, which stand side by side: without the check for each
/// row that [`transposed_tile`] needs.
#[inline(always)]
fn grouped_tile<S: Simd, T: Real, const ROWS: usize>(
    simd: S,
    group: &[[T; ROWS]],
    panel: &[T::Vector<S>],
) -> Tile<S, T, ROWS> {
    let (panel, _) = panel.as_chunks::<SIDE_BY_SIDE>();
    let mut sums = [[T::splat(simd, T::default()); SIDE_BY_SIDE]; ROWS];
    for (weights, x) in panel.iter().zip(group) {
        for row in 0..ROWS {
            let x = T::splat(simd, x[row]);
            for place in 0..SIDE_BY_SIDE {
                sums[row][place] = T::multiply_add(simd, x, weights[place], sums[row][place]);
            }
        }
    }
    sums
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
    let mut sums = zeros::<S, T, ROWS>(simd);
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
