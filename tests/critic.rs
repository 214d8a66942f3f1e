//! Critics: the gradient penalty against differences of forward passes in f64 that share no code with the program
//! (`reference`), weight clipping, and what a run records of both.

#![cfg(feature = "flex")]

mod experiment;
#[allow(dead_code)] // Other test files need the rest.
mod reference;

use burn::tensor::{Device, Gradients, Tensor};
use experiment::{load, parse, run_all};
use gradmark::config::{Activation, BlockOrder, Loss, NetworkKind, Norm, RunConfig};
use gradmark::data::{Batch, Sources};
use gradmark::network::{Network, Pass, Plain, Wanted};
use gradmark::probe::{Probe, Rows};
use gradmark::schema::{RunRows, StepPhase};
use gradmark::train::{Workload, gradient_penalty, make_step, mean_loss};
use reference::{Form, Parameter, Parameters, Signal, cost, forward};

/// Those whose slope can be differentiated again.
const ACTIVATIONS: [Activation; 9] = [
    Activation::Sigmoid,
    Activation::Tanh,
    Activation::Relu,
    Activation::LeakyRelu,
    Activation::Prelu,
    Activation::Elu,
    Activation::Selu,
    Activation::Softplus,
    Activation::Identity,
];

const LAMBDA: f64 = 0.7;

/// A small critic of twelve points with keys of [training].
fn config(activation: Activation, training: &str) -> RunConfig {
    let name = serde_json::to_string(&activation).expect("a name");
    let slope = if activation == Activation::LeakyRelu { "slope = 0.1\n" } else { "" };
    let text = format!(
        "[data]\nset = \"swiss_roll\"\nexamples = 24\n[network]\ndepth = 3\nwidth = 5\nactivation = {name}\n{slope}\
         weight_init = \"he\"\nbias_init = \"normal\"\nbias_std = 0.4\n[training]\nloss = \"wasserstein\"\n\
         batch_size = 12\nlearning_rate = 0.1\nsteps = 1\n{training}[probe]\ninputs = true\n"
    );
    parse(&text).runs.remove(0).config
}

fn penalized(activation: Activation) -> RunConfig {
    config(activation, &format!("gradient_penalty = {LAMBDA}\n"))
}

fn flex() -> Device {
    let adapter = gradmark::device::find("flex".parse().expect("a name")).expect("compiled in");
    gradmark::device::open(&adapter).expect("opens")
}

fn start(config: &RunConfig) -> (Network, Batch) {
    let workload = Workload::new(config, 5, &Sources::default().load(config, 5).expect("drawn"), &flex());
    (workload.network(), workload.batches().next_batch())
}

fn numbers<const D: usize>(tensor: Tensor<D>) -> Vec<f64> {
    tensor.into_data().iter::<f64>().collect()
}

fn number(tensor: Tensor<1>) -> f64 {
    numbers(tensor)[0]
}

fn norm(values: &[f64]) -> f64 {
    values.iter().map(|x| x * x).sum::<f64>().sqrt()
}

fn plain(network: &Network) -> &Plain {
    let Network::Plain(plain) = network else { panic!("a plain network") };
    plain
}

/// Every parameter by its path, or its gradient.
fn parameters(network: &Network, gradients: Option<&Gradients>) -> Parameters {
    fn take<const D: usize>(tensor: Tensor<D>, gradients: Option<&Gradients>) -> Parameter {
        let tensor = match gradients {
            Some(gradients) => tensor.grad(gradients).expect("a gradient"),
            None => tensor.inner(),
        };
        Parameter { shape: tensor.dims().to_vec(), values: numbers(tensor) }
    }
    let mut found = Parameters::new();
    for (index, layer) in plain(network).hidden.iter().enumerate() {
        found.insert(format!("hidden.{index}.weight"), take(layer.weight.val(), gradients));
        found.extend(layer.bias.iter().map(|bias| (format!("hidden.{index}.bias"), take(bias.val(), gradients))));
        found.extend(layer.slope.iter().map(|slope| (format!("hidden.{index}.slope"), take(slope.val(), gradients))));
    }
    let output = plain(network).output.as_ref().expect("a critic has an output");
    found.insert("output.weight".to_owned(), take(output.weight.val(), gradients));
    found.extend(output.bias.iter().map(|bias| ("output.bias".to_owned(), take(bias.val(), gradients))));
    found
}

/// A critic in f64, with the points that it sees.
struct Critic {
    form: Form,
    points: Signal,
    targets: Vec<f64>,
    between: Vec<[f64; 2]>,
}

impl Critic {
    fn new(config: &RunConfig, batch: &Batch) -> Self {
        let function = config.network.function();
        let form = Form {
            kind: NetworkKind::Plain,
            depth: config.network.depth,
            width: config.network.width(),
            activation: function.kind,
            slope: function.slope,
            pieces: 1,
            norm: Norm::None,
            norms_after_activation: false,
            norm_epsilon: 0.0,
            norm_momentum: 0.0,
            block_order: BlockOrder::PreActivation,
            block_layers: 1,
            branch_scale: 1.0,
            has_stem: false,
            has_shortcuts: false,
            loss: Loss::Wasserstein,
        };
        let points = Signal::rows(batch.inputs.dims()[0], numbers(batch.inputs.clone().inner()));
        let targets = numbers(batch.targets.clone().inner());
        // Of each pair the real point, the generated one, and the share of both.
        let between = points.values.chunks(4).zip(targets.chunks(4)).map(|(pair, target)| {
            assert_eq!((target[0], target[2], target[1]), (-1.0, 1.0, target[3]));
            [0, 1].map(|axis| target[1] * pair[axis] + (1.0 - target[1]) * pair[2 + axis])
        });
        let between = between.collect();
        Self { form, points, targets, between }
    }

    fn loss(&self, parameters: &Parameters) -> (f64, Vec<u8>) {
        let outcome = forward(&self.form, parameters, &self.points, None, None);
        (cost(Loss::Wasserstein, &outcome.outputs, &self.targets), outcome.sides)
    }

    /// Gulrajani et al. 2017, equation 3, with gradients by central differences.
    fn penalty(&self, parameters: &Parameters) -> (f64, Vec<u8>) {
        const H: f64 = 1e-4;
        let moved = |axis: usize, by: f64| {
            let points = self.between.iter().flat_map(|point| {
                let mut point = *point;
                point[axis] += by;
                point
            });
            let points = Signal::rows(self.between.len(), points.collect());
            forward(&self.form, parameters, &points, None, None)
        };
        let mut sides = Vec::new();
        let slopes = [0, 1].map(|axis| {
            let (above, below) = (moved(axis, H), moved(axis, -H));
            assert_eq!(above.sides, below.sides, "a kink of {:?}", self.form.activation);
            sides.extend(above.sides);
            let pairs = above.outputs.values.into_iter().zip(below.outputs.values);
            pairs.map(|(above, below)| (above - below) / (2.0 * H)).collect::<Vec<f64>>()
        });
        let terms = slopes[0].iter().zip(&slopes[1]).map(|(x, y)| (x.hypot(*y) - 1.0).powi(2));
        (LAMBDA * terms.sum::<f64>() / self.between.len() as f64, sides)
    }

    /// The derivative of the loss with the penalty, by central differences without a kink in between.
    fn derivative(&self, parameters: &Parameters, path: &str, element: usize) -> Option<f64> {
        let at = |by: f64| {
            let mut moved = parameters.clone();
            moved.get_mut(path).expect("a path").values[element] += by;
            let ((loss, mut sides), (penalty, others)) = (self.loss(&moved), self.penalty(&moved));
            sides.extend(others);
            (loss + penalty, sides)
        };
        let (above, below) = (at(1e-5), at(-1e-5));
        (above.1 == below.1).then(|| (above.0 - below.0) / 2e-5)
    }
}

/// Every weight, bias and learned slope.
#[test]
fn the_penalized_loss_has_the_gradients_that_differences_in_f64_give() {
    for activation in ACTIVATIONS {
        let config = penalized(activation);
        let (network, batch) = start(&config);
        let critic = Critic::new(&config, &batch);
        let of_f64 = parameters(&network, None);
        let penalty = gradient_penalty(&network, &batch, &config.training).expect("asked for");
        let expected = critic.penalty(&of_f64).0;
        let found = number(penalty.clone().inner());
        assert!((found / expected - 1.0).abs() < 1e-5, "{activation:?}: {found}, expected {expected}");
        let outputs = network.forward(batch.inputs.clone(), &mut Pass::training());
        let gradients = (mean_loss(Loss::Wasserstein, outputs, batch.targets.clone()) + penalty).backward();
        let (mut compared, mut kinks, mut worst) = (0, 0, 0.0_f64);
        for (path, gradient) in parameters(&network, Some(&gradients)) {
            let rms = norm(&gradient.values) / (gradient.values.len() as f64).sqrt();
            for (element, found) in gradient.values.iter().enumerate() {
                let Some(expected) = critic.derivative(&of_f64, &path, element) else {
                    kinks += 1;
                    continue;
                };
                let what = format!("{activation:?} {path}[{element}]");
                worst = worst.max((found - expected).abs() / (rms + 1e-3));
                assert!((found - expected).abs() < 5e-4 * rms + 1e-6, "{what}: {found}, expected {expected}");
                compared += 1;
            }
        }
        eprintln!("{activation:?}: {compared} derivatives, {kinks} kinks, largest difference {worst:.1e}");
        assert!(compared > 70 && kinks < 10, "{activation:?}: {compared} and {kinks}");
    }
}

/// The gradient with respect to zeros that are added to the input.
#[test]
fn the_gradient_with_respect_to_the_input_is_that_of_the_graph() {
    for activation in ACTIVATIONS {
        let (network, batch) = start(&penalized(activation));
        let mut pass = Pass::traced(Wanted { inputs: true, ..Wanted::default() });
        let gradients = network.forward(batch.inputs.clone(), &mut pass).sum().backward();
        let offset = pass.finish().0[0].tensors().and_then(|tensors| tensors.input_offset.clone()).expect("wanted");
        let expected = numbers(offset.grad(&gradients).expect("leads there"));
        let found = numbers(plain(&network).input_gradient(batch.inputs).expect("written").inner());
        assert_eq!(found.len(), expected.len());
        for (found, expected_one) in found.iter().zip(&expected) {
            assert!((found - expected_one).abs() < 1e-6 * norm(&expected), "{activation:?}: {found}, {expected_one}");
        }
    }
}

/// The product of the weights of a linear critic is its gradient everywhere.
#[test]
fn a_linear_critic_pays_lambda_times_the_square_of_its_slope_minus_1() {
    let config = penalized(Activation::Identity);
    let (network, batch) = start(&config);
    let weights = plain(&network).hidden.iter().map(|layer| layer.weight.val().inner());
    let product = weights.reduce(Tensor::matmul).expect("three layers");
    let output = plain(&network).output.as_ref().expect("an output").weight.val().inner();
    let slope = norm(&numbers(product.matmul(output)));
    let found = number(gradient_penalty(&network, &batch, &config.training).expect("asked for").inner());
    let expected = LAMBDA * (slope - 1.0).powi(2);
    assert!((found / expected - 1.0).abs() < 1e-5, "{found}, expected {expected}");
}

#[test]
fn a_critic_without_a_slope_pays_lambda_and_no_gradient_is_nan() {
    let config = penalized(Activation::Relu);
    let (network, batch) = start(&config);
    let Network::Plain(mut dead) = network else { panic!("a plain network") };
    let last = dead.hidden.last_mut().expect("three layers");
    last.bias = last.bias.take().map(|bias| bias.map(|bias| Tensor::from_inner(bias.inner() - 1e3).require_grad()));
    let network = Network::Plain(dead);
    let penalty = gradient_penalty(&network, &batch, &config.training).expect("asked for");
    assert!((number(penalty.clone().inner()) - LAMBDA).abs() < 1e-6);
    let gradients = penalty.backward();
    for layer in &plain(&network).hidden {
        let gradient = numbers(layer.weight.val().grad(&gradients).expect("leads there"));
        assert!(gradient.iter().all(|x| *x == 0.0), "{gradient:?}");
    }
}

fn measured_step(config: &RunConfig) -> (Network, Rows) {
    let workload = Workload::new(config, 5, &Sources::default().load(config, 5).expect("drawn"), &flex());
    let mut probe = Probe::new("r", &config.probe, config.network.function());
    let (mut optimizer, mut batches) = (workload.optimizer(), workload.batches());
    let measured = Some((&mut probe, 0));
    let (network, loss) =
        make_step(workload.network(), batches.next_batch(), &config.training, Some(&mut optimizer), measured);
    probe.keep_loss(0, 0, None, loss);
    (network, probe.read().expect("reads"))
}

#[test]
fn the_penalty_is_recorded_beside_the_loss_and_reaches_gradients_but_not_deltas() {
    let (without, with) =
        (config(Activation::Tanh, "l2 = 0.01\n"), config(Activation::Tanh, "gradient_penalty = 0.7\nl2 = 0.01\n"));
    let (network, batch) = start(&with);
    let penalty = number(gradient_penalty(&network, &batch, &with.training).expect("asked for").inner());
    let ((_, without), (_, with)) = (measured_step(&without), measured_step(&with));
    assert_eq!(without.steps[0].loss, with.steps[0].loss);
    let of_l2 = without.steps[0].penalty.expect("measured");
    let both = with.steps[0].penalty.expect("measured");
    assert!((both / (of_l2 + penalty) - 1.0).abs() < 1e-6, "{both}, expected {of_l2} and {penalty}");
    assert_eq!(without.activations, with.activations);
    let pairs = without.gradients.iter().zip(&with.gradients);
    let changed = pairs.filter(|(without, with)| without.grad_l2 != with.grad_l2).count();
    // All but the bias of the output, on which no gradient with respect to an input depends.
    assert_eq!((changed, with.gradients.len()), (7, 8));
    assert_eq!(with.steps[0].accuracy, None);
}

/// Arjovsky et al. 2017, algorithm 1: w <- clip(w - rate g, -c, c).
#[test]
fn an_update_with_weight_clipping_leaves_no_parameter_beyond_c_and_is_measured_as_such() {
    const C: f64 = 0.05;
    let (free, clipped) = (config(Activation::Relu, ""), config(Activation::Relu, "weight_clipping = 0.05\n"));
    let (before, _) = start(&free);
    let before = parameters(&before, None);
    let (free, clipped) = (measured_step(&free), measured_step(&clipped));
    let (unbounded, bounded) = (parameters(&free.0, None), parameters(&clipped.0, None));
    let mut within = 0;
    for (path, found) in &bounded {
        let mut update = Vec::new();
        for (element, found) in found.values.iter().enumerate() {
            let free = unbounded[path].values[element];
            assert_eq!(*found, free.clamp(f64::from(-C as f32), f64::from(C as f32)), "{path}[{element}]");
            within += usize::from(*found == free);
            update.push(found - before[path].values[element]);
        }
        let row = clipped.1.gradients.iter().find(|row| row.parameter == *path).expect("measured");
        let (measured, expected) = (row.update_l2.expect("updated"), norm(&update));
        assert!((measured - expected).abs() < 1e-6 * expected, "{path}: {measured}, expected {expected}");
    }
    assert!(within > 0, "nothing was within c");
    // One is summed up on the way of the update, the other before it, in another order.
    let [free, clipped] = [free, clipped].map(|(_, rows)| rows.gradients[0].grad_l2.expect("finite"));
    assert!((free / clipped - 1.0).abs() < 1e-12, "{free} and {clipped}");
}

/// The norm of the gradient with respect to the input of the second layer by that with respect to what the last one hands on, at
/// the last measured step, a layer.
fn rate(rows: &RunRows) -> f64 {
    let last = rows.activations.last().expect("measured").step;
    let of_last = rows.activations.iter().filter(|row| row.step == last);
    let norms: Vec<f64> = of_last.map(|row| row.input_grad_l2.expect("finite")).collect();
    let layers = norms.len() - 2;
    (norms[1] / norms[layers + 1]).powf(1.0 / layers as f64)
}

/// Gulrajani et al. 2017, figure 1b, on a smaller budget: a quarter of the width with twice the bounds, which makes the same of
/// c sqrt(n / 2).
#[test]
fn clipped_weights_make_gradients_explode_or_vanish_and_the_penalty_keeps_them() {
    let cases = "sweep.cases=[{name = \"c = .2\", training.weight_clipping = 0.2}, \
                 {name = \"c = .02\", training.weight_clipping = 0.02}, \
                 {name = \"c = .002\", training.weight_clipping = 0.002}, \
                 {name = \"penalty\", training.gradient_penalty = 0.1}]";
    let overrides = [
        cases,
        "sweep.data.set=[\"swiss_roll\"]",
        "experiment.seeds=1",
        "network.width=128",
        "training.steps=300",
        "training.learning_rate=0.001",
        "throughput.samples=0",
    ];
    let runs = run_all(&load("wgan_weight_clipping.toml", &overrides));
    let rates: Vec<f64> = runs.iter().map(|(_, rows)| rate(rows)).collect();
    eprintln!("{rates:?}");
    assert!(rates[0] > 1.1, "{rates:?}");
    assert!(rates[1] < 0.3 && rates[2] < 0.03, "{rates:?}");
    assert!((0.8..1.25).contains(&rates[3]), "{rates:?}");
    let (summary, rows) = &runs[3];
    // The critic tells the generated points from the real ones.
    assert!(summary.test_loss.expect("evaluated") < -0.1, "{:?}", summary.test_loss);
    assert!(rows.steps.iter().all(|row| row.accuracy.is_none()));
    assert!(rows.steps.iter().any(|row| row.phase == StepPhase::TestSplit && row.loss.is_some()));
}

#[test]
fn the_floating_point_operations_of_the_penalty_are_those_of_its_products() {
    let flops = |config: &RunConfig| {
        Workload::new(config, 5, &Sources::default().load(config, 5).expect("drawn"), &flex()).flops_per_step()
    };
    // 2 x 5, 5 x 5 and 5 x 5 weights: six pairs, forward, to the input, and backward to gradients and weights.
    let products = f64::from(2 * 5 + 5 * 5 + 5 * 5);
    let of_relu = flops(&penalized(Activation::Relu)) - flops(&config(Activation::Relu, ""));
    assert_eq!(of_relu, 2.0 * 6.0 * 4.0 * products);
    // Through the slopes, too, but not to the points themselves.
    let of_tanh = flops(&penalized(Activation::Tanh)) - flops(&config(Activation::Tanh, ""));
    assert_eq!(of_tanh, 2.0 * 6.0 * (6.0 * products - 10.0));
}
