//! Writes down what the program was built from, for the manifest of every run.

use std::fs;
use std::path::Path;
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=Cargo.lock");
    println!("cargo::rerun-if-changed=src");
    for file in [".git/HEAD", ".git/index"] {
        if Path::new(file).exists() {
            println!("cargo::rerun-if-changed={file}");
        }
    }
    let rustc = std::env::var("RUSTC").unwrap_or_else(|_| "rustc".to_owned());
    set("GRADMARK_RUSTC", output(&rustc, &["--version"]));
    set("GRADMARK_BURN", burn_version());
    let is_checkout = Path::new(".git").exists();
    let git = |arguments: &[&str]| is_checkout.then(|| output("git", arguments)).flatten();
    set("GRADMARK_COMMIT", git(&["rev-parse", "--short=12", "HEAD"]));
    let changes = git(&["--no-optional-locks", "status", "--porcelain", "--untracked-files=no"]);
    set("GRADMARK_DIRTY", changes.map(|changes| (!changes.is_empty()).to_string()));
    set("GRADMARK_PROFILE", std::env::var("PROFILE").ok());
    let opt_level = std::env::var("OPT_LEVEL").map(|level| format!("opt-level={level}")).ok();
    let flags = std::env::var("CARGO_ENCODED_RUSTFLAGS").ok().filter(|flags| !flags.is_empty());
    let flags = opt_level.into_iter().chain(flags.map(|flags| flags.replace('\u{1f}', " ")));
    set("GRADMARK_FLAGS", Some(flags.collect::<Vec<_>>().join(" ")));
}

/// An unknown value is written as the empty string.
fn set(name: &str, value: Option<String>) {
    println!("cargo::rustc-env={name}={}", value.unwrap_or_default());
}

fn output(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// The version of Burn that Cargo.lock names.
fn burn_version() -> Option<String> {
    let lock = fs::read_to_string("Cargo.lock").ok()?;
    let (_, rest) = lock.split_once("name = \"burn\"\nversion = \"")?;
    rest.split_once('"').map(|(version, _)| version.to_owned())
}
