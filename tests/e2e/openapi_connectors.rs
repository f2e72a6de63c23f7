//! The served OpenAPI document against what connectors answer.

use std::time::Duration;

use serde_json::{Value, json};
use stream_tests::{Server, Sink, component};

use super::EXE;
use super::openapi::Checked;

const CONNECTORS: &str = "/projects/{project}/connectors";
const CONNECTOR: &str = "/projects/{project}/connectors/{connector}";
const C: &str = "/projects/default/connectors/c";

/// No test waits longer.
const PATIENCE: Duration = Duration::from_secs(20);

async fn checked(data: &std::path::Path) -> (Server, Checked) {
    let server = Server::start_with(EXE, data, &["--egress-allow", "127.0.0.1"]);
    let checked = Checked::new(server.client()).await;
    let create = ("POST", "/projects/{project}/topics", "/projects/default/topics");
    checked.call(create, Some(json!({ "name": "t", "partitions": 1 })), 201).await;
    (server, checked)
}

async fn publish(checked: &Checked, count: usize) {
    let events = "/projects/{project}/topics/{topic}/events";
    let lines = "{\"value\":1,\"key\":\"k\"}\n".repeat(count);
    let call = ("POST", events, "/projects/default/topics/t/events");
    checked.call(call, Some(lines.into()), 200).await;
}

/// The connector `c`, once `is_so`.
async fn until(checked: &Checked, is_so: impl Fn(&Value) -> bool) -> Value {
    let looks = async {
        loop {
            let told = checked.call(("GET", CONNECTOR, C), None, 200).await.body;
            if is_so(&told) {
                return told;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, looks).await.expect("it comes to be so")
}

#[tokio::test]
async fn every_kind_of_this_server_is_as_the_document_says() {
    let data = tempfile::tempdir().unwrap();
    let (_server, checked) = checked(data.path()).await;
    let put = ("PUT", CONNECTOR, C);
    let path = "/projects/default/plugins/only";
    let plugin = checked.client.request("PUT", path).body(component("validate-order"));
    let upload = ("PUT", "/projects/{project}/plugins/{plugin}", path);
    checked.send(upload, plugin.header("content-type", "application/wasm"), 201).await;
    let settings = json!({ "queue": "q", "from": "earliest", "batch": 10 });
    let full = json!({
        "name": "c", "kind": "worker", "match": "t", "settings": settings,
        "plugin": { "plugin": "only", "role": "validate", "version": 1, "config": "", "memory": 67_108_864,
                    "on_fault": "dead-letter", "timeout_ms": 100, "instance": "kept" },
    });
    let made = checked.call(put, Some(full), 201).await.body;
    assert_eq!((&made["plugin"]["role"], &made["settings"]), (&json!("validate"), &settings));
    publish(&checked, 2).await;
    let told = until(&checked, |told| told["dropped"] == 2).await;
    assert_eq!(
        (&told["taken"], &told["lag"], &told["queue"]["waiting"]),
        (&json!(2), &json!(0), &json!(0))
    );
    // As it is shown it may be put back.
    let plain = json!({ "kind": "worker", "match": "t", "plugin": null, "settings": settings });
    let plain = checked.call(put, Some(plain), 200).await.body;
    assert_eq!(checked.call(put, Some(plain), 200).await.body["settings"], settings);
    for kind in ["hooks", "ledger"] {
        let path = format!("/projects/default/connectors/{kind}");
        let body = json!({ "kind": kind, "match": "none.*" });
        let made = checked.call(("PUT", CONNECTOR, &path), Some(body), 201).await.body;
        assert!(made["warning"].as_str().unwrap().contains("none.*"), "{made}");
    }
    let list = ("GET", CONNECTORS, "/projects/default/connectors?limit=2");
    let page = checked.call(list, None, 200).await.body;
    assert_eq!(page["next"], "hooks", "{page}");
    let missing = ("GET", CONNECTOR, "/projects/default/connectors/none");
    checked.refuse(missing, None, 404, "connector-not-found").await;
    states(&checked).await;
}

async fn states(checked: &Checked) {
    let (pause, resume) = (format!("{CONNECTOR}/pause"), format!("{CONNECTOR}/resume"));
    let path = format!("{C}/pause");
    let paused = checked.call(("POST", &pause, &path), None, 200).await.body;
    assert_eq!(paused["state"], "paused");
    let missing = "/projects/default/connectors/none/pause";
    checked.refuse(("POST", &pause, missing), None, 404, "connector-not-found").await;
    let path = format!("{C}/resume");
    checked.call(("POST", &resume, &path), None, 200).await;

    let (replay, path) = (format!("{CONNECTOR}/replay"), format!("{C}/replay"));
    let replay = ("POST", replay.as_str(), path.as_str());
    checked.call(replay, Some(json!({ "from": "earliest" })), 200).await;
    let time = json!({ "from": "2026-01-01T00:00:00Z", "topic": "t", "partition": 0 });
    checked.call(replay, Some(time), 200).await;
    let at = |offset: u64| Some(json!({ "topic": "t", "partition": 0, "offset": offset }));
    checked.call(replay, at(1), 200).await;
    checked.refuse(replay, at(99), 416, "offset-beyond-end").await;
    checked.refuse(replay, Some(json!({})), 400, "invalid-from").await;
    let other = json!({ "topic": "u", "from": "latest" });
    checked.refuse(replay, Some(other), 400, "invalid-topic").await;
    let partition = json!({ "topic": "t", "partition": 9, "from": "latest" });
    checked.refuse(replay, Some(partition), 400, "invalid-partition").await;
    let records = "/projects/{project}/topics/{topic}/partitions/{partition}/records";
    let trim = "/projects/default/topics/t/partitions/0/records?before=1";
    checked.call(("DELETE", records, trim), None, 200).await;
    checked.refuse(replay, at(0), 410, "offset-trimmed").await;

    let delete = |query: &'static str| ("DELETE", CONNECTOR, query);
    let wrong = delete("/projects/default/connectors/c?mode=wait");
    checked.refuse(wrong, None, 400, "invalid-mode").await;
    checked.call(delete("/projects/default/connectors/c?mode=drop"), None, 204).await;
    let again = delete("/projects/default/connectors/c?mode=drop");
    checked.refuse(again, None, 404, "connector-not-found").await;
}

#[tokio::test]
async fn connectors_to_a_service_elsewhere_are_as_the_document_says() {
    let data = tempfile::tempdir().unwrap();
    let (_server, checked) = checked(data.path()).await;
    let sink = Sink::start().await;
    sink.answer(&[400, 503]);
    let put = ("PUT", CONNECTOR, C);
    let full = json!({
        "kind": "hooks", "match": "t", "url": sink.url, "secret": "s3cret",
        "settings": { "project": "p", "timeout_ms": 2_000, "concurrency": 1, "rate_per_second": 1e3,
                      "attempts_max": 5, "backoff": { "delays_ms": [10] }, "ordered": true },
    });
    let made = checked.call(put, Some(full), 201).await.body;
    assert_eq!((&made["has_secret"], made.get("secret")), (&json!(true), None));
    publish(&checked, 2).await;
    let told = until(&checked, |told| told["sent"] == 1).await;
    assert_eq!((&told["queue"]["dead"], &told["lag"]), (&json!(1), &json!(0)));
    assert!(told["last_error"].as_str().unwrap().contains("503"), "{told}");
    let dead = format!("{CONNECTOR}/dead-letters");
    let path = format!("{C}/dead-letters?limit=1");
    let letters = checked.call(("GET", &dead, &path), None, 200).await.body;
    let letter = &letters["dead_letters"][0];
    assert_eq!(letter["source"], json!({ "topic": "t", "partition": 0, "offset": 0 }));
    let zero = format!("{C}/dead-letters?limit=0");
    checked.refuse(("GET", &dead, &zero), None, 400, "invalid-limit").await;

    let (redrive, path) = (format!("{CONNECTOR}/redrive"), format!("{C}/redrive"));
    let redrive = ("POST", redrive.as_str(), path.as_str());
    checked.refuse(redrive, Some(json!({ "ids": ["x"] })), 400, "invalid-ids").await;
    let ids = json!({ "ids": [letter["id"], letter["id"]] });
    let redriven = checked.call(redrive, Some(ids), 200).await.body;
    assert_eq!(redriven["redriven"], 1);
    until(&checked, |told| told["sent"] == 2).await;
    assert_eq!(checked.call(redrive, None, 200).await.body["redriven"], 0);

    // It takes what is there and sends nothing: it drains for as long as nobody takes it.
    sink.answer(&[503; 1_000]);
    let ladder = json!({ "backoff": { "base_ms": 60_000, "max_ms": 60_000 }, "concurrency": 1 });
    let slow = json!({ "kind": "hooks", "match": "t", "url": sink.url, "settings": ladder });
    checked.call(put, Some(slow.clone()), 200).await;
    publish(&checked, 1).await;
    until(&checked, |told| told["failures"] != 0).await;
    let drained = checked.call(("DELETE", CONNECTOR, C), None, 202).await.body;
    assert_eq!(drained["state"], "draining");
    checked.refuse(put, Some(slow), 409, "connector-draining").await;
    let (pause, path) = (format!("{CONNECTOR}/pause"), format!("{C}/pause"));
    checked.refuse(("POST", &pause, &path), None, 409, "connector-draining").await;
    let drop = "/projects/default/connectors/c?mode=drop";
    checked.call(("DELETE", CONNECTOR, drop), None, 204).await;
}

#[tokio::test]
async fn what_a_connector_refuses_is_as_the_document_says() {
    let data = tempfile::tempdir().unwrap();
    let (_server, checked) = checked(data.path()).await;
    let put = ("PUT", CONNECTOR, C);
    for (field, value, code) in [
        ("kind", json!("x"), "invalid-kind"),
        ("match", json!("a..b"), "invalid-match"),
        ("name", json!("d"), "invalid-name"),
        ("secret", json!("s"), "invalid-secret"),
        ("url", json!("ftp://h"), "invalid-url"),
        ("url", json!("http://10.0.0.1/"), "forbidden-url"),
        ("url", json!("http://no-such-name.invalid/"), "unresolved-url"),
        ("settings", json!({ "speed": 1 }), "invalid-settings"),
        ("settings", json!({ "timeout_ms": 1 }), "invalid-settings"),
        ("settings", json!({ "batch": 1_001 }), "invalid-settings-batch"),
        ("settings", json!({ "queue": "_q" }), "invalid-settings-queue"),
        ("settings", json!({ "from": "now" }), "invalid-settings-from"),
        ("speed", json!(1), "invalid-body"),
    ] {
        let mut body = json!({ "kind": "worker", "match": "t" });
        body[field] = value;
        checked.refuse(put, Some(body), 400, code).await;
    }
    let plugin = json!({ "kind": "worker", "match": "t", "plugin": { "plugin": "none" } });
    checked.refuse(put, Some(plugin), 404, "plugin-not-found").await;
    for number in 0..100 {
        let path = format!("/projects/default/connectors/c{number}");
        let body = json!({ "kind": "worker", "match": "none" });
        checked.call(("PUT", CONNECTOR, &path), Some(body), 201).await;
    }
    let body = json!({ "kind": "worker", "match": "none" });
    checked.refuse(put, Some(body), 409, "too-many-connectors").await;
}
