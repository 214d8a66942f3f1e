//! Tasks whose examples are drawn anew in every epoch: what a recurrent network must keep in mind, and for how long.

use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use super::{Answers, Dataset, Split};
use crate::config::{COPIED_KINDS, COPIED_SYMBOLS, DataSet, RunConfig};
use crate::seed;

/// A task, and how many of its examples make an epoch.
#[derive(Clone, Copy, Debug)]
pub struct Task {
    rule: Rule,
    time_steps: usize,
    features: usize,
    examples: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rule {
    Adding,
    Copying,
    TemporalOrder,
    Parity { answers_every_step: bool },
}

/// The examples of the test split.
const TEST_EXAMPLES: usize = 1000;

impl Task {
    /// The task of a config; none if its data set is not drawn.
    pub fn of(config: &RunConfig) -> Option<Self> {
        let answers_every_step = config.sequence().is_some_and(|sequence| sequence.answers_every_step);
        let rule = match config.data.set {
            DataSet::Adding => Rule::Adding,
            DataSet::Copying => Rule::Copying,
            DataSet::TemporalOrder => Rule::TemporalOrder,
            DataSet::Parity => Rule::Parity { answers_every_step },
            DataSet::Digits | DataSet::Gaussian | DataSet::Single | DataSet::Text => return None,
        };
        Some(Self {
            rule,
            time_steps: config.data.time_steps(),
            features: config.data.features(),
            examples: config.training_examples(),
        })
    }

    /// The examples of an epoch.
    pub fn examples(&self) -> usize {
        self.examples
    }

    /// The numbers in an input: those of all its time steps.
    pub fn features(&self) -> usize {
        self.features
    }

    /// The examples of an epoch, from 0. None of them is in another epoch or in the test split, but by chance.
    pub fn epoch(&self, seed: u64, epoch: usize) -> Split {
        self.draw(self.examples, &mut self.stream(seed, &format!("epoch.{epoch}")))
    }

    /// What a network is evaluated on: examples of their own, and as many of the first epoch to compare with.
    pub(super) fn dataset(&self, seed: u64) -> Dataset {
        let compared = self.examples.min(TEST_EXAMPLES);
        let (classes, judged_answers) = match self.rule {
            Rule::Adding => (0, 1),
            // The symbols and the blank. Blanks are no feat of memory.
            Rule::Copying => (COPIED_KINDS + 1, COPIED_SYMBOLS),
            Rule::TemporalOrder => (4, 1),
            Rule::Parity { .. } => (2, self.time_steps),
        };
        Dataset {
            sha256: None,
            features: self.features,
            image: None,
            classes,
            judged_answers,
            train: self.draw(compared, &mut self.stream(seed, "epoch.0")),
            test: self.draw(TEST_EXAMPLES, &mut self.stream(seed, "test")),
            task: Some(*self),
        }
    }

    fn stream(&self, seed: u64, purpose: &str) -> ChaCha8Rng {
        let name = match self.rule {
            Rule::Adding => "adding",
            Rule::Copying => "copying",
            Rule::TemporalOrder => "temporal_order",
            Rule::Parity { .. } => "parity",
        };
        seed::stream(seed, &format!("data.{name}.{purpose}"))
    }

    /// One example after the other, so that fewer of them are the first of more.
    fn draw(&self, examples: usize, stream: &mut ChaCha8Rng) -> Split {
        let steps = self.time_steps;
        let mut inputs = Vec::with_capacity(examples * self.features);
        let mut codes = Vec::new();
        let each = match self.rule {
            Rule::Adding => {
                let sums = (0..examples).map(|_| adding(steps, stream, &mut inputs)).collect();
                return Split { inputs, answers: Answers::Numbers(sums) };
            }
            Rule::Copying => {
                (0..examples).for_each(|_| copying(steps, stream, &mut inputs, &mut codes));
                steps
            }
            Rule::TemporalOrder => {
                codes.extend((0..examples).map(|_| temporal_order(steps, stream, &mut inputs)));
                1
            }
            Rule::Parity { answers_every_step: true } => {
                (0..examples).for_each(|_| codes.extend(parity(steps, stream, &mut inputs)));
                steps
            }
            Rule::Parity { answers_every_step: false } => {
                (0..examples).for_each(|_| codes.extend(parity(steps, stream, &mut inputs).last()));
                1
            }
        };
        Split { inputs, answers: Answers::Classes { codes, each } }
    }
}

/// Numbers of U(0, 1) and marks; the sum of the two that are marked.
fn adding(steps: usize, stream: &mut ChaCha8Rng, inputs: &mut Vec<f32>) -> f32 {
    let half = steps / 2;
    let marked = [stream.random_range(0..half), stream.random_range(half..steps)];
    let mut sum = 0.0;
    for step in 0..steps {
        let number: f32 = stream.random();
        let is_marked = marked.contains(&step);
        sum += if is_marked { number } else { 0.0 };
        inputs.extend([number, f32::from(u8::from(is_marked))]);
    }
    sum
}

/// The blank of `copying`; the sign to begin follows it.
const BLANK: u8 = COPIED_KINDS as u8;

/// Symbols, blanks, the sign to begin, blanks; and the answer at every time step.
fn copying(steps: usize, stream: &mut ChaCha8Rng, inputs: &mut Vec<f32>, codes: &mut Vec<u8>) {
    let first = inputs.len();
    let symbols: [u8; COPIED_SYMBOLS] = std::array::from_fn(|_| stream.random_range(0..BLANK));
    inputs.extend(symbols.map(f32::from));
    inputs.resize(first + steps, f32::from(BLANK));
    inputs[first + steps - COPIED_SYMBOLS - 1] = f32::from(BLANK + 1);
    codes.resize(codes.len() + steps - COPIED_SYMBOLS, BLANK);
    codes.extend(symbols);
}

/// A and B, 0 and 1, among symbols that mean nothing, 2 to 5; of AA, AB, BA, BB the number.
fn temporal_order(steps: usize, stream: &mut ChaCha8Rng, inputs: &mut Vec<f32>) -> u8 {
    let first = inputs.len();
    let tenth = |count: usize| count * steps / 10;
    let places = [stream.random_range(tenth(1)..tenth(2)), stream.random_range(tenth(4)..tenth(5))];
    let symbols = [stream.random_range(0..2_u8), stream.random_range(0..2_u8)];
    inputs.extend((0..steps).map(|_| f32::from(stream.random_range(2..6_u8))));
    for (place, symbol) in places.into_iter().zip(symbols) {
        inputs[first + place] = f32::from(symbol);
    }
    2 * symbols[0] + symbols[1]
}

/// Bits; after each of them, whether the ones so far are odd in number.
fn parity(steps: usize, stream: &mut ChaCha8Rng, inputs: &mut Vec<f32>) -> impl Iterator<Item = u8> {
    let first = inputs.len();
    inputs.extend((0..steps).map(|_| f32::from(stream.random_range(0..2_u8))));
    inputs[first..].iter().scan(false, |is_odd, bit| {
        *is_odd ^= *bit == 1.0;
        Some(u8::from(*is_odd))
    })
}
