//! Files that commands make of runs.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use serde::Serialize;

use super::error::StoreError;

/// Writes a text, whole or not at all, and makes the directory that it is in.
///
/// # Errors
///
/// If it cannot be written.
pub fn write_text(path: &Path, text: &str) -> Result<(), StoreError> {
    write_for(path, text, "--out")
}

/// The same for a file that another option names.
pub(super) fn write_for(path: &Path, text: &str, option: &str) -> Result<(), StoreError> {
    let make = || -> io::Result<()> {
        let folder = path.parent().unwrap_or(Path::new(""));
        if !folder.as_os_str().is_empty() {
            fs::create_dir_all(folder)?;
        }
        write_whole(path, text)
    };
    make().map_err(|error| {
        let mend = format!("name a place that you can write with {option}");
        StoreError::unusable(path, format!("cannot be written: {error}"), mend)
    })
}

/// Writes a file under a temporary name beside it, and renames it when it is whole.
pub(super) fn write_whole(path: &Path, text: &str) -> io::Result<()> {
    let name = path.file_name().ok_or(io::ErrorKind::IsADirectory)?;
    // A device or a pipe cannot be replaced.
    if path.exists() && !path.is_file() {
        return fs::write(path, text);
    }
    let temporary = path.with_file_name(format!(".tmp-{}", name.to_string_lossy()));
    let mut file = File::create(&temporary)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&temporary, path)
}

/// The rows of a table with its header.
pub(super) fn csv_of(rows: &[impl Serialize]) -> io::Result<String> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    for row in rows {
        writer.serialize(row).map_err(io::Error::from)?;
    }
    text_of(writer)
}

/// What was written to memory.
pub(super) fn text_of(writer: csv::Writer<Vec<u8>>) -> io::Result<String> {
    let bytes = writer.into_inner().map_err(|error| io::Error::other(error.to_string()))?;
    String::from_utf8(bytes).map_err(io::Error::other)
}

/// Removes what [`write_text`] has written, if it is there.
///
/// # Errors
///
/// If it cannot be removed.
pub fn remove_text(path: &Path) -> Result<(), StoreError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(StoreError::unusable(path, format!("cannot be removed: {error}"), "remove it by hand"))
        }
        _ => Ok(()),
    }
}

/// Whether two paths lead to the same place; not if one of them leads nowhere.
pub fn is_same_place(a: &Path, b: &Path) -> bool {
    matches!((fs::canonicalize(a), fs::canonicalize(b)), (Ok(a), Ok(b)) if a == b)
}

/// The name of a directory, also of `.` and `..`.
pub fn directory_name(dir: &Path) -> String {
    let name = |path: &Path| path.file_name().map(|name| name.to_string_lossy().into_owned());
    name(dir).or_else(|| name(&fs::canonicalize(dir).ok()?)).unwrap_or_else(|| "results".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_replaces_another_and_leaves_nothing_beside_it() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("made/table.tex");
        for text in ["one", "two"] {
            write_text(&path, text).expect("writes");
            assert_eq!(fs::read_to_string(&path).expect("reads"), text);
        }
        assert_eq!(fs::read_dir(dir.path().join("made")).expect("reads").count(), 1);
        for _ in 0..2 {
            remove_text(&path).expect("removes what is there, and nothing where nothing is");
            assert!(!path.exists());
        }
    }

    #[test]
    fn a_place_that_cannot_be_written_is_named_with_what_to_do() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let file = dir.path().join("file");
        fs::write(&file, "").expect("writes");
        let text = write_text(&file.join("table.tex"), "one").expect_err("below a file").to_string();
        assert!(text.contains("table.tex: cannot be written") && text.ends_with("--out"), "{text}");
        assert!(write_text(dir.path(), "one").is_err());
    }

    #[test]
    fn two_names_of_a_directory_are_the_same_place() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let below = dir.path().join("below");
        fs::create_dir(&below).expect("makes");
        assert!(is_same_place(dir.path(), &below.join("..")) && !is_same_place(dir.path(), &below));
        assert!(!is_same_place(&below.join("absent"), &below.join("absent")));
        assert_eq!(
            (directory_name(&below), directory_name(&below.join("."))),
            ("below".to_owned(), "below".to_owned())
        );
        let up = dir.path().file_name().expect("a name").to_string_lossy().into_owned();
        assert_eq!(directory_name(&below.join("..")), up);
    }
}
