//! Two devices, the same weights and gradients, element by element, in every family of networks.

use super::tensors::{Tensors, l2};
use super::{Expected, Finding, Laboratory, Run, VerifyError, conclude};

/// A family of networks, small, so that a device has few kernels to compile.
pub struct Family {
    /// Its name.
    pub name: &'static str,
    /// The config without heading, up to where the probe's keys are added.
    config: &'static str,
    /// The updates; a chain is only measured.
    steps: usize,
    /// The networks, as cases of a sweep.
    networks: &'static [(&'static str, &'static str)],
}

/// The updates of a network, before the first and the last of which it is compared.
const STEPS: usize = 3;

/// The largest relative difference before the first update.
const TOLERANCE: f64 = 1e-4;
/// The largest one after updates, which carry differences on.
const TOLERANCE_AFTER_UPDATES: f64 = 1e-3;
/// The gradient of a bias before batch norm is 0 but for rounding, and so are the digits that two devices could agree in. A
/// difference counts relative to the parameter, and at least to this share of all parameters of its layer.
const LEAST_SHARE: f64 = 1e-2;

const DIGITS: &str = "[network]\ndepth = 3\nwidth = 16\nactivation = \"relu\"\nweight_init = \"he\"\n[training]\n\
                      learning_rate = 0.05\nbatch_size = 32\n";

const SEQUENCES: &str = "[data]\nset = \"parity\"\nsequence_length = 5\nexamples = 64\n[network]\nkind = \"recurrent\"\ndepth = 2\n\
                         width = 8\nactivation = \"tanh\"\nweight_init = \"lecun\"\nbias_init = \"normal\"\nbias_std = 0.1\n\
                         output_steps = \"every\"\n[training]\nlearning_rate = 0.1\nbatch_size = 8\n";

const RELU: &str = "network.activation = \"relu\"";

/// Every family.
pub const FAMILIES: &[Family] = &[
    Family {
        name: "plain",
        config: DIGITS,
        steps: STEPS,
        networks: &[
            ("sigmoid", "network.activation = \"sigmoid\""),
            ("tanh", "network.activation = \"tanh\""),
            ("relu", RELU),
            ("leaky_relu", "network.activation = \"leaky_relu\""),
            ("prelu", "network.activation = \"prelu\""),
            ("elu", "network.activation = \"elu\""),
            ("selu", "network.activation = \"selu\""),
            ("gelu", "network.activation = \"gelu\""),
            ("softplus", "network.activation = \"softplus\""),
            ("maxout", "network.activation = \"maxout\""),
            ("identity", "network.activation = \"identity\""),
        ],
    },
    Family { name: "batch_norm", config: DIGITS, steps: STEPS, networks: &[("relu", "network.norm = \"batch\"")] },
    Family { name: "layer_norm", config: DIGITS, steps: STEPS, networks: &[("relu", "network.norm = \"layer\"")] },
    Family {
        name: "residual",
        config: DIGITS,
        steps: STEPS,
        networks: &[
            ("pre_activation", "network.kind = \"residual\"\nnetwork.norm = \"batch\""),
            (
                "post_activation",
                "network.kind = \"residual\"\nnetwork.norm = \"batch\"\nnetwork.block_order = \"post_activation\"",
            ),
            (
                "activation_before_addition",
                "network.kind = \"residual\"\nnetwork.norm = \"batch\"\n\
                 network.block_order = \"activation_before_addition\"",
            ),
        ],
    },
    Family {
        name: "convolutional",
        config: "[network]\nkind = \"convolutional\"\ndepth = 8\nwidth = 4\nactivation = \"relu\"\nweight_init = \"he\"\n\
                 norm = \"batch\"\n[training]\nlearning_rate = 0.05\nbatch_size = 16\n",
        steps: STEPS,
        networks: &[("relu", RELU)],
    },
    Family {
        name: "chain",
        config: "[data]\nset = \"single\"\nvalue = 0.5\n[network]\nkind = \"chain\"\ndepth = 5\nactivation = \"sigmoid\"\n\
                 weight_init = \"constant\"\nweight_scale = 2.0\n[training]\nloss = \"linear_probe\"\n",
        steps: 0,
        networks: &[("sigmoid", "network.bias_init = \"zero\"")],
    },
    Family {
        name: "autoencoder",
        config: "[network]\nkind = \"autoencoder\"\ndepth = 3\nwidths = [16, 4]\nactivation = \"sigmoid\"\n\
                 weight_init = \"lecun\"\n[training]\nloss = \"sigmoid_cross_entropy\"\nlearning_rate = 0.02\n\
                 batch_size = 32\n",
        steps: STEPS,
        networks: &[("sigmoid", "network.activation = \"sigmoid\"")],
    },
    Family {
        name: "critic",
        config: "[data]\nset = \"swiss_roll\"\nexamples = 128\n[network]\ndepth = 3\nwidth = 16\nactivation = \"tanh\"\n\
                 weight_init = \"he\"\n[training]\nloss = \"wasserstein\"\ngradient_penalty = 1.0\nlearning_rate = 0.05\n\
                 batch_size = 32\n",
        steps: STEPS,
        networks: &[("gradient penalty", "network.activation = \"tanh\"")],
    },
    Family { name: "rnn", config: SEQUENCES, steps: STEPS, networks: &[("own", "network.cell = \"rnn\"")] },
    Family { name: "lstm", config: SEQUENCES, steps: STEPS, networks: &[("own", "network.cell = \"lstm\"")] },
    Family { name: "gru", config: SEQUENCES, steps: STEPS, networks: &[("own", "network.cell = \"gru\"")] },
    Family {
        name: "stock",
        config: SEQUENCES,
        steps: STEPS,
        networks: &[
            ("Burn's LSTM", "network.cell = \"lstm\"\nnetwork.implementation = \"stock\""),
            ("Burn's GRU", "network.cell = \"gru\"\nnetwork.implementation = \"stock\""),
        ],
    },
];

impl Family {
    /// The steps before whose update the networks are compared.
    fn compared_steps(&self) -> Vec<usize> {
        if self.steps == 0 { vec![0] } else { vec![0, self.steps - 1] }
    }

    fn text(&self) -> String {
        let cases: String =
            self.networks.iter().map(|(name, keys)| format!("[[sweep.cases]]\nname = \"{name}\"\n{keys}\n")).collect();
        format!(
            "{}steps = {}\n[probe]\nparameters = false\nactivations = false\ndump = {:?}\n[throughput]\nsamples = 0\n{cases}",
            self.config,
            self.steps,
            self.compared_steps()
        )
    }
}

/// Holds what one device makes of a family against what another one makes of it. What keeps it from that is a finding too; `None` if
/// it was asked to stop.
pub fn compare(family: &Family, expected: &Laboratory<'_>, found: &Laboratory<'_>) -> Option<Vec<Finding>> {
    conclude(differences(family, expected, found))
}

fn differences(
    family: &Family,
    expected: &Laboratory<'_>,
    found: &Laboratory<'_>,
) -> Result<Vec<Finding>, VerifyError> {
    let text = family.text();
    let (expected, found) = (expected.run(&text)?, found.run(&text)?);
    let mut findings = Vec::new();
    for step in family.compared_steps() {
        let tolerance = if step == 0 { TOLERANCE } else { TOLERANCE_AFTER_UPDATES };
        let mut of_parameters = Vec::new();
        let mut of_gradients = Vec::new();
        for (expected, found) in expected.iter().zip(&found) {
            let name = expected.name();
            let (expected, found) = (dump(expected, step)?, dump(found, step)?);
            for (tensor, difference) in relative_differences(&expected, &found)? {
                let list = if is_gradient(&tensor) { &mut of_gradients } else { &mut of_parameters };
                list.push((format!("{name} {tensor}"), Expected::absolute(0.0, tolerance), difference));
            }
        }
        findings.push(Finding::worst(&format!("weights, step {step}"), of_parameters));
        findings.push(Finding::worst(&format!("gradients, step {step}"), of_gradients));
    }
    Ok(findings)
}

fn dump(run: &Run, step: usize) -> Result<Tensors, VerifyError> {
    let bytes = run.rows.tensors.iter().find(|(of, _)| *of == step).map(|(_, bytes)| bytes.as_slice());
    Tensors::read(bytes.ok_or_else(|| VerifyError::Unreadable(format!("step {step} has left no tensors")))?)
}

fn is_gradient(name: &str) -> bool {
    name.strip_suffix(".grad").is_some()
}

/// `hidden.3` of `hidden.3.norm.gamma`, `output` of `output.weight`.
fn layer(name: &str) -> &str {
    let parts = if name.starts_with("hidden.") { 2 } else { 1 };
    name.match_indices('.').nth(parts - 1).map_or(name, |(end, _)| &name[..end])
}

/// |a - b| / |a| of every tensor, by name; |a| is at least a hundredth of the norm of all parameters, or all gradients, of the layer. `None`
/// where that is no number.
fn relative_differences(expected: &Tensors, found: &Tensors) -> Result<Vec<(String, Option<f64>)>, VerifyError> {
    if expected.iter().count() != found.iter().count() {
        return Err(VerifyError::Unreadable("the devices have left different tensors".to_owned()));
    }
    let of_tensor = |(name, a): (&str, &[f64])| {
        let b = found.get(name)?;
        if a.len() != b.len() {
            return Err(VerifyError::Unreadable(format!("`{name}` has {} elements, and {}", a.len(), b.len())));
        }
        let siblings =
            expected.iter().filter(|(other, _)| layer(other) == layer(name) && is_gradient(other) == is_gradient(name));
        let of_layer = l2(siblings.flat_map(|(_, values)| values.iter().copied()));
        let difference = l2(a.iter().zip(b).map(|(a, b)| a - b));
        let scale = l2(a.iter().copied()).max(LEAST_SHARE * of_layer);
        // A layer that gets no gradient on one device must get none on the other.
        let relative = if difference == 0.0 { 0.0 } else { difference / scale };
        Ok((name.to_owned(), Some(relative).filter(|relative| relative.is_finite())))
    };
    expected.iter().map(of_tensor).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verify::Verdict;

    fn tensors() -> Vec<(&'static str, Vec<f64>)> {
        vec![
            ("hidden.0.weight", vec![0.5, -1.0, 2.0, 0.25]),
            ("hidden.0.weight.grad", vec![3e-6, -4e-6, 1e-6, 0.0]),
            ("hidden.0.bias", vec![0.0, 0.0]),
            // 0 but for rounding.
            ("hidden.0.bias.grad", vec![1e-14, -2e-14]),
            ("output.weight", vec![1.0, 2.0]),
            ("output.weight.grad", vec![30.0, 40.0]),
        ]
    }

    /// The largest difference, and where, when one element of a tensor is changed.
    fn largest(name: &str, change: impl Fn(f64) -> f64) -> (String, Option<f64>) {
        let expected = tensors();
        let mut found = tensors();
        for (_, values) in found.iter_mut().filter(|(other, _)| *other == name) {
            values[1] = change(values[1]);
        }
        let differences = relative_differences(&expected.into_iter().collect(), &found.into_iter().collect())
            .expect("the same names");
        let rank = |difference: Option<f64>| difference.unwrap_or(f64::INFINITY);
        differences.into_iter().max_by(|a, b| rank(a.1).total_cmp(&rank(b.1))).expect("six tensors")
    }

    #[test]
    fn equal_tensors_do_not_differ_at_all() {
        assert_eq!(largest("hidden.0.weight", |x| x).1, Some(0.0));
    }

    #[test]
    fn a_gradient_that_has_nearly_vanished_is_compared_with_itself() {
        // 1e-3 of an element of -4e-6, beside gradients of 50.
        let (name, difference) = largest("hidden.0.weight.grad", |x| x * 1.001);
        assert_eq!(name, "hidden.0.weight.grad");
        assert!(difference.is_some_and(|difference| difference > 7e-4 && difference < 9e-4), "{difference:?}");
    }

    #[test]
    fn what_is_0_but_for_rounding_is_compared_with_its_layer() {
        let (_, difference) = largest("hidden.0.bias.grad", |x| -x);
        assert!(difference.is_some_and(|difference| difference > 0.0 && difference < 1e-5), "{difference:?}");
        // And a bias that gets a gradient where the other device gives it none is found.
        let (name, difference) = largest("hidden.0.bias.grad", |_| 1e-7);
        assert_eq!(name, "hidden.0.bias.grad");
        assert!(difference.is_some_and(|difference| difference > 1.0), "{difference:?}");
    }

    #[test]
    fn what_is_not_finite_on_one_device_has_no_difference_and_fails() {
        let (name, difference) = largest("output.weight.grad", |_| f64::NAN);
        assert_eq!((name.as_str(), difference), ("output.weight.grad", None));
        let finding = Finding::new("gradients", Expected::absolute(0.0, TOLERANCE), difference);
        assert_eq!(finding.verdict, Verdict::Fail);
    }

    #[test]
    fn tensors_that_only_one_device_has_are_an_error() {
        let fewer: Tensors = tensors().into_iter().skip(1).collect();
        assert!(relative_differences(&tensors().into_iter().collect(), &fewer).is_err());
        let mut shorter = tensors();
        shorter[0].1.pop();
        assert!(relative_differences(&tensors().into_iter().collect(), &shorter.into_iter().collect()).is_err());
    }

    #[test]
    fn a_layer_is_named_by_the_first_parts_of_its_parameters() {
        for (name, expected) in
            [("hidden.12.norm.gamma", "hidden.12"), ("output.weight.grad", "output"), ("stem.bias", "stem")]
        {
            assert_eq!(layer(name), expected);
        }
    }
}
