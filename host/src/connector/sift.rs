//! What a connector's plugin makes of the events that were read.

use std::sync::Arc;

use stream_storage::{Clock, Timestamp};

use crate::event::Event;
use crate::name::TopicName;
use crate::pipeline::{BoundError, Plugged};
use crate::publish::{DeadLetter, GivenUpBy};
use crate::slot::Slot;
use crate::stage::{Change, Context, Fault, OnFault, Verdict, Who};

/// An event on its way to a target.
#[derive(Debug, Clone)]
pub(super) struct Taken<'a> {
    pub(super) topic: Arc<TopicName>,
    pub(super) slot: Slot,
    pub(super) offset: u64,
    pub(super) timestamp: Timestamp,
    pub(super) event: Event<'a>,
}

/// What is left of a batch.
#[derive(Debug, Default)]
pub(super) struct Sifted<'a> {
    /// These go on.
    pub(super) kept: Vec<Taken<'a>>,
    /// On these the plugin broke.
    pub(super) faulted: Vec<(Taken<'a>, Arc<Fault>)>,
    /// So many were kept back.
    pub(super) dropped: u64,
}

/// Leads events through a plugin, in their order.
pub(super) async fn sift<'a>(
    plugin: Option<&Plugged>,
    clock: &dyn Clock,
    taken: Vec<Taken<'a>>,
) -> Result<Sifted<'a>, BoundError> {
    let Some(plugin) = plugin else {
        return Ok(Sifted { kept: taken, ..Sifted::default() });
    };
    let mut sifted = Sifted::default();
    let mut rest = taken.into_iter().peekable();
    // A call is about one topic.
    while let Some(first) = rest.next() {
        let topic = Arc::clone(&first.topic);
        let mut of_topic = vec![first];
        while let Some(next) = rest.next_if(|next| next.topic == topic) {
            of_topic.push(next);
        }
        let context = Context { topic: TopicName::clone(&topic), partitions: 1 };
        let events: Vec<&Event<'_>> = of_topic.iter().map(|taken| &taken.event).collect();
        match plugin {
            Plugged::Filter(bound) => {
                let outcomes = bound.run(clock, &context, &events).await?;
                sifted.filtered(of_topic, outcomes, bound.on_fault);
            }
            Plugged::Transform(bound) => {
                let outcomes = bound.run(clock, &context, &events).await?;
                sifted.changed(of_topic, outcomes);
            }
        }
    }
    Ok(sifted)
}

impl<'a> Sifted<'a> {
    fn filtered(
        &mut self,
        taken: Vec<Taken<'a>>,
        outcomes: Vec<Result<Verdict, Arc<Fault>>>,
        on_fault: OnFault,
    ) {
        for (taken, outcome) in taken.into_iter().zip(outcomes) {
            match outcome {
                Ok(Verdict::Accept) => self.kept.push(taken),
                Ok(Verdict::Reject(_)) => self.dropped += 1,
                Err(_) if on_fault == OnFault::Skip => self.kept.push(taken),
                Err(fault) => self.faulted.push((taken, fault)),
            }
        }
    }

    fn changed(&mut self, taken: Vec<Taken<'a>>, outcomes: Vec<Result<Change, Arc<Fault>>>) {
        for (mut taken, outcome) in taken.into_iter().zip(outcomes) {
            match outcome {
                Ok(Change::Keep) => self.kept.push(taken),
                Ok(Change::Replace(event)) => {
                    taken.event = *event;
                    self.kept.push(taken);
                }
                Ok(Change::Drop) => self.dropped += 1,
                Err(fault) => self.faulted.push((taken, fault)),
            }
        }
    }

    /// The dead letters of what the plugin broke on.
    pub(super) fn letters(&self) -> Vec<DeadLetter<'_>> {
        self.faulted
            .iter()
            .filter_map(|(taken, fault)| {
                let Who::Plugin(plugin) = &fault.who else { return None };
                Some(DeadLetter {
                    by: GivenUpBy::Plugin(plugin),
                    topic: Some(&taken.topic),
                    place: Some((taken.slot.partition, taken.offset)),
                    cause: fault.cause.as_str(),
                    reason: &fault.message,
                    attempts: 1,
                    event: &taken.event,
                })
            })
            .collect()
    }
}
