//! Updates on the CPU, in one pass over parameter and gradient.
//!
//! Sums run over a fixed number of lanes and pieces of a fixed length, so that they do not depend on the number of threads.

// A function that is not inlined into one with a target feature does without it.
#![allow(clippy::inline_always)]

use std::cell::RefCell;
use std::iter;

use burn::backend::Flex;
use burn::tensor::{DType, Tensor};
use multiversion::multiversion;
use multiversion::target::target_cfg_f;

use super::Norm;
use super::flex::{LANES, Sums, add_squares_to, finite_sums, square_sum, turn_into_change, update_sums};
use super::flex_layer::owned;
use super::squares::{BLOCK, Scale};
use super::update::{Measured, Moments, Rule, Update};
use super::{pool, team};

/// Numbers that are taken at a time.
const PIECE: usize = 8192;

/// Vectors whose squares are summed up at a time.
const VECTORS: usize = BLOCK / LANES;

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

/// The next elements of a buffer, or none of an empty one.
#[allow(clippy::mut_mut)] // It moves on in the buffer.
fn take<'a, T>(rest: &mut &'a mut [T], count: usize) -> &'a mut [T] {
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
    if is_measured {
        // A buffer of its own would be filled with zeros for every piece.
        thread_local! {
            static KEPT: RefCell<[[f32; LANES]; VECTORS]> = const { RefCell::new([[0.0; LANES]; VECTORS]) };
        }
        *sums = KEPT.with_borrow_mut(|kept| change_and_sum(weights, gradient, (first, second), numbers, factor, kept));
    } else {
        apply(numbers, weights, gradient, (first, second), factor);
    }
}

fn change_and_sum(
    weights: &mut [f32],
    gradient: &[f32],
    (first, second): (&mut [f32], &mut [f32]),
    numbers: Numbers,
    factor: f32,
    kept: &mut [[f32; LANES]],
) -> UpdateSums {
    let (weights, rest) = weights.as_chunks_mut::<LANES>();
    let (gradients, rest_of_gradient) = gradient.as_chunks::<LANES>();
    let (mut first, rest_of_first) = first.as_chunks_mut::<LANES>();
    let (mut second, rest_of_second) = second.as_chunks_mut::<LANES>();

    let mut sums = UpdateSums::default();
    if !rest.is_empty() {
        let mut before = [0.0; LANES];
        let before = &mut before[..rest.len()];
        before.copy_from_slice(rest);
        follow(numbers, rest, rest_of_gradient, (rest_of_first, rest_of_second), factor);
        [sums.weight, sums.change] = update_sums(before, rest);
        sums.gradient = finite_sums(rest_of_gradient);
    }

    let mut lanes = UpdateLanes::default();
    let beginning = gradients.first().map_or(0.0, |gradient| square_sum(gradient));
    let mut scale = Scale::default().following(beginning);
    let unscaled = Scale::default();
    for (weights, gradients) in weights.chunks_mut(VECTORS).zip(gradients.chunks(VECTORS)) {
        let before = &mut kept[..weights.len()];
        let moments = (take(&mut first, weights.len()), take(&mut second, weights.len()));
        apply_and_add(numbers, (weights, gradients), moments, (factor, scale.factor()), before, &mut lanes);
        let of_gradient = scale.total(&lanes.gradient).unwrap_or_else(|| square_sum(gradients.as_flattened()));
        scale = scale.following(of_gradient);
        let (before, after) = (before.as_flattened_mut(), weights.as_flattened());
        sums.gradient.square_sum += of_gradient;
        sums.weight += unscaled.total(&lanes.weight).unwrap_or_else(|| square_sum(before));
        sums.change += unscaled.total(&lanes.change).unwrap_or_else(|| {
            turn_into_change(before, after);
            square_sum(before)
        });
    }
    if sums.gradient.square_sum.is_finite() {
        sums.gradient.max_abs = lanes.max_abs.into_iter().fold(sums.gradient.max_abs, f32::max);
        sums.gradient.zeros += lanes.zeros.into_iter().map(u64::from).sum::<u64>();
    } else {
        sums.gradient = finite_sums(gradient);
    }
    sums
}

#[multiversion(targets("x86_64+avx512f+avx512vl+avx2+fma", "x86_64+avx2+fma"))]
fn apply(numbers: Numbers, weights: &mut [f32], gradient: &[f32], moments: (&mut [f32], &mut [f32]), factor: f32) {
    follow(numbers, weights, gradient, moments, factor);
}

/// What is summed up, by lanes: squares of a block; the largest absolute gradient and the gradients that are 0 of all of them.
#[derive(Clone, Copy, Default)]
struct UpdateLanes {
    gradient: [f32; LANES],
    weight: [f32; LANES],
    change: [f32; LANES],
    max_abs: [f32; LANES],
    zeros: [u32; LANES],
}

/// Updates a block, and adds up what is measured in the same loop: a loop of its own would wait for the memory that the other has waited
/// for. Gradients are multiplied by the second factor before they are squared. The weights before are left in `before`.
#[multiversion(targets("x86_64+avx512f+avx512vl+avx2+fma", "x86_64+avx2+fma"))]
fn apply_and_add(
    numbers: Numbers,
    (weights, gradients): (&mut [[f32; LANES]], &[[f32; LANES]]),
    (first, second): (&mut [[f32; LANES]], &mut [[f32; LANES]]),
    (factor, scale): (f32, f32),
    before: &mut [[f32; LANES]],
    lanes: &mut UpdateLanes,
) {
    let has_fused = target_cfg_f!(target_feature = "fma");
    let pairs = weights.iter_mut().zip(before).zip(gradients);
    let update = |weights: &mut [f32; LANES], gradient: &[f32; LANES], first: &mut [f32], second: &mut [f32]| {
        follow(numbers, weights, gradient, (first, second), factor);
    };
    // Each rule has a loop of its own, with what it remembers in registers.
    match numbers {
        Numbers::Sgd { .. } => {
            let pairs = pairs.zip(iter::repeat(()));
            add_all(pairs, lanes, scale, has_fused, |w, g, ()| update(w, g, &mut [], &mut []));
        }
        Numbers::Momentum { .. } => add_all(pairs.zip(first), lanes, scale, has_fused, |w, g, first| {
            let mut v = *first;
            update(w, g, &mut v, &mut []);
            *first = v;
        }),
        Numbers::RmsProp { momentum: 0.0, .. } => {
            add_all(pairs.zip(second), lanes, scale, has_fused, |w, g, second| {
                let mut square = *second;
                update(w, g, &mut [], &mut square);
                *second = square;
            });
        }
        Numbers::Adam { .. } | Numbers::RmsProp { .. } => {
            let pairs = pairs.zip(first.iter_mut().zip(second));
            add_all(pairs, lanes, scale, has_fused, |w, g, (first, second)| {
                let (mut v, mut square) = (*first, *second);
                update(w, g, &mut v, &mut square);
                (*first, *second) = (v, square);
            });
        }
    }
}

/// Weights, where they are kept as they were, and their gradients, with what the rule remembers of them.
type Changed<'a, M> = (((&'a mut [f32; LANES], &'a mut [f32; LANES]), &'a [f32; LANES]), M);

/// Updates weights, and adds everything up.
#[inline(always)]
fn add_all<'a, M>(
    numbers: impl Iterator<Item = Changed<'a, M>>,
    lanes: &mut UpdateLanes,
    scale: f32,
    has_fused: bool,
    update: impl Fn(&mut [f32; LANES], &[f32; LANES], M),
) {
    let UpdateLanes { mut max_abs, mut zeros, .. } = *lanes;
    let (mut of_gradient, mut of_weight, mut of_change) = ([0.0_f32; LANES], [0.0_f32; LANES], [0.0_f32; LANES]);
    for (((weights, kept), gradient), moments) in numbers {
        // Copies that lie in registers: of what is behind a reference the compiler loads parts and puts them together again.
        let (before, gradient) = (*weights, *gradient);
        let mut after = before;
        update(&mut after, &gradient, moments);
        (*kept, *weights) = (before, after);
        let (mut scaled, mut change) = (gradient, after);
        for lane in 0..LANES {
            let size = gradient[lane].abs();
            max_abs[lane] = if size > max_abs[lane] { size } else { max_abs[lane] };
            zeros[lane] += u32::from(gradient[lane] == 0.0);
            scaled[lane] *= scale;
            change[lane] -= before[lane];
        }
        add_squares_to(&mut of_gradient, &scaled, has_fused);
        add_squares_to(&mut of_weight, &before, has_fused);
        add_squares_to(&mut of_change, &change, has_fused);
    }
    *lanes = UpdateLanes { gradient: of_gradient, weight: of_weight, change: of_change, max_abs, zeros };
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
        assert!((found - expected).abs() <= 1e-6 * expected, "{found}, expected {expected}");
    }

    #[test]
    fn to_measure_an_update_changes_no_bit_of_it_and_finds_the_norms_of_every_seed() {
        // No multiple of the lanes, and longer than a piece.
        let lengths =
            [5, 37, PIECE + 3].into_iter().flat_map(|length| [1e-38, 1e-30, 1.0, 1e30].map(|size| (length, size)));
        for (rule, (length, size)) in RULES.into_iter().flat_map(|rule| lengths.clone().map(move |case| (rule, case))) {
            let tensor = |numbers: &[f32]| Tensor::<1>::from_floats(numbers, &Device::flex());
            let mut moments = [Moments::default(), Moments::default()];
            let mut weights = numbers(1, 2 * length);
            for step in 2..5 {
                let gradients: Vec<f32> = numbers(step, 2 * length).into_iter().map(|x| x * size).collect();
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
