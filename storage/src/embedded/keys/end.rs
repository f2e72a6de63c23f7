//! A partition's end: what its next record gets.

use super::cursor::Cursor;
use super::{PartitionKey, parse_partition_key, partition_key};
use crate::{CommitNumber, DecodeError, Timestamp, TopicId};

/// Where a partition ends. All but `offset` are of the last record, or 0 before the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(in crate::embedded) struct End {
    /// The offset of the next record.
    pub(in crate::embedded) offset: u64,
    /// Bytes of encoded records ever appended.
    pub(in crate::embedded) bytes: u64,
    pub(in crate::embedded) timestamp: Timestamp,
    pub(in crate::embedded) commit: CommitNumber,
}

/// What all ends start with.
pub(in crate::embedded) const PREFIX: [u8; 1] = [super::END];

pub(in crate::embedded) fn key(partition: PartitionKey) -> [u8; 13] {
    partition_key(super::END, partition)
}

pub(in crate::embedded) fn parse_key(key: &[u8]) -> Result<PartitionKey, DecodeError> {
    parse_partition_key(key)
}

/// What the ends of all partitions of a topic start with.
pub(in crate::embedded) fn topic_prefix(topic: TopicId) -> [u8; 9] {
    super::topic::tagged(super::END, topic)
}

impl End {
    pub(in crate::embedded) fn encode(self) -> Vec<u8> {
        [self.offset, self.bytes, self.timestamp.0, self.commit.0]
            .iter()
            .flat_map(|field| field.to_le_bytes())
            .collect()
    }

    pub(in crate::embedded) fn decode(value: &[u8]) -> Result<Self, DecodeError> {
        let mut cursor = Cursor::new(value, "partition end");
        let end = Self {
            offset: cursor.u64()?,
            bytes: cursor.u64()?,
            timestamp: Timestamp(cursor.u64()?),
            commit: CommitNumber(cursor.u64()?),
        };
        cursor.end()?;
        Ok(end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_reads_back() {
        let end =
            End { offset: 1, bytes: 2, timestamp: Timestamp(3), commit: CommitNumber(u64::MAX) };
        assert_eq!(End::decode(&end.encode()), Ok(end));
    }
}
