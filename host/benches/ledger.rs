//! How many entries a ledger takes: sequenced with ids, synced, and integrated into a folder.
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a benchmark that fails ends")]

use std::sync::Arc;

use stream_host::drain::Drain;
use stream_host::ledger::{
    ENTRIES_MAX, LedgerEntry, Ledgers, LedgersConfig, LedgersParts, Objects, Source, entry,
};
use stream_host::name::{LedgerName, TopicName};
use stream_host::project::Projects;
use stream_host::secret::Sealer;
use stream_host::slot::Slot;
use stream_storage::embedded::{EmbeddedConfig, EmbeddedStore};
use stream_storage::{
    Clock, Partition, ProjectName, Record, Store, SystemClock, TopicId, Transaction,
};
use tokio::time::Instant;

const ENTRIES: u64 = 400_000;
/// Bytes of an event's value.
const VALUE: usize = 200;

fn entries(start: u64, clock: &dyn Clock) -> Vec<LedgerEntry> {
    let topic = TopicName::parse("order.placed").unwrap();
    let slot = Slot::new(TopicId(1), Partition(0));
    let value = format!("\"{}\"", "v".repeat(VALUE));
    let made = |offset: u64| {
        let id = format!("event-{offset}");
        let record = Record {
            id: Some(&id),
            value: value.as_bytes(),
            value_is_json: true,
            ..Record::default()
        };
        let entry = entry::of(&record, &topic, slot.partition, offset, clock.now());
        LedgerEntry { source: Source { topic: topic.clone(), slot, offset }, id: Some(id), entry }
    };
    (start..start + ENTRIES_MAX as u64).map(made).collect()
}

#[tokio::main]
async fn main() {
    let folder = tempfile::tempdir().unwrap();
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let config = EmbeddedConfig::new(folder.path().join("data"));
    let store: Arc<dyn Store> = Arc::new(EmbeddedStore::open(config, clock.clone()).unwrap());
    let projects = Arc::new(Projects::new(store.clone(), clock.clone()));
    let (project, name) = (ProjectName::parse("p").unwrap(), LedgerName::parse("l").unwrap());
    projects.ensure(&project).await.unwrap();
    let objects = Objects::open_folder(&folder.path().join("ledgers")).unwrap();
    let ledgers = Arc::new(Ledgers::new(LedgersParts {
        store: store.clone(),
        clock: clock.clone(),
        projects,
        sealer: Arc::new(Sealer::open(folder.path()).unwrap()),
        config: LedgersConfig { objects, origin: None },
    }));
    let drain = Drain::default();
    let running = tokio::spawn(ledgers.clone().run(drain.clone()));
    let start = Instant::now();
    for first in (0..ENTRIES).step_by(ENTRIES_MAX) {
        let mut transaction = Transaction::new(project.clone());
        let entries = entries(first, clock.as_ref());
        let appending = ledgers.append(&mut transaction, &project, &name, entries).await.unwrap();
        store.commit(transaction).await.unwrap();
        appending.done(true);
    }
    let sequenced = start.elapsed();
    let mut checkpoints = store.watch(stream_storage::Watch::State(project.clone()));
    while ledgers.status(&project, &name).await.unwrap().published.size < ENTRIES {
        checkpoints.changed().await.unwrap();
    }
    let integrated = start.elapsed();
    let per_second = |time: std::time::Duration| ENTRIES as f64 / time.as_secs_f64();
    println!("sequenced:  {:>9.0} entries/s", per_second(sequenced));
    println!("integrated: {:>9.0} entries/s", per_second(integrated));
    drain.begin();
    running.await.unwrap();
    store.close().await;
}
