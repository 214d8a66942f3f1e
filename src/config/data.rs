//! The examples: `[data]`.

use serde::{Deserialize, Serialize};

use super::schema::{DEFAULT_BATCH_SIZE, MAX_INPUT_NUMBERS, Violation, only_with, violation};
use super::training::MAX_EXAMPLES;

/// The examples (`[data]`).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataConfig {
    /// Which data set. Default: `digits`.
    #[serde(default)]
    pub set: DataSet,
    /// How images are scaled. Default: `unit`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub normalization: Option<Normalization>,
    /// Trains on only so many images or pieces of `text`, the first ones. Default: all. Of a task whose examples are
    /// drawn, the examples in an epoch. Default: 10000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub examples: Option<usize>,
    /// Which images of `mnist` or `fashion_mnist` the network is evaluated on. Default: `test`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evaluation: Option<Evaluation>,
    /// Numbers in an input of `gaussian`; of a sequence, in the input of a time step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub features: Option<usize>,
    /// Time steps in a sequence; of `copying`, the time steps over which the symbols must be kept. Makes sequences of
    /// `gaussian`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sequence_length: Option<usize>,
    /// How a recurrent network reads an image. Default: `rows`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reading: Option<Reading>,
    /// The input of `single`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<f64>,
}

/// The data sets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DataSet {
    /// 1797 handwritten digits of 8 x 8 pixels, embedded in the program.
    #[default]
    Digits,
    /// 70000 handwritten digits of 28 x 28 pixels, in files (LeCun, Cortes and Burges 1998).
    Mnist,
    /// 70000 pictures of clothes of 28 x 28 pixels, in files (Xiao, Rasul and Vollgraf 2017).
    FashionMnist,
    /// Inputs of `features` independent N(0, 1) numbers, drawn from the seed, as many as a batch has. They have no class.
    Gaussian,
    /// One input of one number, `value`. It has no class.
    Single,
    /// Two numbers a time step, one of U(0, 1) and a mark, which is 1 at two time steps, one in each half. The answer
    /// after the last time step is the sum of the two marked numbers (Hochreiter and Schmidhuber 1997, section 5.4, in the
    /// form of Arjovsky et al. 2016, section 5.2).
    Adding,
    /// Ten symbols of eight kinds, blanks for `sequence_length` - 1 time steps, a sign to begin, ten blanks. The answer
    /// is blank at every time step but for the last ten, where it is the ten symbols (Arjovsky et al. 2016, section 5.1).
    Copying,
    /// Symbols of four kinds that mean nothing, and two, A or B, that do: one in the second tenth of the sequence, one in
    /// the fifth. The answer after the last time step is one of AA, AB, BA, BB (Pascanu et al. 2013, section 4.1; in the
    /// authors' program the second one is in the sixth tenth).
    TemporalOrder,
    /// Bits. The answer, after the last time step or after every one, is whether the ones so far are odd in number.
    Parity,
    /// Pieces of an embedded English text, one after the other. The answer, after every time step or only after the last
    /// one, is the next character.
    Text,
    /// Points of a spiral in the plane, and generated ones, for a critic: the real point of a pair and the same point with
    /// noise of N(0, 1) in both numbers (Gulrajani et al. 2017, section 3).
    SwissRoll,
    /// The same with real points around eight places on a circle.
    EightGaussians,
}

/// How a recurrent network reads an image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reading {
    /// A row of pixels a time step.
    #[default]
    Rows,
    /// A pixel a time step.
    Pixels,
}

/// Which images a network is evaluated on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Evaluation {
    /// The 10000 images to test on; 60000 are trained on.
    #[default]
    Test,
    /// The last 10000 images of the training split; the other 50000 are trained on (Nielsen, *Neural Networks and Deep
    /// Learning*, `mnist_loader.py`).
    Validation,
}

/// How the inputs are scaled before training.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Normalization {
    /// As they are in the data set: 0 to 16 for the digits, 0 to 255 for the other images.
    None,
    /// Divided by the largest possible value: 0 to 1.
    #[default]
    Unit,
    /// Each pixel to mean 0 and variance 1 over the training split; constant pixels become 0.
    Standard,
}

/// The examples of the digits' training split.
pub(super) const DIGITS_TRAINING_EXAMPLES: usize = 1437;
/// The rows of a digit, which has as many columns.
const DIGITS_ROWS: usize = 8;
/// The sets of images.
const IMAGES: [DataSet; 3] = [DataSet::Digits, DataSet::Mnist, DataSet::FashionMnist];
/// The rows of an image of `mnist` and `fashion_mnist`, which has as many columns.
pub const IMAGE_SIDE: usize = 28;
/// Their training split.
pub const IMAGE_TRAINING_EXAMPLES: usize = 60_000;
/// Their test split.
pub const IMAGE_TEST_EXAMPLES: usize = 10_000;
/// The images at the end of the training split that `data.evaluation = "validation"` holds out.
pub const VALIDATION_EXAMPLES: usize = 10_000;
/// The most numbers in an input.
const MAX_FEATURES: usize = 65536;
/// The most time steps.
const MAX_SEQUENCE_LENGTH: usize = 65536;
/// The numbers in a point of the plane.
const POINT_NUMBERS: usize = 2;
/// The examples in an epoch of a task whose examples are drawn.
const DRAWN_EXAMPLES: usize = 10_000;
/// The characters of the text that are trained on; the rest is held out.
pub const TEXT_TRAINING_CHARACTERS: usize = 225_000;
/// The characters that are held out.
pub const TEXT_TEST_CHARACTERS: usize = 25_353;
/// The kinds of characters in the text.
pub const TEXT_ALPHABET: usize = 60;
/// Kinds of symbols to copy, and how many of them.
pub const COPIED_KINDS: usize = 8;
/// Likewise.
pub const COPIED_SYMBOLS: usize = 10;

impl DataSet {
    /// Whether new examples are drawn in every epoch.
    pub fn is_drawn(self) -> bool {
        self.is_task() || self.has_generated_points()
    }

    /// Whether its examples are drawn sequences.
    fn is_task(self) -> bool {
        matches!(self, Self::Adding | Self::Copying | Self::TemporalOrder | Self::Parity)
    }

    /// Whether half of its examples are real points and half are generated ones, which a critic tells apart.
    pub fn has_generated_points(self) -> bool {
        matches!(self, Self::SwissRoll | Self::EightGaussians)
    }

    /// Whether only a recurrent network can read it.
    pub fn is_sequential(self) -> bool {
        self.is_task() || self == Self::Text
    }

    /// Whether the inputs are images, which have classes.
    pub fn is_image(self) -> bool {
        IMAGES.contains(&self)
    }

    /// The rows of an image, which has as many columns; 1 where there is none.
    fn image_side(self) -> usize {
        match self {
            Self::Digits => DIGITS_ROWS,
            Self::Mnist | Self::FashionMnist => IMAGE_SIDE,
            _ => 1,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Digits => "digits",
            Self::Mnist => "mnist",
            Self::FashionMnist => "fashion_mnist",
            Self::Gaussian => "gaussian",
            Self::Single => "single",
            Self::Adding => "adding",
            Self::Copying => "copying",
            Self::TemporalOrder => "temporal_order",
            Self::Parity => "parity",
            Self::Text => "text",
            Self::SwissRoll => "swiss_roll",
            Self::EightGaussians => "eight_gaussians",
        }
    }
}

impl DataConfig {
    /// How inputs are scaled.
    pub fn normalization(&self) -> Normalization {
        self.normalization.unwrap_or_default()
    }

    /// What the network is evaluated on.
    pub fn evaluation(&self) -> Evaluation {
        self.evaluation.unwrap_or_default()
    }

    /// Numbers in an input: those of all time steps of a sequence, in which a symbol is one.
    pub fn features(&self) -> usize {
        match self.set {
            set if set.is_image() => set.image_side().pow(2),
            DataSet::Gaussian => self.features.unwrap_or(1) * self.sequence_length.unwrap_or(1),
            DataSet::Single => 1,
            DataSet::SwissRoll | DataSet::EightGaussians => POINT_NUMBERS,
            _ => self.time_steps() * self.numbers_per_step(),
        }
    }

    /// Time steps in what a recurrent network reads.
    pub fn time_steps(&self) -> usize {
        let length = self.sequence_length.unwrap_or(1);
        match (self.set, self.reading.unwrap_or_default()) {
            (set, Reading::Rows) if set.is_image() => set.image_side(),
            (set, Reading::Pixels) if set.is_image() => set.image_side().pow(2),
            (DataSet::Copying, _) => length + 2 * COPIED_SYMBOLS,
            _ => length,
        }
    }

    /// Numbers in the input of a time step.
    pub fn numbers_per_step(&self) -> usize {
        match self.set {
            set if set.is_image() => self.features() / self.time_steps(),
            DataSet::Gaussian => self.features.unwrap_or(1),
            DataSet::Adding => 2,
            _ => 1,
        }
    }

    /// Kinds of symbols, where the input of a time step is a symbol: it is the number of the kind, from 0.
    pub fn symbols(&self) -> Option<usize> {
        match self.set {
            // The symbols to copy, the blank and the sign to begin.
            DataSet::Copying => Some(COPIED_KINDS + 2),
            DataSet::TemporalOrder => Some(6),
            DataSet::Text => Some(TEXT_ALPHABET),
            _ => None,
        }
    }

    /// The examples of the training split, or of an epoch of a task whose examples are drawn, if the config does not say.
    pub(super) fn all_examples(&self) -> usize {
        match self.set {
            DataSet::Digits => DIGITS_TRAINING_EXAMPLES,
            DataSet::Mnist | DataSet::FashionMnist => match self.evaluation() {
                Evaluation::Test => IMAGE_TRAINING_EXAMPLES,
                Evaluation::Validation => IMAGE_TRAINING_EXAMPLES - VALIDATION_EXAMPLES,
            },
            // Every piece has an answer beyond its end.
            DataSet::Text => (TEXT_TRAINING_CHARACTERS - 1) / self.time_steps(),
            set if set.is_drawn() => DRAWN_EXAMPLES,
            _ => 1,
        }
    }

    /// Whether the examples have answers to learn.
    pub fn has_answers(&self) -> bool {
        !matches!(self.set, DataSet::Gaussian | DataSet::Single)
    }

    pub(super) fn violation(&self) -> Option<Violation> {
        let tasks = &[DataSet::Adding, DataSet::Copying, DataSet::TemporalOrder, DataSet::Parity][..];
        let points = &[DataSet::SwissRoll, DataSet::EightGaussians][..];
        let with_examples = [&IMAGES[..], &[DataSet::Text], tasks, points].concat();
        let with_length = [&[DataSet::Text], tasks, &[DataSet::Gaussian]].concat();
        let present = [
            ("data.normalization", self.normalization.is_some(), &IMAGES[..]),
            ("data.reading", self.reading.is_some(), &IMAGES),
            ("data.evaluation", self.evaluation.is_some(), &[DataSet::Mnist, DataSet::FashionMnist]),
            ("data.examples", self.examples.is_some(), &with_examples),
            ("data.sequence_length", self.sequence_length.is_some(), &with_length),
            ("data.features", self.features.is_some(), &[DataSet::Gaussian]),
            ("data.value", self.value.is_some(), &[DataSet::Single]),
        ];
        let misplaced = present.into_iter().find(|(_, is_present, sets)| *is_present && !sets.contains(&self.set));
        misplaced
            .map(|(key, _, sets)| {
                let names: Vec<&str> = sets.iter().map(|set| set.name()).collect();
                only_with(key, "data.set", &names)
            })
            .or_else(|| self.length_violation())
            .or_else(|| self.examples_violation())
            .or_else(|| self.numbers_violation())
    }

    fn length_violation(&self) -> Option<Violation> {
        let least = match self.set {
            // One mark in each half; a tenth of the sequence must hold a time step.
            DataSet::Adding => 2,
            DataSet::TemporalOrder => 10,
            _ => 1,
        };
        let most = match self.set {
            DataSet::Text => TEXT_TEST_CHARACTERS - 1,
            _ => MAX_SEQUENCE_LENGTH,
        };
        match self.sequence_length {
            None if self.set.is_sequential() => Some(violation(
                "data.sequence_length",
                "must say how many time steps a sequence has",
                "add `sequence_length = 100` under [data], for example",
            )),
            Some(length) if !(least..=most).contains(&length) => Some(Violation {
                key: "data.sequence_length",
                problem: format!("must be from {least} to {most} time steps"),
                mend: "set `data.sequence_length = 100`, for example".to_owned(),
            }),
            _ => None,
        }
    }

    fn examples_violation(&self) -> Option<Violation> {
        let most = if self.set.is_drawn() { MAX_EXAMPLES } else { self.all_examples() };
        if self.set.has_generated_points() && self.examples.is_some_and(|examples| examples % 2 == 1) {
            return Some(violation(
                "data.examples",
                "must be even: half of the examples are real points, and half are generated",
                "set `data.examples = 10000`, for example, or leave it out",
            ));
        }
        self.examples.is_some_and(|examples| !(1..=most).contains(&examples)).then(|| Violation {
            key: "data.examples",
            problem: if self.set.is_drawn() {
                format!("must be from 1 to {most} examples in an epoch")
            } else {
                format!("must be from 1 to the {most} examples of the training split")
            },
            mend: format!("set `data.examples = {}`, for example, or leave it out", most.min(1000)),
        })
    }

    fn numbers_violation(&self) -> Option<Violation> {
        match (self.set, self.features, self.value) {
            (DataSet::Gaussian, None, _) => Some(violation(
                "data.features",
                "must be given with `data.set = \"gaussian\"`",
                "add `features = 64` under [data], for example",
            )),
            (DataSet::Gaussian, Some(features), _) if !(1..=MAX_FEATURES).contains(&features) => Some(violation(
                "data.features",
                "must be from 1 to 65536 numbers in an input",
                "set `data.features = 64`, for example",
            )),
            (DataSet::Gaussian, ..) if self.features() > MAX_INPUT_NUMBERS / DEFAULT_BATCH_SIZE => {
                let most = MAX_INPUT_NUMBERS / DEFAULT_BATCH_SIZE;
                Some(Violation {
                    key: "data.sequence_length",
                    problem: format!("times `data.features` must be at most {most} numbers in an input"),
                    mend: "set `data.sequence_length = 100`, for example".to_owned(),
                })
            }
            (DataSet::Single, _, None) => Some(violation(
                "data.value",
                "must be given with `data.set = \"single\"`",
                "add `value = 0.5` under [data], for example",
            )),
            (DataSet::Single, _, Some(value)) if !value.is_finite() => {
                Some(violation("data.value", "must be a finite number", "set `data.value = 0.5`, for example"))
            }
            _ => None,
        }
    }
}
