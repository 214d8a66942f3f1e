//! What is expected of a quantity, what was measured, and whether the two agree.

use serde::Serialize;

/// A quantity that was measured to be held against what is known of it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Finding {
    /// What was measured.
    pub quantity: String,
    /// What is known of it.
    #[serde(flatten)]
    pub expected: Expected,
    /// The measured value; `None` where there is none, which is a failure unless nothing was to be measured.
    pub measured: Option<f64>,
    /// Whether the two agree.
    pub verdict: Verdict,
    /// Why there is no value.
    pub reason: Option<String>,
}

/// Whether a measured value is what it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It is.
    Pass,
    /// It is not, or there is none.
    Fail,
    /// It was not measured, because what is needed is not at hand. Never a pass.
    Skipped,
}

/// The values that are accepted, both ends included.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Expected {
    /// The value that is known; `None` where only bounds are.
    #[serde(rename = "expected")]
    pub value: Option<f64>,
    /// The least value that is accepted; in JSON `null` if there is none.
    pub low: Option<f64>,
    /// The largest value that is accepted; in JSON `null` if there is none.
    pub high: Option<f64>,
    /// How far from the known value a measured one may be, as people write it; empty where only bounds are known.
    pub tolerance: String,
}

impl Expected {
    /// `value`, within a share of it.
    pub fn relative(value: f64, share: f64) -> Self {
        Self::around(value, share * value.abs(), percent(share))
    }

    /// `value`, within `margin`.
    pub fn absolute(value: f64, margin: f64) -> Self {
        Self::around(value, margin, format!("± {}", plain(margin)))
    }

    /// `value` exactly, which is one of few.
    pub fn exactly(value: f64) -> Self {
        Self::around(value, 0.0, "exact".to_owned())
    }

    /// `value` above 0, whose logarithm may be off by a share of itself, and by at least `least`: of a factor that layers multiply
    /// together, it is the logarithm that the layers share.
    pub fn logarithm(value: f64, share: f64, least: f64) -> Self {
        let margin = (share * value.ln().abs()).max(least);
        let tolerance = format!("/ or × {}", plain(margin.exp()));
        Self { value: Some(value), low: Some(value / margin.exp()), high: Some(value * margin.exp()), tolerance }
    }

    /// A band without a value that is better than others.
    pub fn between(low: f64, high: f64) -> Self {
        Self { value: None, low: Some(low), high: Some(high), tolerance: String::new() }
    }

    /// At least this.
    pub fn above(low: f64) -> Self {
        Self { low: Some(low), ..Self::default() }
    }

    /// At most this.
    pub fn below(high: f64) -> Self {
        Self { high: Some(high), ..Self::default() }
    }

    /// Nothing: a case that says why it has measured nothing.
    pub fn nothing() -> Self {
        Self::default()
    }

    fn around(value: f64, margin: f64, tolerance: String) -> Self {
        Self { value: Some(value), low: Some(value - margin), high: Some(value + margin), tolerance }
    }

    /// Whether a value is accepted. What is no number never is.
    pub fn accepts(&self, measured: f64) -> bool {
        !measured.is_nan()
            && self.low.is_none_or(|low| low <= measured)
            && self.high.is_none_or(|high| measured <= high)
    }

    /// How much of what is tolerated a value uses up: 0 is the middle, 1 the edge.
    fn distance(&self, measured: f64) -> f64 {
        let beyond = |bound: f64, center: f64| {
            if bound == center { f64::INFINITY } else { (measured - center) / (bound - center) }
        };
        match (self.value, self.low, self.high) {
            (Some(value), ..) if measured == value => 0.0,
            (Some(value), Some(low), Some(high)) => beyond(if measured < value { low } else { high }, value),
            _ => f64::from(u8::from(!self.accepts(measured))),
        }
    }
}

/// `± 2 %`, or in powers of ten what is finer than a hundredth of a percent.
fn percent(share: f64) -> String {
    if share < 1e-4 { format!("± {share:e} of it") } else { format!("± {} %", plain(share * 100.0)) }
}

/// Without the digits that rounding leaves: `1.5`, `0.0001`.
fn plain(value: f64) -> String {
    let text = format!("{value:.4}");
    let short = text.trim_end_matches('0').trim_end_matches('.');
    if value != 0.0 && short == "0" { format!("{value:e}") } else { short.to_owned() }
}

impl Finding {
    /// Holds a measured value against what is expected. Without a value that is a failure: a network has diverged, or a
    /// number is not finite.
    pub fn new(quantity: impl Into<String>, expected: Expected, measured: Option<f64>) -> Self {
        let reason = match measured {
            None => Some("there is no value: something diverged or is not finite".to_owned()),
            Some(value) if !value.is_finite() => Some(format!("the value is {value}")),
            Some(_) => None,
        };
        let measured = measured.filter(|value| value.is_finite());
        let is_accepted = measured.is_some_and(|value| expected.accepts(value));
        let verdict = if is_accepted { Verdict::Pass } else { Verdict::Fail };
        Self { quantity: quantity.into(), expected, measured, verdict, reason }
    }

    /// The one of several values that is worst, relative to what is tolerated of it, with its name behind the quantity. A value
    /// that is missing is the worst of all, and so is having none.
    pub fn worst(quantity: &str, values: impl IntoIterator<Item = (String, Expected, Option<f64>)>) -> Self {
        let rank = |(_, expected, measured): &(String, Expected, Option<f64>)| {
            measured.filter(|value| !value.is_nan()).map_or(f64::INFINITY, |value| expected.distance(value))
        };
        let values: Vec<_> = values.into_iter().collect();
        let count = values.len();
        match values.into_iter().max_by(|a, b| rank(a).total_cmp(&rank(b))) {
            Some((name, expected, measured)) => {
                Self::new(format!("{quantity}, {name} (worst of {count})"), expected, measured)
            }
            None => Self::failed(quantity, "nothing was measured"),
        }
    }

    /// Something failed before anything could be measured.
    pub fn failed(quantity: impl Into<String>, reason: impl Into<String>) -> Self {
        Self { reason: Some(reason.into()), ..Self::new(quantity, Expected::nothing(), None) }
    }

    /// Something is not at hand that the measurement needs.
    pub fn skipped(quantity: impl Into<String>, reason: impl Into<String>) -> Self {
        Self { verdict: Verdict::Skipped, ..Self::failed(quantity, reason) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(expected: Expected, measured: f64) -> Verdict {
        Finding::new("q", expected, Some(measured)).verdict
    }

    #[test]
    fn every_tolerance_accepts_its_ends_and_nothing_beyond() {
        for (expected, inside, outside) in [
            (Expected::relative(-2.0, 0.01), [-2.02, -1.98], [-2.0201, -1.9799]),
            (Expected::absolute(5.0, 0.25), [4.75, 5.25], [4.7499, 5.2501]),
            (Expected::exactly(3.0), [3.0, 3.0], [2.999_999, 3.000_001]),
            (Expected::between(0.1, 0.2), [0.1, 0.2], [0.0999, 0.2001]),
            (Expected::logarithm(1e-10, 0.2, 0.7), [1.0001e-12, 0.9999e-8], [0.9999e-12, 1.0001e-8]),
            (Expected::logarithm(1.0, 0.2, 2.0_f64.ln()), [0.5001, 1.9999], [0.4999, 2.0001]),
        ] {
            for value in inside {
                assert_eq!(verdict(expected.clone(), value), Verdict::Pass, "{expected:?} {value}");
            }
            for value in outside {
                assert_eq!(verdict(expected.clone(), value), Verdict::Fail, "{expected:?} {value}");
            }
        }
        assert_eq!(
            (verdict(Expected::above(3.0), 3.0), verdict(Expected::above(3.0), 2.9)),
            (Verdict::Pass, Verdict::Fail)
        );
        assert_eq!(
            (verdict(Expected::below(3.0), 3.0), verdict(Expected::below(3.0), 3.1)),
            (Verdict::Pass, Verdict::Fail)
        );
    }

    #[test]
    fn what_is_missing_or_no_number_fails_and_says_why() {
        for measured in [None, Some(f64::NAN), Some(f64::INFINITY)] {
            let finding = Finding::new("q", Expected::above(0.0), measured);
            assert_eq!((finding.verdict, finding.measured), (Verdict::Fail, None));
            assert!(finding.reason.is_some());
        }
        assert_eq!(Finding::worst("q", []).verdict, Verdict::Fail);
        let skipped = Finding::skipped("q", "no files");
        assert_eq!((skipped.verdict, skipped.reason.as_deref()), (Verdict::Skipped, Some("no files")));
    }

    #[test]
    fn the_worst_of_several_is_the_one_that_uses_up_most_of_its_tolerance() {
        let value = |name: &str, expected, measured| (name.to_owned(), expected, measured);
        let values = [
            value("near", Expected::relative(100.0, 0.1), Some(109.0)),
            value("nearest", Expected::relative(1.0, 0.1), Some(1.0)),
            value("far", Expected::relative(1e-9, 0.1), Some(0.8e-9)),
        ];
        let finding = Finding::worst("q", values.clone());
        assert_eq!((finding.quantity.as_str(), finding.verdict), ("q, far (worst of 3)", Verdict::Fail));
        let finding = Finding::worst("q", values.into_iter().take(2));
        assert_eq!((finding.quantity.as_str(), finding.verdict), ("q, near (worst of 2)", Verdict::Pass));
        let missing = [value("a", Expected::exactly(0.0), Some(7.0)), value("b", Expected::above(0.0), None)];
        assert_eq!(Finding::worst("q", missing).verdict, Verdict::Fail);
    }

    #[test]
    fn tolerances_read_as_people_write_them() {
        let text = |expected: Expected| expected.tolerance;
        assert_eq!(text(Expected::relative(2.0, 0.02)), "± 2 %");
        assert_eq!(text(Expected::relative(2.0, 1e-4)), "± 0.01 %");
        assert_eq!(text(Expected::relative(2.0, 1e-5)), "± 1e-5 of it");
        assert_eq!(text(Expected::absolute(2.0, 0.015)), "± 0.015");
        assert_eq!(text(Expected::absolute(2.0, 1e-6)), "± 1e-6");
        assert_eq!(text(Expected::logarithm(1.0, 0.2, 2.0_f64.ln())), "/ or × 2");
    }
}
