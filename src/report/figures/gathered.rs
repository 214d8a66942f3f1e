//! The values of several seeds, gathered into lines.

use crate::analysis::{geometric_mean, mean};
use crate::report::chart::{Line, Point};

/// What the lines of [`Gathered::log_line`] show.
pub const GEOMETRIC_SPREAD: &str = "Geometric mean over the seeds; the band reaches from the smallest to the largest.";
/// What the lines of [`Gathered::linear_line`] show.
pub const MEAN_SPREAD: &str = "Mean over the seeds; the band reaches from the smallest to the largest.";

/// A value of one seed that may have no place on the axis.
#[derive(Clone, Copy)]
enum Value {
    Finite(f64),
    NotFinite,
}

/// Gathers the values of several seeds at each x into a line with its spread.
#[derive(Default)]
pub struct Gathered(Vec<(f64, Vec<Value>)>);

impl Gathered {
    /// Adds the value of a seed at x; `None` for one that is not finite.
    pub fn add(&mut self, x: f64, value: Option<f64>) {
        let value = value.map_or(Value::NotFinite, Value::Finite);
        match self.0.binary_search_by(|(known, _)| known.total_cmp(&x)) {
            Ok(place) => self.0[place].1.push(value),
            Err(place) => self.0.insert(place, (x, vec![value])),
        }
    }

    /// On a logarithmic axis: the geometric mean and the extremes of the positive values.
    pub fn log_line(self, color: usize) -> Line {
        self.line(color, |value| value > 0.0, geometric_mean)
    }

    /// On a linear axis: the mean and the extremes.
    pub fn linear_line(self, color: usize) -> Line {
        self.line(color, |_| true, mean)
    }

    fn line(self, color: usize, has_place: fn(f64) -> bool, middle: fn(&[f64]) -> Option<f64>) -> Line {
        let mut line = Line { color, joined: true, ..Line::default() };
        for (x, values) in self.0 {
            let mut placed = Vec::new();
            for value in values {
                match value {
                    Value::Finite(value) if has_place(value) => placed.push(value),
                    Value::Finite(_) => line.zeros.push(x),
                    Value::NotFinite => line.nonfinite.push(x),
                }
            }
            if let Some(y) = middle(&placed) {
                line.points.push(Point {
                    x,
                    y,
                    low: placed.iter().copied().fold(f64::INFINITY, f64::min),
                    high: placed.iter().copied().fold(f64::NEG_INFINITY, f64::max),
                });
            }
        }
        line.zeros.dedup();
        line.nonfinite.dedup();
        line
    }
}
