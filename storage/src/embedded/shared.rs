//! What the committer, the readers and the housekeeper share.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::EmbeddedConfig;
use super::asks::Asks;
use super::commit::Work;
use super::disk;
use super::ends::Ends;
use super::engine::EngineCell;
use super::gone::Gone;
use super::high_water::HighWater;
use super::housekeeping::Chores;
use super::keys::topic::Life;
use super::lot::Effects;
use super::open::{self, OpenError};
use super::queue::Queue;
use super::tail::Tail;
use super::watches::Watches;
use crate::{Clock, CommitError, CommitNumber, Health, Metrics, Watch};

/// The open store.
pub(super) struct Shared {
    pub(super) config: EmbeddedConfig,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) engine: EngineCell,
    pub(super) ends: Ends,
    pub(super) gone: Arc<Gone>,
    pub(super) watches: Watches,
    pub(super) tail: Tail,
    pub(super) queue: Queue<Work>,
    pub(super) high_water: HighWater,
    pub(super) chores: Chores,
    pub(super) looks: Asks,
    pub(super) seals: Asks,
    pub(super) counters: Counters,
    pub(super) failure: Mutex<Option<Failure>>,
    /// Whether the disk was seen below the reserve since the last lot that was synced.
    pub(super) ran_full: AtomicBool,
}

/// Why the engine takes no writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Failure {
    /// The disk ran full under it: it is opened again when there is room.
    Full,
    /// Anything else is for good.
    Io { reason: String },
}

impl Shared {
    /// Lets readers see a lot that is durable.
    pub(super) fn publish(&self, effects: Effects) {
        let Effects { ends, entries, trims, topics, watches, .. } = effects;
        self.counters.commits.fetch_add(effects.commits, Ordering::Relaxed);
        self.counters.records.fetch_add(effects.records, Ordering::Relaxed);
        self.counters.record_bytes.fetch_add(effects.record_bytes, Ordering::Relaxed);
        // In this order: what lies below an end is found.
        self.tail.extend(entries);
        self.ends.publish(ends);
        for (partition, point) in trims {
            let freed = point.bytes.saturating_sub(self.gone.point(partition).bytes);
            self.gone.trim(partition, point);
            self.chores.trimmed(partition, freed);
        }
        for (topic, life) in topics {
            if life == Life::Reclaimed {
                // In this order: what has an end and is not known as dropped could be read.
                self.ends.forget(topic);
                self.watches.forget(&Watch::Topic(topic));
            }
            self.gone.set_life(topic, life);
        }
        self.watches.notify(watches.into_iter());
    }

    pub(super) fn failure(&self) -> Option<Failure> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn set_failure(&self, failure: Option<Failure>) {
        *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = failure;
    }

    /// The refusal of a write while free space is below the reserve.
    pub(super) fn disk_full(&self) -> Option<CommitError> {
        self.short_of(0)
    }

    /// The refusal of what needs `bytes` of room, or the reserve if that is more. A disk that cannot
    /// be asked counts as having room: the write itself will tell.
    pub(super) fn short_of(&self, bytes: u64) -> Option<CommitError> {
        let reserve = self.config.reserve_bytes.max(bytes);
        let free = disk::free_bytes(&self.config.path).ok()?;
        self.counters.free_bytes.store(free, Ordering::Relaxed);
        if free >= reserve {
            return None;
        }
        self.ran_full.store(true, Ordering::Relaxed);
        Some(CommitError::DiskFull { free, reserve })
    }

    pub(super) fn health(&self) -> Health {
        if let Some(Failure::Io { reason }) = self.failure() {
            return Health::Poisoned { reason };
        }
        if self.queue.is_closed() {
            return Health::ShuttingDown;
        }
        match self.disk_full() {
            Some(CommitError::DiskFull { free, reserve }) => Health::DiskFull { free, reserve },
            _ => Health::Ok,
        }
    }

    /// Closes the engine and opens it from what the disk holds. The last commit is returned.
    pub(super) fn reopen(&self) -> Result<CommitNumber, OpenError> {
        let mut last_commit = CommitNumber::default();
        self.engine.replace(|| {
            self.chores.interrupt();
            self.tail.clear();
            open::rewrite_journal(&self.config.path)?;
            // A loss was accepted for the start alone.
            let config = EmbeddedConfig { accept_loss: false, ..self.config.clone() };
            let opened = open::open_engine(&config, &self.gone)?;
            self.ends.replace(opened.ends);
            last_commit = opened.last_commit;
            Ok(Some(opened.engine))
        })?;
        // What was written and not told of is there now, or is not.
        self.watches.notify_all();
        Ok(last_commit)
    }
}

/// Counters of [`Metrics`].
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) commits: AtomicU64,
    pub(super) records: AtomicU64,
    pub(super) record_bytes: AtomicU64,
    refused_busy: AtomicU64,
    free_bytes: AtomicU64,
    parked_bytes: AtomicU64,
    syncs: AtomicU64,
    sync_nanos: AtomicU64,
}

impl Counters {
    /// So many bytes wait for their producer's earlier sequences.
    pub(super) fn set_parked_bytes(&self, bytes: usize) {
        self.parked_bytes.store(bytes as u64, Ordering::Relaxed);
    }

    /// A transaction was refused because a queue was full.
    pub(super) fn busy(&self) {
        self.refused_busy.fetch_add(1, Ordering::Relaxed);
    }

    /// A lot was synced, in this time.
    pub(super) fn synced(&self, took: Duration) {
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.syncs.fetch_add(1, Ordering::Relaxed);
        self.sync_nanos.fetch_add(nanos, Ordering::Relaxed);
    }

    pub(super) fn metrics(&self, queued_bytes: usize) -> Metrics {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Metrics {
            commits: get(&self.commits),
            syncs: get(&self.syncs),
            sync_nanos: get(&self.sync_nanos),
            records: get(&self.records),
            record_bytes: get(&self.record_bytes),
            refused_busy: get(&self.refused_busy),
            queued_bytes: queued_bytes as u64 + get(&self.parked_bytes),
            free_bytes: get(&self.free_bytes),
        }
    }
}
