//! The fjall database and its keyspaces; the place that names its options.

use std::ops::Bound;
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use bytes::Bytes;
use fjall::compaction::Leveled;
use fjall::config::CompressionPolicy;
use fjall::{
    AbstractTree, CompressionType, Database, Keyspace, KeyspaceCreateOptions, KvSeparationOptions,
    PersistMode, Readable, Snapshot,
};

use super::gone::{Gone, GoneFilterFactory};
use super::keys::{PartitionKey, log};
use crate::{DecodeError, StoreError};

/// An open database.
pub(super) struct Engine {
    pub(super) db: Database,
    pub(super) meta: Keyspace,
    pub(super) index: Keyspace,
    logs: Vec<Keyspace>,
}

/// Bytes of a keyspace in memory before fjall asks for a flush. Eight of them are about the most that
/// writes hold in memory, and what a start has to read back from the journal. fjall keeps with a keyspace
/// what it was made with.
pub(super) const MEMTABLE_BYTES: u64 = 16 << 20;
/// From so many bytes on a memtable is sealed, …
///
/// Its flush writes it in one piece, and what is synced meanwhile waits behind that. Half of this makes
/// waits no shorter, and each flush syncs several times, whatever it holds.
const SEALED_BYTES: u64 = 6 << 20;
/// … and from so many on writes wait until it is.
const UNSEALED_BYTES_MAX: u64 = 15 << 20;
/// From so many bytes in all log keyspaces on the largest memtable is sealed: half of what they may
/// have, so that keyspaces that fill evenly are flushed one after the other and not all at once.
const LOGS_SEALED_BYTES: u64 = SEALED_BYTES * log::SHARDS as u64 / 2;
/// So many memtables that were flushed are compacted at once, …
const L0_RUNS: u8 = 8;
/// … into tables of this size. The first level takes as many of these: 256 MiB.
const TABLE_BYTES: u64 = 32 << 20;
/// Journals are kept until what they hold is flushed, and read on start.
const JOURNAL_BYTES_MAX: u64 = 512 << 20;
/// Entries at least this long are kept apart from their keys, so that compaction moves keys only.
const SEPARATE_BYTES_MIN: u32 = 1 << 10;
const BLOB_FILE_BYTES: u64 = 64 << 20;
/// Blob files of which this part is destroyed are rewritten, …
const BLOB_STALE_PART: f32 = 0.25;
/// … all of them: fjall's default spares the newest three quarters, for good if they are few.
const BLOB_AGE_PART: f32 = 1.0;

/// fjall waits for ever at four; one more may be sealed while a lot is written.
const SEALED_MEMTABLES_MAX: usize = 2;
/// fjall slows writes down at 20 and waits for ever at 30.
const L0_RUNS_MAX: usize = 20;
const FLUSH_POLL: Duration = Duration::from_millis(1);

impl Engine {
    /// Opens or makes the database in the folder `path`.
    pub(super) fn open(path: &Path, cache_bytes: u64, gone: &Arc<Gone>) -> fjall::Result<Self> {
        let gone = Arc::clone(gone);
        let db = Database::builder(path)
            .cache_size(cache_bytes)
            .journal_compression(CompressionType::None)
            .max_journaling_size(JOURNAL_BYTES_MAX)
            .with_compaction_filter_factories(Arc::new(move |keyspace| {
                let factory = GoneFilterFactory::for_keyspace(keyspace, Arc::clone(&gone))?;
                Some(Arc::new(factory))
            }))
            .open()?;
        let meta = db.keyspace("meta", options)?;
        let index = db.keyspace("index", options)?;
        let logs = (0..log::SHARDS)
            .map(|shard| db.keyspace(&format!("log-{shard}"), log_options))
            .collect::<Result<_, _>>()?;
        Ok(Self { db, meta, index, logs })
    }

    /// The keyspace of a partition's entries.
    pub(super) fn log(&self, partition: PartitionKey) -> &Keyspace {
        self.shard(log::shard(partition))
    }

    /// A log keyspace.
    #[expect(clippy::indexing_slicing, reason = "a shard is below the number of log keyspaces")]
    pub(super) fn shard(&self, shard: usize) -> &Keyspace {
        &self.logs[shard]
    }

    /// All log keyspaces.
    pub(super) fn logs(&self) -> &[Keyspace] {
        &self.logs
    }

    /// What readers look at.
    pub(super) fn view(&self) -> View<'_> {
        View { engine: self, snapshot: self.db.snapshot() }
    }

    /// A row of `meta`, for the committer: while a lot is written others see parts of it here.
    pub(super) fn meta(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        Ok(self.meta.get(key)?.map(Bytes::from))
    }

    /// Whether there is something to seal.
    pub(super) fn is_full(&self) -> bool {
        self.keyspaces().any(is_full) || self.are_logs_full()
    }

    /// Whether the log keyspaces hold so much together that one of them is sealed.
    fn are_logs_full(&self) -> bool {
        self.logs.iter().map(unsealed).sum::<u64>() >= LOGS_SEALED_BYTES
    }

    /// Seals what is full, and deletes files that no reader needs any more. Blocks on I/O.
    ///
    /// fjall does it too, but asks its threads anew with each write, over a channel that they too write
    /// to: once it is full of that, all of them may wait for each other. Sealed here, long before fjall
    /// finds it full, there is nothing to ask.
    pub(super) fn seal(&self) -> fjall::Result<()> {
        for keyspace in self.keyspaces().filter(|keyspace| is_full(keyspace)) {
            keyspace.rotate_memtable()?;
        }
        if self.are_logs_full()
            && let Some(largest) = self.logs.iter().max_by_key(|keyspace| unsealed(keyspace))
        {
            largest.rotate_memtable()?;
        }
        Ok(())
    }

    /// Waits while the sealer, flushes or compactions are behind.
    ///
    /// fjall does so too, within a write, but waits for ever if what it waits for has failed; so it must
    /// never come to that: here a failure ends the wait.
    pub(super) fn wait_for_flushes(&self) -> fjall::Result<()> {
        while self.is_behind() {
            // Fails once the database is poisoned.
            self.db.persist(PersistMode::Buffer)?;
            if self.keyspaces().any(|keyspace| unsealed(keyspace) >= UNSEALED_BYTES_MAX) {
                // Who waits may be the only one: the sealer is asked by the committer, before it writes.
                self.seal()?;
            }
            std::thread::park_timeout(FLUSH_POLL);
        }
        Ok(())
    }

    /// Whether a write has to wait for the sealer, flushes or compactions.
    pub(super) fn is_behind(&self) -> bool {
        self.keyspaces().any(|keyspace| {
            unsealed(keyspace) >= UNSEALED_BYTES_MAX
                || keyspace.sealed_memtable_count() >= SEALED_MEMTABLES_MAX
                || keyspace.tree.l0_run_count() >= L0_RUNS_MAX
        })
    }

    fn keyspaces(&self) -> impl Iterator<Item = &Keyspace> {
        self.logs.iter().chain([&self.meta, &self.index])
    }

    /// Makes all that was written before safe against power loss.
    pub(super) fn sync(&self) -> fjall::Result<()> {
        self.db.persist(PersistMode::SyncData)
    }
}

/// The database at one moment: what one lot wrote is seen whole or not at all.
pub(super) struct View<'a> {
    engine: &'a Engine,
    snapshot: Snapshot,
}

impl View<'_> {
    /// A row of `meta`.
    pub(super) fn meta(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        Ok(self.snapshot.get(&self.engine.meta, key)?.map(Bytes::from))
    }

    /// Rows of `meta` from `start` on.
    pub(super) fn meta_from(&self, start: Bound<&[u8]>) -> fjall::Iter {
        self.snapshot.range::<&[u8], _>(&self.engine.meta, (start, Bound::Unbounded))
    }

    /// Entries of the index from `start` to `end`.
    pub(super) fn index_between(&self, start: Bound<&[u8]>, end: Bound<&[u8]>) -> fjall::Iter {
        self.snapshot.range::<&[u8], _>(&self.engine.index, (start, end))
    }
}

/// Bytes of a keyspace that are written to its memtable.
fn unsealed(keyspace: &Keyspace) -> u64 {
    keyspace.tree.active_memtable().size()
}

/// Whether it is sealed, whatever the others hold.
fn is_full(keyspace: &Keyspace) -> bool {
    unsealed(keyspace) >= SEALED_BYTES
}

fn options() -> KeyspaceCreateOptions {
    let leveled = Leveled::default().with_l0_threshold(L0_RUNS).with_table_target_size(TABLE_BYTES);
    KeyspaceCreateOptions::default()
        .max_memtable_size(MEMTABLE_BYTES)
        .compaction_strategy(Arc::new(leveled))
}

fn log_options() -> KeyspaceCreateOptions {
    let separation = KvSeparationOptions::default()
        .compression(CompressionType::None)
        .file_target_size(BLOB_FILE_BYTES)
        .separation_threshold(SEPARATE_BYTES_MIN)
        .staleness_threshold(BLOB_STALE_PART)
        .age_cutoff(BLOB_AGE_PART);
    options()
        .data_block_compression_policy(CompressionPolicy::disabled())
        .with_kv_separation(Some(separation))
}

/// The open engine; gone while it is reopened and after the store is closed.
pub(super) struct EngineCell(RwLock<Option<Engine>>);

impl EngineCell {
    pub(super) fn new(engine: Engine) -> Self {
        Self(RwLock::new(Some(engine)))
    }

    /// Runs `use_engine` on the open engine. Blocks while it is being reopened.
    pub(super) fn with<R, E: From<StoreError>>(
        &self,
        use_engine: impl FnOnce(&Engine) -> Result<R, E>,
    ) -> Result<R, E> {
        match &*self.0.read().unwrap_or_else(PoisonError::into_inner) {
            Some(engine) => use_engine(engine),
            None => Err(StoreError::Io { reason: "the store is closed".into() }.into()),
        }
    }

    /// Whether there is an engine; `false` also while it is being reopened.
    pub(super) fn is_open(&self) -> bool {
        self.0.try_read().is_ok_and(|engine| engine.is_some())
    }

    /// Closes the engine, then lets `open` make the next one, while nobody reads.
    pub(super) fn replace<E>(
        &self,
        open: impl FnOnce() -> Result<Option<Engine>, E>,
    ) -> Result<(), E> {
        let mut engine = self.0.write().unwrap_or_else(PoisonError::into_inner);
        drop(engine.take());
        *engine = open()?;
        Ok(())
    }

    /// Closes the engine for good.
    pub(super) fn close(&self) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).take();
    }
}

impl From<fjall::Error> for StoreError {
    fn from(error: fjall::Error) -> Self {
        Self::Io { reason: error.to_string() }
    }
}

impl From<DecodeError> for StoreError {
    fn from(error: DecodeError) -> Self {
        Self::Corrupt { reason: error.to_string() }
    }
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    fn engine() -> (TempDir, Engine) {
        let folder = tempfile::tempdir().unwrap();
        let engine = Engine::open(folder.path(), 1 << 20, &Arc::default()).unwrap();
        (folder, engine)
    }

    /// A twelfth of what is sealed.
    const FILL: usize = 512 << 10;

    fn fill(keyspace: &Keyspace) {
        keyspace.insert("key", vec![0; FILL]).unwrap();
    }

    /// How often a keyspace was filled since it was sealed.
    fn fills(keyspace: &Keyspace) -> u64 {
        unsealed(keyspace) / FILL as u64
    }

    #[test]
    fn a_memtable_is_sealed_once_it_is_full() {
        let (_folder, engine) = engine();
        for keyspace in [&engine.meta, &engine.index, engine.shard(3)] {
            (0..11).for_each(|_| fill(keyspace));
            assert!(!engine.is_full());
            engine.seal().unwrap();
            assert_eq!(fills(keyspace), 11);
            fill(keyspace);
            assert!(engine.is_full());
            engine.seal().unwrap();
            assert!(!engine.is_full());
            assert_eq!(unsealed(keyspace), 0);
        }
    }

    #[test]
    fn memtables_that_fill_evenly_are_not_sealed_at_once() {
        let (_folder, engine) = engine();
        // More than twice what eight of them may have.
        for round in 0..24 {
            for keyspace in engine.logs() {
                fill(keyspace);
                if engine.is_full() {
                    engine.seal().unwrap();
                }
            }
            let mut sizes: Vec<_> = engine.logs().iter().map(fills).collect();
            sizes.sort_unstable();
            assert!(sizes.iter().sum::<u64>() < 48, "round {round}: {sizes:?}");
            if round >= 12 {
                let spread = sizes.last().unwrap() - sizes.first().unwrap();
                assert!(spread >= 5, "round {round}: {sizes:?}");
            }
        }
    }

    #[test]
    fn writes_wait_for_what_is_not_sealed() {
        let (_folder, engine) = engine();
        (0..29).for_each(|_| fill(&engine.meta));
        assert!(!engine.is_behind());
        fill(&engine.meta);
        assert!(engine.is_behind());
        // Whoever waits seals it if nobody else does.
        engine.wait_for_flushes().unwrap();
        assert_eq!(unsealed(&engine.meta), 0);
    }
}
