//! Which runs belong together, and which lines share a panel.

use crate::record::RunRecord;
use crate::report::axis::Axis;
use crate::report::chart::{Chart, Line, Panel};
use crate::report::format::short_name;
use crate::report::page::Heading;

/// Which runs share a line and which lines share a panel: the first factor gives the colours, the others the panels.
pub struct Layout<'a> {
    runs: &'a [RunRecord],
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
    factors: Vec<Level<'a>>,
}

/// A factor and its level.
type Level<'a> = (&'a str, &'a str);

impl<'a> Layout<'a> {
    /// Lays out runs that have the same factors.
    pub fn new(runs: &'a [RunRecord]) -> Self {
        Self::by(runs, |run| levels(run).collect())
    }

    /// All runs.
    pub fn runs(&self) -> &'a [RunRecord] {
        self.runs
    }

    /// The same runs without a factor, so that those which differ in it alone belong together; `None` if there is no such
    /// factor.
    pub fn without(&self, factor: &str) -> Option<Self> {
        let is_known = self.runs.first()?.manifest.factors.iter().any(|(name, _)| name == factor);
        is_known.then(|| Self::by(self.runs, |run| levels(run).filter(|(name, _)| *name != factor).collect()))
    }

    fn by(runs: &'a [RunRecord], levels: impl Fn(&'a RunRecord) -> Vec<Level<'a>>) -> Self {
        let names: Vec<&str> =
            runs.first().map(&levels).unwrap_or_default().iter().map(|(name, _)| short_name(name)).collect();
        let mut layout = Self {
            runs,
            factors: names.join(", "),
            title: runs.first().map_or_else(String::new, |run| run.manifest.experiment.clone()),
            color_names: Vec::new(),
            panel_factors: names.get(1..).unwrap_or_default().join(", "),
            panels: Vec::new(),
            configurations: Vec::new(),
        };
        for run in runs {
            let levels = levels(run);
            let name = levels.first().map_or_else(|| layout.title.clone(), |(_, level)| (*level).to_owned());
            let color = position_or_push(&mut layout.color_names, name, |known, name| known == name);
            let rest: Vec<&str> = levels.iter().skip(1).map(|(_, level)| *level).collect();
            let panel = position_or_push(&mut layout.panels, (rest.join(", "), Vec::new()), |a, b| a.0 == b.0);
            let groups = &mut layout.panels[panel].1;
            match groups.iter_mut().find(|group| group.color == color) {
                Some(group) => group.runs.push(run),
                None => groups.push(Group { color, runs: vec![run] }),
            }
            match layout.configurations.iter_mut().find(|known| known.factors == levels) {
                Some(known) => known.runs.push(run),
                None => layout.configurations.push(Configuration::new(run, levels)),
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
            range: None,
            few_markers: false,
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
    fn new(run: &'a RunRecord, factors: Vec<Level<'a>>) -> Self {
        // activation = relu, depth = 8
        let named: Vec<String> =
            factors.iter().map(|(name, level)| format!("{} = {level}", short_name(name))).collect();
        let levels: Vec<&str> = factors.iter().map(|(_, level)| *level).collect();
        Self { title: named.join(", "), levels: levels.join(", "), runs: vec![run], factors }
    }
}

/// Every factor of a run with its level.
fn levels(run: &RunRecord) -> impl Iterator<Item = Level<'_>> {
    run.manifest.factors.iter().map(|(name, level)| (name.as_str(), level.as_str()))
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

#[cfg(test)]
mod tests {
    use super::super::tests::record;
    use super::*;

    #[test]
    fn without_the_first_factor_the_second_gives_the_colours_and_runs_that_differ_in_the_first_are_gathered() {
        let run = |length, cell, bias| {
            record(&[("data.sequence_length", length), ("network.cell", cell), ("network.bias", bias)])
        };
        let runs = [run("10", "rnn", "0"), run("10", "gru", "0"), run("20", "rnn", "0"), run("20", "gru", "1")];
        let layout = Layout::new(&runs);
        assert_eq!((layout.configurations.len(), layout.color_names.len(), layout.panels.len()), (4, 2, 3));
        let rest = layout.without("data.sequence_length").expect("swept");
        assert_eq!((&rest.color_names[..], &*rest.panel_factors), (&["rnn".to_owned(), "gru".to_owned()][..], "bias"));
        let titles: Vec<&str> = rest.configurations.iter().map(|known| known.title.as_str()).collect();
        assert_eq!(titles, ["cell = rnn, bias = 0", "cell = gru, bias = 0", "cell = gru, bias = 1"]);
        assert_eq!(rest.panels[0].1[0].runs.len(), 2);
        assert!(layout.without("network.depth").is_none());
    }
}
