//! `manifest.json`: what a run was, and how it ended.

use serde::{Deserialize, Serialize};

use super::Environment;
use crate::config::RunConfig;
use crate::schema::{GradientCoverage, RunStatus};

/// The manifest of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// [`crate::schema::SCHEMA_VERSION`] at the time of the run.
    pub schema_version: u32,
    /// The run.
    pub run_id: String,
    /// The experiment.
    pub experiment: String,
    /// The question of the experiment.
    pub question: String,
    /// How the run ended.
    #[serde(flatten)]
    pub status: RunStatus,
    /// The swept factors in their order, each with its level in this run.
    pub factors: Vec<(String, String)>,
    /// The seed.
    pub seed: u64,
    /// The SHA-256 of the data set; none where it is drawn from the seed or stands in the config.
    pub data_sha256: Option<String>,
    /// Why `delta_l2_predicted` of activations.csv is empty at step 0 for some layers or for all; none where no field is.
    pub no_prediction: Option<String>,
    /// How many rows each table has.
    pub rows: RowCounts,
    /// Which parameters have a gradient at the first step; none where pretraining diverged before it.
    pub gradient_coverage: Option<GradientCoverage>,
    /// The runs that trained together as one network, this one among them: 1 if it trained by itself. Their times in phases.csv are
    /// equal shares.
    #[serde(default = "alone")]
    pub trained_together: usize,
    /// The resolved config.
    pub config: RunConfig,
    /// The machine and the build.
    pub environment: Environment,
    /// When the run, or the group that it trained in, started, in UTC.
    pub started_at: String,
    /// When it ended, in UTC.
    pub finished_at: String,
}

/// Manifests without the number are of runs that trained by themselves.
fn alone() -> usize {
    1
}

/// The rows of each table of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RowCounts {
    /// In `gradients.csv`.
    pub gradients: usize,
    /// In `activations.csv`.
    pub activations: usize,
    /// In `units.csv`.
    pub units: usize,
    /// In `gates.csv`.
    pub gates: usize,
    /// In `chain.csv`.
    pub links: usize,
    /// In `steps.csv`.
    pub steps: usize,
    /// In `pretraining.csv`.
    pub pretraining: usize,
    /// In `phases.csv`.
    pub phases: usize,
    /// In `throughput.csv`.
    pub throughput: usize,
}

/// The part of a manifest that every version of the schema has.
#[derive(Deserialize)]
pub(super) struct ManifestVersion {
    pub schema_version: u32,
}
