//! What a delivery is: one event on its way to one endpoint, with each attempt.

use std::fmt;

use rand::{Rng, RngExt};
use serde::{Deserialize, Serialize};
use stream_storage::Timestamp;

use crate::queue::JobId;

/// Attempts of one delivery that are kept; redelivered again and again, it may have more.
pub(super) const ATTEMPTS_KEPT: u32 = 100;

/// A delivery's name: made up by the server, never used again; the newest sorts first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DeliveryId {
    /// Counts down as time goes on.
    before: u64,
    random: u64,
}

impl DeliveryId {
    pub(super) fn new(now: Timestamp, random: &mut impl Rng) -> Self {
        Self { before: u64::MAX - now.0, random: random.random() }
    }

    /// Reads an id as it is shown; `None` if the text has another form.
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.strip_prefix("dlv_").filter(|digits| digits.len() == 32)?;
        if !digits.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
            return None;
        }
        let (before, random) = digits.split_at(16);
        let number = |digits| u64::from_str_radix(digits, 16).ok();
        Some(Self { before: number(before)?, random: number(random)? })
    }

    /// When it was made.
    pub fn made_at(&self) -> Timestamp {
        Timestamp(u64::MAX - self.before)
    }

    /// The first in the order of ids of those made at `time` or earlier.
    pub(super) fn first_until(time: Timestamp) -> Self {
        Self { before: u64::MAX - time.0, random: 0 }
    }
}

impl fmt::Display for DeliveryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "dlv_{:016x}{:016x}", self.before, self.random)
    }
}

/// How a delivery stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DeliveryStatus {
    /// It waits for its first attempt or its next, or is under way.
    Pending,
    /// The receiver took it.
    Success,
    /// It is given up.
    Failed,
    /// Somebody said that it is not to be sent.
    Cancelled,
}

impl DeliveryStatus {
    /// All there are.
    pub const ALL: [Self; 4] = [Self::Pending, Self::Success, Self::Failed, Self::Cancelled];

    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Success => "success",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    /// The status that a word means.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.as_str() == word)
    }
}

/// One event on its way to one endpoint; also the stored form.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delivery {
    /// What receivers see as `webhook-id`: the same in every attempt.
    pub event_id: String,
    /// The event's type.
    pub event_type: String,
    /// How it stands.
    pub status: DeliveryStatus,
    /// How often it was tried.
    pub attempts: u32,
    /// Milliseconds since 1970.
    pub created_at: u64,
    /// When it ended, in milliseconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<u64>,
    /// When it is tried again, in milliseconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_attempt_at: Option<u64>,
    /// The status of the last answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status_code: Option<u16>,
    /// How long the last attempt took, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration_ms: Option<u64>,
    /// What was wrong with the last attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Its job in the endpoint's queue.
    pub(super) job: JobId,
}

impl Delivery {
    /// How often it was tried again.
    pub fn retries(&self) -> u32 {
        self.attempts.saturating_sub(1)
    }
}

/// One request and what came back; also the stored form.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// When it was sent, in milliseconds since 1970.
    pub at: u64,
    /// How long it took, in milliseconds.
    pub duration_ms: u64,
    /// The status of the answer, if there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status_code: Option<u16>,
    /// What was wrong with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// The first KiB of the answer, what is not UTF-8 replaced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<String>,
    /// Whether there was more of it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub answer_is_cut: bool,
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    #[test]
    fn ids_read_back_and_the_newest_sorts_first() {
        let mut random = StdRng::seed_from_u64(7);
        let old = DeliveryId::new(Timestamp(5), &mut random);
        let new = DeliveryId::new(Timestamp(6), &mut random);
        assert!(new < old && new.to_string() < old.to_string());
        assert_eq!(DeliveryId::parse(&old.to_string()), Some(old));
        assert_eq!(old.made_at(), Timestamp(5));
        let first = DeliveryId::first_until(Timestamp(5));
        assert!(first <= old && first > new);
    }

    #[test]
    fn other_texts_are_no_ids() {
        let long = format!("dlv_{}", "0".repeat(33));
        let sign = format!("dlv_+{}", "0".repeat(31));
        for text in ["", "dlv_", "dlv_0", &long, &sign] {
            assert_eq!(DeliveryId::parse(text), None, "{text}");
        }
    }
}
