//! Timestamps as text: RFC 3339 in UTC with milliseconds.

use stream_storage::Timestamp;
use time::format_description::BorrowedFormatItem;
use time::format_description::well_known::Rfc3339;
use time::macros::format_description;
use time::{OffsetDateTime, UtcOffset};

const FORMAT: &[BorrowedFormatItem<'_>] =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");

/// A text that is not an RFC 3339 timestamp.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected an RFC 3339 timestamp such as `2026-01-02T03:04:05.678Z`, got `{text}`")]
pub struct InvalidTimestamp {
    /// The input, cut at 64 characters.
    pub text: String,
}

/// `2026-01-02T03:04:05.678Z`. Times beyond the year 9999 are shown as its last millisecond.
pub fn format(timestamp: Timestamp) -> String {
    let nanos = i128::from(timestamp.0) * 1_000_000;
    OffsetDateTime::from_unix_timestamp_nanos(nanos)
        .ok()
        .and_then(|time| time.format(FORMAT).ok())
        .unwrap_or_else(|| "9999-12-31T23:59:59.999Z".to_owned())
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
