//! What is counted of all queues together.

use std::sync::atomic::{AtomicU64, Ordering};

/// What happened to jobs since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct QueueMetrics {
    /// Put into a queue.
    pub enqueued: u64,
    /// Taken.
    pub claimed: u64,
    /// Done.
    pub completed: u64,
    /// Tries that failed and are to be followed by another.
    pub failed: u64,
    /// Given up.
    pub dead: u64,
    /// Refused, since somebody else had taken the job or nobody held it.
    pub stale: u64,
}

/// What a transaction adds.
pub(super) type Tally = QueueMetrics;

#[derive(Debug, Default)]
pub(super) struct Counters {
    enqueued: AtomicU64,
    claimed: AtomicU64,
    completed: AtomicU64,
    failed: AtomicU64,
    dead: AtomicU64,
    stale: AtomicU64,
}

impl Counters {
    pub(super) fn add(&self, tally: Tally) {
        let Tally { enqueued, claimed, completed, failed, dead, stale } = tally;
        let all = [
            (&self.enqueued, enqueued),
            (&self.claimed, claimed),
            (&self.completed, completed),
            (&self.failed, failed),
            (&self.dead, dead),
            (&self.stale, stale),
        ];
        for (counter, count) in all {
            if count > 0 {
                counter.fetch_add(count, Ordering::Relaxed);
            }
        }
    }

    pub(super) fn now(&self) -> QueueMetrics {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        QueueMetrics {
            enqueued: of(&self.enqueued),
            claimed: of(&self.claimed),
            completed: of(&self.completed),
            failed: of(&self.failed),
            dead: of(&self.dead),
            stale: of(&self.stale),
        }
    }
}
