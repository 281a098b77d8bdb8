//! The Debian changelog, from CHANGELOG.md.

use anyhow::{Result, bail};

use crate::text::wrap;

/// Who makes the packages; agent/Cargo.toml and bootstrap/Cargo.toml have the same.
const MAINTAINER: &str = "The instance-agent maintainers <maintainers@instance-agent.invalid>";

/// One entry, for `version`: what CHANGELOG.md says of its newest version, released or not. The
/// older ones are there under their own dates, which have no time of day; the tree has them all.
pub(crate) fn debian(changes: &str, package: &str, version: &str, date: &str) -> Result<String> {
    let mut text = format!("{package} ({version}) unstable; urgency=medium\n\n");
    let mut items = 0;
    for item in newest(changes) {
        text.push_str(&wrap(&item, "  * ", "    "));
        items += 1;
    }
    if items == 0 {
        bail!("CHANGELOG.md: no list under the newest version");
    }
    text.push_str(&format!("\n -- {MAINTAINER}  {date}\n"));
    Ok(text)
}

/// The newest version's list items, each in one line.
fn newest(changes: &str) -> Vec<String> {
    let mut items: Vec<String> = Vec::new();
    let mut versions = 0;
    let mut open = false;
    for line in changes.lines() {
        if line.starts_with("## ") {
            // An empty [Unreleased] above the newest version does not count.
            if !items.is_empty() {
                break;
            }
            versions += 1;
            open = false;
        } else if let Some(item) = line.strip_prefix("- ").filter(|_| versions > 0) {
            items.push(item.trim().to_owned());
            open = true;
        } else if open && line.starts_with("  ") {
            if let Some(item) = items.last_mut() {
                item.push(' ');
                item.push_str(line.trim());
            }
        } else {
            open = false;
        }
    }
    items
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;

    const CHANGES: &str = "# Changelog\n\n- no change\n\n## [Unreleased]\n\n## [0.2.0] - 2026-01-31\n\n### Added\n\n\
        - One thing,\n  in two lines.\n- Another.\n\nText that is no item.\n\n## [0.1.0] - 2026-01-01\n\n- Older.\n";

    #[test]
    fn the_entry_has_the_newest_versions_items() {
        let text = debian(CHANGES, "p", "0.2.0", "Sat, 31 Jan 2026 00:00:00 +0000").unwrap();
        let expected =
            "p (0.2.0) unstable; urgency=medium\n\n  * One thing, in two lines.\n  * Another.\n\n -- ";
        assert!(text.starts_with(expected), "{text}");
        assert!(text.ends_with(">  Sat, 31 Jan 2026 00:00:00 +0000\n"), "{text}");
    }

    #[test]
    fn a_changelog_without_items_is_an_error() {
        assert!(debian("# Changelog\n\n## [Unreleased]\n", "p", "1", "now").is_err());
    }
}
