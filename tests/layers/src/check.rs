//! Holds the imports of a crate against its table.

use std::collections::{BTreeMap, BTreeSet};

use crate::graph::Graph;
use crate::imports::{Import, imports};
use crate::source::Source;
use crate::table::{Entry, Layers};

/// The table's path in the repository.
pub(crate) const TABLE: &str = "tests/layers.toml";

/// A crate, its table, and what was found.
pub(crate) struct Report {
    /// One line each: file:line, what, why, what to do.
    pub(crate) failures: Vec<String>,
    /// The imports between rooms, and of crates of this workspace, without the exceptions.
    pub(crate) rooms: BTreeMap<String, BTreeSet<String>>,
}

/// Checks one crate. `crates` has the packages whose tables there are.
pub(crate) fn check(layers: &Layers, source: &Source, crates: &BTreeSet<&str>) -> Report {
    let mut check =
        Check { layers, source, failures: Vec::new(), needed: BTreeSet::new(), rooms: BTreeMap::new() };
    check.table(crates);
    check.files();
    check.manifest();
    let imports = imports(source);
    check.crates(&imports);
    check.floors(&imports);
    check.loops(&imports);
    check.exceptions();
    check.failures.sort();
    Report { failures: check.failures.into_iter().map(|(_, _, text)| text).collect(), rooms: check.rooms }
}

struct Check<'a> {
    layers: &'a Layers,
    source: &'a Source,
    /// File and line to sort by, and the whole text.
    failures: Vec<(String, usize, String)>,
    /// The exceptions, by their place in the table, that something still needs.
    needed: BTreeSet<usize>,
    rooms: BTreeMap<String, BTreeSet<String>>,
}

/// The places of imports by the file that imports and what it imports.
type Places<To> = BTreeMap<(usize, To), BTreeMap<usize, String>>;

impl Check<'_> {
    fn fail(&mut self, file: &str, line: usize, text: &str) {
        self.failures.push((file.to_owned(), line, format!("{file}:{line}: {text}")));
    }

    fn fail_import(&mut self, file: usize, lines: &BTreeMap<usize, String>, text: &str) {
        let Some(first) = lines.keys().next() else { return };
        let file = self.path(file);
        let more: Vec<String> = lines.keys().skip(1).map(ToString::to_string).collect();
        let also =
            if more.is_empty() { String::new() } else { format!(" (also on line {})", more.join(", ")) };
        self.fail(&file, *first, &format!("{text}{also}"));
    }

    /// A file's path in the repository.
    fn path(&self, file: usize) -> String {
        format!("{}/{}", self.layers.src.name, self.source.files[file].path)
    }

    /// The files that an import depends on: those whose re-exports lead to the thing, and the one that defines it.
    /// A parent that only passes on what another file defines is not among them, nor is a parent that is imported
    /// as a module, which is a name in scope and no more.
    fn files_of(&self, import: &Import) -> Vec<usize> {
        let parents: Vec<usize> = self.source.ancestors(import.module).collect();
        let is_parent = |file: usize| parents.iter().any(|parent| self.source.modules[*parent].file == file);
        let through = import.target.through.iter().copied().filter(|file| !is_parent(*file));
        let defined =
            import.target.defined.filter(|_| import.target.module.is_none_or(|it| !parents.contains(&it)));
        through.chain(defined).filter(|file| *file != import.file).collect()
    }

    fn excepted(&mut self, from: usize, to: &str) -> bool {
        let from = &self.source.files[from].path;
        let found = self.layers.exceptions.iter().position(|it| it.from == *from && it.to == to);
        self.needed.extend(found);
        found.is_some()
    }

    /// The table itself: what it lists exists, and no list runs upward.
    fn table(&mut self, crates: &BTreeSet<&str>) {
        let layers = self.layers;
        let mut rooms = BTreeSet::new();
        for (number, floor) in layers.floors.iter().enumerate() {
            for room in &floor.rooms {
                self.exists(room);
                if !rooms.insert(&room.name) {
                    self.fail(TABLE, room.line, &format!("{} is listed twice: delete one entry", room.name));
                }
            }
            for import in &floor.named_imports {
                let on =
                    layers.floors.iter().position(|it| it.rooms.iter().any(|room| room.name == import.name));
                let name = &import.name;
                match on {
                    Some(on) if on < number => {
                        self.fail(TABLE, import.line, &format!("{name} is on a higher floor: no room may import it from here"));
                    }
                    Some(_) => {}
                    None if crates.contains(name.as_str()) => {
                        if !self.source.dependencies.values().any(|it| it.key == *name) {
                            let text = format!("{} does not depend on {name}: delete the entry", layers.name);
                            self.fail(TABLE, import.line, &text);
                        }
                    }
                    None => self.fail(TABLE, import.line, &format!("{name} is neither a room of {} nor a crate with a table here: delete the entry, or list the room", layers.name)),
                }
            }
            // Two rooms of one floor that may import each other.
            let mutual = floor.rooms.iter().filter(|room| floor.imports.contains(&room.name)).nth(1);
            if let Some(room) = mutual {
                self.fail(TABLE, floor.line, &format!("{} and another room of its floor may import each other: put one of them on a floor of its own", room.name));
            }
        }
        for (name, rooms) in &layers.only {
            rooms.iter().for_each(|room| self.exists(room));
            if !self.source.dependencies.keys().any(|dependency| matches(name, dependency)) {
                let line = rooms.first().map_or(1, |room| room.line);
                self.fail(
                    TABLE,
                    line,
                    &format!("{} depends on no crate {name}: delete the entry", layers.name),
                );
            }
        }
    }

    fn exists(&mut self, entry: &Entry) {
        let exists = self.source.files.iter().any(|file| {
            file.path == entry.name || entry.name.ends_with('/') && file.path.starts_with(&entry.name)
        });
        if !exists {
            let text = format!(
                "{}/{} does not exist: delete the entry, or correct it",
                self.layers.src.name, entry.name
            );
            self.fail(TABLE, entry.line, &text);
        }
    }

    /// Every file has a room, and a module that declares it.
    fn files(&mut self) {
        let mut missing = BTreeSet::new();
        for (index, file) in self.source.files.iter().enumerate() {
            if self.layers.room_of(&file.path).is_none() {
                let room =
                    file.path.split_once('/').map_or(file.path.clone(), |(folder, _)| format!("{folder}/"));
                if missing.insert(room.clone()) {
                    let text = format!(
                        "no floor lists {room}: add it to {TABLE}, on the floor above all that it imports"
                    );
                    self.fail(&self.path(index), 1, &text);
                }
            } else if file.module.is_none() {
                let text = "no `mod` declares this file, so nothing compiles it: declare it, or delete it";
                self.fail(&self.path(index), 1, text);
            }
        }
    }

    /// The manifest depends on no crate of the workspace that no floor lists.
    fn manifest(&mut self) {
        let layers = self.layers;
        for dependency in self.source.dependencies.values().filter(|it| it.ours) {
            if !layers.floors.iter().any(|floor| floor.imports.contains(&dependency.key)) {
                let folder = layers.src.name.rsplit_once('/').map_or("", |(folder, _)| folder);
                let text = format!(
                    "{} depends on {}, a crate of this workspace that no floor of {TABLE} lists: list it where it may be imported",
                    layers.name, dependency.key
                );
                self.fail(&format!("{folder}/Cargo.toml"), dependency.line, &text);
            }
        }
    }

    /// Crates are named only where the table allows it.
    fn crates(&mut self, imports: &[Import]) {
        let layers = self.layers;
        let mut places: Places<&str> = BTreeMap::new();
        for import in imports {
            if let Some(name) = &import.target.external {
                places.entry((import.file, name)).or_default().insert(import.line, import.path.clone());
            }
        }
        for ((file, name), lines) in &places {
            let path = &self.source.files[*file].path;
            let Some((floor, room)) = layers.room_of(path) else { continue };
            let Some(dependency) = self.source.dependencies.get(*name) else { continue };
            if dependency.ours {
                if !layers.floors[floor].imports.contains(&dependency.key) {
                    if self.excepted(*file, &dependency.key) {
                        continue;
                    }
                    let text = format!(
                        "{room} imports the crate {}, which is not in its list ({TABLE}:{}): move the code to a room that may, or add the crate to that list",
                        dependency.key, layers.floors[floor].line
                    );
                    self.fail_import(*file, lines, &text);
                }
                self.rooms.entry(room.to_owned()).or_default().insert(dependency.key.clone());
            }
            for (_, rooms) in layers.only.iter().filter(|(pattern, _)| matches(pattern, name)) {
                if !rooms.iter().any(|room| room.holds(path)) && !self.excepted(*file, &dependency.key) {
                    let allowed: Vec<&str> = rooms.iter().map(|room| room.name.as_str()).collect();
                    let allowed = allowed.join(", ");
                    let text = format!(
                        "{room} names the crate {}, which {TABLE} keeps to {allowed}: move the code there, and return a type of our own",
                        dependency.key
                    );
                    self.fail_import(*file, lines, &text);
                }
            }
        }
    }

    /// No import runs upward, or sideways where the table does not allow it.
    fn floors(&mut self, imports: &[Import]) {
        let layers = self.layers;
        let mut places: Places<usize> = BTreeMap::new();
        for import in imports {
            // A re-export is what is imported, whatever file it leads to.
            if let Some(to) = self.files_of(import).first() {
                places.entry((import.file, *to)).or_default().insert(import.line, import.path.clone());
            }
        }
        for ((from, to), lines) in &places {
            let (from_path, to_path) = (&self.source.files[*from].path, &self.source.files[*to].path);
            let (Some((floor, room)), Some((to_floor, to_room))) =
                (layers.room_of(from_path), layers.room_of(to_path))
            else {
                continue;
            };
            if room == to_room {
                continue;
            }
            let allowed = &layers.floors[floor];
            if to_floor >= floor && allowed.imports.contains(to_room) {
                self.rooms.entry(room.to_owned()).or_default().insert(to_room.to_owned());
                continue;
            }
            if self.excepted(*from, to_path) {
                continue;
            }
            self.rooms.entry(room.to_owned()).or_default().insert(to_room.to_owned());
            let path = lines.values().next().map_or("", String::as_str);
            let what = format!("{room} imports {to_room} ({path}, from {from_path} to {to_path})");
            let text = if to_floor < floor {
                let floors = floor - to_floor;
                let s = if floors == 1 { "" } else { "s" };
                format!(
                    "{what}, {floors} floor{s} up: move what both need to a lower room, or pass the value in as an argument"
                )
            } else {
                let place = if to_floor == floor { "on the same floor" } else { "below" };
                format!(
                    "{what}, {place} but not in its list ({TABLE}:{}): move what both need to a lower room, or add {to_room} to that list",
                    allowed.line
                )
            };
            self.fail_import(*from, lines, &text);
        }
    }

    /// No files import each other in a loop.
    fn loops(&mut self, imports: &[Import]) {
        let mut graph = Graph::default();
        for import in imports {
            for to in self.files_of(import) {
                graph.add(import.file, to, import.line);
            }
        }
        let mut excepted = Vec::new();
        for (place, exception) in self.layers.exceptions.iter().enumerate() {
            let index = |path: &str| self.source.files.iter().position(|file| file.path == path);
            if let (Some(from), Some(to)) = (index(&exception.from), index(&exception.to))
                && let Some(line) = graph.remove(from, to)
            {
                excepted.push((place, from, to, line));
            }
        }
        // An exception is needed if the loop is there again without it.
        for (place, from, to, line) in excepted {
            if graph.reaches(to, from) {
                self.needed.insert(place);
            } else {
                graph.add(from, to, line);
            }
        }
        while let Some(cycle) = graph.take_shortest_cycle() {
            let steps: Vec<String> = cycle
                .iter()
                .map(|(from, _, line)| format!("{}:{line}", self.source.files[*from].path))
                .collect();
            let (first, _, line) = cycle[0];
            let path = self.path(first);
            let text = format!(
                "loop of imports: {} -> {}: move what both need to a file of its own, or pass the value in as an argument",
                steps.join(" -> "),
                self.source.files[first].path
            );
            self.fail(&path, line, &text);
        }
    }

    /// An exception that nothing needs any more is deleted, so that the list only shrinks.
    fn exceptions(&mut self) {
        let layers = self.layers;
        for (place, exception) in layers.exceptions.iter().enumerate() {
            if !self.needed.contains(&place) {
                let text = format!(
                    "nothing needs the exception \"{} -> {}\" any more: delete the entry",
                    exception.from, exception.to
                );
                self.fail(TABLE, exception.line, &text);
            }
        }
    }
}

/// Whether a crate is meant by its name in the table.
fn matches(pattern: &str, name: &str) -> bool {
    let pattern = pattern.replace('-', "_");
    pattern.strip_suffix('*').map_or(name == pattern, |beginning| name.starts_with(beginning))
}
