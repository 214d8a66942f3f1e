//! Two devices, the same numbers: flex against the others of this build.

#![cfg(all(feature = "flex", any(feature = "wgpu", feature = "ndarray")))]

mod common;

use std::fs;
use std::path::Path;

use common::{gradmark, stderr};

const QUANTITIES: [&str; 4] = ["grad_l2", "grad_max_abs", "weight_l2", "update_l2"];

/// The rows of a table of every run, each as column -> text, in the order of the plan: sigmoid, then ReLU.
fn rows(dir: &Path, table: &str) -> Vec<std::collections::HashMap<String, String>> {
    let mut runs: Vec<_> = fs::read_dir(dir.join("results/smoke"))
        .expect("results")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.join("manifest.json").exists())
        .map(|path| {
            let text = fs::read_to_string(path.join("manifest.json")).expect("reads");
            let manifest: serde_json::Value = serde_json::from_str(&text).expect("JSON");
            (manifest["factors"].to_string(), path)
        })
        .collect();
    runs.sort();
    assert_eq!(runs.len(), 2);
    runs.iter()
        .flat_map(|(_, path)| csv::Reader::from_path(path.join(table)).expect(table).into_deserialize())
        .map(|row| row.expect("a row"))
        .collect()
}

fn run_smoke(device: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let config = Path::new(env!("CARGO_MANIFEST_DIR")).join("configs/smoke.toml");
    let output = gradmark(dir.path())
        .arg("run")
        .arg(config)
        .args(["--device", device, "--set", "throughput.samples=0"])
        // Tuning takes a minute on a software adapter and changes no number that this test looks at.
        .env("CUBECL_AUTOTUNE_LEVEL", "minimal")
        .output()
        .expect("the binary starts");
    assert_eq!(output.status.code(), Some(0), "{device}: {}", stderr(&output));
    dir
}

fn assert_agreement(device: &str) {
    let (expected, found) = (run_smoke("flex"), run_smoke(device));
    let mut largest = 0.0_f64;
    for (table, quantities) in [
        ("gradients.csv", &QUANTITIES[..]),
        ("activations.csv", &["delta_l2", "mean_delta_l2", "activation_mean", "activation_std"][..]),
    ] {
        let (expected, found) = (rows(expected.path(), table), rows(found.path(), table));
        assert_eq!(expected.len(), found.len(), "{table}");
        for (a, b) in expected.iter().zip(&found) {
            assert_eq!((&a["step"], &a["layer"]), (&b["step"], &b["layer"]), "{table}");
            for quantity in quantities {
                let number =
                    |row: &std::collections::HashMap<String, String>| row[*quantity].parse::<f64>().expect(quantity);
                let (a_value, b_value) = (number(a), number(b));
                let difference = (a_value - b_value).abs() / a_value.abs().max(1e-12);
                assert!(
                    difference <= 1e-3,
                    "{device} {table} step {} {} {quantity}: {b_value}, on flex {a_value}",
                    a["step"],
                    a["layer"]
                );
                largest = largest.max(difference);
            }
        }
    }
    eprintln!("{device} against flex: largest relative difference {largest:.1e}");
}

/// On a machine without any adapter there is nothing to compare; the test says so.
#[cfg(feature = "wgpu")]
#[test]
fn wgpu_agrees_with_flex_on_every_norm_of_the_smoke_config() {
    let request = "wgpu".parse().expect("a name");
    match gradmark::device::find(request) {
        Ok(adapter) => {
            eprintln!("adapter: {} ({})", adapter.name, adapter.kind);
            assert_agreement("wgpu");
        }
        Err(error) if std::env::var_os("GRADMARK_REQUIRE_ADAPTER").is_none() => eprintln!("not compared: {error}"),
        Err(error) => panic!("GRADMARK_REQUIRE_ADAPTER is set, and {error}"),
    }
}

#[cfg(feature = "ndarray")]
#[test]
fn ndarray_agrees_with_flex_on_every_norm_of_the_smoke_config() {
    assert_agreement("ndarray");
}
