//! One optimizer's update of one parameter.
//!
//! On the CPU it is one pass: the gradient is clipped, the parameter changes where it lies, and what the probe wants of gradient,
//! parameter and update is summed up on the way. Elsewhere an optimizer is made of the device's operations (`train/optimizer.rs`).

use burn::tensor::Tensor;

#[cfg(feature = "flex")]
use super::flex_update;

/// What becomes of a gradient g.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Rule {
    /// w - rate g
    Sgd,
    /// v = momentum v + g, w - rate v; the first v is g.
    Momentum {
        /// The share of the last update.
        momentum: f64,
    },
    /// Kingma and Ba 2015, algorithm 1.
    Adam {
        /// The share of the old mean.
        beta_1: f64,
        /// The share of the old mean of squares.
        beta_2: f64,
        /// What is added to the root.
        epsilon: f64,
    },
    /// Tieleman and Hinton 2012, lecture 6.5: v = momentum v + g / (the root of the mean of squares + epsilon), w - rate v.
    RmsProp {
        /// The share of the old mean of squares.
        smoothing: f64,
        /// The share of the last update.
        momentum: f64,
        /// What is added to the root.
        epsilon: f64,
    },
}

/// What an optimizer remembers of a parameter, of as many numbers as it has.
#[derive(Clone, Debug, Default)]
pub struct Moments {
    /// Updates so far.
    pub steps: u32,
    /// The velocity, or of Adam the mean of the gradient.
    pub first: Vec<f32>,
    /// The mean of the gradient's square.
    pub second: Vec<f32>,
}

/// How a parameter is updated.
#[derive(Clone, Debug)]
pub struct Update<'a> {
    /// What becomes of its gradient.
    pub rule: Rule,
    /// The learning rate.
    pub rate: f64,
    /// What gradients are multiplied by first, of each of the seeds whose parameters stand below each other.
    pub factors: &'a [f64],
    /// Whether it is measured.
    pub is_measured: bool,
}

/// What updates were, one parameter after the other, and of each one seed after the other.
#[derive(Clone, Debug, Default)]
pub struct Measured {
    /// Of the gradients, before the factor; each six numbers become a [`GradientSummary`](super::GradientSummary).
    pub gradients: Vec<f64>,
    /// Of the parameters and the updates; each four numbers become an [`UpdateSummary`](super::UpdateSummary).
    pub updates: Vec<f64>,
}

/// Whether a tensor lies where operations have fused forms: in the memory of this machine, as f32.
pub fn has_fused_forms<const D: usize>(value: &Tensor<D>) -> bool {
    #[cfg(feature = "flex")]
    return flex_update::is_ours(value);
    #[cfg(not(feature = "flex"))]
    {
        let _ = value;
        false
    }
}

/// The parameter after an update, outside the graph; `Err` gives it back where [`has_fused_forms`] is false. It changes in place if
/// nobody else holds it. What is measured is added to `measured`.
///
/// # Errors
///
/// The parameter as it was.
pub fn updated<const D: usize>(
    value: Tensor<D>,
    gradient: Tensor<D>,
    moments: &mut Moments,
    update: &Update<'_>,
    measured: &mut Measured,
) -> Result<Tensor<D>, Tensor<D>> {
    #[cfg(feature = "flex")]
    return flex_update::updated(value, gradient, moments, update, measured);
    #[cfg(not(feature = "flex"))]
    {
        let _ = (gradient, moments, update, measured);
        Err(value)
    }
}
