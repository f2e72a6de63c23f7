//! Everything that a running server holds, wired together.

use std::sync::Arc;
use std::time::Duration;

use stream_storage::{Clock, ProjectName, Store, StoreError};

use crate::auth::{KeyError, Keys};
use crate::budget::Budget;
use crate::catalog::{Catalog, CatalogError};
use crate::connector::{Connectors, ConnectorsParts};
use crate::consume::Reader;
use crate::drain::Drain;
use crate::egress::Egress;
use crate::group::{Groups, GroupsParts};
use crate::hooks::{Hooks, HooksParts};
use crate::ledger::{Ledgers, LedgersConfig, LedgersParts};
use crate::limit::Limits;
use crate::name::TopicName;
use crate::pipeline::{Pipelines, PipelinesParts, Schemas};
use crate::plugin::{PluginConfig, Plugins};
use crate::project::{DEFAULT_PROJECT, ProjectError, Projects};
use crate::publish::{DeadLetters, Publisher, PublisherParts};
use crate::queue::{Queues, QueuesParts};
use crate::registry::{self, Registry, RegistryError};
use crate::retention::Retention;
use crate::secret::Sealer;
use crate::stage::BreakerConfig;
use crate::state::PageRequest;
use crate::stats::Rates;

/// What a node needs to know beside its store.
pub struct NodeConfig {
    /// See [`Limits`].
    pub limits: Limits,
    /// How long an idempotency key is remembered.
    pub key_expiry: Duration,
    /// A key that opens everything; if `None`, one is made when there is no key at all.
    pub admin_key: Option<String>,
    /// What plugins may use.
    pub plugins: PluginConfig,
    /// When a binding is paused.
    pub breaker: BreakerConfig,
    /// Where ledgers are written to.
    pub ledgers: LedgersConfig,
    /// What secrets are sealed with.
    pub sealer: Sealer,
    /// Sends to addresses that users name.
    pub egress: Egress,
    /// Webhooks under way at once.
    pub webhooks_max: usize,
}

/// A running server, without its sockets.
pub struct Node {
    /// The log.
    pub store: Arc<dyn Store>,
    /// The time of day.
    pub clock: Arc<dyn Clock>,
    /// See [`Limits`].
    pub limits: Limits,
    /// Seals what is to stay secret.
    pub sealer: Arc<Sealer>,
    /// The way out to addresses that users name.
    pub egress: Arc<Egress>,
    /// Topics.
    pub catalog: Arc<Catalog>,
    /// Projects.
    pub projects: Arc<Projects>,
    /// API keys.
    pub keys: Keys,
    /// The write path.
    pub publisher: Publisher,
    /// The read path.
    pub reader: Arc<Reader>,
    /// Who reads together, and how far they have come.
    pub groups: Groups,
    /// Ledgers.
    pub ledgers: Arc<Ledgers>,
    /// Webhooks.
    pub hooks: Arc<Hooks>,
    /// Jobs.
    pub queues: Arc<Queues>,
    /// What takes events to Worker, Hooks and Ledger.
    pub connectors: Arc<Connectors>,
    /// Runs plugins.
    pub plugins: Arc<Plugins>,
    /// Plugins by name.
    pub registry: Arc<Registry>,
    /// What events pass.
    pub pipelines: Arc<Pipelines>,
    /// Bytes of uploads in memory.
    pub upload_budget: Arc<Budget>,
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
    /// The key of compiled plugins could not be stored.
    #[error("cannot store the key of compiled plugins: {0}")]
    Registry(#[from] RegistryError),
}

impl Node {
    /// Wires a node to its store: loads the keys, and on the first start makes the project
    /// `default` and an admin key. The key is returned if it was made here: it cannot be shown
    /// again.
    ///
    /// # Errors
    ///
    /// The store could not be read, or written on a first start.
    #[expect(clippy::too_many_lines, reason = "a list of parts")]
    pub async fn open(
        store: Arc<dyn Store>,
        clock: Arc<dyn Clock>,
        config: NodeConfig,
    ) -> Result<(Self, Option<String>), NodeError> {
        let NodeConfig { limits, key_expiry, admin_key, plugins, breaker, ledgers, .. } = config;
        let webhooks_max = config.webhooks_max;
        let (sealer, egress) = (Arc::new(config.sealer), Arc::new(config.egress));
        let drain = Drain::default();
        let rates = Arc::new(Rates::default());
        let projects = Arc::new(Projects::new(store.clone(), clock.clone()));
        let catalog = Arc::new(Catalog::new(store.clone(), clock.clone(), limits.partitions_max));
        let upload_bytes = plugins.upload_bytes_max.min(usize::MAX / 4);
        let code_key = registry::code_key(store.as_ref()).await?;
        let plugins = Arc::new(Plugins::new(plugins, code_key, clock.clone()));
        let registry = Arc::new(Registry::new(store.clone(), clock.clone(), plugins.clone()));
        let pipelines = Arc::new(Pipelines::new(PipelinesParts {
            store: store.clone(),
            clock: clock.clone(),
            registry: registry.clone(),
            plugins: plugins.clone(),
            schemas: Schemas::new(store.clone(), clock.clone()),
            breaker,
        }));
        let dead_letters = Arc::new(DeadLetters::new(catalog.clone(), rates.clone()));
        let publisher = Publisher::new(PublisherParts {
            store: store.clone(),
            clock: clock.clone(),
            catalog: catalog.clone(),
            pipelines: pipelines.clone(),
            limits,
            rates: rates.clone(),
            key_expiry,
        });
        let retention =
            Retention::new(store.clone(), clock.clone(), catalog.clone(), projects.clone());
        let reader = Arc::new(Reader::new(store.clone(), drain.clone(), rand::make_rng()));
        let groups = Groups::new(GroupsParts {
            store: store.clone(),
            clock: clock.clone(),
            catalog: catalog.clone(),
            reader: reader.clone(),
            dead_letters: dead_letters.clone(),
        });
        let ledgers = Arc::new(Ledgers::new(LedgersParts {
            store: store.clone(),
            clock: clock.clone(),
            projects: projects.clone(),
            sealer: sealer.clone(),
            config: ledgers,
        }));
        let queues = QueuesParts {
            store: store.clone(),
            clock: clock.clone(),
            projects: projects.clone(),
            dead_letters: dead_letters.clone(),
            drain: drain.clone(),
        };
        let queues = Arc::new(Queues::new(queues, rand::make_rng()));
        let hooks = HooksParts {
            store: store.clone(),
            clock: clock.clone(),
            catalog: catalog.clone(),
            projects: projects.clone(),
            queues: queues.clone(),
            sealer: sealer.clone(),
            egress: egress.clone(),
            drain: drain.clone(),
            requests_max: webhooks_max,
        };
        let hooks = Arc::new(Hooks::new(hooks, rand::make_rng()));
        let connectors = ConnectorsParts {
            store: store.clone(),
            clock: clock.clone(),
            catalog: catalog.clone(),
            projects: projects.clone(),
            reader: reader.clone(),
            pipelines: pipelines.clone(),
            queues: queues.clone(),
            hooks: hooks.clone(),
            ledgers: ledgers.clone(),
            dead_letters: dead_letters.clone(),
            egress: egress.clone(),
            sealer: sealer.clone(),
            drain: drain.clone(),
        };
        let node = Self {
            hooks,
            connectors: Arc::new(Connectors::new(connectors)),
            queues,
            keys: Keys::open(store.clone(), clock.clone()).await?,
            reader,
            groups,
            ledgers,
            budget: Budget::new(limits.project_bytes_max, limits.total_bytes_max),
            answer_budget: Budget::new(limits.project_bytes_max, limits.total_bytes_max),
            // A packed upload is held beside what it unpacks to.
            upload_budget: Budget::new(2 * upload_bytes, 4 * upload_bytes),
            plugins,
            registry,
            pipelines,
            sealer,
            egress,
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
        let made = node.first_start(admin_key).await?;
        Ok((node, made))
    }

    /// Makes the project `default` and an admin key, if there are none.
    async fn first_start(&self, admin_key: Option<String>) -> Result<Option<String>, NodeError> {
        self.projects.ensure(&default_project()).await?;
        match admin_key {
            Some(key) => {
                self.keys.ensure_admin(&key).await?;
                Ok(None)
            }
            None if self.keys.is_empty() => Ok(Some(self.keys.create_admin().await?)),
            None => Ok(None),
        }
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
        // Its id is never used again: what is left of it is never read.
        if let Err(error) = self.groups.forget_topic(project, id).await {
            tracing::warn!(%error, topic = %name, "the groups' commits of a deleted topic remain");
        }
        if let Err(error) = self.pipelines.forget_topic(project, id).await {
            tracing::warn!(%error, topic = %name, "the schema of a deleted topic remains");
        }
        Ok(())
    }
}

impl Node {
    /// Removes, now and then until the drain begins, what uploads have left that did not come to an
    /// end, and components of plugins that were deleted.
    pub async fn sweep_plugins(&self, interval: Duration) {
        loop {
            let projects = self.projects.list(&PageRequest::default()).await;
            let swept = match projects {
                Ok(page) => {
                    let names: Vec<ProjectName> =
                        page.items.into_iter().map(|project| project.name).collect();
                    self.registry.sweep(&names).await.map_err(|error| error.to_string())
                }
                Err(error) => Err(error.to_string()),
            };
            if let Err(error) = swept {
                tracing::warn!(%error, "components that no plugin has remain");
            }
            tokio::select! {
                () = tokio::time::sleep(interval) => {}
                () = self.drain.begun() => return,
            }
        }
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
        let egress = Egress::new(crate::egress::AllowList::default(), clock.clone()).unwrap();
        let config = NodeConfig {
            limits: Limits::default(),
            key_expiry: Duration::from_secs(60),
            admin_key: admin_key.map(ToOwned::to_owned),
            plugins: PluginConfig::new("unused", crate::plugin::Compiler::Here),
            breaker: BreakerConfig::default(),
            ledgers: LedgersConfig::for_tests(),
            sealer: Sealer::from_text("a key of the tests").unwrap(),
            egress,
            webhooks_max: 16,
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
            let request = crate::publish::PublishRequest {
                project: &project,
                destination: crate::publish::Destination::Topic(&name),
                events,
                identity: None,
                ack: None,
                on_reject: crate::publish::OnReject::Refuse,
                alongside: None,
            };
            here.publisher.publish(request).await
        };
        create(&here).await;
        assert_eq!(publish().await.unwrap().places()[0].base_offset, 0);
        there.delete_topic(&project, &name).await.unwrap();
        let gone = publish().await;
        let is_gone =
            matches!(gone, Err(crate::publish::PublishError::Catalog(CatalogError::NotFound(_))));
        assert!(is_gone, "{gone:?}");
        create(&there).await;
        assert_eq!(publish().await.unwrap().places()[0].base_offset, 0);
    }
}
