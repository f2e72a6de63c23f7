//! Ledgers on an embedded store and a store of objects that fails.

mod faulty;
mod integration;
mod lookup;
mod tamper;

use std::sync::Mutex;

use bytes::Bytes;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStoreExt, PutPayload};
use stream_storage::embedded::{EmbeddedConfig, EmbeddedStore};
use stream_storage::{ManualClock, Partition, Timestamp, TopicId};
use tempfile::TempDir;

use super::*;
use crate::drain::Drain;
use crate::ledger::integrate::RoundError;
use crate::ledger::verify::{Verified, verify};
use faulty::{FaultyObjects, FaultyStore, Fuse};

/// A store, its objects, and one ledger in them.
struct Bed {
    store: Arc<dyn Store>,
    objects: FaultyObjects,
    ledgers: Arc<Ledgers>,
    key: Key,
    _folder: TempDir,
}

impl Bed {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = EmbeddedConfig { reserve_bytes: 0, ..EmbeddedConfig::new(folder.path()) };
        let clock = Arc::new(ManualClock::new(Timestamp(1_767_323_045_678)));
        let store: Arc<dyn Store> = Arc::new(EmbeddedStore::open(config, clock.clone()).unwrap());
        let objects = FaultyObjects {
            inner: Arc::new(InMemory::new()),
            fuse: Fuse::never(),
            checkpoints: Arc::new(Mutex::default()),
            gate: None,
        };
        let project = crate::node::default_project();
        Projects::new(store.clone(), clock).ensure(&project).await.unwrap();
        let key = Key { project, ledger: LedgerName::parse("l").unwrap() };
        let ledgers = Self::on(&store, &objects);
        Self { store, objects, ledgers, key, _folder: folder }
    }

    fn on(store: &Arc<dyn Store>, objects: &FaultyObjects) -> Arc<Ledgers> {
        let clock = Arc::new(ManualClock::new(Timestamp(1_767_323_045_678)));
        let fuse = objects.fuse.clone();
        let store: Arc<dyn Store> = Arc::new(FaultyStore { inner: store.clone(), fuse });
        let projects = Arc::new(Projects::new(store.clone(), clock.clone()));
        let objects = Objects::of(objects.clone());
        let config = LedgersConfig { objects, origin: None };
        let sealer = Arc::new(Sealer::from_text("a key of the tests").unwrap());
        Arc::new(Ledgers::new(LedgersParts { store, clock, projects, sealer, config }))
    }

    /// The same store, and a ledger that is new in it.
    fn another(&mut self, name: &str) {
        self.key.ledger = LedgerName::parse(name).unwrap();
        self.objects.checkpoints = Arc::default();
        self.restart(Fuse::never());
    }

    /// As a new process finds it, which dies at the fuse's end.
    fn restart(&mut self, fuse: Arc<Fuse>) {
        self.objects.fuse = fuse;
        self.ledgers = Self::on(&self.store, &self.objects);
    }

    async fn try_append(&self, entries: Vec<LedgerEntry>) -> Result<usize, LedgerError> {
        let mut transaction = Transaction::new(self.key.project.clone());
        let Key { project, ledger } = &self.key;
        let appending = self.ledgers.append(&mut transaction, project, ledger, entries).await?;
        let added = appending.added;
        let committed = self.ledgers.store.commit(transaction).await;
        appending.done(committed.is_ok());
        committed?;
        Ok(added)
    }

    /// Appends entries of the offsets, and returns how many were new.
    async fn append(&self, offsets: std::ops::Range<u64>) -> usize {
        self.try_append(offsets.map(entry).collect()).await.unwrap()
    }

    async fn integrate(&self) -> Result<(), RoundError> {
        let done = self.ledgers.integrate(&self.key, &Drain::default()).await;
        if let Err(error) = &done {
            self.ledgers.note(&self.key, error);
        }
        done
    }

    async fn status(&self) -> LedgerStatus {
        self.ledgers.status(&self.key.project, &self.key.ledger).await.unwrap()
    }

    async fn verifier(&self) -> VerifierKey {
        VerifierKey::parse(&self.status().await.vkey).unwrap()
    }

    fn files(&self) -> Objects {
        Objects::of(self.objects.inner.clone()).of_ledger(&self.key.project, &self.key.ledger)
    }

    async fn verify(&self) -> Result<Verified, String> {
        let key = self.verifier().await;
        verify(&self.files(), &key, |_| {}).await.map_err(|error| error.to_string())
    }

    /// The entries of the published tree.
    async fn entries(&self) -> Vec<Bytes> {
        let (files, mark) = (self.files(), self.status().await.published);
        let tree = tree::Tree::new(&files, mark);
        let mut entries = Vec::new();
        while (entries.len() as u64) < mark.size {
            entries.extend(tree.bundle(entries.len() as u64).await.unwrap());
        }
        entries
    }

    fn path(&self, path: &str) -> Path {
        Path::from(format!("{}/{}/{path}", self.key.project, self.key.ledger))
    }

    async fn file(&self, path: &str) -> Bytes {
        self.files().get(path).await.unwrap().unwrap_or_else(|| panic!("{path}"))
    }

    async fn set(&self, path: &str, bytes: Bytes) {
        self.objects.inner.put(&self.path(path), PutPayload::from(bytes)).await.unwrap();
    }

    async fn remove(&self, path: &str) {
        self.objects.inner.delete(&self.path(path)).await.unwrap();
    }

    /// All files of the ledger.
    async fn paths(&self) -> Vec<String> {
        use futures_util::TryStreamExt;
        use object_store::ObjectStore;
        let prefix = self.path("");
        let all: Vec<_> = self.objects.inner.list(Some(&prefix)).try_collect().await.unwrap();
        let strip = |path: &Path| path.as_ref()[prefix.as_ref().len() + 1..].to_owned();
        all.iter().map(|object| strip(&object.location)).collect()
    }
}

fn source(topic: u64, partition: u32, offset: u64) -> Source {
    let slot = Slot::new(TopicId(topic), Partition(partition));
    Source { topic: TopicName::parse("t").unwrap(), slot, offset }
}

fn entry(offset: u64) -> LedgerEntry {
    entry_of(source(1, 0, offset), &format!("e{offset}"))
}

fn entry_of(source: Source, id: &str) -> LedgerEntry {
    let text = format!("{{\"topic\":\"t\",\"offset\":{},\"id\":\"{id}\"}}", source.offset);
    LedgerEntry { source, id: Some(id.to_owned()), entry: text.into() }
}
