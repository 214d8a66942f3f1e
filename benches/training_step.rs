//! The time of a training step: sigmoid, tanh, ReLU, batch norm with ReLU, and both in residual blocks; 20 hidden layers of 128
//! and of 512 units and 100 of 64, batch 128.

mod common;

use criterion::{Criterion, SamplingMode, criterion_group, criterion_main};
use gradmark::config::{Activation, DataConfig, NetworkConfig, NetworkKind, Norm, ProbeConfig, WeightInit};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn networks(depth: usize, width: usize) -> [(&'static str, NetworkConfig); 5] {
    let plain = |activation, weight_init| NetworkConfig::plain(depth, width, activation, weight_init);
    // Four times the weights: 100 sigmoid layers would else take gradients below the smallest normal number of f32, with which
    // a processor takes a hundred times as long.
    let sigmoid = NetworkConfig { weight_scale: Some(4.0), ..plain(Activation::Sigmoid, WeightInit::Lecun) };
    let relu = plain(Activation::Relu, WeightInit::He);
    let batch_norm = NetworkConfig { norm: Norm::Batch, ..relu.clone() };
    let residual = NetworkConfig { kind: NetworkKind::Residual, ..batch_norm.clone() };
    [
        ("sigmoid", sigmoid),
        ("tanh", plain(Activation::Tanh, WeightInit::Lecun)),
        ("relu", relu),
        ("batch_norm", batch_norm),
        ("residual", residual),
    ]
}

fn training_step(criterion: &mut Criterion) {
    let (device, adapter) = common::open_device();
    let peak = common::measure_peak(&device);
    let mut group = criterion.benchmark_group(format!("training_step/{}", adapter.backend.name()));
    // A step may take tens of milliseconds.
    group.sample_size(30).sampling_mode(SamplingMode::Flat);
    for (depth, width) in [(20, 128), (100, 64), (20, 512)] {
        for (name, network) in networks(depth, width) {
            let workload = common::workload(&common::config(DataConfig::default(), network), &device);
            let name = format!("{name}/{depth}x{width}");
            common::bench_steps(&mut group, peak, &name, &workload, 0, &ProbeConfig::default());
        }
    }
    group.finish();
}

criterion_group!(benches, training_step);
criterion_main!(benches);
