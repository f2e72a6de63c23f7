//! Deliveries are made, as part of a transaction.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use stream_storage::{Expected, ProjectName, Transaction};

use super::delivery::{Delivery, DeliveryId, DeliveryStatus};
use super::directory::Directory;
use super::endpoint::Known;
use super::message::HookEvent;
use super::{Hooks, HooksError, rows};
use crate::name::{EndpointName, TopicName};
use crate::queue::{Enqueued, JobId, NewJob};
use crate::state::{self, Attempts};

/// Deliveries made in one transaction, and bytes of their bodies: an engine takes more of both, and
/// the caller may add to it.
const DELIVERIES_MAX: usize = 1_000;
const BYTES_MAX: usize = 16 << 20;

/// The job's headers that its executor reads.
pub(super) const DELIVERY: &str = "hook-delivery";
/// See [`DELIVERY`].
pub(super) const EVENT_ID: &str = "webhook-id";
/// See [`DELIVERY`].
pub(super) const EVENT_TYPE: &str = "hook-event-type";

/// An event to send to endpoints.
#[derive(Debug, Clone)]
pub struct Message {
    /// Its type.
    pub event_type: TopicName,
    /// JSON.
    pub payload: Bytes,
    /// To these endpoints and no others, whatever types they want; to all that want it if `None`.
    pub endpoints: Option<Vec<EndpointName>>,
}

/// A message that was taken.
#[derive(Debug, Clone)]
pub struct Sent {
    /// What receivers see as `webhook-id`.
    pub event_id: String,
    /// A delivery for each endpoint that gets it.
    pub deliveries: Vec<(DeliveryId, EndpointName)>,
}

/// Deliveries on their way into a transaction.
#[must_use = "the queues have to know how the commit ended"]
pub struct HookJobs {
    enqueued: Vec<Enqueued>,
    deliveries: Vec<(DeliveryId, EndpointName)>,
    taken: usize,
    unseen: Unseen,
}

/// While this lives, nobody knows whether the endpoints are as they were read.
struct Unseen {
    directory: Arc<Directory>,
    project: ProjectName,
    is_over: bool,
}

impl Drop for Unseen {
    fn drop(&mut self) {
        if !self.is_over {
            self.directory.forget(&self.project);
        }
    }
}

impl HookJobs {
    /// How many of the events are in the transaction, from the first: the caller's cursor may go no
    /// further. At least one, if there was one.
    pub fn taken(&self) -> usize {
        self.taken
    }

    /// The deliveries, in the order of endpoints.
    pub fn deliveries(&self) -> &[(DeliveryId, EndpointName)] {
        &self.deliveries
    }

    /// The transaction is committed: the deliveries begin.
    pub fn done(mut self) {
        self.unseen.is_over = true;
        for enqueued in self.enqueued {
            enqueued.done();
        }
    }

    /// The transaction did not happen, because of a conflict say. When that is not known, drop this
    /// instead.
    pub fn abandon(self) {
        for enqueued in self.enqueued {
            enqueued.abandon();
        }
    }
}

impl Hooks {
    /// Adds to `transaction` a delivery of each event to each endpoint of its project that is
    /// enabled and wants the event's type, for as many of the events as one transaction takes. If the
    /// commit meets a conflict, call this anew with a new transaction.
    ///
    /// A delivery takes three state writes, and at most two more in an ordered endpoint; there are at
    /// most 1,000 of them, with 16 MiB, unless one event alone has more.
    ///
    /// # Errors
    ///
    /// The store could not be read.
    pub async fn deliver(
        &self,
        transaction: &mut Transaction,
        events: &[HookEvent],
    ) -> Result<HookJobs, HooksError> {
        let known = self.directory.known(&transaction.project).await?;
        let enabled: Vec<&Known> =
            known.iter().map(AsRef::as_ref).filter(|known| known.endpoint.is_enabled()).collect();
        self.add(transaction, &enabled, events, |known, event| {
            known.endpoint.wants(&event.event_type)
        })
        .await
    }

    /// Sends one event. Durable on return; it is delivered after that.
    ///
    /// # Errors
    ///
    /// An endpoint that is named does not exist or is disabled, or the store refused.
    pub async fn send(&self, project: &ProjectName, message: &Message) -> Result<Sent, HooksError> {
        let id = format!("evt_{:032x}", self.with_random(rand::RngExt::random::<u128>));
        let event = HookEvent {
            event_type: message.event_type.to_string(),
            id: id.clone(),
            key: None,
            payload: message.payload.clone(),
            timestamp: self.parts.clock.now(),
        };
        let events = std::slice::from_ref(&event);
        let mut attempts = Attempts::default();
        loop {
            let mut transaction = Transaction::new(project.clone());
            let jobs = match &message.endpoints {
                None => self.deliver(&mut transaction, events).await?,
                Some(names) => {
                    let targets = self.named(project, names).await?;
                    let targets: Vec<&Known> = targets.iter().collect();
                    self.add(&mut transaction, &targets, events, |_, _| true).await?
                }
            };
            let sent = Sent { event_id: id.clone(), deliveries: jobs.deliveries().to_vec() };
            if transaction.state.is_empty() {
                jobs.done();
                return Ok(sent);
            }
            match self.parts.store.commit(transaction).await {
                Ok(_) => {
                    jobs.done();
                    return Ok(sent);
                }
                Err(error) => {
                    attempts.again(error)?;
                    jobs.abandon();
                }
            }
        }
    }

    /// These endpoints, each once, all of them enabled.
    async fn named(
        &self,
        project: &ProjectName,
        names: &[EndpointName],
    ) -> Result<Vec<Known>, HooksError> {
        let mut seen = HashSet::new();
        let mut targets = Vec::with_capacity(names.len());
        for name in names.iter().filter(|name| seen.insert(*name)) {
            let known = self.load(project, name).await?;
            if !known.endpoint.is_enabled() {
                return Err(HooksError::Disabled { endpoint: name.clone() });
            }
            targets.push(known);
        }
        Ok(targets)
    }

    async fn add(
        &self,
        transaction: &mut Transaction,
        targets: &[&Known],
        events: &[HookEvent],
        wants: impl Fn(&Known, &HookEvent) -> bool + Send,
    ) -> Result<HookJobs, HooksError> {
        let mut jobs = HookJobs {
            enqueued: Vec::new(),
            deliveries: Vec::new(),
            taken: 0,
            unseen: Unseen {
                directory: Arc::clone(&self.directory),
                project: transaction.project.clone(),
                is_over: false,
            },
        };
        let mut chosen: BTreeMap<usize, Vec<(&HookEvent, Bytes)>> = BTreeMap::new();
        let (mut count, mut bytes) = (0, 0);
        for event in events {
            let wanting: Vec<usize> = (0..targets.len())
                .filter(|target| targets.get(*target).is_some_and(|known| wants(known, event)))
                .collect();
            let body = if wanting.is_empty() { Bytes::new() } else { event.body() };
            count += wanting.len();
            bytes += wanting.len() * body.len();
            if jobs.taken > 0 && (count > DELIVERIES_MAX || bytes > BYTES_MAX) {
                break;
            }
            jobs.taken += 1;
            for target in wanting {
                chosen.entry(target).or_default().push((event, body.clone()));
            }
        }
        for (target, events) in chosen {
            if let Some(known) = targets.get(target) {
                self.add_to(transaction, known, events, &mut jobs).await?;
            }
        }
        Ok(jobs)
    }

    /// Adds the deliveries of one endpoint.
    async fn add_to(
        &self,
        transaction: &mut Transaction,
        Known { endpoint, version }: &Known,
        events: Vec<(&HookEvent, Bytes)>,
        jobs: &mut HookJobs,
    ) -> Result<(), HooksError> {
        let now = self.parts.clock.now();
        // It is not deleted or disabled meanwhile.
        transaction.expect(rows::endpoint(&endpoint.name), Expected::Version(*version));
        let mut new = Vec::with_capacity(events.len());
        let mut made = Vec::with_capacity(events.len());
        for (event, body) in events {
            let id = self.with_random(|random| DeliveryId::new(now, random));
            let event_id = event.webhook_id();
            new.push(job(id, (&event_id, &event.event_type), body, event.key.clone()));
            made.push((id, event_id, event.event_type.clone()));
        }
        let enqueued = self.parts.queues.enqueue(transaction, &endpoint.queue()?, new).await?;
        for ((id, event_id, event_type), place) in made.into_iter().zip(enqueued.places()) {
            let delivery = fresh(event_id, event_type, place.id, now.0);
            transaction.put(rows::delivery(&endpoint.id, id), state::encode(&delivery));
            jobs.deliveries.push((id, endpoint.name.clone()));
        }
        jobs.enqueued.push(enqueued);
        Ok(())
    }
}

/// The job of a delivery.
pub(super) fn job(
    id: DeliveryId,
    (event_id, event_type): (&str, &str),
    body: Bytes,
    key: Option<String>,
) -> NewJob {
    let headers = [(DELIVERY, &*id.to_string()), (EVENT_ID, event_id), (EVENT_TYPE, event_type)];
    let owned = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
    NewJob { key, payload: body, headers: headers.map(owned).into(), ..NewJob::default() }
}

/// A delivery that nobody has tried.
pub(super) fn fresh(event_id: String, event_type: String, job: JobId, at: u64) -> Delivery {
    Delivery {
        event_id,
        event_type,
        status: DeliveryStatus::Pending,
        attempts: 0,
        created_at: at,
        finished_at: None,
        next_attempt_at: Some(at),
        status_code: None,
        duration_ms: None,
        error: None,
        job,
    }
}
