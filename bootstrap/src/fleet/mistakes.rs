//! The mistakes of a fleet file: readers add to one list, so that one run reports all of them.

use std::cell::RefCell;
use std::fmt;
use std::ops::Range;

use instance_contract::{nearest, one_line};

use super::toml_syntax::{Unreadable, header};

/// A mistake is shown to this length, in characters.
const LONGEST: usize = 600;

/// A fleet file that cannot be used: all its mistakes in the order of lines, each in a line of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FleetError(Vec<String>);

impl fmt::Display for FleetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("\n"))
    }
}

impl std::error::Error for FleetError {}

/// Stands for a value whose mistake is in the list: checks that need the value stay silent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reported;

/// A file under interpretation, and the mistakes found so far.
pub(super) struct Reading<'a> {
    /// The file's path, or a built-in fleet's name.
    pub(super) file: &'a str,
    text: &'a str,
    unreadable: Vec<Unreadable>,
    mistakes: RefCell<Vec<(usize, String)>>,
}

impl<'a> Reading<'a> {
    pub(super) fn new(file: &'a str, text: &'a str, unreadable: Vec<Unreadable>) -> Self {
        Self { file, text, unreadable, mistakes: RefCell::default() }
    }

    /// The line of this place, from 1.
    pub(super) fn line(&self, offset: usize) -> usize {
        let before = self.text.as_bytes().get(..offset).unwrap_or(self.text.as_bytes());
        before.iter().filter(|byte| **byte == b'\n').count() + 1
    }

    /// The lines of the table whose header is in this line: up to the next header.
    pub(super) fn lines_of_table(&self, first: usize) -> Range<usize> {
        let mut lines = self.text.split('\n').enumerate().map(|(index, line)| (index + 1, line));
        let next = lines.find(|(number, line)| *number > first && header(line).is_some());
        first..next.map_or(usize::MAX, |(number, _)| number)
    }

    /// Whether TOML's grammar was violated where this key, or one nearly of its name, is set within these lines.
    pub(super) fn is_unreadable(&self, key: &str, lines: &Range<usize>) -> bool {
        let is_meant = |slip: &Unreadable| slip.key == key || nearest(&slip.key, [key]).is_some();
        self.unreadable.iter().any(|slip| (slip.is_table || lines.contains(&slip.line)) && is_meant(slip))
    }

    /// Adds a mistake.
    pub(super) fn report(&self, line: usize, message: impl fmt::Display) -> Reported {
        self.mistakes.borrow_mut().push((line, message.to_string()));
        Reported
    }

    /// Whether something in this line is reported already.
    pub(super) fn has_mistake_in(&self, line: usize) -> bool {
        self.mistakes.borrow().iter().any(|(other, _)| *other == line)
    }

    pub(super) fn has_mistakes(&self) -> bool {
        !self.mistakes.borrow().is_empty()
    }

    /// All mistakes, in the order of lines.
    pub(super) fn into_error(self) -> FleetError {
        let mut mistakes = self.mistakes.into_inner();
        mistakes.sort_by_key(|(line, _)| *line);
        let show = |(line, message)| one_line(&format!("{}:{line}: {message}", self.file), LONGEST);
        let mut lines: Vec<_> = mistakes.into_iter().map(show).collect();
        // Two items of a list in one line can be wrong in the same way.
        lines.dedup();
        FleetError(lines)
    }
}
