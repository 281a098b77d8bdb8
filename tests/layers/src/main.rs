//! Holds each folder of the sources to what `tests/layers.toml` lets it import; see docs/development.md.
//!
//! Usage: `layers [--table] [REPOSITORY]`. Prints a line for each import that runs upward and each loop, and
//! then exits 1; with `--table`, prints the floors as the code's imports make them.

#![expect(clippy::disallowed_types, reason = "names are looked up; what is printed is sorted")]
#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test"))]

mod check;
mod graph;
mod imports;
mod measured;
mod resolve;
mod source;
mod table;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use check::TABLE;
use source::Source;

fn main() -> ExitCode {
    let mut print_table = false;
    let mut root = PathBuf::from(".");
    for argument in std::env::args_os().skip(1) {
        match argument.to_str() {
            Some("--table") => print_table = true,
            Some(option) if option.starts_with('-') => {
                eprintln!("layers: unknown option {option}\nusage: layers [--table] [REPOSITORY]");
                return ExitCode::from(2);
            }
            _ => root = argument.into(),
        }
    }
    match run(&root) {
        Ok(outcome) => {
            if print_table {
                print!("{}", outcome.table);
            }
            for failure in &outcome.failures {
                eprintln!("{failure}");
            }
            if outcome.failures.is_empty() {
                println!("layers: {}", outcome.summary);
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            }
        }
        Err(error) => {
            eprintln!("layers: {error}");
            ExitCode::FAILURE
        }
    }
}

struct Outcome {
    failures: Vec<String>,
    table: String,
    summary: String,
}

/// Checks every crate that the table lists.
fn run(root: &Path) -> Result<Outcome, String> {
    let path = root.join(TABLE);
    let text =
        std::fs::read_to_string(&path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    let listed = table::parse(&text).map_err(|error| format!("{TABLE}: {error}"))?;
    let names: BTreeSet<&str> = listed.iter().map(|layers| layers.name.as_str()).collect();
    let mut outcome = Outcome { failures: Vec::new(), table: String::new(), summary: String::new() };
    let (mut files, mut exceptions) = (0, 0);
    for layers in &listed {
        let src = &layers.src;
        if !root.join(&src.name).is_dir() {
            let failure =
                format!("{TABLE}:{}: {} does not exist: delete the entry, or correct it", src.line, src.name);
            outcome.failures.push(failure);
            continue;
        }
        let source = Source::read(root, &src.name)?;
        let mut report = check::check(layers, &source, &names);
        outcome.table += &measured::table(layers, &source, &report.rooms);
        outcome.failures.append(&mut report.failures);
        files += source.files.len();
        exceptions += layers.exceptions.len();
    }
    outcome.summary = format!(
        "{files} files of {} crates: no import runs upward, no loop (exceptions: {exceptions})",
        listed.len()
    );
    Ok(outcome)
}
