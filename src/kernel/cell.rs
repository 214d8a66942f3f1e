//! A time step of a recurrent cell and its derivative, but for the products with the weights.
//!
//! All numbers of a unit are in registers at once. The backward pass writes the gradients of the sums over the gates.

// A function that is not inlined into one with a target feature does without it.
#![allow(clippy::inline_always)]

use pulp::Simd;

use super::Activated;
use super::vector::{Function, Lanes};

/// The units in pieces of as many as a vector has.
#[inline(always)]
fn in_vectors<S: Simd, T: Function>(units: usize) -> impl Iterator<Item = Units> {
    let count = Lanes::<S, T>::count();
    (0..units).step_by(count).map(move |first| Units { first, end: units.min(first + count), all: units })
}

/// Some of the units.
#[derive(Clone, Copy)]
struct Units {
    first: usize,
    end: usize,
    all: usize,
}

impl Units {
    /// Their numbers in a row that has several for each unit, part by part.
    #[inline(always)]
    fn of<T>(self, part: usize, row: &[T]) -> &[T] {
        &row[part * self.all + self.first..part * self.all + self.end]
    }

    /// The same to be written.
    #[inline(always)]
    fn of_mut<T>(self, part: usize, row: &mut [T]) -> &mut [T] {
        &mut row[part * self.all + self.first..part * self.all + self.end]
    }
}

/// Reads the four gates of some units.
#[inline(always)]
fn load_gates<S: Simd, T: Function>(simd: S, units: Units, gates: &[T]) -> [Lanes<S, T>; 4] {
    [
        Lanes::load(simd, units.of(0, gates)),
        Lanes::load(simd, units.of(1, gates)),
        Lanes::load(simd, units.of(2, gates)),
        Lanes::load(simd, units.of(3, gates)),
    ]
}

/// `sums += x`, where what has become too small is 0.
#[inline(always)]
pub fn accumulate<S: Simd, T: Function>(simd: S, sums: &mut [T], x: &[T]) {
    let count = Lanes::<S, T>::count();
    for (sums, x) in sums.chunks_mut(count).zip(x.chunks(count)) {
        (Lanes::load(simd, sums) + Lanes::load(simd, x)).settled().store(sums);
    }
}

/// Sums to hidden states.
#[inline(always)]
pub fn rnn_forward<S: Simd, T: Function>(simd: S, function: Option<Activated>, hidden: &mut [T]) {
    let Some(function) = function else {
        return;
    };
    for place in hidden.chunks_mut(Lanes::<S, T>::count()) {
        let sum = Lanes::load(simd, place);
        let hidden = match function {
            Activated::Tanh => sum.tanh(),
            Activated::Sigmoid => sum.sigmoid(),
            Activated::Relu => sum.where_positive(sum),
        };
        hidden.store(place);
    }
}

/// Sums to gates, cell states and hidden states.
#[inline(always)]
pub fn lstm_forward<S: Simd, T: Function>(
    simd: S,
    units: usize,
    gates: &mut [T],
    before: &[T],
    cells: &mut [T],
    hidden: &mut [T],
) {
    let rows = gates.chunks_exact_mut(4 * units).zip(before.chunks_exact(units));
    let states = cells.chunks_exact_mut(units).zip(hidden.chunks_exact_mut(units));
    for ((gates, before), (cells, hidden)) in rows.zip(states) {
        for some in in_vectors::<S, T>(units) {
            let [input, forget, candidate, output] = load_gates(simd, some, gates);
            let (input, forget, candidate, output) =
                (input.sigmoid(), forget.sigmoid(), candidate.tanh(), output.sigmoid());
            let cell = forget.multiply_add(Lanes::load(simd, some.of(0, before)), input * candidate);
            (output * cell.tanh()).store(some.of_mut(0, hidden));
            cell.store(some.of_mut(0, cells));
            input.store(some.of_mut(0, gates));
            forget.store(some.of_mut(1, gates));
            candidate.store(some.of_mut(2, gates));
            output.store(some.of_mut(3, gates));
        }
    }
}

/// Sums to gates and hidden states.
#[inline(always)]
pub fn gru_forward<S: Simd, T: Function>(simd: S, units: usize, gates: &mut [T], before: &[T], hidden: &mut [T]) {
    let states = before.chunks_exact(units).zip(hidden.chunks_exact_mut(units));
    for (gates, (before, hidden)) in gates.chunks_exact_mut(4 * units).zip(states) {
        for some in in_vectors::<S, T>(units) {
            let [reset, update, candidate, inner] = load_gates(simd, some, gates);
            let (reset, update) = (reset.sigmoid(), update.sigmoid());
            let candidate = reset.multiply_add(inner, candidate).tanh();
            let kept = update * Lanes::load(simd, some.of(0, before));
            (Lanes::one(simd) - update).multiply_add(candidate, kept).store(some.of_mut(0, hidden));
            reset.store(some.of_mut(0, gates));
            update.store(some.of_mut(1, gates));
            candidate.store(some.of_mut(2, gates));
        }
    }
}

/// In all three, `of_state` comes in as the gradient with respect to the state after the step, and leaves as the part of that
/// before it that does not go through the weights.
#[inline(always)]
pub fn rnn_backward<S: Simd, T: Function>(
    simd: S,
    function: Option<Activated>,
    hidden: &[T],
    of_state: &mut [T],
    of_sums: &mut [T],
) {
    let count = Lanes::<S, T>::count();
    let states = hidden.chunks(count).zip(of_state.chunks(count));
    for (of_sums, (hidden, gradient)) in of_sums.chunks_mut(count).zip(states) {
        let (hidden, gradient) = (Lanes::load(simd, hidden), Lanes::load(simd, gradient));
        let one = Lanes::one(simd);
        let of_sum = match function {
            Some(Activated::Tanh) => (gradient * (one - hidden * hidden)).settled(),
            Some(Activated::Sigmoid) => (gradient * (hidden * (one - hidden))).settled(),
            Some(Activated::Relu) => gradient.where_positive(hidden),
            None => gradient,
        };
        of_sum.store(of_sums);
    }
    of_state.fill(T::default());
}

/// `of_cell` comes in as the gradient that later time steps give to the cell state, and leaves as that of the cell state before.
/// `wanted` takes the gradient with respect to the cell state after the step, unless it is empty.
#[inline(always)]
pub fn lstm_backward<S: Simd, T: Function>(
    simd: S,
    units: usize,
    gates: &mut [T],
    [before, cells]: [&[T]; 2],
    of_state: &mut [T],
    of_cell: &mut [T],
    wanted: &mut [T],
) {
    let one = Lanes::one(simd);
    let states = before.chunks_exact(units).zip(cells.chunks_exact(units));
    let gradients = of_state.chunks_exact(units).zip(of_cell.chunks_exact_mut(units));
    let mut wanted = wanted.chunks_exact_mut(units);
    for ((gates, (before, cells)), (of_state, of_cells)) in gates.chunks_exact_mut(4 * units).zip(states).zip(gradients)
    {
        let mut wanted = wanted.next();
        for some in in_vectors::<S, T>(units) {
            let [input, forget, candidate, output] = load_gates(simd, some, gates);
            let of_state = Lanes::load(simd, some.of(0, of_state));
            let squashed = Lanes::load(simd, some.of(0, cells)).tanh();
            let later = Lanes::load(simd, some.of(0, of_cells));
            let of_cell = (of_state * output).multiply_add(one - squashed * squashed, later);
            if let Some(wanted) = &mut wanted {
                of_cell.store(some.of_mut(0, wanted));
            }
            let kept = (of_cell * forget).settled();
            let before = Lanes::load(simd, some.of(0, before));
            let of_input = of_cell * candidate * (input * (one - input));
            let of_candidate = of_cell * input * (one - candidate * candidate);
            let of_output = of_state * squashed * (output * (one - output));
            of_input.settled().store(some.of_mut(0, gates));
            (kept * before * (one - forget)).settled().store(some.of_mut(1, gates));
            of_candidate.settled().store(some.of_mut(2, gates));
            of_output.settled().store(some.of_mut(3, gates));
            kept.store(some.of_mut(0, of_cells));
        }
    }
    of_state.fill(T::default());
}

/// See [`rnn_backward`].
#[inline(always)]
pub fn gru_backward<S: Simd, T: Function>(simd: S, units: usize, gates: &mut [T], before: &[T], of_state: &mut [T]) {
    let one = Lanes::one(simd);
    let states = before.chunks_exact(units).zip(of_state.chunks_exact_mut(units));
    for (gates, (before, of_states)) in gates.chunks_exact_mut(4 * units).zip(states) {
        for some in in_vectors::<S, T>(units) {
            let [reset, update, candidate, inner] = load_gates(simd, some, gates);
            let of_state = Lanes::load(simd, some.of(0, of_states));
            let before = Lanes::load(simd, some.of(0, before));
            let of_candidate = (of_state * (one - update) * (one - candidate * candidate)).settled();
            let of_update = of_state * (before - candidate) * (update * (one - update));
            (of_candidate * inner * (reset * (one - reset))).settled().store(some.of_mut(0, gates));
            of_update.settled().store(some.of_mut(1, gates));
            of_candidate.store(some.of_mut(2, gates));
            (of_candidate * reset).settled().store(some.of_mut(3, gates));
            (of_state * update).store(some.of_mut(0, of_states));
        }
    }
}
