//! Jobs that were given up: tried again, or forgotten.

use std::collections::BTreeSet;
use std::sync::Arc;

use stream_storage::{Expected, ProjectName, StateEntry, Transaction};

use super::enqueue::Placing;
use super::job::JobId;
use super::live::{Changes, Queue};
use super::rows::{self, Dead, Row, Ticket, Ties};
use super::{QueueError, Queues};
use crate::name::QueueName;
use crate::state::{self, Attempts};

/// Rows deleted, or jobs tried again, in one transaction.
const STEP: usize = 1_000;

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
            // One that is named twice is put back once.
            let ids: Vec<JobId> =
                ids.iter().copied().collect::<BTreeSet<_>>().into_iter().collect();
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
            let ties: Vec<Ties> = found
                .iter()
                .map(|(_, _, _, key)| Ties { key: key.clone(), unique: None })
                .collect();
            let mut placing = Placing::read(store, queue, &ties).await?;
            let mut transaction = Transaction::new(project.clone());
            let mut changes = Changes::new(Arc::clone(queue), held);
            let count = found.len();
            for (key, row, id, digest) in found {
                let dead: Dead = state::decode(key.as_bytes(), &row)?;
                transaction.expect(key.clone(), Expected::Version(row.version)).delete(key);
                let ties = Ties { key: digest, unique: None };
                let error = Some(dead.reason);
                let ticket = Ticket { attempts: 0, lease: dead.lease, ties, error };
                let now = self.parts.clock.now();
                changes.effects.extend(placing.place(&mut transaction, id, now, ticket)?);
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
        let Some(ids) = ids else {
            let prefix = Row::Dead.of(name);
            let job = |row: &StateEntry| {
                let id = JobId::parse(&state::name_in(&row.key, &prefix)).ok();
                Ok(id.map(|id| vec![Row::Job.key(name, id)]))
            };
            return self.delete_rows(project, (&prefix, STEP), job).await;
        };
        let mut count = 0;
        for ids in ids.chunks(STEP) {
            count += self.discard_some(project, name, ids).await?;
        }
        Ok(count)
    }

    async fn discard_some(
        &self,
        project: &ProjectName,
        name: &QueueName,
        ids: &[JobId],
    ) -> Result<usize, QueueError> {
        let store = self.parts.store.as_ref();
        let mut attempts = Attempts::default();
        loop {
            let mut transaction = Transaction::new(project.clone());
            for id in ids {
                let key = Row::Dead.key(name, *id);
                if let Some(row) = store.get(project, key.as_bytes()).await? {
                    transaction.expect(key.clone(), Expected::Version(row.version)).delete(key);
                    transaction.delete(Row::Job.key(name, *id));
                }
            }
            let count = transaction.conditions.len();
            if count == 0 {
                return Ok(0);
            }
            match store.commit(transaction).await {
                Ok(_) => return Ok(count),
                Err(error) => attempts.again(error)?,
            }
        }
    }
}
