//! The JSON that github-action-benchmark reads with `tool: customSmallerIsBetter` or `customBiggerIsBetter`:
//! <https://github.com/benchmark-action/github-action-benchmark>.

use serde::Serialize;

use super::{ExportError, Exporter, Measurements};
use crate::analysis::{Better, Estimate};
use crate::report::format::significant;

/// github-action-benchmark's JSON.
pub struct Github;

/// An element of the array.
#[derive(Debug, Serialize)]
struct Entry {
    /// The name, under which its history is drawn.
    name: String,
    unit: String,
    value: f64,
    /// How far the value may be off, as text.
    #[serde(skip_serializing_if = "Option::is_none")]
    range: Option<String>,
    /// Text that is shown beside a point.
    extra: String,
}

impl Exporter for Github {
    fn name(&self) -> &'static str {
        "github"
    }

    fn defaults(&self) -> &'static [&'static str] {
        &["step_time_ms", "time_ns"]
    }

    fn check(&self, measurements: &Measurements) -> Result<(), ExportError> {
        direction(measurements).map(|_| ())
    }

    /// An array with an entry for each configuration and quantity. A file has one direction, which the workflow names.
    fn write(&self, measurements: &Measurements) -> String {
        let mut entries = Vec::new();
        for (place, quantity) in measurements.quantities.iter().enumerate() {
            for (row, Estimate { value, interval }) in measurements.values(place) {
                let diverged =
                    if row.diverged > 0 { format!(", {} of them diverged", row.diverged) } else { String::new() };
                let ends = interval.map_or_else(String::new, |(low, high)| {
                    format!("\n95 % interval: {} to {}", significant(low, 5), significant(high, 5))
                });
                let extra = format!("{} {}{diverged}{ends}", row.count, measurements.counted);
                entries.push(Entry {
                    name: format!("{} {}", row.id, quantity.name),
                    unit: quantity.unit.clone(),
                    value,
                    range: interval.map(|(low, high)| format!("± {}", significant((high - low) / 2.0, 2))),
                    extra,
                });
            }
        }
        serde_json::to_string_pretty(&entries).unwrap_or_default() + "\n"
    }

    fn remark(&self, measurements: &Measurements) -> Option<String> {
        let tool = match direction(measurements).ok()? {
            Better::Smaller => "customSmallerIsBetter",
            Better::Bigger => "customBiggerIsBetter",
        };
        Some(format!("github-action-benchmark reads it with `tool: {tool}`"))
    }
}

/// The direction that all quantities have.
fn direction(measurements: &Measurements) -> Result<Better, ExportError> {
    let mut common: Option<(Better, &str)> = None;
    for quantity in &measurements.quantities {
        let unsuited = |problem: String, mend: &str| ExportError::Unsuited {
            name: quantity.name.clone(),
            problem,
            mend: mend.to_owned(),
        };
        let Some(better) = quantity.better else {
            let mend = "use --format bmf, or a time, a speed, a loss or an accuracy";
            return Err(unsuited("neither a bigger nor a smaller one is better".to_owned(), mend));
        };
        match common {
            None => common = Some((better, &quantity.name)),
            Some((known, other)) if known != better => {
                let [bigger, smaller] =
                    if better == Better::Bigger { [&*quantity.name, other] } else { [other, &*quantity.name] };
                let problem =
                    format!("a bigger {bigger} and a smaller {smaller} are better, and a file has one direction");
                return Err(unsuited(problem, "write a file for each"));
            }
            Some(_) => {}
        }
    }
    Ok(common.map_or(Better::Smaller, |(better, _)| better))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::tests::two_rows;
    use super::super::{Exported, export_as};
    use super::*;

    fn exported(names: &[&str]) -> Result<Exported, ExportError> {
        export_as(&Github, &two_rows(), &names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn step_times_are_exported_for_custom_smaller_is_better() {
        let exported = exported(&[]).expect("measured");
        let found: Value = serde_json::from_str(&exported.text).expect("JSON");
        let expected = json!([
            {
                "name": "small/case=tanh, 1/n/depth=2 step_time_ms",
                "unit": "ms",
                "value": 0.116,
                "range": "± 0.0015",
                "extra": "5 seeds\n95 % interval: 0.11500 to 0.11800",
            },
            {
                "name": "small/case=100 % a_b/depth=2 step_time_ms",
                "unit": "ms",
                "value": 2.0,
                "extra": "5 seeds, 5 of them diverged",
            },
        ]);
        assert_eq!(found, expected);
        assert!(exported.remark.expect("a remark").contains("customSmallerIsBetter"));
    }

    #[test]
    fn accuracies_are_exported_for_custom_bigger_is_better() {
        let exported = exported(&["test_accuracy"]).expect("measured");
        let found: Value = serde_json::from_str(&exported.text).expect("JSON");
        assert_eq!((found.as_array().map(Vec::len), &found[0]["value"]), (Some(1), &json!(0.968)));
        assert!(exported.remark.expect("a remark").contains("customBiggerIsBetter"));
    }

    #[test]
    fn quantities_of_two_directions_or_of_none_are_refused() {
        let error = exported(&["test_accuracy", "step_time_ms"]).expect_err("two directions").to_string();
        assert_eq!(
            error,
            "--quantity step_time_ms: a bigger test_accuracy and a smaller step_time_ms are better, and a file has one \
             direction; write a file for each"
        );
        let error = exported(&["gradient_ratio_first"]).expect_err("no direction").to_string();
        assert!(error.contains("neither a bigger nor a smaller one is better; use --format bmf"), "{error}");
    }
}
