//! How many jobs workers take and complete over HTTP.
//!
//! `cargo build --release -p stream-tests --bins && target/release/jobs target/release/stream-under-test`
//!
//! Server and workers share the machine: what is shown is what both reach together.
#![expect(clippy::expect_used, clippy::print_stdout, reason = "a measurement prints, or ends")]
#![expect(clippy::disallowed_methods, reason = "what is measured is real time")]
#![expect(clippy::indexing_slicing, reason = "a JSON value without a field is null")]

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use stream_tests::{Client, Server};
use tokio::task::JoinSet;

const WORKERS: usize = 8;
const ENQUEUE: usize = 1_000;
const ROUNDS: usize = 3;

#[tokio::main]
async fn main() {
    let exe = std::env::args().nth(1).expect("the server's binary");
    let data = tempfile::tempdir().expect("a folder for the data");
    let server = Server::start(&exe, data.path());
    let client = server.client();
    for name in ["single", "batches", "ordered"] {
        let settings = json!({ "ordered": name == "ordered", "lease_ms": 600_000 });
        client.call_with("PUT", &format!("/queues/{name}"), settings).await.ok();
    }
    for round in 1..=ROUNDS {
        println!("round {round}");
        run(&client, ("single", 20_000), 1).await;
        run(&client, ("batches", 200_000), 100).await;
        run(&client, ("ordered", 50_000), 100).await;
    }
    assert!(server.stop().success());
}

/// Fills a queue, and lets workers that take `batch` jobs at a time empty it.
async fn run(client: &Client, (queue, count): (&'static str, usize), batch: usize) {
    let started = Instant::now();
    let mut clients = JoinSet::new();
    for part in 0..WORKERS {
        let client = client.clone();
        clients.spawn(async move {
            for from in (part * ENQUEUE..count).step_by(WORKERS * ENQUEUE) {
                enqueue(&client, queue, from).await;
            }
        });
    }
    clients.join_all().await;
    println!("{queue}: {:.0} jobs/s enqueued, {ENQUEUE} a request", rate(count, started.elapsed()));
    let before = figures(client).await;
    let started = Instant::now();
    let mut workers = JoinSet::new();
    for _ in 0..WORKERS {
        let client = client.clone();
        workers.spawn(async move { work(&client, queue, batch).await });
    }
    let done: usize = workers.join_all().await.into_iter().sum();
    let took = started.elapsed();
    assert_eq!(done, count, "each job is done once");
    let after = figures(client).await;
    let more = |name: usize| after[name] - before[name];
    println!(
        "{queue}: {:.0} jobs/s taken and completed by {WORKERS} workers, {batch} at a time; \
         {:.1} commits a sync, {:.2} s of {:.2} s in syncs",
        rate(count, took),
        more(0) / more(1),
        more(2),
        took.as_secs_f64(),
    );
}

async fn enqueue(client: &Client, queue: &str, from: usize) {
    let text = "x".repeat(200);
    let job = |number| json!({ "payload": { "number": number, "text": text }, "key": format!("key-{}", number % 997) });
    let jobs: Vec<Value> = (from..from + ENQUEUE).map(job).collect();
    client.call_with("POST", &format!("/queues/{queue}/jobs"), json!({ "jobs": jobs })).await.ok();
}

/// Takes jobs until there is none; returns how many it has completed.
async fn work(client: &Client, queue: &str, batch: usize) -> usize {
    let mut done = 0;
    loop {
        let claim = json!({ "max": batch, "wait_ms": 100 });
        let claimed = client.call_with("POST", &format!("/queues/{queue}/claim"), claim).await.ok();
        let jobs = claimed["jobs"].as_array().expect("a list");
        if jobs.is_empty() {
            return done;
        }
        done += jobs.len();
        if let ([job], 1) = (jobs.as_slice(), batch) {
            let path =
                format!("/queues/{queue}/jobs/{}/complete", job["id"].as_str().expect("an id"));
            client.call_with("POST", &path, json!({ "lease": job["lease"] })).await.ok();
            continue;
        }
        let end = |job: &Value| json!({ "id": job["id"], "lease": job["lease"] });
        let ends: Vec<Value> = jobs.iter().map(end).collect();
        let path = format!("/queues/{queue}/complete");
        let ended = client.call_with("POST", &path, json!({ "jobs": ends })).await.ok();
        let ended = ended["jobs"].as_array().expect("a list").iter();
        assert!(ended.clone().all(|job| job["state"] == "done"), "{ended:?}");
    }
}

/// Commits, syncs and seconds in them, until now.
async fn figures(client: &Client) -> [f64; 3] {
    let text = client.call("GET", "/metrics").await.body;
    let text = text.as_str().expect("a text");
    ["stream_commits_total ", "stream_syncs_total ", "stream_sync_seconds_total "].map(|name| {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|value| value.parse().ok()).expect("a figure")
    })
}

fn rate(count: usize, took: Duration) -> f64 {
    u32::try_from(count).map_or(f64::NAN, f64::from) / took.as_secs_f64()
}
