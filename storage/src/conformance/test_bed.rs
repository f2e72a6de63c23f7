//! A store under test, and short ways to use it.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;

use super::Engine;
use crate::{
    Bounds, CommitError, CommitNumber, ManualClock, Partition, ProducerStep, ProjectName,
    ReadError, ReadRequest, ReadStart, Receipt, Record, RecordBatch, Records, Segment, Store,
    TopicChange, TopicId, Transaction, Trim, TrimError,
};

/// The topic that every test finds.
pub(super) const TOPIC: TopicId = TopicId(1);
/// The partition that most tests use.
pub(super) const P0: Partition = Partition(0);
pub(super) const P1: Partition = Partition(1);
/// For what must happen at once; long enough for a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// An open store with [`TOPIC`] in it.
pub(super) struct TestBed<'a> {
    engine: &'a dyn Engine,
    pub(super) store: Arc<dyn Store>,
    pub(super) clock: Arc<ManualClock>,
}

impl<'a> TestBed<'a> {
    pub(super) async fn new(engine: &'a dyn Engine) -> Self {
        let bed = Self { engine, store: engine.open().await, clock: engine.clock() };
        bed.create(TOPIC).await;
        bed
    }

    /// Closes the store and opens it again.
    pub(super) async fn reopen(&mut self) {
        self.store.close().await;
        self.store = self.engine.open().await;
    }

    pub(super) async fn create(&self, topic: TopicId) {
        let mut creating = transaction();
        creating.topics.push(TopicChange::Create(topic));
        self.commit(creating).await;
    }

    pub(super) async fn drop_topic(&self, topic: TopicId) {
        let mut dropping = transaction();
        dropping.topics.push(TopicChange::Drop(topic));
        self.commit(dropping).await;
    }

    pub(super) async fn commit(&self, transaction: Transaction) -> Receipt {
        self.store.commit(transaction).await.unwrap()
    }

    pub(super) async fn refusal(&self, transaction: Transaction) -> CommitError {
        self.store.commit(transaction).await.unwrap_err()
    }

    /// Commits all at once, in this order.
    pub(super) async fn commit_at_once(
        &self,
        transactions: impl IntoIterator<Item = Transaction>,
    ) -> Vec<Result<Receipt, CommitError>> {
        all(transactions.into_iter().map(|transaction| self.store.commit(transaction))).await
    }

    /// Appends one batch to a partition of [`TOPIC`].
    pub(super) async fn append(&self, partition: Partition, values: &[&str]) -> Receipt {
        self.commit(appending(partition, values)).await
    }

    /// Reads all from `start` on.
    pub(super) async fn read(
        &self,
        partition: Partition,
        start: ReadStart,
    ) -> Result<Records, ReadError> {
        self.store.read(request(TOPIC, partition, start)).await
    }

    /// What can be read of a partition of [`TOPIC`].
    pub(super) async fn values(&self, partition: Partition) -> Vec<String> {
        let start = ReadStart::Offset(self.bounds(partition).await.start);
        values(&self.read(partition, start).await.unwrap())
    }

    pub(super) async fn bounds(&self, partition: Partition) -> Bounds {
        self.store.bounds(TOPIC, partition).await.unwrap()
    }

    pub(super) async fn trim(&self, partition: Partition, trim: Trim) -> Result<Bounds, TrimError> {
        self.store.trim(TOPIC, partition, trim).await
    }

    /// The value of a state key of [`project`].
    pub(super) async fn state(&self, key: &str) -> Option<String> {
        let versioned = self.store.get(&project(), key.as_bytes()).await.unwrap()?;
        Some(String::from_utf8(versioned.value.to_vec()).unwrap())
    }
}

/// The project of most transactions.
pub(super) fn project() -> ProjectName {
    ProjectName::parse("p").unwrap()
}

pub(super) fn transaction() -> Transaction {
    Transaction::new(project())
}

/// A transaction that appends one batch to a partition of [`TOPIC`].
pub(super) fn appending(partition: Partition, values: &[&str]) -> Transaction {
    let mut appending = transaction();
    appending.append(TOPIC, partition, batch(values));
    appending
}

/// A transaction that puts one state key.
pub(super) fn putting(key: &str, value: &str) -> Transaction {
    let mut putting = transaction();
    putting.put(key.to_owned(), value.to_owned());
    putting
}

pub(super) fn batch(values: &[&str]) -> RecordBatch {
    let mut batch = RecordBatch::default();
    for value in values {
        batch.push(&Record { value: value.as_bytes(), ..Record::default() }).unwrap();
    }
    batch
}

/// A producer's step without digest, expiry and note.
pub(super) fn step(id: &str, epoch: u64, sequence: u64) -> ProducerStep {
    ProducerStep {
        id: id.to_owned(),
        epoch,
        sequence,
        payload_digest: None,
        expires: None,
        note: Bytes::new(),
    }
}

/// A transaction of a producer that appends one record.
pub(super) fn producing(step: ProducerStep, value: &str) -> Transaction {
    Transaction { producer: Some(step), ..appending(P0, &[value]) }
}

/// A request for all records.
pub(super) fn request(topic: TopicId, partition: Partition, start: ReadStart) -> ReadRequest {
    ReadRequest { topic, partition, start, records_max: usize::MAX, bytes_max: usize::MAX }
}

/// The records' values, after a check that their offsets are dense.
pub(super) fn values(records: &Records) -> Vec<String> {
    let mut next = records.segments.first().map_or(records.next_offset, Segment::base_offset);
    let mut values = Vec::new();
    for record in records.segments.iter().flat_map(Segment::records) {
        let (offset, record) = record.unwrap();
        assert_eq!(offset, next);
        next += 1;
        values.push(String::from_utf8(record.value.to_vec()).unwrap());
    }
    assert_eq!(next, records.next_offset);
    values
}

/// `count` different values.
pub(super) fn numbered(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("value {number}")).collect()
}

/// The commit before this one.
pub(super) fn before(commit: CommitNumber) -> CommitNumber {
    CommitNumber(commit.0 - 1)
}

/// Waits for all, after each was started in the order given.
pub(super) async fn all<F: Future>(futures: impl IntoIterator<Item = F>) -> Vec<F::Output> {
    enum Slot<F: Future> {
        Waiting(Pin<Box<F>>),
        Done(Option<F::Output>),
    }
    let mut slots: Vec<_> =
        futures.into_iter().map(|future| Slot::Waiting(Box::pin(future))).collect();
    let finished = poll_fn(move |context| {
        let mut waiting = false;
        for slot in &mut slots {
            if let Slot::Waiting(future) = slot {
                match future.as_mut().poll(context) {
                    Poll::Ready(output) => *slot = Slot::Done(Some(output)),
                    Poll::Pending => waiting = true,
                }
            }
        }
        if waiting {
            return Poll::Pending;
        }
        let outputs = slots.iter_mut().filter_map(|slot| match slot {
            Slot::Done(output) => output.take(),
            Slot::Waiting(_) => None,
        });
        Poll::Ready(outputs.collect())
    });
    in_time(finished).await
}

/// Waits, but not for ever.
pub(super) async fn in_time<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(PATIENCE, future).await.unwrap()
}
