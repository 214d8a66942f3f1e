//! Gradients with respect to the state of the first recurrent layer, over the time steps of a sequence.

use super::first_and_last::{Value, first_and_last};
use super::gathered::GEOMETRIC_SPREAD;
use super::layout::Layout;
use crate::analysis::first_states;
use crate::config::Cell;
use crate::record::RunRecord;
use crate::report::axis::{Axis, Scale};
use crate::report::chart::Chart;
use crate::schema::ActivationRow;

/// The most points of a line; with more time steps neighbouring ones share a point.
const MAX_POINTS: usize = 200;

/// The gradient with respect to the hidden state after each time step.
pub fn hidden_gradient(layout: &Layout<'_>) -> Chart {
    state_gradient(layout, ["gradient with respect to the hidden state", "|dL/dh|, Euclidean norm"], |run| {
        values(run, |row| row.hidden_grad_l2)
    })
}

/// The gradient with respect to the cell state after each time step.
pub fn cell_gradient(layout: &Layout<'_>) -> Chart {
    state_gradient(layout, ["gradient with respect to the cell state", "|dL/dc|, Euclidean norm"], |run| {
        // A missing value is one that is not finite only in a cell that has such a state.
        let has_cell_state = run.manifest.config.network.cell() == Cell::Lstm;
        if has_cell_state { values(run, |row| row.cell_grad_l2) } else { Vec::new() }
    })
}

fn state_gradient(layout: &Layout<'_>, [title, y]: [&str; 2], values: impl Fn(&RunRecord) -> Vec<Value>) -> Chart {
    let x = Axis { label: "after time step (0: the initial state)".to_owned(), scale: Scale::Count };
    let y = Axis { label: y.to_owned(), scale: Scale::Log };
    let runs = layout.configurations.iter().flat_map(|configuration| &configuration.runs);
    let most = runs.map(|run| steps_a_point(time_steps(&values(run)))).max();
    let subtitle = format!("The first recurrent layer. {GEOMETRIC_SPREAD}{}", remark(most));
    let chart = Chart { few_markers: true, ..layout.chart(title, subtitle, x, y) };
    first_and_last(layout, chart, |run| merged(values(run)))
}

fn values(run: &RunRecord, value: fn(&ActivationRow) -> Option<f64>) -> Vec<Value> {
    let states = first_states(&run.rows.activations).into_iter();
    states.filter_map(|row| Some((row.step, row.time_step?, value(row)))).collect()
}

/// The values of a run, each at the first of the time steps that it shares a point with.
pub fn merged(values: Vec<Value>) -> Vec<Value> {
    let steps_a_point = steps_a_point(time_steps(&values));
    let first = time_steps(&values).min().unwrap_or(0);
    let start = |time_step: usize| (time_step - first) / steps_a_point * steps_a_point + first;
    values.into_iter().map(|(step, time_step, value)| (step, start(time_step), value)).collect()
}

fn time_steps(values: &[Value]) -> impl Iterator<Item = usize> + Clone {
    values.iter().map(|(_, time_step, _)| *time_step)
}

/// How many time steps of a run share a point.
pub fn steps_a_point(time_steps: impl Iterator<Item = usize> + Clone) -> usize {
    match (time_steps.clone().min(), time_steps.max()) {
        (Some(first), Some(last)) => (last + 1 - first).div_ceil(MAX_POINTS),
        _ => 1,
    }
}

/// What a subtitle says of points that stand for so many time steps at most.
pub fn remark(steps_a_point: Option<usize>) -> String {
    match steps_a_point {
        None | Some(..2) => String::new(),
        Some(steps) => format!(" A point stands for up to {steps} time steps."),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{activation_row, record, state_row};
    use super::*;

    /// A run of one LSTM layer whose hidden gradient halves a time step on its way back, measured at two steps.
    fn lstm(factors: &[(&str, &str)], time_steps: usize) -> RunRecord {
        let mut run = record(factors);
        run.manifest.config.network.cell = Some(Cell::Lstm);
        for step in [0, 5] {
            run.rows.activations.push(activation_row(step, "hidden.0", 0));
            for time_step in 0..=time_steps {
                let hidden = 0.5_f64.powi((time_steps - time_step) as i32);
                run.rows.activations.push(state_row(step, 0, time_step, Some(hidden), Some(1.0)));
            }
        }
        run
    }

    #[test]
    fn the_state_gradient_has_a_place_for_the_initial_state_and_one_for_each_time_step() {
        let runs = [lstm(&[], 8)];
        let chart = hidden_gradient(&Layout::new(&runs));
        let [first, last] = &chart.panels[0].lines[..] else { panic!("{:?}", chart.panels) };
        assert_eq!((first.dashed, last.dashed, first.points.len(), last.points.len()), (false, true, 9, 9));
        assert_eq!((first.points[0].x, first.points[8].x), (0.0, 8.0));
        assert!((first.points[0].y / 0.5_f64.powi(8) - 1.0).abs() < 1e-12);
        assert_eq!(chart.styles.len(), 2);
    }

    #[test]
    fn a_deeper_layer_does_not_mix_with_the_first_one() {
        let mut run = lstm(&[], 4);
        run.rows.activations.extend((0..=4).map(|time_step| state_row(0, 1, time_step, Some(1e9), None)));
        let runs = [run];
        let chart = hidden_gradient(&Layout::new(&runs));
        assert!(chart.panels[0].lines.iter().flat_map(|line| &line.points).all(|point| point.high <= 1.0));
    }

    #[test]
    fn a_cell_without_cell_state_has_no_line_and_one_that_overflows_is_marked() {
        let mut gru = lstm(&[("network.cell", "gru")], 3);
        gru.manifest.config.network.cell = Some(Cell::Gru);
        gru.rows.activations.iter_mut().for_each(|row| row.cell_grad_l2 = None);
        let layout_of = |runs: &[RunRecord]| cell_gradient(&Layout::new(runs)).panels.remove(0).lines;
        assert!(layout_of(&[gru.clone()]).is_empty());
        let mut lost = lstm(&[("network.cell", "lstm")], 3);
        lost.rows.activations[1].cell_grad_l2 = None;
        let lines = layout_of(&[gru, lost]);
        assert_eq!((lines.len(), &lines[0].nonfinite[..], lines[0].color), (2, &[0.0][..], 1));
    }

    #[test]
    fn a_thousand_time_steps_are_merged_into_at_most_200_points_and_a_hundred_are_not() {
        let chart = |time_steps: usize| hidden_gradient(&Layout::new(&[lstm(&[], time_steps)]));
        let (few, many) = (chart(100), chart(1000));
        assert_eq!(few.panels[0].lines[0].points.len(), 101);
        assert_eq!(many.panels[0].lines[0].points.len(), 1001_usize.div_ceil(6));
        assert!(many.heading.subtitle.contains("up to 6 time steps") && !few.heading.subtitle.contains("A point"));
    }
}
