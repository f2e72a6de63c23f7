//! What is appended is read back, from any start and to any limit.

use super::Engine;
use super::test_bed::{
    P0, P1, TOPIC, TestBed, all, appending, batch, before, numbered, request, transaction, values,
};
use crate::{
    Bounds, Clock, CommitError, CommitNumber, Partition, ReadError, ReadRequest, ReadStart, Record,
    RecordBatch, Segment, Timestamp, TopicId,
};

pub(super) async fn offsets_are_dense_from_0_in_each_partition(engine: &dyn Engine) {
    let bed = TestBed::new(engine).await;
    for (partition, values, base_offset) in [
        (P0, &["a", "b"][..], 0),
        (P1, &["c"], 0),
        (P0, &["d"], 2),
        (P1, &["e", "f", "g"], 1),
        (P0, &["h"], 3),
    ] {
        let receipt = bed.append(partition, values).await;
        let [appended] = receipt.appends[..] else { panic!("{receipt:?}") };
        assert_eq!(appended.base_offset, base_offset);
        assert_eq!(appended.count as usize, values.len());
        assert_eq!((appended.topic, appended.partition), (TOPIC, partition));
    }
    assert_eq!(bed.values(P0).await, ["a", "b", "d", "h"]);
    assert_eq!(bed.values(P1).await, ["c", "e", "f", "g"]);
}

pub(super) async fn a_record_reads_back_with_all_its_fields(engine: &dyn Engine) {
    let bed = TestBed::new(engine).await;
    let full = Record {
        key: Some("key"),
        id: Some("id"),
        time: Some("2013-01-01T05:17:00-05:00"),
        content_type: Some("text/plain"),
        headers: vec![("ce-type", "departure"), ("a", ""), ("a", "twice")],
        value: &[0, 255, 7],
        value_is_json: false,
    };
    let bare = Record { value: b"{}", value_is_json: true, ..Record::default() };
    let empty = Record::default();
    let mut batch = RecordBatch::default();
    for record in [&full, &bare, &empty] {
        batch.push(record).unwrap();
    }
    let mut appending = transaction();
    appending.append(TOPIC, P0, batch);
    bed.commit(appending).await;
    let records = bed.read(P0, ReadStart::Offset(0)).await.unwrap();
    let found: Vec<_> =
        records.segments.iter().flat_map(Segment::records).map(Result::unwrap).collect();
    assert_eq!(found, [(0, full), (1, bare), (2, empty)]);
}

pub(super) async fn one_transaction_has_one_commit_number_in_all_its_partitions(
    engine: &dyn Engine,
) {
    let bed = TestBed::new(engine).await;
    let partitions: Vec<Partition> = (0..40).map(Partition).collect();
    let mut many = transaction();
    for partition in &partitions {
        many.append(TOPIC, *partition, batch(&["a", "b"]));
    }
    let receipt = bed.commit(many).await;
    assert!(receipt.durable && !receipt.duplicate);
    for (partition, appended) in partitions.iter().zip(&receipt.appends) {
        assert_eq!(appended.partition, *partition);
        let records = bed.read(*partition, ReadStart::Offset(0)).await.unwrap();
        let [segment] = &records.segments[..] else { panic!("{records:?}") };
        assert_eq!((segment.commit(), segment.count()), (receipt.commit, 2));
        assert_eq!(segment.timestamp(), appended.timestamp);
    }
}

pub(super) async fn a_refused_transaction_stores_nothing_in_any_partition(engine: &dyn Engine) {
    let bed = TestBed::new(engine).await;
    let unknown = TopicId(404);
    let mut refused = appending(P0, &["a"]);
    refused.append(unknown, P0, batch(&["b"])).put("key", "value");
    assert_eq!(bed.refusal(refused).await, CommitError::TopicGone { topic: unknown });
    assert_eq!(bed.bounds(P0).await, Bounds::default());
    assert_eq!(bed.state("key").await, None);
}

pub(super) async fn a_read_starts_at_any_offset(engine: &dyn Engine) {
    let bed = TestBed::new(engine).await;
    let all = ["a", "b", "c", "d", "e", "f", "g"];
    bed.append(P0, &all[..3]).await;
    bed.append(P0, &all[3..4]).await;
    bed.append(P0, &all[4..]).await;
    for start in 0..=all.len() {
        let records = bed.read(P0, ReadStart::Offset(start as u64)).await.unwrap();
        assert_eq!(values(&records), all[start..]);
        assert_eq!((records.next_offset, records.end_offset), (7, 7));
        assert_eq!(records.count(), all.len() - start);
    }
}

pub(super) async fn a_read_by_time_starts_at_the_first_record_of_that_time_or_later(
    engine: &dyn Engine,
) {
    let bed = TestBed::new(engine).await;
    let now = bed.clock.now();
    let at = |seconds: u64| Timestamp(now.0 + seconds * 1000);
    for (seconds, values) in [(10, &["a", "b"][..]), (20, &["c"]), (20, &["d"]), (30, &["e"])] {
        bed.clock.set(at(seconds));
        bed.append(P0, values).await;
    }
    for (seconds, expected) in [
        (0, &["a", "b", "c", "d", "e"][..]),
        (10, &["a", "b", "c", "d", "e"]),
        (11, &["c", "d", "e"]),
        (20, &["c", "d", "e"]),
        (21, &["e"]),
        (30, &["e"]),
        (31, &[]),
    ] {
        let records = bed.read(P0, ReadStart::Time(at(seconds))).await.unwrap();
        assert_eq!(values(&records), expected, "from second {seconds}");
        assert_eq!(records.next_offset, 5);
    }
}

pub(super) async fn a_read_by_commit_starts_after_it(engine: &dyn Engine) {
    let bed = TestBed::new(engine).await;
    let first = bed.append(P0, &["a", "b"]).await.commit;
    let elsewhere = bed.append(P1, &["z"]).await.commit;
    let second = bed.append(P0, &["c"]).await.commit;
    for (commit, expected) in
        [(before(first), &["a", "b", "c"][..]), (first, &["c"]), (elsewhere, &["c"]), (second, &[])]
    {
        let records = bed.read(P0, ReadStart::AfterCommit(commit)).await.unwrap();
        assert_eq!(values(&records), expected, "after {commit}");
        assert_eq!(records.next_offset, 3);
    }
}

/// An engine may keep small publishes together; nothing of that shows.
pub(super) async fn a_read_starts_anywhere_among_small_publishes_made_at_once(engine: &dyn Engine) {
    let bed = TestBed::new(engine).await;
    let all_values = numbered(120);
    let batches: Vec<Vec<&str>> =
        all_values.chunks(3).map(|chunk| chunk.iter().map(String::as_str).collect()).collect();
    let receipts = bed.commit_at_once(batches.iter().map(|batch| appending(P0, batch))).await;
    for start in 0..=all_values.len() {
        let records = bed.read(P0, ReadStart::Offset(start as u64)).await.unwrap();
        assert_eq!(values(&records), all_values[start..]);
    }
    for (receipt, next) in receipts.into_iter().map(Result::unwrap).zip((0..).step_by(3)) {
        assert_eq!(receipt.appends[0].base_offset, next);
        let start = ReadStart::AfterCommit(receipt.commit);
        let records = bed.read(P0, start).await.unwrap();
        assert_eq!(values(&records), all_values[next as usize + 3..]);
    }
}

pub(super) async fn a_read_stops_at_its_record_limit(engine: &dyn Engine) {
    let bed = TestBed::new(engine).await;
    bed.append(P0, &["a", "b"]).await;
    bed.append(P0, &["c", "d"]).await;
    for (start, records_max, expected) in [
        (0, 0, &[][..]),
        (0, 1, &["a"]),
        (0, 2, &["a", "b"]),
        (0, 3, &["a", "b", "c"]),
        (1, 2, &["b", "c"]),
        (1, 3, &["b", "c", "d"]),
        (1, 4, &["b", "c", "d"]),
    ] {
        let request = ReadRequest { records_max, ..request(TOPIC, P0, ReadStart::Offset(start)) };
        let records = bed.store.read(request).await.unwrap();
        assert_eq!(values(&records), expected, "{records_max} from {start}");
        assert_eq!(records.next_offset, start + expected.len() as u64);
        assert_eq!(records.end_offset, 4);
    }
}

pub(super) async fn a_read_stops_before_its_byte_limit_but_not_before_its_first_record(
    engine: &dyn Engine,
) {
    let bed = TestBed::new(engine).await;
    bed.append(P0, &["aaaa", "bbbb"]).await;
    bed.append(P0, &["cccc"]).await;
    bed.append(P0, &["d".repeat(1000).as_str()]).await;
    let each = batch(&["aaaa"]).byte_len();
    for (start, bytes_max, expected) in [
        (0, 0, 1),
        (0, each - 1, 1),
        (0, each, 1),
        (0, 2 * each - 1, 1),
        (0, 2 * each, 2),
        (0, 3 * each - 1, 2),
        (0, 3 * each, 3),
        (0, 4 * each, 3),
        (1, 2 * each, 2),
        (2, 2 * each, 1),
        (3, each, 1),
        (0, 10_000, 4),
    ] {
        let request = ReadRequest { bytes_max, ..request(TOPIC, P0, ReadStart::Offset(start)) };
        let records = bed.store.read(request).await.unwrap();
        assert_eq!(records.count(), expected, "{bytes_max} bytes from {start}");
        assert_eq!(records.next_offset, start + expected as u64);
    }
}

pub(super) async fn a_read_at_the_end_is_empty_and_one_beyond_is_refused(engine: &dyn Engine) {
    let bed = TestBed::new(engine).await;
    bed.append(P0, &["a", "b"]).await;
    let records = bed.read(P0, ReadStart::Offset(2)).await.unwrap();
    assert_eq!((records.count(), records.next_offset, records.end_offset), (0, 2, 2));
    for beyond in [3, u64::MAX] {
        let refused = bed.read(P0, ReadStart::Offset(beyond)).await.unwrap_err();
        assert_eq!(refused, ReadError::BeyondEnd { end: 2 });
    }
}

pub(super) async fn a_partition_that_was_never_written_is_empty_from_0(engine: &dyn Engine) {
    let bed = TestBed::new(engine).await;
    let never = Partition(u32::MAX);
    assert_eq!(bed.bounds(never).await, Bounds::default());
    for start in [
        ReadStart::Offset(0),
        ReadStart::Time(Timestamp(0)),
        ReadStart::AfterCommit(CommitNumber(0)),
    ] {
        let records = bed.read(never, start).await.unwrap();
        assert_eq!((records.count(), records.next_offset, records.end_offset), (0, 0, 0));
    }
    let refused = bed.read(never, ReadStart::Offset(1)).await.unwrap_err();
    assert_eq!(refused, ReadError::BeyondEnd { end: 0 });
}

pub(super) async fn bounds_tell_what_a_partition_holds(engine: &dyn Engine) {
    let bed = TestBed::new(engine).await;
    let first = bed.append(P0, &["a", "bb"]).await;
    let last = bed.append(P0, &["ccc"]).await;
    assert!(first.commit < last.commit);
    let expected = Bounds {
        start: 0,
        end: 3,
        bytes: batch(&["a", "bb", "ccc"]).byte_len() as u64,
        last_timestamp: Some(last.appends[0].timestamp),
        last_commit: last.commit,
    };
    assert_eq!(bed.bounds(P0).await, expected);
    assert_eq!(expected.range(), 0..3);
}

pub(super) async fn partitions_and_topics_are_apart(engine: &dyn Engine) {
    let bed = TestBed::new(engine).await;
    let topics = [TopicId(2), TopicId(256), TopicId(1 << 32), TopicId(u64::MAX)];
    all(topics.map(|topic| bed.create(topic))).await;
    let places: Vec<_> = topics
        .iter()
        .flat_map(|topic| [0, 1, 255, 256, u32::MAX].map(|number| (*topic, Partition(number))))
        .collect();
    for (place, value) in places.iter().zip(numbered(places.len())) {
        let mut appending = transaction();
        appending.append(place.0, place.1, batch(&[&value, "next"]));
        bed.commit(appending).await;
    }
    for ((topic, partition), value) in places.iter().zip(numbered(places.len())) {
        let request = request(*topic, *partition, ReadStart::Offset(0));
        assert_eq!(values(&bed.store.read(request).await.unwrap()), [&value, "next"]);
    }
}
