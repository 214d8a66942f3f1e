//! The files of a run: CSV under a temporary name, a manifest, and a rename when all is whole. Baselines and references of gates, and
//! what criterion leaves.

mod baseline;
mod criterion;
mod environment;
mod error;
mod manifest;
mod output;
mod reference;
mod store;
mod summary;

pub use baseline::{
    BASELINE_VERSION, Baseline, BaselineConfiguration, BaselineSource, BaselineStore, Kept, Session, baseline_names,
    read_pinned, write_verdicts,
};
pub use criterion::{CriterionBenchmark, load_criterion};
pub use environment::Environment;
pub use error::StoreError;
pub use manifest::{Manifest, RowCounts};
pub use output::{directory_name, is_same_place, remove_text, write_text};
pub use reference::{load_reference, write_reference};
pub use store::{ExperimentStore, PendingRun, RunRecord, has_run, load_experiment};
pub use summary::write_summary;
