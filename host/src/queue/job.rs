//! What a job is, and what is done with it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use stream_storage::Timestamp;

use crate::slot::Slot;

/// Times are given more room than a millisecond, so that jobs of one have an order.
const TICKS_PER_MS: u64 = 1 << 12;

/// A job's name: made up by the server, in the order of enqueuing, never used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct JobId {
    tick: u64,
    host: u32,
}

/// A text that is no job's id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid job id `{text}`: expected `job_` and 24 hexadecimal digits")]
pub struct InvalidJobId {
    /// The text, cut at 64 characters.
    pub text: String,
}

impl JobId {
    /// Reads an id as it is shown.
    ///
    /// # Errors
    ///
    /// The text has another form.
    pub fn parse(text: &str) -> Result<Self, InvalidJobId> {
        let invalid = || InvalidJobId { text: text.chars().take(64).collect() };
        let digits = text.strip_prefix("job_").ok_or_else(invalid)?;
        let is_lower_hex = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        if digits.len() != 24 || !digits.bytes().all(is_lower_hex) {
            return Err(invalid());
        }
        let (tick, host) = digits.split_at(16);
        Ok(Self {
            tick: u64::from_str_radix(tick, 16).map_err(|_| invalid())?,
            host: u32::from_str_radix(host, 16).map_err(|_| invalid())?,
        })
    }
}

impl JobId {
    /// The id that is made so many after this one, if no other job was enqueued meanwhile.
    pub(super) fn after(self, count: u64) -> Self {
        Self { tick: self.tick.saturating_add(count), ..self }
    }
}

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "job_{:016x}{:08x}", self.tick, self.host)
    }
}

impl From<JobId> for String {
    fn from(id: JobId) -> Self {
        id.to_string()
    }
}

impl TryFrom<String> for JobId {
    type Error = InvalidJobId;

    fn try_from(text: String) -> Result<Self, InvalidJobId> {
        Self::parse(&text)
    }
}

/// Makes ids that grow, and that no other process makes.
#[derive(Debug)]
pub(super) struct JobIds {
    last: AtomicU64,
    host: u32,
}

impl JobIds {
    pub(super) fn new(host: u32) -> Self {
        Self { last: AtomicU64::new(0), host }
    }

    pub(super) fn next(&self, now: Timestamp) -> JobId {
        let tick = now.0.saturating_mul(TICKS_PER_MS);
        let grown = |last: u64| Some(tick.max(last.saturating_add(1)));
        let last = self.last.fetch_update(Ordering::Relaxed, Ordering::Relaxed, grown);
        let last = last.unwrap_or_else(|last| last);
        JobId { tick: tick.max(last.saturating_add(1)), host: self.host }
    }
}

/// The record that a job was made from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// The topic's name.
    pub topic: String,
    /// Its id: another topic of that name has another.
    pub topic_id: u64,
    /// The partition of it.
    pub partition: u32,
    /// The record's offset.
    pub offset: u64,
}

impl Source {
    /// The record at `offset` of a partition of `topic`.
    pub fn new(topic: &str, slot: Slot, offset: u64) -> Self {
        Self {
            topic: topic.to_owned(),
            topic_id: slot.topic.0,
            partition: slot.partition.0,
            offset,
        }
    }
}

/// A job to put into a queue.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NewJob {
    /// In an ordered queue, jobs of one key are taken one after the other.
    pub key: Option<String>,
    /// While an unfinished job of the queue has it, there is no second one.
    pub unique: Option<String>,
    /// What is to be done.
    pub payload: Bytes,
    /// The payload's media type; JSON if `None`.
    pub content_type: Option<String>,
    /// What else whoever takes it has to know.
    pub headers: BTreeMap<String, String>,
    /// What it was made from.
    pub source: Option<Source>,
    /// Not before this time; at once if `None`.
    pub due: Option<Timestamp>,
}

/// A job as it lies in a queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    /// Its id.
    pub id: JobId,
    /// See [`NewJob::key`].
    pub key: Option<String>,
    /// See [`NewJob::unique`].
    pub unique: Option<String>,
    /// What is to be done.
    pub payload: Bytes,
    /// The payload's media type; JSON if `None`.
    pub content_type: Option<String>,
    /// What else whoever takes it has to know.
    pub headers: BTreeMap<String, String>,
    /// What it was made from.
    pub source: Option<Source>,
    /// When it was put into the queue.
    pub enqueued_at: Timestamp,
}

/// A job that somebody has taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claimed {
    /// The job.
    pub job: Job,
    /// What the holder shows: a later holder has another.
    pub lease: Lease,
    /// Which try this is, from 1.
    pub attempt: u32,
    /// When others may take it.
    pub leased_until: Timestamp,
    /// What the try before it ended with.
    pub last_error: Option<String>,
}

/// A holder's fencing token: counts how often the job was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Lease(pub u64);

/// How a job stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobState {
    /// It is due now or later.
    Waiting {
        /// When it is due.
        due: Timestamp,
    },
    /// An earlier job of its key is not finished.
    Behind,
    /// Somebody works on it.
    Leased {
        /// Until when.
        until: Timestamp,
    },
    /// It ended with a result.
    Done {
        /// When.
        at: Timestamp,
    },
    /// It was given up.
    Dead {
        /// When.
        at: Timestamp,
    },
}

impl JobState {
    /// The state's word.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Waiting { .. } => "waiting",
            Self::Behind => "behind",
            Self::Leased { .. } => "leased",
            Self::Done { .. } => "done",
            Self::Dead { .. } => "dead",
        }
    }
}

/// A job and how it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobView {
    /// The job.
    pub job: Job,
    /// How it stands.
    pub state: JobState,
    /// How often it was tried.
    pub attempts: u32,
    /// What the last try ended with.
    pub last_error: Option<String>,
    /// What it ended with, JSON, if it is done.
    pub result: Option<Bytes>,
}

/// When a job that failed is tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// As the queue's settings say.
    Backoff,
    /// After this time, if the settings allow one more attempt at all.
    After(Duration),
    /// Never: it is dead.
    Never,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_grow_and_read_back() {
        let ids = JobIds::new(7);
        let made: Vec<JobId> = [5, 5, 4, 6].into_iter().map(|ms| ids.next(Timestamp(ms))).collect();
        assert!(made.is_sorted_by(|a, b| a < b), "{made:?}");
        for id in made {
            assert_eq!(JobId::parse(&id.to_string()), Ok(id));
        }
    }

    #[test]
    fn ids_sort_as_their_texts_do() {
        let ids = JobIds::new(u32::MAX);
        let (first, second) = (ids.next(Timestamp(1)), ids.next(Timestamp(1 << 40)));
        assert!(first < second && first.to_string() < second.to_string());
    }

    #[test]
    fn other_texts_are_no_ids() {
        let long = format!("job_{}", "0".repeat(25));
        for text in
            ["", "job_", "job_zz", "0".repeat(24).as_str(), &long, "job_+0000000000000000000000f"]
        {
            assert!(JobId::parse(text).is_err(), "{text}");
        }
    }
}
