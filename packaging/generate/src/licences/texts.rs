//! Licence texts: found beside a crate, told apart, and printed once each.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use crate::text::{sorted, wrap};

/// What stands in for the Apache License inside a longer text.
const APACHE: &str = "[The Apache License, Version 2.0, as in /usr/share/common-licenses/Apache-2.0]";

/// The licence files in a crate's folder.
pub(super) fn of_crate(folder: &Path) -> Result<Vec<String>> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
        let named = ["licen", "copying", "copyright", "notice", "unlicense"];
        if path.is_file() && named.iter().any(|begin| name.starts_with(begin)) {
            paths.push(path);
        }
    }
    paths.sort();
    paths
        .iter()
        .map(|path| {
            let text = fs::read(path).with_context(|| path.display().to_string())?;
            Ok(without_apache(&String::from_utf8_lossy(&text)))
        })
        .collect()
}

/// Replaces the Apache License by a reference to it.
pub(super) fn without_apache(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    let begins = |index: usize| {
        lines[index].trim() == "Apache License"
            && lines.get(index + 1).is_some_and(|next| next.trim().starts_with("Version 2.0"))
    };
    let Some(first) = (0..lines.len()).find(|index| begins(*index)) else {
        return text.to_owned();
    };
    let Some(end) = (first..lines.len()).find(|index| lines[*index].trim() == "END OF TERMS AND CONDITIONS")
    else {
        return text.to_owned();
    };
    // The appendix on how to apply it ends with "limitations under the License."
    let appendix = (end + 1..lines.len()).find(|index| lines[*index].trim().starts_with("APPENDIX:"));
    let last = appendix
        .and_then(|from| {
            (from..lines.len()).find(|index| lines[*index].trim() == "limitations under the License.")
        })
        .unwrap_or(end);
    let kept = lines[..first].iter().chain([&APACHE]).chain(&lines[last + 1..]);
    kept.copied().collect::<Vec<_>>().join("\n")
}

/// Whether a text is the Apache License and nothing else.
pub(super) fn is_apache_alone(text: &str) -> bool {
    text.trim() == APACHE
}

/// Whether a text is a notice in the sense of the Apache License.
pub(super) fn is_notice(text: &str) -> bool {
    text.trim_start().to_ascii_lowercase().starts_with("notice")
}

/// The lines that name who holds the copyright.
pub(super) fn holders(text: &str) -> Vec<String> {
    text.lines().map(str::trim).filter(|line| is_holder(line)).map(str::to_owned).collect()
}

fn is_holder(line: &str) -> bool {
    let line = line.trim().to_lowercase();
    let claims = line.starts_with("copyright (c)")
        || line.starts_with('©')
        || line.strip_prefix("copyright").is_some_and(|rest| {
            rest.trim_start_matches([' ', '©']).starts_with(|first: char| first.is_ascii_digit())
        });
    // The form that the Apache License's appendix leaves to be filled in.
    claims && !line.contains("yyyy")
}

/// Texts and who came with them; texts that differ only in whose copyright they name are one.
#[derive(Default)]
pub(super) struct Texts(BTreeMap<String, Entry>);

struct Entry {
    text: String,
    licences: BTreeSet<String>,
    names: BTreeSet<String>,
    holders: BTreeSet<String>,
}

impl Texts {
    pub(super) fn add(&mut self, name: &str, licence: &str, text: &str) {
        let body: Vec<&str> = text.lines().filter(|line| !is_holder(line) && !is_title(line)).collect();
        let body = body.join("\n");
        let key = body.split_whitespace().collect::<Vec<_>>().join(" ");
        let entry = self.0.entry(key).or_insert_with(|| Entry {
            text: body.trim_matches('\n').to_owned(),
            licences: BTreeSet::new(),
            names: BTreeSet::new(),
            holders: BTreeSet::new(),
        });
        entry.licences.insert(licence.to_owned());
        entry.names.insert(name.to_owned());
        entry.holders.extend(holders(text));
    }

    pub(super) fn print(&self) -> String {
        let mut printed = String::new();
        // Those that most came with first.
        let mut entries: Vec<&Entry> = self.0.values().collect();
        entries.sort_by_key(|entry| (std::cmp::Reverse(entry.names.len()), entry.names.clone()));
        for entry in entries {
            printed.push_str("\n----------------------------------------------------------------------\n\n");
            let names = sorted(entry.names.iter().map(String::as_str)).join(", ");
            printed.push_str(&wrap(&format!("{names}:"), "", "  "));
            for holder in &entry.holders {
                printed.push_str(&wrap(holder, "  ", "    "));
            }
            printed.push('\n');
            for line in entry.text.lines() {
                printed.push_str(format!("  {line}").trim_end());
                printed.push('\n');
            }
        }
        printed
    }
}

/// A heading that some copies of the MIT licence have and others lack.
fn is_title(line: &str) -> bool {
    matches!(line.trim(), "MIT License" | "The MIT License (MIT)" | "The MIT License")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_apache_license_is_told_from_what_stands_around_it() {
        let licence = "  Apache License\n Version 2.0, January 2004\nwords\n END OF TERMS AND CONDITIONS\n\n \
            APPENDIX: How to\n  Copyright [yyyy] [name of copyright owner]\n limitations under the License.\n";
        assert!(is_apache_alone(&without_apache(licence)));
        let more = without_apache(&format!("Before\n{licence}After\n"));
        assert_eq!(more, format!("Before\n{APACHE}\nAfter"));
        assert!(!is_apache_alone(&more));
        assert_eq!(without_apache("MIT"), "MIT");
    }

    #[test]
    fn who_holds_the_copyright_is_told_from_talk_of_it() {
        let text = "Copyright (c) 2020 A\n  copyright 2021-2022 B\n© C\nCopyright © 2023 D\nCopyright notice\n\
            Copyright {yyyy} {name}\nThe above copyright (c) notice";
        assert_eq!(
            holders(text),
            ["Copyright (c) 2020 A", "copyright 2021-2022 B", "© C", "Copyright © 2023 D"]
        );
    }

    #[test]
    fn texts_that_differ_in_names_alone_are_printed_once() {
        let mut texts = Texts::default();
        texts.add("a 1", "MIT", "MIT License\n\nCopyright (c) 2020 A\n\nDo what\nyou want.\n");
        texts.add("b 2", "MIT", "Copyright (c) 2021 B\n\nDo what you\nwant.\n");
        texts.add("c 3", "ISC", "Do other things.\n");
        let printed = texts.print();
        assert!(
            printed.contains("a 1, b 2:\n  Copyright (c) 2020 A\n  Copyright (c) 2021 B\n\n"),
            "{printed}"
        );
        assert_eq!(printed.matches("you").count(), 1, "{printed}");
        assert!(printed.contains("c 3:\n\n  Do other things."), "{printed}");
    }
}
