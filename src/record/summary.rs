//! `summary.csv`: one row a run.

use std::fs;
use std::path::Path;

use super::error::StoreError;
use crate::analysis::RunSummary;

/// Writes `summary.csv` into the directory of an experiment, whole or not at all: a column for each factor, then
/// those of [`RunSummary`].
///
/// # Errors
///
/// If it cannot be written.
pub fn write_summary(dir: &Path, factors: &[String], runs: &[RunSummary]) -> Result<(), StoreError> {
    let path = dir.join("summary.csv");
    let temporary = dir.join(".tmp-summary.csv");
    let write = || -> Result<(), csv::Error> {
        let mut writer = csv::Writer::from_path(&temporary)?;
        let columns: Vec<&str> = ["run_id", "seed"]
            .into_iter()
            .chain(factors.iter().map(String::as_str))
            .chain(RunSummary::COLUMNS.iter().copied())
            .collect();
        writer.write_record(&columns)?;
        for run in runs {
            let mut record = vec![run.run_id.clone(), run.seed.to_string()];
            record.extend(run.levels.iter().cloned());
            record.extend(run.fields());
            writer.write_record(&record)?;
        }
        writer.flush()?;
        fs::rename(&temporary, &path)?;
        Ok(())
    };
    write().map_err(|error| StoreError::write(&path)(error.into()))
}
