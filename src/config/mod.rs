//! From a TOML file to validated plain values.
//!
//! [`Source`] holds the keys of a file and of `--set`, each with the place it came from, so that every
//! error can name it. [`Source::resolve`] turns one assignment of the swept keys into a [`RunConfig`].
//! Every default is written once, beside its field.

mod error;
mod schema;
mod source;

pub use error::{ConfigError, Origin};
pub use schema::{
    Activation, BatchSize, BiasInit, DataConfig, DataSet, ExperimentConfig, Loss, NetworkConfig, NetworkKind,
    Normalization, ProbeConfig, RunConfig, ThroughputConfig, TrainingConfig, TrainingLength, WeightInit,
};
pub use source::{Assignment, Factor, Level, Source};
