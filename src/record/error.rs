//! What can go wrong with the files of results.

use std::io;
use std::path::{Path, PathBuf};

/// Why results cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The directory is not usable: the command has to be changed.
    #[error("{}: {problem}; {mend}", path.display())]
    Unusable {
        /// The file or directory.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
        /// What to do about it.
        mend: String,
    },
    /// Writing failed half-way: the disk is full, for example.
    #[error("{}: cannot be written: {cause}; complete runs are kept, and the same command continues", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        cause: io::Error,
    },
}

impl StoreError {
    pub(super) fn unusable(path: &Path, problem: impl Into<String>, mend: impl Into<String>) -> Self {
        Self::Unusable { path: path.to_owned(), problem: problem.into(), mend: mend.into() }
    }

    pub(super) fn write(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |cause| Self::Write { path, cause }
    }
}
