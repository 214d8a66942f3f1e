//! Fused operations, each beside its stock form.
//!
//! The stock form is written with Burn's tensor operations and runs on every device. The fused form is taken where
//! the backend has one; a test holds the two to the same numbers.

#[cfg(feature = "flex")]
mod cell;
mod cross_entropy;
#[cfg(any(feature = "wgpu", feature = "cuda"))]
mod cube;
mod dense;
#[cfg(feature = "flex")]
mod digits;
#[cfg(feature = "flex")]
mod elementary;
#[cfg(feature = "flex")]
mod elementwise;
#[cfg(feature = "flex")]
mod flex;
#[cfg(feature = "flex")]
mod flex_cross_entropy;
#[cfg(feature = "flex")]
mod flex_dense;
#[cfg(feature = "flex")]
mod flex_layer;
#[cfg(feature = "flex")]
mod flex_node;
#[cfg(feature = "flex")]
mod flex_recurrent;
#[cfg(feature = "flex")]
mod flex_rows;
#[cfg(feature = "flex")]
mod flex_stages;
#[cfg(feature = "flex")]
mod flex_update;
mod layer;
#[cfg(feature = "flex")]
mod matrix;
#[cfg(feature = "flex")]
mod number;
mod pieces;
#[cfg(feature = "flex")]
mod pool;
#[cfg(feature = "flex")]
mod product;
mod recurrent;
#[cfg(feature = "flex")]
mod squares;
mod stages;
mod summary;
#[cfg(feature = "flex")]
mod team;
mod update;
#[cfg(feature = "flex")]
mod vector;

pub use cross_entropy::{CostForm, CostOps, has_fused_cost, softmax_cross_entropy};
pub use dense::{DenseCall, DenseForm, DenseOps, DenseParameters, Elementwise, WantedOfDense, affine, dense};
pub use layer::{Activated, LayerOps, NormAxis, NormForm, Normalized, activated, normalize};
pub use pieces::Pieces;
pub use recurrent::{Form, Recurred, Recurrence, RecurrentOps, RecurrentParameters, WantedGradients, recurrent};
pub use stages::{FoundDeltas, MOST_PARAMETERS, MOST_UNITS, Shortcut, Stage, StageLeft, Stages, StagesLeft, Watch};
pub use summary::{
    ActivationSummary, DeltaSummary, FlatParts, GlobalNorm, GradientSummary, Norm, Reading, UpdateSummary,
    activation_summaries, block_norms, delta_summaries, gate_summary, global_norm, gpu_norms, gradient_summaries,
    host_block_norms, norms_from_reading, stock_block_norms, stock_global_norm, update_summaries, values_of,
};
pub use update::{Measured, Moments, Rule, Update, has_fused_forms, updated};
