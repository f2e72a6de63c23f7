//! The pipelines of all projects: read from the store, changed, and swapped at once.
//!
//! | state key | value |
//! | --- | --- |
//! | `binding/{role}/{pattern}` | a list of bindings |
//! | `route/{name}` | a route |
//! | `schema/{topic id}` | a topic's schema and its versions |
//! | `pipeline-revision` | counts all changes of bindings and routes, and deletions of plugins |

use std::collections::HashMap;
use std::sync::{Arc, Mutex, RwLock};

use serde_json::Value;
use stream_storage::{Clock, CommitError, ProjectName, StateEntry, Store, StoreError, TopicId};

use super::binding::{Binding, BindingList, BindingPlace, InvalidBinding, StoredList};
use super::compile::{self, Settings};
use super::route::{InvalidRoute, RouteConfig, StoredRoute};
use super::schema::{Schemas, SchemasError, StoredSchema};
use super::{Pipeline, Plan, plugged};
use crate::catalog::{CatalogError, check_writable};
use crate::lock::{lock, read, write};
use crate::name::{PluginName, RouteName};
use crate::pattern::Pattern;
use crate::plugin::Plugins;
use crate::registry::{Registry, RegistryError};
use crate::stage::{BreakerConfig, Fault, Paused, PluginRef, Role};
use crate::state::{self, PageRequest};
use crate::topic::Topic;

const BINDINGS: &str = "binding/";
const ROUTES: &str = "route/";

/// What pipelines are made of.
pub struct PipelinesParts {
    /// Where settings are.
    pub store: Arc<dyn Store>,
    /// The time of day.
    pub clock: Arc<dyn Clock>,
    /// To find plugins.
    pub registry: Arc<Registry>,
    /// Runs them.
    pub plugins: Arc<Plugins>,
    /// The topics' schemas.
    pub schemas: Schemas,
    /// When a stage is paused.
    pub breaker: BreakerConfig,
}

/// Why something was not changed or read.
#[derive(Debug, thiserror::Error)]
pub enum PipelineError {
    /// The topic is the server's own.
    #[error(transparent)]
    Topic(CatalogError),
    /// A binding is refused.
    #[error(transparent)]
    Binding(#[from] InvalidBinding),
    /// A route is refused.
    #[error(transparent)]
    Route(#[from] InvalidRoute),
    /// The plugin does not do what the binding asks for.
    #[error("plugin `{plugin}` does not export `{}`", role.as_str())]
    RoleNotExported {
        /// The plugin.
        plugin: PluginRef,
        /// The role.
        role: Role,
    },
    /// The plugin is in use.
    #[error("plugin `{plugin}` is bound: {}", places.join(", "))]
    PluginBound {
        /// The plugin.
        plugin: PluginName,
        /// Where.
        places: Vec<String>,
    },
    /// The list has changed since it was read.
    #[error("the bindings are at revision {current}, not {expected}")]
    StaleRevision {
        /// What the caller knows.
        expected: u64,
        /// What it is.
        current: u64,
    },
    /// There is no such list.
    #[error("there are no bindings for `{pattern}` in role `{}`", role.as_str())]
    BindingsNotFound {
        /// The role.
        role: Role,
        /// The pattern.
        pattern: Pattern,
    },
    /// There is no such route.
    #[error("route `{name}` does not exist")]
    RouteNotFound {
        /// Its name.
        name: RouteName,
    },
    /// The plugin cannot be started.
    #[error(transparent)]
    Fault(#[from] Fault),
    /// The plugin does not exist, or cannot be loaded.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// The schema is refused.
    #[error(transparent)]
    Schema(#[from] SchemasError),
    /// The store refused the write.
    #[error(transparent)]
    Commit(#[from] CommitError),
    /// The store could not be read.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The pipelines of all projects.
pub struct Pipelines {
    pub(super) parts: PipelinesParts,
    current: RwLock<HashMap<ProjectName, Arc<Pipeline>>>,
    /// Held while a project's pipeline is made or changed.
    changing: Mutex<HashMap<ProjectName, Arc<tokio::sync::Mutex<()>>>>,
}

impl Pipelines {
    /// Reads nothing yet.
    pub fn new(parts: PipelinesParts) -> Self {
        Self { parts, current: RwLock::default(), changing: Mutex::default() }
    }

    /// A project's pipeline: from memory, once it was made.
    ///
    /// # Errors
    ///
    /// The store could not be read.
    pub async fn get(&self, project: &ProjectName) -> Result<Arc<Pipeline>, StoreError> {
        let usable = || {
            let now = self.parts.clock.now();
            self.current(project).filter(|pipeline| !pipeline.is_due(now))
        };
        if let Some(pipeline) = usable() {
            return Ok(pipeline);
        }
        let turn = self.turn(project);
        let _turn = turn.lock().await;
        match usable() {
            Some(pipeline) => Ok(pipeline),
            None => self.make(project).await,
        }
    }

    /// What the events of a topic pass.
    ///
    /// # Errors
    ///
    /// The store could not be read.
    pub async fn plan(&self, pipeline: &Pipeline, topic: &Topic) -> Result<Arc<Plan>, StoreError> {
        if let Some(plan) = pipeline.known_plan(topic.id) {
            return Ok(plan);
        }
        let schema = self.parts.schemas.compiled(&topic.project, topic.id).await?;
        Ok(pipeline.make_plan(topic.id, &topic.name, schema))
    }

    /// The lists of a project, by role and pattern.
    ///
    /// # Errors
    ///
    /// The store could not be read.
    pub async fn lists(&self, project: &ProjectName) -> Result<Vec<BindingList>, StoreError> {
        let all = PageRequest::default();
        let rows = state::page(self.parts.store.as_ref(), project, BINDINGS, &all).await?;
        let lists = rows.items.iter().map(parse_list);
        lists.filter(|list| !list.as_ref().is_ok_and(BindingList::is_gone)).collect()
    }

    /// One list; an empty one if nothing was bound there yet.
    ///
    /// # Errors
    ///
    /// The store could not be read.
    pub async fn list(
        &self,
        project: &ProjectName,
        place: BindingPlace,
    ) -> Result<BindingList, StoreError> {
        let key = list_key(&place);
        match self.parts.store.get(project, key.as_bytes()).await? {
            Some(row) => state::decode::<StoredList>(key.as_bytes(), &row)?.into_list(place),
            None => Ok(BindingList::empty(place)),
        }
    }

    /// The routes of a project, in the order of their names.
    ///
    /// # Errors
    ///
    /// The store could not be read.
    pub async fn routes(&self, project: &ProjectName) -> Result<Vec<RouteConfig>, StoreError> {
        let all = PageRequest::default();
        let rows = state::page(self.parts.store.as_ref(), project, ROUTES, &all).await?;
        rows.items.iter().map(parse_route).collect()
    }

    /// One route.
    ///
    /// # Errors
    ///
    /// There is none of this name.
    pub async fn route(
        &self,
        project: &ProjectName,
        name: &RouteName,
    ) -> Result<RouteConfig, PipelineError> {
        let routes = self.routes(project).await?;
        let found = routes.into_iter().find(|route| route.name == *name);
        found.ok_or_else(|| PipelineError::RouteNotFound { name: name.clone() })
    }

    /// Sets a topic's schema, or removes it if it is null. Holds for every request that begins after
    /// this returns.
    ///
    /// # Errors
    ///
    /// It is refused.
    pub async fn set_schema(
        &self,
        topic: &Topic,
        schema: Value,
    ) -> Result<StoredSchema, PipelineError> {
        check_writable(&topic.name).map_err(PipelineError::Topic)?;
        let turn = self.turn(&topic.project);
        let _turn = turn.lock().await;
        let set = self.parts.schemas.set(&topic.project, topic.id, schema).await;
        // A plan that was read meanwhile may be either.
        self.renew(&topic.project).await;
        Ok(set?)
    }

    /// The versions of a topic's schema, the newest last.
    ///
    /// # Errors
    ///
    /// The store could not be read.
    pub async fn schemas(&self, topic: &Topic) -> Result<Vec<StoredSchema>, StoreError> {
        self.parts.schemas.versions(&topic.project, topic.id).await
    }

    /// Forgets what is kept of a topic that was deleted.
    ///
    /// # Errors
    ///
    /// The store refused: what is left is never read.
    pub async fn forget_topic(
        &self,
        project: &ProjectName,
        topic: TopicId,
    ) -> Result<(), SchemasError> {
        if let Some(pipeline) = self.current(project) {
            pipeline.forget_plan(topic);
        }
        self.parts.schemas.forget(project, topic).await
    }

    /// What is paused in a project now: where, which plugin, and why.
    pub fn paused(&self, project: &ProjectName) -> Vec<(String, PluginRef, Paused)> {
        let Some(pipeline) = self.current(project) else { return Vec::new() };
        let now = self.parts.clock.now();
        let mut paused: Vec<_> = pipeline
            .uses
            .iter()
            .filter_map(|((place, spec), used)| {
                Some((place.clone(), spec.plugin.clone(), used.breaker.paused(now)?))
            })
            .collect();
        paused.sort_by(|one, other| (&one.0, &one.1).cmp(&(&other.0, &other.1)));
        paused
    }

    /// Where a plugin is bound.
    ///
    /// # Errors
    ///
    /// The store could not be read.
    pub async fn uses_of(
        &self,
        project: &ProjectName,
        plugin: &PluginName,
    ) -> Result<Vec<String>, StoreError> {
        let is_it = |binding: &Binding| binding.plugin.name == *plugin;
        let lists = self.lists(project).await?.into_iter();
        let bound = lists
            .filter(|list| list.bindings.iter().any(is_it))
            .map(|list| format!("{}/{}", list.place.role.as_str(), list.place.pattern));
        let routes = self.routes(project).await?.into_iter();
        let routed = routes
            .filter(|route| route.plugin.as_ref().is_some_and(is_it))
            .map(|route| format!("route/{}", route.name));
        let prefix = plugged::uses(plugin);
        let all = PageRequest::default();
        let noted = state::page(self.parts.store.as_ref(), project, &prefix, &all).await?.items;
        let noted = noted.iter().map(|row| state::name_in(&row.key, &prefix));
        Ok(bound.chain(routed).chain(noted).collect())
    }

    /// Puts a pipeline of what is stored now in the place of the old one. If it cannot be read, the
    /// next request tries again.
    pub(super) async fn renew(&self, project: &ProjectName) {
        if let Err(error) = self.make(project).await {
            tracing::warn!(%error, %project, "the pipeline cannot be read");
            write(&self.current).remove(project);
        }
    }

    async fn make(&self, project: &ProjectName) -> Result<Arc<Pipeline>, StoreError> {
        let settings =
            Settings { lists: self.lists(project).await?, routes: self.routes(project).await? };
        let before = self.current(project);
        let made = compile::compile(&self.parts, project, settings, before.as_deref()).await;
        let made = Arc::new(made);
        write(&self.current).insert(project.clone(), Arc::clone(&made));
        Ok(made)
    }

    fn current(&self, project: &ProjectName) -> Option<Arc<Pipeline>> {
        read(&self.current).get(project).cloned()
    }

    pub(super) fn turn(&self, project: &ProjectName) -> Arc<tokio::sync::Mutex<()>> {
        Arc::clone(lock(&self.changing).entry(project.clone()).or_default())
    }
}

pub(super) fn list_key(place: &BindingPlace) -> String {
    format!("{BINDINGS}{}/{}", place.role.as_str(), place.pattern)
}

pub(super) fn route_key(name: &RouteName) -> String {
    format!("{ROUTES}{name}")
}

fn parse_list(entry: &StateEntry) -> Result<BindingList, StoreError> {
    let place = state::name_in(&entry.key, BINDINGS);
    let corrupt = || StoreError::Corrupt { reason: format!("binding `{place}`") };
    let (role, pattern) = place.split_once('/').ok_or_else(corrupt)?;
    let role = Role::parse(role).ok_or_else(corrupt)?;
    let pattern = Pattern::parse(pattern).map_err(|_| corrupt())?;
    let stored: StoredList = state::decode(&entry.key, &entry.versioned)?;
    stored.into_list(BindingPlace { role, pattern })
}

fn parse_route(entry: &StateEntry) -> Result<RouteConfig, StoreError> {
    let stored: StoredRoute = state::decode(&entry.key, &entry.versioned)?;
    let name = RouteName::parse(&state::name_in(&entry.key, ROUTES))
        .map_err(|error| StoreError::Corrupt { reason: error.to_string() })?;
    stored.into_route(name)
}
