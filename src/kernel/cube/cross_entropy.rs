//! The softmax cross-entropy, a thread for each row.

use burn::backend::TensorMetadata;
use burn::tensor::DType;
use burn_cubecl::cubecl;
use burn_cubecl::cubecl::prelude::*;
use burn_cubecl::tensor::CubeTensor;

use super::{Asked, Limits, Primitive, arguments, queue};
use crate::kernel::CostForm;

/// With more classes, a row is too much for one thread.
const MOST_CLASSES: usize = 256;

/// Threads of a workgroup.
const THREADS: u32 = 64;

fn dims_of(outputs: &Primitive, other: &Primitive) -> Option<[usize; 2]> {
    let [rows, classes] = [outputs.shape()[0], outputs.shape()[1]];
    let is_ours = [outputs, other].iter().all(|tensor| tensor.dtype == DType::F32);
    let asked = Asked {
        threads: THREADS as usize,
        shared: 0,
        cubes: [rows.div_ceil(THREADS as usize), 1, 1],
        bindings: 4,
        elements: rows * classes,
    };
    let is_possible = is_ours && rows > 0 && (1..=MOST_CLASSES).contains(&classes);
    (is_possible && Limits::of(outputs).allow(&asked)).then_some([rows, classes])
}

fn cubes(rows: usize) -> CubeCount {
    CubeCount::Static(rows.div_ceil(THREADS as usize) as u32, 1, 1)
}

/// `-sum t ln softmax(o)` of each row, `[rows]`, and the softmax; `None` for what is not of f32, has too many classes
/// or no room on the device.
pub fn cross_entropy(outputs: &Primitive, targets: &Primitive) -> Option<(Primitive, Primitive)> {
    let [rows, classes] = dims_of(outputs, targets)?;
    let run = move |client: &Client, inputs: Vec<CubeTensor>, found: Vec<CubeTensor>| {
        let [outputs, targets] = arguments(inputs);
        let [costs, softmax] = arguments(found);
        forward_kernel::launch(
            client,
            cubes(rows),
            CubeDim::new_1d(THREADS),
            outputs,
            targets,
            costs,
            softmax,
            rows as u32,
            classes as u32,
        );
    };
    let inputs = vec![outputs.clone(), targets.clone()];
    let mut found = queue("cross_entropy", inputs, vec![vec![rows], vec![rows, classes]], run).into_iter();
    Some((found.next()?, found.next()?))
}

/// `(softmax(o) sum t - t) gradient / rows`, the gradient `[seeds]` and the rows those of a seed.
pub fn cross_entropy_backward(
    softmax: &Primitive,
    targets: &Primitive,
    gradient: &Primitive,
    form: CostForm,
) -> Option<Primitive> {
    let [rows, classes] = dims_of(softmax, targets)?;
    let run = move |client: &Client, inputs: Vec<CubeTensor>, found: Vec<CubeTensor>| {
        let [softmax, targets, gradient] = arguments(inputs);
        let [found] = arguments(found);
        backward_kernel::launch(
            client,
            cubes(rows),
            CubeDim::new_1d(THREADS),
            softmax,
            targets,
            gradient,
            found,
            rows as u32,
            classes as u32,
            (rows / form.seeds) as u32,
        );
    };
    let inputs = [softmax, targets, gradient].map(Clone::clone).into();
    queue("cross_entropy_backward", inputs, vec![vec![rows, classes]], run).pop()
}

#[cube(launch)]
fn forward_kernel(outputs: &[f32], targets: &[f32], costs: &mut [f32], softmax: &mut [f32], rows: u32, classes: u32) {
    let (row, classes) = (ABSOLUTE_POS, classes as usize);
    if row < rows as usize {
        let start = row * classes;
        let mut largest = outputs[start];
        for class in 1..classes {
            largest = max(largest, outputs[start + class]);
        }
        let mut sum = 0.0f32;
        for class in 0..classes {
            sum += (outputs[start + class] - largest).exp();
        }
        let offset = sum.ln();
        let mut cost = 0.0f32;
        for class in 0..classes {
            let logarithm = outputs[start + class] - largest - offset;
            cost -= targets[start + class] * logarithm;
            softmax[start + class] = logarithm.exp();
        }
        costs[row] = cost;
    }
}

#[cube(launch)]
fn backward_kernel(
    softmax: &[f32],
    targets: &[f32],
    gradient: &[f32],
    found: &mut [f32],
    rows: u32,
    classes: u32,
    rows_of_seed: u32,
) {
    let (row, classes) = (ABSOLUTE_POS, classes as usize);
    if row < rows as usize {
        let start = row * classes;
        let factor = gradient[row / rows_of_seed as usize] * (1.0f32 / f32::cast_from(rows_of_seed));
        let mut sum = 0.0f32;
        for class in 0..classes {
            sum += targets[start + class];
        }
        for class in 0..classes {
            found[start + class] = (softmax[start + class] * sum - targets[start + class]) * factor;
        }
    }
}
