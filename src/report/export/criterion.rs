//! What there is to export of criterion's own results: a row a benchmark, over its samples.

use super::{Measured, Measurements, Row, Timing};
use crate::analysis::{Better, Estimate};
use crate::record::CriterionBenchmark;

/// What criterion measured.
pub fn of_criterion(benchmarks: &[CriterionBenchmark]) -> Measurements {
    let mut quantities = vec![Measured {
        name: "time_ns".to_owned(),
        title: "time".to_owned(),
        unit: "ns".to_owned(),
        better: Some(Better::Smaller),
    }];
    quantities.extend(["elements", "bytes", "bits"].map(|unit| Measured {
        name: format!("{unit}_per_second"),
        title: format!("{unit} a second"),
        unit: format!("{unit}/s"),
        better: Some(Better::Bigger),
    }));
    Measurements {
        factors: ["group", "function", "value"].map(str::to_owned).to_vec(),
        counted: "samples",
        quantities,
        rows: benchmarks.iter().map(row).collect(),
    }
}

fn row(benchmark: &CriterionBenchmark) -> Row {
    let part = |part: &Option<String>| part.clone().unwrap_or_default();
    let speed = |unit: &str| {
        let (amount, _) = benchmark.throughput.iter().find(|(_, known)| *known == unit)?;
        let per_second = |ns: f64| *amount as f64 / ns * 1e9;
        let Estimate { value, interval } = benchmark.median_ns;
        // The shorter the time, the higher the speed.
        let interval = interval.map(|(low, high)| (per_second(high), per_second(low)));
        Some(Estimate { value: per_second(value), interval })
    };
    Row {
        id: benchmark.id.clone(),
        levels: vec![benchmark.group.clone(), part(&benchmark.function), part(&benchmark.value)],
        place: place(benchmark),
        count: benchmark.iterations.len(),
        diverged: 0,
        values: vec![Some(benchmark.median_ns), speed("elements"), speed("bytes"), speed("bits")],
        timing: Some(Timing {
            directory: benchmark.directory.display().to_string(),
            iterations: benchmark.iterations.clone(),
            sample_times_ns: benchmark.sample_times_ns.clone(),
            throughput: benchmark.throughput.clone(),
            typical_ns: benchmark.typical_ns(),
            mean_ns: benchmark.mean_ns,
            median_ns: benchmark.median_ns,
            median_abs_dev_ns: benchmark.median_abs_dev_ns,
            slope_ns: benchmark.slope_ns,
        }),
    }
}

/// The group is the table, the function the column and the value the row. A function such as `relu/20x128` without a
/// value is both; a benchmark of its own goes into a table of such.
fn place(benchmark: &CriterionBenchmark) -> [String; 3] {
    let (group, value) = (benchmark.group.as_str(), benchmark.value.as_deref());
    let parts = match (benchmark.function.as_deref(), value) {
        (Some(function), Some(value)) => [group, function, value],
        (Some(function), None) => {
            let (column, row) = function.split_once('/').unwrap_or((function, ""));
            [group, column, row]
        }
        (None, Some(value)) => [group, "time", value],
        (None, None) => ["benchmarks", "time", group],
    };
    parts.map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn benchmark(group: &str, function: Option<&str>, value: Option<&str>) -> CriterionBenchmark {
        let estimate = Estimate { value: 2e6, interval: Some((1e6, 4e6)) };
        CriterionBenchmark {
            id: "id".to_owned(),
            group: group.to_owned(),
            function: function.map(str::to_owned),
            value: value.map(str::to_owned),
            directory: "target/criterion/id".into(),
            throughput: vec![(8, "elements")],
            iterations: vec![1, 2, 3],
            sample_times_ns: vec![2e6, 4e6, 6e6],
            mean_ns: estimate,
            median_ns: estimate,
            median_abs_dev_ns: estimate,
            slope_ns: None,
        }
    }

    #[test]
    fn the_highest_speed_is_that_of_the_shortest_time() {
        let measured = of_criterion(&[benchmark("step", None, None)]);
        let values = &measured.rows[0].values;
        assert_eq!(values[0], Some(Estimate { value: 2e6, interval: Some((1e6, 4e6)) }));
        assert_eq!(values[1], Some(Estimate { value: 4000.0, interval: Some((2000.0, 8000.0)) }));
        assert_eq!((values[2], values[3], measured.rows[0].count), (None, None, 3));
    }

    #[test]
    fn every_benchmark_has_a_table_a_column_and_a_row_of_its_own() {
        let place = |group, function, value| place(&benchmark(group, function, value));
        assert_eq!(place("step/flex", Some("relu/20x128"), None), ["step/flex", "relu", "20x128"]);
        assert_eq!(place("step", Some("relu"), Some("20")), ["step", "relu", "20"]);
        assert_eq!(place("step", Some("relu"), None), ["step", "relu", ""]);
        assert_eq!(place("step", None, Some("20")), ["step", "time", "20"]);
        assert_eq!(place("step", None, None), ["benchmarks", "time", "step"]);
    }
}
