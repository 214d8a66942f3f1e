//! What clipping adds to a step of a ReLU network of 20 x 128 at batch 128: none, by global norm, by the norm of each parameter,
//! by value. The thresholds are so low that there is something to clip at every step.

mod common;

use criterion::{Criterion, criterion_group, criterion_main};
use gradmark::config::{Activation, Clipping, DataConfig, NetworkConfig, ProbeConfig, WeightInit};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn clipping_cost(criterion: &mut Criterion) {
    let (device, adapter) = common::open_device();
    let peak = common::measure_peak(&device);
    let mut group = criterion.benchmark_group(format!("clipping_cost/{}", adapter.backend.name()));
    let network = NetworkConfig::plain(20, 128, Activation::Relu, WeightInit::He);
    for (name, clipping, clip_threshold) in [
        ("none", Clipping::None, None),
        ("global_norm", Clipping::GlobalNorm, Some(1e-2)),
        ("tensor_norm", Clipping::TensorNorm, Some(1e-3)),
        ("value", Clipping::Value, Some(1e-4)),
    ] {
        let mut config = common::config(DataConfig::default(), network.clone());
        config.training.clipping = clipping;
        config.training.clip_threshold = clip_threshold;
        let workload = common::workload(&config, &device);
        common::bench_steps(&mut group, peak, name, &workload, 0, &ProbeConfig::default());
    }
    group.finish();
}

criterion_group!(benches, clipping_cost);
criterion_main!(benches);
