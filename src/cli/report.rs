//! `gradmark report`

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;

use super::print;
use crate::analysis::{self, RunSummary};
use crate::record::{self, RunRecord};
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
    let mut runs = record::load_experiment(&args.dir)?;
    // Runs were made in the order of their plan.
    runs.sort_by(|a, b| a.manifest.started_at.cmp(&b.manifest.started_at));
    if runs.is_empty() {
        return Err(NothingToReport(args.dir.clone()).into());
    }
    complete_factors(&mut runs);
    write_report(&args.dir, &runs)?;
    Ok(ExitCode::SUCCESS)
}

/// Writes `summary.csv` and the figures of the runs, which have the same factors, in their order, and prints the table.
pub(super) fn write_report(dir: &Path, runs: &[RunRecord]) -> anyhow::Result<()> {
    let names = |run: &RunRecord| run.manifest.factors.iter().map(|(name, _)| name.clone()).collect();
    let factors: Vec<String> = runs.first().map(names).unwrap_or_default();
    let summaries: Vec<RunSummary> = runs
        .iter()
        .map(|run| {
            let manifest = &run.manifest;
            let levels = manifest.factors.iter().map(|(_, level)| level.clone()).collect();
            analysis::summarize(&manifest.run_id, levels, manifest.seed, manifest.status.clone(), &run.rows)
        })
        .collect();
    record::write_summary(dir, &factors, &summaries)?;
    let figures = report::draw_figures(dir, runs)?;
    if let Some(question) = runs.first().map(|run| &run.manifest.question).filter(|question| !question.is_empty()) {
        print(question)?;
    }
    print(&report::summary_table(&factors, &summaries))?;
    print(&format!("{} runs in {}; summary.csv has a row for each", runs.len(), dir.display()))?;
    if let Some(folder) = figures.first().and_then(|file| file.parent()) {
        print(&format!("{} figures in {}", figures.len(), folder.display()))?;
    }
    Ok(())
}

/// Gives every run the factors of all, in the order of the first run that has each: a run may have been made before the
/// sweep grew. A level that a manifest lacks is looked up in its config.
fn complete_factors(runs: &mut [RunRecord]) {
    let mut factors: Vec<String> = Vec::new();
    for (factor, _) in runs.iter().flat_map(|run| &run.manifest.factors) {
        if !factors.contains(factor) {
            factors.push(factor.clone());
        }
    }
    for run in runs {
        let manifest = &run.manifest;
        let config = serde_json::to_value(&manifest.config).unwrap_or_default();
        let level = |factor: &String| {
            let known = manifest.factors.iter().find(|(name, _)| name == factor).map(|(_, level)| level.clone());
            let value = config.pointer(&format!("/{}", factor.replace('.', "/")));
            let in_config = || value.map(|value| value.as_str().map_or_else(|| value.to_string(), str::to_owned));
            known.or_else(in_config).unwrap_or_default()
        };
        run.manifest.factors = factors.iter().map(|factor| (factor.clone(), level(factor))).collect();
    }
}
