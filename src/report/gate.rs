//! Tables of baselines and gates.

use super::format::significant;
use super::table::{number, table};
use crate::gate::science::{Deviation, Tolerance};
use crate::gate::{QuietLimit, median_step_ms, spread, usable_sessions};
use crate::record::Baseline;
use crate::schema::{Against, Verdict, VerdictRow};

/// One row a configuration: its speed, how much its sessions differ, and what a gate would take for noise.
pub fn baseline_table(baseline: &Baseline) -> String {
    let headers = ["configuration", "step ms", "sessions", "spread", "noise floor"].map(str::to_owned);
    let mut table = table(headers.to_vec());
    for configuration in &baseline.configurations {
        let sessions = &configuration.sessions;
        let limit = QuietLimit::of(sessions);
        table.add_row([
            comfy_table::Cell::new(&configuration.name),
            number(median_step_ms(sessions, limit).map_or_else(String::new, |ms| significant(ms, 4))),
            number(usable_sessions(sessions, limit).to_string()),
            number(spread(sessions, limit).map_or_else(String::new, percent)),
            number(configuration.noise_floor.map_or_else(String::new, percent)),
        ]);
    }
    table.to_string()
}

/// One row a configuration and baseline.
pub fn verdict_table(rows: &[VerdictRow]) -> String {
    let headers = [
        "configuration",
        "against",
        "step ms\nbefore",
        "step ms\nnow",
        "now by\nbefore",
        "95 % interval",
        "corrected",
        "noise\nfloor",
        "threshold",
        "attempts",
        "verdict",
    ];
    let has_correction = rows.iter().any(|row| row.corrected_ratio.is_some());
    let shown = |column: usize| column != 6 || has_correction;
    let shown_headers = headers.iter().enumerate().filter(|(column, _)| shown(*column));
    let mut table = table(shown_headers.map(|(_, header)| (*header).to_owned()).collect());
    for row in rows {
        let cells = [
            comfy_table::Cell::new(&row.configuration),
            comfy_table::Cell::new(match row.against {
                Against::Pinned => "pinned",
                Against::Rolling => "rolling",
                Against::Base => "base",
            }),
            number(significant(row.baseline_step_ms, 4)),
            number(significant(row.step_ms, 4)),
            number(format!("{:.3}", row.ratio)),
            number(format!("{:.3} to {:.3}", row.ratio_low, row.ratio_high)),
            number(row.corrected_ratio.map_or_else(String::new, |ratio| format!("{ratio:.3}"))),
            number(percent(row.noise_floor)),
            number(percent(row.threshold)),
            number(row.attempts.to_string()),
            comfy_table::Cell::new(verdict(row.verdict)),
        ];
        table.add_row(cells.into_iter().enumerate().filter(|(column, _)| shown(*column)).map(|(_, cell)| cell));
    }
    table.to_string()
}

fn verdict(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Pass => "pass",
        Verdict::Improvement => "improvement",
        Verdict::Regression => "REGRESSION",
        Verdict::Unconfirmed => "not confirmed",
    }
}

fn percent(fraction: f64) -> String {
    format!("{:.1} %", fraction * 100.0)
}

/// One row a quantity that is not where its reference is.
pub fn deviation_table(deviations: &[Deviation]) -> String {
    let headers = ["configuration", "seed", "quantity", "layer", "reference", "now", "tolerance"].map(str::to_owned);
    let mut table = table(headers.to_vec());
    for Deviation { reference, value, tolerance } in deviations {
        let shown = |value: Option<f64>| value.map_or_else(|| "none".to_owned(), |value| significant(value, 6));
        table.add_row([
            comfy_table::Cell::new(&reference.configuration),
            number(reference.seed.to_string()),
            comfy_table::Cell::new(&reference.quantity),
            number(reference.layer.map_or_else(String::new, |layer| layer.to_string())),
            number(shown(reference.value)),
            number(shown(*value)),
            comfy_table::Cell::new(match tolerance {
                Tolerance::Absolute(limit) => format!("± {limit}"),
                Tolerance::Relative(limit) => format!("± {} %", significant(limit * 100.0, 1)),
            }),
        ]);
    }
    table.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(corrected_ratio: Option<f64>, verdict: Verdict) -> VerdictRow {
        VerdictRow {
            configuration: "depth=8".to_owned(),
            against: Against::Pinned,
            baseline_step_ms: 1.0,
            step_ms: 1.1,
            ratio: 1.1,
            ratio_low: 1.08,
            ratio_high: 1.12,
            corrected_ratio,
            noise_floor: 0.021,
            threshold: 0.05,
            attempts: 3,
            verdict,
            ..VerdictRow::default()
        }
    }

    #[test]
    fn a_verdict_stands_beside_its_ratio_interval_floor_and_threshold() {
        let text = verdict_table(&[row(Some(1.09), Verdict::Regression)]);
        let cells: Vec<&str> =
            text.lines().last().expect("a row").split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect();
        let expected = [
            "depth=8",
            "pinned",
            "1.000",
            "1.100",
            "1.100",
            "1.080 to 1.120",
            "1.090",
            "2.1 %",
            "5.0 %",
            "3",
            "REGRESSION",
        ];
        assert_eq!(cells, expected);
    }

    #[test]
    fn the_column_of_the_correction_is_there_only_where_something_is_corrected() {
        assert!(!verdict_table(&[row(None, Verdict::Pass)]).contains("corrected"));
        assert!(verdict_table(&[row(None, Verdict::Pass), row(Some(1.0), Verdict::Pass)]).contains("corrected"));
    }

    #[test]
    fn a_quantity_that_a_run_lost_is_told_as_none() {
        let reference =
            crate::schema::ReferenceRow { quantity: "train_loss".to_owned(), value: Some(0.5), ..Default::default() };
        let text = deviation_table(&[Deviation { reference, value: None, tolerance: Tolerance::Relative(0.02) }]);
        assert!(text.contains("none") && text.contains("± 2 %") && text.contains("0.500000"), "{text}");
    }
}
