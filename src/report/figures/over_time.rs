//! What training has reached after how much time, pretraining included.

use super::gathered::{GEOMETRIC_SPREAD, Gathered, MEAN_SPREAD};
use super::layout::{Group, Layout};
use crate::analysis::mean;
use crate::record::RunRecord;
use crate::report::axis::{Axis, Scale};
use crate::report::chart::{Chart, Line};
use crate::schema::{RunPhase, StepPhase, StepRow};

const SECONDS: &str = "seconds of training, pretraining included and evaluations left out";

/// The accuracy on the test split.
pub fn accuracy(layout: &Layout<'_>) -> Chart {
    let y = Axis { label: "test accuracy, %".to_owned(), scale: Scale::Linear };
    let percent = |row: &StepRow| row.accuracy.map(|accuracy| accuracy * 100.0);
    let mut chart = layout.chart("accuracy over time", MEAN_SPREAD, seconds(), y);
    chart.panels = layout.panels(|group| vec![by_time(group, |row| Some(percent(row)), Gathered::linear_line)]);
    chart.few_markers = true;
    // Runs without answers that are right or wrong have no accuracy.
    let has_any = layout.runs().iter().flat_map(|run| &run.rows.steps).any(|row| row.accuracy.is_some());
    if !has_any {
        chart.panels.clear();
    }
    chart
}

/// The reconstruction error of an autoencoder on the test split, with that of principal components as a level.
pub fn reconstruction_error(layout: &Layout<'_>) -> Chart {
    let y = Axis { label: "|x - r|^2, mean over the test split".to_owned(), scale: Scale::Log };
    let mut chart = layout.chart("reconstruction error over time", GEOMETRIC_SPREAD, seconds(), y);
    let error = |row: &StepRow| row.reconstruction_error.map(Some);
    chart.panels = layout.panels(|group| vec![by_time(group, error, Gathered::log_line)]);
    chart.level = baseline(layout.runs()).map(|error| (error, "principal components".to_owned()));
    chart
}

fn seconds() -> Axis {
    Axis { label: SECONDS.to_owned(), scale: Scale::Linear }
}

/// The error of principal components, if it is the same for all runs.
fn baseline(runs: &[RunRecord]) -> Option<f64> {
    let of_run = |run: &RunRecord| {
        let row = run.rows.steps.iter().find(|row| row.phase == StepPhase::PrincipalComponents);
        row.and_then(|row| row.reconstruction_error)
    };
    let first = of_run(runs.first()?)?;
    runs.iter().all(|run| of_run(run) == Some(first)).then_some(first)
}

/// The values at each evaluation of the test split, at the mean over the seeds of the time that it took to get there. `value` is
/// `None` for a row that has no such quantity.
fn by_time(
    group: &Group<'_>,
    value: impl Fn(&StepRow) -> Option<Option<f64>>,
    line: fn(Gathered, usize) -> Line,
) -> Line {
    let mut evaluations: Vec<(usize, Vec<f64>, Vec<Option<f64>>)> = Vec::new();
    for run in &group.runs {
        let start_ms = run.rows.phases.iter().rfind(|row| row.phase == RunPhase::Pretraining).map(|row| row.total_ms);
        let at_step = |step: usize| {
            let found = run.rows.phases.iter().find(|row| row.phase == RunPhase::Training && row.step == step);
            found.map(|row| row.total_ms).or((step == 0).then_some(start_ms.unwrap_or(0.0)))
        };
        for row in run.rows.steps.iter().filter(|row| row.phase == StepPhase::TestSplit) {
            let (Some(ms), Some(value)) = (at_step(row.step), value(row)) else {
                continue;
            };
            match evaluations.iter_mut().find(|(step, ..)| *step == row.step) {
                Some((_, times, values)) => {
                    times.push(ms);
                    values.push(value);
                }
                None => evaluations.push((row.step, vec![ms], vec![value])),
            }
        }
    }
    let mut gathered = Gathered::default();
    for (_, times, values) in evaluations {
        let seconds = mean(&times).unwrap_or(0.0) / 1e3;
        for value in values {
            gathered.add(seconds, value);
        }
    }
    line(gathered, group.color)
}

#[cfg(test)]
mod tests {
    use super::super::tests::{record, step_row};
    use super::*;
    use crate::schema::PhaseRow;

    fn run(pretraining_ms: Option<f64>, epoch_ms: f64) -> RunRecord {
        let mut run = record(&[]);
        let row = |phase, step, total_ms| PhaseRow { phase, step, total_ms, ..PhaseRow::default() };
        run.rows.phases.extend(pretraining_ms.map(|ms| row(RunPhase::Pretraining, 0, ms)));
        let start = pretraining_ms.unwrap_or(0.0);
        run.rows
            .phases
            .extend([1, 2].map(|epoch| row(RunPhase::Training, 10 * epoch, start + epoch as f64 * epoch_ms)));
        run.rows.steps = [0, 10, 20]
            .map(|step| StepRow {
                phase: StepPhase::TestSplit,
                accuracy: Some(0.1 + step as f64 / 100.0),
                ..step_row(step, None)
            })
            .to_vec();
        run
    }

    fn points(chart: &Chart) -> Vec<(f64, f64)> {
        chart.panels[0].lines[0].points.iter().map(|point| (point.x, (point.y * 1e6).round() / 1e6)).collect()
    }

    #[test]
    fn accuracy_begins_where_pretraining_ends() {
        let chart = accuracy(&Layout::new(&[run(Some(3000.0), 1000.0)]));
        assert_eq!(points(&chart), [(3.0, 10.0), (4.0, 20.0), (5.0, 30.0)]);
        let chart = accuracy(&Layout::new(&[run(None, 1000.0)]));
        assert_eq!(points(&chart), [(0.0, 10.0), (1.0, 20.0), (2.0, 30.0)]);
    }

    #[test]
    fn seeds_meet_at_the_mean_of_their_times() {
        let chart = accuracy(&Layout::new(&[run(Some(1000.0), 500.0), run(Some(3000.0), 1500.0)]));
        assert_eq!(points(&chart), [(2.0, 10.0), (3.0, 20.0), (4.0, 30.0)]);
    }

    #[test]
    fn principal_components_are_a_level_only_if_all_runs_have_the_same() {
        let with = |error: f64| {
            let mut run = run(None, 1000.0);
            run.rows.steps.iter_mut().for_each(|row| {
                row.accuracy = None;
                row.reconstruction_error = Some(2.0);
            });
            run.rows.steps.push(StepRow {
                phase: StepPhase::PrincipalComponents,
                reconstruction_error: Some(error),
                ..step_row(0, None)
            });
            run
        };
        let level = |runs: &[RunRecord]| reconstruction_error(&Layout::new(runs)).level.map(|(error, _)| error);
        assert_eq!(level(&[with(5.0), with(5.0)]), Some(5.0));
        assert_eq!(level(&[with(5.0), with(6.0)]), None);
        let chart = reconstruction_error(&Layout::new(&[with(5.0)]));
        assert_eq!(points(&chart), [(0.0, 2.0), (1.0, 2.0), (2.0, 2.0)]);
        assert!(accuracy(&Layout::new(&[with(5.0)])).panels.is_empty());
    }
}
