//! Finds, reads and checks the files of a set of images.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use super::image_set::{FileSpec, ImageSet};
use super::{DataError, FileFault, idx};
use crate::hash::sha256;

/// What the files of a set hold, behind their headers.
#[derive(Debug)]
pub(super) struct ImageFiles {
    /// `[training examples, rows, columns]`
    pub train_images: Vec<u8>,
    /// `[training examples]`
    pub train_labels: Vec<u8>,
    /// `[test examples, rows, columns]`
    pub test_images: Vec<u8>,
    /// `[test examples]`
    pub test_labels: Vec<u8>,
}

/// Reads a set from the first of the places that has its four files, all right. `fetch` is the command that downloads it.
///
/// # Errors
///
/// If no place has them: of the first place that has some of them, what is wrong with them.
pub(super) fn read_set(set: &ImageSet, places: &[PathBuf], fetch: &str) -> Result<ImageFiles, DataError> {
    let mut first = None;
    for dir in places {
        match read_directory(set, dir, fetch) {
            Some(Ok(files)) => return Ok(files),
            Some(Err(error)) => {
                first.get_or_insert(error);
            }
            None => {}
        }
    }
    let absent = || DataError::Absent { title: set.title, places: places.to_owned(), fetch: fetch.to_owned() };
    Err(first.unwrap_or_else(absent))
}

/// Nothing if none of the files is in the directory.
fn read_directory(set: &ImageSet, dir: &Path, fetch: &str) -> Option<Result<ImageFiles, DataError>> {
    let found = set.files.each_ref().map(|spec| find(spec, dir));
    if found.iter().all(Option::is_none) {
        return None;
    }
    let missing: Vec<&'static str> =
        set.files.iter().zip(&found).filter(|(_, found)| found.is_none()).map(|(spec, _)| spec.name).collect();
    let [Some(train_images), Some(train_labels), Some(test_images), Some(test_labels)] = found else {
        let (dir, fetch) = (dir.to_owned(), fetch.to_owned());
        return Some(Err(DataError::Incomplete { dir, title: set.title, missing, fetch }));
    };
    let read = |file: usize, path: &Path| read(set, &set.files[file], path, fetch);
    // Small files first: what is wrong with them is known at once.
    let read_all = || {
        let (train_labels, test_labels) = (read(1, &train_labels)?, read(3, &test_labels)?);
        let (test_images, train_images) = (read(2, &test_images)?, read(0, &train_images)?);
        Ok(ImageFiles { train_images, train_labels, test_images, test_labels })
    };
    Some(read_all())
}

/// The file in a directory, by the first of its names that is there.
pub(super) fn find(spec: &FileSpec, dir: &Path) -> Option<PathBuf> {
    spec.names().iter().map(|name| dir.join(name)).find(|path| path.is_file())
}

/// Reads a file, raw or compressed, and checks it.
pub(super) fn read(set: &ImageSet, spec: &FileSpec, path: &Path, fetch: &str) -> Result<Vec<u8>, DataError> {
    let unreadable = |cause| DataError::Unreadable { path: path.to_owned(), cause };
    let mut bytes = Vec::with_capacity(idx::file_bytes(spec.dimensions) + 1);
    let file = File::open(path).map_err(unreadable)?;
    file.take(idx::MOST_BYTES).read_to_end(&mut bytes).map_err(unreadable)?;
    let is_compressed = path.extension().is_some_and(|extension| extension == "gz");
    check(set, spec, bytes, is_compressed).map_err(|fault| DataError::Faulty {
        path: path.to_owned(),
        fault,
        fetch: fetch.to_owned(),
    })
}

/// Decompresses what a file holds, if it is compressed, checks it and takes its header off.
///
/// # Errors
///
/// If the uncompressed bytes are not those whose SHA-256 is written down. What is wrong with them is told as closely as
/// possible: another file that is known, another format, other dimensions, another length.
pub(super) fn check(
    set: &ImageSet,
    spec: &FileSpec,
    bytes: Vec<u8>,
    is_compressed: bool,
) -> Result<Vec<u8>, FileFault> {
    let bytes = if is_compressed { idx::decompress(&bytes, spec.dimensions)? } else { bytes };
    let found = sha256(&bytes);
    if let Some(other) = known_file(set, &found).filter(|_| found != spec.sha256) {
        let expected = format!("{} of {}", spec.name, set.title);
        return Err(FileFault::Swapped { expected, found: other });
    }
    let contents = idx::take_header(bytes, spec.dimensions)?;
    if found == spec.sha256 { Ok(contents) } else { Err(FileFault::Sha256 { expected: spec.sha256.to_owned(), found }) }
}

/// The name of the file whose bytes have this hash.
fn known_file(set: &ImageSet, sha256: &str) -> Option<String> {
    let sets = std::iter::once(set).chain(ImageSet::ALL);
    let mut files = sets.flat_map(|set| set.files.iter().map(move |file| (set, file)));
    files.find(|(_, file)| file.sha256 == sha256).map(|(set, file)| format!("{} of {}", file.name, set.title))
}

#[cfg(test)]
pub(super) mod tests {
    use std::fs;

    use super::*;
    use crate::data::idx::tests::{file, gzip};

    const FETCH: &str = "gradmark fetch tiny";

    /// A set of three images of 2 x 2 pixels and two to test on, and its files.
    pub(crate) fn tiny() -> (ImageSet, [Vec<u8>; 4]) {
        let files = [
            file(&[3, 2, 2], &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]),
            file(&[3], &[0, 1, 2]),
            file(&[2, 2, 2], &[255, 254, 253, 252, 251, 250, 249, 248]),
            file(&[2], &[1, 0]),
        ];
        let dimensions: [&[usize]; 4] = [&[3, 2, 2], &[3], &[2, 2, 2], &[2]];
        let names =
            ["train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"];
        let spec = |file: usize| FileSpec {
            name: names[file],
            dimensions: dimensions[file],
            sha256: Box::leak(sha256(&files[file]).into_boxed_str()),
        };
        let set = ImageSet {
            title: "Tiny",
            name: "tiny",
            mirror: "http://127.0.0.1:9/",
            files: [spec(0), spec(1), spec(2), spec(3)],
            sha256: "",
            elsewhere: &[],
        };
        (set, files)
    }

    fn directory() -> tempfile::TempDir {
        tempfile::tempdir().expect("a temporary directory")
    }

    /// Writes the files of the tiny set.
    fn written(dir: &Path) -> ImageSet {
        let (set, files) = tiny();
        for (spec, bytes) in set.files.iter().zip(&files) {
            fs::write(dir.join(spec.name), bytes).expect("writes");
        }
        set
    }

    fn error_of(set: &ImageSet, dir: &Path) -> String {
        read_set(set, &[dir.to_owned()], FETCH).expect_err("it is wrong").to_string()
    }

    #[test]
    fn every_name_of_a_file_gives_the_same_set_raw_or_compressed() {
        let (set, files) = tiny();
        for variant in 0..4 {
            let dir = directory();
            for (spec, bytes) in set.files.iter().zip(&files) {
                let bytes = if variant < 2 { bytes.clone() } else { gzip(bytes) };
                fs::write(dir.path().join(&spec.names()[variant]), bytes).expect("writes");
            }
            let found = read_set(&set, &[dir.path().to_owned()], FETCH).expect("right");
            assert_eq!(found.train_images, (0..12).collect::<Vec<u8>>());
            assert_eq!((found.train_labels, found.test_labels), (vec![0, 1, 2], vec![1, 0]));
            assert_eq!(found.test_images[..3], [255, 254, 253]);
        }
    }

    #[test]
    fn an_absent_set_names_every_place_and_two_ways_out() {
        let (dir, other) = (directory(), directory());
        let places = [dir.path().to_owned(), other.path().to_owned(), PathBuf::from("/nowhere/at/all")];
        let error = read_set(&tiny().0, &places, FETCH).expect_err("absent").to_string();
        for part in ["Tiny", "/nowhere/at/all", "`gradmark fetch tiny`", "--data-dir"] {
            assert!(error.contains(part), "{error}\n  lacks: {part}");
        }
        assert!(places.iter().all(|place| error.contains(&place.display().to_string())), "{error}");
    }

    #[test]
    fn a_directory_that_lacks_files_names_them() {
        let dir = directory();
        let set = written(dir.path());
        fs::remove_file(dir.path().join("t10k-labels-idx1-ubyte")).expect("removes");
        fs::create_dir(dir.path().join("t10k-labels-idx1-ubyte")).expect("a directory is no file");
        let error = error_of(&set, dir.path());
        assert!(error.contains("it lacks t10k-labels-idx1-ubyte of Tiny"), "{error}");
        assert!(error.contains("`gradmark fetch tiny`"), "{error}");
    }

    #[test]
    fn the_first_place_with_the_right_files_is_taken_and_the_first_fault_is_told() {
        let (wrong, right) = (directory(), directory());
        let set = written(wrong.path());
        written(right.path());
        fs::write(wrong.path().join("train-labels-idx1-ubyte"), [0; 3]).expect("writes");
        let places = [PathBuf::from("/nowhere"), wrong.path().to_owned(), right.path().to_owned()];
        assert_eq!(read_set(&set, &places, FETCH).expect("the last is right").train_labels, [0, 1, 2]);
        fs::remove_file(right.path().join("t10k-labels-idx1-ubyte")).expect("removes");
        let error = read_set(&set, &places, FETCH).expect_err("both are wrong").to_string();
        assert!(error.contains(&wrong.path().display().to_string()), "{error}");
    }

    #[test]
    fn what_is_wrong_with_a_file_is_told_with_its_name_and_the_mend() {
        let images = tiny().1[0].clone();
        let changed = |place: usize| {
            let mut bytes = images.clone();
            bytes[place] ^= 1;
            bytes
        };
        for (bytes, expected) in [
            (Vec::new(), "it is empty, but should have 28 bytes"),
            (images[..20].to_vec(), "it is cut off: it should have 28 bytes, but has 20"),
            ([&images[..], &[0]].concat(), "it is too long: it should have 28 bytes"),
            (changed(3), "magic number 0x00000803, but begins with 0x00000802"),
            (changed(7), "its dimensions should be 3 x 2 x 2, but are 2 x 2 x 2"),
            (changed(27), "should have the SHA-256"),
            (gzip(&images), "magic number 0x00000803, but begins with 0x1f8b"),
            (tiny().1[1].clone(), "train-images-idx3-ubyte of Tiny, but has the contents of train-labels-idx1-ubyte"),
            (tiny().1[2].clone(), "train-images-idx3-ubyte of Tiny, but has the contents of t10k-images-idx3-ubyte"),
        ] {
            let dir = directory();
            let set = written(dir.path());
            fs::write(dir.path().join("train-images-idx3-ubyte"), bytes).expect("writes");
            let error = error_of(&set, dir.path());
            for part in ["train-images-idx3-ubyte: ", expected, "`gradmark fetch tiny --force`"] {
                assert!(error.contains(part), "{error}\n  lacks: {part}");
            }
        }
    }

    #[test]
    fn a_name_in_gz_asks_for_gzip() {
        let (set, files) = tiny();
        let dir = directory();
        for (spec, bytes) in set.files.iter().zip(&files) {
            fs::write(dir.path().join(format!("{}.gz", spec.name)), gzip(bytes)).expect("writes");
        }
        let path = dir.path().join("train-labels-idx1-ubyte.gz");
        fs::write(&path, &files[1]).expect("writes");
        let error = error_of(&set, dir.path());
        assert!(error.contains("compressed with gzip, but begins with the bytes 0x00000801"), "{error}");
        fs::write(&path, &gzip(&files[1])[..20]).expect("writes");
        let error = error_of(&set, dir.path());
        assert!(error.contains("its gzip data are damaged after"), "{error}");
    }
}
