//! What clipping did to the gradients of a step.

use super::seeds::Numbers;
use crate::kernel::{Norm, Reading};

/// What clipping did, not yet read. Readings hold the numbers of each seed, one after the other.
#[derive(Debug)]
pub enum Measurement {
    /// All gradients were taken as one vector.
    Global {
        /// Its norm before, read as `[max, sum (x / max)^2]`.
        norm: Reading,
        /// The factor, at most 1.
        coefficient: Reading,
    },
    /// Every parameter's gradient was taken by itself.
    Tensors {
        /// The norm of each before, read as `[max, sum (x / max)^2]`.
        norms: Vec<Reading>,
        /// The number of elements of each, in the network of one seed.
        element_counts: Vec<usize>,
        /// The largest norm that passes.
        threshold: f64,
    },
    /// Every element was taken by itself.
    Elements {
        /// The norm of all before, read as `[max, sum (x / max)^2]`.
        before: Reading,
        /// The norm of all after.
        after: Reading,
        /// The number of elements that were changed.
        clipped_count: Reading,
        /// The number of all elements, in the network of one seed.
        element_count: usize,
    },
}

/// The clipping of a step; norms are `None` where they are not finite.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Summary {
    /// The norm of all gradients before.
    pub l2_before: Option<f64>,
    /// The norm after.
    pub l2_after: Option<f64>,
    /// The factor that all gradients have in common.
    pub coefficient: Option<f64>,
    /// The fraction of the elements that were changed.
    pub clipped_fraction: Option<f64>,
}

/// What is kept of a measurement while its readings are on the way.
#[derive(Clone, Debug)]
pub(super) enum Header {
    Global,
    Tensors { element_counts: Vec<usize>, threshold: f64 },
    Elements { element_count: usize },
}

impl Measurement {
    /// Moves the readings behind the others.
    pub(super) fn take(self, readings: &mut Vec<Reading>) -> Header {
        match self {
            Self::Global { norm, coefficient } => {
                readings.extend([norm, coefficient]);
                Header::Global
            }
            Self::Tensors { norms, element_counts, threshold } => {
                readings.extend(norms);
                Header::Tensors { element_counts, threshold }
            }
            Self::Elements { before, after, clipped_count, element_count } => {
                readings.extend([before, after, clipped_count]);
                Header::Elements { element_count }
            }
        }
    }
}

impl Header {
    /// The summary out of the readings, in their order.
    pub(super) fn fill(&self, numbers: &mut Numbers<'_>) -> Summary {
        let mut norm = || {
            let read = numbers.next();
            Norm { max_abs: read[0], scaled_square_sum: read[1] }.l2()
        };
        match self {
            Self::Global => {
                let l2_before = norm();
                let coefficient = numbers.next().first().copied();
                let coefficient = coefficient.filter(|coefficient| coefficient.is_finite() && l2_before.is_some());
                Summary {
                    l2_before,
                    l2_after: l2_before.zip(coefficient).map(|(norm, coefficient)| norm * coefficient),
                    coefficient,
                    clipped_fraction: coefficient.map(|coefficient| f64::from(u8::from(coefficient < 1.0))),
                }
            }
            Self::Tensors { element_counts, threshold } => {
                let norms: Vec<Option<f64>> = element_counts.iter().map(|_| norm()).collect();
                let norms: Option<Vec<f64>> = norms.into_iter().collect();
                let total = |bound: f64| {
                    norms.as_ref().map(|norms| norms.iter().map(|norm| norm.min(bound)).fold(0.0, f64::hypot))
                };
                let all: usize = element_counts.iter().sum();
                let clipped = norms.as_ref().map(|norms| {
                    let elements = norms.iter().zip(element_counts);
                    elements.filter(|(norm, _)| *norm > threshold).map(|(_, count)| *count).sum::<usize>()
                });
                Summary {
                    l2_before: total(f64::INFINITY),
                    l2_after: total(*threshold),
                    coefficient: None,
                    clipped_fraction: clipped.map(|clipped| clipped as f64 / all as f64),
                }
            }
            Self::Elements { element_count } => {
                let (l2_before, l2_after) = (norm(), norm());
                let clipped = numbers.next().first().copied();
                Summary {
                    l2_before,
                    l2_after,
                    coefficient: None,
                    clipped_fraction: clipped.map(|clipped| clipped / *element_count as f64),
                }
            }
        }
    }
}
