//! The fused form of every operation against its stock form, forward and backward, at batch 128: dense layers, batch norm and layer norm with ReLU,
//! several layers at once, softmax cross-entropy, recurrent layers; and whole steps, which contain the updates too.
//!
//! The loss of an operation is the sum of what it puts out, which costs the same in both forms.

mod common;

use burn::tensor::{Distribution, Tensor};
use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, SamplingMode, criterion_group, criterion_main};
use gradmark::config::{
    Activation, Cell, DataConfig, DataSet, Kernels, NetworkConfig, NetworkKind, Norm, ProbeConfig, WeightInit,
};
use gradmark::device::Device;
use gradmark::kernel::{
    Activated, CostForm, DenseForm, DenseParameters, Elementwise, Form, NormAxis, NormForm, Recurrence,
    RecurrentParameters, Stages, WantedGradients, dense, normalize, recurrent, softmax_cross_entropy,
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const BATCH: usize = 128;
const CLASSES: usize = 10;
const TIME_STEPS: usize = 28;
const FORMS: [(&str, Kernels); 2] = [("fused", Kernels::Fused), ("stock", Kernels::Stock)];

/// What the operations are measured in.
struct Bench<'a, 'b> {
    group: &'a mut BenchmarkGroup<'b, WallTime>,
    peak: common::Peak,
    device: Device,
}

impl Bench<'_, '_> {
    /// A leaf of N(0, 1) / 10 numbers, which leaves sigmoids room.
    fn leaf<const D: usize>(&self, shape: [usize; D]) -> Tensor<D> {
        let device = self.device.clone().autodiff();
        Tensor::random(shape, Distribution::Normal(0.0, 0.1), &device).require_grad()
    }

    /// Times both passes of an operation.
    fn operation(&mut self, name: &str, work: common::Work, forward: impl Fn(Kernels) -> Tensor<1>) {
        for (form, kernels) in FORMS {
            common::bench(self.group, self.peak, &format!("{name}/{form}"), work, &self.device, |count| {
                for _ in 0..count {
                    drop(forward(kernels).backward());
                }
            });
        }
    }

    fn dense(&mut self, units: usize) {
        let (x, weight, bias) = (self.leaf([BATCH, units]), self.leaf([units, units]), self.leaf([units]));
        let work = common::Work::Flops(6.0 * (BATCH * units * units) as f64);
        let functions = [
            ("affine", Elementwise::Identity),
            ("sigmoid", Elementwise::Sigmoid),
            ("tanh", Elementwise::Tanh),
            ("relu", Elementwise::Relu),
        ];
        for (name, function) in functions {
            self.operation(&format!("{name}/{BATCH}x{units}"), work, |kernels| {
                let parameters = DenseParameters { weight: weight.clone(), bias: Some(bias.clone()), slope: None };
                dense(x.clone(), parameters, None, DenseForm { function, seeds: 1, kernels }).sum()
            });
        }
    }

    fn normalization(&mut self, units: usize) {
        let (x, gamma, beta) = (self.leaf([BATCH, units]), self.leaf([units]), self.leaf([units]));
        let work = || common::Work::Elements(BATCH * units);
        for (name, axis) in [("batch_norm", 0), ("layer_norm", 1)] {
            self.operation(&format!("{name}_relu/{BATCH}x{units}"), work(), |kernels| {
                let form = NormForm { epsilon: 1e-5, function: Some(Activated::Relu), seeds: 1, kernels };
                normalize(x.clone(), gamma.clone(), beta.clone(), vec![axis], form).output.sum()
            });
        }
    }

    /// Ten residual blocks, each batch norm with ReLU, a product and the sum with the shortcut: one node of the graph or thirty.
    fn layers(&mut self, units: usize) {
        const BLOCKS: usize = 10;
        let x = self.leaf([BATCH, units]);
        let parameters: Vec<_> =
            (0..BLOCKS).map(|_| (self.leaf([units]), self.leaf([units]), self.leaf([units, units]))).collect();
        let work = common::Work::Flops((6 * BLOCKS * BATCH * units * units) as f64);
        self.operation(&format!("residual_blocks/{BLOCKS}x{BATCH}x{units}"), work, |kernels| {
            let mut stages = Stages::default();
            for (gamma, beta, weight) in parameters.iter().cloned() {
                let shortcut = stages.here();
                stages.norm(NormAxis::Batch, (gamma, beta), 1e-5, Some(Activated::Relu));
                stages.dense(DenseParameters { weight, bias: None, slope: None }, Elementwise::Identity);
                stages.sum(shortcut, 1.0, Elementwise::Identity);
            }
            let left = stages.run(&x, None, 1, kernels).stages;
            left.last().expect("there are stages").output.clone().sum()
        });
    }

    fn softmax_cross_entropy(&mut self) {
        let outputs = self.leaf([BATCH, CLASSES]);
        let targets = self.leaf([BATCH, CLASSES]).detach();
        let work = common::Work::Elements(BATCH * CLASSES);
        self.operation(&format!("softmax_cross_entropy/{BATCH}x{CLASSES}"), work, |kernels| {
            softmax_cross_entropy(outputs.clone(), targets.clone(), CostForm { seeds: 1, kernels })
        });
    }

    fn recurrent(&mut self, inputs: usize, units: usize) {
        let x = self.leaf([TIME_STEPS * BATCH, inputs]).detach();
        let cells =
            [("rnn", Recurrence::Rnn(Some(Activated::Tanh))), ("lstm", Recurrence::Lstm), ("gru", Recurrence::Gru)];
        for (name, recurrence) in cells {
            let columns = recurrence.gates() * units;
            let parameters = RecurrentParameters {
                input: self.leaf([inputs, columns]),
                bias: Some(self.leaf([columns])),
                recurrent: self.leaf([units, columns]),
                inner_bias: (recurrence == Recurrence::Gru).then(|| self.leaf([units])),
            };
            let products = TIME_STEPS * BATCH * columns * (2 * inputs + 3 * units);
            let work = common::Work::Flops(2.0 * products as f64);
            self.operation(&format!("{name}/{TIME_STEPS}x{BATCH}x{units}"), work, |kernels| {
                let form = Form { recurrence, steps: TIME_STEPS, truncation: None, answers_every_step: false, kernels };
                recurrent(x.clone(), parameters.clone(), form, WantedGradients::default()).output.sum()
            });
        }
    }

    fn steps(&mut self) {
        let relu = NetworkConfig::plain(20, 128, Activation::Relu, WeightInit::He);
        let batch_norm = NetworkConfig { norm: Norm::Batch, ..relu.clone() };
        let lstm = NetworkConfig {
            kind: NetworkKind::Recurrent,
            cell: Some(Cell::Lstm),
            ..NetworkConfig::plain(1, 128, Activation::Tanh, WeightInit::Xavier)
        };
        let sequences = DataConfig {
            set: DataSet::Gaussian,
            features: Some(28),
            sequence_length: Some(TIME_STEPS),
            ..DataConfig::default()
        };
        let digits = DataConfig::default();
        for (name, data, network) in
            [("relu", &digits, relu), ("batch_norm", &digits, batch_norm), ("lstm", &sequences, lstm)]
        {
            for (form, kernels) in FORMS {
                let network = NetworkConfig { kernels: Some(kernels), ..network.clone() };
                let workload = common::workload(&common::config(data.clone(), network), &self.device);
                let name = format!("step/{name}/{form}");
                common::bench_steps(self.group, self.peak, &name, &workload, 0, &ProbeConfig::default());
            }
        }
    }
}

fn kernel(criterion: &mut Criterion) {
    let (device, adapter) = common::open_device();
    let peak = common::measure_peak(&device);
    let mut group = criterion.benchmark_group(format!("kernel/{}", adapter.backend.name()));
    group.sample_size(30).sampling_mode(SamplingMode::Flat);
    let mut bench = Bench { group: &mut group, peak, device };
    for units in [128, 512] {
        bench.dense(units);
        bench.normalization(units);
        bench.layers(units);
    }
    bench.softmax_cross_entropy();
    bench.recurrent(28, 128);
    bench.steps();
    group.finish();
}

criterion_group!(benches, kernel);
criterion_main!(benches);
