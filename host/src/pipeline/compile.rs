//! From what is set to stages that can be called.

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use stream_storage::{ProjectName, Timestamp};
use tokio::sync::Semaphore;

use super::binding::{Binding, BindingList};
use super::bound::Bound;
use super::pipelines::PipelinesParts;
use super::route::{FixedTopics, RouteConfig};
use super::{Pipeline, PlannedRoute, RELOAD_INTERVAL};
use crate::event::Event;
use crate::name::TopicName;
use crate::plugin::{PluginStage, StageSpec};
use crate::stage::{
    Breaker, Cause, Change, Context, Fault, Partition, Role, Route, Transform, Validate, Verdict,
    Who,
};

/// A use of a plugin: in a list of bindings, or in a route.
pub(super) type Use = (String, StageSpec);

/// What is called for a use, and the breaker that watches it.
#[derive(Clone)]
pub(super) struct Used {
    stage: Stage,
    pub(super) breaker: Arc<Breaker>,
    turns: Arc<Semaphore>,
}

#[derive(Clone)]
enum Stage {
    Plugin(Arc<PluginStage>),
    /// It cannot be loaded.
    Broken(Arc<Broken>),
}

/// All that is set in a project.
pub(super) struct Settings {
    pub(super) lists: Vec<BindingList>,
    pub(super) routes: Vec<RouteConfig>,
}

/// Compiles a project's settings; what is used as before keeps its instances and its breaker.
pub(super) async fn compile(
    parts: &PipelinesParts,
    project: &ProjectName,
    settings: Settings,
    before: Option<&Pipeline>,
) -> Pipeline {
    let mut compiler =
        Compiler { parts, project, before, pipeline: Pipeline::default(), uses: HashMap::new() };
    let Settings { mut lists, routes } = settings;
    // The exact topic's before patterns', else in the order of their texts.
    lists.sort_by_key(|list| {
        let pattern = &list.place.pattern;
        (pattern.as_topic().is_none(), pattern.as_str().to_owned())
    });
    for list in lists {
        compiler.add_list(list).await;
    }
    for route in routes {
        compiler.add_route(route).await;
    }
    let Compiler { mut pipeline, uses, .. } = compiler;
    if uses.values().any(|used| matches!(used.stage, Stage::Broken(_))) {
        let Timestamp(now) = parts.clock.now();
        let wait = u64::try_from(RELOAD_INTERVAL.as_millis()).unwrap_or(u64::MAX);
        pipeline.reload_at = Some(Timestamp(now.saturating_add(wait)));
    }
    pipeline.uses = uses;
    pipeline
}

struct Compiler<'p> {
    parts: &'p PipelinesParts,
    project: &'p ProjectName,
    before: Option<&'p Pipeline>,
    pipeline: Pipeline,
    uses: HashMap<Use, Used>,
}

impl Compiler<'_> {
    async fn add_list(&mut self, list: BindingList) {
        let pattern = list.place.pattern;
        let place = format!("{}/{pattern}", list.place.role.as_str());
        let mut used = Vec::new();
        for binding in list.bindings {
            let found = self.used(&place, &binding).await;
            used.push((binding, found));
        }
        let pipeline = &mut self.pipeline;
        match list.place.role {
            Role::Validate => {
                pipeline.validators.push((pattern, bind(used, Stage::validate)));
            }
            Role::Partition => {
                pipeline.partitioners.push((pattern, bind(used, Stage::partition)));
            }
            Role::Transform => {
                pipeline.transforms.push((pattern, bind(used, Stage::transform)));
            }
            // Routers are bound by their routes.
            Role::Route => {}
        }
    }

    async fn add_route(&mut self, route: RouteConfig) {
        let RouteConfig { name, pattern, to, plugin, on_fault } = route;
        let router = match plugin {
            Some(binding) => {
                let used = self.used(&format!("route/{name}"), &binding).await;
                bound(&Binding { on_fault, ..binding }, &used, used.stage.route())
            }
            None => Bound {
                stage: Arc::new(FixedTopics::new(&to)) as Arc<dyn Route>,
                who: Who::Route(name.clone()),
                on_fault,
                breaker: Arc::new(Breaker::new(self.parts.breaker)),
                turns: Arc::new(Semaphore::new(Semaphore::MAX_PERMITS)),
            },
        };
        let route = PlannedRoute { name, pattern, to, router, on_fault };
        self.pipeline.routes.push(Arc::new(route));
    }

    async fn used(&mut self, place: &str, binding: &Binding) -> Used {
        let spec = StageSpec {
            project: self.project.clone(),
            plugin: binding.plugin.clone(),
            config: binding.config.clone(),
            timeout: binding.timeout,
            memory: binding.memory,
            fresh: binding.fresh,
        };
        let key = (place.to_owned(), spec);
        let before = self.before.and_then(|before| before.uses.get(&key));
        let used = match before.filter(|used| matches!(used.stage, Stage::Plugin(_))) {
            Some(used) => used.clone(),
            None => Used {
                stage: self.load(&key.1).await,
                breaker: Arc::new(Breaker::new(self.parts.breaker)),
                turns: Arc::new(Semaphore::new(self.parts.plugins.config().threads())),
            },
        };
        self.uses.insert(key, used.clone());
        used
    }

    async fn load(&self, spec: &StageSpec) -> Stage {
        let loaded = self.parts.registry.load_version(self.project, &spec.plugin).await;
        let stage = loaded
            .map_err(|error| error.to_string())
            .and_then(|loaded| self.parts.plugins.stage(spec.clone(), &loaded));
        match stage {
            Ok(stage) => Stage::Plugin(Arc::new(stage)),
            Err(message) => {
                tracing::error!(plugin = %spec.plugin, %message, "a bound plugin cannot be loaded");
                let who = Who::Plugin(spec.plugin.clone());
                Stage::Broken(Arc::new(Broken { who, message }))
            }
        }
    }
}

fn bind<T: ?Sized>(used: Vec<(Binding, Used)>, stage: impl Fn(&Stage) -> Arc<T>) -> Vec<Bound<T>> {
    used.iter().map(|(binding, used)| bound(binding, used, stage(&used.stage))).collect()
}

fn bound<T: ?Sized>(binding: &Binding, used: &Used, stage: Arc<T>) -> Bound<T> {
    Bound {
        stage,
        who: Who::Plugin(binding.plugin.clone()),
        on_fault: binding.on_fault,
        breaker: Arc::clone(&used.breaker),
        turns: Arc::clone(&used.turns),
    }
}

macro_rules! as_stage {
    ($($method:ident -> $trait:ident),*) => {
        impl Stage {
            $(fn $method(&self) -> Arc<dyn $trait> {
                match self {
                    Self::Plugin(stage) => Arc::clone(stage) as Arc<dyn $trait>,
                    Self::Broken(broken) => Arc::clone(broken) as Arc<dyn $trait>,
                }
            })*
        }
    };
}

as_stage!(
    validate -> Validate,
    partition -> Partition,
    route -> Route,
    transform -> Transform
);

/// Stands where a plugin cannot be loaded.
struct Broken {
    who: Who,
    message: String,
}

impl Broken {
    fn fault(&self) -> Fault {
        let message = self.message.clone();
        Fault { who: self.who.clone(), cause: Cause::Unavailable, message }
    }
}

macro_rules! broken {
    ($($trait:ident, $method:ident, $outcome:ty;)*) => {
        $(#[async_trait]
        impl $trait for Broken {
            async fn $method(
                &self,
                _: &Context,
                _: &[&Event<'_>],
            ) -> Result<Vec<$outcome>, Fault> {
                Err(self.fault())
            }
        })*
    };
}

broken! {
    Validate, validate, Verdict;
    Partition, partition, u32;
    Route, route, Vec<TopicName>;
    Transform, transform, Change;
}
