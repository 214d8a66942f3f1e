//! `gradmark report`

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;

use super::print;
use crate::analysis::{self, RunSummary};
use crate::config::RunConfig;
use crate::record::{self, Manifest, RunRecord};
use crate::report;

#[derive(Debug, Args)]
pub(super) struct ReportArgs {
    /// The directory of an experiment, such as `results/sigmoid_vs_relu`
    dir: PathBuf,
}

/// The directory has no complete run.
#[derive(Debug, thiserror::Error)]
#[error("{}: there is no complete run in it; name the directory of an experiment, such as results/sigmoid_vs_relu", .0.display())]
pub(super) struct NothingToReport(PathBuf);

pub(super) fn execute(args: &ReportArgs) -> anyhow::Result<ExitCode> {
    let runs = load(&args.dir)?;
    write_report(&args.dir, &runs)?;
    Ok(ExitCode::SUCCESS)
}

/// The runs of an experiment, at least one, in their order and with the same factors.
pub(super) fn load(dir: &Path) -> anyhow::Result<Vec<RunRecord>> {
    let mut runs = record::load_experiment(dir)?;
    // Runs were made in the order of their plan.
    runs.sort_by(|a, b| a.manifest.started_at.cmp(&b.manifest.started_at));
    if runs.is_empty() {
        return Err(NothingToReport(dir.to_owned()).into());
    }
    complete_factors(&mut runs);
    Ok(runs)
}

/// The names of the factors, which all runs have.
pub(super) fn factors(runs: &[RunRecord]) -> Vec<String> {
    let names = |run: &RunRecord| run.manifest.factors.iter().map(|(name, _)| name.clone()).collect();
    runs.first().map(names).unwrap_or_default()
}

/// The summary of each run.
pub(super) fn summaries(runs: &[RunRecord]) -> Vec<RunSummary> {
    let summary = |run: &RunRecord| {
        let manifest = &run.manifest;
        let levels = manifest.factors.iter().map(|(_, level)| level.clone()).collect();
        analysis::summarize(&manifest.run_id, levels, manifest.seed, manifest.status.clone(), &run.rows)
    };
    runs.iter().map(summary).collect()
}

/// Writes `summary.csv` and the figures of the runs, which have the same factors, in their order, and prints the table.
pub(super) fn write_report(dir: &Path, runs: &[RunRecord]) -> anyhow::Result<()> {
    let (factors, summaries) = (factors(runs), summaries(runs));
    record::write_summary(dir, &factors, &summaries)?;
    let figures = report::draw_figures(dir, runs)?;
    if let Some(question) = runs.first().map(|run| &run.manifest.question).filter(|question| !question.is_empty()) {
        print(question)?;
    }
    print(&report::summary_table(&factors, &summaries))?;
    let plural = if runs.len() == 1 { "" } else { "s" };
    print(&format!("{} run{plural} in {}; summary.csv has a row for each", runs.len(), dir.display()))?;
    if let Some(folder) = figures.first().and_then(|file| file.parent()) {
        print(&format!("{} figures in {}", figures.len(), folder.display()))?;
    }
    Ok(())
}

/// Gives every run the same factors: those of all manifests, in the order of the first run that has each, because a run may
/// have been made before the sweep grew; and whatever else sets runs of equal levels and seeds apart, so that different
/// configs or devices are never taken for seeds of one.
fn complete_factors(runs: &mut [RunRecord]) {
    let settings: Vec<BTreeMap<String, String>> = runs.iter().map(|run| written_settings(&run.manifest)).collect();
    let mut factors: Vec<String> = Vec::new();
    for (factor, _) in runs.iter().flat_map(|run| &run.manifest.factors) {
        if !factors.contains(factor) {
            factors.push(factor.clone());
        }
    }
    let level = |run: usize, factor: &String| {
        let known = runs[run].manifest.factors.iter().find(|(name, _)| name == factor).map(|(_, level)| level.clone());
        known.or_else(|| settings[run].get(factor).cloned()).unwrap_or_default()
    };
    let mut levels: Vec<Vec<String>> =
        (0..runs.len()).map(|run| factors.iter().map(|factor| level(run, factor)).collect()).collect();
    let mut apart = BTreeSet::new();
    for (a, b) in (0..runs.len()).flat_map(|a| (0..a).map(move |b| (a, b))) {
        if levels[a] == levels[b] {
            let keys = settings[a].keys().chain(settings[b].keys());
            apart.extend(keys.filter(|key| settings[a].get(*key) != settings[b].get(*key)).cloned());
        }
    }
    for key in apart {
        for (levels, settings) in levels.iter_mut().zip(&settings) {
            levels.push(settings.get(&key).cloned().unwrap_or_default());
        }
        factors.push(key);
    }
    for (run, levels) in runs.iter_mut().zip(levels) {
        run.manifest.factors = factors.iter().cloned().zip(levels).collect();
    }
}

/// Every key of a run's config with its value, as it was written, and the device.
fn written_settings(manifest: &Manifest) -> BTreeMap<String, String> {
    settings_of(manifest, &manifest.config)
}

/// The same with the defaults of keys that were left out.
pub(super) fn settings(manifest: &Manifest) -> BTreeMap<String, String> {
    settings_of(manifest, &manifest.config.with_defaults())
}

fn settings_of(manifest: &Manifest, config: &RunConfig) -> BTreeMap<String, String> {
    let mut settings = BTreeMap::from([("device".to_owned(), manifest.environment.adapter.label())]);
    let config = serde_json::to_value(config).unwrap_or_default();
    for (section, keys) in config.as_object().into_iter().flatten() {
        for (key, value) in keys.as_object().into_iter().flatten() {
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            settings.insert(format!("{section}.{key}"), text);
        }
    }
    settings
}
