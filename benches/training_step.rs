//! The time of a training step: sigmoid and ReLU, 5, 20 and 100 hidden layers of 128 units, batch 128.

mod common;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use gradmark::config::{Activation, ProbeConfig};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn training_step(criterion: &mut Criterion) {
    let (device, adapter) = common::open_device();
    let mut group = criterion.benchmark_group(format!("training_step/{}", adapter.backend.name()));
    for (name, activation) in [("sigmoid", Activation::Sigmoid), ("relu", Activation::Relu)] {
        for depth in [5, 20, 100] {
            let workload = common::workload(&common::config(activation, depth), &device);
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
