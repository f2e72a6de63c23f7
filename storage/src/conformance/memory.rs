//! Records that are acknowledged before they are synced.

use std::time::Duration;

use super::Engine;
use super::test_bed::{
    P0, TOPIC, TestBed, appending, in_time, numbered, producing, putting, step, transaction,
};
use crate::{Ack, Expected, TopicChange, TopicId, Transaction, Watch};

/// After this at the latest they are synced.
const SYNC_DELAY_MAX: Duration = Duration::from_secs(1);

fn from_memory(transaction: Transaction) -> Transaction {
    Transaction { ack: Ack::Memory, ..transaction }
}

/// Waits until `end` records of the first partition can be read.
async fn readable(bed: &TestBed<'_>, end: u64) {
    let mut receiver = bed.store.watch(Watch::Topic(TOPIC));
    bed.clock.advance(SYNC_DELAY_MAX);
    while bed.bounds(P0).await.end < end {
        in_time(receiver.changed()).await.unwrap();
    }
}

pub(super) async fn a_record_acknowledged_from_memory_is_not_durable_yet_and_readable_soon(
    engine: &dyn Engine,
) {
    let bed = TestBed::new(engine).await;
    let receipt = bed.commit(from_memory(appending(P0, &["a"]))).await;
    assert!(!receipt.durable && !receipt.duplicate);
    assert_eq!(receipt.appends[0].base_offset, 0);
    readable(&bed, 1).await;
    assert_eq!(bed.values(P0).await, ["a"]);
}

pub(super) async fn records_acknowledged_from_memory_keep_their_offsets(engine: &dyn Engine) {
    let bed = TestBed::new(engine).await;
    let all = numbered(60);
    for (value, offset) in all.iter().zip(0..) {
        let appending = appending(P0, &[value.as_str()]);
        // Every seventh is synced, and with it all before.
        let durable = offset % 7 == 6;
        let receipt = bed.commit(if durable { appending } else { from_memory(appending) }).await;
        assert_eq!(receipt.appends[0].base_offset, offset);
        if durable {
            assert!(receipt.durable);
            assert_eq!(bed.values(P0).await, all[..=offset as usize]);
        }
    }
    readable(&bed, 60).await;
    assert_eq!(bed.values(P0).await, all);
}

pub(super) async fn records_acknowledged_from_memory_survive_closing(engine: &dyn Engine) {
    let mut bed = TestBed::new(engine).await;
    bed.commit(from_memory(appending(P0, &["a", "b"]))).await;
    bed.reopen().await;
    assert_eq!(bed.values(P0).await, ["a", "b"]);
    assert_eq!(bed.append(P0, &["c"]).await.appends[0].base_offset, 2);
}

pub(super) async fn what_is_more_than_records_is_durable_at_once(engine: &dyn Engine) {
    let bed = TestBed::new(engine).await;
    let mut conditioned = appending(P0, &["a"]);
    conditioned.expect("absent", Expected::Absent);
    let mut creating = transaction();
    creating.topics.push(TopicChange::Create(TopicId(2)));
    for more in [conditioned, creating, putting("key", "value"), producing(step("id", 0, 0), "b")] {
        assert!(bed.commit(from_memory(more)).await.durable);
    }
    assert_eq!(bed.values(P0).await, ["a", "b"]);
    let repeat = bed.commit(from_memory(producing(step("id", 0, 0), "b"))).await;
    assert!(repeat.durable && repeat.duplicate);
}
