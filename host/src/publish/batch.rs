//! What a request stores: for each partition of each topic one batch of records, with the index
//! entries that the topic asks for.

use std::collections::{BTreeMap, BTreeSet};

use stream_storage::{Ack, Append, Partition, RecordBatch};

use super::answer::{Note, Refusal};
use super::staged::Passed;
use super::{PublishError, PublishRequest};
use crate::event::Event;
use crate::heavy::heavy;
use crate::topic::Topic;
use crate::{index, partition};

/// What a record's encoding takes beside its fields, roughly: to size a batch's buffer.
const RECORD_OVERHEAD: usize = 16;

/// What a request stores, and what it is told of it.
pub(super) struct Batch {
    pub(super) appends: Vec<Append>,
    pub(super) note: Note,
    /// What its topics ask for: the strictest.
    pub(super) ack: Ack,
}

impl Batch {
    pub(super) fn new(request: &PublishRequest<'_>, rejected: Vec<Refusal>) -> Self {
        let topic = request.topic().map(ToString::to_string);
        let note = Note { topic, rejected, ..Note::default() };
        Self { appends: Vec::new(), note, ack: Ack::Memory }
    }

    /// Adds the events of topics, counting each once however many copies there are of it.
    pub(super) fn add_passed(&mut self, passed: Vec<Passed<'_, '_>>) -> Result<(), PublishError> {
        let mut stored = BTreeSet::new();
        let mut dropped = BTreeSet::new();
        for here in passed {
            let places = here.places()?;
            stored.extend(here.staged.iter().map(|staged| staged.index));
            dropped.extend(&here.dropped);
            let bytes = here.staged.iter().map(|staged| staged.event.byte_len()).sum();
            let events = here.staged.iter().map(|staged| &*staged.event);
            let appends = heavy(bytes, || appends(&here.topic, events.zip(places)))?;
            self.add(&here.topic, appends);
        }
        self.note.count = Some(stored.len() as u64);
        self.note.dropped = dropped.difference(&stored).count() as u64;
        Ok(())
    }

    /// Adds events to one of the server's own topics.
    pub(super) fn add_events(
        &mut self,
        topic: &Topic,
        events: &[Event<'_>],
    ) -> Result<(), PublishError> {
        let places = partition::place(events, topic.config.partitions, &topic.turn)?;
        let appends = appends(topic, events.iter().zip(places))?;
        self.add(topic, appends);
        Ok(())
    }

    fn add(&mut self, topic: &Topic, appends: Vec<Append>) {
        if appends.is_empty() {
            return;
        }
        if topic.config.ack == Ack::Durable {
            self.ack = Ack::Durable;
        }
        self.note.topics.push((topic.id.0, topic.name.to_string()));
        self.appends.extend(appends);
    }
}

/// The events of a topic in one batch for each partition, in the order of partitions.
pub(super) fn appends<'e, 'b: 'e>(
    topic: &Topic,
    placed: impl Iterator<Item = (&'e Event<'b>, Partition)> + Clone,
) -> Result<Vec<Append>, PublishError> {
    let mut bytes: BTreeMap<Partition, usize> = BTreeMap::new();
    for (event, partition) in placed.clone() {
        *bytes.entry(partition).or_default() += event.byte_len() + RECORD_OVERHEAD;
    }
    let append = |(partition, bytes)| {
        let batch = RecordBatch::with_capacity(bytes);
        (partition, Append { topic: topic.id, partition, batch, index: Vec::new() })
    };
    let mut appends: BTreeMap<Partition, Append> = bytes.into_iter().map(append).collect();
    for (event, partition) in placed {
        // There is one of each.
        let Some(append) = appends.get_mut(&partition) else { continue };
        append.index.extend(index::entries(&topic.config.index, event, append.batch.count()));
        append.batch.push(&event.record())?;
    }
    Ok(appends.into_values().collect())
}
