//! Badly behaved plugins in one project while good traffic runs in another: the good keeps at least
//! half of its throughput, the server goes on, and nothing of them stays in its memory.
//!
//! `STREAM_HOSTILE_SECONDS` makes each phase longer than a second.
#![cfg(test)]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::json;
use stream_tests::{Client, Server, component};
use tokio::task::JoinSet;

const EXE: &str = env!("CARGO_BIN_EXE_stream-under-test");

/// Each with the code that its fault has; where there is none, it may be fast enough to pass.
const GUESTS: [(&str, Option<&str>); 9] = [
    ("spin", Some("plugin-timeout")),
    ("recurse", Some("plugin-stack")),
    ("eat-memory", Some("plugin-memory")),
    ("huge-list", Some("plugin-answer")),
    ("huge-reason", Some("plugin-answer")),
    ("few-outcomes", Some("plugin-answer")),
    ("panic", Some("plugin-panic")),
    ("sleep-in-poll", Some("plugin-blocked")),
    ("flood-log", None),
];

/// Requests at a time in the bad project.
const HOSTILE: usize = 64;
/// Publishers of the good one, and the events of each request.
const PUBLISHERS: usize = 4;
const BATCH: usize = 500;

/// What good traffic keeps of its throughput, in percent.
const SHARE_MIN: usize = 50;
/// Machines share their processors with others, which may cost one measurement, not all of them.
const ATTEMPTS: usize = 3;

/// Memory that the server may have more after all guests were hammered once again, while the store is
/// idle: one that left its own behind would add 64 MiB with each of hundreds of calls.
const GROWTH_MAX: usize = 64 << 20;
/// Memory that instances may have in the end: those that are kept.
const KEPT_MAX: f64 = (16 << 20) as f64;

fn phase() -> Duration {
    let seconds = std::env::var_os("STREAM_HOSTILE_SECONDS");
    let seconds = seconds.and_then(|text| text.to_str()?.parse().ok()).unwrap_or(1);
    Duration::from_secs(seconds)
}

async fn project(client: &Client, name: &str) {
    client.call("PUT", &format!("/projects/{name}")).await.ok();
    let topic = json!({ "name": "t", "partitions": 4 });
    client.call_with("POST", &format!("/projects/{name}/topics"), topic).await.ok();
}

/// Events published in the good project within one phase.
async fn good_traffic(client: &Client) -> usize {
    let lines: String = (0..BATCH)
        .map(|number| {
            format!("{{\"key\":\"k{number}\",\"value\":{{\"text\":\"{:0200}\"}}}}\n", number)
        })
        .collect();
    let lines = bytes::Bytes::from(lines);
    let (count, is_over) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    let mut publishers = JoinSet::new();
    for _ in 0..PUBLISHERS {
        let (client, lines) = (client.clone(), lines.clone());
        let (count, is_over) = (Arc::clone(&count), Arc::clone(&is_over));
        publishers.spawn(async move {
            while !is_over.load(Ordering::Relaxed) {
                let request = client.request("POST", "/projects/good/topics/t/events");
                let request = request.header("content-type", "application/x-ndjson");
                client.send(request.body(lines.clone())).await.ok();
                count.fetch_add(BATCH, Ordering::Relaxed);
            }
        });
    }
    tokio::time::sleep(phase()).await;
    let published = count.load(Ordering::Relaxed);
    is_over.store(true, Ordering::Relaxed);
    publishers.join_all().await;
    published
}

/// Publishes to the bad project without a pause until told to stop; the codes that came back.
fn hostile_traffic(client: &Client, is_over: &Arc<AtomicBool>) -> JoinSet<Vec<String>> {
    let mut tasks = JoinSet::new();
    for _ in 0..HOSTILE {
        let (client, is_over) = (client.clone(), Arc::clone(is_over));
        tasks.spawn(async move {
            let mut codes = Vec::new();
            while !is_over.load(Ordering::Relaxed) {
                let event = json!({ "value": 1 });
                let answer =
                    client.call_with("POST", "/projects/bad/topics/t/produce", event).await;
                codes.push(answer.code().to_owned());
            }
            codes
        });
    }
    tasks
}

/// Events published in the good project while the bad one is hammered, and what that got.
async fn beside_hostile(client: &Client) -> (usize, Vec<String>) {
    let is_over = Arc::new(AtomicBool::new(false));
    let hostile = hostile_traffic(client, &is_over);
    let beside = good_traffic(client).await;
    is_over.store(true, Ordering::Relaxed);
    (beside, hostile.join_all().await.concat())
}

fn resident_bytes(server: &Server) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    let kib: usize = line.trim().trim_end_matches(" kB").parse().unwrap();
    kib << 10
}

async fn bind(client: &Client, project: &str, plugin: &str) {
    let base = format!("/projects/{project}");
    client.upload(&format!("{base}/plugins/{plugin}"), component(plugin)).await.ok();
    // Taking 64 MiB may take longer than a call may.
    let memory = if plugin == "eat-memory" { 8 << 20 } else { 64 << 20 };
    let binding = json!({ "plugin": plugin, "memory": memory });
    client.bind(&format!("{base}/bindings/validate/t"), binding).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn good_traffic_goes_on_beside_every_badly_behaved_plugin() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(EXE, data.path());
    let client = server.client();
    project(&client, "good").await;
    project(&client, "bad").await;
    bind(&client, "good", "pass-through").await;
    // The store's own buffers fill first.
    for _ in 0..6 {
        good_traffic(&client).await;
    }
    let mut shares = Vec::new();
    for (guest, code) in GUESTS {
        bind(&client, "bad", guest).await;
        let event = json!({ "value": 1 });
        let path = "/projects/bad/topics/t/produce";
        let alone = client.call_with("POST", path, event).await;
        assert!(code.is_none_or(|code| alone.code() == code), "{guest}: {alone:?}");
        let mut share = 0;
        for attempt in 1..=ATTEMPTS {
            // What is compared is measured side by side.
            let before = good_traffic(&client).await;
            let (beside, codes) = beside_hostile(&client).await;
            let usual = usize::midpoint(before, good_traffic(&client).await);
            let is_right = codes.iter().all(|code| !code.is_empty());
            assert!(code.is_none() || is_right, "{guest}: nothing passes");
            share = beside * 100 / usual.max(1);
            println!(
                "{guest}: {usual} events alone, {beside} beside {} requests: {share} %, {} MiB",
                codes.len(),
                resident_bytes(&server) >> 20
            );
            if share >= SHARE_MIN {
                break;
            }
            println!("attempt {attempt} of {ATTEMPTS}");
        }
        shares.push((guest, share));
    }
    let before = resident_bytes(&server);
    for (guest, _) in GUESTS {
        bind(&client, "bad", guest).await;
        let is_over = Arc::new(AtomicBool::new(false));
        let hostile = hostile_traffic(&client, &is_over);
        tokio::time::sleep(phase()).await;
        is_over.store(true, Ordering::Relaxed);
        hostile.join_all().await;
    }
    let growth = resident_bytes(&server).saturating_sub(before);
    println!("memory: {} MiB, {} MiB more after all of them again", before >> 20, growth >> 20);
    assert!(shares.iter().all(|(_, share)| *share >= SHARE_MIN), "{shares:?}");
    assert!(growth < GROWTH_MAX, "{growth} bytes");
    let metrics = client.call("GET", "/metrics").await.body;
    let kept = metrics
        .as_str()
        .unwrap()
        .lines()
        .find_map(|line| line.strip_prefix("stream_plugin_memory_bytes ")?.parse::<f64>().ok());
    assert!(kept.unwrap() < KEPT_MAX, "{kept:?}");
    assert!(server.stop().success(), "the server that was started is the one that ends");
}
