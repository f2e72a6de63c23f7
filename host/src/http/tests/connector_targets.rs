//! What connectors' plugins make of events, and what each target gets of them, JSON or not.

use super::connectors::{Elsewhere, payloads};
use super::plugins::{BAD, GOOD, lines};
use super::*;

/// A line of bytes that are no JSON.
const BYTES: &str =
    "{\"value\":\"/w==\",\"encoding\":\"base64\",\"content_type\":\"x/y\",\"id\":\"i\"}\n";

#[tokio::test]
async fn a_filter_keeps_back_what_it_rejects() {
    let server = Server::start().await;
    server.topic(1).await;
    assert_eq!(server.upload("validate-order").await.status, 201);
    let plugin = json!({ "plugin": "validate-order" });
    let body = json!({ "kind": "worker", "match": "t", "plugin": plugin });
    let made = server.connect("c", body).await;
    let (role, policy) = (&made["plugin"]["role"], &made["plugin"]["on_fault"]);
    assert_eq!((role, policy), (&json!("validate"), &json!("dead-letter")));
    server.events(lines(&[GOOD, BAD]), &[]).await;
    assert_eq!(payloads(&server.jobs("c", 1).await), [GOOD]);
    let told = server.until("c", |told| told["taken"] == json!(2)).await;
    assert_eq!((&told["dropped"], &told["faulted"]), (&json!(1), &json!(0)));
    let bound = server.call("DELETE /plugins/validate-order", Value::Null).await;
    assert_eq!(bound.error(), (409, "plugin-bound".to_owned()));
    server.call("DELETE /connectors/c?mode=drop", Value::Null).await;
    let free = server.call("DELETE /plugins/validate-order", Value::Null).await;
    assert_eq!(free.status, 204, "{}", free.text);
}

#[tokio::test]
async fn a_transform_changes_what_the_target_gets_and_not_what_is_stored() {
    let server = Server::start().await;
    server.topic(1).await;
    assert_eq!(server.upload("redact-field").await.status, 201);
    let plugin = json!({ "plugin": "redact-field", "config": ["a"] });
    server.connect("c", json!({ "kind": "worker", "match": "t", "plugin": plugin })).await;
    server.events(lines(&["{\"a\":1,\"c\":3}"]), &[]).await;
    let job = payloads(&server.jobs("c", 1).await).remove(0);
    let job: Value = serde_json::from_str(&job).unwrap();
    assert_eq!(job, json!({ "a": "[redacted]", "c": 3 }));
    assert_eq!(server.values("t", 0).await, [json!({ "a": 1, "c": 3 })]);
}

#[tokio::test]
async fn what_a_plugin_breaks_on_is_a_dead_letter_and_the_rest_goes_on() {
    let server = Server::start().await;
    server.topic(1).await;
    assert_eq!(server.upload("poison").await.status, 201);
    // It does several things: one has to be chosen.
    let with = |plugin| json!({ "kind": "worker", "match": "t", "plugin": plugin });
    let unclear = server.call("PUT /connectors/c", with(json!({ "plugin": "poison" }))).await;
    assert_eq!(unclear.error(), (400, "invalid-plugin-role".to_owned()));
    server.connect("c", with(json!({ "plugin": "poison", "role": "validate" }))).await;
    server.events(lines(&["1", "\"poison\"", "2"]), &[]).await;
    assert_eq!(payloads(&server.jobs("c", 2).await), ["1", "2"]);
    let told = server.until("c", |told| told["taken"] == json!(3)).await;
    assert_eq!((&told["faulted"], &told["lag"]), (&json!(1), &json!(0)));
    let letters = server.get("/topics/_dead-letter/consume?group=g").await.json();
    let letter = &letters["records"][0]["value"];
    assert_eq!((&letter["kind"], &letter["topic"]), (&json!("plugin"), &json!("t")));
    assert_eq!((&letter["offset"], &letter["event"]["value"]), (&json!(1), &json!("poison")));
}

#[tokio::test]
async fn a_ledger_elsewhere_gets_entries_in_batches() {
    let server = Server::start().await;
    server.topic(1).await;
    let there = Elsewhere::start(&[]).await;
    server.fill(0, 2).await;
    let settings = json!({ "from": "earliest" });
    let body = json!({ "kind": "ledger", "match": "t", "url": there.url, "settings": settings });
    server.connect("c", body).await;
    let (path, headers, body) = there.requests(1).await.remove(0);
    assert_eq!((path.as_str(), headers.contains_key("idempotency-key")), ("/", true));
    let entries = body["entries"].as_array().unwrap();
    assert_eq!(entries.len(), 2);
    assert_eq!((&entries[1]["topic"], &entries[1]["offset"]), (&json!("t"), &json!(1)));
    assert_eq!(entries[1]["value"], json!(1));
}

#[tokio::test]
async fn what_is_no_json_reaches_each_target_as_it_is() {
    let server = Server::start().await;
    server.topic(1).await;
    let (endpoint, there) = (Elsewhere::start(&[]).await, Elsewhere::start(&[]).await);
    let hooks = Arc::clone(&server.app.node.hooks);
    let running = tokio::spawn(async move { hooks.run().await });
    let made = json!({ "name": "e", "url": endpoint.url });
    assert_eq!(server.call("POST /webhooks/endpoints", made).await.status, 201);
    server.connect("w", json!({ "kind": "worker", "match": "t" })).await;
    server.connect("h", json!({ "kind": "hooks", "match": "t" })).await;
    server.connect("r", json!({ "kind": "worker", "match": "t", "url": there.url })).await;
    server.events(BYTES, &[]).await;
    let job = server.jobs("w", 1).await.remove(0).job;
    assert_eq!((&*job.payload, job.content_type.as_deref()), (&b"\xff"[..], Some("x/y")));
    let (_, _, hook) = endpoint.requests(1).await.remove(0);
    assert_eq!((&hook["type"], &hook["data_base64"]), (&json!("t"), &json!("/w==")));
    let (_, _, jobs) = there.requests(1).await.remove(0);
    let sent = &jobs["jobs"][0];
    assert_eq!((&sent["payload"], &sent["encoding"]), (&json!("/w=="), &json!("base64")));
    // What a Worker elsewhere makes of it, this server does too.
    let made = server.call("POST /queues/again/jobs", jobs).await;
    assert!(made.status.is_success(), "{}", made.text);
    assert_eq!(&*server.jobs("again", 1).await.remove(0).job.payload, b"\xff");
    running.abort();
}
