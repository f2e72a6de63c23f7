//! What is done in the background: the space of trimmed and dropped records is given back, and
//! expired producers are forgotten. All of it is found again after a crash.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fjall::{Keyspace, PersistMode};

use super::commit::Work;
use super::engine::Engine;
use super::keys::{PartitionKey, log, producer};
use super::search;
use super::shared::Shared;
use crate::{ProjectName, StoreError};

/// A log keyspace is compacted once this much of it was trimmed, …
const RECLAIM_BYTES_MIN: u64 = 16 << 20;
/// … and at least this part of it: compaction visits all keys of the keyspace.
const RECLAIM_PART: u64 = 16;
/// Expired producers that are forgotten in one turn.
const FORGET_MAX: usize = 1024;

/// How often to look whether a flush is done.
const FLUSH_POLL: Duration = Duration::from_millis(10);

/// What there is to do. Dropped topics are known elsewhere.
#[derive(Debug, Default)]
pub(super) struct Chores {
    pending: Mutex<Pending>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Pending {
    /// Bytes trimmed and not reclaimed, by log keyspace.
    trimmed: [u64; log::SHARDS],
    closed: bool,
}

/// Which keyspaces to compact.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reclaim {
    /// Those where it pays.
    Worthwhile,
    /// All that hold anything trimmed.
    All,
}

impl Chores {
    pub(super) fn trimmed(&self, partition: PartitionKey, bytes: u64) {
        if let Some(trimmed) = self.lock().trimmed.get_mut(log::shard(partition)) {
            *trimmed += bytes;
        }
    }

    /// Bytes of a log keyspace that can be reclaimed.
    fn trimmed_bytes(&self, shard: usize) -> u64 {
        self.lock().trimmed.get(shard).copied().unwrap_or_default()
    }

    fn reclaimed(&self, shard: usize, bytes: u64) {
        if let Some(trimmed) = self.lock().trimmed.get_mut(shard) {
            *trimmed = trimmed.saturating_sub(bytes);
        }
    }

    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the next turn; `false` once the store is closed.
    fn wait(&self, interval: Duration) -> bool {
        let waited =
            self.changed.wait_timeout_while(self.lock(), interval, |pending| !pending.closed);
        !waited.unwrap_or_else(PoisonError::into_inner).0.closed
    }

    fn pause(&self, time: Duration) {
        drop(self.changed.wait_timeout(self.lock(), time));
    }
}

/// Does the chores, a turn an interval, until the store is closed.
pub(super) fn run(shared: &Arc<Shared>) {
    while shared.chores.wait(shared.config.housekeeping_interval) {
        let done =
            reclaim(shared, Reclaim::Worthwhile).and_then(|()| forget_expired_producers(shared));
        if let Err(error) = done {
            tracing::warn!(%error, "housekeeping failed, it is tried again");
        }
    }
}

/// Counts what was trimmed before the store was opened and still takes space.
pub(super) fn find_trimmed(shared: &Shared) -> Result<(), StoreError> {
    shared.engine.with(|engine| {
        for (partition, point) in shared.gone.points() {
            if let Some((first, _)) = search::entry_at(engine, partition, 0)?
                && first.last_offset < point.offset
            {
                let bytes = point.bytes.saturating_sub(first.place.bytes_before);
                shared.chores.trimmed(partition, bytes);
            }
        }
        Ok(())
    })
}

/// Gives the space of trimmed and dropped records back.
pub(super) fn reclaim(shared: &Shared, reclaim: Reclaim) -> Result<(), StoreError> {
    // Taken before the compaction: of these alone nothing is left after it.
    let topics = shared.gone.dropped();
    let mut compacted = false;
    for shard in 0..log::SHARDS {
        let bytes = shared.chores.trimmed_bytes(shard);
        compacted |= shared.engine.with(|engine| {
            let Some(keyspace) = engine.logs().get(shard) else { return Ok(false) };
            let wanted = match reclaim {
                Reclaim::All => bytes > 0,
                Reclaim::Worthwhile => {
                    bytes >= RECLAIM_BYTES_MIN.max(keyspace.disk_space() / RECLAIM_PART)
                }
            };
            let wanted = wanted || !topics.is_empty();
            if wanted {
                compact(shared, engine, keyspace)?;
                shared.chores.reclaimed(shard, bytes);
            }
            Ok::<_, StoreError>(wanted)
        })?;
    }
    if compacted {
        shared.engine.with(|engine| compact(shared, engine, &engine.index))?;
    }
    for topic in topics {
        submit(shared, Work::ForgetTopic(topic));
    }
    Ok(())
}

/// Flushes, so that nothing is left in memory to be written later, and runs the filter over all
/// keys.
fn compact(shared: &Shared, engine: &Engine, keyspace: &Keyspace) -> Result<(), StoreError> {
    keyspace.rotate_memtable()?;
    while keyspace.sealed_memtable_count() > 0 {
        // A database that a failed flush has poisoned never gets there: then this fails.
        engine.db.persist(PersistMode::Buffer)?;
        shared.chores.pause(FLUSH_POLL);
    }
    keyspace.major_compact()?;
    if keyspace.blob_file_count() > 0 {
        // The first time counts what is destroyed of each blob file, the next time acts on it.
        keyspace.major_compact()?;
    }
    Ok(())
}

fn forget_expired_producers(shared: &Shared) -> Result<(), StoreError> {
    let now = shared.clock.now();
    let expired = shared.engine.with(|engine| {
        let mut expired = Vec::new();
        for guard in engine.meta.prefix(producer::EXPIRY_PREFIX).take(FORGET_MAX) {
            let key = guard.key()?;
            let (expires, producer_key) = producer::parse_expiry_key(&key)?;
            if expires > now {
                break;
            }
            expired.push((key.to_vec(), producer_key));
        }
        Ok::<_, StoreError>(expired)
    })?;
    for (expiry_key, producer_key) in expired {
        submit(shared, Work::ForgetProducer { expiry_key, producer_key });
    }
    Ok(())
}

/// Hands the committer a chore. If it is not taken, the next turn finds it again.
fn submit(shared: &Shared, work: Work) {
    const CHORE_BYTES: usize = 512;
    if let Err(refused) = shared.queue.push(&ProjectName::system(), work, CHORE_BYTES) {
        tracing::debug!(?refused, "a chore is left for the next turn");
    }
}

/// Housekeeping as a test asks for it, at once.
pub(super) fn run_once(shared: &Shared) -> Result<(), StoreError> {
    reclaim(shared, Reclaim::All)?;
    forget_expired_producers(shared)
}
