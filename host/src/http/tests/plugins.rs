//! Plugins and bindings over HTTP, with real components.

use std::time::Duration;

use serde_json::{Value, json};

use super::{Answer, Server, places};

pub(super) const NDJSON: &[(&str, &str)] = &[("content-type", "application/x-ndjson")];
pub(super) const GOOD: &str = r#"{"orderId":"1","total":2}"#;
pub(super) const BAD: &str = r#"{"total":2}"#;

impl Server {
    /// Uploads a component that is committed, under the name of its file.
    pub(super) async fn upload(&self, component: &str) -> Answer {
        self.upload_as(component, component).await
    }

    pub(super) async fn upload_as(&self, name: &str, component: &str) -> Answer {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../guest-examples/built");
        let bytes = std::fs::read(format!("{folder}/{component}.wasm")).unwrap();
        self.upload_bytes(name, bytes).await
    }

    pub(super) async fn upload_bytes(&self, name: &str, bytes: Vec<u8>) -> Answer {
        let headers = [("content-type", "application/wasm")];
        self.call_with(&format!("PUT /plugins/{name}"), &headers, bytes).await
    }

    /// Binds one plugin, with further fields.
    pub(super) async fn bind(&self, place: &str, plugin: &str, more: Value) -> Answer {
        let mut binding = json!({ "plugin": plugin });
        binding.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap_or_default());
        self.call(&format!("PUT /bindings/{place}"), json!({ "bindings": [binding] })).await
    }

    /// Uploads a component and binds it to `t`.
    pub(super) async fn bound(&self, role: &str, component: &str, more: Value) {
        assert_eq!(self.upload(component).await.status, 201);
        let bound = self.bind(&format!("{role}/t"), component, more).await;
        assert_eq!(bound.status, 200, "{}", bound.text);
    }

    pub(super) async fn produce(&self, value: &str) -> Answer {
        let body = format!("{{\"value\":{value}}}");
        let headers = [("content-type", "application/json")];
        self.call_with("POST /topics/t/produce", &headers, body).await
    }

    pub(super) async fn by_type(&self, lines: &str) -> Answer {
        self.call_with("POST /events", NDJSON, lines.to_owned()).await
    }

    pub(super) async fn make(&self, topic: &str, partitions: u32) {
        let made = json!({ "name": topic, "partitions": partitions });
        assert_eq!(self.call("POST /topics", made).await.status, 201);
    }

    /// The values of a topic's partition.
    pub(super) async fn values(&self, topic: &str, partition: u32) -> Vec<Value> {
        let path = format!("/topics/{topic}/partitions/{partition}/records?offset=0&limit=1000");
        places(&self.get(&path).await).into_iter().map(|(_, _, value)| value).collect()
    }
}

pub(super) fn lines(values: &[&str]) -> String {
    values.iter().map(|value| format!("{{\"value\":{value}}}\n")).collect()
}

#[tokio::test]
async fn a_bound_validator_refuses_the_whole_request_with_every_reason() {
    let server = Server::start().await;
    server.topic(1).await;
    server.bound("validate", "validate-order", json!({})).await;
    let refused = server.events(lines(&[GOOD, BAD, GOOD, "7"]), &[]).await;
    assert_eq!(refused.error(), (400, "events-rejected".to_owned()));
    let error = &refused.json()["error"];
    let indices: Vec<_> =
        error["rejected"].as_array().unwrap().iter().map(|r| &r["index"]).collect();
    assert_eq!(indices, [1, 3]);
    assert_eq!(error["rejected"][0]["plugin"], json!({ "name": "validate-order", "version": 1 }));
    assert_eq!(error["stored"], 0);
    assert!(server.values("t", 0).await.is_empty());
    let accepted = server.events(lines(&[GOOD, GOOD]), &[]).await;
    assert_eq!(accepted.json()["count"], 2, "{}", accepted.text);
}

#[tokio::test]
async fn the_accepted_can_be_stored_without_the_rejected() {
    let server = Server::start().await;
    server.topic(1).await;
    server.bound("validate", "validate-order", json!({})).await;
    let call = "POST /topics/t/events?on_reject=partial";
    let answer = server.call_with(call, NDJSON, lines(&[BAD, GOOD])).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    assert_eq!(
        (&answer.json()["count"], &answer.json()["rejected"][0]["index"]),
        (&json!(1), &json!(0))
    );
    assert_eq!(server.values("t", 0).await.len(), 1);
    let nothing = server.call_with(call, NDJSON, lines(&[BAD])).await;
    assert_eq!((nothing.status.as_u16(), &nothing.json()["count"]), (202, &json!(0)));
    let unknown =
        server.call_with("POST /topics/t/events?on_reject=x", NDJSON, lines(&[BAD])).await;
    assert_eq!(unknown.error(), (400, "invalid-on-reject".to_owned()));
}

#[tokio::test]
async fn uploads_make_versions_and_say_what_is_wrong() {
    let server = Server::start().await;
    let first = server.upload_as("p", "validate-order").await;
    assert_eq!((first.status.as_u16(), &first.json()["version"]), (201, &json!(1)));
    assert_eq!(first.json()["roles"], json!(["validate"]));
    assert_eq!(server.upload_as("p", "validate-order").await.status, 200);
    assert_eq!(server.upload_as("p", "pass-through").await.json()["version"], 2);
    let plugin = server.get("/plugins/p").await.json();
    assert_eq!((&plugin["version"], &plugin["bound"]), (&json!(2), &json!([])));
    assert_eq!(server.get("/plugins").await.json()["plugins"][0]["versions"], 2);
    assert_eq!(server.get("/plugins/p/versions").await.json()["versions"][0]["version"], 1);
    let refused = server.upload_bytes("q", b"hello".to_vec()).await;
    assert_eq!(refused.error(), (400, "invalid-component".to_owned()));
    assert_eq!(refused.json()["error"]["problem"], "not-wasm");
    assert_eq!(server.get("/plugins/q").await.error(), (404, "plugin-not-found".to_owned()));
    let text = server.call_with("PUT /plugins/q", &[("content-type", "text/plain")], "x").await;
    assert_eq!(text.error(), (415, "unsupported-media-type".to_owned()));
    assert_eq!(
        server.upload_bytes("a%20b", vec![]).await.error(),
        (400, "invalid-plugin".to_owned())
    );
}

#[tokio::test]
async fn code_needs_a_scope_of_its_own() {
    let server = Server::start().await;
    let key = server.key(&["publish", "consume", "manage"]).await;
    let refused = server.call_as(&key, "DELETE /plugins/p", Value::Null).await;
    assert_eq!(refused.error(), (403, "missing-scope".to_owned()));
    let deployer = server.key(&["deploy"]).await;
    let missing = server.call_as(&deployer, "DELETE /plugins/p", Value::Null).await;
    assert_eq!(missing.error(), (404, "plugin-not-found".to_owned()));
    let bind = "PUT /bindings/validate/t";
    let refused = server.call_as(&deployer, bind, json!({ "bindings": [] })).await;
    assert_eq!(refused.error(), (403, "missing-scope".to_owned()));
}

#[tokio::test]
async fn a_plugin_is_deleted_only_once_nothing_uses_it() {
    let server = Server::start().await;
    server.topic(1).await;
    server.bound("validate", "pass-through", json!({})).await;
    server.make("copy", 1).await;
    let route = json!({ "match": "t", "to": ["copy"], "plugin": { "plugin": "pass-through" } });
    assert_eq!(server.call("PUT /routes/r", route).await.status, 200);
    let refused = server.call("DELETE /plugins/pass-through", Value::Null).await;
    assert_eq!(refused.error(), (409, "plugin-bound".to_owned()));
    assert_eq!(refused.json()["error"]["places"], json!(["validate/t", "route/r"]));
    assert_eq!(server.call("DELETE /routes/r", Value::Null).await.status, 204);
    assert_eq!(server.call("DELETE /bindings/validate/t", Value::Null).await.status, 204);
    assert_eq!(server.call("DELETE /plugins/pass-through", Value::Null).await.status, 204);
    assert_eq!(
        server.get("/bindings/validate/t").await.error(),
        (404, "bindings-not-found".to_owned())
    );
}

#[tokio::test]
async fn bindings_are_checked_before_they_hold() {
    let server = Server::start().await;
    server.upload("validate-order").await;
    let cases = [
        ("validate/t", json!({ "version": 9 }), 404, "plugin-version-not-found"),
        ("partition/t", json!({}), 400, "role-not-exported"),
        ("route/t", json!({}), 400, "invalid-role"),
        ("validate/a..b", json!({}), 400, "invalid-pattern"),
        ("validate/t", json!({ "timeout_ms": 3_001 }), 400, "invalid-timeout-ms"),
        ("validate/t", json!({ "on_fault": "ignore" }), 400, "invalid-on-fault"),
        ("validate/t", json!({ "instance": "shared" }), 400, "invalid-instance"),
        ("validate/t", json!({ "retries": 1 }), 400, "invalid-body"),
    ];
    for (place, more, status, code) in cases {
        let refused = server.bind(place, "validate-order", more.clone()).await;
        assert_eq!(refused.error(), (status, code.to_owned()), "{place} {more}");
    }
    let missing = server.bind("validate/t", "none", json!({})).await;
    assert_eq!(missing.error(), (404, "plugin-not-found".to_owned()));
    assert_eq!(server.get("/bindings").await.json(), json!({ "bindings": [] }));
}

#[tokio::test]
async fn a_change_can_name_the_revision_that_it_was_made_from() {
    let server = Server::start().await;
    server.upload("validate-order").await;
    let put = async |revision: u64| {
        let body = json!({ "bindings": [{ "plugin": "validate-order" }], "revision": revision });
        server.call("PUT /bindings/validate/order.*", body).await
    };
    assert_eq!(put(0).await.json()["revision"], 1);
    let stale = put(0).await;
    assert_eq!(stale.error(), (409, "stale-revision".to_owned()));
    assert_eq!(stale.json()["error"]["current"], 1);
    assert_eq!(put(1).await.json()["revision"], 2);
}

#[tokio::test]
async fn a_rollback_brings_back_the_version_before() {
    let server = Server::start().await;
    server.topic(1).await;
    server.upload_as("p", "pass-through").await;
    server.bind("validate/t", "p", json!({})).await;
    server.upload_as("p", "validate-order").await;
    assert_eq!(server.produce(BAD).await.status, 200, "an upload switches nothing");
    server.bind("validate/t", "p", json!({})).await;
    assert_eq!(server.produce(BAD).await.status, 400);
    let back = server.call("POST /bindings/validate/t/rollback", Value::Null).await;
    assert_eq!(back.json()["bindings"][0]["version"], 1, "{}", back.text);
    assert_eq!(server.produce(BAD).await.status, 200);
    let further = server.call("POST /bindings/validate/t/rollback", Value::Null).await;
    assert_eq!(further.error(), (400, "invalid-rollback".to_owned()));
}

#[tokio::test]
async fn the_exact_topics_bindings_come_before_those_of_patterns() {
    let server = Server::start().await;
    server.topic(1).await;
    server.upload("redact-field").await;
    let redact = |field: &str| json!({ "config": [field] });
    server.bind("transform/*", "redact-field", redact("b")).await;
    server.bind("transform/t", "redact-field", redact("a")).await;
    server.produce(r#"{"a":1,"b":2,"c":3}"#).await;
    let redacted = json!({ "a": "[redacted]", "b": "[redacted]", "c": 3 });
    assert_eq!(server.values("t", 0).await, [redacted]);
}

#[tokio::test]
async fn a_partitioner_decides_unless_the_publisher_does() {
    let server = Server::start().await;
    server.topic(4).await;
    let lines: String =
        (0..40).map(|n| format!("{{\"key\":\"key-{n}\",\"value\":{n}}}\n")).collect();
    let by_key = server.events(lines.clone(), &[]).await.json();
    assert_eq!(by_key["partitions"].as_array().unwrap().len(), 4, "the keys go everywhere");
    // It chooses partition 0 for all.
    server.bound("partition", "pass-through", json!({})).await;
    let chosen = server.events(lines + "{\"value\":99,\"partition\":3}\n", &[]).await.json();
    let count = |part: &Value| {
        let number = |name: &str| part[name].as_u64().unwrap();
        (number("partition"), number("last_offset") - number("first_offset") + 1)
    };
    let counts: Vec<_> = chosen["partitions"].as_array().unwrap().iter().map(count).collect();
    assert_eq!(counts, [(0, 40), (3, 1)]);
}

#[tokio::test]
async fn each_fault_policy_does_what_it_says() {
    for (policy, status) in [("reject", 502), ("dead-letter", 202), ("skip", 200)] {
        let server = Server::start().await;
        server.topic(1).await;
        server.bound("validate", "panic", json!({ "on_fault": policy })).await;
        let answer = server.produce("1").await;
        assert_eq!(answer.status.as_u16(), status, "{policy}: {}", answer.text);
        match policy {
            "reject" => {
                assert_eq!(answer.error().1, "plugin-panic");
                let named = &answer.json()["error"]["plugin"];
                assert_eq!(*named, json!({ "name": "panic", "version": 1 }));
                assert!(server.values("t", 0).await.is_empty());
            }
            "dead-letter" => {
                assert_eq!(answer.json()["dead_lettered"][0]["cause"], "panic");
                assert!(server.values("t", 0).await.is_empty());
                let letter = &server.values("_dead-letter", 0).await[0];
                assert_eq!((&letter["topic"], &letter["event"]["value"]), (&json!("t"), &json!(1)));
            }
            _ => {
                let records = server.get("/topics/t/partitions/0/records?offset=0").await.json();
                let marked = &records["records"][0]["headers"]["stream-validation-skipped"];
                assert_eq!(*marked, "panic@1");
            }
        }
    }
}

#[tokio::test]
async fn one_poisoned_event_of_a_batch_is_dead_lettered_alone() {
    let server = Server::start().await;
    server.topic(1).await;
    server.bound("validate", "poison", json!({ "on_fault": "dead-letter" })).await;
    let mut values: Vec<String> = (0..500).map(|n| n.to_string()).collect();
    values[321] = "\"poison\"".to_owned();
    let values: Vec<&str> = values.iter().map(String::as_str).collect();
    let answer = server.events(lines(&values), &[]).await;
    assert_eq!(answer.json()["count"], 499, "{}", answer.text);
    let letters = answer.json()["dead_lettered"].clone();
    assert_eq!((letters.as_array().unwrap().len(), &letters[0]["index"]), (1, &json!(321)));
    assert_eq!(server.values("_dead-letter", 0).await.len(), 1);
}

#[tokio::test]
async fn a_skipped_partitioner_falls_back_to_the_key() {
    let server = Server::start().await;
    server.topic(8).await;
    server.bound("partition", "partition-out-of-range", json!({ "on_fault": "skip" })).await;
    let lines = "{\"key\":\"k\",\"value\":1}\n";
    let answer = server.events(lines, &[]).await.json();
    server.call("DELETE /bindings/partition/t", Value::Null).await;
    let without = server.events(lines, &[]).await.json();
    assert_eq!(answer["partitions"][0]["partition"], without["partitions"][0]["partition"]);
}

#[tokio::test]
async fn a_transform_that_answers_with_no_event_is_a_fault() {
    let server = Server::start().await;
    server.topic(1).await;
    server.bound("transform", "bad-transform", json!({})).await;
    let answer = server.produce("1").await;
    assert_eq!(answer.error(), (502, "plugin-answer".to_owned()));
    let skip = server.bind("transform/t", "bad-transform", json!({ "on_fault": "skip" })).await;
    assert_eq!(skip.error(), (400, "invalid-on-fault".to_owned()));
    server.bind("transform/t", "bad-transform", json!({ "on_fault": "dead-letter" })).await;
    assert_eq!(server.produce("1").await.status, 202);
}

#[tokio::test]
async fn a_breaker_pauses_a_binding_that_mostly_fails() {
    let server = Server::start().await;
    server.topic(1).await;
    server.bound("validate", "panic", json!({ "on_fault": "dead-letter" })).await;
    for _ in 0..5 {
        assert_eq!(server.produce("1").await.status, 202);
    }
    let paused = server.produce("1").await;
    assert_eq!(paused.error(), (503, "plugin-paused".to_owned()));
    assert_eq!(paused.header("retry-after"), "1");
    assert!(paused.json()["error"]["reason"].as_str().unwrap().contains("panic"));
    assert_eq!(server.values("_dead-letter", 0).await.len(), 5);
    let plugin = server.get("/plugins/panic").await.json();
    assert_eq!(plugin["paused"][0]["place"], "validate/t");
    server.clock.advance(Duration::from_secs(1));
    assert_eq!(server.produce("1").await.status, 202, "one call probes");
    assert_eq!(server.produce("1").await.status, 503);
}

#[tokio::test]
async fn a_repeat_gets_its_answer_although_the_validator_would_refuse_it_now() {
    let server = Server::start().await;
    server.topic(1).await;
    let producer = [("producer-id", "p"), ("producer-epoch", "0"), ("producer-seq", "0")];
    let first = server.events(lines(&[BAD]), &producer).await;
    assert_eq!(first.status, 200, "{}", first.text);
    server.bound("validate", "validate-order", json!({})).await;
    let again = server.events(lines(&[BAD]), &producer).await.json();
    assert_eq!((&again["duplicate"], &again["count"]), (&json!(true), &json!(1)));
    assert_eq!(again["partitions"], first.json()["partitions"]);
    let next = [("producer-id", "p"), ("producer-epoch", "0"), ("producer-seq", "1")];
    assert_eq!(server.events(lines(&[BAD]), &next).await.status, 400);
    // The refused one has taken no sequence.
    assert_eq!(server.events(lines(&[GOOD]), &next).await.status, 200);
}

#[tokio::test]
async fn a_repeat_gets_the_whole_answer_with_copies_and_rejections() {
    let server = Server::start().await;
    server.topic(1).await;
    server.make("copy", 2).await;
    server.call("PUT /routes/r", json!({ "match": "t", "to": ["copy"] })).await;
    server.bound("validate", "validate-order", json!({})).await;
    let headers = [NDJSON[0], ("idempotency-key", "k")];
    let call = "POST /topics/t/events?on_reject=partial";
    let first = server.call_with(call, &headers, lines(&[GOOD, BAD])).await.json();
    assert_eq!((&first["count"], &first["copies"][0]["topic"]), (&json!(1), &json!("copy")));
    let mut again = server.call_with(call, &headers, lines(&[GOOD, BAD])).await.json();
    assert_eq!(again["duplicate"], true);
    again["duplicate"] = false.into();
    assert_eq!(again, first);
}

#[tokio::test]
async fn a_dry_run_stores_nothing_and_says_what_would_differ() {
    let server = Server::start().await;
    server.topic(1).await;
    server.upload_as("p", "pass-through").await;
    server.bind("validate/t", "p", json!({})).await;
    server.events(lines(&[GOOD, BAD]), &[]).await;
    server.upload_as("p", "validate-order").await;
    let tried = json!({ "topic": "t", "from": { "partition": 0, "offset": 0 } });
    let answer = server.call("POST /plugins/p/try", tried).await.json();
    assert_eq!((&answer["version"], &answer["role"]), (&json!(2), &json!("validate")));
    assert_eq!(answer["outcomes"][0]["outcome"], "accept");
    assert_eq!(
        (&answer["outcomes"][1]["outcome"], &answer["outcomes"][1]["offset"]),
        (&json!("reject"), &json!(1))
    );
    assert_eq!(
        (&answer["bound"]["version"], &answer["bound"]["differs"]),
        (&json!(1), &json!([1]))
    );
    assert!(answer["memory"].as_u64().unwrap() > 0);
    let given =
        json!({ "topic": "t", "version": 1, "role": "partition", "events": [{ "value": 1 }] });
    let answer = server.call("POST /plugins/p/try", given).await.json();
    assert_eq!(answer["outcomes"][0]["partition"], 0);
    assert_eq!(answer.get("bound"), None);
    assert_eq!(server.values("t", 0).await.len(), 2, "nothing was stored");
    let unsaid = json!({ "topic": "t", "version": 1, "events": [{ "value": 1 }] });
    assert_eq!(
        server.call("POST /plugins/p/try", unsaid).await.error(),
        (400, "invalid-role".to_owned())
    );
    server.upload("spin").await;
    let spun = json!({ "topic": "t", "events": [{ "value": 1 }] });
    let answer = server.call("POST /plugins/spin/try", spun).await;
    assert_eq!(
        (answer.status.as_u16(), &answer.json()["fault"]["cause"]),
        (200, &json!("timeout"))
    );
}

#[tokio::test]
async fn figures_and_logs_can_be_seen() {
    let server = Server::start().await;
    server.topic(1).await;
    server.bound("validate", "flood-log", json!({ "timeout_ms": 3_000, "on_fault": "skip" })).await;
    server.produce("1").await;
    let logs = server.get("/plugins/flood-log/logs?limit=2").await.json();
    assert_eq!(logs["lines"].as_array().unwrap().len(), 2);
    assert!(logs["dropped_bytes"].as_u64().unwrap() > 0);
    let stats = server.get("/plugins/flood-log/stats").await.json();
    assert_eq!(stats["versions"][0]["calls"], 1, "{stats}");
    let metrics = server.get("/metrics").await.text;
    let calls =
        "stream_plugin_calls_total{project=\"default\",plugin=\"flood-log\",version=\"1\"} 1";
    assert!(metrics.contains(calls), "{metrics}");
    server.call("PUT /projects/other", Value::Null).await;
    let made = server.call("POST /projects/other/keys", json!({ "scopes": ["publish"] })).await;
    let key = made.json()["key"].as_str().unwrap().to_owned();
    let metrics = server.call_as(&key, "GET /metrics", Value::Null).await;
    assert_eq!(metrics.status, 200);
    assert!(!metrics.text.contains("flood-log"), "another tenant's plugins are not shown");
}

#[tokio::test]
async fn a_trial_takes_events_byte_for_byte_and_says_where_one_is_malformed() {
    let server = Server::start().await;
    server.upload("pass-through").await;
    let json = [("content-type", "application/json")];
    let call = "POST /plugins/pass-through/try";
    let body = r#"{"topic":"t","role":"validate","events":[{"value":1e999}]}"#;
    let answer = server.call_with(call, &json, body).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    let body = r#"{   "topic":"t",   "role":"validate", "events":  [ {"value":1}, {"valu":1}]}"#;
    let refused = server.call_with(call, &json, body).await;
    let expected = body.find(r#""valu""#).unwrap();
    assert_eq!(refused.json()["error"]["byte"], expected, "{}", refused.text);
}

#[tokio::test]
async fn what_is_bound_and_printed_is_not_for_those_who_only_publish() {
    let server = Server::start().await;
    server.topic(1).await;
    server.bound("validate", "pass-through", json!({})).await;
    let publisher = server.key(&["publish", "consume"]).await;
    for path in ["/bindings", "/bindings/validate/t", "/routes", "/plugins/pass-through/logs"] {
        let refused = server.call_as(&publisher, &format!("GET {path}"), Value::Null).await;
        assert_eq!(refused.error(), (403, "missing-scope".to_owned()), "{path}");
    }
    let figures = server.call_as(&publisher, "GET /plugins/pass-through/stats", Value::Null).await;
    assert_eq!(figures.status, 200);
}

#[tokio::test]
async fn a_list_that_was_unbound_is_gone_but_for_its_revisions() {
    let server = Server::start().await;
    server.upload("pass-through").await;
    server.bind("validate/t", "pass-through", json!({})).await;
    assert_eq!(server.call("DELETE /bindings/validate/t", Value::Null).await.status, 204);
    for call in ["DELETE /bindings/validate/t", "POST /bindings/validate/t/rollback"] {
        let gone = server.call(call, Value::Null).await;
        assert_eq!(gone.error(), (404, "bindings-not-found".to_owned()), "{call}");
    }
    assert_eq!(server.get("/bindings").await.json(), json!({ "bindings": [] }));
    let again = server.bind("validate/t", "pass-through", json!({})).await;
    assert_eq!(again.json()["revision"], 3, "an old revision never matches");
}

#[tokio::test]
async fn a_version_of_a_deleted_plugin_never_means_another_component() {
    let server = Server::start().await;
    server.upload_as("a", "pass-through").await;
    server.upload_as("b", "pass-through").await;
    server.bind("validate/t", "a", json!({})).await;
    server.bind("validate/t", "b", json!({})).await;
    assert_eq!(server.call("DELETE /plugins/a", Value::Null).await.status, 204);
    assert_eq!(server.get("/plugins/a").await.error(), (404, "plugin-not-found".to_owned()));
    assert_eq!(server.get("/plugins").await.json()["plugins"].as_array().unwrap().len(), 1);
    let again = server.upload_as("a", "validate-order").await;
    assert_eq!(again.json()["version"], 2, "{}", again.text);
    let back = server.call("POST /bindings/validate/t/rollback", Value::Null).await;
    assert_eq!(back.error(), (404, "plugin-version-not-found".to_owned()));
}
