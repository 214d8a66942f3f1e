//! Quantities of hidden layers over training, as colours.

use super::layout::{Configuration, Layout, left_out};
use crate::analysis::{geometric_mean, hidden_number, mean, weight_gradients, whole_layers};
use crate::record::RunRecord;
use crate::report::axis::Scale;
use crate::report::heat_map::{Cell, HeatMap, HeatPanel, has_room_for};
use crate::schema::ActivationRow;

/// The most panels.
const MAX_PANELS: usize = 24;
/// The most rows of a panel; deeper networks have several layers a row.
const MAX_ROWS: usize = 64;
/// The most columns of a panel; more measured steps share a column.
const MAX_COLUMNS: usize = 128;
/// Fewer measured steps are no course of training.
const MIN_STEPS: usize = 3;

/// A quantity of a hidden layer at a step.
struct Measured {
    step: usize,
    /// From 1 at the input.
    layer: usize,
    /// `None` if it is not finite.
    value: Option<f64>,
}

/// The norm of the weight gradient.
pub fn weight_gradient(layout: &Layout<'_>) -> Option<HeatMap> {
    let measured = |run: &RunRecord| {
        let layers = weight_gradients(&run.rows.gradients).into_iter();
        layers.map(|layer| Measured { step: layer.step, layer: layer.layer, value: layer.l2 }).collect()
    };
    let panels = panels(layout, measured, log_cell);
    let panels = panels.into_iter().filter(|merged| merged.panel.count >= 2).collect();
    heat_map(layout, "weight gradient of every layer over training", "Geometric mean over the seeds.", panels)
        .map(|map| HeatMap { value_label: "|dL/dW|, Euclidean norm".to_owned(), scale: Scale::Log, ..map })
}

/// The fraction of units that are dead.
pub fn dead_units(layout: &Layout<'_>) -> Option<HeatMap> {
    let panels = panels(layout, dead_fractions, share_cell);
    let mut cells = panels.iter().flat_map(|merged| merged.panel.rows.iter().flatten());
    if !cells.any(|cell| matches!(cell, Cell::Value(value) if *value > 0.0)) {
        return None;
    }
    heat_map(layout, "dead units of every layer over training", "Mean over the seeds.", panels).map(|map| HeatMap {
        value_label: "fraction of units that are 0 for the whole batch".to_owned(),
        range: Some((0.0, 1.0)),
        ..map
    })
}

/// The fractions of a run; none if its activation function has no dead units.
fn dead_fractions(run: &RunRecord) -> Vec<Measured> {
    let rows = || whole_layers(&run.rows.activations).filter(|row| hidden_number(&row.layer).is_some());
    if rows().all(|row| row.dead_fraction.is_none()) {
        return Vec::new();
    }
    let measured = |row: &ActivationRow| {
        // A linear layer has no activations, and is not one whose activations are not finite.
        let is_linear = row.dead_fraction.is_none() && row.activation_mean.is_none() && row.delta_l2.is_some();
        if is_linear {
            return None;
        }
        Some(Measured { step: row.step, layer: hidden_number(&row.layer)?, value: row.dead_fraction })
    };
    rows().filter_map(measured).collect()
}

/// A heat map with a linear scale of what occurs; `None` without panels.
fn heat_map(layout: &Layout<'_>, what: &str, statistic: &str, mut panels: Vec<Merged>) -> Option<HeatMap> {
    let surplus = panels.len().saturating_sub(MAX_PANELS);
    panels.truncate(MAX_PANELS);
    let most = |per: fn(&Merged) -> usize| panels.iter().map(per).max().unwrap_or(1);
    let merged = match (most(|merged| merged.panel.per_row), most(|merged| merged.per_column)) {
        (1, 1) => String::new(),
        (layers, 1) => format!(" A cell averages up to {layers} layers."),
        (1, steps) => format!(" A cell averages up to {steps} measured steps."),
        (layers, steps) => format!(" A cell averages up to {layers} layers and {steps} measured steps."),
    };
    let titles = if has_long_titles(layout) { format!(" Panels: {}.", layout.factors) } else { String::new() };
    (!panels.is_empty()).then(|| HeatMap {
        heading: layout.heading(what, format!("{statistic}{merged}{titles}{}", left_out(surplus))),
        x_label: "measured step".to_owned(),
        y_label: "hidden layer".to_owned(),
        value_label: String::new(),
        scale: Scale::Linear,
        range: None,
        panels: panels.into_iter().map(|merged| merged.panel).collect(),
    })
}

/// Whether the panels have no room for the names of the factors, so that the subtitle has to name them.
fn has_long_titles(layout: &Layout<'_>) -> bool {
    layout.configurations.iter().any(|configuration| !has_room_for(&configuration.title))
}

/// A panel, and how many measured steps share a column.
struct Merged {
    panel: HeatPanel,
    per_column: usize,
}

/// A panel for every configuration in which enough steps were measured.
fn panels(
    layout: &Layout<'_>,
    measured: impl Fn(&RunRecord) -> Vec<Measured>,
    cell: fn(&[Option<f64>]) -> Cell,
) -> Vec<Merged> {
    let are_long = has_long_titles(layout);
    let panel = |configuration: &Configuration<'_>| {
        let title = if are_long { &configuration.levels } else { &configuration.title };
        let measured: Vec<Measured> = configuration.runs.iter().flat_map(|run| measured(run)).collect();
        merge(title.clone(), &measured, cell)
    };
    layout.configurations.iter().filter_map(panel).collect()
}

/// Puts values into cells, several layers or steps into one where there are more than a panel has room for.
fn merge(title: String, measured: &[Measured], cell: fn(&[Option<f64>]) -> Cell) -> Option<Merged> {
    let mut steps: Vec<usize> = measured.iter().map(|measured| measured.step).collect();
    steps.sort_unstable();
    steps.dedup();
    let count = measured.iter().map(|measured| measured.layer).max()?;
    if steps.len() < MIN_STEPS {
        return None;
    }
    let per_row = count.div_ceil(MAX_ROWS);
    let per_column = steps.len().div_ceil(MAX_COLUMNS);
    let columns: Vec<String> = steps.chunks(per_column).map(|steps| steps[0].to_string()).collect();
    let mut values = vec![vec![Vec::new(); columns.len()]; count.div_ceil(per_row)];
    for Measured { step, layer, value } in measured {
        let column = steps.binary_search(step).unwrap_or_default() / per_column;
        values[(layer - 1) / per_row][column].push(*value);
    }
    let rows = values.iter().map(|row| row.iter().map(|values| cell(values)).collect()).collect();
    Some(Merged { panel: HeatPanel { title, columns, count, per_row, rows }, per_column })
}

/// On a logarithmic scale: the geometric mean of the values above 0.
fn log_cell(values: &[Option<f64>]) -> Cell {
    let positive: Vec<f64> = values.iter().flatten().copied().filter(|value| *value > 0.0).collect();
    match geometric_mean(&positive) {
        _ if values.is_empty() => Cell::Missing,
        _ if values.contains(&None) => Cell::NotFinite,
        None => Cell::Zero,
        Some(value) => Cell::Value(value),
    }
}

/// On a linear scale: the mean.
fn share_cell(values: &[Option<f64>]) -> Cell {
    let all: Option<Vec<f64>> = values.iter().copied().collect();
    match all.map(|values| mean(&values)) {
        None => Cell::NotFinite,
        Some(None) => Cell::Missing,
        Some(Some(value)) => Cell::Value(value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(steps: usize, layers: usize, value: impl Fn(usize, usize) -> Option<f64>) -> Vec<Measured> {
        let all = (0..steps).flat_map(|step| (1..=layers).map(move |layer| (step, layer)));
        all.map(|(step, layer)| Measured { step: step * 10, layer, value: value(step, layer) }).collect()
    }

    #[test]
    fn a_thousand_layers_are_merged_into_at_most_64_rows_of_their_geometric_means() {
        let panel = merge(String::new(), &measured(3, 1000, |_, layer| Some(10f64.powi(layer as i32 % 2))), log_cell);
        let panel = panel.expect("three steps").panel;
        assert_eq!((panel.count, panel.per_row, panel.rows.len()), (1000, 16, 63));
        let Cell::Value(value) = panel.rows[0][0] else { panic!("{:?}", panel.rows[0][0]) };
        assert!((value - 10f64.sqrt()).abs() < 1e-9, "{value}");
    }

    #[test]
    fn a_few_layers_and_steps_have_a_cell_each_named_by_the_step() {
        let panel = merge(String::new(), &measured(4, 3, |step, layer| Some((step * 10 + layer) as f64)), share_cell);
        let Merged { panel, per_column } = panel.expect("four steps");
        assert_eq!((panel.per_row, per_column), (1, 1));
        assert_eq!(panel.columns, ["0", "10", "20", "30"]);
        assert_eq!(panel.rows[2][1], Cell::Value(13.0));
    }

    #[test]
    fn more_steps_than_there_is_room_for_share_columns() {
        let merged = merge(String::new(), &measured(300, 2, |step, _| Some(step as f64)), share_cell);
        let Merged { panel, per_column } = merged.expect("300 steps");
        assert_eq!((per_column, panel.columns.len(), panel.columns[1].as_str()), (3, 100, "30"));
        assert_eq!(panel.rows[0][1], Cell::Value(4.0));
    }

    #[test]
    fn two_measured_steps_are_no_heat_map() {
        assert!(merge(String::new(), &measured(2, 4, |_, _| Some(1.0)), log_cell).is_none());
    }

    #[test]
    fn a_cell_is_0_only_if_all_its_values_are_and_not_finite_if_one_is() {
        assert_eq!(log_cell(&[Some(0.0), Some(0.0)]), Cell::Zero);
        assert_eq!(log_cell(&[Some(0.0), Some(2.0)]), Cell::Value(2.0));
        assert_eq!(log_cell(&[Some(2.0), None]), Cell::NotFinite);
        assert_eq!(log_cell(&[]), Cell::Missing);
        assert_eq!((share_cell(&[None]), share_cell(&[])), (Cell::NotFinite, Cell::Missing));
        assert_eq!(share_cell(&[Some(0.0), Some(0.5)]), Cell::Value(0.25));
    }
}
