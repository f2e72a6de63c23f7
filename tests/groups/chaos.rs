//! Eight members, 64 partitions, members killed and stalled, the server killed: at random, by a seed.
//!
//! `STREAM_CHAOS_EVENTS` sets how many events there are (default 20,000; 1,000,000 is the promise),
//! `STREAM_SEED` repeats a run.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::{Arc, Mutex, RwLock};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};
use stream_tests::{Answer, Client, Server};

use super::{ALONE, start};

const MEMBERS: u64 = 8;
const PARTITIONS: u32 = 64;
const KEYS: u32 = 500;
const BATCH: u32 = 500;
const SESSION_MILLIS: u64 = 1_000;
/// How often the server dies.
const KILLS: u32 = 6;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum How {
    Transactions,
    Commits,
}

/// What all members share: the server of the moment, and what was seen.
struct World {
    how: How,
    server: RwLock<Client>,
    /// How often each event was processed.
    processed: Mutex<HashMap<u64, u32>>,
    /// The highest offset that the server has said to be committed, by partition.
    committed: Mutex<BTreeMap<u64, u64>>,
    events: u64,
}

impl World {
    fn client(&self) -> Client {
        self.server.read().unwrap().clone()
    }

    /// `None` if no answer came: the server was killed.
    async fn call(&self, method: &str, path: &str, body: Option<Value>) -> Option<Answer> {
        let client = self.client();
        let request = client.request(method, path).timeout(Duration::from_secs(10));
        let request = match body {
            Some(body) => request.json(&body),
            None => request,
        };
        client.try_send(request).await.ok()
    }

    fn process(&self, records: &[Value]) {
        let mut processed = self.processed.lock().unwrap();
        for record in records {
            *processed.entry(record["value"].as_u64().unwrap()).or_default() += 1;
        }
    }

    /// These are committed: the server has said so.
    fn note(&self, places: &Value) {
        let mut committed = self.committed.lock().unwrap();
        for place in places.as_array().unwrap() {
            let known = committed.entry(place["partition"].as_u64().unwrap()).or_default();
            *known = (*known).max(place["next_offset"].as_u64().unwrap());
        }
    }

    /// How many events are committed, as far as the server has said so.
    fn done(&self) -> u64 {
        self.committed.lock().unwrap().values().sum()
    }

    fn is_done(&self) -> bool {
        self.done() >= self.events
    }
}

#[expect(clippy::disallowed_methods, reason = "a test is set by its environment")]
fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|value| value.parse().unwrap())
}

/// Lives of one member, one after the other, until all is committed.
async fn member(world: Arc<World>, mut random: StdRng) {
    while !world.is_done() {
        let join = json!({"subscriptions": ["in"], "session_timeout_ms": SESSION_MILLIS});
        let joined = world.call("POST", "/groups/g/members", Some(join)).await;
        let Some(joined) = joined.filter(|answer| answer.status == 201) else {
            tokio::time::sleep(Duration::from_millis(20)).await;
            continue;
        };
        let id = joined.body["member"].as_str().unwrap().to_owned();
        let path = format!("/groups/g/members/{id}");
        let lives = random.random_range(20..200);
        for _ in 0..lives {
            if world.is_done() {
                break;
            }
            match turn(&world, &id, &path).await {
                Turn::Done => {}
                Turn::Again => tokio::time::sleep(Duration::from_millis(20)).await,
                Turn::Gone => break,
            }
            if random.random_ratio(1, 100) {
                // Longer than its session: it goes on with what it remembers, and is told.
                tokio::time::sleep(Duration::from_millis(SESSION_MILLIS * 3 / 2)).await;
            }
        }
        if random.random_ratio(1, 2) {
            // The other half crashes.
            world.call("DELETE", &path, None).await;
        }
    }
}

enum Turn {
    Done,
    /// The server is not there, or was not when it should have answered.
    Again,
    /// It is not a member any more.
    Gone,
}

/// Reads, processes and commits once.
async fn turn(world: &World, id: &str, path: &str) -> Turn {
    let records = format!("{path}/records?limit=200&wait_ms=200");
    // Before the read: what is committed from here on may still be in its answer.
    let floor = world.committed.lock().unwrap().clone();
    let Some(page) = world.call("GET", &records, None).await else { return Turn::Again };
    if page.code() == "unknown-member" {
        return Turn::Gone;
    }
    if page.status != 200 {
        return Turn::Again;
    }
    // A commit may hold though its answer was lost.
    world.note(&page.body["assignment"]);
    let records = page.body["records"].as_array().unwrap();
    if records.is_empty() {
        return Turn::Done;
    }
    for record in records {
        let partition = record["partition"].as_u64().unwrap();
        let offset = record["offset"].as_u64().unwrap();
        let committed = floor.get(&partition).copied().unwrap_or_default();
        assert!(offset >= committed, "{partition}:{offset} was committed up to {committed}");
    }
    let next = &page.body["next"];
    let answer = match world.how {
        How::Transactions => {
            let event = |record: &Value| json!({"key": record["key"], "value": record["value"]});
            let events: Vec<Value> = records.iter().map(event).collect();
            let transaction = json!({
                "publish": [{"topic": "out", "events": events}],
                "offsets": {"group": "g", "member": id, "partitions": next},
            });
            world.call("POST", "/transactions", Some(transaction)).await
        }
        How::Commits => {
            world.process(records);
            world.call("POST", &format!("{path}/offsets"), Some(json!({"partitions": next}))).await
        }
    };
    let Some(answer) = answer else { return Turn::Again };
    match answer.status {
        200 | 204 => {
            world.note(next);
            Turn::Done
        }
        409 if answer.code() == "unknown-member" => Turn::Gone,
        // Lost meanwhile, or committed by a request whose answer was lost.
        409 | 429 | 503 => Turn::Again,
        _ => panic!("{answer:?}"),
    }
}

/// Publishes all events as one producer, over kills of the server.
async fn publish(world: Arc<World>, events: u64) {
    for sequence in 0..events / u64::from(BATCH) {
        let first = sequence * u64::from(BATCH);
        let line =
            |value| format!("{{\"value\":{value},\"key\":\"k{}\"}}\n", value % u64::from(KEYS));
        let lines: String = (first..first + u64::from(BATCH)).map(line).collect();
        loop {
            let client = world.client();
            let request = client
                .request("POST", "/topics/in/events")
                .timeout(Duration::from_secs(10))
                .header("content-type", "application/x-ndjson")
                .header("producer-id", "source")
                .header("producer-epoch", "0")
                .header("producer-seq", sequence.to_string())
                .body(lines.clone());
            match client.try_send(request).await {
                Ok(answer) if answer.status == 200 => break,
                Ok(answer) => assert!([429, 503].contains(&answer.status), "{answer:?}"),
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    }
}

/// Kills the server at random places of the way.
async fn kill(world: Arc<World>, mut server: Server, data: &Path, mut random: StdRng) -> Server {
    let mut places: Vec<u64> = (0..KILLS).map(|_| random.random_range(0..world.events)).collect();
    places.sort_unstable();
    for place in places {
        while world.done() < place {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        server.kill();
        server = start(data);
        *world.server.write().unwrap() = server.client();
    }
    server
}

async fn chaos(how: How) -> (Arc<World>, Server, tempfile::TempDir) {
    let seed = setting("STREAM_SEED").unwrap_or_else(rand::random);
    let events = setting("STREAM_CHAOS_EVENTS").unwrap_or(20_000);
    let events = events.next_multiple_of(u64::from(BATCH));
    println!("STREAM_SEED={seed} STREAM_CHAOS_EVENTS={events}");
    let data = tempfile::tempdir().unwrap();
    let server = start(data.path());
    let client = server.client();
    for topic in ["in", "out"] {
        let made = json!({"name": topic, "partitions": PARTITIONS});
        client.call_with("POST", "/topics", made).await.ok();
    }
    let world = Arc::new(World {
        how,
        server: RwLock::new(client),
        processed: Mutex::default(),
        committed: Mutex::default(),
        events,
    });
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(publish(world.clone(), events));
    for number in 0..MEMBERS {
        tasks.spawn(member(world.clone(), StdRng::seed_from_u64(seed ^ (number + 1))));
    }
    let server = kill(world.clone(), server, data.path(), StdRng::seed_from_u64(seed)).await;
    let patience = Duration::from_secs(60 + events / 1_000);
    let all = async {
        while let Some(done) = tasks.join_next().await {
            done.unwrap()
        }
    };
    tokio::time::timeout(patience, all).await.expect("all is committed in time");
    (world, server, data)
}

#[expect(clippy::disallowed_methods, reason = "what is told is real time")]
fn now() -> Instant {
    Instant::now()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_transactions_each_event_is_there_once_and_in_key_order() {
    let _alone = ALONE.lock().await;
    let started = now();
    let (world, server, _data) = chaos(How::Transactions).await;
    let client = server.client();
    let (mut count, mut last) = (0_u64, HashMap::<String, u64>::new());
    for partition in 0..PARTITIONS {
        for record in client.records("out", partition, 0).await {
            let (key, value) = (record["key"].as_str().unwrap(), record["value"].as_u64().unwrap());
            let before = last.insert(key.to_owned(), value);
            let expected =
                before.map_or(value % u64::from(KEYS), |before| before + u64::from(KEYS));
            assert_eq!(value, expected, "of {key}, once and in order");
            count += 1;
        }
    }
    assert_eq!(count, world.events);
    println!("{count} events exactly once and in order, in {:?}", started.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_commits_each_event_is_processed_at_least_once_and_commits_are_respected() {
    let _alone = ALONE.lock().await;
    let started = now();
    let (world, server, _data) = chaos(How::Commits).await;
    let processed = world.processed.lock().unwrap().clone();
    let missing = (0..world.events).find(|event| !processed.contains_key(event));
    assert_eq!(missing, None);
    let more: u64 = processed.values().map(|count| u64::from(*count) - 1).sum();
    println!("{} events at least once, {more} repeats, in {:?}", world.events, started.elapsed());
    assert!(server.stop().success());
}
