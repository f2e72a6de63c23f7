//! What an endpoint is: where events of which types go, how, and whether they do.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use stream_storage::{StateEntry, StoreError, Timestamp, Version};

use super::error::InvalidEndpoint;
use super::rows;
use super::sign::SigningSecret;
use crate::name::{EndpointName, QueueName, TopicName};
use crate::pattern::Pattern;
use crate::queue::{Backoff, BackoffSettings, Delays, QueueSettings};
use crate::secret::{SealError, Sealer};
use crate::state;

/// The waits between attempts, in seconds: 5 s, 5 min, 30 min, 2 h, 5 h, 10 h, 14 h, 20 h, 24 h, as
/// Standard Webhooks proposes. With the first attempt that makes ten, over three days.
const LADDER_SECS: [u64; 9] = [5, 300, 1_800, 7_200, 18_000, 36_000, 50_400, 72_000, 86_400];

const DAY_MILLIS: u64 = 24 * 60 * 60 * 1_000;
/// Longest delay: what the queue takes.
const DELAY_MILLIS_MAX: u64 = 30 * DAY_MILLIS;
/// A job is held for longer than a request may take: writing down how it ended takes time, too.
const LEASE_MARGIN_MILLIS: u64 = 60_000;

const EVENTS_MAX: usize = 100;
const TEXT_BYTES_MAX: usize = 4_096;
const METADATA_MAX: usize = 50;

/// An endpoint's id: made up by the server, never used again.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub struct EndpointId(Arc<str>);

impl From<String> for EndpointId {
    fn from(id: String) -> Self {
        Self(id.into())
    }
}

impl From<EndpointId> for String {
    fn from(id: EndpointId) -> Self {
        id.as_str().to_owned()
    }
}

impl EndpointId {
    /// One that nobody has.
    pub(super) fn random() -> Self {
        Self(format!("ep_{:016x}", rand::random::<u64>()).into())
    }

    /// The id.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for EndpointId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Where events go.
#[derive(Debug, Clone)]
pub struct Endpoint {
    /// Its name.
    pub name: EndpointName,
    /// Its id: another endpoint of that name has another.
    pub id: EndpointId,
    /// Where requests go; checked again before each.
    pub url: String,
    /// Which types of events it gets; all if empty.
    pub events: Vec<Pattern>,
    /// For people.
    pub description: Option<String>,
    /// For programs that keep endpoints.
    pub metadata: BTreeMap<String, String>,
    /// Why nothing is sent to it; `None` if it is enabled.
    pub disabled: Option<Disabled>,
    /// What is signed with, the newest first.
    pub(super) secrets: Vec<SealedSecret>,
    /// How requests are sent.
    pub settings: EndpointSettings,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
}

/// Since when and why an endpoint is disabled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disabled {
    /// Why.
    pub reason: DisabledReason,
    /// Milliseconds since 1970.
    pub at: u64,
}

/// Why an endpoint is disabled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DisabledReason {
    /// Somebody said so.
    ByRequest,
    /// It answered 410: it wants no more.
    Gone,
    /// Nothing reached it for as long as its settings allow.
    Failing,
}

impl DisabledReason {
    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ByRequest => "by-request",
            Self::Gone => "gone",
            Self::Failing => "failing",
        }
    }
}

/// A signing secret as it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SealedSecret {
    pub(super) sealed: String,
    /// Until when it signs, in milliseconds since 1970; for ever if `None`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) until: Option<u64>,
}

/// How requests are sent; also the form in which it is stored and shown.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EndpointSettings {
    /// How long an answer may take, in milliseconds: 100 to 60,000.
    pub timeout_ms: u64,
    /// The time before each new attempt, in milliseconds, changed by up to a fifth; when they are
    /// used up, the delivery has failed. At most 100.
    pub retry_delays_ms: Vec<u64>,
    /// Requests under way at once: 1 to 64.
    pub concurrency: u32,
    /// Requests a second; any number if `None`.
    pub rate_per_second: Option<f64>,
    /// Whether events of one key wait for each other.
    pub ordered: bool,
    /// The endpoint is disabled when nothing has reached it for so long, in milliseconds; never if
    /// `None`.
    pub disable_after_ms: Option<u64>,
    /// Finished deliveries that are kept for people to look at: 1 to 100,000.
    pub log_deliveries_max: usize,
    /// For how long they are, in milliseconds.
    pub log_age_ms: u64,
}

impl Default for EndpointSettings {
    fn default() -> Self {
        Self {
            timeout_ms: 15_000,
            retry_delays_ms: LADDER_SECS.iter().map(|seconds| seconds * 1_000).collect(),
            concurrency: 8,
            rate_per_second: None,
            ordered: false,
            disable_after_ms: Some(5 * DAY_MILLIS),
            log_deliveries_max: 10_000,
            log_age_ms: 30 * DAY_MILLIS,
        }
    }
}

impl EndpointSettings {
    /// Checks the numbers.
    ///
    /// # Errors
    ///
    /// One of them is out of its range.
    pub fn check(&self) -> Result<(), InvalidEndpoint> {
        let refuse =
            |field, expected: &str| Err(InvalidEndpoint { field, expected: expected.to_owned() });
        if !(100..=60_000).contains(&self.timeout_ms) {
            return refuse("settings.timeout_ms", "100 to 60000");
        }
        let is_long = |delay: &u64| *delay > DELAY_MILLIS_MAX;
        if self.retry_delays_ms.len() > 100 || self.retry_delays_ms.iter().any(is_long) {
            let expected = "at most 100 delays of at most 2592000000 ms, which is 30 days";
            return refuse("settings.retry_delays_ms", expected);
        }
        if !(1..=64).contains(&self.concurrency) {
            return refuse("settings.concurrency", "1 to 64");
        }
        if self.rate_per_second.is_some_and(|rate| !(0.001..=1e6).contains(&rate)) {
            return refuse("settings.rate_per_second", "0.001 to 1000000");
        }
        if !(1..=100_000).contains(&self.log_deliveries_max) {
            return refuse("settings.log_deliveries_max", "1 to 100000");
        }
        Ok(())
    }

    /// How the endpoint's queue works.
    pub(super) fn queue(&self, is_paused: bool) -> QueueSettings {
        let backoff = self.backoff();
        // A ladder has a rung, also if nobody steps on it.
        let delays_ms = match self.retry_delays_ms.as_slice() {
            [] => vec![0],
            delays => delays.to_vec(),
        };
        QueueSettings {
            attempts_max: backoff.attempts_max,
            backoff: BackoffSettings::Ladder { delays_ms },
            lease_ms: self.timeout_ms + LEASE_MARGIN_MILLIS,
            concurrency: Some(self.concurrency),
            rate_per_second: self.rate_per_second,
            ordered: self.ordered,
            paused: is_paused,
        }
    }

    /// When what failed is tried again.
    pub(super) fn backoff(&self) -> Backoff {
        let delays = self.retry_delays_ms.iter().copied().map(Duration::from_millis).collect();
        let attempts_max = u32::try_from(self.retry_delays_ms.len()).unwrap_or(u32::MAX);
        Backoff { attempts_max: attempts_max.saturating_add(1), delays: Delays::Ladder(delays) }
    }
}

/// An endpoint as it was read, for conditions on it.
#[derive(Debug, Clone)]
pub(super) struct Known {
    pub(super) endpoint: Endpoint,
    pub(super) version: Version,
}

#[derive(Debug, Serialize, Deserialize)]
struct StoredEndpoint {
    id: EndpointId,
    url: String,
    events: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    description: Option<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    metadata: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    disabled: Option<Disabled>,
    secrets: Vec<SealedSecret>,
    settings: EndpointSettings,
    created_at: u64,
    updated_at: u64,
}

impl Endpoint {
    /// Whether events are sent to it.
    pub fn is_enabled(&self) -> bool {
        self.disabled.is_none()
    }

    /// Whether it wants events of this type.
    pub fn wants(&self, event_type: &str) -> bool {
        if self.events.is_empty() {
            return true;
        }
        TopicName::parse(event_type)
            .is_ok_and(|name| self.events.iter().any(|pattern| pattern.matches(&name)))
    }

    /// The queue that its deliveries wait in.
    ///
    /// # Errors
    ///
    /// Never for an id that was made here.
    pub fn queue(&self) -> Result<QueueName, StoreError> {
        let name = format!("{}{}", rows::QUEUE, self.id);
        QueueName::parse(&name).map_err(|error| StoreError::Corrupt { reason: error.to_string() })
    }

    /// Checks what its owner has set.
    pub(super) fn check(&self) -> Result<(), InvalidEndpoint> {
        let refuse =
            |field, expected: &str| Err(InvalidEndpoint { field, expected: expected.to_owned() });
        if self.events.len() > EVENTS_MAX {
            return refuse("events", "at most 100 patterns");
        }
        if self.description.as_ref().is_some_and(|text| text.len() > TEXT_BYTES_MAX) {
            return refuse("description", "at most 4096 bytes");
        }
        let bytes: usize = self.metadata.iter().map(|(name, value)| name.len() + value.len()).sum();
        if self.metadata.len() > METADATA_MAX || bytes > TEXT_BYTES_MAX {
            return refuse("metadata", "at most 50 entries and 4096 bytes");
        }
        self.settings.check()
    }

    /// The secrets that sign at `now`, opened, the newest first.
    pub(super) fn open(
        &self,
        sealer: &Sealer,
        now: Timestamp,
    ) -> Result<Vec<SigningSecret>, SealError> {
        let signs = |secret: &&SealedSecret| secret.until.is_none_or(|until| until > now.0);
        let open = |secret: &SealedSecret| {
            let opened = sealer.open_sealed(&context(&self.id), &secret.sealed)?;
            SigningSecret::from_bytes(opened).map_err(|_| SealError::Damaged)
        };
        self.secrets.iter().filter(signs).map(open).collect()
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        state::encode(&StoredEndpoint {
            id: self.id.clone(),
            url: self.url.clone(),
            events: self.events.iter().map(|pattern| pattern.as_str().to_owned()).collect(),
            description: self.description.clone(),
            metadata: self.metadata.clone(),
            disabled: self.disabled,
            secrets: self.secrets.clone(),
            settings: self.settings.clone(),
            created_at: self.created_at.0,
            updated_at: self.updated_at.0,
        })
    }
}

/// Seals a secret for one endpoint.
pub(super) fn seal(
    sealer: &Sealer,
    id: &EndpointId,
    secret: &SigningSecret,
) -> Result<SealedSecret, SealError> {
    Ok(SealedSecret { sealed: sealer.seal(&context(id), secret.bytes())?, until: None })
}

fn context(id: &EndpointId) -> String {
    format!("hook-endpoint/{id}")
}

impl Known {
    pub(super) fn decode(row: &StateEntry) -> Result<Self, StoreError> {
        let name = EndpointName::parse(&state::name_in(&row.key, rows::ENDPOINT));
        let corrupt = |reason: String| StoreError::Corrupt { reason };
        let stored: StoredEndpoint = state::decode(&row.key, &row.versioned)?;
        let events = stored.events.iter().map(|text| Pattern::parse(text));
        let endpoint = Endpoint {
            name: name.map_err(|error| corrupt(error.to_string()))?,
            id: stored.id,
            url: stored.url,
            events: events.collect::<Result<_, _>>().map_err(|error| corrupt(error.to_string()))?,
            description: stored.description,
            metadata: stored.metadata,
            disabled: stored.disabled,
            secrets: stored.secrets,
            settings: stored.settings,
            created_at: Timestamp(stored.created_at),
            updated_at: Timestamp(stored.updated_at),
        };
        Ok(Self { endpoint, version: row.versioned.version })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(change: impl FnOnce(&mut EndpointSettings)) -> &'static str {
        let mut settings = EndpointSettings::default();
        change(&mut settings);
        settings.check().unwrap_err().field
    }

    #[test]
    fn numbers_out_of_their_range_are_named() {
        assert_eq!(EndpointSettings::default().check(), Ok(()));
        assert_eq!(refused(|settings| settings.timeout_ms = 99), "settings.timeout_ms");
        assert_eq!(refused(|settings| settings.timeout_ms = 60_001), "settings.timeout_ms");
        assert_eq!(refused(|settings| settings.concurrency = 0), "settings.concurrency");
        assert_eq!(refused(|settings| settings.concurrency = 65), "settings.concurrency");
        let many = |settings: &mut EndpointSettings| settings.retry_delays_ms = vec![1; 101];
        assert_eq!(refused(many), "settings.retry_delays_ms");
        let rate = |settings: &mut EndpointSettings| settings.rate_per_second = Some(f64::NAN);
        assert_eq!(refused(rate), "settings.rate_per_second");
        let log = |settings: &mut EndpointSettings| settings.log_deliveries_max = 0;
        assert_eq!(refused(log), "settings.log_deliveries_max");
    }

    #[test]
    fn the_ladder_has_ten_attempts_over_three_days() {
        let queue = EndpointSettings::default().queue(false);
        assert_eq!(queue.attempts_max, 10);
        assert!(queue.check().is_ok());
        let BackoffSettings::Ladder { delays_ms } = queue.backoff else { panic!("no ladder") };
        assert_eq!(delays_ms.iter().sum::<u64>() / 3_600_000, 75);
    }

    #[test]
    fn one_attempt_is_a_queue_too() {
        let settings = EndpointSettings { retry_delays_ms: vec![], ..EndpointSettings::default() };
        let queue = settings.queue(true);
        assert_eq!((queue.attempts_max, queue.paused), (1, true));
        assert!(queue.check().is_ok());
    }
}
