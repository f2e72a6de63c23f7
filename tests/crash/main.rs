//! `SIGKILL` at random moments under concurrent publishers.
//!
//! Each publisher counts its events and sends them in sequence; what is not acknowledged is sent
//! again after the restart, under the same sequence number. In the end every acknowledged event is
//! there once, in the order of its publisher, and offsets are dense.
//!
//! `STREAM_CRASH_ROUNDS` sets the number of kills (default 100), `STREAM_SEED` the seed.
#![cfg(test)]

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};
use stream_tests::{Client, KEY, Server};

const EXE: &str = env!("CARGO_BIN_EXE_stream-under-test");
const PUBLISHERS: u32 = 4;
const PARTITIONS: u32 = 2;

#[expect(clippy::disallowed_methods, reason = "a test is set by its environment")]
fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|value| value.parse().expect(name))
}

/// One publisher: what it has sent and what was acknowledged.
struct Publisher {
    id: u32,
    random: StdRng,
    sequence: u64,
    next_event: u64,
    /// Sent and not acknowledged: this has to be repeated as it is.
    pending: Option<Vec<u64>>,
    acknowledged: Vec<u64>,
}

impl Publisher {
    /// Publishes until the server is gone.
    async fn run(&mut self, client: &Client) {
        loop {
            let events = self.pending.take().unwrap_or_else(|| {
                let count = self.random.random_range(1..40);
                let events: Vec<u64> = (self.next_event..self.next_event + count).collect();
                self.next_event += count;
                events
            });
            let lines: String = events.iter().map(|number| self.line(*number)).collect();
            let request = client
                .request("POST", "/topics/crash/events")
                .header("content-type", "application/x-ndjson")
                .header("producer-id", format!("publisher-{}", self.id))
                .header("producer-epoch", 0)
                .header("producer-seq", self.sequence)
                .body(lines);
            match client.try_send(request).await {
                Ok(answer) if answer.status == 200 => {
                    assert_eq!(answer.body["count"], json!(events.len()), "{answer:?}");
                    self.acknowledged.extend(events);
                    self.sequence += 1;
                }
                Ok(answer) if answer.status < 500 => panic!("refused: {answer:?}"),
                _ => {
                    self.pending = Some(events);
                    return;
                }
            }
        }
    }

    fn line(&self, number: u64) -> String {
        // The publisher's own partition keeps its order visible.
        let partition = self.id % PARTITIONS;
        let filler = "x".repeat(usize::try_from(number % 300).unwrap());
        let value = json!({"publisher": self.id, "number": number, "filler": filler});
        json!({"partition": partition, "value": value}).to_string() + "\n"
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_acknowledged_event_survives_kills_once_and_in_order() {
    let rounds = setting("STREAM_CRASH_ROUNDS").unwrap_or(100);
    let seed = setting("STREAM_SEED").unwrap_or_else(|| rand::rng().random());
    println!("STREAM_SEED={seed} STREAM_CRASH_ROUNDS={rounds}");
    let mut random = StdRng::seed_from_u64(seed);
    let data = tempfile::tempdir().unwrap();
    let mut publishers: Vec<Publisher> = (0..PUBLISHERS)
        .map(|id| Publisher {
            id,
            random: StdRng::seed_from_u64(random.random()),
            sequence: 0,
            next_event: 0,
            pending: None,
            acknowledged: Vec::new(),
        })
        .collect();
    for round in 0..rounds {
        let server = Server::start(EXE, data.path());
        let client = Client::new(&server.url, Some(KEY));
        if round == 0 {
            let topic = json!({"name": "crash", "partitions": PARTITIONS});
            client.call_with("POST", "/topics", topic).await.ok();
        }
        let until_kill = Duration::from_millis(random.random_range(0..250));
        let mut tasks = tokio::task::JoinSet::new();
        for mut publisher in publishers.drain(..) {
            let client = client.clone();
            tasks.spawn(async move {
                publisher.run(&client).await;
                publisher
            });
        }
        tokio::time::sleep(until_kill).await;
        server.kill();
        publishers = tasks.join_all().await;
    }
    let server = Server::start(EXE, data.path());
    check(&server.client(), &mut publishers).await;
    assert!(server.stop().success());
}

/// Sends what was never acknowledged once more, and reads everything back.
async fn check(client: &Client, publishers: &mut [Publisher]) {
    for publisher in publishers.iter_mut() {
        if let Some(events) = publisher.pending.take() {
            let lines: String = events.iter().map(|number| publisher.line(*number)).collect();
            let request = client
                .request("POST", "/topics/crash/events")
                .header("content-type", "application/x-ndjson")
                .header("producer-id", format!("publisher-{}", publisher.id))
                .header("producer-epoch", 0)
                .header("producer-seq", publisher.sequence)
                .body(lines);
            client.send(request).await.ok();
            publisher.acknowledged.extend(events);
        }
    }
    let mut found = vec![Vec::new(); PUBLISHERS as usize];
    for partition in 0..PARTITIONS {
        for (record, offset) in client.records("crash", partition, 0).await.iter().zip(0_u64..) {
            assert_eq!(record["offset"], json!(offset), "offsets are dense");
            let field = |name: &str| record["value"][name].as_u64().unwrap();
            found[usize::try_from(field("publisher")).unwrap()].push(field("number"));
        }
    }
    let total: usize = found.iter().map(Vec::len).sum();
    println!("{total} events");
    assert!(total > 0);
    for publisher in publishers.iter() {
        let found = &found[publisher.id as usize];
        let same = found.iter().zip(&publisher.acknowledged).take_while(|(a, b)| a == b).count();
        let (found, expected) = (&found[same..], &publisher.acknowledged[same..]);
        let differ = (found.first(), expected.first());
        assert_eq!(differ, (None, None), "publisher {} after {same} events", publisher.id);
    }
}

#[tokio::test]
async fn a_second_server_on_the_same_folder_says_why_it_does_not_start() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(EXE, data.path());
    let mut second = stream_tests::command(EXE, data.path(), &[]);
    let output = second.stderr(std::process::Stdio::piped()).output().unwrap();
    assert!(!output.status.success());
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(errors.contains("in use by another server"), "{errors}");
    let health: Value = server.client().call("GET", "/healthz").await.ok();
    assert_eq!(health["status"], json!("ok"));
}
