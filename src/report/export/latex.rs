//! A table for papers, with the rules of booktabs.

use super::{Exporter, Measured, Measurements};
use crate::analysis::Estimate;
use crate::report::format::short_name;

/// A LaTeX table.
pub struct Latex;

impl Exporter for Latex {
    fn name(&self) -> &'static str {
        "latex"
    }

    fn defaults(&self) -> &'static [&'static str] {
        // What fits on a page.
        &[
            "train_loss",
            "test_accuracy",
            "test_reconstruction_error",
            "decades_lost_per_layer_first",
            "decades_lost_per_time_step_first",
            "step_time_ms",
            "time_ns",
        ]
    }

    /// A tabular that needs booktabs alone: factors, seeds, and each quantity as its median and 95 % interval.
    fn write(&self, measurements: &Measurements) -> String {
        // A part of a benchmark's id that none has.
        let shown: Vec<usize> = (0..measurements.factors.len())
            .filter(|place| measurements.rows.iter().any(|row| !row.levels[*place].is_empty()))
            .collect();
        let has_divergence = measurements.rows.iter().any(|row| row.diverged > 0);
        let scales: Vec<Scale> =
            (0..measurements.quantities.len()).map(|place| Scale::new(measurements, place)).collect();

        let mut headers: Vec<String> =
            shown.iter().map(|place| escape(&short_name(&measurements.factors[*place]).replace('_', " "))).collect();
        headers.push(measurements.counted.to_owned());
        if has_divergence {
            headers.push("diverged".to_owned());
        }
        headers.extend(measurements.quantities.iter().zip(&scales).map(|(quantity, scale)| scale.header(quantity)));

        let is_number = |place: &usize| measurements.rows.iter().all(|row| row.levels[*place].parse::<f64>().is_ok());
        let columns: String = shown.iter().map(|place| if is_number(place) { 'r' } else { 'l' }).collect();
        let numbers = "r".repeat(headers.len() - shown.len());

        let mut text = format!(
            "% Median over the {}, with its 95 % bootstrap interval in brackets. Needs \\usepackage{{booktabs}}.\n\
             \\begin{{tabular}}{{{columns}{numbers}}}\n\\toprule\n{} \\\\\n\\midrule\n",
            measurements.counted,
            headers.join(" & "),
        );
        for row in &measurements.rows {
            let mut cells: Vec<String> = shown.iter().map(|place| escape(&row.levels[*place])).collect();
            cells.push(row.count.to_string());
            if has_divergence {
                cells.push(row.diverged.to_string());
            }
            cells.extend(row.values.iter().zip(&scales).map(|(value, scale)| scale.cell(*value)));
            text += &cells.join(" & ");
            text += " \\\\\n";
        }
        text += "\\bottomrule\n\\end{tabular}\n";
        text
    }
}

/// The unit that a column is shown in.
struct Scale {
    factor: f64,
    unit: String,
}

impl Scale {
    /// Accuracies in per cent, nanoseconds in what suits the longest.
    fn new(measurements: &Measurements, place: usize) -> Self {
        let quantity = &measurements.quantities[place];
        let largest = measurements.values(place).map(|(_, estimate)| estimate.value.abs()).fold(0.0, f64::max);
        let (factor, unit) = match quantity.unit.as_str() {
            "ns" if largest >= 1e9 => (1e-9, "s"),
            "ns" if largest >= 1e6 => (1e-6, "ms"),
            "ns" if largest >= 1e3 => (1e-3, "$\\mu$s"),
            _ if quantity.name.ends_with("accuracy") => (100.0, "\\%"),
            unit => return Self { factor: 1.0, unit: escape(unit) },
        };
        Self { factor, unit: unit.to_owned() }
    }

    fn header(&self, quantity: &Measured) -> String {
        let title = escape(&quantity.title);
        if self.unit.is_empty() { title } else { format!("{title} ({})", self.unit) }
    }

    /// `$0.116$ $[0.115, 0.118]$`; a dash for what is missing.
    fn cell(&self, value: Option<Estimate>) -> String {
        let Some(Estimate { value, interval }) = value.map(|estimate| estimate.map(|value| value * self.factor)) else {
            return "--".to_owned();
        };
        // The median of what scatters around 0 is small by chance.
        let size = match interval {
            Some((low, high)) if low <= 0.0 && high >= 0.0 => high.max(-low),
            _ => value.abs(),
        };
        let exponent = if size == 0.0 { 0 } else { size.log10().floor() as i32 };
        // Very small and very large numbers share a power of ten with the ends of their interval.
        let power = if (-3..6).contains(&exponent) { 0 } else { exponent };
        let unit = 10f64.powi(power);
        let decimals = decimals(size / unit, interval.map(|(low, high)| (high - low) / unit));
        let number = |value: f64| {
            let text = format!("{:.decimals$}", value / unit);
            let is_zero = text.chars().all(|char| matches!(char, '-' | '0' | '.'));
            if is_zero { text.replace('-', "") } else { text }
        };
        let middle = number(value);
        let times = if power == 0 { String::new() } else { format!(" \\times 10^{{{power}}}") };
        match interval {
            Some((low, high)) => format!("${middle}\\;[{}, {}]{times}$", number(low), number(high)),
            None => format!("${middle}{times}$"),
        }
    }
}

/// Two digits of the width of the interval, at most six of the value; without a width three of the value.
fn decimals(value: f64, width: Option<f64>) -> usize {
    let last = |number: f64, digits: i32| digits - 1 - number.abs().log10().floor() as i32;
    let of_value = |digits| if value == 0.0 { digits - 1 } else { last(value, digits) };
    let decimals = match width {
        Some(width) if width > 0.0 => last(width, 2).min(of_value(6)),
        _ => of_value(3),
    };
    decimals.max(0) as usize
}

/// A text in which no character means anything to LaTeX.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for char in text.chars() {
        match char {
            '\\' => escaped.push_str("\\textbackslash{}"),
            '~' => escaped.push_str("\\textasciitilde{}"),
            '^' => escaped.push_str("\\textasciicircum{}"),
            '<' => escaped.push_str("\\textless{}"),
            '>' => escaped.push_str("\\textgreater{}"),
            '|' => escaped.push_str("\\textbar{}"),
            // The quote of the default encoding is a closing one.
            '"' => escaped.push_str("''"),
            '&' | '%' | '$' | '#' | '_' | '{' | '}' => {
                escaped.push('\\');
                escaped.push(char);
            }
            char if char.is_control() => escaped.push(' '),
            char => escaped.push(char),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::super::export_as;
    use super::super::tests::{estimate, two_rows};
    use super::*;

    #[test]
    fn a_small_table_is_this_text() {
        assert_eq!(
            export_as(
                &Latex,
                &two_rows(),
                &["test_accuracy", "gradient_ratio_first", "step_time_ms"].map(str::to_owned)
            )
            .expect("measured")
            .text,
            r"% Median over the seeds, with its 95 % bootstrap interval in brackets. Needs \usepackage{booktabs}.
\begin{tabular}{lrrrrrr}
\toprule
case & depth & seeds & diverged & test accuracy (\%) & first by last gradient, start & step time (ms) \\
\midrule
tanh, 1/n & 2 & 5 & 0 & $96.8\;[96.1, 97.2]$ & $3.30\;[3.10, 3.52] \times 10^{-10}$ & $0.1160\;[0.1150, 0.1180]$ \\
100 \% a\_b & 2 & 5 & 5 & -- & -- & $2.00$ \\
\bottomrule
\end{tabular}
"
        );
    }

    #[test]
    fn characters_that_mean_something_to_latex_are_escaped() {
        assert_eq!(
            escape(r"a_b & 50% #1 $x$ {y} ~z^2 \w <|>"),
            r"a\_b \& 50\% \#1 \$x\$ \{y\} \textasciitilde{}z\textasciicircum{}2 \textbackslash{}w \textless{}\textbar{}\textgreater{}"
        );
        assert_eq!(escape("\"a\"\nb"), "''a'' b");
    }

    #[test]
    fn numbers_have_as_many_digits_as_their_interval_tells() {
        let scale = Scale { factor: 1.0, unit: String::new() };
        assert_eq!(scale.cell(Some(estimate(2.3037, 2.3024, 2.3049))), r"$2.3037\;[2.3024, 2.3049]$");
        assert_eq!(scale.cell(Some(estimate(0.0247, 0.0003, 0.1931))), r"$0.02\;[0.00, 0.19]$");
        assert_eq!(scale.cell(Some(estimate(1234.5, 1200.0, 1300.0))), r"$1234\;[1200, 1300]$");
        assert_eq!(scale.cell(Some(estimate(6.43e-4, 4.04e-4, 21.56e-4))), r"$6\;[4, 22] \times 10^{-4}$");
        assert_eq!(scale.cell(Some(estimate(0.0, 0.0, 0.0))), r"$0.00\;[0.00, 0.00]$");
        assert_eq!(scale.cell(Some(estimate(-1.46e-5, -0.0116, 0.0273))), r"$0.000\;[-0.012, 0.027]$");
        assert_eq!(scale.cell(Some(estimate(-0.0124, -0.02, -0.01))), r"$-0.012\;[-0.020, -0.010]$");
        assert_eq!(scale.cell(Some(Estimate { value: 123.456, interval: None })), "$123$");
    }

    #[test]
    fn nanoseconds_are_shown_in_the_unit_of_the_longest() {
        let mut measured = two_rows();
        measured.quantities[2].unit = "ns".to_owned();
        measured.rows[0].values[2] = Some(estimate(3.2e6, 3.1e6, 3.3e6));
        let text = export_as(&Latex, &measured, &["step_time_ms".to_owned()]).expect("measured").text;
        assert!(text.contains("step time (ms)") && text.contains(r"$3.20\;[3.10, 3.30]$"), "{text}");
    }
}
