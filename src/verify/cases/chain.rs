//! Chains of single sigmoid neurons (Nielsen, Neural Networks and Deep Learning, chapter 5).

use super::{Case, Finding, Findings, Laboratory};
use crate::verify::{Expected, VerifyError};

pub(super) const CASE: Case = Case {
    name: "single_neuron_chain",
    about: "a chain of sigmoid neurons multiplies the gradient by w s'(z) a link: 1/4 at most for w = 1, 25 for w = 100",
    source: "w s'(z); Nielsen, chapter 5",
    is_long: false,
    run: factors,
};

pub(super) const INTERVAL: Case = Case {
    name: "non_shrinking_interval",
    about: "how wide the interval of inputs is in which a sigmoid neuron does not shrink the gradient",
    source: "Nielsen, chapter 5, problems",
    is_long: false,
    run: intervals,
};

fn factors(laboratory: &Laboratory<'_>) -> Findings {
    let config = include_str!("../../../configs/single_neuron_chain.toml");
    let runs = laboratory.run_config(config, &["probe.activations=false"])?;
    let expected: [(&str, [f64; 5]); 4] = [
        ("w = 1, b = 0", [0.235_004, 0.227_266, 0.225_293, 0.224_837, 0.224_734]),
        ("w = 1, every z = 0", [0.25; 5]),
        ("w = 4, every z = 0", [1.0; 5]),
        ("w = 100, every z = 0", [25.0; 5]),
    ];
    let mut findings = Vec::new();
    for (name, factors) in expected {
        let links = runs.iter().find(|run| run.name() == name).map(|run| run.rows.links.as_slice()).unwrap_or_default();
        let values = factors.iter().enumerate().map(|(link, factor)| {
            let measured = links.get(link).and_then(|row| row.factor_on_device);
            (format!("link {}", link + 1), Expected::relative(*factor, 1e-4), measured)
        });
        findings.push(Finding::worst(&format!("{name}: factor"), values));
        let product = links.first().and_then(|row| row.product_on_device);
        let expected = Expected::relative(factors.iter().product(), 1e-4);
        findings.push(Finding::new(format!("{name}: product of five"), expected, product));
    }
    Ok(findings)
}

/// |w s'(w a)| >= 1 holds for a in an interval around 0 of the width (2 / |w|) ln(|w| (1 + sqrt(1 - 4 / |w|)) / 2 - 1).
fn intervals(laboratory: &Laboratory<'_>) -> Findings {
    let widest = width(laboratory, "6.89415")?;
    Ok(vec![
        // At w = 4 the interval is a point, around which the factor is 1 to all digits of f32.
        Finding::new("w = 4: width", Expected::absolute(0.0, 1e-3), width(laboratory, "4")?),
        Finding::new("w = 10: width", Expected::relative(0.412_687, 1e-4), width(laboratory, "10")?),
        Finding::new("w = 6.89415: width", Expected::relative(0.447_743, 1e-4), widest),
        Finding::new("w = 6: width, less than at 6.89415", Expected::below(0.447_743), width(laboratory, "6")?),
        Finding::new("w = 8: width, less than at 6.89415", Expected::below(0.447_743), width(laboratory, "8")?),
    ])
}

/// The width by bisection: the largest input at which the device's factor is still 1, twice.
fn width(laboratory: &Laboratory<'_>, weight: &str) -> Result<Option<f64>, VerifyError> {
    let (mut inside, mut outside) = (0.0_f64, 1.0_f64);
    for _ in 0..20 {
        let middle = f64::midpoint(inside, outside);
        let runs = laboratory.run(&format!(
            "[data]\nset = \"single\"\nvalue = {middle:?}\n[network]\nkind = \"chain\"\ndepth = 1\nactivation = \"sigmoid\"\n\
             weight_init = \"constant\"\nweight_scale = {weight}\n[training]\nloss = \"linear_probe\"\nsteps = 0\n\
             [probe]\nparameters = false\nactivations = false\n[throughput]\nsamples = 0\n"
        ))?;
        match runs.first().and_then(|run| run.rows.links.first()?.factor_on_device) {
            None => return Ok(None),
            Some(factor) if factor >= 1.0 => inside = middle,
            Some(_) => outside = middle,
        }
    }
    Ok(Some(2.0 * inside))
}
