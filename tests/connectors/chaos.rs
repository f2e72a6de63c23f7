//! The server is killed again and again while connectors, deliveries, workers and the ledger are at
//! work: in the end no event is lost, and none is doubled in what is embedded.
//!
//! `STREAM_CONNECTOR_ROUNDS` sets the number of kills (default 100), `STREAM_SEED` the seed.

use std::collections::BTreeSet;

use super::*;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

const PARTITIONS: u64 = 2;

/// The kinds that go to a service elsewhere, too.
const ELSEWHERE: [&str; 3] = ["hooks", "ledger", "worker"];

/// Publishes batches under sequences, so that each is stored once whatever becomes of the server.
struct Publisher {
    sequence: u64,
    published: u64,
}

impl Publisher {
    async fn run(&mut self, client: &Client, random: &mut StdRng) {
        loop {
            // The same for the same sequence: a repeat has to be one.
            let count = 1 + self.sequence * 7 % 5;
            let line = |number: u64| {
                let value = json!({ "sequence": self.sequence, "number": number });
                let partition = self.sequence % PARTITIONS;
                json!({ "value": value, "partition": partition, "key": "k" }).to_string() + "\n"
            };
            let lines: String = (0..count).map(line).collect();
            let request = client
                .request("POST", "/topics/c/events")
                .header("content-type", "application/x-ndjson")
                .header("producer-id", "p")
                .header("producer-epoch", 0)
                .header("producer-seq", self.sequence)
                .body(lines);
            match client.try_send(request).await {
                Ok(answer) if answer.status < 300 => {
                    self.sequence += 1;
                    self.published += count;
                }
                Ok(answer) if answer.status < 500 => panic!("refused: {answer:?}"),
                _ => return,
            }
            let pause = Duration::from_millis(random.random_range(0..10));
            tokio::time::sleep(pause).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn kills_in_every_phase_lose_and_double_nothing() {
    let rounds = setting("STREAM_CONNECTOR_ROUNDS").unwrap_or(100);
    let seed = setting("STREAM_SEED").unwrap_or_else(rand::random);
    println!("STREAM_SEED={seed} STREAM_CONNECTOR_ROUNDS={rounds}");
    let mut random = StdRng::seed_from_u64(seed);
    let data = tempfile::tempdir().unwrap();
    let (receiver, elsewhere) = (Sink::start().await, Sink::start().await);
    let mut publisher = Publisher { sequence: 0, published: 0 };
    for round in 0..rounds {
        let server = start(data.path());
        let client = server.client();
        if round == 0 {
            set_up(&client, &receiver, &elsewhere).await;
        }
        let workers = worker::team(&client, "jobs", &mut random, 4);
        let until_kill = Duration::from_millis(random.random_range(0..400));
        let publishing = publisher.run(&client, &mut random);
        // The kill ends them; publishing goes on with what was not acknowledged.
        drop(tokio::time::timeout(until_kill, publishing).await);
        server.kill();
        drop(workers);
    }
    let server = start(data.path());
    let client = server.client();
    check(&server, &client, &mut publisher, &mut random, (&receiver, &elsewhere)).await;
    assert!(server.stop().success());
}

async fn set_up(client: &Client, receiver: &Sink, elsewhere: &Sink) {
    for (name, partitions) in [("c", PARTITIONS), ("handled", 1)] {
        let topic = json!({ "name": name, "partitions": partitions });
        client.call_with("POST", "/topics", topic).await.ok();
    }
    endpoint(client, receiver, "c").await;
    connect(client, "hooks", "hooks", "c", json!({})).await;
    connect(client, "worker", "worker", "c", json!({ "queue": "jobs" })).await;
    connect(client, "ledger", "ledger", "c", json!({})).await;
    for kind in ELSEWHERE {
        let settings = json!({ "backoff": { "delays_ms": [10] } });
        let url = &elsewhere.url;
        let body = json!({ "kind": kind, "match": "c", "url": url, "settings": settings });
        client.call_with("PUT", &format!("/connectors/{kind}-elsewhere"), body).await.ok();
    }
}

async fn check(
    server: &Server,
    client: &Client,
    publisher: &mut Publisher,
    random: &mut StdRng,
    (receiver, elsewhere): (&Sink, &Sink),
) {
    let workers = worker::team(client, "jobs", random, 4);
    // What was not acknowledged is sent once more, and some more.
    drop(tokio::time::timeout(Duration::from_millis(200), publisher.run(client, random)).await);
    let mut events = BTreeSet::new();
    for partition in 0..PARTITIONS {
        let records = client.records("c", u32::try_from(partition).unwrap(), 0).await;
        let place =
            |record: &Value| ("c".to_owned(), partition, record["offset"].as_u64().unwrap());
        events.extend(records.iter().map(place));
    }
    let count = events.len() as u64;
    println!("{count} events");
    assert!(count >= publisher.published, "acknowledged events are stored");
    caught_up(client, &["hooks", "worker", "ledger"]).await;
    caught_up(client, &ELSEWHERE.map(elsewhere_of).each_ref().map(String::as_str)).await;

    let done = |told: &Value| told["total_events"].as_u64() >= Some(count);
    until(client, "/topics/handled/stats", done).await;
    let empty = |told: &Value| told["waiting"] == json!(0) && told["leased"] == json!(0);
    until(client, "/queues/jobs", empty).await;
    drop(workers);
    let handled = worker::handled(client).await;
    assert!(handled.iter().eq(&events), "{} jobs for {count} events", handled.len());

    let delivered = |told: &Value| told["successful_deliveries"].as_u64() >= Some(count);
    let stats = until(client, "/webhooks/stats", delivered).await;
    assert_eq!(stats["total_deliveries"].as_u64(), Some(count), "{stats}");
    let hits = receiver.hits();
    let ids: BTreeSet<&str> = hits.iter().map(|hit| hit.headers["webhook-id"].as_str()).collect();
    assert_eq!(ids.len() as u64, count, "the receiver saw each");

    let sent = |told: &Value| {
        let queue = &told["queue"];
        queue["waiting"] == json!(0) && queue["in_flight"] == json!(0) && queue["dead"] == json!(0)
    };
    for kind in ELSEWHERE {
        until(client, &format!("/connectors/{}", elsewhere_of(kind)), sent).await;
    }
    check_elsewhere(&elsewhere.hits(), &events);

    let integrated = |told: &Value| told["integrated"].as_u64() == Some(count);
    until(client, "/ledgers/ledger", integrated).await;
    verify(server, "ledger");
    let entries: Vec<_> = entries(client, "ledger", count).await;
    let distinct: BTreeSet<_> = entries.iter().cloned().collect();
    assert_eq!((entries.len() as u64, &distinct), (count, &events));
}

fn elsewhere_of(kind: &str) -> String {
    format!("{kind}-elsewhere")
}

/// A service elsewhere saw each event at least once, of each kind.
fn check_elsewhere(hits: &[Hit], events: &BTreeSet<(String, u64, u64)>) {
    let mut hooks = BTreeSet::new();
    let [mut ledger, mut worker] = [(); 2].map(|()| BTreeSet::new());
    for hit in hits {
        let body: Value = serde_json::from_slice(&hit.body).unwrap();
        if hit.path.ends_with("/webhooks") {
            hooks.insert(hit.headers["idempotency-key"].clone());
        }
        for entry in body["entries"].as_array().into_iter().flatten() {
            let number = |name: &str| entry[name].as_u64().unwrap();
            ledger.insert(("c".to_owned(), number("partition"), number("offset")));
        }
        for job in body["jobs"].as_array().into_iter().flatten() {
            let number = |name: &str| job["headers"][name].as_str().unwrap().parse().unwrap();
            worker.insert(("c".to_owned(), number("stream-partition"), number("stream-offset")));
        }
    }
    assert_eq!(hooks.len(), events.len());
    assert!(ledger == *events && worker == *events, "{} {}", ledger.len(), worker.len());
}

#[expect(clippy::disallowed_methods, reason = "a test's setting is no configuration")]
fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|value| value.parse().unwrap())
}
