//! What mathematics says about gradients, in f64 and without Burn. Every function names its source and where it holds.

pub mod activation;
pub mod chain;
pub mod cost;
pub mod initial_weights;
pub mod mean_field;
pub mod normalization;
pub mod prediction;
pub mod quadrature;
pub mod recurrence;
pub mod residual;
