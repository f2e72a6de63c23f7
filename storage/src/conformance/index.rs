//! Records are found by the index keys that they were given with.

use super::Engine;
use super::test_bed::{P0, P1, TOPIC, TestBed, batch, transaction};
use crate::{Append, IndexEntry, Partition, Position, TopicId, Trim};

const KIND: u8 = 1;

/// Appends a batch with one record for each key to a partition.
async fn append(bed: &TestBed<'_>, topic: TopicId, partition: Partition, keys: &[&str]) {
    let index = (0..)
        .zip(keys)
        .map(|(record, key)| IndexEntry { kind: KIND, key: key.to_string().into(), record })
        .collect();
    let mut appending = transaction();
    appending.appends.push(Append { topic, partition, batch: batch(keys), index });
    bed.commit(appending).await;
}

async fn lookup(bed: &TestBed<'_>, key: &str) -> Vec<(u32, u64)> {
    let positions = bed.store.lookup(TOPIC, KIND, key.as_bytes(), None, usize::MAX).await.unwrap();
    positions.into_iter().map(|position| (position.partition.0, position.offset)).collect()
}

pub(super) async fn a_lookup_finds_all_records_of_a_key(engine: &dyn Engine) {
    let bed = TestBed::new(engine).await;
    append(&bed, TOPIC, P1, &["a", "b", "a"]).await;
    append(&bed, TOPIC, P0, &["b", "a"]).await;
    append(&bed, TOPIC, P1, &["a"]).await;
    assert_eq!(lookup(&bed, "a").await, [(0, 1), (1, 0), (1, 2), (1, 3)]);
    assert_eq!(lookup(&bed, "b").await, [(0, 0), (1, 1)]);
    assert_eq!(lookup(&bed, "c").await, []);
}

pub(super) async fn a_lookup_is_paged_by_position(engine: &dyn Engine) {
    let bed = TestBed::new(engine).await;
    append(&bed, TOPIC, P0, &["a"; 300]).await;
    append(&bed, TOPIC, P1, &["a"; 3]).await;
    let all = bed.store.lookup(TOPIC, KIND, b"a", None, usize::MAX).await.unwrap();
    assert_eq!(all.len(), 303);
    for limit in [1, 7, 303, 1000] {
        let mut paged = Vec::new();
        loop {
            let after = paged.last().copied();
            let page = bed.store.lookup(TOPIC, KIND, b"a", after, limit).await.unwrap();
            assert!(page.len() <= limit);
            if page.is_empty() {
                break;
            }
            paged.extend(page);
        }
        assert_eq!(paged, all, "{limit} a page");
    }
    assert_eq!(bed.store.lookup(TOPIC, KIND, b"a", None, 0).await.unwrap(), []);
    let absent = Position { partition: P0, offset: u64::MAX };
    assert_eq!(bed.store.lookup(TOPIC, KIND, b"a", Some(absent), 9).await.unwrap(), all[300..]);
}

pub(super) async fn a_lookup_from_the_other_end_is_the_same_in_reverse(engine: &dyn Engine) {
    let bed = TestBed::new(engine).await;
    append(&bed, TOPIC, P0, &["a"; 40]).await;
    append(&bed, TOPIC, P1, &["b", "a", "ab", "a"]).await;
    append(&bed, TOPIC, Partition(2), &["a"; 9]).await;
    // Partitions of which all, or some, is trimmed.
    bed.trim(Partition(2), Trim::Before(9)).await.unwrap();
    bed.trim(P0, Trim::Before(30)).await.unwrap();
    let mut all = bed.store.lookup(TOPIC, KIND, b"a", None, usize::MAX).await.unwrap();
    all.reverse();
    assert_eq!(all.len(), 12);
    let back = async |before, limit| {
        bed.store.lookup_back(TOPIC, KIND, b"a", before, limit).await.unwrap()
    };
    for limit in [1, 2, 7, 12, usize::MAX] {
        let mut paged = Vec::new();
        loop {
            let page = back(paged.last().copied(), limit).await;
            if page.is_empty() {
                break;
            }
            paged.extend(page);
        }
        assert_eq!(paged, all, "{limit} a page");
    }
    assert_eq!(back(None, 0).await, []);
    let absent = Position { partition: P1, offset: 3 };
    assert_eq!(back(Some(absent), 9).await, all[1..10]);
    assert_eq!(back(Some(Position { partition: P0, offset: 30 }), 9).await, []);
}

pub(super) async fn keys_kinds_and_topics_are_apart(engine: &dyn Engine) {
    let bed = TestBed::new(engine).await;
    let other = TopicId(2);
    bed.create(other).await;
    append(&bed, TOPIC, P0, &["a", "ab", "abc", "b", ""]).await;
    append(&bed, other, P0, &["a", "a"]).await;
    for (key, found) in [("a", 0), ("ab", 1), ("abc", 2), ("b", 3), ("", 4)] {
        assert_eq!(lookup(&bed, key).await, [(0, found)], "{key:?}");
    }
    let of_kind = |kind| bed.store.lookup(TOPIC, kind, b"a", None, 9);
    for kind in [0, KIND + 1, u8::MAX] {
        assert_eq!(of_kind(kind).await.unwrap(), []);
    }
    let in_other = bed.store.lookup(other, KIND, b"a", None, 9).await.unwrap();
    assert_eq!(in_other.len(), 2);
}

pub(super) async fn trimmed_records_are_not_found(engine: &dyn Engine) {
    let bed = TestBed::new(engine).await;
    append(&bed, TOPIC, P0, &["a"; 4]).await;
    append(&bed, TOPIC, P1, &["a"]).await;
    bed.trim(P0, Trim::Before(3)).await.unwrap();
    assert_eq!(lookup(&bed, "a").await, [(0, 3), (1, 0)]);
    // What is left out does not count for the limit.
    let first = bed.store.lookup(TOPIC, KIND, b"a", None, 1).await.unwrap();
    assert_eq!(first, [Position { partition: P0, offset: 3 }]);
}

pub(super) async fn records_of_a_dropped_topic_are_not_found(engine: &dyn Engine) {
    let mut bed = TestBed::new(engine).await;
    append(&bed, TOPIC, P0, &["a"]).await;
    bed.drop_topic(TOPIC).await;
    assert_eq!(lookup(&bed, "a").await, []);
    bed.reopen().await;
    assert_eq!(lookup(&bed, "a").await, []);
}

pub(super) async fn index_entries_survive_reopening(engine: &dyn Engine) {
    let mut bed = TestBed::new(engine).await;
    append(&bed, TOPIC, P0, &["a", "b"]).await;
    bed.reopen().await;
    append(&bed, TOPIC, P0, &["a"]).await;
    assert_eq!(lookup(&bed, "a").await, [(0, 0), (0, 2)]);
}
