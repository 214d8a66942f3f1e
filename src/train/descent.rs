//! Gradient descent on one number, with the clipping and the optimizer of the training loop.

use burn::module::{Module, Param};
use burn::optim::{GradientsParams, SgdConfig};
use burn::tensor::{Device, Tensor, TensorData};

use super::clip::{self, Limit};
use crate::config::Clipping;
use crate::probe::{ReadError, fetch};

/// The rate of the descent.
const LEARNING_RATE: f64 = 0.01;

#[derive(Module, Debug)]
struct Number {
    value: Param<Tensor<1>>,
}

/// Gradient descent on f(x) = x^4 with the rate .01 from `start`: x after so many steps, which is not finite if it diverges. Without
/// clipping it does if |x| starts above sqrt(2 / (4 x .01)) = 7.0711, where a step leads to -x; with the gradient's norm clipped at a
/// threshold it walks in steps of .01 thresholds until the gradient is below it. Waits for the device.
///
/// # Errors
///
/// If the device cannot be read.
pub fn descend_on_fourth_power(
    start: f64,
    threshold: Option<f64>,
    steps: usize,
    device: &Device,
) -> Result<f64, ReadError> {
    let tracked = device.clone().autodiff();
    let mut number = Number { value: Param::from_data(TensorData::from([start as f32]), &tracked) };
    let mut optimizer = SgdConfig::new().init();
    let (clipping, threshold) = match threshold {
        Some(threshold) => (Clipping::GlobalNorm, threshold),
        None => (Clipping::None, f64::INFINITY),
    };
    for _ in 0..steps {
        let x = number.value.val();
        let gradients = (x.clone() * x.clone() * x.clone() * x).sum().backward();
        let gradients = GradientsParams::from_grads(gradients, &number);
        let (gradients, _) = clip::clip(&number, gradients, Limit { clipping, threshold, seeds: 1 }, false);
        number = optimizer.step(LEARNING_RATE, number, gradients);
    }
    let read = fetch(vec![number.value.val().inner().into()])?;
    Ok(read.concat().first().copied().unwrap_or(f64::NAN))
}
