//! What a gate and the processes that measure for it say to each other: one JSON value a line.

use serde::{Deserialize, Serialize};
use serde_json::Value;

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
    /// The levels of the swept factors, `network.depth=4 case=relu`; the experiment's name where nothing is swept.
    pub name: String,
    /// The resolved config.
    pub config: RunConfig,
}

impl Configuration {
    /// Whether the other one is the same. Numbers that went through JSON may differ in their last digit.
    pub fn is_same(&self, other: &Self) -> bool {
        self.name == other.name && self.is_of(&other.config)
    }

    /// Whether it has these keys, as [`Configuration::is_same`].
    pub fn is_of(&self, config: &RunConfig) -> bool {
        let json = |config: &RunConfig| serde_json::to_value(config).unwrap_or_default();
        self.config == *config || is_close(&json(&self.config), &json(config))
    }
}

fn is_close(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(key, value)| b.get(key).is_some_and(|other| is_close(value, other)))
        }
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| is_close(a, b)),
        (Value::Number(_), Value::Number(_)) => match (a.as_f64(), b.as_f64()) {
            (Some(a), Some(b)) => (a - b).abs() <= 4.0 * f64::EPSILON * a.abs(),
            _ => a == b,
        },
        _ => a == b,
    }
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
    /// Do the fixed piece of work on one core, and tell its time.
    Yardstick,
    /// Do that on all cores that steps use, and tell its time.
    YardstickTogether,
    /// Tell how long threads have waited for a core so far.
    Waited,
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn numbers_may_differ_in_their_last_digit_and_in_no_other() {
        let one = json!({"rate": 0.1, "seeds": [1, 2], "name": "a"});
        assert!(is_close(&one, &json!({"rate": 0.1 + f64::EPSILON / 8.0, "seeds": [1, 2], "name": "a"})));
        for other in [
            json!({"rate": 0.100_000_001, "seeds": [1, 2], "name": "a"}),
            json!({"rate": 0.1, "seeds": [1], "name": "a"}),
            json!({"rate": 0.1, "seeds": [1, 2], "name": "b"}),
            json!({"rate": 0.1, "seeds": [1, 2]}),
        ] {
            assert!(!is_close(&one, &other), "{other}");
        }
    }
}
