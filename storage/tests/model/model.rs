//! What the store should hold: vectors and maps, nothing clever.

use std::collections::{BTreeMap, HashMap};

use stream_storage::{
    Bounds, CommitError, CommitNumber, Expected, Partition, Position, ReadError, ReadStart,
    Receipt, Timestamp, TopicChange, TopicId, Transaction, Trim, TrimError, Version,
};

use crate::step::Place;

#[derive(Default)]
pub(crate) struct Model {
    topics: BTreeMap<TopicId, Topic>,
    /// Values and versions.
    pub(crate) state: BTreeMap<Vec<u8>, (Vec<u8>, Version)>,
    producers: HashMap<String, Producer>,
    last_commit: CommitNumber,
}

#[derive(Default)]
struct Topic {
    dropped: bool,
    partitions: BTreeMap<Partition, Log>,
}

/// A partition: all that was ever appended, and where it starts now.
#[derive(Debug, Clone, Default)]
pub(crate) struct Log {
    pub(crate) start: usize,
    pub(crate) records: Vec<Stored>,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Stored {
    pub(crate) value: Vec<u8>,
    pub(crate) bytes: u64,
    pub(crate) commit: CommitNumber,
    pub(crate) timestamp: Timestamp,
    pub(crate) index_key: Option<Vec<u8>>,
}

/// A producer's current epoch, with the receipt of each of its sequences.
#[derive(Debug, Default)]
pub(crate) struct Producer {
    pub(crate) epoch: u64,
    pub(crate) receipts: Vec<Receipt>,
}

/// What should come of a transaction.
pub(crate) enum Outcome {
    Commit,
    Repeat(Receipt),
    Refusal(CommitError),
    /// Whatever the reason says.
    Invalid,
}

impl Model {
    /// What has to come of a transaction whose sequence is not ahead.
    pub(crate) fn outcome(&self, transaction: &Transaction) -> Outcome {
        if let Some(step) = &transaction.producer
            && let Some(producer) = self.producers.get(&step.id)
        {
            if step.epoch < producer.epoch {
                return Outcome::Refusal(CommitError::Fenced { current: producer.epoch });
            }
            let repeated = usize::try_from(step.sequence).unwrap();
            if step.epoch == producer.epoch
                && let Some(receipt) = producer.receipts.get(repeated)
            {
                return Outcome::Repeat(Receipt { duplicate: true, ..receipt.clone() });
            }
        }
        for condition in &transaction.conditions {
            let version = self.state.get(&*condition.key).map(|(_, version)| *version);
            let expected = match condition.expected {
                Expected::Absent => None,
                Expected::Version(version) => Some(version),
            };
            if version != expected {
                return Outcome::Refusal(CommitError::Conflict { key: condition.key.clone() });
            }
        }
        self.topics_outcome(transaction)
    }

    fn topics_outcome(&self, transaction: &Transaction) -> Outcome {
        let mut created = None;
        for change in &transaction.topics {
            match *change {
                TopicChange::Create(topic) if self.topics.contains_key(&topic) => {
                    return Outcome::Invalid;
                }
                TopicChange::Create(topic) => created = Some(topic),
                TopicChange::Drop(topic) if !self.is_live(topic) => {
                    return Outcome::Refusal(CommitError::TopicGone { topic });
                }
                TopicChange::Drop(_) => {}
            }
        }
        let topics = transaction.appends.iter().map(|append| append.topic);
        match topics.into_iter().find(|topic| !self.is_live(*topic) && created != Some(*topic)) {
            Some(topic) => Outcome::Refusal(CommitError::TopicGone { topic }),
            None => Outcome::Commit,
        }
    }

    /// Applies what was committed, and checks its receipt.
    pub(crate) fn apply(&mut self, transaction: &Transaction, receipt: &Receipt, now: Timestamp) {
        assert!(receipt.commit > self.last_commit);
        assert!(!receipt.duplicate);
        assert_eq!(receipt.timestamp, now);
        assert_eq!(receipt.appends.len(), transaction.appends.len());
        self.last_commit = receipt.commit;
        for change in &transaction.topics {
            if let TopicChange::Create(topic) = change {
                self.topics.insert(*topic, Topic::default());
            }
        }
        for (append, appended) in transaction.appends.iter().zip(&receipt.appends) {
            assert_eq!((append.topic, append.partition), (appended.topic, appended.partition));
            let log = self.log_mut((append.topic, append.partition));
            assert_eq!(appended.base_offset, log.records.len() as u64);
            assert_eq!(appended.count, append.batch.count());
            let last = log.records.last().map(|record| record.timestamp);
            let timestamp = now.max(last.unwrap_or_default());
            assert_eq!(appended.timestamp, timestamp);
            for (record, number) in append.batch.records().map(Result::unwrap).zip(0..) {
                let index_key = append.index.iter().find(|entry| entry.record == number);
                let value = record.1.value.to_vec();
                log.records.push(Stored {
                    bytes: crate::encoded_bytes(&value),
                    value,
                    commit: receipt.commit,
                    timestamp,
                    index_key: index_key.map(|entry| entry.key.to_vec()),
                });
            }
        }
        for change in &transaction.topics {
            if let TopicChange::Drop(topic) = change {
                self.topics.entry(*topic).or_default().dropped = true;
            }
        }
        if let Some(step) = &transaction.producer {
            assert_eq!(receipt.note, step.note);
            let producer = self.producers.entry(step.id.clone()).or_default();
            if producer.epoch != step.epoch {
                *producer = Producer { epoch: step.epoch, receipts: Vec::new() };
            }
            producer.receipts.push(receipt.clone());
        }
    }

    pub(crate) fn producer(&self, id: &str) -> Option<&Producer> {
        self.producers.get(id)
    }

    pub(crate) fn is_live(&self, topic: TopicId) -> bool {
        self.topics.get(&topic).is_some_and(|topic| !topic.dropped)
    }

    pub(crate) fn is_dropped(&self, topic: TopicId) -> bool {
        self.topics.get(&topic).is_some_and(|topic| topic.dropped)
    }

    pub(crate) fn log(&self, (topic, partition): Place) -> Log {
        let log = self.topics.get(&topic).and_then(|topic| topic.partitions.get(&partition));
        log.cloned().unwrap_or_default()
    }

    pub(crate) fn log_mut(&mut self, (topic, partition): Place) -> &mut Log {
        self.topics.entry(topic).or_default().partitions.entry(partition).or_default()
    }

    /// Where the records with an index key lie.
    pub(crate) fn positions(&self, topic: TopicId, key: &[u8]) -> Vec<Position> {
        let Some(topic) = self.topics.get(&topic).filter(|topic| !topic.dropped) else {
            return Vec::new();
        };
        let found = topic.partitions.iter().flat_map(|(partition, log)| {
            let records = log.records.iter().zip(0..).skip(log.start);
            let matching = records.filter(|(record, _)| record.index_key.as_deref() == Some(key));
            matching.map(|(_, offset)| Position { partition: *partition, offset })
        });
        found.collect()
    }
}

impl Log {
    pub(crate) fn end(&self) -> usize {
        self.records.len()
    }

    pub(crate) fn bounds(&self) -> Bounds {
        Bounds {
            start: self.start as u64,
            end: self.end() as u64,
            bytes: self.bytes_from(self.start),
            last_timestamp: self.records.last().map(|record| record.timestamp),
            last_commit: self.records.last().map(|record| record.commit).unwrap_or_default(),
        }
    }

    pub(crate) fn bytes_from(&self, start: usize) -> u64 {
        self.records.iter().skip(start).map(|record| record.bytes).sum()
    }

    /// The first offset that can be read and for which `holds` is true of the record.
    fn first(&self, holds: impl Fn(&Stored) -> bool) -> usize {
        let records = self.records.iter().enumerate().skip(self.start);
        records.into_iter().find(|(_, record)| holds(record)).map_or(self.end(), |(at, _)| at)
    }

    /// Where a read starts.
    pub(crate) fn resolve(&self, start: ReadStart) -> Result<usize, ReadError> {
        let trimmed = Err(ReadError::Trimmed { earliest: self.start as u64 });
        match start {
            ReadStart::Offset(offset) if offset < self.start as u64 => trimmed,
            ReadStart::Offset(offset) if offset > self.end() as u64 => {
                Err(ReadError::BeyondEnd { end: self.end() as u64 })
            }
            ReadStart::Offset(offset) => Ok(usize::try_from(offset).unwrap()),
            ReadStart::Time(time) => Ok(self.first(|record| record.timestamp >= time)),
            ReadStart::AfterCommit(commit) => {
                let gone = self.records.iter().take(self.start);
                if gone.into_iter().any(|record| record.commit > commit) {
                    trimmed
                } else {
                    Ok(self.first(|record| record.commit > commit))
                }
            }
        }
    }

    /// What a read from `start` brings.
    pub(crate) fn read(&self, start: usize, records_max: usize, bytes_max: usize) -> Vec<Stored> {
        let mut bytes = 0;
        let mut found: Vec<Stored> = Vec::new();
        for record in self.records.iter().skip(start).take(records_max) {
            bytes += usize::try_from(record.bytes).unwrap();
            if bytes > bytes_max && !found.is_empty() {
                break;
            }
            found.push(record.clone());
        }
        found
    }

    /// Trims, where the engine is free to choose to `chosen`.
    pub(crate) fn trim(&mut self, trim: Trim, chosen: usize) -> Result<(), TrimError> {
        let to = match trim {
            Trim::Before(offset) if offset > self.end() as u64 => {
                return Err(TrimError::BeyondEnd { end: self.end() as u64 });
            }
            Trim::Before(offset) => usize::try_from(offset).unwrap(),
            Trim::OlderThan(time) => self.first(|record| record.timestamp >= time),
            Trim::KeepBytes(keep) => {
                let enough = self.bytes_from(chosen) >= keep.min(self.bytes_from(self.start));
                assert!(enough, "too much is trimmed");
                let commit = |at: usize| self.records.get(at).map(|record| record.commit);
                let between =
                    chosen.checked_sub(1).is_none_or(|last| commit(last) != commit(chosen));
                assert!(chosen == self.start || between, "a transaction is cut");
                chosen
            }
        };
        self.start = self.start.max(to);
        Ok(())
    }
}
