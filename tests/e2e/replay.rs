//! Replays and lookups by the command line.

use std::process::{Child, Command, Output, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use stream_tests::{Client, KEY, Server};

use super::{EXE, start, stream};

/// A command that must succeed.
#[track_caller]
fn ok(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// What a command that must succeed prints as JSON.
#[track_caller]
fn json_of(server: &Server, arguments: &[&str]) -> Value {
    let text = ok(&stream(server, &[arguments, &["--json"]].concat()));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// The exit code and what is said on standard error.
fn failed(server: &Server, arguments: &[&str]) -> (Option<i32>, String) {
    let output = stream(server, arguments);
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

async fn topic(client: &Client, name: &str, partitions: u32) {
    let topic = json!({ "name": name, "partitions": partitions, "index": ["id", "key"] });
    client.call_with("POST", "/topics", topic).await.ok();
}

/// Publishes so many events, one in three of them without a key.
async fn fill(client: &Client, topic: &str, range: std::ops::Range<u32>) {
    let numbers: Vec<u32> = range.collect();
    for chunk in numbers.chunks(5_000) {
        let line = |n: &u32| {
            let key = (!n.is_multiple_of(3)).then(|| format!("k{}", n % 100));
            format!(
                "{}\n",
                json!({ "value": n, "key": key, "id": format!("i{n}"), "partition": n % 4 })
            )
        };
        let lines: String = chunk.iter().map(line).collect();
        client.publish(topic, lines).await.ok();
    }
}

/// All records of a topic, without where they lie and when they were stored.
async fn events(client: &Client, topic: &str, partitions: u32) -> Vec<Vec<Value>> {
    let mut all = Vec::new();
    for partition in 0..partitions {
        let mut records = client.records(topic, partition, 0).await;
        for record in &mut records {
            let fields = record.as_object_mut().unwrap();
            for own in ["topic", "partition", "offset", "timestamp"] {
                fields.remove(own);
            }
        }
        all.push(records);
    }
    all
}

fn values(records: &[Value]) -> Vec<u64> {
    records.iter().map(|record| record["value"].as_u64().unwrap()).collect()
}

/// A replay that is under way.
fn spawn(server: &Server, arguments: &[&str]) -> Child {
    let mut command = Command::new(EXE);
    command.args(arguments).env("STREAM_URL", &server.url).env("STREAM_API_KEY", KEY);
    command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

async fn stored(client: &Client, topic: &str) -> u64 {
    let stats = client.call("GET", &format!("/topics/{topic}/stats")).await.ok();
    stats["total_events"].as_u64().unwrap()
}

#[tokio::test]
async fn a_replay_that_is_killed_again_and_again_publishes_each_record_once() {
    const EVENTS: u32 = 60_000;
    let data = tempfile::tempdir().unwrap();
    let server = start(data.path());
    let client = server.client();
    topic(&client, "from", 4).await;
    topic(&client, "to", 4).await;
    fill(&client, "from", 0..EVENTS).await;
    let replay = ["replay", "from", "--to-topic", "to", "--replay-id", "r.1"];
    for kill in 0..4 {
        let before = stored(&client, "to").await;
        let mut child = spawn(&server, &replay);
        while stored(&client, "to").await == before {
            assert!(child.try_wait().unwrap().is_none(), "it ended before kill {kill}");
        }
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let left = u64::from(EVENTS) - stored(&client, "to").await;
    assert!(left > 0, "the kills came while it was under way");
    let done = json_of(&server, &replay);
    let told = done["published"].as_u64().unwrap() + done["before"].as_u64().unwrap();
    assert_eq!(told, u64::from(EVENTS), "{done}");
    assert!(done["published"].as_u64().unwrap() <= left);
    // Keys go by their hash, which is not where they were published to.
    let mut all: Vec<u64> = Vec::new();
    for records in events(&client, "to", 4).await {
        let mut of_source = vec![Vec::new(); 4];
        for value in values(&records) {
            of_source[(value % 4) as usize].push(value);
            all.push(value);
        }
        assert!(
            of_source.iter().all(|values| values.is_sorted()),
            "the order of a partition holds"
        );
    }
    all.sort_unstable();
    assert_eq!(all, (0..u64::from(EVENTS)).collect::<Vec<_>>());
    let again = json_of(&server, &replay);
    assert_eq!((&again["published"], &again["before"]), (&json!(0), &json!(EVENTS)));
    assert_eq!(stored(&client, "to").await, u64::from(EVENTS));
    let members = json_of(&server, &["group", "list"]);
    assert_eq!(members["groups"][0]["members"], 0, "a replay that is done lets go: {members}");
}

#[tokio::test]
async fn the_later_of_two_runs_goes_on_and_the_other_one_fails() {
    let data = tempfile::tempdir().unwrap();
    let server = start(data.path());
    let client = server.client();
    topic(&client, "from", 4).await;
    topic(&client, "to", 1).await;
    fill(&client, "from", 0..60_000).await;
    let replay = ["replay", "from", "--to-topic", "to", "--replay-id", "r"];
    let mut first = spawn(&server, &replay);
    while stored(&client, "to").await == 0 {}
    let pid = Pid::from_child(&first);
    kill_process(pid, Signal::STOP).unwrap();
    let done = json_of(&server, &replay);
    assert!(done["before"].as_u64().unwrap() > 0 && done["published"].as_u64().unwrap() > 0);
    kill_process(pid, Signal::CONT).unwrap();
    assert_eq!(first.wait().unwrap().code(), Some(1));
    let mut all = values(&events(&client, "to", 1).await[0]);
    all.sort_unstable();
    assert_eq!(all, (0..60_000).collect::<Vec<_>>());
}

#[tokio::test]
async fn records_are_published_with_all_that_they_had() {
    let data = tempfile::tempdir().unwrap();
    let server = start(data.path());
    let client = server.client();
    topic(&client, "from", 2).await;
    topic(&client, "to", 2).await;
    let lines = [
        r#"{"value":{ "b": 1.50, "a": 1e2 },"key":"k\n\u00e9","id":"i","headers":{"h":"v","a":""}}"#,
        r#"{"value":null,"partition":1,"time":"2013-01-01T10:17:00+01:00"}"#,
        r#"{"value":"//4=","encoding":"base64","content_type":"a/b","partition":1}"#,
        r#"{"value":"","content_type":"a/b+json","type":"t","partition":0}"#,
    ];
    client.publish("from", lines.map(|line| format!("{line}\n")).concat()).await.ok();
    let path = "/topics/from/events";
    let binary = client.request("POST", path).header("content-type", "text/plain").body("hello");
    let attributes =
        [("ce-specversion", "1.0"), ("ce-id", "c"), ("ce-source", "/s"), ("ce-type", "t")];
    let binary =
        attributes.iter().fold(binary, |request, (name, value)| request.header(*name, *value));
    client.send(binary).await.ok();
    let done = json_of(&server, &["replay", "from", "--to-topic", "to"]);
    assert_eq!(done["published"], 5);
    assert_eq!(events(&client, "to", 2).await, events(&client, "from", 2).await);
    let copy = client.call("GET", "/topics/to/events/c").await.ok();
    assert_eq!((&copy["value"], &copy["encoding"]), (&json!("aGVsbG8="), &json!("base64")));
}

/// Ten records in one partition, of which the last five came after the time that is returned.
async fn two_halves(client: &Client) -> String {
    topic(client, "from", 2).await;
    let lines = |range: std::ops::Range<u32>| {
        range.map(|n| format!("{{\"value\":{n},\"partition\":1}}\n")).collect::<String>()
    };
    client.publish("from", lines(0..5)).await.ok();
    loop {
        // Timestamps are in milliseconds: the second half begins in a later one.
        client.publish("probe", "{\"value\":0}\n").await;
        client.publish("from", lines(5..6)).await.ok();
        let records = client.records("from", 1, 0).await;
        let time = records[records.len() - 1]["timestamp"].as_str().unwrap().to_owned();
        if records[records.len() - 2]["timestamp"] != time.as_str() {
            client.publish("from", lines(6..10)).await.ok();
            return time;
        }
    }
}

#[tokio::test]
async fn a_range_is_given_by_offsets_or_times() {
    let data = tempfile::tempdir().unwrap();
    let server = start(data.path());
    let client = server.client();
    let time = two_halves(&client).await;
    let all = values(&client.records("from", 1, 0).await);
    let half = all.len() - 5;
    client.call("DELETE", "/topics/from/partitions/1/records?before=1").await.ok();
    let future = "2999-01-01T00:00:00Z";
    let cases: [(&[&str], std::ops::Range<usize>); 9] = [
        (&[], 1..all.len()),
        (&["--from-start"], 1..all.len()),
        (&["--from-offset", "3", "--partition", "1"], 3..all.len()),
        (&["--from-offset", "3", "--to-offset", "5", "--partition", "1"], 3..5),
        (&["--from-offset", "3", "--to-offset", "3", "--partition", "1"], 3..3),
        (&["--from-time", &time], half..all.len()),
        (&["--until", &time], 1..half),
        (&["--from-time", &time, "--until", future], half..all.len()),
        (&["--from-time", future, "--until", &time], 0..0),
    ];
    for (at, (range, expected)) in cases.into_iter().enumerate() {
        let to = format!("to-{at}");
        topic(&client, &to, 1).await;
        let done = json_of(&server, &[&["replay", "from", "--to-topic", &to][..], range].concat());
        assert_eq!(values(&client.records(&to, 0, 0).await), all[expected], "{range:?}: {done}");
    }
}

#[tokio::test]
async fn a_group_is_set_back() {
    let data = tempfile::tempdir().unwrap();
    let server = start(data.path());
    let client = server.client();
    let time = two_halves(&client).await;
    let all = values(&client.records("from", 1, 0).await);
    let read = async || {
        let path = "/topics/from/consume?group=g&partition=1";
        values(client.call("GET", path).await.ok()["records"].as_array().unwrap())
    };
    let commit = json!({ "group": "g", "partition": 1, "offset": all.len() });
    client.call_with("POST", "/topics/from/offsets", commit).await.ok();
    assert_eq!(read().await, [0_u64; 0]);
    let replay = ["replay", "from", "--group", "g"];
    ok(&stream(&server, &replay));
    assert_eq!(read().await, all);
    ok(&stream(&server, &[&replay[..], &["--from-time", &time]].concat()));
    assert_eq!(read().await, all[all.len() - 5..]);
    ok(&stream(&server, &[&replay[..], &["--from-offset", "2", "--partition", "1"]].concat()));
    assert_eq!(read().await, all[2..]);
    let join = json!({ "subscriptions": ["from"] });
    client.call_with("POST", "/groups/g/members", join).await.ok();
    let (code, text) = failed(&server, &replay);
    assert!(code == Some(1) && text.contains("group-has-members"), "{text}");
    ok(&stream(&server, &[&replay[..], &["--force"]].concat()));
}

#[tokio::test]
async fn what_is_trimmed_while_a_replay_rests_is_not_skipped_in_silence() {
    let data = tempfile::tempdir().unwrap();
    let server = start(data.path());
    let client = server.client();
    topic(&client, "from", 1).await;
    topic(&client, "to", 1).await;
    let line = |n: u32| format!("{{\"value\":{n},\"partition\":0}}\n");
    client.publish("from", (0..3).map(line).collect::<String>()).await.ok();
    let replays: [&[&str]; 2] = [&["--from-start"], &["--from-offset", "1"]];
    let run = |range: &[&'static str]| {
        stream(
            &server,
            &[&["replay", "from", "--to-topic", "to", "--replay-id", "r"], range].concat(),
        )
    };
    for range in replays {
        ok(&run(range));
    }
    client.publish("from", (3..9).map(line).collect::<String>()).await.ok();
    client.call("DELETE", "/topics/from/partitions/0/records?before=2").await.ok();
    // What is trimmed was published.
    ok(&run(replays[1]));
    client.call("DELETE", "/topics/from/partitions/0/records?before=5").await.ok();
    client.publish("from", line(9)).await.ok();
    let lost = run(replays[0]);
    let text = String::from_utf8_lossy(&lost.stderr);
    assert!(lost.status.code() == Some(1) && text.contains("offset-trimmed"), "{lost:?}");
    ok(&run(replays[1]));
    let expected = [0, 1, 2, 1, 2, 3, 4, 5, 6, 7, 8, 9];
    assert_eq!(values(&client.records("to", 0, 0).await), expected);
}

#[tokio::test]
async fn what_cannot_be_replayed_is_an_error() {
    let data = tempfile::tempdir().unwrap();
    let server = start(data.path());
    let client = server.client();
    topic(&client, "from", 4).await;
    topic(&client, "to", 1).await;
    fill(&client, "from", 0..8).await;
    let to = ["--to-topic", "to"];
    let one = ["--to-topic", "to", "--partition", "0"];
    let with = |all: &[&'static str], more: &[&'static str]| [all, more].concat();
    let cases: [(Vec<&str>, i32, &str); 15] = [
        (vec![], 2, "required"),
        (with(&to, &["--group", "g"]), 2, "cannot be used"),
        (with(&to, &["--from-offset", "1", "--from-start"]), 2, "cannot be used"),
        (with(&one, &["--to-offset", "1", "--until", "2026-01-01T00:00:00Z"]), 2, "cannot be used"),
        (vec!["--group", "g", "--to-offset", "1"], 2, "cannot be used"),
        (vec!["--group", "g", "--replay-id", "r"], 2, "cannot be used"),
        (with(&to, &["--force"]), 2, "cannot be used"),
        (with(&to, &["--from-time", "yesterday"]), 2, "RFC 3339"),
        (with(&to, &["--replay-id", "a/b"]), 2, "characters"),
        (with(&to, &["--from-offset", "1"]), 2, "--partition"),
        (with(&to, &["--partition", "9"]), 2, "no partition 9"),
        (with(&one, &["--from-offset", "99"]), 2, "no range"),
        (with(&one, &["--from-offset", "2", "--to-offset", "1"]), 2, "no range"),
        (vec!["--to-topic", "from"], 2, "into itself"),
        (vec!["--to-topic", "none"], 1, "topic-not-found"),
    ];
    for (arguments, code, part) in cases {
        let (got, text) = failed(&server, &with(&["replay", "from"], &arguments));
        assert!(got == Some(code) && text.contains(part), "{arguments:?}: {got:?} {text}");
    }
    client.call("DELETE", "/topics/from/partitions/0/records?before=1").await.ok();
    let (code, text) = failed(&server, &with(&["replay", "from", "--from-offset", "0"], &one));
    assert!(code == Some(2) && text.contains("the earliest is 1"), "{text}");
    // What the other topic refuses ends the replay, and says where.
    let schema = json!({ "type": "string" });
    client.call_with("PUT", "/topics/to/schema", schema).await.ok();
    let (code, text) = failed(&server, &with(&["replay", "from"], &to));
    assert!(code == Some(1) && text.contains("stopped at offset"), "{text}");
    assert_eq!(stored(&client, "to").await, 0);
}

#[tokio::test]
async fn events_are_looked_up() {
    let data = tempfile::tempdir().unwrap();
    let server = start(data.path());
    let client = server.client();
    let made =
        json_of(&server, &["topic", "create", "t", "--partitions", "2", "--index", "id,key"]);
    assert_eq!(made["index"], json!(["id", "key"]));
    assert!(ok(&stream(&server, &["topic", "describe", "t"])).contains("id,key"));
    let line = |n: u32| {
        format!(
            "{{\"value\":{{\n\"n\":{n}}},\"id\":\"a/{n}\",\"key\":\"k\",\"partition\":{}}}",
            n % 2
        )
    };
    for n in 0..5 {
        let event = client.request("POST", "/topics/t/produce").body(line(n));
        client.send(event.header("content-type", "application/json")).await.ok();
    }
    let found = json_of(&server, &["event", "get", "t", "a/3"]);
    assert_eq!((&found["value"]["n"], &found["partition"]), (&json!(3), &json!(1)));
    let list = |more: &[&str]| ok(&stream(&server, &[&["event", "list", "t", "k"], more].concat()));
    let numbers = |text: &str| {
        let records = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        records.map(|record| record["value"]["n"].as_u64().unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(numbers(&list(&["--json"])), [4, 3, 2, 1, 0]);
    assert_eq!(numbers(&list(&["--json", "--limit", "2"])), [4, 3]);
    assert_eq!(list(&["--limit", "0"]), "");
    assert!(list(&["--limit", "1"]).starts_with("0:2 "), "{}", list(&["--limit", "1"]));
    client.call_with("POST", "/topics", json!({ "name": "plain" })).await.ok();
    for (arguments, code) in [
        (["event", "get", "t", "none"].as_slice(), "event-not-found"),
        (&["event", "get", "plain", "a"], "not-indexed"),
        (&["event", "list", "plain", "k"], "not-indexed"),
    ] {
        let (got, text) = failed(&server, arguments);
        assert!(got == Some(1) && text.contains(code), "{arguments:?}: {text}");
    }
}
