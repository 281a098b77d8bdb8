//! The meaning of `GET /`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::InvalidValue;

/// What an instance answers to `GET /`.
///
/// Written `health` or `seed` everywhere: in the tag [`ROOT`](crate::tags::ROOT), in the agent's
/// setting `root`, in a fleet file's `group.root`, and in what serde writes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Root {
    /// `Healthy!`, as `GET /health` does; the default.
    #[default]
    Health,
    /// The stored integer, as `GET /seed` does.
    Seed,
}

impl Root {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Health => "health",
            Self::Seed => "seed",
        }
    }
}

impl FromStr for Root {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        match text {
            "health" => Ok(Self::Health),
            "seed" => Ok(Self::Seed),
            _ => Err(InvalidValue::new(text, "health or seed")),
        }
    }
}

impl fmt::Display for Root {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_word_each_for_people_tags_and_serde() {
        for (root, word) in [(Root::Health, "health"), (Root::Seed, "seed")] {
            assert_eq!((root.as_str(), root.to_string().as_str()), (word, word));
            assert_eq!(word.parse(), Ok(root));
            let json = format!("\"{word}\"");
            assert_eq!(serde_json::to_string(&root).unwrap(), json);
            assert_eq!(serde_json::from_str::<Root>(&json).unwrap(), root);
        }
        for text in ["", "Health", "number", "seed ", "health,seed"] {
            let error = text.parse::<Root>().unwrap_err().to_string();
            assert_eq!(error, format!("{text:?} is not valid: expected health or seed"));
            assert!(serde_json::from_str::<Root>(&format!("\"{text}\"")).is_err(), "{text}");
        }
    }
}
