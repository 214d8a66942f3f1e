//! How far the gates of the first recurrent layer are open, over the time steps of a sequence.

use super::by_time_step::{merged, remark, steps_a_point};
use super::first_and_last::{Value, explain, gather, solid_and_dashed};
use super::gathered::{Gathered, MEAN_SPREAD};
use super::layout::{Configuration, Layout, left_out};
use crate::record::RunRecord;
use crate::report::axis::{Axis, Scale};
use crate::report::chart::{Chart, Panel, Style};
use crate::schema::{Gate, GateRow};

/// The most configurations.
const MAX_CONFIGURATIONS: usize = 14;

/// The gates in the order of their panels: those of an LSTM, then those of a GRU.
const GATES: [(Gate, &str); 5] = [
    (Gate::Input, "input gate"),
    (Gate::Forget, "forget gate"),
    (Gate::Output, "output gate"),
    (Gate::Reset, "reset gate"),
    (Gate::Update, "update gate"),
];

/// The mean of each gate, at the first and at the last measured step.
pub fn gates(layout: &Layout<'_>) -> Chart {
    let labels = ["how far gates are open", "mean of the gate (0: closed, 1: open)"];
    let mut chart = gate_chart(layout, labels, |runs, gate| gather(runs, |run| values(run, gate, |row| row.mean)));
    explain(&mut chart);
    chart
}

/// The fractions of each gate's values that are wide open and that are shut, at the last measured step.
pub fn saturated_gates(layout: &Layout<'_>) -> Chart {
    let labels = ["open and shut gates at the last measured step", "fraction over examples and units"];
    let mut chart = gate_chart(layout, labels, |runs, gate| {
        [at_end(runs, gate, |row| row.high_fraction), at_end(runs, gate, |row| row.low_fraction)]
    });
    let styles = [(Style::Solid, "open: above .95"), (Style::Dashed, "shut: below .05")];
    chart.styles = styles.map(|(style, name)| (style, name.to_owned())).to_vec();
    chart
}

/// A panel a gate, with a solid and a dashed line for each configuration that has it.
fn gate_chart(
    layout: &Layout<'_>,
    [title, y]: [&str; 2],
    lines: impl Fn(&[&RunRecord], Gate) -> [Gathered; 2],
) -> Chart {
    let has_gates = |known: &&Configuration<'_>| known.runs.iter().any(|run| !run.rows.gates.is_empty());
    let gated: Vec<&Configuration<'_>> = layout.configurations.iter().filter(has_gates).collect();
    let shown = &gated[..gated.len().min(MAX_CONFIGURATIONS)];
    let most = shown
        .iter()
        .flat_map(|known| &known.runs)
        .map(|run| steps_a_point(run.rows.gates.iter().map(|row| row.time_step)))
        .max();
    let surplus = left_out(gated.len() - shown.len());
    let subtitle = format!("The first recurrent layer. {MEAN_SPREAD}{}{surplus}", remark(most));
    let x = Axis { label: "time step".to_owned(), scale: Scale::Count };
    let y = Axis { label: y.to_owned(), scale: Scale::Linear };
    let name = |title: &str| if title.is_empty() { layout.title.clone() } else { title.to_owned() };
    let panel = |(gate, title): (Gate, &str)| {
        let of_configuration = |(color, known): (usize, &&Configuration<'_>)| {
            let [solid, dashed] = lines(&known.runs, gate);
            solid_and_dashed(solid.linear_line(color), dashed.linear_line(color))
        };
        let lines = shown.iter().enumerate().flat_map(of_configuration).filter(|line| line.places() > 0).collect();
        Panel { title: title.to_owned(), lines }
    };
    Chart {
        legend: shown.iter().map(|known| name(&known.title)).collect(),
        range: Some((0.0, 1.0)),
        few_markers: true,
        panels: GATES.into_iter().map(panel).filter(|panel| !panel.lines.is_empty()).collect(),
        ..layout.chart(title, subtitle, x, y)
    }
}

/// The values of a gate of the first layer that has gates.
fn values(run: &RunRecord, gate: Gate, value: fn(&GateRow) -> Option<f64>) -> Vec<Value> {
    let first = run.rows.gates.iter().map(|row| row.layer_index).min();
    let rows = run.rows.gates.iter().filter(|row| Some(row.layer_index) == first && row.gate == gate);
    merged(rows.map(|row| (row.step, row.time_step, value(row))).collect())
}

/// The values of a gate at the last measured step of each run.
fn at_end(runs: &[&RunRecord], gate: Gate, value: fn(&GateRow) -> Option<f64>) -> Gathered {
    let mut gathered = Gathered::default();
    for run in runs {
        let values = values(run, gate, value);
        let last = values.iter().map(|(step, ..)| *step).max();
        for (_, time_step, value) in values.into_iter().filter(|(step, ..)| Some(*step) == last) {
            gathered.add(time_step as f64, value);
        }
    }
    gathered
}

#[cfg(test)]
mod tests {
    use super::super::tests::{gate_row, record};
    use super::*;

    #[test]
    fn each_gate_has_a_panel_and_each_configuration_that_has_it_a_solid_and_a_dashed_line() {
        let runs = [("lstm", &[Gate::Forget, Gate::Input][..]), ("gru", &[Gate::Update]), ("rnn", &[])].map(
            |(cell, gates)| {
                let mut run = record(&[("network.cell", cell)]);
                for (gate, step) in gates.iter().flat_map(|gate| [(*gate, 0), (*gate, 9)]) {
                    run.rows.gates.extend((1..=3).map(|time_step| gate_row(step, 0, gate, time_step, Some(0.25))));
                    run.rows.gates.push(gate_row(step, 1, gate, 1, Some(0.99)));
                }
                run
            },
        );
        let chart = gates(&Layout::new(&runs));
        let titles: Vec<&str> = chart.panels.iter().map(|panel| panel.title.as_str()).collect();
        assert_eq!(titles, ["input gate", "forget gate", "update gate"]);
        assert_eq!(chart.legend, ["cell = lstm", "cell = gru"]);
        let [first, last] = &chart.panels[2].lines[..] else { panic!("{:?}", chart.panels[2]) };
        assert_eq!((first.color, first.dashed, last.dashed), (1, false, true));
        let places: Vec<(f64, f64)> = first.points.iter().map(|point| (point.x, point.high)).collect();
        assert_eq!(places, [(1.0, 0.25), (2.0, 0.25), (3.0, 0.25)]);
    }

    #[test]
    fn saturated_gates_are_those_of_the_last_measured_step() {
        let mut run = record(&[]);
        for (step, high) in [(0, 0.0), (4, 0.75)] {
            let row = gate_row(step, 0, Gate::Forget, 1, Some(0.5));
            run.rows.gates.push(GateRow { high_fraction: Some(high), low_fraction: Some(0.125), ..row });
        }
        let runs = [run];
        let chart = saturated_gates(&Layout::new(&runs));
        let [open, shut] = &chart.panels[0].lines[..] else { panic!("{:?}", chart.panels) };
        assert_eq!((open.points[0].y, open.points[0].low, shut.points[0].y, shut.dashed), (0.75, 0.75, 0.125, true));
    }

    #[test]
    fn more_than_14_configurations_are_not_drawn_and_the_subtitle_says_so() {
        let run = |number: usize| {
            let mut run = record(&[("network.forget_bias", &number.to_string())]);
            run.rows.gates = vec![gate_row(0, 0, Gate::Forget, 1, Some(0.5))];
            run
        };
        let runs: Vec<_> = (0..15).map(run).collect();
        let chart = gates(&Layout::new(&runs));
        assert_eq!((chart.legend.len(), chart.panels[0].lines.len()), (14, 14));
        assert!(chart.heading.subtitle.contains("One more configuration is left out"), "{}", chart.heading.subtitle);
    }
}
