//! Records are removed from the start of a partition, and who asks for them is told.

use super::Engine;
use super::test_bed::{P0, P1, TestBed, batch, before, numbered, values};
use crate::{Clock, Partition, ReadError, ReadStart, Timestamp, Trim, TrimError};

/// A store with three batches of three records each, `0` to `8`.
async fn nine_records(engine: &dyn Engine) -> TestBed<'_> {
    let bed = TestBed::new(engine).await;
    for values in [["0", "1", "2"], ["3", "4", "5"], ["6", "7", "8"]] {
        bed.append(P0, &values).await;
    }
    bed
}

pub(super) async fn what_is_trimmed_cannot_be_read(engine: &dyn Engine) {
    let bed = nine_records(engine).await;
    let bounds = bed.trim(P0, Trim::Before(3)).await.unwrap();
    assert_eq!(bounds.range(), 3..9);
    assert_eq!(bed.bounds(P0).await, bounds);
    assert_eq!(bed.values(P0).await, ["3", "4", "5", "6", "7", "8"]);
    for offset in 0..3 {
        let refused = bed.read(P0, ReadStart::Offset(offset)).await.unwrap_err();
        assert_eq!(refused, ReadError::Trimmed { earliest: 3 });
    }
    bed.append(P0, &["9"]).await;
    assert_eq!(bed.bounds(P0).await.range(), 3..10);
}

pub(super) async fn a_trim_may_end_inside_a_batch(engine: &dyn Engine) {
    let bed = nine_records(engine).await;
    for start in 1..9_usize {
        let bounds = bed.trim(P0, Trim::Before(start as u64)).await.unwrap();
        assert_eq!(bounds.range(), start as u64..9);
        let left = (start..9).map(|number| number.to_string()).collect::<Vec<_>>();
        assert_eq!(bed.values(P0).await, left);
    }
}

pub(super) async fn a_trim_never_goes_back(engine: &dyn Engine) {
    let bed = nine_records(engine).await;
    let bounds = bed.trim(P0, Trim::Before(5)).await.unwrap();
    for trim in [
        Trim::Before(5),
        Trim::Before(4),
        Trim::Before(0),
        Trim::OlderThan(Timestamp(0)),
        Trim::KeepBytes(bounds.bytes),
        Trim::KeepBytes(u64::MAX),
    ] {
        assert_eq!(bed.trim(P0, trim).await.unwrap(), bounds, "{trim:?}");
    }
    let never = Partition(77);
    for trim in [Trim::Before(0), Trim::OlderThan(Timestamp(u64::MAX)), Trim::KeepBytes(0)] {
        assert_eq!(bed.trim(never, trim).await.unwrap().range(), 0..0);
    }
}

pub(super) async fn a_trim_beyond_the_end_is_refused(engine: &dyn Engine) {
    let bed = nine_records(engine).await;
    for beyond in [10, u64::MAX] {
        let refused = bed.trim(P0, Trim::Before(beyond)).await.unwrap_err();
        assert_eq!(refused, TrimError::BeyondEnd { end: 9 });
    }
    let refused = bed.trim(Partition(77), Trim::Before(1)).await.unwrap_err();
    assert_eq!(refused, TrimError::BeyondEnd { end: 0 });
    assert_eq!(bed.bounds(P0).await.range(), 0..9);
}

pub(super) async fn a_trim_of_everything_keeps_the_end(engine: &dyn Engine) {
    let mut bed = nine_records(engine).await;
    let full = bed.bounds(P0).await;
    let bounds = bed.trim(P0, Trim::Before(9)).await.unwrap();
    assert_eq!((bounds.range(), bounds.bytes), (9..9, 0));
    assert_eq!(bounds.last_timestamp, full.last_timestamp);
    assert_eq!(bounds.last_commit, full.last_commit);
    bed.reopen().await;
    assert_eq!(bed.bounds(P0).await, bounds);
    let records = bed.read(P0, ReadStart::Offset(9)).await.unwrap();
    assert_eq!((records.count(), records.next_offset), (0, 9));
    assert_eq!(bed.append(P0, &["9"]).await.appends[0].base_offset, 9);
    assert_eq!(bed.bounds(P0).await.bytes, batch(&["9"]).byte_len() as u64);
    assert_eq!(bed.trim(P0, Trim::KeepBytes(0)).await.unwrap().range(), 10..10);
}

pub(super) async fn a_trim_by_time_removes_older_transactions(engine: &dyn Engine) {
    let bed = TestBed::new(engine).await;
    let now = bed.clock.now();
    let at = |seconds: u64| Timestamp(now.0 + seconds * 1000);
    for (seconds, values) in [(10, ["0", "1"]), (20, ["2", "3"]), (30, ["4", "5"])] {
        bed.clock.set(at(seconds));
        bed.append(P0, &values).await;
    }
    for (seconds, start) in [(5, 0), (10, 0), (11, 2), (20, 2), (30, 4), (31, 6), (99, 6)] {
        let bounds = bed.trim(P0, Trim::OlderThan(at(seconds))).await.unwrap();
        assert_eq!(bounds.range(), start..6, "older than {seconds} s");
    }
}

pub(super) async fn a_trim_by_bytes_keeps_at_least_as_many(engine: &dyn Engine) {
    let bed = nine_records(engine).await;
    let each = batch(&["0", "1", "2"]).byte_len() as u64;
    for (keep, start) in [
        (4 * each, 0),
        (3 * each, 0),
        (2 * each + 1, 0),
        (2 * each, 3),
        (each + 1, 3),
        (each, 6),
        (1, 6),
        (0, 9),
    ] {
        let bounds = bed.trim(P0, Trim::KeepBytes(keep)).await.unwrap();
        assert_eq!(bounds.range(), start..9, "keep {keep}");
        assert!(bounds.bytes >= keep.min(3 * each));
    }
}

pub(super) async fn bounds_count_the_bytes_that_are_left(engine: &dyn Engine) {
    let mut bed = TestBed::new(engine).await;
    let all: Vec<String> = (0..12_usize).map(|number| "x".repeat(number * number)).collect();
    let all: Vec<&str> = all.iter().map(String::as_str).collect();
    for values in all.chunks(4) {
        bed.append(P0, values).await;
    }
    for start in [0, 1, 3, 4, 7, 8, 11, 12] {
        let bounds = bed.trim(P0, Trim::Before(start)).await.unwrap();
        let left = batch(&all[start as usize..]).byte_len() as u64;
        assert_eq!(bounds.bytes, left, "from {start}");
        bed.reopen().await;
        assert_eq!(bed.bounds(P0).await.bytes, left, "from {start}, reopened");
    }
}

pub(super) async fn a_cursor_below_a_trimmed_commit_is_told(engine: &dyn Engine) {
    let mut bed = TestBed::new(engine).await;
    let first = bed.append(P0, &["0", "1"]).await.commit;
    let second = bed.append(P0, &["2", "3"]).await.commit;
    let third = bed.append(P0, &["4", "5"]).await.commit;
    for (trim, trimmed, next) in [
        (0, None, None),
        (1, Some(before(first)), Some((first, 2))),
        (2, Some(before(first)), Some((first, 2))),
        (3, Some(first), Some((second, 4))),
        (4, Some(first), Some((second, 4))),
        (5, Some(second), Some((third, 6))),
        (6, Some(second), Some((third, 6))),
    ] {
        bed.trim(P0, Trim::Before(trim)).await.unwrap();
        bed.reopen().await;
        if let Some(commit) = trimmed {
            let refused = bed.read(P0, ReadStart::AfterCommit(commit)).await.unwrap_err();
            assert_eq!(refused, ReadError::Trimmed { earliest: trim }, "trimmed before {trim}");
        }
        if let Some((commit, start)) = next {
            let records = bed.read(P0, ReadStart::AfterCommit(commit)).await.unwrap();
            let expected: Vec<_> = (start..6).map(|number| number.to_string()).collect();
            assert_eq!(values(&records), expected, "trimmed before {trim}");
        }
    }
}

pub(super) async fn a_read_by_time_starts_at_the_trim_point_at_the_earliest(engine: &dyn Engine) {
    let bed = nine_records(engine).await;
    bed.trim(P0, Trim::Before(4)).await.unwrap();
    let records = bed.read(P0, ReadStart::Time(Timestamp(0))).await.unwrap();
    assert_eq!(values(&records), ["4", "5", "6", "7", "8"]);
}

pub(super) async fn a_trim_survives_reopening(engine: &dyn Engine) {
    let mut bed = nine_records(engine).await;
    let bounds = bed.trim(P0, Trim::Before(4)).await.unwrap();
    bed.reopen().await;
    assert_eq!(bed.bounds(P0).await, bounds);
    let refused = bed.read(P0, ReadStart::Offset(3)).await.unwrap_err();
    assert_eq!(refused, ReadError::Trimmed { earliest: 4 });
    assert_eq!(bed.values(P0).await, ["4", "5", "6", "7", "8"]);
}

pub(super) async fn a_trim_of_one_partition_leaves_the_others(engine: &dyn Engine) {
    let bed = TestBed::new(engine).await;
    let all = numbered(3);
    let all: Vec<&str> = all.iter().map(String::as_str).collect();
    // Partitions 0 and 8 lie in one keyspace of the embedded engine.
    let partitions = [P0, P1, Partition(8)];
    for partition in partitions {
        bed.append(partition, &all).await;
    }
    bed.trim(P0, Trim::Before(2)).await.unwrap();
    assert_eq!(bed.values(P0).await, all[2..]);
    assert_eq!(bed.values(P1).await, all);
    assert_eq!(bed.values(Partition(8)).await, all);
}
