//! Every quantity of the probe against a forward and a backward pass in f64 that share no code with the program, and
//! those against central finite differences.

#![cfg(feature = "flex")]

use burn::module::Param;
use burn::tensor::Tensor;
use gradmark::config::{
    Activation, BatchSize, BiasInit, DataConfig, Loss, NetworkConfig, ProbeConfig, RunConfig, ThroughputConfig,
    TrainingConfig, TrainingLength, WeightInit,
};
use gradmark::data::{Batch, Sources};
use gradmark::network::{Dense, DenseLayer, Network};
use gradmark::probe::{Probe, Rows};
use gradmark::train::{Workload, make_step};

type Matrix = Vec<Vec<f64>>;

/// The largest relative difference that f32 may make.
const TOLERANCE: f64 = 1e-4;

const LEARNING_RATE: f64 = 0.5;

fn config(activation: Activation, loss: Loss) -> RunConfig {
    RunConfig {
        data: DataConfig::default(),
        network: NetworkConfig {
            bias_init: BiasInit::Normal,
            bias_std: Some(0.5),
            ..NetworkConfig::plain(3, 7, activation, WeightInit::Lecun)
        },
        training: TrainingConfig {
            loss,
            momentum: 0.9,
            batch_size: Some(BatchSize::Examples(11)),
            ..TrainingConfig::sgd(LEARNING_RATE, TrainingLength::Steps(1))
        },
        probe: ProbeConfig::default(),
        throughput: ThroughputConfig::default(),
    }
}

#[derive(Clone)]
struct Layer {
    weight: Matrix,
    bias: Vec<f64>,
}

fn matrix(tensor: Tensor<2>) -> Matrix {
    let [_, columns] = tensor.dims();
    let values: Vec<f64> = tensor.into_data().iter::<f64>().collect();
    values.chunks(columns).map(<[f64]>::to_vec).collect()
}

fn layers(network: &Network) -> Vec<Layer> {
    let Network::Plain(plain) = network else { panic!("a plain network") };
    let vector = |bias: &Option<Param<Tensor<1>>>| -> Vec<f64> {
        bias.as_ref().expect("on").val().inner().into_data().iter::<f64>().collect()
    };
    let hidden = |layer: &DenseLayer| Layer { weight: matrix(layer.weight.val().inner()), bias: vector(&layer.bias) };
    let output = |dense: &Dense| Layer { weight: matrix(dense.weight.val().inner()), bias: vector(&dense.bias) };
    plain.hidden.iter().map(hidden).chain(plain.output.as_ref().map(output)).collect()
}

fn function(activation: Activation, z: f64) -> (f64, f64) {
    match activation {
        Activation::Sigmoid => {
            let s = 1.0 / (1.0 + (-z).exp());
            (s, s * (1.0 - s))
        }
        Activation::Tanh => (z.tanh(), 1.0 - z.tanh().powi(2)),
        Activation::Relu => (z.max(0.0), if z > 0.0 { 1.0 } else { 0.0 }),
        other => panic!("{other:?} is tested elsewhere"),
    }
}

/// Pre-activations and activations of every layer; the last activations are the outputs.
fn forward(layers: &[Layer], inputs: &Matrix, activation: Activation) -> (Vec<Matrix>, Vec<Matrix>) {
    let (mut zs, mut activations) = (Vec::new(), vec![inputs.clone()]);
    for (index, layer) in layers.iter().enumerate() {
        let x = activations.last().expect("inputs");
        let z: Matrix = x
            .iter()
            .map(|row| {
                (0..layer.bias.len())
                    .map(|unit| layer.bias[unit] + row.iter().zip(&layer.weight).map(|(x, w)| x * w[unit]).sum::<f64>())
                    .collect()
            })
            .collect();
        let last = index + 1 == layers.len();
        let a = z.iter().map(|row| row.iter().map(|z| if last { *z } else { function(activation, *z).0 }).collect());
        activations.push(a.collect());
        zs.push(z);
    }
    (zs, activations)
}

/// The mean loss and its gradient with respect to the outputs.
fn cost(loss: Loss, outputs: &Matrix, targets: &Matrix) -> (f64, Matrix) {
    let batch = outputs.len() as f64;
    let mut total = 0.0;
    let mut gradient = Vec::new();
    for (z, t) in outputs.iter().zip(targets) {
        match loss {
            Loss::SoftmaxCrossEntropy => {
                let normalizer: f64 = z.iter().map(|z| z.exp()).sum();
                total -= z.iter().zip(t).map(|(z, t)| t * (z.exp() / normalizer).ln()).sum::<f64>();
                gradient.push(z.iter().zip(t).map(|(z, t)| (z.exp() / normalizer - t) / batch).collect());
            }
            Loss::SigmoidCrossEntropy => {
                let sigmoid = |z: f64| function(Activation::Sigmoid, z).0;
                let term = |(z, t): (&f64, &f64)| -t * sigmoid(*z).ln() - (1.0 - t) * (1.0 - sigmoid(*z)).ln();
                total += z.iter().zip(t).map(term).sum::<f64>();
                gradient.push(z.iter().zip(t).map(|(z, t)| (sigmoid(*z) - t) / batch).collect());
            }
            Loss::LinearProbe | Loss::SquaredError | Loss::Wasserstein => panic!("it has no classes"),
            Loss::Quadratic => {
                let sigmoid = |z: f64| function(Activation::Sigmoid, z);
                total += z.iter().zip(t).map(|(z, t)| (sigmoid(*z).0 - t).powi(2) / 2.0).sum::<f64>();
                gradient.push(z.iter().zip(t).map(|(z, t)| (sigmoid(*z).0 - t) * sigmoid(*z).1 / batch).collect());
            }
        }
    }
    (total / batch, gradient)
}

/// Deltas of every layer and gradients of every weight and bias.
fn backward(
    layers: &[Layer],
    batch: (&Matrix, &Matrix),
    activation: Activation,
    loss: Loss,
) -> (f64, Vec<Matrix>, Vec<Layer>) {
    let (zs, activations) = forward(layers, batch.0, activation);
    let (value, mut delta) = cost(loss, activations.last().expect("outputs"), batch.1);
    let (mut deltas, mut gradients) = (Vec::new(), Vec::new());
    for index in (0..layers.len()).rev() {
        let x = &activations[index];
        let (inputs, outputs) = (x[0].len(), delta[0].len());
        let entry = |i: usize, j: usize| x.iter().zip(&delta).map(|(x, d)| x[i] * d[j]).sum::<f64>();
        gradients.push(Layer {
            weight: (0..inputs).map(|i| (0..outputs).map(|j| entry(i, j)).collect()).collect(),
            bias: (0..outputs).map(|j| delta.iter().map(|d| d[j]).sum()).collect(),
        });
        deltas.push(delta.clone());
        if index > 0 {
            let propagate = |(row, z): (&Vec<f64>, &Vec<f64>)| {
                (0..inputs)
                    .map(|i| {
                        let sum: f64 = row.iter().zip(&layers[index].weight[i]).map(|(d, w)| d * w).sum();
                        sum * function(activation, z[i]).1
                    })
                    .collect()
            };
            delta = delta.iter().zip(&zs[index - 1]).map(propagate).collect();
        }
    }
    deltas.reverse();
    gradients.reverse();
    (value, deltas, gradients)
}

fn norm<'a>(values: impl IntoIterator<Item = &'a f64>) -> f64 {
    values.into_iter().map(|x| x * x).sum::<f64>().sqrt()
}

#[track_caller]
fn assert_close(what: &str, measured: Option<f64>, expected: f64) {
    let measured = measured.unwrap_or_else(|| panic!("{what} is missing"));
    let difference = (measured - expected).abs();
    assert!(difference <= TOLERANCE * expected.abs() + 1e-12, "{what}: {measured}, expected {expected}");
}

/// Two measured steps: the network before each, the batch of each, and the rows.
fn two_steps(config: &RunConfig) -> (Vec<Vec<Layer>>, Vec<(Matrix, Matrix)>, Rows) {
    let adapter = gradmark::device::find("flex".parse().expect("a name")).expect("compiled in");
    let device = gradmark::device::open(&adapter).expect("opens");
    let workload = Workload::new(config, 3, &Sources::default().load(config, 3).expect("embedded"), &device);
    let mut probe = Probe::new("r", &config.probe, config.network.function());
    let (mut network, mut optimizer, mut batches) = (workload.network(), workload.optimizer(), workload.batches());
    let (mut networks, mut examples) = (Vec::new(), Vec::new());
    for step in 0..2 {
        networks.push(layers(&network));
        let batch: Batch = batches.next_batch();
        examples.push((matrix(batch.inputs.clone().inner()), matrix(batch.targets.clone().inner())));
        let loss;
        let measured = Some((&mut probe, step));
        (network, loss) = make_step(network, batch, &config.training, Some(&mut optimizer), measured);
        probe.keep_loss(step, 0, Some(LEARNING_RATE), loss);
    }
    networks.push(layers(&network));
    (networks, examples, probe.read().expect("reads"))
}

fn flat(layer: &Layer, parameter: &str) -> Vec<f64> {
    if parameter.ends_with("weight") { layer.weight.concat() } else { layer.bias.clone() }
}

fn check(activation: Activation, loss: Loss) {
    let config = config(activation, loss);
    let (networks, examples, rows) = two_steps(&config);
    assert_eq!(rows.gradients.len(), 2 * 8);
    assert_eq!(rows.activations.len(), 2 * 3);
    let mut velocity: Vec<Vec<f64>> = vec![Vec::new(); 8];
    for step in 0..2 {
        let batch = (&examples[step].0, &examples[step].1);
        let (value, deltas, gradients) = backward(&networks[step], batch, activation, loss);
        assert_close("loss", rows.steps[step].loss, value);

        let all: Vec<f64> =
            gradients.iter().flat_map(|layer| [layer.weight.concat(), layer.bias.clone()].concat()).collect();
        assert_close("global norm", rows.steps[step].grad_l2_before_clip, norm(&all));

        for (place, row) in rows.gradients.iter().filter(|row| row.step == step).enumerate() {
            let name = format!("{activation:?} {loss:?} step {step} {}", row.parameter);
            let layer = if row.layer == "output" { 3 } else { row.layer_index };
            assert_eq!((row.layer_index, layer), (place / 2, place / 2), "{name}");
            let gradient = flat(&gradients[layer], &row.parameter);
            let weight = flat(&networks[step][layer], &row.parameter);
            assert_eq!(row.element_count, gradient.len(), "{name}");
            assert_close(&format!("{name} l2"), row.grad_l2, norm(&gradient));
            assert_close(&format!("{name} rms"), row.grad_rms, norm(&gradient) / (gradient.len() as f64).sqrt());
            let largest = gradient.iter().fold(0.0_f64, |largest, x| largest.max(x.abs()));
            assert_close(&format!("{name} max"), row.grad_max_abs, largest);
            let zeros = gradient.iter().filter(|x| **x == 0.0).count() as u64;
            assert_eq!((row.zero_count, row.nonfinite_count), (zeros, 0), "{name}");
            assert_close(&format!("{name} weight"), row.weight_l2, norm(&weight));
            // Momentum without dampening: v <- .9 v + g, and the update is rate x v.
            if step == 0 {
                velocity[place] = gradient;
            } else {
                velocity[place] = velocity[place].iter().zip(&gradient).map(|(v, g)| 0.9 * v + g).collect();
            }
            let update = LEARNING_RATE * norm(&velocity[place]);
            assert_close(&format!("{name} update"), row.update_l2, update);
            assert_close(&format!("{name} ratio"), row.update_ratio, update / norm(&weight));
        }

        let (_, activations) = forward(&networks[step], batch.0, activation);
        for row in rows.activations.iter().filter(|row| row.step == step) {
            let name = format!("{activation:?} {loss:?} step {step} {}", row.layer);
            let delta = &deltas[row.layer_index];
            assert_close(&format!("{name} delta"), row.delta_l2, norm(delta.iter().flatten()));
            let bias_gradient = &gradients[row.layer_index].bias;
            assert_close(&format!("{name} mean delta"), row.mean_delta_l2, norm(bias_gradient));
            let a = &activations[row.layer_index + 1];
            let values = a.concat();
            let count = values.len() as f64;
            let mean = values.iter().sum::<f64>() / count;
            let variance = values.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / count;
            assert_close(&format!("{name} mean"), row.activation_mean, mean);
            assert_close(&format!("{name} std"), row.activation_std, variance.sqrt());
            let flat = |x: &&f64| match activation {
                Activation::Sigmoid => **x <= 0.05 || **x >= 0.95,
                Activation::Tanh => x.abs() >= 0.9,
                _ => **x == 0.0,
            };
            assert_close(
                &format!("{name} saturated"),
                row.saturated_fraction,
                values.iter().filter(flat).count() as f64 / count,
            );
            let units = a[0].len();
            let dead = (0..units).filter(|unit| a.iter().all(|row| row[*unit] == 0.0)).count();
            let expected = (activation == Activation::Relu).then_some(dead as f64 / units as f64);
            assert_eq!(row.dead_fraction, expected, "{name}");
        }
    }
}

#[test]
fn every_gradient_quantity_agrees_with_a_backward_pass_in_f64() {
    for activation in [Activation::Sigmoid, Activation::Tanh, Activation::Relu] {
        for loss in [Loss::SoftmaxCrossEntropy, Loss::SigmoidCrossEntropy, Loss::Quadratic] {
            check(activation, loss);
        }
    }
}

#[test]
fn the_backward_pass_in_f64_agrees_with_central_finite_differences() {
    for activation in [Activation::Sigmoid, Activation::Tanh, Activation::Relu] {
        for loss in [Loss::SoftmaxCrossEntropy, Loss::SigmoidCrossEntropy, Loss::Quadratic] {
            let (networks, examples, _) = two_steps(&config(activation, loss));
            let batch = (&examples[0].0, &examples[0].1);
            let (_, _, gradients) = backward(&networks[0], batch, activation, loss);
            let value = |layers: &[Layer]| {
                let (_, activations) = forward(layers, batch.0, activation);
                cost(loss, activations.last().expect("outputs"), batch.1).0
            };
            let h = 1e-6;
            for layer in 0..4 {
                let scale = norm(gradients[layer].weight.iter().flatten());
                for (i, j) in [(0, 0), (2, 1), (3, 5), (6, 6), (5, 0)] {
                    let moved = |by: f64| {
                        let mut layers = networks[0].clone();
                        layers[layer].weight[i][j] += by;
                        value(&layers)
                    };
                    let slope = (moved(h) - moved(-h)) / (2.0 * h);
                    let gradient = gradients[layer].weight[i][j];
                    assert!(
                        (slope - gradient).abs() <= 1e-4 * gradient.abs() + 1e-7 * scale,
                        "{activation:?} {loss:?} layer {layer} ({i}, {j}): {gradient}, by differences {slope}"
                    );
                }
            }
        }
    }
}
