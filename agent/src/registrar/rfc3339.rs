//! Times in the status: RFC 3339 in UTC, in whole seconds.

use std::time::SystemTime;

use aws_smithy_types::DateTime;
use aws_smithy_types::date_time::Format;

pub(super) fn text(time: SystemTime) -> String {
    let whole_seconds = DateTime::from_secs(DateTime::from(time).secs());
    whole_seconds.fmt(Format::DateTime).unwrap_or_default()
}

pub(super) fn time(text: &str) -> Option<SystemTime> {
    SystemTime::try_from(DateTime::from_str(text, Format::DateTime).ok()?).ok()
}
