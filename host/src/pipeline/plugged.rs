//! A plugin on its own, outside of what publishing passes: a connector's filter or transform.

use std::sync::Arc;

use stream_storage::ProjectName;
use tokio::sync::Semaphore;

use super::Pipelines;
use super::binding::{Binding, InvalidBinding};
use super::bound::Bound;
use super::pipelines::PipelineError;
use crate::name::PluginName;
use crate::plugin::StageSpec;
use crate::stage::{Breaker, Cause, Fault, Role, Transform, Validate, Who};

/// A plugin on its own.
#[derive(Clone)]
pub enum Plugged {
    /// Keeps back what it rejects.
    Filter(Bound<dyn Validate>),
    /// Changes or drops.
    Transform(Bound<dyn Transform>),
}

impl Pipelines {
    /// Checks a plugin that is to filter or transform on its own.
    ///
    /// # Errors
    ///
    /// It does not exist, does not do that, or its binding is refused.
    pub async fn check_plugged(
        &self,
        project: &ProjectName,
        role: Role,
        binding: &Binding,
    ) -> Result<(), PipelineError> {
        if !matches!(role, Role::Validate | Role::Transform) {
            let expected = "`validate` or `transform`";
            return Err(InvalidBinding::new("role", expected).into());
        }
        binding.check(role, self.parts.plugins.config())?;
        self.check_role(project, &binding.plugin, role).await
    }

    /// Loads a plugin that filters or transforms on its own.
    ///
    /// # Errors
    ///
    /// It cannot be loaded.
    pub async fn plugged(
        &self,
        project: &ProjectName,
        role: Role,
        binding: &Binding,
    ) -> Result<Plugged, PipelineError> {
        let spec = StageSpec {
            project: project.clone(),
            plugin: binding.plugin.clone(),
            config: binding.config.clone(),
            timeout: binding.timeout,
            memory: binding.memory,
            fresh: binding.fresh,
        };
        let who = Who::Plugin(binding.plugin.clone());
        let loaded = self.parts.registry.load_version(project, &binding.plugin).await?;
        let stage = self.parts.plugins.stage(spec, &loaded).map_err(|message| {
            PipelineError::Fault(Fault { who: who.clone(), cause: Cause::Unavailable, message })
        })?;
        Ok(match role {
            Role::Transform => {
                let stage: Arc<dyn Transform> = Arc::new(stage);
                Plugged::Transform(self.alone(stage, who, binding))
            }
            Role::Validate | Role::Partition | Role::Route => {
                let stage: Arc<dyn Validate> = Arc::new(stage);
                Plugged::Filter(self.alone(stage, who, binding))
            }
        })
    }

    fn alone<T: ?Sized>(&self, stage: Arc<T>, who: Who, binding: &Binding) -> Bound<T> {
        Bound {
            stage,
            who,
            on_fault: binding.on_fault,
            breaker: Arc::new(Breaker::new(self.parts.breaker)),
            turns: Arc::new(Semaphore::new(self.parts.plugins.config().threads())),
        }
    }
}

/// What the keys start with under which uses of a plugin outside of bindings and routes are noted.
pub(super) fn uses(plugin: &PluginName) -> String {
    format!("plugin-use/{plugin}/")
}

/// The key that notes a use of a plugin: while it is there, the plugin is not deleted.
pub fn use_key(plugin: &PluginName, place: &str) -> String {
    format!("{}{place}", uses(plugin))
}
