//! One queue in memory: its window, its settings, and who waits for news of it.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, RwLock};

use stream_storage::{Expected, ProjectName, StateEntry, Store, StoreError, Timestamp};
use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard, watch};

use super::front::{Effect, Front, Missing, Timed, WINDOW};
use super::job::JobId;
use super::metrics::{Counters, Tally};
use super::rows::{self, Row, StoredLease};
use super::settings::QueueSettings;
use crate::lock::{lock, read, write};
use crate::name::QueueName;
use crate::state::{self, PageRequest};

/// Locks of keys that nobody holds are forgotten when there are more.
const KEY_LOCKS_MAX: usize = 4_096;

/// How a queue is set up, as far as it is known.
#[derive(Debug, Default)]
struct Known {
    setup: Option<Setup>,
    /// Counts changes: what was read before one is not kept behind it.
    changes: u64,
}

/// How a queue is set up.
#[derive(Debug, Clone)]
pub(super) struct Setup {
    /// As usual, if nobody has set it up.
    pub(super) settings: Arc<QueueSettings>,
    /// What its row is expected to be.
    pub(super) expected: Expected,
}

/// One queue.
pub(super) struct Queue {
    pub(super) project: ProjectName,
    pub(super) name: QueueName,
    front: Mutex<Front>,
    setup: RwLock<Known>,
    /// One read of rows at a time.
    loading: AsyncMutex<()>,
    /// Counts changes that may bring a job.
    changed: watch::Sender<u64>,
    /// Held while rows of a key are read and written, so that the jobs of a key do not make each
    /// other's commits fail.
    keys: Mutex<HashMap<u32, Arc<AsyncMutex<()>>>>,
    /// Of all queues.
    counters: Arc<Counters>,
}

impl Queue {
    pub(super) fn new(project: ProjectName, name: QueueName, counters: Arc<Counters>) -> Self {
        Self {
            project,
            name,
            counters,
            front: Mutex::default(),
            setup: RwLock::default(),
            loading: AsyncMutex::default(),
            changed: watch::Sender::new(0),
            keys: Mutex::default(),
        }
    }

    pub(super) fn front<T>(&self, look: impl FnOnce(&mut Front) -> T) -> T {
        look(&mut lock(&self.front))
    }

    /// Tells of everything that may bring a job.
    pub(super) fn changed(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Wakes who waits for a job.
    pub(super) fn wake(&self) {
        self.changed.send_modify(|count| *count = count.wrapping_add(1));
    }

    /// Whether somebody waits for a job.
    pub(super) fn is_watched(&self) -> bool {
        self.changed.receiver_count() > 0
    }

    /// Holds the keys with these digests.
    pub(super) async fn hold_keys<'a>(
        &self,
        digests: impl Iterator<Item = &'a str>,
    ) -> Vec<OwnedMutexGuard<()>> {
        // Two keys that begin alike share a lock.
        let head = |digest: &str| {
            let head = digest.get(..8).and_then(|head| u32::from_str_radix(head, 16).ok());
            head.unwrap_or_default()
        };
        // In one order for all: two that hold some of the same keys do not wait for each other.
        let wanted: BTreeSet<u32> = digests.map(head).collect();
        let locks: Vec<_> = {
            let mut keys = lock(&self.keys);
            if keys.len() > KEY_LOCKS_MAX {
                keys.retain(|_, key| Arc::strong_count(key) > 1);
            }
            wanted.into_iter().map(|head| Arc::clone(keys.entry(head).or_default())).collect()
        };
        let mut held = Vec::with_capacity(locks.len());
        for key in locks {
            held.push(key.lock_owned().await);
        }
        held
    }

    /// The queue's settings; those of a queue that nobody has set up if there are none.
    pub(super) async fn settings(
        &self,
        store: &dyn Store,
    ) -> Result<Arc<QueueSettings>, StoreError> {
        Ok(self.setup(store).await?.settings)
    }

    /// Whether somebody has set the queue up, and how.
    pub(super) async fn setup(&self, store: &dyn Store) -> Result<Setup, StoreError> {
        let changes = {
            let known = read(&self.setup);
            if let Some(setup) = &known.setup {
                return Ok(setup.clone());
            }
            known.changes
        };
        let key = rows::settings(&self.name);
        let found = store.get(&self.project, key.as_bytes()).await?;
        let settings = Arc::new(rows::decode(&key, found.as_ref())?.unwrap_or_default());
        let expected = found.map_or(Expected::Absent, |row| Expected::Version(row.version));
        let setup = Setup { settings, expected };
        let mut known = write(&self.setup);
        if known.changes == changes {
            known.setup = Some(setup.clone());
        }
        Ok(setup)
    }

    /// Forgets the settings, which have changed.
    pub(super) fn forget_settings(&self) {
        {
            let mut known = write(&self.setup);
            known.setup = None;
            known.changes += 1;
        }
        self.wake();
    }

    /// Reads what is missing in the window, until nothing is.
    pub(super) async fn load(&self, store: &dyn Store, now: Timestamp) -> Result<(), StoreError> {
        while self.front(|front| front.missing(now)).is_some() {
            let _one = self.loading.lock().await;
            let Some(missing) = self.front(|front| {
                let missing = front.missing(now);
                if missing.is_some() {
                    front.loading();
                }
                missing
            }) else {
                return Ok(());
            };
            let mut reading = Reading { queue: self, is_over: false };
            let leases = match missing {
                Missing::Everything => self.leases(store).await?,
                Missing::Behind(_) => Vec::new(),
            };
            let (waiting, is_all) = self.waiting(store, missing).await?;
            reading.is_over = true;
            self.front(|front| front.loaded(missing, waiting, is_all, leases));
        }
        Ok(())
    }

    async fn waiting(
        &self,
        store: &dyn Store,
        missing: Missing,
    ) -> Result<(Vec<Timed>, bool), StoreError> {
        let prefix = Row::Due.of(&self.name);
        let after = match missing {
            Missing::Everything => None,
            Missing::Behind((due, id)) => Some(rows::due(&self.name, due, id)),
        };
        let after = after.as_ref().map(String::as_bytes);
        let found = store.scan(&self.project, prefix.as_bytes(), after, WINDOW).await?;
        let is_all = found.len() < WINDOW;
        let timed = |row: StateEntry| {
            let name = state::name_in(&row.key, &prefix);
            rows::parse_due(&name).ok_or_else(|| corrupt(&row.key))
        };
        Ok((found.into_iter().map(timed).collect::<Result<_, _>>()?, is_all))
    }

    /// All leases: no more than workers hold at once.
    pub(super) async fn leases(&self, store: &dyn Store) -> Result<Vec<Timed>, StoreError> {
        let prefix = Row::Lease.of(&self.name);
        let all = state::page(store, &self.project, &prefix, &PageRequest::default()).await?;
        let timed = |row: StateEntry| {
            let id = JobId::parse(&state::name_in(&row.key, &prefix));
            let lease: StoredLease = state::decode(&row.key, &row.versioned)?;
            Ok((Timestamp(lease.until), id.map_err(|_| corrupt(&row.key))?))
        };
        all.items.into_iter().map(timed).collect()
    }
}

fn corrupt(key: &[u8]) -> StoreError {
    let reason = format!("state key `{}` is no job's", String::from_utf8_lossy(key));
    StoreError::Corrupt { reason }
}

/// A read of rows: one that is cut off is no read.
struct Reading<'a> {
    queue: &'a Queue,
    is_over: bool,
}

impl Drop for Reading<'_> {
    fn drop(&mut self) {
        if !self.is_over {
            self.queue.front(Front::not_loaded);
        }
    }
}

/// What a transaction will have changed of a queue. Dropped without a word, it makes the queue read
/// its rows anew: nobody saw how the commit ended.
pub(super) struct Changes {
    pub(super) queue: Arc<Queue>,
    pub(super) effects: Vec<Effect>,
    /// Held until the end of the commit.
    _keys: Vec<OwnedMutexGuard<()>>,
    /// What is counted if it happens.
    pub(super) tally: Tally,
    is_told: bool,
}

impl Changes {
    pub(super) fn new(queue: Arc<Queue>, keys: Vec<OwnedMutexGuard<()>>) -> Self {
        let tally = Tally::default();
        Self { queue, effects: Vec::new(), _keys: keys, tally, is_told: false }
    }

    /// The transaction is committed.
    pub(super) fn done(mut self) {
        self.is_told = true;
        self.queue.counters.add(self.tally);
        let effects = std::mem::take(&mut self.effects);
        if effects.is_empty() {
            return;
        }
        let is_news = self.queue.front(|front| {
            effects.into_iter().fold(false, |is_news, effect| front.apply(effect) | is_news)
        });
        if is_news {
            self.queue.wake();
        }
    }

    /// The transaction did not happen.
    pub(super) fn abandon(mut self) {
        self.is_told = true;
    }
}

impl Drop for Changes {
    fn drop(&mut self) {
        if !self.is_told {
            self.queue.front(Front::stale);
            self.queue.wake();
        }
    }
}
