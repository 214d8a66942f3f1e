//! Gates: is this program as fast as that one, and are its numbers still right?
//!
//! Speed is measured by processes of their own ([`serve`], spoken to by a [`Measurer`]), which take turns where there are two sides:
//! what a process has by chance, such as the layout of its memory, is then a part of what the statistics see. What is a regression is
//! decided in [`crate::analysis`]. Numbers are compared with a committed reference ([`science`]).

mod client;
mod cores;
mod environment;
mod judge;
mod protocol;
mod quiet;
pub mod science;
mod server;
mod speed;
mod waiting;
mod yardstick;

pub use client::{Measurer, MeasurerError};
pub use environment::{ALLOWABLE, Difference, differences, refused};
pub use judge::{
    TooFew, Trial, attempt_of_rounds, attempt_of_sessions, decide_all, median_step_ms, noise_floor_of, spread,
    usable_sessions,
};
pub use protocol::{Configuration, Hello, PROTOCOL_VERSION};
pub use quiet::{QuietLimit, USUAL_TIMES, WAITED};
pub use server::{ServeError, configurations, serve};
pub use speed::{Effort, PairLevels, measure_pairs, measure_session};
