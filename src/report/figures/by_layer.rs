//! Gradients over the layers, at the first measured step and at the last.

use super::first_and_last::{Value, first_and_last};
use super::gathered::{GEOMETRIC_SPREAD, Gathered};
use super::layout::Layout;
use crate::analysis::{hidden_number, weight_gradients, whole_layers};
use crate::record::RunRecord;
use crate::report::axis::{Axis, Scale};
use crate::report::chart::{Chart, Line, Style};
use crate::schema::ActivationRow;

/// The gradient with respect to the weights of each hidden layer.
pub fn weight_gradient(layout: &Layout<'_>) -> Chart {
    let labels = [HIDDEN_LAYER, "|dL/dW|, Euclidean norm"];
    by_layer(layout, "weight gradient by layer", labels, |run| {
        let layers = weight_gradients(&run.rows.gradients).into_iter();
        layers.map(|layer| (layer.step, layer.layer, layer.l2)).collect()
    })
}

/// The delta of each hidden layer.
pub fn delta(layout: &Layout<'_>) -> Chart {
    let labels = [HIDDEN_LAYER, "|dL/dz|, Euclidean norm"];
    let mut chart = by_layer(layout, "delta by layer", labels, |run| {
        let value = |row: &ActivationRow| Some((row.step, hidden_number(&row.layer)?, row.delta_l2));
        whole_layers(&run.rows.activations).filter_map(value).collect()
    });
    // A line below those of what was measured.
    let predicted = layout.panels(|group| {
        let mut gathered = Gathered::default();
        for row in group.runs.iter().flat_map(|run| whole_layers(&run.rows.activations)) {
            if let (Some(layer), Some(delta)) = (hidden_number(&row.layer), row.delta_l2_predicted) {
                gathered.add(layer as f64, Some(delta));
            }
        }
        vec![Line { broad: true, bare: true, ..gathered.log_line(group.color) }]
    });
    if predicted.iter().any(|panel| !panel.lines.is_empty()) {
        for (panel, predicted) in chart.panels.iter_mut().zip(predicted) {
            panel.lines.splice(0..0, predicted.lines);
        }
        chart.styles.push((Style::Broad, "predicted at step 0".to_owned()));
    }
    chart
}

/// The gradient with respect to the input of each layer; nothing where it was not measured.
pub fn input_gradient(layout: &Layout<'_>) -> Chart {
    let labels = ["input of layer (0: the input of the network)", "|dL/dx|, Euclidean norm"];
    by_layer(layout, "gradient with respect to the inputs of layers", labels, |run| {
        // A missing value is one that is not finite only where the config asked for it.
        let rows = whole_layers(&run.rows.activations).filter(|_| run.manifest.config.probe.inputs);
        rows.map(|row| (row.step, row.layer_index, row.input_grad_l2)).collect()
    })
}

const HIDDEN_LAYER: &str = "hidden layer (1 is nearest to the input)";

fn by_layer(layout: &Layout<'_>, title: &str, [x, y]: [&str; 2], values: impl Fn(&RunRecord) -> Vec<Value>) -> Chart {
    let x = Axis { label: x.to_owned(), scale: Scale::Count };
    let y = Axis { label: y.to_owned(), scale: Scale::Log };
    first_and_last(layout, layout.chart(title, GEOMETRIC_SPREAD, x, y), values)
}
