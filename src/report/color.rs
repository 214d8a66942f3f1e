//! Colours that the colour-blind can tell apart.

use plotters::element::Circle;
use plotters::prelude::{Color, RGBColor};

/// Okabe and Ito's colours, without the yellow that print loses.
const COLORS: [RGBColor; 7] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(86, 180, 233),
    RGBColor(230, 159, 0),
    RGBColor(0, 0, 0),
];

/// The colour of a number; the seven are used in turn.
pub fn color(index: usize) -> RGBColor {
    COLORS[index % COLORS.len()]
}

/// The marker of a colour, so that a line is known without it: disc, ring, then the same again larger. With seven colours
/// and four markers the 29th line is the first that looks like another.
pub fn marker<C>(index: usize, at: C) -> Circle<C, i32> {
    let style = color(index);
    match index % 4 {
        0 => Circle::new(at, 3, style.filled()),
        1 => Circle::new(at, 3, style.stroke_width(2)),
        2 => Circle::new(at, 5, style.filled()),
        _ => Circle::new(at, 5, style.stroke_width(2)),
    }
}

/// Every eighth of Viridis, by Smith and van der Walt for Matplotlib 2: perceptually uniform, and monotonic in grey.
const VIRIDIS: [(u8, u8, u8); 9] = [
    (68, 1, 84),
    (71, 44, 122),
    (59, 81, 139),
    (44, 113, 142),
    (33, 144, 141),
    (39, 173, 129),
    (92, 200, 99),
    (170, 220, 50),
    (253, 231, 37),
];

/// The colour of a share of the scale: dark violet at 0, yellow at 1.
pub fn viridis(share: f64) -> RGBColor {
    let place = share.clamp(0.0, 1.0) * (VIRIDIS.len() - 1) as f64;
    let below = (place as usize).min(VIRIDIS.len() - 2);
    let (a, b) = (VIRIDIS[below], VIRIDIS[below + 1]);
    let mix = |a: u8, b: u8| (f64::from(a) + (f64::from(b) - f64::from(a)) * (place - below as f64)).round() as u8;
    RGBColor(mix(a.0, b.0), mix(a.1, b.1), mix(a.2, b.2))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn viridis_begins_dark_violet_ends_yellow_and_is_continuous_between() {
        assert_eq!((viridis(0.0), viridis(1.0)), (RGBColor(68, 1, 84), RGBColor(253, 231, 37)));
        assert_eq!((viridis(-1.0), viridis(2.0)), (viridis(0.0), viridis(1.0)));
        assert_eq!(viridis(0.5), RGBColor(33, 144, 141));
        for place in 0..1000 {
            let (a, b) = (viridis(f64::from(place) / 1000.0), viridis(f64::from(place + 1) / 1000.0));
            let steps = [a.0.abs_diff(b.0), a.1.abs_diff(b.1), a.2.abs_diff(b.2)];
            assert!(steps.iter().all(|step| *step <= 1), "{a:?} {b:?}");
        }
    }

    #[test]
    fn a_larger_share_is_lighter_even_in_grey() {
        let grey = |share: f64| {
            let RGBColor(r, g, b) = viridis(share);
            0.2126 * f64::from(r) + 0.7152 * f64::from(g) + 0.0722 * f64::from(b)
        };
        assert!((0..64).all(|place| grey(f64::from(place) / 64.0) < grey(f64::from(place + 1) / 64.0)));
    }

    #[test]
    fn twenty_eight_lines_differ_in_colour_or_marker() {
        let mut seen: Vec<(RGBColor, usize)> = (0..28).map(|line| (color(line), line % 4)).collect();
        seen.dedup();
        seen.sort_by_key(|(RGBColor(r, g, b), marker)| (*r, *g, *b, *marker));
        seen.dedup();
        assert_eq!(seen.len(), 28);
    }
}
