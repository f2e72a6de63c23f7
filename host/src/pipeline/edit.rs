//! Changes of what is set in a project: bindings, routes, and which plugins there are.
//!
//! Each is conditioned on the project's revision, so that a plugin is not deleted while it is bound.

use stream_storage::{CommitError, Expected, ProjectName, Transaction};

use super::binding::{Binding, BindingList, BindingPlace, InvalidBinding, StoredList};
use super::pipelines::{PipelineError, Pipelines, list_key, route_key};
use super::route::{InvalidRoute, RouteConfig, StoredRoute};
use crate::name::{PluginName, RouteName};
use crate::registry::{Registry, RegistryError};
use crate::stage::{PluginRef, Role};
use crate::state::{self, Attempts};

const REVISION: &str = "pipeline-revision";

/// Places with bindings, and routes, of one project: all of them are read to make its pipeline.
const PLACES_MAX: usize = 500;

/// A change of what is set in a project.
enum Edit<'a> {
    List(BindingPlace, ListEdit),
    Unbind(BindingPlace),
    PutRoute(&'a RouteConfig),
    DeleteRoute(&'a RouteName),
    DeletePlugin(&'a PluginName),
}

/// A change of a list of bindings.
enum ListEdit {
    Replace { bindings: Vec<Binding>, revision: Option<u64> },
    RollBack,
}

impl Pipelines {
    /// Binds these plugins, in this order, in the place of those that are. Holds for every request
    /// that begins after this returns; those under way end with the old ones.
    ///
    /// # Errors
    ///
    /// A plugin does not exist or lacks the role, a binding is refused, or `revision` is given and
    /// the list has another.
    pub async fn bind(
        &self,
        project: &ProjectName,
        place: BindingPlace,
        bindings: Vec<Binding>,
        revision: Option<u64>,
    ) -> Result<BindingList, PipelineError> {
        if place.pattern.as_str().starts_with('_') {
            let expected = "topics of your own: what the server writes passes no plugin";
            return Err(InvalidBinding::new("pattern", expected).into());
        }
        for binding in &bindings {
            self.check_role(project, &binding.plugin, place.role).await?;
        }
        self.change_list(project, place, ListEdit::Replace { bindings, revision }).await
    }

    /// Brings back what was bound in a place before its last change.
    ///
    /// # Errors
    ///
    /// Nothing was.
    pub async fn roll_back(
        &self,
        project: &ProjectName,
        place: BindingPlace,
    ) -> Result<BindingList, PipelineError> {
        let found = self.list(project, place.clone()).await?;
        if found.is_gone() {
            let BindingPlace { role, pattern } = place;
            return Err(PipelineError::BindingsNotFound { role, pattern });
        }
        for binding in found.previous.last().into_iter().flatten() {
            self.check_role(project, &binding.plugin, place.role).await?;
        }
        self.change_list(project, place, ListEdit::RollBack).await
    }

    /// Removes a list and what it can go back to.
    ///
    /// # Errors
    ///
    /// There is none.
    pub async fn unbind(
        &self,
        project: &ProjectName,
        place: BindingPlace,
    ) -> Result<(), PipelineError> {
        self.change(project, Edit::Unbind(place)).await.map(drop)
    }

    /// Sets a route, new or not.
    ///
    /// # Errors
    ///
    /// It is refused, or its plugin does not exist or does not route.
    pub async fn put_route(
        &self,
        project: &ProjectName,
        route: &RouteConfig,
    ) -> Result<(), PipelineError> {
        route.check()?;
        if let Some(binding) = &route.plugin {
            binding.check(Role::Route, self.parts.plugins.config())?;
            self.check_role(project, &binding.plugin, Role::Route).await?;
        }
        self.change(project, Edit::PutRoute(route)).await.map(drop)
    }

    /// Removes a route.
    ///
    /// # Errors
    ///
    /// There is none of this name.
    pub async fn delete_route(
        &self,
        project: &ProjectName,
        name: &RouteName,
    ) -> Result<(), PipelineError> {
        self.change(project, Edit::DeleteRoute(name)).await.map(drop)
    }

    /// Deletes a plugin with all its versions.
    ///
    /// # Errors
    ///
    /// It is bound somewhere, or does not exist.
    pub async fn delete_plugin(
        &self,
        project: &ProjectName,
        plugin: &PluginName,
    ) -> Result<(), PipelineError> {
        self.change(project, Edit::DeletePlugin(plugin)).await?;
        self.parts.plugins.forget(project, plugin);
        Ok(())
    }

    /// Checks that a version exists, does what it is to do, and can be loaded.
    pub(super) async fn check_role(
        &self,
        project: &ProjectName,
        plugin: &PluginRef,
        role: Role,
    ) -> Result<(), PipelineError> {
        let loaded = self.parts.registry.load_version(project, plugin).await?;
        if loaded.roles().contains(&role) {
            Ok(())
        } else {
            Err(PipelineError::RoleNotExported { plugin: plugin.clone(), role })
        }
    }

    async fn change_list(
        &self,
        project: &ProjectName,
        place: BindingPlace,
        edit: ListEdit,
    ) -> Result<BindingList, PipelineError> {
        let empty = BindingList::empty(place.clone());
        Ok(self.change(project, Edit::List(place, edit)).await?.unwrap_or(empty))
    }

    /// Adds an edit to a transaction. Returns the list that it changes, if it does.
    async fn prepare(
        &self,
        project: &ProjectName,
        edit: &Edit<'_>,
        transaction: &mut Transaction,
    ) -> Result<Option<BindingList>, PipelineError> {
        match edit {
            Edit::List(place, edit) => {
                let list = self.edited(project, place, edit).await?;
                transaction.put(list_key(place), state::encode(&StoredList::of(&list)));
                return Ok(Some(list));
            }
            Edit::Unbind(place) => {
                let mut list = self.list(project, place.clone()).await?;
                if list.is_gone() {
                    let BindingPlace { role, pattern } = place.clone();
                    return Err(PipelineError::BindingsNotFound { role, pattern });
                }
                // The row stays, so that its revision is never used again.
                list.clear(self.parts.clock.now());
                transaction.put(list_key(place), state::encode(&StoredList::of(&list)));
            }
            Edit::PutRoute(route) => {
                if let Some(binding) = &route.plugin {
                    self.check_exists(project, binding).await?;
                }
                let routes = self.routes(project).await?;
                let is_new = routes.iter().all(|other| other.name != route.name);
                if is_new && routes.len() >= PLACES_MAX {
                    let expected = format!("at most {PLACES_MAX} routes");
                    return Err(InvalidRoute { field: "route", expected }.into());
                }
                transaction.put(route_key(&route.name), state::encode(&StoredRoute::of(route)));
            }
            Edit::DeleteRoute(name) => {
                self.route(project, name).await?;
                transaction.delete(route_key(name));
            }
            Edit::DeletePlugin(plugin) => {
                let (found, version) = self.parts.registry.get_versioned(project, plugin).await?;
                let places = self.uses_of(project, plugin).await?;
                if !places.is_empty() {
                    let plugin = (*plugin).clone();
                    return Err(PipelineError::PluginBound { plugin, places });
                }
                Registry::delete_in(transaction, &found, version);
            }
        }
        Ok(None)
    }

    /// A list as it is stored, with an edit made.
    async fn edited(
        &self,
        project: &ProjectName,
        place: &BindingPlace,
        edit: &ListEdit,
    ) -> Result<BindingList, PipelineError> {
        let (limits, now) = (self.parts.plugins.config(), self.parts.clock.now());
        let mut list = self.list(project, place.clone()).await?;
        if list.revision == 0 && self.lists(project).await?.len() >= PLACES_MAX {
            let expected = format!("at most {PLACES_MAX} topics and patterns with bindings");
            return Err(InvalidBinding::new("bindings", expected).into());
        }
        match edit {
            ListEdit::Replace { bindings, revision } => {
                if let Some(expected) = revision.filter(|expected| *expected != list.revision) {
                    let current = list.revision;
                    return Err(PipelineError::StaleRevision { expected, current });
                }
                list.replace(bindings.clone(), limits, now)?;
            }
            ListEdit::RollBack => list.roll_back(now)?,
        }
        for binding in &list.bindings {
            self.check_exists(project, binding).await?;
        }
        Ok(list)
    }

    /// Checks again, under the revision, that a plugin was not deleted meanwhile.
    async fn check_exists(
        &self,
        project: &ProjectName,
        binding: &Binding,
    ) -> Result<(), PipelineError> {
        let (plugin, _) = self.parts.registry.get_versioned(project, &binding.plugin.name).await?;
        plugin.version(Some(binding.plugin.version)).map_err(RegistryError::from)?;
        Ok(())
    }

    /// Commits an edit under the project's revision, and swaps the pipeline.
    async fn change(
        &self,
        project: &ProjectName,
        edit: Edit<'_>,
    ) -> Result<Option<BindingList>, PipelineError> {
        let turn = self.turn(project);
        let _turn = turn.lock().await;
        let mut attempts = Attempts::default();
        let changed = loop {
            let row = self.parts.store.get(project, REVISION.as_bytes()).await?;
            let (revision, expected): (u64, _) = match &row {
                Some(row) => {
                    (state::decode(REVISION.as_bytes(), row)?, Expected::Version(row.version))
                }
                None => (0, Expected::Absent),
            };
            let mut transaction = Transaction::new(project.clone());
            transaction.expect(REVISION, expected).put(REVISION, state::encode(&(revision + 1)));
            let changed = self.prepare(project, &edit, &mut transaction).await?;
            match self.parts.store.commit(transaction).await {
                Ok(_) => break changed,
                Err(CommitError::Unknown { reason }) => {
                    self.renew(project).await;
                    return Err(CommitError::Unknown { reason }.into());
                }
                Err(error) => attempts.again(error)?,
            }
        };
        self.renew(project).await;
        Ok(changed)
    }
}
