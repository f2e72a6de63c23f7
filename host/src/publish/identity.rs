//! What makes a publish the same as an earlier one.

use std::collections::HashSet;
use std::sync::Mutex;

use stream_storage::ProjectName;

use super::PublishError;
use crate::lock::lock;

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
    /// A key for one publish, unique within where it goes, forgotten after a time.
    Key {
        /// The key.
        key: String,
        /// Of everything that makes the request what it is.
        digest: [u8; 32],
    },
}

/// Within what a key is unique: the topic's id, so that what was deleted with its topic is not taken
/// for stored; what is stored alongside says; or the project, for events that go by their types.
pub(super) type Scope<'a> = Option<&'a str>;

impl Identity {
    /// The producer, epoch and sequence that stand for it in the store.
    pub(super) fn place(&self, scope: Scope<'_>) -> (String, u64, u64) {
        match self {
            Self::Sequence { producer, epoch, sequence } => {
                (sequence_producer(producer), *epoch, *sequence)
            }
            Self::Key { key, .. } => {
                let scope = scope.unwrap_or("by-type");
                (format!("idempotency/{scope}/{key}"), 0, 0)
            }
        }
    }

    pub(super) fn digest(&self) -> Option<[u8; 32]> {
        match self {
            Self::Sequence { .. } => None,
            Self::Key { digest, .. } => Some(*digest),
        }
    }
}

/// The store's name for a client's producer.
pub(super) fn sequence_producer(producer: &str) -> String {
    format!("producer/{producer}")
}

type Entry = (ProjectName, String, u64, u64);

/// Keys and sequences whose requests are under way.
#[derive(Debug, Default)]
pub(super) struct KeysInFlight(Mutex<HashSet<Entry>>);

/// A key or sequence whose request is under way; no longer when dropped.
pub(super) struct InFlight<'a> {
    keys: &'a KeysInFlight,
    entry: Entry,
}

impl KeysInFlight {
    /// Notes that a request is under way, until the answer is dropped: a repeat of it must not meet a
    /// newer validator before the first has been answered.
    pub(super) fn enter(
        &self,
        project: &ProjectName,
        scope: Scope<'_>,
        identity: Option<&Identity>,
    ) -> Result<Option<InFlight<'_>>, PublishError> {
        let Some(identity) = identity else { return Ok(None) };
        let (id, epoch, sequence) = identity.place(scope);
        let entry = (project.clone(), id, epoch, sequence);
        if !lock(&self.0).insert(entry.clone()) {
            let key = match identity {
                Identity::Key { key, .. } => key.clone(),
                Identity::Sequence { producer, .. } => format!("{producer}/{epoch}/{sequence}"),
            };
            return Err(PublishError::InFlight { key });
        }
        Ok(Some(InFlight { keys: self, entry }))
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        lock(&self.keys.0).remove(&self.entry);
    }
}
