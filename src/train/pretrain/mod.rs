//! Greedy layer-wise pretraining: each hidden layer is trained on what the one before it hands on (Hinton et al. 2006, Bengio
//! et al. 2007), and the network is trained as a whole afterwards.

mod autoencoder;
mod rbm;

use std::sync::atomic::Ordering;

use burn::module::{Module, Param};
use burn::tensor::Tensor;

use super::clock::Stopwatch;
use super::loss::squared_distance;
use super::parameter::changed;
use super::{Control, TrainError, Workload};
use crate::config::{PretrainingConfig, PretrainingMethod};
use crate::data::{Batches, DeviceSplit};
use crate::kernel::Reading;
use crate::network::{Dense, DenseLayer, Layer, Network, Pass, Plain};
use crate::plan::RunSpec;
use crate::probe::fetch;
use crate::schema::{PhaseRow, PretrainingRow, RowSink, RunPhase};

/// A layer while it is pretrained, with what leads from it back to its input.
trait Trainee {
    /// Makes one step on a batch `[batch, inputs]` outside the graph, and returns the mean cost before it `[1]`, if there is one.
    fn step(&mut self, batch: Tensor<2>) -> Option<Tensor<1>>;

    /// The reconstruction of inputs `[examples, inputs]`, without noise and drawing.
    fn reconstruct(&self, inputs: Tensor<2>) -> Tensor<2>;

    /// The layer, and what leads back from it.
    fn finish(self: Box<Self>) -> (DenseLayer, Decoder);
}

/// What leads from a layer back to its input, outside the graph.
struct Decoder {
    /// `[units, inputs]`
    weight: Tensor<2>,
    /// `[inputs]`, or none.
    bias: Option<Tensor<1>>,
}

/// What the pretraining of a layer depends on beside the layer.
struct Place<'a> {
    workload: &'a Workload,
    pretraining: &'a PretrainingConfig,
    seed: u64,
    /// The layer among the hidden ones.
    index: usize,
    path: String,
}

impl Place<'_> {
    /// The name of a stream of random numbers.
    fn purpose(&self, what: &str) -> String {
        format!("pretraining.{}.{what}", self.path)
    }

    fn trainee(&self, layer: DenseLayer) -> Box<dyn Trainee> {
        match self.pretraining.method {
            PretrainingMethod::Autoencoder => Box::new(autoencoder::Autoencoder::new(layer, self)),
            PretrainingMethod::Rbm => Box::new(rbm::Rbm::new(layer, self)),
        }
    }
}

/// The steps of the pretraining of all layers; 0 without pretraining.
pub fn step_count(workload: &Workload) -> usize {
    let config = workload.config();
    let Some(pretraining) = config.pretraining() else {
        return 0;
    };
    let steps_per_epoch = config.training_examples() / config.pretraining_batch_size(pretraining);
    config.network.pretrained_layers() * pretraining.epochs * steps_per_epoch
}

/// Pretrains the hidden layers of a network one by one; of an autoencoder those up to the code, from which the others are
/// unrolled. Without `training.pretraining` the network stays as it is.
///
/// Returns the network, and whether all numbers were finite: a layer whose numbers leave f32 ends the pretraining.
///
/// # Errors
///
/// If the run is interrupted, the device fails or the rows cannot be written.
pub fn pretrain(
    spec: &RunSpec,
    workload: &Workload,
    network: Network,
    stopwatch: &mut Stopwatch,
    sink: &mut dyn RowSink,
    control: &Control<'_>,
) -> Result<(Network, bool), TrainError> {
    let (Some(pretraining), Network::Plain(mut plain)) = (spec.config.pretraining(), network.clone()) else {
        return Ok((network, true));
    };
    let mut progress = Progress { control, done: 0, all: step_count(workload) + workload.step_count() };
    let mut inputs =
        Inputs { train: workload.train_split().inputs.clone(), test: workload.test_split().inputs.clone() };
    let mut decoders = Vec::new();
    let mut encoding_ms = 0.0;
    let layers = spec.config.network.pretrained_layers();
    for index in 0..layers {
        let place = Place { workload, pretraining, seed: spec.seed, index, path: format!("hidden.{index}") };
        let mut trainee = place.trainee(plain.hidden[index].clone());
        let is_finite =
            train_layer(spec, &place, &mut *trainee, &inputs, (stopwatch, encoding_ms), sink, &mut progress)?;
        let (layer, decoder) = trainee.finish();
        plain.hidden[index] = layer;
        if !is_finite {
            return Ok((Network::Plain(plain), false));
        }
        decoders.push(decoder);
        if index + 1 < layers {
            stopwatch.start()?;
            inputs.train = encoded(&plain.hidden[index], inputs.train);
            encoding_ms = stopwatch.stop_ms()?;
            inputs.test = encoded(&plain.hidden[index], inputs.test);
        }
    }
    if spec.config.network.code_layer().is_some() {
        unroll(&mut plain, decoders);
    }
    Ok((Network::Plain(plain), true))
}

/// What a layer is trained on and tested with, `[examples, inputs]` outside the graph.
struct Inputs {
    train: Tensor<2>,
    test: Tensor<2>,
}

/// What a layer hands on, outside the graph.
fn encoded(layer: &DenseLayer, inputs: Tensor<2>) -> Tensor<2> {
    layer.valid().forward(inputs, &mut Pass::evaluation())
}

/// How far the steps of pretraining and training are.
struct Progress<'a> {
    control: &'a Control<'a>,
    done: usize,
    all: usize,
}

impl Progress<'_> {
    fn advance(&mut self) -> Result<(), TrainError> {
        self.done += 1;
        (self.control.progress)(self.done, self.all);
        if self.control.stop.load(Ordering::Relaxed) { Err(TrainError::Interrupted) } else { Ok(()) }
    }
}

/// Trains one layer for all its epochs, and tells whether its numbers are finite. Its first epoch counts in the time that it took
/// to make its inputs.
fn train_layer(
    spec: &RunSpec,
    place: &Place<'_>,
    trainee: &mut dyn Trainee,
    inputs: &Inputs,
    (stopwatch, encoding_ms): (&mut Stopwatch, f64),
    sink: &mut dyn RowSink,
    progress: &mut Progress<'_>,
) -> Result<bool, TrainError> {
    let batch_size = spec.config.pretraining_batch_size(place.pretraining);
    let mut batches = Batches::new(DeviceSplit::unlabelled(inputs.train.clone()), batch_size, spec.seed);
    record(spec, place, 0, None, trainee, &inputs.test, sink)?;
    for epoch in 0..place.pretraining.epochs {
        stopwatch.start()?;
        let mut costs: Option<Tensor<1>> = None;
        for _ in 0..batches.steps_per_epoch() {
            let cost = trainee.step(batches.next_batch().inputs);
            costs = match (costs, cost) {
                (Some(costs), Some(cost)) => Some(costs + cost),
                (costs, cost) => costs.or(cost),
            };
            progress.advance()?;
        }
        let elapsed_ms = stopwatch.stop_ms()? + if epoch == 0 { encoding_ms } else { 0.0 };
        sink.phases(vec![PhaseRow {
            run_id: spec.run_id.clone(),
            phase: RunPhase::Pretraining,
            layer: Some(place.path.clone()),
            epoch,
            step: 0,
            elapsed_ms,
            total_ms: stopwatch.total_ms(),
        }])?;
        let cost = costs.map(|sum| sum / batches.steps_per_epoch() as f64);
        if !record(spec, place, epoch + 1, cost, trainee, &inputs.test, sink)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Writes the row of an epoch, and tells whether its numbers are finite.
fn record(
    spec: &RunSpec,
    place: &Place<'_>,
    epoch: usize,
    cost: Option<Tensor<1>>,
    trainee: &dyn Trainee,
    test: &Tensor<2>,
    sink: &mut dyn RowSink,
) -> Result<bool, TrainError> {
    let has_cost = cost.is_some();
    let error = squared_distance(test.clone(), trainee.reconstruct(test.clone()));
    let readings = std::iter::once(error).chain(cost).map(Reading::from).collect();
    let read: Vec<Option<f64>> =
        fetch(readings)?.iter().map(|values| values.first().copied().filter(|value| value.is_finite())).collect();
    let loss = read.get(1).copied().flatten();
    let reconstruction_error = read.first().copied().flatten();
    let is_finite = reconstruction_error.is_some() && (loss.is_some() || !has_cost);
    let row = PretrainingRow {
        run_id: spec.run_id.clone(),
        layer_index: place.index,
        layer: place.path.clone(),
        epoch,
        loss,
        reconstruction_error,
    };
    sink.pretraining(vec![row])?;
    Ok(is_finite)
}

/// Lets the layers behind the code do what led back from those before it (Hinton and Salakhutdinov 2006, figure 1).
fn unroll(network: &mut Plain, decoders: Vec<Decoder>) {
    let Plain { hidden, output } = network;
    let outermost = output.as_mut().map(|Dense { weight, bias, .. }| (weight, bias));
    let inner = hidden.iter_mut().rev().map(|layer| (&mut layer.weight, &mut layer.bias));
    for ((weight, bias), decoder) in outermost.into_iter().chain(inner).zip(decoders) {
        *weight = replaced(weight.clone(), decoder.weight);
        *bias = bias.take().zip(decoder.bias).map(|(bias, value)| replaced(bias, value));
    }
}

/// A parameter with another value, which comes from outside the graph.
fn replaced<const D: usize>(param: Param<Tensor<D>>, value: Tensor<D>) -> Param<Tensor<D>> {
    changed(param, |_| value)
}
