//! What a transaction must be before it may wait.

use std::collections::HashSet;

use crate::{CommitError, Limits, Transaction};

/// What an index entry takes besides its key.
const INDEX_ENTRY_BYTES: usize = 64;
/// What a transaction weighs in the queue besides its bytes.
const OVERHEAD_BYTES: usize = 256;

/// Checks the rules and limits of [`Transaction`], and returns what it weighs, in bytes.
pub(super) fn validate(transaction: &Transaction, limits: &Limits) -> Result<usize, CommitError> {
    let Transaction { producer, conditions, appends, state, topics, .. } = transaction;
    check_max("appends and state keys", appends.len() + state.len(), limits.writes_max)?;
    check_max("conditions", conditions.len(), limits.writes_max)?;
    check_max("topic changes", topics.len(), limits.writes_max)?;
    let mut bytes = OVERHEAD_BYTES;
    if let Some(step) = producer {
        if step.id.is_empty() {
            return Err(CommitError::Invalid { reason: "the producer's id is empty" });
        }
        check_max("producer id bytes", step.id.len(), PRODUCER_ID_BYTES_MAX)?;
        check_max("note bytes", step.note.len(), limits.note_bytes_max)?;
        bytes += step.id.len() + step.note.len();
    }
    let mut partitions = HashSet::with_capacity(appends.len());
    for append in appends {
        if append.batch.is_empty() {
            return Err(CommitError::Invalid { reason: "a batch is empty" });
        }
        if !partitions.insert((append.topic, append.partition)) {
            return Err(CommitError::Invalid { reason: "a partition appears twice" });
        }
        bytes += append.batch.byte_len();
        for entry in &append.index {
            if entry.record >= append.batch.count() {
                return Err(CommitError::Invalid { reason: "an index entry points at no record" });
            }
            check_max("index key bytes", entry.key.len(), limits.key_bytes_max)?;
            bytes += INDEX_ENTRY_BYTES + entry.key.len();
        }
    }
    let mut keys = HashSet::with_capacity(state.len());
    for write in state {
        check_key(&write.key, limits)?;
        if !keys.insert(&write.key) {
            return Err(CommitError::Invalid { reason: "a state key appears twice" });
        }
        bytes += write.key.len() + write.value.as_ref().map_or(0, bytes::Bytes::len);
    }
    for condition in conditions {
        check_key(&condition.key, limits)?;
        bytes += condition.key.len();
    }
    check_max("transaction bytes", bytes - OVERHEAD_BYTES, limits.bytes_max)?;
    Ok(bytes)
}

/// A producer's id is stored with a length of one byte.
const PRODUCER_ID_BYTES_MAX: usize = 255;

fn check_key(key: &[u8], limits: &Limits) -> Result<(), CommitError> {
    if key.is_empty() {
        return Err(CommitError::Invalid { reason: "a state key is empty" });
    }
    check_max("state key bytes", key.len(), limits.key_bytes_max)
}

fn check_max(limit: &'static str, got: usize, max: usize) -> Result<(), CommitError> {
    if got > max {
        return Err(CommitError::TooLarge { limit, got: got as u64, max: max as u64 });
    }
    Ok(())
}
