//! From a path in the code to the file that defines what the path names.

use std::collections::HashSet;

use crate::source::{Binding, Names, Segments, Source};

/// What a path names.
#[derive(Clone, Debug, Default)]
pub(crate) struct Target {
    /// The file that defines the thing; none if another crate does.
    pub(crate) defined: Option<usize>,
    /// The files whose re-exports lead there, in order.
    pub(crate) through: Vec<usize>,
    /// The thing is this module.
    pub(crate) module: Option<usize>,
    /// The thing is of this crate.
    pub(crate) external: Option<String>,
}

impl Source {
    /// What `path` names in `module`, inside blocks with the names `scopes`, the innermost last. More than one
    /// thing if the name has several meanings; nothing if the path begins with a type parameter or a name of `std`.
    pub(crate) fn resolve(&self, module: usize, scopes: &[Names], path: &Segments) -> Vec<Target> {
        let mut search = Search { source: self, open: HashSet::new(), found: Vec::new() };
        search.start(module, scopes, path, &Target::default());
        search.found
    }
}

struct Search<'a> {
    source: &'a Source,
    /// The imports being followed: `use anyhow::anyhow` does not explain its own first name.
    open: HashSet<(usize, String)>,
    found: Vec<Target>,
}

impl Search<'_> {
    /// Follows a path from its first name. `way` has what led here.
    fn start(&mut self, at: usize, scopes: &[Names], path: &Segments, way: &Target) {
        let Some((first, rest)) = path.names.split_first() else { return };
        if path.absolute {
            return self.external(first, way);
        }
        match first.as_str() {
            "crate" => return self.walk(self.source.modules[at].root, rest, way),
            "self" | "super" => return self.walk(at, &path.names, way),
            _ => {}
        }
        for (depth, scope) in scopes.iter().enumerate().rev() {
            if let Some(bindings) = scope.bindings.get(first) {
                for binding in bindings {
                    if let Binding::Use(path) = binding {
                        // From outside of the block: an import does not explain its own first name.
                        self.start(at, &scopes[..depth], &path.join(rest), way);
                    }
                }
                return;
            }
        }
        if self.enter(at, first, rest, way, true) {
            return;
        }
        match &self.source.library {
            Some((library, root)) if library == first => self.walk(*root, rest, way),
            _ => self.external(first, way),
        }
    }

    /// Follows the names after `crate`, `self`, `super` or a module's name.
    fn walk(&mut self, module: usize, names: &[String], way: &Target) {
        match names.split_first() {
            None => {
                let file = self.source.modules[module].file;
                self.found.push(Target { defined: Some(file), module: Some(module), ..way.clone() });
            }
            Some((name, rest)) if name == "self" => self.walk(module, rest, way),
            Some((name, rest)) if name == "super" => {
                let parent = self.source.modules[module].parent.unwrap_or(module);
                self.walk(parent, rest, way);
            }
            // A name that is not seen there is made there by a macro.
            Some((name, rest)) => {
                if !self.enter(module, name, rest, way, false) {
                    self.item(module, way);
                }
            }
        }
    }

    /// Follows `name` in `module`, and `rest` after it. Through the module's own eyes (`own`) an import is no
    /// re-export. Returns false if the module has no such name.
    fn enter(&mut self, module: usize, name: &str, rest: &[String], way: &Target, own: bool) -> bool {
        let names = &self.source.modules[module].names;
        let mut reexported = way.clone();
        if !own {
            reexported.through.push(self.source.modules[module].file);
        }
        let bindings = names.bindings.get(name).map_or(&[][..], Vec::as_slice);
        let is_module = |binding: &&Binding| matches!(binding, Binding::Module(_));
        let modules_only = !rest.is_empty() && bindings.iter().any(|binding| is_module(&binding));
        let mut known = false;
        for binding in bindings.iter().filter(|binding| !modules_only || is_module(binding)) {
            match binding {
                Binding::Item => self.item(module, way),
                Binding::Module(child) => self.walk(*child, rest, way),
                Binding::Use(path) => {
                    let key = (module, name.to_owned());
                    if !self.open.insert(key.clone()) {
                        continue;
                    }
                    self.start(module, &[], &path.join(rest), &reexported);
                    self.open.remove(&key);
                }
            }
            known = true;
        }
        if known {
            return true;
        }
        for other in self.glob_modules(module) {
            if self.has(other, name, &mut HashSet::from([module])) {
                self.enter(other, name, rest, &reexported, false);
                known = true;
            }
        }
        known
    }

    /// The modules all of whose names `module` imports.
    fn glob_modules(&mut self, module: usize) -> Vec<usize> {
        let mut modules = Vec::new();
        for path in &self.source.modules[module].names.globs {
            let key = (module, format!("{path}::*"));
            if self.open.insert(key.clone()) {
                let mut search = Search { source: self.source, open: self.open.clone(), found: Vec::new() };
                search.start(module, &[], path, &Target::default());
                modules.extend(search.found.into_iter().filter_map(|target| target.module));
                self.open.remove(&key);
            }
        }
        modules
    }

    fn has(&mut self, module: usize, name: &str, seen: &mut HashSet<usize>) -> bool {
        self.source.modules[module].names.bindings.contains_key(name)
            || seen.insert(module)
                && self.glob_modules(module).into_iter().any(|other| self.has(other, name, seen))
    }

    fn item(&mut self, module: usize, way: &Target) {
        let file = self.source.modules[module].file;
        self.found.push(Target { defined: Some(file), ..way.clone() });
    }

    fn external(&mut self, name: &str, way: &Target) {
        if self.source.dependencies.contains_key(name) {
            self.found.push(Target { external: Some(name.to_owned()), ..way.clone() });
        }
    }
}
