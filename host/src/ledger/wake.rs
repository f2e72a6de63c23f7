//! Which ledgers have something to integrate, and how they fare.

use std::collections::{BTreeSet, HashMap};
use std::sync::Mutex;

use tokio::sync::Notify;

use super::Key;
use crate::lock::lock;

/// Ledgers that have something to do.
#[derive(Default)]
pub(super) struct Wake {
    marked: Mutex<BTreeSet<Key>>,
    notify: Notify,
}

impl Wake {
    /// Says that a ledger has something to do.
    pub(super) fn mark(&self, key: Key) {
        lock(&self.marked).insert(key);
        self.notify.notify_one();
    }

    /// Takes the ledgers that were marked and are not `busy`.
    pub(super) fn take(&self, busy: &BTreeSet<Key>) -> Vec<Key> {
        let mut marked = lock(&self.marked);
        let ready: Vec<Key> = marked.difference(busy).cloned().collect();
        marked.retain(|key| busy.contains(key));
        ready
    }

    /// Returns when a ledger was marked since the last call. Cancel safe.
    pub(super) async fn marked(&self) {
        self.notify.notified().await;
    }
}

/// How a ledger fares on this host.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Health {
    /// It integrates what comes.
    #[default]
    Ok,
    /// Something failed that may pass; it is tried again.
    Retrying {
        /// What failed.
        reason: String,
    },
    /// What is published is not what was signed: nothing is signed until that is put right.
    Stopped {
        /// What is wrong.
        reason: String,
    },
}

/// How all ledgers fare; those that are not in here are well.
#[derive(Default)]
pub(super) struct HealthOf(Mutex<HashMap<Key, (Health, u32)>>);

impl HealthOf {
    pub(super) fn get(&self, key: &Key) -> Health {
        lock(&self.0).get(key).map(|(health, _)| health.clone()).unwrap_or_default()
    }

    /// Why the ledger has stopped, if it has.
    pub(super) fn stopped(&self, key: &Key) -> Option<String> {
        match self.get(key) {
            Health::Stopped { reason } => Some(reason),
            Health::Ok | Health::Retrying { .. } => None,
        }
    }

    pub(super) fn is_well(&self, key: &Key) {
        lock(&self.0).remove(key);
    }

    /// Notes what is wrong, and returns how often in a row something was.
    pub(super) fn is_ill(&self, key: &Key, health: Health) -> u32 {
        let mut all = lock(&self.0);
        let (noted, failures) = all.entry(key.clone()).or_default();
        *noted = health;
        *failures = failures.saturating_add(1);
        *failures
    }
}
