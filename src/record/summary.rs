//! `summary.csv`: one row a run.

use std::io;
use std::path::Path;

use super::error::StoreError;
use super::output::{text_of, write_whole};
use crate::analysis::RunSummary;

/// Writes `summary.csv` into the directory of an experiment, whole or not at all: a column for each factor, then
/// those of [`RunSummary`].
///
/// # Errors
///
/// If it cannot be written.
pub fn write_summary(dir: &Path, factors: &[String], runs: &[RunSummary]) -> Result<(), StoreError> {
    let path = dir.join("summary.csv");
    let write = || -> io::Result<()> {
        let mut writer = csv::Writer::from_writer(Vec::new());
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
        write_whole(&path, &text_of(writer)?)
    };
    write().map_err(|cause| match cause.kind() {
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            let mend = "make its directory writable; the runs in it are as they were";
            StoreError::unusable(&path, format!("cannot be written: {cause}"), mend)
        }
        _ => StoreError::write(&path)(cause),
    })
}
