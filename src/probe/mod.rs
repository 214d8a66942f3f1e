//! What is measured at a layer, and when.
//!
//! A probe leaves its numbers on the device and reads those of many steps in one transfer. One quantity a file:
//! [`gradient`] and [`update`] for every parameter, [`layer`] for every hidden layer, [`schedule`] for the steps.

mod buffer;
pub mod gradient;
pub mod layer;
pub mod schedule;
pub mod update;

pub use buffer::{PendingStep, Probe, ReadError, Rows};
pub use schedule::Schedule;
