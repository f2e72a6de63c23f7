//! What becomes of a connector's events, as part of the transaction that moves its cursor: jobs, webhook
//! deliveries, ledger entries, or requests to a service elsewhere, which are jobs too.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use stream_storage::{ProjectName, Transaction};

use super::remote;
use super::sift::Taken;
use super::spec::{Kind, Spec};
use super::{ConnectorError, ConnectorsParts, rows};
use crate::name::{ConnectorName, QueueName};
use crate::queue::{Enqueued, NewJob, Queues, Source};

/// Where a connector's events go.
pub(super) enum Target {
    /// Jobs of this server.
    Worker { queues: Arc<Queues>, queue: QueueName },
    /// Requests to a service elsewhere.
    Remote { queues: Arc<Queues>, queue: QueueName, requests: remote::Requests },
}

/// What was added to a transaction. Dropped without a word, nobody saw how the commit ended.
#[must_use = "the target has to know how the commit ended"]
pub(super) enum Added {
    Jobs(Enqueued),
    Nothing,
}

impl Added {
    pub(super) fn done(self) {
        match self {
            Self::Jobs(jobs) => jobs.done(),
            Self::Nothing => {}
        }
    }

    pub(super) fn abandon(self) {
        match self {
            Self::Jobs(jobs) => jobs.abandon(),
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
            Kind::Hooks | Kind::Ledger => return Err(ConnectorError::invalid("kind", "not yet")),
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
            Self::Remote { queues, queue, requests } => {
                let jobs = requests.jobs(taken);
                Ok(Added::Jobs(queues.enqueue(transaction, queue, jobs).await?))
            }
        }
    }
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
