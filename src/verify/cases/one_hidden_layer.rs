//! Networks of one hidden layer, whose cost is written out here in f64: every gradient element against differences of it, and the
//! evaluation with running statistics.

use std::collections::BTreeMap;

use super::{Case, Finding, Findings, Laboratory, level, runs_of, saved};
use crate::data::{Answers, Dataset, Split};
use crate::schema::StepPhase;
use crate::verify::tensors::{Tensors, l2};
use crate::verify::{Expected, VerifyError};

pub(super) const CASE: Case = Case {
    name: "one_hidden_layer",
    about: "each gradient of a hidden layer, normalization and softmax is that of differences of the cost in f64",
    source: "differences of the cost in f64",
    is_long: false,
    run: gradients,
};

const UNITS: usize = 16;
/// Large, so that it changes every gradient.
const EPSILON: f64 = 0.1;
const STEP: f64 = 1e-4;

/// Nothing moves with this learning rate, and batch norm has the statistics of all examples afterwards.
const CONFIG: &str = "[data]\nexamples = 64\n[network]\ndepth = 1\nwidth = 16\nactivation = \"identity\"\nweight_init = \"lecun\"\n\
                      bias_init = \"normal\"\nbias_std = 1.0\n[training]\nlearning_rate = 1e-30\nbatch_size = \"full\"\nsteps = 1\n\
                      save = true\n[probe]\nparameters = false\nactivations = false\ndump = [0]\n[throughput]\nsamples = 0\n";

#[derive(Clone, Copy, PartialEq)]
enum Norm {
    None,
    Batch,
    Layer,
}

const NORMS: [(&str, Norm); 3] =
    [("no normalization", Norm::None), ("batch norm", Norm::Batch), ("layer norm", Norm::Layer)];

fn gradients(laboratory: &Laboratory<'_>) -> Findings {
    let epsilon = ("network.norm_epsilon", "0.1");
    let sweep = [
        level("no normalization", &[("network.norm", "\"none\"")]),
        level("batch norm", &[("network.norm", "\"batch\""), epsilon]),
        level("layer norm", &[("network.norm", "\"layer\""), epsilon]),
    ];
    let config = format!("{CONFIG}{}", sweep.concat());
    let runs = laboratory.run(&config)?;
    let datasets = laboratory.datasets(&config)?;
    let dataset = datasets.first().ok_or_else(|| VerifyError::Unreadable("there are no data".to_owned()))?;
    let mut findings = Vec::new();
    for (name, norm) in NORMS {
        let run = runs_of(&runs, name).next();
        let dump = run.and_then(|run| run.rows.tensors.first()).map(|(_, bytes)| bytes.as_slice());
        let dump = Tensors::read(dump.ok_or_else(|| VerifyError::Unreadable(format!("{name}: nothing was dumped")))?)?;
        let network = Network::of(&dump, norm);
        let split = Examples::of(&dataset.train, dataset)?;
        let differences = network.parameters.keys().filter(|parameter| {
            // The mean over the batch takes the bias out: its gradient is 0 but for rounding.
            !(norm == Norm::Batch && parameter.as_str() == "hidden.0.bias")
        });
        let values: Result<Vec<_>, VerifyError> = differences
            .map(|parameter| {
                let expected = network.gradient(parameter, &split);
                let measured = dump.get(&format!("{parameter}.grad"))?;
                let error = l2(expected.iter().zip(measured).map(|(a, b)| a - b)) / l2(expected.iter().copied());
                Ok((parameter.clone(), Expected::absolute(0.0, 1e-3), Some(error)))
            })
            .collect();
        findings.push(Finding::worst(&format!("{name}: error of a gradient by its norm"), values?));
        let test = run.and_then(|run| run.rows.steps.iter().rfind(|row| row.phase == StepPhase::TestSplit)?.loss);
        let mut trained = Network::of(&saved(&runs, name)?, norm);
        trained.uses_running_statistics = true;
        let expected = trained.cost(&Examples::of(&dataset.test, dataset)?);
        findings.push(Finding::new(
            format!("{name}: loss of the test split"),
            Expected::relative(expected, 1e-4),
            test,
        ));
    }
    Ok(findings)
}

/// Inputs and classes.
struct Examples {
    inputs: Vec<Vec<f64>>,
    classes: Vec<usize>,
}

impl Examples {
    fn of(split: &Split, dataset: &Dataset) -> Result<Self, VerifyError> {
        let Answers::Classes { codes, .. } = &split.answers else {
            return Err(VerifyError::Unreadable("the digits have no classes".to_owned()));
        };
        let inputs = split.inputs.chunks_exact(dataset.features);
        Ok(Self {
            inputs: inputs.map(|input| input.iter().map(|x| f64::from(*x)).collect()).collect(),
            classes: codes.iter().map(|code| usize::from(*code)).collect(),
        })
    }
}

/// Parameters by name, and running statistics.
struct Network {
    parameters: BTreeMap<String, Vec<f64>>,
    running: Option<[Vec<f64>; 2]>,
    norm: Norm,
    uses_running_statistics: bool,
}

impl Network {
    fn of(tensors: &Tensors, norm: Norm) -> Self {
        let is_parameter = |name: &str| !name.contains("running_") && name.strip_suffix(".grad").is_none();
        let parameters = tensors.iter().filter(|(name, _)| is_parameter(name));
        let running = ["mean", "variance"].map(|what| tensors.get(&format!("hidden.0.norm.running_{what}")));
        Self {
            parameters: parameters.map(|(name, values)| (name.to_owned(), values.to_vec())).collect(),
            running: match running {
                [Ok(mean), Ok(variance)] => Some([mean.to_vec(), variance.to_vec()]),
                _ => None,
            },
            norm,
            uses_running_statistics: false,
        }
    }

    fn get(&self, name: &str) -> &[f64] {
        self.parameters.get(name).map_or(&[], Vec::as_slice)
    }

    /// The mean softmax cross-entropy.
    fn cost(&self, examples: &Examples) -> f64 {
        let hidden: Vec<Vec<f64>> =
            examples.inputs.iter().map(|x| affine(x, self.get("hidden.0.weight"), self.get("hidden.0.bias"))).collect();
        let hidden = self.normalized(hidden);
        let costs = hidden.iter().zip(&examples.classes).map(|(a, class)| {
            let o = affine(a, self.get("output.weight"), self.get("output.bias"));
            let largest = o.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            largest + o.iter().map(|o| (o - largest).exp()).sum::<f64>().ln() - o[*class]
        });
        costs.sum::<f64>() / hidden.len() as f64
    }

    fn normalized(&self, z: Vec<Vec<f64>>) -> Vec<Vec<f64>> {
        let of_units: Vec<(f64, f64)> = match &self.running {
            Some([mean, variance]) if self.uses_running_statistics => {
                mean.iter().copied().zip(variance.iter().copied()).collect()
            }
            _ => (0..UNITS).map(|unit| statistics(z.iter().map(|row| row[unit]))).collect(),
        };
        let (gamma, beta) = (self.get("hidden.0.norm.gamma"), self.get("hidden.0.norm.beta"));
        let normalize = |mut row: Vec<f64>| {
            let of_row = statistics(row.iter().copied());
            for (unit, z) in row.iter_mut().enumerate() {
                let (mean, variance) = match self.norm {
                    Norm::None => continue,
                    Norm::Batch => of_units[unit],
                    Norm::Layer => of_row,
                };
                *z = gamma[unit] * (*z - mean) / (variance + EPSILON).sqrt() + beta[unit];
            }
            row
        };
        z.into_iter().map(normalize).collect()
    }

    /// The gradient with respect to a parameter, by central differences.
    fn gradient(&self, parameter: &str, examples: &Examples) -> Vec<f64> {
        let count = self.get(parameter).len();
        let moved = |element: usize, by: f64| {
            let mut parameters = self.parameters.clone();
            if let Some(values) = parameters.get_mut(parameter) {
                values[element] += by;
            }
            Self { parameters, running: None, ..*self }.cost(examples)
        };
        (0..count).map(|element| (moved(element, STEP) - moved(element, -STEP)) / (2.0 * STEP)).collect()
    }
}

/// x W + b, W row by row with a row an input.
fn affine(x: &[f64], weights: &[f64], biases: &[f64]) -> Vec<f64> {
    let mut sums = biases.to_vec();
    for (x, row) in x.iter().zip(weights.chunks_exact(biases.len())) {
        for (sum, weight) in sums.iter_mut().zip(row) {
            *sum += x * weight;
        }
    }
    sums
}

/// The mean and the variance, with n in the denominator.
fn statistics(values: impl Iterator<Item = f64> + Clone) -> (f64, f64) {
    let count = values.clone().count() as f64;
    let mean = values.clone().sum::<f64>() / count;
    (mean, values.map(|x| (x - mean).powi(2)).sum::<f64>() / count)
}
