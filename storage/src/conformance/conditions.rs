//! A transaction happens only while all its conditions hold.

use super::Engine;
use super::test_bed::{P0, TestBed, appending, project, putting, transaction};
use crate::{Bounds, CommitError, Expected, ProjectName, Transaction, Version};

fn conflict(key: &'static str) -> CommitError {
    CommitError::Conflict { key: key.into() }
}

/// Puts `value` to `key` if `key` is as expected.
fn putting_if(key: &'static str, expected: Expected, value: &str) -> Transaction {
    let mut putting = putting(key, value);
    putting.expect(key, expected);
    putting
}

async fn version(bed: &TestBed<'_>, key: &str) -> Version {
    bed.store.get(&project(), key.as_bytes()).await.unwrap().unwrap().version
}

pub(super) async fn a_condition_on_an_absent_key_holds_once(engine: &dyn Engine) {
    let bed = TestBed::new(engine).await;
    bed.commit(putting_if("key", Expected::Absent, "first")).await;
    let refusal = bed.refusal(putting_if("key", Expected::Absent, "second")).await;
    assert_eq!(refusal, conflict("key"));
    assert_eq!(bed.state("key").await.unwrap(), "first");
}

pub(super) async fn a_condition_on_a_version_holds_until_the_next_write(engine: &dyn Engine) {
    let bed = TestBed::new(engine).await;
    bed.commit(putting("key", "1")).await;
    let first = Expected::Version(version(&bed, "key").await);
    bed.commit(putting_if("key", first, "2")).await;
    assert_eq!(bed.refusal(putting_if("key", first, "3")).await, conflict("key"));
    let second = Expected::Version(version(&bed, "key").await);
    assert_ne!(first, second);
    // A write of the same value is a write.
    bed.commit(putting("key", "2")).await;
    assert_eq!(bed.refusal(putting_if("key", second, "3")).await, conflict("key"));
}

pub(super) async fn a_deleted_key_is_absent(engine: &dyn Engine) {
    let bed = TestBed::new(engine).await;
    bed.commit(putting("key", "1")).await;
    let before = Expected::Version(version(&bed, "key").await);
    let mut deleting = transaction();
    deleting.expect("key", before).delete("key");
    bed.commit(deleting).await;
    assert_eq!(bed.refusal(putting_if("key", before, "2")).await, conflict("key"));
    bed.commit(putting_if("key", Expected::Absent, "3")).await;
    assert_ne!(Expected::Version(version(&bed, "key").await), before);
}

pub(super) async fn a_conflict_names_its_key_and_stores_nothing(engine: &dyn Engine) {
    let bed = TestBed::new(engine).await;
    bed.commit(putting("there", "1")).await;
    let mut refused = appending(P0, &["a"]);
    refused.put("new", "value").delete("there");
    refused.expect("absent", Expected::Absent).expect("there", Expected::Absent);
    assert_eq!(bed.refusal(refused).await, conflict("there"));
    assert_eq!(bed.bounds(P0).await, Bounds::default());
    assert_eq!(bed.state("new").await, None);
    assert_eq!(bed.state("there").await.unwrap(), "1");
}

pub(super) async fn of_two_made_at_once_on_the_same_condition_one_commits(engine: &dyn Engine) {
    let bed = TestBed::new(engine).await;
    for round in 0..20 {
        let key = format!("key {round}");
        let transactions = ["first", "second"].map(|value| {
            let mut putting = putting(&key, value);
            putting.expect(key.clone(), Expected::Absent);
            putting
        });
        let outcomes = bed.commit_at_once(transactions).await;
        assert!(outcomes[0].is_ok());
        let expected = CommitError::Conflict { key: key.clone().into() };
        assert_eq!(outcomes[1], Err(expected));
        assert_eq!(bed.state(&key).await.unwrap(), "first");
    }
}

pub(super) async fn a_condition_sees_the_write_of_an_earlier_call_made_at_once(
    engine: &dyn Engine,
) {
    let bed = TestBed::new(engine).await;
    bed.commit(putting("key", "1")).await;
    let first = Expected::Version(version(&bed, "key").await);
    let mut deleting = transaction();
    deleting.expect("key", first).delete("key");
    let outcomes = bed
        .commit_at_once([
            deleting,
            putting_if("key", first, "2"),
            putting_if("key", Expected::Absent, "3"),
            putting_if("key", Expected::Absent, "4"),
        ])
        .await;
    let refused: Vec<bool> = outcomes.iter().map(Result::is_err).collect();
    assert_eq!(refused, [false, true, false, true]);
    assert_eq!(bed.state("key").await.unwrap(), "3");
}

pub(super) async fn a_condition_is_on_the_own_projects_key(engine: &dyn Engine) {
    let bed = TestBed::new(engine).await;
    bed.commit(putting("key", "mine")).await;
    let mut theirs = putting_if("key", Expected::Absent, "theirs");
    theirs.project = ProjectName::parse("other").unwrap();
    bed.commit(theirs).await;
    assert_eq!(bed.state("key").await.unwrap(), "mine");
}

pub(super) async fn versions_survive_reopening(engine: &dyn Engine) {
    let mut bed = TestBed::new(engine).await;
    bed.commit(putting("key", "1")).await;
    let before = Expected::Version(version(&bed, "key").await);
    bed.reopen().await;
    bed.commit(putting_if("key", before, "2")).await;
    assert_ne!(Expected::Version(version(&bed, "key").await), before);
}
