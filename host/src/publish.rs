//! The one write path: however events came in, [`Publisher::publish`] stores them.
//!
//! A publish is one transaction. One that names its producer and sequence is recognised when it is
//! repeated: first by asking the store, before any work is done, and again at commit.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use stream_storage::{
    Ack, Appended, Clock, CommitError, Partition, ProducerState, ProducerStep, ProjectName,
    Receipt, RecordBatch, RecordTooLarge, Store, StoreError, Timestamp, TopicId, Transaction,
};

use crate::catalog::{Catalog, CatalogError, check_writable};
use crate::event::Event;
use crate::heavy::heavy;
use crate::lock::lock;
use crate::name::TopicName;
use crate::partition::{self, PartitionNotFound};
use crate::state;
use crate::stats::Rates;
use crate::topic::Topic;

/// What a record's encoding takes beside its fields, roughly: to size a batch's buffer.
const RECORD_OVERHEAD: usize = 16;

/// Events to store in a topic.
#[derive(Debug)]
pub struct PublishRequest<'a> {
    /// Whose topic.
    pub project: &'a ProjectName,
    /// The topic.
    pub topic: &'a TopicName,
    /// The events, at least one; stored all or none.
    pub events: &'a [Event<'a>],
    /// How a repeat is recognised; if `None`, a repeat stores the events again.
    pub identity: Option<Identity>,
    /// When to answer; as the topic says if `None`.
    pub ack: Option<Ack>,
}

/// What makes a publish the same as an earlier one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Identity {
    /// A producer that numbers its publishes.
    Sequence {
        /// The producer's name, unique within the project.
        producer: String,
        /// Which life of the producer.
        epoch: u64,
        /// Counts the publishes of this life, from 0.
        sequence: u64,
    },
    /// A key for one publish, unique within the topic, forgotten after a time.
    Key {
        /// The key.
        key: String,
        /// Of everything that makes the request what it is.
        digest: [u8; 32],
    },
}

/// Where a publish was stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    /// The topic.
    pub topic: String,
    /// How many events; for a repeat of long ago, how many it brought itself.
    pub count: u64,
    /// The places, in the order of partitions. Empty for a repeat of long ago.
    pub places: Vec<Appended>,
    /// What was true of the events when they were answered for.
    pub ack: Ack,
    /// The events had been stored by an earlier request.
    pub duplicate: bool,
}

/// Why a publish stored nothing.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// The topic does not exist or takes no events from clients.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// There is no event.
    #[error("there is no event to publish")]
    Empty,
    /// An event asks for a partition that does not exist.
    #[error(transparent)]
    Partition(#[from] PartitionNotFound),
    /// A record cannot be encoded.
    #[error(transparent)]
    Record(#[from] RecordTooLarge),
    /// The key was used for another request.
    #[error("idempotency key `{key}` was used with another payload")]
    PayloadMismatch {
        /// The key.
        key: String,
    },
    /// Another request with the same key is not answered yet.
    #[error("a request with idempotency key `{key}` is under way")]
    InFlight {
        /// The key.
        key: String,
    },
    /// The store refused the write; or does not know, see [`CommitError::Unknown`].
    #[error(transparent)]
    Commit(#[from] CommitError),
    /// The store could not be read.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What is kept with a producer's receipt, to give the whole answer again.
#[derive(Debug, Serialize, Deserialize)]
struct Note {
    topic: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    digest: Option<[u8; 32]>,
}

/// What a publisher is made of.
pub struct PublisherParts {
    /// Where events go.
    pub store: Arc<dyn Store>,
    /// For the expiry of idempotency keys.
    pub clock: Arc<dyn Clock>,
    /// To find topics.
    pub catalog: Arc<Catalog>,
    /// Counts what is published.
    pub rates: Arc<Rates>,
    /// How long an idempotency key is remembered.
    pub key_expiry: Duration,
}

/// Stores events.
pub struct Publisher {
    parts: PublisherParts,
    keys_in_flight: Mutex<HashSet<(TopicId, String)>>,
}

impl Publisher {
    /// A publisher with nothing under way.
    pub fn new(parts: PublisherParts) -> Self {
        Self { parts, keys_in_flight: Mutex::default() }
    }

    /// Stores all events in one transaction, or none. On return they are durable, or what
    /// [`Published::ack`] says. When cancelled, the outcome is unknown.
    ///
    /// # Errors
    ///
    /// See [`PublishError`]: nothing is stored, except after [`CommitError::Unknown`].
    pub async fn publish(&self, request: PublishRequest<'_>) -> Result<Published, PublishError> {
        let PublishRequest { project, topic: name, .. } = request;
        if request.events.is_empty() {
            return Err(PublishError::Empty);
        }
        check_writable(name)?;
        let catalog = &self.parts.catalog;
        let topic = catalog.get(project, name).await?;
        match self.publish_to(&topic, &request).await {
            Err(PublishError::Commit(CommitError::TopicGone { .. })) => {
                // What is in memory is older than the store: the topic was deleted, perhaps made
                // again.
                catalog.forget(project, name);
                let topic = catalog.get(project, name).await?;
                self.publish_to(&topic, &request).await
            }
            answer => answer,
        }
    }

    /// How far a client's producer has come.
    ///
    /// # Errors
    ///
    /// The store could not be read.
    pub async fn producer(
        &self,
        project: &ProjectName,
        producer: &str,
    ) -> Result<Option<ProducerState>, StoreError> {
        self.parts.store.producer(project, &sequence_producer(producer)).await
    }

    /// Stores the events in `topic`, unless they are a repeat.
    async fn publish_to(
        &self,
        topic: &Topic,
        request: &PublishRequest<'_>,
    ) -> Result<Published, PublishError> {
        let _in_flight = self.enter(topic, request.identity.as_ref())?;
        if let Some(answer) = self.answered(request, topic).await? {
            return Ok(answer);
        }
        let receipt = self.commit(request, topic).await?;
        let published = published(topic, request, receipt)?;
        if let (Some(place), false) = (published.places.first(), published.duplicate) {
            self.parts.rates.add(topic.id, published.count, place.timestamp);
        }
        Ok(published)
    }

    /// The answer of an earlier publish of the same identity.
    async fn answered(
        &self,
        request: &PublishRequest<'_>,
        topic: &Topic,
    ) -> Result<Option<Published>, PublishError> {
        let Some(identity) = &request.identity else { return Ok(None) };
        let store = &self.parts.store;
        let (id, epoch, sequence) = identity.place(topic.id);
        match store.producer(request.project, &id).await? {
            Some(state) if state.epoch == epoch && sequence <= state.last_sequence => {}
            // New, or refused: which of them, the commit decides.
            _ => return Ok(None),
        }
        match store.receipt(request.project, &id, epoch, sequence).await? {
            Some(receipt) => {
                let receipt = Receipt { duplicate: true, ..receipt };
                published(topic, request, receipt).map(Some)
            }
            None => Ok(Some(Published {
                topic: topic.name.to_string(),
                count: request.count(),
                places: Vec::new(),
                ack: Ack::Durable,
                duplicate: true,
            })),
        }
    }

    async fn commit(
        &self,
        request: &PublishRequest<'_>,
        topic: &Topic,
    ) -> Result<Receipt, PublishError> {
        let mut transaction = Transaction::new(request.project.clone());
        transaction.ack = request.ack.unwrap_or(topic.config.ack);
        transaction.producer = request.identity.as_ref().map(|identity| self.step(identity, topic));
        let bytes = request.events.iter().map(Event::byte_len).sum();
        for (partition, batch) in heavy(bytes, || batches(request.events, topic))? {
            transaction.append(topic.id, partition, batch);
        }
        self.parts.store.commit(transaction).await.map_err(|error| {
            match (error, &request.identity) {
                (CommitError::PayloadMismatch, Some(Identity::Key { key, .. })) => {
                    PublishError::PayloadMismatch { key: key.clone() }
                }
                (error, _) => error.into(),
            }
        })
    }

    fn step(&self, identity: &Identity, topic: &Topic) -> ProducerStep {
        let (id, epoch, sequence) = identity.place(topic.id);
        let payload_digest = identity.digest();
        let expires = payload_digest.map(|_| {
            let expiry = u64::try_from(self.parts.key_expiry.as_millis()).unwrap_or(u64::MAX);
            Timestamp(self.parts.clock.now().0.saturating_add(expiry))
        });
        let note = Note { topic: topic.name.to_string(), digest: payload_digest };
        let note = state::encode(&note).into();
        ProducerStep { id, epoch, sequence, payload_digest, expires, note }
    }

    /// Notes that a key's request is under way, until the answer is dropped.
    fn enter(
        &self,
        topic: &Topic,
        identity: Option<&Identity>,
    ) -> Result<Option<InFlight<'_>>, PublishError> {
        let Some(Identity::Key { key, .. }) = identity else { return Ok(None) };
        let entry = (topic.id, key.clone());
        if !lock(&self.keys_in_flight).insert(entry.clone()) {
            return Err(PublishError::InFlight { key: key.clone() });
        }
        Ok(Some(InFlight { keys: &self.keys_in_flight, entry }))
    }
}

/// A key whose request is under way; no longer when dropped.
struct InFlight<'a> {
    keys: &'a Mutex<HashSet<(TopicId, String)>>,
    entry: (TopicId, String),
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        lock(self.keys).remove(&self.entry);
    }
}

impl PublishRequest<'_> {
    fn count(&self) -> u64 {
        u64::try_from(self.events.len()).unwrap_or(u64::MAX)
    }
}

impl Identity {
    /// The producer, epoch and sequence that stand for it in the store. Those of a key are the
    /// topic's: what was deleted with its topic is not taken for stored.
    fn place(&self, topic: TopicId) -> (String, u64, u64) {
        match self {
            Self::Sequence { producer, epoch, sequence } => {
                (sequence_producer(producer), *epoch, *sequence)
            }
            Self::Key { key, .. } => (format!("idempotency/{topic}/{key}"), 0, 0),
        }
    }

    fn digest(&self) -> Option<[u8; 32]> {
        match self {
            Self::Sequence { .. } => None,
            Self::Key { digest, .. } => Some(*digest),
        }
    }
}

fn sequence_producer(producer: &str) -> String {
    format!("producer/{producer}")
}

/// The events in one batch for each partition.
fn batches(
    events: &[Event<'_>],
    topic: &Topic,
) -> Result<BTreeMap<Partition, RecordBatch>, PublishError> {
    let places = partition::place(events, topic.config.partitions, &topic.turn)?;
    let mut bytes: BTreeMap<Partition, usize> = BTreeMap::new();
    for (event, partition) in events.iter().zip(&places) {
        *bytes.entry(*partition).or_default() += event.byte_len() + RECORD_OVERHEAD;
    }
    let mut batches: BTreeMap<_, _> = bytes
        .into_iter()
        .map(|(partition, bytes)| (partition, RecordBatch::with_capacity(bytes)))
        .collect();
    for (event, partition) in events.iter().zip(places) {
        batches.entry(partition).or_default().push(&event.record())?;
    }
    Ok(batches)
}

/// The answer that a receipt stands for; a repeat's is the one that was given first.
fn published(
    topic: &Topic,
    request: &PublishRequest<'_>,
    receipt: Receipt,
) -> Result<Published, PublishError> {
    let mut name = topic.name.to_string();
    if receipt.duplicate && !receipt.note.is_empty() {
        let note: Note = serde_json::from_slice(&receipt.note)
            .map_err(|error| StoreError::Corrupt { reason: format!("producer note: {error}") })?;
        if let Some(Identity::Key { key, digest }) = &request.identity
            && note.digest.is_some_and(|first| first != *digest)
        {
            return Err(PublishError::PayloadMismatch { key: key.clone() });
        }
        name = note.topic;
    }
    let ack = if receipt.durable { Ack::Durable } else { Ack::Memory };
    let Receipt { appends: places, duplicate, .. } = receipt;
    let count = match places.as_slice() {
        [] => request.count(),
        places => places.iter().map(|place| u64::from(place.count)).sum(),
    };
    Ok(Published { topic: name, count, places, ack, duplicate })
}
