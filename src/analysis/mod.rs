//! From rows to summaries. Pure: no files, no device, no printing.

mod comparison;
mod layers;
mod quantity;
mod regression;
mod statistics;
mod summary;

pub use comparison::{
    Compared, Comparison, GRADIENT_FIRST, GRADIENT_LAST, Levels, Matching, Outcome, compare, compare_runs,
    differing_levels, match_configurations,
};
pub use layers::{WeightGradient, first_states, gradient_profile, hidden_number, weight_gradients, whole_layers};
pub use quantity::{Better, Change, QUANTITIES, Quantity, quantity};
pub use regression::{
    ATTEMPTS, Attempt, CONFIDENCE, DEFAULT_THRESHOLD, Decision, MINIMUM_SAMPLES, MINIMUM_SESSIONS, SpeedChange,
    TimeRatio, decide, level, noise_floor, paired_level, ratio_of_rounds, ratio_of_sessions,
};
pub use statistics::{
    Estimate, Interval, bootstrap, bootstrap_both, bootstrap_median, geometric_mean, mean, median, standard_deviation,
};
pub use summary::{Configuration, RunSummary, configurations, summarize};
