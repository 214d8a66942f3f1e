//! The exponential, the sigmoid and tanh as straight-line code, which the compiler turns into vector instructions.

// A function that is not inlined into one with a target feature does without it.
#![allow(clippy::inline_always)]

/// exp(x), within 2 units in the last place, from exp(-87) to exp(88) (Moshier, Cephes, expf).
#[inline(always)]
#[allow(clippy::many_single_char_names)] // Moshier's names.
pub fn exp(x: f32) -> f32 {
    const ROUND: f32 = 12_582_912.0; // 1.5 x 2^23: adding it rounds to a whole number
    let x = x.clamp(-87.0, 88.0);
    let rounded = x * std::f32::consts::LOG2_E + ROUND;
    let n = rounded - ROUND;
    // x - n ln 2, in two parts
    let r = x - n * 0.693_359_4;
    let r = r + n * 2.121_944_4e-4;
    let p = 1.987_569_1e-4_f32;
    let p = p * r + 1.398_2e-3;
    let p = p * r + 8.333_452e-3;
    let p = p * r + 4.166_579_6e-2;
    let p = p * r + 1.666_666_5e-1;
    let p = p * r + 0.5;
    let y = p * r * r + r + 1.0;
    // The whole number stands in the last bits of `rounded`; it is added to the exponent.
    f32::from_bits(y.to_bits().wrapping_add(rounded.to_bits() << 23))
}

/// 1 / (1 + exp(-x))
#[inline(always)]
pub fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// tanh(x); near 0 by a polynomial of its own, which keeps the relative error small (Moshier, Cephes, tanhf).
#[inline(always)]
pub fn tanh(x: f32) -> f32 {
    let z = x * x;
    let p = -5.704_988_7e-3_f32;
    let p = p * z + 2.063_909e-2;
    let p = p * z - 5.373_971_6e-2;
    let p = p * z + 1.333_144_2e-1;
    let p = p * z - 3.333_328e-1;
    let near = p * z * x + x;
    let far = 1.0 - 2.0 / (1.0 + exp(2.0 * x));
    if x.abs() < 0.625 { near } else { far }
}

/// Below this a gradient through time is taken as 0. Numbers below 1.2e-38 take the processor a hundred times as long, and a
/// gradient that vanishes passes through all of them: a product of such a number and a weight must still be an ordinary one.
pub const LEAST: f32 = 1e-35;

/// x, or 0 where it is smaller than [`LEAST`].
#[inline(always)]
pub fn settled(x: f32) -> f32 {
    // What is not a number stays one.
    if x.abs() < LEAST { 0.0 } else { x }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The largest relative error over a range.
    fn largest_error(function: fn(f32) -> f32, exact: fn(f64) -> f64, limit: f32) -> f64 {
        let points = (-200_000..=200_000).map(|i| limit * i as f32 / 200_000.0).filter(|x| *x != 0.0);
        let error = |x: f32| (f64::from(function(x)) / exact(f64::from(x)) - 1.0).abs();
        points.map(error).fold(0.0, f64::max)
    }

    #[test]
    fn the_functions_are_right_to_a_few_units_in_the_last_place() {
        assert!(largest_error(exp, f64::exp, 86.9) < 3e-7);
        assert!(largest_error(sigmoid, |x| 1.0 / (1.0 + (-x).exp()), 80.0) < 4e-7);
        assert!(largest_error(tanh, f64::tanh, 20.0) < 3e-7);
        assert!(largest_error(tanh, f64::tanh, 1e-3) < 2e-7);
    }

    #[test]
    fn only_what_is_too_small_is_settled() {
        assert_eq!([1e-36, -1e-40, 2e-35, -3.0].map(settled), [0.0, 0.0, 2e-35, -3.0]);
        assert!(settled(f32::NAN).is_nan() && settled(f32::NEG_INFINITY).is_infinite());
    }

    #[test]
    fn the_ends_and_what_is_not_a_number_stay_what_they_are() {
        assert_eq!((sigmoid(0.0), tanh(0.0)), (0.5, 0.0));
        assert_eq!((sigmoid(f32::INFINITY), tanh(f32::INFINITY), tanh(f32::NEG_INFINITY)), (1.0, 1.0, -1.0));
        assert!(sigmoid(f32::NEG_INFINITY) < 1e-37);
        assert!(sigmoid(f32::NAN).is_nan() && tanh(f32::NAN).is_nan());
    }
}
