//! All connectors of the server in a few figures, for whoever watches it.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use tokio::time::Instant;

use super::rows::{self, Stored};
use super::spec::Kind;
use super::{ConnectorError, Connectors, State};
use crate::lock::lock;
use crate::name::ConnectorName;
use crate::slot::Slot;
use crate::state::{self, PageRequest};
use stream_storage::ProjectName;

/// Looking at every place of every connector costs: who asks sooner gets the answer before.
const FRESH: Duration = Duration::from_secs(10);

/// What connectors of a kind have done since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counted {
    /// Records taken.
    pub taken: u64,
    /// Of these, records that plugins kept back.
    pub dropped: u64,
    /// Of these, records on which plugins broke.
    pub faulted: u64,
    /// Requests that services elsewhere have taken.
    pub sent: u64,
    /// Requests and transactions that failed; each may be tried again.
    pub failures: u64,
}

/// How connectors stand now.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Standing {
    /// How many there are.
    pub connectors: BTreeMap<(Kind, State), u64>,
    /// Records that they have not taken.
    pub lag: BTreeMap<Kind, u64>,
}

/// What all connectors together have done, those that are gone included.
#[derive(Debug, Default)]
pub(super) struct Totals(Mutex<BTreeMap<Kind, Counted>>);

impl Totals {
    pub(super) fn add(&self, kind: Kind, more: Counted) {
        let mut totals = lock(&self.0);
        let counted = totals.entry(kind).or_default();
        counted.taken += more.taken;
        counted.dropped += more.dropped;
        counted.faulted += more.faulted;
        counted.sent += more.sent;
        counted.failures += more.failures;
    }

    pub(super) fn of(&self, kind: Kind) -> Counted {
        lock(&self.0).get(&kind).copied().unwrap_or_default()
    }
}

/// The last look at all of them.
#[derive(Debug, Default)]
pub(super) struct LastLook(tokio::sync::Mutex<Option<(Instant, Standing)>>);

impl Connectors {
    /// What connectors of a kind have done since the start.
    pub fn counted(&self, kind: Kind) -> Counted {
        self.totals.of(kind)
    }

    /// How all connectors stand, or stood some seconds ago.
    ///
    /// # Errors
    ///
    /// The store could not be read.
    pub async fn standing(&self) -> Result<Standing, ConnectorError> {
        let mut last = self.last_look.0.lock().await;
        if let Some((_, standing)) = last.as_ref().filter(|(at, _)| at.elapsed() < FRESH) {
            return Ok(standing.clone());
        }
        let mut standing = Standing::default();
        let store = self.parts.store.as_ref();
        let all = PageRequest::default();
        for project in self.parts.projects.list(&all).await?.items {
            for row in state::page(store, &project.name, rows::PREFIX, &all).await?.items {
                let stored: Stored = state::decode(&row.key, &row.versioned)?;
                let name = state::name_in(&row.key, rows::PREFIX);
                let Ok(name) = ConnectorName::parse(&name) else { continue };
                let kind = stored.spec()?.kind;
                *standing.connectors.entry((kind, stored.state.state())).or_default() += 1;
                let lag = self.lag(&project.name, &name, &stored).await?;
                *standing.lag.entry(kind).or_default() += lag;
            }
        }
        *last = Some((Instant::now(), standing.clone()));
        Ok(standing)
    }

    async fn lag(
        &self,
        project: &ProjectName,
        name: &ConnectorName,
        stored: &Stored,
    ) -> Result<u64, ConnectorError> {
        let store = self.parts.store.as_ref();
        let places = rows::all_places(store, project, name).await?;
        let mut lag = 0;
        for topic in self.matching(project, &stored.spec()?).await? {
            for partition in topic.partitions() {
                let place = places.get(&Slot::new(topic.id, partition)).copied();
                let bounds = store.bounds(topic.id, partition).await?;
                lag += bounds.end.saturating_sub(place.unwrap_or_default());
            }
        }
        Ok(lag)
    }
}
