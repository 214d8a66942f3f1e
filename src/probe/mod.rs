//! What is measured at a layer, and when.
//!
//! A probe leaves its numbers on the device and reads those of many steps in one transfer. One quantity a file:
//! [`coverage`], [`gradient`] and [`update`] for every parameter, [`clip`] for what was done to the gradients, [`layer`] for every
//! hidden layer, [`recurrence`] for every time step of a recurrent one, [`schedule`] for the steps; [`tensors`] for those
//! that are wanted as they are. What is measured of networks of several seeds becomes the rows of as many runs.

mod buffer;
pub mod clip;
pub mod coverage;
pub mod gradient;
pub mod layer;
pub mod recurrence;
pub mod schedule;
mod seeds;
pub mod tensors;
pub mod update;

pub use buffer::{Judgement, LossMeasurement, PendingStep, Probe, ReadError, Rows, fetch};
pub use gradient::Path;
pub(crate) use gradient::follow_path;
pub use schedule::Schedule;
pub use tensors::NamedTensor;

/// The number, if it is one.
fn finite(value: Option<&f64>) -> Option<f64> {
    value.copied().filter(|value| value.is_finite())
}
