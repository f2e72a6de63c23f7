//! Data folders of every released format open, and hold what was written to them.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::fs;
use std::path::Path;
use std::sync::Arc;

use stream_storage::embedded::{EmbeddedConfig, EmbeddedStore};
use stream_storage::{
    CommitError, ManualClock, Partition, Position, ProducerState, ProjectName, ReadError,
    ReadRequest, ReadStart, Record, RecordBatch, Segment, Store, Timestamp, TopicId, Transaction,
};

const LIVE: TopicId = TopicId(1);
const DROPPED: TopicId = TopicId(2);

fn project() -> ProjectName {
    ProjectName::parse("default").unwrap()
}

/// A fixture as it comes out of version control, which keeps no empty folders.
fn copy(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::create_dir_all(to).unwrap();
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

fn open(path: &Path) -> EmbeddedStore {
    let config = EmbeddedConfig { reserve_bytes: 0, ..EmbeddedConfig::new(path) };
    EmbeddedStore::open(config, Arc::new(ManualClock::new(Timestamp(1_800_000_000_000)))).unwrap()
}

fn read(topic: TopicId, partition: u32, offset: u64) -> ReadRequest {
    let (partition, start) = (Partition(partition), ReadStart::Offset(offset));
    ReadRequest { topic, partition, start, records_max: 100, bytes_max: usize::MAX }
}

/// Offsets and values, after a check of what is the same in all records.
async fn values(store: &EmbeddedStore, request: ReadRequest) -> Vec<(u64, String)> {
    let records = store.read(request).await.unwrap();
    let mut found = Vec::new();
    for segment in &records.segments {
        assert_eq!(segment.timestamp(), Timestamp(1_700_000_000_000));
        for (offset, record) in segment.records().map(Result::unwrap) {
            let value = String::from_utf8(record.value.to_vec()).unwrap();
            let expected = Record {
                key: Some("key"),
                id: Some(value.as_str()).filter(|value| value.len() == 1),
                headers: vec![("ce-type", "letter")],
                value: value.as_bytes(),
                ..Record::default()
            };
            assert_eq!(record, expected);
            found.push((offset, value));
        }
    }
    found
}

async fn check(store: &EmbeddedStore, long: usize) {
    let found = values(store, read(LIVE, 0, 1)).await;
    assert_eq!(found, [(1, "b".into()), (2, "c".into()), (3, "d".into())]);
    assert_eq!(values(store, read(LIVE, 1, 1)).await, [(1, "x".repeat(long))]);
    let trimmed = store.read(read(LIVE, 0, 0)).await.unwrap_err();
    assert_eq!(trimmed, ReadError::Trimmed { earliest: 1 });

    let rows = store.scan(&project(), b"", None, 100).await.unwrap();
    let [row] = &rows[..] else { panic!("{rows:?}") };
    assert_eq!((&*row.key, &*row.versioned.value), (&b"topic/live"[..], &b"1"[..]));

    let producer = store.producer(&project(), "producer").await.unwrap();
    assert_eq!(producer, Some(ProducerState { epoch: 3, last_sequence: 0 }));
    let receipt = store.receipt(&project(), "producer", 3, 0).await.unwrap().unwrap();
    let [appended] = receipt.appends[..] else { panic!("{receipt:?}") };
    assert_eq!((appended.topic, appended.base_offset, &*receipt.note), (LIVE, 3, &b"note"[..]));

    let found = store.lookup(LIVE, 1, b"key", None, 100).await.unwrap();
    assert_eq!(found, [Position { partition: Partition(0), offset: 3 }]);
    let mut dropped = Transaction::new(project());
    dropped.append(DROPPED, Partition(0), a_record());
    let refusal = store.commit(dropped).await.unwrap_err();
    assert_eq!(refusal, CommitError::TopicGone { topic: DROPPED });
}

fn a_record() -> RecordBatch {
    let mut batch = RecordBatch::default();
    batch.push(&Record { value: b"new", ..Record::default() }).unwrap();
    batch
}

#[tokio::test]
async fn a_folder_of_format_1_holds_what_was_written_to_it() {
    check_fixture("v1", 2000).await;
}

#[tokio::test]
async fn a_folder_of_format_2_holds_what_was_written_to_it() {
    check_fixture("v2", 8000).await;
}

/// A fixture with a value of `long` bytes; in format 2 it is packed.
async fn check_fixture(name: &str, long: usize) {
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name);
    let folder = tempfile::tempdir().unwrap();
    copy(&fixture, folder.path());
    let store = open(folder.path());
    check(&store, long).await;
    store.reclaim().unwrap();
    check(&store, long).await;

    let mut appending = Transaction::new(project());
    appending.append(LIVE, Partition(0), a_record());
    store.commit(appending).await.unwrap();
    store.close().await;
    let store = open(folder.path());
    let records = store.read(read(LIVE, 0, 3)).await.unwrap();
    assert_eq!(records.segments.iter().map(Segment::count).sum::<u32>(), 2);
}
