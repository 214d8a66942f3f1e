//! What a gate and the processes that measure for it say to each other: one JSON value a line.

use serde::{Deserialize, Serialize};

use crate::config::RunConfig;
use crate::record::Environment;

/// The version of the protocol: both sides of a pair must speak the same one.
pub const PROTOCOL_VERSION: u32 = 1;

/// The first line of a process that measures.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Hello {
    /// [`PROTOCOL_VERSION`] of its build.
    pub protocol_version: u32,
    /// The machine and its build.
    pub environment: Environment,
    /// What it can measure, in the order of the plan.
    pub configurations: Vec<Configuration>,
}

/// A configuration of a config: all runs of one that differ in their seed have the same speed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Configuration {
    /// The levels of the swept factors, `depth=4 case=relu`; the experiment's name where nothing is swept.
    pub name: String,
    /// The resolved config.
    pub config: RunConfig,
}

/// The part of [`Hello`] that every version has.
#[derive(Deserialize)]
pub(super) struct HelloVersion {
    pub protocol_version: u32,
}

/// What a gate asks for.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Request {
    /// Draw the network of a configuration, with its first seed, take its first steps, and stay on a core from then on.
    Prepare {
        /// The place of the configuration in [`Hello::configurations`].
        configuration: usize,
        /// The number of the core, of those that the process may use; counted on from the first after the last.
        core: usize,
    },
    /// Take so many steps, and tell their time.
    Sample {
        /// The steps.
        steps: usize,
    },
    /// Do the fixed piece of work, and tell its time.
    Yardstick,
}

/// The answer to a [`Request`].
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Response {
    /// The milliseconds of what was asked for; of a preparation, those of a step.
    ElapsedMs(f64),
    /// Why it cannot be done.
    Failed(String),
}
