//! A ledger in the state of its project.
//!
//! | key | value |
//! | --- | --- |
//! | `ledger/{ledger}` | its origin and its keys, the private one sealed |
//! | `ledger-head/{ledger}` | the index that the next entry gets; every append is conditioned on it |
//! | `ledger-batch/{ledger}/{first index}` | entries that are sequenced and not integrated yet |
//! | `ledger-tree/{ledger}` | the last published and the last signed tree |
//! | `ledger-place/{ledger}/{topic}/{topic id}/{partition}/{block}` | which index has an offset, of 1,024 offsets |
//! | `ledger-id/{ledger}/` digest, topic id | which index has the event of this id: the newest that it had |
//!
//! Numbers are hexadecimal of fixed width, so that keys are in their order; those of `ledger-id` are
//! bytes. Whoever writes any of these but `ledger-tree` writes the head too, under the condition that
//! it is as it was read: so what is read after the head still holds when the transaction does.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use stream_storage::{StoreError, TopicId};

use super::Source;
use super::entry::Leaf;
use super::merkle::Mark;
use crate::name::{LedgerName, TopicName};
use crate::state;

/// What the keys of ledgers start with.
pub(super) const PREFIX: &str = "ledger/";

/// Offsets of a place row.
const BLOCK: u64 = 1_024;

/// Bytes of a batch row: more than one entry only up to this.
const BATCH_BYTES: usize = 1 << 20;

/// Says how a batch row is laid out.
const BATCH_VERSION: u8 = 1;

/// A ledger's own row.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct StoredLedger {
    pub(super) origin: String,
    /// The verifier key.
    pub(super) vkey: String,
    /// The private key, sealed.
    pub(super) sealed_key: String,
    /// Milliseconds since 1970.
    pub(super) created_at: u64,
}

/// How far a ledger is sequenced.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Head {
    /// The index of the next entry.
    pub(super) next: u64,
    /// Bytes of all batch rows there ever were.
    pub(super) bytes: u64,
}

/// How far a ledger is integrated.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Tree {
    /// The last tree whose checkpoint is known to be published.
    pub(super) published: Option<Mark>,
    /// The last tree that was signed, or is about to be.
    pub(super) signed: Option<Mark>,
    /// Bytes of the batch rows that are integrated.
    pub(super) bytes: u64,
}

impl Tree {
    /// The published tree.
    pub(super) fn mark(&self) -> Mark {
        self.published.unwrap_or_else(Mark::empty)
    }
}

pub(super) fn ledger(name: &LedgerName) -> String {
    format!("{PREFIX}{name}")
}

pub(super) fn head(name: &LedgerName) -> String {
    format!("ledger-head/{name}")
}

pub(super) fn tree(name: &LedgerName) -> String {
    format!("ledger-tree/{name}")
}

pub(super) fn batches(name: &LedgerName) -> String {
    format!("ledger-batch/{name}/")
}

pub(super) fn batch(name: &LedgerName, first: u64) -> String {
    format!("ledger-batch/{name}/{first:016x}")
}

/// The first index of a batch row.
pub(super) fn first_of(name: &LedgerName, key: &[u8]) -> Result<u64, StoreError> {
    let first = state::name_in(key, &batches(name));
    u64::from_str_radix(&first, 16).map_err(|_| StoreError::Corrupt {
        reason: format!("state key `{}`", String::from_utf8_lossy(key)),
    })
}

/// What the places of a topic start with: of all topics there ever were of this name.
pub(super) fn places(name: &LedgerName, topic: &TopicName) -> String {
    format!("ledger-place/{name}/{topic}/")
}

/// What the places of one of these topics start with; `~` comes behind them.
pub(super) fn places_of(name: &LedgerName, topic: &TopicName, id: TopicId) -> String {
    format!("{}{:016x}/", places(name, topic), id.0)
}

/// The place row of an offset.
pub(super) fn place(name: &LedgerName, source: &Source) -> String {
    let Source { topic, slot, offset } = source;
    let topic = places_of(name, topic, slot.topic);
    format!("{topic}{:08x}/{:016x}", slot.partition.0, offset / BLOCK)
}

/// What the rows of an event id start with.
pub(super) fn ids(name: &LedgerName, id: &str) -> Vec<u8> {
    let mut key = format!("ledger-id/{name}/").into_bytes();
    key.extend(Sha256::digest(id).iter().take(16));
    key
}

/// The row of an event id in a topic.
pub(super) fn id(name: &LedgerName, id: &str, topic: TopicId) -> Bytes {
    let mut key = ids(name, id);
    key.extend(topic.0.to_be_bytes());
    key.into()
}

/// Which indexes have the offsets of a block: runs of (first offset in the block, first index, count).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Place(Vec<(u64, u64, u64)>);

impl Place {
    /// The index of the entry of this offset.
    pub(super) fn index(&self, offset: u64) -> Option<u64> {
        let within = offset % BLOCK;
        let after = self.0.partition_point(|(first, ..)| *first <= within);
        let (first, index, count) = self.0.get(after.checked_sub(1)?)?;
        (within - first < *count).then(|| index + (within - first))
    }

    /// Notes the index of an offset that has none.
    pub(super) fn insert(&mut self, offset: u64, index: u64) {
        let within = offset % BLOCK;
        let after = self.0.partition_point(|(first, ..)| *first <= within);
        let before = after.checked_sub(1).and_then(|before| self.0.get_mut(before));
        match before {
            Some((first, start, count))
                if *first + *count == within && *start + *count == index =>
            {
                *count += 1;
            }
            _ => self.0.insert(after, (within, index, 1)),
        }
    }
}

/// Entries on their way into batch rows.
#[derive(Debug, Default)]
pub(super) struct Batches {
    rows: Vec<(u64, BytesMut)>,
}

impl Batches {
    /// Adds the entry of this index, which follows on the one before.
    pub(super) fn push(&mut self, index: u64, leaf: &Leaf) {
        let bytes = 8 + leaf.entry.len() + leaf.data.len();
        let fits = |row: &BytesMut| row.len() + bytes <= BATCH_BYTES;
        if !self.rows.last().is_some_and(|(_, row)| fits(row)) {
            self.rows.push((index, BytesMut::from(&[BATCH_VERSION][..])));
        }
        if let Some((_, row)) = self.rows.last_mut() {
            for part in [&leaf.entry, &leaf.data] {
                row.put_u32(u32::try_from(part.len()).unwrap_or(u32::MAX));
                row.put_slice(part);
            }
        }
    }

    /// The first index of each row, and its value.
    pub(super) fn finish(self) -> impl Iterator<Item = (u64, Bytes)> {
        self.rows.into_iter().map(|(first, row)| (first, row.freeze()))
    }
}

/// The entries of a batch row.
pub(super) fn leaves(row: &Bytes) -> Result<Vec<Leaf>, StoreError> {
    let damaged = || StoreError::Corrupt { reason: "a batch of a ledger's entries".to_owned() };
    let mut rest = row.clone();
    if !rest.has_remaining() || rest.get_u8() != BATCH_VERSION {
        return Err(damaged());
    }
    let part = |rest: &mut Bytes| {
        let length = rest.try_get_u32().map_err(|_| damaged())?;
        let length = usize::try_from(length).map_err(|_| damaged())?;
        if length > rest.len() { Err(damaged()) } else { Ok(rest.split_to(length)) }
    };
    let mut leaves = Vec::new();
    while rest.has_remaining() {
        leaves.push(Leaf { entry: part(&mut rest)?, data: part(&mut rest)? });
    }
    Ok(leaves)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    proptest! {
        #[test]
        fn a_place_knows_what_was_noted(offsets in proptest::collection::vec(0_u64..1_024, 0..300)) {
            let (mut place, mut model) = (Place::default(), BTreeMap::new());
            for (index, offset) in offsets.into_iter().enumerate() {
                if place.index(5 * BLOCK + offset).is_none() {
                    place.insert(5 * BLOCK + offset, index as u64);
                    model.insert(offset, index as u64);
                }
            }
            for offset in 0..BLOCK {
                prop_assert_eq!(place.index(offset), model.get(&offset).copied());
            }
        }

        #[test]
        fn batches_read_back_as_they_were_pushed(
            sizes in proptest::collection::vec((0_usize..600_000, 0_usize..600_000), 0..12),
        ) {
            let leaf = |(entry, data): &(usize, usize)| Leaf {
                entry: vec![1; *entry].into(),
                data: vec![2; *data].into(),
            };
            let leaves: Vec<Leaf> = sizes.iter().map(leaf).collect();
            let mut batches = Batches::default();
            for (index, leaf) in leaves.iter().enumerate() {
                batches.push(7 + index as u64, leaf);
            }
            let mut read = Vec::new();
            for (first, row) in batches.finish() {
                prop_assert_eq!(first, 7 + read.len() as u64);
                prop_assert!(super::leaves(&row.slice(..row.len() - 1)).is_err() || row.len() == 1);
                read.extend(super::leaves(&row).unwrap());
            }
            prop_assert_eq!(read, leaves);
        }
    }

    #[test]
    fn a_long_run_of_offsets_takes_one_run() {
        let mut place = Place::default();
        for offset in 0..BLOCK {
            place.insert(offset, 70 + offset);
        }
        assert_eq!(place, Place(vec![(0, 70, BLOCK)]));
    }
}
