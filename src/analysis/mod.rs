//! From rows to summaries. Pure: no files, no device, no printing.

mod comparison;
mod layers;
mod quantity;
mod statistics;
mod summary;

pub use comparison::{
    Compared, Comparison, GRADIENT_FIRST, GRADIENT_LAST, Levels, Matching, Outcome, compare, compare_runs,
    differing_levels, match_configurations,
};
pub use layers::{WeightGradient, first_states, gradient_profile, hidden_number, weight_gradients, whole_layers};
pub use quantity::{Better, Change, QUANTITIES, Quantity, quantity};
pub use statistics::{
    Estimate, Interval, bootstrap, bootstrap_both, bootstrap_median, geometric_mean, mean, median, standard_deviation,
};
pub use summary::{Configuration, RunSummary, configurations, summarize};
