//! The gradient through time of every recurrent layer, and how far its gates are open.

use burn::tensor::Gradients;

use super::seeds::Numbers;
use crate::kernel::{self, Norm, Reading, Recurrence, norms_from_reading};
use crate::network::RecurrenceTrace;
use crate::schema::{ActivationRow, Gate, GateRow};

/// What was measured of one recurrent layer, not yet read.
#[derive(Debug)]
pub struct Measurement {
    /// The norms of the gradients with respect to the states, the initial one first: of the hidden state, then of the cell
    /// state of an LSTM.
    states: Vec<Reading>,
    /// The gates in their order, and how far they are open.
    gates: Option<(Vec<Gate>, Reading)>,
}

/// What is kept of a measurement while its readings are on the way.
#[derive(Clone, Debug)]
pub(super) struct Header {
    states: usize,
    gates: Option<Vec<Gate>>,
}

/// The gates of a cell and their places among what it keeps.
fn gates_of(recurrence: Recurrence) -> &'static [(Gate, usize)] {
    match recurrence {
        Recurrence::Rnn(_) => &[],
        Recurrence::Lstm => &[(Gate::Input, 0), (Gate::Forget, 1), (Gate::Output, 3)],
        Recurrence::Gru => &[(Gate::Reset, 0), (Gate::Update, 1)],
    }
}

/// Summarizes the trace of a recurrent layer after the backward pass.
pub fn measure(trace: RecurrenceTrace, gradients: &Gradients) -> Measurement {
    let steps = trace.form.steps;
    let gradients = trace.state_offsets.iter().filter_map(|offset| offset.grad(gradients));
    let states = gradients.map(|gradient| kernel::block_norms(&gradient, steps + 1)).collect();
    let gates = trace.gates.map(|gates| {
        let (names, places): (Vec<Gate>, Vec<usize>) = gates_of(trace.form.recurrence).iter().copied().unzip();
        let units = gates.dims()[1] / trace.form.recurrence.kept();
        let summary = kernel::gate_summary(&gates, steps, units, &places);
        (names, summary)
    });
    Measurement { states, gates }
}

impl Measurement {
    /// Moves the readings behind the others.
    pub(super) fn take(self, readings: &mut Vec<Reading>) -> Header {
        let states = self.states.len();
        readings.extend(self.states);
        let gates = self.gates.map(|(gates, reading)| {
            readings.push(reading);
            gates
        });
        Header { states, gates }
    }
}

impl Header {
    /// The rows of a layer, which has `row` as a whole, from its readings.
    pub(super) fn fill(&self, numbers: &mut Numbers<'_>, row: &ActivationRow) -> (Vec<ActivationRow>, Vec<GateRow>) {
        let mut norms = (0..self.states)
            .map(|_| norms_from_reading(numbers.next()).into_iter().map(Norm::l2).collect::<Vec<Option<f64>>>());
        let (hidden, cells) = (norms.next().unwrap_or_default(), norms.next().unwrap_or_default());
        let at_step = |(time_step, hidden): (usize, Option<f64>)| ActivationRow {
            run_id: row.run_id.clone(),
            step: row.step,
            layer_index: row.layer_index,
            layer: row.layer.clone(),
            time_step: Some(time_step),
            hidden_grad_l2: hidden,
            cell_grad_l2: cells.get(time_step).copied().flatten(),
            ..ActivationRow::default()
        };
        let states = hidden.into_iter().enumerate().map(at_step).collect();
        let gates = self.gates.as_ref().map_or_else(Vec::new, |gates| gate_rows(gates, numbers.next(), row));
        (states, gates)
    }
}

/// Mean, closed and open fraction of each gate, one time step after the other.
fn gate_rows(gates: &[Gate], read: &[f64], row: &ActivationRow) -> Vec<GateRow> {
    let at_step = |(time_step, numbers): (usize, &[f64])| {
        let gate_row = |(gate, numbers): (&Gate, &[f64])| {
            let is_finite = numbers[0].is_finite();
            GateRow {
                run_id: row.run_id.clone(),
                step: row.step,
                layer_index: row.layer_index,
                layer: row.layer.clone(),
                gate: *gate,
                time_step: time_step + 1,
                mean: is_finite.then_some(numbers[0]),
                low_fraction: is_finite.then_some(numbers[1]),
                high_fraction: is_finite.then_some(numbers[2]),
            }
        };
        gates.iter().zip(numbers.chunks_exact(3)).map(gate_row).collect::<Vec<GateRow>>()
    };
    read.chunks_exact(3 * gates.len()).enumerate().flat_map(at_step).collect()
}
