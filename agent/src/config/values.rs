//! Parsers for the values of settings: durations, sizes, numbers, addresses, choices.

use std::net::SocketAddr;
use std::time::Duration;

use instance_contract::{InvalidValue, duration};

use crate::lifecycle::OnRebalance;
use crate::validate::is_instance_id;

pub(super) const fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

/// The longest duration of a setting: a longer one is probably a mistake in the unit.
pub(super) const LONGEST: Duration = seconds(7 * 24 * 3600);
pub(super) type Range = (Duration, &'static str);
pub(super) const ANY: Range = (Duration::ZERO, "a duration such as 500ms, 20s, 5m or 1h, at most 7 days");
pub(super) const POSITIVE: Range =
    (Duration::from_millis(1), "a duration such as 500ms, 20s, 5m or 1h, from 1ms to 7 days");
pub(super) const ATLEAST_1S: Range = (seconds(1), "a duration such as 20s, 5m or 1h, from 1s to 7 days");

pub(super) fn duration_in((least, expected): Range) -> impl FnOnce(&str) -> Result<Duration, InvalidValue> {
    move |text| {
        duration::parse(text)
            .ok()
            .filter(|duration| (least..=LONGEST).contains(duration))
            .ok_or_else(|| InvalidValue { found: text.to_owned(), expected })
    }
}

pub(super) fn bytes(text: &str) -> Result<usize, InvalidValue> {
    bytes_up_to(text, 16 << 20, "a number of bytes such as 4096, 64KiB or 1MiB, at most 16MiB")
}

pub(super) fn large_bytes(text: &str) -> Result<usize, InvalidValue> {
    bytes_up_to(text, 4 << 30, "a number of bytes such as 4096, 64KiB or 64MiB, at most 4096MiB")
}

fn bytes_up_to(text: &str, most: usize, expected: &'static str) -> Result<usize, InvalidValue> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let unit = match &text[digits..] {
        "" | "B" => Some(1),
        "KiB" => Some(1024),
        "MiB" => Some(1024 * 1024),
        _ => None,
    };
    let count = text[..digits].parse::<usize>().ok();
    unit.zip(count)
        .and_then(|(unit, count)| count.checked_mul(unit))
        .filter(|bytes| (1..=most).contains(bytes))
        .ok_or_else(|| InvalidValue { found: text.to_owned(), expected })
}

pub(super) fn number_in(
    text: &str,
    range: std::ops::RangeInclusive<u64>,
    expected: &'static str,
) -> Result<u64, InvalidValue> {
    text.parse()
        .ok()
        .filter(|number| range.contains(number))
        .ok_or_else(|| InvalidValue { found: text.to_owned(), expected })
}

pub(super) fn socket_address(text: &str) -> Result<SocketAddr, InvalidValue> {
    text.parse().map_err(|_| InvalidValue {
        found: text.to_owned(),
        expected: "an address and a port, such as 0.0.0.0:80 or [::]:80",
    })
}

pub(super) fn instance_id(text: &str) -> Result<String, InvalidValue> {
    if is_instance_id(text) {
        Ok(text.to_owned())
    } else {
        Err(InvalidValue {
            found: text.to_owned(),
            expected: "1 to 64 letters, digits and hyphens, such as i-0123456789abcdef0",
        })
    }
}

pub(super) fn on_rebalance(text: &str) -> Result<OnRebalance, InvalidValue> {
    match text {
        "ignore" => Ok(OnRebalance::Ignore),
        "drain" => Ok(OnRebalance::Drain),
        _ => Err(InvalidValue { found: text.to_owned(), expected: "ignore or drain" }),
    }
}

pub(super) fn log_level(text: &str) -> Result<tracing::Level, InvalidValue> {
    // `tracing` also takes numbers.
    let named = text.parse().ok().filter(|_| text.bytes().all(|b| b.is_ascii_alphabetic()));
    named
        .ok_or_else(|| InvalidValue { found: text.to_owned(), expected: "error, warn, info, debug or trace" })
}
