//! Sums over pieces of tensors, as GPUs leave them, and what they come to.

use burn::tensor::TensorData;
#[cfg(any(feature = "wgpu", feature = "cuda"))]
use burn::tensor::{Tensor, s};

use super::summary::COUNT_BASE;

/// What small numbers are multiplied by before they are squared.
pub const SMALL_SCALE: f32 = 37_778_931_862_957_161_709_568.0; // 2^75
/// What big numbers are multiplied by.
pub const BIG_SCALE: f32 = 1.0 / 75_557_863_725_914_323_419_136.0; // 2^-76

/// What big sums over the batch are multiplied by besides: they may be beyond the range of f32.
pub const TOTAL_SCALE: f32 = 1.0 / 4096.0;

/// What was summed up over a piece of a tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pieces {
    /// Of a gradient: its squares, its zeros, its numbers that are not finite, its largest absolute element.
    Gradient,
    /// The same, of which only the norm is wanted; it is not a number if an element is not finite.
    Norm,
    /// Of a parameter, then of its update: the squares, and how many numbers are not finite.
    Update,
    /// Of a delta: its squares, how many of its numbers are not finite, and the squares of its sums over the batch. A piece has all rows.
    Delta,
    /// Of activations: the mean, the sum of distances from it (that of big ones by itself) and their squares, how many are flat, units that are dead, how many
    /// activations there are, how many are not finite, and the units. A piece has all rows.
    Activation,
    /// Of a gate: the sum, how many are closed and how many open, and how many there are.
    Gate,
}

impl Pieces {
    /// Numbers of a piece.
    pub const fn numbers(self) -> usize {
        match self {
            Self::Gate => 4,
            Self::Gradient | Self::Norm => 6,
            Self::Delta => 7,
            Self::Update => 8,
            Self::Activation => 11,
        }
    }

    /// A name for the operation.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Gradient | Self::Norm => "gradient_pieces",
            Self::Update => "update_pieces",
            Self::Delta => "delta_pieces",
            Self::Activation => "activation_pieces",
            Self::Gate => "gate_pieces",
        }
    }

    /// The summaries of tensors, of each seed, from what was read of `[tensors, seeds, pieces, numbers]`: the numbers that
    /// [`GradientSummary`](super::GradientSummary) and its like are made of.
    pub fn merged(self, read: &TensorData) -> Vec<f64> {
        let values: Vec<f64> = read.iter::<f64>().collect();
        let of_seed = read.shape()[2] * self.numbers();
        values.chunks_exact(of_seed).flat_map(|pieces| self.summary(pieces)).collect()
    }

    fn summary(self, pieces: &[f64]) -> Vec<f64> {
        let pieces = pieces.chunks_exact(self.numbers());
        let total = |place: usize| pieces.clone().map(|piece| piece[place]).sum::<f64>();
        let squares = |place: usize| of_squares([total(place), total(place + 1), total(place + 2)]);
        let norm = |place: usize, not_finite: f64| [1.0, if not_finite > 0.0 { f64::NAN } else { squares(place) }];
        match self {
            Self::Gradient => {
                let largest = pieces.clone().map(|piece| piece[5]).fold(0.0, f64::max);
                let relative = if largest > 0.0 { squares(0) / largest.powi(2) } else { 0.0 };
                [[largest, relative], counted(total(3)), counted(total(4))].concat()
            }
            Self::Norm => norm(0, total(4)).into(),
            Self::Gate => [0, 1, 2].map(|place| total(place) / total(3)).into(),
            Self::Update => [norm(0, total(3)), norm(4, total(7))].concat(),
            // What is not finite was left out of the sums over the batch.
            Self::Delta => {
                let big = total(6) / f64::from(TOTAL_SCALE).powi(2);
                let sums = if total(3) > 0.0 { f64::NAN } else { of_squares([total(4), total(5), big]) };
                [norm(0, total(3)), [1.0, sums]].concat()
            }
            Self::Activation => {
                // Chan, Golub and LeVeque 1983, from the mean of each piece to that of all.
                let distances = |piece: &[f64]| piece[1] + piece[2] / f64::from(BIG_SCALE);
                let mean_of = |piece: &[f64]| piece[0] + distances(piece) / piece[8].max(1.0);
                let count = total(8);
                let mean = pieces.clone().map(|piece| mean_of(piece) * piece[8]).sum::<f64>() / count;
                let around = |piece: &[f64]| {
                    let own = of_squares([piece[3], piece[4], piece[5]]) - distances(piece).powi(2) / piece[8].max(1.0);
                    own.max(0.0) + piece[8] * (mean_of(piece) - mean).powi(2)
                };
                let variance = pieces.clone().map(around).sum::<f64>() / count;
                let [mean, std] = if total(9) > 0.0 { [f64::NAN; 2] } else { [mean, variance.sqrt()] };
                vec![mean, std, total(6) / count, total(7) / total(10)]
            }
        }
    }
}

/// The norm of all tensors as one vector, of each seed, as the two numbers of a [`Norm`](super::Norm), `[seeds, 2]`, from the pieces of
/// gradients `[tensors, seeds, pieces, numbers]`.
#[cfg(any(feature = "wgpu", feature = "cuda"))]
pub fn norms_together(pieces: &Tensor<4>) -> Tensor<2> {
    let seeds = pieces.dims()[1];
    let column = |place: usize| pieces.clone().slice(s![.., .., .., place..place + 1]);
    let by_seed = |sums: Tensor<4>| sums.sum_dim(0).sum_dim(2).reshape([seeds, 1]);
    let largest = column(5).max_dim(0).max_dim(2);
    // A sum in units that are far from the largest element is 0, or as good as that.
    let relative = [(0, SMALL_SCALE), (1, 1.0), (2, BIG_SCALE)].map(|(place, scale)| {
        let unit = (largest.clone() * f64::from(scale)).clamp_max(f64::from(f32::MAX));
        let unit = unit.clone().mask_fill(unit.lower_elem(f32::MIN_POSITIVE), 1.0);
        by_seed((column(place).sqrt() / unit).square())
    });
    let relative: Tensor<2> = relative.into_iter().reduce(Tensor::add).expect("three of them");
    let largest: Tensor<2> = largest.reshape([seeds, 1]);
    let not_finite = by_seed(column(4)).greater_elem(0.0);
    Tensor::cat(vec![largest.mask_fill(not_finite.clone(), f64::NAN), relative.mask_fill(not_finite, f64::NAN)], 1)
}

/// The sum of all squares.
fn of_squares([small, middle, big]: [f64; 3]) -> f64 {
    small / f64::from(SMALL_SCALE).powi(2) + middle + big / f64::from(BIG_SCALE).powi(2)
}

/// A count as two numbers: see [`GradientSummary::from_reading`](super::GradientSummary::from_reading).
fn counted(count: f64) -> [f64; 2] {
    [(count / COUNT_BASE).floor(), count % COUNT_BASE]
}
