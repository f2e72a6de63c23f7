//! What is done in the background: the space of trimmed and dropped records is given back, and
//! expired producers are forgotten. All of it is found again after a crash.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use fjall::{AbstractTree, Keyspace, PersistMode};

use super::commit::Work;
use super::disk;
use super::engine::{Engine, MEMTABLE_BYTES};
use super::keys::end::{self, End};
use super::keys::{PartitionKey, TRIMMED_KEY, log, producer, trim};
use super::search;
use super::shared::Shared;
use crate::{ProjectName, StoreError, Timestamp, TopicId};

/// A log keyspace is compacted once this much of it was trimmed or dropped, …
const RECLAIM_BYTES_MIN: u64 = 16 << 20;
/// … and at least this part of it: compaction visits all keys of the keyspace.
const RECLAIM_PART: u64 = 16;
/// With so much more trimmed, of all keyspaces, the next turn does not wait for its interval.
const URGENT_BYTES: u64 = 1 << 30;
/// A dropped topic is reclaimed after this, however small it is.
const DROP_WAIT_MAX: Duration = Duration::from_secs(10 * 60);
/// Rewriting blob files takes at most this many times the room that it frees: a quarter of each is
/// stale, or it is left alone.
const REWRITE_TIMES: u64 = 3;
/// Expired producers that are forgotten together: a lot with them is written within milliseconds, …
const FORGET_MAX: usize = 64;
/// … and publishers have the committer to themselves for so long before the next.
const FORGET_PAUSE: Duration = Duration::from_millis(10);

/// A keyspace of which so much was trimmed is compacted without a flush before: little of it is in
/// memory, and what is, is found later.
const FLUSHED_BYTES: u64 = 4 * MEMTABLE_BYTES;
/// After each keyspace publishers have the disk for this many times as long, …
const REST_TIMES: u32 = 4;
/// … but not longer than this.
const REST_MAX: Duration = Duration::from_secs(1);
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
    /// All of it that the last turn left, since it did not pay.
    left: u64,
    /// When dropped topics that hold something were first seen.
    dropped: HashMap<TopicId, Duration>,
    closed: bool,
    /// How often the engine was taken away: what was begun on it may not be done.
    interruptions: u64,
}

/// Which keyspaces to compact.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reclaim {
    /// Those where it pays.
    Worthwhile,
    /// All that hold anything trimmed or dropped.
    All,
}

impl Pending {
    /// Whether so much was trimmed since the last turn that the next is not left to the interval.
    fn is_urgent(&self) -> bool {
        self.trimmed.iter().sum::<u64>() >= self.left + URGENT_BYTES
    }
}

impl Chores {
    pub(super) fn trimmed(&self, partition: PartitionKey, bytes: u64) {
        let mut pending = self.lock();
        if let Some(trimmed) = pending.trimmed.get_mut(log::shard(partition)) {
            *trimmed += bytes;
        }
        if pending.is_urgent() {
            self.changed.notify_all();
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

    /// When each of these topics was first seen, `now` at the latest; all others are forgotten.
    fn seen(
        &self,
        topics: impl Iterator<Item = TopicId>,
        now: Duration,
    ) -> HashMap<TopicId, Duration> {
        let mut pending = self.lock();
        let since = |topic| pending.dropped.get(&topic).copied().unwrap_or(now);
        pending.dropped = topics.map(|topic| (topic, since(topic))).collect();
        pending.dropped.clone()
    }

    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.interrupt();
    }

    /// Ends the turn that is under way: the engine is opened again.
    pub(super) fn interrupt(&self) {
        self.lock().interruptions += 1;
        self.changed.notify_all();
    }

    fn is_closed(&self) -> bool {
        self.lock().closed
    }

    fn lock(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the next turn; `false` once the store is closed. It comes early if much was trimmed.
    fn wait(&self, interval: Duration) -> bool {
        let waited = self.changed.wait_timeout_while(self.lock(), interval, |pending| {
            !pending.closed && !pending.is_urgent()
        });
        !waited.unwrap_or_else(PoisonError::into_inner).0.closed
    }

    /// A turn is over, done or not.
    fn end_turn(&self) {
        let mut pending = self.lock();
        pending.left = pending.trimmed.iter().sum();
    }

    fn pause(&self, time: Duration) {
        drop(self.changed.wait_timeout(self.lock(), time));
    }
}

/// Does the chores, a turn an interval, until the store is closed.
pub(super) fn run(shared: &Arc<Shared>) {
    while shared.chores.wait(shared.config.housekeeping_interval) {
        let done = reclaim(shared, Reclaim::Worthwhile).and(forget_expired_producers(shared));
        shared.chores.end_turn();
        if let Err(error) = done
            && !shared.chores.is_closed()
        {
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

/// The engine, a step at a time: who closes or reopens it waits for one step at most. A compaction
/// that runs cannot be interrupted.
struct Turn<'a> {
    shared: &'a Shared,
    interruptions: u64,
}

impl<'a> Turn<'a> {
    fn begin(shared: &'a Shared) -> Self {
        Self { shared, interruptions: shared.chores.lock().interruptions }
    }

    /// Runs `step`, unless the engine has failed or was taken away since the turn began.
    fn step<R>(
        &self,
        step: impl FnOnce(&Engine) -> Result<R, StoreError>,
    ) -> Result<R, StoreError> {
        self.shared.engine.with(|engine| {
            let interruptions = self.shared.chores.lock().interruptions;
            if interruptions != self.interruptions || self.shared.failure().is_some() {
                let reason = "housekeeping was interrupted".to_owned();
                return Err(StoreError::Io { reason });
            }
            step(engine)
        })
    }
}

/// A dropped topic whose rows are still there.
struct Dropped {
    topic: TopicId,
    /// Bytes that were not trimmed before, by each log keyspace that may hold entries of it.
    bytes: BTreeMap<usize, u64>,
}

impl Dropped {
    fn find(shared: &Shared, engine: &Engine, topic: TopicId) -> Result<Self, StoreError> {
        let mut bytes = BTreeMap::new();
        for guard in engine.meta.prefix(trim::topic_prefix(topic)) {
            bytes.entry(log::shard(trim::parse_key(&guard.key()?)?)).or_default();
        }
        for guard in engine.meta.prefix(end::topic_prefix(topic)) {
            let (key, value) = guard.into_inner()?;
            let partition = end::parse_key(&key)?;
            let trimmed = shared.gone.point(partition).bytes;
            *bytes.entry(log::shard(partition)).or_default() +=
                End::decode(&value)?.bytes.saturating_sub(trimmed);
        }
        Ok(Self { topic, bytes })
    }
}

/// Gives the space of trimmed and dropped records back.
pub(super) fn reclaim(shared: &Shared, reclaim: Reclaim) -> Result<(), StoreError> {
    let turn = Turn::begin(shared);
    // Found before the compaction: of these alone nothing is left after it.
    let dropped = turn.step(|engine| {
        let topics = shared.gone.dropped().into_iter();
        topics.map(|topic| Dropped::find(shared, engine, topic)).collect::<Result<Vec<_>, _>>()
    })?;
    let shards = turn.step(|engine| Ok(shards_to_compact(shared, engine, &dropped, reclaim)))?;
    for &shard in &shards {
        let started = shared.clock.monotonic();
        let trimmed = shared.chores.trimmed_bytes(shard);
        let is_dropped_from = dropped.iter().any(|topic| topic.bytes.contains_key(&shard));
        if is_dropped_from || trimmed < FLUSHED_BYTES {
            flush(&turn, |engine| engine.shard(shard))?;
        }
        compact(&turn, |engine| engine.shard(shard))?;
        shared.chores.reclaimed(shard, trimmed);
        if reclaim == Reclaim::Worthwhile && shared.disk_full().is_none() {
            shared.chores.pause(rest(shared.clock.monotonic().saturating_sub(started)));
        }
    }
    if !shards.is_empty() {
        flush(&turn, |engine| &engine.index)?;
        compact(&turn, |engine| &engine.index)?;
        turn.step(release)?;
    }
    for Dropped { topic, bytes } in dropped {
        if bytes.keys().all(|shard| shards.contains(shard)) {
            submit(shared, Work::ForgetTopic(topic));
        }
    }
    Ok(())
}

/// How long publishers have the disk to themselves after a keyspace that took so long.
fn rest(took: Duration) -> Duration {
    took.saturating_mul(REST_TIMES).min(REST_MAX)
}

/// The log keyspaces that are worth it. A dropped topic is reclaimed from all of its keyspaces, if
/// from any.
fn shards_to_compact(
    shared: &Shared,
    engine: &Engine,
    dropped: &[Dropped],
    reclaim: Reclaim,
) -> BTreeSet<usize> {
    let pays = |&shard: &usize| {
        let dropped = dropped.iter().filter_map(|topic| topic.bytes.get(&shard));
        let bytes = shared.chores.trimmed_bytes(shard) + dropped.sum::<u64>();
        let bytes_min = match reclaim {
            Reclaim::All => 1,
            Reclaim::Worthwhile => {
                RECLAIM_BYTES_MIN.max(engine.shard(shard).disk_space() / RECLAIM_PART)
            }
        };
        bytes >= bytes_min
    };
    let mut shards: BTreeSet<usize> = (0..log::SHARDS).filter(pays).collect();
    let now = shared.clock.monotonic();
    let holding = dropped.iter().filter(|topic| !topic.bytes.is_empty());
    let seen = shared.chores.seen(holding.map(|dropped| dropped.topic), now);
    let chosen = dropped.iter().filter(|Dropped { topic, bytes }| {
        let waited = seen.get(topic).map_or(Duration::ZERO, |seen| now.saturating_sub(*seen));
        reclaim == Reclaim::All
            || waited >= DROP_WAIT_MAX
            || bytes.keys().any(|shard| shards.contains(shard))
    });
    let theirs: Vec<usize> = chosen.flat_map(|topic| topic.bytes.keys().copied()).collect();
    shards.extend(theirs);
    shards
}

/// Runs the filter over all keys of a keyspace.
fn compact(turn: &Turn<'_>, keyspace: impl Fn(&Engine) -> &Keyspace) -> Result<(), StoreError> {
    // Counts what is destroyed of each blob file; the next compaction acts on it.
    turn.step(|engine| Ok(keyspace(engine).major_compact()?))?;
    turn.step(|engine| {
        if should_rewrite(turn.shared, keyspace(engine)) {
            keyspace(engine).major_compact()?;
        }
        Ok(())
    })
}

/// Flushes what is in memory, so that nothing of it is left to be written later. What comes in
/// meanwhile is not waited for.
fn flush(turn: &Turn<'_>, keyspace: impl Fn(&Engine) -> &Keyspace) -> Result<(), StoreError> {
    let last = turn.step(|engine| {
        let last = keyspace(engine).tree.get_highest_memtable_seqno();
        keyspace(engine).rotate_memtable()?;
        Ok(last)
    })?;
    let is_flushed = |engine: &Engine| {
        // A database that a failed flush has poisoned never gets there: then this fails.
        engine.db.persist(PersistMode::Buffer)?;
        let keyspace = keyspace(engine);
        Ok(keyspace.sealed_memtable_count() == 0
            || keyspace.tree.get_highest_persisted_seqno() >= last)
    };
    while !turn.step(is_flushed)? {
        turn.shared.chores.pause(FLUSH_POLL);
    }
    Ok(())
}

/// Whether enough bytes of blob files are stale, and the disk has room, to rewrite those files.
fn should_rewrite(shared: &Shared, keyspace: &Keyspace) -> bool {
    let stale = keyspace.fragmented_blob_bytes();
    let all = keyspace.disk_space();
    let room = stale.saturating_mul(REWRITE_TIMES).min(all.saturating_sub(stale));
    let free = disk::free_bytes(&shared.config.path).unwrap_or_default();
    stale > all / RECLAIM_PART && free >= shared.config.reserve_bytes.saturating_add(room)
}

/// Removes the files that compaction has replaced: fjall keeps them for readers of the past until a
/// memtable is rotated after a later write.
fn release(engine: &Engine) -> Result<(), StoreError> {
    engine.wait_for_flushes()?;
    engine.index.insert(TRIMMED_KEY, Bytes::new())?;
    engine.index.rotate_memtable()?;
    Ok(())
}

/// Forgets all producers that have expired by now, some at a time.
fn forget_expired_producers(shared: &Shared) -> Result<(), StoreError> {
    let now = shared.clock.now();
    let mut after = producer::EXPIRY_PREFIX.to_vec();
    loop {
        let expired = expired_producers(shared, &after, now)?;
        let is_last = expired.len() < FORGET_MAX;
        for Expired { expiry_key, producer_key } in expired {
            after.clone_from(&expiry_key);
            if !submit(shared, Work::ForgetProducer { expiry_key, producer_key }) {
                return Ok(());
            }
        }
        if is_last || shared.chores.is_closed() {
            return Ok(());
        }
        shared.chores.pause(FORGET_PAUSE);
    }
}

/// A producer that has expired.
struct Expired {
    expiry_key: Vec<u8>,
    producer_key: Vec<u8>,
}

/// The next producers behind the expiry key `after` that have expired.
fn expired_producers(
    shared: &Shared,
    after: &[u8],
    now: Timestamp,
) -> Result<Vec<Expired>, StoreError> {
    shared.engine.with(|engine| {
        let mut expired = Vec::new();
        let behind = (Bound::Excluded(after), Bound::Unbounded);
        for guard in engine.meta.range::<&[u8], _>(behind).take(FORGET_MAX) {
            let key = guard.key()?;
            if !key.starts_with(&producer::EXPIRY_PREFIX) {
                break;
            }
            let (expires, producer_key) = producer::parse_expiry_key(&key)?;
            if expires > now {
                break;
            }
            expired.push(Expired { expiry_key: key.to_vec(), producer_key });
        }
        Ok(expired)
    })
}

/// Hands the committer a chore; whether it is taken. If it is not, the next turn finds it again.
fn submit(shared: &Shared, work: Work) -> bool {
    const CHORE_BYTES: usize = 512;
    let pushed = shared.queue.push(&ProjectName::system(), work, CHORE_BYTES);
    if let Err(refused) = pushed {
        tracing::debug!(?refused, "a chore is left for the next turn");
    }
    pushed.is_ok()
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
    use super::super::shared::Failure;
    use super::super::{EmbeddedConfig, EmbeddedStore};
    use super::*;
    use crate::entry::tests::noise;
    use crate::{
        ManualClock, Partition, ProducerStep, Record, RecordBatch, Store, Timestamp, TopicChange,
        TopicId, Transaction, Trim,
    };

    const TOPIC: TopicId = TopicId(1);
    /// In another log keyspace.
    const OTHER: TopicId = TopicId(2);
    const PARTITION: Partition = Partition(0);

    fn open(path: &Path) -> EmbeddedStore {
        open_at(path, Arc::new(ManualClock::new(Timestamp(1))))
    }

    fn open_at(path: &Path, clock: Arc<ManualClock>) -> EmbeddedStore {
        let config = EmbeddedConfig { reserve_bytes: 0, ..EmbeddedConfig::new(path) };
        EmbeddedStore::open(config, clock).unwrap()
    }

    async fn append(store: &EmbeddedStore, topic: TopicId) {
        append_to(store, topic, PARTITION).await;
    }

    /// Appends a record of 1 MiB.
    async fn append_to(store: &EmbeddedStore, topic: TopicId, partition: Partition) {
        let mut batch = RecordBatch::default();
        let value = noise(1 << 20);
        batch.push(&Record { value: &value, ..Record::default() }).unwrap();
        let mut appending = Transaction::new(ProjectName::system());
        appending.append(topic, partition, batch);
        store.commit(appending).await.unwrap();
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
            append(&store, TOPIC).await;
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

    #[test]
    fn publishers_have_most_of_the_disk_and_space_comes_back_in_time() {
        let millis = Duration::from_millis;
        for (took, rested) in [(0, 0), (50, 200), (250, 1_000), (10_000, 1_000)] {
            assert_eq!(rest(millis(took)), millis(rested), "{took} ms");
        }
        assert_eq!(rest(Duration::MAX), REST_MAX);
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

    /// The log keyspaces with tables, in a store that has written too little for a flush but to
    /// compact; the index counts as the one behind them.
    fn compacted(store: &EmbeddedStore) -> Vec<usize> {
        with_engine(store, |engine| {
            let keyspaces = engine.logs().iter().chain([&engine.index]).enumerate();
            let compacted = keyspaces.filter(|(_, keyspace)| keyspace.table_count() > 0);
            compacted.map(|(number, _)| number).collect()
        })
    }

    /// The topics that are not reclaimed, once the committer has done what it was handed.
    async fn dropped(store: &EmbeddedStore) -> Vec<TopicId> {
        store.commit(Transaction::new(ProjectName::system())).await.unwrap();
        store.shared.gone.dropped()
    }

    #[tokio::test]
    async fn dropping_an_empty_topic_compacts_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let store = with_records(folder.path(), 1).await;
        change_topic(&store, TopicChange::Create(OTHER)).await;
        change_topic(&store, TopicChange::Drop(OTHER)).await;
        reclaim(&store.shared, Reclaim::Worthwhile).unwrap();
        assert_eq!(dropped(&store).await, []);
        assert_eq!(compacted(&store), Vec::<usize>::new());
    }

    #[tokio::test]
    async fn dropping_a_topic_compacts_only_the_keyspaces_that_hold_it() {
        let folder = tempfile::tempdir().unwrap();
        let store = with_records(folder.path(), 1).await;
        change_topic(&store, TopicChange::Create(OTHER)).await;
        append(&store, OTHER).await;
        change_topic(&store, TopicChange::Drop(OTHER)).await;
        store.reclaim().unwrap();
        assert_eq!(dropped(&store).await, []);
        assert_eq!(compacted(&store), [log::shard((OTHER, PARTITION)), log::SHARDS]);
        assert!(holds_entries(&store));
    }

    #[tokio::test]
    async fn a_small_topic_is_reclaimed_ten_minutes_after_it_was_dropped() {
        let folder = tempfile::tempdir().unwrap();
        let clock = Arc::new(ManualClock::new(Timestamp(1)));
        let store = open_at(folder.path(), Arc::clone(&clock));
        change_topic(&store, TopicChange::Create(TOPIC)).await;
        append(&store, TOPIC).await;
        change_topic(&store, TopicChange::Drop(TOPIC)).await;
        for (passes, is_left) in [(0, true), (599, true), (1, false)] {
            clock.advance(Duration::from_secs(passes));
            reclaim(&store.shared, Reclaim::Worthwhile).unwrap();
            assert_eq!(dropped(&store).await.contains(&TOPIC), is_left);
            assert_eq!(holds_entries(&store), is_left);
        }
    }

    #[tokio::test]
    async fn a_large_topic_is_reclaimed_at_the_next_turn() {
        let folder = tempfile::tempdir().unwrap();
        let store = with_records(folder.path(), 17).await;
        change_topic(&store, TopicChange::Drop(TOPIC)).await;
        reclaim(&store.shared, Reclaim::Worthwhile).unwrap();
        assert_eq!(dropped(&store).await, []);
        assert!(!holds_entries(&store));
    }

    #[tokio::test]
    async fn a_turn_ends_when_the_engine_is_taken_away_or_fails() {
        let folder = tempfile::tempdir().unwrap();
        let store = with_records(folder.path(), 0).await;
        let turn = Turn::begin(&store.shared);
        turn.step(|_| Ok(())).unwrap();
        store.shared.chores.interrupt();
        turn.step(|_| Ok(())).unwrap_err();
        let turn = Turn::begin(&store.shared);
        turn.step(|_| Ok(())).unwrap();
        store.shared.set_failure(Some(Failure::Full));
        turn.step(|_| Ok(())).unwrap_err();
    }

    #[tokio::test]
    async fn memtables_are_sealed_while_writes_go_on() {
        let folder = tempfile::tempdir().unwrap();
        // Would wait for ever for a memtable that nobody seals.
        let store = with_records(folder.path(), 40).await;
        let largest = with_engine(&store, |engine| {
            engine.logs().iter().map(|log| log.tree.active_memtable().size() >> 20).max()
        });
        assert!(largest <= Some(16), "{largest:?} MiB");
    }

    async fn produce(store: &EmbeddedStore, id: &str, expires: Timestamp) {
        let mut producing = Transaction::new(ProjectName::system());
        producing.producer = Some(ProducerStep {
            id: id.into(),
            epoch: 0,
            sequence: 0,
            payload_digest: None,
            expires: Some(expires),
            note: Bytes::new(),
        });
        store.commit(producing).await.unwrap();
    }

    #[tokio::test]
    async fn a_turn_forgets_all_that_have_expired() {
        let folder = tempfile::tempdir().unwrap();
        let store = with_records(folder.path(), 0).await;
        for number in 0..2 * FORGET_MAX {
            produce(&store, &format!("p-{number}"), Timestamp(1)).await;
        }
        produce(&store, "late", Timestamp(2)).await;
        store.reclaim().unwrap();
        // The project's chores are done before its next commit.
        store.commit(Transaction::new(ProjectName::system())).await.unwrap();
        let left =
            with_engine(&store, |engine| engine.meta.prefix(producer::EXPIRY_PREFIX).count());
        assert_eq!(left, 1);
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
            produce(&store, id, Timestamp(expires)).await;
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
        // fjall begins a journal with the first flush after 64 MB: with the fifth memtable of 15 MiB.
        let store = with_records(folder.path(), 76).await;
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
