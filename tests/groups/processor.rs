//! Read, compute, write, commit: a processor that is killed at every step, and the server with it.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::net::TcpStream;
use std::path::Path;

use serde_json::{Value, json};
use stream_tests::{Client, KEY, Server};

use super::{ALONE, Member, start};

const EVENTS: u32 = 400;
const KEYS: u32 = 7;

/// Where the processor dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Dies {
    BeforeReading,
    AfterReading,
    AfterComputing,
    /// The request is written, the answer never read: it may have been taken or not.
    WhileSending,
    /// The answer is there, and forgotten.
    AfterCommitting,
}

const STEPS: [Dies; 5] = [
    Dies::BeforeReading,
    Dies::AfterReading,
    Dies::AfterComputing,
    Dies::WhileSending,
    Dies::AfterCommitting,
];

/// One life of the processor: what it knows is gone after it. `false` if there was nothing to do.
async fn live(client: &Client, url: &str, dies: Option<Dies>) -> bool {
    // The same name in every life: what the life before owned is its own at once.
    let join = json!({"subscriptions": ["order.placed"], "instance_id": "totals"});
    let (member, _) = Member::join(client, "totals", join).await;
    if dies == Some(Dies::BeforeReading) {
        return true;
    }
    let path = format!("{}/records?limit=20", member.path);
    let page = client.call("GET", &path).await.ok();
    let records = page["records"].as_array().unwrap();
    if records.is_empty() {
        return false;
    }
    if dies == Some(Dies::AfterReading) {
        return true;
    }
    let computed: Vec<Value> = records
        .iter()
        .map(|record| json!({"key": record["key"], "value": record["value"].as_u64().unwrap() * 2}))
        .collect();
    if dies == Some(Dies::AfterComputing) {
        return true;
    }
    let transaction = json!({
        "publish": [{"topic": "total.changed", "events": computed}],
        "offsets": {"group": "totals", "member": member.id(), "partitions": page["next"]},
    });
    if dies == Some(Dies::WhileSending) {
        send_and_die(url, &transaction.to_string());
        return true;
    }
    let answer = client.call_with("POST", "/transactions", transaction).await;
    // A life before it may have been sending still, and then this one reads again.
    assert!(answer.status == 200 || answer.code() == "offset-backwards", "{answer:?}");
    true
}

fn send_and_die(url: &str, body: &str) {
    let mut socket = TcpStream::connect(url.strip_prefix("http://").unwrap()).unwrap();
    let request = format!(
        "POST /transactions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {KEY}\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    socket.write_all(request.as_bytes()).unwrap();
}

async fn again(server: Server, data: &Path) -> Server {
    server.kill();
    start(data)
}

/// Values by partition and key, in order.
async fn values(client: &Client, topic: &str) -> BTreeMap<(u32, String), Vec<u64>> {
    let mut found: BTreeMap<_, Vec<u64>> = BTreeMap::new();
    for partition in 0..3 {
        for record in client.records(topic, partition, 0).await {
            let key = (partition, record["key"].as_str().unwrap().to_owned());
            found.entry(key).or_default().push(record["value"].as_u64().unwrap());
        }
    }
    found
}

#[tokio::test]
async fn a_processor_that_is_killed_at_every_step_writes_each_result_once_and_in_order() {
    let _alone = ALONE.lock().await;
    let data = tempfile::tempdir().unwrap();
    let mut server = start(data.path());
    let client = server.client();
    for topic in ["order.placed", "total.changed"] {
        client.call_with("POST", "/topics", json!({"name": topic, "partitions": 3})).await.ok();
    }
    let line = |n| format!("{{\"value\":{n},\"key\":\"k{}\"}}\n", n % KEYS);
    client.publish("order.placed", (0..EVENTS).map(line).collect::<String>()).await.ok();
    for round in 0..6 {
        for dies in STEPS {
            let client = server.client();
            live(&client, &server.url, Some(dies)).await;
            // The server dies with it in half of the rounds, whatever it is about to do.
            if round % 2 == 1 {
                server = again(server, data.path()).await;
            }
        }
        live(&server.client(), &server.url, None).await;
    }
    while live(&server.client(), &server.url, None).await {}
    let client = server.client();
    let inputs = values(&client, "order.placed").await;
    let doubled: BTreeMap<_, Vec<u64>> = inputs
        .into_iter()
        .map(|(key, values)| (key, values.into_iter().map(|value| value * 2).collect()))
        .collect();
    assert_eq!(values(&client, "total.changed").await, doubled);
    let all: BTreeSet<u64> = doubled.into_values().flatten().collect();
    assert_eq!(all.len(), EVENTS as usize);
}

/// A topic `in` that holds one event, and an empty `out`.
async fn with_one_event(server: &Server) -> Client {
    let client = server.client();
    for topic in ["in", "out"] {
        client.call_with("POST", "/topics", json!({"name": topic, "partitions": 1})).await.ok();
    }
    client.publish("in", "{\"value\":1}\n").await.ok();
    client
}

/// A transaction that writes one event to `out` for what a member has read.
fn one_event(member: &Member, page: &Value) -> Value {
    json!({
        "publish": [{"topic": "out", "events": [{"value": 1}]}],
        "offsets": {"group": "g", "member": member.id(), "partitions": page["next"]},
    })
}

#[tokio::test]
async fn a_former_owners_transaction_is_refused_whole() {
    let _alone = ALONE.lock().await;
    let data = tempfile::tempdir().unwrap();
    let server = start(data.path());
    let client = with_one_event(&server).await;
    let join = json!({"subscriptions": ["in"], "instance_id": "one"});
    let (former, _) = Member::join(&client, "g", join.clone()).await;
    let page = former.read(0).await;
    let transaction = |member: &Member| one_event(member, &page);
    let (present, _) = Member::join(&client, "g", join).await;
    let refused = client.call_with("POST", "/transactions", transaction(&former)).await;
    assert_eq!((refused.status, refused.code()), (409, "unknown-member"));
    let refused = client.call_with("POST", "/transactions", transaction(&present)).await;
    assert_eq!((refused.status, refused.code()), (409, "stale-generation"));
    assert_eq!(client.records("out", 0, 0).await.len(), 0);
    let page = present.read(0).await;
    assert_eq!(page["records"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_transaction_that_is_sent_again_publishes_once() {
    let _alone = ALONE.lock().await;
    let data = tempfile::tempdir().unwrap();
    let server = start(data.path());
    let client = with_one_event(&server).await;
    let (member, _) = Member::join(&client, "g", json!({"subscriptions": ["in"]})).await;
    let page = member.read(0).await;
    let transaction = one_event(&member, &page);
    client.call_with("POST", "/transactions", transaction.clone()).await.ok();
    let again = client.call_with("POST", "/transactions", transaction).await;
    assert_eq!((again.status, again.code()), (409, "offset-backwards"));
    assert_eq!(client.records("out", 0, 0).await.len(), 1);
    // A commit alone may be sent again.
    assert_eq!(member.commit(&page["next"]).await.status, 204);
}
