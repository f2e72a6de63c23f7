//! Routes, events by type, and schemas over HTTP.

use serde_json::{Value, json};

use super::Server;
use super::plugins::{BAD, GOOD, NDJSON, lines};

#[tokio::test]
async fn copies_are_stored_with_their_original_and_follow_further_routes_once() {
    let server = Server::start().await;
    for topic in ["a", "b", "c"] {
        server.make(topic, 1).await;
    }
    // A circle: each topic gets one copy all the same.
    for (name, from, to) in [("1", "a", "b"), ("2", "b", "c"), ("3", "c", "a"), ("4", "*", "c")] {
        let route = json!({ "match": from, "to": [to] });
        assert_eq!(server.call(&format!("PUT /routes/{name}"), route).await.status, 200);
    }
    let answer = server.call("POST /topics/a/produce", json!({ "value": 1 })).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    for topic in ["a", "b", "c"] {
        assert_eq!(server.values(topic, 0).await, [json!(1)], "{topic}");
    }
}

#[tokio::test]
async fn an_event_that_a_target_refuses_is_stored_nowhere() {
    let server = Server::start().await;
    server.make("a", 1).await;
    server.topic(1).await;
    server.bound("validate", "validate-order", json!({})).await;
    server.call("PUT /routes/r", json!({ "match": "a", "to": ["t"] })).await;
    let lines = lines(&[BAD, GOOD]);
    let refused = server.call_with("POST /topics/a/events", NDJSON, lines.clone()).await;
    assert_eq!(refused.json()["error"]["rejected"][0]["topic"], "t", "{}", refused.text);
    let partial = server.call_with("POST /topics/a/events?on_reject=partial", NDJSON, lines).await;
    assert_eq!(partial.json()["count"], 1);
    assert_eq!((server.values("a", 0).await.len(), server.values("t", 0).await.len()), (1, 1));
}

#[tokio::test]
async fn a_route_to_a_missing_topic_follows_its_policy() {
    let server = Server::start().await;
    server.topic(1).await;
    for (policy, status) in [("reject", 502), ("dead-letter", 202), ("skip", 200)] {
        let route = json!({ "match": "t", "to": ["missing"], "on_fault": policy });
        assert_eq!(server.call("PUT /routes/r", route).await.status, 200);
        let answer = server.produce("1").await;
        assert_eq!(answer.status.as_u16(), status, "{policy}: {}", answer.text);
        if policy == "reject" {
            assert_eq!(answer.error().1, "route-missing-target");
            assert_eq!(answer.json()["error"]["route"], "r");
        }
    }
}

#[tokio::test]
async fn a_routing_plugin_may_name_only_what_its_route_allows() {
    let server = Server::start().await;
    server.topic(1).await;
    server.make("from.jfk", 1).await;
    server.upload("route-by-content").await;
    let config = json!({ "field": "o", "topics": { "JFK": "from.jfk", "X": "secret" } });
    let plugin = json!({ "plugin": "route-by-content", "config": config });
    let route = json!({ "match": "t", "to": ["from.*"], "plugin": plugin });
    assert_eq!(server.call("PUT /routes/r", route).await.status, 200);
    assert_eq!(server.produce(r#"{"o":"JFK"}"#).await.status, 200);
    assert_eq!(server.values("from.jfk", 0).await.len(), 1);
    let refused = server.produce(r#"{"o":"X"}"#).await;
    assert_eq!(refused.error(), (502, "plugin-answer".to_owned()));
    assert_eq!(server.produce(r#"{"o":"nowhere"}"#).await.status, 200);
}

#[tokio::test]
async fn routes_are_checked() {
    let server = Server::start().await;
    server.upload("validate-order").await;
    let cases = [
        (json!({ "match": "a", "to": [] }), "invalid-to"),
        (json!({ "match": "a", "to": ["b.*"] }), "invalid-to"),
        (json!({ "match": "a", "to": ["_dead-letter"] }), "invalid-to"),
        (json!({ "match": "a.***", "to": ["b"] }), "invalid-match"),
        (json!({ "to": ["b"] }), "invalid-match"),
        (
            json!({ "match": "a", "to": ["b"], "plugin": { "plugin": "validate-order" } }),
            "role-not-exported",
        ),
    ];
    for (route, code) in cases {
        let refused = server.call("PUT /routes/r", route.clone()).await;
        assert_eq!(refused.error(), (400, code.to_owned()), "{route}");
    }
    assert_eq!(server.get("/routes/r").await.error(), (404, "route-not-found".to_owned()));
}

#[tokio::test]
async fn events_go_to_the_topics_of_their_types_and_strays_are_kept() {
    let server = Server::start().await;
    server.topic(1).await;
    server.make("copy", 1).await;
    server.call("PUT /routes/r", json!({ "match": "only.routed", "to": ["copy"] })).await;
    let lines = [
        r#"{"type":"t","value":1}"#,
        r#"{"type":"only.routed","value":2}"#,
        r#"{"type":"nowhere","value":3}"#,
        r#"{"type":"no name!","value":4}"#,
        r#"{"type":"_dead-letter","value":5}"#,
    ];
    let answer = server.by_type(&lines.join("\n")).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    let json = answer.json();
    assert_eq!((&json["count"], &json["unrouted"]), (&json!(5), &json!(3)));
    let topics: Vec<_> = json["topics"].as_array().unwrap().iter().map(|t| &t["topic"]).collect();
    assert_eq!(topics, ["copy", "t", "_unrouted"]);
    assert_eq!(server.values("copy", 0).await, [json!(2)]);
    assert_eq!(server.values("_unrouted", 0).await, [json!(3), json!(4), json!(5)]);
    let untyped = server.by_type("{\"value\":1}").await;
    assert_eq!(untyped.error(), (400, "malformed-event".to_owned()));
    assert_eq!(untyped.json()["error"]["field"], "type");
}

#[tokio::test]
async fn cloud_events_are_routed_by_type_too() {
    let server = Server::start().await;
    server.topic(1).await;
    let event =
        json!({ "specversion": "1.0", "id": "7", "source": "s", "type": "t", "data": { "a": 1 } });
    let headers = [("content-type", "application/cloudevents-batch+json")];
    let answer = server.call_with("POST /events", &headers, json!([event]).to_string()).await;
    assert_eq!(answer.json()["topics"][0]["topic"], "t", "{}", answer.text);
}

#[tokio::test]
async fn a_schema_holds_with_its_topic_and_has_versions() {
    let server = Server::start().await;
    server.topic(1).await;
    let schema = json!({ "type": "object", "required": ["id"] });
    assert_eq!(server.call("PUT /topics/t/schema", schema.clone()).await.json()["version"], 1);
    assert_eq!(server.call("PUT /topics/t/schema", schema).await.json()["version"], 1);
    let refused = server.produce("{}").await;
    assert_eq!(refused.error(), (400, "events-rejected".to_owned()));
    assert_eq!(refused.json()["error"]["rejected"][0].get("plugin"), None);
    assert_eq!(server.produce(r#"{"id":1}"#).await.status, 200);
    assert_eq!(server.call("PUT /topics/t/schema", json!(true)).await.json()["version"], 2);
    assert_eq!(server.produce("{}").await.status, 200);
    let broken = server.call("PUT /topics/t/schema", json!({ "$ref": "http://x/y" })).await;
    assert_eq!(broken.error(), (400, "invalid-schema".to_owned()));
    assert_eq!(broken.json()["error"]["path"], "/$ref");
    assert_eq!(server.call("DELETE /topics/t/schema", Value::Null).await.status, 204);
    assert_eq!(server.get("/topics/t/schema").await.error(), (404, "schema-not-found".to_owned()));
    assert_eq!(
        server.get("/topics/t/schema/versions").await.json()["versions"][2]["schema"],
        Value::Null
    );
    // Made again under the same name, the topic starts without one.
    server.call("PUT /topics/t/schema", json!(false)).await;
    server.call("DELETE /topics/t", Value::Null).await;
    server.topic(1).await;
    assert_eq!(server.produce("{}").await.status, 200);
}

#[tokio::test]
async fn too_many_targets_are_refused() {
    let server = Server::start().await;
    server.topic(1).await;
    let names: Vec<String> = (0..33).map(|n| format!("c{n}")).collect();
    for name in &names {
        server.make(name, 1).await;
    }
    // The topic itself counts: 31 copies are as many as there may be.
    for (name, to) in [("a", &names[..16]), ("b", &names[16..31])] {
        server.call(&format!("PUT /routes/{name}"), json!({ "match": "t", "to": to })).await;
    }
    assert_eq!(server.produce("1").await.status, 200);
    server.call("PUT /routes/c", json!({ "match": "t", "to": &names[31..] })).await;
    let refused = server.produce("1").await;
    assert_eq!(refused.error(), (413, "too-large".to_owned()));
    assert_eq!(refused.json()["error"]["limit"], "route_targets");
}

#[tokio::test]
async fn an_event_for_which_a_router_chooses_nothing_is_a_stray_and_not_lost() {
    let server = Server::start().await;
    server.upload("route-by-content").await;
    let plugin = json!({ "plugin": "route-by-content", "config": { "field": "o", "topics": {} } });
    let route = json!({ "match": "only.routed", "to": ["from.*"], "plugin": plugin });
    assert_eq!(server.call("PUT /routes/r", route).await.status, 200);
    let answer = server.by_type("{\"type\":\"only.routed\",\"value\":{\"o\":1}}").await.json();
    assert_eq!((&answer["count"], &answer["unrouted"]), (&json!(1), &json!(1)), "{answer}");
    assert_eq!(server.values("_unrouted", 0).await.len(), 1);
}

#[tokio::test]
async fn copies_count_against_the_limit_before_they_are_made() {
    let server = Server::start().await;
    server.topic(1).await;
    let names: Vec<String> = (0..30).map(|n| format!("c{n}")).collect();
    for name in &names {
        server.make(name, 1).await;
    }
    server.call("PUT /routes/r", json!({ "match": "t", "to": names })).await;
    // 31 times 4 MiB are more than the 64 MiB of a transaction.
    let value = format!("\"{}\"", "x".repeat(1_000_000));
    let refused = server.events(lines(&[&value, &value, &value, &value]), &[]).await;
    assert_eq!(refused.error(), (413, "too-large".to_owned()));
    assert_eq!(refused.json()["error"]["limit"], "transaction bytes");
    assert_eq!(server.events(lines(&[&value]), &[]).await.status, 200);
}

#[tokio::test]
async fn a_trial_tells_what_a_publish_would_and_what_a_failed_call_took() {
    let server = Server::start().await;
    server.upload("bad-transform").await;
    let tried = json!({ "topic": "t", "events": [{ "value": 1 }] });
    let answer = server.call("POST /plugins/bad-transform/try", tried.clone()).await.json();
    assert_eq!(answer["fault"]["cause"], "answer", "{answer}");
    server.upload("spin").await;
    let answer = server.call("POST /plugins/spin/try", tried).await.json();
    assert_eq!(answer["fault"]["cause"], "timeout");
    assert!(answer["time_us"].as_u64().unwrap() >= 100_000, "{answer}");
}

#[tokio::test]
async fn the_mark_of_a_skipped_validator_is_neither_forged_nor_lost() {
    let server = Server::start().await;
    server.topic(1).await;
    server.bound("transform", "redact-field", json!({ "config": ["a"] })).await;
    let header = json!({ "stream-validation-skipped": "forged" });
    let event = json!({ "value": { "a": 1 }, "headers": header });
    let mark = async || {
        server.call("POST /topics/t/produce", event.clone()).await;
        let path = "/topics/t/partitions/0/records?tail=1";
        let records = server.get(path).await.json();
        records["records"][0]["headers"]["stream-validation-skipped"].clone()
    };
    assert_eq!(mark().await, Value::Null);
    server.bound("validate", "panic", json!({ "on_fault": "skip" })).await;
    assert_eq!(mark().await, "panic@1");
}

#[tokio::test]
async fn a_request_names_at_most_1024_topics_by_its_types() {
    let server = Server::start().await;
    let lines = |count: usize| -> String {
        (0..count).map(|n| format!("{{\"type\":\"t{n}\",\"value\":{n}}}\n")).collect()
    };
    assert_eq!(server.by_type(&lines(1_024)).await.json()["unrouted"], 1_024);
    let refused = server.by_type(&lines(1_025)).await;
    assert_eq!(refused.error(), (413, "too-large".to_owned()));
    assert_eq!(refused.json()["error"]["limit"], "request_topics");
}
