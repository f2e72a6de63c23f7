//! How fast a server starts and how little it needs; a binary of its own, so that nothing else runs.
//!
//! `STREAM_START_RECORDS` sets how many records a start has to find (default 100,000); with
//! 10,000,000 and a release build it is the promise of the README.
#![cfg(test)]

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::json;
use stream_tests::Server;

const EXE: &str = env!("CARGO_BIN_EXE_stream-under-test");
const IDLE_BYTES_MAX: u64 = 40 << 20;
const EMPTY_START_MAX: Duration = Duration::from_millis(200);
const FULL_START_MAX: Duration = Duration::from_secs(2);

/// More memory with a thousand subscribers that wait, and processor time of two seconds, in ticks.
const SUBSCRIBERS: usize = 1_000;
const SUBSCRIBERS_BYTES_MAX: u64 = 64 << 20;
const IDLE_TICKS_MAX: u64 = 4;

/// A machine that is busy with something else makes a start slower, never faster: the fastest counts.
const STARTS: usize = 5;
/// One test at a time.
static ALONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// Bytes of memory that a process holds.
fn resident_bytes(server: &Server) -> u64 {
    let path = format!("/proc/{}/status", server.pid().as_raw_nonzero());
    let status = std::fs::read_to_string(path).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() << 10
}

/// Processor time that a process has taken, in ticks of 10 ms.
fn processor_ticks(server: &Server) -> u64 {
    let path = format!("/proc/{}/stat", server.pid().as_raw_nonzero());
    let stat = std::fs::read_to_string(path).unwrap();
    let (_, fields) = stat.rsplit_once(')').unwrap();
    let ticks = fields.split_whitespace().skip(11).take(2);
    ticks.map(|field| field.parse::<u64>().unwrap()).sum()
}

/// Starts a server and waits until it takes requests.
#[expect(clippy::disallowed_methods, reason = "what is measured is real time")]
async fn timed_start(data: &Path) -> (Server, Duration) {
    let started = Instant::now();
    let server = Server::start(EXE, data);
    assert_eq!(server.client().call("GET", "/readyz").await.status, 200);
    (server, started.elapsed())
}

#[expect(clippy::disallowed_methods, reason = "a test is set by its environment")]
fn records() -> usize {
    std::env::var("STREAM_START_RECORDS").map_or(100_000, |value| value.parse().unwrap())
}

#[tokio::test]
async fn an_empty_server_is_ready_at_once_and_idles_small() {
    let _alone = ALONE.lock().await;
    let mut fastest = Duration::MAX;
    for _ in 0..STARTS {
        let data = tempfile::tempdir().unwrap();
        let (server, took) = timed_start(data.path()).await;
        let bytes = resident_bytes(&server);
        println!("ready in {took:?}, {} MiB", bytes >> 20);
        assert!(bytes <= IDLE_BYTES_MAX, "{bytes}");
        fastest = fastest.min(took);
    }
    assert!(fastest <= EMPTY_START_MAX, "{fastest:?}");
}

#[tokio::test]
async fn a_server_with_many_records_is_ready_soon() {
    const BATCH: usize = 10_000;
    let _alone = ALONE.lock().await;
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(EXE, data.path());
    let client = server.client();
    client.call_with("POST", "/topics", json!({"name": "t", "partitions": 8})).await.ok();
    let line = json!({"value": {"text": "x".repeat(230)}}).to_string() + "\n";
    let lines = line.repeat(BATCH);
    for _ in 0..records() / BATCH {
        client.publish("t", lines.clone()).await.ok();
    }
    server.kill();
    let (server, took) = timed_start(data.path()).await;
    println!("ready in {took:?} with {} records, {} MiB", records(), resident_bytes(&server) >> 20);
    assert!(took <= FULL_START_MAX, "{took:?}");
    let stats = server.client().call("GET", "/topics/t/stats").await.ok();
    assert_eq!(stats["total_events"], json!(records() / BATCH * BATCH));
}

#[tokio::test]
async fn a_thousand_idle_subscribers_cost_little_memory_and_no_time() {
    let _alone = ALONE.lock().await;
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(EXE, data.path());
    let client = server.client();
    for number in 0..20 {
        let topic = json!({"name": format!("order.{number}"), "partitions": 10});
        client.call_with("POST", "/topics", topic).await.ok();
    }
    let before = resident_bytes(&server);
    let mut subscribers = Vec::new();
    for _ in 0..SUBSCRIBERS {
        subscribers.push(client.subscribe("/subscribe?pattern=order.**", None).await);
    }
    // All of them are there and wait: each gets what is published.
    client.call_with("POST", "/topics/order.7/produce", json!({"value": 1})).await.ok();
    for subscriber in &mut subscribers {
        assert_eq!(subscriber.next().await.unwrap().data["value"], json!(1));
    }
    let bytes = resident_bytes(&server).saturating_sub(before);
    let ticks = processor_ticks(&server);
    // What is measured is this span: a wait for nothing else.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let ticks = processor_ticks(&server) - ticks;
    println!("{SUBSCRIBERS} subscribers: {} MiB, {ticks} ticks in 2 s", bytes >> 20);
    assert!(bytes <= SUBSCRIBERS_BYTES_MAX, "{bytes}");
    assert!(ticks <= IDLE_TICKS_MAX, "{ticks}");
}
