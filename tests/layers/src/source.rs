//! The sources of one crate: its files, and the tree of modules in them with the names that each module has.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};

use proc_macro2::{TokenStream, TokenTree};
use syn::ext::IdentExt as _;
use syn::{Attribute, Expr, Item, Lit, Meta, UseTree};

/// A path as the code writes it, without generic arguments.
#[derive(Clone, Debug)]
pub(crate) struct Segments {
    /// It begins with `::`.
    pub(crate) absolute: bool,
    pub(crate) names: Vec<String>,
}

impl Segments {
    pub(crate) fn of(path: &syn::Path) -> Self {
        let names = path.segments.iter().map(|segment| segment.ident.unraw().to_string()).collect();
        Self { absolute: path.leading_colon.is_some(), names }
    }

    /// This path followed by `rest`.
    pub(crate) fn join(&self, rest: &[String]) -> Self {
        Self { absolute: self.absolute, names: [&self.names, rest].concat() }
    }
}

impl std::fmt::Display for Segments {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}{}", if self.absolute { "::" } else { "" }, self.names.join("::"))
    }
}

/// What a name in a module or a block stands for.
#[derive(Clone, Debug)]
pub(crate) enum Binding {
    /// An item that is defined there.
    Item,
    /// A module: its index.
    Module(usize),
    /// The path of a `use`, private or `pub`.
    Use(Segments),
}

/// The names of a module or of a block.
#[derive(Clone, Debug, Default)]
pub(crate) struct Names {
    /// One name can be a module and a function at once.
    pub(crate) bindings: HashMap<String, Vec<Binding>>,
    /// The paths before `::*`.
    pub(crate) globs: Vec<Segments>,
}

impl Names {
    /// The names that `items` define and import, without modules and without what only tests see.
    pub(crate) fn of<'a>(items: impl IntoIterator<Item = &'a Item>) -> Self {
        let mut names = Self::default();
        for item in items {
            let (attributes, ident) = match item {
                Item::Const(item) => (&item.attrs, &item.ident),
                Item::Enum(item) => (&item.attrs, &item.ident),
                Item::Fn(item) => (&item.attrs, &item.sig.ident),
                Item::Static(item) => (&item.attrs, &item.ident),
                Item::Struct(item) => (&item.attrs, &item.ident),
                Item::Trait(item) => (&item.attrs, &item.ident),
                Item::TraitAlias(item) => (&item.attrs, &item.ident),
                Item::Type(item) => (&item.attrs, &item.ident),
                Item::Union(item) => (&item.attrs, &item.ident),
                Item::Macro(item) => match &item.ident {
                    Some(ident) => (&item.attrs, ident),
                    None => continue,
                },
                Item::ExternCrate(item) => {
                    let crate_name = item.ident.unraw().to_string();
                    let name =
                        item.rename.as_ref().map_or(crate_name.clone(), |(_, to)| to.unraw().to_string());
                    names.bind(name, Binding::Use(Segments { absolute: true, names: vec![crate_name] }));
                    continue;
                }
                Item::Use(item) => {
                    if !only_in_tests(&item.attrs) {
                        for leaf in leaves(item) {
                            match leaf.name {
                                Some(name) => names.bind(name, Binding::Use(leaf.path)),
                                None => names.globs.push(leaf.path),
                            }
                        }
                    }
                    continue;
                }
                _ => continue,
            };
            if !only_in_tests(attributes) {
                names.bind(ident.unraw().to_string(), Binding::Item);
            }
        }
        names
    }

    fn bind(&mut self, name: String, binding: Binding) {
        self.bindings.entry(name).or_default().push(binding);
    }
}

/// One name that a `use` brings into scope; all the names of a module if it has no name.
pub(crate) struct Leaf {
    pub(crate) path: Segments,
    pub(crate) name: Option<String>,
    pub(crate) line: usize,
}

/// What a `use` imports, one by one.
pub(crate) fn leaves(item: &syn::ItemUse) -> Vec<Leaf> {
    fn descend(tree: &UseTree, before: &Segments, found: &mut Vec<Leaf>) {
        let mut leaf = |ident: &syn::Ident, name: &syn::Ident| {
            let mut path = before.clone();
            // `a::{self}` is `a`.
            if *ident != "self" || path.names.is_empty() {
                path.names.push(ident.unraw().to_string());
            }
            let name =
                if *name == "self" { path.names.last().cloned() } else { Some(name.unraw().to_string()) };
            found.push(Leaf { path, name, line: ident.span().start().line });
        };
        match tree {
            UseTree::Name(tree) => leaf(&tree.ident, &tree.ident),
            UseTree::Rename(tree) => leaf(&tree.ident, &tree.rename),
            UseTree::Glob(tree) => {
                let line = tree.star_token.spans[0].start().line;
                found.push(Leaf { path: before.clone(), name: None, line });
            }
            UseTree::Path(tree) => {
                descend(&tree.tree, &before.join(&[tree.ident.unraw().to_string()]), found)
            }
            UseTree::Group(tree) => tree.items.iter().for_each(|tree| descend(tree, before, found)),
        }
    }
    let mut found = Vec::new();
    let root = Segments { absolute: item.leading_colon.is_some(), names: Vec::new() };
    descend(&item.tree, &root, &mut found);
    found
}

/// Whether an item with these attributes exists in tests only: `#[cfg(test)]`, `#[cfg(all(test, …))]`, `#[test]`.
pub(crate) fn only_in_tests(attributes: &[Attribute]) -> bool {
    fn names_test(meta: &Meta) -> bool {
        meta.path().is_ident("test")
            || (meta.path().is_ident("all") || meta.path().is_ident("cfg"))
                && meta.require_list().is_ok_and(|list| {
                    let parser = syn::punctuated::Punctuated::<Meta, syn::Token![,]>::parse_terminated;
                    list.parse_args_with(parser).is_ok_and(|inner| inner.iter().any(names_test))
                })
    }
    attributes.iter().any(|attribute| {
        let last = attribute.path().segments.last().map(|segment| segment.ident.to_string());
        names_test(&attribute.meta) || last.as_deref() == Some("test")
    })
}

pub(crate) struct File {
    /// Relative to the crate's source folder.
    pub(crate) path: String,
    pub(crate) lines: usize,
    /// Every identifier in it.
    pub(crate) words: HashSet<String>,
    /// The module whose items the file holds; none if no `mod` reaches the file.
    pub(crate) module: Option<usize>,
    pub(crate) items: Vec<Item>,
}

pub(crate) struct Module {
    /// The index of the file that holds its items.
    pub(crate) file: usize,
    pub(crate) parent: Option<usize>,
    /// The module that `crate::` names here.
    pub(crate) root: usize,
    pub(crate) names: Names,
    /// Declared under `#[cfg(test)]`.
    pub(crate) test: bool,
}

/// The sources of one package.
pub(crate) struct Source {
    pub(crate) files: Vec<File>,
    pub(crate) modules: Vec<Module>,
    /// The name by which main.rs names the library beside it, and that library's root module.
    pub(crate) library: Option<(String, usize)>,
    /// What the manifest lists, tests' dependencies left out, by the name that the code uses.
    pub(crate) dependencies: BTreeMap<String, Dependency>,
}

pub(crate) struct Dependency {
    /// As the manifest writes it.
    pub(crate) key: String,
    /// The line in the manifest.
    pub(crate) line: usize,
    /// A member of this workspace.
    pub(crate) ours: bool,
}

impl Source {
    /// Reads all sources under `root`/`src`. `src` is beside the package's manifest.
    pub(crate) fn read(root: &Path, src: &str) -> Result<Self, String> {
        let folder = root.join(src);
        let manifest = folder.parent().unwrap_or(root).join("Cargo.toml");
        let (library, dependencies) = read_manifest(root, &manifest)?;
        let mut source = Self { files: Vec::new(), modules: Vec::new(), library: None, dependencies };
        for path in rust_files(&folder)? {
            source.files.push(read_file(&folder, &path)?);
        }
        let roots: Vec<String> = source.files.iter().map(|file| file.path.clone()).collect();
        for path in roots {
            let is_program = path == "main.rs" || path.starts_with("bin/") && path.matches('/').count() == 1;
            if path == "lib.rs" || is_program {
                let module = source.load(&folder, &path, None, false)?;
                if path == "lib.rs" {
                    source.library = Some((library.clone(), module));
                }
            }
        }
        Ok(source)
    }

    /// The module and all that contain it.
    pub(crate) fn ancestors(&self, module: usize) -> impl Iterator<Item = usize> {
        std::iter::successors(Some(module), |module| self.modules[*module].parent)
    }

    /// Makes a module of a file, and modules of all that it declares.
    fn load(
        &mut self,
        folder: &Path,
        path: &str,
        parent: Option<usize>,
        test: bool,
    ) -> Result<usize, String> {
        let Some(file) = self.files.iter().position(|file| file.path == path) else {
            return Err(format!("{}: no such file, but a module declares it", folder.join(path).display()));
        };
        let (before, name) = path.rsplit_once('/').unwrap_or(("", path));
        let stem = name.trim_end_matches(".rs");
        let own_folder = parent.is_none() || stem == "mod";
        let inside = if own_folder { before.to_owned() } else { join(before, stem) };
        let items = std::mem::take(&mut self.files[file].items);
        let module = self.add(file, parent, test);
        self.files[file].module = Some(module);
        self.fill(folder, module, &items, before, &inside)?;
        self.files[file].items = items;
        Ok(module)
    }

    fn add(&mut self, file: usize, parent: Option<usize>, test: bool) -> usize {
        let module = self.modules.len();
        let root = parent.map_or(module, |parent| self.modules[parent].root);
        self.modules.push(Module { file, parent, root, names: Names::default(), test });
        module
    }

    /// Gives a module its names. `beside` is the folder of its file, from which `#[path]` counts; `inside` has
    /// the files of the modules that it declares.
    fn fill(
        &mut self,
        folder: &Path,
        module: usize,
        items: &[Item],
        beside: &str,
        inside: &str,
    ) -> Result<(), String> {
        let mut names = Names::of(items);
        for item in items {
            let Item::Mod(item) = item else { continue };
            let name = item.ident.unraw().to_string();
            let test = self.modules[module].test || only_in_tests(&item.attrs);
            let child = match (&item.content, path_attribute(&item.attrs)) {
                (Some((_, items)), path) => {
                    let child = self.add(self.modules[module].file, Some(module), test);
                    let inside = path.map_or_else(|| join(inside, &name), |path| join(beside, &path));
                    self.fill(folder, child, items, &inside, &inside)?;
                    child
                }
                (None, Some(path)) => self.load(folder, &join(beside, &path), Some(module), test)?,
                (None, None) => {
                    let flat = join(inside, &format!("{name}.rs"));
                    let is_flat = self.files.iter().any(|file| file.path == flat);
                    let path = if is_flat { flat } else { join(inside, &format!("{name}/mod.rs")) };
                    self.load(folder, &path, Some(module), test)?
                }
            };
            names.bind(name, Binding::Module(child));
        }
        self.modules[module].names = names;
        Ok(())
    }

    /// The module that an inline `mod name { }` in `module` stands for.
    pub(crate) fn child(&self, module: usize, name: &str) -> Option<usize> {
        self.modules[module].names.bindings.get(name)?.iter().find_map(|binding| match binding {
            Binding::Module(child) => Some(*child),
            _ => None,
        })
    }
}

/// `folder`/`path`, with `..` taken away.
fn join(folder: &str, path: &str) -> String {
    let mut parts: Vec<&str> = folder.split('/').filter(|part| !part.is_empty()).collect();
    for part in path.split('/') {
        match part {
            "." => {}
            ".." => _ = parts.pop(),
            part => parts.push(part),
        }
    }
    parts.join("/")
}

fn path_attribute(attributes: &[Attribute]) -> Option<String> {
    attributes.iter().find(|attribute| attribute.path().is_ident("path")).and_then(|attribute| {
        match &attribute.meta.require_name_value().ok()?.value {
            Expr::Lit(literal) => match &literal.lit {
                Lit::Str(path) => Some(path.value()),
                _ => None,
            },
            _ => None,
        }
    })
}

fn rust_files(folder: &Path) -> Result<Vec<PathBuf>, String> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        let told = |error| format!("cannot read {}: {error}", folder.display());
        for entry in fs::read_dir(&folder).map_err(told)? {
            let path = entry.map_err(told)?.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

fn read_file(folder: &Path, path: &Path) -> Result<File, String> {
    let text =
        fs::read_to_string(path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    let parsed = syn::parse_file(&text).map_err(|error| {
        format!("{}:{}: cannot be parsed: {error}", path.display(), error.span().start().line)
    })?;
    let mut words = HashSet::new();
    if let Ok(tokens) = text.parse() {
        collect_words(tokens, &mut words);
    }
    let relative = path.strip_prefix(folder).unwrap_or(path).to_string_lossy().into_owned();
    Ok(File { path: relative, lines: text.lines().count(), words, module: None, items: parsed.items })
}

fn collect_words(tokens: TokenStream, words: &mut HashSet<String>) {
    for token in tokens {
        match token {
            TokenTree::Group(group) => collect_words(group.stream(), words),
            TokenTree::Ident(ident) => _ = words.insert(ident.unraw().to_string()),
            TokenTree::Punct(_) | TokenTree::Literal(_) => {}
        }
    }
}

/// The name of the package's library, and what the package depends on.
fn read_manifest(root: &Path, path: &Path) -> Result<(String, BTreeMap<String, Dependency>), String> {
    let (text, manifest) = read_toml(path)?;
    let (_, workspace) = read_toml(&root.join("Cargo.toml"))?;
    let has_path = |value: Option<&toml::Value>| value.is_some_and(|value| value.get("path").is_some());
    let mut dependencies = BTreeMap::new();
    for section in ["dependencies", "build-dependencies"] {
        let listed = manifest.get(section).and_then(toml::Value::as_table);
        for (key, value) in listed.into_iter().flatten() {
            let shared =
                workspace.get("workspace").and_then(|it| it.get("dependencies")).and_then(|it| it.get(key));
            let inherits = value.get("workspace").and_then(toml::Value::as_bool) == Some(true);
            let line = text.lines().position(|line| {
                line.strip_prefix(key.as_str()).is_some_and(|rest| rest.starts_with(['.', ' ', '=']))
            });
            dependencies.insert(
                key.replace('-', "_"),
                Dependency {
                    key: key.clone(),
                    line: line.map_or(1, |line| line + 1),
                    ours: has_path(Some(value)) || inherits && has_path(shared),
                },
            );
        }
    }
    let name = |section: &str| manifest.get(section)?.get("name")?.as_str();
    let library = name("lib").or(name("package")).unwrap_or_default().replace('-', "_");
    Ok((library, dependencies))
}

fn read_toml(path: &Path) -> Result<(String, toml::Table), String> {
    let text =
        fs::read_to_string(path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    let table = text.parse().map_err(|error| format!("{}: {error}", path.display()))?;
    Ok((text, table))
}
