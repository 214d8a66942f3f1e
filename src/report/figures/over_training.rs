//! How training went: the gradient, the accuracy and the loss over its steps.

use std::collections::BTreeSet;

use super::gathered::{GEOMETRIC_SPREAD, Gathered, MEAN_SPREAD};
use super::layout::Layout;
use crate::analysis::{WeightGradient, mean, weight_gradients};
use crate::report::axis::{Axis, Scale};
use crate::report::chart::{Chart, Line, Style};
use crate::schema::StepPhase;

/// The most points of a line of the gradient; with more measured steps neighbouring ones are merged.
const MAX_POINTS: usize = 200;
/// Into so many points a decade.
const POINTS_A_DECADE: f64 = 50.0;

/// The first of the steps that share a point.
fn start_of_bin(step: f64) -> f64 {
    // What is next to a whole number is one: log10 may be rounded down.
    let bin = (step.log10() * POINTS_A_DECADE + 1e-9).floor();
    10f64.powf(bin / POINTS_A_DECADE)
}

/// The gradient with respect to the weights of the first and of the last hidden layer.
pub fn weight_gradient(layout: &Layout<'_>) -> Chart {
    let x = Axis { label: "step + 1".to_owned(), scale: Scale::Log };
    let y = Axis { label: "|dL/dW|, Euclidean norm".to_owned(), scale: Scale::Log };
    let runs = layout.configurations.iter().flat_map(|configuration| &configuration.runs);
    let steps: BTreeSet<usize> =
        runs.flat_map(|run| weight_gradients(&run.rows.gradients)).map(|layer| layer.step).collect();
    let are_merged = steps.len() > MAX_POINTS;
    let merged = if are_merged { " A point stands for up to a fiftieth of a decade." } else { "" };
    let mut chart = layout.chart("weight gradient over training", format!("{GEOMETRIC_SPREAD}{merged}"), x, y);
    chart.panels = layout.panels(|group| {
        let (mut input_side, mut output_side) = (Gathered::default(), Gathered::default());
        for run in &group.runs {
            let layers = weight_gradients(&run.rows.gradients);
            let Some(deepest) = layers.iter().map(|layer| layer.layer).max() else {
                continue;
            };
            for WeightGradient { step, layer, l2 } in layers {
                let step = step as f64 + 1.0;
                let step = if are_merged { start_of_bin(step) } else { step };
                if layer == deepest {
                    output_side.add(step, l2);
                } else if layer == 1 {
                    input_side.add(step, l2);
                }
            }
        }
        let input_side = Line { dashed: true, ..input_side.log_line(group.color) };
        vec![output_side.log_line(group.color), input_side]
    });
    // A single measured step is no curve.
    if chart.panels.iter().all(|panel| panel.lines.iter().all(|line| line.places() < 2)) {
        chart.panels.clear();
    }
    if chart.has_dashes() {
        let styles = [(Style::Solid, "last hidden layer"), (Style::Dashed, "first hidden layer")];
        chart.styles = styles.map(|(style, name)| (style, name.to_owned())).to_vec();
    }
    chart
}

/// The accuracy on the test split.
pub fn learning_curves(layout: &Layout<'_>) -> Chart {
    let x = Axis { label: "step".to_owned(), scale: Scale::Count };
    let y = Axis { label: "test accuracy, %".to_owned(), scale: Scale::Linear };
    let mut chart = layout.chart("learning curves", MEAN_SPREAD, x, y);
    chart.panels = layout.panels(|group| {
        let mut gathered = Gathered::default();
        for row in group.runs.iter().flat_map(|run| &run.rows.steps) {
            // A finite loss without an accuracy is one without right answers.
            if row.phase == StepPhase::TestSplit && (row.accuracy.is_some() || row.loss.is_none()) {
                gathered.add(row.step as f64, row.accuracy.map(|accuracy| accuracy * 100.0));
            }
        }
        vec![gathered.linear_line(group.color)]
    });
    chart
}

/// The loss of each epoch, on a linear axis if one is negative, as that of a critic is.
pub fn training_loss(layout: &Layout<'_>) -> Chart {
    let runs = layout.configurations.iter().flat_map(|configuration| &configuration.runs);
    let mut rows = runs.flat_map(|run| &run.rows.steps).filter(|row| row.phase == StepPhase::Train);
    let is_signed = rows.any(|row| row.loss.is_some_and(|loss| loss < 0.0));
    let (scale, spread) = if is_signed { (Scale::Linear, MEAN_SPREAD) } else { (Scale::Log, GEOMETRIC_SPREAD) };
    let x = Axis { label: "epoch".to_owned(), scale: Scale::Count };
    let y = Axis { label: "training loss, mean of an epoch".to_owned(), scale };
    let mut chart = layout.chart("training loss", spread, x, y);
    chart.panels = layout.panels(|group| {
        let mut gathered = Gathered::default();
        for run in &group.runs {
            let losses = run.rows.steps.iter().filter(|row| row.phase == StepPhase::Train);
            let mut epochs: Vec<(usize, Vec<Option<f64>>)> = Vec::new();
            for row in losses {
                match epochs.last_mut() {
                    Some((epoch, losses)) if *epoch == row.epoch => losses.push(row.loss),
                    _ => epochs.push((row.epoch, vec![row.loss])),
                }
            }
            for (epoch, losses) in epochs {
                // One loss that is not finite makes the mean of the epoch so.
                let losses: Option<Vec<f64>> = losses.into_iter().collect();
                gathered.add(epoch as f64 + 1.0, losses.and_then(|losses| mean(&losses)));
            }
        }
        vec![if is_signed { gathered.linear_line(group.color) } else { gathered.log_line(group.color) }]
    });
    // A single epoch is no curve.
    if chart.panels.iter().all(|panel| panel.lines.iter().all(|line| line.places() < 2)) {
        chart.panels.clear();
    }
    chart
}

#[cfg(test)]
mod tests {
    use super::super::tests::{gradient_row, record, step_row};
    use super::*;
    use crate::schema::StepRow;

    #[test]
    fn thousands_of_measured_steps_are_merged_and_a_few_are_not() {
        let chart = |steps: usize| {
            let mut run = record(&[]);
            run.rows.gradients = (0..steps).map(|step| gradient_row(step, "hidden.0", 0, Some(1.0))).collect();
            weight_gradient(&Layout::new(&[run]))
        };
        let (few, many) = (chart(100), chart(9000));
        assert_eq!(few.panels[0].lines[0].points.len(), 100);
        assert!(many.panels[0].lines[0].points.len() <= MAX_POINTS, "{}", many.panels[0].lines[0].points.len());
        assert!(many.heading.subtitle.contains("fiftieth") && !few.heading.subtitle.contains("fiftieth"));
    }

    #[test]
    fn negative_losses_are_points_on_a_linear_axis_and_a_loss_without_accuracy_is_no_learning_curve() {
        let mut run = record(&[]);
        let row = |step, phase, loss| StepRow { epoch: step, phase, loss: Some(loss), ..step_row(step, None) };
        run.rows.steps = (0..3).map(|step| row(step, StepPhase::Train, 1.0 - step as f64)).collect();
        run.rows.steps.push(row(2, StepPhase::TestSplit, -1.0));
        let runs = [run];
        let layout = Layout::new(&runs);
        let line = &training_loss(&layout).panels[0].lines[0];
        assert_eq!(line.points.iter().map(|point| point.y).collect::<Vec<f64>>(), [1.0, 0.0, -1.0]);
        assert!(line.zeros.is_empty() && learning_curves(&layout).panels[0].lines.is_empty());
    }

    #[test]
    fn a_merged_step_is_at_most_a_fiftieth_of_a_decade_from_its_place() {
        for step in [1.0, 10.0, 99.0, 100.0, 1000.0, 12_345.0] {
            let bin = start_of_bin(step);
            assert!(bin <= step * (1.0 + 1e-9) && step < bin * 10f64.powf(0.0201), "{step}: {bin}");
        }
        assert!((start_of_bin(1000.0) - 1000.0).abs() < 1e-6);
    }
}
