//! Real events, published by the command line, consumed by a group, counted and compared.

use serde_json::{Value, json};
use std::collections::BTreeMap;
use stream_tests::{Client, Server};

use super::{SAMPLE, start, stream};

/// The events of each topic and aircraft; of those without a key together.
type ByAircraft = BTreeMap<(String, Option<String>), Vec<Value>>;

/// Where a line of the file or a record belongs.
fn aircraft(topic: &str, event: &Value) -> (String, Option<String>) {
    (topic.to_owned(), event["key"].as_str().map(str::to_owned))
}

fn publish(server: &Server) -> Value {
    let output = stream(server, &["publish", "--json", "--by-type", "--create", SAMPLE]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// What the file holds.
fn published() -> ByAircraft {
    let mut events = ByAircraft::new();
    for line in std::fs::read_to_string(SAMPLE).unwrap().lines() {
        let event: Value = serde_json::from_str(line).unwrap();
        let key = aircraft(event["type"].as_str().unwrap(), &event);
        events.entry(key).or_default().push(event["value"].clone());
    }
    events
}

/// Consumes all of a topic by a group, page by page, committing each.
async fn consume(client: &Client, topic: &str, events: &mut ByAircraft) {
    loop {
        let page = client.call("GET", &format!("/topics/{topic}/consume?group=g&limit=37")).await;
        let page = page.ok();
        let records = page["records"].as_array().unwrap();
        if records.is_empty() {
            return;
        }
        for record in records {
            events.entry(aircraft(topic, record)).or_default().push(record["value"].clone());
        }
        for (partition, offset) in page["next_offsets"].as_object().unwrap() {
            let partition: u32 = partition.parse().unwrap();
            let commit = json!({"group": "g", "partition": partition, "offset": offset});
            let path = format!("/topics/{topic}/offsets");
            assert_eq!(client.call_with("POST", &path, commit).await.status, 204);
        }
    }
}

async fn consume_all(client: &Client) -> ByAircraft {
    let mut consumed = ByAircraft::new();
    let topics = client.call("GET", "/topics").await.ok();
    for topic in topics["topics"].as_array().unwrap() {
        consume(client, topic["name"].as_str().unwrap(), &mut consumed).await;
    }
    consumed
}

#[tokio::test]
async fn every_flight_is_consumed_once_and_each_aircraft_in_order() {
    let data = tempfile::tempdir().unwrap();
    let server = start(data.path());
    publish(&server);
    let (consumed, expected) = (consume_all(&server.client()).await, published());
    for (key, events) in &expected {
        assert_eq!(consumed.get(key), Some(events), "{key:?}");
    }
    assert_eq!(consumed.len(), expected.len());
    // A second look of the group finds nothing.
    assert!(consume_all(&server.client()).await.is_empty());
}

#[tokio::test]
async fn publishing_a_file_again_stores_nothing_twice() {
    let data = tempfile::tempdir().unwrap();
    let server = start(data.path());
    publish(&server);
    let before = consume_all(&server.client()).await;
    assert!(server.stop().success());
    let server = start(data.path());
    publish(&server);
    assert!(consume_all(&server.client()).await.is_empty(), "nothing new for the group");
    assert_eq!(before, published());
}

#[tokio::test]
async fn the_command_line_tails_what_was_published() {
    let data = tempfile::tempdir().unwrap();
    let server = start(data.path());
    publish(&server);
    let tail = stream(
        &server,
        &["tail", "flight.cancelled.LGA", "--from", "earliest", "--no-follow", "--json"],
    );
    assert!(tail.status.success(), "{}", String::from_utf8_lossy(&tail.stderr));
    let lines = String::from_utf8(tail.stdout).unwrap();
    let tailed: Vec<Value> =
        lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()).collect();
    let expected = published();
    let count: usize = expected
        .iter()
        .filter(|((topic, _), _)| topic == "flight.cancelled.LGA")
        .map(|(_, events)| events.len())
        .sum();
    assert_eq!(tailed.len(), count);
}

#[tokio::test]
async fn a_wrong_key_and_a_missing_server_have_their_exit_codes() {
    let data = tempfile::tempdir().unwrap();
    let server = start(data.path());
    let refused = stream(&server, &["--key", "sk_wrong", "topic", "list"]);
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    assert!(refused.stdout.is_empty() && !refused.stderr.is_empty());
    let nowhere = stream(&server, &["--url", "http://127.0.0.1:1", "topic", "list"]);
    assert_eq!(nowhere.status.code(), Some(3), "{nowhere:?}");
}
