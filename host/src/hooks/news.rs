//! What an endpoint's owner is told, as records of a topic of the server's: an endpoint was disabled,
//! a delivery was given up.

use serde::Serialize;
use stream_storage::{CommitError, Partition, ProjectName, RecordBatch, Timestamp, Transaction};

use super::delivery::{Delivery, DeliveryId};
use super::endpoint::{DisabledReason, Endpoint};
use super::{Hooks, HooksError};
use crate::event::Event;
use crate::name::TopicName;
use crate::state;
use crate::timestamp;
use crate::topic::TopicConfig;

/// The topic of news of every project.
pub const HOOKS: &str = "_hooks";

/// A month, since people look at them.
const RETENTION_HOURS: u32 = 30 * 24;

/// What happened.
pub(super) enum News<'a> {
    /// The server disabled an endpoint.
    Disabled { endpoint: &'a Endpoint, reason: DisabledReason, failing_since: Option<u64> },
    /// A delivery was given up.
    Failed { endpoint: &'a Endpoint, id: DeliveryId, delivery: Delivery },
}

/// The value of a record. The URL is not said: it may hold a key.
#[derive(Serialize)]
struct Told<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    endpoint: &'a str,
    endpoint_id: &'a str,
    at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    failing_since: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    delivery_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    event_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    event_type: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    attempts: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status_code: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
}

impl News<'_> {
    fn event(&self, at: Timestamp) -> Event<'static> {
        let (kind, endpoint) = match self {
            Self::Disabled { endpoint, .. } => ("endpoint.disabled", endpoint),
            Self::Failed { endpoint, .. } => ("delivery.failed", endpoint),
        };
        let mut told = Told {
            kind,
            endpoint: endpoint.name.as_str(),
            endpoint_id: endpoint.id.as_str(),
            at: timestamp::format(at),
            reason: None,
            failing_since: None,
            delivery_id: None,
            event_id: None,
            event_type: None,
            attempts: None,
            status_code: None,
            error: None,
        };
        match self {
            Self::Disabled { reason, failing_since, .. } => {
                told.reason = Some(reason.as_str());
                told.failing_since = failing_since.map(|at| timestamp::format(Timestamp(at)));
            }
            Self::Failed { id, delivery, .. } => {
                told.delivery_id = Some(id.to_string());
                told.event_id = Some(&delivery.event_id);
                told.event_type = Some(&delivery.event_type);
                told.attempts = Some(delivery.attempts);
                told.status_code = delivery.status_code;
                told.error = delivery.error.as_deref();
            }
        }
        Event {
            key: Some(endpoint.name.to_string().into()),
            value: state::encode(&told).into(),
            value_is_json: true,
            ..Event::default()
        }
    }
}

impl Hooks {
    /// Adds news to `transaction`, in the topic `_hooks`, which is made if it is not there.
    pub(super) async fn tell(
        &self,
        transaction: &mut Transaction,
        news: &[News<'_>],
    ) -> Result<(), HooksError> {
        if news.is_empty() {
            return Ok(());
        }
        let topic = self.topic(&transaction.project).await?;
        let now = self.parts.clock.now();
        let events: Vec<Event<'_>> = news.iter().map(|news| news.event(now)).collect();
        let mut batch = RecordBatch::with_capacity(events.iter().map(Event::byte_len).sum());
        for event in &events {
            batch.push(&event.record()).map_err(|_| CommitError::Invalid {
                reason: "news of an endpoint is larger than a record",
            })?;
        }
        transaction.append(topic, Partition(0), batch);
        Ok(())
    }

    async fn topic(&self, project: &ProjectName) -> Result<stream_storage::TopicId, HooksError> {
        let name = TopicName::parse(HOOKS)
            .map_err(|error| stream_storage::StoreError::Corrupt { reason: error.to_string() })?;
        let description =
            "What became of endpoints and of deliveries that were given up".to_owned();
        let config = TopicConfig {
            retention_hours: RETENTION_HOURS,
            description: Some(description),
            ..TopicConfig::default()
        };
        Ok(self.parts.catalog.ensure_own(project, &name, config).await?.id)
    }
}
