//! An English text, embedded in the program; `text/README.md` tells where it comes from.

use super::{Answers, Dataset, Split};
use crate::config::{TEXT_ALPHABET, TEXT_TRAINING_CHARACTERS};

/// ASCII: a byte is a character.
static TEXT: &[u8] = include_bytes!("text/text.txt");

/// The SHA-256 of the embedded bytes.
pub const SHA256: &str = "849a0efb42ea8888cc3512da99baca44548da67c64576a068e0282f2541ca4b1";

/// The text in pieces of `steps` characters, one after the other without overlap. The answer is the next character, after
/// every time step or only after the last one of a piece. The end of the text is held out.
pub fn load(steps: usize, answers_every_step: bool) -> Dataset {
    let codes = codes(&alphabet());
    let (train, test) = codes.split_at(TEXT_TRAINING_CHARACTERS.min(codes.len()));
    let split = |codes| pieces(codes, steps, answers_every_step);
    Dataset {
        sha256: Some(SHA256),
        features: steps,
        image: None,
        classes: TEXT_ALPHABET,
        judged_answers: steps,
        train: split(train),
        test: split(test),
        task: None,
    }
}

/// The characters of the text, in their order as bytes. The number of a character is its place.
fn alphabet() -> Vec<u8> {
    (0..=u8::MAX).filter(|character| TEXT.contains(character)).collect()
}

fn codes(alphabet: &[u8]) -> Vec<u8> {
    let mut numbers = [0; 256];
    for (number, character) in (0..).zip(alphabet) {
        numbers[usize::from(*character)] = number;
    }
    TEXT.iter().map(|character| numbers[usize::from(*character)]).collect()
}

fn pieces(codes: &[u8], steps: usize, answers_every_step: bool) -> Split {
    let mut inputs = Vec::with_capacity(codes.len());
    let mut answers = Vec::new();
    // The last answer to a piece is the first character of the next one.
    for piece in codes.windows(steps + 1).step_by(steps) {
        inputs.extend(piece[..steps].iter().copied().map(f32::from));
        answers.extend(if answers_every_step { &piece[1..] } else { &piece[steps..] });
    }
    let each = if answers_every_step { steps } else { 1 };
    Split { inputs, answers: Answers::Classes { codes: answers, each } }
}
