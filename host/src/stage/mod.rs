//! The stages that events pass on their way to the store, as narrow traits.
//!
//! A stage gets events of one topic and answers with one outcome an event. Plugins and what is built
//! in are equals behind these traits: the write path does not know which of them it calls.
//!
//! | module | what it owns |
//! | --- | --- |
//! | `fault` | a stage that broke, and what is done with the events then |
//! | `breaker` | pauses a stage that mostly breaks |
//! | `schema` | the built-in validator: JSON Schema |
//!
//! The built-in partitioner is [`partition::KeyHash`](crate::partition::KeyHash), the built-in router
//! that of a route without a plugin.

mod breaker;
mod fault;
mod schema;

use async_trait::async_trait;

use crate::event::Event;
use crate::name::TopicName;

pub use breaker::{Breaker, BreakerConfig, Paused};
pub use fault::{Cause, Fault, OnFault, PluginRef, Who};
pub use schema::{Schema, SchemaError};

/// What a stage does with events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    /// Accepts or rejects.
    Validate,
    /// Chooses partitions.
    Partition,
    /// Chooses topics for copies.
    Route,
    /// Changes or drops.
    Transform,
}

impl Role {
    /// All roles, in the order of their names.
    pub const ALL: [Self; 4] = [Self::Partition, Self::Route, Self::Transform, Self::Validate];

    /// The role's word, which is its interface's name too.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Validate => "validate",
            Self::Partition => "partition",
            Self::Route => "route",
            Self::Transform => "transform",
        }
    }

    /// The role of that word.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.as_str() == word)
    }
}

/// What holds for all events of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Context {
    /// Their topic.
    pub topic: TopicName,
    /// How many partitions it has; 0 if there is no such topic, which only a router meets.
    pub partitions: u32,
}

/// What a validator says of one event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It may be stored.
    Accept,
    /// It may not, for this reason.
    Reject(String),
}

/// What a transform makes of one event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// It stays as it is.
    Keep,
    /// This takes its place.
    Replace(Box<Event<'static>>),
    /// It is not stored.
    Drop,
}

/// Accepts or rejects events.
#[async_trait]
pub trait Validate: Send + Sync {
    /// One verdict an event, in their order.
    ///
    /// # Errors
    ///
    /// The stage broke: there is no verdict on any of the events.
    async fn validate(
        &self,
        context: &Context,
        events: &[&Event<'_>],
    ) -> Result<Vec<Verdict>, Fault>;
}

/// Chooses partitions.
#[async_trait]
pub trait Partition: Send + Sync {
    /// One partition an event, in their order, each below `context.partitions`.
    ///
    /// # Errors
    ///
    /// The stage broke.
    async fn partition(&self, context: &Context, events: &[&Event<'_>]) -> Result<Vec<u32>, Fault>;
}

/// Chooses topics for copies.
#[async_trait]
pub trait Route: Send + Sync {
    /// The names of topics for each event, in their order; not known to exist.
    ///
    /// # Errors
    ///
    /// The stage broke.
    async fn route(
        &self,
        context: &Context,
        events: &[&Event<'_>],
    ) -> Result<Vec<Vec<TopicName>>, Fault>;
}

/// Changes or drops events.
#[async_trait]
pub trait Transform: Send + Sync {
    /// One change an event, in their order.
    ///
    /// # Errors
    ///
    /// The stage broke.
    async fn transform(
        &self,
        context: &Context,
        events: &[&Event<'_>],
    ) -> Result<Vec<Change>, Fault>;
}
