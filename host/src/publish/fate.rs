//! What becomes of each event of a request, wherever it goes: one that any of its topics refuses is
//! stored in none of them.

use std::sync::Arc;

use super::answer::Refusal;
use crate::name::TopicName;
use crate::stage::{Fault, PluginRef};

/// What becomes of one event.
#[derive(Debug, Clone, Default)]
pub(super) enum Fate {
    /// Nothing has refused it.
    #[default]
    Open,
    /// A validator has.
    Rejected(Refusal),
    /// A stage broke on it.
    Faulted(TopicName, Arc<Fault>),
}

/// What becomes of all events of a request.
pub(super) struct Fates(Vec<Fate>);

impl Fates {
    pub(super) fn new(count: usize) -> Self {
        Self(vec![Fate::Open; count])
    }

    /// Whether nothing has refused the event.
    pub(super) fn is_open(&self, index: u32) -> bool {
        matches!(self.0.get(index as usize), Some(Fate::Open))
    }

    /// A validator rejects it; only the first refusal counts.
    pub(super) fn reject(
        &mut self,
        index: u32,
        topic: &TopicName,
        plugin: Option<&PluginRef>,
        reason: String,
    ) {
        self.set(index, || Fate::Rejected(Refusal::rejected(index, topic, plugin, reason)));
    }

    /// A stage broke on them.
    pub(super) fn fault(&mut self, indices: &[u32], topic: &TopicName, fault: &Arc<Fault>) {
        for index in indices {
            self.set(*index, || Fate::Faulted(topic.clone(), Arc::clone(fault)));
        }
    }

    fn set(&mut self, index: u32, fate: impl FnOnce() -> Fate) {
        if let Some(slot) = self.0.get_mut(index as usize)
            && matches!(slot, Fate::Open)
        {
            *slot = fate();
        }
    }

    /// The events that were rejected.
    pub(super) fn rejected(&self) -> Vec<Refusal> {
        let rejected = self.0.iter().filter_map(|fate| match fate {
            Fate::Rejected(refusal) => Some(refusal.clone()),
            Fate::Open | Fate::Faulted(..) => None,
        });
        rejected.collect()
    }

    /// The events for the dead-letter topic, where they were going, and what broke on them.
    pub(super) fn faulted(&self) -> impl Iterator<Item = (u32, &TopicName, &Arc<Fault>)> {
        (0..).zip(&self.0).filter_map(|(index, fate)| match fate {
            Fate::Faulted(topic, fault) => Some((index, topic, fault)),
            Fate::Open | Fate::Rejected(_) => None,
        })
    }
}
