//! A store and a store of objects that fail together at a step that is told.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::BoxStream;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use stream_storage::{
    Bounds, CommitError, Health, Limits, Metrics, Partition, Position, ProducerState, ProjectName,
    ReadError, ReadRequest, Receipt, Records, StateEntry, Store, StoreError, TopicId, Transaction,
    Trim, TrimError, Versioned, Watch,
};
use tokio::sync::Barrier;

use crate::ledger::integrate::CHECKPOINT;

/// Counts steps, and says which one fails and all after it: a process that has died does no more.
#[derive(Debug)]
pub(crate) struct Fuse {
    steps: AtomicU64,
    dies_at: AtomicU64,
    /// Whether the step at which it dies has its effect.
    is_done: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Lives,
    DiesAfter,
    IsDead,
}

impl Fuse {
    pub(crate) fn new(dies_at: u64, is_done: bool) -> Arc<Self> {
        Arc::new(Self { steps: AtomicU64::new(0), dies_at: dies_at.into(), is_done })
    }

    pub(crate) fn never() -> Arc<Self> {
        Self::new(u64::MAX, false)
    }

    pub(crate) fn has_died(&self) -> bool {
        self.steps.load(Ordering::SeqCst) > self.dies_at.load(Ordering::SeqCst)
    }

    fn step(&self) -> Fate {
        let step = self.steps.fetch_add(1, Ordering::SeqCst);
        match step.cmp(&self.dies_at.load(Ordering::SeqCst)) {
            std::cmp::Ordering::Less => Fate::Lives,
            std::cmp::Ordering::Equal if self.is_done => Fate::DiesAfter,
            _ => Fate::IsDead,
        }
    }
}

/// Objects in memory, and every checkpoint that was ever put.
#[derive(Debug, Clone)]
pub(crate) struct FaultyObjects {
    pub(crate) inner: Arc<InMemory>,
    pub(crate) fuse: Arc<Fuse>,
    pub(crate) checkpoints: Arc<Mutex<Vec<Bytes>>>,
    /// Where who finds no checkpoint waits twice before it is told so.
    pub(crate) gate: Option<Arc<Barrier>>,
}

fn dead() -> object_store::Error {
    object_store::Error::Generic { store: "faulty", source: "the process is dead".into() }
}

impl fmt::Display for FaultyObjects {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("faulty")
    }
}

#[async_trait]
impl ObjectStore for FaultyObjects {
    async fn put_opts(&self, at: &Path, bytes: PutPayload, o: PutOptions) -> Result<PutResult> {
        let fate = self.fuse.step();
        if fate == Fate::IsDead {
            return Err(dead());
        }
        if at.as_ref().ends_with(CHECKPOINT) {
            self.checkpoints.lock().unwrap().push(bytes.clone().into());
        }
        let put = self.inner.put_opts(at, bytes, o).await;
        if fate == Fate::DiesAfter { Err(dead()) } else { put }
    }

    async fn put_multipart_opts(
        &self,
        _: &Path,
        _: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        Err(dead())
    }

    async fn get_opts(&self, at: &Path, options: GetOptions) -> Result<GetResult> {
        match self.fuse.step() {
            Fate::Lives => {}
            Fate::DiesAfter | Fate::IsDead => return Err(dead()),
        }
        let found = self.inner.get_opts(at, options).await;
        if let (Err(_), Some(gate), true) = (&found, &self.gate, at.as_ref().ends_with(CHECKPOINT))
        {
            gate.wait().await;
            gate.wait().await;
        }
        found
    }

    fn delete_stream(
        &self,
        paths: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        match self.fuse.step() {
            Fate::IsDead => Box::pin(futures_util::stream::iter([Err(dead())])),
            Fate::Lives | Fate::DiesAfter => self.inner.delete_stream(paths),
        }
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, _: &Path, _: &Path, _: CopyOptions) -> Result<()> {
        Err(dead())
    }
}

/// A store whose commits fail.
pub(crate) struct FaultyStore {
    pub(crate) inner: Arc<dyn Store>,
    pub(crate) fuse: Arc<Fuse>,
}

#[async_trait]
impl Store for FaultyStore {
    async fn commit(&self, transaction: Transaction) -> std::result::Result<Receipt, CommitError> {
        let dead = || CommitError::Unknown { reason: "the process is dead".to_owned() };
        match self.fuse.step() {
            Fate::IsDead => Err(dead()),
            Fate::Lives => self.inner.commit(transaction).await,
            Fate::DiesAfter => {
                self.inner.commit(transaction).await?;
                Err(dead())
            }
        }
    }

    async fn read(&self, request: ReadRequest) -> std::result::Result<Records, ReadError> {
        self.inner.read(request).await
    }

    async fn bounds(&self, t: TopicId, p: Partition) -> std::result::Result<Bounds, StoreError> {
        self.inner.bounds(t, p).await
    }

    fn watch(&self, watch: Watch) -> tokio::sync::watch::Receiver<u64> {
        self.inner.watch(watch)
    }

    async fn trim(
        &self,
        topic: TopicId,
        partition: Partition,
        trim: Trim,
    ) -> std::result::Result<Bounds, TrimError> {
        self.inner.trim(topic, partition, trim).await
    }

    async fn get(
        &self,
        project: &ProjectName,
        key: &[u8],
    ) -> std::result::Result<Option<Versioned>, StoreError> {
        self.inner.get(project, key).await
    }

    async fn scan(
        &self,
        project: &ProjectName,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> std::result::Result<Vec<StateEntry>, StoreError> {
        self.inner.scan(project, prefix, after, limit).await
    }

    async fn producer(
        &self,
        project: &ProjectName,
        id: &str,
    ) -> std::result::Result<Option<ProducerState>, StoreError> {
        self.inner.producer(project, id).await
    }

    async fn receipt(
        &self,
        project: &ProjectName,
        id: &str,
        epoch: u64,
        sequence: u64,
    ) -> std::result::Result<Option<Receipt>, StoreError> {
        self.inner.receipt(project, id, epoch, sequence).await
    }

    async fn lookup(
        &self,
        topic: TopicId,
        kind: u8,
        key: &[u8],
        after: Option<Position>,
        limit: usize,
    ) -> std::result::Result<Vec<Position>, StoreError> {
        self.inner.lookup(topic, kind, key, after, limit).await
    }

    async fn lookup_back(
        &self,
        topic: TopicId,
        kind: u8,
        key: &[u8],
        before: Option<Position>,
        limit: usize,
    ) -> std::result::Result<Vec<Position>, StoreError> {
        self.inner.lookup_back(topic, kind, key, before, limit).await
    }

    fn limits(&self) -> Limits {
        self.inner.limits()
    }

    fn health(&self) -> Health {
        self.inner.health()
    }

    fn metrics(&self) -> Metrics {
        self.inner.metrics()
    }

    async fn close(&self) {
        self.inner.close().await;
    }
}
