//! A closed store takes nothing, and an opened one has all that it had.

use std::sync::Arc;

use super::Engine;
use super::test_bed::{
    P0, P1, TOPIC, TestBed, appending, batch, in_time, producing, project, putting, step,
};
use crate::{CommitError, Expected, Health, IndexEntry, ReadStart, Trim, TrimError};

pub(super) async fn a_closed_store_takes_nothing(engine: &dyn Engine) {
    let bed = TestBed::new(engine).await;
    bed.append(P0, &["a", "b"]).await;
    assert_eq!(bed.store.health(), Health::Ok);
    bed.store.close().await;
    assert_eq!(bed.refusal(appending(P0, &["c"])).await, CommitError::ShuttingDown);
    assert_eq!(bed.refusal(putting("key", "value")).await, CommitError::ShuttingDown);
    assert_eq!(bed.store.health(), Health::ShuttingDown);
    let trim = bed.trim(P0, Trim::Before(1)).await;
    assert!(matches!(
        trim,
        Err(TrimError::Commit(CommitError::ShuttingDown) | TrimError::Store(_))
    ));
}

pub(super) async fn closing_twice_does_no_harm(engine: &dyn Engine) {
    let mut bed = TestBed::new(engine).await;
    bed.append(P0, &["a"]).await;
    bed.store.close().await;
    bed.reopen().await;
    assert_eq!(bed.values(P0).await, ["a"]);
}

pub(super) async fn what_waits_for_a_sequence_is_told_of_the_closing(engine: &dyn Engine) {
    let bed = TestBed::new(engine).await;
    let store = Arc::clone(&bed.store);
    let early = tokio::spawn(async move { store.commit(producing(step("id", 0, 1), "b")).await });
    tokio::task::yield_now().await;
    bed.append(P1, &["the early one was seen"]).await;
    bed.store.close().await;
    assert_eq!(in_time(early).await.unwrap(), Err(CommitError::ShuttingDown));
}

pub(super) async fn everything_is_there_after_reopening(engine: &dyn Engine) {
    let mut bed = TestBed::new(engine).await;
    let mut indexed = producing(step("id", 4, 0), "a");
    indexed.append(TOPIC, P1, batch(&["b", "c", "d"])).put("key", "value");
    indexed.appends[1].index.push(IndexEntry { kind: 1, key: "c".into(), record: 1 });
    bed.commit(indexed).await;
    bed.append(P0, &["e"]).await;
    bed.trim(P1, Trim::Before(1)).await.unwrap();
    let seen = everything(&bed).await;
    for _ in 0..3 {
        bed.reopen().await;
        assert_eq!(everything(&bed).await, seen);
    }
}

/// All that `everything_is_there_after_reopening` wrote, as text.
async fn everything(bed: &TestBed<'_>) -> String {
    let bounds = (bed.bounds(P0).await, bed.bounds(P1).await);
    let records = (
        bed.read(P0, ReadStart::Offset(0)).await.unwrap().segments,
        bed.read(P1, ReadStart::Offset(1)).await.unwrap().segments,
        bed.read(P1, ReadStart::Offset(0)).await.unwrap_err(),
    );
    let state = bed.store.scan(&project(), b"", None, 100).await.unwrap();
    let producer = bed.store.producer(&project(), "id").await.unwrap().unwrap();
    let receipt = bed.store.receipt(&project(), "id", 4, 0).await.unwrap().unwrap();
    let found = bed.store.lookup(TOPIC, 1, b"c", None, 9).await.unwrap();
    format!("{bounds:?} {records:?} {state:?} {producer:?} {receipt:?} {found:?}")
}

pub(super) async fn offsets_and_commit_numbers_go_on_after_reopening(engine: &dyn Engine) {
    let mut bed = TestBed::new(engine).await;
    let mut last = bed.append(P0, &["0"]).await;
    for offset in 1..4 {
        bed.reopen().await;
        let mut next = appending(P0, &["next"]);
        next.expect("absent", Expected::Absent);
        let receipt = bed.commit(next).await;
        assert_eq!(receipt.appends[0].base_offset, offset);
        assert!(receipt.commit > last.commit);
        last = receipt;
    }
}
