//! The layers of the program, held to what ARCHITECTURE.md says by reading the sources.

use std::fs;
use std::path::{Path, PathBuf};

/// Every module and the modules that it may import. `schema` is the vocabulary of all.
const MAY_IMPORT: &[(&str, &[&str])] = &[
    ("schema", &[]),
    ("seed", &[]),
    ("hash", &[]),
    ("fault", &[]),
    ("config", &["hash"]),
    ("plan", &["config", "hash", "schema"]),
    ("device", &[]),
    ("theory", &["config"]),
    ("data", &["config", "hash", "seed"]),
    ("kernel", &["config"]),
    ("network", &["config", "fault", "kernel", "seed", "theory"]),
    ("probe", &["config", "kernel", "network", "schema"]),
    ("train", &["config", "data", "fault", "kernel", "network", "plan", "probe", "schema", "seed", "theory"]),
    ("analysis", &["schema", "seed"]),
    ("verify", &["analysis", "config", "data", "device", "plan", "schema", "theory", "train"]),
    ("record", &["analysis", "config", "device", "fault", "schema"]),
    ("gate", &["analysis", "config", "data", "device", "plan", "record", "schema", "train"]),
    ("report", &["analysis", "config", "device", "gate", "plan", "record", "schema", "theory", "verify"]),
    ("cli", &["analysis", "config", "data", "device", "gate", "plan", "record", "report", "schema", "train", "verify"]),
];

struct Source {
    module: String,
    path: PathBuf,
    text: String,
}

/// Every file below `src` but `main.rs` and `lib.rs`, without its tests.
fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut folders = vec![root.clone()];
    let mut sources = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder of sources") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let relative = path.strip_prefix(&root).expect("below src").to_owned();
                let first = relative.components().next().expect("a name").as_os_str().to_string_lossy().into_owned();
                let module = first.trim_end_matches(".rs").to_owned();
                let text = fs::read_to_string(&path).expect("readable");
                let code = text.split("#[cfg(all(test").next().and_then(|text| text.split("#[cfg(test)]").next());
                sources.push(Source { module, path: relative, text: code.unwrap_or_default().to_owned() });
            }
        }
    }
    sources.retain(|source| source.module != "main" && source.module != "lib");
    assert!(sources.len() > 30, "the sources were not found");
    sources
}

/// The code of a file without comments.
fn code_lines(source: &Source) -> impl Iterator<Item = &str> {
    source.text.lines().map(str::trim).filter(|line| !line.starts_with("//"))
}

/// The modules that are named after `crate::` anywhere in the code.
fn imports(source: &Source) -> Vec<String> {
    let mut found = Vec::new();
    let code: String = code_lines(source).collect::<Vec<_>>().join(" ");
    for (place, _) in code.match_indices("crate::") {
        let rest = &code[place + "crate::".len()..];
        let names: Vec<String> = match rest.strip_prefix('{') {
            // use crate::{device, plan, report};
            Some(group) => {
                let group = group.split('}').next().unwrap_or_default();
                group.split(',').map(|item| item.trim().split("::").next().unwrap_or_default().to_owned()).collect()
            }
            None => vec![rest.chars().take_while(|char| char.is_alphanumeric() || *char == '_').collect()],
        };
        found.extend(names);
    }
    found.retain(|name| !name.is_empty() && name != "panic_message");
    found
}

#[test]
fn every_module_imports_only_what_its_layer_may() {
    for source in sources() {
        let (_, allowed) = MAY_IMPORT
            .iter()
            .find(|(module, _)| *module == source.module)
            .unwrap_or_else(|| panic!("{} is in no layer: add it here and to ARCHITECTURE.md", source.path.display()));
        for import in imports(&source) {
            assert!(
                import == source.module || allowed.contains(&import.as_str()),
                "{} imports crate::{import}",
                source.path.display()
            );
        }
    }
}

/// Fails if `needle` stands in a file for which `allowed` is false.
fn only_in(needle: &str, allowed: impl Fn(&Source) -> bool) {
    let mut found = false;
    for source in sources() {
        let has = code_lines(&source).any(|line| line.contains(needle));
        found |= has;
        assert!(!has || allowed(&source), "{needle} stands in {}", source.path.display());
    }
    assert!(found, "{needle} stands nowhere: the check has lost its object");
}

fn module(names: &'static [&'static str]) -> impl Fn(&Source) -> bool {
    move |source| names.contains(&source.module.as_str())
}

#[test]
fn burn_is_known_only_where_tensors_are() {
    let tensors = module(&["device", "data", "network", "kernel", "probe", "train"]);
    only_in("burn::", tensors);
}

#[test]
fn arguments_are_parsed_and_text_is_printed_only_by_the_command_line() {
    only_in("clap::", module(&["cli"]));
    for macro_call in ["stderr()", "stdout()"] {
        only_in(macro_call, module(&["cli"]));
    }
}

#[test]
fn files_are_touched_only_where_they_are_the_subject() {
    // Linux tells in files how long threads have waited.
    let single = ["data/image_files.rs", "data/download.rs", "gate/waiting.rs"];
    let is_subject = |modules: &'static [&'static str]| {
        move |source: &Source| module(modules)(source) || single.iter().any(|file| source.path.ends_with(file))
    };
    only_in("fs::", is_subject(&["config", "record", "report"]));
    only_in("File::create", is_subject(&["record"]));
}

#[test]
fn one_file_reaches_out_to_the_network() {
    only_in("ureq", |source| source.path.ends_with("data/download.rs"));
}

#[test]
fn one_file_holds_the_clock_and_one_the_choice_of_backends() {
    only_in("Instant::now", |source| source.path.ends_with("train/clock.rs"));
    // The fused kernels of a backend exist only where the backend does.
    only_in("feature = \"", |source| ["device", "fault", "kernel"].contains(&source.module.as_str()));
    only_in("allow(deprecated)", |source| source.path.ends_with("device.rs"));
}

#[test]
fn main_stays_a_page() {
    let main = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/main.rs")).expect("readable");
    assert!(main.lines().count() <= 60);
}
