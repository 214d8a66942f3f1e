//! A recurrent layer over a whole sequence in one launch.
//!
//! Examples do not know of each other: a workgroup takes a few of them from the first time step to the last, a thread for each unit. The
//! hidden states of its examples are in shared memory, the cell states in registers; the weights come from the cache in every time step.
//! Written operation by operation, an LSTM of 28 time steps takes some thousand launches.

use burn::backend::TensorMetadata;
use burn::tensor::DType;
use burn_cubecl::cubecl;
use burn_cubecl::cubecl::prelude::*;
use burn_cubecl::tensor::CubeTensor;

use super::cell::{activated, activated_backward, sigmoid};
use super::{Asked, Limits, Primitive, arguments, empty_like, queue};
use crate::kernel::recurrent::{Form, Recurrence, States};

/// The most units: with more, a workgroup reads more weights in a time step than a product over all examples would.
const MOST_UNITS: usize = 512;

/// The most time steps of a launch: systems stop a kernel that keeps a display waiting for seconds.
const MOST_STEPS: usize = 4096;

/// Threads come in groups of this many.
const THREADS_TOGETHER: usize = 32;

/// How a layer is divided among workgroups.
#[derive(Clone, Copy, Debug)]
struct Shape {
    form: Form,
    batch: usize,
    units: usize,
    /// Examples of a workgroup.
    rows: usize,
    /// Threads of a workgroup.
    width: usize,
}

impl Shape {
    /// `None` if the device has no room for a launch that has so many tensors.
    fn of(all_rows: usize, units: usize, form: Form, like: &Primitive, bindings: usize) -> Option<Self> {
        if units > MOST_UNITS || form.steps > MOST_STEPS || like.dtype != DType::F32 {
            return None;
        }
        let batch = all_rows / form.steps;
        let width = units.next_multiple_of(THREADS_TOGETHER);
        let limits = Limits::of(like);
        let allows = |rows: &usize| {
            limits.allow(&Asked {
                threads: width,
                shared: rows * form.recurrence.gates() * width * size_of::<f32>(),
                cubes: [batch.div_ceil(*rows), 1, 1],
                bindings,
                elements: (all_rows + batch) * units * form.recurrence.blocks(),
            })
        };
        // Two or four examples share the weights that a workgroup reads, once there are enough of them to keep a GPU busy.
        let wanted = match batch {
            ..64 => 1,
            64..256 => 2,
            _ => 4,
        };
        let rows = [4, 2, 1].into_iter().filter(|rows| *rows <= wanted).find(allows)?;
        Some(Self { form, batch, units, rows, width })
    }

    fn cubes(self) -> CubeCount {
        CubeCount::Static(self.batch.div_ceil(self.rows) as u32, 1, 1)
    }

    fn cube_dim(self) -> CubeDim {
        CubeDim::new_1d(self.width as u32)
    }

    fn scalars(self) -> [u32; 3] {
        [self.form.steps, self.batch, self.units].map(|count| count as u32)
    }
}

/// The states of a layer from `x W + b` of all time steps `[steps x batch, gates x units]`; `None` if the device has no room for it.
pub fn recurrent(
    projected: &Primitive,
    recurrent: &Primitive,
    inner_bias: &Primitive,
    form: Form,
) -> Option<States<super::Fused>> {
    let [rows, units] = [projected.shape()[0], recurrent.shape()[0]];
    let shape = Shape::of(rows, units, form, projected, 6)?;
    let kept = form.recurrence.kept();
    let dims_if = |is_there: bool, columns: usize| if is_there { vec![rows, columns] } else { vec![1, 1] };
    let dims =
        vec![vec![rows, units], dims_if(kept > 0, kept * units), dims_if(form.recurrence == Recurrence::Lstm, units)];
    let run = move |client: &Client, inputs: Vec<CubeTensor>, found: Vec<CubeTensor>| {
        let [projected, recurrent, inner_bias] = arguments(inputs);
        let [hidden, gates, cells] = arguments(found);
        let [steps, batch, units] = shape.scalars();
        forward_kernel::launch(
            client,
            shape.cubes(),
            shape.cube_dim(),
            projected,
            recurrent,
            inner_bias,
            hidden,
            gates,
            cells,
            steps,
            batch,
            units,
            shape.form.recurrence,
            shape.rows,
            shape.width,
        );
    };
    let inputs = [projected, recurrent, inner_bias].map(Clone::clone).into();
    let mut found = queue("recurrent", inputs, dims, run).into_iter();
    Some(States { hidden: found.next()?, gates: found.next()?, cells: found.next()? })
}

/// The gradients of [`RecurrentOps::recurrent_backward`](crate::kernel::RecurrentOps), from the transposed weights
/// `[gates x units, units]`; `None` if the device has no room for it.
pub fn recurrent_backward(
    gradient: &Primitive,
    transposed: &Primitive,
    states: &States<super::Fused>,
    form: Form,
    wants_states: bool,
) -> Option<Vec<Primitive>> {
    let [rows, units] = [states.hidden.shape()[0], states.hidden.shape()[1]];
    let shape = Shape::of(rows, units, form, gradient, 8)?;
    let has_cells = form.recurrence == Recurrence::Lstm;
    let of_states = vec![rows + shape.batch, units];
    let mut dims = vec![vec![rows, form.recurrence.blocks() * units]];
    dims.extend(wants_states.then(|| of_states.clone()));
    dims.extend((wants_states && has_cells).then_some(of_states));
    let run = move |client: &Client, inputs: Vec<CubeTensor>, found: Vec<CubeTensor>| {
        let nothing = || empty_like(&inputs[0], &[1, 1]).into_buffer_arg();
        let output = |place: usize| found.get(place).map_or_else(nothing, |tensor| tensor.clone().into_buffer_arg());
        let [of_sums, of_hidden, of_cells] = [0, 1, 2].map(output);
        let [gradient, transposed, hidden, gates, cells] = arguments(inputs);
        let [steps, batch, units] = shape.scalars();
        backward_kernel::launch(
            client,
            shape.cubes(),
            shape.cube_dim(),
            gradient,
            transposed,
            hidden,
            gates,
            cells,
            of_sums,
            of_hidden,
            of_cells,
            steps,
            batch,
            units,
            shape.form.truncation.map_or(0, |length| length as u32),
            shape.form.recurrence,
            shape.form.answers_every_step,
            wants_states,
            shape.rows,
            shape.width,
        );
    };
    let inputs = [gradient, transposed, &states.hidden, &states.gates, &states.cells].map(Clone::clone).into();
    Some(queue("recurrent_backward", inputs, dims, run))
}

#[cube(launch)]
fn forward_kernel(
    projected: &[f32],
    weight: &[f32],
    inner_bias: &[f32],
    hidden: &mut [f32],
    gates: &mut [f32],
    cells: &mut [f32],
    steps: u32,
    batch: u32,
    units: u32,
    #[comptime] recurrence: Recurrence,
    #[comptime] rows: usize,
    #[comptime] width: usize,
) {
    let unit = UNIT_POS_X as usize;
    let first = CUBE_POS_X as usize * rows;
    let (batch, units) = (batch as usize, units as usize);
    let columns = comptime!(recurrence.gates());
    // The hidden states before a time step.
    let mut state = Shared::new_slice(comptime!(rows * width));
    let mut cell = Array::<f32>::new(rows);
    let mut sums = Array::<f32>::new(comptime!(rows * recurrence.gates()));
    #[unroll]
    for row in 0..rows {
        state[row * width + unit] = 0.0f32;
        cell[row] = 0.0f32;
    }
    sync_cube();
    for step in 0..steps as usize {
        #[unroll]
        for place in 0..comptime!(rows * recurrence.gates()) {
            sums[place] = 0.0f32;
        }
        if unit < units && step > 0 {
            for other in 0..units {
                #[unroll]
                for gate in 0..columns {
                    let weight = weight[(other * columns + gate) * units + unit];
                    #[unroll]
                    for row in 0..rows {
                        sums[comptime!(row * columns + gate)] += state[row * width + other] * weight;
                    }
                }
            }
        }
        sync_cube();
        if unit < units {
            #[unroll]
            for row in 0..rows {
                if first + row < batch {
                    let place = step * batch + first + row;
                    let x = place * columns * units + unit;
                    let sum = comptime!(row * columns);
                    let kept = place * 4 * units + unit;
                    let new = match comptime!(recurrence) {
                        Recurrence::Rnn(function) => activated(projected[x] + sums[sum], function),
                        Recurrence::Lstm => {
                            let input = sigmoid(projected[x] + sums[sum]);
                            let forget = sigmoid(projected[x + units] + sums[comptime!(sum + 1)]);
                            let candidate = (projected[x + 2 * units] + sums[comptime!(sum + 2)]).tanh();
                            let output = sigmoid(projected[x + 3 * units] + sums[comptime!(sum + 3)]);
                            let new = forget * cell[row] + input * candidate;
                            cell[row] = new;
                            gates[kept] = input;
                            gates[kept + units] = forget;
                            gates[kept + 2 * units] = candidate;
                            gates[kept + 3 * units] = output;
                            cells[place * units + unit] = new;
                            output * new.tanh()
                        }
                        Recurrence::Gru => {
                            let reset = sigmoid(projected[x] + sums[sum]);
                            let update = sigmoid(projected[x + units] + sums[comptime!(sum + 1)]);
                            let inner = sums[comptime!(sum + 2)] + inner_bias[unit];
                            let candidate = (projected[x + 2 * units] + reset * inner).tanh();
                            gates[kept] = reset;
                            gates[kept + units] = update;
                            gates[kept + 2 * units] = candidate;
                            gates[kept + 3 * units] = inner;
                            (1.0f32 - update) * candidate + update * state[row * width + unit]
                        }
                    };
                    hidden[place * units + unit] = new;
                    state[row * width + unit] = new;
                }
            }
        }
        sync_cube();
    }
}

#[cube(launch)]
#[allow(clippy::too_many_lines, clippy::collapsible_if)] // A case for each cell; what is known at compile time is asked by itself.
fn backward_kernel(
    gradient: &[f32],
    transposed: &[f32],
    hidden: &[f32],
    gates: &[f32],
    cells: &[f32],
    of_sums: &mut [f32],
    hidden_gradients: &mut [f32],
    cell_gradients: &mut [f32],
    steps: u32,
    batch: u32,
    units: u32,
    truncation: u32,
    #[comptime] recurrence: Recurrence,
    #[comptime] answers_every_step: bool,
    #[comptime] wants_states: bool,
    #[comptime] rows: usize,
    #[comptime] width: usize,
) {
    let unit = UNIT_POS_X as usize;
    let first = CUBE_POS_X as usize * rows;
    let (steps, batch, units) = (steps as usize, batch as usize, units as usize);
    let columns = comptime!(recurrence.gates());
    // The gradients of what the recurrent weights have given to a time step, gate by gate.
    let mut of_product = Shared::new_slice(comptime!(rows * recurrence.gates() * width));
    let mut of_hidden = Array::<f32>::new(rows);
    let mut of_cell = Array::<f32>::new(rows);
    #[unroll]
    for row in 0..rows {
        of_hidden[row] = 0.0f32;
        of_cell[row] = 0.0f32;
    }
    for back in 0..steps {
        let step = steps - 1 - back;
        if unit < units {
            #[unroll]
            for row in 0..rows {
                if first + row < batch {
                    let example = first + row;
                    let place = step * batch + example;
                    let here = place * units + unit;
                    let mut of_state = of_hidden[row];
                    if comptime!(answers_every_step) {
                        of_state += gradient[here];
                    } else if step + 1 == steps {
                        of_state += gradient[example * units + unit];
                    }
                    if comptime!(wants_states) {
                        hidden_gradients[here + batch * units] = of_state;
                    }
                    let product = comptime!(row * columns * width) + unit;
                    let kept = place * 4 * units + unit;
                    match comptime!(recurrence) {
                        Recurrence::Rnn(function) => {
                            let of_sum = activated_backward(hidden[here], of_state, function);
                            of_sums[here] = of_sum;
                            of_product[product] = of_sum;
                            of_hidden[row] = 0.0f32;
                        }
                        Recurrence::Lstm => {
                            let input = gates[kept];
                            let forget = gates[kept + units];
                            let candidate = gates[kept + 2 * units];
                            let output = gates[kept + 3 * units];
                            let squashed = cells[here].tanh();
                            let mut before = 0.0f32;
                            if step > 0 {
                                before = cells[here - batch * units];
                            }
                            let of_new = of_cell[row] + (1.0f32 - squashed * squashed) * (of_state * output);
                            if comptime!(wants_states) {
                                cell_gradients[here + batch * units] = of_new;
                            }
                            let of_input = input * (1.0f32 - input) * (of_new * candidate);
                            let of_forget = forget * (1.0f32 - forget) * (of_new * before);
                            let of_candidate = (1.0f32 - candidate * candidate) * (of_new * input);
                            let of_output = output * (1.0f32 - output) * (of_state * squashed);
                            of_sums[kept] = of_input;
                            of_sums[kept + units] = of_forget;
                            of_sums[kept + 2 * units] = of_candidate;
                            of_sums[kept + 3 * units] = of_output;
                            of_product[product] = of_input;
                            of_product[product + width] = of_forget;
                            of_product[product + comptime!(2 * width)] = of_candidate;
                            of_product[product + comptime!(3 * width)] = of_output;
                            of_cell[row] = of_new * forget;
                            of_hidden[row] = 0.0f32;
                        }
                        Recurrence::Gru => {
                            let reset = gates[kept];
                            let update = gates[kept + units];
                            let candidate = gates[kept + 2 * units];
                            let inner = gates[kept + 3 * units];
                            let mut before = 0.0f32;
                            if step > 0 {
                                before = hidden[here - batch * units];
                            }
                            let of_candidate = (1.0f32 - candidate * candidate) * (of_state * (1.0f32 - update));
                            let of_reset = reset * (1.0f32 - reset) * (of_candidate * inner);
                            let of_update = update * (1.0f32 - update) * (of_state * (before - candidate));
                            let of_inner = of_candidate * reset;
                            of_sums[kept] = of_reset;
                            of_sums[kept + units] = of_update;
                            of_sums[kept + 2 * units] = of_candidate;
                            of_sums[kept + 3 * units] = of_inner;
                            of_product[product] = of_reset;
                            of_product[product + width] = of_update;
                            of_product[product + comptime!(2 * width)] = of_inner;
                            of_hidden[row] = of_state * update;
                        }
                    }
                }
            }
        }
        sync_cube();
        if unit < units {
            for gate in 0..columns {
                for other in 0..units {
                    let weight = transposed[(gate * units + other) * units + unit];
                    #[unroll]
                    for row in 0..rows {
                        of_hidden[row] += of_product[(row * columns + gate) * width + other] * weight;
                    }
                }
            }
        }
        if truncation > 0 && step > 0 && step % (max(truncation, 1u32) as usize) == 0 {
            #[unroll]
            for row in 0..rows {
                of_hidden[row] = 0.0f32;
                of_cell[row] = 0.0f32;
            }
        }
        sync_cube();
    }
    if comptime!(wants_states) {
        if unit < units {
            #[unroll]
            for row in 0..rows {
                if first + row < batch {
                    let here = (first + row) * units + unit;
                    hidden_gradients[here] = of_hidden[row];
                    if comptime!(recurrence == Recurrence::Lstm) {
                        cell_gradients[here] = of_cell[row];
                    }
                }
            }
        }
    }
}
