//! Jobs that were given up: seen, tried again, forgotten; and whole queues emptied.

use std::sync::Arc;
use std::time::Duration;

use stream_storage::{Expected, ProjectName, StateEntry, Store, Timestamp, Transaction};

use super::enqueue::Placing;
use super::job::JobId;
use super::live::{Changes, Queue};
use super::rows::{self, Dead, Done, Row, Ticket, Ties};
use super::{QueueError, Queues};
use crate::name::QueueName;
use crate::state::{self, Attempts};

/// Rows deleted, or jobs tried again, in one transaction.
const STEP: usize = 1_000;

/// How long a job that was given up is kept: as long as its dead letter.
const DEAD_KEPT: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// How long a result is kept.
const DONE_KEPT: Duration = Duration::from_secs(24 * 60 * 60);

impl Queues {
    /// Puts dead jobs back into their queue, with all their tries before them: these ones, or all
    /// that died so far if `None`. Returns how many; one that is no longer dead is not counted.
    ///
    /// # Errors
    ///
    /// The store could not be read or written.
    pub async fn redrive(
        &self,
        project: &ProjectName,
        name: &QueueName,
        ids: Option<&[JobId]>,
    ) -> Result<usize, QueueError> {
        let queue = self.queue(project, name);
        let prefix = Row::Dead.of(name);
        let mut count = 0;
        if let Some(ids) = ids {
            for ids in ids.chunks(STEP) {
                count += self.redrive_some(&queue, ids).await?;
            }
            return Ok(count);
        }
        let mut after: Option<Vec<u8>> = None;
        loop {
            let store = self.parts.store.as_ref();
            let rows = store.scan(project, prefix.as_bytes(), after.as_deref(), STEP).await?;
            let Some(last) = rows.last() else { return Ok(count) };
            after = Some(last.key.to_vec());
            let id = |row: &StateEntry| JobId::parse(&state::name_in(&row.key, &prefix)).ok();
            let ids: Vec<JobId> = rows.iter().filter_map(id).collect();
            count += self.redrive_some(&queue, &ids).await?;
        }
    }

    async fn redrive_some(&self, queue: &Arc<Queue>, ids: &[JobId]) -> Result<usize, QueueError> {
        let store = self.parts.store.as_ref();
        let (project, name) = (&queue.project, &queue.name);
        let is_ordered = queue.settings(store).await?.ordered;
        let mut attempts = Attempts::default();
        loop {
            let mut found = Vec::with_capacity(ids.len());
            for id in ids {
                let key = Row::Dead.key(name, *id);
                let Some(row) = store.get(project, key.as_bytes()).await? else { continue };
                let job_key = Row::Job.key(name, *id);
                let Some(job) = store.get(project, job_key.as_bytes()).await? else { continue };
                let job = rows::decode_job(*id, &job.value)?;
                let digest = job.key.as_deref().filter(|_| is_ordered).map(rows::digest);
                found.push((key, row, *id, digest));
            }
            let keys = found.iter().filter_map(|(_, _, _, key)| key.as_deref());
            let held = queue.hold_keys(keys).await;
            let mut transaction = Transaction::new(project.clone());
            let mut changes = Changes::new(Arc::clone(queue), held);
            let mut placing = Placing::new(store, name);
            let count = found.len();
            for (key, row, id, digest) in found {
                let dead: Dead = state::decode(key.as_bytes(), &row)?;
                transaction.expect(key.clone(), Expected::Version(row.version)).delete(key);
                let ties = Ties { key: digest, unique: None };
                let error = Some(dead.reason);
                let ticket = Ticket { attempts: 0, lease: dead.lease, ties, error };
                let now = self.parts.clock.now();
                changes.effects.extend(placing.place(&mut transaction, id, now, ticket).await?);
            }
            if count == 0 {
                changes.abandon();
                return Ok(0);
            }
            match store.commit(transaction).await {
                Ok(_) => {
                    changes.done();
                    return Ok(count);
                }
                Err(error) => {
                    attempts.again(error)?;
                    changes.abandon();
                }
            }
        }
    }

    /// Deletes all jobs of a queue, whatever their state. Who holds one is refused from here on.
    ///
    /// # Errors
    ///
    /// The store could not be read or written.
    pub async fn purge(&self, project: &ProjectName, name: &QueueName) -> Result<(), QueueError> {
        for kind in Row::ALL {
            let prefix = kind.of(name);
            self.delete_rows(project, &prefix, |_| Ok(Some(Vec::new()))).await?;
        }
        let queue = self.queue(project, name);
        queue.front(|front| *front = super::front::Front::default());
        queue.wake();
        Ok(())
    }

    /// Deletes dead jobs: these ones, or all if `None`. Returns how many.
    ///
    /// # Errors
    ///
    /// The store could not be read or written.
    pub async fn discard(
        &self,
        project: &ProjectName,
        name: &QueueName,
        ids: Option<&[JobId]>,
    ) -> Result<usize, QueueError> {
        let prefix = Row::Dead.of(name);
        self.delete_rows(project, &prefix, |row| {
            let Ok(id) = JobId::parse(&state::name_in(&row.key, &prefix)) else { return Ok(None) };
            let is_meant = ids.is_none_or(|ids| ids.contains(&id));
            Ok(is_meant.then(|| vec![Row::Job.key(name, id)]))
        })
        .await
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
        self.delete_rows(project, "job-done/", |row| {
            let done: Done = state::decode(&row.key, &row.versioned)?;
            Ok(of_job(row).filter(|_| done.at < before(DONE_KEPT).0))
        })
        .await?;
        self.delete_rows(project, "job-dead/", |row| {
            let dead: Dead = state::decode(&row.key, &row.versioned)?;
            Ok(of_job(row).filter(|_| dead.at < before(DEAD_KEPT).0))
        })
        .await?;
        Ok(())
    }

    /// Deletes rows under `prefix` for which `with` says so, each with the keys that it names.
    /// Returns how many rows.
    async fn delete_rows(
        &self,
        project: &ProjectName,
        prefix: &str,
        with: impl Fn(&StateEntry) -> Result<Option<Vec<String>>, stream_storage::StoreError> + Send,
    ) -> Result<usize, QueueError> {
        let store: &dyn Store = self.parts.store.as_ref();
        let mut after: Option<Vec<u8>> = None;
        let mut count = 0;
        loop {
            let rows = store.scan(project, prefix.as_bytes(), after.as_deref(), STEP).await?;
            let Some(last) = rows.last() else { return Ok(count) };
            after = Some(last.key.to_vec());
            let mut transaction = Transaction::new(project.clone());
            for row in rows {
                if let Some(keys) = with(&row)? {
                    transaction.delete(row.key);
                    for key in keys {
                        transaction.delete(key);
                    }
                    count += 1;
                }
            }
            if !transaction.state.is_empty() {
                store.commit(transaction).await?;
            }
        }
    }
}
