//! The gradient of a linear probe of the last state of recurrent networks: at rest, at a state of 0, which their inputs do not
//! reach, and in motion.

use super::{Case, Finding, Findings, Laboratory, Run, VerifyError, level, quoted, runs_of};
use crate::schema::ActivationRow;
use crate::verify::Expected;

pub(super) const RNN: Case = Case {
    name: "rnn_through_time",
    about: "a tanh RNN at rest multiplies the gradient by its orthogonal matrix, whose norm is g, at every time step",
    source: "g^T; Pascanu et al. 2013",
    is_long: false,
    run: rnn,
};

pub(super) const LSTM: Case = Case {
    name: "lstm_through_time",
    about: "an LSTM without weights multiplies the gradient of its cell state by its forget gate",
    source: "s(b)^T; Gers et al. 2000",
    is_long: false,
    run: lstm,
};

pub(super) const GRU: Case = Case {
    name: "gru_through_time",
    about: "a GRU without weights multiplies the gradient of its state by its update gate",
    source: "s(b)^T",
    is_long: false,
    run: gru,
};

pub(super) const DRIVEN: Case = Case {
    name: "cells_in_motion",
    about: "six time steps of a cell with biases and half open gates have the derivatives of its formula",
    source: "the cells' formulas, 40 digits",
    is_long: false,
    run: driven,
};

fn at_rest(
    laboratory: &Laboratory<'_>,
    cell: &str,
    steps: usize,
    recurrent: &str,
    levels: &str,
) -> Result<Vec<Run>, VerifyError> {
    laboratory.run(&format!(
        "[data]\nset = \"gaussian\"\nfeatures = 4\nsequence_length = {steps}\n[network]\nkind = \"recurrent\"\n\
         cell = \"{cell}\"\nactivation = \"tanh\"\ndepth = 1\nwidth = 24\nweight_init = \"zero\"\nbias_init = \"zero\"\n\
         recurrent_init = \"{recurrent}\"\n[training]\nloss = \"linear_probe\"\nbatch_size = 3\nsteps = 0\n\
         [probe]\nparameters = false\n[throughput]\nsamples = 0\n{levels}"
    ))
}

/// The gradient with respect to the initial state by that with respect to the last one, as published, and the same at every time
/// step against the power of a factor.
fn powers(
    run: Option<&Run>,
    name: &str,
    gradient: fn(&ActivationRow) -> Option<f64>,
    factor: f64,
    through_all: Expected,
) -> Vec<Finding> {
    let rows = run.map(|run| run.rows.activations.as_slice()).unwrap_or_default();
    let states: Vec<Option<f64>> = rows.iter().filter(|row| row.time_step.is_some()).map(gradient).collect();
    let steps = states.len().saturating_sub(1);
    let ratio = |time_step: usize| Some(states.get(time_step).copied()?? / states.get(steps).copied()??);
    let values = (0..steps).map(|time_step| {
        let expected = Expected::relative(factor.powi((steps - time_step) as i32), 1e-4);
        (format!("time step {time_step}"), expected, ratio(time_step))
    });
    vec![
        Finding::new(format!("{name}: state 0 by state {steps}"), through_all, ratio(0)),
        Finding::worst(&format!("{name}: state by the last one"), values),
    ]
}

fn rnn(laboratory: &Laboratory<'_>) -> Findings {
    let gains = [("0.9", 0.9, 2.6561e-5), ("1.0", 1.0, 1.0), ("1.1", 1.1, 13_780.6)];
    let levels: String = gains.iter().map(|(gain, ..)| level(gain, &[("network.recurrent_scale", gain)])).collect();
    let runs = at_rest(laboratory, "rnn", 100, "orthogonal", &levels)?;
    let findings = gains.iter().flat_map(|(gain, factor, through_all)| {
        let run = runs.iter().find(|run| run.name() == *gain);
        let expected = Expected::relative(*through_all, 1e-4);
        powers(run, &format!("g = {gain}"), |row| row.hidden_grad_l2, *factor, expected)
    });
    Ok(findings.collect())
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

fn lstm(laboratory: &Laboratory<'_>) -> Findings {
    let biases = [("0.0", 0.0, 7.889e-31), ("1.0", 1.0, 2.484e-14), ("2.0", 2.0, 3.073e-6), ("3.0", 3.0, 7.760e-3)];
    let levels: String = biases.iter().map(|(bias, ..)| level(bias, &[("network.forget_bias", bias)])).collect();
    let runs = at_rest(laboratory, "lstm", 100, "zero", &levels)?;
    let findings = biases.iter().flat_map(|(name, bias, through_all)| {
        let run = runs.iter().find(|run| run.name() == *name);
        // Four digits are known.
        let expected = Expected::relative(*through_all, 5e-4);
        powers(run, &format!("forget bias {bias}"), |row| row.cell_grad_l2, sigmoid(*bias), expected)
    });
    Ok(findings.collect())
}

fn gru(laboratory: &Laboratory<'_>) -> Findings {
    let runs = at_rest(laboratory, "gru", 50, "zero", &level("2", &[("network.update_bias", "2.0")]))?;
    let expected = Expected::relative(1.7530e-3, 1e-4);
    Ok(powers(runs.first(), "update bias 2", |row| row.hidden_grad_l2, sigmoid(2.0), expected))
}

/// The derivatives of h after six time steps with respect to the first h and c, of units that see only themselves, with the weight .8
/// and biases of .5 in every gate and in the candidate, 1 in an LSTM's forget gate; from a state of 0, with 40 digits by mpmath:
///
/// - RNN: h = tanh(.8 h + .5),
/// - LSTM: i = o = s(.8 h + .5), f = s(.8 h + 1), c = f c + i tanh(.8 h + .5), h = o tanh(c),
/// - GRU: r = z = s(.8 h + .5), h = (1 - z) tanh(.5 + r (.8 h + .5)) + z h.
fn driven(laboratory: &Laboratory<'_>) -> Findings {
    let cells = [
        ("rnn", 0.001_501_306_6, None),
        ("lstm", 0.045_994_343_7, Some(0.066_501_300_8)),
        ("gru", 0.126_312_252, None),
    ];
    let levels: String = cells.iter().map(|(cell, ..)| level(cell, &[("network.cell", &quoted(cell))])).collect();
    let runs = laboratory.run(&format!(
        "[data]\nset = \"gaussian\"\nfeatures = 4\nsequence_length = 6\n[network]\nkind = \"recurrent\"\n\
         activation = \"tanh\"\ndepth = 1\nwidth = 24\nweight_init = \"zero\"\nbias_init = \"constant\"\nbias_value = 0.5\n\
         recurrent_init = \"identity\"\nrecurrent_scale = 0.8\n[training]\nloss = \"linear_probe\"\nbatch_size = 3\n\
         steps = 0\n[probe]\nparameters = false\n[throughput]\nsamples = 0\n{levels}"
    ))?;
    let mut findings = Vec::new();
    for (cell, of_hidden, of_cell) in cells {
        let rows = runs_of(&runs, cell).next().map(|run| run.rows.activations.as_slice()).unwrap_or_default();
        let state = |time_step: usize| rows.iter().find(|row| row.time_step == Some(time_step));
        let by_last =
            |gradient: fn(&ActivationRow) -> Option<f64>| Some(gradient(state(0)?)? / state(6)?.hidden_grad_l2?);
        let quantity = |of: &str| format!("{cell}: hidden state 6 by {of} 0");
        let hidden = by_last(|row| row.hidden_grad_l2);
        findings.push(Finding::new(quantity("hidden state"), Expected::relative(of_hidden, 1e-4), hidden));
        if let Some(of_cell) = of_cell {
            let measured = by_last(|row| row.cell_grad_l2);
            findings.push(Finding::new(quantity("cell state"), Expected::relative(of_cell, 1e-4), measured));
        }
    }
    Ok(findings)
}
