//! The 8 x 8 handwritten digits (Alpaydin and Kaynak 1998, UCI Machine Learning Repository, CC BY 4.0),
//! embedded in the program; `digits/README.md` tells where they come from.

use super::{Answers, Dataset, Split};

static BYTES: &[u8] = include_bytes!("digits/digits.bin");

/// The SHA-256 of the embedded bytes.
pub const SHA256: &str = "68aea062d35a127749050fa0e52dca09d6569ac08092c925610e0954e172dde2";

/// The largest value of a pixel.
pub const LARGEST_PIXEL: f32 = 16.0;

const FEATURES: usize = 64;
const CLASSES: usize = 10;

/// One in five examples of each class is held out.
const TEST_EXAMPLES: usize = 360;

/// The digits with pixels from 0 to 16: 1437 examples to train on, 360 to test.
pub fn load() -> Dataset {
    let records: Vec<&[u8]> = BYTES.chunks_exact(FEATURES + 1).collect();
    let held_out = stratified_test_indices(&records);
    let is_held_out = |index: &usize| held_out.binary_search(index).is_ok();
    let (test, train): (Vec<usize>, Vec<usize>) = (0..records.len()).partition(is_held_out);
    Dataset {
        sha256: Some(SHA256),
        features: FEATURES,
        image: Some([1, 8, 8]),
        classes: CLASSES,
        judged_answers: 1,
        train: split(&records, &train),
        test: split(&records, &test),
        task: None,
    }
}

fn split(records: &[&[u8]], members: &[usize]) -> Split {
    let pixels = members.iter().flat_map(|member| &records[*member][..FEATURES]);
    let inputs = pixels.map(|pixel| f32::from(*pixel)).collect();
    let codes = members.iter().map(|member| records[*member][FEATURES]).collect();
    Split { inputs, answers: Answers::Classes { codes, each: 1 } }
}

/// The held-out examples, sorted: of each class a share in proportion (largest remainder), evenly spaced in the
/// order of the file, so that the split is the same for every seed and machine.
fn stratified_test_indices(records: &[&[u8]]) -> Vec<usize> {
    let mut members: Vec<Vec<usize>> = vec![Vec::new(); CLASSES];
    for (index, record) in records.iter().enumerate() {
        members[usize::from(record[FEATURES])].push(index);
    }
    let share = |class: usize| members[class].len() * TEST_EXAMPLES;
    let mut counts: Vec<usize> = (0..CLASSES).map(|class| share(class) / records.len()).collect();
    let mut by_remainder: Vec<usize> = (0..CLASSES).collect();
    by_remainder.sort_by_key(|class| std::cmp::Reverse(share(*class) % records.len()));
    let missing = TEST_EXAMPLES - counts.iter().sum::<usize>();
    for class in by_remainder.into_iter().take(missing) {
        counts[class] += 1;
    }
    let mut held_out: Vec<usize> = members
        .iter()
        .zip(&counts)
        .flat_map(|(class, &count)| {
            (0..class.len())
                .filter(move |place| (place + 1) * count / class.len() > place * count / class.len())
                .map(|place| class[place])
        })
        .collect();
    held_out.sort_unstable();
    held_out
}

#[cfg(test)]
mod tests {
    use sha2::{Digest, Sha256};

    use super::*;

    #[test]
    fn the_embedded_bytes_are_the_ones_whose_hash_is_written_down() {
        let digest: String = Sha256::digest(BYTES).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(digest, SHA256);
    }

    #[test]
    fn the_split_is_stratified_and_loses_no_example() {
        let data = load();
        assert_eq!((data.train.len(), data.test.len()), (1437, 360));
        assert_eq!(data.train.inputs.len(), 1437 * 64);
        for class in 0..10_u8 {
            let count = |split: &Split| match &split.answers {
                Answers::Classes { codes, each: 1 } => codes.iter().filter(|label| **label == class).count(),
                other => panic!("one class an example, not {other:?}"),
            };
            let all = (count(&data.train) + count(&data.test)) as f64;
            let expected = all * 360.0 / 1797.0;
            assert!((count(&data.test) as f64 - expected).abs() < 1.0, "class {class}");
        }
    }
}
