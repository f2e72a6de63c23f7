//! `stream bench`: short runs of each measurement, which say no more than that they measure.

use std::process::{Command, Output};

use serde_json::Value;
use stream_tests::{KEY, Server};

use super::{EXE, stream};

/// A measurement with a server of its own.
fn alone(arguments: &[&str]) -> Output {
    let mut command = Command::new(EXE);
    command.arg("bench").args(arguments).arg("--json").env_remove("STREAM_URL");
    command.env("STREAM_RESERVE_BYTES", "0").output().unwrap()
}

#[track_caller]
fn json_of(output: &Output) -> Value {
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

#[track_caller]
fn is_above_zero(told: &Value, pointer: &str) {
    let number = told.pointer(pointer).and_then(Value::as_f64).unwrap_or_default();
    assert!(number > 0.0, "{pointer} of {told}");
}

const SHORT: [&str; 4] = ["--duration", "300ms", "--warm-up", "0s"];

#[test]
fn what_is_published_is_measured() {
    let batches = json_of(&alone(&[&["publish", "--batch", "50"][..], &SHORT].concat()));
    for figure in ["events_per_second", "latency_ms/p99", "mib_per_second"] {
        is_above_zero(&batches, &format!("/publish/{figure}"));
    }
    let requests = batches["publish"]["requests"].as_u64().unwrap();
    assert_eq!(batches["publish"]["events"], requests * 50);
    let rate = ["publish", "--single", "--rate", "200", "--duration", "1s", "--warm-up", "0s"];
    let single = json_of(&alone(&rate));
    let events = single["publish"]["events"].as_u64().unwrap();
    // Its schedule is kept, but for what is under way when the time is up.
    assert!((100..=200).contains(&events), "{single}");
}

#[test]
fn real_events_are_published_through_a_plugin() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/data/flights-sample.ndjson");
    let flights =
        [&["publish", "--file", file, "--batch", "100", "--plugin", "pass-through"], &SHORT[..]];
    is_above_zero(&json_of(&alone(&flights.concat())), "/publish/events_per_second");
}

#[test]
fn all_that_is_stored_is_read() {
    for format in ["ndjson", "json"] {
        let told =
            json_of(&alone(&["consume", "--events", "4321", "--groups", "2", "--format", format]));
        assert_eq!(told["consume"]["events"], 2 * 4_321);
        is_above_zero(&told, "/consume/events_per_second");
    }
}

#[test]
fn latencies_are_of_all_consumers() {
    let told = json_of(&alone(&[&["e2e", "--rate", "100"][..], &SHORT].concat()));
    for figure in ["sse_ms", "long_poll_ms", "acknowledged_ms", "sync_alone_ms"] {
        is_above_zero(&told, &format!("/e2e/{figure}/p50"));
    }
}

#[test]
fn what_stands_in_the_way_is_compared() {
    let load = [&["--batch", "50", "--rounds", "1"][..], &SHORT].concat();
    let plugin = json_of(&alone(&[&["wasm"][..], &load].concat()));
    is_above_zero(&plugin, "/wasm/share");
    let schema = json_of(&alone(&[&["wasm", "--schema", "ten-fields"][..], &load].concat()));
    is_above_zero(&schema, "/wasm/share");
    let behind = json_of(&alone(&[&["connectors"][..], &load].concat()));
    is_above_zero(&behind, "/connectors/shares/share");
    assert_eq!(behind["connectors"]["kinds"].as_array().unwrap().len(), 3);
}

#[test]
fn a_soak_and_growth_tell_of_disk_and_memory() {
    let told = json_of(&alone(&["soak", "--bytes", "3000000", "--keep", "1000000"]));
    for figure in ["write_amplification", "space_amplification", "memory_peak_mib"] {
        is_above_zero(&told, &format!("/soak/{figure}"));
    }
    assert!(told["soak"]["stolen_ms"].is_number(), "{told}");
    let few = ["--topics", "2", "--connections", "2", "--groups", "2", "--records", "3000"];
    let told = json_of(&alone(&[&["growth", "--duration", "200ms"][..], &few].concat()));
    is_above_zero(&told, "/growth/topics/0/events_per_second");
    is_above_zero(&told, "/growth/groups/0/memory_mib");
    is_above_zero(&told, "/growth/records/0/restart_ms");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_was_there_is_left_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(EXE, folder.path());
    let load =
        [&["bench", "publish", "--plugin", "pass-through", "--batch", "5", "--json"][..], &SHORT];
    is_above_zero(&json_of(&stream(&server, &load.concat())), "/publish/events_per_second");
    let client = server.client();
    assert_eq!(client.call("GET", "/topics").await.ok()["topics"], serde_json::json!([]));
    assert_eq!(client.call("GET", "/plugins").await.ok()["plugins"], serde_json::json!([]));
}

#[test]
fn what_makes_no_sense_is_refused() {
    let cases: [(&[&str], &str); 6] = [
        (&["publish", "--batch", "0"], "`--batch` is at least 1"),
        (&["publish", "--rate", "0"], "`--rate` is 0.001 to"),
        (&["e2e", "--rate", "inf"], "`--rate` is 0.001 to"),
        (&["publish", "--url", "https://127.0.0.1:1"], "plain HTTP"),
        (&["suite", "--url", "http://127.0.0.1:1"], "leave out `--url`"),
        (&["e2e", "--connections", "0"], "at least 1"),
    ];
    for (arguments, message) in cases {
        let refused = alone(arguments);
        let told = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert_eq!(refused.status.code(), Some(2), "{told}");
        assert!(told.contains(message), "{told}");
    }
    let refused = alone(&["publish", "--batch", "100000", "--connections", "2"]);
    let told = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(told.contains("code `too-large`, status 413"), "{told}");
    let unreachable = alone(&["publish", "--url", "http://127.0.0.1:1", "--key", KEY]);
    assert_eq!(unreachable.status.code(), Some(3));
    let missing = alone(&["publish", "--file", "/nowhere"]);
    assert_eq!(missing.status.code(), Some(4));
}
