//! The backward pass.

use std::ops::Range;

use super::plan::{Kind, Loaded, Panels, Plan, Share, Side};
use super::{Found, Left, Passed, Primitive, WantedOfStages, as_f32, of_seed};
use crate::kernel::digits::{WithDigits, are_tiny};
use crate::kernel::elementwise::differentiate;
use crate::kernel::flex::DeltaSums;
use crate::kernel::flex_layer::{Columns, ROWS, contiguous, derivative, merge_gradients, tensor};
use crate::kernel::flex_rows::normalize_rows_backward;
use crate::kernel::layer::NormAxis;
use crate::kernel::matrix::{Rows, multiply_transposed};
use crate::kernel::pool;
use crate::kernel::stages::Shortcut;

/// Inputs whose weights get their gradients at a time.
const INPUTS: usize = 256;

/// A share in a backward pass.
struct Backward<'a, T> {
    share: &'a Share,
    /// What every stage read, and what the derivative of its function needs.
    inputs: Vec<&'a [T]>,
    kept: Vec<&'a [T]>,
    /// The gradients with respect to the input and to the pre-activations of each dense stage. What comes between two dense stages is
    /// computed where the gradient of the first one will stand.
    gradients: Vec<&'a mut [T]>,
    /// What a shortcut carries back, and where to.
    pending: (Shortcut, Vec<T>),
    /// Of every piece of each dense stage: the bias gradients, the largest gradient, and the slope's gradient.
    sums: Vec<Vec<T>>,
    /// Of each stage, the mean and the variance of each of its rows; empty if it is no layer norm.
    row_moments: Vec<&'a [T]>,
    /// Of every piece of the batch norm at hand: the gradients with respect to gamma and beta.
    parts: Vec<T>,
    /// Likewise of each layer norm; empty of other stages.
    of_layer_norms: Vec<Vec<T>>,
    /// The sums of each piece of the deltas, of the last dense stage first, if they are wanted.
    deltas: Option<Vec<Vec<DeltaSums>>>,
}

/// What a batch norm was done with, of all seeds.
struct Normal<'a, T> {
    gamma: &'a [T],
    mean: Vec<T>,
    /// 1 / deviation
    inverse: Vec<T>,
}

/// The gradients with respect to gamma and beta, of all seeds.
struct OfNorm<T> {
    gamma: Vec<T>,
    beta: Vec<T>,
}

pub(super) fn backward<T: Columns>(
    passed: &Passed,
    left: &[Left],
    gradient: &Primitive,
    wanted: WantedOfStages,
) -> Option<Found> {
    let gradient = contiguous(gradient);
    let plan = Plan::<T>::new(passed)?;
    let (x, gradient) = (passed.x.as_slice::<T>()?, gradient.as_slice::<T>()?);
    let outputs: Option<Vec<&[T]>> = left.iter().map(|left| left.output.as_slice::<T>()).collect();
    let outputs = outputs?;
    let kept = left.iter().map(|left| left.argument.as_ref().unwrap_or(&left.output).as_slice::<T>());
    let kept: Option<Vec<&[T]>> = kept.collect();
    let kept = kept?;
    let row_moments: Vec<Option<&[T]>> = left.iter().map(|left| left.row_moments.as_ref()?.as_slice::<T>()).collect();
    let rows = plan.seeds * plan.batch;
    let denses: Vec<usize> = (0..plan.stages.len()).filter(|stage| plan.stages[*stage].is_dense()).collect();
    let needs_input = wanted.of_x || denses.first() != Some(&0);

    let mut gradients = vec![(pool::take::<T>(if needs_input { rows * plan.inputs } else { 0 }), plan.inputs)];
    gradients
        .extend(denses.iter().map(|stage| plan.stages[*stage].units).map(|units| (pool::take(rows * units), units)));
    let units = plan.stages.last()?.units;
    let work = plan.shares.iter().zip(plan.cut(&mut gradients)).map(|(share, mut gradients)| {
        gradients.last_mut()?.copy_from_slice(plan.of_share(gradient, share, units));
        let input = |stage: usize| {
            let numbers = if stage == 0 { x } else { outputs[stage - 1] };
            plan.of_share(numbers, share, plan.stages[stage].inputs)
        };
        let kept = |stage: usize| plan.of_share(kept[stage], share, plan.stages[stage].units);
        let row_moments = row_moments.iter().map(|rows| rows.map_or(&[][..], |rows| plan.of_share(rows, share, 2)));
        let pieces = share.rows.len().div_ceil(ROWS);
        let of_layer_norms = plan.stages.iter().map(|stage| {
            let length = if stage.is_layer_norm() { pieces * 2 * stage.units } else { 0 };
            vec![T::default(); length]
        });
        let sums = denses.iter().map(|stage| vec![T::default(); pieces * (plan.stages[*stage].units + 2)]);
        Some(Backward {
            share,
            inputs: (0..plan.stages.len()).map(input).collect(),
            kept: (0..plan.stages.len()).map(kept).collect(),
            gradients,
            pending: (Shortcut::None, Vec::new()),
            sums: sums.collect(),
            row_moments: row_moments.collect(),
            parts: Vec::new(),
            of_layer_norms: of_layer_norms.collect(),
            deltas: wanted.deltas.then(Vec::new),
        })
    });
    let mut work: Vec<Backward<'_, T>> = work.collect::<Option<_>>()?;
    let of_norms = take_back(&plan, &mut work, left);
    let deltas = wanted.deltas.then(|| summaries(&plan, &denses, &work));
    let sums: Vec<Vec<Vec<T>>> = work.into_iter().map(|share| share.sums).collect();

    let mut gradients = gradients.into_iter().map(|(gradient, _)| gradient);
    let of_x = gradients.next()?;
    let of_z: Vec<Vec<T>> = gradients.collect();
    let inputs = |stage: usize| if stage == 0 { x } else { outputs[stage - 1] };
    let of_denses = of_denses(&plan, &denses, inputs, &of_z, &sums);
    of_z.into_iter().for_each(pool::give);
    let of_x = if wanted.of_x {
        Some(tensor(of_x, [rows, plan.inputs]))
    } else {
        pool::give(of_x);
        None
    };
    Some(Found { of_x, of_parameters: of_parameters(&plan, of_denses, of_norms)?, deltas })
}

/// Takes the gradients back through all stages; returns those of each normalization's parameters.
fn take_back<T: Columns>(plan: &Plan<'_, T>, work: &mut [Backward<'_, T>], left: &[Left]) -> Vec<Option<OfNorm<T>>> {
    let panels = plan.pack(Side::Backward);
    let normals: Vec<Option<Normal<'_, T>>> =
        plan.stages.iter().zip(left).map(|(stage, left)| normal(stage, left)).collect();
    let mut of_norms: Vec<Option<OfNorm<T>>> = plan.stages.iter().map(|_| None).collect();
    let mut end = plan.stages.len();
    // What the gradient with respect to the input of the batch norm at the end is made of.
    let mut entered: Option<(&Normal<'_, T>, [Vec<T>; 3])> = None;
    loop {
        // The gradients with respect to gamma and beta are needed half way through a batch norm.
        let norm = (0..end).rev().find_map(|stage| normals[stage].as_ref().map(|normal| (stage, normal)));
        plan.each(work.iter_mut().collect(), |share: &mut Backward<'_, T>| {
            if let Some((normal, derivative)) = &entered {
                share.leave_batch_norm(plan, end, normal, derivative);
            }
            for stage in (norm.map_or(0, |(norm, _)| norm + 1)..end).rev() {
                share.run(plan, stage, &panels);
            }
            match norm {
                Some((norm, normal)) => share.enter_batch_norm(plan, norm, normal),
                None => share.end(),
            }
        });
        let Some((norm, normal)) = norm else {
            break;
        };
        let OfNorm { gamma, beta } = of_norm(plan, norm, work, |share| &share.parts);
        entered = Some((normal, derivative(plan.batch, [normal.gamma, &normal.inverse, &gamma, &beta])));
        of_norms[norm] = Some(OfNorm { gamma, beta });
        end = norm;
    }
    pool::give(panels.numbers);
    for (number, stage) in plan.stages.iter().enumerate() {
        if stage.is_layer_norm() {
            of_norms[number] = Some(of_norm(plan, number, work, |share| &share.of_layer_norms[number]));
        }
    }
    of_norms
}

/// The summaries of the deltas of each dense stage and each seed.
fn summaries<T: Columns>(plan: &Plan<'_, T>, denses: &[usize], work: &[Backward<'_, T>]) -> Vec<f64> {
    let summary = |place: usize, seed: usize| {
        let of_shares = plan.of_each(work, seed).iter().filter_map(|share| share.deltas.as_ref());
        let mut sums = DeltaSums::new(plan.stages[denses[place]].units);
        // They come from the last stage to the first.
        of_shares.flat_map(|deltas| &deltas[denses.len() - 1 - place]).for_each(|piece| sums.merge(piece));
        sums.summary()
    };
    (0..denses.len()).flat_map(|place| (0..plan.seeds).flat_map(move |seed| summary(place, seed))).collect()
}

/// All gradients of parameters, in the order of the parameters.
fn of_parameters<T: Columns>(
    plan: &Plan<'_, T>,
    of_denses: Vec<OfDense<T>>,
    of_norms: Vec<Option<OfNorm<T>>>,
) -> Option<Vec<Primitive>> {
    let mut of_denses = of_denses.into_iter();
    let mut found = Vec::new();
    for (stage, of_norm) in plan.stages.iter().zip(of_norms) {
        match (&stage.kind, of_norm) {
            (Kind::Dense { bias, has_slope, .. }, _) => {
                let OfDense { weight, bias: of_bias, slope } = of_denses.next()?;
                found.push(tensor(weight, [plan.seeds * stage.inputs, stage.units]));
                found.extend(bias.is_some().then(|| tensor(of_bias, [plan.seeds * stage.units])));
                found.extend(has_slope.then(|| tensor(slope, [plan.seeds])));
            }
            (Kind::Norm { .. }, Some(OfNorm { gamma, beta })) => {
                found.extend([gamma, beta].map(|numbers| tensor(numbers, [plan.seeds * stage.units])));
            }
            _ => {}
        }
    }
    Some(found)
}

/// What a stage that is a batch norm was done with.
fn normal<'a, T: Columns>(stage: &Loaded<'a, T>, left: &Left) -> Option<Normal<'a, T>> {
    let Kind::Norm { axis: NormAxis::Batch, gamma, epsilon, .. } = stage.kind else {
        return None;
    };
    let [mean, variance] = left.moments.as_ref()?;
    let inverse = |variance: &T| T::from_f64(1.0) / (*variance + epsilon).sqrt();
    Some(Normal {
        gamma,
        mean: mean.as_slice::<T>()?.to_vec(),
        inverse: variance.as_slice::<T>()?.iter().map(inverse).collect(),
    })
}

/// The gradients with respect to gamma and beta from those of all pieces.
fn of_norm<'a, T: Columns>(
    plan: &Plan<'_, T>,
    norm: usize,
    work: &'a [Backward<'_, T>],
    parts: impl Fn(&'a Backward<'_, T>) -> &'a [T],
) -> OfNorm<T> {
    let units = plan.stages[norm].units;
    let (mut gamma, mut beta) = (pool::zeros::<T>(plan.seeds * units), pool::zeros::<T>(plan.seeds * units));
    for share in work {
        let of_seed = share.share.seed * units..(share.share.seed + 1) * units;
        merge_gradients(parts(share), &mut gamma[of_seed.clone()], &mut beta[of_seed]);
    }
    OfNorm { gamma, beta }
}

impl<T: Columns> Backward<'_, T> {
    /// Adds what a shortcut carries back to the gradient with respect to the output of a stage; returns the place of that.
    fn arrive(&mut self, plan: &Plan<'_, T>, stage: usize) -> usize {
        let place = plan.stages[stage].denses;
        if self.pending.0 == Shortcut::Output(stage) {
            T::add_to(&self.pending.1, self.gradients[place]);
            self.pending.0 = Shortcut::None;
        }
        place
    }

    /// Takes the gradients back through a stage that is no batch norm.
    fn run(&mut self, plan: &Plan<'_, T>, stage: usize, panels: &Panels<T>) {
        let place = self.arrive(plan, stage);
        let Loaded { kind, units, .. } = &plan.stages[stage];
        let kept = self.kept[stage];
        match kind {
            Kind::Sum { shortcut, scale, function: (function, slope) } => {
                let gradient = &mut *self.gradients[place];
                T::derive(*function, *slope, kept, gradient);
                if *shortcut != Shortcut::None {
                    self.pending.0 = *shortcut;
                    self.pending.1.clear();
                    self.pending.1.extend_from_slice(gradient);
                }
                if *scale != T::from_f64(1.0) {
                    T::scale(*scale, gradient);
                }
            }
            Kind::Dense { function, slopes, .. } => {
                let (below, here) = self.gradients.split_at_mut(place);
                let (gradient, seed) = (&mut *here[0], self.share.seed);
                let sums = &mut self.sums[place - 1];
                let mut has_tiny = false;
                let pieces = kept.chunks(ROWS * units).zip(gradient.chunks_mut(ROWS * units));
                for ((kept, gradient), sums) in pieces.zip(sums.chunks_exact_mut(units + 2)) {
                    let totals = differentiate((*function, slopes[seed]), kept, gradient, &mut sums[..*units]);
                    (sums[*units], sums[units + 1]) = (totals.largest, totals.of_slope);
                    has_tiny |= are_tiny(totals.largest);
                }
                if let Some(deltas) = &mut self.deltas {
                    let of_piece = |(piece, known): (&[T], &[T])| {
                        let mut sums = DeltaSums::new(*units);
                        if let [columns @ .., largest, _] = as_f32(known) {
                            sums.add_summed(as_f32(piece), columns, *largest);
                        }
                        sums
                    };
                    let pieces = gradient.chunks(ROWS * units).zip(sums.chunks_exact(units + 2));
                    deltas.push(pieces.map(of_piece).collect());
                }
                let below = &mut *below[place - 1];
                // Nobody wants the gradient with respect to the input of the first stage.
                if below.is_empty() {
                    return;
                }
                let product = (Side::Backward, stage, seed);
                if !has_tiny {
                    return panels.multiply(plan, product, gradient, None, below);
                }
                let inputs = plan.stages[stage].inputs;
                let pieces = gradient.chunks(ROWS * units).zip(below.chunks_mut(ROWS * inputs));
                for ((gradient, below), sums) in pieces.zip(sums.chunks_exact(units + 2)) {
                    let digits = WithDigits::new(sums[*units], gradient);
                    panels.multiply(plan, product, digits.numbers(), None, below);
                    digits.settle(below);
                }
            }
            Kind::Norm { gamma, epsilon, function, .. } => {
                let gamma = of_seed(gamma, self.share.seed, *units);
                let (moments, _) = self.row_moments[stage].as_chunks::<2>();
                let numbers = ROWS * units;
                let read = self.inputs[stage].chunks(numbers).zip(kept.chunks(numbers)).zip(moments.chunks(ROWS));
                let written = self.gradients[place].chunks_mut(numbers);
                let parts = self.of_layer_norms[stage].chunks_exact_mut(2 * units);
                for ((((x, y), moments), gradient), part) in read.zip(written).zip(parts) {
                    normalize_rows_backward([x, y], gamma, (*epsilon, *function), moments, gradient, part);
                }
            }
        }
    }

    /// The derivative of a batch norm's function, and what the gradients with respect to gamma and beta are summed up from.
    fn enter_batch_norm(&mut self, plan: &Plan<'_, T>, norm: usize, normal: &Normal<'_, T>) {
        let place = self.arrive(plan, norm);
        let Loaded { kind: Kind::Norm { function, .. }, units, .. } = &plan.stages[norm] else {
            return;
        };
        let gradient = &mut *self.gradients[place];
        if let Some(function) = function {
            T::derive((*function).into(), T::default(), self.kept[norm], gradient);
        }
        let [mean, inverse] = [&normal.mean, &normal.inverse].map(|numbers| of_seed(numbers, self.share.seed, *units));
        let pieces = self.inputs[norm].chunks(ROWS * units).zip(gradient.chunks(ROWS * units));
        self.parts.clear();
        self.parts.resize(pieces.len() * 2 * units, T::default());
        for ((x, gradient), part) in pieces.zip(self.parts.chunks_exact_mut(2 * units)) {
            let (of_gamma, of_beta) = part.split_at_mut(*units);
            T::sum_gradients([x, gradient], [mean, inverse], of_gamma, of_beta);
        }
    }

    /// The gradient with respect to the input of a batch norm.
    fn leave_batch_norm(
        &mut self,
        plan: &Plan<'_, T>,
        norm: usize,
        normal: &Normal<'_, T>,
        [factor, offset, slope]: &[Vec<T>; 3],
    ) {
        let Loaded { denses: place, units, .. } = plan.stages[norm];
        let columns = [&normal.mean, factor, offset, slope].map(|numbers| of_seed(numbers, self.share.seed, units));
        T::differentiate_rows(self.inputs[norm], columns, self.gradients[place]);
    }

    /// What a shortcut carries back to the input.
    fn end(&mut self) {
        if self.pending.0 == Shortcut::Input {
            T::add_to(&self.pending.1, self.gradients[0]);
        }
    }
}

/// The gradients of the parameters of a dense stage.
struct OfDense<T> {
    weight: Vec<T>,
    bias: Vec<T>,
    slope: Vec<T>,
}

/// Some rows of a weight's gradient, of one seed.
struct OfWeight<'a, T> {
    x: Rows<'a, T>,
    inputs: Range<usize>,
    gradient: Rows<'a, T>,
    out: &'a mut [T],
    largest: T,
}

/// The gradients of the parameters of all dense stages, from their inputs and the gradients with respect to their pre-activations;
/// `sums` are those of the shares.
fn of_denses<'a, T: Columns>(
    plan: &Plan<'_, T>,
    denses: &[usize],
    inputs: impl Fn(usize) -> &'a [T],
    of_z: &[Vec<T>],
    sums: &[Vec<Vec<T>>],
) -> Vec<OfDense<T>> {
    let empty = |stage: &usize| {
        let Loaded { inputs, units, .. } = &plan.stages[*stage];
        let weight = pool::take(plan.seeds * inputs * units);
        // The update gives them back as it does all others.
        OfDense { weight, bias: pool::zeros(plan.seeds * units), slope: vec![T::default(); plan.seeds] }
    };
    let mut found: Vec<OfDense<T>> = denses.iter().map(empty).collect();
    let mut work = Vec::new();
    for (place, ((stage, found), gradient)) in denses.iter().zip(&mut found).zip(of_z).enumerate() {
        let Loaded { inputs: columns, units, .. } = plan.stages[*stage];
        let weights = found.weight.chunks_exact_mut(columns * units);
        let vectors = found.bias.chunks_exact_mut(units).zip(&mut found.slope);
        for (seed, (weight, (bias, slope))) in weights.zip(vectors).enumerate() {
            let mut largest = T::default();
            let shares = plan.of_each(sums, seed).iter();
            for sums in shares.flat_map(|sums| sums[place].chunks_exact(units + 2)) {
                T::add_to(&sums[..units], bias);
                *slope += sums[units + 1];
                largest = if sums[units] > largest { sums[units] } else { largest };
            }
            let x = Rows { elements: plan.of_seed(inputs(*stage), seed, columns), columns };
            let gradient = Rows { elements: plan.of_seed(gradient, seed, units), columns: units };
            work.extend(weight.chunks_mut(INPUTS * units).enumerate().map(|(part, out)| {
                let inputs = part * INPUTS..part * INPUTS + out.len() / units;
                (seed, OfWeight { x, inputs, gradient, out, largest })
            }));
        }
    }
    // A thread begins with the seeds that it has taken through the stages.
    work.sort_by_key(|(seed, _)| *seed);
    plan.each(work, |(_, OfWeight { x, inputs, gradient, out, largest })| {
        let digits = WithDigits::new(largest, gradient.elements);
        multiply_transposed(x, inputs, Rows { elements: digits.numbers(), columns: gradient.columns }, out);
        digits.settle(out);
    });
    found
}
