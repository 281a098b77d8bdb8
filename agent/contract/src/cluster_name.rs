//! Names of clusters.

use std::fmt;
use std::str::FromStr;

use crate::InvalidValue;

/// The name of a cluster, whose instances answer on the path `/NAME`.
///
/// A name [has the form](Self::has_form) `[a-z][a-z0-9-]{0,19}` and is not
/// [reserved](Self::is_reserved). It is the value of the tag [`CLUSTER`](crate::tags::CLUSTER), the
/// agent's setting `cluster`, and the name of a fleet file's group with `paths`.
///
/// ```
/// use instance_contract::ClusterName;
///
/// assert_eq!("blue-2".parse::<ClusterName>()?.as_str(), "blue-2");
/// assert!("Blue".parse::<ClusterName>().is_err(), "upper case");
/// assert!("metrics".parse::<ClusterName>().is_err(), "a path of the agent");
/// # Ok::<(), instance_contract::InvalidValue>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterName(String);

impl ClusterName {
    /// The agent's own paths, without the slash: a cluster of such a name would hide one.
    pub const RESERVED: [&str; 4] = ["health", "seed", "status", "metrics"];

    /// The name, without a slash.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether `text` has the form of a name: a lower-case ASCII letter, then at most 19 lower-case
    /// ASCII letters, digits and hyphens.
    pub fn has_form(text: &str) -> bool {
        text.len() <= 20
            && text.starts_with(|c: char| c.is_ascii_lowercase())
            && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
    }

    /// Whether `text` is one of the agent's own paths.
    pub fn is_reserved(text: &str) -> bool {
        Self::RESERVED.contains(&text)
    }
}

impl FromStr for ClusterName {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        if !Self::has_form(text) {
            let expected = "a lower-case letter, then up to 19 lower-case letters, digits and hyphens";
            return Err(InvalidValue::new(text, expected));
        }
        if Self::is_reserved(text) {
            let expected = "a name that is not one of the agent's own paths (health, seed, status, metrics)";
            return Err(InvalidValue::new(text, expected));
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for ClusterName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_a_letter_then_letters_digits_and_hyphens() {
        for name in ["a", "cluster1", "blue-2", "a-", "a--b", "abcdefghijklmnopqrst", "healthy", "seed2"] {
            assert_eq!(name.parse::<ClusterName>().unwrap().to_string(), name);
        }
        for text in [
            "",
            "1a",
            "-a",
            "A",
            "aB",
            "a_b",
            "a b",
            " a",
            "a ",
            "a/b",
            "a.b",
            "ä",
            "aé",
            "a\0",
            "abcdefghijklmnopqrstu",
        ] {
            let error = text.parse::<ClusterName>().unwrap_err();
            assert!(error.expected.starts_with("a lower-case letter, then up to 19"), "{error}");
            assert_eq!(error.found, text);
        }
    }

    #[test]
    fn no_cluster_takes_a_path_of_the_agent_and_the_error_names_them_all() {
        for path in ClusterName::RESERVED {
            assert!(ClusterName::has_form(path), "{path}");
            let error = path.parse::<ClusterName>().unwrap_err().to_string();
            assert!(ClusterName::RESERVED.iter().all(|path| error.contains(path)), "{error}");
        }
    }
}
