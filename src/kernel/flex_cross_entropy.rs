//! The softmax cross-entropy on the CPU, in a few loops over all rows.

// A function that is not inlined into one with a target feature does without it.
#![allow(clippy::inline_always)]

use burn::backend::tensor::FloatTensor;
use burn::backend::{Flex, TensorMetadata};
use burn::tensor::DType;
use multiversion::multiversion;

use super::cross_entropy::CostForm;
use super::flex_layer::{contiguous, tensor};
use super::number::Number;
use super::{pool, team};
use crate::config::Kernels;

type Primitive = FloatTensor<Flex>;

/// The costs and the softmax; `None` where the stock form must do it.
pub fn forward(outputs: &Primitive, targets: &Primitive, form: CostForm) -> Option<(Primitive, Primitive)> {
    match outputs.dtype() {
        _ if form.kernels == Kernels::Stock => None,
        DType::F32 => costs::<f32>(outputs, targets, form),
        DType::F64 => costs::<f64>(outputs, targets, form),
        _ => None,
    }
}

/// The gradient with respect to the outputs; `None` as above.
pub fn backward(softmax: &Primitive, targets: &Primitive, gradient: &Primitive, form: CostForm) -> Option<Primitive> {
    match softmax.dtype() {
        _ if form.kernels == Kernels::Stock => None,
        DType::F32 => gradients::<f32>(softmax, targets, gradient, form),
        DType::F64 => gradients::<f64>(softmax, targets, gradient, form),
        _ => None,
    }
}

fn costs<T: Exponential>(outputs: &Primitive, targets: &Primitive, form: CostForm) -> Option<(Primitive, Primitive)> {
    let [rows, classes] = [outputs.shape()[0], outputs.shape()[1]];
    let (outputs, targets) = (contiguous(outputs), contiguous(targets));
    let (outputs, targets) = (outputs.as_slice::<T>()?, targets.as_slice::<T>()?);
    if classes == 0 || rows == 0 {
        return None;
    }
    let mut softmax = pool::take::<T>(rows * classes);
    let mut costs = vec![T::default(); form.seeds];
    let size = rows / form.seeds * classes;
    let of_seeds = outputs.chunks_exact(size).zip(targets.chunks_exact(size)).zip(softmax.chunks_exact_mut(size));
    team::each(of_seeds.zip(&mut costs).collect(), |(((outputs, targets), softmax), cost): (_, &mut T)| {
        *cost = mean_cost(outputs, targets, softmax, classes);
    });
    Some((tensor::<T, 1>(costs, [form.seeds]), tensor(softmax, [rows, classes])))
}

/// The mean cost of the rows of a seed; their softmax is written.
fn mean_cost<T: Exponential>(outputs: &[T], targets: &[T], softmax: &mut [T], classes: usize) -> T {
    let mut shifted = outputs.to_vec();
    for row in shifted.chunks_exact_mut(classes) {
        let largest = row.iter().fold(row[0], |largest, x| if *x > largest { *x } else { largest });
        row.iter_mut().for_each(|x| *x = *x - largest);
    }
    softmax.copy_from_slice(&shifted);
    T::exponentials(softmax);
    let rows = softmax.chunks_exact_mut(classes).zip(shifted.chunks_exact(classes)).zip(targets.chunks_exact(classes));
    let mut sum_of_costs = 0.0;
    for ((row, shifted), targets) in rows {
        let sum = row.iter().fold(T::default(), |sum, x| sum + *x);
        let logarithm = sum.logarithm();
        let cost = shifted.iter().zip(targets).fold(T::default(), |cost, (x, t)| cost + (logarithm - *x) * *t);
        sum_of_costs += cost.into_f64();
        let share = T::from_f64(1.0) / sum;
        row.iter_mut().for_each(|x| *x = *x * share);
    }
    T::from_f64(sum_of_costs / (outputs.len() / classes) as f64)
}

fn gradients<T: Exponential>(
    softmax: &Primitive,
    targets: &Primitive,
    gradient: &Primitive,
    form: CostForm,
) -> Option<Primitive> {
    let [rows, classes] = [softmax.shape()[0], softmax.shape()[1]];
    let (softmax, targets, gradient) = (contiguous(softmax), contiguous(targets), contiguous(gradient));
    let (softmax, targets) = (softmax.as_slice::<T>()?, targets.as_slice::<T>()?);
    let gradient = gradient.as_slice::<T>()?;
    let of_seed = rows / form.seeds;
    let mut found = pool::take::<T>(softmax.len());
    let pieces = found.chunks_exact_mut(classes).zip(softmax.chunks_exact(classes)).zip(targets.chunks_exact(classes));
    for (number, ((found, softmax), targets)) in pieces.enumerate() {
        let sum = targets.iter().fold(T::default(), |sum, t| sum + *t);
        let factor = gradient[number / of_seed] * T::from_f64(1.0 / of_seed as f64);
        for ((found, p), t) in found.iter_mut().zip(softmax).zip(targets) {
            *found = (*p * sum - *t) * factor;
        }
    }
    Some(tensor(found, [rows, classes]))
}

/// A number with exponentials in vector instructions.
trait Exponential: Number {
    fn exponentials(numbers: &mut [Self]);
    fn logarithm(self) -> Self;
    fn into_f64(self) -> f64;
}

macro_rules! exponential {
    ($number:ty, $exponentials:ident) => {
        impl Exponential for $number {
            fn exponentials(numbers: &mut [Self]) {
                $exponentials(numbers);
            }

            fn logarithm(self) -> Self {
                self.ln()
            }

            fn into_f64(self) -> f64 {
                f64::from(self)
            }
        }

        #[multiversion(targets("x86_64+avx512f+avx512vl+avx2+fma", "x86_64+avx2+fma"))]
        fn $exponentials(numbers: &mut [$number]) {
            numbers.iter_mut().for_each(|x| *x = Number::exp(*x));
        }
    };
}

exponential!(f32, exponentials_f32);
exponential!(f64, exponentials_f64);
