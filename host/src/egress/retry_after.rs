//! `Retry-After`: seconds, or a date.

use std::time::Duration;

use http::HeaderMap;
use http::header::RETRY_AFTER;
use stream_storage::Timestamp;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc2822;

/// How long to wait from `now`; `None` if the receiver does not say, or nothing that can be read. A
/// date that has passed is no wait.
pub(super) fn of(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = OffsetDateTime::parse(text, &Rfc2822).ok()?;
    let millis = i128::from(date.unix_timestamp()) * 1_000 - i128::from(now.0);
    Some(Duration::from_millis(u64::try_from(millis.max(0)).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_and_dates_are_understood() {
        // 1994-11-06T08:49:07Z.
        let now = Timestamp(784_111_747_000);
        let cases = [
            ("120", Some(120)),
            (" 0 ", Some(0)),
            ("Sun, 06 Nov 1994 08:49:37 GMT", Some(30)),
            ("Sun, 06 Nov 1994 08:00:00 GMT", Some(0)),
            ("-1", None),
            ("soon", None),
            ("", None),
            ("18446744073709551616", None),
        ];
        for (text, seconds) in cases {
            let headers = HeaderMap::from_iter([(RETRY_AFTER, text.parse().unwrap())]);
            assert_eq!(of(&headers, now), seconds.map(Duration::from_secs), "{text}");
        }
        assert_eq!(of(&HeaderMap::new(), now), None);
    }
}
