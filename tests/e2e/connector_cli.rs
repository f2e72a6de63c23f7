//! `stream connector` and `stream dead-letter`: from making a connector to trying again what it gave
//! up.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use stream_tests::{KEY, Server, Sink};

use super::{EXE, stream};

/// No test waits longer.
const PATIENCE: Duration = Duration::from_secs(20);

fn start(data: &Path) -> Server {
    Server::start_with(EXE, data, &["--egress-allow", "127.0.0.1"])
}

#[track_caller]
fn text_of(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// What a command prints as JSON.
#[track_caller]
fn json_of(server: &Server, arguments: &[&str]) -> Value {
    let text = text_of(&stream(server, &[arguments, &["--json"]].concat()));
    serde_json::from_str(&text).unwrap()
}

/// A connector as the command line shows it, once `is_so`.
async fn until(server: &Server, name: &str, is_so: impl Fn(&Value) -> bool) -> Value {
    let looks = async {
        loop {
            let told = json_of(server, &["connector", "show", name]);
            if is_so(&told) {
                return told;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, looks).await.expect("it comes to be so")
}

/// Runs a command with something on its standard input.
fn stream_with(server: &Server, arguments: &[&str], input: &str) -> Output {
    let mut child = Command::new(EXE)
        .args(arguments)
        .env("STREAM_URL", &server.url)
        .env("STREAM_API_KEY", KEY)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

#[tokio::test]
async fn a_connector_is_made_shown_paused_sent_back_and_deleted_across_kills() {
    let data = tempfile::tempdir().unwrap();
    let server = start(data.path());
    json_of(&server, &["topic", "create", "order.placed", "--partitions", "1"]);
    let put =
        ["connector", "put", "mail", "--kind", "worker", "--match", "order.*", "--queue", "q"];
    let text = text_of(&stream(&server, &put));
    for line in ["to       queue q\n", "match    order.* (1 topic)\n", "state    running\n"] {
        assert!(text.contains(line), "{line} in {text}");
    }
    text_of(&stream_with(&server, &["publish", "order.placed"], "{\"value\":1}\n{\"value\":2}\n"));
    let told = until(&server, "mail", |told| told["taken"] == 2).await;
    assert_eq!((&told["lag"], &told["queue"]["waiting"]), (&json!(0), &json!(2)));
    assert_eq!(json_of(&server, &["connector", "pause", "mail"])["state"], "paused");

    server.kill();
    let server = start(data.path());
    text_of(&stream_with(&server, &["publish", "order.placed"], "{\"value\":3}\n"));
    let text = text_of(&stream(&server, &["connector", "show", "mail"]));
    for line in
        ["state    paused\n", "lag      1\n", "order.placed          0     2    3    1  -\n"]
    {
        assert!(text.contains(line), "{line} in {text}");
    }
    json_of(&server, &["connector", "resume", "mail"]);
    until(&server, "mail", |told| told["queue"]["waiting"] == 3).await;
    json_of(&server, &["connector", "replay", "mail", "--from", "earliest"]);

    server.kill();
    let server = start(data.path());
    let told = until(&server, "mail", |told| told["lag"] == 0).await;
    assert_eq!(told["queue"]["waiting"], 6, "{told}");
    let refused = stream(&server, &["connector", "put", "mail", "--kind", "hooks", "--match", "x"]);
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    assert!(String::from_utf8_lossy(&refused.stderr).contains("delete"), "{refused:?}");
    let none = ["connector", "put", "other", "--kind", "ledger", "--match", "none.*"];
    let text = text_of(&stream(&server, &none));
    assert!(text.contains("warning: no topic matches `none.*` now\n"), "{text}");
    let text = text_of(&stream(&server, &["connector", "list"]));
    assert!(text.contains("mail   worker  order.*  queue q       running"), "{text}");
    assert!(!stream(&server, &["connector", "delete", "mail"]).status.success());
    text_of(&stream(&server, &["connector", "delete", "mail", "--yes"]));
    text_of(&stream(&server, &["connector", "delete", "other", "--drop", "--yes"]));
    let gone = async {
        while !json_of(&server, &["connector", "list"])["connectors"].as_array().unwrap().is_empty()
        {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, gone).await.expect("it drains");
}

#[tokio::test]
async fn a_service_elsewhere_is_shown_a_secret_that_no_command_line_has() {
    let data = tempfile::tempdir().unwrap();
    let server = start(data.path());
    let sink = Sink::start().await;
    sink.answer(&[400]);
    json_of(&server, &["topic", "create", "t", "--partitions", "1"]);
    let put = [
        "connector",
        "put",
        "out",
        "--kind",
        "hooks",
        "--match",
        "t",
        "--address",
        &sink.url,
        "--secret-file",
        "-",
        "--concurrency",
        "1",
        "--retry",
        "10ms",
    ];
    let text = text_of(&stream_with(&server, &put, "s3cret\n"));
    assert!(text.contains(&sink.url) && !text.contains("s3cret"), "{text}");
    text_of(&stream_with(&server, &["publish", "t"], "{\"value\":1}\n{\"value\":2}\n"));
    let told = until(&server, "out", |told| told["sent"] == 1).await;
    assert_eq!(told["queue"]["dead"], 1, "{told}");
    let hits = sink.wait(2, PATIENCE).await;
    assert_eq!(hits[0].headers["authorization"], "Bearer s3cret");
    let text = text_of(&stream(&server, &["connector", "dead-letters", "out"]));
    assert!(text.contains("t 0:0") && text.contains("answered 400"), "{text}");
    let dead = json_of(&server, &["connector", "dead-letters", "out"]);
    let id = dead["dead_letters"][0]["id"].as_str().unwrap();
    let text = text_of(&stream(&server, &["connector", "redrive", "out", id]));
    assert_eq!(text, "1 tried again\n");
    let hits = sink.wait(3, PATIENCE).await;
    assert_eq!(hits[2].headers["idempotency-key"], hits[0].headers["idempotency-key"]);
    let text = text_of(&stream(&server, &["connector", "dead-letters", "out"]));
    assert_eq!(text, "nothing was given up\n");
}

/// Dead letters of a plugin, a group and a queue, one each.
async fn give_up(server: &Server, sink: &Sink) {
    let client = server.client();
    for topic in ["a", "b"] {
        json_of(server, &["topic", "create", topic, "--partitions", "1"]);
    }
    let panic = format!("{}/../guest-examples/built/panic.wasm", env!("CARGO_MANIFEST_DIR"));
    json_of(server, &["plugin", "upload", "p", &panic]);
    let bind = ["plugin", "bind", "p", "--role", "validate", "--topic", "a"];
    json_of(server, &[&bind[..], &["--on-fault", "dead-letter"]].concat());
    let event = json!({ "value": "/w==", "encoding": "base64", "key": "k", "id": "i",
                        "headers": { "h": "1" }, "content_type": "x/y" });
    client.call_with("POST", "/topics/a/produce", event).await.ok();
    text_of(&stream(server, &["plugin", "unbind", "p", "--role", "validate", "--topic", "a"]));

    json_of(server, &["group", "set", "g", "--attempts-max", "1"]);
    client.call_with("POST", "/topics/b/produce", json!({ "value": null })).await.ok();
    let joined =
        client.call_with("POST", "/groups/g/members", json!({ "subscriptions": ["b"] })).await;
    let member = joined.body["member"].as_str().unwrap();
    let records = format!("/groups/g/members/{member}/records");
    client.call("GET", &records).await.ok();
    let nack =
        json!({ "topic": "b", "partition": 0, "generation": 1, "offset": 0, "reason": "no" });
    let nacked = client.call_with("POST", &format!("/groups/g/members/{member}/nack"), nack).await;
    assert_eq!(nacked.body["dead_lettered"], true, "{nacked:?}");
    client.call("DELETE", &format!("/groups/g/members/{member}")).await;

    sink.answer(&[400]);
    let put = ["connector", "put", "out", "--kind", "hooks", "--match", "b", "--from", "earliest"];
    json_of(server, &[&put[..], &["--address", &sink.url]].concat());
    until(server, "out", |told| told["queue"]["dead"] == 1).await;
}

#[tokio::test]
async fn events_of_dead_letters_are_published_again_once() {
    let data = tempfile::tempdir().unwrap();
    let server = start(data.path());
    let none = text_of(&stream(&server, &["dead-letter", "redrive"]));
    assert_eq!(none, "there are no such dead letters\n");
    let sink = Sink::start().await;
    give_up(&server, &sink).await;
    let list = text_of(&stream(&server, &["dead-letter", "list"]));
    for part in ["p@1", "group g", "b 0:0", "nack: no", "connector out", "refused: out answered"] {
        assert!(list.contains(part), "{part} in {list}");
    }
    let redrive =
        |more: &[&str]| json_of(&server, &[&["dead-letter", "redrive"][..], more].concat());
    let counts = |told: &Value, field: &str| {
        let topics = told["topics"].as_array().unwrap();
        topics.iter().map(|topic| topic[field].as_u64().unwrap()).sum::<u64>()
    };
    assert_eq!(counts(&redrive(&["--dry-run"]), "published"), 2);
    assert_eq!(counts(&redrive(&["--kind", "route"]), "published"), 0);
    assert_eq!(counts(&redrive(&["--since", "2100-01-01T00:00:00Z"]), "published"), 0);
    assert_eq!(server.client().records("a", 0, 0).await, Vec::<Value>::new());

    let letters = stream(&server, &["dead-letter", "list", "--json"]);
    let letters = String::from_utf8(letters.stdout).unwrap();
    let letter = letters.lines().find(|line| line.contains("\"kind\":\"plugin\"")).unwrap();
    let letter: Value = serde_json::from_str(letter).unwrap();
    let place = format!("{}:{}", letter["partition"], letter["offset"]);
    assert_eq!(counts(&redrive(&[&place]), "published"), 1);
    let told = redrive(&[]);
    assert_eq!((counts(&told, "published"), counts(&told, "duplicates")), (1, 1), "{told}");
    assert_eq!(told["queues"][0]["redrive"], "stream connector redrive out", "{told}");
    let again = redrive(&["--topic", "a"]);
    assert_eq!((counts(&again, "published"), counts(&again, "duplicates")), (0, 1));

    let of_a = server.client().records("a", 0, 0).await;
    assert_eq!(of_a.len(), 1, "{of_a:?}");
    for (field, value) in [
        ("value", json!("/w==")),
        ("encoding", json!("base64")),
        ("key", json!("k")),
        ("id", json!("i")),
        ("content_type", json!("x/y")),
        ("headers", json!({ "h": "1" })),
    ] {
        assert_eq!(of_a[0][field], value, "{field}");
    }
    let of_b = server.client().records("b", 0, 0).await;
    assert_eq!((of_b.len(), &of_b[1]["value"]), (2, &Value::Null));

    // One whose topic is gone stops no other, and is said.
    text_of(&stream(&server, &["topic", "delete", "a", "--yes"]));
    let failed = stream(&server, &["dead-letter", "redrive"]);
    assert_eq!(failed.status.code(), Some(1), "{failed:?}");
    let text = String::from_utf8(failed.stdout).unwrap();
    assert!(text.contains("not published:") && text.contains("PUBLISHED BEFORE"), "{text}");
}
