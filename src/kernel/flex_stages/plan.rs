//! The stages with their numbers at hand, who takes which rows, and packed weights.

use std::ops::Range;

use burn::backend::TensorMetadata;

use super::{Passed, Primitive};
use crate::kernel::dense::Elementwise;
use crate::kernel::elementwise::fixed_slope;
use crate::kernel::flex_layer::{Columns, ROWS};
use crate::kernel::layer::{Activated, NormAxis};
use crate::kernel::matrix::{Factor, Rows, multiply_panels, pack_panels, panel_width, panels_length};
use crate::kernel::stages::{Shortcut, Stage};
use crate::kernel::{pool, team};

/// Below so many multiplications in all stages together a second thread is not worth waking.
const SMALL: usize = 2_000_000;

/// Panels that are packed at a time.
const PANELS: usize = 2;

/// Whether the derivative of a stage's function needs what the function was applied to.
fn keeps_argument(stage: Stage) -> bool {
    match stage {
        Stage::Dense { function, .. } | Stage::Sum { function, .. } => !function.keeps_value(),
        Stage::Norm { .. } => false,
    }
}

/// A stage with its parameters, those of all seeds.
pub(super) struct Loaded<'a, T> {
    pub(super) kind: Kind<'a, T>,
    pub(super) inputs: usize,
    pub(super) units: usize,
    pub(super) keeps_argument: bool,
    /// The dense stages up to here, with this one.
    pub(super) denses: usize,
}

pub(super) enum Kind<'a, T> {
    Dense { weight: &'a [T], bias: Option<&'a [T]>, function: Elementwise, slopes: Vec<T>, has_slope: bool },
    Norm { axis: NormAxis, gamma: &'a [T], beta: &'a [T], epsilon: T, function: Option<Activated> },
    Sum { shortcut: Shortcut, scale: T, function: (Elementwise, T) },
}

impl<T> Loaded<'_, T> {
    pub(super) fn is_dense(&self) -> bool {
        matches!(self.kind, Kind::Dense { .. })
    }

    /// Whether the examples meet here.
    pub(super) fn is_batch_norm(&self) -> bool {
        matches!(self.kind, Kind::Norm { axis: NormAxis::Batch, .. })
    }

    pub(super) fn is_layer_norm(&self) -> bool {
        matches!(self.kind, Kind::Norm { axis: NormAxis::Units, .. })
    }
}

/// All stages, and how the examples are shared out.
pub(super) struct Plan<'a, T> {
    pub(super) stages: Vec<Loaded<'a, T>>,
    pub(super) seeds: usize,
    /// Rows of each seed.
    pub(super) batch: usize,
    /// Numbers in a row of the input.
    pub(super) inputs: usize,
    /// Consecutive rows of each seed, one seed after the other.
    pub(super) shares: Vec<Share>,
    is_small: bool,
}

/// The rows that one thread takes through the stages; whole pieces, but for the last one of a seed.
pub(super) struct Share {
    pub(super) seed: usize,
    pub(super) rows: Range<usize>,
}

impl<'a, T: Columns> Plan<'a, T> {
    /// `None` for what the stock form must do.
    pub(super) fn new(Passed { x, parameters, form }: &'a Passed) -> Option<Self> {
        let (seeds, inputs) = (form.seeds, x.shape()[1]);
        let batch = x.shape()[0] / seeds;
        let mut parameters = parameters.iter();
        let mut stages: Vec<Loaded<'a, T>> = Vec::with_capacity(form.stages.len());
        for stage in &form.stages {
            let (inputs, denses) = stages.last().map_or((inputs, 0), |stage| (stage.units, stage.denses));
            let (kind, units) = load(*stage, &mut parameters, seeds, inputs)?;
            let denses = denses + usize::from(matches!(kind, Kind::Dense { .. }));
            stages.push(Loaded { kind, inputs, units, keeps_argument: keeps_argument(*stage), denses });
        }
        if batch == 0 || stages.iter().any(|stage| stage.inputs == 0 || stage.units == 0) {
            return None;
        }
        let products = stages.iter().filter(|stage| stage.is_dense()).map(|stage| stage.inputs * stage.units);
        let is_small = seeds * batch * products.sum::<usize>() < SMALL;
        let plan = Self { stages, seeds, batch, inputs, shares: shares(seeds, batch), is_small };
        plan.has_single_shortcuts().then_some(plan)
    }

    /// Whether shortcuts have as many units at both ends and none begins before the end of the last one.
    fn has_single_shortcuts(&self) -> bool {
        let mut last = None;
        for (number, stage) in self.stages.iter().enumerate() {
            let Kind::Sum { shortcut, .. } = stage.kind else {
                continue;
            };
            let fits = match shortcut {
                Shortcut::None => continue,
                Shortcut::Input => last.is_none() && self.inputs == stage.units,
                Shortcut::Output(from) => {
                    from < number && last.is_none_or(|last| from >= last) && self.stages[from].units == stage.units
                }
            };
            if !fits {
                return false;
            }
            last = Some(number);
        }
        true
    }

    /// The numbers of a seed in a buffer that has so many columns.
    pub(super) fn of_seed<'b>(&self, numbers: &'b [T], seed: usize, columns: usize) -> &'b [T] {
        &numbers[seed * self.batch * columns..][..self.batch * columns]
    }

    /// The weights of a seed in a dense stage.
    pub(super) fn weight(&self, stage: usize, seed: usize) -> Option<Rows<'a, T>> {
        let Loaded { kind: Kind::Dense { weight, .. }, inputs, units, .. } = &self.stages[stage] else {
            return None;
        };
        Some(Rows { elements: &weight[seed * inputs * units..][..inputs * units], columns: *units })
    }

    pub(super) fn each<I: Send>(&self, items: Vec<I>, work: impl Fn(I) + Sync) {
        team::each_unless(self.is_small, items, work);
    }

    /// The panels of all weights, where several shares multiply by the same ones.
    pub(super) fn pack(&self, side: Side) -> Panels<T> {
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

    /// Cuts buffers, each with the number of its columns, into the rows of the shares.
    pub(super) fn cut<'b>(&self, buffers: &'b mut [(Vec<T>, usize)]) -> Vec<Vec<&'b mut [T]>> {
        let mut cut: Vec<Vec<&'b mut [T]>> = self.shares.iter().map(|_| Vec::with_capacity(buffers.len())).collect();
        for (buffer, columns) in buffers {
            let mut rest = &mut buffer[..];
            for (share, parts) in self.shares.iter().zip(&mut cut) {
                // A buffer that is not needed is empty.
                let (part, after) = rest.split_at_mut(rest.len().min(share.rows.len() * *columns));
                parts.push(part);
                rest = after;
            }
        }
        cut
    }

    /// What belongs to the shares of a seed.
    pub(super) fn of_each<'b, X>(&self, of_shares: &'b [X], seed: usize) -> &'b [X] {
        let count = self.shares.len() / self.seeds;
        &of_shares[seed * count..(seed + 1) * count]
    }

    /// The rows of a share in a buffer with so many columns.
    pub(super) fn of_share<'b>(&self, numbers: &'b [T], share: &Share, columns: usize) -> &'b [T] {
        &self.of_seed(numbers, share.seed, columns)[share.rows.start * columns..share.rows.end * columns]
    }
}

/// A stage with so many inputs and its parameters, and its units.
fn load<'a, T: Columns>(
    stage: Stage,
    parameters: &mut impl Iterator<Item = &'a Primitive>,
    seeds: usize,
    inputs: usize,
) -> Option<(Kind<'a, T>, usize)> {
    match stage {
        Stage::Dense { function, has_bias, has_slope } => {
            let weight = parameters.next()?;
            let mut vector = |is_there: bool| if is_there { parameters.next()?.as_slice::<T>() } else { None };
            let (bias, slope) = (vector(has_bias), vector(has_slope));
            let slopes = match function {
                Elementwise::Prelu => slope?.to_vec(),
                _ => vec![fixed_slope(function); seeds],
            };
            Some((
                Kind::Dense { weight: weight.as_slice::<T>()?, bias, function, slopes, has_slope },
                weight.shape()[1],
            ))
        }
        Stage::Norm { axis, epsilon, function } => {
            let (gamma, beta) = (parameters.next()?.as_slice::<T>()?, parameters.next()?.as_slice::<T>()?);
            Some((Kind::Norm { axis, gamma, beta, epsilon: T::from_f64(epsilon), function }, inputs))
        }
        Stage::Sum { function: Elementwise::Prelu, .. } => None,
        Stage::Sum { shortcut: Shortcut::None, scale, .. } if scale != 1.0 => None,
        Stage::Sum { shortcut, scale, function } => {
            let function = (function, fixed_slope(function));
            Some((Kind::Sum { shortcut, scale: T::from_f64(scale), function }, inputs))
        }
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
pub(super) enum Side {
    Forward,
    Backward,
}

impl Side {
    /// Rows and columns of the factor.
    pub(super) fn dims<T>(self, stage: &Loaded<'_, T>) -> (usize, usize) {
        match self {
            Self::Forward => (stage.inputs, stage.units),
            Self::Backward => (stage.units, stage.inputs),
        }
    }

    pub(super) fn factor<T>(self, weight: Rows<'_, T>) -> Factor<'_, T> {
        match self {
            Self::Forward => Factor::Plain(weight),
            Self::Backward => Factor::Transposed(weight),
        }
    }
}

/// Packed weights, by stage and seed; none where a seed is one share, which packs for itself.
pub(super) struct Panels<T> {
    pub(super) numbers: Vec<T>,
    /// Those of the first seed.
    places: Vec<Range<usize>>,
}

impl<T: Columns> Panels<T> {
    /// Multiplies rows by the weights of a dense stage.
    pub(super) fn multiply(
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
