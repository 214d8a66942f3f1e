//! `gradmark baseline`

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::SystemTime;

use anyhow::Context;
use clap::{Args, Subcommand};

use super::gate::{
    Incomparable, check_configurations, check_environment, check_is_of_criterion, criterion_environment,
    criterion_sessions, described,
};
use super::speed::{BASELINE_SESSIONS, GATE_SESSIONS, Measured, SpeedArgs, sessions};
use super::{print, say};
use crate::gate::{Configuration, QuietLimit, noise_floor_of, usable_sessions};
use crate::record::{
    BASELINE_VERSION, Baseline, BaselineConfiguration, BaselineSource, BaselineStore, Environment, Kept, Session,
    StoreError, baseline_names, read_pinned,
};
use crate::report;

#[derive(Debug, Args)]
pub(super) struct BaselineArgs {
    #[command(subcommand)]
    command: BaselineCommand,
}

#[derive(Debug, Subcommand)]
enum BaselineCommand {
    /// Measure the speed of a config's networks, or take criterion's results, and keep them under a name
    Save(SaveArgs),
    /// List the baselines
    List(ListArgs),
}

#[derive(Debug, Args)]
struct SaveArgs {
    /// The name of the baseline
    name: String,
    /// The config, a TOML file, whose configurations are measured with their first seed
    #[arg(required_unless_present = "criterion")]
    config: Option<PathBuf>,
    /// Take criterion's results from this directory, such as target/criterion, instead of measuring a config
    #[arg(long, value_name = "DIR", conflicts_with_all = ["config", "overrides", "sessions", "samples", "sample_ms"])]
    criterion: Option<PathBuf>,
    /// Sessions, each in a process of its own, at least 3
    #[arg(long, default_value_t = BASELINE_SESSIONS, value_name = "N", value_parser = sessions)]
    sessions: usize,
    /// Add sessions to the baseline of this name, so that it knows more of the machine's noise
    #[arg(long, conflicts_with = "force")]
    append: bool,
    /// Replace the baseline of this name; its history is kept
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    speed: SpeedArgs,
}

#[derive(Debug, Args)]
struct ListArgs {
    /// The directory of all baselines
    #[arg(long, default_value = "results/baselines", value_name = "DIR")]
    baselines: PathBuf,
}

pub(super) fn execute(args: &BaselineArgs) -> anyhow::Result<ExitCode> {
    match &args.command {
        BaselineCommand::Save(args) => save(args),
        BaselineCommand::List(args) => list(&args.baselines),
    }
}

fn save(args: &SaveArgs) -> anyhow::Result<ExitCode> {
    let origin = Origin::of(args)?;
    let baselines = &args.speed.baselines;
    let store = if args.append {
        BaselineStore::open(baselines, &args.name)?
    } else {
        BaselineStore::create(baselines, &args.name)?
    };
    let mut baseline = if args.append {
        let kept = store.read(Kept::Pinned)?;
        origin.check(&kept, &store)?;
        kept
    } else if store.has(Kept::Pinned) && !args.force {
        return Err(StoreError::Unusable {
            path: store.dir().to_owned(),
            problem: "there is a baseline of this name already".to_owned(),
            mend: "add sessions to it with --append, replace it with --force, or choose another name".to_owned(),
        }
        .into());
    } else {
        origin.baseline(args)
    };
    let has_moved =
        args.append && store.has(Kept::Rolling) && store.read(Kept::Rolling)?.configurations != baseline.configurations;
    let measured = origin.measure(args.sessions, &baseline)?;
    add(&mut baseline, measured, origin.block(), &store)?;
    baseline.saved_at = humantime::format_rfc3339_millis(SystemTime::now()).to_string();
    // What has passed since does not change by sessions that are added to what was saved.
    if !has_moved {
        store.write(Kept::Rolling, &baseline)?;
    }
    store.write(Kept::Pinned, &baseline)?;
    print(&report::baseline_table(&baseline))?;
    print(&format!("saved in {}", store.dir().display()))?;
    if let Some(lacking) = sessions_lacking(&baseline) {
        let place = store.dir().display();
        let mend = match origin {
            Origin::Config { .. } => "sessions that nothing disturbs: let nothing else run, and save with --append",
            Origin::Criterion { .. } => "sessions: run the benches again and save with --append each time",
        };
        say(&format!("{place}: a gate needs {lacking} more {mend}"));
    }
    Ok(ExitCode::SUCCESS)
}

/// What is saved.
enum Origin<'a> {
    Config { path: &'a Path, measured: Measured<'a> },
    Criterion { dir: &'a Path, environment: Environment, benchmarks: Vec<(String, Session)> },
}

impl<'a> Origin<'a> {
    /// Reads the config or criterion's results. Nothing is measured.
    fn of(args: &'a SaveArgs) -> anyhow::Result<Self> {
        if let Some(dir) = &args.criterion {
            let environment = criterion_environment(&args.speed.device)?;
            return Ok(Self::Criterion { dir, environment, benchmarks: criterion_sessions(dir)? });
        }
        let path = args.config.as_deref().context("name the config, or --criterion")?;
        Ok(Self::Config {
            path,
            measured: Measured::new(path, &args.speed.overrides, &args.speed.device, &args.speed)?,
        })
    }

    /// A baseline without configurations.
    fn baseline(&self, args: &SaveArgs) -> Baseline {
        let source = match self {
            Self::Config { path, .. } => {
                BaselineSource::Config { path: path.to_path_buf(), overrides: args.speed.overrides.clone() }
            }
            Self::Criterion { dir, .. } => BaselineSource::Criterion { path: dir.to_path_buf() },
        };
        Baseline {
            baseline_version: BASELINE_VERSION,
            name: args.name.clone(),
            saved_at: String::new(),
            source,
            environment: self.environment().clone(),
            configurations: Vec::new(),
        }
    }

    fn environment(&self) -> &Environment {
        match self {
            Self::Config { measured, .. } => &measured.environment,
            Self::Criterion { environment, .. } => environment,
        }
    }

    /// Whether sessions can be added to what is there: they must be of the same machine, and of the same build.
    fn check(&self, kept: &Baseline, store: &BaselineStore) -> Result<(), Incomparable> {
        let differences = check_environment(kept, self.environment(), &[], store)?;
        if !differences.is_empty() {
            let told: Vec<String> = differences.iter().map(described).collect();
            let mend = "add sessions of the build that it was saved with, or replace it with --force";
            return Err(Incomparable::new(store.dir(), format!("is of another build: {}", told.join("; ")), mend));
        }
        match self {
            Self::Config { measured, .. } => check_configurations(kept, &measured.configurations, store),
            Self::Criterion { benchmarks, .. } => {
                check_is_of_criterion(kept, store)?;
                let is_known = |(id, session): &&(String, Session)| {
                    kept.configurations.iter().any(|one| one.name == *id && one.sessions.contains(session))
                };
                match benchmarks.iter().find(is_known) {
                    Some((id, _)) => {
                        let problem = format!("has these results of `{id}` already");
                        Err(Incomparable::new(
                            store.dir(),
                            problem,
                            "run the benches again, and then add what they measure",
                        ))
                    }
                    None => Ok(()),
                }
            }
        }
    }

    /// Measures so many sessions beside those that are there already.
    fn measure(&self, count: usize, kept: &Baseline) -> anyhow::Result<Vec<BaselineConfiguration>> {
        let compiler = self.environment().compiler();
        match self {
            Self::Config { measured, .. } => {
                let places: Vec<usize> = (0..measured.configurations.len()).collect();
                let limit = |one: &Configuration| {
                    kept.configurations
                        .iter()
                        .find(|kept| kept.name == one.name)
                        .and_then(|kept| QuietLimit::of(&kept.sessions))
                };
                let limits: Vec<Option<QuietLimit>> = measured.configurations.iter().map(limit).collect();
                let sessions = measured.sessions(count, &places, &limits, "session")?;
                let all = measured.configurations.iter().zip(sessions);
                let configuration = |(one, sessions): (&Configuration, Vec<Session>)| {
                    BaselineConfiguration::new(one.name.clone(), Some(one.config.clone()), compiler.clone(), sessions)
                };
                Ok(all.map(configuration).collect())
            }
            Self::Criterion { benchmarks, .. } => {
                let all = benchmarks.iter();
                Ok(all
                    .map(|(id, one)| BaselineConfiguration::new(id.clone(), None, compiler.clone(), vec![one.clone()]))
                    .collect())
            }
        }
    }

    /// The sessions that a gate has: of criterion there is one a run of the benches.
    fn block(&self) -> usize {
        match self {
            Self::Config { .. } => GATE_SESSIONS,
            Self::Criterion { .. } => 1,
        }
    }
}

/// Adds the sessions of each configuration to its own, and tells the noise floor anew.
fn add(
    baseline: &mut Baseline,
    new: Vec<BaselineConfiguration>,
    block: usize,
    store: &BaselineStore,
) -> Result<(), Incomparable> {
    if baseline.configurations.is_empty() {
        baseline.configurations = new;
    } else {
        for one in new {
            let same = baseline.configurations.iter_mut().find(|kept| kept.name == one.name).ok_or_else(|| {
                let problem = format!("has no `{}`, which was measured now", one.name);
                Incomparable::new(store.dir(), problem, "replace the baseline with --force, or choose another name")
            })?;
            same.sessions.extend(one.sessions);
        }
    }
    for configuration in &mut baseline.configurations {
        let limit = QuietLimit::of(&configuration.sessions);
        configuration.noise_floor = noise_floor_of(&configuration.sessions, block, limit, true);
    }
    Ok(())
}

/// The sessions that a gate lacks.
fn sessions_lacking(baseline: &Baseline) -> Option<usize> {
    let usable = |configuration: &BaselineConfiguration| {
        usable_sessions(&configuration.sessions, QuietLimit::of(&configuration.sessions))
    };
    let least = baseline.configurations.iter().map(usable).min()?;
    crate::analysis::MINIMUM_SESSIONS.checked_sub(least).filter(|needed| *needed > 0)
}

fn list(baselines: &Path) -> anyhow::Result<ExitCode> {
    let names = baseline_names(baselines)?;
    if names.is_empty() {
        say(&format!(
            "{}: there is no baseline in it; save one: gradmark baseline save NAME CONFIG",
            baselines.display()
        ));
    }
    for name in names {
        // One that is damaged does not hide the others.
        let baseline = match read_pinned(baselines, &name) {
            Ok(baseline) => baseline,
            Err(error) => {
                say(&format!("{error}"));
                continue;
            }
        };
        print(&format!("{name}, saved {}, on {}", baseline.saved_at, baseline.environment.adapter.label()))?;
        print(&report::baseline_table(&baseline))?;
    }
    Ok(ExitCode::SUCCESS)
}
