//! Validates the answers of the metadata service and AWS before anything acts on them.
//!
//! Each function returns `None` for an invalid answer. Callers must treat that as *no answer*, never as "there is none":
//! a captive portal that answers everything with a page must not take a fleet out of its groups.

use std::net::Ipv4Addr;
use std::time::Duration;

use aws_smithy_types::DateTime;
use aws_smithy_types::date_time::Format;

/// The longest value that a tag can have, in characters.
const LONGEST_TAG_VALUE: usize = 256;
/// The longest deregistration delay that a target group can have.
const LONGEST_DEREGISTRATION_DELAY: u64 = 3600;

/// Whether `text` can be an instance id: 1 to 64 letters, digits and hyphens, since machines outside EC2 have other ids.
pub(crate) fn is_instance_id(text: &str) -> bool {
    (1..=64).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
}

/// A region, an availability zone or an instance type, such as `us-east-1a` or `m4.large`.
pub(crate) fn place(text: String) -> Option<String> {
    let fits = (1..=64).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-.".contains(&b));
    fits.then_some(text)
}

/// A private IPv4 address.
pub(crate) fn private_ip(text: String) -> Option<String> {
    text.parse::<Ipv4Addr>().is_ok().then_some(text)
}

/// The keys of the tags in the metadata, one on each line. Only letters, digits and `+-=.,_:@` are possible: anything else
/// is a page from another server.
pub(crate) fn tag_keys(list: &str) -> Option<Vec<&str>> {
    let possible = |key: &str| {
        (1..=128).contains(&key.len())
            && key.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-=.,_:@".contains(&b))
    };
    let keys: Vec<&str> = list.lines().collect();
    (!keys.is_empty() && keys.iter().all(|key| possible(key))).then_some(keys)
}

/// A tag's value, up to the longest that a tag can have.
pub(crate) fn tag_value(text: String) -> Option<String> {
    text.char_indices().nth(LONGEST_TAG_VALUE).is_none().then_some(text)
}

/// A spot interruption notice: `terminate at 2026-01-01T00:00:00Z`.
pub(crate) fn spot_notice(text: &str) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct Notice {
        action: String,
        time: String,
    }
    let Notice { action, time } = serde_json::from_str(text).ok()?;
    (matches!(action.as_str(), "terminate" | "stop" | "hibernate") && is_time(&time))
        .then(|| format!("{action} at {time}"))
}

/// The time of a rebalance recommendation.
pub(crate) fn rebalance_notice(text: &str) -> Option<String> {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Notice {
        notice_time: String,
    }
    let Notice { notice_time } = serde_json::from_str(text).ok()?;
    is_time(&notice_time).then_some(notice_time)
}

/// An Auto Scaling lifecycle state, such as `InService` or `Warmed:Stopped`, including unknown ones that AWS may add.
pub(crate) fn lifecycle_state(text: &str) -> Option<String> {
    let text = text.trim();
    let is_word = |word: &str| {
        (1..=32).contains(&word.len())
            && word.starts_with(|c: char| c.is_ascii_uppercase())
            && word.bytes().all(|b| b.is_ascii_alphabetic())
    };
    text.split(':').all(is_word).then(|| text.to_owned())
}

/// A target group's deregistration delay, in whole seconds, capped at the longest that AWS allows.
pub(crate) fn deregistration_delay(text: &str) -> Option<Duration> {
    let seconds: u64 = text.parse().ok()?;
    Some(Duration::from_secs(seconds.min(LONGEST_DEREGISTRATION_DELAY)))
}

/// A target group's health check interval. AWS allows 5 to 300 seconds.
pub(crate) fn check_interval(seconds: i32) -> Option<Duration> {
    u64::try_from(seconds)
        .ok()
        .filter(|seconds| *seconds > 0)
        .map(|seconds| Duration::from_secs(seconds.clamp(5, 300)))
}

fn is_time(text: &str) -> bool {
    text.len() <= 40 && DateTime::from_str(text, Format::DateTime).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "<!DOCTYPE html>\n<html><body>Please sign in</body></html>\n";

    #[test]
    fn a_spot_notice_names_an_action_and_a_time() {
        let notice = r#"{"action": "terminate", "time": "2026-01-01T00:00:00Z"}"#;
        assert_eq!(spot_notice(notice).as_deref(), Some("terminate at 2026-01-01T00:00:00Z"));
        for action in ["stop", "hibernate"] {
            assert!(spot_notice(&notice.replace("terminate", action)).is_some(), "{action}");
        }
        for no in [
            PAGE,
            "",
            "{",
            "terminate",
            r#"{"action": "none", "time": "2026-01-01T00:00:00Z"}"#,
            r#"{"action": "none"}"#,
            r#"{"action": "terminate"}"#,
            r#"{"action": "terminate", "time": "soon"}"#,
            r#"{"action": "terminate", "time": "2026-01-01T00:00:00Z\nWATCHDOG=trigger"}"#,
        ] {
            assert_eq!(spot_notice(no), None, "{no}");
        }
    }

    #[test]
    fn a_rebalance_recommendation_has_a_time() {
        assert_eq!(
            rebalance_notice(r#"{"noticeTime": "2026-01-01T00:00:00Z"}"#).as_deref(),
            Some("2026-01-01T00:00:00Z")
        );
        for no in [PAGE, "", r#"{"noticeTime": 5}"#, r#"{"noticeTime": "now"}"#] {
            assert_eq!(rebalance_notice(no), None, "{no}");
        }
    }

    #[test]
    fn a_lifecycle_state_is_words() {
        for state in ["InService", "Terminated", "Standby", "Warmed:Stopped", "Resting"] {
            assert_eq!(lifecycle_state(&format!("{state}\n")).as_deref(), Some(state));
        }
        for no in [PAGE, "", "in service", "InService\nSTATUS=x", "Warmed:", &"A".repeat(33)] {
            assert_eq!(lifecycle_state(no), None, "{no}");
        }
    }

    #[test]
    fn a_list_of_tags_holds_possible_keys_alone() {
        assert_eq!(tag_keys("Name\ninstance-agent:root"), Some(vec!["Name", "instance-agent:root"]));
        for no in [PAGE, "", "\n", "Name\n\nother", "a key", "a/b", &"k".repeat(129)] {
            assert_eq!(tag_keys(no), None, "{no}");
        }
        assert_eq!(tag_value("ü".repeat(256)), Some("ü".repeat(256)));
        assert_eq!(tag_value("ü".repeat(257)), None);
    }

    #[test]
    fn identity_is_of_the_forms_that_aws_uses() {
        assert!(is_instance_id("i-0123456789abcdef0"));
        for no in ["", "i-1\n", "i 1", "\u{1b}[2J", &"i".repeat(65)] {
            assert!(!is_instance_id(no), "{no:?}");
        }
        for ok in ["us-east-1", "us-west-2-lax-1a", "u-6tb1.metal"] {
            assert!(place(ok.to_owned()).is_some(), "{ok}");
        }
        for no in ["", "us-east-1a\nX=y", "US", &"a".repeat(10_000)] {
            assert_eq!(place(no.to_owned()), None, "{no}");
        }
        assert!(private_ip("10.0.0.7".to_owned()).is_some());
        assert_eq!(private_ip("10.0.0.7:80".to_owned()), None);
    }

    #[test]
    fn delays_and_intervals_are_in_the_range_of_aws() {
        let seconds = Duration::from_secs;
        for (told, taken) in [
            ("0", Some(0)),
            ("300", Some(300)),
            ("3600", Some(3600)),
            ("9223372036854775807", Some(3600)),
            ("18446744073709551616", None),
            ("-5", None),
            ("1e3", None),
            ("", None),
        ] {
            assert_eq!(deregistration_delay(told), taken.map(seconds), "{told}");
        }
        for (told, taken) in [(0, None), (-1, None), (1, Some(5)), (30, Some(30)), (i32::MAX, Some(300))] {
            assert_eq!(check_interval(told), taken.map(seconds), "{told}");
        }
    }
}
