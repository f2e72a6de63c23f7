//! A partition's trim point: what lies below it is gone.

use super::cursor::Cursor;
use super::{PartitionKey, parse_partition_key, partition_key};
use crate::{CommitNumber, DecodeError, TopicId};

/// How far a partition is trimmed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(in crate::embedded) struct TrimPoint {
    /// The earliest offset that can be read.
    pub(in crate::embedded) offset: u64,
    /// Bytes of encoded records below it.
    pub(in crate::embedded) bytes: u64,
    /// The commit of the last record below it.
    pub(in crate::embedded) commit: CommitNumber,
}

/// What all trim points start with.
pub(in crate::embedded) const PREFIX: [u8; 1] = [super::TRIM];

pub(in crate::embedded) fn key(partition: PartitionKey) -> [u8; 13] {
    partition_key(super::TRIM, partition)
}

/// What the trim points of a topic start with.
pub(in crate::embedded) fn topic_prefix(topic: TopicId) -> [u8; 9] {
    super::topic::tagged(super::TRIM, topic)
}

pub(in crate::embedded) fn parse_key(key: &[u8]) -> Result<PartitionKey, DecodeError> {
    parse_partition_key(key)
}

impl TrimPoint {
    pub(in crate::embedded) fn encode(self) -> Vec<u8> {
        [self.offset, self.bytes, self.commit.0]
            .iter()
            .flat_map(|field| field.to_le_bytes())
            .collect()
    }

    pub(in crate::embedded) fn decode(value: &[u8]) -> Result<Self, DecodeError> {
        let mut cursor = Cursor::new(value, "trim point");
        let point = Self {
            offset: cursor.u64()?,
            bytes: cursor.u64()?,
            commit: CommitNumber(cursor.u64()?),
        };
        cursor.end()?;
        Ok(point)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Partition;

    #[test]
    fn a_trim_point_and_its_key_read_back() {
        let point = TrimPoint { offset: 1, bytes: 2, commit: CommitNumber(3) };
        assert_eq!(TrimPoint::decode(&point.encode()), Ok(point));
        let partition = (TopicId(1 << 40), Partition(1023));
        assert_eq!(parse_key(&key(partition)), Ok(partition));
        assert!(key(partition).starts_with(&topic_prefix(partition.0)));
    }
}
