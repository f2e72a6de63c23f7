//! Jobs that were given up, as dead letters.

use stream_storage::{Partition, Transaction};

use super::QueueError;
use super::job::{Job, Source};
use crate::event::Event;
use crate::name::TopicName;
use crate::publish::{DEAD_LETTER, DeadLetter, DeadLetters, GivenUpBy};

/// A job that was given up.
pub(super) struct GivenUp<'a> {
    pub(super) queue: &'a str,
    pub(super) job: &'a Job,
    pub(super) attempts: u32,
}

impl GivenUp<'_> {
    /// Adds its dead letter. What was made of a dead letter makes no further one: they would go round
    /// for ever.
    pub(super) async fn tell(
        &self,
        letters: &DeadLetters,
        transaction: &mut Transaction,
        cause: &str,
        reason: &str,
    ) -> Result<(), QueueError> {
        let Self { queue, job, attempts } = *self;
        let source = job.source.as_ref();
        if source.is_some_and(|source| source.topic == DEAD_LETTER) {
            return Ok(());
        }
        let topic = source.and_then(|source| TopicName::parse(&source.topic).ok());
        let place = |source: &Source| (Partition(source.partition), source.offset);
        let headers = job.headers.iter();
        let event = Event {
            key: job.key.as_deref().map(Into::into),
            id: job.headers.get("event-id").map(|id| id.as_str().into()),
            content_type: job.content_type.as_deref().map(Into::into),
            headers: headers.map(|(name, value)| (&**name, &**value)).map(both).collect(),
            value: job.payload.as_ref().into(),
            value_is_json: job.content_type.as_deref().is_none_or(|media| media.ends_with("json")),
            ..Event::default()
        };
        let letter = DeadLetter {
            by: GivenUpBy::Queue(queue),
            topic: topic.as_ref(),
            place: source.map(place),
            cause,
            reason,
            attempts,
            event: &event,
        };
        Ok(letters.add(transaction, &[letter]).await?)
    }
}

fn both<'a>(
    (name, value): (&'a str, &'a str),
) -> (std::borrow::Cow<'a, str>, std::borrow::Cow<'a, str>) {
    (name.into(), value.into())
}
