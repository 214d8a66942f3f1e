//! What networks have learned of sequences of different lengths.

use super::gathered::{GEOMETRIC_SPREAD, Gathered, MEAN_SPREAD};
use super::layout::Layout;
use crate::record::RunRecord;
use crate::report::axis::{Axis, Scale};
use crate::report::chart::{Chart, Line};
use crate::schema::{RunStatus, StepPhase, StepRow};

/// The factor that makes the horizontal axis.
const LENGTH: &str = "data.sequence_length";

/// The test accuracy after training; `None` unless the length of the sequences is swept.
pub fn accuracy(layout: &Layout<'_>) -> Option<Chart> {
    let y = Axis { label: "test accuracy after training, %".to_owned(), scale: Scale::Linear };
    let percent = |row: &StepRow| row.accuracy.map(|accuracy| accuracy * 100.0);
    by_length(layout, ["accuracy by length", MEAN_SPREAD], y, percent, Gathered::linear_line)
}

/// The test loss after training; `None` unless the length of the sequences is swept.
pub fn loss(layout: &Layout<'_>) -> Option<Chart> {
    let y = Axis { label: "test loss after training".to_owned(), scale: Scale::Log };
    by_length(layout, ["loss by length", GEOMETRIC_SPREAD], y, |row| row.loss, Gathered::log_line)
}

fn by_length(
    layout: &Layout<'_>,
    [title, subtitle]: [&str; 2],
    y: Axis,
    value: fn(&StepRow) -> Option<f64>,
    line: fn(Gathered, usize) -> Line,
) -> Option<Chart> {
    let runs = || layout.configurations.iter().flat_map(|configuration| &configuration.runs);
    let mut lengths: Vec<usize> = runs().filter_map(|run| length(run)).collect();
    lengths.sort_unstable();
    lengths.dedup();
    // The lengths of a sweep are seldom spread evenly: each has its place and its label.
    let names = lengths.iter().map(usize::to_string).collect();
    let x = Axis { label: "time steps of a sequence".to_owned(), scale: Scale::Names(names) };
    let has_diverged = runs().any(|run| matches!(run.manifest.status, RunStatus::Diverged { .. }));
    let remark = if has_diverged { " A cross stands for a run that diverged." } else { "" };
    let layout = layout.without(LENGTH).filter(|_| lengths.len() > 1)?;
    let mut chart = layout.chart(title, format!("{subtitle}{remark}"), x, y);
    chart.panels = layout.panels(|group| {
        let mut gathered = Gathered::default();
        for run in group.runs.iter().filter(|run| is_trained(run)) {
            if let Some(place) = length(run).and_then(|length| lengths.binary_search(&length).ok()) {
                gathered.add(place as f64, outcome(run, value));
            }
        }
        vec![line(gathered, group.color)]
    });
    Some(chart)
}

fn length(run: &RunRecord) -> Option<usize> {
    run.manifest.config.data.sequence_length
}

/// A network that was not trained has learned nothing.
fn is_trained(run: &RunRecord) -> bool {
    run.rows.steps.iter().any(|row| row.learning_rate.is_some())
}

/// The value after training; `None` of a run that diverged.
fn outcome(run: &RunRecord, value: fn(&StepRow) -> Option<f64>) -> Option<f64> {
    let is_complete = run.manifest.status == RunStatus::Complete;
    run.rows.steps.iter().rfind(|row| row.phase == StepPhase::TestSplit && is_complete).and_then(value)
}

#[cfg(test)]
mod tests {
    use super::super::tests::{record, step_row};
    use super::*;

    /// A run that was trained on sequences of a length and tested twice.
    fn run(cell: &str, length: usize, accuracy: f64) -> RunRecord {
        let mut run = record(&[("network.cell", cell), (LENGTH, &length.to_string())]);
        run.manifest.config.data.sequence_length = Some(length);
        let test = |step, accuracy: f64| StepRow {
            phase: StepPhase::TestSplit,
            accuracy: Some(accuracy),
            loss: Some(1.0 - accuracy),
            ..step_row(step, None)
        };
        let train = StepRow { learning_rate: Some(0.1), ..step_row(0, None) };
        run.rows.steps = vec![test(0, 0.125), train, test(1, accuracy)];
        run
    }

    #[test]
    fn lines_reach_over_the_lengths_in_their_order_whatever_that_of_the_runs_and_gather_the_seeds() {
        let runs = [
            run("lstm", 100, 0.5),
            run("rnn", 20, 0.25),
            run("lstm", 20, 1.0),
            run("lstm", 100, 0.75),
            run("rnn", 9, 0.5),
        ];
        let chart = accuracy(&Layout::new(&runs)).expect("three lengths");
        let Scale::Names(names) = &chart.x.scale else { panic!("{:?}", chart.x) };
        assert_eq!(names, &["9", "20", "100"]);
        assert_eq!((chart.legend, chart.panels.len()), (vec!["lstm".to_owned(), "rnn".to_owned()], 1));
        let places = |line: &Line| line.points.iter().map(|point| (point.x, point.low, point.y, point.high)).collect();
        let found: Vec<Vec<(f64, f64, f64, f64)>> = chart.panels[0].lines.iter().map(places).collect();
        assert_eq!(found[0], [(1.0, 100.0, 100.0, 100.0), (2.0, 50.0, 62.5, 75.0)]);
        assert_eq!(found[1], [(0.0, 50.0, 50.0, 50.0), (1.0, 25.0, 25.0, 25.0)]);
    }

    #[test]
    fn one_length_alone_or_one_that_is_not_swept_has_no_figure() {
        assert!(accuracy(&Layout::new(&[run("rnn", 9, 0.5), run("lstm", 9, 0.5)])).is_none());
        let mut runs = [run("rnn", 9, 0.5), run("rnn", 20, 0.5)];
        for run in &mut runs {
            run.manifest.factors.truncate(1);
        }
        assert!(loss(&Layout::new(&runs)).is_none());
    }

    #[test]
    fn a_run_that_diverged_is_marked_at_its_length_and_one_without_training_is_left_out() {
        let mut runs = [run("rnn", 9, 0.5), run("rnn", 20, 0.5), run("rnn", 50, 0.5)];
        runs[1].manifest.status = RunStatus::Diverged { diverged_at_step: 1 };
        runs[2].rows.steps.iter_mut().for_each(|row| row.learning_rate = None);
        let mut chart = loss(&Layout::new(&runs)).expect("three lengths");
        assert!(chart.heading.subtitle.contains("diverged"));
        let line = chart.panels.remove(0).lines.remove(0);
        assert_eq!((line.points.len(), &line.nonfinite[..]), (1, &[1.0][..]));
        assert!((line.points[0].y - 0.5).abs() < 1e-12 && line.points[0].x == 0.0);
    }
}
