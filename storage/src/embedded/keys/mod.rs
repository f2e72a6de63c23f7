//! Every stored key and value of the embedded engine, one kind a file.
//!
//! Integers are big-endian in keys, so that byte order is logical order, and little-endian in
//! values. Changing a layout is a new [`FORMAT`].
//!
//! | keyspace | key | value | file |
//! | --- | --- | --- | --- |
//! | `log-0` … `log-7` | topic 8, partition 4, last offset 8 | an entry of records | [`log`] |
//! | `index` | topic 8, kind 1, key length 2, key, partition 4, offset 8 | empty | [`index`] |
//! | `meta` | 0 | last commit 8, last commit of the lot before 8 | [`commit`] |
//! | `meta` | 1, topic 8, partition 4 | the partition's end | [`end`] |
//! | `meta` | 2, topic 8, partition 4 | the partition's trim point | [`trim`] |
//! | `meta` | 3, project length 1, project, key | version 8, value | [`state`] |
//! | `meta` | 4, project length 1, project, id length 1, id, 0 | a producer | [`producer`] |
//! | `meta` | 4, project length 1, project, id length 1, id, 1, slot 1 | a receipt | [`receipt`] |
//! | `meta` | 5, expiry 8, then a producer's key without its tag | empty | [`producer`] |
//! | `meta` | 6, topic 8 | 0: it lives; 1: dropped, its space is not reclaimed yet; 2: reclaimed | [`topic`] |
//! | `meta` | 7 | format version 4 | [`FORMAT`] |
//! | `log-0` … `log-7`, `index` | 21 bytes 255 | empty | [`TRIMMED_KEY`] |

pub(super) mod commit;
mod cursor;
pub(super) mod end;
pub(super) mod index;
pub(super) mod log;
pub(super) mod producer;
pub(super) mod receipt;
pub(super) mod state;
pub(super) mod topic;
pub(super) mod trim;

/// The version of all layouts together. In version 1 no records are packed; else it is the same.
pub(super) const FORMAT: u32 = 2;
/// The first version that can be read. What it becomes by being opened is [`FORMAT`].
pub(super) const FORMAT_MIN: u32 = 1;
/// Where the format is kept.
pub(super) const FORMAT_KEY: [u8; 1] = [7];

/// Written to a keyspace with whatever lets its entries be destroyed, and behind all of them.
///
/// fjall keeps a journal until each of its keyspaces has a table with a later row, and replays rows
/// that are later than those of the tables. Without this row, a keyspace whose last entries are
/// destroyed would keep journals for good, and get its entries back from them.
pub(super) const TRIMMED_KEY: [u8; 21] = [255; 21];

const COMMIT: u8 = 0;
const END: u8 = 1;
const TRIM: u8 = 2;
const STATE: u8 = 3;
const PRODUCER: u8 = 4;
const EXPIRY: u8 = 5;
const TOPIC: u8 = 6;

/// A partition of any topic.
pub(super) type PartitionKey = (crate::TopicId, crate::Partition);

/// A tag and a partition.
fn partition_key(tag: u8, (topic, partition): PartitionKey) -> [u8; 13] {
    let mut key = [tag; 13];
    let (_, rest) = key.split_at_mut(1);
    let (topic_bytes, partition_bytes) = rest.split_at_mut(8);
    topic_bytes.copy_from_slice(&topic.0.to_be_bytes());
    partition_bytes.copy_from_slice(&partition.0.to_be_bytes());
    key
}

/// The partition behind a tag.
fn parse_partition_key(key: &[u8]) -> Result<PartitionKey, crate::DecodeError> {
    let mut cursor = cursor::Cursor::new(key, "partition key");
    cursor.bytes(1)?;
    let parsed = (crate::TopicId(cursor.u64_be()?), crate::Partition(cursor.u32_be()?));
    cursor.end()?;
    Ok(parsed)
}

/// What all keys of a tag and a project start with.
fn project_prefix(tag: u8, project: &crate::ProjectName) -> Vec<u8> {
    let name = project.as_str().as_bytes();
    let mut key = Vec::with_capacity(name.len() + 40);
    key.push(tag);
    // A project's name has at most 64 bytes.
    key.push(u8::try_from(name.len()).unwrap_or(u8::MAX));
    key.extend_from_slice(name);
    key
}
