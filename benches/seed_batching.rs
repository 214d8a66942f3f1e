//! What training many seeds at once saves: a step of 1, 4, 16 and 64 networks of 8 x 64 as one, ReLU and batch norm with ReLU, each on
//! its own batch of 32 digits.
//!
//! The operations that are counted are those of all seeds, so that the gain is the ratio of the rates.

mod common;

use criterion::{Criterion, SamplingMode, criterion_group, criterion_main};
use gradmark::config::{
    Activation, BatchSize, DataConfig, NetworkConfig, Norm, RunConfig, TrainingConfig, TrainingLength, WeightInit,
};
use gradmark::data::Batches;
use gradmark::device::Device;
use gradmark::network::Network;
use gradmark::train::{Workload, make_step};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn config(norm: Norm) -> RunConfig {
    let network = NetworkConfig { norm, ..NetworkConfig::plain(8, 64, Activation::Relu, WeightInit::He) };
    let config = common::config(DataConfig::default(), network);
    let training = TrainingConfig::sgd(1e-4, TrainingLength::Steps(1));
    RunConfig { training: TrainingConfig { batch_size: Some(BatchSize::Examples(32)), ..training }, ..config }
}

/// Networks of the seeds from 1 on as one, with their batches.
fn together(workload: &Workload, config: &RunConfig, seeds: u64, device: &Device) -> (Network, Batches) {
    let networks = (1..=seeds).map(|seed| common::workload_of_seed(config, seed, device).network()).collect();
    let network = Network::together(networks).expect("plain networks can be put together");
    let split = workload.train_split().tracked();
    (network, Batches::of_seeds(split, workload.batch_size(), (1..=seeds).collect()))
}

fn seed_batching(criterion: &mut Criterion) {
    let (device, adapter) = common::open_device();
    let peak = common::measure_peak(&device);
    let mut group = criterion.benchmark_group(format!("seed_batching/{}", adapter.backend.name()));
    group.sample_size(30).sampling_mode(SamplingMode::Flat);
    for (name, norm) in [("relu", Norm::None), ("batch_norm", Norm::Batch)] {
        let config = config(norm);
        let workload = common::workload(&config, &device);
        for seeds in [1, 4, 16, 64] {
            let (initial, mut batches) = together(&workload, &config, seeds, &device);
            let work = common::Work::Flops(workload.flops_per_step() * seeds as f64);
            common::bench(&mut group, peak, &format!("{name}/8x64/{seeds}_seeds"), work, &device, |steps| {
                let (mut network, mut optimizer) = (initial.clone(), workload.optimizer());
                for _ in 0..steps {
                    let batch = batches.next_batch();
                    network = make_step(network, batch, &config.training, Some(&mut optimizer), None).0;
                }
            });
        }
    }
    group.finish();
}

criterion_group!(benches, seed_batching);
criterion_main!(benches);
