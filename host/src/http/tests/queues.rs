//! Queues: settings, how they stand, dead jobs.

use super::*;

#[tokio::test]
async fn a_queue_is_set_up_shown_listed_and_deleted() {
    let server = Server::start().await;
    let settings = json!({
        "attempts_max": 3, "lease_ms": 1_000, "ordered": true, "concurrency": 5,
        "rate_per_second": 2.5, "backoff": { "delays_ms": [100, 200] },
    });
    let put = server.call("PUT /queues/mail", settings).await;
    assert_eq!(put.status, StatusCode::OK, "{}", put.text);
    let expected = json!({
        "attempts_max": 3, "lease_ms": 1_000, "ordered": true, "concurrency": 5,
        "rate_per_second": 2.5, "backoff": { "delays_ms": [100, 200] }, "paused": false,
    });
    assert_eq!(put.json(), json!({ "queue": "mail", "settings": expected }));
    let shown = server.get("/queues/mail").await.json();
    assert_eq!(
        shown,
        json!({
            "queue": "mail", "settings": expected,
            "waiting": 0, "leased": 0, "dead": 0, "next_due": null,
        })
    );
    // What is not given is as usual, and not as it was.
    server.call("PUT /queues/mail", json!({})).await;
    let listed = server.get("/queues").await.json();
    assert_eq!(listed["queues"][0]["settings"]["attempts_max"], 10);
    assert_eq!(server.call("DELETE /queues/mail", Value::Null).await.status, 204);
    let gone = server.get("/queues/mail").await;
    assert_eq!(gone.error(), (404, "queue-not-found".to_owned()));
    let gone = server.call("DELETE /queues/mail", Value::Null).await;
    assert_eq!(gone.error(), (404, "queue-not-found".to_owned()));
}

#[tokio::test]
async fn bad_settings_are_named() {
    let server = Server::start().await;
    let cases = [
        (json!({ "speed": 1 }), "invalid-body"),
        (json!({ "attempts_max": 0 }), "invalid-attempts-max"),
        (json!({ "attempts_max": "3" }), "invalid-attempts-max"),
        (json!({ "lease_ms": 99 }), "invalid-lease-ms"),
        (json!({ "concurrency": 0 }), "invalid-concurrency"),
        (json!({ "rate_per_second": 0 }), "invalid-rate-per-second"),
        (json!({ "rate_per_second": "1" }), "invalid-rate-per-second"),
        (json!({ "backoff": 1 }), "invalid-backoff"),
        (json!({ "backoff": { "base_ms": 1 } }), "invalid-max-ms"),
        (json!({ "backoff": { "delays_ms": [] } }), "invalid-backoff-delays-ms"),
        (json!({ "backoff": { "delays_ms": [-1] } }), "invalid-delays-ms"),
        (json!({ "backoff": { "delays_ms": [1], "base_ms": 1 } }), "invalid-body"),
        (json!({ "ordered": 1 }), "invalid-ordered"),
    ];
    for (settings, code) in cases {
        let answer = server.call("PUT /queues/q", settings.clone()).await;
        assert_eq!(answer.error(), (400, code.to_owned()), "{settings}");
    }
    let unknown = server.call("PUT /queues/q", json!({ "speed": 1 })).await;
    assert!(unknown.text.contains("`speed`"), "{}", unknown.text);
}

#[tokio::test]
async fn queues_of_the_servers_own_are_shown_and_not_changed() {
    let server = Server::start().await;
    let own = crate::name::QueueName::parse("_own").unwrap();
    let project = crate::node::default_project();
    let settings = crate::queue::QueueSettings::default();
    server.app.node().queues.configure(&project, &own, &settings).await.unwrap();
    assert_eq!(server.get("/queues/_own").await.status, StatusCode::OK);
    assert_eq!(server.get("/queues/_own/jobs").await.status, StatusCode::OK);
    let id = format!("job_{}", "0".repeat(24));
    let calls = [
        "PUT /queues/_own".to_owned(),
        "DELETE /queues/_own".to_owned(),
        "POST /queues/_own/jobs".to_owned(),
        "POST /queues/_own/claim".to_owned(),
        "POST /queues/_own/complete".to_owned(),
        "POST /queues/_own/redrive".to_owned(),
        "POST /queues/_own/discard".to_owned(),
        format!("POST /queues/_own/jobs/{id}/complete"),
    ];
    for call in calls {
        let answer = server.call(&call, json!({ "payload": 1, "lease": 1 })).await;
        assert_eq!(answer.error(), (400, "invalid-queue".to_owned()), "{call}");
    }
}

#[tokio::test]
async fn each_call_needs_its_scope() {
    let server = Server::start().await;
    server.call("PUT /queues/q", json!({})).await;
    let id = format!("job_{}", "0".repeat(24));
    let calls = [
        ("GET /queues".to_owned(), &["publish", "consume", "manage", "deploy"][..]),
        ("GET /queues/q".to_owned(), &["publish", "consume", "manage", "deploy"]),
        ("PUT /queues/q".to_owned(), &["manage"]),
        ("POST /queues/q/redrive".to_owned(), &["manage"]),
        ("POST /queues/q/discard".to_owned(), &["manage"]),
        ("GET /queues/q/jobs".to_owned(), &["consume"]),
        ("POST /queues/q/jobs".to_owned(), &["publish"]),
        ("POST /queues/q/claim".to_owned(), &["consume"]),
        ("POST /queues/q/complete".to_owned(), &["consume"]),
        (format!("GET /queues/q/jobs/{id}"), &["consume"]),
        (format!("POST /queues/q/jobs/{id}/heartbeat"), &["consume"]),
        (format!("POST /queues/q/jobs/{id}/complete"), &["consume"]),
        (format!("POST /queues/q/jobs/{id}/fail"), &["consume"]),
        (format!("POST /queues/q/jobs/{id}/snooze"), &["consume"]),
        ("DELETE /queues/q".to_owned(), &["manage"]),
    ];
    for scope in ["publish", "consume", "deploy", "manage"] {
        let key = server.key(&[scope]).await;
        for (call, scopes) in &calls {
            let answer = server.call_as(&key, call, Value::Null).await;
            let is_refused = answer.status == StatusCode::FORBIDDEN;
            assert_eq!(is_refused, !scopes.contains(&scope), "{scope}: {call}: {}", answer.text);
        }
    }
}

#[tokio::test]
async fn dead_jobs_are_listed_tried_again_and_discarded() {
    let server = Server::start().await;
    server.call("PUT /queues/q", json!({ "attempts_max": 1 })).await;
    let jobs = json!({ "jobs": [{ "payload": 1 }, { "payload": 2 }, { "payload": 3 }] });
    server.call("POST /queues/q/jobs", jobs).await;
    let claimed = server.call("POST /queues/q/claim", json!({ "max": 9 })).await.json();
    let mut ids = Vec::new();
    for job in claimed["jobs"].as_array().unwrap() {
        let id = job["id"].as_str().unwrap().to_owned();
        let fail = json!({ "lease": job["lease"], "reason": "no" });
        let failed = server.call(&format!("POST /queues/q/jobs/{id}/fail"), fail).await.json();
        assert_eq!(failed["state"], "dead");
        ids.push(id);
    }
    let page = server.get("/queues/q/jobs?state=dead&limit=2").await.json();
    assert_eq!(page["jobs"][1]["last_error"], "no");
    let next = page["next"].as_str().unwrap();
    let rest = server.get(&format!("/queues/q/jobs?state=dead&after={next}")).await.json();
    assert_eq!((rest["jobs"].as_array().unwrap().len(), rest.get("next")), (1, None));
    let some = json!({ "ids": [ids[0]] });
    let redriven = server.call("POST /queues/q/redrive", some.clone()).await.json();
    assert_eq!(redriven, json!({ "redriven": 1 }));
    assert_eq!(server.call("POST /queues/q/discard", some).await.json(), json!({ "discarded": 0 }));
    let discarded = server.call("POST /queues/q/discard", Value::Null).await.json();
    assert_eq!(discarded, json!({ "discarded": 2 }));
    let claimed = server.call("POST /queues/q/claim", json!({ "max": 9 })).await.json();
    assert_eq!(
        (&claimed["jobs"][0]["id"], &claimed["jobs"][0]["attempt"]),
        (&json!(ids[0]), &json!(1))
    );
    assert_eq!(claimed["jobs"][0]["last_error"], "no");
    for (ids, code) in [(json!([]), "invalid-ids"), (json!(["x"]), "invalid-ids")] {
        let refused = server.call("POST /queues/q/redrive", json!({ "ids": ids })).await;
        assert_eq!(refused.error(), (400, code.to_owned()));
    }
}
