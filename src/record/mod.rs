//! The files of a run: CSV under a temporary name, a manifest, and a rename when all is whole.

mod environment;
mod error;
mod manifest;
mod store;
mod summary;

pub use environment::Environment;
pub use error::StoreError;
pub use manifest::{Manifest, RowCounts};
pub use store::{ExperimentStore, PendingRun, RunRecord, has_run, load_experiment};
pub use summary::write_summary;
