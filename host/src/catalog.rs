//! The topics of all projects: making, changing, finding and deleting them.
//!
//! A topic lives in its project's state under `topic/{name}`. Its id is taken from a counter of the
//! server, by a transaction of its own: an id that is lost to a crash is never used. Calls that change
//! a topic have to run to their end: what is in memory is brought up to date after the commit.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, RwLock};

use stream_storage::{
    Clock, CommitError, Expected, ProjectName, StateEntry, Store, StoreError, TopicChange, TopicId,
    Transaction, Version,
};

use tokio::sync::watch;

use crate::lock::{read, write};
use crate::name::TopicName;
use crate::partition::RoundRobin;
use crate::project::Made;
use crate::state::{self, Attempts, Page, PageRequest};
use crate::topic::{InvalidConfig, StoredTopic, Topic, TopicConfig, TopicPatch};

const PREFIX: &str = "topic/";
const NEXT_ID: &str = "next-topic-id";

/// A topic that does not exist.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("topic `{topic}` does not exist")]
pub struct TopicNotFound {
    /// Its name.
    pub topic: TopicName,
}

/// Why a topic could not be made, found, changed or deleted.
#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    /// There is none of this name.
    #[error(transparent)]
    NotFound(#[from] TopicNotFound),
    /// There is one of this name, with another configuration.
    #[error("topic `{topic}` exists with another configuration")]
    Exists {
        /// Its name.
        topic: TopicName,
    },
    /// The name is the server's own.
    #[error("invalid topic `{topic}`: names that start with `_` are written by the server only")]
    Reserved {
        /// The name.
        topic: TopicName,
    },
    /// The configuration is refused.
    #[error(transparent)]
    Config(#[from] InvalidConfig),
    /// The store refused the write.
    #[error(transparent)]
    Commit(#[from] CommitError),
    /// The store could not be read.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The topics of all projects, with those in use held in memory.
pub struct Catalog {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    partitions_max: u32,
    cache: RwLock<Cache>,
    /// Counts the changes of topics on this host.
    changed: watch::Sender<u64>,
    /// Topics that are being made: they may be stored before `changed` tells of them.
    making: AtomicUsize,
}

/// While this lives, a topic is being made.
struct Making<'a>(&'a AtomicUsize);

impl<'a> Making<'a> {
    fn begin(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(count)
    }
}

impl Drop for Making<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[derive(Default)]
struct Cache {
    topics: HashMap<(ProjectName, TopicName), Arc<Topic>>,
    /// Counts changes, so that what was read before one is not put in after it.
    changes: u64,
}

impl Catalog {
    /// Reads nothing yet. Topics may have up to `partitions_max` partitions.
    pub fn new(store: Arc<dyn Store>, clock: Arc<dyn Clock>, partitions_max: u32) -> Self {
        Self {
            store,
            clock,
            partitions_max,
            cache: RwLock::default(),
            changed: watch::Sender::new(0),
            making: AtomicUsize::new(0),
        }
    }

    /// Changes whenever a topic of this host is made, changed or deleted.
    pub fn changed(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Whether there may be a topic that [`changed`](Self::changed) does not tell of yet.
    pub(crate) fn is_making(&self) -> bool {
        self.making.load(Ordering::SeqCst) > 0
    }

    /// Counts what [`changed`](Self::changed) tells of.
    pub(crate) fn changes(&self) -> u64 {
        *self.changed.borrow()
    }

    /// Makes a topic, or finds one with the same configuration. Durable on return.
    ///
    /// # Errors
    ///
    /// The name is taken or reserved, the configuration is refused, or the store refused.
    pub async fn create(
        &self,
        project: &ProjectName,
        name: TopicName,
        config: TopicConfig,
    ) -> Result<(Arc<Topic>, Made), CatalogError> {
        check_writable(&name)?;
        self.make(project, name, config).await
    }

    async fn make(
        &self,
        project: &ProjectName,
        name: TopicName,
        config: TopicConfig,
    ) -> Result<(Arc<Topic>, Made), CatalogError> {
        config.check(self.partitions_max)?;
        if let Some((found, _)) = self.load(project, &name).await? {
            return existing(found, &config);
        }
        let id = self.take_id().await?;
        let topic = Topic {
            id,
            project: project.clone(),
            name,
            config,
            created_at: self.clock.now(),
            turn: RoundRobin::default(),
        };
        let key = key(&topic.name);
        let mut transaction = Transaction::new(project.clone());
        transaction.expect(key.clone(), Expected::Absent);
        transaction.put(key, state::encode(&StoredTopic::of(&topic)));
        transaction.topics.push(TopicChange::Create(id));
        let _making = Making::begin(&self.making);
        match self.store.commit(transaction).await {
            Ok(_) => Ok((self.remember(topic), Made::Created)),
            Err(CommitError::Conflict { key }) => {
                // Somebody else made it at the same time: then it is theirs that counts.
                match self.load(project, &topic.name).await? {
                    Some((found, _)) => existing(found, &topic.config),
                    None => Err(CommitError::Conflict { key }.into()),
                }
            }
            Err(error) => Err(error.into()),
        }
    }

    /// One of the server's own topics, made if it is not there. Durable on return.
    ///
    /// # Errors
    ///
    /// The store could not be read or written.
    pub(crate) async fn ensure_own(
        &self,
        project: &ProjectName,
        name: &TopicName,
        config: TopicConfig,
    ) -> Result<Arc<Topic>, CatalogError> {
        match self.get(project, name).await {
            Err(CatalogError::NotFound(_)) => {}
            found => return found,
        }
        match self.make(project, name.clone(), config).await {
            Ok((topic, _)) => Ok(topic),
            // Its owner has changed its settings meanwhile.
            Err(CatalogError::Exists { .. }) => self.get(project, name).await,
            Err(error) => Err(error),
        }
    }

    /// One topic, from memory if it is in use.
    ///
    /// # Errors
    ///
    /// It does not exist, or the store could not be read.
    pub async fn get(
        &self,
        project: &ProjectName,
        name: &TopicName,
    ) -> Result<Arc<Topic>, CatalogError> {
        let place = (project.clone(), name.clone());
        let changes = {
            let cache = read(&self.cache);
            if let Some(topic) = cache.topics.get(&place) {
                return Ok(Arc::clone(topic));
            }
            cache.changes
        };
        let found = self.load(project, name).await?;
        let (topic, _) = found.ok_or_else(|| TopicNotFound { topic: name.clone() })?;
        let topic = Arc::new(topic);
        let mut cache = write(&self.cache);
        if cache.changes == changes {
            cache.topics.insert(place, Arc::clone(&topic));
        }
        Ok(topic)
    }

    /// Topics in the order of their names.
    ///
    /// # Errors
    ///
    /// The store could not be read.
    pub async fn list(
        &self,
        project: &ProjectName,
        request: &PageRequest,
    ) -> Result<Page<Topic>, StoreError> {
        let rows = state::page(self.store.as_ref(), project, PREFIX, request).await?;
        rows.try_map(|entry| parse_row(project, &entry))
    }

    /// Changes a topic. Durable on return.
    ///
    /// # Errors
    ///
    /// It does not exist, the configuration is refused, or the store refused.
    pub async fn patch(
        &self,
        project: &ProjectName,
        name: &TopicName,
        patch: TopicPatch,
    ) -> Result<Arc<Topic>, CatalogError> {
        check_writable(name)?;
        let mut attempts = Attempts::default();
        loop {
            let (mut topic, version) = self.load_existing(project, name).await?;
            topic.config = topic.config.patched(patch.clone(), self.partitions_max)?;
            let mut transaction = Transaction::new(project.clone());
            transaction.expect(key(name), Expected::Version(version));
            transaction.put(key(name), state::encode(&StoredTopic::of(&topic)));
            match self.store.commit(transaction).await {
                Ok(_) => return Ok(self.remember(topic)),
                Err(error) => {
                    self.forget(project, name);
                    attempts.again(error)?;
                }
            }
        }
    }

    /// Deletes a topic and its records, and returns its id. Durable on return; disk space comes
    /// back later.
    ///
    /// # Errors
    ///
    /// It does not exist, or the store refused.
    pub async fn delete(
        &self,
        project: &ProjectName,
        name: &TopicName,
    ) -> Result<TopicId, CatalogError> {
        check_writable(name)?;
        let mut attempts = Attempts::default();
        loop {
            let (topic, version) = self.load_existing(project, name).await?;
            let mut transaction = Transaction::new(project.clone());
            transaction.expect(key(name), Expected::Version(version)).delete(key(name));
            transaction.topics.push(TopicChange::Drop(topic.id));
            match self.store.commit(transaction).await {
                Ok(_) => {
                    self.forget(project, name);
                    return Ok(topic.id);
                }
                Err(error) => {
                    self.forget(project, name);
                    attempts.again(error)?;
                }
            }
        }
    }

    /// Forgets what is in memory about a topic, so that it is read again.
    pub fn forget(&self, project: &ProjectName, name: &TopicName) {
        let mut cache = write(&self.cache);
        cache.changes += 1;
        cache.topics.remove(&(project.clone(), name.clone()));
        drop(cache);
        self.tell();
    }

    /// Forgets what is in memory about the topic of an id that is gone.
    pub(crate) fn forget_id(&self, id: TopicId) {
        let mut cache = write(&self.cache);
        cache.changes += 1;
        cache.topics.retain(|_, topic| topic.id != id);
        drop(cache);
        self.tell();
    }

    fn tell(&self) {
        self.changed.send_modify(|changes| *changes += 1);
    }

    fn remember(&self, topic: Topic) -> Arc<Topic> {
        let topic = Arc::new(topic);
        let place = (topic.project.clone(), topic.name.clone());
        let mut cache = write(&self.cache);
        cache.changes += 1;
        cache.topics.insert(place, Arc::clone(&topic));
        drop(cache);
        self.tell();
        topic
    }

    async fn load_existing(
        &self,
        project: &ProjectName,
        name: &TopicName,
    ) -> Result<(Topic, Version), CatalogError> {
        let found = self.load(project, name).await?;
        Ok(found.ok_or_else(|| TopicNotFound { topic: name.clone() })?)
    }

    async fn load(
        &self,
        project: &ProjectName,
        name: &TopicName,
    ) -> Result<Option<(Topic, Version)>, StoreError> {
        let key = key(name);
        let Some(row) = self.store.get(project, key.as_bytes()).await? else { return Ok(None) };
        let stored: StoredTopic = state::decode(key.as_bytes(), &row)?;
        let topic = stored.into_topic(project.clone(), name.as_str())?;
        Ok(Some((topic, row.version)))
    }

    async fn take_id(&self) -> Result<TopicId, CatalogError> {
        let system = ProjectName::system();
        let mut attempts = Attempts::default();
        loop {
            let row = self.store.get(&system, NEXT_ID.as_bytes()).await?;
            let (id, expected): (u64, _) = match &row {
                Some(row) => {
                    (state::decode(NEXT_ID.as_bytes(), row)?, Expected::Version(row.version))
                }
                None => (1, Expected::Absent),
            };
            let mut transaction = Transaction::new(system.clone());
            transaction.expect(NEXT_ID, expected).put(NEXT_ID, state::encode(&(id + 1)));
            match self.store.commit(transaction).await {
                Ok(_) => return Ok(TopicId(id)),
                Err(error) => attempts.again(error)?,
            }
        }
    }
}

fn key(name: &TopicName) -> String {
    format!("{PREFIX}{name}")
}

/// Refuses names that only the server writes.
pub(crate) fn check_writable(name: &TopicName) -> Result<(), CatalogError> {
    if name.is_reserved() { Err(CatalogError::Reserved { topic: name.clone() }) } else { Ok(()) }
}

fn existing(found: Topic, config: &TopicConfig) -> Result<(Arc<Topic>, Made), CatalogError> {
    if found.config == *config {
        Ok((Arc::new(found), Made::Existed))
    } else {
        Err(CatalogError::Exists { topic: found.name })
    }
}

fn parse_row(project: &ProjectName, entry: &StateEntry) -> Result<Topic, StoreError> {
    let stored: StoredTopic = state::decode(&entry.key, &entry.versioned)?;
    stored.into_topic(project.clone(), &state::name_in(&entry.key, PREFIX))
}
