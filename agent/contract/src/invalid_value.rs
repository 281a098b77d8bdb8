//! The error of everything that parses.

/// A text that is not a valid value.
///
/// Displays as one line with the text and the expected form: `"Blue" is not valid: expected a lower-case letter, …`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{found:?} is not valid: expected {expected}")]
pub struct InvalidValue {
    /// The text as given.
    pub found: String,
    /// The expected form, to follow the word "expected".
    pub expected: &'static str,
}

impl InvalidValue {
    /// Makes the error.
    pub fn new(found: &str, expected: &'static str) -> Self {
        Self { found: found.to_owned(), expected }
    }
}
