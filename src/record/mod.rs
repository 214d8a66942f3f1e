//! The files of a run: CSV under a temporary name, a manifest, and a rename when all is whole.

mod criterion;
mod environment;
mod error;
mod manifest;
mod output;
mod store;
mod summary;

pub use criterion::{CriterionBenchmark, load_criterion};
pub use environment::Environment;
pub use error::StoreError;
pub use manifest::{Manifest, RowCounts};
pub use output::{directory_name, is_same_place, remove_text, write_text};
pub use store::{ExperimentStore, PendingRun, RunRecord, has_run, load_experiment};
pub use summary::write_summary;
