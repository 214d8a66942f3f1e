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
    /// The directory of an experiment, such as results/sigmoid_vs_relu
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
    write_report(&args.dir, &runs)?;
    Ok(ExitCode::SUCCESS)
}

/// Writes `summary.csv` and the figures of the runs, in their order, and prints the table.
pub(super) fn write_report(dir: &Path, runs: &[RunRecord]) -> anyhow::Result<()> {
    let factors = factors(runs);
    let summaries: Vec<RunSummary> = runs
        .iter()
        .map(|run| {
            let level = |factor: &String| {
                let found = run.manifest.factors.iter().find(|(name, _)| name == factor);
                found.map_or_else(String::new, |(_, level)| level.clone())
            };
            let levels = factors.iter().map(level).collect();
            let manifest = &run.manifest;
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

/// The factors of all runs, in the order of the first run that has them.
fn factors(runs: &[RunRecord]) -> Vec<String> {
    let mut factors: Vec<String> = Vec::new();
    for (factor, _) in runs.iter().flat_map(|run| &run.manifest.factors) {
        if !factors.contains(factor) {
            factors.push(factor.clone());
        }
    }
    factors
}
