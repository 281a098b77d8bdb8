//! Durations as people write them: `500ms`, `2s`, `5m`, `1h`.

use std::time::Duration;

/// Reads a duration: a whole number and one of the units `ms`, `s`, `m`, `h`.
///
/// # Errors
/// What was expected, in one line.
pub fn parse(text: &str) -> Result<Duration, String> {
    let expected = || format!("{text:?} is not a duration such as 500ms, 2s, 5m or 1h");
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| expected())?;
    let duration = match unit {
        "ms" => Some(Duration::from_millis(number)),
        "s" => Some(Duration::from_secs(number)),
        "m" => number.checked_mul(60).map(Duration::from_secs),
        "h" => number.checked_mul(3600).map(Duration::from_secs),
        _ => None,
    };
    // A year is more than anything here can mean, and keeps sums with clocks from overflowing.
    let year = Duration::from_secs(366 * 86_400);
    duration.filter(|duration| *duration <= year).ok_or_else(expected)
}

/// Writes a duration as [`parse`] reads it, in seconds where they are whole.
pub fn format(duration: Duration) -> String {
    match duration.subsec_nanos() {
        0 => format!("{}s", duration.as_secs()),
        _ => format!("{}ms", duration.as_millis()),
    }
}

/// Durations as texts in what serde writes and reads.
pub(crate) mod text {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer, de};

    pub(crate) fn serialize<S: Serializer>(duration: &Duration, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&super::format(*duration))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        super::parse(&String::deserialize(from)?).map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_a_number_and_a_unit() {
        assert_eq!(parse("500ms"), Ok(Duration::from_millis(500)));
        for text in ["0s", "300s", "1500ms"] {
            assert_eq!(parse(text).map(format).as_deref(), Ok(text));
        }
        assert_eq!(parse("2s"), Ok(Duration::from_secs(2)));
        assert_eq!(parse("5m"), Ok(Duration::from_secs(300)));
        assert_eq!(parse("1h"), Ok(Duration::from_secs(3600)));
        for wrong in ["", "s", "5", "5 s", "1.5s", "-1s", "5d", "99999999999h", "99999999999999999999s"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
