//! Entries become tiles and checkpoints, each once, whatever breaks on the way.

use std::time::Duration;

use super::*;
use crate::ledger::merkle::Mark;
use crate::ledger::tree::Tree;

#[tokio::test]
async fn entries_become_a_tree_that_verifies() {
    let bed = Bed::new().await;
    for (offsets, size) in [(0..1, 1), (1..256, 256), (256..257, 257), (257..1_000, 1_000)] {
        bed.append(offsets).await;
        bed.integrate().await.unwrap();
        let verified = bed.verify().await.unwrap();
        assert_eq!(verified.mark.size, size);
        assert_eq!(bed.status().await.published, verified.mark);
    }
    let expected: Vec<Bytes> = (0..1_000).map(|offset| entry(offset).entry).collect();
    assert_eq!(bed.entries().await, expected);
    // The entries have left the state, and partial tiles of those that are full are gone.
    let rows = bed.store.scan(&bed.key.project, b"ledger-batch/", None, 10).await.unwrap();
    assert_eq!(rows, []);
    let paths = bed.paths().await;
    let partial: Vec<_> = paths.iter().filter(|path| path.contains(".p/")).collect();
    assert!(partial.iter().all(|path| path.contains("003.p/") || path.contains("tile/1/")));
    assert!(paths.contains(&"tile/entries/000".to_owned()), "{paths:?}");
    // With nothing new nothing is signed.
    let signed = bed.objects.checkpoints.lock().unwrap().len();
    bed.integrate().await.unwrap();
    assert_eq!(bed.objects.checkpoints.lock().unwrap().len(), signed);
}

#[tokio::test]
async fn a_replay_adds_nothing() {
    let bed = Bed::new().await;
    assert_eq!(bed.append(5..10).await, 5);
    assert_eq!(bed.append(0..12).await, 7);
    bed.integrate().await.unwrap();
    assert_eq!(bed.append(0..12).await, 0);
    assert_eq!(bed.try_append(vec![entry(20), entry(20)]).await.unwrap(), 1);
    // A topic that was made anew has offsets of its own, as another partition has.
    let others = vec![entry_of(source(2, 0, 5), "a"), entry_of(source(1, 1, 5), "b")];
    assert_eq!(bed.try_append(others).await.unwrap(), 2);
    bed.integrate().await.unwrap();
    assert_eq!(bed.verify().await.unwrap().mark.size, 15);
}

#[tokio::test]
async fn of_two_appends_at_once_one_is_refused() {
    let bed = Bed::new().await;
    let Key { project, ledger } = &bed.key;
    let mut transactions = Vec::new();
    for offsets in [0..3, 1..4] {
        let mut transaction = Transaction::new(project.clone());
        let entries = offsets.map(entry).collect();
        let appending = bed.ledgers.append(&mut transaction, project, ledger, entries).await;
        transactions.push((transaction, appending.unwrap()));
    }
    let mut committed = Vec::new();
    for (transaction, appending) in transactions {
        committed.push(bed.store.commit(transaction).await.is_ok());
        appending.done(*committed.last().unwrap());
    }
    assert_eq!(committed, [true, false]);
    assert_eq!(bed.append(1..4).await, 1);
    bed.integrate().await.unwrap();
    assert_eq!(bed.verify().await.unwrap().mark.size, 4);
}

#[tokio::test]
async fn too_many_entries_or_bytes_are_refused() {
    let bed = Bed::new().await;
    let max = ENTRIES_MAX as u64;
    // At the most scattered: a place row and an id row each.
    let scattered = |count| (0..count).map(|place| entry(place * 5_000)).collect::<Vec<_>>();
    let refused = bed.try_append(scattered(max + 1)).await;
    let is_limit = |error: &LedgerError, name: &str| matches!(error, LedgerError::TooLarge { limit, .. } if *limit == name);
    assert!(is_limit(&refused.unwrap_err(), "ledger_entries"));
    assert_eq!(bed.try_append(scattered(max)).await.unwrap(), ENTRIES_MAX);
    let sized = |bytes| LedgerEntry { entry: vec![b' '; bytes].into(), ..entry(1) };
    assert!(is_limit(
        &bed.try_append(vec![sized(BYTES_MAX + 1)]).await.unwrap_err(),
        "ledger_bytes"
    ));
    assert_eq!(bed.try_append(vec![sized(BYTES_MAX)]).await.unwrap(), 1);
    bed.integrate().await.unwrap();
    assert_eq!(bed.verify().await.unwrap().mark.size, max + 1);
}

#[tokio::test]
async fn a_long_event_is_kept_beside_the_tiles() {
    let bed = Bed::new().await;
    let long: Bytes = vec![b'x'; 65_536].into();
    let entries = vec![entry(0), LedgerEntry { entry: long.clone(), ..entry(1) }, entry(2)];
    bed.try_append(entries).await.unwrap();
    bed.integrate().await.unwrap();
    let verified = bed.verify().await.unwrap();
    assert_eq!((verified.mark.size, verified.data), (3, 1));
    let digest = entry::digest(&long);
    let (project, ledger) = (&bed.key.project, &bed.key.ledger);
    assert_eq!(bed.ledgers.data(project, ledger, &digest).await.unwrap(), long);
    let wanted = Wanted::Id("e1".to_owned());
    let receipt = bed.ledgers.receipt(project, ledger, &wanted).await.unwrap();
    let key = bed.verifier().await;
    let (entry, _) = receipt.verify(&key).unwrap();
    assert!(entry::ByDigest::parse(entry).unwrap().unwrap().is_of(&long));
    for no_digest in ["..", "", "checkpoint", &digest.to_uppercase()] {
        let refused = bed.ledgers.data(project, ledger, no_digest).await;
        assert!(matches!(refused, Err(LedgerError::NotPublished { .. })), "{no_digest}");
    }
}

/// Every checkpoint that was ever published is of a tree that the last one begins with.
async fn assert_one_history(bed: &Bed, what: &str) {
    let (files, key) = (bed.files(), bed.verifier().await);
    let last = key.checkpoint(&bed.file("checkpoint").await).unwrap();
    let mut tree = Tree::new(&files, last);
    let mut before = Mark::empty();
    let notes = bed.objects.checkpoints.lock().unwrap().clone();
    for note in notes {
        let mark = key.checkpoint(&note).unwrap();
        assert!(before.size <= mark.size, "{what}");
        assert_eq!(tree.before(mark.size).await.unwrap(), mark, "{what}");
        before = mark;
    }
}

/// The process dies at every step of two rounds, before and after the step has had its effect.
#[tokio::test]
async fn a_crash_at_any_step_loses_and_doubles_nothing() {
    let mut bed = Bed::new().await;
    for is_done in [false, true] {
        let mut deaths = 0;
        for dies_at in 0.. {
            let what = format!("step {dies_at}, done: {is_done}");
            bed.another(&format!("l-{dies_at}-{is_done}"));
            bed.append(0..300).await;
            bed.integrate().await.unwrap();
            bed.append(300..700).await;
            let fuse = Fuse::new(dies_at, is_done);
            bed.restart(fuse.clone());
            let first = bed.integrate().await;
            let second = bed.try_append((700..900).map(entry).collect()).await;
            let third = bed.integrate().await;
            // Removing what is not needed any more may fail unnoticed.
            let is_well = first.is_ok() && second.is_ok() && third.is_ok();
            assert!(is_well || fuse.has_died(), "{what}: {first:?} {second:?} {third:?}");
            bed.restart(Fuse::never());
            // What the dead one may have sequenced is not sequenced again.
            bed.append(650..1_000).await;
            bed.integrate().await.unwrap();
            assert_eq!(bed.verify().await.unwrap().mark.size, 1_000, "{what}");
            let expected: Vec<Bytes> = (0..1_000).map(|offset| entry(offset).entry).collect();
            assert_eq!(bed.entries().await, expected, "{what}");
            assert_one_history(&bed, &what).await;
            if !fuse.has_died() {
                deaths = dies_at;
                break;
            }
        }
        assert!(deaths > 30, "{deaths} steps are few");
    }
}

/// Asks for receipts of the entry until there is one, each of which waits for a second; returns it
/// and how many were asked for.
async fn await_receipt(bed: &Bed, offset: u64) -> (Receipt, u32) {
    let wanted = Wanted::Id(format!("e{offset}"));
    for asked in 1..=60 {
        match bed.ledgers.receipt(&bed.key.project, &bed.key.ledger, &wanted).await {
            Err(LedgerError::NotIntegrated { .. }) => {}
            done => return (done.unwrap(), asked),
        }
    }
    panic!("entry {offset} is not integrated");
}

#[tokio::test]
async fn what_is_sequenced_is_integrated_within_a_second() {
    let bed = Bed::new().await;
    let drain = Drain::default();
    let task = tokio::spawn(bed.ledgers.clone().run(drain.clone()));
    let mut slow = 0;
    for round in 0..5 {
        bed.append(round * 10..round * 10 + 10).await;
        let (receipt, asked) = await_receipt(&bed, round * 10 + 9).await;
        receipt.verify(&bed.verifier().await).unwrap();
        slow += u32::from(asked > 1);
    }
    // Disk and processors may be busy with other tests for a while, not all of the time.
    assert!(slow < 3, "{slow} of 5 took longer than a second");
    drain.begin();
    task.await.unwrap();
    bed.verify().await.unwrap();
}

#[tokio::test]
async fn what_was_sequenced_before_a_start_is_integrated_after_it() {
    let mut bed = Bed::new().await;
    bed.append(0..10).await;
    bed.restart(Fuse::never());
    let drain = Drain::default();
    let task = tokio::spawn(bed.ledgers.clone().run(drain.clone()));
    let (receipt, _) = await_receipt(&bed, 9).await;
    receipt.verify(&bed.verifier().await).unwrap();
    drain.begin();
    task.await.unwrap();
}

#[tokio::test]
async fn a_store_that_fails_for_a_while_is_tried_again() {
    let mut bed = Bed::new().await;
    bed.append(0..10).await;
    bed.restart(Fuse::new(0, false));
    let error = bed.integrate().await.unwrap_err();
    assert!(matches!(error, RoundError::Objects(_)), "{error:?}");
    assert!(matches!(bed.status().await.health, Health::Retrying { .. }));
    assert!(bed.ledgers.note(&bed.key, &error) < Duration::from_secs(1));
    bed.restart(Fuse::never());
    bed.integrate().await.unwrap();
    assert_eq!(bed.status().await.health, Health::Ok);
    bed.verify().await.unwrap();
}

#[tokio::test]
async fn a_folder_holds_the_same_files() {
    let folder = tempfile::tempdir().unwrap();
    let bed = Bed::new().await;
    let config = LedgersConfig {
        objects: Objects::open(folder.path().to_str().unwrap()).unwrap(),
        ..bed.ledgers.config.clone()
    };
    let parts = LedgersParts {
        store: bed.ledgers.store.clone(),
        clock: bed.ledgers.clock.clone(),
        projects: bed.ledgers.projects.clone(),
        sealer: bed.ledgers.sealer.clone(),
        config,
    };
    let ledgers = Arc::new(Ledgers::new(parts));
    let on_disk = Bed { ledgers, ..bed };
    for offsets in [0..100, 100..300, 300..600] {
        on_disk.append(offsets).await;
        on_disk.integrate().await.unwrap();
    }
    let path = folder.path().join("default").join("l");
    let files = Objects::existing_folder(&path).unwrap();
    let key = on_disk.verifier().await;
    assert_eq!(verify(&files, &key, |_| {}).await.unwrap().mark.size, 600);
    let names = |folder: &std::path::Path| {
        let entries = std::fs::read_dir(folder).unwrap();
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    };
    assert_eq!(names(&path), ["checkpoint", "tile"]);
    assert_eq!(names(&path.join("tile/entries")), ["000", "001", "002.p"]);
    assert_eq!(names(&path.join("tile/1")), ["000.p"]);
    assert!(Objects::existing_folder(&folder.path().join("none")).is_err());
    assert!(Objects::open("ftp://example.com/x").is_err());
}
