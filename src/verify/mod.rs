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

use std::io;

use agreement::{FAMILIES, Family};

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
    /// The network that a run starts from cannot be read.
    #[error("the network in `training.start_from` cannot be read: {0}")]
    Start(io::Error),
    /// The run failed or was stopped.
    #[error(transparent)]
    Train(#[from] TrainError),
    /// What a run has left cannot be read.
    #[error("{0}")]
    Unreadable(String),
}

/// A case, or a family of networks, that there is not.
#[derive(Debug, thiserror::Error)]
#[error("--case {asked}: there is no such {kind}{}; {list}", mend.map(|name| format!(", did you mean `{name}`?")).unwrap_or_default())]
pub struct UnknownCase {
    asked: String,
    kind: &'static str,
    mend: Option<&'static str>,
    list: String,
}

/// How alike a name and the one that it may stand for must be.
const SUGGESTION_SIMILARITY: f64 = 0.7;

/// The case of a name.
///
/// # Errors
///
/// If there is none.
pub fn find(name: &str) -> Result<&'static Case, UnknownCase> {
    let list = || "`gradmark verify --list` lists all".to_owned();
    CASES
        .iter()
        .find(|case| case.name == name)
        .ok_or_else(|| unknown(name, "case", CASES.iter().map(|case| case.name), list()))
}

/// The family of networks of a name, for [`agreement::compare`].
///
/// # Errors
///
/// If there is none.
pub fn find_family(name: &str) -> Result<&'static Family, UnknownCase> {
    let names = || FAMILIES.iter().map(|family| family.name);
    let list = || format!("with --against the cases are {}", names().collect::<Vec<&str>>().join(", "));
    FAMILIES
        .iter()
        .find(|family| family.name == name)
        .ok_or_else(|| unknown(name, "family of networks", names(), list()))
}

fn unknown(asked: &str, kind: &'static str, known: impl Iterator<Item = &'static str>, list: String) -> UnknownCase {
    let similar = known.map(|name| (strsim::jaro_winkler(asked, name), name));
    let best =
        similar.max_by(|a, b| a.0.total_cmp(&b.0)).filter(|(similarity, _)| *similarity >= SUGGESTION_SIMILARITY);
    UnknownCase { asked: asked.to_owned(), kind, mend: best.map(|(_, name)| name), list }
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
        assert_eq!(find_family("gru").map(|family| family.name).ok(), Some("gru"));
        let error = find_family("residul").err().expect("unknown").to_string();
        assert!(error.contains("did you mean `residual`?") && error.contains("plain, batch_norm,"), "{error}");
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
