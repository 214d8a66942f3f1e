//! The directory of an experiment: one directory a run.

use std::fs::{self, File, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::error::StoreError;
use super::manifest::{Manifest, ManifestVersion, RowCounts};
use crate::schema::{
    ActivationRow, GateRow, GradientCoverage, GradientRow, LinkRow, PhaseRow, PretrainingRow, RowSink, RunRows,
    SCHEMA_VERSION, StepRow, ThroughputRow, UnitRow,
};

const MANIFEST: &str = "manifest.json";
const NETWORK: &str = "network.safetensors";
const LOCK: &str = ".lock";
const TEMPORARY_PREFIX: &str = ".tmp-";
const REPLACED_PREFIX: &str = ".old-";

/// What to do about a file that gradmark did not leave so.
const REMOVE_RUN: &str = "remove the directory that it is in and run the experiment again";

/// The results of an experiment, open for writing by this process alone.
#[derive(Debug)]
pub struct ExperimentStore {
    dir: PathBuf,
    _lock: File,
}

/// A run that was read back.
#[derive(Clone, Debug)]
pub struct RunRecord {
    /// Its manifest.
    pub manifest: Manifest,
    /// Its rows.
    pub rows: RunRows,
}

impl ExperimentStore {
    /// Opens `<out>/<experiment>` and makes it if it is not there; removes what killed runs have left.
    ///
    /// # Errors
    ///
    /// If it cannot be written, if another process writes it, or if it holds runs of another schema version.
    pub fn open(out: &Path, experiment: &str) -> Result<Self, StoreError> {
        let dir = out.join(experiment);
        let mend = "name a directory that you can write with --out";
        let failed = |what: &str, error: io::Error| match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => StoreError::write(&dir)(error),
            _ => StoreError::unusable(&dir, format!("cannot be {what}: {error}"), mend),
        };
        fs::create_dir_all(&dir).map_err(|error| failed("made", error))?;
        let Some(lock) = lock(&dir).map_err(|error| failed("written", error))? else {
            return Err(StoreError::unusable(
                &dir,
                "another gradmark is writing there",
                "wait for it, or name another directory with --out",
            ));
        };
        remove_leftovers(&dir)?;
        for run in run_directories(&dir)? {
            check_version(&run)?;
        }
        Ok(Self { dir, _lock: lock })
    }

    /// The directory of the experiment.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Whether a run is there, complete or diverged.
    pub fn has(&self, run_id: &str) -> bool {
        is_run(&self.dir, run_id)
    }

    /// Starts the files of a run under a temporary name.
    ///
    /// # Errors
    ///
    /// If the directory cannot be made.
    pub fn begin(&self, run_id: &str) -> Result<PendingRun, StoreError> {
        let temporary = self.dir.join(format!("{TEMPORARY_PREFIX}{run_id}"));
        fs::create_dir(&temporary).map_err(StoreError::write(&temporary))?;
        Ok(PendingRun {
            target: self.dir.join(run_id),
            replaced: self.dir.join(format!("{REPLACED_PREFIX}{run_id}")),
            gradients: Table::new(&temporary, "gradients.csv"),
            activations: Table::new(&temporary, "activations.csv"),
            no_prediction: None,
            units: Table::new(&temporary, "units.csv"),
            gates: Table::new(&temporary, "gates.csv"),
            links: Table::new(&temporary, "chain.csv"),
            steps: Table::new(&temporary, "steps.csv"),
            pretraining: Table::new(&temporary, "pretraining.csv"),
            phases: Table::new(&temporary, "phases.csv"),
            throughput: Table::new(&temporary, "throughput.csv"),
            coverage: None,
            temporary,
        })
    }
}

/// Locks a directory for this process, as long as the file is open; `None` if another process has it.
pub(super) fn lock(dir: &Path) -> io::Result<Option<File>> {
    let lock = File::create(dir.join(LOCK))?;
    match lock.try_lock() {
        // Some network file systems have no locks: then nothing guards against a second writer.
        Ok(()) | Err(TryLockError::Error(_)) => Ok(Some(lock)),
        Err(TryLockError::WouldBlock) => Ok(None),
    }
}

/// Whether a run is there, as [`ExperimentStore::has`], without opening anything.
pub fn has_run(out: &Path, experiment: &str, run_id: &str) -> bool {
    is_run(&out.join(experiment), run_id)
}

fn is_run(dir: &Path, run_id: &str) -> bool {
    dir.join(run_id).join(MANIFEST).is_file()
}

/// The files of a run that is not complete. Dropped, it leaves nothing.
#[derive(Debug)]
pub struct PendingRun {
    temporary: PathBuf,
    target: PathBuf,
    replaced: PathBuf,
    gradients: Table,
    activations: Table,
    no_prediction: Option<String>,
    units: Table,
    gates: Table,
    links: Table,
    steps: Table,
    pretraining: Table,
    phases: Table,
    throughput: Table,
    coverage: Option<GradientCoverage>,
}

impl PendingRun {
    /// Writes the manifest and gives the run its final name. An earlier run of that name is replaced.
    ///
    /// # Errors
    ///
    /// If something cannot be written; then nothing stands under the final name that did not stand there before.
    pub fn commit(self, manifest: &Manifest) -> Result<(), StoreError> {
        let Self { gradients, activations, units, gates, links, steps, pretraining, phases, throughput, .. } = &self;
        for table in [gradients, activations, units, gates, links, steps, pretraining, phases, throughput] {
            table.close().map_err(StoreError::write(&table.path))?;
        }
        let path = self.temporary.join(MANIFEST);
        let write = || -> io::Result<()> {
            let mut text = serde_json::to_string_pretty(manifest)?;
            text.push('\n');
            fs::write(&path, text)?;
            File::open(&path)?.sync_all()
        };
        write().map_err(StoreError::write(&path))?;
        if self.target.exists() {
            fs::rename(&self.target, &self.replaced).map_err(StoreError::write(&self.target))?;
        }
        if let Err(error) = fs::rename(&self.temporary, &self.target) {
            // What stood there before comes back; if even that fails, the next run brings it back.
            let _ = fs::rename(&self.replaced, &self.target);
            return Err(StoreError::write(&self.target)(error));
        }
        if self.replaced.exists() {
            fs::remove_dir_all(&self.replaced).map_err(StoreError::write(&self.replaced))?;
        }
        Ok(())
    }

    /// The rows that were written so far.
    pub fn row_counts(&self) -> RowCounts {
        RowCounts {
            gradients: self.gradients.rows,
            activations: self.activations.rows,
            units: self.units.rows,
            gates: self.gates.rows,
            links: self.links.rows,
            steps: self.steps.rows,
            pretraining: self.pretraining.rows,
            phases: self.phases.rows,
            throughput: self.throughput.rows,
        }
    }

    /// Why deltas are not predicted, if there is a reason.
    pub fn no_prediction(&self) -> Option<&str> {
        self.no_prediction.as_deref()
    }

    /// Which parameters have a gradient at the first step, if there was one.
    pub fn gradient_coverage(&self) -> Option<&GradientCoverage> {
        self.coverage.as_ref()
    }

    /// The directory that the files are in until they are complete.
    pub fn temporary_dir(&self) -> &Path {
        &self.temporary
    }
}

impl Drop for PendingRun {
    fn drop(&mut self) {
        if self.temporary.exists() {
            // There is nobody left to tell; the next run removes it again.
            let _ = fs::remove_dir_all(&self.temporary);
        }
    }
}

impl RowSink for PendingRun {
    fn gradients(&mut self, rows: Vec<GradientRow>) -> io::Result<()> {
        self.gradients.write(&rows)
    }
    fn activations(&mut self, rows: Vec<ActivationRow>) -> io::Result<()> {
        self.activations.write(&rows)
    }
    fn no_prediction(&mut self, reason: String) {
        self.no_prediction = Some(reason);
    }
    fn units(&mut self, rows: Vec<UnitRow>) -> io::Result<()> {
        self.units.write(&rows)
    }
    fn gates(&mut self, rows: Vec<GateRow>) -> io::Result<()> {
        self.gates.write(&rows)
    }
    fn links(&mut self, rows: Vec<LinkRow>) -> io::Result<()> {
        self.links.write(&rows)
    }
    fn steps(&mut self, rows: Vec<StepRow>) -> io::Result<()> {
        self.steps.write(&rows)
    }
    fn pretraining(&mut self, rows: Vec<PretrainingRow>) -> io::Result<()> {
        self.pretraining.write(&rows)
    }
    fn phases(&mut self, rows: Vec<PhaseRow>) -> io::Result<()> {
        self.phases.write(&rows)
    }
    fn network(&mut self, safetensors: Vec<u8>) -> io::Result<()> {
        write_synced(&self.temporary.join(NETWORK), &safetensors)
    }
    fn tensors(&mut self, step: usize, safetensors: Vec<u8>) -> io::Result<()> {
        write_synced(&self.temporary.join(format!("tensors_step_{step}.safetensors")), &safetensors)
    }
    fn coverage(&mut self, coverage: GradientCoverage) {
        self.coverage = Some(coverage);
    }
    fn throughput(&mut self, rows: Vec<ThroughputRow>) -> io::Result<()> {
        self.throughput.write(&rows)
    }
}

/// Writes a file and waits until it is on the disk.
fn write_synced(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// A CSV file that is made with its first row. It is open only while it is written: runs that train together have more tables than
/// some systems let a process keep open.
#[derive(Debug)]
struct Table {
    path: PathBuf,
    rows: usize,
}

impl Table {
    fn new(dir: &Path, name: &str) -> Self {
        Self { path: dir.join(name), rows: 0 }
    }

    fn write<R: Serialize>(&mut self, rows: &[R]) -> io::Result<()> {
        if rows.is_empty() {
            return Ok(());
        }
        let mut writer = csv::WriterBuilder::new().has_headers(self.rows == 0).from_writer(self.open()?);
        for row in rows {
            writer.serialize(row).map_err(io::Error::from)?;
        }
        writer.flush()?;
        self.rows += rows.len();
        Ok(())
    }

    /// Waits until it is on the disk.
    fn close(&self) -> io::Result<()> {
        if self.rows > 0 { self.open()?.sync_all() } else { Ok(()) }
    }

    fn open(&self) -> io::Result<File> {
        File::options().create(true).append(true).open(&self.path)
    }
}

/// Reads every run of an experiment's directory, in the order of their ids.
///
/// # Errors
///
/// If the directory or a file in it cannot be read, is not what gradmark writes, or is of another schema version.
pub fn load_experiment(dir: &Path) -> Result<Vec<RunRecord>, StoreError> {
    let runs = run_directories(dir)?;
    runs.iter().map(|run| load_run(run)).collect()
}

fn load_run(run: &Path) -> Result<RunRecord, StoreError> {
    check_version(run)?;
    let path = run.join(MANIFEST);
    let manifest: Manifest = read_json(&path)?;
    let rows = RunRows {
        gradients: read_table(&run.join("gradients.csv"))?,
        activations: read_table(&run.join("activations.csv"))?,
        no_prediction: manifest.no_prediction.clone(),
        units: read_table(&run.join("units.csv"))?,
        gates: read_table(&run.join("gates.csv"))?,
        links: read_table(&run.join("chain.csv"))?,
        steps: read_table(&run.join("steps.csv"))?,
        pretraining: read_table(&run.join("pretraining.csv"))?,
        phases: read_table(&run.join("phases.csv"))?,
        throughput: read_table(&run.join("throughput.csv"))?,
        network: None,
        tensors: Vec::new(),
        coverage: None,
    };
    check_counts(run, &manifest, &rows)?;
    Ok(RunRecord { manifest, rows })
}

/// A table that is absent or cut off at the end of a line is noticed by its number of rows.
fn check_counts(run: &Path, manifest: &Manifest, rows: &RunRows) -> Result<(), StoreError> {
    let written = &manifest.rows;
    for (name, written, found) in [
        ("gradients.csv", written.gradients, rows.gradients.len()),
        ("activations.csv", written.activations, rows.activations.len()),
        ("units.csv", written.units, rows.units.len()),
        ("gates.csv", written.gates, rows.gates.len()),
        ("chain.csv", written.links, rows.links.len()),
        ("steps.csv", written.steps, rows.steps.len()),
        ("pretraining.csv", written.pretraining, rows.pretraining.len()),
        ("phases.csv", written.phases, rows.phases.len()),
        ("throughput.csv", written.throughput, rows.throughput.len()),
    ] {
        if written != found {
            let problem = format!("has {found} rows, and {written} were written");
            return Err(StoreError::unusable(&run.join(name), problem, REMOVE_RUN));
        }
    }
    Ok(())
}

fn read_table<R: DeserializeOwned + Serialize>(path: &Path) -> Result<Vec<R>, StoreError> {
    if !path.exists() {
        return Ok(Vec::new());
    }
    let damaged = |error: csv::Error| {
        StoreError::unusable(path, format!("is not a table that gradmark wrote: {error}"), REMOVE_RUN)
    };
    let mut reader = csv::Reader::from_path(path).map_err(damaged)?;
    let found = reader.headers().map_err(damaged)?.clone();
    let rows: Vec<R> = reader.deserialize().collect::<Result<_, _>>().map_err(damaged)?;
    // A column that is missing would read as values that are missing.
    let expected = rows.first().map(columns).transpose().map_err(damaged)?;
    match expected {
        Some(expected) if found != expected => Err(StoreError::unusable(
            path,
            format!("has other columns than this schema version: {}", found.iter().collect::<Vec<_>>().join(",")),
            REMOVE_RUN,
        )),
        _ => Ok(rows),
    }
}

/// The columns of a row's table.
fn columns<R: Serialize>(row: &R) -> Result<csv::StringRecord, csv::Error> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer.serialize(row)?;
    let bytes = writer.into_inner().map_err(|error| io::Error::from(error.error().kind()))?;
    csv::Reader::from_reader(&bytes[..]).headers().cloned()
}

fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T, StoreError> {
    let damaged = |error: String| {
        StoreError::unusable(path, format!("is not a manifest that gradmark wrote: {error}"), REMOVE_RUN)
    };
    let text = fs::read_to_string(path).map_err(|error| damaged(error.to_string()))?;
    serde_json::from_str(&text).map_err(|error| damaged(error.to_string()))
}

fn check_version(run: &Path) -> Result<(), StoreError> {
    let path = run.join(MANIFEST);
    let version = read_json::<ManifestVersion>(&path)?.schema_version;
    if version == SCHEMA_VERSION {
        return Ok(());
    }
    Err(StoreError::unusable(
        &path,
        format!("has schema version {version}, and this gradmark writes and reads version {SCHEMA_VERSION}"),
        "name another directory with --out, or move these results away",
    ))
}

/// The directories of complete runs, sorted.
fn run_directories(dir: &Path) -> Result<Vec<PathBuf>, StoreError> {
    let unreadable = |error: io::Error| {
        StoreError::unusable(
            dir,
            format!("cannot be read: {error}"),
            "name the directory of an experiment, such as results/sigmoid_vs_relu",
        )
    };
    let mut runs = Vec::new();
    for entry in fs::read_dir(dir).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        let hidden = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
        if !hidden && path.join(MANIFEST).is_file() {
            runs.push(path);
        }
    }
    runs.sort();
    Ok(runs)
}

fn remove_leftovers(dir: &Path) -> Result<(), StoreError> {
    let mend = "remove it by hand";
    let entries = fs::read_dir(dir).map_err(|error| StoreError::unusable(dir, error.to_string(), mend))?;
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if let Some(run_id) = name.strip_prefix(REPLACED_PREFIX)
            && entry.path().join(MANIFEST).is_file()
            && !dir.join(run_id).exists()
        {
            // Killed between the two renames of a replacement: the earlier run is whole and comes back.
            fs::rename(entry.path(), dir.join(run_id))
                .map_err(|error| StoreError::unusable(&entry.path(), error.to_string(), mend))?;
        } else if name.starts_with(TEMPORARY_PREFIX) || name.starts_with(REPLACED_PREFIX) {
            let path = entry.path();
            let removed = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
            removed.map_err(|error| StoreError::unusable(&path, error.to_string(), mend))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::{Gate, StepPhase};

    fn header<R: Serialize>(row: &R) -> String {
        let mut writer = csv::Writer::from_writer(Vec::new());
        writer.serialize(row).expect("serializes");
        let text = String::from_utf8(writer.into_inner().expect("flushes")).expect("UTF-8");
        text.lines().next().unwrap_or_default().to_owned()
    }

    fn step_row() -> StepRow {
        StepRow {
            run_id: "r".to_owned(),
            step: 1,
            epoch: 0,
            phase: StepPhase::TestSplit,
            loss: Some(2.5e-7),
            penalty: None,
            accuracy: None,
            reconstruction_error: None,
            learning_rate: None,
            grad_l2_before_clip: None,
            grad_l2_after_clip: None,
            clip_coefficient: None,
            clipped_fraction: None,
        }
    }

    #[test]
    fn the_columns_are_those_of_schema_version_5() {
        assert_eq!(SCHEMA_VERSION, 5);
        assert_eq!(
            header(&step_row()),
            "run_id,step,epoch,phase,loss,penalty,accuracy,reconstruction_error,learning_rate,grad_l2_before_clip,grad_l2_after_clip,clip_coefficient,clipped_fraction"
        );
        let gradient = GradientRow::default();
        assert_eq!(
            header(&gradient),
            "run_id,step,layer_index,layer,parameter,time_step,element_count,grad_l2,grad_rms,grad_max_abs,zero_count,nonfinite_count,weight_l2,update_l2,update_ratio"
        );
        let activation = ActivationRow::default();
        assert_eq!(
            header(&activation),
            "run_id,step,layer_index,layer,time_step,delta_l2,delta_l2_predicted,mean_delta_l2,input_grad_l2,activation_mean,activation_std,saturated_fraction,dead_fraction,hidden_grad_l2,cell_grad_l2"
        );
        let unit =
            UnitRow { run_id: String::new(), step: 0, layer_index: 0, layer: String::new(), unit: 0, mean_delta: None };
        assert_eq!(header(&unit), "run_id,step,layer_index,layer,unit,mean_delta");
        let gate = GateRow::default();
        assert_eq!(header(&gate), "run_id,step,layer_index,layer,gate,time_step,mean,low_fraction,high_fraction");
        let link = LinkRow { product: Some(0.0), ..LinkRow::default() };
        assert_eq!(
            header(&link),
            "run_id,link,weight,bias,pre_activation,factor,product,factor_on_device,product_on_device"
        );
        let pretraining = PretrainingRow::default();
        assert_eq!(header(&pretraining), "run_id,layer_index,layer,epoch,loss,reconstruction_error");
        assert_eq!(header(&PhaseRow::default()), "run_id,phase,layer,epoch,step,elapsed_ms,total_ms");
        let throughput = ThroughputRow {
            run_id: String::new(),
            phase: crate::schema::ThroughputPhase::Steady,
            sample: 0,
            steps: 0,
            elapsed_ms: 0.0,
            steps_per_second: 0.0,
            examples_per_second: 0.0,
            flops_per_second: 0.0,
            probe: crate::schema::ProbeLoad::Off,
        };
        assert_eq!(
            header(&throughput),
            "run_id,phase,sample,steps,elapsed_ms,steps_per_second,examples_per_second,flops_per_second,probe"
        );
    }

    #[test]
    fn a_missing_value_is_an_empty_field_and_reads_back_as_missing() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let mut table = Table::new(dir.path(), "steps.csv");
        table.write(&[step_row()]).expect("writes");
        table.close().expect("closes");
        let text = fs::read_to_string(&table.path).expect("reads");
        assert_eq!(text.lines().nth(1), Some("r,1,0,test_split,2.5e-7,,,,,,,,"));
        assert_eq!(read_table::<StepRow>(&table.path).expect("parses"), [step_row()]);
    }

    #[test]
    fn a_gate_is_written_by_its_name_and_reads_back() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let mut table = Table::new(dir.path(), "gates.csv");
        let gates = [Gate::Input, Gate::Forget, Gate::Output, Gate::Reset, Gate::Update];
        let rows = gates.map(|gate| GateRow { gate, time_step: 1, mean: Some(0.5), ..GateRow::default() });
        table.write(&rows).expect("writes");
        table.close().expect("closes");
        let text = fs::read_to_string(&table.path).expect("reads");
        let names: Vec<&str> = text.lines().skip(1).filter_map(|line| line.split(',').nth(4)).collect();
        assert_eq!(names, ["input", "forget", "output", "reset", "update"]);
        assert_eq!(read_table::<GateRow>(&table.path).expect("parses"), rows);
    }

    #[test]
    fn a_full_device_is_an_error_and_not_a_short_file() {
        if !cfg!(target_os = "linux") {
            return;
        }
        let mut table = Table::new(Path::new("/dev"), "full");
        let outcome = table.write(&[step_row()]).and_then(|()| table.close());
        assert_eq!(outcome.map_err(|error| error.kind()), Err(io::ErrorKind::StorageFull));
    }

    #[test]
    fn a_dropped_run_leaves_nothing_and_a_killed_one_is_removed_by_the_next_process() {
        let out = tempfile::tempdir().expect("temporary directory");
        let store = ExperimentStore::open(out.path(), "e").expect("opens");
        drop(store.begin("0123").expect("begins"));
        let killed = store.begin("4567").expect("begins");
        let left = killed.temporary_dir().to_owned();
        std::mem::forget(killed);
        drop(store);
        assert!(left.exists());
        let store = ExperimentStore::open(out.path(), "e").expect("opens again");
        assert!(!left.exists() && !store.has("0123") && !store.has("4567"));
    }

    #[test]
    fn two_processes_cannot_write_the_same_experiment() {
        let out = tempfile::tempdir().expect("temporary directory");
        let _first = ExperimentStore::open(out.path(), "e").expect("opens");
        let error = ExperimentStore::open(out.path(), "e").expect_err("locked");
        assert!(error.to_string().contains("another gradmark"), "{error}");
    }
}
