//! The time of a training step of one recurrent layer of 128 units, gradmark's and Burn's: RNN, LSTM and GRU over 28 and 100 time
//! steps of 28 numbers, batch 128.

mod common;

use criterion::{Criterion, SamplingMode, criterion_group, criterion_main};
use gradmark::config::{
    Activation, Cell, DataConfig, DataSet, Implementation, NetworkConfig, NetworkKind, ProbeConfig, RunConfig,
    WeightInit,
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const UNITS: usize = 128;
const NUMBERS_PER_STEP: usize = 28;

/// Gaussian sequences and a linear probe of the last hidden state.
fn config(cell: Cell, implementation: Implementation, time_steps: usize) -> RunConfig {
    let data = DataConfig {
        set: DataSet::Gaussian,
        features: Some(NUMBERS_PER_STEP),
        sequence_length: Some(time_steps),
        ..DataConfig::default()
    };
    let network = NetworkConfig {
        kind: NetworkKind::Recurrent,
        cell: Some(cell),
        implementation: Some(implementation),
        ..NetworkConfig::plain(1, UNITS, Activation::Tanh, WeightInit::Xavier)
    };
    common::config(data, network)
}

fn recurrent_step(criterion: &mut Criterion) {
    let (device, adapter) = common::open_device();
    let peak = common::measure_peak(&device);
    let mut group = criterion.benchmark_group(format!("recurrent_step/{}", adapter.backend.name()));
    // A step may take tens of milliseconds.
    group.sample_size(30).sampling_mode(SamplingMode::Flat);
    for (cell_name, cell) in [("rnn", Cell::Rnn), ("lstm", Cell::Lstm), ("gru", Cell::Gru)] {
        for (name, implementation) in [("own", Implementation::Own), ("stock", Implementation::Stock)] {
            for time_steps in [28, 100] {
                let workload = common::workload(&config(cell, implementation, time_steps), &device);
                let name = format!("{cell_name}/{name}/{time_steps}x{UNITS}");
                common::bench_steps(&mut group, peak, &name, &workload, 0, &ProbeConfig::default());
            }
        }
    }
    group.finish();
}

criterion_group!(benches, recurrent_step);
criterion_main!(benches);
