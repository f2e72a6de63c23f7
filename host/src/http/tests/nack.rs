//! Records that a member could not process: held, read again, and given up.

use super::groups::{owned, text};
use super::*;

impl Server {
    async fn nack(&self, member: &Value, body: Value) -> Answer {
        self.call(&format!("POST /groups/g/members/{}/nack", text(&member["member"])), body).await
    }

    /// Nacks a record of partition 0 of `t`, in the generation in which the member owns it.
    async fn nack_at(&self, member: &Value, offset: u64, more: Value) -> Value {
        let mut body = at(offset, Value::Null);
        body["generation"] = self.heartbeat(member).await["assignment"][0]["generation"].clone();
        if let Value::Object(more) = more {
            body.as_object_mut().unwrap().extend(more);
        }
        let answer = self.nack(member, body).await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
        answer.json()
    }

    /// Offset and attempt of what a member reads of partition 0.
    async fn attempts(&self, member: &Value) -> Vec<(u64, Option<u64>)> {
        let read = self.records(member).await;
        let records = read["records"].as_array().unwrap().iter();
        let of_first = records.filter(|record| record["partition"] == json!(0));
        of_first
            .map(|record| (record["offset"].as_u64().unwrap(), record["attempt"].as_u64()))
            .collect()
    }

    /// How group `g` stands in partition 0.
    async fn standing(&self) -> Value {
        self.get("/groups/g").await.json()["partitions"][0].clone()
    }

    async fn dead_letters(&self) -> Vec<Value> {
        let topic = self.get("/topics/_dead-letter/partitions/0/records?offset=0").await;
        if topic.status == StatusCode::NOT_FOUND {
            return Vec::new();
        }
        let records = topic.json()["records"].as_array().unwrap().clone();
        records.into_iter().map(|record| record["value"].clone()).collect()
    }
}

/// A nack of a record of partition 0 of `t`, in its first generation, with further fields.
fn at(offset: u64, more: Value) -> Value {
    let mut body = json!({ "topic": "t", "partition": 0, "generation": 1, "offset": offset });
    if let Value::Object(more) = more {
        body.as_object_mut().unwrap().extend(more);
    }
    body
}

#[tokio::test]
async fn a_record_is_read_again_when_its_delay_is_over_and_others_go_on() {
    let server = Server::start().await;
    server.topic(2).await;
    server.fill(0, 3).await;
    server.fill(1, 1).await;
    let member = server.join_t().await;
    assert_eq!(server.attempts(&member).await, [(0, None), (1, None), (2, None)]);
    let more = json!({ "delay_ms": 5_000, "reason": "no database" });
    let nacked = server.nack_at(&member, 1, more).await;
    let expected = json!({
        "topic": "t", "partition": 0, "offset": 1, "attempts": 1, "attempts_max": 5,
        "dead_lettered": false, "next_offset": 1, "held_until": "2026-01-02T03:04:10.678Z",
    });
    assert_eq!(nacked, expected);
    let read = server.records(&member).await;
    assert_eq!(read["records"].as_array().unwrap().len(), 1, "{read}");
    assert_eq!(read["records"][0]["partition"], json!(1));
    assert_eq!(read["assignment"][0]["held_until"], nacked["held_until"]);
    let standing = server.standing().await;
    assert_eq!((&standing["committed"], &standing["why"]["code"]), (&json!(1), &json!("held")));
    let message = "the record at offset 1 has failed 1 of 5 times and is read again at \
                   2026-01-02T03:04:10.678Z: no database";
    assert_eq!(standing["why"]["message"], message);
    let failed = json!({
        "offset": 1, "attempts": 1, "dead_lettered": false, "reason": "no database",
        "held_until": "2026-01-02T03:04:10.678Z",
    });
    assert_eq!(standing["failed"], failed);
    server.clock.advance(Duration::from_millis(4_999));
    assert_eq!(server.attempts(&member).await, []);
    server.clock.advance(Duration::from_millis(1));
    assert_eq!(server.attempts(&member).await, [(1, Some(2)), (2, None)]);
    let consumed = format!("/topics/t/consume?group=g&member={}", text(&member["member"]));
    let consumed = server.get(&consumed).await.json();
    let first = consumed["records"].as_array().unwrap().iter().find(|r| r["partition"] == 0);
    assert_eq!(first.unwrap()["attempt"], json!(2));
    // It is processed: what failed is forgotten.
    let next = json!([{ "topic": "t", "partition": 0, "generation": 2, "next_offset": 2 }]);
    assert_eq!(server.commit(&member, &next).await.status, StatusCode::NO_CONTENT);
    assert_eq!(server.attempts(&member).await, [(2, None)]);
    assert_eq!(server.standing().await["failed"], Value::Null);
}

#[tokio::test]
async fn without_a_delay_it_grows() {
    let server = Server::start().await;
    server.topic(1).await;
    server.fill(0, 1).await;
    let member = server.join_t().await;
    for seconds in [1, 2, 4, 8] {
        assert_eq!(server.attempts(&member).await.len(), 1);
        server.nack_at(&member, 0, Value::Null).await;
        // Up to a fifth shorter or longer.
        server.clock.advance(Duration::from_millis(seconds * 800 - 1));
        assert_eq!(server.attempts(&member).await, []);
        server.clock.advance(Duration::from_millis(seconds * 400 + 1));
    }
}

#[tokio::test]
async fn at_the_limit_the_record_is_a_dead_letter_and_the_partition_moves_on() {
    let server = Server::start().await;
    server.topic(1).await;
    let lines = "{\"value\":{ \"a\":1 },\"key\":\"k\",\"id\":\"i\",\"headers\":{\"h\":\"1\"}}\n\
                 {\"value\":2}\n";
    server.events(lines, &[]).await;
    let put = server.call("PUT /groups/g", json!({ "attempts_max": 2 })).await;
    assert_eq!(put.json(), json!({ "group": "g", "attempts_max": 2 }));
    let member = server.join_t().await;
    server.records(&member).await;
    server.nack_at(&member, 0, json!({ "delay_ms": 0 })).await;
    assert_eq!(server.attempts(&member).await, [(0, Some(2)), (1, None)]);
    let more = json!({ "delay_ms": 60_000, "reason": "no", "generation": 2 });
    let nacked = server.nack_at(&member, 0, more.clone()).await;
    assert_eq!((&nacked["dead_lettered"], &nacked["next_offset"]), (&json!(true), &json!(1)));
    assert_eq!(nacked["held_until"], Value::Null);
    // Made again, since its answer was lost: nothing more happens.
    assert_eq!(server.nack_at(&member, 0, more).await, nacked);
    assert_eq!(server.attempts(&member).await, [(1, None)]);
    let expected = json!({
        "kind": "group", "group": "g", "topic": "t", "partition": 0, "offset": 0,
        "plugin": null, "route": null, "cause": "nack", "reason": "no", "attempt": 2,
        "event": { "id": "i", "key": "k", "time": null, "content_type": null,
            "headers": { "h": "1" }, "value": { "a": 1 } },
    });
    assert_eq!(server.dead_letters().await, [expected]);
    let stats = server.get("/topics/_dead-letter/stats").await.json();
    assert!(stats["events_per_second"].as_f64().unwrap() > 0.0, "{stats}");
    let told = server.get("/groups/g").await.json();
    assert_eq!(told["attempts_max"], json!(2));
    assert_eq!(told["partitions"][0]["failed"]["dead_lettered"], json!(true));
}

#[tokio::test]
async fn records_given_up_in_a_row_slow_the_partition_down() {
    let server = Server::start().await;
    server.topic(1).await;
    server.fill(0, 3).await;
    server.call("PUT /groups/g", json!({ "attempts_max": 1 })).await;
    let member = server.join_t().await;
    server.records(&member).await;
    assert_eq!(server.nack_at(&member, 0, Value::Null).await["held_until"], Value::Null);
    assert_eq!(server.attempts(&member).await, [(1, None), (2, None)]);
    assert!(server.nack_at(&member, 1, Value::Null).await["held_until"].is_string());
    assert_eq!(server.attempts(&member).await, []);
    let standing = server.standing().await;
    assert_eq!(standing["why"]["code"], json!("pausing"));
    let message = text(&standing["why"]["message"]).to_owned();
    assert!(message.starts_with("2 records in a row became dead letters"), "{message}");
    server.clock.advance(Duration::from_millis(1_201));
    assert_eq!(server.attempts(&member).await, [(2, None)]);
    assert_eq!(server.dead_letters().await.len(), 2);
}

#[tokio::test]
async fn a_dead_letter_that_cannot_be_processed_makes_no_further_one() {
    let server = Server::start().await;
    server.topic(1).await;
    server.fill(0, 1).await;
    server.call("PUT /groups/g", json!({ "attempts_max": 1 })).await;
    let member = server.join_t().await;
    server.records(&member).await;
    server.nack_at(&member, 0, Value::Null).await;
    let join = json!({ "subscriptions": ["_dead-letter"] });
    let undertaker = server.join(join).await;
    assert_eq!(server.attempts(&undertaker).await, [(0, None)]);
    let nacked = server.nack_at(&undertaker, 0, json!({ "topic": "_dead-letter" })).await;
    assert_eq!((&nacked["dead_lettered"], &nacked["next_offset"]), (&json!(true), &json!(1)));
    assert_eq!(server.dead_letters().await.len(), 1);
    assert_eq!(server.attempts(&undertaker).await, []);
}

#[tokio::test]
async fn attempts_survive_a_restart_and_a_hand_over() {
    let server = Server::start().await;
    server.topic(1).await;
    server.fill(0, 2).await;
    let member = server.join_t().await;
    server.records(&member).await;
    server.nack_at(&member, 1, json!({ "delay_ms": 1_000 })).await;
    let server = server.restarted().await;
    assert_eq!(server.attempts(&member).await, []);
    server.clock.advance(Duration::from_secs(1));
    assert_eq!(server.attempts(&member).await, [(1, Some(2))]);
    // Who holds records from before a restart may still say so, and say it again.
    let server = server.restarted().await;
    let more = json!({ "delay_ms": 1_000, "generation": 2 });
    assert_eq!(server.nack_at(&member, 1, more.clone()).await["attempts"], json!(2));
    let server = server.restarted().await;
    assert_eq!(server.nack_at(&member, 1, more).await["attempts"], json!(2));
    let leave = format!("DELETE /groups/g/members/{}", text(&member["member"]));
    server.call(&leave, Value::Null).await;
    let heir = server.join_t().await;
    assert_eq!(server.attempts(&heir).await, []);
    server.clock.advance(Duration::from_secs(1));
    assert_eq!(server.attempts(&heir).await, [(1, Some(3))]);
}

#[tokio::test]
async fn a_partition_that_is_to_be_given_up_moves_with_the_nack() {
    let server = Server::start().await;
    server.topic(2).await;
    server.fill(0, 2).await;
    server.fill(1, 2).await;
    let first = server.join_t().await;
    server.records(&first).await;
    let second = server.join_t().await;
    assert_eq!(owned(&second), []);
    let told = server.heartbeat(&first).await;
    let assigned = told["assignment"].as_array().unwrap();
    let revoking = assigned.iter().find(|assigned| assigned["revoking"] == json!(true)).unwrap();
    let more = json!({ "partition": revoking["partition"], "generation": 1 });
    server.nack_at(&first, 1, more.clone()).await;
    let second = server.heartbeat(&second).await;
    assert_eq!(second["assignment"][0]["partition"], revoking["partition"]);
    assert!(second["assignment"][0]["held_until"].is_string(), "{second}");
    // Its former owner is fenced.
    assert_eq!(server.nack(&first, at(1, more.clone())).await.status, StatusCode::OK);
    let late = server.nack(&first, at(0, more)).await;
    assert_eq!(late.error(), (409, "stale-generation".to_owned()));
    assert_eq!(late.json()["error"]["current"][0]["next_offset"], json!(1));
}

#[tokio::test]
async fn a_nack_that_cannot_be_meant_is_refused_and_changes_nothing() {
    let server = Server::start().await;
    server.topic(2).await;
    server.fill(0, 4).await;
    let member = server.join_t().await;
    let path = format!("/groups/g/members/{}/records?limit=2", text(&member["member"]));
    server.get(&path).await;
    let next = json!([{ "topic": "t", "partition": 0, "generation": 1, "next_offset": 1 }]);
    assert_eq!(server.commit(&member, &next).await.status, StatusCode::NO_CONTENT);
    let reason = "x".repeat(4_097);
    let cases = [
        (at(0, Value::Null), (409, "offset-backwards")),
        (at(2, Value::Null), (400, "invalid-offset")),
        (at(4, Value::Null), (416, "offset-beyond-end")),
        (at(1, json!({ "delay_ms": 3_600_001 })), (400, "invalid-delay-ms")),
        (at(1, json!({ "delay_ms": -1 })), (400, "invalid-delay-ms")),
        (at(1, json!({ "reason": reason })), (400, "invalid-reason")),
        (at(1, json!({ "reason": 1 })), (400, "invalid-reason")),
        (at(1, json!({ "generation": 2 })), (409, "stale-generation")),
        (at(1, json!({ "generation": 0 })), (409, "stale-generation")),
        (at(1, json!({ "partition": 2 })), (400, "invalid-partition")),
        (at(1, json!({ "topic": "none" })), (404, "topic-not-found")),
        (at(1, json!({ "more": 1 })), (400, "invalid-body")),
        (json!({ "topic": "t", "partition": 0, "generation": 1 }), (400, "invalid-offset")),
    ];
    for (body, (status, code)) in cases {
        let answer = server.nack(&member, body.clone()).await;
        assert_eq!(answer.error(), (status, code.to_owned()), "{body}: {}", answer.text);
    }
    let unknown = server.nack(&json!({ "member": "m_none" }), at(1, Value::Null)).await;
    assert_eq!(unknown.error(), (409, "unknown-member".to_owned()));
    let other = server.join_t().await;
    let foreign = server.nack(&other, at(1, Value::Null)).await;
    assert_eq!(foreign.error(), (409, "partition-not-owned".to_owned()));
    let standing = server.standing().await;
    assert_eq!((&standing["committed"], &standing["failed"]), (&json!(1), &Value::Null));
    server.call("DELETE /topics/t/partitions/0/records?before=2", Value::Null).await;
    let gone = server.nack(&member, at(1, Value::Null)).await;
    assert_eq!(gone.error(), (410, "offset-trimmed".to_owned()));
    let longest = at(3, json!({ "delay_ms": 3_600_000, "reason": &reason[1..] }));
    server.call(&format!("GET {path}"), Value::Null).await;
    let refused = server.nack(&member, longest).await;
    assert_eq!(refused.error(), (400, "invalid-offset".to_owned()), "it is lost, not handed out");
}

#[tokio::test]
async fn the_longest_delay_and_reason_pass() {
    let server = Server::start().await;
    server.topic(1).await;
    server.fill(0, 1).await;
    let member = server.join_t().await;
    server.records(&member).await;
    let more = json!({ "delay_ms": 3_600_000, "reason": "x".repeat(4_096) });
    let nacked = server.nack_at(&member, 0, more).await;
    assert_eq!(nacked["held_until"], json!("2026-01-02T04:04:05.678Z"));
    // A reset is the way out of a hold, also to where the group is.
    let reset = json!({ "topic": "t", "offset": 0, "force": true });
    server.call("POST /groups/g/reset", reset).await;
    assert_eq!(server.attempts(&member).await, [(0, None)]);
}

#[tokio::test]
async fn what_was_read_behind_it_can_neither_be_committed_nor_nacked() {
    let server = Server::start().await;
    server.topic(1).await;
    server.fill(0, 3).await;
    let member = server.join_t().await;
    let read = server.records(&member).await;
    server.nack_at(&member, 1, json!({ "delay_ms": 0 })).await;
    // Else the record would be skipped.
    let late = server.commit(&member, &read["next"]).await;
    assert_eq!(late.error(), (409, "stale-generation".to_owned()));
    let late = server.nack(&member, at(2, Value::Null)).await;
    assert_eq!(late.error(), (409, "stale-generation".to_owned()));
    let late = server.nack(&member, at(2, json!({ "generation": 2 }))).await;
    assert_eq!(late.error(), (400, "invalid-offset".to_owned()));
    // The same nack again counts once, also when the record was read again meanwhile.
    for _ in 0..2 {
        let again = server.nack_at(&member, 1, json!({ "generation": 1 })).await;
        assert_eq!(again["attempts"], json!(1));
        assert_eq!(server.attempts(&member).await, [(1, Some(2)), (2, None)]);
    }
    let next = server.records(&member).await["next"].clone();
    assert_eq!(server.commit(&member, &next).await.status, StatusCode::NO_CONTENT);
}

#[tokio::test]
async fn a_commit_behind_it_ends_the_hold_and_one_of_the_same_place_does_not() {
    let server = Server::start().await;
    server.topic(1).await;
    server.fill(0, 3).await;
    let member = server.join_t().await;
    server.records(&member).await;
    server.nack_at(&member, 1, Value::Null).await;
    let next = |offset: u64| json!([{ "topic": "t", "partition": 0, "generation": 2, "next_offset": offset }]);
    assert_eq!(server.commit(&member, &next(1)).await.status, StatusCode::NO_CONTENT);
    assert_eq!(server.attempts(&member).await, []);
    assert_eq!(server.commit(&member, &next(2)).await.status, StatusCode::NO_CONTENT);
    assert_eq!(server.attempts(&member).await, [(2, None)]);
}

#[tokio::test]
async fn a_nack_and_a_commit_at_once_leave_one_of_them() {
    let server = Server::start().await;
    server.topic(1).await;
    server.fill(0, 40).await;
    let member = server.join_t().await;
    for offset in 0..20 {
        let next = server.records(&member).await["next"].clone();
        let generation = next[0]["generation"].as_u64().unwrap();
        let commit = json!([{
            "topic": "t", "partition": 0, "generation": generation, "next_offset": offset + 1,
        }]);
        let nack = at(offset, json!({ "generation": generation, "delay_ms": 0 }));
        let (nacked, committed) =
            tokio::join!(server.nack(&member, nack), server.commit(&member, &commit));
        let codes = (nacked.status.as_u16(), committed.status.as_u16());
        assert!([(200, 409), (409, 204)].contains(&codes), "{codes:?}");
        if codes.0 == 200 {
            assert_eq!(server.attempts(&member).await[0], (offset, Some(2)));
            let next = server.records(&member).await["next"].clone();
            let next = json!([{
                "topic": "t", "partition": 0, "generation": next[0]["generation"],
                "next_offset": offset + 1,
            }]);
            assert_eq!(server.commit(&member, &next).await.status, StatusCode::NO_CONTENT);
        }
    }
}

#[tokio::test]
async fn a_waiting_member_is_woken_when_the_delay_is_over() {
    let server = Server::start().await;
    server.topic(1).await;
    server.fill(0, 1).await;
    let member = server.join_t().await;
    server.records(&member).await;
    server.nack_at(&member, 0, json!({ "delay_ms": 50 })).await;
    let path = format!("/groups/g/members/{}/records?wait_ms=60000", text(&member["member"]));
    let later = async {
        tokio::task::yield_now().await;
        server.clock.advance(Duration::from_millis(50));
    };
    let waits = tokio::time::timeout(Duration::from_secs(30), server.get(&path));
    let (read, ()) = tokio::join!(waits, later);
    assert_eq!(read.unwrap().json()["records"][0]["attempt"], json!(2));
}

#[tokio::test]
async fn settings_make_a_group_and_go_with_it() {
    let server = Server::start().await;
    for (body, code) in [
        (json!({ "attempts_max": 0 }), "invalid-attempts-max"),
        (json!({ "attempts_max": 1_001 }), "invalid-attempts-max"),
        (json!({ "more": 1 }), "invalid-body"),
    ] {
        let refused = server.call("PUT /groups/g", body.clone()).await;
        assert_eq!(refused.error(), (400, code.to_owned()), "{body}");
    }
    assert_eq!(server.get("/groups/g").await.error(), (404, "group-not-found".to_owned()));
    for (body, expected) in [(json!({ "attempts_max": 1_000 }), 1_000), (json!({}), 5)] {
        let put = server.call("PUT /groups/g", body).await;
        assert_eq!(put.json()["attempts_max"], json!(expected), "{}", put.text);
        assert_eq!(server.get("/groups/g").await.json()["attempts_max"], json!(expected));
    }
    let listed = server.get("/groups").await.json();
    assert_eq!(listed["groups"], json!([{ "group": "g", "members": 0 }]));
    assert_eq!(server.call("DELETE /groups/g", Value::Null).await.status, StatusCode::NO_CONTENT);
    assert_eq!(server.get("/groups/g").await.error(), (404, "group-not-found".to_owned()));
}
