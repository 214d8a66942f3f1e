//! What the benches share: the device of `GRADMARK_DEVICE`, its peak, and timing of whole steps. No bench uses all of it.

#![allow(dead_code)]

use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use burn::tensor::{Distribution, Tensor};
use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Throughput};
use gradmark::config::{
    BatchSize, DataConfig, Loss, NetworkConfig, ProbeConfig, RunConfig, ThroughputConfig, TrainingConfig,
    TrainingLength,
};
use gradmark::data::Sources;
use gradmark::device::{self, Adapter, Device};
use gradmark::train::Workload;

/// Rows and columns of the matrices that give the peak, and how many products are made.
const PEAK_SIZE: usize = 1536;
const PEAK_TURNS: usize = 12;

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
    workload_of_seed(config, 1, device)
}

/// A workload.
pub fn workload_of_seed(config: &RunConfig, seed: u64, device: &Device) -> Workload {
    Workload::new(config, seed, &Sources::default().load(config, seed).expect("no files"), device)
}

/// What a device does at its best; nothing is known of it in test mode.
#[derive(Clone, Copy)]
pub struct Peak {
    flops_per_second: Option<f64>,
}

/// The best of several products of two large matrices, printed. Burn knows peaks of GPUs alone; this one is measured in the same way
/// on every device.
pub fn measure_peak(device: &Device) -> Peak {
    if is_test() {
        return Peak { flops_per_second: None };
    }
    let matrix = Tensor::<2>::random([PEAK_SIZE, PEAK_SIZE], Distribution::Default, device);
    let product_s = |_| {
        device.sync().expect("the device works");
        let start = Instant::now();
        let product = matrix.clone().matmul(matrix.clone());
        device.sync().expect("the device works");
        drop(product);
        start.elapsed().as_secs_f64()
    };
    let best_s = (0..PEAK_TURNS).map(product_s).fold(f64::INFINITY, f64::min);
    let flops_per_second = 2.0 * (PEAK_SIZE as f64).powi(3) / best_s;
    let shown = flops_per_second / 1e9;
    eprintln!("peak: {shown:.1} GFLOP/s (best of {PEAK_TURNS} products of {PEAK_SIZE} x {PEAK_SIZE}, measured)");
    Peak { flops_per_second: Some(flops_per_second) }
}

/// As criterion tells it: `cargo test --benches` leaves `--bench` out, `cargo bench -- --test` says so.
fn is_test() -> bool {
    let is_given = |name| std::env::args().any(|argument| argument == name);
    !is_given("--bench") || is_given("--test")
}

/// What is done in an iteration.
#[derive(Clone, Copy)]
pub enum Work {
    /// Floating-point operations of matrix products, which have a share of the peak.
    Flops(f64),
    /// Elements that are gone through, where there is no product.
    Elements(usize),
}

/// Times `run`, which does as many iterations as it is told, the device synchronised before the first and after the last. Criterion's
/// elements are those of the work.
pub fn bench(
    group: &mut BenchmarkGroup<'_, WallTime>,
    peak: Peak,
    name: &str,
    work: Work,
    device: &Device,
    mut run: impl FnMut(u64),
) {
    bench_custom(group, peak, name, work, |count| {
        device.sync().expect("the device works");
        let start = Instant::now();
        run(count);
        device.sync().expect("the device works");
        start.elapsed()
    });
}

/// Times whole steps.
pub fn bench_steps(
    group: &mut BenchmarkGroup<'_, WallTime>,
    peak: Peak,
    name: &str,
    workload: &Workload,
    probe_every: usize,
    quantities: &ProbeConfig,
) {
    let mut batches = workload.batches();
    let never = AtomicBool::new(false);
    // Steps are counted on from sample to sample, so that every 16th is every 16th even in samples of a few steps.
    let mut first = 0;
    bench_custom(group, peak, name, Work::Flops(workload.flops_per_step()), |count| {
        let steps = first..first + count as usize;
        first = steps.end;
        let measures = |step: usize| probe_every > 0 && step.is_multiple_of(probe_every);
        let elapsed_ms = workload.time_steps(&mut batches, steps, measures, quantities, &never);
        Duration::from_secs_f64(elapsed_ms.expect("the device works") / 1e3)
    });
}

fn bench_custom(
    group: &mut BenchmarkGroup<'_, WallTime>,
    peak: Peak,
    name: &str,
    work: Work,
    mut elapsed: impl FnMut(u64) -> Duration,
) {
    let mut times_s = Vec::new();
    group.throughput(Throughput::Elements(match work {
        Work::Flops(flops) => flops as u64,
        Work::Elements(elements) => elements as u64,
    }));
    group.bench_function(name, |bencher| {
        bencher.iter_custom(|count| {
            let elapsed = elapsed(count);
            times_s.push(elapsed.as_secs_f64() / count as f64);
            elapsed
        });
    });
    if let Work::Flops(flops) = work {
        print_share(peak, name, flops, &mut times_s);
    }
}

/// By the median of the samples, those of the warm-up included. Nothing where a filter leaves the bench out.
fn print_share(peak: Peak, name: &str, flops: f64, times_s: &mut [f64]) {
    times_s.sort_by(f64::total_cmp);
    if let (Some(peak), Some(median_s)) = (peak.flops_per_second, times_s.get(times_s.len() / 2)) {
        let flops_per_second = flops / median_s;
        eprintln!(
            "{name}: {:.1} GFLOP/s, {:.0} % of the peak",
            flops_per_second / 1e9,
            100.0 * flops_per_second / peak
        );
    }
}
