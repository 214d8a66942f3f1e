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

/// The error function, within 4 units in the last place of 1: a quotient of polynomials, as in XLA and Eigen.
#[inline(always)]
pub fn erf(x: f32) -> f32 {
    let x = x.clamp(-4.0, 4.0);
    let z = x * x;
    let p = -2.726_142_3e-10_f32;
    let p = p * z + 2.770_681_4e-8;
    let p = p * z - 2.101_024e-6;
    let p = p * z - 5.692_506_4e-5;
    let p = p * z - 7.349_906_3e-4;
    let p = p * z - 2.954_6e-3;
    let p = p * z - 1.609_603_3e-2;
    let q = -1.456_607_2e-5_f32;
    let q = q * z - 2.133_740_6e-4;
    let q = q * z - 1.682_827e-3;
    let q = q * z - 7.373_329e-3;
    let q = q * z - 1.426_473_9e-2;
    x * p / q
}

/// ln(1 + x) for x from 0 to 1, as 2 artanh(x / (2 + x)), whose argument is at most 1/3.
#[inline(always)]
pub fn ln_1p(x: f32) -> f32 {
    let s = x / (2.0 + x);
    let z = s * s;
    let p = 1.0_f32 / 15.0;
    let p = p * z + 1.0 / 13.0;
    let p = p * z + 1.0 / 11.0;
    let p = p * z + 1.0 / 9.0;
    let p = p * z + 1.0 / 7.0;
    let p = p * z + 1.0 / 5.0;
    let p = p * z + 1.0 / 3.0;
    2.0 * (s + s * z * p)
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
        assert!(largest_error(erf, libm::erf, 6.0) < 5e-7);
        assert!(largest_error(|x| ln_1p(x.abs()), |x| x.abs().ln_1p(), 1.0) < 3e-7);
    }

    #[test]
    fn the_ends_and_what_is_not_a_number_stay_what_they_are() {
        assert_eq!((sigmoid(0.0), tanh(0.0)), (0.5, 0.0));
        assert_eq!((sigmoid(f32::INFINITY), tanh(f32::INFINITY), tanh(f32::NEG_INFINITY)), (1.0, 1.0, -1.0));
        assert!(sigmoid(f32::NEG_INFINITY) < 1e-37);
        assert!(sigmoid(f32::NAN).is_nan() && tanh(f32::NAN).is_nan());
    }
}
