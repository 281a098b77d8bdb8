//! Whether this machine's clock is why AWS refuses what is signed by it.

use std::time::SystemTime;

use aws_smithy_types::DateTime;
use aws_smithy_types::date_time::Format;

/// AWS refuses what was signed this many seconds before or after its own time.
const TOLERANCE: u64 = 5 * 60;

/// How wrong this machine's clock is: `date` is the header `Date` of an answer, `now` the time here. `None` where the
/// clock is right, or the header cannot be read.
pub(super) fn clock_error(date: &str, now: SystemTime) -> Option<String> {
    let there = DateTime::from_str(date, Format::HttpDate).ok()?.secs();
    let here = DateTime::from(now).secs();
    let seconds = here.abs_diff(there);
    let side = if here < there { "behind" } else { "ahead of" };
    (seconds >= TOLERANCE)
        .then(|| format!("this machine's clock is {} min {side} that of AWS ({date})", seconds.div_ceil(60)))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_clock_is_wrong_by_five_minutes_or_more() {
        let at = |seconds: u64| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let date = "Sun, 06 Nov 1994 08:49:37 GMT";
        for now in [784_111_777, 784_111_777 + 299, 784_111_777 - 299] {
            assert_eq!(clock_error(date, at(now)), None);
        }
        let behind = clock_error(date, at(784_111_777 - 3600)).unwrap();
        assert_eq!(behind, format!("this machine's clock is 60 min behind that of AWS ({date})"));
        assert!(clock_error(date, at(784_111_777 + 300)).unwrap().contains("5 min ahead of"));
        for date in ["", "now", "Sun, 06 Nov 1994 08:49"] {
            assert_eq!(clock_error(date, at(0)), None, "{date}");
        }
    }
}
