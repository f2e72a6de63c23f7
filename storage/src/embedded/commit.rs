//! The committer: the one thread that writes. It takes what waits as a lot, checks it in order,
//! writes it as one batch, syncs once, lets readers see it, and answers all.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::oneshot;

use super::disk;
use super::engine::Engine;
use super::files::LOOK_BYTES;
use super::keys::PartitionKey;
use super::keys::trim::TrimPoint;
use super::lot::{Effects, Ground, Lot, Outcome, Write};
use super::park::{Parked, Parking};
use super::queue::{Drained, LotBounds};
use super::shared::{Failure, Shared};
use super::staged::Staged;
use crate::{CommitError, CommitNumber, Receipt, StoreError, TopicId};

/// A lot is large enough to make its sync cheap and small enough to be answered in milliseconds.
const LOT: LotBounds = LotBounds { bytes_max: 8 << 20, items_max: 4096, turn_bytes: 256 << 10 };
/// A start writes a journal of 64 MiB anew and allocates another.
const REOPEN_BYTES_MIN: u64 = 192 << 20;
/// What was acknowledged from memory is synced after this, if no other lot was synced before.
const SYNC_DELAY_MAX: Duration = Duration::from_millis(10);

/// What the committer is asked to do.
pub(super) enum Work {
    Commit { staged: Box<Staged>, reply: Reply, bytes: usize },
    Trim { partition: PartitionKey, point: TrimPoint, reply: oneshot::Sender<TrimResult> },
    ForgetProducer { expiry_key: Vec<u8>, producer_key: Vec<u8> },
    ForgetTopic(TopicId),
}

pub(super) type Reply = oneshot::Sender<Result<Receipt, CommitError>>;
pub(super) type TrimResult = Result<(), CommitError>;

/// The state of the committer's thread.
pub(super) struct Committer {
    shared: Arc<Shared>,
    last_commit: CommitNumber,
    /// Written, acknowledged from memory, not synced.
    unsynced: Unsynced,
    parking: Parking,
    /// Bytes of records that were written since the files were looked at.
    unlooked: u64,
}

#[derive(Default)]
struct Unsynced {
    effects: Effects,
    since: Option<Duration>,
}

/// What a lot's transactions are told once it is written.
#[derive(Default)]
struct Answers {
    commits: Vec<(Reply, Result<Receipt, CommitError>)>,
    trims: Vec<(oneshot::Sender<TrimResult>, TrimResult)>,
}

impl Committer {
    pub(super) fn new(shared: Arc<Shared>, last_commit: CommitNumber) -> Self {
        let (unsynced, parking) = (Unsynced::default(), Parking::default());
        Self { shared, last_commit, unsynced, parking, unlooked: 0 }
    }

    /// Commits until the queue is closed.
    pub(super) fn run(mut self) {
        let _alarm = Alarm(Arc::clone(&self.shared));
        loop {
            match self.shared.queue.drain(LOT, self.wake_after()) {
                Drained::Items(work) => self.commit_lot(work),
                Drained::Nothing => {}
                Drained::Closed(work) => {
                    work.into_iter().for_each(|work| refuse(work, &CommitError::ShuttingDown));
                    self.parking.refuse_all(&CommitError::ShuttingDown);
                    self.sync();
                    return;
                }
            }
            let now = self.shared.clock.monotonic();
            self.parking.refuse_late(now);
            self.shared.counters.set_parked_bytes(self.parking.bytes());
            if self.unsynced.since.is_some_and(|since| now >= since + SYNC_DELAY_MAX) {
                self.sync();
            }
        }
    }

    /// When to look at the clock again, if nothing comes.
    fn wake_after(&self) -> Option<Duration> {
        let sync = self.unsynced.since.map(|since| since + SYNC_DELAY_MAX);
        let next = [sync, self.parking.next_deadline()].into_iter().flatten().min()?;
        Some(next.saturating_sub(self.shared.clock.monotonic()))
    }

    fn commit_lot(&mut self, work: Vec<Work>) {
        if let Err(error) = self.make_ready() {
            work.into_iter().for_each(|work| refuse(work, &error));
            return;
        }
        let full = self.shared.disk_full();
        let shared = Arc::clone(&self.shared);
        let mut answers = Answers::default();
        let written = shared.engine.with(|engine| {
            let lot = self.gather(engine, work, full.as_ref(), &mut answers);
            Ok::<_, StoreError>(lot.map(|write| self.write(engine, write)))
        });
        let failure = match written {
            Ok(None) => None,
            Ok(Some(Ok(synced))) => {
                if !synced {
                    answers.mark_volatile();
                }
                None
            }
            Ok(Some(Err(error))) => Some(error.to_string()),
            Err(error) => Some(error.to_string()),
        };
        answers.send(failure);
    }

    /// Adds all work to a lot, in order.
    fn gather(
        &mut self,
        engine: &Engine,
        work: Vec<Work>,
        full: Option<&CommitError>,
        answers: &mut Answers,
    ) -> Option<Write> {
        let shared = Arc::clone(&self.shared);
        let mut lot = Lot::new(Ground {
            engine,
            ends: &shared.ends,
            gone: &shared.gone,
            unsynced: &self.unsynced.effects.ends,
            last_commit: self.last_commit,
            now: shared.clock.now(),
        });
        let deadline = shared.clock.monotonic() + super::park::WAIT_MAX;
        for work in work {
            match work {
                Work::Commit { staged, reply, bytes } => {
                    if let Some(error) = full.filter(|_| !frees_space(&staged)) {
                        answers.commits.push((reply, Err(error.clone())));
                    } else {
                        let parked = Parked { staged, reply, bytes, deadline };
                        add(&mut lot, &mut self.parking, parked, answers);
                    }
                }
                Work::Trim { partition, point, reply } => {
                    answers.trims.push((reply, lot.trim(partition, point)));
                }
                Work::ForgetProducer { expiry_key, producer_key } => {
                    log_unreadable(lot.forget_producer(expiry_key, producer_key));
                }
                Work::ForgetTopic(topic) => log_unreadable(lot.forget_topic(topic)),
            }
        }
        lot.finish()
    }

    /// Writes a lot, and says whether it is synced.
    fn write(&mut self, engine: &Engine, write: Write) -> fjall::Result<bool> {
        let Write { batch, sync, last_commit, effects } = write;
        let started = self.shared.clock.monotonic();
        let mode = if sync { fjall::PersistMode::SyncData } else { fjall::PersistMode::Buffer };
        let written = self.make_room(engine).and_then(|()| batch.durability(Some(mode)).commit());
        if let Err(error) = written {
            self.fail(&error);
            return Err(error);
        }
        self.last_commit = last_commit;
        self.unlooked += effects.record_bytes;
        self.unsynced.effects.merge(effects);
        if sync {
            self.shared.counters.synced(self.shared.clock.monotonic().saturating_sub(started));
            self.publish();
        } else {
            self.unsynced.since.get_or_insert(started);
        }
        Ok(sync)
    }

    /// Waits until the engine takes the next lot. What was acknowledged from memory does not wait.
    fn make_room(&mut self, engine: &Engine) -> fjall::Result<()> {
        if self.unsynced.since.is_some() && engine.is_behind() {
            self.sync_now(engine)?;
        }
        if engine.is_full() {
            self.shared.seals.ask();
        }
        engine.wait_for_flushes()
    }

    /// Makes durable what was acknowledged from memory.
    fn sync(&mut self) {
        if self.unsynced.since.is_none() {
            return;
        }
        let shared = Arc::clone(&self.shared);
        match shared.engine.with(|engine| Ok::<_, StoreError>(self.sync_now(engine))) {
            Ok(Ok(())) => {}
            Ok(Err(error)) => self.fail(&error),
            Err(error) => tracing::error!(%error, "cannot sync"),
        }
    }

    fn sync_now(&mut self, engine: &Engine) -> fjall::Result<()> {
        let started = self.shared.clock.monotonic();
        engine.sync()?;
        self.shared.counters.synced(self.shared.clock.monotonic().saturating_sub(started));
        self.publish();
        Ok(())
    }

    /// Lets readers see what is durable now.
    fn publish(&mut self) {
        let effects = std::mem::take(&mut self.unsynced).effects;
        self.shared.ran_full.store(false, Ordering::Relaxed);
        self.shared.high_water.advance(self.last_commit);
        self.shared.publish(effects);
        if self.unlooked >= LOOK_BYTES {
            self.unlooked = 0;
            self.shared.looks.ask();
        }
    }

    /// After a failed write nothing is known of what it held: the engine takes no more, until it is
    /// opened again.
    fn fail(&mut self, error: &fjall::Error) {
        self.unsynced = Unsynced::default();
        let reason = error.to_string();
        // What poisoned the database may have been a flush that found the disk full: by now there
        // may be room again.
        let ran_full = || {
            self.shared.short_of(REOPEN_BYTES_MIN).is_some()
                || self.shared.ran_full.load(Ordering::Relaxed)
        };
        let full = disk::is_full(error) || matches!(error, fjall::Error::Poisoned) && ran_full();
        tracing::error!(reason, full, "a write failed");
        let failure = if full { Failure::Full } else { Failure::Io { reason: reason.clone() } };
        self.shared.set_failure(Some(failure));
        if !full {
            self.parking.refuse_all(&CommitError::Poisoned { reason });
        }
    }

    /// Opens the engine again if a full disk broke it and there is room now.
    fn make_ready(&mut self) -> Result<(), CommitError> {
        match self.shared.failure() {
            None => Ok(()),
            Some(Failure::Io { reason }) => Err(CommitError::Poisoned { reason }),
            Some(Failure::Full) => {
                if let Some(full) = self.shared.short_of(REOPEN_BYTES_MIN) {
                    return Err(full);
                }
                match self.shared.reopen() {
                    Ok(last_commit) => {
                        tracing::info!("there is room on the disk again: the store is reopened");
                        self.last_commit = last_commit;
                        self.shared.set_failure(None);
                        Ok(())
                    }
                    Err(error) => {
                        let reason = error.to_string();
                        tracing::error!(reason, "the store cannot be reopened");
                        if let Some(full) = self.shared.disk_full() {
                            return Err(full);
                        }
                        self.shared.set_failure(Some(Failure::Io { reason: reason.clone() }));
                        Err(CommitError::Poisoned { reason })
                    }
                }
            }
        }
    }
}

/// Ends the sealer with the committer, and refuses what waits, and all that comes, if that panics:
/// nobody is left to answer.
struct Alarm(Arc<Shared>);

impl Drop for Alarm {
    fn drop(&mut self) {
        self.0.seals.close();
        if std::thread::panicking() {
            let reason = "the committer panicked".to_owned();
            self.0.set_failure(Some(Failure::Io { reason: reason.clone() }));
            self.0.queue.close();
            if let Drained::Closed(work) = self.0.queue.drain(LOT, None) {
                let error = CommitError::Poisoned { reason };
                work.into_iter().for_each(|work| refuse(work, &error));
            }
        }
    }
}

/// Adds a transaction, and those of its producer that waited for it.
fn add(lot: &mut Lot<'_>, parking: &mut Parking, mut parked: Parked, answers: &mut Answers) {
    let producer = parked.producer();
    match lot.add(&mut parked.staged) {
        Outcome::Early { expected } => {
            if let Err((reply, error)) = parking.park(parked, expected) {
                answers.commits.push((reply, Err(error)));
            }
        }
        Outcome::Refused(error) => answers.commits.push((parked.reply, Err(error))),
        Outcome::Committed(receipt) => {
            answers.commits.push((parked.reply, Ok(receipt)));
            for waiting in producer.map(|key| parking.take(&key)).unwrap_or_default() {
                add(lot, parking, waiting, answers);
            }
        }
    }
}

/// Whether a transaction may be written into the reserve: it makes room.
fn frees_space(staged: &Staged) -> bool {
    staged.appends.is_empty()
        && staged
            .transaction
            .topics
            .iter()
            .any(|change| matches!(change, crate::TopicChange::Drop(_)))
}

fn refuse(work: Work, error: &CommitError) {
    match work {
        Work::Commit { reply, .. } => send(reply, Err(error.clone())),
        Work::Trim { reply, .. } => send(reply, Err(error.clone())),
        // Both are looked for again when the store is opened.
        Work::ForgetProducer { .. } | Work::ForgetTopic(_) => {}
    }
}

/// Answers, unless whoever asked has left.
pub(super) fn send<T>(reply: oneshot::Sender<T>, answer: T) {
    drop(reply.send(answer));
}

fn log_unreadable(result: Result<(), StoreError>) {
    if let Err(error) = result {
        tracing::error!(%error, "cannot clean up");
    }
}

impl Answers {
    /// Nothing of this lot is synced yet.
    fn mark_volatile(&mut self) {
        for (_, answer) in &mut self.commits {
            if let Ok(receipt) = answer {
                receipt.durable = receipt.duplicate;
            }
        }
    }

    /// Answers all. After a failure nothing is known, not even of refusals: they may rest on what the
    /// lot would have changed.
    fn send(self, failure: Option<String>) {
        let unknown = failure.map(|reason| CommitError::Unknown { reason });
        for (reply, answer) in self.commits {
            send(reply, unknown.clone().map_or(answer, Err));
        }
        for (reply, answer) in self.trims {
            send(reply, unknown.clone().map_or(answer, Err));
        }
    }
}

impl Effects {
    fn merge(&mut self, later: Effects) {
        self.ends.extend(later.ends);
        self.entries.extend(later.entries);
        self.trims.extend(later.trims);
        self.topics.extend(later.topics);
        self.watches.extend(later.watches);
        self.commits += later.commits;
        self.records += later.records;
        self.record_bytes += later.record_bytes;
    }
}
