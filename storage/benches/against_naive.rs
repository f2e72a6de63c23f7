//! The embedded store against the naive way to keep events in fjall: an entry a record.
//!
//! Both take the same events: 256 B of JSON, half of it incompressible, from 10 publishers in
//! transactions of 1,000. They run in turns, a fresh folder each, and the table shows each turn.
//!
//! `cargo bench -p stream-storage --bench against_naive -- [millions of records, default 4]`
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::disallowed_methods,
    clippy::cast_possible_truncation,
    missing_docs,
    reason = "a benchmark measures real time, prints, and ends when something fails"
)]

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fjall::{Database, KeyspaceCreateOptions, PersistMode};
use stream_storage::embedded::{EmbeddedConfig, EmbeddedStore};
use stream_storage::{
    Ack, Partition, ProjectName, Record, RecordBatch, Store, SystemClock, TopicChange, TopicId,
    Transaction,
};

mod event;
use event::values;

const PUBLISHERS: usize = 10;
const BATCH: usize = 1_000;
const ROUNDS: usize = 2;

fn main() {
    let millions = std::env::args().filter_map(|arg| arg.parse::<usize>().ok()).next();
    let batches = millions.unwrap_or(4) * 1_000_000 / BATCH / PUBLISHERS;
    println!("{:>8} {:>16} {:>16} {:>7}", "", "naive", "stream", "ratio");
    for sync in [true, false].into_iter().cycle().take(2 * ROUNDS) {
        let naive = in_fresh_folder(|path| run_naive(path, batches, sync));
        let stream = in_fresh_folder(|path| run_stream(path, batches, sync));
        let rate = |took: Duration| (batches * PUBLISHERS * BATCH) as f64 / took.as_secs_f64();
        println!(
            "{:>8} {:>12.2} M/s {:>12.2} M/s {:>7.2}",
            if sync { "synced" } else { "buffered" },
            rate(naive) / 1e6,
            rate(stream) / 1e6,
            rate(stream) / rate(naive),
        );
    }
}

fn in_fresh_folder(run: impl FnOnce(&Path) -> Duration) -> Duration {
    let folder = tempfile::tempdir().unwrap();
    run(folder.path())
}

/// An entry a record, in one keyspace, a write batch a transaction.
fn run_naive(path: &Path, batches: usize, sync: bool) -> Duration {
    let db = Database::builder(path).open().unwrap();
    let events = db.keyspace("events", KeyspaceCreateOptions::default).unwrap();
    let mode = if sync { PersistMode::SyncData } else { PersistMode::Buffer };
    let values = values(BATCH);
    let started = Instant::now();
    std::thread::scope(|scope| {
        for partition in 0..PUBLISHERS as u32 {
            let (db, events, values) = (&db, &events, &values);
            scope.spawn(move || {
                for base in (0..batches).map(|batch| (batch * BATCH) as u64) {
                    let mut batch = db.batch().durability(Some(mode));
                    for (value, offset) in values.iter().zip(base..) {
                        let mut key = [0; 12];
                        key[..4].copy_from_slice(&partition.to_be_bytes());
                        key[4..].copy_from_slice(&offset.to_be_bytes());
                        batch.insert(events, key, value.as_slice());
                    }
                    batch.commit().unwrap();
                }
            });
        }
    });
    started.elapsed()
}

/// The embedded store; events are encoded as a publisher would, within the measure.
fn run_stream(path: &Path, batches: usize, sync: bool) -> Duration {
    let runtime = tokio::runtime::Builder::new_multi_thread().build().unwrap();
    let store = EmbeddedStore::open(EmbeddedConfig::new(path), Arc::new(SystemClock)).unwrap();
    let store: Arc<dyn Store> = Arc::new(store);
    let values = Arc::new(values(BATCH));
    let project = ProjectName::parse("bench").unwrap();
    let topic = TopicId(1);
    let mut create = Transaction::new(project.clone());
    create.topics.push(TopicChange::Create(topic));
    runtime.block_on(store.commit(create)).unwrap();
    let ack = if sync { Ack::Durable } else { Ack::Memory };
    let started = Instant::now();
    let publishers: Vec<_> = (0..PUBLISHERS as u32)
        .map(|partition| {
            let (store, values, project) = (store.clone(), values.clone(), project.clone());
            runtime.spawn(async move {
                for _ in 0..batches {
                    let mut batch = RecordBatch::with_capacity(BATCH * 300);
                    for value in values.iter() {
                        let record = Record { value, value_is_json: true, ..Record::default() };
                        batch.push(&record).unwrap();
                    }
                    let mut transaction = Transaction::new(project.clone());
                    transaction.ack = ack;
                    transaction.append(topic, Partition(partition), batch);
                    store.commit(transaction).await.unwrap();
                }
            })
        })
        .collect();
    for publisher in publishers {
        runtime.block_on(publisher).unwrap();
    }
    let took = started.elapsed();
    runtime.block_on(store.close());
    took
}
