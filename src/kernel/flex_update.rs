//! Updates on the CPU, in one pass over parameter and gradient.
//!
//! Sums run over a fixed number of lanes and pieces of a fixed length, so that they do not depend on the number of threads.

// A function that is not inlined into one with a target feature does without it.
#![allow(clippy::inline_always)]

use std::iter;

use burn::backend::Flex;
use burn::tensor::{DType, Tensor};
use multiversion::multiversion;
use multiversion::target::target_cfg_f;

use super::Norm;
use super::flex::{LANES, Lanes, Sums, add_squares_to};
use super::flex_layer::owned;
use super::update::{Measured, Moments, Rule, Update};
use super::{pool, team};

/// Numbers that are taken at a time.
const PIECE: usize = 8192;

/// Whether a tensor lies in the memory of this machine, as f32.
pub fn is_ours<const D: usize>(value: &Tensor<D>) -> bool {
    let value = if value.is_autodiff() { value.clone().inner() } else { value.clone() };
    value.dtype() == DType::F32 && value.try_into_primitive::<Flex>().is_ok()
}

/// What is summed up of a gradient, and the squares of the parameter before the update and of its change.
#[derive(Clone, Copy, Debug, Default)]
struct UpdateSums {
    gradient: Sums,
    weight: f64,
    change: f64,
}

impl UpdateSums {
    fn merge(self, other: &Self) -> Self {
        Self {
            gradient: self.gradient.merge(other.gradient),
            weight: self.weight + other.weight,
            change: self.change + other.change,
        }
    }
}

/// A piece of a parameter and what belongs to it.
struct Piece<'a> {
    weights: &'a mut [f32],
    gradient: &'a [f32],
    first: &'a mut [f32],
    second: &'a mut [f32],
    sums: &'a mut UpdateSums,
    factor: f32,
}

/// The rule with its numbers as the loop takes them.
#[derive(Clone, Copy)]
enum Numbers {
    Sgd {
        rate: f32,
    },
    Momentum {
        rate: f32,
        momentum: f32,
    },
    /// `first` and `second` are 1 / (1 - beta^t).
    Adam {
        rate: f32,
        betas: (f32, f32),
        epsilon: f32,
        first: f32,
        second: f32,
    },
    RmsProp {
        rate: f32,
        smoothing: f32,
        momentum: f32,
        epsilon: f32,
    },
}

/// See [`super::update::updated`].
pub fn updated<const D: usize>(
    value: Tensor<D>,
    gradient: Tensor<D>,
    moments: &mut Moments,
    update: &Update<'_>,
    measured: &mut Measured,
) -> Result<Tensor<D>, Tensor<D>> {
    let Ok(gradient) = gradient.try_into_primitive::<Flex>() else {
        return Err(value);
    };
    if !is_ours(&value) || gradient.dtype() != DType::F32 {
        return Err(value);
    }
    // No second handle is left from looking, which would keep it from changing in place.
    let Ok(mut value) = value.try_into_primitive::<Flex>() else {
        unreachable!("it lies in the memory of this machine")
    };
    let gradient = owned::<f32>(gradient);
    let elements: &[f32] = gradient.storage();
    value = owned::<f32>(value);
    let weights: &mut [f32] = value.storage_mut();
    let numbers = begin(moments, update, weights.len());
    let seeds = update.factors.len();
    let length = weights.len() / seeds;
    let pieces = length.div_ceil(PIECE);
    let mut sums = vec![UpdateSums::default(); seeds * pieces];

    let mut of_piece = sums.iter_mut();
    let (mut first, mut second) = (&mut moments.first[..], &mut moments.second[..]);
    let mut items = Vec::with_capacity(seeds * pieces);
    let blocks = weights.chunks_exact_mut(length.max(1)).zip(elements.chunks_exact(length.max(1)));
    for ((weights, gradient), factor) in blocks.zip(update.factors) {
        for (weights, gradient) in weights.chunks_mut(PIECE).zip(gradient.chunks(PIECE)) {
            let (of_first, of_second) = (take(&mut first, weights.len()), take(&mut second, weights.len()));
            if let Some(sums) = of_piece.next() {
                items.push(Piece {
                    weights,
                    gradient,
                    first: of_first,
                    second: of_second,
                    sums,
                    factor: *factor as f32,
                });
            }
        }
    }
    team::each(items, |piece| change(piece, numbers, update.is_measured));
    if update.is_measured {
        measure(&sums, pieces, measured);
    }
    pool::recycle::<f32>(gradient);
    Ok(Tensor::from_primitive::<Flex>(value))
}

/// The next numbers of a buffer, or none of an empty one.
#[allow(clippy::mut_mut)] // It moves on in the buffer.
fn take<'a>(rest: &mut &'a mut [f32], count: usize) -> &'a mut [f32] {
    let now = if rest.is_empty() { 0 } else { count };
    let (now, later) = std::mem::take(rest).split_at_mut(now);
    *rest = later;
    now
}

/// Counts the update, and makes room for what the rule remembers.
fn begin(moments: &mut Moments, update: &Update<'_>, count: usize) -> Numbers {
    moments.steps += 1;
    let rate = update.rate as f32;
    match update.rule {
        Rule::Sgd => Numbers::Sgd { rate },
        Rule::Momentum { momentum } => {
            // The first velocity is the gradient: that of 0 with any share.
            moments.first.resize(count, 0.0);
            Numbers::Momentum { rate, momentum: momentum as f32 }
        }
        Rule::Adam { beta_1, beta_2, epsilon } => {
            moments.first.resize(count, 0.0);
            moments.second.resize(count, 0.0);
            let steps = moments.steps as i32;
            let unbiased = |beta: f64| (1.0 / (1.0 - beta.powi(steps))) as f32;
            Numbers::Adam {
                rate,
                betas: (beta_1 as f32, beta_2 as f32),
                epsilon: epsilon as f32,
                first: unbiased(beta_1),
                second: unbiased(beta_2),
            }
        }
        Rule::RmsProp { smoothing, momentum, epsilon } => {
            moments.second.resize(count, 0.0);
            if momentum > 0.0 {
                moments.first.resize(count, 0.0);
            }
            let (smoothing, momentum, epsilon) = (smoothing as f32, momentum as f32, epsilon as f32);
            Numbers::RmsProp { rate, smoothing, momentum, epsilon }
        }
    }
}

/// Adds what was summed up of each seed.
fn measure(sums: &[UpdateSums], pieces: usize, measured: &mut Measured) {
    for sums in sums.chunks(pieces.max(1)) {
        let total = sums.iter().fold(UpdateSums::default(), UpdateSums::merge);
        measured.gradients.extend(total.gradient.gradient_summary());
        measured.updates.extend(Norm::of_squares(total.weight));
        measured.updates.extend(Norm::of_squares(total.change));
    }
}

fn change(piece: Piece<'_>, numbers: Numbers, is_measured: bool) {
    let Piece { weights, gradient, first, second, sums, factor } = piece;
    if !is_measured {
        apply(numbers, weights, gradient, (first, second), factor);
        return;
    }
    let mut lanes = UpdateLanes::default();
    apply_and_add(numbers, weights, gradient, (first, second), factor, &mut lanes);
    let UpdateLanes { gradient: of_gradient, weight, change } = lanes;
    *sums =
        UpdateSums { gradient: of_gradient.total(gradient), weight: weight.iter().sum(), change: change.iter().sum() };
}

#[multiversion(targets("x86_64+avx512f+avx512vl+avx2+fma", "x86_64+avx2+fma"))]
fn apply(numbers: Numbers, weights: &mut [f32], gradient: &[f32], moments: (&mut [f32], &mut [f32]), factor: f32) {
    follow(numbers, weights, gradient, moments, factor);
}

/// What is summed up, by lanes.
#[derive(Clone, Copy, Default)]
struct UpdateLanes {
    gradient: Lanes,
    weight: [f64; LANES],
    change: [f64; LANES],
}

/// The same, and adds up what is measured in the same loop: a loop of its own would wait for the memory that the other has waited for.
#[multiversion(targets("x86_64+avx512f+avx512vl+avx2+fma", "x86_64+avx2+fma"))]
fn apply_and_add(
    numbers: Numbers,
    weights: &mut [f32],
    gradient: &[f32],
    (first, second): (&mut [f32], &mut [f32]),
    factor: f32,
    lanes: &mut UpdateLanes,
) {
    let has_fused = target_cfg_f!(target_feature = "fma");
    let (weights, rest) = weights.as_chunks_mut::<LANES>();
    let (gradients, rest_of_gradient) = gradient.as_chunks::<LANES>();
    let (first, rest_of_first) = first.as_chunks_mut::<LANES>();
    let (second, rest_of_second) = second.as_chunks_mut::<LANES>();
    let pairs = weights.iter_mut().zip(gradients);
    let update = |weights: &mut [f32; LANES], gradient: &[f32; LANES], first: &mut [f32], second: &mut [f32]| {
        follow(numbers, weights, gradient, (first, second), factor);
    };
    // Each rule has a loop of its own, with what it remembers in registers.
    match numbers {
        Numbers::Sgd { .. } => {
            add_all(pairs.zip(iter::repeat(())), lanes, has_fused, |w, g, ()| update(w, g, &mut [], &mut []));
        }
        Numbers::Momentum { .. } => add_all(pairs.zip(first), lanes, has_fused, |w, g, first| {
            let mut v = *first;
            update(w, g, &mut v, &mut []);
            *first = v;
        }),
        Numbers::RmsProp { momentum: 0.0, .. } => add_all(pairs.zip(second), lanes, has_fused, |w, g, second| {
            let mut square = *second;
            update(w, g, &mut [], &mut square);
            *second = square;
        }),
        Numbers::Adam { .. } | Numbers::RmsProp { .. } => {
            add_all(pairs.zip(first.iter_mut().zip(second)), lanes, has_fused, |w, g, (first, second)| {
                let (mut v, mut square) = (*first, *second);
                update(w, g, &mut v, &mut square);
                (*first, *second) = (v, square);
            });
        }
    }
    // Behind the numbers that are left there are zeros, which change no sum of squares.
    let (mut before, mut after) = ([0.0; LANES], [0.0; LANES]);
    before[..rest.len()].copy_from_slice(rest);
    follow(numbers, rest, rest_of_gradient, (rest_of_first, rest_of_second), factor);
    after[..rest.len()].copy_from_slice(rest);
    lanes.gradient.add_rest(rest_of_gradient, has_fused);
    lanes.add_change(&before, &after, has_fused);
}

impl UpdateLanes {
    #[inline(always)]
    fn add_change(&mut self, before: &[f32; LANES], after: &[f32; LANES], has_fused: bool) {
        let mut change = *after;
        for lane in 0..LANES {
            change[lane] -= before[lane];
        }
        add_squares_to(&mut self.weight, before, has_fused);
        add_squares_to(&mut self.change, &change, has_fused);
    }
}

/// Updates weights with their gradients and with what the rule remembers of them, and adds everything up.
#[inline(always)]
fn add_all<'a, M>(
    numbers: impl Iterator<Item = ((&'a mut [f32; LANES], &'a [f32; LANES]), M)>,
    lanes: &mut UpdateLanes,
    has_fused: bool,
    update: impl Fn(&mut [f32; LANES], &[f32; LANES], M),
) {
    let mut sums = *lanes;
    for ((weights, gradient), moments) in numbers {
        let before = *weights;
        let mut after = before;
        update(&mut after, gradient, moments);
        *weights = after;
        sums.gradient.add(gradient, has_fused);
        sums.add_change(&before, &after, has_fused);
    }
    *lanes = sums;
}

/// Updates numbers side by side.
#[inline(always)]
fn follow(
    numbers: Numbers,
    weights: &mut [f32],
    gradient: &[f32],
    (first, second): (&mut [f32], &mut [f32]),
    factor: f32,
) {
    let pairs = weights.iter_mut().zip(gradient);
    match numbers {
        Numbers::Sgd { rate } => {
            let step = rate * factor;
            pairs.for_each(|(weight, gradient)| *weight -= step * gradient);
        }
        Numbers::Momentum { rate, momentum } => {
            for ((weight, gradient), velocity) in pairs.zip(first) {
                *velocity = momentum * *velocity + factor * gradient;
                *weight -= rate * *velocity;
            }
        }
        Numbers::Adam { rate, betas: (beta_1, beta_2), epsilon, first: unbiased_1, second: unbiased_2 } => {
            for (((weight, gradient), mean), square) in pairs.zip(first).zip(second) {
                let gradient = factor * gradient;
                *mean = beta_1 * *mean + (1.0 - beta_1) * gradient;
                *square = beta_2 * *square + (1.0 - beta_2) * gradient * gradient;
                *weight -= rate * (*mean * unbiased_1) / ((*square * unbiased_2).sqrt() + epsilon);
            }
        }
        Numbers::RmsProp { rate, smoothing, momentum: 0.0, epsilon } => {
            for ((weight, gradient), square) in pairs.zip(second) {
                let gradient = factor * gradient;
                *square = smoothing * *square + (1.0 - smoothing) * gradient * gradient;
                *weight -= rate * (gradient / (square.sqrt() + epsilon));
            }
        }
        Numbers::RmsProp { rate, smoothing, momentum, epsilon } => {
            for (((weight, gradient), velocity), square) in pairs.zip(first).zip(second) {
                let gradient = factor * gradient;
                *square = smoothing * *square + (1.0 - smoothing) * gradient * gradient;
                *velocity = momentum * *velocity + gradient / (square.sqrt() + epsilon);
                *weight -= rate * *velocity;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;
    use crate::kernel::{GradientSummary, UpdateSummary};

    const RULES: [Rule; 5] = [
        Rule::Sgd,
        Rule::Momentum { momentum: 0.9 },
        Rule::Adam { beta_1: 0.9, beta_2: 0.999, epsilon: 1e-8 },
        Rule::RmsProp { smoothing: 0.9, momentum: 0.0, epsilon: 1e-8 },
        Rule::RmsProp { smoothing: 0.9, momentum: 0.5, epsilon: 1e-8 },
    ];

    /// Numbers without a pattern, a few of which are 0.
    fn numbers(seed: usize, count: usize) -> Vec<f32> {
        (0..count).map(|i| (((i + seed) * 7919 + seed * seed) % 1013 / 10) as f32 / 50.0 - 1.0).collect()
    }

    fn l2(numbers: impl Iterator<Item = f32>) -> f64 {
        numbers.map(|x| f64::from(x) * f64::from(x)).sum::<f64>().sqrt()
    }

    #[track_caller]
    fn assert_close(found: Option<f64>, expected: f64) {
        let found = found.expect("finite");
        assert!((found - expected).abs() <= 1e-12 * expected, "{found}, expected {expected}");
    }

    #[test]
    fn to_measure_an_update_changes_no_bit_of_it_and_finds_the_norms_of_every_seed() {
        // No multiple of the lanes, and longer than a piece.
        for (rule, length) in RULES.into_iter().flat_map(|rule| [5, 37, PIECE + 3].map(|length| (rule, length))) {
            let tensor = |numbers: &[f32]| Tensor::<1>::from_floats(numbers, &Device::flex());
            let mut moments = [Moments::default(), Moments::default()];
            let mut weights = numbers(1, 2 * length);
            for step in 2..5 {
                let gradients = numbers(step, 2 * length);
                let mut measured = Measured::default();
                let after = [false, true].map(|is_measured| {
                    let update = Update { rule, rate: 0.01, factors: &[1.0, 0.5], is_measured };
                    let moments = &mut moments[usize::from(is_measured)];
                    let after = updated(tensor(&weights), tensor(&gradients), moments, &update, &mut measured);
                    after.expect("on the CPU").into_data().try_to_vec::<f32>().expect("numbers")
                });
                assert_eq!(after[0], after[1], "{rule:?}");
                for (seed, summary) in measured.gradients.chunks_exact(6).map(GradientSummary::from_reading).enumerate()
                {
                    let gradients = &gradients[seed * length..][..length];
                    assert_close(summary.norm.l2(), l2(gradients.iter().copied()));
                    let largest = gradients.iter().fold(0.0_f32, |largest, x| largest.max(x.abs()));
                    assert_eq!(summary.norm.max_abs, f64::from(largest));
                    assert_eq!(summary.zeros, gradients.iter().filter(|x| **x == 0.0).count() as u64);
                }
                assert_eq!(measured.updates.len(), 2 * 4);
                for (seed, summary) in measured.updates.chunks_exact(4).map(UpdateSummary::from_reading).enumerate() {
                    let of_seed = seed * length..(seed + 1) * length;
                    let (before, after) = (&weights[of_seed.clone()], &after[1][of_seed]);
                    assert_close(summary.weight.l2(), l2(before.iter().copied()));
                    assert_close(
                        summary.update.l2(),
                        l2(before.iter().zip(after).map(|(before, after)| after - before)),
                    );
                }
                weights.clone_from(&after[1]);
            }
        }
    }
}
