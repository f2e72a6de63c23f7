//! What an answer, or none, means for the delivery and for the endpoint; pure.

use std::time::Duration;

use crate::egress::{Answer, EgressError};
use crate::queue::Retry;

use super::health::Seen;

/// A receiver that asks for more is asked again after this: a day is the ladder's longest step.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// Who takes longer is slow, and stands in a lane of its own.
const SLOW: Duration = Duration::from_secs(5);

/// What comes of an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Judged {
    /// When there is another; `None` if the delivery is done.
    pub(super) retry: Option<Retry>,
    /// What was wrong.
    pub(super) error: Option<String>,
    /// What it says about the endpoint.
    pub(super) seen: Seen,
    /// The receiver wants no more, ever.
    pub(super) is_gone: bool,
    /// The fault is the server's: it says nothing about the endpoint.
    pub(super) is_ours: bool,
}

/// Judges an answer. `ladder` is how long the settings wait before the next attempt; a receiver may
/// ask for more, never for less: who asks for a second at each attempt would use them all up during
/// an outage of a minute.
pub(super) fn judge(result: &Result<Answer, EgressError>, ladder: Option<Duration>) -> Judged {
    let answer = match result {
        Ok(answer) => answer,
        Err(error) => return no_answer(error),
    };
    let is_slow = answer.duration > SLOW;
    if (200..300).contains(&answer.status) {
        let seen = Seen::Well { is_slow };
        return Judged { retry: None, error: None, seen, is_gone: false, is_ours: false };
    }
    let asked = answer.retry_after.map(|after| after.min(RETRY_AFTER_MAX));
    let retry = match (asked, ladder) {
        (Some(asked), Some(ladder)) => Retry::After(asked.max(ladder)),
        _ => Retry::Backoff,
    };
    let seen = match answer.status {
        429 | 502 | 504 => Seen::Overloaded { asked },
        _ => Seen::Failed,
    };
    Judged {
        retry: Some(retry),
        error: Some(words(answer.status)),
        seen,
        is_gone: answer.status == 410,
        is_ours: false,
    }
}

fn no_answer(error: &EgressError) -> Judged {
    let retry = if error.is_retryable() { Retry::Backoff } else { Retry::Never };
    Judged {
        retry: Some(retry),
        error: Some(error.to_string()),
        seen: Seen::Failed,
        is_gone: false,
        is_ours: matches!(error, EgressError::Setup { .. }),
    }
}

/// A request that could not be made by a fault of the server's: tried again, until somebody has
/// mended it.
pub(super) fn ours(error: String) -> Judged {
    Judged {
        retry: Some(Retry::Backoff),
        error: Some(error),
        seen: Seen::Failed,
        is_gone: false,
        is_ours: true,
    }
}

fn words(status: u16) -> String {
    match status {
        300..400 => format!("the receiver answered {status}: redirects are not followed"),
        410 => "the receiver answered 410: it wants no more".to_owned(),
        _ => format!("the receiver answered {status}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    const LADDER: Duration = Duration::from_secs(300);

    fn answer(status: u16, retry_after: Option<u64>) -> Judged {
        let answer = Answer {
            status,
            retry_after: retry_after.map(Duration::from_secs),
            body: Bytes::new(),
            is_cut: false,
            duration: Duration::from_millis(1),
        };
        judge(&Ok(answer), Some(LADDER))
    }

    #[test]
    fn only_2xx_is_success() {
        for status in [200, 201, 202, 204, 299] {
            assert_eq!(answer(status, None).retry, None, "{status}");
        }
        for status in [100, 199, 300, 301, 302, 307, 308, 400, 401, 404, 410, 429, 500, 502, 999] {
            assert_eq!(answer(status, None).retry, Some(Retry::Backoff), "{status}");
        }
    }

    #[test]
    fn retry_after_delays_further_but_within_bounds() {
        let after = |seconds| answer(503, Some(seconds)).retry;
        assert_eq!(after(0), Some(Retry::After(LADDER)));
        assert_eq!(after(301), Some(Retry::After(Duration::from_secs(301))));
        assert_eq!(after(u64::MAX), Some(Retry::After(RETRY_AFTER_MAX)));
    }

    #[test]
    fn some_answers_are_about_the_endpoint() {
        assert!(answer(410, None).is_gone);
        for status in [429, 502, 504] {
            assert!(matches!(answer(status, None).seen, Seen::Overloaded { .. }), "{status}");
        }
        assert_eq!(answer(503, None).seen, Seen::Failed);
    }

    #[test]
    fn a_refused_address_is_final_and_a_missing_one_is_not() {
        let host = || "h".to_owned();
        let refused = EgressError::Forbidden { host: host(), what: "a private address" };
        assert_eq!(judge(&Err(refused), Some(LADDER)).retry, Some(Retry::Never));
        let missing = EgressError::Resolve { host: host(), reason: "none".to_owned() };
        assert_eq!(judge(&Err(missing), Some(LADDER)).retry, Some(Retry::Backoff));
    }
}
