//! Batch norm of layers `[seeds x batch, units]`: the moments in one launch, and all gradients in one.
//!
//! A workgroup takes some units of a seed with all their rows, so that it needs no other's sums.

use burn::backend::TensorMetadata;
use burn::tensor::DType;
use burn_cubecl::cubecl;
use burn_cubecl::cubecl::prelude::*;
use burn_cubecl::tensor::CubeTensor;

use super::cell::activated_backward;
use super::rows::{BLOCK, ROWS, UNITS, over_rows};
use super::{Asked, Limits, Primitive, arguments, longest, queue};
use crate::kernel::{Activated, NormForm};

/// Whether the kernels are for it, and the device for them: the moments are those of the rows, for each unit.
fn is_possible(x: &Primitive, axes: &[usize], form: NormForm, bindings: usize) -> bool {
    let is_batch_norm = x.dtype == DType::F32 && x.rank() == 2 && axes == [0] && x.shape().num_elements() > 0;
    let threads = (UNITS * ROWS) as usize;
    is_batch_norm
        && Limits::of(x).allow(&Asked {
            threads,
            shared: threads * size_of::<f32>(),
            cubes: [x.shape()[1].div_ceil(UNITS as usize), 1, form.seeds],
            bindings,
            elements: longest([x]),
        })
}

fn cubes(units: usize, seeds: usize) -> CubeCount {
    CubeCount::Static(units.div_ceil(UNITS as usize) as u32, 1, seeds as u32)
}

/// The mean and the variance `[seeds, units]` of x over the rows of each seed; `None` for what is no batch norm of f32, or without room
/// on the device.
pub fn moments(x: &Primitive, axes: &[usize], form: NormForm) -> Option<(Primitive, Primitive)> {
    if !is_possible(x, axes, form, 3) {
        return None;
    }
    let [rows, units] = [x.shape()[0] / form.seeds, x.shape()[1]];
    let dims = vec![vec![form.seeds, units]; 2];
    let run = move |client: &Client, inputs: Vec<CubeTensor>, found: Vec<CubeTensor>| {
        let [x] = arguments(inputs);
        let [mean, variance] = arguments(found);
        let cube_dim = CubeDim::new_2d(UNITS, ROWS);
        moments_kernel::launch(
            client,
            cubes(units, form.seeds),
            cube_dim,
            x,
            mean,
            variance,
            rows as u32,
            units as u32,
        );
    };
    let mut found = queue("batch_norm_moments", vec![x.clone()], dims, run).into_iter();
    Some((found.next()?, found.next()?))
}

/// The gradients of [`LayerOps::normalized`](crate::kernel::LayerOps) with respect to x, gamma and beta, from x, gamma, mean, deviation
/// and y; `None` for what is no batch norm of f32, or without room on the device.
pub fn normalized_backward(
    saved: &[Primitive; 5],
    gradient: &Primitive,
    axes: &[usize],
    form: NormForm,
) -> Option<(Primitive, Primitive, Primitive)> {
    let x = &saved[0];
    if !is_possible(x, axes, form, 9) {
        return None;
    }
    let [all_rows, units] = [x.shape()[0], x.shape()[1]];
    let rows = all_rows / form.seeds;
    let dims = vec![vec![all_rows, units], vec![form.seeds * units], vec![form.seeds * units]];
    let run = move |client: &Client, inputs: Vec<CubeTensor>, found: Vec<CubeTensor>| {
        let [x, gamma, mean, deviation, y, gradient] = arguments(inputs);
        let [of_x, of_gamma, of_beta] = arguments(found);
        backward_kernel::launch(
            client,
            cubes(units, form.seeds),
            CubeDim::new_2d(UNITS, ROWS),
            x,
            gamma,
            mean,
            deviation,
            y,
            gradient,
            of_x,
            of_gamma,
            of_beta,
            rows as u32,
            units as u32,
            form.function,
        );
    };
    let inputs = saved.iter().chain([gradient]).cloned().collect();
    let mut found = queue("batch_norm_backward", inputs, dims, run).into_iter();
    Some((found.next()?, found.next()?, found.next()?))
}

#[cube(launch)]
fn moments_kernel(x: &[f32], mean: &mut [f32], variance: &mut [f32], rows: u32, units: u32) {
    let unit = CUBE_POS_X * UNITS + UNIT_POS_X;
    let seed = CUBE_POS_Z as usize;
    let (rows, units, unit) = (rows as usize, units as usize, unit as usize);
    let mut shared = Shared::new_slice(comptime!((UNITS * ROWS) as usize));
    let start = seed * rows * units + unit;
    let mut sum = 0.0f32;
    if unit < units {
        let mut row = UNIT_POS_Y as usize;
        while row < rows {
            let mut block = 0.0f32;
            let end = min(rows, row + BLOCK * ROWS as usize);
            while row < end {
                block += x[start + row * units];
                row += ROWS as usize;
            }
            sum += block;
        }
    }
    let count = f32::cast_from(rows as u32);
    let center = over_rows(&mut shared, sum) / count;
    let mut squares = 0.0f32;
    if unit < units {
        let mut row = UNIT_POS_Y as usize;
        while row < rows {
            let mut block = 0.0f32;
            let end = min(rows, row + BLOCK * ROWS as usize);
            while row < end {
                let distance = x[start + row * units] - center;
                block += distance * distance;
                row += ROWS as usize;
            }
            squares += block;
        }
    }
    let squares = over_rows(&mut shared, squares);
    if unit < units && UNIT_POS_Y == 0 {
        mean[seed * units + unit] = center;
        variance[seed * units + unit] = squares / count;
    }
}

/// Ioffe and Szegedy 2015, section 3.
#[cube(launch)]
fn backward_kernel(
    x: &[f32],
    gamma: &[f32],
    mean: &[f32],
    deviation: &[f32],
    y: &[f32],
    gradient: &[f32],
    of_x: &mut [f32],
    of_gamma: &mut [f32],
    of_beta: &mut [f32],
    rows: u32,
    units: u32,
    #[comptime] function: Option<Activated>,
) {
    let unit = CUBE_POS_X * UNITS + UNIT_POS_X;
    let seed = CUBE_POS_Z as usize;
    let (rows, units, unit) = (rows as usize, units as usize, unit as usize);
    let mut shared = Shared::new_slice(comptime!((UNITS * ROWS) as usize));
    let start = seed * rows * units + unit;
    let of_unit = seed * units + unit;
    let mut sum = 0.0f32;
    let mut product = 0.0f32;
    let mut center = 0.0f32;
    let mut scale = 1.0f32;
    let mut slope = 0.0f32;
    if unit < units {
        center = mean[of_unit];
        scale = deviation[of_unit];
        slope = gamma[of_unit];
        let mut row = UNIT_POS_Y as usize;
        while row < rows {
            let mut block = 0.0f32;
            let mut block_of_products = 0.0f32;
            let end = min(rows, row + BLOCK * ROWS as usize);
            while row < end {
                let place = start + row * units;
                let outer = activated_backward(y[place], gradient[place], function);
                block += outer;
                block_of_products += outer * ((x[place] - center) / scale);
                row += ROWS as usize;
            }
            sum += block;
            product += block_of_products;
        }
    }
    let sum = over_rows(&mut shared, sum);
    let product = over_rows(&mut shared, product);
    if unit < units {
        let count = f32::cast_from(rows as u32);
        let mut row = UNIT_POS_Y as usize;
        while row < rows {
            let place = start + row * units;
            let outer = activated_backward(y[place], gradient[place], function);
            let standard = (x[place] - center) / scale;
            of_x[place] = (slope * outer - slope * sum / count - standard * (slope * product / count)) / scale;
            row += ROWS as usize;
        }
        if UNIT_POS_Y == 0 {
            of_gamma[of_unit] = product;
            of_beta[of_unit] = sum;
        }
    }
}
