//! The served OpenAPI document against what the server does with plugins, bindings, routes and
//! schemas, and with events that pass them.

use std::path::Path;

use serde_json::{Value, json};
use stream_tests::{Answer, Client, Server};

use super::EXE;
use super::openapi::{Call, Checked};

const UPLOAD_BYTES_MAX: usize = 1_050_000;
const CONTROL_BYTES_MAX: usize = 256 << 10;

const PLUGIN: &str = "/projects/{project}/plugins/{plugin}";
const VERSIONS: &str = "/projects/{project}/plugins/{plugin}/versions";
const STATS: &str = "/projects/{project}/plugins/{plugin}/stats";
const LOGS: &str = "/projects/{project}/plugins/{plugin}/logs";
const TRY: &str = "/projects/{project}/plugins/{plugin}/try";
const BINDINGS: &str = "/projects/{project}/bindings/{role}/{pattern}";
const ROLLBACK: &str = "/projects/{project}/bindings/{role}/{pattern}/rollback";
const ROUTE: &str = "/projects/{project}/routes/{route}";
const SCHEMA: &str = "/projects/{project}/topics/{topic}/schema";
const SCHEMAS: &str = "/projects/{project}/topics/{topic}/schema/versions";
const PRODUCE: &str = "/projects/{project}/topics/{topic}/produce";
const EVENTS: &str = "/projects/{project}/topics/{topic}/events";
const BY_TYPE: &str = "/projects/{project}/events";

/// A server with topics `order`, `audit` and `spun`, the plugins that the calls are about, and the
/// data that is removed with it.
async fn checked() -> (Checked, Server, tempfile::TempDir) {
    let data = tempfile::tempdir().unwrap();
    let max = UPLOAD_BYTES_MAX.to_string();
    let server = Server::start_with(EXE, data.path(), &["--plugin-upload-bytes-max", &max]);
    let checked = Checked::new(server.client()).await;
    for topic in ["order", "audit", "spun"] {
        checked.client.call_with("POST", "/topics", json!({"name": topic})).await.ok();
    }
    for plugin in ["validate-order", "pass-through", "route-by-content", "redact-field", "spin"] {
        upload(&checked, plugin, component(plugin), 201).await;
    }
    (checked, server, data)
}

/// A component of `guest-examples/built`.
fn component(name: &str) -> Vec<u8> {
    let built = Path::new(env!("CARGO_MANIFEST_DIR")).join("../guest-examples/built");
    std::fs::read(built.join(name).with_extension("wasm")).unwrap()
}

async fn upload(checked: &Checked, name: &str, bytes: Vec<u8>, status: u16) -> Answer {
    let path = format!("/plugins/{name}");
    let request = checked.client.request("PUT", &path).header("content-type", "application/wasm");
    checked.send(("PUT", PLUGIN, &path), request.body(bytes), status).await
}

/// Sends one byte too many; packed, since the server hears no more of what says that it is too large.
async fn too_large(checked: &Checked, call: Call<'_>, content_type: &str, max: usize) {
    let request = checked.client.request(call.0, call.2).header("content-type", content_type);
    let body = zstd::encode_all(&*vec![b' '; max + 1], 3).unwrap();
    let answer =
        checked.send(call, request.header("content-encoding", "zstd").body(body), 413).await;
    assert_eq!(answer.body["error"]["max"], max);
}

#[tokio::test]
async fn plugins_are_as_the_document_says() {
    let (checked, server, _data) = checked().await;
    upload(&checked, "validate-order", component("validate-order"), 200).await;
    upload(&checked, "spin", component("pass-through"), 201).await;
    let refused = upload(&checked, "no", component("no-export"), 400).await;
    assert_eq!(refused.body["error"]["problem"], "no-known-export");
    let refused = upload(&checked, "no", b"text".to_vec(), 400).await;
    assert_eq!(refused.body["error"]["problem"], "not-wasm");
    assert_eq!(upload(&checked, "no%20name", Vec::new(), 400).await.code(), "invalid-plugin");
    let put = ("PUT", PLUGIN, "/plugins/no");
    too_large(&checked, put, "application/wasm", UPLOAD_BYTES_MAX).await;
    checked.refuse(put, Some(json!({})), 415, "unsupported-media-type").await;
    let list = "/projects/{project}/plugins";
    let page = checked.call(("GET", list, "/plugins?limit=2"), None, 200).await;
    assert_eq!(page.body["next"], "redact-field");
    checked.call(("GET", list, "/plugins?after=redact-field"), None, 200).await;
    checked.refuse(("GET", list, "/plugins?limit=0"), None, 400, "invalid-limit").await;
    for (template, end) in
        [(PLUGIN, ""), (VERSIONS, "/versions"), (STATS, "/stats"), (LOGS, "/logs")]
    {
        checked.call(("GET", template, &format!("/plugins/spin{end}")), None, 200).await;
        let missing = format!("/plugins/none{end}");
        checked.refuse(("GET", template, &missing), None, 404, "plugin-not-found").await;
    }
    let logs = |query: &str| format!("/plugins/spin/logs?{query}");
    checked.call(("GET", LOGS, &logs("version=1&limit=1")), None, 200).await;
    checked.refuse(("GET", LOGS, &logs("version=x")), None, 400, "invalid-version").await;
    let missing = logs("version=9");
    checked.refuse(("GET", LOGS, &missing), None, 404, "plugin-version-not-found").await;
    checked.call(("DELETE", PLUGIN, "/plugins/spin"), None, 204).await;
    checked.refuse(("DELETE", PLUGIN, "/plugins/spin"), None, 404, "plugin-not-found").await;
    without_scopes(&checked, &server).await;
}

/// What a key that only reads must not do.
async fn without_scopes(checked: &Checked, server: &Server) {
    let key = json!({"scopes": ["consume"]});
    let made = checked.client.call_with("POST", "/keys", key).await.ok();
    let reader = Checked::new(Client::new(&server.url, made["key"].as_str())).await;
    let calls: [Call<'_>; 10] = [
        ("PUT", PLUGIN, "/plugins/p"),
        ("DELETE", PLUGIN, "/plugins/p"),
        ("POST", TRY, "/plugins/p/try"),
        ("PUT", BINDINGS, "/bindings/validate/p"),
        ("DELETE", BINDINGS, "/bindings/validate/p"),
        ("POST", ROLLBACK, "/bindings/validate/p/rollback"),
        ("PUT", ROUTE, "/routes/r"),
        ("DELETE", ROUTE, "/routes/r"),
        ("PUT", SCHEMA, "/topics/order/schema"),
        ("POST", BY_TYPE, "/events"),
    ];
    for call in calls {
        reader.refuse(call, None, 403, "missing-scope").await;
    }
}

#[tokio::test]
async fn trials_are_as_the_document_says() {
    let (checked, _server, _data) = checked().await;
    checked.client.call_with("POST", "/topics/order/produce", json!({"value": 1})).await.ok();
    let events =
        json!([{"value": {"orderId": "a", "total": 1, "card": 1}, "key": "k"}, {"value": 1}]);
    let bind = json!({"bindings": [{"plugin": "validate-order", "config": {"max_total": 0}}]});
    checked.client.call_with("PUT", "/bindings/validate/order", bind).await.ok();
    let run = |plugin: &str| format!("/plugins/{plugin}/try");
    let given = |more: Value| {
        let mut body = json!({"topic": "order", "events": events});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        Some(body)
    };
    let answer = checked
        .call(("POST", TRY, &run("validate-order")), given(json!({"config": ""})), 200)
        .await;
    assert_eq!(answer.body["bound"]["differs"], json!([0]));
    for role in ["validate", "partition", "route", "transform"] {
        let body = given(json!({"role": role}));
        checked.call(("POST", TRY, &run("pass-through")), body, 200).await;
    }
    let config = json!({"config": ["card"], "version": 1});
    let answer = checked.call(("POST", TRY, &run("redact-field")), given(config), 200).await;
    assert_eq!(answer.body["outcomes"][0]["event"]["value"]["card"], "[redacted]");
    let config = json!({"config": {"field": "orderId", "topics": {"a": "audit"}}});
    let answer = checked.call(("POST", TRY, &run("route-by-content")), given(config), 200).await;
    assert_eq!(answer.body["outcomes"][0]["topics"], json!(["audit"]));
    let answer = checked.call(("POST", TRY, &run("spin")), given(json!({})), 200).await;
    assert_eq!(answer.body["fault"]["cause"], "timeout");
    let from = |from: Value| Some(json!({"topic": "order", "role": "transform", "from": from}));
    let stored = from(json!({"partition": 0, "offset": 0, "limit": 9}));
    let answer = checked.call(("POST", TRY, &run("pass-through")), stored, 200).await;
    assert_eq!(answer.body["outcomes"][0]["offset"], 0);
    let beyond = from(json!({"partition": 0, "offset": 9}));
    let pass = run("pass-through");
    checked.refuse(("POST", TRY, &pass), beyond, 416, "offset-beyond-end").await;
    checked.client.call("DELETE", "/topics/order/partitions/0/records?before=1").await.ok();
    let trimmed = from(json!({"partition": 0, "offset": 0}));
    checked.refuse(("POST", TRY, &pass), trimmed, 410, "offset-trimmed").await;
    let refused = [
        (json!({"topic": "order"}), 400, "invalid-events"),
        (json!({"topic": "order", "events": []}), 400, "empty-batch"),
        (json!({"topic": "order", "events": [{"valu": 1}]}), 400, "malformed-event"),
        (json!({"topic": "order", "events": [{"value": 1}]}), 400, "invalid-role"),
        (json!({"events": [{"value": 1}]}), 400, "invalid-topic"),
        (json!({"topic": "order", "more": 1, "events": [{"value": 1}]}), 400, "invalid-body"),
    ];
    for (body, status, code) in refused {
        checked.refuse(("POST", TRY, &pass), Some(body), status, code).await;
    }
    let body = given(json!({"version": 9}));
    checked.refuse(("POST", TRY, &pass), body, 404, "plugin-version-not-found").await;
    let none = run("none");
    checked.refuse(("POST", TRY, &none), given(json!({})), 404, "plugin-not-found").await;
    checked.refuse(("POST", TRY, &pass), Some("{}\n".into()), 415, "unsupported-media-type").await;
    let answer = checked.call(("GET", STATS, "/plugins/spin/stats"), None, 200).await;
    assert_eq!(answer.body["versions"][0]["faults"], json!({"timeout": 1}));
}

#[tokio::test]
async fn bindings_are_as_the_document_says() {
    let (checked, _server, _data) = checked().await;
    let at = |method| (method, BINDINGS, "/bindings/validate/order.**");
    let bind = |plugin: &str| json!({"bindings": [{"plugin": plugin}]});
    let whole = json!({
        "bindings": [{
            "plugin": "validate-order",
            "version": 1,
            "config": {"max_total": 1},
            "on_fault": "skip",
            "timeout_ms": 1,
            "memory": 1 << 20,
            "instance": "fresh",
        }],
        "revision": 0,
    });
    checked.call(at("PUT"), Some(whole.clone()), 200).await;
    checked.refuse(at("PUT"), Some(whole), 409, "stale-revision").await;
    let bound = checked.call(("GET", PLUGIN, "/plugins/validate-order"), None, 200).await;
    assert_eq!(bound.body["bound"], json!(["validate/order.**"]));
    let delete = ("DELETE", PLUGIN, "/plugins/validate-order");
    checked.refuse(delete, None, 409, "plugin-bound").await;
    checked.call(at("PUT"), Some(bind("pass-through")), 200).await;
    checked.call(at("GET"), None, 200).await;
    checked.call(("GET", "/projects/{project}/bindings", "/bindings"), None, 200).await;
    let rollback = ("POST", ROLLBACK, "/bindings/validate/order.**/rollback");
    let before = checked.call(rollback, None, 200).await;
    assert_eq!(before.body["bindings"][0]["plugin"], "validate-order");
    checked.refuse(rollback, None, 400, "invalid-rollback").await;
    let binding = |field: &str, value: Value| {
        let mut binding = json!({"plugin": "pass-through"});
        binding[field] = value;
        json!({"bindings": [binding]})
    };
    let refused = [
        (bind("redact-field"), 400, "role-not-exported"),
        (bind("none"), 404, "plugin-not-found"),
        (binding("version", 9.into()), 404, "plugin-version-not-found"),
        (binding("on_fault", "no".into()), 400, "invalid-on-fault"),
        (binding("timeout_ms", 0.into()), 400, "invalid-timeout-ms"),
        (binding("memory", 0.into()), 400, "invalid-memory"),
        (binding("instance", "no".into()), 400, "invalid-instance"),
        (binding("config", "c".repeat((64 << 10) + 1).into()), 400, "invalid-config"),
        (json!({}), 400, "invalid-bindings"),
    ];
    for (body, status, code) in refused {
        checked.refuse(at("PUT"), Some(body), status, code).await;
    }
    checked.refuse(at("PUT"), Some("{}\n".into()), 415, "unsupported-media-type").await;
    too_large(&checked, at("PUT"), "application/json", CONTROL_BYTES_MAX).await;
    checked.refuse(("GET", BINDINGS, "/bindings/route/order"), None, 400, "invalid-role").await;
    checked
        .refuse(("GET", BINDINGS, "/bindings/validate/a..b"), None, 400, "invalid-pattern")
        .await;
    checked.call(at("DELETE"), None, 204).await;
    for method in ["GET", "DELETE"] {
        checked.refuse(at(method), None, 404, "bindings-not-found").await;
    }
}

#[tokio::test]
async fn routes_are_as_the_document_says() {
    let (checked, _server, _data) = checked().await;
    let at = |method| (method, ROUTE, "/routes/r");
    checked.call(at("PUT"), Some(json!({"match": "order", "to": ["audit"]})), 200).await;
    let config = json!({"field": "a", "topics": {}});
    let chosen = json!({
        "match": "order.**",
        "to": ["audit", "carrier.*"],
        "plugin": {"plugin": "route-by-content", "config": config},
        "on_fault": "dead-letter",
    });
    checked.call(at("PUT"), Some(chosen), 200).await;
    let route = checked.call(at("GET"), None, 200).await.body;
    let again = checked.call(at("PUT"), Some(route.clone()), 200).await;
    assert_eq!(again.body, route, "what was read can be put back");
    checked.call(("GET", "/projects/{project}/routes", "/routes"), None, 200).await;
    let with = |plugin: Value| json!({"match": "order", "to": ["audit"], "plugin": plugin});
    let refused = [
        (json!({"to": ["audit"]}), 400, "invalid-match"),
        (json!({"match": "a..b", "to": ["audit"]}), 400, "invalid-match"),
        (json!({"match": "order", "to": ["carrier.*"]}), 400, "invalid-to"),
        (with(json!({"plugin": "validate-order"})), 400, "role-not-exported"),
        (with(json!({"plugin": "route-by-content", "on_fault": "skip"})), 400, "invalid-plugin"),
        (with(json!({"plugin": "none"})), 404, "plugin-not-found"),
    ];
    for (body, status, code) in refused {
        checked.refuse(at("PUT"), Some(body), status, code).await;
    }
    checked.refuse(at("PUT"), Some("{}\n".into()), 415, "unsupported-media-type").await;
    too_large(&checked, at("PUT"), "application/json", CONTROL_BYTES_MAX).await;
    let delete = ("DELETE", PLUGIN, "/plugins/route-by-content");
    checked.refuse(delete, None, 409, "plugin-bound").await;
    checked.call(at("DELETE"), None, 204).await;
    for method in ["GET", "DELETE"] {
        checked.refuse(at(method), None, 404, "route-not-found").await;
    }
}

#[tokio::test]
async fn schemas_are_as_the_document_says() {
    let (checked, _server, _data) = checked().await;
    let at = |method| (method, SCHEMA, "/topics/order/schema");
    for method in ["GET", "DELETE"] {
        checked.refuse(at(method), None, 404, "schema-not-found").await;
        checked.refuse((method, SCHEMA, "/topics/none/schema"), None, 404, "topic-not-found").await;
    }
    checked.call(at("PUT"), Some(json!({"type": "object", "required": ["a"]})), 200).await;
    checked.call(at("PUT"), Some(json!(true)), 200).await;
    checked.call(at("GET"), None, 200).await;
    checked.call(at("DELETE"), None, 204).await;
    let versions = checked.call(("GET", SCHEMAS, "/topics/order/schema/versions"), None, 200).await;
    assert_eq!(versions.body["versions"].as_array().unwrap().len(), 3);
    let missing = ("GET", SCHEMAS, "/topics/none/schema/versions");
    checked.refuse(missing, None, 404, "topic-not-found").await;
    let refused = [
        (json!({"properties": {"a": {"type": "no"}}}), 400, "invalid-schema"),
        (json!({"$ref": "https://a.b"}), 400, "invalid-schema"),
        (json!({"description": "d".repeat(64 << 10)}), 400, "invalid-schema"),
    ];
    for (body, status, code) in refused {
        checked.refuse(at("PUT"), Some(body), status, code).await;
    }
    checked.refuse(at("PUT"), Some("{}\n".into()), 415, "unsupported-media-type").await;
    too_large(&checked, at("PUT"), "application/json", CONTROL_BYTES_MAX).await;
}

#[tokio::test]
async fn what_events_pass_is_as_the_document_says() {
    let (checked, _server, _data) = checked().await;
    let put = async |path: &str, body| checked.client.call_with("PUT", path, body).await.ok();
    put("/bindings/validate/order", json!({"bindings": [{"plugin": "validate-order"}]})).await;
    put("/routes/audit", json!({"match": "order", "to": ["audit"]})).await;
    let good = json!({"value": {"orderId": "a", "total": 1}});
    let bad = json!({"value": 1});
    let events = |query: &'static str| ("POST", EVENTS, query);
    let all = events("/topics/order/events");
    let partial = events("/topics/order/events?on_reject=partial");
    let produce = ("POST", PRODUCE, "/topics/order/produce");
    let stored = checked.call(all, Some(json!([good])), 200).await;
    assert_eq!(stored.body["copies"][0]["topic"], "audit");
    checked.call(produce, Some(good.clone()), 200).await;
    checked.refuse(all, Some(json!([good, bad])), 400, "events-rejected").await;
    checked.refuse(produce, Some(bad.clone()), 400, "events-rejected").await;
    let stored = checked.call(partial, Some(json!([good, bad])), 200).await;
    assert_eq!(stored.body["rejected"][0]["index"], 1);
    checked.call(partial, Some(json!([bad])), 202).await;
    let unknown = events("/topics/order/events?on_reject=no");
    checked.refuse(unknown, Some(json!([good])), 400, "invalid-on-reject").await;
    by_type(&checked, &good, &bad).await;
    put("/routes/audit", json!({"match": "order", "to": ["none"]})).await;
    checked.refuse(all, Some(json!([good])), 502, "route-missing-target").await;
    let route = json!({"match": "order", "to": ["none"], "on_fault": "dead-letter"});
    put("/routes/audit", route).await;
    checked.call(produce, Some(good), 202).await;
    faults(&checked).await;
}

async fn by_type(checked: &Checked, good: &Value, bad: &Value) {
    let typed = |event: &Value, name: &str| {
        let mut event = event.clone();
        event["type"] = name.into();
        event
    };
    let (good, stray) = (typed(good, "order"), typed(good, "stray"));
    let all = ("POST", BY_TYPE, "/events");
    let partial = ("POST", BY_TYPE, "/events?on_reject=partial");
    let stored = checked.call(all, Some(json!([good, stray])), 200).await;
    assert_eq!((&stored.body["count"], &stored.body["unrouted"]), (&json!(2), &json!(1)));
    checked.call(all, Some(format!("{good}\n{stray}\n").into()), 200).await;
    checked.call(partial, Some(json!([good, typed(bad, "order")])), 200).await;
    checked.call(partial, Some(json!([typed(bad, "order")])), 202).await;
    checked.refuse(all, Some(json!([typed(bad, "order")])), 400, "events-rejected").await;
    checked.refuse(all, Some(json!([bad])), 400, "malformed-event").await;
    checked.refuse(all, Some("".into()), 400, "empty-batch").await;
}

/// A plugin that breaks, as its binding says, until it is paused.
async fn faults(checked: &Checked) {
    let bind = async |on_fault: &str| {
        // Another config is another binding, whose faults are counted anew.
        let config = on_fault;
        let binding =
            json!({"plugin": "spin", "timeout_ms": 10, "on_fault": on_fault, "config": config});
        let body = json!({"bindings": [binding]});
        checked.client.call_with("PUT", "/bindings/validate/spun", body).await.ok()
    };
    let produce = ("POST", PRODUCE, "/topics/spun/produce");
    let events = ("POST", EVENTS, "/topics/spun/events");
    let typed = ("POST", BY_TYPE, "/events");
    let event = json!({"value": 1, "type": "spun"});
    bind("dead-letter").await;
    let answer = checked.call(produce, Some(event.clone()), 202).await;
    assert_eq!(answer.body["dead_lettered"][0]["cause"], "timeout");
    checked.call(events, Some(json!([event])), 202).await;
    checked.call(typed, Some(json!([event])), 202).await;
    bind("reject").await;
    for call in [produce, events, typed, events, typed] {
        let body = if call == produce { event.clone() } else { json!([event]) };
        checked.refuse(call, Some(body), 502, "plugin-timeout").await;
    }
    for call in [produce, events, typed] {
        let body = if call == produce { event.clone() } else { json!([event]) };
        checked.refuse(call, Some(body), 503, "plugin-paused").await;
    }
    let plugin = checked.call(("GET", PLUGIN, "/plugins/spin"), None, 200).await;
    assert_eq!(plugin.body["paused"][0]["place"], "validate/spun");
}
