//! What is done in the background: the space of trimmed and dropped records is given back, and
//! expired producers are forgotten. All of it is found again after a crash.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use fjall::{Keyspace, PersistMode};

use super::commit::Work;
use super::engine::Engine;
use super::keys::{PartitionKey, TRIMMED_KEY, log, producer};
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
        shared.engine.with(|engine| {
            compact(shared, engine, &engine.index)?;
            release(engine)
        })?;
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

/// Removes the files that compaction has replaced: fjall keeps them for readers of the past until a
/// memtable is rotated after a later write.
fn release(engine: &Engine) -> Result<(), StoreError> {
    engine.index.insert(TRIMMED_KEY, Bytes::new())?;
    engine.index.rotate_memtable()?;
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

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::keys::{TRIMMED_KEY, receipt};
    use super::super::{EmbeddedConfig, EmbeddedStore};
    use super::*;
    use crate::{
        ManualClock, Partition, ProducerStep, Record, RecordBatch, Store, Timestamp, TopicChange,
        TopicId, Transaction, Trim,
    };

    const TOPIC: TopicId = TopicId(1);
    const PARTITION: Partition = Partition(0);

    fn open(path: &Path) -> EmbeddedStore {
        let config = EmbeddedConfig { reserve_bytes: 0, ..EmbeddedConfig::new(path) };
        EmbeddedStore::open(config, Arc::new(ManualClock::new(Timestamp(1)))).unwrap()
    }

    async fn change_topic(store: &EmbeddedStore, change: TopicChange) {
        let mut changing = Transaction::new(ProjectName::system());
        changing.topics.push(change);
        store.commit(changing).await.unwrap();
    }

    /// A store with so many records of 1 MiB in one partition.
    async fn with_records(path: &Path, records: usize) -> EmbeddedStore {
        let store = open(path);
        change_topic(&store, TopicChange::Create(TOPIC)).await;
        for _ in 0..records {
            let mut batch = RecordBatch::default();
            batch.push(&Record { value: &vec![7; 1 << 20], ..Record::default() }).unwrap();
            let mut appending = Transaction::new(ProjectName::system());
            appending.append(TOPIC, PARTITION, batch);
            store.commit(appending).await.unwrap();
        }
        store
    }

    fn with_engine<R>(store: &EmbeddedStore, look: impl FnOnce(&Engine) -> R) -> R {
        store.shared.engine.with(|engine| Ok::<_, StoreError>(look(engine))).unwrap()
    }

    fn holds_entries(store: &EmbeddedStore) -> bool {
        with_engine(store, |engine| {
            engine.logs().iter().any(|keyspace| keyspace.range(..TRIMMED_KEY).next().is_some())
        })
    }

    #[tokio::test]
    async fn what_is_reclaimed_does_not_come_back_from_the_journals() {
        let folder = tempfile::tempdir().unwrap();
        let store = with_records(folder.path(), 2).await;
        store.trim(TOPIC, PARTITION, Trim::KeepBytes(0)).await.unwrap();
        assert!(holds_entries(&store));
        store.reclaim().unwrap();
        assert!(!holds_entries(&store));
        store.close().await;
        let store = open(folder.path());
        assert!(!holds_entries(&store));
        assert_eq!(store.bounds(TOPIC, PARTITION).await.unwrap().range(), 2..2);
    }

    #[tokio::test]
    async fn a_producer_is_forgotten_once_it_has_expired() {
        let folder = tempfile::tempdir().unwrap();
        let store = with_records(folder.path(), 0).await;
        let project = ProjectName::system();
        let rows = |id| {
            with_engine(&store, |engine| {
                [producer::key(&project, id), receipt::key(&project, id, 0)]
                    .map(|key| engine.meta(&key).unwrap().is_some())
            })
        };
        let expiries =
            || with_engine(&store, |engine| engine.meta.prefix(producer::EXPIRY_PREFIX).count());
        for (id, expires) in [("early", 1), ("late", 2)] {
            let mut producing = Transaction::new(ProjectName::system());
            producing.producer = Some(ProducerStep {
                id: id.into(),
                epoch: 0,
                sequence: 0,
                payload_digest: None,
                expires: Some(Timestamp(expires)),
                note: Bytes::new(),
            });
            store.commit(producing).await.unwrap();
        }
        assert_eq!((rows("early"), rows("late"), expiries()), ([true; 2], [true; 2], 2));
        store.reclaim().unwrap();
        // The project's chores are done before its next commit.
        store.commit(Transaction::new(ProjectName::system())).await.unwrap();
        assert_eq!((rows("early"), rows("late"), expiries()), ([false; 2], [true; 2], 1));
    }

    #[tokio::test]
    async fn a_journal_of_reclaimed_records_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        // fjall begins a journal with the first flush after 64 MB.
        let store = with_records(folder.path(), 65).await;
        change_topic(&store, TopicChange::Drop(TOPIC)).await;
        store.reclaim().unwrap();
        with_engine(&store, |engine| {
            // The last that keeps the journal are the rows of `meta`.
            engine.meta.rotate_memtable_and_wait().unwrap();
            engine.index.insert(TRIMMED_KEY, Bytes::new()).unwrap();
            engine.index.rotate_memtable_and_wait().unwrap();
            assert_eq!(engine.db.journal_count(), 1);
        });
    }
}
