//! Writes a small data folder of the current format, for `tests/fixtures`.
//!
//! When the format changes: `cargo run -p stream-storage --example write_fixture -- FOLDER`, with
//! the new version's folder, and `tests/fixture.rs` learns of it. Folders of earlier versions stay
//! as they are.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use stream_storage::embedded::{EmbeddedConfig, EmbeddedStore};
use stream_storage::{
    IndexEntry, ManualClock, Partition, ProducerStep, ProjectName, Record, RecordBatch, Store,
    Timestamp, TopicChange, TopicId, Transaction, Trim,
};

const LIVE: TopicId = TopicId(1);
const DROPPED: TopicId = TopicId(2);
/// Longer than what is kept apart from its key, and than what is not packed.
const LONG_BYTES: usize = 8000;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

fn main() -> Result<()> {
    let path: PathBuf = std::env::args_os().nth(1).ok_or("expected a folder")?.into();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(write(&path))?;
    for entry in fs::read_dir(path.join("db"))? {
        let journal = entry?.path();
        if journal.extension().is_some_and(|extension| extension == "jnl") {
            cut_zeros(&journal)?;
        }
    }
    Ok(())
}

async fn write(path: &Path) -> Result<()> {
    let clock = Arc::new(ManualClock::new(Timestamp(1_700_000_000_000)));
    let config = EmbeddedConfig { reserve_bytes: 0, ..EmbeddedConfig::new(path) };
    let store = EmbeddedStore::open(config, clock)?;

    let mut creating = transaction()?;
    creating.topics.extend([TopicChange::Create(LIVE), TopicChange::Create(DROPPED)]);
    creating.append(DROPPED, Partition(0), batch(&["dropped"])?);
    creating.put("topic/live", "1").put("topic/dropped", "2");
    store.commit(creating).await?;

    let long = "x".repeat(LONG_BYTES);
    let mut appending = transaction()?;
    appending.append(LIVE, Partition(0), batch(&["a", "b", "c"])?);
    appending.append(LIVE, Partition(1), batch(&["e", &long])?);
    store.commit(appending).await?;
    for partition in [0, 1].map(Partition) {
        store.trim(LIVE, partition, Trim::Before(1)).await?;
    }
    // What is written so far goes to tables, the rest stays in the journal.
    store.reclaim()?;

    let mut producing = transaction()?;
    producing.append(LIVE, Partition(0), batch(&["d"])?);
    let entry = IndexEntry { kind: 1, key: "key".into(), record: 0 };
    producing.appends.iter_mut().for_each(|append| append.index.push(entry.clone()));
    producing.producer = Some(ProducerStep {
        id: "producer".into(),
        epoch: 3,
        sequence: 0,
        payload_digest: Some([7; 32]),
        expires: None,
        note: "note".into(),
    });
    store.commit(producing).await?;

    let mut dropping = transaction()?;
    dropping.topics.push(TopicChange::Drop(DROPPED));
    dropping.delete("topic/dropped");
    store.commit(dropping).await?;
    store.close().await;
    Ok(())
}

fn transaction() -> Result<Transaction> {
    Ok(Transaction::new(ProjectName::parse("default")?))
}

fn batch(values: &[&str]) -> Result<RecordBatch> {
    let mut batch = RecordBatch::default();
    for value in values {
        let headers = vec![("ce-type", "letter")];
        let (key, id) = (Some("key"), Some(*value).filter(|value| value.len() == 1));
        batch.push(&Record { key, id, headers, value: value.as_bytes(), ..Record::default() })?;
    }
    Ok(batch)
}

/// Cuts off what a journal is allocated ahead.
fn cut_zeros(journal: &Path) -> Result<()> {
    let bytes = fs::read(journal)?;
    let content = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    fs::OpenOptions::new().write(true).open(journal)?.set_len(content as u64)?;
    Ok(())
}
