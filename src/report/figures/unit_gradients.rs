//! The gradients of single units as bars (Nielsen, Neural Networks and Deep Learning, chapter 5).

use super::layout::{Layout, left_out};
use crate::analysis::hidden_number;
use crate::record::RunRecord;
use crate::report::bars::{BarChart, BarPanel, BarRow};
use crate::schema::UnitRow;

/// The most rows of panels.
const MAX_CONFIGURATIONS: usize = 4;
/// The most layers: half of them at the input, half at the output.
const MAX_LAYERS: usize = 6;
/// The most units of a layer.
const MAX_UNITS: usize = 12;

const SUBTITLE: &str = "The bars are the first units of each hidden layer, of the first seed. The panels of a row have one \
    axis; below each stands its largest bar at each step.";

/// A row of panels a configuration, a panel a hidden layer; `None` where units were not measured.
pub fn unit_gradients(layout: &Layout<'_>) -> Option<BarChart> {
    let measured = || layout.configurations.iter().filter(|configuration| has_units(configuration.runs[0]));
    let shown: Vec<_> = measured().take(MAX_CONFIGURATIONS).collect();
    let has_last = shown.iter().any(|configuration| steps(configuration.runs[0]).len() > 1);
    let surplus = measured().count() - shown.len();
    let row = |title: &str, run: &RunRecord| BarRow { title: title.to_owned(), panels: panels(run) };
    let names = ["first measured step", "last measured step"];
    (!shown.is_empty()).then(|| BarChart {
        heading: layout.heading("gradients of units", format!("{SUBTITLE}{}", left_out(surplus))),
        series: names.iter().take(if has_last { 2 } else { 1 }).map(|name| (*name).to_owned()).collect(),
        y_label: "|mean delta|".to_owned(),
        rows: shown.iter().map(|configuration| row(&configuration.title, configuration.runs[0])).collect(),
    })
}

fn has_units(run: &RunRecord) -> bool {
    hidden_units(run).next().is_some()
}

/// The rows of hidden layers, each with the number of its layer.
fn hidden_units(run: &RunRecord) -> impl Iterator<Item = (usize, &UnitRow)> {
    run.rows.units.iter().filter_map(|row| hidden_number(&row.layer).map(|layer| (layer, row)))
}

/// The first measured step and, if there are several, the last.
fn steps(run: &RunRecord) -> Vec<usize> {
    let steps = || hidden_units(run).map(|(_, row)| row.step);
    let mut ends: Vec<usize> = steps().min().into_iter().chain(steps().max()).collect();
    ends.dedup();
    ends
}

fn panels(run: &RunRecord) -> Vec<BarPanel> {
    let steps = steps(run);
    let deepest = hidden_units(run).map(|(layer, _)| layer).max().unwrap_or(0);
    let bars = |layer: usize, step: usize| -> Vec<Option<f64>> {
        let units = hidden_units(run).filter(|(of, row)| *of == layer && row.step == step);
        units.filter(|(_, row)| row.unit < MAX_UNITS).map(|(_, row)| row.mean_delta.map(f64::abs)).collect()
    };
    shown_layers(deepest)
        .into_iter()
        .map(|layer| BarPanel {
            title: format!("hidden layer {layer}"),
            series: steps.iter().map(|step| bars(layer, *step)).collect(),
        })
        .collect()
}

/// All layers from 1, or as many of the first and of the last.
fn shown_layers(deepest: usize) -> Vec<usize> {
    let half = MAX_LAYERS / 2;
    (1..=deepest).filter(|layer| deepest <= MAX_LAYERS || *layer <= half || *layer > deepest - half).collect()
}

#[cfg(test)]
mod tests {
    use super::super::tests::{record, unit_row};
    use super::*;

    #[test]
    fn of_many_layers_the_first_three_and_the_last_three_are_shown() {
        assert_eq!(shown_layers(6), [1, 2, 3, 4, 5, 6]);
        assert_eq!(shown_layers(7), [1, 2, 3, 5, 6, 7]);
        assert_eq!(shown_layers(2), [1, 2]);
    }

    #[test]
    fn bars_are_absolute_values_of_the_first_and_the_last_step_and_of_twelve_units() {
        let mut run = record(&[]);
        for step in [0, 5, 9] {
            run.rows.units.extend((0..30).map(|unit| unit_row(step, "hidden.0", unit, Some(-((step + unit) as f64)))));
        }
        let panels = panels(&run);
        assert_eq!(panels.len(), 1);
        let [first, last] = &panels[0].series[..] else { panic!("{:?}", panels[0].series) };
        assert_eq!((first.len(), first[11], last[11]), (12, Some(11.0), Some(20.0)));
    }

    #[test]
    fn the_stem_is_no_hidden_layer_and_a_fifth_configuration_is_left_out() {
        let mut runs: Vec<_> = (0..5).map(|depth| record(&[("network.depth", &depth.to_string())])).collect();
        for run in &mut runs {
            run.rows.units = vec![unit_row(0, "stem", 0, Some(7.0)), unit_row(0, "hidden.0", 0, Some(1.0))];
        }
        let chart = unit_gradients(&Layout::new(&runs)).expect("units");
        assert_eq!((chart.rows.len(), chart.rows[0].panels.len(), chart.series.len()), (4, 1, 1));
        assert_eq!(chart.rows[0].panels[0].series, [vec![Some(1.0)]]);
        assert!(chart.heading.subtitle.contains("One more configuration is left out"), "{}", chart.heading.subtitle);
    }
}
