//! Where data sets come from: the program itself, a seed, or files.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use etcetera::BaseStrategy;

use super::image_files::{self, ImageFiles};
use super::image_set::{CLASSES, ImageSet, LARGEST_PIXEL};
use super::{Answers, DataError, Dataset, Split, Task, digits, normalize, synthetic, text};
use crate::config::{DataSet, Evaluation, IMAGE_SIDE, RunConfig, VALIDATION_EXAMPLES};

/// Where files of data sets are looked for, and what has been read of them: a sweep reads and checks each file once.
///
/// # Examples
///
/// ```
/// use gradmark::{config::Source, data::Sources, plan};
///
/// let text = "[experiment]\nname = \"t\"\n[network]\ndepth = 2\nwidth = 8\nactivation = \"relu\"\nweight_init = \"he\"\n\
///             [training]\nlearning_rate = 0.1\nepochs = 1\n";
/// let plan = plan::plan(&Source::parse("t.toml".as_ref(), text, &[])?, "flex")?;
/// let data = Sources::default().load(&plan.runs[0].config, 1)?;
/// assert_eq!((data.train.len(), data.test.len()), (1437, 360));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Default)]
pub struct Sources {
    dir: Option<PathBuf>,
    read: Mutex<Vec<(DataSet, Arc<ImageFiles>)>>,
}

/// The environment variable that names the directory of all data sets.
const DATA_DIR: &str = "GRADMARK_DATA_DIR";

/// The directory of all data sets: the one that is asked for, else that of the environment variable `GRADMARK_DATA_DIR`,
/// else `gradmark` in the place where the platform keeps the user's data, such as `~/.local/share`.
///
/// # Errors
///
/// If there is none, because the user has no home directory.
pub fn data_dir(asked: Option<&Path>) -> Result<PathBuf, DataError> {
    let named = || std::env::var_os(DATA_DIR).filter(|dir| !dir.is_empty()).map(PathBuf::from);
    match asked.map(Path::to_owned).or_else(named) {
        Some(dir) => Ok(dir),
        None => etcetera::choose_base_strategy()
            .map(|strategy| strategy.data_dir().join("gradmark"))
            .map_err(|_| DataError::NoDirectory),
    }
}

impl Sources {
    /// Looks in this directory of all data sets, or in the one that [`data_dir`] tells.
    pub fn new(dir: Option<&Path>) -> Self {
        Self { dir: dir.map(Path::to_owned), ..Self::default() }
    }

    /// Reads and checks the files that the data set of a config needs, if it needs any.
    ///
    /// # Errors
    ///
    /// If they are absent or wrong.
    pub fn require(&self, config: &RunConfig) -> Result<(), DataError> {
        ImageSet::of(config.data.set).map_or(Ok(()), |set| self.files(set, config.data.set).map(|_| ()))
    }

    /// Loads the data set of a config. The seed matters only to sets that are drawn from it.
    ///
    /// # Errors
    ///
    /// If the set is read from files, and they are absent or wrong.
    pub fn load(&self, config: &RunConfig, seed: u64) -> Result<Dataset, DataError> {
        if let Some(set) = ImageSet::of(config.data.set) {
            let files = self.files(set, config.data.set)?;
            return Ok(images(set, &files, config));
        }
        if let Some(task) = Task::of(config) {
            return Ok(task.dataset(seed));
        }
        Ok(match config.data.set {
            DataSet::Gaussian => synthetic::gaussian(config.data.features(), config.batch_size(), seed),
            DataSet::Single => synthetic::single(config.data.value.unwrap_or(0.0)),
            DataSet::Text => {
                let answers_every_step = config.sequence().is_some_and(|sequence| sequence.answers_every_step);
                let mut dataset = text::load(config.data.time_steps(), answers_every_step);
                dataset.train.truncate(config.training_examples(), dataset.features);
                dataset
            }
            _ => {
                let mut dataset = digits::load();
                // What is left out does not count in the standardization either.
                dataset.train.truncate(config.training_examples(), dataset.features);
                normalize(dataset, config.data.normalization(), digits::LARGEST_PIXEL)
            }
        })
    }

    fn files(&self, set: &ImageSet, name: DataSet) -> Result<Arc<ImageFiles>, DataError> {
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, files)) = read.iter().find(|(of, _)| *of == name) {
            return Ok(Arc::clone(files));
        }
        let files = Arc::new(image_files::read_set(set, &self.places(set)?, &self.fetch_command(set))?);
        read.push((name, Arc::clone(&files)));
        Ok(files)
    }

    /// Every directory where the files of a set may be.
    fn places(&self, set: &ImageSet) -> Result<Vec<PathBuf>, DataError> {
        let dir = data_dir(self.dir.as_deref())?;
        let elsewhere = set.elsewhere.iter().map(PathBuf::from);
        Ok([dir.join(set.name), dir].into_iter().chain(elsewhere).collect())
    }

    /// What downloads a set to where this looks for it.
    fn fetch_command(&self, set: &ImageSet) -> String {
        let dir = self.dir.as_ref().map(|dir| format!(" --data-dir {}", dir.display())).unwrap_or_default();
        format!("gradmark fetch {}{dir}", set.name)
    }
}

/// The examples of a config, as numbers.
fn images(set: &'static ImageSet, files: &ImageFiles, config: &RunConfig) -> Dataset {
    let features = IMAGE_SIDE * IMAGE_SIDE;
    let held_out = match config.data.evaluation() {
        Evaluation::Test => None,
        Evaluation::Validation => files.train_labels.len().checked_sub(VALIDATION_EXAMPLES),
    };
    let test = match held_out {
        None => split(&files.test_images, &files.test_labels),
        Some(first) => split(&files.train_images[first * features..], &files.train_labels[first..]),
    };
    let count = config.training_examples().min(held_out.unwrap_or(files.train_labels.len()));
    let train = split(&files.train_images[..count * features], &files.train_labels[..count]);
    let dataset = Dataset {
        sha256: Some(set.sha256),
        features,
        image: Some([1, IMAGE_SIDE, IMAGE_SIDE]),
        classes: CLASSES,
        judged_answers: 1,
        train,
        test,
        task: None,
    };
    normalize(dataset, config.data.normalization(), LARGEST_PIXEL)
}

fn split(images: &[u8], labels: &[u8]) -> Split {
    let inputs = images.iter().copied().map(f32::from).collect();
    Split { inputs, answers: Answers::Classes { codes: labels.to_owned(), each: 1 } }
}
