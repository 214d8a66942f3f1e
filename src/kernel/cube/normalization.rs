//! Batch norm and layer norm of layers `[seeds x batch, units]`, each with the function behind it in one launch, and all their gradients in
//! one.
//!
//! A workgroup takes some units of a seed with all their rows, or some rows with all their units, so that it needs no other's sums.

use burn::backend::TensorMetadata;
use burn::tensor::DType;
use burn_cubecl::cubecl;
use burn_cubecl::cubecl::prelude::*;
use burn_cubecl::tensor::CubeTensor;

use super::cell::{activated, activated_backward};
use super::rows::{BLOCK, ROWS, UNITS, over_rows, over_units};
use super::{Asked, Limits, Primitive, arguments, longest, queue};
use crate::config::Kernels;
use crate::kernel::layer::NormAxis;
use crate::kernel::{Activated, NormForm};

/// Rows of a seed that a workgroup goes through at most, so that it does not keep a few threads busy for long. That was not measured.
const MOST_ROWS: usize = 4096;
/// Likewise, units of a row: a thread adds up [`BLOCK`] of them.
const MOST_UNITS: usize = UNITS as usize * BLOCK;

/// A normalization that has kernels.
#[derive(Clone, Copy)]
struct Sizes {
    axis: NormAxis,
    seeds: usize,
    /// Rows of a seed.
    rows: usize,
    units: usize,
}

impl Sizes {
    /// `None` for what is no matrix of f32.
    fn of(x: &Primitive, axes: &[usize], form: NormForm) -> Option<Self> {
        let is_ours = form.kernels == Kernels::Fused && x.dtype == DType::F32 && x.rank() == 2;
        let axis = NormAxis::of_matrix(axes).filter(|_| is_ours && x.shape().num_elements() > 0)?;
        Some(Self { axis, seeds: form.seeds, rows: x.shape()[0] / form.seeds, units: x.shape()[1] })
    }

    /// Workgroups for all units of a seed.
    fn of_units(&self) -> usize {
        self.units.div_ceil(UNITS as usize)
    }

    /// Workgroups for all rows of a seed.
    fn of_rows(&self) -> usize {
        self.rows.div_ceil(ROWS as usize)
    }

    /// The shape of the moments.
    fn moments(&self) -> Vec<usize> {
        match self.axis {
            NormAxis::Batch => vec![self.seeds, self.units],
            NormAxis::Units => vec![self.seeds * self.rows, 1],
        }
    }

    /// Whether the device has room for so many workgroups for each seed, and tensors.
    fn fit(&self, x: &Primitive, cubes: usize, bindings: usize) -> bool {
        let threads = (UNITS * ROWS) as usize;
        let shared = threads * size_of::<f32>();
        let cubes = [cubes, 1, self.seeds];
        Limits::of(x).allow(&Asked { threads, shared, cubes, bindings, elements: longest([x]) })
    }

    fn cubes(&self, cubes: usize) -> CubeCount {
        CubeCount::Static(cubes as u32, 1, self.seeds as u32)
    }
}

/// The value of [`LayerOps::normalized`](crate::kernel::LayerOps) of x, gamma and beta, the mean and the variance; `None` for what is no
/// matrix of f32, has too many rows or units to go through, or no room on the device.
pub fn normalized(
    [x, gamma, beta]: [&Primitive; 3],
    axes: &[usize],
    form: NormForm,
) -> Option<(Primitive, Primitive, Primitive)> {
    let sizes = Sizes::of(x, axes, form)?;
    let (cubes, is_short) = match sizes.axis {
        NormAxis::Batch => (sizes.of_units(), sizes.rows <= MOST_ROWS),
        NormAxis::Units => (sizes.of_rows(), sizes.units <= MOST_UNITS),
    };
    if !is_short || !sizes.fit(x, cubes, 6) {
        return None;
    }
    let dims = vec![vec![sizes.seeds * sizes.rows, sizes.units], sizes.moments(), sizes.moments()];
    let run = move |client: &Client, inputs: Vec<CubeTensor>, found: Vec<CubeTensor>| {
        let [x, gamma, beta] = arguments(inputs);
        let [y, mean, variance] = arguments(found);
        let (count, cube_dim) = (sizes.cubes(cubes), CubeDim::new_2d(UNITS, ROWS));
        let (rows, units, epsilon) = (sizes.rows as u32, sizes.units as u32, form.epsilon as f32);
        let launch = match sizes.axis {
            NormAxis::Batch => batch_norm_kernel::launch,
            NormAxis::Units => layer_norm_kernel::launch,
        };
        launch(client, count, cube_dim, x, gamma, beta, y, mean, variance, rows, units, epsilon, form.function);
    };
    let inputs = [x, gamma, beta].map(Clone::clone).to_vec();
    let mut found = queue("normalization", inputs, dims, run).into_iter();
    Some((found.next()?, found.next()?, found.next()?))
}

/// The gradients of [`LayerOps::normalized`](crate::kernel::LayerOps) with respect to x, gamma and beta, from x, gamma, mean, variance
/// and y; `None` as above.
pub fn normalized_backward(
    saved: &[Primitive; 5],
    gradient: &Primitive,
    axes: &[usize],
    form: NormForm,
) -> Option<(Primitive, Primitive, Primitive)> {
    let x = &saved[0];
    let sizes = Sizes::of(x, axes, form)?;
    let is_short = sizes.rows <= MOST_ROWS && (sizes.axis == NormAxis::Batch || sizes.units <= MOST_UNITS);
    // Of layer norm some workgroups take rows, for x, and others units, for gamma and beta.
    let cubes = match sizes.axis {
        NormAxis::Batch => sizes.of_units(),
        NormAxis::Units => sizes.of_rows() + sizes.of_units(),
    };
    if !is_short || !sizes.fit(x, cubes, 9) {
        return None;
    }
    let vector = vec![sizes.seeds * sizes.units];
    let dims = vec![vec![sizes.seeds * sizes.rows, sizes.units], vector.clone(), vector];
    let run = move |client: &Client, inputs: Vec<CubeTensor>, found: Vec<CubeTensor>| {
        let [x, gamma, mean, variance, y, gradient] = arguments(inputs);
        let [of_x, of_gamma, of_beta] = arguments(found);
        let (count, cube_dim) = (sizes.cubes(cubes), CubeDim::new_2d(UNITS, ROWS));
        let (rows, units, epsilon) = (sizes.rows as u32, sizes.units as u32, form.epsilon as f32);
        let launch = match sizes.axis {
            NormAxis::Batch => batch_norm_backward_kernel::launch,
            NormAxis::Units => layer_norm_backward_kernel::launch,
        };
        launch(
            client,
            count,
            cube_dim,
            x,
            gamma,
            mean,
            variance,
            y,
            gradient,
            of_x,
            of_gamma,
            of_beta,
            rows,
            units,
            epsilon,
            form.function,
        );
    };
    let inputs = saved.iter().chain([gradient]).cloned().collect();
    let mut found = queue("normalization_backward", inputs, dims, run).into_iter();
    Some((found.next()?, found.next()?, found.next()?))
}

#[cube(launch)]
fn batch_norm_kernel(
    x: &[f32],
    gamma: &[f32],
    beta: &[f32],
    y: &mut [f32],
    mean: &mut [f32],
    variance: &mut [f32],
    rows: u32,
    units: u32,
    epsilon: f32,
    #[comptime] function: Option<Activated>,
) {
    let unit = (CUBE_POS_X * UNITS + UNIT_POS_X) as usize;
    let seed = CUBE_POS_Z as usize;
    let count = f32::cast_from(rows);
    let (rows, units) = (rows as usize, units as usize);
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
    let spread = over_rows(&mut shared, squares) / count;
    if unit < units {
        let of_unit = seed * units + unit;
        let scale = (spread + epsilon).sqrt();
        let (slope, offset) = (gamma[of_unit], beta[of_unit]);
        let mut row = UNIT_POS_Y as usize;
        while row < rows {
            let place = start + row * units;
            y[place] = activated((x[place] - center) / scale * slope + offset, function);
            row += ROWS as usize;
        }
        if UNIT_POS_Y == 0 {
            mean[of_unit] = center;
            variance[of_unit] = spread;
        }
    }
}

#[cube(launch)]
fn layer_norm_kernel(
    x: &[f32],
    gamma: &[f32],
    beta: &[f32],
    y: &mut [f32],
    mean: &mut [f32],
    variance: &mut [f32],
    rows: u32,
    units: u32,
    epsilon: f32,
    #[comptime] function: Option<Activated>,
) {
    let row = (CUBE_POS_X * ROWS + UNIT_POS_Y) as usize;
    let seed = CUBE_POS_Z as usize;
    let count = f32::cast_from(units);
    let (rows, units) = (rows as usize, units as usize);
    let mut shared = Shared::new_slice(comptime!((UNITS * ROWS) as usize));
    let of_row = seed * rows + row;
    let start = of_row * units;
    let mut sum = 0.0f32;
    if row < rows {
        let mut unit = UNIT_POS_X as usize;
        while unit < units {
            sum += x[start + unit];
            unit += UNITS as usize;
        }
    }
    let center = over_units(&mut shared, sum) / count;
    let mut squares = 0.0f32;
    if row < rows {
        let mut unit = UNIT_POS_X as usize;
        while unit < units {
            let distance = x[start + unit] - center;
            squares += distance * distance;
            unit += UNITS as usize;
        }
    }
    let spread = over_units(&mut shared, squares) / count;
    if row < rows {
        let scale = (spread + epsilon).sqrt();
        let mut unit = UNIT_POS_X as usize;
        while unit < units {
            let place = start + unit;
            let of_unit = seed * units + unit;
            y[place] = activated((x[place] - center) / scale * gamma[of_unit] + beta[of_unit], function);
            unit += UNITS as usize;
        }
        if UNIT_POS_X == 0 {
            mean[of_row] = center;
            variance[of_row] = spread;
        }
    }
}

/// Ioffe and Szegedy 2015, section 3.
#[cube(launch)]
fn batch_norm_backward_kernel(
    x: &[f32],
    gamma: &[f32],
    mean: &[f32],
    variance: &[f32],
    y: &[f32],
    gradient: &[f32],
    of_x: &mut [f32],
    of_gamma: &mut [f32],
    of_beta: &mut [f32],
    rows: u32,
    units: u32,
    epsilon: f32,
    #[comptime] function: Option<Activated>,
) {
    let unit = (CUBE_POS_X * UNITS + UNIT_POS_X) as usize;
    let seed = CUBE_POS_Z as usize;
    let count = f32::cast_from(rows);
    let (rows, units) = (rows as usize, units as usize);
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
        scale = (variance[of_unit] + epsilon).sqrt();
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

/// Ba, Kiros and Hinton 2016. The first workgroups of a seed take rows, the others units.
#[cube(launch)]
fn layer_norm_backward_kernel(
    x: &[f32],
    gamma: &[f32],
    mean: &[f32],
    variance: &[f32],
    y: &[f32],
    gradient: &[f32],
    of_x: &mut [f32],
    of_gamma: &mut [f32],
    of_beta: &mut [f32],
    rows: u32,
    units: u32,
    epsilon: f32,
    #[comptime] function: Option<Activated>,
) {
    let seed = CUBE_POS_Z as usize;
    let count = f32::cast_from(units);
    let of_rows = rows.div_ceil(ROWS);
    let (rows, units) = (rows as usize, units as usize);
    let mut shared = Shared::new_slice(comptime!((UNITS * ROWS) as usize));
    let mut sum = 0.0f32;
    let mut product = 0.0f32;
    if CUBE_POS_X < of_rows {
        let row = (CUBE_POS_X * ROWS + UNIT_POS_Y) as usize;
        let of_row = seed * rows + row;
        let start = of_row * units;
        let mut center = 0.0f32;
        let mut scale = 1.0f32;
        if row < rows {
            center = mean[of_row];
            scale = (variance[of_row] + epsilon).sqrt();
            let mut unit = UNIT_POS_X as usize;
            while unit < units {
                let place = start + unit;
                let outer = gamma[seed * units + unit] * activated_backward(y[place], gradient[place], function);
                sum += outer;
                product += outer * ((x[place] - center) / scale);
                unit += UNITS as usize;
            }
        }
        let sum = over_units(&mut shared, sum);
        let product = over_units(&mut shared, product);
        if row < rows {
            let mut unit = UNIT_POS_X as usize;
            while unit < units {
                let place = start + unit;
                let outer = gamma[seed * units + unit] * activated_backward(y[place], gradient[place], function);
                of_x[place] = (outer - sum / count - (x[place] - center) / scale * (product / count)) / scale;
                unit += UNITS as usize;
            }
        }
    } else {
        let unit = ((CUBE_POS_X - of_rows) * UNITS + UNIT_POS_X) as usize;
        if unit < units {
            let mut row = UNIT_POS_Y as usize;
            while row < rows {
                let mut block = 0.0f32;
                let mut block_of_products = 0.0f32;
                let end = min(rows, row + BLOCK * ROWS as usize);
                while row < end {
                    let of_row = seed * rows + row;
                    let place = of_row * units + unit;
                    let outer = activated_backward(y[place], gradient[place], function);
                    block += outer;
                    block_of_products += outer * ((x[place] - mean[of_row]) / (variance[of_row] + epsilon).sqrt());
                    row += ROWS as usize;
                }
                sum += block;
                product += block_of_products;
            }
        }
        let sum = over_rows(&mut shared, sum);
        let product = over_rows(&mut shared, product);
        if unit < units && UNIT_POS_Y == 0 {
            of_gamma[seed * units + unit] = product;
            of_beta[seed * units + unit] = sum;
        }
    }
}
