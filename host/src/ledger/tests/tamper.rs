//! What was changed behind the ledger's back is found, and nothing is signed on top of it.

use super::*;

/// A ledger of 300 entries that knows an earlier checkpoint.
async fn bed() -> (Bed, Bytes) {
    let bed = Bed::new().await;
    bed.append(0..256).await;
    bed.integrate().await.unwrap();
    let earlier = bed.file("checkpoint").await;
    let long = LedgerEntry { entry: vec![b'x'; 70_000].into(), ..entry(299) };
    bed.try_append((256..299).map(entry).chain([long]).collect()).await.unwrap();
    bed.integrate().await.unwrap();
    (bed, earlier)
}

/// The ledger stops, says why, takes nothing and signs nothing; and goes on once it is put right.
async fn assert_stops(bed: &Bed, what: &str, reason: &str) {
    bed.append(300..310).await;
    let published = bed.files().get("checkpoint").await.unwrap();
    let error = bed.integrate().await.unwrap_err();
    assert!(matches!(error, RoundError::Stopped(_)), "{what}: {error:?}");
    assert_eq!(bed.files().get("checkpoint").await.unwrap(), published, "{what}");
    let Health::Stopped { reason: found } = bed.status().await.health else { panic!("{what}") };
    assert!(found.contains(reason), "{what}: {found}");
    let refused = bed.try_append(vec![entry(400)]).await;
    assert!(matches!(refused, Err(LedgerError::Stopped { .. })), "{what}: {refused:?}");
    let wanted = Wanted::Id("e305".to_owned());
    let refused = bed.ledgers.receipt(&bed.key.project, &bed.key.ledger, &wanted).await;
    assert!(refused.is_err(), "{what}");
}

async fn assert_goes_on(bed: &Bed, what: &str) {
    bed.integrate().await.unwrap();
    assert_eq!(bed.status().await.health, Health::Ok, "{what}");
    assert_eq!(bed.verify().await.unwrap().mark.size, 310, "{what}");
    bed.append(310..311).await;
}

#[tokio::test]
async fn a_ledger_stops_at_a_changed_edge_and_goes_on_once_it_is_put_right() {
    let edge = ["checkpoint", "tile/0/001.p/44", "tile/1/000.p/1", "tile/entries/001.p/44"];
    for path in edge {
        for is_removed in [true, false] {
            let (bed, _) = bed().await;
            let right = bed.file(path).await;
            if is_removed {
                bed.remove(path).await;
            } else {
                let mut wrong = right.to_vec();
                *wrong.last_mut().unwrap() ^= 1;
                bed.set(path, wrong.into()).await;
            }
            let what = format!("{path}, removed: {is_removed}");
            assert_stops(&bed, &what, "").await;
            bed.set(path, right).await;
            assert_goes_on(&bed, &what).await;
        }
    }
}

#[tokio::test]
async fn a_checkpoint_that_was_put_back_is_noticed() {
    let (bed, earlier) = bed().await;
    let right = bed.file("checkpoint").await;
    bed.set("checkpoint", earlier).await;
    assert_stops(&bed, "put back", "put back or changed").await;
    let served = bed.ledgers.checkpoint(&bed.key.project, &bed.key.ledger).await;
    assert!(served.is_ok(), "an earlier checkpoint is true, though old: {served:?}");
    bed.set("checkpoint", right).await;
    assert_goes_on(&bed, "put back").await;
}

#[tokio::test]
async fn a_store_that_was_put_back_is_noticed() {
    let (bed, _) = bed().await;
    // As of before the first checkpoint.
    let mut transaction = Transaction::new(bed.key.project.clone());
    transaction.delete(rows::tree(&bed.key.ledger));
    bed.store.commit(transaction).await.unwrap();
    assert_stops(&bed, "state", "put back or changed").await;
}

#[tokio::test]
async fn entries_that_are_gone_from_the_store_are_noticed() {
    let (bed, _) = bed().await;
    bed.append(300..305).await;
    let mut transaction = Transaction::new(bed.key.project.clone());
    transaction.delete(rows::batch(&bed.key.ledger, 300));
    bed.store.commit(transaction).await.unwrap();
    assert_stops(&bed, "gap", "no entries from index 300").await;
}

#[tokio::test]
async fn the_checkpoint_of_another_key_is_noticed() {
    let (bed, _) = bed().await;
    let other = Bed::new().await;
    other.append(0..300).await;
    other.integrate().await.unwrap();
    bed.set("checkpoint", other.file("checkpoint").await).await;
    let served = bed.ledgers.checkpoint(&bed.key.project, &bed.key.ledger).await;
    assert!(matches!(served, Err(LedgerError::Damaged { .. })), "{served:?}");
    assert_stops(&bed, "another key", "not what was signed").await;
}

/// A tree that was signed, and whose checkpoint did not come out, is the next one that does: with
/// other entries under the same indexes, nothing does.
#[tokio::test]
async fn no_other_tree_of_a_signed_size_is_signed() {
    let (mut bed, _) = bed().await;
    bed.append(300..310).await;
    let before = bed.objects.checkpoints.lock().unwrap().len();
    // Dies at some step between remembering what is signed and publishing it.
    for dies_at in 0.. {
        bed.restart(Fuse::new(dies_at, false));
        assert!(bed.integrate().await.is_err());
        let (tree, _) = bed.ledgers.tree(&bed.key).await.unwrap();
        if tree.signed != tree.published {
            break;
        }
    }
    assert_eq!(bed.objects.checkpoints.lock().unwrap().len(), before);
    bed.restart(Fuse::never());
    // Another history of the same length.
    let row = bed.store.get(&bed.key.project, rows::batch(&bed.key.ledger, 300).as_bytes()).await;
    let mut other = row.unwrap().unwrap().value.to_vec();
    *other.last_mut().unwrap() ^= 0;
    let at = other.iter().position(|byte| *byte == b'3').unwrap();
    other[at] = b'4';
    let mut transaction = Transaction::new(bed.key.project.clone());
    transaction.put(rows::batch(&bed.key.ledger, 300), other);
    bed.store.commit(transaction).await.unwrap();
    let error = bed.integrate().await.unwrap_err();
    assert!(error.to_string().contains("make another"), "{error}");
    assert_eq!(bed.objects.checkpoints.lock().unwrap().len(), before);
}

#[tokio::test]
async fn verifying_finds_every_changed_and_every_missing_file() {
    let (bed, earlier) = bed().await;
    bed.verify().await.unwrap();
    let needed: Vec<String> =
        bed.paths().await.into_iter().filter(|path| path != "tile/1/000.p/1").collect();
    assert!(needed.len() >= 6, "{needed:?}");
    for path in needed.iter().map(String::as_str).chain(["tile/1/000.p/1"]) {
        let right = bed.file(path).await;
        for place in [0, right.len() / 2, right.len() - 1] {
            let mut wrong = right.to_vec();
            wrong[place] ^= 1;
            bed.set(path, wrong.into()).await;
            assert!(bed.verify().await.is_err(), "{path} changed at {place}");
        }
        bed.set(path, [&right[..], b"x"].concat().into()).await;
        assert!(bed.verify().await.is_err(), "{path} longer");
        bed.set(path, right.slice(1..)).await;
        assert!(bed.verify().await.is_err(), "{path} shorter");
        bed.remove(path).await;
        assert!(bed.verify().await.is_err(), "{path} missing");
        bed.set(path, right).await;
        bed.verify().await.unwrap();
    }
    // An earlier state of the whole is a ledger too.
    bed.set("checkpoint", earlier).await;
    assert_eq!(bed.verify().await.unwrap().mark.size, 256);
    let other = Bed::new().await;
    other.append(0..1).await;
    let key = other.verifier().await;
    assert!(verify(&bed.files(), &key, |_| {}).await.is_err());
    assert!(verify(&other.files(), &key, |_| {}).await.is_err());
}
