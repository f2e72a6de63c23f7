//! What receivers answer, and what becomes of it.

use super::*;
use DeliveryStatus::{Failed, Pending, Success};

#[tokio::test]
async fn what_fails_is_tried_again_under_the_same_id_until_it_is_taken() {
    let bed = Bed::start().await;
    let receiver = Receiver::answering(&["500", "302 location: http://127.0.0.1:9/"]).await;
    let Edited { secret, .. } = bed.endpoint("e", &receiver.url()).await;
    let sent = bed.send("a").await;
    let (id, delivery) = bed.until("e", &[Success]).await.remove(0);
    assert_eq!((delivery.retries(), delivery.error), (2, None));
    let got = receiver.got();
    assert!(got.iter().all(|got| got.id == sent.event_id && got.is_signed_by(&secret)));
    assert!(got.iter().all(|other| other.body == got[0].body));
    let attempts = bed.view("e", id).await.attempts;
    let codes: Vec<_> = attempts.iter().map(|(n, one)| (*n, one.status_code)).collect();
    assert_eq!(codes, [(1, Some(500)), (2, Some(302)), (3, Some(200))]);
    assert!(attempts[1].1.error.as_deref().unwrap().contains("redirects"), "{attempts:?}");
}

#[tokio::test]
async fn what_is_never_taken_is_given_up_and_said() {
    let bed = Bed::start().await;
    let receiver = Receiver::answering(&["500", "503", "404"]).await;
    bed.endpoint("e", &receiver.url()).await;
    let sent = bed.send("a").await;
    let (id, delivery) = bed.until("e", &[Failed]).await.remove(0);
    assert_eq!((delivery.attempts, delivery.status_code), (3, Some(404)));
    let news = bed.news().await;
    assert_eq!(news.len(), 1, "{news:?}");
    assert_eq!((&news[0]["type"], &news[0]["endpoint"]), (&"delivery.failed".into(), &"e".into()));
    assert_eq!(news[0]["delivery_id"], id.to_string());
    assert_eq!(news[0]["event_id"], sent.event_id);
    let stats = bed.stats("e").await;
    assert_eq!((stats.failed, stats.successful, stats.pending), (1, 0, 0));
    assert!(stats.failing_since.is_some());
}

#[tokio::test]
async fn a_receiver_is_left_alone_for_as_long_as_it_asks() {
    let bed = Bed::start().await;
    let receiver = Receiver::answering(&["429 retry-after: 1"]).await;
    bed.endpoint("e", &receiver.url()).await;
    let start = tokio::time::Instant::now();
    bed.send("a").await;
    receiver.until(1).await;
    bed.send("b").await;
    bed.until("e", &[Success, Success]).await;
    assert!(start.elapsed() >= Duration::from_secs(1), "{:?}", start.elapsed());
}

#[tokio::test]
async fn an_endpoint_that_is_gone_is_disabled_and_what_it_had_waits() {
    let bed = Bed::start().await;
    let receiver = Receiver::answering(&["410"]).await;
    bed.endpoint("e", &receiver.url()).await;
    bed.send("a").await;
    let disabled = async {
        while bed.get("e").await.is_enabled() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(LONG, disabled).await.unwrap();
    assert_eq!(bed.get("e").await.disabled.unwrap().reason, DisabledReason::Gone);
    assert_eq!(bed.deliveries("e").await[0].1.status, Pending);
    let news = bed.news().await;
    assert_eq!(
        (&news[0]["type"], &news[0]["reason"]),
        (&"endpoint.disabled".into(), &"gone".into())
    );
    bed.enable("e", true).await;
    bed.until("e", &[Success]).await;
}

#[tokio::test]
async fn an_endpoint_that_fails_for_long_is_disabled_and_pardoned_when_enabled() {
    let bed = Bed::start().await;
    let receiver = Receiver::answering(&["500", "500", "500", "500"]).await;
    bed.endpoint_with("e", &receiver.url(), |new| {
        new.settings.retry_delays_ms = vec![20; 9];
        new.settings.disable_after_ms = Some(5 * 24 * 3_600_000);
    })
    .await;
    bed.send("a").await;
    bed.until("e", &[Success]).await;
    assert_eq!((receiver.got().len(), bed.stats("e").await.failing_since), (5, None));
    receiver.answer(&["500", "500 a: first"]);
    bed.send("b").await;
    receiver.until(6).await;
    bed.clock.pass(Duration::from_secs(5 * 24 * 3_600));
    let disabled = async {
        while bed.get("e").await.is_enabled() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(LONG, disabled).await.unwrap();
    let reason = bed.get("e").await.disabled.unwrap().reason;
    let news = bed.news().await;
    assert_eq!((reason, &news[0]["reason"]), (DisabledReason::Failing, &"failing".into()));
    assert!(news[0]["failing_since"].is_string(), "{news:?}");
    receiver.answer(&["500"]);
    bed.enable("e", true).await;
    bed.until("e", &[Success, Success]).await;
    assert!(bed.get("e").await.is_enabled());
}

#[tokio::test]
async fn an_address_that_becomes_forbidden_is_a_final_failure() {
    let bed = Bed::start().await;
    let receiver = Receiver::start().await;
    let port = receiver.address.port();
    bed.endpoint("e", &format!("http://receiver.test:{port}/")).await;
    *lock(&bed.names.0) = "10.0.0.1".parse().unwrap();
    bed.send("a").await;
    let (id, delivery) = bed.until("e", &[Failed]).await.remove(0);
    assert_eq!((delivery.attempts, delivery.status_code), (1, None));
    let error = delivery.error.unwrap();
    assert!(error.contains("private address") && !error.contains("10.0"), "{error}");
    assert!(receiver.got().is_empty());
    // The name leads to the receiver again.
    *lock(&bed.names.0) = "127.0.0.1".parse().unwrap();
    let name = EndpointName::parse("e").unwrap();
    bed.hooks.redeliver(&bed.project, &name, &id.to_string()).await.unwrap();
    bed.until("e", &[Success]).await;
}

#[tokio::test]
async fn with_another_key_nothing_is_sent_and_nothing_lost() {
    let mut bed = Bed::start().await;
    let receiver = Receiver::start().await;
    let edited = bed.endpoint("e", &receiver.url()).await;
    bed.restart(false, "another key of the tests of hooks").await;
    bed.send("a").await;
    let (_, delivery) = bed.until("e", &[Failed]).await.remove(0);
    assert!(delivery.error.unwrap().contains("another key"));
    assert!(receiver.got().is_empty());
    // It is not the endpoint's fault.
    assert_eq!(bed.stats("e").await.failing_since, None);
    bed.restart(false, KEY).await;
    let name = EndpointName::parse("e").unwrap();
    let (id, _) = bed.deliveries("e").await.remove(0);
    bed.hooks.redeliver(&bed.project, &name, &id.to_string()).await.unwrap();
    assert!(receiver.until(1).await[0].is_signed_by(&edited.secret));
}

#[tokio::test]
async fn in_an_ordered_endpoint_events_of_a_key_wait_for_each_other() {
    let bed = Bed::start().await;
    let receiver = Receiver::answering(&["500", "500"]).await;
    bed.endpoint_with("e", &receiver.url(), |new| new.settings.ordered = true).await;
    let events: Vec<HookEvent> = (0..5)
        .map(|n| HookEvent { key: Some("k".to_owned()), ..event("a", &n.to_string()) })
        .collect();
    let mut transaction = transaction(&bed);
    let jobs = bed.hooks.deliver(&mut transaction, &events).await.unwrap();
    bed.store.commit(transaction).await.unwrap();
    jobs.done();
    bed.until("e", &[Success; 5]).await;
    let ids: Vec<String> = receiver.got().into_iter().map(|got| got.id).collect();
    assert_eq!(ids, ["0", "0", "0", "1", "2", "3", "4"]);
}
