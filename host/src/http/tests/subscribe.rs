//! Server-Sent Events, to subscribers and to members of groups.

use std::time::Duration;

use super::*;

/// An open stream.
struct Events {
    body: Body,
    text: String,
}

/// One event.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Event {
    kind: String,
    id: String,
    data: Value,
}

impl Events {
    /// The next event; comments are passed over. `None` when the stream has ended.
    async fn next(&mut self) -> Option<Event> {
        loop {
            while let Some((event, rest)) = self.text.split_once("\n\n") {
                let (event, rest) = (event.to_owned(), rest.to_owned());
                self.text = rest;
                let mut found = Event::default();
                for line in event.lines() {
                    match line.split_once(": ") {
                        Some(("event", kind)) => found.kind = kind.to_owned(),
                        Some(("id", id)) => found.id = id.to_owned(),
                        Some(("data", data)) => found.data = serde_json::from_str(data).unwrap(),
                        _ => {}
                    }
                }
                if !found.data.is_null() {
                    return Some(found);
                }
            }
            let frame = tokio::time::timeout(Duration::from_secs(10), self.body.frame());
            let frame = frame.await.expect("the stream is silent")?;
            self.text += std::str::from_utf8(&frame.unwrap().into_data().unwrap()).unwrap();
        }
    }

    /// Topic and value of the next record.
    async fn record(&mut self) -> (String, Value) {
        let event = self.next().await.expect("the stream has ended");
        assert_eq!(event.kind, "", "{event:?}");
        (event.data["topic"].as_str().unwrap().to_owned(), event.data["value"].clone())
    }
}

impl super::Server {
    async fn open(&self, path: &str, headers: &[(&str, &str)]) -> Result<Events, Answer> {
        let mut request =
            Request::builder().uri(path).header("authorization", format!("Bearer {ADMIN}"));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Body::empty()).unwrap();
        let response = self.router.clone().oneshot(request).await.unwrap();
        if response.status() == StatusCode::OK {
            assert_eq!(response.headers()["content-type"], "text/event-stream");
            return Ok(Events { body: response.into_body(), text: String::new() });
        }
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        let text = String::from_utf8(bytes.to_vec()).unwrap();
        Err(Answer { status: parts.status, headers: parts.headers, text })
    }

    async fn subscribe(&self, query: &str) -> Events {
        self.open(&format!("/subscribe?{query}"), &[])
            .await
            .unwrap_or_else(|answer| panic!("{}", answer.text))
    }

    async fn resume(&self, id: &str, pattern: &str) -> Result<Events, Answer> {
        self.open(&format!("/subscribe?pattern={pattern}"), &[("last-event-id", id)]).await
    }

    async fn put(&self, topic: &str, partition: u32, value: u32) {
        let body = json!([{ "value": value, "partition": partition }]);
        let made = self.call(&format!("POST /topics/{topic}/events"), body).await;
        assert_eq!(made.status, StatusCode::OK, "{}", made.text);
    }
}

#[tokio::test]
async fn records_of_all_matching_topics_come_in_the_order_of_their_commits() {
    let server = Server::start().await;
    for topic in ["a.b", "a.c", "other"] {
        server.make(topic, 3).await;
    }
    let mut expected = Vec::new();
    for value in 0..60 {
        let topic = ["a.b", "a.c", "other"][(value % 3) as usize];
        server.put(topic, value * 5 % 3, value).await;
        if topic != "other" {
            expected.push((topic.to_owned(), json!(value)));
        }
    }
    let mut events = server.subscribe("pattern=a.*&from=earliest").await;
    let mut found = Vec::new();
    for _ in 0..expected.len() {
        found.push(events.record().await);
    }
    assert_eq!(found, expected);
}

#[tokio::test]
async fn every_id_resumes_behind_its_record() {
    let server = Server::start().await;
    server.make("b", 2).await;
    server.make("a", 2).await;
    // Commits of one record, of several in one partition, and of several partitions and topics.
    for value in 0..4 {
        server.put("b", value % 2, value).await;
    }
    let lines: String =
        (4..12).map(|n| format!("{{\"value\":{n},\"partition\":{}}}\n", n % 2)).collect();
    let headers = [("content-type", "application/x-ndjson")];
    server.call_with("POST /topics/a/events", &headers, lines).await;
    let event = |partition: u32, value: i64| json!({ "value": value, "partition": partition });
    let publish = json!({ "publish": [
        { "topic": "b", "events": [event(1, 12), event(0, 13)] },
        { "topic": "a", "events": [event(1, 14)] },
    ]});
    assert_eq!(server.call("POST /transactions", publish).await.status, StatusCode::OK);
    let mut events = server.subscribe("pattern=**&from=earliest").await;
    let mut all = Vec::new();
    for _ in 0..15 {
        all.push(events.next().await.unwrap());
    }
    for place in 0..15 {
        let mut resumed = server.resume(&all[place].id, "**").await.ok().unwrap();
        for expected in &all[place + 1..] {
            assert_eq!(resumed.next().await.as_ref(), Some(expected), "{}", all[place].id);
        }
    }
}

#[tokio::test]
async fn topics_made_later_are_found_also_after_a_resume() {
    let server = Server::start().await;
    server.make("a.1", 1).await;
    let mut events = server.subscribe("pattern=a.**").await;
    server.put("a.1", 0, 1).await;
    let first = events.next().await.unwrap();
    server.make("a.2", 2).await;
    server.put("a.2", 1, 2).await;
    assert_eq!(events.record().await, ("a.2".to_owned(), json!(2)));
    let mut resumed = server.resume(&first.id, "a.**").await.ok().unwrap();
    assert_eq!(resumed.record().await, ("a.2".to_owned(), json!(2)));
}

#[tokio::test]
async fn who_loses_the_connection_before_the_first_record_misses_nothing() {
    let server = Server::start().await;
    server.make("a", 2).await;
    for value in 0..3 {
        server.put("a", value % 2, value).await;
    }
    let mut events = server.subscribe("pattern=*").await;
    let hello = events.body.frame().await.unwrap().unwrap().into_data().unwrap();
    let hello = std::str::from_utf8(&hello).unwrap();
    let id = hello.lines().find_map(|line| line.strip_prefix("id: ")).unwrap().to_owned();
    drop(events);
    server.put("a", 1, 3).await;
    server.make("b", 1).await;
    server.put("b", 0, 4).await;
    let mut resumed = server.resume(&id, "*").await.ok().unwrap();
    assert_eq!(resumed.record().await, ("a".to_owned(), json!(3)));
    assert_eq!(resumed.record().await, ("b".to_owned(), json!(4)));
}

#[tokio::test]
async fn a_deleted_topic_leaves_the_others() {
    let server = Server::start().await;
    server.make("a", 1).await;
    server.make("b", 1).await;
    let mut events = server.subscribe("pattern=*").await;
    server.put("a", 0, 1).await;
    assert_eq!(events.record().await, ("a".to_owned(), json!(1)));
    server.call("DELETE /topics/a", Value::Null).await;
    server.put("b", 0, 2).await;
    assert_eq!(events.record().await, ("b".to_owned(), json!(2)));
    server.make("a", 1).await;
    server.put("a", 0, 3).await;
    assert_eq!(events.record().await, ("a".to_owned(), json!(3)));
}

#[tokio::test]
async fn a_time_begins_with_its_first_record() {
    let server = Server::start().await;
    server.make("t", 2).await;
    server.put("t", 0, 1).await;
    server.clock.set(Timestamp(NOW.0 + 1_000));
    server.put("t", 1, 2).await;
    server.put("t", 0, 3).await;
    let mut events = server.subscribe("pattern=t&from=2026-01-02T03:04:06.000Z").await;
    assert_eq!(events.record().await.1, json!(2));
    assert_eq!(events.record().await.1, json!(3));
}

#[tokio::test]
async fn what_is_trimmed_before_it_is_read_is_told() {
    let server = Server::start().await;
    server.make("t", 1).await;
    for value in 0..3 {
        server.put("t", 0, value).await;
    }
    let mut events = server.subscribe("pattern=t&from=earliest").await;
    let first = events.next().await.unwrap();
    server.call("DELETE /topics/t/partitions/0/records?before=2", Value::Null).await;
    let refused = server.resume(&first.id, "t").await.err().unwrap();
    assert_eq!(refused.error(), (410, "offset-trimmed".to_owned()));
    assert_eq!(refused.json()["error"]["topic"], "t");
    assert_eq!(refused.json()["error"]["earliest"], 2);
}

#[tokio::test]
async fn a_slow_subscriber_is_told_when_retention_overtakes_it() {
    let server = Server::start().await;
    server.make("t", 1).await;
    let mut events = server.subscribe("pattern=t&from=earliest").await;
    // Nothing is read before the greeting is taken.
    server.put("t", 0, 0).await;
    server.call("DELETE /topics/t/partitions/0/records?before=1", Value::Null).await;
    let event = events.next().await.unwrap();
    assert_eq!(event.kind, "error");
    assert_eq!(event.data["error"]["code"], "offset-trimmed");
    assert_eq!(events.next().await, None);
}

#[tokio::test]
async fn what_cannot_be_subscribed_to_is_refused() {
    let server = Server::start().await;
    server.make("t", 1).await;
    let cases = [
        ("/subscribe", "", (400, "invalid-pattern")),
        ("/subscribe?pattern=a.b*", "", (400, "invalid-pattern")),
        ("/subscribe?pattern=t&from=yesterday", "", (400, "invalid-from")),
        ("/subscribe?pattern=t", "1.2.3", (400, "invalid-last-event-id")),
        ("/groups/g/members/m/subscribe", "", (409, "unknown-member")),
    ];
    for (path, id, (status, code)) in cases {
        let refused = server.open(path, &[("last-event-id", id)]).await.err().unwrap();
        assert_eq!(refused.error(), (status, code.to_owned()), "{path}");
    }
    // Of a store that has lost records, or of another one.
    let topic = server.subscribe("pattern=t&from=earliest").await;
    drop(topic);
    server.put("t", 0, 1).await;
    let mut events = server.subscribe("pattern=t&from=earliest").await;
    let id = events.next().await.unwrap().id;
    let beyond = id.replace(".0.0", ".0.7");
    let refused = server.resume(&beyond, "t").await.err().unwrap();
    assert_eq!(refused.error(), (416, "offset-beyond-end".to_owned()));
}

#[tokio::test]
async fn a_revoked_key_and_the_servers_end_end_a_subscription() {
    let server = Server::start().await;
    server.make("t", 1).await;
    let made = server.call("POST /keys", json!({ "scopes": ["consume"] })).await.json();
    let key = format!("Bearer {}", made["key"].as_str().unwrap());
    let request = Request::builder().uri("/subscribe?pattern=t").header("authorization", key);
    let response =
        server.router.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
    let mut of_key = Events { body: response.into_body(), text: String::new() };
    let mut events = server.subscribe("pattern=t").await;
    server.put("t", 0, 1).await;
    assert_eq!(of_key.record().await.1, json!(1));
    assert_eq!(events.record().await.1, json!(1));
    let revoked = format!("DELETE /keys/{}", made["id"].as_str().unwrap());
    assert_eq!(server.call(&revoked, Value::Null).await.status, StatusCode::NO_CONTENT);
    server.put("t", 0, 2).await;
    let event = of_key.next().await.unwrap();
    assert_eq!(
        (event.kind.as_str(), &event.data["error"]["code"]),
        ("error", &json!("invalid-key"))
    );
    assert_eq!(of_key.next().await, None);
    assert_eq!(events.record().await.1, json!(2));
    server.app.node.drain.begin();
    assert_eq!(events.next().await, None);
}

#[tokio::test]
async fn a_member_is_sent_what_it_owns_once_and_commits_on_its_own() {
    let server = Server::start().await;
    server.make("t", 2).await;
    let join = json!({ "subscriptions": ["t"] });
    let first = server.call("POST /groups/g/members", join.clone()).await.json();
    let path = format!("/groups/g/members/{}", first["member"].as_str().unwrap());
    let mut events = server.open(&format!("{path}/subscribe"), &[]).await.ok().unwrap();
    let told = events.next().await.unwrap();
    assert_eq!(told.kind, "assignment");
    assert_eq!(told.data["assignment"].as_array().unwrap().len(), 2);
    for value in 0..4 {
        server.put("t", value % 2, value).await;
        assert_eq!(events.record().await.1, json!(value));
    }
    // Nothing is committed: a new stream begins where the old one did.
    let mut again = server.open(&format!("{path}/subscribe"), &[]).await.ok().unwrap();
    assert_eq!(again.next().await.unwrap().kind, "assignment");
    let mut values: Vec<u64> = Vec::new();
    for _ in 0..4 {
        values.push(again.record().await.1.as_u64().unwrap());
    }
    values.sort_unstable();
    assert_eq!(values, [0, 1, 2, 3]);
    // A second member joins: one partition moves as soon as what was read of it is committed.
    let second = server.call("POST /groups/g/members", join).await.json();
    assert_eq!(second["assignment"], json!([]));
    let told = again.next().await.unwrap();
    let revoked: Vec<&Value> = told.data["assignment"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|held| held["revoking"] == true)
        .collect();
    let [revoked] = revoked[..] else { panic!("{told:?}") };
    let commit = json!({ "partitions": [{
        "topic": "t",
        "partition": revoked["partition"],
        "generation": revoked["generation"],
        "next_offset": 2,
    }]});
    let committed = server.call(&format!("POST {path}/offsets"), commit).await;
    assert_eq!(committed.status, StatusCode::NO_CONTENT, "{}", committed.text);
    let path = format!("/groups/g/members/{}", second["member"].as_str().unwrap());
    let moved = server.call(&format!("POST {path}/heartbeat"), Value::Null).await.json();
    assert_eq!(moved["assignment"][0]["partition"], revoked["partition"], "{moved}");
    assert_eq!(moved["assignment"][0]["next_offset"], 2);
}

#[tokio::test]
async fn a_member_is_sent_again_what_it_could_not_process_once_the_delay_is_over() {
    let server = Server::start().await;
    server.make("t", 2).await;
    let join = json!({ "subscriptions": ["t"] });
    let joined = server.call("POST /groups/g/members", join).await.json();
    let path = format!("/groups/g/members/{}", joined["member"].as_str().unwrap());
    for value in 0..3 {
        server.put("t", 0, value).await;
    }
    let mut events = server.open(&format!("{path}/subscribe"), &[]).await.ok().unwrap();
    assert_eq!(events.next().await.unwrap().kind, "assignment");
    for value in 0..3 {
        assert_eq!(events.record().await.1, json!(value));
    }
    let nack = json!({
        "topic": "t", "partition": 0, "generation": 1, "offset": 1, "delay_ms": 100,
    });
    let nacked = server.call(&format!("POST {path}/nack"), nack).await;
    assert_eq!(nacked.status, StatusCode::OK, "{}", nacked.text);
    let told = events.next().await.unwrap();
    assert_eq!(told.kind, "assignment");
    let held = &told.data["assignment"][0];
    assert_eq!((&held["next_offset"], &held["generation"]), (&json!(1), &json!(2)));
    assert!(held["held_until"].is_string(), "{held}");
    // What comes meanwhile waits behind it; the other partition goes on.
    server.put("t", 0, 3).await;
    server.put("t", 1, 10).await;
    assert_eq!(events.record().await.1, json!(10));
    server.clock.advance(Duration::from_millis(100));
    let again = events.next().await.unwrap();
    assert_eq!((&again.data["value"], &again.data["attempt"]), (&json!(1), &json!(2)), "{again:?}");
    for value in [2, 3] {
        let next = events.next().await.unwrap();
        assert_eq!((&next.data["value"], &next.data["attempt"]), (&json!(value), &Value::Null));
    }
    // What is committed behind it comes no more.
    let commit = json!({ "partitions": [
        { "topic": "t", "partition": 0, "generation": 2, "next_offset": 3 },
    ]});
    let committed = server.call(&format!("POST {path}/offsets"), commit).await;
    assert_eq!(committed.status, StatusCode::NO_CONTENT, "{}", committed.text);
    server.put("t", 0, 4).await;
    assert_eq!(events.record().await.1, json!(4));
}

#[tokio::test]
async fn pages_of_a_pattern_follow_each_other_in_order_and_wait_at_the_end() {
    let server = Server::start().await;
    server.make("a.1", 3).await;
    server.make("a.2", 3).await;
    for value in 0..40 {
        server.put(["a.1", "a.2"][(value % 2) as usize], value % 3, value).await;
    }
    let (mut values, mut after) = (Vec::new(), String::new());
    loop {
        let path = format!("/records?pattern=a.*&from=earliest&limit=7&after={after}");
        let page = server.get(&path).await.json();
        let records = page["records"].as_array().unwrap();
        assert!(records.len() <= 7, "{page}");
        if records.is_empty() {
            assert_eq!(page["next"], json!(after), "an empty page leads on to where it began");
            break;
        }
        values.extend(records.iter().map(|record| record["value"].as_u64().unwrap()));
        after = page["next"].as_str().unwrap().to_owned();
    }
    assert!(values.iter().copied().eq(0..40), "{values:?}");
    // A wait from the present on, over a topic that is made meanwhile.
    let present = server.get("/records?pattern=a.*").await.json();
    let after = present["next"].as_str().unwrap();
    server.make("a.3", 1).await;
    let path = format!("/records?pattern=a.*&wait_ms=60000&after={after}");
    let (page, ()) = tokio::join!(server.get(&path), server.put("a.3", 0, 40));
    assert_eq!(page.json()["records"][0]["value"], 40);
    assert_eq!(
        server.get("/records?pattern=a.*&from=earliest").await.json()["records"][0]["value"],
        0
    );
}

#[tokio::test]
async fn a_member_is_told_when_retention_overtakes_it_and_again_after_the_reset() {
    let server = Server::start().await;
    server.make("t", 1).await;
    let joined = server.call("POST /groups/g/members", json!({ "subscriptions": ["t"] })).await;
    let path = format!("/groups/g/members/{}/subscribe", joined.json()["member"].as_str().unwrap());
    let mut events = server.open(&path, &[]).await.ok().unwrap();
    let told = events.next().await.unwrap();
    assert_eq!((told.kind.as_str(), &told.data["lost"]), ("assignment", &json!([])));
    for value in 0..3 {
        server.put("t", 0, value).await;
        assert_eq!(events.record().await.1, json!(value));
    }
    server.call("DELETE /topics/t/partitions/0/records?before=2", Value::Null).await;
    let told = events.next().await.unwrap();
    assert_eq!(told.kind, "assignment");
    assert_eq!(told.data["lost"][0]["records"], 2);
    let reset = json!({ "topic": "t", "to": "earliest", "force": true });
    assert_eq!(server.call("POST /groups/g/reset", reset).await.status, StatusCode::OK);
    let told = events.next().await.unwrap();
    assert_eq!((told.kind.as_str(), &told.data["lost"]), ("assignment", &json!([])));
    assert_eq!(events.record().await.1, json!(2));
}

#[tokio::test]
async fn a_member_that_comes_to_a_gap_is_told_and_goes_on_behind_it_after_a_reset() {
    let server = Server::start().await;
    server.topic(1).await;
    server.fill(0, 6).await;
    let server = server.with_gap(2..4).await;
    let joined = server.join_t().await;
    let path = format!("/groups/g/members/{}/subscribe", joined["member"].as_str().unwrap());
    let mut events = server.open(&path, &[]).await.ok().unwrap();
    let told = events.next().await.unwrap();
    assert_eq!((told.kind.as_str(), &told.data["lost"]), ("assignment", &json!([])));
    assert_eq!((events.record().await.1, events.record().await.1), (json!(0), json!(1)));
    let told = events.next().await.unwrap();
    assert_eq!(told.kind, "assignment");
    let lost = &told.data["lost"][0];
    assert_eq!((&lost["earliest"], &lost["records"]), (&json!(4), &json!(2)));
    let reset = json!({ "topic": "t", "offset": lost["earliest"], "force": true });
    assert_eq!(server.call("POST /groups/g/reset", reset).await.status, StatusCode::OK);
    let told = events.next().await.unwrap();
    assert_eq!((told.kind.as_str(), &told.data["lost"]), ("assignment", &json!([])));
    assert_eq!((events.record().await.1, events.record().await.1), (json!(4), json!(5)));
}
