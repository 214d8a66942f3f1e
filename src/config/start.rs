//! The saved network that training starts from.

use std::path::{Path, PathBuf};
use std::{fs, io};

use super::schema::{RunConfig, Violation};
use crate::hash::sha256;

/// The file in the directory of a run that holds its network.
const FILE: &str = "network.safetensors";

/// The bytes of the network that `training.start_from` names; none without it.
///
/// # Errors
///
/// If the file cannot be read, or is no longer the one whose SHA-256 stands in the config.
pub fn read_start(config: &RunConfig) -> io::Result<Option<Vec<u8>>> {
    let Some(path) = &config.training.start_from else {
        return Ok(None);
    };
    let bytes = read(&file(path))?;
    let pinned = config.training.start_sha256.as_deref();
    if pinned.is_some_and(|pinned| !pinned.eq_ignore_ascii_case(&sha256(&bytes))) {
        let changed = format!("{} has changed since the command began", file(path).display());
        return Err(io::Error::other(changed));
    }
    Ok(Some(bytes))
}

/// A directory stands for the network in it.
fn file(path: &Path) -> PathBuf {
    if path.is_dir() { path.join(FILE) } else { path.to_owned() }
}

/// Devices and pipes may have no end.
fn read(path: &Path) -> io::Result<Vec<u8>> {
    let failed = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
    if !fs::metadata(path).map_err(failed)?.is_file() {
        return Err(io::Error::other(format!("{} is no file", path.display())));
    }
    fs::read(path).map_err(failed)
}

impl RunConfig {
    /// Sets the SHA-256 of the network that training starts from, or finds that the one in the config is another.
    pub(super) fn pin_start(&mut self) -> Result<(), Violation> {
        let Some(path) = &self.training.start_from else {
            return Ok(());
        };
        let bytes = read(&file(path)).map_err(|error| Violation {
            key: "training.start_from",
            problem: format!("must name a saved network, or the directory of a run that has one ({error})"),
            mend: "run an experiment with `training.save = true`, and name the directory of its run, relative to the working directory"
                .to_owned(),
        })?;
        let found = sha256(&bytes);
        match &self.training.start_sha256 {
            Some(expected) if !expected.eq_ignore_ascii_case(&found) => Err(Violation {
                key: "training.start_sha256",
                problem: format!("must be the SHA-256 of the network in `training.start_from`, which is {found}"),
                mend: "name the network that is meant, or remove `training.start_sha256`".to_owned(),
            }),
            _ => {
                self.training.start_sha256 = Some(found);
                Ok(())
            }
        }
    }
}
