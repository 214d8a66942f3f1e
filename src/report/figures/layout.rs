//! Which runs belong together, and which lines share a panel.

use crate::record::RunRecord;
use crate::report::axis::Axis;
use crate::report::chart::{Chart, Line, Panel};
use crate::report::format::short_name;
use crate::report::page::Heading;
use crate::schema::GradientRow;

/// Which runs share a line and which lines share a panel: the first factor gives the colours, the others the panels.
pub struct Layout<'a> {
    /// The name of the experiment.
    pub title: String,
    /// The levels of the first factor.
    pub color_names: Vec<String>,
    /// The names of all factors.
    pub factors: String,
    /// The names of the other factors.
    pub panel_factors: String,
    /// The levels of the other factors, each with its lines.
    pub panels: Vec<(String, Vec<Group<'a>>)>,
    /// The same runs by all factors, in the order in which they were made.
    pub configurations: Vec<Configuration<'a>>,
}

/// The runs of a configuration, over which a line shows the spread.
pub struct Group<'a> {
    /// The level of the first factor.
    pub color: usize,
    /// The runs.
    pub runs: Vec<&'a RunRecord>,
}

/// The runs of a configuration, for figures that give each a panel of its own.
pub struct Configuration<'a> {
    /// Every factor with its level; empty without factors.
    pub title: String,
    /// The levels alone, which are shorter.
    pub levels: String,
    /// One run a seed.
    pub runs: Vec<&'a RunRecord>,
}

impl<'a> Layout<'a> {
    /// Lays out runs that have the same factors.
    pub fn new(runs: &'a [RunRecord]) -> Self {
        let factors: Vec<String> = runs
            .first()
            .map(|run| run.manifest.factors.iter().map(|(name, _)| name.clone()).collect())
            .unwrap_or_default();
        let names: Vec<&str> = factors.iter().map(|name| short_name(name)).collect();
        let mut layout = Self {
            factors: names.join(", "),
            title: runs.first().map_or_else(String::new, |run| run.manifest.experiment.clone()),
            color_names: Vec::new(),
            panel_factors: names.get(1..).unwrap_or_default().join(", "),
            panels: Vec::new(),
            configurations: Vec::new(),
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
            match layout.configurations.iter_mut().find(|known| known.runs[0].manifest.factors == *levels) {
                Some(known) => known.runs.push(run),
                None => layout.configurations.push(Configuration::new(run)),
            }
        }
        layout
    }

    /// Title and subtitle of a figure.
    pub fn heading(&self, what: &str, subtitle: impl Into<String>) -> Heading {
        Heading { title: format!("{}: {what}", self.title), subtitle: subtitle.into() }
    }

    /// A chart without panels.
    pub fn chart(&self, what: &str, subtitle: impl Into<String>, x: Axis, y: Axis) -> Chart {
        Chart {
            heading: self.heading(what, subtitle),
            x,
            y,
            legend: self.color_names.clone(),
            styles: Vec::new(),
            level: None,
            panels: Vec::new(),
        }
    }

    /// One panel for each choice of the other factors, with the lines that `lines` makes of each group.
    pub fn panels(&self, lines: impl Fn(&Group<'a>) -> Vec<Line>) -> Vec<Panel> {
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

impl<'a> Configuration<'a> {
    fn new(run: &'a RunRecord) -> Self {
        let factors = &run.manifest.factors;
        // activation = relu, depth = 8
        let named: Vec<String> =
            factors.iter().map(|(name, level)| format!("{} = {level}", short_name(name))).collect();
        let levels: Vec<&str> = factors.iter().map(|(_, level)| level.as_str()).collect();
        Self { title: named.join(", "), levels: levels.join(", "), runs: vec![run] }
    }
}

fn position_or_push<T>(items: &mut Vec<T>, item: T, same: impl Fn(&T, &T) -> bool) -> usize {
    if let Some(place) = items.iter().position(|known| same(known, &item)) {
        return place;
    }
    items.push(item);
    items.len() - 1
}

/// What a subtitle says of configurations that a figure has no room for; nothing if it has.
pub fn left_out(count: usize) -> String {
    match count {
        0 => String::new(),
        1 => " One more configuration is left out.".to_owned(),
        count => format!(" {count} more configurations are left out."),
    }
}

/// The number of a hidden layer, from 1 at the input: 4 for `hidden.3`. `None` for stem and output.
pub fn hidden_number(layer: &str) -> Option<usize> {
    layer.strip_prefix("hidden.")?.parse::<usize>().ok().map(|index| index + 1)
}

/// The rows of the weights of hidden layers, each with the number of its layer.
pub fn hidden_weights(run: &RunRecord) -> impl Iterator<Item = (usize, &GradientRow)> {
    let weights = run.rows.gradients.iter().filter(|row| row.parameter.ends_with(".weight"));
    weights.filter_map(|row| hidden_number(&row.layer).map(|number| (number, row)))
}
