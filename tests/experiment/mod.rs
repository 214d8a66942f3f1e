//! Runs experiments inside the test's process, on the CPU.

use std::path::Path;
use std::sync::atomic::AtomicBool;

use gradmark::analysis::{RunSummary, summarize};
use gradmark::config::Source;
use gradmark::data::Sources;
use gradmark::plan::{Plan, RunSpec, plan};
use gradmark::schema::RunRows;
use gradmark::{device, train};

/// The plan of a config of this project.
#[allow(dead_code)] // Not every test file needs it.
pub fn load(config: &str, overrides: &[&str]) -> Plan {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("configs").join(config);
    let overrides: Vec<String> = overrides.iter().map(|text| (*text).to_owned()).collect();
    plan(&Source::load(&path, &overrides).expect("a valid config"), "flex").expect("a valid config")
}

/// The plan of a config that is written in the test.
#[allow(dead_code)] // Not every test file needs it.
pub fn parse(text: &str) -> Plan {
    let text = format!("[experiment]\nname = \"test\"\n{text}");
    let source = Source::parse(Path::new("test.toml"), &text, &[]).unwrap_or_else(|error| panic!("{error}"));
    plan(&source, "flex").unwrap_or_else(|error| panic!("{error}"))
}

/// Every run with its summary.
pub fn run_all(plan: &Plan) -> Vec<(RunSummary, RunRows)> {
    let adapter = device::find("flex".parse().expect("a name")).expect("compiled in");
    let device = device::open(&adapter).expect("opens");
    let stop = AtomicBool::new(false);
    let control = train::Control { stop: &stop, progress: &|_, _| {} };
    let sources = Sources::default();
    let run = |spec: &RunSpec| {
        let mut rows = RunRows::default();
        let dataset = sources.load(&spec.config, spec.seed).expect("the data set is at hand");
        let status = train::run(spec, &dataset, None, &device, &mut rows, &control).expect("runs");
        (summarize(&spec.run_id, spec.levels.clone(), spec.seed, status, &rows), rows)
    };
    plan.runs.iter().map(run).collect()
}
