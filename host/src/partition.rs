//! Which partition an event goes to.
//!
//! An explicit partition wins, then the hash of the key, then the batch's turn. Knows nothing of
//! topics but their partition count.

use std::sync::atomic::{AtomicU32, Ordering};

use async_trait::async_trait;
use stream_storage::Partition;

use crate::event::Event;
use crate::stage::{self, Context, Fault};

/// An event asks for a partition that its topic does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("event `{index}` asks for partition `{partition}`, the topic has `{partitions}`, from 0")]
pub struct PartitionNotFound {
    /// The event's place in its batch, from 0.
    pub index: usize,
    /// What it asks for.
    pub partition: u32,
    /// How many the topic has.
    pub partitions: u32,
}

/// Whose turn it is among a topic's partitions: one for each topic, shared by its publishers.
#[derive(Debug, Default)]
pub struct RoundRobin(AtomicU32);

impl RoundRobin {
    /// The next partition of `partitions`, of which there is at least one.
    pub fn take_turn(&self, partitions: u32) -> Partition {
        let turn = self.0.fetch_add(1, Ordering::Relaxed);
        Partition(turn % partitions.max(1))
    }
}

/// The partition of each of `events`, in their order.
///
/// Events with neither a partition nor a key all go to one partition, so that a batch of them is
/// one append; the next batch with such events goes to the next one. `partitions` is at least 1.
///
/// # Errors
///
/// An event asks for a partition that does not exist; no turn is taken.
pub fn place(
    events: &[Event<'_>],
    partitions: u32,
    round_robin: &RoundRobin,
) -> Result<Vec<Partition>, PartitionNotFound> {
    let wish = |(index, event): (usize, &Event<'_>)| Some((index, event.partition?));
    check(events.iter().enumerate().filter_map(wish), partitions)?;
    let mut turn = None;
    let mut place_one = |event: &Event<'_>| match (event.partition, &event.key) {
        (Some(partition), _) => Partition(partition),
        (None, Some(key)) => partition_for_key(key.as_bytes(), partitions),
        (None, None) => *turn.get_or_insert_with(|| round_robin.take_turn(partitions)),
    };
    Ok(events.iter().map(&mut place_one).collect())
}

/// Checks partitions that events ask for, each with the event's place in its request.
///
/// # Errors
///
/// One does not exist.
pub fn check(
    mut asked: impl Iterator<Item = (usize, u32)>,
    partitions: u32,
) -> Result<(), PartitionNotFound> {
    match asked.find(|(_, partition)| *partition >= partitions) {
        Some((index, partition)) => Err(PartitionNotFound { index, partition, partitions }),
        None => Ok(()),
    }
}

/// The built-in partitioner: the hash of the key, or the batch's turn.
#[derive(Debug, Clone, Copy)]
pub struct KeyHash<'t>(pub &'t RoundRobin);

#[async_trait]
impl stage::Partition for KeyHash<'_> {
    async fn partition(&self, context: &Context, events: &[&Event<'_>]) -> Result<Vec<u32>, Fault> {
        let mut turn = None;
        let mut place_one = |event: &Event<'_>| match &event.key {
            Some(key) => partition_for_key(key.as_bytes(), context.partitions).0,
            None => *turn.get_or_insert_with(|| self.0.take_turn(context.partitions).0),
        };
        Ok(events.iter().map(|event| place_one(event)).collect())
    }
}

/// The partition of `key` among `partitions`, of which there is at least one: the same that Kafka's
/// default partitioner chooses.
pub fn partition_for_key(key: &[u8], partitions: u32) -> Partition {
    // Kafka clears the sign bit instead of taking the hash as unsigned.
    Partition((murmur2(key) & 0x7fff_ffff) % partitions.max(1))
}

/// 32-bit MurmurHash2 with the seed of Kafka's `Utils.murmur2`, whose result is these bits as a
/// signed integer.
pub fn murmur2(key: &[u8]) -> u32 {
    const SEED: u32 = 0x9747_b28c;
    const M: u32 = 0x5bd1_e995;
    const R: u32 = 24;

    let (chunks, tail) = key.as_chunks::<4>();
    // The length is mixed in modulo 2^32, as the algorithm has it.
    #[expect(clippy::cast_possible_truncation, reason = "the algorithm wraps the length")]
    let mut hash = SEED ^ key.len() as u32;
    for chunk in chunks {
        let mut k = u32::from_le_bytes(*chunk).wrapping_mul(M);
        k ^= k >> R;
        hash = hash.wrapping_mul(M) ^ k.wrapping_mul(M);
    }
    if !tail.is_empty() {
        let tail = tail.iter().rev().fold(0, |bits, &byte| bits << 8 | u32::from(byte));
        hash = (hash ^ tail).wrapping_mul(M);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(M);
    hash ^ hash >> 15
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn keyed(key: &'static str) -> Event<'static> {
        Event { key: Some(key.into()), ..Event::default() }
    }

    fn keyless() -> Event<'static> {
        Event::default()
    }

    fn explicit(partition: u32) -> Event<'static> {
        Event { key: Some("foobar".into()), partition: Some(partition), ..Event::default() }
    }

    fn places(events: &[Event<'_>], partitions: u32, round_robin: &RoundRobin) -> Vec<u32> {
        let places = place(events, partitions, round_robin).unwrap();
        places.into_iter().map(|Partition(number)| number).collect()
    }

    /// The cases of `testMurmur2` in Kafka's `UtilsTest`.
    #[test]
    fn murmur2_agrees_with_kafka() {
        let cases: [(&str, i32); 6] = [
            ("21", -973_932_308),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            ("abc", 479_470_107),
        ];
        for (key, hash) in cases {
            assert_eq!(murmur2(key.as_bytes()).cast_signed(), hash, "{key}");
        }
    }

    #[test]
    fn a_negative_hash_loses_its_sign_bit() {
        // -973932308 & 0x7fffffff = 1173551340; taken as unsigned the answers would be 8 and 988.
        assert_eq!(partition_for_key(b"21", 10), Partition(0));
        assert_eq!(partition_for_key(b"21", 1000), Partition(340));
    }

    #[test]
    fn keyless_events_of_a_batch_share_a_partition_and_batches_take_turns() {
        let round_robin = RoundRobin::default();
        let batch = [keyless(), keyless()];
        let all: Vec<_> = (0..4).map(|_| places(&batch, 3, &round_robin)).collect();
        assert_eq!(all, [[0, 0], [1, 1], [2, 2], [0, 0]]);
    }

    #[test]
    fn a_batch_without_keyless_events_takes_no_turn() {
        let round_robin = RoundRobin::default();
        places(&[keyed("a"), explicit(1)], 3, &round_robin);
        assert_eq!(places(&[keyless()], 3, &round_robin), [0]);
    }

    #[test]
    fn an_explicit_partition_wins_over_the_key() {
        let other = partition_for_key(b"foobar", 8).0 ^ 1;
        assert_eq!(places(&[explicit(other)], 8, &RoundRobin::default()), [other]);
    }

    #[test]
    fn a_partition_beyond_the_last_is_refused_with_its_index() {
        let round_robin = RoundRobin::default();
        let error = place(&[keyless(), explicit(7), explicit(8)], 8, &round_robin).unwrap_err();
        assert_eq!(error, PartitionNotFound { index: 2, partition: 8, partitions: 8 });
        assert_eq!(places(&[keyless()], 8, &round_robin), [0], "no turn was taken");
    }

    proptest! {
        #[test]
        fn every_place_exists_and_is_the_same_for_a_key(key in any::<Vec<u8>>(), partitions in 1_u32..1025) {
            let placed = partition_for_key(&key, partitions);
            prop_assert!(placed.0 < partitions);
            prop_assert_eq!(placed, partition_for_key(&key, partitions));
        }
    }

    #[tokio::test]
    async fn the_built_in_stage_places_events_as_a_batch_without_plugins_is() {
        let events = [keyed("a"), Event::default(), keyed("b"), Event::default(), keyed("a")];
        let placed = place(&events, 7, &RoundRobin::default()).unwrap();
        let context = Context { topic: crate::name::TopicName::parse("t").unwrap(), partitions: 7 };
        let turns = RoundRobin::default();
        let refs: Vec<_> = events.iter().collect();
        let chosen = stage::Partition::partition(&KeyHash(&turns), &context, &refs).await.unwrap();
        assert_eq!(chosen, placed.iter().map(|partition| partition.0).collect::<Vec<_>>());
    }
}
