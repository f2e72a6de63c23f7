//! Everything that a running server holds, wired together.

use std::sync::Arc;
use std::time::Duration;

use stream_storage::{Clock, ProjectName, Store, StoreError};

use crate::auth::{KeyError, Keys};
use crate::budget::Budget;
use crate::catalog::{Catalog, CatalogError};
use crate::consume::Reader;
use crate::drain::Drain;
use crate::group::Groups;
use crate::limit::Limits;
use crate::name::TopicName;
use crate::project::{DEFAULT_PROJECT, ProjectError, Projects};
use crate::publish::{Publisher, PublisherParts};
use crate::retention::Retention;
use crate::stats::Rates;

/// What a node needs to know beside its store.
#[derive(Debug, Clone)]
pub struct NodeConfig {
    /// See [`Limits`].
    pub limits: Limits,
    /// How long an idempotency key is remembered.
    pub key_expiry: Duration,
    /// A key that opens everything; if `None`, one is made when there is no key at all.
    pub admin_key: Option<String>,
}

/// A running server, without its sockets.
pub struct Node {
    /// The log.
    pub store: Arc<dyn Store>,
    /// The time of day.
    pub clock: Arc<dyn Clock>,
    /// See [`Limits`].
    pub limits: Limits,
    /// Topics.
    pub catalog: Arc<Catalog>,
    /// Projects.
    pub projects: Arc<Projects>,
    /// API keys.
    pub keys: Keys,
    /// The write path.
    pub publisher: Publisher,
    /// The read path.
    pub reader: Reader,
    /// What groups have committed.
    pub groups: Groups,
    /// Trims in the background.
    pub retention: Retention,
    /// How fast topics grow.
    pub rates: Arc<Rates>,
    /// Bytes of requests in flight.
    pub budget: Arc<Budget>,
    /// Bytes of answers in flight, apart: who does not take an answer holds up no publisher.
    pub answer_budget: Arc<Budget>,
    /// Begins when the server is to stop.
    pub drain: Drain,
}

/// Why a node did not start.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// The store could not be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The project `default` could not be made.
    #[error("cannot make the project `default`: {0}")]
    Project(#[from] ProjectError),
    /// The admin key could not be stored.
    #[error("cannot store the admin key: {0}")]
    Key(#[from] KeyError),
}

impl Node {
    /// Wires a node to its store: loads the keys, and on the first start makes the project
    /// `default` and an admin key. The key is returned if it was made here: it cannot be shown
    /// again.
    ///
    /// # Errors
    ///
    /// The store could not be read, or written on a first start.
    pub async fn open(
        store: Arc<dyn Store>,
        clock: Arc<dyn Clock>,
        config: NodeConfig,
    ) -> Result<(Self, Option<String>), NodeError> {
        let NodeConfig { limits, key_expiry, admin_key } = config;
        let drain = Drain::default();
        let rates = Arc::new(Rates::default());
        let projects = Arc::new(Projects::new(store.clone(), clock.clone()));
        let catalog = Arc::new(Catalog::new(store.clone(), clock.clone(), limits.partitions_max));
        let publisher = Publisher::new(PublisherParts {
            store: store.clone(),
            clock: clock.clone(),
            catalog: catalog.clone(),
            rates: rates.clone(),
            key_expiry,
        });
        let retention =
            Retention::new(store.clone(), clock.clone(), catalog.clone(), projects.clone());
        let node = Self {
            keys: Keys::open(store.clone(), clock.clone()).await?,
            reader: Reader::new(store.clone(), drain.clone(), rand::make_rng()),
            groups: Groups::new(store.clone(), clock.clone()),
            budget: Budget::new(limits.project_bytes_max, limits.total_bytes_max),
            answer_budget: Budget::new(limits.project_bytes_max, limits.total_bytes_max),
            store,
            clock,
            limits,
            catalog,
            projects,
            publisher,
            retention,
            rates,
            drain,
        };
        node.projects.ensure(&default_project()).await?;
        let made = match admin_key {
            Some(key) => {
                node.keys.ensure_admin(&key).await?;
                None
            }
            None if node.keys.is_empty() => Some(node.keys.create_admin().await?),
            None => None,
        };
        Ok((node, made))
    }

    /// Deletes a topic and all that is kept about it. Durable on return; disk space comes back
    /// later.
    ///
    /// # Errors
    ///
    /// The topic does not exist, or the store refused.
    pub async fn delete_topic(
        &self,
        project: &ProjectName,
        name: &TopicName,
    ) -> Result<(), CatalogError> {
        let id = self.catalog.delete(project, name).await?;
        self.rates.forget(id);
        if let Err(error) = self.groups.forget_topic(project, id).await {
            // Its id is never used again: what is left is never read.
            tracing::warn!(%error, topic = %name, "the groups' commits of a deleted topic remain");
        }
        Ok(())
    }
}

/// The project that is meant where none is named.
#[expect(clippy::expect_used, reason = "a constant name, tested below")]
pub(crate) fn default_project() -> ProjectName {
    ProjectName::parse(DEFAULT_PROJECT).expect("`default` is a valid name")
}

#[cfg(test)]
mod tests {
    use super::*;
    use stream_storage::embedded::{EmbeddedConfig, EmbeddedStore};
    use stream_storage::{ManualClock, Timestamp};

    async fn open(store: &Arc<dyn Store>, admin_key: Option<&str>) -> (Node, Option<String>) {
        let clock = Arc::new(ManualClock::new(Timestamp(1_000)));
        let config = NodeConfig {
            limits: Limits::default(),
            key_expiry: Duration::from_secs(60),
            admin_key: admin_key.map(ToOwned::to_owned),
        };
        Node::open(Arc::clone(store), clock, config).await.unwrap()
    }

    fn store() -> (Arc<dyn Store>, tempfile::TempDir) {
        let folder = tempfile::tempdir().unwrap();
        let config = EmbeddedConfig { reserve_bytes: 0, ..EmbeddedConfig::new(folder.path()) };
        let clock = Arc::new(ManualClock::new(Timestamp(1_000)));
        (Arc::new(EmbeddedStore::open(config, clock).unwrap()), folder)
    }

    #[test]
    fn the_default_project_has_a_valid_name() {
        assert_eq!(default_project().as_str(), DEFAULT_PROJECT);
    }

    #[tokio::test]
    async fn only_the_first_start_makes_a_key() {
        let (store, _folder) = store();
        let (_, made) = open(&store, None).await;
        let made = made.unwrap();
        let (node, again) = open(&store, None).await;
        assert_eq!(again, None);
        assert!(node.keys.find(&made).is_some());
    }

    #[tokio::test]
    async fn a_given_key_is_used_instead_and_kept_as_a_hash() {
        let (store, _folder) = store();
        let (node, made) = open(&store, Some("sk_given")).await;
        assert_eq!(made, None);
        assert!(node.keys.find("sk_given").unwrap().project.is_none());
        let rows = store.scan(&ProjectName::system(), b"", None, 100).await.unwrap();
        let holds_key = |bytes: &[u8]| bytes.windows(8).any(|part| part == b"sk_given");
        assert!(!rows.iter().any(|row| holds_key(&row.key) || holds_key(&row.versioned.value)));
    }

    #[tokio::test]
    async fn a_key_given_later_is_added_once() {
        let (store, _folder) = store();
        open(&store, None).await;
        for _ in 0..2 {
            let (node, _) = open(&store, Some("sk_later")).await;
            let admin = node.keys.find("sk_later").unwrap();
            let all = crate::state::PageRequest::default();
            assert_eq!(node.keys.list(&admin, &default_project(), &all).items.len(), 2);
        }
    }

    #[tokio::test]
    async fn a_topic_that_another_host_deleted_is_noticed() {
        let (store, _folder) = store();
        let (here, _) = open(&store, None).await;
        let (there, _) = open(&store, None).await;
        let (project, name) = (default_project(), TopicName::parse("t").unwrap());
        let create = async |node: &Node| {
            let config = crate::topic::TopicConfig::default();
            node.catalog.create(&project, name.clone(), config).await.unwrap();
        };
        let event = crate::event::Event { value: b"1"[..].into(), ..Default::default() };
        let publish = async || {
            let events = std::slice::from_ref(&event);
            let (project, topic) = (&project, &name);
            let request = crate::publish::PublishRequest {
                project,
                topic,
                events,
                identity: None,
                ack: None,
            };
            here.publisher.publish(request).await
        };
        create(&here).await;
        assert_eq!(publish().await.unwrap().places[0].base_offset, 0);
        there.delete_topic(&project, &name).await.unwrap();
        let gone = publish().await;
        let is_gone =
            matches!(gone, Err(crate::publish::PublishError::Catalog(CatalogError::NotFound(_))));
        assert!(is_gone, "{gone:?}");
        create(&there).await;
        assert_eq!(publish().await.unwrap().places[0].base_offset, 0);
    }
}
