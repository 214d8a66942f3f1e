//! Runs the real binary.

use std::path::Path;
use std::process::{Command, Output};

#[allow(dead_code)] // Not every test file needs it.
/// A config that takes a fraction of a second: two networks, one seed, two epochs.
pub const SMALL: &str = r#"
[experiment]
name = "small"
question = "Does it work?"
[network]
depth = 3
width = 16
weight_init = "xavier"
[training]
learning_rate = 0.1
batch_size = 64
epochs = 2
[throughput]
samples = 2
sample_ms = 1
[sweep]
network.activation = ["sigmoid", "relu"]
"#;

/// The binary, in a directory of its own so that nothing is written elsewhere by mistake.
pub fn gradmark(dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gradmark"));
    command.current_dir(dir).env_remove("RAYON_NUM_THREADS");
    command
}

/// Writes `config.toml` and runs a command line on it, split at spaces.
#[allow(dead_code)] // Not every test file needs it.
pub fn run(dir: &Path, config: &str, arguments: &str) -> Output {
    std::fs::write(dir.join("config.toml"), config).expect("the config can be written");
    gradmark(dir).args(arguments.split_whitespace()).output().expect("the binary starts")
}

#[allow(dead_code)] // Not every test file needs it.
pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[allow(dead_code)] // Not every test file needs it.
pub fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}
