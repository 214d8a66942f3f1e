//! Baselines of speed: what a later measurement is compared with.
//!
//! `<baselines>/<name>/` has `pinned.json`, which stays as it was saved, `rolling.json`, which follows every gate that is passed, and
//! `history.csv`, to which every gate adds rows.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::output::{csv_of, write_for, write_whole};
use super::store::lock;
use super::{Environment, StoreError};
use crate::config::RunConfig;
use crate::schema::VerdictRow;

/// The version of the files of baselines. It changes when a field changes its name or meaning.
pub const BASELINE_VERSION: u32 = 2;

const HISTORY: &str = "history.csv";

/// Measured speed, to compare with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Baseline {
    /// [`BASELINE_VERSION`] when it was saved.
    pub baseline_version: u32,
    /// Its name.
    pub name: String,
    /// When it was saved, in UTC.
    pub saved_at: String,
    /// What was measured.
    pub source: BaselineSource,
    /// The machine and the build.
    pub environment: Environment,
    /// What was measured, each with its sessions.
    pub configurations: Vec<BaselineConfiguration>,
}

/// What a baseline was measured on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum BaselineSource {
    /// The configurations of a config.
    Config {
        /// The config, as it was named.
        path: PathBuf,
        /// The arguments of `--set`.
        overrides: Vec<String>,
    },
    /// Criterion's results.
    Criterion {
        /// The directory that they were read from.
        path: PathBuf,
    },
}

/// One configuration of a baseline, or one benchmark of criterion's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BaselineConfiguration {
    /// The levels of its factors, or the benchmark's id.
    pub name: String,
    /// The resolved config; none of a benchmark.
    pub config: Option<RunConfig>,
    /// The compiler that the sessions' fixed pieces of work were built with, and its flags.
    pub compiler: Option<String>,
    /// The sessions, in the order in which they were measured.
    pub sessions: Vec<Session>,
    /// The relative change that a gate would have seen between sessions of this baseline, where nothing changed; none with fewer
    /// than two sessions.
    pub noise_floor: Option<f64>,
}

impl BaselineConfiguration {
    /// One whose noise floor is not known yet.
    pub fn new(name: String, config: Option<RunConfig>, compiler: Option<String>, sessions: Vec<Session>) -> Self {
        Self { name, config, compiler, sessions, noise_floor: None }
    }
}

/// What one process measured.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Session {
    /// The time of a step, or of an iteration, in each sample, in milliseconds.
    pub step_ms: Vec<f64>,
    /// The times that fixed pieces of work took on the core that makes the steps and on all cores that steps use, before each sample and
    /// after the last, in milliseconds; empty where the device is no CPU, and of benchmarks.
    pub yardsticks_ms: Vec<[f64; 2]>,
    /// The time that threads waited for a core in each sample, all together, by the sample's; empty as the former, and 0 where the system does not
    /// tell.
    pub waited: Vec<f64>,
}

/// The part of a baseline that every version has.
#[derive(Deserialize)]
struct Version {
    baseline_version: u32,
}

/// Which of the two baselines of a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// The one that was saved, which finds slow drift.
    Pinned,
    /// The last measurement that passed.
    Rolling,
}

impl Kept {
    fn file(self) -> &'static str {
        match self {
            Self::Pinned => "pinned.json",
            Self::Rolling => "rolling.json",
        }
    }
}

/// The directory of a baseline, which this process alone writes.
#[derive(Debug)]
pub struct BaselineStore {
    dir: PathBuf,
    _lock: File,
}

impl BaselineStore {
    /// Opens `<baselines>/<name>` and makes it if it is not there.
    ///
    /// # Errors
    ///
    /// If the name is no name of a directory, if it cannot be written, or if another process writes it.
    pub fn create(baselines: &Path, name: &str) -> Result<Self, StoreError> {
        let dir = directory(baselines, name)?;
        fs::create_dir_all(&dir).map_err(|error| {
            StoreError::unusable(
                &dir,
                format!("cannot be made: {error}"),
                "name a directory that you can write with --baselines",
            )
        })?;
        Self::lock(dir)
    }

    /// Opens `<baselines>/<name>`.
    ///
    /// # Errors
    ///
    /// If it is not there, cannot be written, or another process writes it.
    pub fn open(baselines: &Path, name: &str) -> Result<Self, StoreError> {
        let dir = directory(baselines, name)?;
        if !dir.is_dir() {
            let known = baseline_names(baselines)?;
            let mend = if known.is_empty() {
                format!("save one: gradmark baseline save {name} CONFIG")
            } else {
                format!("name one of {}, or save it: gradmark baseline save {name} CONFIG", known.join(", "))
            };
            return Err(StoreError::unusable(&dir, "there is no baseline of this name", mend));
        }
        Self::lock(dir)
    }

    fn lock(dir: PathBuf) -> Result<Self, StoreError> {
        match lock(&dir) {
            Ok(Some(lock)) => Ok(Self { dir, _lock: lock }),
            Ok(None) => {
                Err(StoreError::unusable(&dir, "another gradmark is using it", "wait for it, or use another name"))
            }
            Err(error) => Err(StoreError::unusable(
                &dir,
                format!("cannot be written: {error}"),
                "name a directory that you can write with --baselines",
            )),
        }
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Whether one of the two is there.
    pub fn has(&self, kept: Kept) -> bool {
        self.dir.join(kept.file()).is_file()
    }

    /// Reads one of the two.
    ///
    /// # Errors
    ///
    /// If it is not there, cut off, empty, or of another version.
    pub fn read(&self, kept: Kept) -> Result<Baseline, StoreError> {
        read(&self.dir.join(kept.file()))
    }

    /// Writes one of the two, whole or not at all.
    ///
    /// # Errors
    ///
    /// If it cannot be written; the one that was there stays.
    pub fn write(&self, kept: Kept, baseline: &Baseline) -> Result<(), StoreError> {
        let path = self.dir.join(kept.file());
        let text = serde_json::to_string_pretty(baseline).map_err(|error| StoreError::write(&path)(error.into()))?;
        write_whole(&path, &(text + "\n")).map_err(StoreError::write(&path))
    }

    /// Whether rows can be added to `history.csv`: known before anything is measured.
    ///
    /// # Errors
    ///
    /// If it has other columns, or is cut off.
    pub fn check_history(&self) -> Result<(), StoreError> {
        self.history().map(drop)
    }

    /// Adds rows to `history.csv`, behind those that are there.
    ///
    /// # Errors
    ///
    /// If it cannot be written, has other columns, or is cut off.
    pub fn append_history(&self, rows: &[VerdictRow]) -> Result<(), StoreError> {
        let has_header = self.history()?;
        let path = self.dir.join(HISTORY);
        let text = csv_of(rows).map_err(StoreError::write(&path))?;
        let lines = text.split_once('\n').map_or("", |(_, lines)| lines);
        append(&path, if has_header { lines } else { &text }).map_err(StoreError::write(&path))
    }

    /// Whether there is a history with the columns of this gradmark.
    fn history(&self) -> Result<bool, StoreError> {
        let path = self.dir.join(HISTORY);
        let columns = csv_of(&[VerdictRow::default()]).map_err(StoreError::write(&path))?;
        let header = columns.split_inclusive('\n').next().unwrap_or_default();
        match fs::read_to_string(&path) {
            Ok(history) if !history.starts_with(header) => {
                let mend = "move it away: a new one is begun";
                Err(StoreError::unusable(&path, "has other columns than this gradmark writes", mend))
            }
            Ok(history) if !history.ends_with('\n') => {
                Err(StoreError::unusable(&path, "its last line is cut off", "remove that line"))
            }
            Ok(_) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(StoreError::unusable(&path, format!("cannot be read: {error}"), "move it away")),
        }
    }
}

/// Reads the pinned baseline of a name, which may be in use.
///
/// # Errors
///
/// If it is not there, cut off, empty, or of another version.
pub fn read_pinned(baselines: &Path, name: &str) -> Result<Baseline, StoreError> {
    read(&directory(baselines, name)?.join(Kept::Pinned.file()))
}

fn read(path: &Path) -> Result<Baseline, StoreError> {
    let mend = "save the baseline anew with --force: gradmark baseline save NAME CONFIG --force";
    let bytes = fs::read(path).map_err(|error| StoreError::unusable(path, format!("cannot be read: {error}"), mend))?;
    let damaged = |error: serde_json::Error| {
        let what = if error.is_eof() { "is cut off" } else { "is not a baseline" };
        StoreError::unusable(path, format!("{what}: {error}"), mend)
    };
    let version: Version = serde_json::from_slice(&bytes).map_err(damaged)?;
    if version.baseline_version != BASELINE_VERSION {
        let problem = format!(
            "has version {} of the files of baselines, and this gradmark has version {BASELINE_VERSION}",
            version.baseline_version
        );
        return Err(StoreError::unusable(
            path,
            problem,
            "save the baseline anew, or gate with the gradmark that saved it",
        ));
    }
    let baseline: Baseline = serde_json::from_slice(&bytes).map_err(damaged)?;
    if baseline.configurations.is_empty() {
        return Err(StoreError::unusable(path, "has no configuration", mend));
    }
    Ok(baseline)
}

/// Writes rows with a header, whole or not at all.
///
/// # Errors
///
/// If the file cannot be written.
pub fn write_verdicts(path: &Path, rows: &[VerdictRow]) -> Result<(), StoreError> {
    let text = csv_of(rows).map_err(StoreError::write(path))?;
    write_for(path, &text, "--csv")
}

/// The names of the baselines in a directory, sorted; none if it is not there.
///
/// # Errors
///
/// If it cannot be read.
pub fn baseline_names(baselines: &Path) -> Result<Vec<String>, StoreError> {
    let entries = match fs::read_dir(baselines) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(|error| {
            StoreError::unusable(
                baselines,
                format!("cannot be read: {error}"),
                "name another directory with --baselines",
            )
        })?,
    };
    let is_baseline = |entry: &fs::DirEntry| entry.path().join(Kept::Pinned.file()).is_file();
    let name = |entry: fs::DirEntry| entry.file_name().to_string_lossy().into_owned();
    let mut names: Vec<String> = entries.flatten().filter(is_baseline).map(name).collect();
    names.sort();
    Ok(names)
}

fn directory(baselines: &Path, name: &str) -> Result<PathBuf, StoreError> {
    let is_plain = |char: char| char.is_ascii_alphanumeric() || "-_.".contains(char);
    if name.is_empty() || name.starts_with('.') || !name.chars().all(is_plain) {
        let problem = format!("`{name}` is no name of a baseline");
        return Err(StoreError::unusable(
            baselines,
            problem,
            "use letters, digits, `-`, `_` and `.`, and no `.` in front",
        ));
    }
    Ok(baselines.join(name))
}

fn append(path: &Path, text: &str) -> io::Result<()> {
    let mut file = fs::OpenOptions::new().create(true).append(true).open(path)?;
    // In one piece, so that a line is not cut off by the end of another process.
    file.write_all(text.as_bytes())?;
    file.sync_all()
}
