//! Inputs without classes, to measure networks at initialization.

use rand_distr::{Distribution, StandardNormal};

use super::{Dataset, Split};
use crate::seed;

/// Inputs of independent N(0, 1) numbers.
pub fn gaussian(features: usize, examples: usize, seed: u64) -> Dataset {
    let mut stream = seed::stream(seed, "data.gaussian");
    let inputs = (0..features * examples).map(|_| StandardNormal.sample(&mut stream)).collect();
    without_classes(features, Split { inputs, labels: vec![0; examples] })
}

/// One input of one number.
pub fn single(value: f64) -> Dataset {
    without_classes(1, Split { inputs: vec![value as f32], labels: vec![0] })
}

fn without_classes(features: usize, train: Split) -> Dataset {
    Dataset { sha256: None, features, image: None, classes: 0, train, test: Split::default() }
}
