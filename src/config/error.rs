//! Errors that name the file, the line, the key, the value and the mend.

use std::fmt;
use std::path::PathBuf;

/// Where a value was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A line of a config file, counted from 1.
    Line {
        /// The config file.
        path: PathBuf,
        /// The line, counted from 1.
        line: usize,
    },
    /// A config file as a whole: the key is missing from it.
    File(PathBuf),
    /// An argument `--set key=value` of the command line.
    CommandLine(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Line { path, line } => write!(f, "{}:{line}", path.display()),
            Self::File(path) => write!(f, "{}", path.display()),
            Self::CommandLine(argument) => write!(f, "--set {argument}"),
        }
    }
}

/// What is wrong with a config, and how to mend it.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{}: the config cannot be read: {reason}; {mend}", path.display())]
    Unreadable {
        /// The file that was asked for.
        path: PathBuf,
        /// What the operating system or the decoder said.
        reason: String,
        /// What to do about it.
        mend: String,
    },
    /// The file is not TOML.
    #[error("{origin}: not valid TOML: {reason}")]
    Syntax {
        /// The place of the fault.
        origin: Origin,
        /// What the TOML parser said.
        reason: String,
    },
    /// A key that gradmark does not know.
    #[error("{origin}: `{key}` is not a key that gradmark knows; {mend}")]
    UnknownKey {
        /// Where it was written.
        origin: Origin,
        /// The dotted key.
        key: String,
        /// What to write instead.
        mend: String,
    },
    /// A value that is not allowed.
    #[error("{origin}: `{key}` {problem}, got {value}; {mend}")]
    Value {
        /// Where it was written.
        origin: Origin,
        /// The dotted key.
        key: String,
        /// What is asked of the value: `must be at least 1`.
        problem: String,
        /// The value as it was written.
        value: String,
        /// What to write instead.
        mend: String,
    },
    /// A key that has no default and is absent.
    #[error("{origin}: `{key}` is missing; {mend}")]
    Missing {
        /// The file.
        origin: Origin,
        /// The dotted key.
        key: String,
        /// What to write.
        mend: String,
    },
    /// Two runs of a sweep are the same.
    #[error("{}: {first} and {second} are the same run; remove one of them", path.display())]
    SameRun {
        /// The config file.
        path: PathBuf,
        /// The levels of the one.
        first: String,
        /// The levels of the other.
        second: String,
    },
    /// An argument of `--set` that is not `key=value`.
    #[error("--set {argument}: {problem}; {mend}")]
    Override {
        /// The argument.
        argument: String,
        /// What is wrong with it.
        problem: String,
        /// What to do about it.
        mend: String,
    },
}
