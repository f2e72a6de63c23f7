//! Who watches is woken when there may be something new.

use std::sync::Arc;

use tokio::sync::watch::Receiver;

use super::Engine;
use super::test_bed::{
    P0, P1, TOPIC, TestBed, appending, batch, in_time, numbered, project, putting, transaction,
};
use crate::{ProjectName, TopicId, Trim, Watch};

async fn woken(receiver: &mut Receiver<u64>) {
    in_time(receiver.changed()).await.unwrap();
}

pub(super) async fn who_watches_a_topic_is_woken_by_appends_trims_and_its_drop(
    engine: &dyn Engine,
) {
    let bed = TestBed::new(engine).await;
    let mut first = bed.store.watch(Watch::Topic(TOPIC));
    let mut second = bed.store.watch(Watch::Topic(TOPIC));
    bed.append(P0, &["a"]).await;
    woken(&mut first).await;
    bed.append(P1, &["b"]).await;
    woken(&mut first).await;
    bed.trim(P0, Trim::Before(1)).await.unwrap();
    woken(&mut first).await;
    bed.drop_topic(TOPIC).await;
    woken(&mut first).await;
    assert!(!first.has_changed().unwrap());
    // Several prompts came as one.
    woken(&mut second).await;
    assert!(!second.has_changed().unwrap());
}

pub(super) async fn who_watches_a_topic_is_not_woken_by_another(engine: &dyn Engine) {
    let bed = TestBed::new(engine).await;
    let other = TopicId(2);
    bed.create(other).await;
    let receiver = bed.store.watch(Watch::Topic(TOPIC));
    let mut appending = transaction();
    appending.append(other, P0, batch(&["a"])).put("key", "value");
    bed.commit(appending).await;
    assert!(!receiver.has_changed().unwrap());
}

pub(super) async fn who_watches_state_is_woken_by_puts_and_deletes_of_the_project(
    engine: &dyn Engine,
) {
    let bed = TestBed::new(engine).await;
    let mut own = bed.store.watch(Watch::State(project()));
    let other = bed.store.watch(Watch::State(ProjectName::system()));
    bed.commit(putting("key", "value")).await;
    woken(&mut own).await;
    let mut deleting = transaction();
    deleting.delete("key");
    bed.commit(deleting).await;
    woken(&mut own).await;
    bed.append(P0, &["a"]).await;
    assert!(!own.has_changed().unwrap());
    assert!(!other.has_changed().unwrap());
}

pub(super) async fn who_subscribes_before_reading_misses_nothing(engine: &dyn Engine) {
    const RECORDS: usize = 300;
    let bed = TestBed::new(engine).await;
    let store = Arc::clone(&bed.store);
    let writer = tokio::spawn(async move {
        for value in numbered(RECORDS) {
            store.commit(appending(P0, &[value.as_str()])).await.unwrap();
        }
    });
    let mut receiver = bed.store.watch(Watch::Topic(TOPIC));
    let mut seen = bed.bounds(P0).await.end;
    while seen < RECORDS as u64 {
        woken(&mut receiver).await;
        seen = bed.bounds(P0).await.end;
    }
    in_time(writer).await.unwrap();
}
