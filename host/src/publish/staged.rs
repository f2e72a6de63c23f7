//! The events of one topic on their way through its plan: schema, validators, transforms, partition.

use std::borrow::Cow;
use std::sync::Arc;

use stream_storage::{Clock, Partition};

use super::PublishError;
use super::expand::Target;
use super::fate::Fates;
use crate::decode;
use crate::event::Event;
use crate::limit::Limits;
use crate::name::TopicName;
use crate::partition::{self, KeyHash};
use crate::pipeline::{Bound, Plan};
use crate::stage::{
    Cause, Change, Context, Fault, OnFault, Partition as _, PluginRef, Transform, Validate,
    Verdict, Who,
};
use crate::topic::Topic;

/// Marks an event that validators should have seen and were skipped for; its value names them.
pub(super) const SKIPPED: &str = "stream-validation-skipped";

/// What stages need beside the events.
pub(super) struct Stages<'a> {
    pub(super) clock: &'a dyn Clock,
    pub(super) limits: &'a Limits,
}

/// One event as it will be stored in one topic.
#[derive(Debug, Clone)]
pub(super) struct Staged<'a, 'e> {
    pub(super) index: u32,
    pub(super) event: Cow<'a, Event<'e>>,
    /// Where the publisher or a plugin wants it.
    partition: Option<u32>,
    /// Validators that it was to pass and did not, since they broke.
    skipped: Vec<String>,
}

/// The events of one topic that have passed its plan.
pub(super) struct Passed<'a, 'e> {
    pub(super) topic: Arc<Topic>,
    pub(super) staged: Vec<Staged<'a, 'e>>,
    /// Events that a transform dropped here.
    pub(super) dropped: Vec<u32>,
}

impl<'a, 'e> Passed<'a, 'e> {
    /// The target's events, none of which has passed anything yet.
    pub(super) fn new(target: Target, events: &'a [Event<'e>]) -> Self {
        let stage = |arrival: super::expand::Arrival| {
            let event = events.get(arrival.index as usize)?;
            Some(Staged {
                index: arrival.index,
                event: Cow::Borrowed(event),
                // A copy's partitions are those of another topic.
                partition: event.partition.filter(|_| !arrival.is_copy),
                skipped: Vec::new(),
            })
        };
        let staged = target.arrivals.into_iter().filter_map(stage).collect();
        Self { topic: target.topic, staged, dropped: Vec::new() }
    }

    /// Leads them through the plan. What is refused is in `fates`.
    pub(super) async fn pass(
        &mut self,
        plan: &Plan,
        stages: &Stages<'_>,
        fates: &mut Fates,
    ) -> Result<(), PublishError> {
        let (topic, partitions) = (self.topic.name.clone(), self.topic.config.partitions);
        let context = Context { topic, partitions };
        self.keep_open(fates);
        if let Some(schema) = &plan.schema {
            let verdicts = schema.validate(&context, &self.events()).await?;
            for (staged, verdict) in self.staged.iter().zip(verdicts) {
                if let Verdict::Reject(reason) = verdict {
                    fates.reject(staged.index, &context.topic, None, reason);
                }
            }
            self.keep_open(fates);
        }
        for validator in &plan.validators {
            self.validate(validator, &context, stages, fates).await?;
        }
        for transform in &plan.transforms {
            self.transform(transform, &context, stages, fates).await?;
        }
        if let Some(partitioner) = &plan.partitioner {
            self.partition(partitioner, &context, stages, fates).await?;
        }
        self.staged.iter_mut().for_each(Staged::mark);
        // What nobody has chosen: all of it, or what a plugin was skipped for.
        self.partition_by_key(&context).await
    }

    /// The partition of each event, in their order, once they have passed.
    pub(super) fn places(&self) -> Result<Vec<Partition>, PublishError> {
        let asked = self
            .staged
            .iter()
            .filter_map(|staged| Some((staged.index as usize, staged.partition?)));
        partition::check(asked, self.topic.config.partitions)?;
        let place = |staged: &Staged<'_, '_>| Partition(staged.partition.unwrap_or_default());
        Ok(self.staged.iter().map(place).collect())
    }

    /// Drops events that were refused, here or elsewhere.
    pub(super) fn keep_open(&mut self, fates: &Fates) {
        self.staged.retain(|staged| fates.is_open(staged.index));
    }

    fn events(&self) -> Vec<&Event<'e>> {
        self.staged.iter().map(|staged| &*staged.event).collect()
    }

    async fn validate(
        &mut self,
        validator: &Bound<dyn Validate>,
        context: &Context,
        stages: &Stages<'_>,
        fates: &mut Fates,
    ) -> Result<(), PublishError> {
        let outcomes = validator.run(stages.clock, context, &self.events()).await?;
        for (staged, outcome) in self.staged.iter_mut().zip(outcomes) {
            match outcome {
                Ok(Verdict::Accept) => {}
                Ok(Verdict::Reject(reason)) => {
                    fates.reject(staged.index, &context.topic, plugin(&validator.who), reason);
                }
                Err(fault) if validator.on_fault == OnFault::Skip => {
                    staged.skipped.extend(plugin(&fault.who).map(ToString::to_string));
                }
                Err(fault) => fates.fault(&[staged.index], &context.topic, &fault),
            }
        }
        self.keep_open(fates);
        Ok(())
    }

    async fn transform(
        &mut self,
        transform: &Bound<dyn Transform>,
        context: &Context,
        stages: &Stages<'_>,
        fates: &mut Fates,
    ) -> Result<(), PublishError> {
        let outcomes = transform.run(stages.clock, context, &self.events()).await?;
        let staged = std::mem::take(&mut self.staged);
        for (mut staged, outcome) in staged.into_iter().zip(outcomes) {
            match outcome {
                Ok(Change::Keep) => {}
                Ok(Change::Drop) => {
                    self.dropped.push(staged.index);
                    continue;
                }
                Ok(Change::Replace(event)) => match decode::check(&event, stages.limits) {
                    Ok(()) => staged.event = Cow::Owned(*event),
                    Err(message) => {
                        malformed(transform, &context.topic, staged.index, message, fates)?;
                        continue;
                    }
                },
                Err(fault) => fates.fault(&[staged.index], &context.topic, &fault),
            }
            self.staged.push(staged);
        }
        self.keep_open(fates);
        Ok(())
    }

    async fn partition(
        &mut self,
        partitioner: &Bound<dyn crate::stage::Partition>,
        context: &Context,
        stages: &Stages<'_>,
        fates: &mut Fates,
    ) -> Result<(), PublishError> {
        let mut free: Vec<&mut Staged<'a, 'e>> =
            self.staged.iter_mut().filter(|staged| staged.partition.is_none()).collect();
        let events: Vec<&Event<'_>> = free.iter().map(|staged| &*staged.event).collect();
        let outcomes = partitioner.run(stages.clock, context, &events).await?;
        for (staged, outcome) in free.iter_mut().zip(outcomes) {
            match outcome {
                Ok(partition) => staged.partition = Some(partition),
                // Skipped: the hash of the key decides.
                Err(_) if partitioner.on_fault == OnFault::Skip => {}
                Err(fault) => fates.fault(&[staged.index], &context.topic, &fault),
            }
        }
        self.keep_open(fates);
        Ok(())
    }
}

impl Passed<'_, '_> {
    async fn partition_by_key(&mut self, context: &Context) -> Result<(), PublishError> {
        let topic = Arc::clone(&self.topic);
        let mut free: Vec<_> =
            self.staged.iter_mut().filter(|staged| staged.partition.is_none()).collect();
        let events: Vec<&Event<'_>> = free.iter().map(|staged| &*staged.event).collect();
        let chosen = KeyHash(&topic.turn).partition(context, &events).await?;
        for (staged, partition) in free.iter_mut().zip(chosen) {
            staged.partition = Some(partition);
        }
        Ok(())
    }
}

impl Staged<'_, '_> {
    /// Marks what no validator has seen, whatever the publisher or a transform says.
    fn mark(&mut self) {
        let is_marked = self.event.headers.iter().any(|(name, _)| name == SKIPPED);
        if self.skipped.is_empty() && !is_marked {
            return;
        }
        let headers = &mut self.event.to_mut().headers;
        headers.retain(|(name, _)| name != SKIPPED);
        if !self.skipped.is_empty() {
            headers.push((SKIPPED.into(), self.skipped.join(", ").into()));
        }
    }
}

/// A transform made an event of something that is none.
fn malformed(
    transform: &Bound<dyn Transform>,
    topic: &TopicName,
    index: u32,
    message: String,
    fates: &mut Fates,
) -> Result<(), PublishError> {
    let fault = Fault { who: transform.who.clone(), cause: Cause::Answer, message };
    if transform.on_fault == OnFault::Reject {
        return Err(PublishError::Fault(fault));
    }
    fates.fault(&[index], topic, &Arc::new(fault));
    Ok(())
}

fn plugin(who: &Who) -> Option<&PluginRef> {
    match who {
        Who::Plugin(plugin) => Some(plugin),
        Who::Route(_) => None,
    }
}
