//! Measures how gradients flow through deep networks, what each remedy for vanishing and exploding gradients does
//! about it, and what it costs.
//!
//! A config becomes a plan of runs; a run trains a network on a device while a probe measures gradients, and leaves
//! rows; rows become files, summaries and figures:
//!
//! ```
//! use std::sync::atomic::AtomicBool;
//!
//! use gradmark::{analysis, config::Source, data, device, plan, schema::RunRows, train};
//!
//! let text = r#"
//!     [experiment]
//!     name = "vanishing"
//!     [network]
//!     depth = 8
//!     width = 16
//!     activation = "sigmoid"
//!     weight_init = "lecun"
//!     [training]
//!     learning_rate = 0.1
//!     steps = 2
//!     [throughput]
//!     samples = 0
//! "#;
//! let adapter = device::find("auto".parse()?)?;
//! let source = Source::parse("vanishing.toml".as_ref(), text, &[])?;
//! let plan = plan::plan(&source, &adapter.label())?;
//! let spec = &plan.runs[0];
//!
//! let dataset = data::Sources::default().load(&spec.config, spec.seed)?;
//! let stop = AtomicBool::new(false);
//! let control = train::Control { stop: &stop, progress: &|_, _| {} };
//! let mut rows = RunRows::default();
//! let status = train::run(spec, &dataset, None, &device::open(&adapter)?, &mut rows, &control)?;
//!
//! let summary = analysis::summarize(&spec.run_id, spec.levels.clone(), spec.seed, status, &rows);
//! // Eight sigmoid layers leave the first one a gradient that is thousands of times smaller than the last one's.
//! assert!(summary.gradient_ratio_first.unwrap() < 1e-3);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub mod analysis;
pub mod cli;
pub mod config;
pub mod data;
pub mod device;
mod fault;
pub mod gate;
mod hash;
pub mod kernel;
pub mod network;
pub mod plan;
pub mod probe;
pub mod record;
pub mod report;
pub mod schema;
mod seed;
pub mod theory;
pub mod train;
pub mod verify;

/// The text of a panic, for errors of code that panics instead of returning them.
pub(crate) fn panic_message(panic: &(dyn std::any::Any + Send)) -> String {
    panic
        .downcast_ref::<String>()
        .cloned()
        .or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
        .unwrap_or_else(|| "it panicked".to_owned())
}
