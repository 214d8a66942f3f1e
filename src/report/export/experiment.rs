//! What there is to export of an experiment: a row a configuration, over its seeds.

use super::{Measured, Measurements, Row, Timing};
use crate::analysis::{QUANTITIES, RunSummary, bootstrap, configurations, mean, median};
use crate::record::RunRecord;
use crate::report::format::short_name;
use crate::schema::{ProbeLoad, ThroughputPhase, ThroughputRow};

/// What was measured in an experiment whose results are in `dir`: its runs and their summaries in the same order, with
/// the same factors.
pub fn of_experiment(dir: &str, factors: &[String], runs: &[RunRecord], summaries: &[RunSummary]) -> Measurements {
    let title = runs.first().map_or_else(String::new, |run| run.manifest.experiment.clone());
    let rows = configurations(summaries).into_iter().map(|configuration| {
        let levels = configuration.levels;
        let is_of = |(_, summary): &(&RunRecord, &RunSummary)| summary.levels == levels;
        let runs: Vec<&RunRecord> = runs.iter().zip(summaries).filter(is_of).map(|(run, _)| run).collect();
        Row {
            id: id(&title, factors, levels),
            levels: levels.to_vec(),
            place: place(&title, factors, levels),
            count: configuration.runs.len(),
            diverged: configuration.diverged(),
            values: QUANTITIES.iter().map(|quantity| quantity.over_seeds(&configuration)).collect(),
            timing: timing(dir, &runs),
        }
    });
    Measurements {
        factors: factors.to_vec(),
        counted: "seeds",
        quantities: QUANTITIES
            .iter()
            .map(|quantity| Measured {
                name: quantity.name.to_owned(),
                title: quantity.title.to_owned(),
                unit: quantity.unit.to_owned(),
                better: quantity.better,
            })
            .collect(),
        rows: rows.collect(),
    }
}

/// `sigmoid_vs_relu/case=relu/depth=8`
fn id(title: &str, factors: &[String], levels: &[String]) -> String {
    let factor = |(factor, level): (&String, &String)| format!("/{}={level}", short_name(factor));
    title.to_owned() + &factors.iter().zip(levels).map(factor).collect::<String>()
}

/// The first factor gives the columns and the others the rows, as they give the colours and the panels of figures.
fn place(title: &str, factors: &[String], levels: &[String]) -> [String; 3] {
    let Some((column, others)) = levels.split_first() else {
        return [title.to_owned(), "step".to_owned(), String::new()];
    };
    let named = factors.iter().skip(1).zip(others).map(|(factor, level)| format!("{} {level}", short_name(factor)));
    [title.to_owned(), column.clone(), named.collect::<Vec<_>>().join(", ")]
}

/// The steady samples of steps without the probe, of all seeds.
fn timing(dir: &str, runs: &[&RunRecord]) -> Option<Timing> {
    let steady = |run: &&RunRecord| -> Vec<ThroughputRow> {
        let is_steady = |row: &&ThroughputRow| row.phase == ThroughputPhase::Steady && row.probe == ProbeLoad::Off;
        run.rows.throughput.iter().filter(is_steady).cloned().collect()
    };
    let step_ns = |row: &ThroughputRow| row.elapsed_ms * 1e6 / row.steps as f64;
    let samples: Vec<Vec<ThroughputRow>> = runs.iter().map(steady).filter(|samples| !samples.is_empty()).collect();
    let step_times = |samples: &Vec<ThroughputRow>| samples.iter().map(step_ns).collect::<Vec<f64>>();
    // Samples of one run are alike: of several runs, their medians are resampled.
    let times: Vec<f64> = match &samples[..] {
        [only] => step_times(only),
        several => several.iter().filter_map(|samples| median(&step_times(samples))).collect(),
    };
    let statistic = |of: fn(&[f64]) -> Option<f64>| bootstrap(&times, move |drawn| of(drawn).unwrap_or(f64::NAN));
    let median_ns = statistic(median)?;
    let rows = || samples.iter().flatten();
    let first = rows().next()?;
    let batch_size = (first.examples_per_second / first.steps_per_second).round() as u64;
    Some(Timing {
        directory: dir.to_owned(),
        iterations: rows().map(|row| row.steps as u64).collect(),
        sample_times_ns: rows().map(|row| row.elapsed_ms * 1e6).collect(),
        throughput: vec![(batch_size, "elements")],
        typical_ns: median_ns,
        mean_ns: statistic(mean)?,
        median_ns,
        median_abs_dev_ns: statistic(median_absolute_deviation)?,
        slope_ns: None,
    })
}

/// Scaled as criterion does, so that it estimates the standard deviation of a normal distribution.
fn median_absolute_deviation(samples: &[f64]) -> Option<f64> {
    let center = median(samples)?;
    let deviations: Vec<f64> = samples.iter().map(|sample| (sample - center).abs()).collect();
    Some(median(&deviations)? * 1.482_602_218_505_602)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_factor_gives_the_columns_and_the_others_the_rows() {
        let factors = ["case", "network.depth", "network.width"].map(str::to_owned);
        let levels = ["tanh", "8", "64"].map(str::to_owned);
        assert_eq!(id("small", &factors, &levels), "small/case=tanh/depth=8/width=64");
        assert_eq!(place("small", &factors, &levels), ["small", "tanh", "depth 8, width 64"]);
        assert_eq!(
            (id("small", &[], &[]), place("small", &[], &[])),
            ("small".to_owned(), ["small", "step", ""].map(str::to_owned))
        );
    }

    #[test]
    fn the_median_absolute_deviation_is_scaled_to_a_standard_deviation() {
        let found = median_absolute_deviation(&[1.0, 2.0, 3.0, 4.0, 100.0]).expect("five");
        assert!((found - 1.4826).abs() < 1e-4, "{found}");
    }
}
