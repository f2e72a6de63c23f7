//! Real events: cancellations to Hooks, arrivals to Worker, all to Ledger, at once.

use std::collections::BTreeSet;

use super::*;
use rand::SeedableRng;
use rand::rngs::StdRng;

#[tokio::test(flavor = "multi_thread")]
async fn every_flight_reaches_its_targets_once() {
    let data = tempfile::tempdir().unwrap();
    let server = start(data.path());
    let client = server.client();
    let receiver = Sink::start().await;
    // The first ones fail: what was sent is sent again.
    receiver.answer(&[500, 429, 503]);
    client.call_with("POST", "/topics", json!({ "name": "handled", "partitions": 1 })).await.ok();
    endpoint(&client, &receiver, "flight.cancelled.*").await;
    connect(&client, "hooks", "hooks", "flight.cancelled.*", json!({})).await;
    connect(&client, "worker", "worker", "flight.arrived.*", json!({ "queue": "arrivals" })).await;
    connect(&client, "ledger", "ledger", "flight.**", json!({})).await;

    let mut random = StdRng::seed_from_u64(7);
    let mut vanishing = worker::team(&client, "arrivals", &mut random, 4);
    let lasting = worker::team(&client, "arrivals", &mut random, 4);
    let published = stream(&server, &["publish", "--json", "--by-type", "--create", SAMPLE]);
    assert!(published.status.success(), "{}", String::from_utf8_lossy(&published.stderr));
    let lines = std::fs::read_to_string(SAMPLE).unwrap();
    let count = |word: &str| lines.lines().filter(|line| line.contains(word)).count();
    let (cancelled, arrived) = (count("flight.cancelled."), count("flight.arrived."));
    // Half of the workers vanish with what they hold.
    until(&client, "/topics/handled/stats", |told| told["total_events"].as_u64() > Some(20)).await;
    vanishing.abort_all();
    caught_up(&client, &["hooks", "worker", "ledger"]).await;

    // Worker: each arrival was handled once.
    let done = |told: &Value| told["total_events"].as_u64() >= Some(arrived as u64);
    until(&client, "/topics/handled/stats", done).await;
    let empty = |told: &Value| told["waiting"] == json!(0) && told["leased"] == json!(0);
    until(&client, "/queues/arrivals", empty).await;
    drop(lasting);
    let handled = worker::handled(&client).await;
    let distinct: BTreeSet<_> = handled.iter().collect();
    assert_eq!((handled.len(), distinct.len()), (arrived, arrived));

    // Hooks: one delivery for each cancellation, and the receiver saw each.
    let delivered = |told: &Value| told["successful_deliveries"] == json!(cancelled);
    let stats = until(&client, "/webhooks/stats", delivered).await;
    assert_eq!(stats["total_deliveries"], json!(cancelled));
    let hits = receiver.hits();
    let ids: BTreeSet<&str> = hits.iter().map(|hit| hit.headers["webhook-id"].as_str()).collect();
    assert_eq!(ids.len(), cancelled);
    assert_eq!(hits.len(), cancelled + 3, "those that failed came again");

    // Ledger: each event is an entry, once, and all of it verifies.
    let all = lines.lines().count() as u64;
    let integrated = |told: &Value| told["integrated"].as_u64() == Some(all);
    until(&client, "/ledgers/ledger", integrated).await;
    verify(&server, "ledger");
    let entries = entries(&client, "ledger", all).await;
    let distinct: BTreeSet<_> = entries.iter().collect();
    assert_eq!((entries.len() as u64, distinct.len() as u64), (all, all));
    assert!(server.stop().success());
}
