//! The background loop: integrates each ledger that has something to do, each in a task of its own.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use stream_storage::StoreError;
use tokio::task::{Id, JoinSet};

use super::error::LedgerError;
use super::integrate::{Round, RoundError, Site};
use super::wake::Health;
use super::{Key, Ledgers, rows};
use crate::drain::Drain;
use crate::name::LedgerName;
use crate::queue::{Backoff, Delays};
use crate::state::{self, PageRequest};

/// Between two checkpoints of a ledger, so that a steady trickle makes few: each writes the tiles at
/// the right edge anew.
const PAUSE: Duration = Duration::from_millis(200);

/// How often entries are looked for that nobody told of: after a commit of unknown outcome.
const SWEEP: Duration = Duration::from_secs(5);

/// A ledger that has stopped is looked at again this often.
const STOPPED_PAUSE: Duration = Duration::from_secs(30);

impl Ledgers {
    /// Integrates what is sequenced until `drain` begins; what is left then is integrated at the next
    /// start. What goes wrong is logged, shown by the ledger, and tried again.
    pub async fn run(self: Arc<Self>, drain: Drain) {
        let (mut tasks, mut names) = (JoinSet::new(), HashMap::<Id, Key>::new());
        let mut sweep = tokio::time::interval(SWEEP);
        let mut is_start = true;
        loop {
            let busy: BTreeSet<Key> = names.values().cloned().collect();
            for key in self.wake.take(&busy) {
                let task = tasks.spawn(Arc::clone(&self).work(key.clone(), drain.clone()));
                names.insert(task.id(), key);
            }
            tokio::select! {
                () = drain.begun() => break,
                () = self.wake.marked() => {}
                Some(done) = tasks.join_next_with_id() => {
                    // A panic in it has been printed; the next sweep finds what it left.
                    let id = done.map_or_else(|error| error.id(), |(id, ())| id);
                    names.remove(&id);
                }
                _ = sweep.tick() => match self.look(is_start).await {
                    Ok(()) => is_start = false,
                    Err(error) => tracing::warn!(%error, "ledgers cannot be listed"),
                },
            }
        }
        while tasks.join_next().await.is_some() {}
    }

    /// Marks the ledgers that have something to do; `all` to look at what they have published too.
    async fn look(&self, all: bool) -> Result<(), StoreError> {
        let page = PageRequest::default();
        for project in self.projects.list(&page).await?.items {
            let store = self.store.as_ref();
            let found = state::page(store, &project.name, rows::PREFIX, &page).await?;
            for row in found.items {
                let name = state::name_in(&row.key, rows::PREFIX);
                let Ok(ledger) = LedgerName::parse(&name) else { continue };
                let key = Key { project: project.name.clone(), ledger };
                let (head, _) = self.head(&key).await?;
                let (tree, _) = self.tree(&key).await?;
                if all || head.next != tree.mark().size {
                    self.wake.mark(key);
                }
            }
        }
        Ok(())
    }

    async fn work(self: Arc<Self>, key: Key, drain: Drain) {
        let pause = match self.integrate(&key, &drain).await {
            Ok(()) => PAUSE,
            Err(error) => {
                let pause = self.note(&key, &error);
                self.wake.mark(key);
                pause
            }
        };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = drain.begun() => {}
        }
    }

    /// Notes what went wrong, and returns when to try again.
    pub(super) fn note(&self, key: &Key, error: &RoundError) -> Duration {
        let (project, ledger, reason) = (&key.project, &key.ledger, error.to_string());
        let RoundError::Stopped(_) = error else {
            let attempts = self.health.is_ill(key, Health::Retrying { reason });
            tracing::warn!(%project, %ledger, %error, "a ledger is not integrated, it is tried again");
            let (base, max) = (Duration::from_millis(100), Duration::from_secs(10));
            let delays = Delays::Doubling { base, max };
            let backoff = Backoff { attempts_max: u32::MAX, delays };
            return backoff.next(attempts, &mut rand::rng()).unwrap_or(max);
        };
        self.health.is_ill(key, Health::Stopped { reason });
        tracing::error!(%project, %ledger, %error, "a ledger has stopped: nothing is signed");
        STOPPED_PAUSE
    }

    /// Integrates all that is sequenced now.
    pub(super) async fn integrate(&self, key: &Key, drain: &Drain) -> Result<(), RoundError> {
        let Some(opened) = self.open(key).await? else {
            let ledger = key.ledger.clone();
            return Err(LedgerError::NotFound { ledger }.into());
        };
        let site = Site { store: self.store.as_ref(), key, ledger: &opened };
        while site.round().await? == Round::Published && !drain.has_begun() {
            self.health.is_well(key);
        }
        self.health.is_well(key);
        Ok(())
    }
}
