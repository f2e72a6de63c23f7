//! Taking jobs.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use stream_storage::{
    CommitError, Expected, ProjectName, Store, StoreError, Timestamp, Transaction, Versioned,
};
use tokio::sync::watch;
use tokio::time::Instant;

use super::enqueue::Heads;
use super::finish::{self, Ending, Why};
use super::front::{Bounds, Candidate, Effect, Timed};
use super::job::{Claimed, JobId};
use super::live::{Changes, Queue};
use super::rows::{self, Row, StoredLease, Ticket};
use super::settings::{QueueSettings, bounded};
use super::view::ENVELOPE_BYTES;
use super::{QueueError, Queues};
use crate::name::QueueName;
use crate::state;

/// Jobs taken at once.
pub const CLAIM_MAX: usize = 1_000;

/// Jobs of a queue that are held at once in any case: they are kept in memory.
const HELD_MAX: u32 = 100_000;

/// Jobs that are read with the rows that say how they stand: a claim of few is one read.
const JOBS_FIRST: usize = 8;

/// Jobs that are read at once.
const JOBS_AT_ONCE: usize = 256;

/// Even if nothing is heard of, the rows are looked at again after this time: another host may have
/// written them.
const LOOK_AGAIN: Duration = Duration::from_secs(10);

/// What a tried job without a holder is said to have ended with.
const EXPIRED: &str = "its lease ended without an answer";

/// What to take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// At most this many jobs, at most [`CLAIM_MAX`].
    pub max: usize,
    /// For how long; as the queue's settings say if `None`.
    pub lease: Option<Duration>,
    /// How long to wait for a job.
    pub wait: Duration,
    /// Who takes them, for people to read.
    pub holder: Option<String>,
    /// Also jobs whose last try ended without an answer, once more: for who writes down himself how
    /// each ends. Others never see them: they are dead.
    pub even_spent: bool,
}

/// Jobs being taken, step by step. Cancel safe, as [`Queues::claim`] is.
pub struct Claiming<'a> {
    queues: &'a Queues,
    queue: Arc<Queue>,
    /// From before the first look.
    changed: watch::Receiver<u64>,
    deadline: Instant,
    claim: &'a Claim,
}

impl Claiming<'_> {
    /// Takes jobs that are due, of at most so many bytes, but at least one.
    ///
    /// # Errors
    ///
    /// The store could not be read or written.
    pub async fn take(&mut self, bytes_max: usize) -> Result<Vec<Claimed>, QueueError> {
        let store = self.queues.parts.store.as_ref();
        self.changed.mark_unchanged();
        let settings = self.queue.settings(store).await?;
        if settings.paused {
            return Ok(Vec::new());
        }
        self.queues.claim_now(&self.queue, &settings, (self.claim, bytes_max)).await
    }

    /// Waits until there may be a job; says whether it is worth a look. It is not if the time is up,
    /// or the server stops.
    ///
    /// # Errors
    ///
    /// The store could not be read.
    pub async fn wait(&mut self) -> Result<bool, QueueError> {
        let parts = &self.queues.parts;
        if self.claim.wait.is_zero() || Instant::now() >= self.deadline {
            return Ok(false);
        }
        let settings = self.queue.settings(parts.store.as_ref()).await?;
        let (now, bounds) = (parts.clock.now(), bounds(&settings, self.claim));
        let next = if settings.paused { None } else { self.queue.front(|f| f.next(now, bounds)) };
        // A moment more: a timer may be early by a part of a millisecond.
        let again = next.map_or(LOOK_AGAIN, |next| next + Duration::from_millis(1));
        let wake = self.deadline.min(Instant::now() + again.min(LOOK_AGAIN));
        tokio::select! {
            biased;
            () = parts.drain.begun() => return Ok(false),
            _ = self.changed.changed() => {}
            () = tokio::time::sleep_until(wake) => {
                if next.is_none() {
                    self.queue.front(super::front::Front::stale);
                }
            }
        }
        Ok(true)
    }
}

/// What is due.
struct Due<'a> {
    now: Timestamp,
    candidates: &'a [Candidate],
    bytes_max: usize,
}

/// What was taken of it, and what there was no room for.
struct Took {
    claimed: Vec<Claimed>,
    back: Vec<Candidate>,
}

/// A job found where it was thought to be.
struct Found {
    id: JobId,
    /// The row that says how it stands, and its version.
    key: String,
    row: Versioned,
    ticket: Ticket,
}

impl Queues {
    /// Takes jobs that are due; waits for one if there is none. Each is the caller's until its lease
    /// ends. Cancel safe: what was taken and not seen is given out again when its lease has ended.
    ///
    /// # Errors
    ///
    /// The store could not be read or written.
    pub async fn claim(
        &self,
        project: &ProjectName,
        name: &QueueName,
        claim: &Claim,
    ) -> Result<Vec<Claimed>, QueueError> {
        let mut claiming = self.claiming(project, name, claim);
        loop {
            let claimed = claiming.take(usize::MAX).await?;
            if !claimed.is_empty() || !claiming.wait().await? {
                return Ok(claimed);
            }
        }
    }

    /// Begins to take jobs, step by step: for who has room for them only while they are taken.
    pub fn claiming<'a>(
        &'a self,
        project: &ProjectName,
        name: &QueueName,
        claim: &'a Claim,
    ) -> Claiming<'a> {
        let queue = self.queue(project, name);
        let changed = queue.changed();
        let deadline = Instant::now() + claim.wait;
        Claiming { queues: self, queue, changed, deadline, claim }
    }

    /// Takes what is due, until something is taken or nothing is left.
    async fn claim_now(
        &self,
        queue: &Arc<Queue>,
        settings: &QueueSettings,
        (claim, bytes_max): (&Claim, usize),
    ) -> Result<Vec<Claimed>, QueueError> {
        loop {
            let now = self.parts.clock.now();
            queue.load(self.parts.store.as_ref(), now).await?;
            let passed = self.parts.clock.monotonic();
            let candidates = queue.front(|f| f.take(now, passed, bounds(settings, claim)));
            if candidates.is_empty() {
                return Ok(Vec::new());
            }
            let is_bounded = settings.concurrency.is_some();
            let mut taking = Taking { queue, candidates, is_bounded, is_over: false };
            let due = Due { now, candidates: &taking.candidates, bytes_max };
            let claimed = self.take(queue, settings, claim, due).await;
            match claimed {
                Ok(Some(Took { claimed, back })) => {
                    taking.over(back);
                    if !claimed.is_empty() {
                        return Ok(claimed);
                    }
                }
                // Somebody was faster with one of them: the rest is looked at again.
                Ok(None) => taking.give_back(),
                Err(error) => {
                    if !is_unknown(&error) {
                        taking.give_back();
                    }
                    return Err(error);
                }
            }
        }
    }

    /// Takes these jobs in one transaction; `None` if it met another.
    async fn take(
        &self,
        queue: &Arc<Queue>,
        settings: &QueueSettings,
        claim: &Claim,
        due: Due<'_>,
    ) -> Result<Option<Took>, QueueError> {
        let store = self.parts.store.as_ref();
        let lease = bounded(claim.lease.unwrap_or(Duration::from_millis(settings.lease_ms)));
        let lease = u64::try_from(lease.as_millis()).unwrap_or(u64::MAX);
        let until = Timestamp(due.now.0.saturating_add(lease));
        let mut transaction = Transaction::new(queue.project.clone());
        let mut changes = Changes::new(Arc::clone(queue), Vec::new());
        let (mut claimed, mut spent) = (Vec::new(), Vec::new());
        let (mut bytes, mut back) = (0_usize, &[][..]);
        let mut reading = Reading::new(store, queue, due.candidates).await?;
        for (place, candidate) in due.candidates.iter().enumerate() {
            let row = reading.row(place);
            let Some(found) = find(queue, *candidate, row, due.now)? else { continue };
            if found.ticket.attempts >= settings.attempts_max && !claim.even_spent {
                spent.push(found);
                continue;
            }
            let room = due.bytes_max.saturating_sub(bytes);
            let job = reading.job(place, room).await?;
            let Found { id, key, row, mut ticket } = found;
            transaction.expect(key.clone(), Expected::Version(row.version));
            let Some(job) = job else {
                // What a deletion has left: nobody can do it any more.
                transaction.expect(candidate.job_key(queue), Expected::Absent).delete(key);
                continue;
            };
            bytes = bytes.saturating_add(job.value.len()).saturating_add(ENVELOPE_BYTES);
            if bytes > due.bytes_max && !claimed.is_empty() {
                transaction.conditions.pop();
                back = due.candidates.get(place..).unwrap_or_default();
                break;
            }
            let job = rows::decode_job(id, &job.value)?;
            ticket.attempts += 1;
            ticket.lease += 1;
            let last_error = ticket.error.clone();
            let stored = StoredLease { until: until.0, holder: claim.holder.clone(), ticket };
            if matches!(candidate, Candidate::Waiting(_)) {
                transaction.delete(key);
            }
            transaction.put(Row::Lease.key(&queue.name, id), state::encode(&stored));
            changes.effects.push(Effect::Held((until, id)));
            changes.tally.claimed += 1;
            claimed.push(Claimed {
                job,
                lease: stored.token(),
                attempt: stored.ticket.attempts,
                leased_until: until,
                last_error,
            });
        }
        if !self.settle(transaction, changes).await? {
            return Ok(None);
        }
        for found in spent {
            self.give_up(queue, found).await?;
        }
        Ok(Some(Took { claimed, back: back.to_vec() }))
    }

    /// Commits, and tells the queue of it; `false` if the commit met another.
    async fn settle(&self, transaction: Transaction, changes: Changes) -> Result<bool, QueueError> {
        if transaction.state.is_empty() {
            changes.abandon();
            return Ok(true);
        }
        match self.parts.store.commit(transaction).await {
            Ok(_) => changes.done(),
            // Nobody knows: the rows are read anew.
            Err(error @ CommitError::Unknown { .. }) => return Err(error.into()),
            Err(CommitError::Conflict { .. }) => {
                changes.abandon();
                return Ok(false);
            }
            Err(error) => {
                changes.abandon();
                return Err(error.into());
            }
        }
        Ok(true)
    }

    /// A job that was tried often enough and whose last holder never answered.
    async fn give_up(&self, queue: &Arc<Queue>, found: Found) -> Result<(), QueueError> {
        let reason = found.ticket.error.clone().unwrap_or_else(|| EXPIRED.to_owned());
        let mut attempts = state::Attempts::default();
        loop {
            let keys = queue.hold_keys(found.ticket.ties.key.as_deref().into_iter()).await;
            let mut transaction = Transaction::new(queue.project.clone());
            let mut changes = Changes::new(Arc::clone(queue), keys);
            let expected = Expected::Version(found.row.version);
            transaction.expect(found.key.clone(), expected).delete(found.key.clone());
            let key = found.ticket.ties.key.as_deref();
            let heads =
                Heads::read(self.parts.store.as_ref(), queue, key.into_iter().collect()).await?;
            let ending = Ending { queue, id: found.id, ticket: &found.ticket, heads: &heads };
            let why = Why { cause: finish::EXPIRED, reason: &reason };
            self.bury(&mut transaction, &mut changes, &ending, why).await?;
            match self.parts.store.commit(transaction).await {
                Ok(receipt) => {
                    self.parts.dead_letters.count(&receipt);
                    changes.done();
                    return Ok(());
                }
                Err(CommitError::Conflict { key }) if *key == *found.key.as_bytes() => {
                    // Somebody else has it.
                    changes.abandon();
                    queue.front(super::front::Front::stale);
                    return Ok(());
                }
                Err(error) => {
                    attempts.again(error)?;
                    changes.abandon();
                }
            }
        }
    }
}

/// The rows of jobs that are being taken: many at a time, and payloads no more than there may be room
/// for.
struct Reading<'a> {
    store: &'a dyn Store,
    queue: &'a Queue,
    candidates: &'a [Candidate],
    /// Those that say how the jobs stand.
    rows: Vec<Option<Versioned>>,
    /// Those of the first jobs.
    jobs: Vec<Option<Versioned>>,
}

impl<'a> Reading<'a> {
    async fn new(
        store: &'a dyn Store,
        queue: &'a Queue,
        candidates: &'a [Candidate],
    ) -> Result<Self, StoreError> {
        let keys = candidates.iter().map(|candidate| candidate.key(queue));
        let first = candidates.iter().take(JOBS_FIRST).map(|candidate| candidate.job_key(queue));
        let keys: Vec<Bytes> = keys.chain(first).map(Bytes::from).collect();
        let mut rows = store.get_many(&queue.project, &keys).await?;
        let jobs = rows.split_off(candidates.len().min(rows.len()));
        Ok(Self { store, queue, candidates, rows, jobs })
    }

    fn row(&mut self, place: usize) -> Option<Versioned> {
        self.rows.get_mut(place).and_then(Option::take)
    }

    /// The job at `place`; reads as many further ones as `room` is likely to hold.
    async fn job(&mut self, place: usize, room: usize) -> Result<Option<Versioned>, StoreError> {
        if self.jobs.len() <= place {
            let sizes = self.jobs.iter().flatten().map(|job| job.value.len() + ENVELOPE_BYTES);
            let (count, bytes) =
                sizes.fold((0, 0), |(count, bytes), size| (count + 1, bytes + size));
            let usual = bytes.checked_div(count).unwrap_or(ENVELOPE_BYTES);
            let wanted = (room / usual.max(1)).clamp(1, JOBS_AT_ONCE) + place - self.jobs.len();
            let next = self.candidates.iter().skip(self.jobs.len()).take(wanted);
            let keys: Vec<Bytes> =
                next.map(|candidate| candidate.job_key(self.queue).into()).collect();
            let read = self.store.get_many(&self.queue.project, &keys).await?;
            self.jobs.extend(read);
        }
        Ok(self.jobs.get(place).cloned().flatten())
    }
}

impl Candidate {
    fn id(self) -> JobId {
        let (Self::Waiting((_, id)) | Self::Expired((_, id))) = self;
        id
    }

    /// The key of the row that says how it stands.
    fn key(self, queue: &Queue) -> String {
        match self {
            Self::Waiting((due, id)) => rows::due(&queue.name, due, id),
            Self::Expired((_, id)) => Row::Lease.key(&queue.name, id),
        }
    }

    fn job_key(self, queue: &Queue) -> String {
        Row::Job.key(&queue.name, self.id())
    }
}

/// Looks whether the job is still there to be taken.
fn find(
    queue: &Queue,
    candidate: Candidate,
    row: Option<Versioned>,
    now: Timestamp,
) -> Result<Option<Found>, QueueError> {
    let (key, Some(row)) = (candidate.key(queue), row) else { return Ok(None) };
    match candidate {
        Candidate::Waiting((_, id)) => {
            let ticket = state::decode(key.as_bytes(), &row)?;
            Ok(Some(Found { id, key, row, ticket }))
        }
        Candidate::Expired((_, id)) => {
            let StoredLease { until, mut ticket, .. } = state::decode(key.as_bytes(), &row)?;
            if until > now.0 {
                let held: Timed = (Timestamp(until), id);
                queue.front(|front| front.apply(Effect::Held(held)));
                return Ok(None);
            }
            ticket.error = Some(EXPIRED.to_owned());
            Ok(Some(Found { id, key, row, ticket }))
        }
    }
}

fn bounds(settings: &QueueSettings, claim: &Claim) -> Bounds {
    Bounds {
        max: claim.max.min(CLAIM_MAX),
        concurrency: Some(settings.concurrency.map_or(HELD_MAX, |most| most.min(HELD_MAX))),
        rate_per_second: settings.rate_per_second,
    }
}

fn is_unknown(error: &QueueError) -> bool {
    matches!(error, QueueError::Commit(CommitError::Unknown { .. }))
}

/// Jobs that are being taken. Dropped before the end, nobody knows which were.
struct Taking<'a> {
    queue: &'a Queue,
    candidates: Vec<Candidate>,
    /// Whether others were kept from taking as many.
    is_bounded: bool,
    is_over: bool,
}

impl Taking<'_> {
    fn over(&mut self, back: Vec<Candidate>) {
        self.is_over = true;
        self.queue.front(|front| front.took(self.candidates.len(), &back));
        if self.is_bounded || !back.is_empty() {
            self.queue.wake();
        }
    }

    fn give_back(&mut self) {
        let back = std::mem::take(&mut self.candidates);
        self.is_over = true;
        self.queue.front(|front| front.took(back.len(), &back));
        self.queue.wake();
    }
}

impl Drop for Taking<'_> {
    fn drop(&mut self) {
        if !self.is_over {
            self.queue.front(|front| {
                front.took(self.candidates.len(), &[]);
                front.stale();
            });
            self.queue.wake();
        }
    }
}
