//! The order of commits, times and records.

use std::sync::Arc;

use super::Engine;
use super::test_bed::{
    P0, P1, TOPIC, TestBed, appending, in_time, numbered, project, putting, request, values,
};
use crate::{Clock, CommitNumber, Partition, ReadStart, Timestamp, Transaction};

pub(super) async fn commit_numbers_increase(engine: &dyn Engine) {
    let mut bed = TestBed::new(engine).await;
    let mut commits = vec![
        bed.append(P0, &["a"]).await.commit,
        bed.append(P1, &["a"]).await.commit,
        bed.commit(putting("key", "value")).await.commit,
        bed.commit(Transaction::new(project())).await.commit,
    ];
    bed.reopen().await;
    commits.push(bed.append(P0, &["b"]).await.commit);
    assert!(commits.is_sorted_by(|a, b| a < b), "{commits:?}");
}

pub(super) async fn timestamps_never_go_back_although_the_clock_does(engine: &dyn Engine) {
    let mut bed = TestBed::new(engine).await;
    let start = bed.clock.now();
    let at = |seconds: u64| Timestamp(start.0 + seconds * 1000);
    bed.clock.set(at(20));
    bed.append(P0, &["a"]).await;
    bed.clock.set(at(10));
    let back = bed.append(P0, &["b"]).await;
    assert_eq!(back.appends[0].timestamp, at(20));
    let elsewhere = bed.append(P1, &["b"]).await;
    assert_eq!(elsewhere.appends[0].timestamp, at(10));
    bed.reopen().await;
    let after_reopening = bed.append(P0, &["c"]).await;
    assert_eq!(after_reopening.appends[0].timestamp, at(20));
    bed.clock.set(at(30));
    assert_eq!(bed.append(P0, &["d"]).await.appends[0].timestamp, at(30));
    let records = bed.read(P0, ReadStart::Offset(0)).await.unwrap();
    let times = records.segments.iter().map(crate::Segment::timestamp);
    assert_eq!(times.collect::<Vec<_>>(), [at(20), at(20), at(20), at(30)]);
    assert_eq!(bed.bounds(P0).await.last_timestamp, Some(at(30)));
}

pub(super) async fn transactions_of_one_project_are_committed_in_the_order_of_their_calls(
    engine: &dyn Engine,
) {
    let bed = TestBed::new(engine).await;
    let numbered = numbered(300);
    let receipts =
        bed.commit_at_once(numbered.iter().map(|value| appending(P0, &[value.as_str()]))).await;
    let commits: Vec<_> = receipts.into_iter().map(|receipt| receipt.unwrap().commit).collect();
    assert!(commits.is_sorted_by(|a, b| a < b));
    assert_eq!(bed.values(P0).await, numbered);
}

pub(super) async fn concurrent_publishes_are_all_there_in_the_order_of_each_caller(
    engine: &dyn Engine,
) {
    const CALLERS: usize = 8;
    const EACH: usize = 50;
    let bed = TestBed::new(engine).await;
    let mut callers = tokio::task::JoinSet::new();
    for caller in 0..CALLERS {
        let store = Arc::clone(&bed.store);
        callers.spawn(async move {
            for number in 0..EACH {
                let value = format!("{caller}:{number}");
                store.commit(appending(P0, &[value.as_str()])).await.unwrap();
            }
        });
    }
    in_time(callers.join_all()).await;
    let values = bed.values(P0).await;
    assert_eq!(values.len(), CALLERS * EACH);
    for caller in 0..CALLERS {
        let prefix = format!("{caller}:");
        let own: Vec<_> = values.iter().filter_map(|value| value.strip_prefix(&prefix)).collect();
        assert_eq!(own, (0..EACH).map(|number| number.to_string()).collect::<Vec<_>>());
    }
}

pub(super) async fn a_reader_beside_a_writer_sees_a_prefix(engine: &dyn Engine) {
    let bed = TestBed::new(engine).await;
    let all = numbered(200);
    let writer = tokio::spawn({
        let (store, all) = (Arc::clone(&bed.store), all.clone());
        async move {
            for value in &all {
                store.commit(appending(P0, &[value.as_str()])).await.unwrap();
            }
        }
    });
    let mut seen = 0;
    while seen < all.len() {
        let request = request(TOPIC, P0, ReadStart::Offset(0));
        let records = in_time(bed.store.read(request)).await.unwrap();
        let found = values(&records);
        assert_eq!(found, all[..found.len()]);
        assert_eq!(found.len() as u64, records.end_offset);
        assert!(found.len() >= seen);
        seen = found.len();
    }
    in_time(writer).await.unwrap();
}

pub(super) async fn who_sees_a_commit_sees_all_before_it(engine: &dyn Engine) {
    const PARTITIONS: u32 = 8;
    const EACH: usize = 100;
    let bed = TestBed::new(engine).await;
    let mut writers = tokio::task::JoinSet::new();
    for partition in (0..PARTITIONS).map(Partition) {
        let store = Arc::clone(&bed.store);
        writers.spawn(async move {
            let mut places = Vec::new();
            for _ in 0..EACH {
                let receipt = store.commit(appending(partition, &["v"])).await.unwrap();
                places.push((receipt.commit, partition, receipt.appends[0].base_offset));
            }
            places
        });
    }
    // How far the commits had come, and the ends that were seen after that.
    let mut seen = Vec::new();
    let last = u64::from(PARTITIONS) * EACH as u64;
    loop {
        let mut reached = CommitNumber::default();
        for partition in (0..PARTITIONS).map(Partition) {
            reached = reached.max(bed.bounds(partition).await.last_commit);
        }
        let mut ends = Vec::new();
        for partition in (0..PARTITIONS).map(Partition) {
            ends.push(bed.bounds(partition).await.end);
        }
        let is_last = ends.iter().sum::<u64>() == last;
        seen.push((reached, ends));
        if is_last {
            break;
        }
        tokio::task::yield_now().await;
    }
    let places: Vec<_> = in_time(writers.join_all()).await.into_iter().flatten().collect();
    for (commit, partition, offset) in places {
        for (reached, ends) in &seen {
            let end = ends[partition.0 as usize];
            assert!(commit > *reached || offset < end, "{commit:?} {partition} {offset} {end}");
        }
    }
}
