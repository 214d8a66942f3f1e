//! The files of a run: CSV under a temporary name, a manifest, and a rename when all is whole.

mod baseline;
mod environment;
mod error;
mod manifest;
mod reference;
mod store;
mod summary;

pub use baseline::{
    BASELINE_VERSION, Baseline, BaselineConfiguration, BaselineSource, BaselineStore, Kept, Session, baseline_names,
    write_verdicts,
};
pub use environment::Environment;
pub use error::StoreError;
pub use manifest::{Manifest, RowCounts};
pub use reference::{load_reference, write_reference};
pub use store::{ExperimentStore, PendingRun, RunRecord, has_run, load_experiment};
pub use summary::write_summary;
