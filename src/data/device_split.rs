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
    /// The inputs themselves.
    Inputs,
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
    /// The inputs themselves, which an autoencoder puts out again.
    Inputs,
    /// The same vector for every example: the direction in which a linear probe looks.
    Direction(Vec<f32>),
}

/// The examples of one step.
#[derive(Clone, Debug)]
pub struct Batch {
    /// `[batch, features]`
    pub inputs: Tensor<2>,
    /// One-hot classes, `[batch, classes]`; numbers, `[batch, 1]`; the inputs themselves, `[batch, features]`; or what a linear
    /// probe looks at, `[batch, units]`. With
    /// an answer after every time step `[steps x batch, classes]`: all examples of the first time step, then all of the
    /// second, which is the order in which a recurrent network has its outputs. Of real and generated points in turn
    /// `[batch, 2]`: -1 for a real point and 1 for a generated one, and the share of the pair, which both have.
    pub targets: Tensor<2>,
}

impl DeviceSplit {
    /// Copies a split to the device, once.
    pub fn new(split: &Split, features: usize, targets: &Targets, device: &Device) -> Self {
        let examples = split.len();
        let matrix = |values, columns| Tensor::from_data(TensorData::new(values, [examples, columns]), device);
        let (targets, judged) = match (targets, &split.answers) {
            (Targets::Inputs, _) => (DeviceTargets::Inputs, 1),
            (Targets::Direction(direction), _) => (DeviceTargets::Rows(direction_rows(direction, examples, device)), 1),
            (Targets::Answers { .. }, Answers::None(_)) => (DeviceTargets::Rows(matrix(Vec::new(), 0)), 1),
            (Targets::Answers { .. }, Answers::Numbers(numbers)) => {
                (DeviceTargets::Rows(matrix(numbers.clone(), 1)), 1)
            }
            (Targets::Answers { .. }, Answers::Pairs { shares }) => (DeviceTargets::Rows(matrix(sides(shares), 2)), 1),
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

    /// The same examples in the graph, in the same memory.
    #[must_use]
    pub fn tracked(&self) -> Self {
        let targets = match &self.targets {
            DeviceTargets::Rows(rows) => DeviceTargets::Rows(Tensor::from_inner(rows.clone())),
            DeviceTargets::Codes { codes, classes } => {
                DeviceTargets::Codes { codes: Tensor::from_inner(codes.clone()), classes: *classes }
            }
            DeviceTargets::Inputs => DeviceTargets::Inputs,
        };
        Self { inputs: Tensor::from_inner(self.inputs.clone()), targets, ..*self }
    }

    /// Examples that are on the device already and have no answers but themselves: `[examples, features]`.
    pub fn unlabelled(inputs: Tensor<2>) -> Self {
        Self { inputs, targets: DeviceTargets::Inputs, judged: 1, piece: usize::MAX }
    }

    /// Whether the answers are the inputs.
    pub fn is_unlabelled(&self) -> bool {
        matches!(self.targets, DeviceTargets::Inputs)
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
            DeviceTargets::Inputs => self.inputs.clone(),
        };
        Batch { inputs: self.inputs.clone(), targets }
    }

    /// Some of the examples.
    pub fn slice(&self, examples: Range<usize>) -> Batch {
        let inputs = self.inputs.clone().slice([examples.clone()]);
        let targets = match &self.targets {
            DeviceTargets::Rows(rows) => rows.clone().slice([examples]),
            DeviceTargets::Codes { codes, classes } => one_hot_in_time_order(codes.clone().slice([examples]), *classes),
            DeviceTargets::Inputs => inputs.clone(),
        };
        Batch { inputs, targets }
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
            DeviceTargets::Inputs => DeviceTargets::Inputs,
        };
        Self { inputs: self.inputs.clone().select(0, order), targets, ..*self }
    }
}

fn direction_rows(direction: &[f32], examples: usize, device: &Device) -> Tensor<2> {
    Tensor::from_data(TensorData::new(direction.repeat(examples), [examples, direction.len()]), device)
}

/// The side and the share of every point.
fn sides(shares: &[f32]) -> Vec<f32> {
    shares.iter().flat_map(|share| [-1.0, *share, 1.0, *share]).collect()
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

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;
    use crate::config::{DataSet, OutputSteps};
    use crate::data::Task;
    use crate::data::tests::{load, sequences};

    fn numbers(tensor: Tensor<2>) -> Vec<f32> {
        tensor.into_data().convert::<f32>().try_to_vec().expect("numbers")
    }

    fn classes(classes: usize) -> Targets {
        Targets::Answers { classes, judged: usize::MAX }
    }

    /// Three examples with an answer at each of four time steps.
    fn three() -> DeviceSplit {
        let codes = vec![0, 1, 2, 3, 3, 2, 1, 0, 1, 1, 0, 2];
        let split = Split { inputs: (0..12_u8).map(f32::from).collect(), answers: Answers::Classes { codes, each: 4 } };
        DeviceSplit::new(&split, 4, &classes(5), &Device::flex())
    }

    fn codes(targets: Tensor<2>) -> Vec<usize> {
        let rows = numbers(targets);
        let code = |row: &[f32]| {
            assert_eq!(row.iter().sum::<f32>(), 1.0);
            row.iter().position(|x| *x == 1.0).expect("one of them")
        };
        rows.chunks(5).map(code).collect()
    }

    #[test]
    fn answers_at_every_time_step_are_one_hot_rows_all_examples_of_the_first_step_first() {
        let batch = three().batch();
        assert_eq!(batch.targets.dims(), [12, 5]);
        assert_eq!(codes(batch.targets), [0, 3, 1, 1, 2, 1, 2, 1, 0, 3, 0, 2]);
        let two = three().slice(1..3);
        assert_eq!(codes(two.targets), [3, 1, 2, 1, 1, 0, 0, 2]);
        assert_eq!(numbers(two.inputs), [4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 11.0]);
    }

    #[test]
    fn answers_keep_to_their_inputs_in_another_order() {
        let device = Device::flex();
        let batch = three().reorder(Tensor::from_ints([2, 0, 1], &device)).slice(0..2);
        assert_eq!(numbers(batch.inputs), [8.0, 9.0, 10.0, 11.0, 0.0, 1.0, 2.0, 3.0]);
        assert_eq!(codes(batch.targets), [1, 0, 1, 1, 0, 2, 2, 3]);
    }

    #[test]
    fn the_targets_of_drawn_sequences_are_those_of_the_host() {
        let config = sequences(DataSet::Parity, 9, Some(OutputSteps::Every));
        let split = Task::of(&config).expect("a task").epoch(1, 0);
        let Answers::Classes { codes, each: 9 } = &split.answers else { panic!("nine answers") };
        let batch = DeviceSplit::new(&split, 9, &classes(2), &Device::flex()).slice(40..72);
        assert_eq!(numbers(batch.inputs), split.inputs[40 * 9..72 * 9]);
        let targets = numbers(batch.targets);
        for step in 0..9 {
            for example in 0..32 {
                let row = 2 * (step * 32 + example);
                let code = codes[(40 + example) * 9 + step];
                assert_eq!(targets[row..row + 2], [f32::from(1 - code), f32::from(code)], "{step} {example}");
            }
        }
    }

    #[test]
    fn numbers_are_a_column_and_a_direction_is_the_same_for_every_example() {
        let device = Device::flex();
        let data = load(&sequences(DataSet::Adding, 6, None), 1);
        let split = DeviceSplit::new(&data.train, data.features, &classes(0), &device);
        assert_eq!((split.batch().targets.dims(), split.batch().inputs.dims()), ([1000, 1], [1000, 12]));
        let Answers::Numbers(sums) = &data.train.answers else { panic!("numbers") };
        assert_eq!(numbers(split.slice(5..8).targets), sums[5..8]);
        let probe = DeviceSplit::new(&data.train, data.features, &Targets::Direction(vec![1.0, -2.0]), &device);
        assert_eq!(numbers(probe.slice(5..7).targets), [1.0, -2.0, 1.0, -2.0]);
    }

    #[test]
    fn pieces_in_a_row_are_all_examples() {
        let pieces: Vec<Batch> = three().in_pieces_of(2).pieces().collect();
        assert_eq!(pieces.iter().map(|piece| piece.inputs.dims()[0]).collect::<Vec<_>>(), [2, 1]);
        let inputs = Tensor::cat(pieces.into_iter().map(|piece| piece.inputs).collect(), 0);
        assert_eq!(numbers(inputs), numbers(three().inputs));
        assert_eq!((three().pieces().count(), three().in_pieces_of(3).pieces().count()), (1, 1));
    }
}
