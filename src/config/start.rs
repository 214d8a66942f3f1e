//! The saved network that training starts from.

use std::path::{Path, PathBuf};
use std::{fs, io};

use sha2::{Digest, Sha256};

use super::schema::{RunConfig, Violation};

/// The file in the directory of a run that holds its network.
const FILE: &str = "network.safetensors";

/// The bytes of the network that `training.start_from` names; none without it.
///
/// # Errors
///
/// If the file cannot be read.
pub fn read_start(config: &RunConfig) -> io::Result<Option<Vec<u8>>> {
    config.training.start_from.as_deref().map(|path| fs::read(file(path))).transpose()
}

/// A directory stands for the network in it.
fn file(path: &Path) -> PathBuf {
    if path.is_dir() { path.join(FILE) } else { path.to_owned() }
}

impl RunConfig {
    /// Sets the SHA-256 of the network that training starts from, or finds that the one in the config is another.
    pub(super) fn pin_start(&mut self) -> Result<(), Violation> {
        let bytes = read_start(self).map_err(|error| Violation {
            key: "training.start_from",
            problem: format!("must name a saved network, or the directory of a run that has one: {error}"),
            mend: "run an experiment with `training.save = true`, and name the directory of its run".to_owned(),
        })?;
        let Some(bytes) = bytes else {
            return Ok(());
        };
        let found: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        match &self.training.start_sha256 {
            Some(expected) if *expected != found => Err(Violation {
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
