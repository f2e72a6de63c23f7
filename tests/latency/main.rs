//! How soon an event that is published, synced, reaches who waits for it.
//!
//! `cargo build --release -p stream-tests --bins && target/release/latency target/release/stream-under-test`
//!
//! 10,000 events a second are sent at fixed times, whether or not the ones before are answered: what
//! is counted is the time from when an event was due, so that a stall shows in all that it delays.
//! Server, publisher and both consumers share the machine.
#![expect(clippy::expect_used, clippy::print_stdout, reason = "a measurement prints, or ends")]
#![expect(clippy::disallowed_methods, reason = "what is measured is real time")]
#![expect(clippy::indexing_slicing, reason = "a JSON value without a field is null")]

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use stream_tests::{Client, Server};

/// Requests a second, and events in each.
const REQUESTS: u32 = 1_000;
const EVENTS: u32 = 10;
const SPAN_SECONDS: u32 = 10;
/// What is not counted at first: connections are opened, memory is taken.
const WARM_UP: Duration = Duration::from_secs(1);
/// The promise.
const SLOW_MAX: Duration = Duration::from_millis(10);

#[tokio::main]
async fn main() {
    let exe = std::env::args().nth(1).expect("the server's binary");
    let data = tempfile::tempdir().expect("a folder for the data");
    let server = Server::start(&exe, data.path());
    let client = server.client();
    client.call_with("POST", "/topics", json!({"name": "t", "partitions": 1})).await.ok();
    let started = Instant::now() + Duration::from_millis(100);
    let live = tokio::spawn(subscriber(server.client(), started));
    let polls = tokio::spawn(poller(server.client(), started));
    publisher(server.client(), started).await;
    let mut is_kept = true;
    for (name, took) in [("SSE", live), ("long-poll", polls)] {
        let mut took = took.await.expect("the consumer has read all");
        took.sort();
        let at = |thousandth: usize| took[(took.len() * thousandth / 1_000).min(took.len() - 1)];
        let (half, slow, slowest) = (at(500), at(990), at(1_000));
        println!(
            "publish to {name}, synced, {} events/s: half in {half:.1?}, 99 % in {slow:.1?}, all in {slowest:.1?}",
            REQUESTS * EVENTS
        );
        is_kept &= slow < SLOW_MAX;
    }
    assert!(server.stop().success());
    assert!(is_kept, "99 % within {SLOW_MAX:?} was promised");
}

/// Sends each request when it is due.
async fn publisher(client: Client, started: Instant) {
    let padding = "x".repeat(200);
    let mut sent = tokio::task::JoinSet::new();
    for number in 0..REQUESTS * SPAN_SECONDS {
        let due = Duration::from_secs(1) * number / REQUESTS;
        tokio::time::sleep_until((started + due).into()).await;
        let line = json!({"value": {"due": micros(due), "text": padding}}).to_string() + "\n";
        let (client, lines) = (client.clone(), line.repeat(EVENTS as usize));
        sent.spawn(async move { drop(client.publish("t", lines).await.ok()) });
        while sent.try_join_next().is_some() {}
    }
    while let Some(done) = sent.join_next().await {
        done.expect("the server takes every event");
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// Events that a consumer gets in all.
const ALL: usize = (REQUESTS * EVENTS * SPAN_SECONDS) as usize;

/// What each event took that counts, and how many came.
struct Taken {
    started: Instant,
    took: Vec<Duration>,
    count: usize,
}

impl Taken {
    fn new(started: Instant) -> Self {
        Self { started, took: Vec::with_capacity(ALL), count: 0 }
    }

    fn take(&mut self, record: &Value) {
        let due = Duration::from_micros(record["value"]["due"].as_u64().expect("a time"));
        self.count += 1;
        if due >= WARM_UP {
            self.took.push(self.started.elapsed().saturating_sub(due));
        }
    }
}

async fn subscriber(client: Client, started: Instant) -> Vec<Duration> {
    let mut taken = Taken::new(started);
    let mut events = client.subscribe("/subscribe?pattern=*&from=earliest", None).await;
    while taken.count < ALL {
        taken.take(&events.next().await.expect("the stream goes on").data);
    }
    taken.took
}

async fn poller(client: Client, started: Instant) -> Vec<Duration> {
    let mut taken = Taken::new(started);
    let mut offset = 0;
    while taken.count < ALL {
        let path =
            format!("/topics/t/partitions/0/records?offset={offset}&limit=1000&wait_ms=10000");
        let page = client.call("GET", &path).await.ok();
        page["records"].as_array().expect("records").iter().for_each(|record| taken.take(record));
        offset = page["next_offset"].as_u64().expect("an offset");
    }
    taken.took
}
