//! Timestamps as text: RFC 3339 in UTC with milliseconds.

use stream_storage::Timestamp;
use time::format_description::well_known::Rfc3339;
use time::{OffsetDateTime, UtcOffset};

/// A text that is not an RFC 3339 timestamp.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected an RFC 3339 timestamp such as `2026-01-02T03:04:05.678Z`, got `{text}`")]
pub struct InvalidTimestamp {
    /// The input, cut at 64 characters.
    pub text: String,
}

/// `2026-01-02T03:04:05.678Z`. Times beyond the year 9999 are shown as its last millisecond.
pub fn format(timestamp: Timestamp) -> String {
    let seconds = i64::try_from(timestamp.0 / 1_000).ok();
    let time = seconds.and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok());
    let Some(time) = time else { return "9999-12-31T23:59:59.999Z".to_owned() };
    let (year, month, day) = time.to_calendar_date();
    let (hour, minute, second) = time.to_hms();
    // Every answer to a publish has one: by hand it takes a tenth of what the general way takes.
    let mut text = String::with_capacity("2026-01-02T03:04:05.678Z".len());
    let parts = [
        (u64::from(year.unsigned_abs()), 1_000, '-'),
        (u64::from(u8::from(month)), 10, '-'),
        (u64::from(day), 10, 'T'),
        (u64::from(hour), 10, ':'),
        (u64::from(minute), 10, ':'),
        (u64::from(second), 10, '.'),
        (timestamp.0 % 1_000, 100, 'Z'),
    ];
    for (number, mut place, end) in parts {
        while place > 0 {
            text.extend(char::from_digit((number / place % 10) as u32, 10));
            place /= 10;
        }
        text.push(end);
    }
    text
}

/// Reads an RFC 3339 timestamp with any offset; what is finer than a millisecond is rounded up, so
/// that a read from a time never starts before it. A time before 1970 is taken for its start: all
/// timestamps are later.
///
/// # Errors
///
/// The text has another form.
pub fn parse(text: &str) -> Result<Timestamp, InvalidTimestamp> {
    OffsetDateTime::parse(text, &Rfc3339)
        .ok()
        .map(|time| time.to_offset(UtcOffset::UTC).unix_timestamp_nanos())
        .map(|nanos| nanos.max(0).unsigned_abs().div_ceil(1_000_000))
        .and_then(|millis| u64::try_from(millis).ok())
        .map(Timestamp)
        .ok_or_else(|| InvalidTimestamp { text: text.chars().take(64).collect() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_read_back_as_written() {
        let cases = [
            (0, "1970-01-01T00:00:00.000Z"),
            (1_767_323_045_678, "2026-01-02T03:04:05.678Z"),
            (253_402_300_799_999, "9999-12-31T23:59:59.999Z"),
        ];
        for (millis, text) in cases {
            assert_eq!(format(Timestamp(millis)), text);
            assert_eq!(parse(text), Ok(Timestamp(millis)));
        }
    }

    #[test]
    fn other_offsets_and_precisions_are_understood() {
        for text in ["2026-01-02T03:04:05.678Z", "2026-01-02T04:04:05.678+01:00"] {
            assert_eq!(parse(text), Ok(Timestamp(1_767_323_045_678)), "{text}");
        }
        assert_eq!(parse("2026-01-02T03:04:05.6770001Z"), Ok(Timestamp(1_767_323_045_678)));
    }

    #[test]
    fn a_time_before_1970_is_the_earliest() {
        for text in ["1969-12-31T23:59:59Z", "0001-01-01T00:00:00Z", "1970-01-01T00:00:00+01:00"] {
            assert_eq!(parse(text), Ok(Timestamp(0)), "{text}");
        }
    }

    #[test]
    fn what_is_not_a_timestamp_is_refused() {
        for text in ["", "yesterday", "2026-01-02", "2026-01-02T03:04:05"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_time_beyond_the_calendar_is_shown_as_its_end() {
        assert_eq!(format(Timestamp(u64::MAX)), "9999-12-31T23:59:59.999Z");
    }
}
