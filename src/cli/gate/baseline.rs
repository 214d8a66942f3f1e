//! `gradmark gate --baseline`

use std::path::Path;
use std::process::{Command, ExitCode};

use super::super::say;
use super::super::speed::{GATE_SESSIONS, Measured};
use super::{
    GateArgs, Incomparable, check_configurations, check_environment, check_is_of_criterion, conclude,
    criterion_environment, criterion_sessions, described, row_of,
};
use crate::gate::{Trial, attempt_of_sessions, decide_all, median_step_ms, noise_floor_of};
use crate::record::{Baseline, BaselineConfiguration, BaselineSource, BaselineStore, Environment, Kept, Session};
use crate::schema::{Against, Verdict, VerdictRow};

pub(super) fn execute(name: &str, args: &GateArgs) -> anyhow::Result<ExitCode> {
    let store = BaselineStore::open(&args.speed.baselines, name)?;
    let pinned = store.read(Kept::Pinned)?;
    let rolling = if store.has(Kept::Rolling) { store.read(Kept::Rolling)? } else { pinned.clone() };
    let subject = Subject::of(args, &pinned, &store)?;
    let differences = check_environment(&pinned, subject.environment(), &args.allow, &store)?;
    let mut trials = Trials::new(pinned, rolling, subject.environment(), &store);
    for difference in differences.iter().filter(|_| !args.speed.quiet) {
        say(&format!("{}: {}", store.dir().display(), described(difference)));
    }

    let mut measured: Vec<Vec<Session>> = vec![Vec::new(); trials.pinned.configurations.len()];
    let mut open = trials.all();
    decide_all(&mut open, args.threshold(), |attempt, open| {
        let mut places: Vec<usize> = open.iter().map(|trial| trial.place).collect();
        places.dedup();
        if attempt > 0 && !args.speed.quiet {
            let plural = if places.len() == 1 { "" } else { "s" };
            say(&format!("{} configuration{plural} changed: measuring again", places.len()));
        }
        let Some(sessions) = subject.measure(attempt, args, &trials.pinned, &places, &store)? else {
            return Ok(false);
        };
        for (place, sessions) in places.iter().zip(sessions) {
            for trial in open.iter_mut().filter(|trial| trial.place == *place) {
                trial.attempts.push(trials.attempt(trial, &sessions)?);
            }
            measured[*place].extend(sessions);
        }
        Ok::<bool, anyhow::Error>(true)
    })?;
    let rows = trials.rows(&open, &measured, args.threshold(), subject.environment());
    store.append_history(&rows)?;
    trials.keep(&rows, measured, args.update_on_improvement)?;
    let code = conclude(args, &rows)?;
    let improved = rows.iter().any(|row| row.verdict == Verdict::Improvement && row.against == Against::Pinned);
    if improved && !args.speed.quiet {
        say(if args.update_on_improvement {
            "what became faster is the baseline now"
        } else {
            "something became faster: --update-on-improvement makes it the baseline"
        });
    }
    Ok(code)
}

/// What is compared with the baseline.
enum Subject<'a> {
    Config(Measured<'a>),
    Criterion { dir: &'a Path, environment: Environment },
}

impl<'a> Subject<'a> {
    /// Finds out what is to be measured, and whether it is what the baseline was measured on. What is not named is as it was then.
    fn of(args: &'a GateArgs, pinned: &Baseline, store: &BaselineStore) -> anyhow::Result<Self> {
        if let Some(dir) = &args.criterion {
            check_is_of_criterion(pinned, store)?;
            return Ok(Self::Criterion { dir, environment: criterion_environment(&args.speed.device)? });
        }
        let (path, overrides) = match &pinned.source {
            BaselineSource::Config { path, overrides } => (path, overrides),
            BaselineSource::Criterion { path } => {
                let problem = format!("is a baseline of criterion's results in {}", path.display());
                let mend = format!("pass --criterion {}, or name another baseline", path.display());
                return Err(Incomparable::new(store.dir(), problem, mend).into());
            }
        };
        let is_as_saved = args.config.is_none() && args.speed.overrides.is_empty();
        let config = args.config.as_deref().unwrap_or(path);
        let overrides = if is_as_saved { overrides } else { &args.speed.overrides };
        let adapter = &pinned.environment.adapter;
        let device = match args.speed.device.as_str() {
            "auto" => format!("{}:{}", adapter.backend.name(), adapter.index),
            named => named.to_owned(),
        };
        let measured = Measured::new(config, overrides, &device, &args.speed)?;
        check_configurations(pinned, &measured.configurations, store)?;
        Ok(Self::Config(measured))
    }

    fn environment(&self) -> &Environment {
        match self {
            Self::Config(measured) => &measured.environment,
            Self::Criterion { environment, .. } => environment,
        }
    }

    /// The sessions of each configuration that `places` names; nothing if the attempt cannot be made.
    fn measure(
        &self,
        attempt: usize,
        args: &GateArgs,
        pinned: &Baseline,
        places: &[usize],
        store: &BaselineStore,
    ) -> anyhow::Result<Option<Vec<Vec<Session>>>> {
        let names: Vec<&str> = places.iter().map(|place| pinned.configurations[*place].name.as_str()).collect();
        match self {
            Self::Config(measured) => {
                let all: Vec<usize> = (names.iter())
                    .filter_map(|name| measured.configurations.iter().position(|one| one.name == *name))
                    .collect();
                measured.sessions(args.sessions, &all, &format!("attempt {}", attempt + 1)).map(Some)
            }
            Self::Criterion { dir, .. } => {
                match (&args.bench, attempt) {
                    (_, 0) => {}
                    (None, _) => return Ok(None),
                    (Some(command), _) => run_benches(command)?,
                }
                let benchmarks = criterion_sessions(dir)?;
                let known = |(id, _): &&(String, Session)| pinned.configurations.iter().any(|one| one.name == *id);
                if let Some((id, _)) = benchmarks.iter().find(|benchmark| !known(benchmark)) {
                    let problem = format!("has no benchmark `{id}`, and {} has one", dir.display());
                    return Err(Incomparable::new(store.dir(), problem, "save the baseline anew").into());
                }
                let session = |name: &&str| {
                    let found = benchmarks.iter().find(|(id, _)| id == name);
                    found.map(|(_, session)| vec![session.clone()]).ok_or_else(|| {
                        let problem = format!("has no results of `{name}`, and the baseline has");
                        Incomparable::new(dir, problem, "run the benches that the baseline was saved from")
                    })
                };
                Ok(Some(names.iter().map(session).collect::<Result<_, _>>()?))
            }
        }
    }
}

fn run_benches(command: &str) -> anyhow::Result<()> {
    let (shell, flag) = if cfg!(windows) { ("cmd", "/C") } else { ("sh", "-c") };
    // What the benches print is nothing of the gate's.
    let status = Command::new(shell).args([flag, command]).stdout(std::io::stderr()).status()?;
    anyhow::ensure!(status.success(), "--bench \"{command}\": {status}");
    Ok(())
}

/// Every configuration, beside the pinned and the rolling baseline.
struct Trials<'a> {
    pinned: Baseline,
    rolling: Baseline,
    store: &'a BaselineStore,
    is_corrected: bool,
}

impl<'a> Trials<'a> {
    fn new(pinned: Baseline, rolling: Baseline, now: &Environment, store: &'a BaselineStore) -> Self {
        // Another compiler may have made the fixed piece of work another one.
        let is_corrected = pinned.environment.rustc == now.rustc && pinned.environment.profile == now.profile;
        Self { pinned, rolling, store, is_corrected }
    }

    fn all(&self) -> Vec<Trial> {
        let both = |place: usize| {
            let is_rolling = self.rolling_of(place) != Some(&self.pinned.configurations[place]);
            let rolling = (is_rolling && self.rolling_of(place).is_some()).then(|| Trial::new(place, Against::Rolling));
            std::iter::once(Trial::new(place, Against::Pinned)).chain(rolling)
        };
        (0..self.pinned.configurations.len()).flat_map(both).collect()
    }

    fn rolling_of(&self, place: usize) -> Option<&BaselineConfiguration> {
        let pinned = &self.pinned.configurations[place];
        self.rolling.configurations.iter().find(|one| one.name == pinned.name)
    }

    fn baseline_of(&self, trial: &Trial) -> BaselineConfiguration {
        let pinned = &self.pinned.configurations[trial.place];
        match (trial.against, self.rolling_of(trial.place)) {
            // A rolling baseline has too few sessions to know the machine's noise.
            (Against::Rolling, Some(rolling)) => {
                BaselineConfiguration { noise_floor: pinned.noise_floor, ..rolling.clone() }
            }
            _ => pinned.clone(),
        }
    }

    fn attempt(&self, trial: &Trial, sessions: &[Session]) -> Result<crate::analysis::Attempt, Incomparable> {
        let baseline = self.baseline_of(trial);
        attempt_of_sessions(&baseline, sessions, self.is_corrected).map_err(|too_few| {
            let problem = format!("`{}`: {too_few}", baseline.name);
            let mend = format!("add some: gradmark baseline save {} --append", self.pinned.name);
            Incomparable::new(self.store.dir(), problem, mend)
        })
    }

    fn rows(
        &self,
        trials: &[Trial],
        measured: &[Vec<Session>],
        threshold: f64,
        environment: &Environment,
    ) -> Vec<VerdictRow> {
        let row = |trial: &Trial| {
            let baseline = self.baseline_of(trial);
            let step_ms = [&baseline.sessions, &measured[trial.place]].map(|sessions| median_step_ms(sessions));
            row_of(environment, &baseline.name, trial, threshold, step_ms.map(|ms| ms.unwrap_or(f64::NAN)))
        };
        trials.iter().map(row).collect()
    }

    /// What passed is the rolling baseline from now on; what became faster the pinned one, if that is asked for.
    fn keep(
        &mut self,
        rows: &[VerdictRow],
        measured: Vec<Vec<Session>>,
        updates_on_improvement: bool,
    ) -> anyhow::Result<()> {
        let saved_at = rows.first().map(|row| row.measured_at.clone()).unwrap_or_default();
        let is_of_criterion = matches!(self.pinned.source, BaselineSource::Criterion { .. });
        let mut is_updated = false;
        for (pinned, sessions) in self.pinned.configurations.iter_mut().zip(measured) {
            let of_it = |row: &&VerdictRow| row.configuration == pinned.name;
            let has_passed = |row: &VerdictRow| matches!(row.verdict, Verdict::Pass | Verdict::Improvement);
            let is_faster = |row: &VerdictRow| row.verdict == Verdict::Improvement && row.against == Against::Pinned;
            let faster = rows.iter().filter(of_it).any(is_faster);
            if !rows.iter().filter(of_it).all(has_passed) {
                continue;
            }
            if let Some(rolling) = self.rolling.configurations.iter_mut().find(|one| one.name == pinned.name) {
                // The sessions of criterion come one by one: the last few are what passed last.
                let kept = if is_of_criterion { GATE_SESSIONS.saturating_sub(sessions.len()) } else { 0 };
                let surplus = rolling.sessions.len().saturating_sub(kept);
                rolling.sessions.drain(..surplus);
                rolling.sessions.extend(sessions.clone());
            }
            if faster && updates_on_improvement {
                let block = if is_of_criterion { 1 } else { GATE_SESSIONS };
                let floor = noise_floor_of(&sessions, block);
                pinned.noise_floor = pinned.noise_floor.into_iter().chain(floor).reduce(f64::max);
                pinned.sessions = sessions;
                is_updated = true;
            }
        }
        self.rolling.saved_at.clone_from(&saved_at);
        self.store.write(Kept::Rolling, &self.rolling)?;
        if is_updated {
            self.pinned.saved_at = saved_at;
            self.store.write(Kept::Pinned, &self.pinned)?;
        }
        Ok(())
    }
}
