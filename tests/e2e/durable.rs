//! What holds across a restart: records, offsets, commits and the recognition of repeats.

use serde_json::{Value, json};
use stream_tests::{Answer, Client};

use super::start;

async fn publish_as(client: &Client, headers: &[(&str, &str)], body: &'static str) -> Answer {
    let mut request =
        client.request("POST", "/topics/t/events").header("content-type", "application/x-ndjson");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    client.send(request.body(body)).await
}

/// What a repeat says again, without what differs.
fn places(answer: &Answer) -> (&Value, &Value) {
    (&answer.body["partitions"], &answer.body["count"])
}

#[tokio::test]
async fn a_repeat_after_a_crash_is_stored_once_and_answered_as_the_first_time() {
    let data = tempfile::tempdir().unwrap();
    let identities: [&[(&str, &str)]; 2] = [
        &[("producer-id", "p"), ("producer-epoch", "0"), ("producer-seq", "0")],
        &[("idempotency-key", "\"once\"")],
    ];
    let body = "{\"value\":1}\n{\"value\":2}\n";
    let server = start(data.path());
    let client = server.client();
    client.call_with("POST", "/topics", json!({"name": "t", "partitions": 3})).await.ok();
    let mut first = Vec::new();
    for identity in identities {
        first.push(publish_as(&client, identity, body).await);
    }
    server.kill();

    let server = start(data.path());
    let client = server.client();
    for (identity, first) in identities.iter().zip(&first) {
        let again = publish_as(&client, identity, body).await;
        assert_eq!(again.status, 200, "{again:?}");
        assert_eq!(again.body["duplicate"], json!(true));
        assert_eq!(first.body["duplicate"], json!(false));
        assert_eq!(places(&again), places(first));
    }
    let stats = client.call("GET", "/topics/t/stats").await.ok();
    assert_eq!(stats["total_events"], json!(4));
}

#[tokio::test]
async fn the_same_idempotency_key_with_another_payload_is_refused() {
    let data = tempfile::tempdir().unwrap();
    let server = start(data.path());
    let client = server.client();
    client.call_with("POST", "/topics", json!({"name": "t"})).await.ok();
    let key = [("idempotency-key", "k")];
    publish_as(&client, &key, "{\"value\":1}\n").await.ok();
    let other = publish_as(&client, &key, "{\"value\":2}\n").await;
    assert_eq!((other.status, other.code()), (422, "payload-mismatch"), "{other:?}");
}

#[tokio::test]
async fn committed_offsets_and_topics_survive_a_crash() {
    let data = tempfile::tempdir().unwrap();
    let server = start(data.path());
    let client = server.client();
    let topic = json!({"name": "t", "partitions": 2, "retention_hours": 5, "description": "d"});
    let created = client.call_with("POST", "/topics", topic).await.ok();
    for value in 0..10 {
        let event = json!({"value": value, "partition": 1});
        client.call_with("POST", "/topics/t/produce", event).await.ok();
    }
    let commit = json!({"group": "g", "partition": 1, "offset": 4});
    assert_eq!(client.call_with("POST", "/topics/t/offsets", commit).await.status, 204);
    server.kill();

    let server = start(data.path());
    let client = server.client();
    assert_eq!(client.call("GET", "/topics/t").await.ok(), created);
    let page = client.call("GET", "/topics/t/consume?group=g&partition=1&limit=1").await.ok();
    assert_eq!(page["records"][0]["offset"], json!(4));
    assert_eq!(page["records"][0]["value"], json!(4));
    assert_eq!(page["next_offset"], json!(5));
}

#[tokio::test]
async fn what_was_acknowledged_from_memory_survives_the_end_of_the_process() {
    let data = tempfile::tempdir().unwrap();
    let server = start(data.path());
    let client = server.client();
    client.call_with("POST", "/topics", json!({"name": "t"})).await.ok();
    let request = client.request("POST", "/topics/t/events?ack=memory");
    let request = request.header("content-type", "application/x-ndjson").body("{\"value\":1}\n");
    let answer = client.send(request).await.ok();
    assert_eq!(answer["ack"], json!("memory"));
    server.kill();
    let server = start(data.path());
    assert_eq!(server.client().records("t", 0, 0).await.len(), 1);
}
