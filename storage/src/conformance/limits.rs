//! Every limit lets through what is at it and refuses what is over it.

use bytes::Bytes;

use super::Engine;
use super::test_bed::{
    P0, TOPIC, TestBed, appending, batch, in_time, producing, step, transaction,
};
use crate::{
    Append, CommitError, Expected, IndexEntry, Limits, Partition, ProducerStep, Record,
    RecordBatch, Transaction,
};

/// Commits what is at a limit, and what is over it.
async fn check(bed: &TestBed<'_>, at: Transaction, over: Transaction, max: usize) {
    let refusal = bed.refusal(over).await;
    let CommitError::TooLarge { max: told, got, .. } = refusal else { panic!("{refusal}") };
    assert_eq!(told, max as u64);
    assert!(got > told);
    in_time(bed.commit(at)).await;
}

pub(super) async fn as_many_writes_as_allowed_pass_and_one_more_is_refused(engine: &dyn Engine) {
    let bed = TestBed::new(engine).await;
    let Limits { writes_max, .. } = bed.store.limits();
    let writing = |writes: usize| {
        let mut writing = transaction();
        for number in 0..writes {
            if number % 2 == 0 {
                writing.append(TOPIC, Partition(number as u32), batch(&["a"]));
            } else {
                writing.put(format!("key {number}"), "value");
            }
        }
        writing
    };
    check(&bed, writing(writes_max), writing(writes_max + 1), writes_max).await;
    assert_eq!(bed.values(Partition(0)).await, ["a"]);
    assert_eq!(bed.state("key 1").await.unwrap(), "value");
}

pub(super) async fn as_many_bytes_as_allowed_pass_and_one_more_is_refused(engine: &dyn Engine) {
    let bed = TestBed::new(engine).await;
    let Limits { bytes_max, .. } = bed.store.limits();
    let of_bytes = |bytes: usize| {
        let overhead = batch(&[""]).byte_len();
        let value = vec![b'x'; bytes - overhead];
        let mut batch = RecordBatch::with_capacity(bytes);
        batch.push(&Record { value: &value, ..Record::default() }).unwrap();
        let mut appending = transaction();
        appending.append(TOPIC, P0, batch);
        appending
    };
    check(&bed, of_bytes(bytes_max), of_bytes(bytes_max + 1), bytes_max).await;
    assert_eq!(bed.bounds(P0).await.bytes, bytes_max as u64);
    let mut over = of_bytes(bytes_max);
    over.put("k", "");
    assert!(matches!(bed.refusal(over).await, CommitError::TooLarge { .. }));
}

pub(super) async fn a_note_of_the_longest_length_passes_and_a_longer_one_is_refused(
    engine: &dyn Engine,
) {
    let bed = TestBed::new(engine).await;
    let Limits { note_bytes_max, .. } = bed.store.limits();
    let noted = |bytes| {
        let note = Bytes::from(vec![b'n'; bytes]);
        producing(ProducerStep { note, ..step("id", 0, 0) }, "a")
    };
    check(&bed, noted(note_bytes_max), noted(note_bytes_max + 1), note_bytes_max).await;
    let repeat = bed.commit(noted(0)).await;
    assert_eq!(repeat.note.len(), note_bytes_max);
}

pub(super) async fn keys_of_the_longest_length_pass_and_longer_ones_are_refused(
    engine: &dyn Engine,
) {
    let bed = TestBed::new(engine).await;
    let Limits { key_bytes_max, .. } = bed.store.limits();
    let key = |bytes| Bytes::from(vec![b'k'; bytes]);
    let put = |bytes| {
        let mut putting = transaction();
        putting.put(key(bytes), "value");
        putting
    };
    check(&bed, put(key_bytes_max), put(key_bytes_max + 1), key_bytes_max).await;
    let expect = |bytes| {
        let mut expecting = appending(P0, &["a"]);
        expecting.expect(vec![b'c'; bytes], Expected::Absent);
        expecting
    };
    check(&bed, expect(key_bytes_max), expect(key_bytes_max + 1), key_bytes_max).await;
    let index = |bytes| {
        let entry = IndexEntry { kind: 0, key: key(bytes), record: 0 };
        let mut appending = transaction();
        let (topic, batch) = (TOPIC, batch(&["a"]));
        appending.appends.push(Append { topic, partition: P0, batch, index: vec![entry] });
        appending
    };
    check(&bed, index(key_bytes_max), index(key_bytes_max + 1), key_bytes_max).await;
    let found = bed.store.lookup(TOPIC, 0, &key(key_bytes_max), None, 9).await.unwrap();
    assert_eq!(found.len(), 1);
}

pub(super) async fn what_breaks_a_rule_is_invalid(engine: &dyn Engine) {
    let bed = TestBed::new(engine).await;
    let mut partition_twice = appending(P0, &["a"]);
    partition_twice.append(TOPIC, P0, batch(&["b"]));
    let mut key_twice = transaction();
    key_twice.put("key", "1").delete("key");
    let mut empty_key = transaction();
    empty_key.put("", "value");
    let mut empty_condition = transaction();
    empty_condition.expect("", Expected::Absent);
    let mut empty_batch = transaction();
    empty_batch.append(TOPIC, P0, RecordBatch::default());
    let entry = IndexEntry { kind: 0, key: "key".into(), record: 1 };
    let mut index_beyond = appending(P0, &["only record 0"]);
    index_beyond.appends[0].index.push(entry);
    let no_producer_id = producing(step("", 0, 0), "a");
    for invalid in [
        partition_twice,
        key_twice,
        empty_key,
        empty_condition,
        empty_batch,
        index_beyond,
        no_producer_id,
    ] {
        let refusal = bed.refusal(invalid).await;
        assert!(matches!(refusal, CommitError::Invalid { .. }), "{refusal}");
    }
    assert_eq!(bed.bounds(P0).await.end, 0);
}
