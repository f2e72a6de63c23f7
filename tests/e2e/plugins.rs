//! Plugins in a running server: real events through several at once, switches and kills under load,
//! and uploads that mean harm.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use stream_tests::{Client, Server, compile_bomb, component, padded};

use super::{EXE, SAMPLE, start};

/// All values of a topic, by partition.
async fn values(client: &Client, topic: &str, partitions: u32) -> Vec<(u32, Value)> {
    let mut values = Vec::new();
    for partition in 0..partitions {
        let records = client.records(topic, partition, 0).await;
        values.extend(records.into_iter().map(|mut record| (partition, record["value"].take())));
    }
    values
}

/// Carriers that have a topic of their own.
const CARRIERS: [&str; 4] = ["UA", "B6", "EV", "DL"];

/// Topics for all types and carriers, and a validator, a partitioner and a router for the flights.
async fn bind_all(client: &Client, types: &BTreeSet<&str>) {
    for topic in types {
        client.call_with("POST", "/topics", json!({ "name": topic, "partitions": 4 })).await.ok();
    }
    let of_carriers = CARRIERS.map(|name| format!("carrier.{name}"));
    for name in of_carriers.iter().map(String::as_str).chain(["carrier.other"]) {
        client.call_with("POST", "/topics", json!({ "name": name })).await.ok();
    }
    for name in ["require-fields", "partition-by-field", "route-by-content"] {
        client.upload(&format!("/plugins/{name}"), component(name)).await.ok();
    }
    let validator = json!({ "plugin": "require-fields", "config": ["tailnum"] });
    client.bind("/bindings/validate/flight.**", validator).await;
    let partitioner = json!({ "plugin": "partition-by-field", "config": "origin" });
    client.bind("/bindings/partition/flight.**", partitioner).await;
    let topics: BTreeMap<&str, &String> = CARRIERS.into_iter().zip(&of_carriers).collect();
    let config = json!({ "field": "carrier", "topics": topics, "otherwise": "carrier.other" });
    let route = json!({
        "match": "flight.**",
        "to": ["carrier.*"],
        "plugin": { "plugin": "route-by-content", "config": config },
    });
    client.call_with("PUT", "/routes/by-carrier", route).await.ok();
}

#[tokio::test]
async fn flights_pass_a_validator_a_partitioner_and_a_router_at_once() {
    let data = tempfile::tempdir().unwrap();
    let server = start(data.path());
    let client = server.client();
    let text = std::fs::read_to_string(SAMPLE).unwrap();
    let flights: Vec<Value> =
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let carrier_topic = |flight: &Value| {
        let carrier = flight["value"]["carrier"].as_str().unwrap();
        let known = CARRIERS.contains(&carrier);
        if known { format!("carrier.{carrier}") } else { "carrier.other".to_owned() }
    };
    // What a plain script makes of the file.
    let has_tail = |flight: &Value| !flight["value"]["tailnum"].is_null();
    let mut expected: BTreeMap<String, usize> = BTreeMap::new();
    for flight in flights.iter().filter(|flight| has_tail(flight)) {
        *expected.entry(flight["type"].as_str().unwrap().to_owned()).or_default() += 1;
        *expected.entry(carrier_topic(flight)).or_default() += 1;
    }
    let rejected = flights.iter().filter(|flight| !has_tail(flight)).count();
    assert!(rejected > 0 && expected.len() > 8, "the sample has gaps and variety");

    let types: BTreeSet<&str> =
        flights.iter().map(|flight| flight["type"].as_str().unwrap()).collect();
    bind_all(&client, &types).await;
    let request = client.request("POST", "/events?on_reject=partial");
    let request = request.header("content-type", "application/x-ndjson").body(text);
    let answer = client.send(request).await.ok();
    assert_eq!(answer["rejected"].as_array().unwrap().len(), rejected);
    assert_eq!(answer["count"], flights.len() - rejected);
    let told: BTreeMap<String, usize> = answer["topics"]
        .as_array()
        .unwrap()
        .iter()
        .map(|topic| {
            let count = usize::try_from(topic["count"].as_u64().unwrap()).unwrap();
            (topic["topic"].as_str().unwrap().to_owned(), count)
        })
        .collect();
    assert_eq!(told, expected);
    for topic in types {
        let stored = values(&client, topic, 4).await;
        assert_eq!(stored.len(), expected.get(topic).copied().unwrap_or_default(), "{topic}");
        let mut by_origin: BTreeMap<String, BTreeSet<u32>> = BTreeMap::new();
        for (partition, value) in stored {
            let origin = value["origin"].as_str().unwrap().to_owned();
            by_origin.entry(origin).or_default().insert(partition);
        }
        assert!(by_origin.values().all(|partitions| partitions.len() == 1), "{topic}");
    }
}

/// Ten versions that differ in which field they redact.
const VERSIONS: usize = 10;

async fn switch_until(client: &Client, published: &AtomicUsize) -> usize {
    let mut switches = 0;
    // Every version is bound at least twice, with publishes in between.
    for round in 0..2 * VERSIONS {
        let version = round % VERSIONS;
        let binding = json!({
            "plugin": "redact",
            "version": version + 1,
            "config": [format!("f{version}")],
            "timeout_ms": 3_000,
        });
        client.bind("/bindings/transform/t", binding).await;
        let refused = client.call("DELETE", "/plugins/redact").await;
        assert_eq!((refused.status, refused.code()), (409, "plugin-bound"));
        switches += 1;
        let seen = published.load(Ordering::Relaxed);
        while published.load(Ordering::Relaxed) < seen + 4 {
            tokio::task::yield_now().await;
        }
    }
    switches
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn versions_are_switched_under_load_and_each_event_passes_exactly_one() {
    let data = tempfile::tempdir().unwrap();
    let server = start(data.path());
    let client = server.client();
    client.call_with("POST", "/topics", json!({ "name": "t" })).await.ok();
    for version in 0..VERSIONS {
        let component = padded(component("redact-field"), &[u8::try_from(version).unwrap()]);
        let uploaded = client.upload("/plugins/redact", component).await.ok();
        assert_eq!(uploaded["version"], version + 1);
    }
    let first = json!({ "plugin": "redact", "version": 1, "config": ["f0"], "timeout_ms": 3_000 });
    client.bind("/bindings/transform/t", first).await;
    let fields: serde_json::Map<String, Value> =
        (0..VERSIONS).map(|version| (format!("f{version}"), version.into())).collect();
    let lines = format!("{}\n", json!({ "value": fields })).repeat(20);
    let (published, is_over) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    let mut publishers = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let (client, lines) = (client.clone(), lines.clone());
        let (published, is_over) = (Arc::clone(&published), Arc::clone(&is_over));
        publishers.spawn(async move {
            while !is_over.load(Ordering::Relaxed) {
                client.publish("t", lines.clone()).await.ok();
                published.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    let switches = switch_until(&client, &published).await;
    is_over.store(true, Ordering::Relaxed);
    publishers.join_all().await;
    let records = client.records("t", 0, 0).await;
    assert_eq!(records.len(), 20 * published.load(Ordering::Relaxed), "no request was lost");
    let mut used = BTreeSet::new();
    for record in &records {
        let redacted: Vec<usize> = (0..VERSIONS)
            .filter(|version| record["value"][format!("f{version}")] == "[redacted]")
            .collect();
        assert_eq!(redacted.len(), 1, "{record}");
        used.extend(redacted);
    }
    assert_eq!((used.len(), switches), (VERSIONS, 2 * VERSIONS));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plugin_is_unbound_and_deleted_under_load_without_an_error() {
    let data = tempfile::tempdir().unwrap();
    let server = start(data.path());
    let client = server.client();
    client.call_with("POST", "/topics", json!({ "name": "t" })).await.ok();
    let is_over = Arc::new(AtomicBool::new(false));
    let mut publishers = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let (client, is_over) = (client.clone(), Arc::clone(&is_over));
        publishers.spawn(async move {
            let mut published = 0;
            while !is_over.load(Ordering::Relaxed) {
                client.publish("t", "{\"value\":1}\n".repeat(10)).await.ok();
                published += 10;
            }
            published
        });
    }
    for _ in 0..8 {
        client.upload("/plugins/p", component("pass-through")).await.ok();
        client.bind("/bindings/validate/t", json!({ "plugin": "p", "timeout_ms": 3_000 })).await;
        assert_eq!(client.call("DELETE", "/bindings/validate/t").await.status, 204);
        assert_eq!(client.call("DELETE", "/plugins/p").await.status, 204);
    }
    is_over.store(true, Ordering::Relaxed);
    let published: usize = publishers.join_all().await.into_iter().sum();
    assert_eq!(client.records("t", 0, 0).await.len(), published);
}

#[tokio::test]
async fn a_kill_during_an_upload_leaves_a_whole_plugin_or_none() {
    let data = tempfile::tempdir().unwrap();
    // Several chunks of random bytes: storing them takes a while.
    let padding: Vec<u8> =
        (0..12_u32 << 20).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let component = padded(component("pass-through"), &padding);
    let (mut whole, mut rounds) = (0, 0);
    while rounds < 16 {
        let server = start(data.path());
        let name = format!("/plugins/p{rounds}");
        let upload = {
            let (client, name, component) = (server.client(), name.clone(), component.clone());
            let request = client.request("PUT", &name).header("content-type", "application/wasm");
            tokio::spawn(async move { client.try_send(request.body(component)).await })
        };
        // From before the first byte to after the answer.
        tokio::time::sleep(Duration::from_millis(rounds * 12)).await;
        server.kill();
        let was_answered = upload.await.unwrap().is_ok_and(|answer| answer.status == 201);
        let server = start(data.path());
        let client = server.client();
        let found = client.call("GET", &name).await;
        assert!(found.status == 200 || !was_answered, "an answered upload is there");
        if found.status == 200 {
            let place = format!("/bindings/validate/t{rounds}");
            let plugin = name.trim_start_matches("/plugins/");
            client.bind(&place, json!({ "plugin": plugin })).await;
            whole += 1;
        } else {
            assert_eq!(found.code(), "plugin-not-found");
            // The same again, over what is left of it.
            client.upload(&name, component.clone()).await.ok();
        }
        assert!(server.stop().success());
        rounds += 1;
    }
    println!("{whole} of {rounds} uploads came through");
}

#[tokio::test]
async fn a_compile_bomb_costs_an_error_and_not_the_server() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start_with(EXE, data.path(), &["--plugin-compile-time", "2s"]);
    let client = server.client();
    client.call_with("POST", "/topics", json!({ "name": "t" })).await.ok();
    let bomb = client.upload("/plugins/bomb", compile_bomb()).await;
    assert_eq!((bomb.status, bomb.code()), (400, "invalid-component"), "{bomb:?}");
    assert_eq!(bomb.body["error"]["problem"], "compile-limits");
    client.call_with("POST", "/topics/t/produce", json!({ "value": 1 })).await.ok();
    assert_eq!(client.call("GET", "/plugins/bomb").await.status, 404);
}

#[tokio::test]
async fn an_upload_that_is_too_large_is_refused_before_it_is_read() {
    let data = tempfile::tempdir().unwrap();
    let limit = ["--plugin-upload-bytes-max", "100000"];
    let server = Server::start_with(EXE, data.path(), &limit);
    let client = server.client();
    let whole = component("pass-through");
    let at_limit = padded(whole.clone(), &vec![0; 100_000 - whole.len() - 9]);
    assert!(at_limit.len() <= 100_000 && at_limit.len() > 99_990, "{}", at_limit.len());
    client.upload("/plugins/p", at_limit).await.ok();
    let beyond = client.upload("/plugins/q", padded(whole, &vec![0; 100_000])).await;
    assert_eq!((beyond.status, beyond.code()), (413, "too-large"));
}

#[tokio::test]
async fn bindings_hold_after_a_restart_and_code_is_not_compiled_again() {
    let data = tempfile::tempdir().unwrap();
    let server = start(data.path());
    let client = server.client();
    client.call_with("POST", "/topics", json!({ "name": "t" })).await.ok();
    client.upload("/plugins/orders", component("validate-order")).await.ok();
    client.bind("/bindings/validate/*", json!({ "plugin": "orders" })).await;
    server.kill();
    let code = data.path().join("plugin-code");
    let files = || {
        let files = std::fs::read_dir(&code).unwrap().map(|file| file.unwrap());
        files.map(|file| (file.path(), file.metadata().unwrap().modified().unwrap())).collect()
    };
    let before: BTreeMap<_, _> = files();
    for is_damaged in [false, true] {
        if is_damaged {
            let path = before.keys().next().unwrap();
            let mut bytes = std::fs::read(path).unwrap();
            bytes.iter_mut().skip(5_000).take(400).for_each(|byte| *byte ^= 0x55);
            std::fs::write(path, bytes).unwrap();
        }
        let server = start(data.path());
        let refused =
            server.client().call_with("POST", "/topics/t/produce", json!({ "value": 1 })).await;
        assert_eq!((refused.status, refused.code()), (400, "events-rejected"), "{is_damaged}");
        assert_eq!(files() == before, !is_damaged, "only what is damaged is made again");
        server.stop();
    }
}
