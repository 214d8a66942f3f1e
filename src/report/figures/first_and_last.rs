//! What was measured at the first measured step beside what was measured at the last.

use super::gathered::Gathered;
use super::layout::Layout;
use crate::record::RunRecord;
use crate::report::chart::{Chart, Line, Style};

/// The step, the place on the horizontal axis, and a value; `None` for one that is not finite.
pub type Value = (usize, usize, Option<f64>);

/// Fills a chart with a logarithmic axis: for each group a solid line of the first measured step and a dashed one of the
/// last, of the values of each run.
pub fn first_and_last(layout: &Layout<'_>, mut chart: Chart, values: impl Fn(&RunRecord) -> Vec<Value>) -> Chart {
    chart.panels = layout.panels(|group| {
        let [first, last] = gather(&group.runs, &values);
        solid_and_dashed(first.log_line(group.color), last.log_line(group.color))
    });
    explain(&mut chart);
    chart
}

/// The values of the first measured step and, if there are several, of the last, over the runs of a line.
pub fn gather(runs: &[&RunRecord], values: impl Fn(&RunRecord) -> Vec<Value>) -> [Gathered; 2] {
    let (mut first, mut last) = (Gathered::default(), Gathered::default());
    for run in runs {
        let values = values(run);
        let steps = || values.iter().map(|(step, ..)| *step);
        let (Some(start), Some(end)) = (steps().min(), steps().max()) else {
            continue;
        };
        for (step, x, value) in values {
            if step == start {
                first.add(x as f64, value);
            }
            if step == end && end > start {
                last.add(x as f64, value);
            }
        }
    }
    [first, last]
}

/// The two lines, the second dashed.
pub fn solid_and_dashed(solid: Line, dashed: Line) -> Vec<Line> {
    vec![solid, Line { dashed: true, ..dashed }]
}

/// Says in the legend what is dashed, if anything is.
pub fn explain(chart: &mut Chart) {
    if chart.has_dashes() {
        let styles = [(Style::Solid, "first measured step"), (Style::Dashed, "last measured step")];
        chart.styles = styles.map(|(style, name)| (style, name.to_owned())).to_vec();
    }
}
