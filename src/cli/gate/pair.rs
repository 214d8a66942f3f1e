//! `gradmark gate --pair`

use std::path::Path;
use std::process::ExitCode;

use super::super::say;
use super::super::speed::Measured;
use super::{GateArgs, Incomparable, announce, check_differences, conclude, described, row_of};
use crate::analysis::median;
use crate::gate::{Configuration, Measurer, PairLevels, Trial, attempt_of_rounds, decide_all, differences};
use crate::schema::Against;

/// `--pair` without a config.
#[derive(Debug, thiserror::Error)]
#[error("--pair {0}: the config is missing; name it: gradmark gate --pair {0} configs/smoke.toml")]
pub(in crate::cli) struct NoConfig(String);

pub(super) fn execute(base: &Path, args: &GateArgs) -> anyhow::Result<ExitCode> {
    let Some(config) = &args.config else {
        return Err(NoConfig(base.display().to_string()).into());
    };
    let measured = Measured::new(config, &args.speed.overrides, &args.speed.device, &args.speed)?;
    let started = Measurer::start(base, measured.arguments());
    measured.check_stop()?;
    let of_base = started?.hello().clone();
    let differences = differences(&of_base.environment, &measured.environment);
    for difference in check_differences(base, differences, &args.allow)?.iter().filter(|_| !args.speed.quiet) {
        say(&format!("{}: {}", base.display(), described(difference)));
    }
    let places = matched(base, &of_base.configurations, &measured.configurations)?;

    let mut trials: Vec<Trial> = (0..places.len()).map(|place| Trial::new(place, Against::Base)).collect();
    let mut all: Vec<Vec<PairLevels>> = vec![Vec::new(); places.len()];
    decide_all(&mut trials, args.threshold(), |attempt, open| {
        let of_open: Vec<(usize, usize)> = open.iter().map(|trial| places[trial.place]).collect();
        announce(args, attempt, of_open.len(), 0.0);
        let rounds = measured.pairs(
            (base, &of_base.configurations),
            args.sessions,
            &of_open,
            &format!("attempt {}", attempt + 1),
        )?;
        for (trial, rounds) in open.iter_mut().zip(rounds) {
            let attempt = attempt_of_rounds(&rounds).map_err(|too_few| {
                let problem = format!("`{}`: {too_few}", measured.configurations[trial.place].name);
                Incomparable::new(base, problem, "measure more: --sessions and --samples")
            })?;
            trial.attempts.push(attempt);
            all[trial.place].extend(rounds);
        }
        Ok::<bool, anyhow::Error>(true)
    })?;
    let row = |trial: &Trial| {
        let of = |times: fn(&PairLevels) -> &Vec<f64>| {
            let times: Vec<f64> = all[trial.place].iter().flat_map(|round| times(round).iter().copied()).collect();
            median(&times).unwrap_or(f64::NAN)
        };
        let step_ms = [of(|round| &round.base_ms), of(|round| &round.candidate_ms)];
        row_of(&measured.environment, &measured.configurations[trial.place].name, trial, args.threshold(), step_ms)
    };
    conclude(args, &trials.iter().map(row).collect::<Vec<_>>())
}

/// The place of each configuration on both sides, the base first.
fn matched(base: &Path, before: &[Configuration], now: &[Configuration]) -> Result<Vec<(usize, usize)>, Incomparable> {
    let place = |(place, one): (usize, &Configuration)| {
        let of_base = before.iter().position(|other| other.is_same(one)).ok_or_else(|| {
            let problem = format!("makes something else of the configuration `{}` of the config", one.name);
            Incomparable::new(base, problem, "write the keys into the config whose defaults have changed")
        })?;
        Ok((of_base, place))
    };
    now.iter().enumerate().map(place).collect()
}
