//! What the benches share: the device of `GRADMARK_DEVICE`, and timing of whole steps.

use std::sync::atomic::AtomicBool;
use std::time::Duration;

use criterion::Bencher;
use gradmark::config::{
    BatchSize, DataConfig, Loss, NetworkConfig, ProbeConfig, RunConfig, ThroughputConfig, TrainingConfig,
    TrainingLength,
};
use gradmark::data::Sources;
use gradmark::device::{self, Adapter, Device};
use gradmark::train::Workload;

/// Opens the device that `GRADMARK_DEVICE` names (default: auto) and says which one it is.
pub fn open_device() -> (Device, Adapter) {
    let request = std::env::var("GRADMARK_DEVICE").unwrap_or_else(|_| "auto".to_owned());
    let opened = request.parse().and_then(device::find).and_then(|adapter| Ok((device::open(&adapter)?, adapter)));
    let (device, adapter) = opened.unwrap_or_else(|error| {
        eprintln!("GRADMARK_DEVICE={request}: {error}");
        std::process::exit(2)
    });
    eprintln!("device: {} ({}, {})", adapter.label(), adapter.name, adapter.kind);
    (device, adapter)
}

/// A network on a data set at batch 128. The loss is a linear probe where there is nothing to learn; a timed step has an
/// update all the same.
pub fn config(data: DataConfig, network: NetworkConfig) -> RunConfig {
    let training = if data.has_answers() {
        TrainingConfig::sgd(1e-4, TrainingLength::Steps(1))
    } else {
        TrainingConfig { loss: Loss::LinearProbe, ..TrainingConfig::sgd(1e-4, TrainingLength::Steps(0)) }
    };
    RunConfig {
        data,
        network,
        training: TrainingConfig { batch_size: Some(BatchSize::Examples(128)), ..training },
        probe: ProbeConfig::default(),
        throughput: ThroughputConfig::default(),
    }
}

/// A workload of seed 1.
pub fn workload(config: &RunConfig, device: &Device) -> Workload {
    Workload::new(config, 1, &Sources::default().load(config, 1).expect("no files"), device)
}

/// Times whole steps, the device synchronised before the first and after the last of a sample.
pub fn bench_steps(bencher: &mut Bencher<'_>, workload: &Workload, probe_every: usize, quantities: &ProbeConfig) {
    let mut batches = workload.batches();
    let never = AtomicBool::new(false);
    // Steps are counted on from sample to sample, so that every 16th is every 16th even in samples of a few steps.
    let mut first = 0;
    bencher.iter_custom(|steps| {
        let steps = first..first + steps as usize;
        first = steps.end;
        let measures = |step: usize| probe_every > 0 && step.is_multiple_of(probe_every);
        let elapsed_ms = workload.time_steps(&mut batches, steps, measures, quantities, &never);
        Duration::from_secs_f64(elapsed_ms.expect("the device works") / 1e3)
    });
}
