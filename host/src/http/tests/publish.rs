//! Publishing, once and again.

use super::*;

const SEQUENCE: [(&str, &str); 3] =
    [("producer-id", "p"), ("producer-epoch", "0"), ("producer-seq", "0")];

#[tokio::test]
async fn a_produced_event_is_read_as_it_was_sent() {
    let server = Server::start().await;
    server.topic(1).await;
    let event = json!({ "value": { "a": 1 }, "key": "k", "headers": { "h": "1" } });
    let produced = server.call("POST /topics/t/produce", event).await;
    let place = json!({
        "topic": "t", "partition": 0, "offset": 0, "timestamp": "2026-01-02T03:04:05.678Z",
        "ack": "durable",
    });
    assert_eq!((produced.status, produced.json()), (StatusCode::OK, place));
    let expected = json!({
        "topic": "t", "partition": 0, "offset": 0, "timestamp": "2026-01-02T03:04:05.678Z",
        "key": "k", "headers": { "h": "1" }, "value": { "a": 1 },
    });
    assert_eq!(server.get("/topics/t/consume?group=g").await.json()["records"][0], expected);
}

#[tokio::test]
async fn the_answer_to_many_events_names_each_partition() {
    let server = Server::start().await;
    server.topic(3).await;
    server.fill(2, 1).await;
    let lines = "{\"value\":1,\"partition\":2}\n\n{\"value\":2,\"partition\":0}\n\
                 {\"value\":3,\"partition\":2}\n";
    let answer = server.events(lines, &[]).await;
    let expected = json!({
        "topic": "t", "count": 3, "ack": "durable", "duplicate": false,
        "partitions": [
            { "partition": 0, "first_offset": 0, "last_offset": 0 },
            { "partition": 2, "first_offset": 1, "last_offset": 2 },
        ],
    });
    assert_eq!(answer.json(), expected);
}

#[tokio::test]
async fn bad_events_are_refused_and_nothing_is_stored() {
    let server = Server::with_limits(Limits {
        event_bytes_max: 20,
        request_bytes_max: 200,
        request_events_max: 3,
        headers_max: 1,
        ..Limits::default()
    })
    .await;
    server.topic(1).await;
    let good = "{\"value\":1}\n";
    let cases = [
        (String::new(), (400, "empty-batch")),
        ("\n\n".to_owned(), (400, "empty-batch")),
        (format!("{good}nope"), (400, "malformed-event")),
        (format!("{good}{{\"key\":\"k\"}}"), (400, "malformed-event")),
        (format!("{good}{{\"value\":1,\"valeu\":2}}"), (400, "malformed-event")),
        (format!("{good}{{\"value\":1,\"partition\":1}}"), (400, "invalid-partition")),
        (format!("{good}{{\"value\":\"{}\"}}", "v".repeat(19)), (413, "too-large")),
        (
            format!("{good}{{\"value\":1,\"headers\":{{\"a\":\"\",\"b\":\"\"}}}}"),
            (413, "too-large"),
        ),
        (good.repeat(4), (413, "too-large")),
        (format!("{good}{}", " ".repeat(200)), (413, "too-large")),
    ];
    for (lines, (status, code)) in cases {
        let answer = server.events(lines.clone(), &[]).await;
        assert_eq!(answer.error(), (status, code.to_owned()), "{lines}: {}", answer.text);
    }
    assert_eq!(server.get("/topics/t/stats").await.json()["total_events"], 0);
    let at_the_limit =
        format!("{{\"value\":\"{}\",\"headers\":{{}}}}\n{good}{good}", "v".repeat(18));
    assert_eq!(server.events(at_the_limit, &[]).await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_malformed_line_names_its_index_and_its_byte() {
    let server = Server::start().await;
    server.topic(1).await;
    let answer = server.events("{\"value\":1}\n\n{\"value\":x}\n", &[]).await;
    let error = &answer.json()["error"];
    assert_eq!((&error["index"], &error["byte"]), (&json!(1), &json!(22)), "{}", answer.text);
}

#[tokio::test]
async fn limits_are_named_with_their_value() {
    let server = Server::with_limits(Limits { request_bytes_max: 30, ..Limits::default() }).await;
    server.topic(1).await;
    let answer = server.events(format!("{{\"value\":\"{}\"}}", "v".repeat(30)), &[]).await;
    let error = &answer.json()["error"];
    assert_eq!((&error["limit"], &error["max"]), (&json!("request_bytes"), &json!(30)));
}

#[tokio::test]
async fn another_content_type_is_refused() {
    let server = Server::start().await;
    server.topic(1).await;
    for path in ["events", "produce"] {
        let call = format!("POST /topics/t/{path}");
        let headers = [("content-type", "text/csv")];
        let answer = server.call_with(&call, &headers, "a,b").await;
        assert_eq!(answer.error(), (415, "unsupported-media-type".to_owned()), "{path}");
    }
}

#[tokio::test]
async fn cloudevents_keep_their_attributes() {
    let server = Server::start().await;
    server.topic(1).await;
    let headers = [
        ("content-type", "text/plain"),
        ("ce-specversion", "1.0"),
        ("ce-id", "1"),
        ("ce-source", "/s"),
        ("ce-type", "a.b"),
        ("ce-partitionkey", "k"),
    ];
    let answer = server.call_with("POST /topics/t/events", &headers, "hello").await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
    let record = server.get("/topics/t/consume?group=g").await.json()["records"][0].clone();
    assert_eq!((&record["value"], &record["encoding"]), (&json!("aGVsbG8="), &json!("base64")));
    assert_eq!((&record["key"], &record["id"]), (&json!("k"), &json!("1")));
    assert_eq!(record["content_type"], "text/plain");
    assert_eq!(record["headers"]["ce-type"], "a.b");
}

#[tokio::test]
async fn a_repeated_sequence_is_stored_once_and_answered_alike() {
    let server = Server::start().await;
    server.topic(2).await;
    let lines = "{\"value\":1,\"partition\":1}\n{\"value\":2,\"partition\":1}";
    let first = server.events(lines, &SEQUENCE).await.json();
    let again = server.events(lines, &SEQUENCE).await.json();
    assert_eq!((&first["duplicate"], &again["duplicate"]), (&json!(false), &json!(true)));
    assert_eq!(first["partitions"], again["partitions"]);
    assert_eq!(server.get("/topics/t/stats").await.json()["total_events"], 2);
    let state = server.get("/producers/p").await.json();
    assert_eq!(state, json!({ "id": "p", "epoch": 0, "last_seq": 0 }));
}

#[tokio::test]
async fn a_repeated_sequence_with_another_body_is_answered_as_the_first_time() {
    let server = Server::start().await;
    server.topic(1).await;
    server.call("POST /topics", json!({ "name": "u" })).await;
    let first = server.events("{\"value\":1}\n{\"value\":2}", &SEQUENCE).await.json();
    let mut headers = SEQUENCE.to_vec();
    headers.push(("content-type", "application/x-ndjson"));
    let call = "POST /topics/u/events";
    let mut again = server.call_with(call, &headers, "{\"value\":3}").await.json();
    assert_eq!(again["duplicate"].take(), true);
    again["duplicate"] = false.into();
    assert_eq!(again, first);
}

#[tokio::test]
async fn a_repeated_produce_has_its_first_place() {
    let server = Server::start().await;
    server.topic(1).await;
    server.fill(0, 3).await;
    let mut headers = SEQUENCE.to_vec();
    headers.push(("content-type", "application/json"));
    let mut places = Vec::new();
    for duplicate in [Value::Null, json!(true)] {
        let call = "POST /topics/t/produce";
        let answer = server.call_with(call, &headers, "{\"value\":1}").await.json();
        assert_eq!(answer["duplicate"], duplicate);
        places.push((answer["offset"].clone(), answer["timestamp"].clone()));
        server.clock.advance(Duration::from_secs(1));
    }
    assert_eq!(places[0], places[1]);
}

#[tokio::test]
async fn an_unknown_producer_is_not_found() {
    let server = Server::start().await;
    assert_eq!(server.get("/producers/p").await.error(), (404, "producer-not-found".to_owned()));
}

#[tokio::test]
async fn a_stale_epoch_and_a_gap_are_refused_with_what_holds() {
    let server = Server::start().await;
    server.topic(1).await;
    let publish = async |epoch: &str, sequence: &str| {
        let headers = [("producer-id", "p"), ("producer-epoch", epoch), ("producer-seq", sequence)];
        server.events("{\"value\":1}", &headers).await
    };
    assert_eq!(publish("1", "0").await.status, StatusCode::OK);
    let stale = publish("0", "0").await;
    assert_eq!(stale.error(), (403, "stale-epoch".to_owned()));
    assert_eq!(stale.json()["error"]["current_epoch"], 1);
    // A request that comes early waits for the one before it, by the server's clock.
    let mut ticks = tokio::time::interval(Duration::from_millis(10));
    let mut early = std::pin::pin!(publish("1", "2"));
    let gap = loop {
        tokio::select! {
            answer = &mut early => break answer,
            _ = ticks.tick() => server.clock.advance(Duration::from_millis(500)),
        }
    };
    assert_eq!(gap.error(), (409, "sequence-gap".to_owned()));
    let error = &gap.json()["error"];
    assert_eq!((&error["expected"], &error["received"]), (&json!(1), &json!(2)));
    assert_eq!(error["retryable"], true);
}

#[tokio::test]
async fn an_idempotency_key_stores_once_until_it_expires() {
    let server = Server::start().await;
    server.topic(1).await;
    let key = [("idempotency-key", "\"k\"")];
    let first = server.events("{\"value\":1}", &key).await.json();
    let again = server.events("{\"value\":1}", &[("idempotency-key", "k")]).await.json();
    assert_eq!((&first["duplicate"], &again["duplicate"]), (&json!(false), &json!(true)));
    assert_eq!(first["partitions"], again["partitions"]);
    let other = server.events("{\"value\":2}", &key).await;
    assert_eq!(other.error(), (422, "payload-mismatch".to_owned()));
    assert_eq!(server.get("/topics/t/stats").await.json()["total_events"], 1);
    server.clock.advance(Duration::from_secs(61));
    let later = server.events("{\"value\":2}", &key).await.json();
    assert_eq!(later["duplicate"], false);
}

#[tokio::test]
async fn an_idempotency_key_is_forgotten_with_its_topic() {
    let server = Server::start().await;
    for life in 1..=2 {
        server.topic(1).await;
        let key = [("idempotency-key", "k")];
        for expected in [false, true] {
            let answer = server.events("{\"value\":1}", &key).await.json();
            assert_eq!(answer["duplicate"], expected, "life {life} of the topic");
        }
        assert_eq!(server.get("/topics/t/stats").await.json()["total_events"], 1);
        server.call("DELETE /topics/t", Value::Null).await;
    }
}

#[tokio::test]
async fn an_id_of_128_characters_passes_and_one_more_is_refused() {
    let server = Server::start().await;
    server.topic(1).await;
    let (longest, too_long) = ("i".repeat(128), "i".repeat(129));
    let producer = |id| [("producer-id", id), SEQUENCE[1], SEQUENCE[2]];
    for headers in [&producer(longest.as_str())[..], &[("idempotency-key", &longest)]] {
        let answer = server.events("{\"value\":1}", headers).await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
    }
    for headers in [&producer(too_long.as_str())[..], &[("idempotency-key", &too_long)]] {
        let answer = server.events("{\"value\":1}", headers).await;
        assert_eq!(answer.error(), (400, format!("invalid-{}", headers[0].0)));
    }
    let answer = server.get(&format!("/producers/{longest}")).await;
    assert_eq!(answer.json()["last_seq"], 0);
}

#[tokio::test]
async fn identity_headers_are_complete_or_refused() {
    let server = Server::start().await;
    server.topic(1).await;
    let cases: [(&[(&str, &str)], &str); 3] = [
        (&SEQUENCE[..2], "invalid-producer-seq"),
        (&SEQUENCE[1..], "invalid-producer-id"),
        (&[("idempotency-key", "k"), ("producer-id", "p")], "invalid-idempotency-key"),
    ];
    for (headers, code) in cases {
        let answer = server.events("{\"value\":1}", headers).await;
        assert_eq!(answer.error(), (400, code.to_owned()), "{headers:?}");
    }
}

#[tokio::test]
async fn the_weaker_ack_is_asked_for_and_named() {
    let server = Server::start().await;
    server.topic(1).await;
    let headers = [("content-type", "application/json")];
    let call = "POST /topics/t/produce?ack=memory";
    let answer = server.call_with(call, &headers, "{\"value\":1}").await;
    assert_eq!(answer.json()["ack"], "memory");
    let answer = server.call_with("POST /topics/t/produce?ack=none", &headers, "{}").await;
    assert_eq!(answer.error(), (400, "invalid-ack".to_owned()));
}

#[tokio::test]
async fn what_the_server_writes_is_not_published_to() {
    let server = Server::start().await;
    let call = "POST /topics/_dead-letter/produce";
    let answer = server.call(call, json!({ "value": 1 })).await;
    assert_eq!(answer.error(), (400, "invalid-topic".to_owned()));
}
