//! The forward pass.

use super::plan::{Kind, Loaded, Panels, Plan, Share, Side};
use super::{Left, Passed, as_f32, of_seed};
use crate::kernel::flex::ActivationSums;
use crate::kernel::flex_layer::{Columns, ROWS, merge_moments, tensor};
use crate::kernel::flex_rows::normalize_rows;
use crate::kernel::layer::NormAxis;
use crate::kernel::pool;
use crate::kernel::stages::{Shortcut, Watch};
use crate::kernel::summary::FlatParts;

/// What batch norm is done with, and what its backward pass needs; of all seeds.
struct Moments<T> {
    mean: Vec<T>,
    variance: Vec<T>,
    /// gamma / deviation
    factor: Vec<T>,
}

/// A share in a forward pass.
struct Forward<'a, T> {
    share: &'a Share,
    x: &'a [T],
    /// Of each stage.
    outputs: Vec<&'a mut [T]>,
    /// Of each stage, empty where it is not kept.
    arguments: Vec<&'a mut [T]>,
    /// Of each stage, the mean and the variance of each of its rows; empty if it is no layer norm.
    row_moments: Vec<&'a mut [T]>,
    /// The moments of each piece of the rows that are normalized next.
    parts: Vec<T>,
    /// Of each stage, the sums of each piece if it is watched.
    activations: Vec<Vec<ActivationSums>>,
}

pub(super) fn forward<T: Columns>(passed: &Passed, watch: Option<&Watch>) -> Option<Vec<Left>> {
    let plan = Plan::<T>::new(passed)?;
    let x = passed.x.as_slice::<T>()?;
    let rows = plan.seeds * plan.batch;
    let buffers = |columns: fn(&Loaded<'_, T>) -> usize| {
        let buffer = |columns: usize| (pool::take(rows * columns), columns);
        plan.stages.iter().map(|stage| buffer(columns(stage))).collect::<Vec<(Vec<T>, usize)>>()
    };
    let mut outputs = buffers(|stage| stage.units);
    let mut arguments = buffers(|stage| if stage.keeps_argument { stage.units } else { 0 });
    let mut row_moments = buffers(|stage| if stage.is_layer_norm() { 2 } else { 0 });
    let cut = plan.cut(&mut outputs).into_iter().zip(plan.cut(&mut arguments)).zip(plan.cut(&mut row_moments));
    let work = plan.shares.iter().zip(cut).map(|(share, ((outputs, arguments), row_moments))| Forward {
        share,
        x: plan.of_share(x, share, plan.inputs),
        outputs,
        arguments,
        row_moments,
        parts: Vec::new(),
        activations: vec![Vec::new(); plan.stages.len()],
    });
    let mut work: Vec<Forward<'_, T>> = work.collect();
    let moments = take_through(&plan, &mut work, watch);
    let activations: Vec<_> = (0..plan.stages.len()).map(|stage| activation(&plan, &work, stage)).collect();
    drop(work);
    let buffers = outputs.into_iter().zip(arguments).zip(row_moments);
    let left = plan.stages.iter().zip(buffers).zip(moments.into_iter().zip(activations));
    let left =
        left.map(|((stage, (((output, units), (argument, _)), (row_moments, _))), (moments, activation))| Left {
            output: tensor(output, [rows, units]),
            argument: stage.keeps_argument.then(|| tensor(argument, [rows, units])),
            row_moments: stage.is_layer_norm().then(|| tensor(row_moments, [rows, 2])),
            moments: moments.map(|Moments { mean, variance, .. }| {
                [mean, variance].map(|numbers| tensor(numbers, [plan.seeds, units]))
            }),
            activation,
        });
    Some(left.collect())
}

/// Takes all rows through all stages; returns the moments of those that are batch norms.
fn take_through<T: Columns>(
    plan: &Plan<'_, T>,
    work: &mut [Forward<'_, T>],
    watch: Option<&Watch>,
) -> Vec<Option<Moments<T>>> {
    let panels = plan.pack(Side::Forward);
    let mut watched = vec![false; plan.stages.len()];
    watch.iter().flat_map(|watch| &watch.activations).for_each(|stage| watched[*stage] = true);
    let mut moments: Vec<Option<Moments<T>>> = plan.stages.iter().map(|_| None).collect();
    let mut first = 0;
    loop {
        let is_next = |stage: &usize| plan.stages[*stage].is_batch_norm() && moments[*stage].is_none();
        let next = (first..plan.stages.len()).find(is_next);
        let end = next.unwrap_or(plan.stages.len());
        plan.each(work.iter_mut().collect(), |share: &mut Forward<'_, T>| {
            for stage in first..end {
                share.run(plan, stage, &panels, moments[stage].as_ref());
                if let Some(watch) = watch.filter(|_| watched[stage]) {
                    share.watch(stage, plan.stages[stage].units, watch.flat);
                }
            }
            if next.is_some() {
                share.take_moments(plan, end);
            }
        });
        let Some(norm) = next else {
            break;
        };
        moments[norm] = merged(plan, norm, work);
        first = norm;
    }
    pool::give(panels.numbers);
    moments
}

/// The summary of the output of a stage, of each seed, if it is watched.
fn activation<T: Columns>(plan: &Plan<'_, T>, work: &[Forward<'_, T>], stage: usize) -> Option<Vec<f64>> {
    let of_seed = |seed: usize| {
        let pieces = plan.of_each(work, seed).iter().flat_map(|share| &share.activations[stage]);
        let mut sums = ActivationSums::new(plan.stages[stage].units);
        pieces.for_each(|piece| sums.merge(piece));
        sums.summary()
    };
    let is_watched = work.iter().any(|share| !share.activations[stage].is_empty());
    is_watched.then(|| (0..plan.seeds).flat_map(of_seed).collect())
}

/// The moments of a batch norm from those of all pieces.
fn merged<T: Columns>(plan: &Plan<'_, T>, norm: usize, work: &[Forward<'_, T>]) -> Option<Moments<T>> {
    let stage = &plan.stages[norm];
    let Kind::Norm { axis: NormAxis::Batch, gamma, epsilon, .. } = &stage.kind else {
        return None;
    };
    let units = stage.units;
    let (mut mean, mut variance) = (vec![T::default(); plan.seeds * units], vec![T::default(); plan.seeds * units]);
    let outputs = mean.chunks_exact_mut(units).zip(variance.chunks_exact_mut(units));
    for (seed, (mean, variance)) in outputs.enumerate() {
        let shares = plan.of_each(work, seed).iter();
        merge_moments(shares.flat_map(|share| share.parts.chunks_exact(2 * units)), plan.batch, mean, variance);
    }
    let factor = gamma.iter().zip(&variance).map(|(gamma, variance)| *gamma / (*variance + *epsilon).sqrt()).collect();
    Some(Moments { mean, variance, factor })
}

impl<T: Columns> Forward<'_, T> {
    /// Takes the rows through a stage.
    fn run(&mut self, plan: &Plan<'_, T>, stage: usize, panels: &Panels<T>, moments: Option<&Moments<T>>) {
        let (before, after) = self.outputs.split_at_mut(stage);
        let input: &[T] = before.last().map_or(self.x, |output| output);
        let output: &mut [T] = after[0];
        let Loaded { kind, units, keeps_argument, .. } = &plan.stages[stage];
        let (seed, units) = (self.share.seed, *units);
        match kind {
            Kind::Dense { bias, function, slopes, .. } => {
                let bias = bias.map(|bias| of_seed(bias, seed, units));
                panels.multiply(plan, (Side::Forward, stage, seed), input, bias, output);
                if *keeps_argument {
                    self.arguments[stage].copy_from_slice(output);
                }
                T::apply(*function, slopes[seed], output);
            }
            Kind::Norm { axis: NormAxis::Batch, beta, function, .. } => {
                let Some(Moments { mean, factor, .. }) = moments else {
                    return;
                };
                let columns = [mean, factor, *beta].map(|numbers| of_seed(numbers, seed, units));
                T::scale_rows(input, columns, output);
                if let Some(function) = function {
                    T::apply((*function).into(), T::default(), output);
                }
            }
            Kind::Norm { axis: NormAxis::Units, gamma, beta, epsilon, function } => {
                let vectors = [gamma, beta].map(|numbers| of_seed(numbers, seed, units));
                let (moments, _) = self.row_moments[stage].as_chunks_mut::<2>();
                let pieces = input.chunks(ROWS * units).zip(output.chunks_mut(ROWS * units));
                for ((input, output), moments) in pieces.zip(moments.chunks_mut(ROWS)) {
                    normalize_rows(input, vectors, (*epsilon, *function), moments, output);
                }
            }
            Kind::Sum { shortcut, scale, function: (function, slope) } => {
                match shortcut {
                    Shortcut::None => output.copy_from_slice(input),
                    Shortcut::Input => T::add_scaled(self.x, input, *scale, output),
                    Shortcut::Output(from) => T::add_scaled(before[*from], input, *scale, output),
                }
                if *keeps_argument {
                    self.arguments[stage].copy_from_slice(output);
                }
                T::apply(*function, *slope, output);
            }
        }
    }

    /// Sums up what has just come out of a stage, while it is in the cache.
    fn watch(&mut self, stage: usize, units: usize, flat: FlatParts) {
        let of_piece = |piece: &[T]| {
            let mut sums = ActivationSums::new(units);
            sums.add(as_f32(piece), flat);
            sums
        };
        self.activations[stage] = self.outputs[stage].chunks(ROWS * units).map(of_piece).collect();
    }

    /// The moments of the pieces of the input of a batch norm.
    fn take_moments(&mut self, plan: &Plan<'_, T>, norm: usize) {
        let units = plan.stages[norm].units;
        let input: &[T] = if norm == 0 { self.x } else { self.outputs[norm - 1] };
        let pieces = input.chunks(ROWS * units);
        self.parts.clear();
        self.parts.resize(pieces.len() * 2 * units, T::default());
        for (piece, part) in pieces.zip(self.parts.chunks_exact_mut(2 * units)) {
            let (mean, squares) = part.split_at_mut(units);
            T::moments(piece, mean, squares);
        }
    }
}
