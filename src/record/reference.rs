//! The reference of the science gate: a CSV file that is kept in version control.

use std::fs;
use std::path::Path;

use super::StoreError;
use super::output::{csv_of, write_for};
use crate::schema::ReferenceRow;

/// Reads a reference.
///
/// # Errors
///
/// If it is not there, cut off, or no reference.
pub fn load_reference(path: &Path) -> Result<Vec<ReferenceRow>, StoreError> {
    let mend = "write it with gradmark gate --science CONFIG --update, or name another with --reference";
    let unusable = |problem: String| StoreError::unusable(path, problem, mend);
    let text = fs::read_to_string(path).map_err(|error| unusable(format!("cannot be read: {error}")))?;
    if !text.ends_with('\n') {
        return Err(unusable("its last line is cut off".to_owned()));
    }
    let rows: Result<Vec<ReferenceRow>, csv::Error> = csv::Reader::from_reader(text.as_bytes()).deserialize().collect();
    let rows = rows.map_err(|error| unusable(format!("is no reference: {error}")))?;
    if rows.is_empty() {
        return Err(unusable("has no rows".to_owned()));
    }
    Ok(rows)
}

/// Writes a reference, whole or not at all.
///
/// # Errors
///
/// If it cannot be written.
pub fn write_reference(path: &Path, rows: &[ReferenceRow]) -> Result<(), StoreError> {
    let text = csv_of(rows).map_err(StoreError::write(path))?;
    write_for(path, &text, "--reference")
}
