//! The one write path: however events came in, [`Publisher::publish`] stores them.
//!
//! A publish is one transaction. One that names its producer and sequence is recognised when it is
//! repeated: first by asking the store, before any work is done, and again at commit.
//!
//! | module | what it owns |
//! | --- | --- |
//! | `identity` | how a repeat is recognised |
//! | `expand` | where events go: types and routes |
//! | `batch` | what a request stores: batches of records and their index entries |
//! | `staged` | one topic's events on their way through its plan |
//! | `fate` | what becomes of each event |
//! | `dead_letter` | records of events that could not be accepted, or processed |
//! | `alongside` | what else is stored in the same transaction |
//! | `answer` | what was stored, and how it is kept for a repeat |
//! | `error` | why nothing was |

mod alongside;
mod answer;
mod batch;
mod dead_letter;
mod error;
mod expand;
mod fate;
mod identity;
mod staged;

use std::sync::Arc;
use std::time::Duration;

use stream_storage::{
    Ack, Clock, CommitError, ProducerState, ProducerStep, ProjectName, Receipt, Store, StoreError,
    Timestamp, Transaction,
};

use crate::catalog::{Catalog, check_writable};
use crate::event::Event;
use crate::heavy::heavy;
use crate::limit::Limits;
use crate::name::TopicName;
use crate::partition;
use crate::pipeline::{Pipeline, Pipelines};
use crate::state::Attempts;
use crate::stats::Rates;
use crate::topic::Topic;

use answer::Note;
use batch::{Batch, appends};
use dead_letter::own_topic;
use expand::{Arrival, Expanded, Expansion, Target};
use fate::Fates;
use identity::{KeysInFlight, Scope, sequence_producer};
use staged::{Passed, Stages};

pub use alongside::{Alongside, AlongsideError};
pub use answer::{NamedVersion, Published, Refusal, TopicPlaces};
pub use dead_letter::{DEAD_LETTER, DeadLetter, DeadLetterError, DeadLetters, GivenUpBy, UNROUTED};
pub use error::PublishError;
pub use identity::Identity;

/// Where events go.
#[derive(Debug, Clone, Copy)]
pub enum Destination<'a> {
    /// To this topic, and from there through the routes.
    Topic(&'a TopicName),
    /// Each to the topic of its type, and from there through the routes.
    ByType,
    /// Each to the topic at its place in this list, and from there through the routes.
    Each(&'a [TopicName]),
}

/// What is done with a request of which some events are rejected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnReject {
    /// Nothing of it is stored.
    #[default]
    Refuse,
    /// The others are stored.
    Partial,
}

/// Events to store.
pub struct PublishRequest<'a> {
    /// Whose events.
    pub project: &'a ProjectName,
    /// Where they go.
    pub destination: Destination<'a>,
    /// The events, at least one; stored all or none, but for `on_reject`.
    pub events: &'a [Event<'a>],
    /// How a repeat is recognised; if `None`, a repeat stores the events again.
    pub identity: Option<Identity>,
    /// When to answer; as the topics say if `None`.
    pub ack: Option<Ack>,
    /// What is done if some are rejected.
    pub on_reject: OnReject,
    /// What is stored in the same transaction; with it, there may be no event.
    pub alongside: Option<&'a dyn Alongside>,
}

/// What a publisher is made of.
pub struct PublisherParts {
    /// Where events go.
    pub store: Arc<dyn Store>,
    /// For the expiry of idempotency keys.
    pub clock: Arc<dyn Clock>,
    /// To find topics.
    pub catalog: Arc<Catalog>,
    /// What events pass.
    pub pipelines: Arc<Pipelines>,
    /// What an event may be.
    pub limits: Limits,
    /// Counts what is published.
    pub rates: Arc<Rates>,
    /// How long an idempotency key is remembered.
    pub key_expiry: Duration,
}

/// Stores events.
pub struct Publisher {
    parts: PublisherParts,
    keys_in_flight: KeysInFlight,
}

impl Publisher {
    /// A publisher with nothing under way.
    pub fn new(parts: PublisherParts) -> Self {
        Self { parts, keys_in_flight: KeysInFlight::default() }
    }

    /// Stores all events in one transaction, or none. On return they are durable, or what
    /// [`Published::ack`] says. When cancelled, the outcome is unknown.
    ///
    /// # Errors
    ///
    /// See [`PublishError`]: nothing is stored, except after [`CommitError::Unknown`].
    pub async fn publish(&self, request: PublishRequest<'_>) -> Result<Published, PublishError> {
        if request.events.is_empty() && request.alongside.is_none() {
            return Err(PublishError::Empty);
        }
        match request.destination {
            Destination::Topic(name) => check_writable(name)?,
            Destination::Each(names) => names.iter().try_for_each(check_writable)?,
            Destination::ByType => {}
        }
        match self.publish_once(&request).await {
            Err(PublishError::Commit(CommitError::TopicGone { topic })) => {
                // What is in memory is older than the store: the topic was deleted, perhaps made
                // again.
                self.parts.catalog.forget_id(topic);
                self.publish_once(&request).await
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

    /// Stores the events, unless they are a repeat: that is known before any plugin is called, since
    /// one that is bound now may refuse what an earlier one let in.
    async fn publish_once(&self, request: &PublishRequest<'_>) -> Result<Published, PublishError> {
        let named = match request.destination {
            Destination::Topic(name) => Some(self.parts.catalog.get(request.project, name).await?),
            Destination::ByType | Destination::Each(_) => None,
        };
        let scope = match &named {
            Some(topic) => Some(topic.id.to_string()),
            None => request.alongside.and_then(Alongside::scope),
        };
        let identity = request.identity.as_ref();
        let scope = scope.as_deref();
        let _in_flight = self.keys_in_flight.enter(request.project, scope, identity)?;
        if let Some(answer) = self.answered(request, scope).await? {
            return Ok(answer);
        }
        let pipeline = self.parts.pipelines.get(request.project).await?;
        let batch = match &named {
            Some(topic) if !pipeline.has_routes() => {
                let plan = self.parts.pipelines.plan(&pipeline, topic).await?;
                if plan.is_empty() {
                    self.plain(request, topic)?
                } else {
                    let arrival = |index| Arrival { index, is_copy: false };
                    let arrivals = (0..request.count_u32()).map(arrival).collect();
                    let target = Target { topic: Arc::clone(topic), arrivals };
                    let expanded = Expanded { targets: vec![target], unrouted: Vec::new() };
                    let fates = Fates::new(request.events.len());
                    self.staged(request, &pipeline, expanded, fates).await?
                }
            }
            _ => {
                let mut fates = Fates::new(request.events.len());
                let Self { parts, .. } = self;
                let expansion = Expansion::new(parts, request.project, &pipeline, request.events);
                let expanded = expansion.run(request.destination, &mut fates).await?;
                self.staged(request, &pipeline, expanded, fates).await?
            }
        };
        self.commit(request, scope, batch).await
    }

    /// The answer of an earlier publish of the same identity.
    async fn answered(
        &self,
        request: &PublishRequest<'_>,
        scope: Scope<'_>,
    ) -> Result<Option<Published>, PublishError> {
        let Some(identity) = &request.identity else { return Ok(None) };
        let store = &self.parts.store;
        let (id, epoch, sequence) = identity.place(scope);
        match store.producer(request.project, &id).await? {
            Some(state) if state.epoch == epoch && sequence <= state.last_sequence => {}
            // New, or refused: which of them, the commit decides.
            _ => return Ok(None),
        }
        match store.receipt(request.project, &id, epoch, sequence).await? {
            Some(receipt) => request.again(&Receipt { duplicate: true, ..receipt }).map(Some),
            None => Ok(Some(Published::of_long_ago(request.topic(), request.count()))),
        }
    }

    /// The batches of a topic that has nothing to pass.
    fn plain(&self, request: &PublishRequest<'_>, topic: &Topic) -> Result<Batch, PublishError> {
        let events = request.events;
        let bytes = events.iter().map(Event::byte_len).sum();
        let appends = heavy(bytes, || {
            let places = partition::place(events, topic.config.partitions, &topic.turn)?;
            appends(topic, events.iter().zip(places))
        })?;
        let note = Note { topic: Some(topic.name.to_string()), ..Note::default() };
        Ok(Batch { appends, note, ack: topic.config.ack })
    }

    /// The batches of all topics, once their events have passed what is bound to them.
    async fn staged(
        &self,
        request: &PublishRequest<'_>,
        pipeline: &Pipeline,
        expanded: Expanded,
        mut fates: Fates,
    ) -> Result<Batch, PublishError> {
        let stages = Stages { clock: self.parts.clock.as_ref(), limits: &self.parts.limits };
        let Expanded { targets, unrouted } = expanded;
        let mut passed = Vec::with_capacity(targets.len());
        for target in targets {
            let plan = self.parts.pipelines.plan(pipeline, &target.topic).await?;
            let mut here = Passed::new(target, request.events);
            here.pass(&plan, &stages, &mut fates).await?;
            passed.push(here);
        }
        let rejected = fates.rejected();
        if !rejected.is_empty() && request.on_reject == OnReject::Refuse {
            return Err(PublishError::Rejected { rejected, count: request.events.len() });
        }
        // One that any topic has refused since is stored in none.
        passed.iter_mut().for_each(|here| here.keep_open(&fates));
        let mut batch = Batch::new(request, rejected);
        batch.add_passed(passed)?;
        self.add_own(request, &mut batch, &unrouted, &fates).await?;
        Ok(batch)
    }

    /// Adds what goes to the server's own topics.
    async fn add_own(
        &self,
        request: &PublishRequest<'_>,
        batch: &mut Batch,
        unrouted: &[u32],
        fates: &Fates,
    ) -> Result<(), PublishError> {
        let event = |index: u32| request.events.get(index as usize);
        let unrouted: Vec<&Event<'_>> = unrouted.iter().filter_map(|index| event(*index)).collect();
        if !unrouted.is_empty() {
            let topic = own_topic(&self.parts.catalog, request.project, UNROUTED).await?;
            let strays = unrouted.iter().map(|stray| Event { partition: None, ..(*stray).clone() });
            let strays: Vec<Event<'_>> = strays.collect();
            batch.add_events(&topic, &strays)?;
            batch.note.unrouted = strays.len() as u64;
            batch.note.count = batch.note.count.map(|count| count + batch.note.unrouted);
        }
        let mut letters = Vec::new();
        for (index, topic, fault) in fates.faulted() {
            batch.note.dead_lettered.push(Refusal::faulted(index, topic, fault));
            let letter = |event| DeadLetter::faulted(event, topic, fault).record();
            letters.extend(event(index).map(letter));
        }
        if !letters.is_empty() {
            let topic = own_topic(&self.parts.catalog, request.project, DEAD_LETTER).await?;
            batch.add_events(&topic, &letters)?;
        }
        Ok(())
    }

    async fn commit(
        &self,
        request: &PublishRequest<'_>,
        scope: Scope<'_>,
        batch: Batch,
    ) -> Result<Published, PublishError> {
        let Batch { appends, mut note, ack } = batch;
        if appends.is_empty() && request.identity.is_none() && request.alongside.is_none() {
            // All were rejected or dropped: there is nothing to remember either.
            return Ok(note.answer_without_receipt());
        }
        note.digest = request.identity.as_ref().and_then(Identity::digest);
        let mut transaction = Transaction::new(request.project.clone());
        transaction.ack = request.ack.unwrap_or(ack);
        transaction.producer =
            request.identity.as_ref().map(|identity| self.step(identity, scope, &note));
        transaction.appends = appends;
        let committed = match request.alongside {
            None => self.parts.store.commit(transaction).await,
            Some(alongside) => self.commit_with(alongside, transaction, &mut note).await?,
        };
        let receipt = committed.map_err(|error| match (error, &request.identity) {
            (CommitError::PayloadMismatch, Some(Identity::Key { key, .. })) => {
                PublishError::PayloadMismatch { key: key.clone() }
            }
            (error, _) => error.into(),
        })?;
        if receipt.duplicate {
            return request.again(&receipt);
        }
        for place in &receipt.appends {
            self.parts.rates.add(place.topic, u64::from(place.count), place.timestamp);
        }
        Ok(note.answer(&receipt, request.count()))
    }

    /// Commits with what `alongside` adds, read anew after each conflict.
    async fn commit_with(
        &self,
        alongside: &dyn Alongside,
        transaction: Transaction,
        note: &mut Note,
    ) -> Result<Result<Receipt, CommitError>, PublishError> {
        let mut attempts = Attempts::default();
        loop {
            let mut whole = transaction.clone();
            note.alongside = alongside.add(&mut whole).await?;
            if let Some(step) = whole.producer.as_mut().filter(|_| note.alongside.is_some()) {
                step.note = note.encode();
            }
            match self.parts.store.commit(whole).await {
                Ok(receipt) if receipt.duplicate => {
                    alongside.repeated().await;
                    return Ok(Ok(receipt));
                }
                Ok(receipt) => {
                    alongside.done().await;
                    return Ok(Ok(receipt));
                }
                Err(error) => {
                    if let Err(error) = attempts.again(error) {
                        if !matches!(error, CommitError::Unknown { .. }) {
                            alongside.refused().await;
                        }
                        return Ok(Err(error));
                    }
                }
            }
        }
    }

    fn step(&self, identity: &Identity, scope: Scope<'_>, note: &Note) -> ProducerStep {
        let (id, epoch, sequence) = identity.place(scope);
        let payload_digest = identity.digest();
        let expires = payload_digest.map(|_| {
            let expiry = u64::try_from(self.parts.key_expiry.as_millis()).unwrap_or(u64::MAX);
            Timestamp(self.parts.clock.now().0.saturating_add(expiry))
        });
        ProducerStep { id, epoch, sequence, payload_digest, expires, note: note.encode() }
    }
}

impl PublishRequest<'_> {
    fn topic(&self) -> Option<&TopicName> {
        match self.destination {
            Destination::Topic(name) => Some(name),
            Destination::ByType | Destination::Each(_) => None,
        }
    }

    fn count(&self) -> u64 {
        u64::try_from(self.events.len()).unwrap_or(u64::MAX)
    }

    fn count_u32(&self) -> u32 {
        // A request has at most `request_events_max`, which is far below.
        u32::try_from(self.events.len()).unwrap_or(u32::MAX)
    }

    /// The answer that was given first.
    fn again(&self, receipt: &Receipt) -> Result<Published, PublishError> {
        Published::again(receipt, self.identity.as_ref(), self.topic(), self.count())
    }
}
