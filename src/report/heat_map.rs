//! Heat maps: panels of cells with one scale of colours.

use std::collections::BTreeMap;
use std::fmt::Write;

use plotters::element::{PathElement, Rectangle, Text};
use plotters::prelude::{BLACK, ChartBuilder, Color, IntoFont, RGBColor, TextStyle};
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::axis::{Scale, Ticked, place, tick_label, ticks};
use super::color::viridis;
use super::page::{Area, Error, FONT, Figure, Heading, LEFT, characters, draw_page, label, shortened, text_width};

/// A cell of a panel.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Cell {
    /// Nothing was measured.
    Missing,
    /// A value that has a colour.
    Value(f64),
    /// Exactly 0, which has no place on a logarithmic scale.
    Zero,
    /// Infinite or not a number.
    NotFinite,
}

/// The cells of one configuration.
#[derive(Clone, Debug)]
pub struct HeatPanel {
    /// What sets it apart from the others.
    pub title: String,
    /// The names of the columns.
    pub columns: Vec<String>,
    /// How many things there are on the vertical axis, which counts them from 1 at the bottom.
    pub count: usize,
    /// How many of them share a row; the last row may have fewer.
    pub per_row: usize,
    /// The rows from the bottom to the top, each with a cell for every column.
    pub rows: Vec<Vec<Cell>>,
}

/// A figure.
#[derive(Clone, Debug)]
pub struct HeatMap {
    /// Title and subtitle.
    pub heading: Heading,
    /// What the columns are.
    pub x_label: String,
    /// What the rows are.
    pub y_label: String,
    /// What the colours show.
    pub value_label: String,
    /// The division of the colours.
    pub scale: Scale,
    /// The lowest and the highest value of the scale; `None` for those that occur.
    pub range: Option<(f64, f64)>,
    /// The panels.
    pub panels: Vec<HeatPanel>,
}

const PANEL_WIDTH: u32 = 320;
const PANEL_HEIGHT: u32 = 240;
/// The scale of colours, with room for half a number before it.
const BAR_LEFT: i32 = LEFT + 12;
const BAR_WIDTH: i32 = 300;
/// The height of the scale of colours with its numbers and its name.
const SCALE_HEIGHT: i32 = 66;
/// So many colours suffice for the eye, and more would make the file longer.
const LEVELS: usize = 64;

/// Whether the title of a panel can be shown whole.
pub fn has_room_for(title: &str) -> bool {
    title.chars().count() <= characters(PANEL_WIDTH - 10)
}

/// What a cell is filled with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Fill {
    Level(usize),
    Zero,
    NotFinite,
}

impl Fill {
    /// The value of SVG's `fill`.
    fn paint(self) -> String {
        match self {
            Self::Level(level) => hexadecimal(viridis(level as f64 / (LEVELS - 1) as f64)),
            Self::Zero => "url(#exactly-0)".to_owned(),
            Self::NotFinite => "url(#not-finite)".to_owned(),
        }
    }
}

/// The patterns of what has no colour: grey with strokes, white with red crosses.
const PATTERNS: &str = "<defs>\
    <pattern id=\"exactly-0\" width=\"6\" height=\"6\" patternUnits=\"userSpaceOnUse\">\
    <rect width=\"6\" height=\"6\" fill=\"#DDDDDD\"/><path d=\"M0 6L6 0\" stroke=\"#777777\"/></pattern>\
    <pattern id=\"not-finite\" width=\"6\" height=\"6\" patternUnits=\"userSpaceOnUse\">\
    <rect width=\"6\" height=\"6\" fill=\"#FFFFFF\"/><path d=\"M0 0L6 6M0 6L6 0\" stroke=\"#D55E00\"/></pattern></defs>";

fn hexadecimal(RGBColor(red, green, blue): RGBColor) -> String {
    format!("#{red:02X}{green:02X}{blue:02X}")
}

impl Figure for HeatMap {
    fn to_svg(&self) -> Result<String, String> {
        let columns = match self.panels.len() {
            0..=2 | 4 => 2,
            3..=9 => 3,
            _ => 4,
        };
        let rows = self.panels.len().div_ceil(columns).max(1);
        let width = columns as u32 * PANEL_WIDTH;
        let heading = self.heading.height(width);
        let legend = self.legend_places(width);
        let scale = heading + legend.last().map_or(0, |(_, _, (_, y))| y + SCALE_HEIGHT);
        let top = scale.max(heading + SCALE_HEIGHT);
        // Plotters writes an element a cell; one path a colour is an eighth as long.
        let mut cells = String::new();
        let mut svg = draw_page((width, top as u32 + rows as u32 * PANEL_HEIGHT), |root| {
            self.heading.draw(root)?;
            self.draw_scale(root, heading)?;
            for (fill, name, (x, y)) in legend {
                write_rectangles(&mut cells, fill, &[[x, heading + y + 2, 14, 14]]);
                label(root, &name, (x + 22, heading + y))?;
            }
            let (_, body) = root.split_vertically(top);
            for (panel, area) in self.panels.iter().zip(body.split_evenly((rows, columns))) {
                self.draw_panel(panel, &area, &mut cells)?;
            }
            Ok(())
        })?;
        let end = svg.rfind("</svg>").ok_or("the end of the page is missing")?;
        svg.insert_str(end, &format!("{PATTERNS}\n{cells}"));
        Ok(svg)
    }
}

impl HeatMap {
    /// The ends of the scale in the coordinates of its axis; of a logarithmic one whole decades.
    fn scale_range(&self) -> (f64, f64) {
        if let Some((low, high)) = self.range {
            return (place(&self.scale, low), place(&self.scale, high));
        }
        let cells = self.panels.iter().flat_map(|panel| panel.rows.iter().flatten());
        let values = cells.filter_map(|cell| match cell {
            Cell::Value(value) => Some(place(&self.scale, *value)),
            _ => None,
        });
        let (low, high) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), x| (low.min(x), high.max(x)));
        if low > high {
            return (0.0, 1.0);
        }
        (low.floor(), high.ceil().max(low.floor() + 1.0))
    }

    fn fill(&self, cell: Cell, (low, high): (f64, f64)) -> Option<Fill> {
        match cell {
            Cell::Missing => None,
            Cell::Zero => Some(Fill::Zero),
            Cell::NotFinite => Some(Fill::NotFinite),
            Cell::Value(value) => {
                let share = (place(&self.scale, value) - low) / (high - low);
                Some(Fill::Level((share.clamp(0.0, 1.0) * (LEVELS - 1) as f64).round() as usize))
            }
        }
    }

    /// What stands beside the scale of colours, with its place below the heading.
    fn legend_places(&self, width: u32) -> Vec<(Fill, String, (i32, i32))> {
        let occurs =
            |wanted: Cell| self.panels.iter().flat_map(|panel| panel.rows.iter().flatten()).any(|c| *c == wanted);
        let known =
            [(Cell::Zero, Fill::Zero, "exactly 0"), (Cell::NotFinite, Fill::NotFinite, "infinite or not a number")];
        let (mut x, mut y) = (BAR_LEFT + BAR_WIDTH + 40, 0);
        let mut places = Vec::new();
        for (_, fill, name) in known.into_iter().filter(|(cell, _, _)| occurs(*cell)) {
            if x + 22 + text_width(name) > width as i32 + 16 {
                (x, y) = (BAR_LEFT + BAR_WIDTH + 40, y + 24);
            }
            places.push((fill, name.to_owned(), (x, y)));
            x += 22 + text_width(name);
        }
        places
    }

    fn draw_scale<'a>(&self, area: &Area<'a>, y: i32) -> Result<(), Error<'a>> {
        let (low, high) = self.scale_range();
        let edge = |level: usize| BAR_LEFT + (BAR_WIDTH * level as i32) / LEVELS as i32;
        for level in 0..LEVELS {
            let color = viridis(level as f64 / (LEVELS - 1) as f64);
            area.draw(&Rectangle::new([(edge(level), y), (edge(level + 1), y + 16)], color.filled()))?;
        }
        let style = TextStyle::from((FONT, 14).into_font()).pos(Pos::new(HPos::Center, VPos::Top));
        for tick in ticks(&self.scale, (low, high)) {
            let x = BAR_LEFT + (f64::from(BAR_WIDTH) * (tick - low) / (high - low)).round() as i32;
            area.draw(&PathElement::new(vec![(x, y + 16), (x, y + 20)], BLACK))?;
            area.draw(&Text::new(tick_label(&self.scale, tick), (x, y + 22), style.clone()))?;
        }
        label(area, &self.value_label, (BAR_LEFT, y + 38))
    }

    fn draw_panel<'a>(&self, panel: &HeatPanel, area: &Area<'a>, cells: &mut String) -> Result<(), Error<'a>> {
        let x = Ticked { low: -0.5, high: panel.columns.len() as f64 - 0.5, ticks: column_ticks(&panel.columns) };
        let y = Ticked::new((0.5, panel.count as f64 + 0.5), &Scale::Count);
        let mut chart = ChartBuilder::on(area)
            .margin(8)
            .margin_right(18)
            .x_label_area_size(42)
            .y_label_area_size(56)
            .caption(shortened(&panel.title, PANEL_WIDTH - 10), (FONT, 16))
            .build_cartesian_2d(x, y)?;
        chart
            .configure_mesh()
            .disable_mesh()
            .x_desc(self.x_label.clone())
            .y_desc(self.y_label.clone())
            .axis_desc_style((FONT, 14))
            .label_style((FONT, 13))
            .x_label_formatter(&|column| panel.columns.get(column.round() as usize).cloned().unwrap_or_default())
            .y_label_formatter(&|row| tick_label(&Scale::Count, *row))
            .draw()?;
        let (across, down) = chart.plotting_area().get_pixel_range();
        self.write_cells(panel, [across.start, down.start, across.end, down.end], cells);
        Ok(())
    }

    /// Writes the cells of a panel into the rectangle `[left, top, right, bottom]`.
    fn write_cells(&self, panel: &HeatPanel, [left, top, right, bottom]: [i32; 4], cells: &mut String) {
        let range = self.scale_range();
        let mut rectangles: BTreeMap<Fill, Vec<[i32; 4]>> = BTreeMap::new();
        // Whole pixels leave no seams between the cells.
        let x = |column: usize| left + ((right - left) as usize * column / panel.columns.len()) as i32;
        let y = |count: usize| bottom - ((bottom - top) as usize * count.min(panel.count) / panel.count) as i32;
        for (number, row) in panel.rows.iter().enumerate() {
            let (low, high) = (y(number * panel.per_row), y((number + 1) * panel.per_row));
            let fills: Vec<Option<Fill>> = row.iter().map(|cell| self.fill(*cell, range)).collect();
            let mut column = 0;
            for run in fills.chunk_by(|a, b| a == b) {
                let next = column + run.len();
                if let Some(fill) = run[0] {
                    rectangles.entry(fill).or_default().push([x(column), high, x(next) - x(column), low - high]);
                }
                column = next;
            }
        }
        for (fill, rectangles) in rectangles {
            write_rectangles(cells, fill, &rectangles);
        }
    }
}

/// Writes rectangles `[left, top, width, height]` as one path.
fn write_rectangles(svg: &mut String, fill: Fill, rectangles: &[[i32; 4]]) {
    let path: String =
        rectangles.iter().map(|[x, y, width, height]| format!("M{x} {y}h{width}v{height}h-{width}z")).collect();
    // Writing into a string cannot fail.
    let _ = writeln!(svg, "<path fill=\"{}\" d=\"{path}\"/>", fill.paint());
}

/// The columns that have room for their names.
fn column_ticks(columns: &[String]) -> Vec<f64> {
    let longest = columns.iter().map(|name| name.chars().count()).max().unwrap_or(1);
    let room = (PANEL_WIDTH as usize - 90) / (8 * longest + 12);
    let step = columns.len().div_ceil(room.max(1)).max(1);
    (0..columns.len()).step_by(step).map(|column| column as f64).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heat_map(rows: Vec<Vec<Cell>>) -> HeatMap {
        HeatMap {
            heading: Heading { title: "Gradient".to_owned(), subtitle: String::new() },
            x_label: "step".to_owned(),
            y_label: "layer".to_owned(),
            value_label: "norm".to_owned(),
            scale: Scale::Log,
            range: None,
            panels: vec![HeatPanel {
                title: "relu".to_owned(),
                columns: rows[0].iter().enumerate().map(|(column, _)| column.to_string()).collect(),
                count: rows.len(),
                per_row: 1,
                rows,
            }],
        }
    }

    #[test]
    fn the_ends_of_the_scale_are_whole_decades_and_have_the_ends_of_the_colours() {
        let figure = heat_map(vec![vec![Cell::Value(3e-7), Cell::Value(0.02)]]);
        assert_eq!(figure.scale_range(), (-7.0, -1.0));
        let fill = |value| figure.fill(Cell::Value(value), (-7.0, -1.0));
        assert_eq!((fill(1e-7), fill(0.1)), (Some(Fill::Level(0)), Some(Fill::Level(LEVELS - 1))));
        let svg = figure.to_svg().expect("draws");
        assert!(svg.contains("10⁻⁷") && svg.contains("10⁻¹") && !svg.contains("exactly 0"), "{svg}");
    }

    #[test]
    fn equal_values_have_a_scale_of_a_decade() {
        assert_eq!(heat_map(vec![vec![Cell::Value(1.0)]]).scale_range(), (0.0, 1.0));
        assert_eq!(heat_map(vec![vec![Cell::Zero]]).scale_range(), (0.0, 1.0));
    }

    #[test]
    fn zeros_and_values_that_are_not_finite_have_patterns_and_names_and_what_is_missing_is_left_white() {
        let figure = heat_map(vec![vec![Cell::Zero, Cell::NotFinite, Cell::Missing, Cell::Value(1.0)]]);
        let mut cells = String::new();
        figure.write_cells(&figure.panels[0], [0, 0, 40, 10], &mut cells);
        assert!(cells.contains("url(#exactly-0)\" d=\"M0 0h10v10h-10z\""), "{cells}");
        assert!(cells.contains("url(#not-finite)\" d=\"M10 0h10v10h-10z\""), "{cells}");
        assert!(!cells.contains("M20 0") && cells.contains("M30 0"), "{cells}");
        let svg = figure.to_svg().expect("draws");
        assert!(svg.contains("exactly 0") && svg.contains("infinite or not a number"));
    }

    #[test]
    fn the_first_row_is_at_the_bottom_and_a_last_row_of_fewer_layers_is_lower() {
        let mut figure = heat_map(vec![vec![Cell::Zero], vec![Cell::NotFinite]]);
        figure.panels[0].count = 5;
        figure.panels[0].per_row = 4;
        let mut cells = String::new();
        figure.write_cells(&figure.panels[0], [0, 0, 10, 100], &mut cells);
        assert!(cells.contains("url(#exactly-0)\" d=\"M0 20h10v80h-10z\""), "{cells}");
        assert!(cells.contains("url(#not-finite)\" d=\"M0 0h10v20h-10z\""), "{cells}");
    }

    #[test]
    fn neighbours_of_one_colour_are_one_rectangle() {
        let figure = heat_map(vec![vec![Cell::Value(1.0); 100]]);
        let mut cells = String::new();
        figure.write_cells(&figure.panels[0], [0, 0, 300, 10], &mut cells);
        assert_eq!(cells.matches('M').count(), 1, "{cells}");
    }
}
