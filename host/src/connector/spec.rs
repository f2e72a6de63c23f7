//! What a connector is to do: its words as a user writes them and as they are stored.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::ConnectorError;
use crate::name::{ConnectorName, QueueName};
use crate::pattern::Pattern;
use crate::pipeline::Binding;
use crate::queue::{BackoffSettings, QueueSettings};
use crate::stage::Role;
use crate::timestamp;

/// Records taken in one transaction, at most.
const BATCH_MAX: usize = 1_000;

/// Records taken in one transaction if nobody says it: enough to share a sync, few enough that a
/// publisher never waits long behind them.
const BATCH: usize = 500;

/// Longest time that a remote target may take.
const TIMEOUT_MAX: Duration = Duration::from_secs(300);

/// Where events go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Jobs.
    Worker,
    /// Webhooks.
    Hooks,
    /// The verifiable ledger.
    Ledger,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Self; 3] = [Self::Hooks, Self::Ledger, Self::Worker];

    /// The kind's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Worker => "worker",
            Self::Hooks => "hooks",
            Self::Ledger => "ledger",
        }
    }

    /// The kind of that word.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == word)
    }
}

/// What a connector is to do.
#[derive(Debug, Clone)]
pub struct Spec {
    /// Where events go.
    pub kind: Kind,
    /// The topics whose events are taken.
    pub pattern: Pattern,
    /// What they pass before: a validator keeps back what it rejects, a transform changes or drops.
    pub plugin: Option<(Role, Binding)>,
    /// A service elsewhere; this server's own if `None`.
    pub url: Option<String>,
    /// What that service is shown, as a bearer token.
    pub secret: Option<Secret>,
    /// How.
    pub settings: Settings,
}

/// A secret that is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub String);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret")
    }
}

/// How a connector works; also the form in which it is stored and shown.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Where it begins in topics that are there when it is made: `latest`, `earliest`, or a time.
    /// Later topics are read from their first record.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// Records taken in one transaction.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub batch: Option<usize>,
    /// Worker: the queue; the connector's name if `None`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queue: Option<String>,
    /// Ledger: which one; the connector's name if `None`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ledger: Option<String>,
    /// Worker and Hooks elsewhere: the project there; the connector's own if `None`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub project: Option<String>,
    /// Elsewhere: how long an answer may take, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
    /// Elsewhere: requests at a time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<u32>,
    /// Elsewhere: requests a second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate_per_second: Option<f64>,
    /// Elsewhere: how often a request is tried.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attempts_max: Option<u32>,
    /// Elsewhere: the time before each new try.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backoff: Option<BackoffSettings>,
    /// Elsewhere: whether a partition's requests are sent one after the other.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ordered: Option<bool>,
}

/// Where a connector begins to read, or reads again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum From {
    /// With the earliest record of each partition.
    Earliest,
    /// With what is published from then on.
    Latest,
    /// With the first record of this time or later.
    Time(stream_storage::Timestamp),
}

impl From {
    /// Reads `earliest`, `latest` or a time.
    ///
    /// # Errors
    ///
    /// It is none of them.
    pub fn parse(text: &str) -> Result<Self, ConnectorError> {
        match text {
            "earliest" => Ok(Self::Earliest),
            "latest" => Ok(Self::Latest),
            text => timestamp::parse(text).map(Self::Time).map_err(|_| {
                ConnectorError::invalid("from", "expected `earliest`, `latest` or an RFC 3339 time")
            }),
        }
    }
}

impl Settings {
    /// Reads settings as a user writes them.
    ///
    /// # Errors
    ///
    /// One is unknown or has another type.
    pub fn parse(json: serde_json::Value) -> Result<Self, ConnectorError> {
        serde_json::from_value(json)
            .map_err(|error| ConnectorError::invalid("settings", error.to_string()))
    }

    pub(super) fn from(&self) -> Result<From, ConnectorError> {
        self.from.as_deref().map_or(Ok(From::Latest), From::parse)
    }

    pub(super) fn batch(&self) -> usize {
        self.batch.unwrap_or(BATCH)
    }

    pub(super) fn timeout(&self) -> Duration {
        self.timeout_ms.map_or(Duration::from_secs(15), Duration::from_millis)
    }

    /// The settings of the queue in which requests to a service elsewhere wait.
    pub(super) fn queue_settings(&self) -> QueueSettings {
        let usual = QueueSettings::default();
        let lease = self.timeout() + Duration::from_secs(15);
        QueueSettings {
            attempts_max: self.attempts_max.unwrap_or(20),
            backoff: self.backoff.clone().unwrap_or(usual.backoff),
            lease_ms: u64::try_from(lease.as_millis()).unwrap_or(u64::MAX),
            concurrency: Some(self.concurrency.unwrap_or(8)),
            rate_per_second: self.rate_per_second,
            ordered: self.ordered.unwrap_or(false),
            paused: false,
        }
    }
}

impl Spec {
    /// Checks all that can be known without asking anybody.
    ///
    /// # Errors
    ///
    /// A setting is none of this kind, or out of its range; a secret is given for nobody.
    pub fn check(&self) -> Result<(), ConnectorError> {
        let invalid = |field, message: &str| ConnectorError::invalid(field, message);
        let settings = &self.settings;
        let is_remote = self.url.is_some();
        let of_kind = [
            ("queue", settings.queue.is_some(), self.kind == Kind::Worker),
            ("ledger", settings.ledger.is_some(), self.kind == Kind::Ledger && !is_remote),
            ("project", settings.project.is_some(), is_remote && self.kind != Kind::Ledger),
            ("timeout_ms", settings.timeout_ms.is_some(), is_remote),
            ("concurrency", settings.concurrency.is_some(), is_remote),
            ("rate_per_second", settings.rate_per_second.is_some(), is_remote),
            ("attempts_max", settings.attempts_max.is_some(), is_remote),
            ("backoff", settings.backoff.is_some(), is_remote),
            ("ordered", settings.ordered.is_some(), is_remote),
        ];
        for (name, is_given, is_known) in of_kind {
            if is_given && !is_known {
                let place = if is_remote { "with `url`" } else { "without `url`" };
                let kind = self.kind.as_str();
                let message = format!("`{name}` is no setting of kind `{kind}` {place}");
                return Err(invalid("settings", &message));
            }
        }
        if self.secret.is_some() && !is_remote {
            return Err(invalid("secret", "it is shown to a service elsewhere: `url` is missing"));
        }
        settings.from()?;
        if settings.batch.is_some_and(|batch| !(1..=BATCH_MAX).contains(&batch)) {
            return Err(invalid("settings.batch", &format!("expected 1 to {BATCH_MAX}")));
        }
        let timeout_max = u64::try_from(TIMEOUT_MAX.as_millis()).unwrap_or(u64::MAX);
        if settings.timeout_ms.is_some_and(|timeout| !(1..=timeout_max).contains(&timeout)) {
            return Err(invalid("settings.timeout_ms", &format!("expected 1 to {timeout_max}")));
        }
        if settings.concurrency.is_some_and(|most| most > 256) {
            return Err(invalid("settings.concurrency", "expected 1 to 256"));
        }
        if let Some(queue) = &settings.queue {
            let queue = QueueName::parse(queue)
                .map_err(|error| invalid("settings.queue", &error.to_string()))?;
            if queue.is_reserved() {
                return Err(invalid(
                    "settings.queue",
                    "names that start with `_` are the server's",
                ));
            }
        }
        settings.queue_settings().check().map_err(|error| invalid("settings", &error.to_string()))
    }

    /// The queue of embedded jobs, or of those at a Worker elsewhere.
    pub(super) fn queue(&self, name: &ConnectorName) -> String {
        self.settings.queue.clone().unwrap_or_else(|| name.as_str().to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn spec(kind: Kind, url: Option<&str>, settings: Value) -> Result<(), String> {
        let settings = Settings::parse(settings).map_err(|error| error.to_string())?;
        let spec = Spec {
            kind,
            pattern: Pattern::parse("a.*").unwrap(),
            plugin: None,
            url: url.map(ToOwned::to_owned),
            secret: None,
            settings,
        };
        spec.check().map_err(|error| error.to_string())
    }

    #[test]
    fn settings_of_another_kind_and_unknown_ones_are_named() {
        for (kind, url, settings, name) in [
            (Kind::Hooks, None, json!({ "queue": "q" }), "queue"),
            (Kind::Worker, None, json!({ "timeout_ms": 5 }), "timeout_ms"),
            (Kind::Ledger, Some("http://h"), json!({ "ledger": "l" }), "ledger"),
            (Kind::Worker, None, json!({ "speed": 5 }), "speed"),
            (Kind::Worker, None, json!({ "queue": "_q" }), "settings.queue"),
            (Kind::Worker, None, json!({ "batch": 0 }), "settings.batch"),
            (Kind::Worker, None, json!({ "from": "now" }), "from"),
            (Kind::Worker, Some("http://h"), json!({ "attempts_max": 0 }), "attempts_max"),
        ] {
            let error = spec(kind, url, settings).unwrap_err();
            assert!(error.contains(name), "{name}: {error}");
        }
    }

    #[test]
    fn what_fits_is_accepted() {
        let remote = json!({
            "project": "p", "timeout_ms": 50, "concurrency": 4, "attempts_max": 3,
            "backoff": { "delays_ms": [10] }, "ordered": true,
        });
        assert_eq!(spec(Kind::Hooks, Some("https://h"), remote), Ok(()));
        assert_eq!(spec(Kind::Worker, None, json!({ "queue": "q", "from": "earliest" })), Ok(()));
        assert_eq!(spec(Kind::Ledger, None, json!({ "ledger": "l", "batch": 10 })), Ok(()));
    }
}
