//! What becomes of a connector's events, as part of the transaction that moves its cursor: jobs, webhook
//! deliveries, ledger entries, or requests to a service elsewhere, which are jobs too.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use stream_storage::{CommitError, ProjectName, Transaction};

use super::remote;
use super::sift::Taken;
use super::spec::{Kind, Spec};
use super::{ConnectorError, ConnectorsParts, rows};
use crate::hooks::{HookEvent, HookJobs, Hooks};
use crate::ledger::{self, Appending, LedgerEntry, Ledgers};
use crate::name::{ConnectorName, LedgerName, QueueName, TopicName};
use crate::queue::{Enqueued, NewJob, Queues, Source};

/// Where a connector's events go.
pub(super) enum Target {
    /// Jobs of this server.
    Worker { queues: Arc<Queues>, queue: QueueName },
    /// Webhooks of this server.
    Hooks { hooks: Arc<Hooks> },
    /// A ledger of this server.
    Ledger { ledgers: Arc<Ledgers>, ledger: LedgerName },
    /// Requests to a service elsewhere.
    Remote { queues: Arc<Queues>, queue: QueueName, requests: remote::Requests },
}

/// What was added to a transaction. Dropped without a word, nobody saw how the commit ended.
#[must_use = "the target has to know how the commit ended"]
pub(super) enum Added {
    Jobs(Enqueued),
    Deliveries(HookJobs),
    Entries(Appending),
    Nothing,
}

impl Added {
    pub(super) fn done(self) {
        match self {
            Self::Jobs(jobs) => jobs.done(),
            Self::Deliveries(jobs) => jobs.done(),
            Self::Entries(entries) => entries.done(true),
            Self::Nothing => {}
        }
    }

    pub(super) fn abandon(self) {
        match self {
            Self::Jobs(jobs) => jobs.abandon(),
            Self::Deliveries(jobs) => jobs.abandon(),
            Self::Entries(entries) => entries.done(false),
            Self::Nothing => {}
        }
    }
}

impl Target {
    /// The target that a connector's words mean.
    pub(super) async fn open(
        parts: &ConnectorsParts,
        project: &ProjectName,
        name: &ConnectorName,
        spec: &Spec,
    ) -> Result<Self, ConnectorError> {
        if spec.url.is_some() {
            let queue = rows::queue(name)?;
            let requests = remote::Requests::new(project, name, spec);
            return Ok(Self::Remote { queues: Arc::clone(&parts.queues), queue, requests });
        }
        Ok(match spec.kind {
            Kind::Worker => {
                let queue = QueueName::parse(&spec.queue(name)).map_err(|error| {
                    ConnectorError::invalid("settings.queue", error.to_string())
                })?;
                parts.queues.ensure(project, &queue).await?;
                Self::Worker { queues: Arc::clone(&parts.queues), queue }
            }
            Kind::Hooks => Self::Hooks { hooks: Arc::clone(&parts.hooks) },
            Kind::Ledger => {
                Self::Ledger { ledgers: Arc::clone(&parts.ledgers), ledger: ledger_of(name, spec)? }
            }
        })
    }

    /// Adds what becomes of these events.
    pub(super) async fn add(
        &self,
        transaction: &mut Transaction,
        taken: &[Taken<'_>],
    ) -> Result<Added, ConnectorError> {
        if taken.is_empty() {
            return Ok(Added::Nothing);
        }
        match self {
            Self::Worker { queues, queue } => {
                let jobs = taken.iter().map(job).collect();
                Ok(Added::Jobs(queues.enqueue(transaction, queue, jobs).await?))
            }
            Self::Hooks { hooks } => {
                let events: Vec<HookEvent> = taken.iter().map(hook_event).collect();
                let jobs = hooks.deliver(transaction, &events).await?;
                if jobs.taken() < events.len() {
                    let (got, max) = (events.len() as u64, jobs.taken() as u64);
                    jobs.abandon();
                    return Err(CommitError::TooLarge { limit: "deliveries", got, max }.into());
                }
                Ok(Added::Deliveries(jobs))
            }
            Self::Ledger { ledgers, ledger } => {
                let project = transaction.project.clone();
                let entries = taken.iter().map(entry).collect();
                Ok(Added::Entries(ledgers.append(transaction, &project, ledger, entries).await?))
            }
            Self::Remote { queues, queue, requests } => {
                let jobs = requests.jobs(taken);
                Ok(Added::Jobs(queues.enqueue(transaction, queue, jobs).await?))
            }
        }
    }
}

/// The ledger that a connector's words mean.
pub(super) fn ledger_of(name: &ConnectorName, spec: &Spec) -> Result<LedgerName, ConnectorError> {
    let ledger = spec.settings.ledger.as_deref().unwrap_or(name.as_str());
    LedgerName::parse(ledger)
        .map_err(|error| ConnectorError::invalid("settings.ledger", error.to_string()))
}

/// The record's stable name: the same however often it is delivered.
pub(super) fn stable_id(taken: &Taken<'_>) -> String {
    format!("{}-{}-{}", taken.slot.topic, taken.slot.partition, taken.offset)
}

/// Headers of a job that say what its event was called.
fn headers(taken: &Taken<'_>) -> BTreeMap<String, String> {
    let event = &taken.event;
    let own = [("event-id", &event.id), ("event-time", &event.time)];
    let own = own.into_iter().filter_map(|(name, value)| Some((name, value.as_deref()?)));
    let given = event.headers.iter().map(|(name, value)| (&**name, &**value));
    given.chain(own).map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

fn job(taken: &Taken<'_>) -> NewJob {
    let event = &taken.event;
    let is_json = event.value_is_json;
    let content_type = event.content_type.as_deref().map(ToOwned::to_owned);
    let binary = || "application/octet-stream".to_owned();
    NewJob {
        key: event.key.as_deref().map(ToOwned::to_owned),
        unique: None,
        payload: Bytes::copy_from_slice(&event.value),
        content_type: if is_json { content_type } else { content_type.or_else(|| Some(binary())) },
        headers: headers(taken),
        source: Some(Source::new(taken.topic.as_str(), taken.slot, taken.offset)),
        due: None,
    }
}

fn hook_event(taken: &Taken<'_>) -> HookEvent {
    HookEvent {
        event_type: taken.topic.as_str().to_owned(),
        id: format!("evt_{}", stable_id(taken)),
        key: taken.event.key.as_deref().map(ToOwned::to_owned),
        payload: Bytes::copy_from_slice(&taken.event.value),
        timestamp: taken.timestamp,
    }
}

fn entry(taken: &Taken<'_>) -> LedgerEntry {
    let Taken { topic, slot, offset, timestamp, event } = taken;
    LedgerEntry {
        source: ledger::Source { topic: TopicName::clone(topic), slot: *slot, offset: *offset },
        id: event.id.as_deref().map(ToOwned::to_owned),
        entry: ledger::entry::of(&event.record(), topic, slot.partition, *offset, *timestamp),
    }
}
