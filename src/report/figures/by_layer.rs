//! Gradients over the layers, at the first measured step and at the last.

use super::gathered::{GEOMETRIC_SPREAD, Gathered};
use super::layout::{Layout, hidden_number, hidden_weights};
use crate::record::RunRecord;
use crate::report::axis::{Axis, Scale};
use crate::report::chart::{Chart, Line, Style};
use crate::schema::ActivationRow;

/// The step and the layer of a value; `None` for one that is not finite.
type Value = (usize, usize, Option<f64>);

/// The gradient with respect to the weights of each hidden layer.
pub fn weight_gradient(layout: &Layout<'_>) -> Chart {
    let labels = [HIDDEN_LAYER, "|dL/dW|, Euclidean norm"];
    first_and_last(layout, "weight gradient by layer", labels, |run| {
        hidden_weights(run).map(|(layer, row)| (row.step, layer, row.grad_l2)).collect()
    })
}

/// The delta of each hidden layer.
pub fn delta(layout: &Layout<'_>) -> Chart {
    let labels = [HIDDEN_LAYER, "|dL/dz|, Euclidean norm"];
    first_and_last(layout, "delta by layer", labels, |run| {
        let value = |row: &ActivationRow| Some((row.step, hidden_number(&row.layer)?, row.delta_l2));
        run.rows.activations.iter().filter_map(value).collect()
    })
}

/// The gradient with respect to the input of each layer; nothing where it was not measured.
pub fn input_gradient(layout: &Layout<'_>) -> Chart {
    let labels = ["input of layer (0: the input of the network)", "|dL/dx|, Euclidean norm"];
    first_and_last(layout, "gradient with respect to the inputs of layers", labels, |run| {
        // A missing value is one that is not finite only where the config asked for it.
        let rows = run.rows.activations.iter().filter(|_| run.manifest.config.probe.inputs);
        rows.map(|row| (row.step, row.layer_index, row.input_grad_l2)).collect()
    })
}

const HIDDEN_LAYER: &str = "hidden layer (1 is nearest to the input)";

/// A solid line of the first measured step and a dashed one of the last, of the values of each run.
fn first_and_last(
    layout: &Layout<'_>,
    title: &str,
    [x, y]: [&str; 2],
    values: impl Fn(&RunRecord) -> Vec<Value>,
) -> Chart {
    let x = Axis { label: x.to_owned(), scale: Scale::Count };
    let y = Axis { label: y.to_owned(), scale: Scale::Log };
    let mut chart = layout.chart(title, GEOMETRIC_SPREAD, x, y);
    chart.panels = layout.panels(|group| {
        let (mut first, mut last) = (Gathered::default(), Gathered::default());
        for run in &group.runs {
            let values = values(run);
            let steps = || values.iter().map(|(step, ..)| *step);
            let (Some(start), Some(end)) = (steps().min(), steps().max()) else {
                continue;
            };
            for (step, layer, value) in values {
                if step == start {
                    first.add(layer as f64, value);
                }
                if step == end && end > start {
                    last.add(layer as f64, value);
                }
            }
        }
        let last = Line { dashed: true, ..last.log_line(group.color) };
        vec![first.log_line(group.color), last]
    });
    if chart.has_dashes() {
        let styles = [(Style::Solid, "first measured step"), (Style::Dashed, "last measured step")];
        chart.styles = styles.map(|(style, name)| (style, name.to_owned())).to_vec();
    }
    chart
}
