//! The error of everything that parses.

/// A text that is no value of the kind that was expected.
///
/// It displays as one line that names both: `"Blue" is not valid: expected a lower-case letter, …`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{found:?} is not valid: expected {expected}")]
pub struct InvalidValue {
    /// The text as given.
    pub found: String,
    /// The values that would have been accepted, to follow the word "expected".
    pub expected: &'static str,
}

impl InvalidValue {
    /// The error for `found` where `expected` would have been accepted.
    pub fn new(found: &str, expected: &'static str) -> Self {
        Self { found: found.to_owned(), expected }
    }
}
