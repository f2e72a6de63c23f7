//! Deliveries found, made again, cancelled and forgotten.

use super::*;
use DeliveryStatus::{Cancelled, Failed, Pending, Success};

fn name() -> EndpointName {
    EndpointName::parse("e").unwrap()
}

/// An endpoint `e` with so many failed deliveries, and a receiver that takes the next.
async fn failed(bed: &Bed, count: usize) -> Receiver {
    let receiver = Receiver::answering(&vec!["500"; count]).await;
    bed.endpoint_with("e", &receiver.url(), |new| new.settings.retry_delays_ms = vec![]).await;
    for _ in 0..count {
        bed.send("a").await;
    }
    bed.until("e", &vec![Failed; count]).await;
    receiver
}

#[tokio::test]
async fn a_finished_delivery_is_made_again_with_the_same_id_and_body() {
    let bed = Bed::start().await;
    let receiver = failed(&bed, 1).await;
    let (id, _) = bed.deliveries("e").await.remove(0);
    bed.hooks.redeliver(&bed.project, &name(), &id.to_string()).await.unwrap();
    bed.until("e", &[Success]).await;
    let got = receiver.got();
    assert_eq!((&got[0].id, &got[0].body), (&got[1].id, &got[1].body));
    // Once more, though it was taken.
    bed.hooks.redeliver(&bed.project, &name(), &id.to_string()).await.unwrap();
    receiver.until(3).await;
    bed.until("e", &[Success]).await;
    assert_eq!(bed.view("e", id).await.attempts.len(), 3);
    let queue = bed.get("e").await.queue().unwrap();
    let state = bed.queues.describe(&bed.project, &queue).await.unwrap();
    assert_eq!((state.waiting, state.leased, state.dead), (0, 0, 0));
}

#[tokio::test]
async fn a_pending_or_unknown_delivery_is_not_made_again() {
    let bed = Bed::new(16).await;
    bed.endpoint("e", "http://127.0.0.1:9/").await;
    let sent = bed.send("a").await;
    let id = sent.deliveries[0].0.to_string();
    let pending = bed.hooks.redeliver(&bed.project, &name(), &id).await;
    assert!(matches!(pending, Err(HooksError::Pending { .. })), "{pending:?}");
    for id in ["dlv_00000000000000000000000000000000", "x"] {
        let unknown = bed.hooks.redeliver(&bed.project, &name(), id).await;
        assert!(matches!(unknown, Err(HooksError::DeliveryNotFound { .. })), "{unknown:?}");
    }
}

#[tokio::test]
async fn a_range_is_made_again_and_what_lies_outside_is_not() {
    let bed = Bed::start().await;
    let receiver = failed(&bed, 3).await;
    bed.clock.pass(Duration::from_secs(3_600));
    let since = bed.clock.now();
    receiver.answer(&["500", "500"]);
    bed.send("b").await;
    bed.send("b").await;
    bed.until("e", &[Failed; 5]).await;
    bed.clock.pass(Duration::from_secs(3_600));
    let until = bed.clock.now();
    bed.send("c").await;
    bed.until("e", &[Failed, Failed, Failed, Failed, Failed, Success]).await;
    let filter = DeliveryFilter { status: Some(Failed), since: Some(since), until: Some(until) };
    let range = RedeliverRange { filter };
    let count = bed.hooks.redeliver_range(&bed.project, &name(), range).await.unwrap();
    assert_eq!(count, 2);
    let found = bed.until("e", &[Failed, Failed, Failed, Success, Success, Success]).await;
    assert!(found.iter().all(|(_, one)| (one.status == Failed) == (one.event_type == "a")));
}

#[tokio::test]
async fn deliveries_are_listed_in_pages_the_newest_first() {
    let bed = Bed::start().await;
    failed(&bed, 5).await;
    let all = bed.deliveries("e").await;
    assert!(all.is_sorted_by(|(a, _), (b, _)| a < b && a.made_at() >= b.made_at()));
    let mut seen = Vec::new();
    let mut request = PageRequest { after: None, limit: Some(2) };
    loop {
        let filter = DeliveryFilter { status: Some(Failed), ..DeliveryFilter::default() };
        let page = bed.hooks.deliveries(&bed.project, &name(), filter, &request).await.unwrap();
        assert!(page.items.len() <= 2);
        seen.extend(page.items);
        match page.next {
            Some(next) => request.after = Some(next),
            None => break,
        }
    }
    assert_eq!(seen, all);
    let filter = DeliveryFilter { status: Some(Success), ..DeliveryFilter::default() };
    let none = bed.hooks.deliveries(&bed.project, &name(), filter, &PageRequest::default()).await;
    assert!(none.unwrap().items.is_empty());
}

#[tokio::test]
async fn the_log_is_bounded_by_count_and_age_and_keeps_what_is_pending() {
    let bed = Bed::start().await;
    failed(&bed, 5).await;
    let settings = EndpointSettings {
        log_deliveries_max: 3,
        log_age_ms: 3_600_000,
        retry_delays_ms: vec![],
        ..EndpointSettings::default()
    };
    let patch =
        EndpointPatch { settings: Some(settings), enabled: Some(true), ..EndpointPatch::default() };
    bed.hooks.patch(&bed.project, &name(), patch).await.unwrap();
    let newest: Vec<DeliveryId> =
        bed.deliveries("e").await.into_iter().map(|(id, _)| id).take(3).collect();
    bed.hooks.sweep(&bed.project).await.unwrap();
    let kept: Vec<DeliveryId> = bed.deliveries("e").await.into_iter().map(|(id, _)| id).collect();
    assert_eq!(kept, newest);
    let rows = async |prefix: &str| {
        bed.store.scan(&bed.project, prefix.as_bytes(), None, 100).await.unwrap().len()
    };
    assert_eq!((rows("hook-body/").await, rows("hook-attempt/").await), (3, 3));
    // One that waits is as old, and stays.
    bed.enable("e", false).await;
    bed.enable("e", true).await;
    let queue = bed.get("e").await.queue().unwrap();
    let paused = bed.get("e").await.settings.queue(true);
    bed.queues.configure(&bed.project, &queue, &paused).await.unwrap();
    bed.send("b").await;
    bed.clock.pass(Duration::from_secs(3_601));
    bed.hooks.sweep(&bed.project).await.unwrap();
    let left = bed.deliveries("e").await;
    assert_eq!((left.len(), left[0].1.status), (1, Pending));
    assert_eq!((rows("hook-body/").await, rows("hook-attempt/").await), (0, 0));
    // The counters know of all.
    assert_eq!(bed.stats("e").await.failed, 5);
}

#[tokio::test]
async fn what_is_cancelled_is_not_sent() {
    let bed = Bed::start().await;
    let receiver = Receiver::start().await;
    bed.endpoint("e", &receiver.url()).await;
    let queue = bed.get("e").await.queue().unwrap();
    let paused = bed.get("e").await.settings.queue(true);
    bed.queues.configure(&bed.project, &queue, &paused).await.unwrap();
    bed.send("a").await;
    bed.send("a").await;
    assert_eq!(bed.hooks.cancel(&bed.project, &name()).await.unwrap(), 2);
    bed.until("e", &[Cancelled, Cancelled]).await;
    let working = bed.get("e").await.settings.queue(false);
    bed.queues.configure(&bed.project, &queue, &working).await.unwrap();
    bed.send("b").await;
    bed.until("e", &[Cancelled, Cancelled, Success]).await;
    assert_eq!(receiver.got().len(), 1);
    let stats = bed.stats("e").await;
    assert_eq!((stats.cancelled, stats.pending, stats.deliveries()), (2, 0, 3));
}
