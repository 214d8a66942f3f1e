//! The reference of the science gate: a CSV file that is kept in version control.

use std::fs;
use std::path::Path;

use super::StoreError;
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
    let temporary = path.with_extension("csv.tmp");
    let write = || -> Result<(), csv::Error> {
        if let Some(dir) = path.parent() {
            fs::create_dir_all(dir)?;
        }
        let mut writer = csv::Writer::from_path(&temporary)?;
        for row in rows {
            writer.serialize(row)?;
        }
        writer.flush()?;
        Ok(fs::rename(&temporary, path)?)
    };
    write().map_err(|error| {
        StoreError::unusable(
            path,
            format!("cannot be written: {error}"),
            "name a file that you can write with --reference",
        )
    })
}
