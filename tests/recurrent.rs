//! Recurrent networks against forward passes in f64 that share no code with the program (`reference/recurrent.rs`):
//! gradients against central differences, Burn's layers beside gradmark's, and what a run records.

#![cfg(feature = "flex")]

mod experiment;
#[path = "reference/recurrent.rs"]
mod reference;

use std::collections::BTreeMap;
use std::fmt::Write;

use burn::module::{Module, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::tensor::{DType, Device, Tensor, TensorData};
use experiment::{parse, run_all};
use gradmark::config::{Kernels, RunConfig};
use gradmark::data::{Batch, Sources};
use gradmark::kernel::{self, Activated, Form, Recurrence, RecurrentParameters, WantedGradients};
use gradmark::network::{Network as DeviceNetwork, Pass, Wanted};
use gradmark::probe::Path as ParameterPath;
use gradmark::schema::{Gate, RunRows, RunStatus, StepPhase};
use gradmark::train::{Workload, make_step, mean_loss};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use reference::{Cell, Layer, Network, Nudge, Output, Run, Site, cost, derivative, one_hot};

const CELLS: [Cell; 6] = [Cell::Tanh, Cell::Relu, Cell::Sigmoid, Cell::Identity, Cell::Lstm, Cell::Gru];

fn recurrence(cell: Cell) -> Recurrence {
    match cell {
        Cell::Tanh => Recurrence::Rnn(Some(Activated::Tanh)),
        Cell::Relu => Recurrence::Rnn(Some(Activated::Relu)),
        Cell::Sigmoid => Recurrence::Rnn(Some(Activated::Sigmoid)),
        Cell::Identity => Recurrence::Rnn(None),
        Cell::Lstm => Recurrence::Lstm,
        Cell::Gru => Recurrence::Gru,
    }
}

fn tracked() -> Device {
    flex().autodiff()
}

fn flex() -> Device {
    let adapter = gradmark::device::find("flex".parse().expect("a name")).expect("compiled in");
    gradmark::device::open(&adapter).expect("opens")
}

fn numbers<const D: usize>(tensor: Tensor<D>) -> Vec<f64> {
    tensor.into_data().iter::<f64>().collect()
}

fn norm(values: &[f64]) -> f64 {
    values.iter().map(|x| x * x).sum::<f64>().sqrt()
}

fn largest(values: &[f64]) -> f64 {
    values.iter().fold(0.0, |largest: f64, x| largest.max(x.abs()))
}

#[track_caller]
fn assert_close(what: &str, found: f64, expected: f64, tolerance: f64) {
    assert!((found - expected).abs() <= tolerance, "{what}: {found}, expected {expected} +- {tolerance}");
}

/// The largest difference relative to the largest element.
#[track_caller]
fn assert_all_close(what: &str, found: &[f64], expected: &[f64], tolerance: f64) -> f64 {
    assert_eq!(found.len(), expected.len(), "{what}");
    let scale = largest(expected);
    for (place, (found, expected)) in found.iter().zip(expected).enumerate() {
        assert_close(&format!("{what}[{place}]"), *found, *expected, tolerance * scale + f64::MIN_POSITIVE);
    }
    let differences: Vec<f64> = found.iter().zip(expected).map(|(a, b)| a - b).collect();
    if scale > 0.0 { largest(&differences) / scale } else { 0.0 }
}

// ---------------------------------------------------------------------------------------------------------------------
// One layer, by the function that every recurrent layer calls.

const INPUTS: usize = 2;
const UNITS: usize = 3;
const EXAMPLES: usize = 2;
const STEPS: usize = 7;

/// A layer, what it reads, and the numbers that its outputs are multiplied with.
#[derive(Clone)]
struct Single {
    network: Network,
    sequences: Vec<Vec<Vec<f64>>>,
    weights_of_outputs: Vec<f64>,
}

impl Single {
    fn draw(cell: Cell, answers_every_step: bool, truncation: Option<usize>) -> Self {
        let mut stream = ChaCha8Rng::seed_from_u64(17);
        let mut draw = |count: usize, size: f64| -> Vec<f64> {
            // Numbers that f32 holds too.
            (0..count).map(|_| f64::from((size * (2.0 * stream.random::<f64>() - 1.0)) as f32)).collect()
        };
        let columns = cell.gates() * UNITS;
        // Of a ReLU, biases above 0, so that gradients reach the initial state.
        let bias = |x: f64| if cell == Cell::Relu { x.abs() } else { x };
        let layer = Layer {
            cell,
            units: UNITS,
            input: draw(INPUTS * columns, 1.0),
            bias: draw(columns, 0.7).into_iter().map(bias).collect(),
            recurrent: draw(UNITS * columns, 0.9),
            inner_bias: draw(UNITS, 0.6),
        };
        let sequence = |numbers: Vec<f64>| numbers.chunks(INPUTS).map(<[f64]>::to_vec).collect();
        let sequences = (0..EXAMPLES).map(|_| sequence(draw(STEPS * INPUTS, 1.5))).collect();
        let answers = if answers_every_step { STEPS } else { 1 };
        Self {
            network: Network { layers: vec![layer], output: None, answers_every_step, truncation },
            sequences,
            weights_of_outputs: draw(answers * EXAMPLES * UNITS, 1.0),
        }
    }

    fn layer(&self) -> &Layer {
        &self.network.layers[0]
    }

    /// The sum of the outputs, each multiplied with its number.
    fn value(&self, run: &Run) -> f64 {
        run.outputs.iter().flatten().zip(&self.weights_of_outputs).map(|(output, weight)| output * weight).sum()
    }

    /// The derivatives with respect to the numbers that `part` gives.
    fn of_parameters(&self, base: &Run, part: impl Fn(&mut Self) -> &mut Vec<f64>) -> Vec<f64> {
        let count = part(&mut self.clone()).len();
        let of_element = |element: usize| {
            derivative(|by| {
                let mut moved = self.clone();
                part(&mut moved)[element] += by;
                let run = moved.network.forward(&moved.sequences, Some(base), None);
                (self.value(&run), run.sides)
            })
        };
        (0..count).map(|element| of_element(element).expect("no kink")).collect()
    }

    /// The derivatives with respect to numbers of all time steps, in the order of time, example by example.
    fn of_sites(&self, base: &Run, site: Site) -> Vec<f64> {
        let (time_steps, elements) = match site {
            Site::Sum => (STEPS, self.layer().bias.len()),
            Site::Hidden | Site::Cell => (STEPS + 1, UNITS),
        };
        let mut found = Vec::new();
        for place in 0..time_steps * EXAMPLES * elements {
            let (time_step, rest) = (place / (EXAMPLES * elements), place % (EXAMPLES * elements));
            let nudge = |by| {
                let (example, element) = (rest / elements, rest % elements);
                Some(Nudge { site, layer: 0, time_step, example, element, by })
            };
            let at = |by| {
                let run = self.network.forward(&self.sequences, Some(base), nudge(by));
                (self.value(&run), run.sides)
            };
            found.push(derivative(at).expect("no kink"));
        }
        found
    }

    /// All gradients by differences.
    fn by_differences(&self) -> BTreeMap<&'static str, Vec<f64>> {
        let base = self.network.forward(&self.sequences, None, None);
        let cell = self.layer().cell;
        let of_inputs = (0..STEPS).flat_map(|step| (0..EXAMPLES).map(move |example| (step, example)));
        let of_input =
            |(step, example): (usize, usize)| self.of_parameters(&base, |single| &mut single.sequences[example][step]);
        let mut found = BTreeMap::from([
            ("x", of_inputs.flat_map(of_input).collect()),
            ("input", self.of_parameters(&base, |single| &mut single.network.layers[0].input)),
            ("bias", self.of_parameters(&base, |single| &mut single.network.layers[0].bias)),
            ("recurrent", self.of_parameters(&base, |single| &mut single.network.layers[0].recurrent)),
            ("sums", self.of_sites(&base, Site::Sum)),
            ("hidden", self.of_sites(&base, Site::Hidden)),
        ]);
        if cell == Cell::Gru {
            found.insert("inner_bias", self.of_parameters(&base, |single| &mut single.network.layers[0].inner_bias));
        }
        if cell == Cell::Lstm {
            found.insert("cells", self.of_sites(&base, Site::Cell));
        }
        found
    }

    fn form(&self, kernels: Kernels) -> Form {
        Form {
            recurrence: recurrence(self.layer().cell),
            steps: STEPS,
            truncation: self.network.truncation,
            answers_every_step: self.network.answers_every_step,
            kernels,
        }
    }

    /// The outputs and all gradients by the program, in a precision and by a form.
    fn by_kernel(&self, dtype: DType, kernels: Kernels) -> (Vec<f64>, BTreeMap<&'static str, Vec<f64>>) {
        let device = tracked();
        let tensor = |values: Vec<f64>, rows: usize| -> Tensor<2> {
            let shape = [rows, values.len() / rows];
            Tensor::from_data(TensorData::new(values, shape), (&device, dtype))
        };
        let vector = |values: &Vec<f64>| tensor(values.clone(), 1).reshape([-1]).require_grad();
        let layer = self.layer();
        let in_time: Vec<f64> =
            (0..STEPS).flat_map(|step| self.sequences.iter().flat_map(move |all| all[step].clone())).collect();
        let x = tensor(in_time, STEPS * EXAMPLES).require_grad();
        let parameters = RecurrentParameters {
            input: tensor(layer.input.clone(), INPUTS).require_grad(),
            bias: Some(vector(&layer.bias)),
            recurrent: tensor(layer.recurrent.clone(), UNITS).require_grad(),
            inner_bias: (layer.cell == Cell::Gru).then(|| vector(&layer.inner_bias)),
        };
        let wanted = WantedGradients { pre_activations: true, states: true };
        let recurred = kernel::recurrent(x.clone(), parameters.clone(), self.form(kernels), wanted);
        assert_eq!(recurred.output.dtype(), dtype, "the outputs have the precision of the inputs");
        let weights = tensor(self.weights_of_outputs.clone(), recurred.output.dims()[0]);
        let gradients = (recurred.output.clone() * weights).sum().backward();
        let of = |tensor: &Tensor<2>| numbers(tensor.grad(&gradients).expect("a gradient"));
        let of_vector = |tensor: &Tensor<1>| numbers(tensor.grad(&gradients).expect("a gradient"));
        let mut found = BTreeMap::from([
            ("x", of(&x)),
            ("input", of(&parameters.input)),
            ("bias", of_vector(parameters.bias.as_ref().expect("a bias"))),
            ("recurrent", of(&parameters.recurrent)),
            ("sums", of(&recurred.pre_activation_offset.expect("wanted"))),
            ("hidden", of(&recurred.state_offsets[0])),
        ]);
        found.extend(parameters.inner_bias.as_ref().map(|bias| ("inner_bias", of_vector(bias))));
        found.extend(recurred.state_offsets.get(1).map(|cells| ("cells", of(cells))));
        (numbers(recurred.output), found)
    }
}

/// Compares every gradient of every cell, relative to its largest element.
fn compare_layers(dtype: DType, kernels: Kernels, tolerance: f64) {
    let (mut worst, mut worst_of_one) = (0.0_f64, 0.0_f64);
    for cell in CELLS {
        for answers_every_step in [false, true] {
            for truncation in [None, Some(1), Some(2), Some(3)] {
                let single = Single::draw(cell, answers_every_step, truncation);
                let what = format!("{cell:?}, every step {answers_every_step}, truncation {truncation:?}");
                let expected = single.by_differences();
                let (outputs, found) = single.by_kernel(dtype, kernels);
                let of_reference = single.network.forward(&single.sequences, None, None).outputs.concat();
                assert_all_close(&what, &outputs, &of_reference, if dtype == DType::F64 { 1e-14 } else { 1e-6 });
                assert_eq!(found.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>(), "{what}");
                for (name, found) in &found {
                    let expected = &expected[name];
                    let what = format!("{name} of {what}");
                    worst = worst.max(assert_all_close(&what, found, expected, tolerance));
                    let scale = largest(expected);
                    for (found, expected) in found.iter().zip(expected).filter(|(_, x)| x.abs() > 1e-2 * scale) {
                        assert_close(&what, *found, *expected, 10.0 * tolerance * expected.abs());
                        worst_of_one = worst_of_one.max((found / expected - 1.0).abs());
                    }
                }
            }
        }
    }
    println!(
        "{dtype:?}, {kernels:?}: largest difference {worst:.1e} of the largest element, {worst_of_one:.1e} of an element itself"
    );
}

/// The backward pass by hand in f64, of the operations that every backend has and of the CPU's own.
#[test]
fn every_gradient_of_every_cell_is_that_of_differences_in_f64() {
    compare_layers(DType::F64, Kernels::Stock, 1e-8);
    compare_layers(DType::F64, Kernels::Fused, 1e-8);
}

#[test]
fn every_gradient_of_the_fused_form_is_that_of_differences_in_f64_but_for_rounding() {
    compare_layers(DType::F32, Kernels::Fused, 3e-6);
}

/// Backpropagation through time that is truncated after every piece of a sequence.
#[test]
fn no_gradient_reaches_a_state_before_the_last_boundary_and_a_piece_of_all_steps_has_no_boundary() {
    for cell in CELLS {
        for dtype in [DType::F32, DType::F64] {
            let gradients = |answers_every_step, truncation| {
                Single::draw(cell, answers_every_step, truncation).by_kernel(dtype, Kernels::Fused).1
            };
            let of_last = gradients(false, Some(3));
            for name in ["hidden", "cells"] {
                let Some(states) = of_last.get(name) else { continue };
                let by_step: Vec<f64> = states.chunks(EXAMPLES * UNITS).map(norm).collect();
                // The state after six time steps is handed on as a constant, the one after seven is the output.
                assert!(by_step[..7].iter().all(|norm| *norm == 0.0), "{name} of {cell:?}: {by_step:?}");
                assert!(by_step[7] > 0.0, "{name} of {cell:?}: {by_step:?}");
            }
            for answers_every_step in [false, true] {
                let whole = gradients(answers_every_step, None);
                assert!(norm(&whole["hidden"][..EXAMPLES * UNITS]) > 0.0, "{cell:?}");
                for length in [STEPS, STEPS + 1, 1000] {
                    assert_eq!(gradients(answers_every_step, Some(length)), whole, "{cell:?} {length}");
                }
            }
        }
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// Whole networks.

/// What a network reads, how often it answers, and what its answers cost.
#[derive(Clone, Copy, Debug)]
struct Task {
    data: &'static str,
    /// Lines of the other sections.
    network: &'static str,
    training: &'static str,
}

const GAUSSIAN: Task = Task {
    data: "set = \"gaussian\"\nfeatures = 3\nsequence_length = 6",
    network: "",
    training: "loss = \"linear_probe\"\nsteps = 0",
};
const ADDING: Task = Task {
    data: "set = \"adding\"\nsequence_length = 6\nexamples = 40",
    network: "",
    training: "loss = \"squared_error\"\nlearning_rate = 0.05\nsteps = 20",
};
const PARITY: Task = Task {
    data: "set = \"parity\"\nsequence_length = 7\nexamples = 40",
    network: "output_steps = \"every\"",
    training: "learning_rate = 0.05\nsteps = 20",
};
const TEMPORAL_ORDER: Task = Task {
    data: "set = \"temporal_order\"\nsequence_length = 10\nexamples = 40",
    network: "",
    training: "learning_rate = 0.05\nsteps = 20",
};
const COPYING: Task = Task {
    data: "set = \"copying\"\nsequence_length = 1\nexamples = 40",
    network: "",
    training: "learning_rate = 0.05\nsteps = 20",
};

/// A config, as its author would write it.
#[derive(Clone, Debug)]
struct Setting {
    cell: Cell,
    depth: usize,
    width: usize,
    batch: usize,
    task: Task,
    truncation: Option<usize>,
    has_biases: bool,
    is_stock: bool,
    /// Further lines of a section.
    network: String,
    training: String,
    probe: String,
}

fn setting(cell: Cell, task: Task) -> Setting {
    Setting {
        cell,
        depth: 2,
        width: 5,
        batch: 4,
        task,
        truncation: None,
        has_biases: true,
        is_stock: false,
        network: String::new(),
        training: String::new(),
        probe: String::new(),
    }
}

impl Setting {
    fn text(&self) -> String {
        let (cell, activation) = match self.cell {
            Cell::Tanh => ("rnn", "tanh"),
            Cell::Relu => ("rnn", "relu"),
            Cell::Sigmoid => ("rnn", "sigmoid"),
            Cell::Identity => ("rnn", "identity"),
            Cell::Lstm => ("lstm", "tanh"),
            Cell::Gru => ("gru", "tanh"),
        };
        let mut text = format!(
            "[data]\n{}\n[network]\nkind = \"recurrent\"\ncell = \"{cell}\"\nactivation = \"{activation}\"\n\
             depth = {}\nwidth = {}\n{}\n{}\n",
            self.task.data, self.depth, self.width, self.task.network, self.network
        );
        if !self.network.contains("weight_init") {
            text += "weight_init = \"lecun\"\nrecurrent_init = \"lecun\"\n";
        }
        if self.is_stock {
            text += "implementation = \"stock\"\n";
        }
        text += match (self.has_biases, self.network.contains("bias_init")) {
            (_, true) => "",
            (true, _) => "bias_init = \"normal\"\nbias_std = 0.4\n",
            (false, _) => "bias_init = \"off\"\n",
        };
        write!(text, "[training]\nbatch_size = {}\n{}\n{}\n", self.batch, self.task.training, self.training)
            .expect("a text");
        if let Some(length) = self.truncation {
            writeln!(text, "truncation = {length}").expect("a text");
        }
        text + &format!("[probe]\nper_decade = 0\n{}\n[throughput]\nsamples = 0\n", self.probe)
    }

    fn config(&self) -> RunConfig {
        parse(&self.text()).runs.remove(0).config
    }

    fn run(&self) -> (RunStatus, RunRows) {
        let (summary, rows) = run_all(&parse(&self.text())).remove(0);
        (summary.status, rows)
    }

    fn workload(&self) -> Workload {
        let config = self.config();
        Workload::new(&config, 1, &Sources::default().load(&config, 1).expect("no files"), &flex())
    }
}

/// The parameters of a network by their paths, or, with gradients, those.
fn collect(network: &DeviceNetwork, gradients: Option<&GradientsParams>) -> BTreeMap<String, Vec<f64>> {
    struct Collect<'a> {
        gradients: Option<&'a GradientsParams>,
        path: ParameterPath,
        found: BTreeMap<String, Vec<f64>>,
    }
    impl ModuleVisitor for Collect<'_> {
        fn enter_module(&mut self, name: &str, container: &str) {
            self.path.enter(name, container);
        }
        fn exit_module(&mut self, _name: &str, container: &str) {
            self.path.exit(container);
        }
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            let tensor = match self.gradients {
                Some(gradients) => gradients.get::<D>(param.id).expect("a gradient"),
                None => param.val().inner(),
            };
            assert!(
                self.found.insert(self.path.to_string(), numbers(tensor)).is_none(),
                "{} is there twice",
                self.path
            );
        }
    }
    let mut visitor = Collect { gradients, path: ParameterPath::default(), found: BTreeMap::new() };
    network.visit(&mut visitor);
    visitor.found
}

/// What the program makes of a batch.
struct OnDevice {
    outputs: Vec<f64>,
    loss: f64,
    gradients: BTreeMap<String, Vec<f64>>,
    layers: Vec<LayerGradients>,
}

struct LayerGradients {
    /// With respect to the pre-activations.
    delta: Option<Vec<f64>>,
    /// With respect to the hidden states, and to the cell states of an LSTM, the initial ones first.
    states: Vec<Vec<f64>>,
}

fn measure(network: &DeviceNetwork, batch: &Batch, config: &RunConfig) -> OnDevice {
    let mut pass = Pass::traced(Wanted { time_steps: true, ..Wanted::default() });
    let outputs = network.forward(batch.inputs.clone(), &mut pass);
    let loss = mean_loss(config.training.loss, outputs.clone(), batch.targets.clone());
    let gradients = loss.backward();
    let of = |tensor: &Tensor<2>| numbers(tensor.grad(&gradients).expect("a gradient"));
    let trace = pass.finish().0;
    let layers = trace.iter().map(|layer| {
        let tensors = layer.tensors().expect("an operation of its own");
        let states = tensors.recurrence.as_ref().expect("a recurrent layer").state_offsets.iter().map(of).collect();
        LayerGradients { delta: tensors.offset.as_ref().map(of), states }
    });
    OnDevice {
        layers: layers.collect(),
        outputs: numbers(outputs.inner()),
        loss: numbers(loss.inner())[0],
        gradients: collect(network, Some(&GradientsParams::from_grads(gradients, network))),
    }
}

/// The network in f64.
fn reference(setting: &Setting, config: &RunConfig, parameters: &BTreeMap<String, Vec<f64>>) -> Network {
    let or_zeros = |path: &str, count: usize| parameters.get(path).cloned().unwrap_or_else(|| vec![0.0; count]);
    let columns = setting.cell.gates() * setting.width;
    let layer = |index: usize| Layer {
        cell: setting.cell,
        units: setting.width,
        input: parameters[&format!("hidden.{index}.input.weight")].clone(),
        bias: or_zeros(&format!("hidden.{index}.input.bias"), columns),
        recurrent: parameters[&format!("hidden.{index}.recurrent.weight")].clone(),
        inner_bias: or_zeros(&format!("hidden.{index}.recurrent.bias"), setting.width),
    };
    let output = |weight: &Vec<f64>| Output {
        weight: weight.clone(),
        bias: or_zeros("output.bias", weight.len() / setting.width),
    };
    Network {
        layers: (0..setting.depth).map(layer).collect(),
        output: parameters.get("output.weight").map(output),
        answers_every_step: config.sequence().expect("sequences").answers_every_step,
        truncation: setting.truncation,
    }
}

/// The inputs as numbers of every time step, and symbols as vectors.
fn sequences(config: &RunConfig, batch: &Batch) -> Vec<Vec<Vec<f64>>> {
    let sequence = config.sequence().expect("sequences");
    let inputs = numbers(batch.inputs.clone().inner());
    let at_step = |x: &[f64]| sequence.symbols.map_or_else(|| x.to_vec(), |kinds| one_hot(x[0], kinds));
    let example = |x: &[f64]| x.chunks(sequence.numbers).map(at_step).collect();
    inputs.chunks(sequence.steps * sequence.numbers).map(example).collect()
}

/// Some places of a list, spread over it.
fn sample(count: usize, most: usize) -> Vec<usize> {
    if count <= most { (0..count).collect() } else { (0..most).map(|k| (k * 7919 + 5) % count).collect() }
}

/// A network on the device and in f64, with a batch.
struct Comparison {
    name: String,
    setting: Setting,
    config: RunConfig,
    parameters: BTreeMap<String, Vec<f64>>,
    network: Network,
    sequences: Vec<Vec<Vec<f64>>>,
    targets: Vec<Vec<f64>>,
    base: Run,
    device: OnDevice,
    compared: usize,
    kinks: usize,
    worst: f64,
}

/// The largest difference of a gradient's element, relative to the root mean square of its tensor, and what f32 leaves of
/// gradients that are 0, relative to the norm of all gradients.
const TOLERANCE: f64 = 5e-4;
const ROUNDING: f64 = 1e-6;

impl Comparison {
    fn new(setting: Setting) -> Self {
        let config = setting.config();
        let workload = setting.workload();
        let device_network = workload.network();
        let batch = workload.batches().next_batch();
        let parameters = collect(&device_network, None);
        let network = reference(&setting, &config, &parameters);
        let sequences = sequences(&config, &batch);
        let columns = batch.targets.dims()[1];
        let targets = numbers(batch.targets.clone().inner()).chunks(columns).map(<[f64]>::to_vec).collect();
        Self {
            name: format!("{setting:?}"),
            device: measure(&device_network, &batch, &config),
            base: network.forward(&sequences, None, None),
            setting,
            config,
            parameters,
            network,
            sequences,
            targets,
            compared: 0,
            kinks: 0,
            worst: 0.0,
        }
    }

    fn cost(&self, run: &Run) -> f64 {
        cost(self.config.training.loss, &run.outputs, &self.targets)
    }

    fn check_outputs(&self) {
        let expected = self.base.outputs.concat();
        assert_all_close(&format!("outputs of {}", self.name), &self.device.outputs, &expected, 1e-5);
        let expected = self.cost(&self.base);
        let tolerance = 1e-5 * (expected.abs() + norm(&self.base.outputs.concat()));
        assert_close(&format!("loss of {}", self.name), self.device.loss, expected, tolerance);
    }

    fn check(&mut self, what: &str, gradient: &[f64], most: usize, at: impl Fn(usize, f64) -> Run) {
        let all: Vec<f64> = self.device.gradients.values().map(|gradient| norm(gradient)).collect();
        let rms = norm(gradient) / (gradient.len() as f64).sqrt();
        let floor = ROUNDING * norm(&all);
        for element in sample(gradient.len(), most) {
            let value = |by: f64| {
                let run = at(element, by);
                (self.cost(&run), run.sides)
            };
            let Some(expected) = derivative(value) else {
                self.kinks += 1;
                continue;
            };
            let found = gradient[element];
            self.worst = self.worst.max((found - expected).abs() / (rms + floor / TOLERANCE));
            assert_close(&format!("{what}[{element}] of {}", self.name), found, expected, TOLERANCE * rms + floor);
            self.compared += 1;
        }
    }

    fn check_parameters(&mut self, most: usize) {
        let gradients = self.device.gradients.clone();
        assert_eq!(gradients.keys().collect::<Vec<_>>(), self.parameters.keys().collect::<Vec<_>>(), "{}", self.name);
        let (setting, config) = (self.setting.clone(), self.config.clone());
        let (parameters, sequences) = (self.parameters.clone(), self.sequences.clone());
        let base = self.network.forward(&sequences, None, None);
        for (path, gradient) in gradients {
            let moved = |element: usize, by: f64| {
                let mut parameters = parameters.clone();
                parameters.get_mut(&path).expect("a path")[element] += by;
                reference(&setting, &config, &parameters).forward(&sequences, Some(&base), None)
            };
            self.check(&path, &gradient, most, moved);
        }
    }

    /// The gradients with respect to the states of every layer.
    fn check_states(&mut self, most: usize) {
        let layers = std::mem::take(&mut self.device.layers);
        let (network, sequences) = (self.network.clone(), self.sequences.clone());
        let base = network.forward(&sequences, None, None);
        let units = self.setting.width;
        let examples = sequences.len();
        for (layer, LayerGradients { states, .. }) in layers.iter().enumerate() {
            assert_eq!(states.len(), if self.setting.cell == Cell::Lstm { 2 } else { 1 }, "{}", self.name);
            for (site, gradient) in [Site::Hidden, Site::Cell].into_iter().zip(states) {
                assert_eq!(gradient.len(), (sequences[0].len() + 1) * examples * units, "{}", self.name);
                let moved = |place: usize, by: f64| {
                    let (row, element) = (place / units, place % units);
                    let (time_step, example) = (row / examples, row % examples);
                    let nudge = Nudge { site, layer, time_step, example, element, by };
                    network.forward(&sequences, Some(&base), Some(nudge))
                };
                self.check(&format!("{site:?} of layer {layer}"), gradient, most, moved);
            }
        }
        self.device.layers = layers;
    }

    /// The delta of a layer is the gradient of its biases before it is summed up.
    fn check_deltas(&self) {
        for (layer, gradients) in self.device.layers.iter().enumerate() {
            let delta = gradients.delta.as_ref().expect("a delta");
            let columns = self.setting.cell.gates() * self.setting.width;
            let sums: Vec<f64> = (0..columns).map(|unit| delta.iter().skip(unit).step_by(columns).sum()).collect();
            if let Some(bias) = self.device.gradients.get(&format!("hidden.{layer}.input.bias")) {
                assert_all_close(&format!("delta of layer {layer} of {}", self.name), &sums, bias, 1e-5);
            }
        }
    }
}

const TASKS: [Task; 5] = [GAUSSIAN, ADDING, PARITY, TEMPORAL_ORDER, COPYING];

#[test]
fn recurrent_networks_have_the_gradients_that_differences_in_f64_give() {
    let (mut networks, mut compared, mut kinks, mut worst) = (0, 0, 0, 0.0_f64);
    let mut turn = 0;
    for cell in CELLS {
        for width in [1, 5, 19] {
            for batch in [1, 3, 33] {
                let setting = Setting {
                    depth: 1 + turn % 3,
                    width,
                    batch,
                    truncation: [None, Some(2), None, Some(4)][turn % 4],
                    has_biases: turn % 7 != 3,
                    ..setting(cell, TASKS[turn % 5])
                };
                let mut comparison = Comparison::new(setting);
                comparison.check_outputs();
                comparison.check_parameters(8);
                comparison.check_states(8);
                comparison.check_deltas();
                networks += 1;
                compared += comparison.compared;
                kinks += comparison.kinks;
                worst = worst.max(comparison.worst);
                turn += 1;
            }
        }
    }
    println!("{networks} networks, {compared} derivatives, {kinks} at kinks, largest difference {worst:.1e}");
    assert!(kinks * 100 < compared, "{kinks} of {compared} derivatives lie at kinks");
}

// ---------------------------------------------------------------------------------------------------------------------
// Burn's layers with the same weights.

/// The parameters of Burn's layers, or their gradients, put together as gradmark's are.
fn joined(setting: &Setting, stock: &BTreeMap<String, Vec<f64>>) -> BTreeMap<String, Vec<f64>> {
    let gates: &[&str] = match setting.cell {
        Cell::Lstm => &["input_gate", "forget_gate", "cell_gate", "output_gate"],
        Cell::Gru => &["reset_gate", "update_gate", "new_gate"],
        _ => &["gate"],
    };
    let mut found: BTreeMap<String, Vec<f64>> = stock
        .iter()
        .filter(|(path, _)| path.starts_with("output"))
        .map(|(path, x)| (path.clone(), x.clone()))
        .collect();
    for layer in 0..setting.depth {
        for (own, theirs) in [("input", "input_transform"), ("recurrent", "hidden_transform")] {
            for kind in ["weight", "bias"] {
                let of_gate = |gate: &&str| stock.get(&format!("hidden.{layer}.stock.{gate}.{theirs}.{kind}"));
                let parts: Vec<&Vec<f64>> = gates.iter().filter_map(of_gate).collect();
                if parts.is_empty() {
                    continue;
                }
                let rows = if kind == "bias" { 1 } else { parts[0].len() / setting.width };
                let row = |row: usize| parts.iter().flat_map(move |part| &part[row * setting.width..][..setting.width]);
                found.insert(format!("hidden.{layer}.{own}.{kind}"), (0..rows).flat_map(row).copied().collect());
            }
        }
    }
    found
}

#[test]
fn burns_layers_have_the_outputs_the_gradients_and_the_flow_through_time_of_gradmarks() {
    let mut worst = 0.0_f64;
    for (turn, cell) in CELLS.into_iter().enumerate() {
        for truncation in [None, Some(3)] {
            for task in [TEMPORAL_ORDER, PARITY] {
                let own = Setting { truncation, has_biases: turn % 2 == 0, ..setting(cell, task) };
                let stock = Setting { is_stock: true, ..own.clone() };
                let on_device = |setting: &Setting| {
                    let workload = setting.workload();
                    let (network, batch) = (workload.network(), workload.batches().next_batch());
                    (collect(&network, None), measure(&network, &batch, &setting.config()))
                };
                let ((own_parameters, own_device), (stock_parameters, stock_device)) =
                    (on_device(&own), on_device(&stock));
                let what = format!("{own:?}");
                assert_eq!(joined(&stock, &stock_parameters), own_parameters, "{what}");
                worst = worst.max(assert_all_close(&what, &stock_device.outputs, &own_device.outputs, 2e-6));
                let gradients = joined(&stock, &stock_device.gradients);
                assert_eq!(gradients.keys().collect::<Vec<_>>(), own_device.gradients.keys().collect::<Vec<_>>());
                for (path, gradient) in &gradients {
                    let what = format!("{path} of {what}");
                    worst = worst.max(assert_all_close(&what, gradient, &own_device.gradients[path], 1e-5));
                }
                for (layer, (own, stock)) in own_device.layers.iter().zip(&stock_device.layers).enumerate() {
                    let what = format!("states of layer {layer} of {what}");
                    worst = worst.max(assert_all_close(&what, &stock.states[0], &own.states[0], 1e-5));
                }
            }
        }
    }
    println!("own and stock: largest difference {worst:.1e}");
}

fn train_losses(rows: &RunRows) -> Vec<f64> {
    rows.steps.iter().filter(|row| row.phase == StepPhase::Train).map(|row| row.loss.expect("finite")).collect()
}

#[test]
fn burns_layers_learn_what_gradmarks_learn_step_by_step() {
    let mut worst = 0.0_f64;
    for cell in CELLS {
        for (optimizer, truncation) in [("sgd", None), ("adam", Some(3))] {
            let training = format!("optimizer = \"{optimizer}\"");
            let own = Setting { truncation, training, probe: "every = 5".to_owned(), ..setting(cell, PARITY) };
            let stock = Setting { is_stock: true, ..own.clone() };
            let ((_, own_rows), (_, stock_rows)) = (own.run(), stock.run());
            let what = format!("{own:?}");
            let losses = train_losses(&own_rows);
            assert_eq!(losses.len(), 20, "{what}");
            assert!((losses[0] / losses[19] - 1.0).abs() > 1e-3, "nothing changed: {what}");
            worst = worst.max(assert_all_close(&what, &train_losses(&stock_rows), &losses, 1e-4));
            let states = |rows: &RunRows| -> Vec<f64> {
                let states = rows.activations.iter().filter(|row| row.time_step.is_some());
                states.map(|row| row.hidden_grad_l2.expect("finite")).collect()
            };
            // Steps 0, 5, 10, 15 and 19; two layers; the initial state and seven more.
            assert_eq!(states(&own_rows).len(), 5 * 2 * 8, "{what}");
            worst = worst.max(assert_all_close(&what, &states(&stock_rows), &states(&own_rows), 1e-3));
        }
    }
    println!("20 steps of own and stock: largest difference {worst:.1e}");
}

// ---------------------------------------------------------------------------------------------------------------------
// What a run records.

/// Sums of squares by time step.
fn norms_by_step(gradient: &[f64], steps: usize) -> Vec<f64> {
    gradient.chunks(gradient.len() / steps).map(norm).collect()
}

#[test]
fn rows_of_time_steps_follow_that_of_their_layer_in_order_and_hold_the_gradients_of_the_states() {
    for cell in CELLS {
        let setting = Setting { batch: 40, truncation: Some(4), ..setting(cell, PARITY) };
        let comparison = Comparison::new(setting.clone());
        let (_, rows) = setting.run();
        let of_step: Vec<_> = rows.activations.iter().filter(|row| row.step == 0).collect();
        assert_eq!(of_step.len(), 2 * (1 + 8), "{cell:?}");
        for (layer, rows) in of_step.chunks(9).enumerate() {
            let LayerGradients { delta, states } = &comparison.device.layers[layer];
            let what = format!("layer {layer} of {cell:?}");
            assert!(
                rows.iter().all(|row| (row.layer_index, row.layer.as_str()) == (layer, &format!("hidden.{layer}")))
            );
            let time_steps: Vec<Option<usize>> = rows.iter().map(|row| row.time_step).collect();
            assert_eq!(time_steps, [None, Some(0), Some(1), Some(2), Some(3), Some(4), Some(5), Some(6), Some(7)]);
            let hidden: Vec<f64> = rows[1..].iter().map(|row| row.hidden_grad_l2.expect("finite")).collect();
            assert_all_close(&what, &hidden, &norms_by_step(&states[0], 8), 1e-6);
            if let Some(cells) = states.get(1) {
                let found: Vec<f64> = rows[1..].iter().map(|row| row.cell_grad_l2.expect("finite")).collect();
                assert_all_close(&what, &found, &norms_by_step(cells, 8), 1e-6);
            } else {
                assert!(rows.iter().all(|row| row.cell_grad_l2.is_none()), "{what}");
            }
            assert!(rows[1..].iter().all(|row| row.delta_l2.is_none() && row.activation_mean.is_none()), "{what}");
            let whole = rows[0];
            assert_eq!((whole.hidden_grad_l2, whole.cell_grad_l2), (None, None), "{what}");
            let delta = norm(delta.as_ref().expect("a delta"));
            assert_close(&what, whole.delta_l2.expect("finite"), delta, 1e-5 * delta);
            let bias = norm(&comparison.device.gradients[&format!("hidden.{layer}.input.bias")]);
            assert_close(&what, whole.mean_delta_l2.expect("finite"), bias, 1e-5 * bias);
            let activations: Vec<f64> = comparison.base.states[layer]
                .iter()
                .flat_map(|states| states[1..].iter().flat_map(|state| state.hidden.clone()))
                .collect();
            let mean = activations.iter().sum::<f64>() / activations.len() as f64;
            let squares = activations.iter().map(|x| (x - mean).powi(2)).sum::<f64>();
            let std = (squares / activations.len() as f64).sqrt();
            assert_close(&what, whole.activation_mean.expect("finite"), mean, 1e-5);
            assert_close(&what, whole.activation_std.expect("finite"), std, 1e-5);
            assert_eq!(whole.saturated_fraction.is_some(), matches!(cell, Cell::Tanh | Cell::Relu | Cell::Sigmoid));
            assert_eq!(whole.dead_fraction.is_some(), cell == Cell::Relu, "{what}");
        }
    }
}

#[test]
fn rows_of_gates_are_their_mean_and_how_many_are_closed_and_open() {
    for (cell, gates) in
        [(Cell::Lstm, &[Gate::Input, Gate::Forget, Gate::Output][..]), (Cell::Gru, &[Gate::Reset, Gate::Update])]
    {
        // Weights so large that a good part of the gates is closed or open.
        let network = "weight_init = \"lecun\"\nweight_scale = 4.0\nrecurrent_scale = 3.0".to_owned();
        let setting = Setting { batch: 40, network, ..setting(cell, PARITY) };
        let comparison = Comparison::new(setting.clone());
        let (_, rows) = setting.run();
        let mut found = rows.gates.iter().filter(|row| row.step == 0);
        let (mut closed, mut open) = (0.0, 0.0);
        for layer in 0..2 {
            for time_step in 1..=7 {
                for (place, gate) in gates.iter().enumerate() {
                    let row = found.next().expect("a row");
                    let what = format!("{gate:?} of layer {layer} at {time_step}");
                    assert_eq!((row.layer_index, row.time_step, row.gate), (layer, time_step, *gate), "{what}");
                    let of_example = |example: &Vec<Vec<Vec<f64>>>| example[time_step - 1][place].clone();
                    let values: Vec<f64> = comparison.base.gates[layer].iter().flat_map(of_example).collect();
                    let count = values.len() as f64;
                    let share = |keep: &dyn Fn(f64) -> bool| values.iter().filter(|x| keep(**x)).count() as f64 / count;
                    assert_close(&what, row.mean.expect("finite"), values.iter().sum::<f64>() / count, 1e-5);
                    assert_close(&what, row.low_fraction.expect("finite"), share(&|x| x < 0.05), 1e-6);
                    assert_close(&what, row.high_fraction.expect("finite"), share(&|x| x > 0.95), 1e-6);
                    closed += share(&|x| x < 0.05);
                    open += share(&|x| x > 0.95);
                }
            }
        }
        assert!(found.next().is_none(), "no other rows");
        assert!(closed > 0.5 && open > 0.5, "{cell:?}: {closed} {open}");
    }
    let (_, rows) = setting(Cell::Tanh, PARITY).run();
    assert!(rows.gates.is_empty(), "a vanilla RNN has no gates");
}

// ---------------------------------------------------------------------------------------------------------------------
// Initialization.

/// A gate's part of a matrix of all gates.
fn gate_part(values: &[f64], gates: usize, place: usize, units: usize) -> nalgebra::DMatrix<f64> {
    let rows = values.len() / (gates * units);
    nalgebra::DMatrix::from_fn(rows, units, |row, column| values[row * gates * units + place * units + column])
}

fn initial(cell: Cell, network: &str) -> BTreeMap<String, Vec<f64>> {
    let network = network.to_owned();
    let setting = Setting { network, width: 6, depth: 1, ..setting(cell, COPYING) };
    collect(&setting.workload().network(), None)
}

#[test]
fn every_gate_has_an_orthogonal_matrix_of_its_own() {
    for (cell, scale) in [(Cell::Tanh, 1.0), (Cell::Lstm, 1.0), (Cell::Gru, 0.7)] {
        let keys =
            format!("weight_init = \"orthogonal\"\nrecurrent_init = \"orthogonal\"\nrecurrent_scale = {scale:?}");
        let parameters = initial(cell, &keys);
        for (name, scale) in [("input", 1.0), ("recurrent", scale)] {
            let weight = &parameters[&format!("hidden.0.{name}.weight")];
            let parts: Vec<_> = (0..cell.gates()).map(|place| gate_part(weight, cell.gates(), place, 6)).collect();
            for part in &parts {
                for value in part.clone().singular_values().iter() {
                    assert_close(&format!("{name} of {cell:?}"), *value, scale, 1e-6);
                }
            }
            assert!(parts.windows(2).all(|pair| (&pair[0] - &pair[1]).norm() > 0.1), "{name} of {cell:?}: equal gates");
        }
    }
}

#[test]
fn the_identity_and_zero_are_those_of_every_gate() {
    for cell in [Cell::Relu, Cell::Lstm, Cell::Gru] {
        let parameters = initial(cell, "weight_init = \"zero\"\nrecurrent_init = \"identity\"\nrecurrent_scale = 0.5");
        assert!(parameters["hidden.0.input.weight"].iter().all(|weight| *weight == 0.0), "{cell:?}");
        for place in 0..cell.gates() {
            let part = gate_part(&parameters["hidden.0.recurrent.weight"], cell.gates(), place, 6);
            assert_eq!(part, nalgebra::DMatrix::identity(6, 6) * 0.5, "{cell:?}");
        }
        let parameters = initial(cell, "weight_init = \"lecun\"\nrecurrent_init = \"zero\"");
        assert!(parameters["hidden.0.recurrent.weight"].iter().all(|weight| *weight == 0.0), "{cell:?}");
    }
}

#[test]
fn the_bias_of_the_forget_gate_and_of_the_update_gate_is_that_of_the_second_gate_alone() {
    let biases = |cell, keys: &str| {
        let parameters =
            initial(cell, &format!("weight_init = \"lecun\"\nbias_init = \"constant\"\nbias_value = 0.25\n{keys}"));
        assert!(parameters["output.bias"].iter().all(|bias| *bias == 0.25));
        (parameters["hidden.0.input.bias"].clone(), parameters.get("hidden.0.recurrent.bias").cloned())
    };
    let gates = |values: &[f64]| values.iter().flat_map(|value| [*value; 6]).collect::<Vec<f64>>();
    assert_eq!(biases(Cell::Lstm, ""), (gates(&[0.25, 1.0, 0.25, 0.25]), None));
    assert_eq!(biases(Cell::Lstm, "forget_bias = -2.0"), (gates(&[0.25, -2.0, 0.25, 0.25]), None));
    assert_eq!(biases(Cell::Gru, ""), (gates(&[0.25; 3]), Some(gates(&[0.25]))));
    assert_eq!(biases(Cell::Gru, "update_bias = 3.0"), (gates(&[0.25, 3.0, 0.25]), Some(gates(&[0.25]))));
    assert_eq!(biases(Cell::Tanh, ""), (gates(&[0.25]), None));
    for cell in CELLS {
        let parameters = initial(cell, "weight_init = \"lecun\"\nbias_init = \"off\"");
        let paths: Vec<&String> = parameters.keys().collect();
        assert_eq!(paths, ["hidden.0.input.weight", "hidden.0.recurrent.weight", "output.weight"], "{cell:?}");
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// Remedies.

#[test]
fn penalties_and_decay_reach_both_weights_of_a_recurrent_layer_and_no_bias() {
    for cell in [Cell::Tanh, Cell::Lstm, Cell::Gru] {
        for is_stock in [false, true] {
            let rows = |training: &str| {
                let task = Task { training: "learning_rate = 1e-6\nsteps = 1", ..PARITY };
                Setting { is_stock, training: training.to_owned(), ..setting(cell, task) }.run().1.gradients
            };
            let (plain, penalized, decayed) = (rows(""), rows("l2 = 1e6"), rows("weight_decay = 1e5"));
            assert!(plain.iter().filter(|row| row.parameter.ends_with("weight")).count() >= 5, "{cell:?}");
            assert_eq!((plain.len(), plain.len()), (penalized.len(), decayed.len()));
            for ((plain, penalized), decayed) in plain.iter().zip(&penalized).zip(&decayed) {
                let what = format!("{} of {cell:?}", plain.parameter);
                let weight = plain.weight_l2.expect("finite");
                let (update, gradient) = (decayed.update_l2.expect("finite"), penalized.grad_l2.expect("finite"));
                if plain.parameter.ends_with("weight") {
                    assert_close(&what, gradient, 1e6 * weight, 1e-4 * 1e6 * weight);
                    assert_close(&what, update, 0.1 * weight, 1e-4 * weight);
                } else {
                    // What is measured on the way of an update is summed up in f32, a block at a time.
                    let (gradient_alone, update_alone) =
                        (plain.grad_l2.expect("finite"), plain.update_l2.expect("finite"));
                    assert_close(&what, gradient, gradient_alone, 1e-7 * gradient_alone);
                    assert_close(&what, update, update_alone, 1e-7 * update_alone);
                }
            }
        }
    }
}

#[test]
fn every_kind_of_clipping_bounds_the_updates_of_recurrent_parameters() {
    for cell in [Cell::Tanh, Cell::Lstm, Cell::Gru] {
        let rows = |kind: &str, threshold: f64| {
            let task = Task { training: "learning_rate = 1.0\nsteps = 1", ..PARITY };
            let training = format!("clipping = \"{kind}\"\nclip_threshold = {threshold:?}");
            Setting { training, ..setting(cell, task) }.run().1
        };
        let by_norm = rows("tensor_norm", 0.05);
        let total = by_norm.gradients.iter().map(|row| row.grad_l2.expect("finite")).fold(0.0, f64::hypot);
        for row in &by_norm.gradients {
            let expected = row.grad_l2.expect("finite").min(0.05);
            assert_close(&row.parameter, row.update_l2.expect("finite"), expected, 1e-4 * expected);
        }
        for row in &rows("global_norm", total / 4.0).gradients {
            let expected = row.grad_l2.expect("finite") / 4.0;
            assert_close(&row.parameter, row.update_l2.expect("finite"), expected, 1e-4 * expected);
        }
        for row in &rows("value", 1e-3).gradients {
            let most = 1e-3 * (row.element_count as f64).sqrt();
            let update = row.update_l2.expect("finite");
            assert!(
                update <= most * 1.001 && update > 0.3 * most.min(row.grad_l2.expect("finite")),
                "{}",
                row.parameter
            );
        }
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// The ends.

/// 3^200 does not fit into f32.
#[test]
fn an_identity_rnn_of_gain_3_diverges_in_200_steps_and_its_rows_say_so() {
    let task = Task {
        data: "set = \"parity\"\nsequence_length = 200\nexamples = 40",
        network: "",
        training: "learning_rate = 0.1\nsteps = 5",
    };
    for is_stock in [false, true] {
        let network = "weight_init = \"lecun\"\nrecurrent_init = \"orthogonal\"\nrecurrent_scale = 3.0".to_owned();
        let setting = Setting { is_stock, network, depth: 1, ..setting(Cell::Identity, task) };
        let (status, rows) = setting.run();
        assert_eq!(status, RunStatus::Diverged { diverged_at_step: 0 });
        let losses = rows.steps.iter().filter(|row| row.phase == StepPhase::Train);
        assert!(losses.clone().count() == 1 && losses.clone().all(|row| row.loss.is_none()));
        let weights = rows.gradients.iter().filter(|row| row.parameter.ends_with("weight"));
        assert!(weights.clone().count() >= 3);
        for row in weights {
            assert!(row.nonfinite_count > 0 && row.grad_l2.is_none(), "{row:?}");
        }
        let states: Vec<_> = rows.activations.iter().filter(|row| row.time_step.is_some()).collect();
        assert_eq!(states.len(), 201);
        assert!(states.iter().all(|row| row.hidden_grad_l2.is_none()), "an infinite gradient is no number");
    }
}

#[test]
fn sequences_of_one_step_and_of_thousands_and_networks_of_one_unit_are_trained() {
    for cell in CELLS {
        for is_stock in [false, true] {
            let long = if is_stock { 400 } else { 2000 };
            for (length, batch, width, depth) in [(1, 1, 1, 1), (1, 3, 5, 2), (long, 2, 3, 1)] {
                let data = format!("set = \"parity\"\nsequence_length = {length}\nexamples = 6").leak();
                let task = Task { data, network: "", training: "learning_rate = 0.01\nsteps = 2" };
                let setting = Setting {
                    is_stock,
                    batch,
                    width,
                    depth,
                    truncation: (length > 1).then_some(300),
                    probe: "inputs = true\nunits = true".to_owned(),
                    ..setting(cell, task)
                };
                let (_, rows) = setting.run();
                let states = rows.activations.iter().filter(|row| row.step == 0 && row.time_step.is_some());
                assert_eq!(states.count(), depth * (length + 1), "{setting:?}");
                let recurrent = |row: &&gradmark::schema::GradientRow| {
                    row.step == 0
                        && (row.parameter.contains("recurrent.weight") || row.parameter.contains("hidden_transform"))
                };
                for row in rows.gradients.iter().filter(recurrent) {
                    let is_zero = row.zero_count == row.element_count as u64;
                    assert!(is_zero || length > 1 || row.parameter.ends_with("bias"), "{}: {setting:?}", row.parameter);
                }
            }
        }
    }
}

#[test]
fn what_is_not_a_number_stays_so_and_is_counted() {
    for cell in CELLS {
        for is_stock in [false, true] {
            let setting = Setting { is_stock, ..setting(cell, ADDING) };
            let workload = setting.workload();
            let batch = workload.batches().next_batch();
            let mut inputs = numbers(batch.inputs.clone().inner());
            inputs[3] = f64::NAN;
            let data = TensorData::new(inputs, batch.inputs.dims());
            let batch = Batch { inputs: Tensor::from_data(data, &tracked()), ..batch };
            let device = measure(&workload.network(), &batch, &setting.config());
            assert!(device.loss.is_nan(), "{setting:?}");
            let network = workload.network();
            let (_, _) = make_step(network, batch, &setting.config().training, Some(&mut workload.optimizer()), None);
            for (path, gradient) in &device.gradients {
                let is_behind_relu = cell == Cell::Relu && path.starts_with("hidden");
                assert!(is_behind_relu || gradient.iter().any(|x| x.is_nan()), "{path} of {setting:?}");
            }
        }
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// Speed.

/// A product of m x k and k x n has m n k multiplications and as many additions. A layer multiplies its input, in the forward
/// pass and for the gradient of the weights, and but for the first one for that of the input; its state, all three times.
#[test]
fn the_operations_of_a_recurrent_network_are_those_of_its_products() {
    for (cell, gates) in [(Cell::Tanh, 1), (Cell::Gru, 3), (Cell::Lstm, 4)] {
        for is_stock in [false, true] {
            for (task, steps, inputs, outputs, answers) in [(PARITY, 7, 1, 2, 7), (TEMPORAL_ORDER, 10, 6, 4, 1)] {
                let workload = Setting { is_stock, ..setting(cell, task) }.workload();
                let (batch, units) = (4, 5);
                let product = |m: usize, k: usize, n: usize| 2 * m * k * n;
                let rows = steps * batch;
                let state = 3 * product(rows, units, gates * units);
                let first = 2 * product(rows, inputs, gates * units) + state;
                let second = 3 * product(rows, units, gates * units) + state;
                let output = 3 * product(answers * batch, units, outputs);
                assert_eq!(workload.flops_per_step(), (first + second + output) as f64, "{cell:?} {task:?}");
            }
        }
    }
}
