//! Groups with members: who owns what, and what a commit may say.

use super::*;

impl Server {
    /// Joins group `g` and returns the answer.
    pub(super) async fn join(&self, body: Value) -> Value {
        let answer = self.call("POST /groups/g/members", body).await;
        assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.text);
        answer.json()
    }

    pub(super) async fn join_t(&self) -> Value {
        self.join(json!({ "subscriptions": ["t"] })).await
    }

    pub(super) async fn heartbeat(&self, member: &Value) -> Value {
        let path = format!("POST /groups/g/members/{}/heartbeat", text(&member["member"]));
        let answer = self.call(&path, Value::Null).await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
        answer.json()
    }

    pub(super) async fn records(&self, member: &Value) -> Value {
        self.get(&format!("/groups/g/members/{}/records", text(&member["member"]))).await.json()
    }

    pub(super) async fn commit(&self, member: &Value, partitions: &Value) -> Answer {
        let path = format!("POST /groups/g/members/{}/offsets", text(&member["member"]));
        self.call(&path, json!({ "partitions": partitions })).await
    }
}

pub(super) fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

/// Topic and partition of what is owned and not to be given up.
pub(super) fn owned(member: &Value) -> Vec<(String, u64)> {
    let assignment = member["assignment"].as_array().unwrap();
    assignment
        .iter()
        .filter(|assigned| assigned["revoking"].is_null())
        .map(|assigned| {
            (text(&assigned["topic"]).to_owned(), assigned["partition"].as_u64().unwrap())
        })
        .collect()
}

#[tokio::test]
async fn members_share_the_partitions_and_read_only_their_own() {
    let server = Server::start().await;
    server.topic(4).await;
    for partition in 0..4 {
        server.fill(partition, 3).await;
    }
    let first = server.join_t().await;
    assert_eq!(owned(&first).len(), 4);
    let second = server.join_t().await;
    let first = server.heartbeat(&first).await;
    let (a, b) = (owned(&first), owned(&second));
    assert_eq!((a.len(), b.len()), (2, 2));
    assert!(a.iter().all(|place| !b.contains(place)));
    for member in [&first, &second] {
        let read = server.records(member).await;
        assert_eq!(read["records"].as_array().unwrap().len(), 6);
        assert_eq!(server.commit(member, &read["next"]).await.status, StatusCode::NO_CONTENT);
        assert_eq!(server.records(member).await["records"], json!([]));
    }
}

#[tokio::test]
async fn a_partition_moves_once_what_was_handed_out_is_committed() {
    let server = Server::start().await;
    server.topic(2).await;
    server.fill(0, 2).await;
    server.fill(1, 2).await;
    let first = server.join_t().await;
    let read = server.records(&first).await;
    let second = server.join_t().await;
    assert_eq!(owned(&second), []);
    let first = server.heartbeat(&first).await;
    assert_eq!((owned(&first).len(), first["assignment"].as_array().unwrap().len()), (1, 2));
    // The commit of both is taken, also of the one that is to be given up.
    assert_eq!(server.commit(&first, &read["next"]).await.status, StatusCode::NO_CONTENT);
    assert_eq!(owned(&server.heartbeat(&second).await).len(), 1);
    let again = server.commit(&first, &read["next"]).await;
    assert_eq!(again.error(), (409, "stale-generation".to_owned()));
    let current = &again.json()["error"]["current"];
    assert_eq!(current.as_array().unwrap().len(), 1);
    assert_eq!((&current[0]["owned"], &current[0]["next_offset"]), (&json!(false), &json!(2)));
}

#[tokio::test]
async fn a_partition_moves_when_its_owner_says_so_or_asks_for_more() {
    let server = Server::start().await;
    server.topic(2).await;
    server.fill(0, 2).await;
    server.fill(1, 2).await;
    let first = server.join_t().await;
    server.records(&first).await;
    let second = server.join_t().await;
    let told = server.heartbeat(&first).await;
    let assigned = told["assignment"].as_array().unwrap();
    let revoking = assigned.iter().find(|assigned| assigned["revoking"] == json!(true)).unwrap();
    let release = json!({ "release": [{
        "topic": "t", "partition": revoking["partition"], "generation": revoking["generation"],
    }] });
    let path = format!("POST /groups/g/members/{}/heartbeat", text(&first["member"]));
    server.call(&path, release).await;
    assert_eq!(owned(&server.heartbeat(&second).await).len(), 1);
    // And back: the second holds records when the first is alone again and a third comes.
    server.records(&second).await;
    let third = server.join(json!({ "subscriptions": ["t"], "instance_id": "i" })).await;
    assert_eq!(owned(&third), []);
}

#[tokio::test]
async fn a_silent_member_loses_its_partitions_and_its_commits_are_refused() {
    let server = Server::start().await;
    server.topic(1).await;
    server.fill(0, 2).await;
    let silent = server.join(json!({ "subscriptions": ["t"], "session_timeout_ms": 500 })).await;
    let read = server.records(&silent).await;
    let other = server.join_t().await;
    assert_eq!(owned(&other), []);
    tokio::time::pause();
    tokio::time::advance(Duration::from_millis(501)).await;
    tokio::time::resume();
    assert_eq!(owned(&server.heartbeat(&other).await).len(), 1);
    let late = server.commit(&silent, &read["next"]).await;
    assert_eq!(late.error(), (409, "unknown-member".to_owned()));
    assert_eq!(late.json()["error"]["members"], json!([other["member"]]));
    assert_eq!(server.records(&other).await["records"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn an_instance_that_comes_back_has_its_partitions_and_fences_its_former_self() {
    let server = Server::start().await;
    server.topic(4).await;
    server.fill(0, 1).await;
    let other = server.join_t().await;
    let body = json!({ "subscriptions": ["t"], "instance_id": "one" });
    let before = server.join(body.clone()).await;
    let mine = owned(&before);
    let theirs = owned(&server.heartbeat(&other).await);
    let after = server.join(body).await;
    assert_eq!(owned(&after), mine);
    assert_eq!(owned(&server.heartbeat(&other).await), theirs);
    let path = format!("POST /groups/g/members/{}/heartbeat", text(&before["member"]));
    let former = server.call(&path, Value::Null).await;
    assert_eq!(former.error(), (409, "unknown-member".to_owned()));
}

#[tokio::test]
async fn leaving_hands_over_at_once() {
    let server = Server::start().await;
    server.topic(2).await;
    let first = server.join_t().await;
    let second = server.join_t().await;
    server.records(&first).await;
    let path = format!("DELETE /groups/g/members/{}", text(&first["member"]));
    assert_eq!(server.call(&path, Value::Null).await.status, StatusCode::NO_CONTENT);
    assert_eq!(owned(&server.heartbeat(&second).await).len(), 2);
    assert_eq!(server.call(&path, Value::Null).await.error(), (409, "unknown-member".to_owned()));
}

#[tokio::test]
async fn a_waiting_member_gets_what_others_leave_and_what_is_new() {
    let server = Server::start().await;
    server.topic(1).await;
    server.fill(0, 1).await;
    let first = server.join_t().await;
    server.records(&first).await;
    let second = server.join_t().await;
    let path = format!("/groups/g/members/{}/records?wait_ms=60000", text(&second["member"]));
    let leave = format!("DELETE /groups/g/members/{}", text(&first["member"]));
    let (read, left) = tokio::join!(server.get(&path), server.call(&leave, Value::Null));
    assert_eq!(left.status, StatusCode::NO_CONTENT);
    assert_eq!(read.json()["records"].as_array().unwrap().len(), 1, "{}", read.text);
    server.commit(&second, &read.json()["next"]).await;
    let (read, ()) = tokio::join!(server.get(&path), server.fill(0, 1));
    assert_eq!(read.json()["records"][0]["offset"], json!(1));
}

#[tokio::test]
async fn topics_made_later_and_added_partitions_join_by_themselves() {
    let server = Server::start().await;
    let member = server.join(json!({ "subscriptions": ["order.**"] })).await;
    assert_eq!(owned(&member), []);
    server.call("POST /topics", json!({ "name": "order.placed", "partitions": 1 })).await;
    assert_eq!(owned(&server.heartbeat(&member).await), [("order.placed".to_owned(), 0)]);
    let more = json!({ "partitions": 2, "accept_key_moves": true });
    server.call("PATCH /topics/order.placed", more).await;
    assert_eq!(owned(&server.heartbeat(&member).await).len(), 2);
    server.call("DELETE /topics/order.placed", Value::Null).await;
    assert_eq!(owned(&server.heartbeat(&member).await), []);
    let partitions = json!([
        { "topic": "order.placed", "partition": 0, "generation": 1, "next_offset": 0 }
    ]);
    let gone = server.commit(&member, &partitions).await;
    assert_eq!(gone.error(), (404, "topic-not-found".to_owned()));
}

#[tokio::test]
async fn a_topic_made_again_starts_without_old_commits() {
    let server = Server::start().await;
    server.topic(1).await;
    server.fill(0, 3).await;
    let member = server.join_t().await;
    let next = server.records(&member).await["next"].clone();
    server.commit(&member, &next).await;
    server.call("DELETE /topics/t", Value::Null).await;
    server.topic(1).await;
    server.fill(0, 1).await;
    assert_eq!(server.records(&member).await["records"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_commit_of_several_is_refused_whole() {
    let server = Server::start().await;
    server.topic(2).await;
    server.fill(0, 2).await;
    let first = server.join_t().await;
    let place = |partition: u64, generation: u64, next_offset: u64| {
        json!({ "topic": "t", "partition": partition, "generation": generation,
            "next_offset": next_offset })
    };
    let cases = [
        (json!([place(0, 1, 1), place(1, 9, 0)]), (409, "stale-generation")),
        (json!([place(0, 1, 1), place(1, 1, 5)]), (400, "invalid-offset")),
        (json!([place(0, 1, 1), place(2, 1, 0)]), (400, "invalid-partition")),
        (json!([place(0, 1, 1), place(0, 1, 1)]), (400, "invalid-partitions")),
        (json!([{ "topic": "t" }]), (400, "invalid-partition")),
        (json!("all"), (400, "invalid-partitions")),
    ];
    for (partitions, (status, code)) in cases {
        let answer = server.commit(&first, &partitions).await;
        assert_eq!(answer.error(), (status, code.to_owned()), "{partitions}");
    }
    let second = server.join_t().await;
    let foreign = json!([place(0, 1, 1)]);
    let answer = server.commit(&second, &foreign).await;
    assert_eq!(answer.error(), (409, "partition-not-owned".to_owned()), "{}", answer.text);
    let offsets = server.get("/topics/t/offsets?group=g").await.json();
    assert!(offsets["offsets"].as_array().unwrap().iter().all(|row| row["offset"] == json!(0)));
    assert_eq!(server.commit(&first, &json!([place(0, 1, 1)])).await.status, 204);
    let back = server.commit(&first, &json!([place(0, 1, 0)])).await;
    assert_eq!(back.error(), (409, "offset-backwards".to_owned()));
}

#[tokio::test]
async fn without_a_member_nothing_is_committed_while_there_are_some() {
    let server = Server::start().await;
    server.topic(1).await;
    server.fill(0, 2).await;
    let commit = json!({ "group": "g", "partition": 0, "offset": 1 });
    assert_eq!(server.call("POST /topics/t/offsets", commit.clone()).await.status, 204);
    let member = server.join_t().await;
    let refused = server.call("POST /topics/t/offsets", commit).await;
    assert_eq!(refused.error(), (409, "group-has-members".to_owned()));
    let id = text(&member["member"]);
    let read = server.get(&format!("/topics/t/consume?group=g&member={id}")).await.json();
    assert_eq!(read["records"].as_array().unwrap().len(), 1);
    assert_eq!(read["generations"], json!({ "0": 1 }));
    let as_member =
        json!({ "group": "g", "partition": 0, "offset": 2, "member": id, "generation": 1 });
    assert_eq!(server.call("POST /topics/t/offsets", as_member).await.status, 204);
    let other = server.join_t().await;
    let path = format!("/topics/t/consume?group=g&partition=0&member={}", text(&other["member"]));
    assert_eq!(server.get(&path).await.error(), (409, "partition-not-owned".to_owned()));
    let unknown = server.get("/topics/t/consume?group=g&member=m_none").await;
    assert_eq!(unknown.error(), (409, "unknown-member".to_owned()));
}

#[tokio::test]
async fn what_was_trimmed_unread_is_told_and_needs_a_reset() {
    let server = Server::start().await;
    server.topic(2).await;
    server.fill(0, 5).await;
    server.fill(1, 1).await;
    let member = server.join_t().await;
    server.call("DELETE /topics/t/partitions/0/records?before=3", Value::Null).await;
    let read = server.records(&member).await;
    let lost = json!([
        { "topic": "t", "partition": 0, "committed": 0, "earliest": 3, "records": 3 }
    ]);
    assert_eq!(read["lost"], lost);
    assert_eq!(read["records"].as_array().unwrap().len(), 1);
    let told = server.get("/groups/g").await.json();
    assert_eq!(told["partitions"][0]["lost"], json!(3));
    assert_eq!(told["partitions"][0]["why"]["code"], json!("lost"));
    let reset = json!({ "topic": "t", "partition": 0, "to": "earliest" });
    let refused = server.call("POST /groups/g/reset", reset).await;
    assert_eq!(refused.error(), (409, "group-has-members".to_owned()));
    let reset = json!({ "topic": "t", "partition": 0, "to": "earliest", "force": true });
    let done = server.call("POST /groups/g/reset", reset).await;
    assert_eq!(done.json()["partitions"], json!([{ "partition": 0, "next_offset": 3 }]));
    let again = server.records(&member).await;
    assert_eq!((again["records"].as_array().unwrap().len(), &again["lost"]), (3, &json!([])));
}

#[tokio::test]
async fn a_reset_goes_to_an_offset_a_time_or_an_end_and_fences_who_holds_records() {
    let server = Server::start().await;
    server.topic(1).await;
    server.fill(0, 2).await;
    server.clock.advance(Duration::from_secs(1));
    server.fill(0, 2).await;
    let cases = [
        (json!({ "offset": 1 }), 1),
        (json!({ "timestamp": "2026-01-02T03:04:06Z" }), 2),
        (json!({ "timestamp": "2027-01-01T00:00:00Z" }), 4),
        (json!({ "to": "latest" }), 4),
        (json!({ "to": "earliest" }), 0),
    ];
    for (to, expected) in cases {
        let mut body = to.clone();
        body["topic"] = json!("t");
        let answer = server.call("POST /groups/g/reset", body).await.json();
        assert_eq!(answer["partitions"][0]["next_offset"], json!(expected), "{to}");
    }
    let bad = [
        (json!({ "topic": "t" }), (400, "invalid-to")),
        (json!({ "topic": "t", "to": "now" }), (400, "invalid-to")),
        (json!({ "topic": "t", "to": "latest", "offset": 1 }), (400, "invalid-to")),
        (json!({ "topic": "t", "offset": 5 }), (416, "offset-beyond-end")),
        (json!({ "topic": "u", "offset": 0 }), (404, "topic-not-found")),
        (json!({ "topic": "t", "offset": 0, "partition": 1 }), (400, "invalid-partition")),
    ];
    for (body, (status, code)) in bad {
        let answer = server.call("POST /groups/g/reset", body.clone()).await;
        assert_eq!(answer.error(), (status, code.to_owned()), "{body}");
    }
    let member = server.join_t().await;
    let next = server.records(&member).await["next"].clone();
    let body = json!({ "topic": "t", "offset": 2, "force": true });
    server.call("POST /groups/g/reset", body).await;
    let late = server.commit(&member, &next).await;
    assert_eq!(late.error(), (409, "stale-generation".to_owned()));
    assert_eq!(server.records(&member).await["records"].as_array().unwrap().len(), 2);
    server.call("DELETE /topics/t/partitions/0/records?before=1", Value::Null).await;
    let body = json!({ "topic": "t", "offset": 0, "force": true });
    let gone = server.call("POST /groups/g/reset", body).await;
    assert_eq!(gone.error(), (410, "offset-trimmed".to_owned()));
    assert_eq!(gone.json()["error"]["earliest"], json!(1));
}

#[tokio::test]
async fn a_group_says_how_it_stands_and_why_nothing_moves() {
    let server = Server::start().await;
    server.topic(1).await;
    server.fill(0, 2).await;
    assert_eq!(server.get("/groups/g").await.error(), (404, "group-not-found".to_owned()));
    let commit = json!({ "group": "g", "partition": 0, "offset": 1 });
    server.call("POST /topics/t/offsets", commit.clone()).await;
    server.clock.advance(Duration::from_secs(3));
    let why = async || {
        let told = server.get("/groups/g").await.json();
        let partition = &told["partitions"][0];
        assert_eq!((&told["lag"], &partition["lag"]), (&json!(1), &json!(1)));
        assert_eq!(partition["lag_seconds"], json!(3.0));
        text(&partition["why"]["code"]).to_owned()
    };
    assert_eq!(why().await, "no-members");
    let elsewhere = server.join(json!({ "subscriptions": ["u"] })).await;
    assert_eq!(why().await, "not-subscribed");
    let member = server.join_t().await;
    assert_eq!(why().await, "not-asked");
    let read = server.records(&member).await;
    assert_eq!(why().await, "uncommitted");
    server.join_t().await;
    server.commit(&member, &read["next"]).await;
    let told = server.get("/groups/g").await.json();
    assert!(told["partitions"][0]["why"].is_null());
    assert_eq!(told["members"].as_array().unwrap().len(), 3);
    let listed = server.get("/groups").await.json();
    assert_eq!(listed["groups"], json!([{ "group": "g", "members": 3 }]));
    server
        .call("POST /topics/t/offsets", json!({ "group": "g-1", "partition": 0, "offset": 1 }))
        .await;
    let listed = server.get("/groups?limit=1").await.json();
    assert_eq!((listed["groups"].as_array().unwrap().len(), &listed["next"]), (1, &json!("g")));
    assert_eq!(
        server.call("DELETE /groups/g", Value::Null).await.error(),
        (409, "group-has-members".to_owned())
    );
    assert_eq!(server.call("DELETE /groups/g?force=true", Value::Null).await.status, 204);
    assert_eq!(server.get("/groups/g").await.error(), (404, "group-not-found".to_owned()));
    let path = format!("POST /groups/g/members/{}/heartbeat", text(&elsewhere["member"]));
    let former = server.call(&path, Value::Null).await;
    assert_eq!(former.error(), (409, "unknown-member".to_owned()));
    let commit = server.call("POST /topics/t/offsets", commit).await;
    assert_eq!(commit.status, 204);
}

#[tokio::test]
async fn a_join_that_cannot_be_meant_is_refused() {
    let server = Server::start().await;
    let cases = [
        (json!({}), "invalid-subscriptions"),
        (json!({ "subscriptions": [] }), "invalid-subscriptions"),
        (json!({ "subscriptions": vec!["t"; 101] }), "invalid-subscriptions"),
        (json!({ "subscriptions": ["a.b*"] }), "invalid-pattern"),
        (
            json!({ "subscriptions": ["t"], "session_timeout_ms": 499 }),
            "invalid-session-timeout-ms",
        ),
        (
            json!({ "subscriptions": ["t"], "session_timeout_ms": 600_001 }),
            "invalid-session-timeout-ms",
        ),
        (json!({ "subscriptions": ["t"], "instance_id": "" }), "invalid-instance-id"),
        (json!({ "subscriptions": ["t"], "more": 1 }), "invalid-body"),
    ];
    for (body, code) in cases {
        let answer = server.call("POST /groups/g/members", body.clone()).await;
        assert_eq!(answer.error(), (400, code.to_owned()), "{body}");
    }
    let answer = server.call("POST /groups/g/members", json!({ "subscriptions": ["a.b*"] })).await;
    assert_eq!(answer.json()["error"]["byte"], json!(2));
}

#[tokio::test]
async fn a_transaction_stores_events_and_offsets_or_neither() {
    let server = Server::start().await;
    server.topic(1).await;
    server.call("POST /topics", json!({ "name": "out", "partitions": 1 })).await;
    server.fill(0, 2).await;
    let member = server.join_t().await;
    let read = server.records(&member).await;
    let body = json!({
        "publish": [{ "topic": "out", "events": [{ "key": "k", "value": 1 }, { "value": 2 }] }],
        "offsets": { "group": "g", "member": member["member"], "partitions": read["next"] },
    });
    let keyed = [("content-type", "application/json"), ("idempotency-key", "\"one\"")];
    let done = server.call_with("POST /transactions", &keyed, body.to_string()).await;
    assert_eq!((done.status, &done.json()["count"]), (StatusCode::OK, &json!(2)), "{}", done.text);
    // A repeat is answered as the first, whoever owns the partition by now.
    let path = format!("DELETE /groups/g/members/{}", text(&member["member"]));
    server.call(&path, Value::Null).await;
    let again = server.call_with("POST /transactions", &keyed, body.to_string()).await;
    assert_eq!(again.json()["duplicate"], json!(true), "{}", again.text);
    assert_eq!(again.json()["topics"], done.json()["topics"]);
    let stale = server.call("POST /transactions", body.clone()).await;
    assert_eq!(stale.error(), (409, "unknown-member".to_owned()));
    let out = server.get("/topics/out/partitions/0/records?offset=0").await;
    assert_eq!(places(&out).len(), 2);
    let offsets = server.get("/topics/t/offsets?group=g").await.json();
    assert_eq!(offsets["offsets"][0]["offset"], json!(2));
}

#[tokio::test]
async fn a_transaction_is_refused_with_what_a_publish_or_a_commit_is_refused_with() {
    let server = Server::start().await;
    server.topic(1).await;
    server.fill(0, 1).await;
    let schema = json!({ "type": "object" });
    server.call("POST /topics", json!({ "name": "strict", "partitions": 1 })).await;
    let put = server.call("PUT /topics/strict/schema", schema).await;
    assert!(put.status.is_success(), "{}", put.text);
    let member = server.join_t().await;
    let offsets = |generation: u64| {
        let place =
            json!({ "topic": "t", "partition": 0, "generation": generation, "next_offset": 1 });
        json!({ "group": "g", "member": member["member"], "partitions": [place] })
    };
    let to =
        |topic: &str, value: Value| json!([{ "topic": topic, "events": [{ "value": value }] }]);
    let cases = [
        (json!({}), (400, "invalid-publish")),
        (json!({ "publish": [{ "topic": "t" }] }), (400, "invalid-publish")),
        (json!({ "publish": [{ "topic": "t", "events": [] }] }), (400, "empty-batch")),
        (json!({ "publish": to("t!", json!(1)) }), (400, "invalid-topic")),
        (json!({ "publish": to("_own", json!(1)) }), (400, "invalid-topic")),
        (
            json!({ "publish": to("none", json!(1)), "offsets": offsets(1) }),
            (404, "topic-not-found"),
        ),
        (
            json!({ "publish": to("strict", json!(1)), "offsets": offsets(1) }),
            (400, "events-rejected"),
        ),
        (json!({ "publish": to("t", json!(1)), "offsets": offsets(2) }), (409, "stale-generation")),
    ];
    for (body, (status, code)) in cases {
        let answer = server.call("POST /transactions", body.clone()).await;
        assert_eq!(answer.error(), (status, code.to_owned()), "{body}: {}", answer.text);
    }
    let offsets_now = server.get("/topics/t/offsets?group=g").await.json();
    assert_eq!(offsets_now["offsets"][0]["offset"], json!(0));
    let publisher = server.key(&["publish"]).await;
    let body = json!({ "offsets": offsets(1) });
    let scoped = server.call_as(&publisher, "POST /transactions", body.clone()).await;
    assert_eq!(scoped.error(), (403, "missing-scope".to_owned()));
    // Offsets alone are a transaction too.
    let alone = server.call("POST /transactions", body).await;
    assert_eq!((alone.status, &alone.json()["count"]), (StatusCode::OK, &json!(0)));
}
