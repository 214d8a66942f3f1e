//! What can go wrong with the files of a data set.

use std::io;
use std::path::PathBuf;

/// Why a data set cannot be read from its files.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// None of its files is there.
    #[error(
        "{title}: its files are in none of {}; download them with `{fetch}`, or name the directory that has them with \
         --data-dir",
        list(places)
    )]
    Absent {
        /// The name of the set.
        title: &'static str,
        /// Every directory that was looked into.
        places: Vec<PathBuf>,
        /// The command that downloads the set.
        fetch: String,
    },
    /// Some of its files are there.
    #[error(
        "{}: it lacks {} of {title}, raw or with .gz; download what is missing with `{fetch}`, or name the directory that \
         has all four files with --data-dir",
        dir.display(), missing.join(" and ")
    )]
    Incomplete {
        /// The directory of the others.
        dir: PathBuf,
        /// The name of the set.
        title: &'static str,
        /// The names of the files that are not there.
        missing: Vec<&'static str>,
        /// The command that downloads them.
        fetch: String,
    },
    /// The operating system does not let it be read.
    #[error("{}: cannot be read: {cause}; let it be read, or name another directory with --data-dir", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        cause: io::Error,
    },
    /// The contents are not those of the set.
    #[error("{}: {fault}; download the right one with `{fetch} --force`", path.display())]
    Faulty {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        fault: FileFault,
        /// The command that downloads the set.
        fetch: String,
    },
    /// There is no place to look.
    #[error("there is no home directory to keep data sets in; name a directory with --data-dir or GRADMARK_DATA_DIR")]
    NoDirectory,
}

/// What is wrong with the contents of a file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FileFault {
    /// There is nothing in it.
    #[error("it is empty, but should have {expected} bytes")]
    Empty {
        /// The bytes that it should have, uncompressed.
        expected: usize,
    },
    /// Its name says gzip, its first bytes do not.
    #[error("it should be compressed with gzip, but begins with the bytes {found}")]
    NotGzip {
        /// The first bytes, in hexadecimal.
        found: String,
    },
    /// It cannot be decompressed.
    #[error("its gzip data are damaged after {found} of {expected} bytes ({reason})")]
    DamagedGzip {
        /// The bytes that it should have, uncompressed.
        expected: usize,
        /// The bytes that came out before the damage.
        found: usize,
        /// What the decoder said.
        reason: String,
    },
    /// Bytes are missing at its end.
    #[error("it is cut off: it should have {expected} bytes, but has {found}")]
    Truncated {
        /// The bytes that it should have, uncompressed.
        expected: usize,
        /// The bytes that it has.
        found: usize,
    },
    /// There is something behind its end.
    #[error("it is too long: it should have {expected} bytes, but has more")]
    TooLong {
        /// The bytes that it should have, uncompressed.
        expected: usize,
    },
    /// It is no IDX file of so many dimensions.
    #[error("it should be an IDX file that begins with the magic number {expected}, but begins with {found}")]
    MagicNumber {
        /// The first four bytes that it should have, in hexadecimal.
        expected: String,
        /// The first four bytes that it has.
        found: String,
    },
    /// It has other numbers of examples, rows or columns.
    #[error("its dimensions should be {expected}, but are {found}")]
    Dimensions {
        /// The dimensions that it should have: `60000 x 28 x 28`.
        expected: String,
        /// The dimensions that its header has.
        found: String,
    },
    /// It is another file that is known.
    #[error("it should be {expected}, but has the contents of {found}")]
    Swapped {
        /// The file that it should be: `train-images-idx3-ubyte of MNIST`.
        expected: String,
        /// The file that it is.
        found: String,
    },
    /// Some byte is another one.
    #[error("its uncompressed bytes should have the SHA-256 {expected}, but have {found}")]
    Sha256 {
        /// In hexadecimal.
        expected: String,
        /// Likewise.
        found: String,
    },
}

fn list(places: &[PathBuf]) -> String {
    places.iter().map(|place| place.display().to_string()).collect::<Vec<_>>().join(", ")
}
