//! The IDX format of unsigned bytes, as the files of MNIST have it (LeCun, Cortes and Burges 1998): a magic number, a
//! big-endian size for every dimension, the bytes.

use std::io::Read;

use flate2::read::GzDecoder;

use super::FileFault;
use crate::hash;

/// Two zeros, the code of unsigned bytes; the number of dimensions follows.
const MAGIC: [u8; 3] = [0, 0, 8];
/// The first bytes of every gzip file.
const GZIP: [u8; 2] = [0x1f, 0x8b];
/// Nothing longer is read or decompressed: the largest file has 47 million bytes.
pub(super) const MOST_BYTES: u64 = 1 << 26;

/// The bytes of a file of these dimensions, its header included.
pub(super) fn file_bytes(dimensions: &[usize]) -> usize {
    header(dimensions).len() + dimensions.iter().product::<usize>()
}

/// What a file of these dimensions begins with.
pub(super) fn header(dimensions: &[usize]) -> Vec<u8> {
    let sizes = dimensions.iter().flat_map(|size| (*size as u32).to_be_bytes());
    MAGIC.into_iter().chain([dimensions.len() as u8]).chain(sizes).collect()
}

/// Decompresses what should be gzip. Memory is taken for what comes out, whatever the data say of their length.
///
/// # Errors
///
/// If it is not gzip or damaged.
pub(super) fn decompress(bytes: &[u8], dimensions: &[usize]) -> Result<Vec<u8>, FileFault> {
    let expected = file_bytes(dimensions);
    if bytes.is_empty() {
        return Err(FileFault::Empty { expected });
    }
    if !bytes.starts_with(&GZIP) {
        return Err(FileFault::NotGzip { found: hexadecimal(&bytes[..bytes.len().min(4)]) });
    }
    let mut contents = Vec::with_capacity(expected + 1);
    match GzDecoder::new(bytes).take(MOST_BYTES).read_to_end(&mut contents) {
        Ok(_) => Ok(contents),
        Err(error) => {
            Err(FileFault::DamagedGzip { expected, found: contents.len(), reason: error.to_string().to_lowercase() })
        }
    }
}

/// Takes the header off a file and checks it, and the length. What the header says is compared, never allocated.
///
/// # Errors
///
/// If magic number, dimensions or length are not those of `dimensions`.
pub(super) fn take_header(mut bytes: Vec<u8>, dimensions: &[usize]) -> Result<Vec<u8>, FileFault> {
    let (header, expected, found) = (header(dimensions), file_bytes(dimensions), bytes.len());
    if bytes.is_empty() {
        return Err(FileFault::Empty { expected });
    }
    let Some((magic, sizes)) = bytes.split_first_chunk::<4>() else {
        return Err(FileFault::Truncated { expected, found });
    };
    if *magic != header[..4] {
        let (expected, found) = (hexadecimal(&header[..4]), hexadecimal(magic));
        return Err(FileFault::MagicNumber { expected, found });
    }
    let Some(sizes) = sizes.get(..4 * dimensions.len()) else {
        return Err(FileFault::Truncated { expected, found });
    };
    if *sizes != header[4..] {
        let sizes = sizes.chunks(4).map(|size| size.iter().fold(0, |number, byte| number << 8 | u32::from(*byte)));
        return Err(FileFault::Dimensions { expected: product(dimensions.iter()), found: product(sizes) });
    }
    match found {
        _ if found < expected => Err(FileFault::Truncated { expected, found }),
        _ if found > expected => Err(FileFault::TooLong { expected }),
        _ => {
            bytes.drain(..header.len());
            Ok(bytes)
        }
    }
}

/// `60000 x 28 x 28`
fn product(sizes: impl Iterator<Item = impl ToString>) -> String {
    sizes.map(|size| size.to_string()).collect::<Vec<_>>().join(" x ")
}

/// `0x00000803`
fn hexadecimal(bytes: &[u8]) -> String {
    format!("0x{}", hash::hexadecimal(bytes))
}

#[cfg(test)]
pub(super) mod tests {
    use std::io::Write;

    use flate2::{Compression, write::GzEncoder};

    use super::*;

    /// A file of these dimensions.
    pub(crate) fn file(dimensions: &[usize], contents: &[u8]) -> Vec<u8> {
        [&header(dimensions)[..], contents].concat()
    }

    pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(bytes).expect("writes to memory");
        encoder.finish().expect("writes to memory")
    }

    #[test]
    fn a_file_has_its_contents_behind_the_header() {
        assert_eq!(file(&[2, 3], &[])[..], [0, 0, 8, 2, 0, 0, 0, 2, 0, 0, 0, 3]);
        assert_eq!(take_header(file(&[2, 3], &[1, 2, 3, 4, 5, 6]), &[2, 3]), Ok(vec![1, 2, 3, 4, 5, 6]));
        assert_eq!(file_bytes(&[60_000, 28, 28]), 47_040_016);
    }

    #[test]
    fn every_piece_of_a_file_that_is_cut_off_is_refused_with_both_lengths() {
        let whole = file(&[2, 3], &[1, 2, 3, 4, 5, 6]);
        assert_eq!(take_header(Vec::new(), &[2, 3]), Err(FileFault::Empty { expected: 18 }));
        for found in 1..18 {
            let piece = whole[..found].to_vec();
            assert_eq!(take_header(piece, &[2, 3]), Err(FileFault::Truncated { expected: 18, found }));
        }
        let long = [&whole[..], &[0]].concat();
        assert_eq!(take_header(long, &[2, 3]), Err(FileFault::TooLong { expected: 18 }));
    }

    #[test]
    fn another_magic_number_and_other_dimensions_are_named_beside_the_right_ones() {
        let fault = |bytes: &[u8]| take_header(bytes.to_vec(), &[2, 3]).expect_err("wrong").to_string();
        let text = fault(&file(&[6], &[1, 2, 3, 4, 5, 6]));
        assert!(text.contains("magic number 0x00000802, but begins with 0x00000801"), "{text}");
        let text = fault(b"<html><body>");
        assert!(text.contains("begins with 0x3c68746d"), "{text}");
        let text = fault(&[0, 0, 8, 2, 255, 255, 255, 255, 0, 0, 0, 3]);
        assert!(text.contains("should be 2 x 3, but are 4294967295 x 3"), "{text}");
    }

    #[test]
    fn gzip_gives_what_was_compressed_and_says_where_it_is_damaged() {
        let whole = file(&[100], &[7; 100]);
        let compressed = gzip(&whole);
        assert_eq!(decompress(&compressed, &[100]), Ok(whole.clone()));
        assert_eq!(decompress(&[], &[100]), Err(FileFault::Empty { expected: 108 }));
        let raw = decompress(&whole, &[100]);
        assert_eq!(raw, Err(FileFault::NotGzip { found: "0x00000801".to_owned() }));
        for length in 2..compressed.len() {
            let fault = decompress(&compressed[..length], &[100]).expect_err("it is cut off");
            assert!(matches!(fault, FileFault::DamagedGzip { expected: 108, .. }), "{length}: {fault}");
        }
        let mut damaged = compressed;
        let place = damaged.len() - 8;
        damaged[place] ^= 1;
        let fault = decompress(&damaged, &[100]).expect_err("the checksum is another");
        assert!(fault.to_string().contains("damaged after 108 of 108 bytes"), "{fault}");
    }
}
