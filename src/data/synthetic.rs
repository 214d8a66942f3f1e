//! Inputs without classes, to measure networks at initialization.

use rand_distr::{Distribution, StandardNormal};

use super::{Answers, Dataset, Split};
use crate::seed;

/// Inputs of independent N(0, 1) numbers.
pub fn gaussian(features: usize, examples: usize, seed: u64) -> Dataset {
    let mut stream = seed::stream(seed, "data.gaussian");
    let inputs = (0..features * examples).map(|_| StandardNormal.sample(&mut stream)).collect();
    without_classes(features, Split { inputs, answers: Answers::None(examples) })
}

/// One input of one number.
pub fn single(value: f64) -> Dataset {
    without_classes(1, Split { inputs: vec![value as f32], answers: Answers::None(1) })
}

fn without_classes(features: usize, train: Split) -> Dataset {
    let test = Split::empty();
    Dataset { sha256: None, features, image: None, classes: 0, judged_answers: 1, train, test, task: None }
}
