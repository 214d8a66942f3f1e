//! `gradmark gate --baseline`

use std::path::Path;
use std::process::{Command, ExitCode};
use std::thread;
use std::time::Duration;

use super::super::say;
use super::super::speed::{GATE_SESSIONS, Interrupted, Measured};
use super::{
    GateArgs, Incomparable, announce, check_configurations, check_environment, check_is_of_criterion, conclude,
    criterion_environment, criterion_sessions, described, row_of,
};
use crate::analysis::{Attempt, MINIMUM_SESSIONS};
use crate::device::{self, DeviceError};
use crate::gate::{Configuration, QuietLimit, Trial, attempt_of_sessions, decide_all, median_step_ms, noise_floor_of};
use crate::record::{Baseline, BaselineConfiguration, BaselineSource, BaselineStore, Environment, Kept, Session};
use crate::schema::{Against, Verdict, VerdictRow};

pub(super) fn execute(name: &str, args: &GateArgs) -> anyhow::Result<ExitCode> {
    let store = BaselineStore::open(&args.speed.baselines, name)?;
    let pinned = store.read(Kept::Pinned)?;
    let rolling = if store.has(Kept::Rolling) { store.read(Kept::Rolling)? } else { pinned.clone() };
    store.check_history()?;
    let subject = Subject::of(args, &pinned, &store)?;
    for difference in check_environment(&pinned, subject.environment(), &args.allow, &store)? {
        if !args.speed.quiet {
            say(&format!("{}: {}", store.dir().display(), described(&difference)));
        }
    }
    // Of criterion a gate has one session.
    let block = args.criterion.as_ref().map_or(args.sessions, |_| 1);
    let trials = Trials { pinned, rolling, store: &store, now: subject.environment(), block };
    let mut measured: Vec<Vec<Session>> = vec![Vec::new(); trials.pinned.configurations.len()];
    let mut all = trials.all();
    decide_all(&mut all, args.threshold(), |attempt, open| {
        let mut places: Vec<usize> = open.iter().map(|trial| trial.place).collect();
        places.dedup();
        let pause = subject.pause(attempt, args);
        announce(args, attempt, places.len(), pause.as_secs_f64());
        subject.wait(pause)?;
        let Some(sessions) = subject.measure(attempt, args, &trials, &places)? else {
            return Ok(false);
        };
        for (place, sessions) in places.iter().zip(sessions) {
            trials.check_is_new(*place, &sessions, &measured[*place])?;
            for trial in open.iter_mut().filter(|trial| trial.place == *place) {
                trial.attempts.push(trials.attempt(trial, &sessions)?);
            }
            measured[*place].extend(sessions);
        }
        Ok::<bool, anyhow::Error>(true)
    })?;
    let rows = trials.rows(&all, &measured, args.threshold());
    let code = conclude(args, &rows)?;
    store.append_history(&rows)?;
    if !args.allow.is_empty() {
        say("what was allowed to differ is in the history alone: the rolling baseline stays as it was");
        return Ok(code);
    }
    let updated = trials.keep(&rows, &measured, args.update_on_improvement)?;
    for name in &updated {
        say(&format!("`{name}` became faster: that is its baseline now"));
    }
    let improved = rows.iter().any(|row| row.verdict == Verdict::Improvement && row.against == Against::Pinned);
    if improved && updated.is_empty() && !args.speed.quiet {
        say("something became faster: --update-on-improvement makes it the baseline, where nothing became slower");
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
        let device = if args.speed.device == "auto" { device_of(pinned, store)? } else { args.speed.device.clone() };
        let measured = Measured::new(config, overrides, &device, &args.speed)?;
        check_configurations(pinned, &measured.configurations, store)?;
        Ok(Self::Config(measured))
    }

    /// The time before an attempt: benches take long enough themselves.
    fn pause(&self, attempt: usize, args: &GateArgs) -> Duration {
        match self {
            Self::Config(_) if attempt > 0 => Duration::from_secs_f64(args.pause),
            _ => Duration::ZERO,
        }
    }

    /// Waits so long, or for Ctrl-C.
    fn wait(&self, mut left: Duration) -> Result<(), Interrupted> {
        while !left.is_zero() {
            if let Self::Config(measured) = self {
                measured.check_stop()?;
            }
            let now = left.min(Duration::from_millis(100));
            thread::sleep(now);
            left -= now;
        }
        Ok(())
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
        trials: &Trials<'_>,
        places: &[usize],
    ) -> anyhow::Result<Option<Vec<Vec<Session>>>> {
        let configurations = &trials.pinned.configurations;
        let names: Vec<&str> = places.iter().map(|place| configurations[*place].name.as_str()).collect();
        match self {
            Self::Config(measured) => {
                let place = |name: &&str| measured.configurations.iter().position(|one| one.name == *name);
                let all: Vec<usize> = names.iter().filter_map(place).collect();
                let limits: Vec<Option<QuietLimit>> = places.iter().map(|place| trials.limit_now(*place)).collect();
                measured.sessions(args.sessions, &all, &limits, &format!("attempt {}", attempt + 1)).map(Some)
            }
            Self::Criterion { dir, .. } => {
                match (&args.bench, attempt) {
                    (_, 0) => {}
                    (None, _) => return Ok(None),
                    (Some(command), _) => run_benches(command)?,
                }
                let benchmarks = criterion_sessions(dir)?;
                let is_unknown = |id: &String| !configurations.iter().any(|one| one.name == *id);
                if let Some((id, _)) = benchmarks.iter().find(|(id, _)| is_unknown(id)) {
                    let problem = format!("has no benchmark `{id}`, and {} has one", dir.display());
                    return Err(Incomparable::new(trials.store.dir(), problem, "save the baseline anew").into());
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

/// The device that a baseline was measured on, as in `--device`.
fn device_of(pinned: &Baseline, store: &BaselineStore) -> Result<String, Incomparable> {
    let adapter = &pinned.environment.adapter;
    let request = format!("{}:{}", adapter.backend.name(), adapter.index);
    match request.parse().and_then(device::find) {
        Ok(_) => Ok(request),
        Err(error) => {
            let error: DeviceError = error;
            let problem = format!("was measured on {} ({request}), and that is not here: {error}", adapter.label());
            Err(Incomparable::new(
                store.dir(),
                problem,
                "gate on the machine and with the features that it was saved with",
            ))
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
    now: &'a Environment,
    /// The sessions of an attempt.
    block: usize,
}

impl Trials<'_> {
    fn all(&self) -> Vec<Trial> {
        let both = |place: usize| {
            let pinned = &self.pinned.configurations[place];
            // Criterion's sessions come one by one: the first few are no baseline yet.
            let counts = |rolling: &BaselineConfiguration| {
                rolling.sessions != pinned.sessions && rolling.sessions.len() >= MINIMUM_SESSIONS
            };
            let rolling = self.rolling_of(place).is_some_and(counts).then(|| Trial::new(place, Against::Rolling));
            std::iter::once(Trial::new(place, Against::Pinned)).chain(rolling)
        };
        (0..self.pinned.configurations.len()).flat_map(both).collect()
    }

    /// The rolling baseline of a configuration, if it is one of the same keys.
    fn rolling_of(&self, place: usize) -> Option<&BaselineConfiguration> {
        let pinned = &self.pinned.configurations[place];
        self.rolling.configurations.iter().find(|rolling| is_same(rolling, pinned))
    }

    fn baseline_of(&self, trial: &Trial) -> BaselineConfiguration {
        let pinned = &self.pinned.configurations[trial.place];
        let chosen = match trial.against {
            Against::Rolling => self.rolling_of(trial.place).unwrap_or(pinned),
            _ => pinned,
        };
        // A rolling baseline has too few sessions to know the machine's noise. An updated one knows more than its sessions tell.
        let limit = QuietLimit::of(&pinned.sessions);
        let replayed = noise_floor_of(&pinned.sessions, self.block, limit, self.is_same_work(chosen));
        let noise_floor = [pinned.noise_floor, replayed].into_iter().flatten().reduce(f64::max);
        BaselineConfiguration { noise_floor, ..chosen.clone() }
    }

    /// Whether the fixed pieces of work are the same: another compiler may have made others of them.
    fn is_same_work(&self, baseline: &BaselineConfiguration) -> bool {
        baseline.compiler == self.now.compiler()
    }

    /// What the fixed pieces of work may take now, as far as the pinned baseline tells.
    fn limit_now(&self, place: usize) -> Option<QuietLimit> {
        let pinned = &self.pinned.configurations[place];
        if self.is_same_work(pinned) { QuietLimit::of(&pinned.sessions) } else { None }
    }

    /// What the fixed pieces of work may take in the sessions of a baseline: as far as the pinned one tells, where they are the same.
    fn limit_of(&self, trial: &Trial, baseline: &BaselineConfiguration) -> Option<QuietLimit> {
        let pinned = &self.pinned.configurations[trial.place];
        let is_same = baseline.compiler == pinned.compiler;
        QuietLimit::of(if is_same { &pinned.sessions } else { &baseline.sessions })
    }

    /// Results that were looked at before are no new measurement.
    fn check_is_new(&self, place: usize, sessions: &[Session], measured: &[Session]) -> Result<(), Incomparable> {
        let pinned = &self.pinned.configurations[place];
        let rolling = self.rolling_of(place).map(|rolling| &rolling.sessions[..]).unwrap_or_default();
        let mut known = pinned.sessions.iter().chain(rolling).chain(measured);
        if known.any(|session| sessions.contains(session)) {
            let problem = format!("`{}` was not measured anew: these results were looked at before", pinned.name);
            return Err(Incomparable::new(
                self.store.dir(),
                problem,
                "run the benches first, and all of them with --bench",
            ));
        }
        Ok(())
    }

    fn attempt(&self, trial: &Trial, sessions: &[Session]) -> Result<Attempt, Incomparable> {
        let baseline = self.baseline_of(trial);
        let limit = self.limit_of(trial, &baseline);
        attempt_of_sessions(&baseline, sessions, (limit, self.is_same_work(&baseline))).map_err(|too_few| {
            let name = &self.pinned.name;
            let mend = match &self.pinned.source {
                BaselineSource::Config { path, .. } => {
                    format!(
                        "let nothing else run meanwhile, measure more with --samples, or add sessions: \
                         gradmark baseline save {name} {} --append",
                        path.display()
                    )
                }
                BaselineSource::Criterion { path } => format!(
                    "run the benches again, and add their results: gradmark baseline save {name} --criterion {} --append",
                    path.display()
                ),
            };
            Incomparable::new(self.store.dir(), format!("`{}`: {too_few}", baseline.name), mend)
        })
    }

    fn rows(&self, trials: &[Trial], measured: &[Vec<Session>], threshold: f64) -> Vec<VerdictRow> {
        let row = |trial: &Trial| {
            let baseline = self.baseline_of(trial);
            let before = median_step_ms(&baseline.sessions, self.limit_of(trial, &baseline));
            let now = &measured[trial.place];
            let now = median_step_ms(now, self.limit_now(trial.place).or_else(|| QuietLimit::of(now)));
            let step_ms = [before, now];
            row_of(self.now, &baseline.name, trial, threshold, step_ms.map(|ms| ms.unwrap_or(f64::NAN)))
        };
        trials.iter().map(row).collect()
    }

    /// What passed is the rolling baseline from now on; what became faster the pinned one, if that is asked for. Returns the names of
    /// the latter.
    fn keep(
        mut self,
        rows: &[VerdictRow],
        measured: &[Vec<Session>],
        updates_on_improvement: bool,
    ) -> anyhow::Result<Vec<String>> {
        let saved_at = rows.first().map(|row| row.measured_at.clone()).unwrap_or_default();
        let is_of_criterion = matches!(self.pinned.source, BaselineSource::Criterion { .. });
        let has_passed = |row: &VerdictRow| matches!(row.verdict, Verdict::Pass | Verdict::Improvement);
        let is_faster = |row: &VerdictRow| row.verdict == Verdict::Improvement && row.against == Against::Pinned;
        let mut updated = Vec::new();
        for (pinned, sessions) in self.pinned.configurations.iter_mut().zip(measured) {
            let of_it: Vec<&VerdictRow> = rows.iter().filter(|row| row.configuration == pinned.name).collect();
            if !of_it.iter().all(|row| has_passed(row)) {
                continue;
            }
            let before = self.rolling.configurations.iter().position(|rolling| rolling.name == pinned.name);
            let before = before.map(|place| self.rolling.configurations.remove(place));
            // The sessions of criterion come one by one: the last few are what passed last.
            let earlier = before.filter(|before| is_of_criterion && is_same(before, pinned));
            let mut recent = earlier.map(|before| before.sessions).unwrap_or_default();
            recent.extend(sessions.iter().cloned());
            let surplus = if is_of_criterion { recent.len().saturating_sub(GATE_SESSIONS) } else { 0 };
            recent.drain(..surplus);
            let passed = BaselineConfiguration { sessions: recent, compiler: self.now.compiler(), ..pinned.clone() };
            self.rolling.configurations.push(passed);
            if updates_on_improvement && of_it.iter().any(|row| is_faster(row)) {
                let floors = [pinned.noise_floor, noise_floor_of(sessions, self.block, QuietLimit::of(sessions), true)];
                pinned.noise_floor = floors.into_iter().flatten().reduce(f64::max);
                pinned.sessions.clone_from(sessions);
                pinned.compiler = self.now.compiler();
                updated.push(pinned.name.clone());
            }
        }
        self.rolling.saved_at.clone_from(&saved_at);
        self.rolling.environment = self.now.clone();
        self.store.write(Kept::Rolling, &self.rolling)?;
        if !updated.is_empty() {
            self.pinned.saved_at = saved_at;
            self.store.write(Kept::Pinned, &self.pinned)?;
        }
        Ok(updated)
    }
}

/// Whether two are of the same name and keys.
fn is_same(a: &BaselineConfiguration, b: &BaselineConfiguration) -> bool {
    let is_of = |a: &crate::config::RunConfig, b| Configuration { name: String::new(), config: a.clone() }.is_of(b);
    a.name == b.name
        && match (&a.config, &b.config) {
            (Some(a), Some(b)) => is_of(a, b),
            (None, None) => true,
            _ => false,
        }
}
