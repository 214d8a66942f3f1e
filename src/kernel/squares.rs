//! Sums of squares of f32 in f32, which take a fraction of the time that they take in f64, and are right for elements from 1e-38 to 1e38
//! as those are.
//!
//! A block is so short that its sum is right to six digits or more; those of several blocks are added up in f64. Elements are multiplied
//! by a power of two first. Where squares have left the range of f32 all the same, the sum tells: the block is taken again, in f64.

use multiversion::multiversion;
use multiversion::target::target_cfg_f;

use super::flex::{Accumulator, LANES, square_sum};

/// Numbers of a block.
pub(super) const BLOCK: usize = 1024;

/// Vectors with sums of their own, where a loop does nothing else: the next addition to a sum must wait for the last one.
const SIDE_BY_SIDE: usize = 4;

/// The sum of squares of a block from which on its squares have room: what vanishes below 2^-149 of some thousand numbers is less than
/// 2^-37 of this.
const LEAST: f64 = 1.0 / (1_u128 << 100) as f64;

/// The power of two of the sum of squares that a scale aims at: half way between [`LEAST`] and the largest f32.
const AIM: i32 = 14;

/// A power of two that elements are multiplied by, as its exponent, from -126 to 126.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Scale(i32);

impl Scale {
    /// For a block whose largest absolute element is about this.
    pub(super) fn of_largest(largest: f32) -> Self {
        Self::default().following(f64::from(largest) * f64::from(largest))
    }

    /// For a block that comes after one with this sum of squares.
    pub(super) fn following(self, square_sum: f64) -> Self {
        if square_sum == 0.0 || !square_sum.is_finite() {
            return self;
        }
        let exponent = (square_sum.to_bits() >> 52) as i32 - 1023;
        Self(((AIM - exponent) / 2).clamp(-126, 126))
    }

    /// What elements are multiplied by.
    pub(super) fn factor(self) -> f32 {
        f32::from_bits(((self.0 + 127) as u32) << 23)
    }

    /// The sum of the squares of elements that were multiplied; `None` if squares may have been lost.
    pub(super) fn total(self, sums: &[f32; LANES]) -> Option<f64> {
        let total = total(sums);
        has_room(total).then(|| total * f64::from_bits(((1023 - 2 * self.0) as u64) << 52))
    }
}

/// Whether squares in f32 that add up to this have lost nothing: none was too large, and what was too small does not matter.
pub(super) fn has_room(square_sum: f64) -> bool {
    (LEAST..f64::INFINITY).contains(&square_sum)
}

/// The sum of lanes.
#[multiversion(targets("x86_64+avx512f+avx512vl+avx2+fma", "x86_64+avx2+fma"))]
fn total(lanes: &[f32; LANES]) -> f64 {
    let mut halves = [0.0; LANES / 2];
    for lane in 0..LANES / 2 {
        halves[lane] = f64::from(lanes[lane]) + f64::from(lanes[lane + LANES / 2]);
    }
    halves.iter().sum()
}

/// The squares of elements by lanes, after they are multiplied by a power of two.
#[multiversion(targets("x86_64+avx512f+avx512vl+avx2+fma", "x86_64+avx2+fma"))]
fn squares(elements: &[[f32; LANES]], factor: f32, sums: &mut [f32; LANES]) {
    let has_fused = target_cfg_f!(target_feature = "fma");
    let mut lanes = [0.0_f32; SIDE_BY_SIDE * LANES];
    let (chunks, rest) = elements.as_flattened().as_chunks::<{ SIDE_BY_SIDE * LANES }>();
    for x in chunks {
        let x = *x;
        for lane in 0..SIDE_BY_SIDE * LANES {
            lanes[lane] = lanes[lane].with_square(x[lane] * factor, has_fused);
        }
    }
    for (lane, x) in lanes.iter_mut().zip(rest) {
        *lane = lane.with_square(x * factor, has_fused);
    }
    for lane in 0..LANES {
        sums[lane] = (lanes[lane] + lanes[lane + LANES]) + (lanes[lane + 2 * LANES] + lanes[lane + 3 * LANES]);
    }
}

/// The sum of the squares, which is not finite where an element is not.
pub(super) fn quick_square_sum(elements: &[f32], mut scale: Scale) -> f64 {
    let (vectors, rest) = elements.as_chunks::<LANES>();
    let mut sum = if rest.is_empty() { 0.0 } else { square_sum(rest) };
    for block in vectors.chunks(BLOCK / LANES) {
        let mut lanes = [0.0; LANES];
        squares(block, scale.factor(), &mut lanes);
        let of_block = scale.total(&lanes).unwrap_or_else(|| square_sum(block.as_flattened()));
        scale = scale.following(of_block);
        sum += of_block;
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exact(elements: &[f32]) -> f64 {
        elements.iter().map(|x| f64::from(*x).powi(2)).sum()
    }

    /// Numbers without a pattern between -1 and 1, some of which are 0.
    fn numbers(count: usize) -> Vec<f32> {
        (0..count).map(|i| ((i * 7919 % 1013) as f32 / 10.0).floor() / 50.0 - 1.0).collect()
    }

    #[test]
    fn sums_are_right_from_1e_minus_38_to_1e38_whatever_the_scale() {
        for magnitude in [1e-44, 1e-38, 1e-30, 1e-19, 1.0, 1e19, 1e38] {
            for (count, largest) in [1, 16, 511, 5003]
                .into_iter()
                .flat_map(|count| [0.0, 1e-44, 1.0, f32::MAX, f32::INFINITY].map(|largest| (count, largest)))
            {
                let elements: Vec<f32> = numbers(count).into_iter().map(|x| x * magnitude).collect();
                let (found, expected) = (quick_square_sum(&elements, Scale::of_largest(largest)), exact(&elements));
                assert!((found / expected - 1.0).abs() < 1e-6, "{magnitude:e}, {largest:e}: {found:e}, {expected:e}");
            }
        }
    }

    #[test]
    fn blocks_of_very_different_size_are_added_up() {
        let mut elements = numbers(8 * BLOCK);
        for (block, magnitude) in elements.chunks_mut(BLOCK).zip([0.0, 1e-38, 1e38, 1e-30, 1.0, 1e10, 1e37, 1e-10]) {
            block.iter_mut().for_each(|x| *x *= magnitude);
            let found = quick_square_sum(block, Scale::of_largest(1.0));
            assert!((found - exact(block)).abs() <= 1e-6 * exact(block));
        }
        assert!((quick_square_sum(&elements, Scale::default()) / exact(&elements) - 1.0).abs() < 1e-6);
    }

    #[test]
    fn what_is_not_finite_shows() {
        for odd in [f32::INFINITY, f32::NEG_INFINITY, f32::NAN] {
            let mut elements = numbers(1000);
            elements[700] = odd;
            assert!(!quick_square_sum(&elements, Scale::of_largest(1.0)).is_finite());
        }
    }
}
