//! Recurrent networks in f64 and in plain loops, one example after the other: no Burn, no tensors, no backward pass.
//!
//! The cells are written from their papers: Elman 1990, Gers et al. 2000 (LSTM with a forget gate), Cho et al. 2014, version 1
//! (GRU). Derivatives are differences: what is looked for is moved by a little, wherever it stands.

use gradmark::config::Loss;

/// The cells, and the functions of the vanilla RNN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cell {
    Tanh,
    Relu,
    Sigmoid,
    Identity,
    Lstm,
    Gru,
}

impl Cell {
    pub fn gates(self) -> usize {
        match self {
            Self::Lstm => 4,
            Self::Gru => 3,
            _ => 1,
        }
    }
}

/// A layer. Matrices stand row by row, a row an input; the columns of a gate's units stand together, in an LSTM in the order
/// input, forget, candidate, output, in a GRU reset, update, candidate.
#[derive(Clone, Debug)]
pub struct Layer {
    pub cell: Cell,
    pub units: usize,
    pub input: Vec<f64>,
    pub bias: Vec<f64>,
    pub recurrent: Vec<f64>,
    /// d in tanh(W x + b + r (U h + d)) of a GRU.
    pub inner_bias: Vec<f64>,
}

/// The output layer: its weights row by row, and its biases.
#[derive(Clone, Debug)]
pub struct Output {
    pub weight: Vec<f64>,
    pub bias: Vec<f64>,
}

#[derive(Clone, Debug)]
pub struct Network {
    pub layers: Vec<Layer>,
    pub output: Option<Output>,
    pub answers_every_step: bool,
    pub truncation: Option<usize>,
}

/// The state of a layer for one example.
#[derive(Clone, Debug, PartialEq)]
pub struct State {
    pub hidden: Vec<f64>,
    pub cell: Vec<f64>,
}

/// Where numbers can be moved besides parameters and inputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Site {
    /// `W x + b`, before the part of the state is added; time step t makes the state t + 1 of it.
    Sum,
    /// The state after so many time steps.
    Hidden,
    Cell,
}

/// A number that is moved.
#[derive(Clone, Copy, Debug)]
pub struct Nudge {
    pub site: Site,
    pub layer: usize,
    pub time_step: usize,
    pub example: usize,
    pub element: usize,
    pub by: f64,
}

/// What a forward pass leaves behind.
#[derive(Debug)]
pub struct Run {
    /// All examples after the first time step that has an output, then all after the next.
    pub outputs: Vec<Vec<f64>>,
    /// By layer, example and time step, the initial one first.
    pub states: Vec<Vec<Vec<State>>>,
    /// By layer, example, time step and gate: i, f, o of an LSTM and r, z of a GRU.
    pub gates: Vec<Vec<Vec<Vec<Vec<f64>>>>>,
    /// On which side of the kink each number before a ReLU is.
    pub sides: Vec<bool>,
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// Numbers of symbols as vectors.
pub fn one_hot(symbol: f64, kinds: usize) -> Vec<f64> {
    (0..kinds).map(|kind| f64::from(u8::from(kind as f64 == symbol))).collect()
}

/// Column `column` of `x M`.
fn product(x: &[f64], matrix: &[f64], columns: usize, column: usize) -> f64 {
    assert_eq!(matrix.len(), x.len() * columns);
    x.iter().enumerate().map(|(row, x)| x * matrix[row * columns + column]).sum()
}

impl Layer {
    fn columns(&self) -> usize {
        self.cell.gates() * self.units
    }

    /// A time step: the state after it and its gates. `moved` gives what is added at a site.
    fn step(
        &self,
        x: &[f64],
        before: &State,
        moved: impl Fn(Site, usize) -> f64,
        sides: &mut Vec<bool>,
    ) -> (State, Vec<Vec<f64>>) {
        let units = self.units;
        let columns = self.columns();
        let of_input =
            |column: usize| product(x, &self.input, columns, column) + self.bias[column] + moved(Site::Sum, column);
        let of_state = |column: usize| product(&before.hidden, &self.recurrent, columns, column);
        let z = |gate: usize, unit: usize| of_input(gate * units + unit) + of_state(gate * units + unit);
        let all = |number: &dyn Fn(usize) -> f64| -> Vec<f64> { (0..units).map(number).collect() };
        let shown = |unit: usize, h: f64| h + moved(Site::Hidden, unit);
        match self.cell {
            Cell::Lstm => {
                let input = all(&|unit| sigmoid(z(0, unit)));
                let forget = all(&|unit| sigmoid(z(1, unit)));
                let candidate = all(&|unit| z(2, unit).tanh());
                let output = all(&|unit| sigmoid(z(3, unit)));
                let cell = all(&|unit| {
                    forget[unit] * before.cell[unit] + input[unit] * candidate[unit] + moved(Site::Cell, unit)
                });
                let hidden = all(&|unit| shown(unit, output[unit] * cell[unit].tanh()));
                (State { hidden, cell }, vec![input, forget, output])
            }
            Cell::Gru => {
                let reset = all(&|unit| sigmoid(z(0, unit)));
                let update = all(&|unit| sigmoid(z(1, unit)));
                let hidden = all(&|unit| {
                    let place = 2 * units + unit;
                    let inner = of_state(place) + self.inner_bias[unit];
                    let candidate = (of_input(place) + reset[unit] * inner).tanh();
                    shown(unit, (1.0 - update[unit]) * candidate + update[unit] * before.hidden[unit])
                });
                (State { hidden, cell: before.cell.clone() }, vec![reset, update])
            }
            _ => {
                if self.cell == Cell::Relu {
                    sides.extend((0..units).map(|unit| z(0, unit) > 0.0));
                }
                let function = |z: f64| match self.cell {
                    Cell::Tanh => z.tanh(),
                    Cell::Relu => z.max(0.0),
                    Cell::Sigmoid => sigmoid(z),
                    _ => z,
                };
                let hidden = all(&|unit| shown(unit, function(z(0, unit))));
                (State { hidden, cell: before.cell.clone() }, Vec::new())
            }
        }
    }
}

impl Network {
    /// Whether the state before a time step is handed on as a constant.
    fn cuts_before(&self, step: usize) -> bool {
        step > 0 && self.truncation.is_some_and(|length| step.is_multiple_of(length))
    }

    /// The outputs for sequences, by example, time step and input. Where gradients are truncated, a pass in which something
    /// is moved takes the states that it must not depend on from the pass in which nothing is.
    pub fn forward(&self, sequences: &[Vec<Vec<f64>>], unmoved: Option<&Run>, nudge: Option<Nudge>) -> Run {
        let mut run = Run { outputs: Vec::new(), states: Vec::new(), gates: Vec::new(), sides: Vec::new() };
        let mut signals = sequences.to_vec();
        for index in 0..self.layers.len() {
            let (mut states, mut gates) = (Vec::new(), Vec::new());
            for (example, signal) in signals.iter_mut().enumerate() {
                let constants = unmoved.map(|unmoved| &unmoved.states[index][example][..]);
                let nudge = nudge.filter(|nudge| (nudge.layer, nudge.example) == (index, example));
                let (of_example, gates_of_example) = self.through(index, signal, constants, nudge, &mut run.sides);
                *signal = of_example[1..].iter().map(|state| state.hidden.clone()).collect();
                states.push(of_example);
                gates.push(gates_of_example);
            }
            run.states.push(states);
            run.gates.push(gates);
        }
        let steps = sequences[0].len();
        let first = if self.answers_every_step { 0 } else { steps - 1 };
        for step in first..steps {
            run.outputs.extend(signals.iter().map(|signal| self.answer(&signal[step])));
        }
        run
    }

    /// The states of a layer for one example, the initial one first, and its gates.
    fn through(
        &self,
        layer: usize,
        signal: &[Vec<f64>],
        constants: Option<&[State]>,
        nudge: Option<Nudge>,
        sides: &mut Vec<bool>,
    ) -> (Vec<State>, Vec<Vec<Vec<f64>>>) {
        let layer = &self.layers[layer];
        let moved = |site, time_step, element| {
            let nudge =
                nudge.filter(|nudge| (nudge.site, nudge.time_step, nudge.element) == (site, time_step, element));
            nudge.map_or(0.0, |nudge| nudge.by)
        };
        let initial = |site| (0..layer.units).map(|unit| moved(site, 0, unit)).collect();
        let mut states = vec![State { hidden: initial(Site::Hidden), cell: initial(Site::Cell) }];
        let mut gates = Vec::new();
        for (step, x) in signal.iter().enumerate() {
            let before = match constants {
                Some(constants) if self.cuts_before(step) => &constants[step],
                _ => &states[step],
            };
            // What leads to a state has the number of its time step from 0, the state itself from 1.
            let moved = |site, element| moved(site, if site == Site::Sum { step } else { step + 1 }, element);
            let (after, gates_of_step) = layer.step(x, before, moved, sides);
            states.push(after);
            gates.push(gates_of_step);
        }
        (states, gates)
    }

    fn answer(&self, hidden: &[f64]) -> Vec<f64> {
        let Some(output) = &self.output else {
            return hidden.to_vec();
        };
        let count = output.bias.len();
        (0..count).map(|place| product(hidden, &output.weight, count, place) + output.bias[place]).collect()
    }
}

/// The mean over the rows of each one's cost.
pub fn cost(loss: Loss, outputs: &[Vec<f64>], targets: &[Vec<f64>]) -> f64 {
    assert_eq!(outputs.len(), targets.len());
    let of_row = |(z, t): (&Vec<f64>, &Vec<f64>)| -> f64 {
        assert_eq!(z.len(), t.len());
        let pairs = z.iter().zip(t);
        match loss {
            Loss::SoftmaxCrossEntropy => {
                let all: f64 = z.iter().map(|z| z.exp()).sum();
                pairs.map(|(z, t)| -t * (z.exp() / all).ln()).sum()
            }
            Loss::SquaredError => pairs.map(|(z, t)| (z - t).powi(2)).sum(),
            Loss::LinearProbe => pairs.map(|(z, t)| z * t).sum(),
            Loss::SigmoidCrossEntropy | Loss::Quadratic | Loss::Wasserstein => {
                panic!("{loss:?} is compared in other families")
            }
        }
    };
    outputs.iter().zip(targets).map(of_row).sum::<f64>() / outputs.len() as f64
}

/// The derivative of a number by central differences, unless there is a kink in between.
pub fn derivative(at: impl Fn(f64) -> (f64, Vec<bool>)) -> Option<f64> {
    [1e-5, 1e-7].into_iter().find_map(|h| {
        let (above, below) = (at(h), at(-h));
        (above.1 == below.1).then(|| (above.0 - below.0) / (2.0 * h))
    })
}
