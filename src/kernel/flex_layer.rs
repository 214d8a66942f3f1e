//! Batch norm on the CPU, without tensors in between.
//!
//! Rows are examples, so that the inner loops run over units, which lie side by side. One thread does it all: the rows of
//! the networks that this is for fit into a core's cache.

use burn::backend::tensor::FloatTensor;
use burn::backend::{Flex, TensorMetadata};
use burn::tensor::{DType, TensorData};
use multiversion::multiversion;

type Primitive = FloatTensor<Flex>;

/// The elements of a contiguous matrix of f32 and its numbers of rows and columns, if the axes are those of batch norm.
fn matrix<'a>(x: &'a Primitive, axes: &[usize]) -> Option<(&'a [f32], [usize; 2])> {
    let shape = x.shape();
    let is_matrix = x.dtype() == DType::F32 && shape.num_dims() == 2 && axes == [0];
    let elements = if is_matrix { x.as_slice::<f32>() } else { None }?;
    Some((elements, [shape[0], shape[1]]))
}

pub(super) fn contiguous(x: &Primitive) -> Primitive {
    if x.is_contiguous() { x.clone() } else { x.to_contiguous() }
}

pub(super) fn tensor<const D: usize>(values: Vec<f32>, shape: [usize; D]) -> Primitive {
    Primitive::from_data(TensorData::new(values, shape))
}

/// Mean and variance of every column; `None` where the stock form must do it. The same below.
pub fn moments(x: &Primitive, axes: &[usize]) -> Option<(Primitive, Primitive)> {
    let (elements, [rows, columns]) = matrix(x, axes)?;
    let (mut mean, mut variance) = (vec![0.0; columns], vec![0.0; columns]);
    column_moments(elements, rows, &mut mean, &mut variance);
    Some((tensor(mean, [1, columns]), tensor(variance, [1, columns])))
}

#[multiversion(targets("x86_64+avx512f+avx512vl+avx2+fma", "x86_64+avx2+fma"))]
fn column_moments(elements: &[f32], rows: usize, mean: &mut [f32], variance: &mut [f32]) {
    let share = 1.0 / rows as f32;
    for row in elements.chunks_exact(mean.len()) {
        for (sum, x) in mean.iter_mut().zip(row) {
            *sum += x;
        }
    }
    for sum in mean.iter_mut() {
        *sum *= share;
    }
    for row in elements.chunks_exact(mean.len()) {
        for ((sum, mean), x) in variance.iter_mut().zip(mean.iter()).zip(row) {
            *sum += (x - mean) * (x - mean);
        }
    }
    for sum in variance.iter_mut() {
        *sum *= share;
    }
}

/// `gamma (x - mean) / deviation + beta`
pub fn normalized(
    x: &Primitive,
    gamma: &Primitive,
    beta: &Primitive,
    mean: &Primitive,
    deviation: &Primitive,
    axes: &[usize],
) -> Option<Primitive> {
    let (elements, [rows, columns]) = matrix(x, axes)?;
    let [gamma, beta] = [gamma.as_slice::<f32>()?, beta.as_slice::<f32>()?];
    let [mean, deviation] = [mean.as_slice::<f32>()?, deviation.as_slice::<f32>()?];
    let factor: Vec<f32> = gamma.iter().zip(deviation).map(|(gamma, deviation)| gamma / deviation).collect();
    let mut output = vec![0.0; rows * columns];
    scale_rows(elements, mean, &factor, beta, &mut output);
    Some(tensor(output, [rows, columns]))
}

#[multiversion(targets("x86_64+avx512f+avx512vl+avx2+fma", "x86_64+avx2+fma"))]
fn scale_rows(elements: &[f32], mean: &[f32], factor: &[f32], beta: &[f32], output: &mut [f32]) {
    let columns = mean.len();
    for (row, output) in elements.chunks_exact(columns).zip(output.chunks_exact_mut(columns)) {
        for column in 0..columns {
            output[column] = (row[column] - mean[column]) * factor[column] + beta[column];
        }
    }
}

/// The gradients with respect to x, gamma and beta.
pub fn normalized_backward(
    x: &Primitive,
    gamma: &Primitive,
    mean: &Primitive,
    deviation: &Primitive,
    gradient: &Primitive,
    axes: &[usize],
) -> Option<(Primitive, Primitive, Primitive)> {
    let (elements, [rows, columns]) = matrix(x, axes)?;
    let gradient = contiguous(gradient);
    let gradient = gradient.as_slice::<f32>()?;
    let gamma = gamma.as_slice::<f32>()?;
    let [mean, deviation] = [mean.as_slice::<f32>()?, deviation.as_slice::<f32>()?];
    let inverse: Vec<f32> = deviation.iter().map(|deviation| 1.0 / deviation).collect();
    let (mut of_gamma, mut of_beta) = (vec![0.0; columns], vec![0.0; columns]);
    sum_gradients(elements, gradient, mean, &inverse, &mut of_gamma, &mut of_beta);
    let mut of_x = vec![0.0; rows * columns];
    let share = 1.0 / rows as f32;
    // gradient x factor - offset - (x - mean) x slope
    let factor: Vec<f32> = gamma.iter().zip(&inverse).map(|(gamma, inverse)| gamma * inverse).collect();
    let offset: Vec<f32> = factor.iter().zip(&of_beta).map(|(factor, sum)| factor * sum * share).collect();
    let slope: Vec<f32> = factor
        .iter()
        .zip(&of_gamma)
        .zip(&inverse)
        .map(|((factor, sum), inverse)| factor * sum * share * inverse)
        .collect();
    input_gradients(elements, gradient, mean, [&factor, &offset, &slope], &mut of_x);
    Some((tensor(of_x, [rows, columns]), tensor(of_gamma, [columns]), tensor(of_beta, [columns])))
}

#[multiversion(targets("x86_64+avx512f+avx512vl+avx2+fma", "x86_64+avx2+fma"))]
fn sum_gradients(
    elements: &[f32],
    gradient: &[f32],
    mean: &[f32],
    inverse: &[f32],
    of_gamma: &mut [f32],
    of_beta: &mut [f32],
) {
    let columns = mean.len();
    for (row, gradient) in elements.chunks_exact(columns).zip(gradient.chunks_exact(columns)) {
        for column in 0..columns {
            of_gamma[column] += gradient[column] * ((row[column] - mean[column]) * inverse[column]);
            of_beta[column] += gradient[column];
        }
    }
}

#[multiversion(targets("x86_64+avx512f+avx512vl+avx2+fma", "x86_64+avx2+fma"))]
fn input_gradients(
    elements: &[f32],
    gradient: &[f32],
    mean: &[f32],
    [factor, offset, slope]: [&[f32]; 3],
    of_x: &mut [f32],
) {
    let columns = mean.len();
    let rows = elements.chunks_exact(columns).zip(gradient.chunks_exact(columns));
    for ((row, gradient), of_x) in rows.zip(of_x.chunks_exact_mut(columns)) {
        for column in 0..columns {
            of_x[column] =
                gradient[column] * factor[column] - offset[column] - (row[column] - mean[column]) * slope[column];
        }
    }
}
