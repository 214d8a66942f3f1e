//! What cargo-criterion prints with `--message-format=json`, one object a line, and criterion-table makes Markdown of:
//! <https://github.com/nu11ptr/criterion-table>.

use serde::Serialize;

use super::{ExportError, Exporter, Measurements, Row, Timing};
use crate::analysis::Estimate;

/// cargo-criterion's messages.
pub struct CriterionTable;

/// The quantities that are times of an iteration.
const TIMES: [&str; 2] = ["step_time_ms", "time_ns"];

/// The message of a benchmark.
#[derive(Debug, Serialize)]
struct Message {
    reason: &'static str,
    /// Table, column and row, divided by slashes.
    id: String,
    report_directory: String,
    iteration_count: Vec<u64>,
    measured_values: Vec<f64>,
    unit: &'static str,
    throughput: Vec<Throughput>,
    typical: Interval,
    mean: Interval,
    median: Interval,
    median_abs_dev: Interval,
    slope: Option<Interval>,
    /// How it changed since the benchmark before, which is not known here.
    change: Option<()>,
}

#[derive(Debug, Serialize)]
struct Throughput {
    per_iteration: u64,
    unit: &'static str,
}

#[derive(Debug, Serialize)]
struct Interval {
    estimate: f64,
    lower_bound: f64,
    upper_bound: f64,
    unit: &'static str,
}

impl Exporter for CriterionTable {
    fn name(&self) -> &'static str {
        "criterion-table"
    }

    fn defaults(&self) -> &'static [&'static str] {
        &TIMES
    }

    fn check(&self, measurements: &Measurements) -> Result<(), ExportError> {
        if let Some(other) = measurements.quantities.iter().find(|quantity| !TIMES.contains(&&*quantity.name)) {
            return Err(ExportError::Unsuited {
                name: other.name.clone(),
                problem: "criterion-table has times only".to_owned(),
                mend: "leave --quantity out, or use another format".to_owned(),
            });
        }
        Ok(())
    }

    /// A message a configuration or benchmark.
    fn write(&self, measurements: &Measurements) -> String {
        let mut text = String::new();
        for row in &measurements.rows {
            if let Some(timing) = &row.timing {
                text += &serde_json::to_string(&message(row, timing)).unwrap_or_default();
                text.push('\n');
            }
        }
        text
    }
}

fn message(row: &Row, timing: &Timing) -> Message {
    // A slash within a part would begin another one.
    let parts = row.place.iter().map(|part| part.replace('/', "_"));
    Message {
        reason: "benchmark-complete",
        id: parts.collect::<Vec<_>>().join("/"),
        report_directory: timing.directory.clone(),
        iteration_count: timing.iterations.clone(),
        measured_values: timing.sample_times_ns.clone(),
        unit: "ns",
        throughput: timing
            .throughput
            .iter()
            .map(|(per_iteration, unit)| Throughput { per_iteration: *per_iteration, unit })
            .collect(),
        typical: interval(timing.typical_ns),
        mean: interval(timing.mean_ns),
        median: interval(timing.median_ns),
        median_abs_dev: interval(timing.median_abs_dev_ns),
        slope: timing.slope_ns.map(interval),
        change: None,
    }
}

/// An estimate in the unit that suits it: criterion-table shows what it reads. Without an interval the bounds, which
/// may not be absent, are the estimate.
fn interval(estimate: Estimate) -> Interval {
    let (unit, ns) = match estimate.value {
        value if value < 1e3 => ("ns", 1.0),
        value if value < 1e6 => ("us", 1e3),
        value if value < 1e9 => ("ms", 1e6),
        _ => ("s", 1e9),
    };
    let Estimate { value, interval } = estimate.map(|value| value / ns);
    let (lower_bound, upper_bound) = interval.unwrap_or((value, value));
    Interval { estimate: value, lower_bound, upper_bound, unit }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::export_as;
    use super::super::tests::two_rows;
    use super::*;

    fn timed() -> Measurements {
        let estimate = |value: f64| Estimate { value, interval: Some((0.5 * value, 2.0 * value)) };
        let mut measured = two_rows();
        measured.rows[0].timing = Some(Timing {
            directory: "results/small".to_owned(),
            iterations: vec![10, 20],
            sample_times_ns: vec![1.16e6, 2.32e6],
            throughput: vec![(32, "elements")],
            typical_ns: estimate(116_000.0),
            mean_ns: estimate(116.0),
            median_ns: estimate(2.5e6),
            median_abs_dev_ns: Estimate { value: 3e9, interval: None },
            slope_ns: None,
        });
        measured
    }

    #[test]
    fn a_message_has_every_field_of_cargo_criterion_with_times_in_their_unit() {
        let text = export_as(&CriterionTable, &timed(), &[]).expect("measured").text;
        assert_eq!(text.lines().count(), 1);
        let found: Value = serde_json::from_str(&text).expect("JSON");
        let expected = json!({
            "reason": "benchmark-complete",
            "id": "small/tanh, 1_n/2",
            "report_directory": "results/small",
            "iteration_count": [10, 20],
            "measured_values": [1.16e6, 2.32e6],
            "unit": "ns",
            "throughput": [{"per_iteration": 32, "unit": "elements"}],
            "typical": {"estimate": 116.0, "lower_bound": 58.0, "upper_bound": 232.0, "unit": "us"},
            "mean": {"estimate": 116.0, "lower_bound": 58.0, "upper_bound": 232.0, "unit": "ns"},
            "median": {"estimate": 2.5, "lower_bound": 1.25, "upper_bound": 5.0, "unit": "ms"},
            "median_abs_dev": {"estimate": 3.0, "lower_bound": 3.0, "upper_bound": 3.0, "unit": "s"},
            "slope": null,
            "change": null,
        });
        assert_eq!(found, expected);
    }

    #[test]
    fn what_is_no_time_is_refused() {
        let error =
            export_as(&CriterionTable, &timed(), &["test_accuracy".to_owned()]).expect_err("no time").to_string();
        assert!(error.contains("--quantity test_accuracy: criterion-table has times only; leave"), "{error}");
    }
}
