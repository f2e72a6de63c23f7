//! The life of a topic: created, written, dropped for good.

use super::Engine;
use super::test_bed::{
    P0, P1, TOPIC, TestBed, appending, batch, putting, request, transaction, values,
};
use crate::{
    Bounds, CommitError, CommitNumber, Expected, ReadError, ReadStart, Timestamp, TopicChange,
    TopicId, Transaction, Trim,
};

const OTHER: TopicId = TopicId(2);

fn changing(change: TopicChange) -> Transaction {
    let mut changing = transaction();
    changing.topics.push(change);
    changing
}

fn gone(topic: TopicId) -> CommitError {
    CommitError::TopicGone { topic }
}

pub(super) async fn an_append_to_an_unknown_topic_is_refused(engine: &dyn Engine) {
    let bed = TestBed::new(engine).await;
    let mut unknown = transaction();
    unknown.append(OTHER, P0, batch(&["a"]));
    assert_eq!(bed.refusal(unknown).await, gone(OTHER));
    assert_eq!(bed.refusal(changing(TopicChange::Drop(OTHER))).await, gone(OTHER));
}

pub(super) async fn a_topic_is_created_once(engine: &dyn Engine) {
    let mut bed = TestBed::new(engine).await;
    for _ in 0..2 {
        let refusal = bed.refusal(changing(TopicChange::Create(TOPIC))).await;
        assert!(matches!(refusal, CommitError::Invalid { .. }), "{refusal}");
        bed.reopen().await;
    }
    let outcomes = bed.commit_at_once([(); 2].map(|()| changing(TopicChange::Create(OTHER)))).await;
    assert!(outcomes[0].is_ok() && outcomes[1].is_err());
}

pub(super) async fn a_topic_is_created_with_its_first_records(engine: &dyn Engine) {
    let bed = TestBed::new(engine).await;
    let mut creating = changing(TopicChange::Create(OTHER));
    creating.append(OTHER, P1, batch(&["a"])).put("topic/other", "2");
    bed.commit(creating).await;
    let records = bed.store.read(request(OTHER, P1, ReadStart::Offset(0))).await.unwrap();
    assert_eq!(values(&records), ["a"]);
    assert_eq!(bed.state("topic/other").await.unwrap(), "2");
}

pub(super) async fn a_dropped_topic_takes_nothing_and_gives_nothing(engine: &dyn Engine) {
    let bed = TestBed::new(engine).await;
    bed.append(P0, &["a", "b"]).await;
    bed.create(OTHER).await;
    bed.drop_topic(TOPIC).await;
    assert_eq!(bed.refusal(appending(P0, &["c"])).await, gone(TOPIC));
    assert_eq!(bed.refusal(appending(P1, &["c"])).await, gone(TOPIC));
    for start in [0, 1, 2].map(ReadStart::Offset).into_iter().chain([
        ReadStart::AfterCommit(CommitNumber(0)),
        ReadStart::AfterCommit(CommitNumber(u64::MAX)),
        ReadStart::Time(Timestamp(0)),
    ]) {
        let refused = bed.read(P0, start).await.unwrap_err();
        assert_eq!(refused, ReadError::TopicGone { topic: TOPIC }, "{start:?}");
    }
    let Bounds { start, end, bytes, .. } = bed.bounds(P0).await;
    assert_eq!((end - start, bytes), (0, 0));
    bed.trim(P0, Trim::KeepBytes(0)).await.unwrap();
    let mut other = transaction();
    other.append(OTHER, P0, batch(&["still there"]));
    bed.commit(other).await;
}

pub(super) async fn a_dropped_id_is_never_accepted_again(engine: &dyn Engine) {
    let mut bed = TestBed::new(engine).await;
    bed.drop_topic(TOPIC).await;
    for _ in 0..2 {
        let refusal = bed.refusal(changing(TopicChange::Create(TOPIC))).await;
        assert!(matches!(refusal, CommitError::Invalid { .. }), "{refusal}");
        assert_eq!(bed.refusal(changing(TopicChange::Drop(TOPIC))).await, gone(TOPIC));
        bed.reopen().await;
    }
}

pub(super) async fn a_drop_happens_with_its_state_or_not_at_all(engine: &dyn Engine) {
    let bed = TestBed::new(engine).await;
    bed.append(P0, &["a"]).await;
    bed.commit(putting("topic/name", "1")).await;
    let mut dropping = changing(TopicChange::Drop(TOPIC));
    dropping.delete("topic/name").expect("other", Expected::Absent);
    bed.commit(putting("other", "")).await;
    assert!(matches!(bed.refusal(dropping.clone()).await, CommitError::Conflict { .. }));
    assert_eq!(bed.values(P0).await, ["a"]);
    assert_eq!(bed.state("topic/name").await.unwrap(), "1");
    dropping.conditions.clear();
    bed.commit(dropping).await;
    assert_eq!(bed.state("topic/name").await, None);
    assert_eq!(bed.refusal(appending(P0, &["b"])).await, gone(TOPIC));
}

pub(super) async fn a_drop_survives_reopening(engine: &dyn Engine) {
    let mut bed = TestBed::new(engine).await;
    bed.append(P0, &["a"]).await;
    bed.drop_topic(TOPIC).await;
    bed.reopen().await;
    assert_eq!(bed.refusal(appending(P0, &["b"])).await, gone(TOPIC));
    let Bounds { start, end, .. } = bed.bounds(P0).await;
    assert_eq!(start, end);
}
