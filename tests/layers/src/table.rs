//! The table of floors, `tests/layers.toml`.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use toml::Spanned;

/// Stands in a floor's `imports` for every room on the floors below, and the crates that they import.
const ALL_BELOW: &str = "all below";

/// What the file says of one crate.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Rules {
    src: Spanned<String>,
    floors: Vec<FloorRules>,
    #[serde(default)]
    only: BTreeMap<String, Vec<Spanned<String>>>,
    #[serde(default)]
    exceptions: BTreeMap<String, Vec<Spanned<String>>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FloorRules {
    holds: String,
    rooms: Vec<Spanned<String>>,
    imports: Vec<Spanned<String>>,
}

/// A name in the table, and its line.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) name: String,
    pub(crate) line: usize,
}

impl Entry {
    /// Whether the entry, a file or a folder, is or holds the file `path`. A folder and the file of the same
    /// name beside it are one room.
    pub(crate) fn holds(&self, path: &str) -> bool {
        path.strip_prefix(stem(&self.name)).is_some_and(|rest| rest == ".rs" || rest.starts_with('/'))
    }
}

fn stem(entry: &str) -> &str {
    entry.strip_suffix(".rs").unwrap_or_else(|| entry.trim_end_matches('/'))
}

pub(crate) struct Floor {
    /// What the floor is for, in a line.
    pub(crate) holds: String,
    pub(crate) rooms: Vec<Entry>,
    /// The rooms and crates that its rooms may import, "all below" spelled out.
    pub(crate) imports: BTreeSet<String>,
    /// Those that the table names one by one.
    pub(crate) named_imports: Vec<Entry>,
    /// The line of the list.
    pub(crate) line: usize,
}

pub(crate) struct Exception {
    pub(crate) from: String,
    pub(crate) to: String,
    /// Where it is to end.
    pub(crate) issue: String,
    pub(crate) line: usize,
}

/// The table of one crate.
pub(crate) struct Layers {
    /// The package's name.
    pub(crate) name: String,
    /// Its folder of sources, relative to the repository.
    pub(crate) src: Entry,
    /// From the top floor down.
    pub(crate) floors: Vec<Floor>,
    /// A crate's name, or its beginning before `*`, and the rooms or files that may name it.
    pub(crate) only: Vec<(String, Vec<Entry>)>,
    pub(crate) exceptions: Vec<Exception>,
}

impl Layers {
    /// The floor and the name of the room that holds a file.
    pub(crate) fn room_of(&self, path: &str) -> Option<(usize, &str)> {
        let rooms = self.floors.iter().enumerate();
        rooms
            .flat_map(|(floor, it)| it.rooms.iter().map(move |room| (floor, room)))
            .filter(|(_, room)| room.holds(path))
            .max_by_key(|(_, room)| stem(&room.name).len())
            .map(|(floor, room)| (floor, room.name.as_str()))
    }
}

/// Reads the table, in the order of the file.
pub(crate) fn parse(text: &str) -> Result<Vec<Layers>, String> {
    let rules: BTreeMap<String, Rules> = toml::from_str(text).map_err(|error| error.to_string())?;
    let mut layers =
        rules.into_iter().map(|(name, rules)| resolve(text, name, rules)).collect::<Result<Vec<_>, _>>()?;
    layers.sort_by_key(|layers| layers.src.line);
    Ok(layers)
}

fn resolve(text: &str, name: String, rules: Rules) -> Result<Layers, String> {
    let entry = |it: &Spanned<String>| Entry {
        name: it.get_ref().clone(),
        line: text[..it.span().start].matches('\n').count() + 1,
    };
    let mut floors: Vec<Floor> = Vec::new();
    let mut below = BTreeSet::new();
    // From the ground up, as "all below" adds up.
    for floor in rules.floors.iter().rev() {
        let rooms: Vec<Entry> = floor.rooms.iter().map(entry).collect();
        let named_imports: Vec<Entry> =
            floor.imports.iter().map(entry).filter(|import| import.name != ALL_BELOW).collect();
        let mut imports: BTreeSet<String> = named_imports.iter().map(|import| import.name.clone()).collect();
        if named_imports.len() < floor.imports.len() {
            imports.extend(below.iter().cloned());
        }
        below.extend(rooms.iter().map(|room| room.name.clone()));
        below.extend(imports.iter().cloned());
        let line = floor.imports.first().or(floor.rooms.first()).map_or(1, |first| entry(first).line);
        floors.push(Floor { holds: floor.holds.clone(), rooms, imports, named_imports, line });
    }
    floors.reverse();
    let mut exceptions = Vec::new();
    for (issue, listed) in &rules.exceptions {
        for listed in listed {
            let Entry { name, line } = entry(listed);
            let Some((from, to)) = name.split_once(" -> ") else {
                return Err(format!(
                    "line {line}: write an exception as \"importing.rs -> imported.rs\", not {name:?}"
                ));
            };
            exceptions.push(Exception {
                from: from.to_owned(),
                to: to.to_owned(),
                issue: issue.clone(),
                line,
            });
        }
    }
    let only =
        rules.only.iter().map(|(name, rooms)| (name.clone(), rooms.iter().map(entry).collect())).collect();
    Ok(Layers { name, src: entry(&rules.src), floors, only, exceptions })
}
