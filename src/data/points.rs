//! Real and generated points of the plane, for a critic (Gulrajani et al. 2017, section 3, and their program `gan_toy.py`).

use std::f64::consts::{FRAC_1_SQRT_2, PI};

use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};

use super::{Answers, Split};

/// Where the real points lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// On a spiral of one and a half turns, with noise.
    SwissRoll,
    /// Around eight places on a circle.
    EightGaussians,
}

/// The standard deviation of the noise across the spiral, before its points are divided by [`SPIRAL_SCALE`].
const SPIRAL_NOISE: f64 = 0.25;
/// "stdev plus a little", says the authors' program.
const SPIRAL_SCALE: f64 = 7.5;
/// The radius of the circle and the standard deviation around its eight places, before they are divided by
/// [`CIRCLE_SCALE`].
const CIRCLE_RADIUS: f64 = 2.0;
const CIRCLE_NOISE: f64 = 0.02;
/// The standard deviation, as the authors' program rounds it.
const CIRCLE_SCALE: f64 = 1.414;
/// The eight places on a circle of radius 1.
const PLACES: [[f64; 2]; 8] = [
    [1.0, 0.0],
    [-1.0, 0.0],
    [0.0, 1.0],
    [0.0, -1.0],
    [FRAC_1_SQRT_2, FRAC_1_SQRT_2],
    [FRAC_1_SQRT_2, -FRAC_1_SQRT_2],
    [-FRAC_1_SQRT_2, FRAC_1_SQRT_2],
    [-FRAC_1_SQRT_2, -FRAC_1_SQRT_2],
];

/// Pairs of a real point and a generated one, one after the other, so that fewer of them are the first of more.
///
/// The generator is fixed at "the real distribution plus unit-variance Gaussian noise": as in the authors' program, a
/// generated point is the real one of its pair with noise. The share of a pair is of U(0, 1).
pub(super) fn pairs(shape: Shape, pairs: usize, stream: &mut ChaCha8Rng) -> Split {
    let mut inputs = Vec::with_capacity(4 * pairs);
    let mut shares = Vec::with_capacity(pairs);
    for _ in 0..pairs {
        let real = match shape {
            Shape::SwissRoll => on_spiral(stream),
            Shape::EightGaussians => on_circle(stream),
        };
        let generated = real.map(|x| x + normal(stream));
        inputs.extend([real, generated].concat().into_iter().map(|x| x as f32));
        shares.push(stream.random::<f32>());
    }
    Split { inputs, answers: Answers::Pairs { shares } }
}

/// The first and the last number of scikit-learn's `make_swiss_roll`.
fn on_spiral(stream: &mut ChaCha8Rng) -> [f64; 2] {
    let angle = 1.5 * PI * (1.0 + 2.0 * stream.random::<f64>());
    [angle.cos(), angle.sin()].map(|x| (angle * x + SPIRAL_NOISE * normal(stream)) / SPIRAL_SCALE)
}

fn on_circle(stream: &mut ChaCha8Rng) -> [f64; 2] {
    let place = PLACES[stream.random_range(0..PLACES.len())];
    place.map(|x| (CIRCLE_RADIUS * x + CIRCLE_NOISE * normal(stream)) / CIRCLE_SCALE)
}

fn normal(stream: &mut ChaCha8Rng) -> f64 {
    StandardNormal.sample(stream)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seed;

    /// Real points, the noise on them, and shares.
    fn drawn(shape: Shape) -> (Vec<[f64; 2]>, Vec<[f64; 2]>, Vec<f64>) {
        let split = pairs(shape, 20_000, &mut seed::stream(1, "points"));
        assert_eq!((split.len(), split.inputs.len()), (40_000, 80_000));
        let Answers::Pairs { shares } = &split.answers else { panic!("pairs") };
        let numbers: Vec<f64> = split.inputs.iter().map(|x| f64::from(*x)).collect();
        let real = numbers.chunks(4).map(|pair| [pair[0], pair[1]]).collect();
        let noise = numbers.chunks(4).map(|pair| [pair[2] - pair[0], pair[3] - pair[1]]).collect();
        (real, noise, shares.iter().map(|share| f64::from(*share)).collect())
    }

    fn mean(values: impl Iterator<Item = f64>) -> f64 {
        values.sum::<f64>() / 20_000.0
    }

    #[track_caller]
    fn assert_near(found: f64, expected: f64, tolerance: f64) {
        assert!((found - expected).abs() < tolerance, "{found}, expected {expected}");
    }

    /// Four standard errors.
    #[test]
    fn generated_points_are_real_ones_with_noise_of_variance_1_and_shares_are_uniform() {
        for shape in [Shape::SwissRoll, Shape::EightGaussians] {
            let (_, noise, shares) = drawn(shape);
            for axis in 0..2 {
                assert_near(mean(noise.iter().map(|x| x[axis])), 0.0, 0.028);
                assert_near(mean(noise.iter().map(|x| x[axis] * x[axis])), 1.0, 0.04);
            }
            assert_near(mean(noise.iter().map(|x| x[0] * x[1])), 0.0, 0.028);
            assert!(shares.iter().all(|share| (0.0..1.0).contains(share)));
            assert_near(mean(shares.iter().copied()), 0.5, 0.0082);
            assert_near(mean(shares.iter().map(|x| x * x)), 1.0 / 3.0, 0.0085);
        }
    }

    /// The radius of a point is its angle from 1.5 pi to 4.5 pi, over 7.5, with noise of 1/30 in every direction.
    #[test]
    fn the_points_of_the_spiral_lie_at_the_radius_of_their_angle() {
        let (real, _, _) = drawn(Shape::SwissRoll);
        let mut across = 0.0;
        for [x, y] in &real {
            let (radius, angle) = (x.hypot(*y) * SPIRAL_SCALE, y.atan2(*x));
            let nearest = (0..4)
                .map(|turn| angle + 2.0 * PI * f64::from(turn))
                .min_by(|a, b| (a - radius).abs().total_cmp(&(b - radius).abs()));
            let nearest = nearest.expect("four turns");
            assert!((1.5 * PI - 0.3..4.5 * PI + 0.3).contains(&nearest), "{nearest}");
            across += (radius - nearest).powi(2) / 20_000.0;
        }
        // The noise along the spiral turns the angle by .25 / radius, which moves its radius by as much: by .0008 on average.
        assert_near(across, SPIRAL_NOISE * SPIRAL_NOISE, 0.004);
        // E t^2 = (4.5^3 - 1.5^3) pi^2 / 9, with the noise of both numbers.
        let square = mean(real.iter().map(|[x, y]| x * x + y * y));
        let expected = ((4.5_f64.powi(3) - 1.5_f64.powi(3)) * PI * PI / 9.0 + 2.0 * 0.0625) / SPIRAL_SCALE.powi(2);
        assert_near(square, expected, 0.035);
    }

    #[test]
    fn the_eight_places_are_equally_frequent_and_the_points_around_them_close() {
        let (real, _, _) = drawn(Shape::EightGaussians);
        let mut counts = [0_usize; 8];
        for [x, y] in &real {
            let octant = (y.atan2(*x) / (PI / 4.0)).round().rem_euclid(8.0);
            counts[octant as usize] += 1;
            let (place_x, place_y) = ((octant * PI / 4.0).cos() * 2.0 / 1.414, (octant * PI / 4.0).sin() * 2.0 / 1.414);
            // Six standard deviations of .02 / 1.414.
            assert!((x - place_x).hypot(y - place_y) < 0.085, "{x} {y}");
        }
        // Standard deviation: 47.
        assert!(counts.iter().all(|count| count.abs_diff(2500) < 190), "{counts:?}");
    }
}
