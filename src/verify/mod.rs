//! Known results, reproduced on a device: each case runs small experiments and holds what they measure against closed forms and
//! published values. What is expected stands as numbers in the cases and is computed by nothing that the networks or `theory`
//! use, so that no error cancels; two cases hold `theory` to such numbers, and its predictions to networks.

pub mod agreement;
mod cases;
mod finding;
mod laboratory;
mod tensors;

pub use cases::CASES;
pub use finding::{Expected, Finding, Verdict};
pub use laboratory::{Laboratory, Run};

use crate::config::ConfigError;
use crate::data::DataError;
use crate::train::TrainError;

/// A known result.
pub struct Case {
    /// Its name, for `--case`.
    pub name: &'static str,
    /// What it shows, in a line.
    pub about: &'static str,
    /// Where the expected values come from.
    pub source: &'static str,
    /// Whether it takes more than seconds, and is left out unless it is asked for.
    pub is_long: bool,
    /// Measures.
    pub run: fn(&Laboratory<'_>) -> Result<Vec<Finding>, VerifyError>,
}

/// What a case has found.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The case.
    pub case: &'static str,
    /// Where its expected values come from.
    pub source: String,
    /// The findings, never none.
    pub findings: Vec<Finding>,
}

/// Why a case has no findings of its own.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// Its config is not valid: a fault of the case.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The data set is not at hand.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The run failed or was stopped.
    #[error(transparent)]
    Train(#[from] TrainError),
    /// What a run has left cannot be read.
    #[error("{0}")]
    Unreadable(String),
}

/// A case that is not in the list.
#[derive(Debug, thiserror::Error)]
#[error("--case {asked}: there is no such case{}; `gradmark verify --list` lists all", mend.map(|name| format!(", did you mean `{name}`?")).unwrap_or_default())]
pub struct UnknownCase {
    asked: String,
    mend: Option<&'static str>,
}

/// How alike a name and the one that it may stand for must be.
const SUGGESTION_SIMILARITY: f64 = 0.7;

/// The case of a name.
///
/// # Errors
///
/// If there is none.
pub fn find(name: &str) -> Result<&'static Case, UnknownCase> {
    CASES.iter().find(|case| case.name == name).ok_or_else(|| {
        let similar = CASES.iter().map(|case| (strsim::jaro_winkler(name, case.name), case.name));
        let best =
            similar.max_by(|a, b| a.0.total_cmp(&b.0)).filter(|(similarity, _)| *similarity >= SUGGESTION_SIMILARITY);
        UnknownCase { asked: name.to_owned(), mend: best.map(|(_, name)| name) }
    })
}

/// Measures a case. What keeps it from measuring is a finding too; `None` if it was asked to stop.
pub fn examine(case: &Case, laboratory: &Laboratory<'_>) -> Option<Vec<Finding>> {
    conclude((case.run)(laboratory))
}

/// Missing data skip a case, whatever else fails makes it fail, and stopping it leaves nothing.
fn conclude(outcome: Result<Vec<Finding>, VerifyError>) -> Option<Vec<Finding>> {
    match outcome {
        Ok(findings) if findings.is_empty() => Some(vec![Finding::failed("everything", "nothing was measured")]),
        Ok(findings) => Some(findings),
        Err(VerifyError::Train(TrainError::Interrupted)) => None,
        Err(VerifyError::Data(error)) => Some(vec![Finding::skipped("everything", error.to_string())]),
        Err(error) => Some(vec![Finding::failed("everything", error.to_string())]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_a_name_that_is_nearly_right_is_met_with_the_right_one() {
        for case in CASES {
            assert_eq!(CASES.iter().filter(|other| other.name == case.name).count(), 1, "{}", case.name);
            assert_eq!(find(case.name).map(|found| found.name).ok(), Some(case.name));
        }
        let error = find("mean_feild").err().expect("unknown").to_string();
        assert!(error.starts_with("--case mean_feild: ") && error.contains("did you mean `mean_field`?"), "{error}");
        let error = find("x").err().expect("unknown").to_string();
        assert!(!error.contains("did you mean") && error.contains("--list"), "{error}");
    }

    #[test]
    fn missing_data_skip_a_case_a_failure_fails_it_and_a_stop_leaves_nothing() {
        let verdict = |outcome| conclude(outcome).map(|findings| findings[0].verdict);
        assert_eq!(verdict(Err(VerifyError::Data(DataError::NoDirectory))), Some(Verdict::Skipped));
        assert_eq!(verdict(Err(VerifyError::Unreadable("no weights".to_owned()))), Some(Verdict::Fail));
        assert_eq!(verdict(Ok(Vec::new())), Some(Verdict::Fail));
        assert_eq!(verdict(Err(VerifyError::Train(TrainError::Interrupted))), None);
    }
}
