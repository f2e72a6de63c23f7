//! What the path and the query of a request say.

use std::ops::RangeInclusive;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use percent_encoding::percent_decode_str;
use stream_storage::{Ack, Partition};

use super::App;
use super::auth::path_param;
use super::error::ApiError;
use crate::ack;
use crate::consume::Amount;
use crate::group::MemberId;
use crate::name::{
    ConnectorName, EndpointName, GroupName, LedgerName, PluginName, QueueName, RouteName, TopicName,
};
use crate::pattern::Pattern;
use crate::pipeline::BindingPlace;
use crate::publish::OnReject;
use crate::queue::{JobId, QueueError};
use crate::stage::Role;
use crate::state::PageRequest;
use crate::topic::Topic;

/// Records in an answer unless the request says otherwise, and at most.
const RECORDS_DEFAULT: usize = 100;
const RECORDS_MAX: usize = 10_000;
/// Bytes of records in an answer unless the request says otherwise, and at most.
pub(super) const BYTES_DEFAULT: usize = 1 << 20;
pub(super) const BYTES_MAX: usize = 16 << 20;
/// The longest wait for new records: proxies cut what is silent for longer.
pub(super) const WAIT_MILLIS_MAX: u64 = 60_000;
/// The longest page of a list.
const PAGE_MAX: usize = 1_000;

/// A part of the path whose rule it knows.
pub(crate) struct TopicParam(pub(crate) TopicName);

impl FromRequestParts<Arc<App>> for TopicParam {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &Arc<App>) -> Result<Self, ApiError> {
        let name = path_param(parts, "topic").await?.unwrap_or_default();
        Ok(Self(TopicName::parse(&name)?))
    }
}

/// The group in the path.
pub(crate) struct GroupParam(pub(crate) GroupName);

impl FromRequestParts<Arc<App>> for GroupParam {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &Arc<App>) -> Result<Self, ApiError> {
        let name = path_param(parts, "group").await?.unwrap_or_default();
        Ok(Self(GroupName::parse(&name)?))
    }
}

/// The member in the path; whether the group has it is not known.
pub(crate) struct MemberParam(pub(crate) MemberId);

impl FromRequestParts<Arc<App>> for MemberParam {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &Arc<App>) -> Result<Self, ApiError> {
        Ok(Self(MemberId::new(&path_param(parts, "member").await?.unwrap_or_default())))
    }
}

/// The plugin in the path.
pub(crate) struct PluginParam(pub(crate) PluginName);

impl FromRequestParts<Arc<App>> for PluginParam {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &Arc<App>) -> Result<Self, ApiError> {
        let name = path_param(parts, "plugin").await?.unwrap_or_default();
        Ok(Self(PluginName::parse(&name)?))
    }
}

/// The route in the path.
pub(crate) struct RouteParam(pub(crate) RouteName);

impl FromRequestParts<Arc<App>> for RouteParam {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &Arc<App>) -> Result<Self, ApiError> {
        let name = path_param(parts, "route").await?.unwrap_or_default();
        Ok(Self(RouteName::parse(&name)?))
    }
}

/// The queue in the path, to look at.
pub(crate) struct QueueParam(pub(crate) QueueName);

impl FromRequestParts<Arc<App>> for QueueParam {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &Arc<App>) -> Result<Self, ApiError> {
        let name = path_param(parts, "queue").await?.unwrap_or_default();
        Ok(Self(QueueName::parse(&name)?))
    }
}

/// The queue in the path, to change it or its jobs: none of the server's own.
pub(crate) struct OwnQueueParam(pub(crate) QueueName);

impl FromRequestParts<Arc<App>> for OwnQueueParam {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, ApiError> {
        let QueueParam(queue) = QueueParam::from_request_parts(parts, app).await?;
        if queue.is_reserved() {
            return Err(QueueError::Reserved { queue }.into());
        }
        Ok(Self(queue))
    }
}

/// The job in the path; whether the queue has it is not known.
pub(crate) struct JobParam(pub(crate) JobId);

impl FromRequestParts<Arc<App>> for JobParam {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &Arc<App>) -> Result<Self, ApiError> {
        Ok(Self(JobId::parse(&path_param(parts, "id").await?.unwrap_or_default())?))
    }
}

/// The endpoint in the path.
pub(crate) struct EndpointParam(pub(crate) EndpointName);

impl FromRequestParts<Arc<App>> for EndpointParam {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &Arc<App>) -> Result<Self, ApiError> {
        let name = path_param(parts, "endpoint").await?.unwrap_or_default();
        Ok(Self(EndpointName::parse(&name)?))
    }
}

/// The connector in the path.
pub(crate) struct ConnectorParam(pub(crate) ConnectorName);

impl FromRequestParts<Arc<App>> for ConnectorParam {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &Arc<App>) -> Result<Self, ApiError> {
        let name = path_param(parts, "connector").await?.unwrap_or_default();
        Ok(Self(ConnectorName::parse(&name)?))
    }
}

/// The ledger in the path.
pub(crate) struct LedgerParam(pub(crate) LedgerName);

impl FromRequestParts<Arc<App>> for LedgerParam {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &Arc<App>) -> Result<Self, ApiError> {
        let name = path_param(parts, "ledger").await?.unwrap_or_default();
        Ok(Self(LedgerName::parse(&name)?))
    }
}

/// What of a ledger's files the path names.
pub(crate) struct PathParam(pub(crate) String);

impl FromRequestParts<Arc<App>> for PathParam {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &Arc<App>) -> Result<Self, ApiError> {
        Ok(Self(path_param(parts, "path").await?.unwrap_or_default()))
    }
}

/// The role and the pattern in the path.
pub(crate) struct PlaceParam(pub(crate) BindingPlace);

impl FromRequestParts<Arc<App>> for PlaceParam {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &Arc<App>) -> Result<Self, ApiError> {
        let role = path_param(parts, "role").await?.unwrap_or_default();
        let expected = "expected `validate`, `partition` or `transform`; a router is bound by a \
                        route: `PUT /routes/{name}`";
        let role = Role::parse(&role).filter(|role| *role != Role::Route);
        let role = role.ok_or_else(|| ApiError::invalid("role", expected))?;
        let pattern = path_param(parts, "pattern").await?.unwrap_or_default();
        Ok(Self(BindingPlace { role, pattern: Pattern::parse(&pattern)? }))
    }
}

/// The partition in the path; whether the topic has it is not known.
pub(crate) struct PartitionParam(u32);

impl PartitionParam {
    /// The partition, if the topic has it.
    pub(crate) fn of(&self, topic: &Topic) -> Result<Partition, ApiError> {
        Ok(topic.partition(self.0)?)
    }
}

impl FromRequestParts<Arc<App>> for PartitionParam {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &Arc<App>) -> Result<Self, ApiError> {
        let text = path_param(parts, "partition").await?.unwrap_or_default();
        parse_number("partition", &text, 0..=u32::MAX).map(Self)
    }
}

/// The id of what the path names last: a key, a producer, an event.
pub(crate) struct IdParam(pub(crate) String);

impl FromRequestParts<Arc<App>> for IdParam {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &Arc<App>) -> Result<Self, ApiError> {
        Ok(Self(path_param(parts, "id").await?.unwrap_or_default()))
    }
}

/// The key of records that the path names.
pub(crate) struct KeyParam(pub(crate) String);

impl FromRequestParts<Arc<App>> for KeyParam {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &Arc<App>) -> Result<Self, ApiError> {
        Ok(Self(path_param(parts, "key").await?.unwrap_or_default()))
    }
}

/// The query, percent-decoded.
pub(crate) struct Params(Vec<(String, String)>);

impl FromRequestParts<Arc<App>> for Params {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &Arc<App>) -> Result<Self, ApiError> {
        Self::parse(parts.uri.query().unwrap_or_default())
    }
}

impl Params {
    fn parse(query: &str) -> Result<Self, ApiError> {
        let mut params: Vec<(String, String)> = Vec::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let (name, value) = (decode(name)?, decode(value)?);
            if params.iter().any(|(other, _)| *other == name) {
                return Err(ApiError::invalid(name, "it is given twice"));
            }
            params.push((name, value));
        }
        Ok(Self(params))
    }

    /// A parameter as it is.
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str())
    }

    /// A number within a range.
    pub(crate) fn number<T>(
        &self,
        name: &'static str,
        range: RangeInclusive<T>,
    ) -> Result<Option<T>, ApiError>
    where
        T: FromStr + PartialOrd + std::fmt::Display,
    {
        self.text(name).map(|text| parse_number(name, text, range)).transpose()
    }

    /// `limit`, `max_bytes` and `wait_ms`.
    pub(crate) fn amount(&self) -> Result<Amount, ApiError> {
        let wait = self.number("wait_ms", 0..=WAIT_MILLIS_MAX)?.unwrap_or(0);
        Ok(Amount {
            records_max: self.number("limit", 1..=RECORDS_MAX)?.unwrap_or(RECORDS_DEFAULT),
            bytes_max: self.number("max_bytes", 1..=BYTES_MAX)?.unwrap_or(BYTES_DEFAULT),
            wait: Duration::from_millis(wait),
        })
    }

    /// `limit` and `after` of a list.
    pub(crate) fn page(&self) -> Result<PageRequest, ApiError> {
        let after = self.text("after").map(ToOwned::to_owned);
        Ok(PageRequest { after, limit: self.number("limit", 1..=PAGE_MAX)? })
    }

    /// `group`, which has to be there.
    pub(crate) fn group(&self) -> Result<GroupName, ApiError> {
        let group =
            self.text("group").ok_or_else(|| ApiError::invalid("group", "it is missing"))?;
        Ok(GroupName::parse(group)?)
    }

    /// `on_reject`.
    pub(crate) fn on_reject(&self) -> Result<OnReject, ApiError> {
        match self.text("on_reject") {
            None | Some("refuse") => Ok(OnReject::Refuse),
            Some("partial") => Ok(OnReject::Partial),
            Some(text) => {
                let message = format!("expected `refuse` or `partial`, got `{text}`");
                Err(ApiError::invalid("on_reject", message))
            }
        }
    }

    /// `ack`.
    pub(crate) fn ack(&self) -> Result<Option<Ack>, ApiError> {
        let invalid = |text| {
            ApiError::invalid("ack", format!("expected `durable` or `memory`, got `{text}`"))
        };
        self.text("ack").map(|text| ack::parse(text).ok_or_else(|| invalid(text))).transpose()
    }
}

fn decode(text: &str) -> Result<String, ApiError> {
    let spaced = text.replace('+', " ");
    let decoded = percent_decode_str(&spaced).decode_utf8();
    decoded.map(Into::into).map_err(|_| ApiError::invalid("query", "it is not UTF-8"))
}

fn parse_number<T>(name: &'static str, text: &str, range: RangeInclusive<T>) -> Result<T, ApiError>
where
    T: FromStr + PartialOrd + std::fmt::Display,
{
    text.parse().ok().filter(|number| range.contains(number)).ok_or_else(|| {
        let (first, last) = (range.start(), range.end());
        let got: String = text.chars().take(64).collect();
        ApiError::invalid(name, format!("expected a number from {first} to {last}, got `{got}`"))
    })
}
