//! Deleting connectors, at once or when they have done what they had to do.

use std::time::Duration;

use stream_storage::{CommitError, Expected, ProjectName, Timestamp, Transaction};

use super::edit::PLACES_MAX;
use super::rows::{self, Found, StoredState};
use super::view::ConnectorView;
use super::{ConnectorError, Connectors, ConnectorsParts};
use crate::consume::{Amount, ConsumeError, Start};
use crate::name::ConnectorName;
use crate::queue::QueueError;
use crate::slot::Slot;
use crate::state::{Attempts, PageRequest};

/// The next record, if there is one.
const ONE: Amount = Amount { records_max: 1, bytes_max: 1, wait: Duration::ZERO };

/// What becomes of what a connector has not handed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deletion {
    /// What was published before is handed over and sent, and then the connector is deleted.
    Drain,
    /// It is dropped, with the requests that wait.
    Drop,
}

impl Connectors {
    /// Deletes a connector; what it has made, jobs and entries and deliveries of this server, stays.
    /// Returns `None` once it is gone, which for one that drains is later.
    ///
    /// # Errors
    ///
    /// It does not exist, or the store refused.
    pub async fn delete(
        &self,
        project: &ProjectName,
        name: &ConnectorName,
        deletion: Deletion,
    ) -> Result<Option<ConnectorView>, ConnectorError> {
        let _editing = self.edit(project, name).await;
        match deletion {
            Deletion::Drop => {
                let mut attempts = Attempts::default();
                loop {
                    let found = self.find(project, name).await?;
                    match remove_row(&self.parts, project, name, &found).await {
                        Ok(()) => break,
                        Err(error) => attempts.again(error)?,
                    }
                }
                // Nobody adds requests from here on.
                self.restart(project, name).await;
                remove_queue(&self.parts, project, name).await?;
                remove_places(&self.parts, project, name).await?;
                self.forget(project, name);
                Ok(None)
            }
            Deletion::Drain => {
                let Timestamp(until) = self.parts.clock.now();
                self.change(project, name, |stored| {
                    if !matches!(stored.state, StoredState::Draining { .. }) {
                        stored.state = StoredState::Draining { until };
                    }
                    Ok(())
                })
                .await?;
                self.restart(project, name).await;
                match self.view(project, name).await {
                    Err(ConnectorError::NotFound { .. }) => Ok(None),
                    view => view.map(Some),
                }
            }
        }
    }
}

/// Deletes a connector that has drained. It met no more records that it has to take and no request
/// that waits; whether that is so is looked up once more.
///
/// # Errors
///
/// A conflict if there is something left to do, or it was changed; or the store refused.
pub(super) async fn remove(
    parts: &ConnectorsParts,
    project: &ProjectName,
    name: &ConnectorName,
    found: &Found,
) -> Result<(), ConnectorError> {
    if let StoredState::Draining { until } = found.stored.state
        && !has_taken(parts, project, name, (found, Timestamp(until))).await?
    {
        return Err(CommitError::Conflict { key: rows::key(name).into() }.into());
    }
    // The queue first: once the row is gone, another connector of this name may be made.
    remove_queue(parts, project, name).await?;
    remove_row(parts, project, name, found).await?;
    remove_places(parts, project, name).await
}

/// Whether all was taken that was published up to a time. What was trimmed before, or lost with
/// leave, is not waited for, nor what lies behind it.
async fn has_taken(
    parts: &ConnectorsParts,
    project: &ProjectName,
    name: &ConnectorName,
    (found, until): (&Found, Timestamp),
) -> Result<bool, ConnectorError> {
    let spec = found.stored.spec()?;
    let places = rows::all_places(parts.store.as_ref(), project, name).await?;
    let all = PageRequest::default();
    let topics = parts.catalog.list(project, &all).await?.items;
    for topic in topics.iter().filter(|topic| spec.pattern.matches(&topic.name)) {
        for partition in topic.partitions() {
            let place = places.get(&Slot::new(topic.id, partition)).copied().unwrap_or_default();
            let bounds = parts.store.bounds(topic.id, partition).await?;
            if place < bounds.start || place >= bounds.end {
                continue;
            }
            let start = Start::Offset(place);
            let next = match parts.reader.read(topic.id, partition, start, ONE).await {
                Err(ConsumeError::Trimmed { .. }) => continue,
                read => read?.segments.into_iter().next(),
            };
            if next.is_some_and(|next| next.timestamp() <= until) {
                return Ok(false);
            }
        }
    }
    Ok(true)
}

async fn remove_row(
    parts: &ConnectorsParts,
    project: &ProjectName,
    name: &ConnectorName,
    found: &Found,
) -> Result<(), CommitError> {
    let mut transaction = Transaction::new(project.clone());
    transaction.expect(rows::key(name), found.expected).delete(rows::key(name));
    if let Some(key) = found.stored.plugin_use(name) {
        transaction.delete(key);
    }
    parts.store.commit(transaction).await.map(drop)
}

/// Deletes where it read next; what is left of it if another of this name is there already.
async fn remove_places(
    parts: &ConnectorsParts,
    project: &ProjectName,
    name: &ConnectorName,
) -> Result<(), ConnectorError> {
    let store = parts.store.as_ref();
    let slots: Vec<Slot> = rows::all_places(store, project, name).await?.into_keys().collect();
    for some in slots.chunks(PLACES_MAX) {
        let mut transaction = Transaction::new(project.clone());
        transaction.expect(rows::key(name), Expected::Absent);
        for slot in some {
            transaction.delete(rows::place(name, *slot));
        }
        match store.commit(transaction).await {
            Err(CommitError::Conflict { .. }) => return Ok(()),
            committed => committed.map(drop)?,
        }
    }
    Ok(())
}

/// Deletes the requests that wait or were given up.
async fn remove_queue(
    parts: &ConnectorsParts,
    project: &ProjectName,
    name: &ConnectorName,
) -> Result<(), ConnectorError> {
    match parts.queues.delete(project, &rows::queue(name)?).await {
        Ok(()) | Err(QueueError::NotFound { .. }) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
