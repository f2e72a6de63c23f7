//! What publishing keeps of its speed while connectors work behind it.
//!
//! `cargo build --release -p stream-tests --bins && target/release/behind target/release/stream-under-test`
//!
//! Each round publishes to two servers, one with connectors at work on more than they can take, and one
//! without; the other stands still meanwhile. Server, publishers and receiver share the machine.
#![expect(clippy::expect_used, clippy::print_stdout, reason = "a measurement prints, or ends")]
#![expect(clippy::disallowed_methods, reason = "what is measured is real time")]
#![expect(clippy::indexing_slicing, reason = "a JSON value without a field is null")]

use std::time::{Duration, Instant};

use rustix::process::{Signal, kill_process};
use serde_json::{Value, json};
use stream_tests::{Client, Server, Sink};

const SPAN: Duration = Duration::from_secs(4);
const ROUNDS: usize = 5;
const BATCH: usize = 1_000;
const PUBLISHERS: usize = 8;

#[tokio::main]
async fn main() {
    let mut arguments = std::env::args().skip(1);
    let exe = arguments.next().expect("the server's binary");
    let kinds: Vec<String> = arguments.collect();
    let kinds = if kinds.is_empty() {
        ["worker", "hooks", "ledger"].map(str::to_owned).to_vec()
    } else {
        kinds
    };
    let folders = [(); 2].map(|()| tempfile::tempdir().expect("a folder for the data"));
    let servers = folders
        .each_ref()
        .map(|data| Server::start_with(&exe, data.path(), &["--egress-allow", "127.0.0.1"]));
    let clients = servers.each_ref().map(Server::client);
    let receiver = Sink::start().await;
    for client in &clients {
        let topic = json!({ "name": "busy", "partitions": 8 });
        client.call_with("POST", "/topics", topic).await.ok();
    }
    let [_, client] = &clients;
    if kinds.iter().any(|kind| kind == "hooks") {
        let endpoint = json!({ "name": "there", "url": receiver.url });
        client.call_with("POST", "/webhooks/endpoints", endpoint).await.ok();
    }
    for kind in &kinds {
        let body = json!({ "kind": kind, "match": "busy" });
        client.call_with("PUT", &format!("/connectors/{kind}"), body).await.ok();
    }
    let (mut alone, mut shares) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        // In turns, and each first in turn: a shared machine is not as fast one minute as the next.
        let mut rates = [0.0; 2];
        for step in 0..2 {
            let behind = (round + step) % 2;
            signal(&servers[1 - behind], Signal::STOP);
            signal(&servers[behind], Signal::CONT);
            rates[behind] = publish(&clients[behind]).await;
        }
        let [plain, behind] = rates;
        println!(
            "{plain:.0} events/s alone, {behind:.0} with connectors: {:.0} %",
            100.0 * behind / plain
        );
        alone.push(plain);
        shares.push(behind / plain);
    }
    servers.iter().for_each(|server| signal(server, Signal::CONT));
    for kind in &kinds {
        let told = client.call("GET", &format!("/connectors/{kind}")).await.ok();
        let number = |name: &str| told[name].as_u64().unwrap_or_default();
        println!("{kind}: {} taken, {} behind, {}", number("taken"), number("lag"), error(&told));
    }
    let [plain, share] = [alone, shares].map(median);
    println!(
        "{PUBLISHERS} publishers of {BATCH} events of 256 B, median of {ROUNDS}: {plain:.0} events/s \
         alone; with {} behind it keeps {:.0} % of its pair",
        kinds.join(", "),
        100.0 * share,
    );
    println!("{} webhooks came", receiver.count());
    servers.into_iter().for_each(|server| assert!(server.stop().success()));
}

fn signal(server: &Server, signal: Signal) {
    kill_process(server.pid(), signal).expect("the server can be signalled");
}

fn error(told: &Value) -> &str {
    told["last_error"].as_str().unwrap_or("no error")
}

fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers[numbers.len() / 2]
}

/// Events a second, each acknowledged when it is synced.
async fn publish(client: &Client) -> f64 {
    let text = "x".repeat(220);
    let lines: String = (0..BATCH)
        .map(|number| json!({ "key": format!("key-{}", number % 97), "value": { "text": text } }))
        .map(|line| line.to_string() + "\n")
        .collect();
    let (started, mut tasks) = (Instant::now(), tokio::task::JoinSet::new());
    for _ in 0..PUBLISHERS {
        let (client, lines) = (client.clone(), lines.clone());
        tasks.spawn(async move {
            let mut count = 0.0;
            while started.elapsed() < SPAN {
                client.publish("busy", lines.clone()).await.ok();
                count += 1_000.0;
            }
            count
        });
    }
    tasks.join_all().await.iter().sum::<f64>() / started.elapsed().as_secs_f64()
}
