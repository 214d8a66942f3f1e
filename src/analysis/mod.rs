//! From rows to summaries. Pure: no files, no device, no printing.

mod layers;
mod statistics;
mod summary;

pub use layers::{WeightGradient, first_states, gradient_profile, hidden_number, weight_gradients, whole_layers};
pub use statistics::{Interval, bootstrap_median, geometric_mean, mean, median, standard_deviation};
pub use summary::{Configuration, RunSummary, configurations, summarize};
