//! Examples on the device.

use std::ops::Range;

use burn::tensor::{Device, Int, Tensor, TensorData};

use super::{Answers, Split};

/// A split whose examples lie on the device.
#[derive(Clone, Debug)]
pub struct DeviceSplit {
    /// `[examples, features]`
    pub inputs: Tensor<2>,
    targets: DeviceTargets,
    judged: usize,
    piece: usize,
}

#[derive(Clone, Debug)]
enum DeviceTargets {
    /// A row an example: `[examples, columns]`.
    Rows(Tensor<2>),
    /// Classes `[examples, answers]`, in the order of time. One-hot they would take as many times the memory as there are
    /// classes, and a batch needs few of them at a time.
    Codes { codes: Tensor<2, Int>, classes: usize },
}

/// What a network is to answer.
#[derive(Clone, Debug)]
pub enum Targets {
    /// The answers of the split.
    Answers {
        /// Classes; 0 where the answers are numbers.
        classes: usize,
        /// How many answers to an example, from its end, accuracy looks at.
        judged: usize,
    },
    /// The same vector for every example: the direction in which a linear probe looks.
    Direction(Vec<f32>),
}

/// The examples of one step.
#[derive(Clone, Debug)]
pub struct Batch {
    /// `[batch, features]`
    pub inputs: Tensor<2>,
    /// One-hot classes, `[batch, classes]`; numbers, `[batch, 1]`; or what a linear probe looks at, `[batch, units]`. With
    /// an answer after every time step `[steps x batch, classes]`: all examples of the first time step, then all of the
    /// second, which is the order in which a recurrent network has its outputs.
    pub targets: Tensor<2>,
}

impl DeviceSplit {
    /// Copies a split to the device, once.
    pub fn new(split: &Split, features: usize, targets: &Targets, device: &Device) -> Self {
        let examples = split.len();
        let matrix = |values, columns| Tensor::from_data(TensorData::new(values, [examples, columns]), device);
        let (targets, judged) = match (targets, &split.answers) {
            (Targets::Direction(direction), _) => (DeviceTargets::Rows(direction_rows(direction, examples, device)), 1),
            (Targets::Answers { .. }, Answers::None(_)) => (DeviceTargets::Rows(matrix(Vec::new(), 0)), 1),
            (Targets::Answers { .. }, Answers::Numbers(numbers)) => {
                (DeviceTargets::Rows(matrix(numbers.clone(), 1)), 1)
            }
            (Targets::Answers { classes, .. }, Answers::Classes { codes, each: 1 }) => {
                (DeviceTargets::Rows(matrix(one_hot(codes, *classes), *classes)), 1)
            }
            (Targets::Answers { classes, judged }, Answers::Classes { codes, each }) => {
                let codes: Vec<i32> = codes.iter().copied().map(i32::from).collect();
                let codes = Tensor::from_data(TensorData::new(codes, [examples, *each]), device);
                (DeviceTargets::Codes { codes, classes: *classes }, (*judged).min(*each))
            }
        };
        Self { inputs: matrix(split.inputs.clone(), features), targets, judged, piece: usize::MAX }
    }

    /// Lets [`DeviceSplit::pieces`] have at most so many examples.
    #[must_use]
    pub fn in_pieces_of(self, examples: usize) -> Self {
        Self { piece: examples, ..self }
    }

    /// The number of examples.
    pub fn len(&self) -> usize {
        self.inputs.dims()[0]
    }

    /// Whether there is no example.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many answers to an example, from its end, accuracy looks at.
    pub fn judged_answers(&self) -> usize {
        self.judged
    }

    /// All examples.
    pub fn batch(&self) -> Batch {
        let targets = match &self.targets {
            DeviceTargets::Rows(rows) => rows.clone(),
            DeviceTargets::Codes { codes, classes } => one_hot_in_time_order(codes.clone(), *classes),
        };
        Batch { inputs: self.inputs.clone(), targets }
    }

    /// Some of the examples.
    pub fn slice(&self, examples: Range<usize>) -> Batch {
        let targets = match &self.targets {
            DeviceTargets::Rows(rows) => rows.clone().slice([examples.clone()]),
            DeviceTargets::Codes { codes, classes } => {
                one_hot_in_time_order(codes.clone().slice([examples.clone()]), *classes)
            }
        };
        Batch { inputs: self.inputs.clone().slice([examples]), targets }
    }

    /// All examples, in as many batches as it takes.
    pub fn pieces(&self) -> impl Iterator<Item = Batch> {
        let (examples, piece) = (self.len(), self.piece);
        (0..examples).step_by(piece.max(1)).map(move |first| {
            if examples <= piece { self.batch() } else { self.slice(first..examples.min(first + piece)) }
        })
    }

    /// The examples in another order, `[examples]`.
    #[must_use]
    pub fn reorder(&self, order: Tensor<1, Int>) -> Self {
        let targets = match &self.targets {
            DeviceTargets::Rows(rows) => DeviceTargets::Rows(rows.clone().select(0, order.clone())),
            DeviceTargets::Codes { codes, classes } => {
                DeviceTargets::Codes { codes: codes.clone().select(0, order.clone()), classes: *classes }
            }
        };
        Self { inputs: self.inputs.clone().select(0, order), targets, ..*self }
    }
}

fn direction_rows(direction: &[f32], examples: usize, device: &Device) -> Tensor<2> {
    Tensor::from_data(TensorData::new(direction.repeat(examples), [examples, direction.len()]), device)
}

fn one_hot(codes: &[u8], classes: usize) -> Vec<f32> {
    let mut one_hot = vec![0.0; codes.len() * classes];
    for (row, code) in one_hot.chunks_exact_mut(classes.max(1)).zip(codes) {
        row[usize::from(*code)] = 1.0;
    }
    one_hot
}

/// `[batch, steps]` as `[steps x batch, classes]`. Burn's own `one_hot` waits for the device to look for classes out of range.
fn one_hot_in_time_order(codes: Tensor<2, Int>, classes: usize) -> Tensor<2> {
    let [batch, steps] = codes.dims();
    let device = codes.device();
    let kinds = Tensor::<1, Int>::arange(0..classes as i64, &device).reshape([1, classes]);
    codes.transpose().reshape([steps * batch, 1]).equal(kinds).float()
}
