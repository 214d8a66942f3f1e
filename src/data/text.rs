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

#[cfg(test)]
mod tests {
    use sha2::{Digest, Sha256};

    use super::*;
    use crate::config::{DataSet, TEXT_TEST_CHARACTERS};
    use crate::data::tests::sequences;

    fn answers(split: &Split) -> &[u8] {
        match &split.answers {
            Answers::Classes { codes, .. } => codes,
            other => panic!("characters, not {other:?}"),
        }
    }

    fn decoded(numbers: impl Iterator<Item = u8>) -> Vec<u8> {
        let alphabet = alphabet();
        numbers.map(|number| alphabet[usize::from(number)]).collect()
    }

    #[test]
    fn the_embedded_text_is_the_one_whose_hash_and_numbers_are_written_down() {
        let digest: String = Sha256::digest(TEXT).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(digest, SHA256);
        assert!(TEXT.is_ascii());
        assert_eq!(TEXT.len(), TEXT_TRAINING_CHARACTERS + TEXT_TEST_CHARACTERS);
        assert_eq!(alphabet().len(), TEXT_ALPHABET);
        assert!(alphabet().is_sorted());
    }

    #[test]
    fn the_pieces_in_a_row_are_the_text_and_the_answers_are_the_text_from_its_second_character_on() {
        for steps in [1, 7, 100, TEXT_TEST_CHARACTERS - 1] {
            let data = load(steps, true);
            let (train, test) = TEXT.split_at(TEXT_TRAINING_CHARACTERS);
            for (split, text) in [(&data.train, train), (&data.test, test)] {
                let inputs = decoded(split.inputs.iter().map(|x| *x as u8));
                assert_eq!(split.len(), (text.len() - 1) / steps);
                assert!(inputs == text[..split.len() * steps], "{steps}");
                assert!(decoded(answers(split).iter().copied()) == text[1..=split.len() * steps], "{steps}");
            }
        }
    }

    #[test]
    fn the_one_answer_to_a_piece_is_the_last_of_those_after_every_time_step() {
        let (every, last) = (load(50, true).test, load(50, false).test);
        assert_eq!((every.len(), &every.inputs), (last.len(), &last.inputs));
        let lasts: Vec<u8> = answers(&every).iter().skip(49).step_by(50).copied().collect();
        assert_eq!(answers(&last), lasts);
    }

    #[test]
    fn a_config_of_so_many_pieces_trains_on_the_first_ones() {
        let mut config = sequences(DataSet::Text, 30, None);
        assert_eq!(config.training_examples(), crate::data::tests::load(&config, 1).train.len());
        config.data.examples = Some(5);
        let data = crate::data::tests::load(&config, 1);
        assert_eq!((data.train.len(), answers(&data.train).len()), (5, 150));
        assert_eq!(data.train.inputs, load(30, true).train.inputs[..150]);
    }
}
