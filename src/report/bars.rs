//! Rows of small bar charts: the panels of a row have one vertical axis.

use plotters::element::{Cross, PathElement, Rectangle, Text};
use plotters::prelude::{BLACK, ChartBuilder, Color, IntoFont, TextStyle, WHITE};
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::axis::{Scale, Ticked};
use super::color::color;
use super::format::significant;
use super::page::{Area, Error, FONT, Figure, Heading, LEFT, LINE_HEIGHT, draw_page, label, shortened, text_width};

/// One bar chart.
#[derive(Clone, Debug)]
pub struct BarPanel {
    /// What sets it apart from the others of its row.
    pub title: String,
    /// The bars of each series, of values from 0; `None` is infinite or not a number.
    pub series: Vec<Vec<Option<f64>>>,
}

impl BarPanel {
    /// The largest value of each series, as text.
    fn largest(&self) -> String {
        let largest = |bars: &Vec<Option<f64>>| match bars.iter().copied().collect::<Option<Vec<f64>>>() {
            Some(values) => significant(values.into_iter().fold(0.0, f64::max), 2),
            None => "not finite".to_owned(),
        };
        self.series.iter().map(largest).collect::<Vec<_>>().join(", ")
    }
}

/// The panels that are compared.
#[derive(Clone, Debug)]
pub struct BarRow {
    /// What sets the row apart from the others.
    pub title: String,
    /// The panels, from left to right.
    pub panels: Vec<BarPanel>,
}

/// A figure.
#[derive(Clone, Debug)]
pub struct BarChart {
    /// Title and subtitle.
    pub heading: Heading,
    /// The names of the series, which have the colours in turn.
    pub series: Vec<String>,
    /// What the bars show.
    pub y_label: String,
    /// The rows.
    pub rows: Vec<BarRow>,
}

/// The room of the numbers and the name of a vertical axis, which only the first panel of a row has.
const AXIS_WIDTH: u32 = 74;
const PANEL_WIDTH: u32 = 180;
const PANEL_HEIGHT: u32 = 190;
const ROW_GAP: i32 = 12;

impl Figure for BarChart {
    fn to_svg(&self) -> Result<String, String> {
        let columns = self.rows.iter().map(|row| row.panels.len()).max().unwrap_or(0).max(1) as u32;
        let width = (AXIS_WIDTH + columns * PANEL_WIDTH).max(640);
        let heading = self.heading.height(width);
        let top = heading + LINE_HEIGHT;
        let row_height = (ROW_GAP + LINE_HEIGHT) as u32 + PANEL_HEIGHT;
        draw_page((width, top as u32 + self.rows.len() as u32 * row_height + 8), |root| {
            self.heading.draw(root)?;
            self.draw_legend(root, heading)?;
            for (number, row) in self.rows.iter().enumerate() {
                let (_, below) = root.split_vertically(top + (number as u32 * row_height) as i32);
                let (area, _) = below.split_vertically(row_height as i32);
                self.draw_row(row, &area)?;
            }
            Ok(())
        })
    }
}

impl BarChart {
    fn has_nonfinite(&self) -> bool {
        let panels = self.rows.iter().flat_map(|row| &row.panels);
        panels.flat_map(|panel| panel.series.iter().flatten()).any(Option::is_none)
    }

    fn draw_legend<'a>(&self, area: &Area<'a>, y: i32) -> Result<(), Error<'a>> {
        let mut x = LEFT;
        for (index, name) in self.series.iter().enumerate() {
            area.draw(&Rectangle::new([(x, y + 2), (x + 14, y + 16)], color(index).filled()))?;
            label(area, name, (x + 22, y))?;
            x += 22 + text_width(name);
        }
        if self.has_nonfinite() {
            area.draw(&Cross::new((x + 6, y + 8), 5, BLACK.stroke_width(2)))?;
            label(area, "infinite or not a number", (x + 22, y))?;
        }
        Ok(())
    }

    fn draw_row<'a>(&self, row: &BarRow, area: &Area<'a>) -> Result<(), Error<'a>> {
        let title = shortened(&row.title, area.dim_in_pixel().0);
        area.draw(&Text::new(title, (LEFT, ROW_GAP + 4), (FONT, 16).into_font()))?;
        let (_, body) = area.split_vertically(ROW_GAP + LINE_HEIGHT);
        let values = row.panels.iter().flat_map(|panel| panel.series.iter().flatten().flatten());
        let highest = values.copied().fold(0.0, f64::max);
        let highest = if highest > 0.0 { highest * 1.05 } else { 1.0 };
        for (number, panel) in row.panels.iter().enumerate() {
            let left = if number == 0 { 0 } else { AXIS_WIDTH + number as u32 * PANEL_WIDTH };
            let right = AXIS_WIDTH + (number as u32 + 1) * PANEL_WIDTH;
            let (_, from_left) = body.split_horizontally(left as i32);
            let (place, _) = from_left.split_horizontally((right - left) as i32);
            self.draw_panel(panel, &place, highest, number == 0)?;
        }
        Ok(())
    }

    fn draw_panel<'a>(&self, panel: &BarPanel, area: &Area<'a>, highest: f64, has_axis: bool) -> Result<(), Error<'a>> {
        let count = panel.series.iter().map(Vec::len).max().unwrap_or(0).max(1);
        let axis_width = if has_axis { AXIS_WIDTH } else { 0 };
        let middle = i32::midpoint(axis_width as i32, area.dim_in_pixel().0 as i32);
        let centered = TextStyle::from((FONT, 14).into_font()).pos(Pos::new(HPos::Center, VPos::Top));
        area.draw(&Text::new(panel.title.clone(), (middle, 4), centered))?;
        let mut chart = ChartBuilder::on(area)
            .margin(4)
            .margin_top(24)
            .margin_right(8)
            .x_label_area_size(40)
            .y_label_area_size(axis_width)
            .build_cartesian_2d(
                Ticked::new((0.5, count as f64 + 0.5), &Scale::Count),
                Ticked::new((0.0, highest), &Scale::Linear),
            )?;
        let mut mesh = chart.configure_mesh();
        mesh.disable_x_mesh()
            .bold_line_style(BLACK.mix(0.12))
            .light_line_style(WHITE.mix(0.0))
            .x_desc(format!("largest: {}", panel.largest()))
            .axis_desc_style((FONT, 13))
            .label_style((FONT, 13))
            .x_label_formatter(&|unit| format!("{unit:.0}"));
        let number = |value: &f64| significant(*value, 2);
        if has_axis {
            mesh.y_desc(self.y_label.clone()).y_label_formatter(&number);
        }
        mesh.draw()?;
        let bar_width = 0.8 / panel.series.len().max(1) as f64;
        for (index, bars) in panel.series.iter().enumerate() {
            for (unit, value) in bars.iter().enumerate() {
                let left = unit as f64 + 0.6 + bar_width * index as f64;
                let right = left + bar_width;
                if let Some(value) = value {
                    chart.draw_series([Rectangle::new([(left, 0.0), (right, *value)], color(index).filled())])?;
                } else {
                    let middle = f64::midpoint(left, right);
                    chart.draw_series([Cross::new((middle, highest), 4, color(index).stroke_width(2))])?;
                }
            }
        }
        chart.draw_series([PathElement::new(vec![(0.5, 0.0), (count as f64 + 0.5, 0.0)], BLACK)])?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chart(bars: Vec<Option<f64>>) -> BarChart {
        let panel = BarPanel { title: "hidden layer 1".to_owned(), series: vec![bars] };
        BarChart {
            heading: Heading::default(),
            series: vec!["first".to_owned()],
            y_label: "delta".to_owned(),
            rows: vec![BarRow { title: String::new(), panels: vec![panel] }],
        }
    }

    #[test]
    fn a_bar_that_is_not_finite_is_explained_and_is_not_called_the_smallest() {
        let finite = chart(vec![Some(0.5), Some(0.25)]).to_svg().expect("draws");
        assert!(finite.contains("largest: 0.50") && !finite.contains("infinite or not a number"));
        let other = chart(vec![Some(0.5), None]).to_svg().expect("draws");
        assert!(other.contains("largest: not finite") && other.contains("infinite or not a number"));
    }

    #[test]
    fn gradients_of_a_deep_network_have_labels_however_small_they_are() {
        let svg = chart(vec![Some(2e-30)]).to_svg().expect("draws");
        assert!(svg.contains("2.0e-30"), "{svg}");
    }
}
