//! What events pass through in a project: bindings of plugins, routes, and schemas, read from the
//! store and compiled into stages.
//!
//! | module | what it owns |
//! | --- | --- |
//! | `binding` | a plugin's attachment to topics: what is set, and its stored form |
//! | `route` | a pattern's further topics: what is set, and its stored form |
//! | `schema` | a topic's schema and its versions |
//! | `bound` | a stage in use: its fault policy, its breaker, and the search for the event at fault |
//! | `compile` | from what is set to stages |
//! | `pipelines` | reads, keeps and swaps the pipelines of all projects |
//! | `edit` | changes what is set |
//! | `plugged` | a plugin on its own, outside of what publishing passes |
//!
//! A pipeline never changes: a change makes a new one, which takes the place of the old at once.
//! Requests under way end on the one that they began with.

mod binding;
mod bound;
mod compile;
mod edit;
mod pipelines;
mod plugged;
mod route;
mod schema;

use std::collections::HashMap;
use std::sync::{Arc, RwLock};
use std::time::Duration;

use stream_storage::{Timestamp, TopicId};

use crate::lock::{read, write};
use crate::name::{RouteName, TopicName};
use crate::pattern::Pattern;
use crate::stage::{OnFault, Partition, Route, Schema, Transform, Validate};

pub(crate) use binding::StoredBinding;
pub use binding::{
    Binding, BindingList, BindingPlace, InvalidBinding, MEMORY_DEFAULT, TIMEOUT_DEFAULT,
};
pub use bound::{Bound, BoundError};
use compile::{Use, Used};
pub use pipelines::{PipelineError, Pipelines, PipelinesParts};
pub use plugged::{Plugged, use_key};
pub use route::{InvalidRoute, RouteConfig};
pub use schema::{Schemas, SchemasError, StoredSchema};

/// Names whose routes are remembered: clients choose names, so there may be many.
const NAMES_MAX: usize = 10_000;

/// How long after a component could not be loaded it is tried again.
pub const RELOAD_INTERVAL: Duration = Duration::from_secs(5);

/// All that is set in a project, ready for use.
#[derive(Default)]
pub struct Pipeline {
    /// Ordered by pattern, exact topics first.
    validators: Vec<(Pattern, Vec<Bound<dyn Validate>>)>,
    partitioners: Vec<(Pattern, Vec<Bound<dyn Partition>>)>,
    transforms: Vec<(Pattern, Vec<Bound<dyn Transform>>)>,
    routes: Vec<Arc<PlannedRoute>>,
    uses: HashMap<Use, Used>,
    /// When to try again to load what could not be loaded.
    reload_at: Option<Timestamp>,
    plans: RwLock<HashMap<TopicId, Arc<Plan>>>,
    by_name: RwLock<HashMap<TopicName, Arc<[Arc<PlannedRoute>]>>>,
}

/// What the events of one topic pass.
#[derive(Default)]
pub struct Plan {
    /// The topic's own.
    pub schema: Option<Arc<Schema>>,
    /// All of them, in order.
    pub validators: Vec<Bound<dyn Validate>>,
    /// All of them, in order.
    pub transforms: Vec<Bound<dyn Transform>>,
    /// The first that is bound.
    pub partitioner: Option<Bound<dyn Partition>>,
}

/// A route in use.
pub struct PlannedRoute {
    /// Its name.
    pub name: RouteName,
    pattern: Pattern,
    /// Where copies may go.
    pub to: Vec<Pattern>,
    /// Chooses among them.
    pub router: Bound<dyn Route>,
    /// What a missing target does.
    pub on_fault: OnFault,
}

impl Plan {
    /// Whether there is nothing to pass.
    pub fn is_empty(&self) -> bool {
        self.schema.is_none()
            && self.validators.is_empty()
            && self.transforms.is_empty()
            && self.partitioner.is_none()
    }
}

impl PlannedRoute {
    /// Whether a copy may go to this topic.
    pub fn may_reach(&self, topic: &TopicName) -> bool {
        self.to.iter().any(|pattern| pattern.matches(topic))
    }
}

impl Pipeline {
    /// Whether something could not be loaded, and it is time to try again.
    fn is_due(&self, now: Timestamp) -> bool {
        self.reload_at.is_some_and(|at| at <= now)
    }

    /// Whether no event is routed anywhere.
    pub fn has_routes(&self) -> bool {
        !self.routes.is_empty()
    }

    /// The routes of events of this topic, in the order of their names.
    pub fn routes(&self, topic: &TopicName) -> Arc<[Arc<PlannedRoute>]> {
        if let Some(routes) = read(&self.by_name).get(topic) {
            return Arc::clone(routes);
        }
        let matching = self.routes.iter().filter(|route| route.pattern.matches(topic));
        let routes: Arc<[_]> = matching.cloned().collect();
        let mut by_name = write(&self.by_name);
        if by_name.len() >= NAMES_MAX {
            by_name.clear();
        }
        by_name.insert(topic.clone(), Arc::clone(&routes));
        routes
    }

    /// The plan of a topic, if it was made before.
    fn known_plan(&self, topic: TopicId) -> Option<Arc<Plan>> {
        read(&self.plans).get(&topic).cloned()
    }

    /// Makes the plan of a topic with this schema.
    fn make_plan(&self, id: TopicId, name: &TopicName, schema: Option<Arc<Schema>>) -> Arc<Plan> {
        let plan = Arc::new(Plan {
            schema,
            validators: matching(&self.validators, name).cloned().collect(),
            transforms: matching(&self.transforms, name).cloned().collect(),
            partitioner: matching(&self.partitioners, name).next().cloned(),
        });
        write(&self.plans).insert(id, Arc::clone(&plan));
        plan
    }

    /// Forgets a topic's plan: its schema has changed, or it is gone.
    fn forget_plan(&self, topic: TopicId) {
        write(&self.plans).remove(&topic);
    }
}

fn matching<'p, T: ?Sized>(
    bindings: &'p [(Pattern, Vec<Bound<T>>)],
    topic: &TopicName,
) -> impl Iterator<Item = &'p Bound<T>> {
    let topic = topic.clone();
    bindings.iter().filter(move |(pattern, _)| pattern.matches(&topic)).flat_map(|(_, list)| list)
}
