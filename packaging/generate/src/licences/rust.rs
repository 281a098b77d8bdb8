//! What the Rust toolchain says of its standard library, in the file that comes with every rustc.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::{Part, texts};

/// Crates that the library has for systems other than Linux alone.
const ELSEWHERE: &[&str] =
    &["fortanix-sgx-abi", "hermit-abi", "moto-rt", "r-efi", "vex-sdk", "wasi-", "windows", "wit-bindgen"];

/// The parts of the standard library.
pub(super) fn library() -> Result<Vec<Part>> {
    let sysroot = Command::new("rustc").args(["--print", "sysroot"]).output().context("rustc")?;
    let version = Command::new("rustc").arg("--version").output().context("rustc")?;
    let sysroot = String::from_utf8(sysroot.stdout)?;
    let folder = Path::new(sysroot.trim()).join("share/doc/rust");
    let path = folder.join("COPYRIGHT-library.html");
    let page = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let version = String::from_utf8(version.stdout)?;
    let version = version.split_whitespace().nth(1).unwrap_or_default();
    let (tree, crates) = page
        .split_once("id=\"out-of-tree-dependencies\"")
        .with_context(|| format!("{}: not the page it was", path.display()))?;

    let mut parts = Vec::new();
    for block in tree.split("<b>File/Directory:</b>").skip(1) {
        let place = between(block, "<code>", "</code>").context("a file without a name")?;
        let place = if place == "." { "" } else { &place };
        parts.push(part(&format!("Rust {version} {place}"), block, &folder)?);
    }
    for block in crates.split("<h3>").skip(1) {
        let name = block.split("</h3>").next().unwrap_or_default();
        let name = name.trim_start_matches(|c: char| !c.is_ascii_alphanumeric()).trim();
        if !ELSEWHERE.iter().any(|elsewhere| name.starts_with(elsewhere)) {
            parts.push(part(&format!("{name} (in Rust {version})"), block, &folder)?);
        }
    }
    if parts.len() < 5 {
        bail!("{}: not the page it was", path.display());
    }
    Ok(parts)
}

/// One block of the page: a licence, lines of copyright, perhaps texts.
fn part(name: &str, block: &str, folder: &Path) -> Result<Part> {
    let licence = between(block, "<b>License:</b>", "</p>").with_context(|| format!("{name}: no licence"))?;
    let mut texts: Vec<String> = block
        .split("<pre>")
        .skip(1)
        .filter_map(|rest| rest.split("</pre>").next())
        .map(|text| texts::without_apache(&unescape(text)))
        .collect();
    let holders: Vec<String> = block
        .split("<b>Copyright:</b>")
        .skip(1)
        .filter_map(|rest| rest.split("</p>").next())
        .map(|holder| format!("Copyright (c) {}", unescape(holder).trim()))
        .collect();
    if texts.is_empty() {
        // The toolchain has the texts of the licences that its own files are under.
        for id in licence.split([' ', '(', ')']).filter(|word| word.contains('-') || *word == "MIT") {
            let path = folder.join("licenses").join(format!("{id}.txt"));
            let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
            texts.push(texts::without_apache(&text));
        }
        if let Some(first) = texts.first_mut() {
            *first = format!("{}\n\n{first}", holders.join("\n"));
        }
    }
    Ok(Part { name: name.trim().to_owned(), licence, texts })
}

fn between(text: &str, begin: &str, end: &str) -> Option<String> {
    let (_, rest) = text.split_once(begin)?;
    Some(unescape(rest.split_once(end)?.0.trim()))
}

fn unescape(text: &str) -> String {
    text.replace("&#60;", "<")
        .replace("&#62;", ">")
        .replace("&#34;", "\"")
        .replace("&#39;", "'")
        .replace("&#38;", "&")
}
