//! Entries of records: key = topic, partition, last offset, so that a seek to an offset finds the
//! entry that holds it.

use super::PartitionKey;
use super::cursor::Cursor;
use crate::{DecodeError, Partition, TopicId};

/// How many log keyspaces there are: a fixed, small set, since each costs memory and time to open,
/// and more than one so that flushes and compactions of one do not hold up the others.
pub(in crate::embedded) const SHARDS: usize = 8;

/// The keyspace of a partition: neighbours lie in different ones.
pub(in crate::embedded) fn shard((topic, partition): PartitionKey) -> usize {
    let sum = topic.0.wrapping_add(u64::from(partition.0));
    usize::try_from(sum % SHARDS as u64).unwrap_or_default()
}

pub(in crate::embedded) fn key((topic, partition): PartitionKey, last_offset: u64) -> [u8; 20] {
    let mut key = [0; 20];
    let (topic_bytes, rest) = key.split_at_mut(8);
    let (partition_bytes, offset_bytes) = rest.split_at_mut(4);
    topic_bytes.copy_from_slice(&topic.0.to_be_bytes());
    partition_bytes.copy_from_slice(&partition.0.to_be_bytes());
    offset_bytes.copy_from_slice(&last_offset.to_be_bytes());
    key
}

/// The partition and the last offset.
pub(in crate::embedded) fn parse_key(key: &[u8]) -> Result<(PartitionKey, u64), DecodeError> {
    let mut cursor = Cursor::new(key, "log key");
    let partition = (TopicId(cursor.u64_be()?), Partition(cursor.u32_be()?));
    let last_offset = cursor.u64_be()?;
    cursor.end()?;
    Ok((partition, last_offset))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn byte_order_is_logical_order(
            a: (u64, u32, u64),
            b: (u64, u32, u64),
        ) {
            let encode = |(t, p, o): (u64, u32, u64)| key((TopicId(t), Partition(p)), o);
            prop_assert_eq!(encode(a).cmp(&encode(b)), a.cmp(&b));
            prop_assert_eq!(parse_key(&encode(a)), Ok(((TopicId(a.0), Partition(a.1)), a.2)));
        }
    }

    #[test]
    fn the_partitions_of_a_topic_spread_over_all_shards() {
        let shards: std::collections::BTreeSet<_> =
            (0..8).map(|p| shard((TopicId(u64::MAX), Partition(p)))).collect();
        assert_eq!(shards.len(), SHARDS);
    }
}
