//! From a TOML file to validated plain values.
//!
//! [`Source`] holds the keys of a file and of `--set`, each with the place it came from, so that every
//! error can name it. [`Source::resolve`] turns one assignment of the swept keys into a [`RunConfig`].
//! Every default is written once, beside its field.

mod data;
mod defaults;
mod error;
mod measurement;
mod network;
mod pretraining;
mod recurrent;
mod schema;
mod source;
mod start;
mod together;
mod training;

pub use data::{
    COPIED_KINDS, COPIED_SYMBOLS, DataConfig, DataSet, Evaluation, IMAGE_SIDE, IMAGE_TEST_EXAMPLES,
    IMAGE_TRAINING_EXAMPLES, Normalization, Reading, TEXT_ALPHABET, TEXT_TEST_CHARACTERS, TEXT_TRAINING_CHARACTERS,
    VALIDATION_EXAMPLES,
};
pub use error::{ConfigError, Origin};
pub use measurement::{ProbeConfig, ThroughputConfig};
pub use network::{
    Activation, ActivationFunction, BiasInit, BlockOrder, BranchScale, Kernels, MAX_DEPTH, MAX_WIDTH, NetworkConfig,
    NetworkKind, Norm, NormPlace, Shortcut, WeightInit,
};
pub use pretraining::{PretrainingConfig, PretrainingMethod, Reconstruction, Visible};
pub use recurrent::{Cell, Implementation, OutputSteps, RecurrentInit};
pub use schema::{ExperimentConfig, RunConfig, Sequence};
pub use source::{Assignment, Factor, Level, Source};
pub use start::read_start;
pub use training::{BatchSize, Clipping, Loss, Optimizer, StartLayers, TrainingConfig, TrainingLength};
