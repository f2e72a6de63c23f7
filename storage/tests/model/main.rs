//! The embedded store against a model that is obviously right, under random steps of all kinds.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod model;
mod step;

use std::collections::HashMap;
use std::sync::Arc;

use proptest::prelude::*;
use proptest::sample::Index;
use stream_storage::embedded::{EmbeddedConfig, EmbeddedStore};
use stream_storage::{
    Ack, Append, Clock, CommitError, CommitNumber, Expected, IndexEntry, ManualClock, Partition,
    ProducerState, ProducerStep, ProjectName, ReadError, ReadRequest, ReadStart, Receipt, Record,
    RecordBatch, Records, Store, Timestamp, TopicChange, Transaction, Trim, Version,
};
use tokio::task::JoinSet;

use self::model::{Log, Model, Outcome, Stored};
use self::step::{
    Change, Claim, Condition, INDEX_KEYS, PARTITIONS, PRODUCERS, Place, Read, Start, Step, TOPICS,
    TopicStep, TrimTo, Value, step,
};

const INDEX_KIND: u8 = 1;

/// The store, its model, and what is needed to take steps.
struct Pair {
    folder: tempfile::TempDir,
    clock: Arc<ManualClock>,
    store: Arc<EmbeddedStore>,
    model: Model,
    /// The first version of each state key.
    first_versions: HashMap<&'static str, Version>,
    /// Numbers the values, so that no two are alike.
    values: u64,
}

fn project() -> ProjectName {
    ProjectName::parse("p").unwrap()
}

fn open(folder: &tempfile::TempDir, clock: &Arc<ManualClock>) -> Arc<EmbeddedStore> {
    // So few bytes that reads begin in memory or in the database, as it comes.
    let config = EmbeddedConfig {
        reserve_bytes: 0,
        tail_bytes: 1_000,
        ..EmbeddedConfig::new(folder.path())
    };
    Arc::new(EmbeddedStore::open(config, Arc::<ManualClock>::clone(clock)).unwrap())
}

/// The bytes that a record with this value takes.
fn encoded_bytes(value: &[u8]) -> u64 {
    let mut batch = RecordBatch::default();
    batch.push(&Record { value, ..Record::default() }).unwrap();
    batch.byte_len() as u64
}

impl Pair {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let clock = Arc::new(ManualClock::new(Timestamp(1_000_000)));
        let mut pair = Self {
            store: open(&folder, &clock),
            folder,
            clock,
            model: Model::default(),
            first_versions: HashMap::new(),
            values: 0,
        };
        let mut creating = Transaction::new(project());
        creating.topics.extend(TOPICS[..2].iter().map(|topic| TopicChange::Create(*topic)));
        pair.commit(creating).await;
        pair
    }

    async fn take(&mut self, step: Step) {
        match step {
            Step::Commit(change) => {
                let transaction = self.transaction(change);
                self.commit(transaction).await;
                self.check_state().await;
            }
            Step::Publish { appends, from_memory } => self.publish(appends, from_memory).await,
            Step::Trim(place, to) => self.trim(place, to).await,
            Step::Read(read) => self.read(&read).await,
            Step::MoveClock(by) => {
                self.clock.set(Timestamp(self.clock.now().0.saturating_add_signed(by)));
            }
            Step::Reopen => {
                self.store.close().await;
                self.store = open(&self.folder, &self.clock);
                self.check_all().await;
            }
            Step::Reclaim => {
                self.store.reclaim().unwrap();
                self.check_all().await;
            }
        }
    }

    fn transaction(&mut self, change: Change) -> Transaction {
        let Change { appends, state, condition, claim, topic } = change;
        let mut transaction = Transaction::new(project());
        for (place, values) in appends {
            transaction.appends.push(self.append(place, &values));
        }
        for (key, value) in state {
            match value {
                Some(value) => transaction.put(key, vec![value]),
                None => transaction.delete(key),
            };
        }
        if let Some((key, condition)) = condition {
            let current = self.model.state.get(key.as_bytes()).map(|(_, version)| *version);
            let first = self.first_versions.get(key).copied();
            let version = match condition {
                Condition::Absent => None,
                Condition::Current => current.or(first),
                Condition::First => first,
            };
            transaction.expect(key, version.map_or(Expected::Absent, Expected::Version));
        }
        transaction.producer = claim.map(|(id, claim)| self.producer_step(id, claim));
        transaction.topics.extend(topic.map(|topic| match topic {
            TopicStep::Create(topic) => TopicChange::Create(topic),
            TopicStep::Drop(topic) => TopicChange::Drop(topic),
        }));
        transaction
    }

    fn append(&mut self, (topic, partition): Place, values: &[Value]) -> Append {
        let mut batch = RecordBatch::default();
        let mut index = Vec::new();
        for (value, record) in values.iter().zip(0..) {
            self.values += 1;
            let mut bytes = format!("{}:", self.values).into_bytes();
            bytes.resize(bytes.len() + value.bytes, b'x');
            batch.push(&Record { value: &bytes, ..Record::default() }).unwrap();
            let entry =
                |key: &'static str| IndexEntry { kind: INDEX_KIND, key: key.into(), record };
            index.extend(value.index_key.map(entry));
        }
        Append { topic, partition, batch, index }
    }

    fn producer_step(&mut self, id: &str, claim: Claim) -> ProducerStep {
        let (epoch, committed) =
            self.model.producer(id).map_or((0, 0), |p| (p.epoch, p.receipts.len()));
        let (epoch, sequence) = match claim {
            Claim::Repeat(at) if committed > 0 => (epoch, at.index(committed)),
            Claim::NextEpoch => (epoch + 1, 0),
            Claim::EpochBefore if epoch > 0 => (epoch - 1, 0),
            Claim::Next | Claim::Repeat(_) | Claim::EpochBefore => (epoch, committed),
        };
        self.values += 1;
        ProducerStep {
            id: id.to_owned(),
            epoch,
            sequence: sequence as u64,
            payload_digest: None,
            expires: None,
            note: self.values.to_string().into(),
        }
    }

    async fn commit(&mut self, transaction: Transaction) {
        let outcome = self.store.commit(transaction.clone()).await;
        self.settle(&transaction, outcome).await;
    }

    /// Compares what came of a transaction with what has to.
    async fn settle(&mut self, transaction: &Transaction, outcome: Result<Receipt, CommitError>) {
        match (self.model.outcome(transaction), outcome) {
            (Outcome::Commit, Ok(receipt)) => {
                self.model.apply(transaction, &receipt, self.clock.now());
                self.learn_versions(transaction).await;
            }
            (Outcome::Repeat(expected), Ok(receipt)) => assert_eq!(receipt, expected),
            (Outcome::Refusal(expected), Err(refusal)) => assert_eq!(refusal, expected),
            (Outcome::Invalid, Err(CommitError::Invalid { .. })) => {}
            (_, outcome) => panic!("{transaction:?} became {outcome:?}"),
        }
    }

    /// Versions are opaque: the model takes over those that the store gave.
    async fn learn_versions(&mut self, transaction: &Transaction) {
        for write in &transaction.state {
            let Some(value) = &write.value else {
                self.model.state.remove(&*write.key);
                continue;
            };
            let versioned = self.store.get(&project(), &write.key).await.unwrap().unwrap();
            assert_eq!(versioned.value, value);
            let row = (value.to_vec(), versioned.version);
            let before = self.model.state.insert(write.key.to_vec(), row);
            assert!(before.is_none_or(|(_, version)| version != versioned.version));
            let key = step::STATE_KEYS.iter().find(|key| key.as_bytes() == write.key).unwrap();
            self.first_versions.entry(key).or_insert(versioned.version);
        }
    }

    /// Publishes at once, in the order given.
    async fn publish(&mut self, appends: Vec<(Place, Vec<Value>)>, from_memory: bool) {
        let ack = if from_memory { Ack::Memory } else { Ack::Durable };
        let mut begun = JoinSet::new();
        let mut transactions = Vec::new();
        for (number, (place, values)) in appends.into_iter().enumerate() {
            let appends = vec![self.append(place, &values)];
            let transaction = Transaction { ack, appends, ..Transaction::new(project()) };
            let (store, committing) = (Arc::clone(&self.store), transaction.clone());
            // On one thread, tasks begin in the order in which they were spawned.
            begun.spawn(async move { (number, store.commit(committing).await) });
            transactions.push(transaction);
        }
        let mut outcomes = begun.join_all().await;
        outcomes.sort_by_key(|(number, _)| *number);
        for (transaction, (_, outcome)) in transactions.iter().zip(outcomes) {
            assert!(outcome.as_ref().map_or(true, |receipt| receipt.durable || from_memory));
            self.settle(transaction, outcome).await;
        }
        if from_memory {
            // A synced transaction makes all before it durable.
            self.commit(Transaction::new(project())).await;
        }
    }

    async fn trim(&mut self, place: Place, to: TrimTo) {
        if !self.model.is_live(place.0) {
            return;
        }
        let log = self.model.log(place);
        let trim = match to {
            TrimTo::Before(at) => Trim::Before(at.index(log.end() + 1) as u64),
            TrimTo::BeyondEnd => Trim::Before(log.end() as u64 + 1),
            TrimTo::OlderThan(at) => Trim::OlderThan(Timestamp(time_of(&log, at).0 + 1)),
            TrimTo::KeepBytes(bytes) => Trim::KeepBytes(bytes),
        };
        let trimmed = self.store.trim(place.0, place.1, trim).await;
        let chosen = trimmed.as_ref().map_or(0, |bounds| usize::try_from(bounds.start).unwrap());
        let log = self.model.log_mut(place);
        let expected = log.trim(trim, chosen).map(|()| log.bounds());
        assert_eq!(trimmed, expected, "{trim:?}");
    }

    async fn read(&self, read: &Read) {
        let Read { place, ref start, records_max, bytes_max } = *read;
        let log = self.model.log(place);
        let start = match start {
            Start::Offset(at) => ReadStart::Offset(at.index(log.end() + 1) as u64),
            Start::BeyondEnd => ReadStart::Offset(log.end() as u64 + 1),
            Start::Time(at, more) => ReadStart::Time(Timestamp(time_of(&log, *at).0 + more)),
            Start::AfterCommit(at) => {
                let at = log.records.get(at.index(log.end() + 1));
                ReadStart::AfterCommit(at.map_or(CommitNumber(0), |record| record.commit))
            }
        };
        let (topic, partition) = place;
        self.compare(ReadRequest { topic, partition, start, records_max, bytes_max }).await;
    }

    /// Compares what a read brings with what it has to.
    async fn compare(&self, request: ReadRequest) {
        let ReadRequest { topic, partition, start, records_max, bytes_max } = request;
        let log = self.model.log((topic, partition));
        let resolved = if self.model.is_live(topic) {
            log.resolve(start)
        } else {
            Err(ReadError::TopicGone { topic })
        };
        let expected = resolved.map(|start| {
            let records = log.read(start, records_max, bytes_max);
            (values(&records), (start + records.len()) as u64, log.end() as u64)
        });
        let found = self.store.read(request).await;
        let found = found.map(|found| (found_values(&found), found.next_offset, found.end_offset));
        assert_eq!(found, expected, "{request:?}");
    }

    async fn check_state(&self) {
        let rows = self.store.scan(&project(), b"", None, usize::MAX).await.unwrap();
        let found = rows
            .into_iter()
            .map(|row| (row.key.to_vec(), (row.versioned.value.to_vec(), row.versioned.version)));
        assert!(found.eq(self.model.state.clone()));
    }

    async fn check_all(&self) {
        self.check_state().await;
        for topic in TOPICS {
            for partition in (0..PARTITIONS).map(Partition) {
                self.check_partition((topic, partition)).await;
            }
            for key in INDEX_KEYS.map(str::as_bytes) {
                let found = self.store.lookup(topic, INDEX_KIND, key, None, usize::MAX).await;
                let mut expected = self.model.positions(topic, key);
                assert_eq!(found.unwrap(), expected);
                expected.reverse();
                let back = self.store.lookup_back(topic, INDEX_KIND, key, None, usize::MAX).await;
                assert_eq!(back.unwrap(), expected);
            }
        }
        for id in PRODUCERS {
            self.check_producer(id).await;
        }
    }

    async fn check_partition(&self, place: Place) {
        let bounds = self.store.bounds(place.0, place.1).await.unwrap();
        if self.model.is_dropped(place.0) {
            assert_eq!((bounds.bytes, bounds.start), (0, bounds.end));
            return;
        }
        assert_eq!(bounds, self.model.log(place).bounds());
        let (topic, partition) = place;
        let (start, all) = (ReadStart::Offset(bounds.start), usize::MAX);
        let everything = ReadRequest { topic, partition, start, records_max: all, bytes_max: all };
        self.compare(everything).await;
    }

    async fn check_producer(&self, id: &str) {
        let state = self.store.producer(&project(), id).await.unwrap();
        let producer = self.model.producer(id);
        let expected = producer.map(|producer| ProducerState {
            epoch: producer.epoch,
            last_sequence: producer.receipts.len() as u64 - 1,
        });
        assert_eq!(state, expected);
        let Some(producer) = producer else { return };
        for (receipt, sequence) in producer.receipts.iter().zip(0..) {
            let found = self.store.receipt(&project(), id, producer.epoch, sequence).await.unwrap();
            assert_eq!(found, Some(Receipt { duplicate: true, ..receipt.clone() }));
        }
    }
}

/// The time of one of the records, trimmed ones too.
fn time_of(log: &Log, at: Index) -> Timestamp {
    if log.records.is_empty() { Timestamp(0) } else { at.get(&log.records).timestamp }
}

type Found = (CommitNumber, Timestamp, Vec<u8>);

fn values(records: &[Stored]) -> Vec<Found> {
    records.iter().map(|record| (record.commit, record.timestamp, record.value.clone())).collect()
}

/// The records as a model has them, after a check that their offsets are dense.
fn found_values(records: &Records) -> Vec<Found> {
    let mut found = Vec::new();
    let mut next = records.next_offset - records.count() as u64;
    for segment in &records.segments {
        assert!(segment.count() > 0);
        assert_eq!(segment.base_offset(), next);
        for record in segment.records() {
            let (offset, record) = record.unwrap();
            assert_eq!(offset, next);
            next += 1;
            found.push((segment.commit(), segment.timestamp(), record.value.to_vec()));
        }
    }
    assert_eq!(next, records.next_offset);
    found
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, max_shrink_iters: 500, ..ProptestConfig::default() })]

    #[test]
    fn the_store_does_what_the_model_does(steps in prop::collection::vec(step(), 1..60)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut pair = Pair::new().await;
            for step in steps {
                pair.take(step).await;
            }
            pair.check_all().await;
            pair.take(Step::Reopen).await;
        });
    }
}
