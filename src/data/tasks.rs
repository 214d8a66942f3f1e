//! Examples that are drawn anew in every epoch: what a recurrent network must keep in mind and for how long, and the points
//! that a critic tells apart.

use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use super::points::{self, Shape};
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
    Points(Shape),
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
            DataSet::SwissRoll => Rule::Points(Shape::SwissRoll),
            DataSet::EightGaussians => Rule::Points(Shape::EightGaussians),
            DataSet::Digits
            | DataSet::Mnist
            | DataSet::FashionMnist
            | DataSet::Gaussian
            | DataSet::Single
            | DataSet::Text => return None,
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
            Rule::Adding | Rule::Points(_) => (0, 1),
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
            Rule::Points(Shape::SwissRoll) => "swiss_roll",
            Rule::Points(Shape::EightGaussians) => "eight_gaussians",
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
            Rule::Points(shape) => return points::pairs(shape, examples / 2, stream),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::OutputSteps;
    use crate::data::tests::sequences;

    fn task(set: DataSet, sequence_length: usize, output_steps: Option<OutputSteps>) -> Task {
        Task::of(&sequences(set, sequence_length, output_steps)).expect("a task")
    }

    fn classes(split: &Split) -> Vec<&[u8]> {
        match &split.answers {
            Answers::Classes { codes, each } => codes.chunks(*each).collect(),
            other => panic!("classes, not {other:?}"),
        }
    }

    fn sums(split: &Split) -> &[f32] {
        match &split.answers {
            Answers::Numbers(numbers) => numbers,
            other => panic!("numbers, not {other:?}"),
        }
    }

    /// In nats.
    fn entropy(counts: &[f64]) -> f64 {
        let all: f64 = counts.iter().sum();
        counts.iter().filter(|count| **count > 0.0).map(|count| -count / all * (count / all).ln()).sum()
    }

    #[test]
    fn the_answer_of_adding_is_the_sum_of_two_marked_numbers_one_in_each_half() {
        for steps in [2, 3, 9, 100] {
            let split = task(DataSet::Adding, steps, None).epoch(1, 0);
            assert_eq!(split.len(), 10_000);
            for (input, sum) in split.inputs.chunks(2 * steps).zip(sums(&split)) {
                let (numbers, marks): (Vec<f32>, Vec<f32>) = input.chunks(2).map(|step| (step[0], step[1])).unzip();
                let half = steps / 2;
                assert_eq!((marks[..half].iter().sum(), marks[half..].iter().sum()), (1.0_f32, 1.0_f32));
                assert!(marks.iter().all(|mark| [0.0, 1.0].contains(mark)));
                assert!(numbers.iter().all(|number| (0.0..1.0).contains(number)));
                assert_eq!(numbers.iter().zip(&marks).map(|(number, mark)| number * mark).sum::<f32>(), *sum);
            }
        }
    }

    #[test]
    fn the_marks_of_adding_are_at_every_time_step_of_their_half_equally_often() {
        let split = task(DataSet::Adding, 10, None).epoch(1, 0);
        for step in 0..10 {
            let count = split.inputs.chunks(20).filter(|input| input[2 * step + 1] == 1.0).count();
            // Standard deviation: 40.
            assert!(count.abs_diff(2000) < 160, "{count} marks at {step}");
        }
    }

    #[test]
    fn to_answer_1_always_costs_a_sixth_on_adding() {
        let split = task(DataSet::Adding, 50, None).epoch(1, 0);
        let squares: Vec<f64> = sums(&split).iter().map(|sum| (f64::from(*sum) - 1.0).powi(2)).collect();
        let mean = squares.iter().sum::<f64>() / 10_000.0;
        // (a + b - 1)^2 has the mean 1/6 and the variance 1/15 - 1/36, so that the standard error is .00197.
        assert!((mean - 1.0 / 6.0).abs() < 0.006, "{mean}");
    }

    #[test]
    fn copying_shows_ten_symbols_waits_and_asks_for_them() {
        for length in [1, 2, 30] {
            let split = task(DataSet::Copying, length, None).epoch(1, 0);
            let steps = length + 20;
            let examples = split.inputs.chunks(steps).zip(classes(&split));
            assert_eq!(examples.len(), 10_000);
            for (input, answers) in examples {
                assert_eq!(answers.len(), steps);
                assert!(input[..10].iter().all(|symbol| *symbol < 8.0));
                assert!(input[10..9 + length].iter().all(|symbol| *symbol == 8.0));
                assert_eq!(input[9 + length], 9.0);
                assert_eq!(input[10 + length..], [8.0; 10]);
                assert!(answers[..length + 10].iter().all(|answer| *answer == 8));
                assert!(answers[length + 10..].iter().zip(input).all(|(answer, symbol)| f32::from(*answer) == *symbol));
            }
        }
    }

    #[test]
    fn the_best_answers_without_memory_to_copying_cost_10_ln_8_over_t_plus_20() {
        let length = 30;
        let split = task(DataSet::Copying, length, None).epoch(1, 0);
        let mut counts = vec![[0.0; 9]; length + 20];
        for answers in classes(&split) {
            for (counts, answer) in counts.iter_mut().zip(answers) {
                counts[usize::from(*answer)] += 1.0;
            }
        }
        let cost = counts.iter().map(|counts| entropy(counts)).sum::<f64>() / (length + 20) as f64;
        let expected = 10.0 * 8.0_f64.ln() / (length + 20) as f64;
        // Of 10000 examples the frequencies tell (8 - 1) / 20000 = .00035 too little at each of ten time steps.
        assert!((cost - expected).abs() < 3e-4, "{cost}, expected {expected}");
    }

    #[test]
    fn temporal_order_has_its_symbols_in_the_second_and_fifth_tenth_and_their_order_for_an_answer() {
        for steps in (10..40).chain([100, 101]) {
            let split = task(DataSet::TemporalOrder, steps, None).epoch(1, 0);
            for (input, answers) in split.inputs.chunks(steps).zip(classes(&split)) {
                let found: Vec<usize> = (0..steps).filter(|step| input[*step] < 2.0).collect();
                let &[first, second] = &found[..] else { panic!("two symbols that mean something, not {found:?}") };
                assert!((steps / 10..2 * steps / 10).contains(&first), "{first} of {steps}");
                assert!((4 * steps / 10..5 * steps / 10).contains(&second), "{second} of {steps}");
                assert_eq!(f32::from(answers[0]), 2.0 * input[first] + input[second]);
            }
        }
    }

    #[test]
    fn the_classes_of_temporal_order_and_the_symbols_that_mean_nothing_are_equally_frequent() {
        let split = task(DataSet::TemporalOrder, 20, None).epoch(1, 0);
        for class in 0..4 {
            let count = classes(&split).iter().filter(|answers| answers[0] == class).count();
            // Standard deviation: 43.
            assert!(count.abs_diff(2500) < 180, "{count} of class {class}");
        }
        for symbol in [2.0, 3.0, 4.0, 5.0] {
            let count = split.inputs.iter().filter(|x| **x == symbol).count();
            // Standard deviation: 184.
            assert!(count.abs_diff(45_000) < 740, "{count} of symbol {symbol}");
        }
    }

    #[test]
    fn parity_is_the_exclusive_or_of_the_bits_so_far() {
        let every = task(DataSet::Parity, 25, Some(OutputSteps::Every)).epoch(1, 0);
        let last = task(DataSet::Parity, 25, Some(OutputSteps::Last)).epoch(1, 0);
        assert_eq!(every.inputs, last.inputs);
        for ((bits, answers), answer) in every.inputs.chunks(25).zip(classes(&every)).zip(classes(&last)) {
            let mut parity = 0;
            for (bit, answer) in bits.iter().zip(answers) {
                assert!([0.0, 1.0].contains(bit));
                parity ^= *bit as u8;
                assert_eq!(*answer, parity);
            }
            assert_eq!(answer, [parity]);
        }
        let ones = every.inputs.iter().filter(|bit| **bit == 1.0).count();
        // Standard deviation: 250.
        assert!(ones.abs_diff(125_000) < 1000, "{ones}");
    }

    #[test]
    fn epochs_the_test_split_and_seeds_differ_and_the_same_seed_gives_the_same_data() {
        for set in [DataSet::Adding, DataSet::Copying, DataSet::TemporalOrder, DataSet::Parity, DataSet::SwissRoll] {
            let task = task(set, 60, None);
            let width = task.features();
            let all =
                [task.epoch(1, 0), task.epoch(1, 1), task.epoch(2, 0), task.dataset(1).test, task.dataset(2).test];
            let mut examples: Vec<Vec<u32>> = all
                .iter()
                .flat_map(|split| split.inputs.chunks(width))
                .map(|input| input.iter().map(|x| x.to_bits()).collect())
                .collect();
            let count = examples.len();
            examples.sort_unstable();
            examples.dedup();
            // Of 32000 lists of ten symbols of eight kinds one in two is twice there by chance.
            assert!(examples.len() + 5 > count && count == 32_000, "{set:?}: {} of {count}", examples.len());
            assert!(task.epoch(1, 1) == all[1] && task.dataset(1).test == all[3], "{set:?}");
        }
    }

    #[test]
    fn the_training_split_is_the_first_thousand_examples_of_the_first_epoch() {
        for set in [DataSet::Adding, DataSet::Copying, DataSet::TemporalOrder, DataSet::Parity] {
            let task = task(set, 15, None);
            let mut first = task.epoch(1, 0);
            let few = Task { examples: 70, ..task }.dataset(1);
            first.truncate(1000, task.features());
            assert!(task.dataset(1).train == first, "{set:?}");
            first.truncate(70, task.features());
            assert!(few.train == first && few.test.len() == 1000, "{set:?}");
        }
    }
}
