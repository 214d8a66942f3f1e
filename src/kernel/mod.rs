//! Fused operations, each beside its stock form.
//!
//! The stock form is written with Burn's tensor operations and runs on every device. The fused form is taken where
//! the backend has one; a test holds the two to the same numbers.

#[cfg(feature = "flex")]
mod flex;
#[cfg(feature = "flex")]
mod flex_layer;
mod layer;
mod summary;

pub use layer::{Activated, LayerOps, Normalized, activated, affine, normalize};
pub use summary::{
    ActivationSummary, DeltaSummary, FlatParts, GlobalNorm, GradientSummary, Norm, Reading, UpdateSummary,
    activation_summaries, count_above, delta_summaries, global_norm, gradient_summaries, stock_global_norm,
    update_summaries, values_of,
};
