//! Records by their id and by their key.

use super::*;

/// A topic `t` with these indexes.
async fn indexed(server: &Server, partitions: u32, index: Value) {
    let topic = json!({ "name": "t", "partitions": partitions, "index": index });
    let made = server.call("POST /topics", topic).await;
    assert_eq!(made.status, StatusCode::CREATED, "{}", made.text);
}

async fn publish(server: &Server, lines: &str) {
    let answer = server.events(lines.to_owned(), &[]).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
}

/// The values of records with a key, and the answer's `next`.
async fn page(server: &Server, path: &str) -> (Vec<u64>, Option<String>) {
    let answer = server.get(path).await;
    let values = places(&answer).into_iter().map(|(_, _, value)| value.as_u64().unwrap()).collect();
    (values, answer.json()["next"].as_str().map(ToOwned::to_owned))
}

#[tokio::test]
async fn indexes_are_part_of_a_topics_configuration() {
    let server = Server::start().await;
    for status in [201, 200] {
        // The order of the words and a repeat of one mean nothing.
        let topic = json!({ "name": "t", "index": ["key", "id", "key"] });
        let answer = server.call("POST /topics", topic).await;
        assert_eq!(answer.status, status);
        assert_eq!(answer.json()["index"], json!(["id", "key"]));
    }
    for index in [json!(["id"]), json!([]), Value::Null] {
        let answer = server.call("POST /topics", json!({ "name": "t", "index": index })).await;
        assert_eq!(answer.error(), (409, "topic-exists".to_owned()), "{index}");
    }
    let patched = server.call("PATCH /topics/t", json!({ "description": "d" })).await;
    assert_eq!(patched.json()["index"], json!(["id", "key"]));
    let plain = server.call("POST /topics", json!({ "name": "u", "index": [] })).await;
    assert_eq!((plain.status.as_u16(), plain.json().get("index")), (201, None));
}

#[tokio::test]
async fn a_bad_index_is_refused_and_named() {
    let server = Server::start().await;
    for (index, word) in [
        (json!(["id", "time"]), "`time`"),
        (json!(["ID"]), "`ID`"),
        (json!([""]), "``"),
        (json!("id"), "list"),
        (json!([1]), "list"),
        (json!({}), "list"),
    ] {
        let answer = server.call("POST /topics", json!({ "name": "t", "index": index })).await;
        assert_eq!(answer.error(), (400, "invalid-index".to_owned()), "{index}");
        assert!(answer.text.contains(word), "{index}: {}", answer.text);
    }
    server.topic(1).await;
    let answer = server.call("PATCH /topics/t", json!({ "index": ["id"] })).await;
    assert_eq!(answer.error(), (400, "invalid-index".to_owned()));
}

#[tokio::test]
async fn an_event_is_found_by_its_id_the_newest_if_there_are_several() {
    let server = Server::start().await;
    indexed(&server, 2, json!(["id"])).await;
    publish(&server, "{\"value\":1,\"id\":\"a\",\"partition\":1,\"headers\":{\"h\":\"v\"}}\n")
        .await;
    let found = server.get("/topics/t/events/a").await;
    let expected = json!({
        "topic": "t", "partition": 1, "offset": 0, "timestamp": "2026-01-02T03:04:05.678Z",
        "id": "a", "headers": { "h": "v" }, "value": 1,
    });
    assert_eq!((found.status, found.json()), (StatusCode::OK, expected));
    publish(&server, "{\"value\":2,\"id\":\"a\",\"partition\":0}\n{\"value\":3,\"id\":\"b\"}\n")
        .await;
    assert_eq!(server.get("/topics/t/events/a").await.json()["value"], 2);
    assert_eq!(server.get("/topics/t/events/b").await.json()["value"], 3);
    let key = server.get("/topics/t/keys/a").await;
    assert_eq!(key.error(), (409, "not-indexed".to_owned()));
}

#[tokio::test]
async fn ids_are_percent_decoded_and_may_be_long() {
    let server = Server::start().await;
    indexed(&server, 1, json!(["id", "key"])).await;
    let (longest, longer) = ("x".repeat(1_024), "x".repeat(1_025));
    let texts = ["a/b", "ü €", "100%", "?&#", &longest, &longer];
    for (value, text) in texts.iter().enumerate() {
        let line = json!({ "value": value, "id": text, "key": text });
        publish(&server, &format!("{line}\n")).await;
    }
    for (value, text) in texts.iter().enumerate() {
        let encoded =
            percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC);
        let found = server.get(&format!("/topics/t/events/{encoded}")).await;
        assert_eq!(found.json()["value"], value, "{text}");
        let (values, _) = page(&server, &format!("/topics/t/keys/{encoded}")).await;
        assert_eq!(values, [value as u64], "{text}");
    }
    let bad = server.get("/topics/t/events/%ff").await;
    assert_eq!(bad.error(), (400, "invalid-path".to_owned()));
}

#[tokio::test]
async fn what_is_not_there_is_not_found() {
    let server = Server::start().await;
    indexed(&server, 1, json!(["id", "key"])).await;
    publish(&server, "{\"value\":1,\"id\":\"a\",\"key\":\"k\"}\n{\"value\":2}\n").await;
    for (path, status, code) in [
        ("/topics/t/events/b", 404, "event-not-found"),
        ("/topics/none/events/a", 404, "topic-not-found"),
        ("/topics/none/keys/k", 404, "topic-not-found"),
        ("/topics/a..b/keys/k", 400, "invalid-topic"),
    ] {
        assert_eq!(server.get(path).await.error(), (status, code.to_owned()), "{path}");
    }
    let none = server.get("/topics/t/keys/a").await;
    assert_eq!((none.status, none.json()), (StatusCode::OK, json!({ "records": [] })));
}

#[tokio::test]
async fn a_topic_without_the_index_says_so_and_how_to_get_it() {
    let server = Server::start().await;
    server.topic(1).await;
    publish(&server, "{\"value\":1,\"id\":\"a\",\"key\":\"k\"}\n").await;
    for (path, index) in [("events/a", "id"), ("keys/k", "key")] {
        let answer = server.get(&format!("/topics/t/{path}")).await;
        assert_eq!(answer.error(), (409, "not-indexed".to_owned()));
        let error = &answer.json()["error"];
        assert_eq!((&error["field"], &error["retryable"]), (&json!(index), &json!(false)));
        let message = error["message"].as_str().unwrap();
        assert!(message.contains(&format!("`\"index\": [\"{index}\"]`")), "{message}");
    }
}

#[tokio::test]
async fn bad_lookups_are_refused_by_name() {
    let server = Server::start().await;
    indexed(&server, 1, json!(["key"])).await;
    for (query, code) in [
        ("limit=0", "invalid-limit"),
        ("limit=10001", "invalid-limit"),
        ("max_bytes=0", "invalid-max-bytes"),
        ("before=x", "invalid-before"),
        ("before=1.2.3", "invalid-before"),
        // Of another topic.
        ("before=1.999.0.0", "invalid-before"),
    ] {
        let answer = server.get(&format!("/topics/t/keys/k?{query}")).await;
        assert_eq!(answer.error(), (400, code.to_owned()), "{query}");
    }
    let key = server.key(&["publish"]).await;
    for path in ["keys/k", "events/i"] {
        let answer = server.call_as(&key, &format!("GET /topics/t/{path}"), Value::Null).await;
        assert_eq!(answer.error(), (403, "missing-scope".to_owned()));
    }
}

/// Ten commits of a key, in turn over three partitions, two records in each.
async fn spread(server: &Server) {
    indexed(server, 3, json!(["key"])).await;
    for n in 0..10 {
        let (partition, first, second) = (n * 7 % 3, 2 * n, 2 * n + 1);
        let line =
            |value| format!("{{\"value\":{value},\"key\":\"k\",\"partition\":{partition}}}\n");
        let other = format!("{{\"value\":0,\"key\":\"kk\",\"partition\":{partition}}}\n");
        publish(server, &format!("{}{other}{}", line(first), line(second))).await;
    }
}

#[tokio::test]
async fn records_of_a_key_come_newest_first_over_all_partitions() {
    let server = Server::start().await;
    spread(&server).await;
    let newest: Vec<u64> = (0..20).rev().collect();
    assert_eq!(page(&server, "/topics/t/keys/k").await, (newest.clone(), None));
    for limit in [1, 3, 19, 20] {
        let (mut all, mut next) = page(&server, &format!("/topics/t/keys/k?limit={limit}")).await;
        assert_eq!(all.len(), limit);
        while let Some(before) = next {
            let path = format!("/topics/t/keys/k?limit={limit}&before={before}");
            let more;
            (more, next) = page(&server, &path).await;
            assert!(!more.is_empty(), "a page that is told of has records");
            all.extend(more);
        }
        assert_eq!(all, newest, "{limit} a page");
    }
}

#[tokio::test]
async fn pages_are_bounded_in_bytes_and_not_moved_by_what_comes_meanwhile() {
    let server = Server::start().await;
    spread(&server).await;
    let (first, next) = page(&server, "/topics/t/keys/k?max_bytes=1").await;
    assert_eq!(first, [19], "at least one record is given");
    publish(&server, "{\"value\":99,\"key\":\"k\",\"partition\":2}\n").await;
    let path = format!("/topics/t/keys/k?limit=2&before={}", next.unwrap());
    assert_eq!(page(&server, &path).await.0, [18, 17]);
}

#[tokio::test]
async fn copies_of_one_commit_in_several_partitions_are_paged_without_loss() {
    let server = Server::start().await;
    indexed(&server, 4, json!(["key"])).await;
    let line = |n| format!("{{\"value\":{n},\"key\":\"k\",\"partition\":{}}}\n", n % 4);
    for from in [0, 8] {
        publish(&server, &(from..from + 8).map(line).collect::<String>()).await;
    }
    let whole = page(&server, "/topics/t/keys/k").await.0;
    assert!(whole[..8].iter().all(|value| *value >= 8), "{whole:?}");
    let (mut all, mut next) = (Vec::new(), Some(String::new()));
    while let Some(before) = next {
        let before = if before.is_empty() { before } else { format!("&before={before}") };
        let more;
        (more, next) = page(&server, &format!("/topics/t/keys/k?limit=1{before}")).await;
        all.extend(more);
    }
    assert_eq!(all, whole);
    all.sort_unstable();
    assert_eq!(all, (0..16).collect::<Vec<_>>());
}

#[tokio::test]
async fn trimmed_records_vanish_from_answers() {
    let server = Server::start().await;
    indexed(&server, 2, json!(["id", "key"])).await;
    for n in 0..6 {
        let line = json!({ "value": n, "id": format!("{n}"), "key": "k", "partition": n % 2 });
        publish(&server, &format!("{line}\n")).await;
    }
    let (_, next) = page(&server, "/topics/t/keys/k?limit=1").await;
    server.call("DELETE /topics/t/partitions/0/records?before=3", Value::Null).await;
    assert_eq!(page(&server, "/topics/t/keys/k").await, (vec![5, 3, 1], None));
    let path = format!("/topics/t/keys/k?before={}", next.unwrap());
    assert_eq!(page(&server, &path).await, (vec![3, 1], None));
    let gone = server.get("/topics/t/events/4").await;
    assert_eq!(gone.error(), (404, "event-not-found".to_owned()));
    assert_eq!(server.get("/topics/t/events/5").await.json()["value"], 5);
}

#[tokio::test]
async fn a_topic_made_again_knows_nothing_of_the_former() {
    let server = Server::start().await;
    for _ in 0..2 {
        indexed(&server, 1, json!(["id", "key"])).await;
        let gone = server.get("/topics/t/events/a").await;
        assert_eq!(gone.error(), (404, "event-not-found".to_owned()));
        publish(&server, "{\"value\":1,\"id\":\"a\",\"key\":\"k\"}\n").await;
        server.call("DELETE /topics/t", Value::Null).await;
    }
}

#[tokio::test]
async fn every_way_to_publish_gives_entries() {
    let server = Server::start().await;
    indexed(&server, 1, json!(["id", "key"])).await;
    let produced = json!({ "value": 1, "key": "k", "id": "produced" });
    let answer = server.call("POST /topics/t/produce", produced).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
    let headers = [
        ("ce-specversion", "1.0"),
        ("ce-id", "cloud"),
        ("ce-source", "/s"),
        ("ce-type", "t"),
        ("ce-partitionkey", "k"),
        ("content-type", "application/json"),
    ];
    assert_eq!(server.call_with("POST /topics/t/events", &headers, "2").await.status, 200);
    assert_eq!(server.call_with("POST /events", &headers, "3").await.status, 200);
    let event = json!({ "value": 4, "id": "transacted", "key": "k" });
    let transaction = json!({ "publish": [{ "topic": "t", "events": [event] }] });
    assert_eq!(server.call("POST /transactions", transaction).await.status, StatusCode::OK);
    // A copy has entries in the topic that it goes to.
    server.call("POST /topics", json!({ "name": "u" })).await;
    let route = server.call("PUT /routes/r", json!({ "match": "u", "to": ["t"] })).await;
    assert!(route.status.is_success(), "{}", route.text);
    let routed = json!({ "value": 5, "key": "k", "id": "routed" });
    assert_eq!(server.call("POST /topics/u/produce", routed).await.status, StatusCode::OK);
    for (id, value) in [("produced", 1), ("cloud", 3), ("transacted", 4), ("routed", 5)] {
        assert_eq!(server.get(&format!("/topics/t/events/{id}")).await.json()["value"], value);
    }
    assert_eq!(page(&server, "/topics/t/keys/k").await.0, [5, 4, 3, 2, 1]);
}

#[tokio::test]
async fn a_full_request_of_long_ids_and_keys_fits_in_a_transaction() {
    let server = Server::start().await;
    indexed(&server, 1, json!(["id", "key"])).await;
    let line = |n| json!({ "value": n, "id": format!("{n:0>700}"), "key": "k".repeat(700) });
    let lines: String = (0..10_000).map(|n| format!("{}\n", line(n))).collect();
    publish(&server, &lines).await;
    assert!(page(&server, "/topics/t/keys/none").await.0.is_empty());
    let newest = page(&server, &format!("/topics/t/keys/{}?limit=2", "k".repeat(700))).await;
    assert_eq!(newest.0, [9_999, 9_998]);
}
