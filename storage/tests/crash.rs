//! What a crash leaves: journals cut anywhere after the last acknowledged commit, and pages that
//! became zeros.
//!
//! Each case copies the files of a running store, as a crash would leave them, damages the copy,
//! and opens it.
#![cfg(test)]

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use proptest::prelude::*;
use stream_storage::embedded::{EmbeddedConfig, EmbeddedStore, OpenError};
use stream_storage::{
    ManualClock, Partition, ProjectName, ReadError, ReadRequest, ReadStart, Record, RecordBatch,
    Store, Timestamp, TopicChange, TopicId, Transaction,
};

const TOPIC: TopicId = TopicId(1);
const PARTITION: Partition = Partition(0);
const COMMITS: u64 = 12;

/// Files as they were after each acknowledged commit.
struct Written {
    folder: tempfile::TempDir,
    /// How many bytes of the journal had been written when the commit was acknowledged.
    journal_bytes: Vec<usize>,
    journal: Vec<u8>,
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

fn open(path: &Path, accept_loss: bool) -> Result<EmbeddedStore, OpenError> {
    let config = EmbeddedConfig { reserve_bytes: 0, accept_loss, ..EmbeddedConfig::new(path) };
    EmbeddedStore::open(config, Arc::new(ManualClock::new(Timestamp(1))))
}

fn value(commit: u64) -> String {
    format!("{commit}:").repeat(usize::try_from(commit).unwrap() * 97 % 1900 + 40)
}

async fn commit(store: &EmbeddedStore, number: u64) {
    let mut transaction = Transaction::new(ProjectName::parse("p").unwrap());
    if number == 0 {
        transaction.topics.push(TopicChange::Create(TOPIC));
    }
    let mut batch = RecordBatch::default();
    let value = value(number);
    batch.push(&Record { value: value.as_bytes(), ..Record::default() }).unwrap();
    transaction.append(TOPIC, PARTITION, batch);
    assert!(store.commit(transaction).await.unwrap().durable);
}

/// The newest journal of a store.
fn journal_path(data: &Path) -> PathBuf {
    let journals = fs::read_dir(data.join("db")).unwrap().map(|entry| entry.unwrap().path());
    journals.filter(|path| path.extension().is_some_and(|e| e == "jnl")).max().unwrap()
}

/// What is written of a journal, without the zeros behind it; a test writes less than 1 MiB.
fn written_part(journal: &Path) -> Vec<u8> {
    let mut bytes = Vec::new();
    fs::File::open(journal).unwrap().take(1 << 20).read_to_end(&mut bytes).unwrap();
    bytes.truncate(bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1));
    bytes
}

/// What all cases damage.
fn written() -> &'static Written {
    static WRITTEN: OnceLock<Written> = OnceLock::new();
    WRITTEN.get_or_init(write)
}

/// Commits, and copies the files while the store is open.
fn write() -> Written {
    let data = tempfile::tempdir().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let mut journal_bytes = Vec::new();
    runtime().block_on(async {
        let store = open(data.path(), false).unwrap();
        for number in 0..COMMITS {
            commit(&store, number).await;
            journal_bytes.push(written_part(&journal_path(data.path())).len());
        }
        copy(data.path(), folder.path());
        fs::remove_file(folder.path().join("high-water")).ok();
        store.close().await;
        // Written on close: what a crash leaves at most a second later.
        fs::copy(data.path().join("high-water"), folder.path().join("synced")).unwrap();
    });
    let journal = written_part(&journal_path(folder.path()));
    Written { folder, journal_bytes, journal }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else if entry.path().extension().is_some_and(|extension| extension == "jnl") {
            fs::write(target, written_part(&entry.path())).unwrap();
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// A damaged copy.
fn damaged(written: &Written, journal: &[u8], with_high_water: bool) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    copy(written.folder.path(), folder.path());
    fs::write(journal_path(folder.path()), journal).unwrap();
    if with_high_water {
        fs::rename(folder.path().join("synced"), folder.path().join("high-water")).unwrap();
    }
    folder
}

/// What can be read: offsets and values, in order. A gap must be announced.
async fn read_all(store: &EmbeddedStore) -> Vec<(u64, String)> {
    let mut found = Vec::new();
    let mut next = 0;
    loop {
        let start = ReadStart::Offset(next);
        let request = ReadRequest {
            topic: TOPIC,
            partition: PARTITION,
            start,
            records_max: 100,
            bytes_max: 1 << 20,
        };
        let records = match store.read(request).await {
            Ok(records) => records,
            Err(ReadError::Trimmed { earliest }) => {
                assert!(earliest > next);
                next = earliest;
                continue;
            }
            // An accepted loss may have taken the commit that made the topic.
            Err(ReadError::TopicGone { .. }) => return found,
            Err(error) => panic!("{error}"),
        };
        if records.segments.is_empty() {
            return found;
        }
        for record in records.segments.iter().flat_map(stream_storage::Segment::records) {
            let (offset, record) = record.unwrap();
            found.push((offset, String::from_utf8(record.value.to_vec()).unwrap()));
        }
        next = records.next_offset;
    }
}

fn expected(commits: u64) -> Vec<(u64, String)> {
    (0..commits).map(|number| (number, value(number))).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    #[test]
    fn a_journal_cut_after_the_last_acknowledged_commit_keeps_all_that_were(
        cuts in proptest::collection::vec(
            (0..COMMITS - 1, 0..1000_usize, proptest::collection::vec(any::<u8>(), 0..40)), 1..6),
    ) {
        let written = written();
        for (acknowledged, permille, garbage) in cuts {
            let place = usize::try_from(acknowledged).unwrap();
            let (from, to) = (written.journal_bytes[place], written.journal_bytes[place + 1]);
            let cut = from + (to - from) * permille / 1000;
            let torn = [&written.journal[..cut], &garbage].concat();
            let folder = damaged(written, &torn, false);
            runtime().block_on(async {
                let store = open(folder.path(), false).unwrap();
                let found = read_all(&store).await;
                assert_eq!(found, expected(acknowledged + 1), "cut at {cut}");
                // The store goes on where it stands, and again after the next start.
                commit(&store, acknowledged + 1).await;
                store.close().await;
                drop(store);
                let store = open(folder.path(), false).unwrap();
                assert_eq!(read_all(&store).await, expected(acknowledged + 2));
                store.close().await;
            });
        }
    }

    #[test]
    fn a_zeroed_page_among_synced_commits_is_never_passed_over_in_silence(
        places in proptest::collection::vec(0..1000_usize, 1..4),
    ) {
        let written = written();
        for permille in places {
            let pages = written.journal.len() / 4096;
            let page = pages * permille / 1000 * 4096;
            let mut holed = written.journal.clone();
            holed[page..page + 4096].fill(0);
            let folder = damaged(written, &holed, true);
            let refused = open(folder.path(), false).err();
            let Some(OpenError::Recovery { reason, .. }) = refused else {
                panic!("page at {page}: {refused:?}");
            };
            assert!(reason.contains("--accept-loss"), "{reason}");
            // Nor the second time.
            assert!(open(folder.path(), false).is_err());
            runtime().block_on(async {
                let store = open(folder.path(), true).unwrap();
                let found = read_all(&store).await;
                for (offset, found) in found {
                    assert_eq!(found, value(offset), "page at {page}");
                }
                store.close().await;
            });
            // The loss was accepted once: the next start needs no leave.
            runtime().block_on(open(folder.path(), false).unwrap().close());
        }
    }
}

#[test]
fn a_second_store_on_the_same_folder_is_refused_and_the_first_goes_on() {
    let data = tempfile::tempdir().unwrap();
    runtime().block_on(async {
        let store = open(data.path(), false).unwrap();
        commit(&store, 0).await;
        assert!(matches!(open(data.path(), false), Err(OpenError::Locked { .. })));
        commit(&store, 1).await;
        assert_eq!(read_all(&store).await, expected(2));
        store.close().await;
    });
}
