//! Which differences between two machines or builds make their speed incomparable.

use crate::record::Environment;

/// A difference between the environment of a baseline and this one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Its name, as in `--allow`.
    pub name: &'static str,
    /// The baseline's value.
    pub baseline: String,
    /// The value now.
    pub now: String,
    /// Whether the two cannot be compared unless the difference is allowed by name.
    pub is_refused: bool,
}

/// The names that may be allowed. That an adapter is a software adapter is none of them: it is never compared with a hardware one.
pub const ALLOWABLE: &[&str] =
    &["backend", "adapter", "driver", "cpu", "cores", "threads", "arch", "features", "profile"];

/// A difference that nothing allows.
const SOFTWARE_ADAPTER: &str = "software_adapter";

/// What is compared, and its name.
type Named = (&'static str, fn(&Environment) -> String);

/// Every difference. Those that are not refused, such as the version of Burn or the commit, are what a baseline is kept for.
pub fn differences(baseline: &Environment, now: &Environment) -> Vec<Difference> {
    let kind = |environment: &Environment| format!("{} ({})", environment.adapter.name, environment.adapter.kind);
    let driver = |environment: &Environment| {
        [&*environment.adapter.driver, &environment.adapter.api].join(" ").trim().to_owned()
    };
    let values: [Named; 7] = [
        ("cpu", |one| one.cpu.clone().unwrap_or_default()),
        ("cores", |one| text(one.cores.as_ref())),
        ("threads", |one| text(one.threads_requested.as_ref())),
        ("arch", |one| one.arch.clone()),
        ("features", |one| one.features.join(", ")),
        ("profile", |one| [text(one.profile.as_ref()), text(one.compiler_flags.as_ref())].join(" ")),
        ("backend", |one| one.adapter.backend.name().to_owned()),
    ];
    let noted: [Named; 5] = [
        ("gradmark_version", |one| one.gradmark_version.clone()),
        ("commit", |one| text(one.commit.as_ref()) + if one.dirty == Some(true) { " with changes" } else { "" }),
        ("burn_version", |one| text(one.burn_version.as_ref())),
        ("rustc", |one| text(one.rustc.as_ref())),
        ("os", |one| text(one.os.as_ref())),
    ];
    let yes = |is: bool| if is { "yes" } else { "no" }.to_owned();
    let refused = values.iter().map(|(name, value)| (*name, value(baseline), value(now), true));
    let software = (SOFTWARE_ADAPTER, yes(baseline.software_adapter), yes(now.software_adapter), true);
    // The name of a CPU stands in `cpu`.
    let adapters =
        [("adapter", kind(baseline), kind(now), true), ("driver", driver(baseline), driver(now), true), software];
    let noted = noted.iter().map(|(name, value)| (*name, value(baseline), value(now), false));
    refused
        .chain(adapters)
        .chain(noted)
        .filter(|(_, before, after, _)| before != after)
        .map(|(name, baseline, now, is_refused)| Difference { name, baseline, now, is_refused })
        .collect()
}

/// The differences that stand in the way, those that are allowed by name left out.
pub fn refused<'a>(differences: &'a [Difference], allowed: &[String]) -> Vec<&'a Difference> {
    let is_allowed = |difference: &Difference| {
        difference.name != SOFTWARE_ADAPTER && allowed.iter().any(|name| name == difference.name)
    };
    differences.iter().filter(|difference| difference.is_refused && !is_allowed(difference)).collect()
}

fn text(value: Option<&impl ToString>) -> String {
    value.map_or_else(|| "unknown".to_owned(), ToString::to_string)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::{Adapter, AdapterKind, Backend};

    fn environment(kind: AdapterKind) -> Environment {
        let adapter = Adapter {
            backend: Backend::Wgpu,
            index: 0,
            name: "an adapter".to_owned(),
            kind,
            driver: "driver 1".to_owned(),
            api: "Vulkan".to_owned(),
        };
        Environment::new(&adapter)
    }

    fn names(differences: &[&Difference]) -> Vec<&'static str> {
        differences.iter().map(|difference| difference.name).collect()
    }

    #[test]
    fn every_difference_that_is_allowable_is_refused_until_it_is_allowed() {
        let now = environment(AdapterKind::DiscreteGpu);
        assert_eq!(differences(&now, &now), []);
        let mut other = now.clone();
        other.adapter.backend = Backend::Vulkan;
        other.adapter.name = "another adapter".to_owned();
        other.adapter.driver = "driver 2".to_owned();
        other.cpu = Some("another CPU".to_owned());
        other.cores = Some(1000);
        other.threads_requested = Some("1".to_owned());
        other.arch = "another".to_owned();
        other.features.push("another".to_owned());
        other.profile = Some("another".to_owned());
        let found = differences(&other, &now);
        let mut refused_names = names(&refused(&found, &[]));
        let mut allowable = ALLOWABLE.to_vec();
        refused_names.sort_unstable();
        allowable.sort_unstable();
        assert_eq!(refused_names, allowable);
        let allowed: Vec<String> =
            ALLOWABLE.iter().filter(|name| **name != "cpu").map(|name| (*name).to_owned()).collect();
        assert_eq!(names(&refused(&found, &allowed)), ["cpu"]);
    }

    #[test]
    fn a_software_adapter_is_never_compared_with_a_hardware_one() {
        let found = differences(&environment(AdapterKind::DiscreteGpu), &environment(AdapterKind::Software));
        let everything: Vec<String> = ALLOWABLE.iter().copied().chain([SOFTWARE_ADAPTER]).map(str::to_owned).collect();
        assert_eq!(names(&refused(&found, &everything)), [SOFTWARE_ADAPTER]);
    }

    #[test]
    fn what_a_baseline_is_kept_for_is_told_and_not_refused() {
        let now = environment(AdapterKind::DiscreteGpu);
        let other =
            Environment { burn_version: Some("0.1.0".to_owned()), commit: Some("abc".to_owned()), ..now.clone() };
        let found = differences(&other, &now);
        assert_eq!(found.iter().map(|difference| difference.name).collect::<Vec<_>>(), ["commit", "burn_version"]);
        assert_eq!(refused(&found, &[]), Vec::<&Difference>::new());
    }
}
