//! How a connector does, for people to read: in memory, from its last start on.

use std::sync::Mutex;

use stream_storage::{Partition, Timestamp};

use crate::lock::lock;
use crate::name::TopicName;

/// How a connector does.
#[derive(Debug, Default)]
pub(super) struct Health(Mutex<Vitals>);

/// What is known of it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Vitals {
    /// Records taken.
    pub taken: u64,
    /// Of these, records that its plugin kept back.
    pub dropped: u64,
    /// Records on which its plugin broke: they are dead letters.
    pub faulted: u64,
    /// Requests that a service elsewhere has taken.
    pub sent: u64,
    /// What failed in a row and is tried again.
    pub failures: u32,
    /// What went wrong last, and when.
    pub last_error: Option<(Timestamp, String)>,
    /// When something was last taken or sent.
    pub last_success: Option<Timestamp>,
    /// Why requests are held back, while most of them fail.
    pub paused: Option<String>,
    /// Records that were trimmed before they were read.
    pub lost: Vec<LostRecords>,
}

/// Records that were trimmed before a connector has read them. It reads on in that partition only
/// after a replay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LostRecords {
    /// The topic.
    pub topic: TopicName,
    /// The partition of it.
    pub partition: Partition,
    /// Where it would have read next.
    pub next_offset: u64,
    /// The earliest offset that is left.
    pub earliest: u64,
}

impl Health {
    pub(super) fn look(&self) -> Vitals {
        lock(&self.0).clone()
    }

    /// A transaction has taken so many records.
    pub(super) fn took(&self, now: Timestamp, taken: u64, dropped: u64, faulted: u64) {
        let mut vitals = lock(&self.0);
        vitals.taken += taken;
        vitals.dropped += dropped;
        vitals.faulted += faulted;
        vitals.failures = 0;
        vitals.last_success = Some(now);
    }

    /// A request was taken.
    pub(super) fn sent(&self, now: Timestamp) {
        let mut vitals = lock(&self.0);
        vitals.sent += 1;
        vitals.failures = 0;
        vitals.last_success = Some(now);
        vitals.paused = None;
    }

    /// Something failed; returns how often in a row.
    pub(super) fn failed(&self, now: Timestamp, error: &str) -> u32 {
        let mut vitals = lock(&self.0);
        vitals.failures = vitals.failures.saturating_add(1);
        vitals.last_error = Some((now, error.to_owned()));
        vitals.failures
    }

    /// Requests are held back.
    pub(super) fn pause(&self, reason: &str) {
        lock(&self.0).paused = Some(reason.to_owned());
    }

    /// What was lost, as far as is known now.
    pub(super) fn lost(&self, lost: Vec<LostRecords>) {
        lock(&self.0).lost = lost;
    }
}
