//! The science gate: the numbers of a config with fixed seeds, beside those of a committed reference. It needs no quiet machine.

use crate::analysis::{RunSummary, gradient_profile};
use crate::plan::{Plan, RunSpec};
use crate::schema::{ReferenceRow, RunRows, RunStatus, StepPhase};

use super::server::name;

/// How far a quantity may be from its reference.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Tolerance {
    /// By so much.
    Absolute(f64),
    /// By so much of the reference.
    Relative(f64),
}

impl Tolerance {
    /// Whether a value is close enough to its reference. What is no number is close to nothing.
    pub fn allows(self, reference: f64, value: f64) -> bool {
        let distance = (value - reference).abs();
        match self {
            _ if !(reference.is_finite() && value.is_finite()) => false,
            Self::Absolute(limit) => distance <= limit,
            Self::Relative(limit) => distance <= limit * reference.abs(),
        }
    }
}

/// What is compared, in the order of the reference, each with its tolerance: that of an initial quantity leaves room for another
/// order of sums, that of a trained one for what training makes of it. `docs/regression_gate.md` has them in words.
pub const QUANTITIES: &[(&str, Tolerance)] = &[
    ("diverged", Tolerance::Absolute(0.0)),
    ("weight_grad_l2_first", Tolerance::Relative(1e-3)),
    ("decades_lost_per_layer_first", Tolerance::Absolute(1e-3)),
    ("grad_l2_before_clip_first", Tolerance::Relative(1e-3)),
    ("grad_l2_after_clip_first", Tolerance::Relative(1e-3)),
    ("decades_lost_per_layer_last", Tolerance::Absolute(0.02)),
    ("train_loss", Tolerance::Relative(0.02)),
    ("test_loss", Tolerance::Relative(0.02)),
    ("train_accuracy", Tolerance::Absolute(0.02)),
    ("test_accuracy", Tolerance::Absolute(0.02)),
];

/// A quantity that is not where its reference is.
#[derive(Clone, Debug, PartialEq)]
pub struct Deviation {
    /// The reference.
    pub reference: ReferenceRow,
    /// The value now; `None` where the run has none.
    pub value: Option<f64>,
    /// What would have been close enough.
    pub tolerance: Tolerance,
}

/// Why a reference cannot be compared with.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Mismatch {
    /// The runs have other rows than the reference.
    #[error("the reference has no row of {0}, and the config has a run with one")]
    NotInReference(String),
    /// The reference has rows that no run has.
    #[error("the reference has a row of {0}, and no run of the config has one")]
    NotInRuns(String),
    /// A quantity that is unknown.
    #[error("the reference has a row of `{0}`, which is no quantity of the science gate")]
    UnknownQuantity(String),
}

/// The rows of a run.
pub fn reference_rows(plan: &Plan, spec: &RunSpec, summary: &RunSummary, rows: &RunRows) -> Vec<ReferenceRow> {
    let steps: Vec<_> = rows.steps.iter().filter(|row| row.phase == StepPhase::Train).collect();
    let first_step = rows.gradients.first().map(|row| row.step);
    let profile = first_step.map(|step| gradient_profile(&rows.gradients, step)).unwrap_or_default();
    let diverged = f64::from(u8::from(summary.status != RunStatus::Complete));
    let value_of = |quantity: &str| -> Vec<(Option<usize>, Option<f64>)> {
        let one = |value: Option<f64>| vec![(None, value)];
        match quantity {
            "diverged" => one(Some(diverged)),
            "weight_grad_l2_first" => profile.iter().enumerate().map(|(layer, l2)| (Some(layer + 1), *l2)).collect(),
            "decades_lost_per_layer_first" => one(summary.decades_lost_per_layer_first),
            "grad_l2_before_clip_first" => one(steps.first().and_then(|row| row.grad_l2_before_clip)),
            "grad_l2_after_clip_first" => one(steps.first().and_then(|row| row.grad_l2_after_clip)),
            "decades_lost_per_layer_last" => one(summary.decades_lost_per_layer_last),
            "train_loss" => one(summary.train_loss),
            "test_loss" => one(summary.test_loss),
            "train_accuracy" => one(summary.train_accuracy),
            "test_accuracy" => one(summary.test_accuracy),
            _ => Vec::new(),
        }
    };
    let row = |quantity: &str, layer, value| ReferenceRow {
        configuration: name(plan, spec),
        seed: spec.seed,
        quantity: quantity.to_owned(),
        layer,
        value,
    };
    QUANTITIES
        .iter()
        .flat_map(|(quantity, _)| value_of(quantity).into_iter().map(|(layer, value)| row(quantity, layer, value)))
        // What a run does not have, such as a norm after clipping, has no row.
        .filter(|row| row.value.is_some())
        .collect()
}

/// Every quantity that is not close enough to its reference.
///
/// # Errors
///
/// If the two have not the same runs. A quantity that a run lost, because it diverged, is a deviation and no mismatch.
pub fn deviations(reference: &[ReferenceRow], rows: &[ReferenceRow]) -> Result<Vec<Deviation>, Mismatch> {
    let key = |row: &ReferenceRow| (row.configuration.clone(), row.seed, row.quantity.clone(), row.layer);
    let runs = |rows: &[ReferenceRow]| -> Vec<(String, u64)> {
        let mut runs: Vec<(String, u64)> = rows.iter().map(|row| (row.configuration.clone(), row.seed)).collect();
        runs.dedup();
        runs
    };
    let named = |(configuration, seed): &(String, u64)| format!("`{configuration}` seed {seed}");
    let (before, now) = (runs(reference), runs(rows));
    if let Some(run) = now.iter().find(|run| !before.contains(run)) {
        return Err(Mismatch::NotInReference(named(run)));
    }
    if let Some(run) = before.iter().find(|run| !now.contains(run)) {
        return Err(Mismatch::NotInRuns(named(run)));
    }
    if let Some(row) = rows.iter().find(|row| !reference.iter().any(|other| key(other) == key(row))) {
        return Err(Mismatch::NotInReference(format!(
            "{}, {}",
            named(&(row.configuration.clone(), row.seed)),
            row.quantity
        )));
    }
    let mut found = Vec::new();
    for expected in reference {
        let known = QUANTITIES.iter().find(|(quantity, _)| *quantity == expected.quantity);
        let (_, tolerance) = *known.ok_or_else(|| Mismatch::UnknownQuantity(expected.quantity.clone()))?;
        let value = rows.iter().find(|row| key(row) == key(expected)).and_then(|row| row.value);
        let is_close = expected.value.zip(value).is_some_and(|(reference, value)| tolerance.allows(reference, value));
        if !is_close {
            found.push(Deviation { reference: expected.clone(), value, tolerance });
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(quantity: &str, value: f64) -> ReferenceRow {
        let configuration = "case=relu".to_owned();
        ReferenceRow { configuration, seed: 1, quantity: quantity.to_owned(), layer: None, value: Some(value) }
    }

    #[test]
    fn a_value_beyond_its_tolerance_deviates_and_one_within_does_not() {
        let reference = [row("train_loss", 0.5), row("train_accuracy", 0.9)];
        let found =
            deviations(&reference, &[row("train_loss", 0.505), row("train_accuracy", 0.87)]).expect("same runs");
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].reference.quantity.as_str(), found[0].value), ("train_accuracy", Some(0.87)));
    }

    #[test]
    fn what_is_no_number_or_absent_deviates() {
        let reference = [row("diverged", 0.0), row("train_loss", 0.5)];
        let now = [row("diverged", 1.0)];
        assert_eq!(deviations(&reference, &now).expect("same runs").len(), 2);
        assert_eq!(
            deviations(&reference, &[row("diverged", 0.0), row("train_loss", f64::NAN)]).expect("same").len(),
            1
        );
        assert!(!Tolerance::Absolute(f64::INFINITY).allows(0.0, f64::NAN));
        assert!(!Tolerance::Relative(0.1).allows(f64::INFINITY, 1.0));
    }

    #[test]
    fn other_runs_cannot_be_compared() {
        let other = ReferenceRow { seed: 2, ..row("train_loss", 0.5) };
        let (one, both) = (vec![row("train_loss", 0.5)], vec![row("train_loss", 0.5), other]);
        assert!(matches!(deviations(&one, &both), Err(Mismatch::NotInReference(_))));
        assert!(matches!(deviations(&both, &one), Err(Mismatch::NotInRuns(_))));
        assert!(matches!(deviations(&[row("loss", 0.5)], &[row("loss", 0.5)]), Err(Mismatch::UnknownQuantity(_))));
        assert!(matches!(
            deviations(&one, &[row("test_loss", 0.5), row("train_loss", 0.5)]),
            Err(Mismatch::NotInReference(_))
        ));
    }
}
