//! Tasks that need a memory: what is known without one, and what networks learn.

use std::collections::BTreeMap;

use super::{Case, Finding, Findings, Laboratory, mean_of};
use crate::data::{Answers, Dataset, Split};
use crate::verify::Expected;

pub(super) const BASELINES: Case = Case {
    name: "memory_baselines",
    about: "the loss of who answers without looking: 1/6 for adding, 10 ln 8 / (T + 20) for copying, ln 4 for temporal order",
    source: "Arjovsky 2016, Pascanu 2013",
    is_long: false,
    run: baselines,
};

pub(super) const TRAINED: Case = Case {
    name: "adding_100_steps",
    about: "over a hundred time steps a vanilla RNN learns nothing of the adding problem, and an LSTM does",
    source: "Arjovsky 2016, section 5.2",
    is_long: true,
    run: adding,
};

fn baselines(laboratory: &Laboratory<'_>) -> Findings {
    let tasks = [
        // The sum of two numbers of U(0, 1) has the variance 2 / 12.
        ("adding", Expected::relative(0.166_667, 0.03)),
        ("copying", Expected::relative(0.173_287, 0.01)),
        ("temporal_order", Expected::relative(1.386_294, 0.01)),
    ];
    let finding = |(set, expected): (&str, Expected)| {
        let datasets = laboratory.datasets(&format!(
            "seeds = 10\n[data]\nset = \"{set}\"\nsequence_length = 100\n[network]\nkind = \"recurrent\"\ncell = \"rnn\"\n\
             depth = 1\nwidth = 4\nactivation = \"tanh\"\nweight_init = \"lecun\"\n[training]\n{}steps = 0\n",
            if set == "adding" { "loss = \"squared_error\"\n" } else { "" }
        ))?;
        let measured = loss_without_looking(&datasets);
        Ok(Finding::new(format!("{set}, 100 time steps"), expected, measured))
    };
    tasks.into_iter().map(finding).collect()
}

/// The loss of the best answers that are the same for all examples: of numbers their variance, of classes the mean entropy of the
/// classes at each time step.
fn loss_without_looking(datasets: &[Dataset]) -> Option<f64> {
    let splits: Vec<&Split> = datasets.iter().flat_map(|dataset| [&dataset.train, &dataset.test]).collect();
    let mut numbers = Vec::new();
    let mut classes: BTreeMap<(usize, u8), usize> = BTreeMap::new();
    let (mut examples, mut answers) = (0, 0);
    for split in splits {
        examples += split.len();
        match &split.answers {
            Answers::Numbers(values) => numbers.extend(values.iter().map(|value| f64::from(*value))),
            Answers::Classes { codes, each } => {
                answers = *each;
                for (place, code) in codes.iter().enumerate() {
                    *classes.entry((place % each, *code)).or_default() += 1;
                }
            }
            Answers::None(_) | Answers::Pairs { .. } => return None,
        }
    }
    if answers == 0 {
        let mean = crate::analysis::mean(&numbers)?;
        return crate::analysis::mean(&numbers.iter().map(|number| (number - mean).powi(2)).collect::<Vec<f64>>());
    }
    let entropy = classes.values().map(|count| {
        let share = *count as f64 / examples as f64;
        -share * share.ln()
    });
    Some(entropy.sum::<f64>() / answers as f64)
}

fn adding(laboratory: &Laboratory<'_>) -> Findings {
    let config = include_str!("../../../configs/lstm_vs_rnn.toml");
    let overrides =
        ["data.sequence_length=100", "experiment.seeds=1", "probe.parameters=false", "probe.activations=false"];
    let runs = laboratory.run_config(config, &overrides)?;
    let loss = |name: &str| {
        let is_it = |run: &&super::Run| run.spec.levels.last().is_some_and(|level| level == name);
        mean_of(runs.iter().filter(is_it), |run| run.summary.test_loss)
    };
    Ok(vec![
        // Ten percent above and below 1/6.
        Finding::new("vanilla RNN: test loss", Expected::between(0.15, 0.183), loss("RNN")),
        Finding::new("LSTM: test loss", Expected::below(0.05), loss("LSTM")),
    ])
}
