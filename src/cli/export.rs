//! `gradmark export`

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::{print, report, say};
use crate::record;
use crate::report::{Exported, export_as, find_format, of_criterion, of_experiment};

#[derive(Debug, Args)]
#[command(after_help = "\
Formats:
  csv              a row a configuration: factors, seeds, and median, low and high of each quantity; pgfplots, R and pandas read it
  latex            a table for papers; it needs \\usepackage{booktabs}
  bmf              Bencher Metric Format, for `bencher run --adapter json --file FILE`; step time is its latency (ns)
  github           for github-action-benchmark: step times for `tool: customSmallerIsBetter`; --quantity examples_per_second or \
test_accuracy, of which bigger ones are better, for `tool: customBiggerIsBetter`
  criterion-table  for `criterion-table < FILE`, which makes Markdown of step times: the messages of cargo criterion

A value is the median over the seeds of a configuration, with its bootstrap 95 % interval; of a single run over its timing samples, \
and what it has once has no interval. Of criterion's results it is the median over the samples with criterion's interval. What is not \
measured is left empty or out.")]
pub(super) struct ExportArgs {
    /// The directory of an experiment, such as `results/sigmoid_vs_relu`; with --criterion a directory of criterion
    dir: PathBuf,
    /// csv, latex, bmf, github or criterion-table
    #[arg(long)]
    format: String,
    /// Write into this file instead of printing
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Export this quantity, such as `step_time_ms`, `examples_per_second` or `test_accuracy`; may be repeated
    /// [default: with csv all that are measured, else those that suit the format]
    #[arg(long = "quantity", value_name = "NAME")]
    quantities: Vec<String>,
    /// Export what criterion measured: DIR is its directory, such as target/criterion; its quantities are `time_ns` and
    /// `elements_per_second`
    #[arg(long)]
    criterion: bool,
}

pub(super) fn execute(args: &ExportArgs) -> anyhow::Result<ExitCode> {
    let format = find_format(&args.format)?;
    let measurements = if args.criterion {
        of_criterion(&record::load_criterion(&args.dir)?)
    } else {
        let runs = report::load(&args.dir)?;
        let (factors, summaries) = (report::factors(&runs), report::summaries(&runs));
        of_experiment(&args.dir.display().to_string(), &factors, &runs, &summaries)
    };
    let Exported { text, remark } = export_as(format, &measurements, &args.quantities)?;
    match &args.out {
        Some(path) => record::write_text(path, &text)?,
        None => print(text.trim_end())?,
    }
    if let Some(remark) = remark {
        say(&remark);
    }
    Ok(ExitCode::SUCCESS)
}
