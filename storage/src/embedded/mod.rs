//! The engine on one machine: a fjall database and one committer.
//!
//! ```text
//! commit ─► queue (per project, bounded) ─► committer: lot ─► one batch ─► one sync ─► publish ─► answers
//! read   ─► durable end, trim point ─► entries of a log keyspace, sliced
//! trim, drop ─► state rows ─► compaction filter, in the background
//! ```
//!
//! This folder alone names fjall.

mod asks;
mod commit;
mod disk;
mod ends;
mod engine;
mod entries;
mod files;
mod gone;
mod high_water;
mod housekeeping;
mod journal;
mod keys;
mod lot;
mod open;
mod park;
mod queue;
mod read;
mod recovery;
mod seal;
mod search;
mod shared;
mod staged;
mod tail;
mod validate;
mod watches;

use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::{oneshot, watch};

use self::asks::Asks;
use self::commit::{Committer, Work};
use self::engine::{Engine, EngineCell};
use self::gone::Gone;
use self::high_water::HighWater;
use self::housekeeping::Chores;
use self::keys::index;
pub use self::open::OpenError;
use self::queue::{Queue, QueueBounds, Refused};
use self::shared::{Counters, Shared};
use self::staged::Staged;
use crate::{
    Bounds, Clock, CommitError, Health, Limits, Metrics, Partition, Position, ProducerState,
    ProjectName, ReadError, ReadRequest, Receipt, Records, StateEntry, Store, StoreError, TopicId,
    Transaction, Trim, TrimError, Versioned, Watch,
};

/// How to open the embedded store.
#[derive(Debug, Clone)]
pub struct EmbeddedConfig {
    /// The data folder; made if it is not there.
    pub path: PathBuf,
    /// Writes stop while fewer bytes than this are free on the disk. Default 256 MiB.
    pub reserve_bytes: u64,
    /// Bytes of transactions that one project may have waiting. Default 64 MiB.
    pub project_queue_bytes: usize,
    /// Bytes of transactions that may wait in all. Default 256 MiB.
    pub total_queue_bytes: usize,
    /// Bytes of blocks and records kept in memory for reading. Default 32 MiB.
    pub cache_bytes: u64,
    /// Bytes of the newest entries kept in memory, for who reads along. Default 16 MiB.
    pub tail_bytes: usize,
    /// How often the space of trimmed and dropped records is given back. Default 60 s.
    pub housekeeping_interval: Duration,
    /// Start although synced data is missing. Default `false`.
    pub accept_loss: bool,
}

impl EmbeddedConfig {
    /// The defaults, for the data folder `path`.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            reserve_bytes: 256 << 20,
            project_queue_bytes: 64 << 20,
            total_queue_bytes: 256 << 20,
            cache_bytes: 32 << 20,
            tail_bytes: 16 << 20,
            housekeeping_interval: Duration::from_secs(60),
            accept_loss: false,
        }
    }
}

/// The embedded store. Dropping it closes it.
pub struct EmbeddedStore {
    shared: Arc<Shared>,
    threads: Arc<Mutex<Vec<JoinHandle<()>>>>,
}

/// Limits of a transaction.
const LIMITS: Limits = Limits {
    writes_max: 8192,
    bytes_max: 64 << 20,
    note_bytes_max: 64 << 10,
    key_bytes_max: 1 << 10,
};
/// What is longer is staged where it keeps nobody from being served.
const STAGED_AT_ONCE_MAX: usize = 1 << 20;
/// When a refused publisher may try again: a lot takes milliseconds.
const BUSY_RETRY_AFTER: Duration = Duration::from_secs(1);

impl EmbeddedStore {
    /// Opens the data folder, or makes it, and starts the committer. Blocks on I/O.
    ///
    /// # Errors
    ///
    /// See [`OpenError`].
    pub fn open(config: EmbeddedConfig, clock: Arc<dyn Clock>) -> Result<Self, OpenError> {
        let gone = Arc::new(Gone::default());
        let opened = open::open_engine(&config, &gone)?;
        let folder = |source| OpenError::Folder { path: config.path.clone(), source };
        let high_water =
            HighWater::spawn(config.path.join(high_water::FILE_NAME)).map_err(folder)?;
        let queue = Queue::new(QueueBounds {
            project_bytes_max: config.project_queue_bytes,
            total_bytes_max: config.total_queue_bytes,
        });
        let shared = Arc::new(Shared {
            clock,
            engine: EngineCell::new(opened.engine),
            ends: opened.ends,
            gone,
            watches: watches::Watches::default(),
            tail: tail::Tail::new(config.tail_bytes),
            queue,
            high_water,
            chores: Chores::default(),
            looks: Asks::default(),
            seals: Asks::default(),
            counters: Counters::default(),
            failure: Mutex::new(None),
            ran_full: AtomicBool::new(false),
            config: config.clone(),
        });
        housekeeping::find_trimmed(&shared)
            .map_err(|error| OpenError::database(&config.path, &error))?;
        let store = Self { shared: Arc::clone(&shared), threads: Arc::default() };
        let committer = Committer::new(Arc::clone(&shared), opened.last_commit);
        store.spawn("stream-commit", move || committer.run()).map_err(folder)?;
        let sealing = Arc::clone(&shared);
        store.spawn("stream-sealer", move || seal::run(&sealing)).map_err(folder)?;
        let keeping = Arc::clone(&shared);
        store.spawn("stream-keeper", move || housekeeping::run(&keeping)).map_err(folder)?;
        store.spawn("stream-files", move || files::run(&shared)).map_err(folder)?;
        Ok(store)
    }

    /// Gives the disk space of trimmed and dropped records back now, instead of at the next
    /// interval, and forgets expired producers. Blocks on I/O.
    ///
    /// # Errors
    ///
    /// The store cannot be read or written.
    pub fn reclaim(&self) -> Result<(), StoreError> {
        housekeeping::run_once(&self.shared)
    }

    fn spawn(&self, name: &str, run: impl FnOnce() + Send + 'static) -> std::io::Result<()> {
        let thread = std::thread::Builder::new().name(name.into()).spawn(run)?;
        self.threads.lock().unwrap_or_else(PoisonError::into_inner).push(thread);
        Ok(())
    }

    /// Runs a read where it may block.
    async fn reading<R, E>(
        &self,
        read: impl FnOnce(&Shared, &Engine) -> Result<R, E> + Send + 'static,
    ) -> Result<R, E>
    where
        R: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        let shared = Arc::clone(&self.shared);
        let task =
            tokio::task::spawn_blocking(move || shared.engine.with(|engine| read(&shared, engine)));
        task.await.unwrap_or_else(|error| Err(StoreError::Io { reason: error.to_string() }.into()))
    }

    fn submit(&self, project: &ProjectName, work: Work, bytes: usize) -> Result<(), CommitError> {
        self.shared.queue.push(project, work, bytes).map_err(|refused| match refused {
            Refused::Closed => CommitError::ShuttingDown,
            Refused::Busy => {
                self.shared.counters.busy();
                CommitError::Busy { retry_after: BUSY_RETRY_AFTER }
            }
        })
    }

    /// Stops the threads, then closes the database. Blocks, also while another call does it.
    fn stop(shared: &Shared, threads: &Mutex<Vec<JoinHandle<()>>>) {
        let mut threads = threads.lock().unwrap_or_else(PoisonError::into_inner);
        shared.queue.close();
        shared.chores.close();
        shared.looks.close();
        for thread in threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a thread of the store panicked");
            }
        }
        shared.high_water.close();
        shared.engine.close();
    }
}

impl Drop for EmbeddedStore {
    fn drop(&mut self) {
        Self::stop(&self.shared, &self.threads);
    }
}

/// Waits for the committer's answer.
async fn answer<T>(answered: oneshot::Receiver<Result<T, CommitError>>) -> Result<T, CommitError> {
    answered.await.unwrap_or_else(|_| {
        Err(CommitError::Unknown { reason: "the committer ended before it answered".into() })
    })
}

#[async_trait]
impl Store for EmbeddedStore {
    async fn commit(&self, transaction: Transaction) -> Result<Receipt, CommitError> {
        let bytes = validate::validate(&transaction, &LIMITS)?;
        let project = transaction.project.clone();
        let (reply, answered) = oneshot::channel();
        let staged = if bytes <= STAGED_AT_ONCE_MAX {
            Staged::new(transaction)
        } else {
            let staging = tokio::task::spawn_blocking(move || Staged::new(transaction));
            staging.await.map_err(|error| CommitError::Unknown { reason: error.to_string() })?
        };
        let work = Work::Commit { staged: Box::new(staged), reply, bytes };
        self.submit(&project, work, bytes)?;
        answer(answered).await
    }

    async fn read(&self, request: ReadRequest) -> Result<Records, ReadError> {
        // Who reads on and on out of memory lets others have their turn all the same.
        tokio::task::coop::consume_budget().await;
        if let Some(found) = self.shared.read_tail(&request) {
            return found;
        }
        self.reading(move |shared, engine| shared.read(engine, &request)).await
    }

    async fn bounds(&self, topic: TopicId, partition: Partition) -> Result<Bounds, StoreError> {
        Ok(self.shared.bounds((topic, partition)))
    }

    fn watch(&self, watch: Watch) -> watch::Receiver<u64> {
        self.shared.watches.subscribe(watch)
    }

    async fn trim(
        &self,
        topic: TopicId,
        partition: Partition,
        trim: Trim,
    ) -> Result<Bounds, TrimError> {
        const TRIM_BYTES: usize = 256;
        let key = (topic, partition);
        let point =
            self.reading(move |shared, engine| shared.trim_point(engine, key, trim)).await?;
        if let Some(point) = point {
            let (reply, answered) = oneshot::channel();
            let work = Work::Trim { partition: key, point, reply };
            self.submit(&ProjectName::system(), work, TRIM_BYTES)?;
            answer(answered).await?;
        }
        Ok(self.shared.bounds(key))
    }

    async fn get(
        &self,
        project: &ProjectName,
        key: &[u8],
    ) -> Result<Option<Versioned>, StoreError> {
        let (project, key) = (project.clone(), key.to_vec());
        self.reading(move |_, engine| Shared::state(engine, &project, &key)).await
    }

    async fn get_many(
        &self,
        project: &ProjectName,
        keys: &[Bytes],
    ) -> Result<Vec<Option<Versioned>>, StoreError> {
        let (project, keys) = (project.clone(), keys.to_vec());
        self.reading(move |_, engine| {
            keys.iter().map(|key| Shared::state(engine, &project, key)).collect()
        })
        .await
    }

    async fn scan(
        &self,
        project: &ProjectName,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<StateEntry>, StoreError> {
        let (project, prefix) = (project.clone(), prefix.to_vec());
        let after = after.map(<[u8]>::to_vec);
        self.reading(move |_, engine| {
            Shared::scan(engine, &project, &prefix, after.as_deref(), limit)
        })
        .await
    }

    async fn producer(
        &self,
        project: &ProjectName,
        id: &str,
    ) -> Result<Option<ProducerState>, StoreError> {
        let (project, id) = (project.clone(), id.to_owned());
        self.reading(move |shared, engine| shared.producer(engine, &project, &id)).await
    }

    async fn receipt(
        &self,
        project: &ProjectName,
        id: &str,
        epoch: u64,
        sequence: u64,
    ) -> Result<Option<Receipt>, StoreError> {
        let (project, id) = (project.clone(), id.to_owned());
        self.reading(move |shared, engine| shared.receipt(engine, &project, &id, (epoch, sequence)))
            .await
    }

    async fn lookup(
        &self,
        topic: TopicId,
        kind: u8,
        key: &[u8],
        after: Option<Position>,
        limit: usize,
    ) -> Result<Vec<Position>, StoreError> {
        let key = key.to_vec();
        self.reading(move |shared, engine| shared.lookup(engine, topic, (kind, &key), after, limit))
            .await
    }

    async fn lookup_back(
        &self,
        topic: TopicId,
        kind: u8,
        key: &[u8],
        before: Option<Position>,
        limit: usize,
    ) -> Result<Vec<Position>, StoreError> {
        let prefix = index::prefix(topic, kind, key);
        self.reading(move |shared, engine| shared.lookup_back(engine, &prefix, before, limit)).await
    }

    fn limits(&self) -> Limits {
        LIMITS
    }

    fn health(&self) -> Health {
        self.shared.health()
    }

    fn metrics(&self) -> Metrics {
        self.shared.counters.metrics(self.shared.queue.bytes())
    }

    async fn close(&self) {
        let shared = Arc::clone(&self.shared);
        let threads = Arc::clone(&self.threads);
        let stopped = tokio::task::spawn_blocking(move || Self::stop(&shared, &threads)).await;
        if let Err(error) = stopped {
            tracing::error!(%error, "the store did not close cleanly");
        }
    }
}
