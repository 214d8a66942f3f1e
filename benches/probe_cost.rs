//! What the probe adds to a step of a ReLU network of 20 x 128 at batch 128: off, at every step, at every 16th.

mod common;

use criterion::{Criterion, criterion_group, criterion_main};
use gradmark::config::{Activation, DataConfig, NetworkConfig, ProbeConfig, WeightInit};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn probe_cost(criterion: &mut Criterion) {
    let (device, adapter) = common::open_device();
    let peak = common::measure_peak(&device);
    let network = NetworkConfig::plain(20, 128, Activation::Relu, WeightInit::He);
    let workload = common::workload(&common::config(DataConfig::default(), network), &device);
    let parameters = ProbeConfig { activations: false, ..ProbeConfig::default() };
    let mut group = criterion.benchmark_group(format!("probe_cost/{}", adapter.backend.name()));
    for (name, probe_every, quantities) in [
        ("off", 0, &parameters),
        ("parameters/every_16", 16, &parameters),
        ("parameters/every_step", 1, &parameters),
        ("parameters_and_activations/every_16", 16, &ProbeConfig::default()),
        ("parameters_and_activations/every_step", 1, &ProbeConfig::default()),
    ] {
        common::bench_steps(&mut group, peak, name, &workload, probe_every, quantities);
    }
    group.finish();
}

criterion_group!(benches, probe_cost);
criterion_main!(benches);
