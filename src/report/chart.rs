//! Small multiples of lines: panels with common axes, one colour a line, a band or bars for the spread.

use plotters::element::{Circle, Cross, DashedPathElement, PathElement, Polygon, TriangleMarker};
use plotters::prelude::{BLACK, Cartesian2d, ChartBuilder, ChartContext, Color, SVGBackend, ShapeStyle, WHITE};

use super::axis::{Axis, Scale, Ticked, place, tick_label};
use super::color::{color, marker};
use super::page::{Area, Error, FONT, Figure, Heading, LEFT, LINE_HEIGHT, draw_page, label, shortened, text_width};

/// A value with its spread.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    /// Where it stands.
    pub x: f64,
    /// The middle.
    pub y: f64,
    /// The lower end of the spread.
    pub low: f64,
    /// The upper end of the spread.
    pub high: f64,
}

/// A line of a panel.
#[derive(Clone, Debug, Default)]
pub struct Line {
    /// The number of its colour and name in the legend.
    pub color: usize,
    /// Whether it is dashed.
    pub dashed: bool,
    /// Whether it is broad and pale, to lie under others.
    pub broad: bool,
    /// Whether its points are joined, with a band for the spread, or stand alone, with bars.
    pub joined: bool,
    /// Whether it goes without markers, as a function of which all points are known.
    pub bare: bool,
    /// Its points, from left to right.
    pub points: Vec<Point>,
    /// Where a value is exactly 0, which has no place on a logarithmic axis.
    pub zeros: Vec<f64>,
    /// Where a value is infinite or not a number.
    pub nonfinite: Vec<f64>,
}

impl Line {
    /// The number of places on the horizontal axis at which something is drawn.
    pub fn places(&self) -> usize {
        let mut places: Vec<f64> = self.points.iter().map(|point| point.x).collect();
        places.extend(self.zeros.iter().chain(&self.nonfinite));
        places.sort_by(f64::total_cmp);
        places.dedup();
        places.len()
    }

    /// The points in stretches: a line does not pass over a place where there is only a value that cannot be drawn.
    fn stretches(&self) -> Vec<&[Point]> {
        let gaps = || self.zeros.iter().chain(&self.nonfinite);
        self.points.chunk_by(|a, b| !gaps().any(|gap| a.x < *gap && *gap < b.x)).collect()
    }
}

/// One chart of the figure.
#[derive(Clone, Debug)]
pub struct Panel {
    /// What sets it apart from the others.
    pub title: String,
    /// Its lines.
    pub lines: Vec<Line>,
}

/// A way to draw lines that the legend explains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// Solid.
    Solid,
    /// Dashed.
    Dashed,
    /// Broad and pale.
    Broad,
    /// Markers alone.
    Markers,
}

/// A figure.
#[derive(Clone, Debug)]
pub struct Chart {
    /// Title and subtitle.
    pub heading: Heading,
    /// The horizontal axis.
    pub x: Axis,
    /// The vertical axis.
    pub y: Axis,
    /// The names of the colours.
    pub legend: Vec<String>,
    /// The meaning of the styles, if several occur.
    pub styles: Vec<(Style, String)>,
    /// A value that a line across every panel marks, and its name.
    pub level: Option<(f64, String)>,
    /// The range of a linear vertical axis; without one, that of the points.
    pub range: Option<(f64, f64)>,
    /// Whether lines of many points have markers on a few of them only.
    pub few_markers: bool,
    /// The panels.
    pub panels: Vec<Panel>,
}

/// What the legend shows before a name.
#[derive(Clone, Copy)]
enum Sample {
    Color(usize),
    Style(Style),
    Level,
    Zero,
    NotFinite,
}

impl Sample {
    /// The room that it takes.
    fn width(self) -> i32 {
        match self {
            Self::Color(_) | Self::Level | Self::Style(Style::Solid | Style::Dashed | Style::Broad) => 34,
            Self::Style(Style::Markers) | Self::Zero | Self::NotFinite => 20,
        }
    }

    fn draw<'a>(self, area: &Area<'a>, (x, y): (i32, i32)) -> Result<(), Error<'a>> {
        let line = || vec![(x, y + 8), (x + 26, y + 8)];
        let stroke = BLACK.stroke_width(2);
        match self {
            Self::Color(index) => {
                area.draw(&PathElement::new(line(), color(index).stroke_width(3)))?;
                area.draw(&marker(index, (x + 13, y + 8)))
            }
            Self::Style(Style::Solid) => area.draw(&PathElement::new(line(), stroke)),
            Self::Style(Style::Dashed) => area.draw(&DashedPathElement::new(line(), 6, 4, stroke)),
            Self::Style(Style::Broad) => area.draw(&PathElement::new(line(), broad(BLACK))),
            Self::Style(Style::Markers) => area.draw(&Circle::new((x + 6, y + 8), 3, BLACK.filled())),
            Self::Level => area.draw(&DashedPathElement::new(line(), 2, 3, stroke)),
            Self::Zero => area.draw(&TriangleMarker::new((x + 6, y + 8), -6, stroke)),
            Self::NotFinite => area.draw(&Cross::new((x + 6, y + 8), 5, stroke)),
        }
    }
}

/// The stroke of a line that lies under others.
fn broad(color: impl Color) -> ShapeStyle {
    color.mix(0.3).stroke_width(8)
}

type Context<'a, 'b> = ChartContext<'a, SVGBackend<'b>, Cartesian2d<Ticked, Ticked>>;

/// A line with more markers has none.
const MAX_MARKERS: usize = 60;
/// So many markers leave room to see whether a line is dashed.
const FEW_MARKERS: usize = 12;
const PANEL_WIDTH: u32 = 400;
const PANEL_HEIGHT: u32 = 300;

impl Figure for Chart {
    fn to_svg(&self) -> Result<String, String> {
        let columns = match self.panels.len() {
            0 | 1 => 1,
            2 | 4 => 2,
            _ => 3,
        };
        let rows = self.panels.len().div_ceil(columns).max(1);
        let width = (columns as u32 * PANEL_WIDTH).max(640);
        let legend = self.legend_places(width);
        let legend_height = legend.last().map_or(0, |(_, _, (_, y))| y + LINE_HEIGHT);
        let heading = self.heading.height(width);
        let top = heading + legend_height + 4;
        draw_page((width, top as u32 + rows as u32 * PANEL_HEIGHT), |root| {
            self.heading.draw(root)?;
            for (sample, name, (x, y)) in legend {
                sample.draw(root, (x, heading + y))?;
                label(root, &name, (x + sample.width(), heading + y))?;
            }
            let (_, body) = root.split_vertically(top);
            let y_range = self.y_range();
            for (panel, area) in self.panels.iter().zip(body.split_evenly((rows, columns))) {
                self.draw_panel(panel, &area, y_range)?;
            }
            Ok(())
        })
    }
}

impl Chart {
    /// Whether a line of any panel is dashed.
    pub fn has_dashes(&self) -> bool {
        self.lines().any(|line| line.dashed)
    }

    /// Every entry of the legend with its place: the colours first, then, on a new line, how lines are drawn.
    fn legend_places(&self, width: u32) -> Vec<(Sample, String, (i32, i32))> {
        let colors = self.legend.iter().enumerate().map(|(index, name)| (Sample::Color(index), name.clone()));
        let mut meanings: Vec<(Sample, String)> =
            self.styles.iter().map(|(style, name)| (Sample::Style(*style), name.clone())).collect();
        meanings.extend(self.level.iter().map(|(_, name)| (Sample::Level, name.clone())));
        if self.lines().any(|line| !line.zeros.is_empty()) {
            meanings.push((Sample::Zero, "exactly 0".to_owned()));
        }
        if self.lines().any(|line| !line.nonfinite.is_empty()) {
            meanings.push((Sample::NotFinite, "infinite or not a number".to_owned()));
        }
        let mut places = Vec::new();
        let mut y = 0;
        for entries in [colors.collect(), meanings] {
            let mut x = LEFT;
            for (sample, name) in entries {
                let entry_width = sample.width() + text_width(&name);
                // A name's last pixels are the gap behind it, which may stand over the edge.
                if x + entry_width > width as i32 + 16 && x > LEFT {
                    (x, y) = (LEFT, y + LINE_HEIGHT);
                }
                places.push((sample, name, (x, y)));
                x += entry_width;
            }
            if x > LEFT {
                y += LINE_HEIGHT;
            }
        }
        places
    }

    fn lines(&self) -> impl Iterator<Item = &Line> {
        self.panels.iter().flat_map(|panel| &panel.lines)
    }

    fn draw_panel<'a>(&self, panel: &Panel, area: &Area<'a>, y_range: (f64, f64)) -> Result<(), Error<'a>> {
        let x_range = self.x_range(panel);
        let mut builder = ChartBuilder::on(area);
        builder.margin(8).margin_right(18).x_label_area_size(46).y_label_area_size(70);
        if !panel.title.is_empty() {
            builder.caption(shortened(&panel.title, area.dim_in_pixel().0 - 10), (FONT, 17));
        }
        let mut chart =
            builder.build_cartesian_2d(Ticked::new(x_range, &self.x.scale), Ticked::new(y_range, &self.y.scale))?;
        chart
            .configure_mesh()
            .bold_line_style(BLACK.mix(0.12))
            .light_line_style(WHITE.mix(0.0))
            .x_desc(self.x.label.clone())
            .y_desc(self.y.label.clone())
            .axis_desc_style((FONT, 15))
            .label_style((FONT, 14))
            .x_label_formatter(&|value| tick_label(&self.x.scale, *value))
            .y_label_formatter(&|value| tick_label(&self.y.scale, *value))
            .draw()?;
        if let Some((level, _)) = &self.level {
            let y = place(&self.y.scale, *level);
            let across = vec![(x_range.0, y), (x_range.1, y)];
            chart.draw_series([DashedPathElement::new(across, 2, 3, BLACK.stroke_width(2))])?;
        }
        for line in &panel.lines {
            self.draw_line(&mut chart, line, x_range, y_range)?;
        }
        Ok(())
    }

    fn draw_line<'a>(
        &self,
        chart: &mut Context<'_, 'a>,
        line: &Line,
        x_range: (f64, f64),
        y_range: (f64, f64),
    ) -> Result<(), Error<'a>> {
        let color = color(line.color);
        let at = |point: &Point, y: f64| (place(&self.x.scale, point.x), place(&self.y.scale, y));
        let middle: Vec<(f64, f64)> = line.points.iter().map(|point| at(point, point.y)).collect();
        if line.joined {
            for stretch in line.stretches() {
                let lower = stretch.iter().map(|point| at(point, point.low));
                let upper = stretch.iter().rev().map(|point| at(point, point.high));
                let outline: Vec<(f64, f64)> = lower.chain(upper).collect();
                chart.draw_series([Polygon::new(outline, color.mix(0.16))])?;
                let middle: Vec<(f64, f64)> = stretch.iter().map(|point| at(point, point.y)).collect();
                let stroke: ShapeStyle = if line.broad { broad(color) } else { color.stroke_width(2) };
                if line.dashed {
                    chart.draw_series([DashedPathElement::new(middle, 6, 4, stroke)])?;
                } else {
                    chart.draw_series([PathElement::new(middle, stroke)])?;
                }
            }
        } else {
            for point in &line.points {
                let ends = vec![at(point, point.low), at(point, point.high)];
                chart.draw_series([PathElement::new(ends, color.stroke_width(2))])?;
            }
        }
        // Markers tell the lines apart in black and white; too many of them would hide the line.
        let points_a_marker = if self.few_markers { middle.len().div_ceil(FEW_MARKERS).max(1) } else { 1 };
        if !line.bare && (middle.len() / points_a_marker <= MAX_MARKERS || !line.joined) {
            chart.draw_series(middle.iter().step_by(points_a_marker).map(|at| marker(line.color, *at)))?;
        }
        // What has no place on the axis stands at its edge.
        let edge = |x: f64, y: f64| (place(&self.x.scale, x).clamp(x_range.0, x_range.1), y);
        let stroke: ShapeStyle = color.stroke_width(2);
        chart.draw_series(line.zeros.iter().map(|x| TriangleMarker::new(edge(*x, y_range.0), -6, stroke)))?;
        chart.draw_series(line.nonfinite.iter().map(|x| Cross::new(edge(*x, y_range.1), 5, stroke)))?;
        Ok(())
    }

    fn x_range(&self, panel: &Panel) -> (f64, f64) {
        if let Scale::Names(names) = &self.x.scale {
            return (-0.5, names.len() as f64 - 0.5);
        }
        let lines = || panel.lines.iter();
        let places = lines()
            .flat_map(|line| line.points.iter().map(|point| point.x))
            .chain(lines().flat_map(|line| line.zeros.iter().chain(&line.nonfinite).copied()))
            .map(|x| place(&self.x.scale, x));
        let (low, high) = span(places).unwrap_or((0.0, 1.0));
        let margin = ((high - low) * 0.03).max(0.02);
        (low - margin, high + margin)
    }

    fn y_range(&self) -> (f64, f64) {
        if let Some((low, high)) = self.range {
            // So that a line on the edge, and its markers, can be seen.
            let margin = (high - low) * 0.04;
            return (low - margin, high + margin);
        }
        let points = self.lines().flat_map(|line| &line.points);
        let values = points.flat_map(|point| [point.low, point.y, point.high]);
        let values = values.chain(self.level.iter().map(|(level, _)| *level));
        let (low, high) = span(values.map(|y| place(&self.y.scale, y))).unwrap_or((0.0, 1.0));
        if self.y.scale == Scale::Log {
            // At least two decades, ending on whole ones.
            let (low, high) = (low.floor(), high.ceil());
            return if high - low < 2.0 { (low - 1.0, high + 1.0) } else { (low, high) };
        }
        let margin = if high > low { (high - low) * 0.06 } else { (low.abs() * 0.05).max(0.5) };
        let floor = if low >= 0.0 && low < 0.5 * high { 0.0 } else { low - margin };
        (floor, high + margin)
    }
}

fn span(places: impl Iterator<Item = f64>) -> Option<(f64, f64)> {
    places.filter(|place| place.is_finite()).fold(None, |span, place| match span {
        None => Some((place, place)),
        Some((low, high)) => Some((low.min(place), high.max(place))),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chart(line: Line) -> Chart {
        Chart {
            heading: Heading { title: "Gradient".to_owned(), subtitle: String::new() },
            x: Axis { label: "layer".to_owned(), scale: Scale::Count },
            y: Axis { label: "norm".to_owned(), scale: Scale::Log },
            legend: vec!["relu".to_owned()],
            styles: Vec::new(),
            level: None,
            range: None,
            few_markers: false,
            panels: vec![Panel { title: String::new(), lines: vec![line] }],
        }
    }

    #[test]
    fn a_zero_and_a_nan_are_marked_at_the_edge_and_explained_and_a_plain_line_has_neither() {
        let points =
            vec![Point { x: 1.0, y: 1e-3, low: 1e-4, high: 1e-2 }, Point { x: 2.0, y: 1.0, low: 0.5, high: 2.0 }];
        let plain = Line { joined: true, points, ..Line::default() };
        let marked = Line { zeros: vec![1.0], nonfinite: vec![2.0], ..plain.clone() };
        let plain = chart(plain).to_svg().expect("draws");
        let marked = chart(marked).to_svg().expect("draws");
        for text in ["exactly 0", "infinite or not a number"] {
            assert!(marked.contains(text) && !plain.contains(text));
        }
        assert!(plain.contains("10⁻⁴") && plain.contains("layer") && plain.contains("relu"));
    }

    #[test]
    fn a_level_beyond_all_points_is_within_the_axis_and_named() {
        let point = Point { x: 1.0, y: 1.0, low: 1.0, high: 1.0 };
        let mut chart = chart(Line { points: vec![point], ..Line::default() });
        chart.level = Some((1e-5, "threshold".to_owned()));
        let (low, high) = chart.y_range();
        assert!(low <= -5.0 && high >= 0.0, "{low} {high}");
        assert!(chart.to_svg().expect("draws").contains("threshold"));
    }

    #[test]
    fn a_line_of_many_points_has_a_marker_on_each_a_few_or_none_but_always_markers_if_asked_for_few() {
        let markers = |count: usize, few_markers: bool| {
            let points = (0..count).map(|x| Point { x: x as f64, y: 1.0, low: 1.0, high: 1.0 }).collect();
            let chart =
                Chart { few_markers, legend: Vec::new(), ..chart(Line { joined: true, points, ..Line::default() }) };
            chart.to_svg().expect("draws").matches("<circle").count()
        };
        assert_eq!((markers(10, false), markers(60, false), markers(61, false)), (10, 60, 0));
        assert_eq!((markers(10, true), markers(60, true), markers(200, true)), (10, 12, 12));
    }

    #[test]
    fn a_given_range_holds_whatever_the_points_are() {
        let point = Point { x: 1.0, y: 0.5, low: 0.5, high: 0.5 };
        let mut chart = chart(Line { points: vec![point], ..Line::default() });
        chart.y.scale = Scale::Linear;
        chart.range = Some((0.0, 1.0));
        assert_eq!(chart.y_range(), (-0.04, 1.04));
    }

    #[test]
    fn entries_of_a_legend_of_14_names_do_not_overlap() {
        let mut chart = chart(Line::default());
        chart.legend = (0..14).map(|number| format!("activation number {number}")).collect();
        chart.styles = vec![(Style::Solid, "first".to_owned()), (Style::Dashed, "last".to_owned())];
        let places = chart.legend_places(640);
        assert_eq!(places.len(), 16);
        for pair in places.windows(2) {
            let ((sample, name, (x, y)), (_, _, (next_x, next_y))) = (&pair[0], &pair[1]);
            let end = x + sample.width() + text_width(name);
            assert!(end <= 640 + 16 && (next_y > y || *next_x >= end), "{name}");
        }
    }
}
