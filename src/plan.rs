//! From a config to the list of its runs. Pure: nothing is read, opened or run.

use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::config::{Assignment, ConfigError, Level, RunConfig, Source};
use crate::hash::hexadecimal;
use crate::schema::SCHEMA_VERSION;

/// An experiment, ready to run.
#[derive(Clone, Debug, Serialize)]
pub struct Plan {
    /// The name of the experiment, which names the directory of its results.
    pub experiment: String,
    /// The question that it answers.
    pub question: String,
    /// The names of the swept factors, in the order of [`RunSpec::levels`].
    pub factors: Vec<String>,
    /// The runs: every configuration with every seed, seeds innermost.
    pub runs: Vec<RunSpec>,
}

/// One run: a configuration and a seed on a device.
#[derive(Clone, Debug, Serialize)]
pub struct RunSpec {
    /// 16 hexadecimal digits that stand for the config, the seed, the device and the schema version.
    pub run_id: String,
    /// The level of each factor, as text.
    pub levels: Vec<String>,
    /// The seed of weights, biases and batches.
    pub seed: u64,
    /// The resolved config.
    pub config: RunConfig,
}

/// Expands a config into its runs on the device with the given label (backend and adapter name).
///
/// # Errors
///
/// The first config of the sweep that is not valid, before anything has started.
pub fn plan(source: &Source, device_label: &str) -> Result<Plan, ConfigError> {
    let experiment = source.experiment();
    let mut runs = Vec::new();
    for levels in product(source) {
        let config = source.resolve(&Assignment { levels: levels.clone() })?;
        let labels: Vec<String> = levels.iter().map(|level| level.label.clone()).collect();
        if let Some(same) = runs.iter().find(|run: &&RunSpec| run.config == config) {
            return Err(ConfigError::SameRun {
                path: source.path().to_owned(),
                first: same.levels.join(", "),
                second: labels.join(", "),
            });
        }
        for &seed in &experiment.seeds {
            runs.push(RunSpec {
                run_id: run_id(&config, seed, device_label),
                levels: labels.clone(),
                seed,
                config: config.clone(),
            });
        }
    }
    Ok(Plan {
        experiment: experiment.name.clone(),
        question: experiment.question.clone(),
        factors: source.factors().iter().map(|factor| factor.name.clone()).collect(),
        runs,
    })
}

/// Cuts runs, in the order of a plan, into groups whose networks train together as one: runs of one config that differ in their seed
/// alone, as many as [`RunConfig::seeds_together`] allows, in groups of about the same size. Other runs are groups of one, and all
/// are if `batches_seeds` is false.
pub fn groups<'a>(runs: &[&'a RunSpec], batches_seeds: bool) -> Vec<Vec<&'a RunSpec>> {
    let mut groups = Vec::new();
    for same in runs.chunk_by(|a, b| a.config == b.config) {
        let most = if batches_seeds { same[0].config.seeds_together() } else { 1 };
        let size = same.len().div_ceil(same.len().div_ceil(most));
        groups.extend(same.chunks(size).map(<[&RunSpec]>::to_vec));
    }
    groups
}

/// Every choice of one level of each factor; the first factor varies slowest.
fn product(source: &Source) -> Vec<Vec<&Level>> {
    let mut choices = vec![Vec::new()];
    for factor in source.factors() {
        choices = choices
            .into_iter()
            .flat_map(|choice| {
                factor.levels.iter().map(move |level| {
                    let mut longer: Vec<&Level> = choice.clone();
                    longer.push(level);
                    longer
                })
            })
            .collect();
    }
    choices
}

/// The device is part of the id: the same config on another device is another run, with other rows. Of a saved network that
/// training starts from it is the contents that count, whose hash the config has, and not the place.
fn run_id(config: &RunConfig, seed: u64, device_label: &str) -> String {
    let mut config = config.clone();
    config.training.start_from = None;
    // serde writes the fields in the order of the struct, so the text is canonical.
    let canonical = serde_json::json!({
        "schema_version": SCHEMA_VERSION,
        "seed": seed,
        "device": device_label,
        "config": config,
    });
    let digest = Sha256::digest(canonical.to_string().as_bytes());
    hexadecimal(&digest[..8])
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    const TEXT: &str = "[experiment]\nname = \"t\"\nseeds = [4, 9]\n[network]\nwidth = 3\nweight_init = \"lecun\"\nactivation = \"tanh\"\n[training]\nlearning_rate = 0.1\nsteps = 1\n[sweep]\nnetwork.depth = [2, 4, 8]\ntraining.momentum = [0.0, 0.9]\n";

    fn example(overrides: &[&str], device: &str) -> Plan {
        let overrides: Vec<String> = overrides.iter().map(|text| (*text).to_owned()).collect();
        let source = Source::parse(Path::new("c.toml"), TEXT, &overrides).expect("valid");
        plan(&source, device).expect("valid")
    }

    #[test]
    fn the_product_of_the_factors_is_run_with_every_seed() {
        let plan = example(&[], "flex");
        assert_eq!(plan.factors, ["network.depth", "training.momentum"]);
        assert_eq!(plan.runs.len(), 3 * 2 * 2);
        assert_eq!(plan.runs[3].levels, ["2", "0.9"]);
        assert_eq!((plan.runs[3].seed, plan.runs[3].config.training.momentum), (9, 0.9));
    }

    #[test]
    fn a_run_id_depends_on_config_seed_and_device_and_on_nothing_else() {
        let ids = |plan: &Plan| plan.runs.iter().map(|run| run.run_id.clone()).collect::<Vec<_>>();
        let plan = example(&[], "flex");
        let mut unique = ids(&plan);
        unique.sort();
        unique.dedup();
        assert_eq!(unique.len(), plan.runs.len());
        assert_eq!(ids(&plan), ids(&example(&["experiment.name=other"], "flex")));
        assert_ne!(ids(&plan)[0], ids(&example(&[], "wgpu"))[0]);
        assert_ne!(ids(&plan)[0], ids(&example(&["network.width=4"], "flex"))[0]);
    }

    #[test]
    fn the_seeds_of_a_configuration_make_groups_of_about_the_same_size() {
        let sizes = |overrides: &[&str], batches_seeds| {
            let plan = example(overrides, "flex");
            let runs: Vec<&RunSpec> = plan.runs.iter().collect();
            let groups = groups(&runs, batches_seeds);
            assert!(groups.iter().all(|group| group.iter().all(|run| run.config == group[0].config)));
            assert!(groups.concat().iter().map(|run| &run.run_id).eq(runs.iter().map(|run| &run.run_id)));
            groups.iter().map(Vec::len).collect::<Vec<_>>()
        };
        assert_eq!(sizes(&[], true), [2; 6]);
        assert_eq!(sizes(&[], false), [1; 12]);
        assert_eq!(sizes(&["experiment.seeds=130", "network.depth=2", "training.momentum=0.0"], true), [44, 44, 42]);
        assert_eq!(
            sizes(&["data.set=parity", "data.sequence_length=4", "network.kind=recurrent", "network.cell=rnn"], true),
            [1; 12]
        );
    }
}
