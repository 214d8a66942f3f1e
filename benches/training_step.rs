//! The time of a training step: sigmoid and ReLU, 5, 20 and 100 hidden layers of 128 units, batch 128.

mod common;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use gradmark::config::{Activation, DataConfig, NetworkConfig, ProbeConfig, WeightInit};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn training_step(criterion: &mut Criterion) {
    let (device, adapter) = common::open_device();
    let mut group = criterion.benchmark_group(format!("training_step/{}", adapter.backend.name()));
    let functions = [("sigmoid", Activation::Sigmoid, WeightInit::Lecun), ("relu", Activation::Relu, WeightInit::He)];
    for (name, activation, weight_init) in functions {
        for depth in [5, 20, 100] {
            let network = NetworkConfig::plain(depth, 128, activation, weight_init);
            let workload = common::workload(&common::config(DataConfig::default(), network), &device);
            group.throughput(Throughput::Elements(workload.batch_size() as u64));
            group.bench_function(format!("{name}/{depth}x128"), |bencher| {
                common::bench_steps(bencher, &workload, 0, &ProbeConfig::default());
            });
        }
    }
    group.finish();
}

criterion_group!(benches, training_step);
criterion_main!(benches);
