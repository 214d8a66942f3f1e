//! Recurrent networks: layers of equal cells over a sequence, and a linear output layer.

use burn::module::{Module, Param};
use burn::tensor::{Device, Int, Tensor, TensorData};

use super::initializer::{self, Fan};
use super::pass::{Pass, RecurrenceTrace};
use super::stock::StockLayer;
use super::{Dense, Interface, block};
use crate::config::{Activation, BiasInit, Cell, Implementation, Kernels, NetworkConfig, Sequence};
use crate::kernel::{self, Activated, Form, Recurrence, RecurrentParameters};

/// `depth` recurrent layers, each on the hidden states of the one below, and a linear output layer after every time step or
/// after the last one.
#[derive(Module, Debug)]
pub struct Recurrent {
    /// The layers, the one nearest to the input first.
    pub hidden: Vec<RecurrentLayer>,
    /// The output layer; none where the loss is taken of the last hidden state.
    pub output: Option<Dense>,
    #[module(skip)]
    sequence: Sequence,
}

/// A recurrent layer.
#[derive(Module, Debug)]
pub enum RecurrentLayer {
    /// gradmark's.
    Own(OwnLayer),
    /// Burn's.
    Stock(StockLayer),
}

/// A recurrent layer as one operation for the whole sequence. The pre-activations of a unit's gates stand in the order input,
/// forget, candidate, output in an LSTM and reset, update, candidate in a GRU, those of the first gate for all units first.
#[derive(Module, Debug)]
pub struct OwnLayer {
    /// From the input: weights `[inputs, gates x units]`, biases `[gates x units]`.
    pub input: Dense,
    /// From the hidden state.
    pub recurrent: RecurrentWeights,
    #[module(skip)]
    form: Form,
}

/// The weights from the hidden state to itself.
#[derive(Module, Debug)]
pub struct RecurrentWeights {
    /// `[units, gates x units]`
    pub weight: Param<Tensor<2>>,
    /// `[units]`, that of a GRU's candidate within the reset gate; others have none.
    pub bias: Option<Param<Tensor<1>>>,
}

impl Recurrent {
    pub(super) fn init(config: &NetworkConfig, interface: Interface, seed: u64, device: &Device) -> Self {
        // A config without sequences is refused before it comes here.
        let one_step = Sequence {
            steps: 1,
            numbers: interface.features,
            symbols: None,
            answers_every_step: false,
            truncation: None,
        };
        let sequence = interface.sequence.unwrap_or(one_step);
        let layer = |index: usize| {
            let inputs = if index == 0 { sequence.inputs() } else { config.width() };
            // Only the last layer may hand on its last state alone.
            let is_last = index + 1 == config.depth;
            let form = Form {
                recurrence: recurrence(config),
                steps: sequence.steps,
                truncation: sequence.truncation,
                answers_every_step: sequence.answers_every_step || !is_last,
                kernels: config.kernels(),
            };
            let own = OwnLayer::init(config, inputs, form, seed, &block::path(index), device);
            match config.implementation() {
                Implementation::Own => RecurrentLayer::Own(own),
                Implementation::Stock => RecurrentLayer::Stock(StockLayer::from_own(&own, device)),
            }
        };
        let output = |outputs| Dense::init(config, config.width(), outputs, seed, "output", device);
        Self { hidden: (0..config.depth).map(layer).collect(), output: interface.outputs.map(output), sequence }
    }

    /// Which form the operations take; none where the layers are Burn's.
    pub(super) fn kernels(&self) -> Option<Kernels> {
        self.hidden.iter().find_map(|layer| match layer {
            RecurrentLayer::Own(layer) => Some(layer.form().kernels),
            RecurrentLayer::Stock(_) => None,
        })
    }

    /// # Shapes
    ///
    /// - inputs: `[batch, steps x numbers]`
    /// - returns: `[batch, outputs]` after the last time step, or `[steps x batch, outputs]`, all examples of the first time
    ///   step first
    pub(super) fn forward(&self, inputs: Tensor<2>, pass: &mut Pass) -> Tensor<2> {
        let mut x = in_order_of_time(inputs, self.sequence);
        for (index, layer) in self.hidden.iter().enumerate() {
            x = pass.enter(|| block::path(index), x);
            x = match layer {
                RecurrentLayer::Own(layer) => layer.forward(x, pass),
                RecurrentLayer::Stock(layer) => layer.forward(x, pass),
            };
        }
        let x = pass.enter_output(x);
        match &self.output {
            Some(output) => output.forward(x),
            None => x,
        }
    }

    /// Floating-point operations of the matrix products of one step: two an element in the forward pass, and as many for the
    /// gradient of the weights and, but for the input of the first layer, for that of what they are multiplied with.
    pub(super) fn flops_per_step(&self, batch_size: usize) -> f64 {
        let states = (self.sequence.steps * batch_size) as f64;
        let mut inputs = self.sequence.inputs();
        let mut flops = 0.0;
        for (index, layer) in self.hidden.iter().enumerate() {
            let (units, gates) = match layer {
                RecurrentLayer::Own(layer) => (layer.units(), layer.form.recurrence.gates()),
                RecurrentLayer::Stock(layer) => (layer.units(), layer.recurrence().gates()),
            };
            let passes = if index == 0 { 2.0 } else { 3.0 };
            flops += 2.0 * states * (gates * units) as f64 * (passes * inputs as f64 + 3.0 * units as f64);
            inputs = units;
        }
        let answers = (self.sequence.answers() * batch_size) as f64;
        let output = self.output.iter().map(|output| output.weight.shape().num_elements() as f64);
        flops + output.map(|elements| 6.0 * answers * elements).sum::<f64>()
    }
}

impl OwnLayer {
    fn init(config: &NetworkConfig, inputs: usize, form: Form, seed: u64, path: &str, device: &Device) -> Self {
        let units = config.width();
        let gates = form.recurrence.gates();
        let fan = Fan { inputs, units: gates * units, pieces: gates, hidden: None };
        let weight = initializer::weight(config, fan, seed, &format!("{path}.input.weight"));
        let bias = initializer::bias(config, fan, seed, &format!("{path}.input.bias"));
        let own_bias = match config.cell() {
            Cell::Lstm => Some(config.forget_bias()),
            Cell::Gru => config.update_bias,
            Cell::Rnn => None,
        };
        let recurrent = initializer::recurrent_weight(config, units, gates, seed, &format!("{path}.recurrent.weight"));
        let of_candidate = Fan { inputs: units, units, pieces: 1, hidden: None };
        let has_bias = config.cell() == Cell::Gru && config.bias_init != BiasInit::Off;
        let inner_bias = if has_bias {
            initializer::bias(config, of_candidate, seed, &format!("{path}.recurrent.bias"))
        } else {
            None
        };
        let weight = TensorData::new(weight, [inputs, gates * units]);
        Self {
            input: Dense::from_data(
                weight,
                bias.map(|bias| with_gate_bias(bias, own_bias, units)),
                form.kernels,
                device,
            ),
            recurrent: RecurrentWeights {
                weight: Param::from_data(TensorData::new(recurrent, [units, gates * units]), device),
                bias: inner_bias.map(|bias| Param::from_data(bias, device)),
            },
            form,
        }
    }

    /// How the layer goes over a sequence.
    pub(super) fn form(&self) -> Form {
        self.form
    }

    fn units(&self) -> usize {
        self.recurrent.weight.shape()[0]
    }

    fn forward(&self, x: Tensor<2>, pass: &mut Pass) -> Tensor<2> {
        let parameters = RecurrentParameters {
            input: self.input.weight.val(),
            bias: self.input.bias.as_ref().map(Param::val),
            recurrent: self.recurrent.weight.val(),
            inner_bias: self.recurrent.bias.as_ref().map(Param::val),
        };
        let wanted = pass.wanted_of_recurrence();
        let recurred = kernel::recurrent(x, parameters, self.form, wanted);
        let gates = (wanted.states && self.form.recurrence.kept() > 0).then_some(recurred.gates);
        pass.recurrence(RecurrenceTrace {
            form: self.form,
            hidden: recurred.hidden,
            pre_activation_offset: recurred.pre_activation_offset,
            state_offsets: recurred.state_offsets,
            gates,
        });
        recurred.output
    }
}

/// The forget gate of an LSTM and the update gate of a GRU come second.
fn with_gate_bias(bias: TensorData, value: Option<f64>, units: usize) -> TensorData {
    let Some(value) = value else {
        return bias;
    };
    let mut values: Vec<f32> = bias.iter::<f32>().collect();
    values[units..2 * units].fill(value as f32);
    let count = values.len();
    TensorData::new(values, [count])
}

fn recurrence(config: &NetworkConfig) -> Recurrence {
    match config.cell() {
        Cell::Lstm => Recurrence::Lstm,
        Cell::Gru => Recurrence::Gru,
        Cell::Rnn => Recurrence::Rnn(match config.activation {
            Activation::Tanh => Some(Activated::Tanh),
            Activation::Sigmoid => Some(Activated::Sigmoid),
            Activation::Relu => Some(Activated::Relu),
            _ => None,
        }),
    }
}

/// `[batch, steps x numbers]` as `[steps x batch, inputs]`, with one input for each kind of symbol.
fn in_order_of_time(inputs: Tensor<2>, sequence: Sequence) -> Tensor<2> {
    let [batch, _] = inputs.dims();
    let Sequence { steps, numbers, .. } = sequence;
    let x: Tensor<3> = inputs.reshape([batch, steps, numbers]).swap_dims(0, 1);
    let x = x.reshape([steps * batch, numbers]);
    match sequence.symbols {
        None => x,
        Some(kinds) => one_hot(x, kinds),
    }
}

/// Numbers of symbols `[rows, 1]` as `[rows, kinds]`.
fn one_hot(numbers: Tensor<2>, kinds: usize) -> Tensor<2> {
    let all = Tensor::<1, Int>::arange(0..kinds as i64, &numbers.device()).float().reshape([1, kinds]);
    numbers.equal(all).float()
}
