//! `copyright`: the licences of everything that is linked into a program.
//!
//! Where a choice of licences holds Apache-2.0, that is the one taken: it is our own, and Debian has
//! its text. Every other licence comes with its text, each text once.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::licences::texts::Texts;
use crate::text::{sorted, wrap};

mod rust;
mod texts;

/// Something linked in.
#[derive(Clone, Debug)]
struct Part {
    /// Name and version.
    name: String,
    /// Its licence, as an SPDX expression.
    licence: String,
    /// Its licence files.
    texts: Vec<String>,
}

/// What cargo knows of the workspace's dependencies.
pub(crate) struct Linked {
    metadata: Value,
    /// The standard library's parts, and what the target adds.
    everywhere: Vec<Part>,
    /// Texts for crates that come without, by the crate's name.
    supplements: BTreeMap<String, String>,
}

impl Linked {
    /// Asks cargo, and reads what the Rust that builds the programs says of its library.
    pub(crate) fn read(root: &Path, target: &str) -> Result<Self> {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let output = Command::new(cargo)
            .args(["metadata", "--format-version", "1", "--locked", "--filter-platform", target])
            .current_dir(root)
            .output()
            .context("cargo metadata")?;
        if !output.status.success() {
            bail!("cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
        }
        let mut supplements = BTreeMap::new();
        for entry in fs::read_dir(root.join("packaging/licences"))? {
            let path = entry?.path();
            let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            supplements.insert(name, fs::read_to_string(&path)?);
        }
        let musl = supplements.remove("musl").context("packaging/licences/musl.txt")?;
        let mut everywhere = rust::library()?;
        everywhere.push(Part { name: "musl".to_owned(), licence: "MIT".to_owned(), texts: vec![musl] });
        Ok(Self { metadata: serde_json::from_slice(&output.stdout)?, everywhere, supplements })
    }

    /// The file `copyright` of one package.
    pub(crate) fn copyright(&self, package: &str, binary: &str) -> Result<String> {
        let crate_name = if package == "instance-agent" { package } else { binary };
        let mut apache = Vec::new();
        let mut texts = Texts::default();
        let crates = self.crates(crate_name)?;
        for part in crates.iter().chain(&self.everywhere) {
            match choose(&part.licence) {
                Choice::Apache => apache.push(part),
                Choice::Texts => {
                    let other = part.texts.iter().filter(|text| !texts::is_apache_alone(text));
                    let other: Vec<&String> = other.collect();
                    if other.is_empty() {
                        bail!(
                            "{} ({}) comes without its licence's text: add it as packaging/licences/NAME.txt",
                            part.name,
                            part.licence
                        );
                    }
                    for text in other {
                        texts.add(&part.name, &part.licence, text);
                    }
                }
            }
        }
        let mut file = head(package, binary);
        file.push_str("\nUnder the Apache License 2.0, by choice where others are offered too:\n\n");
        file.push_str(&wrap(&sorted(apache.iter().map(|part| part.name.as_str())).join(", "), "  ", "  "));
        let holders: BTreeSet<String> =
            apache.iter().flat_map(|part| &part.texts).flat_map(|text| texts::holders(text)).collect();
        file.push_str("\nWhat these say of their copyright:\n\n");
        for holder in holders {
            file.push_str(&wrap(&holder, "  ", "    "));
        }
        // A notice has to be passed on also under Apache-2.0.
        for part in apache {
            for notice in part.texts.iter().filter(|text| texts::is_notice(text)) {
                texts.add(&part.name, "notice", notice);
            }
        }
        file.push_str(&texts.print());
        Ok(file)
    }

    /// Every crate that is linked into a program: its dependencies and theirs, but for those that
    /// only build it.
    fn crates(&self, root: &str) -> Result<Vec<Part>> {
        let list = |value: &Value, key: &str| value[key].as_array().cloned().unwrap_or_default();
        let text = |value: &Value, key: &str| value[key].as_str().unwrap_or_default().to_owned();
        let packages: BTreeMap<String, Value> =
            list(&self.metadata, "packages").into_iter().map(|p| (text(&p, "id"), p)).collect();
        let nodes: BTreeMap<String, Value> =
            list(&self.metadata["resolve"], "nodes").into_iter().map(|n| (text(&n, "id"), n)).collect();
        let own = |package: &Value| package["source"].is_null();
        let first = packages
            .iter()
            .find(|(_, package)| own(package) && text(package, "name") == root)
            .with_context(|| format!("no crate {root}"))?;
        let mut unused: BTreeSet<&String> = self.supplements.keys().collect();
        let mut seen = BTreeSet::new();
        let mut to_see = vec![first.0.clone()];
        let mut parts = Vec::new();
        while let Some(id) = to_see.pop() {
            if !seen.insert(id.clone()) {
                continue;
            }
            let package = packages.get(&id).with_context(|| id.clone())?;
            let kinds = list(package, "targets").into_iter().flat_map(|target| list(&target, "kind"));
            if kinds.into_iter().any(|kind| kind == "proc-macro") {
                continue;
            }
            for dependency in list(&nodes[&id], "deps") {
                if list(&dependency, "dep_kinds").iter().any(|kind| kind["kind"].is_null()) {
                    to_see.push(text(&dependency, "pkg"));
                }
            }
            if own(package) {
                continue;
            }
            let name = text(package, "name");
            let manifest = text(package, "manifest_path");
            let mut texts = texts::of_crate(Path::new(&manifest).parent().context("no folder")?)?;
            if let Some((supplement, text)) = self.supplements.get_key_value(&name) {
                unused.remove(supplement);
                if !texts.is_empty() {
                    bail!("{name} has its licence's text now: packaging/licences/{name}.txt can go");
                }
                texts.push(text.clone());
            }
            let version = text(package, "version");
            parts.push(Part { name: format!("{name} {version}"), licence: text(package, "license"), texts });
        }
        // The launcher links less; what the agent does not need, nothing does.
        if root == "instance-agent" && !unused.is_empty() {
            bail!("packaging/licences has texts of crates that are not linked in: {unused:?}");
        }
        parts.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(parts)
    }
}

enum Choice {
    /// By reference to the text that Debian has.
    Apache,
    /// By the text that the part came with.
    Texts,
}

/// Which licence of an SPDX expression is taken. Whoever says AND wants all of them.
fn choose(expression: &str) -> Choice {
    let mut offers = expression.split([' ', '/', '(', ')']).filter(|word| !word.is_empty());
    let all = expression.contains(" AND ");
    if !all && offers.any(|offer| offer == "Apache-2.0") { Choice::Apache } else { Choice::Texts }
}

fn head(package: &str, binary: &str) -> String {
    let mut head = format!("{package}\n\nCopyright 2026 The instance-agent maintainers\n\n");
    head.push_str(&wrap(
        "Licensed under the Apache License, Version 2.0: you may not use it except in compliance with the \
         License. On Debian systems the full text is in /usr/share/common-licenses/Apache-2.0.",
        "",
        "",
    ));
    head.push('\n');
    head.push_str(&wrap(
        &format!(
            "The program {binary} is linked statically. It holds what follows, under the licences given; \
             the crates are on crates.io under their names."
        ),
        "",
        "",
    ));
    head
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use serde_json::json;

    use super::*;

    /// A program that links `b`, which is built with `c`.
    fn linked(folder: &Path, licence: &str) -> Linked {
        let package = |name: &str, source: Value| {
            json!({
                "id": name, "name": name, "version": "1.0.0", "license": licence, "source": source,
                "manifest_path": folder.join(name).join("Cargo.toml"), "targets": [{"kind": ["lib"]}],
            })
        };
        for name in ["b", "c"] {
            fs::create_dir(folder.join(name)).unwrap();
        }
        let node = |id: &str, deps: Value| json!({"id": id, "deps": deps});
        let metadata = json!({
            "packages": [
                package("instance-agent", Value::Null), package("b", json!("registry")), package("c", json!("registry")),
            ],
            "resolve": {"nodes": [
                node("instance-agent", json!([{"pkg": "b", "dep_kinds": [{"kind": null}]}])),
                node("b", json!([{"pkg": "c", "dep_kinds": [{"kind": "build"}]}])),
                node("c", json!([])),
            ]},
        });
        Linked { metadata, everywhere: Vec::new(), supplements: BTreeMap::new() }
    }

    #[test]
    fn a_crate_without_its_licences_text_is_an_error_until_we_have_it() {
        let folder = tempfile::tempdir().unwrap();
        let mut linked = linked(folder.path(), "MIT");
        let error = linked.copyright("instance-agent", "instance-agent").unwrap_err().to_string();
        assert!(error.contains("b 1.0.0 (MIT)") && error.contains("packaging/licences"), "{error}");
        linked.supplements.insert("b".to_owned(), "Do what you want.".to_owned());
        let copyright = linked.copyright("instance-agent", "instance-agent").unwrap();
        assert!(copyright.contains("b 1.0.0:\n\n  Do what you want."), "{copyright}");
        assert!(!copyright.contains("c 1.0.0"), "what only builds it is not linked in: {copyright}");
        // Nothing that is no longer needed stays behind.
        fs::write(folder.path().join("b/LICENSE"), "Do what you want.").unwrap();
        let error = linked.copyright("instance-agent", "instance-agent").unwrap_err().to_string();
        assert!(error.contains("can go"), "{error}");
    }

    #[test]
    fn apache_is_taken_where_it_is_offered() {
        for offered in [
            "Apache-2.0",
            "MIT OR Apache-2.0",
            "MIT/Apache-2.0",
            "Apache-2.0 WITH LLVM-exception OR Apache-2.0 OR MIT",
        ] {
            assert!(matches!(choose(offered), Choice::Apache), "{offered}");
        }
        for other in ["MIT", "Apache-2.0 AND ISC", "(MIT OR Apache-2.0) AND Unicode-3.0", "ISC OR MIT"] {
            assert!(matches!(choose(other), Choice::Texts), "{other}");
        }
    }
}
