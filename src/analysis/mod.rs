//! From rows to summaries. Pure: no files, no device, no printing.

mod statistics;
mod summary;

pub use statistics::{Interval, bootstrap_median, geometric_mean, mean, median, standard_deviation};
pub use summary::{Configuration, RunSummary, configurations, gradient_profile, summarize};
