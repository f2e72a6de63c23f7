//! All three connectors at once: on real events with workers that vanish, and under kills of the
//! server in whatever they do. A binary of its own, so that nothing else runs beside.
#![cfg(test)]

mod chaos;
mod flights;
mod worker;

use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use serde_json::{Value, json};
use stream_tests::{Client, Hit, KEY, Server, Sink};
use tokio::time::Instant;

const EXE: &str = env!("CARGO_BIN_EXE_stream-under-test");
const SAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/data/flights-sample.ndjson");

/// Nothing takes longer unless it never comes.
const PATIENCE: Duration = Duration::from_secs(120);

/// A server that may send to receivers of this machine.
fn start(data: &Path) -> Server {
    Server::start_with(EXE, data, &["--egress-allow", "127.0.0.1"])
}

/// Runs the command line against a server.
fn stream(server: &Server, arguments: &[&str]) -> Output {
    Command::new(EXE)
        .args(arguments)
        .env("STREAM_URL", &server.url)
        .env("STREAM_API_KEY", KEY)
        .output()
        .unwrap()
}

async fn connect(client: &Client, name: &str, kind: &str, pattern: &str, settings: Value) {
    let body = json!({ "kind": kind, "match": pattern, "settings": settings });
    client.call_with("PUT", &format!("/connectors/{name}"), body).await.ok();
}

async fn endpoint(client: &Client, receiver: &Sink, pattern: &str) {
    let body = json!({
        "name": "there",
        "url": receiver.url,
        "events": [pattern],
        "settings": { "retry_delays_ms": [10, 50] },
    });
    client.call_with("POST", "/webhooks/endpoints", body).await.ok();
}

/// Asks until `is_so`.
async fn until(client: &Client, path: &str, is_so: impl Fn(&Value) -> bool) -> Value {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let told = client.call("GET", path).await.body;
        if is_so(&told) {
            return told;
        }
        assert!(Instant::now() < deadline, "{path}: {told}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Waits until the connectors have taken everything.
async fn caught_up(client: &Client, names: &[&str]) {
    for name in names {
        until(client, &format!("/connectors/{name}"), |told| told["lag"] == json!(0)).await;
    }
}

/// Checks a whole ledger offline, from a copy of its files over HTTP.
fn verify(server: &Server, ledger: &str) {
    let url = format!("{}/projects/default/ledgers/{ledger}", server.url);
    let verified = stream(server, &["ledger", "verify", &url]);
    let text = String::from_utf8_lossy(&verified.stderr).into_owned();
    assert!(verified.status.success(), "{text}{}", String::from_utf8_lossy(&verified.stdout));
}

/// Every entry of a ledger: topic, partition and offset of its event, in order.
async fn entries(client: &Client, ledger: &str, size: u64) -> Vec<(String, u64, u64)> {
    let mut entries = Vec::new();
    for bundle in 0..size.div_ceil(256) {
        let width = (size - bundle * 256).min(256);
        let partial = if width == 256 { String::new() } else { format!(".p/{width}") };
        let path = format!("/ledgers/{ledger}/tile/entries/{}{partial}", index(bundle));
        let response = client.request("GET", &path).send().await.unwrap();
        assert_eq!(response.status().as_u16(), 200, "{path}");
        let bytes = response.bytes().await.unwrap();
        let mut rest = &bytes[..];
        while let Some((length, behind)) = rest.split_first_chunk::<2>() {
            let (entry, behind) = behind.split_at(usize::from(u16::from_be_bytes(*length)));
            let entry: Value = serde_json::from_slice(entry).unwrap();
            let number = |name: &str| entry[name].as_u64().unwrap();
            let topic = entry["topic"].as_str().unwrap().to_owned();
            entries.push((topic, number("partition"), number("offset")));
            rest = behind;
        }
    }
    entries
}

/// A tile's number in a path: groups of three digits, all but the last with `x`.
fn index(number: u64) -> String {
    if number < 1_000 {
        return format!("{number:03}");
    }
    let head = index(number / 1_000).replace('x', "");
    let head: Vec<String> = head.split('/').map(|group| format!("x{group}")).collect();
    format!("{}/{:03}", head.join("/"), number % 1_000)
}
