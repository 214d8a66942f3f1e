//! Faults on purpose, with which tests prove that the gates notice them. A build with the feature `faults` reads them from the
//! environment variable `GRADMARK_FAULTS`, such as `step_time=1.1,initializer_scale=1.05`; every other build has none.

/// Something that can be made wrong by a factor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// `step_time`: how much longer timed steps take.
    StepTime,
    /// `initializer_scale`: by how much drawn weights are too large.
    InitializerScale,
    /// `loss_sum`: whether a loss, above 1, is summed up over the batch and not divided by its size.
    LossSum,
    /// `clip_threshold`: by how much the threshold of clipping is too large.
    ClipThreshold,
}

/// Whether this build can have faults.
pub const IS_COMPILED_IN: bool = cfg!(feature = "faults");

/// The factor of a fault: 1 where there is none.
pub fn factor(fault: Fault) -> f64 {
    if IS_COMPILED_IN { asked_for::factor(fault) } else { 1.0 }
}

mod asked_for {
    use std::sync::OnceLock;

    use super::Fault;

    const VARIABLE: &str = "GRADMARK_FAULTS";
    static FAULTS: OnceLock<Vec<(Fault, f64)>> = OnceLock::new();

    pub(super) fn factor(fault: Fault) -> f64 {
        let faults = FAULTS.get_or_init(|| parse(&std::env::var(VARIABLE).unwrap_or_default()));
        faults.iter().find(|(name, _)| *name == fault).map_or(1.0, |(_, factor)| *factor)
    }

    /// Panics at what is no fault: a test that misspells it would prove nothing.
    pub(super) fn parse(text: &str) -> Vec<(Fault, f64)> {
        let parsed = |item: &str| {
            let (name, factor) = item.split_once('=')?;
            let fault = match name {
                "step_time" => Fault::StepTime,
                "initializer_scale" => Fault::InitializerScale,
                "loss_sum" => Fault::LossSum,
                "clip_threshold" => Fault::ClipThreshold,
                _ => return None,
            };
            Some((fault, factor.parse().ok()?))
        };
        let items = text.split(',').filter(|item| !item.is_empty());
        items.map(|item| parsed(item).unwrap_or_else(|| panic!("{VARIABLE}: `{item}` is no fault"))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_faults_are_read_and_a_misspelt_one_is_refused() {
        let faults = asked_for::parse("step_time=1.1,clip_threshold=inf");
        assert_eq!(faults, [(Fault::StepTime, 1.1), (Fault::ClipThreshold, f64::INFINITY)]);
        assert!(std::panic::catch_unwind(|| asked_for::parse("step_tme=1.1")).is_err());
    }

    #[test]
    fn a_build_without_the_feature_has_no_fault() {
        if !IS_COMPILED_IN {
            assert_eq!(factor(Fault::StepTime), 1.0);
        }
    }
}
