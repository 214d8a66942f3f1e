//! How fast the training was.

use super::layout::Layout;
use crate::analysis::{Interval, bootstrap_median, median};
use crate::record::RunRecord;
use crate::report::axis::{Axis, Scale};
use crate::report::chart::{Chart, Line, Panel, Point};
use crate::schema::{ProbeLoad, ThroughputPhase};

/// Examples a second, by the other factors.
pub fn throughput(layout: &Layout<'_>) -> Chart {
    let names: Vec<String> = layout.panels.iter().map(|(levels, _)| levels.clone()).collect();
    let x = Axis { label: layout.panel_factors.clone(), scale: Scale::Names(names) };
    let y = Axis { label: "examples a second".to_owned(), scale: Scale::Log };
    let subtitle = "Steady steps without the probe: median with its bootstrap 95 % interval.";
    let mut chart = layout.chart("training throughput", subtitle, x, y);
    let colors = layout.color_names.len().max(1) as f64;
    let mut lines = Vec::new();
    for (place, (_, groups)) in layout.panels.iter().enumerate() {
        for group in groups {
            let samples = |run: &&RunRecord| -> Vec<f64> {
                let steady = run.rows.throughput.iter().filter(|row| row.phase == ThroughputPhase::Steady);
                steady.filter(|row| row.probe == ProbeLoad::Off).map(|row| row.examples_per_second).collect()
            };
            // Samples of one run are alike: with several runs, the medians of the runs are resampled.
            let values = match &group.runs[..] {
                [run] => samples(run),
                runs => runs.iter().filter_map(|run| median(&samples(run))).collect(),
            };
            let Some(Interval { median, low, high }) = bootstrap_median(&values) else {
                continue;
            };
            // The colours of a place stand beside one another.
            let x = place as f64 + (group.color as f64 + 0.5) / colors * 0.6 - 0.3;
            lines.push(Line { color: group.color, points: vec![Point { x, y: median, low, high }], ..Line::default() });
        }
    }
    chart.panels = vec![Panel { title: String::new(), lines }];
    chart
}
