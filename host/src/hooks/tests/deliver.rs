//! Events become deliveries, and deliveries requests.

use super::*;
use DeliveryStatus::{Pending, Success};

#[tokio::test]
async fn an_event_reaches_who_wants_its_type_signed_and_is_logged() {
    let bed = Bed::start().await;
    let (all, orders, other) =
        (Receiver::start().await, Receiver::start().await, Receiver::start().await);
    let Edited { secret, .. } = bed.endpoint("all", &all.url()).await;
    bed.endpoint_with("orders", &orders.url(), |new| new.events = patterns(&["order.*"])).await;
    bed.endpoint_with("other", &other.url(), |new| new.events = patterns(&["user.**"])).await;
    let sent = bed.send("order.placed").await;
    let names: Vec<&str> = sent.deliveries.iter().map(|(_, name)| name.as_str()).collect();
    assert_eq!(names, ["all", "orders"]);
    let got = all.until(1).await.remove(0);
    assert_eq!(got.id, sent.event_id);
    assert!(got.is_signed_by(&secret), "{got:?}");
    assert!(bed.clock.now().0 / 1_000 - got.timestamp < 20);
    assert_eq!(got.json()["type"], "order.placed");
    assert_eq!(got.json()["data"], serde_json::json!({ "n": 1 }));
    orders.until(1).await;
    let (id, delivery) = bed.until("all", &[Success]).await.remove(0);
    assert_eq!(id, sent.deliveries[0].0);
    assert_eq!((delivery.status_code, delivery.retries()), (Some(200), 0));
    let view = bed.view("all", id).await;
    assert_eq!(view.body.as_deref(), Some(got.body.as_slice()));
    assert_eq!(view.attempts.len(), 1);
    assert_eq!(view.attempts[0].1.answer.as_deref(), Some("answer"));
    let stats = bed.stats("all").await;
    assert_eq!((stats.deliveries(), stats.successful, stats.attempts), (1, 1, 1));
    assert!(other.got().is_empty() && bed.deliveries("other").await.is_empty());
}

#[tokio::test]
async fn deliveries_are_part_of_the_callers_transaction() {
    let bed = Bed::start().await;
    let receiver = Receiver::start().await;
    bed.endpoint("e", &receiver.url()).await;
    let mut dropped = transaction(&bed);
    bed.hooks.deliver(&mut dropped, &[event("a", "1")]).await.unwrap().abandon();
    assert!(bed.deliveries("e").await.is_empty());
    let mut stored = transaction(&bed);
    stored.put("cursor", "2");
    let events = [event("a", "1.1"), event("no topic's name!", "2")];
    let jobs = bed.hooks.deliver(&mut stored, &events).await.unwrap();
    assert_eq!((jobs.taken(), jobs.deliveries().len()), (2, 2));
    bed.store.commit(stored).await.unwrap();
    jobs.done();
    bed.until("e", &[Success, Success]).await;
    let mut ids: Vec<String> = receiver.got().into_iter().map(|got| got.id).collect();
    ids.sort();
    assert_eq!(ids, ["1%2E1", "2"]);
    assert!(bed.store.get(&bed.project, b"cursor").await.unwrap().is_some());
}

#[tokio::test]
async fn an_endpoint_that_changes_meanwhile_refuses_the_transaction() {
    let bed = Bed::new(16).await;
    bed.endpoint("e", "http://127.0.0.1:9/").await;
    let name = EndpointName::parse("e").unwrap();
    let mut late = transaction(&bed);
    let jobs = bed.hooks.deliver(&mut late, &[event("a", "1")]).await.unwrap();
    bed.hooks.delete(&bed.project, &name).await.unwrap();
    let refused = bed.store.commit(late).await;
    assert!(matches!(refused, Err(stream_storage::CommitError::Conflict { .. })), "{refused:?}");
    jobs.abandon();
    let mut again = transaction(&bed);
    let jobs = bed.hooks.deliver(&mut again, &[event("a", "1")]).await.unwrap();
    assert!(again.state.is_empty() && jobs.taken() == 1);
    jobs.done();
    let left = bed.store.scan(&bed.project, b"hook-", None, 10).await.unwrap();
    assert!(left.is_empty(), "{left:?}");
}

#[tokio::test]
async fn as_many_events_are_taken_as_a_transaction_takes() {
    let bed = Bed::new(16).await;
    for name in ["a", "b", "c"] {
        bed.endpoint(name, "http://127.0.0.1:9/").await;
    }
    let mut transaction = transaction(&bed);
    let events: Vec<HookEvent> = (0..500).map(|n| event("a", &n.to_string())).collect();
    let jobs = bed.hooks.deliver(&mut transaction, &events).await.unwrap();
    assert_eq!((jobs.taken(), jobs.deliveries().len()), (333, 999));
    bed.store.commit(transaction).await.unwrap();
    jobs.done();
}

#[tokio::test]
async fn a_disabled_endpoint_gets_nothing_new_and_keeps_what_it_had() {
    let bed = Bed::start().await;
    let receiver = Receiver::start().await;
    receiver.answer(&["500"]);
    bed.endpoint_with("e", &receiver.url(), |new| {
        new.settings.retry_delays_ms = vec![200, 200];
    })
    .await;
    bed.send("a").await;
    receiver.until(1).await;
    bed.enable("e", false).await;
    assert!(bed.send("a").await.deliveries.is_empty());
    let message = Message {
        event_type: TopicName::parse("a").unwrap(),
        payload: Bytes::from_static(b"1"),
        endpoints: Some(vec![EndpointName::parse("e").unwrap()]),
    };
    let named = bed.hooks.send(&bed.project, &message).await;
    assert!(matches!(named, Err(HooksError::Disabled { .. })), "{named:?}");
    // Long enough for the retry to be due.
    tokio::time::sleep(Duration::from_millis(400)).await;
    assert_eq!((receiver.got().len(), bed.stats("e").await.pending), (1, 1));
    bed.enable("e", true).await;
    bed.until("e", &[Success]).await;
    assert_eq!(receiver.got().len(), 2);
}

#[tokio::test]
async fn a_named_endpoint_gets_what_it_does_not_ask_for() {
    let bed = Bed::start().await;
    let receiver = Receiver::start().await;
    bed.endpoint_with("e", &receiver.url(), |new| new.events = patterns(&["x"])).await;
    bed.endpoint("f", &receiver.url()).await;
    let name = |name| EndpointName::parse(name).unwrap();
    let message = |names: Vec<EndpointName>| Message {
        event_type: TopicName::parse("a").unwrap(),
        payload: Bytes::from_static(b"1"),
        endpoints: Some(names),
    };
    let twice = message(vec![name("e"), name("e")]);
    assert_eq!(bed.hooks.send(&bed.project, &twice).await.unwrap().deliveries.len(), 1);
    receiver.until(1).await;
    let missing = bed.hooks.send(&bed.project, &message(vec![name("f"), name("g")])).await;
    assert!(matches!(missing, Err(HooksError::NotFound { .. })), "{missing:?}");
    assert!(bed.deliveries("f").await.is_empty());
}

#[tokio::test]
async fn what_waits_is_delivered_after_a_stop_and_what_was_held_after_a_crash() {
    let mut bed = Bed::new(16).await;
    let receiver = Receiver::start().await;
    bed.endpoint("e", &receiver.url()).await;
    bed.send("a").await;
    assert_eq!(bed.deliveries("e").await[0].1.status, Pending);
    bed.run();
    bed.until("e", &[Success]).await;
    // One that answers nothing, and a server that dies meanwhile.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", silent.local_addr().unwrap());
    let name = EndpointName::parse("e").unwrap();
    let patch = EndpointPatch { url: Some(url), ..EndpointPatch::default() };
    bed.hooks.patch(&bed.project, &name, patch).await.unwrap();
    bed.send("b").await;
    let (held, _) = timeout(LONG, silent.accept()).await.unwrap().unwrap();
    bed.restart(true, KEY).await;
    drop(held);
    drop(silent);
    let patch = EndpointPatch { url: Some(receiver.url()), ..EndpointPatch::default() };
    bed.hooks.patch(&bed.project, &name, patch).await.unwrap();
    // Long before its lease of more than a minute would end.
    bed.until("e", &[Success, Success]).await;
}

#[tokio::test]
async fn dead_and_slow_endpoints_hold_up_nobody() {
    let mut bed = Bed::new(8).await;
    // They take connections and never answer.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", silent.local_addr().unwrap());
    for n in 0..40 {
        bed.endpoint_with(&format!("dead{n}"), &url, |new| {
            new.settings.timeout_ms = 1_000;
            new.settings.concurrency = 64;
        })
        .await;
    }
    let receiver = Receiver::start().await;
    bed.endpoint("well", &receiver.url()).await;
    bed.run();
    for _ in 0..3 {
        bed.send("a").await;
    }
    // Each dead endpoint has had its first request, which nobody could know to be in vain.
    receiver.until(3).await;
    let failed = async {
        while bed.stats("dead39").await.attempts == 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(LONG, failed).await.unwrap();
    // Now they share a lane of two, and have 117 deliveries before them.
    let start = tokio::time::Instant::now();
    let name = EndpointName::parse("well").unwrap();
    let (event_type, payload) = (TopicName::parse("b").unwrap(), Bytes::from_static(b"1"));
    for _ in 0..20 {
        let (event_type, payload) = (event_type.clone(), payload.clone());
        let message = Message { event_type, payload, endpoints: Some(vec![name.clone()]) };
        bed.hooks.send(&bed.project, &message).await.unwrap();
    }
    receiver.until(23).await;
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
}
