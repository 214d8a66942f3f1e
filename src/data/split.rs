//! Examples on the host.

/// One part of a data set.
#[derive(Clone, Debug, PartialEq)]
pub struct Split {
    /// The inputs, one after the other: `[examples, features]`. Those of a sequence are in the order of time,
    /// `[time steps, numbers in a time step]`; a symbol is its number, from 0.
    pub inputs: Vec<f32>,
    /// What belongs to them.
    pub answers: Answers,
}

/// What belongs to the inputs of a split.
#[derive(Clone, Debug, PartialEq)]
pub enum Answers {
    /// Nothing: so many examples have no answer.
    None(usize),
    /// Classes, from 0: `[examples, each]`.
    Classes {
        /// The classes, those of an example in the order of time.
        codes: Vec<u8>,
        /// The answers to one example: 1, or one a time step.
        each: usize,
    },
    /// A number an example.
    Numbers(Vec<f32>),
    /// Real and generated points in turn, which make pairs, and nothing to answer.
    Pairs {
        /// Of each pair: where on the way from the generated point, 0, to the real one, 1, the gradient penalty looks.
        shares: Vec<f32>,
    },
}

impl Split {
    /// No example.
    pub fn empty() -> Self {
        Self { inputs: Vec::new(), answers: Answers::None(0) }
    }

    /// The number of examples.
    pub fn len(&self) -> usize {
        match &self.answers {
            Answers::None(examples) => *examples,
            Answers::Classes { codes, each } => codes.len() / each,
            Answers::Numbers(numbers) => numbers.len(),
            Answers::Pairs { shares } => 2 * shares.len(),
        }
    }

    /// Whether there is no example.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Keeps the first examples.
    pub(super) fn truncate(&mut self, examples: usize, features: usize) {
        self.inputs.truncate(examples * features);
        match &mut self.answers {
            Answers::None(count) => *count = examples.min(*count),
            Answers::Classes { codes, each } => codes.truncate(examples * *each),
            Answers::Numbers(numbers) => numbers.truncate(examples),
            Answers::Pairs { shares } => shares.truncate(examples / 2),
        }
    }
}
