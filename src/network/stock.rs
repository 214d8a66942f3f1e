//! Burn's recurrent layers with the weights of gradmark's, to compare the two.

use std::ops::Range;

use burn::module::{Module, Param};
use burn::nn::activation::ActivationConfig;
use burn::nn::{
    GateController, Gru, GruConfig, Initializer, Linear, Lstm, LstmConfig, LstmState, Rnn, RnnConfig, RnnState,
};
use burn::tensor::{Device, Tensor, s};

use super::pass::{Pass, RecurrenceTrace};
use super::recurrent::OwnLayer;
use crate::kernel::{Activated, Form, Recurrence};

/// A recurrent layer of Burn.
#[derive(Module, Debug)]
pub struct StockLayer {
    /// Burn's module.
    pub stock: StockCell,
    #[module(skip)]
    form: Form,
}

/// Burn's modules.
#[derive(Module, Debug)]
pub enum StockCell {
    /// `burn::nn::Rnn`
    Rnn(Rnn),
    /// `burn::nn::Lstm`
    Lstm(Lstm),
    /// `burn::nn::Gru`
    Gru(Gru),
}

/// The state between two time steps: of an LSTM the hidden state and the cell state.
type State = (Tensor<2>, Option<Tensor<2>>);

impl StockLayer {
    /// Burn's layer with the weights of another one. Burn has two biases a gate, of which only that of the input is used
    /// here, and in a GRU's candidate both.
    pub(super) fn from_own(own: &OwnLayer, device: &Device) -> Self {
        let form = own.form();
        let [inputs, columns] = own.input.weight.shape().dims();
        let units = columns / form.recurrence.gates();
        let gate = |place: usize, inner_bias: Option<Tensor<1>>| {
            let part = |weight: &Param<Tensor<2>>| {
                let rows = weight.shape()[0];
                weight.val().slice([0..rows, place * units..(place + 1) * units])
            };
            let bias = own.input.bias.as_ref().map(|bias| bias.val().slice(s![place * units..(place + 1) * units]));
            GateController {
                input_transform: linear(part(&own.input.weight), bias, device),
                hidden_transform: linear(part(&own.recurrent.weight), inner_bias, device),
            }
        };
        let zeros = Initializer::Zeros;
        let stock = match form.recurrence {
            Recurrence::Rnn(function) => {
                let function = match function {
                    Some(Activated::Tanh) => ActivationConfig::Tanh,
                    Some(Activated::Sigmoid) => ActivationConfig::Sigmoid,
                    Some(Activated::Relu) => ActivationConfig::Relu,
                    None => ActivationConfig::Identity,
                };
                let config = RnnConfig::new(inputs, units, false).with_initializer(zeros);
                StockCell::Rnn(Rnn { gate: gate(0, None), ..config.with_hidden_activation(function).init(device) })
            }
            Recurrence::Lstm => StockCell::Lstm(Lstm {
                input_gate: gate(0, None),
                forget_gate: Some(gate(1, None)),
                cell_gate: gate(2, None),
                output_gate: gate(3, None),
                ..LstmConfig::new(inputs, units, false).with_initializer(zeros).init(device)
            }),
            Recurrence::Gru => StockCell::Gru(Gru {
                reset_gate: gate(0, None),
                update_gate: gate(1, None),
                new_gate: gate(2, own.recurrent.bias.as_ref().map(Param::val)),
                ..GruConfig::new(inputs, units, false).with_initializer(zeros).init(device)
            }),
        };
        Self { stock, form }
    }

    pub(super) fn units(&self) -> usize {
        match &self.stock {
            StockCell::Rnn(rnn) => rnn.d_hidden,
            StockCell::Lstm(lstm) => lstm.d_hidden,
            StockCell::Gru(gru) => gru.d_hidden,
        }
    }

    pub(super) fn recurrence(&self) -> Recurrence {
        self.form.recurrence
    }

    /// # Shapes
    ///
    /// - x: `[steps x batch, inputs]`
    /// - returns: `[steps x batch, units]`, or of the last time step `[batch, units]`
    pub(super) fn forward(&self, x: Tensor<2>, pass: &mut Pass) -> Tensor<2> {
        let [rows, inputs] = x.dims();
        let (steps, units) = (self.form.steps, self.units());
        let batch = rows / steps;
        let device = x.device();
        let x: Tensor<3> = x.reshape([steps, batch, inputs]).swap_dims(0, 1);
        // A leaf whose gradient is that of the hidden states, the initial one first.
        let offset = pass
            .wanted_of_recurrence()
            .states
            .then(|| Tensor::<2>::zeros([rows + batch, units], &device).require_grad());
        let offset_at =
            |state: usize| offset.as_ref().map(|all| all.clone().slice(s![state * batch..(state + 1) * batch]));
        let zeros = || Tensor::<2>::zeros([batch, units], &device);
        let mut state: State = (zeros(), (self.form.recurrence == Recurrence::Lstm).then(zeros));
        let mut outputs = Vec::new();
        for piece in pieces(self.form, offset.is_some()) {
            if self.form.cuts_before(piece.start) {
                state = (state.0.detach(), state.1.map(Tensor::detach));
            }
            if piece.start == 0
                && let Some(offset) = offset_at(0)
            {
                state.0 = state.0 + offset;
            }
            let (mut output, after) = self.run(x.clone().slice([0..batch, piece.clone()]), state);
            state = after;
            // Pieces are single time steps then.
            if let Some(offset) = offset_at(piece.end) {
                state.0 = state.0 + offset;
                output = state.0.clone().reshape([batch, 1, units]);
            }
            outputs.push(output);
        }
        let hidden = Tensor::cat(outputs, 1).swap_dims(0, 1).reshape([rows, units]);
        pass.recurrence(RecurrenceTrace {
            form: self.form,
            hidden: if hidden.is_autodiff() { hidden.clone().inner() } else { hidden.clone() },
            pre_activation_offset: None,
            state_offsets: offset.into_iter().collect(),
            gates: None,
        });
        if self.form.answers_every_step { hidden } else { state.0 }
    }

    fn run(&self, x: Tensor<3>, (hidden, cell): State) -> (Tensor<3>, State) {
        match (&self.stock, cell) {
            (StockCell::Rnn(rnn), _) => {
                let (output, state) = rnn.forward(x, Some(RnnState::new(hidden)));
                (output, (state.hidden, None))
            }
            (StockCell::Lstm(lstm), cell) => {
                let state = cell.map(|cell| LstmState::new(cell, hidden));
                let (output, state) = lstm.forward(x, state);
                (output, (state.hidden, Some(state.cell)))
            }
            (StockCell::Gru(gru), _) => {
                let [batch, steps, _] = x.dims();
                let output = gru.forward(x, Some(hidden));
                let units = output.dims()[2];
                let last = output.clone().slice([0..batch, steps - 1..steps]).reshape([batch, units]);
                (output, (last, None))
            }
        }
    }
}

/// The pieces that are run at once: single time steps where states are measured, else what truncation leaves whole.
fn pieces(form: Form, is_measured: bool) -> Vec<Range<usize>> {
    let length = if is_measured { 1 } else { form.truncation.unwrap_or(form.steps) };
    (0..form.steps).step_by(length).map(|start| start..form.steps.min(start + length)).collect()
}

fn linear(weight: Tensor<2>, bias: Option<Tensor<1>>, device: &Device) -> Linear {
    let parameter = |data| Param::from_data(data, device);
    Linear { weight: Param::from_data(weight.into_data(), device), bias: bias.map(Tensor::into_data).map(parameter) }
}
