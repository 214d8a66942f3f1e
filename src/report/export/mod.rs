//! Results in the formats of other tools, one file a format. An exporter takes plain data and returns a text.

mod bmf;
mod criterion;
mod criterion_table;
mod csv;
mod experiment;
mod github;
mod latex;

pub use criterion::of_criterion;
pub use experiment::of_experiment;

use crate::analysis::{Better, Estimate};

/// What is exported: rows of measured quantities.
#[derive(Clone, Debug, PartialEq)]
pub struct Measurements {
    /// What sets rows apart: factors, or the parts of a benchmark's id.
    pub factors: Vec<String>,
    /// What a row's values are the medians of: `seeds` or `samples`.
    pub counted: &'static str,
    /// The quantities, in the order of the values.
    pub quantities: Vec<Measured>,
    /// One row a configuration or benchmark.
    pub rows: Vec<Row>,
}

/// A quantity that was measured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Measured {
    /// Its name, with its unit.
    pub name: String,
    /// What people call it.
    pub title: String,
    /// The unit; empty for a pure number.
    pub unit: String,
    /// The direction that is an improvement, if there is one.
    pub better: Option<Better>,
}

/// A configuration or a benchmark.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// A name that no other row has: `sigmoid_vs_relu/case=relu/depth=8`.
    pub id: String,
    /// The level of each factor.
    pub levels: Vec<String>,
    /// Table, column and row in a table of times.
    pub place: [String; 3],
    /// The seeds or samples.
    pub count: usize,
    /// The seeds that diverged.
    pub diverged: usize,
    /// The median of each quantity over seeds or samples with its 95 % interval; `None` where there is none.
    pub values: Vec<Option<Estimate>>,
    /// The samples of the time, if it was measured.
    pub timing: Option<Timing>,
}

/// The samples of a time and its estimates, in nanoseconds.
#[derive(Clone, Debug, PartialEq)]
pub struct Timing {
    /// Where the results are.
    pub directory: String,
    /// The iterations, or steps, of each sample.
    pub iterations: Vec<u64>,
    /// The time of all iterations of each sample.
    pub sample_times_ns: Vec<f64>,
    /// What an iteration processes: a number and its unit.
    pub throughput: Vec<(u64, &'static str)>,
    /// The estimate that stands for the benchmark.
    pub typical_ns: Estimate,
    /// The mean time of an iteration.
    pub mean_ns: Estimate,
    /// The median.
    pub median_ns: Estimate,
    /// The median absolute deviation.
    pub median_abs_dev_ns: Estimate,
    /// The slope of the times over the iterations.
    pub slope_ns: Option<Estimate>,
}

/// A format of another tool.
pub trait Exporter: Sync {
    /// The name on the command line.
    fn name(&self) -> &'static str;

    /// What is exported of the measured quantities if none is named; empty: all of them.
    fn defaults(&self) -> &'static [&'static str] {
        &[]
    }

    /// Whether the format has a place for the quantities.
    ///
    /// # Errors
    ///
    /// If it has not.
    fn check(&self, _measurements: &Measurements) -> Result<(), ExportError> {
        Ok(())
    }

    /// The text, with a line break at its end.
    fn write(&self, measurements: &Measurements) -> String;

    /// What the reader of the text has to be told, if anything.
    fn remark(&self, _measurements: &Measurements) -> Option<String> {
        None
    }
}

/// Every format.
const FORMATS: [&dyn Exporter; 5] =
    [&csv::Csv, &latex::Latex, &bmf::Bmf, &github::Github, &criterion_table::CriterionTable];

/// A text in a format.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exported {
    /// The text, with a line break at its end.
    pub text: String,
    /// What its reader has to be told, if anything.
    pub remark: Option<String>,
}

/// Why something cannot be exported: the command has to be changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExportError {
    /// No format has that name.
    #[error("--format {0}: there is no such format; use {formats}", formats = names(FORMATS.iter().map(|format| format.name())))]
    UnknownFormat(String),
    /// No row has a value of the quantity.
    #[error("--quantity {name}: it is not measured there; use {known}")]
    UnknownQuantity {
        /// The quantity that was asked for.
        name: String,
        /// Those that there are.
        known: String,
    },
    /// None of what the format exports was measured.
    #[error("--format {format}: nothing that it exports is measured there; {mend}")]
    Nothing {
        /// The format.
        format: &'static str,
        /// What to do about it.
        mend: String,
    },
    /// The format has no place for the quantity.
    #[error("--quantity {name}: {problem}; {mend}")]
    Unsuited {
        /// The quantity.
        name: String,
        /// Why.
        problem: String,
        /// What to do about it.
        mend: String,
    },
}

/// The format of that name.
///
/// # Errors
///
/// If there is none.
pub fn find_format(name: &str) -> Result<&'static dyn Exporter, ExportError> {
    let found = FORMATS.into_iter().find(|format| format.name() == name);
    found.ok_or_else(|| ExportError::UnknownFormat(name.to_owned()))
}

/// Exports the quantities that are named, in that order; of an empty list those that the format exports by itself.
///
/// # Errors
///
/// If a quantity is not there, or the format has no place for it.
pub fn export_as(
    format: &dyn Exporter,
    measurements: &Measurements,
    quantities: &[String],
) -> Result<Exported, ExportError> {
    let chosen = if quantities.is_empty() {
        measurements.select(|name| format.defaults().is_empty() || format.defaults().contains(&name))
    } else {
        measurements.named(quantities)?
    };
    if chosen.quantities.is_empty() {
        let known = names(measurements.measured());
        let mend = if known.is_empty() {
            "measure something: throughput.samples above 0, or training".to_owned()
        } else {
            format!("name one with --quantity: {known}")
        };
        return Err(ExportError::Nothing { format: format.name(), mend });
    }
    format.check(&chosen)?;
    Ok(Exported { text: format.write(&chosen), remark: format.remark(&chosen) })
}

impl Measurements {
    /// The names of the quantities of which a row has a value.
    fn measured(&self) -> impl Iterator<Item = &str> {
        let is_measured = |place: &usize| self.rows.iter().any(|row| row.values[*place].is_some());
        (0..self.quantities.len()).filter(is_measured).map(|place| self.quantities[place].name.as_str())
    }

    /// Those of the measured quantities whose name is wanted.
    fn select(&self, is_wanted: impl Fn(&str) -> bool) -> Self {
        let wanted: Vec<&str> = self.measured().filter(|name| is_wanted(name)).collect();
        self.in_order(&wanted)
    }

    /// The quantities of these names, in this order, each once.
    fn named(&self, names_wanted: &[String]) -> Result<Self, ExportError> {
        let mut wanted: Vec<&str> = Vec::new();
        for name in names_wanted {
            let Some(known) = self.measured().find(|known| known == name) else {
                return Err(ExportError::UnknownQuantity { name: name.clone(), known: names(self.measured()) });
            };
            if !wanted.contains(&known) {
                wanted.push(known);
            }
        }
        Ok(self.in_order(&wanted))
    }

    fn in_order(&self, wanted: &[&str]) -> Self {
        let places: Vec<usize> = wanted
            .iter()
            .filter_map(|name| self.quantities.iter().position(|quantity| quantity.name == *name))
            .collect();
        let row = |row: &Row| Row { values: places.iter().map(|place| row.values[*place]).collect(), ..row.clone() };
        Self {
            factors: self.factors.clone(),
            counted: self.counted,
            quantities: places.iter().map(|place| self.quantities[*place].clone()).collect(),
            rows: self.rows.iter().map(row).collect(),
        }
    }

    /// The rows with their values of a quantity, without those that have none.
    fn values(&self, place: usize) -> impl Iterator<Item = (&Row, Estimate)> {
        self.rows.iter().filter_map(move |row| Some((row, row.values[place]?)))
    }
}

/// `a, b or c`
fn names<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let names: Vec<&str> = names.collect();
    match &names[..] {
        [all @ .., last] if !all.is_empty() => format!("{} or {last}", all.join(", ")),
        _ => names.concat(),
    }
}

/// A name of words that are joined by hyphens: `network.weight_init` is `network-weight-init`.
fn kebab_case(name: &str) -> String {
    let words = name.split(|char: char| !char.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    words.collect::<Vec<_>>().join("-").to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    pub fn estimate(value: f64, low: f64, high: f64) -> Estimate {
        Estimate { value, interval: Some((low, high)) }
    }

    pub fn quantity(name: &str, title: &str, unit: &str, better: Option<Better>) -> Measured {
        Measured { name: name.to_owned(), title: title.to_owned(), unit: unit.to_owned(), better }
    }

    /// Two configurations; the second has diverged and knows only its speed.
    pub fn two_rows() -> Measurements {
        let row = |case: &str, diverged, values| Row {
            id: format!("small/case={case}/depth=2"),
            levels: vec![case.to_owned(), "2".to_owned()],
            place: ["small", case, "2"].map(str::to_owned),
            count: 5,
            diverged,
            values,
            timing: None,
        };
        Measurements {
            factors: vec!["case".to_owned(), "network.depth".to_owned()],
            counted: "seeds",
            quantities: vec![
                quantity("test_accuracy", "test accuracy", "", Some(Better::Bigger)),
                quantity("gradient_ratio_first", "first by last gradient, start", "", None),
                quantity("step_time_ms", "step time", "ms", Some(Better::Smaller)),
                quantity("train_loss", "train loss", "", Some(Better::Smaller)),
            ],
            rows: vec![
                row(
                    "tanh, 1/n",
                    0,
                    vec![
                        Some(estimate(0.968, 0.961, 0.972)),
                        Some(estimate(3.3e-10, 3.1e-10, 3.52e-10)),
                        Some(estimate(0.116, 0.115, 0.118)),
                        None,
                    ],
                ),
                row("100 % a_b", 5, vec![None, None, Some(Estimate { value: 2.0, interval: None }), None]),
            ],
        }
    }

    #[test]
    fn without_names_every_measured_quantity_is_exported_and_with_names_those_in_their_order() {
        let measured = two_rows();
        let all: Vec<String> = measured.select(|_| true).quantities.into_iter().map(|one| one.name).collect();
        assert_eq!(all, ["test_accuracy", "gradient_ratio_first", "step_time_ms"]);
        let wanted = ["step_time_ms", "test_accuracy", "step_time_ms"].map(str::to_owned);
        let named = measured.named(&wanted).expect("measured");
        assert_eq!(named.quantities.len(), 2);
        assert_eq!(named.rows[0].values, [Some(estimate(0.116, 0.115, 0.118)), Some(estimate(0.968, 0.961, 0.972))]);
    }

    #[test]
    fn what_is_not_measured_is_refused_with_what_is() {
        for name in ["train_loss", "absent"] {
            let error = export_as(&csv::Csv, &two_rows(), &[name.to_owned()]).expect_err("none");
            let expected = format!(
                "--quantity {name}: it is not measured there; use test_accuracy, gradient_ratio_first or step_time_ms"
            );
            assert_eq!(error.to_string(), expected);
        }
        let error = find_format("xml").err().map(|error| error.to_string()).unwrap_or_default();
        assert_eq!(error, "--format xml: there is no such format; use csv, latex, bmf, github or criterion-table");
        let nothing = Measurements { rows: Vec::new(), ..two_rows() };
        let error = export_as(&csv::Csv, &nothing, &[]).expect_err("nothing").to_string();
        assert!(error.contains("nothing that it exports is measured there; measure something"), "{error}");
    }

    #[test]
    fn names_are_joined_by_hyphens() {
        assert_eq!(kebab_case("network.weight_init"), "network-weight-init");
        assert_eq!(kebab_case("test_accuracy"), "test-accuracy");
    }
}
