//! What is deleted without having been done: whole queues, and what was kept long enough.
//!
//! A row is deleted as it was read, or not: whoever changes it meanwhile keeps it.

use std::sync::Arc;
use std::time::Duration;

use stream_storage::{
    CommitError, Expected, ProjectName, StateEntry, StoreError, Timestamp, Transaction,
};

use super::enqueue::Heads;
use super::front::Front;
use super::job::JobId;
use super::live::{Changes, Queue};
use super::rows::{self, Dead, Done, Head, Row};
use super::{QueueError, Queues};
use crate::name::QueueName;
use crate::state::{self, Attempts};

/// Rows deleted in one transaction.
const STEP: usize = 1_000;

/// The same where rows may hold results.
const STEP_OF_RESULTS: usize = 100;

/// The same where rows hold payloads.
const STEP_OF_JOBS: usize = 16;

/// How long a job that was given up is kept: as long as its dead letter.
const DEAD_KEPT: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// How long a result is kept.
const DONE_KEPT: Duration = Duration::from_secs(24 * 60 * 60);

impl Queues {
    /// Deletes all jobs that a queue has now, whatever their state. Who holds one is refused from
    /// here on.
    ///
    /// # Errors
    ///
    /// The store could not be read or written.
    pub async fn purge(&self, project: &ProjectName, name: &QueueName) -> Result<(), QueueError> {
        self.purge_until(project, name, self.ids.next(self.parts.clock.now())).await
    }

    /// Deletes the jobs of a queue that are older than `until`: those that come meanwhile stay.
    pub(super) async fn purge_until(
        &self,
        project: &ProjectName,
        name: &QueueName,
        until: JobId,
    ) -> Result<(), QueueError> {
        let queue = self.queue(project, name);
        // Jobs move from row to row, also while these are deleted: until none was found in any.
        loop {
            let mut count = 0;
            for kind in Row::ALL.into_iter().filter(|kind| *kind != Row::Key) {
                let prefix = kind.of(name);
                let step = match kind {
                    Row::Job => STEP_OF_JOBS,
                    Row::Done => STEP_OF_RESULTS,
                    _ => STEP,
                };
                let with = |row: &StateEntry| match id_of(kind, &prefix, row) {
                    Some(id) if id >= until => Ok(None),
                    // The job goes with the row that says how it stands.
                    Some(id) if !matches!(kind, Row::Job | Row::Unique) => {
                        Ok(Some(vec![Row::Job.key(name, id)]))
                    }
                    _ => Ok(Some(Vec::new())),
                };
                count += self.delete_rows(project, (&prefix, step), with).await?;
            }
            if count + self.delete_heads(&queue, until).await? == 0 {
                break;
            }
        }
        queue.front(|front| *front = Front::default());
        queue.wake();
        Ok(())
    }

    /// Deletes what says which jobs of keys come first, if these are older than `until`; a later job
    /// of the key comes instead. Returns how many.
    async fn delete_heads(&self, queue: &Arc<Queue>, until: JobId) -> Result<usize, QueueError> {
        let store = self.parts.store.as_ref();
        let (project, prefix) = (&queue.project, Row::Key.of(&queue.name));
        let (mut after, mut count): (Option<Vec<u8>>, usize) = (None, 0);
        loop {
            let rows = store.scan(project, prefix.as_bytes(), after.as_deref(), STEP).await?;
            let Some(last) = rows.last() else { return Ok(count) };
            after = Some(last.key.to_vec());
            let mut heads = Vec::new();
            for row in &rows {
                let head: Head = state::decode(&row.key, &row.versioned)?;
                if head.id < until {
                    heads.push((state::name_in(&row.key, &prefix), head.id));
                }
            }
            if heads.is_empty() {
                continue;
            }
            let held = queue.hold_keys(heads.iter().map(|(digest, _)| digest.as_str())).await;
            let digests = heads.iter().map(|(digest, _)| digest.as_str()).collect();
            let found = Heads::read(store, queue, digests).await?;
            let mut transaction = Transaction::new(project.clone());
            let mut changes = Changes::new(Arc::clone(queue), held);
            for (digest, id) in &heads {
                changes.effects.extend(found.promote(queue, &mut transaction, (digest, *id))?);
            }
            match store.commit(transaction).await {
                Ok(_) => changes.done(),
                // Found again in the next round.
                Err(CommitError::Conflict { .. }) => changes.abandon(),
                Err(error) => return Err(error.into()),
            }
            count += heads.len();
        }
    }

    /// Deletes what has been kept long enough: results and dead jobs.
    ///
    /// # Errors
    ///
    /// The store could not be read or written.
    pub(super) async fn sweep(&self, project: &ProjectName) -> Result<(), QueueError> {
        let now = self.parts.clock.now();
        let before = |kept: Duration| {
            Timestamp(now.0.saturating_sub(u64::try_from(kept.as_millis()).unwrap_or(u64::MAX)))
        };
        let of_job = |row: &StateEntry| {
            let key = String::from_utf8_lossy(&row.key).into_owned();
            key.split_once('/').map(|(_, rest)| vec![format!("job/{rest}")])
        };
        self.delete_rows(project, ("job-done/", STEP_OF_RESULTS), |row| {
            let done: Done = state::decode(&row.key, &row.versioned)?;
            Ok(of_job(row).filter(|_| done.at < before(DONE_KEPT).0))
        })
        .await?;
        self.delete_rows(project, ("job-dead/", STEP), |row| {
            let dead: Dead = state::decode(&row.key, &row.versioned)?;
            Ok(of_job(row).filter(|_| dead.at < before(DEAD_KEPT).0))
        })
        .await?;
        Ok(())
    }

    /// Deletes rows under a prefix for which `with` says so, each with the keys that it names, so many
    /// at once. Returns how many rows.
    pub(super) async fn delete_rows(
        &self,
        project: &ProjectName,
        (prefix, step): (&str, usize),
        with: impl Fn(&StateEntry) -> Result<Option<Vec<String>>, StoreError> + Send,
    ) -> Result<usize, QueueError> {
        let store = self.parts.store.as_ref();
        let (mut after, mut count): (Option<Vec<u8>>, usize) = (None, 0);
        let mut attempts = Attempts::default();
        loop {
            let rows = store.scan(project, prefix.as_bytes(), after.as_deref(), step).await?;
            let Some(last) = rows.last().map(|row| row.key.to_vec()) else { return Ok(count) };
            let mut transaction = Transaction::new(project.clone());
            for row in rows {
                if let Some(keys) = with(&row)? {
                    transaction.expect(row.key.clone(), Expected::Version(row.versioned.version));
                    transaction.delete(row.key);
                    for key in keys {
                        transaction.delete(key);
                    }
                }
            }
            let found = transaction.conditions.len();
            if found > 0
                && let Err(error) = store.commit(transaction).await
            {
                attempts.again(error)?;
                continue;
            }
            (after, count, attempts) = (Some(last), count + found, Attempts::default());
        }
    }
}

/// Whose row it is; `None` if that cannot be read.
fn id_of(kind: Row, prefix: &str, row: &StateEntry) -> Option<JobId> {
    let name = state::name_in(&row.key, prefix);
    match kind {
        Row::Job | Row::Lease | Row::Done | Row::Dead => JobId::parse(&name).ok(),
        Row::Due => rows::parse_due(&name).map(|(_, id)| id),
        Row::Behind => name.rsplit('/').next().and_then(|id| JobId::parse(id).ok()),
        Row::Unique => state::decode(&row.key, &row.versioned).ok(),
        Row::Key => state::decode::<Head>(&row.key, &row.versioned).ok().map(|head| head.id),
    }
}
