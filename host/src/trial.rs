//! A dry run: events through a version of a plugin, and what the version that is bound now would say
//! of them. Nothing is stored, and nothing of it counts for a breaker.

use stream_storage::ProjectName;

use crate::decode;
use crate::event::Event;
use crate::limit::Limits;
use crate::name::{PluginName, TopicName};
use crate::pipeline::{Binding, PipelineError, Pipelines};
use crate::plugin::{Outcomes, Plugins, StageSpec, Usage};
use crate::registry::{Registry, RegistryError};
use crate::stage::{Cause, Change, Context, Fault, PluginRef, Role, Who};

/// What to try.
#[derive(Debug)]
pub struct TrialRequest<'a> {
    /// Whose plugin.
    pub project: &'a ProjectName,
    /// The plugin.
    pub plugin: &'a PluginName,
    /// Its version; the newest if `None`.
    pub version: Option<u64>,
    /// What it is to do; its only role if `None`.
    pub role: Option<Role>,
    /// Its config; that of the binding if `None`.
    pub config: Option<String>,
    /// The topic that the events are said to be of, and its partitions.
    pub context: Context,
    /// The events.
    pub events: &'a [Event<'a>],
}

/// What a version said.
#[derive(Debug)]
pub struct Said {
    /// One outcome an event, or why there is none.
    pub outcomes: Result<Outcomes, Fault>,
    /// What the call took.
    pub usage: Usage,
}

/// What a dry run showed.
#[derive(Debug)]
pub struct Trial {
    /// The version that was tried.
    pub plugin: PluginRef,
    /// What it did.
    pub role: Role,
    /// Its config.
    pub config: String,
    /// What it said.
    pub said: Said,
    /// The version of the same plugin that is bound for the topic, where, and what it said.
    pub bound: Option<(PluginRef, String, Said)>,
}

/// Why nothing was tried.
#[derive(Debug, thiserror::Error)]
pub enum TrialError {
    /// The plugin does several things, or not this one.
    #[error("plugin `{plugin}` exports {exported}: `role` has to say one of them")]
    Role {
        /// The plugin.
        plugin: PluginRef,
        /// What it exports.
        exported: String,
    },
    /// The plugin does not exist or cannot be loaded.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// What is bound cannot be read.
    #[error(transparent)]
    Pipeline(#[from] PipelineError),
}

/// Runs trials.
pub struct Trials<'a> {
    /// To find plugins.
    pub registry: &'a Registry,
    /// Runs them.
    pub plugins: &'a Plugins,
    /// To find what is bound.
    pub pipelines: &'a Pipelines,
    /// What an event may be.
    pub limits: &'a Limits,
}

impl Trials<'_> {
    /// Runs events through a plugin.
    ///
    /// # Errors
    ///
    /// See [`TrialError`]; a plugin that breaks is no error but an answer.
    pub async fn run(&self, request: TrialRequest<'_>) -> Result<Trial, TrialError> {
        let TrialRequest { project, plugin: name, version, .. } = request;
        let found = self.registry.get(project, name).await?;
        let version = found.version(version).map_err(RegistryError::from)?;
        let plugin = PluginRef { name: name.clone(), version: version.version };
        let role = match (request.role, version.roles.as_slice()) {
            (Some(role), roles) if roles.contains(&role) => role,
            (None, [role]) => *role,
            (_, roles) => {
                let words: Vec<_> = roles.iter().map(|role| role.as_str()).collect();
                let exported = words.join(", ");
                return Err(TrialError::Role { plugin, exported });
            }
        };
        let bound = self.bound(project, name, role, &request.context.topic).await?;
        let base = bound.as_ref().map(|(binding, _)| binding.clone());
        let base = base.unwrap_or_else(|| Binding::new(plugin.clone()));
        let tried = Binding {
            plugin: plugin.clone(),
            config: request.config.clone().unwrap_or_else(|| base.config.clone()),
            ..base
        };
        let said = self.call(&request, role, &tried).await?;
        let bound = match bound {
            Some((binding, place)) => {
                let said = self.call(&request, role, &binding).await?;
                Some((binding.plugin, place, said))
            }
            None => None,
        };
        Ok(Trial { plugin, role, config: tried.config, said, bound })
    }

    /// The binding of the plugin that serves the topic, and where it is.
    async fn bound(
        &self,
        project: &ProjectName,
        plugin: &PluginName,
        role: Role,
        topic: &TopicName,
    ) -> Result<Option<(Binding, String)>, TrialError> {
        let is_it = |binding: &Binding| binding.plugin.name == *plugin;
        if role == Role::Route {
            let routes = self.pipelines.routes(project).await.map_err(PipelineError::from)?;
            let found = routes.into_iter().find_map(|route| {
                let binding = route.plugin.filter(is_it)?;
                route.pattern.matches(topic).then(|| (binding, format!("route/{}", route.name)))
            });
            return Ok(found);
        }
        let mut lists = self.pipelines.lists(project).await.map_err(PipelineError::from)?;
        lists.retain(|list| list.place.role == role && list.place.pattern.matches(topic));
        // The exact topic's before patterns', as it is when events are published.
        lists.sort_by_key(|list| list.place.pattern.as_topic().is_none());
        Ok(lists.into_iter().find_map(|list| {
            let place = format!("{}/{}", role.as_str(), list.place.pattern);
            let binding = list.bindings.into_iter().find(is_it)?;
            Some((binding, place))
        }))
    }

    async fn call(
        &self,
        request: &TrialRequest<'_>,
        role: Role,
        binding: &Binding,
    ) -> Result<Said, TrialError> {
        let loaded = self.registry.load_version(request.project, &binding.plugin).await?;
        let spec = StageSpec {
            project: request.project.clone(),
            plugin: binding.plugin.clone(),
            config: binding.config.clone(),
            timeout: binding.timeout,
            memory: binding.memory,
            fresh: true,
        };
        let unavailable = |message| Fault {
            who: Who::Plugin(binding.plugin.clone()),
            cause: Cause::Unavailable,
            message,
        };
        let stage = match self.plugins.stage(spec, &loaded) {
            Ok(stage) => stage,
            Err(message) => {
                let outcomes = Err(unavailable(message));
                return Ok(Said { outcomes, usage: Usage::default() });
            }
        };
        let events: Vec<&Event<'_>> = request.events.iter().collect();
        let (outcomes, usage) = stage.call_and_tell(role, &request.context, &events).await;
        let outcomes = outcomes.and_then(|outcomes| self.checked(outcomes, &binding.plugin));
        Ok(Said { outcomes, usage })
    }

    /// What a publish would check of a transform's events, too.
    fn checked(&self, outcomes: Outcomes, plugin: &PluginRef) -> Result<Outcomes, Fault> {
        if let Outcomes::Changes(changes) = &outcomes {
            for change in changes {
                if let Change::Replace(event) = change
                    && let Err(message) = decode::check(event, self.limits)
                {
                    let who = Who::Plugin(plugin.clone());
                    return Err(Fault { who, cause: Cause::Answer, message });
                }
            }
        }
        Ok(outcomes)
    }
}
