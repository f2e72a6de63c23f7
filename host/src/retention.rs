//! Trims what its topic no longer keeps, by age and by bytes, in the background.

use std::sync::Arc;
use std::time::Duration;

use stream_storage::{
    Clock, CommitError, Partition, Store, StoreError, Timestamp, Trim, TrimError,
};
use tokio::time::MissedTickBehavior;

use crate::catalog::Catalog;
use crate::drain::Drain;
use crate::project::Projects;
use crate::state::PageRequest;
use crate::topic::Topic;

const HOUR_MILLIS: u64 = 60 * 60 * 1_000;

/// Why a round of trimming ended early. The next one starts again.
#[derive(Debug, thiserror::Error)]
pub enum RetentionError {
    /// The store refused a trim.
    #[error(transparent)]
    Trim(#[from] TrimError),
    /// The store could not be read.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Keeps topics within their retention.
pub struct Retention {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    catalog: Arc<Catalog>,
    projects: Arc<Projects>,
}

impl Retention {
    /// Does nothing yet.
    pub fn new(
        store: Arc<dyn Store>,
        clock: Arc<dyn Clock>,
        catalog: Arc<Catalog>,
        projects: Arc<Projects>,
    ) -> Self {
        Self { store, clock, catalog, projects }
    }

    /// Trims every `interval` until `drain` begins. What goes wrong is logged and tried again.
    pub async fn run(&self, interval: Duration, drain: Drain) {
        let mut ticks = tokio::time::interval(interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = drain.begun() => return,
                _ = ticks.tick() => {
                    if let Err(error) = self.enforce(self.clock.now()).await {
                        tracing::warn!(%error, "retention was not enforced, it is tried again");
                    }
                }
            }
        }
    }

    /// Trims all topics to what they keep at `now`. Durable on return.
    ///
    /// # Errors
    ///
    /// The store could not be read or written; topics that come later are not trimmed.
    pub async fn enforce(&self, now: Timestamp) -> Result<(), RetentionError> {
        let all = PageRequest::default();
        for project in self.projects.list(&all).await?.items {
            for topic in self.catalog.list(&project.name, &all).await?.items {
                for partition in topic.partitions() {
                    self.trim(&topic, partition, now).await?;
                }
            }
        }
        Ok(())
    }

    async fn trim(
        &self,
        topic: &Topic,
        partition: Partition,
        now: Timestamp,
    ) -> Result<(), RetentionError> {
        let bounds = self.store.bounds(topic.id, partition).await?;
        if bounds.range().is_empty() {
            return Ok(());
        }
        let config = &topic.config;
        let by_bytes =
            config.retention_bytes.filter(|&keep| bounds.bytes > keep).map(Trim::KeepBytes);
        let by_age = (config.retention_hours > 0).then(|| {
            let age = u64::from(config.retention_hours).saturating_mul(HOUR_MILLIS);
            Trim::OlderThan(Timestamp(now.0.saturating_sub(age)))
        });
        for trim in [by_age, by_bytes].into_iter().flatten() {
            match self.store.trim(topic.id, partition, trim).await {
                // The topic was deleted since it was listed.
                Err(TrimError::Commit(CommitError::TopicGone { .. })) => return Ok(()),
                trimmed => trimmed?,
            };
        }
        Ok(())
    }
}
