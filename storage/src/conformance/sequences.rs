//! Transactions of one producer that arrive out of order.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;

use super::Engine;
use super::test_bed::{P0, P1, TestBed, all, appending, in_time, producing, step};
use crate::{CommitError, Receipt, Transaction};

/// How long an early one waits.
const WAIT_MAX: Duration = Duration::from_secs(1);
/// How many of one producer wait.
const WAITING_MAX: u64 = 16;

type Outcome = Result<Receipt, CommitError>;

/// Commits beside the test. When this returns, the store has seen the transaction.
async fn begin(bed: &TestBed<'_>, transaction: Transaction) -> JoinHandle<Outcome> {
    let store = Arc::clone(&bed.store);
    let begun = tokio::spawn(async move { store.commit(transaction).await });
    tokio::task::yield_now().await;
    // Transactions of a project are taken in the order of their calls.
    bed.append(P1, &["marker"]).await;
    begun
}

fn gap(expected: u64, received: u64) -> CommitError {
    CommitError::SequenceGap { expected, received }
}

pub(super) async fn an_early_sequence_waits_for_the_missing_one(engine: &dyn Engine) {
    let bed = TestBed::new(engine).await;
    let early = begin(&bed, producing(step("id", 0, 1), "second")).await;
    assert!(!early.is_finished());
    assert_eq!(bed.bounds(P0).await.end, 0);
    bed.commit(producing(step("id", 0, 0), "first")).await;
    let receipt = in_time(early).await.unwrap().unwrap();
    assert!(!receipt.duplicate && receipt.durable);
    assert_eq!(bed.values(P0).await, ["first", "second"]);
}

pub(super) async fn early_sequences_commit_in_their_order(engine: &dyn Engine) {
    let bed = TestBed::new(engine).await;
    let values = ["0", "1", "2", "3", "4", "5"];
    let order = [5, 3, 1, 4, 0, 2];
    let outcomes = bed
        .commit_at_once(
            order
                .map(|sequence: u64| producing(step("id", 0, sequence), values[sequence as usize])),
        )
        .await;
    for (sequence, outcome) in order.iter().zip(outcomes) {
        assert_eq!(outcome.unwrap().appends[0].base_offset, *sequence);
    }
    assert_eq!(bed.values(P0).await, values);
}

pub(super) async fn an_early_sequence_is_refused_in_time(engine: &dyn Engine) {
    let bed = TestBed::new(engine).await;
    bed.commit(producing(step("id", 0, 0), "0")).await;
    let early = begin(&bed, producing(step("id", 0, 2), "2")).await;
    let new_life = begin(&bed, producing(step("id", 1, 1), "1")).await;
    let unknown = begin(&bed, producing(step("other", 0, 9), "9")).await;
    bed.clock.advance(WAIT_MAX - Duration::from_millis(1));
    bed.append(P1, &["not yet"]).await;
    for waiting in [&early, &new_life, &unknown] {
        assert!(!waiting.is_finished());
    }
    bed.clock.advance(Duration::from_millis(1));
    bed.append(P1, &["now"]).await;
    for (waiting, error) in [(early, gap(1, 2)), (new_life, gap(0, 1)), (unknown, gap(0, 9))] {
        assert_eq!(in_time(waiting).await.unwrap(), Err(error));
    }
    // What came too late may be sent again.
    bed.commit(producing(step("id", 0, 1), "1")).await;
    bed.commit(producing(step("id", 0, 2), "2")).await;
    assert_eq!(bed.values(P0).await, ["0", "1", "2"]);
}

pub(super) async fn at_most_16_wait(engine: &dyn Engine) {
    let bed = TestBed::new(engine).await;
    let mut waiting = Vec::new();
    for sequence in 1..=WAITING_MAX {
        waiting.push(begin(&bed, producing(step("id", 0, sequence), "early")).await);
    }
    let one_more = WAITING_MAX + 1;
    let refusal = in_time(bed.refusal(producing(step("id", 0, one_more), "early"))).await;
    assert_eq!(refusal, gap(0, one_more));
    bed.commit(producing(step("id", 0, 0), "first")).await;
    for outcome in all(waiting).await {
        outcome.unwrap().unwrap();
    }
    assert_eq!(bed.bounds(P0).await.end, WAITING_MAX + 1);
}

pub(super) async fn waiting_does_not_hold_up_other_producers(engine: &dyn Engine) {
    let bed = TestBed::new(engine).await;
    let early = begin(&bed, producing(step("id", 0, 1), "early")).await;
    bed.commit(producing(step("other", 0, 0), "other")).await;
    bed.commit(appending(P0, &["without"])).await;
    assert!(!early.is_finished());
    bed.commit(producing(step("id", 0, 0), "first")).await;
    in_time(early).await.unwrap().unwrap();
    assert_eq!(bed.values(P0).await, ["other", "without", "first", "early"]);
}
