//! The sets of images that are read from files, and what their files must be.

use crate::config::{DataSet, IMAGE_SIDE, IMAGE_TEST_EXAMPLES, IMAGE_TRAINING_EXAMPLES};

/// A set of images with classes in four files of the IDX format.
#[derive(Debug)]
pub struct ImageSet {
    /// What people call it.
    pub title: &'static str,
    /// Its directory below that of all data, and its name for `gradmark fetch`.
    pub name: &'static str,
    /// Where it is downloaded from, compressed, if no other mirror is named.
    pub mirror: &'static str,
    /// Images and labels to train on, images and labels to test on.
    pub files: [FileSpec; 4],
    /// The SHA-256 of the files' SHA-256, in the order of `files`, each in hexadecimal on a line of its own.
    pub sha256: &'static str,
    /// Where else it may be installed.
    pub elsewhere: &'static [&'static str],
}

/// What a file must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileSpec {
    /// Its name, uncompressed.
    pub name: &'static str,
    /// Examples; of images also rows and columns.
    pub dimensions: &'static [usize],
    /// The SHA-256 of its uncompressed bytes, in hexadecimal.
    pub sha256: &'static str,
}

/// The classes of both sets.
pub(super) const CLASSES: usize = 10;
/// The largest value of a pixel.
pub(super) const LARGEST_PIXEL: f32 = 255.0;

const TRAINING_IMAGES: &[usize] = &[IMAGE_TRAINING_EXAMPLES, IMAGE_SIDE, IMAGE_SIDE];
const TEST_IMAGES: &[usize] = &[IMAGE_TEST_EXAMPLES, IMAGE_SIDE, IMAGE_SIDE];

/// 70000 handwritten digits (LeCun, Cortes and Burges 1998).
pub static MNIST: ImageSet = ImageSet {
    title: "MNIST",
    name: "mnist",
    mirror: "https://ossci-datasets.s3.amazonaws.com/mnist/",
    files: files([
        "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    ]),
    sha256: "ac89dbc26b7b0b5f68ff586bc0579a0c16e78b3436b0c71ccdd0169cbebf9ff7",
    elsewhere: &[],
};

/// 70000 pictures of clothes (Xiao, Rasul and Vollgraf 2017).
pub static FASHION_MNIST: ImageSet = ImageSet {
    title: "Fashion-MNIST",
    name: "fashion-mnist",
    mirror: "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
    files: files([
        "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
        "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
        "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
        "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
    ]),
    sha256: "7b0688d0999122d67a4eb2b95499a3bf7c5afbfaef15b7295b9f619d9e48a0bc",
    // Debian's package dataset-fashion-mnist.
    elsewhere: &["/usr/share/datasets/fashion-mnist"],
};

const fn files(sha256: [&'static str; 4]) -> [FileSpec; 4] {
    let [train_images, train_labels, test_images, test_labels] = sha256;
    [
        FileSpec { name: "train-images-idx3-ubyte", dimensions: TRAINING_IMAGES, sha256: train_images },
        FileSpec { name: "train-labels-idx1-ubyte", dimensions: &[IMAGE_TRAINING_EXAMPLES], sha256: train_labels },
        FileSpec { name: "t10k-images-idx3-ubyte", dimensions: TEST_IMAGES, sha256: test_images },
        FileSpec { name: "t10k-labels-idx1-ubyte", dimensions: &[IMAGE_TEST_EXAMPLES], sha256: test_labels },
    ]
}

impl ImageSet {
    /// All of them.
    pub const ALL: [&'static Self; 2] = [&MNIST, &FASHION_MNIST];

    /// The files of a data set; none where it is embedded or drawn.
    pub fn of(set: DataSet) -> Option<&'static Self> {
        match set {
            DataSet::Mnist => Some(&MNIST),
            DataSet::FashionMnist => Some(&FASHION_MNIST),
            _ => None,
        }
    }
}

impl FileSpec {
    /// The names that the file goes by, in the order in which they are looked for: with a hyphen or a dot, raw or
    /// compressed.
    pub fn names(&self) -> [String; 4] {
        let dotted = self.name.replacen("-idx", ".idx", 1);
        [self.name.to_owned(), dotted.clone(), format!("{}.gz", self.name), format!("{dotted}.gz")]
    }
}

#[cfg(test)]
mod tests {
    use sha2::{Digest, Sha256};

    use super::*;

    #[test]
    fn the_hash_of_a_set_is_that_of_the_hashes_of_its_files() {
        for set in ImageSet::ALL {
            let lines: String = set.files.iter().map(|file| format!("{}\n", file.sha256)).collect();
            let digest: String = Sha256::digest(lines).iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(digest, set.sha256, "{}", set.title);
        }
    }

    #[test]
    fn a_file_goes_by_four_names() {
        assert_eq!(
            MNIST.files[0].names(),
            [
                "train-images-idx3-ubyte",
                "train-images.idx3-ubyte",
                "train-images-idx3-ubyte.gz",
                "train-images.idx3-ubyte.gz"
            ]
        );
    }
}
