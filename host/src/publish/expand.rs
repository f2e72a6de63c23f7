//! Where the events of a request go: the topic that was named or that of their type, and the topics
//! to which routes lead from there.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use stream_storage::{CommitError, ProjectName};

use super::fate::Fates;
use super::{Destination, PublishError, PublisherParts};
use crate::catalog::CatalogError;
use crate::event::Event;
use crate::name::TopicName;
use crate::pipeline::{Pipeline, PlannedRoute};
use crate::stage::{Cause, Context, Fault, OnFault, Who};
use crate::topic::Topic;

/// The header that holds an event's type.
const TYPE: &str = "ce-type";

/// Targets of one event, its own topic included: each is a copy.
const TARGETS_MAX: usize = 32;

/// Topics that one request may name, by its types and its routes: each may be a read of the store.
const LOOKUPS_MAX: usize = 1_024;

/// One event on its way to one topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Arrival {
    /// The event's place in the request.
    pub(super) index: u32,
    /// Whether a route brought it here.
    pub(super) is_copy: bool,
}

/// The events of one topic, in the order of the request.
pub(super) struct Target {
    pub(super) topic: Arc<Topic>,
    pub(super) arrivals: Vec<Arrival>,
}

/// Where all events go.
#[derive(Default)]
pub(super) struct Expanded {
    pub(super) targets: Vec<Target>,
    /// Events that go by their types and have come nowhere.
    pub(super) unrouted: Vec<u32>,
}

/// Follows types and routes.
pub(super) struct Expansion<'a, 'e> {
    parts: &'a PublisherParts,
    project: &'a ProjectName,
    pipeline: &'a Pipeline,
    events: &'a [Event<'e>],
    /// Topics that were looked up; `None` if they do not exist.
    topics: BTreeMap<TopicName, Option<Arc<Topic>>>,
    targets: BTreeMap<TopicName, Vec<Arrival>>,
    /// The topics that each event has come to, itself included.
    visited: Vec<BTreeSet<TopicName>>,
    /// Topics with events whose routes are still to be followed.
    pending: VecDeque<(TopicName, Vec<u32>)>,
}

impl<'a, 'e> Expansion<'a, 'e> {
    pub(super) fn new(
        parts: &'a PublisherParts,
        project: &'a ProjectName,
        pipeline: &'a Pipeline,
        events: &'a [Event<'e>],
    ) -> Self {
        Self {
            parts,
            project,
            pipeline,
            events,
            topics: BTreeMap::new(),
            targets: BTreeMap::new(),
            visited: vec![BTreeSet::new(); events.len()],
            pending: VecDeque::new(),
        }
    }

    /// Where the events go. Those that a route's fault keeps from it are in `fates`.
    pub(super) async fn run(
        mut self,
        destination: Destination<'_>,
        fates: &mut Fates,
    ) -> Result<Expanded, PublishError> {
        let starts = self.starts(destination);
        for (name, indices) in starts {
            if self.lookup(&name).await?.is_some() {
                self.arrive(&name, &indices, false);
            } else if !matches!(destination, Destination::ByType) {
                // It says why.
                self.parts.catalog.get(self.project, &name).await?;
            }
            self.pending.push_back((name, indices));
        }
        while let Some((name, indices)) = self.pending.pop_front() {
            let routes = self.pipeline.routes(&name);
            for route in routes.iter() {
                self.follow(&name, &indices, route, fates).await?;
            }
        }
        self.finish(destination, fates)
    }

    /// The topics at which events begin, each with its events.
    fn starts(&self, destination: Destination<'_>) -> BTreeMap<TopicName, Vec<u32>> {
        let mut starts: BTreeMap<TopicName, Vec<u32>> = BTreeMap::new();
        for (index, event) in (0..).zip(self.events) {
            match destination {
                Destination::Topic(name) => starts.entry(name.clone()).or_default().push(index),
                Destination::Each(names) => {
                    if let Some(name) = names.get(index as usize) {
                        starts.entry(name.clone()).or_default().push(index);
                    }
                }
                Destination::ByType => {
                    if let Some(name) = of_type(event) {
                        starts.entry(name).or_default().push(index);
                    }
                }
            }
        }
        starts
    }

    async fn follow(
        &mut self,
        from: &TopicName,
        indices: &[u32],
        route: &Arc<PlannedRoute>,
        fates: &mut Fates,
    ) -> Result<(), PublishError> {
        let indices: Vec<u32> =
            indices.iter().copied().filter(|index| fates.is_open(*index)).collect();
        let chosen = self.choose(from, &indices, route, fates).await?;
        let mut by_topic: BTreeMap<TopicName, Vec<u32>> = BTreeMap::new();
        for (index, topics) in chosen {
            for topic in topics {
                by_topic.entry(topic).or_default().push(index);
            }
        }
        for (topic, mut indices) in by_topic {
            indices.retain(|index| !self.has_visited(*index, &topic));
            if indices.is_empty() {
                continue;
            }
            let problem = if !route.may_reach(&topic) {
                Some((Cause::Answer, format!("`{topic}` matches none of the route's `to`")))
            } else if self.lookup(&topic).await?.is_none() {
                Some((Cause::MissingTarget, format!("topic `{topic}` does not exist")))
            } else {
                None
            };
            match problem {
                None => {
                    self.arrive(&topic, &indices, true);
                    self.check_count(&indices)?;
                    self.pending.push_back((topic, indices));
                }
                Some((cause, message)) => {
                    let who = match cause {
                        Cause::Answer => route.router.who.clone(),
                        _ => Who::Route(route.name.clone()),
                    };
                    let fault = Arc::new(Fault { who, cause, message });
                    match route.on_fault {
                        OnFault::Reject => return Err(PublishError::Fault((*fault).clone())),
                        OnFault::Skip => {}
                        OnFault::DeadLetter => fates.fault(&indices, from, &fault),
                    }
                }
            }
        }
        Ok(())
    }

    /// The topics that a route has for each event.
    async fn choose(
        &self,
        from: &TopicName,
        indices: &[u32],
        route: &PlannedRoute,
        fates: &mut Fates,
    ) -> Result<Vec<(u32, Vec<TopicName>)>, PublishError> {
        let router = &route.router;
        let partitions = self.topics.get(from).and_then(Option::as_ref);
        let partitions = partitions.map_or(0, |topic| topic.config.partitions);
        let context = Context { topic: from.clone(), partitions };
        let events: Vec<&Event<'_>> =
            indices.iter().filter_map(|index| self.events.get(*index as usize)).collect();
        let outcomes = router.run(self.parts.clock.as_ref(), &context, &events).await?;
        let mut chosen = Vec::with_capacity(indices.len());
        for (index, outcome) in indices.iter().zip(outcomes) {
            match outcome {
                Ok(topics) => chosen.push((*index, topics)),
                Err(fault) if router.on_fault == OnFault::DeadLetter => {
                    fates.fault(&[*index], from, &fault);
                }
                // Skipped: it makes no copy.
                Err(_) => {}
            }
        }
        Ok(chosen)
    }

    fn arrive(&mut self, topic: &TopicName, indices: &[u32], is_copy: bool) {
        let arrivals = self.targets.entry(topic.clone()).or_default();
        for index in indices {
            arrivals.push(Arrival { index: *index, is_copy });
            // Without routes nothing is come to twice.
            let visited = self.visited.get_mut(*index as usize);
            if let Some(visited) = visited.filter(|_| self.pipeline.has_routes()) {
                visited.insert(topic.clone());
            }
        }
    }

    fn has_visited(&self, index: u32, topic: &TopicName) -> bool {
        self.visited.get(index as usize).is_some_and(|visited| visited.contains(topic))
    }

    fn check_count(&self, indices: &[u32]) -> Result<(), PublishError> {
        let too_many = |index: &&u32| {
            let visited = self.visited.get(**index as usize);
            visited.is_some_and(|visited| visited.len() > TARGETS_MAX)
        };
        match indices.iter().find(too_many) {
            Some(index) => Err(PublishError::TooManyTargets { index: *index, max: TARGETS_MAX }),
            None => Ok(()),
        }
    }

    /// A topic that events may go to; `None` if there is none.
    async fn lookup(&mut self, name: &TopicName) -> Result<Option<Arc<Topic>>, PublishError> {
        if let Some(known) = self.topics.get(name) {
            return Ok(known.clone());
        }
        if self.topics.len() >= LOOKUPS_MAX {
            return Err(PublishError::TooManyTopics { max: LOOKUPS_MAX });
        }
        let found = match self.parts.catalog.get(self.project, name).await {
            Ok(topic) => Some(topic),
            Err(CatalogError::NotFound(_)) => None,
            Err(error) => return Err(error.into()),
        };
        self.topics.insert(name.clone(), found.clone());
        Ok(found)
    }

    /// Where events have arrived; those of a type that came nowhere are strays.
    fn finish(self, destination: Destination<'_>, fates: &Fates) -> Result<Expanded, PublishError> {
        let Self { parts, events, targets, topics, .. } = self;
        let mut has_arrived = vec![false; events.len()];
        let mut bytes = 0;
        for arrival in targets.values().flatten() {
            bytes += events.get(arrival.index as usize).map_or(0, Event::byte_len);
            if let Some(arrived) = has_arrived.get_mut(arrival.index as usize) {
                *arrived = true;
            }
        }
        let max = parts.store.limits().bytes_max;
        if bytes > max {
            let (limit, got, max) = ("transaction bytes", bytes as u64, max as u64);
            return Err(CommitError::TooLarge { limit, got, max }.into());
        }
        let is_stray = |(index, has_arrived): (u32, &bool)| {
            let is_typed = matches!(destination, Destination::ByType);
            (is_typed && !has_arrived && fates.is_open(index)).then_some(index)
        };
        let unrouted = (0..).zip(&has_arrived).filter_map(is_stray).collect();
        let target = |(name, mut arrivals): (TopicName, Vec<Arrival>)| {
            arrivals.sort_by_key(|arrival| arrival.index);
            let topic = topics.get(&name).cloned().flatten()?;
            Some(Target { topic, arrivals })
        };
        Ok(Expanded { targets: targets.into_iter().filter_map(target).collect(), unrouted })
    }
}

/// The topic of an event's type, if that is a name that clients may write to.
fn of_type(event: &Event<'_>) -> Option<TopicName> {
    let (_, name) = event.headers.iter().find(|(name, _)| name == TYPE)?;
    TopicName::parse(name).ok().filter(|name| !name.is_reserved())
}
