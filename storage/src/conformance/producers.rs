//! A producer's transaction is stored once, however often it is sent.

use std::time::Duration;

use super::Engine;
use super::test_bed::{
    P0, P1, TOPIC, TestBed, appending, batch, numbered, producing, project, putting, step,
    transaction,
};
use crate::{
    Clock, CommitError, Expected, ProducerState, ProducerStep, ProjectName, Receipt, Timestamp,
    Transaction,
};

/// How many of a producer's receipts are kept.
const RECEIPTS_KEPT: u64 = 64;

async fn producer(bed: &TestBed<'_>, id: &str) -> Option<ProducerState> {
    bed.store.producer(&project(), id).await.unwrap()
}

async fn receipt(bed: &TestBed<'_>, epoch: u64, sequence: u64) -> Option<Receipt> {
    bed.store.receipt(&project(), "id", epoch, sequence).await.unwrap()
}

fn repeated(receipt: Receipt) -> Receipt {
    Receipt { duplicate: true, ..receipt }
}

pub(super) async fn a_repeat_gets_the_original_receipt(engine: &dyn Engine) {
    let bed = TestBed::new(engine).await;
    assert_eq!(producer(&bed, "id").await, None);
    let noted = ProducerStep { note: "note".into(), ..step("id", 0, 0) };
    let first = bed.commit(producing(noted, "a")).await;
    assert_eq!((first.duplicate, &*first.note), (false, &b"note"[..]));
    bed.commit(producing(step("id", 0, 1), "b")).await;
    let another = ProducerStep { note: "another".into(), ..step("id", 0, 0) };
    bed.clock.advance(Duration::from_secs(1));
    assert_eq!(bed.commit(producing(another, "c")).await, repeated(first.clone()));
    assert_eq!(receipt(&bed, 0, 0).await, Some(repeated(first)));
    assert_eq!(bed.values(P0).await, ["a", "b"]);
    let state = ProducerState { epoch: 0, last_sequence: 1 };
    assert_eq!(producer(&bed, "id").await, Some(state));
}

pub(super) async fn a_repeat_gets_the_original_receipt_after_reopening(engine: &dyn Engine) {
    let mut bed = TestBed::new(engine).await;
    let noted = ProducerStep { note: "note".into(), ..step("id", 7, 0) };
    let first = bed.commit(producing(noted.clone(), "a")).await;
    bed.reopen().await;
    assert_eq!(bed.commit(producing(noted, "a")).await, repeated(first));
    bed.commit(producing(step("id", 7, 1), "b")).await;
    assert_eq!(bed.values(P0).await, ["a", "b"]);
}

pub(super) async fn the_last_64_receipts_are_kept_and_older_repeats_have_no_positions(
    engine: &dyn Engine,
) {
    let bed = TestBed::new(engine).await;
    let values = numbered(70);
    let mut receipts = Vec::new();
    for (sequence, value) in (0..).zip(&values) {
        receipts.push(bed.commit(producing(step("id", 0, sequence), value)).await);
    }
    let oldest_kept = receipts.len() as u64 - RECEIPTS_KEPT;
    for (sequence, original) in (0..).zip(receipts) {
        let repeat = bed.commit(producing(step("id", 0, sequence), "again")).await;
        if sequence >= oldest_kept {
            assert_eq!(repeat, repeated(original));
            assert_eq!(receipt(&bed, 0, sequence).await, Some(repeat));
        } else {
            assert!(repeat.duplicate && repeat.durable && repeat.appends.is_empty());
            assert_eq!(receipt(&bed, 0, sequence).await, None);
        }
    }
    assert_eq!(receipt(&bed, 0, 70).await, None);
    assert_eq!(receipt(&bed, 1, 69).await, None);
    assert_eq!(bed.values(P0).await, values);
}

pub(super) async fn a_repeat_made_at_once_is_stored_once(engine: &dyn Engine) {
    let bed = TestBed::new(engine).await;
    let outcomes = bed.commit_at_once((0..5).map(|_| producing(step("id", 0, 0), "a"))).await;
    let receipts: Vec<Receipt> = outcomes.into_iter().map(Result::unwrap).collect();
    assert!(!receipts[0].duplicate);
    for repeat in &receipts[1..] {
        assert_eq!(*repeat, repeated(receipts[0].clone()));
    }
    assert_eq!(bed.values(P0).await, ["a"]);
}

pub(super) async fn a_repeat_with_another_payload_is_refused(engine: &dyn Engine) {
    let bed = TestBed::new(engine).await;
    let digested =
        |sequence, digest| ProducerStep { payload_digest: digest, ..step("id", 0, sequence) };
    bed.commit(producing(digested(0, Some([1; 32])), "a")).await;
    bed.commit(producing(digested(1, None), "b")).await;
    for (sequence, digest, passes) in [
        (0, Some([1; 32]), true),
        (0, Some([2; 32]), false),
        (0, None, true),
        (1, None, true),
        (1, Some([1; 32]), false),
    ] {
        let outcome = bed.store.commit(producing(digested(sequence, digest), "c")).await;
        match outcome {
            Ok(receipt) => assert!(passes && receipt.duplicate),
            Err(error) => assert!(!passes && error == CommitError::PayloadMismatch, "{error}"),
        }
    }
}

/// Neither a condition nor a dropped topic stands in the way of the original answer.
pub(super) async fn a_repeat_ignores_what_does_not_hold_any_more(engine: &dyn Engine) {
    let bed = TestBed::new(engine).await;
    let once = || {
        let mut once = producing(step("id", 0, 0), "a");
        once.expect("key", Expected::Absent).put("key", "value");
        once
    };
    let first = bed.commit(once()).await;
    bed.drop_topic(TOPIC).await;
    assert_eq!(bed.commit(once()).await, repeated(first));
}

pub(super) async fn a_lower_epoch_is_fenced(engine: &dyn Engine) {
    let bed = TestBed::new(engine).await;
    bed.commit(producing(step("id", 1, 0), "a")).await;
    bed.commit(producing(step("id", 5, 0), "b")).await;
    for (epoch, sequence) in [(1, 0), (1, 1), (0, 0), (4, 0)] {
        let refusal = bed.refusal(producing(step("id", epoch, sequence), "c")).await;
        assert_eq!(refusal, CommitError::Fenced { current: 5 });
    }
    assert_eq!(bed.values(P0).await, ["a", "b"]);
}

pub(super) async fn a_higher_epoch_starts_at_0(engine: &dyn Engine) {
    let bed = TestBed::new(engine).await;
    for sequence in 0..3 {
        bed.commit(producing(step("id", 0, sequence), "old")).await;
    }
    let receipt_of_old = receipt(&bed, 0, 1).await;
    assert!(receipt_of_old.is_some());
    let new = bed.commit(producing(step("id", 1, 0), "new")).await;
    assert!(!new.duplicate);
    assert_eq!(producer(&bed, "id").await, Some(ProducerState { epoch: 1, last_sequence: 0 }));
    // The old life's receipts are not the new one's.
    assert_eq!(receipt(&bed, 0, 1).await, None);
    assert_eq!(receipt(&bed, 1, 1).await, None);
    let next = bed.commit(producing(step("id", 1, 1), "next")).await;
    assert!(!next.duplicate);
    assert_eq!(bed.values(P0).await, ["old", "old", "old", "new", "next"]);
}

pub(super) async fn a_refused_transaction_consumes_no_sequence(engine: &dyn Engine) {
    let bed = TestBed::new(engine).await;
    bed.commit(putting("key", "value")).await;
    let mut refused = producing(step("id", 0, 0), "a");
    refused.expect("key", Expected::Absent);
    assert!(matches!(bed.refusal(refused).await, CommitError::Conflict { .. }));
    assert_eq!(producer(&bed, "id").await, None);
    let receipt = bed.commit(producing(step("id", 0, 0), "b")).await;
    assert!(!receipt.duplicate);
    assert_eq!(bed.values(P0).await, ["b"]);
}

pub(super) async fn an_expired_producer_is_as_never_seen(engine: &dyn Engine) {
    let mut bed = TestBed::new(engine).await;
    let in_seconds = |seconds: u64| Some(Timestamp(bed.clock.now().0 + seconds * 1000));
    let once =
        ProducerStep { expires: in_seconds(10), payload_digest: Some([1; 32]), ..step("id", 3, 0) };
    let other = ProducerStep { payload_digest: Some([2; 32]), ..once.clone() };
    let renewed = ProducerStep { expires: in_seconds(30), ..once.clone() };
    bed.commit(producing(once.clone(), "a")).await;
    bed.clock.advance(Duration::from_millis(9_999));
    assert!(bed.commit(producing(once, "again")).await.duplicate);
    assert!(producer(&bed, "id").await.is_some());
    bed.clock.advance(Duration::from_millis(1));
    assert_eq!(producer(&bed, "id").await, None);
    assert_eq!(receipt(&bed, 3, 0).await, None);
    bed.reopen().await;
    assert_eq!(producer(&bed, "id").await, None);
    // It begins anew, in any epoch and with any payload.
    let anew = ProducerStep { epoch: 0, expires: renewed.expires, ..other };
    assert!(!bed.commit(producing(anew.clone(), "b")).await.duplicate);
    bed.clock.advance(Duration::from_secs(10));
    assert!(bed.commit(producing(anew, "again")).await.duplicate);
    assert_eq!(bed.values(P0).await, ["a", "b"]);
}

pub(super) async fn producers_are_apart_by_project_and_id(engine: &dyn Engine) {
    let bed = TestBed::new(engine).await;
    let longest = "i".repeat(255);
    for id in ["id", "i", "id2", longest.as_str(), "ü"] {
        assert!(!bed.commit(producing(step(id, 0, 0), id)).await.duplicate);
    }
    let other = Transaction {
        project: ProjectName::parse("other").unwrap(),
        ..producing(step("id", 0, 0), "other")
    };
    assert!(!bed.commit(other).await.duplicate);
    assert_eq!(bed.values(P0).await, ["id", "i", "id2", longest.as_str(), "ü", "other"]);
}

pub(super) async fn a_transaction_without_appends_has_a_receipt(engine: &dyn Engine) {
    let bed = TestBed::new(engine).await;
    let empty = || Transaction {
        producer: Some(ProducerStep { note: "answer".into(), ..step("id", 0, 0) }),
        ..transaction()
    };
    let first = bed.commit(empty()).await;
    assert!(first.appends.is_empty() && !first.duplicate && first.durable);
    let repeat = bed.commit(empty()).await;
    assert_eq!(repeat, repeated(first));
    assert_eq!(repeat.note, "answer");
}

pub(super) async fn a_receipt_lists_every_append_in_order(engine: &dyn Engine) {
    let mut bed = TestBed::new(engine).await;
    bed.append(P1, &["before"]).await;
    let many = || {
        let mut many = appending(P1, &["a", "b"]);
        many.append(TOPIC, P0, batch(&["c"]));
        many.producer = Some(step("id", 0, 0));
        many
    };
    let first = bed.commit(many()).await;
    let places: Vec<_> =
        first.appends.iter().map(|a| (a.partition, a.base_offset, a.count)).collect();
    assert_eq!(places, [(P1, 1, 2), (P0, 0, 1)]);
    bed.reopen().await;
    assert_eq!(bed.commit(many()).await, repeated(first));
}
