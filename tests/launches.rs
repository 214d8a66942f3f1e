//! How many kernels a step launches on a GPU: what a probe and a recurrent layer cost there, told without a clock.

#![cfg(feature = "wgpu")]

use std::fs;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use gradmark::config::{
    Activation, BatchSize, Cell, DataConfig, DataSet, Implementation, Kernels, Loss, NetworkConfig, NetworkKind, Norm,
    ProbeConfig, RunConfig, ThroughputConfig, TrainingConfig, TrainingLength, WeightInit,
};
use gradmark::data::Sources;
use gradmark::device::{self, Device};
use gradmark::train::Workload;

const DEPTH: usize = 6;
const TIME_STEPS: usize = 12;

/// CubeCL writes a line for every launch.
const LOG: &str = "launches.log";

fn launches() -> usize {
    let log = fs::read_to_string(LOG).unwrap_or_default();
    log.lines().filter(|line| line.contains("Executing")).count()
}

fn config(data: DataConfig, network: NetworkConfig) -> RunConfig {
    RunConfig {
        data,
        network,
        training: TrainingConfig {
            batch_size: Some(BatchSize::Examples(16)),
            ..TrainingConfig::sgd(1e-4, TrainingLength::Steps(1))
        },
        probe: ProbeConfig::default(),
        throughput: ThroughputConfig::default(),
    }
}

fn plain(norm: Norm, kernels: Kernels) -> RunConfig {
    let network = NetworkConfig::plain(DEPTH, 16, Activation::Relu, WeightInit::He);
    config(DataConfig::default(), NetworkConfig { norm, kernels: Some(kernels), ..network })
}

fn lstm(kernels: Kernels) -> RunConfig {
    let data = DataConfig {
        set: DataSet::Gaussian,
        features: Some(4),
        sequence_length: Some(TIME_STEPS),
        ..DataConfig::default()
    };
    let network = NetworkConfig {
        kind: NetworkKind::Recurrent,
        cell: Some(Cell::Lstm),
        implementation: Some(Implementation::Own),
        kernels: Some(kernels),
        ..NetworkConfig::plain(1, 16, Activation::Tanh, WeightInit::Xavier)
    };
    let mut config = config(data, network);
    config.training.loss = Loss::LinearProbe;
    config
}

/// The launches of a step without the probe, with parameters and with everything, when all kernels are tuned.
fn counted(config: &RunConfig, device: &Device) -> [f64; 3] {
    let data = Sources::default().load(config, 1).expect("embedded or drawn");
    let workload = Workload::new(config, 1, &data, device);
    let parameters = ProbeConfig { activations: false, ..ProbeConfig::default() };
    [None, Some(parameters), Some(ProbeConfig::default())].map(|quantities| {
        let mut batches = workload.batches();
        let mut run = |steps: usize| {
            let before = launches();
            let (is_on, quantities) = (quantities.is_some(), quantities.clone().unwrap_or_default());
            workload
                .time_steps(&mut batches, 0..steps, |_| is_on, &quantities, &AtomicBool::new(false))
                .expect("a device");
            launches() - before
        };
        run(3);
        // What a run launches beside its steps is in both.
        let (few, many) = (run(2), run(6));
        (many as f64 - few as f64) / 4.0
    })
}

/// There is one test, because the log is one of the whole process.
#[test]
fn the_probe_and_recurrent_layers_take_few_launches() {
    let folder = tempfile::tempdir().expect("a directory");
    std::env::set_current_dir(folder.path()).expect("it is there");
    let settings = format!("[profiling]\nlogger = {{ level = \"minimal\", file = \"{LOG}\", append = false }}\n");
    fs::write("cubecl.toml", settings).expect("writable");
    let found = device::find("wgpu".parse().expect("a name"));
    let device = match found.and_then(|adapter| device::open(&adapter)) {
        Ok(device) => device,
        Err(error) if std::env::var_os("GRADMARK_REQUIRE_ADAPTER").is_none() => {
            return eprintln!("not tested: {error}");
        }
        Err(error) => panic!("GRADMARK_REQUIRE_ADAPTER is set, and {error}"),
    };
    let cases = [
        ("plain", plain(Norm::None, Kernels::Fused), plain(Norm::None, Kernels::Stock)),
        ("batch norm", plain(Norm::Batch, Kernels::Fused), plain(Norm::Batch, Kernels::Stock)),
        ("layer norm", plain(Norm::Layer, Kernels::Fused), plain(Norm::Layer, Kernels::Stock)),
        ("LSTM", lstm(Kernels::Fused), lstm(Kernels::Stock)),
    ];
    let counts = cases.map(|(name, fused, stock)| {
        let (fused, stock) = (counted(&fused, &device), counted(&stock, &device));
        eprintln!("{name}: {fused:?} launches a step (off, parameters, everything), stock kernels {stock:?}");
        (fused, stock)
    });
    assert!(Path::new(LOG).exists(), "CubeCL has written no log");
    let [plain, batch_norm, layer_norm, lstm] = counts;
    for ([off, parameters, everything], _) in [plain, batch_norm, layer_norm] {
        assert!(off > DEPTH as f64, "{off} launches of {DEPTH} layers were counted");
        // Five at most are the probe's: one launch has 24 gradients, or 12 parameters before and after an update, and a layer has up to
        // four parameters. What else Burn launches changes by a few with what it fuses.
        assert!(parameters - off <= 12.0, "parameters: {} launches", parameters - off);
        assert!(everything - off <= 16.0, "everything: {} launches", everything - off);
    }
    let per_layer = |counts: [f64; 3]| counts[0] / DEPTH as f64;
    // The cost, and a derivative with its bias gradient in every layer.
    assert!(per_layer(plain.1) - per_layer(plain.0) > 3.0, "plain: {plain:?}");
    // Beside those, two for each normalization in place of a dozen.
    for norm in [batch_norm, layer_norm] {
        assert!(per_layer(norm.0) - per_layer(plain.0) < 3.5, "normalization: {norm:?}");
        assert!(per_layer(norm.1) - per_layer(norm.0) > 7.0, "normalization: {norm:?}");
    }
    assert!(lstm.0[0] < 30.0, "a recurrent layer of any length: {lstm:?}");
    assert!(lstm.0[2] - lstm.0[0] < 20.0, "its states and gates: {lstm:?}");
    assert!(lstm.1[0] > 10.0 * TIME_STEPS as f64, "the single operations: {lstm:?}");
}
