//! Vectors of numbers with arithmetic, and the functions that the cells of a recurrent layer are made of.

// A function that is not inlined into one with a target feature does without it.
#![allow(clippy::inline_always)]

use std::ops::{Add, Mul, Sub};

use pulp::Simd;

use super::matrix::{Real, lanes, load, put};
use super::number::Number;

/// As many numbers as a vector register has.
#[derive(Clone, Copy, Debug)]
pub struct Lanes<S: Simd, T: Real> {
    simd: S,
    numbers: T::Vector<S>,
}

impl<S: Simd, T: Real> Lanes<S, T> {
    /// Their number.
    #[inline(always)]
    pub fn count() -> usize {
        lanes::<S, T>()
    }

    /// Numbers that stand one after the other, filled up with zeros.
    #[inline(always)]
    pub fn load(simd: S, numbers: &[T]) -> Self {
        Self { simd, numbers: load::<S, T>(numbers) }
    }

    /// Writes as many of them as there is room for.
    #[inline(always)]
    pub fn store(self, place: &mut [T]) {
        put::<S, T>(self.simd, &[self.numbers], place, |_, new, _| new);
    }

    /// `self b + c`, in one rounding where the processor has an instruction for it.
    #[inline(always)]
    pub fn multiply_add(self, b: Self, c: Self) -> Self {
        Self { simd: self.simd, numbers: T::multiply_add(self.simd, self.numbers, b.numbers, c.numbers) }
    }
}

impl<S: Simd, T: Function> Lanes<S, T> {
    /// 1 / (1 + exp(-x))
    #[inline(always)]
    pub fn sigmoid(self) -> Self {
        Self { simd: self.simd, numbers: T::sigmoids(self.simd, self.numbers) }
    }

    /// tanh(x)
    #[inline(always)]
    pub fn tanh(self) -> Self {
        Self { simd: self.simd, numbers: T::tanhs(self.simd, self.numbers) }
    }

    /// 1 everywhere.
    #[inline(always)]
    pub fn one(simd: S) -> Self {
        Self { simd, numbers: T::splat(simd, T::from_f64(1.0)) }
    }

    /// `self`, or 0 where x is not above 0. What is not a number counts as above.
    #[inline(always)]
    pub fn where_positive(self, x: Self) -> Self {
        Self { simd: self.simd, numbers: T::where_positive(self.simd, x.numbers, self.numbers) }
    }

    /// x, or 0 where it is smaller than [`Function::LEAST`]. What is not a number stays one.
    #[inline(always)]
    pub fn settled(self) -> Self {
        Self { simd: self.simd, numbers: T::settled(self.simd, self.numbers) }
    }
}

macro_rules! operator {
    ($operator:ident, $name:ident, $bound:ident, $function:ident) => {
        impl<S: Simd, T: $bound> $operator for Lanes<S, T> {
            type Output = Self;

            #[inline(always)]
            fn $name(self, other: Self) -> Self {
                Self { simd: self.simd, numbers: T::$function(self.simd, self.numbers, other.numbers) }
            }
        }
    };
}

operator!(Add, add, Real, add);
operator!(Sub, sub, Function, subtract);
operator!(Mul, mul, Function, multiply);

/// A number whose vectors have the functions of a cell.
pub trait Function: Number {
    /// Below this a gradient through time is taken as 0. Numbers near the end of the range take the processor a hundred times as
    /// long, and a gradient that vanishes passes through all of them: a product of such a number and a weight must still be an
    /// ordinary one.
    const LEAST: Self;

    /// `a - b`
    fn subtract<S: Simd>(simd: S, a: Self::Vector<S>, b: Self::Vector<S>) -> Self::Vector<S>;
    /// `a b`
    fn multiply<S: Simd>(simd: S, a: Self::Vector<S>, b: Self::Vector<S>) -> Self::Vector<S>;
    /// 1 / (1 + exp(-x))
    fn sigmoids<S: Simd>(simd: S, x: Self::Vector<S>) -> Self::Vector<S>;
    /// tanh(x)
    fn tanhs<S: Simd>(simd: S, x: Self::Vector<S>) -> Self::Vector<S>;
    /// y, or 0 where x is at most 0.
    fn where_positive<S: Simd>(simd: S, x: Self::Vector<S>, y: Self::Vector<S>) -> Self::Vector<S>;
    /// x, or 0 where |x| is below [`Function::LEAST`].
    fn settled<S: Simd>(simd: S, x: Self::Vector<S>) -> Self::Vector<S>;
}

impl Function for f32 {
    const LEAST: Self = 1e-35;

    #[inline(always)]
    fn subtract<S: Simd>(simd: S, a: S::f32s, b: S::f32s) -> S::f32s {
        simd.sub_f32s(a, b)
    }

    #[inline(always)]
    fn multiply<S: Simd>(simd: S, a: S::f32s, b: S::f32s) -> S::f32s {
        simd.mul_f32s(a, b)
    }

    #[inline(always)]
    fn sigmoids<S: Simd>(simd: S, x: S::f32s) -> S::f32s {
        let one = simd.splat_f32s(1.0);
        let (power, fraction) = exp(simd, simd.neg_f32s(x), (-87.0, 88.0));
        simd.div_f32s(one, simd.add_f32s(one, simd.mul_add_e_f32s(power, fraction, power)))
    }

    /// `(exp(2x) - 1) / (exp(2x) + 1)`, where `exp(2x) - 1` keeps its digits near 0.
    #[inline(always)]
    fn tanhs<S: Simd>(simd: S, x: S::f32s) -> S::f32s {
        let (power, fraction) = exp(simd, simd.add_f32s(x, x), (-20.0, 20.0));
        let one = simd.splat_f32s(1.0);
        let above = simd.mul_add_e_f32s(power, fraction, simd.sub_f32s(power, one));
        simd.div_f32s(above, simd.add_f32s(above, simd.splat_f32s(2.0)))
    }

    #[inline(always)]
    fn where_positive<S: Simd>(simd: S, x: S::f32s, y: S::f32s) -> S::f32s {
        let zero = simd.splat_f32s(0.0);
        simd.select_f32s(simd.less_than_or_equal_f32s(x, zero), zero, y)
    }

    #[inline(always)]
    fn settled<S: Simd>(simd: S, x: S::f32s) -> S::f32s {
        let is_small = simd.less_than_f32s(simd.abs_f32s(x), simd.splat_f32s(Self::LEAST));
        simd.select_f32s(is_small, simd.splat_f32s(0.0), x)
    }
}

/// Of exp(x), a power p of 2 and f with `exp(x) = p (1 + f)`, as [`super::elementary::exp`] has them. x stays between the limits, at
/// which p is still an ordinary number.
#[inline(always)]
fn exp<S: Simd>(simd: S, x: S::f32s, (least, most): (f32, f32)) -> (S::f32s, S::f32s) {
    const ROUND: f32 = 12_582_912.0; // 1.5 x 2^23: adding it rounds to a whole number
    let number = |x| simd.splat_f32s(x);
    // Not the smaller and the larger one: which of them a processor takes where one is not a number, differs.
    let x = simd.select_f32s(simd.less_than_f32s(x, number(least)), number(least), x);
    let x = simd.select_f32s(simd.less_than_f32s(number(most), x), number(most), x);
    let rounded = simd.mul_add_e_f32s(x, number(std::f32::consts::LOG2_E), number(ROUND));
    let n = simd.sub_f32s(rounded, number(ROUND));
    // x - n ln 2, in two parts
    let r = simd.mul_add_e_f32s(n, number(-0.693_359_4), x);
    let r = simd.mul_add_e_f32s(n, number(2.121_944_4e-4), r);
    let next = |p, coefficient| simd.mul_add_e_f32s(p, r, number(coefficient));
    let p = next(next(number(1.987_569_1e-4), 1.398_2e-3), 8.333_452e-3);
    let p = next(next(next(p, 4.166_579_6e-2), 1.666_666_5e-1), 0.5);
    let fraction = simd.mul_add_e_f32s(simd.mul_f32s(p, r), r, r);
    // The whole number stands in the last bits of `rounded`; it becomes the exponent of 1.
    let exponent = simd.wrapping_dyn_shl_u32s(simd.transmute_u32s_f32s(rounded), simd.splat_u32s(23));
    (simd.transmute_f32s_u32s(simd.add_u32s(exponent, simd.splat_u32s(1.0_f32.to_bits()))), fraction)
}

impl Function for f64 {
    const LEAST: Self = 1e-290;

    #[inline(always)]
    fn subtract<S: Simd>(simd: S, a: S::f64s, b: S::f64s) -> S::f64s {
        simd.sub_f64s(a, b)
    }

    #[inline(always)]
    fn multiply<S: Simd>(simd: S, a: S::f64s, b: S::f64s) -> S::f64s {
        simd.mul_f64s(a, b)
    }

    #[inline(always)]
    fn sigmoids<S: Simd>(_: S, x: S::f64s) -> S::f64s {
        one_by_one::<S>(x, Number::sigmoid)
    }

    #[inline(always)]
    fn tanhs<S: Simd>(_: S, x: S::f64s) -> S::f64s {
        one_by_one::<S>(x, Number::tanh)
    }

    #[inline(always)]
    fn where_positive<S: Simd>(simd: S, x: S::f64s, y: S::f64s) -> S::f64s {
        let zero = simd.splat_f64s(0.0);
        simd.select_f64s(simd.less_than_or_equal_f64s(x, zero), zero, y)
    }

    #[inline(always)]
    fn settled<S: Simd>(simd: S, x: S::f64s) -> S::f64s {
        let is_small = simd.less_than_f64s(simd.abs_f64s(x), simd.splat_f64s(Self::LEAST));
        simd.select_f64s(is_small, simd.splat_f64s(0.0), x)
    }
}

/// A function of the standard library on every number of a vector.
#[inline(always)]
fn one_by_one<S: Simd>(mut x: S::f64s, function: impl Fn(f64) -> f64) -> S::f64s {
    for x in bytemuck::cast_slice_mut::<S::f64s, f64>(std::slice::from_mut(&mut x)) {
        *x = function(*x);
    }
    x
}

#[cfg(test)]
mod tests {
    use pulp::{Arch, WithSimd};

    use super::*;
    use crate::kernel::elementary;

    /// The functions, one after the other, of as many numbers as there are.
    struct All<'a, T>(&'a [T]);

    impl<T: Function> WithSimd for All<'_, T> {
        type Output = [Vec<T>; 3];

        fn with_simd<S: Simd>(self, simd: S) -> Self::Output {
            let each = |function: fn(Lanes<S, T>) -> Lanes<S, T>| {
                let mut found = self.0.to_vec();
                for numbers in found.chunks_mut(Lanes::<S, T>::count()) {
                    function(Lanes::load(simd, numbers)).store(numbers);
                }
                found
            };
            [each(Lanes::sigmoid), each(Lanes::tanh), each(Lanes::settled)]
        }
    }

    #[test]
    fn vectors_have_the_functions_of_their_numbers() {
        let numbers: Vec<f32> = (-40_001..=40_000).map(|i| i as f32 * 2e-3).collect();
        let [sigmoids, tanhs, _] = Arch::new().dispatch(All(&numbers));
        for (place, x) in numbers.iter().enumerate() {
            for (found, exact) in [(sigmoids[place], elementary::sigmoid(*x)), (tanhs[place], elementary::tanh(*x))] {
                assert!((found - exact).abs() <= 4e-7 * exact.abs(), "{x}: {found}, expected {exact}");
            }
        }
        let numbers: Vec<f64> = (-4001..=4000).map(|i| f64::from(i) * 2e-2).collect();
        let [sigmoids, tanhs, _] = Arch::new().dispatch(All(&numbers));
        for (place, x) in numbers.iter().enumerate() {
            assert_eq!((sigmoids[place], tanhs[place]), (1.0 / (1.0 + (-x).exp()), x.tanh()));
        }
    }

    #[test]
    fn the_ends_and_what_is_not_a_number_stay_what_they_are() {
        let [sigmoids, tanhs, _] = Arch::new().dispatch(All(&[0.0, f32::INFINITY, f32::NEG_INFINITY, f32::NAN]));
        assert_eq!((sigmoids[..2].to_vec(), tanhs[..3].to_vec()), (vec![0.5, 1.0], vec![0.0, 1.0, -1.0]));
        assert!(sigmoids[2] < 1e-37 && sigmoids[3].is_nan() && tanhs[3].is_nan());
    }

    #[test]
    fn only_what_is_too_small_is_settled() {
        let [.., settled] = Arch::new().dispatch(All(&[1e-36, -1e-40, 2e-35, -3.0, f32::NAN, f32::NEG_INFINITY]));
        assert_eq!(settled[..4], [0.0, 0.0, 2e-35, -3.0]);
        assert!(settled[4].is_nan() && settled[5].is_infinite());
        let [.., settled] = Arch::new().dispatch(All(&[1e-291, 1e-289]));
        assert_eq!(settled, [0.0, 1e-289]);
    }
}
