//! `gradmark compare`

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;

use super::report::{self, settings};
use super::{print, say};
use crate::analysis::{Compared, Levels, Outcome, compare_runs, differing_levels, match_configurations};
use crate::record::{self, RunRecord};
use crate::report::{Environments, Side, SideBySide, comparison_csv, comparison_figure, comparison_table, short_name};
use crate::schema::RunStatus;

#[derive(Debug, Args)]
#[command(after_help = "\
Configurations are matched by the levels of their factors; a single one on each side is compared whatever it is. Runs of the same seed \
are paired, and the 95 % interval comes from drawing pairs. With fewer than two seeds in common, where both sides have several, it comes from \
drawing the runs of each side. One pair has no interval, and of a few seeds it is somewhat too narrow. Gradients, step time and throughput are compared as candidate / baseline (geometric mean), losses, accuracies and decades as \
candidate - baseline (mean). The exit code is 4 if the sides have no configuration in common.")]
pub(super) struct CompareArgs {
    /// The directory of the baseline, such as `results/before/sigmoid_vs_relu`
    baseline: PathBuf,
    /// The directory of the candidate, which is compared with it
    candidate: PathBuf,
    /// Where comparison.csv and the figure go [default: `compared_with_<name of the baseline>` in the directory of the
    /// candidate]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

/// Both sides are the same directory.
#[derive(Debug, thiserror::Error)]
#[error("{}: it is the baseline and the candidate, and results agree with themselves; name two directories", .0.display())]
pub(super) struct SameSide(PathBuf);

/// No configuration is on both sides.
#[derive(Debug, thiserror::Error)]
#[error(
    "{} and {} have no configuration in common ({baseline_has}; {candidate_has}); compare experiments with the same levels of \
     their factors, or with one configuration each",
    baseline.display(),
    candidate.display()
)]
pub(super) struct NothingInCommon {
    baseline: PathBuf,
    candidate: PathBuf,
    baseline_has: String,
    candidate_has: String,
}

pub(super) fn execute(args: &CompareArgs) -> anyhow::Result<ExitCode> {
    let CompareArgs { baseline: baseline_dir, candidate: candidate_dir, out } = args;
    if record::is_same_place(baseline_dir, candidate_dir) {
        return Err(SameSide(candidate_dir.clone()).into());
    }
    let (baseline_runs, candidate_runs) = (report::load(baseline_dir)?, report::load(candidate_dir)?);
    let factors = common_factors(&baseline_runs, &candidate_runs);
    let (baseline, candidate) = (configurations(&baseline_runs, &factors), configurations(&candidate_runs, &factors));
    let levels = |side: &[Configuration<'_>]| side.iter().map(|one| one.levels.clone()).collect::<Vec<_>>();
    let matching = match_configurations(&levels(&baseline), &levels(&candidate));
    if matching.pairs.is_empty() {
        return Err(NothingInCommon {
            baseline: baseline_dir.clone(),
            candidate: candidate_dir.clone(),
            baseline_has: some_of(&baseline, &factors),
            candidate_has: some_of(&candidate, &factors),
        }
        .into());
    }
    let matched: Vec<(&Configuration<'_>, &Configuration<'_>)> =
        matching.pairs.iter().map(|(a, b)| (&baseline[*a], &candidate[*b])).collect();
    let compared: Vec<SideBySide> = matched.iter().map(|(a, b)| side_by_side(a, b)).collect();

    let name = record::directory_name(candidate_dir);
    let baseline_name = record::directory_name(baseline_dir);
    let out = out.clone().unwrap_or_else(|| candidate_dir.join(format!("compared_with_{baseline_name}")));
    let text = comparison_csv(&factors, &name, &compared).context("the comparison cannot be written as CSV")?;
    let csv_file = out.join("comparison.csv");
    record::write_text(&csv_file, &text)?;
    let figure_file = out.join("gradient_ratio_by_layer.svg");
    let paths = [baseline_dir.display().to_string(), candidate_dir.display().to_string()];
    let names = if name == baseline_name { [&*paths[0], &*paths[1]] } else { [&*baseline_name, &*name] };
    let figure = comparison_figure(&factors, names, &compared)
        .map_err(|reason| anyhow::anyhow!("{}: the figure cannot be made: {reason}", figure_file.display()))?;
    match &figure {
        Some(svg) => record::write_text(&figure_file, svg)?,
        // One of an earlier comparison would tell about other runs.
        None => record::remove_text(&figure_file)?,
    }

    warn(&baseline_runs, &candidate_runs);
    print(&format!("baseline  {}", side(baseline_dir, &baseline).describe()))?;
    print(&format!("candidate {}", side(candidate_dir, &candidate).describe()))?;
    for line in changed_settings(&matched, &factors) {
        print(&line)?;
    }
    print(&pairing(&compared, &factors, &name))?;
    print(&comparison_table(&factors, &compared))?;
    let without = |places: &[usize], side: &[Configuration<'_>], of: &str| -> anyhow::Result<()> {
        let names: Vec<String> = places.iter().map(|place| side[*place].name(&factors)).collect();
        if names.is_empty() { Ok(()) } else { print(&format!("only in the {of}: {}", names.join("; "))) }
    };
    without(&matching.baseline_only, &baseline, "baseline")?;
    without(&matching.candidate_only, &candidate, "candidate")?;
    print(&format!("every layer stands in {}", csv_file.display()))?;
    if figure.is_some() {
        print(&format!("the figure is {}", figure_file.display()))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The runs of a side that have the same levels.
struct Configuration<'a> {
    levels: Levels,
    runs: Vec<&'a RunRecord>,
}

impl Configuration<'_> {
    /// `activation=relu depth=8`, without what nothing tells.
    fn name(&self, factors: &[String]) -> String {
        let known = factors.iter().zip(&self.levels).filter_map(|(factor, level)| Some((factor, level.as_ref()?)));
        let named: Vec<String> = known.map(|(factor, level)| format!("{}={level}", short_name(factor))).collect();
        if named.is_empty() { "a configuration without factors".to_owned() } else { named.join(" ") }
    }

    fn diverged(&self) -> usize {
        self.runs.iter().filter(|run| matches!(run.manifest.status, RunStatus::Diverged { .. })).count()
    }

    fn outcomes(&self) -> Vec<Outcome> {
        let outcome = |run: &&RunRecord| {
            let summary = report::summaries(std::slice::from_ref(*run)).pop()?;
            Some(Outcome::new(summary, &run.rows.gradients))
        };
        self.runs.iter().filter_map(outcome).collect()
    }
}

/// The factors of both sides, those of the baseline first.
fn common_factors(baseline: &[RunRecord], candidate: &[RunRecord]) -> Vec<String> {
    let mut factors = report::factors(baseline);
    for factor in report::factors(candidate) {
        if !factors.contains(&factor) {
            factors.push(factor);
        }
    }
    factors
}

/// The configurations of a side in the order of their first runs. A factor that only the other side has gets its level
/// from the config of the runs, if it is a key of it.
fn configurations<'a>(runs: &'a [RunRecord], factors: &[String]) -> Vec<Configuration<'a>> {
    let mut found: Vec<Configuration<'a>> = Vec::new();
    for run in runs {
        let settings = settings(&run.manifest);
        let level = |factor: &String| {
            let own = run.manifest.factors.iter().find(|(name, _)| name == factor).map(|(_, level)| level.clone());
            own.or_else(|| settings.get(factor).cloned())
        };
        let levels: Levels = factors.iter().map(level).collect();
        match found.iter_mut().find(|known| known.levels == levels) {
            Some(known) => known.runs.push(run),
            None => found.push(Configuration { levels, runs: vec![run] }),
        }
    }
    found
}

fn side(dir: &Path, configurations: &[Configuration<'_>]) -> Side {
    Side {
        name: dir.display().to_string(),
        configurations: configurations.len(),
        runs: configurations.iter().map(|one| one.runs.len()).sum(),
        diverged: configurations.iter().map(Configuration::diverged).sum(),
    }
}

fn side_by_side(baseline: &Configuration<'_>, candidate: &Configuration<'_>) -> SideBySide {
    SideBySide {
        levels: differing_levels(&baseline.levels, &candidate.levels),
        baseline_runs: (baseline.runs.len(), baseline.diverged()),
        candidate_runs: (candidate.runs.len(), candidate.diverged()),
        compared: compare_runs(&baseline.outcomes(), &candidate.outcomes()),
    }
}

/// The first configurations of a side, for an error.
fn some_of(configurations: &[Configuration<'_>], factors: &[String]) -> String {
    let names: Vec<String> = configurations.iter().take(3).map(|one| one.name(factors)).collect();
    let more = if configurations.len() > 3 { format!(" and {} more", configurations.len() - 3) } else { String::new() };
    names.join(", ") + &more
}

/// Whether runs were paired, in words.
fn pairing(compared: &[SideBySide], factors: &[String], title: &str) -> String {
    let named = |is_paired: Option<bool>| -> Vec<String> {
        let is_so = |one: &&SideBySide| !one.compared.is_empty() && one.is_paired() == is_paired;
        compared.iter().filter(is_so).map(|one| one.name(factors, title)).collect()
    };
    let (unpaired, mixed) = (named(Some(false)), named(None));
    let count = compared.len();
    let both = format!("{count} configuration{} on both sides", if count == 1 { "" } else { "s" });
    if unpaired.len() == count {
        return format!("{both}, unpaired: too few seeds are on both sides");
    }
    let has_interval = |one: &Compared| one.comparison.change.is_some_and(|change| change.interval.is_some());
    let why =
        if compared.iter().flat_map(|one| &one.compared).any(has_interval) { "" } else { "; one pair has no interval" };
    let but = |what: &str, names: &[String]| {
        if names.is_empty() { String::new() } else { format!("; {what}: {}", names.join("; ")) }
    };
    format!(
        "{both}, runs of the same seed paired{why}{}{}",
        but("unpaired, because too few seeds are on both sides", &unpaired),
        but("paired in some quantities only, as the last column says", &mixed),
    )
}

/// The keys of the configs in which the sides differ, with their values, but for factors that are compared level by
/// level.
fn changed_settings(matched: &[(&Configuration<'_>, &Configuration<'_>)], factors: &[String]) -> Vec<String> {
    let mut changed: BTreeMap<String, BTreeSet<(String, String)>> = BTreeMap::new();
    for (baseline, candidate) in matched {
        let (a, b) = (settings(&baseline.runs[0].manifest), settings(&candidate.runs[0].manifest));
        let text = |settings: &BTreeMap<String, String>, key: &String| match settings.get(key).map(String::as_str) {
            None | Some("null") => "not set".to_owned(),
            Some(text) => text.to_owned(),
        };
        for key in a.keys().chain(b.keys()).collect::<BTreeSet<_>>() {
            let (from, to) = (text(&a, key), text(&b, key));
            if from != to {
                changed.entry(key.clone()).or_default().insert((from, to));
            }
        }
    }
    let line = |(key, values): (String, BTreeSet<(String, String)>)| {
        let shown: Vec<String> = values.iter().take(4).map(|(from, to)| format!("{from} -> {to}")).collect();
        let more = if values.len() > 4 { format!(" and {} more", values.len() - 4) } else { String::new() };
        let factor = if factors.contains(&key) { " (a factor)" } else { "" };
        format!("differs: {key}{factor}: {}{more}", shown.join(", "))
    };
    changed.into_iter().map(line).collect()
}

/// Says what makes the speeds of the sides incomparable.
fn warn(baseline: &[RunRecord], candidate: &[RunRecord]) {
    let mut environments = Environments::default();
    let unknown = |text: Option<&String>| text.cloned().unwrap_or_else(|| "unknown".to_owned());
    let mut add = |what: &'static str, of: &dyn Fn(&RunRecord) -> String| {
        environments.add(what, baseline.iter().map(of).collect(), candidate.iter().map(of).collect());
    };
    add("adapter", &|run| {
        let adapter = &run.manifest.environment.adapter;
        let name = format!("{} {}", adapter.label(), adapter.driver);
        name.trim_end().to_owned()
    });
    add("CPU", &|run| unknown(run.manifest.environment.cpu.as_ref()));
    add("cores", &|run| unknown(run.manifest.environment.cores.map(|cores| cores.to_string()).as_ref()));
    add("RAYON_NUM_THREADS", &|run| {
        run.manifest.environment.threads_requested.clone().unwrap_or_else(|| "not set".to_owned())
    });
    add("Burn", &|run| unknown(run.manifest.environment.burn_version.as_ref()));
    add("Cargo profile", &|run| unknown(run.manifest.environment.profile.as_ref()));
    for difference in environments.differences() {
        say(&format!("warning: {difference}: step times and throughput are not comparable"));
    }
    let is_software = |runs: &[RunRecord]| runs.iter().any(|run| run.manifest.environment.software_adapter);
    for (side, runs) in [("baseline", baseline), ("candidate", candidate)] {
        if is_software(runs) {
            say(&format!("warning: the {side} ran on a software adapter: its times are no measure of a GPU"));
        }
    }
}
