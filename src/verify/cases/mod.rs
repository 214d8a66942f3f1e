//! The cases, one file a subject.

mod activation_functions;
mod autoencoder;
mod batch_norm;
mod chain;
mod clipping;
mod critic;
mod initial_weights;
mod learning_speeds;
mod mean_field;
mod memory;
mod normalization;
mod one_hidden_layer;
mod orthogonal;
mod regularization;
mod remedies;
mod residual;
mod theory;
mod through_time;

use std::fmt::Write;

use super::tensors::Tensors;
use super::{Case, Finding, Laboratory, Run, VerifyError};
use crate::analysis::{RunSummary, configurations};

type Findings = Result<Vec<Finding>, VerifyError>;

/// Every case, in the order of the table.
pub const CASES: &[Case] = &[
    theory::CONSTANTS,
    initial_weights::CASE,
    activation_functions::CASE,
    activation_functions::SELU,
    chain::CASE,
    chain::INTERVAL,
    mean_field::CASE,
    mean_field::FIFTY_LAYERS,
    mean_field::RANDOM_SIGN,
    orthogonal::CASE,
    normalization::CASE,
    normalization::RUNNING,
    one_hidden_layer::CASE,
    batch_norm::CASE,
    residual::CASE,
    residual::TANH,
    theory::PREDICTIONS,
    through_time::RNN,
    through_time::LSTM,
    through_time::GRU,
    through_time::DRIVEN,
    clipping::CASE,
    clipping::DESCENT,
    regularization::CASE,
    critic::CASE,
    memory::BASELINES,
    learning_speeds::CASE,
    remedies::CASE,
    remedies::FIVE_SEEDS,
    remedies::PRETRAINING,
    autoencoder::CASE,
    memory::TRAINED,
    learning_speeds::MNIST,
    learning_speeds::ACCURACY,
    autoencoder::MNIST,
];

/// The protocol of mean field theory: one N(0, 1) input, a random linear probe, nothing is trained. A `[[sweep.cases]]` or a
/// `[sweep]` follows.
fn mean_field(seeds: usize, width: usize, depth: usize, network: &str, sweep: &str) -> String {
    format!(
        "seeds = {seeds}\n[data]\nset = \"gaussian\"\nfeatures = {width}\n[network]\ndepth = {depth}\nwidth = {width}\n\
         {network}\n[training]\nloss = \"linear_probe\"\nbatch_size = 1\nsteps = 0\n[probe]\nparameters = false\n\
         [throughput]\nsamples = 0\n{sweep}"
    )
}

/// A case of a sweep: its name, and keys with their values.
fn level(name: &str, keys: &[(&str, &str)]) -> String {
    let mut text = format!("[[sweep.cases]]\nname = \"{name}\"\n");
    for (key, value) in keys {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{key} = {value}");
    }
    text
}

/// A text of a config, in quotes.
fn quoted(text: &str) -> String {
    format!("\"{text}\"")
}

/// The runs of a level.
fn runs_of<'a>(runs: &'a [Run], name: &'a str) -> impl Iterator<Item = &'a Run> {
    runs.iter().filter(move |run| run.name() == name)
}

/// The factor by which deltas change a layer, over the seeds of a level.
fn delta_rate(runs: &[Run], name: &str) -> Option<f64> {
    let summaries: Vec<RunSummary> = runs_of(runs, name).map(|run| run.summary.clone()).collect();
    // A seed without a ratio would silently make the mean that of the others.
    if summaries.iter().any(|summary| summary.delta_ratio_first.is_none()) {
        return None;
    }
    configurations(&summaries).first()?.delta_rate()
}

/// The network that the first run of a level has saved.
fn saved(runs: &[Run], name: &str) -> Result<Tensors, VerifyError> {
    let network = runs_of(runs, name).next().and_then(|run| run.rows.network.as_deref());
    Tensors::read(network.ok_or_else(|| VerifyError::Unreadable(format!("{name}: no network was saved")))?)
}

/// The mean of a quantity over runs; `None` if one has none.
fn mean_of<'a>(runs: impl Iterator<Item = &'a Run>, quantity: impl Fn(&Run) -> Option<f64>) -> Option<f64> {
    let values: Option<Vec<f64>> = runs.map(quantity).collect();
    crate::analysis::mean(&values?)
}
