//! Gradient clipping.

use super::{Case, Finding, Findings, Laboratory, VerifyError, level, saved};
use crate::train::descend_on_fourth_power;
use crate::verify::Expected;
use crate::verify::tensors::{Tensors, l2};

pub(super) const CASE: Case = Case {
    name: "clipping",
    about: "clipping by global norm leaves the norm min(c, |g|) and the ratios between layers, by value no element above c",
    source: "Pascanu 2013; Mikolov 2012",
    is_long: false,
    run: updates,
};

pub(super) const DESCENT: Case = Case {
    name: "clipped_descent",
    about: "descent on x^4 with rate .01 diverges from above sqrt(50) = 7.0711, and clipped at 1 walks from 10 to 1 in 900 steps",
    source: "closed form",
    is_long: false,
    run: descent,
};

/// The network before a step, and after one step of rate 1 without clipping and with it: the differences are the gradients.
fn updates(laboratory: &Laboratory<'_>) -> Findings {
    let clipped = |name, clipping, threshold| {
        level(name, &[("training.clipping", clipping), ("training.clip_threshold", threshold)])
    };
    let levels = [
        level("before", &[("training.steps", "0")]),
        level("unclipped", &[]),
        clipped("global norm", "\"global_norm\"", "0.25"),
        clipped("loose", "\"global_norm\"", "1000.0"),
        clipped("value", "\"value\"", "0.01"),
    ];
    let runs = laboratory.run(&format!(
        "[network]\ndepth = 3\nwidth = 16\nactivation = \"tanh\"\nweight_init = \"lecun\"\n[training]\nlearning_rate = 1.0\n\
         batch_size = 64\nsteps = 1\nsave = true\n[throughput]\nsamples = 0\n{}",
        levels.concat()
    ))?;
    let before = saved(&runs, "before")?;
    let update = |name: &str| gradients(&before, &saved(&runs, name)?);
    let unclipped = update("unclipped")?;
    let norm = |gradients: &[(String, Vec<f64>)]| l2(gradients.iter().flat_map(|(_, values)| values.iter().copied()));
    let by_norm = update("global norm")?;
    // All layers shrink by the same factor, which is that of the whole.
    let factor = 0.25 / norm(&unclipped);
    let factors = unclipped.iter().zip(&by_norm).map(|((name, before), (_, after))| {
        let measured = l2(after.iter().copied()) / l2(before.iter().copied());
        (name.clone(), Expected::relative(factor, 1e-3), Some(measured))
    });
    let factors = Finding::worst("by global norm .25: left of the gradient", factors);
    let by_value = update("value")?;
    let largest = by_value.iter().flat_map(|(_, values)| values).fold(0.0_f64, |largest, x| largest.max(x.abs()));
    let bounded: f64 = l2(unclipped.iter().flat_map(|(_, values)| values).map(|x| x.clamp(-0.01, 0.01)));
    Ok(vec![
        Finding::new("without clipping: norm", Expected::above(0.5), Some(norm(&unclipped))),
        Finding::new("by global norm .25: norm", Expected::relative(0.25, 1e-4), Some(norm(&by_norm))),
        factors,
        Finding::new(
            "by global norm 1000: norm by the unclipped one",
            Expected::relative(1.0, 1e-4),
            Some(norm(&update("loose")?) / norm(&unclipped)),
        ),
        Finding::new("by value .01: largest element", Expected::relative(0.01, 1e-4), Some(largest)),
        Finding::new(
            "by value .01: norm by that of bounded elements",
            Expected::relative(1.0, 1e-4),
            Some(norm(&by_value) / bounded),
        ),
    ])
}

/// What a step of rate 1 has taken from every parameter.
fn gradients(before: &Tensors, after: &Tensors) -> Result<Vec<(String, Vec<f64>)>, VerifyError> {
    let of_parameter = |(name, values): (&str, &[f64])| {
        let after = after.get(name)?;
        Ok((name.to_owned(), values.iter().zip(after).map(|(before, after)| before - after).collect()))
    };
    before.iter().map(of_parameter).collect()
}

fn descent(laboratory: &Laboratory<'_>) -> Findings {
    let descend = |start: f64, threshold: Option<f64>, steps: usize| {
        descend_on_fourth_power(start, threshold, steps, laboratory.device)
            .map_err(|error| VerifyError::Unreadable(error.to_string()))
    };
    let diverged = descend(7.08, None, 200)?;
    Ok(vec![
        Finding::new(
            "from 7.08, not clipped: 1 if it stays finite",
            Expected::exactly(0.0),
            Some(f64::from(u8::from(diverged.is_finite()))),
        ),
        Finding::new(
            "from 7.06, not clipped: x after 200 steps",
            Expected::between(-7.06, 7.06),
            Some(descend(7.06, None, 200)?),
        ),
        Finding::new(
            "from 10, clipped at 1: x after 900 steps",
            Expected::absolute(1.0, 1e-3),
            Some(descend(10.0, Some(1.0), 900)?),
        ),
    ])
}
