//! State: small values under keys, read singly and by scans.

use std::sync::Arc;

use super::Engine;
use super::test_bed::{TestBed, in_time, project, putting, transaction};
use crate::{ProjectName, Transaction};

pub(super) async fn the_last_write_of_a_key_is_read(engine: &dyn Engine) {
    let mut bed = TestBed::new(engine).await;
    assert_eq!(bed.state("key").await, None);
    bed.commit(putting("key", "1")).await;
    bed.commit(putting("key", "2")).await;
    assert_eq!(bed.state("key").await.unwrap(), "2");
    let mut deleting = transaction();
    deleting.delete("key").delete("was never there");
    bed.commit(deleting).await;
    assert_eq!(bed.state("key").await, None);
    bed.commit(putting("key", "3")).await;
    bed.reopen().await;
    assert_eq!(bed.state("key").await.unwrap(), "3");
}

pub(super) async fn a_scan_takes_prefix_start_and_limit_in_byte_order(engine: &dyn Engine) {
    let bed = TestBed::new(engine).await;
    let mut putting = transaction();
    for key in ["a/2", "b", "a/10", "a", "a/1", "a0", "a.9", "a/1/x"] {
        putting.put(key, key);
    }
    bed.commit(putting).await;
    for (prefix, after, limit, expected) in [
        ("", None, 100, &["a", "a.9", "a/1", "a/1/x", "a/10", "a/2", "a0", "b"][..]),
        ("a/", None, 100, &["a/1", "a/1/x", "a/10", "a/2"]),
        ("a/", None, 2, &["a/1", "a/1/x"]),
        ("a/", None, 0, &[]),
        ("a/", Some("a/1"), 2, &["a/1/x", "a/10"]),
        ("a/", Some("a/15"), 100, &["a/2"]),
        ("a/", Some("a/2"), 100, &[]),
        ("a/", Some("a"), 1, &["a/1"]),
        ("a/", Some(""), 1, &["a/1"]),
        ("a/", Some("b"), 100, &[]),
        ("", Some("a/2"), 100, &["a0", "b"]),
        ("c", None, 100, &[]),
    ] {
        let after = after.map(str::as_bytes);
        let rows = bed.store.scan(&project(), prefix.as_bytes(), after, limit).await.unwrap();
        let found: Vec<_> = rows.iter().map(|row| row.key.clone()).collect();
        assert_eq!(found, expected, "{prefix:?} after {after:?}, at most {limit}");
        for row in rows {
            assert_eq!(row.versioned.value, row.key);
            let got = bed.store.get(&project(), &row.key).await.unwrap();
            assert_eq!(got, Some(row.versioned));
        }
    }
}

pub(super) async fn many_keys_are_read_in_the_order_given(engine: &dyn Engine) {
    let bed = TestBed::new(engine).await;
    let mut putting = transaction();
    putting.put("a", "1").put("b", "2");
    bed.commit(putting).await;
    let keys = ["b", "none", "a", "b"].map(bytes::Bytes::from);
    let found = bed.store.get_many(&project(), &keys).await.unwrap();
    let values: Vec<_> = found.into_iter().map(|row| row.map(|row| row.value)).collect();
    assert_eq!(values, [Some("2".into()), None, Some("1".into()), Some("2".into())]);
    assert_eq!(bed.store.get_many(&project(), &[]).await.unwrap(), []);
}

pub(super) async fn projects_whose_names_start_alike_are_apart(engine: &dyn Engine) {
    let bed = TestBed::new(engine).await;
    let names = ["a", "ab", "abc", "b"].map(|name| ProjectName::parse(name).unwrap());
    let projects: Vec<_> = names.into_iter().chain([ProjectName::system()]).collect();
    for project in &projects {
        let mut putting = Transaction::new(project.clone());
        putting.put("bc", project.as_str().to_owned()).put("c", project.as_str().to_owned());
        bed.commit(putting).await;
    }
    for project in &projects {
        let rows = bed.store.scan(project, b"", None, 100).await.unwrap();
        let found: Vec<_> = rows.iter().map(|row| (&*row.key, &*row.versioned.value)).collect();
        let own = project.as_str().as_bytes();
        assert_eq!(found, [(&b"bc"[..], own), (b"c", own)], "{project}");
        assert_eq!(bed.store.get(project, b"b").await.unwrap(), None);
    }
}

pub(super) async fn a_scan_never_sees_half_a_transaction(engine: &dyn Engine) {
    const KEYS: usize = 200;
    const ROUNDS: usize = 100;
    let bed = TestBed::new(engine).await;
    let write_round = |round: usize| {
        let mut putting = transaction();
        for key in 0..KEYS {
            putting.put(format!("key {key}"), round.to_string());
        }
        putting
    };
    bed.commit(write_round(0)).await;
    let store = Arc::clone(&bed.store);
    let writer = tokio::spawn(async move {
        for round in 1..=ROUNDS {
            store.commit(write_round(round)).await.unwrap();
        }
    });
    loop {
        let done = writer.is_finished();
        let rows = in_time(bed.store.scan(&project(), b"key", None, usize::MAX)).await.unwrap();
        assert_eq!(rows.len(), KEYS);
        let first = &rows[0].versioned;
        assert!(rows.iter().all(|row| row.versioned == *first), "in round {:?}", first.value);
        if done {
            assert_eq!(first.value, ROUNDS.to_string());
            break;
        }
    }
    in_time(writer).await.unwrap();
}

pub(super) async fn values_of_any_bytes_are_kept(engine: &dyn Engine) {
    let bed = TestBed::new(engine).await;
    let all_bytes: Vec<u8> = (0..=255).collect();
    let long = vec![7; 1 << 20];
    let values = [(&[0_u8][..], &[][..]), (&[255; 8], &all_bytes), (&all_bytes, &long)];
    let mut putting = transaction();
    for (key, value) in values {
        putting.put(key.to_vec(), value.to_vec());
    }
    bed.commit(putting).await;
    for (key, value) in values {
        assert_eq!(bed.store.get(&project(), key).await.unwrap().unwrap().value, value);
    }
}
