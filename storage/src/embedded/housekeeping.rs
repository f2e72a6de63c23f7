//! What is done in the background: the space of trimmed and dropped records is given back, and
//! expired producers are forgotten. All of it is found again after a crash.

use std::collections::HashMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use super::commit::Work;
use super::keys::{PartitionKey, log, producer};
use super::queue::Refused;
use super::shared::Shared;
use crate::{ProjectName, StoreError};

/// A log keyspace is compacted once this much of it was trimmed, …
const RECLAIM_BYTES_MIN: u64 = 16 << 20;
/// … and at least this part of it: compaction visits all keys of the keyspace.
const RECLAIM_PART: u64 = 16;
/// Expired producers that are forgotten in one turn.
const FORGET_MAX: usize = 1024;

/// What there is to do.
#[derive(Debug, Default)]
pub(super) struct Chores {
    pending: Mutex<Pending>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Pending {
    /// Bytes trimmed, by log keyspace.
    trimmed: HashMap<usize, u64>,
    dropped: bool,
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
        *self.lock().trimmed.entry(log::shard(partition)).or_default() += bytes;
    }

    pub(super) fn dropped(&self) {
        self.lock().dropped = true;
    }

    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the next turn; `false` once the store is closed.
    fn wait(&self, interval: std::time::Duration) -> bool {
        let waited =
            self.changed.wait_timeout_while(self.lock(), interval, |pending| !pending.closed);
        !waited.unwrap_or_else(PoisonError::into_inner).0.closed
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

/// Gives the space of trimmed and dropped records back.
pub(super) fn reclaim(shared: &Shared, reclaim: Reclaim) -> Result<(), StoreError> {
    let (trimmed, dropped) = {
        let mut pending = shared.chores.lock();
        let dropped = std::mem::take(&mut pending.dropped);
        (std::mem::take(&mut pending.trimmed), dropped)
    };
    // Taken before the compaction: of these alone nothing is left after it.
    let topics = if dropped { shared.gone.dropped() } else { Vec::new() };
    for shard in 0..log::SHARDS {
        let bytes = trimmed.get(&shard).copied().unwrap_or_default();
        let compacted = shared.engine.with(|engine| {
            let Some(keyspace) = engine.logs().get(shard) else { return Ok(false) };
            let worthwhile = bytes >= RECLAIM_BYTES_MIN.max(keyspace.disk_space() / RECLAIM_PART);
            let wanted = dropped || worthwhile || (reclaim == Reclaim::All && bytes > 0);
            if wanted {
                compact(keyspace)?;
            }
            Ok::<_, StoreError>(wanted)
        });
        match compacted {
            Ok(true) => {}
            Ok(false) if bytes == 0 => {}
            Ok(false) => *shared.chores.lock().trimmed.entry(shard).or_default() += bytes,
            Err(error) => {
                *shared.chores.lock().trimmed.entry(shard).or_default() += bytes;
                shared.chores.lock().dropped |= dropped;
                return Err(error);
            }
        }
    }
    if dropped || !trimmed.is_empty() {
        shared.engine.with(|engine| {
            if engine.index.is_empty()? { Ok(()) } else { compact(&engine.index) }
        })?;
    }
    for topic in topics {
        submit(shared, Work::ForgetTopic(topic));
    }
    Ok(())
}

/// Flushes, so that nothing is left in memory to be written later, and runs the filter over all
/// keys.
fn compact(keyspace: &fjall::Keyspace) -> Result<(), StoreError> {
    keyspace.rotate_memtable_and_wait()?;
    keyspace.major_compact()?;
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

/// Hands the committer a chore. A full queue means that it is done in a later turn.
fn submit(shared: &Shared, work: Work) {
    const CHORE_BYTES: usize = 512;
    match shared.queue.push(&ProjectName::system(), work, CHORE_BYTES) {
        Ok(()) | Err(Refused::Closed) => {}
        Err(Refused::Busy) => shared.chores.dropped(),
    }
}

/// Housekeeping as a test asks for it, at once.
pub(super) fn run_once(shared: &Shared) -> Result<(), StoreError> {
    reclaim(shared, Reclaim::All)?;
    forget_expired_producers(shared)
}
