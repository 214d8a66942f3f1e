//! Keys and their places: the file, then `--set`, then the sweep.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use toml::de::{DeTable, DeValue};
use toml::{Spanned, Table, Value};

use super::error::{ConfigError, Origin};
use super::schema::{ExperimentConfig, RunConfig, Violation};

/// A config file with the overrides of the command line, not yet resolved.
#[derive(Clone, Debug)]
pub struct Source {
    path: PathBuf,
    settings: BTreeMap<String, Setting>,
    factors: Vec<Factor>,
    experiment: ExperimentConfig,
}

/// A value and the place it was written.
#[derive(Clone, Debug, PartialEq)]
struct Setting {
    value: Value,
    origin: Origin,
}

/// One swept thing: a key with its values, or the named cases.
#[derive(Clone, Debug)]
pub struct Factor {
    /// The dotted key, or `case`.
    pub name: String,
    /// The values in the order of the config.
    pub levels: Vec<Level>,
}

/// One value of a [`Factor`].
#[derive(Clone, Debug)]
pub struct Level {
    /// The value as text: `relu`, `0.1`, or the name of a case.
    pub label: String,
    settings: Vec<(String, Setting)>,
}

/// A choice of one level of each factor.
#[derive(Clone, Debug)]
pub struct Assignment<'a> {
    /// The chosen levels, in the order of [`Source::factors`].
    pub levels: Vec<&'a Level>,
}

/// The name of the factor that `[[sweep.cases]]` makes.
const CASE_FACTOR: &str = "case";

impl Source {
    /// Reads a config file and applies the overrides (`key=value`) to it.
    ///
    /// # Errors
    ///
    /// If the file cannot be read, is not TOML, or if `[experiment]` or `[sweep]` is not valid.
    pub fn load(path: &Path, overrides: &[String]) -> Result<Self, ConfigError> {
        let text = read_text(path)?;
        Self::parse(path, &text, overrides)
    }

    /// Like [`Source::load`], from text; `path` only appears in errors.
    ///
    /// # Errors
    ///
    /// As [`Source::load`].
    pub fn parse(path: &Path, text: &str, overrides: &[String]) -> Result<Self, ConfigError> {
        let mut settings = read_settings(path, text)?;
        let mut cases = take_cases(&mut settings)?;
        for argument in overrides {
            apply_override(&mut settings, &mut cases, argument)?;
        }
        let experiment = take_experiment(path, &mut settings)?;
        let factors = take_factors(path, &mut settings, cases)?;
        Ok(Self { path: path.to_owned(), settings, factors, experiment })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// `[experiment]`
    pub fn experiment(&self) -> &ExperimentConfig {
        &self.experiment
    }

    /// What is swept, in the order in which runs are enumerated: the cases first, then keys by name.
    pub fn factors(&self) -> &[Factor] {
        &self.factors
    }

    /// The config of one choice of levels.
    ///
    /// # Errors
    ///
    /// If a key is unknown or missing or a value is of the wrong type or not allowed.
    pub fn resolve(&self, assignment: &Assignment<'_>) -> Result<RunConfig, ConfigError> {
        let settings = self.settings_with(assignment.levels.iter().copied());
        refuse_values_as_sections(&settings)?;
        let mut table = Table::new();
        for (key, setting) in &settings {
            insert(&mut table, key, &setting.value);
        }
        let mut config: RunConfig =
            serde_path_to_error::deserialize(Value::Table(table)).map_err(|error| self.explain(&settings, &error))?;
        match config.violation().map_or_else(|| config.pin_start(), Err) {
            Ok(()) => Ok(config),
            Err(violation) => Err(self.refuse(&settings, violation)),
        }
    }

    /// All settings, those of some levels before the others.
    fn settings_with<'a>(&self, levels: impl Iterator<Item = &'a Level>) -> BTreeMap<String, Setting> {
        let mut settings = self.settings.clone();
        settings.extend(levels.flat_map(|level| level.settings.iter().cloned()));
        settings
    }

    /// The saved network of `training.start_from` does not fit the network of a choice of levels: `problem` says why.
    pub fn refuse_start(&self, labels: &[String], problem: &str) -> ConfigError {
        let chosen = self.factors.iter().zip(labels);
        let levels = chosen.filter_map(|(factor, label)| factor.levels.iter().find(|level| level.label == *label));
        let settings = self.settings_with(levels);
        let violation = Violation {
            key: "training.start_from",
            problem: format!("must name a network that fits: {problem}"),
            mend: "name one of equal networks, or of equal hidden layers with `training.start_layers = \"hidden\"`"
                .to_owned(),
        };
        self.refuse(&settings, violation)
    }

    /// A value that is not allowed, with the place where it stands.
    fn refuse(&self, settings: &BTreeMap<String, Setting>, violation: Violation) -> ConfigError {
        let Violation { key, problem, mend } = violation;
        let (origin, value) = match settings.get(key) {
            Some(setting) => (setting.origin.clone(), show(&setting.value)),
            None => (Origin::File(self.path.clone()), "nothing".to_owned()),
        };
        ConfigError::Value { origin, key: key.to_owned(), problem, value, mend }
    }

    /// Turns an error of serde into one that names file, line, key, value and mend.
    fn explain(
        &self,
        settings: &BTreeMap<String, Setting>,
        error: &serde_path_to_error::Error<toml::de::Error>,
    ) -> ConfigError {
        let path = error.path().to_string();
        let path = if path == "." { String::new() } else { path };
        let message = error.inner().message().trim();
        let quoted: Vec<&str> = message.split('`').skip(1).step_by(2).collect();
        if message.starts_with("unknown field") {
            let field = quoted.first().copied().unwrap_or_default();
            let section = path.strip_suffix(field).map_or(path.as_str(), |rest| rest.trim_end_matches('.'));
            let key = join(section, field);
            return ConfigError::UnknownKey {
                origin: self.origin_of(settings, &key),
                mend: suggest(section, field, &quoted[1.min(quoted.len())..]),
                key,
            };
        }
        if message.starts_with("missing field") {
            let field = quoted.first().copied().unwrap_or_default();
            let key = join(&path, field);
            let mend = match key.rsplit_once('.') {
                Some((section, field)) => format!("add `{field} = ...` under [{section}]"),
                None => format!("add a section [{key}]"),
            };
            return ConfigError::Missing { origin: Origin::File(self.path.clone()), key, mend };
        }
        let (problem, mend) = expectation(message, &quoted);
        // Of the lists these have whole numbers.
        let mend = match path.as_str() {
            "network.widths" => mend.replace("[0.5, 0.5]", "[64, 32]"),
            "probe.dump" => mend.replace("[0.5, 0.5]", "[0, 10]"),
            _ => mend,
        };
        if let Some((origin, value)) = item_of_list(settings, &path) {
            return ConfigError::Value { origin, key: path, problem, value, mend };
        }
        let value = settings.get(&path).map_or_else(|| "a section".to_owned(), |setting| show(&setting.value));
        // A list where one value stands is meant as a sweep.
        let is_list = settings.get(&path).is_some_and(|setting| setting.value.is_array());
        let mend = if is_list { format!("write `{path} = {value}` under [sweep] to run each of them") } else { mend };
        ConfigError::Value { origin: self.origin_of(settings, &path), key: path, problem, value, mend }
    }

    fn origin_of(&self, settings: &BTreeMap<String, Setting>, key: &str) -> Origin {
        let prefix = format!("{key}.");
        settings
            .get(key)
            .or_else(|| settings.iter().find(|(other, _)| other.starts_with(&prefix)).map(|(_, setting)| setting))
            .map_or_else(|| Origin::File(self.path.clone()), |setting| setting.origin.clone())
    }
}

/// Where the item of a list stands that serde calls `network.weights[1]`, and what it is.
fn item_of_list(settings: &BTreeMap<String, Setting>, path: &str) -> Option<(Origin, String)> {
    let (key, index) = path.strip_suffix(']')?.rsplit_once('[')?;
    let setting = settings.get(key)?;
    let item = setting.value.as_array()?.get(index.parse::<usize>().ok()?)?;
    Some((setting.origin.clone(), show(item)))
}

fn read_text(path: &Path) -> Result<String, ConfigError> {
    let unreadable =
        |reason: String, mend: &str| ConfigError::Unreadable { path: path.to_owned(), reason, mend: mend.to_owned() };
    if path.is_dir() {
        return Err(unreadable("it is a directory".to_owned(), "name a TOML file in it"));
    }
    let bytes = std::fs::read(path)
        .map_err(|error| unreadable(error.to_string(), "name a TOML file that exists and can be read"))?;
    String::from_utf8(bytes).map_err(|error| {
        unreadable(
            format!("it is not UTF-8 from byte {} on", error.utf8_error().valid_up_to()),
            "save it as UTF-8 text",
        )
    })
}

/// Every key of the file with its line; `sweep` keeps its arrays.
fn read_settings(path: &Path, text: &str) -> Result<BTreeMap<String, Setting>, ConfigError> {
    let syntax = |error: toml::de::Error| ConfigError::Syntax {
        origin: match error.span() {
            Some(span) => line_origin(path, text, span.start),
            None => Origin::File(path.to_owned()),
        },
        reason: error.message().trim().replace('\n', "; "),
    };
    let values: Table = toml::from_str(text).map_err(syntax)?;
    let spans = DeTable::parse(text).map_err(syntax)?;
    let mut lines = BTreeMap::new();
    collect_lines(spans.get_ref(), "", text, &mut lines);
    let mut settings = BTreeMap::new();
    let mut twice = None;
    flatten(values, "", &mut |key, value| {
        let line = lines.get(&key).copied().unwrap_or(1);
        let origin = Origin::Line { path: path.to_owned(), line };
        if let Some(earlier) = settings.insert(key.clone(), Setting { value, origin }) {
            twice = Some((key, earlier));
        }
    });
    // `"network.depth" = 5` in quotes is the same key as `depth = 5` under [network].
    twice.map_or(Ok(settings), |(key, earlier)| {
        Err(ConfigError::Value {
            origin: earlier.origin,
            problem: "is written twice".to_owned(),
            value: show(&earlier.value),
            mend: "remove one of the two".to_owned(),
            key,
        })
    })
}

fn line_origin(path: &Path, text: &str, offset: usize) -> Origin {
    Origin::Line { path: path.to_owned(), line: line_of(text, offset) }
}

fn line_of(text: &str, offset: usize) -> usize {
    text.as_bytes()[..offset.min(text.len())].iter().filter(|byte| **byte == b'\n').count() + 1
}

fn collect_lines(table: &DeTable<'_>, prefix: &str, text: &str, lines: &mut BTreeMap<String, usize>) {
    for (name, value) in table {
        let key = join(prefix, name.get_ref());
        lines.insert(key.clone(), line_of(text, name.span().start));
        collect_nested(value, &key, text, lines);
    }
}

fn collect_nested(value: &Spanned<DeValue<'_>>, key: &str, text: &str, lines: &mut BTreeMap<String, usize>) {
    match value.get_ref() {
        DeValue::Table(inner) => collect_lines(inner, key, text, lines),
        DeValue::Array(items) if key == "sweep.cases" => {
            for (index, item) in items.iter().enumerate() {
                let key = join(key, &index.to_string());
                lines.insert(key.clone(), line_of(text, item.span().start));
                collect_nested(item, &key, text, lines);
            }
        }
        _ => {}
    }
}

/// Calls `found` with every dotted key and its value. An empty section counts as a key.
fn flatten(table: Table, prefix: &str, found: &mut impl FnMut(String, Value)) {
    for (name, value) in table {
        let key = join(prefix, &name);
        match value {
            Value::Table(inner) if !inner.is_empty() => flatten(inner, &key, found),
            Value::Array(items) if key == "sweep.cases" && !items.is_empty() => {
                for (index, item) in items.into_iter().enumerate() {
                    let key = join(&key, &index.to_string());
                    match item {
                        Value::Table(inner) if !inner.is_empty() => flatten(inner, &key, found),
                        other => found(key, other),
                    }
                }
            }
            other => found(key, other),
        }
    }
}

fn join(prefix: &str, name: &str) -> String {
    if prefix.is_empty() { name.to_owned() } else { format!("{prefix}.{name}") }
}

/// A case of `[[sweep.cases]]` while it is read.
struct Case {
    name: Option<Setting>,
    origin: Origin,
    settings: Vec<(String, Setting)>,
}

fn take_cases(settings: &mut BTreeMap<String, Setting>) -> Result<Vec<Case>, ConfigError> {
    let mut cases: BTreeMap<usize, Case> = BTreeMap::new();
    let keys: Vec<String> = settings.keys().filter(|key| key.starts_with("sweep.cases")).cloned().collect();
    for key in keys {
        let Some(setting) = settings.remove(&key) else {
            continue;
        };
        let numbered = key
            .strip_prefix("sweep.cases.")
            .and_then(|rest| rest.split_once('.'))
            .and_then(|(index, inner)| Some((index.parse().ok()?, inner)));
        let Some((index, inner)) = numbered else {
            return Err(ConfigError::Value {
                origin: setting.origin,
                key: "sweep.cases".to_owned(),
                problem: "must be tables with a `name` and the keys of each case".to_owned(),
                value: show(&setting.value),
                mend: "write [[sweep.cases]] and under it `name = \"relu\"` and the keys".to_owned(),
            });
        };
        let case = cases.entry(index).or_insert_with(|| Case {
            name: None,
            origin: setting.origin.clone(),
            settings: Vec::new(),
        });
        if inner == "name" {
            case.name = Some(setting);
        } else {
            case.settings.push((inner.to_owned(), setting));
        }
    }
    Ok(cases.into_values().collect())
}

fn apply_override(
    settings: &mut BTreeMap<String, Setting>,
    cases: &mut Vec<Case>,
    argument: &str,
) -> Result<(), ConfigError> {
    let refuse_with = |problem: &str, mend: &str| ConfigError::Override {
        argument: argument.to_owned(),
        problem: problem.to_owned(),
        mend: mend.to_owned(),
    };
    let refuse = |problem: &str| refuse_with(problem, "write --set network.depth=8");
    let (key, text) = argument.split_once('=').ok_or_else(|| refuse("there is no `=` in it"))?;
    let (key, text) = (key.trim(), text.trim());
    if key.is_empty() || text.is_empty() {
        return Err(refuse("the key and the value must not be empty"));
    }
    let value = parse_value(text);
    let origin = Origin::CommandLine(argument.to_owned());
    if key == "sweep.cases" {
        let mut replaced = BTreeMap::new();
        flatten(
            Table::from_iter([("sweep".to_owned(), Value::Table(Table::from_iter([("cases".to_owned(), value)])))]),
            "",
            &mut |key, value| {
                let origin = origin.clone();
                replaced.insert(key, Setting { value, origin });
            },
        );
        *cases = take_cases(&mut replaced)?;
        return Ok(());
    }
    if cases.iter().any(|case| case.settings.iter().any(|(other, _)| other == key)) {
        return Err(refuse_with(
            "the key is set by [[sweep.cases]], which would win",
            "edit the cases, or replace all of them: --set 'sweep.cases=[{name=\"relu\",network.activation=\"relu\"}]'",
        ));
    }
    if value.is_table() {
        return Err(refuse("the value is a section; set its keys one by one"));
    }
    // A fixed value takes the place of the list that is swept.
    settings.remove(&format!("sweep.{key}"));
    settings.insert(key.to_owned(), Setting { value, origin });
    Ok(())
}

/// A TOML value, or else a bare word as a string.
fn parse_value(text: &str) -> Value {
    toml::from_str::<Table>(&format!("value = {text}"))
        .ok()
        .filter(|table| table.len() == 1)
        .and_then(|mut table| table.remove("value"))
        .unwrap_or_else(|| Value::String(text.to_owned()))
}

fn take_experiment(path: &Path, settings: &mut BTreeMap<String, Setting>) -> Result<ExperimentConfig, ConfigError> {
    let mut section: BTreeMap<String, Setting> =
        settings.extract_if("experiment".to_owned().."experiment/".to_owned(), |_, _| true).collect();
    let wrong = |key: &str, setting: &Setting, problem: &str, mend: &str| ConfigError::Value {
        origin: setting.origin.clone(),
        key: key.to_owned(),
        problem: problem.to_owned(),
        value: show(&setting.value),
        mend: mend.to_owned(),
    };
    let name = match section.remove("experiment.name") {
        None => {
            return Err(ConfigError::Missing {
                origin: Origin::File(path.to_owned()),
                key: "experiment.name".to_owned(),
                mend: "add `name = \"my_experiment\"` under [experiment]".to_owned(),
            });
        }
        Some(setting) => match &setting.value {
            Value::String(name) if is_directory_name(name) => name.clone(),
            _ => {
                return Err(wrong(
                    "experiment.name",
                    &setting,
                    "must be a name of letters, digits, `-`, `_` and `.` that starts with a letter or digit",
                    "write `name = \"my_experiment\"`",
                ));
            }
        },
    };
    let question = match section.remove("experiment.question") {
        None => String::new(),
        Some(setting) => match &setting.value {
            Value::String(question) => question.clone(),
            _ => {
                return Err(wrong("experiment.question", &setting, "must be text", "write a sentence in quotes"));
            }
        },
    };
    let seeds = match section.remove("experiment.seeds") {
        None => vec![1],
        Some(setting) => read_seeds(&setting.value).map_err(|problem| {
            wrong(
                "experiment.seeds",
                &setting,
                problem,
                "write `seeds = 5` for the seeds 1 to 5, or `seeds = [1, 2, 3]`",
            )
        })?,
    };
    if let Some((key, setting)) = section.into_iter().next() {
        let field = key.strip_prefix("experiment.").unwrap_or(&key).to_owned();
        return Err(ConfigError::UnknownKey {
            origin: setting.origin,
            mend: suggest("experiment", &field, &["name", "question", "seeds"]),
            key,
        });
    }
    Ok(ExperimentConfig { name, question, seeds })
}

fn is_directory_name(name: &str) -> bool {
    name.len() <= 100
        && name.starts_with(|first: char| first.is_ascii_alphanumeric())
        && name.chars().all(|char| char.is_ascii_alphanumeric() || matches!(char, '-' | '_' | '.'))
}

/// The most seeds of an experiment.
const MAX_SEEDS: i64 = 1_000_000;

fn read_seeds(value: &Value) -> Result<Vec<u64>, &'static str> {
    match value {
        Value::Integer(count) if (1..=MAX_SEEDS).contains(count) => Ok((1..=*count as u64).collect()),
        Value::Integer(_) => Err("must be a number of seeds from 1 to 1000000"),
        Value::Array(items) if items.is_empty() => Err("must not be empty"),
        Value::Array(items) => {
            let seeds = items
                .iter()
                .map(|item| item.as_integer().and_then(|seed| u64::try_from(seed).ok()))
                .collect::<Option<Vec<u64>>>()
                .ok_or("must list whole numbers of 0 or more")?;
            let mut sorted = seeds.clone();
            sorted.sort_unstable();
            sorted.dedup();
            if sorted.len() == seeds.len() { Ok(seeds) } else { Err("must not list a seed twice") }
        }
        _ => Err("must be a number of seeds or a list of seeds"),
    }
}

fn take_factors(
    path: &Path,
    settings: &mut BTreeMap<String, Setting>,
    cases: Vec<Case>,
) -> Result<Vec<Factor>, ConfigError> {
    let swept: BTreeMap<String, Setting> =
        settings.extract_if("sweep".to_owned().."sweep/".to_owned(), |_, _| true).collect();
    let mut factors = Vec::new();
    if !cases.is_empty() {
        factors.push(case_factor(path, cases)?);
    }
    for (key, setting) in swept {
        let factor = key_factor(&key, &setting)?;
        let cases = factors.first().map_or(&[][..], |cases: &Factor| &cases.levels);
        let in_case = cases.iter().find(|case| case.settings.iter().any(|(other, _)| *other == factor.name));
        if let Some(case) = in_case {
            return Err(ConfigError::Value {
                origin: setting.origin,
                key,
                problem: format!("is swept and set by the case `{}` too", case.label),
                value: show(&setting.value),
                mend: "leave it to one of the two".to_owned(),
            });
        }
        factors.push(factor);
    }
    Ok(factors)
}

fn key_factor(key: &str, setting: &Setting) -> Result<Factor, ConfigError> {
    let wrong = |problem: &str, mend: &str| ConfigError::Value {
        origin: setting.origin.clone(),
        key: key.to_owned(),
        problem: problem.to_owned(),
        value: show(&setting.value),
        mend: mend.to_owned(),
    };
    let Some(name) = key.strip_prefix("sweep.") else {
        return Err(wrong(
            "must hold the keys that are swept",
            "write `network.depth = [2, 4, 8]` under [sweep], or remove the section",
        ));
    };
    if name.starts_with("experiment") {
        return Err(wrong("cannot be swept", "write it under [experiment]"));
    }
    let Value::Array(items) = &setting.value else {
        return Err(wrong("must be a list of values", &format!("write `{name} = [{}]`", show(&setting.value))));
    };
    if items.is_empty() {
        return Err(wrong("must list at least one value", "add values, or remove the key from [sweep]"));
    }
    for (index, item) in items.iter().enumerate() {
        if items[..index].contains(item) {
            return Err(wrong("must not list a value twice", &format!("remove the second {}", show(item))));
        }
    }
    let levels = items.iter().map(|item| Level {
        label: label(item),
        settings: vec![(name.to_owned(), Setting { value: item.clone(), origin: setting.origin.clone() })],
    });
    Ok(Factor { name: name.to_owned(), levels: levels.collect() })
}

fn case_factor(path: &Path, cases: Vec<Case>) -> Result<Factor, ConfigError> {
    let mut levels: Vec<Level> = Vec::new();
    for case in cases {
        let Some(name) = case.name else {
            return Err(ConfigError::Missing {
                origin: case.origin,
                key: "sweep.cases.name".to_owned(),
                mend: "add `name = \"...\"` to this case".to_owned(),
            });
        };
        let label = match &name.value {
            Value::String(text) if !text.is_empty() && levels.iter().all(|level| level.label != *text) => text.clone(),
            other => {
                return Err(ConfigError::Value {
                    origin: name.origin.clone(),
                    key: "sweep.cases.name".to_owned(),
                    problem: "must be text that no other case has".to_owned(),
                    value: show(other),
                    mend: "give every case a name of its own".to_owned(),
                });
            }
        };
        if let Some((key, setting)) =
            case.settings.iter().find(|(key, _)| key.starts_with("experiment") || key.starts_with("sweep"))
        {
            return Err(ConfigError::UnknownKey {
                origin: setting.origin.clone(),
                key: format!("sweep.cases.{key}"),
                mend: format!(
                    "a case of {} can set keys of [data], [network], [training], [probe] and [throughput]",
                    path.display()
                ),
            });
        }
        levels.push(Level { label, settings: case.settings });
    }
    Ok(Factor { name: CASE_FACTOR.to_owned(), levels })
}

/// A key that has a value cannot have keys below it.
fn refuse_values_as_sections(settings: &BTreeMap<String, Setting>) -> Result<(), ConfigError> {
    for (key, setting) in settings {
        let below = format!("{key}.");
        let Some((longer, other)) =
            settings.range(below.clone()..).next().filter(|(other, _)| other.starts_with(&below))
        else {
            continue;
        };
        return Err(if key.contains('.') {
            ConfigError::UnknownKey {
                origin: other.origin.clone(),
                key: longer.clone(),
                mend: format!("`{key}` is a value and has no keys"),
            }
        } else {
            ConfigError::Value {
                origin: setting.origin.clone(),
                key: key.clone(),
                problem: "must be a section".to_owned(),
                value: show(&setting.value),
                mend: format!("set its keys, such as `{longer}`"),
            }
        });
    }
    Ok(())
}

/// Puts a value at its place in nested tables. No key on the way has a value.
fn insert(table: &mut Table, key: &str, value: &Value) {
    match key.split_once('.') {
        None => {
            table.insert(key.to_owned(), value.clone());
        }
        Some((section, rest)) => {
            let entry = table.entry(section.to_owned()).or_insert_with(|| Value::Table(Table::new()));
            if let Value::Table(inner) = entry {
                insert(inner, rest, value);
            }
        }
    }
}

/// A value as one would write it in TOML.
fn show(value: &Value) -> String {
    value.to_string()
}

/// A value as it stands in tables and CSV columns: text without its quotes.
fn label(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// How alike two words must be (Jaro-Winkler, 0 to 1) to suggest one for the other.
const SUGGESTION_SIMILARITY: f64 = 0.8;

fn suggest(section: &str, field: &str, known: &[&str]) -> String {
    let best =
        known.iter().map(|other| (strsim::jaro_winkler(field, other), *other)).max_by(|a, b| a.0.total_cmp(&b.0));
    match best {
        Some((similarity, other)) if similarity >= SUGGESTION_SIMILARITY => {
            format!("did you mean `{}`?", join(section, other))
        }
        _ if section.is_empty() => format!("the sections are experiment, sweep, {}", known.join(", ")),
        _ if known.is_empty() => "remove it".to_owned(),
        _ => format!("the keys of [{section}] are {}", known.join(", ")),
    }
}

/// The demand and the mend out of a message of serde: `invalid type: string "x", expected f64`.
fn expectation(message: &str, quoted: &[&str]) -> (String, String) {
    if message.starts_with("unknown variant") {
        let known = &quoted[1.min(quoted.len())..];
        let given = quoted.first().copied().unwrap_or_default();
        let given = given.to_lowercase();
        let similarity = |other: &&&str| (strsim::jaro_winkler(&given, other) * 1e6) as u64;
        let mend = known
            .iter()
            .max_by_key(similarity)
            .map_or_else(String::new, |other| format!("write \"{other}\", for example"));
        return (format!("must be one of {}", known.join(", ")), mend);
    }
    let expected = message.rsplit_once("expected ").map_or(message, |(_, expected)| expected);
    let (what, example) = match expected {
        "usize" | "u64" | "u32" => ("a whole number of 0 or more", "8"),
        "f64" | "f32" => ("a number", "0.1"),
        "a boolean" => ("true or false", "true"),
        "a sequence" => ("a list of numbers", "[0.5, 0.5]"),
        // Of `network.branch_scale`, which can be a word too.
        other if other.starts_with("a number") => (other, "1.0"),
        other if other.starts_with("struct") || other.contains("map") => {
            return ("must be a section".to_owned(), "write its keys under a heading in brackets".to_owned());
        }
        other if other.contains("string") || other.starts_with("enum") || other.contains("variant") => {
            ("a text in quotes", "\"relu\"")
        }
        other => (other, "32"),
    };
    (format!("must be {what}"), format!("write a value such as {example}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINIMAL: &str = "[experiment]\nname = \"t\"\n[network]\ndepth = 2\nwidth = 3\nactivation = \"tanh\"\nweight_init = \"lecun\"\n[training]\nlearning_rate = 0.1\nepochs = 1\n";

    fn load(extra: &str, overrides: &[&str]) -> Result<RunConfig, String> {
        let overrides: Vec<String> = overrides.iter().map(|text| (*text).to_owned()).collect();
        let source = Source::parse(Path::new("c.toml"), &format!("{MINIMAL}{extra}"), &overrides)
            .map_err(|error| error.to_string())?;
        let assignment = Assignment { levels: source.factors().iter().map(|factor| &factor.levels[0]).collect() };
        source.resolve(&assignment).map_err(|error| error.to_string())
    }

    #[test]
    fn an_override_takes_the_place_of_a_value_and_of_a_swept_list() {
        let config = load("[sweep]\nnetwork.width = [5, 6]\n", &["network.width=7", "network.depth = 4"]);
        let network = config.expect("valid").network;
        assert_eq!((network.depth, network.width()), (4, 7));
    }

    #[test]
    fn a_misspelt_key_is_an_error_with_its_line_and_the_right_spelling() {
        let error = load("[probe]\nevry = 2\n", &[]).expect_err("unknown key");
        assert_eq!(error, "c.toml:12: `probe.evry` is not a key that gradmark knows; did you mean `probe.every`?");
    }

    #[test]
    fn every_kind_of_wrong_value_names_line_key_value_and_mend() {
        for (extra, overrides, expected) in [
            (
                "",
                vec!["network.depth=0"],
                "--set network.depth=0: `network.depth` must be a number of hidden layers from 1 to 1000, got 0; set",
            ),
            ("", vec!["network.depth=-3"], "`network.depth` must be a whole number of 0 or more, got -3; write"),
            (
                "",
                vec!["network.activation=rleu"],
                "`network.activation` must be one of sigmoid, tanh, relu, leaky_relu, prelu, elu, selu, gelu, softplus, maxout, identity, got \"rleu\"; write \"relu\"",
            ),
            (
                "",
                vec!["training.learning_rate=nan"],
                "`training.learning_rate` must be a finite number above 0, got nan",
            ),
            ("", vec!["training.learning_rate=fast"], "`training.learning_rate` must be a number, got \"fast\""),
            ("", vec!["training.batch_size=all"], "must be a whole number of examples, or \"full\", got \"all\""),
            ("", vec!["network=3"], "must be a section"),
            (
                "[sweep]\nnetwork.depth = []\n",
                vec![],
                "c.toml:12: `sweep.network.depth` must list at least one value, got []",
            ),
            ("[sweep]\n", vec![], "c.toml:11: `sweep` must hold the keys that are swept"),
            ("[sweep]\nnetwork.depth = [2, 2]\n", vec![], "must not list a value twice"),
            ("", vec!["experiment.seeds=[1, 1]"], "`experiment.seeds` must not list a seed twice, got [1, 1]"),
            ("", vec!["network.weight_init=normal"], "`network.weight_std` must be given with"),
            ("", vec!["training.steps=3"], "`training.steps` stands beside `training.epochs`"),
            ("[[sweep.cases]]\nnetwork.depth = 3\n", vec![], "c.toml:12: `sweep.cases.name` is missing"),
        ] {
            let error = load(extra, &overrides).expect_err(expected);
            assert!(error.contains(expected), "{error}\n  lacks: {expected}");
        }
    }

    #[test]
    fn a_missing_key_names_its_section() {
        let text = MINIMAL.replace("depth = 2\n", "");
        let source = Source::parse(Path::new("c.toml"), &text, &[]).expect("parses");
        let error = source.resolve(&Assignment { levels: vec![] }).expect_err("missing");
        assert_eq!(error.to_string(), "c.toml: `network.depth` is missing; add `depth = ...` under [network]");
    }

    #[test]
    fn a_case_sets_several_keys_at_once() {
        let cases = "[[sweep.cases]]\nname = \"wide\"\nnetwork.width = 9\nnetwork.activation = \"relu\"\n";
        let network = load(cases, &[]).expect("valid").network;
        assert_eq!((network.width(), network.activation), (9, super::super::Activation::Relu));
    }
}
