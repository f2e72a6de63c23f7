//! How much a server takes over HTTP, and how soon an event reaches a consumer.
//!
//! `cargo build --release -p stream-tests --bins && target/release/load target/release/stream-under-test`
//!
//! Server and clients share the machine: what is shown is what both reach together.
#![expect(clippy::expect_used, clippy::print_stdout, reason = "a measurement prints, or ends")]
#![expect(clippy::disallowed_methods, reason = "what is measured is real time")]
#![expect(clippy::indexing_slicing, reason = "a JSON value without a field is null")]

use std::future::Future;
use std::time::{Duration, Instant};

use serde_json::json;
use stream_tests::{Client, Server, component};

const SPAN: Duration = Duration::from_secs(5);
/// Runs with a plugin and without, of which the median counts.
const ROUNDS: usize = 5;

#[tokio::main]
async fn main() {
    let exe = std::env::args().nth(1).expect("the server's binary");
    let data = tempfile::tempdir().expect("a folder for the data");
    let server = Server::start(&exe, data.path());
    let client = server.client();
    for name in ["batches", "validated", "single", "latency"] {
        let topic = json!({"name": name, "partitions": 8});
        client.call_with("POST", "/topics", topic).await.ok();
    }
    client.upload("/plugins/pass-through", component("pass-through")).await.ok();
    client.bind("/bindings/validate/validated", json!({ "plugin": "pass-through" })).await;
    // In turns: a shared machine is not as fast one minute as the next.
    let mut plain = Vec::new();
    let mut validated = Vec::new();
    for _ in 0..ROUNDS {
        plain.push(batches(&client, "batches").await);
        validated.push(batches(&client, "validated").await);
    }
    // Each pair ran side by side; their medians may come from different minutes.
    let shares = plain.iter().zip(&validated).map(|(plain, validated)| validated / plain);
    let share = 100.0 * median(shares.collect());
    println!(
        "10 publishers of 1,000 events of 256 B, median of {ROUNDS}: {:.0} events/s",
        median(plain)
    );
    println!(
        "the same through a pass-through validator: {:.0} events/s, {share:.0} % of its pair",
        median(validated)
    );
    single(&client).await;
    latency(&client).await;
    assert!(server.stop().success());
}

/// Repeats `request` in `clients` tasks for the span; returns how often in all, and the slowest
/// percent's time.
async fn hammer<F: Future<Output = ()> + Send>(
    clients: usize,
    request: impl Fn() -> F + Clone + Send + 'static,
) -> (usize, Duration) {
    let ends = Instant::now() + SPAN;
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..clients {
        let request = request.clone();
        tasks.spawn(async move {
            let mut took = Vec::new();
            while Instant::now() < ends {
                let started = Instant::now();
                request().await;
                took.push(started.elapsed());
            }
            took
        });
    }
    let took = tasks.join_all().await.concat();
    (took.len(), percentile(took, 99))
}

fn percentile(mut took: Vec<Duration>, percent: usize) -> Duration {
    took.sort();
    took.get((took.len() * percent / 100).min(took.len() - 1)).copied().expect("something was done")
}

fn rate(count: usize) -> f64 {
    u32::try_from(count).map_or(f64::NAN, f64::from) / SPAN.as_secs_f64()
}

fn median(mut rates: Vec<f64>) -> f64 {
    rates.sort_by(f64::total_cmp);
    rates[rates.len() / 2]
}

async fn batches(client: &Client, topic: &'static str) -> f64 {
    const BATCH: usize = 1_000;
    let text = "x".repeat(220);
    let lines: String = (0..BATCH)
        .map(|number| json!({"key": format!("key-{}", number % 97), "value": {"text": text}}))
        .map(|line| line.to_string() + "\n")
        .collect();
    let client = client.clone();
    let (requests, slow) = hammer(10, move || {
        let (client, lines) = (client.clone(), lines.clone());
        async move {
            client.publish(topic, lines).await.ok();
        }
    })
    .await;
    let events = rate(requests * BATCH);
    println!("{topic}: {events:.0} events/s, 99 % in {slow:.1?}");
    events
}

async fn single(client: &Client) {
    let client = client.clone();
    let (requests, slow) = hammer(64, move || {
        let client = client.clone();
        async move {
            let event = json!({"value": {"text": "x"}});
            client.call_with("POST", "/topics/single/produce", event).await.ok();
        }
    })
    .await;
    println!("64 publishers of one event: {:.0} requests/s, 99 % in {slow:.1?}", rate(requests));
}

/// From before an event is sent until a waiting consumer has it.
async fn latency(client: &Client) {
    let mut took = Vec::new();
    let ends = Instant::now() + SPAN;
    let mut offset = 0;
    while Instant::now() < ends {
        let path = format!("/topics/latency/partitions/0/records?offset={offset}&wait_ms=10000");
        let consumer = client.clone();
        let waiting = tokio::spawn(async move { consumer.call("GET", &path).await.ok() });
        tokio::task::yield_now().await;
        let started = Instant::now();
        let event = json!({"value": offset, "partition": 0});
        client.call_with("POST", "/topics/latency/produce", event).await.ok();
        let page = waiting.await.expect("the consumer is answered");
        took.push(started.elapsed());
        offset = page["next_offset"].as_u64().expect("an offset");
    }
    let (half, slow) = (percentile(took.clone(), 50), percentile(took, 99));
    println!("publish to a waiting consumer, synced: half in {half:.1?}, 99 % in {slow:.1?}");
}
