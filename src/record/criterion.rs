//! What criterion leaves of a benchmark in `target/criterion`: its id, its samples and its estimates.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::error::StoreError;
use crate::analysis::Estimate;

/// What to do about a file that criterion did not leave so.
const RUN_AGAIN: &str = "run the benchmark again";
/// What to do about a directory without benchmarks.
const NAME_ONE: &str = "name a directory of criterion, such as target/criterion, in which cargo bench has left results";

/// A benchmark as criterion measured it last.
#[derive(Clone, Debug, PartialEq)]
pub struct CriterionBenchmark {
    /// Group, function and value, joined by `/`: what tells it from the others.
    pub id: String,
    /// The group.
    pub group: String,
    /// The function, if it has a name of its own.
    pub function: Option<String>,
    /// The value of its parameter, if it has one.
    pub value: Option<String>,
    /// The directory of its report.
    pub directory: PathBuf,
    /// What an iteration processes, if the benchmark says so: a number and its unit (`elements`, `bytes` or `bits`).
    pub throughput: Vec<(u64, &'static str)>,
    /// The iterations of each sample, at least 1.
    pub iterations: Vec<u64>,
    /// The time of all iterations of each sample, in nanoseconds.
    pub sample_times_ns: Vec<f64>,
    /// The mean time of an iteration in nanoseconds, with criterion's interval.
    pub mean_ns: Estimate,
    /// The median, likewise.
    pub median_ns: Estimate,
    /// The median absolute deviation, likewise.
    pub median_abs_dev_ns: Estimate,
    /// The slope of the times over the iterations, likewise; `None` if all samples have equally many.
    pub slope_ns: Option<Estimate>,
}

impl CriterionBenchmark {
    /// The time of an iteration in each sample, in nanoseconds.
    pub fn iteration_times_ns(&self) -> Vec<f64> {
        self.sample_times_ns.iter().zip(&self.iterations).map(|(time, iterations)| time / *iterations as f64).collect()
    }

    /// The estimate that criterion prints: the slope, or the mean where there is none.
    pub fn typical_ns(&self) -> Estimate {
        self.slope_ns.unwrap_or(self.mean_ns)
    }
}

/// Reads the latest measurement of every benchmark below a directory of criterion, such as `target/criterion`, in the
/// order of their ids, numbers in them by their size.
///
/// # Errors
///
/// If the directory or a file in it cannot be read, if there is no benchmark, or if a file is not what criterion
/// writes.
pub fn load_criterion(dir: &Path) -> Result<Vec<CriterionBenchmark>, StoreError> {
    let mut found = Vec::new();
    collect(dir, &mut found)?;
    if found.is_empty() {
        return Err(StoreError::unusable(dir, "there is no new/benchmark.json below it", NAME_ONE));
    }
    let mut benchmarks = found.iter().map(|directory| load(directory)).collect::<Result<Vec<_>, _>>()?;
    benchmarks.sort_by_cached_key(|benchmark| natural(&benchmark.id));
    Ok(benchmarks)
}

/// Every directory at or below `dir` with a `new/benchmark.json`.
fn collect(dir: &Path, found: &mut Vec<PathBuf>) -> Result<(), StoreError> {
    let unreadable = |error: io::Error| StoreError::unusable(dir, format!("cannot be read: {error}"), NAME_ONE);
    if dir.join("new/benchmark.json").is_file() {
        found.push(dir.to_owned());
    }
    for entry in fs::read_dir(dir).map_err(unreadable)? {
        let entry = entry.map_err(unreadable)?;
        // Not through links, which may lead back.
        if entry.file_type().map_err(unreadable)?.is_dir() && entry.file_name() != "report" {
            collect(&entry.path(), found)?;
        }
    }
    Ok(())
}

/// `benchmark.json`
#[derive(Deserialize)]
struct SavedId {
    group_id: String,
    function_id: Option<String>,
    value_str: Option<String>,
    throughput: Option<SavedThroughput>,
    full_id: String,
}

/// The throughput in `benchmark.json`.
#[derive(Deserialize)]
enum SavedThroughput {
    Bits(u64),
    Bytes(u64),
    BytesDecimal(u64),
    Elements(u64),
    ElementsAndBytes { elements: u64, bytes: u64 },
}

impl SavedThroughput {
    fn per_iteration(&self) -> Vec<(u64, &'static str)> {
        match self {
            Self::Bits(bits) => vec![(*bits, "bits")],
            Self::Bytes(bytes) | Self::BytesDecimal(bytes) => vec![(*bytes, "bytes")],
            Self::Elements(elements) => vec![(*elements, "elements")],
            Self::ElementsAndBytes { elements, bytes } => vec![(*elements, "elements"), (*bytes, "bytes")],
        }
    }
}

/// `sample.json`
#[derive(Deserialize)]
struct SavedSample {
    iters: Vec<f64>,
    times: Vec<f64>,
}

/// `estimates.json`
#[derive(Deserialize)]
struct SavedEstimates {
    mean: SavedEstimate,
    median: SavedEstimate,
    median_abs_dev: SavedEstimate,
    slope: Option<SavedEstimate>,
}

#[derive(Deserialize)]
struct SavedEstimate {
    point_estimate: f64,
    confidence_interval: SavedInterval,
}

#[derive(Deserialize)]
struct SavedInterval {
    lower_bound: f64,
    upper_bound: f64,
}

impl From<&SavedEstimate> for Estimate {
    fn from(saved: &SavedEstimate) -> Self {
        let SavedInterval { lower_bound, upper_bound } = saved.confidence_interval;
        Self { value: saved.point_estimate, interval: Some((lower_bound, upper_bound)) }
    }
}

fn load(directory: &Path) -> Result<CriterionBenchmark, StoreError> {
    let new = directory.join("new");
    let id: SavedId = read(&new.join("benchmark.json"))?;
    let sample: SavedSample = read(&new.join("sample.json"))?;
    let estimates: SavedEstimates = read(&new.join("estimates.json"))?;
    check_sample(&sample).map_err(|problem| StoreError::unusable(&new.join("sample.json"), problem, RUN_AGAIN))?;
    Ok(CriterionBenchmark {
        id: id.full_id,
        group: id.group_id,
        function: id.function_id,
        value: id.value_str,
        directory: directory.to_owned(),
        throughput: id.throughput.map(|throughput| throughput.per_iteration()).unwrap_or_default(),
        iterations: sample.iters.iter().map(|count| *count as u64).collect(),
        sample_times_ns: sample.times,
        mean_ns: (&estimates.mean).into(),
        median_ns: (&estimates.median).into(),
        median_abs_dev_ns: (&estimates.median_abs_dev).into(),
        slope_ns: estimates.slope.as_ref().map(Estimate::from),
    })
}

/// What is wrong with the samples of a benchmark.
fn check_sample(sample: &SavedSample) -> Result<(), String> {
    let SavedSample { iters, times } = sample;
    if iters.is_empty() || iters.len() != times.len() {
        return Err(format!("has {} numbers of iterations and {} times", iters.len(), times.len()));
    }
    if let Some(count) = iters.iter().find(|count| **count < 1.0 || !count.is_finite()) {
        return Err(format!("`iters` must be at least 1, got {count}"));
    }
    if let Some(time) = times.iter().find(|time| **time < 0.0 || !time.is_finite()) {
        return Err(format!("`times` must be at least 0, got {time}"));
    }
    Ok(())
}

fn read<T: DeserializeOwned>(path: &Path) -> Result<T, StoreError> {
    let text = fs::read_to_string(path)
        .map_err(|error| StoreError::unusable(path, format!("cannot be read: {error}"), RUN_AGAIN))?;
    serde_json::from_str(&text)
        .map_err(|error| StoreError::unusable(path, format!("is not what criterion writes: {error}"), RUN_AGAIN))
}

/// A key that sorts numbers in a text by their size: `20x64` before `100x64`.
fn natural(text: &str) -> Vec<(u64, String)> {
    let mut parts = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let end = rest.find(|char: char| char.is_ascii_digit()).unwrap_or(rest.len());
        let (words, digits) = rest.split_at(end);
        let end = digits.find(|char: char| !char.is_ascii_digit()).unwrap_or(digits.len());
        let (number, behind) = digits.split_at(end);
        // The words before a number come first: a key of (0, words), then one of (number, "").
        parts.push((0, words.to_owned()));
        parts.push((number.parse().unwrap_or(u64::MAX), number.to_owned()));
        rest = behind;
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    const ESTIMATES: &str = r#"{
        "mean": {"confidence_interval": {"confidence_level": 0.95, "lower_bound": 9.0, "upper_bound": 12.0},
                 "point_estimate": 10.5, "standard_error": 0.7},
        "median": {"confidence_interval": {"confidence_level": 0.95, "lower_bound": 9.5, "upper_bound": 11.0},
                   "point_estimate": 10.0, "standard_error": 0.4},
        "median_abs_dev": {"confidence_interval": {"confidence_level": 0.95, "lower_bound": 0.1, "upper_bound": 0.3},
                           "point_estimate": 0.2, "standard_error": 0.1},
        "slope": SLOPE,
        "std_dev": {"confidence_interval": {"confidence_level": 0.95, "lower_bound": 0.1, "upper_bound": 0.3},
                    "point_estimate": 0.2, "standard_error": 0.1}
    }"#;
    const SLOPE: &str = r#"{"confidence_interval": {"confidence_level": 0.95, "lower_bound": 9.8, "upper_bound": 10.4},
                            "point_estimate": 10.1, "standard_error": 0.1}"#;
    const SAMPLE: &str = r#"{"sampling_mode": "Linear", "iters": [1.0, 2.0], "times": [10.0, 22.0]}"#;

    /// The files of a benchmark, as criterion 0.8 writes them.
    fn save(dir: &Path, function: &str, slope: &str, sample: &str) -> PathBuf {
        let new = dir.join("step").join(function.replace('/', "_")).join("new");
        fs::create_dir_all(&new).expect("makes");
        let id = format!(
            r#"{{"group_id": "step", "function_id": "{function}", "value_str": null, "throughput": {{"Elements": 640}},
                 "full_id": "step/{function}", "directory_name": "step/x", "title": "step/{function}"}}"#
        );
        fs::write(new.join("benchmark.json"), id).expect("writes");
        fs::write(new.join("estimates.json"), ESTIMATES.replace("SLOPE", slope)).expect("writes");
        fs::write(new.join("sample.json"), sample).expect("writes");
        new
    }

    fn error(dir: &Path) -> String {
        load_criterion(dir).expect_err("unusable").to_string()
    }

    #[test]
    fn a_benchmark_has_its_id_its_samples_and_its_estimates() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        save(dir.path(), "relu/20x128", SLOPE, SAMPLE);
        let benchmark = load_criterion(dir.path()).expect("reads").remove(0);
        assert_eq!((&*benchmark.id, &*benchmark.group), ("step/relu/20x128", "step"));
        assert_eq!((benchmark.function.as_deref(), &benchmark.value), (Some("relu/20x128"), &None));
        assert_eq!(benchmark.throughput, [(640, "elements")]);
        assert_eq!(benchmark.iterations, [1, 2]);
        assert_eq!(benchmark.iteration_times_ns(), [10.0, 11.0]);
        assert_eq!(benchmark.median_ns, Estimate { value: 10.0, interval: Some((9.5, 11.0)) });
        assert_eq!(benchmark.typical_ns().value, 10.1);
    }

    #[test]
    fn without_a_slope_the_mean_is_typical() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        save(dir.path(), "relu", "null", SAMPLE);
        let benchmark = load_criterion(dir.path()).expect("reads").remove(0);
        assert_eq!((benchmark.slope_ns, benchmark.typical_ns().value), (None, 10.5));
    }

    #[test]
    fn benchmarks_are_in_the_order_of_their_ids_with_numbers_by_size_and_reports_are_none() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        for function in ["relu/100x64", "relu/20x128", "elu/3"] {
            save(dir.path(), function, SLOPE, SAMPLE);
        }
        fs::create_dir_all(dir.path().join("report")).expect("makes");
        let ids: Vec<String> =
            load_criterion(dir.path()).expect("reads").into_iter().map(|benchmark| benchmark.id).collect();
        assert_eq!(ids, ["step/elu/3", "step/relu/20x128", "step/relu/100x64"]);
    }

    #[test]
    fn what_criterion_did_not_write_is_named_with_its_file_and_what_to_do() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let text = error(dir.path());
        assert!(text.contains("there is no new/benchmark.json below it") && text.contains("cargo bench"), "{text}");
        assert!(error(&dir.path().join("absent")).contains("cannot be read"));
        for (sample, problem) in [
            ("{\"iters\": [1.0], \"times\": [", "sample.json: is not what criterion writes"),
            ("{\"iters\": [1.0, 2.0], \"times\": [10.0]}", "has 2 numbers of iterations and 1 times"),
            ("{\"iters\": [0.0], \"times\": [10.0]}", "`iters` must be at least 1, got 0"),
            ("{\"iters\": [1.0], \"times\": [-1.0]}", "`times` must be at least 0, got -1"),
        ] {
            save(dir.path(), "relu", SLOPE, sample);
            let text = error(dir.path());
            assert!(text.contains(problem) && text.ends_with("; run the benchmark again"), "{text}");
        }
        let new = save(dir.path(), "relu", SLOPE, SAMPLE);
        fs::remove_file(new.join("estimates.json")).expect("removes");
        assert!(error(dir.path()).contains("estimates.json: cannot be read"), "{}", error(dir.path()));
    }
}
