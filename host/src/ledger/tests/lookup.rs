//! Receipts by place and by id, and consistency proofs.

use tokio::sync::Barrier;

use super::*;
use crate::ledger::merkle;

async fn receipt(bed: &Bed, wanted: &Wanted) -> Result<(u64, String), LedgerError> {
    let receipt = bed.ledgers.receipt(&bed.key.project, &bed.key.ledger, wanted).await?;
    let key = bed.verifier().await;
    let read = Receipt::parse(&receipt.to_string()).unwrap();
    let (entry, _) = read.verify(&key).unwrap();
    Ok((read.index, String::from_utf8(entry.to_vec()).unwrap()))
}

fn place(partition: u32, offset: u64) -> Wanted {
    let topic = TopicName::parse("t").unwrap();
    Wanted::Place { topic, partition: Partition(partition), offset }
}

#[tokio::test]
async fn every_entry_has_a_receipt_by_its_place() {
    let bed = Bed::new().await;
    // Two partitions in turns, with gaps, in an order of their own.
    let sources = (0..600).map(|n| source(1, n % 2, u64::from((n * 7) % 600)));
    let entries: Vec<_> = sources.map(|source| entry_of(source, "same")).collect();
    bed.try_append(entries.clone()).await.unwrap();
    bed.integrate().await.unwrap();
    for (index, entry) in entries.iter().enumerate() {
        let Source { slot, offset, .. } = entry.source;
        let found = receipt(&bed, &place(slot.partition.0, offset)).await.unwrap();
        assert_eq!(found, (index as u64, String::from_utf8(entry.entry.to_vec()).unwrap()));
    }
    let missing = receipt(&bed, &place(0, 1)).await;
    assert!(matches!(missing, Err(LedgerError::NoEntry { .. })), "{missing:?}");
    // The newest of an id.
    let found = receipt(&bed, &Wanted::Id("same".to_owned())).await.unwrap();
    assert_eq!(found.0, 599);
}

#[tokio::test]
async fn of_topics_that_had_a_name_the_newest_counts_that_has_the_offset() {
    let bed = Bed::new().await;
    let entries = [(3, 0), (3, 1), (20, 0), (1_000, 9)];
    let entries = entries.map(|(topic, offset)| entry_of(source(topic, 0, offset), "x"));
    bed.try_append(entries.to_vec()).await.unwrap();
    bed.integrate().await.unwrap();
    for (offset, index) in [(0, 2), (1, 1), (9, 3)] {
        assert_eq!(receipt(&bed, &place(0, offset)).await.unwrap().0, index, "{offset}");
    }
    assert_eq!(receipt(&bed, &Wanted::Id("x".to_owned())).await.unwrap().0, 3);
}

#[tokio::test]
async fn a_first_checkpoint_that_comes_while_it_is_looked_for_is_found() {
    let mut bed = Bed::new().await;
    bed.append(0..2).await;
    let gate = Arc::new(Barrier::new(2));
    let objects = FaultyObjects { gate: Some(gate.clone()), ..bed.objects.clone() };
    let reader = Bed::on(&bed.store, &objects);
    bed.restart(Fuse::never());
    let publishing = async {
        gate.wait().await;
        bed.integrate().await.unwrap();
        gate.wait().await;
    };
    let reading = reader.checkpoint(&bed.key.project, &bed.key.ledger);
    let (found, ()) = tokio::join!(reading, publishing);
    assert_eq!(found.unwrap(), bed.file("checkpoint").await);
}

#[tokio::test(start_paused = true)]
async fn a_receipt_waits_for_a_second_and_says_what_is_missing() {
    let bed = Bed::new().await;
    bed.append(0..2).await;
    let start = tokio::time::Instant::now();
    let waiting = receipt(&bed, &Wanted::Id("e1".to_owned())).await;
    assert!(matches!(waiting, Err(LedgerError::NotIntegrated { index: 1, size: 0 })));
    assert_eq!(start.elapsed(), std::time::Duration::from_secs(1));
    let Key { project, .. } = &bed.key;
    let other = LedgerName::parse("other").unwrap();
    let wanted = Wanted::Id("e1".to_owned());
    let missing = bed.ledgers.receipt(project, &other, &wanted).await;
    assert!(matches!(missing, Err(LedgerError::NotFound { .. })));
}

#[tokio::test]
async fn any_two_sizes_are_proven_consistent() {
    let bed = Bed::new().await;
    bed.append(0..300).await;
    bed.integrate().await.unwrap();
    let Key { project, ledger } = &bed.key;
    let prove = async |from, to| bed.ledgers.consistency(project, ledger, from, to).await;
    for (from, to) in [(0, 300), (1, 1), (1, 2), (255, 257), (256, 300), (17, 299), (300, 300)] {
        let Consistency { from: old, to: new, proof } = prove(from, Some(to)).await.unwrap();
        assert_eq!((old.size, new.size), (from, to));
        assert!(merkle::extends(old, new, &proof), "{from} to {to}");
    }
    assert_eq!(prove(1, None).await.unwrap().to, bed.status().await.published);
    for (from, to) in [(0, Some(301)), (301, None), (u64::MAX, None)] {
        let refused = prove(from, to).await;
        assert!(matches!(refused, Err(LedgerError::BeyondEnd { size: 300 })), "{refused:?}");
    }
}

#[tokio::test]
async fn only_tiles_of_the_published_tree_are_served() {
    let bed = Bed::new().await;
    let Key { project, ledger } = &bed.key;
    let tile = async |path: &str| {
        bed.ledgers.tile(project, ledger, Tile::parse(path).unwrap()).await.is_ok()
    };
    bed.append(0..300).await;
    assert!(!tile("tile/0/000").await);
    let none = bed.ledgers.checkpoint(project, ledger).await;
    assert!(matches!(none, Err(LedgerError::NotPublished { .. })), "{none:?}");
    bed.integrate().await.unwrap();
    // As a crash before signing leaves it.
    bed.set("tile/0/001.p/200", vec![0; 6_400].into()).await;
    for (path, is_there) in [
        ("tile/0/000", true),
        ("tile/0/001.p/44", true),
        ("tile/1/000.p/1", true),
        ("tile/entries/001.p/44", true),
        ("tile/0/001.p/200", false),
        ("tile/0/001", false),
        ("tile/0/000.p/7", false),
        ("tile/2/000.p/1", false),
        ("tile/entries/002", false),
    ] {
        assert_eq!(tile(path).await, is_there, "{path}");
    }
    let note = bed.ledgers.checkpoint(project, ledger).await.unwrap();
    assert_eq!(bed.verifier().await.checkpoint(&note).unwrap(), bed.status().await.published);
}
