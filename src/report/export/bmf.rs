//! The Bencher Metric Format: <https://bencher.dev/docs/reference/bencher-metric-format/>.

use serde_json::{Map, Value, json};

use super::{Exporter, Measured, Measurements, kebab_case};

/// Bencher's JSON.
pub struct Bmf;

impl Exporter for Bmf {
    fn name(&self) -> &'static str {
        "bmf"
    }

    fn defaults(&self) -> &'static [&'static str] {
        &[
            "train_loss",
            "test_accuracy",
            "gradient_ratio_first",
            "decades_lost_per_layer_first",
            "decades_lost_per_time_step_first",
            "step_time_ms",
            "examples_per_second",
            "time_ns",
            "elements_per_second",
            "bytes_per_second",
            "bits_per_second",
        ]
    }

    /// An object of benchmarks, each an object of measures with `value` and, where there is an interval, `lower_value`
    /// and `upper_value`. A configuration without any value is left out.
    fn write(&self, measurements: &Measurements) -> String {
        let mut benchmarks = Map::new();
        for row in &measurements.rows {
            let mut measures = Map::new();
            for (quantity, estimate) in measurements.quantities.iter().zip(&row.values) {
                let Some(estimate) = estimate else { continue };
                let (measure, factor) = measure(quantity);
                let estimate = estimate.map(|value| value * factor);
                let mut metric = Map::from_iter([("value".to_owned(), json!(estimate.value))]);
                if let Some((low, high)) = estimate.interval {
                    metric.insert("lower_value".to_owned(), json!(low));
                    metric.insert("upper_value".to_owned(), json!(high));
                }
                measures.insert(measure, Value::Object(metric));
            }
            if !measures.is_empty() {
                benchmarks.insert(row.id.clone(), Value::Object(measures));
            }
        }
        format!("{:#}\n", Value::Object(benchmarks))
    }
}

/// The name of a measure and the factor to its unit. Every project has `latency`, in nanoseconds, and `throughput`, in
/// operations a second; others are made when they first occur.
fn measure(quantity: &Measured) -> (String, f64) {
    match quantity.name.as_str() {
        "step_time_ms" => ("latency".to_owned(), 1e6),
        "time_ns" => ("latency".to_owned(), 1.0),
        "examples_per_second" | "elements_per_second" => ("throughput".to_owned(), 1.0),
        name => (kebab_case(name), 1.0),
    }
}

#[cfg(test)]
mod tests {
    use super::super::export_as;
    use super::super::tests::two_rows;
    use super::*;

    #[test]
    fn a_benchmark_has_measures_with_the_ends_of_their_intervals_where_there_are_any() {
        let text = export_as(&Bmf, &two_rows(), &[]).expect("measured").text;
        let found: Value = serde_json::from_str(&text).expect("JSON");
        let expected = json!({
            "small/case=tanh, 1/n/depth=2": {
                "test-accuracy": {"value": 0.968, "lower_value": 0.961, "upper_value": 0.972},
                "gradient-ratio-first": {"value": 3.3e-10, "lower_value": 3.1e-10, "upper_value": 3.52e-10},
                "latency": {"value": 0.116 * 1e6, "lower_value": 0.115 * 1e6, "upper_value": 0.118 * 1e6},
            },
            "small/case=100 % a_b/depth=2": {"latency": {"value": 2e6}},
        });
        assert_eq!(found, expected);
    }

    #[test]
    fn a_configuration_without_the_quantity_is_left_out() {
        let text = export_as(&Bmf, &two_rows(), &["test_accuracy".to_owned()]).expect("measured").text;
        let found: Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(found.as_object().map(Map::len), Some(1));
    }
}
