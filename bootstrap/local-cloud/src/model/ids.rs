//! Ids, ARNs, secrets and times in the form AWS writes them.

use std::time::{SystemTime, UNIX_EPOCH};

use aws_smithy_types::DateTime;
use aws_smithy_types::date_time::Format;

/// An instance id that is always the same for the same name, so that a fleet's instances have the
/// same ids at every launch and find their own folders again.
pub fn stable_instance_id(name: &str) -> String {
    format!("i-0{}", stable_hex(name))
}

/// 16 hexadecimal digits that are always the same for the same text.
pub(crate) fn stable_hex(text: &str) -> String {
    // FNV-1a, then the finisher of SplitMix64: without it names that differ in their last letter
    // get ids that look alike.
    let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    format!("{:016x}", hash ^ (hash >> 31))
}

/// Random hexadecimal digits. They only have to differ: nothing here guards a real secret.
pub(crate) fn random_hex(digits: usize) -> String {
    (0..digits).map(|_| char::from_digit(fastrand::u32(0..16), 16).unwrap_or('0')).collect()
}

/// A request id as AWS forms them.
pub(crate) fn request_id() -> String {
    let part = random_hex;
    format!("{}-{}-{}-{}-{}", part(8), part(4), part(4), part(4), part(12))
}

/// The time as `2026-01-31T23:59:59Z`. Times before 1970 are shown as 1970.
pub fn timestamp(time: SystemTime) -> String {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let seconds = i64::try_from(since.as_secs()).unwrap_or(i64::MAX);
    // It fails after the year 9999 alone.
    DateTime::from_secs(seconds).fmt(Format::DateTime).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn times_are_written_as_aws_writes_them() {
        let at = |seconds| timestamp(UNIX_EPOCH + Duration::from_secs(seconds));
        assert_eq!(at(0), "1970-01-01T00:00:00Z");
        assert_eq!(at(951_782_400), "2000-02-29T00:00:00Z");
        assert_eq!(at(1_709_251_199), "2024-02-29T23:59:59Z");
        assert_eq!(at(4_107_542_400), "2100-03-01T00:00:00Z");
    }

    #[test]
    fn ids_are_stable_and_differ() {
        assert_eq!(stable_hex("clusters/cluster1/0"), stable_hex("clusters/cluster1/0"));
        assert_ne!(stable_hex("clusters/cluster1/0"), stable_hex("clusters/cluster1/1"));
        assert_eq!(stable_hex("x").len(), 16);
        assert_eq!(request_id().len(), 36);
    }
}
