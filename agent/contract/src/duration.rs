//! The one grammar of durations: a whole number and a unit, `500ms`, `20s`, `5m`, `1h`; a bare number
//! is seconds.
//!
//! It holds for flags, environment variables, the agent's settings file, fleet files and the fleet
//! definitions that are stored in AWS. An integer in a TOML file is a bare number: pass its decimal
//! digits to [`parse`].
//!
//! ```
//! use std::time::Duration;
//! use instance_contract::duration;
//!
//! assert_eq!(duration::parse("5")?, Duration::from_secs(5));
//! assert_eq!(duration::parse("5m")?, Duration::from_secs(300));
//! assert_eq!(duration::format(Duration::from_secs(300)), "300s");
//! # Ok::<(), instance_contract::InvalidValue>(())
//! ```

use std::time::Duration;

use crate::InvalidValue;

/// The longest duration, a year of 366 days: no setting needs more, and sums with clocks cannot
/// overflow.
pub const LONGEST: Duration = Duration::from_secs(366 * 86_400);

/// Parses a duration: decimal digits, then `ms`, `s`, `m` or `h`; without a unit they are seconds.
///
/// There are no signs, fractions, spaces, upper-case units or sums of units. Zero is accepted; a
/// caller with a limit of its own checks it.
///
/// # Errors
/// The text has another form, or is longer than [`LONGEST`].
pub fn parse(text: &str) -> Result<Duration, InvalidValue> {
    read(text)
        .filter(|duration| *duration <= LONGEST)
        .ok_or_else(|| InvalidValue::new(text, "a duration such as 500ms, 20s, 5m or 1h, at most 366 days"))
}

fn read(text: &str) -> Option<Duration> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().ok()?;
    match unit {
        "ms" => Some(Duration::from_millis(number)),
        "" | "s" => Some(Duration::from_secs(number)),
        "m" => number.checked_mul(60).map(Duration::from_secs),
        "h" => number.checked_mul(3600).map(Duration::from_secs),
        _ => None,
    }
}

/// Writes a duration as [`parse`] reads it: in seconds where they are whole, else in milliseconds.
///
/// The text is canonical: equal durations have equal texts. What is less than a millisecond is cut off.
pub fn format(duration: Duration) -> String {
    match duration.subsec_nanos() {
        0 => format!("{}s", duration.as_secs()),
        _ => format!("{}ms", duration.as_millis()),
    }
}

/// Durations as texts in what serde writes and reads, for `#[serde(with = "duration::text")]`.
pub mod text {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer, de};

    /// Writes the duration as [`format`](super::format) does.
    ///
    /// # Errors
    /// The serializer's own.
    pub fn serialize<S: Serializer>(duration: &Duration, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&super::format(*duration))
    }

    /// Reads a text as [`parse`](super::parse) does.
    ///
    /// # Errors
    /// The value is no text, or no duration.
    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        super::parse(&String::deserialize(from)?).map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn milliseconds(count: u64) -> Duration {
        Duration::from_millis(count)
    }

    #[test]
    fn a_duration_is_a_whole_number_and_a_unit_or_seconds() {
        for (text, expected) in [
            ("0", 0),
            ("0ms", 0),
            ("0s", 0),
            ("0h", 0),
            ("1ms", 1),
            ("500ms", 500),
            ("1500ms", 1_500),
            ("5", 5_000),
            ("5s", 5_000),
            ("005s", 5_000),
            ("300", 300_000),
            ("5m", 300_000),
            ("1h", 3_600_000),
            ("168h", 604_800_000),
            ("8784h", 31_622_400_000),
            ("31622400", 31_622_400_000),
            ("31622400000ms", 31_622_400_000),
        ] {
            assert_eq!(parse(text), Ok(milliseconds(expected)), "{text}");
        }
    }

    #[test]
    fn anything_else_is_refused_with_the_form() {
        for text in [
            "",
            " ",
            "s",
            "ms",
            "soon", // no number
            "5 s",
            " 5s",
            "5s ",
            "5\n",
            "5_0s",
            "5'000",
            "5,0s", // something between
            "-5",
            "-1s",
            "+5",
            "+5s",
            "−5", // a sign
            "1.5s",
            "1.5",
            "1e3",
            "0x5",
            "٥",
            "５s", // no whole decimal number
            "5S",
            "5MS",
            "5M",
            "5d",
            "5w",
            "5us",
            "5min",
            "5sec",
            "5h5m",
            "PT5S", // another unit
            "8785h",
            "31622401",
            "31622400001ms",
            "99999999999h", // more than a year
            "18446744073709551615h",
            "18446744073709551615m",
            "18446744073709551616", // too large a number
            "99999999999999999999s",
        ] {
            let error = parse(text).unwrap_err().to_string();
            let expected = "a duration such as 500ms, 20s, 5m or 1h, at most 366 days";
            assert_eq!(error, format!("{text:?} is not valid: expected {expected}"));
        }
    }

    #[test]
    fn what_is_written_is_read_back_and_equal_durations_look_equal() {
        for (duration, text) in [
            (milliseconds(0), "0s"),
            (milliseconds(50), "50ms"),
            (milliseconds(1_500), "1500ms"),
            (milliseconds(10_500), "10500ms"),
            (milliseconds(300_000), "300s"),
            (milliseconds(3_600_000), "3600s"),
            (LONGEST, "31622400s"),
        ] {
            assert_eq!(format(duration), text);
            assert_eq!(parse(text), Ok(duration));
        }
        assert_eq!(format(Duration::from_micros(1_999)), "1ms");
    }

    #[test]
    fn serde_writes_and_reads_texts() {
        #[derive(Debug, PartialEq, serde::Serialize, serde::Deserialize)]
        struct Stored(#[serde(with = "text")] Duration);

        assert_eq!(serde_json::to_string(&Stored(milliseconds(30_000))).unwrap(), "\"30s\"");
        for text in ["\"30s\"", "\"30\"", "\"30000ms\""] {
            assert_eq!(serde_json::from_str::<Stored>(text).unwrap(), Stored(milliseconds(30_000)));
        }
        for wrong in ["\"30 s\"", "\"\"", "30", "null"] {
            assert!(serde_json::from_str::<Stored>(wrong).is_err(), "{wrong}");
        }
    }
}
