//! Topics and projects.

use super::*;

#[tokio::test]
async fn a_topic_is_told_as_it_was_made() {
    let server = Server::start().await;
    let made = server.call("POST /topics", json!({ "name": "order.placed" })).await;
    assert_eq!(made.status, StatusCode::CREATED);
    let expected = json!({
        "name": "order.placed", "partitions": 1, "retention_hours": 168, "retention_bytes": null,
        "description": null, "ack": "durable", "created_at": "2026-01-02T03:04:05.678Z",
    });
    assert_eq!(made.json(), expected);
    assert_eq!(server.get("/topics/order.placed").await.json(), expected);
    assert_eq!(server.get("/topics").await.json(), json!({ "topics": [expected] }));
}

#[tokio::test]
async fn the_same_topic_again_is_no_error_and_another_one_is() {
    let server = Server::start().await;
    let topic = json!({ "name": "t", "partitions": 2, "retention_hours": 0, "ack": "memory" });
    for status in [201, 200] {
        assert_eq!(server.call("POST /topics", topic.clone()).await.status, status);
    }
    let other = server.call("POST /topics", json!({ "name": "t", "partitions": 3 })).await;
    assert_eq!(other.error(), (409, "topic-exists".to_owned()));
}

#[tokio::test]
async fn a_bad_topic_is_refused_and_its_field_named() {
    let server = Server::start().await;
    let cases = [
        (json!({}), "name"),
        (json!({ "name": 1 }), "name"),
        (json!({ "name": "a..b" }), "name"),
        (json!({ "name": "_a" }), "name"),
        (json!({ "name": "a", "partitions": 0 }), "partitions"),
        (json!({ "name": "a", "partitions": 1025 }), "partitions"),
        (json!({ "name": "a", "partitions": "1" }), "partitions"),
        (json!({ "name": "a", "partitions": 1.5 }), "partitions"),
        (json!({ "name": "a", "retention_hours": -1 }), "retention_hours"),
        (json!({ "name": "a", "retention_bytes": "x" }), "retention_bytes"),
        (json!({ "name": "a", "description": 1 }), "description"),
        (json!({ "name": "a", "description": "d".repeat(4_097) }), "description"),
        (json!({ "name": "a", "ack": "maybe" }), "ack"),
        (json!({ "name": "a", "partition": 1 }), "body"),
        (json!([]), "body"),
    ];
    for (body, field) in cases {
        let answer = server.call("POST /topics", body.clone()).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{body}");
        assert_eq!(answer.json()["error"]["field"], field, "{body}: {}", answer.text);
        let code = format!("invalid-{}", field.replace('_', "-"));
        assert_eq!(answer.json()["error"]["code"], code.as_str(), "{body}");
    }
    assert_eq!(server.get("/topics").await.json(), json!({ "topics": [] }));
}

#[tokio::test]
async fn a_body_that_is_not_json_is_refused_with_its_place() {
    let server = Server::start().await;
    let answer = server.call_with("POST /topics", &[], "{\"name\":\n x}").await;
    assert_eq!(answer.error(), (400, "malformed-json".to_owned()));
    assert_eq!(answer.json()["error"]["byte"], 10);
}

#[tokio::test]
async fn topics_come_in_pages() {
    let server = Server::start().await;
    for name in ["a", "b", "c"] {
        server.call("POST /topics", json!({ "name": name })).await;
    }
    let names = |answer: &Answer| {
        let json = answer.json();
        let topics = json["topics"].as_array().unwrap().clone();
        topics.iter().map(|topic| topic["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let first = server.get("/topics?limit=2").await;
    assert_eq!((names(&first), &first.json()["next"]), (vec!["a".into(), "b".into()], &json!("b")));
    let rest = server.get("/topics?limit=2&after=b").await;
    assert_eq!((names(&rest), &rest.json()["next"]), (vec!["c".into()], &Value::Null));
    for limit in ["0", "1001", "x"] {
        let answer = server.get(&format!("/topics?limit={limit}")).await;
        assert_eq!(answer.error(), (400, "invalid-limit".to_owned()), "{limit}");
    }
}

#[tokio::test]
async fn a_patch_changes_what_it_names() {
    let server = Server::start().await;
    server.topic(1).await;
    let patch = json!({ "retention_hours": 1, "retention_bytes": 5, "description": "d" });
    let answer = server.call("PATCH /topics/t", patch).await.json();
    assert_eq!(answer["retention_hours"], 1);
    let answer = server.call("PATCH /topics/t", json!({ "retention_bytes": null })).await.json();
    assert_eq!((&answer["retention_bytes"], &answer["description"]), (&Value::Null, &json!("d")));
    assert_eq!(server.get("/topics/t").await.json(), answer);
}

#[tokio::test]
async fn more_partitions_need_a_word_and_fewer_are_refused() {
    let server = Server::start().await;
    server.topic(2).await;
    let cases = [
        (json!({ "partitions": 1 }), (400, "invalid-partitions")),
        (json!({ "partitions": 1, "accept_key_moves": true }), (400, "invalid-partitions")),
        (json!({ "partitions": 3 }), (409, "key-moves")),
    ];
    for (patch, (status, code)) in cases {
        let answer = server.call("PATCH /topics/t", patch.clone()).await;
        assert_eq!(answer.error(), (status, code.to_owned()), "{patch}");
    }
    let patch = json!({ "partitions": 3, "accept_key_moves": true });
    assert_eq!(server.call("PATCH /topics/t", patch).await.status, StatusCode::OK);
    server.fill(2, 1).await;
}

#[tokio::test]
async fn a_deleted_topic_is_gone_and_its_name_starts_afresh() {
    let server = Server::start().await;
    server.topic(1).await;
    server.fill(0, 3).await;
    let commit = json!({ "group": "g", "partition": 0, "offset": 2 });
    server.call("POST /topics/t/offsets", commit).await;
    let deleted = server.call("DELETE /topics/t", Value::Null).await;
    assert_eq!((deleted.status, deleted.text.as_str()), (StatusCode::NO_CONTENT, ""));
    for call in ["GET /topics/t", "DELETE /topics/t", "GET /topics/t/consume?group=g"] {
        let answer = server.call(call, Value::Null).await;
        assert_eq!(answer.error(), (404, "topic-not-found".to_owned()), "{call}");
    }
    assert_eq!(server.events("{\"value\":1}", &[]).await.status, StatusCode::NOT_FOUND);
    server.topic(1).await;
    server.fill(0, 1).await;
    let answer = server.get("/topics/t/consume?group=g").await;
    assert_eq!(places(&answer), [(0, 0, json!(0))]);
}

#[tokio::test]
async fn stats_count_all_events_ever_published() {
    let server = Server::start().await;
    server.topic(2).await;
    let stats = server.get("/topics/t/stats").await.json();
    let expected = json!({
        "name": "t", "total_events": 0, "total_bytes": 0, "events_per_second": 0.0,
        "last_event_at": null,
    });
    assert_eq!(stats, expected);
    server.fill(0, 40).await;
    server.fill(1, 20).await;
    server.call("DELETE /topics/t/partitions/0/records?before=40", Value::Null).await;
    let stats = server.get("/topics/t/stats").await.json();
    assert_eq!((&stats["total_events"], &stats["events_per_second"]), (&json!(60), &json!(1.0)));
    assert_eq!(stats["last_event_at"], "2026-01-02T03:04:05.678Z");
    server.clock.advance(Duration::from_secs(60));
    assert_eq!(server.get("/topics/t/stats").await.json()["events_per_second"], 0.0);
}

#[tokio::test]
async fn the_first_topic_makes_its_project() {
    let server = Server::start().await;
    let missing = server.get("/projects/new/topics").await;
    assert_eq!(missing.error(), (404, "project-not-found".to_owned()));
    let made = server.call("POST /v1/projects/new/topics", json!({ "name": "t" })).await;
    assert_eq!(made.status, StatusCode::CREATED);
    assert_eq!(server.get("/projects/new/topics/t").await.status, StatusCode::OK);
    assert_eq!(server.get("/topics/t").await.status, StatusCode::NOT_FOUND);
    let names: Vec<_> = server.get("/projects").await.json()["projects"]
        .as_array()
        .unwrap()
        .iter()
        .map(|project| project["name"].clone())
        .collect();
    assert_eq!(names, ["default", "new"]);
}

#[tokio::test]
async fn a_refused_topic_makes_no_project() {
    let server = Server::start().await;
    for topic in [json!({ "name": "_t" }), json!({ "name": "t", "partitions": 0 }), json!({})] {
        let refused = server.call("POST /projects/ghost/topics", topic.clone()).await;
        assert_eq!(refused.status, StatusCode::BAD_REQUEST, "{topic}");
        let missing = server.get("/projects/ghost/topics").await;
        assert_eq!(missing.error(), (404, "project-not-found".to_owned()), "{topic}");
    }
}

#[tokio::test]
async fn a_project_is_put_once() {
    let server = Server::start().await;
    for status in [201, 200] {
        let answer = server.call("PUT /projects/p", Value::Null).await;
        assert_eq!((answer.status.as_u16(), &answer.json()["name"]), (status, &json!("p")));
    }
    let answer = server.call("PUT /projects/_system", Value::Null).await;
    assert_eq!(answer.error(), (400, "invalid-project".to_owned()));
}
