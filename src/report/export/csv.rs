//! Tidy CSV whose columns LaTeX can name: what pgfplots draws, and R and pandas read.

use super::{Exporter, Measurements, kebab_case};
use crate::report::format::short_name;

/// Tidy CSV.
pub struct Csv;

impl Exporter for Csv {
    fn name(&self) -> &'static str {
        "csv"
    }

    /// A row a configuration: factors, seeds, and median, low and high of each quantity.
    ///
    /// Names of columns have letters, digits and hyphens only, because `_`, `#`, `%` and `&` mean something to TeX.
    /// Levels have no commas, because pgfplots knows no quotes.
    fn write(&self, measurements: &Measurements) -> String {
        let mut columns = factor_columns(&measurements.factors);
        columns.push(measurements.counted.to_owned());
        columns.push("diverged".to_owned());
        for quantity in &measurements.quantities {
            let name = kebab_case(&quantity.name);
            columns.extend(["median", "low", "high"].map(|statistic| format!("{name}-{statistic}")));
        }
        let mut text = line(&columns);
        for row in &measurements.rows {
            let mut fields: Vec<String> = row.levels.iter().map(|level| level.replace(',', ";")).collect();
            fields.push(row.count.to_string());
            fields.push(row.diverged.to_string());
            for value in &row.values {
                let interval = value.and_then(|estimate| estimate.interval);
                let numbers =
                    [value.map(|estimate| estimate.value), interval.map(|ends| ends.0), interval.map(|ends| ends.1)];
                fields.extend(numbers.map(|number| number.map_or_else(String::new, |number| number.to_string())));
            }
            text += &line(&fields);
        }
        text
    }
}

/// The factors without their sections where that leaves them apart.
fn factor_columns(factors: &[String]) -> Vec<String> {
    let is_shared = |name: &str| factors.iter().filter(|factor| short_name(factor) == name).count() > 1;
    let column = |factor: &String| {
        let short = short_name(factor);
        kebab_case(if is_shared(short) { factor } else { short })
    };
    factors.iter().map(column).collect()
}

/// A line; a quote or a line break within a field is taken for a space.
fn line(fields: &[String]) -> String {
    let plain = |field: &String| field.replace(['"', '\n', '\r'], " ");
    fields.iter().map(plain).collect::<Vec<_>>().join(",") + "\n"
}

#[cfg(test)]
mod tests {
    use super::super::export_as;
    use super::super::tests::two_rows;
    use super::*;

    #[test]
    fn a_configuration_is_a_row_with_empty_fields_for_what_it_does_not_have() {
        let text = export_as(&Csv, &two_rows(), &["step_time_ms".to_owned(), "test_accuracy".to_owned()]);
        assert_eq!(
            text.expect("measured").text,
            "case,depth,seeds,diverged,step-time-ms-median,step-time-ms-low,step-time-ms-high,\
             test-accuracy-median,test-accuracy-low,test-accuracy-high\n\
             tanh; 1/n,2,5,0,0.116,0.115,0.118,0.968,0.961,0.972\n\
             100 % a_b,2,5,5,2,,,,,\n"
        );
    }

    #[test]
    fn columns_have_letters_digits_and_hyphens_only_and_no_name_twice() {
        let factors = ["training.momentum", "training.pretraining.momentum", "case"].map(str::to_owned);
        assert_eq!(factor_columns(&factors), ["training-momentum", "training-pretraining-momentum", "case"]);
        let text = export_as(&Csv, &two_rows(), &[]).expect("measured").text;
        let header = text.lines().next().expect("a header");
        assert!(header.chars().all(|char| char.is_ascii_lowercase() || char.is_ascii_digit() || "-,".contains(char)));
    }
}
