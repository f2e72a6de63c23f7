//! Putting jobs into a queue, as part of a transaction.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::try_join_all;
use stream_storage::{
    CommitError, Expected, StateEntry, Store, StoreError, Timestamp, Transaction, Versioned,
};

use super::front::Effect;
use super::job::{JobId, NewJob};
use super::live::{Changes, Queue};
use super::rows::{self, Behind, Head, Row, Ticket, Ties};
use super::{QueueError, Queues};
use crate::name::QueueName;
use crate::state;

/// Rows that are looked for at once.
const READS_AT_ONCE: usize = 16;

/// Jobs on their way into a queue.
#[must_use = "the queue has to know how the commit ended"]
pub struct Enqueued {
    changes: Changes,
    makes_queue: bool,
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
        if self.makes_queue {
            self.changes.queue.forget_settings();
        }
        self.changes.done();
    }

    /// The transaction did not happen. When that is not known, drop this instead.
    pub fn abandon(self) {
        // That the queue is as it was known may be what did not hold.
        self.changes.queue.forget_settings();
        self.changes.abandon();
    }
}

impl Queues {
    /// Adds jobs to `transaction`, whose project's queue it is: as it is, or made as usual if it is not
    /// there. If the commit meets a conflict, call this anew with a new transaction, after
    /// [`Enqueued::abandon`].
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
        let makes_queue = self.require(transaction, &queue).await?;
        let is_ordered = queue.settings(store).await?.ordered;
        let ties = |job: &NewJob| Ties {
            key: job.key.as_deref().filter(|_| is_ordered).map(rows::digest),
            unique: job.unique.as_deref().map(rows::digest),
        };
        let ties: Vec<Ties> = jobs.iter().map(ties).collect();
        let keys = ties.iter().filter_map(|ties| ties.key.as_deref());
        let held = queue.hold_keys(keys).await;
        let now = self.parts.clock.now();
        let mut placing = Placing::read(store, &queue, &ties).await?;
        let mut changes = Changes::new(Arc::clone(&queue), held);
        let mut ids = Vec::with_capacity(jobs.len());
        for (job, ties) in jobs.into_iter().zip(ties) {
            let id = self.ids.next(now);
            if let Some(unique) = &ties.unique
                && let Some(first) = placing.claim_unique(transaction, unique, id)?
            {
                ids.push(JobPlace { id: first, is_duplicate: true });
                continue;
            }
            let due = job.due.unwrap_or(now);
            let ticket = Ticket { ties, ..Ticket::default() };
            transaction.put(Row::Job.key(name, id), rows::encode_job(job, now));
            let effect = placing.place(transaction, id, due, ticket)?;
            changes.effects.extend(effect);
            changes.tally.enqueued += 1;
            ids.push(JobPlace { id, is_duplicate: false });
        }
        Ok(Enqueued { changes, makes_queue, ids })
    }

    /// Puts jobs into a queue, in a transaction of their own.
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
            let enqueued = self.enqueue(&mut transaction, name, jobs.to_vec()).await?;
            let places = enqueued.places().to_vec();
            if transaction.state.is_empty() {
                enqueued.done();
                return Ok(places);
            }
            match self.parts.store.commit(transaction).await {
                Ok(_) => {
                    enqueued.done();
                    return Ok(places);
                }
                Err(error @ CommitError::Unknown { .. }) => return Err(error.into()),
                Err(error) => {
                    enqueued.abandon();
                    attempts.again(error)?;
                }
            }
        }
    }
}

/// Where jobs of one transaction go.
pub(super) struct Placing<'a> {
    queue: &'a QueueName,
    /// The rows of keys and unique words, as they were read.
    found: HashMap<String, Option<Versioned>>,
    /// Keys of which a job is in the transaction already.
    keys: HashSet<String>,
    uniques: HashMap<String, JobId>,
}

impl<'a> Placing<'a> {
    /// Reads what jobs with these ties need to be placed.
    pub(super) async fn read(
        store: &dyn Store,
        queue: &'a Queue,
        ties: &[Ties],
    ) -> Result<Self, StoreError> {
        let name = &queue.name;
        let mut wanted = BTreeSet::new();
        for Ties { key, unique } in ties {
            wanted.extend(key.as_ref().map(|key| Row::Key.of_digest(name, key)));
            wanted.extend(unique.as_ref().map(|unique| Row::Unique.of_digest(name, unique)));
        }
        let keys: Vec<Bytes> = wanted.iter().cloned().map(Bytes::from).collect();
        let rows = match keys.as_slice() {
            [] => Vec::new(),
            keys => store.get_many(&queue.project, keys).await?,
        };
        let found = wanted.into_iter().zip(rows).collect();
        Ok(Self { queue: name, found, keys: HashSet::new(), uniques: HashMap::new() })
    }

    /// Gives the unique word to `id`, unless an unfinished job has it: then that is returned.
    fn claim_unique(
        &mut self,
        transaction: &mut Transaction,
        unique: &str,
        id: JobId,
    ) -> Result<Option<JobId>, StoreError> {
        if let Some(first) = self.uniques.get(unique) {
            return Ok(Some(*first));
        }
        let key = Row::Unique.of_digest(self.queue, unique);
        if let Some(first) = rows::decode(&key, self.row(&key))? {
            self.uniques.insert(unique.to_owned(), first);
            return Ok(Some(first));
        }
        transaction.expect(key.clone(), Expected::Absent).put(key, state::encode(&id));
        self.uniques.insert(unique.to_owned(), id);
        Ok(None)
    }

    /// Puts the job where it waits: for its time, or behind an earlier one of its key.
    pub(super) fn place(
        &mut self,
        transaction: &mut Transaction,
        id: JobId,
        due: Timestamp,
        ticket: Ticket,
    ) -> Result<Option<Effect>, StoreError> {
        if let Some(digest) = &ticket.ties.key
            && self.is_behind(transaction, digest, id)?
        {
            let key = rows::behind(self.queue, digest, id);
            transaction.put(key, state::encode(&Behind { due: due.0, ticket }));
            return Ok(None);
        }
        transaction.put(rows::due(self.queue, due, id), state::encode(&ticket));
        Ok(Some(Effect::Waits((due, id))))
    }

    /// Whether there is an unfinished job of the key; if not, `id` is the first.
    fn is_behind(
        &mut self,
        transaction: &mut Transaction,
        digest: &str,
        id: JobId,
    ) -> Result<bool, StoreError> {
        if !self.keys.insert(digest.to_owned()) {
            return Ok(true);
        }
        let key = Row::Key.of_digest(self.queue, digest);
        let found = self.row(&key);
        let head: Option<Head> = rows::decode(&key, found)?;
        let expected = found.map_or(Expected::Absent, |row| Expected::Version(row.version));
        let is_behind = head.is_some();
        // Written anew even if it stays: whoever ends the first job has to see this one.
        let head = head.unwrap_or(Head { id });
        transaction.expect(key.clone(), expected).put(key, state::encode(&head));
        Ok(is_behind)
    }

    fn row(&self, key: &str) -> Option<&Versioned> {
        self.found.get(key).and_then(Option::as_ref)
    }
}

/// How keys stand of which jobs end, by their digests.
pub(super) struct Heads(BTreeMap<String, HeadRow>);

struct HeadRow {
    row: Versioned,
    head: Head,
    /// The first that waits behind it.
    next: Option<StateEntry>,
}

impl Heads {
    /// Reads how these keys stand, which are held.
    pub(super) async fn read(
        store: &dyn Store,
        queue: &Queue,
        digests: BTreeSet<&str>,
    ) -> Result<Self, StoreError> {
        let mut heads = BTreeMap::new();
        if digests.is_empty() {
            return Ok(Self(heads));
        }
        let digests: Vec<&str> = digests.into_iter().collect();
        let keys: Vec<String> =
            digests.iter().map(|digest| Row::Key.of_digest(&queue.name, digest)).collect();
        let wanted: Vec<Bytes> = keys.iter().cloned().map(Bytes::from).collect();
        let found = store.get_many(&queue.project, &wanted).await?;
        let mut nexts = Vec::with_capacity(digests.len());
        // Each is a read of its own: some at a time.
        for some in digests.chunks(READS_AT_ONCE) {
            let mut reads = Vec::with_capacity(some.len());
            for digest in some {
                reads.push(first_behind(store, queue, digest));
            }
            nexts.extend(try_join_all(reads).await?);
        }
        for (((digest, key), found), next) in digests.into_iter().zip(&keys).zip(found).zip(nexts) {
            let head: Option<Head> = rows::decode(key, found.as_ref())?;
            if let Some((row, head)) = found.zip(head) {
                heads.insert(digest.to_owned(), HeadRow { row, head, next });
            }
        }
        Ok(Self(heads))
    }

    /// Lets the next job of a key come, since `id` is finished.
    pub(super) fn promote(
        &self,
        queue: &Queue,
        transaction: &mut Transaction,
        (digest, id): (&str, JobId),
    ) -> Result<Option<Effect>, StoreError> {
        let Some(HeadRow { row, head, next }) = self.0.get(digest) else { return Ok(None) };
        if head.id != id {
            return Ok(None);
        }
        let key = Row::Key.of_digest(&queue.name, digest);
        transaction.expect(key.clone(), Expected::Version(row.version));
        let Some(next) = next else {
            transaction.delete(key);
            return Ok(None);
        };
        let behind: Behind = state::decode(&next.key, &next.versioned)?;
        let prefix = rows::behind_key(&queue.name, digest);
        let next_id = JobId::parse(&state::name_in(&next.key, &prefix))
            .map_err(|error| StoreError::Corrupt { reason: error.to_string() })?;
        let due = Timestamp(behind.due);
        transaction
            .delete(next.key.clone())
            .put(key, state::encode(&Head { id: next_id }))
            .put(rows::due(&queue.name, due, next_id), state::encode(&behind.ticket));
        Ok(Some(Effect::Waits((due, next_id))))
    }
}

/// The first job that waits for an earlier one of its key.
async fn first_behind(
    store: &dyn Store,
    queue: &Queue,
    digest: &str,
) -> Result<Option<StateEntry>, StoreError> {
    let prefix = rows::behind_key(&queue.name, digest);
    Ok(store.scan(&queue.project, prefix.as_bytes(), None, 1).await?.into_iter().next())
}
