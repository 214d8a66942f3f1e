//! What is done to single numbers.

use burn_cubecl::cubecl;
use burn_cubecl::cubecl::prelude::*;

use crate::kernel::Activated;

/// Without overflow for any z.
#[cube]
pub fn sigmoid(z: f32) -> f32 {
    let decay = (-z.abs()).exp();
    let above = 1.0f32 / (1.0f32 + decay);
    select(z < 0.0f32, decay * above, above)
}

/// `phi(z)`; z itself without a function.
#[cube]
pub fn activated(z: f32, #[comptime] function: Option<Activated>) -> f32 {
    match comptime!(function) {
        None => z,
        Some(Activated::Sigmoid) => sigmoid(z),
        Some(Activated::Tanh) => z.tanh(),
        // What is not a number stays so.
        Some(Activated::Relu) => select(z <= 0.0f32, 0.0f32, z),
    }
}

/// `gradient x phi'(z)`, from `y = phi(z)`.
#[cube]
pub fn activated_backward(y: f32, gradient: f32, #[comptime] function: Option<Activated>) -> f32 {
    match comptime!(function) {
        None => gradient,
        Some(Activated::Sigmoid) => y * (1.0f32 - y) * gradient,
        Some(Activated::Tanh) => (1.0f32 - y * y) * gradient,
        // 0 even where the gradient is not finite.
        Some(Activated::Relu) => select(y <= 0.0f32, 0.0f32, gradient),
    }
}
