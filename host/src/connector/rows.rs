//! What is stored of a connector, each row under a key of its own in the project's state:
//!
//! | key | value | meaning |
//! | --- | --- | --- |
//! | `connector/{name}` | [`Stored`] | what it is to do, and whether it does |
//! | `connector-place/{name}/{topic id}/{partition}` | [`StoredPlace`] | where it reads next |
//!
//! Whatever a connector does is conditioned on its own row: who pauses or deletes it, or sends it
//! back, ends what was under way. Topic ids are never used again, so what is left behind by a deleted
//! topic is never read.

use std::collections::BTreeMap;

use http::Uri;
use serde::{Deserialize, Serialize};
use stream_storage::{
    Expected, Partition, ProjectName, StateEntry, Store, StoreError, TopicId, Transaction,
};

use super::spec::{Kind, Secret, Settings, Spec};
use super::{ConnectorError, State};
use crate::name::{ConnectorName, QueueName};
use crate::pattern::Pattern;
use crate::pipeline::{self, StoredBinding};
use crate::secret::{self, Sealer};
use crate::slot::Slot;
use crate::stage::Role;
use crate::state::{self, PageRequest};

/// What the keys of connectors start with.
pub(super) const PREFIX: &str = "connector/";

/// A connector as it is stored.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Stored {
    kind: Kind,
    #[serde(rename = "match")]
    pattern: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    plugin: Option<StoredPlugin>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    url: Option<String>,
    /// Sealed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    secret: Option<String>,
    settings: Settings,
    pub(super) state: StoredState,
    /// Milliseconds since 1970.
    pub(super) created_at: u64,
    /// Milliseconds since 1970.
    pub(super) updated_at: u64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct StoredPlugin {
    role: String,
    binding: StoredBinding,
}

/// Whether a connector works.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum StoredState {
    Running,
    Paused,
    /// It takes what was published until then, in milliseconds since 1970, and is deleted.
    Draining {
        until: u64,
    },
}

impl StoredState {
    pub(super) fn state(self) -> State {
        match self {
            Self::Running => State::Running,
            Self::Paused => State::Paused,
            Self::Draining { .. } => State::Draining,
        }
    }
}

/// Where a connector reads next in a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct StoredPlace {
    pub(super) offset: u64,
}

impl Stored {
    /// The stored form of what a user asked for.
    pub(super) fn new(
        spec: &Spec,
        sealer: &Sealer,
        place: (&ProjectName, &ConnectorName),
        now: u64,
    ) -> Result<Self, ConnectorError> {
        let seal = |secret: &Secret| {
            let secret = secret::Secret::new(secret.0.clone().into_bytes());
            sealer.seal(&context(place), &secret)
        };
        Ok(Self {
            kind: spec.kind,
            pattern: spec.pattern.as_str().to_owned(),
            plugin: spec.plugin.as_ref().map(|(role, binding)| StoredPlugin {
                role: role.as_str().to_owned(),
                binding: StoredBinding::of(binding),
            }),
            url: spec.url.clone(),
            secret: spec
                .secret
                .as_ref()
                .filter(|Secret(text)| !text.is_empty())
                .map(seal)
                .transpose()?,
            settings: spec.settings.clone(),
            state: StoredState::Running,
            created_at: now,
            updated_at: now,
        })
    }

    /// What the connector is to do, without its secret.
    pub(super) fn spec(&self) -> Result<Spec, StoreError> {
        let corrupt = |reason: String| StoreError::Corrupt { reason };
        let plugin = self.plugin.clone().map(|plugin| {
            let role = Role::parse(&plugin.role);
            let role = role.ok_or_else(|| corrupt(format!("`{}` is no role", plugin.role)))?;
            Ok::<_, StoreError>((role, plugin.binding.into_binding()?))
        });
        Ok(Spec {
            kind: self.kind,
            pattern: Pattern::parse(&self.pattern).map_err(|error| corrupt(error.to_string()))?,
            plugin: plugin.transpose()?,
            url: self.url.clone(),
            secret: None,
            settings: self.settings.clone(),
        })
    }

    /// The key that notes the use of its plugin.
    pub(super) fn plugin_use(&self, name: &ConnectorName) -> Option<String> {
        let binding = self.plugin.as_ref()?.binding.clone().into_binding().ok()?;
        Some(pipeline::use_key(&binding.plugin.name, &format!("connector/{name}")))
    }

    /// Whether a secret is kept.
    pub(super) fn has_secret(&self) -> bool {
        self.secret.is_some()
    }

    /// Takes the place of what was stored before, whose state and secret it keeps.
    ///
    /// # Errors
    ///
    /// It would show the secret, which nobody can read, to another service.
    pub(super) fn follow(&mut self, before: &Self, spec: &Spec) -> Result<(), ConnectorError> {
        if spec.secret.is_none() && before.secret.is_some() {
            if !self.has_service_of(before) {
                let message = "it is not shown to another service than before: give it again, or \
                               an empty one for none";
                return Err(ConnectorError::invalid("secret", message));
            }
            self.secret.clone_from(&before.secret);
        }
        self.state = before.state;
        self.created_at = before.created_at;
        Ok(())
    }

    /// Whether it is to do just what `other` is, since whenever.
    pub(super) fn is(&self, other: &Self) -> bool {
        let now = Self { updated_at: other.updated_at, ..self.clone() };
        state::encode(&now) == state::encode(other)
    }

    /// Whether requests go to the same host and port.
    fn has_service_of(&self, before: &Self) -> bool {
        let origin = |url: &Option<String>| {
            let url: Uri = url.as_deref()?.parse().ok()?;
            let scheme = url.scheme_str()?.to_owned();
            let usual = if scheme == "https" { 443 } else { 80 };
            let host = url.host()?.to_ascii_lowercase();
            Some((scheme, host, url.port_u16().unwrap_or(usual)))
        };
        origin(&self.url) == origin(&before.url)
    }

    /// The secret in the clear.
    pub(super) fn secret(
        &self,
        sealer: &Sealer,
        place: (&ProjectName, &ConnectorName),
    ) -> Result<Option<Secret>, ConnectorError> {
        let Some(sealed) = &self.secret else { return Ok(None) };
        let secret = sealer.open_sealed(&context(place), sealed)?;
        Ok(Some(Secret(String::from_utf8_lossy(secret.expose()).into_owned())))
    }
}

fn context((project, name): (&ProjectName, &ConnectorName)) -> String {
    format!("connector/{project}/{name}")
}

/// The key of a connector.
pub(super) fn key(name: &ConnectorName) -> String {
    format!("{PREFIX}{name}")
}

/// What the keys of a connector's places start with.
pub(super) fn places(name: &ConnectorName) -> String {
    format!("connector-place/{name}/")
}

/// The key of a place.
pub(super) fn place(name: &ConnectorName, slot: Slot) -> String {
    format!("{}{}/{}", places(name), slot.topic, slot.partition)
}

/// The queue of requests to a service elsewhere.
pub(super) fn queue(name: &ConnectorName) -> Result<QueueName, StoreError> {
    // A name may be as long as a queue's: what does not fit is a digest.
    let text = format!("_connector.{name}");
    let text = if text.len() > QueueName::BYTES_MAX {
        format!("_connector.{}", crate::queue::digest(name.as_str()))
    } else {
        text
    };
    QueueName::parse(&text).map_err(|error| StoreError::Corrupt { reason: error.to_string() })
}

/// A connector as it was found.
pub(super) struct Found {
    pub(super) stored: Stored,
    /// That it is still as it was read.
    pub(super) expected: Expected,
}

/// One connector.
pub(super) async fn find(
    store: &dyn Store,
    project: &ProjectName,
    name: &ConnectorName,
) -> Result<Option<Found>, StoreError> {
    let key = key(name);
    let Some(row) = store.get(project, key.as_bytes()).await? else { return Ok(None) };
    let expected = Expected::Version(row.version);
    Ok(Some(Found { stored: state::decode(key.as_bytes(), &row)?, expected }))
}

/// Where a connector reads next in all partitions that it has seen.
pub(super) async fn all_places(
    store: &dyn Store,
    project: &ProjectName,
    name: &ConnectorName,
) -> Result<BTreeMap<Slot, u64>, StoreError> {
    let prefix = places(name);
    let all = PageRequest::default();
    let rows = state::page(store, project, &prefix, &all).await?;
    let parse = |row: StateEntry| {
        let word = state::name_in(&row.key, &prefix);
        let slot = word.split_once('/').and_then(|(topic, partition)| {
            let (topic, partition) = (topic.parse().ok()?, partition.parse().ok()?);
            Some(Slot::new(TopicId(topic), Partition(partition)))
        });
        let slot = slot.ok_or_else(|| StoreError::Corrupt {
            reason: format!("state key `{}` is no place", String::from_utf8_lossy(&row.key)),
        })?;
        let place: StoredPlace = state::decode(&row.key, &row.versioned)?;
        Ok((slot, place.offset))
    };
    rows.items.into_iter().map(parse).collect()
}

/// Adds a place.
pub(super) fn put_place(
    transaction: &mut Transaction,
    name: &ConnectorName,
    slot: Slot,
    offset: u64,
) {
    transaction.put(place(name, slot), state::encode(&StoredPlace { offset }));
}
