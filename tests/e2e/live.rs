//! Subscriptions over a real connection.

use serde_json::{Value, json};
use stream_tests::Client;

use super::{start, stream};

/// Publishes a batch over all partitions of a topic.
async fn publish(client: &Client, topic: &str, values: std::ops::Range<u32>) {
    let line = |n| format!("{{\"value\":{n},\"partition\":{}}}\n", n % 4);
    client.publish(topic, values.map(line).collect::<String>()).await.ok();
}

/// Topic, partition and offset of a record.
fn place(record: &Value) -> (String, u64, u64) {
    let number = |name: &str| record[name].as_u64().unwrap();
    (record["topic"].as_str().unwrap().to_owned(), number("partition"), number("offset"))
}

#[tokio::test]
async fn a_subscriber_gets_every_record_once_over_broken_connections_and_a_crash() {
    const ROUNDS: u32 = 6;
    let data = tempfile::tempdir().unwrap();
    let mut server = start(data.path());
    let path = "/subscribe?pattern=order.**&from=earliest";
    let (mut last, mut found) = (None::<String>, Vec::new());
    for round in 0..ROUNDS {
        let client = server.client();
        // A topic that nobody has heard of when the round before ended.
        let topic = format!("order.{round}");
        client.call_with("POST", "/topics", json!({"name": topic, "partitions": 4})).await.ok();
        publish(&client, &topic, 0..40).await;
        publish(&client, "order.0", 0..40).await;
        let mut subscription = client.subscribe(path, last.as_deref()).await;
        // Half of it, and the rest on another connection in the next round.
        for _ in 0..if round + 1 == ROUNDS { 280 } else { 40 } {
            let event = subscription.next().await.unwrap();
            found.push(place(&event.data));
            last = Some(event.id);
        }
        drop(subscription);
        if round % 2 == 1 && round + 1 < ROUNDS {
            server.kill();
            server = start(data.path());
        }
    }
    assert_eq!(found.len(), 480);
    let mut unique = found.clone();
    unique.sort();
    unique.dedup();
    assert_eq!(unique.len(), 480, "each once");
    for topic in 0..ROUNDS {
        for partition in 0..4 {
            let topic = format!("order.{topic}");
            let of = found.iter().filter(|(name, at, _)| *name == topic && *at == partition);
            let offsets: Vec<u64> = of.map(|(.., offset)| *offset).collect();
            assert!(offsets.iter().copied().eq(0..offsets.len() as u64), "{topic} {partition}");
        }
    }
}

#[tokio::test]
async fn a_tail_of_a_pattern_prints_what_matches() {
    let data = tempfile::tempdir().unwrap();
    let server = start(data.path());
    let client = server.client();
    for topic in ["order.placed", "order.paid", "user.made"] {
        client.call_with("POST", "/topics", json!({"name": topic})).await.ok();
        let event = json!({"value": topic, "key": "k", "partition": 0});
        client.call_with("POST", &format!("/topics/{topic}/events"), json!([event])).await.ok();
    }
    let arguments = ["tail", "order.*", "--from", "earliest", "--limit", "2"];
    let output = tokio::task::spawn_blocking(move || stream(&server, &arguments)).await.unwrap();
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let [first, second] = lines[..] else { panic!("{text}") };
    assert!(
        first.starts_with("order.placed 0:0 ") && first.ends_with(" k \"order.placed\""),
        "{first}"
    );
    assert!(second.starts_with("order.paid 0:0 "), "{second}");
}

#[tokio::test]
async fn what_only_a_topic_has_is_refused_for_a_pattern() {
    let data = tempfile::tempdir().unwrap();
    let server = start(data.path());
    for more in [["--partition", "0"], ["--from", "7"], ["--limit", "1"]] {
        let more = if more[0] == "--limit" { ["--no-follow", "--json"] } else { more };
        let output = stream(&server, &["tail", "order.*", more[0], more[1]]);
        assert_eq!(output.status.code(), Some(2), "{output:?}");
    }
}

#[tokio::test]
async fn a_group_is_shown_reset_and_deleted() {
    let data = tempfile::tempdir().unwrap();
    let server = start(data.path());
    let client = server.client();
    client.call_with("POST", "/topics", json!({"name": "t", "partitions": 2})).await.ok();
    publish(&client, "t", 0..1).await;
    let join = json!({"subscriptions": ["t"], "instance_id": "one"});
    client.call_with("POST", "/groups/g/members", join).await.ok();
    let run = |arguments: &[&str]| {
        let output = stream(&server, arguments);
        let text = String::from_utf8(output.stdout).unwrap();
        (output.status.code(), text, String::from_utf8(output.stderr).unwrap())
    };
    let (code, text, _) = run(&["group", "list"]);
    assert!(code == Some(0) && text.contains("\ng           1\n"), "{text}");
    let (code, text, _) = run(&["group", "show", "g"]);
    assert!(code == Some(0) && text.contains("one") && text.contains("COMMITTED"), "{text}");
    let reset = ["group", "reset", "g", "t", "--to", "latest"];
    let (code, _, told) = run(&reset);
    assert!(code == Some(1) && told.contains("group-has-members"), "{told}");
    let (code, text, told) = run(&[&reset[..], &["--force"]].concat());
    assert!(code == Some(0) && text.contains("NEXT OFFSET"), "{told}");
    let (code, _, told) = run(&["group", "delete", "g", "--yes", "--force"]);
    assert_eq!(code, Some(0), "{told}");
    assert_eq!(run(&["group", "show", "g"]).0, Some(1));
}
