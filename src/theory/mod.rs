//! What mathematics says about gradients, in f64 and without Burn.

pub mod activation;
pub mod chain;
