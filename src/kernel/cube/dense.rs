//! What the backward pass of a dense layer does beside its products.

use burn::backend::TensorMetadata;
use burn::tensor::DType;
use burn_cubecl::cubecl;
use burn_cubecl::cubecl::prelude::*;
use burn_cubecl::tensor::CubeTensor;

use super::cell::activated_backward;
use super::rows::{ROWS, UNITS, over_rows};
use super::{Asked, Limits, Primitive, arguments, longest, queue};
use crate::kernel::Activated;

/// With more rows of a seed, a sum by itself keeps more of a GPU busy. That was not measured.
const MOST_ROWS: usize = 512;

/// `gradient x phi'(z)` `[seeds x rows, units]`, from `y = phi(z)`, and its sums over the rows of each seed, `[seeds x units]`; `None` for
/// what is not of f32, has too many rows, or no room on the device.
pub fn derivative_and_sums(
    y: &Primitive,
    gradient: &Primitive,
    function: Activated,
    seeds: usize,
) -> Option<(Primitive, Primitive)> {
    let is_ours = [y, gradient].iter().all(|tensor| tensor.dtype == DType::F32 && tensor.rank() == 2);
    let elements = longest([y]);
    if !is_ours || elements == 0 {
        return None;
    }
    let [all_rows, units] = [y.shape()[0], y.shape()[1]];
    let rows = all_rows / seeds;
    let cubes = [units.div_ceil(UNITS as usize), 1, seeds];
    let threads = (UNITS * ROWS) as usize;
    let asked = Asked { threads, shared: threads * size_of::<f32>(), cubes, bindings: 4, elements };
    if rows > MOST_ROWS || !Limits::of(y).allow(&asked) {
        return None;
    }
    let dims = vec![vec![all_rows, units], vec![seeds * units]];
    let run = move |client: &Client, inputs: Vec<CubeTensor>, found: Vec<CubeTensor>| {
        let [y, gradient] = arguments(inputs);
        let [of_z, sums] = arguments(found);
        let [x, _, z] = cubes.map(|count| count as u32);
        derivative_kernel::launch(
            client,
            CubeCount::Static(x, 1, z),
            CubeDim::new_2d(UNITS, ROWS),
            y,
            gradient,
            of_z,
            sums,
            rows as u32,
            units as u32,
            function,
        );
    };
    let mut found = queue("derivative_and_sums", vec![y.clone(), gradient.clone()], dims, run).into_iter();
    Some((found.next()?, found.next()?))
}

#[cube(launch)]
fn derivative_kernel(
    y: &[f32],
    gradient: &[f32],
    of_z: &mut [f32],
    sums: &mut [f32],
    rows: u32,
    units: u32,
    #[comptime] function: Activated,
) {
    let unit = (CUBE_POS_X * UNITS + UNIT_POS_X) as usize;
    let seed = CUBE_POS_Z as usize;
    let (rows, units) = (rows as usize, units as usize);
    let mut shared = Shared::new_slice(comptime!((UNITS * ROWS) as usize));
    let mut sum = 0.0f32;
    if unit < units {
        let start = seed * rows * units + unit;
        let mut row = UNIT_POS_Y as usize;
        while row < rows {
            let place = start + row * units;
            let found = activated_backward(y[place], gradient[place], comptime!(Some(function)));
            of_z[place] = found;
            sum += found;
            row += ROWS as usize;
        }
    }
    let sum = over_rows(&mut shared, sum);
    if unit < units && UNIT_POS_Y == 0 {
        sums[seed * units + unit] = sum;
    }
}
