//! What can be seen of each version of a plugin: counters since the server started.

use std::sync::Mutex;
use std::time::Duration;

use super::log::GuestLog;
use crate::lock::lock;
use crate::stage::Cause;

/// Upper bounds of the latency buckets, in seconds.
pub const BUCKETS: [f64; 12] =
    [0.000_01, 0.000_05, 0.000_1, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.05, 0.1, 0.5, 3.0];

/// What happened to the calls of one version.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Counters {
    /// Calls that were made.
    pub calls: u64,
    /// Events that they brought.
    pub events: u64,
    /// Events per [`Outcome`].
    pub outcomes: [u64; Outcome::ALL.len()],
    /// Calls that failed, per [`Cause`].
    pub faults: [u64; Cause::ALL.len()],
    /// Calls per latency bucket; the last is for those beyond all bounds.
    pub buckets: [u64; BUCKETS.len() + 1],
    /// Time spent in calls.
    pub busy: Duration,
    /// Time that calls waited for a thread.
    pub queued: Duration,
    /// The longest such wait.
    pub queued_max: Duration,
    /// The most memory that an instance had, in bytes.
    pub memory_peak: usize,
    /// Instances started.
    pub instances: u64,
}

/// What was said of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// A validator accepted it.
    Accepted,
    /// A validator rejected it.
    Rejected,
    /// A partition was chosen.
    Partitioned,
    /// A router named topics for it, or none.
    Routed,
    /// A transform kept it.
    Kept,
    /// A transform replaced it.
    Replaced,
    /// A transform dropped it.
    Dropped,
}

impl Outcome {
    /// All of them, in the order of their declaration.
    pub const ALL: [Self; 7] = [
        Self::Accepted,
        Self::Rejected,
        Self::Partitioned,
        Self::Routed,
        Self::Kept,
        Self::Replaced,
        Self::Dropped,
    ];

    /// Its word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Rejected => "rejected",
            Self::Partitioned => "partitioned",
            Self::Routed => "routed",
            Self::Kept => "kept",
            Self::Replaced => "replaced",
            Self::Dropped => "dropped",
        }
    }
}

/// Counters and log of one version of a plugin.
#[derive(Debug, Default)]
pub struct Seen {
    counters: Mutex<Counters>,
    /// What it wrote.
    pub log: std::sync::Arc<GuestLog>,
}

/// What one call took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// In the guest.
    pub time: Duration,
    /// Waiting for a thread.
    pub queued: Duration,
    /// Bytes of the instance's memories when it was over.
    pub memory: usize,
}

impl Seen {
    /// The counters now.
    pub fn counters(&self) -> Counters {
        *lock(&self.counters)
    }

    pub(super) fn started(&self) {
        lock(&self.counters).instances += 1;
    }

    pub(super) fn called(&self, events: usize, usage: Usage, fault: Option<Cause>) {
        let mut counters = lock(&self.counters);
        counters.calls += 1;
        counters.events += events as u64;
        counters.busy += usage.time;
        counters.queued += usage.queued;
        counters.queued_max = counters.queued_max.max(usage.queued);
        counters.memory_peak = counters.memory_peak.max(usage.memory);
        let seconds = usage.time.as_secs_f64();
        let bucket = BUCKETS.iter().position(|bound| seconds <= *bound).unwrap_or(BUCKETS.len());
        if let Some(bucket) = counters.buckets.get_mut(bucket) {
            *bucket += 1;
        }
        if let Some(cause) = fault {
            count_cause(&mut counters, cause);
        }
    }

    /// A call that was not made.
    pub(super) fn refused(&self, cause: Cause) {
        count_cause(&mut lock(&self.counters), cause);
    }

    pub(super) fn said(&self, outcomes: [u64; Outcome::ALL.len()]) {
        let mut counters = lock(&self.counters);
        for (sum, more) in counters.outcomes.iter_mut().zip(outcomes) {
            *sum += more;
        }
    }
}

fn count_cause(counters: &mut Counters, cause: Cause) {
    let place = Cause::ALL.iter().position(|other| *other == cause);
    if let Some(faults) = place.and_then(|place| counters.faults.get_mut(place)) {
        *faults += 1;
    }
}
