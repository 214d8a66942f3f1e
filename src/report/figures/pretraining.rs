//! What layers have learned of their inputs when they were pretrained one by one.

use super::gathered::{GEOMETRIC_SPREAD, Gathered};
use super::layout::Layout;
use crate::report::axis::{Axis, Scale};
use crate::report::chart::{Chart, Line, Style};
use crate::schema::PretrainingRow;

/// The reconstruction error of each layer before its pretraining and after it.
pub fn reconstruction_by_layer(layout: &Layout<'_>) -> Chart {
    let x = Axis { label: "hidden layer, 1 at the input".to_owned(), scale: Scale::Count };
    let y = Axis { label: "|x - r|^2, each layer alone".to_owned(), scale: Scale::Log };
    let mut chart = layout.chart("test reconstruction error by layer", GEOMETRIC_SPREAD, x, y);
    chart.panels = layout.panels(|group| {
        let (mut before, mut after) = (Gathered::default(), Gathered::default());
        for run in &group.runs {
            for rows in run.rows.pretraining.chunk_by(|a, b| a.layer_index == b.layer_index) {
                let place = rows.first().map_or(0.0, |row| row.layer_index as f64 + 1.0);
                let error = |row: Option<&PretrainingRow>| row.and_then(|row| row.reconstruction_error);
                before.add(place, error(rows.first()));
                after.add(place, error(rows.last()));
            }
        }
        vec![after.log_line(group.color), Line { dashed: true, ..before.log_line(group.color) }]
    });
    let styles = [(Style::Solid, "after its pretraining"), (Style::Dashed, "before")];
    chart.styles = styles.map(|(style, name)| (style, name.to_owned())).to_vec();
    chart
}

#[cfg(test)]
mod tests {
    use super::super::tests::record;
    use super::*;

    #[test]
    fn the_first_and_the_last_epoch_of_each_layer_are_shown() {
        let mut run = record(&[]);
        let row = |layer_index, epoch, error| PretrainingRow {
            layer_index,
            epoch,
            reconstruction_error: Some(error),
            ..PretrainingRow::default()
        };
        run.rows.pretraining =
            vec![row(0, 0, 8.0), row(0, 1, 4.0), row(0, 2, 2.0), row(1, 0, 5.0), row(1, 1, 3.0), row(1, 2, 1.0)];
        let runs = [run];
        let chart = reconstruction_by_layer(&Layout::new(&runs));
        let points = |line: usize| -> Vec<(f64, f64)> {
            chart.panels[0].lines[line].points.iter().map(|point| (point.x, (point.y * 1e9).round() / 1e9)).collect()
        };
        assert_eq!(points(0), [(1.0, 2.0), (2.0, 1.0)]);
        assert_eq!(points(1), [(1.0, 8.0), (2.0, 5.0)]);
    }
}
