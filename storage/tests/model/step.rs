//! What is done to the store, and how it is made up.

use proptest::prelude::*;
use proptest::sample::{Index, select};
use stream_storage::{Partition, TopicId};

/// The first and the third share their keyspaces. The first two are there from the start.
pub(crate) const TOPICS: [TopicId; 4] = [TopicId(1), TopicId(2), TopicId(9), TopicId(10)];
pub(crate) const PARTITIONS: u32 = 2;
pub(crate) const STATE_KEYS: [&str; 4] = ["a", "a/1", "a/2", "b"];
pub(crate) const INDEX_KEYS: [&str; 2] = ["k", "kk"];
pub(crate) const PRODUCERS: [&str; 2] = ["one", "two"];

/// A partition.
pub(crate) type Place = (TopicId, Partition);

/// One thing that is done. A place among what is there is an [`Index`]: it is resolved when the
/// step is taken.
#[derive(Debug, Clone)]
pub(crate) enum Step {
    Commit(Change),
    /// Small appends made at once.
    Publish {
        appends: Vec<(Place, Vec<Value>)>,
        from_memory: bool,
    },
    Trim(Place, TrimTo),
    Read(Read),
    /// Moves the clock, also backwards, by so many milliseconds.
    MoveClock(i64),
    Reopen,
    Reclaim,
}

/// A transaction.
#[derive(Debug, Clone)]
pub(crate) struct Change {
    pub(crate) appends: Vec<(Place, Vec<Value>)>,
    /// Puts, and deletes.
    pub(crate) state: Vec<(&'static str, Option<u8>)>,
    pub(crate) condition: Option<(&'static str, Condition)>,
    pub(crate) claim: Option<(&'static str, Claim)>,
    pub(crate) topic: Option<TopicStep>,
}

/// A record: so many bytes, and its index key.
#[derive(Debug, Clone)]
pub(crate) struct Value {
    pub(crate) bytes: usize,
    pub(crate) index_key: Option<&'static str>,
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Condition {
    Absent,
    /// The version that the key has; the one that it had first, if it has none.
    Current,
    /// The version that the key had first.
    First,
}

/// A producer's sequence, told by where the producer stands.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Claim {
    Next,
    /// A sequence that was committed, if there is one.
    Repeat(Index),
    NextEpoch,
    /// If there was one.
    EpochBefore,
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum TopicStep {
    Create(TopicId),
    Drop(TopicId),
}

#[derive(Debug, Clone)]
pub(crate) enum TrimTo {
    Before(Index),
    BeyondEnd,
    OlderThan(Index),
    KeepBytes(u64),
}

#[derive(Debug, Clone)]
pub(crate) struct Read {
    pub(crate) place: Place,
    pub(crate) start: Start,
    pub(crate) records_max: usize,
    pub(crate) bytes_max: usize,
}

#[derive(Debug, Clone)]
pub(crate) enum Start {
    Offset(Index),
    BeyondEnd,
    /// The time of a record, and so many milliseconds more.
    Time(Index, u64),
    AfterCommit(Index),
}

pub(crate) fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => change().prop_map(Step::Commit),
        4 => (prop::collection::vec(append(), 1..12), any::<bool>())
            .prop_map(|(appends, from_memory)| Step::Publish { appends, from_memory }),
        3 => (place(), trim_to()).prop_map(|(place, to)| Step::Trim(place, to)),
        8 => read().prop_map(Step::Read),
        2 => (-50_i64..200).prop_map(Step::MoveClock),
        1 => Just(Step::Reopen),
        1 => Just(Step::Reclaim),
    ]
}

fn place() -> impl Strategy<Value = Place> {
    (select(&TOPICS[..]), (0..PARTITIONS).prop_map(Partition))
}

fn append() -> impl Strategy<Value = (Place, Vec<Value>)> {
    (place(), values())
}

fn values() -> impl Strategy<Value = Vec<Value>> {
    // Some larger than what is kept apart from its key.
    let bytes = prop_oneof![9 => 0..60_usize, 1 => 0..3000_usize];
    let value = (bytes, prop::option::weighted(0.3, select(&INDEX_KEYS[..])));
    prop::collection::vec(value.prop_map(|(bytes, index_key)| Value { bytes, index_key }), 1..5)
}

fn change() -> impl Strategy<Value = Change> {
    let condition = prop_oneof![
        Just(Condition::Absent),
        Just(Condition::Current),
        Just(Condition::Current),
        Just(Condition::First),
    ];
    let claim = prop_oneof![
        4 => Just(Claim::Next),
        3 => any::<Index>().prop_map(Claim::Repeat),
        1 => Just(Claim::NextEpoch),
        1 => Just(Claim::EpochBefore),
    ];
    let topic = prop_oneof![
        3 => select(&TOPICS[..]).prop_map(TopicStep::Create),
        1 => select(&TOPICS[..]).prop_map(TopicStep::Drop),
    ];
    (
        prop::collection::btree_map(place(), values(), 0..4),
        prop::collection::btree_map(select(&STATE_KEYS[..]), any::<Option<u8>>(), 0..3),
        prop::option::weighted(0.3, (select(&STATE_KEYS[..]), condition)),
        prop::option::weighted(0.4, (select(&PRODUCERS[..]), claim)),
        prop::option::weighted(0.15, topic),
    )
        .prop_map(|(appends, state, condition, claim, topic)| Change {
            appends: appends.into_iter().collect(),
            state: state.into_iter().collect(),
            condition,
            claim,
            topic,
        })
}

fn trim_to() -> impl Strategy<Value = TrimTo> {
    prop_oneof![
        4 => any::<Index>().prop_map(TrimTo::Before),
        1 => Just(TrimTo::BeyondEnd),
        2 => any::<Index>().prop_map(TrimTo::OlderThan),
        2 => (0..600_u64).prop_map(TrimTo::KeepBytes),
    ]
}

fn read() -> impl Strategy<Value = Read> {
    let start = prop_oneof![
        6 => any::<Index>().prop_map(Start::Offset),
        1 => Just(Start::BeyondEnd),
        3 => (any::<Index>(), 0..2_u64).prop_map(|(at, more)| Start::Time(at, more)),
        3 => any::<Index>().prop_map(Start::AfterCommit),
    ];
    let records_max = prop_oneof![3 => 0..8_usize, 1 => Just(usize::MAX)];
    let bytes_max = prop_oneof![1 => 0..200_usize, 1 => Just(usize::MAX)];
    (place(), start, records_max, bytes_max).prop_map(|(place, start, records_max, bytes_max)| {
        Read { place, start, records_max, bytes_max }
    })
}
