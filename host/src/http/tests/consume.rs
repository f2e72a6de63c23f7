//! Reading, with and without a group.

use std::collections::BTreeMap;

use super::*;
use crate::consume::{Amount, ConsumeError, Start};
use crate::name::TopicName;
use crate::node::default_project;
use crate::slot::Slot;
use stream_storage::Partition;

#[tokio::test]
async fn a_read_starts_at_an_offset_a_time_or_the_end() {
    let server = Server::start().await;
    server.topic(1).await;
    for _ in 0..3 {
        server.fill(0, 1).await;
        server.clock.advance(Duration::from_secs(1));
    }
    let cases = [
        ("offset=0", vec![0, 1, 2]),
        ("offset=2", vec![2]),
        ("offset=3", vec![]),
        ("tail=2", vec![1, 2]),
        ("tail=9", vec![0, 1, 2]),
        ("tail=0", vec![]),
        ("timestamp=2026-01-02T03:04:06Z", vec![1, 2]),
        ("timestamp=2027-01-01T00:00:00Z", vec![]),
        ("timestamp=1969-12-31T23:59:59Z", vec![0, 1, 2]),
        ("offset=0&limit=2", vec![0, 1]),
        ("offset=1&max_bytes=1", vec![1]),
    ];
    for (query, expected) in cases {
        let answer = server.get(&format!("/topics/t/partitions/0/records?{query}")).await;
        let offsets: Vec<_> = places(&answer).into_iter().map(|(_, offset, _)| offset).collect();
        assert_eq!(offsets, expected, "{query}");
        let next = expected.last().map_or(3, |last| last + 1);
        let json = answer.json();
        assert_eq!(
            (&json["next_offset"], &json["end_offset"]),
            (&json!(next), &json!(3)),
            "{query}"
        );
    }
}

#[tokio::test]
async fn bad_reads_are_refused_by_name() {
    let server = Server::start().await;
    server.topic(1).await;
    server.fill(0, 2).await;
    let cases = [
        ("0/records", (400, "invalid-offset")),
        ("0/records?offset=0&tail=1", (400, "invalid-offset")),
        ("0/records?offset=-1", (400, "invalid-offset")),
        ("0/records?offset=x", (400, "invalid-offset")),
        ("0/records?timestamp=now", (400, "invalid-timestamp")),
        ("0/records?tail=x", (400, "invalid-tail")),
        ("0/records?offset=0&limit=0", (400, "invalid-limit")),
        ("0/records?offset=0&limit=10001", (400, "invalid-limit")),
        ("0/records?offset=0&max_bytes=16777217", (400, "invalid-max-bytes")),
        ("0/records?offset=0&wait_ms=60001", (400, "invalid-wait-ms")),
        ("0/records?offset=0&offset=1", (400, "invalid-offset")),
        ("1/records?offset=0", (400, "invalid-partition")),
        ("x/records?offset=0", (400, "invalid-partition")),
        ("0/records?offset=3", (416, "offset-beyond-end")),
    ];
    for (path, (status, code)) in cases {
        let answer = server.get(&format!("/topics/t/partitions/{path}")).await;
        assert_eq!(answer.error(), (status, code.to_owned()), "{path}");
    }
    let beyond = server.get("/topics/t/partitions/0/records?offset=3").await;
    assert_eq!(beyond.json()["error"]["log_end"], 2);
}

#[tokio::test]
async fn lines_are_given_to_who_asks_for_them() {
    let server = Server::start().await;
    server.topic(1).await;
    server.fill(0, 2).await;
    let headers = [("accept", "text/plain, application/x-ndjson;q=0.9")];
    let call = "GET /topics/t/partitions/0/records?offset=0";
    let answer = server.call_with(call, &headers, "").await;
    assert_eq!(answer.header("content-type"), "application/x-ndjson");
    let next = (answer.header("stream-next-offset"), answer.header("stream-end-offset"));
    assert_eq!(next, ("2", "2"));
    assert_eq!(answer.text.lines().count(), 2);
    for line in answer.text.lines() {
        serde_json::from_str::<Value>(line).unwrap();
    }
}

#[tokio::test]
async fn what_is_trimmed_is_gone_and_said_so() {
    let server = Server::start().await;
    server.topic(1).await;
    for _ in 0..4 {
        server.fill(0, 1).await;
    }
    let trim = "DELETE /topics/t/partitions/0/records";
    let trimmed = server.call(&format!("{trim}?before=2"), Value::Null).await.json();
    assert_eq!(trimmed, json!({ "partition": 0, "start_offset": 2, "end_offset": 4 }));
    let gone = server.get("/topics/t/partitions/0/records?offset=1").await;
    assert_eq!(gone.error(), (410, "offset-trimmed".to_owned()));
    assert_eq!(gone.json()["error"]["earliest"], 2);
    for (query, field) in [("", "before"), ("?before=x", "before"), ("?before=5", "before")] {
        let answer = server.call(&format!("{trim}{query}"), Value::Null).await;
        assert_eq!(answer.error(), (400, format!("invalid-{field}")), "{query}");
    }
}

#[tokio::test]
async fn partitions_tell_what_they_hold() {
    let server = Server::start().await;
    server.topic(2).await;
    server.fill(1, 3).await;
    let told = server.get("/topics/t/partitions").await.json();
    let partitions = told["partitions"].as_array().unwrap();
    let ends: Vec<_> = partitions.iter().map(|one| one["end_offset"].clone()).collect();
    assert_eq!(ends, [0, 3]);
    assert_eq!(partitions[0]["last_timestamp"], Value::Null);
    assert_eq!(partitions[1]["last_timestamp"], "2026-01-02T03:04:05.678Z");
}

#[tokio::test]
async fn a_group_goes_on_where_it_committed() {
    let server = Server::start().await;
    server.topic(1).await;
    server.fill(0, 5).await;
    let first = server.get("/topics/t/consume?group=g&limit=2").await;
    assert_eq!(places(&first).len(), 2);
    assert_eq!(first.json()["next_offset"], 2);
    let again = server.get("/topics/t/consume?group=g&limit=2").await;
    assert_eq!(places(&again), places(&first), "reading does not commit");
    let commit = json!({ "group": "g", "partition": 0, "offset": 2 });
    let committed = server.call("POST /topics/t/offsets", commit).await;
    assert_eq!((committed.status, committed.text.as_str()), (StatusCode::NO_CONTENT, ""));
    let next = server.get("/topics/t/consume?group=g&partition=0").await;
    assert_eq!(places(&next), [(0, 2, json!(2)), (0, 3, json!(3)), (0, 4, json!(4))]);
    let offsets = server.get("/topics/t/offsets?group=g").await.json();
    let expected = json!({ "partition": 0, "offset": 2, "log_end": 5, "lag": 3 });
    assert_eq!(offsets, json!({ "group": "g", "offsets": [expected] }));
}

#[tokio::test]
async fn an_empty_read_names_where_to_go_on() {
    let server = Server::start().await;
    server.topic(2).await;
    let expected = json!({ "records": [], "next_offset": 0, "next_offsets": { "0": 0, "1": 0 } });
    assert_eq!(server.get("/topics/t/consume?group=g").await.json(), expected);
    let one = json!({ "records": [], "next_offset": 0, "next_offsets": { "1": 0 } });
    assert_eq!(server.get("/topics/t/consume?group=g&partition=1").await.json(), one);
}

#[tokio::test]
async fn a_busy_partition_does_not_starve_the_others() {
    let server = Server::start().await;
    server.topic(3).await;
    server.fill(0, 100).await;
    server.fill(1, 2).await;
    server.fill(2, 1).await;
    let answer = server.get("/topics/t/consume?group=g&limit=9").await;
    let mut counts = BTreeMap::new();
    for (partition, offset, value) in places(&answer) {
        let count: &mut u64 = counts.entry(partition).or_default();
        assert_eq!((offset, &value), (*count, &json!(offset)), "in order");
        *count += 1;
    }
    assert_eq!(counts, BTreeMap::from([(0, 6), (1, 2), (2, 1)]));
    assert_eq!(answer.json()["next_offsets"], json!({ "0": 6, "1": 2, "2": 1 }));
    let last = places(&answer).last().unwrap().clone();
    assert_eq!(answer.json()["next_offset"], last.1 + 1);
}

#[tokio::test]
async fn two_pollers_by_turns_with_one_record_each_see_all_partitions() {
    let server = Server::start().await;
    server.topic(2).await;
    for partition in 0..2 {
        server.fill(partition, 5).await;
    }
    let groups = ["a", "b"];
    let mut seen = std::collections::BTreeSet::new();
    // By chance one of them misses a partition once in 2^62 runs.
    for group in groups.into_iter().cycle().take(2 * 64) {
        let answer = server.get(&format!("/topics/t/consume?group={group}&limit=1")).await;
        seen.insert((group, places(&answer)[0].0));
    }
    assert_eq!(seen.len(), 4, "{seen:?}");
}

#[tokio::test]
async fn a_commit_that_cannot_be_meant_is_refused() {
    let server = Server::start().await;
    server.topic(1).await;
    server.fill(0, 3).await;
    let commit = async |body: Value| server.call("POST /topics/t/offsets", body).await;
    let at = |offset: i64| json!({ "group": "g", "partition": 0, "offset": offset });
    assert_eq!(commit(at(2)).await.status, StatusCode::NO_CONTENT);
    let cases = [
        (at(4), (400, "invalid-offset")),
        (at(-1), (400, "invalid-offset")),
        (at(1), (409, "offset-backwards")),
        (json!({ "group": "g", "partition": 1, "offset": 0 }), (400, "invalid-partition")),
        (json!({ "group": "g/h", "partition": 0, "offset": 0 }), (400, "invalid-group")),
        (json!({ "partition": 0, "offset": 0 }), (400, "invalid-group")),
        (json!({ "group": "g", "offset": 0 }), (400, "invalid-partition")),
        (json!({ "group": "g", "partition": 0 }), (400, "invalid-offset")),
    ];
    for (body, (status, code)) in cases {
        let answer = commit(body.clone()).await;
        assert_eq!(answer.error(), (status, code.to_owned()), "{body}");
    }
    assert_eq!(commit(at(4)).await.json()["error"]["log_end"], 3);
    assert_eq!(commit(at(0)).await.json()["error"]["committed"], 2);
    let reset = json!({ "group": "g", "partition": 0, "offset": 0, "reset": true });
    assert_eq!(commit(reset).await.status, StatusCode::NO_CONTENT);
}

#[tokio::test]
async fn a_group_that_retention_overtook_is_told() {
    let server = Server::start().await;
    server.topic(2).await;
    for _ in 0..3 {
        server.fill(1, 1).await;
    }
    let commit = json!({ "group": "old", "partition": 1, "offset": 1 });
    server.call("POST /topics/t/offsets", commit).await;
    server.call("DELETE /topics/t/partitions/1/records?before=2", Value::Null).await;
    for query in ["group=old", "group=old&partition=1"] {
        let answer = server.get(&format!("/topics/t/consume?{query}")).await;
        assert_eq!(answer.error(), (410, "offset-trimmed".to_owned()), "{query}");
        let error = &answer.json()["error"];
        assert_eq!((&error["partition"], &error["earliest"]), (&json!(1), &json!(2)));
    }
    let new = server.get("/topics/t/consume?group=new").await;
    assert_eq!(places(&new).len(), 1, "a group without a commit starts at the earliest");
}

#[tokio::test]
async fn a_waiting_read_gets_what_comes() {
    let paths = ["partitions/0/records?offset=0", "consume?group=g", "consume?group=g&partition=0"];
    for path in paths {
        let server = Server::start().await;
        server.topic(1).await;
        let path = format!("/topics/t/{path}&wait_ms=60000");
        let (answer, ()) = tokio::join!(server.get(&path), server.fill(0, 1));
        assert_eq!(places(&answer), [(0, 0, json!(0))], "{path}");
    }
}

#[tokio::test]
async fn a_waiting_read_learns_that_its_topic_is_deleted() {
    let paths = ["partitions/0/records?offset=1", "consume?group=g", "consume?group=g&partition=0"];
    for path in paths {
        let server = Server::start().await;
        server.topic(1).await;
        server.fill(0, 1).await;
        let commit = json!({ "group": "g", "partition": 0, "offset": 1 });
        server.call("POST /topics/t/offsets", commit).await;
        let path = format!("/topics/t/{path}&wait_ms=60000");
        let delete = server.call("DELETE /topics/t", Value::Null);
        let (answer, _) = tokio::join!(server.get(&path), delete);
        assert_eq!(answer.error(), (404, "topic-not-found".to_owned()), "{path}");
    }
}

#[tokio::test]
async fn a_read_that_races_a_deletion_finds_no_topic() {
    let server = Server::start().await;
    server.topic(1).await;
    server.fill(0, 3).await;
    let node = &server.app.node;
    let name = TopicName::parse("t").unwrap();
    let topic = node.catalog.get(&default_project(), &name).await.unwrap();
    server.call("DELETE /topics/t", Value::Null).await;
    let partition = Partition(0);
    let wait = Duration::from_secs(60);
    let amount = Amount { records_max: 10, bytes_max: 1_000, wait };
    let starts = [0, 1, 3].map(Start::Offset).into_iter().chain([Start::Tail(1), Start::Time(NOW)]);
    for start in starts {
        let found = node.reader.read(topic.id, partition, start, amount).await;
        assert_eq!(found.err(), Some(ConsumeError::TopicGone), "{start:?}");
    }
    for offset in [0, 1, 3] {
        let starts = BTreeMap::from([(Slot::new(topic.id, partition), offset)]);
        let found = node.reader.read_all(&starts, amount).await;
        assert_eq!(found.err(), Some(ConsumeError::TopicGone), "{offset}");
    }
}

#[tokio::test]
async fn a_waiting_read_ends_with_its_time_and_with_the_server() {
    let server = Server::start().await;
    server.topic(1).await;
    let path = "/topics/t/consume?group=g&wait_ms=";
    assert_eq!(places(&server.get(&format!("{path}1")).await), []);
    server.app.node.drain.begin();
    assert_eq!(places(&server.get(&format!("{path}60000")).await), []);
}

#[tokio::test]
async fn retention_trims_by_age_and_by_bytes() {
    let server = Server::start().await;
    server.topic(1).await;
    server.fill(0, 2).await;
    server.clock.advance(Duration::from_secs(3_600));
    server.fill(0, 2).await;
    let start = async || {
        server.app.node.retention.enforce(server.app.node.clock.now()).await.unwrap();
        let told = server.get("/topics/t/partitions").await.json();
        told["partitions"][0]["start_offset"].as_u64().unwrap()
    };
    assert_eq!(start().await, 0);
    server.clock.advance(Duration::from_secs(167 * 3_600 + 1));
    assert_eq!(start().await, 2);
    server.fill(0, 2).await;
    server.call("PATCH /topics/t", json!({ "retention_bytes": 1, "retention_hours": 0 })).await;
    assert_eq!(start().await, 4);
}

#[tokio::test]
async fn a_read_needs_room_before_it_reads_and_holds_what_it_answers() {
    let server = Server::start().await;
    server.topic(1).await;
    server.fill(0, 3).await;
    let node = &server.app.node;
    let mut other = node.answer_budget.permit(crate::node::default_project());
    other.grow_to(node.limits.project_bytes_max - 999).unwrap();
    for path in ["consume?group=g", "partitions/0/records?offset=0"] {
        for (max_bytes, status) in [(999, 200), (1_000, 429)] {
            let answer = server.get(&format!("/topics/t/{path}&max_bytes={max_bytes}")).await;
            assert_eq!(answer.status, status, "{path}&max_bytes={max_bytes}: {}", answer.text);
        }
    }
    server.fill(0, 1).await;
    drop(other);
    let request = Request::get("/topics/t/consume?group=g")
        .header("authorization", format!("Bearer {ADMIN}"))
        .body(Body::empty());
    let response = server.router.clone().oneshot(request.unwrap()).await.unwrap();
    let held = node.answer_budget.bytes();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(held, body.len());
    drop(body);
    assert_eq!(node.answer_budget.bytes(), 0);
}

#[tokio::test]
async fn who_waits_for_records_holds_no_room() {
    let server = Server::start().await;
    server.topic(1).await;
    for path in ["consume?group=g", "partitions/0/records?tail=0"] {
        let path = format!("/topics/t/{path}&wait_ms=60000");
        let mut poll = std::pin::pin!(server.get(&path));
        let early = tokio::time::timeout(Duration::from_millis(20), &mut poll).await;
        assert!(early.is_err(), "{path}");
        assert_eq!(server.app.node.answer_budget.bytes(), 0, "{path}");
    }
}

#[tokio::test]
async fn a_bounded_read_stops_at_its_end_and_does_not_wait_there() {
    let server = Server::start().await;
    server.topic(1).await;
    server.fill(0, 5).await;
    server.clock.set(Timestamp(NOW.0 + 10_000));
    server.fill(0, 2).await;
    let path = |query: &str| format!("/topics/t/partitions/0/records?wait_ms=60000&{query}");
    let cases: [(&str, &[u64], u64); 6] = [
        ("offset=1&end_offset=3", &[1, 2], 3),
        ("offset=3&end_offset=3", &[], 3),
        ("offset=4&end_offset=99", &[4, 5, 6], 7),
        ("offset=2&until=2026-01-02T03:04:10Z", &[2, 3, 4], 5),
        ("timestamp=2026-01-02T03:04:10Z&until=2026-01-02T03:04:06Z", &[], 5),
        ("tail=2&end_offset=6", &[5], 6),
    ];
    for (query, offsets, next) in cases {
        let answer = server.get(&path(query)).await;
        let found: Vec<u64> = places(&answer).into_iter().map(|(_, offset, _)| offset).collect();
        assert_eq!((&found[..], &answer.json()["next_offset"]), (offsets, &json!(next)), "{query}");
    }
    for (query, code) in [
        ("offset=3&end_offset=2", "invalid-end-offset"),
        ("offset=3&end_offset=x", "invalid-end-offset"),
        ("offset=3&until=x", "invalid-until"),
        ("offset=3&end_offset=4&until=2026-01-02T03:04:10Z", "invalid-until"),
    ] {
        assert_eq!(server.get(&path(query)).await.error(), (400, code.to_owned()), "{query}");
    }
}
