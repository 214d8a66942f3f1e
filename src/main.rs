//! The command line of gradmark.

use std::process::ExitCode;

use clap::Parser;
use gradmark::cli::{Cli, execute, exit_code, say};

/// Fresh activations every step make the allocator a part of the speed.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    match execute(Cli::parse()) {
        Ok(code) => code,
        Err(error) => {
            // `{:#}` prints the chain of causes on one line.
            say(&format!("error: {error:#}"));
            exit_code(&error)
        }
    }
}
