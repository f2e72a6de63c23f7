//! What becomes of a job that somebody holds. Whoever ends one shows its lease: if the job was taken
//! by another since, nothing is done.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::value::RawValue;
use stream_storage::{
    CommitError, Expected, ProjectName, StoreError, Timestamp, Transaction, Versioned,
};

use super::backoff::Backoff;
use super::enqueue::Heads;
use super::front::Effect;
use super::job::{JobId, Lease, Retry};
use super::letter::GivenUp;
use super::live::{Changes, Queue};
use super::metrics::Tally;
use super::rows::{self, Dead, Done, Row, StoredLease, Ticket};
use super::settings::bounded;
use super::{QueueError, Queues};
use crate::lock::lock;
use crate::name::QueueName;
use crate::state::{self, Attempts};

/// Longest text of an error that is kept, in bytes.
const ERROR_MAX: usize = 1_024;

/// Longest result, in bytes: what is larger is published, or kept elsewhere.
pub const RESULT_BYTES_MAX: usize = 64 << 10;

/// How a try ended.
#[derive(Debug, Clone)]
pub enum Outcome {
    /// Well. A result is kept for a day.
    Done {
        /// JSON.
        result: Option<Box<RawValue>>,
    },
    /// Not well.
    Failed {
        /// Why.
        reason: String,
        /// When it is tried again.
        retry: Retry,
    },
    /// It was no try: the job comes again later.
    Snoozed {
        /// How much later.
        delay: Duration,
    },
    /// It is still under way.
    Extended {
        /// For how much longer, from now; as the queue's settings say if `None`.
        lease: Option<Duration>,
    },
}

impl Outcome {
    /// Whether the job may be finished with it.
    fn may_be_last(&self) -> bool {
        matches!(self, Self::Done { .. } | Self::Failed { .. })
    }
}

/// A job and how a try of it ended.
#[derive(Debug, Clone)]
pub struct Finish {
    /// The job.
    pub id: JobId,
    /// What its holder was given.
    pub lease: Lease,
    /// How the try ended.
    pub outcome: Outcome,
}

/// What became of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It is done.
    Done,
    /// It is tried again.
    Again {
        /// When.
        due: Timestamp,
    },
    /// It is dead.
    Dead,
    /// It is held.
    Held {
        /// Until when.
        until: Timestamp,
    },
}

/// Ends of jobs on their way into a transaction.
#[must_use = "the queue has to know how the commit ended"]
pub struct Finished {
    changes: Changes,
    fates: Vec<Fate>,
}

impl Finished {
    /// What becomes of the jobs, in the order given.
    pub fn fates(&self) -> &[Fate] {
        &self.fates
    }

    /// The transaction is committed.
    pub fn done(self) {
        self.changes.done();
    }

    /// The transaction did not happen. When that is not known, drop this instead.
    pub fn abandon(self) {
        self.changes.abandon();
    }
}

/// Causes of a job's death.
const ATTEMPTS: &str = "attempts";
const REFUSED: &str = "refused";
pub(super) const EXPIRED: &str = "lease-expired";

/// Why a job is given up.
#[derive(Clone, Copy)]
pub(super) struct Why<'a> {
    /// As a word.
    pub(super) cause: &'static str,
    /// For people.
    pub(super) reason: &'a str,
}

/// A job that ends.
pub(super) struct Ending<'a> {
    pub(super) queue: &'a Arc<Queue>,
    pub(super) id: JobId,
    pub(super) ticket: &'a Ticket,
    /// How its key stands.
    pub(super) heads: &'a Heads,
}

/// A lease as it was found.
struct Held {
    key: String,
    expected: Expected,
    stored: StoredLease,
}

impl Queues {
    /// Adds the ends of jobs to `transaction`, all of one queue of its project, each job once. If the
    /// commit meets a conflict, call this anew with a new transaction.
    ///
    /// # Errors
    ///
    /// A job is finished, or its lease is not the current one; or the store could not be read.
    pub async fn finish(
        &self,
        transaction: &mut Transaction,
        name: &QueueName,
        ends: &[Finish],
    ) -> Result<Finished, QueueError> {
        let queue = self.queue(&transaction.project, name);
        let mut held = Vec::with_capacity(ends.len());
        for (end, found) in ends.iter().zip(self.leases(&queue, ends).await?) {
            let found = self.held(&queue, end, found).await;
            held.push((end, found.inspect_err(|error| self.count_refused(error))?));
        }
        self.end(transaction, &queue, held).await
    }

    /// Adds the ends of jobs that are held.
    async fn end(
        &self,
        transaction: &mut Transaction,
        queue: &Arc<Queue>,
        held: Vec<(&Finish, Held)>,
    ) -> Result<Finished, QueueError> {
        let settings = queue.settings(self.parts.store.as_ref()).await?;
        let keys = held.iter().filter_map(|(_, held)| held.stored.ticket.ties.key.as_deref());
        let locks = queue.hold_keys(keys).await;
        let ending = held.iter().filter(|(end, _)| end.outcome.may_be_last());
        let keys = ending.filter_map(|(_, held)| held.stored.ticket.ties.key.as_deref()).collect();
        let heads = Heads::read(self.parts.store.as_ref(), queue, keys).await?;
        let mut changes = Changes::new(Arc::clone(queue), locks);
        let mut fates = Vec::with_capacity(held.len());
        for (end, held) in held {
            transaction.expect(held.key.clone(), held.expected);
            let ticket = &held.stored.ticket;
            let ending = Ending { queue, id: end.id, ticket, heads: &heads };
            let fate = match &end.outcome {
                Outcome::Extended { lease } => {
                    let lease = lease.unwrap_or(Duration::from_millis(settings.lease_ms));
                    let until = self.later(lease);
                    let stored = StoredLease { until: until.0, ..held.stored };
                    transaction.put(held.key, state::encode(&stored));
                    changes.effects.push(Effect::Held((until, end.id)));
                    fates.push(Fate::Held { until });
                    continue;
                }
                Outcome::Done { result } => {
                    self.complete(transaction, &mut changes, &ending, result.as_deref())?;
                    changes.tally.completed += 1;
                    Fate::Done
                }
                Outcome::Failed { reason, retry } => {
                    let backoff = settings.backoff();
                    match self.delay(&backoff, held.stored.ticket.attempts, *retry) {
                        Some(delay) => {
                            let mut ticket = held.stored.ticket.clone();
                            ticket.error = Some(cut(reason));
                            changes.tally.failed += 1;
                            self.again(transaction, &mut changes, &ending, (delay, ticket))
                        }
                        None => {
                            let cause = if *retry == Retry::Never { REFUSED } else { ATTEMPTS };
                            let why = Why { cause, reason };
                            self.bury(transaction, &mut changes, &ending, why).await?;
                            Fate::Dead
                        }
                    }
                }
                Outcome::Snoozed { delay } => {
                    let mut ticket = held.stored.ticket.clone();
                    ticket.attempts = ticket.attempts.saturating_sub(1);
                    self.again(transaction, &mut changes, &ending, (*delay, ticket))
                }
            };
            transaction.delete(held.key);
            changes.effects.push(Effect::Free(end.id));
            fates.push(fate);
        }
        Ok(Finished { changes, fates })
    }

    /// Ends jobs in a transaction of their own, all or none.
    ///
    /// # Errors
    ///
    /// As [`finish`](Self::finish), or the store refused.
    pub async fn finish_alone(
        &self,
        project: &ProjectName,
        name: &QueueName,
        ends: &[Finish],
    ) -> Result<Vec<Fate>, QueueError> {
        let mut attempts = Attempts::default();
        loop {
            let mut transaction = Transaction::new(project.clone());
            let finished = self.finish(&mut transaction, name, ends).await?;
            match self.parts.store.commit(transaction).await {
                Ok(receipt) => {
                    self.parts.dead_letters.count(&receipt);
                    let fates = finished.fates().to_vec();
                    finished.done();
                    return Ok(fates);
                }
                Err(error @ CommitError::Unknown { .. }) => return Err(error.into()),
                Err(error) => {
                    finished.abandon();
                    attempts.again(error)?;
                }
            }
        }
    }

    /// Ends jobs in a transaction of their own, each job given once: those whose leases are current.
    /// Returns what became of each, in the order given.
    ///
    /// # Errors
    ///
    /// The store could not be read or written. That a job is finished, or its lease not current, is
    /// told of that job.
    pub async fn finish_each(
        &self,
        project: &ProjectName,
        name: &QueueName,
        ends: &[Finish],
    ) -> Result<Vec<Result<Fate, QueueError>>, QueueError> {
        let queue = self.queue(project, name);
        let mut attempts = Attempts::default();
        loop {
            let (mut held, mut refused) = (Vec::with_capacity(ends.len()), BTreeMap::new());
            let leases = self.leases(&queue, ends).await?;
            for (place, (end, found)) in ends.iter().zip(leases).enumerate() {
                match self.held(&queue, end, found).await {
                    Ok(found) => held.push((end, found)),
                    Err(error @ (QueueError::StaleLease { .. } | QueueError::NoSuchJob { .. })) => {
                        drop(refused.insert(place, error))
                    }
                    Err(error) => return Err(error),
                }
            }
            let mut transaction = Transaction::new(project.clone());
            let finished = self.end(&mut transaction, &queue, held).await?;
            let committed = match transaction.state.is_empty() {
                true => Ok(()),
                false => self.parts.store.commit(transaction).await.map(drop),
            };
            match committed {
                Ok(()) => {
                    refused.values().for_each(|error| self.count_refused(error));
                    let mut fates = finished.fates().to_vec().into_iter();
                    finished.done();
                    let of = |place| match refused.remove(&place) {
                        Some(error) => Some(Err(error)),
                        None => fates.next().map(Ok),
                    };
                    return Ok((0..ends.len()).filter_map(of).collect());
                }
                Err(error @ CommitError::Unknown { .. }) => return Err(error.into()),
                Err(error) => {
                    finished.abandon();
                    attempts.again(error)?;
                }
            }
        }
    }

    /// Counts who came too late.
    fn count_refused(&self, error: &QueueError) {
        if matches!(error, QueueError::StaleLease { .. } | QueueError::NoSuchJob { .. }) {
            self.counters.add(Tally { stale: 1, ..Tally::default() });
        }
    }

    /// The rows of leases, as they are.
    async fn leases(
        &self,
        queue: &Queue,
        ends: &[Finish],
    ) -> Result<Vec<Option<Versioned>>, StoreError> {
        let key = |end: &Finish| Bytes::from(Row::Lease.key(&queue.name, end.id));
        let keys: Vec<Bytes> = ends.iter().map(key).collect();
        self.parts.store.get_many(&queue.project, &keys).await
    }

    /// The lease of a job, if it is the one shown.
    async fn held(
        &self,
        queue: &Queue,
        end: &Finish,
        found: Option<Versioned>,
    ) -> Result<Held, QueueError> {
        let store = self.parts.store.as_ref();
        let key = Row::Lease.key(&queue.name, end.id);
        let stored: Option<StoredLease> = rows::decode(&key, found.as_ref())?;
        let (id, lease) = (end.id, end.lease);
        match found.zip(stored) {
            Some((row, stored)) if stored.token() == lease => {
                Ok(Held { key, expected: Expected::Version(row.version), stored })
            }
            Some((_, stored)) => {
                Err(QueueError::StaleLease { id, lease, current: Some(stored.token()) })
            }
            None => {
                let job = Row::Job.key(&queue.name, id);
                let is_there = store.get(&queue.project, job.as_bytes()).await?.is_some();
                Err(if is_there {
                    QueueError::StaleLease { id, lease, current: None }
                } else {
                    QueueError::NoSuchJob { queue: queue.name.clone(), id }
                })
            }
        }
    }

    fn later(&self, delay: Duration) -> Timestamp {
        let delay = u64::try_from(bounded(delay).as_millis()).unwrap_or(u64::MAX);
        Timestamp(self.parts.clock.now().0.saturating_add(delay))
    }

    fn delay(&self, backoff: &Backoff, attempts: u32, retry: Retry) -> Option<Duration> {
        let delay = backoff.next(attempts, &mut *lock(&self.random));
        match retry {
            Retry::Backoff => delay,
            Retry::After(after) => delay.map(|_| after),
            Retry::Never => None,
        }
    }

    fn again(
        &self,
        transaction: &mut Transaction,
        changes: &mut Changes,
        ending: &Ending<'_>,
        (delay, ticket): (Duration, Ticket),
    ) -> Fate {
        let due = self.later(delay);
        let key = rows::due(&ending.queue.name, due, ending.id);
        transaction.put(key, state::encode(&ticket));
        changes.effects.push(Effect::Waits((due, ending.id)));
        Fate::Again { due }
    }

    fn complete(
        &self,
        transaction: &mut Transaction,
        changes: &mut Changes,
        ending: &Ending<'_>,
        result: Option<&RawValue>,
    ) -> Result<(), QueueError> {
        let Ending { queue, id, ticket, .. } = ending;
        match result {
            Some(result) => {
                let at = self.parts.clock.now().0;
                let done = Done { at, attempts: ticket.attempts, result: result.to_owned() };
                transaction.put(Row::Done.key(&queue.name, *id), state::encode(&done));
            }
            None => {
                transaction.delete(Row::Job.key(&queue.name, *id));
            }
        }
        self.untie(transaction, changes, ending)
    }

    /// Ends a job as dead: it stays, for people to look at and to try again, and the dead-letter
    /// topic tells of it.
    pub(super) async fn bury(
        &self,
        transaction: &mut Transaction,
        changes: &mut Changes,
        ending: &Ending<'_>,
        Why { cause, reason }: Why<'_>,
    ) -> Result<(), QueueError> {
        let Ending { queue, id, ticket, .. } = ending;
        let at = self.parts.clock.now().0;
        let Ticket { attempts, lease, .. } = **ticket;
        let reason = cut(reason);
        let key = Row::Job.key(&queue.name, *id);
        if let Some(job) = self.parts.store.get(&queue.project, key.as_bytes()).await? {
            let job = rows::decode_job(*id, &job.value)?;
            let given_up = GivenUp { queue: queue.name.as_str(), job: &job, attempts };
            given_up.tell(&self.parts.dead_letters, transaction, cause, &reason).await?;
        }
        let dead = Dead { at, attempts, lease, reason };
        transaction.put(Row::Dead.key(&queue.name, *id), state::encode(&dead));
        changes.tally.dead += 1;
        self.untie(transaction, changes, ending)
    }

    /// Ends what ends with a job: its unique word is free, and the next of its key may come.
    fn untie(
        &self,
        transaction: &mut Transaction,
        changes: &mut Changes,
        ending: &Ending<'_>,
    ) -> Result<(), QueueError> {
        let Ending { queue, id, ticket, heads } = ending;
        if let Some(unique) = &ticket.ties.unique {
            transaction.delete(Row::Unique.of_digest(&queue.name, unique));
        }
        if let Some(key) = &ticket.ties.key {
            changes.effects.extend(heads.promote(queue, transaction, (key, *id))?);
        }
        Ok(())
    }
}

/// A text within bounds.
fn cut(text: &str) -> String {
    let end = text.floor_char_boundary(ERROR_MAX.min(text.len()));
    text.get(..end).unwrap_or_default().to_owned()
}
