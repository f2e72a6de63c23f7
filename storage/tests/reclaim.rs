//! The disk space of trimmed and dropped records comes back.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs::{self, DirEntry};
use std::io;
use std::path::Path;
use std::sync::Arc;

use stream_storage::embedded::{EmbeddedConfig, EmbeddedStore};
use stream_storage::{
    Append, Bounds, CommitError, IndexEntry, ManualClock, Partition, ProjectName, ReadError,
    ReadRequest, ReadStart, Record, RecordBatch, Records, Segment, Store, Timestamp, TopicChange,
    TopicId, Transaction, Trim,
};

const LARGE: TopicId = TopicId(1);
/// Shares its keyspaces with the large one.
const SMALL: TopicId = TopicId(9);
const PARTITIONS: u32 = 3;
const BATCH_RECORDS: u64 = 64;
const RECORD_BYTES: usize = 16 << 10;
/// Batches of 1 MiB that a round writes to each partition.
const ROUND_BATCHES: u64 = 8;

struct Data {
    folder: tempfile::TempDir,
    store: EmbeddedStore,
}

impl Data {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = open(folder.path());
        for topic in [LARGE, SMALL] {
            let mut creating = transaction();
            creating.topics.push(TopicChange::Create(topic));
            store.commit(creating).await.unwrap();
        }
        Self { folder, store }
    }

    async fn reopen(&mut self) {
        self.store.close().await;
        self.store = open(self.folder.path());
    }

    /// Appends so many batches to each partition of a topic, in turn.
    async fn append(&self, topic: TopicId, batches: u64) {
        for _ in 0..batches {
            for partition in (0..PARTITIONS).map(Partition) {
                let end = self.bounds(topic, partition).await.end;
                let mut batch = RecordBatch::default();
                for offset in end..end + BATCH_RECORDS {
                    let value = value(topic, partition, offset);
                    batch.push(&Record { value: &value, ..Record::default() }).unwrap();
                }
                let mut appending = transaction();
                appending.append(topic, partition, batch);
                self.store.commit(appending).await.unwrap();
            }
        }
    }

    /// Three rounds of the large topic with a little of the small one among them, all of it
    /// flushed to tables.
    async fn fill(&self) {
        for round in 0..3 {
            self.append(LARGE, ROUND_BATCHES / 2).await;
            self.append(SMALL, 1).await;
            self.append(LARGE, ROUND_BATCHES / 2).await;
            // Reclaiming what is trimmed flushes what is not.
            self.trim(LARGE, Trim::Before(round * BATCH_RECORDS + 1)).await;
            self.store.reclaim().unwrap();
        }
        assert!(self.disk_bytes() > 60 << 20, "{} bytes", self.disk_bytes());
    }

    async fn trim(&self, topic: TopicId, trim: Trim) {
        for partition in (0..PARTITIONS).map(Partition) {
            self.store.trim(topic, partition, trim).await.unwrap();
        }
    }

    async fn drop_topic(&self, topic: TopicId) {
        let mut dropping = transaction();
        dropping.topics.push(TopicChange::Drop(topic));
        self.store.commit(dropping).await.unwrap();
    }

    async fn bounds(&self, topic: TopicId, partition: Partition) -> Bounds {
        self.store.bounds(topic, partition).await.unwrap()
    }

    /// Reads all that a topic should have.
    async fn check(&self, topic: TopicId) {
        for partition in (0..PARTITIONS).map(Partition) {
            let Bounds { start, end, .. } = self.bounds(topic, partition).await;
            let records = self.store.read(everything(topic, partition, start)).await.unwrap();
            assert_eq!(records.next_offset, end);
            check_values(&records, topic, partition);
        }
    }

    /// Bytes of tables; journals are allocated ahead.
    fn disk_bytes(&self) -> u64 {
        folder_bytes(&self.folder.path().join("db/keyspaces"))
    }
}

fn open(path: &Path) -> EmbeddedStore {
    let config = EmbeddedConfig { reserve_bytes: 0, ..EmbeddedConfig::new(path) };
    EmbeddedStore::open(config, Arc::new(ManualClock::new(Timestamp(1)))).unwrap()
}

fn transaction() -> Transaction {
    Transaction::new(ProjectName::parse("p").unwrap())
}

/// Of each record another one, which cannot be packed.
fn value(topic: TopicId, partition: Partition, offset: u64) -> Vec<u8> {
    let mut state = topic.0 << 48 ^ u64::from(partition.0) << 32 ^ offset;
    let mut next = || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state.to_le_bytes()[7]
    };
    (0..RECORD_BYTES).map(|_| next()).collect()
}

/// A request for all records from an offset on.
fn everything(topic: TopicId, partition: Partition, offset: u64) -> ReadRequest {
    let start = ReadStart::Offset(offset);
    ReadRequest { topic, partition, start, records_max: usize::MAX, bytes_max: usize::MAX }
}

fn check_values(records: &Records, topic: TopicId, partition: Partition) {
    for record in records.segments.iter().flat_map(Segment::records) {
        let (offset, record) = record.unwrap();
        assert_eq!(record.value, value(topic, partition, offset));
    }
}

/// Bytes of all files in a folder. What is removed while they are counted counts as gone.
fn folder_bytes(path: &Path) -> u64 {
    let counted = |entry: io::Result<DirEntry>| {
        let entry = entry?;
        let metadata = entry.metadata()?;
        Ok(if metadata.is_dir() { folder_bytes(&entry.path()) } else { metadata.len() })
    };
    let or_gone = |counted: io::Result<u64>| match counted {
        Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
        counted => counted.unwrap(),
    };
    fs::read_dir(path).unwrap().map(|entry| or_gone(counted(entry))).sum()
}

#[tokio::test]
async fn trimming_most_records_frees_most_of_the_disk() {
    let data = Data::new().await;
    data.fill().await;
    let before = data.disk_bytes();
    data.trim(LARGE, Trim::KeepBytes(1 << 20)).await;
    data.store.reclaim().unwrap();
    assert!(data.disk_bytes() < before / 4, "{} of {before} bytes", data.disk_bytes());
    data.check(LARGE).await;
    data.check(SMALL).await;
}

#[tokio::test]
async fn dropping_a_topic_frees_its_disk_space() {
    let mut data = Data::new().await;
    data.fill().await;
    let before = data.disk_bytes();
    data.drop_topic(LARGE).await;
    data.store.reclaim().unwrap();
    assert!(data.disk_bytes() < before / 4, "{} of {before} bytes", data.disk_bytes());
    data.check(SMALL).await;
    data.reopen().await;
    data.check(SMALL).await;
    let mut creating = transaction();
    creating.topics.push(TopicChange::Create(LARGE));
    let refused = data.store.commit(creating).await.unwrap_err();
    assert!(matches!(refused, CommitError::Invalid { .. }), "{refused}");
}

#[tokio::test]
async fn what_was_dropped_before_reopening_is_reclaimed_after_it() {
    let mut data = Data::new().await;
    data.fill().await;
    let before = data.disk_bytes();
    data.drop_topic(LARGE).await;
    data.reopen().await;
    data.store.reclaim().unwrap();
    assert!(data.disk_bytes() < before / 4, "{} of {before} bytes", data.disk_bytes());
    data.check(SMALL).await;
}

#[tokio::test]
async fn what_was_trimmed_before_reopening_is_reclaimed_after_it() {
    let mut data = Data::new().await;
    data.fill().await;
    let before = data.disk_bytes();
    data.trim(LARGE, Trim::KeepBytes(1 << 20)).await;
    data.reopen().await;
    data.store.reclaim().unwrap();
    assert!(data.disk_bytes() < before / 4, "{} of {before} bytes", data.disk_bytes());
    data.check(LARGE).await;
    data.check(SMALL).await;
}

#[tokio::test]
async fn trimming_everything_again_and_again_leaves_next_to_nothing() {
    let data = Data::new().await;
    for _ in 0..3 {
        data.append(LARGE, ROUND_BATCHES).await;
        data.trim(LARGE, Trim::KeepBytes(0)).await;
        data.store.reclaim().unwrap();
        assert!(data.disk_bytes() < 1 << 20, "{} bytes", data.disk_bytes());
    }
    data.append(LARGE, 1).await;
    data.check(LARGE).await;
}

/// Appends 4,000 small records with a long index key each.
async fn append_indexed(data: &Data, topic: TopicId) {
    let end = data.bounds(topic, Partition(0)).await.end;
    let mut append =
        Append { topic, partition: Partition(0), batch: RecordBatch::default(), index: Vec::new() };
    for record in 0..4_000 {
        append.batch.push(&Record::default()).unwrap();
        // A hash of the offset at the front, so that little of it compresses.
        let hash = (end + u64::from(record)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let key: Vec<u8> = (0..128_u64)
            .flat_map(|n| (hash.rotate_left(7) ^ hash.wrapping_mul(n)).to_le_bytes())
            .collect();
        append.index.push(IndexEntry { kind: 0, key: key.into(), record });
    }
    let mut appending = transaction();
    appending.appends.push(append);
    data.store.commit(appending).await.unwrap();
}

#[tokio::test]
async fn index_entries_of_trimmed_and_dropped_records_free_their_space() {
    let data = Data::new().await;
    append_indexed(&data, LARGE).await;
    append_indexed(&data, SMALL).await;
    // One record is reclaimed, and what is left is flushed to tables.
    data.store.trim(LARGE, Partition(0), Trim::Before(1)).await.unwrap();
    data.store.reclaim().unwrap();
    let before = data.disk_bytes();
    assert!(before > 2 << 20, "{before} bytes");
    data.store.trim(LARGE, Partition(0), Trim::Before(4_000)).await.unwrap();
    data.store.reclaim().unwrap();
    let trimmed = data.disk_bytes();
    assert!(trimmed < before * 2 / 3, "{trimmed} of {before} bytes");
    data.drop_topic(SMALL).await;
    data.store.reclaim().unwrap();
    assert!(data.disk_bytes() < before / 4, "{} of {before} bytes", data.disk_bytes());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_reads_beside_trims_and_reclaiming_gets_the_right_records_or_is_told() {
    const ROUNDS: u64 = 60;
    let data = Arc::new(Data::new().await);
    let partition = Partition(0);
    data.append(LARGE, 1).await;
    let writing = Arc::clone(&data);
    let writer = tokio::spawn(async move {
        for round in 0..ROUNDS {
            writing.append(LARGE, 1).await;
            let trim = Trim::Before(round * BATCH_RECORDS + round % BATCH_RECORDS);
            writing.store.trim(LARGE, partition, trim).await.unwrap();
            if round % 5 == 0 {
                let reclaiming = Arc::clone(&writing);
                tokio::task::spawn_blocking(move || reclaiming.store.reclaim().unwrap());
            }
        }
    });
    let mut start = 0;
    while start < ROUNDS * BATCH_RECORDS {
        let request = ReadRequest { records_max: 5, ..everything(LARGE, partition, start) };
        match data.store.read(request).await {
            Ok(records) => {
                check_values(&records, LARGE, partition);
                start = records.next_offset;
            }
            Err(ReadError::Trimmed { earliest }) => {
                assert!(earliest > start);
                start = earliest;
            }
            Err(error) => panic!("{error}"),
        }
        assert!(!data.bounds(LARGE, partition).await.range().is_empty());
    }
    writer.await.unwrap();
}
