//! The sources of settings, strongest first: flags, environment, file. Collects every mistake in them.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

use instance_contract::InvalidValue;

use super::table::{DEFAULT_FILE, ENVIRONMENT, SETTINGS};

/// Invalid settings: one line for each mistake, with its place and what to write instead.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ConfigError(Vec<Mistake>);

impl std::error::Error for ConfigError {}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: Vec<String> = self.0.iter().map(ToString::to_string).collect();
        f.write_str(&lines.join("\n"))
    }
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{origin}: {problem}")]
struct Mistake {
    origin: Origin,
    problem: String,
}

/// Where a value was written.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Origin {
    Flag(&'static str),
    Environment(String),
    File { path: PathBuf, line: Option<usize> },
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(key) => write!(f, "--{key}"),
            Self::Environment(name) => f.write_str(name),
            Self::File { path, line: Some(line) } => write!(f, "{}:{line}", path.display()),
            Self::File { path, line: None } => write!(f, "{}", path.display()),
        }
    }
}

type Layer = BTreeMap<&'static str, (String, Origin)>;

/// The texts of all sources before they are interpreted; the strongest layer comes first.
#[derive(Debug, Default)]
pub(crate) struct Layers {
    layers: Vec<Layer>,
    file: PathBuf,
    has_file: bool,
    mistakes: Vec<Mistake>,
}

impl Layers {
    /// Reads flags, environment and file. `file` is the settings file if one was named; it must exist then.
    pub(crate) fn read(
        flags: impl IntoIterator<Item = (&'static str, String)>,
        environment: impl IntoIterator<Item = (OsString, OsString)>,
        file: Option<&Path>,
    ) -> Self {
        let mut mistakes = Vec::new();
        let flags = flags.into_iter().map(|(key, value)| (key, (value, Origin::Flag(key)))).collect();
        let mut named = file.map(Path::to_owned);
        let environment = environment_layer(environment, &mut named, &mut mistakes);
        let path = named.as_deref().unwrap_or(Path::new(DEFAULT_FILE));
        let mut has_file = true;
        let file = match std::fs::read_to_string(path) {
            Ok(text) => file_layer(path, &text, &mut mistakes),
            Err(error) => {
                has_file = false;
                if named.is_some() || error.kind() != std::io::ErrorKind::NotFound {
                    mistakes.push(Mistake {
                        origin: Origin::File { path: path.to_owned(), line: None },
                        problem: format!("cannot be read: {error}"),
                    });
                }
                Layer::new()
            }
        };
        Self { layers: vec![flags, environment, file], file: path.to_owned(), has_file, mistakes }
    }

    /// The path of the settings file, even if there is none.
    pub(crate) fn file(&self) -> &Path {
        &self.file
    }

    pub(crate) fn has_file(&self) -> bool {
        self.has_file
    }

    /// One sentence for each value that a stronger source overrides.
    pub(crate) fn overridden(&self) -> Vec<String> {
        let mut sentences = Vec::new();
        for (index, layer) in self.layers.iter().enumerate() {
            for (key, (_, origin)) in layer {
                let stronger = self.layers.iter().take(index).find_map(|layer| layer.get(key));
                if let Some((_, stronger)) = stronger {
                    let place = match origin {
                        Origin::File { .. } => format!("{origin}: {key}"),
                        _ => origin.to_string(),
                    };
                    sentences.push(format!("{place} has no effect: {stronger} overrides it"));
                }
            }
        }
        sentences
    }

    /// Where the value of a setting comes from; `None` if no source sets it.
    pub(super) fn source(&self, key: &'static str) -> Option<String> {
        self.find(key).map(|(_, origin)| origin.to_string())
    }

    fn find(&self, key: &'static str) -> Option<&(String, Origin)> {
        self.layers.iter().find_map(|layer| layer.get(key))
    }
}

/// Interprets the texts and collects every mistake.
pub(super) struct SettingsReader<'a> {
    layers: &'a Layers,
    mistakes: Vec<Mistake>,
}

impl<'a> SettingsReader<'a> {
    pub(super) fn of(layers: &'a Layers) -> Self {
        Self { layers, mistakes: layers.mistakes.clone() }
    }

    /// The value of a setting; `None` if it is not set or invalid.
    pub(super) fn value<T>(
        &mut self,
        key: &'static str,
        parse: impl FnOnce(&str) -> Result<T, InvalidValue>,
    ) -> Option<T> {
        let (text, origin) = self.layers.find(key)?;
        match parse(text) {
            Ok(value) => Some(value),
            Err(error) => {
                let problem = match origin {
                    Origin::File { .. } => format!("{key}: {error}"),
                    _ => error.to_string(),
                };
                self.mistakes.push(Mistake { origin: origin.clone(), problem });
                None
            }
        }
    }

    /// A folder: the setting, else systemd's variable, else the default.
    pub(super) fn directory(&mut self, key: &'static str, systemd: &str, default: &str) -> PathBuf {
        let set = self.value(key, |text| {
            if text.is_empty() {
                Err(InvalidValue { found: String::new(), expected: "the path of a folder" })
            } else {
                Ok(PathBuf::from(text))
            }
        });
        // systemd separates folders with colons; the unit has only one.
        let of_systemd = || {
            let list = std::env::var(systemd).ok()?;
            list.split(':').next().filter(|first| !first.is_empty()).map(PathBuf::from)
        };
        set.or_else(of_systemd).unwrap_or_else(|| PathBuf::from(default))
    }

    /// All mistakes in the order flags, environment, file; those of the file by line.
    pub(super) fn mistakes(mut self) -> Option<ConfigError> {
        self.mistakes.sort_by(|one, other| one.origin.cmp(&other.origin));
        (!self.mistakes.is_empty()).then_some(ConfigError(self.mistakes))
    }
}

fn environment_layer(
    environment: impl IntoIterator<Item = (OsString, OsString)>,
    file: &mut Option<PathBuf>,
    mistakes: &mut Vec<Mistake>,
) -> Layer {
    let mut layer = Layer::new();
    for (name, value) in environment {
        // Other programs' variables need not be UTF-8.
        let Some(name) = name.to_str() else { continue };
        let Some(rest) = name.strip_prefix(ENVIRONMENT) else { continue };
        let name = name.to_owned();
        if rest == "CONFIG" {
            file.get_or_insert(PathBuf::from(value));
            continue;
        }
        let Ok(value) = value.into_string() else {
            let problem = "the value is not UTF-8 text".to_owned();
            mistakes.push(Mistake { origin: Origin::Environment(name), problem });
            continue;
        };
        let key = rest.to_ascii_lowercase().replace('_', "-");
        match known(&key) {
            Some(key) => _ = layer.insert(key, (value, Origin::Environment(name))),
            None => {
                let problem = match nearest(&key) {
                    Some(near) => format!(
                        "no such setting; did you mean {ENVIRONMENT}{}?",
                        near.to_ascii_uppercase().replace('-', "_")
                    ),
                    None => "no such setting".to_owned(),
                };
                mistakes.push(Mistake { origin: Origin::Environment(name), problem });
            }
        }
    }
    layer
}

fn file_layer(path: &Path, text: &str, mistakes: &mut Vec<Mistake>) -> Layer {
    let line_of =
        |offset: usize| text.as_bytes()[..offset.min(text.len())].iter().filter(|b| **b == b'\n').count() + 1;
    let mistake = |offset: Option<usize>, problem: String| Mistake {
        origin: Origin::File { path: path.to_owned(), line: offset.map(line_of) },
        problem,
    };
    let mut layer = Layer::new();
    let table = match toml::de::DeTable::parse(text) {
        Ok(table) => table,
        Err(error) => {
            let start = error.span().map(|span| span.start);
            let line = start.and_then(|start| text.lines().nth(line_of(start) - 1)).unwrap_or_default();
            mistakes.push(mistake(start, syntax_problem(line, error.message())));
            return layer;
        }
    };
    for (key, value) in table.get_ref() {
        let Some(known) = known(key.get_ref()) else {
            let near = nearest(key.get_ref()).map_or(String::new(), |near| format!("; did you mean {near}?"));
            let problem = format!("{}: no such setting{near}", key.get_ref());
            mistakes.push(mistake(Some(key.span().start), problem));
            continue;
        };
        match file_value(known, value.get_ref()) {
            Ok(text) => {
                let origin = Origin::File { path: path.to_owned(), line: Some(line_of(key.span().start)) };
                layer.insert(known, (text, origin));
            }
            Err(problem) => mistakes.push(mistake(Some(value.span().start), format!("{known}: {problem}"))),
        }
    }
    layer
}

/// Explains a line that is not TOML. The parser does not name the key, and its words for missing quotes are its own.
fn syntax_problem(line: &str, message: &str) -> String {
    let Some((key, value)) = line.split_once('=').map(|(key, value)| (key.trim(), value.trim())) else {
        return message.to_owned();
    };
    if value.is_empty() {
        return format!("{key}: the value is missing");
    }
    let is_bare = value.starts_with(|c: char| c.is_ascii_alphanumeric() || "/.:".contains(c));
    if is_bare && !value.contains(['"', '\'']) {
        let value = value.split('#').next().unwrap_or_default().trim_end();
        return format!("{key}: put the value in quotes: {key} = \"{value}\"");
    }
    format!("{key}: {message}")
}

fn file_value(key: &str, value: &toml::de::DeValue<'_>) -> Result<String, String> {
    use toml::de::DeValue;
    match value {
        DeValue::String(text) => Ok(text.to_string()),
        DeValue::Integer(number) if number.radix() == 10 => Ok(number.as_str().to_owned()),
        DeValue::Array(items) if key == "target-group" => {
            let words: Option<Vec<&str>> = items.iter().map(|item| item.get_ref().as_str()).collect();
            words.map(|words| words.join(" ")).ok_or_else(|| "expected a list of strings".to_owned())
        }
        other if key == "target-group" => {
            Err(format!("expected a list of strings, found {}", other.type_str()))
        }
        other => Err(format!("expected a string or a decimal integer, found {}", other.type_str())),
    }
}

fn known(key: &str) -> Option<&'static str> {
    SETTINGS.iter().map(|setting| setting.key).find(|known| *known == key)
}

fn nearest(key: &str) -> Option<&'static str> {
    instance_contract::nearest(key, SETTINGS.iter().map(|setting| setting.key))
}
