//! The integer, stored as its digits so that none is ever lost.

use std::fmt;

use bytes::Bytes;
use serde::de::{Deserializer, Error as _, IgnoredAny, MapAccess, Visitor};
use serde_json::error::Category;
use serde_json::value::RawValue;

/// The most digits of a seed, without its sign: Python's default limit for converting text to an integer.
pub(crate) const MAX_DIGITS: usize = 4_300;

/// An integer in its canonical decimal form: no leading zeros, no `+`, no `-0`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seed(Bytes);

impl Seed {
    /// The seed of a new instance.
    pub(crate) fn zero() -> Self {
        Self(Bytes::from_static(b"0"))
    }

    /// Reads the seed from a request's body: a JSON object with an integer `num`.
    ///
    /// If `num` is repeated, the last one counts; other keys are ignored. The digits come from the text of the
    /// body, so no float or machine integer ever rounds them.
    pub(crate) fn from_json_body(body: &[u8]) -> Result<Self, SeedError> {
        // Checked first: serde_json does not check the strings that it skips.
        let not_an_object = |found| SeedError::NotAnObject { found };
        let body =
            std::str::from_utf8(body).map_err(|_| not_an_object("the body is not UTF-8 text".to_owned()))?;
        let mut json = serde_json::Deserializer::from_str(body);
        let num = json
            .deserialize_map(NumVisitor)
            .and_then(|num| json.end().map(|()| num))
            .map_err(|error| not_an_object(found(body, &error)))?
            .ok_or(SeedError::Missing)?;
        let text = num.get();
        let digits = text.strip_prefix('-').unwrap_or(text);
        if !digits.bytes().all(|b| b.is_ascii_digit()) {
            return Err(SeedError::NotAnInteger);
        }
        if digits.len() > MAX_DIGITS {
            return Err(SeedError::TooLong { digits: digits.len() });
        }
        if text == "-0" {
            return Ok(Self::zero());
        }
        Ok(Self(Bytes::copy_from_slice(text.as_bytes())))
    }

    /// Reads a seed's canonical form; `None` for anything else.
    pub(super) fn from_canonical(text: &[u8]) -> Option<Self> {
        let digits = text.strip_prefix(b"-").unwrap_or(text);
        let shaped = match digits {
            [b'0'] => text == digits,
            [b'1'..=b'9', rest @ ..] => rest.iter().all(u8::is_ascii_digit),
            _ => false,
        };
        (shaped && digits.len() <= MAX_DIGITS).then(|| Self(Bytes::copy_from_slice(text)))
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    pub(crate) fn into_bytes(self) -> Bytes {
        self.0
    }
}

/// Why a body contains no seed: one line that shows the right form.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SeedError {
    /// Not JSON, or JSON but not an object.
    #[error("send a JSON object such as {{\"num\": 100}}: {found}")]
    NotAnObject { found: String },
    /// An object without the key.
    #[error("the JSON object has no key \"num\": send an object such as {{\"num\": 100}}")]
    Missing,
    /// A `num` of another kind, or a number in another notation.
    #[error(
        "\"num\" is not an integer: send plain digits without quotes, point or exponent, such as {{\"num\": 100}}"
    )]
    NotAnInteger,
    #[error("\"num\" has {digits} digits: send at most {MAX_DIGITS} digits, such as {{\"num\": 100}}")]
    TooLong { digits: usize },
}

/// Describes a body that is not a JSON object.
fn found(body: &str, error: &serde_json::Error) -> String {
    let what = match body.trim_start().bytes().next() {
        None => return "the body is empty".to_owned(),
        Some(b'[') => "a list",
        Some(b'"') => "a string",
        Some(b't' | b'f') => "true or false",
        Some(b'n') => "null",
        _ => "a number",
    };
    match error.classify() {
        Category::Data => format!("the body is {what}"),
        Category::Eof => "the body is cut off".to_owned(),
        _ => format!("the body is not valid JSON at line {}, column {}", error.line(), error.column()),
    }
}

/// Finds the last `num` of an object. Written by hand because a derived struct refuses repeated keys.
struct NumVisitor;

impl<'de> Visitor<'de> for NumVisitor {
    type Value = Option<&'de RawValue>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut num = None;
        while let Some(key) = map.next_key::<Key>()? {
            match key {
                Key::Num => num = Some(map.next_value::<&RawValue>()?),
                Key::Other => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(num)
    }
}

/// A key with JSON escapes resolved: `"\u006eum"` is `num` too.
enum Key {
    Num,
    Other,
}

impl<'de> serde::Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(json: D) -> Result<Self, D::Error> {
        struct KeyVisitor;
        impl Visitor<'_> for KeyVisitor {
            type Value = Key;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a key")
            }

            fn visit_str<E: serde::de::Error>(self, key: &str) -> Result<Key, E> {
                Ok(if key == "num" { Key::Num } else { Key::Other })
            }
        }
        json.deserialize_str(KeyVisitor).map_err(D::Error::custom)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;

    fn parse(body: &str) -> Result<String, SeedError> {
        Seed::from_json_body(body.as_bytes()).map(|seed| String::from_utf8(seed.as_bytes().to_vec()).unwrap())
    }

    #[test]
    fn integers_keep_every_digit() {
        for text in ["0", "7", "-1", "100", "18446744073709551616", "-123456789012345678901234567890"] {
            assert_eq!(parse(&format!(r#"{{"num": {text}}}"#)).unwrap(), text);
        }
        let longest = "9".repeat(MAX_DIGITS);
        assert_eq!(parse(&format!(r#"{{"num":{longest}}}"#)).unwrap(), longest);
        assert_eq!(parse(&format!(r#"{{"num":-{longest}}}"#)).unwrap(), format!("-{longest}"));
    }

    #[test]
    fn minus_zero_is_zero() {
        assert_eq!(parse(r#"{"num": -0}"#).unwrap(), "0");
    }

    #[test]
    fn one_digit_too_many_is_refused() {
        let digits = "1".repeat(MAX_DIGITS + 1);
        for sign in ["", "-"] {
            assert_eq!(
                parse(&format!(r#"{{"num":{sign}{digits}}}"#)),
                Err(SeedError::TooLong { digits: MAX_DIGITS + 1 })
            );
        }
    }

    #[test]
    fn the_last_num_counts_and_other_keys_do_not() {
        assert_eq!(parse(r#"{"num": 1, "num": 2}"#).unwrap(), "2");
        assert_eq!(parse(r#"{"num": "x", "num": 2}"#).unwrap(), "2");
        assert_eq!(parse(r#"{"num": 2, "num": "x"}"#), Err(SeedError::NotAnInteger));
        assert_eq!(parse(r#"{"a": {"num": 5}, "num": 2, "b": [1.5, null, "\ud83d\ude00"]}"#).unwrap(), "2");
        assert_eq!(parse(r#" { "\u006eum" : 3 } "#).unwrap(), "3");
    }

    #[test]
    fn other_notations_are_not_integers() {
        for value in ["1.0", "1e3", "1E3", "\"100\"", "true", "null", "[1]", "{}", "0.0", "-0.0"] {
            assert_eq!(parse(&format!(r#"{{"num": {value}}}"#)), Err(SeedError::NotAnInteger), "{value}");
        }
    }

    #[test]
    fn other_bodies_are_not_objects() {
        for body in [
            "",
            "100",
            "[]",
            "null",
            "{",
            "{\"num\": 1} x",
            "num=100",
            "{\"num\": 01}",
            "{\"num\": +1}",
            "{num: 1}",
            "{\"num\": NaN}",
        ] {
            assert!(matches!(parse(body), Err(SeedError::NotAnObject { .. })), "{body}");
        }
        for (body, found) in [
            (" \n", "the body is empty"),
            ("[1]", "the body is a list"),
            ("100", "the body is a number"),
            ("-1", "the body is a number"),
            ("\"100\"", "the body is a string"),
            ("true", "the body is true or false"),
            ("null", "the body is null"),
            ("{\"num\": 1", "the body is cut off"),
            ("{\n \"num\": x}", "the body is not valid JSON at line 2, column 9"),
            ("num=100", "the body is not valid JSON at line 1, column 3"),
        ] {
            let said = parse(body).unwrap_err().to_string();
            assert_eq!(said, format!("send a JSON object such as {{\"num\": 100}}: {found}"));
        }
        assert_eq!(parse("{}"), Err(SeedError::Missing));
        assert!(Seed::from_json_body(b"{\"num\": 1, \"\xff\": 2}").is_err());
    }

    #[test]
    fn every_error_is_one_line_that_shows_the_right_form() {
        for body in ["", "{}", "{\"num\": true}", &format!("{{\"num\": {}}}", "1".repeat(5_000))] {
            let text = parse(body).unwrap_err().to_string();
            assert!(text.contains(r#"{"num": 100}"#) && !text.contains('\n'), "{text}");
        }
    }

    #[test]
    fn only_the_canonical_form_reads_back() {
        for text in ["0", "10", "-1"] {
            assert_eq!(Seed::from_canonical(text.as_bytes()).unwrap().as_bytes(), text.as_bytes());
        }
        for text in ["", "-", "-0", "00", "01", "+1", "1 ", "1.0", "x"] {
            assert_eq!(Seed::from_canonical(text.as_bytes()), None, "{text}");
        }
    }
}
