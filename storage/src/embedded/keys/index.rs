//! Index entries: which records were given with a key.

use super::PartitionKey;
use super::cursor::Cursor;
use crate::{DecodeError, Partition, Position, TopicId};

/// What the entries of one index key start with. `key` has at most 1 KiB.
pub(in crate::embedded) fn prefix(topic: TopicId, kind: u8, key: &[u8]) -> Vec<u8> {
    let mut prefix = Vec::with_capacity(11 + key.len() + 12);
    prefix.extend_from_slice(&topic.0.to_be_bytes());
    prefix.push(kind);
    prefix.extend_from_slice(&u16::try_from(key.len()).unwrap_or(u16::MAX).to_be_bytes());
    prefix.extend_from_slice(key);
    prefix
}

/// The entry of one record: `prefix` and the record's position.
pub(in crate::embedded) fn entry(mut prefix: Vec<u8>, position: Position) -> Vec<u8> {
    prefix.extend_from_slice(&position.partition.0.to_be_bytes());
    prefix.extend_from_slice(&position.offset.to_be_bytes());
    prefix
}

/// The record that an entry points at.
pub(in crate::embedded) fn parse(entry: &[u8]) -> Result<(PartitionKey, u64), DecodeError> {
    let mut cursor = Cursor::new(entry, "index entry");
    let topic = TopicId(cursor.u64_be()?);
    let position = entry.len().checked_sub(8 + 12).ok_or(DecodeError { what: "index entry" })?;
    cursor.bytes(position)?;
    let partition = Partition(cursor.u32_be()?);
    let offset = cursor.u64_be()?;
    Ok(((topic, partition), offset))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_leads_to_its_record() {
        let position = Position { partition: Partition(3), offset: 4 };
        let entry = entry(prefix(TopicId(1), 2, b"key"), position);
        assert_eq!(parse(&entry), Ok(((TopicId(1), Partition(3)), 4)));
        assert!(parse(b"short").is_err());
    }

    #[test]
    fn keys_that_start_alike_are_apart() {
        assert!(!prefix(TopicId(1), 2, b"ab").starts_with(&prefix(TopicId(1), 2, b"a")));
    }
}
