//! A lot: transactions that are checked in order, each seeing those before it, and become one
//! write. Nothing in here is shared or durable before [`Lot::finish`] is written.

use std::collections::{BTreeSet, HashMap, HashSet};

use bytes::Bytes;
use fjall::{Keyspace, OwnedWriteBatch};

use super::ends::Ends;
use super::engine::Engine;
use super::entries::PartitionAppends;
use super::gone::Gone;
use super::keys::commit::LastCommit;
use super::keys::end::End;
use super::keys::producer::{self, Producer};
use super::keys::receipt::{self, StoredReceipt};
use super::keys::topic::{self, Life};
use super::keys::trim::{self, TrimPoint};
use super::keys::{PartitionKey, TRIMMED_KEY, commit, end, index, log, state};
use super::staged::{Staged, StagedAppend};
use super::tail::TailEntry;
use crate::entry::Section;
use crate::{
    Ack, Appended, CommitError, CommitNumber, Condition, Expected, Position, ProducerState,
    ProducerStep, ProjectName, Receipt, StoreError, Timestamp, TopicChange, TopicId, Transaction,
    Version, Watch,
};

/// What a lot stands on.
pub(super) struct Ground<'a> {
    pub(super) engine: &'a Engine,
    pub(super) ends: &'a Ends,
    pub(super) gone: &'a Gone,
    /// Ends that are written and not synced yet.
    pub(super) unsynced: &'a HashMap<PartitionKey, End>,
    pub(super) last_commit: CommitNumber,
    pub(super) now: Timestamp,
}

impl Ground<'_> {
    /// Where a partition ends, synced or not.
    fn end(&self, partition: PartitionKey) -> End {
        let unsynced = self.unsynced.get(&partition).copied();
        unsynced.unwrap_or_else(|| self.ends.get(partition))
    }
}

/// The transactions so far.
pub(super) struct Lot<'a> {
    ground: Ground<'a>,
    last_commit: CommitNumber,
    /// Rows of `meta` as this lot leaves them.
    meta: HashMap<Vec<u8>, Option<Bytes>>,
    ends: HashMap<PartitionKey, End>,
    appends: HashMap<PartitionKey, PartitionAppends>,
    index: Vec<Vec<u8>>,
    sync: bool,
    effects: Effects,
}

/// What readers learn once the lot is durable.
#[derive(Debug, Default)]
pub(super) struct Effects {
    pub(super) ends: HashMap<PartitionKey, End>,
    /// In order of each partition.
    pub(super) entries: Vec<(PartitionKey, TailEntry)>,
    pub(super) trims: Vec<(PartitionKey, TrimPoint)>,
    pub(super) topics: Vec<(TopicId, Life)>,
    pub(super) watches: HashSet<Watch>,
    pub(super) commits: u64,
    pub(super) records: u64,
    pub(super) record_bytes: u64,
}

/// A finished lot.
pub(super) struct Write {
    pub(super) batch: OwnedWriteBatch,
    /// Whether something in it must be synced before it is answered.
    pub(super) sync: bool,
    pub(super) last_commit: CommitNumber,
    pub(super) effects: Effects,
}

/// What came of a transaction.
pub(super) enum Outcome {
    Committed(Receipt),
    Refused(CommitError),
    /// Its producer's sequence is ahead: it may wait for the ones between.
    Early {
        expected: u64,
    },
}

impl<'a> Lot<'a> {
    pub(super) fn new(ground: Ground<'a>) -> Self {
        Self {
            last_commit: ground.last_commit,
            ground,
            meta: HashMap::new(),
            ends: HashMap::new(),
            appends: HashMap::new(),
            index: Vec::new(),
            sync: false,
            effects: Effects::default(),
        }
    }

    /// Checks a transaction against the store and the lot so far, and adds it or leaves the lot as
    /// it was.
    pub(super) fn add(&mut self, staged: &mut Staged) -> Outcome {
        match self.check(staged) {
            Ok(None) => Outcome::Committed(self.apply(staged)),
            Ok(Some(outcome)) => outcome,
            Err(error) => Outcome::Refused(error),
        }
    }

    /// Moves a partition's trim point forward.
    pub(super) fn trim(
        &mut self,
        partition: PartitionKey,
        point: TrimPoint,
    ) -> Result<(), CommitError> {
        self.check_topic(partition.0)?;
        let key = trim::key(partition).to_vec();
        let stored = self.row(&key).and_then(|row| decode_row(row.as_ref(), TrimPoint::decode));
        let current = stored?.unwrap_or_default();
        if point.offset > current.offset {
            self.meta.insert(key, Some(point.encode().into()));
            self.effects.trims.push((partition, point));
            self.effects.watches.insert(Watch::Topic(partition.0));
            self.sync = true;
        }
        Ok(())
    }

    /// Deletes a producer and its receipts if it has expired.
    pub(super) fn forget_producer(
        &mut self,
        expiry_key: Vec<u8>,
        producer_key: Vec<u8>,
    ) -> Result<(), StoreError> {
        let row = self.row(&producer_key)?;
        let stored = decode_row(row.as_ref(), Producer::decode)?;
        if stored.is_some_and(|producer| producer.is_expired(self.ground.now)) {
            for guard in self.ground.engine.meta.prefix(receipt::prefix_of(&producer_key)) {
                self.meta.insert(guard.key()?.to_vec(), None);
            }
            self.meta.insert(producer_key, None);
        }
        self.meta.insert(expiry_key, None);
        Ok(())
    }

    /// Deletes the ends and trim points of a dropped topic whose records are gone from the disk.
    pub(super) fn forget_topic(&mut self, topic: TopicId) -> Result<(), StoreError> {
        let rows = [end::topic_prefix(topic), trim::topic_prefix(topic)];
        for guard in rows.iter().flat_map(|prefix| self.ground.engine.meta.prefix(prefix)) {
            self.meta.insert(guard.key()?.to_vec(), None);
        }
        self.set_life(topic, Life::Reclaimed);
        Ok(())
    }

    /// Makes one write of it; `None` if there is nothing to write.
    pub(super) fn finish(mut self) -> Option<Write> {
        if self.meta.is_empty() && self.appends.is_empty() && self.effects.commits == 0 {
            return None;
        }
        let engine = self.ground.engine;
        let rows = self.meta.len() + 2 * self.appends.len() + self.index.len() + 1;
        let mut batch = OwnedWriteBatch::with_capacity(engine.db.clone(), rows);
        for (partition, appends) in self.appends {
            for entry in appends.into_entries() {
                let key = log::key(partition, entry.end - 1).to_vec();
                batch.insert(engine.log(partition), key, entry.bytes.clone());
                self.effects.entries.push((partition, entry));
            }
        }
        for (partition, end) in &self.ends {
            batch.insert(&engine.meta, end::key(*partition).to_vec(), end.encode());
        }
        for entry in self.index {
            batch.insert(&engine.index, entry, Bytes::new());
        }
        for (key, value) in self.meta {
            match value {
                Some(value) => batch.insert(&engine.meta, key, value),
                None => batch.remove(&engine.meta, key),
            }
        }
        for keyspace in self.effects.keyspaces_to_reclaim(engine) {
            batch.insert(keyspace, TRIMMED_KEY, Bytes::new());
        }
        // A lot of trims or chores takes a number too, so that each lot is a link of the chain.
        let previous = self.ground.last_commit;
        let last = self.last_commit.max(CommitNumber(previous.0 + 1));
        let row = LastCommit { last, previous };
        batch.insert(&engine.meta, commit::KEY.to_vec(), row.encode().to_vec());
        self.effects.ends = self.ends;
        Some(Write { batch, sync: self.sync, last_commit: last, effects: self.effects })
    }

    /// Everything that may refuse a transaction.
    fn check(&mut self, staged: &Staged) -> Result<Option<Outcome>, CommitError> {
        let Staged { transaction, appends } = staged;
        if let Some(step) = &transaction.producer {
            let outcome = self.check_producer(&transaction.project, step)?;
            if outcome.is_some() {
                return Ok(outcome);
            }
        }
        for condition in &transaction.conditions {
            self.check_condition(&transaction.project, condition)?;
        }
        for change in &transaction.topics {
            match *change {
                TopicChange::Create(topic) => {
                    let row = self.topic_row(topic)?;
                    if row.is_some() {
                        return Err(CommitError::Invalid { reason: "the topic id is in use" });
                    }
                }
                TopicChange::Drop(topic) => self.check_topic(topic)?,
            }
        }
        for StagedAppend { topic, .. } in appends {
            if !transaction.topics.contains(&TopicChange::Create(*topic)) {
                self.check_topic(*topic)?;
            }
        }
        Ok(None)
    }

    fn check_producer(
        &self,
        project: &ProjectName,
        step: &ProducerStep,
    ) -> Result<Option<Outcome>, CommitError> {
        let row = self.row(&producer::key(project, &step.id));
        let stored = row.and_then(|row| decode_row(row.as_ref(), Producer::decode));
        let current = stored?
            .filter(|producer| !producer.is_expired(self.ground.now))
            .map(|producer| producer.state);
        let ProducerStep { epoch, sequence, .. } = *step;
        let expected = match current {
            Some(ProducerState { epoch: current, .. }) if epoch < current => {
                return Err(CommitError::Fenced { current });
            }
            Some(state) if epoch == state.epoch => {
                if sequence <= state.last_sequence {
                    return self.repeat(project, step).map(Some);
                }
                state.last_sequence + 1
            }
            _ => 0,
        };
        Ok((sequence != expected).then_some(Outcome::Early { expected }))
    }

    /// The receipt of a sequence that was committed before.
    fn repeat(&self, project: &ProjectName, step: &ProducerStep) -> Result<Outcome, CommitError> {
        let row = self.row(&receipt::key(project, &step.id, step.sequence));
        let stored = row
            .and_then(|row| decode_row(row.as_ref(), StoredReceipt::decode))?
            .filter(|stored| stored.epoch == step.epoch && stored.sequence == step.sequence);
        let Some(stored) = stored else {
            return Ok(Outcome::Committed(forgotten_receipt()));
        };
        if step.payload_digest.is_some() && stored.payload_digest != step.payload_digest {
            return Err(CommitError::PayloadMismatch);
        }
        Ok(Outcome::Committed(Receipt { duplicate: true, ..stored.receipt }))
    }

    fn check_condition(
        &self,
        project: &ProjectName,
        condition: &Condition,
    ) -> Result<(), CommitError> {
        let row = self.row(&state::key(project, &condition.key));
        let stored = row.and_then(|row| {
            row.as_ref().map(state::decode).transpose().map_err(StoreError::from)
        })?;
        let holds = match (condition.expected, stored) {
            (Expected::Absent, None) => true,
            (Expected::Version(version), Some(stored)) => stored.version == version,
            _ => false,
        };
        if holds { Ok(()) } else { Err(CommitError::Conflict { key: condition.key.clone() }) }
    }

    fn check_topic(&self, topic: TopicId) -> Result<(), CommitError> {
        let is_live = match self.meta.get(topic::key(topic).as_slice()) {
            Some(row) => decode_row(row.as_ref(), Life::decode)? == Some(Life::Live),
            None => self.ground.gone.is_live(topic),
        };
        if is_live { Ok(()) } else { Err(CommitError::TopicGone { topic }) }
    }

    fn topic_row(&self, topic: TopicId) -> Result<Option<Life>, CommitError> {
        let row = self.row(&topic::key(topic));
        Ok(row.and_then(|row| decode_row(row.as_ref(), Life::decode))?)
    }

    /// A row of `meta` as the lot leaves it.
    fn row(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        match self.meta.get(key) {
            Some(row) => Ok(row.clone()),
            None => self.ground.engine.meta(key),
        }
    }

    fn apply(&mut self, staged: &mut Staged) -> Receipt {
        let Staged { transaction, appends } = staged;
        self.last_commit = CommitNumber(self.last_commit.0 + 1);
        let commit = self.last_commit;
        self.sync |= !may_be_lost(transaction);
        let appends = appends.drain(..).map(|append| self.append(append)).collect();
        if !transaction.state.is_empty() {
            self.effects.watches.insert(Watch::State(transaction.project.clone()));
        }
        for write in transaction.state.drain(..) {
            let row = write.value.map(|value| state::encode(Version(commit.0), &value).into());
            self.meta.insert(state::key(&transaction.project, &write.key), row);
        }
        for change in transaction.topics.drain(..) {
            self.change_topic(change);
        }
        let durable = true;
        let timestamp = self.ground.now;
        let mut receipt =
            Receipt { commit, timestamp, appends, duplicate: false, durable, note: Bytes::new() };
        if let Some(step) = transaction.producer.take() {
            receipt.note = step.note.clone();
            self.record_step(&transaction.project, &step, &receipt);
        }
        self.effects.commits += 1;
        receipt
    }

    fn append(&mut self, append: StagedAppend) -> Appended {
        let (count, bytes) = (append.count(), append.byte_len() as u64);
        let StagedAppend { topic, partition, parts, index: entries } = append;
        let place = (topic, partition);
        let end = self.ends.entry(place).or_insert_with(|| self.ground.end(place));
        let start = *end;
        let timestamp = self.ground.now.max(start.timestamp);
        *end = End {
            offset: start.offset + u64::from(count),
            bytes: start.bytes + bytes,
            timestamp,
            commit: self.last_commit,
        };
        for entry in entries {
            let offset = start.offset + u64::from(entry.record);
            let prefix = index::prefix(topic, entry.kind, &entry.key);
            self.index.push(index::entry(prefix, Position { partition, offset }));
        }
        let section = Section { commit: self.last_commit, timestamp, count };
        self.appends
            .entry(place)
            .or_insert_with(|| PartitionAppends::new(start))
            .push(parts, section);
        self.effects.watches.insert(Watch::Topic(topic));
        self.effects.records += u64::from(count);
        self.effects.record_bytes += bytes;
        Appended { topic, partition, base_offset: start.offset, count, timestamp }
    }

    fn change_topic(&mut self, change: TopicChange) {
        match change {
            TopicChange::Create(topic) => self.set_life(topic, Life::Live),
            TopicChange::Drop(topic) => {
                self.effects.watches.insert(Watch::Topic(topic));
                self.set_life(topic, Life::Dropped);
            }
        }
    }

    fn set_life(&mut self, topic: TopicId, life: Life) {
        self.meta.insert(topic::key(topic).to_vec(), Some(Bytes::copy_from_slice(&life.encode())));
        self.effects.topics.push((topic, life));
    }

    fn record_step(&mut self, project: &ProjectName, step: &ProducerStep, receipt: &Receipt) {
        let ProducerStep { epoch, sequence, expires, .. } = *step;
        let producer =
            Producer { state: ProducerState { epoch, last_sequence: sequence }, expires };
        let key = producer::key(project, &step.id);
        if let Some(expires) = expires {
            self.meta.insert(producer::expiry_key(expires, &key), Some(Bytes::new()));
        }
        self.meta.insert(key, Some(producer.encode().into()));
        let stored = StoredReceipt::new(step, receipt.clone());
        let key = receipt::key(project, &step.id, sequence);
        self.meta.insert(key, Some(stored.encode().into()));
    }
}

impl Effects {
    /// The keyspaces of which entries may be destroyed from here on.
    fn keyspaces_to_reclaim<'a>(&self, engine: &'a Engine) -> Vec<&'a Keyspace> {
        let logs: Vec<&Keyspace> = if self.topics.iter().all(|(_, life)| *life != Life::Dropped) {
            let shards: BTreeSet<usize> =
                self.trims.iter().map(|(partition, _)| log::shard(*partition)).collect();
            shards.iter().filter_map(|shard| engine.logs().get(*shard)).collect()
        } else {
            engine.logs().iter().collect()
        };
        let index = (!logs.is_empty()).then_some(&engine.index);
        logs.into_iter().chain(index).collect()
    }
}

/// Whether a transaction may be answered before it is synced: it asked for it, and holds nothing
/// but records.
fn may_be_lost(transaction: &Transaction) -> bool {
    transaction.ack == Ack::Memory
        && transaction.producer.is_none()
        && transaction.conditions.is_empty()
        && transaction.state.is_empty()
        && transaction.topics.is_empty()
}

/// The answer to a repeat that is older than the kept receipts.
fn forgotten_receipt() -> Receipt {
    Receipt {
        commit: CommitNumber(0),
        timestamp: Timestamp(0),
        appends: Vec::new(),
        duplicate: true,
        durable: true,
        note: Bytes::new(),
    }
}

fn decode_row<T>(
    row: Option<&Bytes>,
    decode: impl Fn(&[u8]) -> Result<T, crate::DecodeError>,
) -> Result<Option<T>, StoreError> {
    Ok(row.map(|row| decode(row)).transpose()?)
}
