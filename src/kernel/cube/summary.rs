//! What the probe reads, of many tensors in one launch.
//!
//! A tensor is cut into pieces; each workgroup leaves the sums of one piece, and the host adds up the pieces when it has read them
//! ([`Pieces`]), so that one launch is enough. Squares go into one of three sums by the size of the number (Blue 1978), which neither
//! overflow nor vanish.

use burn::tensor::Tensor;
use burn_cubecl::cubecl;
use burn_cubecl::cubecl::prelude::*;
use burn_cubecl::tensor::CubeTensor;

use super::rows::{BLOCK, ROWS, UNITS, over_rows};
use super::{Asked, Fused, Limits, Primitive, arguments, longest, primitives, queue};
use crate::kernel::FlatParts;
use crate::kernel::pieces::{BIG_SCALE, Pieces, SMALL_SCALE, TOTAL_SCALE};
use crate::kernel::summary::GATE_EDGE;

/// Numbers below this are squared in units of their own, and those above [`BIG`]: the limits of LAPACK's norm of f32 vectors.
const SMALL: f32 = 1.0 / 9_223_372_036_854_775_808.0; // 2^-63
/// See [`SMALL`].
const BIG: f32 = 4_503_599_627_370_496.0; // 2^52

/// Threads of a workgroup: a power of two.
const THREADS: u32 = UNITS * ROWS;

/// Elements of a tensor for which one more workgroup is worth it.
const ELEMENTS_A_PIECE: usize = 8192;

/// More pieces of a tensor than this are not worth reading.
const MOST_PIECES: usize = 32;

/// The most tensors of one launch: the code of the kernel is as long as there are tensors.
const MOST_TENSORS: usize = 24;

/// The pieces `[tensors, seeds, pieces, numbers]` of gradients, or of whatever else consists of blocks, in the place of seeds; `None` if
/// they are not on a GPU, here and below.
pub fn gradient_pieces(gradients: Vec<Tensor<1>>, seeds: usize) -> Option<Tensor<4>> {
    let lengths: Vec<u32> = gradients.iter().map(|gradient| (gradient.dims()[0] / seeds) as u32).collect();
    let pieces = flat_pieces(&lengths);
    pieces_of(gradients, Pieces::Gradient, seeds, pieces, 1, move |launch| {
        gradient_kernel::launch(
            launch.client,
            launch.cubes,
            CubeDim::new_1d(THREADS),
            launch.inputs,
            lengths[launch.first..][..launch.count].iter().copied().collect(),
            launch.output,
            launch.first as u32,
        );
    })
}

/// Those of parameters before and after an update.
pub fn update_pieces(pairs: Vec<(Tensor<1>, Tensor<1>)>, seeds: usize) -> Option<Tensor<4>> {
    let lengths: Vec<u32> = pairs.iter().map(|(before, _)| (before.dims()[0] / seeds) as u32).collect();
    let pieces = flat_pieces(&lengths);
    let tensors = pairs.into_iter().flat_map(|(before, after)| [before, after]).collect();
    pieces_of(tensors, Pieces::Update, seeds, pieces, 2, move |launch| {
        update_kernel::launch(
            launch.client,
            launch.cubes,
            CubeDim::new_1d(THREADS),
            launch.inputs,
            lengths[launch.first..][..launch.count].iter().copied().collect(),
            launch.output,
            launch.first as u32,
        );
    })
}

/// Those of deltas `[seeds x batch, units]`.
pub fn delta_pieces(deltas: Vec<Tensor<2>>, seeds: usize) -> Option<Tensor<4>> {
    let dims = layer_dims(&deltas, seeds);
    pieces_of(deltas, Pieces::Delta, seeds, layer_pieces(&dims), 1, move |launch| {
        let dims = &dims[launch.first..][..launch.count];
        delta_kernel::launch(
            launch.client,
            launch.cubes,
            CubeDim::new_2d(UNITS, ROWS),
            launch.inputs,
            dims.iter().map(|dims| dims[0]).collect(),
            dims.iter().map(|dims| dims[1]).collect(),
            launch.output,
            launch.first as u32,
        );
    })
}

/// Those of activations `[seeds x batch, units]`.
pub fn activation_pieces(activations: Vec<Tensor<2>>, seeds: usize, flat: FlatParts) -> Option<Tensor<4>> {
    let dims = layer_dims(&activations, seeds);
    // Not every device can compare with infinity.
    let [low, high] = [flat.low, flat.high].map(|bound| bound.clamp(f32::MIN, f32::MAX));
    pieces_of(activations, Pieces::Activation, seeds, layer_pieces(&dims), 1, move |launch| {
        let dims = &dims[launch.first..][..launch.count];
        activation_kernel::launch(
            launch.client,
            launch.cubes,
            CubeDim::new_2d(UNITS, ROWS),
            launch.inputs,
            dims.iter().map(|dims| dims[0]).collect(),
            dims.iter().map(|dims| dims[1]).collect(),
            launch.output,
            launch.first as u32,
            low,
            high,
        );
    })
}

/// Those of gates `[steps x batch, columns]`, which begin at the columns `places x units`: `[steps, gates, 1, numbers]`.
pub fn gate_pieces(gates: &Tensor<2>, steps: usize, units: usize, places: &[usize]) -> Option<Tensor<4>> {
    let [rows, columns] = gates.dims();
    if rows < steps || units == 0 || places.is_empty() {
        return None;
    }
    let tensors = primitives(vec![gates.clone()])?;
    if !is_possible(&tensors, Pieces::Gate, [steps, places.len(), 1], 1) {
        return None;
    }
    let dims = vec![steps, places.len(), 1, Pieces::Gate.numbers()];
    let places: Vec<u32> = places.iter().map(|place| *place as u32).collect();
    let run = move |client: &Client, inputs: Vec<CubeTensor>, found: Vec<CubeTensor>| {
        let [gates] = arguments(inputs);
        let [output] = arguments(found);
        gate_kernel::launch(
            client,
            CubeCount::Static(steps as u32, places.len() as u32, 1),
            CubeDim::new_1d(THREADS),
            gates,
            output,
            places.iter().copied().collect(),
            (rows / steps) as u32,
            units as u32,
            columns as u32,
        );
    };
    let found = queue(Pieces::Gate.name(), tensors, vec![dims], run).pop()?;
    Some(Tensor::from_primitive::<Fused>(found))
}

fn flat_pieces(lengths: &[u32]) -> usize {
    let longest = lengths.iter().max().map_or(0, |length| *length as usize);
    longest.div_ceil(ELEMENTS_A_PIECE).clamp(1, MOST_PIECES)
}

/// Rows of a seed and units, of each tensor.
fn layer_dims(tensors: &[Tensor<2>], seeds: usize) -> Vec<[u32; 2]> {
    tensors.iter().map(Tensor::dims).map(|[rows, units]| [(rows / seeds) as u32, units as u32]).collect()
}

fn layer_pieces(dims: &[[u32; 2]]) -> usize {
    dims.iter().map(|[_, units]| units.div_ceil(UNITS) as usize).max().unwrap_or(1).clamp(1, MOST_PIECES)
}

/// One launch for some of the tensors.
struct Launch<'a> {
    client: &'a Client,
    /// Pieces, tensors, seeds.
    cubes: CubeCount,
    /// The first tensor, counted in pairs where they come in pairs, and how many.
    first: usize,
    count: usize,
    inputs: SequenceArg<Box<[f32]>>,
    output: BufferArg,
}

/// Whether the device has room for a launch that reads so many of the tensors.
fn is_possible(tensors: &[Primitive], kind: Pieces, cubes: [usize; 3], inputs: usize) -> bool {
    let (threads, elements) = (THREADS as usize, longest(tensors));
    let shared = threads * kind.numbers() * size_of::<f32>();
    Limits::of(&tensors[0]).allow(&Asked { threads, shared, cubes, bindings: inputs + 1, elements })
}

/// The pieces of tensors, of which `together` make one entry.
fn pieces_of<const D: usize>(
    tensors: Vec<Tensor<D>>,
    kind: Pieces,
    seeds: usize,
    pieces: usize,
    together: usize,
    launch: impl Fn(Launch<'_>) + Send + Sync + 'static,
) -> Option<Tensor<4>> {
    let entries = tensors.len() / together;
    let tensors = primitives(tensors)?;
    // One binding is for the output.
    let most = Limits::of(tensors.first()?).bindings().saturating_sub(1).min(MOST_TENSORS) / together;
    if most == 0 || !is_possible(&tensors, kind, [pieces, most, seeds], most * together) {
        return None;
    }
    let dims = vec![entries, seeds, pieces, kind.numbers()];
    let run = move |client: &Client, inputs: Vec<CubeTensor>, found: Vec<CubeTensor>| {
        let mut inputs = inputs.into_iter();
        for first in (0..entries).step_by(most) {
            let count = most.min(entries - first);
            launch(Launch {
                client,
                cubes: CubeCount::Static(pieces as u32, count as u32, seeds as u32),
                first,
                count,
                inputs: inputs.by_ref().take(count * together).map(CubeTensor::into_buffer_arg).collect(),
                output: found[0].clone().into_buffer_arg(),
            });
        }
    };
    let found = queue(kind.name(), tensors, vec![dims], run).pop()?;
    Some(Tensor::from_primitive::<Fused>(found))
}

/// Sums of squares by the size of the number, in units of their own.
#[derive(CubeType, Clone, Copy)]
struct Squares {
    small: f32,
    middle: f32,
    big: f32,
}

#[cube]
fn no_squares() -> Squares {
    Squares { small: 0.0f32, middle: 0.0f32, big: 0.0f32 }
}

/// Adds the square of a number that is finite.
#[cube]
fn add_square(squares: &mut Squares, x: f32) {
    let size = x.abs();
    let is_small = size < SMALL;
    let is_big = size > BIG;
    let factor = select(is_small, SMALL_SCALE, select(is_big, BIG_SCALE, 1.0f32));
    let scaled = x * factor;
    let square = scaled * scaled;
    squares.small += select(is_small, square, 0.0f32);
    squares.big += select(is_big, square, 0.0f32);
    squares.middle += select(is_small || is_big, 0.0f32, square);
}

/// Adds other sums.
#[cube]
fn add_squares(squares: &mut Squares, other: Squares) {
    squares.small += other.small;
    squares.middle += other.middle;
    squares.big += other.big;
}

/// By its bits, because compilers may take for granted that numbers are finite.
#[cube]
fn is_finite(x: f32) -> bool {
    u32::reinterpret(x) & 0x7f80_0000u32 != 0x7f80_0000u32
}

#[cube]
#[allow(clippy::verbose_bit_mask)] // All bits but the sign.
fn is_zero(x: f32) -> bool {
    u32::reinterpret(x) & 0x7fff_ffffu32 == 0u32
}

/// Leaves the sums over all threads of a workgroup, each of which has put its numbers into `shared`, number by number, at the places of
/// the first thread; of the last numbers, behind `sums`, the largest. All threads must come here.
#[cube]
fn add_up(shared: &mut [f32], thread: usize, #[comptime] sums: usize, #[comptime] numbers: usize) {
    #[unroll]
    for halving in 1..=comptime!(THREADS.ilog2()) {
        let half = comptime!((THREADS >> halving) as usize);
        sync_cube();
        if thread < half {
            #[unroll]
            for number in 0..numbers {
                let place = number * THREADS as usize + thread;
                let (here, other) = (shared[place], shared[place + half]);
                if comptime!(number < sums) {
                    shared[place] = here + other;
                } else {
                    shared[place] = max(here, other);
                }
            }
        }
    }
    sync_cube();
}

/// Writes what [`add_up`] has left.
#[cube]
fn write_piece(shared: &[f32], output: &mut [f32], first: u32, thread: usize, #[comptime] numbers: usize) {
    if thread < numbers {
        let entry = first as usize + CUBE_POS_Y as usize;
        let of_seed = entry * CUBE_COUNT_Z as usize + CUBE_POS_Z as usize;
        let piece = of_seed * CUBE_COUNT_X as usize + CUBE_POS_X as usize;
        output[piece * numbers + thread] = shared[thread * THREADS as usize];
    }
}

/// Puts the sums of a thread at the places of three numbers.
#[cube]
fn put_squares(shared: &mut [f32], thread: usize, squares: Squares, #[comptime] first: usize) {
    shared[comptime!(first * THREADS as usize) + thread] = squares.small;
    shared[comptime!((first + 1) * THREADS as usize) + thread] = squares.middle;
    shared[comptime!((first + 2) * THREADS as usize) + thread] = squares.big;
}

#[cube(launch)]
fn gradient_kernel(inputs: &Sequence<Box<[f32]>>, lengths: &Sequence<u32>, output: &mut [f32], first: u32) {
    let thread = UNIT_POS as usize;
    let stride = CUBE_COUNT_X as usize * THREADS as usize;
    let mut squares = no_squares();
    let mut zeros = 0.0f32;
    let mut largest = 0.0f32;
    let mut not_finite = 0.0f32;
    #[unroll]
    for entry in 0..inputs.len() {
        if CUBE_POS_Y as usize == entry {
            let input = &inputs[entry];
            let length = lengths[entry] as usize;
            let start = CUBE_POS_Z as usize * length;
            let mut i = CUBE_POS_X as usize * THREADS as usize + thread;
            while i < length {
                let mut block = no_squares();
                let end = min(length, i + BLOCK * stride);
                while i < end {
                    let x = input[start + i];
                    let finite = is_finite(x);
                    let kept = select(finite, x, 0.0f32);
                    add_square(&mut block, kept);
                    largest = max(largest, kept.abs());
                    zeros += select(is_zero(x), 1.0f32, 0.0f32);
                    not_finite += select(finite, 0.0f32, 1.0f32);
                    i += stride;
                }
                add_squares(&mut squares, block);
            }
        }
    }
    let numbers = comptime!(Pieces::Gradient.numbers());
    let mut shared = Shared::new_slice(comptime!(THREADS as usize * Pieces::Gradient.numbers()));
    let threads = THREADS as usize;
    put_squares(&mut shared, thread, squares, 0usize);
    shared[3 * threads + thread] = zeros;
    shared[4 * threads + thread] = not_finite;
    shared[5 * threads + thread] = largest;
    add_up(&mut shared, thread, comptime!(numbers - 1), numbers);
    write_piece(&shared, output, first, thread, numbers);
}

#[cube(launch)]
fn update_kernel(inputs: &Sequence<Box<[f32]>>, lengths: &Sequence<u32>, output: &mut [f32], first: u32) {
    let thread = UNIT_POS as usize;
    let stride = CUBE_COUNT_X as usize * THREADS as usize;
    let mut weights = no_squares();
    let mut updates = no_squares();
    let mut weights_not_finite = 0.0f32;
    let mut updates_not_finite = 0.0f32;
    #[unroll]
    for entry in 0..lengths.len() {
        if CUBE_POS_Y as usize == entry {
            let before = &inputs[comptime!(2 * entry)];
            let after = &inputs[comptime!(2 * entry + 1)];
            let length = lengths[entry] as usize;
            let start = CUBE_POS_Z as usize * length;
            let mut i = CUBE_POS_X as usize * THREADS as usize + thread;
            while i < length {
                let mut block_of_weights = no_squares();
                let mut block_of_updates = no_squares();
                let end = min(length, i + BLOCK * stride);
                while i < end {
                    let weight = before[start + i];
                    let update = after[start + i] - weight;
                    let finite = is_finite(weight);
                    add_square(&mut block_of_weights, select(finite, weight, 0.0f32));
                    weights_not_finite += select(finite, 0.0f32, 1.0f32);
                    let finite = is_finite(update);
                    add_square(&mut block_of_updates, select(finite, update, 0.0f32));
                    updates_not_finite += select(finite, 0.0f32, 1.0f32);
                    i += stride;
                }
                add_squares(&mut weights, block_of_weights);
                add_squares(&mut updates, block_of_updates);
            }
        }
    }
    let numbers = comptime!(Pieces::Update.numbers());
    let mut shared = Shared::new_slice(comptime!(THREADS as usize * Pieces::Update.numbers()));
    let threads = THREADS as usize;
    put_squares(&mut shared, thread, weights, 0usize);
    shared[3 * threads + thread] = weights_not_finite;
    put_squares(&mut shared, thread, updates, 4usize);
    shared[7 * threads + thread] = updates_not_finite;
    add_up(&mut shared, thread, numbers, numbers);
    write_piece(&shared, output, first, thread, numbers);
}

/// A sum whose big numbers are added up in units of their own.
#[derive(CubeType, Clone, Copy)]
struct Total {
    rest: f32,
    /// In units of 1 / [`BIG_SCALE`].
    big: f32,
}

#[cube]
fn no_total() -> Total {
    Total { rest: 0.0f32, big: 0.0f32 }
}

/// Adds a number that is finite.
#[cube]
fn add_number(total: &mut Total, x: f32) {
    let is_big = x.abs() > BIG;
    total.rest += select(is_big, 0.0f32, x);
    total.big += select(is_big, x * BIG_SCALE, 0.0f32);
}

#[cube]
fn add_total(total: &mut Total, other: Total) {
    total.rest += other.rest;
    total.big += other.big;
}

/// Adds the square of a total, which may be beyond the range of f32: squares of big ones are in units of
/// (1 / ([`BIG_SCALE`] [`TOTAL_SCALE`]))^2.
#[cube]
fn add_square_of_total(squares: &mut Squares, total: Total) {
    let scaled = total.rest * BIG_SCALE + total.big;
    let is_big = scaled.abs() > comptime!(BIG * BIG_SCALE);
    let reduced = scaled * TOTAL_SCALE;
    squares.big += select(is_big, reduced * reduced, 0.0f32);
    let mut square = no_squares();
    add_square(&mut square, select(is_big, 0.0f32, total.rest + total.big * comptime!(1.0 / BIG_SCALE)));
    squares.small += square.small;
    squares.middle += square.middle;
    squares.big += square.big * comptime!(TOTAL_SCALE * TOTAL_SCALE);
}

/// The number of the tensor that the workgroup has.
#[cube]
fn own(numbers: &Sequence<u32>) -> usize {
    let mut found = 0usize;
    #[unroll]
    for entry in 0..numbers.len() {
        if CUBE_POS_Y as usize == entry {
            found = numbers[entry] as usize;
        }
    }
    found
}

#[cube(launch)]
fn delta_kernel(
    inputs: &Sequence<Box<[f32]>>,
    all_rows: &Sequence<u32>,
    all_units: &Sequence<u32>,
    output: &mut [f32],
    first: u32,
) {
    let thread = UNIT_POS as usize;
    let (rows, units) = (own(all_rows), own(all_units));
    let mut shared = Shared::new_slice(comptime!(THREADS as usize * Pieces::Delta.numbers()));
    let mut deltas = no_squares();
    let mut sums = no_squares();
    let mut not_finite = 0.0f32;
    let mut first_unit = CUBE_POS_X as usize * UNITS as usize;
    while first_unit < units {
        let unit = first_unit + UNIT_POS_X as usize;
        let mut total = no_total();
        if unit < units {
            let start = CUBE_POS_Z as usize * rows * units + unit;
            #[unroll]
            for entry in 0..inputs.len() {
                if CUBE_POS_Y as usize == entry {
                    let input = &inputs[entry];
                    let mut row = UNIT_POS_Y as usize;
                    while row < rows {
                        let mut block = no_squares();
                        let mut block_total = no_total();
                        let end = min(rows, row + BLOCK * ROWS as usize);
                        while row < end {
                            let x = input[start + row * units];
                            let finite = is_finite(x);
                            let x = select(finite, x, 0.0f32);
                            add_square(&mut block, x);
                            add_number(&mut block_total, x);
                            not_finite += select(finite, 0.0f32, 1.0f32);
                            row += ROWS as usize;
                        }
                        add_squares(&mut deltas, block);
                        add_total(&mut total, block_total);
                    }
                }
            }
        }
        let rest = over_rows(&mut shared, total.rest);
        let big = over_rows(&mut shared, total.big);
        if UNIT_POS_Y == 0u32 {
            add_square_of_total(&mut sums, Total { rest, big });
        }
        first_unit += CUBE_COUNT_X as usize * UNITS as usize;
    }
    sync_cube();
    let numbers = comptime!(Pieces::Delta.numbers());
    let threads = THREADS as usize;
    put_squares(&mut shared, thread, deltas, 0usize);
    shared[3 * threads + thread] = not_finite;
    put_squares(&mut shared, thread, sums, 4usize);
    add_up(&mut shared, thread, numbers, numbers);
    write_piece(&shared, output, first, thread, numbers);
}

/// The mean of a piece first, then distances from it: numbers that are nearly the same keep the digits in which they differ.
#[cube(launch)]
fn activation_kernel(
    inputs: &Sequence<Box<[f32]>>,
    all_rows: &Sequence<u32>,
    all_units: &Sequence<u32>,
    output: &mut [f32],
    first: u32,
    low: f32,
    high: f32,
) {
    let thread = UNIT_POS as usize;
    let threads = THREADS as usize;
    let (rows, units) = (own(all_rows), own(all_units));
    let mut shared = Shared::new_slice(comptime!(THREADS as usize * Pieces::Activation.numbers()));
    let mut total = no_total();
    let mut count = 0.0f32;
    let mut flat = 0.0f32;
    let mut not_finite = 0.0f32;
    let mut dead = 0.0f32;
    let mut unit_count = 0.0f32;
    let mut first_unit = CUBE_POS_X as usize * UNITS as usize;
    while first_unit < units {
        let unit = first_unit + UNIT_POS_X as usize;
        let mut alive = 0.0f32;
        if unit < units {
            let start = CUBE_POS_Z as usize * rows * units + unit;
            #[unroll]
            for entry in 0..inputs.len() {
                if CUBE_POS_Y as usize == entry {
                    let input = &inputs[entry];
                    let mut row = UNIT_POS_Y as usize;
                    while row < rows {
                        let mut block = no_total();
                        let end = min(rows, row + BLOCK * ROWS as usize);
                        while row < end {
                            let x = input[start + row * units];
                            let finite = is_finite(x);
                            not_finite += select(finite, 0.0f32, 1.0f32);
                            alive += select(is_zero(x), 0.0f32, 1.0f32);
                            let x = select(finite, x, 0.0f32);
                            add_number(&mut block, x);
                            flat += select(x <= low || x >= high, 1.0f32, 0.0f32);
                            count += 1.0f32;
                            row += ROWS as usize;
                        }
                        add_total(&mut total, block);
                    }
                }
            }
        }
        // A unit is dead if it is for the rows of all its threads.
        let alive = over_rows(&mut shared, alive);
        if unit < units && UNIT_POS_Y == 0u32 {
            unit_count += 1.0f32;
            dead += select(alive == 0.0f32, 1.0f32, 0.0f32);
        }
        first_unit += CUBE_COUNT_X as usize * UNITS as usize;
    }
    sync_cube();
    shared[thread] = total.rest;
    shared[threads + thread] = total.big;
    shared[2 * threads + thread] = count;
    add_up(&mut shared, thread, 3usize, 3usize);
    let all = max(shared[2 * threads], 1.0f32);
    let mean = shared[0] / all + shared[threads] / all * comptime!(1.0 / BIG_SCALE);
    sync_cube();
    let mut squares = no_squares();
    let mut distances = no_total();
    let mut unit = CUBE_POS_X as usize * UNITS as usize + UNIT_POS_X as usize;
    while unit < units {
        let start = CUBE_POS_Z as usize * rows * units + unit;
        #[unroll]
        for entry in 0..inputs.len() {
            if CUBE_POS_Y as usize == entry {
                let input = &inputs[entry];
                let mut row = UNIT_POS_Y as usize;
                while row < rows {
                    let mut block = no_squares();
                    let mut block_total = no_total();
                    let end = min(rows, row + BLOCK * ROWS as usize);
                    while row < end {
                        let distance = input[start + row * units] - mean;
                        let finite = is_finite(distance);
                        not_finite += select(finite, 0.0f32, 1.0f32);
                        let distance = select(finite, distance, 0.0f32);
                        add_square(&mut block, distance);
                        add_number(&mut block_total, distance);
                        row += ROWS as usize;
                    }
                    add_squares(&mut squares, block);
                    add_total(&mut distances, block_total);
                }
            }
        }
        unit += CUBE_COUNT_X as usize * UNITS as usize;
    }
    let numbers = comptime!(Pieces::Activation.numbers());
    shared[thread] = select(thread == 0, mean, 0.0f32);
    shared[threads + thread] = distances.rest;
    shared[2 * threads + thread] = distances.big;
    put_squares(&mut shared, thread, squares, 3usize);
    shared[6 * threads + thread] = flat;
    shared[7 * threads + thread] = dead;
    shared[8 * threads + thread] = count;
    shared[9 * threads + thread] = not_finite;
    shared[10 * threads + thread] = unit_count;
    add_up(&mut shared, thread, numbers, numbers);
    write_piece(&shared, output, first, thread, numbers);
}

/// A workgroup for each gate at each time step.
#[cube(launch)]
fn gate_kernel(gates: &[f32], output: &mut [f32], places: &Sequence<u32>, batch: u32, units: u32, columns: u32) {
    let thread = UNIT_POS as usize;
    let threads = THREADS as usize;
    let (batch, units, columns) = (batch as usize, units as usize, columns as usize);
    let first = own(places) * units;
    let mut sum = 0.0f32;
    let mut closed = 0.0f32;
    let mut open = 0.0f32;
    let mut count = 0.0f32;
    let mut i = thread;
    while i < batch * units {
        let mut block = 0.0f32;
        let end = min(batch * units, i + BLOCK * threads);
        while i < end {
            let row = CUBE_POS_X as usize * batch + i / units;
            let x = gates[row * columns + first + i % units];
            block += x;
            closed += select(x < GATE_EDGE as f32, 1.0f32, 0.0f32);
            open += select(x > 1.0f32 - GATE_EDGE as f32, 1.0f32, 0.0f32);
            count += 1.0f32;
            i += threads;
        }
        sum += block;
    }
    let numbers = comptime!(Pieces::Gate.numbers());
    let mut shared = Shared::new_slice(comptime!(THREADS as usize * Pieces::Gate.numbers()));
    shared[thread] = sum;
    shared[threads + thread] = closed;
    shared[2 * threads + thread] = open;
    shared[3 * threads + thread] = count;
    add_up(&mut shared, thread, numbers, numbers);
    if thread < numbers {
        let piece = CUBE_POS_X as usize * CUBE_COUNT_Y as usize + CUBE_POS_Y as usize;
        output[piece * numbers + thread] = shared[thread * threads];
    }
}

#[cfg(all(test, feature = "wgpu"))]
mod tests {
    use burn::tensor::{Device, TensorData};

    use super::*;
    use crate::kernel::cube::adapter_for_tests;
    use crate::kernel::pieces::norms_together;
    use crate::kernel::summary::stock_gate_summary;
    use crate::kernel::{ActivationSummary, DeltaSummary, GradientSummary, Norm, UpdateSummary, norms_from_reading};

    /// Numbers of both signs, no two neighbours alike.
    fn samples(count: usize, size: f32) -> Vec<f32> {
        (0..count).map(|i| (((i * 7919) % 1013) as f32 / 100.0 - 5.0) * size).collect()
    }

    fn vector(values: &[f32], device: &Device) -> Tensor<1> {
        Tensor::from_data(TensorData::new(values.to_vec(), [values.len()]), device)
    }

    fn matrix(values: &[f32], units: usize, device: &Device) -> Tensor<2> {
        Tensor::from_data(TensorData::new(values.to_vec(), [values.len() / units, units]), device)
    }

    fn norm(values: &[f32]) -> f64 {
        values.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt()
    }

    fn merged(kind: Pieces, pieces: Option<Tensor<4>>) -> Vec<f64> {
        kind.merged(&pieces.expect("tensors of f32 on a GPU").into_data())
    }

    #[track_caller]
    fn assert_close(found: f64, expected: f64, what: &str) {
        assert!((found - expected).abs() <= 2e-6 * expected.abs(), "{what}: {found:e}, expected {expected:e}");
    }

    /// Of more tensors than one launch takes, from one element to several pieces.
    #[test]
    fn gradients_of_many_tensors_have_their_norms_zeros_and_largest_elements_from_1e_minus_37_to_1e37() {
        let Some(device) = adapter_for_tests() else { return };
        for size in [2e-38_f32, 1e-30, 1e-19, 1.0, 1e15, 1e30, 2e37] {
            let lengths = (0..2 * MOST_TENSORS + 3).map(|i| [1, 3, 256, 2747, 40_001][i % 5]);
            let values: Vec<Vec<f32>> = lengths.map(|length| samples(length, size)).collect();
            let tensors = values.iter().map(|values| vector(values, &device)).collect();
            let found = merged(Pieces::Gradient, gradient_pieces(tensors, 1));
            assert_eq!(found.len(), 6 * values.len());
            for (found, values) in found.chunks(6).map(GradientSummary::from_reading).zip(&values) {
                let what = format!("{} of {size:e}", values.len());
                assert_close(found.norm.l2().expect("finite"), norm(values), &what);
                assert_close(found.norm.max_abs, f64::from(values.iter().fold(0.0, |a: f32, x| a.max(x.abs()))), &what);
                assert_eq!(found.zeros, values.iter().filter(|x| **x == 0.0).count() as u64, "{what}");
                assert_eq!(found.nonfinite, 0, "{what}");
            }
        }
    }

    #[test]
    fn what_is_not_finite_is_counted_and_left_out_of_a_gradient_and_spoils_other_norms() {
        let Some(device) = adapter_for_tests() else { return };
        let values = [0.0, -0.0, f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 3.0, 4.0, 0.0, 0.0];
        let x = || vector(&values, &device);
        let found = GradientSummary::from_reading(&merged(Pieces::Gradient, gradient_pieces(vec![x()], 1)));
        assert_eq!((found.zeros, found.nonfinite, found.norm.l2()), (4, 3, Some(5.0)));
        let finite = vector(&[1.0; 9], &device);
        let found = merged(Pieces::Update, update_pieces(vec![(x(), finite.clone()), (finite, x())], 1));
        let [first, second] = [0, 4].map(|start| UpdateSummary::from_reading(&found[start..]));
        assert_eq!((first.weight.l2(), first.update.l2()), (None, None));
        assert_eq!((second.weight.l2(), second.update.l2()), (Some(3.0), None));
        let spoilt = matrix(&values, 3, &device);
        let found = DeltaSummary::from_reading(&merged(Pieces::Delta, delta_pieces(vec![spoilt.clone()], 1)));
        assert_eq!((found.delta.l2(), found.batch_sum.l2()), (None, None));
        let found = merged(Pieces::Activation, activation_pieces(vec![spoilt], 1, FlatParts::NOWHERE));
        assert!(found[0].is_nan() && found[1].is_nan(), "{found:?}");
        let norms = norms_together(&gradient_pieces(vec![x()], 1).expect("on a GPU"));
        assert!(norms.into_data().iter::<f32>().all(f32::is_nan));
    }

    #[test]
    fn updates_are_the_difference_of_what_was_and_what_is_of_each_seed() {
        let Some(device) = adapter_for_tests() else { return };
        let (seeds, length) = (3, 5000);
        let pairs: Vec<[Vec<f32>; 2]> = (0..MOST_TENSORS)
            .map(|i| {
                let before = samples(seeds * length, 1.0 + i as f32);
                let after = before.iter().enumerate().map(|(j, x)| x * 0.5 + (j / length) as f32).collect();
                [before, after]
            })
            .collect();
        let tensors = pairs.iter().map(|[before, after]| (vector(before, &device), vector(after, &device))).collect();
        let found = merged(Pieces::Update, update_pieces(tensors, seeds));
        let mut found = found.chunks(4).map(UpdateSummary::from_reading);
        for [before, after] in &pairs {
            for (before, after) in before.chunks(length).zip(after.chunks(length)) {
                let found = found.next().expect("one of each seed");
                let update: Vec<f32> = after.iter().zip(before).map(|(after, before)| after - before).collect();
                assert_close(found.weight.l2().expect("finite"), norm(before), "weight");
                assert_close(found.update.l2().expect("finite"), norm(&update), "update");
            }
        }
    }

    #[test]
    fn deltas_and_activations_of_layers_of_any_width_are_those_of_f64() {
        let Some(device) = adapter_for_tests() else { return };
        let seeds = 2;
        // Some around the sizes from which on squares are in other units.
        let sizes = [1.0, 2e-38, 1e-30, 1e-19, 1e15, 3e15, 1e16, 1e30, 2e36].map(|size| (0.0_f32, size));
        for (origin, size) in sizes.into_iter().chain([(0.5, 1e-5)]) {
            for (rows, units) in [(41, 67), (1, 1), (3, 32), (128, 200), (700, 8), (2, 1500)] {
                let what = format!("{rows} x {units}, {origin} and {size:e}");
                let layers: Vec<Vec<f32>> = (1..4)
                    .map(|layer| {
                        let values = samples(seeds * rows * units, size * layer as f32);
                        // Every fifth unit is dead.
                        let value = |(i, x): (usize, f32)| if i % units % 5 == 0 { 0.0 } else { origin + x };
                        values.into_iter().enumerate().map(value).collect()
                    })
                    .collect();
                let tensors = || layers.iter().map(|values| matrix(values, units, &device)).collect();
                let (low, high) = (origin - size, origin + 2.0 * size);
                let found = merged(Pieces::Delta, delta_pieces(tensors(), seeds));
                let deltas = found.chunks(4).map(DeltaSummary::from_reading);
                let found = merged(Pieces::Activation, activation_pieces(tensors(), seeds, FlatParts { low, high }));
                let activations = found.chunks(4).map(ActivationSummary::from_reading);
                let parts = layers.iter().flat_map(|values| values.chunks(rows * units));
                for ((delta, activation), values) in deltas.zip(activations).zip(parts) {
                    let exact: Vec<f64> = values.iter().copied().map(f64::from).collect();
                    let sums: Vec<f64> = (0..units).map(|unit| exact[unit..].iter().step_by(units).sum()).collect();
                    let sum = sums.iter().map(|x| x * x).sum::<f64>().sqrt();
                    assert_close(delta.delta.l2().expect("finite"), norm(values), &what);
                    let error = (delta.batch_sum.l2().expect("finite") - sum).abs();
                    // A sum over the batch may cancel.
                    assert!(error <= 2e-6 * norm(values) * (rows as f64).sqrt(), "{what}: off by {error:e} of {sum:e}");
                    let mean = exact.iter().sum::<f64>() / exact.len() as f64;
                    let std = (exact.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / exact.len() as f64).sqrt();
                    assert!((activation.mean - mean).abs() <= 1e-6 * std, "{what}: {} and {mean}", activation.mean);
                    assert_close(activation.std, std, &what);
                    let flat = values.iter().filter(|x| **x <= low || **x >= high).count();
                    assert_close(activation.saturated_fraction, flat as f64 / values.len() as f64, &what);
                    let is_dead = |unit: &usize| values[*unit..].iter().step_by(units).all(|x| *x == 0.0);
                    let dead = (0..units).filter(is_dead).count() as f64 / units as f64;
                    assert_close(activation.dead_fraction, dead, &what);
                }
            }
        }
    }

    /// All numbers of one sign, so that sums grow as long as they can, and beyond the range of f32.
    #[test]
    fn long_sums_of_numbers_that_are_alike_keep_six_digits() {
        let Some(device) = adapter_for_tests() else { return };
        for size in [0.1_f32, 0.3, 0.7, 1e16, 1e38] {
            for (rows, units) in [(4096, 1), (2000, 8), (500, 17), (4096, 32), (1, 200_000)] {
                let what = format!("{rows} x {units} of {size:e}");
                let values = vec![size; rows * units];
                let layer = || vec![matrix(&values, units, &device)];
                let found = DeltaSummary::from_reading(&merged(Pieces::Delta, delta_pieces(layer(), 1)));
                let all = f64::from(size) * ((rows * units) as f64).sqrt();
                assert_close(found.delta.l2().expect("finite"), all, &what);
                assert_close(found.batch_sum.l2().expect("finite"), all * (rows as f64).sqrt(), &what);
                let found = merged(Pieces::Activation, activation_pieces(layer(), 1, FlatParts::NOWHERE));
                assert_close(found[0], f64::from(size), &what);
                assert!(found[1] <= 1e-6 * f64::from(size), "{what}: a deviation of {}", found[1]);
            }
        }
        let values = vec![0.3_f32; 24_000_000];
        let x = vector(&values, &device);
        let found = GradientSummary::from_reading(&merged(Pieces::Gradient, gradient_pieces(vec![x.clone()], 1)));
        assert_close(found.norm.l2().expect("finite"), norm(&values), "a long gradient");
        let found = merged(Pieces::Update, update_pieces(vec![(x.clone(), x * 2.0)], 1));
        let found = UpdateSummary::from_reading(&found);
        assert_close(found.weight.l2().expect("finite"), norm(&values), "a long parameter");
        assert_close(found.update.l2().expect("finite"), norm(&values), "its update");
        let gates = matrix(&vec![0.3; 2 * 4096 * 256], 256, &device);
        let found = merged(Pieces::Gate, gate_pieces(&gates, 2, 256, &[0]));
        assert_close(found[0], f64::from(0.3_f32), "a gate");
    }

    #[test]
    fn layers_of_different_widths_are_read_in_one_launch() {
        let Some(device) = adapter_for_tests() else { return };
        let layers = [8, 1500, 67].map(|units| (units, samples(41 * units, 1.0 + units as f32)));
        let tensors = || layers.iter().map(|(units, values)| matrix(values, *units, &device)).collect();
        let deltas = merged(Pieces::Delta, delta_pieces(tensors(), 1));
        let activations = merged(Pieces::Activation, activation_pieces(tensors(), 1, FlatParts::NOWHERE));
        for ((delta, activation), (units, values)) in deltas.chunks(4).zip(activations.chunks(4)).zip(&layers) {
            let what = format!("{units} units");
            assert_close(DeltaSummary::from_reading(delta).delta.l2().expect("finite"), norm(values), &what);
            let mean = values.iter().copied().map(f64::from).sum::<f64>() / values.len() as f64;
            let square = values.iter().map(|x| (f64::from(*x) - mean).powi(2)).sum::<f64>() / values.len() as f64;
            assert_close(ActivationSummary::from_reading(activation).std, square.sqrt(), &what);
        }
    }

    #[test]
    fn the_norm_of_all_gradients_is_that_of_one_vector_for_each_seed() {
        let Some(device) = adapter_for_tests() else { return };
        for size in [2e-38_f32, 1e-25, 1e-18, 1.0, 1e25, 1e36] {
            // Of very different sizes, as in a deep network, and of several pieces.
            let values = [samples(40_002, size), samples(30, size * 20.0), samples(10, 0.0)];
            let tensors = values.iter().map(|values| vector(values, &device)).collect();
            let found = norms_together(&gradient_pieces(tensors, 2).expect("on a GPU"));
            let found: Vec<f64> = found.into_data().iter::<f64>().collect();
            for (seed, found) in norms_from_reading(&found).into_iter().map(Norm::l2).enumerate() {
                let part = |values: &[f32]| values[seed * values.len() / 2..][..values.len() / 2].to_vec();
                let all: Vec<f32> = values.iter().flat_map(|values| part(values)).collect();
                assert_close(found.expect("finite"), norm(&all), &format!("{size:e}"));
            }
        }
        // Its elements are in the range of f32, the norm is not.
        let norms = norms_together(&gradient_pieces(vec![vector(&[1e38; 50], &device)], 1).expect("on a GPU"));
        let found = norms_from_reading(&norms.into_data().iter::<f64>().collect::<Vec<f64>>())[0];
        assert_close(found.l2().expect("finite"), 1e38 * 50.0_f64.sqrt(), "a norm beyond f32");
    }

    #[test]
    fn a_view_is_summed_up_and_not_the_storage_under_it() {
        let Some(device) = adapter_for_tests() else { return };
        let x = matrix(&samples(41 * 67, 1.0), 67, &device);
        let view = x.slice([3..9, 10..40]);
        let values: Vec<f32> = view.clone().into_data().iter::<f32>().collect();
        for layer in [view.clone(), view.transpose()] {
            let found = DeltaSummary::from_reading(&merged(Pieces::Delta, delta_pieces(vec![layer], 1)));
            assert_close(found.delta.l2().expect("finite"), norm(&values), "a view");
        }
    }

    #[test]
    fn gates_are_as_far_open_as_the_single_operations_say() {
        let Some(device) = adapter_for_tests() else { return };
        for (steps, batch, units, kept, places) in
            [(3, 5, 33, 4, &[0, 1, 3][..]), (1, 1, 1, 4, &[2]), (7, 64, 8, 4, &[1, 0])]
        {
            let values: Vec<f32> = samples(steps * batch * kept * units, 0.1).iter().map(|x| x + 0.5).collect();
            let gates = matrix(&values, kept * units, &device);
            let found = merged(Pieces::Gate, gate_pieces(&gates, steps, units, places));
            let stock: Vec<f64> = stock_gate_summary(&gates, steps, units, places).into_data().iter::<f64>().collect();
            assert_eq!(found.len(), 3 * steps * places.len());
            for (found, stock) in found.iter().zip(stock) {
                assert!((found - stock).abs() < 1e-6, "{steps} steps of {batch} x {units}: {found} and {stock}");
            }
        }
    }
}
