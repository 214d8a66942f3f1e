//! Every family of networks against forward passes in f64 that share no code with the program (`reference`): outputs and
//! costs directly, gradients, deltas and the gradients of inputs against central differences.

#![cfg(feature = "flex")]

mod reference;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::tensor::{Device, Tensor, TensorData, s};
use gradmark::config::{Activation, BlockOrder, Loss, NetworkKind, Norm, ProbeConfig, RunConfig, Source};
use gradmark::data::{Batch, Sources};
use gradmark::network::{Network, Pass, Wanted};
use gradmark::plan::plan;
use gradmark::probe::{Path as ParameterPath, Probe, Rows};
use gradmark::schema::ActivationRow;
use gradmark::train::{Workload, evaluate, make_step, mean_loss};
use reference::{Form, Nudge, Outcome, Parameter, Parameters, Signal, Site, Statistics, cost, forward};

/// The largest difference of a gradient's element, relative to the root mean square of its tensor.
const TOLERANCE: f64 = 5e-4;
/// What f32 leaves of gradients that are 0, relative to the norm of all gradients.
const ROUNDING: f64 = 1e-6;

const ACTIVATIONS: [(Activation, usize); 12] = [
    (Activation::Sigmoid, 1),
    (Activation::Tanh, 1),
    (Activation::Relu, 1),
    (Activation::LeakyRelu, 1),
    (Activation::Prelu, 1),
    (Activation::Elu, 1),
    (Activation::Selu, 1),
    (Activation::Gelu, 1),
    (Activation::Softplus, 1),
    (Activation::Maxout, 2),
    (Activation::Maxout, 3),
    (Activation::Identity, 1),
];
const NORMS: [(Norm, bool); 5] =
    [(Norm::None, false), (Norm::Batch, false), (Norm::Batch, true), (Norm::Layer, false), (Norm::Layer, true)];
const LOSSES: [Loss; 4] = [Loss::SoftmaxCrossEntropy, Loss::SigmoidCrossEntropy, Loss::Quadratic, Loss::LinearProbe];
const ORDERS: [BlockOrder; 3] =
    [BlockOrder::PreActivation, BlockOrder::PostActivation, BlockOrder::ActivationBeforeAddition];

fn form(kind: NetworkKind, depth: usize, width: usize, (activation, pieces): (Activation, usize)) -> Form {
    Form {
        kind,
        depth,
        width,
        activation,
        slope: if activation == Activation::LeakyRelu { 0.1 } else { 0.0 },
        pieces,
        norm: Norm::None,
        norms_after_activation: false,
        norm_epsilon: 0.01,
        norm_momentum: 0.3,
        block_order: if kind == NetworkKind::Convolutional { ORDERS[1] } else { ORDERS[0] },
        block_layers: 1,
        branch_scale: 1.0,
        has_stem: kind == NetworkKind::Residual,
        has_shortcuts: !matches!(kind, NetworkKind::Plain | NetworkKind::Autoencoder),
        loss: Loss::SoftmaxCrossEntropy,
    }
}

/// What serde calls a value.
fn name(value: impl serde::Serialize) -> String {
    serde_json::to_string(&value).expect("a name")
}

/// `[network]` as a user would write it: nothing that is the default, and nothing that has no meaning.
fn network_section(form: &Form) -> String {
    let mut lines = vec![
        format!("kind = {}", name(form.kind)),
        format!("depth = {}\nwidth = {}", form.depth, form.width),
        format!("activation = {}", name(form.activation)),
        "weight_init = \"he\"\nbias_init = \"normal\"\nbias_std = 0.4".to_owned(),
    ];
    let mut add = |is_meant: bool, line: String| lines.extend(is_meant.then_some(line));
    add(form.activation == Activation::LeakyRelu, format!("slope = {}", form.slope));
    add(form.activation == Activation::Maxout, format!("pieces = {}", form.pieces));
    add(form.norm != Norm::None, format!("norm = {}\nnorm_epsilon = {}", name(form.norm), form.norm_epsilon));
    add(form.norm == Norm::Batch, format!("norm_momentum = {}", form.norm_momentum));
    add(form.norms_after_activation, "norm_place = \"after_activation\"".to_owned());
    let is_residual = form.kind == NetworkKind::Residual;
    add(is_residual && form.block_layers == 2, "block_layers = 2".to_owned());
    add(is_residual && !form.has_stem, "stem = false".to_owned());
    add(form.kind == NetworkKind::Convolutional && !form.has_shortcuts, "shortcut = \"none\"".to_owned());
    let default = if is_residual { BlockOrder::PreActivation } else { BlockOrder::PostActivation };
    add(form.has_shortcuts && form.block_order != default, format!("block_order = {}", name(form.block_order)));
    let blocks = if is_residual { form.depth / form.block_layers } else { (form.depth - 2) / 2 };
    if form.branch_scale == 1.0 / (blocks as f64).sqrt() && blocks > 1 {
        add(true, "branch_scale = \"inverse_sqrt_blocks\"".to_owned());
    } else {
        add(form.branch_scale != 1.0, format!("branch_scale = {}", form.branch_scale));
    }
    lines.join("\n")
}

/// Small batches of the digits, or of numbers from N(0, 1) where no stem brings the digits to the width.
fn config(form: &Form, steps: usize) -> RunConfig {
    let data = if form.has_stem || form.kind != NetworkKind::Residual || form.width == 64 {
        "examples = 90\nnormalization = \"standard\"".to_owned()
    } else {
        format!("set = \"gaussian\"\nfeatures = {}", form.width)
    };
    let rate = if steps == 0 { "" } else { "learning_rate = 0.05\n" };
    let text = format!(
        "[experiment]\nname = \"families\"\n[data]\n{data}\n[network]\n{}\n[training]\nloss = {}\nbatch_size = {}\n\
         {rate}steps = {steps}\n[probe]\ninputs = true\nunits = true\n",
        network_section(form),
        name(form.loss),
        7 + form.depth % 5,
    );
    let source = Source::parse(Path::new("families.toml"), &text, &[]).expect("parses");
    let mut runs = plan(&source, "flex").unwrap_or_else(|error| panic!("{error}\n{text}")).runs;
    runs.remove(0).config
}

fn flex() -> Device {
    let adapter = gradmark::device::find("flex".parse().expect("a name")).expect("compiled in");
    gradmark::device::open(&adapter).expect("opens")
}

fn numbers<const D: usize>(tensor: Tensor<D>) -> Vec<f64> {
    tensor.into_data().iter::<f64>().collect()
}

fn signal(rows: Tensor<2>) -> Signal {
    Signal::rows(rows.dims()[0], numbers(rows))
}

/// Implements the ways into and out of a module for whoever has a `path`.
macro_rules! follow_path {
    () => {
        fn enter_module(&mut self, name: &str, container: &str) {
            self.path.enter(name, container);
        }

        fn exit_module(&mut self, _name: &str, container: &str) {
            self.path.exit(container);
        }
    };
}

/// Takes the parameters out of a network, or what belongs to them: a parameter without it is missing.
struct Collect<'a> {
    gradients: Option<&'a GradientsParams>,
    path: ParameterPath,
    found: Parameters,
}

impl ModuleVisitor for Collect<'_> {
    follow_path!();

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let tensor = match self.gradients {
            Some(gradients) => gradients.get::<D>(param.id),
            None => Some(param.val().inner()),
        };
        if let Some(tensor) = tensor {
            let parameter = Parameter { shape: tensor.dims().to_vec(), values: numbers(tensor) };
            assert!(self.found.insert(self.path.to_string(), parameter).is_none(), "{} is there twice", self.path);
        }
    }
}

fn collect(network: &Network, gradients: Option<&GradientsParams>) -> Parameters {
    let mut visitor = Collect { gradients, path: ParameterPath::default(), found: Parameters::new() };
    network.visit(&mut visitor);
    visitor.found
}

/// Moves gamma, beta and slopes away from where they start, so that mistaking one for the other shows.
#[derive(Default)]
struct Stir {
    path: ParameterPath,
    phase: f32,
}

impl ModuleMapper for Stir {
    follow_path!();

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        if !["gamma", "beta", "slope"].iter().any(|name| self.path.to_string().ends_with(name)) {
            return param;
        }
        self.phase += 1.0;
        let phase = self.phase;
        param.map(|values| {
            let values = values.inner();
            let moves: Vec<f32> = (0..values.dims()[0]).map(|unit| 0.3 * (phase + 2.0 * unit as f32).sin()).collect();
            let moves = Tensor::from_data(TensorData::new(moves, values.dims()), &values.device());
            Tensor::from_inner(values + moves).require_grad()
        })
    }
}

/// What the program makes of a batch.
struct OnDevice {
    outputs: Signal,
    loss: f64,
    gradients: Parameters,
    /// Deltas and gradients of inputs.
    sites: BTreeMap<(Site, String), Vec<f64>>,
    rows: Rows,
}

fn measure(network: &Network, batch: &Batch, config: &RunConfig) -> OnDevice {
    let pass = |wanted: Wanted| {
        let mut pass = Pass::traced(wanted);
        let outputs = network.forward(batch.inputs.clone(), &mut pass);
        let loss = mean_loss(config.training.loss, outputs.clone(), batch.targets.clone());
        let gradients = loss.backward();
        let (trace, statistics) = pass.finish();
        (outputs, loss, gradients, trace, statistics)
    };
    // Layers whose inputs' gradients are wanted are operations of their own.
    let mut sites = BTreeMap::new();
    let (.., gradients, trace, single) = pass(Wanted { inputs: true, ..Wanted::default() });
    for layer in trace {
        let tensors = layer.tensors().expect("an operation of its own");
        for (site, offset) in [(Site::PreActivation, &tensors.offset), (Site::Input, &tensors.input_offset)] {
            if let Some(offset) = offset {
                let gradient = offset.grad(&gradients).unwrap_or_else(|| panic!("{site:?} of {}", layer.layer));
                sites.insert((site, layer.layer.clone()), numbers(gradient));
            }
        }
    }
    // Else some go through the graph together, as in training.
    let (outputs, loss, gradients, _, together) = pass(Wanted::default());
    assert_eq!(single.len(), together.len());
    for (single, together) in single.into_iter().zip(together) {
        for (single, together) in [(single.mean, together.mean), (single.variance, together.variance)] {
            for (single, together) in numbers(single).into_iter().zip(numbers(together)) {
                assert_close("statistics", together, single, 1e-5 * single.abs().max(1.0));
            }
        }
    }
    let gradients = collect(network, Some(&GradientsParams::from_grads(gradients, network)));
    let rows = |probe: &ProbeConfig| {
        let mut probe = Probe::new("r", probe, config.network.function());
        let (_, measurement) = make_step(network.clone(), batch.clone(), &config.training, None, Some((&mut probe, 0)));
        probe.keep_loss(0, 0, None, measurement);
        probe.read().expect("reads")
    };
    let together = rows(&ProbeConfig { inputs: false, units: false, ..config.probe.clone() });
    let rows = rows(&config.probe);
    assert_same_layers(&together.activations, &rows.activations);
    OnDevice { outputs: signal(outputs.inner()), loss: numbers(loss.inner())[0], gradients, sites, rows }
}

/// Holds what was measured of layers on their way through the graph to what was measured of tensors.
#[track_caller]
fn assert_same_layers(together: &[ActivationRow], single: &[ActivationRow]) {
    let single: Vec<&ActivationRow> = single.iter().filter(|row| row.layer != "output").collect();
    assert_eq!(together.len(), single.len());
    // A delta that is 0 but for rounding has no digits of its own.
    let largest = single.iter().flat_map(|row| [row.delta_l2, row.input_grad_l2]).flatten().fold(0.0, f64::max);
    for (together, single) in together.iter().zip(single) {
        assert_eq!((&together.layer, together.layer_index), (&single.layer, single.layer_index));
        let columns = |row: &ActivationRow| {
            let activations = [row.activation_mean, row.activation_std, row.saturated_fraction, row.dead_fraction];
            ([row.delta_l2, row.mean_delta_l2], activations)
        };
        let ((deltas, activations), (of_deltas, of_activations)) = (columns(together), columns(single));
        // Before batch norm the mean delta is 0 but for rounding.
        let scales = (single.delta_l2.unwrap_or_default(), single.activation_std.unwrap_or_default());
        let pairs = deltas.into_iter().zip(of_deltas).map(|pair| (pair, scales.0));
        for ((found, expected), scale) in
            pairs.chain(activations.into_iter().zip(of_activations).map(|pair| (pair, scales.1)))
        {
            assert_eq!(found.is_some(), expected.is_some(), "{together:?} and {single:?}");
            if let Some((found, expected)) = found.zip(expected) {
                let tolerance = 1e-5 * expected.abs() + 2e-5 * scale + ROUNDING * largest;
                assert_close(&format!("{together:?} and {single:?}"), found, expected, tolerance);
            }
        }
    }
}

fn norm(values: &[f64]) -> f64 {
    values.iter().map(|x| x * x).sum::<f64>().sqrt()
}

#[track_caller]
fn assert_close(what: &str, found: f64, expected: f64, tolerance: f64) {
    assert!((found - expected).abs() <= tolerance, "{what}: {found}, expected {expected} +- {tolerance}");
}

/// The derivative by central differences, unless there is a kink in between.
fn derivative(at: impl Fn(f64) -> (f64, Vec<u8>)) -> Option<f64> {
    [1e-5, 1e-7].into_iter().find_map(|h| {
        let (above, below) = (at(h), at(-h));
        (above.1 == below.1).then(|| (above.0 - below.0) / (2.0 * h))
    })
}

/// All places of a list of up to `most`; of a longer one some, spread over it.
fn sample(count: usize, most: usize) -> Vec<usize> {
    if count <= most { (0..count).collect() } else { (0..most.min(24)).map(|k| (k * 7919 + 5) % count).collect() }
}

/// A network on the device and in f64, with a batch.
struct Comparison {
    name: String,
    form: Form,
    parameters: Parameters,
    inputs: Signal,
    targets: Vec<f64>,
    device: OnDevice,
    /// Derivatives that were compared, and those that were left out for a kink.
    compared: usize,
    kinks: usize,
    worst: f64,
}

impl Comparison {
    fn new(form: Form) -> Self {
        let config = config(&form, 0);
        let workload = Workload::new(&config, 5, &Sources::default().load(&config, 5).expect("embedded"), &flex());
        let network = workload.network().map(&mut Stir::default());
        let batch = workload.batches().next_batch();
        Self {
            name: format!("{form:?}"),
            parameters: collect(&network, None),
            inputs: signal(batch.inputs.clone().inner()),
            targets: numbers(batch.targets.clone().inner()),
            device: measure(&network, &batch, &config),
            form,
            compared: 0,
            kinks: 0,
            worst: 0.0,
        }
    }

    fn forward(&self, parameters: &Parameters, nudge: Option<&Nudge<'_>>) -> Outcome {
        forward(&self.form, parameters, &self.inputs, None, nudge)
    }

    fn cost(&self, outcome: &Outcome) -> f64 {
        cost(self.form.loss, &outcome.outputs, &self.targets)
    }

    fn check_outputs(&self) -> Outcome {
        let outcome = self.forward(&self.parameters, None);
        let scale = norm(&outcome.outputs.values);
        for (found, expected) in self.device.outputs.values.iter().zip(&outcome.outputs.values) {
            assert_close(&format!("output of {}", self.name), *found, *expected, 1e-5 * scale);
        }
        assert_eq!(self.device.outputs.values.len(), outcome.outputs.values.len(), "{}", self.name);
        let expected = self.cost(&outcome);
        let tolerance = 1e-5 * (expected.abs() + scale);
        assert_close(&format!("loss of {}", self.name), self.device.loss, expected, tolerance);
        outcome
    }

    /// Compares elements of a gradient with derivatives by differences.
    fn check(&mut self, what: &str, gradient: &[f64], derivatives: Vec<(usize, Option<f64>)>) {
        let all: Vec<f64> = self.device.gradients.values().map(|gradient| norm(&gradient.values)).collect();
        let rms = norm(gradient) / (gradient.len() as f64).sqrt();
        let floor = ROUNDING * norm(&all);
        for (element, derivative) in derivatives {
            match derivative {
                Some(expected) => {
                    let what = format!("{what}[{element}] of {}", self.name);
                    let found = gradient[element];
                    self.worst = self.worst.max((found - expected).abs() / (rms + floor / TOLERANCE));
                    assert_close(&what, found, expected, TOLERANCE * rms + floor);
                    self.compared += 1;
                }
                None => self.kinks += 1,
            }
        }
    }

    /// Compares the gradient of every parameter, at up to `most` of its elements.
    fn check_parameters(&mut self, most: usize) {
        let paths: Vec<String> = self.parameters.keys().cloned().collect();
        let with_gradient: Vec<String> = self.device.gradients.keys().cloned().collect();
        assert_eq!(with_gradient, paths, "every parameter has a gradient: {}", self.name);
        let named: BTreeSet<&str> = self.device.rows.gradients.iter().map(|row| row.parameter.as_str()).collect();
        assert_eq!(named.into_iter().collect::<Vec<&str>>(), paths, "{}", self.name);
        for path in paths {
            let gradient = self.device.gradients[&path].values.clone();
            let by_differences = |element: usize| {
                let at = |by: f64| {
                    let mut moved = self.parameters.clone();
                    moved.get_mut(&path).expect("a path").values[element] += by;
                    let outcome = self.forward(&moved, None);
                    (self.cost(&outcome), outcome.sides)
                };
                (element, derivative(at))
            };
            let derivatives = sample(gradient.len(), most).into_iter().map(by_differences).collect();
            self.check(&path, &gradient, derivatives);
        }
    }

    /// Compares deltas and gradients of inputs, at up to `most` of their elements; with all of them, the rows too.
    fn check_layers(&mut self, sites: &BTreeMap<(Site, String), usize>, most: usize) {
        let found: Vec<_> = self.device.sites.iter().map(|(site, values)| (site, values.len())).collect();
        let expected: Vec<_> = sites.iter().map(|(site, count)| (site, *count)).collect();
        assert_eq!(found, expected, "{}", self.name);
        for ((site, layer), count) in sites {
            let gradient = self.device.sites[&(*site, layer.clone())].clone();
            let by_differences = |element: usize| {
                let at = |by: f64| {
                    let nudge = Nudge { site: *site, layer, element, by };
                    let outcome = self.forward(&self.parameters, Some(&nudge));
                    (self.cost(&outcome), outcome.sides)
                };
                (element, derivative(at))
            };
            let derivatives: Vec<_> = sample(*count, most).into_iter().map(by_differences).collect();
            let all: Option<Vec<f64>> = derivatives.iter().map(|(_, derivative)| *derivative).collect();
            self.check(&format!("{site:?} {layer}"), &gradient, derivatives);
            if let Some(all) = all.filter(|_| *count <= most) {
                self.check_rows(*site, layer, &all);
            }
        }
    }

    /// `activations.csv` and `units.csv` against the gradient of every single element.
    fn check_rows(&self, site: Site, layer: &str, gradient: &[f64]) {
        let what = format!("{site:?} {layer} of {}", self.name);
        let row: &ActivationRow = self.device.rows.activations.iter().find(|row| row.layer == layer).expect(&what);
        let tolerance = TOLERANCE * norm(gradient) + ROUNDING;
        if site == Site::Input {
            assert_close(&what, row.input_grad_l2.expect(&what), norm(gradient), tolerance);
            return;
        }
        assert_close(&what, row.delta_l2.expect(&what), norm(gradient), tolerance);
        let units = gradient.len() / self.inputs.batch;
        let sums: Vec<f64> = (0..units).map(|unit| gradient.iter().skip(unit).step_by(units).sum()).collect();
        assert_close(&what, row.mean_delta_l2.expect(&what), norm(&sums), tolerance);
        let of_layer = self.device.rows.units.iter().filter(|row| row.layer == layer);
        let found: Vec<f64> = of_layer.map(|row| row.mean_delta.expect("finite")).collect();
        assert_eq!(found.len(), units, "{what}");
        for (found, expected) in found.iter().zip(&sums) {
            assert_close(&what, *found, *expected, tolerance);
        }
    }
}

/// Compares every network, with up to `most` elements of every tensor.
fn compare(forms: &[Form], most: usize) {
    let (mut compared, mut kinks, mut worst) = (0, 0, 0.0_f64);
    for form in forms {
        let mut comparison = Comparison::new(form.clone());
        let outcome = comparison.check_outputs();
        comparison.check_parameters(most.min(12));
        comparison.check_layers(&outcome.sites, most);
        compared += comparison.compared;
        kinks += comparison.kinks;
        worst = worst.max(comparison.worst);
    }
    println!("{} networks, {compared} derivatives, {kinks} at kinks, largest difference {worst:.1e}", forms.len());
    assert!(kinks * 100 < compared, "{kinks} of {compared} derivatives lie at kinks");
}

/// All elements of what a hidden layer of these networks makes of a batch.
const ALL: usize = 300;

#[test]
fn plain_networks_have_the_gradients_that_differences_in_f64_give() {
    let mut forms = Vec::new();
    for (place, activation) in ACTIVATIONS.into_iter().enumerate() {
        for (turn, (norm, norms_after_activation)) in NORMS.into_iter().enumerate() {
            let plain = form(NetworkKind::Plain, 3 + (place + turn) % 4, 5 + (place + 2 * turn) % 4, activation);
            forms.push(Form { norm, norms_after_activation, loss: LOSSES[(place + turn) % 4], ..plain });
        }
    }
    compare(&forms, ALL);
}

#[test]
fn autoencoders_have_the_gradients_that_differences_in_f64_give() {
    let activations = ACTIVATIONS.into_iter().filter(|(activation, _)| *activation != Activation::Maxout);
    let autoencoder = |(place, activation)| {
        let (norm, norms_after_activation) = NORMS[place % NORMS.len()];
        let form = form(NetworkKind::Autoencoder, 3 + 2 * (place % 2), 5 + place % 3, activation);
        Form { norm, norms_after_activation, loss: Loss::SquaredError, ..form }
    };
    compare(&activations.enumerate().map(autoencoder).collect::<Vec<Form>>(), ALL);
}

/// Residual networks of one block order; what they do not run through together changes from one to the next.
fn residual_networks(block_order: BlockOrder) -> Vec<Form> {
    let mut forms = Vec::new();
    for (place, activation) in ACTIVATIONS.into_iter().enumerate() {
        if activation.0 == Activation::Maxout && block_order != BlockOrder::ActivationBeforeAddition {
            continue;
        }
        for (turn, (norm, norms_after_activation)) in NORMS.into_iter().enumerate() {
            if norms_after_activation && block_order == BlockOrder::PostActivation {
                continue;
            }
            for block_layers in [1, 2] {
                let turn = place + turn + block_layers;
                let depth = block_layers * [2, 3, 2][turn % 3] + block_layers % 2;
                let blocks = (depth / block_layers) as f64;
                let has_stem = turn % 5 > 0;
                forms.push(Form {
                    norm,
                    norms_after_activation,
                    block_order,
                    block_layers,
                    branch_scale: [1.0, 0.6, 1.0 / blocks.sqrt()][(turn + block_layers) % 3],
                    has_stem,
                    loss: if has_stem { LOSSES[turn % 4] } else { Loss::LinearProbe },
                    ..form(NetworkKind::Residual, depth, 5 + turn % 4, activation)
                });
            }
        }
    }
    forms
}

#[test]
fn networks_of_pre_activation_blocks_have_the_gradients_that_differences_in_f64_give() {
    compare(&residual_networks(BlockOrder::PreActivation), ALL);
}

#[test]
fn networks_of_post_activation_blocks_have_the_gradients_that_differences_in_f64_give() {
    compare(&residual_networks(BlockOrder::PostActivation), ALL);
}

#[test]
fn networks_of_activation_before_addition_have_the_gradients_that_differences_in_f64_give() {
    compare(&residual_networks(BlockOrder::ActivationBeforeAddition), ALL);
}

/// So deep that the layers take several nodes of the graph. They are measured together and by themselves.
#[test]
fn deep_networks_are_measured_alike_together_and_layer_by_layer() {
    let tanh = (Activation::Tanh, 1);
    let residual = |block_order, norm, block_layers| Form {
        norm,
        block_order,
        block_layers,
        ..form(NetworkKind::Residual, 130, 4, tanh)
    };
    for form in [
        form(NetworkKind::Plain, 130, 4, tanh),
        form(NetworkKind::Plain, 90, 3, (Activation::Prelu, 1)),
        Form { norm: Norm::Batch, norms_after_activation: true, ..form(NetworkKind::Plain, 60, 4, tanh) },
        Form { norm: Norm::Layer, ..form(NetworkKind::Plain, 60, 4, tanh) },
        residual(BlockOrder::PreActivation, Norm::Batch, 2),
        residual(BlockOrder::PreActivation, Norm::Layer, 2),
        residual(BlockOrder::PostActivation, Norm::None, 1),
        residual(BlockOrder::ActivationBeforeAddition, Norm::Batch, 2),
    ] {
        assert!(!Comparison::new(form).device.rows.activations.is_empty());
    }
}

/// The digits have 64 pixels: without a stem, so wide must a residual network be.
#[test]
fn residual_networks_without_a_stem_learn_the_digits_by_the_gradients_that_differences_in_f64_give() {
    let without_stem = |block_order, norm, loss| Form {
        has_stem: false,
        block_layers: 2,
        block_order,
        norm,
        loss,
        ..form(NetworkKind::Residual, 4, 64, (Activation::Tanh, 1))
    };
    compare(
        &[
            without_stem(BlockOrder::PreActivation, Norm::Batch, Loss::SoftmaxCrossEntropy),
            without_stem(BlockOrder::PostActivation, Norm::None, Loss::Quadratic),
            without_stem(BlockOrder::ActivationBeforeAddition, Norm::Layer, Loss::SigmoidCrossEntropy),
        ],
        20,
    );
}

/// Convolutional networks without shortcuts and with those of every order, and a third of the activation functions for each
/// place of the normalization.
fn convolutional_networks() -> Vec<Form> {
    let mut forms = Vec::new();
    for (kind, block_order) in [None, Some(ORDERS[0]), Some(ORDERS[1]), Some(ORDERS[2])].into_iter().enumerate() {
        for (turn, (norm, norms_after_activation)) in NORMS.into_iter().enumerate() {
            if norms_after_activation && block_order == Some(BlockOrder::PostActivation) {
                continue;
            }
            for (place, activation) in ACTIVATIONS.into_iter().enumerate() {
                let is_refused =
                    activation.0 == Activation::Maxout && block_order.is_some_and(|order| order != ORDERS[2]);
                if (place + kind + turn) % 3 > 0 || is_refused {
                    continue;
                }
                forms.push(Form {
                    norm,
                    norms_after_activation,
                    has_shortcuts: block_order.is_some(),
                    block_order: block_order.unwrap_or(ORDERS[1]),
                    branch_scale: if block_order.is_some() && turn % 2 == 1 { 1.0 / 3.0_f64.sqrt() } else { 1.0 },
                    loss: LOSSES[(place + turn + kind) % 4],
                    ..form(NetworkKind::Convolutional, 8, 2 + turn % 2, activation)
                });
            }
        }
    }
    forms
}

#[test]
fn convolutional_networks_have_the_gradients_that_differences_in_f64_give() {
    compare(&convolutional_networks(), 4);
}

/// Deltas of all three families, where the row of a layer and the rows of its units must say the same.
#[test]
fn the_mean_deltas_of_units_make_up_that_of_their_layer_and_rows_are_norms_of_elements() {
    for kind in [NetworkKind::Plain, NetworkKind::Residual, NetworkKind::Convolutional] {
        let comparison = Comparison::new(form(kind, 8, 3, (Activation::LeakyRelu, 1)));
        let OnDevice { rows, sites, .. } = &comparison.device;
        let layers = rows.activations.iter().filter(|row| row.layer != "output");
        let hidden = sites.keys().filter(|(site, _)| *site == Site::PreActivation).count();
        assert_eq!(layers.clone().count(), hidden, "{kind:?}");
        for row in layers {
            let what = format!("{kind:?} {}", row.layer);
            let of_layer = rows.units.iter().filter(|unit| unit.layer == row.layer);
            let means: Vec<f64> = of_layer.map(|unit| unit.mean_delta.expect("finite")).collect();
            let mean_delta = row.mean_delta_l2.expect("finite");
            assert_close(&what, norm(&means), mean_delta, 1e-6 * mean_delta);
            for (site, found) in [(Site::PreActivation, row.delta_l2), (Site::Input, row.input_grad_l2)] {
                let expected = norm(&sites[&(site, row.layer.clone())]);
                assert_close(&what, found.expect("finite"), expected, 1e-6 * expected);
            }
        }
    }
}

/// What running statistics are after another batch: those of the first batch are taken whole.
fn absorb(running: &mut Statistics, batch: Statistics, share: f64) {
    for (path, (means, variances)) in batch {
        let channels = means.len();
        let (mean, variance) = running.entry(path).or_insert_with(|| (means.clone(), variances.clone()));
        for channel in 0..channels {
            mean[channel] += share * (means[channel] - mean[channel]);
            variance[channel] += share * (variances[channel] - variance[channel]);
        }
    }
}

/// Four steps of training, and the running statistics after them by exponential averages in f64.
fn train(form: &Form) -> (Workload, Network, Statistics) {
    let config = config(form, 4);
    let workload = Workload::new(&config, 5, &Sources::default().load(&config, 5).expect("embedded"), &flex());
    let (mut optimizer, mut batches) = (workload.optimizer(), workload.batches());
    let mut network = workload.network().map(&mut Stir::default());
    let mut running = Statistics::new();
    for _ in 0..4 {
        let batch = batches.next_batch();
        let inputs = signal(batch.inputs.clone().inner());
        let outcome = forward(form, &collect(&network, None), &inputs, None, None);
        absorb(&mut running, outcome.statistics, form.norm_momentum);
        network = make_step(network, batch, &config.training, Some(&mut optimizer), None).0;
    }
    (workload, network, running)
}

fn largest(row: &[f64]) -> Option<usize> {
    (0..row.len()).max_by(|a, b| row[*a].total_cmp(&row[*b]))
}

/// Ioffe and Szegedy 2015, algorithm 2.
fn check_evaluation(form: &Form) {
    let (workload, network, running) = train(form);
    let split = workload.test_split();
    let (inputs, targets) = (signal(split.inputs.clone()), signal(split.batch().targets));
    let parameters = collect(&network, None);
    let expected = forward(form, &parameters, &inputs, Some(&running), None).outputs;
    let found = signal(network.valid().forward(split.inputs.clone(), &mut Pass::evaluation()));
    let scale = norm(&expected.values) / (expected.values.len() as f64).sqrt();
    for (found, expected) in found.values.iter().zip(&expected.values) {
        assert_close(&format!("an output of {form:?}"), *found, *expected, 1e-4 * scale);
    }
    let result = numbers(evaluate(&network, split, form.loss));
    let loss = cost(form.loss, &expected, &targets.values);
    assert_close(&format!("the loss of {form:?}"), result[0], loss, 1e-5 * loss);
    let rows = expected.values.chunks(10).zip(targets.values.chunks(10));
    let right = rows.filter(|(outputs, targets)| largest(outputs) == largest(targets)).count();
    let accuracy = right as f64 / targets.batch as f64;
    assert_close(&format!("the accuracy of {form:?}"), result[1], accuracy, 1e-6);

    let of_batch = forward(form, &parameters, &inputs, None, None).outputs;
    let differences: Vec<f64> = of_batch.values.iter().zip(&expected.values).map(|(a, b)| a - b).collect();
    let is_other = norm(&differences) > 0.05 * norm(&expected.values);
    assert_eq!(is_other, form.norm == Norm::Batch, "the batch's own statistics must say something else: {form:?}");
    let third = network.valid().forward(split.inputs.clone().slice(s![2..3]), &mut Pass::evaluation());
    for (alone, among_others) in numbers(third).iter().zip(&found.values[20..30]) {
        assert_close(&format!("an example alone in {form:?}"), *alone, *among_others, 1e-5 * scale);
    }
}

#[test]
fn evaluation_takes_the_exponential_averages_of_the_training_batches_and_not_the_statistics_of_its_own() {
    for (norm, norms_after_activation) in NORMS {
        let shaped = |form: Form| Form { norm, norms_after_activation, ..form };
        check_evaluation(&shaped(form(NetworkKind::Plain, 3, 7, (Activation::Tanh, 1))));
        for block_order in ORDERS {
            if norms_after_activation && block_order == BlockOrder::PostActivation {
                continue;
            }
            let residual = form(NetworkKind::Residual, 4, 7, (Activation::Relu, 1));
            check_evaluation(&shaped(Form { block_order, block_layers: 2, ..residual }));
            let convolutional = form(NetworkKind::Convolutional, 8, 2, (Activation::Elu, 1));
            check_evaluation(&shaped(Form { block_order, ..convolutional }));
        }
        let without_shortcuts =
            Form { has_shortcuts: false, ..form(NetworkKind::Convolutional, 8, 2, (Activation::Softplus, 1)) };
        check_evaluation(&shaped(without_shortcuts));
    }
}
