//! Opening: what is on the disk is checked, mended, opened and loaded.

use std::collections::HashMap;
use std::io;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use fjall::PersistMode;

use super::EmbeddedConfig;
use super::ends::Ends;
use super::engine::Engine;
use super::gone::Gone;
use super::keys::commit::{self, LastCommit};
use super::keys::end::{self, End};
use super::keys::topic::{self, Life};
use super::keys::trim::{self, TrimPoint};
use super::keys::{FORMAT, FORMAT_KEY, FORMAT_MIN, PartitionKey, TRIMMED_KEY, log};
use super::recovery::{self, Prepared, RecoveryError};
use super::{high_water, journal};
use crate::entry::{Header, parse_header};
use crate::{CommitNumber, StoreError, TopicId};

/// Why a store does not open.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The folder cannot be made.
    #[error("cannot use data folder `{}`: {source}", path.display())]
    Folder {
        /// The data folder.
        path: PathBuf,
        /// What happened.
        source: io::Error,
    },
    /// Another process has the folder open.
    #[error("data folder `{}` is in use by another server", path.display())]
    Locked {
        /// The data folder.
        path: PathBuf,
    },
    /// The folder was written by a later version.
    #[error("data folder `{}` has format `{got}`, this version reads `{FORMAT_MIN}` to `{FORMAT}`", path.display())]
    Format {
        /// The data folder.
        path: PathBuf,
        /// The format found.
        got: u32,
    },
    /// Synced data is missing, or what a crash left cannot be mended.
    #[error("cannot recover data folder `{}`: {reason}", path.display())]
    Recovery {
        /// The data folder.
        path: PathBuf,
        /// What is missing or wrong, and what can be done.
        reason: String,
    },
    /// The database does not open.
    #[error("cannot open data folder `{}`: {reason}", path.display())]
    Database {
        /// The data folder.
        path: PathBuf,
        /// What happened.
        reason: String,
    },
}

/// An engine and where it stands.
pub(super) struct Opened {
    pub(super) engine: Engine,
    pub(super) ends: Ends,
    pub(super) last_commit: CommitNumber,
}

/// Where fjall keeps its files.
const DATABASE: &str = "db";

/// The folder of the database within a data folder.
pub(super) fn database(data: &Path) -> PathBuf {
    data.join(DATABASE)
}

/// Opens the data folder, or makes it. What `gone` lacks is loaded from it; what it has must come
/// from there. All that is seen is durable when this returns.
pub(super) fn open_engine(config: &EmbeddedConfig, gone: &Arc<Gone>) -> Result<Opened, OpenError> {
    let EmbeddedConfig { path, accept_loss, .. } = config;
    let accept_loss = *accept_loss;
    std::fs::create_dir_all(path)
        .map_err(|source| OpenError::Folder { path: path.clone(), source })?;
    let database = database(path);
    let recovered = |error| OpenError::recovery(path, &error);
    let prepared = recovery::prepare(&database, accept_loss).map_err(recovered)?;
    let engine =
        Engine::open(&database, config.cache_bytes, gone).map_err(|error| match error {
            fjall::Error::Locked => OpenError::Locked { path: path.clone() },
            error => OpenError::database(path, &error),
        })?;
    let failed = |error: StoreError| OpenError::database(path, &error);
    check_format(&engine, path)?;
    load_gone(&engine, gone).map_err(failed)?;
    let ends = Ends::load(&engine).map_err(failed)?;
    let lost = lost_ends(&engine, &ends, gone).map_err(failed)?;
    let mut last_commit = last_commit(&engine).map_err(failed)?;
    let losses = find_losses(path, &prepared, last_commit, &lost).map_err(recovered)?;
    if !losses.is_empty() {
        let known = recovery::accept(losses, accept_loss).map_err(recovered)?;
        let row = LastCommit { last: known.max(last_commit), previous: last_commit };
        mend(&engine, &lost, row).map_err(|error| OpenError::database(path, &error))?;
        recovery::keep_accepted(path, row.last).map_err(recovered)?;
        ends.publish(lost);
        last_commit = row.last;
    }
    engine.sync().map_err(|error| OpenError::database(path, &error))?;
    Ok(Opened { engine, ends, last_commit })
}

/// Writes the last journal anew. After a failed sync the system may hold in memory, as if it were on
/// the disk, what never got there: a copy that is synced is what the next start will find.
pub(super) fn rewrite_journal(data: &Path) -> Result<(), OpenError> {
    let folder = |source| OpenError::Folder { path: data.to_owned(), source };
    let journals = journal::list(&database(data)).map_err(folder)?;
    let Some(last) = journals.last() else { return Ok(()) };
    let copy = data.join("journal.copy");
    std::fs::copy(&last.path, &copy).map_err(folder)?;
    std::fs::File::open(&copy).and_then(|file| file.sync_all()).map_err(folder)?;
    std::fs::rename(&copy, &last.path).map_err(folder)?;
    high_water::sync_folder(&database(data)).map_err(folder)
}

fn check_format(engine: &Engine, path: &Path) -> Result<(), OpenError> {
    let database = |error: &dyn std::fmt::Display| OpenError::database(path, error);
    let stored = engine.meta(&FORMAT_KEY).map_err(|error| database(&error))?;
    let got = stored.as_deref().map(|row| row.try_into().map_or(u32::MAX, u32::from_le_bytes));
    match got {
        Some(FORMAT) => Ok(()),
        None | Some(FORMAT_MIN..FORMAT) => {
            let format = FORMAT.to_le_bytes().to_vec();
            engine.meta.insert(FORMAT_KEY.to_vec(), format).map_err(|error| database(&error))
        }
        Some(got) => Err(OpenError::Format { path: path.to_owned(), got }),
    }
}

fn load_gone(engine: &Engine, gone: &Gone) -> Result<(), StoreError> {
    for guard in engine.meta.prefix(trim::PREFIX) {
        let (key, value) = guard.into_inner()?;
        gone.trim(trim::parse_key(&key)?, TrimPoint::decode(&value)?);
    }
    for guard in engine.meta.prefix(topic::PREFIX) {
        let (key, value) = guard.into_inner()?;
        gone.set_life(topic::parse_key(&key)?, Life::decode(&value)?);
    }
    Ok(())
}

fn last_commit(engine: &Engine) -> Result<CommitNumber, StoreError> {
    let stored = engine.meta(&commit::KEY)?;
    let row = stored.as_deref().map(LastCommit::decode).transpose()?;
    Ok(row.unwrap_or_default().last)
}

/// The ends that partitions should have, of those whose stored end is before what they hold.
///
/// A lot is in the journal as a whole or not at all, and fjall syncs the journal before it writes a
/// table. So entries beyond their partition's end, or a trim point there, mean that the journal lost
/// what was synced. What is left of a dropped topic says nothing.
fn lost_ends(
    engine: &Engine,
    ends: &Ends,
    gone: &Gone,
) -> Result<HashMap<PartitionKey, End>, StoreError> {
    let mut lost = HashMap::new();
    for (partition, point) in gone.points() {
        let TrimPoint { offset, bytes, commit } = point;
        let End { offset: stored, timestamp, .. } = ends.get(partition);
        if offset > stored && !is_dropped(engine, partition.0)? {
            lost.insert(partition, End { offset, bytes, timestamp, commit });
        }
    }
    for keyspace in engine.logs() {
        let mut next = keyspace.range(..TRIMMED_KEY).next();
        while let Some(guard) = next {
            let (partition, _) = log::parse_key(&guard.key()?)?;
            let end = lost.get(&partition).copied().unwrap_or_else(|| ends.get(partition));
            let behind = log::key(partition, u64::MAX);
            let beyond = log::key(partition, end.offset)..=behind;
            if let Some(last) = keyspace.range(beyond).next_back()
                && !is_dropped(engine, partition.0)?
            {
                let (key, entry) = last.into_inner()?;
                let (_, last_offset) = log::parse_key(&key)?;
                lost.insert(partition, end_after(&entry, last_offset)?);
            }
            next = keyspace
                .range::<&[u8], _>((
                    Bound::Excluded(&behind[..]),
                    Bound::Excluded(&TRIMMED_KEY[..]),
                ))
                .next();
        }
    }
    Ok(lost)
}

/// Whether a topic is dropped, reclaimed or not.
fn is_dropped(engine: &Engine, topic: TopicId) -> Result<bool, StoreError> {
    let row = engine.meta(&topic::key(topic))?;
    let life = row.as_deref().map(Life::decode).transpose()?;
    Ok(matches!(life, Some(Life::Dropped | Life::Reclaimed)))
}

fn find_losses(
    data: &Path,
    prepared: &Prepared,
    last_commit: CommitNumber,
    lost: &HashMap<PartitionKey, End>,
) -> Result<Vec<RecoveryError>, RecoveryError> {
    let journals = recovery::find_early_end(prepared, last_commit);
    let high_water = recovery::find_below_high_water(data, last_commit)?;
    let last_beyond = lost.values().map(|end| end.commit).max();
    let beyond = last_beyond.map(|commit| RecoveryError::BeyondEnds { commit });
    Ok(journals.into_iter().chain(high_water).chain(beyond).collect())
}

/// Keeps what partitions hold beyond their ends, and the number behind which commits go on. Both are
/// synced when this returns.
fn mend(engine: &Engine, lost: &HashMap<PartitionKey, End>, row: LastCommit) -> fjall::Result<()> {
    let mut batch = engine.db.batch().durability(Some(PersistMode::SyncData));
    for (partition, end) in lost {
        batch.insert(&engine.meta, end::key(*partition).to_vec(), end.encode());
    }
    batch.insert(&engine.meta, commit::KEY.to_vec(), row.encode().to_vec());
    batch.commit()
}

/// The end of a partition whose last entry is this.
fn end_after(entry: &[u8], last_offset: u64) -> Result<End, StoreError> {
    let Header { place, sections, bytes, .. } = parse_header(entry)?;
    let last = sections.last().ok_or(crate::DecodeError { what: "entry header" })?;
    Ok(End {
        offset: last_offset + 1,
        bytes: place.bytes_before + bytes,
        timestamp: last.timestamp,
        commit: last.commit,
    })
}

impl OpenError {
    fn recovery(path: &Path, error: &RecoveryError) -> Self {
        match error {
            RecoveryError::Locked { .. } => Self::Locked { path: path.to_owned() },
            error => Self::Recovery { path: path.to_owned(), reason: error.to_string() },
        }
    }

    pub(super) fn database(path: &Path, error: &dyn std::fmt::Display) -> Self {
        Self::Database { path: path.to_owned(), reason: error.to_string() }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::ops::Range;

    use super::*;
    use crate::embedded::EmbeddedStore;
    use crate::{
        ManualClock, Partition, ProjectName, ReadError, ReadRequest, ReadStart, Receipt, Record,
        RecordBatch, Records, Store, Timestamp, TopicChange, Transaction, Trim,
    };

    const TOPIC: TopicId = TopicId(1);
    const PARTITION: Partition = Partition(0);
    const PLACE: PartitionKey = (TOPIC, PARTITION);
    /// Each with one record; the first makes the topic.
    const COMMITS: usize = 5;

    fn open(data: &Path, accept_loss: bool) -> Result<EmbeddedStore, OpenError> {
        let config = EmbeddedConfig { reserve_bytes: 0, accept_loss, ..EmbeddedConfig::new(data) };
        EmbeddedStore::open(config, Arc::new(ManualClock::new(Timestamp(1))))
    }

    fn refusal(data: &Path) -> String {
        match open(data, false) {
            Err(OpenError::Recovery { reason, .. }) => reason,
            other => panic!("expected a refusal, got {:?}", other.err()),
        }
    }

    async fn append(store: &EmbeddedStore, changes: Vec<TopicChange>) -> Receipt {
        let mut batch = RecordBatch::default();
        batch.push(&Record { value: b"value", ..Record::default() }).unwrap();
        let mut transaction = Transaction::new(ProjectName::system());
        transaction.topics = changes;
        transaction.append(TOPIC, PARTITION, batch);
        store.commit(transaction).await.unwrap()
    }

    /// A store with `COMMITS` records.
    async fn with_records(data: &Path) -> EmbeddedStore {
        let store = open(data, false).unwrap();
        append(&store, vec![TopicChange::Create(TOPIC)]).await;
        for _ in 1..COMMITS {
            append(&store, Vec::new()).await;
        }
        store
    }

    async fn read(store: &EmbeddedStore, start: ReadStart) -> Result<Records, ReadError> {
        let (topic, partition) = PLACE;
        let (records_max, bytes_max) = (100, 1 << 20);
        store.read(ReadRequest { topic, partition, start, records_max, bytes_max }).await
    }

    /// The offsets that can be read.
    async fn offsets(store: &EmbeddedStore, start: ReadStart) -> Vec<u64> {
        let segments = read(store, start).await.unwrap().segments;
        segments.iter().flat_map(|segment| segment.base_offset()..segment.end_offset()).collect()
    }

    /// Cuts lots out of the only journal of a closed store.
    fn lose(data: &Path, lots: Range<usize>) {
        let [journal] = &journal::list(&database(data)).unwrap()[..] else {
            panic!("one journal expected")
        };
        let mut starts = Vec::new();
        let extent = journal::scan(&journal.path, &commit::KEY, |start, _| starts.push(start));
        let end = extent.unwrap().whole;
        starts.push(end);
        let place = |lot: usize| usize::try_from(starts[lot]).unwrap();
        let mut bytes = fs::read(&journal.path).unwrap();
        bytes.truncate(usize::try_from(end).unwrap());
        bytes.drain(place(lots.start)..place(lots.end));
        fs::write(&journal.path, bytes).unwrap();
    }

    #[tokio::test]
    async fn commit_numbers_do_not_go_back_after_an_accepted_loss() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path();
        let store = with_records(data).await;
        let cursor = append(&store, Vec::new()).await.commit;
        store.close().await;
        lose(data, 2..COMMITS + 1);
        assert!(refusal(data).contains("synced data is missing"));

        let store = open(data, true).unwrap();
        assert_eq!(offsets(&store, ReadStart::Offset(0)).await, [0, 1]);
        assert_eq!(offsets(&store, ReadStart::AfterCommit(cursor)).await, [0; 0]);
        assert!(append(&store, Vec::new()).await.commit > cursor);
        assert_eq!(offsets(&store, ReadStart::AfterCommit(cursor)).await, [2]);
        store.close().await;

        let store = open(data, false).unwrap();
        append(&store, Vec::new()).await;
        assert_eq!(offsets(&store, ReadStart::AfterCommit(cursor)).await, [2, 3]);
    }

    #[tokio::test]
    async fn commit_numbers_do_not_go_back_though_nothing_was_written_after_an_accepted_loss() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path();
        let store = with_records(data).await;
        let cursor = append(&store, Vec::new()).await.commit;
        store.close().await;
        lose(data, 2..COMMITS + 1);
        open(data, true).unwrap().close().await;

        let store = open(data, false).unwrap();
        assert!(append(&store, Vec::new()).await.commit > cursor);
    }

    /// A closed store of which the tables hold all records, and the journal the first two; the high
    /// water lags.
    async fn with_tables_ahead(data: &Path) {
        let store = with_records(data).await;
        let flushed = |engine: &Engine| engine.log(PLACE).rotate_memtable_and_wait();
        store.shared.engine.with(|engine| flushed(engine).map_err(StoreError::from)).unwrap();
        store.close().await;
        lose(data, 2..COMMITS);
        fs::remove_file(data.join(high_water::FILE_NAME)).unwrap();
    }

    #[tokio::test]
    async fn tables_ahead_of_the_journal_refuse_the_start() {
        let folder = tempfile::tempdir().unwrap();
        with_tables_ahead(folder.path()).await;
        for _ in 0..2 {
            assert_eq!(
                refusal(folder.path()),
                "synced data is missing: the store holds records up to commit `5` beyond the ends \
                 of their partitions; restore a backup, or start without what is missing with \
                 `--accept-loss`"
            );
        }
    }

    #[tokio::test]
    async fn tables_ahead_of_the_journal_are_kept_once_the_loss_is_accepted() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path();
        with_tables_ahead(data).await;
        let store = open(data, true).unwrap();
        assert_eq!(offsets(&store, ReadStart::Offset(0)).await, [0, 1, 2, 3, 4]);
        assert_eq!(offsets(&store, ReadStart::AfterCommit(CommitNumber(3))).await, [3, 4]);
        assert_eq!(append(&store, Vec::new()).await.commit, CommitNumber(6));
        store.close().await;

        let store = open(data, false).unwrap();
        assert_eq!(offsets(&store, ReadStart::AfterCommit(CommitNumber(4))).await, [4, 5]);
    }

    #[tokio::test]
    async fn records_are_not_appended_below_a_trim_point_after_an_accepted_loss() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path();
        let store = with_records(data).await;
        store.trim(TOPIC, PARTITION, Trim::Before(4)).await.unwrap();
        store.close().await;
        lose(data, 2..COMMITS);
        assert!(refusal(data).contains("synced data is missing"));

        let store = open(data, true).unwrap();
        assert_eq!(store.bounds(TOPIC, PARTITION).await.unwrap().range(), 4..4);
        append(&store, Vec::new()).await;
        assert_eq!(offsets(&store, ReadStart::Offset(4)).await, [4]);
        store.close().await;
        open(data, false).unwrap().close().await;
    }

    /// A store that has lost the records 2 and 3 out of the middle, with leave.
    async fn with_a_gap(data: &Path) -> EmbeddedStore {
        with_records(data).await.close().await;
        lose(data, 2..4);
        assert!(refusal(data).contains("synced data is missing"));
        open(data, true).unwrap()
    }

    #[tokio::test]
    async fn who_begins_to_read_in_a_gap_is_told_where_it_ends() {
        let folder = tempfile::tempdir().unwrap();
        let store = with_a_gap(folder.path()).await;
        assert_eq!(store.bounds(TOPIC, PARTITION).await.unwrap().range(), 0..5);
        assert_eq!(offsets(&store, ReadStart::Offset(0)).await, [0, 1]);
        for start in [2, 3] {
            let refused = read(&store, ReadStart::Offset(start)).await.unwrap_err();
            assert_eq!(refused, ReadError::Trimmed { earliest: 4 }, "{start}");
        }
        assert_eq!(offsets(&store, ReadStart::Offset(4)).await, [4]);
    }

    #[tokio::test]
    async fn a_cursor_below_a_trim_into_a_gap_is_told() {
        for trim in [3, 4] {
            let folder = tempfile::tempdir().unwrap();
            let data = folder.path();
            let store = with_a_gap(data).await;
            let bounds = store.trim(TOPIC, PARTITION, Trim::Before(trim)).await.unwrap();
            assert_eq!(bounds.range(), trim..5);
            store.close().await;

            // The record behind the gap is of commit 5.
            let store = open(data, false).unwrap();
            for commit in (0..4).map(CommitNumber) {
                let refused = read(&store, ReadStart::AfterCommit(commit)).await.unwrap_err();
                assert_eq!(refused, ReadError::Trimmed { earliest: trim }, "{commit}, {trim}");
            }
            assert_eq!(offsets(&store, ReadStart::AfterCommit(CommitNumber(4))).await, [4]);
        }
    }

    /// The format of a folder; with `write`, another one is written to it first.
    async fn format(data: &Path, write: Option<u32>) -> u32 {
        let store = open(data, false).unwrap();
        let stored = store.shared.engine.with(|engine| {
            if let Some(format) = write {
                engine.meta.insert(FORMAT_KEY.to_vec(), format.to_le_bytes().to_vec())?;
            }
            engine.meta(&FORMAT_KEY)
        });
        store.close().await;
        u32::from_le_bytes(stored.unwrap().unwrap().as_ref().try_into().unwrap())
    }

    #[tokio::test]
    async fn a_folder_of_an_earlier_format_becomes_the_current_and_a_later_one_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path();
        with_records(data).await.close().await;
        assert_eq!(format(data, Some(FORMAT_MIN)).await, FORMAT_MIN);
        assert_eq!(format(data, None).await, FORMAT, "an earlier version must not read it");
        assert_eq!(format(data, Some(FORMAT + 1)).await, FORMAT + 1);
        let refused = open(data, false).err().unwrap();
        assert!(matches!(refused, OpenError::Format { got, .. } if got == FORMAT + 1), "{refused}");
    }

    #[tokio::test]
    async fn what_is_left_of_a_dropped_topic_does_not_refuse_the_start() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path();
        let store = with_records(data).await;
        let mut dropping = Transaction::new(ProjectName::system());
        dropping.topics.push(TopicChange::Drop(TOPIC));
        store.commit(dropping).await.unwrap();
        let leave_entry = |engine: &Engine| {
            let key = log::key(PLACE, u64::MAX).to_vec();
            engine.log(PLACE).insert(key, "left").map_err(StoreError::from)
        };
        store.shared.engine.with(leave_entry).unwrap();
        store.close().await;

        let store = open(data, false).unwrap();
        store.reclaim().unwrap();
        store.commit(Transaction::new(ProjectName::system())).await.unwrap();
        store.shared.engine.with(leave_entry).unwrap();
        store.close().await;
        open(data, false).unwrap().close().await;
    }
}
