//! How a connector does, for people to read: in memory, from its last start on.

use std::sync::{Arc, Mutex};

use stream_storage::{Partition, Timestamp};

use super::spec::{Kind, Spec};
use super::tally::{Counted, Totals};

use crate::lock::lock;
use crate::name::TopicName;

/// How a connector does.
#[derive(Debug)]
pub(super) struct Health {
    vitals: Mutex<Vitals>,
    work: Mutex<Option<Work>>,
    totals: Arc<Totals>,
}

/// What it works at.
#[derive(Debug, Clone, Copy)]
struct Work {
    kind: Kind,
    is_remote: bool,
}

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
    /// Records that were trimmed, or lost with leave, before they were read.
    pub lost: Vec<LostRecords>,
}

/// Records that were trimmed, or lost with leave, before a connector has read them. It reads on in
/// that partition only after a replay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LostRecords {
    /// The topic.
    pub topic: TopicName,
    /// The partition of it.
    pub partition: Partition,
    /// Where it would have read next.
    pub next_offset: u64,
    /// The earliest offset that is left from there on.
    pub earliest: u64,
}

impl LostRecords {
    /// Where it stood.
    pub(super) fn place(&self) -> (&TopicName, Partition, u64) {
        (&self.topic, self.partition, self.next_offset)
    }
}

impl Health {
    /// Of one that has not worked yet.
    pub(super) fn new(totals: Arc<Totals>) -> Self {
        Self { vitals: Mutex::default(), work: Mutex::default(), totals }
    }

    /// It begins anew: what kept it from working before may be over.
    pub(super) fn begin(&self, spec: &Spec) {
        let work = Work { kind: spec.kind, is_remote: spec.url.is_some() };
        *lock(&self.work) = Some(work);
        let mut vitals = lock(&self.vitals);
        vitals.failures = 0;
        vitals.paused = None;
    }

    pub(super) fn look(&self) -> Vitals {
        lock(&self.vitals).clone()
    }

    fn count(&self, counted: Counted) -> Option<Work> {
        let work = *lock(&self.work);
        if let Some(Work { kind, .. }) = work {
            self.totals.add(kind, counted);
        }
        work
    }

    /// A transaction has taken so many records.
    pub(super) fn took(&self, now: Timestamp, taken: u64, dropped: u64, faulted: u64) {
        let work = self.count(Counted { taken, dropped, faulted, ..Counted::default() });
        let mut vitals = lock(&self.vitals);
        vitals.taken += taken;
        vitals.dropped += dropped;
        vitals.faulted += faulted;
        // That records come in does not say that requests go out.
        if work.is_none_or(|work| !work.is_remote) {
            vitals.failures = 0;
        }
        vitals.last_success = Some(now);
    }

    /// A request was taken.
    pub(super) fn sent(&self, now: Timestamp) {
        self.count(Counted { sent: 1, ..Counted::default() });
        let mut vitals = lock(&self.vitals);
        vitals.sent += 1;
        vitals.failures = 0;
        vitals.last_success = Some(now);
        vitals.paused = None;
    }

    /// Something failed; returns how often in a row.
    pub(super) fn failed(&self, now: Timestamp, error: &str) -> u32 {
        self.count(Counted { failures: 1, ..Counted::default() });
        let mut vitals = lock(&self.vitals);
        vitals.failures = vitals.failures.saturating_add(1);
        vitals.last_error = Some((now, error.to_owned()));
        vitals.failures
    }

    /// Requests are held back.
    pub(super) fn pause(&self, reason: &str) {
        lock(&self.vitals).paused = Some(reason.to_owned());
    }

    /// What was lost, as far as is known now.
    pub(super) fn lost(&self, lost: Vec<LostRecords>) {
        lock(&self.vitals).lost = lost;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connector::Settings;
    use crate::pattern::Pattern;

    fn health(url: Option<&str>) -> Health {
        let health = Health::new(Arc::default());
        let spec = Spec {
            kind: Kind::Hooks,
            pattern: Pattern::parse("a").unwrap(),
            plugin: None,
            url: url.map(ToOwned::to_owned),
            secret: None,
            settings: Settings::default(),
        };
        health.begin(&spec);
        health
    }

    #[test]
    fn requests_go_on_failing_while_records_come_in() {
        let now = Timestamp(1);
        let health = health(Some("http://h"));
        health.failed(now, "down");
        health.took(now, 1, 0, 0);
        assert_eq!(health.failed(now, "down"), 2);
        health.sent(now);
        assert_eq!(health.look().failures, 0);
    }

    #[test]
    fn taking_records_is_all_that_one_of_this_server_does() {
        let now = Timestamp(1);
        let health = health(None);
        health.failed(now, "full");
        health.took(now, 3, 1, 1);
        let vitals = health.look();
        assert_eq!((vitals.failures, vitals.taken, vitals.dropped), (0, 3, 1));
        let counted = health.totals.of(Kind::Hooks);
        assert_eq!((counted.taken, counted.failures, counted.faulted), (3, 1, 1));
    }

    #[test]
    fn what_held_it_back_is_forgotten_when_it_begins_anew() {
        let health = health(None);
        health.pause("most failed");
        health.failed(Timestamp(1), "down");
        let spec = Spec {
            kind: Kind::Hooks,
            pattern: Pattern::parse("a").unwrap(),
            plugin: None,
            url: None,
            secret: None,
            settings: Settings::default(),
        };
        health.begin(&spec);
        let vitals = health.look();
        assert_eq!((vitals.failures, vitals.paused), (0, None));
        assert!(vitals.last_error.is_some());
    }
}
