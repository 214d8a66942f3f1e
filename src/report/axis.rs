//! Axes: where values stand, and where labels do.

use plotters::coord::ranged1d::{DefaultFormatting, KeyPointHint, Ranged};

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

/// A range with ticks at given places.
pub struct Ticked {
    pub low: f64,
    pub high: f64,
    /// Where the labels stand.
    pub ticks: Vec<f64>,
}

impl Ticked {
    pub fn new((low, high): (f64, f64), scale: &Scale) -> Self {
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

/// Where a value stands in the coordinates of its axis.
pub fn place(scale: &Scale, value: f64) -> f64 {
    match scale {
        Scale::Log => value.max(f64::MIN_POSITIVE).log10(),
        _ => value,
    }
}

/// The most labels of an axis.
pub const MAX_TICKS: f64 = 7.0;

pub fn ticks(scale: &Scale, (low, high): (f64, f64)) -> Vec<f64> {
    if let Scale::Names(names) = scale {
        return (0..names.len()).map(|place| place as f64).collect();
    }
    let mut step = ((high - low) / MAX_TICKS).max(1e-300);
    let magnitude = 10f64.powf(step.log10().floor());
    step = [1.0, 2.0, 5.0, 10.0].into_iter().map(|nice| nice * magnitude).find(|nice| *nice >= step).unwrap_or(step);
    if matches!(scale, Scale::Log | Scale::Count) {
        step = step.max(1.0).round();
    }
    let first = (low / step).ceil() as i64;
    let last = (high / step).floor() as i64;
    (first..=last).map(|tick| tick as f64 * step).collect()
}

pub fn tick_label(scale: &Scale, place: f64) -> String {
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

    #[test]
    fn ticks_of_a_log_axis_are_whole_decades_and_of_a_linear_one_round_numbers() {
        assert_eq!(ticks(&Scale::Log, (-12.0, 0.0)), [-12.0, -10.0, -8.0, -6.0, -4.0, -2.0, 0.0]);
        assert_eq!(ticks(&Scale::Linear, (0.0, 1.03)), [0.0, 0.2, 0.4, 0.600_000_000_000_000_1, 0.8, 1.0]);
        assert_eq!(ticks(&Scale::Count, (0.9, 2.1)), [1.0, 2.0]);
    }
}
