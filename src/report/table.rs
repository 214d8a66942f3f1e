//! Tables for the terminal.

use std::collections::HashMap;

use comfy_table::{Cell, CellAlignment, ContentArrangement, LineStyle, Table, presets};

use super::format::{short_name, significant};
use crate::analysis::{Configuration, RunSummary, configurations, geometric_mean, mean, standard_deviation};
use crate::device::Adapter;
use crate::plan::{Plan, RunSpec};
use crate::verify::{Case, Expected, Finding, Outcome, Verdict};

pub(super) fn table(headers: Vec<String>) -> Table {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING.header_separator(LineStyle::none().fill('─').junction('─')))
        .set_content_arrangement(ContentArrangement::Disabled)
        .set_header(headers);
    table
}

/// One row a configuration: mean and spread over its seeds.
pub fn summary_table(factors: &[String], runs: &[RunSummary]) -> String {
    let configurations = configurations(runs);
    let has_divergence = configurations.iter().any(|configuration| configuration.diverged() > 0);
    let mut headers: Vec<String> = factors.iter().map(|factor| short_name(factor).to_owned()).collect();
    headers.push("seeds".to_owned());
    if has_divergence {
        headers.push("diverged".to_owned());
    }
    let has_pretraining = runs.iter().any(|run| run.pretraining_ms.is_some());
    let outcomes: Vec<Vec<String>> =
        configurations.iter().map(|configuration| outcome_cells(configuration, has_pretraining)).collect();
    // A column that no configuration fills says nothing: a network that is not trained has no loss, for example.
    let shown: Vec<usize> =
        (0..OUTCOMES.len()).filter(|column| outcomes.iter().any(|cells| !cells[*column].is_empty())).collect();
    headers.extend(shown.iter().map(|column| OUTCOMES[*column].to_owned()));
    let mut table = table(headers);
    for (configuration, outcome) in configurations.iter().zip(outcomes) {
        let mut cells: Vec<Cell> = configuration.levels.iter().map(Cell::new).collect();
        cells.push(number(configuration.runs.len().to_string()));
        if has_divergence {
            cells.push(number(configuration.diverged().to_string()));
        }
        cells.extend(shown.iter().map(|column| number(outcome[*column].clone())));
        table.add_row(cells);
    }
    table.to_string()
}

/// The columns of [`outcome_cells`].
const OUTCOMES: [&str; 17] = [
    "train loss",
    "test loss",
    "test accuracy",
    "reconstruction\nerror",
    "that of principal\ncomponents",
    "pretraining\ns",
    "in all\ns",
    "first/last\ngrad, start",
    "first/last\ngrad, end",
    "decades\na layer",
    "delta\na layer",
    "delta by\nprediction",
    "decades a\ntime step, start",
    "decades a\ntime step, end",
    "step ms",
    "examples/s",
    "probe\ncost",
];

pub(super) fn number(text: String) -> Cell {
    Cell::new(text).set_alignment(CellAlignment::Right)
}

/// The time in all is shown beside that of pretraining, which some of the runs have.
fn outcome_cells(configuration: &Configuration<'_>, has_pretraining: bool) -> Vec<String> {
    let ratio = |values: Vec<f64>| geometric_mean(&values).map_or_else(String::new, |value| significant(value, 2));
    let mean_of = |value: fn(&RunSummary) -> Option<f64>, digits| {
        mean(&configuration.values(value)).map_or_else(String::new, |value| significant(value, digits))
    };
    let is_trained = configuration.runs.iter().any(|run| run.is_trained);
    let delta_rate = configuration.delta_rate();
    vec![
        mean_and_spread(&configuration.values(|run| run.train_loss), 1.0, ""),
        // Accuracy may see a part of what a recurrent network answers, and of a number only whether it is close.
        mean_and_spread(&configuration.values(|run| run.test_loss.filter(|_| run.has_states)), 1.0, ""),
        mean_and_spread(&configuration.values(|run| run.test_accuracy), 100.0, " %"),
        mean_and_spread(&configuration.values(|run| run.test_reconstruction_error), 1.0, ""),
        mean_of(|run| run.principal_components_error, 4),
        mean_of(|run| run.pretraining_ms.map(|ms| ms / 1e3), 3),
        if has_pretraining { mean_of(|run| run.total_ms.map(|ms| ms / 1e3), 3) } else { String::new() },
        ratio(configuration.values(|run| run.gradient_ratio_first)),
        ratio(configuration.values(|run| run.gradient_ratio_last.filter(|_| is_trained))),
        mean_of(|run| run.decades_lost_per_layer_first, 2),
        delta_rate.map_or_else(String::new, |rate| significant(rate, 4)),
        configuration.delta_by_prediction().map_or_else(String::new, |ratio| significant(ratio, 3)),
        mean_of(|run| run.decades_lost_per_time_step_first, 2),
        mean_of(|run| run.decades_lost_per_time_step_last.filter(|_| run.is_trained), 2),
        mean_of(|run| run.step_time_ms.map(|interval| interval.median), 3),
        mean_of(|run| run.examples_per_second.map(|interval| interval.median), 3),
        mean_of(|run| run.probe_ratio.map(|interval| interval.median), 3),
    ]
}

/// `97.1 ± 0.4 %`: the mean and the standard deviation over seeds, to the same decimal.
fn mean_and_spread(values: &[f64], factor: f64, unit: &str) -> String {
    let Some(center) = mean(values).map(|center| center * factor) else {
        return String::new();
    };
    let Some(spread) = standard_deviation(values).map(|spread| spread * factor) else {
        return format!("{}{unit}", significant(center, 3));
    };
    if center != 0.0 && !(-3.0..6.0).contains(&center.abs().log10()) {
        return format!("{} ± {}{unit}", significant(center, 2), significant(spread, 1));
    }
    let decimals = if unit.is_empty() { 4 } else { 1 };
    format!("{center:.decimals$} ± {spread:.decimals$}{unit}")
}

/// One row a run; those of a group that train together have the number of the group.
pub fn plan_table(plan: &Plan, groups: &[Vec<&RunSpec>]) -> String {
    let together = groups.iter().filter(|group| group.len() > 1).enumerate();
    let group_of: HashMap<&str, usize> =
        together.flat_map(|(place, group)| group.iter().map(move |run| (run.run_id.as_str(), place + 1))).collect();
    let mut headers = vec!["run".to_owned()];
    headers.extend(plan.factors.iter().map(|factor| short_name(factor).to_owned()));
    headers.push("seed".to_owned());
    if !group_of.is_empty() {
        headers.push("group".to_owned());
    }
    let mut table = table(headers);
    for run in &plan.runs {
        let mut cells = vec![Cell::new(&run.run_id)];
        cells.extend(run.levels.iter().map(Cell::new));
        cells.push(number(run.seed.to_string()));
        if !group_of.is_empty() {
            cells.push(number(group_of.get(run.run_id.as_str()).map_or_else(String::new, ToString::to_string)));
        }
        table.add_row(cells);
    }
    table.to_string()
}

/// One row an adapter.
pub fn adapter_table(adapters: &[Adapter]) -> String {
    let headers = ["device", "name", "kind", "interface", "driver"].map(str::to_owned);
    let mut table = table(headers.to_vec());
    for adapter in adapters {
        let kind = if adapter.is_software() {
            format!("{} (runs on the CPU, no GPU)", adapter.kind)
        } else {
            adapter.kind.to_string()
        };
        table.add_row([
            format!("{}:{}", adapter.backend.name(), adapter.index),
            adapter.name.clone(),
            kind,
            adapter.api.clone(),
            adapter.driver.clone(),
        ]);
    }
    table.to_string()
}

/// One row a finding; the case and its source stand in the first row of each.
pub fn verify_table(outcomes: &[Outcome]) -> String {
    let headers = ["case", "quantity", "source", "expected", "measured", "tolerance", "verdict"].map(str::to_owned);
    let mut table = table(headers.to_vec());
    for outcome in outcomes {
        for (row, finding) in outcome.findings.iter().enumerate() {
            let once = |text: &str| if row == 0 { text.to_owned() } else { String::new() };
            table.add_row([
                Cell::new(once(outcome.case)),
                Cell::new(&finding.quantity),
                Cell::new(once(&outcome.source)),
                number(expected(&finding.expected)),
                number(finding.measured.map_or_else(String::new, |value| significant(value, DIGITS))),
                Cell::new(&finding.expected.tolerance),
                Cell::new(verdict(finding)),
            ]);
        }
    }
    // Reasons are long: below the table, where they widen no column.
    let mut text = table.to_string();
    for (outcome, finding) in outcomes.iter().flat_map(|outcome| outcome.findings.iter().map(move |one| (outcome, one)))
    {
        if let Some(reason) = &finding.reason {
            let lines = [&text, &format!("{}, {} {}: {reason}", outcome.case, finding.quantity, verdict(finding))];
            text = lines.map(String::as_str).join("\n");
        }
    }
    text
}

/// The digits of what is expected and measured.
const DIGITS: usize = 5;

/// A known value, or the bounds of a measured one.
fn expected(expected: &Expected) -> String {
    let text = |value: f64| {
        let text = significant(value, DIGITS);
        // What is written with few digits is shown with few.
        let (digits, exponent) =
            text.split_once('e').map_or((text.as_str(), None), |(digits, rest)| (digits, Some(rest)));
        let short = if digits.contains('.') { digits.trim_end_matches('0').trim_end_matches('.') } else { digits };
        exponent.map_or_else(|| short.to_owned(), |exponent| format!("{short}e{exponent}"))
    };
    match (expected.value, expected.low, expected.high) {
        (Some(value), ..) => text(value),
        (None, Some(low), Some(high)) => format!("{} to {}", text(low), text(high)),
        (None, Some(low), None) => format!("at least {}", text(low)),
        (None, None, Some(high)) => format!("at most {}", text(high)),
        (None, None, None) => String::new(),
    }
}

fn verdict(finding: &Finding) -> &'static str {
    match finding.verdict {
        Verdict::Pass => "pass",
        Verdict::Fail => "FAIL",
        Verdict::Skipped => "skipped",
    }
}

/// One row a case.
pub fn case_table(cases: &[Case]) -> String {
    let mut table = table(["case", "time", "what it shows", "source"].map(str::to_owned).to_vec());
    for case in cases {
        table.add_row([case.name, if case.is_long { "long" } else { "seconds" }, case.about, case.source]);
    }
    table.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analysis::summarize;
    use crate::schema::{RunRows, RunStatus};

    fn summary() -> RunSummary {
        let empty = summarize("r", vec![], 1, RunStatus::Complete, &RunRows::default());
        RunSummary { is_trained: true, train_loss: Some(0.5), test_loss: Some(0.75), test_accuracy: Some(0.5), ..empty }
    }

    #[test]
    fn only_a_recurrent_network_has_columns_of_time_steps_and_of_the_test_loss() {
        let other = summary_table(&[], &[summary()]);
        assert!(
            !other.contains("time step") && !other.contains("test loss") && other.contains("train loss"),
            "{other}"
        );
        let recurrent = RunSummary {
            has_states: true,
            decades_lost_per_time_step_first: Some(0.123),
            decades_lost_per_time_step_last: Some(-0.0456),
            ..summary()
        };
        let table = summary_table(&[], std::slice::from_ref(&recurrent));
        for text in ["time step, start", "time step, end", "0.12", "-0.046", "test loss", "0.750"] {
            assert!(table.contains(text), "{text}: {table}");
        }
        // Without training the end is the start.
        let untrained = summary_table(&[], &[RunSummary { is_trained: false, ..recurrent }]);
        assert!(untrained.contains("time step, start") && !untrained.contains("time step, end"), "{untrained}");
    }
}
