//! Several layers on the CPU. Each thread takes some examples through all stages between two normalizations, whose moments are
//! those of all examples; nobody waits for others in between, and rows stay in the cache of their core. The gradients of the weights,
//! sums over the examples, come last, when the gradients of all layers are there.
//!
//! Bias gradients and moments are added up in pieces of so many rows, which decide in which order, and not the number of threads.

use std::collections::HashMap;
use std::ops::Range;

use burn::backend::tensor::FloatTensor;
use burn::backend::{Flex, TensorMetadata};
use burn::tensor::DType;

use super::dense::Elementwise;
use super::elementwise::differentiate;
use super::flex::{ActivationSums, DeltaSums};
use super::flex_layer::{Columns, ROWS, contiguous, derivative, merge_moments, tensor};
use super::layer::Activated;
use super::matrix::{Factor, Rows, multiply_panels, multiply_transposed, pack_panels, panel_width, panels_length};
use super::stages::{Shortcut, Stage, Watch};
use super::summary::FlatParts;
use super::{pool, team};

type Primitive = FloatTensor<Flex>;

/// What stages are.
#[derive(Clone, Debug, PartialEq)]
pub struct StagesForm {
    /// One after the other.
    pub stages: Vec<Stage>,
    /// The networks that stand below each other.
    pub seeds: usize,
}

/// What is asked for beside the gradients of the parameters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WantedOfStages {
    /// The gradient with respect to the input.
    pub of_x: bool,
    /// The summaries of the deltas of dense stages.
    pub deltas: bool,
}

/// What a stage leaves.
#[derive(Clone, Debug)]
pub struct Left {
    /// Its output, `[seeds x batch, units]`.
    pub output: Primitive,
    /// What its function was applied to, if the derivative needs it.
    pub argument: Option<Primitive>,
    /// Of a normalization, the mean and the variance of the batch, `[seeds, units]`.
    pub moments: Option<[Primitive; 2]>,
    /// If it is watched, the summary of its output, of each seed.
    pub activation: Option<Vec<f64>>,
}

impl Left {
    /// All tensors.
    pub fn tensors(self) -> impl Iterator<Item = Primitive> {
        [self.output].into_iter().chain(self.argument).chain(self.moments.into_iter().flatten())
    }

    /// The same row by row.
    fn contiguous(&self) -> Self {
        Self {
            output: contiguous(&self.output),
            argument: self.argument.as_ref().map(contiguous),
            moments: self.moments.as_ref().map(|moments| moments.each_ref().map(contiguous)),
            activation: None,
        }
    }
}

/// What a backward pass finds.
#[derive(Debug)]
pub struct Found {
    /// With respect to the input, if it is wanted.
    pub of_x: Option<Primitive>,
    /// With respect to all parameters, in their order.
    pub of_parameters: Vec<Primitive>,
    /// The summaries of the deltas of each dense stage and each seed, if they are wanted.
    pub deltas: Option<Vec<f64>>,
}

/// Whether the derivative of a stage's function needs what the function was applied to.
fn keeps_argument(stage: Stage) -> bool {
    match stage {
        Stage::Dense { function, .. } | Stage::Sum { function, .. } => !function.keeps_value(),
        Stage::Norm { .. } => false,
    }
}

/// The number of the first parameter of each stage.
fn first_parameters(stages: &[Stage]) -> Vec<usize> {
    let mut next = 0;
    let first = |stage: &Stage| {
        next += stage.parameters();
        next - stage.parameters()
    };
    stages.iter().map(first).collect()
}

/// The bias and the slope behind the weights of a dense stage, if they are there.
fn bias_and_slope<X>(parameters: &[X], has_bias: bool, has_slope: bool) -> (Option<&X>, Option<&X>) {
    let bias = has_bias.then(|| &parameters[1]);
    let slope = has_slope.then(|| &parameters[1 + usize::from(has_bias)]);
    (bias, slope)
}

/// Below so many multiplications in all stages together a second thread is not worth waking.
const SMALL: usize = 2_000_000;

/// Panels that are packed, and inputs whose weights get their gradients, at a time.
const PANELS: usize = 2;
const INPUTS: usize = 256;

/// What every stage leaves; `None` where the stock form must do it. Only f32 is watched.
pub fn stages(x: &Primitive, parameters: &[Primitive], watch: Option<&Watch>, form: &StagesForm) -> Option<Vec<Left>> {
    match x.dtype() {
        DType::F32 => forward::<f32>(x, parameters, watch, form),
        DType::F64 if watch.is_none() => forward::<f64>(x, parameters, None, form),
        _ => None,
    }
}

/// The way back; `None` where the stock form must do it.
pub fn stages_backward(
    x: &Primitive,
    parameters: &[Primitive],
    left: &[Left],
    gradient: &Primitive,
    form: &StagesForm,
    wanted: WantedOfStages,
) -> Option<Found> {
    match x.dtype() {
        DType::F32 => backward::<f32>(x, parameters, left, gradient, form, wanted),
        DType::F64 => backward::<f64>(x, parameters, left, gradient, form, wanted),
        _ => None,
    }
}

/// Keeps the memory of a tensor for the next step, if nobody else looks at it.
pub fn recycle(tensor: Primitive) {
    match tensor.dtype() {
        DType::F32 => pool::recycle::<f32>(tensor),
        DType::F64 => pool::recycle::<f64>(tensor),
        _ => {}
    }
}

/// A stage with its parameters, those of all seeds.
struct Loaded<'a, T> {
    kind: Kind<'a, T>,
    inputs: usize,
    units: usize,
    keeps_argument: bool,
}

enum Kind<'a, T> {
    Dense { weight: &'a [T], bias: Option<&'a [T]>, function: Elementwise, slopes: Vec<T>, has_slope: bool },
    Norm { gamma: &'a [T], beta: &'a [T], epsilon: T, function: Option<Activated> },
    Sum { shortcut: Shortcut, scale: T, function: (Elementwise, T) },
}

impl<T> Loaded<'_, T> {
    fn is_dense(&self) -> bool {
        matches!(self.kind, Kind::Dense { .. })
    }

    fn is_norm(&self) -> bool {
        matches!(self.kind, Kind::Norm { .. })
    }
}

/// All stages, and how the examples are shared out.
struct Plan<'a, T> {
    stages: Vec<Loaded<'a, T>>,
    seeds: usize,
    /// Rows of each seed.
    batch: usize,
    /// Numbers in a row of the input.
    inputs: usize,
    /// Consecutive rows of each seed, one seed after the other.
    shares: Vec<Share>,
    is_small: bool,
}

/// The rows that one thread takes through the stages; whole pieces, but for the last one of a seed.
struct Share {
    seed: usize,
    rows: Range<usize>,
}

impl<'a, T: Columns> Plan<'a, T> {
    fn new(x: &Primitive, parameters: &'a [Primitive], form: &StagesForm) -> Option<Self> {
        let (seeds, inputs) = (form.seeds, x.shape()[1]);
        let batch = x.shape()[0] / seeds;
        let mut units = inputs;
        let mut stages = Vec::with_capacity(form.stages.len());
        for (stage, first) in form.stages.iter().zip(first_parameters(&form.stages)) {
            let parameters = &parameters[first..first + stage.parameters()];
            let inputs = units;
            let kind = match *stage {
                Stage::Dense { function, has_bias, has_slope } => {
                    let (bias, slope) = bias_and_slope(parameters, has_bias, has_slope);
                    units = parameters[0].shape()[1];
                    let bias = match bias {
                        Some(bias) => Some(bias.as_slice::<T>()?),
                        None => None,
                    };
                    let slopes = match (function, slope) {
                        (Elementwise::Prelu, slope) => slope?.as_slice::<T>()?.to_vec(),
                        _ => vec![fixed_slope(function); seeds],
                    };
                    Kind::Dense { weight: parameters[0].as_slice::<T>()?, bias, function, slopes, has_slope }
                }
                Stage::Norm { epsilon, function } => {
                    let (gamma, beta) = (parameters[0].as_slice::<T>()?, parameters[1].as_slice::<T>()?);
                    Kind::Norm { gamma, beta, epsilon: T::from_f64(epsilon), function }
                }
                Stage::Sum { shortcut, scale, function } => {
                    Kind::Sum { shortcut, scale: T::from_f64(scale), function: (function, fixed_slope(function)) }
                }
            };
            stages.push(Loaded { kind, inputs, units, keeps_argument: keeps_argument(*stage) });
        }
        if batch == 0 || stages.iter().any(|stage| stage.inputs == 0 || stage.units == 0) {
            return None;
        }
        let products: usize =
            stages.iter().filter(|stage| stage.is_dense()).map(|stage| stage.inputs * stage.units).sum();
        let is_small = seeds * batch * products < SMALL;
        Some(Self { stages, seeds, batch, inputs, shares: shares(seeds, batch), is_small })
    }

    /// The numbers of a seed in a buffer that has so many columns.
    fn of_seed<'b>(&self, numbers: &'b [T], seed: usize, columns: usize) -> &'b [T] {
        &numbers[seed * self.batch * columns..][..self.batch * columns]
    }

    /// The weights of a seed in a dense stage.
    fn weight(&self, stage: usize, seed: usize) -> Option<Rows<'a, T>> {
        let Loaded { kind: Kind::Dense { weight, .. }, inputs, units, .. } = &self.stages[stage] else {
            return None;
        };
        Some(Rows { elements: &weight[seed * inputs * units..][..inputs * units], columns: *units })
    }

    fn each<I: Send>(&self, items: Vec<I>, work: impl Fn(I) + Sync) {
        team::each_unless(self.is_small, items, work);
    }

    /// The panels of all weights, where several shares multiply by the same ones.
    fn pack(&self, side: Side) -> Panels<T> {
        if self.shares.len() == self.seeds {
            return Panels { numbers: Vec::new(), places: Vec::new() };
        }
        let mut places = Vec::with_capacity(self.stages.len());
        let mut length = 0;
        for stage in &self.stages {
            let (rows, columns) = side.dims(stage);
            let size = if stage.is_dense() { panels_length::<T>(rows, columns) } else { 0 };
            places.push(length..length + size);
            length += size * self.seeds;
        }
        let mut numbers = pool::take::<T>(length);
        let mut rest = &mut numbers[..];
        let mut work = Vec::new();
        let width = PANELS * panel_width::<T>();
        for (stage, place) in places.iter().enumerate() {
            let (rows, columns) = side.dims(&self.stages[stage]);
            for seed in 0..self.seeds {
                let Some(weight) = self.weight(stage, seed) else {
                    continue;
                };
                let (panels, after) = rest.split_at_mut(place.len());
                rest = after;
                let parts = (0..columns).step_by(width).map(|first| first..columns.min(first + width));
                work.extend(
                    parts.zip(panels.chunks_mut(rows * width)).map(|(columns, panels)| (weight, columns, panels)),
                );
            }
        }
        self.each(work, |(weight, columns, panels)| pack_panels(side.factor(weight), &columns, panels));
        Panels { numbers, places }
    }

    /// Cuts rows of buffers with so many columns each into those of the shares.
    fn cut<'b>(&self, buffers: Vec<(&'b mut [T], usize)>) -> Vec<Vec<&'b mut [T]>> {
        let mut cut: Vec<Vec<&'b mut [T]>> = self.shares.iter().map(|_| Vec::with_capacity(buffers.len())).collect();
        for (mut rest, columns) in buffers {
            for (share, parts) in self.shares.iter().zip(&mut cut) {
                // A buffer that is not needed is empty.
                let (part, after) = rest.split_at_mut(rest.len().min(share.rows.len() * columns));
                parts.push(part);
                rest = after;
            }
        }
        cut
    }

    /// The rows of a share in a buffer with so many columns.
    fn of_share<'b>(&self, numbers: &'b [T], share: &Share, columns: usize) -> &'b [T] {
        &self.of_seed(numbers, share.seed, columns)[share.rows.start * columns..share.rows.end * columns]
    }
}

/// The slope below 0 that is not learned.
fn fixed_slope<T: Columns>(function: Elementwise) -> T {
    match function {
        Elementwise::LeakyRelu { slope } => T::from_f64(slope),
        _ => T::default(),
    }
}

/// As many for each seed as give every thread the same number of rows, or nearly so.
fn shares(seeds: usize, batch: usize) -> Vec<Share> {
    let threads = team::threads();
    let parts = if seeds.is_multiple_of(threads) || seeds >= 4 * threads { 1 } else { threads };
    let size = batch.div_ceil(parts).next_multiple_of(ROWS);
    let rows = move || (0..batch).step_by(size).map(move |first| first..batch.min(first + size));
    (0..seeds).flat_map(|seed| rows().map(move |rows| Share { seed, rows })).collect()
}

/// Whether examples are multiplied by the weights or gradients by their transpose.
#[derive(Clone, Copy)]
enum Side {
    Forward,
    Backward,
}

impl Side {
    /// Rows and columns of the factor.
    fn dims<T>(self, stage: &Loaded<'_, T>) -> (usize, usize) {
        match self {
            Self::Forward => (stage.inputs, stage.units),
            Self::Backward => (stage.units, stage.inputs),
        }
    }

    fn factor<T>(self, weight: Rows<'_, T>) -> Factor<'_, T> {
        match self {
            Self::Forward => Factor::Plain(weight),
            Self::Backward => Factor::Transposed(weight),
        }
    }
}

/// Packed weights, by stage and seed; none where a seed is one share, which packs for itself.
struct Panels<T> {
    numbers: Vec<T>,
    /// Those of the first seed.
    places: Vec<Range<usize>>,
}

impl<T: Columns> Panels<T> {
    /// Multiplies rows by the weights of a dense stage.
    fn multiply(
        &self,
        plan: &Plan<'_, T>,
        (side, stage, seed): (Side, usize, usize),
        rows: &[T],
        bias: Option<&[T]>,
        out: &mut [T],
    ) {
        let (inner, columns) = side.dims(&plan.stages[stage]);
        let rows = Rows { elements: rows, columns: inner };
        if let Some(place) = self.places.get(stage) {
            let panels = &self.numbers[place.start + seed * place.len()..][..place.len()];
            multiply_panels(rows, panels, bias, columns, out);
        } else if let Some(weight) = plan.weight(stage, seed) {
            let mut panels = pool::take::<T>(panels_length::<T>(inner, columns));
            pack_panels(side.factor(weight), &(0..columns), &mut panels);
            multiply_panels(rows, &panels, bias, columns, out);
            pool::give(panels);
        }
    }
}

/// What normalizes a stage, and what its backward pass needs; of all seeds.
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
    /// The moments of each piece of the rows that are normalized next.
    parts: Vec<T>,
    /// The sums of each piece of each stage that is watched, in their order.
    activations: Vec<Vec<ActivationSums>>,
}

fn forward<T: Columns>(
    x: &Primitive,
    parameters: &[Primitive],
    watch: Option<&Watch>,
    form: &StagesForm,
) -> Option<Vec<Left>> {
    let x = contiguous(x);
    let parameters: Vec<Primitive> = parameters.iter().map(contiguous).collect();
    let plan = Plan::<T>::new(&x, &parameters, form)?;
    let x = x.as_slice::<T>()?;
    let rows = plan.seeds * plan.batch;
    let mut outputs: Vec<Vec<T>> = plan.stages.iter().map(|stage| pool::take(rows * stage.units)).collect();
    let argument = |stage: &Loaded<'_, T>| pool::take(if stage.keeps_argument { rows * stage.units } else { 0 });
    let mut arguments: Vec<Vec<T>> = plan.stages.iter().map(argument).collect();
    let panels = plan.pack(Side::Forward);
    let columns = |(stage, buffer): (usize, _)| (buffer, plan.stages[stage].units);
    let cut_outputs = plan.cut(outputs.iter_mut().map(Vec::as_mut_slice).enumerate().map(columns).collect());
    let cut_arguments = plan.cut(arguments.iter_mut().map(Vec::as_mut_slice).enumerate().map(columns).collect());
    let mut work: Vec<Forward<'_, T>> = plan
        .shares
        .iter()
        .zip(cut_outputs.into_iter().zip(cut_arguments))
        .map(|(share, (outputs, arguments))| {
            let x = plan.of_share(x, share, plan.inputs);
            Forward { share, x, outputs, arguments, parts: Vec::new(), activations: Vec::new() }
        })
        .collect();
    let mut moments: Vec<Option<Moments<T>>> = plan.stages.iter().map(|_| None).collect();
    let mut first = 0;
    loop {
        let is_next = |stage: &usize| plan.stages[*stage].is_norm() && moments[*stage].is_none();
        let next = (first..plan.stages.len()).find(is_next);
        let end = next.unwrap_or(plan.stages.len());
        plan.each(work.iter_mut().collect(), |share: &mut Forward<'_, T>| {
            for stage in first..end {
                share.run(&plan, stage, &panels, moments[stage].as_ref());
                if let Some(watch) = watch.filter(|watch| watch.activations.contains(&stage)) {
                    share.watch(stage, plan.stages[stage].units, watch.flat);
                }
            }
            if next.is_some() {
                share.take_moments(&plan, end);
            }
        });
        match next {
            Some(norm) => moments[norm] = merged(&plan, norm, &work),
            None => break,
        }
        first = end;
    }
    let watched = watch.map_or(&[][..], |watch| &watch.activations);
    let summaries = watched.iter().enumerate().map(|(place, stage)| {
        let of_pieces = |seed| of_seed_in_order(&plan.shares, &work, seed).flat_map(|share| &share.activations[place]);
        let summary = |seed| {
            let mut sums = ActivationSums::new(plan.stages[*stage].units);
            of_pieces(seed).for_each(|piece| sums.merge(piece));
            sums.summary()
        };
        (*stage, (0..plan.seeds).flat_map(summary).collect::<Vec<f64>>())
    });
    let mut summaries: HashMap<usize, Vec<f64>> = summaries.collect();
    drop(work);
    pool::give(panels.numbers);
    let parts = plan.stages.iter().zip(outputs).zip(arguments.into_iter().zip(moments)).enumerate();
    let left = parts.map(|(number, ((stage, output), (argument, moments)))| Left {
        output: tensor(output, [rows, stage.units]),
        argument: stage.keeps_argument.then(|| tensor(argument, [rows, stage.units])),
        moments: moments.map(|Moments { mean, variance, .. }| {
            [mean, variance].map(|numbers| tensor(numbers, [plan.seeds, stage.units]))
        }),
        activation: summaries.remove(&number),
    });
    Some(left.collect())
}

/// What belongs to the shares of a seed, in their order.
fn of_seed_in_order<'a, X>(shares: &'a [Share], of_shares: &'a [X], seed: usize) -> impl Iterator<Item = &'a X> {
    shares.iter().zip(of_shares).filter(move |(share, _)| share.seed == seed).map(|(_, of_share)| of_share)
}

/// The moments of a normalization from those of all pieces.
fn merged<T: Columns>(plan: &Plan<'_, T>, norm: usize, work: &[Forward<'_, T>]) -> Option<Moments<T>> {
    let stage = &plan.stages[norm];
    let Kind::Norm { gamma, epsilon, .. } = &stage.kind else {
        return None;
    };
    let units = stage.units;
    let (mut mean, mut variance) = (vec![T::default(); plan.seeds * units], vec![T::default(); plan.seeds * units]);
    let outputs = mean.chunks_exact_mut(units).zip(variance.chunks_exact_mut(units));
    for (seed, (mean, variance)) in outputs.enumerate() {
        let shares = of_seed_in_order(&plan.shares, work, seed);
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
        let of_seed = |numbers: &[T]| seed * units..(seed * units + units).min(numbers.len());
        match kind {
            Kind::Dense { bias, function, slopes, .. } => {
                let bias = bias.map(|bias| &bias[of_seed(bias)]);
                panels.multiply(plan, (Side::Forward, stage, seed), input, bias, output);
                if *keeps_argument {
                    self.arguments[stage].copy_from_slice(output);
                }
                T::apply(*function, slopes[seed], output);
            }
            Kind::Norm { beta, function, .. } => {
                let Some(Moments { mean, factor, .. }) = moments else {
                    return;
                };
                let columns = [mean, factor, *beta].map(|numbers| &numbers[of_seed(numbers)]);
                T::scale_rows(input, columns, output);
                if let Some(function) = function {
                    T::apply((*function).into(), T::default(), output);
                }
            }
            Kind::Sum { shortcut, scale, function: (function, slope) } => {
                match shortcut {
                    Shortcut::None => {
                        output.copy_from_slice(input);
                        T::scale(*scale, output);
                    }
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
        self.activations.push(self.outputs[stage].chunks(ROWS * units).map(of_piece).collect());
    }

    /// The moments of the pieces of the input of a normalization.
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
    /// Of every piece of the normalization at hand: the gradients with respect to gamma and beta.
    parts: Vec<T>,
    /// The sums of each piece of the deltas, of the last dense stage first, if they are wanted.
    deltas: Option<Vec<Vec<DeltaSums>>>,
}

/// What a normalization was done with, of all seeds.
struct Normal<T> {
    mean: Vec<T>,
    /// 1 / deviation
    inverse: Vec<T>,
}

/// The gradients with respect to gamma and beta, and what the input's is made of.
struct Derivative<T> {
    of_gamma: Vec<T>,
    of_beta: Vec<T>,
    numbers: [Vec<T>; 3],
}

fn backward<T: Columns>(
    x: &Primitive,
    parameters: &[Primitive],
    left: &[Left],
    gradient: &Primitive,
    form: &StagesForm,
    wanted: WantedOfStages,
) -> Option<Found> {
    let (x, gradient) = (contiguous(x), contiguous(gradient));
    let parameters: Vec<Primitive> = parameters.iter().map(contiguous).collect();
    let plan = Plan::<T>::new(&x, &parameters, form)?;
    let left: Vec<Left> = left.iter().map(Left::contiguous).collect();
    let (x, gradient) = (x.as_slice::<T>()?, gradient.as_slice::<T>()?);
    let outputs: Option<Vec<&[T]>> = left.iter().map(|left| left.output.as_slice::<T>()).collect();
    let outputs = outputs?;
    let kept = left.iter().map(|left| left.argument.as_ref().unwrap_or(&left.output).as_slice::<T>());
    let kept: Option<Vec<&[T]>> = kept.collect();
    let kept = kept?;
    let rows = plan.seeds * plan.batch;
    let denses: Vec<usize> = (0..plan.stages.len()).filter(|stage| plan.stages[*stage].is_dense()).collect();
    let begins_dense = denses.first() == Some(&0);
    let needs_input = wanted.of_x || !begins_dense;

    let normals: Vec<Option<Normal<T>>> =
        plan.stages.iter().zip(&left).map(|(stage, left)| normal(stage, left)).collect();
    let of_z_length: usize = denses.iter().map(|stage| rows * plan.stages[*stage].units).sum();
    let (mut of_x, mut of_z) =
        (pool::take::<T>(if needs_input { rows * plan.inputs } else { 0 }), pool::take::<T>(of_z_length));
    let mut buffers = vec![(&mut of_x[..], plan.inputs)];
    let mut rest = &mut of_z[..];
    for stage in &denses {
        let units = plan.stages[*stage].units;
        let (part, after) = rest.split_at_mut(rows * units);
        buffers.push((part, units));
        rest = after;
    }
    let panels = plan.pack(Side::Backward);
    let units_at_the_end = plan.stages.last()?.units;
    let work = plan.shares.iter().zip(plan.cut(buffers)).map(|(share, mut gradients)| {
        gradients.last_mut()?.copy_from_slice(plan.of_share(gradient, share, units_at_the_end));
        let input = |stage: usize| {
            let numbers = if stage == 0 { x } else { outputs[stage - 1] };
            plan.of_share(numbers, share, plan.stages[stage].inputs)
        };
        let kept = |stage: usize| plan.of_share(kept[stage], share, plan.stages[stage].units);
        let pieces = share.rows.len().div_ceil(ROWS);
        let sums = denses.iter().map(|stage| vec![T::default(); pieces * (plan.stages[*stage].units + 2)]);
        Some(Backward {
            share,
            inputs: (0..plan.stages.len()).map(input).collect(),
            kept: (0..plan.stages.len()).map(kept).collect(),
            gradients,
            pending: (Shortcut::None, Vec::new()),
            sums: sums.collect(),
            parts: Vec::new(),
            deltas: wanted.deltas.then(Vec::new),
        })
    });
    let mut work: Vec<Backward<'_, T>> = work.collect::<Option<_>>()?;

    // From the last stage to the first; the gradients with respect to gamma and beta are needed half way through a normalization.
    let mut derivatives: Vec<Option<Derivative<T>>> = plan.stages.iter().map(|_| None).collect();
    let mut end = plan.stages.len();
    loop {
        let norm = (0..end).rev().find(|stage| plan.stages[*stage].is_norm());
        plan.each(work.iter_mut().collect(), |share: &mut Backward<'_, T>| {
            if let (Some(Some(derivative)), Some(Some(normal))) = (derivatives.get(end), normals.get(end)) {
                share.leave_norm(&plan, end, normal, derivative);
            }
            for stage in (norm.map_or(0, |norm| norm + 1)..end).rev() {
                share.run(&plan, stage, &panels);
            }
            match norm.map(|norm| (norm, normals[norm].as_ref())) {
                Some((norm, Some(normal))) => share.enter_norm(&plan, norm, normal),
                Some((_, None)) => {}
                None => share.end(),
            }
        });
        let Some(norm) = norm else {
            break;
        };
        derivatives[norm] = Some(derived(&plan, norm, normals[norm].as_ref()?, &work)?);
        end = norm;
    }
    pool::give(panels.numbers);
    let deltas = wanted.deltas.then(|| {
        let denses = &denses;
        let of_piece = |place: usize, seed: usize| {
            let shares = of_seed_in_order(&plan.shares, &work, seed);
            shares.filter_map(|share| share.deltas.as_ref()).flat_map(move |deltas| &deltas[denses.len() - 1 - place])
        };
        let mut summaries = Vec::with_capacity(4 * plan.seeds * denses.len());
        for (place, stage) in denses.iter().enumerate() {
            for seed in 0..plan.seeds {
                let mut sums = DeltaSums::new(plan.stages[*stage].units);
                of_piece(place, seed).for_each(|piece| sums.merge(piece));
                summaries.extend(sums.summary());
            }
        }
        summaries
    });
    let sums: Vec<Vec<Vec<T>>> = work.into_iter().map(|share| share.sums).collect();
    let inputs = |stage: usize| if stage == 0 { x } else { outputs[stage - 1] };
    let mut of_dense = of_parameters(&plan, &denses, inputs, &of_z, &sums).into_iter();
    pool::give(of_z);

    let mut of_parameters = Vec::with_capacity(parameters.len());
    for (stage, derivative) in plan.stages.iter().zip(derivatives) {
        match (&stage.kind, derivative) {
            (Kind::Dense { bias, has_slope, .. }, _) => {
                let OfDense { weight, bias: of_bias, slope } = of_dense.next()?;
                of_parameters.push(tensor(weight, [plan.seeds * stage.inputs, stage.units]));
                of_parameters.extend(bias.is_some().then(|| tensor(of_bias, [plan.seeds * stage.units])));
                of_parameters.extend(has_slope.then(|| tensor(slope, [plan.seeds])));
            }
            (Kind::Norm { .. }, Some(Derivative { of_gamma, of_beta, .. })) => {
                of_parameters.extend([of_gamma, of_beta].map(|numbers| tensor(numbers, [plan.seeds * stage.units])));
            }
            _ => {}
        }
    }
    let of_x = if wanted.of_x {
        Some(tensor(of_x, [rows, plan.inputs]))
    } else {
        pool::give(of_x);
        None
    };
    Some(Found { of_x, of_parameters, deltas })
}

fn normal<T: Columns>(stage: &Loaded<'_, T>, left: &Left) -> Option<Normal<T>> {
    let Kind::Norm { epsilon, .. } = stage.kind else {
        return None;
    };
    let [mean, variance] = left.moments.as_ref()?;
    let inverse = |variance: &T| T::from_f64(1.0) / (*variance + epsilon).sqrt();
    Some(Normal {
        mean: mean.as_slice::<T>()?.to_vec(),
        inverse: variance.as_slice::<T>()?.iter().map(inverse).collect(),
    })
}

/// The gradients with respect to gamma and beta from those of all pieces, and what the input's is made of.
fn derived<T: Columns>(
    plan: &Plan<'_, T>,
    norm: usize,
    normal: &Normal<T>,
    work: &[Backward<'_, T>],
) -> Option<Derivative<T>> {
    let Loaded { kind: Kind::Norm { gamma, .. }, units, .. } = &plan.stages[norm] else {
        return None;
    };
    let (mut of_gamma, mut of_beta) = (pool::zeros::<T>(plan.seeds * units), pool::zeros::<T>(plan.seeds * units));
    for share in work {
        let of_seed = share.share.seed * units..(share.share.seed + 1) * units;
        for part in share.parts.chunks_exact(2 * units) {
            T::add_to(&part[..*units], &mut of_gamma[of_seed.clone()]);
            T::add_to(&part[*units..], &mut of_beta[of_seed.clone()]);
        }
    }
    let numbers = derivative(plan.batch, [gamma, &normal.inverse, &of_gamma, &of_beta]);
    Some(Derivative { of_gamma, of_beta, numbers })
}

impl<T: Columns> Backward<'_, T> {
    /// Adds what a shortcut carries back to the gradient with respect to the output of a stage; returns the place of that.
    fn arrive(&mut self, plan: &Plan<'_, T>, stage: usize) -> usize {
        let place = plan.stages[..=stage].iter().filter(|stage| stage.is_dense()).count();
        if self.pending.0 == Shortcut::Output(stage) {
            T::add_to(&self.pending.1, self.gradients[place]);
            self.pending.0 = Shortcut::None;
        }
        place
    }

    /// Takes the gradients back through a dense stage or a sum.
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
                    has_tiny |= is_tiny(totals.largest);
                }
                if let Some(deltas) = &mut self.deltas {
                    let of_piece = |piece: &[T]| {
                        let mut sums = DeltaSums::new(*units);
                        sums.add(as_f32(piece));
                        sums
                    };
                    deltas.push(gradient.chunks(ROWS * units).map(of_piece).collect());
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
                    with_digits(sums[*units], gradient, below, |gradient, below| {
                        panels.multiply(plan, product, gradient, None, below);
                    });
                }
            }
            Kind::Norm { .. } => {}
        }
    }

    /// The derivative of a normalization's function, and what the gradients with respect to gamma and beta are summed up from.
    fn enter_norm(&mut self, plan: &Plan<'_, T>, norm: usize, normal: &Normal<T>) {
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

    /// The gradient with respect to the input of a normalization.
    fn leave_norm(&mut self, plan: &Plan<'_, T>, norm: usize, normal: &Normal<T>, derivative: &Derivative<T>) {
        let place = plan.stages[..=norm].iter().filter(|stage| stage.is_dense()).count();
        let units = plan.stages[norm].units;
        let [factor, offset, slope] = &derivative.numbers;
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

/// Numbers of f32 as such, and none of others.
fn as_f32<T: Columns>(numbers: &[T]) -> &[f32] {
    if T::dtype() == DType::F32 { bytemuck::cast_slice(numbers) } else { &[] }
}

/// The numbers of the units of a seed.
fn of_seed<T>(numbers: &[T], seed: usize, units: usize) -> &[T] {
    &numbers[seed * units..][..units]
}

/// Whether products of gradients, the largest of which this is, would lose digits.
fn is_tiny<T: Columns>(largest: T) -> bool {
    largest > T::default() && largest < T::TINY.0
}

/// Multiplies gradients, or a multiple of them if they are so small that products lose digits, and takes the result down again.
fn with_digits<T: Columns>(largest: T, gradient: &[T], out: &mut [T], multiply: impl FnOnce(&[T], &mut [T])) {
    if !is_tiny(largest) {
        return multiply(gradient, out);
    }
    let factor = T::TINY.1;
    let mut scaled = pool::take::<T>(gradient.len());
    scaled.copy_from_slice(gradient);
    T::scale(factor, &mut scaled);
    multiply(&scaled, out);
    T::scale(T::from_f64(1.0) / factor, out);
    pool::give(scaled);
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
fn of_parameters<'a, T: Columns>(
    plan: &Plan<'_, T>,
    denses: &[usize],
    inputs: impl Fn(usize) -> &'a [T],
    of_z: &[T],
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
    let mut rest = of_z;
    for (place, (stage, found)) in denses.iter().zip(&mut found).enumerate() {
        let Loaded { inputs: columns, units, .. } = plan.stages[*stage];
        let (gradient, after) = rest.split_at(plan.seeds * plan.batch * units);
        rest = after;
        let weights = found.weight.chunks_exact_mut(columns * units);
        let vectors = found.bias.chunks_exact_mut(units).zip(&mut found.slope);
        for (seed, (weight, (bias, slope))) in weights.zip(vectors).enumerate() {
            let mut largest = T::default();
            let shares = plan.shares.iter().zip(sums).filter(|(share, _)| share.seed == seed);
            for sums in shares.flat_map(|(_, sums)| sums[place].chunks_exact(units + 2)) {
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
        with_digits(largest, gradient.elements, out, |elements, out| {
            multiply_transposed(x, inputs, Rows { elements, columns: gradient.columns }, out);
        });
    });
    found
}
