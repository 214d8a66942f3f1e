//! The numbers that fused operations calculate with, f32 and f64, and their elementary functions.

// A function that is not inlined into one with a target feature does without it.
#![allow(clippy::inline_always)]

use std::ops::{Add, AddAssign, Div, Mul, Neg, Sub};

use super::elementary;
use super::matrix::Real;
use super::pool::Pooled;

/// f32 or f64. The functions of f32 are straight-line code, which the compiler turns into vector instructions.
pub trait Number:
    Real
    + Pooled
    + Add<Output = Self>
    + AddAssign
    + Sub<Output = Self>
    + Mul<Output = Self>
    + Div<Output = Self>
    + Neg<Output = Self>
{
    /// The largest gradient whose products are taken with a larger multiple of it, and the factor, a power of 2: numbers near the
    /// end of the range cost a hundred times as much, and lose digits.
    const TINY: (Self, Self);

    /// The nearest number.
    fn from_f64(x: f64) -> Self;
    /// exp(x)
    fn exp(self) -> Self;
    /// 1 / (1 + exp(-x))
    fn sigmoid(self) -> Self;
    /// tanh(x)
    fn tanh(self) -> Self;
    /// The error function.
    fn erf(self) -> Self;
    /// ln(1 + x), for x from 0 to 1.
    fn ln_1p(self) -> Self;
    /// |x|
    fn magnitude(self) -> Self;
    /// The square root.
    fn sqrt(self) -> Self;
}

impl Number for f32 {
    const TINY: (Self, Self) = (1e-27, 1_267_650_600_228_229_401_496_703_205_376.0); // 2^100

    #[inline(always)]
    fn from_f64(x: f64) -> Self {
        x as f32
    }

    #[inline(always)]
    fn exp(self) -> Self {
        elementary::exp(self)
    }

    #[inline(always)]
    fn sigmoid(self) -> Self {
        elementary::sigmoid(self)
    }

    #[inline(always)]
    fn tanh(self) -> Self {
        elementary::tanh(self)
    }

    #[inline(always)]
    fn erf(self) -> Self {
        elementary::erf(self)
    }

    #[inline(always)]
    fn ln_1p(self) -> Self {
        elementary::ln_1p(self)
    }

    #[inline(always)]
    fn magnitude(self) -> Self {
        self.abs()
    }

    #[inline(always)]
    fn sqrt(self) -> Self {
        Self::sqrt(self)
    }
}

impl Number for f64 {
    const TINY: (Self, Self) = (1e-270, 1.071_508_607_186_267_3e301); // 2^1000

    #[inline(always)]
    fn from_f64(x: f64) -> Self {
        x
    }

    #[inline(always)]
    fn exp(self) -> Self {
        f64::exp(self)
    }

    #[inline(always)]
    fn sigmoid(self) -> Self {
        1.0 / (1.0 + f64::exp(-self))
    }

    #[inline(always)]
    fn tanh(self) -> Self {
        f64::tanh(self)
    }

    #[inline(always)]
    fn erf(self) -> Self {
        libm::erf(self)
    }

    #[inline(always)]
    fn ln_1p(self) -> Self {
        f64::ln_1p(self)
    }

    #[inline(always)]
    fn magnitude(self) -> Self {
        self.abs()
    }

    #[inline(always)]
    fn sqrt(self) -> Self {
        Self::sqrt(self)
    }
}
