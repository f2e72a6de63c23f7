//! How many webhooks a second reach a receiver on the same machine.
//!
//! `cargo build --release -p stream-tests --bins && target/release/webhooks target/release/stream-under-test`
//!
//! Server, sender and receiver share the machine: what is shown is what they reach together.
#![expect(clippy::expect_used, clippy::print_stdout, reason = "a measurement prints, or ends")]
#![expect(clippy::disallowed_methods, reason = "what is measured is real time")]

use std::time::{Duration, Instant};

use serde_json::json;
use stream_tests::{Client, Receiver, Reply, Server};
use tokio::task::JoinSet;

const WEBHOOKS: usize = 20_000;
const SENDERS: usize = 64;
const LONG: Duration = Duration::from_secs(120);

#[tokio::main]
async fn main() {
    let exe = std::env::args().nth(1).expect("the server's binary");
    for (endpoints, concurrency) in [(1, 8), (1, 64), (8, 32)] {
        run(&exe, endpoints, concurrency).await;
    }
}

async fn run(exe: &str, endpoints: usize, concurrency: usize) {
    let data = tempfile::tempdir().expect("a folder for the data");
    let server = Server::start_with(exe, data.path(), &["--egress-allow", "127.0.0.1"]);
    let client = server.client();
    let receiver = Receiver::start(|_| Reply::Status(200)).await;
    let name = |n: usize| format!("e{}", n % endpoints);
    for n in 0..endpoints {
        // Next to nothing is sent until all are there.
        let settings = json!({ "concurrency": concurrency, "rate_per_second": 0.001 });
        let endpoint = json!({ "name": name(n), "url": receiver.url(), "settings": settings });
        client.call_with("POST", "/webhooks/endpoints", endpoint).await.ok();
    }
    let start = Instant::now();
    let mut senders = JoinSet::new();
    for sender in 0..SENDERS {
        senders
            .spawn(send(client.clone(), (sender..WEBHOOKS).step_by(SENDERS).map(name).collect()));
    }
    senders.join_all().await;
    let taken = start.elapsed();
    let before = receiver.count();
    let start = Instant::now();
    for n in 0..endpoints {
        let path = format!("/webhooks/endpoints/{}", name(n));
        let settings = json!({ "settings": { "rate_per_second": null } });
        client.call_with("PATCH", &path, settings).await.ok();
    }
    receiver.until(WEBHOOKS, LONG).await;
    let rate = |count: usize, time: Duration| {
        f64::from(u32::try_from(count).expect("a small count")) / time.as_secs_f64()
    };
    println!(
        "{endpoints} endpoints, {concurrency} at once to each: {:.0} webhooks/s delivered; \
         {SENDERS} senders: {:.0}/s taken",
        rate(WEBHOOKS - before, start.elapsed()),
        rate(WEBHOOKS, taken),
    );
    assert!(server.stop().success(), "the server ends well");
}

/// Sends an event of 256 bytes to each of these endpoints.
async fn send(client: Client, endpoints: Vec<String>) {
    let text = "x".repeat(256);
    for endpoint in endpoints {
        let event = json!({ "event_type": "a", "payload": text, "endpoints": [endpoint] });
        client.call_with("POST", "/webhooks", event).await.ok();
    }
}
