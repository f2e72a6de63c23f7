//! Putting jobs into a queue, as part of a transaction.

use std::collections::HashMap;
use std::sync::Arc;

use stream_storage::{CommitError, Expected, Store, StoreError, Timestamp, Transaction};

use super::front::Effect;
use super::job::{JobId, NewJob};
use super::live::{Changes, Queue};
use super::rows::{self, Behind, Head, Row, Ticket, Ties};
use super::{QueueError, Queues};
use crate::name::QueueName;
use crate::state;

/// Jobs on their way into a queue.
#[must_use = "the queue has to know how the commit ended"]
pub struct Enqueued {
    changes: Changes,
    ids: Vec<JobPlace>,
}

/// Where a job is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JobPlace {
    /// Its id.
    pub id: JobId,
    /// An unfinished job with the same unique word was there already: it is that one.
    pub is_duplicate: bool,
}

impl Enqueued {
    /// The jobs, in the order given.
    pub fn places(&self) -> &[JobPlace] {
        &self.ids
    }

    /// The transaction is committed: who waits for jobs gets them.
    pub fn done(self) {
        self.changes.done();
    }

    /// The transaction did not happen. When that is not known, drop this instead.
    pub fn abandon(self) {
        self.changes.abandon();
    }
}

impl Queues {
    /// Adds jobs to `transaction`, whose project's queue it is. If the commit meets a conflict, call
    /// this anew with a new transaction.
    ///
    /// A job takes two state writes, three with a unique word, and at most two more in an ordered
    /// queue.
    ///
    /// # Errors
    ///
    /// The store could not be read.
    pub async fn enqueue(
        &self,
        transaction: &mut Transaction,
        name: &QueueName,
        jobs: Vec<NewJob>,
    ) -> Result<Enqueued, QueueError> {
        let store = self.parts.store.as_ref();
        let queue = self.queue(&transaction.project, name);
        let is_ordered = queue.settings(store).await?.ordered;
        let digest = |job: &NewJob| job.key.as_deref().filter(|_| is_ordered).map(rows::digest);
        let keys: Vec<Option<String>> = jobs.iter().map(digest).collect();
        let held = queue.hold_keys(keys.iter().flatten().map(String::as_str)).await;
        let now = self.parts.clock.now();
        let mut changes = Changes::new(queue, held);
        let mut placing = Placing::new(store, name);
        let mut ids = Vec::with_capacity(jobs.len());
        for (job, key) in jobs.into_iter().zip(keys) {
            let unique = job.unique.as_deref().map(rows::digest);
            let id = self.ids.next(now);
            if let Some(unique) = &unique
                && let Some(first) = placing.claim_unique(transaction, unique, id).await?
            {
                ids.push(JobPlace { id: first, is_duplicate: true });
                continue;
            }
            let due = job.due.unwrap_or(now);
            let ticket = Ticket { ties: Ties { key, unique }, ..Ticket::default() };
            transaction.put(Row::Job.key(name, id), rows::encode_job(job, now));
            let effect = placing.place(transaction, id, due, ticket).await?;
            changes.effects.extend(effect);
            changes.tally.enqueued += 1;
            ids.push(JobPlace { id, is_duplicate: false });
        }
        Ok(Enqueued { changes, ids })
    }

    /// Puts jobs into a queue, in a transaction of their own; makes the queue if it is not there.
    ///
    /// # Errors
    ///
    /// The store could not be read or written.
    pub async fn enqueue_alone(
        &self,
        project: &stream_storage::ProjectName,
        name: &QueueName,
        jobs: &[NewJob],
    ) -> Result<Vec<JobPlace>, QueueError> {
        let mut attempts = state::Attempts::default();
        loop {
            let mut transaction = Transaction::new(project.clone());
            self.require(&mut transaction, name).await?;
            let makes_queue = !transaction.state.is_empty();
            let enqueued = self.enqueue(&mut transaction, name, jobs.to_vec()).await?;
            let places = enqueued.places().to_vec();
            if transaction.state.is_empty() {
                enqueued.done();
                return Ok(places);
            }
            match self.parts.store.commit(transaction).await {
                Ok(_) => {
                    enqueued.done();
                    if makes_queue {
                        self.configured(project, name);
                    }
                    return Ok(places);
                }
                Err(error @ CommitError::Unknown { .. }) => return Err(error.into()),
                Err(error) => {
                    enqueued.abandon();
                    attempts.again(error)?;
                    // The condition may have been that of the queue itself.
                    self.configured(project, name);
                }
            }
        }
    }
}

/// Where jobs of one transaction go.
pub(super) struct Placing<'a> {
    store: &'a dyn Store,
    queue: &'a QueueName,
    /// Keys of which a job is in the transaction already.
    keys: HashMap<String, ()>,
    uniques: HashMap<String, JobId>,
}

impl<'a> Placing<'a> {
    pub(super) fn new(store: &'a dyn Store, queue: &'a QueueName) -> Self {
        Self { store, queue, keys: HashMap::new(), uniques: HashMap::new() }
    }

    /// Gives the unique word to `id`, unless an unfinished job has it: then that is returned.
    async fn claim_unique(
        &mut self,
        transaction: &mut Transaction,
        unique: &str,
        id: JobId,
    ) -> Result<Option<JobId>, StoreError> {
        if let Some(first) = self.uniques.get(unique) {
            return Ok(Some(*first));
        }
        let key = Row::Unique.of_digest(self.queue, unique);
        let found = self.store.get(&transaction.project, key.as_bytes()).await?;
        if let Some(first) = rows::decode(&key, found.as_ref())? {
            self.uniques.insert(unique.to_owned(), first);
            return Ok(Some(first));
        }
        transaction.expect(key.clone(), Expected::Absent).put(key, state::encode(&id));
        self.uniques.insert(unique.to_owned(), id);
        Ok(None)
    }

    /// Puts the job where it waits: for its time, or behind an earlier one of its key.
    pub(super) async fn place(
        &mut self,
        transaction: &mut Transaction,
        id: JobId,
        due: Timestamp,
        ticket: Ticket,
    ) -> Result<Option<Effect>, StoreError> {
        if let Some(digest) = &ticket.ties.key
            && self.is_behind(transaction, digest, id).await?
        {
            let key = rows::behind(self.queue, digest, id);
            transaction.put(key, state::encode(&Behind { due: due.0, ticket }));
            return Ok(None);
        }
        transaction.put(rows::due(self.queue, due, id), state::encode(&ticket));
        Ok(Some(Effect::Waits((due, id))))
    }

    /// Whether there is an unfinished job of the key; if not, `id` is the first.
    async fn is_behind(
        &mut self,
        transaction: &mut Transaction,
        digest: &str,
        id: JobId,
    ) -> Result<bool, StoreError> {
        if self.keys.insert(digest.to_owned(), ()).is_some() {
            return Ok(true);
        }
        let key = Row::Key.of_digest(self.queue, digest);
        let found = self.store.get(&transaction.project, key.as_bytes()).await?;
        let head: Option<Head> = rows::decode(&key, found.as_ref())?;
        let expected = found.map_or(Expected::Absent, |row| Expected::Version(row.version));
        let is_behind = head.is_some();
        // Written anew even if it stays: whoever ends the first job has to see this one.
        let head = head.unwrap_or(Head { id });
        transaction.expect(key.clone(), expected).put(key, state::encode(&head));
        Ok(is_behind)
    }
}

/// Lets the next job of a key come, since `id` is finished.
pub(super) async fn promote(
    store: &dyn Store,
    queue: &Arc<Queue>,
    transaction: &mut Transaction,
    digest: &str,
    id: JobId,
) -> Result<Option<Effect>, QueueError> {
    let key = Row::Key.of_digest(&queue.name, digest);
    let found = store.get(&queue.project, key.as_bytes()).await?;
    let head: Option<Head> = rows::decode(&key, found.as_ref())?;
    let Some((row, head)) = found.zip(head) else { return Ok(None) };
    if head.id != id {
        return Ok(None);
    }
    transaction.expect(key.clone(), Expected::Version(row.version));
    let prefix = rows::behind_key(&queue.name, digest);
    let next = store.scan(&queue.project, prefix.as_bytes(), None, 1).await?;
    let Some(next) = next.into_iter().next() else {
        transaction.delete(key);
        return Ok(None);
    };
    let behind: Behind = state::decode(&next.key, &next.versioned)?;
    let next_id = JobId::parse(&state::name_in(&next.key, &prefix))
        .map_err(|error| StoreError::Corrupt { reason: error.to_string() })?;
    let due = Timestamp(behind.due);
    transaction
        .delete(next.key)
        .put(key, state::encode(&Head { id: next_id }))
        .put(rows::due(&queue.name, due, next_id), state::encode(&behind.ticket));
    Ok(Some(Effect::Waits((due, next_id))))
}
