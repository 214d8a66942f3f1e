//! Fused operations, each beside its stock form.
//!
//! The stock form is written with Burn's tensor operations and runs on every device. The fused form is taken where
//! the backend has one; a test holds the two to the same numbers.

#[cfg(feature = "flex")]
mod elementary;
#[cfg(feature = "flex")]
mod flex;
#[cfg(feature = "flex")]
mod flex_layer;
#[cfg(feature = "flex")]
mod flex_recurrent;
mod layer;
#[cfg(feature = "flex")]
mod product;
mod recurrent;
mod summary;

pub use layer::{Activated, LayerOps, Normalized, activated, affine, normalize};
pub use recurrent::{Form, Recurred, Recurrence, RecurrentOps, RecurrentParameters, WantedGradients, recurrent};
pub use summary::{
    ActivationSummary, DeltaSummary, FlatParts, GlobalNorm, GradientSummary, Norm, Reading, UpdateSummary,
    activation_summaries, block_norms, delta_summaries, gate_summary, global_norm, gradient_summaries,
    norms_from_reading, stock_global_norm, update_summaries, values_of,
};
