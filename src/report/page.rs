//! The page of a figure: title, subtitle and text, whose widths are estimates because no font files are read.

use plotters::coord::Shift;
use plotters::element::Text;
use plotters::prelude::{
    DrawingArea, DrawingAreaErrorKind, DrawingBackend, IntoDrawingArea, IntoFont, SVGBackend, WHITE,
};
use plotters::style::TextStyle;
use plotters::style::text_anchor::{HPos, Pos, VPos};

/// A part of the page.
pub type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// Plotters could not draw.
pub type Error<'a> = DrawingAreaErrorKind<<SVGBackend<'a> as DrawingBackend>::ErrorType>;

/// Something that can be drawn.
pub trait Figure {
    /// Draws the figure as SVG.
    ///
    /// # Errors
    ///
    /// If plotters cannot draw it.
    fn to_svg(&self) -> Result<String, String>;
}

/// The font of all text.
pub const FONT: &str = "sans-serif";

/// Where the heading starts, in pixels from the left.
pub const LEFT: i32 = 16;

/// The height of a line of the heading.
pub const LINE_HEIGHT: i32 = 24;

/// The width of a character of 15 or 16 pixels; in the widest common sans-serif font most texts need 6.5.
const CHARACTER_WIDTH: u32 = 7;

/// The room of a name and of the gap behind it.
pub fn text_width(name: &str) -> i32 {
    CHARACTER_WIDTH as i32 * name.chars().count() as i32 + 24
}

/// Draws a page of a size in pixels.
///
/// # Errors
///
/// If plotters cannot draw it.
pub fn draw_page(
    size: (u32, u32),
    draw: impl for<'a> FnOnce(&Area<'a>) -> Result<(), Error<'a>>,
) -> Result<String, String> {
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, size).into_drawing_area();
        let drawn = root.fill(&WHITE).and_then(|()| draw(&root)).and_then(|()| root.present());
        drawn.map_err(|error| error.to_string())?;
    }
    Ok(svg)
}

/// Writes a name beside its sample.
///
/// # Errors
///
/// If plotters cannot draw it.
pub fn label<'a>(area: &Area<'a>, name: &str, (x, y): (i32, i32)) -> Result<(), Error<'a>> {
    let style = TextStyle::from((FONT, 15).into_font()).pos(Pos::new(HPos::Left, VPos::Center));
    area.draw(&Text::new(name.to_owned(), (x, y + 8), style))
}

/// Title and subtitle.
#[derive(Clone, Debug, Default)]
pub struct Heading {
    /// The title of the figure.
    pub title: String,
    /// What it shows, smaller; broken into lines where it is long.
    pub subtitle: String,
}

impl Heading {
    /// The height that it takes of a page of some width.
    pub fn height(&self, width: u32) -> i32 {
        42 + LINE_HEIGHT * wrapped(&self.subtitle, width).len() as i32
    }

    /// Draws it at the top.
    ///
    /// # Errors
    ///
    /// If plotters cannot draw it.
    pub fn draw<'a>(&self, area: &Area<'a>) -> Result<(), Error<'a>> {
        area.draw(&Text::new(self.title.clone(), (LEFT, 14), (FONT, 21).into_font()))?;
        for (line, text) in wrapped(&self.subtitle, area.dim_in_pixel().0).into_iter().enumerate() {
            area.draw(&Text::new(text, (LEFT, 42 + LINE_HEIGHT * line as i32), (FONT, 15).into_font()))?;
        }
        Ok(())
    }
}

/// A text in lines that fit into a page of some width.
fn wrapped(text: &str, width: u32) -> Vec<String> {
    let room = characters(width.saturating_sub(2 * LEFT as u32)).max(20);
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= room => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

/// How many characters fit into a width.
pub fn characters(width: u32) -> usize {
    (width / CHARACTER_WIDTH) as usize
}

/// The beginning of a text that fits into a width, with an ellipsis if something is left out.
pub fn shortened(text: &str, width: u32) -> String {
    let room = characters(width);
    if text.chars().count() <= room {
        return text.to_owned();
    }
    let beginning: String = text.chars().take(room.saturating_sub(1)).collect();
    format!("{}…", beginning.trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_subtitle_is_broken_between_words_and_nothing_of_it_is_lost() {
        let text = "Geometric mean over the seeds; the band reaches from the smallest to the largest. A cell averages.";
        let lines = wrapped(text, 400);
        assert!(lines.len() == 2 && lines.iter().all(|line| line.chars().count() <= 52), "{lines:?}");
        assert_eq!(lines.join(" "), text);
        assert!(wrapped("", 400).is_empty());
    }

    #[test]
    fn only_what_does_not_fit_is_shortened() {
        assert_eq!(shortened("depth = 8", 70), "depth = 8");
        assert_eq!(shortened("depth = 8, width = 16", 70), "depth = 8…");
    }
}
