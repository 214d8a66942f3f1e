//! Small multiples of lines: panels with common axes, one colour a line, a band or bars for the spread.

use plotters::coord::Shift;
use plotters::coord::ranged1d::{DefaultFormatting, KeyPointHint, Ranged};
use plotters::element::{Circle, Cross, DashedPathElement, PathElement, Polygon, Text, TriangleMarker};
use plotters::prelude::{
    BLACK, Cartesian2d, ChartBuilder, ChartContext, Color, DrawingArea, DrawingAreaErrorKind, IntoDrawingArea,
    IntoFont, RGBColor, SVGBackend, ShapeStyle, WHITE,
};
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::format::{power_of_ten, significant};

/// An axis.
#[derive(Clone, Debug)]
pub struct Axis {
    /// What it shows, with its unit.
    pub label: String,
    /// How it is divided.
    pub scale: Scale,
}

/// The division of an axis.
#[derive(Clone, Debug, PartialEq)]
pub enum Scale {
    /// Equal steps.
    Linear,
    /// Whole numbers in equal steps.
    Count,
    /// Decades; the values are positive.
    Log,
    /// Names at 0, 1, 2 and so on.
    Names(Vec<String>),
}

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
    /// Whether its points are joined, with a band for the spread, or stand alone, with bars.
    pub joined: bool,
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

/// A figure.
#[derive(Clone, Debug)]
pub struct Chart {
    /// The title of the figure.
    pub title: String,
    /// A second line, smaller.
    pub subtitle: String,
    /// The horizontal axis.
    pub x: Axis,
    /// The vertical axis.
    pub y: Axis,
    /// The names of the colours.
    pub legend: Vec<String>,
    /// The meaning of solid and dashed lines, if both occur.
    pub styles: Option<[String; 2]>,
    /// The panels.
    pub panels: Vec<Panel>,
}

type Error<'a> = DrawingAreaErrorKind<<SVGBackend<'a> as plotters::prelude::DrawingBackend>::ErrorType>;
type Context<'a, 'b> = ChartContext<'a, SVGBackend<'b>, Cartesian2d<Ticked, Ticked>>;

/// A range with ticks at given places.
struct Ticked {
    low: f64,
    high: f64,
    ticks: Vec<f64>,
}

impl Ticked {
    fn new((low, high): (f64, f64), scale: &Scale) -> Self {
        Self { low, high, ticks: ticks(scale, (low, high)) }
    }
}

impl Ranged for Ticked {
    type FormatOption = DefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, (start, end): (i32, i32)) -> i32 {
        let share = (value - self.low) / (self.high - self.low);
        start + (f64::from(end - start) * share).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, hint: Hint) -> Vec<f64> {
        // Plotters asks twice: for the bold lines with their labels, and for the light lines between them.
        if hint.weight().allow_light_points() { Vec::new() } else { self.ticks.clone() }
    }

    fn range(&self) -> std::ops::Range<f64> {
        self.low..self.high
    }
}

impl From<Ticked> for std::ops::Range<f64> {
    fn from(ticked: Ticked) -> Self {
        ticked.low..ticked.high
    }
}

/// Okabe and Ito's colours, which the colour-blind can tell apart, without the yellow that print loses.
const COLORS: [RGBColor; 7] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(86, 180, 233),
    RGBColor(230, 159, 0),
    RGBColor(0, 0, 0),
];

const PANEL_WIDTH: u32 = 400;
const PANEL_HEIGHT: u32 = 300;
const FONT: &str = "sans-serif";

/// Where the heading starts, in pixels from the left.
const LEFT: i32 = 16;

/// The room of a sample of a line before its name.
const SAMPLE_WIDTH: i32 = 34;

/// The room of a name and of the gap behind it. Without font files widths are estimates; 8 pixels a character are enough
/// for this size.
fn text_width(name: &str) -> i32 {
    8 * name.chars().count() as i32 + 24
}

fn color(index: usize) -> RGBColor {
    COLORS[index % COLORS.len()]
}

impl Chart {
    /// Draws the figure as SVG.
    ///
    /// # Errors
    ///
    /// If plotters cannot draw it.
    pub fn to_svg(&self) -> Result<String, String> {
        let columns = match self.panels.len() {
            0 | 1 => 1,
            2 | 4 => 2,
            _ => 3,
        };
        let rows = self.panels.len().div_ceil(columns).max(1);
        let width = (columns as u32 * PANEL_WIDTH).max(640);
        let heading = self.heading_height(width as i32);
        let height = heading + rows as u32 * PANEL_HEIGHT;
        let mut svg = String::new();
        {
            let root = SVGBackend::with_string(&mut svg, (width, height)).into_drawing_area();
            self.draw(&root, heading, (rows, columns)).map_err(|error| error.to_string())?;
        }
        Ok(svg)
    }

    fn heading_height(&self, width: i32) -> u32 {
        let legend = self.legend_places(width).last().map_or(1, |(_, line)| 1 + *line as u32);
        let lines = legend + u32::from(!self.subtitle.is_empty()) + u32::from(self.needs_second_legend());
        46 + 24 * lines
    }

    /// Where each name of the legend starts, and on which of its lines.
    fn legend_places(&self, width: i32) -> Vec<(i32, i32)> {
        let (mut x, mut line) = (LEFT, 0);
        let mut places = Vec::new();
        for name in &self.legend {
            let end = x + SAMPLE_WIDTH + text_width(name);
            if end > width && x > LEFT {
                (x, line) = (LEFT, line + 1);
            }
            places.push((x, line));
            x += SAMPLE_WIDTH + text_width(name);
        }
        places
    }

    fn needs_second_legend(&self) -> bool {
        self.styles.is_some() || self.has_zeros() || self.has_nonfinite()
    }

    fn lines(&self) -> impl Iterator<Item = &Line> {
        self.panels.iter().flat_map(|panel| &panel.lines)
    }

    fn has_zeros(&self) -> bool {
        self.lines().any(|line| !line.zeros.is_empty())
    }

    fn has_nonfinite(&self) -> bool {
        self.lines().any(|line| !line.nonfinite.is_empty())
    }

    fn draw<'a>(
        &self,
        root: &DrawingArea<SVGBackend<'a>, Shift>,
        heading: u32,
        grid: (usize, usize),
    ) -> Result<(), Error<'a>> {
        root.fill(&WHITE)?;
        let (top, body) = root.split_vertically(heading);
        self.draw_heading(&top)?;
        let y_range = self.y_range();
        for (panel, area) in self.panels.iter().zip(body.split_evenly(grid)) {
            self.draw_panel(panel, &area, y_range)?;
        }
        root.present()
    }

    fn draw_heading<'a>(&self, area: &DrawingArea<SVGBackend<'a>, Shift>) -> Result<(), Error<'a>> {
        let mut y = 14;
        area.draw(&Text::new(self.title.clone(), (16, y), (FONT, 21).into_font()))?;
        y += 28;
        if !self.subtitle.is_empty() {
            area.draw(&Text::new(self.subtitle.clone(), (16, y), (FONT, 15).into_font()))?;
            y += 24;
        }
        let places = self.legend_places(area.dim_in_pixel().0 as i32);
        let top = y;
        for ((index, name), (x, line)) in self.legend.iter().enumerate().zip(places) {
            y = top + 24 * line;
            let style = color(index).stroke_width(3);
            area.draw(&PathElement::new(vec![(x, y + 8), (x + 26, y + 8)], style))?;
            area.draw(&marker(index, (x + 13, y + 8)))?;
            label(area, name, x + 34, y)?;
        }
        if self.needs_second_legend() {
            y += 24;
            let mut x = LEFT;
            if let Some([solid, dashed]) = &self.styles {
                area.draw(&PathElement::new(vec![(x, y + 8), (x + 26, y + 8)], BLACK.stroke_width(2)))?;
                x = label(area, solid, x + 34, y)?;
                let path = vec![(x, y + 8), (x + 26, y + 8)];
                area.draw(&DashedPathElement::new(path, 6, 4, BLACK.stroke_width(2)))?;
                x = label(area, dashed, x + 34, y)?;
            }
            if self.has_zeros() {
                area.draw(&TriangleMarker::new((x + 6, y + 8), -6, BLACK.stroke_width(2)))?;
                x = label(area, "exactly 0", x + 20, y)?;
            }
            if self.has_nonfinite() {
                area.draw(&Cross::new((x + 6, y + 8), 5, BLACK.stroke_width(2)))?;
                label(area, "infinite or not a number", x + 20, y)?;
            }
        }
        Ok(())
    }

    fn draw_panel<'a>(
        &self,
        panel: &Panel,
        area: &DrawingArea<SVGBackend<'a>, Shift>,
        y_range: (f64, f64),
    ) -> Result<(), Error<'a>> {
        let x_range = self.x_range(panel);
        let mut builder = ChartBuilder::on(area);
        builder.margin(8).margin_right(18).x_label_area_size(46).y_label_area_size(70);
        if !panel.title.is_empty() {
            builder.caption(&panel.title, (FONT, 17));
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
                let stroke: ShapeStyle = color.stroke_width(2);
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
        if middle.len() <= 60 {
            chart.draw_series(middle.iter().map(|at| marker(line.color, *at)))?;
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
        let points = self.lines().flat_map(|line| &line.points);
        let places = points.flat_map(|point| [point.low, point.y, point.high]).map(|y| place(&self.y.scale, y));
        let (low, high) = span(places).unwrap_or((0.0, 1.0));
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

/// Writes a name of the legend and returns where the next one starts.
fn label<'a>(area: &DrawingArea<SVGBackend<'a>, Shift>, name: &str, x: i32, y: i32) -> Result<i32, Error<'a>> {
    let style = (FONT, 15).into_font();
    let style = plotters::style::TextStyle::from(style).pos(Pos::new(HPos::Left, VPos::Center));
    area.draw(&Text::new(name.to_owned(), (x, y + 8), style))?;
    Ok(x + text_width(name))
}

/// The marker of a colour, so that a line is known without it: disc, ring, then the same again larger.
fn marker<C>(index: usize, at: C) -> Circle<C, i32> {
    let style = color(index);
    match index % 4 {
        0 => Circle::new(at, 3, style.filled()),
        1 => Circle::new(at, 3, style.stroke_width(2)),
        2 => Circle::new(at, 5, style.filled()),
        _ => Circle::new(at, 5, style.stroke_width(2)),
    }
}

/// Where a value stands in the coordinates of its axis.
fn place(scale: &Scale, value: f64) -> f64 {
    match scale {
        Scale::Log => value.max(f64::MIN_POSITIVE).log10(),
        _ => value,
    }
}

fn span(places: impl Iterator<Item = f64>) -> Option<(f64, f64)> {
    places.filter(|place| place.is_finite()).fold(None, |span, place| match span {
        None => Some((place, place)),
        Some((low, high)) => Some((low.min(place), high.max(place))),
    })
}

/// The most labels of an axis.
const MAX_TICKS: f64 = 7.0;

fn ticks(scale: &Scale, (low, high): (f64, f64)) -> Vec<f64> {
    if let Scale::Names(names) = scale {
        return (0..names.len()).map(|place| place as f64).collect();
    }
    let mut step = ((high - low) / MAX_TICKS).max(1e-12);
    let magnitude = 10f64.powf(step.log10().floor());
    step = [1.0, 2.0, 5.0, 10.0].into_iter().map(|nice| nice * magnitude).find(|nice| *nice >= step).unwrap_or(step);
    if matches!(scale, Scale::Log | Scale::Count) {
        step = step.max(1.0).round();
    }
    let first = (low / step).ceil() as i64;
    let last = (high / step).floor() as i64;
    (first..=last).map(|tick| tick as f64 * step).collect()
}

fn tick_label(scale: &Scale, place: f64) -> String {
    match scale {
        Scale::Log => power_of_ten(place.round() as i64),
        Scale::Names(names) => names.get(place.round() as usize).cloned().unwrap_or_default(),
        Scale::Count => format!("{place:.0}"),
        Scale::Linear if place.abs() >= 1e4 => significant(place, 3),
        Scale::Linear => {
            let text = format!("{place:.4}");
            text.trim_end_matches('0').trim_end_matches('.').to_owned()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chart(line: Line) -> Chart {
        Chart {
            title: "Gradient".to_owned(),
            subtitle: String::new(),
            x: Axis { label: "layer".to_owned(), scale: Scale::Count },
            y: Axis { label: "norm".to_owned(), scale: Scale::Log },
            legend: vec!["relu".to_owned()],
            styles: None,
            panels: vec![Panel { title: String::new(), lines: vec![line] }],
        }
    }

    #[test]
    fn ticks_of_a_log_axis_are_whole_decades_and_of_a_linear_one_round_numbers() {
        assert_eq!(ticks(&Scale::Log, (-12.0, 0.0)), [-12.0, -10.0, -8.0, -6.0, -4.0, -2.0, 0.0]);
        assert_eq!(ticks(&Scale::Linear, (0.0, 1.03)), [0.0, 0.2, 0.4, 0.600_000_000_000_000_1, 0.8, 1.0]);
        assert_eq!(ticks(&Scale::Count, (0.9, 2.1)), [1.0, 2.0]);
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
}
