//! Two sides beside each other: a table for the terminal, a table of everything, and the change of the gradient by
//! layer.

use comfy_table::Cell;

use super::axis::{Axis, Scale};
use super::chart::{Chart, Line, Panel, Point};
use super::format::{short_name, significant};
use super::page::{Figure, Heading};
use super::table::{number, table};
use crate::analysis::{Change, Compared, Comparison, GRADIENT_FIRST, GRADIENT_LAST, quantity};

/// A side of a comparison.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Side {
    /// Its directory.
    pub name: String,
    /// Its configurations.
    pub configurations: usize,
    /// Its runs.
    pub runs: usize,
    /// Those that diverged.
    pub diverged: usize,
}

impl Side {
    /// `results/before: 12 configurations, 60 runs, 2 of them diverged`
    pub fn describe(&self) -> String {
        let plural = |count: usize| if count == 1 { "" } else { "s" };
        let Self { name, configurations, runs, diverged } = self;
        let tail = if *diverged > 0 { format!(", {diverged} of them diverged") } else { String::new() };
        let (a, b) = (plural(*configurations), plural(*runs));
        format!("{name}: {configurations} configuration{a}, {runs} run{b}{tail}")
    }
}

/// A configuration on both sides.
#[derive(Clone, Debug, PartialEq)]
pub struct SideBySide {
    /// The level of each factor, `relu -> tanh` where the sides differ.
    pub levels: Vec<String>,
    /// Runs of the baseline, and how many of them diverged.
    pub baseline_runs: (usize, usize),
    /// Runs of the candidate, likewise.
    pub candidate_runs: (usize, usize),
    /// What was compared.
    pub compared: Vec<Compared>,
}

impl SideBySide {
    /// `activation=relu, depth=8`; the title without factors.
    pub fn name(&self, factors: &[String], title: &str) -> String {
        let named: Vec<String> =
            factors.iter().zip(&self.levels).map(|(factor, level)| format!("{}={level}", short_name(factor))).collect();
        if named.is_empty() { title.to_owned() } else { named.join(", ") }
    }

    /// Whether the runs of every quantity were paired by seed; `None` if some were and some were not.
    pub fn is_paired(&self) -> Option<bool> {
        let mut paired = self.compared.iter().map(|one| one.comparison.paired);
        let first = paired.next()?;
        paired.all(|other| other == first).then_some(first)
    }

    /// The layers that are compared.
    fn depth(&self) -> usize {
        self.compared.iter().filter_map(|one| one.layer).max().unwrap_or(0)
    }
}

/// What the numbers of two sides depend on besides configs: each with its values on both sides.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Environments(Vec<(&'static str, Vec<String>, Vec<String>)>);

impl Environments {
    /// Adds what something is on each run of a side.
    pub fn add(&mut self, what: &'static str, baseline: Vec<String>, candidate: Vec<String>) {
        let distinct = |mut values: Vec<String>| {
            values.sort();
            values.dedup();
            values
        };
        self.0.push((what, distinct(baseline), distinct(candidate)));
    }

    /// A line for each that is not the same in all runs of both sides.
    pub fn differences(&self) -> Vec<String> {
        let is_different = |(_, a, b): &&(&str, Vec<String>, Vec<String>)| a != b || a.len() > 1;
        let line = |(what, a, b): &(&str, Vec<String>, Vec<String>)| {
            format!("{what}: {} in the baseline, {} in the candidate", a.join(" and "), b.join(" and "))
        };
        self.0.iter().filter(is_different).map(line).collect()
    }
}

/// The first and the last layer and the whole network: what the terminal shows of [`Compared`].
fn is_shown(one: &Compared, depth: usize) -> bool {
    one.layer.is_none_or(|layer| layer == 1 || layer == depth)
}

/// A table with a row for each quantity of each configuration.
pub fn comparison_table(factors: &[String], configurations: &[SideBySide]) -> String {
    let mut headers: Vec<String> = factors.iter().map(|factor| short_name(factor).to_owned()).collect();
    headers.extend(["quantity", "baseline", "candidate", "change", "95 % interval", "runs"].map(str::to_owned));
    let mut table = table(headers);
    for configuration in configurations {
        let depth = configuration.depth();
        let mut rows: Vec<[String; 6]> =
            configuration.compared.iter().filter(|one| is_shown(one, depth)).map(cells).collect();
        let (baseline, candidate) = (configuration.baseline_runs, configuration.candidate_runs);
        if baseline.1 + candidate.1 > 0 {
            let of = |(runs, diverged): (usize, usize)| format!("{diverged} of {runs}");
            let (empty, name) = (String::new, "diverged runs".to_owned());
            rows.insert(0, [name, of(baseline), of(candidate), empty(), empty(), empty()]);
        }
        for (row, [quantity, rest @ ..]) in rows.into_iter().enumerate() {
            // The configuration stands in the first of its rows.
            let level = |level: &String| Cell::new(if row == 0 { level.as_str() } else { "" });
            let mut cells: Vec<Cell> = configuration.levels.iter().map(level).collect();
            cells.push(Cell::new(quantity));
            cells.extend(rest.map(number));
            table.add_row(cells);
        }
    }
    table.to_string()
}

fn cells(one: &Compared) -> [String; 6] {
    let Comparison { baseline, candidate, change, paired, pairs, baseline_runs, candidate_runs, left_out } =
        one.comparison;
    // Accuracies are shown in per cent, their differences in percentage points.
    let is_share = one.quantity.ends_with("accuracy");
    let factor = if is_share { 100.0 } else { 1.0 };
    let value = |value: Option<f64>| value.map_or_else(String::new, |value| significant(value * factor, 3));
    let changed = |value: f64| match one.change {
        Change::Ratio => significant(value, 3),
        Change::Difference => format!("{}{}", if value > 0.0 { "+" } else { "" }, significant(value * factor, 3)),
    };
    let sign = if one.change == Change::Ratio { "× " } else { "" };
    let interval = change.and_then(|change| change.interval);
    let runs = if paired { format!("{pairs} paired") } else { format!("{baseline_runs} and {candidate_runs}") };
    [
        title(one) + if is_share { ", %" } else { "" },
        value(baseline),
        value(candidate),
        change.map_or_else(String::new, |change| format!("{sign}{}", changed(change.value))),
        interval.map_or_else(String::new, |(low, high)| format!("{} to {}", changed(low), changed(high))),
        if left_out > 0 { format!("{runs}, {left_out} left out") } else { runs },
    ]
}

/// `gradient of layer 1, start`, or what people call the quantity, with its unit.
fn title(one: &Compared) -> String {
    let known = || quantity(one.quantity).map(|known| (known.title, known.unit));
    match (one.layer, one.quantity) {
        (Some(layer), GRADIENT_FIRST) => format!("gradient of layer {layer}, start"),
        (Some(layer), _) => format!("gradient of layer {layer}, end"),
        (None, name) => match known() {
            Some((title, "")) => title.to_owned(),
            Some((title, unit)) => format!("{title}, {unit}"),
            None => name.to_owned(),
        },
    }
}

/// The columns of `comparison.csv` behind the factors.
const COLUMNS: [&str; 13] = [
    "quantity",
    "layer",
    "change",
    "baseline_median",
    "candidate_median",
    "value",
    "low",
    "high",
    "paired",
    "pairs",
    "baseline_runs",
    "candidate_runs",
    "left_out",
];

/// `comparison.csv`: a row for each quantity, layer and configuration.
///
/// # Errors
///
/// If it cannot be encoded.
pub fn comparison_csv(factors: &[String], title: &str, configurations: &[SideBySide]) -> Result<String, csv::Error> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    let names = ["configuration"].into_iter().chain(factors.iter().map(String::as_str));
    writer.write_record(names.chain(COLUMNS))?;
    let text = |value: Option<f64>| value.map_or_else(String::new, |value| value.to_string());
    for configuration in configurations {
        for one in &configuration.compared {
            let found = &one.comparison;
            let interval = found.change.and_then(|change| change.interval);
            let mut record = vec![configuration.name(factors, title)];
            record.extend(configuration.levels.iter().cloned());
            record.extend([
                one.quantity.to_owned(),
                one.layer.map_or_else(String::new, |layer| layer.to_string()),
                one.change.name().to_owned(),
                text(found.baseline),
                text(found.candidate),
                text(found.change.map(|change| change.value)),
                text(interval.map(|(low, _)| low)),
                text(interval.map(|(_, high)| high)),
                found.paired.to_string(),
                found.pairs.to_string(),
                found.baseline_runs.to_string(),
                found.candidate_runs.to_string(),
                found.left_out.to_string(),
            ]);
            writer.write_record(&record)?;
        }
    }
    let bytes = writer.into_inner().map_err(|error| csv::Error::from(std::io::Error::from(error.error().kind())))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// With more configurations lines cannot be told apart.
const MAX_LINES: usize = 14;

/// The change of every layer's weight gradient, a line a configuration, as SVG; `None` if no gradient was compared.
///
/// # Errors
///
/// If it cannot be drawn.
pub fn comparison_figure(
    factors: &[String],
    [baseline, candidate]: [&str; 2],
    configurations: &[SideBySide],
) -> Result<Option<String>, String> {
    let shown = &configurations[..configurations.len().min(MAX_LINES)];
    let panel = |quantity: &str, title: &str| Panel {
        title: title.to_owned(),
        lines: shown.iter().enumerate().filter_map(|(color, one)| line(color, one, quantity)).collect(),
    };
    let panels: Vec<Panel> = [panel(GRADIENT_FIRST, "first measured step"), panel(GRADIENT_LAST, "last measured step")]
        .into_iter()
        .filter(|panel| !panel.lines.is_empty())
        .collect();
    if panels.is_empty() {
        return Ok(None);
    }
    let mut subtitle =
        "Gradient of the candidate by that of the baseline, geometric mean; the band is its 95 % interval.".to_owned();
    subtitle += &super::figures::left_out(configurations.len() - shown.len());
    let chart = Chart {
        heading: Heading { title: format!("{candidate} by {baseline}: weight gradient"), subtitle },
        x: Axis { label: "hidden layer (1 is nearest to the input)".to_owned(), scale: Scale::Count },
        y: Axis { label: "|dL/dW|, candidate by baseline".to_owned(), scale: Scale::Log },
        legend: shown.iter().map(|one| one.name(factors, candidate)).collect(),
        styles: Vec::new(),
        level: Some((1.0, "no change".to_owned())),
        range: None,
        few_markers: false,
        panels,
    };
    chart.to_svg().map(Some)
}

/// The line of a configuration; `None` without values.
fn line(color: usize, configuration: &SideBySide, quantity: &str) -> Option<Line> {
    let of_layers = configuration.compared.iter().filter(|one| one.quantity == quantity);
    let point = |one: &Compared| {
        let change = one.comparison.change?;
        let (low, high) = change.interval.unwrap_or((change.value, change.value));
        Some(Point { x: one.layer? as f64, y: change.value, low, high })
    };
    let points: Vec<Point> = of_layers.filter_map(point).collect();
    (!points.is_empty()).then(|| Line { color, joined: true, points, ..Line::default() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analysis::Estimate;

    fn compared(
        quantity: &'static str,
        layer: Option<usize>,
        change: Change,
        interval: Option<(f64, f64)>,
    ) -> Compared {
        let comparison = Comparison {
            baseline: Some(0.5),
            candidate: Some(0.25),
            change: Some(Estimate { value: if change == Change::Ratio { 0.5 } else { -0.25 }, interval }),
            paired: true,
            pairs: 5,
            baseline_runs: 5,
            candidate_runs: 5,
            left_out: 0,
        };
        Compared { quantity, layer, change, comparison }
    }

    fn configurations() -> Vec<SideBySide> {
        let mut layers: Vec<Compared> =
            (1..=3).map(|layer| compared(GRADIENT_FIRST, Some(layer), Change::Ratio, Some((0.4, 0.6)))).collect();
        layers.push(compared("test_accuracy", None, Change::Difference, Some((-0.3, 0.01))));
        layers.push(compared("step_time_ms", None, Change::Ratio, None));
        layers[4].comparison = Comparison { paired: false, pairs: 0, left_out: 2, ..layers[4].comparison };
        vec![SideBySide {
            levels: vec!["relu".to_owned(), "3".to_owned()],
            baseline_runs: (5, 1),
            candidate_runs: (5, 0),
            compared: layers,
        }]
    }

    fn factors() -> Vec<String> {
        ["network.activation", "network.depth"].map(str::to_owned).to_vec()
    }

    #[test]
    fn the_table_shows_the_first_and_the_last_layer_and_names_the_configuration_once() {
        let table = comparison_table(&factors(), &configurations());
        let lines: Vec<Vec<&str>> = table
            .lines()
            .skip(2)
            .map(|line| line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect())
            .collect();
        assert_eq!(lines[0], ["relu", "3", "diverged runs", "1 of 5", "0 of 5"]);
        assert_eq!(lines[1], ["gradient of layer 1, start", "0.500", "0.250", "× 0.500", "0.400 to 0.600", "5 paired"]);
        assert_eq!(lines[2][0], "gradient of layer 3, start");
        assert_eq!(lines[3], ["test accuracy, %", "50.0", "25.0", "-25.0", "-30.0 to +1.00", "5 paired"]);
        assert_eq!(lines[4], ["step time, ms", "0.500", "0.250", "× 0.500", "5 and 5, 2 left out"]);
        assert_eq!(lines.len(), 5);
    }

    #[test]
    fn the_csv_has_every_layer_and_an_empty_field_for_an_interval_that_is_missing() {
        let text = comparison_csv(&factors(), "small", &configurations()).expect("encodes");
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines[0],
            "configuration,network.activation,network.depth,quantity,layer,change,baseline_median,candidate_median,value,low,\
             high,paired,pairs,baseline_runs,candidate_runs,left_out"
        );
        assert_eq!(
            lines[2],
            "\"activation=relu, depth=3\",relu,3,gradient_l2_first,2,ratio,0.5,0.25,0.5,0.4,0.6,true,5,5,5,0"
        );
        assert_eq!(lines[5], "\"activation=relu, depth=3\",relu,3,step_time_ms,,ratio,0.5,0.25,0.5,,,false,0,5,5,2");
        assert_eq!(lines.len(), 6);
    }

    #[test]
    fn the_figure_has_a_line_a_configuration_and_is_missing_without_gradients() {
        let svg = comparison_figure(&factors(), ["before", "after"], &configurations()).expect("draws").expect("lines");
        for text in ["after by before", "first measured step", "activation=relu, depth=3", "no change"] {
            assert!(svg.contains(text), "{text}");
        }
        assert!(!svg.contains("last measured step"));
        let mut without = configurations();
        without[0].compared.retain(|one| one.layer.is_none());
        assert_eq!(comparison_figure(&factors(), ["before", "after"], &without), Ok(None));
    }

    #[test]
    fn an_environment_is_told_where_it_is_not_the_same_in_all_runs() {
        let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        let mut environments = Environments::default();
        environments.add("profile", texts(&["release", "release"]), texts(&["release"]));
        environments.add("adapter", texts(&["flex"]), texts(&["wgpu A", "wgpu A"]));
        environments.add("CPU", texts(&["X", "Y"]), texts(&["Y", "X"]));
        assert_eq!(
            environments.differences(),
            [
                "adapter: flex in the baseline, wgpu A in the candidate",
                "CPU: X and Y in the baseline, X and Y in the candidate"
            ]
        );
    }

    #[test]
    fn a_side_says_how_many_of_its_runs_diverged() {
        let side = Side { name: "results/a".to_owned(), configurations: 1, runs: 5, diverged: 2 };
        assert_eq!(side.describe(), "results/a: 1 configuration, 5 runs, 2 of them diverged");
        assert_eq!(Side { runs: 1, diverged: 0, ..side }.describe(), "results/a: 1 configuration, 1 run");
    }
}
