//! What is stored of a queue, each row under a key of its own in the project's state:
//!
//! | key | value | meaning |
//! | --- | --- | --- |
//! | `queue/{queue}` | settings | how the queue works |
//! | `job/{queue}/{id}` | the job | written once, deleted when it is done |
//! | `job-due/{queue}/{due}{id}` | [`Ticket`] | it waits for its time |
//! | `job-lease/{queue}/{id}` | [`StoredLease`] | somebody works on it |
//! | `job-behind/{queue}/{key}/{id}` | [`Behind`] | it waits for an earlier job of its key |
//! | `job-key/{queue}/{key}` | [`Head`] | the one unfinished job of the key that may be taken |
//! | `job-unique/{queue}/{unique}` | a job's id | the unfinished job that has it |
//! | `job-done/{queue}/{id}` | [`Done`] | its result, for a while |
//! | `job-dead/{queue}/{id}` | [`Dead`] | why it was given up |
//!
//! A job has exactly one of the rows due, lease, behind, done and dead. Keys and unique words are
//! kept as digests, since they may be longer than a state key. Due times are hexadecimal: the order
//! of the keys is that of the times.

use std::collections::BTreeMap;

use bytes::{BufMut, Bytes, BytesMut};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use stream_storage::{StoreError, Timestamp, Versioned};

use super::job::{Job, JobId, Lease, NewJob, Source};
use crate::name::QueueName;
use crate::state;

/// Bytes of a job's head length.
const LENGTH: usize = size_of::<u32>();

/// Digits of a due time.
const TIME: usize = 16;

/// A job that waits.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(super) struct Ticket {
    /// How often it was tried.
    pub(super) attempts: u32,
    /// How often it was taken.
    pub(super) lease: u64,
    /// What else belongs to it.
    #[serde(flatten)]
    pub(super) ties: Ties,
    /// What the last try ended with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) error: Option<String>,
}

/// Rows that end with the job.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(super) struct Ties {
    /// The digest of its key, if it was enqueued in order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) key: Option<String>,
    /// The digest of its unique word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) unique: Option<String>,
}

/// A job that somebody works on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct StoredLease {
    /// Milliseconds since 1970.
    pub(super) until: u64,
    /// Who: a server's own executor or a worker's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) holder: Option<String>,
    /// As it waited, with this try and this lease counted.
    #[serde(flatten)]
    pub(super) ticket: Ticket,
}

impl StoredLease {
    pub(super) fn token(&self) -> Lease {
        Lease(self.ticket.lease)
    }
}

/// A job that waits for an earlier one of its key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Behind {
    /// Milliseconds since 1970.
    pub(super) due: u64,
    /// As it will wait.
    #[serde(flatten)]
    pub(super) ticket: Ticket,
}

/// The job of a key that may be taken. Written anew by each that comes behind it, so that the last
/// one does not miss it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Head {
    pub(super) id: JobId,
}

/// A job that ended with a result.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Done {
    /// Milliseconds since 1970.
    pub(super) at: u64,
    pub(super) attempts: u32,
    /// JSON.
    pub(super) result: Box<serde_json::value::RawValue>,
}

/// A job that was given up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Dead {
    /// Milliseconds since 1970.
    pub(super) at: u64,
    pub(super) attempts: u32,
    pub(super) lease: u64,
    pub(super) reason: String,
}

#[derive(Serialize, Deserialize)]
struct JobHead {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    unique: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    content_type: Option<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    headers: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    source: Option<Source>,
    at: u64,
}

/// The stored form of a job: the length of its head, the head, the payload as it is.
pub(super) fn encode_job(job: NewJob, at: Timestamp) -> Bytes {
    let NewJob { key, unique, payload, content_type, headers, source, .. } = job;
    let head = state::encode(&JobHead { key, unique, content_type, headers, source, at: at.0 });
    let mut out = BytesMut::with_capacity(LENGTH + head.len() + payload.len());
    out.put_u32(u32::try_from(head.len()).unwrap_or(u32::MAX));
    out.put_slice(&head);
    out.put_slice(&payload);
    out.freeze()
}

/// Reads the stored form of a job.
pub(super) fn decode_job(id: JobId, value: &Bytes) -> Result<Job, StoreError> {
    let corrupt = |why: &str| StoreError::Corrupt { reason: format!("job `{id}`: {why}") };
    let (length, rest) =
        value.split_first_chunk::<LENGTH>().ok_or_else(|| corrupt("it has no head"))?;
    let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
    let head = rest.get(..length).ok_or_else(|| corrupt("its head is cut"))?;
    let head: JobHead =
        serde_json::from_slice(head).map_err(|error| corrupt(&error.to_string()))?;
    let JobHead { key, unique, content_type, headers, source, at } = head;
    let payload = value.slice(LENGTH + length..);
    let enqueued_at = Timestamp(at);
    Ok(Job { id, key, unique, payload, content_type, headers, source, enqueued_at })
}

/// A row that a job has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Row {
    Job,
    Due,
    Lease,
    Behind,
    Key,
    Unique,
    Done,
    Dead,
}

impl Row {
    /// All of them.
    pub(super) const ALL: [Self; 8] = [
        Self::Due,
        Self::Lease,
        Self::Behind,
        Self::Key,
        Self::Unique,
        Self::Done,
        Self::Dead,
        Self::Job,
    ];

    /// What the keys of a queue's rows start with.
    pub(super) fn of(self, queue: &QueueName) -> String {
        let kind = match self {
            Self::Job => "job",
            Self::Due => "job-due",
            Self::Lease => "job-lease",
            Self::Behind => "job-behind",
            Self::Key => "job-key",
            Self::Unique => "job-unique",
            Self::Done => "job-done",
            Self::Dead => "job-dead",
        };
        format!("{kind}/{queue}/")
    }

    /// The key of a job's row; for kinds that are named by the id alone.
    pub(super) fn key(self, queue: &QueueName, id: JobId) -> String {
        format!("{}{id}", self.of(queue))
    }

    /// The key of a row that is named by a digest.
    pub(super) fn of_digest(self, queue: &QueueName, digest: &str) -> String {
        format!("{}{digest}", self.of(queue))
    }
}

/// What the keys of queues' settings start with.
pub(super) const SETTINGS: &str = "queue/";

/// The key of a queue's settings.
pub(super) fn settings(queue: &QueueName) -> String {
    format!("{SETTINGS}{queue}")
}

/// The key of a waiting job.
pub(super) fn due(queue: &QueueName, due: Timestamp, id: JobId) -> String {
    format!("{}{:0TIME$x}{id}", Row::Due.of(queue), due.0)
}

/// What [`due`] was made of, behind the prefix.
pub(super) fn parse_due(name: &str) -> Option<(Timestamp, JobId)> {
    let (due, id) = name.split_at_checked(TIME)?;
    Some((Timestamp(u64::from_str_radix(due, 16).ok()?), JobId::parse(id).ok()?))
}

/// What the keys of a key's waiting jobs start with.
pub(super) fn behind_key(queue: &QueueName, key: &str) -> String {
    format!("{}{key}/", Row::Behind.of(queue))
}

/// The key of a job that waits for another.
pub(super) fn behind(queue: &QueueName, key: &str, id: JobId) -> String {
    format!("{}{id}", behind_key(queue, key))
}

/// A word of any length as part of a key.
pub(crate) fn digest(word: &str) -> String {
    use std::fmt::Write;
    let hash = Sha256::digest(word);
    hash.iter().take(16).fold(String::with_capacity(32), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Reads a row that has to be there, or not at all.
pub(super) fn decode<T: serde::de::DeserializeOwned>(
    key: &str,
    found: Option<&Versioned>,
) -> Result<Option<T>, StoreError> {
    found.map(|row| state::decode(key.as_bytes(), row)).transpose()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::job::JobIds;

    #[test]
    fn a_job_reads_back_as_enqueued() {
        let id = JobIds::new(1).next(Timestamp(9));
        let new = NewJob {
            key: Some("k".to_owned()),
            payload: Bytes::from_static(b"\xff{}"),
            headers: [("a".to_owned(), "1".to_owned())].into(),
            ..NewJob::default()
        };
        let job = decode_job(id, &encode_job(new.clone(), Timestamp(3))).unwrap();
        assert_eq!((job.id, job.enqueued_at), (id, Timestamp(3)));
        assert_eq!((job.key, job.payload, job.headers), (new.key, new.payload, new.headers));
    }

    #[test]
    fn damaged_jobs_are_errors() {
        let id = JobIds::new(1).next(Timestamp(9));
        for bytes in [&b""[..], b"\0\0", b"\0\0\0\x09{}", b"\0\0\0\x02[]"] {
            assert!(decode_job(id, &Bytes::from_static(bytes)).is_err(), "{bytes:?}");
        }
    }

    #[test]
    fn due_keys_sort_by_time_and_read_back() {
        let queue = QueueName::parse("q").unwrap();
        let id = JobIds::new(1).next(Timestamp(9));
        let keys = [9, 10, 255, 256, 1 << 40].map(|ms| due(&queue, Timestamp(ms), id));
        assert!(keys.is_sorted(), "{keys:?}");
        let name = keys[3].strip_prefix(&Row::Due.of(&queue)).unwrap();
        assert_eq!(parse_due(name), Some((Timestamp(256), id)));
        assert_eq!(parse_due("x"), None);
    }
}
