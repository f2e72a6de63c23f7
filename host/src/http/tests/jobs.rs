//! Jobs: from their enqueuing to their end.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;

use super::*;

impl Server {
    async fn enqueue(&self, body: Value) -> Value {
        let answer = self.call("POST /queues/q/jobs", body).await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
        answer.json()
    }

    async fn claim(&self, max: usize) -> Vec<Value> {
        let answer = self.call("POST /queues/q/claim", json!({ "max": max })).await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
        answer.json()["jobs"].as_array().unwrap().clone()
    }

    /// A call about a job, with its lease.
    async fn about(&self, job: &Value, what: &str, mut body: Value) -> Answer {
        body["lease"] = job["lease"].clone();
        let path = format!("POST /queues/q/jobs/{}/{what}", job["id"].as_str().unwrap());
        self.call(&path, body).await
    }
}

#[tokio::test]
async fn a_payload_that_only_calls_itself_json_is_shown_as_bytes() {
    let server = Server::start().await;
    let deep = [[b'['; 200], [b']'; 200]].concat();
    for payload in [&b"\"\xff\""[..], &deep] {
        let payload = BASE64_STANDARD.encode(payload);
        let job = json!({
            "payload": payload, "encoding": "base64", "content_type": "a/b+json",
        });
        server.enqueue(job).await;
        let job = server.claim(1).await.remove(0);
        assert_eq!((&job["payload"], &job["encoding"]), (&json!(payload), &json!("base64")));
    }
}

#[tokio::test]
async fn a_job_is_taken_with_its_payload_as_it_was_sent() {
    let server = Server::start().await;
    let body = r#"{"payload":{"b": 1.50,  "a":"\u00e9"},"key":"k","headers":{"h":"1"}}"#;
    let json = [("content-type", "application/json")];
    let made = server.call_with("POST /queues/q/jobs", &json, body).await.json();
    let id = made["jobs"][0]["id"].as_str().unwrap();
    assert_eq!(
        made,
        json!({
            "queue": "q", "jobs": [{ "id": id, "duplicate": false }], "duplicate": false,
        })
    );
    let claim = json!({ "worker": "w", "lease_ms": 5_000 });
    let claimed = server.call("POST /queues/q/claim", claim).await;
    assert!(claimed.text.contains(r#""payload":{"b": 1.50,  "a":"\u00e9"}"#), "{}", claimed.text);
    let job = claimed.json()["jobs"][0].clone();
    let expected = json!({
        "id": id, "queue": "q", "key": "k", "headers": { "h": "1" },
        "payload": { "a": "é", "b": 1.5 }, "attempt": 1, "lease": 1,
        "enqueued_at": "2026-01-02T03:04:05.678Z", "leased_until": "2026-01-02T03:04:10.678Z",
    });
    assert_eq!(job, expected);
    let view = server.get(&format!("/queues/q/jobs/{id}")).await.json();
    assert_eq!((&view["state"], &view["attempts"]), (&json!("leased"), &json!(1)));
    let longer = server.about(&job, "heartbeat", json!({ "lease_ms": 60_000 })).await.json();
    assert_eq!(
        longer,
        json!({
            "id": id, "state": "leased", "leased_until": "2026-01-02T03:05:05.678Z",
        })
    );
    let done = server.about(&job, "complete", json!({ "result": { "n": 1 } })).await.json();
    assert_eq!(done, json!({ "id": id, "state": "done" }));
    let view = server.get(&format!("/queues/q/jobs/{id}")).await.json();
    assert_eq!((&view["state"], &view["result"]), (&json!("done"), &json!({ "n": 1 })));
    let again = server.about(&job, "complete", json!({})).await;
    assert_eq!(again.error(), (409, "stale-lease".to_owned()));
    let none = server.get(&format!("/queues/q/jobs/job_{}", "0".repeat(24))).await;
    assert_eq!(none.error(), (404, "job-not-found".to_owned()));
}

#[tokio::test]
async fn what_is_not_json_is_base64() {
    let server = Server::start().await;
    let job = json!({ "payload": "/w==", "encoding": "base64", "content_type": "image/x" });
    server.enqueue(job).await;
    let job = server.claim(1).await.remove(0);
    assert_eq!((&job["payload"], &job["encoding"]), (&json!("/w=="), &json!("base64")));
    assert_eq!(job["content_type"], "image/x");
}

#[tokio::test]
async fn a_job_waits_for_its_time() {
    let server = Server::start().await;
    server
        .enqueue(json!({ "jobs": [
            { "payload": "later", "delay_ms": 1_000 },
            { "payload": "then", "due_at": "2026-01-02T03:04:07.678Z" },
            { "payload": "now" },
        ] }))
        .await;
    let payloads = async || -> Vec<Value> {
        let jobs = server.claim(9).await;
        jobs.iter().map(|job| job["payload"].clone()).collect()
    };
    assert_eq!(payloads().await, ["now"]);
    let queue = server.get("/queues/q").await.json();
    assert_eq!((&queue["waiting"], &queue["leased"]), (&json!(2), &json!(1)));
    assert_eq!(queue["next_due"], "2026-01-02T03:04:06.678Z");
    server.clock.advance(Duration::from_secs(1));
    assert_eq!(payloads().await, ["later"]);
    server.clock.advance(Duration::from_secs(1));
    assert_eq!(payloads().await, ["then"]);
}

#[tokio::test]
async fn a_repeat_gets_the_same_ids_and_another_payload_is_refused() {
    let server = Server::start().await;
    let headers = [("content-type", "application/json"), ("idempotency-key", "once")];
    let enqueue = async |queue: &str, body: Value| {
        let call = format!("POST /queues/{queue}/jobs");
        server.call_with(&call, &headers, body.to_string()).await
    };
    let jobs =
        json!({ "jobs": [{ "payload": 1, "unique": "u" }, { "payload": 2, "unique": "u" }] });
    let first = enqueue("q", jobs.clone()).await.json();
    assert_eq!(
        (&first["jobs"][1]["duplicate"], &first["duplicate"]),
        (&json!(true), &json!(false))
    );
    let again = enqueue("q", jobs.clone()).await.json();
    assert_eq!((&again["jobs"], &again["duplicate"]), (&first["jobs"], &json!(true)));
    let other = enqueue("q", json!({ "payload": 2 })).await;
    assert_eq!(other.error(), (422, "payload-mismatch".to_owned()));
    // In another queue it is another key.
    let elsewhere = enqueue("r", jobs).await.json();
    assert_eq!(elsewhere["duplicate"], false);
    assert_eq!(server.claim(9).await.len(), 1);
}

#[tokio::test]
async fn as_many_jobs_as_a_request_may_have_are_told_again() {
    let server = Server::start().await;
    let headers = [("content-type", "application/json"), ("idempotency-key", "once")];
    let jobs = |count: usize| json!({ "jobs": vec![json!({ "payload": 1 }); count] }).to_string();
    let first = server.call_with("POST /queues/q/jobs", &headers, jobs(1_000)).await.json();
    let again = server.call_with("POST /queues/q/jobs", &headers, jobs(1_000)).await.json();
    assert_eq!((first["jobs"].as_array().unwrap().len(), &again["jobs"]), (1_000, &first["jobs"]));
    let more = server.call_with("POST /queues/q/jobs", &headers, jobs(1_001)).await;
    assert_eq!(more.error(), (400, "invalid-jobs".to_owned()));
    assert_eq!(server.claim(1_000).await.len(), 1_000);
}

#[tokio::test]
async fn bad_jobs_are_refused_by_their_field() {
    let server = Server::with_limits(Limits { event_bytes_max: 50, ..Limits::default() }).await;
    let big = "x".repeat(50);
    let cases = [
        (json!({}), (400, "invalid-payload")),
        (json!({ "payload": 1, "pay": 1 }), (400, "invalid-pay")),
        (json!({ "jobs": [] }), (400, "invalid-jobs")),
        (
            json!({ "jobs": [{ "payload": 1 }, { "payload": 1, "delay_ms": "1" }] }),
            (400, "invalid-delay-ms"),
        ),
        (json!({ "payload": 1, "due_at": "soon" }), (400, "invalid-due-at")),
        (json!([]), (400, "invalid-body")),
        (json!({ "payload": big }), (413, "too-large")),
    ];
    for (body, (status, code)) in cases {
        let answer = server.call("POST /queues/q/jobs", body.clone()).await;
        assert_eq!(answer.error(), (status, code.to_owned()), "{body}");
    }
    let none = server.get("/queues/q").await;
    assert_eq!(none.error(), (404, "queue-not-found".to_owned()), "a refused job makes no queue");
}

#[tokio::test]
async fn bad_claims_are_refused_by_their_field() {
    let server = Server::start().await;
    let none = server.call("POST /queues/q/claim", Value::Null).await;
    assert_eq!(none.error(), (404, "queue-not-found".to_owned()));
    server.call("PUT /queues/q", Value::Null).await;
    assert_eq!(server.claim(1).await, Vec::<Value>::new());
    let cases = [
        (json!({ "max": 0 }), "invalid-max"),
        (json!({ "max": 1_001 }), "invalid-max"),
        (json!({ "wait_ms": 60_001 }), "invalid-wait-ms"),
        (json!({ "lease_ms": 99 }), "invalid-lease-ms"),
        (json!({ "lease_ms": 2_592_000_001_u64 }), "invalid-lease-ms"),
        (json!({ "max_bytes": 0 }), "invalid-max-bytes"),
        (json!({ "worker": "" }), "invalid-worker"),
        (json!({ "n": 1 }), "invalid-body"),
    ];
    for (body, code) in cases {
        let answer = server.call("POST /queues/q/claim", body.clone()).await;
        assert_eq!(answer.error(), (400, code.to_owned()), "{body}");
    }
}

#[tokio::test]
async fn a_late_worker_is_refused_and_counted() {
    let server = Server::start().await;
    server.enqueue(json!({ "payload": 1 })).await;
    let late = server.claim(1).await.remove(0);
    server.clock.advance(Duration::from_secs(30));
    let next = server.claim(1).await.remove(0);
    assert_eq!((&next["id"], &next["attempt"]), (&late["id"], &json!(2)));
    let calls = [
        ("heartbeat", json!({})),
        ("complete", json!({})),
        ("fail", json!({ "reason": "r" })),
        ("snooze", json!({ "delay_ms": 1 })),
    ];
    for (what, body) in calls {
        let refused = server.about(&late, what, body).await;
        assert_eq!(refused.error(), (409, "stale-lease".to_owned()), "{what}");
        let current = &refused.json()["error"]["current"];
        assert_eq!(current, &json!({ "id": late["id"], "lease": 2 }));
    }
    let both = json!({ "jobs": [
        { "id": late["id"], "lease": late["lease"] },
        { "id": format!("job_{}", "0".repeat(24)), "lease": 1 },
    ] });
    let refused = server.call("POST /queues/q/complete", both).await;
    let codes = |place: usize| refused.json()["jobs"][place]["error"]["code"].clone();
    assert_eq!((codes(0), codes(1)), (json!("stale-lease"), json!("job-not-found")));
    server.about(&next, "complete", json!({})).await;
    let metrics = server.get("/metrics").await.text;
    let expected = [("enqueued", 1), ("claimed", 2), ("completed", 1), ("stale", 6), ("dead", 0)];
    for (what, count) in expected {
        assert!(
            metrics.contains(&format!("\nstream_jobs_{what}_total {count}\n")),
            "{what}: {metrics}"
        );
    }
}

#[tokio::test]
async fn a_failed_job_is_tried_again_when_it_is_said_to() {
    let server = Server::start().await;
    server.enqueue(json!({ "jobs": [{ "payload": 1 }, { "payload": 2 }, { "payload": 3 }] })).await;
    let jobs = server.claim(3).await;
    let later = server.about(&jobs[0], "fail", json!({ "reason": "r", "delay_ms": 1_000 })).await;
    assert_eq!(later.json()["due_at"], "2026-01-02T03:04:06.678Z");
    let never = server.about(&jobs[1], "fail", json!({ "reason": "r", "retry": false })).await;
    assert_eq!(never.json()["state"], "dead");
    let both = json!({ "retry": false, "delay_ms": 1 });
    let refused = server.about(&jobs[2], "fail", both).await;
    assert_eq!(refused.error(), (400, "invalid-delay-ms".to_owned()));
    let snoozed = server.about(&jobs[2], "snooze", json!({ "delay_ms": 1_000 })).await;
    assert_eq!(snoozed.json()["state"], "waiting");
    server.clock.advance(Duration::from_secs(1));
    let again = server.claim(9).await;
    let attempts: Vec<_> = again.iter().map(|job| (&job["payload"], &job["attempt"])).collect();
    assert_eq!(attempts, [(&json!(1), &json!(2)), (&json!(3), &json!(1))]);
    assert_eq!(again[0]["last_error"], "r");
}

#[tokio::test]
async fn what_a_job_publishes_is_stored_with_its_end_or_not_at_all() {
    let server = Server::start().await;
    server.topic(1).await;
    server.enqueue(json!({ "jobs": [{ "payload": 1 }, { "payload": 2 }] })).await;
    let late = server.claim(1).await.remove(0);
    let publish = |value: u32| json!({ "publish": [{ "topic": "t", "value": value, "key": "k" }] });
    // A topic that is not there: the job is still held.
    let nowhere = json!({ "publish": [{ "topic": "none", "value": 1 }] });
    let refused = server.about(&late, "complete", nowhere).await;
    assert_eq!(refused.error(), (404, "topic-not-found".to_owned()));
    let bad = server.about(&late, "complete", json!({ "publish": [{ "value": 1 }] })).await;
    assert_eq!(bad.error(), (400, "malformed-event".to_owned()));
    server.clock.advance(Duration::from_secs(30));
    let jobs = server.claim(9).await;
    let stale = server.about(&late, "complete", publish(1)).await;
    assert_eq!(stale.error(), (409, "stale-lease".to_owned()));
    assert_eq!(server.values("t", 0).await, Vec::<Value>::new());
    let held = jobs.iter().find(|job| job["id"] == late["id"]).unwrap();
    let done = server.about(held, "complete", publish(2)).await.json();
    assert_eq!((&done["state"], &done["published"]["count"]), (&json!("done"), &json!(1)));
    let again = server.about(held, "complete", publish(3)).await;
    assert_eq!(again.error(), (404, "job-not-found".to_owned()));
    assert_eq!(server.values("t", 0).await, [json!(2)]);
    // Who may not publish may not here either.
    let other = jobs.iter().find(|job| job["id"] != late["id"]).unwrap();
    let key = server.key(&["consume"]).await;
    let path = format!("POST /queues/q/jobs/{}/complete", other["id"].as_str().unwrap());
    let mut body = publish(4);
    body["lease"] = other["lease"].clone();
    let refused = server.call_as(&key, &path, body).await;
    assert_eq!(refused.error(), (403, "missing-scope".to_owned()));
}

#[tokio::test]
async fn an_end_with_a_key_is_told_again() {
    let server = Server::start().await;
    server.topic(1).await;
    server.enqueue(json!({ "payload": 1 })).await;
    let job = server.claim(1).await.remove(0);
    let path = format!("POST /queues/q/jobs/{}/complete", job["id"].as_str().unwrap());
    let headers = [("content-type", "application/json"), ("idempotency-key", "end")];
    let body =
        json!({ "lease": job["lease"], "publish": [{ "topic": "t", "value": 1 }] }).to_string();
    let first = server.call_with(&path, &headers, body.clone()).await.json();
    let again = server.call_with(&path, &headers, body).await.json();
    let duplicate = |answer: &Value| answer["published"]["duplicate"].clone();
    assert_eq!((duplicate(&first), duplicate(&again)), (json!(false), json!(true)));
    assert_eq!(first["published"]["topics"], again["published"]["topics"]);
    assert_eq!(server.values("t", 0).await, [json!(1)]);
}

#[tokio::test]
async fn many_jobs_end_with_one_call() {
    let server = Server::start().await;
    let jobs = json!({ "jobs": [{ "payload": 1 }, { "payload": 2 }] });
    server.enqueue(jobs).await;
    let jobs = server.claim(2).await;
    let end = |job: &Value| json!({ "id": job["id"], "lease": job["lease"], "result": { "n": 1 } });
    let twice = json!({ "jobs": [end(&jobs[0]), end(&jobs[0])] });
    let refused = server.call("POST /queues/q/complete", twice).await;
    assert_eq!(refused.error(), (400, "invalid-jobs".to_owned()));
    let ended = server
        .call("POST /queues/q/complete", json!({ "jobs": [end(&jobs[0]), end(&jobs[1])] }))
        .await;
    assert_eq!(
        ended.json(),
        json!({ "jobs": [
        { "id": jobs[0]["id"], "state": "done" },
        { "id": jobs[1]["id"], "state": "done" },
    ] })
    );
    let large =
        json!({ "jobs": [{ "id": jobs[0]["id"], "lease": 1, "result": "x".repeat(65_535) }] });
    let refused = server.call("POST /queues/q/complete", large).await;
    assert_eq!(refused.error(), (400, "invalid-result".to_owned()));
}

#[tokio::test]
async fn an_answer_is_bounded_and_the_rest_is_left() {
    let server = Server::start().await;
    let job = json!({ "payload": "x".repeat(1_000) });
    server.enqueue(json!({ "jobs": vec![job; 10] })).await;
    let claim = json!({ "max": 10, "max_bytes": 4_000 });
    let some = server.call("POST /queues/q/claim", claim).await.json();
    assert_eq!(some["jobs"].as_array().unwrap().len(), 2);
    let listed = server.get("/queues/q/jobs?max_bytes=4000").await.json();
    let next = listed["next"].as_str().unwrap();
    assert_eq!(listed["jobs"].as_array().unwrap().len(), 2);
    let rest = server.get(&format!("/queues/q/jobs?after={next}")).await.json();
    assert_eq!((rest["jobs"].as_array().unwrap().len(), rest.get("next")), (6, None));
    assert_eq!(server.claim(10).await.len(), 8);
    assert_eq!(server.app.node().answer_budget.bytes(), 0);
}

#[tokio::test]
async fn who_waits_gets_the_job_and_who_is_gone_does_not() {
    let server = Arc::new(Server::start().await);
    server.call("PUT /queues/q", Value::Null).await;
    let wait = |server: &Arc<Server>| {
        let server = Arc::clone(server);
        tokio::spawn(async move {
            let claim = json!({ "wait_ms": 60_000, "max": 9 });
            server.call("POST /queues/q/claim", claim).await.json()
        })
    };
    let gone = wait(&server);
    // It waits once it has looked: its queue is watched, and no room is held.
    let node = server.app.node();
    let project = crate::node::default_project();
    let name = crate::name::QueueName::parse("q").unwrap();
    while !node.queues.has_waiting(&project, &name) || node.answer_budget.bytes() > 0 {
        tokio::task::yield_now().await;
    }
    gone.abort();
    assert!(gone.await.unwrap_err().is_cancelled());
    while node.queues.has_waiting(&project, &name) {
        tokio::task::yield_now().await;
    }
    let here = wait(&server);
    while !node.queues.has_waiting(&project, &name) {
        tokio::task::yield_now().await;
    }
    server.enqueue(json!({ "payload": 1 })).await;
    let jobs = here.await.unwrap();
    assert_eq!((&jobs["jobs"][0]["payload"], &jobs["jobs"][0]["attempt"]), (&json!(1), &json!(1)));
}
