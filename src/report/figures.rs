//! The figures of an experiment.

use std::fs;
use std::path::{Path, PathBuf};

use super::chart::{Axis, Chart, Line, Panel, Point, Scale};
use super::format::short_name;
use crate::analysis::{Interval, bootstrap_median, geometric_mean, mean, median};
use crate::record::RunRecord;
use crate::schema::{GradientRow, ProbeLoad, StepPhase, ThroughputPhase};

/// A figure could not be made.
#[derive(Debug, thiserror::Error)]
#[error("{}: the figure cannot be made: {reason}", path.display())]
pub struct FigureError {
    /// The file.
    path: PathBuf,
    /// What went wrong.
    reason: String,
}

/// Draws every figure for which there are rows into `<dir>/figures`, and returns the files.
///
/// # Errors
///
/// If a figure cannot be drawn or written.
pub fn draw_figures(dir: &Path, runs: &[RunRecord]) -> Result<Vec<PathBuf>, FigureError> {
    let folder = dir.join("figures");
    let failed = |path: &Path, reason: String| FigureError { path: path.to_owned(), reason };
    fs::create_dir_all(&folder).map_err(|error| failed(&folder, error.to_string()))?;
    let layout = Layout::new(runs);
    let charts = [
        ("gradient_by_layer", gradient_by_layer(&layout)),
        ("gradient_over_steps", gradient_over_steps(&layout)),
        ("learning_curves", learning_curves(&layout)),
        ("training_loss", training_loss(&layout)),
        ("throughput", throughput(&layout)),
    ];
    let mut files = Vec::new();
    for (name, chart) in charts {
        let path = folder.join(format!("{name}.svg"));
        if chart.panels.iter().all(|panel| panel.lines.is_empty()) {
            // A figure of earlier runs would tell about others than the table does.
            if path.exists() {
                fs::remove_file(&path).map_err(|error| failed(&path, error.to_string()))?;
            }
            continue;
        }
        let svg = chart.to_svg().map_err(|reason| failed(&path, reason))?;
        let temporary = folder.join(format!(".tmp-{name}.svg"));
        fs::write(&temporary, svg)
            .and_then(|()| fs::rename(&temporary, &path))
            .map_err(|error| failed(&path, error.to_string()))?;
        files.push(path);
    }
    Ok(files)
}

/// Which runs share a line and which lines share a panel: the first factor gives the colours, the others the panels.
struct Layout<'a> {
    title: String,
    color_names: Vec<String>,
    panel_factors: String,
    panels: Vec<(String, Vec<Group<'a>>)>,
}

/// The runs of a configuration, over which a line shows the spread.
struct Group<'a> {
    color: usize,
    runs: Vec<&'a RunRecord>,
}

impl<'a> Layout<'a> {
    fn new(runs: &'a [RunRecord]) -> Self {
        let factors: Vec<String> = runs
            .first()
            .map(|run| run.manifest.factors.iter().map(|(name, _)| name.clone()).collect())
            .unwrap_or_default();
        let mut layout = Self {
            title: runs.first().map_or_else(String::new, |run| run.manifest.experiment.clone()),
            color_names: Vec::new(),
            panel_factors: factors.iter().skip(1).map(|name| short_name(name)).collect::<Vec<_>>().join(", "),
            panels: Vec::new(),
        };
        for run in runs {
            let levels = &run.manifest.factors;
            let name = levels.first().map_or_else(|| layout.title.clone(), |(_, level)| level.clone());
            let color = position_or_push(&mut layout.color_names, name, |known, name| known == name);
            let rest: Vec<&str> = levels.iter().skip(1).map(|(_, level)| level.as_str()).collect();
            let panel = position_or_push(&mut layout.panels, (rest.join(", "), Vec::new()), |a, b| a.0 == b.0);
            let groups = &mut layout.panels[panel].1;
            match groups.iter_mut().find(|group| group.color == color) {
                Some(group) => group.runs.push(run),
                None => groups.push(Group { color, runs: vec![run] }),
            }
        }
        layout
    }

    fn chart(&self, what: &str, subtitle: &str, x: Axis, y: Axis) -> Chart {
        Chart {
            title: format!("{}: {what}", self.title),
            subtitle: subtitle.to_owned(),
            x,
            y,
            legend: self.color_names.clone(),
            styles: None,
            panels: Vec::new(),
        }
    }

    /// One panel for each choice of the other factors, with the lines that `lines` makes of each group.
    fn panels(&self, lines: impl Fn(&Group<'a>) -> Vec<Line>) -> Vec<Panel> {
        let panel = |(levels, groups): &(String, Vec<Group<'a>>)| Panel {
            title: if levels.is_empty() { String::new() } else { format!("{} = {levels}", self.panel_factors) },
            lines: groups
                .iter()
                .flat_map(&lines)
                .filter(|line| !(line.points.is_empty() && line.zeros.is_empty() && line.nonfinite.is_empty()))
                .collect(),
        };
        self.panels.iter().map(panel).collect()
    }
}

fn position_or_push<T>(items: &mut Vec<T>, item: T, same: impl Fn(&T, &T) -> bool) -> usize {
    if let Some(place) = items.iter().position(|known| same(known, &item)) {
        return place;
    }
    items.push(item);
    items.len() - 1
}

/// A value of one seed that may have no place on the axis.
#[derive(Clone, Copy)]
enum Value {
    Finite(f64),
    NotFinite,
}

/// Gathers the values of several seeds at each x into a line with its spread.
#[derive(Default)]
struct Gathered(Vec<(f64, Vec<Value>)>);

impl Gathered {
    fn add(&mut self, x: f64, value: Option<f64>) {
        let value = value.map_or(Value::NotFinite, Value::Finite);
        match self.0.binary_search_by(|(known, _)| known.total_cmp(&x)) {
            Ok(place) => self.0[place].1.push(value),
            Err(place) => self.0.insert(place, (x, vec![value])),
        }
    }

    /// On a logarithmic axis: the geometric mean and the extremes of the positive values.
    fn log_line(self, color: usize) -> Line {
        self.line(color, |value| value > 0.0, geometric_mean)
    }

    /// On a linear axis: the mean and the extremes.
    fn linear_line(self, color: usize) -> Line {
        self.line(color, |_| true, mean)
    }

    fn line(self, color: usize, has_place: fn(f64) -> bool, middle: fn(&[f64]) -> Option<f64>) -> Line {
        let mut line = Line { color, joined: true, ..Line::default() };
        for (x, values) in self.0 {
            let mut placed = Vec::new();
            for value in values {
                match value {
                    Value::Finite(value) if has_place(value) => placed.push(value),
                    Value::Finite(_) => line.zeros.push(x),
                    Value::NotFinite => line.nonfinite.push(x),
                }
            }
            if let Some(y) = middle(&placed) {
                line.points.push(Point {
                    x,
                    y,
                    low: placed.iter().copied().fold(f64::INFINITY, f64::min),
                    high: placed.iter().copied().fold(f64::NEG_INFINITY, f64::max),
                });
            }
        }
        line.zeros.dedup();
        line.nonfinite.dedup();
        line
    }
}

const SPREAD: &str = "Geometric mean over the seeds; the band reaches from the smallest to the largest.";

fn hidden_weights(run: &RunRecord) -> impl Iterator<Item = &GradientRow> {
    let is_hidden_weight = |row: &&GradientRow| row.layer.starts_with("hidden.") && row.parameter.ends_with(".weight");
    run.rows.gradients.iter().filter(is_hidden_weight)
}

fn gradient_axis() -> Axis {
    Axis { label: "|dL/dW|, Euclidean norm".to_owned(), scale: Scale::Log }
}

fn gradient_by_layer(layout: &Layout<'_>) -> Chart {
    let x = Axis { label: "hidden layer (1 is nearest to the input)".to_owned(), scale: Scale::Count };
    let mut chart = layout.chart("weight gradient by layer", SPREAD, x, gradient_axis());
    chart.panels = layout.panels(|group| {
        let (mut first, mut last) = (Gathered::default(), Gathered::default());
        for run in &group.runs {
            let steps = || hidden_weights(run).map(|row| row.step);
            let (Some(start), Some(end)) = (steps().min(), steps().max()) else {
                continue;
            };
            for row in hidden_weights(run) {
                let layer = row.layer_index as f64 + 1.0;
                if row.step == start {
                    first.add(layer, row.grad_l2);
                }
                if row.step == end && end > start {
                    last.add(layer, row.grad_l2);
                }
            }
        }
        let last = Line { dashed: true, ..last.log_line(group.color) };
        vec![first.log_line(group.color), last]
    });
    if chart.panels.iter().any(|panel| panel.lines.iter().any(|line| line.dashed)) {
        chart.styles = Some(["first measured step".to_owned(), "last measured step".to_owned()]);
    }
    chart
}

fn gradient_over_steps(layout: &Layout<'_>) -> Chart {
    let x = Axis { label: "step + 1".to_owned(), scale: Scale::Log };
    let mut chart = layout.chart("weight gradient over training", SPREAD, x, gradient_axis());
    chart.panels = layout.panels(|group| {
        let (mut input_side, mut output_side) = (Gathered::default(), Gathered::default());
        for run in &group.runs {
            let Some(deepest) = hidden_weights(run).map(|row| row.layer_index).max() else {
                continue;
            };
            for row in hidden_weights(run) {
                let step = row.step as f64 + 1.0;
                if row.layer_index == deepest {
                    output_side.add(step, row.grad_l2);
                } else if row.layer_index == 0 {
                    input_side.add(step, row.grad_l2);
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
    if chart.panels.iter().any(|panel| panel.lines.iter().any(|line| line.dashed)) {
        chart.styles = Some(["last hidden layer".to_owned(), "first hidden layer".to_owned()]);
    }
    chart
}

const MEAN_SPREAD: &str = "Mean over the seeds; the band reaches from the smallest to the largest.";

fn learning_curves(layout: &Layout<'_>) -> Chart {
    let x = Axis { label: "step".to_owned(), scale: Scale::Count };
    let y = Axis { label: "test accuracy, %".to_owned(), scale: Scale::Linear };
    let mut chart = layout.chart("learning curves", MEAN_SPREAD, x, y);
    chart.panels = layout.panels(|group| {
        let mut gathered = Gathered::default();
        for row in group.runs.iter().flat_map(|run| &run.rows.steps) {
            if row.phase == StepPhase::TestSplit {
                gathered.add(row.step as f64, row.accuracy.map(|accuracy| accuracy * 100.0));
            }
        }
        vec![gathered.linear_line(group.color)]
    });
    chart
}

fn training_loss(layout: &Layout<'_>) -> Chart {
    let x = Axis { label: "epoch".to_owned(), scale: Scale::Count };
    let y = Axis { label: "training loss, mean of an epoch".to_owned(), scale: Scale::Log };
    let mut chart = layout.chart("training loss", SPREAD, x, y);
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
        vec![gathered.log_line(group.color)]
    });
    chart
}

fn throughput(layout: &Layout<'_>) -> Chart {
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
